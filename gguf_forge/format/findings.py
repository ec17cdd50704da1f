"""What is odd in a file that opens: other readers refuse or misread it, or it looks made to deceive. Raises nothing.

One function a finding's rule, each over one file. Reads headers, padding, and tokenizer values; no tensor data. Where
tensors of unknown types leave open what is padding, nothing is said of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice, pairwise

import numpy as np

from gguf_forge.errors import escaped
from gguf_forge.format.layout import WRITE_NAME_BYTES, ValueType
from gguf_forge.format.part import Part
from gguf_forge.format.reader import GGUFFile
from gguf_forge.format.validate import Placed, align

#: How bad a finding is. An error: llama.cpp refuses the file, or computes with it what its maker did not mean, or it is
#: made to harm. A warning: all load it, but it is not as files are.
ERROR, WARNING = "error", "warning"


@dataclass(frozen=True)
class Finding:
    """One oddity: the rule's name, the file, what was found, the byte offset and field if there is one; how bad it is.

    `text` is fit for a terminal, whatever a file says.
    """

    rule: str
    path: str
    text: str
    offset: int | None = None
    field: str | None = None
    severity: str = WARNING

    def __str__(self) -> str:
        place = [None if self.offset is None else f"offset {self.offset:#x}", self.field]
        return ": ".join(p for p in (escaped(self.path, 4096), ", ".join(p for p in place if p), self.text) if p)


#: What a rule yields: text, offset, field; and how bad it is, where not all that the rule finds is alike.
_Found = Iterator[tuple[str, int | None, str | None] | tuple[str, int | None, str | None, str]]


def findings(file: GGUFFile, most: int | None = None) -> list[Finding]:
    """All findings of an open file, of every shard; of each rule the first `most` in a shard, if that is given.

    Raises ChangedInputError when the file was changed meanwhile.
    """
    return [
        Finding(name, str(part.path), text, offset, field, *(severity or (SEVERITY.get(name, WARNING),)))
        for part in file.parts
        for name, rule in RULES.items()
        for text, offset, field, *severity in islice(rule(part), most)
    ]


def find_big_endian(part: Part) -> _Found:
    """Most readers take little-endian files only."""
    if part.checked.header.order == ">":
        yield "big-endian: most readers refuse it", 4, "version"


_KEY = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*")


def find_key_form(part: Part) -> _Found:
    """Keys are lower-case words joined by dots."""
    for entry in part.checked.header.entries:
        if not _KEY.fullmatch(entry.key):
            yield "key is not made of lower-case words and dots", entry.offset, entry.field


def find_bool_bytes(part: Part) -> _Found:
    """A BOOL is 0 or 1."""
    for entry in part.checked.header.entries:
        if ValueType.BOOL in (entry.type, entry.element):
            raw = part.buffer[entry.start : entry.end]
            if raw.strip(b"\0\1") and (odd := raw.translate(None, b"\0\1")):
                yield f"BOOL byte {odd[0]:#04x}, read as true", entry.start, entry.field


def find_text(part: Part) -> _Found:
    """Strings are UTF-8 without NUL."""
    for entry in part.checked.header.entries:
        if ValueType.STRING not in (entry.type, entry.element):
            continue
        value = part.value(entry).value
        for i, text in enumerate([value] if isinstance(value, str) else value):
            which = "" if entry.element is None else f"string {i}: "
            if "\0" in text:
                yield f"{which}holds a NUL, where C readers cut it", entry.start, entry.field
                break
            if not text.isascii() and any("\udc80" <= c <= "\udcff" for c in text):
                yield f"{which}is not UTF-8", entry.start, entry.field
                break


def find_nested_arrays(part: Part) -> _Found:
    """llama.cpp reads no arrays of arrays."""
    for entry in part.checked.header.entries:
        if entry.element is ValueType.ARRAY:
            yield "an array of arrays, which llama.cpp refuses", entry.start, entry.field


_INDEX = re.compile(r"(?<![0-9])[0-9]+(?![0-9])")
_MOST_INDEX = 65535


def find_tensor_names(part: Part) -> _Found:
    """Names fit ggml's 64 bytes, hold no control characters, and no absurd index."""
    for info in part.checked.header.infos:
        if len(info.raw_name) > WRITE_NAME_BYTES:
            text = f"name of {len(info.raw_name)} bytes, ggml refuses more than {WRITE_NAME_BYTES}"
            yield text, info.offset, info.field, ERROR
        if not info.name.isprintable():
            yield "name holds control characters", info.offset, info.field
        for digits in _INDEX.findall(info.name):
            if len(digits) > len(str(_MOST_INDEX)) or int(digits) > _MOST_INDEX:
                yield f"index {escaped(digits, 24)} in the name is above {_MOST_INDEX}", info.offset, info.field


def find_empty_tensors(part: Part) -> _Found:
    """Tensors hold elements."""
    for info in part.checked.header.infos:
        if 0 in info.dims:
            yield f"no elements: dims {list(info.dims)}", info.offset, info.field


def find_layout(part: Part) -> _Found:
    """Tensors lie in the order of their records, without holes; the last is padded, and nothing follows."""
    checked = part.checked
    if checked.unsized:
        return
    expected = 0
    ends: list[tuple[int, Placed]] = []
    for tensor in checked.tensors:
        if tensor.info.data != expected:
            text = f"data offset {tensor.info.data}, llama.cpp expects {expected}"
            yield text, tensor.info.offset, tensor.info.field
        expected = align(tensor.info.data + tensor.nbytes, checked.alignment)
        ends.append((tensor.start + tensor.nbytes, tensor))
    end, last = max(ends, key=lambda e: e[0]) if ends else (checked.header.end, None)
    padded = align(end, checked.alignment)
    if last is not None and part.size < padded:
        yield f"the last tensor is not padded to {checked.alignment} bytes", end, last.info.field, WARNING
    if part.size > padded:
        yield f"{part.size - padded} bytes after the data", padded, None, WARNING


