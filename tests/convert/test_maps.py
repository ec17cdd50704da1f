"""Checkpoints at full size, from headers alone: every tensor of the published file, with its shape, type and bytes."""

from __future__ import annotations

import json
import lzma
from math import prod
from pathlib import Path
from typing import Any, cast

import pytest

from gguf_forge.convert.config import resolve
from gguf_forge.convert.facts import Facts
from gguf_forge.convert.job import Job, Quantization
from gguf_forge.convert.model import Model
from gguf_forge.convert.plan import plan_outputs
from gguf_forge.convert.registry import select
from gguf_forge.source.dtypes import DTYPES
from gguf_forge.source.input_file import InputFile
from gguf_forge.source.tensor import SourceTensor

MAPS = sorted((Path(__file__).resolve().parents[2] / "fixtures" / "maps").glob("*.json.xz"))


@pytest.mark.parametrize("path", MAPS, ids=lambda path: path.name.partition(".json")[0])
def test_what_is_planned_is_what_was_published(path: Path, tmp_path: Path) -> None:
    case: dict[str, Any] = json.loads(lzma.decompress(path.read_bytes()))
    nowhere = cast(InputFile, None)
    tensors = {n: SourceTensor(n, DTYPES[dtype], tuple(shape), nowhere, 0) for n, dtype, shape in case["source"]}
    outputs = plan_outputs(select(case["config"]), tensors, Facts(resolve(case["config"]), tmp_path))
    job = Job.of_outtype("bf16", Model(outputs.views, {}, types=outputs.types), Quantization())
    planned = {
        c.name: (list(c.shape), c.type.name, c.type.row_bytes(c.shape[-1]) * prod(c.shape[:-1])) for c in job.choices
    }
    published = {name: (shape, kind, nbytes) for name, shape, kind, nbytes in case["published"]}
    # The class of transformers that the headers are of makes no layer that predicts a further token.
    layers = len({name.split(".")[1] for name in planned if name.startswith("blk.")})
    further = {name for name in published if name.startswith(f"blk.{layers}.")}
    assert planned == {name: found for name, found in published.items() if name not in further}
