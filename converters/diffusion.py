"""Models that fill in masked text, seeing all of it at once: Dream, LLaDA and its mixture of experts, RND1."""

from __future__ import annotations

from gguf_forge.convert import vocab
from gguf_forge.convert.arch import Arch, Hparam, Table, boolean, rule, u32
from gguf_forge.convert.facts import Facts
from gguf_forge.convert.rows import interleave_halves, number_of

from .common import (
    BASE,
    DECODER,
    GATED,
    HEADS,
    HEADS_KV,
    MIXTURE,
    QK_NORMS,
    QKV,
    SILU,
    TRUNK,
    WRAPPERS,
)
from .qwen import DROP, FUSED_EXPERTS, MOE_KEYS, POOLING, SPARSE

BOTH_WAYS = boolean("attention.causal", value=lambda facts: False, again=True)
MASK = u32("tokenizer.ggml.mask_token_id", "mask_token_id")
#: Logits stand at their own tokens, not at those before.
IN_PLACE = boolean("diffusion.shift_logits", value=lambda facts: False)


def _turned(facts: Facts) -> int:
    if facts.config.get("head_dim") is not None:
        return facts.number("head_dim")
    return facts.number("hidden_size", "d_model") // facts.number(*HEADS)


LLADA_KEYS: Table[Hparam] = (
    BASE
    | POOLING
    | u32("vocab_size", "vocab_size", required=True)
    | u32("rope.dimension_count", value=_turned)
    | u32("context_length", "max_sequence_length", again=True)
    | u32("embedding_length", "d_model", required=True, again=True)
    | u32("feed_forward_length", "mlp_hidden_size", required=True, again=True)
    | BOTH_WAYS
    | IN_PLACE
)

DREAM = Arch(
    "dream",
    hf=("DreamModel",),
    hparams=BASE | POOLING | BOTH_WAYS | MASK,
    tensors=DECODER,
    needs=(*TRUNK, *QKV, *GATED),
    vocab=(vocab.spm, vocab.bpe_with(as_flagged=True)),
    renames=WRAPPERS,
    drop=DROP,
    implied=SILU,
)
LLADA = Arch(
    "llada",
    hf=("LLaDAModelLM",),
    hparams=LLADA_KEYS,
    tensors=Table(
        (
            rule("token_embd", "model.transformer.wte"),
            rule("output_norm", "model.transformer.ln_f"),
            rule("output", "model.transformer.ff_out"),
            *(
                rule(f"blk.{{l}}.{out}", f"model.transformer.blocks.{{l}}.{name}")
                for out, name in (
                    ("attn_norm", "attn_norm"),
                    ("attn_v", "v_proj"),
                    ("attn_output", "attn_out"),
                    ("ffn_norm", "ff_norm"),
                    ("ffn_gate", "ff_proj"),
                    ("ffn_up", "up_proj"),
                    ("ffn_down", "ff_out"),
                )
            ),
            rule("blk.{l}.attn_q", "model.transformer.blocks.{l}.q_proj", verb=interleave_halves(number_of(*HEADS))),
            rule(
                "blk.{l}.attn_k",
                "model.transformer.blocks.{l}.k_proj",
                verb=interleave_halves(number_of(*HEADS_KV, *HEADS)),
            ),
        )
    ),
    needs=(*TRUNK, *QKV, *GATED),
    vocab=(vocab.bpe_with(as_flagged=True), vocab.adds(bos=True)),
    drop=DROP,
    implied=(("activation_type", ("silu", "swiglu")), ("block_type", ("llama",)), ("alibi", (False,))),
)
LLADA_MOE = Arch(
    "llada-moe",
    hf=("LLaDAMoEModelLM", "LLaDAMoEModel"),
    hparams=BASE
    | u32("expert_feed_forward_length", "expert_intermediate_size")
    | u32("tokenizer.ggml.mask_token_id", value=lambda facts: 156895)
    | BOTH_WAYS
    | IN_PLACE,
    tensors=SPARSE,
    needs=(*TRUNK, "output", *QKV, *QK_NORMS, *MIXTURE),
    vocab=(vocab.bpe,),
    renames=WRAPPERS,
    drop=DROP,
    implied=(*SILU, ("norm_topk_prob", (False,))),
)
RND1 = Arch(
    "rnd1",
    hf=("RND1",),
    hparams=MOE_KEYS | BOTH_WAYS | MASK,
    tensors=SPARSE | FUSED_EXPERTS,
    needs=(*TRUNK, *QKV, *QK_NORMS, *MIXTURE),
    vocab=(vocab.bpe,),
    renames=WRAPPERS,
    drop=DROP,
    implied=(*SILU, ("norm_topk_prob", (True,))),
)

ARCHS = (DREAM, LLADA, LLADA_MOE, RND1)
