"""From a checkpoint or a GGUF file to GGUF files: the public `convert_checkpoint` and `quantize_file`.

Puts together what its neighbours offer: a model (model.py), what each file shall hold (job.py), where it goes
(destination.py), one run over the weights. Must not know how any of them works.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import cache
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from gguf_forge.convert.destination import output_paths, quantized_path
from gguf_forge.convert.encoders import encoder_of
from gguf_forge.convert.encoding import Run
from gguf_forge.convert.facts import USUAL, Options
from gguf_forge.convert.grids import hint, with_grids
from gguf_forge.convert.identity import Identity, identity
from gguf_forge.convert.imported import Import, Surveys, measured
from gguf_forge.convert.job import Job, Quantization, wanted_types
from gguf_forge.convert.metrics import Metrics
from gguf_forge.convert.model import Model, checkpoint_model, gguf_model
from gguf_forge.convert.prune import Pruning, pruned, pruned_statistics
from gguf_forge.convert.resume import Resumable, saving
from gguf_forge.convert.run import Pass, Progress, Target, run, share
from gguf_forge.convert.run import whole as whole_views
from gguf_forge.convert.splitting import Splitting
from gguf_forge.convert.view import View
from gguf_forge.convert.wholes import with_wholes
from gguf_forge.errors import RequestError, escaped
from gguf_forge.format import reader
from gguf_forge.format.atomic import names_folder
from gguf_forge.format.places import make_folder, remove_folders, require_other
from gguf_forge.format.plan import Declared, FilePlan
from gguf_forge.format.sets import SetWriter, Shard
from gguf_forge.format.shards import shard_prefix
from gguf_forge.format.share import ShareWriter, require_part
from gguf_forge.format.stream import RowStream
from gguf_forge.format.values import Value, typed
from gguf_forge.format.writer import GGUFWriter
from gguf_forge.quant.codec import thread_count
from gguf_forge.quant.encoders import Encoder
from gguf_forge.quant.recipe import Choice
from gguf_forge.source.checkpoint import open_checkpoint
from gguf_forge.source.merged import merge_adapter
from gguf_forge.source.wrappers import refuse_adapter
from gguf_forge.types import TensorType

StrPath = str | os.PathLike[str]

#: What goes by the name of a stream.
STREAMED = Path("standard output")
#: The most tensors with NaNs or infinities that are named one by one.
MOST_BLEMISHED = 8


@dataclass(frozen=True)
class Planned:
    """One output file: where, of which type, what is in it, and why each tensor has its type.

    `imports` say of each weight that another tool quantized how well the file holds it. `shards`, where it is written
    as a set, are its files; `file` is then what the whole would be, and `path` the first of them. `part`: which share
    of the file, of how many, is at `path`, if it is not all of it.
    """

    path: Path
    type: str
    metadata: Mapping[str, Value]
    choices: Sequence[Choice]
    file: FilePlan
    dropped: Sequence[str] = ()
    notes: Sequence[str] = field(default=())
    imports: Sequence[Import] = ()
    shards: Sequence[Shard] = ()
    part: tuple[int, int] | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of the file, or of all its shards."""
        return sum(shard.nbytes for shard in self.shards) or self.file.size

    @property
    def bpw(self) -> float:
        """Bits per weight, counting tensors only."""
        elements = sum(int(np.prod(c.shape)) for c in self.choices)
        return 8 * sum(e.nbytes for e in self.file.tensors.values()) / elements if elements else 0.0

    def __repr__(self) -> str:
        what = f"{self.type}, {len(self.metadata)} keys, {len(self.choices)} tensors, {self.file.size} bytes"
        return f"<Planned {escaped(str(self.path), 4096)}: {what}>"


