"""What is known of checkpoints that llama.cpp does not run as transformers does, and why. Data only."""

_LAYERS = "llama.cpp knows a DeepSeek 2 without q_lora_rank by its 26, 27 or 48 layers; this one has 3"
_SCALE = "its query_pre_attn_scalar is not the size of a head, by which llama.cpp scales but for the largest models"
_INDEXER = "heads of its indexer are too small for llama.cpp's Hadamard rotation, which aborts (variants.py: larger)"

#: By 3e-3 of the largest logit; with 1e-6 in config.json by 1e-6.
_EPSILON = "the epsilon of latent keys and linear attention is 1e-6 in transformers, config.json's 1e-5 in llama.cpp"

#: llama.cpp (xllamacpp 2026.10.11549) refuses the file, as it refuses the reference's.
REFUSED: dict[str, str] = {
    "DeepSeek-V2-Lite-Chat": _LAYERS,
    "Kimi-VL-A3B-Instruct": _LAYERS,
    "GLM-5.3-Flash": "llama.cpp runs four hyper-connections only; this one has two",
}
#: The two compute something else, also with the reference's file.
UNLIKE: dict[str, str] = {
    "Hy4-preview": "llama.cpp turns neighbours where transformers turns halves, by the same weights: one is wrong",
    "Kimi-Linear-48B-A3B-Base": _EPSILON,
    "MiniMax-M3-VL": "its configuration has no partial_rotary_factor, by which transformers turns, beside rotary_dim",
    "Lora-Base-Gemma2": "it has a head of its own, for which llama.cpp's gemma2 has no place",
    "gemma-2-2b-it": _SCALE,
    "gemma-3-1b-it": _SCALE,
    "mt5-small": "its embedding is stored under three names with other values each, as no published model's",
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
