"""PLaMo, PLaMo 2, whose layers keep a state and attend in turns, and PLaMo 3, which attends, mostly within a window."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from gguf_forge.convert import vocab
from gguf_forge.convert.arch import WEIGHT, Arch, Either, Hparam, Rule, Table, exact, f32, rule, string, u32
from gguf_forge.convert.config import block_count, need
from gguf_forge.convert.facts import Facts
from gguf_forge.convert.ops import NEG_EXP, SQUEEZE, Columns, Elementwise, Rows
from gguf_forge.convert.rope import rope_of
from gguf_forge.convert.view import Numbers

from .common import BASE, BUFFERS, FILE_TYPE, GATED, QKV, SILU, layer
from .rotary import pretraining_context, rope_value, scaling

LAYER = "model.layers.layers.{l}"


def _by_key_head(numbers: Numbers, facts: Facts) -> Numbers:
    """Query heads in the order of the key heads they share: PLaMo has the sharing as its outer axis."""
    shared = _shared(facts)
    return numbers.reshape(shared, facts.number("num_attention_heads") // shared, -1).swapaxes(0, 1).reshape(-1)


def _shared(facts: Facts) -> int:
    """How many query heads share one of keys."""
    return facts.number("n_shared_head") if facts.config.get("n_shared_head") is not None else 8


PLAMO = Arch(
    "plamo",
    hf=("PlamoForCausalLM",),
    hparams=Table(
        (
            u32("context_length", value=lambda facts: 4096),
            u32("embedding_length", "hidden_size", required=True),
            u32("feed_forward_length", "intermediate_size", required=True),
            u32("block_count", value=lambda facts: block_count(facts.config)),
            u32("attention.head_count", "num_attention_heads", required=True),
            u32("attention.head_count_kv", value=lambda f: f.number("num_attention_heads") // _shared(f)),
            f32("attention.layer_norm_rms_epsilon", "rms_norm_eps", required=True),
            FILE_TYPE,
        )
    ),
    tensors=Table(
        (
            rule("token_embd", "model.embed_tokens"),
            rule("output_norm", "model.norm"),
            rule("output", "lm_head"),
            rule("blk.{l}.attn_norm", f"{LAYER}.norm"),
            rule("blk.{l}.attn_q", f"{LAYER}.self_attn.q_proj", ends=WEIGHT, verb=Rows(_by_key_head)),
            rule("blk.{l}.attn_k", f"{LAYER}.self_attn.k_proj", ends=WEIGHT),
            rule("blk.{l}.attn_v", f"{LAYER}.self_attn.v_proj", ends=WEIGHT),
            rule("blk.{l}.attn_output", f"{LAYER}.self_attn.o_proj", ends=WEIGHT, verb=Columns(_by_key_head)),
            *(
                rule(f"blk.{{l}}.ffn_{part}", f"{LAYER}.mlp.{part}_proj", ends=WEIGHT)
                for part in ("gate", "up", "down")
            ),
        )
    ),
    needs=("token_embd", "output_norm", "output", *layer("attn_norm", "attn_output"), *QKV, *GATED),
    vocab=(vocab.spm,),
    drop=BUFFERS,
    implied=SILU,
)


def more(term: float) -> Elementwise:
    """Every element and a number. A sum of float16 is rounded to float16, the number not."""

    def add(x: Any, _: Facts) -> Any:
        return (x.astype(np.float32) + np.float32(term)).astype(x.dtype)

    def subtract(x: Any, _: Facts) -> Any:
        return (x.astype(np.float32) - np.float32(term)).astype(x.dtype)

    return Elementwise(add, subtract)


#: What PLaMo 2 and 3 have in common. Norms are stored less what they begin with; two of them have no ending in GGUF.
SECOND: Table[Rule] = Table(
    (
        rule("token_embd", "model.embed_tokens", ends=WEIGHT),
        rule("output_norm", "model.norm", ends=WEIGHT, verb=more(1.0)),
        rule("output", "lm_head", ends=WEIGHT),
        rule("blk.{l}.attn_norm", f"{LAYER}.pre_mixer_norm", ends=WEIGHT, verb=more(1.0)),
        exact("blk.{l}.post_attention_norm", f"{LAYER}.post_mixer_norm.weight", verb=more(1.0 / 5)),
        rule("blk.{l}.ffn_norm", f"{LAYER}.pre_mlp_norm", ends=WEIGHT, verb=more(1.0)),
        exact("blk.{l}.post_ffw_norm", f"{LAYER}.post_mlp_norm.weight", verb=more(1.0 / 5**1.5)),
        rule("blk.{l}.attn_qkv", f"{LAYER}.mixer.qkv_proj", ends=WEIGHT),
        rule("blk.{l}.attn_output", f"{LAYER}.mixer.o_proj", ends=WEIGHT),
        # Gate and up projection in one.
        rule("blk.{l}.ffn_up", f"{LAYER}.mlp.gate_up_proj", ends=WEIGHT),
        rule("blk.{l}.ffn_down", f"{LAYER}.mlp.down_proj", ends=WEIGHT),
    )
)
NEEDS = (
    "token_embd",
    "output_norm",
    *layer("attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm", "ffn_up", "ffn_down"),
)
ATTENDS = layer("attn_qkv", "attn_output", "attn_q_norm", "attn_k_norm")


def _keeps_state(facts: Facts) -> list[bool]:
    """Which layers keep a state: all but the one in the middle of each `mamba_step`; of few layers all but the last."""
    layers, step = block_count(facts.config), facts.config.get("mamba_step", 2)
    if not facts.config.get("mamba_enabled", True):
        return [False] * layers
    if layers <= step // 2:
        return [i != layers - 1 for i in range(layers)]
    return [i % step != step // 2 for i in range(layers)]


def _where_attends(key: str, default: int) -> Callable[[Facts], list[int]]:
    return lambda facts: [0 if keeps else facts.config.get(key, default) for keeps in _keeps_state(facts)]


HEAD = {"default": 128}
PLAMO2_KEYS: Table[Hparam] = Table(
    (
        u32("vocab_size", "vocab_size", required=True),
        u32("attention.head_count_kv", value=_where_attends("num_key_value_heads", 4)),
        u32("attention.head_count", value=_where_attends("num_attention_heads", 32)),
        u32("context_length", "max_position_embeddings", default=2048),
        u32("embedding_length", "hidden_size", default=4096),
        u32("attention.key_length", "hidden_size_per_head", **HEAD),
        u32("attention.value_length", "hidden_size_per_head", **HEAD),
        u32("block_count", value=lambda facts: block_count(facts.config)),
        f32("attention.layer_norm_rms_epsilon", "rms_norm_eps", default=1e-6),
        f32("rope.freq_base", value=rope_value("rope_theta"), default=10000),
        u32("ssm.state_size", "mamba_d_state", default=64),
        u32("ssm.conv_kernel", "mamba_d_conv", default=4),
        u32("ssm.time_step_rank", "mamba_num_heads", default=64),
        u32(
            "ssm.inner_size",
            value=lambda f: f.config.get("mamba_num_heads", 64) * f.config.get("hidden_size_per_head", 128),
        ),
        u32("ssm.group_count", value=lambda facts: 0),
        u32("feed_forward_length", "intermediate_size", default=13312),
        FILE_TYPE,
    )
)
MIXER = f"{LAYER}.mixer"
PLAMO2 = Arch(
    "plamo2",
    hf=("Plamo2ForCausalLM", "PLaMo2ForCausalLM"),
    hparams=PLAMO2_KEYS,
    tensors=SECOND
    | Table(
        (
            exact("blk.{l}.attn_q_norm.weight", f"{MIXER}.q_weight"),
            exact("blk.{l}.attn_k_norm.weight", f"{MIXER}.k_weight"),
            exact("blk.{l}.ssm_a", f"{MIXER}.A_log", verb=NEG_EXP),
            exact("blk.{l}.ssm_d", f"{MIXER}.D"),
            rule("blk.{l}.ssm_in", f"{MIXER}.in_proj", ends=WEIGHT),
            rule("blk.{l}.ssm_conv1d", f"{MIXER}.conv1d", ends=WEIGHT, verb=SQUEEZE),
            rule("blk.{l}.ssm_x", f"{MIXER}.bcdt_proj", ends=WEIGHT),
            rule("blk.{l}.ssm_dt", f"{MIXER}.dt_proj", ends=WEIGHT),
            exact("blk.{l}.ssm_dt.bias", f"{MIXER}.dt_bias"),
            rule("blk.{l}.ssm_out", f"{MIXER}.out_proj", ends=WEIGHT),
            *(exact(f"blk.{{l}}.ssm_{part.lower()}_norm", f"{MIXER}.{part}_norm_weight") for part in ("dt", "B", "C")),
        )
    ),
    needs=(
        *NEEDS,
        Either(
            (
                ATTENDS,
                layer(
                    *(f"ssm_{part}" for part in ("a", "d", "in", "conv1d", "x", "dt", "dt.bias", "out")),
                    *(f"ssm_{part}_norm" for part in ("dt", "b", "c")),
                ),
            )
        ),
    ),
    vocab=(vocab.plamo,),
    drop=BUFFERS,
    implied=SILU,
)


def _stretch(facts: Facts) -> float | None:
    """How far YaRN stretches the context, where the configuration says so by PLaMo 3's own key."""
    factor = facts.config.get("rope_scaling_factor", 1)
    return None if factor == 1 or "rope_type" in rope_of(facts.config) else float(factor)


