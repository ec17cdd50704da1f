"""The recipes of llama.cpp as rows: which file types exist, and which tensor gets which type under each.

Data and the small predicates it is written in; knows no files, no options and no order of evaluation beyond "the first
row that fits decides". Facts from llama.cpp: include/llama.h (numbers), src/llama-quant.cpp (choices),
tools/quantize/quantize.cpp (names and aliases). `recipe.py` reads the rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gguf_forge.names import Kind

# name, general.file_type, default type
RECIPES = (
    ("F32", 0, "F32"),
    ("F16", 1, "F16"),
    ("Q4_0", 2, "Q4_0"),
    ("Q4_1", 3, "Q4_1"),
    ("Q8_0", 7, "Q8_0"),
    ("Q5_0", 8, "Q5_0"),
    ("Q5_1", 9, "Q5_1"),
    ("Q2_K", 10, "Q2_K"),
    ("Q3_K_S", 11, "Q3_K"),
    ("Q3_K_M", 12, "Q3_K"),
    ("Q3_K_L", 13, "Q3_K"),
    ("Q4_K_S", 14, "Q4_K"),
    ("Q4_K_M", 15, "Q4_K"),
    ("Q5_K_S", 16, "Q5_K"),
    ("Q5_K_M", 17, "Q5_K"),
    ("Q6_K", 18, "Q6_K"),
    ("IQ2_XXS", 19, "IQ2_XXS"),
    ("IQ2_XS", 20, "IQ2_XS"),
    ("Q2_K_S", 21, "Q2_K"),
    ("IQ3_XS", 22, "IQ3_S"),
    ("IQ3_XXS", 23, "IQ3_XXS"),
    ("IQ1_S", 24, "IQ1_S"),
    ("IQ4_NL", 25, "IQ4_NL"),
    ("IQ3_S", 26, "IQ3_S"),
    ("IQ3_M", 27, "IQ3_S"),
    ("IQ2_S", 28, "IQ2_XS"),
    ("IQ2_M", 29, "IQ2_S"),
    ("IQ4_XS", 30, "IQ4_XS"),
    ("IQ1_M", 31, "IQ1_M"),
    ("BF16", 32, "BF16"),
    ("TQ1_0", 36, "TQ1_0"),
    ("TQ2_0", 37, "TQ2_0"),
    ("MXFP4_MOE", 38, "MXFP4"),
    # llama-quantize writes no NVFP4 files; here it is as in files made of NVFP4 checkpoints.
    ("NVFP4", 39, "NVFP4"),
    ("Q1_0", 40, "Q1_0"),
    ("Q2_0", 41, "Q2_0"),
)

ALIASES = {"Q3_K": "Q3_K_M", "Q4_K": "Q4_K_M", "Q5_K": "Q5_K_M"}

#: The type instead, where the width is no multiple of the block; where that does not fit either, F16.
FALLBACK = {
    "IQ1_S": "IQ4_NL",
    "IQ1_M": "IQ4_NL",
    "IQ2_XXS": "IQ4_NL",
    "IQ2_XS": "IQ4_NL",
    "IQ2_S": "IQ4_NL",
    "IQ3_XXS": "IQ4_NL",
    "IQ3_S": "IQ4_NL",
    "IQ4_XS": "IQ4_NL",
    "NVFP4": "Q8_0",
    "Q2_0": "Q4_0",
    "Q2_K": "Q4_0",
    "Q3_K": "Q4_0",
    "TQ1_0": "Q4_0",
    "TQ2_0": "Q4_0",
    "Q4_K": "Q5_0",
    "Q5_K": "Q5_1",
    "Q6_K": "Q8_0",
}

#: Types that need an importance matrix, except in the embedding and output tensors; Q2_K only in a Q2_K_S file.
NEEDS_IMATRIX = frozenset({"IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS"})
NEEDS_IMATRIX_IN = frozenset({("Q2_K_S", "Q2_K")})


@dataclass(frozen=True)
class Site:
    """One tensor as the predicates see it.

    layer / layers: its place among the tensors that count together (value projections; each FFN kind). In models with
    experts an FFN tensor's place is the layer in its name, because each layer then has several of a kind.
    counted: its place by counting alone. heads_per_kv: query heads per key-value head in layer 0. scaled: llama.cpp
    multiplies by a scale of the whole tensor where there is one.
    """

    name: str
    kind: Kind
    arch: str
    layer: Callable[[], int]
    layers: int
    counted: int
    heads_per_kv: int
    experts: int
    matrices: int
    fits_default: bool
    scaled: bool
    seventy_b: bool
    imatrix: bool


Predicate = Callable[[Site], bool]


def falcon(t: Site) -> bool:
    """The architecture is Falcon."""
    return t.arch == "falcon"


def not_falcon(t: Site) -> bool:
    """The architecture is not Falcon."""
    return t.arch != "falcon"


def odd_width(t: Site) -> bool:
    """The width is no multiple of the recipe's default block."""
    return not t.fits_default


