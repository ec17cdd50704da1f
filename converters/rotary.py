"""Rotary embeddings as rows: scalings, bases, the part of a head that turns, and the tensors of factors.

Tables, and functions of the facts for tables. The parameters are those that every resolved configuration has under
rope_parameters; layers with full attention have theirs first.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from gguf_forge.convert.arch import Rule, Table, exact
from gguf_forge.convert.config import first_of, need
from gguf_forge.convert.facts import Facts
from gguf_forge.convert.ops import Computed
from gguf_forge.convert.rope import rope_of, sliding_rope_of
from gguf_forge.errors import ConversionError

#: Names of rope scalings in GGUF.
SCALINGS = {"linear": "linear", "yarn": "yarn", "su": "longrope", "longrope": "longrope"}

Size = Callable[[Facts], int]


def head_dim(facts: Facts) -> int:
    """Elements of a head: as declared, or the width divided by the heads."""
    if facts.config.get("head_dim") is not None:
        return facts.number("head_dim")
    return width_by_heads(facts)


def width_by_heads(facts: Facts) -> int:
    """Elements of a head where none are declared: the width divided by the heads."""
    return facts.number("hidden_size") // facts.number("num_attention_heads")


def scaling(facts: Facts) -> str | None:
    """The scaling type written to GGUF; None when there is none or it is written in another way."""
    rope = rope_of(facts.config)
    kind = rope.get("rope_type")
    if kind in ("linear", "yarn") and rope.get("factor") is None:
        return None
    return SCALINGS.get(kind) if isinstance(kind, str) else None


def rope_value(*names: str, only: tuple[str, ...] = ()) -> Callable[[Facts], Any]:
    """The first of these rotary parameters, if the scaling is one of `only` (or any, when empty)."""

    def value(facts: Facts) -> Any:
        if only and scaling(facts) not in only:
            return None
        return first_of(rope_of(facts.config), *names)

    return value


def pretraining_context(facts: Facts) -> Any:
    """The context before YaRN or LongRoPE stretched it; an error when YaRN does not say.

    None for LongRoPE where it is not shorter than the context, which readers suppose.
    """
    kind, value = scaling(facts), rope_of(facts.config).get("original_max_position_embeddings")
    if kind == "longrope":
        return value if value is not None and value < facts.config.get("max_position_embeddings", 0) else None
    if kind == "yarn" and value is None:
        raise ConversionError("config.json: rope_scaling of type 'yarn' lacks original_max_position_embeddings")
    return value if kind == "yarn" else None


def attention_growth(facts: Facts) -> float | None:
    """How much more attention grows with a stretched context than llama.cpp lets it grow by itself; None if no more.

    With YaRN llama.cpp multiplies rotated queries and keys by 1 + ln(factor) / 10, whatever attention_factor, mscale
    and mscale_all_dim say; with LongRoPE by 1. (transformers, modeling_rope_utils.py.)
    """
    rope, kind = rope_of(facts.config), scaling(facts)
    if kind not in ("yarn", "longrope"):
        return None
    own, given = 1.0, rope.get("attention_factor")
    if kind == "yarn":
        factor, scales = rope["factor"], (rope.get("mscale"), rope.get("mscale_all_dim"))
        own = _grown(factor)
        if given is None:
            given = _grown(factor, scales[0]) / _grown(factor, scales[1]) if all(scales) else own
    elif given is None:
        context = need(facts.config, "max_position_embeddings")
        before = rope.get("original_max_position_embeddings") or context
        factor = rope.get("factor") or context / before
        given = math.sqrt(1 + math.log(factor) / math.log(before)) if factor > 1 else 1.0
    return None if math.isclose(given, own, rel_tol=1e-6) else given / own


def _grown(factor: float, scale: float | None = 1.0) -> float:
    return 0.1 * (scale or 0.0) * math.log(factor) + 1.0 if factor > 1 else 1.0


def sliding_theta(facts: Facts) -> Any:
    """The rotary base of sliding-window layers, if they have one of their own."""
    return sliding_rope_of(facts.config).get("rope_theta")


def sections(facts: Facts) -> list[int] | None:
    """The sections of a multi-axis rope, padded to four."""
    given = facts.config["rope_parameters"].get("mrope_section")
    return None if given is None else [*given, 0, 0, 0, 0][:4]


def turned(default: float = 1.0, size: Size = head_dim) -> Size:
    """How many elements of a head turn: its size times partial_rotary_factor, or times `default` without one."""

    def value(facts: Facts) -> int:
        return int(size(facts) * rope_of(facts.config).get("partial_rotary_factor", default))

    return value


def turned_of_width(width: tuple[str, ...], heads: tuple[str, ...], default: float | None = None) -> Size:
    """As `turned`, but of the model's width before it is divided by the heads; required where there is no default."""

    def value(facts: Facts) -> int:
        rope = rope_of(facts.config)
        part = need(rope, "partial_rotary_factor") if default is None else rope.get("partial_rotary_factor", default)
        return int(part * need(facts.config, *width)) // int(need(facts.config, *heads))

    return value


