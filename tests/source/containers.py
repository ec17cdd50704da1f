"""Builders of small weight files for the tests: safetensors from parts, torch archives around any pickle."""

from __future__ import annotations

import json
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gguf_forge.errors import ForgeError
from gguf_forge.source import open_checkpoint


def safetensors_bytes(header: Any, data: bytes = b"", *, length: int | None = None) -> bytes:
    """A safetensors file of this header (an object for JSON, or its raw text) and data."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(dtype: str = "F32", shape: Any = (4,), offsets: Any = (0, 16), **more: Any) -> dict[str, Any]:
    """One tensor of a safetensors header."""
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets, **more}


def safetensors_of(tensors: Mapping[str, tuple[str, NDArray[Any]]]) -> bytes:
    """A safetensors file of arrays, each with the dtype that the header says it has."""
    header: dict[str, Any] = {}
    data = b""
    for name, (dtype, values) in tensors.items():
        header[name] = entry(dtype, list(values.shape), [len(data), len(data) + values.nbytes])
        data += np.ascontiguousarray(values).tobytes()
    return safetensors_bytes(header, data)


def assert_a_checkpoint_or_an_error(path: Path) -> None:
    """That a weight file can be read to its end, or is refused by an error that names it."""
    try:
        with open_checkpoint(path) as checkpoint:
            for tensor in checkpoint.tensors.values():
                assert tensor.read().shape == tensor.shape
    except ForgeError as error:
        assert str(path) in str(error)  # noqa: PT017


def torch_zip(path: Path, pickled: bytes, members: dict[str, bytes] | None = None) -> Path:
    """A torch.save archive around a pickle; `members` are further members by name below the archive's folder."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
        for name, data in (members or {}).items():
            archive.writestr(f"archive/{name}", data)
    return path


def tensor_pickle(
    *,
    key: str = "0",
    storage: str = "FloatStorage",
    count: int = 4,
    start: int = 0,
    shape: tuple[int, ...] = (4,),
    strides: tuple[int, ...] = (1,),
) -> bytes:
    """The pickle of {"w": a tensor looking into one storage}, in the words of torch.save."""

    def number(value: int) -> bytes:
        return b"\x8a" + bytes([9]) + value.to_bytes(9, "little", signed=True)

    def text(value: str) -> bytes:
        return b"X" + struct.pack("<I", len(value)) + value.encode()

    def numbers(values: tuple[int, ...]) -> bytes:
        return b"(" + b"".join(map(number, values)) + b"t"

    saved = b"(" + text("storage") + f"ctorch\n{storage}\n".encode() + text(key) + text("cpu") + number(count) + b"tQ"
    hooks = b"ccollections\nOrderedDict\n)R"
    view = b"ctorch._utils\n_rebuild_tensor_v2\n(" + saved + number(start) + numbers(shape) + numbers(strides)
    return b"\x80\x02}" + text("w") + view + b"\x89" + hooks + b"tRs."
