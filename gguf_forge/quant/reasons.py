"""Why a recipe gives a tensor another type than most, in words for people. Knows the predicates of recipe_table.py."""

from __future__ import annotations

from gguf_forge.names import Kind
from gguf_forge.quant import recipe_table as table

#: What most tensors get.
USUAL = "usual type"

_KINDS = {
    Kind.TOKEN_EMBD: "token embeddings",
    Kind.ATTN_Q: "queries",
    Kind.ATTN_K: "keys",
    Kind.ATTN_V: "values",
    Kind.ATTN_QKV: "queries, keys and values",
    Kind.ATTN_KV_B: "keys and values",
    Kind.ATTN_OUTPUT: "attention output",
    Kind.FFN_UP: "feed-forward up",
    Kind.FFN_GATE: "feed-forward gate",
    Kind.FFN_DOWN: "feed-forward down",
    Kind.OUTPUT: "output",
}
#: What holds for most models is not worth a word.
_UNSAID = frozenset({table.not_falcon})
_WORDS: dict[table.Predicate, str] = {
    table.falcon: "of Falcon",
    table.odd_width: "width of no whole blocks",
    table.grouped: "few key-value heads",
    table.grouped_or_experts: "few key-value heads, or experts",
    table.eight_experts: "eight experts",
    table.seventy_b: "a 70B model",
    table.scaled_matrix: "beside a scale of the whole",
    table.stacked_experts: "experts",
    table.glm5_latent: "of GLM5-next",
    table.imatrix: "with importance matrix",
    table.no_imatrix: "without importance matrix",
    table.first_two: "layers 0 and 1",
    table.first_four: "layers 0 to 3",
    table.first_sixteenth: "first 1/16 of layers",
    table.first_eighth: "first 1/8 of layers",
    table.first_eighth_counted: "first 1/8 of layers",
    table.middle: "middle layers",
    table.more_bits: "first, last and every third layer",
}


def why(row: table.Row, kind: Kind) -> str:
    """Why a row speaks for a tensor of this kind: "first 1/8 of layers", or the kind where nothing else decides."""
    when = ", ".join(_WORDS[predicate] for predicate in row.when if predicate not in _UNSAID)
    return when or _KINDS.get(kind, USUAL)
