"""What one output file shall hold: every tensor's type, the importances to encode with, the metadata.

The converter's outtypes and llama-quantize's recipes both end here. Must not know where a model came from, nor where
its file goes.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Literal

import numpy as np

from gguf_forge import names
from gguf_forge.convert.encoding import Weights
from gguf_forge.convert.imported import (
    FILE_TYPES_OF_BLOCKS,
    Holdings,
    Import,
    Prefer,
    Surveys,
    file_type_of,
    holdings,
    provenance,
    require_status,
    settled,
)
from gguf_forge.convert.metrics import Metrics
from gguf_forge.convert.model import Model
from gguf_forge.convert.ops import FLOATS
from gguf_forge.convert.run import Divided, Pass
from gguf_forge.convert.view import Array, View
from gguf_forge.errors import RecipeError, RequestError, escaped, listed
from gguf_forge.format.shards import SPLIT_KEYS
from gguf_forge.format.values import Value, u32
from gguf_forge.quant.calibration import Calibration
from gguf_forge.quant.header import fit_metadata, quantized_metadata
from gguf_forge.quant.imatrix import Imatrix, load_imatrix
from gguf_forge.quant.outtype import OUTTYPES, choose_outtype, outtype_recipe
from gguf_forge.quant.overrides import Override, parse_override
from gguf_forge.quant.recipe import (
    Choice,
    ModelFacts,
    Options,
    Recipe,
    TensorSpec,
    choose,
    recipe,
    require_imatrix,
    require_unquantized,
    require_wanted,
)
from gguf_forge.quant.unseen import importance
from gguf_forge.types import TensorType, tensor_type

FILE_TYPE_KEY = "general.file_type"
F32 = tensor_type("F32")
#: Why a tensor has its type.
STORED = "kept as it is stored"
KEPT = "and keep their bits"
#: The outtype that keeps what a checkpoint stores: the codes of quantized weights, the precision of floats.
AUTO = "auto"


@dataclass(frozen=True)
class Wanted:
    """A type as asked for: the name of an outtype (`auto` resolved) or of a recipe, and what it means for weights that
    another tool quantized: whether they `keep` their codes, or count as the floats that they stand for.
    """

    name: str
    keep: bool = False

    @property
    def by_recipe(self) -> bool:
        """Whether a recipe says which type a tensor gets. The converter's outtypes are in lower case."""
        return self.name not in OUTTYPES


def wanted_types(types: str | Iterable[str], model: Model) -> list[Wanted]:
    """What names stand for, each once, whatever it is called: `auto` is the checkpoint's own outtype, under which, as
    under recipes, codes are kept where there are any; recipes have aliases.

    Raises RecipeError for an unknown name, for none, and for COPY, which a checkpoint has no types for.
    """
    asked = types.split(",") if isinstance(types, str) else types
    found = [_wanted(name.strip(), model) for name in asked if name.strip()]
    if not found:
        raise RecipeError("no type given")
    return list(dict.fromkeys(found))


def _wanted(name: str, model: Model) -> Wanted:
    packed = bool(model.packed)
    if name in OUTTYPES:
        return Wanted(model.auto, keep=packed) if name == AUTO else Wanted(name)
    if name.upper() == "COPY":
        raise RecipeError("COPY keeps the types of a GGUF file, and this is a checkpoint; auto keeps its precision")
    return Wanted(recipe(name).name, keep=packed)


Effort = Literal["ref", "high", "max"]


