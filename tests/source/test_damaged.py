"""Quantized weights that are damaged: one line that names the tensor and the rule, or the same values; nothing else.

Every checkpoint of fixtures/packed, written by the format's own library, is damaged in one place: a tensor is missing,
has another shape or element type, is cut short, or holds a number that is none; or the configuration says something
else. What cannot matter may be overlooked: then the values must be those of the sound file.
"""

from __future__ import annotations

import copy
import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import gguf_forge
from gguf_forge.convert.imported import choose, pack
from gguf_forge.convert.origin import source_view
from gguf_forge.errors import ForgeError
from gguf_forge.source.checkpoint import open_checkpoint
from gguf_forge.source.dtypes import DTYPES
from gguf_forge.source.packed import PackedTensor, unpacked
from tests.convert.stored_as import MODEL
from tests.source.containers import safetensors_bytes

PACKED = Path(__file__).resolve().parents[2] / "fixtures/packed"
TRUTH: dict[str, dict[str, Any]] = json.loads((PACKED / "truth.json").read_text())
#: One for each way of storing.
CASES = (
    *("autoround-4b-g128-asym", "awq-gemm-g32", "awq-gemv-g64", "awq-gemvfast-g128", "bitnet-autobitlinear-offline"),
    *("bnb-fp4", "bnb-int8-bf16-qwen2", "bnb-nf4-dq", "ct-fp8-static", "ct-int3-g64-oldpack", "ct-int4-g128-asym"),
    *("ct-mxfp4a16", "ct-mxfp6a16", "ct-mxfp8a16", "ct-nvfp4", "ct-w8a8-int8", "exl2-mixed", "fbgemm-fp8"),
    *("fp8-block128-ragged", "fp8-block128-ue8m0", "fp8-pertensor-inv", "gptq-3b-g64-sym", "gptq-4b-g128-asym"),
    *("gptq-4b-g128-sym-actorder", "gptq-p-7b-g128-asym", "hqq-hf-3b-g64-ax1", "hqq-hf-4b-g64-ax1"),
    *("mlx-affine-4b-g64", "mlx-mxfp4", "mlx-mxfp8", "mlx-nvfp4", "modelopt-fp8", "modelopt-nvfp4", "quanto-int4"),
    *("quanto-int8", "quark-fp8-tensor", "quark-int4-channel", "quark-uint4-g128", "torchao-float8wo"),
    *("torchao-int4tensor-g128", "torchao-int8wo", "torchao-intx4-asym-g64"),
)
MODULE = "model.layers.0.self_attn.k_proj"
FLOATS = ("F32", "F16", "BF16")

Header = dict[str, Any]


class Stored:
    """A checkpoint of one weight: its tensors' headers and bytes, and its configuration."""

    def __init__(self, case: str) -> None:
        raw = (PACKED / case / "model.safetensors").read_bytes()
        size = int.from_bytes(raw[:8], "little")
        self.header: Header = json.loads(raw[8 : 8 + size])
        self.header.pop("__metadata__", None)
        data = raw[8 + size :]
        self.data = {n: bytearray(data[slice(*h["data_offsets"])]) for n, h in self.header.items()}
        self.config = json.loads((PACKED / case / "config.json").read_text())
        self.beside = [p for p in (PACKED / case).iterdir() if p.name not in ("config.json", "model.safetensors")]

    def write(self, folder: Path) -> Path:
        """The folder with these files."""
        folder.mkdir(exist_ok=True)
        at, header, data = 0, {}, b""
        for name, entry in self.header.items():
            header[name] = {**entry, "data_offsets": [at, at + len(self.data[name])]}
            at += len(self.data[name])
            data += self.data[name]
        (folder / "model.safetensors").write_bytes(safetensors_bytes(header, data))
        (folder / "config.json").write_text(json.dumps(self.config))
        for path in self.beside:
            shutil.copy(path, folder / path.name)
        return folder

    def resize(self, name: str, shape: list[int]) -> None:
        """Gives a tensor another shape, and as many of its bytes, or zeros after them."""
        entry = self.header[name]
        bits = DTYPES[entry["dtype"]].bits
        wanted = int(np.prod(shape, dtype=np.int64)) * bits // 8
        entry["shape"] = shape
        self.data[name] = (self.data[name] + bytes(wanted))[:wanted]


