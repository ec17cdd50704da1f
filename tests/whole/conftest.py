"""Files that tests of whole files start from."""

from __future__ import annotations

from pathlib import Path

import pytest

import gguf_forge
from tests.cli.conftest import forge

__all__ = ["forge"]  # a fixture

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures"
MODEL = FIXTURES / "models" / "PyLlama-7M"


@pytest.fixture(scope="session")
def q4(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """PyLlama-7M as Q4_K_M: the file that the goldens of fixtures/tools were made of."""
    path = tmp_path_factory.mktemp("q4") / "q4.gguf"
    gguf_forge.convert_checkpoint(MODEL, path, "Q4_K_M")
    return path


@pytest.fixture(scope="session")
def f16(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("f16") / "f16.gguf"
    gguf_forge.convert_checkpoint(MODEL, path, "f16")
    return path
