"""Calibration files: an importance matrix, and the second moments of the inputs of each matrix, in one GGUF file.

For a weight `w` whose inputs were seen (`gguf-forge calibrate` makes these files), beside the tensors of an importance
matrix, which llama-quantize reads and which it finds alone:

    w.cov          F32 (matrices, tiles, 256)   sums over tokens of products of inputs, x_i * x_j
    w.cov_blocks   I32 (blocks)                 widths of the blocks on the diagonal that were kept; one is whole
    w.cov_tokens   I64 (matrices)               tokens that each matrix (expert) saw

A block is stored as its upper triangle in tiles of 16 x 16: tiles (0, 0), (0, 1) ... (0, n - 1), (1, 1) ... (n - 1,
n - 1), each row after row, a block's tiles after the ones of the block before; columns that fill up the last tile are
0. Weights with one input (attn_q, attn_k, attn_v) share one entry: of `forge.calibration.weights` each has in
`forge.calibration.inputs`, at the same place, the weight under whose name the entry is.

    calibration.tokens   I32 (windows, context)   the text: what the model read, so that it can be read again

Knows the file; must not know how moments are gathered.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gguf_forge.closing import Closing
from gguf_forge.errors import RecipeError, escaped
from gguf_forge.format import reader, values
from gguf_forge.format.layout import ValueType
from gguf_forge.format.reader import GGUFFile, Tensor
from gguf_forge.quant.imatrix import Imatrix, load_imatrix

Floats = NDArray[np.float32]
Tokens = NDArray[np.int32]

COVARIANCE, BLOCKS, TOKENS = ".cov", ".cov_blocks", ".cov_tokens"
PREFIX = "forge.calibration."
VERSION, WEIGHTS, INPUTS = PREFIX + "version", PREFIX + "weights", PREFIX + "inputs"
#: The tensor of the text.
WINDOWS = "calibration.tokens"
SIDE = 16
#: Tokens, and columns, beyond what a file can honestly hold.
MOST_TOKENS, MOST_COLUMNS = 2**53, 2**24


@dataclass(frozen=True, eq=False)
class Covariance:
    """The second moments X'X / N of a matrix's inputs, as measured: not shrunk, and not centred.

    width: columns. blocks: those on the diagonal that are known, (first column, float32 (b, b), symmetric); what lies
    outside was not kept. tokens: N. shared_key: the same for weights that have these inputs.
    """

    width: int
    blocks: list[tuple[int, Floats]]
    tokens: int
    shared_key: str


class Calibration(Closing):
    """An open calibration file: `with Calibration.open(path) as calibration`, or close it. Moments are read when asked.

    imatrix: the importance matrix, as `load_imatrix` gives it. metadata: what is recorded of how it was made.
    """

    def __init__(self, path: str | os.PathLike[str], gguf: GGUFFile, imatrix: Imatrix) -> None:
        self.path = os.fspath(path)
        self.imatrix = imatrix
        self._gguf = gguf
        self._hash = ""
        self.metadata: Mapping[str, Any] = {k: gguf.metadata[k] for k in gguf.metadata if k.startswith(PREFIX)}
        self._sources = _sources(gguf, self.path)
        self._entries: dict[str, _Entry] = {}

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Calibration:
        """Opens a file; only headers and the importance matrix are read.

        Raises what `load_imatrix` does, and RecipeError for a file without moments, or with such as contradict
        themselves.
        """
        imatrix = load_imatrix(path)
        if imatrix.legacy:
            raise RecipeError("an importance matrix, no calibration: it has no covariances", path=path)
        gguf = reader.open(path)
        try:
            return cls(path, gguf, imatrix)
        except BaseException:
            gguf.close()
            raise

    @property
    def names(self) -> list[str]:
        """The weights whose inputs are known."""
        return list(self._sources)

    @property
    def sha256(self) -> str:
        """The file's hash, in hexadecimal digits; reads the whole file, once."""
        if not self._hash:
            digest = hashlib.sha256()
            with open(self.path, "rb") as file:
                while piece := file.read(1 << 20):
                    digest.update(piece)
            self._hash = digest.hexdigest()
        return self._hash

    def windows(self) -> Tokens | None:
        """The text that the model read: int32 (windows, context), each window from its beginning.

        None in a file of before it was recorded. Raises RecipeError for what is no text of tokens.
        """
        tensor = self._gguf.tensors.get(WINDOWS)
        if tensor is None:
            return None
        field = f'tensor "{WINDOWS}"'
        if tensor.type.name != "I32" or len(tensor.shape) > 2 or not tensor.nbytes:
            text = f"{tensor.type.name} {tensor.shape}, not I32 (windows, context)"
            raise RecipeError(text, path=self.path, field=field)
        found = tensor.data.reshape(-1).view("<i4").astype(np.int32).reshape(-1, tensor.shape[-1])
        if int(found.min()) < 0:
            raise RecipeError(f"token {found.min()}", path=self.path, field=field)
        return found

    def tokens(self, name: str, expert: int = 0) -> int:
        """Tokens that a weight's matrix saw; 0 for one that is not in the file."""
        entry = self._entry(name)
        return 0 if entry is None else int(entry.tokens[entry.index(expert)])

    def covariance(self, name: str, expert: int = 0) -> Covariance | None:
        """The moments of a weight's inputs, read now; None where the file has none for it, or its matrix saw no token.

        Raises RecipeError for numbers that are no moments, and for an expert that is not there.
        """
        entry = self._entry(name)
        if entry is None:
            return None
        tokens = int(entry.tokens[entry.index(expert)])
        if tokens == 0:
            return None
        blocks, start, row = [], 0, entry.index(expert) * entry.tiles
        for size in entry.sizes:
            count = triangle(size)
            raw = entry.tensor.read_rows(row, row + count).view("<f4").reshape(count, SIDE, SIDE)
            blocks.append((start, self._checked(unpacked(raw, size), entry) / np.float32(tokens)))
            start, row = start + size, row + count
        key = self._sources[name] + (f"#{entry.index(expert)}" if len(entry.tokens) > 1 else "")
        return Covariance(start, blocks, tokens, key)

    def stored(self) -> list[Moments]:
        """All moments as they lie in the file, read now: sums, to be added to others. Raises RecipeError."""
        weights: dict[str, list[str]] = {}
        for name, source in self._sources.items():
            weights.setdefault(source, []).append(name)
        found = []
        for source, sharing in weights.items():
            entry = self._entry(source)
            if entry is None or sharing[0] != source:
                raise RecipeError(f'moments of "{escaped(source)}", which is no weight here', path=self.path)
            shape = (len(entry.tokens), entry.tiles, SIDE * SIDE)
            raw = entry.tensor.read_rows(0, entry.tensor.rows).reshape(-1).view("<f4")
            tiles = raw.astype(np.float32).reshape(shape)
            if not np.isfinite(tiles).all():
                raise RecipeError("a number that is not finite", path=self.path, field=entry.field)
            found.append(Moments(sharing, entry.sizes, entry.tokens, tiles))
        return found

    def source(self, name: str) -> str | None:
        """The weight under whose name this one's moments are: the same for weights with one input."""
        return self._sources.get(name)

    def close(self) -> None:
        """Closes the file."""
        self._gguf.close()

    def _entry(self, name: str) -> _Entry | None:
        source = self._sources.get(name)
        if source is None:
            return None
        if source not in self._entries:
            self._entries[source] = _Entry.read(self._gguf, source, self.path)
        return self._entries[source]

    def _checked(self, moments: Floats, entry: _Entry) -> Floats:
        if not np.isfinite(moments).all() or (np.diagonal(moments) < 0).any():
            raise RecipeError("a number that is not finite, or a negative square", path=self.path, field=entry.field)
        return moments


