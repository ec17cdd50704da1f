"""From outputs back to the checkpoint's tensors: every emission of a plan undone by its verb.

Exact where verbs only move rows or columns; sums and products come back as near as their type allows. Knows plans and
verbs; must not know families or files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from gguf_forge.convert.arch import Arch
from gguf_forge.convert.ops import Computed
from gguf_forge.convert.plan import Outputs, rename, sources_of
from gguf_forge.convert.view import View
from gguf_forge.source.packed import AnyTensor


def source_views(
    arch: Arch, outputs: Outputs, views: Mapping[str, View], tensors: Mapping[str, AnyTensor]
) -> dict[str, View]:
    """The source tensors that `views` (the outputs' rows by name) were made of, by their stored names.

    `outputs` is the plan, `tensors` the headers it was made for. What the architecture drops is not among them. Raises
    ConversionError naming an output that keeps too little.
    """
    stored, _ = rename(arch, tensors, outputs.facts)
    by_rule = {name: tensors[where] for name, where in stored.items()}
    for fusion in outputs.fusions:
        if fusion.name in views:
            views = {**views, **fusion.undo(views[fusion.name], outputs.facts)}
    found: dict[str, View] = {}
    for emission in outputs.emissions:
        if isinstance(emission.rule.verb, Computed) or not all(name in views for name in emission.names):
            continue
        like = sources_of(emission, by_rule)
        made = emission.rule.verb.undo(
            [views[name] for name in emission.names], like, outputs.facts.at(emission.layer)
        )
        for name, view in zip(emission.sources, made, strict=True):
            found[stored[name]] = replace(view, name=stored[name])
    return found
