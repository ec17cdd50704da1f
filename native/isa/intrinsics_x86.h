/* x86's intrinsics, all of them. In MSVC's dialect clang's immintrin.h leaves out the instruction sets that the command
 * line does not name, though each function in its parts states its own: clang-cl gets those parts one by one. */
#include <immintrin.h>
#if defined(_MSC_VER)
#include <tmmintrin.h>
#include <smmintrin.h>
#include <avxintrin.h>
#include <avx2intrin.h>
#include <f16cintrin.h>
#include <avx512fintrin.h>
#include <avx512bwintrin.h>
#include <avx512dqintrin.h>
#include <avx512vlintrin.h>
#include <avx512vlbwintrin.h>
#include <avx512vldqintrin.h>
#if __has_include(<avx512vnniintrin.h>)
#include <avx512vnniintrin.h>
#endif
#endif