@dataclass(frozen=True, eq=False)
class _Entry:
    """Where the moments of one input lie. sizes: of the blocks; tiles: of a matrix, all blocks together."""

    tensor: Tensor
    sizes: Sequence[int]
    tokens: NDArray[np.int64]
    field: str
    tiles: int

    @classmethod
    def read(cls, gguf: GGUFFile, source: str, path: str) -> _Entry:
        field = f'covariance "{escaped(source)}"'
        found = [gguf.tensors.get(source + suffix) for suffix in (COVARIANCE, BLOCKS, TOKENS)]
        if any(tensor is None for tensor in found):
            raise RecipeError("its .cov, .cov_blocks or .cov_tokens is missing", path=path, field=field)
        moments, blocks, tokens = (tensor for tensor in found if tensor is not None)
        kinds = (moments.type.name, blocks.type.name, tokens.type.name)
        if kinds != ("F32", "I32", "I64"):
            raise RecipeError(f"types {', '.join(kinds)}, not F32, I32, I64", path=path, field=field)
        sizes = [int(n) for n in blocks.data.reshape(-1).view("<i4")]
        seen = tokens.data.reshape(-1).view("<i8").astype(np.int64)
        if not sizes or min(sizes) < 1 or sum(sizes) > MOST_COLUMNS:
            raise RecipeError("block widths that are none", path=path, field=field)
        if not seen.size or int(seen.min()) < 0 or int(seen.max()) > MOST_TOKENS:
            raise RecipeError("numbers of tokens that are none", path=path, field=field)
        tiles = sum(triangle(size) for size in sizes)
        if moments.rows != tiles * seen.size or moments.shape[-1] != SIDE * SIDE:
            expected = f"({seen.size}, {tiles}, {SIDE * SIDE})"
            raise RecipeError(f"shape {moments.shape}, not {expected}", path=path, field=field)
        return cls(moments, sizes, seen, field, tiles)

    def index(self, expert: int) -> int:
        """Which matrix: the expert's, or the only one."""
        if not 0 <= expert < len(self.tokens):
            raise RecipeError(f"no matrix {expert}; there are {len(self.tokens)}", field=self.field)
        return expert