def convert_checkpoint(
    source: StrPath,
    output: StrPath | BinaryIO | None = None,
    types: str | Iterable[str] = "auto",
    *,
    quantization: Quantization | None = None,
    metadata: Mapping[str, Any] | None = None,
    pre: str | None = None,
    model_name: str | None = None,
    options: Options = USUAL,
    arch: str | None = None,
    allow_unused: Sequence[str] = (),
    threads: int | None = None,
    endian: str = "little",
    dry_run: bool = False,
    overwrite: bool = True,
    splitting: Splitting | None = None,
    resume: bool = False,
    part: tuple[int, int] | None = None,
    progress: Progress | None = None,
    device: str = "cpu",
) -> list[Planned]:
    """Makes GGUF files, one for each type, from a checkpoint folder in one reading of its weights.

    `types`: names, or one text of names separated by commas. The converter's outtypes in lower case (f32, f16, bf16,
    q8_0, tq1_0, tq2_0, auto) give what convert_hf_to_gguf.py gives; any other name or case is a recipe and gives what
    llama-quantize makes of the F32 conversion. `output`: a file, a folder (one that ends in a separator is made), or a
    template with {ftype} or {FTYPE}; by default a file named after the model, in the checkpoint's folder. A stream that
    takes bytes gets one file in order. `metadata` replaces or adds keys: a Value, or an object that GGUFWriter.add
    takes. `pre` names the pre-tokenizer when it is not recognised. `options` choose among what the checkpoint holds
    (layers that predict further tokens, ...). `arch` names the architecture where the configuration's class is unknown;
    tensors that no rule uses are left out where a regular expression of `allow_unused` fits, and noted. `endian`:
    "little" or "big", in BF16 and within blocks, too. `dry_run` plans only. `splitting` cuts each file into shards,
    NAME-00001-of-0000N.gguf and so on; a set that is there is not replaced. `resume` goes on where an earlier run of
    the same arguments was cut off, if one was. `part`: (I, N) makes share I of N, OUTPUT.0000I-of-0000N.part, for
    `join`. `device`: what encodes, to the same bytes: "cpu", "cuda" (all GPUs), "cuda:N", or "auto", which does without
    what is missing or fails; notes say what did how much. Raises ForgeError; files and sets appear only whole.
    """
    with open_checkpoint(options.base or source, native=options.mistral_format) as checkpoint:
        refuse_adapter(checkpoint.path, checkpoint.tensors.keys())
        if options.base is not None:
            merge_adapter(checkpoint, Path(source))
        model = checkpoint_model(
            checkpoint, pre=pre, model_name=model_name, overrides=typed(metadata or {}), options=options,
            arch_name=arch, allow_unused=allow_unused,
        )  # fmt: skip
        how, surveys = quantization or Quantization(), Surveys()
        model = with_grids(model) if how.detect_grid else replace(model, notes=[*model.notes, *hint(model)])
        asked = wanted_types(types, model)
        made = [(one, with_wholes(Job.of_type(one, model, how, dry_run, surveys), model)) for one in asked]
        jobs = {job.type if one.keep and not one.by_recipe else one.name: job for one, job in made}
        sink, named = _destination(output)
        paths = output_paths(named, checkpoint.folders[0], jobs) if sink is None else [STREAMED] * len(jobs)
        require_other((f for folder in checkpoint.folders for f in folder.iterdir() if f.suffix != ".gguf"), paths)
        new = {path.parent for path in paths} if named is not None and names_folder(named) else ()
        outputs = Outputs(paths, endian, overwrite, splitting, {}, new, resume, part, not options.vocab_only, sink)
        return _execute([*jobs.values()], outputs, model, how, threads, dry_run, progress, device)


