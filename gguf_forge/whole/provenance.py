"""What a file is made of, for others to check again: `manifest` and `check_manifest`. Knows hashes and statements.

The form is an in-toto statement (https://in-toto.io/Statement/v1). With SLSA's provenance (v1) as its predicate, its
subjects are the files, its dependencies the source's. With the predicate of OpenSSF's model signing (v1.0,
https://github.com/ossf/model-signing-spec), its one subject is the model: the SHA-256 of its files' SHA-256, as bytes,
in the order of their names; the files are the predicate's resources, and SLSA's provenance stands beside them, where
that specification has readers pass over what they do not know. Nothing depends on when or where it was made.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from gguf_forge.convert.facts import USUAL, Options
from gguf_forge.errors import FormatError, InputError, RequestError, escaped
from gguf_forge.format import reader
from gguf_forge.format.findings import ERROR, WARNING, Finding
from gguf_forge.format.shards import name_prefix
from gguf_forge.whole.given import read_given
from gguf_forge.whole.hashing import hash_file
from gguf_forge.whole.verify import Verification, verify

StrPath = str | os.PathLike[str]
Progress = Callable[[int, int], None]

STATEMENT, PREDICATE = "https://in-toto.io/Statement/v1", "https://slsa.dev/provenance/v1"
#: The predicate of model signing, and how it finds a model's files: all in a folder, but those of Git.
SIGNING = "https://model_signing/signature/v1.0"
SERIALIZATION = {
    "method": "files",
    "hash_type": "sha256",
    "allow_symlinks": False,
    "ignore_paths": [".git", ".gitattributes", ".github", ".gitignore"],
}
FORMS = ("slsa", "model-signing")
BUILD, BUILDER = "urn:gguf-forge:file:v1", "urn:gguf-forge"
#: The most bytes of a statement: one of 100,000 tensors takes a third of it.
MOST_STATEMENT = 64 << 20
#: Endings of a checkpoint's files that are not of it.
ASIDE = (".gguf", ".part", ".lock", ".md", ".gitattributes")
_PIECE = 1 << 22


def manifest(
    path: StrPath,
    *,
    against: StrPath | None = None,
    imatrix: StrPath | None = None,
    form: str = "slsa",
    options: Options = USUAL,
    threads: int | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """What a GGUF file, or set, is made of, as an in-toto statement: SHA-256 of files, tensors, and the source's files.

        statement = gguf_forge.manifest("model-Q4_K_M.gguf", against="model")
        gguf_forge.check_manifest(statement, "model-Q4_K_M.gguf", against="model")      # [] where all is as it says

    `against`, a checkpoint's folder or a GGUF file, is named among the dependencies by the hashes of its files, as is
    `imatrix`; the file is verified against it, as `verify` does, and what came of that is stated. `form`: "slsa", or
    "model-signing" for the statement that OpenSSF's model signing puts into signatures, and reads from them. `options`,
    `threads`, `progress`: as of `verify`. Raises what `verify` and `open` raise, RequestError for another form.
    """
    if form not in FORMS:
        raise RequestError(f"no form {form}; there are {', '.join(FORMS)}")
    found: Verification | None = None
    if against is not None:
        found = verify(path, against, imatrix=imatrix, options=options, threads=threads, progress=progress)
    with reader.open(path) as file:
        tensors: dict[str, dict[str, Any]] = {
            t.name: {"name": t.name, "type": t.type.name, "shape": list(t.shape)} for t in file.tensors.values()
        }
        both = [*zip(file.local_paths(), file.parts, strict=True)]
        subjects = [_resource(part) for part in file.local_paths()]
        headers = [{"name": path.name, "digest": _digest(path, p.checked.header.end)} for path, p in both]
        metadata = {key: file.metadata.get(key) for key in ("general.architecture", "general.file_type")}
        file.check_unchanged()
    hashes = hash_file(path).tensors
    verdicts = {} if found is None else {one.tensor: one.status for one in found.tensors}
    for name, tensor in tensors.items():
        tensor["digest"] = {"sha256": hashes[name]["sha256"]}
        if name in verdicts:
            tensor["status"] = verdicts[name]
    provenance = {
        "buildDefinition": {
            "buildType": BUILD,
            "externalParameters": metadata,
            "internalParameters": {
                "verified": None if found is None else found.verified,
                "headers": headers,
                "tensors": [*tensors.values()],
            },
            "resolvedDependencies": [
                {**_resource(source), "annotations": {"role": role}}
                for role, sources in _roles(against, imatrix).items()
                for source in sources
            ],
        },
        "runDetails": {"builder": {"id": BUILDER, "version": {"gguf-forge": _version()}}},
    }
    if form == "slsa":
        return {"_type": STATEMENT, "subject": subjects, "predicateType": PREDICATE, "predicate": provenance}
    return _for_signing(name_prefix(both[0][0]), _hashes(subjects), provenance)


def _for_signing(model: str, files: Mapping[str, str], provenance: Mapping[str, Any]) -> dict[str, Any]:
    """The statement of model signing. `files`: their hashes by name."""
    resources = [{"name": name, "algorithm": "sha256", "digest": files[name]} for name in sorted(files)]
    return {
        "_type": STATEMENT,
        "subject": [{"name": model, "digest": {"sha256": _root(resources)}}],
        "predicateType": SIGNING,
        "predicate": {"serialization": SERIALIZATION, "resources": resources, "provenance": provenance},
    }


def _root(resources: Iterable[Mapping[str, Any]]) -> str:
    """The hash of a model, out of those of its files. Raises ValueError for one that is not hexadecimal."""
    return hashlib.sha256(b"".join(bytes.fromhex(one["digest"]) for one in resources)).hexdigest()


def check_manifest(
    statement: Mapping[str, Any], path: StrPath, *, against: StrPath | None = None, imatrix: StrPath | None = None
) -> list[Finding]:
    """Where a file, its tensors, or its source's files are not what a statement of `manifest` says; else empty.

    Files go by their names without folders. Tensors' hashes are looked at where a file's is another. Files of the
    source that the statement does not name are warnings. Raises FormatError for what is no such statement.
    """
    subjects, dependencies, tensors = _parts(statement)
    found: list[Finding] = []
    with reader.open(path) as file:
        paths = file.local_paths()
    stated = _against(paths, subjects, ERROR)
    found += stated
    if stated:
        hashes = {name: own["sha256"] for name, own in hash_file(path).tensors.items()}
        found += _tensors(str(path), hashes, tensors)
    for role, sources in _roles(against, imatrix).items():
        found += _against(sources, dependencies.get(role, {}), WARNING)
    return found


def read_manifest(path: StrPath) -> dict[str, Any]:
    """A statement from a JSON file. Raises InputError, FormatError."""
    raw = read_given(path, MOST_STATEMENT, "a statement")
    try:
        found = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"no JSON: {error}", path=path) from None
    if not isinstance(found, dict):
        raise FormatError("no statement: not an object", path=path)
    return found


def _roles(against: StrPath | None, imatrix: StrPath | None) -> dict[str, list[Path]]:
    """The files that a file depends on, by what they are to it; of those that are given."""
    given = {} if against is None else {"source": _files_of(against)}
    return given if imatrix is None else {**given, "imatrix": [Path(imatrix)]}


def _parts(statement: Mapping[str, Any]) -> tuple[dict[str, str], dict[str, dict[str, str]], dict[str, str]]:
    """Hashes by name: of the files, of the dependencies by role, and of the tensors."""
    kind = statement.get("predicateType")
    if statement.get("_type") != STATEMENT or kind not in (PREDICATE, SIGNING):
        raise FormatError(f"no statement of {STATEMENT} with a predicate of {PREDICATE} or {SIGNING}")
    try:
        predicate = statement["predicate"]
        if kind == PREDICATE:
            files = _hashes(statement["subject"])
        else:
            files = _signed(statement["subject"], predicate)
            predicate = predicate["provenance"]
        build = predicate["buildDefinition"]
        if build["buildType"] != BUILD:
            raise FormatError(f"the statement is of another kind of build than {BUILD}")
        roles: dict[str, list[Any]] = {}
        for one in build["resolvedDependencies"]:
            roles.setdefault(str(one["annotations"]["role"]), []).append(one)
        tensors = _hashes(build["internalParameters"]["tensors"])
        return files, {role: _hashes(rows) for role, rows in roles.items()}, tensors
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise FormatError(f"the statement lacks what every one of `manifest` has: {error}") from None


def _signed(subject: Any, predicate: Any) -> dict[str, str]:
    """The hashes of files in a statement of model signing. Raises FormatError where its subject is not made of them."""
    resources = predicate["resources"]
    if subject[0]["digest"]["sha256"] != _root(resources) or len(subject) != 1:
        raise FormatError("the statement's subject is not the hash of its resources")
    return {str(one["name"]): str(one["digest"]) for one in resources}


def _hashes(rows: Iterable[Any]) -> dict[str, str]:
    return {str(one["name"]): str(one["digest"]["sha256"]) for one in rows}


def _against(paths: Iterable[Path], stated: Mapping[str, str], surplus: str) -> list[Finding]:
    found = []
    names = set()
    for path in paths:
        names.add(path.name)
        if path.name not in stated:
            found.append(Finding("manifest", str(path), "not in the statement", severity=surplus))
        elif _digest(path)["sha256"] != stated[path.name]:
            found.append(Finding("manifest", str(path), "its bytes are not those of the statement", severity=ERROR))
    lacking = [name for name in stated if name not in names]
    return found + [
        Finding("manifest", escaped(name), "in the statement, and not there", severity=ERROR) for name in lacking
    ]


def _tensors(path: str, found: Mapping[str, str], stated: Mapping[str, str]) -> Iterator[Finding]:
    for name in dict.fromkeys([*stated, *found]):
        if name not in found:
            text = "in the statement, and not in the file"
        elif name not in stated:
            text = "not in the statement"
        elif found[name] != stated[name]:
            text = "its data are not those of the statement"
        else:
            continue
        yield Finding("manifest", path, text, None, f'tensor "{escaped(name)}"', ERROR)


def _files_of(source: StrPath | None) -> list[Path]:
    """The files of a source: all of a folder but what is no part of a checkpoint; all shards of a set."""
    if source is None:
        return []
    path = Path(source)
    if not path.is_dir():
        with reader.open(path) as file:
            return file.local_paths()
    return sorted(p for p in path.iterdir() if p.is_file() and not p.name.endswith(ASIDE))


def _resource(path: Path) -> dict[str, Any]:
    return {"name": path.name, "digest": _digest(path)}


def _digest(path: Path, end: int | None = None) -> dict[str, str]:
    """SHA-256 of a file, or of its first bytes."""
    found = hashlib.sha256()
    try:
        with path.open("rb") as file:
            left = path.stat().st_size if end is None else end
            while piece := file.read(min(_PIECE, left)):
                found.update(piece)
                left -= len(piece)
    except OSError as error:
        raise InputError(error.strerror or str(error), path=path) from error
    return {"sha256": found.hexdigest()}


def _version() -> str:
    try:
        return version("gguf-forge")
    except PackageNotFoundError:
        return "unknown"
