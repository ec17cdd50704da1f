"""Chat templates: where a checkpoint keeps them, and the keys they become.

Must not know Jinja: a template is text here, never run.
"""

import string
from collections.abc import Callable, Sequence
from typing import Any

from gguf_forge.convert.vocab.folder import Folder
from gguf_forge.convert.vocab.tokens import require_utf8
from gguf_forge.errors import CheckpointError
from gguf_forge.format import values
from gguf_forge.format.values import Value

_NAME_CHARS = frozenset(string.ascii_letters + string.digits)
_TEXT_FILE = "chat_template.jinja"
_JSON_FILE = "chat_template.json"
_EXTRA_FOLDER = "additional_chat_templates"
_CONFIG_FILE = "tokenizer_config.json"
_DEFAULT = "default"

Template = str | list[Any]
"""One template, or objects with `name` and `template`."""


def find_template(folder: Folder, note: Callable[[str], None]) -> Template | None:
    """The checkpoint's template or templates, from where the Hub's library (transformers) takes them.

    The first that there is of chat_template.jinja with those of additional_chat_templates/, tokenizer_config.json, and
    chat_template.json, which that library reads for processors only. `note` is called where another holds something
    else, and for a form that is none.
    """
    places = {
        _TEXT_FILE: _from_files(folder),
        _CONFIG_FILE: _from_config(folder, note),
        _JSON_FILE: _one((folder.object(_JSON_FILE) or {}).get("chat_template")),
    }
    found = {place: template for place, template in places.items() if template is not None}
    if not found:
        return None
    (first, chosen), *others = found.items()
    for place, template in others:
        if _by_name(template) != _by_name(chosen):
            note(f"chat templates differ in {_shown(folder, first)} and {place}: the former is written")
    return chosen


def _shown(folder: Folder, place: str) -> str:
    return place if place != _TEXT_FILE or folder.has(_TEXT_FILE) else f"{_EXTRA_FOLDER}/"


def _from_files(folder: Folder) -> Template | None:
    text = folder.text(_TEXT_FILE)
    extra = sorted((folder.path / _EXTRA_FOLDER).glob("*.jinja"))
    named = [{"name": path.stem, "template": folder.text(f"{_EXTRA_FOLDER}/{path.name}")} for path in extra]
    if not named:
        return text
    return named if text is None else [{"name": _DEFAULT, "template": text}, *named]


def _from_config(folder: Folder, note: Callable[[str], None]) -> Template | None:
    found = (folder.object(_CONFIG_FILE) or {}).get("chat_template")
    template = _one(found)
    if template is None and found is not None:
        note(f"chat_template is neither a text nor a list but {type(found).__name__}, and is left out")
    return template


def _one(found: Any) -> Template | None:
    """A template as a value of a JSON file: a text, a list, or an object with texts by name."""
    if isinstance(found, dict) and all(isinstance(text, str) for text in found.values()):
        return [{"name": name, "template": text} for name, text in found.items()]
    return found if isinstance(found, (str, list)) else None


def _by_name(template: Template) -> Any:
    """What can be compared: templates by name, whatever their order and form."""
    if isinstance(template, str):
        return {_DEFAULT: template}
    entries = [entry for entry in template if isinstance(entry, dict)]
    return {str(entry.get("name")): entry.get("template") for entry in entries}


def template_values(template: Template) -> dict[str, Value]:
    """tokenizer.chat_template, and for named templates tokenizer.chat_template.NAME and tokenizer.chat_templates.

    Characters of a name other than ASCII letters and digits become `_`. An empty template has no key.
    The names are listed in the order of their first appearance; the reference lists them in no fixed order.
    """
    if isinstance(template, str):
        return _text("tokenizer.chat_template", template)
    result: dict[str, Value] = {}
    default, names = _split_default(template)
    for name, text in names:
        result.update(_text(f"tokenizer.chat_template.{name}", text))
    if names:
        result["tokenizer.chat_templates"] = values.strings(list(dict.fromkeys(name for name, _ in names)))
    if default is not None:
        result.update(_text("tokenizer.chat_template", default))
    return result


def _split_default(entries: Sequence[Any]) -> tuple[str | None, list[tuple[str, str]]]:
    default: str | None = None
    named: list[tuple[str, str]] = []
    for entry in entries:
        if not isinstance(entry, dict) or not isinstance(entry.get("name", ""), str):
            raise CheckpointError(f"chat_template: expected objects with name and template, found {entry!r:.60}")
        name = "".join(char if char in _NAME_CHARS else "_" for char in entry.get("name", ""))
        text = entry.get("template")
        if not name or text is None:
            continue
        if not isinstance(text, str):
            raise CheckpointError(f"chat_template {name!r}: expected text, found {type(text).__name__}")
        if name == "default":
            default = text
        else:
            named.append((name, text))
    return default, named


def _text(key: str, text: str) -> dict[str, Value]:
    require_utf8(key, [text])
    return {key: values.string(text)} if text else {}