def grouped(t: Site) -> bool:
    """Four or more query heads share a key-value head, so value projections are small."""
    return t.heads_per_kv >= 4


def grouped_or_experts(t: Site) -> bool:
    """As `grouped`, or four or more experts."""
    return t.heads_per_kv >= 4 or t.experts >= 4


def eight_experts(t: Site) -> bool:
    """Exactly eight experts, as Mixtral has: attention is a small part of the whole."""
    return t.experts == 8


def seventy_b(t: Site) -> bool:
    """Of the model size llama.cpp calls 70B."""
    return t.seventy_b


def stacked_experts(t: Site) -> bool:
    """Several matrices in one tensor (in bailingmoe3 other tensors are 3-D as well)."""
    return t.matrices > 1 and (t.arch != "bailingmoe3" or bool(t.kind & Kind.FFN))


def scaled_matrix(t: Site) -> bool:
    """A scale of the whole is applied, and it is none of a state-space layer's small projections, which stay exact."""
    return t.scaled and "ssm_alpha" not in t.name and "ssm_beta" not in t.name


def glm5_latent(t: Site) -> bool:
    """GLM5-next's compressed queries and its projection for the next token."""
    return t.arch == "glm5-next" and any(part in t.name for part in ("attn_q_a", "attn_q_b", "nextn.eh_proj"))


def imatrix(t: Site) -> bool:
    """An importance matrix is given."""
    return t.imatrix


def no_imatrix(t: Site) -> bool:
    """No importance matrix is given."""
    return not t.imatrix


def first_two(t: Site) -> bool:
    """Layers 0 and 1."""
    return t.layer() < 2


def first_four(t: Site) -> bool:
    """Layers 0 to 3."""
    return t.layer() < 4


def first_sixteenth(t: Site) -> bool:
    """The first sixteenth of the layers."""
    return t.layer() < t.layers // 16


def first_eighth(t: Site) -> bool:
    """The first eighth of the layers."""
    return t.layer() < t.layers // 8


def first_eighth_counted(t: Site) -> bool:
    """As `first_eighth`, by counting tensors even where a layer has several."""
    return t.counted < t.layers // 8


def middle(t: Site) -> bool:
    """All layers but the first and the last eighth."""
    return t.layers // 8 <= t.layer() < 7 * t.layers // 8


def more_bits(t: Site) -> bool:
    """The first and last eighth of the layers, and every third between."""
    eighth = t.layers // 8
    return t.layer() < eighth or t.layer() >= 7 * t.layers // 8 or (t.layer() - eighth) % 3 == 2


@dataclass(frozen=True)
class Row:
    """Under these recipes (None: every one), a tensor of these kinds for which all predicates hold gets this type."""

    recipes: frozenset[str] | None
    kinds: Kind
    type: str
    when: tuple[Predicate, ...]

    def fits(self, recipe: str, site: Site) -> bool:
        """Whether the row speaks for this tensor."""
        return (
            (self.recipes is None or recipe in self.recipes)
            and bool(site.kind & self.kinds)
            and all(holds(site) for holds in self.when)
        )


