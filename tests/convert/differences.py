"""Where files differ from the reference's on purpose: keys, and the section of docs/differences.md that says why.

Data only. `ZOO` is by checkpoint of the zoo, `VOCAB` by case of fixtures/vocab/cases.json.xz, `KINDS` of
kinds.json.xz; everything that a row does not name must be the reference's, and what it names must not be. `CONVERTED`
are cases of cases.json.xz that the reference refuses and this package converts.
"""

from __future__ import annotations

from dataclasses import dataclass

SCORES = "SentencePiece vocabularies in tokenizer.json alone"
FAIRSEQ = "XLM-RoBERTa with a SentencePiece file alone"
RUNS = "Runs of spaces in XLM-RoBERTa's vocabulary"
SIZE = "As many tokens as the embedding has rows"
TEMPLATES = "Which chat template"


@dataclass(frozen=True)
class Difference:
    """Keys and tensors (with * for any part of a name) whose values are others, and the sections that say why.

    `error`, a regular expression, stands for a checkpoint of which no file is made.
    """

    keys: frozenset[str]
    sections: tuple[str, ...]
    error: str = ""


def _differs(*keys: str, why: tuple[str, ...]) -> Difference:
    return Difference(frozenset(keys), why)


_RANKED = _differs("tokenizer.ggml.scores", why=(SCORES,))
_SHORTER = _differs("tokenizer.ggml.tokens", "tokenizer.ggml.scores", "tokenizer.ggml.token_type", why=(SCORES, SIZE))
_TEMPLATE = _differs("tokenizer.chat_template", why=(TEMPLATES,))

_JOINED = _differs("tokenizer.ggml.remove_extra_whitespaces", why=(RUNS,))
IMPORTED = "Checkpoints that are quantized already"
REFUSED = "What llama.cpp would not load is refused"


def _refused(error: str) -> Difference:
    return Difference(frozenset(), (REFUSED,), error)


_EXPONENTIAL = _differs("blk.*.ssm_a", why=("-exp(A_log) to the nearest float",))
_CONTEXT = _differs("llama.context_length", why=("A context length for Mistral's own layout",))

_WITH_HEAD = _differs(
    "general.size_label", "output.weight", why=("Jais and CodeShell without a head of their own",)
)

_LOGITS = _differs("dec.output_norm.weight", why=("T5 divides its logits",))