def quantize_file(
    source: StrPath,
    output: StrPath | BinaryIO,
    type: str,
    *,
    quantization: Quantization | None = None,
    metadata: Mapping[str, Any] | None = None,
    allow_requantize: bool = False,
    prune_layers: Collection[int] = (),
    threads: int | None = None,
    endian: str = "little",
    dry_run: bool = False,
    overwrite: bool = True,
    splitting: Splitting | None = None,
    resume: bool = False,
    part: tuple[int, int] | None = None,
    progress: Progress | None = None,
    device: str = "cpu",
) -> Planned:
    """Makes a GGUF file of another type from a GGUF file, or from a set of shards when given any one of them.

    The result is llama-quantize's, byte for byte. `output`: a file, or a folder for ggml-model-TYPE.gguf; a folder that
    ends in a separator is made; or a stream that takes bytes. `type` is a recipe, or COPY to keep every tensor's type,
    for which any GGUF file will do. Tensors that are quantized already are quantized again only with
    `allow_requantize`. `prune_layers` are left out, and the others renumbered, by keys and by the names of an
    importance matrix, too. `endian`: "little" or "big", in which numbers within blocks are swapped, too, whatever the
    source's is. `splitting` cuts the file into shards, or keeps those of the source; a set that is there is not
    replaced. `resume`, `part`, `device`: as of `convert_checkpoint`. Raises ForgeError.
    """
    with reader.open(source) as file:
        model = replace(gguf_model(file), as_stored=splitting is not None and splitting.keep)
        how, overrides = quantization or Quantization(), typed(metadata or {})
        homes = {tensor.name: file.paths.index(tensor.path) for tensor in file.tensors.values()}
        pruning = Pruning.of(model.metadata, prune_layers) if prune_layers else None
        if pruning is not None:
            model, how = pruned(model, pruning), pruned_statistics(how, pruning)
            homes = {pruning.name(name) or name: home for name, home in homes.items() if pruning.name(name)}
        job = with_wholes(Job.of_recipe(type, model, how, overrides, dry_run, allow_requantize), model)
        if pruning is not None:
            job = replace(job, metadata=pruning.counted_last(job.metadata))
        sink, named = _destination(output)
        path = STREAMED if named is None else quantized_path(named, job)
        require_other(file.local_paths(), [path])
        new = [path.parent] if named is not None and names_folder(named) else ()
        outputs = Outputs([path], endian, overwrite, splitting, homes, new, resume, part, stream=sink)
        return _execute([job], outputs, model, how, threads, dry_run, progress, device)[0]


def _destination(output: StrPath | BinaryIO | None) -> tuple[BinaryIO | None, StrPath | None]:
    """The stream that is written to, or the path."""
    if output is None or isinstance(output, (str, os.PathLike)):
        return None, output
    return output, None


@dataclass(frozen=True)
class Outputs:
    """Where files go and how they are written; `folders` are those to be made. `homes`: see `Splitting.shards`.

    `resume`, `part`: as of `convert_checkpoint`. `pad`: see GGUFWriter. `stream`: what takes the bytes of the one file,
    which then has no path.
    """

    paths: Sequence[Path]
    endian: str
    overwrite: bool
    splitting: Splitting | None
    homes: Mapping[str, int] = field(default_factory=dict)
    folders: Iterable[Path] = ()
    resume: bool = False
    part: tuple[int, int] | None = None
    pad: bool = True
    stream: BinaryIO | None = None

    def writers(self, path: Path, job: Job) -> tuple[GGUFWriter | RowStream, SetWriter | None]:
        """The job as one file, and as a set of shards where it is to be cut."""
        if self.stream is not None:
            declared = [Declared(c.name, tuple(c.shape), c.type) for c in job.choices]
            return RowStream(self.stream, job.metadata, declared, endian=self.endian, pad=self.pad), None
        whole = GGUFWriter(path, job.metadata, endian=self.endian, overwrite=self.overwrite, pad=self.pad)
        tensors = [Declared(c.name, tuple(c.shape), c.type) for c in job.choices]
        for tensor in tensors:
            whole.declare(tensor.name, tensor.shape, tensor.type)
        shards = [tensors] if self.splitting is None else self.splitting.shards(tensors, self.homes)
        cut = len(shards) > 1
        prefix = shard_prefix(path)
        return whole, SetWriter(prefix, job.metadata, shards, endian=self.endian) if cut else None


