"""What tensors' data say that no reader would: numbers that are none, codes that stand for nothing, weights all alike.

Reads every byte once, in pieces. Knows blocks by the codecs; must not know metadata.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gguf_forge.format.findings import ERROR, WARNING
from gguf_forge.format.orders import NUMBERS, swapped
from gguf_forge.format.reader import Tensor
from gguf_forge.quant.codec import dequantize, first_not_finite
from gguf_forge.types import TensorType

Bytes = npt.NDArray[np.uint8]
#: What is found: the rule, the text, and how bad it is.
Said = tuple[str, str, str]
#: Bytes that are read at a time.
PIECE = 1 << 22
#: Weights of which it says something that all are alike: fewer may be so by chance, or by design.
FEW = 64
#: Q2_0: blocks of how many weights ggml has, and those of the other layout under the same number, in bytes too.
Q2_0_GROUP, Q2_0_BYTES, OTHER_GROUP, OTHER_BYTES = 64, 18, 128, 34


@dataclass
class Piece:
    """Rows of a tensor from `first` on, in this machine's order of bytes, and as they are stored, in `order`."""

    kind: TensorType
    rows: Bytes
    first: int
    stored: Bytes
    order: str

    def place(self, at: int) -> str:
        """Where an element, or a block, stands."""
        row, block = divmod(at, self.rows.shape[1] // self.kind.block_bytes)
        column = block * self.kind.block_size
        where = f"row {self.first + row}, column"
        if not self.kind.quantized:
            return f"{where} {column}"
        return f"{where}s {column} to {column + self.kind.block_size - 1}"


def find_in_data(tensor: Tensor, order: str, told: Callable[[int], None]) -> Iterator[Said]:
    """All rules over one tensor; `order`: of its bytes ("<" or ">"), `told`: how many bytes were read.

    Of each rule the first place is named. Blocks of a type whose numbers nobody knows are not looked into where they
    are big-endian.
    """
    if not tensor.nbytes or (order == ">" and tensor.type.quantized and tensor.type.name not in NUMBERS):
        told(tensor.nbytes)
        return
    rules: dict[str, Callable[[Piece], Said | None]] = {}
    if tensor.type.name == "Q2_0":
        rules["q2_0-groups"] = _Groups(tensor.nbytes)
    rules |= {"not-finite": _not_finite, "lattice": _outside_lattice, "erased": _erased}
    alike = _Alike(tensor)
    step = max(1, PIECE // tensor.row_bytes)
    for start in range(0, tensor.rows, step):
        rows = tensor.read_rows(start, min(start + step, tensor.rows))
        native = swapped(rows, tensor.type).reshape(rows.shape) if order == ">" else rows
        piece = Piece(tensor.type, native, start, rows, order)
        for name, rule in list(rules.items()):
            found = rule(piece)
            if found is not None:
                yield found
                del rules[name]
                if name == "q2_0-groups":
                    rules.clear()  # all else that is odd follows from it
                    break
        found = alike.see(piece)
        if found is not None:
            yield found
        told(rows.nbytes)


def _not_finite(piece: Piece) -> Said | None:
    at = first_not_finite(piece.rows, piece.kind)
    if at is None:
        return None
    what = "a block whose scale is NaN or infinite" if piece.kind.quantized else "NaN or an infinity"
    return "not-finite", f"{what} at {piece.place(at)}", ERROR


def _outside_lattice(piece: Piece) -> Said | None:
    rule = LATTICES.get(piece.kind.name)
    if rule is None:
        return None
    odd: npt.NDArray[Any] = np.any(rule(piece.rows.reshape(-1, piece.kind.block_bytes)), axis=1)
    at = int(odd.argmax())
    if not odd[at]:
        return None
    return "lattice", f"a code that {piece.kind} has no value for at {piece.place(at)}", ERROR


def _tq1_0(blocks: Bytes) -> npt.NDArray[Any]:
    return np.concatenate([~_FIVE_TRITS[blocks[:, :48]], ~_FOUR_TRITS[blocks[:, 48:52]]], axis=1)


def _fractions(digits: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Which bytes are fractions of 256 for these numbers of five digits of base 3."""
    known = np.zeros(256, bool)
    known[-(-digits * 256 // 243)] = True
    return known


_FIVE_TRITS, _FOUR_TRITS = _fractions(np.arange(243)), _fractions(np.arange(81) * 3)

#: Types with codes that stand for no value, and which bytes of a block hold one.
LATTICES: dict[str, Callable[[Bytes], npt.NDArray[Any]]] = {
    "TQ1_0": _tq1_0,
    "TQ2_0": lambda blocks: (blocks[:, :64] & blocks[:, :64] >> 1 & 0x55) != 0,
    "NVFP4": lambda blocks: blocks[:, :4] >= 0x7F,
}


#: Types none of whose encoders writes blocks with all bits of the codes set, and where in a block the codes stand.
CODES: dict[str, tuple[int, int]] = {
    **dict.fromkeys(("IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "IQ1_S", "IQ4_XS"), (2, 0)),
    **dict.fromkeys(("Q4_K", "Q5_K"), (4, 0)),
    "Q2_K": (0, 80),
    "Q3_K": (0, 108),
    "Q6_K": (0, 208),
}


def _erased(piece: Piece) -> Said | None:
    span = CODES.get(piece.kind.name)
    if span is None:
        return None
    codes = piece.rows.reshape(-1, piece.kind.block_bytes)[:, span[0] : span[1] or None]
    for at in (codes[:, 0] & codes[:, -1] == 0xFF).nonzero()[0].tolist():
        if (codes[at] == 0xFF).all():
            text = f"a block whose codes are ones throughout, as erased storage is, at {piece.place(at)}"
            return "erased", text, ERROR
    return None


class _Alike:
    """Whether all weights of a matrix of the tensor, of its last two axes, are the same."""

    def __init__(self, tensor: Tensor) -> None:
        lines = [length for length in tensor.shape if length > 1]
        norm = len(lines) == 1 and tensor.name.endswith("norm.weight")
        self.asked = tensor.type.decodes and (len(lines) >= 2 or norm) and tensor.name.endswith(".weight")
        self.rows = tensor.shape[-2] if len(tensor.shape) > 1 else 1
        self.asked = self.asked and self.rows * tensor.shape[-1] >= FEW
        self.zeros_only = norm  # a norm of ones is one that training left alone
        self.stack = tensor.rows // self.rows if self.rows else 0
        self.value: float | None = None
        self.said = False

    def see(self, piece: Piece) -> Said | None:
        """Told once: of the first matrix that ends in these rows, all of it alike."""
        row, end = 0, len(piece.rows)
        while self.asked and not self.said and row < end:
            number, within = divmod(piece.first + row, self.rows)
            stop = min(end, row + self.rows - within)
            value = _constant(piece.rows[row:stop], piece.kind)
            if within == 0:
                self.value = value
            elif value != self.value:
                self.value = None
            if within + stop - row == self.rows and self.value is not None and not (self.zeros_only and self.value):
                self.said = True
                what = "all zeros" if self.value == 0 else f"all {self.value:.6g}"
                return "constant", f"matrix {number} is {what}" if self.stack > 1 else what, WARNING
            row = stop
        return None


def _constant(rows: Bytes, kind: TensorType) -> float | None:
    """The one value of all weights of some rows; None where they differ. The first blocks tell it of most."""
    head = dequantize(rows[:1, : max(1, FEW // kind.block_size) * kind.block_bytes], kind)
    first = head.flat[0]
    if not np.isfinite(first) or (head != first).any():
        return None
    return float(first) if (dequantize(rows, kind) == first).all() else None


class _Groups:
    """Whether the scales of Q2_0 stand where the other layout has them: there they are alike, here they are not."""

    def __init__(self, nbytes: int) -> None:
        self.nbytes = nbytes

    def __call__(self, piece: Piece) -> Said | None:
        raw = piece.stored.reshape(-1)
        if piece.first:
            return None  # the first piece says enough
        raw = raw[: len(raw) // Q2_0_BYTES * Q2_0_BYTES]
        there = raw[: self.nbytes * OTHER_BYTES // (2 * Q2_0_BYTES)]
        there = there[: len(there) // OTHER_BYTES * OTHER_BYTES]
        if len(there) < 8 * OTHER_BYTES:
            return None
        here, other = (_odd_scales(part, step, piece.order) for part, step in ((raw, Q2_0_BYTES), (there, OTHER_BYTES)))
        if here > 0.25 and other < 0.05:
            text = f"laid out in groups of {OTHER_GROUP} weights, as PrismML's llama.cpp does, not of {Q2_0_GROUP}"
            return "q2_0-groups", text, ERROR
        return None


def _odd_scales(raw: Bytes, step: int, order: str) -> float:
    """The share of blocks whose first two bytes, as float16, are of another magnitude than those of most."""
    scales = np.ascontiguousarray(raw.reshape(-1, step)[:, :2]).view(f"{order}u2").astype(np.int32)
    exponent = scales >> 10 & 31
    return float(np.mean((np.abs(exponent - np.median(exponent)) > 3) | (exponent == 31)))
