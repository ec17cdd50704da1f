"""`convert_checkpoint` and `quantize_file` at their edges: names, refusals, metadata, what is left behind."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from gguf_forge.convert.files import convert_checkpoint, quantize_file
from gguf_forge.convert.job import Quantization
from gguf_forge.errors import (
    CheckpointError,
    ConversionError,
    ForgeError,
    OutputError,
    QuantError,
    RecipeError,
    RequestError,
)
from gguf_forge.format import reader, values
from gguf_forge.format.writer import GGUFWriter
from gguf_forge.quant.overrides import parse_override

MODEL = Path(__file__).resolve().parents[2] / "fixtures" / "models" / "PyLlama-7M"


@pytest.fixture(scope="module")
def f32(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("f32") / "f32.gguf"
    convert_checkpoint(MODEL, path, "f32")
    return path


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A copy whose small files may be changed; the weights are the fixture's."""
    folder = tmp_path / "PyLlama-7M"
    folder.mkdir()
    for file in MODEL.iterdir():
        if file.suffix == ".safetensors":
            (folder / file.name).symlink_to(file)
        else:
            shutil.copy(file, folder / file.name)
    return folder


def test_default_name(checkpoint: Path) -> None:
    plans = convert_checkpoint(checkpoint, None, "f16,Q4_K_M", dry_run=True)
    assert [p.path for p in plans] == [checkpoint / "PyLlama-7M-F16.gguf", checkpoint / "PyLlama-7M-Q4_K_M.gguf"]
    assert not any(p.path.exists() for p in plans)


def test_weights_in_other_forms_beside_the_model_are_not_read_twice(checkpoint: Path) -> None:
    expected = convert_checkpoint(checkpoint, None, "f16", dry_run=True)
    weights = next(checkpoint.glob("model*.safetensors"))
    for name in ("consolidated.safetensors", "consolidated.00.pth", "pytorch_model.bin", "tokenizer.model.v3"):
        (checkpoint / name).write_bytes(b"not read" if name.endswith((".bin", ".pth", ".v3")) else weights.read_bytes())
    found = convert_checkpoint(checkpoint, None, "f16", dry_run=True)
    assert found[0].file == expected[0].file
    assert found[0].notes == ()


def test_names_in_a_folder_and_from_a_template(tmp_path: Path) -> None:
    (plan,) = convert_checkpoint(MODEL, tmp_path, "auto", dry_run=True)
    assert plan.path == tmp_path / "PyLlama-7M-BF16.gguf"
    (plan,) = convert_checkpoint(MODEL, tmp_path / "x-{ftype}-{FTYPE}.gguf", "q8_0", dry_run=True)
    assert plan.path == tmp_path / "x-q8_0-Q8_0.gguf"


@pytest.mark.parametrize(
    ("name", "types", "message"),
    [
        ("one.gguf", "f16,f32", r"f16 and f32 would be one file; name a folder, or put \{ftype\} in the name"),
        ("{ftype}.gguf", "q8_0,f16,Q8_0", "q8_0.gguf: q8_0 and Q8_0 would be one file; make them in two runs"),
        ("", "q8_0,Q8_0", "PyLlama-7M-Q8_0.gguf: q8_0 and Q8_0 would be one file; make them in two runs"),
        ("to-{ftype}.gguf", "Q4_0,Q4_1", "to-q4_1.gguf: Q4_0 and Q4_1 would be one file"),
    ],
)
def test_two_types_do_not_share_a_file(name: str, types: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "to-q4_1.gguf").symlink_to("to-q4_0.gguf")
    for dry_run in (True, False):
        with pytest.raises(RequestError, match=message):
            convert_checkpoint(MODEL, tmp_path / name, types, dry_run=dry_run)
    assert [p.name for p in tmp_path.iterdir()] == ["to-q4_1.gguf"]


