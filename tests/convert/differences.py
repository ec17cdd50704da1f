"""Where files differ from the reference's on purpose: keys, and the section of docs/differences.md that says why.

Data only. `ZOO` is by checkpoint of the zoo, `VOCAB` by case of fixtures/vocab/cases.json.xz, `KINDS` of
kinds.json.xz; everything that a row does not name must be the reference's, and what it names must not be. `CONVERTED`
are cases of cases.json.xz that the reference refuses and this package converts.
"""

from __future__ import annotations

from dataclasses import dataclass

SCORES = "SentencePiece vocabularies in tokenizer.json alone"
RUNS = "Runs of spaces in XLM-RoBERTa's vocabulary"
SIZE = "As many tokens as the embedding has rows"
TEMPLATES = "Which chat template"


@dataclass(frozen=True)
class Difference:
    """Keys whose values are others, and the sections that say why."""

    keys: frozenset[str]
    sections: tuple[str, ...]


def _differs(*keys: str, why: tuple[str, ...]) -> Difference:
    return Difference(frozenset(keys), why)


_RANKED = _differs("tokenizer.ggml.scores", why=(SCORES,))
_SHORTER = _differs("tokenizer.ggml.tokens", "tokenizer.ggml.scores", "tokenizer.ggml.token_type", why=(SCORES, SIZE))
_TEMPLATE = _differs("tokenizer.chat_template", why=(TEMPLATES,))

_JOINED = _differs("tokenizer.ggml.remove_extra_whitespaces", why=(RUNS,))

ZOO: dict[str, Difference] = {
    "Llama-3_1-Nemotron-Ultra-253B-v1": _RANKED,
    "bge-m3-tokenizer-json-only": _JOINED,
}

KINDS: dict[str, Difference] = {"xlmr-json": _JOINED}

VOCAB: dict[str, Difference] = {
    "llama/no-model": _RANKED,
    "llama/no-model-added": _SHORTER,
    "llama/template-both": _TEMPLATE,
    "gemma/template-both": _TEMPLATE,
    "gemma3/template-both": _TEMPLATE,
    "phi3/template-both": _TEMPLATE,
    "qwen2/template-both": _TEMPLATE,
    "llama-bpe/template-both": _TEMPLATE,
    "gpt2/template-both": _TEMPLATE,
    "bert/template-both": _TEMPLATE,
}

CONVERTED: dict[str, str] = {
    "phi3/too-small": SIZE,
    "phi3/no-model": SCORES,
    "phi3/no-model-added": SCORES,
    "phi3/class-gpt2": SCORES,
    "gemma/no-model": SCORES,
    "gemma/no-model-added": SCORES,
    "gemma3/no-model": SCORES,
    "gemma3/no-model-added": SCORES,
}
