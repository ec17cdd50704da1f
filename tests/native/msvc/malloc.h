/* Of Microsoft's headers, which only their own installer brings, what clang's intrinsics use: see ../msvc.sh. */
#pragma once
#include <stddef.h>
void *_aligned_malloc(size_t, size_t);
void _aligned_free(void *);
