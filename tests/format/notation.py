"""A tiny notation for GGUF files, right or broken, byte by byte.

Knows the layout from its own struct codes, so that it can judge the reader and the writer; must not import the package.
"""

from __future__ import annotations

import struct

U8, I8, U16, I16, U32, I32, F32, BOOL, STR, ARR, U64, I64, F64 = range(13)
Q4_0, Q4_K, IQ2_XXS, BYTES, Q2_0 = 2, 12, 16, 24, 42  # tensor types; BYTES is I8


class Order:
    """The notation in one byte order."""

    def __init__(self, mark: str) -> None:
        self.mark = mark

    def u32(self, value: int) -> bytes:
        return struct.pack(self.mark + "I", value % 2**32)

    def u64(self, value: int) -> bytes:
        return struct.pack(self.mark + "Q", value % 2**64)

    def s(self, text: str | bytes) -> bytes:
        """A string."""
        raw = text.encode() if isinstance(text, str) else text
        return self.u64(len(raw)) + raw

    def h(self, tensors: int, keys: int, version: int = 3) -> bytes:
        """The head of a file: magic, version, counts."""
        return b"GGUF" + self.u32(version) + self.u64(tensors) + self.u64(keys)

    def kv(self, key: str | bytes, kind: int, value: bytes) -> bytes:
        """A key with its value."""
        return self.s(key) + self.u32(kind) + value

    def a(self, element: int, count: int) -> bytes:
        """The head of an array."""
        return self.u32(element) + self.u64(count)

    def ti(self, name: str | bytes, dims: list[int], kind: int = 0, offset: int = 0) -> bytes:
        """A tensor's record; dims in the file's order."""
        sizes = b"".join(self.u64(d) for d in dims)
        return self.s(name) + self.u32(len(dims)) + sizes + self.u32(kind) + self.u64(offset)

    def arch(self) -> bytes:
        return self.kv("general.architecture", STR, self.s("llama"))

    def ok(self) -> bytes:
        """A good file: one key, one tensor of 16 bytes, padded."""
        return pad(self.h(1, 1) + self.arch() + self.ti("a", [4])) + bytes(32)


little, big = Order("<"), Order(">")
u32, u64, s, h, kv, a, ti, arch = (
    little.u32,
    little.u64,
    little.s,
    little.h,
    little.kv,
    little.a,
    little.ti,
    little.arch,
)


def pad(data: bytes, alignment: int = 32) -> bytes:
    """Zeros up to a multiple of the alignment."""
    return data + bytes(-len(data) % alignment)


def t(*infos: bytes, data: int = 32) -> bytes:
    """A file without keys, of these tensor records and `data` zero bytes."""
    return pad(h(len(infos), 0) + b"".join(infos)) + bytes(data)


def k(kind: int, value: bytes, key: str | bytes = "k", tail: bytes | None = None) -> bytes:
    """A file of one key, padded; with `tail`, that follows instead of the padding."""
    data = h(0, 1) + kv(key, kind, value)
    return pad(data) if tail is None else data + tail


OK = little.ok()
