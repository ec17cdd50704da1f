"""`verify`: what is made of a source is verified, and what is not is found where it is."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gguf_forge
from gguf_forge.convert.vocab.check import Difference
from gguf_forge.format import values
from gguf_forge.format.layout import ValueType
from gguf_forge.whole.verify.metadata import alike
from tests.cli.conftest import Forge

MODEL = Path(__file__).resolve().parents[2] / "fixtures" / "models" / "PyLlama-7M"
MATRIX = MODEL / "imatrix.gguf"
Made = Callable[[str], Path]
Q = "blk.2.attn_q.weight"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Files of the trained model, by type; `+` stands for the importance matrix."""
    folder = tmp_path_factory.mktemp("made")

    def file(type: str) -> Path:
        path = folder / f"{type}.gguf"
        if not path.exists():
            how = gguf_forge.Quantization(imatrix=MATRIX if type.endswith("+") else None)
            gguf_forge.convert_checkpoint(MODEL, path, type.rstrip("+"), quantization=how)
        return path

    return file


def statuses(found: gguf_forge.Verification) -> set[str]:
    return {verdict.status for verdict in found.tensors}


@pytest.mark.parametrize("type", ["f32", "bf16", "q8_0", "Q4_K_M", "IQ4_XS"])
def test_what_is_made_of_a_checkpoint_is_verified_to_the_byte(type: str, made: Made) -> None:
    found = gguf_forge.verify(made(type), MODEL)
    assert (found.findings, found.verified, len(found.tensors)) == ([], True, 57)
    assert statuses(found) <= {"exact", "encoded"}


def test_against_a_file(made: Made) -> None:
    assert statuses(gguf_forge.verify(made("Q4_K_M"), made("f32"))) == {"exact", "encoded"}
    # What a quantized file holds is nothing that plain numbers could be made of.
    assert not gguf_forge.verify(made("f32"), made("q8_0")).verified


def test_an_importance_matrix_explains_the_bytes(made: Made) -> None:
    path = made("Q4_K_M+")
    with_matrix, without = gguf_forge.verify(path, MODEL, imatrix=MATRIX), gguf_forge.verify(path, MODEL)
    assert statuses(with_matrix) == {"exact", "encoded", "encoded with the matrix"}
    assert statuses(without) == {"exact", "encoded", "near"}
    assert without.verified
    near = [verdict for verdict in without.tensors if verdict.status == "near"]
    assert all(0 < v.equal_blocks < v.blocks and v.usual < v.error < 1.3 * v.usual for v in near if v.equal_blocks)


def changed(path: Path, to: Path, change: Callable[[dict[str, np.ndarray[Any, Any]]], None]) -> Path:
    """The file with tensors' bytes changed; `change` is given them by name, and may fill them anew."""
    shutil.copy(path, to)
    with gguf_forge.open(path) as file:
        places = {t.name: (t.offset, t.data.shape) for t in file.tensors.values()}
    raw = np.memmap(to, np.uint8, "r+")
    change({name: raw[at : at + int(np.prod(shape))].reshape(shape) for name, (at, shape) in places.items()})
    raw.flush()
    return to


def swap(tensors: dict[str, np.ndarray[Any, Any]]) -> None:
    one, other = tensors[Q], tensors["blk.3.attn_q.weight"]
    one[:], other[:] = other.copy(), one.copy()


def unpermute(tensors: dict[str, np.ndarray[Any, Any]]) -> None:
    rows = tensors[Q]
    heads = rows.reshape(4, -1, 2, rows.shape[1])
    rows[:] = heads.swapaxes(1, 2).reshape(rows.shape).copy()


def cut(tensors: dict[str, np.ndarray[Any, Any]]) -> None:
    tensors[Q][200:] = 0


def move(tensors: dict[str, np.ndarray[Any, Any]]) -> None:
    tensors[Q][5:7] = tensors[Q][5:7][::-1].copy()


@pytest.mark.parametrize("type", ["bf16", "q8_0", "Q4_K_M", "Q2_K"])
@pytest.mark.parametrize(
    ("change", "row", "rows"),
    [(swap, 0, 256), (unpermute, 1, 248), (cut, 200, 56), (move, 5, 2)],
    ids=lambda given: getattr(given, "__name__", str(given)),  # the same in each process that runs tests
)
def test_other_weights_are_found_where_they_are(
    change: Any, row: int, rows: int, type: str, made: Made, tmp_path: Path
) -> None:
    found = gguf_forge.verify(changed(made(type), tmp_path / "a.gguf", change), MODEL)
    first = next(f for f in found.findings if f.field == f'tensor "{Q}"')
    assert (first.rule, first.severity, found.verified) == ("tensor-data", "error", False)
    assert f"{rows} of 256 rows" in first.text
    assert first.text.endswith(f"the first is row {row}")
    assert {f.field for f in found.findings} == {f'tensor "{Q}"'} | (
        {'tensor "blk.3.attn_q.weight"'} if change is swap else set()
    )


