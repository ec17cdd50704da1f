"""Writes gguf_forge/convert/model_types.json: facts of transformers' configuration classes, by `model_type`.

`python -m tests.convert.make_model_types` where the `transformers` of VERSION (that of the golden files) and torch are
installed; nothing else needs either. Real config.json files leave things unsaid, which the file's parts answer:

- `rope`: the class keeps its rotary parameters in `rope_parameters`; the base where config.json gives none. A pair is
  that of full attention and of sliding windows, with parameters of their own.
- `turned`: the part of a head that rotary embeddings turn where config.json does not say.
- `heads_kv`: key-value heads are as many as heads where config.json says null or nothing.
- `head_dim`: "width" where it is the width over the heads unless config.json has it, "rotary" where it is
  qk_rope_head_dim unless config.json has it, "always rotary" where it is that whatever config.json has, "latent" where
  it is qk_nope_head_dim and qk_rope_head_dim together.
- `renames`: other names of fields, which the class knows its own by.
- `parts`: of a model in several parts, the model_type of each part that does not name its own.
- `defaults`: of those parts, and of what is usual in their place, the fields that converters read. A published
  config.json often has only what differs from them. A model in one part states its fields itself, so its defaults are
  not here.

The model types are those of MODELS and their parts. It also writes fixtures/configurations.json: for each a small
configuration, and what its class makes of it, as far as that is derived and not a default of the class.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from gguf_forge.convert.derivations import DENSE_FIRST, LAYER_TYPES

VERSION = "5.23.0"
ROOT = Path(__file__).resolve().parents[2]
OUT = ROOT / "gguf_forge" / "convert" / "model_types.json"
PROBES = ROOT / "fixtures" / "configurations.json"



def words(text: str) -> tuple[str, ...]:
    """The words of a text."""
    return tuple(text.split())


#: Model types of the checkpoints that converters know, or will.
MODELS = words(
    """
    afmoe apertus arcee audioflamingo3 bert bitnet bloom camembert chameleon cohere cohere2 cohere2_moe
    cohere2_vision dbrx deepseek_ocr2 deepseek_v2 deepseek_v3 deepseek_v32 distilbert dots1 embedding_gemma2
    ernie4_5 ernie4_5_moe eurobert exaone4 exaone4_5 exaone_moe falcon gemma gemma2 gemma3 gemma3_text gemma3n
    gemma3n_text gemma4 gemma4_assistant gemma4_text gemma4_unified gemma4_unified_assistant glm glm4 glm4_moe
    glm4_moe_lite glm4v glm4v_moe glm5_next glm_moe_dsa glm_ocr gpt-sw3 gpt2 gpt_bigcode gpt_neox gpt_oss granite
    granite4_vision granite_speech granite_speech_plus granite_swa granitemoe granitemoe_swa granitemoeshared
    hrm_text hunyuan_v1_dense hunyuan_v1_moe hunyuan_vl hy_v3 hy_v4 idefics3 internlm3 internvl iquestcoder jais2
    jamba janus kimi_k25 kimi_linear laguna lfm2 lfm2_moe lfm2_vl lighton_ocr llama llama4 llama4_text llava
    llava_next mellum minicpm3 minicpmv4_6 minimax minimax_m2 minimax_m3_vl ministral3 mistral mistral3 mistral4
    mixtral modernbert mpt mt5 muse_glimmer muse_glimmer_assistant nemotron nemotron_h olmo olmo2 olmo3 olmoe
    paddleocr_vl phi phi3 phimoe pocket_tts qwen2 qwen2_5_omni qwen2_5_vl qwen2_audio qwen2_moe qwen2_vl qwen3
    qwen3_5 qwen3_5_moe qwen3_5_moe_text qwen3_5_text qwen3_asr qwen3_moe qwen3_next qwen3_omni_moe qwen3_vl
    qwen3_vl_moe qwen4_exp qwen4_exp_text roberta seed_oss shieldgemma2 smollm3 smolvlm solar_open stablelm
    starcoder2 t5 umt5 voxtral xlm-roberta youtu
    """
)
#: Model types that are read as they stand, though transformers knows them: the reference's converters do not ask their
#: class (Mamba and its hybrids), or fail on what it makes of a published configuration.
RAW = words(
    """
    bamba deepseek_v4 dots3_note dots3_note_text falcon_h1 falcon_mamba granitemoehybrid mamba mamba2 mimo_v2_flash
    nomic_bert step3p5 step3p7
    """
)
#: What is found in parts that may be of any type, besides what they are without a name.
USUAL = words(
    """
    clip_vision_model gemma2 gemma3_text granite llama ministral3 mistral mistral4 phi3 pixtral qwen2
    qwen2_audio_encoder qwen3 qwen3_moe siglip_vision_model whisper
    """
)
#: Parts that converters read; what they are called within each other.
PARTS = ("text_config", "vision_config", "audio_config", "thinker_config", "talker_config", "encoder_config")
#: Fields that converters read of a part.
FIELDS = words(
    """
    activation_function altup_num_inputs attention_multiplier attn_logit_softcapping audio_embed_dim
    block_auto_adjust_ff_dim block_ffn_dim_multiplier block_multiple_of conf_num_attention_heads
    conf_num_hidden_layers context_size conv_L_cache conv_kernel_size d_model decoder_sparse_step
    deepstack_visual_indexes dense_intermediate_size embed_dim depth embedding_multiplier encoder_attention_heads
    encoder_ffn_dim encoder_layers eod_token_id feedforward_mult final_logit_softcapping first_k_dense_replace
    fullatt_block_indexes hc_count hc_eps hc_lowrank hc_mult hc_sinkhorn_iters head_dim heads_per_ngram hidden_act
    hidden_activation hidden_dim hidden_size hidden_size_per_layer_input image_size index_kpool
    index_kpool_always_select_tail input_dim input_feat_size insert_layer_id
    interleave_moe_layer_step intermediate_size intermediate_size_mlp kv_lora_rank layer_norm_eps
    linear_conv_kernel_dim linear_key_head_dim linear_num_key_heads linear_num_value_heads linear_value_head_dim
    logit_scale logits_scaling max_pos_emb max_image_size max_position_embeddings merge_kernel_size merge_size mlp_ratio
    mm_embed_dim moe_intermediate_size n_group n_routed_experts n_shared_experts ngram_size norm_eps norm_topk_prob
    num_attention_heads num_experts num_experts_per_tok num_heads num_hidden_layers num_key_value_heads
    num_kv_shared_layers num_layers num_local_experts num_mel_bins num_position_embeddings
    original_max_position_embeddings out_hidden_size output_multiplier patch_size patch_temporal pixel_shuffle_ratio
    ple_conv_kernel_size pooling_kernel_size pos_emb_height q_lora_rank qk_nope_head_dim qk_rope_head_dim
    qk_scale_factor residual_multiplier rms_norm_eps rotary_dim routed_scaling_factor
    shared_expert_intermediate_size shared_intermediate_size sliding_window sliding_window_pattern
    spatial_merge_size split_ngram_parts swiglu_limit temporal_patch_size topk_group topk_method use_qk_norm
    v_head_dim vocab_size vocab_size_per_layer_input window_size
    """
)


def made(kind: Any, **fields: Any) -> dict[str, Any] | None:
    """A configuration of this class as a dictionary; None where the class refuses these fields."""
    try:
        found: dict[str, Any] = kind(**copy.deepcopy(fields)).to_dict()
    except Exception:  # noqa: BLE001 - a class may refuse in any way
        return None
    return found


def field_of(kind: Any, name: str) -> str:
    """The class's own name of a field."""
    return str(kind.attribute_map.get(name, name))


