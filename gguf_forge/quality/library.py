"""llama.cpp's shared library: where it is found, and whether its structures are as they are declared here.

The library is that of the `xllamacpp` package (`pip install gguf-forge[run]`), which exports llama.cpp's C interface,
else that of `llama-cpp-python`; GGUF_FORGE_LLAMA names another. Knows no models.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any

import cffi

from gguf_forge.errors import ForgeError, UnsupportedError, printable
from gguf_forge.quality.declarations import CONTEXT_DEFAULTS, LAYOUTS, MODEL_DEFAULTS, Layout, declarations

VARIABLE = "GGUF_FORGE_LLAMA"
MISSING = "running a model needs llama.cpp's library: pip install 'gguf-forge[run]', or name a libllama in " + VARIABLE
#: Packages that bring the library, and the names of its file in them.
PACKAGES = {
    "xllamacpp": ("xllamacpp*.so", "xllamacpp*.pyd"),
    "llama_cpp": ("lib/libllama.so", "lib/libllama.dylib", "lib/llama.dll", "lib/libllama.dll"),
}
#: Where functions of ggml are, if the library itself does not give them.
COMPANIONS = ("*ggml-base.so", "*ggml-base.dylib", "*ggml-base.dll", "*ggml.so", "*ggml.dylib", "*ggml.dll")
#: Levels of the log from which lines are kept, to be shown with an error.
WARNING = 3


class LibraryError(ForgeError):
    """llama.cpp's library is missing, cannot be loaded, or is of another version than those known here."""


