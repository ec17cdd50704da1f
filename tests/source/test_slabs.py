"""Columns of a matrix in a file: read together, by whichever threads wait for them, and given as they are."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from gguf_forge import _native
from gguf_forge.errors import ForgeError
from gguf_forge.source.checkpoint import open_checkpoint
from gguf_forge.source.packed import slabs
from gguf_forge.source.tensor import SourceTensor
from tests.source.containers import entry, safetensors_bytes

VALUES = np.random.default_rng(0).integers(-(2**31), 2**31, (37, 50), dtype=np.int32)


@pytest.fixture(params=[0, 50 * 4], ids=["by pieces", "by rows"])
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Path:
    """A checkpoint of one matrix, read in slabs of 7 columns, by calls for each row or for whole rows."""
    monkeypatch.setattr(slabs, "_CHEAP_BYTES", request.param)
    monkeypatch.setattr(slabs, "_SLAB_BYTES", 7 * 37 * 4)
    monkeypatch.setattr(slabs, "_PIECE_BYTES", 3 * 7 * 4)
    made = tmp_path / "model.safetensors"
    made.write_bytes(safetensors_bytes({"words": entry("I32", VALUES.shape, (0, VALUES.nbytes))}, VALUES.tobytes()))
    return made


def test_columns_are_those_of_the_matrix_in_any_thread(path: Path) -> None:
    with open_checkpoint(path) as checkpoint, ThreadPoolExecutor(4) as pool:
        tensor = checkpoint.tensors["words"]
        assert isinstance(tensor, SourceTensor)
        read = slabs.columns(tensor)
        spans = [(start, stop) for start in range(0, 50, 3) for stop in (start + 1, min(50, start + 12))]
        for (start, stop), found in zip(spans * 4, pool.map(lambda span: read(*span), spans * 4), strict=True):
            assert np.array_equal(found, VALUES[:, start:stop])


@pytest.mark.parametrize("most", [0, 2])
def test_pieces_that_the_core_leaves_are_read_one_by_one(
    path: Path, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on Windows, where it reads none, and behind a piece that a signal cut short."""
    read_strided = _native.read_strided
    monkeypatch.setattr(_native, "read_strided", lambda fd, at, on, out: read_strided(fd, at, on, out[:most]))
    with open_checkpoint(path) as checkpoint:
        tensor = checkpoint.tensors["words"]
        assert isinstance(tensor, SourceTensor)
        assert np.array_equal(slabs.columns(tensor)(5, 23), VALUES[:, 5:23])


def test_a_file_cut_meanwhile_is_an_error_in_every_thread(path: Path) -> None:
    with open_checkpoint(path) as checkpoint, ThreadPoolExecutor(4) as pool:
        tensor = checkpoint.tensors["words"]
        assert isinstance(tensor, SourceTensor)
        read = slabs.columns(tensor)
        with path.open("r+b") as file:
            file.truncate(path.stat().st_size - 2000)
        for future in [pool.submit(read, 0, 7) for _ in range(8)]:
            with pytest.raises(ForgeError, match=r"changed|missing"):
                future.result()