def test_a_tensor_of_another_revision_is_found(made: Made, tmp_path: Path) -> None:
    with gguf_forge.open(made("f32")) as file:
        weights = file.tensors[Q].dequantize()
    noise = np.random.default_rng(1).normal(0, 0.01 * weights.std(), weights.shape).astype(np.float32)
    blocks = gguf_forge.quantize(weights + noise, "Q4_K")

    def revise(tensors: dict[str, np.ndarray[Any, Any]]) -> None:
        tensors[Q][:] = blocks

    found = gguf_forge.verify(changed(made("Q4_K_M"), tmp_path / "a.gguf", revise), MODEL)
    assert [(f.rule, f.field) for f in found.findings] == [("tensor-revision", f'tensor "{Q}"')]


@pytest.mark.parametrize(
    ("what", "fitted", "foreign"),
    [("scattered", 1, 0), ("scattered", 0, 1), ("doubled", 1, 1), ("zeros", 1, 1), ("other", 1, 1), ("far", 1, 1)],
)
def test_a_row_that_errs_where_inputs_are_small_is_no_other_row(
    what: str, fitted: int, foreign: int, tmp_path: Path
) -> None:
    """A fit may put more error into columns that hardly count than there are weights; the weights are there yet."""
    rng = np.random.default_rng(3)
    weights = rng.standard_normal((64, 256), dtype=np.float32)
    row = weights[5].copy()
    aside = rng.standard_normal(256, dtype=np.float32)
    aside -= row * (aside @ row) / (row @ row)
    aside *= np.linalg.norm(row) / np.linalg.norm(aside)
    written = weights.copy()
    of_row, of_aside = {"scattered": (1, 1), "doubled": (2, 0), "zeros": (0, 0), "other": (0, 1), "far": (1, 2)}[what]
    written[5] = of_row * row + of_aside * aside
    paths = [tmp_path / "source.gguf", tmp_path / "file.gguf"]
    for path, kind in zip(paths, ("F32", "IQ2_XXS"), strict=True):
        keys = {"general.architecture": "llama"} | ({"quantize.forge.effort": "high"} if fitted else {})
        with gguf_forge.GGUFWriter(path, keys) as out:
            if kind == "F32":
                out.add_tensor("blk.0.ffn_down.weight", weights)
            else:
                blocks = gguf_forge.quantize(written, kind, imatrix=np.ones(256, np.float32))
                out.add_tensor("blk.0.ffn_down.weight", blocks, type=kind)
    found = gguf_forge.verify(paths[1], paths[0])
    assert [finding.rule for finding in found.findings if finding.rule == "tensor-data"] == ["tensor-data"] * foreign
    assert {verdict.status for verdict in found.tensors} == ({"differs"} if foreign else {"near"})


def _rewritten(path: Path, to: Path, keys: dict[str, Any], drop: str = "", add: str = "") -> Path:
    with gguf_forge.open(path) as file, gguf_forge.GGUFWriter(to) as writer:
        for key in file.metadata:
            value = keys.get(key, file.metadata.value(key))
            if value is not None:
                writer.add(key, value)
        for tensor in file.tensors.values():
            if tensor.name != drop:
                writer.add_tensor(tensor.name, tensor.data, tensor.type)
        if add:
            writer.add_tensor(add, np.ones(4, np.float32))
    return to


def test_metadata_that_differ_are_found(made: Made, tmp_path: Path) -> None:
    keys = {
        "general.name": values.string("Another name"),
        "llama.rope.freq_base": values.scalar(ValueType.FLOAT32, 5e5),
        "llama.attention.head_count_kv": values.array(ValueType.INT32, [2] * 6),
        "llama.context_length": None,
        "tokenizer.ggml.eos_token_id": values.u32(7),
        "tokenizer.chat_template": None,
    }
    path = _rewritten(made("q8_0"), tmp_path / "a.gguf", keys)
    found = gguf_forge.verify(path, made("q8_0"))
    assert [(f.rule, f.severity, f.field) for f in found.findings] == [
        ("key", "warning", 'key "llama.context_length"'),
        ("key", "error", 'key "llama.rope.freq_base"'),
        ("key", "error", 'key "tokenizer.ggml.eos_token_id"'),
    ]
    assert "7, the source leads to 2" in found.findings[-1].text


def test_a_template_that_differs_is_found(made: Made, tmp_path: Path) -> None:
    one = tmp_path / "one.gguf"
    with gguf_forge.open(made("q8_0")) as file, gguf_forge.GGUFWriter(one) as writer:
        for key in file.metadata:
            writer.add(key, file.metadata.value(key))
        writer.add("tokenizer.chat_template", "{{ messages }}")
        for tensor in file.tensors.values():
            writer.add_tensor(tensor.name, tensor.data, tensor.type)
    other = _rewritten(one, tmp_path / "b.gguf", {"tokenizer.chat_template": values.string("{{ evil }}")})
    assert [f.rule for f in gguf_forge.verify(other, one).findings] == ["template"]
    assert [f.severity for f in gguf_forge.verify(one, made("q8_0")).findings] == ["warning"]
    assert [(f.rule, f.severity) for f in gguf_forge.verify(made("q8_0"), one).findings] == [("template", "error")]


