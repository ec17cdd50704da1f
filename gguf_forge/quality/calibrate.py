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
from gguf_forge.quality.merging import Facts, Gathered, gathered, merged_imatrix, require_same
from gguf_forge.quality.model_file import model_file
from gguf_forge.quality.moments import Collector, Inputs, block_sizes, is_output
from gguf_forge.quality.session import Ending, Model, Product, Session, Tokens, cut_windows, read_texts
from gguf_forge.quant.calibration import SIDE, calibration_metadata, calibration_tensors, triangle
from gguf_forge.quant.imatrix import Imatrix, load_imatrix, save_imatrix
from gguf_forge.system import processors

StrPath = str | os.PathLike[str]
#: Called with how many windows are done, and how many there are.
Told = Callable[[int, int], None]

CONTEXT = 512
#: Tokens of the first look at a model; products of fewer than 16 are passed over.
SURVEY = 64
#: Bytes that second moments may take, in memory as in the file.
BUDGET = 4 << 30
#: Widest blocks of a covariance, tried from the widest on until the budget holds them.
LIMITS = (16384, 8192, 4096, 2048, 1024, 512, 256, 128, 64, 32, 16)


@dataclass(frozen=True)
class CalibrationRun:
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
    source: StrPath | None, output: StrPath, run: CalibrationRun, *, merge: Sequence[StrPath] = (),
    resume: bool = False, save_every: int = 0, legacy: bool = False, told: Told | None = None,
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

        _, ending = _survey(model, windows, run)
        for done in _evaluated(model, windows, run, collector, ending):
            if told is not None:
                told(done, len(windows))
            if save_every and done < len(windows) and done // save_every > (done - 1) // save_every:
                save_imatrix(made(), output, legacy=legacy)
        result = made()
        save_imatrix(result, output, legacy=legacy)
        return Done(result, windows.size)


def calibrate(
    source: StrPath | None, output: StrPath, run: CalibrationRun, *, budget: int = BUDGET,
    merge: Sequence[StrPath] = (), resume: bool = False, save_every: int = 0, told: Told | None = None,
) -> Done:  # fmt: skip
    """Writes a calibration file: the importance matrix, and the second moments of each distinct input.

    source: a GGUF file or a checkpoint's folder; None: only `merge` is added up. budget: bytes that the moments may
    take. Where they would take more, all inputs wider than some power of two are cut into blocks, and what lies between
    two blocks is not kept. merge: calibrations of the model that are added. resume: what `output` has of the text is
    kept, and the run goes on after it. save_every: windows after which the output is written, 0: at the end only.
    Raises ForgeError; the output appears only whole.
    """
    if source is None and not merge:
        raise RequestError("neither a model with a text, nor calibrations to add up")
    if merge and resume:
        raise RequestError("one goes on with a file, or adds others to it; not both")
    goes_on = resume and os.path.exists(output)
    before = gathered([output] if goes_on else merge, os.fspath(output))
    if source is None:
        return _written(before, output)
    with ExitStack() as stack:
        model = stack.enter_context(_model(source, run))
        windows = _windows(model, run)
        if goes_on:
            windows = _unread(windows, before, output)
            if not len(windows):
                return Done(before.imatrix, 0, len(before.moments), None, _size(before))
        inputs, ending = _survey(model, windows, run)
        block = int(before.facts["block"]) or None if before.facts else widest_block(inputs, budget)
        facts: Facts = {"model.sha256": _file_hash(model.path), "context": run.context, "block": block or 0}
        require_same(before.facts, facts, before.imatrix.path)
        threads = run.threads or processors()
        collector = Collector(
            output=True, threads=threads, block=block, before=before.entries, known=before.moments
        )  # fmt: skip
        stack.callback(collector.close)
        text = hashlib.sha256(read_texts(run.texts)).hexdigest()
        old = np.empty((0, run.context), np.int32) if before.windows is None else before.windows

        def made(done: int) -> Gathered:
            new = _imatrix(collector, output, run)
            datasets = new.datasets if goes_on else before.imatrix.datasets + new.datasets
            imatrix = replace(new, entries={**before.imatrix.entries, **new.entries}, datasets=datasets)
            moments = {**before.moments, **{entry.weights[0]: entry.moments for entry in collector.distinct}}
            texts = before.texts + [text] * (text not in before.texts)
            return Gathered(imatrix, moments, np.concatenate([old, windows[:done]]), facts, texts)

        for done in _evaluated(model, windows, run, collector, ending):
            if told is not None:
                told(done, len(windows))
            if save_every and done < len(windows) and done // save_every > (done - 1) // save_every:
                _written(made(done), output)
        return replace(_written(made(len(windows)), output), tokens=windows.size)


