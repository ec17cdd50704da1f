"""Files written by torch.save, read as data: dictionary of tensors to byte ranges. Runs and imports nothing.

zip     NAME/data.pkl (the dictionary, storages by key) · NAME/data/KEY (bytes of a storage, stored, not deflated)
legacy  five pickles: magic, version, system, dictionary, storage keys | for each key: u64 count, bytes
"""

from __future__ import annotations

import io
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

from gguf_forge.errors import (
    FormatError,
    InvalidError,
    LimitError,
    TruncatedError,
    UnsafeInputError,
    UnsupportedError,
    escaped,
)
from gguf_forge.source.dtypes import DTYPES, Dtype
from gguf_forge.source.input_file import InputFile
from gguf_forge.source.pickle_machine import Name, PickleMachine, Rebuild, shown
from gguf_forge.source.safetensors import MAX_BYTES, MAX_RANK, check_tensor_name
from gguf_forge.source.stored_zip import StoredZip
from gguf_forge.source.tensor import SourceTensor, tensor_field

#: Bytes of the pickled dictionary (not of the weights).
MAX_PICKLE_BYTES = 64 << 20
#: A view that repeats elements may be at most this many times its storage.
MAX_REPEAT = 1 << 16

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_VERSION = 1001

_STORAGE_DTYPES = {
    "DoubleStorage": "F64",
    "FloatStorage": "F32",
    "HalfStorage": "F16",
    "BFloat16Storage": "BF16",
    "LongStorage": "I64",
    "IntStorage": "I32",
    "ShortStorage": "I16",
    "CharStorage": "I8",
    "ByteStorage": "U8",
    "BoolStorage": "BOOL",
    "UntypedStorage": "U8",
}
_TORCH_DTYPES = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
    "int64": "I64",
    "int32": "I32",
    "int16": "I16",
    "int8": "I8",
    "uint8": "U8",
    "uint16": "U16",
    "uint32": "U32",
    "uint64": "U64",
    "bool": "BOOL",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2",
    "float8_e4m3fnuz": "F8_E4M3FNUZ",
    "float8_e5m2fnuz": "F8_E5M2FNUZ",
    "float8_e8m0fnu": "F8_E8M0",
}


@dataclass(eq=False)
class _Storage:
    """A run of bytes that tensors look into. `first` is where this part begins in the storage called `key`."""

    key: str
    element: Dtype
    nbytes: int
    first: int = 0


@dataclass(eq=False)
class _View:
    """A tensor as the pickle describes it: element (i, j, ...) at start + i * strides[0] + j * strides[1] + ..."""

    storage: _Storage
    element: Dtype
    start: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass
