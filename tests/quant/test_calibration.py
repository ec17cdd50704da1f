"""Calibration files made by hand: what is written is read again, and files that contradict themselves are refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gguf_forge
from gguf_forge import values
from gguf_forge.errors import RecipeError
from gguf_forge.quant.calibration import (
    SIDE,
    WINDOWS,
    Calibration,
    Moments,
    calibration_metadata,
    calibration_tensors,
    triangle,
)
from gguf_forge.quant.imatrix import Entry, Imatrix, load_imatrix, save_imatrix

Q, K, EXPERTS = "blk.0.attn_q.weight", "blk.0.attn_k.weight", "blk.0.ffn_up_exps.weight"


def packed(matrix: np.ndarray) -> np.ndarray:
    """The upper triangle of a symmetric matrix in tiles, tile by tile as the format says."""
    count = -(-len(matrix) // SIDE)
    padded = np.zeros((count * SIDE, count * SIDE), np.float32)
    padded[: len(matrix), : len(matrix)] = matrix
    tiles = [
        padded[i * SIDE : (i + 1) * SIDE, j * SIDE : (j + 1) * SIDE].ravel()
        for i in range(count)
        for j in range(i, count)
    ]
    return np.stack(tiles)


def symmetric(width: int, seed: int) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((width + 3, width)).astype(np.float32)
    return (rows.T @ rows).astype(np.float32)


PARTS = [symmetric(20, 1), symmetric(40, 2)]
EXPERT = [symmetric(24, 3), np.zeros((24, 24), np.float32), symmetric(24, 4)]
MOMENTS = [
    Moments([Q, K], [20, 40], np.array([10], np.int64), np.concatenate([packed(part) for part in PARTS])[None]),
    Moments([EXPERTS], [24], np.array([7, 0, 9], np.int64), np.stack([packed(part) for part in EXPERT])),
]
TEXT = np.arange(10, dtype=np.int32).reshape(2, 5)


def written(path: Path, metadata: Mapping[str, Any] = {}, tensors: Mapping[str, Any] = {}) -> Path:
    entry = Entry(np.ones((1, 60), np.float32), np.array([10]))
    imatrix = Imatrix(str(path), {Q: entry, K: entry}, ("text",), 1, 10)
    keys = {**calibration_metadata(MOMENTS, {"tokens": values.u64(10)}), **metadata}
    arrays = {**calibration_tensors(MOMENTS, TEXT), **tensors}
    kept = {name: data for name, data in arrays.items() if data is not None}
    save_imatrix(imatrix, path, metadata={k: v for k, v in keys.items() if v is not None}, tensors=kept)
    return path


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = written(tmp_path / "c.gguf")
    with Calibration.open(path) as calibration:
        assert calibration.names == [Q, K, EXPERTS]
        q, k = calibration.covariance(Q), calibration.covariance(K)
        assert q is not None
        assert k is not None
        assert (q.width, q.tokens, q.shared_key) == (60, 10, k.shared_key)
        assert [start for start, _ in q.blocks] == [0, 20]
        for (_, block), part in zip(q.blocks, PARTS, strict=True):
            assert np.array_equal(block, part / np.float32(10))
        assert [calibration.tokens(EXPERTS, expert) for expert in range(3)] == [7, 0, 9]
        assert calibration.covariance(EXPERTS, 1) is None
        first, last = calibration.covariance(EXPERTS, 0), calibration.covariance(EXPERTS, 2)
        assert first is not None
        assert last is not None
        assert np.array_equal(last.blocks[0][1], EXPERT[2] / np.float32(9))
        assert first.shared_key != last.shared_key
        assert calibration.covariance("output.weight") is None
        assert calibration.tokens("output.weight") == 0
        assert calibration.metadata["forge.calibration.tokens"] == 10
        assert calibration.imatrix.weights(Q) is not None
        windows = calibration.windows()
        assert windows is not None
        assert np.array_equal(windows, TEXT)
    assert list(load_imatrix(path).entries) == [K, Q]


def test_a_file_of_before_texts_were_recorded_has_none(tmp_path: Path) -> None:
    with Calibration.open(written(tmp_path / "c.gguf", tensors={WINDOWS: None})) as calibration:
        assert calibration.windows() is None
        assert calibration.covariance(Q) is not None


def test_the_hash_is_that_of_the_file(tmp_path: Path) -> None:
    import hashlib

    path = written(tmp_path / "c.gguf")
    with Calibration.open(path) as calibration:
        assert calibration.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def changed(data: np.ndarray, change: Callable[[np.ndarray], object]) -> np.ndarray:
    copy = data.copy()
    change(copy)
    return copy


def negative_square(tiles: np.ndarray) -> None:
    tiles[0, 0, 0] = -1


def nan(tiles: np.ndarray) -> None:
    tiles[0, 2, 17] = np.nan


COV, BLOCKS, TOKENS = Q + ".cov", Q + ".cov_blocks", Q + ".cov_tokens"
TILES = MOMENTS[0].tiles
BAD: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "no version": ({"forge.calibration.version": None}, {}, "no calibration of version 1"),
    "another version": ({"forge.calibration.version": values.u32(2)}, {}, "no calibration of version 1"),
    "no inputs": ({"forge.calibration.inputs": None}, {}, 'key "forge.calibration.inputs": missing'),
    "inputs are numbers": ({"forge.calibration.inputs": values.u32(3)}, {}, "not an array of strings"),
    "fewer inputs": ({"forge.calibration.inputs": values.strings([Q])}, {}, "3 weights and 1 inputs"),
    "no such input": ({"forge.calibration.inputs": values.strings(["a", "b", "c"])}, {}, "is missing"),
    "no tokens": ({}, {TOKENS: None}, "is missing"),
    "no blocks": ({}, {BLOCKS: None}, "is missing"),
    "half floats": ({}, {COV: TILES.astype(np.float16)}, "types F16, I32, I64"),
    "a block of nothing": ({}, {BLOCKS: np.array([0, 60], np.int32)}, "block widths that are none"),
    "a negative block": ({}, {BLOCKS: np.array([-4, 64], np.int32)}, "block widths that are none"),
    "endless blocks": ({}, {BLOCKS: np.array([2**31 - 1] * 3, np.int32)}, "block widths that are none"),
    "other blocks": ({}, {BLOCKS: np.array([60, 40], np.int32)}, r"not \(1, 16, 256\)"),
    "too few tiles": ({}, {COV: TILES[:, :-1]}, r"not \(1, 9, 256\)"),
    "tiles of another size": ({}, {COV: TILES.reshape(1, -1, 128)}, r"not \(1, 9, 256\)"),
    "negative tokens": ({}, {TOKENS: np.array([-1], np.int64)}, "numbers of tokens that are none"),
    "tokens of two": ({}, {TOKENS: np.array([1, 1], np.int64)}, r"not \(2, 9, 256\)"),
    "a negative square": ({}, {COV: changed(TILES, negative_square)}, "a negative square"),
    "a text of floats": ({}, {WINDOWS: TEXT.astype(np.float32)}, "F32 .*, not I32"),
    "a text of three axes": ({}, {WINDOWS: TEXT[None].repeat(2, 0)}, r"I32 \(2, 2, 5\), not I32"),
    "a negative token": ({}, {WINDOWS: TEXT - 1}, "token -1"),
    "not a number": ({}, {COV: changed(TILES, nan)}, "not finite"),
}


def read_all(path: Path) -> None:
    with Calibration.open(path) as calibration:
        calibration.windows()
        calibration.covariance(Q)


@pytest.mark.parametrize("what", BAD)
def test_a_file_that_contradicts_itself_is_refused(what: str, tmp_path: Path) -> None:
    metadata, tensors, said = BAD[what]
    path = written(tmp_path / "c.gguf", metadata, tensors)
    with pytest.raises(RecipeError, match=said):
        read_all(path)


def test_what_is_no_calibration_is_refused(tmp_path: Path) -> None:
    plain = tmp_path / "imatrix.gguf"
    entry = Entry(np.ones((1, 60), np.float32), np.array([10]))
    save_imatrix(Imatrix("", {Q: entry}, (), 1, 10), plain)
    with pytest.raises(RecipeError, match="no calibration of version 1"):
        Calibration.open(plain)
    old = tmp_path / "old.dat"
    save_imatrix(Imatrix("", {Q: entry}, (), 1, 10), old, legacy=True)
    with pytest.raises(RecipeError, match="it has no covariances"):
        Calibration.open(old)
    with gguf_forge.GGUFWriter(tmp_path / "model.gguf", {"general.architecture": "llama"}):
        pass
    with pytest.raises(RecipeError, match="no importance matrix"):
        Calibration.open(tmp_path / "model.gguf")


def test_a_triangle_has_a_tile_for_each_pair() -> None:
    assert [triangle(width) for width in (1, 16, 17, 32, 33, 4096)] == [1, 1, 3, 3, 6, 256 * 257 // 2]
