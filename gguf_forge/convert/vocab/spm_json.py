"""A SentencePiece vocabulary that lives in tokenizer.json alone, as transformers 5 saves all of them.

Knows how tokenizers.json writes pieces, merges and the treatment of spaces. Must not know added tokens or families.
"""

import base64
import binascii
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from gguf_forge.convert.vocab.folder import Folder
from gguf_forge.convert.vocab.merges import read_pairs
from gguf_forge.convert.vocab.pieces import Pieces
from gguf_forge.convert.vocab.protobuf import BPE, UNIGRAM, PieceModel
from gguf_forge.convert.vocab.tokens import MAX_VOCAB, SPACE_MARK, TokenType
from gguf_forge.errors import CheckpointError, ConversionError

JSON_FILE = "tokenizer.json"

_BYTE_PIECE = re.compile("<0x([0-9A-Fa-f]{2})>")
_RUNS_OF_SPACES = (" {2,}", " +", r"\s{2,}", r"\s+")
"""Patterns by which tokenizer.json replaces runs of spaces."""

_Note = Callable[[str], None]


def holds_spm(folder: Folder) -> bool:
    """Whether tokenizer.json holds a vocabulary that SentencePiece could hold.

    That is a unigram model, or a byte-pair model which falls back on bytes; one that marks spaces, and does not map
    bytes to letters.
    """
    document = folder.object(JSON_FILE)
    model = (document or {}).get("model")
    if document is None or not isinstance(model, dict):
        return False
    parts = [*_parts(document), *walk(document.get("decoder"))]
    if any(part.get("type") == "ByteLevel" for part in parts) or not any(map(_marks_spaces, _parts(document))):
        return False
    if isinstance(model.get("vocab"), list):
        return bool(model.get("type", "Unigram") == "Unigram")
    affixed = model.get("continuing_subword_prefix") or model.get("end_of_word_suffix")
    return model.get("type", "BPE") == "BPE" and bool(model.get("byte_fallback")) and not affixed


def read_spm_json(folder: Folder, note: _Note) -> Pieces:
    """The pieces of a tokenizer.json for which `holds_spm` holds.

    A byte-pair model has no scores: llama.cpp merges the pair whose result has the highest one first, so that minus
    the rank of the first merge that makes a piece has it merge in the file's order; what no merge makes comes last.
    `note` is called with what acts on text and has no form in GGUF.

    Raises `CheckpointError` for damaged files, `ConversionError` for ids no model has.
    """
    document = folder.object(JSON_FILE) or {}
    model = document["model"]
    place = f"{folder.path / JSON_FILE}: model"
    unigram = isinstance(model.get("vocab"), list)
    if unigram:
        texts, scores = _unigram_pieces(model["vocab"], place)
        lowest = min(scores, default=0.0)
    else:
        texts = _by_id(model.get("vocab"), place)
        scores, lowest = _ranked(folder, texts, note)
    types = _types(texts, model, unigram, place)
    if any(part.get("prepend_scheme") == "first" for part in _parts(document)):
        note(f"{JSON_FILE} puts a space before a text only; llama.cpp also puts one after each special token")
    _note_the_rest(document, unigram, note)
    return Pieces(
        file=JSON_FILE,
        texts=texts,
        scores=scores,
        types=types,
        added_score=lowest,
        settings=PieceModel(
            kind=UNIGRAM if unigram else BPE,
            charsmap=charsmap_of(document, folder.path / JSON_FILE) if unigram else b"",
            dummy_prefix=adds_space_prefix(folder),
            remove_extra_spaces=joins_spaces(document),
        ),
        roles={"unk": types.index(TokenType.UNKNOWN)} if TokenType.UNKNOWN in types else {},
    )


def pieces_by_id(folder: Folder) -> dict[int, str]:
    """Texts by id of the model section of any tokenizer.json, without added tokens; empty if there is none."""
    model = (folder.object(JSON_FILE) or {}).get("model")
    vocab = model.get("vocab") if isinstance(model, dict) else None
    if isinstance(vocab, list):
        return {number: text for number, entry in enumerate(vocab) if isinstance(text := _first(entry), str)}
    return {number: text for text, number in vocab.items()} if isinstance(vocab, dict) else {}


def byte_of(text: str | None) -> int | None:
    """The byte that a piece like <0x0A> stands for."""
    match = _BYTE_PIECE.fullmatch(text or "")
    return int(match[1], 16) if match else None


def _first(entry: Any) -> Any:
    return entry[0] if isinstance(entry, list) and entry else None


def _unigram_pieces(vocab: list[Any], place: str) -> tuple[list[str | None], list[float]]:
    texts: list[str | None] = []
    scores: list[float] = []
    for number, entry in enumerate(vocab):
        text, score = entry if isinstance(entry, list) and len(entry) == 2 else (None, None)
        if not isinstance(text, str) or not isinstance(score, (int, float)) or isinstance(score, bool):
            raise CheckpointError(f"{place}.vocab[{number}]: expected a text and a score, found {entry!r:.60}")
        texts.append(text)
        scores.append(float(score))
    return texts, scores