def _execute(
    jobs: Sequence[Job],
    outputs: Outputs,
    model: Model,
    how: Quantization,
    threads: int | None,
    dry_run: bool,
    progress: Progress | None,
    device: str,
) -> list[Planned]:
    """Plans every file; unless it is a dry run, also makes them all, and the folders they ask for, from one reading."""
    threads = thread_count(threads)
    _require_cuttable(outputs, how.sequential if how.fits == "max" else None)
    metrics = Metrics(model.views, how.calibration) if how.fits else None
    plans: list[Planned] = []
    targets: list[Target] = []
    for job, path in zip(jobs, outputs.paths, strict=True):
        whole, cut = outputs.writers(path, job)
        notes, shards = (*model.notes, *job.notes), () if cut is None else cut.shards()
        plan, first = whole.plan(), path if cut is None else cut.paths[0]
        plans.append(
            Planned(first, job.type, job.metadata, job.choices, plan, model.dropped, notes, job.imports, shards)
        )
        targets.append(_target(cut or whole, {c.name: c.type for c in job.choices}, job, metrics))
    if dry_run:
        return plans
    with encoder_of(device) as encoder:
        work = _Working(threads, progress, encoder)
        made = _carried_out(jobs, outputs, model, how, list(zip(plans, targets, strict=True)), work)
        said = encoder.said()
    return [replace(planned, notes=(*planned.notes, *said)) for planned in made]


@dataclass(frozen=True)
class _Working:
    """How many threads work, whom they tell of it, and what encodes."""

    threads: int
    progress: Progress | None
    encoder: Encoder

    def run(self, views: Sequence[View], targets: Sequence[Target], rows: Sequence[Run] | None = None) -> None:
        """Carries out these views, or only these rows of them."""
        run(views, targets, rows=rows, threads=self.threads, progress=self.progress, encoder=self.encoder)


def _carried_out(
    jobs: Sequence[Job],
    outputs: Outputs,
    model: Model,
    how: Quantization,
    planned: Sequence[tuple[Planned, Target]],
    work: _Working,
) -> list[Planned]:
    """Makes all files that are planned, and the folders they ask for, from one reading."""
    plans, targets = [plan for plan, _ in planned], [target for _, target in planned]
    sequential = how.sequential if how.fits == "max" else None
    views = [*model.views, *{view.name: view for job in jobs for view in job.scales.values()}.values()]
    if outputs.stream is not None:
        return [_streamed(plans[0], targets[0], views, model, work)]
    rows = whole_views(views) if outputs.part is None else share(views, *outputs.part)
    files = [
        _resumable(target, job, _Made(model, how, outputs, rows)) for target, job in zip(targets, jobs, strict=True)
    ]
    with ExitStack() as unfinished:
        made: list[Path] = []
        unfinished.callback(remove_folders, made)
        for folder in outputs.folders:
            make_folder(folder, made)
        for file in files:
            unfinished.callback(file.target.writer.abort)
            unfinished.push(file.leave)
            file.begin(outputs.resume)
        going_on = [file for file in files if not file.done]
        targets = [file.target for file in going_on]
        if sequential is not None:
            for target in targets:
                if target.metrics is not None:
                    sequential.write(model.views, target, work.threads, work.progress)
            work.run(views, targets)
        else:
            with saving(going_on, model.verify):
                work.run(views, targets, rows)
        model.verify()
        _publish(going_on, journals=sequential is None)
        unfinished.pop_all()
    return [_as_made(plan, file) for plan, file in zip(plans, files, strict=True)]


def _publish(files: Sequence[Resumable], *, journals: bool) -> None:
    """Gives files that are all written their names. Raises OutputError."""
    for file in files:
        file.target.writer.seal()
    for file in files if journals else ():
        file.sealed()
    for file in files:
        file.target.writer.publish()
        file.finish()


