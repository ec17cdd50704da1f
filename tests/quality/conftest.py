"""Models for the tests, converted once; skips all that needs llama.cpp's library where it is missing."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

import gguf_forge
from tests.cli.conftest import forge

__all__ = ["forge"]  # the fixture, here too

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures"
TEXT = FIXTURES / "quality" / "calibration.txt"
needs_library = pytest.mark.skipif(
    find_spec("xllamacpp") is None and find_spec("llama_cpp") is None, reason="needs gguf-forge[run]"
)


def _converted(name: str, folder: Path) -> Path:
    target = folder / f"{name}.gguf"
    gguf_forge.convert_checkpoint(FIXTURES / "models" / name, target, "f16")
    return target


@pytest.fixture(scope="session")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """PyLlama-7M in F16."""
    return _converted("PyLlama-7M", tmp_path_factory.mktemp("dense"))


@pytest.fixture(scope="session")
def routed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Micro-Mixtral-4x100K in F16: four experts, two of which each token goes through."""
    return _converted("Micro-Mixtral-4x100K", tmp_path_factory.mktemp("routed"))
