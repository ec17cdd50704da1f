"""OpenJev, which answers by the letter of an option: a Qwen3.5 with the prompt and the temperatures of its own helper.

Its configuration is a Qwen3.5's; what tells it is the helper that lies beside the weights.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gguf_forge.convert import vocab
from gguf_forge.convert.arch import Hparam, Table, f32, string
from gguf_forge.convert.facts import Facts
from gguf_forge.convert.vocab.folder import Folder
from gguf_forge.convert.vocab.templates import template_values

from .deciding import shown

HELPER = "helper/shim.py"
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
#: By what the logits of letters are divided, and for questions to be answered by yes or no once more.
TEMPERATURE, TEMPERATURE_NOUL = 0.85, 1.829074


def is_openjev(facts: Facts) -> bool:
    """Whether the folder is OpenJev's."""
    return Folder(facts.directory).has(HELPER)


def _if_openjev(value: Any) -> Callable[[Facts], Any]:
    return lambda facts: value if is_openjev(facts) else None


DECISION: Table[Hparam] = Table(
    (
        string("decision.type", value=_if_openjev("openjev")),
        f32("decision.temperature.choice", value=_if_openjev(TEMPERATURE)),
        f32("decision.temperature.score", value=_if_openjev(TEMPERATURE)),
        f32("decision.temperature.noul", value=_if_openjev(TEMPERATURE * TEMPERATURE_NOUL)),
    )
)


def _prompt() -> str:
    """What the model is asked, as its helper writes it: a state, a question, and options with letters."""
    described = shown("o.description")
    option = (
        f"{{% if type != 'noul' %}}{{{{ o.key }}}}: {{% if o.description %}}{described}{{% endif %}}"
        f"{{% elif o.key == 'true' %}}yes: {{% if o.description %}}{described}"
        "{% else %}The statement is true.{% endif %}"
        f"{{% else %}}no: {{% if o.description %}}{described}"
        "{% else %}The statement is false.{% endif %}{% endif %}"
    )
    return (
        f"{{% set letters = '{LETTERS}' %}}"
        "<|im_start|>user\n"
        "{% for image in images %}{{ image }}{% endfor %}"
        "{% if images %}{{ 'The screenshot shows the current screen.\\n' }}{% endif %}"
        f"State:\n{shown('state')}\n\nQuestion: {shown('instructions')}"
        "{% if type == 'score' %} Rate along the ordered levels below (lowest first).{% endif %}"
        "{{ '\\nOptions:\\n' }}"
        f"{{% for o in options %}}[{{{{ letters[loop.index0] }}}}] {option}{{{{ '\\n' }}}}{{% endfor %}}"
        "{{ '\\nAnswer with the letter of the best option only.<|im_end|>\\n<|im_start|>assistant\\n"
        "<think>\\n\\n</think>\\n\\n' }}"
    )


@vocab.step
def prompt(job: vocab.VocabJob) -> vocab.Changes:
    """The prompt beside the chat template, for OpenJev."""
    return template_values([{"name": "systemone", "template": _prompt()}]) if job.folder.has(HELPER) else {}