def test_a_type_with_two_names_is_made_once(tmp_path: Path) -> None:
    plans = convert_checkpoint(MODEL, tmp_path, "auto,bf16,Q4_K,q4_k_m,Q4_K_M", dry_run=True)
    assert [p.path.name for p in plans] == ["PyLlama-7M-BF16.gguf", "PyLlama-7M-Q4_K_M.gguf"]


def test_dry_run_says_what_the_file_will_be(tmp_path: Path) -> None:
    (plan,) = convert_checkpoint(MODEL, tmp_path / "out.gguf", "Q4_K_M", dry_run=True)
    assert not plan.path.exists()
    (made,) = convert_checkpoint(MODEL, tmp_path / "out.gguf", "Q4_K_M")
    assert plan.file.size == made.file.size == made.path.stat().st_size
    assert plan.file.header == made.path.read_bytes()[: len(plan.file.header)]
    assert plan.bpw == pytest.approx(8 * (plan.file.size - plan.file.data_start) / 6_819_072, rel=1e-3)


def test_metadata_given_by_hand(tmp_path: Path, f32: Path) -> None:
    given_ = {"general.name": values.string("Other"), "my.key": values.u32(7)}
    (plan,) = convert_checkpoint(MODEL, tmp_path / "a.gguf", "f16", metadata=given_, dry_run=True)
    keys = list(plan.metadata)
    assert plan.metadata["general.name"].value == "Other"
    assert keys.index("general.name") < keys.index("llama.block_count") < keys.index("my.key")
    planned = quantize_file(f32, tmp_path / "b.gguf", "Q8_0", metadata=given_, dry_run=True)
    assert list(planned.metadata)[-4:] == [
        "general.quantization_version",
        "general.file_type",
        "general.name",
        "my.key",
    ]


@pytest.mark.parametrize("source", ["f16", "bf16", "q8_0"])
def test_copy_keeps_every_tensor(source: str, tmp_path: Path) -> None:
    convert_checkpoint(MODEL, tmp_path / "in.gguf", source)
    quantize_file(tmp_path / "in.gguf", tmp_path / "out.gguf", "copy")
    with reader.open(tmp_path / "in.gguf") as old, reader.open(tmp_path / "out.gguf") as new:
        assert new.metadata["general.file_type"] == old.metadata["general.file_type"]
        for name, tensor in old.tensors.items():
            assert new.tensors[name].type is tensor.type
            np.testing.assert_array_equal(new.tensors[name].data, tensor.data)


def test_bf16_source_quantizes_like_its_f32_form(tmp_path: Path, f32: Path) -> None:
    convert_checkpoint(MODEL, tmp_path / "bf16.gguf", "bf16")
    quantize_file(tmp_path / "bf16.gguf", tmp_path / "a.gguf", "Q5_K_M")
    quantize_file(f32, tmp_path / "b.gguf", "Q5_K_M")
    assert (tmp_path / "a.gguf").read_bytes() == (tmp_path / "b.gguf").read_bytes()


def test_quantizing_again_has_to_be_allowed(tmp_path: Path) -> None:
    convert_checkpoint(MODEL, tmp_path / "in.gguf", "q8_0")
    with pytest.raises(RecipeError, match=r"^quantized already.*output.weight \(Q8_0 to Q6_K\)"):
        quantize_file(tmp_path / "in.gguf", tmp_path / "out.gguf", "Q4_K_M")
    planned = quantize_file(tmp_path / "in.gguf", tmp_path / "out.gguf", "Q4_K_M", allow_requantize=True)
    assert planned.path.exists()


