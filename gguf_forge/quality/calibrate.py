"""Importance matrices and calibration files: a text run through a model, and what was gathered written.

Knows the options of a run, how one goes on, and where the numbers go; the model is `session`'s, the sums `moments`'.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import zip_longest

import numpy as np

from gguf_forge import names
from gguf_forge.errors import RequestError
from gguf_forge.format import reader, values
from gguf_forge.quality.model_file import model_file
from gguf_forge.quality.moments import Collector, Inputs, block_sizes
from gguf_forge.quality.session import Model, Session, Tokens, cut_windows, read_texts
from gguf_forge.quant.calibration import SIDE, calibration_metadata, calibration_tensors, triangle
from gguf_forge.quant.imatrix import Entry, Imatrix, load_imatrix, save_imatrix
from gguf_forge.system import processors

StrPath = str | os.PathLike[str]
#: Called with how much of the text is done, and how much there is, in bytes.
Told = Callable[[int, int], None]

CONTEXT = 512
#: Tokens of the first look at a model; products of fewer than 16 are passed over.
SURVEY = 64
#: Bytes that second moments may take, in memory as in the file.
BUDGET = 4 << 30
#: Widest blocks of a covariance, tried from the widest on until the budget holds them.
LIMITS = (16384, 8192, 4096, 2048, 1024, 512, 256, 128, 64, 32, 16)


@dataclass(frozen=True)
class Run:
    """How a text goes through a model. chunks: windows of `context` tokens at most, after `skip` of them.

    special: names of special tokens in the text are these tokens. output: the output matrix's input counts, too.
    """

    texts: Sequence[StrPath]
    context: int = CONTEXT
    chunks: int | None = None
    skip: int = 0
    threads: int | None = None
    gpu_layers: int = 0
    special: bool = False
    output: bool = False


@dataclass(frozen=True)
class Done:
    """What a run made. tokens: that it evaluated; inputs: distinct ones, `block` the widest block kept of them."""

    imatrix: Imatrix
    tokens: int
    inputs: int = 0
    block: int | None = None
    moments: int = 0


def make_imatrix(
    source: StrPath | None, output: StrPath, run: Run, *, merge: Sequence[StrPath] = (), resume: bool = False,
    save_every: int = 0, legacy: bool = False, told: Told | None = None,
) -> Done:  # fmt: skip
    """Writes the importance matrix of a model and a text as llama-imatrix does: the same keys and numbers.

    source: a GGUF file or a checkpoint's folder; None: only `merge` is added up. merge: matrices that are added.
    resume: what `output` has of the same text is kept, and the run goes on after it. save_every: windows after which
    the output is written, 0: at the end only. Raises ForgeError; the output appears only whole.
    """
    if source is None and not merge:
        raise RequestError("neither a model with a text, nor matrices to add up")
    before = [load_imatrix(path) for path in merge]
    if resume and os.path.exists(output):
        before.append(_resumable(load_imatrix(output), run))
        done = before[-1].chunks
        run = replace(run, skip=run.skip + done, chunks=None if run.chunks is None else run.chunks - done)
    if source is None:
        merged = merged_imatrix(before, os.fspath(output))
        save_imatrix(merged, output, legacy=legacy)
        return Done(merged, 0)
    with ExitStack() as stack:
        model = stack.enter_context(_model(source, run))
        if run.chunks is not None and run.chunks < 1:
            return Done(before[-1], 0)
        windows = _windows(model, run)
        old = merged_imatrix(before, os.fspath(output))
        if old.legacy:
            raise RequestError("a matrix of the .dat form is added to others of that form only", path=merge[0])
        collector = Collector(output=run.output, before=old.entries)

        def made() -> Imatrix:
            new = _imatrix(collector, output, run)
            return replace(new, entries={**old.entries, **new.entries}, datasets=old.datasets + new.datasets)

        for done in _evaluated(model, windows, run, collector):
            if told is not None:
                told(*_bytes_done(run, done, len(windows)))
            if save_every and done < len(windows) and done // save_every > (done - 1) // save_every:
                save_imatrix(made(), output, legacy=legacy)
        result = made()
        save_imatrix(result, output, legacy=legacy)
        return Done(result, windows.size)


def calibrate(source: StrPath, output: StrPath, run: Run, *, budget: int = BUDGET, told: Told | None = None) -> Done:
    """Writes a calibration file: the importance matrix, and the second moments of each distinct input.

    budget: bytes that the moments may take. Where they would take more, all inputs wider than some power of two are
    cut into blocks, and what lies between two blocks is not kept. Raises ForgeError; the output appears only whole.
    """
    with ExitStack() as stack:
        model = stack.enter_context(_model(source, run))
        windows = _windows(model, run)
        block = widest_block(_survey(model, windows, run), budget)
        collector = Collector(output=True, threads=run.threads or processors(), block=block)
        stack.callback(collector.close)
        for done in _evaluated(model, windows, run, collector):
            if told is not None:
                told(*_bytes_done(run, done, len(windows)))
        imatrix = _imatrix(collector, output, run)
        moments = [inputs.moments for inputs in collector.distinct]
        facts = {
            "tokens": values.u64(windows.size),
            "context": values.u32(run.context),
            "text.sha256": values.string(hashlib.sha256(read_texts(run.texts)).hexdigest()),
            "model.sha256": values.string(_file_hash(model.path)),
            "block": values.u32(block or 0),
        }
        save_imatrix(
            imatrix, output,
            metadata=calibration_metadata(moments, facts), tensors=calibration_tensors(moments, windows),
        )  # fmt: skip
        return Done(imatrix, windows.size, len(moments), block, sum(entry.tiles.nbytes for entry in moments))


def merged_imatrix(parts: Sequence[Imatrix], path: str) -> Imatrix:
    """Several matrices added up, entry by entry, as llama-imatrix does with --in-file.

    Raises RequestError where entries of one name have other widths, or numbers of experts, or the forms are mixed.
    """
    if len({part.legacy for part in parts}) > 1:
        raise RequestError("matrices of the .dat form, which have lost their counts, are not added to others")
    entries: dict[str, Entry] = {}
    for part in parts:
        for name, entry in part.entries.items():
            old = entries.get(name)
            if old is None:
                entries[name] = entry
            elif old.sums.shape != entry.sums.shape:
                text = f"{entry.sums.shape} values, but {old.sums.shape} in the matrices before"
                raise RequestError(text, path=part.path, field=f'entry "{name}"')
            else:
                entries[name] = Entry(old.sums + entry.sums, old.counts + entry.counts)
    sizes = [part.chunk_size for part in parts if part.chunk_size]
    size = sizes[0] if sizes else 0
    most = max((int(entry.counts.max()) for entry in entries.values()), default=0)
    datasets = tuple(name for part in parts for name in part.datasets)
    chunks = (most + size // 2) // size if size else sum(part.chunks for part in parts)
    return Imatrix(path, entries, datasets, chunks, size, legacy=bool(parts) and parts[0].legacy)


def widest_block(inputs: Sequence[Inputs], budget: int) -> int | None:
    """The widest blocks with which the moments of these inputs take at most `budget` bytes; None: whole matrices.

    Raises RequestError where not even the narrowest fit.
    """
    for limit in (None, *LIMITS):
        size = 0
        for one in inputs:
            matrices, width = one.squares.shape
            size += matrices * sum(map(triangle, block_sizes(width, limit))) * SIDE * SIDE * 4
        if size <= budget:
            return limit
    raise RequestError(f"second moments of {len(inputs)} inputs take {size} bytes at least, more than {budget}")


def _survey(model: Model, windows: Tokens, run: Run) -> list[Inputs]:
    """The inputs of all products, of a few tokens only: to know how many there are, and how wide."""
    collector = Collector(output=True)
    with Session(
        model, windows.shape[1], threads=run.threads, observe=collector.observe, wants=collector.wants
    ) as session:
        session.evaluate(windows[:1, :SURVEY])
    return collector.distinct


def _evaluated(model: Model, windows: Tokens, run: Run, collector: Collector) -> Iterator[int]:
    """Evaluates all windows; gives how many are done, after each call."""
    with Session(model, run.context, threads=run.threads, observe=collector.observe, wants=collector.wants) as session:
        for at in range(0, len(windows), session.sequences):
            session.evaluate(windows[at : at + session.sequences])
            yield min(len(windows), at + session.sequences)


def _windows(model: Model, run: Run) -> Tokens:
    """The windows of all texts by turns, so that a limit leaves of each text as much as of the others."""
    texts = [model.tokenize(read_texts([text]), special=run.special) for text in run.texts]
    size = sum(map(len, texts))
    if size < 2 * run.context:
        text = f"the text has {size} tokens; two windows of {run.context} are the least"
        raise RequestError(text, path=run.texts[0])
    turns = zip_longest(*(cut_windows(model, tokens, run.context) for tokens in texts))
    mixed = [window for turn in turns for window in turn if window is not None]
    windows = np.array(mixed[run.skip :][: run.chunks], np.int32)
    if not len(windows):
        raise RequestError(f"no window is left of the text after {run.skip}", path=run.texts[0])
    return windows


def _imatrix(collector: Collector, output: StrPath, run: Run) -> Imatrix:
    entries = {
        name: inputs.entry
        for name, inputs in collector.inputs.items()
        if run.output or not (name in names.EMBEDDINGS or name == "output.weight")
    }
    most = max((int(entry.counts.max()) for entry in entries.values()), default=0)
    chunks = (most + run.context // 2) // run.context
    datasets = tuple(os.fspath(text) for text in run.texts)
    return Imatrix(os.fspath(output), entries, datasets, chunks, run.context)


def _resumable(found: Imatrix, run: Run) -> Imatrix:
    """An unfinished matrix that a run can go on with; RequestError for one of another text or context."""
    texts = tuple(os.fspath(text) for text in run.texts)
    if found.datasets != texts or found.chunk_size != run.context:
        of = f"windows of {found.chunk_size} of {', '.join(found.datasets)}"
        raise RequestError(f"cannot go on with it: it is of {of}", path=found.path)
    return replace(found, datasets=())


def _bytes_done(run: Run, done: int, windows: int) -> tuple[int, int]:
    size = sum(os.path.getsize(text) for text in run.texts)
    return size * done // windows, size


@contextmanager
def _model(source: StrPath, run: Run) -> Iterator[Model]:
    """The model of a GGUF file, or of a checkpoint's folder, which is converted for the time of the run."""
    if not run.texts:
        raise RequestError("no text given")
    with model_file(source) as path, Model(path, gpu_layers=run.gpu_layers) as model:
        yield model


def _file_hash(path: str) -> str:
    """The SHA-256 of a model's file, of all shards of a set in their order."""
    digest = hashlib.sha256()
    with reader.open(path) as gguf:
        files = sorted({str(tensor.path) for tensor in gguf.tensors.values()}) or [path]
    for name in files:
        with open(name, "rb") as file:
            while piece := file.read(1 << 20):
                digest.update(piece)
    return digest.hexdigest()