def _streamed(planned: Planned, target: Target, views: Sequence[View], model: Model, work: _Working) -> Planned:
    """Writes the one file in order: rows are handed out as its tensors follow each other. No journal is kept."""
    named = {view.name: view for view in views}
    with ExitStack() as unfinished:
        unfinished.callback(target.writer.abort)
        target.writer.begin()
        work.run([named[name] for name in planned.file.tensors], [target])
        model.verify()
        target.writer.seal()
        unfinished.pop_all()
    imports = [measured(one, target.errors) for one in planned.imports]
    return replace(planned, notes=(*planned.notes, *_blemishes(target)), imports=imports)


def _require_cuttable(outputs: Outputs, sequential: Pass | None) -> None:
    """RequestError for work that is asked for in pieces, or in order, and has none."""
    if outputs.stream is not None:
        if len(outputs.paths) > 1 or outputs.splitting is not None:
            raise RequestError("one file goes to a stream, neither several nor a set")
        if outputs.resume or outputs.part:
            raise RequestError("what goes to a stream is made in one run, and whole")
        if sequential is not None:
            raise RequestError("effort max writes layer after layer, which is not the order of a stream")
    if sequential is not None and (outputs.resume or outputs.part):
        what = "resumed" if outputs.resume else "divided"
        text = f"effort max cannot be {what}: what it makes of a layer depends on what the model computed before"
        raise RequestError(text)
    if outputs.part is not None:
        require_part(outputs.part)
        if outputs.splitting is not None:
            raise RequestError("a part is of one file; `gguf-forge split` cuts what `gguf-forge join` makes of all")


@dataclass(frozen=True)
class _Made:
    """What files are made of, and which of their rows."""

    model: Model
    how: Quantization
    outputs: Outputs
    rows: Sequence[Run]


def _resumable(target: Target, job: Job, made: _Made) -> Resumable:
    """The job's file, or the share of it that is asked for."""
    part = made.outputs.part

    made_of = cache(lambda: identity(job, made.how, target.writer.header_digest(), made.model))
    count = {choice.name: prod(choice.shape[:-1]) for choice in job.choices}
    held = {run.view.name: (run.start, run.stop) for run in made.rows if run.view.name in target.types}
    wanted = sum(stop - start for start, stop in held.values())
    if part is None:
        return Resumable(target, count, wanted, made_of)
    assert isinstance(target.writer, GGUFWriter)
    path, plan = Path(target.writer.path), target.writer.plan()
    writer = ShareWriter(path, plan, part, held, made_of, overwrite=made.outputs.overwrite)

    def with_part() -> Identity:
        return {**made_of(), "plan": {**made_of()["plan"], "part": [*part]}}

    return Resumable(replace(target, writer=writer), count, wanted, with_part)


def _target(
    writer: GGUFWriter | SetWriter | RowStream, kinds: Mapping[str, TensorType], job: Job, metrics: Metrics | None
) -> Target:
    return Target(
        writer,
        kinds,
        job.weights,
        job.strict,
        packs=job.packs,
        moved=job.moved,
        wholes=job.wholes,
        measured={one.name for one in job.imports} - job.packs.keys(),
        metrics=metrics if job.fitted else None,
    )


def _as_made(planned: Planned, file: Resumable) -> Planned:
    """The plan with what was seen while the file was written, and where it is: of a share, its own path."""
    target = file.target
    shared = target.writer if isinstance(target.writer, ShareWriter) else None
    imports = [measured(one, target.errors) for one in planned.imports]
    notes = (*planned.notes, *file.notes, *_blemishes(target))
    made = replace(planned, notes=notes, imports=imports)
    return made if shared is None else replace(made, path=shared.path, part=shared.part)


def _blemishes(target: Target) -> list[str]:
    """A line for each of the first tensors that hold a NaN or infinity, and one for the rest."""
    lines = [f"{escaped(name)}: {found.text}" for name, found in sorted(target.blemishes.items())]
    rest = len(lines) - MOST_BLEMISHED
    return lines[:MOST_BLEMISHED] + ([f"{rest} more tensors hold values that are not finite"] if rest > 0 else [])
