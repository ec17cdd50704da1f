"""d1, which decides: an LFM2-VL that answers a question with the code of an option. Its prompt is its own.

And d1-omni, which has a head of attention layers that see both ways over an LFM2, and scores for options. It takes
images and sound, too; their encoders are other files.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from gguf_forge.convert import vocab
from gguf_forge.convert.arch import WEIGHT, Axis, Either, Table, boolean, f32, rule, u32
from gguf_forge.convert.config import block_count, need
from gguf_forge.convert.facts import Facts
from gguf_forge.format import values

from .common import affine, layer
from .deciding import COUNTS, decided_by, shown, systemone, temperatures
from .lfm2 import CONVOLVES_OR_ATTENDS, ENDS, KEYS, LFM2, TENSORS, forward_width, heads_kv


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


FINDS_CRITERIA = _each_option(_if("o.description is not none", "{% set ns.criteria = true %}"))


def _prompt() -> str:
    """What the model is asked: a state, a question, and options by code, by yes and no, or by a digit."""
    described = shown("o.description")
    named = _if("o.description", described, "{{ o.key | replace('_', ' ') }}")
    break_between = _if("not loop.last", _text("\n"))
    choice = (
        _text("\n\nOptions:\n")
        + _each_option("{{ o.label }} " + named + break_between)
        + _text("\n\nReply with the option code only.")
    )
    criterion = "{{ '\\nYes: ' if o.key == 'true' else '\\nNo: ' }}" + _if("o.description is none", "None", described)
    yes_or_no = (
        "{% set ns = namespace(criteria=false) %}"
        + FINDS_CRITERIA
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
        + shown("instructions")
        + f"{{% if type == 'choice' %}}{choice}{{% elif type == 'noul' %}}{yes_or_no}{{% else %}}{score}{{% endif %}}"
        + _text("<|im_end|>\n<|im_start|>assistant\n")
    )


D1 = replace(
    LFM2,
    hf=("D1Model", *LFM2.hf),
    hparams=LFM2.hparams | decided_by("lfm2-d1"),
    vocab=(*LFM2.vocab, systemone(_prompt())),
    when=_is_d1,
)


def _omni_prompt() -> str:
    """What d1-omni is given: marks around a state, a question and its options, and `sep` where a reader may cut."""
    is_described = "o.description is not none and o.description != ''"
    described, yes_no = shown("o.description"), "{{ 'yes' if o.key == 'true' else 'no' }}"
    code = "{% if loop.index0 < 10 %}00{% elif loop.index0 < 100 %}0{% endif %}{{ loop.index0 }}"
    statement = (
        "{% elif images and not ns.criteria %}"
        + yes_no
        + "{% elif o.key == 'true' %}yes, the statement holds"
        + "{% else %}no, the statement does not hold{% endif %}"
    )
    option = (
        f"{{% if type == 'choice' and audio %}}option_{code}: {_if(is_described, described, '{{ o.key }}')}"
         f"{{% elif type == 'choice' %}}{{{{ o.key }}}}{_if(is_described, ': ' + described)}"
         f"{{% elif type == 'score' %}}level {{{{ o.key }}}}: {described}"
         f"{{% elif audio %}}{{{{ o.key }}}}: {yes_no}"
         f"{{% else %}}{{{{ o.key }}}}: {{% if {is_described} %}}{described}{statement}{{% endif %}}"
    )
    state = (
        "{% if state is string %}{{ state }}{% elif state is not none %}{{ state | tojson }}"
        "{% elif audio %}{}{% endif %}"
    )
    return (
        "{% set ns = namespace(criteria=false) %}"
        + FINDS_CRITERIA
        + "{% for image in images %}{{ image }}{% endfor %}{{ sep }}"
        + "<|startoftext|><|reserved_7|>{{ sep }}{{ mark_state }}"
        + state
        + "{{ sep }}{{ mark_question }}<|reserved_8|>"
        + shown("instructions")
        + _each_option(
            "{{ sep }}<|reserved_9|><|mask|>{{ sep }}{{ mark_option }} " + option + "{{ sep }}<|reserved_10|>"
        )
        + "{{ sep }}<|reserved_11|>"
    )


@vocab.step
def kinds_of_questions(_: vocab.VocabJob) -> vocab.Changes:
    """Three kinds of questions; the prompt begins with its own BOS after what is seen and heard."""
    return {
        "tokenizer.ggml.add_bos_token": values.boolean(False),
        "tokenizer.ggml.token_type_count": values.u32(3),
    }


@vocab.step
def no_flag(_: vocab.VocabJob) -> vocab.Changes:
    """Without the tokenizer's own word on BOS."""
    return {"tokenizer.ggml.add_bos_token": None}


