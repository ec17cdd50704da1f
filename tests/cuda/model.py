"""A checkpoint of any size, and what its conversion takes on processors and on GPUs."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import gguf_forge
from tests.cuda.checkout import ROOT
from tests.cuda.plan import FULL, LITTLE

#: Whose vocabulary and configuration it has.
PATTERN = ROOT / "fixtures/models/PyLlama-7M"
RECIPE = "Q4_K_M"
PIECE = 16 << 20


def make_model(folder: Path, nbytes: int) -> Path:
    """A Llama of random BF16 of about so many bytes, at least of one layer."""
    folder.mkdir(parents=True, exist_ok=True)
    config = json.loads((PATTERN / "config.json").read_text(encoding="utf-8"))
    wide = nbytes >= 1 << 28
    hidden, inner = (2048, 5632) if wide else (config["hidden_size"], config["intermediate_size"])
    heads, vocabulary = hidden // 64, config["vocab_size"]
    layer = 4 * hidden * hidden + 3 * hidden * inner
    layers = max(1, round((nbytes / 2 - 2 * vocabulary * hidden) / layer))
    config |= {"hidden_size": hidden, "intermediate_size": inner, "num_hidden_layers": layers}
    config |= {"num_attention_heads": heads, "num_key_value_heads": heads, "head_dim": 64}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    for name in ("tokenizer.model", "tokenizer_config.json", "generation_config.json"):
        shutil.copy(PATTERN / name, folder / name)
    shapes = dict(_shapes(layers, hidden, inner, vocabulary))
    header, at = {}, 0
    for name, shape in shapes.items():
        size = 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    noise = np.random.default_rng(5).standard_normal(8191 * 512, np.float32) * np.float32(0.02)
    bits = (noise.view(np.uint32) >> 16).astype(np.uint16)
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for shape in shapes.values():
            left = int(np.prod(shape))
            while left:
                part = bits[:left]
                file.write(part.tobytes())
                left -= part.size
        file.flush()
        os.fsync(file.fileno())
    return folder


def _shapes(layers: int, hidden: int, inner: int, vocabulary: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield "model.embed_tokens.weight", (vocabulary, hidden)
    for i in range(layers):
        home = f"model.layers.{i}"
        yield f"{home}.input_layernorm.weight", (hidden,)
        yield f"{home}.post_attention_layernorm.weight", (hidden,)
        for part in "qkvo":
            yield f"{home}.self_attn.{part}_proj.weight", (hidden, hidden)
        yield f"{home}.mlp.gate_proj.weight", (inner, hidden)
        yield f"{home}.mlp.up_proj.weight", (inner, hidden)
        yield f"{home}.mlp.down_proj.weight", (hidden, inner)
    yield "model.norm.weight", (hidden,)
    yield "lm_head.weight", (vocabulary, hidden)


def items(_: str, device: int, little: bool) -> dict[str, Callable[[], dict[str, Any]]]:
    """The conversion of a model."""
    return {"model": lambda: _in_a_folder((LITTLE if little else FULL).model, device)}


def _in_a_folder(nbytes: int, device: int) -> dict[str, Any]:
    """In memory where there is room, so that disks do not count, else in build."""
    memory, home = Path("/dev/shm"), ROOT / "build"
    if memory.is_dir() and shutil.disk_usage(memory).free > 4 * nbytes:
        home = memory
    home.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=home, prefix="forge-model-") as folder:
        return {"where": "in memory" if home is memory else "on disk", **convert_model(Path(folder), nbytes, device)}


def convert_model(folder: Path, nbytes: int, device: int) -> dict[str, Any]:
    """Seconds of both conversions in turn, of reading and writing as many bytes, and whether the files are the same."""
    source = make_model(folder / "model", nbytes)
    found: dict[str, Any] = {"bytes": (source / "model.safetensors").stat().st_size, "recipe": RECIPE}
    names = {"cpu": "cpu", "cuda": f"cuda:{device}"}
    little = make_model(folder / "little", 1 << 20)
    for which in names.values():  # what is made once a process is made before
        gguf_forge.convert_checkpoint(little, folder / "little.gguf", RECIPE, device=which)
    took: dict[str, list[float]] = {which: [] for which in names}
    notes: list[str] = []
    for _ in range(2):
        for which, name in names.items():
            began = time.perf_counter()
            made = gguf_forge.convert_checkpoint(source, folder / f"{which}.gguf", RECIPE, device=name)
            took[which].append(time.perf_counter() - began)
            notes = [note for note in made[0].notes if "cuda:" in note]
    found |= {which: min(times) for which, times in took.items()} | {"all": took, "notes": notes}
    found["moved"] = min(_moved(source / "model.safetensors", folder / "moved", made[0].nbytes) for _ in range(2))
    found["equal"] = _same(folder / "cpu.gguf", folder / "cuda.gguf")
    return found


def _moved(source: Path, to: Path, nbytes: int) -> float:
    """Seconds that it takes to read a file, and to write so many bytes until they are on disk, one after the other."""
    buffer: NDArray[np.uint8] = np.empty(PIECE, np.uint8)
    began = time.perf_counter()
    with source.open("rb", buffering=0) as file:
        while file.readinto(buffer):
            pass
    with to.open("wb", buffering=0) as file:
        for at in range(0, nbytes, PIECE):
            file.write(buffer[: min(PIECE, nbytes - at)])
        os.fsync(file.fileno())
    return time.perf_counter() - began


def _same(one: Path, other: Path) -> bool:
    a, b = (np.memmap(path, np.uint8, "r") for path in (one, other))
    return a.shape == b.shape and all((a[i : i + PIECE] == b[i : i + PIECE]).all() for i in range(0, a.size, PIECE))
