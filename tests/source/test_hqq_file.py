"""Models that hqq itself saved (qmodel.pt): a pickle of modules, read as data or refused."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import gguf_forge
from gguf_forge.errors import ForgeError, UnsafeInputError
from gguf_forge.source.checkpoint import open_checkpoint
from gguf_forge.source.packed import PackedTensor, unpacked
from tests.convert.stored_as import MODEL, Array, hqq, hqq_parts, store
from tests.source.containers import torch_zip

HQQ = Path(__file__).resolve().parents[2] / "fixtures/hqq"
TRUTH: dict[str, dict[str, Any]] = json.loads((HQQ / "truth.json").read_text())
MODULE = "model.layers.0.self_attn.k_proj"
CONFIG = {"architectures": ["LlamaForCausalLM"], "hidden_size": 64}


def _folder(case: str, into: Path) -> Path:
    into.mkdir(exist_ok=True)
    shutil.copy(HQQ / f"{case}.pt", into / "qmodel.pt")
    (into / "config.json").write_text(json.dumps(CONFIG))
    return into


@pytest.mark.parametrize("case", TRUTH)
def test_values_are_hqqs_to_the_bit(case: str, tmp_path: Path) -> None:
    with open_checkpoint(_folder(case, tmp_path)) as checkpoint:
        found = unpacked(checkpoint)
        assert sorted(found) == sorted(f"{n}.weight" for n in (MODULE, "lm_head", "model.layers.0.input_layernorm"))
        weight = found[f"{MODULE}.weight"]
        assert isinstance(weight, PackedTensor)
        assert list(weight.shape) == TRUTH[case]["shape"]
        assert hashlib.sha256(weight.read().tobytes()).hexdigest() == TRUTH[case]["sha256"]


@dataclass(frozen=True)
class _Global:
    """A name that is written as such."""

    module: str
    name: str


@dataclass(frozen=True)
class _Call:
    """A call that the pickle asks for."""

    what: _Global
    arguments: tuple[object, ...] = ()


@dataclass(frozen=True)
class _Storage:
    """What torch.save writes for a storage."""

    kind: str
    key: str
    count: int


def _pickled(value: object) -> bytes:
    """The opcodes that make a value."""
    match value:
        case None | True | False:
            return {None: b"N", True: b"\x88", False: b"\x89"}[value]
        case int():
            return b"\x8a" + bytes([9]) + value.to_bytes(9, "little", signed=True)
        case float():
            return b"G" + struct.pack(">d", value)
        case str():
            return b"X" + struct.pack("<I", len(value.encode())) + value.encode()
        case dict():
            return b"}(" + b"".join(_pickled(key) + _pickled(entry) for key, entry in value.items()) + b"u"
        case list():
            return b"](" + b"".join(map(_pickled, value)) + b"e"
        case tuple():
            return b"(" + b"".join(map(_pickled, value)) + b"t"
        case _Global():
            return f"c{value.module}\n{value.name}\n".encode()
        case _Call():
            return _pickled(value.what) + _pickled(value.arguments) + b"R"
        case _Storage():
            return _pickled(("storage", _Global("torch", value.kind), value.key, "cpu", value.count)) + b"Q"
    raise TypeError(type(value))


_KINDS = {"float32": "FloatStorage", "float16": "HalfStorage", "uint16": "BFloat16Storage", "uint8": "ByteStorage"}


def write_modules(path: Path, modules: Any) -> Path:
    """A file as torch.save makes it of dictionaries in which arrays stand for tensors."""
    members: dict[str, bytes] = {}

    def tensors(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: tensors(entry) for key, entry in value.items()}
        if not isinstance(value, np.ndarray):
            return value
        key = str(len(members))
        members[f"data/{key}"] = np.ascontiguousarray(value).tobytes()
        steps = tuple(int(s) // value.itemsize for s in np.ascontiguousarray(value).strides)
        storage, hooks = (
            _Storage(_KINDS[str(value.dtype)], key, value.size),
            _Call(_Global("collections", "OrderedDict")),
        )
        return _Call(_Global("torch._utils", "_rebuild_tensor_v2"), (storage, 0, value.shape, steps, False, hooks))

    return torch_zip(path, b"\x80\x02" + _pickled(tensors(modules)) + b".", members)


def modules_of(values: dict[str, Array], group: int = 64) -> dict[str, dict[str, Any]]:
    """What hqq saves of these weights: the projections with 4 bits along the inputs, the rest as floats."""
    modules: dict[str, dict[str, Any]] = {}
    for name, given_array in values.items():
        array, module = given_array, name.removesuffix(".weight")
        if not name.endswith("_proj.weight"):
            modules[module] = {"weight": array}
            continue
        if array.dtype == np.uint16:
            array = (array.astype(np.uint32) << 16).view(np.float32)
        codes, scale, zero = hqq_parts(array, group)
        said = {"nbits": 4, "group_size": group, "axis": 1, "packing": "4bit_u8", "view_as_float": False}
        said |= {"unpack_view_dtype": _Global("torch", "uint8"), "compute_dtype": _Global("torch", "float16")}
        shape = _Call(_Global("torch", "Size"), (tuple(array.shape),))
        modules[module] = {"W_q": codes, "scale": scale, "zero": zero, "shape": shape, "bias": None, **said}
    return modules


def test_a_whole_model_becomes_what_transformers_form_of_it_does(tmp_path: Path) -> None:
    """The same file of both forms, but for how it came."""
    source = store(tmp_path / "other", hqq())
    with open_checkpoint(MODEL) as checkpoint:
        values = {n: np.asarray(t.read()) for n, t in checkpoint.tensors.items()}
    folder = tmp_path / "own"
    shutil.copytree(MODEL, folder)
    (folder / "model.safetensors").unlink()
    write_modules(folder / "qmodel.pt", modules_of(values))
    plans = [gguf_forge.convert_checkpoint(path, path / "out.gguf", "auto")[0] for path in (source, folder)]
    assert [one.status for one in plans[1].imports] == [one.status for one in plans[0].imports] == ["code-exact"] * 42
    with gguf_forge.open(plans[0].path) as first, gguf_forge.open(plans[1].path) as second:
        for name, tensor in first.tensors.items():
            assert np.array_equal(tensor.dequantize(), second.tensors[name].dequantize()), name


def _small() -> dict[str, Any]:
    rng = np.random.default_rng(4)
    return modules_of({f"{MODULE}.weight": rng.random((8, 128), np.float32), "lm_head.weight": np.ones((4, 8), "f4")})


def _read(folder: Path) -> None:
    with open_checkpoint(folder) as checkpoint:
        for tensor in unpacked(checkpoint).values():
            assert tensor.read().shape == tensor.shape


def _refused(folder: Path, modules: Any) -> str:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    write_modules(folder / "qmodel.pt", modules)
    with pytest.raises(ForgeError) as caught:
        _read(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    "call",
    [
        _Call(_Global("os", "system"), ("true",)),
        _Call(_Global("builtins", "eval"), ("1",)),
        _Call(_Global("torch", "load"), ("x",)),
        _Call(_Global("hqq.core.quantize", "HQQLinear")),
        _Global("builtins", "exec"),
        _Call(_Global("torch", "uint8"), (3,)),
    ],
    ids=lambda call: str(getattr(call, "what", call).name),
)
def test_a_pickle_that_asks_for_code_is_refused(call: object, tmp_path: Path) -> None:
    for key in ("nbits", "W_q", "meta", "other"):
        modules = _small()
        modules[MODULE][key] = call
        message = _refused(tmp_path, modules)
        assert "nothing was run" in message, key
    write_modules(tmp_path / "qmodel.pt", call)
    with pytest.raises(UnsafeInputError):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"scale": None}, r"k_proj lacks scale"),
        ({"shape": None}, r"k_proj"),
        ({"shape": (8, 127)}, r"k_proj.W_q.*whole groups of 64"),
        ({"shape": (8, 2**40)}, r"k_proj.W_q"),
        ({"nbits": 9}, r"9 bits, axis 1 are not read"),
        ({"nbits": "4"}, r"k_proj"),
        ({"nbits": float("nan")}, r"k_proj"),
        ({"group_size": 32}, r"k_proj"),
        ({"group_size": -64}, r"k_proj"),
        ({"axis": 2}, r"4 bits, axis 2 are not read"),
        ({"packing": "4bit_u8", "W_q": np.zeros((8, 8), np.uint8)}, r"k_proj.W_q.*16 groups of 64"),
        ({"zero_q": np.zeros(4, np.uint8), "zero": None}, r"quantized themselves"),
        ({"other": [1]}, r"k_proj.other.*a list of a module is not read"),
        ({7: 1}, r"key 7 is not a string"),
    ],
)
def test_modules_that_contradict_themselves(change: dict[Any, Any], said: str, tmp_path: Path) -> None:
    modules = _small()
    modules[MODULE] |= change
    assert re.search(said, _refused(tmp_path, modules))


def test_what_is_no_dictionary_of_modules_is_refused(tmp_path: Path) -> None:
    assert "expected a module's dictionary" in _refused(tmp_path, {MODULE: np.zeros(4, np.float32)})
    assert "expected a dictionary" in _refused(tmp_path, [1])
    assert "is not a string" in _refused(tmp_path, {1: {}})


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_file_is_an_error_and_nothing_else(data: st.DataObject, tmp_path: Path) -> None:
    case = data.draw(st.sampled_from(sorted(TRUTH)))
    folder = _folder(case, tmp_path)
    raw = bytearray((folder / "qmodel.pt").read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    length = data.draw(st.one_of(st.just(len(raw)), st.integers(len(raw) // 2, len(raw))))
    (folder / "qmodel.pt").write_bytes(raw[:length])
    try:
        _read(folder)
    except ForgeError as error:
        assert "\n" not in str(error)  # noqa: PT017
