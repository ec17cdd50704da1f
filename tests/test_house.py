"""The rules of the house that a machine can check: floors, sizes, and that the README names what exists."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from gguf_forge.cli import COMMANDS

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "gguf_forge"
CONVERTERS = ROOT / "converters"
#: Lowest first. A module imports its own floor and those under it; what is not named here is a tool.
FLOORS = ["errors", "closing", "signals", "system", "_core", "_native", "types", "results", "names"]
FLOORS += ["remote", "format", "quant", "cuda", "source", "convert", "converters"]
TOOLS, CLI, FACADE = len(FLOORS), len(FLOORS) + 1, len(FLOORS) + 2
MAX_FILE, MAX_FUNCTION = 500, 60
#: The one module that may ask which system this is, and call what not every system has.
SYSTEM = PACKAGE / "system.py"
#: What `os` has on Linux, macOS and Windows alike, as far as it is used; `make types` judges each call by the stubs.
EVERYWHERE = {"PathLike", "_exit", "altsep", "close", "devnull", "dup2", "environ", "fsdecode", "fsencode", "fspath"}
EVERYWHERE |= {"fstat", "ftruncate", "getpid", "listdir", "open", "path", "sep", "stat", "stat_result", "strerror"}
EVERYWHERE |= {"write", "O_WRONLY"}
#: Modules of the standard library that some system lacks, and `platform`, which tells systems apart.
NOT_EVERYWHERE = {"_winapi", "fcntl", "grp", "msvcrt", "nt", "platform", "posix", "pty", "pwd", "resource", "termios"}
NOT_EVERYWHERE |= {"tty", "winreg", "winsound"}
#: Data tables, and what else has a reason to be long.
LONG_FILES = {"gguf_forge/whole/check/required.py": "a table, made by a script"}
LONG_FUNCTIONS: dict[str, str] = {}


def module_name(path: Path) -> str:
    if path.is_relative_to(CONVERTERS):
        parts = ("gguf_forge", "converters", *path.relative_to(CONVERTERS).with_suffix("").parts)
    else:
        parts = ("gguf_forge", *path.relative_to(PACKAGE).with_suffix("").parts)
    return ".".join(parts).removesuffix(".__init__")


def floor(module: str) -> int:
    parts = module.split(".")
    if len(parts) == 1:
        return FACADE
    if parts[1] in {"cli", "__main__"}:
        return CLI
    return FLOORS.index(parts[1]) if parts[1] in FLOORS else TOOLS


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """Line and absolute name of each module of ours that the file imports, at any depth."""
    package = module_name(path).split(".")
    if path.name != "__init__.py":
        package = package[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            names = [f"{base}.{alias.name}" if base == "gguf_forge" else base for alias in node.names]
        else:
            continue
        yield from ((node.lineno, name) for name in names if name.split(".")[0] == "gguf_forge")


SOURCES = sorted([*PACKAGE.rglob("*.py"), *CONVERTERS.rglob("*.py")])
TEXTS = sorted(
    [*SOURCES, *(ROOT / "tests").rglob("*.py"), *(p for p in (ROOT / "native").rglob("*.[ch]"))],
)


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_a_module_imports_only_what_lies_under_it(path: Path) -> None:
    here = floor(module_name(path))
    above = [f"line {line}: {name}" for line, name in imported(path) if floor(name) > here]
    assert above == []


def of_one_system(node: ast.AST) -> str | None:
    """What a piece of code asks of its system, or calls, that is not alike everywhere."""
    if isinstance(node, ast.Import):
        return next((alias.name for alias in node.names if alias.name in NOT_EVERYWHERE), None)
    if isinstance(node, ast.ImportFrom):
        return node.module if node.module in {*NOT_EVERYWHERE, "os"} else None
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        name = f"{node.value.id}.{node.attr}"
        return name if name == "sys.platform" or (node.value.id == "os" and node.attr not in EVERYWHERE) else None
    return None


@pytest.mark.parametrize("path", [path for path in SOURCES if path != SYSTEM], ids=module_name)
def test_a_module_is_alike_on_every_system(path: Path) -> None:
    found = [(node, of_one_system(node)) for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))]
    assert [f"line {getattr(node, 'lineno', 0)}: {what}" for node, what in found if what] == []


def test_the_rule_of_systems_sees_what_it_forbids() -> None:
    seen = {what for node in ast.walk(ast.parse(SYSTEM.read_text(encoding="utf-8"))) if (what := of_one_system(node))}
    assert {"fcntl", "msvcrt", "sys.platform", "os.preadv", "os.posix_fallocate", "os.O_NOFOLLOW"} <= seen


@pytest.mark.parametrize("path", TEXTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_file_fits_in_a_head(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").count("\n")
    name = str(path.relative_to(ROOT))
    assert lines <= MAX_FILE or name in LONG_FILES, f"{lines} lines"


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_a_function_fits_on_a_screen(path: Path) -> None:
    name = str(path.relative_to(ROOT))
    long = [
        f"{node.name}: {node.end_lineno - node.lineno + 1} lines"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef)
        and node.end_lineno is not None
        and node.end_lineno - node.lineno >= MAX_FUNCTION
        and f"{name}::{node.name}" not in LONG_FUNCTIONS
    ]
    assert long == []


def test_exemptions_are_in_use() -> None:
    files = {str(p.relative_to(ROOT)) for p in TEXTS}
    assert [name for name in LONG_FILES if name not in files] == []
    assert [name for name in LONG_FUNCTIONS if name.split("::")[0] not in files] == []


def test_readme_names_only_make_targets_that_exist() -> None:
    targets = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = set(re.findall(r"\bmake ([a-z][a-z-]*)", (ROOT / "README.md").read_text(encoding="utf-8")))
    assert named - targets == set()


def test_readme_names_only_commands_and_options_that_exist() -> None:
    lines = re.findall(r"^\$ gguf-forge (.*)", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert lines
    for line in lines:
        name, *words = re.sub(r"\s#\s.*", "", line).split()
        command = importlib.import_module(COMMANDS[name]).command
        known = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in words if word.startswith("-")} - known == set(), line


def test_every_package_is_in_the_wheel() -> None:
    listed = re.search(r"^packages = \[(.*?)\]", (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.S | re.M)
    assert listed is not None
    found = {"gguf_forge.converters"}
    for init in PACKAGE.rglob("__init__.py"):
        found.add(".".join(init.parent.relative_to(ROOT).parts))
    assert set(re.findall(r'"([^"]+)"', listed[1])) == found
