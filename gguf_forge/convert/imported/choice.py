"""Which type of GGUF holds a weight that another tool quantized, and how well.

Chooses by a survey of scales and offsets (surveys.py). Must not know formats of other tools, families, or files, nor
how blocks are made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from gguf_forge.convert.imported.report import Import, Status
from gguf_forge.convert.imported.surveys import Survey, survey
from gguf_forge.convert.view import Stored, View
from gguf_forge.quant.exact import HOMES, Home

Prefer = Literal["exact", "small"]
#: Half a unit in the last place of F16: the most by which rounding changes a scale that is no subnormal number.
_HALF_UNIT = 2.0**-11
#: Five trits to a byte: as exact as TQ2_0 and smaller, but slower to compute with.
_SLOW = "TQ1_0"
#: The largest number of F16.
_MOST_HALF = 65504.0


@dataclass(frozen=True)
class Choice:
    """A type for a grid: its home, and whether codes and scales change their signs.

    `wholes`: scales of the matrices, which go beside them: those of blocks are then one.
    """

    home: Home
    flipped: bool = False
    wholes: tuple[float, ...] = ()


def choose(
    view: View, prefer: Prefer = "exact", *, scaled: bool = False, look: Callable[[View], Survey] = survey
) -> tuple[Import, Choice | None]:
    """The smallest type that holds a view's stored form exactly; with `prefer` "small" also where scales round.

    None where there is none: the weight is dequantized. `scaled`: readers multiply by a scale beside the tensor. `look`
    gives the survey of a view.
    """
    stored = view.stored
    assert stored is not None
    if len(stored.parts) == 1:
        return _as_blocks(view, stored, scaled), None
    found = look(view)
    fitting = list(_fitting(view, stored, found))
    if prefer == "exact":
        fitting = [choice for choice in fitting if choice.home.type.name != _SLOW]
        fitting = [choice for choice in fitting if _keeps_offset(choice, stored)] or fitting
    wholes = found.wholes if scaled and found.rounding else ()
    if not fitting or (found.rounding > _HALF_UNIT and not wholes):
        why = "scales that F16 does not hold" if fitting else _why_not(view, stored, found)
        return Import(view.name, stored.method, None, "dequantized", why), None
    best = replace(min(fitting, key=lambda choice: choice.home.bpw), wholes=wholes)
    rounded = "scales" if found.rounding else ""
    if wholes:
        # Times one, it is rounded as the weight is; times more, a number that float32 does not hold is rounded twice.
        exact = max(abs(found.low), abs(found.high)) <= 1 or all(float(np.float32(x)) == x for x in wholes)
        rule = f"codes {found.low} to {found.high} as they are, beside a scale{'' if exact else ' rounded to float32'}"
        return Import(view.name, stored.method, best.home.type, "lossless" if exact else "code-exact", rule), best
    if not _keeps_offset(best, stored):
        rounded = f"{rounded} and minima".removeprefix(" and ")
    status: Status = "code-exact" if rounded else "lossless"
    span = (stored.low, stored.high) if best.home.offset else (found.low, found.high)
    rule = f"codes {span[0]} to {span[1]} as they are"
    if rounded:
        rule += f", {rounded} rounded to F16"
    return Import(view.name, stored.method, best.home.type, status, rule), best


def _as_blocks(view: View, stored: Stored, scaled: bool) -> Import:
    """What becomes of weights that are blocks of a type already: they stay, unless a scale of all has no place."""
    kind = stored.parts[0].type
    if not stored.factors:
        return Import(view.name, stored.method, kind, "lossless", f"the bits of {kind}")
    if not scaled:
        why = "a scale of the whole tensor, which llama.cpp does not apply to this one"
        return Import(view.name, stored.method, None, "dequantized", why)
    exact = all(float(np.float32(factor)) == factor for factor in stored.factors)
    rule = f"the bits of {kind}, beside a scale" + ("" if exact else " rounded to float32")
    return Import(view.name, stored.method, kind, "lossless" if exact else "code-exact", rule)


def _keeps_offset(choice: Choice, stored: Stored) -> bool:
    """Whether a type's minima hold the offsets as they are, not products and sums of them and scales, rounded."""
    return choice.home.offset != "minimum" or (stored.offset == "minima" and stored.low == 0)


def _fitting(view: View, stored: Stored, found: Survey) -> Iterator[Choice]:
    """The types whose codes and spans fit."""
    for home in HOMES.values():
        if stored.group % home.span or view.width % home.type.block_size:
            continue
        if home.offset == "minimum":
            fits = stored.high - stored.low <= home.high and found.largest <= _MOST_HALF
            if stored.offset and fits:
                yield Choice(home)
        elif found.zeros is None:
            continue
        elif home.offset == "steps":
            zeros = found.zeros[0] - stored.low, found.zeros[1] - stored.low
            if zeros[0] >= 0 and zeros[1] <= home.most and stored.high - stored.low <= home.high:
                yield Choice(home)
        elif home.low <= found.low and found.high <= home.high:
            yield Choice(home)
        elif home.low <= -found.high and -found.low <= home.high:
            yield Choice(home, flipped=True)


def _why_not(view: View, stored: Stored, found: Survey) -> str:
    if stored.group % 32 or view.width % 32:
        return f"groups of {stored.group} in rows of {view.width} are no whole blocks of 32"
    if found.zeros is None:
        return f"codes to {stored.high} beside minima fit no type"
    return f"codes {found.low} to {found.high} fit no type"
