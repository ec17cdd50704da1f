"""What quantizing a quantized model again costs, in perplexity: `python -m tests.runtime.perplexity TEXT [WINDOWS]`.

The trained model of fixtures/ is rounded to 4 bits in groups of 32, by the scale of each group's largest weight, and
stored as compressed-tensors does. Perplexity is that of the second halves of windows of 256 tokens, in llama.cpp.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np

import gguf_forge
from gguf_forge.convert.job import Quantization
from tests.convert.test_imported import MODEL, store_in_four_bits
from tests.runtime import llama

WINDOW = 256


def perplexity(model: Path, tokens: list[int], windows: int) -> float:
    """Of the second halves of the first `windows` windows."""
    losses: list[float] = []
    for start in range(0, min(windows * WINDOW, len(tokens) - WINDOW + 1), WINDOW):
        window = tokens[start : start + WINDOW]
        logits = llama.logits(model, window).astype(np.float64)
        logits -= logits.max(axis=1, keepdims=True)
        chosen = logits[np.arange(WINDOW - 1), window[1:]]
        loss = np.log(np.exp(logits[:-1]).sum(axis=1)) - chosen
        losses += loss[WINDOW // 2 - 1 :].tolist()
    return float(np.exp(np.mean(losses)))


def main(text: Path, windows: int) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        source = store_in_four_bits(folder / "model")
        rows = {
            "the model before it was quantized, F32": (MODEL, "f32", Quantization()),
            "the model before it was quantized, NVFP4": (MODEL, "NVFP4", Quantization()),
            "the checkpoint's values, F32": (source, "f32", Quantization()),
            "its codes kept, Q4_0": (source, "auto", Quantization(require="lossless")),
            "its values quantized again, Q4_0": (source, "Q4_0", Quantization(pure=True, requantize=True)),
        }
        tokens: list[int] = []
        for name, (checkpoint, kind, how) in rows.items():
            target = folder / "model.gguf"
            gguf_forge.convert_checkpoint(checkpoint, target, kind, quantization=how)
            tokens = tokens or llama.tokenize(target, [text.read_text(encoding="utf-8")])[0]
            print(f"{perplexity(target, tokens, windows):8.4f}  {name}", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 40)
