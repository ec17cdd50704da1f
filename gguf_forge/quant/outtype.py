"""The types convert_hf_to_gguf.py stores under its own outtypes, without llama-quantize after it.

Knows GGUF names and shapes; the table of what stays F32 is that of conversion/base.py (prepare_tensors). A family's own
exceptions come as `forced`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from gguf_forge.errors import RecipeError
from gguf_forge.quant.reasons import USUAL
from gguf_forge.quant.recipe import Choice, Recipe, TensorSpec, recipe
from gguf_forge.types import TensorType, tensor_type

#: The converter's outtypes. `auto` becomes f16 or bf16 by `auto_outtype`.
OUTTYPES = ("f32", "f16", "bf16", "q8_0", "tq1_0", "tq2_0", "auto")

#: Weights that stay F32 under every outtype.
_F32_WHOLE = ("position_embd", "token_types", "v.position_embd", "a.position_embd")
_F32_IN_LAYERS = (
    "ffn_gate_inp",
    "ffn_gate_inp_shexp",
    "ssm_conv1d",
    "ssm_conv1d_q",
    "ssm_conv1d_k",
    "ssm_conv1d_v",
    "shortconv.conv",
    "time_mix_first",
    "time_mix_w1",
    "time_mix_w2",
    "time_mix_decay_w1",
    "time_mix_decay_w2",
    "time_mix_lerp_fused",
    "altup_correct_coef",
    "altup_predict_coef",
    "indexer.proj",
)
_F32 = re.compile(
    rf"({'|'.join(map(re.escape, _F32_WHOLE))}"
    rf"|blk\.\d+\.({'|'.join(map(re.escape, _F32_IN_LAYERS))})"
    r"|posnet\.\d+\.norm[12])\.weight"
)
#: Weights that are F16 under the ternary outtypes.
_F16_IF_TERNARY = re.compile(r"(token_embd|per_layer_token_embd|output|blk\.\d+\.(altup_router|laurel_[lr]))\.weight")


def auto_outtype(stored: Iterable[tuple[str, int]]) -> str:
    """The outtype for `auto`, from (stored dtype, dimensions) of a checkpoint's tensors in the converter's order.

    The first tensor of two or more dimensions that is BF16 or F16 decides; without one it is f16.
    """
    for dtype, dimensions in stored:
        if dimensions >= 2 and dtype in {"BF16", "F16"}:
            return dtype.lower()
    return "f16"


def outtype_recipe(outtype: str) -> Recipe:
    """The recipe whose number the converter writes as file type. Raises RecipeError for `auto` and unknown outtypes."""
    if outtype.lower() not in OUTTYPES or outtype.lower() == "auto":
        raise RecipeError(f"{outtype!r} is no outtype; known: {', '.join(OUTTYPES[:-1])}")
    return recipe(outtype)


def choose_outtype(spec: TensorSpec, outtype: str, forced: TensorType | bool = False) -> Choice:
    """The type the converter stores a tensor in, under an outtype other than `auto`.

    forced: a family's answer for this tensor: a type, True (the outtype's type even where F32 is the rule), or False
    (the rules decide). A single dimension and norms are F32 in any case, and so is everything but weights.
    """
    wanted, reason = _wanted(spec, outtype_recipe(outtype), forced)
    got = wanted
    if spec.shape and spec.shape[-1] % wanted.block_size:
        got = tensor_type("F16")
        reason = f"width {spec.shape[-1]} is no multiple of {wanted.block_size}, the block of {wanted}"
    return Choice(spec.name, spec.shape, spec.type, got, wanted, reason)


def converter_type(name: str, shape: tuple[int, ...], outtype: str, forced: TensorType | bool = False) -> TensorType:
    """The type of `choose_outtype`, for a GGUF name and a shape in NumPy order."""
    return choose_outtype(TensorSpec(name, shape, tensor_type("F32")), outtype, forced).type


def _wanted(spec: TensorSpec, which: Recipe, forced: TensorType | bool) -> tuple[TensorType, str]:
    f32 = tensor_type("F32")
    # Axes as NumPy counts them: (1, n) is two-dimensional here, though not in llama-quantize.
    if len(spec.shape) <= 1:
        return f32, "one-dimensional"
    if spec.name.endswith("_norm.weight"):
        return f32, "norm"
    if not isinstance(forced, bool):
        return forced, "given by the family"
    if not forced:
        if not spec.name.endswith((".weight", ".lora_a", ".lora_b")):
            return f32, "not a weight"
        if _F32.fullmatch(spec.name):
            return f32, "always F32"
        if which.name in {"TQ1_0", "TQ2_0"} and _F16_IF_TERNARY.fullmatch(spec.name):
            return tensor_type("F16"), "embedding or output"
    return which.default, USUAL