def test_shards_are_one_model(tmp_path: Path, f32: Path) -> None:
    with reader.open(f32) as file:
        tensors = list(file.tensors.values())
        halves = tensors[: len(tensors) // 2], tensors[len(tensors) // 2 :]
        for i, half in enumerate(halves):
            meta = {k: file.metadata.value(k) for k in file.metadata} if i == 0 else {}
            meta |= {
                "split.no": values.u16(i),
                "split.count": values.u16(2),
                "split.tensors.count": values.i32(len(tensors)),
            }
            with GGUFWriter(tmp_path / f"in-{i + 1:05}-of-00002.gguf", meta) as out:
                for tensor in half:
                    out.add_tensor(tensor.name, tensor.data, tensor.type)
    whole = quantize_file(f32, tmp_path / "whole.gguf", "Q4_0")
    for i in (1, 2):
        parts = quantize_file(tmp_path / f"in-{i:05}-of-00002.gguf", tmp_path / "parts.gguf", "Q4_0")
        assert parts.path.read_bytes() == whole.path.read_bytes()


def test_the_input_is_never_the_output(f32: Path) -> None:
    before = f32.read_bytes()
    with pytest.raises(OutputError, match="is the input"):
        quantize_file(f32, f32, "Q4_0")
    assert f32.read_bytes() == before


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "link.gguf"])
def test_a_file_of_the_checkpoint_is_never_the_output(checkpoint: Path, name: str) -> None:
    weights = checkpoint / "model.safetensors"
    before = weights.read_bytes()
    weights.unlink()
    weights.write_bytes(before)
    os.symlink(weights, checkpoint / "link.gguf")
    for dry_run in (True, False):
        with pytest.raises(OutputError, match="is the input"):
            convert_checkpoint(checkpoint, checkpoint / name, "Q4_0", dry_run=dry_run)
    assert weights.read_bytes() == before
    convert_checkpoint(checkpoint, checkpoint / "out.gguf", "Q4_0")
    convert_checkpoint(checkpoint, checkpoint / "out.gguf", "Q4_0")


def test_a_dry_run_needs_no_importance_matrix(f32: Path, tmp_path: Path) -> None:
    (plan,) = convert_checkpoint(MODEL, tmp_path / "a.gguf", "IQ2_XS", dry_run=True)
    assert "an importance matrix is needed for" in plan.notes[-1]
    planned = quantize_file(f32, tmp_path / "a.gguf", "IQ2_XS", dry_run=True)
    assert planned.file.size == plan.file.size
    for make in (lambda: convert_checkpoint(MODEL, tmp_path, "IQ2_XS"), lambda: quantize_file(f32, tmp_path, "IQ2_XS")):
        with pytest.raises(RecipeError, match="an importance matrix is needed for"):
            make()


def test_what_has_no_effect_is_noted(tmp_path: Path) -> None:
    how = Quantization(overrides=[parse_override("atn_v=Q8_0"), parse_override("attn_v=Q8_0")])
    outtype, named = convert_checkpoint(MODEL, tmp_path, "f16,Q4_K_M", quantization=how, dry_run=True)
    assert outtype.notes[-1].startswith("f16: an outtype")
    assert named.notes[-1] == "atn_v=Q8_0: matches no tensor"
    (plain,) = convert_checkpoint(MODEL, tmp_path, "f16", dry_run=True)
    assert plain.notes == ()


def test_tensors_of_another_width_than_configured_are_refused(checkpoint: Path) -> None:
    config = json.loads((checkpoint / "config.json").read_text())
    (checkpoint / "config.json").write_text(json.dumps({**config, "hidden_size": 512}))
    with pytest.raises(ConversionError, match=r"\[4096, 256\]: axis 1 is 256, must be 512 by llama.embedding_length"):
        convert_checkpoint(checkpoint, None, "f16", dry_run=True)


