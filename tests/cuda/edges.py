"""The tests of the emulated kernels, on the device: golden bytes, nasty data, odd counts, any grid and address."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from typing import Any

from tests.cuda import host
from tests.cuda.card import Card
from tests.cuda.hardware import Hardware

MODULES = ("test_decode", "test_encode", "test_matvec")


def items(_: str, card: Card) -> dict[str, Callable[[], dict[str, Any]]]:
    """Every case of every test; which are written for pytest, but do not need it to run."""
    if importlib.util.find_spec("pytest") is None:
        return {"pytest": lambda: {"missing": "pytest is not installed"}}
    Hardware(card).instead()
    found: dict[str, Callable[[], dict[str, Any]]] = {}
    for module in MODULES:
        tests = vars(importlib.import_module(f"tests.cuda.{module}"))
        for name, test in tests.items():
            if name.startswith("test_"):
                found |= {f"{module}.{name}[{case}]": partial(check, test, given) for case, given in cases(test)}
    return found


def cases(test: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """What a test is called with, as its marks say."""
    axes = []
    for mark in getattr(test, "pytestmark", ()):
        names, values = mark.args[:2]
        names = [name.strip() for name in names.split(",")] if isinstance(names, str) else list(names)
        axes.append([dict(zip(names, each if len(names) > 1 else (each,), strict=True)) for each in values])
    for chosen in product(*axes):
        given = {name: value for each in chosen for name, value in each.items()}
        if given.get("capability", host.CAPABILITIES[-1]) != host.CAPABILITIES[-1]:
            continue  # a device has its own, and one is enough
        yield "-".join(getattr(v, "__name__", str(v)) for v in given.values()), given


def check(test: Callable[..., None], given: dict[str, Any]) -> dict[str, Any]:
    """Calls a test, which raises where it fails."""
    test(**given)
    return {"equal": True}
