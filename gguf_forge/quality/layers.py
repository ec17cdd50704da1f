"""The layers of a model as its cache sees them: widths of keys and values, windows, states. From GGUF metadata only.

Reads the tables of `cache_facts.py`; must not know bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from gguf_forge.errors import RequestError
from gguf_forge.quality import cache_facts as facts

#: The most layers, and the largest number, that are believed.
MOST_LAYERS, MOST = 4096, 1 << 40


class Keys:
    """Metadata of one architecture: numbers and lists by key without its prefix; RequestError for what is neither."""

    def __init__(self, metadata: Mapping[str, Any]) -> None:
        arch = _plain(metadata.get("general.architecture"))
        if not isinstance(arch, str):
            raise RequestError("general.architecture is missing: what a model keeps of a context depends on it")
        self.arch = arch
        self._metadata = metadata

    def get(self, key: str) -> Any:
        """The plain value, or None."""
        return _plain(self._metadata.get(f"{self.arch}.{key}"))

    def number(self, key: str, default: int | None = None) -> int:
        """A number; of a list its first."""
        value = self.get(key)
        if _is_list(value):
            value = value[0] if len(value) else None
        if value is None and default is not None:
            return default
        return self._whole(key, value)

    def each(self, key: str, count: int, default: Sequence[int]) -> list[int]:
        """A number for each layer: as listed, the same for all, or the default."""
        value = self.get(key)
        if value is None:
            return list(default)
        if not _is_list(value):
            return [self._whole(key, value)] * count
        if len(value) < count:
            raise RequestError(f"{self.arch}.{key} lists {len(value)} numbers for {count} layers")
        return [self._whole(key, one) for one in value[:count]]

    def listed(self, key: str) -> list[int]:
        """The numbers of a list; none where there is no list."""
        value = self.get(key)
        return [self._whole(key, one) for one in value] if _is_list(value) else []

    def _whole(self, key: str, value: Any) -> int:
        try:
            number = int(value)
        except (TypeError, ValueError, OverflowError):
            found = "missing" if value is None else "not a number"
            raise RequestError(f"{self.arch}.{key} is {found}: what a model keeps of a context depends on it") from None
        if not 0 <= number <= MOST:
            raise RequestError(f"{self.arch}.{key} is {number}, which no model has")
        return number


@dataclass(frozen=True)
class Layers:
    """total: layers of the file, real: without those that predict further tokens. The lists have one entry a layer.

    key_length, value_length: of one head; key_length_window, value_length_window: in layers with a window.
    latent: keys stand for values too (MLA). window: tokens. shift_width, state_width, history_width: float32 numbers
    of a recurrent layer's state; the last in the layers of `history` only.
    """

    arch: str
    total: int
    real: int
    kv_heads: list[int]
    key_length: int
    value_length: int
    key_length_window: int
    value_length_window: int
    latent: bool
    window: int
    attends: list[bool]
    windowed: list[bool]
    recurs: list[bool]
    indexes: list[bool]
    indexer_width: int
    ratios: list[int]
    shift_width: int
    state_width: int
    history_width: int
    history: list[int]

    @classmethod
    def of(cls, metadata: Mapping[str, Any]) -> Layers:
        """From metadata. RequestError where a number is missing or absurd."""
        keys = Keys(metadata)
        total = keys.number("block_count")
        if not 0 < total <= MOST_LAYERS:
            raise RequestError(f"{keys.arch}.block_count is {total}")
        real = total - min(total, keys.number("nextn_predict_layers", 0))
        heads = keys.each("attention.head_count", total, [0] * total)
        kv_heads = keys.each("attention.head_count_kv", total, heads)
        head = keys.number("embedding_length") // heads[0] if heads[0] else 0
        key = keys.number("attention.key_length", head) if heads[0] else 0
        value = keys.number("attention.value_length", head) if heads[0] else 0
        if keys.arch in ("kimi-k3", "glm5-next"):
            value = keys.number("attention.kv_lora_rank", value)
        recurs = _recurrent(keys, real, total, kv_heads)
        window, windowed = _windows(keys, real, total, recurs)
        ratios = keys.each("attention.compress_ratios", total, [0] * total)
        layers = cls(
            keys.arch, total, real, kv_heads, key, value,
            keys.number("attention.key_length_swa", key), keys.number("attention.value_length_swa", value),
            bool(keys.number("attention.key_length_mla", 0)) and bool(keys.number("attention.value_length_mla", 0)),
            window, _attending(keys, real, total, kv_heads, recurs), windowed, recurs,
            _indexing(keys, real, total, recurs), _indexer_width(keys, ratios), ratios,
            *_state_widths(keys, heads[0], key), keys.listed("ple.layers"),
        )  # fmt: skip
        return layers._expanded(keys)

    def key_width(self, i: int) -> int:
        """Numbers in a token's keys, all heads together."""
        return self.kv_heads[i] * (self.key_length_window if self.windowed[i] else self.key_length)

    def value_width(self, i: int) -> int:
        """Numbers in a token's values, all heads together."""
        return self.kv_heads[i] * (self.value_length_window if self.windowed[i] else self.value_length)

    def _expanded(self, keys: Keys) -> Layers:
        """With the layers that a file does not count: a router's, and those run through again."""
        if self.arch == "graniteswitch":
            return self._with(range(self.total), [1])
        loops = keys.number("num_loops", 1) if self.arch == "nanbeige" else 1
        if loops * self.total > MOST_LAYERS:
            raise RequestError(f"{self.arch}.num_loops is {loops}")
        return self if loops == 1 else self._with([*range(self.total)] * loops, [])

    def _with(self, order: Sequence[int], more_heads: Sequence[int]) -> Layers:
        count, more = len(order) + len(more_heads), len(more_heads)
        return replace(
            self,
            total=count,
            real=count - more,
            kv_heads=[*(self.kv_heads[i] for i in order), *more_heads],
            attends=[*(self.attends[i] for i in order), *([True] * more)],
            windowed=[*(self.windowed[i] for i in order), *([False] * more)],
            recurs=[*(self.recurs[i] for i in order), *([False] * more)],
            indexes=[*(self.indexes[i] for i in order), *([False] * more)],
            ratios=[*(self.ratios[i] for i in order), *([0] * more)],
        )


