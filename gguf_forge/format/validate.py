"""The rules of GGUF, one function a rule, over parsed records and the file's size. Reads no values but the alignment.

A rule raises; what is odd but readable is left to findings.py. The writer runs these same rules on its own plan.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from gguf_forge.errors import ForgeError, InvalidError, LimitError, TruncatedError, UnsupportedError
from gguf_forge.format.cursor import number
from gguf_forge.format.foreign import probably
from gguf_forge.format.layout import ALIGNMENT_KEY, DEFAULT_ALIGNMENT, LIMITS, MAX_DIM, Limits, ValueType
from gguf_forge.format.parse import Entry, Header, Info
from gguf_forge.format.values import decode
from gguf_forge.types import TensorType, known_type


@dataclass
class Placed:
    """A tensor that passed the rules: `shape` in NumPy order, `start` from the start of the file, in bytes."""

    info: Info
    type: TensorType
    shape: tuple[int, ...]
    nbytes: int
    start: int


@dataclass
class Unsized:
    """A tensor of a type that is not read, so of unknown size: otherwise as Placed."""

    info: Info
    shape: tuple[int, ...]
    start: int


@dataclass
class Checked:
    """A header that passed the rules. `data_start` is where the data section begins, in bytes."""

    header: Header
    alignment: int
    data_start: int
    tensors: list[Placed]
    unsized: list[Unsized]


def validate(header: Header, limits: Limits = LIMITS, *, unknown_types: bool = False) -> Checked:
    """Checks every rule, but with `unknown_types` the one that tensors' types are ggml's.

    Raises InvalidError, LimitError, TruncatedError, UnsupportedError at the first broken.
    """
    for rule in HEADER_RULES:
        if rule is not check_types or not unknown_types:
            rule(header, limits)
    checked = _place(header)
    for data_rule in DATA_RULES:
        data_rule(checked)
    return checked


def _error(kind: type[ForgeError], header: Header, record: Entry | Info, text: str) -> ForgeError:
    return kind(text, path=header.path, offset=record.offset, field=record.field)


def check_key_names(header: Header, limits: Limits) -> None:
    """A key is not empty, at most 65,535 bytes, UTF-8, and without NUL."""
    for entry in header.entries:
        raw = entry.raw_key
        if len(raw) > limits.key_bytes:
            raise _error(LimitError, header, entry, f"key of {len(raw)} bytes, at most {limits.key_bytes} are allowed")
        _check_name(header, entry, raw, "key")


def check_key_unique(header: Header, limits: Limits) -> None:
    """A key appears once."""
    _check_unique(header, [(e.raw_key, e) for e in header.entries], "key")


def check_strings(header: Header, limits: Limits) -> None:
    """A string value is not absurdly long."""
    for entry in header.entries:
        if entry.longest > limits.string_bytes:
            text = f"string of {entry.longest} bytes, at most {limits.string_bytes} are allowed"
            raise _error(LimitError, header, entry, text)


def check_alignment(header: Header, limits: Limits) -> None:
    """The alignment is a UINT32, a power of two, and of sane size."""
    entry = header.find(ALIGNMENT_KEY)
    if entry is None:
        return
    if entry.type is not ValueType.UINT32:
        raise _error(InvalidError, header, entry, f"must be UINT32, found {entry.type.name}")
    value = alignment_of(header)
    if value == 0 or value & (value - 1):
        raise _error(InvalidError, header, entry, f"alignment {value} is not a power of two")
    if value > limits.alignment:
        text = f"alignment {number(value)} is above the limit of {limits.alignment}"
        raise _error(LimitError, header, entry, text)


def alignment_of(header: Header) -> int:
    """The alignment the header states, or the default one."""
    entry = header.find(ALIGNMENT_KEY)
    if entry is None:
        return DEFAULT_ALIGNMENT
    return int(decode(header.buffer, header.order, entry.start, entry.type).value)


def check_tensor_names(header: Header, limits: Limits) -> None:
    """A tensor's name is not empty, UTF-8, and without NUL."""
    for info in header.infos:
        _check_name(header, info, info.raw_name, "name")


def check_tensor_unique(header: Header, limits: Limits) -> None:
    """A tensor's name appears once."""
    _check_unique(header, [(i.raw_name, i) for i in header.infos], "tensor name")


def _check_name(header: Header, record: Entry | Info, raw: bytes, what: str) -> None:
    if not raw:
        raise _error(InvalidError, header, record, f"empty {what}")
    if b"\0" in raw:
        raise _error(InvalidError, header, record, f"{what} holds a NUL at byte {raw.index(0)}")
    try:
        raw.decode()
    except UnicodeDecodeError as error:
        raise _error(InvalidError, header, record, f"{what} is not UTF-8 at byte {error.start}") from None


def _check_unique(header: Header, records: list[tuple[bytes, Entry]] | list[tuple[bytes, Info]], what: str) -> None:
    seen: dict[bytes, int] = {}
    for raw, record in records:
        first = seen.setdefault(raw, record.offset)
        if first != record.offset:
            raise _error(InvalidError, header, record, f"duplicate {what}, first at offset {first:#x}")


