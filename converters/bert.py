"""Encoders of the BERT kind, for vectors of texts, rerankers and classifiers: BERT, DistilBERT, RoBERTa, XLM-RoBERTa,
CamemBERT, Jina 2 and 3, Nomic 1.5 and 2, NeoBERT, EuroBERT (Jina 5 nano) and ModernBERT.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from gguf_forge.convert import vocab
from gguf_forge.convert.arch import (
    Arch,
    Drop,
    Either,
    Hparam,
    Rule,
    Table,
    boolean,
    exact,
    f32,
    lost,
    optional,
    rule,
    string,
    strings,
    u32,
)
from gguf_forge.convert.config import first_of
from gguf_forge.convert.facts import Facts
from gguf_forge.convert.ops import TRANSPOSE, Reshape
from gguf_forge.convert.rows import rows_from
from gguf_forge.convert.vocab import Changes, Keys, VocabJob
from gguf_forge.convert.vocab.steps import type_count
from gguf_forge.convert.vocab.unigram import is_unigram_json, read_xlmr_json
from gguf_forge.errors import ConversionError
from gguf_forge.format import values

from .common import BASE, BUFFERS, DECODER, GATED, GELU, POOLING, QKV, SILU, TRUNK, WRAPPERS, affine, layer, pooling

CLASSIFIER = ("classifier.weight", "classifier.out_proj.weight")
#: The layer before a classifier's own.
DENSE = ("classifier.dense", "pre_classifier", "head.dense", "dense")
#: BERT's pooler, which is that layer where there is a classifier.
POOLER = "pooler.dense"


def labels(facts: Facts) -> list[str] | None:
    """The classes of a classifier. None for the two unnamed ones that a configuration has when it says nothing.

    Where a classifier has a layer before its own, llama.cpp must know how many classes there are, named or not.
    """
    named = {int(k): str(v) for k, v in (facts.config.get("id2label") or {}).items()}
    if named and not (len(named) == 2 and named.get(0) == "LABEL_0"):
        return [named[k] for k in sorted(named)]
    rows = next((facts.headers[name].shape[0] for name in CLASSIFIER if facts.has(name)), 1)
    deep = any(facts.has(f"{name}.weight") for name in (*DENSE, POOLER))
    return [f"LABEL_{i}" for i in range(rows)] if deep and rows > 1 else None


def _classifier_pooling(facts: Facts) -> int | None:
    """How a classifier pools; another way than those of GGUF is of no consequence to a model without one."""
    mode = facts.config.get("classifier_pooling")
    if mode in (None, "cls", "mean"):
        return None if mode is None else POOLING[mode]
    if any(facts.has(name) for name in CLASSIFIER):
        raise ConversionError(f"config.json: classifier_pooling is {mode!r}; GGUF has 'cls' and 'mean'")
    return None


def _classifier_activation(facts: Facts) -> str | None:
    """The activation before a classifier's last layer, unless it is the GELU that readers suppose."""
    name = facts.config.get("classifier_activation")
    if name in (None, "gelu", "silu", "tanh"):
        return None if name == "gelu" else name
    if any(facts.has(classifier) for classifier in CLASSIFIER):
        raise ConversionError(f"config.json: classifier_activation is {name!r}; llama.cpp has gelu, silu and tanh")
    return None


def _is(value: Any) -> Callable[[Facts], Any]:
    return lambda facts: value


KEYS: Table[Hparam] = (
    BASE
    | boolean("attention.causal", value=_is(False), again=True)
    | u32("pooling_type", value=pooling)
    | u32("classifier.pooling_type", value=_classifier_pooling)
    | string("classifier.activation", value=_classifier_activation)
    | strings("classifier.output_labels", value=labels)
)
UNSCALED = string("rope.scaling.type", value=_is("none"), again=True)

