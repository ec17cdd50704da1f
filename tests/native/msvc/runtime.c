/* What code by clang-cl expects of Microsoft's C library and MinGW's does not have: see ../msvc.sh. */
#include <stdint.h>
#include <stdlib.h>
int _fltused = 1;
uintptr_t __security_cookie = 0x2b992ddfa232u;
void __security_check_cookie(uintptr_t cookie);
void __security_check_cookie(uintptr_t cookie)
{
    if (cookie != __security_cookie) {
        abort();
    }
}
