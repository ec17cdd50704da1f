"""Columns an importance matrix has only zeros for: what their weights become, and that all others are ggml's."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from gguf_forge import _native
from gguf_forge.convert.files import quantize_file
from gguf_forge.convert.job import Quantization
from gguf_forge.errors import QuantError
from gguf_forge.format import reader, values
from gguf_forge.format.writer import GGUFWriter
from gguf_forge.quant.codec import dequantize, quantize
from gguf_forge.quant.imatrix import Entry, Imatrix, coverage
from gguf_forge.quant.unseen import importance
from gguf_forge.types import TENSOR_TYPES, TensorType
from tests.oracle import Oracle

Floats = NDArray[np.float32]
KINDS = [t for t in TENSOR_TYPES.values() if t.weighted]
Q4_0, Q4_K, Q6_K, IQ1_S = (TENSOR_TYPES[name] for name in ("Q4_0", "Q4_K", "Q6_K", "IQ1_S"))
WIDTH = 1024


def by_name(kind: TensorType) -> str:
    return kind.name


def matrix(rows: int = 24, seed: int = 1) -> Floats:
    return np.random.default_rng(seed).standard_normal((rows, WIDTH)).astype(np.float32) * np.float32(0.02)


def recorded(seed: int = 2) -> Floats:
    return (np.random.default_rng(seed).standard_normal(WIDTH) ** 2 + 0.01).astype(np.float32)


def without(kind: TensorType, x: Floats) -> NDArray[np.uint8]:
    """As without an importance matrix."""
    return quantize(x, kind, np.ones(x.shape[1], np.float32) if kind.needs_weights else None)


def error(kind: TensorType, blocks: NDArray[np.uint8], x: Floats, columns: slice) -> float:
    """Relative, of some columns."""
    lost = (dequantize(blocks, kind) - x)[:, columns]
    return float(np.sqrt((lost**2).sum() / (x[:, columns] ** 2).sum()))


def in_blocks(kind: TensorType, data: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return data.reshape(len(data), -1, kind.block_bytes)


def test_all_types_with_importances_say_how_many_share_a_scale() -> None:
    assert {t.fit for t in KINDS} == {16, 32}
    assert all(t.block_size % t.fit == 0 for t in KINDS)
    assert all(t.fit == 0 for t in TENSOR_TYPES.values() if not t.weighted)


@pytest.mark.parametrize("kind", KINDS, ids=by_name)
def test_a_matrix_without_data(kind: TensorType) -> None:
    x = matrix()
    blocks = quantize(x, kind, np.zeros(WIDTH, np.float32))
    np.testing.assert_array_equal(blocks, without(kind, x))
    assert (dequantize(blocks, kind) != 0).any(axis=1).all()


@pytest.mark.long
@pytest.mark.parametrize("isa", _native.isa_names())
@pytest.mark.parametrize("kind", KINDS, ids=by_name)
def test_blocks_without_data(kind: TensorType, isa: str, oracle: Oracle, monkeypatch: pytest.MonkeyPatch) -> None:
    """Plain where all columns of a block lack data; in every other one the bytes of ggml, which is given the zeros."""
    monkeypatch.setattr(_native, "_default", _native.backend(isa))
    x, w = matrix(5), recorded()
    marked = np.zeros(WIDTH // kind.block_size, bool)
    marked[[0, 2]] = True
    w.reshape(-1, kind.block_size)[marked] = 0
    w[kind.block_size + 3 : kind.block_size + 9] = 0  # a few columns of a block with data
    made = in_blocks(kind, quantize(x, kind, w))
    np.testing.assert_array_equal(made[:, marked], in_blocks(kind, without(kind, x))[:, marked])
    np.testing.assert_array_equal(made[:, ~marked], in_blocks(kind, oracle.encode(x, kind, w))[:, ~marked])


@pytest.mark.parametrize("kind", [t for t in KINDS if t.fit < t.block_size], ids=by_name)
@pytest.mark.parametrize("loud", [1, 30])
def test_part_of_a_block_without_data(kind: TensorType, loud: int, oracle: Oracle) -> None:
    """Its weights come out about as well as others, also where they are the larger; other blocks do not change."""
    x, w = matrix(), recorded()
    columns = slice(256 + 2 * kind.fit, 256 + 3 * kind.fit)
    x[:, columns] *= loud
    full = quantize(x, kind, w)
    w[columns] = 0
    made = quantize(x, kind, w)
    assert error(kind, made, x, columns) < 1.2 * error(kind, full, x, columns)
    assert error(kind, made, x, slice(None)) < 1.2 * error(kind, full, x, slice(None))
    np.testing.assert_array_equal(
        np.delete(in_blocks(kind, made), 1, axis=1), np.delete(in_blocks(kind, oracle.encode(x, kind, w)), 1, axis=1)
    )


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from([t for t in KINDS if not t.name.startswith(("IQ1", "IQ2", "IQ3"))]),
    spans=st.lists(st.tuples(st.integers(0, WIDTH), st.integers(0, 300)), min_size=1, max_size=6),
    seed=st.integers(0, 99),
)
def test_zeros_anywhere(kind: TensorType, spans: list[tuple[int, int]], seed: int, oracle: Oracle) -> None:
    x, w = matrix(4, seed), recorded(seed)
    for start, length in spans:
        w[start : start + length] = 0
    made = quantize(x, kind, w)
    dead = (w.reshape(-1, kind.fit) == 0).all(axis=1)
    values = dequantize(made, kind).reshape(4, -1, kind.fit)
    assert (values[:, dead] != 0).any(axis=2).all()
    sound = ~dead.reshape(-1, kind.block_size // kind.fit).any(axis=1)
    expected = in_blocks(kind, oracle.encode(x, kind, w))
    np.testing.assert_array_equal(in_blocks(kind, made)[:, sound], expected[:, sound])
    given = importance(w, kind)
    covered = np.zeros(WIDTH, bool)
    for a, b in given.unseen:
        covered[a:b] = True
    assert (covered.reshape(-1, kind.fit).all(axis=1) == dead).all()


def test_what_stands_for_columns_without_data() -> None:
    w = np.arange(1, 513, dtype=np.float32)
    assert importance(w, Q4_K).weights is w
    w[32:64] = 0
    w[256:] = 0
    found = importance(w, Q4_K)
    assert (found.plain, found.unseen) == (((256, 512),), ((32, 64), (256, 512)))
    assert found.weights is not None
    seen = [*range(1, 33), *range(65, 257)]
    assert set(found.weights[32:64]) == {seen[(len(seen) - 1) // 2]} == {144}
    assert (found.weights[:32] == w[:32]).all()
    assert (found.weights[64:] == w[64:]).all()
    needy = importance(w, IQ1_S)
    assert needy.weights is not None
    assert (needy.plain, needy.unseen, set(needy.weights[256:])) == ((), found.unseen, {1})
    assert importance(w, TENSOR_TYPES["Q8_0"]).unseen == ()
    assert importance(np.zeros(512, np.float32), Q6_K).weights is None
    assert importance(np.zeros(0, np.float32), Q6_K).unseen == ()


@pytest.mark.parametrize("value", [np.nan, -1.0, np.inf])
@pytest.mark.parametrize("others", [0.0, 1.0])
@pytest.mark.parametrize("kind", [Q4_0, Q4_K, IQ1_S], ids=by_name)
def test_what_is_no_importance_is_refused_beside_zeros_too(value: float, others: float, kind: TensorType) -> None:
    w = np.full(WIDTH, others, np.float32)
    w[300:] = 0
    w[288] = value
    with pytest.raises(QuantError, match=rf"must be finite and not negative, found {value}.* at column 288"):
        quantize(matrix(2), kind, w)


def test_other_sources_and_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    from gguf_forge.quant import codec

    x, w = matrix(), recorded()
    w[:256] = 0
    w[512:528] = 0
    expected = quantize(x.astype(np.float16).astype(np.float32), "Q6_K", w)
    monkeypatch.setattr(codec, "STAGE", 2048)
    monkeypatch.setattr(codec, "CHUNK", 5 * WIDTH)
    np.testing.assert_array_equal(quantize(x.astype(np.float16), "Q6_K", w, threads=3), expected)


NAME, EXPERTS, ROWS = "blk.0.ffn_up_exps.weight", 4, 16


@pytest.fixture
def model(tmp_path: Path) -> Path:
    metadata = {
        "general.architecture": values.string("llama"),
        "llama.block_count": values.u32(1),
        "llama.expert_count": values.u32(EXPERTS),
    }
    with GGUFWriter(tmp_path / "model.gguf", metadata) as out:
        out.add_tensor(NAME, matrix(EXPERTS * ROWS).reshape(EXPERTS, ROWS, WIDTH))
        out.add_tensor("blk.0.attn_q.weight", matrix(ROWS, 5))
        out.add_tensor("blk.0.attn_k.weight", matrix(ROWS, 6))
    return tmp_path / "model.gguf"


def sums() -> dict[str, Floats]:
    experts = np.stack([recorded(i) for i in range(EXPERTS)])
    experts[2] = 0
    experts[3, 512:800] = 0
    return {
        NAME: experts,
        "blk.0.attn_q.weight": np.zeros((1, WIDTH), np.float32),
        "blk.0.attn_k.weight": recorded()[None],
    }


def as_dat(path: Path) -> Path:
    data = struct.pack("<i", len(sums()))
    for name, entry in sums().items():
        data += struct.pack("<i", len(name)) + name.encode() + struct.pack("<ii", 1, entry.size) + entry.tobytes()
    path.write_bytes(data)
    return path


def as_gguf(path: Path) -> Path:
    metadata = {
        "imatrix.datasets": values.strings(["text"]),
        "imatrix.chunk_count": values.u32(1),
        "imatrix.chunk_size": values.u32(512),
    }
    with GGUFWriter(path, metadata) as out:
        for name, entry in sums().items():
            out.add_tensor(f"{name}.in_sum2", entry)
            out.add_tensor(f"{name}.counts", np.ones((len(entry), 1), np.float32))
    return path


@pytest.mark.parametrize("form", [as_dat, as_gguf])
@pytest.mark.parametrize("recipe", ["Q4_K_S", "Q6_K", "IQ4_XS", "IQ2_XS", "Q4_0"])
def test_files(form: object, recipe: str, model: Path, tmp_path: Path) -> None:
    """Experts, tensors and columns without data come out as without a matrix, the rest with it; a note names each."""
    assert callable(form)
    imatrix = form(tmp_path / "imatrix")
    plan = quantize_file(model, tmp_path / "out.gguf", recipe, quantization=Quantization(imatrix=imatrix))
    with reader.open(model) as before, reader.open(plan.path) as after:
        for name, recorded_ in sums().items():
            made = after.tensors[name]
            kind, x = made.type, before.tensors[name].dequantize().reshape(len(recorded_), ROWS, WIDTH)
            assert kind.weighted
            blocks = made.data.reshape(len(recorded_), ROWS, -1)
            for i, w in enumerate(recorded_):
                expected = quantize(x[i], kind, w) if w.any() else without(kind, x[i])
                np.testing.assert_array_equal(blocks[i], expected)
                assert (dequantize(blocks[i], kind).reshape(-1, kind.fit) != 0).any(axis=1).all()
    text = "\n".join(plan.notes)
    stop = 800 // kind.fit * kind.fit - 1
    assert f"{NAME}: the importance matrix is 0 in all columns of expert 2, columns 512 to {stop} of expert 3: " in text
    assert "blk.0.attn_q.weight: the importance matrix is 0 in all columns: " in text
    assert "attn_k" not in text


def test_types_that_use_no_importances_need_no_note(model: Path, tmp_path: Path) -> None:
    how = Quantization(imatrix=as_dat(tmp_path / "imatrix.dat"))
    assert quantize_file(model, tmp_path / "out.gguf", "Q8_0", quantization=how).notes == ()


def test_a_dry_run_names_them_and_many_are_few_words(model: Path, tmp_path: Path) -> None:
    w = recorded()
    w.reshape(-1, 16)[::2] = 0
    how = Quantization(imatrix=Imatrix("m", {"blk.0.attn_k.weight": Entry(w[None], np.array([1]))}))
    (note,) = quantize_file(model, tmp_path / "out.gguf", "Q6_K", quantization=how, dry_run=True).notes
    assert re.search(r"attn_k.*columns 0 to 15, 32 to 47, .* 224 to 239 and 24 more: quantized as without one$", note)


def test_coverage_tells_zeros_from_data() -> None:
    matrix_ = Imatrix("m", {name: Entry(entry, np.ones(len(entry), np.int64)) for name, entry in sums().items()})
    shapes = {NAME: (EXPERTS, ROWS, WIDTH), "blk.0.attn_q.weight": (ROWS, WIDTH), "blk.0.attn_k.weight": (ROWS, WIDTH)}
    found = coverage(matrix_, shapes)
    assert (found.blank, found.empty) == (("blk.0.attn_q.weight",), ())
    assert found.lines() == [
        "importance matrix covers 2 of 3 tensors",
        "importance matrix: in it with zeros only: blk.0.attn_q.weight",
    ]