def rope_of(kind: Any) -> Any:
    """The base, or both bases, of a class that gathers rotary parameters; None of others."""
    if "rope_parameters" not in kind.__dataclass_fields__:
        return None
    if isinstance(theta := kind.default_theta, dict):
        return [theta["global"], theta["local"]]
    names = ("rope_theta", "rotary_emb_base")
    for scaling in ({}, {"rope_scaling": {"rope_type": "linear", "factor": 2.0}}):
        plain, moved = (
            (made(kind, **scaling, **given) or {}).get("rope_parameters") for given in ({}, dict.fromkeys(names, 1e5))
        )
        if plain != moved:
            break
    else:
        return None
    apart = [(plain or {}).get(name) for name in ("full_attention", "sliding_attention")]
    return [each["rope_theta"] for each in apart if each] if all(apart) else theta


def turned_of(kind: Any) -> float | None:
    """The part of a head that is turned without a word of config.json, unless it is the whole."""
    found = made(kind, rope_scaling={"rope_type": "linear", "factor": 2.0}) or made(kind) or {}
    rope = found.get("rope_parameters") or {}
    part = rope.get("partial_rotary_factor", 1.0)
    return None if part == 1.0 else part


def head_dim_of(kind: Any) -> str | None:
    """How the class makes `head_dim`: by changing what it is made of."""
    sizes = {field_of(kind, "num_attention_heads"): 8, field_of(kind, "hidden_size"): 256}
    plain, null, said, turned, both = (
        (made(kind, **sizes, **given) or {}).get("head_dim")
        for given in (
            {},
            {"head_dim": None},
            {"head_dim": 40},
            {"qk_rope_head_dim": 48},
            {"head_dim": 40, "qk_rope_head_dim": 48},
        )
    )
    if turned == 48:
        return "always rotary" if both == 48 else "rotary"
    if (made(kind, **sizes, qk_rope_head_dim=48, qk_nope_head_dim=20) or {}).get("head_dim") == 68:
        return "latent"
    return "width" if 32 in {plain, null} and said in {40, 32} else None


