r"""How llama.cpp cuts text under each name of tokenizer.ggml.pre, and what a vocabulary of that name means. Data only.

Regular expressions act one after the other, each on the pieces the one before left; what one matches is a piece, and
what lies between matches too. `\p{L}` and so on are Unicode's categories, as in the Hub's library.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gguf_forge.convert.vocab.classes import CONTRACTIONS, QWEN2_REGEX, QWEN35_REGEX

_SPACES = r"|\s*[\r\n]+|\s+(?!\S)|\s+"
_MARKS = r"| ?[^\s\p{L}\p{N}]+[\r\n]*"
_WORD = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"


def _cased(ending: str, upper: str = _UPPER, lower: str = _LOWER) -> str:
    """Words as the case of their letters goes: upper then lower ones, or upper ones, and what may follow either."""
    lead = r"[^\r\n\p{L}\p{N}]?"
    return f"{lead}{upper}*{lower}+{ending}|{lead}{upper}+{lower}*{ending}"


_NOT_LOWER, _NOT_UPPER = r"(?:(?=[\p{L}])[^a-z])", r"(?:(?=[\p{L}])[^A-Z])"
_NOT_LOWER_M, _NOT_UPPER_M = r"(?:(?=[\p{L}\p{M}])[^a-z])", r"(?:(?=[\p{L}\p{M}])[^A-Z])"
_UPPER_NOT_HAN, _LOWER_NOT_HAN = (f"[{part[1:-1]}&&[^\\p{{Han}}]]" for part in (_UPPER, _LOWER))
_SLASH_END = r"| ?[^\s\p{L}\p{N}]+[\r\n/]*" + _SPACES
_MAYBE = CONTRACTIONS + "?"

GPT2_REGEX = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3_REGEX = CONTRACTIONS + "|" + _WORD + r"|\p{N}{1,3}" + _MARKS + _SPACES
GPT4O_REGEX = _cased(_MAYBE) + r"|\p{N}{1,3}" + _SLASH_END
TEKKEN_REGEX = _cased("") + r"|\p{N}" + _SLASH_END
KIMI_REGEX = r"[\p{Han}]+|" + _cased(_MAYBE, _UPPER_NOT_HAN, _LOWER_NOT_HAN) + r"|\p{N}{1,3}" + _MARKS + _SPACES
_DIGITS_FROM_RIGHT = r"[^\p{N}]*\p{N}{1,3}(?=(?:\p{N}{3})*(?!\p{N}))"
_ANY_CASE = _cased(_MAYBE, r"[\p{L}\p{M}]", r"[\p{L}\p{M}]")
_PUNCTUATED = r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+"
_KANA_HAN = "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+"
_HAN_HANGUL = "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"
_HAN_HANGUL_NOT_SPACE = (
    "[\u4e00-\u9fa5\u0800-\u167f\u1681-\u1fff\u200b-\u2027\u202a-\u202e\u2030-\u205e\u2060-\u2fff\u3001-\u4e00"
    "\uac00-\ud7ff]+"
)
_HAN_RANGES = (
    "\u4e00-\u9fff\u3400-\u4dbf\uf900-\ufaff\U00020000-\U0002a6df\U0002a700-\U0002b73f\U0002b740-\U0002b81f"
    "\U0002b820-\U0002ceaf\U0002ceb0-\U0002ebef\U0002f800-\U0002fa1f"
)
_HAN_WORDS = rf"[{_HAN_RANGES}]+|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}&&[^{_HAN_RANGES}]]+" + _MAYBE
_CASED_LETTERS = (
    "A-Za-z\u00b5\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u01ba\u01bc-\u01bf\u01c4-\u0293\u0295-\u02af\u0370-\u0373\u0376\u0377"
    "\u037b-\u037d\u037f\u0386\u0388-\u038a\u038c\u038e-\u03a1\u03a3-\u03f5\u03f7-\u0481\u048a-\u052f\u0531-\u0556"
    "\u10a0-\u10c5\u13a0-\u13f5\u13f8-\u13fd\u1c90-\u1cba\u1cbd-\u1cbf\u1d00-\u1d2b\u1d6b-\u1d77\u1d79-\u1d9a"
    "\u1e00-\u1f15\u1f18-\u1f1d\u1f20-\u1f45\u1f48-\u1f4d\u1f50-\u1f57\u1f59\u1f5b\u1f5d\u1f5f-\u1f7d\u1f80-\u1fb4"
    "\u1fb6-\u1fbc\u1fbe\u1fc2-\u1fc4\u1fc6-\u1fcc\u1fd0-\u1fd3\u1fd6-\u1fdb\u1fe0-\u1fec\u1ff2-\u1ff4\u1ff6-\u1ffc"
    "\u2102\u2107\u210a-\u2113\u2115\u2119-\u211d\u2124\u2126\u2128\u212a-\u212d\u212f-\u2134\u2139\u213c-\u213f"
    "\u2145-\u2149\u214e\u2183\u2184\u2c00-\u2c7b\u2c7e-\u2ce4\u2ceb-\u2cee\u2cf2\u2cf3\ua640-\ua66d\ua680-\ua69b"
    "\ua722-\ua76f\ua771-\ua787\ua78b-\ua78e\uab70-\uabbf\ufb00-\ufb06\ufb13-\ufb17\uff21-\uff3a\uff41-\uff5a"
    "\U00010400-\U0001044f\U000104b0-\U000104d3\U000104d8-\U000104fb\U00010c80-\U00010cb2\U00010cc0-\U00010cf2"
    "\U000118a0-\U000118df\U0001e900-\U0001e943"
)
_CASED_WORD = rf"\s?[{_CASED_LETTERS}]+"
_WIDE_MARKS = "\\s?[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]+"
_LONG_SPACES = "".join(rf"|\s{{{count}}}(?!\S)" for count in (512, 256, 128, 64, 32, 16, 8, 4, "1,2")) + r"|\s{1}"
_EAST = (
    "[\uac00-\ud7a3\u3131-\u318e]+"
    "|[\uff01\u2026\u201c\u201d\u2018\u2019\u2014\uff1a\uff1b\uff0c\u3001-\u303f\ufe30-\ufe4f]+"
    "|[\u3105-\u312f]+|[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+"
)
_ASIA = (
    "[\u4e00-\u9fff\u3400-\u4dbf\u8c48-\ufaff\u3040-\u309f\u30a0-\u30ff\uff65-\uff9f\u2f00-\u2fdf\u0e40-\u0e7f"
    "\u0e80-\u0eff\u1780-\u17ff\u1000-\u109f\uaa60-\uaa7f\ua9e0-\ua9ff\uac00-\ud7af\u1100-\u11ff]+"
)
_LINES = r"[^\n]+|[\n]+"


Part = dict[str, Any]
"""A pre-tokenizer as tokenizer.json has it."""


@dataclass(frozen=True)
class Cut:
    """One way to cut, and the names llama.cpp has for it.

    `names`: the first is written for a vocabulary that no name was given to. `regexes` are llama.cpp's; `meant` those
    of the tokenizers the names were made for, where llama.cpp's only come near. `whole` names take a word that is a
    token as it is, before any merge. `cleaned` names remove spaces before punctuation when text is made of tokens.
    `raw` vocabularies have UTF-8 in their tokens, U+2581 for a space and <0xNN> for single bytes, not the byte-level
    alphabet. `spaced` names give each line a space in front. `begun` names have a text begin with the BOS token, unless
    the file says otherwise.
    """

    names: tuple[str, ...]
    regexes: tuple[str, ...]
    meant: tuple[str | Part, ...] = ()
    whole: bool = False
    cleaned: bool = True
    raw: bool = False
    spaced: bool = False
    begun: bool = False

    @property
    def definition(self) -> tuple[str | Part, ...]:
        """What a tokenizer of these names does itself: expressions, or parts as tokenizer.json has them."""
        return self.meant or self.regexes


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split())


CUTS: tuple[Cut, ...] = (
    Cut(
        _names("llama-bpe llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano"),
        (LLAMA3_REGEX,),
        whole=True,
        begun=True,
    ),
    Cut(_names("glm4 glm5"), (LLAMA3_REGEX,), whole=True),
    Cut(_names("smaug-bpe dbrx chatglm-bpe"), (LLAMA3_REGEX,)),
    Cut(
        _names(
            "gpt-2 phi-2 jina-es jina-de gigachat jina-v2-es jina-v2-de a.x-4.0 mellum modern-bert exaone4 mpt olmo "
            "jais jina-v1-en jina-v2-code roberta-bpe"
        ),
        (GPT2_REGEX,),
    ),
    Cut(_names("trillion granite-docling"), (GPT2_REGEX,), cleaned=False),
    Cut(_names("qwen2 deepseek-r1-qwen kormo f2llmv2 hunyuan solar-open grok-2"), (QWEN2_REGEX,), cleaned=False),
    Cut(_names("stablelm2 megrez"), (QWEN2_REGEX,)),
    Cut(_names("qwen35"), (QWEN35_REGEX,), cleaned=False),
    Cut(
        _names("tekken"),
        (_cased("", _NOT_LOWER, _NOT_UPPER) + r"|\p{N}" + _SLASH_END,),
        (TEKKEN_REGEX,),
        whole=True,
        cleaned=False,
        begun=True,
    ),
    Cut(
        _names("gpt-4o llama4 kanana2 talkie minimax-m2"),
        (_cased(_MAYBE, _NOT_LOWER, _NOT_UPPER) + r"|\p{N}{1,3}" + _SLASH_END,),
        (GPT4O_REGEX,),
        cleaned=False,
    ),
    Cut(
        _names("granite-embed-multi-97m"),
        (_cased(_MAYBE, _NOT_LOWER_M, _NOT_UPPER_M) + r"|\p{N}{1,3}" + _SLASH_END,),
        (GPT4O_REGEX,),
        whole=True,
        cleaned=False,
    ),
    Cut(_names("starcoder refact codeshell exaone minerva-7b mellum2"), (r"\p{N}", GPT2_REGEX)),
    Cut(_names("smollm command-r"), (r"\p{N}", GPT2_REGEX), cleaned=False),
    Cut(
        _names("falcon"),
        (r"[\p{P}\$\+<=>\^~\|`]+", GPT2_REGEX, "[0-9][0-9][0-9]"),
        # Digits come after bytes, and some bytes of the byte-level alphabet look like digits, as those of a half.
        (
            {"type": "Punctuation", "behavior": "Contiguous"},
            {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
            {"type": "Digits", "individual_digits": False},
            "[0-9][0-9][0-9]",
        ),
    ),
    Cut(
        _names("deepseek-llm"),
        # To llama.cpp white space beyond ASCII is nothing else, so U+3000 is neither punctuation nor among Han.
        ("[\r\n]", _CASED_WORD, _WIDE_MARKS.replace("\u3000", "\u3001"), r"\s+\z", _HAN_HANGUL_NOT_SPACE, r"\p{N}+"),
        ("[\r\n]", _CASED_WORD, _WIDE_MARKS, r"\s+$", _HAN_HANGUL, r"\p{N}+"),
        cleaned=False,
    ),
    Cut(
        _names("deepseek-coder"),
        ("[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", _HAN_HANGUL_NOT_SPACE, r"\p{N}"),
        ("[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", _HAN_HANGUL, r"\p{N}"),
        cleaned=False,
    ),
    Cut(
        _names("deepseek-v3 hunyuan-dense joyai-llm hy_v4"),
        (r"\p{N}{1,3}", _KANA_HAN, _PUNCTUATED + r"[\r\n]*" + _SPACES),
        cleaned=False,
    ),
    Cut(
        _names("spark2_5"),
        (r"\p{N}{1,3}", _KANA_HAN, _PUNCTUATED + r"|[\r\n]|\s+(?!\S)|\s+", r"\p{N}"),
        cleaned=False,
    ),
    Cut(
        _names("youtu"),
        (_EAST, _ANY_CASE + r"|\p{N}" + _SLASH_END),
        (_EAST, _cased(_MAYBE) + r"|\p{N}" + _SLASH_END),
        whole=True,
        cleaned=False,
    ),
    Cut(_names("kimi-k2"), (_HAN_WORDS + r"|\p{N}{1,3}" + _MARKS + _SPACES,), (KIMI_REGEX,), cleaned=False),
    Cut(
        _names("bailingmoe bailingmoe2 llada-moe"),
        (r"'(?i:[sdmt]|ll|ve|re)|" + _WORD + r"|\p{N}" + _MARKS + r"|\s*[\r\n]|\s+(?!\S)|\s+",),
        cleaned=False,
    ),
    Cut(
        _names("seed-coder"),
        (CONTRACTIONS + "|" + _WORD + r"|\p{N}| ?[^\s\p{L}\p{N}\r\n]+" + _SPACES,),
        cleaned=False,
    ),
    Cut(_names("ufakzeka"), (_WORD + r"|\p{N}" + _MARKS + _SPACES,), cleaned=False),
    Cut(_names("laguna"), (_LINES, QWEN2_REGEX), cleaned=False),
    Cut(
        _names("exaone-moe"),
        (
            CONTRACTIONS
            + r"|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]?"
            + r"|\s*[\r\n]|\s+(?!\S)|\s+",
        ),
    ),
    Cut(_names("jais-2"), (CONTRACTIONS + "|" + _WORD + r"|\p{N}{1,3}" + _MARKS + r"|\s*[\r\n]+" + _LONG_SPACES,)),
    Cut(
        _names("tiny_aya cohere2moe"),
        (_DIGITS_FROM_RIGHT, _ANY_CASE + r"|\p{N}{1,3}" + _SLASH_END),
        (r"\d{1,3}(?=(?:\d{3})*\b)", GPT4O_REGEX),
        cleaned=False,
    ),
    Cut(_names("minicpm5"), (r"\p{N}{1,3}", QWEN2_REGEX.replace(r"|\p{N}|", r"|\p{N}+|")), whole=True),
    Cut(
        _names("afmoe"),
        (_DIGITS_FROM_RIGHT, _ASIA, _PUNCTUATED + r"[\r\n]*" + _SPACES),
        cleaned=False,
    ),
    Cut(
        _names("k2-horizon"),
        (CONTRACTIONS + "|[^\\r\\n\\p{L}\\p{N}]?(?:\\p{L}|\\p{M}|\u200c|\u200d)+|\\p{N}{1,3}" + _MARKS + _SPACES,),
        cleaned=False,
    ),
    Cut(
        _names("superbpe"),
        (r"\p{N}+", r"(?=([0-9]{3})+(?![0-9]))"),
        (r"\p{N}+", r"(?=(\d{3})+(?!\d))"),
        cleaned=False,
    ),
    Cut(_names("bloom gpt3-finnish"), (" ?[^(\\s|.,!?\u2026\u3002\uff0c\u3001\u0964\u06d4\u060c)]+",)),
    Cut(_names("poro-chat"), (" ?[^(\\s|.,!?\u2026\u3002\uff0c\u3001\u0964\u06d4\u060c)]+",), cleaned=False),
    Cut(
        _names("viking"),
        (" ?[^(\\s|.,!?\u2026\u3002\uff0c\u3001\u0964\u06d4\u060c)]+", r"\p{N}"),
        cleaned=False,
    ),
    Cut(
        _names("chameleon"),
        (
            "<sentinel:[0-9]+>",
            "(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z",
            r"([\t\n]|    |  )",
            r"\p{N}",
            r"[\p{P}!-/:-@\[-`{-~]",
            GPT2_REGEX,
        ),
        cleaned=False,
        begun=True,
    ),
    Cut(_names("default"), (r"[\p{P}\$\+<=>\^~\|]+", GPT2_REGEX, r"\p{N}+", "[0-9][0-9][0-9]")),
    Cut(_names("gemma4 granite-embed-multi-311m"), (_LINES,), raw=True),
    Cut(_names("sarvam-moe"), (_LINES,), raw=True, cleaned=False),
    Cut(_names("mmbert"), (_LINES, "\u2581[^\u2581\\n]*|[^\u2581\\n]+"), raw=True, spaced=True),
    Cut(_names("whitespace"), (r"\S+",), raw=True),
)
"""Every cut of llama.cpp. Its names for WordPiece vocabularies, which it cuts in one way only, are `WORDPIECE`."""

WORDPIECE = _names("jina-v2-en bert-bge bert-bge-large")

CUT_OF: dict[str, Cut] = {name: cut for cut in CUTS for name in cut.names}

NAMES = frozenset(CUT_OF) | frozenset(WORDPIECE)
"""Every name llama.cpp accepts in tokenizer.ggml.pre, or converters write there."""
