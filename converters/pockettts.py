"""Pocket TTS: the language model that turns text into latents of sound. Its checkpoints have no config.json."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from gguf_forge.convert import vocab
from gguf_forge.convert.arch import WEIGHT, Arch, Table, exact, rule
from gguf_forge.convert.facts import Facts
from gguf_forge.convert.ops import Whole
from gguf_forge.convert.rows import equal_parts
from gguf_forge.convert.vocab.tokens import ADDED_SCORE
from gguf_forge.source.checkpoint import Checkpoint

from .common import BASE, QKV, affine, layer

MODEL = "flow_lm"
LAYER = f"{MODEL}.transformer.layers.{{l}}"
EMBEDDING = f"{MODEL}.conditioner.embed.weight"
BEGIN, VOICE = f"{MODEL}.bos_emb", f"{MODEL}.bos_before_voice"
#: Elements of a head, which the tensors do not tell: the same in all models.
HEAD = 64
Array = npt.NDArray[np.float32]


def configure(checkpoint: Checkpoint) -> dict[str, Any] | None:
    """What the shapes say of a model of this family."""
    shapes = {name: tensor.shape for name, tensor in checkpoint.tensors.items()}
    known = {BEGIN, EMBEDDING, LAYER.format(l=0) + ".linear1.weight"} <= shapes.keys()
    if not known or checkpoint.read_json("config.json") is not None:
        return None
    tokens, width = shapes[EMBEDDING]
    layers = sum(f"{LAYER.format(l=i)}.norm1.weight" in shapes for i in range(len(shapes)))
    extra = ["<|pad|>", *(["<|bos_before_voice|>"] if VOICE in shapes else []), "<|audio_bos|>"]
    return {
        "architectures": ["PocketTTSModel"],
        "model_type": "pockettts",
        "num_hidden_layers": layers,
        "hidden_size": width,
        "intermediate_size": shapes[LAYER.format(l=0) + ".linear1.weight"][0],
        # There is no limit; this is what a reader makes room for.
        "max_position_embeddings": 4096,
        "num_attention_heads": width // HEAD,
        # The embedding ends with a row for padding, and is followed by inputs that are learned.
        "vocab_size": tokens + len(extra) - 1,
        "extra_tokens": extra,
        "rope_theta": 10000.0,
        "layer_norm_eps": 1e-5,
    }


def _rounded(values: Array, dtype: str) -> Array:
    """To the nearest value of the embedding's type, ties to even."""
    if dtype == "F16":
        return values.astype(np.float16).astype(np.float32)
    if dtype != "BF16":
        return values
    bits = values.view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000).astype(np.uint32).view(np.float32)


def _embedding(parts: list[Any], facts: Facts) -> Any:
    """The embedding, and the learned inputs after it: the last is a latent, which goes through the input layer first.

    Through float64, which rounds to the same float32 on every CPU.
    """
    table, latent, inward, *voice = (np.asarray(part, np.float32) for part in parts)
    begin = (inward.astype(np.float64) @ latent.astype(np.float64)).astype(np.float32)
    rows = [*(v.reshape(1, -1) for v in voice), begin.reshape(1, -1)]
    return np.concatenate([table, *(_rounded(row, facts.headers[EMBEDDING].dtype) for row in rows)])


WITH_INPUTS = Whole(_embedding, lambda shapes, _: (shapes[0][0] + len(shapes) - 2, shapes[0][1]))
INPUTS = (EMBEDDING, BEGIN, f"{MODEL}.input_linear.weight")


@vocab.loader
def pocket_tts(job: vocab.VocabJob) -> vocab.Keys | None:
    """Unigram pieces; the last rows of the embedding are the learned inputs, which no text makes."""
    found = vocab.read_unigram(job, "tokenizer.model")
    tokens, extra = found.vocabulary, job.config["extra_tokens"]
    for number, name in enumerate(extra, len(tokens.tokens) - len(extra)):
        tokens.put(number, name, vocab.TokenType.CONTROL, ADDED_SCORE)
    return found.values()


POCKET_TTS = Arch(
    "pockettts",
    hf=("PocketTTSModel",),
    hparams=BASE,
    tensors=Table(
        (
            exact("token_embd.weight", *INPUTS, verb=WITH_INPUTS, when=lambda facts: not facts.has(VOICE)),
            exact("token_embd.weight", *INPUTS, VOICE, verb=WITH_INPUTS, variant="voice"),
            rule("output_norm", f"{MODEL}.out_norm"),
            rule("blk.{l}.attn_norm", f"{LAYER}.norm1"),
            rule("blk.{l}.ffn_norm", f"{LAYER}.norm2"),
            rule(QKV, f"{LAYER}.self_attn.in_proj", ends=WEIGHT, verb=equal_parts(3)),
            rule("blk.{l}.attn_output", f"{LAYER}.self_attn.out_proj", ends=WEIGHT),
            rule("blk.{l}.ffn_up", f"{LAYER}.linear1", ends=WEIGHT),
            rule("blk.{l}.ffn_down", f"{LAYER}.linear2", ends=WEIGHT),
        )
    ),
    needs=(
        "token_embd",
        *affine("output_norm", *layer("attn_norm", "ffn_norm")),
        *QKV,
        *layer("attn_output", "ffn_up", "ffn_down"),
    ),
    vocab=(pocket_tts, vocab.adds(bos=False, eos=False)),
    # The codec, the flow that refines latents, and the voice's projection: parts for sound.
    drop=(r"^mimi\.", r"^flow_lm\.(flow_net|out_eos|emb_mean|emb_std|speaker_proj_weight)"),
    configure=configure,
)

ARCHS = (POCKET_TTS,)
