"""RWKV 6 and 7, and the models that have their time mixing within Qwen's layers: QRWKV6 and ARWKV.

Tensors of version 7 come under the names of two implementations: those of flash-linear-attention, whose low-rank
layers are linear layers, and those of its authors, whose matrices stand the other way round.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod

from gguf_forge.convert import vocab
from gguf_forge.convert.arch import WEIGHT, Arch, Drop, Hparam, Rule, Table, exact, f32, optional, rule, u32
from gguf_forge.convert.config import block_count, first_of
from gguf_forge.convert.facts import Facts
from gguf_forge.convert.ops import COPY, SQUEEZE, STACK, TRANSPOSE, Reshape, Rows, Verb, scale

from .common import BUFFERS, DECODER, FILE_TYPE, GATED, QKV, SILU, WRAPPERS, affine, layer
from .mamba import ENDLESS, NO_HEADS

Number = Callable[[Facts], int]

FLAT = Reshape(lambda shape, _: (prod(shape),))
#: How much each channel takes of the token before, for everything that is made of it, in one tensor.
FUSED = STACK | Reshape(lambda shape, _: (shape[0], 1, 1, shape[-1]))
NORM_EPSILON = f32("attention.layer_norm_epsilon", "layer_norm_epsilon", "norm_eps", required=True)
RMS_EPSILON = f32("attention.layer_norm_rms_epsilon", "rms_norm_eps", required=True)
HEAD_SIZE = u32("wkv.head_size", "head_size", "head_dim", required=True)
ONE_SHIFT = u32("token_shift_count", value=lambda facts: 1)
BASIC: Table[Hparam] = Table(
    (
        ENDLESS,
        u32("embedding_length", "hidden_size", required=True),
        u32("block_count", value=lambda facts: block_count(facts.config)),
    )
)
#: Qwen's layers but for attention.
QWEN: Table[Rule] = DECODER.without(*QKV, "blk.{l}.attn_output")
QWEN_NEEDS = ("token_embd", "output_norm", "output", *layer("attn_norm", "ffn_norm"), *GATED)


def _wide(large: int, small: int, *names: str, only: bool = False) -> Number:
    """A rank: declared under these names, or one for widths of 4096 (`only`) or from there on, another for others."""

    def value(facts: Facts) -> int:
        width = facts.number("hidden_size")
        declared = [facts.number(name) for name in names if facts.config.get(name) is not None]
        return declared[0] if declared else large if width == 4096 or (width > 4096 and not only) else small

    return value


BLOCK = "rwkv.blocks.{l}"
SIXTH = f"{BLOCK}.attention"


def _sixth_width(facts: Facts) -> int:
    if facts.config.get("intermediate_size") is None:
        return int(facts.number("hidden_size") * 3.5 // 32 * 32)
    return facts.number("intermediate_size")


def _rescaled(facts: Facts) -> float:
    """What enough layers lie before a layer halves its outputs by, so that they fit float16."""
    step = facts.number("rescale_every")
    return float(2.0 ** -((facts.layer or 0) // step)) if step > 0 else 1.0


def _plain(prefix: str, *parts: tuple[str, str]) -> tuple[Rule, ...]:
    """Tensors whose source names have no ending, with axes of one that they lose."""
    return tuple(exact(f"blk.{{l}}.{out}.weight", f"{prefix}.{source}", verb=SQUEEZE) for out, source in parts)


def time_mixing(
    prefix: str, down: Verb = TRANSPOSE, up: Verb = TRANSPOSE, first: bool = True
) -> tuple[Rule, ...]:
    """The tensors by which version 6 mixes a token with the one before, and forgets. `down` and `up` are what is done
    to the matrices of the five low-rank layers.
    """
    return (
        *_plain(prefix, ("time_mix_lerp_x", "time_maa_x"), ("time_mix_decay", "time_decay")),
        exact(
            "blk.{l}.time_mix_lerp_fused.weight",
            *(f"{prefix}.time_maa_{part}" for part in "wkvrg"),
            verb=FUSED,
        ),
        exact("blk.{l}.time_mix_w1.weight", f"{prefix}.time_maa_w1", verb=down),
        exact("blk.{l}.time_mix_w2.weight", f"{prefix}.time_maa_w2", verb=up),
        *(
            exact(f"blk.{{l}}.time_mix_decay_w{n}.weight", f"{prefix}.time_decay_w{n}", verb=TRANSPOSE)
            for n in "12"
        ),
        *((exact("blk.{l}.time_mix_first.weight", f"{prefix}.time_faaaa"),) if first else ()),
    )


TIME_MIXING = layer(
    *(f"time_mix_{part}" for part in ("lerp_x", "lerp_fused", "w1", "w2", "decay", "decay_w1", "decay_w2")),
    *(f"time_mix_{part}" for part in ("key", "value", "receptance", "gate", "output")),
)

RWKV6 = Arch(
    "rwkv6",
    hf=("Rwkv6ForCausalLM",),
    hparams=BASIC
    | NORM_EPSILON
    | u32("rescale_every_n_layers", "rescale_every", required=True)
    | HEAD_SIZE
    | u32("time_mix_extra_dim", value=_wide(64, 32, only=True))
    | u32("time_decay_extra_dim", value=_wide(128, 64, only=True))
    | u32("feed_forward_length", value=_sixth_width)
    | FILE_TYPE
    | NO_HEADS,
    tensors=Table(
        (
            rule("token_embd", "rwkv.embeddings"),
            rule("token_embd_norm", "rwkv.blocks.0.pre_ln"),
            rule("output_norm", "rwkv.ln_out"),
            rule("output", "head"),
            rule("blk.{l}.attn_norm", f"{BLOCK}.ln1"),
            rule("blk.{l}.attn_norm_2", f"{BLOCK}.ln2"),
            *time_mixing(SIXTH),
            *(
                rule(f"blk.{{l}}.time_mix_{part}", f"{SIXTH}.{part}", ends=WEIGHT)
                for part in ("gate", "key", "value", "receptance")
            ),
            rule("blk.{l}.time_mix_output", f"{SIXTH}.output", ends=WEIGHT, verb=scale(_rescaled)),
            rule("blk.{l}.time_mix_ln", f"{SIXTH}.ln_x"),
            *_plain(
                f"{BLOCK}.feed_forward", ("channel_mix_lerp_k", "time_maa_k"), ("channel_mix_lerp_r", "time_maa_r")
            ),
            rule("blk.{l}.channel_mix_key", f"{BLOCK}.feed_forward.key", ends=WEIGHT),
            rule("blk.{l}.channel_mix_receptance", f"{BLOCK}.feed_forward.receptance", ends=WEIGHT),
            rule(
                "blk.{l}.channel_mix_value", f"{BLOCK}.feed_forward.value", ends=WEIGHT, verb=scale(_rescaled)
            ),
        )
    ),
    needs=(
        "token_embd",
        "output",
        *affine("token_embd_norm", "output_norm", *layer("attn_norm", "attn_norm_2", "time_mix_ln")),
        *TIME_MIXING,
        *layer("time_mix_first"),
        *(f"blk.{{l}}.channel_mix_{part}" for part in ("lerp_k", "lerp_r", "key", "value", "receptance")),
    ),
    vocab=(vocab.rwkv_world,),
    drop=BUFFERS,
)

#: QRWKV6 has its five low-rank layers in another order than version 6.
FIVE = [3, 1, 2, 0, 4]
QRWKV6 = Arch(
    "rwkv6qwen2",
    hf=("RWKV6Qwen2ForCausalLM",),
    hparams=BASIC
    | u32("wkv.head_size", value=lambda f: f.number("hidden_size") // f.number("num_attention_heads"))
    | u32("time_mix_extra_dim", value=_wide(64, 32, "lora_rank_tokenshift"))
    | u32("time_decay_extra_dim", value=_wide(128, 64, "lora_rank_decay"))
    | u32("feed_forward_length", "intermediate_size", required=True)
    | FILE_TYPE
    | RMS_EPSILON
    | ONE_SHIFT
    | u32("attention.head_count_kv", "num_key_value_heads", required=True)
    | NO_HEADS,
    tensors=QWEN
    | Table(
        (
            *time_mixing(
                "model.layers.{l}.self_attn",
                TRANSPOSE | Rows(lambda rows, _: rows.reshape(5, -1)[FIVE].reshape(-1)),
                TRANSPOSE | Rows(lambda rows, _: rows[FIVE]),
                first=False,
            ),
            *(
                rule(f"blk.{{l}}.time_mix_{part}", f"model.layers.{{l}}.self_attn.{source}")
                for part, source in (("key", "k_proj"), ("value", "v_proj"), ("receptance", "q_proj"))
            ),
            rule("blk.{l}.time_mix_gate", "model.layers.{l}.self_attn.gate", ends=WEIGHT),
            rule("blk.{l}.time_mix_output", "model.layers.{l}.self_attn.o_proj", ends=WEIGHT),
        )
    ),
    needs=(*QWEN_NEEDS, *TIME_MIXING),
    vocab=(vocab.spm, vocab.bpe),
    renames=WRAPPERS,
    drop=BUFFERS,
    implied=SILU,
)

LAYER = "model.layers.{l}"
SEVENTH = f"{LAYER}.attention"


def _rank(exponent: float, times: float, *names: str) -> Number:
    """The rank of a low-rank layer: declared, or a power of the width, rounded to whole 32s."""

    def value(facts: Facts) -> int:
        if first_of(facts.config, *names) is not None:
            return facts.number(*names)
        return int(max(1, round(facts.number("hidden_size") ** exponent * times / 32))) * 32

    return value


def _has_gate(facts: Facts) -> bool:
    return bool(facts.config.get("wkv_has_gate", True))


def _has_no_gate(facts: Facts) -> bool:
    return not _has_gate(facts)


def _is_first(facts: Facts) -> bool:
    return facts.layer == 0


def _low_rank(out: str, source: str | None = None, **kwargs: object) -> tuple[Rule, ...]:
    """A low-rank layer's two matrices and what is added to it, in both implementations."""
    name = f"{SEVENTH}.{source or out}"
    found = (
        ("0", f"{name}0", SQUEEZE, "authors"),
        ("0", f"{name}_lora.lora.2.bias", COPY, "linear"),
        ("1", f"{name}1", TRANSPOSE, "authors"),
        ("1", f"{name}_lora.lora.0.weight", COPY, "linear"),
        ("2", f"{name}2", TRANSPOSE, "authors"),
        ("2", f"{name}_lora.lora.2.weight", COPY, "linear"),
    )
    return tuple(
        exact(f"blk.{{l}}.time_mix_{out}{part}.weight", given, verb=verb, variant=f"{variant} {source or ''}", **kwargs)
        for part, given, verb, variant in found
        if not (out == "g" and part == "0")
    )


