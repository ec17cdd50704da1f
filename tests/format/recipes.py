"""Bad and odd inputs as rows: id, bytes, what opening must say. The ids are those of the fixture files' names."""

from __future__ import annotations

from dataclasses import dataclass

from gguf_forge.errors import ForgeError, FormatError, InvalidError, LimitError, TruncatedError, UnsupportedError
from tests.format.notation import (
    ARR,
    BOOL,
    BYTES,
    F32,
    I32,
    OK,
    Q2_0,
    Q4_0,
    Q4_K,
    STR,
    U8,
    U32,
    U64,
    a,
    arch,
    big,
    h,
    k,
    kv,
    pad,
    s,
    t,
    ti,
    u32,
    u64,
)

ALIGN = "general.alignment"
MAX = 2**64 - 1


@dataclass(frozen=True)
class Refused:
    """Opening raises `error` at `offset`, in `field`, with `text` in the message."""

    id: str
    data: bytes
    error: type[ForgeError]
    offset: int | None
    field: str | None
    text: str


@dataclass(frozen=True)
class Opens:
    """Opening succeeds; `findings` are the rules of all findings."""

    id: str
    data: bytes
    findings: tuple[str, ...] = ()


def _aligned(value: int) -> bytes:
    return h(1, 1) + kv(ALIGN, U32, u32(value)) + ti("a", [4])


def _nested(depth: int) -> bytes:
    return a(ARR, 1) * depth + a(U8, 1) + b"\1"


F, T, I, L, U = FormatError, TruncatedError, InvalidError, LimitError, UnsupportedError  # noqa: E741 - rows need it
A, KEY, HEAD = 'tensor "a"', 'key "k"', "header"

HEADERS = [
    Refused("H01", b"", F, None, None, "empty file"),
    Refused("H02", b"GGU", F, 0, None, "3 bytes, no GGUF magic"),
    Refused("H03", b"GGUF", T, 4, "version", "needs 4 bytes, 0 left"),
    Refused("H04", b"FUGG" + OK[4:], F, 0, None, "FUGG"),
    Refused("H05", b"gguf" + OK[4:], F, 0, None, "'gguf'"),
    Refused("H05b", b"\x1b[2J" + OK[4:], F, 0, None, r"'\x1b[2J'"),
    Refused("H07", h(0, 0, 0), F, 4, "version", "version 0, this reads 2 to 3"),
    Refused("H08", h(0, 0, 1), F, 4, "version", "convert the original checkpoint again"),
    Refused("H10", h(0, 0, 4), F, 4, "version", "version 4"),
    Refused("H12", h(0, 0, MAX), F, 4, "version", "version 4294967295"),
    Refused("H12b", big.h(0, 0, 7), F, 4, "version", "version 7"),
    Refused("H13", OK[:12], T, 8, HEAD, "count of tensors"),
    Refused("H14", OK[:20], T, 16, HEAD, "count of keys"),
    Refused("H15", h(-1, 0), T, 8, HEAD, "2^64-1 tensors need at least 24 bytes each, 0 left"),
    Refused("H16", h(0, -1), T, 16, HEAD, "2^64-1 keys"),
    Refused("H17", h(2**62, 0), T, 8, HEAD, "2^62 tensors"),
    Refused("H18", h(0, 2**62), T, 16, HEAD, "2^62 keys"),
    Refused("H19", h(10**6, 0), T, 8, HEAD, "1000000 tensors"),
    Refused("H20", h(0, 10**6), T, 16, HEAD, "1000000 keys"),
    Refused("H22", b"\xff\xd8\xff\xe0\0\x10JFIF" + bytes(50), F, 0, None, "JPEG"),
    Refused("H23", b"<!DOCTYPE html><html>", F, 0, None, "HTML"),
    Refused("H24", b"version https://git-lfs.github.com/spec/v1\n", F, 0, None, "Git LFS pointer"),
    Refused("H25", bytes(4096), F, 0, None, "all zeros"),
    Refused("H26", u64(40) + b'{"a":{}}' + bytes(40), F, 0, None, "safetensors"),
    Refused("H27", b"PK\3\4" + bytes(40), F, 0, None, "zip"),
]

