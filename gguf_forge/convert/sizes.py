"""Sizes that llama.cpp derives from a file's metadata: the words in which the shapes of outputs are written.

A size is a small function of the metadata and a layer; sizes add, multiply and divide, so that a row reads
`(HEADS * KEY, EMBD)`. Knows GGUF's keys, and what llama.cpp takes where one is absent. Must not know the names of
tensors, single families, or values of weights. Source of the rules: llama.cpp's src/llama-model.cpp (load_hparams),
src/llama-hparams.cpp and the load_arch_hparams of src/models.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from gguf_forge.format.values import Value


class Window(NamedTuple):
    """How an architecture's layers slide where no key says: all but one of each `period` (of period 0, all), which is
    the last, or the `first`; only in models of so many `layers`, where that is given; only those that attend, where
    `hybrid`. Where `fixed`, whatever a key says. With hyper-connections all do, where
    `streams`.
    """

    period: int
    first: bool = False
    layers: int | None = None
    hybrid: bool = False
    fixed: bool = False
    streams: bool = False


#: Architectures in which llama.cpp knows sliding windows. With period 1 no layer slides but those that a key names.
WINDOWS = {
    "afmoe": Window(4),
    "cohere2": Window(4),
    "cohere2moe": Window(4, first=True),
    "deepseek4": Window(0, fixed=True),
    "dflash": Window(1, streams=True),
    "exaone-moe": Window(4),
    "exaone4": Window(4, layers=64),
    "gemma-embedding": Window(6),
    "gemma-embedding2": Window(6),
    "gemma2": Window(2),
    "gemma3": Window(6),
    "gemma3n": Window(5),
    "gpt-oss": Window(2),
    "laguna": Window(4, first=True),
    "lfm2": Window(0, hybrid=True, fixed=True),
    "llama4": Window(4),
    "mellum": Window(4),
    "modern-bert": Window(3, first=True),
    "muse-glimmer": Window(4),
    "olmo2": Window(4),
    "plamo3": Window(8),
    "smallthinker": Window(4, first=True),
    **dict.fromkeys(
        ("dots3note", "gemma4", "gemma4-assistant", "granite_swa", "maple", "mimo2", "spark2_5", "step35"),
        Window(1),
    ),
}
#: Every how many layers one attends in full where no key says; the others are recurrent.
_FULL_ATTENTION = {"minimax-01": 8}


@dataclass
class Basis:
    """What sizes depend on: a file's metadata, its architecture, the shapes of its tensors (last axis contiguous), and
    the `layer` of the tensor in question. `read` has the keys that were asked for, in order.
    """

    metadata: Mapping[str, Value]
    arch: str
    shapes: Mapping[str, tuple[int, ...]]
    layer: int = 0
    read: dict[str, None] = field(default_factory=dict)

    def value(self, key: str) -> Value | None:
        """The value of a key, which stands under the architecture's name unless it is the tokenizer's."""
        full = key if key.startswith("tokenizer.") else f"{self.arch}.{key}"
        self.read[full] = None
        return self.metadata.get(full)

    def aside(self) -> Basis:
        """The same, to ask of what decides between sizes: what is read there counts for none of them."""
        return Basis(self.metadata, self.arch, self.shapes, self.layer)

    def number(self, key: str, layer: int) -> int | None:
        """A number, of an array that of the layer; None where there is none."""
        value = self.value(key)
        if value is None:
            return None
        held: Any = value.value
        if value.element is not None:
            held = held[layer] if layer < len(held) else None
        return int(held) if isinstance(held, (int, np.integer)) else None


@dataclass(frozen=True)
class Size:
    """A length of an axis: `of` gives it for a basis and a layer, or None where the metadata does not say.

    `a | b` is `a`, or `b` where `a` is zero. `//` rounds down, and is 0 where the divisor is.
    """

    of: Callable[[Basis, int], int | None]

    def __add__(self, other: Size | int) -> Size:
        return _both(self, other, lambda a, b: a + b)

    def __sub__(self, other: Size | int) -> Size:
        return _both(self, other, lambda a, b: a - b)

    def __mul__(self, other: Size | int) -> Size:
        return _both(self, other, lambda a, b: a * b)

    def __floordiv__(self, other: Size | int) -> Size:
        return _both(self, other, lambda a, b: a // b if b else 0)

    def __or__(self, other: Size | int) -> Size:
        return choose(lambda basis, layer: bool(self.of(basis, layer)), self, other)

    __radd__ = __add__
    __rmul__ = __mul__


#: A length that nothing says, or that may be any.
ANY = Size(lambda basis, layer: None)


def fixed(size: Size | int) -> Size:
    """A number as a size."""
    return size if isinstance(size, Size) else Size(lambda basis, layer: size)


def _both(one: Size, other: Size | int, combine: Callable[[int, int], int]) -> Size:
    second = fixed(other)

    def of(basis: Basis, layer: int) -> int | None:
        a, b = one.of(basis, layer), second.of(basis, layer)
        return None if a is None or b is None else combine(a, b)

    return Size(of)


def choose(condition: Callable[[Basis, int], bool], then: Size | int, otherwise: Size | int) -> Size:
    """`then` where the condition holds for the layer, else the other."""
    yes, no = fixed(then), fixed(otherwise)
    return Size(lambda basis, layer: (yes if condition(basis.aside(), layer) else no).of(basis, layer))


def where(condition: Callable[[Basis, int], bool], then: Size | int, otherwise: Size | int) -> Size:
    """As `choose`, by the tensor's own layer."""
    return choose(lambda basis, layer: condition(basis, basis.layer), then, otherwise)


