"""Gemma 3n and Gemma 4: small models with embeddings for each layer, dense ones, mixtures of experts, unified ones, the
assistants that predict tokens for them, and EmbeddingGemma 2; of multimodal ones the text model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

from gguf_forge.convert import vocab
from gguf_forge.convert.arch import (
    Arch,
    Axis,
    Either,
    Hparam,
    Rule,
    Table,
    array,
    boolean,
    exact,
    f32,
    optional,
    rule,
    string,
    u32,
)
from gguf_forge.convert.config import block_count, first_of, need
from gguf_forge.convert.facts import Facts
from gguf_forge.convert.ops import STACK, Computed, Verb
from gguf_forge.convert.rope import rope_of, sliding_rope_of
from gguf_forge.convert.rows import first_rows
from gguf_forge.convert.view import Array, View, joined, only, sliced
from gguf_forge.convert.view import changed as altered
from gguf_forge.convert.vocab import Keys, TokenType, VocabJob
from gguf_forge.convert.vocab.folder import Folder
from gguf_forge.errors import ConversionError
from gguf_forge.format.layout import ValueType

from .common import BUFFERS, DECODER, GATED, GELU, MULTIMODAL, QK_NORM, WRAPPERS, layer, pooling, sliding_layers
from .dflash import DSPARK, MARKOV
from .dflash import KEYS as DRAFT_KEYS
from .gemma import GEMMA3, vocab_rows

LAYER = "model.layers.{l}"
#: Norms around attention and around feeding forward, as they are stored.
SANDWICH: Table[Rule] = Table(
    (
        rule("blk.{l}.post_attention_norm", f"{LAYER}.post_attention_layernorm"),
        rule("blk.{l}.ffn_norm", f"{LAYER}.pre_feedforward_layernorm"),
        rule("blk.{l}.post_ffw_norm", f"{LAYER}.post_feedforward_layernorm"),
    )
)
#: What each layer is given of the text, besides what the layer before made of it.
PER_LAYER: Table[Rule] = Table(
    (
        rule("per_layer_model_proj", "model.per_layer_model_projection"),
        rule("per_layer_proj_norm", "model.per_layer_projection_norm"),
        rule("blk.{l}.inp_gate", f"{LAYER}.per_layer_input_gate"),
        rule("blk.{l}.proj", f"{LAYER}.per_layer_projection"),
        rule("blk.{l}.post_norm", f"{LAYER}.post_per_layer_input_norm"),
    )
)
PER_LAYERS = layer("inp_gate", "proj", "post_norm")
TRUNK = (
    *("token_embd", "output_norm"),
    *layer("attn_norm", "attn_q", "attn_q_norm", "attn_output", "ffn_norm", "post_attention_norm", "post_ffw_norm"),
    *GATED,
)
KEYS_VALUES = layer("attn_k", "attn_k_norm", "attn_v")


def _without_keys(facts: Facts) -> int:
    """How many last layers use the keys and values of layers before them; those before must have their own."""
    shared = facts.number("num_kv_shared_layers") if facts.config.get("num_kv_shared_layers") else 0
    for number in range(block_count(facts.config) - shared) if facts.headers else ():
        if not facts.at(number).has(f"{LAYER}.self_attn.k_proj.weight"):
            raise ConversionError(
                f"the checkpoint has no 'model.layers.{number}.self_attn.k_proj.weight', though only the last "
                f"{shared} of {block_count(facts.config)} layers share keys; is a file missing?"
            )
    return shared


SHARED = u32("attention.shared_kv_layers", value=_without_keys)
PATTERN = array("attention.sliding_window_pattern", ValueType.BOOL, value=sliding_layers)
PER_LAYER_WIDTH = u32(
    "embedding_length_per_layer_input", value=lambda facts: facts.config.get("hidden_size_per_layer_input") or 0
)


@dataclass(frozen=True)
class Padded(Verb):
    """Rows of zeros after the source's own, up to a number: tokens whose embeddings come from other modalities."""

    height: Callable[[Facts], int]

    def views(self, sources: Sequence[View], facts: Facts) -> list[View]:
        """The source, and the zeros."""
        source = only(sources)
        more = self.height(facts) - source.shape[0]
        if more <= 0:
            return [source]

        def zeros(start: int, stop: int) -> Array:
            return np.zeros((stop - start, *source.rows(0, 1).shape[1:]), source.rows(0, 1).dtype)

        below = altered(source, shape=(more, *source.shape[1:]), rows=zeros)
        return [joined((source, below), (self.height(facts), *source.shape[1:]))]

    def undo(self, outputs: Sequence[View], like: Sequence[View], facts: Facts) -> list[View]:
        """Without the zeros."""
        return [sliced(only(outputs), 0, like[0].shape)]


