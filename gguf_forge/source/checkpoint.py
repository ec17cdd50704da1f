"""A checkpoint folder as {name: tensor}. Knows which files belong together; must not know what the tensors mean."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, final

from gguf_forge.closing import Closing
from gguf_forge.errors import (
    ChangedInputError,
    CheckpointError,
    InputError,
    InvalidError,
    UnsafeInputError,
    escaped,
    listed,
)
from gguf_forge.source.input_file import InputFile
from gguf_forge.source.safetensors import read_safetensors
from gguf_forge.source.strict_json import read_json_object
from gguf_forge.source.tensor import SourceTensor, tensor_field
from gguf_forge.source.torch_pickle import Said, read_module_pickle, read_torch_pickle
from gguf_forge.source.wrappers import ADAPTER_CONFIG, describe_adapter, unwrap


@dataclass(frozen=True)
class _Beside:
    """What weight files say beside their tensors."""

    modules: dict[str, dict[str, Said]]
    metadata: dict[str, str]


_Reader = Callable[[InputFile, list[str], _Beside], dict[str, SourceTensor]]


def _safetensors(file: InputFile, notes: list[str], beside: _Beside) -> dict[str, SourceTensor]:
    return read_safetensors(file, notes, beside.metadata)


def _torch(file: InputFile, notes: list[str], _: object) -> dict[str, SourceTensor]:
    return read_torch_pickle(file, notes)


def _modules(file: InputFile, _: object, beside: _Beside) -> dict[str, SourceTensor]:
    return read_module_pickle(file, beside.modules)


#: Container by the beginning and end of its file names, in order of preference.
_CONTAINERS: tuple[tuple[str, str, _Reader], ...] = (
    ("model", ".safetensors", _safetensors),
    ("pytorch_model", ".bin", _torch),
    ("output", ".safetensors", _safetensors),  # as exllamav2 calls what it makes
    ("qmodel", ".pt", _modules),  # as hqq calls what it saves
)
#: The containers of a folder in Mistral's own layout.
_NATIVE = (("consolidated", ".safetensors", _safetensors),)
#: Keys of config.json by which other tools import Python files of the folder.
_CODE_KEYS = ("auto_map", "model_file")
_NUMBERED = re.compile(r"(.*)-(\d{5})-of-(\d{5})(\.[a-z]+)", re.DOTALL)


@final
class Checkpoint(Closing):
    """An open checkpoint.

    `path` is the folder, `files` the weight files in the order they are read, `tensors` maps names to SourceTensor
    (files by name; within a safetensors file by name, within a .bin file as it lists them; names without those of
    modules that wrapped the model in training), `notes` holds what is legal but odd, one line each. `native` says that
    the folder is read in Mistral's own layout: consolidated*.safetensors and params.json. `adapter` is the folder of an
    adapter that was merged into the tensors; `modules` is what a file says of modules beside their tensors, by module
    (of hqq's own files alone), `metadata` what the headers of safetensors files do; `folders` are both, that first
    whose name and card the model has. Close it, or use it as a context manager; reads fail afterwards.
    """

    path: Path
    files: tuple[Path, ...]
    tensors: Mapping[str, SourceTensor]
    notes: list[str]
    native: bool
    adapter: Path | None
    modules: Mapping[str, Mapping[str, Said]]
    metadata: Mapping[str, str]

    def __init__(self, path: str | os.PathLike[str], *, native: bool = False) -> None:
        given = Path(path)
        self.native = native
        self.adapter = None
        self.notes = []
        self._inputs: list[InputFile] = []
        beside = _Beside({}, {})
        self.modules, self.metadata = beside.modules, beside.metadata
        tensors: dict[str, SourceTensor] = {}
        with ExitStack() as undo:
            undo.callback(self.close)
            if os.path.isdir(given):
                self.path = given
                names, reader, weight_map = _weight_files(given, self.notes, _NATIVE if native else _CONTAINERS)
            else:
                self.path = given.parent
                names, reader, weight_map = [given.name], _reader_of(given), {}
            self.files = tuple(self.path / name for name in names)
            for name in names:
                self._add_file(self.path / name, reader, tensors, beside)
            if weight_map:
                _check_index(self.path, weight_map, tensors, self.notes)
            unwrapped, notes = unwrap(tensors, self.path)
            undo.pop_all()
        self.tensors = MappingProxyType(unwrapped)
        self.notes += notes

    def _add_file(self, path: Path, reader: _Reader, tensors: dict[str, SourceTensor], beside: _Beside) -> None:
        file = InputFile(path)
        self._inputs.append(file)
        found = reader(file, self.notes, beside)
        for name in found.keys() & tensors.keys():
            where = tensors[name].file.path.name
            raise CheckpointError(f"is also in {where}", path=path, field=tensor_field(name))
        tensors.update(found)

    @cached_property
    def config(self) -> dict[str, Any]:
        """The folder's config.json (or params.json), as it is. Raises CheckpointError when there is none."""
        name = "params.json" if self.native else "config.json"
        found = self.read_json(name)
        if found is None:
            raise CheckpointError(f"no {name}", path=self.path)
        for key in _CODE_KEYS:
            if key in found:
                self.notes.append(f"{self.path / name}: {key} names code of the checkpoint, which is never run")
        return found

    def read_json(self, name: str) -> dict[str, Any] | None:
        """The object in the JSON file `name` ("a.json" or "folder/a.json"), None when there is no such file.

        Raises UnsafeInputError for a name that may leave the folder; FormatError, LimitError or InvalidError
        when it is no JSON object within the limits.
        """
        parts = (check_file_name(part, self.path) for part in name.split("/"))
        path = self.path.joinpath(*parts)
        return read_json_object(path) if os.path.exists(path) else None

    @property
    def folders(self) -> tuple[Path, ...]:
        """Where its files lie, the folder first by which the model is known."""
        return (self.path,) if self.adapter is None else (self.adapter, self.path)

    def sources(self) -> list[Path]:
        """Every file that weights are made of: those with weights, and those that say how they are to be read."""
        said = (path for folder in self.folders if folder.is_dir() for path in folder.iterdir())
        steering = sorted(path for path in said if path.name.endswith(("config.json", "params.json")))
        return [*dict.fromkeys([*(file.path for file in self._inputs), *steering])]

    def unchanged(self) -> bool:
        """Whether every weight file is still the one that was opened: device, inode, size and times."""
        return all(file.unchanged() for file in self._inputs)

    def require_unchanged(self) -> None:
        """Raise ChangedInputError naming a weight file that was changed or replaced since it was opened."""
        for file in self._inputs:
            if not file.unchanged():
                raise ChangedInputError("was changed while it was read", path=file.path)

    def read_torch_file(self, path: Path, numbers: dict[str, int | float]) -> Mapping[str, SourceTensor]:
        """The tensors of a file of torch.save, closed with the checkpoint; numbers beside them go to `numbers`."""
        file = InputFile(path)
        self._inputs.append(file)
        return read_torch_pickle(file, self.notes, numbers)

    def hold(self, other: Checkpoint) -> None:
        """Take another checkpoint's files for its own, to be closed with it and watched for changes."""
        self._inputs += other._inputs

    def close(self) -> None:
        """Release the files."""
        for file in self._inputs:
            file.close()


def open_checkpoint(path: str | os.PathLike[str], *, native: bool = False) -> Checkpoint:
    """Open a checkpoint folder (`native`: in Mistral's own layout), or a single weight file of one. Reads headers only.

    Raises a ForgeError naming the file and the rule: FormatError and its kinds for a damaged file, CheckpointError
    for files that are missing or contradict each other, InputError for what cannot be read, UnsafeInputError for names
    that leave the folder and for pickles that ask for code.
    """
    return Checkpoint(path, native=native)


def check_file_name(name: str, path: Path, field: str | None = None) -> str:
    """`name` itself when it is the plain name of a file in a folder, on every system; UnsafeInputError otherwise.

    The check is on the name alone, not on where a link leads: caches of downloads link out of the folder.
    """
    plain = name not in {"", ".", ".."} and not any(c in '/\\:*?"<>|' or ord(c) < 32 or c == "\x7f" for c in name)
    if not plain or name != name.strip() or name.endswith("."):
        raise UnsafeInputError(f"{name[:120]!r} is not a plain file name", path=path, field=field)
    return name


def _reader_of(path: Path) -> _Reader:
    for _, suffix, reader in _CONTAINERS:
        if path.name.endswith(suffix):
            return reader
    if not os.path.lexists(path):
        raise InputError("no such file or folder", path=path)
    raise InvalidError(f"neither a folder nor a file of {listed(suffix for _, suffix, _ in _CONTAINERS)}", path=path)


def _weight_files(
    folder: Path, notes: list[str], containers: tuple[tuple[str, str, _Reader], ...]
) -> tuple[list[str], _Reader, dict[str, str]]:
    """Names of the weight files in reading order, how to read one, and the index (empty when there is none)."""
    try:
        present = sorted(os.listdir(folder))
    except OSError as error:
        raise InputError(f"cannot be listed: {error.strerror}", path=folder) from None
    for prefix, suffix, reader in containers:
        index = folder / f"{prefix}{suffix}.index.json"
        if os.path.isfile(index):
            weight_map = _read_index(index)
            names = sorted(set(weight_map.values()))
            missing = [name for name in names if not os.path.exists(folder / name)]
            if missing:
                raise CheckpointError(f"names files that are not there: {listed(missing)}", path=index)
            return names, reader, weight_map
        names = [name for name in present if name.startswith(prefix) and name.endswith(suffix)]
        if names:
            names = _without_variants(names, prefix, suffix, notes)
            _check_numbered(folder, names)
            return names, reader, {}
    if ADAPTER_CONFIG in present:
        raise CheckpointError(describe_adapter(folder), path=folder)
    if containers is not _NATIVE and "params.json" in present:
        raise CheckpointError("a model in Mistral's own layout, which --mistral-format reads", path=folder)
    known = listed(f"{prefix}*{suffix}" for prefix, suffix, _ in containers)
    others = [name for name in present if name.endswith(tuple(suffix for _, suffix, _ in _CONTAINERS))]
    found = f"; found {listed(others)}, which must be named itself to be read" if others else ""
    raise CheckpointError(f"no weights; looked for {known}{found}", path=folder)


def _without_variants(names: list[str], prefix: str, suffix: str, notes: list[str]) -> list[str]:
    """The files without those that hold the same model in another precision.

    Such a variant is named by a word more, model.fp16.safetensors; it counts where there is nothing else, as in the
    reference, which reads the plain file over it.
    """
    variant = re.compile(rf"{re.escape(prefix)}\.[^.]+{re.escape(suffix)}")
    plain = [name for name in names if not variant.fullmatch(name)]
    if not plain:
        return names
    notes.extend(f"{name} is left out: a variant of {plain[0]}" for name in names if name not in plain)
    return plain


def _read_index(path: Path) -> dict[str, str]:
    weight_map = read_json_object(path).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise InvalidError("weight_map is missing, empty or not an object", path=path)
    for tensor, name in weight_map.items():
        field = f'weight_map "{escaped(tensor)}"'
        if not isinstance(name, str):
            raise InvalidError(f"{name!r:.40} is not a file name", path=path, field=field)
        check_file_name(name, path, field)
    return weight_map


def _check_numbered(folder: Path, names: list[str]) -> None:
    """Without an index, the names model-00001-of-00003 themselves say which files must be there."""
    for name in names:
        match = _NUMBERED.fullmatch(name)
        if not match:
            continue
        stem, _, count, suffix = match.groups()
        wanted = (f"{stem}-{number:05}-of-{count}{suffix}" for number in range(1, int(count) + 1))
        missing = [other for other in wanted if other not in names]
        if missing:
            raise CheckpointError(f"{name} says there are {int(count)} files; missing: {listed(missing)}", path=folder)


def _check_index(
    folder: Path, weight_map: Mapping[str, str], tensors: Mapping[str, SourceTensor], notes: list[str]
) -> None:
    missing = weight_map.keys() - tensors.keys()
    if missing:
        by_file = listed(f"{name!r} of {weight_map[name]}" for name in sorted(missing))
        raise CheckpointError(f"{len(missing)} tensors of the index are in no file: {by_file}", path=folder)
    extra = tensors.keys() - weight_map.keys()
    if extra:
        by_file = listed(f"{name!r} in {tensors[name].file.path.name}" for name in sorted(extra))
        raise CheckpointError(f"{len(extra)} tensors are not in the index: {by_file}", path=folder)
    for name, tensor in tensors.items():
        if tensor.file.path.name != weight_map[name]:
            notes.append(f"tensor {name!r} is in {tensor.file.path.name}, the index says {weight_map[name]}")