@dataclass(frozen=True)
class Quantization:
    """How tensors get their types, beyond the recipe; as llama-quantize's options of these names.

    `imatrix`: an importance matrix, or the path of one (which then is what the file's metadata names).
    `calibration`: an open calibration file; its importance matrix is used where no other is given.
    `effort`: "ref" makes ggml's bytes, "high" fits rows to what their matrix computes, with the calibration's
    covariances, and token embeddings to the first layer; "max" does so layer after layer, with the inputs that the
    quantized layers before make, for which `sequential` runs the model (`gguf_forge.Sequential`); None is "high" with
    a calibration, else "ref".
    `overrides`: texts "REGEX=TYPE", the first match counts.
    `fallback`: False makes it an error when a tensor's width does not fit the type the recipe wants.
    `allow_nonfinite`: NaNs and infinities are written where the type can hold them, and noted, not refused.

    Of weights that another tool quantized: `prefer` "exact" takes the smallest type that holds them exactly, "small" a
    smaller one in which only scales or minima are rounded, if there is one; `require` "lossless" or "code-exact" makes
    it an error where one is held less well; `requantize` quantizes their values anew, by the recipe; `detect_grid`
    looks for such weights among plain floats.
    """

    imatrix: Imatrix | str | os.PathLike[str] | None = None
    pure: bool = False
    output_tensor_type: str | TensorType | None = None
    token_embedding_type: str | TensorType | None = None
    overrides: Sequence[Override | str] = ()
    leave_output: bool = False
    fallback: bool = True
    allow_nonfinite: bool = False
    prefer: Prefer = "exact"
    require: Literal["lossless", "code-exact"] | None = None
    requantize: bool = False
    detect_grid: bool = False
    calibration: Calibration | None = None
    effort: Effort | None = None
    sequential: Pass | None = None

    @property
    def fits(self) -> Literal["high", "max"] | None:
        """How hard rows are fitted, if they are. Raises RequestError where `max` has not what it needs."""
        effort = self.effort or ("ref" if self.calibration is None else "high")
        if effort == "max" and (self.calibration is None or self.sequential is None):
            raise RequestError(
                "effort max runs the model on the calibration's text: it needs a calibration and a runner"
            )
        return None if effort == "ref" else effort

    def matrix(self) -> Imatrix | None:
        """The importance matrix: the one given, or the calibration's."""
        if self.imatrix is None:
            return None if self.calibration is None else self.calibration.imatrix
        return self.imatrix if isinstance(self.imatrix, Imatrix) else load_imatrix(self.imatrix)