def keep_nothing(metadata: Mapping[str, Any]) -> bool:
    """Whether a model keeps nothing of a context, so that there is no cache."""
    keys = Keys(metadata)
    if keys.arch in facts.WITHOUT_CACHE:
        return True
    return keys.arch == "lfm2" and not keys.number("attention.causal", 1) and keys.number("decision.block_count", 0) > 0


def _recurrent(keys: Keys, real: int, total: int, kv_heads: Sequence[int]) -> list[bool]:
    arch = keys.arch
    if arch in facts.RECURRENT or arch in facts.BOTH:
        return [i < real for i in range(total)]
    if arch in facts.HYBRID:
        return [i < real and not kv_heads[i] for i in range(total)]
    if arch in facts.ONE_PART_LAYERS:
        forward = keys.each("feed_forward_length", total, [0] * total)
        return [i < real and not kv_heads[i] and not forward[i] for i in range(total)]
    if arch in facts.INTERVALS:
        interval = keys.number("full_attention_interval", facts.INTERVALS[arch]) or 1
        usual = [int(i < real and (i + 1) % interval != 0) for i in range(total)]
        return [bool(one) and i < real for i, one in enumerate(keys.each("attention.recurrent_layers", total, usual))]
    return [False] * total


def _attending(keys: Keys, real: int, total: int, kv_heads: Sequence[int], recurs: Sequence[bool]) -> list[bool]:
    arch = keys.arch
    if arch in facts.RECURRENT:
        return [False] * total
    if arch in facts.BOTH:
        return [True] * total
    if arch in facts.ONE_PART_LAYERS:
        forward = keys.each("feed_forward_length", total, [0] * total)
        return [not recurs[i] and not forward[i] for i in range(total)]
    if arch in facts.HYBRID and arch != "glm5-next":
        return [not recurs[i] for i in range(total)]
    sharing = 0
    if arch == "gemma3n":
        sharing = max(0, total - 20)
    elif arch == "gemma4":
        sharing = keys.number("attention.shared_kv_layers", 0)
    # Where all layers predict further tokens, they are the model.
    last = min(real if real else total, total - sharing)
    return [i < last and not recurs[i] for i in range(total)]


