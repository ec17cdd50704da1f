"""What a family cannot do without: a kind of tensor that no layer has, which only a reader of the file would notice.

Knows names of outputs and how many layers there are. Must not know single families; what they need is in their tables.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from gguf_forge.convert.arch import Either
from gguf_forge.errors import ConversionError

_MAX_NAMED = 6


def require_needs(
    needs: Sequence[str | Either], made: Collection[str], layers: int, sources: Mapping[str, str]
) -> None:
    """ConversionError unless the outputs `made` have all that `needs` names, in each of the layers.

    The error names what the checkpoint lacks: `sources` has a source of each output, both as rules write them.
    """
    missing: list[str] = []
    for need in needs:
        choices = need.choices if isinstance(need, Either) else ((need,),)
        for layer in range(layers) if "{l}" in choices[0][0] else (0,):
            kinds = _missing([[_whole(name) for name in choice] for choice in choices], made, layer)
            if kinds:
                missing += (" or ".join(repr(_at(sources.get(name, name), layer)) for name in kind) for kind in kinds)
                break
    if missing:
        more = f" and {len(missing) - _MAX_NAMED} more" if len(missing) > _MAX_NAMED else ""
        raise ConversionError(f"the checkpoint has no {', no '.join(missing[:_MAX_NAMED])}{more}; is a file missing?")


def _missing(choices: Sequence[Sequence[str]], made: Collection[str], layer: int) -> list[tuple[str, ...]]:
    """The outputs missing in a layer: of the choice that is there for the most part; where none is more so than the
    others, one of each in one tuple.
    """
    lacks = [[name for name in choice if _at(name, layer) not in made] for choice in choices]
    if not all(lacks):
        return []
    there = [len(choice) - len(lack) for choice, lack in zip(choices, lacks, strict=True)]
    nearest = [lack for lack, count in zip(lacks, there, strict=True) if count == max(there)]
    return [(name,) for name in nearest[0]] if len(nearest) == 1 else [tuple(lack[0] for lack in nearest)]


def _whole(name: str) -> str:
    return name if name.endswith((".weight", ".bias")) else f"{name}.weight"


def _at(name: str, layer: int) -> str:
    return name.replace("{l}", str(layer)).replace("{e}", "0")
