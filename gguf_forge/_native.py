"""The only import of the compiled core: its tables and calls in Python's terms. Knows no files and no threads."""

from __future__ import annotations

import atexit
import os
from dataclasses import dataclass
from functools import cache
from typing import Any

from gguf_forge import _core
from gguf_forge.errors import ForgeError

_ffi: Any = _core.ffi
_lib: Any = _core.lib
_NULL: Any = _ffi.NULL
#: Memory that is written before it is read.
_unfilled: Any = _ffi.new_allocator(should_clear_after_alloc=False)


@dataclass(frozen=True)
class TypeRow:
    """A row of native/types.def; `block` is 0 for a removed type."""

    name: str
    id: int
    block: int
    bytes: int
    floating: bool
    quant: bool
    weighted: bool
    needs_weights: bool
    fit: int
    encodes: bool
    decodes: bool


def type_rows() -> list[TypeRow]:
    """The native type table, in order of id."""
    rows = []
    i = 0
    while _lib.forge_types[i].name != _ffi.NULL:
        row = _lib.forge_types[i]
        rows.append(
            TypeRow(
                name=_ffi.string(row.name).decode(),
                id=row.id,
                block=row.block,
                bytes=row.bytes,
                floating=bool(row.kind & _lib.FORGE_KIND_FLOAT),
                quant=bool(row.kind & _lib.FORGE_KIND_QUANT),
                weighted=bool(row.kind & _lib.FORGE_KIND_WEIGHTED),
                needs_weights=bool(row.kind & _lib.FORGE_KIND_NEEDS_WEIGHTS),
                fit=row.fit,
                encodes=bool(row.encodes),
                decodes=bool(row.decodes),
            )
        )
        i += 1
    return rows


def isa_names() -> list[str]:
    """The instruction sets this machine supports, fastest first."""
    names: list[str] = []
    while (name := _lib.forge_backend_name(len(names))) != _ffi.NULL:
        names.append(_ffi.string(name).decode())
    return names


@cache  # asking the processor is slow where a hypervisor answers
def backend(isa: str) -> Any:
    """The codecs of one instruction set. Raises ForgeError when this machine lacks it."""
    found = _lib.forge_backend_find(isa.encode())
    if found == _ffi.NULL:
        raise ForgeError(f"instruction set {isa!r} is not available here; available: {', '.join(isa_names())}")
    return found


#: The instruction set in use: GGUF_FORGE_ISA, or the fastest this machine supports.
ISA = os.environ.get("GGUF_FORGE_ISA") or isa_names()[0]
_default = backend(ISA)

OK: int = _lib.FORGE_OK
E_TYPE: int = _lib.FORGE_E_TYPE
E_WIDTH: int = _lib.FORGE_E_WIDTH
E_NOT_FINITE: int = _lib.FORGE_E_NOT_FINITE
E_WEIGHTS: int = _lib.FORGE_E_WEIGHTS
E_SOURCE: int = _lib.FORGE_E_SOURCE
E_TOO_LARGE: int = _lib.FORGE_E_TOO_LARGE


def convert(
    src_type: int, src: Any, dst_type: int, dst: Any, rows: int, width: int, weights: Any = None,
    isa: str | None = None, strict: bool = False,
) -> tuple[int, int]:  # fmt: skip
    """Calls forge_convert on contiguous buffers; returns (status, index of the offending element).

    src, dst: objects with a buffer (dst writable) of at least rows * row bytes; weights: float32 buffer or None.
    The caller has checked sizes. The GIL is released during the call.
    """
    where = _ffi.new("int64_t *")
    status = _lib.forge_convert(
        _default if isa is None else backend(isa),
        src_type,
        _ffi.from_buffer(src),
        dst_type,
        _ffi.from_buffer("char[]", dst, True),  # writable; by keyword it takes longer
        rows,
        width,
        _NULL if weights is None else _ffi.from_buffer("float[]", weights),
        strict,
        where,
    )
    return status, where[0]


def first_not_finite(type: int, data: Any, count: int) -> int:
    """Calls forge_first_not_finite on a contiguous buffer of `count` blocks, or elements of a float type."""
    found: int = _lib.forge_first_not_finite(type, _ffi.from_buffer(data), count)
    return found


