"""What there is to say about an open GGUF file: a page for people, a document for programs. Reads keys and tensor
headers, never a weight; must not print.
"""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from math import prod
from typing import Any

from gguf_forge.errors import RecipeError
from gguf_forge.format.reader import GGUFFile, Tensor, UnknownTensor
from gguf_forge.quant.imatrix import CHUNK_COUNT, CHUNK_SIZE, DATASETS, SUMS
from gguf_forge.quant.recipe import recipe

#: Key suffix under the architecture's name, for each figure of the model that is shown.
MODEL_FIGURES = {
    "context_length": "context_length",
    "embedding_length": "embedding_length",
    "layers": "block_count",
    "feed_forward_length": "feed_forward_length",
    "heads": "attention.head_count",
    "kv_heads": "attention.head_count_kv",
    "experts": "expert_count",
    "experts_used": "expert_used_count",
}
TOKENIZER_FIGURES = {
    "bos": "bos_token_id",
    "eos": "eos_token_id",
    "eot": "eot_token_id",
    "unknown": "unknown_token_id",
    "padding": "padding_token_id",
    "add_bos": "add_bos_token",
    "add_eos": "add_eos_token",
}


def summarize(file: GGUFFile) -> dict[str, Any]:
    """The page as plain values: file, model, tokenizer, types (largest share first), imatrix (None in other files).

    A figure that the file lacks, or that is not known as a tensor's type is not, is None. Sizes in bytes; parameters
    are tensor elements, rope tables and the like included; bits_per_weight counts tensor bytes only.
    """
    parameters = sum(prod(t.shape) for t in file.listing())
    tensor_bytes = None if file.unknown else sum(t.nbytes for t in file.tensors.values())
    return {
        "file": {
            "path": str(file.path),
            "files": [str(p) for p in file.paths],
            "bytes": file.nbytes,
            "version": file.version,
            "endian": file.endian,
            "alignment": file.alignment,
            "keys": len(file.metadata),
            "tensors": len(file.listing()),
        },
        "model": {
            **_model(file.metadata),
            "parameters": parameters,
            "tensor_bytes": tensor_bytes,
            "bits_per_weight": 8 * tensor_bytes / parameters if parameters and tensor_bytes is not None else None,
        },
        "tokenizer": _tokenizer(file),
        "types": _types(file),
        "imatrix": _imatrix(file),
    }


def document(file: GGUFFile, keys: str = "*") -> dict[str, Any]:
    """The page and, in the file's order, each key that matches a glob with its whole value, and each tensor.

    Shapes are in NumPy order, the last axis contiguous; offsets count from the start of the tensor's file. A type that
    is not read has its number for a name. RecipeError for a glob that no key matches.
    """
    return {
        **summarize(file),
        "metadata": [
            {**kind(file, key), "value": file.metadata[key]} for key in matching(file, keys)
        ],
        "tensors": [
            {
                "name": t.name,
                "type": type_name(t),
                "shape": list(t.shape),
                "bytes": tensor_size(t),
                "offset": t.offset,
                "file": t.path.name,
            }
            for t in file.listing()
        ],
    }


def matching(file: GGUFFile, keys: str) -> list[str]:
    """The keys that a glob matches, in the file's order. An unmatched glob is an error: it is a slip of the pen."""
    found = [key for key in file.metadata if fnmatchcase(key, keys)]
    if not found and keys != "*":
        raise RecipeError(f"no key matches {keys!r}", path=file.path)
    return found


def kind(file: GGUFFile, key: str) -> dict[str, Any]:
    """A key's name, value type and, for arrays, element type and length; without decoding the value."""
    found: dict[str, Any] = {"key": key, "type": file.metadata.type_of(key).name}
    element = file.metadata.element_type_of(key)
    if element is not None:
        found |= {"element": element.name, "length": file.metadata.count_of(key)}
    return found


def _model(metadata: Mapping[str, Any]) -> dict[str, Any]:
    arch = metadata.get("general.architecture")
    figures = {name: metadata.get(f"{arch}.{suffix}") for name, suffix in MODEL_FIGURES.items()}
    number = metadata.get("general.file_type")
    return {
        "name": metadata.get("general.name"),
        "architecture": arch,
        "size_label": metadata.get("general.size_label"),
        "license": metadata.get("general.license"),
        "file_type": number,
        "recipe": _recipe(number),
        **figures,
    }


def _recipe(number: Any) -> str | None:
    if not isinstance(number, int):
        return None
    try:
        return recipe(number).name
    except RecipeError:
        return None


def _tokenizer(file: GGUFFile) -> dict[str, Any]:
    metadata = file.metadata

    def length(key: str) -> int | None:
        return metadata.count_of(key) if key in metadata else None

    return {
        "model": metadata.get("tokenizer.ggml.model"),
        "pre": metadata.get("tokenizer.ggml.pre"),
        "tokens": length("tokenizer.ggml.tokens"),
        "merges": length("tokenizer.ggml.merges"),
        **{name: metadata.get(f"tokenizer.ggml.{suffix}") for name, suffix in TOKENIZER_FIGURES.items()},
        "chat_template": "tokenizer.chat_template" in metadata,
    }


def _imatrix(file: GGUFFile) -> dict[str, Any] | None:
    """What an importance matrix tells of itself; entries are tensors it has sums for."""
    if any(key not in file.metadata for key in (DATASETS, CHUNK_COUNT, CHUNK_SIZE)):
        return None
    return {
        "entries": sum(name.endswith(SUMS) for name in file.tensors),
        "chunks": file.metadata[CHUNK_COUNT],
        "chunk_size": file.metadata[CHUNK_SIZE],
        "datasets": file.metadata[DATASETS],
    }


def _types(file: GGUFFile) -> list[dict[str, Any]]:
    rows: dict[str, dict[str, Any]] = {}
    for tensor in file.listing():
        name, nbytes = type_name(tensor), tensor_size(tensor)
        row = rows.setdefault(
            name, {"type": name, "tensors": 0, "parameters": 0, "bytes": None if nbytes is None else 0}
        )
        row["tensors"] += 1
        row["parameters"] += prod(tensor.shape)
        if nbytes is not None:
            row["bytes"] += nbytes
        elif isinstance(tensor, UnknownTensor):
            row["probably"] = tensor.probably
    return sorted(rows.values(), key=lambda row: -(row["bytes"] or 0))


def type_name(tensor: Tensor | UnknownTensor) -> str:
    """The type's name; the number of one that is not read."""
    return str(tensor.type_id) if isinstance(tensor, UnknownTensor) else tensor.type.name


def tensor_size(tensor: Tensor | UnknownTensor) -> int | None:
    """Bytes; None of a type that is not read."""
    return None if isinstance(tensor, UnknownTensor) else tensor.nbytes
