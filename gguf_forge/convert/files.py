"""From a checkpoint or a GGUF file to GGUF files: the public `convert_checkpoint` and `quantize_file`.

Puts together what the floors below offer: a source's views, a type for each, metadata, a writer, a run. Must not know
how any of them works.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from gguf_forge import names
from gguf_forge.convert import sentence
from gguf_forge.convert.agreement import contradictions, unsaid
from gguf_forge.convert.general import default_file_name, general_metadata
from gguf_forge.convert.hparams import metadata_of, refused, remarks, resolve
from gguf_forge.convert.naming import ParameterCounts, fill_file_name
from gguf_forge.convert.ops import Array, Facts, View
from gguf_forge.convert.plan import plan_outputs
from gguf_forge.convert.registry import config_classes, select
from gguf_forge.convert.run import Progress, Target, Weights, run
from gguf_forge.convert.vocab import load_vocab
from gguf_forge.errors import ConversionError, OutputError, RecipeError, UnsupportedError, escaped
from gguf_forge.format import reader
from gguf_forge.format.plan import FilePlan
from gguf_forge.format.values import Value, string, u32
from gguf_forge.format.writer import GGUFWriter
from gguf_forge.quant.header import QUANTIZATION_VERSION, quantized_metadata
from gguf_forge.quant.imatrix import Imatrix, load_imatrix
from gguf_forge.quant.outtype import OUTTYPES, auto_outtype, choose_outtype, outtype_recipe
from gguf_forge.quant.overrides import Override
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
from gguf_forge.source.checkpoint import Checkpoint, open_checkpoint
from gguf_forge.types import TensorType, tensor_type

#: Endings of tensors that only a checkpoint quantized by another tool has.
PACKED = (".qweight", ".weight_packed", ".weight_scale", ".weight_scale_inv", ".absmax", ".weight_format")

FILE_TYPE_KEY = "general.file_type"
VERSION_KEY = "general.quantization_version"
F32 = tensor_type("F32")

StrPath = str | os.PathLike[str]


@dataclass(frozen=True)
class Quantization:
    """How tensors get their types, beyond the recipe; as llama-quantize's options of these names.

    `imatrix`: an importance matrix, or the path of one (which then is what the file's metadata names).
    `fallback`: False makes it an error when a tensor's width does not fit the type the recipe wants.
    """

    imatrix: Imatrix | StrPath | None = None
    pure: bool = False
    output_tensor_type: str | TensorType | None = None
    token_embedding_type: str | TensorType | None = None
    overrides: Sequence[Override] = ()
    leave_output: bool = False
    fallback: bool = True


@dataclass(frozen=True)
class Planned:
    """One output file: where, of which type, what is in it, and why each tensor has its type."""

    path: Path
    type: str
    metadata: Mapping[str, Value]
    choices: Sequence[Choice]
    file: FilePlan
    dropped: Sequence[str] = ()
    notes: Sequence[str] = field(default=())

    @property
    def bpw(self) -> float:
        """Bits per weight, counting tensors only."""
        elements = sum(int(np.prod(c.shape)) for c in self.choices)
        return 8 * sum(e.nbytes for e in self.file.tensors.values()) / elements if elements else 0.0


@dataclass(frozen=True)
class _Model:
    """A source as views and metadata, before types are chosen.

    `auto` is the checkpoint's own outtype; `verify` raises when the source changed since it was opened.
    """

    views: Sequence[View]
    metadata: Mapping[str, Value]
    auto: str = "f16"
    dropped: Sequence[str] = ()
    notes: Sequence[str] = ()
    verify: Callable[[], None] = lambda: None


def convert_checkpoint(
    source: StrPath,
    output: StrPath | None = None,
    types: str | Iterable[str] = "auto",
    *,
    quantization: Quantization | None = None,
    metadata: Mapping[str, Value] | None = None,
    pre: str | None = None,
    model_name: str | None = None,
    threads: int | None = None,
    endian: str = "little",
    dry_run: bool = False,
    overwrite: bool = True,
    progress: Progress | None = None,
) -> list[Planned]:
    """Makes GGUF files, one for each type, from a checkpoint folder in one reading of its weights.

    `types`: names, or one text of names separated by commas. The converter's outtypes in lower case (f32, f16, bf16,
    q8_0, tq1_0, tq2_0, auto) give what convert_hf_to_gguf.py gives; any other name or case is a recipe and gives what
    llama-quantize makes of the F32 conversion. `output`: a file, a folder, or a template with {ftype} or {FTYPE};
    by default a file named after the model, in the checkpoint's folder. `metadata` replaces or adds keys. `pre` names
    the pre-tokenizer when it is not recognised. `dry_run` plans only. Raises ForgeError; files appear only whole.
    """
    with open_checkpoint(source) as checkpoint:
        model = _checkpoint_model(checkpoint, pre=pre, model_name=model_name, overrides=metadata or {})
        wanted = _type_names(types)
        jobs = [_Job.of_type(name, model, quantization or Quantization(), dry_run) for name in wanted]
        paths = _output_paths(output, checkpoint.path, jobs)
        _require_other((file for file in checkpoint.path.iterdir() if file.suffix != ".gguf"), paths)
        return _execute(jobs, paths, model, threads, endian, dry_run, overwrite, progress)


def quantize_file(
    source: StrPath,
    output: StrPath,
    type: str,
    *,
    quantization: Quantization | None = None,
    metadata: Mapping[str, Value] | None = None,
    allow_requantize: bool = False,
    threads: int | None = None,
    dry_run: bool = False,
    overwrite: bool = True,
    progress: Progress | None = None,
) -> Planned:
    """Makes a GGUF file of another type from a GGUF file, or from a set of shards when given any one of them.

    The result is llama-quantize's, byte for byte. `type` is a recipe, or COPY to keep every tensor's type. Tensors
    that are quantized already are quantized again only with `allow_requantize`. Raises ForgeError.
    """
    with reader.open(source) as file:
        _require_other(file.paths, [Path(output)])
        model = _Model([stored_view(t, file.endian) for t in file.tensors.values()], _values(file))
        job = _Job.of_recipe(type, model, quantization or Quantization(), metadata or {}, dry_run, allow_requantize)
        return _execute([job], [Path(output)], model, threads, "little", dry_run, overwrite, progress)[0]


# ---- sources ----------------------------------------------------------------------------------------------------


def _checkpoint_model(
    checkpoint: Checkpoint, *, pre: str | None, model_name: str | None, overrides: Mapping[str, Value]
) -> _Model:
    raw = checkpoint.config
    _require_plain(checkpoint)
    with _sound_config(checkpoint.path):
        arch = select(raw)
        facts = Facts(resolve(raw, config_classes()), checkpoint.path)
        outputs = plan_outputs(arch, checkpoint.tensors, facts)
        early = metadata_of(arch.early, arch.name, facts)
        keys = metadata_of(arch.hparams, arch.name, facts)
    if not outputs.views:
        raise ConversionError(f"{checkpoint.path}: no tensors")
    notes: list[str] = [*checkpoint.notes, *remarks(facts.config, {**early, **keys}, arch.name)]
    if refused(raw, config_classes()):
        notes.append(f"config.json does not fit its model_type {raw.get('model_type')!r}: no defaults are filled in")
    notes += sentence.remarks(checkpoint.path, keys, arch.name)
    metadata: dict[str, Value] = {"general.architecture": string(arch.name), **early}
    counts = ParameterCounts.of((v.name, v.shape) for v in outputs.views)
    metadata.update(
        general_metadata(
            checkpoint.path, raw, architecture=arch.name, counts=counts, name=model_name, note=notes.append
        )
    )
    metadata.update(keys)
    metadata[VERSION_KEY] = u32(QUANTIZATION_VERSION)
    metadata.update(load_vocab(checkpoint.path, dict(facts.config), arch.vocab, pre=pre, note=notes.append))
    metadata.update(overrides)
    notes += contradictions(outputs.views, metadata, arch.name)
    notes += unsaid(facts.config, outputs.views, metadata, arch)
    auto = auto_outtype((t.dtype, len(t.shape)) for t in checkpoint.tensors.values())
    return _Model(outputs.views, metadata, auto, outputs.dropped, notes, checkpoint.require_unchanged)


def _require_plain(checkpoint: Checkpoint) -> None:
    """ConversionError for weights in another tool's packed form, which no rule could use."""
    settings = checkpoint.config.get("quantization_config")
    method = settings.get("quant_method") if isinstance(settings, dict) else None
    packed = next((n for n in checkpoint.tensors if n.endswith(PACKED)), None)
    if method is not None and packed is not None:
        raise ConversionError(
            f"{checkpoint.path}: weights are quantized by {escaped(str(method), 40)} (as {packed!r} shows), "
            "which is not supported; convert the original checkpoint"
        )


