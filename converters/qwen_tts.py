"""The talker of Qwen3-TTS: a Qwen3 that reads text and codec tokens and writes codec tokens.

The projection through which the text's embedding passes is folded into it: readers know one embedding, the text's rows
and then the codec's.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gguf_forge.convert import vocab
from gguf_forge.convert.arch import Arch, Hparam, Table, array, boolean, exact, rule, u32
from gguf_forge.convert.facts import Facts
from gguf_forge.convert.ops import Verb
from gguf_forge.convert.view import F32, Array, Kept, View, widen
from gguf_forge.errors import ConversionError
from gguf_forge.format.layout import ValueType

from .common import BASE, BUFFERS, DECODER, GATED, QK_NORM, QK_NORMS, QKV, SILU, TRUNK

#: Of the codec's tokens, all beyond the first that can be heard, but for the end.
UNHEARD = 1024


def _in_double(part: View) -> Kept:
    """All values of a small tensor as float64, kept while they are asked for."""
    return Kept(lambda _: widen(part.read(), part.type).astype(np.float64))


class Folded(Verb):
    """An embedding and what a projection with one hidden layer makes of each of its rows, and then other rows.

    Of (embedding, weight, bias, weight, bias, rows below): silu(x W1' + b1) W2' + b2, calculated in float64 and rounded
    once, so that no CPU's order of sums shows.
    """

    def views(self, sources: Sequence[View], facts: Facts) -> list[View]:
        """The one embedding."""
        activation = facts.config.get("hidden_act")
        if activation != "silu":
            raise ConversionError(f"config.json: only silu can be folded, hidden_act is {activation!r}")
        text, *projection, below = sources
        first, first_bias, second, second_bias = (_in_double(part) for part in projection)
        if below.width != projection[2].shape[0]:
            raise ConversionError(f"{below.name} {list(below.shape)} is not as wide as {projection[2].name} is high")

        def folded(start: int, stop: int) -> Array:
            inner = widen(text.rows(start, stop), text.type).astype(np.float64) @ first.get(0).T + first_bias.get(0)
            inner /= 1 + np.exp(-inner)
            return (inner @ second.get(0).T + second_bias.get(0)).astype(np.float32)

        def rows(start: int, stop: int) -> Array:
            edge = min(max(text.count, start), stop)
            parts = [folded(start, edge)] if start < edge else []
            if edge < stop:
                parts.append(widen(below.rows(edge - text.count, stop - text.count), below.type).astype(np.float32))
            return np.concatenate(parts) if parts else np.empty((0, below.width), np.float32)

        return [View(text.name, (text.count + below.count, below.width), F32, rows)]


def _text_rows(facts: Facts) -> int:
    return facts.number("text_vocab_size")


def _end(facts: Facts) -> int:
    """The codec's end, a row of the embedding."""
    return _text_rows(facts) + facts.number("codec_eos_token_id")


def _unheard(facts: Facts) -> list[int]:
    """Tokens that must not be written: readers give those of the text no chance at all."""
    last = _text_rows(facts) + facts.number("vocab_size")
    return [number for number in range(last - UNHEARD, last) if number != _end(facts)]


def _codec_tokens(job: vocab.VocabJob, tokens: vocab.Vocabulary) -> vocab.Vocabulary:
    """With the codec's tokens after the text's: numbered, but for those that config.json names."""
    names = [f"<|codec_{number}|>" for number in range(job.config["talker_config"]["vocab_size"])]
    for key, value in job.config["talker_config"].items():
        if not key.endswith("_id"):
            continue
        kind = key.removesuffix("_id")
        for name, number in value.items() if isinstance(value, dict) else ((None, value),):
            if isinstance(number, int):
                names[number] = f"<|{kind}|>" if name is None else f"<|{kind}_{name}|>"
    for name in names:
        tokens.put(len(tokens.tokens), name, vocab.TokenType.CONTROL, 0.0)
    return tokens


@vocab.step
def no_template(_: vocab.VocabJob) -> vocab.Changes:
    """No chat template: there is nothing to chat with."""
    return {"tokenizer.chat_template": None}


KEYS: Table[Hparam] = BASE | Table(
    (
        array("tokenizer.ggml.suppress_tokens", ValueType.INT32, value=_unheard),
        u32("tokenizer.ggml.eos_token_id", value=_end),
        boolean("tokenizer.ggml.add_eos_token", value=lambda facts: False),
    )
)

QWEN3_TTS = Arch(
    "qwen3tts",
    hf=("Qwen3TTSForConditionalGeneration",),
    hparams=KEYS,
    tensors=DECODER.without("token_embd", "output")
    | QK_NORM
    | rule("output", "codec_head")
    | exact(
        "token_embd.weight",
        "model.text_embedding.weight",
        *(f"text_projection.linear_fc{n}.{part}" for n in (1, 2) for part in ("weight", "bias")),
        "model.codec_embedding.weight",
        verb=Folded(),
    ),
    needs=(*TRUNK, "output", *QKV, *QK_NORMS, *GATED),
    vocab=(
        vocab.sized(
            lambda job: job.config["text_vocab_size"],
            vocab.spm_with(edit=_codec_tokens),
            vocab.together(vocab.bpe_with(edit=_codec_tokens), no_template),
        ),
    ),
    renames=((r"^talker\.", ""),),
    drop=(*BUFFERS, r"^speaker_encoder\.", r"^talker\.code_predictor\."),
    implied=SILU,
)

ARCHS = (QWEN3_TTS,)
