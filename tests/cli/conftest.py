"""How the command line is run in tests: in this process, with what it said and how it ended."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from gguf_forge.cli import main


@dataclass(frozen=True)
class Ended:
    """A run of the command line."""

    code: int
    out: str
    err: str


Forge = Callable[..., Ended]


@pytest.fixture
def forge(capsys: pytest.CaptureFixture[str]) -> Forge:
    def run(*words: object) -> Ended:
        capsys.readouterr()
        code = main([str(word) for word in words])
        said = capsys.readouterr()
        return Ended(code, said.out, said.err)

    return run