@contextmanager
def _sound_config(folder: Path) -> Iterator[None]:
    """Turns what a value of the wrong kind leads to, in tables that trust their configuration, into one clear error."""
    try:
        yield
    except (TypeError, ValueError, KeyError, AttributeError, ArithmeticError) as error:
        what = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise ConversionError(f"{folder / 'config.json'}: cannot be used: {escaped(what)}") from error


def _values(file: reader.GGUFFile) -> dict[str, Value]:
    return {key: file.metadata.value(key) for key in file.metadata}


def stored_view(tensor: reader.Tensor, endian: str) -> View:
    """A GGUF file's tensor as rows in this machine's byte order. UnsupportedError for blocks of a big-endian file."""
    kind = tensor.type
    if kind.quantized:
        if endian == "big":
            raise UnsupportedError(f"{tensor.path}: {kind} blocks of a big-endian file cannot be read")
        return View(tensor.name, tensor.shape, kind, tensor.read_rows)
    code = {"BF16": "u2", "F16": "f2", "F32": "f4", "F64": "f8"}.get(kind.name, f"i{kind.block_bytes}")
    stored = np.dtype((">" if endian == "big" else "<") + code)

    def rows(start: int, stop: int) -> Array:
        return tensor.read_rows(start, stop).view(stored).astype(stored.newbyteorder("="), copy=False)

    return View(tensor.name, tensor.shape, kind, rows)