KEYS = [
    Refused("K01", h(0, 1) + u64(MAX) + b"k" + bytes(8), T, 24, "key 0", "2^64-1 bytes, 9 left"),
    Refused("K02", h(0, 1) + u64(2**63) + b"k" + bytes(8), T, 24, "key 0", "2^63 bytes, 9 left"),
    Refused("K03", h(0, 1) + u64(100) + b"k" + bytes(4), T, 24, "key 0", "needs 100 bytes, 5 left"),
    Refused("K03b", h(0, 1) + u64(100) + b"k", T, 16, HEAD, "1 keys need at least 13 bytes each, 9 left"),
    Refused("K04", k(BOOL, b"\1", key=""), I, 24, 'key ""', "empty key"),
    Refused("K05", k(BOOL, b"\1", key="k" * 65536), L, 24, None, "65536 bytes, at most 65535"),
    Refused("K06", k(BOOL, b"\1", key="a\0b"), I, 24, r'key "a\x00b"', "NUL at byte 1"),
    Refused("K07", k(BOOL, b"\1", key=b"\xff\xfe"), I, 24, r'key "\xff\xfe"', "not UTF-8 at byte 0"),
    Refused("K09", pad(h(0, 2) + 2 * kv("k", U8, b"\1")), I, 38, KEY, "duplicate key, first at offset 0x18"),
    Refused("K10", pad(h(0, 2) + kv("k", U8, b"\1") + kv("k", U32, u32(1))), I, 38, KEY, "duplicate key"),
    Refused("K11", k(13, b"\1"), I, 33, KEY, "unknown value type 13"),
    Refused("K12", k(MAX, b"\1"), I, 33, KEY, "unknown value type 4294967295"),
    Refused("K14", k(STR, u64(MAX) + bytes(8), tail=b""), T, 37, KEY, "2^64-1 bytes, 8 left"),
    Refused("K15", k(STR, u64(2**30) + bytes(8), tail=b""), T, 37, KEY, "1073741824 bytes, 8 left"),
    Refused("K16", k(STR, u64(2**63 - 1) + bytes(8), tail=b""), T, 37, KEY, "2^63-1 bytes, 8 left"),
    Refused("K17", k(STR, u64(9) + bytes(8), tail=b""), T, 37, KEY, "9 bytes, 8 left"),
    Refused("K22", k(ARR, a(U8, MAX) + bytes(8), tail=b""), T, 41, KEY, "2^64-1 array elements"),
    Refused(
        "K23", k(ARR, a(U32, 2**62) + bytes(64), tail=b""), T, 41, KEY, "2^62 array elements need at least 2^64 bytes"
    ),
    Refused("K24", k(ARR, a(U8, 2**30) + bytes(8), tail=b""), T, 41, KEY, "1073741824 array elements"),
    Refused("K25", k(ARR, a(STR, 2**61 + 1) + bytes(64), tail=b""), T, 41, KEY, "64 left"),
    Refused("K26", k(ARR, a(U32, 3) + bytes(8), tail=b""), T, 41, KEY, "at least 12 bytes, 8 left"),
    Refused("K27", k(ARR, a(13, 1) + bytes(8)), I, 37, KEY, "unknown value type 13"),
    Refused("K29", k(ARR, _nested(2000)), L, None, KEY, "nested deeper than 8"),
    Refused("K29b", k(ARR, _nested(8)), L, None, KEY, "nested deeper than 8"),
    Refused("K32", k(ARR, a(STR, 10**7) + bytes(64), tail=b""), T, 41, KEY, "10000000 array elements"),
    Refused(
        "K32b", k(ARR, a(STR, 2) + s("ab") + u64(300), tail=b""), T, 59, KEY, "string 1 of 2 needs 300 bytes, 0 left"
    ),
    Refused("K32c", k(ARR, a(STR, 2) + u64(2**32) + bytes(8), tail=b""), T, 49, KEY, "string 0 of 2 needs 2^32 bytes"),
    Refused("K34", k(U64, bytes(3), tail=b""), T, 37, KEY, "needs 8 bytes, 3 left"),
    Refused("A01", pad(_aligned(0)) + bytes(32), I, 24, f'key "{ALIGN}"', "alignment 0 is not a power of two"),
    Refused("A02", pad(_aligned(13)) + bytes(32), I, 24, f'key "{ALIGN}"', "alignment 13 is not"),
    Refused("A06", pad(_aligned(MAX)) + bytes(32), I, 24, f'key "{ALIGN}"', "4294967295 is not a power of two"),
    Refused("A04", pad(_aligned(2**31)) + bytes(32), L, 24, f'key "{ALIGN}"', "2^31 is above the limit of 1048576"),
    Refused("A05", pad(_aligned(2**30)) + bytes(32), L, 24, f'key "{ALIGN}"', "1073741824 is above"),
    Refused("A08", k(I32, u32(32), key=ALIGN), I, 24, f'key "{ALIGN}"', "must be UINT32, found INT32"),
    Refused("A09", k(U64, u64(32), key=ALIGN), I, 24, f'key "{ALIGN}"', "found UINT64"),
    Refused("A10", k(STR, s("32"), key=ALIGN), I, 24, f'key "{ALIGN}"', "found STRING"),
    Refused("A11", k(ARR, a(U32, 1) + u32(32), key=ALIGN), I, 24, f'key "{ALIGN}"', "found ARRAY"),
    Refused("A12", pad(h(0, 2) + 2 * kv(ALIGN, U32, u32(32))), I, 57, f'key "{ALIGN}"', "duplicate key"),
]