TIME_MIXING_7: tuple[Rule, ...] = (
    # llama.cpp asks for these in the first layer, too, where nothing uses them.
    *_low_rank("v", "a", when=_is_first),
    *_low_rank("v"),
    *_low_rank("a"),
    *_low_rank("w"),
    *_low_rank("g"),
    *(exact(f"blk.{{l}}.time_mix_{part}.weight", f"{SEVENTH}.{part}", verb=FLAT) for part in ("k_a", "k_k", "r_k")),
    exact(
        "blk.{l}.time_mix_lerp_fused.weight", *(f"{SEVENTH}.x_{part}" for part in "rwkvag"), verb=FUSED, when=_has_gate
    ),
    *(
        rule(f"blk.{{l}}.time_mix_{part}", tuple(f"{SEVENTH}.{name}" for name in names), ends=WEIGHT)
        for part, names in (
            ("key", ("key", "k_proj")),
            ("value", ("value", "v_proj")),
            ("receptance", ("receptance", "r_proj")),
            ("output", ("output", "o_proj")),
        )
    ),
    rule("blk.{l}.time_mix_ln", f"{SEVENTH}.ln_x"),
)
NEEDS_7 = layer(
    *(f"time_mix_{part}{n}" for part in "wav" for n in "012"),
    *(f"time_mix_{part}" for part in ("lerp_fused", "k_k", "k_a", "r_k", "key", "value", "receptance", "output")),
)
GATE_7 = layer("time_mix_g1", "time_mix_g2")
RENAMES = (
    (r"blocks\.", "layers."),
    (r"\.(self_attn|attn)\.", ".attention."),
    (r"\.time_mixer\.", "."),
    (r"\.ffn\.", ".feed_forward."),
    (r"\.attention\.g_norm\.", ".attention.ln_x."),
    (r"\.attn_norm\.", ".ln1."),
    (r"\.ffn_norm\.", ".ln2."),
)
#: The first layer has no values to mix in; some checkpoints hold them nevertheless.
FIRST_VALUES = Drop(r"^model\.layers\.0\.attention\.(v[012]$|v_lora\.)", lambda _match, _facts: True)

