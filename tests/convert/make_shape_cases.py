"""Makes shapes.json.xz: for every architecture, headers that llama.cpp loads, whose sizes all differ.

`python -m tests.convert.make_shape_cases OUT.json.xz` in an environment with `xllamacpp`. Metadata is drawn, llama.cpp
says which tensors it would look for and of what shapes, and each file of those is loaded: as it is, and with every axis
of every kind of tensor one longer and one shorter. What is kept: the keys, the tensors that loaded, and those changes
that llama.cpp takes nevertheless.
"""

from __future__ import annotations

import json
import lzma
import random
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gguf_forge.convert.shape_exceptions import SHAPES_OF
from gguf_forge.convert.shape_table import COMMON
from gguf_forge.convert.shapes import length_of, row_of
from gguf_forge.convert.sizes import Basis
from gguf_forge.format.values import Value
from tests.convert.llama_cpp import Loader
from tests.convert.shape_cases import Keys, Shapes, cuts, values_of, write

LAYERS = 4
#: Architectures whose layers without key and value heads are recurrent; in the latter those feed forward too.
HYBRID = {"jamba", "kimi-linear", "kimi-k3", "glm5-next", "bailingmoe3", "granitehybrid", "plamo2", "lfm2", "lfm2moe"}
SPARSE = ("nemotron_h", "nemotron_h_moe")
#: Architectures with numbers of heads by the layer, or always with a list of the layers that slide.
BY_LAYER = {"deci", "dots3note", "gemma-embedding2", "gemma4", "gemma4-assistant", "laguna", "llama", "mimo2"}
BY_LAYER |= {"openelm", "plamo3", "spark2_5", "step35"}
LISTED = {"dflash", "dots3note", "gemma4", "gemma4-assistant", "granite_swa", "maple", "mimo2", "spark2_5", "step35"}
#: Architectures whose heads are of one size for keys and values, and those whose heads turn as a whole.
EVEN = {"gemma4", "gemma4-assistant", "gemma-embedding2", "lfm2", "lfm2moe"}
WHOLE = {"llama", "llama-embed", "deci", "falcon"}
WITHOUT_MTP = {"graniteswitch", "nanbeige", "hrm_text", "gemma4-assistant"}


def drawn(arch: str, seed: int) -> Keys:
    """Keys of an architecture: odd seeds have arrays where layers differ."""
    rng = random.Random(f"{arch} {seed}")
    n = rng.randint
    keys: Keys = {"general.architecture": arch, "tokenizer.ggml.model": "none", "tokenizer.ggml.token_type_count": 3}
    own: Keys = {**_layers(arch, rng, seed % 2 == 1), **_fixed()}
    embd, rot = own["embedding_length"], own["rope.dimension_count"]
    predicting = own.get("nextn_predict_layers", 0)
    own |= {name: n(10, 60) for name in _FREE}
    own |= {name: rot + n(3, 9) for name in ("attention.key_length_mla", "attention.key_length_mla_swa")}
    own |= {"vocab_size": n(61, 99), "attention.indexer.key_length": rot + n(10, 30), "ssm.time_step_rank": 4}
    own["ssm.inner_size"] = 2 * embd if arch in ("mamba", "jamba", "granitehybrid") else 8 * n(4, 9)
    own["convnext.embedding_length"] = own["posnet.embedding_length"]
    own |= {"dense_2_feat_in": embd, "dense_3_feat_out": embd}
    own["expert_gating_func"] = 4 if arch in ("deepseek4", "dflash") else 2
    indexed = LAYERS - predicting if arch in ("glm-dsa", "hy_v4", "glm5-next") else LAYERS
    own["attention.indexer.types"] = [True, False, True, True][:indexed]
    own["attention.compress_ratios"] = [0, 0, 2, 0] if arch == "qwen4exp" else [0, 4, 128, 4]
    if arch == "apertus":
        keys |= {f"xielu.{name}": [1.0] * (LAYERS - predicting) for name in ("alpha_n", "alpha_p", "beta", "eps")}
    for names, chance in _OPTIONAL:
        if rng.random() >= chance and (arch, names) not in _ASKED:
            for name in names.split():
                own.pop(name)
    if arch == "dflash":
        own.pop("attention.compress_ratios")
        if seed % 2:
            own.pop("hyper_connection.count")
    if arch in ("lfm2", "modern-bert") and seed % 2:
        own.pop("decision.block_count")
    if arch == "wavtokenizer-dec":
        own["block_count"] = own["posnet.block_count"]
    if arch == "clef":
        own.pop("classifier.output_labels", None)
    if arch == "hunyuan-dense":
        own |= {"expert_count": 0, "expert_used_count": 0}
    return keys | {f"{arch}.{name}": value for name, value in own.items()}


