"""What is known of checkpoints that llama.cpp does not run as transformers does, and why. Data only."""

_LAYERS = "llama.cpp knows a DeepSeek 2 without q_lora_rank by its 26, 27 or 48 layers; this one has 3"
_SCALE = "its query_pre_attn_scalar is not the size of a head, by which llama.cpp scales but for the largest models"
_INDEXER = "heads of its indexer are too small for llama.cpp's Hadamard rotation, which aborts"

#: llama.cpp (xllamacpp 2026.10.11549) refuses the file, as it refuses the reference's.
REFUSED: dict[str, str] = {
    "DeepSeek-V2-Lite-Chat": _LAYERS,
    "Kimi-VL-A3B-Instruct": _LAYERS,
    "GLM-5.3-Flash": "llama.cpp runs four hyper-connections only; this one has two",
}
#: The two compute something else, also with the reference's file.
UNLIKE: dict[str, str] = {
    "Hy4-preview": "llama.cpp turns neighbours where transformers turns halves",
    "Kimi-Linear-48B-A3B-Base": "not understood; the file has the reference's bytes",
    "MiniMax-M3-VL": "not understood",
    "Lora-Base-Gemma2": _SCALE,
    "gemma-2-2b-it": _SCALE,
    "gemma-3-1b-it": _SCALE,
    "mt5-small": "not understood; the file has the reference's bytes",
    "t5-small": "transformers scales the logits of a tied T5, llama.cpp does not",
}
#: No comparison of one token after the other is possible.
NOT_COMPARED: dict[str, str] = {
    "LFM2-ColBERT-350M": "the file has the projection of 1_Dense, which transformers' model is without",
    "DeepSeek-V3.2": _INDEXER,
    "GLM-5": _INDEXER,
    "ModernBERT-base-full": "transformers' class predicts masked words; the file holds the encoder without that head",
    "gemma-4-E2B-it": "llama.cpp aborts on so few layers that share keys and values",
    "t5-deeper-decoder": "llama.cpp makes no context for it",
}
