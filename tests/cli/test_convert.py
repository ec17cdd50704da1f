"""`gguf-forge convert` and `quantize`: what they write, what they say, and how they end."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import gguf_forge
from gguf_forge.cli.plans import grouped
from gguf_forge.convert.files import convert_checkpoint
from gguf_forge.errors import RequestError
from tests import manifest
from tests.bench.make_checkpoint import make
from tests.cli.conftest import Forge
from tests.conftest import PLATFORM, undecodable

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures"
MODEL = FIXTURES / "models" / "PyLlama-7M"
GOLDEN = manifest.load(FIXTURES / "golden" / "PyLlama-7M.json.xz")


def differences(path: Path, case: str) -> list[str]:
    return manifest.differences(path, GOLDEN[f"PyLlama-7M.{case}"])


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A copy of the trained checkpoint under its own name, in a folder that may be written to."""
    return Path(shutil.copytree(MODEL, tmp_path / "PyLlama-7M"))


@pytest.fixture(scope="module")
def f32(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("f32") / "f32.gguf"
    convert_checkpoint(MODEL, path, "f32")
    return path


@pytest.mark.parametrize("spelling", ["Q4_K_M", "q4_k_m", "Q4_K", "15"])
def test_types_are_named_in_any_case_by_alias_or_number(forge: Forge, tmp_path: Path, spelling: str) -> None:
    ended = forge("convert", MODEL, "-o", tmp_path / "out.gguf", "--type", spelling)
    assert (ended.code, ended.out) == (0, "")
    assert differences(tmp_path / "out.gguf", "Q4_K_M") == []


def test_without_options_the_result_is_named_after_the_model_in_its_own_precision(forge: Forge, model: Path) -> None:
    before = set(model.iterdir())
    assert forge("convert", model).code == 0
    (made,) = set(model.iterdir()) - before
    assert made.name == "PyLlama-7M-BF16.gguf"
    assert differences(made, "auto") == []


def test_several_types_in_one_go(forge: Forge, tmp_path: Path) -> None:
    ended = forge("convert", MODEL, "--outtype", "f16,Q8_0", "--type", "q5_1", "--outfile", tmp_path / "m-{ftype}.gguf")
    assert ended.code == 0
    assert [differences(tmp_path / f"m-{t.lower()}.gguf", t) for t in ("f16", "Q8_0", "Q5_1")] == [[], [], []]
    assert len(ended.err.splitlines()) == 3


def test_case_tells_the_converters_type_from_the_quantizers(forge: Forge, tmp_path: Path) -> None:
    for case in ("q8_0", "Q8_0", "tq1_0", "TQ1_0", "F16"):
        assert forge("convert", MODEL, "--type", case, "-o", tmp_path / "out.gguf").code == 0
        assert differences(tmp_path / "out.gguf", case if case != "F16" else "f16") == []


def test_the_importance_matrix_is_used_and_its_coverage_said(
    forge: Forge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(MODEL)
    ended = forge("convert", ".", "--type", "Q3_K_M", "--imatrix", "imatrix.gguf", "-o", tmp_path / "out.gguf")
    assert ended.code == 0
    assert "importance matrix covers" in ended.err
    assert differences(tmp_path / "out.gguf", "Q3_K_M-imatrix") == []


def test_what_is_left_out_is_grouped_where_it_is_much() -> None:
    """As a Gemma 3 with its vision tower has it, in 219 lines, and an old GPT-2 with a mask in each layer."""
    few = ["lm_head.weight", "model.layers.0.self_attn.rotary_emb.inv_freq"]
    assert grouped(few) == few
    assert grouped([f"h.{i}.attn.masked_bias" for i in range(12)]) == ["12 tensors h.*.attn.masked_bias"]
    parts = [f"layers.{i}.{part}" for i in range(27) for part in "abcdefgh"]
    tower = [f"vision_tower.vision_model.{part}" for part in (*parts, "post_layernorm.weight")]
    norms = ["multi_modal_projector.mm_soft_emb_norm.weight", "multi_modal_projector.mm_input_projection_weight"]
    assert grouped([*tower, *norms]) == ["217 tensors vision_tower.vision_model.*", *norms]


def test_quiet_says_nothing(forge: Forge, tmp_path: Path) -> None:
    ended = forge("convert", MODEL, "-q", "-o", tmp_path / "out.gguf")
    assert (ended.code, ended.out, ended.err) == (0, "", "")


def test_verbose_tells_the_type_of_each_tensor(forge: Forge, tmp_path: Path) -> None:
    words = ("convert", MODEL, "--type", "Q4_K_M", "-o", tmp_path / "out.gguf")
    line = "Q4_K_M: output.weight: BF16 to Q6_K, output\n"
    assert line in forge(*words, "-v").err
    assert line not in forge(*words).err


def test_a_dry_run_states_the_size_to_the_byte_and_writes_nothing(forge: Forge, tmp_path: Path) -> None:
    ended = forge("convert", MODEL, "--type", "Q4_K_M", "--dry-run", "-o", tmp_path / "out.gguf")
    assert ended.code == 0
    assert list(tmp_path.iterdir()) == []
    assert f"({GOLDEN['PyLlama-7M.Q4_K_M'].size} bytes)" in ended.out
    assert "4.9693 bits per weight" in ended.out
    line = next(line for line in ended.out.splitlines() if line.startswith("output.weight"))
    assert line.split()[1:6] == ["4096", "x", "256", "BF16", "Q6_K"]


def test_the_tokenizer_is_checked_on_request(forge: Forge, tmp_path: Path) -> None:
    words = ("convert", MODEL, "--dry-run", "--check-tokenizer")
    assert re.search(r"the tokenizer is that of tokenizer\.model: \d{3} texts encode alike\n", forge(*words).err)
    spoilt = forge(*words, "--metadata", "tokenizer.ggml.add_space_prefix=bool:false")
    assert spoilt.code == 0
    assert "texts encode otherwise than by tokenizer.model\n" in spoilt.err
    assert "tokenizer" not in forge("convert", MODEL, "--dry-run").err


def test_metadata_and_name_are_set(forge: Forge, tmp_path: Path) -> None:
    out = tmp_path / "out.gguf"
    words = ["--metadata", "general.name=str:Mine", "--metadata", "x.list=i32[]:[1, 2]", "--metadata", "x.f=float:0.5"]
    assert forge("convert", MODEL, "-o", out, *words).code == 0
    with gguf_forge.open(out) as file:
        assert file.metadata["general.name"] == "Mine"
        assert file.metadata["x.list"].tolist() == [1, 2]
        assert file.metadata.type_of("x.f").name == "FLOAT32"
    assert forge("convert", MODEL, "-o", out, "--model-name", "Another").code == 0
    with gguf_forge.open(out) as file:
        assert file.metadata["general.name"] == "Another"


def test_tensor_types_are_overridden_by_pattern_and_by_file(forge: Forge, tmp_path: Path) -> None:
    (tmp_path / "types.txt").write_text("attn_q=q5_k\nffn_up=q6_k\n")
    words = ["--tensor-type", "blk.0.attn_q=q8_0", "--tensor-type-file", tmp_path / "types.txt"]
    words += ["--output-tensor-type", "q5_0", "--token-embedding-type", "Q4_1"]
    assert forge("convert", MODEL, "--type", "q4_k_s", "-o", tmp_path / "out.gguf", *words).code == 0
    with gguf_forge.open(tmp_path / "out.gguf") as file:
        found = {name: tensor.type.name for name, tensor in file.tensors.items()}
    names = ("blk.0.attn_q", "blk.1.attn_q", "blk.2.ffn_up", "output", "token_embd", "blk.3.ffn_gate")
    assert [found[f"{name}.weight"] for name in names] == ["Q8_0", "Q5_K", "Q6_K", "Q5_0", "Q4_1", "Q4_K"]


@pytest.mark.parametrize(
    ("order", "type_"),
    [
        (["--tensor-type", "attn_q=q8_0", "--tensor-type-file", "a.txt"], "Q8_0"),
        (["--tensor-type-file", "a.txt", "--tensor-type", "attn_q=q8_0"], "Q5_K"),
        (["--tensor-type=ffn=q8_0", "--tensor-type-file=b.txt", "--tensor-type-file=a.txt", "--pure"], "Q6_K"),
        (["--tensor-type-file", "c.txt", "--tensor-type", "attn_q=q8_0", "--tensor-type-file", "b.txt"], "Q8_0"),
    ],
)
def test_of_patterns_and_files_of_them_the_first_match_on_the_command_line_counts(
    forge: Forge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, order: list[str], type_: str
) -> None:
    """As llama-quantize has it for these words."""
    monkeypatch.chdir(tmp_path)
    for name, text in (("a", "attn_q=q5_k"), ("b", "attn_q=q6_k"), ("c", "ffn_up=q6_k\nattn_v=q4_0")):
        Path(f"{name}.txt").write_text(text)
    done = forge("convert", MODEL, "--type", "q4_k_s", "-o", "out.gguf", "-v", *order, "--dry-run")
    assert f"Q4_K_S: blk.0.attn_q.weight: BF16 to {type_}," in done.err


@pytest.mark.parametrize(
    "words",
    [
        ["--type", "Q9_X"],
        ["--type", ""],
        ["--threads", "0"],
        ["--metadata", "general.name"],
        ["--metadata", "a=u8:300"],
        ["--output-tensor-type", "q4_k_m"],
        ["--include-weights", "a", "--exclude-weights", "b"],
        ["--type", "COPY"],
        ["--type", "q8_0,copy"],
        ["-o", ""],
        ["-o", "{type}.gguf"],
        ["-o", "out/{ftype}-{QUANT}.gguf"],
    ],
)
def test_wrong_options_are_exit_2(forge: Forge, tmp_path: Path, words: list[str]) -> None:
    ended = forge("convert", MODEL, "-o", tmp_path / "out.gguf", *words)
    assert (ended.code, list(tmp_path.iterdir())) == (2, [])


@pytest.mark.parametrize("types", ["Q4_0,Q8_0", "q8_0,Q8_0"])
def test_two_types_for_one_file_are_exit_2(forge: Forge, tmp_path: Path, types: str) -> None:
    ended = forge("convert", MODEL, "--type", types, "-o", tmp_path / "out.gguf")
    assert (ended.code, ended.err.count("\n"), list(tmp_path.iterdir())) == (2, 1, [])
    assert f"{types.replace(',', ' and ')} would be one file" in ended.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--type", "IQ2_XXS"], "importance matrix"),
        (["--imatrix", "none.gguf", "--type", "Q4_0"], "none.gguf"),
        (["-o", "no/such/folder/out.gguf"], "no/such/folder"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_leaves_nothing(
    forge: Forge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    ended = forge("convert", MODEL, "-o", "out.gguf", *words)
    assert (ended.code, list(tmp_path.iterdir())) == (1, [])
    assert ended.err.count("\n") == 1
    assert said in ended.err


def test_a_folder_without_a_checkpoint_is_said(forge: Forge, tmp_path: Path) -> None:
    for source in (tmp_path, tmp_path / "none", MODEL / "config.json"):
        ended = forge("convert", source)
        assert (ended.code, ended.err.count("\n")) == (1, 1)
        assert ended.err.startswith("gguf-forge: ")


def test_an_output_that_exists_is_replaced_unless_told_not_to(forge: Forge, tmp_path: Path) -> None:
    out = tmp_path / "out.gguf"
    out.write_bytes(b"old")
    assert forge("convert", MODEL, "--type", "Q4_0", "-o", out, "--no-overwrite").code == 1
    assert out.read_bytes() == b"old"
    assert forge("convert", MODEL, "--type", "Q4_0", "-o", out).code == 0
    assert differences(out, "Q4_0") == []


@pytest.mark.parametrize("words", [["OUT", "Q4_K_M"], ["OUT", "--type", "q4_k_m"], ["OUT", "q4_k"]])
def test_quantize_takes_the_type_in_either_place(forge: Forge, f32: Path, tmp_path: Path, words: list[str]) -> None:
    out = tmp_path / "out.gguf"
    assert forge("quantize", f32, *(str(out) if word == "OUT" else word for word in words)).code == 0
    assert differences(out, "Q4_K_M") == []


def test_quantize_names_its_output_as_the_reference_does(forge: Forge, f32: Path, tmp_path: Path) -> None:
    source = Path(shutil.copy(f32, tmp_path / "f32.gguf"))
    assert forge("quantize", source, "q5_k_s").code == 0
    assert differences(tmp_path / "ggml-model-Q5_K_S.gguf", "Q5_K_S") == []


@pytest.mark.parametrize(
    ("words", "threads"),
    [
        (["b.gguf", "Q4_0", "3"], 3),
        (["b.gguf", "2", "3"], 3),
        (["Q4_0", "3"], 3),
        (["b.gguf", "2", "--threads", "2"], 2),
    ],
)
def test_quantize_takes_the_threads_after_the_type(
    forge: Forge, f32: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], threads: int
) -> None:
    seen = []

    def quantize_file(source: Path, output: Path, name: str, **how: object) -> None:
        seen.append((name, how["threads"]))
        raise RequestError("seen")

    monkeypatch.setattr("gguf_forge.convert.files.quantize_file", quantize_file)
    forge("quantize", f32, *words)
    assert seen == [("Q4_0", threads)]


@pytest.mark.parametrize(
    "words", [["b.gguf", "Q4_0", "0"], ["b.gguf", "Q4_0", "x"], ["b.gguf", "Q4_0", "3", "--threads", "2"], ["", "Q4_0"]]
)
def test_wrong_words_after_the_input_are_exit_2(
    forge: Forge, f32: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert (forge("quantize", f32, *words).code, list(tmp_path.iterdir())) == (2, [])


@pytest.mark.parametrize("name", ["convert", "inspect", "roundtrip", "quantize"])
def test_an_empty_path_is_not_the_current_folder(forge: Forge, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(MODEL)
    ended = forge(name, "", *(["Q4_0"] if name == "quantize" else []), *(["--dry-run"] if name == "convert" else []))
    assert (ended.code, "an empty path" in ended.err) == (2, True)


@pytest.mark.parametrize("words", [[], ["out.gguf"], ["a.gguf", "b.gguf", "Q4_0"], ["--type", "Q4_0,Q8_0"], ["auto"]])
def test_quantize_without_one_type_and_one_output_is_wrong_usage(forge: Forge, f32: Path, words: list[str]) -> None:
    assert forge("quantize", f32, *words).code == 2


def test_quantizing_again_has_to_be_allowed(forge: Forge, f32: Path, tmp_path: Path) -> None:
    once, twice = tmp_path / "once.gguf", tmp_path / "twice.gguf"
    assert forge("quantize", f32, once, "Q8_0").code == 0
    ended = forge("quantize", once, twice, "Q4_0")
    assert (ended.code, twice.exists()) == (1, False)
    assert "quantized already" in ended.err
    assert forge("quantize", once, twice, "Q4_0", "--allow-requantize").code == 0
    with gguf_forge.open(twice) as file:
        assert file.tensors["blk.0.attn_q.weight"].type.name == "Q4_0"


def test_the_input_is_never_the_output(forge: Forge, f32: Path, tmp_path: Path) -> None:
    source = Path(shutil.copy(f32, tmp_path / "f32.gguf"))
    os.link(source, tmp_path / "other-name.gguf")
    before = source.read_bytes()
    for output in (source, tmp_path / "other-name.gguf"):
        assert forge("quantize", source, output, "Q4_0").code == 1
    assert source.read_bytes() == before


def test_a_fallback_is_reported_and_can_be_refused(forge: Forge, tmp_path: Path) -> None:
    source = tmp_path / "narrow.gguf"
    with gguf_forge.GGUFWriter(source) as writer:
        writer.add("general.architecture", "llama")
        writer.add("llama.block_count", 1)
        writer.add_tensor("blk.0.attn_q.weight", np.ones((8, 96), dtype=np.float32))
        writer.add_tensor("token_embd.weight", np.ones((8, 256), dtype=np.float32))
    ended = forge("quantize", source, tmp_path / "out.gguf", "Q4_K_S")
    assert ended.code == 0
    assert "blk.0.attn_q.weight: wanted Q4_K, got Q5_0" in ended.err
    ended = forge("quantize", source, tmp_path / "refused.gguf", "Q4_K_S", "--no-fallback")
    assert ended.err.startswith("gguf-forge: fallback types are not allowed here")
    assert (ended.code, (tmp_path / "refused.gguf").exists()) == (1, False)
    assert "blk.0.attn_q.weight" in ended.err


@pytest.mark.skipif(PLATFORM == "win32", reason="no signal reaches a single process")
@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_a_signal_ends_the_run_and_leaves_the_old_file(tmp_path: Path, name: str, code: int) -> None:
    checkpoint = make(tmp_path / "checkpoint", 100_000_000)
    folder = tmp_path / "out"
    folder.mkdir()
    out = folder / "out.gguf"
    out.write_bytes(b"old")
    command = [sys.executable, "-m", "gguf_forge", "convert", str(checkpoint), "-o", str(out)]
    command += ["--type", "Q2_K", "--threads", "1"]
    environment = {**os.environ, "GGUF_FORGE_ISA": "scalar"}
    with subprocess.Popen(command, stderr=subprocess.PIPE, env=environment, text=True) as process:
        while len(list(folder.iterdir())) == 1:
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(getattr(signal, name))
        assert process.stderr is not None
        said = process.stderr.read()
    assert (process.returncode, said.count("\n")) == (code, 1)
    assert [p.name for p in folder.iterdir()] == ["out.gguf"]
    assert out.read_bytes() == b"old"


def test_inspect_names_the_recipe_of_what_convert_made(forge: Forge, tmp_path: Path) -> None:
    forge("convert", MODEL, "--type", "Q4_K_M", "-o", tmp_path / "out.gguf")
    assert json.loads(forge("inspect", tmp_path / "out.gguf", "--json").out)["model"]["recipe"] == "Q4_K_M"


def test_names_that_are_no_text_are_escaped_wherever_they_land(forge: Forge, f32: Path, tmp_path: Path) -> None:
    matrix = undecodable(tmp_path, b"matri\xe9.gguf")
    matrix.write_bytes((MODEL / "imatrix.gguf").read_bytes())
    made = undecodable(tmp_path, b"q\xff.gguf")
    said = forge("quantize", f32, made, "Q4_K_M", "--imatrix", matrix)
    assert (said.code, said.out) == (0, "")
    assert r"q\xff.gguf: Q4_K_M" in said.err
    with gguf_forge.open(made) as file:
        assert file.metadata["quantize.imatrix.file"] == str(tmp_path / r"matri\xe9.gguf")
    assert forge("inspect", made).out.splitlines()[0] == str(tmp_path / r"q\xff.gguf")
    found = json.loads(forge("inspect", made, "--json").out)
    assert found["file"]["path"] == found["file"]["files"][0] == str(tmp_path / r"q\xff.gguf")
    assert {tensor["file"] for tensor in found["tensors"]} == {r"q\xff.gguf"}
    missing = forge("inspect", undecodable(tmp_path, b"\xfe"))
    assert (missing.code, missing.err.count(r"\xfe")) == (1, 1)


def test_a_name_that_is_no_text_is_wrong_usage(forge: Forge, tmp_path: Path) -> None:
    for words in (["--model-name", "a\udcff"], ["--metadata", "general.author=str:a\udcff"]):
        ended = forge("convert", MODEL, "-o", tmp_path / "a.gguf", *words)
        assert (ended.code, r"a\xff" in ended.err, list(tmp_path.iterdir())) == (2, True, [])


def test_a_folder_whose_name_is_no_text_is_converted(forge: Forge, tmp_path: Path) -> None:
    folder = undecodable(tmp_path, b"mod\xe8le")
    shutil.copytree(MODEL, folder)
    ended = forge("convert", folder, "--type", "Q8_0")
    assert (ended.code, r"mod\xe8le, is not UTF-8" in ended.err) == (0, True)
    (made,) = folder.glob("ggml-model-*-Q8_0.gguf")
    with gguf_forge.open(made) as file:
        assert "general.name" not in file.metadata
        assert all(str(value).isprintable() for key, value in file.metadata.items() if key.startswith("general."))