#: Keys of any size, and those that may be absent, with the chance that they are there.
_FREE = (
    "context_length",
    "embedding_length_out",
    "expert_feed_forward_length",
    "expert_shared_feed_forward_length",
    "expert_chunk_feed_forward_length",
    "moe_latent_size",
    "expert_latent_length",
    "attention.q_lora_rank",
    "attention.kv_lora_rank",
    "attention.value_length_mla",
    "attention.kv_lora_rank_swa",
    "attention.value_length_mla_swa",
    "attention.indexer.head_count",
    "attention.output_lora_rank",
    "hyper_connection.low_rank",
    "kda.head_dim",
    "ssm.state_size",
    "ssm.conv_kernel",
    "shortconv.l_cache",
    "time_mix_extra_dim",
    "time_decay_extra_dim",
    "attention.decay_lora_rank",
    "attention.iclr_lora_rank",
    "attention.value_residual_mix_lora_rank",
    "attention.gate_lora_rank",
    "attention.relative_buckets_count",
    "embedding_length_per_layer_input",
    "features_length",
    "posnet.embedding_length",
    "target_hidden_size",
    "adapters.lora_rank",
    "dense_2_feat_out",
    "dense_3_feat_in",
    "ple.conv_kernel",
)
_OPTIONAL = (
    ("embedding_length_out", 0.3),
    ("expert_feed_forward_length", 0.7),
    ("expert_shared_feed_forward_length", 0.6),
    ("moe_latent_size expert_latent_length", 0.6),
    ("classifier.output_labels", 0.5),
)
_ASKED = {(arch, "embedding_length_out") for arch in ("gemma4-assistant", "gemma-embedding2", "wavtokenizer-dec")} | {
    (arch, "expert_feed_forward_length")
    for arch in (
        "afmoe",
        "bailingmoe",
        "bailingmoe2",
        "bailingmoe3",
        "cohere2moe",
        "deepseek",
        "deepseek2",
        "deepseek2-ocr",
        "deepseek32",
        "deepseek4",
        "dflash",
        "dots1",
        "dots3note",
        "ernie4_5-moe",
        "exaone-moe",
        "glm-dsa",
        "glm4moe",
        "glm5-next",
        "gpt-oss",
        "grovemoe",
        "hunyuan-moe",
        "hy_v3",
        "hy_v4",
        "k2-horizon",
        "kimi-k3",
        "kimi-linear",
        "laguna",
        "lfm2moe",
        "llama4",
        "maple",
        "mellum",
        "mimo2",
        "minimax-m2",
        "minimax-m3",
        "mistral4",
        "smallthinker",
        "step35",
    )
}


