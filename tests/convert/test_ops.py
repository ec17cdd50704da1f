"""The verbs, by what must hold for any input: runs of rows are the whole's, and undoing gives the sources back."""

from __future__ import annotations

import weakref
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gguf_forge.convert.facts import Facts
from gguf_forge.convert.ops import (
    CONCAT,
    COPY,
    NEG_EXP,
    SQUEEZE,
    STACK,
    TRANSPOSE,
    Cast,
    Columns,
    Computed,
    Each,
    Reshape,
    Rows,
    Verb,
    Whole,
    add,
    scale,
)
from gguf_forge.convert.rows import (
    equal_parts,
    every,
    first_rows,
    interleave_halves,
    number_of,
    parts_of,
    parts_of_heads,
    picked_rows,
    rows_from,
)
from gguf_forge.convert.view import BF16, F16, F32, RowNumbers, View, changed, of_array, widen
from gguf_forge.errors import ConversionError
from gguf_forge.types import tensor_type

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


def views_of(*sources: Array) -> list[View]:
    return [of_array(f"source{i}", s) for i, s in enumerate(sources)]


def made(verb: Verb, *sources: Array) -> View:
    (view,) = verb.views(views_of(*sources), FACTS)
    return view


def check(verb: Verb, expected: Array | list[Array], *sources: Array, lossy: bool = False) -> list[View]:
    """The whole of each output, every run of rows, and the way back."""
    wanted = expected if isinstance(expected, list) else [expected]
    views = verb.views(views_of(*sources), FACTS)
    for view, array in zip(views, wanted, strict=True):
        assert view.shape == array.shape
        np.testing.assert_array_equal(view.read(), array)
        flat = array.reshape(view.count, view.width)
        for start in range(view.count):
            for stop in {start + 1, (start + view.count + 1) // 2, view.count}:
                run = view.rows(start, stop)
                assert run.flags.c_contiguous
                np.testing.assert_array_equal(run, flat[start:stop])
    if not lossy:
        back = verb.undo(views, views_of(*sources), FACTS)
        for given_, found in zip(sources, back, strict=True):
            assert found.shape == given_.shape
            np.testing.assert_array_equal(found.read(), given_)
    return views


@given(SIZES, SIZES, DTYPES)
def test_copy(rows: int, width: int, dtype: Any) -> None:
    source = numbered((rows, width), dtype)
    check(COPY, source, source)


@given(SIZES, SIZES, DTYPES, st.booleans())
def test_rope_permute(pairs: int, width: int, dtype: Any, vector: bool) -> None:
    heads = 2
    shape = (heads * 2 * pairs,) if vector else (heads * 2 * pairs, width)
    source = numbered(shape, dtype)
    halves = source.reshape(heads, 2, pairs, *shape[1:])
    expected = np.stack([halves[:, 0], halves[:, 1]], axis=2).reshape(shape)
    check(interleave_halves(number_of("none", "heads")), expected, source)


@given(SIZES, SIZES, DTYPES, st.integers(1, 64))
def test_transpose(rows: int, width: int, dtype: Any, slab: int) -> None:
    source = numbered((rows, width), dtype)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gguf_forge.convert.ops.SLAB_BYTES", slab)
        patch.setattr("gguf_forge.convert.ops.MATRIX_BYTES", slab)
        check(TRANSPOSE, source.T, source)


@given(SIZES, SIZES, SIZES, DTYPES, st.sampled_from([0, 1 << 20]))
def test_transpose_of_each_matrix_of_a_stack(count: int, rows: int, width: int, dtype: Any, held: int) -> None:
    source = numbered((count, rows, width), dtype)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gguf_forge.convert.ops.SLAB_BYTES", 16)
        patch.setattr("gguf_forge.convert.ops.MATRIX_BYTES", held)
        check(TRANSPOSE, source.swapaxes(1, 2), source)


def test_transpose_leaves_vectors() -> None:
    source = numbered((7,), np.float32)
    check(TRANSPOSE, source, source)


@given(SIZES, SIZES, st.sampled_from([np.float32, np.float16]))
def test_add(rows: int, width: int, dtype: Any) -> None:
    source = numbered((rows, width), dtype)
    (view,) = check(add(1.0), source + dtype(1), source)
    assert view.type is (F16 if dtype is np.float16 else F32)


def test_add_works_in_single_precision_on_bf16_and_in_half_on_f16() -> None:
    """1 + 2^-9 needs 10 bits: float32 and float16 have them, BF16 has not; 1 + 2^-12 is too fine for float16."""
    fine = np.array([2.0**-9, 2.0**-12], np.float32)
    bits = (fine.view(np.uint32) >> 16).astype(np.uint16)
    view = made(add(1.0), bits)
    assert view.type is F32
    np.testing.assert_array_equal(view.read(), np.float32(1) + fine)
    np.testing.assert_array_equal(
        made(add(1.0), fine.astype(np.float16)).read(), np.array([1 + 2.0**-9, 1], np.float16)
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
def test_equal_parts(count: int, stacked: int, rows: int, width: int, dtype: Any, matrix: bool) -> None:
    shape = (count * rows, width) if matrix else (stacked, count * rows, width)
    source = numbered(shape, dtype)
    check(equal_parts(count), np.split(source, count, axis=-2), source)
    check(every(count), [source[..., i::count, :] for i in range(count)], source)


@given(SIZES, SIZES, DTYPES)
def test_the_biases_of_a_stack_are_split_as_its_weights_are(stacked: int, rows: int, dtype: Any) -> None:
    bias = numbered((stacked, 2 * rows), dtype)
    view = changed(of_array("bias", bias), vector=True)
    parts = equal_parts(2).views([view], FACTS)
    for part, expected in zip(parts, np.split(bias, 2, axis=1), strict=True):
        np.testing.assert_array_equal(part.read(), expected)
    (back,) = equal_parts(2).undo(parts, [view], FACTS)
    np.testing.assert_array_equal(back.read(), bias)


@given(SIZES, SIZES, SIZES, SIZES, DTYPES)
def test_parts_of_heads_and_of_the_whole(heads: int, queries: int, values: int, width: int, dtype: Any) -> None:
    source = numbered((heads * (queries + values), width), dtype)
    by_head = source.reshape(heads, queries + values, width)
    expected = [by_head[:, :queries].reshape(-1, width), by_head[:, queries:].reshape(-1, width)]
    check(parts_of_heads(lambda _: heads, lambda _: (queries, values)), expected, source)
    check(parts_of(lambda _: (heads * queries, heads * values)), np.split(source, [heads * queries]), source)


@given(SIZES, SIZES, SIZES, DTYPES)
def test_verbs_one_after_the_other(heads: int, part: int, width: int, dtype: Any) -> None:
    """Keys and values of multi-head latent attention: by head, and the keys transposed."""
    source = numbered((heads * (part + 2), width), dtype)
    by_head = source.reshape(heads, part + 2, width)
    split = Rows(lambda r, _: tuple(np.split(r.reshape(heads, -1), [part], axis=1)))
    check(split | Each(TRANSPOSE, COPY), [by_head[:, :part].swapaxes(1, 2), by_head[:, part:]], source)


@given(SIZES, SIZES, DTYPES)
def test_rows_of_several_sources_in_turns(rows: int, width: int, dtype: Any) -> None:
    first, second = numbered((rows, width), dtype), numbered((rows, width), dtype, 100)
    turns = Rows(lambda parts, _: np.stack(parts, axis=1).reshape(-1))
    check(turns, np.stack([first, second], axis=1).reshape(-1, width), first, second)


@given(SIZES, SIZES, DTYPES)
def test_columns(rows: int, width: int, dtype: Any) -> None:
    source = numbered((rows, width), dtype)
    check(Columns(lambda c, _: c[::-1]), np.ascontiguousarray(source[:, ::-1]), source)
    few = Columns(lambda c, _: c[:1])
    np.testing.assert_array_equal(made(few, source).read(), source[:, :1])
    if width > 1:
        with pytest.raises(ConversionError, match="not all columns"):
            few.undo([made(few, source)], views_of(source), FACTS)


@given(SIZES, SIZES, SIZES, DTYPES)
def test_reshape(a: int, b: int, c: int, dtype: Any) -> None:
    source = numbered((a, b, c), dtype)
    check(Reshape(lambda shape, _: (shape[0], shape[1] * shape[2])), source.reshape(a, b * c), source)
    check(Reshape(lambda shape, _: (shape[0] * shape[1] * shape[2], 1)), source.reshape(-1, 1), source)
    squeezed = [n for n in (a, 1, c) if n != 1] or [1]
    check(SQUEEZE, numbered((a, 1, c), dtype).reshape(squeezed), numbered((a, 1, c), dtype))
    with pytest.raises(ConversionError, match="cannot take the shape"):
        made(Reshape(lambda shape, _: (a * b * c + 1,)), source)


def test_functions_of_elements() -> None:
    source = numbered((3, 4), np.float32)
    expected = -np.exp((source / 64).astype(np.float64))
    np.testing.assert_array_equal(made(NEG_EXP, source / 64).read(), expected.astype(np.float32))
    check(scale(lambda facts: facts.config["heads"]), source * 2, source)
    with pytest.raises(ConversionError, match="cannot calculate with I32"):
        NEG_EXP.views([changed(of_array("ids", source), type=tensor_type("I32"))], FACTS)


def test_functions_of_whole_tensors() -> None:
    first, second = numbered((3, 4), np.float32), numbered((3, 1), np.uint16)
    view = made(Whole(lambda arrays, _: arrays[0] / np.abs(arrays[1]).max()), first, second)
    np.testing.assert_array_equal(view.read(), first / np.float32(3))
    np.testing.assert_array_equal(view.rows(1, 2), first[1:2] / np.float32(3))
    with pytest.raises(ConversionError, match="turned back"):
        Whole(lambda arrays, _: arrays[0]).undo([view], views_of(first), FACTS)
    with pytest.raises(ConversionError, match=r"made \[3, 4\] where \[1\] was planned"):
        made(Whole(lambda arrays, _: arrays[0], lambda shapes, _: (1,)), first).read()


def test_whole_numbers_keep_their_values_or_are_refused() -> None:
    ids = np.array([[1, 2], [3, 2**31]], np.int64)
    view = changed(of_array("ids", numbered((2, 2), np.float32)), type=tensor_type("I64"), rows=lambda a, b: ids[a:b])
    (cast,) = Cast("I32").views([view], FACTS)
    assert cast.type.name == "I32"
    np.testing.assert_array_equal(cast.rows(0, 1), [[1, 2]])
    with pytest.raises(ConversionError, match="not every value is a I32"):
        cast.rows(1, 2)


def test_first_rows_and_those_from_one_on() -> None:
    source = numbered((6, 3), np.float32)
    check(first_rows(lambda facts: 4), source[:4], source, lossy=True)
    check(first_rows(lambda facts: 99), source, source)
    check(rows_from(lambda facts: 2), source[2:], source, lossy=True)
    with pytest.raises(ConversionError, match="2 of 6 rows of source0 were not kept"):
        first_rows(lambda facts: 4).undo([of_array("t", source[:4])], views_of(source), FACTS)


def test_computed() -> None:
    assert Computed(lambda facts: None).views([], FACTS) == []
    (view,) = Computed(lambda facts: np.array([1.5, 2.5])).views([], FACTS)
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
        (interleave_halves(number_of("heads")), [(6, 2)], r"source0 \[6, 2\].*6 rows cannot be divided into 2 heads"),
        (interleave_halves(number_of("none")), [(4, 2)], "config.json: none is null"),
        (STACK, [(2, 2), (2, 3)], r"source1 is F32 \[2, 3\], but source0"),
        (CONCAT, [(2, 2), (2, 3)], "to be joined with it"),
        (equal_parts(2), [(3, 2)], "rows do not fit config.json"),
        (parts_of(lambda _: (1, 1)), [(3, 2)], r"3 rows are not parts of 1 \+ 1"),
        (Rows(lambda r, _: r + 1), [(3, 2)], "has no row 3"),
    ],
)
def test_shapes_a_verb_cannot_take(verb: Verb, shapes: list[tuple[int, ...]], message: str) -> None:
    with pytest.raises(ConversionError, match=message):
        made(verb, *(numbered(s, np.float32) for s in shapes))