#: By checkpoint, or by checkpoint and result.
ZOO: dict[str, Difference] = {
    "Llama-3_1-Nemotron-Ultra-253B-v1": _RANKED,
    "bge-m3-tokenizer-json-only": _JOINED,
    "Bamba-9B-v2": _differs(
        "tokenizer.ggml.tokens",
        "tokenizer.ggml.token_type",
        "blk.*.attn_q.weight",
        "blk.*.attn_k.weight",
        why=(SIZE, "Bamba's heads turn in part"),
    ),
    "GLM-5": _differs(
        "glm-dsa.leading_dense_block_count",
        "glm-dsa.attention.indexer.types",
        why=("Dense layers by mlp_layer_types",),
    ),
    "granite-4.0-micro": _differs(
        "granite.feed_forward_length", why=("The width of Granite's layers without experts",)
    ),
    "nomic-embed-text-v1.5": _differs(
        *(f"nomic-bert.{key}" for key in ("block_count", "embedding_length", "feed_forward_length")),
        *(f"nomic-bert.attention.{key}" for key in ("head_count", "key_length", "value_length")),
        why=("Nomic's configuration is read as it stands",),
    ),
    "roberta-large-mnli": _differs("bert.classifier.output_labels", why=("How many classes a classifier has",)),
    "ms-marco-MiniLM-L6-v2": _differs("cls.weight", "cls.bias", why=("BERT's pooler before its classifier",)),
    "WavTokenizer-large-75-dec": _refused("convnext.0.dw.bias"),
    "Laguna-XS.2": _differs(
        "laguna.attention.sliding_window", why=("Layers with windows where llama.cpp supposes others",)
    ),
    "Mellum2-12B-A2.5B-Base": _differs(
        *("mellum.attention.sliding_window", "mellum.attention.sliding_window_pattern"),
        why=("Layers with windows where llama.cpp supposes others",),
    ),
    "MiniMax-M1-40k": _differs(
        "minimax-01.full_attention_interval", why=("Which layers of MiniMax attend fully",)
    ),
    "Qwen3-ASR-0.6B": _differs("qwen3vl.rope.dimension_sections", why=("Qwen3-ASR without rotary sections",)),
    "Mistral-7B-Instruct-v0.3-native": _CONTEXT,
    "Mistral-Nemo-Instruct-2407-native": _CONTEXT,
    "Mistral-Small-3.1-24B-native": _CONTEXT,
    "Pixtral-12B-2409-native": _CONTEXT,
    "Hy4-preview-fixed": _refused("hyper_connection.count"),
    "Ling-3.0-tiny": _refused("blk.0.ssm_g_a.weight"),
    "Ling-3.0-tiny.bf16-mtp-only": _differs(why=()),
    "Qwen3-8B-DSpark": _refused("conf_proj.weight"),
    "DeepSeek-V4-Flash-DSpark.bf16-dspark": _refused("must be"),
    "DeepSeek-V4-Flash-DSpark.f32-dspark": _refused("must be"),
    "Qwen3-TTS-12Hz-1.7B-Base": _refused("output.weight"),
    "bitnet_b1_58-large.f32": _differs(
        *("blk.0.attn_k.weight", "blk.1.attn_v.weight", "blk.1.ffn_gate.weight"), why=("The mean of BitNet's weights",)
    ),
    "chameleon-7b-old": _differs(
        *(f"blk.*.attn_{part}_norm.{end}" for part in "qk" for end in ("weight", "bias")),
        why=("Chameleon's norms of single heads",),
    ),
    "jais-13b-chat": _WITH_HEAD,
    "CodeShell-7B-Chat": _WITH_HEAD,
    "EXAONE-4.0-1.2B": _refused("attn_output.weight"),
    "falcon-mamba-7b": _differs(
        *("tokenizer.ggml.tokens", "tokenizer.ggml.token_type", "blk.*.ssm_a"),
        why=(SIZE, "-exp(A_log) to the nearest float"),
    ),
    "gemma-3n-E2B-it": _refused("per_layer_token_embd.weight"),
    "ERNIE-4.5-21B-A3B-PT": _differs(
        "ernie4_5-moe.expert_shared_feed_forward_length", why=("The width of ERNIE's shared experts",)
    ),
    "EXAONE-3.0-no-rope-scaling": _differs(
        "exaone.attention.layer_norm_rms_epsilon", why=("EXAONE 3 has RMS norms",)
    ),
    "Hunyuan-0.5B-Instruct": _differs("tokenizer.ggml.eos_token_id", why=("Hunyuan's end of text",)),
    "K-EXAONE-236B-A23B": _differs(
        "exaone-moe.expert_gating_func", why=("K-EXAONE says that scores are a sigmoid's",)
    ),
    "Jamba-v0.1": _EXPONENTIAL,
    "mamba-130m-original": _EXPONENTIAL,
    "NVIDIA-Nemotron-Nano-9B-v2": _differs("general.architecture", "nemotron_h*", why=("Dense Nemotron-H",)),
    "plamo-3-nict-2b-base": _differs(
        *(f"tokenizer.ggml.{key}" for key in ("model", "eot_token_id", "add_bos_token", "add_eos_token")),
        why=("PLaMo's vocabularies",),
    ),
    "t5-small": _LOGITS,
    "t5-deeper-decoder": _LOGITS,
    "pocket-tts-no-voice-bos.f32": _differs("token_embd.weight", why=("Pocket TTS's first input",)),
    "Llama-2-7B-GPTQ": _differs("[bo]*.weight", why=(IMPORTED,)),
    "Devstral-Small-native-fp8": _CONTEXT,
}

KINDS: dict[str, Difference] = {
    "xlmr-json": _JOINED,
    "xlmr": _differs(
        *(f"tokenizer.ggml.{role}_token_id" for role in ("bos", "eos", "unknown", "seperator", "padding")),
        *("tokenizer.ggml.add_bos_token", "tokenizer.ggml.add_eos_token"),
        why=(FAIRSEQ,),
    ),
}

VOCAB: dict[str, Difference] = {
    "llama/no-model": _RANKED,
    "llama/no-model-added": _SHORTER,
    "llama/template-both": _TEMPLATE,
    "gemma/template-both": _TEMPLATE,
    "gemma3/template-both": _TEMPLATE,
    "phi3/template-both": _TEMPLATE,
    "qwen2/template-both": _TEMPLATE,
    "llama-bpe/template-both": _TEMPLATE,
    "gpt2/template-both": _TEMPLATE,
    "bert/template-both": _TEMPLATE,
}

CONVERTED: dict[str, str] = {
    "phi3/too-small": SIZE,
    "phi3/no-model": SCORES,
    "phi3/no-model-added": SCORES,
    "phi3/class-gpt2": SCORES,
    "gemma/no-model": SCORES,
    "gemma/no-model-added": SCORES,
    "gemma3/no-model": SCORES,
    "gemma3/no-model-added": SCORES,
}
