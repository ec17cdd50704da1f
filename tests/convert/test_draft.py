"""Draft models with another folder's tensors: what is borrowed, what is put in its place, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from gguf_forge.convert.config import resolve
from gguf_forge.convert.facts import Facts, Options
from gguf_forge.convert.files import convert_checkpoint
from gguf_forge.convert.model import checkpoint_model
from gguf_forge.convert.plan import plan_outputs
from gguf_forge.convert.registry import select
from gguf_forge.convert.target import target_config, with_target
from gguf_forge.errors import ConversionError, ForgeError
from gguf_forge.source.checkpoint import Checkpoint, open_checkpoint
from tests.convert import headers

CASES = headers.load()
MASKED, IDS = CASES["dflash-mask"], CASES["dspark-speculator"]
VOCABULARY, WIDTH, MASK = 64, 32, 5


def write(folder: Path, config: dict[str, Any], tensors: dict[str, np.ndarray[Any, Any]]) -> None:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    save_file(tensors, folder / "model.safetensors")


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """A draft with a mask of its own, and its target, both with a vocabulary of 64."""
    draft, target = tmp_path / "draft", tmp_path / "t-plain"
    shapes = {name: (VOCABULARY if shape[0] > 1000 else shape[0], *shape[1:]) for name, _, shape in MASKED.source}
    random = np.random.default_rng(1)
    values = {name: random.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    config = {**MASKED.config, "vocab_size": VOCABULARY}
    write(draft, config, {name: value for name, value in values.items() if not name.startswith("target:")})
    (draft / "mask_embedding.pt").write_bytes(bytes.fromhex(MASKED.files["mask_embedding.pt"]))
    borrowed = {name.removeprefix("target:"): value for name, value in values.items() if name.startswith("target:")}
    write(target, json.loads(MASKED.files["t-plain/config.json"]), borrowed)
    return draft, target


def planned(checkpoint: Checkpoint, target: Path | None, **changed: Any) -> Any:
    options = Options(target=target)
    config = resolve({**checkpoint.config, **changed})
    facts = Facts(config, checkpoint.path, options=options, target=target_config(options))
    arch = select(checkpoint.config)
    return {view.name: view for view in plan_outputs(arch, with_target(arch, checkpoint, facts), facts).views}


def test_the_targets_embedding_gets_the_drafts_mask(folders: tuple[Path, Path]) -> None:
    draft, target = folders
    with open_checkpoint(draft) as checkpoint, open_checkpoint(target) as whole:
        views = planned(checkpoint, target)
        found = views["token_embd.weight"].read()
        expected = whole.tensors["model.embed_tokens.weight"].read().copy()
        assert not np.array_equal(found[MASK], expected[MASK])
        expected[MASK] = found[MASK]
        assert np.array_equal(found, expected)
        assert np.array_equal(views["output.weight"].read(), whole.tensors["lm_head.weight"].read())
        # Read in runs of rows, the masked row is in its place, too.
        assert np.array_equal(views["token_embd.weight"].rows(MASK, MASK + 2), found[MASK : MASK + 2])


def test_the_targets_files_are_watched_and_closed_with_the_drafts(folders: tuple[Path, Path]) -> None:
    draft, target = folders
    with open_checkpoint(draft) as checkpoint:
        view = planned(checkpoint, target)["output.weight"]
        (target / "model.safetensors").write_bytes(b"")
        assert not checkpoint.unchanged()
    with pytest.raises((ForgeError, ValueError), match="close"):
        view.read()


def test_a_draft_that_borrows_needs_its_target(folders: tuple[Path, Path]) -> None:
    with (
        open_checkpoint(folders[0]) as checkpoint,
        pytest.raises(ConversionError, match=r"needs 'lm_head.weight' of .* with --target-model-dir"),
    ):
        planned(checkpoint, None)


def test_a_draft_has_no_tokenizer_without_its_target(folders: tuple[Path, Path], tmp_path: Path) -> None:
    draft, _ = folders
    (draft / "mask_embedding.pt").unlink()
    with pytest.raises(ConversionError, match=r"the tokenizer of the model it drafts for: .*--target-model-dir"):
        convert_checkpoint(draft, tmp_path / "out.gguf", "f32", dry_run=True)


def test_a_target_must_be_a_models_folder(folders: tuple[Path, Path], tmp_path: Path) -> None:
    with (
        open_checkpoint(folders[0]) as checkpoint,
        pytest.raises(ForgeError, match="not the folder of a draft model's target"),
    ):
        checkpoint_model(
            checkpoint, pre=None, model_name=None, overrides={}, options=Options(target=tmp_path / "nowhere")
        )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dflash_config": {"mask_token_id": 6, "target_layer_ids": [0]}}, "mask_token_id is 5, by config.json 6"),
        ({"vocab_size": 4}, "mask_token_id is 5"),
        ({"vocab_size": 65}, r"embed_tokens.weight \[64, 32\] is not of config.json's vocabulary"),
        ({"hidden_size": 16}, "has no embedding of 16 numbers"),
    ],
)
def test_masks_that_do_not_fit(folders: tuple[Path, Path], change: dict[str, Any], message: str) -> None:
    draft, target = folders
    with open_checkpoint(draft) as checkpoint, pytest.raises(ConversionError, match=message):
        planned(checkpoint, target, **change)


@pytest.mark.parametrize("ids", [[0, 0, 1, 62], [0, -1, 0, 0], [3, 2, 1, 0]])
def test_a_drafts_tokens_stand_for_different_tokens_of_its_target(ids: list[int], tmp_path: Path) -> None:
    """The last: all stand for the fourth."""
    case = replace(IDS, config={**IDS.config, "vocab_size": VOCABULARY})
    facts = case.facts(tmp_path)
    facts = replace(facts, config={**facts.config, "vocab_size": VOCABULARY})
    tensors = {"d2t": np.array(ids, np.int64)}
    save_file(tensors, tmp_path / "model.safetensors")
    with open_checkpoint(tmp_path / "model.safetensors") as checkpoint:
        views = plan_outputs(select(case.config), {**case.headers(), **checkpoint.tensors}, facts).views
        assert views[-1].name == "d2t"
        with pytest.raises(ConversionError, match="not every token of the draft stands for another"):
            views[-1].read()