class _Vocabulary:
    """The names a dictionary of tensors needs, and what each builds."""

    path: Path
    storages: dict[str, _Storage] = field(default_factory=dict)

    def rebuild(self) -> Mapping[Name, Rebuild]:
        """What each allowed name stands for."""
        utils = "torch._utils"
        names: dict[Name, Rebuild] = {
            Name("collections", "OrderedDict"): self._ordered_dict,
            Name("torch", "Size"): lambda items=(): tuple(items),
            Name("torch", "device"): lambda *_: None,
            Name("_codecs", "encode"): self._encode,
            Name(utils, "_rebuild_tensor"): self._tensor_v2,
            Name(utils, "_rebuild_tensor_v2"): self._tensor_v2,
            Name(utils, "_rebuild_tensor_v3"): self._tensor_v3,
            Name(utils, "_rebuild_parameter"): self._parameter,
            Name(utils, "_rebuild_parameter_with_state"): self._parameter,
            Name("torch._tensor", "_rebuild_from_type_v2"): self._from_type,
            Name("torch.nn.parameter", "Parameter"): self._not_called,
            Name("torch", "Tensor"): self._not_called,
            Name("torch._tensor", "Tensor"): self._not_called,
        }
        for module in ("torch", "torch.cuda", "torch.storage"):
            names |= {Name(module, name): self._not_called for name in _STORAGE_DTYPES}
        return names | {Name("torch", name): self._not_called for name in _TORCH_DTYPES}

    def persistent(self, saved: object) -> _Storage:
        """The storage of a persistent id: ("storage", type, key, device, count[, view])."""
        if not isinstance(saved, tuple) or len(saved) not in {5, 6} or saved[0] not in ("storage", b"storage"):
            raise InvalidError("pickle names something other than a storage", path=self.path)
        kind, key, count = saved[1], saved[2], saved[4]
        if not isinstance(kind, Name) or kind.name not in _STORAGE_DTYPES:
            raise InvalidError(f"storage {shown(key)} has no known type", path=self.path)
        if not isinstance(key, str):
            raise InvalidError(f"storage key {shown(key)} is not a string", path=self.path)
        element = DTYPES[_STORAGE_DTYPES[kind.name]]
        nbytes = self._count(count, "size of a storage") * element.bits // 8
        root = self.storages.setdefault(key, _Storage(key, element, nbytes))
        if root.nbytes != nbytes:
            raise InvalidError(f"storage {shown(key)} has {root.nbytes} bytes and then {nbytes}", path=self.path)
        view = saved[5] if len(saved) == 6 else None
        if view is None:
            return _Storage(root.key, element, nbytes)
        if not isinstance(view, tuple) or len(view) != 3:
            raise InvalidError(f"storage {shown(key)} has a malformed view", path=self.path)
        first, length = (self._count(number, "view of a storage") * element.bits // 8 for number in view[1:])
        if first + length > nbytes:
            raise InvalidError(
                f"view of storage {shown(key)} ends at {first + length} of {nbytes} bytes", path=self.path
            )
        return _Storage(root.key, element, length, first)

    def _count(self, value: object, what: str) -> int:
        if type(value) is not int or not 0 <= value <= MAX_BYTES:
            raise InvalidError(f"{what} is {shown(value)}, expected a whole number up to 2^63-1", path=self.path)
        return value

    def _counts(self, values: object, what: str) -> tuple[int, ...]:
        if not isinstance(values, (tuple, list)):
            raise InvalidError(f"{what} is a {type(values).__name__}, expected a tuple", path=self.path)
        if len(values) > MAX_RANK:
            raise LimitError(f"{what} of {len(values)} dimensions exceeds the limit of {MAX_RANK}", path=self.path)
        return tuple(self._count(value, what) for value in values)

    def _ordered_dict(self, pairs: object = ()) -> dict[Any, Any]:
        if pairs not in ((), []):
            raise UnsupportedError("dictionary built from pairs", path=self.path)
        return {}

    def _encode(self, text: object, encoding: object = "latin1") -> bytes:
        if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
            raise InvalidError("bytes are not written as Latin-1 text", path=self.path)
        return text.encode("latin-1", "replace")

    def _view(self, storage: object, start: object, shape: object, strides: object, element: Dtype | None) -> _View:
        if not isinstance(storage, _Storage):
            raise InvalidError(f"a tensor looks into a {type(storage).__name__}, not a storage", path=self.path)
        sizes, steps = self._counts(shape, "shape"), self._counts(strides, "strides")
        if len(sizes) != len(steps):
            raise InvalidError(f"a tensor has {len(sizes)} sizes and {len(steps)} strides", path=self.path)
        return _View(storage, element or storage.element, self._count(start, "storage offset"), sizes, steps)

    def _tensor_v2(self, *given: object) -> _View:
        storage, start, shape, strides, *rest = given
        if len(rest) > 2 and rest[2]:
            raise UnsupportedError("a tensor with a lazy conjugate or negative", path=self.path)
        return self._view(storage, start, shape, strides, None)

    def _tensor_v3(self, *given: object) -> _View:
        storage, start, shape, strides, _, _, dtype, *rest = given
        if not isinstance(dtype, Name) or dtype.name not in _TORCH_DTYPES:
            raise InvalidError("a tensor has no known dtype", path=self.path)
        if rest and rest[0]:
            raise UnsupportedError("a tensor with a lazy conjugate or negative", path=self.path)
        return self._view(storage, start, shape, strides, DTYPES[_TORCH_DTYPES[dtype.name]])

    def _parameter(self, data: object, *_: object) -> object:
        return data

    def _from_type(self, build: object, _: object, arguments: object, *__: object) -> object:
        if not isinstance(build, Name) or build.name not in {"_rebuild_tensor_v2", "_rebuild_tensor_v3"}:
            raise UnsafeInputError(f"pickle rebuilds a tensor by {shown(build)}; nothing was run", path=self.path)
        if not isinstance(arguments, tuple):
            raise InvalidError(f"a tensor is rebuilt from a {type(arguments).__name__}", path=self.path)
        return self.rebuild()[build](*arguments)

    def _not_called(self, *_: object) -> object:
        raise UnsafeInputError("pickle makes an object of a type; nothing was run", path=self.path)


@dataclass(frozen=True)
class _Place:
    """Where the bytes of a storage lie in the file."""

    offset: int
    nbytes: int


def read_torch_pickle(
    file: InputFile, notes: list[str], numbers: dict[str, int | float] | None = None
) -> dict[str, SourceTensor]:
    """The tensors of a file written by torch.save, in its order; numbers beside them go to `numbers`, if given.

    With `numbers` a dictionary among the entries is read, too: its names follow those of the entry after a dot.

    Raises UnsafeInputError for a pickle that asks for anything but tensors, FormatError and its kinds for a damaged
    file, UnsupportedError for TorchScript archives and compressed members. Nothing in the file is ever run.
    """
    value, places, big_endian = _load(file)
    tensors: dict[str, SourceTensor] = {}
    entries = value if numbers is None else _flat(value)
    for name, view in entries.items():
        if not isinstance(name, str):
            raise InvalidError(f"key {shown(name)} is not a string", path=file.path)
        check_tensor_name(name, file.path)
        if numbers is not None and isinstance(view, (int, float)) and not isinstance(view, bool):
            numbers[name] = view
            continue
        if not isinstance(view, _View):
            field = f'entry "{escaped(name)}"'
            raise InvalidError(f"{type(view).__name__}, not a tensor", path=file.path, field=field)
        tensors[name] = _place(name, view, places[view.storage.key], file, big_endian)
    return tensors


#: Dictionaries of a module: one whose entries count as its own, and those of scales that are quantized themselves.
_NESTED = ("meta", "meta_scale", "meta_zero")
#: What may stand beside a module's tensors.
Said = int | float | str | tuple[Any, ...] | None


def read_module_pickle(file: InputFile, said: dict[str, dict[str, Said]]) -> dict[str, SourceTensor]:
    """The tensors of a dictionary of modules, as MODULE.KEY; what else each module has goes to `said`, by module.

    So HQQ saves models (qmodel.pt): {module: {"W_q": tensor, "scale": tensor, "nbits": 4, "shape": (out, in), ...}},
    older files with all but W_q and bias in a dictionary "meta" of the module's. Raises as `read_torch_pickle` does.
    """
    value, places, big_endian = _load(file)
    tensors: dict[str, SourceTensor] = {}
    for module, entries in value.items():
        if not isinstance(module, str):
            raise InvalidError(f"key {shown(module)} is not a string", path=file.path)
        field = f'entry "{escaped(module)}"'
        if not isinstance(entries, dict):
            raise InvalidError(f"{shown(entries)}, expected a module's dictionary", path=file.path, field=field)
        inner = entries.get("meta")
        all_of_it = {**inner, **entries} if isinstance(inner, dict) else entries
        for key, entry in all_of_it.items():
            if not isinstance(key, str):
                raise InvalidError(f"key {shown(key)} is not a string", path=file.path, field=field)
            if key in _NESTED and isinstance(entry, dict):
                continue
            name = f"{module}.{key}"
            check_tensor_name(name, file.path)
            if isinstance(entry, _View):
                if name in tensors:
                    raise InvalidError("comes twice", path=file.path, field=tensor_field(name))
                tensors[name] = _place(name, entry, places[entry.storage.key], file, big_endian)
            elif isinstance(entry, Name):
                said.setdefault(module, {})[key] = str(entry)
            elif entry is None or isinstance(entry, (int, float, str)) or _of_numbers(entry):
                said.setdefault(module, {})[key] = entry
            else:
                what = f'entry "{escaped(name)}"'
                raise UnsupportedError(f"{shown(entry)} of a module is not read", path=file.path, field=what)
    return tensors


def _of_numbers(entry: object) -> bool:
    """Whether it is a shape."""
    return isinstance(entry, tuple) and all(type(number) is int for number in entry)


def _load(file: InputFile) -> tuple[dict[Any, Any], dict[str, _Place], bool]:
    """The dictionary in a file, where its storages lie, and whether their numbers are big-endian."""
    file.refuse_lfs_pointer()
    vocabulary = _Vocabulary(file.path)
    start = file.read(0, min(file.size, 4))
    if start == b"PK\x03\x04":
        value, places, big_endian = _read_zip(file, vocabulary)
    elif start[:1] == b"\x80":
        value, places, big_endian = _read_legacy(file, vocabulary)
    elif len(start) < 4:
        raise TruncatedError(f"{file.size} bytes, too short for a file of torch.save", path=file.path)
    else:
        raise FormatError(f"{start!r} begins no file of torch.save", path=file.path, offset=0)
    if not isinstance(value, dict):
        raise InvalidError(f"holds a {type(value).__name__}, expected a dictionary of tensors", path=file.path)
    return value, places, big_endian


def _flat(entries: Mapping[Any, Any]) -> dict[Any, Any]:
    """Entries, those of dictionaries among them under both names."""
    found: dict[Any, Any] = {}
    for name, value in entries.items():
        inner = value.items() if isinstance(value, dict) else ()
        found.update({f"{name}.{key}" if isinstance(key, str) else key: entry for key, entry in inner})
        if not isinstance(value, dict):
            found[name] = value
    return found


def _place(name: str, view: _View, place: _Place, file: InputFile, big_endian: bool) -> SourceTensor:
    """The tensor with its bytes proven to lie inside its storage."""
    path, field = file.path, tensor_field(name)
    itemsize = view.element.bits // 8
    count = prod(view.shape)
    last = view.start + (sum((n - 1) * step for n, step in zip(view.shape, view.strides, strict=True)) if count else 0)
    needed = (last + 1) * itemsize if count else 0
    if needed > view.storage.nbytes:
        raise InvalidError(f"needs {needed} bytes of a storage of {view.storage.nbytes}", path=path, field=field)
    if view.storage.first + needed > place.nbytes:
        raise TruncatedError(
            f"storage {view.storage.key!r} has {place.nbytes} bytes, needs {needed}", path=path, field=field
        )
    if count * itemsize > max(view.storage.nbytes, 1) * MAX_REPEAT:
        raise LimitError(f"{count} elements repeat a storage of {view.storage.nbytes} bytes", path=path, field=field)
    offset = place.offset + view.storage.first + view.start * itemsize
    strides = None if _dense(view.shape, view.strides) else view.strides
    return SourceTensor(name, view.element, view.shape, file, offset, strides, big_endian)


def _dense(shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    expected = 1
    for n, step in zip(reversed(shape), reversed(strides), strict=True):
        if n != 1 and step != expected:
            return 0 in shape
        expected *= n
    return True


def _read_zip(file: InputFile, vocabulary: _Vocabulary) -> tuple[object, dict[str, _Place], bool]:
    archive = StoredZip(file)
    pickles = [name for name in archive.names if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(pickles) != 1:
        raise FormatError(f"zip archive with {len(pickles)} members called NAME/data.pkl, expected 1", path=file.path)
    folder = pickles[0].removesuffix("data.pkl")
    if f"{folder}constants.pkl" in archive.names:
        raise UnsupportedError("a TorchScript archive, which is a program; save its state_dict instead", path=file.path)
    offset, nbytes = archive.place(pickles[0])
    if nbytes > MAX_PICKLE_BYTES:
        raise LimitError(f"pickle of {nbytes} bytes exceeds the limit of {MAX_PICKLE_BYTES}", path=file.path)
    machine = PickleMachine(file.path, vocabulary.rebuild(), vocabulary.persistent)
    value = machine.load(io.BytesIO(file.read(offset, nbytes)))
    order = b"little"
    if f"{folder}byteorder" in archive.names:
        order = file.read(*_at_most(archive.place(f"{folder}byteorder"), 16))
    if order not in {b"little", b"big"}:
        raise FormatError(f"byte order {order!r}", path=file.path)
    places = {}
    for key, storage in vocabulary.storages.items():
        member = f"{folder}data/{key}"
        if member not in archive.names:
            raise TruncatedError(f"no member {member[:120]!r}", path=file.path)
        places[key] = _Place(*archive.place(member))
        if places[key].nbytes < storage.nbytes:
            raise TruncatedError(
                f"member {member[:120]!r} has {places[key].nbytes} bytes, needs {storage.nbytes}", path=file.path
            )
    return value, places, order == b"big"


def _at_most(place: tuple[int, int], limit: int) -> tuple[int, int]:
    return place[0], min(place[1], limit)


def _read_legacy(file: InputFile, vocabulary: _Vocabulary) -> tuple[object, dict[str, _Place], bool]:
    path = file.path
    stream = io.BytesIO(file.read(0, min(file.size, MAX_PICKLE_BYTES)))

    def load() -> Any:
        return PickleMachine(path, vocabulary.rebuild(), vocabulary.persistent).load(stream)

    if load() != _LEGACY_MAGIC:
        raise FormatError("a pickle, but not of torch.save", path=path)
    version = load()
    if version != _LEGACY_VERSION:
        raise UnsupportedError(f"torch.save protocol {shown(version)}, expected {_LEGACY_VERSION}", path=path)
    system, value, keys = load(), load(), load()
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise InvalidError("the storages are not a list of keys", path=path)
    if set(keys) != vocabulary.storages.keys():
        raise InvalidError("the list of storages does not fit the tensors", path=path)
    big_endian = isinstance(system, dict) and system.get("little_endian") is False
    at = stream.tell()
    places: dict[str, _Place] = {}
    for key in keys:
        storage = vocabulary.storages[key]
        (count,) = struct.unpack(">q" if big_endian else "<q", file.read(at, 8))
        if count * (storage.element.bits // 8) != storage.nbytes or key in places:
            raise InvalidError(f"storage {key[:80]!r} has {count} elements, or comes twice", path=path, offset=at)
        if at + 8 + storage.nbytes > file.size:
            raise TruncatedError(f"storage {key[:80]!r} ends beyond the file", path=path, offset=at)
        places[key] = _Place(at + 8, storage.nbytes)
        at += 8 + storage.nbytes
    return value, places, big_endian
