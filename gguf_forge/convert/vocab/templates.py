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
_EXTRA_FOLDER = "additional_chat_templates"

Template = str | list[Any]
"""One template, or objects with `name` and `template`."""


def find_template(folder: Folder, tokenizer_config: dict[str, Any], note: Callable[[str], None]) -> Template | None:
    """The checkpoint's template(s): tokenizer_config.json first, then chat_template.jinja, then chat_template.json."""
    found = tokenizer_config["chat_template"] if "chat_template" in tokenizer_config else _from_files(folder)
    if found is not None and not isinstance(found, (str, list)):
        note(f"chat_template is neither a text nor a list but {type(found).__name__}, and is left out")
    return found if isinstance(found, (str, list)) else None


def _from_files(folder: Folder) -> Any:
    text = folder.text("chat_template.jinja")
    if text is None:
        return (folder.object("chat_template.json") or {}).get("chat_template")
    extra = sorted((folder.path / _EXTRA_FOLDER).glob("*.jinja"))
    if not extra:
        return text
    named = [{"name": path.stem, "template": folder.text(f"{_EXTRA_FOLDER}/{path.name}")} for path in extra]
    return [{"name": "default", "template": text}, *named]


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