def _layers(arch: str, rng: random.Random, arrays: bool) -> Keys:
    """Layers, heads, and what feeds forward."""
    kv = rng.choice([2, 3])
    heads = kv * rng.choice([2, 4])
    embd, wide = heads * 2 * rng.randint(8, 30), 2 * rng.randint(40, 99)
    size = 2 * rng.randint(9, 20)
    values = size if arch in EVEN else 2 * rng.randint(21, 30)
    mtp = rng.random() < 0.5 and arch not in WITHOUT_MTP
    predicting = LAYERS if arch == "gemma4-assistant" else int(mtp)
    all_heads, all_kv, all_wide = [heads] * LAYERS, [kv] * LAYERS, [wide] * LAYERS
    if arrays and arch in BY_LAYER:
        all_kv = [rng.choice([1, 2, 3]) for _ in range(LAYERS)]
        all_heads = [one * rng.choice([2, 3]) for one in all_kv]
        all_wide = [rng.randint(30, 99) for _ in range(LAYERS)]
        if arch == "deci":
            all_kv[2] = 0
    if arch in HYBRID or arch in SPARSE:
        all_kv = [kv if arch in HYBRID else 0] + [rng.choice([0, kv]) for _ in range(LAYERS - 1)]
        all_kv[LAYERS - predicting :] = [kv] * predicting
    if arch in SPARSE:
        all_wide = [0 if one else rng.choice([0, wide, wide + 3]) for one in all_kv]
        all_wide[LAYERS - predicting :] = [wide] * predicting
    found: Keys = {
        "block_count": LAYERS,
        "embedding_length": embd,
        "attention.head_count": all_heads,
        "attention.head_count_kv": all_kv,
        "feed_forward_length": all_wide,
        "rope.dimension_count": size if arch in WHOLE else 2 * rng.randint(3, 8),
        "attention.sliding_window": 7,
    }
    found = {k: v[0] if isinstance(v, list) and len(set(v)) == 1 else v for k, v in found.items()}
    if predicting:
        found["nextn_predict_layers"] = predicting
    if rng.random() < 0.8 or arch in WHOLE or arch in EVEN:
        found |= {"attention.key_length": size, "attention.value_length": values}
    if rng.random() < 0.7 or arch.startswith("gemma4"):
        sliding = 2 * rng.randint(9, 20)
        found |= {"attention.key_length_swa": sliding, "rope.dimension_count_swa": 2 * rng.randint(3, 8)}
        found["attention.value_length_swa"] = sliding if size == values else 2 * rng.randint(9, 20)
    if arch in LISTED or rng.random() < 0.3:
        found["attention.sliding_window_pattern"] = [rng.random() < 0.5 for _ in range(LAYERS - 1)] + [False]
    return found


def _fixed() -> Keys:
    """What llama.cpp asks for and no shape follows from, and what must fit together."""
    floats = (
        "attention.layer_norm_epsilon attention.layer_norm_rms_epsilon attention.group_norm_epsilon rope.freq_base "
        "rope.freq_base_swa logit_scale residual_scale embedding_scale attention.scale attn_logit_softcapping "
        "final_logit_softcapping router_logit_softcapping attention.clamp_kqv attention.max_alibi_bias "
        "attention.output_scale attention.value_scale attention.temperature_scale attention.compress_rope_freq_base "
        "expert_weights_scale expert_group_scale hyper_connection.epsilon hyper_connection.magnitude "
        "activation.situ_beta activation.situ_linear_beta"
    )
    numbers = {
        "expert_count": 12,
        "expert_used_count": 2,
        "expert_shared_count": 2,
        "leading_dense_block_count": 2,
        "experts_per_group": 2,
        "interleave_moe_layer_step": 2,
        "moe_every_n_layers": 2,
        "attention.group_norm_groups": 2,
        "attention.temperature_length": 4,
        "attention.indexer.top_k": 4,
        "attention.indexer.block_size": 2,
        "attention.indexer.local_blocks": 1,
        "attention.indexer.kpool": 2,
        "attention.output_group_count": 2,
        "attention.shared_kv_layers": 0,
        "attention.value_expert_count": 3,
        "attention.value_expert_used_count": 1,
        "hyper_connection.count": 4,
        "hyper_connection.sinkhorn_iterations": 2,
        "hash_layer_count": 3,
        "ssm.group_count": 2,
        "wkv.head_size": 2,
        "posnet.block_count": 6,
        "convnext.block_count": 2,
        "attn_res.block_size": 2,
        "hrm.layers_per_stack": 1,
        "hrm.h_cycles": 2,
        "hrm.l_cycles": 1,
        "block_size": 4,
        "conv_kernel_size": 2,
        "conv_group_size": 2,
        "selector_rank": 3,
        "selector_top_k": 2,
        "adapters.count": 2,
        "decoder_block_count": LAYERS,
        "rescale_every_n_layers": 2,
        "token_shift_count": 2,
        "decision.block_count": 1,
        "decision.routing_block_count": 1,
        "decision.head_count": 2,
        "ple.ngram_size": 2,
        "ple.heads_per_ngram": 2,
        "ple.eos_token_id": 1,
    }
    arrays = {
        "rope.dimension_sections": [1, 1, 1, 0],
        "swiglu_clamp_exp": [1.0] * LAYERS,
        "swiglu_clamp_shexp": [1.0] * LAYERS,
        "target_layers": [1, 2, 3],
        "adapters.token_ids_activate": [3, 4],
        "adapters.token_ids_substitute": [5, 6],
        "ple.layers": [0],
        "ple.head_offsets": [0, 10],
        "ple.head_vocab_sizes": [10, 7],
        "ple.layer_multipliers": [1, 2],
        "classifier.output_labels": ["a", "b", "c"],
    }
    flags = ("expert_weights_norm", "kda.safe_gate", "use_parallel_residual", "norm_before_fc", "attention.causal")
    ones = dict.fromkeys(floats.split(), 1.0)
    return {**ones, "kda.gate_lower_bound": -5.0, **numbers, **arrays, **dict.fromkeys(flags, True), "swin_norm": False}


