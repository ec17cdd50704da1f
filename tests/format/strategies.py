"""Hypothesis strategies for metadata and tensors of every kind that a GGUF file can hold."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from gguf_forge.format.layout import SCALARS, SLACK_KEY, ValueType
from gguf_forge.format.plan import Declared
from gguf_forge.format.values import Value, array, scalar
from gguf_forge.types import TENSOR_TYPES

#: Any text that UTF-8 can hold, and bytes that are no UTF-8 as surrogates.
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=40) | st.binary(max_size=20).map(
    lambda raw: raw.decode("utf-8", "surrogateescape")
)
LONG_TEXTS = st.integers(250, 700).map(lambda n: "x" * n)
NUMBERS = [t for t in SCALARS if t is not ValueType.BOOL]


def _number(kind: ValueType) -> st.SearchStrategy[Any]:
    if kind in (ValueType.FLOAT32, ValueType.FLOAT64):
        return st.floats(width=32 if kind is ValueType.FLOAT32 else 64)
    bounds = np.iinfo(np.dtype(SCALARS[kind].dtype))
    return st.integers(int(bounds.min), int(bounds.max))


def _element(kind: ValueType) -> st.SearchStrategy[Any]:
    if kind is ValueType.BOOL:
        return st.booleans()
    return TEXTS | LONG_TEXTS if kind is ValueType.STRING else _number(kind)


def scalars() -> st.SearchStrategy[Value]:
    """Values of any type but ARRAY."""
    kinds = [t for t in ValueType if t is not ValueType.ARRAY]
    return st.sampled_from(kinds).flatmap(lambda kind: _element(kind).map(lambda v: scalar(kind, v)))


def arrays(depth: int = 2) -> st.SearchStrategy[Value]:
    """Arrays of any element type, nested up to `depth`."""
    flat = st.sampled_from([t for t in ValueType if t is not ValueType.ARRAY]).flatmap(
        lambda kind: st.lists(_element(kind), max_size=6).map(lambda vs: array(kind, vs))
    )
    if depth <= 1:
        return flat
    return flat | st.lists(arrays(depth - 1), max_size=3).map(lambda vs: array(ValueType.ARRAY, vs))


KEYS = st.text("abcdefghijklmnopqrstuvwxyz0123456789_.", min_size=1, max_size=30).filter(
    lambda key: key not in ("general.alignment", "split.count", SLACK_KEY)
)
METADATA = st.dictionaries(KEYS, scalars() | arrays(), max_size=6)
NAMES = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=15).filter(
    lambda name: len(name.encode()) <= 63
)


@st.composite
def tensors(draw: st.DrawFn) -> list[tuple[Declared, NDArray[np.uint8]]]:
    """Declared tensors of any type with random blocks: uint8 of shape (rows, row bytes)."""
    found = []
    for name in draw(st.lists(NAMES, max_size=5, unique=True)):
        kind = draw(st.sampled_from(sorted(TENSOR_TYPES.values(), key=lambda t: t.id)))
        leading = draw(st.lists(st.integers(0, 4), max_size=3))
        blocks = draw(st.integers(0, 3))
        declared = Declared(name, (*leading, blocks * kind.block_size), kind)
        rows = int(np.prod(leading, dtype=np.int64))
        seed = draw(st.integers(0, 2**32 - 1))
        raw = np.random.default_rng(seed).integers(0, 256, (rows, blocks * kind.block_bytes), np.uint8)
        found.append((declared, raw))
    return found