# ---- types and metadata -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Job:
    """What one output file shall hold: tensors in order with their types, importances, metadata.

    `notes`: what was asked for and has no effect.
    """

    type: str
    metadata: Mapping[str, Value]
    choices: Sequence[Choice]
    weights: Mapping[str, Weights]
    notes: Sequence[str] = ()

    @classmethod
    def of_type(cls, name: str, model: _Model, how: Quantization, dry_run: bool) -> _Job:
        """The converter's outtype of this name, or else the recipe."""
        if name in OUTTYPES:
            return cls.of_outtype(model.auto if name == "auto" else name, model, how)
        f32 = _Model([_as_f32(v) for v in model.views], model.metadata)
        return cls.of_recipe(name, f32, how, {}, dry_run)

    @classmethod
    def of_outtype(cls, name: str, model: _Model, how: Quantization) -> _Job:
        """What convert_hf_to_gguf.py makes."""
        which = outtype_recipe(name)
        choices = [choose_outtype(_spec(v), name) for v in model.views]
        unused = how.pure, how.output_tensor_type, how.token_embedding_type, how.overrides, how.leave_output
        notes = [f"{name}: an outtype, in which types of tensors cannot be named; recipes can"] if any(unused) else []
        return cls(which.name, {**model.metadata, FILE_TYPE_KEY: u32(which.ftype)}, choices, {}, notes)

    @classmethod
    def of_recipe(
        cls,
        name: str,
        model: _Model,
        how: Quantization,
        overrides: Mapping[str, Value],
        dry_run: bool,
        requantize: bool = False,
    ) -> _Job:
        """What llama-quantize makes of a file with these views and metadata.

        A dry run plans also what only an importance matrix would allow, and notes it.
        """
        copying = name.upper() == "COPY"
        matrix = _matrix(how.imatrix)
        known = None if matrix is None else list(matrix.entries)
        options = Options(
            pure=how.pure,
            output_type=_optional_type(how.output_tensor_type),
            token_embedding_type=_optional_type(how.token_embedding_type),
            overrides=how.overrides,
            imatrix_names=known,
            leave_output=how.leave_output,
            only_copy=copying,
        )
        which = _kept_recipe(model) if copying else recipe(name)
        views = {v.name: v for v in model.views}
        specs = [
            TensorSpec(n, _shape_in_ggml(views[n].shape), views[n].type) for n in names.quantize_order(views)
        ]  # fmt: skip
        choices = choose(specs, ModelFacts.from_metadata(model.metadata), which, options)
        notes = _unmatched(how.overrides, model.views)
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
        metadata = quantized_metadata(model.metadata, which, overrides=overrides, imatrix=matrix)
        return cls("COPY" if copying else which.name, metadata, choices, weights, notes)


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


def _spec(view: View) -> TensorSpec:
    return TensorSpec(view.name, view.shape, view.type)


