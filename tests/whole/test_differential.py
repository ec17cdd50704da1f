"""`check` beside llama.cpp's parser, over the catalogue of bad inputs, mutations of good files, any bytes, and what the
fuzzers found and kept (FUZZ=folder, as `make fuzz` has it: each input of its corpora).

What the parser (gguf_init_from_file) refuses is refused or reported. What is unreadable here and parsed there is on the
list of docs/check.md: a row of STRICTER each.
"""

from __future__ import annotations

import os
import random
import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import gguf_forge
from gguf_forge.format.findings import ERROR
from gguf_forge.whole.check.report import Report
from tests.convert.llama_cpp import Loader
from tests.format.notation import STR, U32, big, k, little, pad
from tests.format.recipes import HEADERS, KEYS, ODD, TENSORS, Opens, Refused
from tests.format.test_sweeps import SEEDS
from tests.fuzz.targets import TARGETS
from tests.whole.small import write

pytestmark = [
    pytest.mark.peer,
    pytest.mark.skipif(find_spec("xllamacpp") is None, reason="needs xllamacpp"),
]
ROOT = Path(__file__).resolve().parents[2]
#: What llama.cpp's parser takes and this does not: the class of error, its text, and the words of docs/check.md.
STRICTER = [
    ("TruncatedError", r"bytes? at data offset", "data that is not in the file"),
    ("InvalidError", r"(key|name) holds a NUL", "NUL in the name of a key or tensor"),
    ("InvalidError", r"(key|name) is not UTF-8", "name of a key or tensor that is no UTF-8"),
    ("InvalidError", r"empty name", "tensor without a name"),
    ("InvalidError", r"dims product .* exceeds", "dims beside a 0 whose product exceeds 2^63-1"),
    ("InvalidError", r"elements x \d+ bytes a block", "blocks of more than 2^63-1 bytes"),
    ("InvalidError", r"exceed the limit of 2\^63-1", "blocks of more than 2^63-1 bytes"),
    ("LimitError", r"key of \d+ bytes", "key of more than 65,535 bytes"),
    ("LimitError", r"string of \d+ bytes", "string of more than 64 MiB"),
    ("LimitError", r"alignment .* is above", "alignment of more than 1 MiB"),
    ("UnsupportedError", r"in groups of 128", "Q2_0 in groups of 128 weights"),
]
#: Of each seed; CHECK_MUTATIONS asks for more.
MUTATIONS = int(os.environ.get("CHECK_MUTATIONS", "300"))
CASES: list[Refused | Opens] = [*HEADERS, *KEYS, *TENSORS, *ODD]
CATALOGUE = {case.id: case.data for case in CASES}
#: Numbers at which sums and products go wrong.
NUMBERS = (0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63 - 1, 2**63, 2**64 - 1)
FILES = sorted((ROOT / "fixtures" / "gguf" / "bad").glob("*.gguf"))


@pytest.fixture(scope="module")
def llama_cpp() -> Iterator[Loader]:
    with Loader() as loader:
        yield loader


def verdicts(path: Path, llama_cpp: Loader) -> tuple[bool, Report]:
    """Whether llama.cpp parses a file, and what `check` says; fails where these do not go together."""
    report = gguf_forge.check(path)
    parsed = llama_cpp.parse(path).ok
    if not parsed:
        assert report.error is not None or any(f.severity == ERROR for f in report.findings), path.read_bytes()[:4096]
    elif report.error is not None:
        assert listed(report), (report.error, path.read_bytes()[:4096])
    return parsed, report


def listed(report: Report) -> str | None:
    """The words of the list under which an error falls."""
    error = report.error
    assert error is not None
    rows = ((words, re.search(text, error.text)) for kind, text, words in STRICTER if kind == type(error).__name__)
    return next((words for words, found in rows if found), None)


