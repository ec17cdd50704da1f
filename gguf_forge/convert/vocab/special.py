"""Special token ids and the flags that say which of them a text is wrapped in.

Sources in order of precedence, the first that names an id wins: tokenizer.json (added tokens named by the roles of
tokenizer_config.json and by the post-processor), then config.json. Must not know how the vocabulary itself is read.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from gguf_forge.convert.vocab.added import json_entries, text_of
from gguf_forge.convert.vocab.folder import Folder
from gguf_forge.convert.vocab.merges import read_merges
from gguf_forge.convert.vocab.templates import Template, find_template, template_values
from gguf_forge.convert.vocab.tokens import require_utf8
from gguf_forge.errors import CheckpointError
from gguf_forge.format import values
from gguf_forge.format.values import Value

ROLES = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
"""The roles looked for in every model, in the order of their keys."""

ID_KEYS = {
    "bos": "tokenizer.ggml.bos_token_id",
    "eos": "tokenizer.ggml.eos_token_id",
    "eot": "tokenizer.ggml.eot_token_id",
    "eom": "tokenizer.ggml.eom_token_id",
    "unk": "tokenizer.ggml.unknown_token_id",
    "sep": "tokenizer.ggml.seperator_token_id",  # GGUF's spelling
    "pad": "tokenizer.ggml.padding_token_id",
    "mask": "tokenizer.ggml.mask_token_id",
}
"""Roles that have a key. Others (cls, prefix, suffix, middle) are recognised but not written."""

FLAG_KEYS = {role: f"tokenizer.ggml.add_{role}_token" for role in ("bos", "eos", "sep")}


@dataclass
class Special:
    """What the files say about special tokens."""

    ids: dict[str, int] = field(default_factory=dict)
    flags: dict[str, bool] = field(default_factory=dict)
    merges: list[str] = field(default_factory=list)
    template: Template | None = None
    lowercase: bool | None = None
    strip_accents: bool | None = None

    def values(self) -> dict[str, Value]:
        """The tokenizer.* keys in the order of the reference converter."""
        result: dict[str, Value] = {}
        if self.merges:
            require_utf8("merge", self.merges)
            result["tokenizer.ggml.merges"] = values.strings(self.merges)
        for role, token_id in self.ids.items():
            if role in ID_KEYS:
                result[ID_KEYS[role]] = values.u32(token_id)
        for role, flag in self.flags.items():
            if role in FLAG_KEYS:
                result[FLAG_KEYS[role]] = values.boolean(flag)
        if self.template is not None:
            result.update(template_values(self.template))
        if self.lowercase is not None:
            result["tokenizer.ggml.normalizer.lowercase"] = values.boolean(self.lowercase)
        if self.strip_accents is not None:
            result["tokenizer.ggml.normalizer.strip_accents"] = values.boolean(self.strip_accents)
        return result


def read_special(
    folder: Folder,
    note: Callable[[str], None],
    *,
    roles: Sequence[str] = ROLES,
    merges: bool = False,
    n_vocab: int | None = None,
) -> Special:
    """Read the special tokens of `roles`. Ids from `n_vocab` on, and negative ids, are noted and left out."""
    special = Special()
    tokenizer = folder.object("tokenizer.json") or {}
    settings = dict(folder.object("tokenizer_config.json") or {})
    if merges:
        special.merges = read_merges(folder)
    _read_normalizer(tokenizer.get("normalizer"), special)
    wrapping = _Wrapping(settings, tuple(roles), special.flags)
    if tokenizer:
        wrapping.read(tokenizer.get("post_processor"))
    keep = _Keeper(special.ids, n_vocab, note)
    special.template = find_template(folder, note)
    if settings:
        _read_roles(wrapping, _added_ids(folder), special, keep)
    _read_config(folder.object("config.json") or {}, wrapping.roles, keep)
    return special


class _Keeper:
    """Keeps the first valid id of each role."""

    def __init__(self, ids: dict[str, int], n_vocab: int | None, note: Callable[[str], None]) -> None:
        self._ids, self._n_vocab, self._note = ids, n_vocab, note

    def __call__(self, role: str, token_id: Any) -> None:
        if not isinstance(token_id, int) or isinstance(token_id, bool):
            return
        if token_id < 0 or token_id >= 1 << 32:
            self._note(f"{role}_token_id {token_id} is not a token id and is left out")
        elif self._n_vocab is not None and token_id >= self._n_vocab:
            self._note(f"{role}_token_id {token_id} is outside the vocabulary of {self._n_vocab} and is left out")
        else:
            self._ids.setdefault(role, token_id)

    def listed(self, role: str, token_ids: list[Any]) -> None:
        """GGUF has room for one id; a list is passed over, which is worth saying when nothing else names one."""
        if role not in self._ids:
            self._note(f"config.json: {role}_token_id is a list, {token_ids!r:.60}, of which none is written")


class _Wrapping:
    """Follows a post-processor to the flags add_bos, add_eos, add_sep, and to roles only it names.

    `settings` (tokenizer_config.json) holds what is known of `bos_token` and so on; roles learned are added there.
    A role's value may be a text or an object; only a text ever equals a token of the post-processor.
    """

    def __init__(self, settings: dict[str, Any], roles: tuple[str, ...], flags: dict[str, bool]) -> None:
        self.settings, self.roles, self.flags = settings, roles, flags
        self._configured = bool(settings)
        self._bos, self._cls, self._eos, self._sep = (settings.get(f"{r}_token") for r in ("bos", "cls", "eos", "sep"))

    def read(self, post_processor: Any) -> None:
        if self._configured and not self._bos and self._cls:
            self.settings["bos_token"] = self._bos = self._cls
        if self._configured and not self._eos and self._sep:
            self.settings["eos_token"] = self._eos = self._sep
        if not post_processor:
            return
        for processor in _mapping(post_processor).get("processors", [post_processor]):
            kind = _mapping(processor).get("type")
            if kind == "ByteLevel":
                self.flags.setdefault("bos", False)
                self.flags.setdefault("eos", False)
            elif kind == "RobertaProcessing":
                self._roberta(processor)
            elif kind == "TemplateProcessing":
                self._template(processor)

    def _learn(self, role: str, token: Any) -> Any:
        """Give a role its token, where there is a tokenizer_config.json to hold it."""
        self.settings[f"{role}_token"] = token
        return token

    def _roberta(self, processor: dict[str, Any]) -> None:
        self.flags.update(bos=True, eos=True, sep=True)
        if self._configured and not self._cls:
            self._cls = self._learn("cls", (processor.get("cls") or [self._bos])[0])
        if self._configured and not self._sep:
            self._sep = self._learn("sep", (processor.get("sep") or [self._eos])[0])

    def _template(self, processor: dict[str, Any]) -> None:
        single, pair = processor.get("single") or [], processor.get("pair") or []
        first = last = None
        if len(single) > 1:
            first, last = _special_id(single[0]), _special_id(single[-1])
            if first:
                self._leading(first)
            if last:
                self._trailing(last)
        if pair:
            start = 1 if first and _special_id(pair[0]) == first else 0
            stop = len(pair) - 1 if last and _special_id(pair[-1]) == last else len(pair)
            self._separator(pair[start:stop], closed=bool(last))

    def _leading(self, first: str) -> None:
        if not self._configured:
            self._bos = first
        elif first not in (self._bos, self._cls):
            if not self._bos:
                self._bos = self._learn("bos", first)
            if not self._cls:
                self._cls = self._learn("cls", first)
        self.flags["bos"] = first in (self._bos, self._cls)

    def _trailing(self, last: str) -> None:
        """A text ends with `last`: it is the EOS, and an EOS the settings named before becomes EOT or EOM."""
        if not self._configured:
            self._eos = last
        elif last != self._eos:
            spare = next((role for role in ("eot", "eom") if role not in self.roles), None)
            if spare is not None:
                self.roles = (*self.roles, spare)
                self._learn(spare, self._eos)
            self._eos = self._learn("eos", last)
        self.flags["eos"] = True

    def _separator(self, middle: list[Any], *, closed: bool) -> None:
        """A [x] [y] B: x separates unless it is only the first text's own end; a y always does."""
        if not middle or _sequence_id(middle[0]) != "A" or _sequence_id(middle[-1]) != "B" or len(middle) < 3:
            return
        between = [_special_id(part) for part in middle[1:-1]]
        known = (self._sep, self._eos)
        add = bool(between[0]) and between[0] in known and not closed
        if len(between) == 2 and between[1] and between[1] in known:
            add = True
        self.flags["sep"] = add
        if add and not self._sep and self._configured:
            self._learn("sep", self._eos)


