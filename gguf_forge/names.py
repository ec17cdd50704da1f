"""What a GGUF tensor's name says: its kind, its layer, its place in a quantized file, whether it is ever quantized.

Knows names and shapes only; knows no types, recipes or files. The groups are those of llama.cpp's quantizer
(src/llama-quant.cpp: tensor_get_category, tensor_allows_quantization; src/llama-model-loader.h: the sort order).
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable, Sequence


class Kind(enum.Flag):
    """The kinds of tensor a recipe tells apart. Members combine with `|` to name several at once."""

    TOKEN_EMBD = enum.auto()
    ATTN_Q = enum.auto()
    ATTN_V = enum.auto()
    ATTN_K = enum.auto()
    ATTN_QKV = enum.auto()
    ATTN_KV_B = enum.auto()
    ATTN_OUTPUT = enum.auto()
    FFN_UP = enum.auto()
    FFN_GATE = enum.auto()
    FFN_DOWN = enum.auto()
    OUTPUT = enum.auto()
    OTHER = enum.auto()
    #: Every tensor that holds value projections: as sensitive as attn_v.
    VALUES = ATTN_V | ATTN_QKV | ATTN_KV_B
    FFN = FFN_UP | FFN_GATE | FFN_DOWN
    ANY = VALUES | FFN | TOKEN_EMBD | ATTN_Q | ATTN_K | ATTN_OUTPUT | OUTPUT | OTHER


EMBEDDINGS = ("token_embd.weight", "per_layer_token_embd.weight")
OUTPUT = "output.weight"

#: Parts of names, in the order they are looked for: the first found names the kind.
_KINDS = (
    ("attn_qkv.weight", Kind.ATTN_QKV),
    ("attn_kv_b.weight", Kind.ATTN_KV_B),
    ("attn_v.weight", Kind.ATTN_V),
    ("attn_k.weight", Kind.ATTN_K),
    ("attn_q.weight", Kind.ATTN_Q),
    ("attn_output.weight", Kind.ATTN_OUTPUT),
    ("ffn_up", Kind.FFN_UP),
    ("ffn_gate", Kind.FFN_GATE),
    ("ffn_down", Kind.FFN_DOWN),
)


def kind_of(name: str) -> Kind:
    """The kind of a tensor, by its GGUF name."""
    if name == OUTPUT:
        return Kind.OUTPUT
    if name in EMBEDDINGS:
        return Kind.TOKEN_EMBD
    return next((kind for part, kind in _KINDS if part in name), Kind.OTHER)


_LAYER = re.compile(r"blk\.(\d+)")


def layer_of(name: str) -> int | None:
    """The layer in a name that begins `blk.N`, or None."""
    found = _LAYER.match(name)
    return int(found[1]) if found else None


def quantize_order(names: Iterable[str]) -> list[str]:
    """The order in which llama-quantize writes tensors: those without a layer first, then by layer, each by bytes."""

    def place(name: str) -> tuple[int, bytes]:
        layer = layer_of(name)
        return (-1 if layer is None else layer, name.encode())

    return sorted(names, key=place)


#: Parts of names that keep the type they have in the source, and why.
_KEPT = (
    ("_norm.weight", "norm"),
    ("ffn_gate_inp.weight", "expert router"),
    ("ffn_gate_tid2eid.weight", "routing table"),
    ("altup", "very small"),
    ("laurel", "very small"),
    ("per_layer_model_proj", "small"),
    ("ssm_conv1d", "small convolution"),
    ("shortconv.conv.weight", "small convolution"),
    ("indexer.k_proj.weight", "small indexer"),
    ("indexer.q_proj.weight", "small indexer"),
    ("time_mix_first.weight", "small RWKV weight"),
    ("time_mix_w0.weight", "small RWKV weight"),
    ("time_mix_w1.weight", "small RWKV weight"),
    ("time_mix_w2.weight", "small RWKV weight"),
    ("time_mix_v0.weight", "small RWKV weight"),
    ("time_mix_v1.weight", "small RWKV weight"),
    ("time_mix_v2.weight", "small RWKV weight"),
    ("time_mix_a0.weight", "small RWKV weight"),
    ("time_mix_a1.weight", "small RWKV weight"),
    ("time_mix_a2.weight", "small RWKV weight"),
    ("time_mix_g1.weight", "small RWKV weight"),
    ("time_mix_g2.weight", "small RWKV weight"),
    ("time_mix_decay_w1.weight", "small RWKV weight"),
    ("time_mix_decay_w2.weight", "small RWKV weight"),
    ("time_mix_lerp_fused.weight", "small RWKV weight"),
    ("attn_rel_b.weight", "position bias"),
    (".position_embd", "position embedding"),
    ("sam.pos_embd", "position embedding"),
    ("sam.neck.", "vision neck"),
    ("sam.net_", "vision neck"),
    (".rel_pos", "position embedding"),
    (".patch_embd", "patch embedding"),
    (".patch_merger", "patch merger"),
    ("a.rvq.codebook", "audio codebook"),
    ("mm.a.code_embd", "audio codebook"),
)

_KEPT_NAMES = {"position_embd.weight": "position embedding", "token_types.weight": "token types"}

#: The same for one architecture only.
_KEPT_BY_ARCH = {
    "glm5-next": (
        "hc_",
        "indexer.attn_q_b",
        "indexer.attn_k",
        "indexer.proj",
        "indexer_compressor_gate",
        "indexer_compressor_ape",
        "ssm_f_a.weight",
        "ssm_f_b.weight",
        "ssm_g_a.weight",
        "ssm_g_b.weight",
        "ssm_beta.weight",
        "attn_kv_a_mqa.weight",
        "attn_k_b.weight",
        "attn_v_b.weight",
    )
}


def dimensions(shape: Sequence[int]) -> int:
    """Dimensions as ggml counts them: leading axes of length 1 (NumPy order) do not count; at least 1."""
    leading = next((i for i, length in enumerate(shape) if length != 1), len(shape))
    return max(1, len(shape) - leading)


def kept_as_is(name: str, shape: Sequence[int], arch: str = "") -> str | None:
    """Why a tensor is never quantized, or None when it may be. `shape` in NumPy order."""
    if dimensions(shape) < 2:
        return "one-dimensional"
    if not name.endswith("weight"):
        return "not a weight"
    if name in _KEPT_NAMES:
        return _KEPT_NAMES[name]
    for part, why in _KEPT:
        if part in name:
            return why
    if any(part in name for part in _KEPT_BY_ARCH.get(arch, ())):
        return f"kept in {arch}"
    return None
