"""A checkpoint's tokenizer as the Hub's library opens it: ids, added tokens, encode, decode.

Knows the order in which that library adds tokens. Must not know GGUF.
"""

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tokenizers import AddedToken, Tokenizer
from tokenizers.processors import TemplateProcessing

from gguf_forge.convert.vocab.added import config_entries, file_entries, json_entries, text_of
from gguf_forge.convert.vocab.classes import (
    AS_WRITTEN,
    CLASS_OF_MODEL,
    DISTRUSTED_MODELS,
    MISTRAL_MODELS,
    REBUILDING,
    TokenizerClass,
)
from gguf_forge.convert.vocab.folder import Folder
from gguf_forge.errors import CheckpointError, ConversionError, ForgeError

NAMED = tuple(f"{role}_token" for role in ("bos", "eos", "unk", "sep", "pad", "cls", "mask"))

_ADDS = tuple(f"add_{name}" for name in NAMED)
"""Settings that end as the names of tokens do, and are none."""

_LISTS = ("extra_special_tokens", "additional_special_tokens")
"""Where further special tokens are listed; the former counts."""

_CLEANED = (*((f" {end}", end) for end in (".", "?", "!", ",")), (" ' ", "'"))
_CLEANED += tuple((f" {end}", end) for end in ("n't", "'m", "'s", "'ve", "'re"))

_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")


@dataclass
class HubTokenizer:
    """An opened tokenizer.

    `definition`: normalizer, pre_tokenizer and model options as JSON objects, as tokenizer.json has them even where
    the class puts its own in their place; the class's own only if there is no tokenizer.json.
    """

    backend: Tokenizer
    class_name: str
    definition: dict[str, Any]
    special_tokens: list[str]
    _cleans_up: bool

    def encode(self, text: str, *, special: bool) -> list[int]:
        """Token ids of a text; `special`: with the tokens the post-processor adds."""
        with guarded("tokenizer"):
            return list(self.backend.encode(text, add_special_tokens=special).ids)

    def decode(self, ids: list[int]) -> str:
        """The text of token ids, special tokens included."""
        with guarded("tokenizer"):
            text = str(self.backend.decode(ids, skip_special_tokens=False))
        for before, after in _CLEANED if self._cleans_up else ():
            text = text.replace(before, after)
        return text


def open_tokenizer(folder: Folder, *, as_written: bool = False) -> HubTokenizer:
    """Open the tokenizer of a checkpoint directory.

    `as_written`: as tokenizer.json defines it, even where its class would put parts of its own in their place.
    Raises `ConversionError` if the directory has no tokenizer files, `CheckpointError` if they are damaged.
    """
    settings = dict(folder.object("tokenizer_config.json") or {})
    name = choose_class(folder, settings)
    known = None if as_written else REBUILDING.get(name)
    document = _document(folder, known, settings)
    defining = document if folder.has("tokenizer.json") or known is None else _rebuilt(document, known, settings)
    if known is not None:
        document = _rebuilt(document, known, settings)
        settings = {**known.tokens, **settings}
    with guarded(str(folder.path / "tokenizer.json")):
        written = folder.text("tokenizer.json") if known is None else None
        backend = Tokenizer.from_str(json.dumps(document) if written is None else written)
        special = _add_tokens(backend, folder, settings, known)
        if name == "BertTokenizer":
            _wrap_in_cls_sep(backend, settings)
        backend.no_truncation()
        backend.no_padding()
    return HubTokenizer(
        backend=backend,
        class_name=name,
        definition={
            "normalizer": defining.get("normalizer"),
            "pre_tokenizer": defining.get("pre_tokenizer"),
            "model": {k: v for k, v in _model(defining).items() if k not in ("vocab", "merges")},
        },
        special_tokens=special,
        _cleans_up=bool(settings.get("clean_up_tokenization_spaces"))
        and (
            _model(document).get("type") != "BPE"
            or bool(settings.get("clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output"))
        ),
    )


def choose_class(folder: Folder, settings: dict[str, Any]) -> str:
    """The class the Hub's library takes, from model_type, the declared class, and for LlamaTokenizer the contents."""
    config = folder.object("config.json") or {}
    model_type = str(config.get("model_type") or "")
    declared = settings.get("tokenizer_class") or config.get("tokenizer_class")
    declared = declared.removesuffix("Fast") if isinstance(declared, str) else None
    registered = CLASS_OF_MODEL.get(model_type)
    trusted = model_type not in DISTRUSTED_MODELS
    if declared == "LlamaTokenizer" and trusted and model_type not in MISTRAL_MODELS and _is_byte_level(folder):
        return AS_WRITTEN
    if declared is None:
        return registered or AS_WRITTEN
    if registered is None or registered == declared:
        return declared
    if registered == AS_WRITTEN:
        return AS_WRITTEN
    return declared if trusted else registered