#: BERT's layers, and DistilBERT's.
B, D = "encoder.layer.{l}", "transformer.layer.{l}"
EMBEDDINGS: Table[Rule] = Table(
    (
        rule("token_embd", "embeddings.word_embeddings"),
        rule("token_types", "embeddings.token_type_embeddings"),
        rule("token_embd_norm", ("embeddings.LayerNorm", "emb_ln")),
    )
)
ATTENTION: Table[Rule] = Table(
    (
        rule("blk.{l}.attn_q", (f"{B}.attention.self.query", f"{D}.attention.q_lin")),
        rule("blk.{l}.attn_k", (f"{B}.attention.self.key", f"{D}.attention.k_lin")),
        rule("blk.{l}.attn_v", (f"{B}.attention.self.value", f"{D}.attention.v_lin")),
        rule("blk.{l}.attn_output", (f"{B}.attention.output.dense", f"{D}.attention.out_lin")),
        rule("blk.{l}.attn_output_norm", (f"{B}.attention.output.LayerNorm", f"{D}.sa_layer_norm")),
    )
)
FORWARD: Table[Rule] = Table(
    (
        rule("blk.{l}.ffn_up", (f"{B}.intermediate.dense", f"{D}.ffn.lin1")),
        rule("blk.{l}.ffn_down", (f"{B}.output.dense", f"{D}.ffn.lin2")),
        rule("blk.{l}.layer_output_norm", (f"{B}.output.LayerNorm", f"{D}.output_layer_norm")),
    )
)
CLASSES: Table[Rule] = Table((rule("cls", DENSE), rule("cls.output", ("classifier.out_proj", "classifier"))))
HALVES = layer("attn_output", "ffn_up", "ffn_down", *affine("attn_output_norm", "layer_output_norm"))
WORD_PIECES = vocab.together(vocab.token_type_count, vocab.wordpiece)
#: Older names, and those of models that hold an encoder.
NAMES = ((r"^(bert|distilbert|roberta)\.", ""), (r"\.gamma$", ".weight"), (r"\.beta$", ".bias"))
#: Embeddings are pooled without BERT's own pooler, and nothing is predicted.
PREDICTED = (r"^embeddings\.position_ids$", r"^cls\.(predictions|seq_relationship)", r"^vocab_")
HEADS = (*PREDICTED, r"^pooler\.dense\.")


def _judges(facts: Facts) -> bool:
    """Whether there is a classifier."""
    return any(facts.has(name) for name in CLASSIFIER)


def _pools(facts: Facts) -> bool:
    """Whether the classifier is given what BERT's pooler makes of the first token."""
    return facts.has(f"{POOLER}.weight") and _judges(facts)


BERT_ROWS: Table[Rule] = (
    EMBEDDINGS | rule("position_embd", "embeddings.position_embeddings") | ATTENTION | FORWARD
)
BERT = Arch(
    "bert",
    hf=("BertModel", "BertForMaskedLM", "BertForSequenceClassification"),
    hparams=KEYS,
    tensors=BERT_ROWS
    | rule("cls", POOLER, last=True)
    # Without named classes and a pooler, the classifier's one layer is taken for the one before it.
    | rule("cls", "classifier", variant="alone", when=lambda facts: labels(facts) is None and not _pools(facts))
    | rule("cls.output", "classifier", when=lambda facts: labels(facts) is not None or _pools(facts)),
    needs=("token_embd", "position_embd", *affine("token_embd_norm"), *QKV, *HALVES),
    vocab=(WORD_PIECES,),
    renames=NAMES,
    drop=(*BUFFERS, *PREDICTED, Drop(r"^(bert\.)?pooler\.dense\.", lambda _match, facts: not _judges(facts))),
    implied=(*GELU, ("activation", ("gelu",)), ("position_embedding_type", ("absolute",))),
)
EPSILON = f32("attention.layer_norm_epsilon", value=_is(1e-12))
DISTILBERT = replace(
    BERT,
    hf=("DistilBertModel", "DistilBertForMaskedLM", "DistilBertForSequenceClassification"),
    hparams=Table((EPSILON,)) | KEYS | EPSILON,
    tensors=BERT_ROWS.without("token_types")
    | CLASSES
    | rule(
        "cls", "pre_classifier", caution="DistilBERT has a ReLU before its classifier's last layer, llama.cpp a tanh"
    ),
    drop=(*BUFFERS, *HEADS),
)


def _padding(facts: Facts) -> int:
    """Positions before that of a text's first token: they stand for padding."""
    return 0 if facts.config.get("pad_token_id") is None else facts.number("pad_token_id") + 1


def _context(facts: Facts) -> int:
    return facts.number("max_position_embeddings") - _padding(facts)