def _row(recipes: str | None, kinds: Kind, type: str, *when: Predicate) -> Row:
    return Row(None if recipes is None else frozenset(recipes.split()), kinds, type, when)


EVERY = None
#: The recipes around two bits and less, which share rules of their own.
TINY = "IQ1_S IQ1_M IQ2_XXS IQ2_XS IQ2_S IQ2_M"
ALL_BUT_TINY = " ".join(name for name, _, _ in RECIPES if name not in TINY.split())

#: The first row that fits decides; without one, the recipe's default type. Tied embeddings count as OUTPUT.
ROWS = (
    _row(EVERY, Kind.ANY, "Q8_0", glm5_latent),
    # NVFP4 for what the layers multiply by, where a scale of the whole tensor goes with it; eight bits for the rest
    _row("NVFP4", Kind.ANY, "NVFP4", scaled_matrix),
    _row("NVFP4", Kind.ANY, "Q8_0"),
    # The output matrix
    _row("MXFP4_MOE", Kind.OUTPUT, "Q8_0"),
    _row(EVERY, Kind.OUTPUT, "Q8_0", falcon),
    _row(EVERY, Kind.OUTPUT, "Q8_0", odd_width),
    _row(TINY + " IQ3_XXS", Kind.OUTPUT, "Q5_K"),
    _row("Q8_0", Kind.OUTPUT, "Q8_0"),
    _row(EVERY, Kind.OUTPUT, "Q6_K"),
    # MXFP4 for experts, eight bits for the rest
    _row("MXFP4_MOE", Kind.ANY, "MXFP4", stacked_experts),
    _row("MXFP4_MOE", Kind.ANY, "Q8_0"),
    # Token embeddings that are not the output matrix as well
    _row("IQ1_S IQ1_M IQ2_XXS IQ2_XS", Kind.TOKEN_EMBD, "Q2_K"),
    _row("IQ2_S IQ2_M IQ3_XXS", Kind.TOKEN_EMBD, "IQ3_S"),
    _row("TQ1_0 TQ2_0 Q2_0", Kind.TOKEN_EMBD, "Q4_K"),
    # Value projections
    _row(TINY, Kind.VALUES, "Q4_K", grouped_or_experts),
    _row("IQ2_S IQ2_M", Kind.VALUES, "IQ3_S"),
    _row("IQ1_S IQ1_M IQ2_XXS IQ2_XS", Kind.VALUES, "Q2_K"),
    _row(ALL_BUT_TINY, Kind.VALUES, "Q8_0", eight_experts),
    _row("Q2_K Q2_K_S IQ3_XXS IQ3_XS IQ3_S", Kind.VALUES, "Q4_K", grouped),
    _row("Q2_K", Kind.VALUES, "Q3_K"),
    _row("IQ3_XXS", Kind.VALUES, "IQ3_S", no_imatrix),
    _row("IQ3_M", Kind.VALUES, "Q4_K"),
    _row("Q3_K_M", Kind.VALUES, "Q5_K", first_two),
    _row("Q3_K_M", Kind.VALUES, "Q4_K"),
    _row("Q3_K_L", Kind.VALUES, "Q5_K"),
    _row("IQ4_NL IQ4_XS", Kind.VALUES, "Q5_K", grouped),
    _row("Q4_K_M Q5_K_M", Kind.VALUES, "Q6_K", more_bits),
    _row("Q4_K_S", Kind.VALUES, "Q5_K", first_four),
    # Keys and queries
    _row(TINY, Kind.ATTN_K, "Q4_K", eight_experts),
    _row(ALL_BUT_TINY, Kind.ATTN_K, "Q8_0", eight_experts),
    _row("IQ3_XS", Kind.ATTN_K | Kind.ATTN_Q, "IQ3_XXS"),
    _row("IQ3_XXS", Kind.ATTN_K | Kind.ATTN_Q, "IQ2_S"),
    # Attention output
    _row(TINY, Kind.ATTN_OUTPUT, "Q5_K", eight_experts),
    _row("IQ1_S IQ1_M", Kind.ATTN_OUTPUT, "IQ2_XXS"),
    _row("IQ2_S IQ2_M", Kind.ATTN_OUTPUT, "IQ3_S"),
    _row("Q3_K_L", Kind.ATTN_OUTPUT, "Q4_K", falcon),
    _row("Q2_K Q3_K_S Q3_K_M Q4_K_S Q4_K_M", Kind.ATTN_OUTPUT, "Q5_K", eight_experts, not_falcon),
    _row("IQ3_XXS IQ3_XS IQ3_S IQ3_M IQ4_NL IQ4_XS", Kind.ATTN_OUTPUT, "Q5_K", eight_experts, not_falcon),
    _row("Q3_K_L", Kind.ATTN_OUTPUT, "Q3_K", eight_experts),
    _row("Q2_K", Kind.ATTN_OUTPUT, "Q3_K", not_falcon),
    _row("IQ3_XXS", Kind.ATTN_OUTPUT, "IQ3_S", not_falcon),
    _row("Q3_K_M IQ3_M", Kind.ATTN_OUTPUT, "Q4_K", not_falcon),
    _row("Q3_K_L", Kind.ATTN_OUTPUT, "Q5_K"),
    # FFN down
    _row("IQ2_S IQ2_M", Kind.FFN_DOWN, "IQ3_S", first_eighth_counted),
    _row("IQ1_S IQ1_M IQ2_XXS IQ2_XS", Kind.FFN_DOWN, "Q2_K", first_eighth_counted),
    _row("Q2_K", Kind.FFN_DOWN, "Q3_K"),
    _row("Q2_K_S", Kind.FFN_DOWN, "Q4_K", first_eighth),
    _row("IQ3_XXS", Kind.FFN_DOWN, "Q4_K", no_imatrix, first_eighth),
    _row("IQ3_XXS", Kind.FFN_DOWN, "Q3_K", no_imatrix),
    _row("IQ3_M", Kind.FFN_DOWN, "Q4_K", first_eighth),
    _row("IQ3_M", Kind.FFN_DOWN, "Q4_K", eight_experts, more_bits),
    _row("Q3_K_M", Kind.FFN_DOWN, "Q5_K", first_sixteenth),
    _row("Q3_K_M", Kind.FFN_DOWN, "Q4_K", not_falcon),
    _row("Q3_K_M", Kind.FFN_DOWN, "Q4_K", more_bits),
    _row("Q3_K_L", Kind.FFN_DOWN, "Q4_K", falcon),
    _row("Q3_K_L", Kind.FFN_DOWN, "Q5_K"),
    _row("Q4_K_S", Kind.FFN_DOWN, "Q5_K", not_falcon, first_eighth),
    _row("Q4_K_M", Kind.FFN_DOWN, "Q6_K", falcon, first_sixteenth),
    _row("Q4_K_M", Kind.FFN_DOWN, "Q5_K", falcon, more_bits),
    _row("Q4_K_M", Kind.FFN_DOWN, "Q6_K", not_falcon, more_bits),
    _row("Q5_K_M", Kind.FFN_DOWN, "Q6_K", more_bits),
    _row("IQ4_NL IQ4_XS", Kind.FFN_DOWN, "Q5_K", no_imatrix, first_eighth),
    _row("Q4_0", Kind.FFN_DOWN, "Q4_1", imatrix, first_eighth),
    _row("Q5_0", Kind.FFN_DOWN, "Q5_1", imatrix, first_eighth),
    # FFN up and gate
    _row("IQ3_XS", Kind.FFN_UP | Kind.FFN_GATE, "IQ3_XXS", middle),
)

#: After ROWS: where the chosen type is in the first column, the second replaces it.
UPGRADES = ((frozenset({"Q3_K", "Q4_K"}), _row(ALL_BUT_TINY, Kind.VALUES, "Q5_K", seventy_b)),)

#: Architectures and layer counts that llama.cpp calls 70B. In "llama" also: fewer key-value heads than query heads,
#: and not eight experts.
SEVENTY_B = frozenset({("llama", 80), ("llama-embed", 80), ("qwen2", 80), ("deci", 80), ("olmo", 80), ("jais2", 68)})
