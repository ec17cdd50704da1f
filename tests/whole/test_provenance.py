"""`manifest`: a statement that in-toto's tools read, the same whenever it is made, and that tells of every change."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gguf_forge
from tests.cli.conftest import Forge

MODEL = Path(__file__).resolve().parents[2] / "fixtures" / "models" / "PyLlama-7M"
MATRIX = MODEL / "imatrix.gguf"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkpoint, and in it the file made of it."""
    folder = tmp_path_factory.mktemp("model")
    shutil.copytree(MODEL, folder, dirs_exist_ok=True)
    gguf_forge.convert_checkpoint(folder, folder / "m.gguf", "Q4_K_M")
    return folder


@pytest.fixture(scope="module")
def statement(model: Path) -> dict[str, Any]:
    return gguf_forge.manifest(model / "m.gguf", against=model)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_it_is_an_in_toto_statement_of_slsa_provenance(model: Path, statement: dict[str, Any]) -> None:
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert statement["predicateType"] == "https://slsa.dev/provenance/v1"
    assert statement["subject"] == [{"name": "m.gguf", "digest": {"sha256": sha256((model / "m.gguf").read_bytes())}}]
    build = statement["predicate"]["buildDefinition"]
    assert build.keys() == {"buildType", "externalParameters", "internalParameters", "resolvedDependencies"}
    assert build["externalParameters"] == {"general.architecture": "llama", "general.file_type": 15}
    named = {one["name"]: one["digest"]["sha256"] for one in build["resolvedDependencies"]}
    assert named["model.safetensors"] == sha256((model / "model.safetensors").read_bytes())
    assert "m.gguf" not in named
    assert statement["predicate"]["runDetails"]["builder"].keys() == {"id", "version"}


def test_tensors_have_their_hashes_and_what_they_were_found_to_be(model: Path, statement: dict[str, Any]) -> None:
    own = statement["predicate"]["buildDefinition"]["internalParameters"]
    with gguf_forge.open(model / "m.gguf") as file:
        tensors = [
            (t.name, t.type.name, list(t.shape), sha256(t.data.tobytes())) for t in file.tensors.values()
        ]
    assert own["verified"] is True
    assert [(t["name"], t["type"], t["shape"], t["digest"]["sha256"]) for t in own["tensors"]] == tensors
    assert {t["status"] for t in own["tensors"]} == {"exact", "encoded"}


def test_it_is_the_same_whenever_it_is_made(model: Path, statement: dict[str, Any]) -> None:
    assert gguf_forge.manifest(model / "m.gguf", against=model) == statement
    assert json.loads(json.dumps(statement)) == statement
    assert gguf_forge.check_manifest(statement, model / "m.gguf", against=model) == []


def test_a_changed_tensor_is_named(model: Path, statement: dict[str, Any], tmp_path: Path) -> None:
    path = shutil.copy(model / "m.gguf", tmp_path / "m.gguf")
    with gguf_forge.open(path) as file:
        at = file.tensors["blk.3.ffn_up.weight"].offset
    np.memmap(path, np.uint8, "r+")[at] ^= 1
    found = gguf_forge.check_manifest(statement, path)
    assert [(f.field, f.severity) for f in found] == [(None, "error"), ('tensor "blk.3.ffn_up.weight"', "error")]


def test_a_changed_source_is_named(model: Path, statement: dict[str, Any], tmp_path: Path) -> None:
    folder = tmp_path / "other"
    shutil.copytree(model, folder)
    (folder / "config.json").write_text((folder / "config.json").read_text() + " ")
    (folder / "tokenizer.model").unlink()
    (folder / "new.json").write_text("{}")
    found = gguf_forge.check_manifest(statement, folder / "m.gguf", against=folder)
    assert [(Path(f.path).name, f.severity) for f in found] == [
        ("config.json", "error"),
        ("new.json", "warning"),
        ("tokenizer.model", "error"),
    ]


def test_on_the_command_line(forge: Forge, model: Path, tmp_path: Path) -> None:
    path = model / "m.gguf"
    ended = forge("manifest", path, "--against", model, "--imatrix", MATRIX, "-q")
    assert ended.code == 0
    stated = tmp_path / "made.json"
    stated.write_text(ended.out)
    build = json.loads(ended.out)["predicate"]["buildDefinition"]
    assert [one["annotations"]["role"] for one in build["resolvedDependencies"]].count("imatrix") == 1
    for more in ([], ["--against", model], ["--imatrix", MATRIX]):
        ended = forge("manifest", path, "--check", stated, *more)
        assert (ended.code, ended.out, ended.err) == (0, "", f"{path}: is what {stated} states\n")
    plain = forge("manifest", path, "-q").out
    assert json.loads(plain)["predicate"]["buildDefinition"]["internalParameters"]["verified"] is None
    other = model / "other.gguf"
    gguf_forge.convert_checkpoint(model, other, "Q4_0")
    ended = forge("manifest", other, "--check", stated)
    assert (ended.code, "is not what" in ended.err) == (1, True)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"_type": "https://in-toto.io/Statement/v1"}', "[" * 100000])
