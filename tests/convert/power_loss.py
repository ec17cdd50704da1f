"""What a power loss at any moment may leave of the files that a run writes."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest

from gguf_forge import system


class PowerLoss:
    """Records what a run does to its files, and makes of it what a power loss at any moment may leave.

    What was flushed is there. What was written since may be there, in part, or be any bytes; a file that was renamed
    has the one name or the other until its folder is flushed.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.events: list[tuple[Any, ...]] = []
        for name in ("create", "reserve", "write_at", "flush", "replace", "flush_entry"):
            monkeypatch.setattr(system, name, self._recorded(name, getattr(system, name)))

    def _recorded(self, name: str, real: Any) -> Any:
        def call(*given: Any) -> Any:
            found = real(*given)
            if name == "create":
                self.events.append((name, os.fstat(found.fileno()).st_ino, given[0].name))
            elif name == "write_at":
                self.events.append((name, os.fstat(given[0]).st_ino, given[2], bytes(given[1][:found])))
            elif name == "reserve":
                self.events.append((name, os.fstat(given[0]).st_ino, given[1]))
            elif name == "flush":
                self.events.append((name, os.fstat(given[0]).st_ino))
            elif name == "replace":
                self.events.append((name, os.fstat(given[0].fileno()).st_ino, given[1].name, given[2].name))
            else:
                self.events.append((name,))
            return found

        return call

    def after(self, count: int, rng: np.random.Generator) -> dict[str, bytes]:
        """Files by name after the first events, with what is not certain decided at random."""
        content: dict[int, bytearray] = {}
        waiting: dict[int, list[tuple[int, bytes]]] = {}
        names: dict[str, int] = {}
        unsure: list[tuple[str | None, str, int]] = []
        for event, *rest in self.events[:count]:
            if event == "create":
                content[rest[0]], waiting[rest[0]] = bytearray(), []
                unsure.append((None, rest[1], rest[0]))
            elif event == "reserve":
                content[rest[0]] = bytearray(rest[1])
            elif event == "write_at":
                waiting[rest[0]].append((rest[1], rest[2]))
            elif event == "flush" and rest[0] in content:
                self._settle(content[rest[0]], waiting[rest[0]])
                waiting[rest[0]] = []
            elif event == "replace":
                unsure.append((rest[1], rest[2], rest[0]))
            elif event == "flush_entry":
                for old, new, number in unsure:
                    self._rename(names, old, new, number)
                unsure = []
        for old, new, number in unsure[: rng.integers(len(unsure) + 1)]:
            self._rename(names, old, new, number)
        for number, writes in waiting.items():
            for offset, data in writes:
                how = rng.integers(4)
                kept = data[: rng.integers(len(data) + 1)] if how == 1 else rng.bytes(len(data)) if how == 2 else data
                if how:
                    self._settle(content[number], [(offset, kept)])
        return {name: bytes(content[number]) for name, number in names.items()}

    @staticmethod
    def _rename(names: dict[str, int], old: str | None, new: str, number: int) -> None:
        if old is not None:
            names.pop(old, None)
        names[new] = number

    @staticmethod
    def _settle(content: bytearray, writes: list[tuple[int, bytes]]) -> None:
        for offset, data in writes:
            content.extend(bytes(max(0, offset + len(data) - len(content))))
            content[offset : offset + len(data)] = data