def heads_kv_of(kind: Any) -> bool:
    """Whether a null, or nothing, for the key-value heads means as many as heads."""
    if "num_key_value_heads" not in kind.__dataclass_fields__:
        return False
    heads, width = field_of(kind, "num_attention_heads"), field_of(kind, "hidden_size")
    found = made(kind, **{heads: 8, width: 256, "num_key_value_heads": None})
    return found is not None and found.get("num_key_value_heads") == 8


def defaults_of(kind: Any) -> dict[str, Any]:
    """The fields that converters read, as the class declares them; what it derives is not here."""
    found = {}
    for name in FIELDS:
        field = kind.__dataclass_fields__.get(name) or kind.__dataclass_fields__.get(field_of(kind, name))
        if field is not None and isinstance(field.default, (int, float, str, list, tuple)) and field.default != "":
            found[field_of(kind, name)] = field.default
    return found


def collect() -> dict[str, Any]:
    """The file's contents."""
    from transformers import CONFIG_MAPPING

    kinds = {t: CONFIG_MAPPING[t] for t in MODELS}
    parts: dict[str, dict[str, str]] = {}
    wanted = list(kinds)
    while wanted:
        kind = kinds[name := wanted.pop(0)]
        for part, spec in kind.sub_configs_defaults.items():
            if part not in PARTS or not spec.model_type:
                continue
            parts.setdefault(name, {})[part] = spec.model_type
            if spec.model_type not in kinds:
                named = spec.model_type in CONFIG_MAPPING
                kinds[spec.model_type] = CONFIG_MAPPING[spec.model_type] if named else spec.config_class
                wanted.append(spec.model_type)
    kinds |= {t: CONFIG_MAPPING[t] for t in USUAL}
    within = sorted({t for named in parts.values() for t in named.values()} | set(USUAL))
    kinds = dict(sorted(kinds.items()))
    return {
        "transformers": VERSION,
        "rope": {t: base for t, k in kinds.items() if (base := rope_of(k)) is not None},
        "turned": {t: part for t, k in kinds.items() if (part := turned_of(k)) is not None},
        "heads_kv": [t for t, k in kinds.items() if heads_kv_of(k)],
        "head_dim": {t: how for t, k in kinds.items() if (how := head_dim_of(k)) is not None},
        "renames": {t: k.attribute_map for t, k in kinds.items() if k.attribute_map},
        "parts": dict(sorted(parts.items())),
        "defaults": {t: found for t in within if (found := defaults_of(kinds[t]))},
    }


