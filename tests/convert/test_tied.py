"""A head that is the embedding, stored once under both names, as pickled checkpoints may have it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from gguf_forge.convert.facts import Facts
from gguf_forge.convert.plan import plan_outputs
from gguf_forge.source.input_file import InputFile
from tests.convert.headers import load

CASE = load()["mamba-130m-original"]
HEAD, EMBEDDING = "lm_head.weight", "backbone.embedding.weight"


def outputs_with_head_at(offset: int, folder: Path) -> set[str]:
    path = folder / "weights"
    path.write_bytes(b"\0")
    file = InputFile(path)
    places = {name: i + 1 for i, name in enumerate(CASE.headers())} | {EMBEDDING: 0, HEAD: offset}
    tensors = {n: replace(t, file=file, offset=places[n]) for n, t in CASE.headers().items()}
    return {view.name for view in plan_outputs(CASE.arch, tensors, Facts(CASE.config, folder)).views}


def test_a_head_that_is_the_embedding_is_written_once(tmp_path: Path) -> None:
    once, twice = outputs_with_head_at(0, tmp_path), outputs_with_head_at(1000, tmp_path)
    assert twice - once == {"output.weight"}
    assert once <= twice
