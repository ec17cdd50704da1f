"""The parts of a SentencePiece file that its library does not show: normalizer, kind of model, user-defined pieces.

Knows protobuf's wire format as far as these few fields need it. Must not know vocabularies.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gguf_forge.convert.vocab.folder import read_side_file
from gguf_forge.errors import CheckpointError

UNIGRAM, BPE = 1, 2
"""Values of `PieceModel.kind`."""

_USER_DEFINED = 4
_MAYBE_USER_DEFINED = bytes([3 << 3, _USER_DEFINED])
"""How its type stands in a user-defined piece: looked for first, for vocabularies have hundreds of thousands."""

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


@dataclass(frozen=True)
class PieceModel:
    """What a file says of itself: `kind` UNIGRAM or BPE (3 words, 4 characters), and how a text is normalised.

    `user_defined`: ids of the pieces that are cut out of a text before all others.
    """

    kind: int
    charsmap: bytes
    dummy_prefix: bool
    remove_extra_spaces: bool
    user_defined: frozenset[int] = frozenset()


def read_piece_model(path: Path) -> PieceModel:
    """The trainer's and normalizer's settings of a SentencePiece file. CheckpointError if it is damaged."""
    trainer: dict[int, int | bytes] = {}
    normalizer: dict[int, int | bytes] = {}
    user_defined: set[int] = set()
    pieces = 0
    try:
        for number, value in _fields(read_side_file(path)):
            if number == 1 and isinstance(value, bytes):
                if _MAYBE_USER_DEFINED in value and dict(_fields(value)).get(3) == _USER_DEFINED:
                    user_defined.add(pieces)
                pieces += 1
            elif number == 2 and isinstance(value, bytes):
                trainer.update(_fields(value))
            elif number == 3 and isinstance(value, bytes):
                normalizer.update(_fields(value))
    except (IndexError, ValueError) as error:
        raise CheckpointError(f"{path}: not a SentencePiece model: {error}") from None
    kind, charsmap = trainer.get(3, UNIGRAM), normalizer.get(2, b"")
    if not isinstance(kind, int) or not isinstance(charsmap, bytes):
        raise CheckpointError(f"{path}: not a SentencePiece model: its settings have other types")
    return PieceModel(
        kind, charsmap, bool(normalizer.get(3, 1)), bool(normalizer.get(4, 1)), frozenset(user_defined)
    )


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Number and value of each field of a message."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        kind = tag & 7
        if kind == _VARINT:
            value, at = _varint(data, at)
            yield tag >> 3, value
            continue
        length = {_FIXED64: 8, _FIXED32: 4}.get(kind)
        if kind == _BYTES:
            length, at = _varint(data, at)
        if length is None:
            raise ValueError(f"wire type {kind} at byte {at}")
        if at + length > len(data):
            raise ValueError(f"a field of {length} bytes runs past the end")
        yield tag >> 3, data[at : at + length]
        at += length


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError(f"a number of more than 64 bits at byte {at}")
