"""Layers left out of a model: `quantize --prune-layers`, beside llama-quantize's."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gguf_forge
from gguf_forge import values
from gguf_forge.convert.prune import Pruning, parse_layers
from gguf_forge.errors import RecipeError, RequestError
from gguf_forge.format import reader
from gguf_forge.format.layout import ValueType
from gguf_forge.quant.imatrix import Entry, Imatrix
from tests.cli.conftest import Forge
from tests.whole.conftest import FIXTURES, MODEL

LAYERS = 6  # of the model of `f16`
GOLDEN = json.loads((FIXTURES / "tools" / "quantize.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def f32(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("f32") / "f32.gguf"
    gguf_forge.convert_checkpoint(MODEL, path, "f32")
    return path


@pytest.mark.parametrize("left_out", [(0,), (5,), (1, 3), (0, 1, 2, 3, 4)])
def test_the_others_are_renumbered_and_stay_what_they_are(f16: Path, tmp_path: Path, left_out: tuple[int, ...]) -> None:
    done = gguf_forge.quantize_file(f16, tmp_path / "p.gguf", "COPY", prune_layers=left_out)
    kept = [n for n in range(LAYERS) if n not in left_out]
    with reader.open(f16) as old, reader.open(tmp_path / "p.gguf") as new:
        assert [*new.metadata][-1] == "llama.block_count"
        assert new.metadata["llama.block_count"] == len(kept)
        assert new.metadata.type_of("llama.block_count") is ValueType.UINT32
        assert {*new.metadata} == {*old.metadata}
        expected = {}
        for name, tensor in old.tensors.items():
            parts = name.split(".")
            if parts[0] == "blk":
                if int(parts[1]) in left_out:
                    assert name in done.dropped
                    continue
                parts[1] = str(kept.index(int(parts[1])))
            expected[".".join(parts)] = tensor
        assert {*expected} == {*new.tensors}
        for name, tensor in expected.items():
            assert np.array_equal(new.tensors[name].data, tensor.data), name


@pytest.mark.parametrize("case", GOLDEN["prune"], ids=lambda case: f"{case['layers']}-{case['type']}")
def test_files_are_those_of_llama_quantize(f32: Path, tmp_path: Path, case: dict[str, Any]) -> None:
    layers = parse_layers(case["layers"])
    made = gguf_forge.quantize_file(f32, tmp_path / "p.gguf", case["type"], prune_layers=layers).path.read_bytes()
    with reader.open(tmp_path / "p.gguf") as file:
        header = made[: file.parts[0].checked.data_start]
    assert (sha256(header).hexdigest(), len(made)) == (case["header"], case["bytes"])
    assert sha256(made).hexdigest() == case.get("file", sha256(made).hexdigest())
    gguf_forge.quantize_file(f32, tmp_path / "copy.gguf", "COPY", prune_layers=layers)
    with reader.open(tmp_path / "p.gguf") as file, reader.open(tmp_path / "copy.gguf") as copy:
        for name, tensor in file.tensors.items():  # data, where that has other layers'
            if tensor.type.encodes:
                floats = copy.tensors[name].data.view(np.float32)
                assert np.array_equal(tensor.data, gguf_forge.quantize(floats, tensor.type)), name


def test_an_importance_matrix_goes_by_the_old_numbers(tmp_path: Path, f16: Path) -> None:
    rng = np.random.default_rng(1)
    with reader.open(f16) as file:
        names = {t.name: t.shape[-1] for t in file.tensors.values() if len(t.shape) == 2}
    one = np.ones(1, np.int64)
    entries = {n: Entry(rng.random((1, width), np.float32) + np.float32(0.1), one) for n, width in names.items()}
    pruning = Pruning((1, 2), LAYERS)
    moved = {pruning.name(n): entry for n, entry in entries.items() if pruning.name(n)}
    gguf_forge.quantize_file(f16, tmp_path / "copy.gguf", "COPY", prune_layers=(1, 2))
    for name, source, held, layers in (
        ("a", f16, entries, (1, 2)),
        ("b", tmp_path / "copy.gguf", moved, ()),
    ):
        how = gguf_forge.Quantization(imatrix=Imatrix("m", {n or "": e for n, e in held.items()}))
        gguf_forge.quantize_file(source, tmp_path / f"{name}.gguf", "IQ2_XS", quantization=how, prune_layers=layers)
    with reader.open(tmp_path / "a.gguf") as a, reader.open(tmp_path / "b.gguf") as b:
        alike = [n for n in b.tensors if a.tensors[n].type is b.tensors[n].type]  # layers are counted in the source
        assert len(alike) > 30
        assert all(np.array_equal(a.tensors[n].data, b.tensors[n].data) for n in alike)
        assert a.metadata["quantize.imatrix.entries_count"] == len(entries)
        assert [*a.metadata][-1] == "llama.block_count"


def test_a_set_keeps_its_shards(f16: Path, tmp_path: Path) -> None:
    made = gguf_forge.split_file(f16, tmp_path / "m", max_tensors=20)
    keep = gguf_forge.Splitting(keep=True)
    done = gguf_forge.quantize_file(made[0].path, tmp_path / "p.gguf", "COPY", prune_layers=(0,), splitting=keep)
    assert len(done.shards) == len(made)
    assert sum(len(shard.tensors) for shard in done.shards) == sum(len(shard.tensors) for shard in made) - 9


def test_what_counts_layers() -> None:
    u32 = values.u32
    found = Pruning((1, 4, 7), 8).metadata(
        {
            "general.architecture": values.string("a"),
            "a.block_count": u32(8),
            "a.attention.head_count_kv": values.array(ValueType.UINT32, range(8)),
            "a.attention.head_count": u32(4),
            "a.attention.sliding_window_pattern": values.array(ValueType.BOOL, [n % 2 == 0 for n in range(8)]),
            "a.rope.dimension_sections": values.array(ValueType.INT32, [1] * 8),
            "xielu.eps": values.array(ValueType.FLOAT32, np.arange(8)),
            "a.leading_dense_block_count": u32(3),
            "a.nextn_predict_layers": u32(1),
            "a.attention.shared_kv_layers": u32(5),
        }
    )
    assert found["a.attention.head_count_kv"].value.tolist() == [0, 2, 3, 5, 6]
    assert found["a.attention.head_count_kv"].value.dtype == np.uint32
    assert found["a.attention.sliding_window_pattern"].value.tolist() == [True, True, False, False, True]
    assert found["a.attention.head_count"].value == 4
    assert len(found["a.rope.dimension_sections"].value) == 8
    assert found["xielu.eps"].value.tolist() == [0, 2, 3, 5, 6]
    assert found["a.leading_dense_block_count"].value == 2
    assert found["a.nextn_predict_layers"].value == 0
    assert found["a.attention.shared_kv_layers"].value == 3


def test_what_a_period_makes_of_others_is_said() -> None:
    metadata = {"general.architecture": values.string("a"), "a.full_attention_interval": values.u32(4)}
    assert Pruning((0, 1, 2, 3), 8).notes(metadata) == []
    assert Pruning((1,), 4).notes(metadata) == [
        "a.full_attention_interval is 4: layers 2, 3 become others than they were"
    ]


def test_what_is_not_followed_is_refused() -> None:
    metadata = {"general.architecture": values.string("a"), "a.deepstack_mapping": values.array(ValueType.INT32, [1])}
    with pytest.raises(RecipeError, match="deepstack_mapping"):
        Pruning((1,), 4).metadata(metadata)


@pytest.mark.parametrize(("text", "layers"), [("3", (3,)), ("1,2", (1, 2)), ("8, 2-4,3", (2, 3, 4, 8)), ("0-0", (0,))])
def test_numbers_and_ranges(text: str, layers: tuple[int, ...]) -> None:
    assert parse_layers(text) == layers


@pytest.mark.parametrize("text", ["", "a", "1,", "-1", "4-2", "1-", "1-999999", "1.5"])
def test_no_numbers(text: str, f16: Path, forge: Forge) -> None:
    with pytest.raises(RecipeError):
        parse_layers(text)
    assert forge("quantize", f16, "x.gguf", "Q4_0", f"--prune-layers={text}").code == 2


def test_layers_that_are_not_there(f16: Path, tmp_path: Path, forge: Forge) -> None:
    refused = forge("quantize", f16, tmp_path / "x.gguf", "Q4_0", "--prune-layers", "4-7")
    assert (refused.code, [*tmp_path.iterdir()]) == (1, [])
    assert "no layer 6, 7 among 6" in refused.err
    assert "all 6 layers" in forge("quantize", f16, tmp_path / "x.gguf", "Q4_0", "--prune-layers", "0-5").err
    assert forge("quantize", f16, "x.gguf", "--target-bpw", "4", "--prune-layers", "1").code == 2
    with gguf_forge.GGUFWriter(tmp_path / "y.gguf", {"general.architecture": "llama"}):
        pass
    with pytest.raises(RecipeError, match="no block_count"):
        gguf_forge.quantize_file(tmp_path / "y.gguf", tmp_path / "z.gguf", "COPY", prune_layers=(1,))


def test_a_calibration_is_of_the_whole_model(f16: Path, tmp_path: Path) -> None:
    how = gguf_forge.Quantization(calibration=object())  # type: ignore[arg-type]
    with pytest.raises(RequestError, match="whole model"):
        gguf_forge.quantize_file(f16, tmp_path / "z.gguf", "Q4_0", quantization=how, prune_layers=(1,))


@pytest.mark.parametrize("case", GOLDEN["keep_split"], ids=lambda case: f"{case['max_tensors']}-{case['type']}")
def test_shards_that_are_kept_are_those_of_llama_quantize(f32: Path, tmp_path: Path, case: dict[str, Any]) -> None:
    cut = gguf_forge.split_file(
        f32, tmp_path / "in", max_tensors=case["max_tensors"], tensors_in_first=case["tensors_in_first"]
    )
    keep = gguf_forge.Splitting(keep=True)
    made = gguf_forge.quantize_file(cut[0].path, tmp_path / "q.gguf", case["type"], splitting=keep)
    assert [sha256(shard.path.read_bytes()).hexdigest() for shard in made.shards] == case["shards"]
