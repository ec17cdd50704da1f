"""Hashes of tensors' bytes, each and all together, as llama-gguf-hash computes them: `hash_file`, and manifests of such
hashes. Metadata does not count. Must not print.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from uuid import UUID

import numpy as np

from gguf_forge.errors import FormatError, RequestError, UnsupportedError, escaped, listed
from gguf_forge.format import reader
from gguf_forge.format.layout import LIMITS, Limits
from gguf_forge.remote.location import Location, located
from gguf_forge.whole.copying import PIECE, Progress
from gguf_forge.whole.given import read_given

StrPath = str | os.PathLike[str]

#: In the order in which they are listed; a UUID is one of the whole only.
ALGORITHMS = ("xxh64", "sha1", "sha256")
UUID5 = "uuid"
#: What a manifest is checked by where nothing is asked for, the strongest first.
STRONGEST = ("sha256", "sha1", "xxh64", UUID5)
#: uuid.uuid5(uuid.NAMESPACE_URL, "en.wikipedia.org/wiki/Llama.cpp"), of which llama.cpp's UUIDs of models are made.
NAMESPACE = UUID("ef001206-dadc-5f6d-a15f-3359e577d4e5")
#: The most bytes of a manifest: a line of each of 100,000 tensors takes a tenth of it.
MOST_MANIFEST = 64 << 20
#: The most colons in a tensor's name that are told from the one before it.
MOST_COLONS = 4


class Hasher(Protocol):
    """What hashlib and xxhash give."""

    def update(self, data: memoryview, /) -> None:
        """Adds bytes."""

    def hexdigest(self) -> str:
        """The hash of all bytes so far, in hexadecimal digits."""


@dataclass(frozen=True)
class FileHashes:
    """Hashes in hexadecimal digits, by algorithm: of each tensor, by name in order, and of all, one after another.

    `whole` may have a `uuid`. `tensors` is empty where only the whole was asked for.
    """

    path: Path | Location
    tensors: Mapping[str, Mapping[str, str]]
    whole: Mapping[str, str]

    def __repr__(self) -> str:
        return f"<FileHashes {escaped(str(self.path))}: {len(self.tensors)} tensors, {', '.join(self.whole)}>"

    def lines(self) -> list[tuple[str, str, str]]:
        """Algorithm, hash and name of each, in llama-gguf-hash's order: names are the path's, or PATH:TENSOR."""
        found = [(a, h, f"{self.path}:{name}") for name, hashes in self.tensors.items() for a, h in hashes.items()]
        return found + [(a, h, str(self.path)) for a, h in self.whole.items()]


def hash_file(
    path: StrPath,
    algorithms: Iterable[str] = ("sha256",),
    *,
    tensors: bool = True,
    limits: Limits = LIMITS,
    progress: Progress | None = None,
) -> FileHashes:
    """Hashes the tensors of a GGUF file, or of a set when given any shard, which has the hashes of the merged file.

    `algorithms`: of xxh64 (which needs the `xxhash` package), sha1, sha256, and uuid, llama.cpp's UUID of a model's
    weights. Bytes count as they are stored, big-endian ones too. `tensors`: False hashes the whole only. `progress` is
    called with bytes done and all. Raises RequestError for another algorithm, UnsupportedError where xxhash is missing,
    and what `open` raises.
    """
    wanted = [name for name in (*ALGORITHMS, UUID5) if name in set(algorithms)]
    unknown = set(algorithms) - {*ALGORITHMS, UUID5}
    if unknown or not wanted:
        known = ", ".join((*ALGORITHMS, UUID5))
        raise RequestError(f"no hash {listed(sorted(unknown))}; there are {known}" if unknown else "no hash is named")
    whole = {name: _hasher(name) for name in wanted}
    each = [name for name in wanted if name != UUID5] if tensors else []
    found: dict[str, dict[str, str]] = {}
    with reader.open(path, limits=limits) as file, ThreadPoolExecutor(len(wanted) + len(each)) as pool:
        total = sum(tensor.nbytes for tensor in file.tensors.values())
        piece, done = np.empty(min(PIECE, total), np.uint8), 0
        for tensor in file.tensors.values():
            own = {name: _hasher(name) for name in each}
            every = [*own.values(), *whole.values()]  # each at work on the same piece
            for start in range(0, tensor.nbytes, PIECE):
                part = piece[: min(PIECE, tensor.nbytes - start)]
                tensor.read_bytes(part, start)
                for _ in pool.map(_update, every, [part.data] * len(every)):
                    pass
                done += len(part)
                if progress is not None:
                    progress(done, total)
            if own:
                found[tensor.name] = {name: hasher.hexdigest() for name, hasher in own.items()}
        file.check_unchanged()
    return FileHashes(located(path), found, {name: _written(name, hasher) for name, hasher in whole.items()})


def _update(hasher: Hasher, data: memoryview) -> None:
    hasher.update(data)


def _hasher(name: str) -> Hasher:
    if name == "xxh64":
        try:
            import xxhash  # noqa: PLC0415 - an extra
        except ImportError:
            raise UnsupportedError("xxh64 needs the xxhash package: pip install 'gguf-forge[hash]'") from None
        found: Hasher = xxhash.xxh64()
        return found
    if name == UUID5:
        return hashlib.sha1(NAMESPACE.bytes, usedforsecurity=False)
    return hashlib.new(name, usedforsecurity=False)


def _written(name: str, hasher: Hasher) -> str:
    return str(UUID(hex=hasher.hexdigest()[:32], version=5)) if name == UUID5 else hasher.hexdigest()


@dataclass(frozen=True)
class Verdict:
    """What became of one hash: `same` as the manifest's, other, or None where the manifest lacks it (or the file does).

    algorithm, hash: as found in the file (empty where it lacks the tensor). name: the tensor's, empty of the whole.
    """

    algorithm: str
    hash: str
    name: str
    same: bool | None


class Manifest:
    """Hashes as llama-gguf-hash prints them, and `hash`: lines of an algorithm, a hash, and the name of what it is of.

    The name is a model's, or MODEL:TENSOR; by which path the model went when it was hashed does not matter.
    """

    def __init__(self, lines: Iterable[tuple[str, str, str]], path: Path) -> None:
        """`lines`: algorithm, hash and name of each. Of two for one thing the first counts."""
        self.path = path
        self.lines = list(lines)

    @classmethod
    def read(cls, path: StrPath) -> Manifest:
        """The manifest in a text file. Raises InputError, FormatError for a file that is no manifest."""
        raw = read_given(path, MOST_MANIFEST, "a manifest")
        words = [line.split(None, 2) for line in raw.decode("utf-8", "surrogateescape").splitlines()]
        lines = [(w[0], w[1].lower(), w[2].strip()) for w in words if len(w) == 3 and w[0] in STRONGEST]
        if not lines:
            raise FormatError(f"no manifest: no line begins with {', '.join(STRONGEST)}", path=path)
        return cls(lines, Path(path))

    @property
    def algorithms(self) -> list[str]:
        """Those there are lines of, the strongest first."""
        known = {algorithm for algorithm, _, _ in self.lines}
        return [name for name in STRONGEST if name in known]

    def check(self, found: FileHashes) -> list[Verdict]:
        """A verdict for each hash that was found, and for each tensor in the manifest that the file has not."""
        known = self._of(found)
        verdicts = []
        for name, hashes in (*found.tensors.items(), ("", found.whole)):
            for algorithm, digest in hashes.items():
                expected = known.pop((algorithm, name), None)
                verdicts.append(Verdict(algorithm, digest, name, None if expected is None else expected == digest))
        asked = found.whole.keys()
        lacking = [(a, name) for a, name in known if a in asked and name and found.tensors]
        return verdicts + [Verdict(algorithm, "", name, None) for algorithm, name in lacking]

    def _of(self, found: FileHashes) -> dict[tuple[str, str], str]:
        """Hashes by algorithm and tensor, "" of the whole: of the model of this path or name, or of the only one."""
        for model in (str(found.path), found.path.name):
            known: dict[tuple[str, str], str] = {}
            for algorithm, digest, name in self.lines:
                if name == model or name.startswith(f"{model}:"):
                    known.setdefault((algorithm, name[len(model) + 1 :]), digest)
            if known:
                return known
        names = {name for _, _, name in self.lines}
        models: dict[str, dict[tuple[str, str], str]] = {}
        for algorithm, digest, name in self.lines:
            model, tensor = _parted(name, names)
            models.setdefault(model, {}).setdefault((algorithm, tensor), digest)
        return next(iter(models.values())) if len(models) == 1 else {}


def _parted(name: str, names: Collection[str]) -> tuple[str, str]:
    """A name in a manifest as that of the model, and of the tensor, which is empty in a line of the whole.

    Both may hold colons: where the whole has a line too, that tells. Else a part with a slash, or with the ending of
    a model, is the model's.
    """
    at = len(name)
    for _ in range(MOST_COLONS):
        at = name.rfind(":", 0, at)
        if at < 0:
            break
        if name[:at] in names:
            return name[:at], name[at + 1 :]
    model, colon, tensor = name.rpartition(":")
    if not colon or tensor.endswith(".gguf") or "/" in tensor or "\\" in tensor:
        return name, ""
    return model, tensor


def holds(verdicts: Sequence[Verdict]) -> bool:
    """Whether verdicts say that a file is what its manifest tells of.

    No hash differs; and all tensors have theirs, or the whole has one that is the same.
    """
    if not verdicts or any(v.same is False for v in verdicts):
        return False
    if any(v.same is None and not v.hash for v in verdicts):
        return False
    whole = any(v.same for v in verdicts if not v.name)
    tensors = [verdict.same for verdict in verdicts if verdict.name]
    return whole or (bool(tensors) and all(tensors))
