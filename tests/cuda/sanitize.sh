#!/usr/bin/env bash
# The kernels on the emulated GPU, compiled with AddressSanitizer and UndefinedBehaviorSanitizer. The core beside them
# is the ordinary one; what calls a driver is Python, and left out. Usage: sanitize.sh PYTHON [pytest arguments]
set -euo pipefail
python=$1
shift
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
compiler=${CXX:-g++}
export GGUF_FORGE_SANITIZE=address,undefined CUDA_HOST=1
export LD_PRELOAD="$("$compiler" -print-file-name=libasan.so) $("$compiler" -print-file-name=libstdc++.so)"
# Python never frees all; fibers have stacks of their own, on which a function's end cannot be watched.
export ASAN_OPTIONS=detect_leaks=0:halt_on_error=1:detect_stack_use_after_return=0
export UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1
drivers=(--ignore=tests/cuda/test_{driver,device_arrays,offload,report}.py)
exec "$python" -m pytest -p no:cacheprovider tests/cuda "${drivers[@]}" "$@"
