"""What types do to a model's tensors, and whether a file's blocks come from a given source. Opens both, pairs tensors
by name, yields one result a tensor and type; must not print. The arithmetic is quant/roundtrip.py's.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gguf_forge import names
from gguf_forge.convert.config import resolve
from gguf_forge.convert.encoders import encoder_of
from gguf_forge.convert.facts import Facts
from gguf_forge.convert.metrics import Metrics
from gguf_forge.convert.model import stored_view
from gguf_forge.convert.origin import source_view
from gguf_forge.convert.plan import plan_outputs
from gguf_forge.convert.registry import select
from gguf_forge.convert.unconfigured import supply_config
from gguf_forge.convert.view import View
from gguf_forge.errors import CheckpointError, ConversionError, InputError, QuantError, RecipeError, escaped
from gguf_forge.format import reader
from gguf_forge.outputs import OutputChange, of_file, of_types
from gguf_forge.quant import roundtrip as arrays
from gguf_forge.quant.calibration import Calibration
from gguf_forge.quant.encoders import PROCESSORS, Encoder
from gguf_forge.quant.imatrix import Imatrix
from gguf_forge.quant.roundtrip import Compared, Errors, RoundTrip, compare_rows, measure_rows
from gguf_forge.source.checkpoint import Checkpoint, open_checkpoint
from gguf_forge.types import TENSOR_TYPES, TensorType, tensor_type

#: What is tried on tensors that are not quantized, when no types are named.
DEFAULT_TYPES = ("Q8_0", "Q6_K", "Q5_K", "Q4_K", "Q3_K", "Q2_K")

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Model:
    """The tensors of an open GGUF file or checkpoint, by GGUF name where the architecture is known.

    note: what a reader should know, or "". imatrix: the importance matrix the file says it was made with, or "".
    """

    path: Path
    tensors: Mapping[str, View]
    note: str = ""
    imatrix: str = ""


@dataclass(frozen=True)
class Finding:
    """What came out for one tensor and one type. Exactly one of trip and reason is there.

    tensor, shape (NumPy order), stored: name, form and type in the file. type: the type tried. reason: why it was not.
    weighted: whether an importance matrix had a say. output: with a calibration, what the matrix's outputs change.
    equal_blocks of blocks: how many of the file's blocks our encoder makes of the source; None without a source or an
    encoder.
    """

    tensor: str
    shape: tuple[int, ...]
    stored: TensorType
    type: TensorType
    trip: RoundTrip | None = None
    reason: str = ""
    equal_blocks: int | None = None
    blocks: int = 0
    weighted: bool = False
    output: OutputChange | None = None

    @property
    def reproduced(self) -> bool | None:
        """Whether every block comes from the source by our encoder; None when that is not known."""
        return None if self.equal_blocks is None else self.equal_blocks == self.blocks


def roundtrip(
    x: NDArray[Any],
    type: str | TensorType,
    imatrix: NDArray[Any] | None = None,
    threads: int | None = None,
    *,
    device: str = "cpu",
) -> RoundTrip:
    """Encodes an array as blocks of `type`, decodes them and compares.

    x, imatrix, threads: as for `quantize`; x of shape (..., width), float32, float16, float64, or uint16 holding
    bfloat16 bits. `imatrix` may also be (n, width), one row for each of the n matrices that x stacks. device: what
    encodes, as of `convert_checkpoint`, to the same blocks. Works through x in pieces: needs no copy of it. Raises
    QuantError as `quantize` does, and CudaError.

        assert gguf_forge.roundtrip(weights, "Q4_K").snr_db > 20
    """
    with encoder_of(device) as encoder:
        return arrays.roundtrip(x, tensor_type(type), imatrix, threads, encoder)


@contextmanager
def open_model(path: str | os.PathLike[str]) -> Iterator[Model]:
    """Opens a GGUF file (any shard of a set) or a checkpoint (folder or weight file). Raises ForgeError."""
    given = Path(path)
    if given.is_file() and _starts_as_gguf(given):
        with reader.open(given) as file:
            views = {t.name: stored_view(t, file.endian) for t in file.tensors.values()}
            yield Model(given, views, imatrix=str(file.metadata.get("quantize.imatrix.file", "")))
        return
    with open_checkpoint(given) as checkpoint:
        yield _checkpoint_model(checkpoint, given)
        checkpoint.require_unchanged()


def _starts_as_gguf(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(4) == b"GGUF"
    except OSError as error:
        raise InputError(error.strerror or str(error), path=path) from None


def _checkpoint_model(checkpoint: Checkpoint, given: Path) -> Model:
    try:
        supply_config(checkpoint)
        raw = checkpoint.config
        facts = Facts(resolve(raw), checkpoint.path)
        views = plan_outputs(select(raw), checkpoint.tensors, facts).views
        return Model(given, {view.name: view for view in views})
    except (ConversionError, CheckpointError) as error:
        note = f"tensors keep the checkpoint's names: {error}"
        return Model(given, {name: source_view(tensor) for name, tensor in checkpoint.tensors.items()}, note)


def measure(
    model: Model,
    types: Sequence[TensorType] = (),
    *,
    tensors: str | None = None,
    imatrix: Imatrix | None = None,
    calibration: Calibration | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
    encoder: Encoder = PROCESSORS,
) -> Iterator[Finding]:
    """Encodes, decodes and compares each tensor of a model in each type; one finding a tensor and type, in order.

    types: by default DEFAULT_TYPES, and for a tensor stored as blocks its own type (the decoded values count as the
    truth then). tensors: a glob; without it all tensors of two or more axes. progress(done, total): in bytes of the
    model. encoder: what makes the blocks. calibration: also says how much the outputs of each matrix change, encoded as
    ggml does and fitted.
    Raises QuantError naming the tensor for values that cannot be encoded, RecipeError for a misfitting imatrix.
    """
    chosen = list(_chosen(model.tensors, tensors))
    step = _stepper(chosen, progress)
    metrics = None if calibration is None else Metrics([*model.tensors.values()], calibration)
    for view in chosen:
        wanted = types or ([view.type] if view.type.quantized else [TENSOR_TYPES[name] for name in DEFAULT_TYPES])
        weights = None if imatrix is None else imatrix.weights(view.name, view.shape)
        reasons = {kind: _unfit(view, kind, weights is not None) for kind in wanted}
        fit = [kind for kind in wanted if not reasons[kind]]
        found = {}
        if fit:
            with _naming(model, view):
                trips = measure_rows(
                    view.rows, view.type, view.shape, fit, weights,
                    threads=threads, advance=partial(step, _row_bytes(view)), encoder=encoder,
                )  # fmt: skip
            found = dict(zip(fit, trips, strict=True))
        outputs: dict[TensorType, OutputChange] = {}
        if calibration is not None and metrics is not None and names.dimensions(view.shape) > 1:
            outputs = of_types(view, fit, weights, calibration, metrics)
        for kind in wanted:
            weighted = weights is not None and kind.weighted
            yield Finding(
                view.name, view.shape, view.type, kind, found.get(kind), reasons[kind],
                weighted=weighted, output=outputs.get(kind),
            )  # fmt: skip


def compare(
    model: Model,
    source: Model,
    *,
    tensors: str | None = None,
    imatrix: Imatrix | None = None,
    calibration: Calibration | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
    encoder: Encoder = PROCESSORS,
) -> Iterator[Finding]:
    """Compares the blocks of a quantized file with the model they were made from; one finding a tensor, in order.

    tensors: a glob; without it all that are stored as blocks. imatrix: the one the file was made with.
    calibration: also says how much the outputs of each matrix change, in the file and encoded as ggml does. Raises as
    `measure`.
    """
    chosen = [view for view in _chosen(model.tensors, tensors) if tensors or view.type.quantized]
    step = _stepper(chosen, progress)
    for view in chosen:
        origin = source.tensors.get(view.name)
        reason = _no_pair(view, origin)
        if origin is None or reason:
            yield Finding(view.name, view.shape, view.type, view.type, reason=reason)
            continue
        weights = None if imatrix is None else imatrix.weights(view.name, view.shape)
        with _naming(source, origin):
            found: Compared = compare_rows(
                _as_blocks(view), view.type, origin.rows, origin.type, view.shape, weights,
                threads=threads, advance=partial(step, _row_bytes(view)), encoder=encoder,
            )  # fmt: skip
        weighted = weights is not None and view.type.weighted
        output = None if calibration is None else of_file(view, origin, weights, calibration)
        yield Finding(
            view.name, view.shape, view.type, view.type, found.trip, "", found.equal_blocks, found.blocks, weighted,
            output,
        )  # fmt: skip


def summarize(findings: Iterable[Finding]) -> list[dict[str, Any]]:
    """One row a type, over all its tensors together; figures as in `document`."""
    groups: dict[TensorType, list[Finding]] = {}
    for finding in findings:
        groups.setdefault(finding.type, []).append(finding)
    return [_summary(kind, group) for kind, group in groups.items()]


def _summary(kind: TensorType, group: list[Finding]) -> dict[str, Any]:
    done = [finding for finding in group if finding.trip is not None]
    trips = [finding.trip for finding in done if finding.trip is not None]
    total = sum((trip.errors for trip in trips), Errors())
    whole = RoundTrip(kind, sum(trip.nbytes for trip in trips), total, None)
    return {
        "type": kind.name,
        "tensors": len(done),
        "skipped": len(group) - len(done),
        **figures(whole),
        "stable": sum(trip.stable is True for trip in trips),
        "reproduced": sum(finding.reproduced is True for finding in done),
        "compared": sum(finding.reproduced is not None for finding in done),
    }


def figures(trip: RoundTrip) -> dict[str, Any]:
    """The figures of a round trip by name, as they stand in documents and tables."""
    return {
        "elements": trip.errors.count,
        "bytes": trip.nbytes,
        "bits_per_weight": trip.bits_per_weight,
        "rmse": trip.rmse,
        "relative_rmse": trip.relative_rmse,
        "max_error": trip.max_error,
        "snr_db": trip.snr_db,
        "cosine": trip.cosine,
    }


def document(finding: Finding) -> dict[str, Any]:
    """A finding as plain values, the same keys for each that has figures."""
    head = {
        "tensor": finding.tensor,
        "shape": list(finding.shape),
        "stored": finding.stored.name,
        "type": finding.type.name,
    }
    if finding.trip is None:
        return {**head, "skipped": finding.reason}
    return {
        **head,
        **figures(finding.trip),
        "stable": finding.trip.stable,
        "reproduced": finding.reproduced,
        "equal_blocks": finding.equal_blocks,
        "blocks": finding.blocks or None,
        "output_error_plain": None if finding.output is None else finding.output.plain,
        "output_error": None if finding.output is None else finding.output.other,
    }


def _chosen(tensors: Mapping[str, View], glob: str | None) -> Iterator[View]:
    """The tensors to look at. An unmatched glob is an error: it is a slip of the pen."""
    found = False
    for name, view in tensors.items():
        if fnmatchcase(name, glob) if glob else names.dimensions(view.shape) > 1:
            found = True
            yield view
    if glob and not found:
        raise RecipeError(f"no tensor matches {glob!r}")


def _unfit(view: View, kind: TensorType, weighted: bool) -> str:
    """Why this type cannot be tried on this tensor, or ""."""
    if view.type.quantized and not view.type.decodes:
        return f"{view.type} is not decoded"
    if not kind.encodes:
        return f"{kind} is not encoded"
    if view.width % kind.block_size:
        return f"width {view.width} is not a multiple of {kind.block_size}"
    if kind.needs_weights and not weighted:
        return "needs an importance matrix"
    return ""


def _no_pair(view: View, origin: View | None) -> str:
    if origin is None:
        return "not in the source"
    if origin.shape != view.shape:
        return f"shape {list(origin.shape)} in the source"
    if not view.type.decodes:
        return f"{view.type} is not decoded"
    if origin.type.quantized and not origin.type.decodes:
        return f"{origin.type} of the source is not decoded"
    return ""


def _as_blocks(view: View) -> Callable[[int, int], NDArray[Any]]:
    """Rows as bytes, whatever the type."""

    def rows(start: int, stop: int) -> NDArray[Any]:
        return view.rows(start, stop).reshape(stop - start, -1).view(np.uint8)

    return rows


@contextmanager
def _naming(model: Model, view: View) -> Iterator[None]:
    """Errors of encoding, with the tensor's name."""
    try:
        yield
    except QuantError as error:
        raise QuantError(str(error), path=model.path, field=f'tensor "{escaped(view.name)}"') from None


def _row_bytes(view: View) -> int:
    return view.type.row_bytes(view.width)


def _stepper(views: Sequence[View], progress: Progress | None) -> Callable[[int, int], None]:
    total, done = sum(view.count * _row_bytes(view) for view in views), 0

    def step(row_bytes: int, rows: int) -> None:
        nonlocal done
        done += row_bytes * rows
        if progress is not None:
            progress(done, total)

    return step
