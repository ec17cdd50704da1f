"""Parts of a model as files of their own: a vocabulary, and layers that predict further tokens, there and back."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest

import gguf_forge
from gguf_forge import extract_file, insert_mtp, values
from gguf_forge.convert.hparams import metadata_of
from gguf_forge.convert.plan import plan_outputs
from gguf_forge.errors import RecipeError, RequestError
from gguf_forge.format import reader
from gguf_forge.values import Value
from tests.cli.conftest import Forge
from tests.convert import headers
from tests.whole.conftest import FIXTURES

CASES = headers.load()
FURTHER = [name for name in CASES if f"{name}-no-mtp" in CASES or f"{name}-mtp" in CASES]
FURTHER.remove("MiniCPM-V-4_6-real")  # it has none
#: Of what `convert_hf_to_gguf.py --vocab-only` makes of the models in fixtures/, by the name it gives that.
VOCABULARIES = {
    "PyLlama": "1d4c36e5dcbd655a33217bac2bae537c13f098cc1a58bed742efae6020e47b28",
    "Micro-Gemma3": "18ac395489269da67b35512f3b31dc57e2239cc4538539d291208e136329b5a2",
    "Micro-Mixtral": "7b435545eea9897da77c8651dfd331e78567fed95713a507971e72eeb4eef8bc",
}


def write(path: Path, metadata: Mapping[str, Value], names: Mapping[str, int]) -> Path:
    """A file of these keys, and of tensors whose only element is this."""
    with gguf_forge.GGUFWriter(path, metadata) as out:
        for name, number in names.items():
            out.add_tensor(name, np.array([number], np.float32))
    return path


def keys(name: str, folder: Path) -> dict[str, Value]:
    """The architecture's keys of a conversion."""
    case = CASES[name]
    early, late = metadata_of(case.arch, plan_outputs(case.arch, case.headers(), case.facts(folder)).facts)
    return {"general.architecture": values.string(case.arch.name), **early, **late}


@pytest.mark.parametrize("name", FURTHER)
def test_further_layers_come_out_as_they_are_converted_and_go_back(name: str, tmp_path: Path) -> None:
    numbers = {tensor: i for i, (tensor, _) in enumerate(CASES[name].tensors)}
    model = write(tmp_path / "model.gguf", keys(name, tmp_path), numbers)
    extract_file(model, tmp_path / "mtp.gguf", "mtp")
    extract_file(model, tmp_path / "main.gguf", "no-mtp")
    for part, ending in (("mtp", "-mtp"), ("main", "-no-mtp")):
        if f"{name}{ending}" not in CASES:
            continue
        with reader.open(tmp_path / f"{part}.gguf") as file:
            assert [*file.tensors] == [tensor for tensor, _ in CASES[f"{name}{ending}"].tensors]
            assert {t.name: int(t.dequantize()[0]) for t in file.tensors.values()}.items() <= numbers.items()
            assert {k: file.metadata.value(k) for k in file.metadata} == keys(f"{name}{ending}", tmp_path)
    made = insert_mtp(tmp_path / "main.gguf", tmp_path / "mtp.gguf", tmp_path / "both.gguf")
    assert (tmp_path / "both.gguf").read_bytes() == model.read_bytes()
    assert made.tensors == [*numbers]


@pytest.mark.parametrize("name", VOCABULARIES)
def test_a_vocabulary_is_the_converters(name: str, tmp_path: Path, forge: Forge) -> None:
    (folder,) = (FIXTURES / "models").glob(f"{name}-*")
    assert forge("convert", folder, "--vocab-only", "-o", f"{tmp_path}/out/").code == 0
    (made,) = (tmp_path / "out").iterdir()
    assert made.name == f"{name}-vocab.gguf"
    assert sha256(made.read_bytes()).hexdigest() == VOCABULARIES[name]


def test_a_vocabulary_out_of_a_file(f16: Path, tmp_path: Path, forge: Forge) -> None:
    assert forge("extract", f16, "--vocab-only", "-o", tmp_path / "v.gguf").code == 0
    with reader.open(f16) as whole, reader.open(tmp_path / "v.gguf") as vocab:
        assert {k: vocab.metadata.value(k) for k in vocab.metadata} == {
            k: whole.metadata.value(k) for k in whole.metadata
        }
        assert not vocab.tensors
        assert vocab.nbytes == vocab.parts[0].checked.header.end
    stream = BytesIO()
    extract_file(f16, stream, "vocab")
    assert stream.getvalue() == (tmp_path / "v.gguf").read_bytes()


def test_quantized_layers_go_over_as_they_are(q4: Path, tmp_path: Path, forge: Forge) -> None:
    layers = with_further(q4, tmp_path / "in.gguf")
    assert forge("extract", layers, "--mtp", "-o", tmp_path / "m.gguf").code == 0
    assert forge("extract", layers, "--no-mtp", "-o", tmp_path / "n.gguf").code == 0
    with reader.open(tmp_path / "n.gguf") as file:
        assert file.metadata["llama.block_count"] == 4
        assert "llama.nextn_predict_layers" not in file.metadata
    assert forge("merge", tmp_path / "n.gguf", "--mtp", tmp_path / "m.gguf", "-o", tmp_path / "b.gguf").code == 0
    assert gguf_forge.diff_files(tmp_path / "b.gguf", layers).same
    assert forge("merge", tmp_path / "n.gguf", "--mtp", tmp_path / "m.gguf").code == 2


def with_further(source: Path, path: Path, count: int = 2) -> Path:
    """The file, said to have so many layers that predict further tokens."""
    metadata = {"llama.nextn_predict_layers": values.u32(count)}
    return gguf_forge.quantize_file(source, path, "COPY", metadata=metadata).path


def test_what_does_not_fit(f16: Path, tmp_path: Path, forge: Forge) -> None:
    refused = forge("extract", f16, "--mtp", "-o", tmp_path / "m.gguf")
    assert (refused.code, [*tmp_path.iterdir()]) == (1, [])
    assert "no layers that predict further tokens" in refused.err
    assert forge("extract", f16, "-o", tmp_path / "m.gguf").code == 2
    assert forge("extract", f16, "--mtp", "--vocab-only", "-o", tmp_path / "m.gguf").code == 2
    whole = with_further(f16, tmp_path / "whole.gguf")
    extract_file(whole, tmp_path / "m.gguf", "mtp")
    for model, said in ((whole, "already"), (f16, "a model of 4")):
        with pytest.raises(RecipeError, match=said):
            insert_mtp(model, tmp_path / "m.gguf", tmp_path / "x.gguf")
    extract_file(whole, tmp_path / "n.gguf", "no-mtp")
    gguf_forge.quantize_file(
        tmp_path / "n.gguf", tmp_path / "o.gguf", "COPY", metadata={"llama.embedding_length": values.u32(7)}
    )
    with pytest.raises(RecipeError, match=r"embedding_length is 256, and 7"):
        insert_mtp(tmp_path / "o.gguf", tmp_path / "m.gguf", tmp_path / "x.gguf")
    gguf_forge.edit_file(tmp_path / "n.gguf", tmp_path / "big.gguf", gguf_forge.Edits(endian="big"))
    with pytest.raises(RequestError, match="endian"):
        insert_mtp(tmp_path / "big.gguf", tmp_path / "m.gguf", tmp_path / "x.gguf")
    for number in (0, 6, 9):
        with pytest.raises(RecipeError):
            extract_file(with_further(f16, tmp_path / "w.gguf", number), tmp_path / "x.gguf", "no-mtp")
    assert not (tmp_path / "x.gguf").exists()