@dataclass(frozen=True)
class Job:
    """What one output file shall hold: tensors in order with their types, importances, metadata.

    `notes`: what was asked for and has no effect, and where the importance matrix says nothing. `strict`: NaNs and
    infinities in it are an error, as they are to llama-quantize; the converter's floats are only noted. `imports` say
    what becomes of each weight that another tool quantized; `packs` make the blocks of those whose codes are kept, and
    `scales` are tensors that go beside them, or beside those in `wholes`, which are divided by them before encoding;
    `moved` are views in place of the model's of their names; `fitted`: rows are fitted to what their matrix computes,
    where that is known.
    """

    type: str
    metadata: Mapping[str, Value]
    choices: Sequence[Choice]
    weights: Mapping[str, Weights]
    notes: Sequence[str] = ()
    strict: bool = True
    imports: Sequence[Import] = ()
    packs: Mapping[str, Callable[[int, int], Array]] = field(default_factory=dict)
    scales: Mapping[str, View] = field(default_factory=dict)
    moved: Mapping[str, View] = field(default_factory=dict)
    wholes: Mapping[str, Divided] = field(default_factory=dict)
    fitted: bool = False

    @classmethod
    def of_type(
        cls, wanted: Wanted, model: Model, how: Quantization, dry_run: bool, surveys: Surveys | None = None
    ) -> Job:
        """What `wanted_types` gives of a checkpoint's model. `surveys` are those of its weights made so far."""
        keep = wanted.keep and not how.requantize
        held = holdings(model, how.prefer, surveys or Surveys(), keep=keep, recipe=wanted.by_recipe)
        if held.scales:
            model = replace(model, views=held.beside(model.views))
        if not wanted.by_recipe:
            job = cls.of_outtype(wanted.name, model, how, held.types)
        else:
            kept = {v.name: v.type for v in model.views if v.type not in FLOATS} | dict(held.types)
            f32 = Model([v if v.type not in FLOATS else _as_f32(v) for v in model.views], model.metadata)
            job = cls.of_recipe(wanted.name, f32, how, {}, dry_run, kept=kept)
            stored = {v.name: held.types.get(v.name, v.type) for v in model.views}
            job = replace(job, choices=[replace(choice, source=stored[choice.name]) for choice in job.choices])
        own = wanted.keep and not wanted.by_recipe
        return job if not model.packed else _importing(job, held, how, own=own)

    @classmethod
    def of_outtype(
        cls, name: str, model: Model, how: Quantization, kept: Mapping[str, TensorType] = MappingProxyType({})
    ) -> Job:
        """What convert_hf_to_gguf.py makes. `kept` are imported tensors whose codes stay what they are."""
        which = outtype_recipe(name)
        choices = [_kept(_converters_choice(v, name, model.types.get(v.name, False)), kept) for v in model.views]
        unused = how.pure, how.output_tensor_type, how.token_embedding_type, how.overrides, how.leave_output
        notes = [f"{name}: an outtype, in which types of tensors cannot be named; recipes can"] if any(unused) else []
        notes += [_unfitted(name, how)] if how.calibration is not None or how.effort not in (None, "ref") else []
        # A family whose table has no place for the type says nothing of it, as the reference's converter.
        kind = {FILE_TYPE_KEY: _file_type(model, which)} if FILE_TYPE_KEY in model.metadata else {}
        metadata = {**model.metadata, **kind}
        strict = which.default.quantized and not how.allow_nonfinite
        return cls(which.name, metadata, choices, {}, notes, strict)

    @classmethod
    def of_recipe(
        cls,
        name: str,
        model: Model,
        how: Quantization,
        overrides: Mapping[str, Value],
        dry_run: bool,
        requantize: bool = False,
        kept: Mapping[str, TensorType] | None = None,
    ) -> Job:
        """What llama-quantize makes of a file with these views and metadata.

        A dry run plans also what only an importance matrix would allow, and notes it. `kept` are tensors whose blocks
        or whole numbers stay what they are, whatever the recipe says.
        """
        if name.upper() == "COPY":
            return cls.of_copy(model, how, overrides)
        named = [parse_override(o) if isinstance(o, str) else o for o in how.overrides]
        matrix = how.matrix()
        known = None if matrix is None else list(matrix.entries)
        options = Options(
            pure=how.pure,
            output_type=_optional_type(how.output_tensor_type),
            token_embedding_type=_optional_type(how.token_embedding_type),
            overrides=named,
            imatrix_names=known,
            leave_output=how.leave_output,
        )
        which = recipe(name)
        facts = ModelFacts.from_metadata({**(model.counted_by or model.metadata), **overrides})
        choices = [_kept(choice, kept or {}) for choice in choose(_specs_in_ggml(model), facts, which, options)]
        notes = _unmatched(named, model.views) + _packed(kept or {})
        try:
            require_imatrix(choices, known)
        except RecipeError as error:
            if not dry_run:
                raise
            notes.append(str(error))
        if not requantize:
            require_unquantized(choices)
        _require_codecs(choices)
        if not how.fallback:
            require_wanted(choices)
        weights = {} if matrix is None else _weights(matrix, choices)
        notes += [line for c in choices if c.name in weights for line in _without_data(c, weights[c.name])]
        metadata = quantized_metadata(model.metadata, which, overrides=overrides, imatrix=matrix)
        metrics = Metrics(model.views, how.calibration)
        fitted = bool(how.fits) and any(metrics.may_fit(c.name, c.type) for c in choices if c.type is not c.source)
        if how.fits and fitted:
            metadata.update(fit_metadata(how.fits, how.calibration))
        elif how.fits:
            notes.append(_unfitted(which.name, how))
        return cls(which.name, metadata, choices, weights, notes, not how.allow_nonfinite, fitted=fitted)

    @classmethod
    def of_copy(cls, model: Model, how: Quantization, overrides: Mapping[str, Value]) -> Job:
        """Every tensor as it is, and `overrides` among the metadata.

        Of a model's file this is what llama-quantize makes of it, with its order of tensors and keys. Any other file
        (an adapter, a control vector, an importance matrix, an image model), which that refuses, stays as it stands.
        """
        matrix, notes = how.matrix(), []
        try:
            facts = ModelFacts.from_metadata({**(model.counted_by or model.metadata), **overrides})
            specs = _specs_in_ggml(model)
            metadata = quantized_metadata(model.metadata, None, overrides=overrides, imatrix=matrix)
        except RecipeError:  # not a model's: nothing here depends on those facts
            facts = ModelFacts("", 0)
            specs = [_spec(v) for v in model.views]
            metadata = {k: v for k, v in model.metadata.items() if k not in SPLIT_KEYS} | dict(overrides)
            notes = [] if matrix is None else ["COPY encodes nothing, so the importance matrix has no effect"]
        notes += [_unfitted("COPY", how)] if how.fits else []
        named = [parse_override(o) if isinstance(o, str) else o for o in how.overrides]
        choices = choose(specs, facts, "F32", Options(only_copy=True))
        notes += _unmatched(named, model.views)
        return cls("COPY", metadata, choices, {}, notes, not how.allow_nonfinite)