def test_a_tokenizer_of_another_model_is_found(made: Made, tmp_path: Path) -> None:
    with gguf_forge.open(made("q8_0")) as file:
        tokens = file.metadata["tokenizer.ggml.tokens"]
    tokens[300:3000] = tokens[301:3000] + tokens[300:301]
    path = _rewritten(made("q8_0"), tmp_path / "a.gguf", {"tokenizer.ggml.tokens": values.strings(tokens)})
    found = gguf_forge.verify(path, MODEL)
    assert [(f.rule, f.field) for f in found.findings] == [
        ("key", 'key "tokenizer.ggml.tokens"'),
        ("tokenizer", 'key "tokenizer.ggml.tokens"'),
    ]
    assert "2700 of 4096 values differ; number 300 is" in found.findings[0].text


def test_tensors_that_are_missing_surplus_or_of_another_shape(made: Made, tmp_path: Path) -> None:
    path = _rewritten(made("q8_0"), tmp_path / "a.gguf", {}, drop=Q, add="extra.weight")
    found = gguf_forge.verify(path, MODEL)
    assert [(f.rule, f.severity, f.field) for f in found.findings] == [
        ("tensor-missing", "error", f'tensor "{Q}"'),
        ("tensor-surplus", "warning", 'tensor "extra.weight"'),
    ]
    assert "skipped" in statuses(found)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (values.u32(2), values.scalar(ValueType.INT32, 2), True),
        (values.u32(2), values.array(ValueType.INT32, [2, 2]), True),
        (values.u32(2), values.array(ValueType.INT32, [2, 3]), False),
        (values.array(ValueType.INT32, [2, 2, 2]), values.array(ValueType.INT32, [2, 2]), False),
        (values.string("a"), values.string("b"), False),
        (values.strings(["a"]), values.string("a"), False),
    ],
)
def test_values_that_are_alike_to_a_reader(one: values.Value, other: values.Value, same: bool) -> None:
    assert (alike(one, other), alike(other, one)) == (same, same)


def test_on_the_command_line(forge: Forge, made: Made, tmp_path: Path) -> None:
    ended = forge("verify", made("Q4_K_M"), "--against", MODEL, "--tensors")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.splitlines()[-1].endswith(": verified (44 encoded, 13 exact)")
    bad = changed(made("Q4_K_M"), tmp_path / "a.gguf", swap)
    ended = forge("verify", bad, "--against", MODEL)
    assert (ended.code, len(ended.out.splitlines())) == (1, 3)
    document = json.loads(forge("verify", bad, "--against", made("f32"), "--json").out)
    assert (document["verified"], len(document["tensors"]), len(document["findings"])) == (False, 57, 2)
    assert document["tensors"][0].keys() >= {"tensor", "type", "status", "equal_blocks", "blocks", "error", "usual"}
    assert forge("verify", made("f32"), "--against", tmp_path / "none.gguf").code == 1
    assert forge("verify", made("f32"), "--against", MODEL, "--mtp", "--no-mtp").code == 2


def test_texts_that_llama_cpp_itself_cuts_in_another_way_are_a_warning(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    difference = gguf_forge.TokenizerCheck("tokenizer.json", 9, (Difference("a", (1,), (2,)),))
    monkeypatch.setattr("gguf_forge.whole.verify.check_tokenizer", lambda *given, **more: difference)
    found = gguf_forge.verify(made("q8_0"), MODEL)
    assert ([(f.rule, f.severity) for f in found.findings], found.verified) == ([("tokenizer", "warning")], True)


QUANT_ZOO = os.environ.get("QUANT_ZOO", "")
CODES = sorted(path.name for path in Path(QUANT_ZOO).iterdir() if path.is_dir()) if QUANT_ZOO else []


@pytest.mark.skipif(not QUANT_ZOO, reason="QUANT_ZOO names no folder of quantized checkpoints")
@pytest.mark.parametrize("type", ["auto", "Q4_K_M"])
@pytest.mark.parametrize("name", CODES)
def test_what_is_made_of_codes_is_verified(name: str, type: str, tmp_path: Path) -> None:
    """Of checkpoints that another tool quantized, whatever becomes of their codes."""
    folder, path = Path(QUANT_ZOO) / name, tmp_path / "a.gguf"
    try:
        gguf_forge.convert_checkpoint(folder, path, type)
    except gguf_forge.ForgeError as error:
        pytest.skip(f"is not converted: {error}")
    found = gguf_forge.verify(path, folder)
    assert statuses(found) <= {"exact", "encoded"}
    assert [f for f in found.findings if f.severity == "error"] == []