def variants(arch: str, shapes: Shapes, values: Mapping[str, Value]) -> Iterator[Shapes]:
    """Files of the tensors that llama.cpp looks for: queries, keys and values apart or together, experts' gate and up
    projections too.
    """
    plain = {n: s for n, s in shapes.items() if not n.endswith("scale") or _SCALED.get(arch, "-") in n}
    if arch == "eagle3":
        plain.pop("rope_freqs.weight", None)  # its loader counts it once a layer
    layers = sorted({m[0] for n in plain if (m := re.match(r"blk\.\d+", n))})
    for joined, fused in ((False, False), (False, True), (True, False), (True, True)):
        found = dict(plain)
        for layer in layers:
            if joined and f"{layer}.attn_k.weight" in plain and f"{layer}.attn_qkv.weight" not in plain:
                _replace(found, layer, ("attn_q", "attn_k", "attn_v"), ("attn_qkv",), arch, values)
            apart, together = ("ffn_gate_exps", "ffn_up_exps"), ("ffn_gate_up_exps",)
            gated = any(f"{layer}.{name}.weight" in plain for name in ("ffn_gate_exps", *together))
            if gated and f"{layer}.ffn_up_exps.bias" not in plain:
                _replace(found, layer, apart if fused else together, together if fused else apart, arch, values)
        yield found


#: Scales that loaders look for whatever the tensors' types.
_SCALED = {"bitnet": ".scale", "gemma4": "ffn_gate_inp.scale", "dflash": "fc.scale"}


def _replace(
    found: dict[str, tuple[int, ...]],
    layer: str,
    old: tuple[str, ...],
    new: tuple[str, ...],
    arch: str,
    values: Mapping[str, Value],
) -> None:
    for name in old:
        for ending in ("weight", "bias", "scale"):
            found.pop(f"{layer}.{name}.{ending}", None)
    for name in new:
        found[f"{layer}.{name}.weight"] = _derived(f"{layer}.{name}.weight", arch, values)


def _derived(name: str, arch: str, values: Mapping[str, Value], others: Shapes | None = None) -> tuple[int, ...]:
    layer = re.search(r"\d+", name)
    row = row_of(re.sub(r"\.\d+\.", ".{l}.", name), {**COMMON, **SHAPES_OF[arch]})
    basis = Basis(values, arch, others or {}, int(layer[0]) if layer else 0)
    assert isinstance(row, tuple)
    return tuple(length_of(size, basis)[0] or 0 for size in row)