def _sparsities(facts: Facts) -> list[float]:
    """Of each layer's activations the deviations from their mean up to which they count as nothing, in float32."""
    pattern = need(facts.config, "activation_sparsity_pattern")
    shares = pattern if isinstance(pattern, list) else [pattern] * block_count(facts.config)
    return [_deviations(share) for share in shares]


def _deviations(share: float) -> float:
    """The normal distribution's quantile, in the steps in which float32 rounds it: sqrt(2) * erfinv(2 * share - 1)."""
    both = float(np.float32(2) * np.float32(share) - np.float32(1))
    if not -1 < both < 1:
        return both * float("inf")
    erfinv = np.float32(NormalDist().inv_cdf((both + 1) / 2) / 2**0.5)
    return float(erfinv * np.float32(2**0.5))


def _four_inputs(facts: Facts) -> int:
    inputs = facts.number("altup_num_inputs")
    if inputs != 4:
        raise ConversionError(f"config.json: altup_num_inputs is {inputs}; llama.cpp runs Gemma 3n with 4")
    return inputs


PADDED = Padded(lambda facts: facts.config.get("vocab_size") or 262400)
GEMMA3N = Arch(
    "gemma3n",
    hf=("Gemma3nForCausalLM", "Gemma3nForConditionalGeneration"),
    hparams=GEMMA3.hparams.without("attention.sliding_window_pattern")
    | u32("altup.active_idx", "altup_active_idx", required=True)
    | u32("altup.num_inputs", value=_four_inputs)
    | PER_LAYER_WIDTH
    | SHARED
    | array("activation_sparsity_scale", ValueType.FLOAT32, value=_sparsities)
    | PATTERN,
    tensors=DECODER
    | SANDWICH
    | QK_NORM
    | PER_LAYER
    | rule("token_embd", "model.embed_tokens", verb=PADDED)
    | rule("per_layer_token_embd", "model.embed_tokens_per_layer", verb=PADDED)
    | exact("altup_proj.weight", "model.altup_projections.{i}.weight", verb=STACK)
    | exact("altup_unembd_proj.weight", "model.altup_unembed_projections.{i}.weight", verb=STACK)
    | exact("blk.{l}.altup_correct_scale.weight", f"{LAYER}.altup.correct_output_scale")
    | rule("blk.{l}.altup_correct_coef", f"{LAYER}.altup.correction_coefs")
    | rule("blk.{l}.altup_predict_coef", f"{LAYER}.altup.prediction_coefs")
    | rule("blk.{l}.altup_router", f"{LAYER}.altup.modality_router")
    | rule("blk.{l}.altup_router_norm", f"{LAYER}.altup.router_norm")
    | rule("blk.{l}.laurel_l", f"{LAYER}.laurel.linear_left")
    | rule("blk.{l}.laurel_r", f"{LAYER}.laurel.linear_right")
    | rule("blk.{l}.laurel_post_norm", f"{LAYER}.laurel.post_laurel_norm"),
    axes={**GEMMA3.axes, "i": Axis(lambda facts: _four_inputs(facts) - 1)},
    needs=(
        *TRUNK,
        *PER_LAYERS,
        *("per_layer_token_embd", "per_layer_model_proj", "per_layer_proj_norm", "altup_proj", "altup_unembd_proj"),
        *layer("altup_correct_scale", "altup_correct_coef", "altup_predict_coef", "altup_router", "altup_router_norm"),
        *layer("laurel_l", "laurel_r", "laurel_post_norm"),
        optional(*KEYS_VALUES),
    ),
    vocab=(vocab.together(vocab.spm_with("vocab_size"), vocab.space_prefix(False)), vocab.bpe),
    renames=WRAPPERS,
    drop=BUFFERS + MULTIMODAL,
    implied=GELU,
)

