"""results.jsonl: a line for what was begun and for what came of it, written at once, by workers and their parent."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

Record = dict[str, Any]


class Results:
    """The file, which any process appends to. A line that a killed worker left unfinished is passed over."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._at = 0

    def add(self, part: str, **what: Any) -> None:
        """Appends a record."""
        line = "\n" if self._torn() else ""
        line += json.dumps({"part": part, **what}, default=float) + "\n"
        to = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(to, line.encode())
        finally:
            os.close(to)

    def _torn(self) -> bool:
        try:
            with self.path.open("rb") as file:
                file.seek(-1, os.SEEK_END)
                return file.read(1) != b"\n"
        except OSError:  # it is not there, or empty
            return False

    def new(self) -> list[Record]:
        """What was appended since this was asked last."""
        if not self.path.exists():
            return []
        with self.path.open("rb") as file:
            file.seek(self._at)
            text = file.read()
        text = text[: text.rfind(b"\n") + 1]
        self._at += len(text)
        return _records(text)

    def all(self) -> list[Record]:
        """Everything."""
        return _records(self.path.read_bytes()) if self.path.exists() else []

    def done(self, part: str) -> set[str]:
        """The items of a part that came to a result or failed."""
        return {r["item"] for r in self.all() if r["part"] == part and "item" in r}


def _records(text: bytes) -> list[Record]:
    found = []
    for line in text.splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:  # a worker died in the midst of it
            continue
    return found