def test_what_is_no_statement_is_one_clear_error(text: str, forge: Forge, model: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text(text)
    ended = forge("manifest", model / "m.gguf", "--check", tmp_path / "bad.json")
    assert (ended.code, len(ended.err.splitlines()), ended.out) == (1, 1, "")


def test_a_statement_that_lacks_something_is_refused(model: Path, statement: dict[str, Any]) -> None:
    for path in (("subject",), ("predicate", "buildDefinition"), ("predicate", "buildDefinition", "buildType")):
        spoiled = json.loads(json.dumps(statement))
        inner = spoiled
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = None
        with pytest.raises(gguf_forge.FormatError):
            gguf_forge.check_manifest(spoiled, model / "m.gguf")


@pytest.fixture(scope="module")
def shards(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds a set and nothing else."""
    folder = tmp_path_factory.mktemp("set")
    gguf_forge.split_file(model / "m.gguf", folder / "m", max_tensors=20)
    return folder


@pytest.fixture(scope="module")
def signable(model: Path, shards: Path) -> dict[str, Any]:
    return gguf_forge.manifest(next(shards.iterdir()), against=model, form="model-signing")


def test_the_form_of_model_signing(model: Path, shards: Path, signable: dict[str, Any]) -> None:
    """As https://github.com/ossf/model-signing-spec has it: files, and a digest over their digests."""
    digests = {path.name: hashlib.sha256(path.read_bytes()).digest() for path in sorted(shards.iterdir())}
    assert len(digests) > 1
    predicate = signable["predicate"]
    assert signable["_type"] == "https://in-toto.io/Statement/v1"
    assert signable["predicateType"] == "https://model_signing/signature/v1.0"
    assert signable["subject"] == [{"name": "m", "digest": {"sha256": sha256(b"".join(digests.values()))}}]
    assert predicate["resources"] == [
        {"name": name, "algorithm": "sha256", "digest": digest.hex()} for name, digest in digests.items()
    ]
    assert predicate["serialization"] == {
        "method": "files",
        "hash_type": "sha256",
        "allow_symlinks": False,
        "ignore_paths": [".git", ".gitattributes", ".github", ".gitignore"],
    }
    beside = gguf_forge.manifest(next(shards.iterdir()), against=model)
    assert predicate["provenance"] == beside["predicate"]
    with pytest.raises(gguf_forge.RequestError, match="no form spdx; there are slsa, model-signing"):
        gguf_forge.manifest(model / "m.gguf", form="spdx")


def test_a_statement_of_model_signing_is_checked(
    model: Path, shards: Path, signable: dict[str, Any], forge: Forge, tmp_path: Path
) -> None:
    first = sorted(shards.iterdir())[0]
    assert gguf_forge.check_manifest(signable, first, against=model) == []
    stated = tmp_path / "made.json"
    stated.write_text(forge("manifest", first, "--form", "model-signing", "-q").out)
    assert forge("manifest", first, "--check", stated).code == 0
    shutil.copytree(shards, tmp_path / "set")
    changed = tmp_path / "set" / sorted(shards.iterdir())[1].name
    np.memmap(changed, np.uint8, "r+")[-1] ^= 1
    found = gguf_forge.check_manifest(signable, changed)
    assert [Path(f.path).name for f in found if f.field is None] == [changed.name]
    assert [f.severity for f in found] == ["error", "error"]
    for path in (("resources", 0, "digest"), ("resources",), ("provenance",), ("provenance", "buildDefinition")):
        others: list[Any] = [None, "00", [], "x"]
        for other in others:
            spoiled = json.loads(json.dumps(signable))
            inner = spoiled["predicate"]
            for key in path[:-1]:
                inner = inner[key]
            inner[path[-1]] = other
            with pytest.raises(gguf_forge.FormatError):
                gguf_forge.check_manifest(spoiled, first)


def test_in_totos_own_package_reads_both_forms(statement: dict[str, Any], signable: dict[str, Any]) -> None:
    json_format = pytest.importorskip("google.protobuf.json_format")
    form = pytest.importorskip("in_toto_attestation.v1.statement")
    provenance = pytest.importorskip("in_toto_attestation.predicates.provenance.v1.provenance_pb2")
    for made in (statement, signable):
        read = json_format.ParseDict(made, form.spb.Statement())
        form.Statement.copy_from_pb(read).validate()
        assert json_format.MessageToDict(read) == made
    assert json_format.ParseDict(statement["predicate"], provenance.Provenance()).run_details.builder.id


def test_model_signings_own_package_reads_it_as_what_it_makes_of_the_folder(
    shards: Path, signable: dict[str, Any]
) -> None:
    hashing = pytest.importorskip("model_signing.hashing")
    signing = pytest.importorskip("model_signing._signing.signing")
    assert signing.dsse_payload_to_manifest(signable) == hashing.Config().hash(shards)
