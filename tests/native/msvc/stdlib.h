/* Of Microsoft's headers, which only their own installer brings, what the core and clang use: see ../msvc.sh. */
#pragma once
#include <stddef.h>
int abs(int);
void *malloc(size_t);
void free(void *);
