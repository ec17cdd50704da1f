"""Weights of few bits beside their scales: what becomes of their bytes, and of the types of files that hold them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gguf_forge
from gguf_forge.convert.facts import Facts
from gguf_forge.convert.job import FILE_TYPE_KEY, Job, Quantization, Wanted
from gguf_forge.convert.model import Model
from gguf_forge.convert.packed import PACK_MXFP4, SCALED
from gguf_forge.convert.view import View, changed, of_array
from gguf_forge.errors import ConversionError
from gguf_forge.format.values import string, u32
from gguf_forge.types import tensor_type

FACTS = Facts({}, Path())
RANDOM = np.random.default_rng(4)
#: The values of E2M1, a float of four bits, by its code (OCP Microscaling Formats, 5.3.3).
E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6], np.float32)


def stored(name: str, values: np.ndarray[Any, Any], kind: str = "I16") -> View:
    """Bytes as a file holds them."""
    flat = values.reshape(-1, values.shape[-1])
    return View(
        name, values.shape, tensor_type(kind), lambda a, b: flat[a:b].astype(np.int16), raw=lambda a, b: flat[a:b]
    )


def codes_and_scales(*shape: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Codes (*shape, 16) and scales, exponents that float32 has, of `shape`."""
    return RANDOM.integers(0, 256, (*shape, 16), np.uint8), RANDOM.integers(60, 190, shape, np.uint8)