_LONG = 64 * "n"
TENSORS = [
    Refused("T01", t(u64(MAX) + bytes(40)), T, 24, "tensor 0", "name needs 2^64-1 bytes"),
    Refused("T04", t(ti("", [4])), I, 24, 'tensor ""', "empty name"),
    Refused("T05", t(ti("a\0b", [4])), I, 24, r'tensor "a\x00b"', "NUL at byte 1"),
    Refused("T06", t(ti(b"\xff\xfe", [4])), I, 24, r'tensor "\xff\xfe"', "not UTF-8"),
    Refused(
        "T07", t(ti("a", [4]), ti("a", [4], 0, 32), data=64), I, 57, A, "duplicate tensor name, first at offset 0x18"
    ),
    Refused("T08", t(ti("a\0x", [4]), ti("a\0y", [4], 0, 32), data=64), I, 24, None, "NUL"),
    Refused("T12", t(ti("a", [1, 1, 1, 1, 1])), I, 33, A, "5 dimensions, at most 4"),
    Refused("T13", t(s("a") + u32(10**6) + bytes(80)), I, 33, A, "1000000 dimensions"),
    Refused("T14", t(s("a") + u32(MAX) + bytes(80)), I, 33, A, "2^32-1 dimensions"),
    Refused("T15", t(ti("a", [-1])), I, 24, A, "dim 2^64-1 exceeds 2^63-1"),
    Refused("T16", t(ti("a", [-1, -1])), I, 24, A, "dim 2^64-1"),
    Refused("T19", t(ti("a", [0, 2**62, 2**62])), I, 24, A, "dims product 2^124 exceeds 2^63-1"),
    Refused("T20", t(ti("a", [2**32, 2**32])), I, 24, A, "dims product 2^64 exceeds 2^63-1"),
    Refused("T21", t(ti("a", [4194305, 4194305, 211106198978564])), I, 24, A, "exceeds 2^63-1"),
    Refused("T22", t(ti("a", [2**31, 2**32])), I, 24, A, "dims product 2^63 exceeds"),
    Refused("T23", t(ti("a", [2**62])), I, 24, A, "exceed the limit of 2^63-1"),
    Refused("T24", t(ti("a", [4, 2**30 - 1, 2**30 + 1])), I, 24, A, "exceed the limit of 2^63-1"),
    Refused("T25", t(ti("a", [5124095576030431008], Q4_0)), I, 24, A, "elements x 18 bytes"),
    Refused("T26", t(ti("a", [2**40])), T, 24, A, "2^42 bytes at data offset 0, the file has 32 there"),
    Refused("T27", t(ti("a", [2**63 - 1], BYTES)), T, 24, A, "2^63-1 bytes"),
    Refused("T28", t(ti("a", [4], MAX)), U, 24, A, "unknown tensor type id 4294967295"),
    Refused("T29", t(ti("a", [32], 4)), U, 24, A, "unknown tensor type id 4, probably Q4_2 of an older llama.cpp"),
    Refused("T30", t(ti("a", [32], 43)), U, 24, A, "unknown tensor type id 43"),
    Refused("T31", t(ti("a", [32], 1000)), U, 24, A, "unknown tensor type id 1000"),
    Refused("T32", t(ti("a", [31], Q4_0)), I, 24, A, "not a multiple of the 32-element block"),
    Refused("T33", t(ti("a", [32], Q4_K)), I, 24, A, "not a multiple of the 256-element block"),
    Refused("T34", t(ti("a", [4], 0, MAX)), T, 24, A, "data offset 2^64-1"),
    Refused("T35", t(ti("a", [4], 0, 1)), I, 24, A, "data offset 1 is not a multiple of the alignment 32"),
    Refused("T37", t(ti("a", [4], 0, 2**20)), T, 24, A, "the file has 0 there"),
    Refused("T38", t(ti("a", [4], 0, 2**64 - 128)), T, 24, A, "the file has 0 there"),
    Refused("T39", t(ti("a", [16]), ti("b", [16], 0, 32), data=96), I, 57, 'tensor "b"', 'overlaps tensor "a"'),
    Refused("T40", t(ti("a", [4]), ti("b", [4]), data=64), I, 57, 'tensor "b"', 'overlaps tensor "a"'),
    Refused("T43", t(ti("a", [4]))[:53], T, 49, A, "data offset needs 8 bytes, 4 left"),
    Refused("T44", t(ti("a", [4]), data=15), T, 24, A, "16 bytes at data offset 0, the file has 15 there"),
    Refused("T45", t(ti("a", [4]), data=0), T, 24, A, "the file has 0 there"),
    Refused("T46", h(1, 0) + ti("a", [4]), T, 24, A, "the file has 0 there"),
    Refused("T48", pad(h(2, 0) + ti("a", [4])) + bytes(32), I, 57, 'tensor ""', "empty name"),
    Refused("T56", t(ti("a", [1280], Q2_0), ti("b", [4], 0, 352), data=384), U, 24, A, "in groups of 128 weights"),
    Refused("T56b", t(ti("a", [1280], Q2_0), data=340), U, 24, A, "in groups of 128 weights"),
    Refused("T56c", t(ti("a", [1280], Q2_0), data=353), T, 24, A, "360 bytes at data offset 0, the file has 353"),
    Refused("T50", t(ti("a", [2**63 - 64], BYTES), ti("b", [2**63 - 64], BYTES, 2**63 - 64)), T, 24, A, "has 32 there"),
]

