"""Chooses the type of every tensor under a recipe, as llama-quantize does for a GGUF file with the same tensors.

Reads the rows of `recipe_table.py`; knows names, shapes and a few facts of the model, no weights and no files.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from gguf_forge import names
from gguf_forge.errors import RecipeError, escaped, listed
from gguf_forge.names import Kind
from gguf_forge.quant import recipe_table
from gguf_forge.quant.overrides import Override
from gguf_forge.quant.reasons import USUAL, why
from gguf_forge.quant.recipe_table import Site
from gguf_forge.quant.scales import has_scale
from gguf_forge.types import TensorType, tensor_type


@dataclass(frozen=True)
class Recipe:
    """A file type of llama.cpp. `ftype` is the number in `general.file_type`; `default` the type most tensors get."""

    name: str
    ftype: int
    default: TensorType

    def __str__(self) -> str:
        return self.name


#: Every recipe by its name in capitals, in order of number.
RECIPES: Mapping[str, Recipe] = MappingProxyType(
    {name: Recipe(name, ftype, tensor_type(default)) for name, ftype, default in recipe_table.RECIPES}
)
_BY_FTYPE = {r.ftype: r for r in RECIPES.values()}


def recipe(which: str | int | Recipe) -> Recipe:
    """The recipe of a name or alias (any case) or of a file type number. Raises RecipeError for an unknown one."""
    if isinstance(which, Recipe):
        return which
    if isinstance(which, int):
        if which not in _BY_FTYPE:
            raise RecipeError(f"unknown file type {which}")
        return _BY_FTYPE[which]
    name = which.upper()
    found = RECIPES.get(recipe_table.ALIASES.get(name, name))
    if found is None:
        raise RecipeError(f"unknown recipe {which!r}; known: {', '.join([*RECIPES, *recipe_table.ALIASES])}")
    return found


@dataclass(frozen=True)
class ModelFacts:
    """What the rows ask of a model. `layers` counts all blocks, `extra_layers` of them predict further tokens.

    `heads` and `kv_heads` are those of layer 0; `kv_heads` 0 where that layer has no attention.
    """

    arch: str
    layers: int
    heads: int = 0
    kv_heads: int = 0
    experts: int = 0
    extra_layers: int = 0

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, Any]) -> ModelFacts:
        """The facts in GGUF metadata (key to plain value, or to an object with the plain value as `.value`).

        Raises RecipeError when the architecture or its block count is missing or no number.
        """
        arch = _plain(metadata.get("general.architecture"))
        if not isinstance(arch, str):
            raise RecipeError("general.architecture is missing: the tensor types of a recipe depend on it")

        def number(key: str, default: int | None) -> int:
            value = _plain(metadata.get(f"{arch}.{key}"))
            if value is not None and not isinstance(value, (str, bytes, int, float)):
                value = value[0] if len(value) else None
            if value is None and default is not None:
                return default
            try:
                return int(value)
            except (TypeError, ValueError):
                found = "missing" if value is None else f"{value!r}, not a number"
                raise RecipeError(f"{arch}.{key} is {found}: the tensor types of a recipe depend on it") from None

        heads = number("attention.head_count", 0)
        layers = number("block_count", 0 if arch == "clip" else None)
        extra_layers = number("nextn_predict_layers", 0)
        if arch == "graniteswitch":  # one more layer, for its router
            layers, extra_layers = layers - extra_layers + 1, 1
        loops = number("num_loops", 1) if arch == "nanbeige" else 1
        if loops > 1:  # runs through its layers several times
            layers = (layers - extra_layers) * loops
        return cls(
            arch=arch,
            layers=layers,
            heads=heads,
            kv_heads=number("attention.head_count_kv", heads),
            experts=number("expert_count", 0),
            extra_layers=extra_layers,
        )

    @property
    def heads_per_kv(self) -> int:
        """Query heads per key-value head in layer 0; 0 without attention there."""
        return self.heads // self.kv_heads if self.kv_heads else 0

    @property
    def seventy_b(self) -> bool:
        """Whether llama.cpp takes the model for a 70B one, which gets better value projections."""
        if (self.arch, self.layers - self.extra_layers) not in recipe_table.SEVENTY_B:
            return False
        return not self.arch.startswith("llama") or (self.heads != self.kv_heads and self.experts != 8)


def _plain(value: Any) -> Any:
    return getattr(value, "value", value)


@dataclass(frozen=True)
class TensorSpec:
    """A tensor of the input: GGUF name, shape in NumPy order, the type it has there."""

    name: str
    shape: tuple[int, ...]
    type: TensorType


@dataclass(frozen=True)
class Options:
    """What a user may change about a recipe, as llama-quantize's options do.

    pure: the default type for every tensor that may be quantized. output_type, token_embedding_type: for those two.
    overrides: first match counts. imatrix_names: the tensors an importance matrix knows; None without a matrix.
    leave_output: output.weight keeps its type. only_copy: every tensor keeps its type.
    """

    pure: bool = False
    output_type: TensorType | None = None
    token_embedding_type: TensorType | None = None
    overrides: Sequence[Override] = ()
    imatrix_names: Collection[str] | None = None
    leave_output: bool = False
    only_copy: bool = False


@dataclass(frozen=True)
class Choice:
    """The type of one tensor; `wanted` differs from it where the width forced a fallback. `reason` is for people."""

    name: str
    shape: tuple[int, ...]
    source: TensorType
    type: TensorType
    wanted: TensorType
    reason: str
    needs_imatrix: bool = False

    @property
    def fell_back(self) -> bool:
        """Whether the tensor got another type than the recipe wanted."""
        return self.type is not self.wanted


def choose(
    tensors: Iterable[TensorSpec], model: ModelFacts, which: str | Recipe, options: Options | None = None
) -> list[Choice]:
    """The type of each tensor under a recipe, in the order given.

    The choices depend on all tensors together (layers are counted, tied embeddings seen), never on the order given.
    Raises RecipeError where llama.cpp has no answer: a width that no fallback type fits, an FFN tensor of a model with
    experts outside its layers. Whether a choice can be carried out is asked of `require_*` afterwards.
    """
    specs = list(tensors)
    chooser = _Chooser(recipe(which), model, options or Options(), specs)
    by_name = {spec.name: spec for spec in specs}
    chosen = {name: chooser.choose(by_name[name]) for name in names.quantize_order(by_name)}
    return [chosen[spec.name] for spec in specs]


class _Chooser:
    """The counters that run along while tensors are visited in llama-quantize's order."""

    def __init__(self, which: Recipe, model: ModelFacts, options: Options, specs: Sequence[TensorSpec]) -> None:
        kinds = [names.kind_of(spec.name) for spec in specs]
        self.recipe = which
        self.model = model
        self.options = options
        self.names = {spec.name for spec in specs}
        self.tied = Kind.OUTPUT not in kinds
        self.values = sum(bool(kind & Kind.VALUES) for kind in kinds)
        self.seen = {Kind.VALUES: 0, Kind.FFN_DOWN: 0, Kind.FFN_GATE: 0, Kind.FFN_UP: 0}

    def choose(self, spec: TensorSpec) -> Choice:
        kept = self._kept(spec)
        if kept is not None:
            return self._choice(spec, spec.type, spec.type, kept)
        wanted, reason = self._wanted(spec)
        got = _fitting(wanted, spec)
        if got is not wanted:
            reason = f"width {spec.shape[-1]} is no multiple of {wanted.block_size}, the block of {wanted}"
        return self._choice(spec, got, wanted, reason)

    def _choice(self, spec: TensorSpec, got: TensorType, wanted: TensorType, reason: str) -> Choice:
        needs = got is not spec.type and _needs_imatrix(spec.name, got, self.recipe)
        return Choice(spec.name, spec.shape, spec.type, got, wanted, reason, needs)

    def _kept(self, spec: TensorSpec) -> str | None:
        if self.options.only_copy:
            return "copied"
        if self.options.leave_output and spec.name == names.OUTPUT:
            return "output left as it is"
        return names.kept_as_is(spec.name, spec.shape, self.model.arch)

    def _wanted(self, spec: TensorSpec) -> tuple[TensorType, str]:
        kind = names.kind_of(spec.name)
        options = self.options
        named = next((o for o in options.overrides if o.matches(spec.name)), None)
        # The per-layer table is large and of its own kind: there a named type comes before the embeddings' type.
        named_table = named is not None and spec.name == names.EMBEDDINGS[1]
        if options.token_embedding_type and kind is Kind.TOKEN_EMBD and not named_table:
            return options.token_embedding_type, "token embedding type given"
        if options.output_type and kind is Kind.OUTPUT:
            return options.output_type, "output type given"
        default = self.recipe.default
        if not default.quantized:
            return default, USUAL
        if named is not None:
            return named.type, f"given by {named.pattern.pattern}={named.type}"
        if options.pure:
            return default, "usual type for all"
        return self._from_rows(spec, kind)

    def _from_rows(self, spec: TensorSpec, kind: Kind) -> tuple[TensorType, str]:
        if self.tied and kind is Kind.TOKEN_EMBD:
            kind = Kind.OUTPUT
            if self.options.output_type:
                return self.options.output_type, "output type given (tied embeddings)"
        site = self._site(spec, kind)
        row = next((row for row in recipe_table.ROWS if row.fits(self.recipe.name, site)), None)
        chosen, reason = self.recipe.default.name, USUAL
        if row is not None:
            chosen, reason = row.type, why(row, kind)
        for replaced, upgrade in recipe_table.UPGRADES:
            if chosen in replaced and upgrade.fits(self.recipe.name, site):
                chosen, reason = upgrade.type, why(upgrade, kind)
        return tensor_type(chosen), reason

    def _site(self, spec: TensorSpec, kind: Kind) -> Site:
        group = Kind.VALUES if kind & Kind.VALUES else kind
        counted = self.seen.get(group, 0)
        if group in self.seen:
            self.seen[group] += 1
        layers = self.values if group is Kind.VALUES else self.model.layers

        def layer() -> int:
            if self.model.experts <= 1 or not kind & Kind.FFN:
                return counted
            named = names.layer_of(spec.name)
            if named is None or named >= layers:
                raise RecipeError(
                    f"{escaped(spec.name)}: not in a layer from 0 to {layers - 1}, so {self.recipe} has no type"
                )
            return named

        return Site(
            name=spec.name,
            kind=kind,
            arch=self.model.arch,
            layer=layer,
            layers=layers,
            counted=counted,
            heads_per_kv=self.model.heads_per_kv,
            experts=self.model.experts,
            matrices=spec.shape[-3] if len(spec.shape) > 2 else 1,
            fits_default=spec.shape[-1] % self.recipe.default.block_size == 0,
            scaled=has_scale(self.model.arch, spec.name, self.names, self.model.layers - self.model.extra_layers),
            seventy_b=self.model.seventy_b,
            imatrix=bool(self.options.imatrix_names),
        )


