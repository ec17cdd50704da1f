"""llama.cpp's own verdict on a file, through the library of the `xllamacpp` wheel, which exports its whole C interface.

`python -m tests.convert.llama_cpp` answers questions, one JSON a line: {"load": PATH} loads a file's tensors without
their data, {"derive": PATH} makes a model of a file's metadata alone, {"parse": PATH} reads a header. A process of its
own, as llama.cpp aborts on some files. `Loader` starts it, and starts it anew when it fell.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any

_WRONG = re.compile(r"tensor '([^']+)' has wrong shape")
_ERROR = 4  # GGML_LOG_LEVEL_ERROR


@dataclass(frozen=True)
class Verdict:
    """What came of a question: whether there is a model, the errors, and the shapes of its tensors if it was derived
    from metadata (contiguous axis last).
    """

    ok: bool
    errors: list[str] = field(default_factory=list)
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    @property
    def misshapen(self) -> str | None:
        """The tensor whose shape it refuses, if that is the error."""
        return next((found[1] for error in self.errors if (found := _WRONG.search(error))), None)


class Loader:
    """A process that loads files with llama.cpp, as a context."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Loader:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()

    def load(self, path: Path) -> Verdict:
        """Whether llama.cpp takes a file's metadata and tensors, of which it reads no data."""
        return self._ask({"load": str(path)})

    def derive(self, path: Path) -> Verdict:
        """The tensors that llama.cpp would look for in a file of this metadata, optional ones too."""
        return self._ask({"derive": str(path)})

    def parse(self, path: Path) -> Verdict:
        """Whether llama.cpp's parser (gguf_init_from_file) takes a file's header."""
        return self._ask({"parse": str(path)})

    def _ask(self, question: dict[str, str]) -> Verdict:
        if self._process is None or self._process.poll() is not None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.convert.llama_cpp"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                cwd=Path(__file__).resolve().parents[2],
                env={**os.environ, "GGML_NO_BACKTRACE": "1"},
                text=True,
            )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(question) + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            self._process.communicate()
            return Verdict(False, ["aborted"])
        found = json.loads(answer)
        shapes = {name: tuple(reversed(dims)) for name, dims in found["dims"].items()}
        return Verdict(found["ok"], found["errors"], shapes)


class _ModelParams(ctypes.Structure):
    """llama_model_params of llama.cpp's include/llama.h, release 11549."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("devices", "overrides")),
        *((name, ctypes.c_int32) for name in ("gpu_layers", "split_mode", "load_mode", "lazy_mode", "main_gpu")),
        *((name, ctypes.c_void_p) for name in ("split", "progress", "progress_data", "kv_overrides")),
        *((name, ctypes.c_bool) for name in ("vocab_only", "check", "extra", "no_host", "no_alloc", "load_mtp")),
    )


class _InitParams(ctypes.Structure):
    """gguf_init_params."""

    _fields_ = (("no_alloc", ctypes.c_bool), ("context", ctypes.c_void_p))


class _Library:
    """The functions needed, and what they said since the last question."""

    def __init__(self) -> None:
        spec = find_spec("xllamacpp")
        assert spec is not None
        assert spec.origin is not None
        self.lib = ctypes.CDLL(str(next(Path(spec.origin).parent.glob("xllamacpp*.so"))))
        self.errors: list[str] = []
        self.dims: dict[str, list[int]] = {}
        on_log = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
        on_tensor = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)
        self._log, self._take = on_log(self._hear), on_tensor(self._see)
        pointer, lib = ctypes.c_void_p, self.lib
        lib.ggml_get_name.restype, lib.ggml_get_name.argtypes = ctypes.c_char_p, [pointer]
        lib.llama_model_default_params.restype = _ModelParams
        lib.llama_model_load_from_file.restype = pointer
        lib.llama_model_load_from_file.argtypes = [ctypes.c_char_p, _ModelParams]
        lib.llama_model_init_from_user.restype = pointer
        lib.llama_model_init_from_user.argtypes = [pointer, on_tensor, pointer, _ModelParams]
        lib.llama_model_free.argtypes = [pointer]
        lib.gguf_init_from_file.restype, lib.gguf_init_from_file.argtypes = pointer, [ctypes.c_char_p, _InitParams]
        lib.gguf_free.argtypes = [pointer]
        lib.llama_log_set.argtypes = [on_log, pointer]
        lib.llama_log_set(self._log, None)
        lib.llama_backend_init()

    def _hear(self, level: int, text: bytes, _: int) -> None:
        if level == _ERROR:
            self.errors.append(text.decode("utf-8", "replace").strip())

    def _see(self, tensor: int, _: int) -> None:
        # struct ggml_tensor begins with its type, a pointer, and four dimensions
        dims = list((ctypes.c_int64 * 4).from_address(tensor + 16))
        while len(dims) > 1 and dims[-1] == 1:
            dims.pop()
        self.dims[self.lib.ggml_get_name(tensor).decode()] = dims

    def answer(self, question: dict[str, str]) -> dict[str, Any]:
        self.errors.clear()
        self.dims.clear()
        params = self.lib.llama_model_default_params()
        params.gpu_layers, params.load_mode, params.extra, params.load_mtp = 0, 0, False, True
        if "parse" in question:
            header = self.lib.gguf_init_from_file(question["parse"].encode(), _InitParams(True, None))
            self.lib.gguf_free(header)
            return {"ok": bool(header), "errors": self.errors, "dims": {}}
        if "load" in question:
            params.no_alloc = True
            model = self.lib.llama_model_load_from_file(question["load"].encode(), params)
        else:
            metadata = self.lib.gguf_init_from_file(question["derive"].encode(), _InitParams(True, None))
            model = self.lib.llama_model_init_from_user(metadata, self._take, None, params)
            self.lib.gguf_free(metadata)
        if model:
            self.lib.llama_model_free(model)
        return {"ok": bool(model), "errors": self.errors, "dims": self.dims}


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    library = _Library()
    for line in sys.stdin:
        answers.write(json.dumps(library.answer(json.loads(line))) + "\n")


if __name__ == "__main__":
    main()
