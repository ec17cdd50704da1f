"""Golden bytes: what ggml makes of 52 easy and nasty rows, on every instruction set this machine has."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from gguf_forge.types import TensorType
from tests.native.conftest import BLOCK_TYPES, ISAS, decode, encode

FOLDER = Path(__file__).resolve().parents[2] / "fixtures" / "blocks"
HASHES = json.loads((FOLDER / "decoded.json").read_text())
CASES = [(t, mode) for t in BLOCK_TYPES for mode in HASHES.get(t.name, ())]
NAMES = [f"{t.name}-{mode}" for t, mode in CASES]
ENCODED = [(t, mode) for t, mode in CASES if t.encodes]


@cache
def load(name: str) -> dict[str, NDArray[Any]]:
    with np.load(FOLDER / f"{name}.npz") as data:
        return dict(data)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(("kind", "mode"), ENCODED, ids=[f"{t.name}-{mode}" for t, mode in ENCODED])
def test_encode(kind: TensorType, mode: str, isa: str) -> None:
    inputs = load("inputs")
    made = encode(inputs["x"], kind, inputs["imatrix"] if mode == "imatrix" else None, isa)
    wrong = (made != load(kind.name)[mode]).any(axis=1)
    assert not wrong.any(), f"rows that differ: {sorted(set(inputs['row_names'][wrong]))}"


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(("kind", "mode"), CASES, ids=NAMES)
def test_decode(kind: TensorType, mode: str, isa: str) -> None:
    made = decode(load(kind.name)[mode], kind, isa)
    assert hashlib.sha256(made.astype("<f4").tobytes()).hexdigest() == HASHES[kind.name][mode]


def test_every_type_that_encodes_has_golden_bytes() -> None:
    assert {t.name for t in BLOCK_TYPES if t.encodes} <= set(HASHES)