def _deciding(facts: Facts) -> int:
    """The layers of the head."""
    return facts.number("head_layers")


def _all_layers(facts: Facts) -> int:
    return block_count(facts.config) + _deciding(facts)


def _widths(facts: Facts) -> list[int]:
    """The width of each layer's feed-forward: LFM2's, and in the head four times the model's."""
    return [forward_width(facts)] * block_count(facts.config) + [4 * facts.number("hidden_size")] * _deciding(facts)


def _heads(facts: Facts) -> list[int]:
    return heads_kv(facts) + [facts.number("num_attention_heads")] * _deciding(facts)


def _temperature(facts: Facts, name: str) -> Any:
    return need(facts.config, "temperatures").get(name)


def _after_trunk(match: re.Match[str], facts: Facts) -> str:
    """The head's layers come after the others."""
    return f"head.layers.{block_count(facts.config) + int(match[1])}."


HEAD = "head.layers.{l}"
D1_OMNI = replace(
    LFM2,
    hf=("D1OmniModel", *LFM2.hf),
    hparams=KEYS
    | u32("block_count", value=_all_layers)
    | u32("feed_forward_length", value=_widths)
    | u32("attention.head_count_kv", value=_heads)
    | ENDS
    | f32("attention.layer_norm_epsilon", value=lambda facts: 1e-5, again=True)
    | boolean("attention.causal", value=lambda facts: False, again=True)
    | decided_by("lfm2-d1-omni")
    | u32("decision.block_count", value=_deciding)
    | temperatures(_temperature, COUNTS),
    tensors=TENSORS
    | Table(
        (
            rule("token_types", "head.type_emb", ends=WEIGHT),
            rule("cls.norm", "head.scorer.0"),
            rule("cls", "head.scorer.1"),
            rule("cls.output", "head.scorer.3"),
            rule("blk.{l}.attn_norm", f"{HEAD}.norm1", variant="head"),
            rule("blk.{l}.attn_qkv", f"{HEAD}.self_attn.in_proj"),
            rule("blk.{l}.attn_output", f"{HEAD}.self_attn.out_proj", variant="head"),
            rule("blk.{l}.ffn_norm", f"{HEAD}.norm2", variant="head"),
            rule("blk.{l}.ffn_up", f"{HEAD}.linear1", variant="head"),
            rule("blk.{l}.ffn_down", f"{HEAD}.linear2", variant="head"),
        )
    ),
    needs=(
        "token_embd",
        "token_embd_norm",
        "token_types",
        *affine("cls.norm", "cls", "cls.output"),
        *layer("attn_norm", "ffn_norm", "ffn_up", "ffn_down"),
        Either((*CONVOLVES_OR_ATTENDS.choices, affine(*layer("attn_qkv", "attn_output")))),
    ),
    vocab=(*LFM2.vocab, no_flag, kinds_of_questions, systemone(_omni_prompt())),
    renames=(
        (r"^encoder\.", "model."),
        (r"^head\.head\.layers\.(\d+)\.", _after_trunk),
        (r"\.in_proj_(weight|bias)$", r".in_proj.\1"),
    ),
    drop=(r"^(vision|audio)\.",),
    axes={"l": Axis(_all_layers)},
    when=lambda config: config.get("model_type") == "d1_omni",
)

ARCHS = (D1, D1_OMNI)
