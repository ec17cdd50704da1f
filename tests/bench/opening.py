"""Opening a file with a large vocabulary and listing its keys, types and tensors, against gguf-py's reader."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

import numpy as np

import gguf_forge
from tests.bench.report import Report, seconds

VOCABULARIES = {"Llama 3 (128k tokens, 280k merges)": (128256, 280147), "Gemma (256k tokens)": (262144, 0)}


def bench(report: Report, folder: Path) -> None:
    report.section(
        "Opening",
        "Open, and list every key with its type and every tensor with type and shape; then all tokens as `list[str]`.",
    )
    report.table("vocabulary", ">open, ms", ">gguf-py, ms", ">times faster", ">tokens, ms")
    for name, (tokens, merges) in VOCABULARIES.items():
        path = folder / "vocabulary.gguf"
        write(path, tokens, merges)
        ours = seconds(partial(listed, path))
        start = time.perf_counter()
        theirs_listed(path)
        theirs = time.perf_counter() - start
        strings = seconds(partial(tokens_of, path)) - ours
        report.row(name, f"{1e3 * ours:.1f}", f"{1e3 * theirs:.0f}", f"{theirs / ours:.0f}", f"{1e3 * strings:.0f}")
        path.unlink()


def words(count: int, seed: int) -> list[str]:
    generator = np.random.default_rng(seed)
    lengths = generator.integers(1, 14, count)
    letters = generator.integers(97, 123, int(lengths.sum())).astype(np.uint8).tobytes().decode()
    ends = np.cumsum(lengths)
    return [f"\u0120{letters[end - n : end]}{i}" for i, (end, n) in enumerate(zip(ends, lengths, strict=True))]


def write(path: Path, tokens: int, merges: int) -> None:
    with gguf_forge.GGUFWriter(path) as writer:
        writer.add("general.architecture", "llama")
        writer.add("tokenizer.ggml.tokens", words(tokens, 1))
        writer.add("tokenizer.ggml.token_type", np.ones(tokens, dtype=np.int32))
        if merges:
            writer.add("tokenizer.ggml.merges", words(merges, 2))
        else:
            writer.add("tokenizer.ggml.scores", np.zeros(tokens, dtype=np.float32))
        for layer in range(26):
            writer.add_tensor(f"blk.{layer}.attn_norm.weight", np.ones(64, dtype=np.float32))


def listed(path: Path) -> int:
    with gguf_forge.open(path) as file:
        keys = [(key, file.metadata.type_of(key)) for key in file.metadata]
        tensors = [(t.name, t.type, t.shape) for t in file.tensors.values()]
        return len(keys) + len(tensors)


def tokens_of(path: Path) -> list[str]:
    with gguf_forge.open(path) as file:
        found: list[str] = file.metadata["tokenizer.ggml.tokens"]
        return found


def theirs_listed(path: Path) -> int:
    import gguf

    reader = gguf.GGUFReader(path)
    keys = [(key, field.types) for key, field in reader.fields.items()]
    tensors = [(t.name, t.tensor_type, tuple(t.shape)) for t in reader.tensors]
    return len(keys) + len(tensors)
