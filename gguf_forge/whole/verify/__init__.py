"""`gguf_forge.verify`: whether a file is what its source leads to. Derives the plan again, runs it, compares.

Knows how a source becomes a model, and what is found where a file differs. Writes nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gguf_forge.convert.encoding import Weights
from gguf_forge.convert.facts import USUAL as USUAL_PARTS
from gguf_forge.convert.facts import Options
from gguf_forge.convert.imported import Surveys
from gguf_forge.convert.job import AUTO, FILE_TYPE_KEY, Job, Quantization, wanted_types
from gguf_forge.convert.model import Model, checkpoint_model, gguf_model
from gguf_forge.convert.run import Target, run
from gguf_forge.convert.tokenizers import check_tokenizer
from gguf_forge.convert.view import View
from gguf_forge.errors import ForgeError, RecipeError, escaped
from gguf_forge.format import reader
from gguf_forge.format.findings import ERROR, WARNING, Finding
from gguf_forge.format.reader import GGUFFile, Tensor
from gguf_forge.format.values import Value
from gguf_forge.quant.imatrix import Imatrix, load_imatrix
from gguf_forge.quant.outtype import OUTTYPES
from gguf_forge.quant.recipe import recipe
from gguf_forge.source.checkpoint import open_checkpoint
from gguf_forge.whole.check.subject import Values
from gguf_forge.whole.verify.metadata import differing
from gguf_forge.whole.verify.tensors import FITTED, USUAL, Comparer, Tally

StrPath = str | os.PathLike[str]
Progress = Callable[[int, int], None]

MATRIX_FILE, EFFORT = "quantize.imatrix.file", "quantize.forge.effort"
#: What may be said of a tensor.
EXACT, ENCODED, WEIGHTED = "exact", "encoded", "encoded with the matrix"
NEAR, DIFFERS, SKIPPED = "near", "differs", "skipped"


@dataclass(frozen=True)
class Verdict:
    """What is true of one tensor of the file.

    status: "exact" (the source's numbers in this type), "encoded" or "encoded with the matrix" (the bytes that our own
    encoder makes), "near" (other bytes, with no more error than such weights have in this type), "differs", or
    "skipped" with a reason. equal_blocks of blocks are as our encoder makes them. error, usual: relative errors of the
    file and of our own encoding over the runs of rows that are not equal; 0 where all are.
    """

    tensor: str
    type: str
    status: str
    blocks: int = 0
    equal_blocks: int = 0
    error: float = 0.0
    usual: float = 0.0
    reason: str = ""


@dataclass(frozen=True)
class Verification:
    """The result of `verify`: a verdict for each tensor of the file, what was found, and what a reader should know."""

    path: Path
    against: Path
    tensors: Sequence[Verdict] = ()
    findings: Sequence[Finding] = ()
    notes: Sequence[str] = ()

    @property
    def verified(self) -> bool:
        """Whether no error was found."""
        return not any(finding.severity == ERROR for finding in self.findings)

    def document(self) -> dict[str, Any]:
        """All of it as plain values, for JSON."""
        return {
            "path": str(self.path),
            "against": str(self.against),
            "verified": self.verified,
            "tensors": [vars(verdict) for verdict in self.tensors],
            "findings": [vars(finding) for finding in self.findings],
            "notes": [*self.notes],
        }


def verify(
    path: StrPath,
    against: StrPath,
    *,
    imatrix: Imatrix | StrPath | None = None,
    options: Options = USUAL_PARTS,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Verification:
    """Whether a GGUF file holds what a checkpoint folder, or another GGUF file, leads to; whoever made it.

        found = gguf_forge.verify("model-Q4_K_M.gguf", "model", imatrix="imatrix.gguf")
        found.verified                                       # True if no error was found
        for verdict in found.tensors: ...                    # .tensor .type .status .equal_blocks .error .usual

    The source is planned again, every tensor encoded in the type that it has in the file, and compared: plain numbers
    must be equal; of blocks it is said whether they are those of our own encoder, without the importance matrix or with
    `imatrix`, and else whether their error is what such weights have in this type. Metadata must be those that the
    source leads to (names and ways of making apart), and texts must become the tokens of the checkpoint's tokenizer.
    `options`: as of the conversion. `progress` is told how many bytes of the source of how many have been read.

    Raises ForgeError for a file or source that cannot be read.
    """
    matrix = imatrix if isinstance(imatrix, Imatrix) or imatrix is None else load_imatrix(imatrix)
    with reader.open(path) as file, _source(Path(against), options) as source:
        checked = _Checked(file, source, matrix)
        checked.metadata()
        if not source.is_file:
            checked.tokenizer(Path(against), options.mistral_format)
        checked.tensors(threads, progress)
        file.check_unchanged()
        return Verification(
            Path(path), Path(against), checked.verdicts, checked.found, [*checked.notes, *source.model.notes]
        )


@dataclass(frozen=True)
class _Source:
    model: Model
    is_file: bool


@contextmanager
def _source(path: Path, options: Options) -> Iterator[_Source]:
    if path.is_dir():
        with open_checkpoint(path, native=options.mistral_format) as checkpoint:
            yield _Source(checkpoint_model(checkpoint, pre=None, model_name=None, overrides={}, options=options), False)
            checkpoint.require_unchanged()
        return
    with reader.open(path) as file:
        yield _Source(gguf_model(file), True)


@dataclass
class _Checked:
    """A file beside its source: what was found so far."""

    file: GGUFFile
    source: _Source
    imatrix: Imatrix | None
    found: list[Finding] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def fitted(self) -> bool:
        """Whether the file says that rows of it were fitted to a calibration."""
        return EFFORT in self.file.metadata

    def metadata(self) -> None:
        """Keys against those that the source leads to."""
        values: Mapping[str, Value] = Values(self.file)
        arch = str(self.source.model.metadata["general.architecture"].value)
        part = self.file.parts[0]
        for rule, severity, key, text in differing(self.source.model.metadata, values, arch):
            entry = part.entries.get(key)
            self.say(rule, text, f'key "{escaped(key)}"', severity, None if entry is None else entry.offset)

    def tokenizer(self, folder: Path, native: bool) -> None:
        """Texts against the checkpoint's own tokenizer."""
        keys = {key: self.file.metadata[key] for key in self.file.metadata if key.startswith("tokenizer.")}
        if "tokenizer.ggml.model" not in keys:
            return
        try:
            check = check_tokenizer(folder, keys, mistral_format=native)
        except ForgeError as error:
            self.notes.append(f"texts were not compared: {error.text}")
            return
        if check.skipped:
            self.notes.append(f"texts were not compared: {check.skipped}")
        elif not check.alike:
            text = f"{len(check.differences)} of {check.texts} texts become other tokens than by {check.file}"
            own = any(f.severity == ERROR and (f.field or "").startswith('key "tokenizer.') for f in self.found)
            if not own:
                text += ", though the keys are those that it leads to: llama.cpp cuts texts in another way"
            self.say("tokenizer", text, 'key "tokenizer.ggml.tokens"', ERROR if own else WARNING)

    def tensors(self, threads: int | None, progress: Progress | None) -> None:
        """Every tensor against the source's."""
        job = _job(self.source.model, self.file)
        views = {view.name: view for view in self.source.model.views}
        views |= {} if job is None else {view.name: view for view in job.scales.values()}
        for name in views.keys() - self.file.tensors.keys():
            self.say("tensor-missing", "not in the file", f'tensor "{escaped(name)}"', ERROR)
        reasons = {name: self._unfit(tensor, views.get(name)) for name, tensor in self.file.tensors.items()}
        taken = [views[name] for name, reason in reasons.items() if not reason]
        plain, weighted = self._comparisons(taken, job)
        run(taken, [target for target in (plain, weighted) if target is not None], threads=threads, progress=progress)
        for name, tensor in self.file.tensors.items():
            if reasons[name]:
                self.verdicts.append(Verdict(name, tensor.type.name, SKIPPED, reason=reasons[name]))
            else:
                self._judge(tensor, _tally(plain, name), None if weighted is None else _tally(weighted, name))
        self._strangers()

    def _strangers(self) -> None:
        """Tensors that are near, where others of their type are equal: these two do not come from one run.

        Of fitted rows, and of a file whose importance matrix is not at hand, which covers not all tensors, that is so.
        """
        if self.fitted or (MATRIX_FILE in self.file.metadata and self.imatrix is None):
            return
        equal = {verdict.type for verdict in self.verdicts if verdict.status in (ENCODED, WEIGHTED)}
        for verdict in self.verdicts:
            if verdict.status == NEAR and verdict.type in equal:
                text = f"not as our encoder makes it, though other tensors of {verdict.type} are: another revision?"
                self.say("tensor-revision", text, f'tensor "{escaped(verdict.tensor)}"', ERROR)

    def _comparisons(self, views: Sequence[View], job: Job | None) -> tuple[Target, Target | None]:
        by_name = {view.name: view for view in views}
        types = {name: self.file.tensors[name].type for name in by_name}
        packs, moved = {}, {}
        if job is not None:
            chosen = {choice.name: choice.type for choice in job.choices}
            packs = {name: pack for name, pack in job.packs.items() if types.get(name) is chosen.get(name)}
            moved = {name: view for name, view in job.moved.items() if name in by_name}
        ones: dict[str, Weights] = {
            name: np.ones((1, by_name[name].width), np.float32) for name, kind in types.items() if kind.needs_weights
        }

        def target(weights: Mapping[str, Weights]) -> Target:
            beside: Any = Comparer(self.file, by_name, self.fitted)
            return Target(beside, types, weights, False, packs=packs, moved=moved)

        if self.imatrix is None:
            return target(ones), None
        known = {}
        for name, view in by_name.items():
            values = self.imatrix.weights(name, view.shape) if types[name] is not view.type else None
            if values is not None:
                known[name] = np.ascontiguousarray(values, np.float32).reshape(-1, view.width)
        return target(ones), target({**ones, **known})

    def _unfit(self, tensor: Tensor, view: View | None) -> str:
        """Why a tensor cannot be compared, or ""; what is wrong with it is said."""
        place = f'tensor "{escaped(tensor.name)}"'
        if view is None:
            self.say("tensor-surplus", "the source leads to no such tensor", place, WARNING)
            return "not of the source"
        if _stripped(view.shape) != _stripped(tensor.shape):
            self.say("tensor-shape", f"{list(tensor.shape)}, the source's is {list(view.shape)}", place, ERROR)
            return "of another shape"
        if tensor.type is not view.type and not tensor.type.encodes:
            return f"{tensor.type} is not encoded"
        if tensor.type is not view.type and view.type.quantized and not view.type.decodes:
            return f"{view.type} of the source is not decoded"
        return ""

    def _judge(self, tensor: Tensor, plain: Tally, weighted: Tally | None) -> None:
        best = plain if weighted is None or plain.same else weighted
        place = f'tensor "{escaped(tensor.name)}"'
        if best.same:
            status = EXACT if not tensor.type.quantized else ENCODED if best is plain else WEIGHTED
        elif not tensor.type.quantized or not tensor.type.decodes:
            status = DIFFERS
            rows = f"{best.count_differing} of {tensor.rows} rows" if tensor.rows > 1 else "its numbers"
            self.say("tensor-data", f"{rows} differ, the first is row {best.differing[0]}", place, ERROR)
        elif best.count_foreign:
            status = DIFFERS
            text = f"{best.count_foreign} of {tensor.rows} rows hold other weights, the first is row {best.foreign[0]}"
            self.say("tensor-data", text, place, ERROR)
        elif best.error > (FITTED if self.fitted else USUAL) * best.usual:
            status = DIFFERS
            text = f"an error of {best.error:.3%}, usual for {tensor.type} on these weights is {best.usual:.3%}"
            self.say("tensor-data", text, place, ERROR)
        else:
            status = NEAR
        self.verdicts.append(
            Verdict(tensor.name, tensor.type.name, status, best.blocks, best.equal, best.error, best.usual)
        )

    def say(self, rule: str, text: str, place: str, severity: str, offset: int | None = None) -> None:
        """Adds a finding."""
        self.found.append(Finding(rule, str(self.file.path), text, offset, place, severity))