def _windows(keys: Keys, real: int, total: int, recurs: Sequence[bool]) -> tuple[int, list[bool]]:
    """The window's length, 0 without one, and which layers keep no more than it."""
    none = [False] * total
    window = keys.number("attention.sliding_window", 0)
    if keys.arch in ("lfm2", "lfm2moe"):
        return (window, [i < real and not recurs[i] for i in range(total)]) if window else (0, none)
    if keys.arch == "deepseek4" or (keys.arch == "dflash" and keys.number("hyper_connection.count", 0)):
        return window, [True] * total
    rule = facts.WINDOWS.get(keys.arch)
    said = keys.get("attention.sliding_window") is not None
    if rule is None or (rule.layers not in (None, real)) or (said and not window and not rule.window):
        return 0, none
    if rule.fixed:
        if said and not window:
            return 0, none
        window = rule.window
    window = window or (rule.window if not said else 0)
    if not window:
        return 0, none
    window = facts.FIXED_WINDOW.get(keys.arch, window)
    listed = keys.get("attention.sliding_window_pattern")
    if _is_list(listed):
        found = [bool(one) for one in listed[:total]]
        return window, found + [False] * (total - len(found))
    if rule.period is None:
        return 0, none
    period = keys.number("attention.sliding_window_pattern", rule.period)
    return window, [i < real and _in_window(i, period, rule.dense_first) for i in range(total)]


def _in_window(i: int, period: int, dense_first: bool) -> bool:
    if period == 0:
        return True
    return i % period != 0 if dense_first else i % period < period - 1


def _indexing(keys: Keys, real: int, total: int, recurs: Sequence[bool]) -> list[bool]:
    arch = keys.arch
    if arch not in facts.INDEXED or not keys.number("attention.indexer.key_length", 0):
        return [False] * total
    if arch == "hy_v4" and not keys.number("attention.indexer.top_k", 0):
        return [False] * total
    if arch == "minimax-m3":
        lead = keys.number("leading_dense_block_count", 0)
        return [lead <= i for i in range(total)]
    usual = [1] * real
    if arch == "glm-dsa" and keys.number("context_length", 0) >= 1 << 20:
        usual = [int(i < 2 or (i - 2) % 4 == 0) for i in range(real)]
    elif arch in ("hy_v4", "dots3note"):
        usual = [0] * real
    own = usual if arch in ("deepseek32", "qwen4exp") else keys.each("attention.indexer.types", real, usual)
    return [i < real and not recurs[i] and bool(own[i]) for i in range(total)]


def _indexer_width(keys: Keys, ratios: Sequence[int]) -> int:
    """Numbers in a token's row of the indexer's cache; keys that are pooled lie beside what they are pooled from."""
    width = keys.number("attention.indexer.key_length", 0)
    pools = keys.arch == "glm5-next" or (keys.arch == "qwen4exp" and any(ratios))
    return width * facts.POOLED_ROW[keys.arch] if pools else width


def _state_widths(keys: Keys, heads: int, key_length: int) -> tuple[int, int, int]:
    """Numbers of a recurrent layer: of its convolution or shift, of its state, of a history that some layers have."""
    width, kernel = keys.number("embedding_length"), keys.number("ssm.conv_kernel", 0)
    wkv, inner = keys.number("wkv.head_size", 0), keys.number("ssm.inner_size", 0)
    kda, kept = keys.number("kda.head_dim", 0), keys.number("ssm.state_size", 0)
    if wkv:
        return keys.number("token_shift_count", 2) * width, width * wkv, 0
    shift = max(0, kernel - 1) * (inner + 2 * keys.number("ssm.group_count", 0) * kept)
    if kda:
        return 3 * (kernel - 1 if kernel else 3) * heads * kda, kda * kda * heads, 0
    if keys.get("shortconv.l_cache") is not None:
        return width * max(0, keys.number("shortconv.l_cache") - 1), kept * inner, 0
    if keys.arch == "minimax-01":
        return shift, key_length * key_length * heads, 0
    grams, kernel = keys.number("ple.ngram_size", 0), keys.number("ple.conv_kernel", 0)
    history = max(0, kernel - 1) * grams * keys.number("hyper_connection.count", 0) * width
    return shift, kept * inner, history


def _plain(value: Any) -> Any:
    return getattr(value, "value", value)


def _is_list(value: Any) -> bool:
    return value is not None and not isinstance(value, (str, bytes, int, float, bool)) and hasattr(value, "__len__")