#: The marks around tool calls and thoughts, which are shown so that whoever reads a chat can find them.
VISIBLE = frozenset(
    ("<|channel>", "<channel|>", "<|tool_call>", "<tool_call|>", "<|tool_response>", "<tool_response|>", '<|"|>')
)


@vocab.loader
def gemma4(job: VocabJob) -> Keys | None:
    """Llama's kind of vocabulary, with merges and without a pre-tokenizer."""
    tokens = vocab.read_llama_hf(job)
    if tokens is None:
        return None
    tokens.model, tokens.pre = "gemma4", None
    kinds = zip(tokens.tokens, tokens.types, strict=True)
    tokens.types = [TokenType.USER_DEFINED if token in VISIBLE else kind for token, kind in kinds]
    return vocab.finish(job, tokens, merges=True, limited=False)


def _of_full(key: str, per_layer: str) -> Callable[[Facts], Any]:
    """What layers with full attention have of their own: under `key`, or among what is said of single layers."""

    def value(facts: Facts) -> Any:
        if facts.config.get(key) is not None:
            return facts.config[key]
        said = facts.config.get("per_layer_config") or {}
        full = [said.get(str(number)) or {} for number, slides in enumerate(sliding_layers(facts)) if not slides]
        return next((at[per_layer] for at in full if per_layer in at), None)

    return value


_full_heads_kv = _of_full("num_global_key_value_heads", "num_key_value_heads")


def _full_head(facts: Facts) -> int:
    value = _of_full("global_head_dim", "head_dim")(facts)
    if not isinstance(value, int):
        raise ConversionError("config.json has no global_head_dim, the size of heads with full attention")
    return value


def _heads_kv(facts: Facts) -> list[int] | None:
    full, sliding = _full_heads_kv(facts), facts.config.get("num_key_value_heads")
    if full is None or sliding is None:
        return None
    return [sliding if slides else full for slides in sliding_layers(facts)]


def _widths(facts: Facts) -> list[int] | None:
    """Feed-forward widths where layers without keys of their own have twice the others'."""
    if not facts.config.get("use_double_wide_mlp"):
        return None
    layers, width = block_count(facts.config), facts.number("intermediate_size")
    own = layers - (facts.config.get("num_kv_shared_layers") or 0)
    return [width if number < own else 2 * width for number in range(layers)]


def _window(facts: Facts) -> Any:
    """The window; where it looks both ways, it is the even number within it."""
    window = facts.config.get("sliding_window")
    both = facts.config.get("use_bidirectional_attention") == "all"
    return window // 2 * 2 if both and isinstance(window, int) else window


def _still(facts: Facts) -> npt.NDArray[np.float32]:
    """Divisors of the frequencies of full attention: those of pairs that do not turn are huge.

    The pairs that turn stand first in each half of a head, and the others behind them ("proportional"), which a number
    of turning elements alone could not say.
    """
    rope, pairs = rope_of(facts.config), _full_head(facts) // 2
    if rope.get("rope_type") != "proportional":
        kind = rope.get("rope_type")
        raise ConversionError(f"config.json: full attention of Gemma 4 has rope_type 'proportional', not {kind!r}")
    turning = int(_full_head(facts) * need(rope, "partial_rotary_factor") / 2)
    return np.array([1.0] * turning + [1e30] * (pairs - turning), np.float32)


def _unheard(facts: Facts) -> Any:
    """Tokens that are never to be chosen, of the unified models, which embed patches and frames like tokens."""
    if "Gemma4UnifiedForConditionalGeneration" not in need(facts.config, "architectures"):
        return None
    return (Folder(facts.directory).object("generation_config.json") or {}).get("suppress_tokens")


