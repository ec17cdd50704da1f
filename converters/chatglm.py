"""ChatGLM3, GLM-4 of June 2024 and GLM-Edge, in their own layout or in transformers'."""

from __future__ import annotations

from typing import Any

from gguf_forge.convert import vocab
from gguf_forge.convert.arch import Arch, Either, Table, boolean, f32, rule, u32
from gguf_forge.convert.facts import Facts
from gguf_forge.convert.rope import rope_of
from gguf_forge.convert.vocab import TokenType

from .common import BUFFERS, FILE_TYPE, MULTIMODAL, QKV, SILU, TRUNK, layer
from .rotary import turned

ROLES = ("<|system|>", "<|user|>", "<|assistant|>", "<|observation|>")
SPECIAL = ("[MASK]", "[gMASK]", "[sMASK]", "sop", "eop", *ROLES)
FILL = {"eos": "<|endoftext|>", "eot": "<|user|>", "unk": "<|endoftext|>"}


@vocab.loader
def chatglm3(job: vocab.VocabJob) -> vocab.Keys | None:
    """ChatGLM3's SentencePiece vocabulary with nine special tokens after its pieces."""
    named = "chatglm3" in str(job.config.get("_name_or_path", ""))
    if not named and ROLES[-1] not in (job.folder.text("tokenization_chatglm.py") or ""):
        return None
    pieces = vocab.read_pieces(job)
    if pieces is None:
        return None
    pieces.pre = "chatglm-spm"
    pieces.tokens[:3] = ["<unk>", "<bos>", "<eos>"]
    for token in SPECIAL:
        pieces.put(len(pieces.tokens), token, TokenType.CONTROL, 0.0)
    for number in range(len(pieces.tokens), job.count("padded_vocab_size") or 0):
        pieces.put(number, f"[PAD{number}]", TokenType.UNUSED, 0.0)
    return vocab.finish(job, pieces)


@vocab.loader
def ranks(job: vocab.VocabJob) -> vocab.Keys | None:
    """GLM-4's own tokenizer.model, a file of ranks."""
    tokens = vocab.read_ranks_vocabulary(job)
    return None if tokens is None else vocab.finish(job, tokens, limited=False, fill=FILL)


def _theta(facts: Facts) -> Any:
    """The rotary base, which the older layout gives as a ratio."""
    if "rope_ratio" in facts.config:
        return 10000 * facts.config["rope_ratio"]
    return rope_of(facts.config).get("rope_theta", 10000)


def _head(facts: Facts) -> int:
    if "attention_dim" in facts.config:
        return facts.number("attention_dim")
    return facts.number("hidden_size") // facts.number("num_attention_heads")


LAYER, NEW = "encoder.layers.{l}", "model.layers.{l}"

CHATGLM = Arch(
    "chatglm",
    hf=("ChatGLMModel", "ChatGLMForConditionalGeneration", "GlmForCausalLM"),
    hparams=Table(
        (
            u32("context_length", "seq_length", "max_position_embeddings", required=True),
            u32("embedding_length", "hidden_size", "n_embed", required=True),
            u32("feed_forward_length", "ffn_hidden_size", "intermediate_size", required=True),
            u32("block_count", "num_layers", "num_hidden_layers", required=True),
            u32("attention.head_count", "n_head", "num_attention_heads", required=True),
            u32("attention.head_count_kv", "multi_query_group_num", "num_key_value_heads", required=True),
            f32("attention.layer_norm_rms_epsilon", "layernorm_epsilon", "rms_norm_eps", default=1e-5),
            FILE_TYPE,
            u32("rope.dimension_count", value=turned(0.5, _head)),
            boolean("tokenizer.ggml.add_bos_token", value=lambda facts: False),
            f32("rope.freq_base", value=_theta),
        )
    ),
    tensors=Table(
        (
            rule("token_embd", ("embedding.word_embeddings", "model.embed_tokens")),
            rule("output_norm", ("encoder.final_layernorm", "model.norm")),
            rule("output", ("output_layer", "lm_head")),
            rule("blk.{l}.attn_norm", (f"{LAYER}.input_layernorm", f"{NEW}.input_layernorm")),
            rule("blk.{l}.attn_qkv", f"{LAYER}.self_attention.query_key_value"),
            *(rule(f"blk.{{l}}.attn_{part}", f"{NEW}.self_attn.{part}_proj") for part in "qkv"),
            rule("blk.{l}.attn_output", (f"{LAYER}.self_attention.dense", f"{NEW}.self_attn.o_proj")),
            rule("blk.{l}.ffn_norm", (f"{LAYER}.post_attention_layernorm", f"{NEW}.post_attention_layernorm")),
            rule("blk.{l}.ffn_up", (f"{LAYER}.mlp.dense_h_to_4h", f"{NEW}.mlp.gate_up_proj")),
            rule("blk.{l}.ffn_down", (f"{LAYER}.mlp.dense_4h_to_h", f"{NEW}.mlp.down_proj")),
        )
    ),
    needs=(*TRUNK, Either((layer("attn_qkv"), QKV)), *layer("ffn_up", "ffn_down")),
    vocab=(
        chatglm3,
        vocab.sized(lambda job: job.count("padded_vocab_size"), vocab.bpe_with(fill=FILL)),
        vocab.sized(lambda job: job.count("padded_vocab_size"), ranks),
    ),
    renames=((r"^transformer\.", ""),),
    drop=(*BUFFERS, *MULTIMODAL, r"\.?rotary_pos_emb\.inv_freq$"),
    implied=SILU,
)

ARCHS = (CHATGLM,)
