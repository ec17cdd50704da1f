#!/usr/bin/env bash
# Compiles a Python for musl, and prints its path: Debian packages that C library and a compiler for it, but no Python, so
# Debian's sources of Python and three libraries are compiled here. It runs in place: it is not installed anywhere.
# Usage: musl_python.sh FOLDER
set -euo pipefail
mkdir -p "$1"
cd "$1"
made=$PWD/python/python
if [ ! -f "$PWD/.made" ]; then
  . /etc/os-release
  version=$(/usr/bin/python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')
  mkdir -p apt/lists apt/cache zlib libffi xz-utils "python$version"
  ln -sfn "python$version" python
  printf 'deb-src http://deb.debian.org/debian %s main\n' "$VERSION_CODENAME" > sources.list
  apt=(apt-get -q -o "Dir::Etc::sourcelist=$PWD/sources.list" -o Dir::Etc::sourceparts=- -o "Dir::State::lists=$PWD/apt/lists"
    -o "Dir::Cache=$PWD/apt/cache" -o APT::Sandbox::User=root)
  "${apt[@]}" update
  "${apt[@]}" source --download-only "python$version" zlib libffi xz-utils
  for name in "python$version" zlib libffi xz-utils; do
    tar -xf "$(find . -maxdepth 1 -name "${name}_*.orig.tar.*" ! -name '*.asc')" -C "$name" --strip-components=1
  done
  # Extension modules are looked for under the name of the C library, which older Pythons ask of the compiler.
  printf '#!/bin/sh\ncase "$*" in *print-multiarch*) echo x86_64-linux-musl ;; *) exec musl-gcc "$@" ;; esac\n' > cc
  chmod +x cc
  export CC=$PWD/cc CFLAGS=-fPIC
  (cd zlib && ./configure --static && make -j "$(nproc)" libz.a)
  (cd libffi
    ./configure --disable-shared --with-pic --disable-docs --disable-exec-static-tramp --prefix="$PWD/out"
    make -j "$(nproc)" install)
  (cd xz-utils
    ./configure --disable-{shared,xz,xzdec,lzmadec,lzmainfo,scripts,doc,nls} --with-pic --prefix="$PWD/out"
    make -j "$(nproc)" install)
  ffi=$(dirname "$(find "$PWD/libffi/out" -name libffi.a)")
  # Threads have stacks of 1 MiB, as in Alpine's and Docker's Pythons; musl's own 128 KiB are too few for the core.
  export CPPFLAGS="-I$PWD/zlib -I$PWD/libffi/out/include -I$PWD/xz-utils/out/include"
  export LDFLAGS="-L$PWD/zlib -L$ffi -L$PWD/xz-utils/out/lib -Wl,-z,stack-size=0x100000"
  export LIBFFI_CFLAGS="-I$PWD/libffi/out/include" LIBFFI_LIBS="-L$ffi -lffi"
  export ZLIB_CFLAGS="-I$PWD/zlib" ZLIB_LIBS="-L$PWD/zlib -lz"
  export LIBLZMA_CFLAGS="-I$PWD/xz-utils/out/include" LIBLZMA_LIBS="-L$PWD/xz-utils/out/lib -llzma"
  cd python
  sed -i 's/\(  *\)x86_64-linux-gnu$/\1x86_64-linux-musl/' configure
  ./configure --without-ensurepip --disable-test-modules OPT='-O1'
  make -j "$(nproc)"
  touch ../.made
fi >&2
"$made" -c 'import sys, zlib, lzma, ctypes, hashlib; assert sys.version_info >= (3, 10)'
echo "$made"
