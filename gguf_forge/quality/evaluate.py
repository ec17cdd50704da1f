"""Models judged on a text: each beside a base model, whose logits are stored once, and their answers side by side.

Knows the order of the work; the figures are `statistics`', the stored logits `base`'s, the models `session`'s.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np

from gguf_forge.errors import InvalidError, RequestError
from gguf_forge.format import reader
from gguf_forge.quality.base import Stored, Storing, digest_of, first_position, judged, open_stored
from gguf_forge.quality.library import tidied
from gguf_forge.quality.session import Floats, Model, Session, Tokens, cut_windows, read_texts
from gguf_forge.quality.statistics import (
    Codes,
    Doubles,
    Estimate,
    Positions,
    Summary,
    compare,
    losses,
    perplexity,
    store,
    stored_losses,
    summarize,
)
from gguf_forge.summary import summarize as page
from gguf_forge.system import processors

Figure = TypeVar("Figure")
StrPath = str | os.PathLike[str]
#: Called with how many windows are done, of all models together, and how many there are.
Told = Callable[[int, int], None]

CONTEXT = 512


@dataclass(frozen=True)
class EvaluationTask:
    """What models are judged by.

    texts: files, read one after the other. context: tokens of a window; of the second half of each all tokens are
    judged but the last, which nothing follows. chunks: windows at most. prompts: texts that each model continues by its
    likeliest tokens, `predict` of them at most; names of special tokens in them are these tokens.
    """

    texts: Sequence[StrPath]
    context: int = CONTEXT
    chunks: int | None = None
    threads: int | None = None
    gpu_layers: int = 0
    prompts: Sequence[str] = ()
    predict: int = 64


@dataclass(frozen=True)
class Answer:
    """What a model says after a prompt. equal: how many tokens at its beginning are those of the base's answer."""

    text: str
    tokens: tuple[int, ...]
    equal: int | None


@dataclass(frozen=True)
class Verdict:
    """What was found of a model. type: its file's recipe. beside: None of the base itself, and where there is none.

    perplexity: of a base whose logits were stored before it is that of the stored ones. window_kl: the mean divergence
    of each window. seconds: of evaluating the text, 0 where nothing was evaluated.
    """

    path: Path
    type: str
    bytes: int
    bits_per_weight: float | None
    perplexity: Estimate
    beside: Summary | None
    window_kl: tuple[float, ...]
    answers: tuple[Answer, ...]
    seconds: float


@dataclass(frozen=True)
class Evaluation:
    """base: None where models were judged each by itself. reused: its logits had been stored. models: in given order.

    unsure: a stored file that does not say which model it is of was taken for the base's.
    """

    task: EvaluationTask
    windows: int
    positions: int
    base: Verdict | None
    models: tuple[Verdict, ...]
    reused: bool = False
    unsure: bool = False


def evaluate(
    files: Sequence[StrPath], task: EvaluationTask, *, against: StrPath | None = None,
    base_logits: StrPath | None = None, told: Told | None = None,
) -> Evaluation:  # fmt: skip
    """Judges GGUF files, sharded or not, each beside `against`.

    base_logits: a file that keeps the base's logits, of llama-perplexity's form (--kl-divergence-base): used where it
    is of this base, text and context, and made again otherwise. Without it they are kept for the time of the call.
    Raises RequestError (a text of less than a window, a prompt beyond the context), InvalidError (a model with another
    vocabulary or tokenizer than the base), UnsupportedError and LibraryError (what llama.cpp does not run).
    """
    if against is None and base_logits is not None:
        raise RequestError("stored logits are of a base, and none is given")
    if task.context < 4:
        raise RequestError(f"windows of {task.context} tokens; a second half with something to judge takes 4")
    run = _Run(task, told, len(files) + (against is not None))
    with ExitStack() as stack:
        base: Verdict | None = None
        if against is not None:
            if base_logits is None:
                folder = tempfile.TemporaryDirectory(prefix="gguf-forge-", ignore_cleanup_errors=True)
                stack.enter_context(folder)
                stack.enter_context(tidied(partial(shutil.rmtree, folder.name, ignore_errors=True)))
                base_logits = Path(folder.name) / "base.logits"
            base = run.base(Path(against), Path(base_logits))
        models = tuple(run.judge(Path(file)) for file in files)
        run.stored = None  # a mapped file cannot be removed everywhere
    assert run.tokens is not None
    windows = len(run.tokens)
    return Evaluation(task, windows, windows * judged(task.context), base, models, run.reused, run.unsure)


