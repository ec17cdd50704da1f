"""Importance matrices: how much each input of each matrix matters, read from GGUF and from the older .dat form.

Knows the two files and the arithmetic of llama-quantize (tools/quantize/quantize.cpp: load_imatrix), which makes
weights of recorded sums; knows no recipes and encodes nothing. GGUF files are read through `format`.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from gguf_forge import names
from gguf_forge.errors import InputError, InvalidError, RecipeError, TruncatedError, escaped, listed
from gguf_forge.format import reader, values
from gguf_forge.format.atomic import AtomicFile
from gguf_forge.format.layout import ValueType
from gguf_forge.format.reader import GGUFFile
from gguf_forge.format.writer import GGUFWriter

Floats = NDArray[np.float32]

SUMS, COUNTS = ".in_sum2", ".counts"
DATASETS, CHUNK_COUNT, CHUNK_SIZE = "imatrix.datasets", "imatrix.chunk_count", "imatrix.chunk_size"
#: ggml's names have 63 bytes; a longer name in a .dat file is no tensor's.
MAX_NAME_BYTES = 4096


@dataclass(frozen=True, eq=False)
class Entry:
    """What was recorded for one tensor, as stored.

    sums: float32 (parts, n / parts), sums of squared inputs, never negative. counts: int64 (parts,), what each part is
    divided by; 0 where a part saw no data. In GGUF files a part is an expert's matrix; in .dat files there is one part.
    """

    sums: Floats
    counts: NDArray[np.int64]

    @property
    def unseen(self) -> int:
        """Parts (experts) without data; they weigh all inputs alike."""
        return int((self.counts == 0).sum())

    def weights(self) -> Floats:
        """float32 (n,): sums divided by counts, in single precision; 1 for a part without data.

        In .dat files sums without a count stand as they are.
        """
        counts = self.counts.astype(np.float32)[:, None]
        seen = counts > 0
        divided = self.sums / np.where(seen, counts, np.float32(1))
        return np.where(seen, divided, np.float32(1)).astype(np.float32).ravel()


@dataclass(frozen=True)
class Imatrix:
    """An importance matrix. `chunks` of text it was computed on, `chunk_size` tokens each (0 where not recorded).

    left_out: entries that it had, too, of layers that are left out of the model.
    """

    path: str
    entries: Mapping[str, Entry]
    datasets: tuple[str, ...] = ()
    chunks: int = 0
    chunk_size: int = 0
    legacy: bool = False
    left_out: int = 0

    def __repr__(self) -> str:
        return f"<Imatrix {escaped(self.path, 4096)}: {len(self.entries)} entries, {self.chunks} chunks>"

    def weights(self, name: str, shape: Sequence[int] | None = None) -> Floats | None:
        """The weights of a tensor's inputs: float32 (n,), or (experts, n) where several matrices are stacked.

        None where the matrix has nothing for this tensor. `shape` (NumPy order) is that of the tensor: with it the
        width is checked and RecipeError raised on a mismatch, except for token embeddings, which then go without, as
        in llama-quantize. Without it one axis for an entry of one part, else one row a part.
        """
        entry = self.entries.get(name)
        if entry is None:
            return None
        weights = entry.weights()
        if shape is None:
            return weights.reshape(entry.sums.shape) if len(entry.counts) > 1 else weights
        matrices = shape[-3] if len(shape) > 2 else 1
        if weights.size != shape[-1] * matrices:
            if name in names.EMBEDDINGS:
                return None
            expected = f"{matrices} x {shape[-1]}" if matrices > 1 else f"{shape[-1]}"
            raise RecipeError(
                f"{weights.size} values, but the tensor has {expected} inputs", path=self.path, field=_field(name)
            )
        return weights.reshape(matrices, shape[-1]) if matrices > 1 else weights

    def only(self, parts: Iterable[str]) -> Imatrix:
        """The entries whose names contain any of `parts` (--include-weights)."""
        wanted = list(parts)
        return self._filtered(lambda name: any(part in name for part in wanted))

    def without(self, parts: Iterable[str]) -> Imatrix:
        """The entries whose names contain none of `parts` (--exclude-weights)."""
        unwanted = list(parts)
        return self._filtered(lambda name: not any(part in name for part in unwanted))

    def _filtered(self, keeps: Callable[[str], bool]) -> Imatrix:
        return replace(self, entries={name: entry for name, entry in self.entries.items() if keeps(name)})


@dataclass(frozen=True)
class Coverage:
    """How well a matrix fits a model. Names of tensors; `partial`: (name, experts without data, experts).

    empty: tensors whose entries saw no data at all. blank: of the other entries, those of zeros only. missing: tensors
    to be quantized that it lacks. unused: entries for no such tensor. misfits: entries of another width, and why.
    """

    covered: tuple[str, ...]
    empty: tuple[str, ...]
    blank: tuple[str, ...]
    missing: tuple[str, ...]
    unused: tuple[str, ...]
    partial: tuple[tuple[str, int, int], ...]
    misfits: tuple[str, ...]

    def lines(self, most: int | None = 8) -> list[str]:
        """A summary, then a line for each kind of thing amiss, which names so many tensors at most (None: all)."""
        total = sum(map(len, (self.covered, self.empty, self.blank, self.missing, self.misfits)))
        lines = [f"importance matrix covers {len(self.covered)} of {total} tensors"]
        experts = [f"{name} ({unseen} of {experts})" for name, unseen, experts in self.partial]
        kinds = {
            "not in it": self.missing,
            "in it without data, so that all inputs count alike": self.empty,
            "in it with zeros only": self.blank,
            "some experts have no data": experts,
            "for no tensor here": self.unused,
        }
        lines += [f"importance matrix: {kind}: {listed(found, most)}" for kind, found in kinds.items() if found]
        return lines + list(self.misfits)


def coverage(imatrix: Imatrix, tensors: Mapping[str, Sequence[int]]) -> Coverage:
    """Compares a matrix with the tensors to be quantized (name to shape in NumPy order)."""
    covered, empty, blank, missing, misfits, partial = [], [], [], [], [], []
    for name, shape in tensors.items():
        entry = imatrix.entries.get(name)
        if entry is None:
            missing.append(name)
            continue
        try:
            weights = imatrix.weights(name, shape)
            if weights is None:
                misfits.append(f"{escaped(name)}: {entry.sums.size} values for {shape[-1]} inputs, ignored")
                continue
        except RecipeError as error:
            misfits.append(str(error))
            continue
        parts = len(entry.counts)
        if entry.unseen == parts:
            empty.append(name)
            continue
        if not weights.any():
            blank.append(name)
            continue
        covered.append(name)
        if entry.unseen:
            partial.append((name, entry.unseen, parts))
    unused = tuple(name for name in imatrix.entries if name not in tensors)
    return Coverage(tuple(covered), tuple(empty), tuple(blank), tuple(missing), unused, tuple(partial), tuple(misfits))


def matrix_runs(shape: Sequence[int], start: int, stop: int) -> Iterator[tuple[int, int, int]]:
    """Cuts rows `start` to `stop` of a tensor (flattened leading axes) where matrices meet: (matrix, start, stop)."""
    rows = shape[-2] if len(shape) > 1 else 1
    while start < stop:
        end = min(stop, (start // rows + 1) * rows)
        yield start // rows, start, end
        start = end


def load_imatrix(path: str | os.PathLike[str]) -> Imatrix:
    """Reads an importance matrix in either form.

    Raises InputError (missing, unreadable), FormatError and its kinds (damaged), RecipeError (no importance matrix in
    it; an entry without its counts, not F32, negative or not finite: the entry is named).
    """
    try:
        with Path(path).open("rb") as file:
            if file.read(4) != b"GGUF":
                file.seek(0)
                return _Legacy(file, os.fspath(path)).read()
    except OSError as error:
        raise InputError(error.strerror or str(error), path=path) from None
    with reader.open(path) as gguf:
        return _from_gguf(gguf, os.fspath(path))


def _from_gguf(gguf: GGUFFile, path: str) -> Imatrix:
    keys = (DATASETS, CHUNK_COUNT, CHUNK_SIZE)
    absent = [key for key in keys if key not in gguf.metadata]
    if absent:
        raise RecipeError(f"no importance matrix: {', '.join(absent)} missing", path=path)
    if gguf.metadata.element_type_of(DATASETS) is not ValueType.STRING:
        raise RecipeError("not an array of strings", path=path, field=f'key "{DATASETS}"')
    for key in (CHUNK_COUNT, CHUNK_SIZE):
        if gguf.metadata.type_of(key) is not ValueType.UINT32:
            raise RecipeError(f"{gguf.metadata.type_of(key).name}, not UINT32", path=path, field=f'key "{key}"')
    stems = sorted({_stem(name) for name in gguf.tensors} - {""}, key=str.encode)
    if not stems:
        raise RecipeError("no importance matrix: no tensor ends in .in_sum2 or .counts", path=path)
    return Imatrix(
        path=path,
        entries={stem: _gguf_entry(gguf, stem, path) for stem in stems},
        datasets=tuple(gguf.metadata[DATASETS]),
        chunks=gguf.metadata[CHUNK_COUNT],
        chunk_size=gguf.metadata[CHUNK_SIZE],
    )


def _stem(name: str) -> str:
    for suffix in (SUMS, COUNTS):
        if name.endswith(suffix):
            return name.removesuffix(suffix)
    return ""


def _gguf_entry(gguf: GGUFFile, stem: str, path: str) -> Entry:
    arrays = []
    for suffix in (SUMS, COUNTS):
        tensor = gguf.tensors.get(stem + suffix)
        if tensor is None:
            raise RecipeError(f"{suffix} is missing", path=path, field=_field(stem))
        if tensor.type.name != "F32":
            raise RecipeError(f"{suffix} is {tensor.type}, not F32", path=path, field=_field(stem))
        arrays.append(tensor.dequantize().ravel())
    sums, counts = arrays
    if not counts.size or not sums.size or sums.size % counts.size:
        raise RecipeError(f"{sums.size} sums and {counts.size} counts", path=path, field=_field(stem))
    _check_numbers(counts, f"{stem}{COUNTS}", path)
    if counts.max() >= 2**62:
        raise RecipeError(f"a count of {counts.max()}", path=path, field=_field(stem))
    _check_numbers(sums, f"{stem}{SUMS}", path)
    # lround: halves away from zero; counts are not negative
    whole = np.floor(counts.astype(np.float64) + 0.5).astype(np.int64)
    return Entry(sums.reshape(counts.size, -1), whole)


def _check_numbers(numbers: Floats, what: str, path: str) -> None:
    bad = np.flatnonzero(~(np.isfinite(numbers) & (numbers >= 0)))
    if bad.size:
        kind = "negative" if np.isfinite(numbers[bad[0]]) else "not finite"
        raise RecipeError(
            f"value {bad[0]} of {numbers.size} is {numbers[bad[0]]}, {kind}; {bad.size} such values",
            path=path,
            field=_field(what),
        )


def _field(name: str) -> str:
    return f'entry "{escaped(name)}"'


class _Legacy:
    """The .dat form: little-endian int32 numbers, no magic and no version.

    entries
    entries x: name bytes, name, calls, values, values x float32
    chunks, data set's name bytes, data set's name      (may be absent)
    """

    def __init__(self, file: BinaryIO, path: str) -> None:
        self.file = file
        self.path = path
        self.left = os.fstat(file.fileno()).st_size

    def read(self) -> Imatrix:
        count = self._int("number of entries")
        # An entry has at least a byte of name and one value: 17 bytes.
        if count < 1 or count * 17 > self.left:
            raise InvalidError(f"no importance matrix: {count} entries in {self.left} bytes", path=self.path)
        entries: dict[str, Entry] = {}
        for number in range(count):
            name = self._name(f"entry {number}")
            if name in entries:
                raise InvalidError("a second entry of this name", path=self.path, field=_field(name))
            entries[name] = self._entry(name)
        chunks, datasets = self._trailer() if self.left else (0, ())
        return Imatrix(self.path, entries, datasets, chunks, legacy=True)

    def _entry(self, name: str) -> Entry:
        calls = self._int(f"calls of {escaped(name)}")
        values = self._int(f"values of {escaped(name)}")
        if values < 1:
            raise InvalidError(f"{values} values", path=self.path, field=_field(name))
        sums = np.frombuffer(self._take(4 * values, f"values of {escaped(name)}"), "<f4").astype(np.float32)
        _check_numbers(sums, name, self.path)
        # Without calls the sums count as they are.
        return Entry(sums.reshape(1, -1), np.array([max(calls, 1)], dtype=np.int64))

    def _trailer(self) -> tuple[int, tuple[str, ...]]:
        chunks = self._int("number of chunks")
        if not self.left:
            return chunks, ()
        length = self._int("length of the data set's name")
        return chunks, (self._text(length, "data set's name"),) if length > 0 else ()

    def _name(self, what: str) -> str:
        length = self._int(f"name length of {what}")
        if not 0 < length <= MAX_NAME_BYTES:
            raise InvalidError(f"a name of {length} bytes", path=self.path, field=what)
        name = self._text(length, f"name of {what}")
        if not name:
            raise InvalidError("a name that begins with NUL", path=self.path, field=what)
        return name

    def _text(self, length: int, what: str) -> str:
        return self._take(length, what).split(b"\0")[0].decode("utf-8", "surrogateescape")

    def _int(self, what: str) -> int:
        (value,) = struct.unpack("<i", self._take(4, what))
        return int(value)

    def _take(self, count: int, what: str) -> bytes:
        if count > self.left:
            raise TruncatedError(f"{count} bytes expected, {self.left} left", path=self.path, field=what)
        self.left -= count
        taken = self.file.read(count)
        if len(taken) != count:
            raise TruncatedError(f"{count} bytes expected, {len(taken)} read", path=self.path, field=what)
        return taken


def save_imatrix(
    imatrix: Imatrix, path: str | os.PathLike[str], *, legacy: bool = False, metadata: Mapping[str, values.Value] = {},
    tensors: Mapping[str, NDArray[Any]] = {},
) -> None:  # fmt: skip
    """Writes an importance matrix as GGUF, or in the .dat form, which keeps one count for a tensor.

    metadata, tensors: what a GGUF file gets besides, after its own; whoever reads importance matrices passes over it.

    What was read as GGUF gives the bytes llama-imatrix would have written, in either form. Entries in order of their
    names; .dat files leave out those without any data. Raises OutputError; RecipeError for a matrix without entries.
    """
    if not imatrix.entries:
        raise RecipeError("an importance matrix without entries", path=path)
    entries = dict(sorted(imatrix.entries.items(), key=lambda item: item[0].encode("utf-8", "surrogateescape")))
    if legacy:
        _write_legacy(imatrix, entries, path)
        return
    head = {
        "general.type": values.string("imatrix"),
        DATASETS: values.strings(imatrix.datasets),
        CHUNK_COUNT: values.u32(imatrix.chunks),
        CHUNK_SIZE: values.u32(imatrix.chunk_size),
    }
    with GGUFWriter(path, {**head, **metadata}) as out:
        for name, entry in entries.items():
            parts = len(entry.counts)
            out.add_tensor(name + SUMS, entry.sums if parts > 1 else entry.sums.ravel())
            out.add_tensor(name + COUNTS, entry.counts.astype(np.float32).reshape((parts, 1) if parts > 1 else (1,)))
        for name, data in tensors.items():
            out.add_tensor(name, data)


def _write_legacy(imatrix: Imatrix, entries: Mapping[str, Entry], path: str | os.PathLike[str]) -> None:
    stored = {name: entry for name, entry in entries.items() if entry.unseen < len(entry.counts)}
    pieces = [struct.pack("<i", len(stored))]
    for name, entry in stored.items():
        calls = int(entry.counts.max())
        sums = entry.sums.ravel()
        if not imatrix.legacy:
            calls = -(-calls // max(1, imatrix.chunk_size))  # at least one, however few tokens
            sums = entry.weights() * np.float32(calls)
        raw = name.encode("utf-8", "surrogateescape")
        pieces += [struct.pack("<i", len(raw)), raw, struct.pack("<ii", calls, sums.size), sums.astype("<f4").tobytes()]
    dataset = (imatrix.datasets[-1] if imatrix.datasets else "").encode("utf-8", "surrogateescape")
    pieces += [struct.pack("<ii", imatrix.chunks, len(dataset)), dataset]
    data = b"".join(pieces)
    file = AtomicFile(path, len(data))
    try:
        file.write_at(data, 0)
        file.seal()
        file.publish()
    finally:
        file.discard()
