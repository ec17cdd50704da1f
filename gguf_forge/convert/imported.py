"""Weights that another tool quantized, in blocks of GGUF: which type holds a tensor, how well, and its blocks.

The one exporter of the stored form of views (view.Stored). Looks at scales and zeros, never at codes, to choose. Must
not know formats of other tools, families, or files.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal

import numpy as np

from gguf_forge.convert.model import Model
from gguf_forge.convert.plan import Packing
from gguf_forge.convert.scales import has_scale
from gguf_forge.convert.view import F16, Array, Stored, View, of_array
from gguf_forge.errors import ConversionError, RecipeError, escaped, listed
from gguf_forge.format.values import Value, string
from gguf_forge.quant.exact import HOMES, Home, blocks
from gguf_forge.quant.recipe import recipe
from gguf_forge.types import TensorType, tensor_type

Status = Literal["lossless", "code-exact", "near", "dequantized"]
Prefer = Literal["exact", "small"]
#: Half a unit in the last place of F16: the most by which rounding changes a scale that is no subnormal number.
_HALF_UNIT = 2.0**-11
#: The largest number of F16.
_MOST_HALF = 65504.0
Q8_0 = tensor_type("Q8_0")
#: The largest number of blocks: of NVFP4, and of F16 where 8-bit floats (E4M3) were put into it.
_MOST_IN_BLOCKS = {"NVFP4": 6.0 * 448, "F16": 448.0}
#: Rows looked at together.
_RUN = 1 << 20


@dataclass(frozen=True)
class Import:
    """What becomes of a quantized weight: its type in the file, how well that holds it, and by which rule.

    lossless: every weight is the same number. code-exact: every code is the same, scales or minima are rounded to F16.
    near: quantized again; `rmse` is the error's root mean square over the weights', once it is measured. dequantized:
    stored as floats. `method` is how it came.
    """

    name: str
    method: str
    type: TensorType | None
    status: Status
    rule: str
    rmse: float | None = None

    @property
    def kind(self) -> str:
        """The type's name; "floats" where none is settled."""
        return self.type.name if self.type else "floats"


@dataclass(frozen=True)
class Survey:
    """What a look at the scales and offsets of a grid says.

    `low`, `high`: the range of code - zero; `zeros` the range of zeros, None where they are not all whole; `rounding`
    the most by which a scale or minimum changes in F16, relative to it: infinite where one does not fit.
    """

    low: int
    high: int
    zeros: tuple[int, int] | None
    rounding: float


def survey(view: View, stored: Stored) -> Survey:
    """Looks at all scales and offsets. ConversionError for a scale that is no number."""
    low, high = stored.low, stored.high
    least, most, whole, worst = 0, 0, True, 0.0
    first = True
    for start, stop in _runs(view.count, stored.parts[1].width):
        scales = stored.parts[1].rows(start, stop)
        if not np.isfinite(scales).all():
            bad = int(np.flatnonzero(~np.isfinite(scales).all(axis=1))[0]) + start
            raise ConversionError(f"{escaped(view.name)}: a scale in row {bad} is not finite ({stored.method})")
        worst = max(worst, _rounding(scales))
        if not stored.offset:
            continue
        offsets = stored.parts[2].rows(start, stop)
        if not np.isfinite(offsets).all():
            raise ConversionError(f"{escaped(view.name)}: a zero or minimum is not finite ({stored.method})")
        if stored.offset == "minima":
            worst = max(worst, _rounding(offsets))
        elif whole and offsets.size:
            whole = offsets.dtype.kind in "iu" or bool((offsets == np.rint(offsets)).all())
            here = int(np.floor(offsets.min())), int(np.ceil(offsets.max()))
            least, most = (here if first else (min(least, here[0]), max(most, here[1])))
            first = False
    zeros = (least, most) if stored.offset == "zeros" and whole else (0, 0) if not stored.offset else None
    if zeros is not None:
        low, high = low - zeros[1], high - zeros[0]
    return Survey(low, high, zeros, worst)