def _shape_in_ggml(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Without leading axes of one, which ggml does not count: llama-quantize writes (1, n) as (n,), unquantized."""
    while len(shape) > 1 and shape[0] == 1:
        shape = shape[1:]
    return shape or (1,)


def _as_f32(view: View) -> View:
    """The view as it would lie in an F32 conversion: for choosing types, not for reading."""
    return View(view.name, view.shape, F32, view.rows, view.granule)


def _optional_type(which: str | TensorType | None) -> TensorType | None:
    return None if which is None else tensor_type(which)


def _kept_recipe(model: _Model) -> Recipe:
    """The file type a copied file keeps."""
    found = model.metadata.get(FILE_TYPE_KEY)
    return recipe(int(found.value) if found is not None else "F32")


def _matrix(given: Imatrix | StrPath | None) -> Imatrix | None:
    return given if given is None or isinstance(given, Imatrix) else load_imatrix(given)


def _weights(matrix: Imatrix, choices: Iterable[Choice]) -> dict[str, Weights]:
    """Importances of the tensors that change their type, as (matrices, width)."""
    found: dict[str, Weights] = {}
    for choice in choices:
        values = None if choice.type is choice.source else matrix.weights(choice.name, choice.shape)
        if values is not None:
            found[choice.name] = np.ascontiguousarray(values, np.float32).reshape(-1, choice.shape[-1])
    return found


# ---- outputs ----------------------------------------------------------------------------------------------------


def _type_names(types: str | Iterable[str]) -> list[str]:
    listed = types.split(",") if isinstance(types, str) else list(types)
    found = list(dict.fromkeys(t.strip() for t in listed if t.strip()))
    if not found:
        raise RecipeError("no type given")
    return found


def _output_paths(output: StrPath | None, folder: Path, jobs: Sequence[_Job]) -> list[Path]:
    """Where each file goes. OutputError when two would have one name."""
    paths = []
    for job in jobs:
        if output is None or os.path.isdir(output):
            paths.append(Path(folder if output is None else output) / default_file_name(job.metadata, job.type))
        else:
            given = Path(output)
            paths.append(given.with_name(fill_file_name(given.name, job.type)))
    for i, path in enumerate(paths):
        if path in paths[:i]:
            raise OutputError(f"{path}: two types would go into one file; name a folder, or put {{ftype}} in the name")
    return paths


def _require_other(sources: Iterable[Path], outputs: Sequence[Path]) -> None:
    """OutputError for an output that would replace what is read."""
    existing = [path for path in outputs if path.exists()]
    if not existing:
        return
    for source in sources:
        for path in existing:
            if source.exists() and os.path.samefile(source, path):
                raise OutputError(f"{path}: is the input")


def _execute(
    jobs: Sequence[_Job],
    paths: Sequence[Path],
    model: _Model,
    threads: int | None,
    endian: str,
    dry_run: bool,
    overwrite: bool,
    progress: Progress | None,
) -> list[Planned]:
    """Plans every file; unless it is a dry run, also makes them all, from one reading."""
    plans: list[Planned] = []
    targets: list[Target] = []
    with ExitStack() as unfinished:
        for job, path in zip(jobs, paths, strict=True):
            writer = GGUFWriter(path, job.metadata, endian=endian, overwrite=overwrite)
            for choice in job.choices:
                writer.declare(choice.name, choice.shape, choice.type)
            notes = (*model.notes, *job.notes)
            plans.append(Planned(path, job.type, job.metadata, job.choices, writer.plan(), model.dropped, notes))
            targets.append(Target(writer, {c.name: c.type for c in job.choices}, job.weights))
        if dry_run:
            return plans
        if endian != "little":
            raise UnsupportedError("only little-endian files are written by a conversion")
        for target in targets:
            unfinished.callback(target.writer.abort)
            target.writer.begin()
        run(model.views, targets, threads=threads, progress=progress)
        plans = [replace(p, notes=(*p.notes, *_overflows(t))) for p, t in zip(plans, targets, strict=True)]
        model.verify()
        for target in targets:
            target.writer.seal()
        for target in targets:
            target.writer.publish()
        unfinished.pop_all()
    return plans


def _overflows(target: Target) -> list[str]:
    return [f"{name}: not every value is finite as F16; the largest F16 is 65504" for name in sorted(target.overflows)]


__all__ = ["Planned", "Quantization", "convert_checkpoint", "quantize_file"]
