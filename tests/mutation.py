"""Mutants of parser, validator and writer, each to be noticed by tests/format: `python -m tests.mutation [MODULE...]`.

A mutant is a function with one thing changed: a comparison, an operator, a number, a condition, a statement left out.
The tests are collected once; each mutant gets a forked process in which the function's code is replaced, and the tests
that call it run, quick ones first, until one fails. EVERY=n: of the mutants only each n-th. Prints those that no test
noticed, and the score. Tables and defaults of modules are not changed, nor the texts of messages.
"""

from __future__ import annotations

import ast
import copy
import functools
import hashlib
import importlib
import inspect
import os
import pickle
import resource
import sys
import threading
import time
import types
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from _pytest.runner import runtestprotocol

assert sys.platform != "win32"

ROOT = Path(__file__).resolve().parent.parent
MODULES = ("arrays", "atomic", "cursor", "foreign", "parse", "plan", "validate", "values", "words", "writer")
#: Seconds of processor time that the tests of a mutant may take, beyond which it counts as noticed; those chosen for it
#: take less; bytes of memory.
HANG, CHOSEN, MEMORY = 10, 6.0, 16 << 30

#: Tests with a tracer, processes or a peer of their own, and those that try very many inputs: they take longer than all
#: others together.
LEFT_OUT = (
    "test_peers.py",
    "test_sweeps.py",
    "test_write_faults.py::test_an_interrupt_before_every_bytecode",
    "test_write_faults.py::test_races_of_two_writers",
    "test_write_faults.py::test_a_writer_killed_at_random",
    "test_reader.py::test_rows_past_four_gigabytes",
)

_COMPARE: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
_OPERATE: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.FloorDiv, ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult,
    ast.LShift: ast.RShift, ast.RShift: ast.LShift, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
}  # fmt: skip

#: Of each function, by file and first line, the tests that call it: seconds of processor time, and number.
Calls = dict[tuple[str, int], list[tuple[float, int]]]
Function = ast.FunctionDef
Mutant = tuple[str, Function, str]  # where and what; the function, changed; its name with its classes'


def _changes(node: ast.AST) -> Iterator[tuple[str, Callable[[Any], None]]]:
    """What can be changed in a node of its own kind, in place."""
    if isinstance(node, ast.Compare):
        for i, found in enumerate(node.ops):
            other = _COMPARE[type(found)]
            yield f"{type(found).__name__} to {other.__name__}", functools.partial(_set_item, "ops", i, other)
    elif isinstance(node, ast.BoolOp):
        turned = ast.Or if isinstance(node.op, ast.And) else ast.And
        yield f"to {turned.__name__}", functools.partial(_set, "op", turned)
    elif isinstance(node, (ast.BinOp, ast.AugAssign)) and type(node.op) in _OPERATE:
        operator = _OPERATE[type(node.op)]
        yield f"{type(node.op).__name__} to {operator.__name__}", functools.partial(_set, "op", operator)
    elif isinstance(node, ast.Constant) and isinstance(node.value, int):
        value = not node.value if isinstance(node.value, bool) else node.value + 1
        yield f"{node.value} to {value}", functools.partial(_set, "value", lambda: value)
    elif isinstance(node, (ast.If, ast.While, ast.IfExp)):
        yield "condition turned", _turn


def _set(field: str, made: Callable[[], Any], node: Any) -> None:
    setattr(node, field, made())


def _set_item(field: str, index: int, made: Callable[[], Any], node: Any) -> None:
    getattr(node, field)[index] = made()


def _turn(node: Any) -> None:
    node.test = ast.UnaryOp(ast.Not(), node.test)


def _skipped(function: Function) -> set[int]:
    """Ids of nodes that are no part of the code: annotations, defaults; and what is asserted, and texts of messages."""
    found: set[int] = set()
    for node in ast.walk(function):
        apart: list[ast.AST | None] = []
        if isinstance(node, ast.FunctionDef):
            apart += [node.returns, node.args, *node.decorator_list]
        elif isinstance(node, ast.AnnAssign):
            apart.append(node.annotation)
        elif isinstance(node, (ast.Assert, ast.JoinedStr)):
            apart.append(node)
        found |= {id(inner) for part in apart if part is not None for inner in ast.walk(part)}
    return found