def _unfitted(name: str, how: Quantization) -> str:
    """Why a calibration, or an effort, changes nothing."""
    given = "the effort" if how.calibration is None else "the calibration"
    return f"{name}: {given} has no effect: no tensor gets a type that is fitted and has inputs that were seen"


def _importing(job: Job, held: Holdings, how: Quantization, *, own: bool) -> Job:
    """The job with types, report and metadata of imported weights. RecipeError where `require` is not met.

    `own`: the file is named after the type that most of these weights have.
    """
    kinds = {choice.name: choice.type for choice in job.choices}
    imports = [settled(one, kinds[one.name]) for one in held.imports]
    require_status(imports, how.require)
    most = Counter(one.type.name for one in imports if one.type is not None).most_common(1)
    metadata = dict(job.metadata)
    if own and most and FILE_TYPE_KEY in metadata:
        metadata[FILE_TYPE_KEY] = u32(file_type_of(most[0][0]))
        job = replace(job, type=most[0][0])
    if held.packs:
        metadata.update(provenance(imports))
    stored = {name: kinds[name] for name in held.packs}
    notes = [*(note for note in job.notes if not note.endswith(KEPT)), *_packed_notes(job, stored)]
    notes += _overruled(how, stored)
    job = replace(job, metadata=metadata, notes=notes, imports=imports)
    return replace(job, packs=held.packs, scales=held.scales, moved=held.moved)


def _overruled(how: Quantization, kept: Mapping[str, TensorType]) -> list[str]:
    """A line where a type was named for tensors whose codes are kept."""
    named = [parse_override(o) if isinstance(o, str) else o for o in how.overrides]
    found = [name for name, kind in kept.items() for o in named if o.matches(name) and o.type is not kind]
    if not found:
        return []
    return [f"{len(found)} tensors keep their codes, whatever type is named for them (--requantize): {listed(found)}"]


def _packed_notes(job: Job, imported: Mapping[str, TensorType]) -> list[str]:
    """A line for each type of blocks that the checkpoint itself held, beside what was imported."""
    return _packed({c.name: c.type for c in job.choices if c.reason == STORED and c.name not in imported})


def _unmatched(overrides: Iterable[Override], views: Sequence[View]) -> list[str]:
    """A line for each pattern that no tensor's name matches."""
    return [
        f"{escaped(o.pattern.pattern)}={o.type}: matches no tensor"
        for o in overrides
        if not any(o.matches(v.name) for v in views)
    ]