class _Run:
    """One evaluation under way: the text's tokens, as the first model reads them, and the base's logits."""

    def __init__(self, task: EvaluationTask, told: Told | None, models: int) -> None:
        self.task = task
        self.text = read_texts(task.texts)
        self.tokens: Tokens | None = None
        self.stored: Stored | None = None
        self.reused = self.unsure = False
        self._said: tuple[Answer, ...] | None = None
        self._told, self._models, self._done = told, models, 0

    def base(self, path: Path, logits: Path) -> Verdict:
        """Evaluates the base model, or finds it in the file of logits."""
        with Model(path, gpu_layers=self.task.gpu_layers) as model:
            tokens = self._read(model)
            digest = _digest(path)
            start = time.monotonic()
            stored = self._usable(logits, model, digest)
            if stored is not None:
                self.reused, self.unsure = True, not stored.digest
                each = [stored_losses(stored.of_window(i), stored.following(i)) for i in range(len(tokens))]
                result, seconds = perplexity(np.concatenate(each)), 0.0
                self._tell(len(tokens))
            else:
                result = self._store(model, logits, digest)
                seconds = time.monotonic() - start
                stored = open_stored(logits)
            self.stored = stored
            answers = self._answers(model)
        self._said = answers
        return _verdict(path, result, None, (), answers, seconds)

    def judge(self, path: Path) -> Verdict:
        """Evaluates a model, beside the base if there is one."""
        stored = self.stored
        with Model(path, gpu_layers=self.task.gpu_layers) as model:
            self._read(model)
            start = time.monotonic()
            if stored is None:
                alone = self._evaluated(model, lambda logits, following, window: losses(logits, following))
                result = perplexity(np.concatenate(list(alone)))
                return _verdict(path, result, None, (), self._answers(model), time.monotonic() - start)

            def beside(logits: Floats, following: Tokens, window: int) -> Positions:
                return compare(logits, stored.of_window(window), following)

            parts = list(self._evaluated(model, beside))
            summary = summarize(Positions.joined(parts))
            kl = tuple(float(part.divergence.mean()) for part in parts)
            seconds = time.monotonic() - start
            return _verdict(path, summary.perplexity, summary, kl, self._answers(model), seconds)

    def _read(self, model: Model) -> Tokens:
        """The text's windows as this model reads them, which must be as the first one did."""
        found, context = model.tokenize(self.text), self.task.context
        count = min(len(found) // context, self.task.chunks or len(found))
        if not count:
            raise RequestError(f"a text of {len(found)} tokens; one window of {context} at least is judged")
        tokens = found[: count * context].reshape(count, context)
        if self.tokens is None:
            self.tokens = tokens
        elif not np.array_equal(tokens, self.tokens):
            raise InvalidError("reads the text as other tokens than the first model does", path=model.path)
        if self.stored is not None and model.vocabulary_size != self.stored.vocabulary:
            vocabularies = f"{model.vocabulary_size} tokens, that of the base {self.stored.vocabulary}"
            raise InvalidError(f"its vocabulary has {vocabularies}", path=model.path)
        return tokens

    def _usable(self, path: Path, model: Model, digest: bytes) -> Stored | None:
        """The stored logits, if there are any and they are of this base, text and context."""
        if not path.exists():
            return None
        found = open_stored(path)
        fits = found.vocabulary == model.vocabulary_size and np.array_equal(found.tokens, self._windows())
        return found if fits and found.digest in (b"", digest) else None

    def _store(self, model: Model, path: Path, digest: bytes) -> Estimate:
        def both(logits: Floats, following: Tokens, window: int) -> tuple[Doubles, Codes]:
            return losses(logits, following), store(logits)

        storing = Storing(path, self._windows(), model.vocabulary_size, digest)
        try:
            each = []
            for loss, rows in self._evaluated(model, both):
                storing.add(rows)
                each.append(loss)
            storing.publish()
        except BaseException:
            storing.discard()
            raise
        return perplexity(np.concatenate(each))

    def _evaluated(self, model: Model, figure: Callable[[Floats, Tokens, int], Figure]) -> Iterator[Figure]:
        """A figure of the judged logits of each window, (judged, vocabulary), and of the tokens that follow."""
        task, tokens = self.task, self._windows()
        first = first_position(task.context)
        windows = cut_windows(model, tokens.reshape(-1), task.context)
        threads = task.threads or processors()
        with Session(model, task.context, threads=threads) as session, ThreadPoolExecutor(threads) as pool:
            for start in range(0, len(windows), session.sequences):
                some = windows[start : start + session.sequences]
                logits = session.evaluate(some, first=first)
                assert logits is not None
                yield from pool.map(
                    figure,
                    [window[:-1] for window in logits],
                    list(tokens[start : start + len(some), first + 1 :]),
                    range(start, start + len(some)),
                )
                self._tell(len(some))

    def _answers(self, model: Model) -> tuple[Answer, ...]:
        """How the model goes on after each prompt, by the likeliest token of each step."""
        prompts = [model.tokenize(prompt, special=True) for prompt in self.task.prompts]
        if not prompts:
            return ()
        context = max(map(len, prompts)) + self.task.predict
        found = []
        with Session(model, context, threads=self.task.threads) as session:
            for i, prompt in enumerate(prompts):
                if not len(prompt):
                    raise RequestError(f"prompt {i + 1} has no tokens")
                session.clear()
                said: list[int] = []
                new: Sequence[int] | Tokens = prompt
                while len(said) < self.task.predict:
                    token = int(session.extend(new).argmax())
                    if model.ends(token):
                        break
                    said.append(token)
                    new = [token]
                equal = None if self._said is None else _common(said, self._said[i].tokens)
                found.append(Answer(model.text(said), tuple(said), equal))
        return tuple(found)

    def _windows(self) -> Tokens:
        assert self.tokens is not None
        return self.tokens

    def _tell(self, windows: int) -> None:
        self._done += windows
        if self._told is not None:
            self._told(self._done, self._models * len(self._windows()))


def _digest(path: Path) -> bytes:
    with reader.open(path) as file:
        return digest_of(file.local_paths())


def _verdict(
    path: Path, perplexity: Estimate, beside: Summary | None, window_kl: tuple[float, ...], answers: tuple[Answer, ...],
    seconds: float,
) -> Verdict:  # fmt: skip
    with reader.open(path) as file:
        found = page(file)
    model = found["model"]
    return Verdict(
        path, model["recipe"] or "", found["file"]["bytes"], model["bits_per_weight"], perplexity, beside, window_kl,
        answers, seconds,
    )  # fmt: skip


def _common(a: Sequence[int], b: Sequence[int]) -> int:
    """How many items at their beginnings are equal."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
