"""Whether the tokenizer's keys are what llama.cpp's vocabularies ask for; arrays' types and lengths are format's rule.

One function a rule over a Subject. Source: llama_vocab::impl::load of llama.cpp's src/llama-vocab.cpp (release 11549).
"""

from __future__ import annotations

from gguf_forge.errors import escaped, listed
from gguf_forge.format.findings import WARNING
from gguf_forge.format.layout import ValueType
from gguf_forge.whole.check.subject import Found, Subject

MODEL, TOKENS, MERGES = "tokenizer.ggml.model", "tokenizer.ggml.tokens", "tokenizer.ggml.merges"
PRE, KINDS, CHARSMAP = "tokenizer.ggml.pre", "tokenizer.ggml.token_type", "tokenizer.ggml.precompiled_charsmap"
#: What tokenizer.ggml.model may be: the kinds that merge pairs, other kinds with tokens, and those without.
MERGING = {"gpt2", "hybriddna", "whitespace", "gemma4"}
OTHERS = {"llama", "bert", "t5", "rwkv", "plamo2", "plamo3"}
NONE = {"none", "no_vocab", "test"}
#: The pre-tokenizer that needs no merges.
WITHOUT_MERGES = "kimi-k2"
#: The highest kind of token: a byte.
LAST_KIND = 6
#: Keys of ids that llama.cpp reads, less the prefix and the ending.
SPECIAL = (
    "bos eos eot eom unknown seperator padding mask cls prefix suffix middle "
    "fim_pre fim_suf fim_mid fim_pad fim_rep fim_sep"
)
#: Keys of switches.
SWITCHES = ("add_bos_token", "add_eos_token", "add_sep_token", "add_space_prefix", "remove_extra_whitespaces")


def find_vocabulary(subject: Subject) -> Found:
    """The keys are there that llama.cpp asks for of the kind of tokenizer."""
    if not subject.is_model or (subject.arch is None and MODEL not in subject.values):
        return
    kind = subject.text(MODEL)
    if kind is None:
        if MODEL in subject.values or TOKENS in subject.values or subject.is_whole:
            yield f"llama.cpp asks for {MODEL}, a text", subject.at(MODEL)
        return
    if kind in NONE:
        return
    if kind not in MERGING | OTHERS:
        yield f'llama.cpp knows no tokenizer "{escaped(kind, 64)}"', subject.at(MODEL)
        return
    if TOKENS not in subject.values:
        yield f"no {TOKENS}, which a tokenizer of kind {kind} has", subject.at(MODEL)
    if kind in MERGING and MERGES not in subject.values and subject.text(PRE) != WITHOUT_MERGES:
        yield f"no {MERGES}, which a tokenizer of kind {kind} has", subject.at(MODEL)
    if kind in MERGING and kind != "gemma4" and PRE not in subject.values:
        yield f"no {PRE}: llama.cpp cuts texts by its default, which is rarely the model's", subject.at(MODEL), WARNING


def find_tokens(subject: Subject) -> Found:
    """No token stands twice, which ends llama.cpp's process, and each is of a kind that there is."""
    if subject.element(TOKENS) is not ValueType.STRING or subject.text(MODEL) in (None, *NONE):
        return
    seen: dict[str, int] = {}
    for number, token in enumerate(subject.values[TOKENS].value):
        first = seen.setdefault(token or f"[EMPTY_{number}]", number)
        if first != number:
            yield f'tokens {first} and {number} are both "{escaped(token, 40)}"', subject.at(TOKENS)
            break
    if subject.element(KINDS) is ValueType.INT32:
        kinds = subject.values[KINDS].value
        odd = ((kinds < 0) | (kinds > LAST_KIND)).nonzero()[0]
        if len(odd):
            text = f"token {odd[0]} is of kind {kinds[odd[0]]}, known are 0 to {LAST_KIND}"
            yield text, subject.at(KINDS), WARNING


def find_special_tokens(subject: Subject) -> Found:
    """Ids of special tokens are those of tokens; llama.cpp passes over others."""
    count = subject.file.metadata.count_of(TOKENS) if subject.element(TOKENS) is not None else None
    for name in SPECIAL.split():
        key = f"tokenizer.ggml.{name}_token_id"
        if key not in subject.values:
            continue
        kind = subject.file.metadata.type_of(key)
        if kind is not ValueType.UINT32:
            yield f"must be UINT32, found {kind.name}", subject.at(key)
        elif count is not None and subject.values[key].value >= count:
            yield f"{subject.values[key].value}, the last token is {count - 1}", subject.at(key), WARNING
    for name in SWITCHES:
        key = f"tokenizer.ggml.{name}"
        if key in subject.values and subject.file.metadata.type_of(key) is not ValueType.BOOL:
            yield f"must be BOOL, found {subject.file.metadata.type_of(key).name}", subject.at(key)


def find_merges(subject: Subject) -> Found:
    """A merge names two pieces, with a blank between them."""
    if subject.element(MERGES) is not ValueType.STRING or subject.text(MODEL) not in MERGING:
        return
    odd = [number for number, merge in enumerate(subject.values[MERGES].value) if " " not in merge[1:]]
    if odd:
        yield f"merges {listed(map(str, odd))} have no blank between two pieces", subject.at(MERGES), WARNING


def find_charsmap(subject: Subject) -> Found:
    """The map of characters of a T5 tokenizer is bytes, and as long as it says."""
    if CHARSMAP not in subject.values or subject.text(MODEL) != "t5":
        return
    element = subject.element(CHARSMAP)
    if element not in (ValueType.UINT8, ValueType.INT8):
        yield "must be an array of UINT8 or INT8", subject.at(CHARSMAP)
        return
    raw = subject.values[CHARSMAP].value.tobytes()
    if len(raw) < 4 or int.from_bytes(raw[:4], "little") + 4 >= len(raw):
        yield f"{len(raw)} bytes, fewer than its first four say", subject.at(CHARSMAP)