KEYS: Table[Hparam] = (
    GEMMA3.hparams.without("attention.sliding_window_pattern")
    | u32("attention.sliding_window", value=_window, required=True)
    | SHARED
    | PER_LAYER_WIDTH
    | PATTERN
    | u32("attention.key_length", value=_full_head, again=True)
    | u32("attention.value_length", value=_full_head, again=True)
    | u32("attention.key_length_swa", "head_dim", required=True)
    | u32("attention.value_length_swa", "head_dim", required=True)
    | u32(
        "expert_feed_forward_length",
        value=lambda facts: first_of(facts.config, "expert_intermediate_size", "moe_intermediate_size"),
    )
    | u32("feed_forward_length", value=_widths, again=True)
    | u32("attention.head_count_kv", value=_heads_kv, again=True)
    | u32("rope.dimension_count", value=_full_head)
    | u32(
        "rope.dimension_count_swa",
        value=lambda facts: int(
            facts.number("head_dim") * sliding_rope_of(facts.config).get("partial_rotary_factor", 1.0)
        ),
    )
)
LAYERS: Table[Rule] = (
    DECODER
    | SANDWICH
    | QK_NORM
    | rule("token_embd", "model.embed_tokens", verb=first_rows(vocab_rows))
    | exact("blk.{l}.layer_output_scale.weight", f"{LAYER}.layer_scalar")
)
ROUTED: Table[Rule] = Table(
    (
        rule("blk.{l}.pre_ffw_norm_2", f"{LAYER}.pre_feedforward_layernorm_2"),
        rule("blk.{l}.post_ffw_norm_1", f"{LAYER}.post_feedforward_layernorm_1"),
        rule("blk.{l}.post_ffw_norm_2", f"{LAYER}.post_feedforward_layernorm_2"),
        rule("blk.{l}.ffn_gate_inp", f"{LAYER}.router.proj"),
        exact("blk.{l}.ffn_gate_inp.scale", f"{LAYER}.router.scale"),
        exact("blk.{l}.ffn_down_exps.scale", f"{LAYER}.router.per_expert_scale"),
        exact("blk.{l}.ffn_gate_up_exps.weight", f"{LAYER}.experts.gate_up_proj"),
        exact("blk.{l}.ffn_down_exps.weight", f"{LAYER}.experts.down_proj"),
    )
)
EXPERTS = layer(
    *("pre_ffw_norm_2", "post_ffw_norm_1", "post_ffw_norm_2"),
    *("ffn_gate_inp", "ffn_gate_inp.scale", "ffn_down_exps.scale", "ffn_gate_up_exps", "ffn_down_exps"),
)
GEMMA4 = Arch(
    "gemma4",
    hf=("Gemma4ForConditionalGeneration", "Gemma4ForCausalLM", "Gemma4UnifiedForConditionalGeneration"),
    hparams=KEYS | array("tokenizer.ggml.suppress_tokens", ValueType.INT32, value=_unheard),
    tensors=LAYERS
    | PER_LAYER
    | ROUTED
    | rule("per_layer_token_embd", "model.embed_tokens_per_layer")
    | exact("rope_freqs.weight", verb=Computed(_still)),
    needs=(
        *TRUNK,
        optional("per_layer_token_embd", "per_layer_model_proj", "per_layer_proj_norm"),
        optional(*PER_LAYERS),
        optional(*EXPERTS),
        # Keys may serve as values, too; the last layers may have neither.
        Either((KEYS_VALUES, KEYS_VALUES[:2], ())),
    ),
    vocab=(gemma4, vocab.space_prefix(False), vocab.adds(bos=True)),
    renames=WRAPPERS,
    drop=BUFFERS + MULTIMODAL,
    implied=GELU,
)


#: They have no keys of their own: their layers look at what the model wrote down.
ASSISTANT = replace(
    GEMMA4,
    name="gemma4-assistant",
    hf=("Gemma4AssistantForCausalLM", "Gemma4UnifiedAssistantForCausalLM"),
    hparams=KEYS
    | u32("embedding_length_out", "backbone_hidden_size", required=True)
    | u32("nextn_predict_layers", value=lambda facts: block_count(facts.config)),
    tensors=LAYERS.without("output", "blk.{l}.attn_k", "blk.{l}.attn_v", "blk.{l}.attn_k_norm")
    | rule("nextn.pre_projection", "pre_projection")
    | rule("nextn.post_projection", "post_projection")
    | exact("rope_freqs.weight", verb=Computed(_still)),
    needs=(*TRUNK, *layer("layer_output_scale"), "nextn.pre_projection", "nextn.post_projection"),
    # The order of the embedding's rows by centroids only makes a target's choice faster; llama.cpp does not read it.
    drop=(*BUFFERS, r"^(model\.)?masked_embedding\.", r"^lm_head\.weight$"),
    draft=True,
)


def _both_ways(facts: Facts) -> int:
    """The window as llama.cpp counts it, the configuration's being what of it lies on one side."""
    return 2 * facts.number("sliding_window")


