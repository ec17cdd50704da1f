"""The verbs, by what must hold for any input: runs of rows are the whole's, and undoing gives the sources back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gguf_forge.convert.ops import (
    BF16,
    CONCAT,
    COPY,
    F16,
    F32,
    STACK,
    TRANSPOSE,
    Add,
    Computed,
    Facts,
    FirstRows,
    PickRows,
    RopePermute,
    Split,
    Verb,
    View,
    of_array,
    widen,
)
from gguf_forge.errors import ConversionError

FACTS = Facts({"heads": 2, "none": None}, Path())
SIZES = st.integers(1, 5)
DTYPES = st.sampled_from([np.float32, np.float16, np.uint16])
Array = npt.NDArray[Any]


def numbered(shape: tuple[int, ...], dtype: Any, start: int = 0) -> Array:
    """Distinct, exactly representable values."""
    values = (np.arange(np.prod(shape)) + start) % 512 + 1
    if dtype == np.uint16:
        return (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16).reshape(shape)
    return values.astype(dtype).reshape(shape)


def made(verb: Verb, *sources: Array) -> View:
    view = verb.view([of_array(f"source{i}", s) for i, s in enumerate(sources)], FACTS)
    assert view is not None
    return view


def check(verb: Verb, expected: Array, *sources: Array) -> View:
    """The whole, every run at the granule, and the way back."""
    view = made(verb, *sources)
    assert view.shape == expected.shape
    np.testing.assert_array_equal(view.read(), expected)
    flat = expected.reshape(view.count, view.width)
    for start in range(0, view.count, view.granule):
        stop = min(start + view.granule, view.count)
        run = view.rows(start, stop)
        assert run.flags.c_contiguous
        np.testing.assert_array_equal(run, flat[start:stop])
    back = verb.undo([view], [s.shape for s in sources], FACTS)
    for given_, found in zip(sources, back, strict=True):
        assert found.shape == given_.shape
        np.testing.assert_array_equal(found.read(), given_)
    return view


@given(SIZES, SIZES, DTYPES)
def test_copy(rows: int, width: int, dtype: Any) -> None:
    source = numbered((rows, width), dtype)
    assert check(COPY, source, source).granule == 1


@given(SIZES, SIZES, DTYPES, st.booleans())
def test_rope_permute(pairs: int, width: int, dtype: Any, vector: bool) -> None:
    heads = 2
    shape = (heads * 2 * pairs,) if vector else (heads * 2 * pairs, width)
    source = numbered(shape, dtype)
    halves = source.reshape(heads, 2, pairs, *shape[1:])
    expected = np.stack([halves[:, 0], halves[:, 1]], axis=2).reshape(shape)
    check(RopePermute(("none", "heads")), expected, source)


@given(SIZES, SIZES, DTYPES, st.integers(1, 64))
def test_transpose(rows: int, width: int, dtype: Any, slab: int) -> None:
    source = numbered((rows, width), dtype)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gguf_forge.convert.ops.SLAB_BYTES", slab)
        check(TRANSPOSE, source.T, source)


def test_transpose_leaves_vectors() -> None:
    source = numbered((7,), np.float32)
    check(TRANSPOSE, source, source)


@given(SIZES, SIZES, st.sampled_from([np.float32, np.float16]))
def test_add(rows: int, width: int, dtype: Any) -> None:
    source = numbered((rows, width), dtype)
    view = check(Add(1.0), source + dtype(1), source)
    assert view.type is (F16 if dtype is np.float16 else F32)


def test_add_works_in_single_precision_on_bf16_and_in_half_on_f16() -> None:
    """1 + 2^-9 needs 10 bits: float32 and float16 have them, BF16 has not; 1 + 2^-12 is too fine for float16."""
    fine = np.array([2.0**-9, 2.0**-12], np.float32)
    bits = (fine.view(np.uint32) >> 16).astype(np.uint16)
    view = made(Add(1.0), bits)
    assert view.type is F32
    np.testing.assert_array_equal(view.read(), np.float32(1) + fine)
    np.testing.assert_array_equal(
        made(Add(1.0), fine.astype(np.float16)).read(), np.array([1 + 2.0**-9, 1], np.float16)
    )


@given(SIZES, SIZES, SIZES, DTYPES)
def test_stack(count: int, rows: int, width: int, dtype: Any) -> None:
    sources = [numbered((rows, width), dtype, 7 * i) for i in range(count)]
    check(STACK, np.stack(sources), *sources)


@given(SIZES, SIZES, DTYPES)
def test_stack_of_vectors(count: int, width: int, dtype: Any) -> None:
    sources = [numbered((width,), dtype, 7 * i) for i in range(count)]
    check(STACK, np.stack(sources), *sources)


@given(st.lists(SIZES, min_size=1, max_size=4), SIZES, DTYPES, st.booleans())
def test_concat(heights: list[int], width: int, dtype: Any, vectors: bool) -> None:
    sources = [numbered((h,) if vectors else (h, width), dtype, 9 * i) for i, h in enumerate(heights)]
    check(CONCAT, np.concatenate(sources), *sources)


@given(st.integers(1, 3), SIZES, SIZES, SIZES, DTYPES, st.booleans())
def test_split_and_its_parts_together(
    count: int, stacked: int, rows: int, width: int, dtype: Any, matrix: bool
) -> None:
    shape = (count * rows, width) if matrix else (stacked, count * rows, width)
    source = numbered(shape, dtype)
    views = [made(Split(i, count), source) for i in range(count)]
    for view, expected in zip(views, np.split(source, count, axis=-2), strict=True):
        np.testing.assert_array_equal(view.read(), expected)
        for start in range(view.count):
            np.testing.assert_array_equal(view.rows(start, start + 1)[0], expected.reshape(-1, width)[start])
    (back,) = Split(0, count).undo(views, [shape], FACTS)
    np.testing.assert_array_equal(back.read(), source)


def test_first_rows() -> None:
    source = numbered((6, 3), np.float32)
    np.testing.assert_array_equal(made(FirstRows(lambda facts: 4), source).read(), source[:4])
    check(FirstRows(lambda facts: 99), source, source)
    with pytest.raises(ConversionError, match="beyond 4 were not kept"):
        FirstRows(lambda facts: 4).undo([of_array("t", source[:4])], [source.shape], FACTS)


def test_computed() -> None:
    assert Computed(lambda facts: None).view([], FACTS) is None
    view = Computed(lambda facts: np.array([1.5, 2.5])).view([], FACTS)
    assert view is not None
    assert view.type is F32
    np.testing.assert_array_equal(view.read(), np.array([1.5, 2.5], np.float32))


def test_widening_is_exact() -> None:
    bits = np.arange(2**16, dtype=np.uint16)
    values = widen(bits, BF16)
    finite = np.isfinite(values)
    np.testing.assert_array_equal((values[finite].view(np.uint32) >> 16).astype(np.uint16), bits[finite])


@pytest.mark.parametrize(
    ("verb", "shapes", "message"),
    [
        (RopePermute(("heads",)), [(6, 2)], "6 rows cannot be divided into 2 heads"),
        (RopePermute(("none",)), [(4, 2)], "none must be a positive number, got None"),
        (STACK, [(2, 2), (2, 3)], r"source1 is F32 \[2, 3\], but source0"),
        (CONCAT, [(2, 2), (2, 3)], "does not continue source0"),
        (Split(0, 2), [(3, 2)], "cannot be split into 2 equal parts"),
        (COPY, [(2, 2), (2, 2)], "expected one source tensor, got 2"),
    ],
)
def test_shapes_a_verb_cannot_take(verb: Verb, shapes: list[tuple[int, ...]], message: str) -> None:
    with pytest.raises(ConversionError, match=message):
        made(verb, *(numbered(s, np.float32) for s in shapes))


@given(height=SIZES, width=SIZES, dtype=DTYPES, data=st.data())
def test_picked_rows_stand_in_the_order_asked_for(height: int, width: int, dtype: Any, data: st.DataObject) -> None:
    source = numbered((height, width), dtype)
    picked = data.draw(st.lists(st.integers(0, height - 1), min_size=1, max_size=4))
    view = made(PickRows(lambda facts: picked), source)
    assert view.shape == (len(picked), width)
    np.testing.assert_array_equal(view.read(), source[picked])
    np.testing.assert_array_equal(view.rows(1, len(picked)), source[picked][1:])
    with pytest.raises(ConversionError, match="rows were kept"):
        PickRows(lambda facts: picked).undo([view], [source.shape], FACTS)


@pytest.mark.parametrize(("picked", "shape"), [([0, 3], (3, 2)), ([-1], (3, 2)), ([0], (3,))])
def test_rows_that_are_not_there_cannot_be_picked(picked: list[int], shape: tuple[int, ...]) -> None:
    with pytest.raises(ConversionError, match="has no row"):
        made(PickRows(lambda facts: picked), numbered(shape, np.float32))