def _left_out(statement: ast.stmt) -> bool:
    """Whether it can be left out and the rest still be a program: no docstring, no definition, no block."""
    if isinstance(statement, ast.Expr):
        return not isinstance(statement.value, (ast.Constant, ast.Yield))
    return isinstance(statement, (ast.AugAssign, ast.Raise, ast.Delete, ast.Break, ast.Continue)) or (
        isinstance(statement, ast.Assign) and not isinstance(statement.targets[0], ast.Name)
    )


def _functions(tree: ast.Module) -> Iterator[tuple[str, Function]]:
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            yield node.name, node
        elif isinstance(node, ast.ClassDef):
            methods = (inner for inner in node.body if isinstance(inner, ast.FunctionDef))
            yield from ((f"{node.name}.{method.name}", method) for method in methods)


def mutants(module: str) -> Iterator[Mutant]:
    """Every mutant of a module, in the order of its lines."""
    path = ROOT / "gguf_forge" / "format" / f"{module}.py"
    for name, function in _functions(ast.parse(path.read_text(encoding="utf-8"))):
        skipped = _skipped(function)
        for number, node in enumerate(ast.walk(function)):
            if id(node) in skipped:
                continue
            for what, change in _changes(node):
                other = copy.deepcopy(function)
                change(_numbered(other, number))
                yield f"{module}.py:{getattr(node, 'lineno', 0)}: {name}: {what}", other, name
            for block in ("body", "orelse", "finalbody"):
                statements = getattr(node, block, None)
                for at, statement in enumerate(statements if isinstance(statements, list) else ()):
                    if _left_out(statement):
                        other = copy.deepcopy(function)
                        getattr(_numbered(other, number), block)[at] = ast.Pass()
                        yield f"{module}.py:{statement.lineno}: {name}: left out", other, name


def _numbered(function: Function, number: int) -> Any:
    return next(node for at, node in enumerate(ast.walk(function)) if at == number)


def _original(module: str, name: str) -> types.FunctionType:
    """The function object, out of what wraps it."""
    found: Any = importlib.import_module(f"gguf_forge.format.{module}")
    for part in name.split("."):
        found = inspect.getattr_static(found, part)
    for inner in ("fget", "func", "__func__", "__wrapped__"):
        found = getattr(found, inner, None) or found
    assert isinstance(found, types.FunctionType), name
    return found


def _code(module: str, changed: Function, original: types.FunctionType) -> types.CodeType:
    """The changed function's code, with the names of a class around it where the original has them."""
    plain = copy.copy(changed)
    plain.decorator_list = []
    text: ast.stmt = plain
    if "." in original.__qualname__:
        text = ast.parse(f"class {original.__qualname__.split('.')[0]}: pass").body[0]
        assert isinstance(text, ast.ClassDef)
        text.body = [plain]
    tree = ast.Module([ast.ImportFrom("__future__", [ast.alias("annotations")], 0), text], [])
    code = compile(ast.fix_missing_locations(tree), f"{module}.py", "exec")
    while code.co_name != changed.name:
        code = next(c for c in code.co_consts if isinstance(c, types.CodeType))
    return code