def each(size: Size) -> Size:
    """The size by the tensor's own layer. Other sizes are those of layer 0, from which most loaders take all."""
    return Size(lambda basis, layer: size.of(basis, basis.layer))


def key(name: str, default: Size | int | None = None) -> Size:
    """The number of a key; where it is absent `default`, None for a key that llama.cpp asks for."""
    other = ANY if default is None else fixed(default)

    def of(basis: Basis, layer: int) -> int | None:
        if basis.value(name) is None:
            return other.of(basis, layer)
        return basis.number(name, layer)

    return Size(of)


def length(name: str, default: Size | int | None = None) -> Size:
    """The number of values of an array; where it is absent `default`."""
    other = ANY if default is None else fixed(default)

    def of(basis: Basis, layer: int) -> int | None:
        value = basis.value(name)
        if value is None or value.element is None:
            return other.of(basis, layer)
        return len(value.value)

    return Size(of)


def axis(tensor: str, index: int, default: Size | int | None = None) -> Size:
    """The length of an axis of another tensor (-1: the contiguous one), or `default` where that is absent.

    {l} in its name stands for the layer of the tensor in question.
    """
    other = ANY if default is None else fixed(default)

    def of(basis: Basis, layer: int) -> int | None:
        shape = basis.shapes.get(tensor.replace("{l}", str(basis.layer)))
        if shape is None:
            return other.of(basis, layer)
        return shape[index] if len(shape) >= -index else 1

    return Size(of)


def slides(basis: Basis, layer: int) -> bool:
    """Whether llama.cpp takes a layer for one of sliding-window attention."""
    window = WINDOWS.get(basis.arch)
    if window is None or basis.number("attention.sliding_window", 0) == 0:
        return False
    if window.layers is not None and LAYERS.of(basis, 0) != window.layers:
        return False
    if window.streams and basis.number("hyper_connection.count", 0):
        return not predicts(basis, layer)
    value = None if window.fixed else basis.value("attention.sliding_window_pattern")
    if value is not None and value.element is not None:
        return layer < len(value.value) and bool(value.value[layer])
    period = window.period if value is None else int(value.value)
    if predicts(basis, layer) or (window.hybrid and not attends(basis, layer)):
        return False
    if period == 0:
        return True
    return layer % period != 0 if window.first else layer % period < period - 1


def predicts(basis: Basis, layer: int) -> bool:
    """Whether a layer stands after those of the model proper and only predicts further tokens."""
    return layer >= (LAYERS.of(basis, 0) or 0)


def attends(basis: Basis, layer: int) -> bool:
    """Whether a layer has key and value heads; in hybrid models those without are recurrent."""
    return bool(HEADS_KV.of(basis, layer)) or predicts(basis, layer)


def attends_by_interval(basis: Basis, layer: int) -> bool:
    """Whether a layer attends, in models that say so by a list of recurrent layers or by an interval."""
    value = basis.value("attention.recurrent_layers")
    if value is not None:
        held = value.value if value.element is None else value.value[layer] if layer < len(value.value) else False
        return not held
    interval = basis.number("full_attention_interval", 0) or _FULL_ATTENTION.get(basis.arch, 4)
    return predicts(basis, layer) or (layer + 1) % interval == 0