def _is_byte_level(folder: Folder) -> bool:
    return '"ByteLevel"' in (folder.text("tokenizer.json") or "")


def _model(document: dict[str, Any]) -> dict[str, Any]:
    model = document.get("model")
    if not isinstance(model, dict):
        raise CheckpointError("tokenizer.json: no model section")
    return model


def _document(folder: Folder, known: TokenizerClass | None, settings: dict[str, Any]) -> dict[str, Any]:
    """tokenizer.json, or an equal made of vocab.json and merges.txt, or of vocab.txt."""
    document = folder.object("tokenizer.json")
    if document is not None:
        return document
    kind = known.model["type"] if known else "BPE"
    vocab: dict[str, Any] | None = None
    model: dict[str, Any] = {"type": kind}
    if kind == "BPE" and (vocab := folder.object("vocab.json")) is not None:
        lines = (folder.text("merges.txt") or "").split("\n")
        rules = [line.split() for line in lines if line.strip() and not line.strip().startswith("#version")]
        model["merges"] = [" ".join(rule) for rule in rules if len(rule) == 2]
    elif kind == "WordPiece" and (text := folder.text("vocab.txt")) is not None:
        vocab = {token: number for number, token in enumerate(text.removesuffix("\n").split("\n"))}
    if vocab is None:
        raise ConversionError(
            f"{folder.path}: no tokenizer: tokenizer.json, tokenizer.model or vocabulary file missing"
        )
    return {
        "version": "1.0",
        "model": {**model, "vocab": vocab},
        "post_processor": _bos_eos_processor(settings, known, vocab),
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "added_tokens": [],
    }


def _bos_eos_processor(
    settings: dict[str, Any], known: TokenizerClass | None, vocab: dict[str, Any]
) -> dict[str, Any] | None:
    """Without tokenizer.json, add_bos_token and add_eos_token say what a text is wrapped in."""
    named = {**(known.tokens if known else {}), **settings}
    single: list[dict[str, Any]] = [{"Sequence": {"id": "A", "type_id": 0}}]
    used: dict[str, Any] = {}
    for role, place in (("bos", 0), ("eos", 1)):
        entry = named.get(f"{role}_token")
        token = text_of(entry)
        if settings.get(f"add_{role}_token") and token is not None and token in vocab:
            single.insert(place * len(single), {"SpecialToken": {"id": token, "type_id": 0}})
            used[token] = {"id": token, "ids": [vocab[token]], "tokens": [token]}
    if not used:
        return None
    return {"type": "TemplateProcessing", "single": single, "pair": _PAIR, "special_tokens": used}


_PAIR = [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}]


def _rebuilt(document: dict[str, Any], known: TokenizerClass, settings: dict[str, Any]) -> dict[str, Any]:
    source = _model(document)
    model = {**known.model, "vocab": source.get("vocab")}
    if model["type"] == "BPE":
        model["merges"] = source.get("merges") or []
    if isinstance(model.get("unk_token"), str):
        model["unk_token"] = text_of(settings.get("unk_token")) or model["unk_token"]
    normalizer = known.normalizer
    if normalizer is not None and normalizer["type"] == "BertNormalizer":
        names = {"lowercase": "do_lower_case", "strip_accents": "strip_accents"}
        names["handle_chinese_chars"] = "tokenize_chinese_chars"
        normalizer = normalizer | {key: settings[name] for key, name in names.items() if name in settings}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": normalizer,
        "pre_tokenizer": _with_prefix_space(known.pre_tokenizer, bool(settings.get("add_prefix_space"))),
        "post_processor": document.get("post_processor"),
        "decoder": known.decoder,
        "model": model,
    }


def _with_prefix_space(part: dict[str, Any] | None, wanted: bool) -> dict[str, Any] | None:
    if part is None or not wanted:
        return part
    if part["type"] == "Sequence":
        return part | {"pretokenizers": [_with_prefix_space(inner, wanted) for inner in part["pretokenizers"]]}
    return part | {"add_prefix_space": True} if part["type"] == "ByteLevel" else part


