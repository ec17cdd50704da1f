#!/usr/bin/env bash
# Builds the block core for AArch64, runs it under qemu-user, and checks that NEON agrees with plain C there, and that
# both agree with plain C on this machine.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source tests/native/objects.sh
folder=${1:-build/neon}
cross=${CROSS_CC:-aarch64-linux-gnu-gcc}
mkdir -p "$folder"
flags=(-O2 -std=c11 -ffp-contract=off -Wall -Wextra -Werror -Inative)
sources=(tests/native/parity.c native/*.c native/isa/*.c)
objects "$folder/objects" "${CC:-cc}" "${flags[@]}"
"${CC:-cc}" "$folder"/objects/*.o -o "$folder/parity" -lm
objects "$folder/objects-aarch64" "$cross" "${flags[@]}"
"$cross" "$folder"/objects-aarch64/*.o -static -o "$folder/parity-aarch64" -lm
"$folder/parity" scalar > "$folder/here"
"${QEMU:-qemu-aarch64}" "$folder/parity-aarch64" neon > "$folder/neon" || { grep differs "$folder/neon"; exit 1; }
diff "$folder/here" "$folder/neon"
echo "neon: $(wc -l < "$folder/here") types equal plain C"
