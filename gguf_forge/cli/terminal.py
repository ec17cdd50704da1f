"""How commands speak: notes on stderr, results on stdout, a progress bar on a terminal, JSON for programs.

Knows rich and number formats; must not know GGUF. Text that came from a file is escaped before it reaches a terminal.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TextIO

from gguf_forge.errors import as_utf8, printable

if TYPE_CHECKING:
    from rich.console import Console

    from gguf_forge.cli.tables import Table

#: Seconds between progress lines where there is no terminal.
LINE_INTERVAL = 10.0
#: Columns of a page that does not go to a terminal: more than any table takes.
UNBOUNDED = 1 << 16


def say(text: str) -> None:
    """A line on stderr. Where its reader has gone, or its terminal, the work goes on in silence."""
    try:
        print(text, file=sys.stderr, flush=True)  # noqa: T201 - the one place that does
    except OSError:
        hang_up(sys.stderr)


def hang_up(stream: TextIO) -> None:
    """Leads a stream that nobody reads any more to nowhere, with what it still holds."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def size(nbytes: float) -> str:
    """Bytes for people, in binary units."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if nbytes < 1024:
            return f"{nbytes:.0f} {unit}" if unit == "B" else f"{nbytes:.2f} {unit}"
        nbytes /= 1024
    return f"{nbytes:.2f} TiB"


def count(number: float) -> str:
    """A count for people: 6.8 M, 8.03 G."""
    for unit in ("", " K", " M", " G"):
        if abs(number) < 1000:
            return f"{number:.0f}" if not unit else f"{number:.3g}{unit}"
        number /= 1000
    return f"{number:.3g} T"


def plain_json(value: Any) -> Any:
    r"""A value JSON can hold: NumPy scalars and arrays as Python's, floats that JSON lacks as strings.

    Bytes of a text that are no UTF-8 appear as \xff: half a surrogate pair is no JSON.
    """
    if isinstance(value, str):
        return as_utf8(value)
    if isinstance(value, dict):
        return {as_utf8(str(k)): plain_json(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_json(v) for v in value]
    if hasattr(value, "tolist"):
        return plain_json(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


#: Told how much of how much has been done, in bytes or what else is counted; from any thread, one at a time.
Progress = Callable[[int, int], None]


@dataclass
class Terminal:
    """Where a command's words go. quiet: nothing but results and errors; verbose: details too."""

    quiet: bool = False
    verbose: bool = False

    def note(self, text: str) -> None:
        """A line on stderr, unless quiet."""
        if not self.quiet:
            say(printable(text))

    def detail(self, text: str) -> None:
        """A line on stderr, only when verbose."""
        if self.verbose:
            self.note(text)

    def show(self, *pages: Table | str) -> None:
        """Tables and text on stdout: fitted to a terminal, as wide as they need elsewhere; no line ends in blanks."""
        console = _console()
        with console.capture() as shown:
            for page in pages:
                fitted = page if isinstance(page, str) else page.fitted(console.width, console.options.ascii_only)
                console.print(fitted, crop=False)
        sys.stdout.writelines(f"{line.rstrip()}\n" for line in shown.get().splitlines())

    def lines(self, lines: Iterable[str]) -> None:
        """Lines for programs on stdout, as long as they are."""
        sys.stdout.writelines(f"{printable(line)}\n" for line in lines)

    def json(self, value: Any) -> None:
        """A document on stdout, plain ASCII: safe on any terminal and in any locale."""
        sys.stdout.write(json.dumps(plain_json(value), indent=1) + "\n")

    @contextmanager
    def progress(self, what: str, unit: str = "") -> Iterator[Progress | None]:
        """A bar with rate and time left on a terminal, a line now and then elsewhere, nothing when quiet.

        unit: what is counted, in the plural; without one it is bytes.
        """
        if self.quiet:
            yield None
        elif sys.stderr.isatty():
            with _bar(unit) as bar:
                task = bar.add_task(printable(what), total=None)
                yield lambda done, total: bar.update(task, completed=done, total=total)
        else:
            yield _Lines(self, what, unit).tell


class _Lines:
    def __init__(self, terminal: Terminal, what: str, unit: str) -> None:
        self.terminal, self.what, self.unit = terminal, what, unit
        self.start = self.last = time.monotonic()

    def tell(self, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self.last >= LINE_INTERVAL and done < total:
            self.last = now
            rate = done / (now - self.start)
            left = f"{(total - done) / rate:.0f} s left" if rate else "waiting"
            self.terminal.note(f"{self.what}: {done / total:.0%}, {_rate(rate, self.unit)}, {left}")


def _rate(rate: float, unit: str) -> str:
    return f"{rate:.3g} {unit}/s" if unit else f"{size(rate)}/s"


def _bar(unit: str) -> Any:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            rate = task.finished_speed or task.speed
            return Text("" if rate is None else _rate(rate, unit))

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn() if unit else DownloadColumn(binary_units=True),
        Rate(),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=Console(stderr=True), transient=True)


def _console() -> Console:
    from rich.console import Console

    return Console(
        file=sys.stdout,
        markup=False,
        highlight=False,
        emoji=False,
        width=None if sys.stdout.isatty() else UNBOUNDED,
    )
