"""What becomes of all weights of a model that another tool quantized: types, blocks, and scales beside them.

Knows models; must not know how a type is chosen for one weight, nor how its blocks are made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from gguf_forge.convert.imported.choice import Prefer, choose
from gguf_forge.convert.imported.order import put_together
from gguf_forge.convert.imported.packing import pack
from gguf_forge.convert.imported.report import Import
from gguf_forge.convert.imported.surveys import Surveys
from gguf_forge.convert.model import Model
from gguf_forge.convert.plan import Packing
from gguf_forge.convert.view import F16, Array, View, of_array
from gguf_forge.quant.scales import has_scale, scale_name
from gguf_forge.types import TensorType, tensor_type

Q8_0 = tensor_type("Q8_0")
#: The largest number of F16.
_MOST_HALF = 65504.0
#: The largest number of blocks: of NVFP4, and of F16 where 8-bit floats (E4M3) were put into it.
_MOST_IN_BLOCKS = {"NVFP4": 6.0 * 448, "F16": 448.0}


@dataclass(frozen=True)
class Holdings:
    """What becomes of a model's quantized weights, in the order of its outputs, and how those kept are packed.

    `scales` are tensors of their own: of each weight of this name the scale of the whole, or of each of a stack.
    `moved` are the model's views, by name, of which rows or columns change places so that groups lie together.
    """

    imports: Sequence[Import] = ()
    packs: Mapping[str, Callable[[int, int], Array]] = field(default_factory=dict)
    scales: Mapping[str, View] = field(default_factory=dict)
    moved: Mapping[str, View] = field(default_factory=dict)

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


def holdings(model: Model, prefer: Prefer, surveys: Surveys, *, keep: bool, recipe: bool) -> Holdings:
    """A type for each quantized weight of a model; without `keep`, none: their values are what counts.

    Weights that no type holds follow the recipe, if there is one; else they are F16, which rounds them less than BF16
    does, or, where small files are preferred, Q8_0.
    """
    imports: list[Import] = []
    packs: dict[str, Callable[[int, int], Array]] = {}
    scales: dict[str, View] = {}
    applied = scaled_names(model) if model.packed else frozenset()
    moved, apart = _by_groups(model, prefer, surveys) if keep else ({}, {})
    for one in model.views:
        how = model.packed.get(one.name)
        if how is None:
            continue
        view = moved.get(one.name, one)
        if not keep:
            imports.append(Import(view.name, how.method, None, "dequantized", how.why or "asked for"))
            continue
        why = apart.get(view.name, "")
        found, choice = Import(view.name, how.method, None, "dequantized", why or how.why), None
        if why:
            view = replace(view, stored=None)
        elif view.stored is not None and not view.stored.floats:
            found, choice = choose(view, prefer, scaled=view.name in applied, look=surveys.of)
        factors = choice.wholes if choice is not None else view.stored.factors if view.stored is not None else ()
        if found.type is not None and (found.type.quantized or (factors and not recipe)):
            packs[view.name] = partial(pack, view, choice)
            if factors:
                scales[view.name] = of_array(scale_name(view.name), np.array(factors, np.float32))
        elif recipe:
            found = replace(found, type=None)
        elif found.type is None:
            found = _as_floats(found, view, how, prefer, surveys)
        imports.append(replace(found, moved=view.name in moved))
    return Holdings(imports, packs, scales, moved)


def _by_groups(model: Model, prefer: Prefer, surveys: Surveys) -> tuple[dict[str, View], dict[str, str]]:
    """The views that change so that groups lie together, and of the weights whose groups cannot, why not.

    Nothing moves for a weight that no type holds anyway.
    """
    views, moved, apart = {view.name: view for view in model.views}, dict[str, View](), dict[str, str]()
    for view in model.views:
        if view.stored is None or not view.stored.orders:
            continue
        found, _ = choose(view, prefer, look=surveys.of)
        made = found.rule if found.type is None else put_together(view, views)
        if isinstance(made, str):
            apart[view.name] = made
        else:
            moved |= made
            views |= made
    return moved, apart


def scaled_names(model: Model) -> frozenset[str]:
    """The names of outputs beside which llama.cpp looks for a scale of the whole tensor."""
    arch = str(model.metadata["general.architecture"].value)
    layers = _number(model, arch, "block_count") - _number(model, arch, "nextn_predict_layers")
    names = {view.name for view in model.views}
    return frozenset(name for name in names if has_scale(arch, name, names, layers))


def _number(model: Model, arch: str, key: str) -> int:
    """A number among an architecture's keys; 0 without it."""
    found = model.metadata.get(f"{arch}.{key}")
    return int(found.value) if found is not None and isinstance(found.value, int) else 0


def _as_floats(found: Import, view: View, how: Packing, prefer: Prefer, surveys: Surveys) -> Import:
    """What becomes of a weight that no type holds, where nothing else says."""
    if prefer == "small" and view.width % Q8_0.block_size == 0:
        return replace(found, type=Q8_0, status="near")
    return replace(found, type=F16) if _largest(view, how, surveys) <= _MOST_HALF else found


def _largest(view: View, how: Packing, surveys: Surveys) -> float:
    """A number that no weight exceeds in magnitude."""
    stored = view.stored
    if stored is None or stored.floats:
        return how.largest()
    if len(stored.parts) > 1:
        return surveys.of(view).largest
    return _MOST_IN_BLOCKS.get(stored.parts[0].type.name, float("inf")) * max(stored.factors, default=1.0)
