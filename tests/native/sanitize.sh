#!/usr/bin/env bash
# The suite on a core built with AddressSanitizer and UndefinedBehaviorSanitizer, in a copy of the tree, so that the
# ordinary build stays as it is. Usage: sanitize.sh PYTHON FOLDER [pytest arguments]
set -euo pipefail
python=$1 folder=$2
shift 2
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
rm -rf "$folder"
mkdir -p "$folder"
tar --exclude=./build --exclude=./out --exclude=./.git --exclude=./.venv --exclude='*.so' --exclude=__pycache__ -cf - . \
  | tar -xf - -C "$folder"
cd "$folder"
export GGUF_FORGE_SANITIZE=address,undefined
"$python" setup.py -q build_ext --inplace
compiler=${CC:-gcc}
# libstdc++ beside libasan: extensions in C++ throw, and the interceptor must find the real function.
export LD_PRELOAD="$("$compiler" -print-file-name=libasan.so) $("$compiler" -print-file-name=libstdc++.so)"
# Python's own allocations are never freed at exit: leaks are not looked for.
export ASAN_OPTIONS=detect_leaks=0:halt_on_error=1:allocator_may_return_null=1
export UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1
export PYTHONMALLOC=malloc
"$python" -c 'import gguf_forge._core as c, os; assert os.path.realpath(c.__file__).startswith(os.getcwd()), c.__file__'
# Left out: what runs llama.cpp on finished files, reads sources, moves bytes as they are, or looks at tables, names and
# vocabularies alone: the core has no part in it.
without=(tests/test_house.py tests/cli/test_generation.py tests/remote tests/cuda)
for name in plan shapes biases config undo spm vocab vocab_reference resume resumed_sets journals; do
  without+=("tests/convert/test_$name.py")
done
for name in edit edit_faults extract hashing join pruning sharing split split_killed splitting stream; do
  without+=("tests/whole/test_$name.py")
done
for name in allocate choose evaluate sensitivity sequential statistics; do
  without+=("tests/quality/test_$name.py")
done
exec "$python" -m pytest -m "not zoo and not runtime" -p no:cacheprovider "${without[@]/#/--ignore=}" "$@"