def check_types(header: Header, limits: Limits) -> None:
    """A tensor's type is one of ggml's."""
    for info in header.infos:
        if known_type(info.type_id) is None:
            whose = probably(info.type_id)
            text = f"unknown tensor type id {info.type_id}" + (f", probably {whose}" if whose else "")
            raise _error(UnsupportedError, header, info, text)


def check_dims(header: Header, limits: Limits) -> None:
    """Dims, their product, whole blocks a row, and bytes, all below 2^63; of an unknown type, dims and product.

    The product leaves out dims of 0, which would hide an overflow from a reader that multiplies in another order; bytes
    are bounded before the division by the block size, where a reader that multiplies first would wrap.
    """
    for info in header.infos:
        for dim in info.dims:
            if dim > MAX_DIM:
                raise _error(InvalidError, header, info, f"dim {number(dim)} exceeds 2^63-1")
        count = math.prod(d for d in info.dims if d)
        if count > MAX_DIM:
            raise _error(InvalidError, header, info, f"dims product {number(count)} exceeds 2^63-1")
        kind = known_type(info.type_id)
        if kind is None:
            continue
        try:
            kind.nbytes(info.dims[::-1])
        except InvalidError as error:
            raise _error(InvalidError, header, info, error.text) from None
        if count * kind.block_bytes > MAX_DIM:
            text = f"{number(count)} elements x {kind.block_bytes} bytes a block of {kind.name} exceed 2^63-1"
            raise _error(InvalidError, header, info, text)


def _place(header: Header) -> Checked:
    alignment = alignment_of(header)
    data_start = align(header.end, alignment)
    checked = Checked(header, alignment, data_start, [], [])
    for info in header.infos:
        kind, shape, start = known_type(info.type_id), info.dims[::-1], data_start + info.data
        if kind is None:
            checked.unsized.append(Unsized(info, shape, start))
        else:
            checked.tensors.append(Placed(info, kind, shape, kind.nbytes(shape), start))
    return checked


def _extents(checked: Checked) -> list[tuple[Info, int, int]]:
    """Each tensor's record, start, and bytes: one for elements of unknown size, which take that at least."""
    known = [(t.info, t.start, t.nbytes) for t in checked.tensors]
    return known + [(t.info, t.start, int(math.prod(t.shape) > 0)) for t in checked.unsized]


def align(position: int, alignment: int) -> int:
    """The next multiple of a power of two."""
    return (position + alignment - 1) & -alignment


#: Q2_0: bytes of 128 weights as ggml lays them out, in groups of 64, and in the groups of 128 of PrismML's llama.cpp.
_Q2_0, _Q2_0_BYTES, _OTHER_BYTES = "Q2_0", 36, 34


def check_groups(checked: Checked) -> None:
    """Q2_0 is laid out in groups of 64 weights, not in those of 128 that PrismML's llama.cpp writes by the same number.

    Told by where the tensors start: all fit the other layout without a gap, and at least one does not fit this.
    """
    if checked.unsized:
        return
    start = end = checked.data_start
    broken: Info | None = None
    for tensor in sorted(checked.tensors, key=lambda t: t.start):
        if tensor.start != start:
            return
        other = tensor.type.name == _Q2_0 and not tensor.shape[-1] % 128
        end = start + (tensor.nbytes // _Q2_0_BYTES * _OTHER_BYTES if other else tensor.nbytes)
        start = align(end, checked.alignment)
        if other and broken is None and align(tensor.start + tensor.nbytes, checked.alignment) > start:
            broken = tensor.info
    if broken is not None and end <= checked.header.size <= start:
        text = "Q2_0 in groups of 128 weights, as PrismML's llama.cpp writes; ggml's has groups of 64"
        raise _error(UnsupportedError, checked.header, broken, text)


def check_extents(checked: Checked) -> None:
    """A tensor's bytes lie within the file."""
    header = checked.header
    for info, start, nbytes in _extents(checked):
        if not nbytes and not info.data:
            continue
        left = max(0, header.size - start)
        if nbytes > left or start > header.size:
            amount = "1 byte" if nbytes == 1 else f"{number(nbytes)} bytes"
            text = f"{amount} at data offset {number(info.data)}, the file has {left} there"
            raise _error(TruncatedError, header, info, text)


def check_offsets_aligned(checked: Checked) -> None:
    """A tensor starts at a multiple of the alignment."""
    for info, _, _ in _extents(checked):
        if info.data % checked.alignment:
            text = f"data offset {info.data} is not a multiple of the alignment {checked.alignment}"
            raise _error(InvalidError, checked.header, info, text)


def check_overlap(checked: Checked) -> None:
    """No two tensors share bytes."""
    above: Info | None = None
    end = 0
    for info, start, nbytes in sorted((e for e in _extents(checked) if e[2]), key=lambda e: e[1]):
        if above is not None and end > start:
            text = f"overlaps {above.field}: data starts at {start:#x}, before {end:#x}"
            raise _error(InvalidError, checked.header, info, text)
        above, end = info, start + nbytes


#: In this order: the first rule broken is the one reported.
HEADER_RULES = (
    check_key_names,
    check_key_unique,
    check_strings,
    check_alignment,
    check_tensor_names,
    check_tensor_unique,
    check_types,
    check_dims,
)
DATA_RULES = (check_groups, check_extents, check_offsets_aligned, check_overlap)
