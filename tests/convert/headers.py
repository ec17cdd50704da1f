"""Checkpoints as headers: configuration, tensor names, types and shapes, and what the reference makes of them.

Weights are left out, so that planning can be tested without them; one file a case. To add one:

    python -m tests.convert.headers CHECKPOINT RESULT [NAME [OPTION...]]

CHECKPOINT is a folder, RESULT what the reference made of it: a .gguf file (under the OPTIONs, if any), or its full
manifest (JSON with `args`, `kv` and `tensors`). The case goes to fixtures/headers/NAME.json; without NAME it is called
as the checkpoint.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from gguf_forge.convert.arch import Arch
from gguf_forge.convert.config import resolve
from gguf_forge.convert.facts import Facts, Options
from gguf_forge.convert.model import VERSION_KEY
from gguf_forge.convert.patterns import form_of
from gguf_forge.convert.plan import rename
from gguf_forge.convert.registry import find, select
from gguf_forge.convert.target import target_config, with_target
from gguf_forge.convert.unconfigured import supply_config
from gguf_forge.format import reader
from gguf_forge.source.checkpoint import Checkpoint, open_checkpoint
from gguf_forge.source.dtypes import DTYPES
from gguf_forge.source.input_file import InputFile
from gguf_forge.source.merged import merge_adapter
from gguf_forge.source.packed import AnyTensor
from gguf_forge.source.tensor import SourceTensor

FOLDER = Path(__file__).resolve().parents[2] / "fixtures" / "headers"
#: Files besides config.json on which planning depends; large ones only by their being there.
FILES = ("modules.json", "1_Pooling/config.json", "params.json", "dflash_config.json")
PRESENT = ("tokenizer.model", "helper/shim.py")
#: Those that are no texts, which a case holds in hexadecimal.
BYTES = ("mask_embedding.pt",)
#: Names the model that the checkpoint, an adapter, is merged into; our option.
MERGED = "--merge-into"
#: What the reference calls its options, and ours.
OPTIONS: dict[str, dict[str, Any]] = {
    "--mtp": {"mtp": "only"},
    "--no-mtp": {"mtp": "drop"},
    "--no-nextn": {"mtp": "drop"},
    "--dspark": {"draft": True},
    "--mistral-format": {"mistral_format": True},
    "--disable-mistral-community-chat-template": {"community_template": False},
    "--sentence-transformers-dense-modules": {"dense_modules": True},
    "--fuse-gate-up-exps": {"fuse_gate_up": True},
    "--fuse-qkv": {"fuse_qkv": True},
}


def options_of(args: list[str], models: Path) -> Options:
    """The reference's options in our words; `@models/NAME` is a checkpoint beside the one converted."""
    found = {key: value for arg in args if arg in OPTIONS for key, value in OPTIONS[arg].items()}
    if "--target-model-dir" in args:
        target = args[args.index("--target-model-dir") + 1]
        found["target"] = models / target.removeprefix("@models/")
    return Options(**found)


@dataclass(frozen=True)
class Held:
    """The bytes of one tensor, where a file is read from."""

    data: bytes

    def read_into(self, array: np.ndarray[Any, Any], offset: int) -> None:
        """As `InputFile.read_into`."""
        array.reshape(-1)[:] = np.frombuffer(self.data, array.dtype, array.size, offset)


@dataclass(frozen=True)
class Case:
    """One checkpoint without weights, and the reference's keys, tensors and computed values.

    `differs`, written by hand, says where ours are others on purpose, and `why`: keys it lacks (`without`), has with
    another value or beside the reference's (`instead`, as in `keys`), computed tensors with other values (`computed`),
    `tensors` beside the reference's, or an `error` (a regular expression) in place of a file. `refused` says why
    llama.cpp refuses the shapes. `values` holds the bytes, in hexadecimal, of small tensors whose values become
    metadata.
    """

    name: str
    config: dict[str, Any]
    files: dict[str, str]
    source: list[tuple[str, str, list[int]]]
    keys: list[tuple[str, str, Any]]
    tensors: list[tuple[str, list[int]]]
    computed: dict[str, str]
    args: list[str] = field(default_factory=list)
    differs: dict[str, Any] = field(default_factory=dict)
    values: dict[str, str] = field(default_factory=dict)

    def headers(self) -> dict[str, SourceTensor]:
        """Source tensors that know everything but their values, save those of `values`."""

        def tensor(name: str, dtype: str, shape: list[int]) -> SourceTensor:
            file = cast(InputFile, Held(bytes.fromhex(self.values[name])) if name in self.values else None)
            return SourceTensor(name, DTYPES[dtype], tuple(shape), file, 0)

        return {name: tensor(name, dtype, shape) for name, dtype, shape in self.source}

    def lay_out(self, folder: Path) -> None:
        """Writes the small files."""
        for name, text in self.files.items():
            (folder / name).parent.mkdir(exist_ok=True)
            if name in BYTES:
                (folder / name).write_bytes(bytes.fromhex(text))
            else:
                (folder / name).write_text(text, encoding="utf-8")

    def facts(self, folder: Path) -> Facts:
        """The facts of the small files laid out in a folder."""
        self.lay_out(folder)
        options = options_of(self.args, folder)
        if options.target is not None and not options.target.is_dir():
            options = replace(options, target=None)
        return Facts(resolve(self.config), folder, options=options, target=target_config(options))

    @property
    def arch(self) -> Arch:
        """The architecture that serves it."""
        return select(self.config, draft=options_of(self.args, Path()).draft)


