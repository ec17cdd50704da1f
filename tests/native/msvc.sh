#!/usr/bin/env bash
# Compiles the block core as clang-cl does on Windows, for both processors, warnings as errors, with clang's own driver for
# that. Microsoft's headers cannot be had here: msvc/ declares the dozen functions that the core asks of them. With a zig
# and Wine at hand the core for x86-64 is also linked with MinGW's C library, and each instruction set compared with plain
# C by this machine's compiler. Usage: msvc.sh PYTHON [FOLDER]; the Python is one that has ziglang.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
python=$1 folder=${2:-build/msvc}
source tests/native/objects.sh
sources=(native/*.c native/isa/*.c)
mapfile -t flags < <("$python" -c 'import runpy; print(*runpy.run_path("native/compilers.py")["CLANG_CL"], sep="\n")')
for machine in x86_64 aarch64; do
  objects "$folder/$machine" "${CLANG:-clang}" --driver-mode=cl "--target=$machine-pc-windows-msvc" /nologo \
    "${flags[@]}" /WX /Zl /imsvc tests/native/msvc -Inative
  echo "clang-cl, $machine: the core compiles"
done
wine=$(PATH=$PATH:/usr/lib/wine command -v wine64) || { echo "no Wine at hand: not run"; exit 0; }
plain=(-O2 -std=c11 -ffp-contract=off -Inative)
"$python" -m ziglang cc -target x86_64-windows-gnu -Wno-builtin-requires-header "${plain[@]}" \
  tests/native/parity.c tests/native/msvc/runtime.c "$folder"/x86_64/*.o -o "$folder/parity.exe"
sources+=(tests/native/parity.c)
objects "$folder/here.o" "${CC:-cc}" "${plain[@]}"
"${CC:-cc}" "$folder"/here.o/*.o -o "$folder/parity" -lm
"$folder/parity" scalar > "$folder/here"
export WINEPREFIX=$PWD/$folder/prefix WINEDEBUG=-all WINEDLLOVERRIDES="mscoree,mshtml="
for isa in scalar avx2 avx512; do
  grep -q "\b${isa/scalar/fpu}" /proc/cpuinfo || continue
  : | "$wine" "$folder/parity.exe" "$isa" | tr -d '\r' | diff "$folder/here" -
  echo "clang-cl, x86_64, $isa under Wine: $(wc -l < "$folder/here") types equal plain C here"
done
