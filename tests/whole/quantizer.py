"""llama_model_quantize of the library in the `xllamacpp` wheel, in a process of its own, as it may abort.

`python -m tests.whole.quantizer IN OUT FILE_TYPE KEEP_SPLIT PRUNED`; PRUNED is numbers of layers separated by commas.
"""

from __future__ import annotations

import ctypes
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


class _Params(ctypes.Structure):
    """llama_model_quantize_params."""

    _fields_ = (
        *((name, ctypes.c_int32) for name in ("threads", "ftype", "output_type", "embedding_type")),
        *((name, ctypes.c_bool) for name in ("requantize", "output", "only_copy", "pure", "keep_split", "dry_run")),
        *((name, ctypes.c_void_p) for name in ("imatrix", "kv_overrides", "tensor_overrides", "prune_layers")),
        ("buffer", ctypes.c_size_t),
    )


def quantized(source: Path, output: Path, ftype: int, *, keep_split: bool = False, prune: Sequence[int] = ()) -> None:
    """Has llama.cpp quantize a file; skips the test where there is no library."""
    if find_spec("xllamacpp") is None:
        pytest.skip("needs xllamacpp")
    words = [source, output, ftype, int(keep_split), ",".join(map(str, prune))]
    args = [sys.executable, "-m", "tests.whole.quantizer", *map(str, words)]
    done = subprocess.run(args, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def main(source: str, output: str, ftype: str, keep: str, pruned: str) -> int:
    spec = find_spec("xllamacpp")
    assert spec is not None
    assert spec.origin is not None
    lib = ctypes.CDLL(str(next(Path(spec.origin).parent.glob("xllamacpp*.so"))))
    lib.llama_model_quantize_default_params.restype = _Params
    lib.llama_model_quantize.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.POINTER(_Params)]
    lib.llama_model_quantize.restype = ctypes.c_uint32
    lib.llama_backend_init()
    params = lib.llama_model_quantize_default_params()
    params.threads, params.ftype, params.keep_split = 1, int(ftype), keep == "1"
    layers = [int(word) for word in pruned.split(",") if word]
    if layers:
        held = (ctypes.c_int32 * (len(layers) + 1))(*layers, -1)
        params.prune_layers = ctypes.cast(held, ctypes.c_void_p)
    return int(lib.llama_model_quantize(source.encode(), output.encode(), ctypes.byref(params)))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