def test_axes_of_one_are_written_as_ggml_counts_axes(tmp_path: Path) -> None:
    shapes: dict[str, tuple[int, ...]] = {
        "blk.0.x.weight": (1, 64),
        "blk.0.y.weight": (1, 2, 64),
        "blk.0.z.weight": (2, 1, 64),
    }
    meta = {"general.architecture": values.string("llama"), "llama.block_count": values.u32(1)}
    with GGUFWriter(tmp_path / "in.gguf", meta) as writer:
        for name, shape in shapes.items():
            writer.add_tensor(name, np.ones(shape, np.float32))
    for kind in ("Q8_0", "COPY"):
        quantize_file(tmp_path / "in.gguf", tmp_path / "out.gguf", kind)
        with reader.open(tmp_path / "out.gguf") as file:
            found = {t.name: (t.shape, t.type.name) for t in file.tensors.values()}
        wide = "F32" if kind == "COPY" else "Q8_0"
        assert found == {
            "blk.0.x.weight": ((64,), "F32"),
            "blk.0.y.weight": ((2, 64), wide),
            "blk.0.z.weight": ((2, 1, 64), wide),
        }


def test_types_are_chosen_for_the_metadata_given_by_hand(tmp_path: Path, f32: Path) -> None:
    """As llama-quantize chooses them under `--override-kv llama.block_count=int:8`."""
    planned = quantize_file(
        f32, tmp_path / "out.gguf", "Q4_K_M", metadata={"llama.block_count": values.u32(8)}, dry_run=True
    )
    types = {c.name: c.type.name for c in planned.choices}
    found = [types[f"blk.{i}.ffn_down.weight"] for i in range(6)]
    assert found == ["Q6_K", "Q4_K", "Q4_K", "Q6_K", "Q4_K", "Q4_K"]


def test_overrides_and_fallback(tmp_path: Path, f32: Path) -> None:
    how = Quantization(overrides=[parse_override("attn_v=Q8_0")], output_tensor_type="q5_1", leave_output=False)
    planned = quantize_file(f32, tmp_path / "out.gguf", "Q4_K_S", quantization=how, dry_run=True)
    types = {c.name: c.type.name for c in planned.choices}
    assert types["blk.0.attn_v.weight"] == "Q8_0"
    assert types["output.weight"] == "Q5_1"
    assert types["blk.0.attn_q.weight"] == "Q4_K"


@pytest.mark.parametrize(
    ("types", "message"),
    [("", "no type given"), ("Q4_K_M,Q9", "unknown recipe 'Q9'"), ("IQ1_S", "importance matrix")],
)
def test_types_that_cannot_be_made(types: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=message):
        convert_checkpoint(MODEL, tmp_path / "{ftype}.gguf", types)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_left_of_a_conversion_that_fails(checkpoint: Path, tmp_path: Path) -> None:
    weights = (MODEL / "model.safetensors").read_bytes()
    (checkpoint / "model.safetensors").unlink()
    # BF16 NaN in the last tensor's last bytes.
    (checkpoint / "model.safetensors").write_bytes(weights[:-2] + b"\xff\x7f")
    out = tmp_path / "out"
    out.mkdir()
    (out / "old.gguf").write_bytes(b"old")
    convert_checkpoint(checkpoint, out / "f16.gguf", "f16")
    header = json.loads(weights[8 : 8 + int.from_bytes(weights[:8], "little")])
    last = max((k for k in header if k != "__metadata__"), key=lambda k: header[k]["data_offsets"][1])
    assert header[last]["shape"] == [256]  # a norm, which is never quantized
    with pytest.raises(QuantError, match=r'^tensor "output_norm.weight": NaN at row 0, column 255 \(--allow-nonfinite'):
        convert_checkpoint(checkpoint, out / "q4_0.gguf", "Q4_0")
    big = max(
        (k for k in header if k != "__metadata__"),
        key=lambda k: header[k]["data_offsets"][1] * (len(header[k]["shape"]) > 1),
    )
    at = 8 + int.from_bytes(weights[:8], "little") + header[big]["data_offsets"][0]
    (checkpoint / "model.safetensors").write_bytes(weights[:at] + b"\x80\x7f" + weights[at + 2 :])
    for path in out.glob("*.gguf"):
        path.unlink()
    (out / "old-Q4_0.gguf").write_bytes(b"old")
    with pytest.raises(ForgeError, match=r"NaN or infinity, found at row 0, column 0$"):
        convert_checkpoint(checkpoint, out / "old-{FTYPE}.gguf", "f16,Q4_0")
    assert [(p.name, p.read_bytes()) for p in out.iterdir()] == [("old-Q4_0.gguf", b"old")]


