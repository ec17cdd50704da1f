"""What became of weights that another tool quantized: how well a file holds each, as lines and as metadata.

Knows types and words; must not know codes, scales, or how a type is chosen.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from gguf_forge.errors import RecipeError, escaped, listed
from gguf_forge.format.values import Value, string
from gguf_forge.quant.recipe import recipe
from gguf_forge.types import TensorType

Status = Literal["lossless", "code-exact", "near", "dequantized"]


@dataclass(frozen=True)
class Import:
    """What becomes of a quantized weight: its type in the file, how well that holds it, and by which rule.

    lossless: every weight is the same number. code-exact: every code is the same, scales or minima are rounded to F16.
    near: quantized again; `rmse` is the error's root mean square over the weights', once it is measured. dequantized:
    stored as floats. `method` is how it came. `moved`: rows or columns change places so that groups lie together.
    """

    name: str
    method: str
    type: TensorType | None
    status: Status
    rule: str
    rmse: float | None = None
    moved: bool = False

    @property
    def kind(self) -> str:
        """The type's name; "floats" where none is settled."""
        return self.type.name if self.type else "floats"


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


#: What is said of weights whose groups were put together (act-order).
MOVED = "inputs of the layer's last matrix in the order of its groups"
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
        rules = [one.rule] if one.status != "lossless" else []
        rules += [MOVED] if one.moved else []
        groups.setdefault((one.status, one.kind, one.method, "; ".join(rules)), []).append(one)
    lines = []
    for (status, kind, method, rule), group in groups.items():
        errors = [one.rmse for one in group if one.rmse]
        error = f", relative RMSE {max(errors):.2g}" if errors else ""
        lines.append(f"{len(group)} weights of {method}: {status} as {kind}{error}{f' ({rule})' if rule else ''}")
    return lines
