#!/usr/bin/env bash
# Compiles the block core as clang-cl does on Windows, for both processors, warnings as errors, with clang's own driver for
# that. Microsoft's headers cannot be had here: msvc/ declares the dozen functions that the core asks of them. This shows
# that flags and sources are such as clang-cl takes, and, by parity under `make wheels`, nothing of how the result runs.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
folder=${1:-build/msvc}
mkdir -p "$folder"
python=${PYTHON:-python3}
mapfile -t flags < <("$python" -c 'import runpy; print(*runpy.run_path("native/compilers.py")["CLANG_CL"], sep="\n")')
for machine in x86_64 aarch64; do
  for source in native/*.c native/isa/*.c; do
    "${CLANG:-clang}" --driver-mode=cl "--target=$machine-pc-windows-msvc" /nologo "${flags[@]}" /WX /Zl \
      /imsvc tests/native/msvc -Inative /c "$source" "/Fo$folder/$machine-$(basename "$source" .c).obj"
  done
  echo "$machine-pc-windows-msvc: the core compiles"
done
