"""d1, which decides: an LFM2-VL that answers a question with the code of an option. Its prompt is its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from gguf_forge.convert import vocab
from gguf_forge.convert.arch import string
from gguf_forge.convert.vocab.templates import template_values

from .lfm2 import LFM2


def _is_d1(config: Mapping[str, Any]) -> bool:
    """Whether the model's own code is d1's: its configuration is an LFM2-VL's otherwise."""
    code = config.get("auto_map")
    named = code.get("AutoModel", "") if isinstance(code, Mapping) else ""
    return config.get("architectures", [""])[:1] == ["D1Model"] or str(named).endswith(".D1Model")


def _if(condition: str, then: str, otherwise: str | None = None) -> str:
    rest = "" if otherwise is None else f"{{% else %}}{otherwise}"
    return f"{{% if {condition} %}}{then}{rest}{{% endif %}}"


def _each_option(body: str) -> str:
    return f"{{% for o in options %}}{body}{{% endfor %}}"


def _text(text: str) -> str:
    """A text whose line ends the template must keep."""
    return "{{ '" + text.replace("\n", "\\n") + "' }}"


def _shown(name: str) -> str:
    """A text as it is, anything else as JSON."""
    return f"{{{{ {name} if {name} is string else {name} | tojson }}}}"


def _prompt() -> str:
    """What the model is asked: a state, a question, and options by code, by yes and no, or by a digit."""
    described = _shown("o.description")
    named = _if("o.description", described, "{{ o.key | replace('_', ' ') }}")
    break_between = _if("not loop.last", _text("\n"))
    choice = (
        _text("\n\nOptions:\n")
        + _each_option("{{ o.label }} " + named + break_between)
        + _text("\n\nReply with the option code only.")
    )
    finds_criteria = _each_option(_if("o.description is not none", "{% set ns.criteria = true %}"))
    criterion = "{{ '\\nYes: ' if o.key == 'true' else '\\nNo: ' }}" + _if("o.description is none", "None", described)
    yes_or_no = (
        "{% set ns = namespace(criteria=false) %}"
        + finds_criteria
        + _if("ns.criteria", _each_option(criterion))
        + _text("\n\nReply with yes or no only.")
    )
    score = (
        _text("\n\n")
        + _each_option("{{ o.key }} " + described + _text("\n"))
        + _text("\nReply with a single digit 0-")
        + "{{ options | length - 1 }}"
        + _text(" only.")
    )
    state = _if("state is string", "{{ state }}", "{{ state | tojson(indent=2) }}")
    return (
        "<|startoftext|><|im_start|>user\n"
        "{% for image in images %}{{ image }}{% endfor %}"
        + _if("state is not none", state + _text("\n\n\nQUESTION:\n"))
        + _shown("instructions")
        + f"{{% if type == 'choice' %}}{choice}{{% elif type == 'noul' %}}{yes_or_no}{{% else %}}{score}{{% endif %}}"
        + _text("<|im_end|>\n<|im_start|>assistant\n")
    )


@vocab.step
def prompt(_: vocab.VocabJob) -> vocab.Changes:
    """The prompt, beside the chat template."""
    return template_values([{"name": "systemone", "template": _prompt()}])


D1 = replace(
    LFM2,
    hf=("D1Model", *LFM2.hf),
    hparams=LFM2.hparams | string("decision.type", value=lambda facts: "lfm2-d1"),
    vocab=(*LFM2.vocab, prompt),
    when=_is_d1,
)

ARCHS = (D1,)
