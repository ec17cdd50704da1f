"""Every checkpoint of a folder against the reference's results: `make test-zoo ZOO=folder`.

ZOO/golden holds full manifests, <checkpoint>.<type>.json (lower case: convert_hf_to_gguf.py alone, with options that
`args` lists and the type's name tells apart; capitals: llama-quantize of its F32 file); CHECKPOINTS holds the
checkpoints under their own names. Where a file differs on purpose, `differences.ZOO` says in which keys.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from gguf_forge.convert.files import convert_checkpoint
from gguf_forge.errors import ForgeError
from tests import manifest
from tests.convert.differences import ZOO, Difference
from tests.convert.headers import options_of

pytestmark = pytest.mark.zoo

FOLDERS = os.environ.get("ZOO"), os.environ.get("CHECKPOINTS")
GOLDEN, CHECKPOINTS = Path(FOLDERS[0] or "") / "golden", Path(FOLDERS[1] or "")
CASES = [path.stem for path in sorted(GOLDEN.glob("*.json"))] if all(FOLDERS) else []

#: Options of the reference that make files of another kind: projectors for other modalities.
NOT_YET = {"--mmproj"}


@pytest.mark.skipif(not all(FOLDERS), reason="ZOO and CHECKPOINTS name no folders")
def test_the_folders_hold_checkpoints_and_results() -> None:
    assert CASES
    missing = {case.rpartition(".")[0] for case in CASES} - {path.name for path in CHECKPOINTS.iterdir()}
    assert missing == set()


@pytest.mark.parametrize("case", CASES)
def test_conversion_is_the_references_file(case: str, tmp_path: Path) -> None:
    name, _, kind = case.rpartition(".")
    full = json.loads((GOLDEN / f"{case}.json").read_text(encoding="utf-8", errors="surrogatepass"))
    if "kv" not in full:
        pytest.skip(f"the reference fails on it: {full.get('outcome')}")
    args = full.get("args", [])
    if full.get("tool", "").endswith(".py") or set(args) & NOT_YET:
        pytest.skip("of another tool")
    kind = kind.split("-")[0]
    options = options_of(args, CHECKPOINTS)
    differs = ZOO.get(case, ZOO.get(name, Difference(frozenset(), ())))
    if differs.error:
        with pytest.raises(ForgeError, match=differs.error):
            convert_checkpoint(CHECKPOINTS / name, tmp_path / "out.gguf", kind, options=options)
        return
    (planned,) = convert_checkpoint(CHECKPOINTS / name, tmp_path / "out.gguf", kind, options=options)
    assert manifest.differences(planned.path, manifest.from_full(full), differs.keys) == []