class Library:
    """The library, loaded. `ffi` is cffi's, for buffers and callbacks; functions are attributes by their own names."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.said: list[str] = []
        self.layout, self.ffi, self._files = _fitting(path)
        self._ended: BaseException | None = None
        self._log = self.ffi.callback("void(int, const char *, void *)", self._hear, onerror=self._missed)
        self.llama_log_set(self._log, self.ffi.NULL)
        self._abort = self.ffi.callback("void(const char *)", self._give_up)
        self.ggml_set_abort_callback(self._abort)
        self.llama_backend_init()

    def __repr__(self) -> str:
        return f"<Library {printable(str(self.path))}>"

    def __getattr__(self, name: str) -> Any:
        function = _function(self._files, name)
        setattr(self, name, function)
        return function

    def name_of(self, tensor: Any) -> str:
        """The name that a tensor of a graph has in it; empty for none."""
        return bytes(self.ffi.string(tensor.name)).decode("utf-8", "replace")

    def reason(self) -> str:
        """What the library said last of warnings and errors, in one line; and forgets it.

        Raises the signal that came while the library was heard.
        """
        ended, self._ended = self._ended, None
        if ended is not None:
            raise ended
        lines = [printable(line.strip()) for line in self.said if line.strip()]
        self.said.clear()
        return "; ".join(lines[-3:])[:600] or "it gave no reason"

    def _hear(self, level: int, text: Any, data: Any) -> None:
        if level in (WARNING, WARNING + 1):  # 5 continues a line, of whatever level
            self.said.append(self.ffi.string(text).decode("utf-8", "replace"))
            del self.said[:-16]

    def _missed(self, kind: type[BaseException], error: BaseException, at: TracebackType) -> None:
        """What a signal raises in `_hear` cannot pass through the library: it is raised when next it has returned."""
        if not isinstance(error, Exception):
            self._ended = error

    def _give_up(self, message: Any) -> None:
        """The library ends the process on what it did not expect of a model: then with one line, and tidily."""
        for clean in reversed(_cleaners):
            with suppress(Exception):
                clean()
        text = printable(self.ffi.string(message).decode("utf-8", "replace").replace("\\", "/").rsplit("/", 1)[-1])
        os.write(2, f"gguf-forge: llama.cpp gave up on the model: {text}\n".encode())
        os._exit(1)


#: What tidies up when the library ends the process.
_cleaners: list[Callable[[], object]] = []


@contextmanager
def tidied(clean: Callable[[], object]) -> Iterator[None]:
    """Within, `clean` is called should the library end the process."""
    _cleaners.append(clean)
    try:
        yield
    finally:
        _cleaners.remove(clean)


@cache
def library() -> Library:
    """The library, found and checked once. Raises LibraryError (one line: what is missing, and how to get it)."""
    return Library(find_library())


def find_library() -> Path:
    """The path of the library: GGUF_FORGE_LLAMA, or that of an installed package. Raises LibraryError."""
    named = os.environ.get(VARIABLE)
    if named:
        if not os.path.isfile(named):
            raise LibraryError(f"no such file: {named}", field=VARIABLE)
        return Path(named).resolve()
    for package, patterns in PACKAGES.items():
        spec = find_spec(package)
        for folder in (spec.submodule_search_locations or []) if spec else []:
            for pattern in patterns:
                found = sorted(Path(folder).glob(pattern))
                if found:
                    return found[0]
    raise LibraryError(MISSING)


def _fitting(path: Path) -> tuple[Layout, Any, list[Any]]:
    """The layout that the library's own values agree with, and cffi's view of its files with it."""
    amiss = []
    for layout in LAYOUTS:
        ffi, files = _opened(path, layout)
        found = next(_amiss(ffi, files), None)
        if found is None:
            return layout, ffi, files
        amiss.append(f"{layout.since}: {found}")
    raise LibraryError(f"a version of llama.cpp that is not known here ({'; '.join(amiss)})", path=path)


def _opened(path: Path, layout: Layout) -> tuple[Any, list[Any]]:
    ffi: Any = cffi.FFI()
    ffi.cdef(declarations(layout))
    companions = [found for pattern in COMPANIONS for found in sorted(path.parent.glob(pattern))]
    with _patient_threads():
        try:
            files = [ffi.dlopen(str(path))]
        except OSError as error:
            raise LibraryError(f"cannot be loaded: {error}", path=path) from None
    for companion in companions:
        try:
            files.append(ffi.dlopen(str(companion)))
        except OSError:  # not the one that the library came with
            continue
    return ffi, files


@contextmanager
def _patient_threads() -> Iterator[None]:
    """Within, an OpenMP that is loaded is told to let waiting threads sleep, unless the user told it something.

    By default they turn in place for a while. While moments are added up between two operations, or where other
    programs run, that takes the processors from those who work: five times the time on a busy machine.
    """
    if "OMP_WAIT_POLICY" in os.environ:
        yield
        return
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    try:
        yield
    finally:
        del os.environ["OMP_WAIT_POLICY"]


def _function(files: list[Any], name: str) -> Any:
    for file in files:
        try:
            return getattr(file, name)
        except AttributeError:
            continue
    raise UnsupportedError(f"llama.cpp's library has no function {name}")


def _amiss(ffi: Any, files: list[Any]) -> Iterator[str]:
    """What of the library's own values contradicts the declarations, if anything."""
    try:
        default = {
            "llama_model_default_params": MODEL_DEFAULTS,
            "llama_context_default_params": CONTEXT_DEFAULTS,
        }
        for name, values in default.items():
            given = _function(files, name)()
            for field, value in values.items():
                if getattr(given, field) != value:
                    yield f"{name}().{field} is {getattr(given, field)}, not {value}"
        yield from _tensor_amiss(ffi, files)
    except UnsupportedError as error:
        yield str(error)


def _tensor_amiss(ffi: Any, files: list[Any]) -> Iterator[str]:
    """What contradicts the declaration of a tensor: a product of two of known shapes, made without data."""
    context = _function(files, "ggml_init")({"mem_size": 1 << 16, "mem_buffer": ffi.NULL, "no_alloc": True})
    if context == ffi.NULL:
        yield "ggml_init gives nothing"
        return
    try:
        new = _function(files, "ggml_new_tensor_3d")
        a, b = new(context, 1, 64, 3, 1), new(context, 0, 64, 5, 1)
        _function(files, "ggml_set_name")(a, b"weight")
        product = _function(files, "ggml_mul_mat")(context, a, b)
        facts = {
            "ne": list(product.ne) == [3, 5, 1, 1],
            "nb": list(a.nb) == [2, 128, 384, 384],
            "src": product.src[0] == a and product.src[1] == b and product.src[2] == ffi.NULL,
            "type": (a.type, b.type, product.type) == (1, 0, 0),
            "data": a.data == ffi.NULL and a.view_src == ffi.NULL and a.buffer == ffi.NULL,
            "name": ffi.string(a.name) == b"weight",
        }
        amiss = [field for field, fits in facts.items() if not fits]
        if not amiss and ffi.string(_function(files, "ggml_op_name")(product.op)) != b"MUL_MAT":
            amiss = ["op"]
        yield from (f"ggml_tensor.{field} is elsewhere" for field in amiss)
    finally:
        _function(files, "ggml_free")(context)