def meant(codes: np.ndarray[Any, Any], scales: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The floats they stand for, (*leading axes, elements): element 2 i in the low half of byte i."""
    values = E2M1[np.stack((codes & 15, codes >> 4), axis=-1)].reshape(*scales.shape, 32)
    scaled: np.ndarray[Any, Any] = np.multiply(values, np.exp2(scales.astype(np.float32) - 127)[..., None])
    return scaled.reshape(*scales.shape[:-1], -1)


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("kind", ["I8", "I16"])
def test_packed_blocks_decode_to_what_codes_and_scales_mean(split: bool, kind: str) -> None:
    codes, scales = codes_and_scales(2, 5, 3)
    given = codes if split else codes.reshape(2, 5, 48)
    (made,) = PACK_MXFP4.views([stored("codes", given, kind), stored("scales", scales, "F32")], FACTS)
    assert (made.shape, made.type.name) == ((2, 5, 96), "MXFP4")
    assert np.array_equal(gguf_forge.dequantize(made.read(), "MXFP4"), meant(codes, scales))
    assert np.array_equal(made.rows(3, 8), made.read().reshape(10, -1)[3:8])


def test_packed_blocks_turn_back_into_codes_and_scales() -> None:
    sources = [codes_and_scales(5, 3), codes_and_scales(5, 3)]
    codes = [stored(f"codes{i}", c.reshape(5, 48)) for i, (c, _) in enumerate(sources)]
    scales = [stored(f"scales{i}", s) for i, (_, s) in enumerate(sources)]
    made = PACK_MXFP4.views([*codes, *scales], FACTS)
    back = PACK_MXFP4.undo(made, [*codes, *scales], FACTS)
    for view, source in zip(back, [*codes, *scales], strict=True):
        assert np.array_equal(view.read(), source.read())
    split = stored("codes", sources[0][0])
    (rows, _) = PACK_MXFP4.undo(made[:1], [split, scales[0]], FACTS)
    assert np.array_equal(rows.rows(4, 11), split.rows(4, 11))


def test_scales_that_are_no_numbers_are_named() -> None:
    codes, scales = codes_and_scales(4, 2)
    scales[2, 1] = 255
    (made,) = PACK_MXFP4.views([stored("codes", codes), stored("scales", scales)], FACTS)
    with pytest.raises(ConversionError, match="scales: an exponent of 255 is no number"):
        made.read()


def test_codes_without_their_scales_are_named() -> None:
    codes, scales = codes_and_scales(4, 2)
    wide = stored("codes", codes.reshape(4, 32))
    with pytest.raises(ConversionError, match=r"codes \[4, 32\]: scales \[4, 1\] must have a scale for each 16"):
        PACK_MXFP4.views([wide, stored("scales", scales[:, :1])], FACTS)
    with pytest.raises(ConversionError, match="1 tensors are not codes and as many scales"):
        PACK_MXFP4.views([wide], FACTS)
    with pytest.raises(ConversionError, match=r"codes: codes of four bits .* must be bytes, not BF16"):
        PACK_MXFP4.views([changed(wide, type=tensor_type("BF16")), stored("scales", scales)], FACTS)
    with pytest.raises(ConversionError, match="codes: codes of four bits and their scales must be bytes"):
        PACK_MXFP4.views([stored("codes", codes.reshape(4, 32).astype(np.int16)), stored("s", scales)], FACTS)[0].read()


def test_matrices_are_multiplied_by_the_scale_of_each_block() -> None:
    matrix = RANDOM.standard_normal((300, 140)).astype(np.float32)
    scale = np.array([[1, 2], [4, 0.5], [0.25, 8]], np.float32)
    pair = [of_array("w", matrix), changed(of_array("s", scale), name="s")]
    (made,) = SCALED.views([changed(pair[0], name="w"), pair[1]], FACTS)
    expected = matrix * np.repeat(np.repeat(scale, 128, axis=0)[:300], 128, axis=1)[:, :140]
    assert np.array_equal(made.read(), expected)
    assert np.array_equal(made.rows(120, 260), expected[120:260])
    with pytest.raises(ConversionError, match=r"s \[3, 2\]: w has \[2, 2\] blocks of 128"):
        SCALED.views([changed(of_array("w", matrix[:256]), name="w"), pair[1]], FACTS)
    assert SCALED.views([pair[0], pair[0]], FACTS) == [pair[0]]


def model(file_type: int = 0) -> Model:
    """One tensor of packed blocks, one of floats, one of whole numbers."""
    codes, scales = codes_and_scales(2, 4, 8)
    (packed,) = PACK_MXFP4.views([stored("c", codes), stored("s", scales)], FACTS)
    floats = of_array("w", RANDOM.standard_normal((4, 256)).astype(np.float32))
    views = [
        changed(packed, name="blk.0.ffn_down_exps.weight"),
        changed(floats, name="blk.0.attn_q.weight"),
        changed(floats, name="blk.0.ffn_gate_tid2eid.weight", type=tensor_type("I32")),
    ]
    metadata = {"general.architecture": string("deepseek4"), "deepseek4.block_count": u32(1)}
    return Model(views, {**metadata, FILE_TYPE_KEY: u32(file_type)})


@pytest.mark.parametrize(
    ("outtype", "own", "file_type"),
    [("f32", 0, 38), ("f16", 0, 38), ("bf16", 0, 38), ("q8_0", 0, 7), ("q8_0", 38, 38), ("tq1_0", 0, 36)],
)
def test_the_file_type_tells_of_packed_blocks_among_floats(outtype: str, own: int, file_type: int) -> None:
    job = Job.of_type(Wanted(outtype), model(own), Quantization(), dry_run=True)
    assert job.metadata[FILE_TYPE_KEY].value == file_type
    assert [choice.type.name for choice in job.choices][::2] == ["MXFP4", "I32"]


@pytest.mark.parametrize(("recipe", "kind"), [("Q4_K_M", "Q4_K"), ("Q8_0", "Q8_0"), ("MXFP4_MOE", "Q8_0")])
def test_recipes_leave_packed_blocks_and_whole_numbers(recipe: str, kind: str) -> None:
    job = Job.of_type(Wanted(recipe), model(), Quantization(overrides=["exps=Q6_K"]), dry_run=True)
    types = {choice.name.split(".")[2]: (choice.source.name, choice.type.name) for choice in job.choices}
    assert types["ffn_down_exps"] == ("MXFP4", "MXFP4")
    assert types["ffn_gate_tid2eid"] == ("I32", "I32")
    assert types["attn_q"] == ("F32", kind)
    assert [note for note in job.notes if re.search("1 tensors are stored as MXFP4, and keep their bits", note)]