#: Outputs of the draft of Gemma 4, which llama.cpp cannot derive from metadata.
_DRAFT = (
    *("token_embd.weight", "output_norm.weight", "rope_freqs.weight"),
    *("nextn.pre_projection.weight", "nextn.post_projection.weight"),
)
_DRAFT_LAYER = (
    *("attn_norm", "attn_q", "attn_output", "attn_q_norm", "post_attention_norm", "layer_output_scale"),
    *("ffn_norm", "ffn_gate", "ffn_up", "ffn_down", "post_ffw_norm"),
)


def _looked_for(arch: str, keys: Keys, path: Path, llama_cpp: Loader) -> Shapes:
    """The tensors that llama.cpp looks for in a file of these keys; where it cannot say, those our rows know."""
    values = values_of(keys)
    if arch == "gemma4-assistant":
        names = [*_DRAFT, *(f"blk.{layer}.{part}.weight" for layer in range(LAYERS) for part in _DRAFT_LAYER)]
        return {name: _derived(name, arch, values) for name in names}
    if arch == "clef":
        write(path, values_of({key.replace("clef.", "qwen35."): value for key, value in keys.items()} | _QWEN), {})
        found = {n: s for n, s in llama_cpp.derive(path).shapes.items() if not n.startswith("cls")}
        found["decision.proj_memory.weight"] = (10, keys["clef.embedding_length"])
        found["dec.blk.0.ffn_up.weight"] = (14, 10)
        return found | {name: _derived(name, arch, values, found) for name in _decision_names()}
    write(path, values, {})
    return llama_cpp.derive(path).shapes


_QWEN = {"general.architecture": "qwen35"}


def _decision_names() -> Iterator[str]:
    """Outputs of Clef's head: a layer that routes, and one that joins."""
    attention = [f"attn_{letter}" for letter in "qkvo"]
    crossing = ["cross_attn_norm", "ffn_norm", "ffn_up", "ffn_down", *(f"cross_{name}" for name in attention)]
    layers = (("cross_attn_norm_kv", *crossing), ("attn_norm", *attention, *crossing))
    parts = [f"dec.blk.{i}.{name}" for i, names in enumerate(layers) for name in names]
    norms = [f"{name}_norm" for name in ("hidden", "option_summary", "field", "option")]
    for name in (*parts, *(f"decision.{name}" for name in (*norms, "scorer", "scorer_out"))):
        yield f"{name}.weight"
        yield f"{name}.bias"
    for name in ("question", "option_question", "global", "option_context", "option_lexical"):
        yield f"decision.proj_{name}.weight"
    yield "decision.scales"
    yield "token_types.weight"


def cases(folder: Path) -> Iterator[dict[str, Any]]:
    """Files that load, at most two of the same kinds of tensors, and the changes to them that load too."""
    path = folder / "case.gguf"
    with Loader() as llama_cpp:
        for arch in sorted(SHAPES_OF):
            kept: Counter[str] = Counter()
            for seed in range(8):
                keys = drawn(arch, seed)
                values = values_of(keys)
                shapes = _looked_for(arch, keys, path, llama_cpp)
                seen: set[str] = set()
                for tensors in variants(arch, shapes, values) if shapes else ():
                    kinds = " ".join(sorted({re.sub(r"\d+", "", n) for n in tensors}))
                    write(path, values, tensors)
                    if kinds in seen or kept[kinds] > 1 or kept.total() > 3 or not llama_cpp.load(path).ok:
                        continue
                    seen.add(kinds)
                    kept[kinds] += 1
                    taken = []
                    for name, changed in cuts(tensors):
                        write(path, values, {**tensors, name: changed})
                        if llama_cpp.load(path).ok:
                            taken.append([name, changed])
                    yield {"arch": arch, "keys": keys, "tensors": tensors, "taken": taken}
            sys.stderr.write(f"{arch}: {kept.total()}\n")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        packed = json.dumps(list(cases(Path(place))), separators=(",", ":")).encode()
    Path(sys.argv[1]).write_bytes(lzma.compress(packed, preset=9 | lzma.PRESET_EXTREME))
