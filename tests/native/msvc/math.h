/* Of Microsoft's headers, which only their own installer brings, what the core uses: see ../msvc.sh. */
#pragma once
#define INFINITY __builtin_inff()
#define NAN __builtin_nanf("")
#define HUGE_VALF __builtin_huge_valf()
float fabsf(float);
float sqrtf(float);