def _by_id(vocab: Any, place: str) -> list[str | None]:
    if not isinstance(vocab, dict):
        raise CheckpointError(f"{place}.vocab: expected an object, found {vocab!r:.60}")
    highest = -1
    for text, number in vocab.items():
        if not isinstance(number, int) or isinstance(number, bool) or number < 0:
            raise CheckpointError(f"{place}.vocab[{text!r:.60}]: {number!r:.40} is not a token id")
        highest = max(highest, number)
    if highest >= MAX_VOCAB:
        raise ConversionError(f"{place}.vocab: id {highest} is above the limit of {MAX_VOCAB}")
    texts: list[str | None] = [None] * (highest + 1)
    for text, number in vocab.items():
        texts[number] = text
    return texts


def _ranked(folder: Folder, texts: list[str | None], note: _Note) -> tuple[list[float], float]:
    """Scores by id, and the lowest: that of pieces no merge makes."""
    ranks: dict[str, int] = {}
    count = 0
    for left, right in read_pairs(folder):
        ranks.setdefault(left + right, count)
        count += 1
    if not count:
        note("the vocabulary has no merges")
    return [-float(ranks.get(text or "", count)) for text in texts], -float(count)


def _types(texts: list[str | None], model: dict[str, Any], unigram: bool, place: str) -> list[TokenType]:
    types = [TokenType.NORMAL] * len(texts)
    if model.get("byte_fallback"):
        types = [TokenType.NORMAL if byte_of(text) is None else TokenType.BYTE for text in texts]
    if unigram:
        unknown = model.get("unk_id")
        if unknown is not None and not (isinstance(unknown, int) and 0 <= unknown < len(texts)):
            raise CheckpointError(f"{place}.unk_id: {unknown!r:.40} is not the id of a piece")
    else:
        token = model.get("unk_token")
        unknown = texts.index(token) if isinstance(token, str) and token in texts else None
    if unknown is not None:
        types[unknown] = TokenType.UNKNOWN
    return types


def walk(part: Any) -> Iterator[dict[str, Any]]:
    """The parts of a normalizer, pre-tokenizer or decoder of tokenizer.json in the order they act."""
    if not isinstance(part, dict):
        return
    for children in ("normalizers", "pretokenizers", "decoders"):
        inner = part.get(children)
        if isinstance(inner, list):
            for child in inner:
                yield from walk(child)
            return
    yield part


def _parts(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """What acts on a text before it is cut, in that order."""
    yield from walk(document.get("normalizer"))
    yield from walk(document.get("pre_tokenizer"))


def _pattern(part: dict[str, Any], kind: str) -> Any:
    pattern = part.get("pattern")
    return pattern.get(kind) if isinstance(pattern, dict) else None


def _marks_spaces(part: dict[str, Any]) -> bool:
    if part.get("type") == "Metaspace":
        return bool(part.get("replacement", SPACE_MARK) == SPACE_MARK)
    one = _pattern(part, "String") == " " or _pattern(part, "Regex") in (" ", *_RUNS_OF_SPACES)
    return part.get("type") == "Replace" and part.get("content") == SPACE_MARK and one


def joins_spaces(document: dict[str, Any]) -> bool:
    """Whether a tokenizer.json takes a run of spaces for one."""
    return any(_joins_spaces(part) for part in _parts(document))


def _joins_spaces(part: dict[str, Any]) -> bool:
    runs = part.get("type") == "Replace" and _pattern(part, "Regex") in _RUNS_OF_SPACES
    return runs or part.get("type") == "WhitespaceSplit"


def adds_space_prefix(folder: Folder) -> bool:
    """Whether tokenizer.json puts a space before a text."""
    for part in _parts(folder.object(JSON_FILE) or {}):
        if part.get("type") == "Prepend" and part.get("prepend") == SPACE_MARK:
            return True
        if part.get("type") == "Metaspace":
            # Before there was a scheme, a flag said whether to prepend; either is on where it is not given.
            scheme = part.get("prepend_scheme", "always" if part.get("add_prefix_space", True) else "never")
            return bool(scheme != "never")
    return False


def charsmap_of(document: dict[str, Any], place: Path) -> bytes:
    """The table of a tokenizer.json's Precompiled normalizer, alone or in a sequence; empty if there is none."""
    coded = next((part.get("precompiled_charsmap") for part in _parts(document) if "precompiled_charsmap" in part), "")
    try:
        return base64.b64decode(coded or "", validate=True)
    except (binascii.Error, TypeError, ValueError):
        raise CheckpointError(f"{place}: precompiled_charsmap is not base64") from None


def _note_the_rest(document: dict[str, Any], unigram: bool, note: _Note) -> None:
    rest = [str(part.get("type")) for part in _parts(document) if not _has_a_form(part, unigram)]
    if rest:
        note(f"{JSON_FILE}: {', '.join(rest)} changes texts in a way GGUF has no key for: some will get other tokens")


def _has_a_form(part: dict[str, Any], unigram: bool) -> bool:
    kind = part.get("type")
    if kind == "Split":
        return bool(_pattern(part, "String") == " ")  # finds nothing once spaces are marked
    if unigram and (kind in ("Precompiled", "Strip") or _joins_spaces(part)):
        return True
    return _marks_spaces(part) or (kind == "Prepend" and part.get("prepend") == SPACE_MARK)
