"""What llama.cpp keeps of a context for each architecture: which layers see all of it, a window, or a state. Tables.

Facts of its source of October 2026 (src/models/*.cpp, llama_model::create_memory). An architecture that is not named
here keeps keys and values of every layer for the whole context. Must not know sizes or files.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Windows:
    """Layers that keep a window only: all but one in `period`, the last of them, or the first where `dense_first`.

    period None: the file lists them, else there are none. window: where the file has none, or, if `fixed`, whatever it
    says. layers: only models of this many layers have windows at all.
    """

    period: int | None = None
    dense_first: bool = False
    window: int = 0
    fixed: bool = False
    layers: int | None = None


#: Architectures with windows. One that is not here computes its window in full caches (phi3), or has none.
WINDOWS = {
    "afmoe": Windows(4),
    "cohere2": Windows(4),
    "cohere2moe": Windows(4, dense_first=True),
    "dflash": Windows(),
    "dots3note": Windows(),
    "exaone-moe": Windows(4, window=128),
    "exaone4": Windows(4, window=4096, layers=64),
    "gemma2": Windows(2, window=4096),
    "gemma3": Windows(6),
    "gemma3n": Windows(5),
    "gemma4": Windows(),
    "gpt-oss": Windows(2),
    "granite_swa": Windows(),
    "laguna": Windows(4, dense_first=True),
    "llama4": Windows(4, window=8192, fixed=True),
    "maple": Windows(),
    "mellum": Windows(4),
    "mimo2": Windows(),
    "muse-glimmer": Windows(4),
    "olmo2": Windows(4),
    "plamo3": Windows(8),
    "smallthinker": Windows(4, dense_first=True),
    "spark2_5": Windows(),
    "step35": Windows(),
}
#: Windows of this length, whatever the file says, where it says that there are any.
FIXED_WINDOW = {"smallthinker": 4096}

#: Nothing is kept: encoders, and models that read the whole text for every token they make.
WITHOUT_CACHE = frozenset(
    [
        "bert",
        "jina-bert-v2",
        "jina-bert-v3",
        "nomic-bert",
        "nomic-bert-moe",
        "neo-bert",
        "eurobert",
        "wavtokenizer-dec",
        "modern-bert",
        "gemma-embedding",
        "gemma-embedding2",
        "dream",
        "llada",
        "llada-moe",
        "rnd1",
        "clef",
    ]
)

#: A state in every layer, and no keys or values.
RECURRENT = frozenset(["mamba", "mamba2", "rwkv6", "rwkv6qwen2", "rwkv7", "arwkv7"])

#: A state in the layers without key-value heads, keys and values in the others.
HYBRID = frozenset(
    ["jamba", "plamo2", "granitehybrid", "lfm2", "lfm2moe", "kimi-linear", "bailingmoe3", "kimi-k3", "glm5-next"]
)
#: Of these, a layer with a feed-forward part has neither.
ONE_PART_LAYERS = frozenset(("nemotron_h", "nemotron_h_moe"))
#: Both in every layer.
BOTH = frozenset(("falcon-h1",))
#: Full attention in the last of every so many layers, unless the file lists the recurrent ones.
INTERVALS = {"qwen3next": 4, "qwen35": 4, "qwen35moe": 4, "qwen4exp": 4, "minimax-01": 8}

#: Keys of an indexer beside the keys and values, of one head.
INDEXED = frozenset(["minimax-m3", "glm-dsa", "deepseek32", "hy_v4", "glm5-next", "dots3note", "qwen4exp"])
#: Of an indexer that pools keys: heads' widths in a row of its cache.
POOLED_ROW = {"glm5-next": 3, "qwen4exp": 2}

#: Compressed caches of DeepSeek-V4: tokens that one entry stands for.
NEAR, FAR = 4, 128