def outcome(folder: Path) -> tuple[str, str]:
    """ "values" and their hash, or "error" and its text. What is not read as a weight is left."""
    try:
        with open_checkpoint(folder) as checkpoint:
            found = unpacked(checkpoint)
            weight = found.get(f"{MODULE}.weight")
            if not isinstance(weight, PackedTensor):
                return "plain", ", ".join(found)
            view = source_view(weight)
            values = view.read()
            if view.stored is not None:
                made, choice = choose(view)
                if made.type is not None:
                    pack(view, choice, 0, view.count)
            if list(view.shape) != [128, 256]:
                return "another", f"a matrix {list(view.shape)}"  # which the model has no place for
            return "values", hashlib.sha256(np.ascontiguousarray(values, np.float32).tobytes()).hexdigest()
    except ForgeError as error:
        return "error", str(error)


def require_clean(case: str, folder: Path, what: str) -> None:
    """Fails unless the damage led to one line that names the module, or to the values of the sound file."""
    kind, text = outcome(folder)
    if kind == "values":
        assert text == TRUTH[case]["sha256"], f"{what}: other values, and no error"
    elif kind == "error":
        assert "\n" not in text, what
        assert "k_proj" in text or "quantization_config" in text or "config.json" in text, f"{what}: {text}"


def _names(case: str) -> list[str]:
    return sorted(Stored(case).header)


#: Of the many small tensors beside HQQ's codes those that are read.
_READ = ("W_q", "scale", "zero", "shape", "nbits", "axis", "group_size")
EACH = [
    (case, end)
    for case in CASES
    for end in (name.removeprefix(f"{MODULE}.") for name in _names(case))
    if not case.startswith("hqq") or end in _READ
]


@pytest.mark.parametrize(("case", "end"), EACH)
def test_a_tensor_that_is_missing(case: str, end: str, tmp_path: Path) -> None:
    stored = Stored(case)
    del stored.header[f"{MODULE}.{end}"]
    require_clean(case, stored.write(tmp_path / "model"), f"without {end}")


