/* What Python's headers ask of a platform when only the stable interface is used, for any compiler of clang's or GCC's
 * kind: its own figures. A Python's own pyconfig.h states those of the machine it was built for, which is not the one
 * compiled for here. */
#ifndef FORGE_PYCONFIG_H
#define FORGE_PYCONFIG_H

#define ALIGNOF_MAX_ALIGN_T __BIGGEST_ALIGNMENT__
#define SIZEOF_SHORT __SIZEOF_SHORT__
#define SIZEOF_INT __SIZEOF_INT__
#define SIZEOF_LONG __SIZEOF_LONG__
#define SIZEOF_LONG_LONG __SIZEOF_LONG_LONG__
#define SIZEOF_FLOAT __SIZEOF_FLOAT__
#define SIZEOF_DOUBLE __SIZEOF_DOUBLE__
#define SIZEOF_SIZE_T __SIZEOF_SIZE_T__
#define SIZEOF_VOID_P __SIZEOF_POINTER__
#define SIZEOF_WCHAR_T __SIZEOF_WCHAR_T__
#define STDC_HEADERS 1
#define HAVE_STDINT_H 1
#define HAVE_STDDEF_H 1
#define HAVE_SYS_TYPES_H 1
#define HAVE_WCHAR_H 1
#define HAVE_PROTOTYPES 1

#if defined(_WIN32)
#define MS_WINDOWS 1
#define MS_WIN32 1
#define MS_WIN64 1
#define HAVE_DECLSPEC_DLL 1
#define Py_ENABLE_SHARED 1 /* the interpreter is a DLL */
#define SIZEOF_PID_T SIZEOF_INT
#define SIZEOF_OFF_T SIZEOF_LONG
#else
#define _GNU_SOURCE 1 /* the C library's alloca, under -std=c11 */
#define _DARWIN_C_SOURCE 1
#define HAVE_UNISTD_H 1
#define HAVE_SSIZE_T 1
#define SIZEOF_PID_T SIZEOF_INT
#define SIZEOF_OFF_T 8
#endif

#endif