def _in_child(work: Callable[[], Any]) -> tuple[int, Any]:
    """Runs `work` in a forked process: its status, and what it gives."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.close(read)
        with os.fdopen(write, "wb") as out:
            pickle.dump(work(), out)
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as held:
        raw = held.read()
    return os.waitpid(child, 0)[1], pickle.loads(raw) if raw else None


class Mutation:
    """A plugin of pytest: once tests are collected, mutants take the place of the run."""

    def __init__(self, modules: tuple[str, ...], every: int) -> None:
        self.modules, self.every = modules, every
        self.noticed, self.survivors = 0, list[str]()

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Learns which tests call which function, then tries each mutant."""
        calls = self._known(session.items)
        number = 0
        for module in self.modules:
            before = self.noticed, len(self.survivors)
            for what, function, name in mutants(module):
                number += 1
                if number % self.every:
                    continue
                original = _original(module, name)
                took = calls.get((original.__code__.co_filename, original.__code__.co_firstlineno), [])
                chosen, total = list[pytest.Item](), 0.0
                for seconds, index in sorted(took):
                    total += seconds
                    if chosen and total > CHOSEN:
                        break
                    chosen.append(session.items[index])
                if self._noticed(module, function, original, chosen):
                    self.noticed += 1
                else:
                    self.survivors.append(what)
                    say(what)
            noticed = self.noticed - before[0]
            say(f"{module}: {noticed} of {noticed + len(self.survivors) - before[1]}")
        return True

    def _known(self, items: list[pytest.Item]) -> Calls:
        """Which tests call which function; kept in build/ for as long as neither is changed."""
        stamp = hashlib.sha256(repr([item.nodeid for item in items]).encode())
        for path in sorted([*(ROOT / "tests" / "format").glob("*.py"), *(ROOT / "gguf_forge" / "format").glob("*.py")]):
            stamp.update(path.read_bytes())
        kept = ROOT / "build" / "mutants" / stamp.hexdigest()
        if kept.exists():
            return dict(pickle.loads(kept.read_bytes()))
        status, learnt = _in_child(lambda: self._learn(items))
        assert status == 0, status
        calls, failed = learnt
        if failed:
            raise pytest.UsageError(f"fails without a mutant: {failed[0]}")
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_bytes(pickle.dumps(dict(calls)))
        return dict(calls)

    def _learn(self, items: list[pytest.Item]) -> tuple[Calls, list[str]]:
        calls: Calls = defaultdict(list)
        failed = []
        seen: set[types.CodeType] = set()

        def profile(frame: types.FrameType, event: str, _: object) -> None:
            if event == "call":
                seen.add(frame.f_code)

        for index, item in enumerate(items):
            seen.clear()
            start = time.process_time()
            threading.setprofile(profile)
            sys.setprofile(profile)
            reports = runtestprotocol(item, log=False, nextitem=None)
            sys.setprofile(None)
            seconds = time.process_time() - start
            failed += [item.nodeid for report in reports if report.failed]
            for code in seen:
                if "gguf_forge" in code.co_filename:
                    calls[code.co_filename, code.co_firstlineno].append((seconds, index))
        return calls, failed

    def _noticed(self, module: str, changed: Function, original: types.FunctionType, items: list[pytest.Item]) -> bool:
        def work() -> bool:
            spent = int(time.process_time()) + HANG
            resource.setrlimit(resource.RLIMIT_CPU, (spent, spent))
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
            original.__code__ = _code(module, changed, original)
            for item in items:
                if any(report.failed for report in runtestprotocol(item, log=False, nextitem=None)):
                    return True
            return False

        status, noticed = _in_child(work)
        return bool(status) or noticed


#: Where lines go: pytest catches what is written to its own.
_OUT = os.dup(1)


def say(line: str) -> None:
    """A line that pytest does not catch."""
    os.write(_OUT, f"{line}\n".encode())


def main(names: list[str]) -> int:
    """Tries the mutants, and prints the score."""
    os.environ["CI"] = "1"  # the same examples every time
    plugin = Mutation(tuple(names) or MODULES, int(os.environ.get("EVERY", "1")))
    words = ["-q", "-p", "no:cacheprovider", "-p", "no:benchmark", "-o", "addopts=", str(ROOT / "tests" / "format")]
    words += [f"--deselect=tests/format/{test}" for test in LEFT_OUT]
    pytest.main(words, plugins=[plugin])
    count = plugin.noticed + len(plugin.survivors)
    say(f"{plugin.noticed} of {count} mutants noticed: {100 * plugin.noticed / max(1, count):.1f} %")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