def _written(found: Gathered, output: StrPath) -> Done:
    """Writes what was gathered."""
    assert found.windows is not None
    moments = list(found.moments.values())
    facts = {
        "tokens": values.u64(found.windows.size),
        "context": values.u32(int(found.facts["context"])),
        "text.sha256": values.string(",".join(found.texts)),
        "model.sha256": values.string(str(found.facts["model.sha256"])),
        "block": values.u32(int(found.facts["block"])),
    }
    save_imatrix(
        found.imatrix, output,
        metadata=calibration_metadata(moments, facts), tensors=calibration_tensors(moments, found.windows),
    )  # fmt: skip
    return Done(found.imatrix, 0, len(moments), int(found.facts["block"]) or None, _size(found))


def _size(found: Gathered) -> int:
    return sum(entry.tiles.nbytes for entry in found.moments.values())


def _unread(windows: Tokens, before: Gathered, output: StrPath) -> Tokens:
    """The windows of a text that a calibration has not seen; RequestError where it is of another text."""
    read = before.windows
    assert read is not None
    same = read.shape[1] == windows.shape[1] and np.array_equal(read[: len(windows)], windows[: len(read)])
    if not same or len(read) > len(windows):
        text = f"cannot go on with it: it is of {len(read)} windows of {read.shape[1]} tokens of another text"
        raise RequestError(text, path=output)
    return windows[len(read) :]


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


def _survey(model: Model, windows: Tokens, run: CalibrationRun) -> tuple[list[Inputs], Ending | None]:
    """The inputs of all products, of a few tokens only: to know how many there are, and how wide.

    And where an evaluation may end: at the output matrix's input, if nothing is computed after it that is gathered.
    That is tried, since the library's names are only a habit of it.
    """
    last = Ending("", "")

    def seen(ending: Ending | None) -> Collector:
        collector = Collector(output=True)

        def observe(product: Product) -> None:
            nonlocal last
            last = Ending(product.given_name, product.weight)
            collector.observe(product)

        with Session(
            model, windows.shape[1], threads=run.threads, observe=observe, wants=collector.wants, ending=ending
        ) as session:
            session.evaluate(windows[:1, :SURVEY], first=None)
        return collector

    whole = seen(None)
    ending = last
    if not is_output(ending.weight) or not ending.node:
        return whole.distinct, None
    short = seen(ending)
    same = whole.inputs.keys() == short.inputs.keys() and all(
        np.array_equal(inputs.squares, short.inputs[name].squares) for name, inputs in whole.inputs.items()
    )
    return whole.distinct, ending if same else None


def _evaluated(
    model: Model, windows: Tokens, run: CalibrationRun, collector: Collector, ending: Ending | None
) -> Iterator[int]:
    """Evaluates all windows; gives how many are done, after each call."""
    with Session(
        model, run.context, threads=run.threads, observe=collector.observe, wants=collector.wants, ending=ending
    ) as session:
        for at in range(0, len(windows), session.sequences):
            session.evaluate(windows[at : at + session.sequences])
            yield min(len(windows), at + session.sequences)


def _windows(model: Model, run: CalibrationRun) -> Tokens:
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


def _imatrix(collector: Collector, output: StrPath, run: CalibrationRun) -> Imatrix:
    entries = {
        name: inputs.entry
        for name, inputs in collector.inputs.items()
        if run.output or not (name in names.EMBEDDINGS or name == "output.weight")
    }
    most = max((int(entry.counts.max()) for entry in entries.values()), default=0)
    chunks = (most + run.context // 2) // run.context
    datasets = tuple(os.fspath(text) for text in run.texts)
    return Imatrix(os.fspath(output), entries, datasets, chunks, run.context)


def _resumable(found: Imatrix, run: CalibrationRun) -> Imatrix:
    """An unfinished matrix that a run can go on with; RequestError for one of another text or context."""
    texts = tuple(os.fspath(text) for text in run.texts)
    if found.datasets != texts or found.chunk_size != run.context:
        of = f"windows of {found.chunk_size} of {', '.join(found.datasets)}"
        raise RequestError(f"cannot go on with it: it is of {of}", path=found.path)
    return replace(found, datasets=())


@contextmanager
def _model(source: StrPath, run: CalibrationRun) -> Iterator[Model]:
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
