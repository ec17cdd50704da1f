"""The importance matrix of a model and a text, all of it, beside llama-imatrix's own: `make test-runtime`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import gguf_forge
from gguf_forge.quality.calibrate import CalibrationRun, make_imatrix
from gguf_forge.quality.library import library
from gguf_forge.quant.imatrix import load_imatrix
from tests.quality.conftest import FIXTURES, TEXT
from tests.quality.test_calibrate import GOLDEN

pytest.importorskip("xllamacpp", reason="needs xllamacpp: make test-runtime")
pytestmark = pytest.mark.runtime


def test_the_matrix_is_that_of_llama_imatrix(tmp_path: Path) -> None:
    model, out = tmp_path / "model.gguf", tmp_path / "imatrix.gguf"
    gguf_forge.convert_checkpoint(FIXTURES / "models" / "PyLlama-7M", model, "f16")
    done = make_imatrix(model, out, CalibrationRun([TEXT], context=256, threads=1))
    found, golden = load_imatrix(out), load_imatrix(GOLDEN)
    assert (found.chunks, found.chunk_size, done.tokens) == (golden.chunks, golden.chunk_size, 139 * 256)
    assert list(found.entries) == list(golden.entries)
    system = library().ffi.string(library().llama_print_system_info())
    same = b"AVX2 = 1" in system and b"AVX512" not in system  # as where the golden file was made
    for name, entry in golden.entries.items():
        assert np.array_equal(found.entries[name].counts, entry.counts)
        assert np.allclose(found.entries[name].sums, entry.sums, rtol=0 if same else 1e-3, atol=0), name