def _fitting(wanted: TensorType, spec: TensorSpec) -> TensorType:
    """`wanted`, or what replaces it where the width is no multiple of its block."""
    width = spec.shape[-1]
    if width % wanted.block_size == 0:
        return wanted
    replacement = tensor_type(recipe_table.FALLBACK.get(wanted.name, "F16"))
    if wanted.name not in recipe_table.FALLBACK and wanted.block_size > 32:
        raise RecipeError(
            f"{escaped(spec.name)}: width {width} is no multiple of {wanted.block_size}, the block of {wanted}, and "
            f"no other type stands in for it; give this tensor a type"
        )
    return replacement if width % replacement.block_size == 0 else tensor_type("F16")


def _needs_imatrix(name: str, got: TensorType, which: Recipe) -> bool:
    if name == names.OUTPUT or name in names.EMBEDDINGS:
        return False
    return got.name in recipe_table.NEEDS_IMATRIX or (which.name, got.name) in recipe_table.NEEDS_IMATRIX_IN


def require_imatrix(choices: Iterable[Choice], known: Collection[str] | None) -> None:
    """Raises RecipeError that names the tensors whose type needs an importance matrix and that `known` lacks.

    `known`: the tensors the matrix has data for; None without a matrix.
    """
    lacking = [c for c in choices if c.needs_imatrix and (known is None or c.name not in known)]
    if lacking:
        why = "an importance matrix is" if known is None else "the importance matrix has none of the data"
        raise RecipeError(f"{why} needed for: {listed(f'{c.name} ({c.type})' for c in lacking)}")


def require_unquantized(choices: Iterable[Choice]) -> None:
    """Raises RecipeError that names the tensors which are quantized already and would be quantized again."""
    again = [c for c in choices if c.source.quantized and c.type is not c.source]
    if again:
        why = "quantized already, and quantizing again loses more (--allow-requantize allows it)"
        raise RecipeError(f"{why}: {listed(f'{c.name} ({c.source} to {c.type})' for c in again)}")


def require_wanted(choices: Iterable[Choice]) -> None:
    """Raises RecipeError that names the tensors whose width forced another type than the recipe wants."""
    fallen = [c for c in choices if c.fell_back]
    if fallen:
        why = "fallback types are not allowed here, but these widths force them"
        raise RecipeError(f"{why}: {listed(f'{c.name} ({c.wanted} to {c.type}, width {c.shape[-1]})' for c in fallen)}")