_TOKENS = kv("tokenizer.ggml.tokens", ARR, a(STR, 2) + s("x") + s("<0x-1>"))
_LAYERS = "llama.block_count"
ODD = [
    Opens("OK", OK),
    Opens("H09", h(0, 0, 2)),
    Opens("H11", big.ok(), ("big-endian",)),
    Opens("H21", pad(h(0, 0))),
    Opens("K08", k(BOOL, b"\1", key="Bad Key!"), ("key-form",)),
    Opens("K13", k(BOOL, b"\2"), ("bool-byte",)),
    Opens("K38", k(ARR, a(BOOL, 3) + b"\0\1\xff"), ("bool-byte",)),
    Opens("K18", k(STR, s(b"\xc3\x28\xff")), ("text",)),
    Opens("K20", k(STR, s(b"\xed\xa0\x80")), ("text",)),
    Opens("K21", k(ARR, a(STR, 2) + s("ok") + s(b"\xc0\xaf")), ("text",)),
    Opens("K19", k(STR, s("a\0b")), ("text",)),
    Opens("K28", k(ARR, a(ARR, 1) + a(U8, 1) + b"\1"), ("nested-array",)),
    Opens("K28b", k(ARR, _nested(7)), ("nested-array",)),
    Opens("K30", k(ARR, a(U8, 0))),
    Opens("K31", k(ARR, a(STR, 0))),
    Opens("K33", k(ARR, a(STR, 3) + 3 * s(""))),
    Opens("K35", k(STR, s(""))),
    Opens("K36", k(F32, u32(0x7FC00001))),
    Opens("K37", k(U32, u32(3), key="GGUF.version"), ("key-form",)),
    Opens("A03", _aligned(1) + bytes(16)),
    Opens("A07", pad(_aligned(4096), 4096) + bytes(32), ("layout",)),
    Opens("T02", t(ti(_LONG, [4])), ("tensor-name",)),
    Opens("T03", t(ti(_LONG[:63], [4]))),
    Opens("T09", t(ti("../../etc/passwd", [4]))),
    Opens("T10", t(ti("\x1b[2Jx", [4])), ("tensor-name",)),
    Opens("T11", t(ti("a", []))),
    Opens("T17", t(ti("a", [0]), data=0), ("empty-tensor",)),
    Opens("T18", t(ti("a", [4, 0]), data=0), ("empty-tensor",)),
    Opens("T36", t(ti("a", [4], 0, 32), data=64), ("layout",)),
    Opens("T42", t(ti("a", [4]), ti("b", [4], 0, 64), data=96), ("layout",)),
    Opens("T41", t(ti("a", [4], 0, 32), ti("b", [4]), data=64), ("layout", "layout")),
    Opens("T57", t(ti("a", [1280], Q2_0), ti("b", [4], 0, 384), data=416)),
    Opens("T47", OK + b"PK\3\4" + bytes(20), ("layout",)),
    Opens("T49", t(ti("a", [0]), ti("b", [4])), ("empty-tensor",)),
    Opens("T52", OK[:-1] + b"\1", ("padding",)),
    Opens("T52b", pad(h(1, 0) + ti("a", [4]))[:-1] + b"\1" + bytes(32), ("padding",)),
    Opens("C01", k(STR, s("{{ ''.__class__.__subclasses__() }}"), key="tokenizer.chat_template"), ("template",)),
    Opens("V01", pad(h(0, 2) + _TOKENS + kv("tokenizer.ggml.scores", ARR, a(U8, 2) + b"\0\0")), ("tokenizer",)),
    Opens("V02", pad(h(0, 2) + arch() + kv(_LAYERS, U32, u32(0))), ("range",)),
    Opens("V03", pad(h(0, 2) + arch() + kv(_LAYERS, U32, u32(10**9))), ("range",)),
    Opens(
        "V04",
        pad(h(0, 2) + _TOKENS + kv("tokenizer.ggml.token_type", ARR, a(I32, 2) + u32(1) + u32(6))),
        ("tokenizer",),
    ),
    Opens("V04b", pad(h(0, 2) + _TOKENS + kv("tokenizer.ggml.token_type", ARR, a(I32, 1) + u32(1))), ("tokenizer",)),
    Opens("V05", t(ti("direction.536870912", [4])), ("tensor-name",)),
    Opens("V05b", t(ti("blk.99999999999.x", [4])), ("tensor-name",)),
]