def _shapes(shape: list[int]) -> Iterator[list[int]]:
    if shape:
        yield [*shape[:-1], shape[-1] // 2]
        yield [*shape[:-1], shape[-1] + 1]
        yield [*shape[:-1], 0]
        yield [shape[0] // 2, *shape[1:]]
        yield [shape[0] * 2, *shape[1:]]
        yield [0, *shape[1:]]
        yield shape[::-1]
        yield [1, *shape]
        yield [int(np.prod(shape))]
    yield [*shape, 2]
    yield []


@pytest.mark.parametrize(("case", "end"), EACH)
def test_a_tensor_of_another_shape(case: str, end: str, tmp_path: Path) -> None:
    name = f"{MODULE}.{end}"
    for shape in _shapes(Stored(case).header[name]["shape"]):
        stored = Stored(case)
        one = end == "_weight_scale" and not shape  # of torchao's, which may have one for all
        if shape != stored.header[name]["shape"] and not one:
            stored.resize(name, shape)
            require_clean(case, stored.write(tmp_path / "model"), f"{end} {shape}")


OTHERS = ("F32", "BF16", "I64", "I32", "I16", "I8", "F8_E4M3", "F64")


@pytest.mark.parametrize(("case", "end"), EACH)
def test_a_tensor_of_other_elements(case: str, end: str, tmp_path: Path) -> None:
    """16-bit floats of the two kinds, and whole numbers with and without a sign, no header can tell from each other."""
    name = f"{MODULE}.{end}"
    for dtype in OTHERS:
        stored = Stored(case)
        entry = stored.header[name]
        was = entry["dtype"]
        one = not entry["shape"] and {dtype, was} <= {"F32", "BF16", "F64"}
        if one or dtype == was or {dtype, was} in ({"F16", "BF16"}, {"I8", "U8"}, {"U8", "BOOL"}, {"U8", "F8_E8M0"}):
            continue
        bits = DTYPES[dtype].bits
        count = len(stored.data[name]) * 8 // bits
        if not entry["shape"] or bits == DTYPES[was].bits:
            shape = entry["shape"]
        elif entry["shape"][-1] * DTYPES[was].bits % bits:
            continue
        else:
            shape = [*entry["shape"][:-1], entry["shape"][-1] * DTYPES[was].bits // bits]
        if count == 0:
            continue
        entry["dtype"] = dtype
        stored.resize(name, shape)
        require_clean(case, stored.write(tmp_path / "model"), f"{end} {dtype}")


_NOT_FINITE: dict[str, tuple[bytes, ...]] = {
    "F32": (b"\0\0\xc0\x7f", b"\0\0\x80\xff"),
    "F16": (b"\0\x7e", b"\0\x7c"),
    "BF16": (b"\xc0\x7f", b"\x80\xff"),
}
_NOT_FINITE |= {"F8_E4M3": (b"\x7f", b"\xff"), "F8_E8M0": (b"\xff",)}
#: Floats that do not make the values: what a model does with activations.
_UNUSED = ("input_scale", "output_scale", "input_scale_ub", "input_global_scale")


@pytest.mark.parametrize(("case", "end"), [(c, e) for c, e in EACH if e not in _UNUSED])
def test_a_number_that_is_none(case: str, end: str, tmp_path: Path) -> None:
    name = f"{MODULE}.{end}"
    dtype = Stored(case).header[name]["dtype"]
    bits = _NOT_FINITE.get(dtype, ())
    if case in _EXPONENTS and dtype == "U8" and "scale" in end:
        bits = (b"\xff",)
    if end == "W_q" or (end == "weight" and case.endswith("storage-bf16")):
        return
    for pattern in bits:
        stored = Stored(case)
        data = stored.data[name]
        data[: len(pattern)] = pattern
        kind, text = outcome(stored.write(tmp_path / "model"))
        assert kind == "error", f"{end} {pattern!r}: {kind}"
        assert "\n" not in text
        assert "k_proj" in text
        assert "finite" in text or "number" in text, text


_EXPONENTS = ("ct-mxfp4a16", "ct-mxfp6a16", "ct-mxfp8a16", "mlx-mxfp4", "mlx-mxfp8")


def _whole(stored: Stored, folder: Path) -> Path:
    """A model of one layer, of which one projection is stored so and the rest is that of fixtures/."""
    wanted = ("model.embed_tokens.", "model.norm.", "model.layers.0.")
    with open_checkpoint(MODEL) as checkpoint:
        for name, tensor in checkpoint.tensors.items():
            if name.startswith(wanted) and name != f"{MODULE}.weight":
                stored.header[name] = {"dtype": tensor.dtype, "shape": list(tensor.shape)}
                stored.data[name] = bytearray(tensor.file.read(tensor.offset, tensor.nbytes))
    config = json.loads((MODEL / "config.json").read_text()) | {"num_hidden_layers": 1, "tie_word_embeddings": True}
    stored.config = {**config, **{k: v for k, v in stored.config.items() if k.startswith("quantization")}}
    stored.write(folder)
    for name in ("tokenizer.model", "tokenizer_config.json"):
        shutil.copy(MODEL / name, folder / name)
    return folder


#: Of each case a tensor without which there is no weight.
_NEEDED = (
    *("qweight", "weight_scale", "W_q", "q_scale", "weight_scale_inv", "scales", "weight.quant_map", "_weight_scale"),
    *("weight._scale", "SCB"),
)


@pytest.mark.long
@pytest.mark.parametrize("case", CASES)
def test_nothing_is_written_of_a_damaged_model(case: str, tmp_path: Path) -> None:
    """Sound, it becomes a file; without a tensor, with one cut short, or with a number that is none, it does not."""
    out = tmp_path / "out"
    out.mkdir()
    (made,) = gguf_forge.convert_checkpoint(_whole(Stored(case), tmp_path / "sound"), out / "sound.gguf", "auto")
    assert made.path.exists()
    made.path.unlink()
    end = next(end for end in _NEEDED if f"{MODULE}.{end}" in Stored(case).header)
    name = f"{MODULE}.{end}"
    for how in ("missing", "cut", "no number"):
        stored = Stored(case)
        entry = stored.header[name]
        patterns = _NOT_FINITE.get(entry["dtype"], ())
        if how == "missing":
            del stored.header[name]
        elif how == "cut":
            stored.data[name] = stored.data[name][: len(stored.data[name]) // 2]
        elif patterns:
            stored.data[name][: len(patterns[0])] = patterns[0]
        else:
            continue
        with pytest.raises(ForgeError) as caught:
            gguf_forge.convert_checkpoint(_whole(stored, tmp_path / how), out / "model.gguf", "auto")
        assert "\n" not in str(caught.value)
        assert not list(out.iterdir())


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where numbers, words and switches stand in a configuration."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        if key not in ("meta", "ignore", "input_activations", "kv_cache_config"):
            yield from _places(inner, (*path, key))
    if not isinstance(value, (dict, list)) and path:
        yield path


def _set(config: Any, path: tuple[Any, ...], value: Any) -> None:
    for key in path[:-1]:
        config = config[key]
    config[path[-1]] = copy.deepcopy(value)


ODD: tuple[Any, ...] = (None, 0, "none", {"a": 1})


@pytest.mark.long
@pytest.mark.parametrize("case", CASES)
def test_a_configuration_that_is_odd(case: str, tmp_path: Path) -> None:
    """Whatever stands in it: an error, or values (of which many settings decide nothing)."""
    whole = Stored(case).config
    for part in ("quantization_config", "quantization"):
        for path in _places(whole.get(part)):
            for odd in ODD:
                stored = Stored(case)
                _set(stored.config[part], path, odd)
                kind, text = outcome(stored.write(tmp_path / "model"))
                assert kind != "error" or "\n" not in text


@pytest.mark.long
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damage_of_any_kind_is_an_error_or_values(data: st.DataObject, tmp_path: Path) -> None:
    stored = Stored(data.draw(st.sampled_from(CASES)))
    for _ in range(data.draw(st.integers(1, 3))):
        name = data.draw(st.sampled_from(sorted(stored.header)))
        entry = stored.header[name]
        how = data.draw(st.sampled_from(["bytes", "shape", "dtype", "missing", "config"]))
        if how == "bytes" and stored.data[name]:
            for _ in range(data.draw(st.integers(1, 8))):
                stored.data[name][data.draw(st.integers(0, len(stored.data[name]) - 1))] = data.draw(
                    st.integers(0, 255)
                )
        elif how == "shape":
            sizes = st.sampled_from([0, 1, 2, 3, 4, 8, 16, 31, 32, 64, 128, 255, 256, 300, 512])
            stored.resize(name, data.draw(st.lists(sizes, max_size=3)))
        elif how == "dtype":
            entry["dtype"] = data.draw(st.sampled_from(OTHERS))
            stored.resize(name, entry["shape"])
        elif how == "missing" and len(stored.header) > 1:
            del stored.header[name]
        elif how == "config":
            part = next((p for p in ("quantization_config", "quantization") if p in stored.config), None)
            places = list(_places(stored.config[part])) if part else []
            if places:
                odd = data.draw(st.sampled_from(ODD))
                _set(stored.config[part], data.draw(st.sampled_from(places)), odd)
    kind, text = outcome(stored.write(tmp_path / "model"))
    assert kind != "error" or "\n" not in text
