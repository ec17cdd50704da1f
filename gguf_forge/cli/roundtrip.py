"""`gguf-forge roundtrip`: what types cost, tensor by tensor. Parses, asks measure.py, prints."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gguf_forge.cli.options import PATH, Parsed, on_device, speaking
from gguf_forge.cli.tables import Table
from gguf_forge.cli.terminal import Terminal
from gguf_forge.system import processors

if TYPE_CHECKING:
    from gguf_forge.measure import Finding, Model
    from gguf_forge.types import TensorType

FIGURES = (">bpw", ">RMSE", ">relative", ">largest", ">SNR dB", ">cosine", "stable")
#: What a narrow terminal does without: SNR and relative error say most.
SPARE = ("cosine", "RMSE", "largest", "stable", "bpw", "relative")


def _tensor_types(word: str) -> tuple[TensorType, ...]:
    """Types by name, in any case, separated by commas, each once; `all` for every block type that is encoded."""
    from gguf_forge.errors import UnsupportedError
    from gguf_forge.types import TENSOR_TYPES, tensor_type

    if word.strip().lower() == "all":
        return tuple(t for t in TENSOR_TYPES.values() if t.encodes and t.quantized)
    found = dict.fromkeys(tensor_type(name.strip()) for name in word.split(","))
    for kind in found:
        if not kind.encodes:
            raise UnsupportedError(f"{kind} is not encoded")
    return tuple(found)


@click.command("roundtrip")
@click.argument("file", metavar="FILE-or-CHECKPOINT", type=PATH)
@click.option(
    "--types", "--type", type=Parsed("type[,type...]", _tensor_types), default=(),
    help="Tensor types to try, or 'all'. Default: Q8_0 to Q2_K; for tensors stored as blocks, their own.",
)  # fmt: skip
@click.option("--tensors", metavar="GLOB", help="Only tensors whose name matches. Default: all of two or more axes.")
@click.option("--imatrix", type=PATH, help="Importance matrix (.gguf or .dat) to encode with.")
@click.option(
    "--calibration", type=PATH,
    help="What `calibrate` made: tells how much the outputs of each matrix change, plainly encoded and fitted.",
)  # fmt: skip
@click.option(
    "--source", type=PATH,
    help="What a quantized FILE was made from (.gguf or checkpoint): tells which blocks our encoder makes of it.",
)  # fmt: skip
@click.option("--threads", type=click.IntRange(min=1), default=processors, show_default="all cores")
@on_device
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@speaking
def command(
    file: Path, types: tuple[TensorType, ...], tensors: str | None, imatrix: Path | None, calibration: Path | None,
    source: Path | None, threads: int, device: str, as_json: bool, quiet: bool, verbose: bool,
) -> None:  # fmt: skip
    """Encode, decode and compare tensors: what each type costs, or how a quantized file differs from its source.

    stable: encoding the decoded values again gives the same bytes. same: blocks that our encoder makes of the source.
    """
    from gguf_forge import measure
    from gguf_forge.convert.encoders import encoder_of
    from gguf_forge.quant.calibration import Calibration
    from gguf_forge.quant.imatrix import load_imatrix

    if source is not None and types:
        raise click.UsageError("--types and --source cannot be used together: a file's types are its own")
    terminal = Terminal(quiet, verbose)
    with ExitStack() as stack:
        moments = None if calibration is None else stack.enter_context(Calibration.open(calibration))
        weights = None if moments is None else moments.imatrix
        weights = weights if imatrix is None else load_imatrix(imatrix)
        model = stack.enter_context(measure.open_model(file))
        encoder = stack.enter_context(encoder_of(device))
        progress = stack.enter_context(terminal.progress(file.name))
        how: dict[str, Any] = {
            "tensors": tensors, "imatrix": weights, "calibration": moments, "threads": threads, "progress": progress,
            "encoder": encoder,
        }  # fmt: skip
        found: Iterator[Finding]
        if source is None:
            found = measure.measure(model, types, **how)
        else:
            origin = stack.enter_context(measure.open_model(source))
            _remark(terminal, origin)
            if model.imatrix and weights is None:
                terminal.note(f"{file}: says it was made with {model.imatrix}; --imatrix gives that to the encoder")
            found = measure.compare(model, origin, **how)
        findings = list(_told(terminal, found))
        for line in encoder.said():
            terminal.note(line)
    _remark(terminal, model)
    if not findings:
        terminal.note(f"{file}: no tensors to try" + (" that are stored as blocks" if source else ""))
    summary = measure.summarize(findings)
    if as_json:
        terminal.json(
            {
                "file": str(file),
                "source": None if source is None else str(source),
                "imatrix": None if imatrix is None else str(imatrix),
                "calibration": None if calibration is None else str(calibration),
                "tensors": [measure.document(finding) for finding in findings],
                "types": summary,
            }
        )
        return
    terminal.show(_tensors(findings, source is not None), "", _types(summary, source is not None))


def _told(terminal: Terminal, found: Iterable[Finding]) -> Iterator[Finding]:
    """The findings, each in a line as it comes when verbose: of a large model the first is long before the last."""
    for finding in found:
        shape = " x ".join(map(str, finding.shape))
        how = " with importances" if finding.weighted else ""
        result = finding.reason if finding.trip is None else f"{finding.trip.snr_db:.2f} dB{how}"
        terminal.detail(f"{finding.tensor}: {shape}, {finding.stored} as {finding.type}: {result}")
        yield finding


def _remark(terminal: Terminal, model: Model) -> None:
    if model.note:
        terminal.note(f"{model.path}: {model.note}")


def _tensors(findings: list[Finding], compared: bool) -> Table:
    from gguf_forge.measure import document

    measured = any(finding.output is not None for finding in findings)
    outputs = [">outputs, plain", ">outputs, as in FILE" if compared else ">outputs, fitted"] if measured else []
    columns = ["tensor", "type", *FIGURES, *outputs, *([">same"] if compared else [])]
    if any(finding.trip is None for finding in findings):
        columns.append("~not tried")
    shown = Table(*columns, spare=SPARE)
    for finding in findings:
        plain = document(finding)
        if "skipped" in plain:
            shown.add(plain["tensor"], plain["type"], *[""] * (len(columns) - 3), plain["skipped"])
            continue
        same = [_share(plain["equal_blocks"], plain["blocks"])] if compared else []
        changed = [plain["output_error_plain"], plain["output_error"]] if measured else []
        outputs = ["" if share is None else f"{share:.3%}" for share in changed]
        shown.add(plain["tensor"], plain["type"], *_figures(plain), _yes(plain["stable"]), *outputs, *same)
    return shown


def _types(summary: list[dict[str, Any]], compared: bool) -> Table:
    skipped = any(of_type["skipped"] for of_type in summary)
    more = (["reproduced"] if compared else []) + ([">not tried"] if skipped else [])
    shown = Table("type", ">tensors", *FIGURES, *more, spare=SPARE)
    for of_type in summary:
        count = of_type["tensors"]
        figures = [*_figures(of_type), f"{of_type['stable']} of {count}"] if count else [""] * len(FIGURES)
        same = [f"{of_type['reproduced']} of {of_type['compared']}"] if compared else []
        shown.add(of_type["type"], count, *figures, *same, *([of_type["skipped"]] if skipped else []))
    return shown


def _figures(plain: dict[str, Any]) -> list[str]:
    return [
        f"{plain['bits_per_weight']:.4g}",
        f"{plain['rmse']:.4g}",
        f"{plain['relative_rmse']:.3%}",
        f"{plain['max_error']:.4g}",
        f"{plain['snr_db']:.2f}",
        f"{plain['cosine']:.7f}",
    ]


def _yes(value: bool | None) -> str:
    return "?" if value is None else "yes" if value else "no"


def _share(equal: int | None, blocks: int | None) -> str:
    """All, or how many; never rounded up to all."""
    if equal is None or not blocks:
        return "?"
    return "all" if equal == blocks else f"{equal} of {blocks}"
