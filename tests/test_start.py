"""What starting loads: how long that takes depends on the machine, so these tests count modules instead of seconds."""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

import gguf_forge
from gguf_forge.cli import COMMANDS

MODEL = Path(__file__).resolve().parent.parent / "fixtures" / "models" / "PyLlama-7M"
#: Runs code in a process that has loaded nothing yet; its last line says what it loaded.
_WATCHED = """
import json, sys
before = set(sys.modules)
{code}
print("\\n" + json.dumps(sorted(set(sys.modules) - before)))
"""
#: Of us, what any command may load to show its help: no file is opened, nothing is computed.
_SHELL = ("gguf_forge.cli", "gguf_forge.errors", "gguf_forge.signals", "gguf_forge.system")


def loaded(code: str) -> tuple[set[str], set[str]]:
    """Modules that code loads in a fresh process: the packages that are neither Python's nor ours, and ours in full."""
    words = [sys.executable, "-c", _WATCHED.format(code=code)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    names: list[str] = json.loads(done.stdout.splitlines()[-1])
    others = {name.split(".")[0] for name in names} - set(sys.stdlib_module_names) - {"gguf_forge"}
    return others, {name for name in names if name.split(".")[0] == "gguf_forge"}


def command(*args: str) -> str:
    return f"from gguf_forge.cli import main; assert main({list(args)!r}) == 0"


def test_importing_the_package_loads_nothing_else() -> None:
    code = "import gguf_forge; assert 'typing' not in set(sys.modules) - before; dir(gguf_forge)"
    assert loaded(code) == (set(), {"gguf_forge"})


def test_an_error_class_is_had_without_numpy() -> None:
    assert loaded("from gguf_forge import ForgeError") == (set(), {"gguf_forge", "gguf_forge.errors"})


@pytest.mark.parametrize("args", [["--help"], *([name, "--help"] for name in COMMANDS)], ids=" ".join)
def test_help_needs_the_parser_of_arguments_only(args: list[str]) -> None:
    others, ours = loaded(command(*args))
    assert others == {"click"}
    assert {name for name in ours if not name.startswith(_SHELL)} == {"gguf_forge"}


def test_a_file_is_inspected_without_what_converts(tmp_path: Path) -> None:
    with gguf_forge.GGUFWriter(tmp_path / "small.gguf", {"general.architecture": "llama"}):
        pass
    others, ours = loaded(command("inspect", str(tmp_path / "small.gguf")))
    assert {"click", "numpy", "rich"} <= others
    assert others & {"tokenizers", "sentencepiece", "safetensors", "yaml", "huggingface_hub"} == set()
    assert {name for name in ours if name.startswith(("gguf_forge.convert", "gguf_forge.source"))} == set()


def test_a_conversion_asks_no_hub(tmp_path: Path) -> None:
    # tokenizers brings huggingface_hub and its HTTP client; nothing here uses them.
    others, _ = loaded(command("convert", str(MODEL), "--dry-run", "--outfile", str(tmp_path / "a.gguf")))
    assert "numpy" in others
    assert others & {"huggingface_hub", "hf_xet", "httpx", "httpx2", "fsspec", "requests", "safetensors"} == set()


@pytest.mark.skipif(not sysconfig.get_config_var("Py_GIL_DISABLED"), reason="this Python has its global lock")
def test_nothing_of_ours_brings_the_global_lock_back() -> None:
    code = "import gguf_forge\nfor name in dir(gguf_forge): getattr(gguf_forge, name)\nassert not sys._is_gil_enabled()"
    assert "numpy" in loaded(code)[0]
