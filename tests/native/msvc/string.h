/* Of Microsoft's headers, which only their own installer brings, what the core uses: see ../msvc.sh. */
#pragma once
#include <stddef.h>
void *memcpy(void *, const void *, size_t);
void *memset(void *, int, size_t);
int memcmp(const void *, const void *, size_t);
int strcmp(const char *, const char *);
