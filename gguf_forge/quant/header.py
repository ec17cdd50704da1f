"""The metadata of a quantized file, made of its source's as llama-quantize does. Knows keys and values, no tensors."""

from __future__ import annotations

from collections.abc import Mapping

from gguf_forge.errors import as_utf8
from gguf_forge.format.shards import SPLIT_KEYS
from gguf_forge.format.values import Value, string, u32, u64
from gguf_forge.quant.calibration import Calibration
from gguf_forge.quant.imatrix import Imatrix
from gguf_forge.quant.recipe import Recipe

#: The version of the block formats, of which llama.cpp has had two.
QUANTIZATION_VERSION = 2
#: llama-quantize hands strings on in 128 bytes with a closing NUL.
MAX_STRING_BYTES = 127


def quantized_metadata(
    metadata: Mapping[str, Value],
    which: Recipe | None,
    *,
    imatrix: Imatrix | None = None,
    overrides: Mapping[str, Value] | None = None,
) -> dict[str, Value]:
    """A copy of a source's metadata in the order of the quantized file.

    Without the keys of a split set; then, moved to the end or added there, the version of the block formats, the
    recipe's file type (None: as in the source), `overrides`, and where `imatrix` has entries what is known of it.
    """
    out = {key: value for key, value in metadata.items() if key not in SPLIT_KEYS}
    file_type = metadata.get("general.file_type") if which is None else u32(which.ftype)
    added = {"general.quantization_version": u32(QUANTIZATION_VERSION)}
    if file_type is not None:
        added["general.file_type"] = file_type
    for more in (added, overrides or {}, imatrix_metadata(imatrix)):
        for key, value in more.items():
            out.pop(key, None)
            out[key] = value
    return out


def imatrix_metadata(imatrix: Imatrix | None) -> dict[str, Value]:
    """What a quantized file records of the importance matrix used: its path as given, data set, entries, chunks."""
    if imatrix is None or not imatrix.entries:
        return {}
    keys = {"quantize.imatrix.file": string(_cut(imatrix.path))}
    if imatrix.datasets:
        keys["quantize.imatrix.dataset"] = string(_cut(imatrix.datasets[0]))
    keys["quantize.imatrix.entries_count"] = u32(len(imatrix.entries) + imatrix.left_out)
    if imatrix.chunks > 0:
        keys["quantize.imatrix.chunks_count"] = u32(imatrix.chunks)
    return keys


def fit_metadata(effort: str, calibration: Calibration | None) -> dict[str, Value]:
    """What a file records of having been fitted: the effort, and of the calibration its hash and tokens."""
    keys = {"quantize.forge.effort": string(effort)}
    if calibration is not None:
        keys["quantize.forge.calibration.sha256"] = string(calibration.sha256)
        tokens = calibration.metadata.get("forge.calibration.tokens")
        if isinstance(tokens, int):
            keys["quantize.forge.calibration.tokens"] = u64(tokens)
    return keys


def _cut(text: str) -> str:
    """As much as llama-quantize keeps, but whole characters, and bytes that are no text as escapes: it writes both."""
    return as_utf8(text).encode()[:MAX_STRING_BYTES].decode(errors="ignore")
