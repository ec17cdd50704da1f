"""Checkpoints that are quantized already, beside `cp` of what is read and written.

BENCH_IMPORT_MEGABYTES sets the size of the checkpoints, BENCH_IMPORT_ROUNDS how often each is converted and copied, in
turns. BENCH_IMPORT_FORMATS names some of the formats, for a look at those alone.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from tests.bench.conversion import THREADS, warm
from tests.bench.make_checkpoint import PRE, config_of, copy_tokenizer
from tests.bench.report import Report, Run, run

WIDTH, FORWARD, KEYS, GROUP = 4096, 11008, 1024, 128
Tensors = dict[str, np.ndarray[Any, Any]]


def bench(report: Report, folder: Path) -> None:
    megabytes = float(os.environ.get("BENCH_IMPORT_MEGABYTES", "1000"))
    rounds = int(os.environ.get("BENCH_IMPORT_ROUNDS", "5"))
    report.section(
        "Quantized checkpoints",
        f"Random checkpoints of {megabytes / 1000:.1f} GB, {THREADS} threads, files in the page cache: `convert` "
        "beside `cp` of what is read and of what is written, alone and until both are on the disk, as a file is that "
        "`convert` has made. Such a `cp` reads and writes twice as many bytes as `convert` does. Medians of "
        f"{rounds} runs in turns, and of their ratios.",
    )
    report.table("checkpoint", "options", ">seconds", ">peak MB", ">cp", ">cp, flushed", ">times that")
    wanted = os.environ.get("BENCH_IMPORT_FORMATS", " ".join(FORMATS)).split()
    for name, (layer, settings, runs) in ((name, FORMATS[name]) for name in wanted):
        place = folder / f"Bench-{name}"
        _make(place, layer, settings, int(megabytes * 1e6))
        warm(place)
        for options in runs:
            turns = [_turn(place, folder, options) for _ in range(rounds)]
            done, copied, flushed = (median(turn[i].seconds for turn in turns) for i in range(3))
            times = median(turn[0].seconds / turn[2].seconds for turn in turns)
            peak = max(turn[0].megabytes for turn in turns)
            seconds = (f"{figure:.2f}" for figure in (copied, flushed, times))
            report.row(name, options, f"{done:.2f}", f"{peak:.0f}", *seconds)
        shutil.rmtree(place)


def _turn(place: Path, folder: Path, options: str) -> tuple[Run, Run, Run]:
    """A conversion, copying what it reads and what it writes, and copying both until they are on the disk."""
    target, weights, copies = folder / "out.gguf", place / "model.safetensors", (folder / "copy-1", folder / "copy-2")
    forge: list[str | Path] = [sys.executable, "-m", "gguf_forge", "convert", place, "-q", "-o", target]
    run(["sync"])
    done = run([*forge, *options.split(), "--threads", THREADS, "--pre", PRE])
    words: list[str | Path] = ["sh", weights, copies[0], target, copies[1]]
    copied = []
    for flush in ("", ' && sync "$2" "$4"'):
        run(["sync"])
        both = run(["sh", "-c", f'cp "$1" "$2" && cp "$3" "$4"{flush}', *words])
        copied.append(both)
        for path in copies:
            path.unlink()
    target.unlink()
    return done, copied[0], copied[1]


def _words(rng: np.random.Generator, *shape: int) -> np.ndarray[Any, np.dtype[np.int32]]:
    return rng.integers(-(2**31), 2**31, shape, dtype=np.int32)


def _scales(rng: np.random.Generator, *shape: int) -> np.ndarray[Any, np.dtype[np.float16]]:
    return rng.uniform(0.001, 0.01, shape).astype(np.float16)


def _gptq(rng: np.random.Generator, out: int, width: int) -> Tensors:
    groups = width // GROUP
    return {
        "qweight": _words(rng, width // 8, out),
        "qzeros": np.full((groups, out // 8), 0x77777777, np.int32),
        "scales": _scales(rng, groups, out),
        "g_idx": (np.arange(width) // GROUP).astype(np.int32),
    }


def _awq(rng: np.random.Generator, out: int, width: int) -> Tensors:
    groups = width // GROUP
    return {
        "qweight": _words(rng, width, out // 8),
        "qzeros": _words(rng, groups, out // 8),
        "scales": _scales(rng, groups, out),
    }


def _compressed(rng: np.random.Generator, out: int, width: int) -> Tensors:
    return {
        "weight_packed": _words(rng, out, width // 8),
        "weight_scale": _scales(rng, out, width // GROUP),
        "weight_shape": np.array([out, width], np.int64),
    }


def _mlx(rng: np.random.Generator, out: int, width: int) -> Tensors:
    return {
        "weight": _words(rng, out, width // 8).view(np.uint32),
        "scales": _scales(rng, out, width // 64),
        "biases": _scales(rng, out, width // 64),
    }


def _fp8(rng: np.random.Generator, out: int, width: int) -> Tensors:
    codes = rng.integers(0, 0x7E, (out, width), dtype=np.uint8)
    scale = rng.uniform(1e-4, 1e-3, (-(-out // 128), -(-width // 128))).astype(np.float32)
    return {"weight": codes, "weight_scale_inv": scale}


Layer = Callable[[np.random.Generator, int, int], Tensors]
_SCHEME = {"num_bits": 4, "type": "int", "symmetric": True, "strategy": "group", "group_size": GROUP}
FORMATS: dict[str, tuple[Layer, dict[str, Any], tuple[str, ...]]] = {
    "gptq": (_gptq, {"quant_method": "gptq", "bits": 4, "group_size": GROUP}, ("--type auto",)),
    "awq": (
        _awq,
        {"quant_method": "awq", "bits": 4, "group_size": GROUP, "version": "gemm"},
        ("--type auto", "--prefer small"),
    ),
    "compressed-tensors": (
        _compressed,
        {
            "quant_method": "compressed-tensors",
            "format": "pack-quantized",
            "config_groups": {"all": {"targets": ["Linear"], "weights": _SCHEME}},
        },
        ("--type auto",),
    ),
    "mlx": (_mlx, {"bits": 4, "group_size": 64}, ("--type auto",)),
    "fp8": (_fp8, {"quant_method": "fp8", "weight_block_size": [128, 128]}, ("--type bf16", "--type Q8_0")),
}


def _make(folder: Path, layer: Layer, settings: dict[str, Any], size: int) -> None:
    """A Qwen3 of as many layers as make about `size` bytes."""
    rng = np.random.default_rng(0)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    tensors: Tensors = {
        "model.embed_tokens.weight": rng.standard_normal((4096, WIDTH)).astype(np.float16),
        "lm_head.weight": rng.standard_normal((4096, WIDTH)).astype(np.float16),
        "model.norm.weight": np.ones(WIDTH, np.float16),
    }
    layers = 0
    while sum(t.nbytes for t in tensors.values()) < size:
        at = f"model.layers.{layers}"
        shapes = {
            "self_attn.q_proj": (WIDTH, WIDTH),
            "self_attn.k_proj": (KEYS, WIDTH),
            "self_attn.v_proj": (KEYS, WIDTH),
            "self_attn.o_proj": (WIDTH, WIDTH),
            "mlp.gate_proj": (FORWARD, WIDTH),
            "mlp.up_proj": (FORWARD, WIDTH),
            "mlp.down_proj": (WIDTH, FORWARD),
        }
        for name, (out, width) in shapes.items():
            tensors |= {f"{at}.{name}.{end}": values for end, values in layer(rng, out, width).items()}
        for name in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"{at}.{name}.weight"] = np.ones(WIDTH, np.float16)
        layers += 1
    config = config_of(layers, "dense") | {
        "hidden_size": WIDTH,
        "intermediate_size": FORWARD,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "quantization_config" if "quant_method" in settings else "quantization": settings,
    }
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    copy_tokenizer(folder, "dense")
    _write(folder / "model.safetensors", tensors)


_NAMES = {"<i4": "I32", "<u4": "U32", "<i8": "I64", "<f2": "F16", "<f4": "F32", "|u1": "F8_E4M3"}


def _write(path: Path, tensors: Tensors) -> None:
    """A safetensors file; bytes are 8-bit floats, which NumPy has no name for."""
    header: dict[str, Any] = {}
    at = 0
    for name, values in tensors.items():
        end = at + values.nbytes
        header[name] = {"dtype": _NAMES[values.dtype.str], "shape": values.shape, "data_offsets": [at, end]}
        at = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for values in tensors.values():
            file.write(np.ascontiguousarray(values).data)
