"""Arrays of strings: what is found at once, what is walked, and where each search begins and ends."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from gguf_forge.errors import TruncatedError
from gguf_forge.format import words
from gguf_forge.format.cursor import Cursor, MoreNeeded
from tests.format.notation import Order, big, little

ORDERS = pytest.mark.parametrize("o", [little, big], ids=["little", "big"])
LONG, SHORT = "y" * 256, "x" * 255
WALK = words._walk


def laid(o: Order, texts: Sequence[str], after: bytes = b"") -> tuple[Cursor, list[int], list[int]]:
    """A cursor at three bytes before strings; their starts and lengths."""
    data, starts = b"abc", []
    for text in texts:
        starts.append(len(data))
        data += o.s(text)
    return Cursor(data + after, "f", 3, o.mark), starts, [len(text.encode()) for text in texts]


def window(cursor: Cursor, count: int) -> tuple[list[int], list[int]]:
    starts, lengths = words._window(cursor, count)
    return starts.tolist(), lengths.tolist()


#: Texts, what follows them, how many are asked for, and how many are found at once; where zeros lie beside a length
#: that depends on the side, and so on the order of bytes: in little-endian files, and in big-endian ones.
FOUND: list[tuple[list[str], bytes, int, int | tuple[int, int]]] = [
    (["ab", "c", SHORT, "\1"], b"", 4, 4),
    (["ab", "c", SHORT, "\1"], b"\7" * 20, 4, 4),
    (["ab", "c", SHORT, "\1"], b"\7" * 20, 3, 3),
    (["ab", "c", SHORT, "\1"], b"\7" * 20, 1, 1),
    (["ab"], b"", 1, 1),
    (["ab"], b"", 9, 1),
    (["a", LONG, "b"], b"", 3, 1),
    (["a", "b", LONG], b"", 3, 2),
    ([LONG, "b"], b"", 2, 0),
    (["", "b"], b"", 2, (2, 0)),
    ([""], b"", 1, 1),
    (["b", "", "c"], b"", 3, (3, 1)),
    (["a", "b" + "\0" * 7 + "c", "d"], b"", 3, 2),
    (["a", "b\0\0\0\0\0\0c", "d"], b"", 3, 3),
    (["a", "é", "\0"], b"", 3, (2, 3)),
]


@ORDERS
@pytest.mark.parametrize(("texts", "after", "count", "found"), FOUND)
def test_short_strings_are_found_at_once(
    o: Order, texts: list[str], after: bytes, count: int, found: int | tuple[int, int]
) -> None:
    found = found if isinstance(found, int) else found[o is big]
    cursor, starts, lengths = laid(o, texts, after)
    assert window(cursor, count) == (starts[:found], lengths[:found])
    assert cursor.pos == (starts[found - 1] + 8 + lengths[found - 1] if found else 3)


@ORDERS
@pytest.mark.parametrize("left", range(9))
def test_where_no_length_can_be_nothing_is_found(o: Order, left: int) -> None:
    cursor = Cursor(b"abc" + bytes(left), "f", 3, o.mark)
    assert window(cursor, 2) == (([3], [0]) if left == 8 else ([], []))
    assert cursor.pos == (11 if left == 8 else 3)


@ORDERS
@pytest.mark.parametrize("short", [0, 1, 2])
def test_a_last_string_that_is_not_all_there_is_left(o: Order, short: int) -> None:
    for texts in (["ab", "cdef"], ["cdef"]):
        whole, starts, lengths = laid(o, texts)
        cursor = Cursor(bytes(whole.buffer[: len(whole.buffer) - short]), "f", 3, o.mark)
        found = len(texts) - bool(short)
        assert window(cursor, 9) == (starts[:found], lengths[:found])
        assert cursor.pos == (starts[found - 1] + 8 + lengths[found - 1] if found else 3)


@ORDERS
def test_a_window_ends_with_the_last_length_in_it(o: Order, monkeypatch: pytest.MonkeyPatch) -> None:
    cursor, starts, lengths = laid(o, ["abcd"] * 5)  # of 12 bytes each
    for size, found in ((7, 0), (8, 1), (12, 1), (19, 1), (20, 2), (31, 2), (32, 3), (56, 5), (60, 5), (99, 5)):
        monkeypatch.setattr(words, "_WINDOW", size)
        cursor.pos = 3
        assert window(cursor, 9) == (starts[:found], lengths[:found]), size
        assert cursor.pos == 3 + 12 * found


@ORDERS
def test_strings_of_any_length_are_walked(o: Order) -> None:
    texts = ["a", LONG, "", "\0" * 9, "b" * 70000]
    cursor, starts, lengths = laid(o, texts, b"rest")
    for first, steps in ((0, 2), (2, 1), (3, 2)):
        got = words._walk(cursor, first, steps, 5)
        assert [part.tolist() for part in got] == [starts[first : first + steps], lengths[first : first + steps]]
        assert cursor.pos == starts[first + steps - 1] + 8 + lengths[first + steps - 1]
    with pytest.raises(TruncatedError, match="length of string 5 of 6 needs 8 bytes, 4 left") as caught:
        words._walk(cursor, 5, 1, 6)
    assert caught.value.offset == len(cursor.buffer) - 4


@ORDERS
def test_a_walk_ends_where_the_bytes_do(o: Order) -> None:
    for texts in ([""], ["a", ""], ["a", "bc"]):
        cursor, starts, lengths = laid(o, texts)
        assert words._walk(cursor, 0, len(texts), len(texts))[1].tolist() == lengths
        assert cursor.pos == len(cursor.buffer)
        cut = Cursor(bytes(cursor.buffer[:-1]), "f", 3, o.mark)
        text = f"string {len(texts) - 1} of 7 needs {lengths[-1] or 8} bytes, {(lengths[-1] or 8) - 1} left"
        with pytest.raises(TruncatedError, match=text) as caught:
            words._walk(cut, 0, len(texts), 7)
        assert caught.value.offset == starts[-1]
        more = Cursor(bytes(cursor.buffer[:-1]), "f", 3, o.mark, size=len(cursor.buffer))
        with pytest.raises(MoreNeeded):
            words._walk(more, 0, len(texts), 7)


def sizes(o: Order, texts: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """How many strings each step takes, and whether they were found or walked; all of them, in order."""
    cursor, starts, lengths = laid(o, texts, b"\7" * 9)
    taken: list[tuple[str, int]] = []
    def walked(cursor: Cursor, first: int, steps: int, count: int) -> tuple[words.Starts, words.Starts]:
        assert (first, count) == (sum(number for _, number in taken), len(texts))
        found = WALK(cursor, first, steps, count)
        taken.append(("walked", len(found[0])))
        return found

    monkeypatch.setattr(words, "_PAYS", 2)
    monkeypatch.setattr(words, "_MOST_WALKED", 8)
    monkeypatch.setattr(words, "_walk", walked)
    seen: list[tuple[int, int]] = []
    for found, long in words._runs(cursor, len(texts)):
        if sum(number for _, number in taken) == len(seen):
            taken.append(("found", len(found)))
        seen += zip(found.tolist(), long.tolist(), strict=True)
    assert seen == [*zip(starts, lengths, strict=True)]
    assert cursor.pos == len(cursor.buffer) - 9
    return taken


@ORDERS
def test_long_strings_are_walked_in_ever_longer_steps(o: Order, monkeypatch: pytest.MonkeyPatch) -> None:
    took = sizes(o, [LONG] * 32, monkeypatch)
    assert took == [("walked", n) for n in (2, 4, 8, 8, 8, 2)]


@ORDERS
def test_steps_are_short_again_once_a_search_paid(o: Order, monkeypatch: pytest.MonkeyPatch) -> None:
    took = sizes(o, [*[LONG] * 6, "a", "b", *[LONG] * 7, "c", LONG, "d"], monkeypatch)
    assert took == [
        ("walked", 2), ("walked", 4), ("found", 2), ("walked", 2), ("walked", 4), ("walked", 4),
    ]  # fmt: skip
    took = sizes(o, [*[LONG] * 6, "a", *[LONG] * 9], monkeypatch)  # one that is found does not pay
    assert took == [("walked", 2), ("walked", 4), ("found", 1), ("walked", 8), ("walked", 1)]


@ORDERS
def test_short_strings_are_never_walked(o: Order, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(words, "_WINDOW", 48)
    assert sizes(o, ["abcd"] * 11, monkeypatch) == [("found", 4), ("found", 4), ("found", 3)]
    assert sizes(o, [], monkeypatch) == []


@ORDERS
@pytest.mark.parametrize(
    ("texts", "apart"),
    [(["a"], True), (["a", "", "é"], True), (["\udcff", LONG], True), (["\1"], True), (["a\0"], False)],
)
def test_strings_are_decoded_at_once_unless_one_holds_a_zero(o: Order, texts: list[str], apart: bool) -> None:
    data, begins = b"", []
    for text in texts:
        begins.append(len(data))
        raw = text.encode("utf-8", "surrogateescape")
        data += o.u64(len(raw)) + raw
    starts = np.array(begins, np.int64)
    assert words._split(data, starts, o.mark) == (texts if apart else [])
    assert words._slices(data, starts) == texts
    assert words.read_strings(Cursor(b"abc" + data, "f", 3, o.mark), len(texts)) == texts