#: Bytes of padding that are read at a time.
_PIECE = 1 << 20


def find_padding(part: Part) -> _Found:
    """Padding is zeros."""
    checked = part.checked
    if checked.unsized:
        return
    spans = [(checked.header.end, min(checked.data_start, part.size))]
    tensors = sorted((t for t in checked.tensors if t.nbytes), key=lambda t: t.start)
    for tensor, after in pairwise([*tensors, None]):
        assert tensor is not None
        end = tensor.start + tensor.nbytes
        spans.append((end, min(align(end, checked.alignment), part.size if after is None else after.start)))
    if not part.storage.local:
        del spans[1:]  # what is behind each tensor would be a request each
    for start, stop in spans:
        part.check_unchanged()
        if not _all_zeros(part, start, stop):
            yield "padding is not zeros", start, None
            return


def _all_zeros(part: Part, start: int, stop: int) -> bool:
    """Whether bytes of a file are zeros: read, and a few at a time, for padding may be any size."""
    for at in range(start, stop, _PIECE):
        piece = np.empty(min(_PIECE, stop - at), np.uint8)
        part.read_into(piece, at)
        if piece.any():
            return False
    return True


#: The types that llama.cpp's tokenizers take without a check.
_TOKENIZER = {
    "tokenizer.ggml.tokens": ValueType.STRING,
    "tokenizer.ggml.merges": ValueType.STRING,
    "tokenizer.ggml.scores": ValueType.FLOAT32,
    "tokenizer.ggml.token_type": ValueType.INT32,
}
_BYTE_TOKEN = 6
_BYTE = re.compile(r"<0x[0-9A-F]{2}>")


def find_tokenizer(part: Part) -> _Found:
    """Token arrays have the types and lengths that readers rely on; byte tokens are spelled <0xHH>."""
    counts = {}
    for key, element in _TOKENIZER.items():
        entry = part.entries.get(key)
        if entry is None:
            continue
        if entry.element is not element:
            found = entry.type.name if entry.element is None else f"array of {entry.element.name}"
            yield f"must be an array of {element.name}, found {found}", entry.offset, entry.field
        elif key != "tokenizer.ggml.merges":
            counts[key] = entry
    if len({e.count for e in counts.values()}) > 1:
        entry = list(counts.values())[-1]
        yield f"lengths differ: {', '.join(f'{k} {e.count}' for k, e in counts.items())}", entry.offset, entry.field
        return
    tokens, types = counts.get("tokenizer.ggml.tokens"), counts.get("tokenizer.ggml.token_type")
    if tokens is not None and types is not None:
        texts = part.value(tokens).value
        for i in (part.value(types).value == _BYTE_TOKEN).nonzero()[0].tolist():
            if not _BYTE.fullmatch(texts[i]):
                yield f'byte token {i} is "{escaped(texts[i], 40)}", not <0xHH>', tokens.offset, tokens.field
                return


#: Hyperparameters that readers size loops and arrays by: the last word of the key, lowest, highest.
_RANGES = {
    "block_count": (1, 512),
    "head_count": (1, 65536),
    "embedding_length": (1, 2**24),
    "context_length": (1, 2**31),
}


#: Architectures without attention, which have no heads.
_HEADLESS = ("arwkv7", "mamba", "mamba2", "rwkv6", "rwkv6qwen2", "rwkv7")


def find_ranges(part: Part) -> _Found:
    """Hyperparameters are within what any model has."""
    for entry in part.checked.header.entries:
        arch, _, name = entry.key.partition(".")
        bounds = _RANGES.get(name.rpartition(".")[2])
        if bounds is None or (arch in _HEADLESS and name == "attention.head_count"):
            continue
        if entry.type in (ValueType.STRING, ValueType.ARRAY):
            continue
        value = part.value(entry).value
        if not bounds[0] <= value <= bounds[1]:
            yield f"{value} is not within {bounds[0]} to {bounds[1]}", entry.offset, entry.field


_ATTACK = re.compile(r"__\w+__|\|\s*attr\b|\bpopen\b|\bos\.system\b|\bsubprocess\b")


def find_template(part: Part) -> _Found:
    """Chat templates reach for no Python internals."""
    for entry in part.checked.header.entries:
        if entry.type is ValueType.STRING and entry.key.startswith("tokenizer.chat_template"):
            hit = _ATTACK.search(part.value(entry).value)
            if hit:
                text = f"the template holds {escaped(hit.group(), 40)!r}, as templates that run code do"
                yield text, entry.offset, entry.field


RULES: dict[str, Callable[[Part], _Found]] = {
    "big-endian": find_big_endian,
    "key-form": find_key_form,
    "bool-byte": find_bool_bytes,
    "text": find_text,
    "nested-array": find_nested_arrays,
    "tensor-name": find_tensor_names,
    "empty-tensor": find_empty_tensors,
    "layout": find_layout,
    "padding": find_padding,
    "tokenizer": find_tokenizer,
    "range": find_ranges,
    "template": find_template,
}
#: The rules whose findings are errors, but where they say otherwise.
SEVERITY: dict[str, str] = dict.fromkeys(
    ("big-endian", "nested-array", "layout", "tokenizer", "range", "template"), ERROR
)
