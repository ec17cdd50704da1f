"""Whether a model's tensors, metadata and configuration say the same: what a converted file would fail or mislead by.

Knows GGUF's keys and tensor names. Must not know families, files, or values of weights. A contradiction is a note, not
an error: the file is what the checkpoint says.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gguf_forge.convert.arch import Arch
from gguf_forge.convert.rope import rope_of
from gguf_forge.convert.view import View
from gguf_forge.format.values import Value

_HEADED = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")


def contradictions(views: Sequence[View], metadata: Mapping[str, Value], arch: str) -> list[str]:
    """Tensors whose shapes are not those the metadata gives, one line a kind (of many layers, the first)."""
    expected = dict(_widths(metadata, arch))
    tokens = metadata.get("tokenizer.ggml.tokens")
    found: dict[str, str] = {}
    for view in views:
        kind = view.name.split(".", 2)[2] if view.name.startswith("blk.") else view.name
        for axis, key, wanted in expected.get(kind, ()):
            if len(view.shape) >= -axis and view.shape[axis] != wanted:
                found.setdefault(kind, f"{view.name} {list(view.shape)} does not fit {key} ({wanted} expected)")
        if view.name == "token_embd.weight" and tokens is not None and view.shape[0] != len(tokens.value):
            count = len(tokens.value)
            found["tokens"] = f"{view.name} has {view.shape[0]} rows, the vocabulary {count} tokens; it may not load"
    return list(found.values())


def _widths(metadata: Mapping[str, Value], arch: str) -> Iterator[tuple[str, list[tuple[int, str, int]]]]:
    """Kind of tensor, and of it (axis, key, size): what follows from keys that hold one number for all layers."""

    def number(key: str) -> int | None:
        value = metadata.get(f"{arch}.{key}")
        return value.value if value is not None and isinstance(value.value, int) else None

    width, wide = number("embedding_length"), number("feed_forward_length")
    if width is not None:
        yield "token_embd.weight", [(-1, "embedding_length", width)]
    if wide is not None:
        yield "ffn_down.weight", [(-1, "feed_forward_length", wide)]
    experts = number("expert_feed_forward_length")
    if experts is not None:
        yield "ffn_down_exps.weight", [(-1, "expert_feed_forward_length", experts)]
    heads = number("attention.head_count")
    if not heads or width is None:
        return
    heads_kv = number("attention.head_count_kv") or heads
    key = number("attention.key_length") or width // heads
    value = number("attention.value_length") or width // heads
    yield "attn_q.weight", [(-2, "attention.head_count", heads * key)]
    yield "attn_k.weight", [(-2, "attention.head_count_kv", heads_kv * key)]
    yield "attn_v.weight", [(-2, "attention.head_count_kv", heads_kv * value)]
    yield "attn_qkv.weight", [(-2, "attention.head_count", heads * key + heads_kv * (key + value))]
    yield "attn_output.weight", [(-1, "attention.head_count", heads * value)]


def unsaid(config: Mapping[str, Any], views: Sequence[View], metadata: Mapping[str, Value], arch: Arch) -> list[str]:
    """What the configuration says of how the model computes, and neither tensors nor metadata can."""
    found = []
    for key, meant in arch.implied:
        value = config.get(key)
        if value is not None and value not in meant:
            found.append(f"config.json: {key} is {value!r}; {arch.name} in GGUF means {meant[0]!r}")
    headed = str((config.get("architectures") or [""])[0]).endswith(_HEADED)
    names = {v.name for v in views}
    if headed and config.get("tie_word_embeddings") is False and not names & {"output.weight", "cls.output.weight"}:
        found.append("config.json: tie_word_embeddings is false, but there is no lm_head; the embedding serves instead")
    if headed and "cls.output.weight" in names:
        found.append("a reranker, by its name or model card: its answers' rows of the output are cls.output.weight")
    part = rope_of(config).get("partial_rotary_factor")
    if isinstance(part, (int, float)) and part not in (0, 1) and not _is_partial(metadata, arch.name, part):
        found.append(f"config.json: partial_rotary_factor {part} has no key for {arch.name}; whole heads will turn")
    return found


def _is_partial(metadata: Mapping[str, Value], arch: str, part: float) -> bool:
    turned, size = (metadata.get(f"{arch}.{k}") for k in ("rope.dimension_count", "attention.key_length"))
    if turned is None:
        return False
    width, heads = (metadata[f"{arch}.{k}"].value for k in ("embedding_length", "attention.head_count"))
    whole = size.value if size is not None else width // heads
    return bool(turned.value == int(whole * part))


__all__ = ["contradictions", "unsaid"]
