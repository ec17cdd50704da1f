"""InternLM 2 and 3, and what InternVL has of them."""

from __future__ import annotations

from dataclasses import replace

from gguf_forge.convert import vocab
from gguf_forge.convert.arch import Arch, Table, rule
from gguf_forge.convert.facts import Facts
from gguf_forge.convert.ops import Rows
from gguf_forge.convert.rows import grouped
from gguf_forge.convert.view import Numbers

from .common import BASE, BUFFERS, GATED, MULTIMODAL, QKV, SILU, TRUNK, WRAPPERS
from .llama import DENSE, LLAMA, NEEDS

END_OF_TURN, NUL_INSTEAD = "<|im_end|>", "\U0001f409"


def _taken_apart(rows: Numbers, facts: Facts) -> tuple[Numbers, Numbers, Numbers]:
    """The rows of each head of keys: those of the queries that read it, its own, its values'.

    Of queries and keys the halves of a head turn together: llama.cpp turns neighbours.
    """
    heads, keys = facts.number("num_attention_heads"), facts.number("num_key_value_heads")
    by_group = grouped(rows, keys, heads // keys + 2).reshape(keys, heads // keys + 2, -1)

    def turned(part: Numbers) -> Numbers:
        return part.reshape(-1, 2, part.shape[-1] // 2).swapaxes(1, 2).reshape(-1)

    return turned(by_group[:, :-2]), turned(by_group[:, -2]), by_group[:, -1].reshape(-1)


LAYER = "model.layers.{l}"


@vocab.loader
def internlm2(job: vocab.VocabJob) -> vocab.Keys | None:
    """Pieces and the added tokens of all files, with the end of a turn as EOS. A NUL, which no C string holds, becomes
    what no text has.
    """
    tokens = vocab.read_pieces(job)
    if tokens is None:
        return None
    tokens.types = [
        vocab.TokenType.UNUSED if token.startswith("[UNUSED") else kind
        for token, kind in zip(tokens.tokens, tokens.types, strict=True)
    ]
    tokens.tokens = [NUL_INSTEAD if text == "\0" else text for text in tokens.tokens]
    for _, token in vocab.file_entries(job.folder):
        tokens.put(len(tokens.tokens), token, vocab.TokenType.USER_DEFINED)
    added = [*(vocab.config_entries(job.folder) or {}).items(), *vocab.json_entries(job.folder)]
    for number, entry in added:
        kind = vocab.TokenType.CONTROL if vocab.is_special(entry) else vocab.TokenType.USER_DEFINED
        tokens.put(number, vocab.text_of(entry) or "", kind)
    ends = [number for number, entry in added if vocab.text_of(entry) == END_OF_TURN]
    prefix = vocab.read_piece_model(job.directory / "tokenizer.model").dummy_prefix
    special = vocab.finish(job, tokens, force={"eos": ends[-1]} if ends else None, only_special=True)
    spaced = vocab.space_prefix(prefix)(job) or {}
    return {**tokens.values(), **{key: value for key, value in spaced.items() if value is not None}, **special}


INTERNLM2 = Arch(
    "internlm2",
    hf=("InternLM2ForCausalLM",),
    hparams=BASE,
    tensors=Table(
        (
            rule("token_embd", "model.tok_embeddings"),
            rule("output_norm", "model.norm"),
            rule("output", "output"),
            rule("blk.{l}.attn_norm", f"{LAYER}.attention_norm"),
            rule(QKV, f"{LAYER}.attention.wqkv", verb=Rows(_taken_apart)),
            rule("blk.{l}.attn_output", f"{LAYER}.attention.wo"),
            rule("blk.{l}.ffn_norm", f"{LAYER}.ffn_norm"),
            rule("blk.{l}.ffn_gate", f"{LAYER}.feed_forward.w1"),
            rule("blk.{l}.ffn_down", f"{LAYER}.feed_forward.w2"),
            rule("blk.{l}.ffn_up", f"{LAYER}.feed_forward.w3"),
        )
    ),
    needs=(*TRUNK, "output", *QKV, *GATED),
    vocab=(internlm2, vocab.bpe),
    renames=WRAPPERS,
    drop=(*BUFFERS, *MULTIMODAL),
    implied=SILU,
)


@vocab.loader
def internlm3(job: vocab.VocabJob) -> vocab.Keys | None:
    """Pieces, with the end of a turn as EOS."""
    tokens = vocab.read_spm(job)
    if tokens is None:
        return None
    added = (vocab.config_entries(job.folder) or {}).items()
    ends = [number for number, entry in added if vocab.is_special(entry) and vocab.text_of(entry) == END_OF_TURN]
    special = dict(vocab.finish(job, tokens, only_special=True))
    if ends and "tokenizer.ggml.eos_token_id" in special:
        special |= vocab.ids(eos=ends[-1])(job) or {}  # type: ignore[arg-type]
    spaced = vocab.config_space_prefix(job) or {}
    return {**tokens.values(), **{key: value for key, value in spaced.items() if value is not None}, **special}


INTERNLM3 = replace(
    LLAMA,
    hf=("InternLM3ForCausalLM",),
    tensors=DENSE,
    needs=(*NEEDS, *GATED),
    vocab=(internlm3, vocab.bpe),
)

ARCHS = (INTERNLM2, INTERNLM3)
