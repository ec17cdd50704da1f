"""Clef, which decides all fields of a schema jointly: a Qwen3.5 trunk and, in a file beside it, a head of two kinds of
blocks. In the first, options read the prompt; in the second, questions read each other and the prompt.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from typing import Any

import numpy as np

from gguf_forge.convert.arch import WEIGHT, Axis, Either, Rule, Table, exact, f32, rule, u32
from gguf_forge.convert.facts import Facts
from gguf_forge.convert.ops import Whole
from gguf_forge.convert.rows import equal_parts
from gguf_forge.source.checkpoint import Checkpoint

from .common import WRAPPERS, affine
from .deciding import decided_by, decision, systemone, without_further
from .qwen_next import QWEN35_ALONE

HEAD = "joint_head"


def configure(checkpoint: Checkpoint) -> dict[str, Any] | None:
    """What config.json and the head's own settings say together."""
    found, head = checkpoint.read_json("config.json"), checkpoint.read_json(f"{HEAD}_config.json")
    if found is None or head is None:
        return None
    return without_further(found, architectures=["ClefModel"], decision=head)


def _text(text: str) -> str:
    return f"{{{{ {json.dumps(text)} }}}}"


def _shown(name: str) -> str:
    """A text as it is, anything else as JSON without spaces."""
    return f"{{{{ {name} if {name} is string else {name} | tojson(separators=[',', ':']) }}}}"


#: Where a reader cuts the prompt, and where a question or an option begins.
CUT, QUESTION, OPTION = "{{ sep }}", "{{ sep }}{{ mark_question }}", "{{ sep }}{{ mark_option }}"


def _option() -> str:
    """An option as JSON, keys in order; yes and no are described where nobody did."""
    yes = "The proposition is true or the answer is yes."
    no = "The proposition is false or the answer is no."
    return (
        "{% set d = o.description %}"
        "{% if q.type == 'noul' and d is none %}"
        f"{{% set d = '{yes}' if o.key == 'true' else '{no}' %}}"
        "{% endif %}"
        "{{ ({'option_id': o.key} if d is none else {'description': d, 'option_id': o.key})"
        " | tojson(separators=[',', ':']) }}"
    )


def _prompt() -> str:
    """What the model is asked: a state, and the fields of a schema with their options."""
    system = (
        "Read the complete state and schema. Decide every field jointly. Each answer must be exactly one of that "
        "field's allowed options."
    )
    images = "{% if images %}" + CUT + "{% for image in images %}{{ image }}{% endfor %}" + _text("\n") + "{% endif %}"
    number = "{{ loop.index }}"
    option = CUT + _text("OPTION ") + number + _text(": ") + OPTION + _option() + CUT + _text("\n")
    field = (
        (CUT + _text("\nFIELD ") + number + _text("\nID: ") + "{{ q.id }}" + _text("\nTYPE: ") + "{{ q.type }}")
        + (_text("\nINSTRUCTION: ") + QUESTION + _shown("q.instructions"))
        + (CUT + _text("\nALLOWED OPTIONS:\n") + "{% for o in q.options %}" + option + "{% endfor %}")
        + (CUT + _text("END FIELD\n"))
    )
    end = "\n<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\nJOINT SCHEMA DECISIONS:"
    return (
        _text(f"<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\nSTATE:\n")
        + (images + CUT + _shown("state") + CUT + _text("\n\nSCHEMA FIELDS:\n"))
        + ("{% for q in questions %}" + field + "{% endfor %}" + CUT + _text(end))
    )


ROUTING = decision("routing_layers")
JOINT = decision("layers")


def _after_routing(match: re.Match[str], facts: Facts) -> str:
    """The joint blocks come after those in which options read the prompt."""
    return f"{HEAD}/layers.{ROUTING(facts) + int(match[1])}."


def _scales(parts: list[Any], _: Facts) -> Any:
    """The learned factors as they are used: two exponentials of at most 100, and a gate between 0 and 1."""
    prior, joint, gate = (float(np.asarray(part, np.float32).reshape(())) for part in parts)
    most = math.log(100.0)
    return np.array([math.exp(min(prior, most)), math.exp(min(joint, most)), 1 / (1 + math.exp(-gate))], np.float32)