@dataclass(frozen=True)
class Flat:
    """A shape of which only the number of elements counts."""

    shape: tuple[Size | int, ...]


@dataclass(frozen=True)
class OneOf:
    """Shapes of which any will do."""

    shapes: tuple[tuple[Size | int, ...], ...]


#: What an output's shape must be, the contiguous axis last.
Shape = tuple[Size | int, ...] | Flat | OneOf

EMBD = key("embedding_length")
EMBD_OUT = key("embedding_length_out", 0) | EMBD
#: Rows of the embedding: the tokens; without a vocabulary in the file, what a key of the architecture says.
VOCAB = length("tokenizer.ggml.tokens", key("vocab_size"))
TOKEN_TYPES = key("tokenizer.ggml.token_type_count", 0)
CONTEXT = key("context_length")
LABELS = length("classifier.output_labels", 1)
BLOCKS = key("block_count")
#: Layers of the model proper, without those that only predict further tokens.
LAYERS = BLOCKS - key("nextn_predict_layers", 0)

HEADS = key("attention.head_count", 0)
HEADS_KV = key("attention.head_count_kv", HEADS)


def _of_head(name: str, default: Size) -> Size:
    """The size of a head: of a key, or `default`; nothing where the first layer has no heads."""
    return choose(lambda basis, layer: bool(HEADS.of(basis, 0)), key(name, default), 0)


_PART = EMBD // Size(lambda basis, layer: HEADS.of(basis, 0))
KEY_FULL = _of_head("attention.key_length", _PART)
VALUE_FULL = _of_head("attention.value_length", _PART)
ROT_FULL = _of_head("rope.dimension_count", KEY_FULL)
#: Elements of a key's head, of a value's, and those of them that turn.
KEY = choose(slides, key("attention.key_length_swa", KEY_FULL), KEY_FULL)
VALUE = choose(slides, key("attention.value_length_swa", VALUE_FULL), VALUE_FULL)
ROT = choose(slides, key("rope.dimension_count_swa", ROT_FULL), ROT_FULL)
#: Widths of all queries, keys and values together.
QUERIES = HEADS * KEY
KEYS = HEADS_KV * KEY
VALUES = HEADS_KV * VALUE
BUCKETS = key("attention.relative_buckets_count")

#: Ranks and head sizes of latent attention.
Q_RANK = key("attention.q_lora_rank", 0)
KV_RANK = key("attention.kv_lora_rank")
KEY_MLA = key("attention.key_length_mla", 0) | KEY
VALUE_MLA = key("attention.value_length_mla", 0) | VALUE
OUT_RANK = key("attention.output_lora_rank")
OUT_GROUPS = key("attention.output_group_count")
#: Cells that a compressor joins, by layer; of four, two overlap.
RATIO = each(key("attention.compress_ratios"))
OVERLAP = choose(lambda basis, layer: RATIO.of(basis, layer) == 4, 2, 1)
INDEX_HEADS = key("attention.indexer.head_count")
INDEX_KEY = key("attention.indexer.key_length")
INDEX_POOL = key("attention.indexer.kpool")

FF = key("feed_forward_length", 0)
EXPERTS = key("expert_count", 0)
USED = key("expert_used_count", 0)
EXPERT_FF = key("expert_feed_forward_length")
SHARED = key("expert_shared_count", 0)
SHARED_FF = key("expert_shared_feed_forward_length", 0)
CHUNK_FF = key("expert_chunk_feed_forward_length", 0) | KEY
EXPERTS_PER_GROUP = key("experts_per_group")
VALUE_EXPERTS = key("attention.value_expert_count", 0)

INNER = key("ssm.inner_size")
STATE = key("ssm.state_size")
TIME_STEPS = key("ssm.time_step_rank")
GROUPS = key("ssm.group_count")
CONV = key("ssm.conv_kernel")
CACHE = key("shortconv.l_cache")
#: Width of a delta rule with gates (KDA): heads of one size.
KDA_HEAD = key("kda.head_dim")
KDA = KDA_HEAD * HEADS

WKV_HEAD = key("wkv.head_size")
MIX_RANK = key("time_mix_extra_dim")
DECAY_RANK = key("time_decay_extra_dim")

STREAMS = key("hyper_connection.count")
STREAM_RANK = key("hyper_connection.low_rank")
PER_LAYER = key("embedding_length_per_layer_input", 0)