PADDED = KEYS | u32("context_length", value=_context)
ROBERTA = replace(
    BERT,
    hf=("RobertaModel", "RobertaForSequenceClassification"),
    hparams=PADDED,
    drop=(*BUFFERS, *HEADS),
    tensors=BERT_ROWS
    | CLASSES
    | rule("position_embd", "embeddings.position_embeddings", verb=rows_from(_padding)),
    vocab=(
        vocab.when(lambda job: job.folder.has("tokenizer.json"), vocab.bpe, vocab.token_type_count),
        WORD_PIECES,
    ),
)
XLM_ROBERTA = replace(
    ROBERTA,
    hf=("XLMRobertaModel", "XLMRobertaForSequenceClassification"),
    vocab=(vocab.xlm_roberta,),
    when=lambda config: not config.get("lora_adaptations"),
)



@vocab.loader
def camembert(job: VocabJob) -> Keys | None:
    """CamemBERT's Unigram vocabulary in tokenizer.json; its sentencepiece.bpe.model counts its tokens otherwise."""
    if not is_unigram_json(job.folder):
        return None
    unigram = read_xlmr_json(job)
    return {**unigram.values(type_count(job)), **vocab.finish(job, unigram.vocabulary, only_special=True)}


CAMEMBERT = replace(
    ROBERTA, hf=("CamembertModel",), tensors=ROBERTA.tensors.without("cls", "cls.output"), vocab=(camembert,)
)

#: Layers with queries, keys and values in one matrix: Nomic's and Jina 3's.
N = "encoder.layers.{l}"
FUSED: Table[Rule] = Table(
    (
        rule("blk.{l}.attn_qkv", (f"{N}.attn.Wqkv", f"{N}.mixer.Wqkv")),
        rule("blk.{l}.attn_output", (f"{N}.attn.out_proj", f"{N}.mixer.out_proj")),
        rule("blk.{l}.attn_output_norm", f"{N}.norm1"),
        rule("blk.{l}.layer_output_norm", f"{N}.norm2"),
        rule("blk.{l}.ffn_up", (f"{N}.mlp.fc11", f"{N}.mlp.fc1")),
        rule("blk.{l}.ffn_down", f"{N}.mlp.fc2"),
    )
)
FUSED_NEEDS = (
    *("token_embd", *affine("token_embd_norm")),
    *layer("attn_qkv", "attn_output", *affine("attn_output_norm", "layer_output_norm")),
)
#: Jina 3 without its adapters for tasks.
JINA3 = replace(
    XLM_ROBERTA,
    name="jina-bert-v3",
    tensors=EMBEDDINGS | FUSED,
    needs=(*FUSED_NEEDS, *layer("ffn_up", "ffn_down")),
    renames=(*NAMES, (r"\.parametrizations\.(weight)(\.original)?", r".\1")),
    drop=(
        *(*BUFFERS, *HEADS),
        lost(r"\.0\.lora_[AB]$", "adapters for tasks; the file computes what the model does when no task is named"),
    ),
    implied=GELU,
    when=lambda config: bool(config.get("lora_adaptations")),
)


def _trained_context(facts: Facts) -> int:
    """The context Nomic's models were trained with, a quarter of that in their configuration."""
    stated, trained = facts.number("n_positions"), first_of(facts.config, "max_trained_positions") or 2048
    if (stated, trained) not in ((8192, 2048), (2048, 2048)):
        raise ConversionError(f"config.json: n_positions {stated}, max_trained_positions {trained}: no known model")
    return stated // 4


def _as_run(facts: Facts) -> bool:
    """Attention looks both ways; the configuration says nothing else that llama.cpp does not do with Nomic's models."""
    sparse = bool(facts.config.get("moe_every_n_layers"))
    wanted = {
        "activation_function": "gelu" if sparse else "swiglu",
        **dict.fromkeys(("qkv_proj_bias", "mlp_fc1_bias", "mlp_fc2_bias"), sparse),
        **dict.fromkeys(("causal", "prenorm", "rotary_emb_interleaved"), False),
        "rotary_emb_fraction": 1.0,
        "rotary_emb_scale_base": None,
    }
    for key, value in wanted.items():
        if facts.config.get(key, value) != value:
            raise ConversionError(f"config.json: {key} is {facts.config[key]!r}; llama.cpp runs Nomic with {value!r}")
    return False


NOMIC = Arch(
    "nomic-bert",
    hf=("NomicBertModel",),
    hparams=KEYS
    | u32("context_length", value=_trained_context)
    | boolean("attention.causal", value=_as_run, again=True),
    tensors=EMBEDDINGS | FUSED | rule("blk.{l}.ffn_gate", f"{N}.mlp.fc12"),
    needs=(*FUSED_NEEDS, *GATED),
    vocab=(vocab.xlm_roberta, WORD_PIECES),
    drop=(*BUFFERS, *HEADS),
    when=lambda config: not config.get("moe_every_n_layers"),
)


