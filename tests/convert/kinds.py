"""Small vocabularies of kinds beyond byte-level BPE, SentencePiece's BPE and WordPiece, and how each is read.

`fixtures/vocab/kinds/` holds their files, kinds.json.xz what the reference makes of each case. Data only.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gguf_forge.convert import vocab

KINDS = Path(__file__).resolve().parents[2] / "fixtures" / "vocab" / "kinds"
GOLDEN = KINDS.parent / "kinds.json.xz"


@dataclass(frozen=True)
class Case:
    """A folder of files with hyperparameters, the loaders and steps to read it by, and the reference's class for it."""

    folder: str
    reference: str
    parts: tuple[vocab.Part, ...]
    config: dict[str, Any] = field(default_factory=dict)
    pre: str | None = None
    native: bool = False


CASES = {
    "t5": Case("t5", "T5Model", (vocab.t5,), {"vocab_size": 420}),
    "t5-bpe": Case("t5-bpe", "T5Model", (vocab.t5,), {"vocab_size": 490}),
    "xlmr": Case("xlmr", "XLMRobertaModel", (vocab.xlm_roberta,), {"vocab_size": 402, "type_vocab_size": 1}),
    "xlmr-json": Case("xlmr-json", "XLMRobertaModel", (vocab.xlm_roberta,), {"vocab_size": 404}),
    "qwen": Case("qwen", "QwenModel", (vocab.qwen_tiktoken,), {"vocab_size": 440}, pre="gpt-2"),
    "kimi": Case(
        "kimi", "KimiLinearModel", (vocab.together(vocab.tiktoken, vocab.ids(eos="[EOS]")),), {"vocab_size": 700},
        pre="kimi-k2",
    ),
    "spm-v3": Case("spm", "LlamaModel", (vocab.mistral,), native=True),
    "tekken": Case("tekken", "LlamaModel", (vocab.mistral,), native=True),
    "tekken-alone": Case("tekken", "LlamaModel", (vocab.tekken_only, vocab.spm)),
    "tekken-v11": Case("tekken-v11", "LlamaModel", (vocab.mistral,), native=True),
    "rwkv": Case("rwkv", "Rwkv6Model", (vocab.rwkv_world,), {"vocab_size": 300}),
    "plamo": Case("plamo", "Plamo2Model", (vocab.plamo,), {"vocab_size": 270}),
    "dna": Case(
        "dna", "LlamaModel", (vocab.together(vocab.config_space_prefix, vocab.hybrid_dna), vocab.spm),
        {"vocab_size": 4700}, pre="gpt-2",
    ),
    "none": Case("rwkv", "WavTokenizerDecModel", (vocab.none,)),
    "neox": Case(
        "none", "MambaModel", (vocab.padded(8, vocab.bpe, vocab.spm, vocab.gpt_neox_default),), {"vocab_size": 50277}
    ),
    "llama": Case("none", "OpenELMModel", (vocab.spm, vocab.llama_default), {"vocab_size": 32000}),
}  # fmt: skip