B, J, R = "dec.blk.{d}", f"{HEAD}/layers.{{d}}", f"{HEAD}/evidence_layers.{{d}}"


def _attention(kind: str, *sources: str) -> Table[Rule]:
    """Attention whose queries, keys and values lie in one matrix, and in one bias, without a dot before the ending."""
    names = tuple(f"{B}.{kind}_{part}" for part in "qkv")
    return Table(
        (
            *(
                exact(
                    tuple(name + end for name in names),
                    tuple(f"{source}.in_proj_{end[1:]}" for source in sources),
                    verb=equal_parts(3),
                )
                for end in (".weight", ".bias")
            ),
            rule(f"{B}.{kind}_o", tuple(f"{source}.out_proj" for source in sources)),
        )
    )


PARTS: dict[str, str | tuple[str, ...]] = {
    "attn_norm": f"{J}.norm1",
    "cross_attn_norm": (f"{J}.norm2", f"{R}.query_norm"),
    "cross_attn_norm_kv": f"{R}.memory_norm",
    "ffn_norm": (f"{J}.norm3", f"{R}.feedforward_norm"),
    "ffn_up": (f"{J}.linear1", f"{R}.feedforward.0"),
    "ffn_down": (f"{J}.linear2", f"{R}.feedforward.3"),
}
BLOCKS: Table[Rule] = (
    _attention("attn", f"{J}.self_attn")
    | _attention("cross_attn", f"{J}.multihead_attn", f"{R}.attention")
    | Table(tuple(rule(f"{B}.{out}", sources) for out, sources in PARTS.items()))
)
NORMS = ("hidden_norm", "option_summary_norm", "field_norm", "option_norm")
SCORERS = {"scorer": "residual_scorer.0", "scorer_out": "residual_scorer.3"}
INWARD = ("memory", "question", "option_question", "global", "option_context", "option_lexical")
SCALES = ("prior_logit_scale", "joint_logit_scale", "residual_gate")
JOINT_HEAD: Table[Rule] = BLOCKS | Table(
    (
        rule("token_types", f"{HEAD}/type_embedding", ends=WEIGHT),
        exact("decision.scales", *(f"{HEAD}/{name}" for name in SCALES), verb=Whole(_scales, lambda shapes, _: (3,))),
        *(rule(f"decision.{name}", f"{HEAD}/{name}") for name in NORMS),
        *(rule(f"decision.{out}", f"{HEAD}/{name}") for out, name in SCORERS.items()),
        *(rule(f"decision.proj_{name}", f"{HEAD}/{name}_projection", ends=WEIGHT) for name in INWARD),
    )
)
CLEF = replace(
    QWEN35_ALONE,
    name="clef",
    hf=("ClefModel",),
    whole=("ClefModel",),
    hparams=QWEN35_ALONE.hparams
    | decided_by("clef")
    | u32("decision.routing_block_count", value=ROUTING)
    | u32("decision.block_count", value=JOINT)
    | u32("decision.head_count", value=decision("heads"))
    # What torch's LayerNorm has where nobody says otherwise.
    | f32("attention.layer_norm_epsilon", value=lambda facts: 1e-5, again=True),
    tensors=QWEN35_ALONE.tensors | JOINT_HEAD,
    needs=(
        *QWEN35_ALONE.needs,
        "token_types",
        "decision.scales",
        *affine(*(f"decision.{out}" for out in (*NORMS, *SCORERS))),
        *(f"decision.proj_{name}" for name in INWARD),
        *affine(f"{B}.cross_attn_norm", *(f"{B}.cross_attn_{part}" for part in "qkvo")),
        *affine(*(f"{B}.{part}" for part in ("ffn_norm", "ffn_up", "ffn_down"))),
        Either(
            (
                affine(f"{B}.cross_attn_norm_kv"),
                affine(f"{B}.attn_norm", *(f"{B}.attn_{part}" for part in "qkvo")),
            )
        ),
    ),
    vocab=(*QWEN35_ALONE.vocab, systemone(_prompt())),
    renames=(*WRAPPERS, (rf"^{HEAD}/layers\.(\d+)\.", _after_routing)),
    axes={**QWEN35_ALONE.axes, "d": Axis(lambda facts: ROUTING(facts) + JOINT(facts))},
    configure=configure,
)

ARCHS = (CLEF,)
