"""What `diff` finds between two models: every difference, no other, and how far apart values are."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gguf_forge
from gguf_forge import Edits, GGUFWriter, diff_files, edit_file, split_file
from gguf_forge.errors import LimitError
from gguf_forge.format import values
from gguf_forge.format.layout import Limits, ValueType
from gguf_forge.format.values import Value
from gguf_forge.whole import copying, diff
from tests.cli.conftest import Ended, Forge
from tests.format import strategies
from tests.format.test_roundtrip import write
from tests.whole.conftest import MODEL

TENSORS: dict[str, Any] = {
    "w": np.arange(64, dtype=np.float32).reshape(2, 32),
    "h": np.arange(5, dtype=np.float16),
    "i": np.arange(7, dtype=np.int32),
}


def make(
    path: Path, keys: dict[str, Any] | None = None, tensors: dict[str, Any] | None = None, **options: Any
) -> Path:
    with GGUFWriter(path, {"general.architecture": "llama", **(keys or {})}, **options) as out:
        for name, data in {**TENSORS, **(tensors or {})}.items():
            if data is not None:
                out.add_tensor(name, data)
    return path


@settings(max_examples=60)
@given(
    metadata=strategies.METADATA,
    tensors=strategies.tensors(),
    endian=st.sampled_from(["little", "big"]),
    alignment=st.sampled_from([32, 64]),
)
def test_a_file_and_its_set_do_not_differ(
    tmp_path_factory: pytest.TempPathFactory, metadata: dict[str, Value], tensors: Any, endian: str, alignment: int
) -> None:
    folder = tmp_path_factory.mktemp("same", numbered=True)
    write(folder / "a.gguf", metadata, tensors, endian, alignment)
    made = split_file(folder / "a.gguf", folder / "x", max_tensors=1)
    found = diff_files(folder / "a.gguf", made[0].path, values=True)
    # A set of one shows its keys: it is a file as any other.
    assert {key.key for key in found.keys} <= {"split.no", "split.count", "split.tensors.count"}
    assert (found.tensors, found.endian) == ([], None)
    assert len(made) == 1 or found.same


def test_order_and_layout_do_not_count(tmp_path: Path) -> None:
    a = make(tmp_path / "a.gguf", {"x": 1, "y": 2})
    with GGUFWriter(tmp_path / "b.gguf", {"y": 2, "x": 1, "general.architecture": "llama"}) as out:
        for name in reversed(TENSORS):
            out.add_tensor(name, TENSORS[name])
    found = diff_files(a, tmp_path / "b.gguf")
    assert found.same
    assert found.same_order == {"keys": False, "tensors": False}


def test_every_kind_of_difference_is_found(tmp_path: Path) -> None:
    words = [f"w{i}" for i in range(300)]
    a = make(tmp_path / "a.gguf", {"gone": 1, "typed": values.u8(1), "s": "old", "tokens": words, "same": math.nan})
    words[7], words[9] = "other", "another"
    b = make(
        tmp_path / "b.gguf",
        {"typed": values.u16(1), "s": "new", "tokens": [*words, "more"], "same": math.nan, "came": [1, 2]},
        {"w": TENSORS["w"] + np.float32(1), "h": TENSORS["h"].reshape(5, 1), "i": None, "n": np.zeros(3, np.int8)},
    )
    found = diff_files(a, b, values=True)
    assert not found.same
    keys = {key.key: key for key in found.keys}
    assert [*keys] == ["gone", "typed", "s", "tokens", "came"]
    assert (keys["gone"].new, keys["came"].old, keys["typed"].elements) == (None, None, None)
    assert keys["tokens"].elements == (3, 7)
    tensors = {tensor.name: tensor for tensor in found.tensors}
    assert [*tensors] == ["w", "h", "i", "n"]
    assert (tensors["w"].differs, tensors["w"].first_byte) == (["data"], 2)
    relative = math.sqrt(64 / float(np.sum(TENSORS["w"].astype(np.float64) ** 2)))
    assert tensors["w"].values == diff.Apart(1.0, relative, 1.0, 0)
    assert (tensors["h"].differs, tensors["h"].values) == (["shape"], None)
    assert (tensors["i"].new, tensors["n"].old) == (None, None)
    headers = diff_files(a, b, headers_only=True)
    assert [tensor.name for tensor in headers.tensors] == ["h", "i", "n"]


def test_values_of_types_are_as_far_apart_as_they_are(f16: Path, q4: Path) -> None:
    found = {t.name: t for t in diff_files(f16, q4, values=True).tensors}
    with gguf_forge.open(f16) as a, gguf_forge.open(q4) as b:
        assert {*found} == {name for name in a.tensors if a.tensors[name].type is not b.tensors[name].type}
        for name in ("output.weight", "blk.2.ffn_down.weight"):
            x, y = (file.tensors[name].dequantize().astype(np.float64) for file in (a, b))
            apart = found[name].values
            assert apart is not None
            assert apart.rmse == pytest.approx(np.sqrt(np.mean((y - x) ** 2)), rel=1e-9)
            assert apart.relative == pytest.approx(np.sqrt(np.sum((y - x) ** 2) / np.sum(x**2)), rel=1e-9)
            assert apart.largest == np.abs(y - x).max()
            assert found[name].differs == ["type"]


def test_what_is_not_finite_is_counted_and_left_out(tmp_path: Path) -> None:
    odd = TENSORS["w"].copy()
    odd[0, :3] = np.nan, np.inf, -1
    a, b = make(tmp_path / "a.gguf"), make(tmp_path / "b.gguf", tensors={"w": odd})
    (found,) = diff_files(a, b, values=True).tensors
    assert found.values is not None
    assert (found.values.nonfinite, found.values.largest) == (2, 3.0)
    zero = make(tmp_path / "z.gguf", tensors={"w": np.zeros_like(odd)})
    (found,) = diff_files(zero, a, values=True).tensors
    assert found.values is not None
    assert found.values.relative == math.inf


@pytest.mark.parametrize("piece", [8, 24, 1 << 20])
def test_pieces_do_not_matter(piece: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copying, "PIECE", piece)
    changed = TENSORS["w"].copy()
    changed[1, 31] = -1
    a, b = make(tmp_path / "a.gguf"), make(tmp_path / "b.gguf", tensors={"w": changed})
    (found,) = diff_files(a, b).tensors
    assert (found.name, found.first_byte) == ("w", 63 * 4 + 2)
    assert diff_files(a, make(tmp_path / "c.gguf")).same


def test_byte_orders(tmp_path: Path) -> None:
    keys = {"n": 5, "f": 0.5, "a": [1, 2], "s": ["x"]}
    a, b = make(tmp_path / "a.gguf", keys), make(tmp_path / "b.gguf", keys, endian="big")
    found = diff_files(a, b, values=True)
    assert (found.endian, found.keys, found.tensors) == (("little", "big"), [], [])
    c = make(tmp_path / "c.gguf", keys, {"w": TENSORS["w"] * np.float32(2)}, endian="big")
    (changed,) = diff_files(a, c, values=True).tensors
    assert (changed.first_byte, changed.differs) == (6, ["data"])
    for path, endian in ((tmp_path / "q.gguf", "little"), (tmp_path / "r.gguf", "big")):
        with GGUFWriter(path, endian=endian) as out:
            out.declare("q", (32,), "Q4_0")
            out.begin()
            out.write("q", b"\1\2" + b"\3" * 16)
    (swapped,) = diff_files(tmp_path / "q.gguf", tmp_path / "r.gguf", values=True).tensors
    assert (swapped.differs, swapped.first_byte) == (["data"], 0)
    edit_file(tmp_path / "q.gguf", tmp_path / "r.gguf", Edits(endian="big"))
    assert diff_files(tmp_path / "q.gguf", tmp_path / "r.gguf").tensors == []


def test_a_type_of_another_program(tmp_path: Path) -> None:
    a = make(tmp_path / "a.gguf")
    raw = a.read_bytes()
    at = raw.index(b"w", raw.index(b"llama")) + 1 + 4 + 2 * 8
    (tmp_path / "b.gguf").write_bytes(raw[:at] + (156).to_bytes(4, "little") + raw[at + 4 :])
    (found,) = diff_files(a, tmp_path / "b.gguf", values=True).tensors
    assert (found.name, found.differs, found.why) == ("w", ["type"], "a type that is not read")


def test_the_command_line(q4: Path, tmp_path: Path, forge: Forge) -> None:
    assert forge("diff", q4, q4) == Ended(0, "", "")
    template = tmp_path / "t.gguf"
    lines = "".join(f"line {i}\n" for i in range(20))
    gguf_forge.convert_checkpoint(MODEL, template, "Q4_K_M", metadata={"tokenizer.chat_template": lines})
    other = tmp_path / "u.gguf"
    gguf_forge.convert_checkpoint(
        MODEL, other, "Q4_0", metadata={"tokenizer.chat_template": lines.replace("12\n", "12 \x1b[31m\n")}
    )
    ended = forge("diff", template, other, "--data")
    assert ended.code == 1
    assert "\x1b" not in ended.out
    assert "+line 12 \\x1b[31m" in ended.out
    assert "Q4_K -> Q4_0" in ended.out
    assert "type: relative RMSE 0.0" in ended.out
    document = json.loads(forge("diff", template, other, "--json", "--headers").out)
    assert [key["key"] for key in document["keys"]] == ["tokenizer.chat_template", "general.file_type"]
    assert document["tensors"][0]["old"]["type"] in ("Q4_K", "Q6_K")
    assert (document["same"], document["compared"]) == (False, "headers")
    same = forge("diff", q4, q4, "--json")
    assert (same.code, json.loads(same.out)["same"]) == (0, True)
    for words in ([q4, tmp_path / "absent"], [q4, MODEL / "config.json"], [q4, q4, "--headers", "--data"], [q4]):
        trouble = forge("diff", *words)
        assert (trouble.code, trouble.out) == (2, "")
    with pytest.raises(LimitError):
        diff_files(q4, q4, limits=Limits(string_bytes=3))


def test_arrays_of_every_type(tmp_path: Path) -> None:
    nested = values.array(ValueType.ARRAY, [[1, 2], [3]])
    a = make(tmp_path / "a.gguf", {"n": nested, "b": [True], "f": [math.nan, 1.0]})
    b = make(
        tmp_path / "b.gguf",
        {"n": values.array(ValueType.ARRAY, [[1, 2], [4]]), "b": [False], "f": [math.nan, 2.0]},
    )
    assert [key.elements for key in diff_files(a, b).keys] == [(1, 1), (1, 0), (1, 1)]