RWKV7 = Arch(
    "rwkv7",
    hf=("Rwkv7ForCausalLM", "RWKV7ForCausalLM"),
    hparams=BASIC
    | NORM_EPSILON
    | HEAD_SIZE
    | u32("attention.decay_lora_rank", value=_rank(0.5, 1.8, "lora_rank_decay", "decay_low_rank_dim"))
    | u32("attention.iclr_lora_rank", value=_rank(0.5, 1.8, "lora_rank_iclr", "a_low_rank_dim"))
    | u32(
        "attention.value_residual_mix_lora_rank",
        value=_rank(0.5, 1.3, "lora_rank_value_residual_mix", "v_low_rank_dim"),
    )
    | u32("attention.gate_lora_rank", value=_rank(0.8, 0.6, "lora_rank_gate", "gate_low_rank_dim"))
    | u32("feed_forward_length", "intermediate_size", default=lambda facts: 4 * facts.number("hidden_size"))
    | FILE_TYPE
    | NO_HEADS,
    tensors=Table(
        (
            rule("token_embd", ("model.embeddings", "model.embed_tokens")),
            rule("token_embd_norm", ("model.layers.0.pre_norm", "model.pre_ln")),
            rule("output_norm", ("model.norm", "model.ln_out")),
            rule("output", ("lm_head", "head")),
            rule("blk.{l}.attn_norm", f"{LAYER}.ln1"),
            rule("blk.{l}.attn_norm_2", f"{LAYER}.ln2"),
            *TIME_MIXING_7,
            # All in one already.
            exact(
                "blk.{l}.time_mix_lerp_fused.weight",
                f"{SEVENTH}.x_x",
                variant="fused",
                verb=Reshape(lambda shape, _: (6, 1, 1, prod(shape) // 6)),
            ),
            *_plain(f"{LAYER}.feed_forward", ("channel_mix_lerp_k", "x_k")),
            rule("blk.{l}.channel_mix_key", f"{LAYER}.feed_forward.key", ends=WEIGHT),
            rule("blk.{l}.channel_mix_value", f"{LAYER}.feed_forward.value", ends=WEIGHT),
        )
    ),
    needs=(
        "token_embd",
        "output",
        *affine("token_embd_norm", "output_norm", *layer("attn_norm", "attn_norm_2", "time_mix_ln")),
        *NEEDS_7,
        *GATE_7,
        *layer("channel_mix_lerp_k", "channel_mix_key", "channel_mix_value"),
    ),
    vocab=(vocab.rwkv_world,),
    renames=RENAMES,
    drop=(*BUFFERS, FIRST_VALUES),
    implied=(("hidden_act", ("sqrelu", "relu2")), ("wkv_has_gate", (True,))),
)

ARWKV7 = Arch(
    "arwkv7",
    hf=("RwkvHybridForCausalLM",),
    hparams=BASIC
    | RMS_EPSILON
    | HEAD_SIZE
    # These are not declared, and the same in all models.
    | u32("attention.decay_lora_rank", value=lambda facts: 64)
    | u32("attention.iclr_lora_rank", value=lambda facts: 64)
    | u32("attention.value_residual_mix_lora_rank", value=lambda facts: 32)
    | u32("attention.gate_lora_rank", value=lambda facts: 128 if _has_gate(facts) else 0)
    | u32("feed_forward_length", "intermediate_size", required=True)
    | FILE_TYPE
    | ONE_SHIFT
    | NO_HEADS,
    tensors=QWEN
    | Table(tuple(row for row in TIME_MIXING_7 if not row.variant.startswith("linear")))
    | exact(
        "blk.{l}.time_mix_lerp_fused.weight",
        *(f"{SEVENTH}.x_{part}" for part in "rwkva"),
        verb=FUSED,
        variant="without gate",
        when=_has_no_gate,
    ),
    needs=(*QWEN_NEEDS, *NEEDS_7, optional(*GATE_7), optional(*affine(*layer("time_mix_ln")))),
    vocab=(vocab.spm, vocab.bpe),
    renames=(*WRAPPERS, *RENAMES),
    drop=(*BUFFERS, FIRST_VALUES),
    implied=(*SILU, ("wkv_version", (7,))),
)

ARCHS = (RWKV6, QRWKV6, RWKV7, ARWKV7)