#: What probes say, the second time with other rotary parameters.
SIZES = {
    "hidden_size": 64,
    "num_attention_heads": 4,
    "num_hidden_layers": 6,
    "qk_nope_head_dim": 20,
    "qk_rope_head_dim": 12,
    "max_position_embeddings": 4096,
    "rope_theta": 777.0,
}
SCALINGS: tuple[dict[str, Any], ...] = (
    {"rope_scaling": {"rope_type": "linear", "factor": 4.0}, "partial_rotary_factor": 0.25},
    {"rope_scaling": {"rope_type": "yarn", "factor": 4.0}},
)
#: What of a configuration is derived, or is where a class puts it.
DERIVED = ("head_dim", "indexer_types", "layer_types", "mlp_layer_types", "num_decoder_layers", "num_key_value_heads")


def probes(models: Mapping[str, Any], parts: Mapping[str, Mapping[str, str]], bases: Collection[str]) -> dict[str, Any]:
    """Small configurations of these model types, and what the classes make of them."""
    found: dict[str, Any] = {}
    for name, kind in models.items():
        for number, scaling in enumerate(SCALINGS):
            within = {part: {"model_type": t} for part, t in parts.get(name, {}).items()}
            if within and "text_config" not in within:
                continue
            given = copy.deepcopy(SIZES | scaling)
            config = {**within, "text_config": {**within["text_config"], **given}} if within else given
            result = made(kind, **config)
            if result is None:
                continue
            text = result["text_config"] if within else result
            plain = made(text_kind(kind, within)) or {}
            kept = [*DERIVED, *(f for f in FIELDS if within and number == 0 and f not in SIZES)]
            seen = {k: text[k] for k in kept if text.get(k) is not None and (within or text[k] != plain.get(k))}
            seen["rope_parameters"] = text.get("rope_parameters")
            # What no converter reads of a model type is not derived for it.
            read = {"layer_types": LAYER_TYPES, "mlp_layer_types": DENSE_FIRST, "rope_parameters": bases}
            seen = {k: v for k, v in seen.items() if text["model_type"] in read.get(k, (text["model_type"],))}
            found[f"{name}-{number}"] = {"config": {"model_type": name, **config}, "resolved": seen}
    return found


def text_kind(kind: Any, within: Mapping[str, Any]) -> Any:
    """The class of a model's text part."""
    from transformers import CONFIG_MAPPING

    return CONFIG_MAPPING[within["text_config"]["model_type"]] if within else kind


def written(found: dict[str, Any]) -> str:
    """JSON with a line for each model type, or a line for a list of them."""
    lines = []
    for name, entries in found.items():
        if isinstance(entries, dict):
            inner = ",\n".join(f"  {json.dumps(k)}: {json.dumps(v)}" for k, v in entries.items())
            lines.append(f' {json.dumps(name)}: {{\n{inner}\n }}')
        else:
            lines.append(f" {json.dumps(name)}: {json.dumps(entries)}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


if __name__ == "__main__":
    import transformers

    if transformers.__version__ != VERSION:
        raise SystemExit(f"transformers {VERSION} is wanted, this is {transformers.__version__}")
    facts = collect()
    OUT.write_text(written(facts), encoding="utf-8")
    cases = probes({t: transformers.CONFIG_MAPPING[t] for t in MODELS}, facts["parts"], facts["rope"])
    lines = ",\n".join(f" {json.dumps(name)}: {json.dumps(case)}" for name, case in cases.items())
    PROBES.write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")