def _sources(gguf: GGUFFile, path: str) -> dict[str, str]:
    """Each weight, and the one under whose name its moments are."""
    if VERSION not in gguf.metadata or gguf.metadata[VERSION] != 1:
        raise RecipeError(f"no calibration of version 1: {VERSION} is {gguf.metadata.get(VERSION)}", path=path)
    lists = []
    for key in (WEIGHTS, INPUTS):
        if key not in gguf.metadata or gguf.metadata.element_type_of(key) is not ValueType.STRING:
            raise RecipeError("missing, or not an array of strings", path=path, field=f'key "{key}"')
        lists.append(list(gguf.metadata[key]))
    names, inputs = lists
    if len(names) != len(inputs):
        raise RecipeError(f"{len(names)} weights and {len(inputs)} inputs", path=path, field=f'key "{INPUTS}"')
    return dict(zip(names, inputs, strict=True))


def triangle(width: int) -> int:
    """Tiles of the upper triangle of a matrix of so many columns."""
    count = -(-width // SIDE)
    return count * (count + 1) // 2


def unpacked(tiles: NDArray[np.float32], width: int) -> Floats:
    """The symmetric matrix (width, width) of its upper triangle's tiles (tiles, 16, 16)."""
    count = -(-width // SIDE)
    out = np.empty((count, SIDE, count, SIDE), np.float32)
    at = 0
    for i in range(count):
        row = tiles[at : at + count - i]
        out[i, :, i:] = row.transpose(1, 0, 2)
        out[i:, :, i] = row.transpose(0, 2, 1)
        at += count - i
    whole = out.reshape(count * SIDE, count * SIDE)
    return np.ascontiguousarray(whole[:width, :width])


@dataclass(frozen=True, eq=False)
class Moments:
    """What is stored of one input. weights: whose input it is; the first gives the name.

    tiles: float32 (matrices, tiles, 256). sizes: widths of the blocks. tokens: int64 (matrices,).
    """

    weights: Sequence[str]
    sizes: Sequence[int]
    tokens: NDArray[np.int64]
    tiles: Floats

    def squares(self) -> Floats:
        """The sums of squares, the matrices' diagonals: float32 (matrices, columns)."""
        out, at = [], 0
        for size in self.sizes:
            count = -(-size // SIDE)
            firsts = at + np.array([i * count - i * (i - 1) // 2 for i in range(count)])
            on_diagonal = self.tiles[:, firsts].reshape(len(self.tiles), count, SIDE, SIDE)
            squares = np.diagonal(on_diagonal, axis1=2, axis2=3).reshape(len(self.tiles), -1)
            out.append(squares[:, :size])
            at += triangle(size)
        return np.concatenate(out, axis=1)


def calibration_metadata(moments: Sequence[Moments], facts: Mapping[str, values.Value]) -> dict[str, values.Value]:
    """The keys of a calibration file; `facts` without their prefix: how it was made."""
    pairs = [(name, entry.weights[0]) for entry in moments for name in entry.weights]
    return {
        VERSION: values.u32(1),
        **{PREFIX + key: value for key, value in facts.items()},
        WEIGHTS: values.strings(name for name, _ in pairs),
        INPUTS: values.strings(source for _, source in pairs),
    }


def calibration_tensors(moments: Sequence[Moments], windows: Tokens | None = None) -> dict[str, NDArray[Any]]:
    """The tensors of a calibration file, by name. windows: the text, (windows, context)."""
    out: dict[str, NDArray[Any]] = {} if windows is None else {WINDOWS: windows}
    for entry in moments:
        name = entry.weights[0]
        out[name + COVARIANCE] = entry.tiles
        out[name + BLOCKS] = np.array(entry.sizes, np.int32)
        out[name + TOKENS] = entry.tokens
    return out
