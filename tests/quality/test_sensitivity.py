"""Weights exchanged in a loaded model: its answers change by as much as the error says, and come back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import gguf_forge
from gguf_forge.errors import UnsupportedError
from gguf_forge.quality.sensitivity import Weights
from gguf_forge.quality.session import Model, cut_windows, read_texts
from tests.quality.conftest import TEXT, needs_library

pytestmark = needs_library
NAME = "blk.3.ffn_down.weight"


@pytest.fixture(scope="module")
def answers(dense: Path) -> Iterator[Weights]:
    with Model(dense, writable=True) as model:
        windows = cut_windows(model, model.tokenize(read_texts([TEXT])), 128, 4)
        session = Weights(model, windows, threads=2)
        yield session
        session.close()


@pytest.fixture(scope="module")
def values(dense: Path) -> NDArray[np.float32]:
    with gguf_forge.open(dense) as file:
        return file.tensors[NAME].dequantize()


def test_all_matrices_are_found(answers: Weights, dense: Path) -> None:
    with gguf_forge.open(dense) as file:
        assert [name for name in file.tensors if not answers.known(name)] == []


def test_the_same_weights_make_the_same_answers(answers: Weights, values: NDArray[np.float32]) -> None:
    with answers.exchanged(NAME, values):
        assert answers.divergence() == 0


def test_divergence_grows_with_the_square_of_the_change(answers: Weights, values: NDArray[np.float32]) -> None:
    change = np.random.default_rng(3).standard_normal(values.shape).astype(np.float32) * values.std() * 0.1
    found = []
    for factor in (1, 2):
        with answers.exchanged(NAME, values + np.float32(factor) * change):
            found.append(answers.divergence())
    assert found[0] > 1e-4
    assert found[1] == pytest.approx(4 * found[0], rel=0.15)
    assert answers.divergence() == 0


def test_weights_of_another_size_are_refused(answers: Weights, values: NDArray[np.float32]) -> None:
    with pytest.raises(UnsupportedError, match="bytes in memory"), answers.exchanged(NAME, values[:8]):
        pass
    assert answers.divergence() == 0
