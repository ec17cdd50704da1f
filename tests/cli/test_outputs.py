"""Where `convert` and `quantize` put their files: folders that are made, and what is no place for one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gguf_forge.convert.files import convert_checkpoint, quantize_file
from gguf_forge.errors import OutputError
from gguf_forge.format.writer import GGUFWriter
from tests import manifest
from tests.cli.conftest import Forge

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures"
MODEL = FIXTURES / "models" / "PyLlama-7M"
GOLDEN = manifest.load(FIXTURES / "golden" / "PyLlama-7M.json.xz")


@pytest.fixture(scope="module")
def f32(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("f32") / "f32.gguf"
    convert_checkpoint(MODEL, path, "f32")
    return path


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


@pytest.mark.parametrize("above", ["", "a/b/"])
def test_a_folder_that_ends_in_a_separator_is_made(forge: Forge, f32: Path, tmp_path: Path, above: str) -> None:
    new = f"{tmp_path}/{above}new/"
    assert forge("convert", MODEL, "-o", new, "--type", "f16,Q4_K_M").code == 0
    assert sorted(os.listdir(new)) == ["PyLlama-7M-F16.gguf", "PyLlama-7M-Q4_K_M.gguf"]
    other = f"{tmp_path}/{above}other/"
    assert forge("quantize", f32, other, "q4_k").code == 0
    made = Path(other) / "ggml-model-Q4_K_M.gguf"
    assert manifest.differences(made, GOLDEN["PyLlama-7M.Q4_K_M"]) == []


def test_a_folder_for_each_type(forge: Forge, tmp_path: Path) -> None:
    assert forge("convert", MODEL, "-o", f"{tmp_path}/{{ftype}}/", "--type", "f16,Q8_0").code == 0
    assert files(tmp_path) == ["f16", "f16/PyLlama-7M-F16.gguf", "q8_0", "q8_0/PyLlama-7M-Q8_0.gguf"]


@pytest.mark.parametrize("ending", ["", "/"])
def test_quantize_into_a_folder_that_is_there(forge: Forge, f32: Path, tmp_path: Path, ending: str) -> None:
    assert forge("quantize", f32, f"{tmp_path}{ending}", "Q8_0").code == 0
    assert files(tmp_path) == ["ggml-model-Q8_0.gguf"]


def test_a_folder_is_not_made_without_a_file_for_it(forge: Forge, f32: Path, tmp_path: Path) -> None:
    new = f"{tmp_path}/a/new/"
    for words in (
        ["convert", MODEL, "-o", new, "--dry-run"],
        ["quantize", f32, new, "Q4_K_M", "--dry-run"],
        ["convert", MODEL, "-o", new, "--type", "IQ2_XXS"],
        ["quantize", f32, new, "IQ2_XXS"],
        ["convert", MODEL, "-o", f"{tmp_path}/{{none}}/"],
    ):
        ended = forge(*words)
        assert (ended.code == 0) == ("--dry-run" in words), ended.err
        assert files(tmp_path) == []


def test_nothing_is_left_of_a_folder_when_the_run_fails(f32: Path, tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    (tmp_path / "kept").mkdir()
    for output in (f"{tmp_path}/a/new/", f"{tmp_path}/kept/new/"):
        with pytest.raises(KeyboardInterrupt):
            convert_checkpoint(MODEL, output, "f16", progress=stop)
        with pytest.raises(KeyboardInterrupt):
            quantize_file(f32, output, "Q8_0", progress=stop)
        assert files(tmp_path) == ["kept"]


def test_a_file_in_the_place_of_a_folder_stays(forge: Forge, f32: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").write_bytes(b"mine")
    for words in (["convert", MODEL, "-o", f"{tmp_path}/taken/"], ["quantize", f32, f"{tmp_path}/taken/", "Q8_0"]):
        ended = forge(*words)
        assert (ended.code, ended.err.count("\n"), "no folder can be made" in ended.err) == (1, 1, True)
        assert (tmp_path / "taken").read_bytes() == b"mine"


def test_a_file_is_never_named_like_a_folder(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="names a folder"), GGUFWriter(f"{tmp_path}/new/"):
        pass
    assert files(tmp_path) == []


def test_what_is_no_one_file_does_not_go_to_the_standard_output(
    forge: Forge, f32: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for words, why in (
        (["split", f32, "-o", "-"], "a set is several files, which do not go to one standard output"),
        (["imatrix", f32, "-o", "-"], "nothing is written to the standard output"),
    ):
        ended = forge(*words)
        assert (ended.code, ended.out) == (2, "")
        assert ended.err.splitlines()[-1].endswith(f"{why}; a file called - is ./-")
    assert files(tmp_path) == []
    assert forge("quantize", f32, "./-", "Q8_0").code == 0
    assert files(tmp_path) == ["-"]
