"""The names under which the reference's converter registers text models, from its sources.

    python -m tests.convert.make_registered LLAMA_CPP... > fixtures/registered.txt

Each LLAMA_CPP is a tree of llama.cpp with its conversion package, which is parsed and never run: every class with
`ModelBase.register` that descends from TextModel, or not from MmprojModel.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

PROJECTORS = "MmprojModel"


def registered(tree: Path) -> set[str]:
    """The names of one tree."""
    classes: dict[str, list[ast.ClassDef]] = {}
    for path in sorted((tree / "conversion").glob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef):
                classes.setdefault(node.name, []).append(node)
    bases = {name: {b.id for n in found for b in n.bases if isinstance(b, ast.Name)} for name, found in classes.items()}
    texts = (node for name, found in classes.items() if not _descends(name, bases) for node in found)
    return {name for node in texts for name in _names(node.decorator_list)}


def _descends(name: str, bases: Mapping[str, set[str]]) -> bool:
    return name == PROJECTORS or any(_descends(base, bases) for base in bases.get(name, ()))


def _names(decorators: Iterable[ast.expr]) -> set[str]:
    calls = (d for d in decorators if isinstance(d, ast.Call))
    registers = (c for c in calls if isinstance(c.func, ast.Attribute) and c.func.attr == "register")
    arguments = (argument for call in registers for argument in call.args)
    return {a.value for a in arguments if isinstance(a, ast.Constant) and isinstance(a.value, str)}


if __name__ == "__main__":
    found = {name for tree in sys.argv[1:] for name in registered(Path(tree))}
    sys.stdout.write("".join(f"{name}\n" for name in sorted(found, key=lambda name: (name.lower(), name))))