@pytest.mark.parametrize("name", CATALOGUE)
def test_the_catalogue(name: str, llama_cpp: Loader, tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    path.write_bytes(CATALOGUE[name])
    verdicts(path, llama_cpp)


@pytest.mark.parametrize("file", FILES, ids=lambda p: p.stem)
def test_the_files(file: Path, llama_cpp: Loader) -> None:
    verdicts(file, llama_cpp)


#: Targets of tests/fuzz whose inputs are GGUF files.
FUZZED = ("gguf", "check", "rewrite", "imatrix_gguf")


@pytest.mark.parametrize("target", FUZZED)
def test_what_fuzzing_starts_from(target: str, llama_cpp: Loader, tmp_path: Path) -> None:
    """Its seeds, which are the catalogue, a block of each type in both byte orders, and all finds."""
    path = tmp_path / "a.gguf"
    parsed = []
    for data in TARGETS[target].seeds():
        path.write_bytes(data)
        parsed.append(verdicts(path, llama_cpp)[0])
    assert any(parsed), "llama.cpp parses none of the seeds: nothing was compared that it takes"


@pytest.mark.skipif("FUZZ" not in os.environ, reason="needs FUZZ=folder of corpora that `make fuzz` has grown")
@pytest.mark.parametrize("target", FUZZED)
def test_corpora(target: str, llama_cpp: Loader, tmp_path: Path) -> None:
    inputs = sorted(Path(os.environ["FUZZ"], "corpus", target).glob("*"))
    assert inputs
    path = tmp_path / "a.gguf"
    for data in inputs:
        path.write_bytes(data.read_bytes())
        verdicts(path, llama_cpp)


def _mutated(seed: bytes, rng: random.Random) -> bytes:
    """A file with bits flipped, bytes overwritten by numbers that matter, spans moved, left out, or cut off."""
    data = bytearray(seed)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        if not data:
            break
        at = rng.randrange(len(data))
        what = rng.randrange(6)
        if what == 0:
            data[at] ^= 1 << rng.randrange(8)
        elif what == 1:
            width = rng.choice((1, 4, 8))
            number = rng.choice((*NUMBERS, rng.randrange(64)))
            data[at : at + width] = (number % 2 ** (8 * width)).to_bytes(width, "little")
        elif what == 2:
            del data[at : at + rng.choice((1, 4, 8, 12, 24))]
        elif what == 3:
            data[at:at] = data[max(0, at - rng.choice((4, 8, 24))) : at]
        elif what == 4:
            del data[at + 1 :]
        else:
            data[at : at + 1] = bytes([rng.randrange(256)])
    return bytes(data)


@pytest.mark.parametrize("seed", [*SEEDS, "model"])
def test_mutations(seed: str, llama_cpp: Loader, tmp_path: Path) -> None:
    """In each file's first bytes; how both judge is not always the same."""
    path = tmp_path / "a.gguf"
    data = write(path).read_bytes() if seed == "model" else SEEDS[seed]
    rng = random.Random(f"check {seed}")
    head, rest = data[:4000], data[4000:]
    seen = set()
    for _ in range(MUTATIONS):
        path.write_bytes(_mutated(head, rng) + rest)
        parsed, report = verdicts(path, llama_cpp)
        seen.add((parsed, report.readable))
    assert len(seen) > 1


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(tail=st.binary(max_size=200), order=st.sampled_from("<>"), tensors=st.integers(0, 3), keys=st.integers(0, 3))
def test_any_bytes_after_a_head(
    tail: bytes, order: str, tensors: int, keys: int, llama_cpp: Loader, tmp_path: Path
) -> None:
    path = tmp_path / "a.gguf"
    path.write_bytes((little if order == "<" else big).h(tensors, keys) + tail)
    verdicts(path, llama_cpp)


def test_each_row_of_the_list_is_met_and_documented(llama_cpp: Loader, tmp_path: Path) -> None:
    """Each by a file that llama.cpp's parser takes; some by one beside the catalogue."""
    path = tmp_path / "a.gguf"
    met = set()
    for data in [*CATALOGUE.values(), _long_string(), _wide_alignment()]:
        path.write_bytes(data)
        parsed, report = verdicts(path, llama_cpp)
        if parsed and report.error is not None:
            met.add(listed(report))
    page = (ROOT / "docs" / "check.md").read_text(encoding="utf-8")
    wanted = {words for _, _, words in STRICTER}
    assert met == wanted
    assert [words for words in wanted if words not in page] == []


def _long_string() -> bytes:
    return k(STR, little.s(bytes((64 << 20) + 1)))


def _wide_alignment() -> bytes:
    """An alignment of 2 MiB, and the data there."""
    head = little.h(1, 1) + little.kv("general.alignment", U32, little.u32(1 << 21)) + little.ti("a", [4])
    return pad(head, 1 << 21) + bytes(1 << 21)
