"""Weights stored in few bits beside scales of their own, as verbs: 4-bit floats stay packed, 8-bit ones are multiplied.

Knows the layouts of codes and scales. Must not know names, families, or how blocks of GGUF are decoded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from gguf_forge.convert.facts import Facts
from gguf_forge.convert.ops import Verb, Views
from gguf_forge.convert.view import F32, Array, View, changed, widen
from gguf_forge.errors import ConversionError
from gguf_forge.source.dtypes import DTYPES
from gguf_forge.types import tensor_type

MXFP4 = tensor_type("MXFP4")
_GROUP = MXFP4.block_size
_CODES = _GROUP // 2
#: The exponent that stands for NaN (OCP MX, E8M0).
_NO_NUMBER = 255
#: What bytes are read as: I8 as they are, U8 as the next wider, exponents (F8_E8M0) as F32.
_OF_BYTES = ("I8", "I16", "F32")


@dataclass(frozen=True)
class PackMXFP4(Verb):
    """MXFP4 blocks of tensors of codes and as many tensors of scales, which follow all codes: one view a pair.

    Codes are bytes, (..., width / 2) or (..., groups, 16), with element 2 i in the low half of byte i and 2 i + 1 in
    the high one; scales are exponents, a byte for each 32 elements, (..., groups). A block of GGUF is the exponent,
    then 16 bytes, with element i in the low half of byte i and i + 16 in the high one (ggml-common.h, block_mxfp4).
    The codes mean the same on both sides (ggml doubles their values and halves the exponents'): no bit changes.
    """

    def views(self, sources: Views, facts: Facts) -> list[View]:
        half = len(sources) // 2
        if len(sources) % 2 or not half:
            raise ConversionError(f"{len(sources)} tensors are not codes and as many scales")
        return [_blocks(*pair) for pair in zip(sources[:half], sources[half:], strict=True)]

    def undo(self, outputs: Views, like: Views, facts: Facts) -> list[View]:
        half = len(like) // 2
        codes = [_codes(output, source) for output, source in zip(outputs, like[:half], strict=True)]
        return codes + [_scales(output, source) for output, source in zip(outputs, like[half:], strict=True)]


PACK_MXFP4 = PackMXFP4()


def _blocks(codes: View, scales: View) -> View:
    """One tensor's blocks, of shape (*scales' leading axes, elements)."""
    *lead, groups = scales.shape
    if prod(codes.shape) != prod(scales.shape) * _CODES or tuple(codes.shape[: len(lead)]) != tuple(lead) or not lead:
        raise ConversionError(
            f"{codes.name} {list(codes.shape)}: {scales.name} {list(scales.shape)} must have a scale for each "
            f"{_CODES} of its bytes"
        )
    read_codes, read_scales = _bytes(codes), _bytes(scales)
    step = codes.count // prod(lead)

    def rows(start: int, stop: int) -> Array:
        count = stop - start
        pairs = read_codes(start * step, stop * step).reshape(count, groups, _CODES)
        # Elements in order, then the first 16 of each group below the others.
        values = np.stack((pairs & 0x0F, pairs >> 4), axis=-1).reshape(count, groups, 2, _CODES)
        blocks = np.empty((count, groups, 1 + _CODES), np.uint8)
        blocks[..., 0] = read_scales(start, stop).reshape(count, groups)
        if (blocks[..., 0] == _NO_NUMBER).any():
            raise ConversionError(f"{scales.name}: an exponent of {_NO_NUMBER} is no number")
        blocks[..., 1:] = values[..., 0, :] | values[..., 1, :] << 4
        return blocks.reshape(count, -1)

    return View(codes.name, (*lead, groups * _GROUP), MXFP4, rows)


def _bytes(source: View) -> Callable[[int, int], Array]:
    """Rows of the bytes of a source. ConversionError unless its file holds bytes."""
    raw = source.raw
    if raw is None or source.type.name not in _OF_BYTES:
        raise ConversionError(f"{source.name}: codes of four bits and their scales must be bytes, not {source.type}")

    def rows(start: int, stop: int) -> Array:
        values = raw(start, stop)
        if values.dtype.itemsize != 1:
            raise ConversionError(f"{source.name}: codes of four bits and their scales must be bytes")
        return values.view(np.uint8)

    return rows


def _codes(output: View, like: View) -> View:
    """A tensor's codes out of its blocks."""
    step = like.count // output.count

    def rows(start: int, stop: int) -> Array:
        first, last = start // step, -(-stop // step)
        blocks = output.rows(first, last).reshape(-1, 1 + _CODES)[:, 1:]
        values = np.stack((blocks & 0x0F, blocks >> 4), axis=1).reshape(-1, 2)
        pairs = (values[:, 0] | values[:, 1] << 4).reshape(-1, like.width)
        return _as_read(pairs[start - first * step : stop - first * step], like)

    return View(like.name, like.shape, like.type, rows)


def _scales(output: View, like: View) -> View:
    """A tensor's scales out of its blocks."""

    def rows(start: int, stop: int) -> Array:
        return _as_read(output.rows(start, stop).reshape(stop - start, -1, 1 + _CODES)[..., 0], like)

    return View(like.name, like.shape, like.type, rows)


def _as_read(values: Array, like: View) -> Array:
    """Bytes as reading them from a file gives them: whole numbers, or the powers of two that they are exponents of."""
    if like.type.name == "F32":
        return np.asarray(DTYPES["F8_E8M0"].table)[values]
    if like.type.name == "I8":
        return np.ascontiguousarray(values).view(np.int8)
    return values.astype(np.int16)


#: Rows and columns that share a scale.
BLOCK = 128


@dataclass(frozen=True)
class Scaled(Verb):
    """Matrices of 8-bit floats times a scale for each block of 128 x 128, in float32; the scales follow all matrices.

    A matrix whose scale is itself has none, and stays as it is.
    """

    def views(self, sources: Views, facts: Facts) -> list[View]:
        half = len(sources) // 2
        return [_times(*pair) for pair in zip(sources[:half], sources[half:], strict=True)]

    def undo(self, outputs: Views, like: Views, facts: Facts) -> list[View]:
        if has_scale(like):
            return super().undo(outputs, like, facts)
        return [*outputs, *outputs]


def has_scale(sources: Sequence[View]) -> bool:
    """Whether the second half of these sources are the scales of the first, not the same matrices again."""
    return len(sources) > 1 and sources[len(sources) // 2].name != sources[0].name


def _times(matrix: View, scale: View) -> View:
    if scale.name == matrix.name:
        return matrix
    blocks = tuple(-(-n // BLOCK) for n in matrix.shape)
    if scale.shape != blocks:
        raise ConversionError(f"{scale.name} {list(scale.shape)}: {matrix.name} has {list(blocks)} blocks of {BLOCK}")

    def rows(start: int, stop: int) -> Array:
        first = start // BLOCK
        of_blocks = scale.rows(first, -(-stop // BLOCK))[np.arange(start, stop) // BLOCK - first]
        if not np.isfinite(of_blocks).all():
            raise ConversionError(f"{scale.name}: a scale is not finite")
        scales: Array = np.repeat(of_blocks, BLOCK, axis=1)[:, : matrix.width]
        return np.multiply(widen(matrix.rows(start, stop), matrix.type), scales)

    return changed(matrix, type=F32, rows=rows)


SCALED = Scaled()