@given(height=SIZES, width=SIZES, dtype=DTYPES, data=st.data())
def test_picked_rows_stand_in_the_order_asked_for(height: int, width: int, dtype: Any, data: st.DataObject) -> None:
    source = numbered((height, width), dtype)
    picked = data.draw(st.lists(st.integers(0, height - 1), min_size=1, max_size=4))
    check(picked_rows(lambda facts: picked), source[picked], source, lossy=True)


@pytest.mark.parametrize("picked", [[0, 3], [-1]])
def test_rows_that_are_not_there_cannot_be_picked(picked: list[int]) -> None:
    with pytest.raises(ConversionError, match="there is no row"):
        made(picked_rows(lambda facts: picked), numbered((3, 2), np.float32))


@given(st.permutations(range(40)), st.integers(0, 39), st.integers(0, 40))
def test_scattered_rows_are_read_in_few_pieces(order: list[int], start: int, count: int) -> None:
    source = numbered((40, 2), np.float32)
    reads: list[tuple[int, int]] = []

    def rows(a: int, b: int) -> Array:
        reads.append((a, b))
        return source[a:b]

    (view,) = Rows(lambda r, _: r[order]).views([changed(of_array("s", source), rows=rows)], FACTS)
    stop = min(40, start + count)
    np.testing.assert_array_equal(view.rows(start, stop), source[order][start:stop])
    assert sum(b - a for a, b in reads) <= 2 * max(1, stop - start)


def test_row_numbers_are_forgotten_while_many_others_are_read_and_leave_with_their_view() -> None:
    made: list[int] = []

    def numbers(which: int) -> RowNumbers:
        def make() -> Array:
            made.append(which)
            return np.arange(3)

        return RowNumbers(make)

    kept = [numbers(i) for i in range(20)]
    for one in kept:
        np.testing.assert_array_equal(one.get(), [0, 1, 2])
    kept[-1].get()
    assert made == list(range(20))
    kept[0].get()
    assert made[20:] == [0]
    assert sum(one._numbers is not None for one in kept) == 8
    gone = weakref.ref(kept[-1])
    kept.clear()
    del one
    assert gone() is None