def _require_codecs(choices: Iterable[Choice]) -> None:
    """RecipeError for a type that cannot be made, before any work is done."""
    changed = [c for c in choices if c.type is not c.source]
    for choice in changed:
        if not choice.type.encodes:
            raise RecipeError(f"{choice.name}: encoding {choice.type} is not supported")
        if choice.source.quantized and not choice.source.decodes:
            raise RecipeError(f"{choice.name}: decoding {choice.source} is not supported")


def _kept(choice: Choice, kept: Mapping[str, TensorType]) -> Choice:
    """The choice for a tensor that stays what it is."""
    kind = kept.get(choice.name)
    return choice if kind is None else Choice(choice.name, choice.shape, kind, kind, kind, STORED)


def _packed(kept: Mapping[str, TensorType]) -> list[str]:
    """A line for each type of blocks that a checkpoint holds and a recipe leaves."""
    counts = Counter(kind for kind in kept.values() if kind.quantized)
    return [f"{count} tensors are stored as {kind}, {KEPT}" for kind, count in counts.items()]


def _file_type(model: Model, which: Recipe) -> Value:
    """The file type under an outtype: the family's own; that of the blocks kept among floats; or the outtype's."""
    own = model.metadata.get(FILE_TYPE_KEY)
    if own is not None and own.value:
        return own
    blocks = {v.type.name for v in model.views} if not which.default.quantized else set()
    return u32(next((number for name, number in FILE_TYPES_OF_BLOCKS.items() if name in blocks), which.ftype))


def _converters_choice(view: View, outtype: str, given: str | bool) -> Choice:
    """The converter's type for a tensor: blocks and whole numbers stay what they are."""
    if view.type not in FLOATS:
        return Choice(view.name, view.shape, view.type, view.type, view.type, STORED)
    return choose_outtype(_spec(view), outtype, tensor_type(given) if isinstance(given, str) else given)


def _specs_in_ggml(model: Model) -> list[TensorSpec]:
    """The tensors in llama-quantize's order, with the axes that ggml counts."""
    views = {v.name: v for v in model.views}
    order = views if model.as_stored else names.quantize_order(views)
    return [TensorSpec(n, _shape_in_ggml(views[n].shape), views[n].type) for n in order]


def _spec(view: View) -> TensorSpec:
    return TensorSpec(view.name, view.shape, view.type)


def _shape_in_ggml(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Without leading axes of one, which ggml does not count: llama-quantize writes (1, n) as (n,), unquantized."""
    while len(shape) > 1 and shape[0] == 1:
        shape = shape[1:]
    return shape or (1,)


def _as_f32(view: View) -> View:
    """The view as it would lie in an F32 conversion: for choosing types, not for reading."""
    return View(view.name, view.shape, F32, view.rows)


def _optional_type(which: str | TensorType | None) -> TensorType | None:
    return None if which is None else tensor_type(which)


def _weights(matrix: Imatrix, choices: Iterable[Choice]) -> dict[str, Weights]:
    """Importances of the tensors that change their type, as (matrices, width)."""
    found: dict[str, Weights] = {}
    for choice in choices:
        values = None if choice.type is choice.source else matrix.weights(choice.name, choice.shape)
        if values is not None:
            found[choice.name] = np.ascontiguousarray(values, np.float32).reshape(-1, choice.shape[-1])
    return found


def _without_data(choice: Choice, weights: Weights) -> list[str]:
    """A line where weights are encoded as without the importance matrix, which holds only zeros for them."""
    parts: list[str] = []
    for number, row in enumerate(weights):
        spans = importance(row, choice.type).unseen
        if spans:
            whole = spans == ((0, row.size),)
            columns = "all columns" if whole else f"columns {listed(f'{a} to {b - 1}' for a, b in spans)}"
            parts.append(f"{columns} of expert {number}" if len(weights) > 1 else columns)
    if not parts:
        return []
    how = "all inputs count alike there" if choice.type.needs_weights else "quantized as without one"
    return [f"{escaped(choice.name)}: the importance matrix is 0 in {listed(parts)}: {how}"]
