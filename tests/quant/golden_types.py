"""Which type the reference gave each tensor of small real conversions: names, shapes and types, no hashes.

`python -m tests.quant.golden_types OUT.json.xz NAME.json...` packs full manifests (see fixtures/README.md).
"""

from __future__ import annotations

import json
import lzma
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FILE = Path(__file__).parents[2] / "fixtures" / "golden" / "types.json.xz"
FACTS = ("block_count", "attention.head_count", "attention.head_count_kv", "expert_count", "nextn_predict_layers")


@dataclass(frozen=True)
class GoldenModel:
    """facts: metadata a recipe asks for. shapes: NumPy order, by name, in the converter's order.

    types: for each result (outtype in lower case, recipe in capitals, with "-imatrix" where one was used) the type ids
    by name, in file order. file_types: its general.file_type.
    """

    facts: dict[str, Any]
    shapes: dict[str, tuple[int, ...]]
    types: dict[str, dict[str, int]]
    file_types: dict[str, int]


def load() -> dict[str, GoldenModel]:
    packed = json.loads(lzma.decompress(FILE.read_bytes()))
    return {
        model: GoldenModel(
            entry["facts"],
            {name: tuple(shape) for name, shape in entry["shapes"].items()},
            entry["types"],
            entry["file_types"],
        )
        for model, entry in packed.items()
    }


def pack(sources: list[Path]) -> bytes:
    models: dict[str, Any] = {}
    for source in sources:
        full = json.loads(source.read_text(encoding="utf-8", errors="surrogatepass"))
        if "tensors" not in full:
            continue
        name, _, result = source.name.removesuffix(".json").rpartition(".")
        values = {e["key"]: e.get("value", e.get("head")) for e in full["kv"]}
        arch = values["general.architecture"]
        entry = models.setdefault(name, {"facts": {}, "shapes": {}, "types": {}, "file_types": {}})
        if result == "f32":
            wanted = ["general.architecture", *(f"{arch}.{fact}" for fact in FACTS)]
            entry["facts"] = {key: values[key] for key in wanted if key in values}
            entry["shapes"] = {t["name"]: t["dims"][::-1] for t in full["tensors"]}
        entry["types"][result] = {t["name"]: t["type"] for t in full["tensors"]}
        entry["file_types"][result] = values["general.file_type"]
    return lzma.compress(json.dumps(models, separators=(",", ":")).encode(), preset=9 | lzma.PRESET_EXTREME)


if __name__ == "__main__":
    Path(sys.argv[1]).write_bytes(pack([Path(name) for name in sorted(sys.argv[2:])]))