def _experts(shape: tuple[int, ...], facts: Facts) -> tuple[int, ...]:
    experts = facts.number("num_experts", "num_local_experts")
    if experts <= 0 or shape[0] % experts:
        raise ConversionError(f"{shape[0]} rows are not those of {experts} experts")
    return experts, shape[0] // experts, shape[1]


MIXTURE = layer("ffn_gate_inp", "ffn_up_exps", "ffn_down_exps")
NOMIC_MOE = replace(
    NOMIC,
    name="nomic-bert-moe",
    hparams=NOMIC.hparams
    | u32("moe_every_n_layers", "moe_every_n_layers")
    | u32("expert_used_count", "moe_top_k", again=True),
    tensors=EMBEDDINGS
    | FUSED
    | rule("blk.{l}.ffn_gate_inp", f"{N}.mlp.router.layer")
    | exact("blk.{l}.ffn_up_exps.weight", f"{N}.mlp.experts.mlp.w1", verb=Reshape(_experts))
    | exact("blk.{l}.ffn_down_exps.weight", f"{N}.mlp.experts.mlp.w2", verb=Reshape(_experts) | TRANSPOSE),
    needs=(*FUSED_NEEDS, Either((layer("ffn_up", "ffn_down"), MIXTURE))),
    drop=(
        *NOMIC.drop,
        lost(r"\.mlp\.experts\.bias$", "the model adds it to what its experts say together, llama.cpp does not"),
    ),
    implied=GELU,
    when=lambda config: bool(config.get("moe_every_n_layers")),
)


@vocab.step
def two_token_types(_: VocabJob) -> Changes:
    """Jina's code models say that their texts have two parts, whatever their configuration does."""
    return {"tokenizer.ggml.token_type_count": values.u32(2)}


def _made_for(name: str) -> Callable[[VocabJob], bool]:
    return lambda job: job.settings.get("tokenizer_class") == name


JINA2 = replace(
    BERT,
    name="jina-bert-v2",
    hf=("JinaBertModel", "JinaBertForMaskedLM"),
    tensors=EMBEDDINGS
    | ATTENTION
    | Table(
        (
            rule("blk.{l}.attn_q_norm", f"{B}.attention.self.layer_norm_q"),
            rule("blk.{l}.attn_k_norm", f"{B}.attention.self.layer_norm_k"),
            rule("blk.{l}.attn_norm_2", f"{B}.layer_norm_1"),
            # Gate and up in one matrix.
            rule("blk.{l}.ffn_up", (f"{B}.mlp.gated_layers", f"{B}.mlp.up_gated_layer", f"{B}.mlp.gated_layers_v")),
            rule("blk.{l}.ffn_gate", f"{B}.mlp.gated_layers_w"),
            rule("blk.{l}.ffn_down", (f"{B}.mlp.wo", f"{B}.mlp.down_layer")),
            rule("blk.{l}.layer_output_norm", (f"{B}.mlp.layernorm", f"{B}.layer_norm_2")),
        )
    ),
    needs=("token_embd", "token_types", *affine("token_embd_norm"), *QKV, *HALVES, optional("blk.{l}.ffn_gate")),
    vocab=(
        vocab.when(_made_for("BertTokenizer"), WORD_PIECES),
        vocab.when(_made_for("RobertaTokenizer"), vocab.whitespace, vocab.bpe, two_token_types),
    ),
    implied=(*GELU, ("position_embedding_type", ("alibi",))),
)


