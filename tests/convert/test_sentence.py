"""What sentence-transformers keeps beside a model: pooling is found or its absence explained, no module lost unsaid."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gguf_forge.convert.registry import named
from gguf_forge.convert.remarks import Subject, remarks
from gguf_forge.convert.sentence import pooling_mode
from gguf_forge.errors import CheckpointError, ForgeError
from gguf_forge.format import values

TRANSFORMER = {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}
POOLING = {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}
DENSE = {"idx": 2, "name": "2", "path": "2_Dense", "type": "sentence_transformers.models.Dense"}
NORMALIZE = {"idx": 3, "name": "3", "path": "3_Normalize", "type": "sentence_transformers.models.Normalize"}


def lay_out(folder: Path, modules: Any, pooling: Any = None) -> Path:
    (folder / "modules.json").write_text(json.dumps(modules))
    if pooling is not None:
        (folder / "1_Pooling").mkdir()
        (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    return folder


@pytest.mark.parametrize(
    ("pooling", "mode"),
    [
        ({"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}, "mean"),
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "cls"),
        ({"pooling_mode_mean_tokens": False, "pooling_mode_lasttoken": True}, "lasttoken"),
        ({"pooling_mode": "lasttoken"}, "lasttoken"),
        ({"pooling_mode_cls_token": False, "pooling_mode_max_tokens": True}, "max_tokens"),
    ],
)
def test_pooling_is_read_from_where_modules_say(pooling: Any, mode: str, tmp_path: Path) -> None:
    assert pooling_mode(lay_out(tmp_path, [TRANSFORMER, POOLING], pooling)) == mode


@pytest.mark.parametrize(
    ("said", "mode"), [("last_token", "lasttoken"), ("mean", "mean"), (None, None), ("max", "max")]
)
def test_without_a_pooling_module_embedding_config_says_it(said: str | None, mode: str | None, tmp_path: Path) -> None:
    (tmp_path / "embedding_config.json").write_text(json.dumps({"pooling": said}), encoding="utf-8")
    assert pooling_mode(tmp_path) == mode
    assert pooling_mode(lay_out(tmp_path, [TRANSFORMER, POOLING], {"pooling_mode": "cls"})) == "cls"


def test_without_modules_nothing_is_pooled(tmp_path: Path) -> None:
    assert pooling_mode(tmp_path) is None
    assert pooling_mode(lay_out(tmp_path, [TRANSFORMER, NORMALIZE])) is None


@pytest.mark.parametrize(
    ("modules", "pooling", "message"),
    [
        ([POOLING], None, "1_Pooling/config.json: missing"),
        ([POOLING], {"word_embedding_dimension": 4}, "names no way of pooling"),
        ([POOLING], [], "expected a JSON object"),
        ([{**POOLING, "path": "../elsewhere"}], None, "not a plain file name"),
        ([{**POOLING, "path": "/etc"}], None, "not a plain file name"),
        ({"0": POOLING}, None, "expected a list of objects"),
        (["1_Pooling"], None, "expected a list of objects"),
    ],
)
def test_a_pooling_that_cannot_be_read_is_one_clear_error(
    modules: Any, pooling: Any, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ForgeError, match=message):
        pooling_mode(lay_out(tmp_path, modules, pooling))


def test_damaged_modules_are_a_checkpoint_error(tmp_path: Path) -> None:
    (tmp_path / "modules.json").write_text("[")
    with pytest.raises(CheckpointError, match=r"modules\.json: not JSON"):
        pooling_mode(tmp_path)


def test_modules_that_leave_no_trace_are_named(tmp_path: Path) -> None:
    folder = lay_out(tmp_path, [TRANSFORMER, POOLING, DENSE, NORMALIZE])
    config: dict[str, Any] = {"rope_parameters": {}}
    pooled = remarks(Subject(folder, config, named("BertModel"), {"bert.pooling_type": values.u32(1)}, []))
    assert pooled == ["modules.json: Dense (2_Dense) has no form in GGUF and is left out"]
    silent = remarks(Subject(folder, config, named("GPT2Model"), {}, []))
    assert silent[0].startswith("modules.json: gpt2 has no key for pooling")
