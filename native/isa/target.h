/* TARGET_BEGIN(features) to TARGET_END: the functions between are compiled for an instruction set, `features` in the
 * words of GCC's and clang's target attribute. TARGET_TUNE(options), after it, is for GCC alone. */
#ifndef FORGE_ISA_TARGET_H
#define FORGE_ISA_TARGET_H

#define TARGET_PRAGMA(words) _Pragma(#words)

#if defined(__clang__)
#define TARGET_BEGIN(features) \
    TARGET_PRAGMA(clang attribute push(__attribute__((target(features))), apply_to = function))
#define TARGET_TUNE(options)
#define TARGET_END TARGET_PRAGMA(clang attribute pop)
#else
#define TARGET_BEGIN(features) TARGET_PRAGMA(GCC push_options) TARGET_PRAGMA(GCC target(features))
#define TARGET_TUNE(options) TARGET_PRAGMA(GCC target(options))
#define TARGET_END TARGET_PRAGMA(GCC pop_options)
#endif

#endif
