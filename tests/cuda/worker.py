"""`python -m tests.cuda.worker WHAT`: does the items of a part on the device, one after the other, and writes each.

Items that an earlier worker of the part came to an end with are passed over. One that fails does not keep the next from
being tried; but when the device is lost to this process, it says so and ends, and another has to go on.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.cuda.checkout import complete

#: Where a part's items are found: a module of this folder with `items(card)`, and what it does not need a card for.
MODULES = {
    "copy": "rates",
    "decode": "rates",
    "encode": "rates",
    "bits": "bits",
    "touch": "touch",
    "edges": "edges",
    "products": "products",
    "large": "large",
    "model": "model",
    "torch": "others",
    "cupy": "others",
}
#: Results after which a process can do nothing more with its device.
STICKY = {214, 220, 700, 702, 709, *range(710, 720), 721, 999}
#: How much of a traceback is kept.
TOLD = 3000

Items = dict[str, Callable[[], dict[str, Any]]]


def main() -> int:
    """Status 0 when all items were tried, LOST when the device is lost."""
    parser = argparse.ArgumentParser(prog="python -m tests.cuda.worker")
    parser.add_argument("what")
    parser.add_argument("--part", required=True)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--device", type=int, default=0)
    parser.add_argument("--little", action="store_true")
    parser.add_argument("--only", help="one item, though it was tried before")
    given = parser.parse_args()
    complete()
    from tests.cuda import rehearsal
    from tests.cuda.results import Results

    rehearsal.begin()
    return Worker(given, Results(given.results)).work()


class Worker:
    """Does the items that `given` names."""

    def __init__(self, given: argparse.Namespace, results: Any) -> None:
        self.given, self.results = given, results
        self.card: Any = None

    def work(self) -> int:
        """Status 0, or LOST."""
        what, part = self.given.what, self.given.part
        if what == "device":
            from tests.cuda import seen

            self.results.add(part, item="device", **seen.device(self.given.device))
            self.results.add(part, end=True)
            return 0
        from tests.cuda.watch import BEFORE, LOST

        items: Items = {}
        if self._try(BEFORE, lambda: items.update(self._items(what)) or {}, quiet=True):
            return LOST
        done = set() if self.given.only else self.results.done(part)
        for item, do in items.items():
            if item in done or self.given.only not in {None, item}:
                continue
            self.results.add(part, begin=item)
            if self._try(item, do):
                return LOST
        self.results.add(part, end=True)
        return 0

    def _items(self, what: str) -> Items:
        module = importlib.import_module(f"tests.cuda.{MODULES[what]}")
        if what in {"torch", "cupy", "model"}:
            return dict(module.items(what, self.given.device, self.given.little))
        from tests.cuda.card import Card
        from tests.cuda.plan import FULL, LITTLE

        self.card = Card(self.given.device, LITTLE if self.given.little else FULL, self.given.results.parent)
        return dict(module.items(what, self.card))

    def _try(self, item: str, do: Callable[[], dict[str, Any]], quiet: bool = False) -> bool:
        """Does an item and writes what came of it; whether the device is lost."""
        from gguf_forge.cuda.driver import CudaError

        part = self.given.part
        try:
            found = do()
            if self.card is not None:
                self.card.stream.wait()  # of a kernel that failed unseen, this item is told
            if not quiet:
                self.results.add(part, item=item, **found)
        except CudaError as error:
            traceback.print_exc()
            told = traceback.format_exc()[-TOLD:]
            self.results.add(part, item=item, failed=one_line(error), code=error.code, traceback=told)
            return error.code in STICKY
        except Exception as error:  # noqa: BLE001 - the others are still to be seen
            traceback.print_exc()
            told = traceback.format_exc()[-TOLD:]
            self.results.add(part, item=item, failed=one_line(error), traceback=told)
        return False


def one_line(error: Exception) -> str:
    """What went wrong, short."""
    return f"{type(error).__name__}: {' '.join(str(error).split()):.300}"


if __name__ == "__main__":
    sys.exit(main())
