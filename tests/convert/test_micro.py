"""Two small checkpoints, one with stacked experts, one with shifted F16 norms: the reference's whole files."""

from __future__ import annotations

from dataclasses import replace
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


def test_what_is_said_to_differ_has_to(tmp_path: Path) -> None:
    case = "Micro-Gemma3-200K.f32"
    (planned,) = convert_checkpoint(FIXTURES / "models" / "Micro-Gemma3-200K", tmp_path / "out.gguf", "f32")
    keys = {"general.name", "no.such.key"}
    alike = {f"as in the reference: {key}" for key in keys}
    assert set(manifest.differences(planned.path, GOLDEN[case], keys)) == alike
    other = replace(GOLDEN[case], keys=tuple(replace(k, hash=k.hash[::-1]) for k in GOLDEN[case].keys))
    everything = {key.name for key in other.keys}
    assert manifest.differences(planned.path, other, everything) == []
    assert len(manifest.differences(planned.path, other, everything - {"general.name"})) == 1