def log_multiplier(times: float = 1.0) -> Callable[[Facts], float | None]:
    """YaRN's factor on the logarithm of the stretch, mscale_all_dim; None without one. `times` is 0.1 where
    llama.cpp takes a tenth back.
    """

    def value(facts: Facts) -> float | None:
        scale = facts.config["rope_parameters"].get("mscale_all_dim")
        return None if scale is None else times * scale

    return value


def stretched_base(alpha: float, size: Size = head_dim) -> Callable[[Facts], float]:
    """The rotary base of a scaling that stretches the base (dynamic NTK by `alpha`, unless the parameters have it)."""

    def value(facts: Facts) -> float:
        rope, dim = rope_of(facts.config), size(facts)
        base: float = rope.get("rope_theta", 10000.0)
        return float(base * rope.get("alpha", alpha) ** (dim / (dim - 2)))

    return value


def llama3_factors(size: Size = head_dim) -> Callable[[Facts], npt.NDArray[np.float32] | None]:
    """What Llama 3.1 divides its rotary frequencies by: 1 where waves are short, `factor` where they are long, and
    between the two a smooth passage. All in float32, as the reference calculates. None for other scalings.
    """

    def factors(facts: Facts) -> npt.NDArray[np.float32] | None:
        rope = rope_of(facts.config)
        if str(rope.get("rope_type") or "").lower() != "llama3":
            return None
        one, dim = np.float32(1), size(facts)
        exponents = np.arange(0, dim, 2, dtype=np.float32) / np.float32(dim)
        base = np.float64(rope.get("rope_theta", 10000.0))
        powers = np.power(base, exponents.astype(np.float64)).astype(np.float32)
        factor = np.float32(rope.get("factor", 8.0))
        low, high = float(rope.get("low_freq_factor", 1.0)), float(rope.get("high_freq_factor", 4.0))
        context = float(rope.get("original_max_position_embeddings", 8192))
        # A number over a tensor is the number times the reciprocal there, which rounds twice.
        waves = (one / (one / powers)) * np.float32(2 * math.pi)
        smooth = ((one / waves) * np.float32(context) - np.float32(low)) / np.float32(high - low)
        between = one / ((one - smooth) / factor + smooth)
        short, long = waves < context / high, waves > context / low
        return np.where(short, one, np.where(long, factor, between)).astype(np.float32)

    return factors


#: Llama 3.1's factors as a tensor, where the scaling is of that kind.
LLAMA3: Table[Rule] = Table((exact("rope_freqs.weight", verb=Computed(llama3_factors())),))


def _long_factors(key: str, size: Size, lenient: bool) -> Computed:
    def make(facts: Facts) -> npt.NDArray[np.float32] | None:
        rope = facts.config["rope_parameters"]
        given = [rope.get("long_factor"), rope.get("short_factor")]
        if not (all(given) if lenient else any(given)):
            return None
        values, wanted = rope.get(key), size(facts) / 2
        if not isinstance(values, list) or len(values) != wanted:
            found = len(values) if isinstance(values, list) else values
            raise ConversionError(f"config.json: rope_scaling.{key} must have {wanted:g} numbers, found {found}")
        return np.array(values, np.float32)

    return Computed(make)


def longrope(size: Size, lenient: bool = False) -> Table[Rule]:
    """LongRoPE's factors as two tensors, for long contexts and for short ones; `size` is what of a head turns.

    With one of the two lists alone there are no tensors if `lenient`, and an error otherwise.
    """
    return Table(
        (
            exact("rope_factors_long.weight", verb=_long_factors("long_factor", size, lenient)),
            exact("rope_factors_short.weight", verb=_long_factors("short_factor", size, lenient)),
        )
    )


def attention_factor(*context: str) -> Callable[[Facts], float | None]:
    """How much attention grows with a context stretched by LongRoPE; None without factors.

    `context` names the keys of the stretched context. ConversionError for other kinds of scaling with factors.
    """

    def value(facts: Facts) -> float | None:
        rope = facts.config["rope_parameters"]
        if not rope.get("long_factor"):
            return None
        before = need(rope, "original_max_position_embeddings")
        scale = need(facts.config, *context) / before
        kind = str(rope.get("rope_type") or "").lower()
        if kind in ("su", "longrope"):
            return math.sqrt(1 + math.log(scale) / math.log(before)) if scale > 1.0 else 1.0
        if kind == "yarn":
            return 0.1 * math.log(scale) + 1.0 if scale > 1.0 else 1.0
        raise ConversionError(f"config.json: rope_scaling has factors, but its type is {kind!r}, not 'longrope'")

    return value


def unusual_base(facts: Facts) -> float | None:
    """The rotary base where it is not 10000, which readers take for granted; for families that leave it out."""
    base = rope_of(facts.config).get("rope_theta")
    return None if base is None or base == 10000 else float(base)
