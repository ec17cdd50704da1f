"""The names of `gguf_forge`: what is public is reachable, documented, and short to look at."""

from __future__ import annotations

import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gguf_forge
from gguf_forge import values

MODEL = Path(__file__).resolve().parent.parent / "fixtures" / "models" / "PyLlama-7M"
#: Of what `convert_hf_to_gguf.py --bigendian` makes of the model.
BIG_ENDIAN = {
    "f16": "0ebf368cae39e64a53d204a911a49dc51730e5a91bfb7e166cc2c485d09248d3",
    "f32": "7806810aee5a1cc29af858401643acd59d452bb0c58429aa150fbfc19477bc81",
}


def test_dir_lists_what_is_public_and_nothing_else() -> None:
    assert {"open", "convert_checkpoint", "Value", "ValueType", "ForgeError", "values"} <= set(dir(gguf_forge))
    assert [name for name in dir(gguf_forge) if name.startswith("_") or name in {"Any", "importlib"}] == []
    for name in dir(gguf_forge):
        assert name.isupper() or getattr(gguf_forge, name).__doc__, name


def test_everything_can_be_imported_at_once() -> None:
    code = "before = set(globals())\nfrom gguf_forge import *\nprint(sorted(set(globals()) - before - {'before'}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(dir(gguf_forge))


def test_the_names_of_values_are_those_of_the_format() -> None:
    assert values.array(gguf_forge.ValueType.UINT8, [1]) == gguf_forge.Value(
        gguf_forge.ValueType.ARRAY, np.array([1], np.uint8), gguf_forge.ValueType.UINT8
    )
    assert [name for name in values.__all__ if not hasattr(values, name)] == []


def test_metadata_may_be_plain_python(tmp_path: Path) -> None:
    given: dict[str, Any] = {"a": 1, "b": "x", "c": [1.5, 2], "d": values.u8(3), "e": np.int64(-1)}
    (plan,) = gguf_forge.convert_checkpoint(MODEL, tmp_path / "a.gguf", "f16", metadata=given)
    copied = gguf_forge.quantize_file(plan.path, tmp_path / "b.gguf", "COPY", metadata={**given, "a": True})
    with gguf_forge.GGUFWriter(tmp_path / "c.gguf", given):
        pass
    for path, first in ((plan.path, "UINT32"), (copied.path, "BOOL"), (tmp_path / "c.gguf", "UINT32")):
        with gguf_forge.open(path) as file:
            kinds = [file.metadata.type_of(key).name for key in given]
            assert kinds == [first, "STRING", "ARRAY", "UINT8", "INT64"]


@pytest.mark.parametrize(("value", "said"), [([], "values.array"), (object(), "no GGUF type"), ([1, "a"], "mixed")])
def test_metadata_that_has_no_type_is_said_with_its_key(value: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(gguf_forge.InvalidError, match=f'key "my.key": .*{said}'):
        gguf_forge.convert_checkpoint(MODEL, tmp_path / "a.gguf", "f16", metadata={"my.key": value})


@pytest.mark.parametrize("threads", ["a", 1.5, 0, True])
def test_threads_are_a_whole_number(threads: Any, tmp_path: Path) -> None:
    x = np.ones((2, 32), np.float32)
    for call in (
        lambda: gguf_forge.convert_checkpoint(MODEL, tmp_path / "a.gguf", "f16", threads=threads, dry_run=True),
        lambda: gguf_forge.quantize(x, "Q4_0", threads=threads),
        lambda: gguf_forge.dequantize(gguf_forge.quantize(x, "Q4_0"), "Q4_0", threads=threads),
        lambda: gguf_forge.roundtrip(x, "Q4_0", threads=threads),
    ):
        with pytest.raises(gguf_forge.ForgeError, match="threads must be a whole number"):
            call()


def test_types_of_tensors_are_named_as_text(tmp_path: Path) -> None:
    how = gguf_forge.Quantization(overrides=["attn_q=Q8_0"])
    (plan,) = gguf_forge.convert_checkpoint(MODEL, tmp_path / "a.gguf", "Q4_0", quantization=how, dry_run=True)
    assert {c.type.name for c in plan.choices if "attn_q." in c.name} == {"Q8_0"}


def test_what_is_large_is_short_to_look_at(tmp_path: Path) -> None:
    plans = gguf_forge.convert_checkpoint(MODEL, tmp_path / "a.gguf", "f16")
    with gguf_forge.open(tmp_path / "a.gguf") as file:
        shown: list[object] = [file, file.metadata, file.tensors, file.metadata.value("tokenizer.ggml.tokens")]
    shown += [plans[0].file, gguf_forge.load_imatrix(MODEL / "imatrix.gguf"), plans]
    assert [repr(x) for x in shown if len(repr(x)) > 120 + len(str(tmp_path))] == []
    assert repr(plans) == f"[<Planned {tmp_path / 'a.gguf'}: F16, 28 keys, 57 tensors, 13737152 bytes>]"
    assert repr(shown[3]) == "<Value: 4096 of STRING>"


@pytest.mark.parametrize("kind", ["f16", "f32", "bf16"])
def test_plain_numbers_are_written_in_either_byte_order(kind: str, tmp_path: Path) -> None:
    paths = [tmp_path / f"{order}.gguf" for order in ("big", "little")]
    for path in paths:
        gguf_forge.convert_checkpoint(MODEL, path, kind, endian=path.stem)
    if kind in BIG_ENDIAN:
        assert sha256(paths[0].read_bytes()).hexdigest() == BIG_ENDIAN[kind]
    with gguf_forge.open(paths[0]) as big, gguf_forge.open(paths[1]) as little:
        assert (big.endian, little.endian) == ("big", "little")
        for name, tensor in little.tensors.items():
            np.testing.assert_array_equal(big.tensors[name].dequantize(), tensor.dequantize())
