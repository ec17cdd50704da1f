"""Checkpoints as headers: configuration, tensor names, types and shapes, and what the reference makes of them.

`python -m tests.convert.headers OUT.json.xz FOLDER` packs them: FOLDER has CASE/ (a checkpoint) and CASE.gguf (what
convert_hf_to_gguf.py made of it). Weights are left out, so that planning can be tested without them.
"""

from __future__ import annotations

import hashlib
import json
import lzma
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from gguf_forge.format import reader
from gguf_forge.source.checkpoint import open_checkpoint
from gguf_forge.source.dtypes import DTYPES
from gguf_forge.source.input_file import InputFile
from gguf_forge.source.tensor import SourceTensor

#: Files besides config.json on which planning depends; large ones only by their being there.
FILES = ("modules.json", "1_Pooling/config.json")
PRESENT = ("tokenizer.model",)


@dataclass(frozen=True)
class Case:
    """One checkpoint without weights, and the reference's keys, tensors and computed values."""

    name: str
    config: dict[str, Any]
    files: dict[str, str]
    source: list[tuple[str, str, list[int]]]
    keys: list[tuple[str, str, Any]]
    tensors: list[tuple[str, list[int]]]
    computed: dict[str, str]

    def headers(self) -> dict[str, SourceTensor]:
        """Source tensors that know everything but their values."""
        nowhere = cast(InputFile, None)
        return {n: SourceTensor(n, DTYPES[dtype], tuple(shape), nowhere, 0) for n, dtype, shape in self.source}

    def lay_out(self, folder: Path) -> None:
        """Writes the small files."""
        for name, text in self.files.items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(text, encoding="utf-8")


def load(path: Path) -> dict[str, Case]:
    """The cases of a packed file, by name."""
    found = json.loads(lzma.decompress(path.read_bytes()))
    return {case["name"]: Case(**case) for case in found}


def plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value


def _reranker(checkpoint: Path) -> dict[str, str]:
    """Of a reranker known by its model card, the card and the part of the vocabulary that planning looks for."""
    card = checkpoint / "README.md"
    if not card.is_file() or "-reranker" not in (text := card.read_text(encoding="utf-8")).lower():
        return {}
    tokens = json.loads((checkpoint / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    return {"README.md": text, "vocab.json": json.dumps({word: tokens[word] for word in ("yes", "no")})}


def pack(folder: Path) -> list[dict[str, Any]]:
    cases = []
    for result in sorted(folder.glob("*.gguf")):
        checkpoint = folder / result.stem
        with reader.open(result) as file, open_checkpoint(checkpoint) as source:
            keys = [k for k in file.metadata if not k.startswith(("general.", "tokenizer."))]
            texts = _reranker(checkpoint) | {
                n: (checkpoint / n).read_text(encoding="utf-8") for n in FILES if (checkpoint / n).is_file()
            }
            cases.append(
                {
                    "name": result.stem,
                    "config": source.config,
                    "files": texts | {n: "" for n in PRESENT if (checkpoint / n).is_file()},
                    "source": [[t.name, t.dtype, list(t.shape)] for t in source.tensors.values()],
                    "keys": [[k, file.metadata.type_of(k).name, plain(file.metadata[k])] for k in keys],
                    "tensors": [[t.name, list(t.shape)] for t in file.tensors.values()],
                    "computed": {
                        t.name: hashlib.sha256(t.data.tobytes()).hexdigest()[:16]
                        for t in file.tensors.values()
                        if t.name.startswith("rope_")
                    },
                }
            )
    return cases


if __name__ == "__main__":
    packed = json.dumps(pack(Path(sys.argv[2])), ensure_ascii=False, separators=(",", ":"))
    Path(sys.argv[1]).write_bytes(lzma.compress(packed.encode(), preset=9 | lzma.PRESET_EXTREME))