def _read_roles(wrapping: _Wrapping, ids: dict[str, int], special: Special, keep: _Keeper) -> None:
    for role in wrapping.roles:
        flag = wrapping.settings.get(f"add_{role}_token")
        if isinstance(flag, bool):
            special.flags.setdefault(role, flag)
        entry = wrapping.settings.get(f"{role}_token")
        content = text_of(entry)
        if content is not None:
            keep(role, ids.get(content))


def _read_config(config: dict[str, Any], roles: Sequence[str], keep: _Keeper) -> None:
    for role in roles:
        token_id = config.get(f"{role}_token_id")
        if token_id is None:
            token_id = _mapping(config.get("text_config") or {}).get(f"{role}_token_id")
        if isinstance(token_id, list):
            keep.listed(role, token_id)
        keep(role, token_id)


def _added_ids(folder: Folder) -> dict[str, int]:
    ids: dict[str, int] = {}
    for number, entry in json_entries(folder):
        ids.setdefault(text_of(entry) or "", number)
    return ids


def _read_normalizer(normalizer: Any, special: Special) -> None:
    if not isinstance(normalizer, dict):
        return
    kind = normalizer.get("type")
    if kind == "Lowercase":
        special.lowercase = True
    elif kind == "StripAccents":
        special.strip_accents = True
    elif kind == "BertNormalizer":
        special.lowercase = _flag(normalizer, "lowercase", special.lowercase)
        special.strip_accents = _flag(normalizer, "strip_accents", special.strip_accents)
    elif kind == "Sequence":
        for part in normalizer.get("normalizers") or []:
            _read_normalizer(part, special)


def _flag(settings: dict[str, Any], key: str, default: bool | None) -> bool | None:
    value = settings.get(key, default)
    return value if isinstance(value, bool) else None


def _special_id(part: Any) -> Any:
    return _mapping(_mapping(part).get("SpecialToken") or {}).get("id")


def _sequence_id(part: Any) -> Any:
    return _mapping(_mapping(part).get("Sequence") or {}).get("id")


def _mapping(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise CheckpointError(f"tokenizer.json or config.json: expected an object, found {value!r:.60}")
    return value
