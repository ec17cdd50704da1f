"""What quantized checkpoints are worth in llama.cpp: `python -m tests.runtime.perplexity TEXT [WINDOWS]`.

The trained model of fixtures/ is stored as each of several tools does (tests/convert/stored_as.py), and read in three
ways: its values as F32, its codes kept, and its values quantized again by the recipe named, as one had to do before.
Perplexity is that of the second halves of windows of 256 tokens.
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np

import gguf_forge
from gguf_forge.convert.job import Quantization
from tests.convert.stored_as import FORMS, MODEL, gptq, store
from tests.convert.test_act_order import down_only
from tests.runtime import llama

WINDOW = 256
_ORDERED = "GPTQ, 4 bits, groups of 32 of down_proj by activation"
#: The recipe of about as many bits, by which values are quantized again.
AGAIN = {"GPTQ, 4 bits, asymmetric, groups of 32": "Q5_0", "AWQ (gemm), groups of 32": "Q5_0"}
AGAIN |= {"compressed-tensors, FP8": "Q8_0", "compressed-tensors, NVFP4": "NVFP4", "bitsandbytes, NF4": "Q8_0"}
AGAIN |= {"MLX, 4 bits, groups of 64": "Q4_1", "HQQ, 4 bits, groups of 64": "Q4_1"}


def perplexity(model: Path, tokens: list[int], windows: int) -> float:
    """Of the second halves of the first `windows` windows."""
    losses: list[float] = []
    starts = range(0, min(windows * WINDOW, len(tokens) - WINDOW + 1), WINDOW)
    texts = [tokens[start : start + WINDOW] for start in starts]
    for window, found in zip(texts, llama.logits_of(model, texts), strict=True):
        logits = found.astype(np.float64)
        logits -= logits.max(axis=1, keepdims=True)
        chosen = logits[np.arange(WINDOW - 1), window[1:]]
        loss = np.log(np.exp(logits[:-1]).sum(axis=1)) - chosen
        losses += loss[WINDOW // 2 - 1 :].tolist()
    return float(np.exp(np.mean(losses)))


def main(text: Path, windows: int) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder, target = Path(scratch), Path(scratch) / "model.gguf"
        tokens: list[int] = []

        def made(source: Path, kind: str, how: Quantization) -> tuple[float, gguf_forge.Planned]:
            (plan,) = gguf_forge.convert_checkpoint(source, target, kind, quantization=how)
            tokens.extend([] if tokens else llama.tokenize(target, [text.read_text(encoding="utf-8")])[0])
            return perplexity(target, tokens, windows), plan

        plain, _ = made(MODEL, "f32", Quantization())
        print(f"{plain:.3f}: the model itself, F32")
        print("| checkpoint | its values | its codes kept | as | quantized again | as |\n|---|---:|---:|---|---:|---|")
        for number, (name, form) in enumerate({**FORMS, _ORDERED: gptq(order=down_only)}.items()):
            source, again = store(folder / str(number), form), AGAIN.get(name, "Q4_0")
            again = "MXFP4_MOE" if "MXFP4" in name else again
            values, _ = made(source, "f32", Quantization())
            kept, plan = made(source, "auto", Quantization())
            ((status, kind),) = Counter((one.status, one.kind) for one in plan.imports)
            anew, _ = made(source, again, Quantization(pure=again != "NVFP4", requantize=True))
            print(f"| {name} | {values:.3f} | {kept:.3f} | {kind}, {status} | {anew:.3f} | {again} |", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 40)
