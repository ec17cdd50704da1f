"""Two small checkpoints, one with stacked experts, one with shifted F16 norms: the reference's whole files."""

from __future__ import annotations

from pathlib import Path

import pytest

from gguf_forge.convert.files import convert_checkpoint
from tests import manifest

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures"
GOLDEN = manifest.load(FIXTURES / "golden" / "micro.json.xz")


@pytest.mark.parametrize("case", GOLDEN)
def test_conversion_is_the_references_file(case: str, tmp_path: Path) -> None:
    name, _, kind = case.rpartition(".")
    (planned,) = convert_checkpoint(FIXTURES / "models" / name, tmp_path / "out.gguf", kind, threads=2)
    assert manifest.differences(planned.path, GOLDEN[case]) == []