@contextlib.contextmanager
def guarded(place: str) -> Iterator[None]:
    """The tokenizers library raises plain exceptions, and its panics are no `Exception` at all."""
    try:
        yield
    except (ForgeError, KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException as error:  # noqa: BLE001
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{place}: cannot be used: {reason}") from None


def _wrap_in_cls_sep(backend: Tokenizer, settings: dict[str, Any]) -> None:
    cls, sep = text_of(settings.get("cls_token")) or "[CLS]", text_of(settings.get("sep_token")) or "[SEP]"
    backend.post_processor = TemplateProcessing(
        single=f"{cls}:0 $A:0 {sep}:0",
        pair=f"{cls}:0 $A:0 {sep}:0 $B:1 {sep}:1",
        special_tokens=[(cls, backend.token_to_id(cls) or 2), (sep, backend.token_to_id(sep) or 3)],
    )


def _add_tokens(
    backend: Tokenizer, folder: Folder, settings: dict[str, Any], known: TokenizerClass | None
) -> list[str]:
    """Add the listed tokens once more, those with a role as special ones, then those that no list has.

    All in the library's order. Returns the texts of all special tokens.
    """
    decoder = _added_tokens_decoder(folder, settings)
    by_text = {token.content: token for token in decoder.values()}
    named = _named_tokens(settings, by_text)
    present = list(backend.get_added_tokens_decoder().values())
    wanted: list[AddedToken] = [token for _, token in sorted(decoder.items())]
    texts = {token.content for token in [*present, *wanted]}
    specials = {**named, **_extra_tokens(settings)}
    for text, token in specials.items():
        if text not in texts:
            wanted.append(token)
    for token in wanted:
        if token.content in named:
            token.special = True
    backend.add_tokens(wanted)
    if known is not None and known.claims_special:
        backend.add_tokens([AddedToken(text, special=True) for text in specials])
    return list(specials)


def _added_tokens_decoder(folder: Folder, settings: dict[str, Any]) -> dict[int, AddedToken]:
    """Added tokens by id: of tokenizer_config.json, or else of the older files."""
    listed = config_entries(folder)
    if listed is not None:
        return {number: _added(entry) for number, entry in listed.items()}
    _merge_map(settings, folder.object("special_tokens_map.json") or {})
    result: dict[int, AddedToken] = {}
    special = {text_of(settings.get(name)) for name in NAMED} | set(_extra_tokens(settings))
    for number, text in file_entries(folder):
        result[number] = AddedToken(text, normalized=text not in special, special=text in special)
    for number, entry in json_entries(folder):
        result[number] = _added(entry)
    return result


def _merge_map(settings: dict[str, Any], older: dict[str, Any]) -> None:
    """special_tokens_map.json over tokenizer_config.json, whose list of further special tokens counts if it has one."""
    listed = next((found for name in _LISTS if isinstance(found := settings.get(name), list)), None)
    settings.update(older)
    if listed is not None:
        settings.pop("additional_special_tokens", None)
        more = older.get("extra_special_tokens")
        added = [entry for entry in more if entry not in listed] if isinstance(more, list) else []
        settings["extra_special_tokens"] = [*listed, *added]


def _named_tokens(settings: dict[str, Any], by_text: dict[str, AddedToken]) -> dict[str, AddedToken]:
    """bos_token and so on, then any other `*_token` of a model's own, then those of extra_special_tokens."""
    own = [key for key in settings if key.endswith("_token") and key not in (*NAMED, *_ADDS)]
    extra = settings.get("extra_special_tokens")
    entries = [settings.get(key) for key in (*NAMED, *own)]
    entries += list(extra.values()) if isinstance(extra, dict) else []
    result: dict[str, AddedToken] = {}
    for entry in entries:
        text = text_of(entry)
        if text:
            result.setdefault(text, by_text.get(text) or _added(entry))
    return result


def _extra_tokens(settings: dict[str, Any]) -> dict[str, AddedToken]:
    extra = settings.get("extra_special_tokens") or settings.get("additional_special_tokens")
    entries = extra if isinstance(extra, list) else []
    return {text: _added(entry) for entry in entries if (text := text_of(entry))}


def _added(entry: Any) -> AddedToken:
    text = text_of(entry)
    if text is None:
        raise CheckpointError(f"tokenizer_config.json: an added token without content: {entry!r:.80}")
    if isinstance(entry, str):
        return AddedToken(text, special=True)
    return AddedToken(text, **{flag: bool(entry[flag]) for flag in _FLAGS if flag in entry})
