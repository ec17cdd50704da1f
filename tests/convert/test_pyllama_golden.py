"""The trained model under every outtype and recipe, with and without importance matrix: the reference's whole file."""

from __future__ import annotations

from pathlib import Path

import pytest

from gguf_forge.convert.files import convert_checkpoint, quantize_file
from gguf_forge.convert.job import Quantization
from gguf_forge.types import TENSOR_TYPES
from tests import manifest

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures"
MODEL = FIXTURES / "models" / "PyLlama-7M"
GOLDEN = manifest.load(FIXTURES / "golden" / "PyLlama-7M.json.xz")
PREFIX, MATRIX = "PyLlama-7M.", "-imatrix"
CASES = [name.removeprefix(PREFIX) for name in GOLDEN]
#: Recipes that also use types without an encoder.
WAITING = {name for name in CASES if name.startswith("IQ1") and not TENSOR_TYPES["IQ1_S"].encodes}


@pytest.mark.parametrize("case", [case for case in CASES if case not in WAITING])
def test_conversion_is_the_references_file(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(MODEL)  # the matrix's path as given is recorded in the file
    how = Quantization(imatrix="imatrix.gguf" if case.endswith(MATRIX) else None)
    (planned,) = convert_checkpoint(".", tmp_path / "out.gguf", case.removesuffix(MATRIX), quantization=how)
    assert manifest.differences(planned.path, GOLDEN[PREFIX + case]) == []


@pytest.mark.parametrize("case", ["Q4_K_M", "Q5_K_S-imatrix", "Q3_K_L"])
def test_quantizing_the_f32_file_is_the_same(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(MODEL)
    how = Quantization(imatrix="imatrix.gguf" if case.endswith(MATRIX) else None)
    convert_checkpoint(MODEL, tmp_path / "f32.gguf", "f32")
    planned = quantize_file(tmp_path / "f32.gguf", tmp_path / "out.gguf", case.removesuffix(MATRIX), quantization=how)
    assert manifest.differences(planned.path, GOLDEN[PREFIX + case]) == []


def test_the_older_form_of_the_matrix_gives_the_same_tensors(tmp_path: Path) -> None:
    how = Quantization(imatrix=MODEL / "imatrix.dat")
    (planned,) = convert_checkpoint(MODEL, tmp_path / "out.gguf", "Q4_K_S", quantization=how)
    golden = GOLDEN[PREFIX + "Q4_K_S-imatrix"]
    found = manifest.read(planned.path, {t.name: t.nbytes for t in golden.tensors})
    assert [t.hash for t in found.tensors] == [t.hash for t in golden.tensors]


def test_one_reading_gives_the_same_files_as_several(tmp_path: Path) -> None:
    plans = convert_checkpoint(MODEL, tmp_path / "{ftype}.gguf", "f16,Q4_K_M,Q5_0", threads=3)
    for planned, case in zip(plans, ("f16", "Q4_K_M", "Q5_0"), strict=True):
        assert manifest.differences(planned.path, GOLDEN[PREFIX + case]) == []
