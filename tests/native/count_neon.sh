#!/usr/bin/env bash
# Builds the block core for AArch64, counts under qemu-user the instructions that plain C and NEON take for a weight of
# each type, and writes the table to docs/neon.md. PLUGIN_VERSION=2 for QEMU 9 and later.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
folder=${1:-build/neon}
cross=${CROSS_CC:-aarch64-linux-gnu-gcc}
mkdir -p "$folder"
flags=(-O3 -std=c11 -ffp-contract=off -Wall -Wextra -Werror)
plugin=(-O2 -std=c11 -D_DEFAULT_SOURCE -DPLUGIN_VERSION="${PLUGIN_VERSION:-1}" -shared -fPIC -Wall -Wextra -Werror)
"$cross" "${flags[@]}" -Inative tests/native/count.c native/*.c native/isa/*.c -static -o "$folder/count" -lm
"${CC:-cc}" "${plugin[@]}" tests/native/qemu_count.c -o "$folder/qemu_count.so"
"${QEMU:-qemu-aarch64}" -plugin "$folder/qemu_count.so" "$folder/count" > "$folder/counts"
{
    echo "# Instructions a weight on AArch64"
    echo
    echo "Made by \`make count-neon\`: instructions that one thread runs to encode and decode a weight from and to"
    echo "float32, counted under qemu-user. Weights have a bell-shaped distribution; both columns are built by"
    echo "$("$cross" --version | head -n 1) at -O3. Plain C is free to use vector"
    echo "instructions where the compiler finds a place for them. Counts say nothing of time: a division counts as"
    echo "much as an addition."
    echo
    awk -f tests/native/count_neon.awk "$folder/counts"
} > docs/neon.md
echo "wrote docs/neon.md"