def _tally(target: Target, name: str) -> Tally:
    beside: Any = target.writer
    found: Tally = beside.tallies.get(name, Tally())
    return found


def _job(model: Model, file: GGUFFile) -> Job | None:
    """What becomes of weights that another tool quantized, under the type whose tensors are most like the file's; None
    where there are no such weights.
    """
    if not model.packed:
        return None
    jobs = [job for name in _types_of(file) for job in _jobs(name, model)]
    return max(jobs, key=lambda job: _likeness(job, file), default=None)


def _types_of(file: GGUFFile) -> list[str]:
    """The names under which a file of this type may have been asked for."""
    number = file.metadata.get(FILE_TYPE_KEY)
    names = [AUTO]
    try:
        names.append(recipe(number if isinstance(number, int) else AUTO).name)
    except RecipeError:
        return names
    return names + [name for name in OUTTYPES if name.upper() == names[-1]]


def _jobs(name: str, model: Model) -> Iterator[Job]:
    for how in (Quantization(), Quantization(prefer="small"), Quantization(requantize=True)):
        with suppress(ForgeError):
            yield Job.of_type(wanted_types(name, model)[0], model, how, True, Surveys())


def _likeness(job: Job, file: GGUFFile) -> int:
    """How many tensors are in the file and of its type, less those that are not there."""
    pairs = [(choice.type, file.tensors.get(choice.name)) for choice in job.choices]
    return sum(-1 if tensor is None else int(tensor.type is kind) for kind, tensor in pairs)


def _stripped(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Without leading axes of one, which ggml does not count."""
    while len(shape) > 1 and shape[0] == 1:
        shape = shape[1:]
    return shape
