"""Headers and places before a file exists: every byte of them, and what is refused before the reader is asked."""

from __future__ import annotations

import pytest

from gguf_forge.errors import InvalidError, LimitError
from gguf_forge.format import values
from gguf_forge.format.layout import ALIGNMENT_KEY, Limits, ValueType
from gguf_forge.format.plan import Declared, Extent, plan_file
from gguf_forge.types import tensor_type
from tests.format.notation import Order, big, little, pad

F32, Q8_0, I8 = tensor_type("F32"), tensor_type("Q8_0"), tensor_type("I8")
ORDERS = pytest.mark.parametrize(("endian", "o"), [("little", little), ("big", big)])
TENSORS = [Declared("a", (3, 5), F32), Declared("b", (), F32), Declared("c", (2, 3, 64), Q8_0)]
TENSORS.append(Declared("d", (0,), F32))


def own(error: pytest.ExceptionInfo[InvalidError] | pytest.ExceptionInfo[LimitError]) -> tuple[str, str | None]:
    """The text and field of an error that the plan raised itself: the parser's name a byte of the header."""
    assert error.value.offset is None
    assert error.value.path == "x.gguf"
    return error.value.text, error.value.field


@ORDERS
def test_every_byte_of_a_header(endian: str, o: Order) -> None:
    plan = plan_file({"k": values.u32(7), "é": values.string("w")}, TENSORS, endian=endian)
    header = o.h(4, 2) + o.kv("k", 4, o.u32(7)) + o.kv("é", 8, o.s("w"))
    header += o.ti("a", [5, 3], 0, 0) + o.ti("b", [], 0, 64) + o.ti("c", [64, 3, 2], 8, 96) + o.ti("d", [0], 0, 512)
    assert plan.header == pad(header)
    start = plan.data_start
    assert (start, plan.size) == (len(plan.header), start + 512)
    assert plan.tensors == {
        "a": Extent("a", (3, 5), F32, start, 60),
        "b": Extent("b", (), F32, start + 64, 4),
        "c": Extent("c", (2, 3, 64), Q8_0, start + 96, 408),
        "d": Extent("d", (0,), F32, start + 512, 0),
    }
    assert [extent.row_bytes for extent in plan.tensors.values()] == [20, 4, 68, 0]
    assert (plan.alignment, plan.endian) == (32, endian)
    assert repr(plan) == f"<FilePlan: 4 tensors, {plan.size} bytes>"


@ORDERS
def test_a_header_alone_is_padded_unless_told_otherwise(endian: str, o: Order) -> None:
    header = o.h(0, 1) + o.kv("k", 4, o.u32(7))
    assert len(header) % 32
    for given, wanted in ((True, pad(header)), (False, header)):
        plan = plan_file({"k": values.u32(7)}, [], endian=endian, pad=given)
        assert (plan.header, plan.data_start, plan.size, dict(plan.tensors)) == (wanted, len(wanted), len(wanted), {})
    plan = plan_file({"k": values.u32(7)}, TENSORS[:1], endian=endian, pad=False)
    assert (plan.data_start % 32, plan.size) == (0, plan.data_start + 64)


