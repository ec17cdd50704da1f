"""Which format a checkpoint is quantized in, and which of its tensors make one weight. Must not know the formats."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gguf_forge.errors import CheckpointError, escaped, listed
from gguf_forge.source.checkpoint import Checkpoint
from gguf_forge.source.packed import (
    awq,
    bitnet,
    bitsandbytes,
    compressed,
    exl2,
    fp8,
    gemma,
    gptq,
    hqq,
    mlx,
    modelopt,
    quanto,
    quark,
    torchao,
)
from gguf_forge.source.packed.form import AnyTensor, PackedTensor, require
from gguf_forge.source.packed.guard import guarded
from gguf_forge.source.tensor import SourceTensor

Parts = Mapping[str, SourceTensor]
Made = PackedTensor | Sequence[PackedTensor] | None
Make = Callable[[str, Parts, Mapping[str, Any]], Made]


@dataclass(frozen=True)
class Format:
    """A way of storing weights: the endings of a weight's tensors, and those of which there must be one of each set.

    `make(module, parts, settings)` gives the weight, or several; None where these tensors are a plain one after all.
    """

    endings: tuple[str, ...]
    needed: tuple[tuple[str, ...], ...]
    make: Make


def _fp8(module: str, parts: Parts, config: Mapping[str, Any]) -> PackedTensor | None:
    weight = parts["weight"]
    scale = next(parts[end] for end in ("weight_scale_inv", "weight_scale") if end in parts)
    if not weight.dtype.startswith("F8_"):
        return None
    # GPTQModel's weight_scale_inv divides (nn_modules/qlinear/fp8.py); everybody else's, of the same name, multiplies.
    told = {**(config.get("meta") or {}), **config}.get("weight_scale_semantics")
    require(told != "inverse", scale, "divides, as weight_scale_semantics says (inverse): such scales are not read")
    by_rows = config.get("quant_method") == "fbgemm_fp8" and weight.shape
    require(not by_rows or scale.size == weight.shape[0], scale, "must be a scale for each row")
    tile = fp8.tile_of(config.get("weight_block_size"))
    if len(weight.shape) == 2:
        rows, columns = tile or weight.shape
        tiles = -(-weight.shape[0] // rows) * -(-weight.shape[1] // columns)
        free = tile is None and "weight_block_size" not in config
        fits = free or scale.size == tiles or (tile is None and scale.size == weight.shape[0])
        require(fits, scale, f"the configuration says tiles of {list(tile) if tile else 'one scale'}")
    return fp8.scaled(module, weight, scale, method="FP8", tile=tile)


def _native(module: str, parts: Parts, config: Mapping[str, Any]) -> PackedTensor | None:
    weight = parts["weight"]
    return fp8.scaled(module, weight, parts["qscale_weight"], method="FP8") if weight.dtype.startswith("F8_") else None


def _metal(module: str, parts: Parts, config: Mapping[str, Any]) -> Made:
    """MLX's affine grids under transformers' names."""
    return mlx.packed(module, {"biases" if end == "qbiases" else end: tensor for end, tensor in parts.items()}, config)


_SCALED = (("weight",), ("weight_scale",))
GPTQ = Format(gptq.ENDINGS, (("qweight",), ("qzeros",), ("scales",)), gptq.packed)
AWQ = Format(awq.ENDINGS, (("qweight",), ("scales",), ("qzeros", "scaled_zeros")), awq.packed)
COMPRESSED = Format(compressed.ENDINGS, (("weight_packed", "weight"), ("weight_scale",)), compressed.packed)
FP8 = Format(
    ("weight", "weight_scale_inv", "weight_scale", "input_scale", "activation_scale", "input_scale_ub"),
    (("weight",), ("weight_scale_inv", "weight_scale")),
    _fp8,
)
NATIVE = Format(("weight", "qscale_weight", "qscale_act"), (("weight",), ("qscale_weight",)), _native)
BITSANDBYTES = Format(bitsandbytes.ENDINGS, (("weight",), ("weight.absmax", "SCB")), bitsandbytes.packed)
MLX = Format(mlx.ENDINGS, (("weight",), ("scales",)), mlx.packed)
METAL = Format(("weight", "scales", "qbiases"), (("weight",), ("scales",), ("qbiases",)), _metal)
GEMMA = Format(
    gemma.ENDINGS, (("weight", "embedding_quantized"), ("weight_scale", "embedding_scale")), gemma.packed
)
HQQ = Format(hqq.ENDINGS, (("W_q",), ("scale", "scale_q"), ("zero", "zero_q")), hqq.packed)
QUANTO = Format(quanto.ENDINGS, (("weight._data", "weight._data._data"), ("weight._scale",)), quanto.packed)
TORCHAO = Format(torchao.ENDINGS, (("_weight_qdata",), ("_weight_scale",)), torchao.packed)
QUARK = Format(quark.ENDINGS, _SCALED, quark.packed)
EXL2 = Format(exl2.ENDINGS, tuple((end,) for end in exl2.ENDINGS[:5]), exl2.packed)
BITNET = Format(bitnet.ENDINGS, (("weight",),), bitnet.packed)
MODELOPT = Format(modelopt.ENDINGS, _SCALED, modelopt.packed)

#: By the configuration's quant_method.
METHODS: Mapping[str, Format] = {
    "gptq": GPTQ,
    "awq": AWQ,
    "compressed-tensors": COMPRESSED,
    "fp8": FP8,
    "fbgemm_fp8": FP8,
    "bitsandbytes": BITSANDBYTES,
    "hqq": HQQ,
    "torchao": TORCHAO,
    "quark": QUARK,
    "exl2": EXL2,
    "bitnet": BITNET,
    "modelopt": MODELOPT,
    "mlx": MLX,
    "metal": METAL,
    "gemma": GEMMA,
    "mxfp8": FP8,
    "quanto": QUANTO,
    "mistral": NATIVE,
}
#: Recognised, and not read: why.
REFUSED: Mapping[str, str] = {
    "exl3": "its weights are paths through a trellis, rotated",
    "aqlm": "its weights are sums of codebook entries",
    "vptq": "its weights are codebook entries",
    "quip": "its weights are codebook entries, rotated",
    "quip_sharp": "its weights are codebook entries, rotated",
    "spqr": "its weights lie on two grids with outliers beside them",
    "higgs": "its weights are codebook entries, rotated",
    "eetq": "its codes are interleaved for one kernel",
    "vbq": "its weights are codebook entries",
    "fp_quant": "its weights are rotated",
    "sinq": "its scales run along both axes",
    "paroquant": "its weights are rotated",
}
#: Read by the rules of the families that have it.
OWN = ("mxfp4",)
_FORMS = (GPTQ, AWQ, COMPRESSED, FP8, NATIVE, BITSANDBYTES, HQQ, QUANTO, TORCHAO, EXL2, MODELOPT, METAL)
#: Element types that no weights have but quantized ones.
_CODES = ("I8", "U8", "U32", "F8_E4M3", "F8_E5M2")
#: Endings of names that only a quantized weight's tensors have.
_PLAIN = {".weight", ".scale", ".scales", ".zero"}
#: Endings of scales that only matter to who quantizes what goes into and out of a layer while the model runs.
_OF_ACTIVATIONS = tuple(f".{end}_scale" for end in ("input", "output", "prob_output", "q", "k", "v", "kv"))
_MARKS = tuple({f".{end}" for form in _FORMS for ends in form.needed for end in ends} - _PLAIN)


def unpacked(checkpoint: Checkpoint, keep: Iterable[str] = ()) -> dict[str, AnyTensor]:
    """The checkpoint's tensors by name, in its order, with each quantized weight under its plain name.

    Tensors named in `keep` stay what they are (a family's own rules read them). CheckpointError for a method that is
    not read, and where tensors disagree with each other or with the configuration.
    """
    settings = settings_of(checkpoint)
    if settings is None:
        return dict(checkpoint.tensors)
    method = str(settings.get("quant_method"))
    if method in REFUSED:
        raise CheckpointError(
            f"weights are quantized by {method}, which no GGUF type can hold and is not read: {REFUSED[method]}; "
            "convert the original checkpoint",
            path=checkpoint.path,
        )
    rotation = _rotation(settings)
    if rotation is not None:
        raise CheckpointError(
            f"quantization_config: {rotation} asks for rotations while the model runs, which llama.cpp has not",
            path=checkpoint.path,
        )
    form = _format(method, settings)
    if form is None:
        kept = frozenset(keep)
        packed = next((n for n, t in checkpoint.tensors.items() if n not in kept and _is_quantized(n, t)), None)
        if packed is not None and method not in OWN:
            raise CheckpointError(
                f"weights are quantized by {escaped(method, 40)} (as {packed!r} shows), which is not read; convert the "
                "original checkpoint",
                path=checkpoint.path,
            )
        return dict(checkpoint.tensors)
    return _gathered(checkpoint, form, settings, frozenset(keep))


def _rotation(settings: Mapping[str, Any]) -> str | None:
    """The setting by which inputs of layers are rotated while the model runs; None where none are.

    What is rotated in the weights alone, and in those before them, needs nothing: Quark's r1 and r2, unless online. Of
    GPTQModel, any rotation turns the inputs of down_proj (models/loader.py).
    """
    meta = settings.get("meta")
    if settings.get("rotation") or (isinstance(meta, dict) and meta.get("rotation")):
        return "rotation"
    for name in ("rotation_config", "spinquant_config"):
        if settings.get(name):
            return name
    said = settings.get("algo_config")
    steps: list[dict[str, Any]] = [s for s in (said if isinstance(said, list) else [said]) if isinstance(s, dict)]
    for step in steps:
        if step.get("name") in ("rotation", "quarot") and (step.get("r4") or step.get("online_r1_rotation")):
            return "algo_config"
    return None


def _is_quantized(name: str, tensor: SourceTensor) -> bool:
    """Whether a name, or a matrix's element type, is one that only quantized weights have."""
    return name.endswith(_MARKS) or (tensor.dtype in _CODES and len(tensor.shape) > 1 and name.endswith(".weight"))


def settings_of(checkpoint: Checkpoint) -> dict[str, Any] | None:
    """What the folder says of its quantization, under `quant_method`; None where it says nothing."""
    config = checkpoint.config
    found = config.get("quantization_config")
    parts = [part for part in config.values() if isinstance(part, dict)]
    found = found or next((p["quantization_config"] for p in parts if p.get("quantization_config")), None)
    mlx_said = config.get("quantization")
    if isinstance(mlx_said, dict) and "group_size" in mlx_said:
        return {**mlx_said, "quant_method": "mlx"}
    if isinstance(mlx_said, dict) and "qformat_weight" in mlx_said:
        return {**mlx_said, "quant_method": "mistral"}
    if checkpoint.modules:
        return {"quant_method": "hqq", "modules": checkpoint.modules}
    for name in ("quantize_config.json", "hf_quant_config.json") if found is None else ():
        beside = checkpoint.read_json(name)
        if beside is not None:
            found = {"quant_method": "gptq" if name.startswith("quantize") else "modelopt", **beside}
            break
    if found is None and checkpoint.read_json("quanto_qmap.json") is not None:
        found = {"quant_method": "quanto", "modules": checkpoint.read_json("quanto_qmap.json")}
    if found is None and any(name.endswith(".weight.absmax") for name in checkpoint.tensors):
        found = {"quant_method": "bitsandbytes"}
    if not isinstance(found, dict):
        return None
    if found.get("quant_method") is None and "quant_algo" in found:
        found = {**found, "quant_method": "modelopt"}
    hidden = config.get("hidden_size") or (config.get("text_config") or {}).get("hidden_size")
    header = {"header": checkpoint.metadata} if found.get("quant_method") == "torchao" else {}
    return {"hidden_size": hidden, **found, **header}


def _format(method: str, settings: Mapping[str, Any]) -> Format | None:
    packing = str(settings.get("packing_format") or "")
    if method == "auto-round":
        if any(word in packing for word in ("llm_compressor", "mx_fp", "nv_fp")):
            return COMPRESSED
        return AWQ if "awq" in packing else FP8 if "fp8" in packing else GPTQ
    return METHODS.get(method)


def _made(form: Format, module: str, parts: Parts, settings: Mapping[str, Any]) -> Made:
    """What the format makes of a weight's tensors. CheckpointError, too, where it stumbles over them."""
    for tensor in parts.values():
        require(tensor.strides is None and not tensor.big_endian, tensor, "must be stored row after row, little-endian")
    try:
        made = form.make(module, parts, settings)
        if made is None:
            return None
        return guarded(made) if isinstance(made, PackedTensor) else [guarded(one) for one in made]
    except (TypeError, ValueError, KeyError, IndexError, ArithmeticError, AttributeError) as error:
        shapes = listed(f"{end} {tensor.dtype} {list(tensor.shape)}" for end, tensor in parts.items())
        path = next(iter(parts.values())).file.path
        raise CheckpointError(
            f"{escaped(module)}: {shapes} are no weight of {escaped(str(settings.get('quant_method')), 40)}", path=path
        ) from error


def _gathered(
    checkpoint: Checkpoint, form: Format, settings: Mapping[str, Any], keep: frozenset[str]
) -> dict[str, AnyTensor]:
    """Tensors with those of each weight as one, at the place of the first of them."""
    modules: dict[str, dict[str, SourceTensor]] = {}
    place: dict[str, str] = {}
    endings = sorted(form.endings, key=len, reverse=True)
    for name, tensor in checkpoint.tensors.items():
        end = next((end for end in endings if name.endswith(f".{end}")), None)
        if end is not None and name not in keep:
            module = name.removesuffix(f".{end}")
            modules.setdefault(module, {})[end] = tensor
            place[name] = module
    made: dict[str, Sequence[PackedTensor]] = {}
    for module, parts in modules.items():
        if all(any(end in parts for end in ends) for ends in form.needed):
            weight = _made(form, module, parts, settings)
            if weight is not None:
                made[module] = [weight] if isinstance(weight, PackedTensor) else weight
        elif any(f".{end}" in _MARKS for ends in form.needed for end in ends if end in parts):
            lacking = listed("/".join(ends) for ends in form.needed if not any(end in parts for end in ends))
            raise CheckpointError(f"{escaped(module)} lacks {lacking}", path=checkpoint.path)
    found: dict[str, AnyTensor] = {}
    left = 0
    for name, tensor in checkpoint.tensors.items():
        module = place.get(name, "")
        if module in made:
            for weight in made[module]:
                found.setdefault(weight.name, weight)
        elif name.endswith(_OF_ACTIVATIONS) and name not in keep:
            left += 1
        elif name not in keep:
            found[name] = _beside(checkpoint, name, tensor, settings)
        else:
            found[name] = tensor
    paired = {name for name, tensor in found.items() if isinstance(tensor, PackedTensor)}
    scales = {f"{name}{end}" for name in paired for end in _SCALES}
    if left:
        checkpoint.notes.append(f"{left} scales of activations and caches are left out: llama.cpp has no use for them")
    return {name: tensor for name, tensor in found.items() if name not in scales}


#: What the scales of 8-bit floats that are no layer's `weight` are called, after their name.
_SCALES = ("_scale_inv", "_scale")
#: What families call them, in the place of `weight`, whose own rules multiply by them.
_OF_FAMILIES = ("scale", "scales")


def _beside(checkpoint: Checkpoint, name: str, tensor: SourceTensor, settings: Mapping[str, Any]) -> AnyTensor:
    """A stack of 8-bit floats with the scales that stand beside it; any other tensor as it is.

    CheckpointError for a matrix of 8-bit floats without any: they would be taken for the weights themselves.
    """
    module = name.removesuffix("weight")
    if any(f"{module}{end}" in checkpoint.tensors for end in _OF_FAMILIES):
        return tensor
    scale = next((checkpoint.tensors[name + end] for end in _SCALES if name + end in checkpoint.tensors), None)
    if not tensor.dtype.startswith(("F8_E4M3", "F8_E5M2")):
        return tensor
    require(scale is not None or len(tensor.shape) != 2, tensor, "8-bit floats need a scale beside them")
    if scale is None or len(tensor.shape) != 3:
        return tensor
    return guarded(fp8.stacked(name, tensor, scale, method="FP8", tile=fp8.tile_of(settings.get("weight_block_size"))))