CONFIG = json.loads((MODEL / "config.json").read_text())
ODD: Any = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=5),
    st.lists(st.integers(0, 3), max_size=3),
    st.dictionaries(
        st.sampled_from(["rope_type", "type", "factor", "full_attention", "rope_theta"]), st.text(max_size=3)
    ),
)
KEYS = [
    *CONFIG,
    "rope_scaling",
    "rope_theta",
    "text_config",
    "num_local_experts",
    "n_layers",
    "scoring_func",
    "is_causal",
]


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(change=st.dictionaries(st.sampled_from(KEYS), ODD, min_size=1, max_size=3))
@example(change={"text_config": [1]})
@example(change={"rope_scaling": {"rope_type": "llama3", "factor": "x"}})
@example(change={"hidden_size": "wide", "head_dim": None})
@example(change={"num_hidden_layers": 2**63})
@example(change={"vocab_size": 2**40})
def test_no_configuration_breaks_out(change: dict[str, Any], checkpoint: Path) -> None:
    (checkpoint / "config.json").write_text(json.dumps({**CONFIG, **change}))
    with contextlib.suppress(ForgeError):
        convert_checkpoint(checkpoint, checkpoint / "out.gguf", "Q4_0", dry_run=True)


def test_a_configuration_without_an_architecture(checkpoint: Path) -> None:
    (checkpoint / "config.json").write_text("{}")
    with pytest.raises(ConversionError, match="names no architecture"):
        convert_checkpoint(checkpoint, checkpoint / "out.gguf", "f16")


def test_a_null_where_a_number_is_needed_is_said_in_the_words_of_json(checkpoint: Path) -> None:
    config = {key: value for key, value in CONFIG.items() if key != "head_dim"}
    (checkpoint / "config.json").write_text(json.dumps({**config, "hidden_size": None}))
    with pytest.raises(ConversionError, match=r"config.json: hidden_size is null$"):
        convert_checkpoint(checkpoint, checkpoint / "out.gguf", "f16")


@pytest.mark.parametrize(
    ("method", "refusal"),
    [
        ("gptq", r"model.layers.0.self_attn.q_pro lacks qzeros, scales"),
        ("aqlm", r"quantized by aqlm, which no GGUF type can hold and is not read: its weights are sums of codebook"),
        ("new", r"quantized by new \(as 'model.layers.0.self_attn.q_pro.qweight' shows\), which is not read"),
    ],
)
def test_weights_packed_so_that_they_cannot_be_read_are_refused(checkpoint: Path, method: str, refusal: str) -> None:
    weights = (MODEL / "model.safetensors").read_bytes()
    (checkpoint / "model.safetensors").unlink()
    (checkpoint / "model.safetensors").write_bytes(
        weights.replace(b'self_attn.q_proj.weight"', b'self_attn.q_pro.qweight"')
    )
    (checkpoint / "config.json").write_text(json.dumps({**CONFIG, "quantization_config": {"quant_method": method}}))
    with pytest.raises(CheckpointError, match=refusal):
        convert_checkpoint(checkpoint, checkpoint / "out.gguf", "f16")


def test_a_checkpoint_changed_meanwhile_gives_no_file(checkpoint: Path, tmp_path: Path) -> None:
    weights = checkpoint / "model.safetensors"
    data = weights.read_bytes()
    weights.unlink()
    weights.write_bytes(data)
    touched = False

    def touch(done: int, total: int) -> None:
        nonlocal touched
        if not touched:
            os.utime(weights, ns=(1, 1))
        touched = True

    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(ForgeError, match="changed"):
        convert_checkpoint(checkpoint, out / "{ftype}.gguf", "f16,q8_0", progress=touch, threads=1)
    assert list(out.iterdir()) == []
