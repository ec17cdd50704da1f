"""Names of pre-tokenizers by what a definition does: of published tokenizers, and of every cut against every other."""

from __future__ import annotations

from typing import Any

import pytest

from gguf_forge.convert.vocab import cuts
from gguf_forge.convert.vocab.classes import QWEN2_REGEX
from gguf_forge.convert.vocab.cuts import CUTS, Cut
from gguf_forge.convert.vocab.hub import HubTokenizer
from gguf_forge.convert.vocab.recognize import defined_name

BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
BYTES_GPT2 = {**BYTES, "use_regex": True}
DIGITS = {"type": "Digits", "individual_digits": True}
CASELESS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"


def split(regex: str, behavior: str = "Isolated") -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": regex}, "behavior": behavior, "invert": False}


def name_of(*parts: dict[str, Any], whole: bool = False) -> str | None:
    part = parts[0] if len(parts) == 1 else {"type": "Sequence", "pretokenizers": list(parts)}
    definition = {"normalizer": None, "pre_tokenizer": part, "model": {"ignore_merges": whole}}
    return defined_name(HubTokenizer(None, "", definition, [], False))  # type: ignore[arg-type]


PUBLISHED: dict[str, tuple[tuple[dict[str, Any], ...], bool]] = {
    "gpt-2": ((BYTES_GPT2,), False),
    "llama-bpe": (
        (
            split(
                CASELESS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
            ),
            BYTES,
        ),
        True,
    ),
    "qwen2": (
        (
            split(CASELESS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"),
            BYTES,
        ),
        False,
    ),
    "starcoder": ((DIGITS, BYTES_GPT2), False),
    "falcon": (
        (
            {"type": "Punctuation", "behavior": "Contiguous"},
            BYTES_GPT2,
            {"type": "Digits", "individual_digits": False},
            split("[0-9][0-9][0-9]"),
        ),
        False,
    ),
    "deepseek-coder": (
        (
            split("[\r\n]"),
            split(r"\s?\p{L}+"),
            split(r"\s?\p{P}+"),
            split("[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"),
            DIGITS,
            BYTES,
        ),
        False,
    ),
    "deepseek-v3": (
        (
            split(r"\p{N}{1,3}"),
            split("[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+"),
            split(
                r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
                r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
            ),
            BYTES,
        ),
        False,
    ),
    "tekken": (
        (
            split(
                r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
                r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
                r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
            ),
            BYTES,
        ),
        True,
    ),
    "bloom": ((split(" ?[^(\\s|[.,!?\u2026\u3002\uff0c\u3001\u0964\u06d4\u060c])]+"), BYTES), False),
}
"""Pre-tokenizers of published tokenizer.json files, and whether they take whole words before merges."""


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_definition_has_its_name(name: str) -> None:
    parts, whole = PUBLISHED[name]
    assert name_of(*parts, whole=whole) == name


def test_the_same_cut_written_in_another_way_has_the_same_name() -> None:
    words = r"'(?i:[sdmt]|ll|ve|re)|(?:[^\r\n\p{L}\p{N}])?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*"
    assert name_of(split(words + r"|\s*[\r\n]|\s+(?!\S)|\s+"), BYTES) == "qwen2"
    removed = split(cuts.GPT2_REGEX, "Removed") | {"invert": True}
    assert name_of(removed, BYTES) == "gpt-2"


def test_a_space_in_front_of_a_text_does_not_change_the_name() -> None:
    assert name_of({**BYTES_GPT2, "add_prefix_space": True}) == "gpt-2"


@pytest.mark.parametrize(
    "regex",
    [
        QWEN2_REGEX.replace("{L}+", "{L}{1,9}"),
        cuts.LLAMA3_REGEX.replace("{1,3}", "{1,4}"),
        cuts.GPT2_REGEX.replace("'d", "'z"),
        cuts.GPT4O_REGEX.replace("/", ""),
        cuts.LLAMA3_REGEX.replace("'t|", ""),
        QWEN2_REGEX.replace(r"\s*[\r\n]+", r"\s*[\n]+"),
        QWEN2_REGEX.replace(r"[^\r\n\p{L}\p{N}]?", r"[^\n\p{L}\p{N}]?"),
        cuts.GPT4O_REGEX.replace(r"[^\r\n\p{L}\p{N}]?", r"[^\r\n\p{N}]?"),
        cuts.KIMI_REGEX.replace(r"[\p{Han}]+|", "[\u4e00-\u9fa5]+|"),
    ],
)
def test_a_cut_of_no_name_is_not_taken_for_its_neighbour(regex: str) -> None:
    assert name_of(split(regex), BYTES) is None



@pytest.mark.parametrize("cut", [cut for cut in CUTS if not cut.raw], ids=lambda cut: cut.names[0])
def test_every_cut_is_told_from_every_other(cut: Cut) -> None:
    """A definition gets the name of its cut, or of one that is the same text for text and differs in flags only."""
    name = name_of(*[split(part) if isinstance(part, str) else part for part in cut.definition], BYTES, whole=cut.whole)
    assert name is not None
    found = cuts.CUT_OF[name]
    assert found.whole is cut.whole
    twins = {
        "bailingmoe": "qwen2",  # `\s*[\r\n]` takes as much as `\s*[\r\n]+`
        "glm4": "llama-bpe",
        "trillion": "gpt-2",
        "stablelm2": "qwen2",
        "smollm": "starcoder",
        "poro-chat": "bloom",
    }
    assert name == twins.get(cut.names[0], cut.names[0])


def test_no_name_stands_twice() -> None:
    names = [name for cut in CUTS for name in cut.names] + list(cuts.WORDPIECE)
    assert len(names) == len(set(names)) == len(cuts.NAMES)
