"""Writes fixtures/hqq: `python tests/source/make_hqq.py fixtures/hqq`, with hqq 0.2.8 and transformers installed.

A random model of one small layer, quantized and saved by hqq itself in several ways; of its qmodel.pt one projection,
one norm and the output are kept. truth.json holds the SHA-256 of what hqq makes of the projection in float32.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import torch
from hqq.core.quantize import BaseQuantizeConfig, HQQLinear, Quantizer
from hqq.models.hf.base import AutoHQQHFModel
from transformers import LlamaConfig, LlamaForCausalLM

OUT = Path(sys.argv[1])
KEPT = ("model.layers.0.self_attn.k_proj", "model.layers.0.input_layernorm", "lm_head")
WAYS: dict[str, dict[str, Any]] = {
    "4b-g64-ax1": {"nbits": 4, "group_size": 64, "axis": 1},
    "4b-viewasfloat": {"nbits": 4, "group_size": 64, "axis": 1, "view_as_float": True},
    "3b-g64-ax1": {"nbits": 3, "group_size": 64, "axis": 1},
    "2b-g16-ax0": {"nbits": 2, "group_size": 16, "axis": 0},
    "three-values": {"nbits": 1.58, "group_size": 64, "axis": 1},
    "8b-rows": {"nbits": 8, "group_size": None, "axis": 1},
}


def main() -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    truth = {}
    for name, how in WAYS.items():
        torch.manual_seed(7)
        sizes = {"vocab_size": 8, "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1}
        model = LlamaForCausalLM(LlamaConfig(**sizes, num_attention_heads=2, num_key_value_heads=1)).half()
        config = BaseQuantizeConfig(**how)
        AutoHQQHFModel.quantize_model(model, quant_config=config, compute_dtype=torch.float16, device="cpu")
        saved = {k: v for k, v in AutoHQQHFModel.serialize_weights(model).items() if k in KEPT}
        torch.save(saved, OUT / f"{name}.pt")
        module = next(m for n, m in model.named_modules() if n == KEPT[0])
        assert isinstance(module, HQQLinear)
        meta = {k: v.float() if k in ("scale", "zero") else v for k, v in module.meta.items()}
        values = Quantizer.dequantize(module.W_q, meta | {"compute_dtype": torch.float32}).contiguous().numpy()
        truth[name] = {"shape": list(values.shape), "sha256": hashlib.sha256(values.tobytes()).hexdigest()}
    (OUT / "truth.json").write_text(json.dumps(truth, indent=1) + "\n")


if __name__ == "__main__":
    main()
