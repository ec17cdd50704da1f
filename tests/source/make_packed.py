"""Makes fixtures/packed: of real quantized checkpoints the tensors of one small layer, with what their libraries read.

`python -m tests.source.make_packed ZOO TRUTH.json`: ZOO holds a folder for each checkpoint; TRUTH.json says of each
quantized tensor its shape and the SHA-256 of its float32 values.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

from gguf_forge.source.checkpoint import open_checkpoint

PACKED = Path(__file__).resolve().parents[2] / "fixtures/packed"
LAYER = "model.layers.0.self_attn.k_proj"
#: Files beside config.json that say how weights are quantized.
BESIDE = ("quantize_config.json", "hf_quant_config.json", "quanto_qmap.json")
KEPT = ("architectures", "hidden_size", "quantization", "quantization_config")


def main(zoo: Path, truth: Path) -> None:
    known = json.loads(truth.read_text())
    shutil.rmtree(PACKED, ignore_errors=True)
    facts: dict[str, Any] = {}
    for name, said in sorted(known.items()):
        folder = zoo / name
        if LAYER not in said["tensors"] or not folder.is_dir():
            continue
        tensor = said["tensors"][LAYER]
        odd = folder / "output.safetensors"
        _cut(odd if odd.exists() else folder, folder, PACKED / name)
        facts[name] = {"library": said["library"], "shape": tensor["shape"], "sha256": tensor["sha256_f32"]}
    (PACKED / "truth.json").write_text(json.dumps(facts, indent=1) + "\n")


def _cut(source: Path, folder: Path, into: Path) -> None:
    into.mkdir(parents=True)
    with open_checkpoint(source) as checkpoint:
        ours = {n: t for n, t in checkpoint.tensors.items() if n.startswith(LAYER) and not n.endswith(".bias")}
        header: dict[str, Any] = {}
        data = b""
        for name, tensor in ours.items():
            stored = tensor.file.read(tensor.offset, tensor.nbytes)
            header[name] = {
                "dtype": tensor.dtype,
                "shape": list(tensor.shape),
                "data_offsets": [len(data), len(data) + len(stored)],
            }
            data += stored
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        (into / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + data)
        config = {key: checkpoint.config[key] for key in KEPT if key in checkpoint.config}
    (into / "config.json").write_text(json.dumps(_without_paths(config), indent=1) + "\n")
    for name in BESIDE:
        if (folder / name).exists() and "quantization_config" not in config:
            shutil.copy(folder / name, into / name)


def _without_paths(value: Any) -> Any:
    """Settings without the paths of the machine that made the checkpoint."""
    if not isinstance(value, dict):
        return value
    return {k: _without_paths(v) for k, v in value.items() if not (isinstance(v, str) and v.startswith("/"))}


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
