"""Which tokenizer class the Hub's library (transformers 5) opens a checkpoint with, and what that class changes.

Data only. Some classes build their own normalizer and pre-tokenizer and ignore those of tokenizer.json; the reference
converter sees tokens through them, so a second implementation has to know them.
"""

from dataclasses import dataclass, field
from typing import Any

AS_WRITTEN = "TokenizersBackend"
"""The class that takes tokenizer.json as it is."""

_BY_CLASS = {
    "BertTokenizer": "align bark bert blip bros chinese_clip convbert distilbert electra ernie flava git layoutlm "
    "megatron-bert nezha nomic_bert qdqbert squeezebert tvp vilt visual_bert",
    "GPT2Tokenizer": "blip-2 codegen dbrx emu3 gpt2 gpt_neo gptj hyperclovax_vision_v2 instructblip jais2 opt phi "
    "starcoder2",
    "GPTNeoXTokenizer": "falcon_mamba gpt_neox mamba mamba2 mpt olmo olmoe rwkv xlstm",
    "GemmaTokenizer": "diffusion_gemma gemma gemma2 gemma3 gemma3_text gemma3n gemma3n_text recurrent_gemma "
    "shieldgemma2 t5gemma zaya",
    "LlamaTokenizer": "idefics idefics2",
    "CodeLlamaTokenizer": "code_llama",
    "CohereTokenizer": "aya_vision cohere cohere2",
    "Qwen2Tokenizer": "audioflamingo3 colqwen2 cosmos3_omni dots3_note fun_asr_nano hunyuan_vl internvl lighton_ocr "
    "ovis2 qianfan_ocr qwen2 qwen2_5_omni qwen2_5_vl qwen2_audio qwen2_moe qwen2_vl qwen3 qwen3_asr qwen3_moe "
    "qwen3_next qwen3_omni_moe qwen3_vl qwen3_vl_moe vibevoice",
    "Qwen3_5Tokenizer": "qwen3_5 qwen3_5_moe qwen3_5_moe_text qwen3_5_text qwen4_exp",
    "RobertaTokenizer": "bart bridgetower clap data2vec-text ibert lilt longformer mega mra roberta "
    "roberta-prelayernorm",
    "T5Tokenizer": "mt5 musicgen switch_transformers t5",
    "XLMRobertaTokenizer": "gte jina_embeddings_v3 metaclip_2 trocr xlm-roberta xmod",
    "MPNetTokenizer": "mpnet",
    AS_WRITTEN: "aria bigbird_pegasus flex_olmo glm glm4 glm4_moe glm4_moe_lite glm4v glm4v_moe glm_image glmasr "
    "got_ocr2 gpt_bigcode granite granitemoe granitemoehybrid granitemoeshared kimi_k25 kimi_linear mimo_v2_flash "
    "minicpmv4_6 minicpmv4_7 ministral ministral3 mistral mistral3 mistral_large4 mixtral nystromformer olmo2 olmo3 "
    "olmo_hybrid persimmon pixtral stablelm umt5 voxtral xlm-roberta-xl minicpmv hyperclovax chatlm fuyu vipllava "
    "phi3_v jamba step3_vl llava_next ernie4_5_moe opencua internlm2 nemotron modernbert hyperclovax_vlm internlm3 "
    "openvla iquestcoder ernie4_5 nvfp4 phi3 h2ovl_chat molmo arctic minicpm3 molmo2 phimoe llava paddleocr_vl "
    "minimax_m2 modernbert-decoder smolvlm",
}

CLASS_OF_MODEL = {model: name for name, models in _BY_CLASS.items() for model in models.split()}
"""config.json's model_type -> the class registered for it. Models not here go by tokenizer_config.json alone."""


def words(text: str) -> frozenset[str]:
    """The space-separated names of a text."""
    return frozenset(text.split())


MISTRAL_MODELS = words("ministral ministral3 mistral mistral3 mistral_large4 mixtral voxtral pixtral")

DISTRUSTED_MODELS = words(
    "arctic chatlm ernie4_5 ernie4_5_moe fuyu h2ovl_chat hyperclovax hyperclovax_vlm hyperclovax_vision_v2 internlm2 "
    "internlm3 iquestcoder jamba llava llava_next minicpm3 minicpmv minimax_m2 modernbert modernbert-decoder molmo "
    "molmo2 nemotron nvfp4 opencua openvla paddleocr_vl phi3 phi3_v phimoe qwen2 qwen3_5 qwen3_5_moe "
    "qwen3_5_moe_text qwen4_exp step3_vl vipllava cohere_asr siglip2 smolvlm"
)
"""Models whose tokenizer_config.json often names a wrong class: the registered one is taken."""

CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
QWEN2_REGEX = CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN35_REGEX = (
    CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def _byte_level(*, regex: bool = True) -> dict[str, Any]:
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": regex}


def split(regex: str) -> dict[str, Any]:
    """A part of tokenizer.json that cuts at every match of an expression."""
    return {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False}


def _sequence(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"type": "Sequence", "pretokenizers": list(parts)}


@dataclass(frozen=True)
class TokenizerClass:
    """What a class puts in place of tokenizer.json's own parts.

    `model`: the options of the model section; `tokens`: the special tokens the class assumes where
    tokenizer_config.json has no such key; `claims_special`: it makes every special token an added one.
    """

    model: dict[str, Any]
    tokens: dict[str, str]
    normalizer: dict[str, Any] | None = None
    pre_tokenizer: dict[str, Any] | None = None
    decoder: dict[str, Any] | None = field(default_factory=lambda: {**_byte_level()})
    claims_special: bool = False


_BPE = {"type": "BPE", "dropout": None, "unk_token": None, "fuse_unk": False, "byte_fallback": False}
_BPE |= {"continuing_subword_prefix": "", "end_of_word_suffix": "", "ignore_merges": False}
_END = "<|endoftext|>"
_SPM_DECODER: dict[str, Any] = {
    "type": "Sequence",
    "decoders": [
        {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
    ],
}

_QWEN2 = TokenizerClass(
    model=_BPE,
    tokens={"unk_token": _END, "eos_token": _END, "pad_token": _END},
    normalizer={"type": "NFC"},
    pre_tokenizer=_sequence(split(QWEN2_REGEX), _byte_level(regex=False)),
    claims_special=True,
)

REBUILDING: dict[str, TokenizerClass] = {
    "GPT2Tokenizer": TokenizerClass(
        model=_BPE,
        tokens={"unk_token": _END, "bos_token": _END, "eos_token": _END},
        pre_tokenizer=_byte_level(),
    ),
    "GPTNeoXTokenizer": TokenizerClass(
        model=_BPE,
        tokens={"unk_token": _END, "bos_token": _END, "eos_token": _END, "pad_token": "<|padding|>"},
        normalizer={"type": "NFC"},
        pre_tokenizer=_byte_level(),
    ),
    "Qwen2Tokenizer": _QWEN2,
    "Qwen3_5Tokenizer": TokenizerClass(
        model=_BPE,
        tokens=_QWEN2.tokens,
        normalizer={"type": "NFC"},
        pre_tokenizer=_sequence(split(QWEN35_REGEX), _byte_level(regex=False)),
    ),
    "LlamaTokenizer": TokenizerClass(
        model=_BPE
        | {"fuse_unk": True, "byte_fallback": True, "continuing_subword_prefix": None, "end_of_word_suffix": None},
        tokens={"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"},
        pre_tokenizer={"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "first", "split": False},
        decoder={
            "type": "Sequence",
            "decoders": [*_SPM_DECODER["decoders"], {"type": "Strip", "content": " ", "start": 1, "stop": 0}],
        },
    ),
    "GemmaTokenizer": TokenizerClass(
        model=_BPE
        | {"unk_token": "<unk>", "fuse_unk": True, "byte_fallback": True}
        | {"continuing_subword_prefix": None, "end_of_word_suffix": None},
        tokens={
            "unk_token": "<unk>",
            "bos_token": "<bos>",
            "eos_token": "<eos>",
            "pad_token": "<pad>",
            "mask_token": "<mask>",
        },
        normalizer={"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"},
        pre_tokenizer={
            "type": "Split",
            "pattern": {"String": " "},
            "behavior": "MergedWithPrevious",
            "invert": False,
        },
        decoder=_SPM_DECODER,
    ),
    "BertTokenizer": TokenizerClass(
        model={
            "type": "WordPiece",
            "unk_token": "[UNK]",
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
        },
        tokens={
            "unk_token": "[UNK]",
            "sep_token": "[SEP]",
            "pad_token": "[PAD]",
            "cls_token": "[CLS]",
            "mask_token": "[MASK]",
        },
        normalizer={
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": True,
            "strip_accents": None,
            "lowercase": True,
        },
        pre_tokenizer={"type": "BertPreTokenizer"},
        decoder={"type": "WordPiece", "prefix": "##", "cleanup": True},
    ),
}
"""Classes that build the tokenizer from tokenizer.json's vocabulary and merges alone."""