def _two_thirds(facts: Facts) -> int:
    """NeoBERT's gated width, brought to a multiple of eight as its code does."""
    return -(int(2 * facts.number("intermediate_size") / 3) // -8) * 8


T = "transformer_encoder.{l}"
NEO_BERT = Arch(
    "neo-bert",
    hf=("NeoBERT", "NeoBERTLMHead", "NeoBERTForSequenceClassification"),
    hparams=KEYS
    | u32("feed_forward_length", value=_two_thirds, again=True)
    | f32("rope.freq_base", value=_is(10000.0), again=True)
    | UNSCALED
    | f32("attention.layer_norm_rms_epsilon", "norm_eps", default=1e-6, again=True)
    | u32("pooling_type", value=_is(POOLING["cls"]), again=True),
    tensors=CLASSES
    | Table(
        (
            rule("token_embd", "encoder"),
            rule("enc.output_norm", "layer_norm"),
            rule("blk.{l}.attn_norm", f"{T}.attention_norm"),
            rule("blk.{l}.attn_qkv", f"{T}.qkv"),
            rule("blk.{l}.attn_output", f"{T}.wo"),
            rule("blk.{l}.ffn_norm", f"{T}.ffn_norm"),
            rule("blk.{l}.ffn_up", f"{T}.ffn.w12"),
            rule("blk.{l}.ffn_down", f"{T}.ffn.w3"),
        )
    ),
    needs=(
        *("token_embd", "enc.output_norm"),
        *layer("attn_norm", "attn_qkv", "attn_output", "ffn_norm", "ffn_up", "ffn_down"),
    ),
    vocab=(WORD_PIECES,),
    renames=((r"^model\.", ""),),
    drop=(*BUFFERS, r"^decoder\.", r"^freqs_cis$"),
    implied=SILU,
)
EURO_BERT = Arch(
    "eurobert",
    hf=("EuroBertModel", "JinaEmbeddingsV5Model"),
    hparams=BASE
    | boolean("attention.causal", value=_is(False), again=True)
    | UNSCALED
    | u32("pooling_type", value=pooling)
    | u32("classifier.pooling_type", value=_classifier_pooling),
    tensors=DECODER.without("output"),
    needs=(*TRUNK, *QKV, *GATED),
    vocab=(vocab.adds(bos=False), vocab.bpe),
    renames=WRAPPERS,
    drop=BUFFERS,
    implied=SILU,
)


def _guesses_words(_: Any, facts: Facts) -> bool:
    """Whether the head's dense layer is that of a guesser of words, for which there is no form in GGUF."""
    return not any(facts.has(name) for name in CLASSIFIER)


def runs_of_spaces(_: VocabJob, found: vocab.Vocabulary) -> vocab.Vocabulary:
    """MmBERT's added tokens for runs of spaces are no texts of their own: its spaces are marks by then."""
    if found.pre == "mmbert":
        for number, (text, kind) in enumerate(zip(found.tokens, found.types, strict=True)):
            if kind == vocab.TokenType.USER_DEFINED and text and not text.strip(" "):
                found.put(number, "\u2581" * len(text), vocab.TokenType.NORMAL)
    return found


M = "layers.{l}"
MODERN_BERT = Arch(
    "modern-bert",
    hf=("ModernBertModel", "ModernBertForMaskedLM", "ModernBertForSequenceClassification"),
    hparams=KEYS
    | u32("attention.sliding_window", "local_attention", required=True)
    | u32("attention.sliding_window_pattern", "global_attn_every_n_layers")
    | UNSCALED
    | u32("vocab_size", "vocab_size", required=True)
    | string("hidden_activation", "hidden_activation"),
    tensors=CLASSES
    | Table(
        (
            rule("cls.norm", "head.norm"),
            rule("token_embd", "embeddings.tok_embeddings"),
            rule("token_embd_norm", "embeddings.norm"),
            rule("output_norm", "final_norm"),
            rule("blk.{l}.attn_norm", f"{M}.attn_norm"),
            rule("blk.{l}.attn_qkv", f"{M}.attn.Wqkv"),
            rule("blk.{l}.attn_output", f"{M}.attn.Wo"),
            rule("blk.{l}.ffn_norm", f"{M}.mlp_norm"),
            rule("blk.{l}.ffn_up", f"{M}.mlp.Wi"),
            rule("blk.{l}.ffn_down", f"{M}.mlp.Wo"),
        )
    ),
    needs=(
        *("token_embd", "token_embd_norm", "output_norm"),
        *layer("attn_qkv", "attn_output", "ffn_norm", "ffn_up", "ffn_down"),
        # The first layer's is the embedding's.
        optional("blk.{l}.attn_norm"),
    ),
    vocab=(vocab.adds(bos=True, eos=True, sep=True), vocab.bpe_with(edit=runs_of_spaces)),
    renames=((r"^model\.", ""),),
    drop=(*BUFFERS, r"^decoder\.", Drop(r"^head\.", _guesses_words)),
)

ARCHS = (
    *(BERT, DISTILBERT, ROBERTA, XLM_ROBERTA, CAMEMBERT),
    *(JINA2, JINA3, NOMIC, NOMIC_MOE, NEO_BERT, EURO_BERT, MODERN_BERT),
)
