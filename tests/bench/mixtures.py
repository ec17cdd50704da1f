"""Mixtures of experts beside a dense model of the same bytes, and headers of very large models planned.

BENCH_MIXTURE_MEGABYTES sets the size of the checkpoints that are converted. Files of the very large models have holes
in place of weights: only their headers take space.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

from tests.bench.conversion import THREADS, warm
from tests.bench.make_checkpoint import FORMS, PRE, config_of, copy_tokenizer, make
from tests.bench.report import Report, Run, run

#: Layers, width, experts and their width, of models of 671 and 1000 thousand million parameters.
LARGE = {"671B": (61, 7168, 256, 2048), "1T": (61, 7168, 384, 2048)}
SHARD_TENSORS = 700
STACK = (384, 7168, 2048)


def bench(report: Report, folder: Path) -> None:
    megabytes = float(os.environ.get("BENCH_MIXTURE_MEGABYTES", "2000"))
    report.section(
        "Mixtures of experts",
        f"Random checkpoints of {megabytes / 1000:.1f} GB (BF16 safetensors) to Q4_K_M, {THREADS} threads, files in "
        "the page cache: the same bytes as a dense model, as experts stored one by one, as experts fused by layer.",
    )
    report.table("checkpoint", ">seconds", ">peak MB", ">times the dense model's")
    dense = 0.0
    for form in FORMS:
        place = folder / f"Bench-{form}"
        done = converted(make(place, int(megabytes * 1e6), form), folder / "out.gguf")
        dense = dense or done.seconds
        report.row(form, f"{done.seconds:.2f}", f"{done.megabytes:.0f}", f"{done.seconds / dense:.2f}")
        shutil.rmtree(place)
    report.section(
        "Very large models",
        "Headers only, `convert --dry-run --type Q4_K_M`; and one layer of three stacks of 384 experts of 7168 x 2048 "
        f"(11 GB each, all zero) to Q8_0, {THREADS} threads.",
    )
    report.table("model", ">tensors", ">seconds", ">peak MB")
    for name, sizes in LARGE.items():
        place, tensors = hollow(folder / f"Bench-{name}", *sizes)
        done = converted(place, folder / "out.gguf", "--dry-run")
        report.row(name, tensors, f"{done.seconds:.2f}", f"{done.megabytes:.0f}")
        shutil.rmtree(place)
    experts, height, width = STACK
    place, tensors = hollow(folder / "Bench-stack", 1, height, experts, width)
    done = converted(place, folder / "out.gguf", kind="q8_0")
    report.row(f"{experts} x {height} x {width}, three stacks", tensors, f"{done.seconds:.2f}", f"{done.megabytes:.0f}")
    shutil.rmtree(place)


def converted(checkpoint: Path, target: Path, *options: str, kind: str = "Q4_K_M") -> Run:
    if "--dry-run" not in options and checkpoint.name != "Bench-stack":
        warm(checkpoint)
    forge: list[str | Path] = [sys.executable, "-m", "gguf_forge", "convert", checkpoint, "-q", "-o", target]
    done = run([*forge, "--type", kind, "--threads", THREADS, "--pre", PRE, *options])
    target.unlink(missing_ok=True)
    return done


def hollow(folder: Path, layers: int, width: int, experts: int, expert_width: int) -> tuple[Path, int]:
    """A mixture whose files are headers and holes; the folder, and how many tensors it has."""
    config = config_of(layers, "experts")
    config |= {
        "hidden_size": width,
        "num_experts": experts,
        "moe_intermediate_size": expert_width,
        "num_attention_heads": 64,
        "num_key_value_heads": 4,
        "head_dim": width // 64,
    }
    small, queries, keys = width // 64, (width, width), (width // 16, width)
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (4096, width), "lm_head.weight": (4096, width)}
    shapes["model.norm.weight"] = (width,)
    for layer in range(layers):
        at = f"model.layers.{layer}."
        for name, shape in (("q", queries), ("k", keys), ("v", keys), ("o", queries)):
            shapes[f"{at}self_attn.{name}_proj.weight"] = shape
        for name, size in (("self_attn.q_norm", small), ("self_attn.k_norm", small)):
            shapes[f"{at}{name}.weight"] = (size,)
        for name in ("input_layernorm", "post_attention_layernorm"):
            shapes[f"{at}{name}.weight"] = (width,)
        shapes[f"{at}mlp.gate.weight"] = (experts, width)
        for expert in range(experts):
            for piece in ("gate", "up", "down"):
                shape = (width, expert_width) if piece == "down" else (expert_width, width)
                shapes[f"{at}mlp.experts.{expert}.{piece}_proj.weight"] = shape
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    copy_tokenizer(folder, "experts")
    names = list(shapes)
    count = -(-len(names) // SHARD_TENSORS)
    weight_map: dict[str, str] = {}
    for number in range(count):
        part = names[number * SHARD_TENSORS : (number + 1) * SHARD_TENSORS]
        file = f"model-{number + 1:05d}-of-{count:05d}.safetensors"
        _write_hollow(folder / file, {name: shapes[name] for name in part})
        weight_map |= dict.fromkeys(part, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}), encoding="utf-8")
    return folder, len(names)


def _write_hollow(path: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    header, at = {}, 0
    for name, shape in shapes.items():
        nbytes = 2
        for axis in shape:
            nbytes *= axis
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [at, at + nbytes]}
        at += nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + at)