def _or_stretched(usual: Callable[[Facts], Any], stretched: Callable[[Facts], Any]) -> dict[str, Any]:
    """A row's value: `stretched` where PLaMo 3's own key stretches the context, else that of any text model."""
    return {"value": lambda facts: usual(facts) if _stretch(facts) is None else stretched(facts)}


@vocab.step
def template(job: vocab.VocabJob) -> vocab.Changes | None:
    """The chat template, which PLaMo's vocabulary does not bring along."""
    text = job.folder.text("chat_template.jinja") or job.settings.get("chat_template")
    return vocab.template(text)(job) if isinstance(text, str) and text else None


def _window(facts: Facts) -> Any:
    """The window of most layers."""
    return facts.config.get("window_size", facts.config.get("sliding_window"))


PLAMO3 = Arch(
    "plamo3",
    hf=("Plamo3ForCausalLM", "PLaMo3ForCausalLM"),
    hparams=BASE
    | string("rope.scaling.type", **_or_stretched(scaling, lambda facts: "yarn"))
    | f32("rope.scaling.factor", **_or_stretched(rope_value("factor", only=("linear", "yarn")), _stretch))
    | u32(
        "rope.scaling.original_context_length",
        **_or_stretched(pretraining_context, lambda f: f.number("initial_context_length")),
    )
    | f32("rope.scaling.yarn_beta_fast", **_or_stretched(rope_value("beta_fast", only=("yarn",)), lambda facts: 32.0))
    | f32("rope.scaling.yarn_beta_slow", **_or_stretched(rope_value("beta_slow", only=("yarn",)), lambda facts: 1.0))
    | u32("vocab_size", "vocab_size", required=True)
    | u32("attention.sliding_window", value=_window)
    | u32(
        "attention.sliding_window_pattern",
        value=lambda f: None if _window(f) is None else need(f.config, "sliding_window_pattern"),
    ),
    tensors=SECOND
    | rule("blk.{l}.attn_q_norm", f"{MIXER}.q_norm", ends=WEIGHT, verb=more(1.0))
    | rule("blk.{l}.attn_k_norm", f"{MIXER}.k_norm", ends=WEIGHT, verb=more(1.0)),
    needs=(*NEEDS, *ATTENDS),
    vocab=(vocab.plamo3, template),
    drop=BUFFERS,
    implied=SILU,
)

ARCHS = (PLAMO, PLAMO2, PLAMO3)
