"""What came of a check: the findings of one file, or why it could not be read. Knows no rules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gguf_forge.errors import ForgeError
from gguf_forge.format.findings import ERROR, WARNING, Finding
from gguf_forge.remote.location import Location

#: From the worst on.
SEVERITIES = (ERROR, WARNING)


@dataclass(frozen=True)
class Report:
    """The result of `check`.

    path: what was checked. files: all files of the set. findings: those of the format first, then of the model, of its
    templates, and of data. error: why the file could not be read, None where it could. data: whether tensors' data were
    read, too.
    """

    path: Path | Location
    files: Sequence[Path | Location] = ()
    findings: Sequence[Finding] = ()
    error: ForgeError | None = None
    data: bool = False

    @property
    def readable(self) -> bool:
        """Whether the file could be opened."""
        return self.error is None

    @property
    def clean(self) -> bool:
        """Whether the file was read and nothing was found."""
        return self.error is None and not self.findings

    def at_least(self, severity: str) -> list[Finding]:
        """The findings that are as bad as `severity` ("error" or "warning"), or worse."""
        return [f for f in self.findings if SEVERITIES.index(f.severity) <= SEVERITIES.index(severity)]

    def document(self) -> dict[str, Any]:
        """All of it as plain values, for JSON."""
        return {
            "path": str(self.path),
            "files": [str(path) for path in self.files],
            "readable": self.readable,
            "data": self.data,
            "error": None if self.error is None else _error(self.error),
            "findings": [
                {
                    "rule": f.rule,
                    "severity": f.severity,
                    "path": f.path,
                    "offset": f.offset,
                    "field": f.field,
                    "text": f.text,
                }
                for f in self.findings
            ],
        }


def _error(error: ForgeError) -> dict[str, Any]:
    return {
        "class": type(error).__name__,
        "path": error.path,
        "offset": error.offset,
        "field": error.field,
        "text": error.text,
    }
