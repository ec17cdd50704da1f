"""`gguf-forge check`: whether files are what others expect of them. Parses, asks the package, prints.

Exit codes of its own: 0 clean, 1 findings, 3 a file that cannot be read.
"""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gguf_forge.cli.options import FILE
from gguf_forge.cli.terminal import Terminal
from gguf_forge.errors import printable

if TYPE_CHECKING:
    from gguf_forge.remote.location import Location
    from gguf_forge.whole.check import CheckLimits, Report

FINDINGS, UNREADABLE = 1, 3


@click.command("check")
@click.argument("files", type=FILE, nargs=-1, required=True)
@click.option("--data", is_flag=True, help="Read all tensors' data, too.")
@click.option(
    "--severity",
    type=click.Choice(["warning", "error"]),
    default="warning",
    show_default=True,
    help="The least that counts, and is shown.",
)
@click.option("--limit", "limits", multiple=True, metavar="NAME=NUMBER", help="Change a limit; repeatable.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as one JSON document.")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
def command(
    files: tuple[Path | Location, ...], data: bool, severity: str, limits: tuple[str, ...], as_json: bool, quiet: bool
) -> None:
    """Check .gguf FILES: structure, keys, tensors, tokenizer and chat template, as llama.cpp wants them.

    Nothing of a file is run. Any shard of a set checks the set. Exits with 0 where all are clean, 1 where something was
    found, 3 where a file cannot be read.
    """
    from gguf_forge.whole.check import check

    bounds = _limits(limits)
    terminal = Terminal(quiet=quiet or not data)
    reports: list[Report] = []
    for file in files:
        with terminal.progress(file.name) as progress:
            reports.append(check(file, data=data, limits=bounds, progress=progress))
        if not as_json:
            terminal.show(*_lines(reports[-1], severity))
    if as_json:
        terminal.json(
            {
                "files": [
                    {**report.document(), "findings": _documents(report, severity)} for report in reports
                ],
                "limits": {field.name: getattr(bounds, field.name) for field in fields(bounds)},
            }
        )
    unreadable = any(not report.readable for report in reports)
    found = any(report.at_least(severity) for report in reports)
    if unreadable or found:
        click.get_current_context().exit(UNREADABLE if unreadable else FINDINGS)


def _documents(report: Report, severity: str) -> list[object]:
    shown = report.at_least(severity)
    return [d for d, f in zip(report.document()["findings"], report.findings, strict=True) if f in shown]


def _lines(report: Report, severity: str) -> list[str]:
    if report.error is not None:
        return [f"unreadable: {report.error}"]
    lines = [f"{finding.severity}: {finding} [{finding.rule}]" for finding in report.at_least(severity)]
    return lines or [f"{printable(str(report.path))}: clean"]


def _limits(words: tuple[str, ...]) -> CheckLimits:
    from gguf_forge.whole.check.subject import CHECK_LIMITS

    bounds = CHECK_LIMITS
    known = [field.name for field in fields(bounds)]
    for word in words:
        name, _, number = word.partition("=")
        if name not in known or not number.isdecimal():
            raise click.UsageError(f"--limit {word}: expected NAME=NUMBER, NAME one of {', '.join(known)}")
        bounds = replace(bounds, **{name: int(number)})
    return bounds
