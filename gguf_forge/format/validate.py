"""The rules of GGUF, one function a rule, over parsed records and the file's size. Reads no values but the alignment.

A rule raises; what is odd but readable is left to findings.py. The writer runs these same rules on its own plan.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from gguf_forge.errors import ForgeError, InvalidError, LimitError, TruncatedError, UnsupportedError
from gguf_forge.format.cursor import number
from gguf_forge.format.layout import ALIGNMENT_KEY, DEFAULT_ALIGNMENT, LIMITS, MAX_DIM, Limits, ValueType
from gguf_forge.format.parse import Entry, Header, Info
from gguf_forge.format.values import decode
from gguf_forge.types import TensorType, tensor_type


@dataclass
class Placed:
    """A tensor that passed the rules: `shape` in NumPy order, `start` from the start of the file, in bytes."""

    info: Info
    type: TensorType
    shape: tuple[int, ...]
    nbytes: int
    start: int


@dataclass
class Checked:
    """A header that passed the rules. `data_start` is where the data section begins, in bytes."""

    header: Header
    alignment: int
    data_start: int
    tensors: list[Placed]


def validate(header: Header, limits: Limits = LIMITS) -> Checked:
    """Checks every rule. Raises InvalidError, LimitError, TruncatedError, UnsupportedError at the first broken."""
    for rule in HEADER_RULES:
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
        try:
            tensor_type(info.type_id)
        except UnsupportedError as error:
            raise _error(UnsupportedError, header, info, error.text) from None


def check_dims(header: Header, limits: Limits) -> None:
    """Dims, their product, whole blocks a row, and bytes, all below 2^63.

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
        kind = tensor_type(info.type_id)
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
    checked = Checked(header, alignment, data_start, [])
    for info in header.infos:
        kind = tensor_type(info.type_id)
        shape = info.dims[::-1]
        checked.tensors.append(Placed(info, kind, shape, kind.nbytes(shape), data_start + info.data))
    return checked


def align(position: int, alignment: int) -> int:
    """The next multiple of a power of two."""
    return (position + alignment - 1) & -alignment


def check_extents(checked: Checked) -> None:
    """A tensor's bytes lie within the file."""
    header = checked.header
    for tensor in checked.tensors:
        if not tensor.nbytes and not tensor.info.data:
            continue
        left = max(0, header.size - tensor.start)
        if tensor.nbytes > left or tensor.start > header.size:
            text = f"{number(tensor.nbytes)} bytes at data offset {number(tensor.info.data)}, the file has {left} there"
            raise _error(TruncatedError, header, tensor.info, text)


def check_offsets_aligned(checked: Checked) -> None:
    """A tensor starts at a multiple of the alignment."""
    for tensor in checked.tensors:
        if tensor.info.data % checked.alignment:
            text = f"data offset {tensor.info.data} is not a multiple of the alignment {checked.alignment}"
            raise _error(InvalidError, checked.header, tensor.info, text)


def check_overlap(checked: Checked) -> None:
    """No two tensors share bytes."""
    previous: Placed | None = None
    for tensor in sorted((t for t in checked.tensors if t.nbytes), key=lambda t: t.start):
        if previous is not None and previous.start + previous.nbytes > tensor.start:
            end = previous.start + previous.nbytes
            text = f"overlaps {previous.info.field}: data starts at {tensor.start:#x}, before {end:#x}"
            raise _error(InvalidError, checked.header, tensor.info, text)
        previous = tensor


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
DATA_RULES = (check_extents, check_offsets_aligned, check_overlap)