@pytest.mark.parametrize("alignment", [1, 2, 64, 4096])
def test_an_alignment_of_ones_own(alignment: int) -> None:
    plan = plan_file({"k": values.u32(7)}, TENSORS[:2], alignment=alignment)
    stated = little.kv(ALIGNMENT_KEY, 4, little.u32(alignment))
    at = -(-60 // alignment) * alignment
    header = little.h(2, 2) + little.kv("k", 4, little.u32(7)) + stated
    header += little.ti("a", [5, 3]) + little.ti("b", [], 0, at)
    assert plan.header == pad(header, alignment)
    assert (plan.alignment, plan.size - plan.data_start) == (alignment, at + max(4, alignment))
    again = plan_file({ALIGNMENT_KEY: values.u32(alignment)}, [], alignment=alignment)
    assert again.header == plan_file({ALIGNMENT_KEY: values.u32(alignment)}, []).header
    assert again.header.count(ALIGNMENT_KEY.encode()) == 1


def test_the_usual_alignment_is_not_said() -> None:
    assert plan_file({}, [], alignment=32).header == plan_file({}, []).header == pad(little.h(0, 0))


@pytest.mark.parametrize("alignment", [0, -1, -32, 3, 6, 33])
def test_an_alignment_that_is_none(alignment: int) -> None:
    with pytest.raises(InvalidError) as caught:
        plan_file({}, [], alignment=alignment, path="x.gguf")
    assert own(caught) == (f"alignment {alignment} is not a power of two", f'key "{ALIGNMENT_KEY}"')


def test_alignments_that_contradict() -> None:
    for stated, given, text in (
        (values.u32(64), 32, "the metadata say 64, the caller 32"),
        (values.u32(64), 65, "the metadata say 64, the caller 65"),
        (values.scalar(ValueType.UINT64, 64), 64, "must be UINT32, found UINT64"),
        (values.scalar(ValueType.INT32, 64), None, "must be UINT32, found INT32"),
        (values.u32(0), None, "alignment 0 is not a power of two"),
    ):
        with pytest.raises(InvalidError) as caught:
            plan_file({ALIGNMENT_KEY: stated}, [], alignment=given, path="x.gguf")
        assert own(caught) == (text, f'key "{ALIGNMENT_KEY}"')


def test_an_order_of_bytes_that_is_none() -> None:
    with pytest.raises(InvalidError, match="endian must be 'little' or 'big', found 'middle'"):
        plan_file({}, [], endian="middle")


def test_names_of_tensors_have_a_bound() -> None:
    plan_file({}, [Declared("é" * 31 + "x", (1,), F32)])
    with pytest.raises(LimitError) as caught:
        plan_file({}, [TENSORS[0], Declared("é" * 32, (1,), F32)], path="x.gguf")
    assert own(caught) == ("name of 64 bytes, ggml reads at most 63", f'tensor "{"é" * 32}"')


def test_dims_have_bounds() -> None:
    plan_file({}, [Declared("a", (0, 2**63 - 1), I8)])
    for shape in ((-1,), (2**63, 0), (0, 2**64)):
        with pytest.raises(InvalidError) as caught:
            plan_file({}, [TENSORS[0], Declared("a\n", shape, I8)], path="x.gguf")
        assert own(caught) == (f"shape {shape} is out of range", 'tensor "a\\n"')
    with pytest.raises(InvalidError) as caught:
        plan_file({}, [Declared("a", (4, 33), Q8_0)], path="x.gguf")
    assert own(caught)[1] == 'tensor "a"'
    assert "33" in own(caught)[0]


def test_sizes_of_files_have_a_bound() -> None:
    half = Declared("a", (2**62,), I8)
    plan = plan_file({}, [half, Declared("b", (2**62 - 4096,), I8)])
    assert plan.size == plan.data_start + 2**63 - 4096
    for last in (2**62, 2**62 - 31, 2**62 + 1):
        with pytest.raises(InvalidError) as caught:
            plan_file({}, [half, Declared("b", (last,), I8), TENSORS[0]], path="x.gguf")
        assert own(caught) == ("the file would exceed 2^63-1 bytes", 'tensor "b"')


def test_a_value_that_cannot_be_written_is_named() -> None:
    with pytest.raises(InvalidError) as caught:
        plan_file({"k": values.u32(1), "a\t": values.Value(ValueType.UINT32, 2**40)}, [], path="x.gguf")
    assert own(caught)[1] == 'key "a\\t"'


def test_the_readers_rules_hold() -> None:
    with pytest.raises(InvalidError, match=r"twice|duplicate") as caught:
        plan_file({}, [TENSORS[0], TENSORS[0]], path="x.gguf")
    assert caught.value.offset
    with pytest.raises(InvalidError):
        plan_file({}, TENSORS, limits=Limits(dims=2))
    plan_file({}, TENSORS, limits=Limits(dims=3))
    with pytest.raises(LimitError):
        plan_file({"k": values.string("long")}, [], limits=Limits(string_bytes=3))
