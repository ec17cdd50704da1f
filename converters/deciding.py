"""What models that decide have in common. They answer questions with one of several options, a rating, or yes and no; a
prompt for that lies beside the chat template. Must not know single families.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gguf_forge.convert import vocab
from gguf_forge.convert.arch import Hparam, Table, f32, string
from gguf_forge.convert.config import need
from gguf_forge.convert.facts import Facts
from gguf_forge.convert.vocab.templates import template_values

#: The kinds of questions: one of several options, a rating, and yes or no.
KINDS = ("choice", "score", "noul")
#: How many options a question may have for one temperature, as these models' settings write it.
COUNTS = ("", ":2", ":3-5", ":6-10", ":11+")


def shown(name: str) -> str:
    """A text as it is, anything else as JSON."""
    return f"{{{{ {name} if {name} is string else {name} | tojson }}}}"


def systemone(prompt: str) -> vocab.Step:
    """A prompt beside the chat template, under the name by which readers know it."""
    return vocab.step(lambda _: template_values([{"name": "systemone", "template": prompt}]))


def decided_by(kind: str) -> Hparam:
    """The row that names the way of deciding."""
    return string("decision.type", value=lambda facts: kind)


#: Stands for no default.
NEEDED = object()


def decision(key: str, default: Any = NEEDED) -> Callable[[Facts], Any]:
    """A setting of the head, which a family puts under `decision`. ConversionError without it and without a default."""

    def setting(facts: Facts) -> Any:
        settings = need(facts.config, "decision")
        return need(settings, key) if default is NEEDED else settings.get(key, default)

    return setting


def temperatures(value: Callable[[Facts, str], Any], counts: tuple[str, ...] = ("",)) -> Table[Hparam]:
    """What scores are divided by: `value(facts, name)` for each kind of question, and there by how many options."""

    def row(name: str) -> Hparam:
        key = name.replace(":", ".").replace("-", "_").rstrip("+")
        return f32(f"decision.temperature.{key}", value=lambda facts: value(facts, name))

    return Table(tuple(row(kind + count) for kind in KINDS for count in counts))


def without_further(config: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A Qwen3.5's configuration with other keys, and without layers that predict further tokens."""
    part = config.get("text_config")
    if isinstance(part, dict):
        config = {**config, "text_config": {**part, "mtp_num_hidden_layers": 0}}
    return {**config, "mtp_num_hidden_layers": 0, **more}