def lattice_image(name: str, address: int = 0, image: Any = None) -> int:
    """Calls forge_lattice_image for a lattice as native/forge.h names it; returns bytes. image: None, or a buffer."""
    to = _NULL if image is None else _ffi.from_buffer("uint8_t[]", image, True)
    return int(_lib.forge_lattice_image(getattr(_lib, name), address, to))


def fields(packed: Any, size: int, bits: int, out: Any) -> None:
    """Calls forge_fields on contiguous buffers: `size` bytes of fields of 1, 2 or 4 bits, to a byte each."""
    _lib.forge_fields(_ffi.from_buffer("uint8_t[]", packed), size, bits, _ffi.from_buffer("uint8_t[]", out, True))


def read_strided(fd: int, offset: int, stride: int, out: Any) -> int:
    """Calls forge_read_strided for the rows of a matrix, rows contiguous; returns how many of them were read."""
    rows, size = len(out), out[:1].nbytes
    found: int = _lib.forge_read_strided(fd, offset, stride, size, rows, _ffi.from_buffer("uint8_t[]", out, True))
    return found


def turn_words(words: Any, out: Any, isa: str | None = None) -> None:
    """Calls forge_turn_words: words of 32 bits (height, width), rows contiguous, to as many (width, height)."""
    height, width = words.shape
    at = _ffi.cast("float *", words.ctypes.data)
    using = _default if isa is None else backend(isa)
    _lib.forge_turn_words(using, at, height, words.strides[0] // 4, width, _ffi.from_buffer("float[]", out, True))


def turn_nibbles(words: Any, order: bytes, out: Any, isa: str | None = None) -> None:
    """Calls forge_turn_nibbles: words (height, width), rows contiguous, to words (8 * width, ceil(height / 8))."""
    height, width = words.shape
    at, to = _ffi.cast("float *", words.ctypes.data), _ffi.from_buffer("float[]", out, True)
    using = _default if isa is None else backend(isa)
    _lib.forge_turn_nibbles(using, at, height, words.strides[0] // 4, width, order, to)


def grid_blocks(
    type: int, codes: Any, bits: int, low: int, rows: int, width: int, group: int, zeros: Any, flip: bool, scales: Any,
    minima: Any, out: Any, isa: str | None = None,
) -> int:  # fmt: skip
    """Calls forge_grid_blocks on contiguous buffers: codes of 8 or 4 bits, int16 zeros, float16 scales; or None."""
    grid = _ffi.new("forge_grid *")
    grid.codes = _ffi.from_buffer("uint8_t[]", codes)
    grid.bits, grid.low, grid.flip, grid.group = bits, low, flip, group
    grid.scales = _ffi.from_buffer("uint16_t[]", scales)
    if zeros is not None:
        grid.zeros = _ffi.from_buffer("int16_t[]", zeros)
    if minima is not None:
        grid.minima = _ffi.from_buffer("uint16_t[]", minima)
    to = _ffi.from_buffer("uint8_t[]", out, True)
    return int(_lib.forge_grid_blocks(_default if isa is None else backend(isa), type, grid, rows, width, to))


#: 8-bit floats by the names that files give them, as forge_floats8 has them.
FLOATS8: dict[str, int] = {
    "F8_E4M3": _lib.FORGE_E4M3,
    "F8_E5M2": _lib.FORGE_E5M2,
    "F8_E4M3FNUZ": _lib.FORGE_E4M3FNUZ,
    "F8_E5M2FNUZ": _lib.FORGE_E5M2FNUZ,
}


def convert_floats8(
    format: int, codes: Any, rows: int, width: int, group: int, scales: Any, type: int, dst: Any, squares: Any = None,
    strict: bool = False, isa: str | None = None,
) -> tuple[int, int]:  # fmt: skip
    """Calls forge_convert_floats8 on contiguous buffers: bytes, float32 scales, two float64 `squares` or None.

    Returns (status, index of the offending element).
    """
    where, src = _ffi.new("int64_t *"), _ffi.new("forge_floats8 *")
    src.codes, src.format, src.group = _ffi.from_buffer("uint8_t[]", codes), format, group
    src.scales = _ffi.from_buffer("float[]", scales)
    status = _lib.forge_convert_floats8(
        _default if isa is None else backend(isa),
        src,
        type,
        _ffi.from_buffer("char[]", dst, True),
        rows,
        width,
        strict,
        _NULL if squares is None else _ffi.from_buffer("double[]", squares, True),
        where,
    )
    return status, where[0]


class Fit:
    """Memory of a forge_fit for `width` columns: float32 (n, n) covariances go in, rows are fitted against them.

    slots: uint8 (n,), where in its block each column lies, or None. The factor's memory belongs to this object, and is
    read by any number of threads at once.
    """

    def __init__(self, width: int, slots: Any = None, isa: str | None = None) -> None:
        chunks = -(-width // 256)
        self.width = width
        self._backend = _default if isa is None else backend(isa)
        self._held = [
            _unfilled(f"{kind}[]", max(size, 1))
            for kind, size in (
                ("float", width),
                ("float", width * 256),
                ("int16_t", width * width),
                ("float", width * chunks),
                ("float", width * 256),
            )
        ]
        self._held.append(_ffi.NULL if slots is None else _ffi.from_buffer("uint8_t[]", slots.tobytes()))
        self._fit = _ffi.new("forge_fit *", [width, *self._held])

    def prepare(self, covariance: Any) -> int:
        """Calls forge_fit_prepare on a writable contiguous float32 buffer (n, n), which is spoilt."""
        return int(_lib.forge_fit_prepare(self._backend, _ffi.from_buffer("float[]", covariance, True), self._fit))

    def rows(self, type: int, x: Any, out: Any, rounds: int, again: int, errors: Any) -> int:
        """Calls forge_fit_rows: x float32 (rows, n), out uint8 (rows, bytes): contiguous rows; float64 errors."""
        scratch = _unfilled("char[]", _lib.forge_fit_scratch(self._backend, self.width))
        return int(
            _lib.forge_fit_rows(
                self._backend,
                self._fit,
                type,
                _ffi.cast("float *", x.ctypes.data),
                x.strides[0] // 4,
                _ffi.cast("uint8_t *", out.ctypes.data),
                out.strides[0],
                x.shape[0],
                rounds,
                again,
                _ffi.from_buffer("double[]", errors, True),
                scratch,
            )
        )


def moments(slices: Any, tokens: int, count: int, first: int, last: int, tiles: Any, isa: str | None = None) -> None:
    """Calls forge_moments on contiguous float32 buffers: slices (count, tokens, 16), tiles of the upper triangle."""
    _lib.forge_moments(
        _default if isa is None else backend(isa),
        _ffi.from_buffer("float[]", slices),
        tokens,
        count,
        first,
        last,
        _ffi.from_buffer("float[]", tiles, True),
    )


#: Capsules of DLPack may outlive the interpreter.
atexit.register(_lib.forge_dl_leave)


def _object(x: object) -> Any:
    """Where an object is."""
    return _ffi.cast("void *", id(x))


def dlpack_capsule(owner: object, what: tuple[int, ...], shape: Any, steps: Any, versioned: bool) -> Any:
    """Calls forge_dl_give. what: address, kind and number of the device, code and bits of an element."""
    address, kind, number, code, bits = what
    sizes, strides = _ffi.new("int64_t[]", [*shape, 0]), _ffi.new("int64_t[]", [*steps, 0])
    data = _ffi.cast("void *", address)
    tensor = _ffi.new("forge_dl_tensor *", [data, kind, number, len(shape), code, bits, 1, sizes, strides, 0])
    made: list[Any] = []
    if not _lib.forge_dl_give(_object(made), _object(owner), tensor, versioned):
        raise MemoryError
    return made[0]


def dlpack_tensor(capsule: object) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...] | None] | None:
    """Calls forge_dl_look: address, device's kind and number, code, bits and lanes of an element; shape; strides."""
    found = _lib.forge_dl_look(_object(capsule))
    if found == _NULL:
        return None
    address = int(_ffi.cast("uintptr_t", found.data)) + found.byte_offset
    what = (address, found.device_type, found.device_id, found.code, found.bits, found.lanes)
    sizes = tuple(found.shape[i] for i in range(found.ndim))
    return what, sizes, tuple(found.strides[i] for i in range(found.ndim)) if found.strides != _NULL else None
