"""EXL2: inputs in an order of their own, in groups of 2 to 8 bits each.

`q_weight` I32 (words, out) packs the inputs, in that order, group by group, each group's codes from the least
significant bit on; `q_groups` I16 (2 * groups): bits and the first row of words of each group; `q_invperm` I32 (in):
the place of each input in the order; `q_scale` I32 (groups, out / 8), 4 bits each, beside `q_scale_max` F16 (groups).
A scale is half((s + 1)^2) * half(max / 256), a weight (code - 2^(bits - 1)) * scale, all in halves: each is a number of
F16. Read off exllamav2 (cuda/q_matrix.cu, cuda/quant/qdq_util.cuh).
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np

from gguf_forge.source.packed.bits import dense
from gguf_forge.source.packed.form import Array, Blocks, PackedTensor, require, require_words
from gguf_forge.source.packed.slabs import columns
from gguf_forge.source.tensor import SourceTensor
from gguf_forge.types import tensor_type

F16 = tensor_type("F16")

ENDINGS = ("q_weight", "q_groups", "q_invperm", "q_scale", "q_scale_max", "q_group_map", "q_perm")


def packed(module: str, parts: Mapping[str, SourceTensor], config: Mapping[str, Any]) -> PackedTensor:
    """One layer's weight. CheckpointError where its tensors disagree."""
    weight, scale = parts["q_weight"], parts["q_scale"]
    most = parts["q_scale_max"]
    for name in ("q_weight", "q_scale", "q_invperm"):
        require_words(parts[name])
    require(
        weight.dtype == scale.dtype and len(weight.shape) == len(scale.shape) == 2, weight, "must be a matrix of words"
    )
    require(parts["q_groups"].dtype == "I16", parts["q_groups"], "must be numbers of 16 bits")
    require(most.dtype == "F16", most, "must be halves")
    pairs = parts["q_groups"].read().reshape(-1, 2).astype(np.int64)
    edges = [*pairs[:, 1].tolist(), weight.shape[0]]
    spans = list(zip(pairs[:, 0].tolist(), pairwise(edges), strict=True))
    sound = all(1 <= bits <= 8 for bits, _ in spans) and edges == sorted(edges) and edges[0] == 0
    require(sound, parts["q_groups"], "must be widths of 1 to 8 bits, each with the row where its group begins")
    counts = [(high - low) * 32 // bits for bits, (low, high) in spans]
    place = np.asarray(parts["q_invperm"].read(), np.int64)
    inputs, out = place.size, scale.shape[1] * 8
    require(sum(counts) == inputs, weight, f"its groups are of {sum(counts)} inputs, and q_invperm has {inputs}")
    require(scale.shape[0] == len(counts), scale, f"must be for {len(counts)} groups")
    require(bool((np.sort(place) == np.arange(inputs)).all()), parts["q_invperm"], "must name each place once")
    require(most.shape == (len(counts),), most, f"must be a scale for each of {len(counts)} groups")
    largest = (most.read().astype(np.float16) / np.float16(256)).astype(np.float16)
    group_of = np.repeat(np.arange(len(counts)), counts)
    read, read_scale = columns(weight), columns(scale)
    true_out = _outputs(weight, out)

    def values(start: int, stop: int) -> Array:
        words = np.ascontiguousarray(read(start, stop).T)
        codes = np.concatenate(
            [
                dense(np.ascontiguousarray(words[:, low:high]), bits).astype(np.int16) - (1 << (bits - 1))
                for bits, (low, high) in spans
            ],
            axis=1,
        )
        low, high = start // 8, -(-stop // 8)
        small = dense(read_scale(low, high), 4)[:, start - low * 8 : stop - low * 8].astype(np.int32) + 1
        scales = (small * small).astype(np.float16) * largest[:, None]
        return np.ascontiguousarray((codes.astype(np.float16) * scales.T[:, group_of])[:, place])

    return PackedTensor(
        f"{module}.weight",
        (true_out, inputs),
        "EXL2",
        weight,
        lambda start, stop: values(start, stop).astype(np.float32),
        "F16",
        blocks=Blocks(F16, lambda start, stop: values(start, stop).view(np.uint8)),
        why="inputs are in an order of their own, in groups of several widths",
    )


def _outputs(weight: SourceTensor, padded: int) -> int:
    require(weight.shape[1] == padded, weight, f"scales say {padded} outputs")
    return padded