def load(folder: Path = FOLDER) -> dict[str, Case]:
    """The cases by name."""
    return {path.stem: Case(**json.loads(path.read_text(encoding="utf-8"))) for path in sorted(folder.glob("*.json"))}


def save(case: Case, folder: Path = FOLDER) -> None:
    """Writes a case: a line for each tensor and key, so that changes can be read."""
    lines = []
    for name, value in asdict(case).items():
        if isinstance(value, list) and value:
            rows = ",\n".join("  " + json.dumps(row, ensure_ascii=False) for row in value)
            lines.append(f"{json.dumps(name)}: [\n{rows}\n]")
        else:
            lines.append(f"{json.dumps(name)}: {json.dumps(value, ensure_ascii=False)}")
    text = "{\n" + ",\n".join(lines) + "\n}\n"
    (folder / f"{case.name}.json").write_text(text, encoding="utf-8")


def plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value


def pack(checkpoint: Path, result: Path, name: str | None = None, *args: str) -> Case:
    """The case of one checkpoint; `args` are the reference's options where the result does not tell."""
    keys, tensors, computed, found = (_from_gguf if result.suffix == ".gguf" else _from_manifest)(result)
    args = (*found, *args)
    options = options_of([*args], checkpoint.parent)
    model = Path(args[args.index(MERGED) + 1]) if MERGED in args else checkpoint
    with open_checkpoint(model, native="--mistral-format" in args) as source:
        if model != checkpoint:
            merge_adapter(source, checkpoint)
            args = (MERGED, model.name)
        supply_config(source)
        files = {n: (checkpoint / n).read_text(encoding="utf-8") for n in FILES if (checkpoint / n).is_file()}
        files |= {n: (checkpoint / n).read_bytes().hex() for n in BYTES if (checkpoint / n).is_file()}
        if options.target is not None:
            files[f"{options.target.name}/config.json"] = (options.target / "config.json").read_text(encoding="utf-8")
        return Case(
            name or checkpoint.name,
            source.config,
            _reranker(checkpoint) | files | {n: "" for n in PRESENT if (checkpoint / n).is_file()},
            [(name, t.dtype, list(t.shape)) for name, t in _with_target(source, options).items()],
            _of_architecture(keys),
            tensors,
            computed,
            [*args],
            values=_looked_at(source),
        )


def _with_target(source: Checkpoint, options: Options) -> Mapping[str, AnyTensor]:
    arch = find(source.config, draft=options.draft)
    facts = Facts(resolve(source.config), source.path, options=options, target=target_config(options))
    return source.tensors if arch is None else with_target(arch, source, facts)


def _of_architecture(keys: list[tuple[str, str, Any]]) -> list[tuple[str, str, Any]]:
    """The keys that planning states: those of the vocabulary come after the last of general.*."""
    names = [key[0] for key in keys]
    last = names.index(VERSION_KEY) if VERSION_KEY in names else len(keys)
    return [key for key in keys[:last] if not key[0].startswith(("general.", "tokenizer."))]


def _looked_at(source: Checkpoint) -> dict[str, str]:
    arch = find(source.config)
    if arch is None or not arch.looks:
        return {}
    forms = {form_of(re.sub(r"\{[a-z]+\}", "0", look)) for look in arch.looks}
    stored, _ = rename(arch, source.tensors, Facts(resolve(source.config), source.path))
    return {s: source.tensors[s].read().tobytes().hex() for name, s in stored.items() if form_of(name) in forms}


Result = tuple[list[tuple[str, str, Any]], list[tuple[str, list[int]]], dict[str, str], list[str]]


def _from_gguf(path: Path) -> Result:
    with reader.open(path) as file:
        keys = [(k, file.metadata.type_of(k).name, plain(file.metadata[k])) for k in file.metadata]
        tensors = [(t.name, list(t.shape)) for t in file.tensors.values()]
        computed = {
            t.name: hashlib.sha256(t.data.tobytes()).hexdigest()[:16]
            for t in file.tensors.values()
            if t.name.startswith("rope_")
        }
    return keys, tensors, computed, []


def _from_manifest(path: Path) -> Result:
    full = json.loads(path.read_text(encoding="utf-8", errors="surrogatepass"))
    keys = [(e["key"], e["type"], e["value"] if "value" in e else e.get("head")) for e in full["kv"]]
    tensors = [(e["name"], e["dims"][::-1]) for e in full["tensors"]]
    computed = {e["name"]: e["sha256"][:16] for e in full["tensors"] if e["name"].startswith("rope_")}
    return keys, tensors, computed, full.get("args", [])


def _reranker(checkpoint: Path) -> dict[str, str]:
    """Of a reranker known by its model card, the card and the part of the vocabulary that planning looks for."""
    card = checkpoint / "README.md"
    if not card.is_file() or "-reranker" not in (text := card.read_text(encoding="utf-8")).lower():
        return {}
    tokens = json.loads((checkpoint / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    return {"README.md": text, "vocab.json": json.dumps({word: tokens[word] for word in ("yes", "no")})}


if __name__ == "__main__":
    save(pack(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:]))