#: EmbeddingGemma 2: each layer is given what a projection makes of the embedding alone.
EMBEDDING2 = replace(
    GEMMA4,
    name="gemma-embedding2",
    hf=("EmbeddingGemma2Model",),
    hparams=KEYS
    | u32("attention.sliding_window", value=_both_ways)
    | u32("attention.shared_kv_layers", value=lambda facts: 0)
    | u32("embedding_length_out", "embedding_dim", required=True)
    | boolean("attention.causal", value=lambda facts: False, again=True)
    | u32("pooling_type", value=pooling),
    tensors=LAYERS
    | rule("output", "model.embedding_projection")
    | rule("per_layer_model_proj", "model.ple.per_layer_model_projection")
    | rule("per_layer_proj_norm", "model.ple.per_layer_projection_norm")
    | rule("blk.{l}.inp_gate", f"{LAYER}.ple_block.per_layer_input_gate")
    | rule("blk.{l}.proj", f"{LAYER}.ple_block.per_layer_projection")
    | rule("blk.{l}.post_norm", f"{LAYER}.ple_block.post_per_layer_input_norm"),
    needs=(
        *(*TRUNK, *KEYS_VALUES, *PER_LAYERS, *layer("layer_output_scale")),
        *("output", "per_layer_model_proj", "per_layer_proj_norm"),
    ),
    renames=(*WRAPPERS, (r"^(ple|embedding_projection)\.", r"model.\1.")),
)


def _as_drafted(facts: Facts) -> float:
    """No scale of queries; and the configuration asks for nothing that llama.cpp does not do with this draft."""
    wanted: dict[str, tuple[Any, ...]] = {
        "attention_k_eq_v": (True,),
        "layer_types": (["full_attention"] * block_count(facts.config),),
        "hidden_activation": ("gelu_pytorch_tanh", None),
        "attention_bias": (False, None),
        "enable_moe_block": (False, None),
        "final_logit_softcapping": (None, 0),
        "draft_vocab_size": (None, facts.config.get("vocab_size")),
        "markov_head_type": ("vanilla", None),
    }
    for key, values in wanted.items():
        if facts.config.get(key) not in values:
            said = f"{facts.config.get(key)!r:.60}"
            raise ConversionError(f"config.json: {key} is {said}; a DSpark draft of Gemma 4 must have {values[0]!r}")
    return 1.0


def _still_drafted(facts: Facts) -> npt.NDArray[np.float32] | None:
    return None if rope_of(facts.config).get("rope_type") == "default" else _still(facts)


#: What drafts for Gemma 4 by DSpark's way: layers of Gemma 4 that attend to what the target computed.
DRAFT = replace(
    DSPARK,
    hf=("Gemma4DSparkModel",),
    hparams=DRAFT_KEYS.without("rope.freq_base_swa", "embedding_scale")
    | u32("attention.head_count_kv", "num_global_key_value_heads", required=True, again=True)
    | u32("attention.key_length", "global_head_dim", required=True, again=True)
    | u32("attention.value_length", "global_head_dim", required=True, again=True)
    | u32("rope.dimension_count", "global_head_dim")
    | f32("embedding_scale", value=lambda facts: facts.number("hidden_size") ** 0.5)
    | f32("attention.scale", value=_as_drafted)
    | string("hidden_activation", value=lambda facts: "gelu_pytorch_tanh")
    | boolean("sample_from_anchor", "sample_from_anchor", default=True)
    | boolean("has_confidence_head", value=lambda facts: facts.has("model.confidence_head.proj.weight")),
    tensors=LAYERS.without("blk.{l}.attn_v")
    | rule("output", "model.lm_head")
    | rule("fc", "model.fc")
    | rule("enc.output_norm", "model.hidden_norm")
    | MARKOV.without("d2t")
    | exact("rope_freqs.weight", verb=Computed(_still_drafted)),
    needs=(
        *("fc", "enc.output_norm", "markov_w1", "markov_w2"),
        *(need for need in TRUNK if need != "token_embd"),
        *KEYS_VALUES[:2],
    ),
    renames=(
        (r"^(?!model\.|target:)", "model."),
        (r"^model\.confidence_proj\.", "model.confidence_head.proj."),
    ),
    drop=BUFFERS,
    implied=GELU,
)

ARCHS = (GEMMA3N, GEMMA4, ASSISTANT, EMBEDDING2, DRAFT)
