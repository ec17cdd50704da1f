"""What a model needs to run: weights, and what it keeps of a context, in bytes, exactly as llama.cpp allocates it.

Sources: the constructors of llama_kv_cache, llama_kv_cache_iswa, _dsa, _msa, _dsv4, llama_memory_recurrent and
llama_memory_hybrid, and llama_hparams::n_embd_r and n_embd_s (llama.cpp, src/). Knows metadata only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from gguf_forge.errors import RequestError
from gguf_forge.quality import cache_facts as facts
from gguf_forge.quality.layers import Layers, keep_nothing
from gguf_forge.types import TensorType, tensor_type

F32, F16 = tensor_type("F32"), tensor_type("F16")
#: Tokens that llama.cpp computes with at a time, and to what a cache's length is rounded up.
PHYSICAL_BATCH, PAD = 512, 256


@dataclass(frozen=True)
class Use:
    """How a model is used. context: tokens a sequence; sequences: how many at once, each with its own context.

    key_type, value_type: of the cache. batch: tokens computed at a time (llama.cpp's --ubatch-size), which windows
    need beside their length. whole_windows: keep the whole context also where a window would do (--swa-full).
    flash: flash attention, without which values are padded to the widest layer's.
    """

    context: int
    key_type: TensorType = F16
    value_type: TensorType = F16
    sequences: int = 1
    batch: int = PHYSICAL_BATCH
    whole_windows: bool = False
    flash: bool = True

    def __post_init__(self) -> None:
        if self.context < 1 or self.sequences < 1 or self.batch < 1:
            raise RequestError("a context, a batch and sequences of one at least are needed")

    @property
    def cells(self) -> int:
        """Tokens that a cache has room for."""
        return _padded(self.context)


@dataclass(frozen=True)
class Part:
    """What one layer keeps. kind: "context", "window", "indexer", "compressed" or "state"."""

    kind: str
    layer: int
    nbytes: int


@dataclass(frozen=True)
class Cache:
    """What a model keeps of a context, layer by layer."""

    parts: tuple[Part, ...]

    @property
    def nbytes(self) -> int:
        """All bytes together."""
        return sum(part.nbytes for part in self.parts)

    def by_kind(self) -> dict[str, int]:
        """Bytes of each kind that there is."""
        found: dict[str, int] = {}
        for part in self.parts:
            found[part.kind] = found.get(part.kind, 0) + part.nbytes
        return found


def cache(metadata: Mapping[str, Any], use: Use) -> Cache:
    """What llama.cpp allocates for a context of a model with this GGUF metadata, without alignment of its tensors.

    Values may be plain or have the plain value as `.value`. The layers that predict further tokens are not counted:
    llama.cpp loads them only when asked. Raises RequestError for metadata that lacks what the arithmetic needs, and for
    a cache type whose blocks do not fit a layer's width, which llama.cpp refuses too.
    """
    if keep_nothing(metadata):
        return Cache(())
    layers = Layers.of(metadata)
    if layers.arch == "deepseek4":
        return Cache(tuple(_deepseek4(layers, use)))
    return Cache((*_attention(layers, use), *_indexer(layers, use), *_state(layers, use)))


def _attention(layers: Layers, use: Use) -> Iterator[Part]:
    widest = max((layers.value_width(i) for i in range(layers.total)), default=0)
    for i in range(layers.total):
        if not layers.attends[i]:
            continue
        cells = _window_cells(layers, use) if layers.windowed[i] else use.cells
        nbytes = _rows(layers.key_width(i), use.key_type, cells)
        if not layers.latent:
            width = layers.value_width(i) if use.flash else widest
            nbytes += _rows(width, use.value_type, cells)
        yield Part("window" if layers.windowed[i] else "context", i, nbytes * use.sequences)


def _indexer(layers: Layers, use: Use) -> Iterator[Part]:
    """An indexer's keys, of one head; and values as wide as a head, which llama.cpp allocates though it has no use for
    them, unless the model's own keys stand for both.
    """
    for i in range(layers.total):
        if layers.indexes[i]:
            nbytes = _rows(layers.indexer_width, use.key_type, use.cells)
            if not layers.latent and layers.arch not in facts.POOLED_ROW:
                nbytes += _rows(layers.value_length, use.value_type, use.cells)
            yield Part("indexer", i, nbytes * use.sequences)


def _state(layers: Layers, use: Use) -> Iterator[Part]:
    for i in range(layers.real):
        if layers.recurs[i]:
            width = layers.shift_width + layers.state_width + (layers.history_width if i in layers.history else 0)
            yield Part("state", i, F32.row_bytes(1) * width * use.sequences)


def _deepseek4(layers: Layers, use: Use) -> Iterator[Part]:
    """A window in every layer; in some, entries for every 4 tokens and an indexer's; in some, for every 128."""
    for i in range(layers.real):
        window = _rows(layers.key_width(i), use.key_type, _window_cells(layers, use))
        yield Part("window", i, window * use.sequences)
        ratio = layers.ratios[i]
        if ratio not in (facts.NEAR, facts.FAR):
            continue
        cells = _padded(-(-use.cells // ratio))
        widths = [layers.key_length] + [layers.indexer_width] * (ratio == facts.NEAR)
        heads = [layers.kv_heads[i]] + [1] * (ratio == facts.NEAR)
        kept = sum(_rows(w * h, use.key_type, cells) for w, h in zip(widths, heads, strict=True))
        yield Part("compressed", i, kept * use.sequences)
        overlap = 2 if ratio == facts.NEAR else 1
        numbers = sum(2 * (overlap * ratio) * (overlap * width) for width in widths)
        yield Part("state", i, 4 * numbers * use.sequences)


def _window_cells(layers: Layers, use: Use) -> int:
    """A window's length and the tokens that are computed with at a time, rounded up; never more than the context."""
    if use.whole_windows:
        return use.cells
    return _padded(min(use.cells, layers.window + min(use.batch, use.cells)))


def _rows(width: int, kind: TensorType, count: int) -> int:
    if width % kind.block_size:
        raise RequestError(f"a cache of {kind} needs widths that are multiples of {kind.block_size}, found {width}")
    return kind.row_bytes(width) * count


def _padded(count: int) -> int:
    return -(-count // PAD) * PAD
