"""What a file in the making is of: its source, its plan, and what encodes it. Of one identity come the same bytes.

Knows digests; must not know what they are for. Of sources it looks at sizes, times and samples: reading them whole
would take as long as converting them. What is made of them is told by the first row of each tensor, too, as it is read:
no list of all that a user can ask for would stay complete.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from gguf_forge import system
from gguf_forge.convert.job import Job, Quantization
from gguf_forge.convert.model import Model
from gguf_forge.convert.view import View
from gguf_forge.errors import InputError, escaped

Identity = Mapping[str, Any]

#: Bytes of a file that are looked at whole; of a larger one its two ends, and pieces between.
_WHOLE, _END, _PIECE, _PIECES = 1 << 20, 1 << 16, 1 << 12, 62
#: Of a source's file, by place in its record.
TIME = "time of change"
_FACTS = ("name", "size", TIME, "content")


def identity(job: Job, how: Quantization, header: str, model: Model) -> Identity:
    """Of the file that a job makes of a model. `header`: the digest of the file's header, which has types and places.

    Raises ForgeError for a source that cannot be read, or changed since it was opened.
    """
    calibration = how.calibration if job.fitted else None
    source = [_facts(path) for path in model.sources]
    rows = _digest_of_rows(model.views)
    model.verify()  # what was looked at by name is what is read
    return {
        "encoder": {"version": encoder_version(), "core": _core()},
        "source": source,
        "plan": {
            "header": header,
            "rows": rows,
            "importance": _digest_of_weights(job),
            "calibration": None if calibration is None else calibration.sha256,
            "effort": how.fits if job.fitted else None,
            "codes": _digest([sorted(job.packs), sorted(job.moved), sorted(job.wholes), how.prefer, how.requantize]),
        },
    }


def differences(found: Mapping[str, Any], wanted: Mapping[str, Any], *, elsewhere: bool = False) -> list[str]:
    """In which parts an identity is another than the one that is wanted; in words, [] where it is not.

    Both may come from files, and be anything that JSON can hold. `elsewhere`: they may be of different machines, where
    files have other times and the same code is compiled anew.
    """
    lines = []
    for part in ("encoder", "plan"):
        one, other = _object(found.get(part)), _object(wanted.get(part))
        for key in dict.fromkeys([*other, *one]):
            if one.get(key) != other.get(key) and not (elsewhere and (part, key) == ("encoder", "core")):
                values = f" {one.get(key)}, not {other.get(key)}" if part == "encoder" else ""
                lines.append(f"another {part}: {escaped(key)}{escaped(values)}")
    return lines + [
        f"another source: {text}" for text in _other_sources(found.get("source"), wanted.get("source"), elsewhere)
    ]


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _other_sources(found: Any, wanted: Any, elsewhere: bool) -> list[str]:
    ones, others = ([_known(one) for one in given] if isinstance(given, list) else [None] for given in (found, wanted))
    if [one and one["name"] for one in ones] != [other and other["name"] for other in others]:
        return ["other files"]
    return [
        f"{escaped(str(other['name']))} has another {fact}"
        for one, other in zip(ones, others, strict=True)
        if one is not None and other is not None
        for fact in other
        if one[fact] != other[fact] and not (elsewhere and fact == TIME)
    ]


def _known(record: Any) -> dict[str, Any] | None:
    """A record of a source's file as what it says by _FACTS; None for what is none."""
    whole = isinstance(record, list) and len(record) == len(_FACTS)
    return dict(zip(_FACTS, record, strict=True)) if whole else None


@cache
def encoder_version() -> str:
    """The package's version."""
    try:
        return version("gguf-forge")
    except PackageNotFoundError:
        return "unknown"


@cache
def _core() -> str:
    """The digest of the compiled core."""
    from gguf_forge import _core as core  # noqa: PLC0415 - not for those who only want a version

    return hashlib.sha256(Path(core.__file__).read_bytes()).hexdigest()[:16]


def _facts(path: Path) -> list[Any]:
    """What _FACTS names, of one file."""
    try:
        with open(system.long_path(path), "rb") as file:
            found = os.fstat(file.fileno())
            digest = hashlib.sha256()
            if found.st_size <= _WHOLE:
                digest.update(file.read(_WHOLE))
            else:
                last = found.st_size - _END
                pieces = [(_END + (last - _END) * i // _PIECES, _PIECE) for i in range(_PIECES)]
                for offset, size in ((0, _END), *pieces, (last, _END)):
                    file.seek(offset)
                    digest.update(file.read(size))
    except OSError as error:
        raise InputError(error.strerror or str(error), path=path) from error
    return [path.name, found.st_size, found.st_mtime_ns, digest.hexdigest()[:32]]


def _digest_of_weights(job: Job) -> str | None:
    """Of all importances that a job encodes with."""
    if not job.weights:
        return None
    digest = hashlib.sha256()
    for name in sorted(job.weights):
        values = job.weights[name]
        digest.update(json.dumps([name, *values.shape]).encode())
        digest.update(values.data)
    return digest.hexdigest()[:32]


def _digest_of_rows(views: Iterable[View]) -> str:
    """Of the first row of each tensor."""
    digest = hashlib.sha256()
    for view in views:
        digest.update(view.rows(0, min(view.count, 1)).tobytes())
    return digest.hexdigest()[:32]


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:32]