def _runs(count: int, width: int) -> Iterator[tuple[int, int]]:
    step = max(1, _RUN // max(1, width))
    for start in range(0, count, step):
        yield start, min(count, start + step)


def _rounding(values: Array) -> float:
    """The largest relative change of a number in F16."""
    if not values.size:
        return 0.0
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        halves = values.astype(np.float16).astype(values.dtype)
        change = np.abs(halves - values) / np.abs(values)
    change[values == 0] = 0
    return float(change.max())


@dataclass(frozen=True)
class Choice:
    """A type for a grid: its home, whether codes and scales change their signs, and what is given as offset."""

    home: Home
    flipped: bool = False


def choose(view: View, prefer: Prefer = "exact", *, scaled: bool = False) -> tuple[Import, Choice | None]:
    """The smallest type that holds a view's stored form exactly; with `prefer` "small" also where scales round.

    None where there is none: the weight is dequantized. `scaled`: readers multiply by a scale beside the tensor.
    """
    stored = view.stored
    assert stored is not None
    if len(stored.parts) == 1:
        return _as_blocks(view, stored, scaled), None
    found = survey(view, stored)
    fitting = list(_fitting(view, stored, found))
    if prefer == "exact":
        fitting = [choice for choice in fitting if _keeps_offset(choice, stored)] or fitting
    if not fitting or found.rounding > _HALF_UNIT:
        why = "scales that F16 does not hold" if fitting else _why_not(view, stored, found)
        return Import(view.name, stored.method, None, "dequantized", why), None
    best = min(fitting, key=lambda choice: choice.home.bpw)
    rounded = "scales" if found.rounding else ""
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
            if stored.offset and stored.high - stored.low <= home.high:
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


def pack(view: View, choice: Choice | None, start: int, stop: int) -> Array:
    """Rows of blocks of the type chosen, uint8; floats of stored F16 as float16."""
    stored = view.stored
    assert stored is not None
    parts = [part.rows(start, stop) for part in stored.parts]
    if choice is None:
        return parts[0].view(np.float16) if stored.parts[0].type is F16 else parts[0]
    codes, scales, *rest = parts
    offsets = rest[0] if rest else None
    home = choice.home
    given: Array | None = None
    zeros: Array | None = None
    if home.offset and stored.low:  # such types count codes from zero
        codes = (codes.astype(np.int16) - np.int16(stored.low)).astype(np.uint8)
    if home.offset == "minimum":
        assert offsets is not None
        if stored.offset == "zeros":
            offsets = (stored.low - offsets.astype(np.float64)) * scales
        elif stored.low:
            offsets = offsets.astype(np.float64) + stored.low * scales.astype(np.float64)
        given = offsets.astype(np.float16)
    elif home.offset == "steps":
        steps = np.zeros(scales.shape, np.int16) if offsets is None else offsets.astype(np.int16)
        given = steps - np.int16(stored.low)
    else:
        zeros = offsets
    halves = (-scales if choice.flipped else scales).astype(np.float16)
    return blocks(home, codes, halves, given, zeros=zeros, flip=choice.flipped)


@dataclass(frozen=True)
class Holdings:
    """What becomes of a model's quantized weights, in the order of its outputs, and how those kept are packed.

    `scales` are tensors of their own: of each weight of this name the scale of the whole, or of each of a stack.
    """

    imports: Sequence[Import] = ()
    packs: Mapping[str, Callable[[int, int], Array]] = field(default_factory=dict)
    scales: Mapping[str, View] = field(default_factory=dict)

    def beside(self, views: Sequence[View]) -> list[View]:
        """The model's views, each scale of a whole tensor behind its tensor."""
        found: list[View] = []
        for view in views:
            found.append(view)
            if view.name in self.scales:
                found.append(self.scales[view.name])
        return found

    @property
    def types(self) -> Mapping[str, TensorType]:
        """The types that are settled: of tensors whose codes are kept, and where floats have no recipe to follow."""
        return {one.name: one.type for one in self.imports if one.type is not None}


def holdings(model: Model, prefer: Prefer, *, keep: bool, recipe: bool) -> Holdings:
    """A type for each quantized weight of a model; without `keep`, none: their values are what counts.

    Weights that no type holds follow the recipe, if there is one; else they are F16, which rounds them less than BF16
    does, or, where small files are preferred, Q8_0.
    """
    imports: list[Import] = []
    packs: dict[str, Callable[[int, int], Array]] = {}
    scales: dict[str, View] = {}
    names = {view.name for view in model.views}
    arch = str(model.metadata["general.architecture"].value) if model.packed else ""
    layers = _number(model, arch, "block_count") - _number(model, arch, "nextn_predict_layers")
    for view in model.views:
        how = model.packed.get(view.name)
        if how is None:
            continue
        if not keep:
            imports.append(Import(view.name, how.method, None, "dequantized", how.why or "asked for"))
            continue
        found, choice = Import(view.name, how.method, None, "dequantized", how.why), None
        if view.stored is not None:
            found, choice = choose(view, prefer, scaled=has_scale(arch, view.name, names, layers))
        factors = view.stored.factors if view.stored is not None else ()
        if found.type is not None and (found.type.quantized or (factors and not recipe)):
            packs[view.name] = partial(pack, view, choice)
            if factors:
                name = f"{view.name.removesuffix('.weight')}.scale"
                scales[view.name] = of_array(name, np.array(factors, np.float32))
        elif recipe:
            found = replace(found, type=None)
        elif found.type is None:
            found = _as_floats(found, view, how, prefer)
        imports.append(found)
    return Holdings(imports, packs, scales)


def _number(model: Model, arch: str, key: str) -> int:
    """A number among an architecture's keys; 0 without it."""
    found = model.metadata.get(f"{arch}.{key}")
    return int(found.value) if found is not None and isinstance(found.value, int) else 0


def _as_floats(found: Import, view: View, how: Packing, prefer: Prefer) -> Import:
    """What becomes of a weight that no type holds, where nothing else says."""
    if prefer == "small" and view.width % Q8_0.block_size == 0:
        return replace(found, type=Q8_0, status="near")
    largest = how.largest() if view.stored is None else _largest(view.stored)
    return replace(found, type=F16) if largest <= _MOST_HALF else found


def _largest(stored: Stored) -> float:
    """A number that no stored weight exceeds in magnitude."""
    if len(stored.parts) == 1:
        return _MOST_IN_BLOCKS.get(stored.parts[0].type.name, float("inf")) * max(stored.factors, default=1.0)
    most = 0.0
    for start, stop in _runs(stored.parts[1].count, stored.parts[1].width):
        scales = np.abs(stored.parts[1].rows(start, stop))
        span = max(abs(stored.low), abs(stored.high)) * scales
        if stored.offset:
            offsets = np.abs(stored.parts[2].rows(start, stop))
            span = span + (offsets if stored.offset == "minima" else offsets * scales)
        most = max(most, float(span.max(initial=0)))
    return most


def settled(one: Import, kind: TensorType) -> Import:
    """What became of a weight in a file in which its tensor has this type."""
    if one.type is kind:
        return one
    if kind.name == "F32":  # the values are float32
        return replace(one, type=kind, status="lossless")
    return replace(one, type=kind, status="near" if kind.quantized else "dequantized")


def measured(one: Import, errors: Mapping[str, tuple[float, float]]) -> Import:
    """With the error that was measured while it was written; without any, it is lossless after all."""
    if one.name not in errors:
        return one
    error, weight = errors[one.name]
    return replace(one, rmse=(error / weight) ** 0.5 if weight else 0.0, status=one.status if error else "lossless")


_ORDER: tuple[Status, ...] = ("lossless", "code-exact", "near", "dequantized")


def require_status(imports: Sequence[Import], wanted: Status | None) -> None:
    """RecipeError naming the first weights that are held less well than wanted."""
    if wanted is None:
        return
    worse = [one for one in imports if _ORDER.index(one.status) > _ORDER.index(wanted)]
    if worse:
        lines = listed(f"{escaped(one.name)} ({one.status}: {one.rule})" for one in worse)
        raise RecipeError(f"--require {wanted}: {len(worse)} weights are not: {lines}")


def provenance(imports: Sequence[Import]) -> dict[str, Value]:
    """Metadata that says how a file's weights were quantized before, and how well it holds them."""
    methods = Counter(one.method for one in imports)
    statuses = Counter(one.status for one in imports)
    return {
        "general.imported.method": string("; ".join(f"{method} ({count})" for method, count in methods.items())),
        "general.imported.status": string("; ".join(f"{status} ({count})" for status, count in statuses.items())),
    }


def file_type_of(kind: str) -> int:
    """The number in general.file_type of a file most of whose weights have a type."""
    return recipe(_RECIPES.get(kind, kind)).ftype if kind not in FILE_TYPES_OF_BLOCKS else FILE_TYPES_OF_BLOCKS[kind]


_RECIPES = {"Q3_K": "Q3_K_S", "Q4_K": "Q4_K_S", "Q5_K": "Q5_K_S"}
#: File types that tell of blocks of a checkpoint's own (MOSTLY_NVFP4, MOSTLY_MXFP4_MOE).
FILE_TYPES_OF_BLOCKS = {"NVFP4": 39, "MXFP4": 38}


def summary(imports: Sequence[Import]) -> list[str]:
    """A line for each way that weights were imported: how many, how well, as what, by which rule."""
    groups: dict[tuple[str, ...], list[Import]] = {}
    for one in imports:
        rule = one.rule if one.status != "lossless" else ""
        groups.setdefault((one.status, one.kind, one.method, rule), []).append(one)
    lines = []
    for (status, kind, method, rule), group in groups.items():
        errors = [one.rmse for one in group if one.rmse]
        error = f", relative RMSE {max(errors):.2g}" if errors else ""
        lines.append(f"{len(group)} weights of {method}: {status} as {kind}{error}{f' ({rule})' if rule else ''}")
    return lines
