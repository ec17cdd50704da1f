"""Laya and Julia, which decide: a ModernBERT encoder, and over it blocks that see all tokens and a score for options.

The encoder and the tokenizer lie in folders of their own; what the head is like, in a file beside the weights.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from gguf_forge.convert import vocab
from gguf_forge.convert.arch import WEIGHT, Table, optional, rule, string, u32
from gguf_forge.convert.config import block_count, count
from gguf_forge.convert.facts import Facts
from gguf_forge.convert.vocab.folder import Folder
from gguf_forge.convert.vocab.templates import template_values
from gguf_forge.errors import ConversionError
from gguf_forge.format import values
from gguf_forge.source.checkpoint import Checkpoint

from .bert import CLASSES, MODERN_BERT
from .common import BUFFERS, affine, layer
from .deciding import COUNTS, KINDS, decided_by, decision, shown, temperatures

TOKENIZER = "tokenizer"
#: What the two call their head's settings, the one that counts first.
SETTINGS = ("julia_config.json", "rl_agent_config.json")
#: The kind of model that Julia's settings name; its options are read by their description alone.
JULIA = "JuliaDecisionModel"


def configure(checkpoint: Checkpoint) -> dict[str, Any] | None:
    """The encoder's configuration with the head's layers after its own, which are four times as wide as the model."""
    encoder = checkpoint.read_json("encoder/config.json")
    head = next((found for name in SETTINGS if (found := checkpoint.read_json(name)) is not None), None)
    if encoder is None or head is None:
        return None
    layers, more = block_count(encoder), count(head, "head_layers")
    widths = [count(encoder, "intermediate_size")] * layers + [4 * count(encoder, "hidden_size")] * more
    return {
        **encoder,
        "architectures": ["ModernBertDecisionModel"],
        "decision": head,
        "num_hidden_layers": layers + more,
        "intermediate_size": widths,
    }


def _prompt(settings: dict[str, Any], julia: bool) -> str:
    """What the encoder reads: the kind of question, the question, options after masks, a state."""
    begin, end, mask = (settings.get(f"{kind}_token") for kind in ("cls", "sep", "mask"))
    if not isinstance(begin, str) or not isinstance(end, str) or not isinstance(mask, str):
        raise ConversionError("tokenizer_config.json: cls_token, sep_token and mask_token must be texts")
    described = shown("o.description")
    statement = (
        "{{ o.key }}: {% if o.description %}"
        + described
        + "{% elif o.key == 'true' %}yes, the statement holds{% else %}no, the statement does not hold{% endif %}"
    )
    option = (
        f"{{% if type == 'choice' %}}{{{{ o.key }}}}{{% if o.description %}}: {described}{{% endif %}}"
        f"{{% elif type == 'score' %}}level {{{{ o.key }}}}: {described}{{% else %}}{statement}{{% endif %}}"
    )
    if julia:
        option = f"{{% if o.description %}}{described}{{% else %}}{{{{ o.key }}}}{{% endif %}}"
    return (
        f"{begin}{{{{ type }}}} question: {shown('instructions')}{end}"
        f"{{% for o in options %}}{mask} {option}{{% endfor %}}{end}{shown('state')}{end}"
    )


OF_ENCODER = vocab.together(*MODERN_BERT.vocab)


@vocab.loader
def of_folder(job: vocab.VocabJob) -> vocab.Keys | None:
    """The vocabulary in the tokenizer's own folder, the three kinds of questions, and the prompt."""
    inner = job.but(folder=Folder(job.directory / TOKENIZER))
    made = OF_ENCODER(inner)
    if made is None:
        return None
    prompt = _prompt(inner.settings, decision("architecture", None)(Facts(job.config, job.directory)) == JULIA)
    found = {key: value for key, value in made.items() if value is not None}
    named = template_values([{"name": "systemone", "template": prompt}])
    return {**found, "tokenizer.ggml.token_type_count": values.u32(len(KINDS)), **named}


HEAD_LAYERS = decision("head_layers")


def _after_encoder(match: re.Match[str], facts: Facts) -> str:
    """The head's blocks come after the encoder's."""
    return f"head.layers.{block_count(facts.config) - HEAD_LAYERS(facts) + int(match[1])}."


def _temperature(facts: Facts, name: str) -> Any:
    """Of a kind of question its place in a list, of one with so many options an entry by name."""
    if name in KINDS:
        return dict(zip(KINDS, decision("temperature", [])(facts), strict=False)).get(name)
    named = decision("temperature_by_options", {})(facts)
    unknown = next((key for key in named if key not in {kind + size for kind in KINDS for size in COUNTS}), None)
    if unknown is not None:
        raise ConversionError(f"temperature_by_options names {unknown!r}, for which GGUF's readers have no temperature")
    return named.get(name)


HEAD = "head.layers.{l}"
FORWARD = ("ffn_norm", "ffn_up", "ffn_down")
MODERN_BERT_DECISION = replace(
    MODERN_BERT,
    hf=("ModernBertDecisionModel",),
    hparams=MODERN_BERT.hparams
    | string("classifier.activation", "classifier_activation")
    | decided_by("laya")
    | u32("decision.block_count", value=HEAD_LAYERS)
    | u32("decision.max_head_tokens", value=decision("head_max_len", 256))
    | temperatures(_temperature, ("",))
    | temperatures(_temperature, COUNTS),
    tensors=MODERN_BERT.tensors.without(*(row.row for row in CLASSES))
    | Table(
        (
            rule("token_types", "type_emb", ends=WEIGHT),
            rule("cls.norm", "scorer.0"),
            rule("cls", "scorer.1"),
            rule("cls.output", "scorer.3"),
            rule("blk.{l}.attn_norm", f"{HEAD}.norm1", variant="head"),
            rule("blk.{l}.attn_qkv", f"{HEAD}.self_attn.in_proj", variant="head"),
            rule("blk.{l}.attn_output", f"{HEAD}.self_attn.out_proj", variant="head"),
            rule("blk.{l}.ffn_norm", f"{HEAD}.norm2", variant="head"),
            rule("blk.{l}.ffn_up", f"{HEAD}.linear1", variant="head"),
            rule("blk.{l}.ffn_down", f"{HEAD}.linear2", variant="head"),
        )
    ),
    needs=(
        *MODERN_BERT.needs,
        "token_types",
        *affine("cls.norm", "cls", "cls.output"),
        # The head's blocks have biases, the encoder's none.
        optional(*(f"{part}.bias" for part in layer("attn_norm", "attn_qkv", "attn_output", *FORWARD))),
    ),
    vocab=(of_folder,),
    renames=(
        (r"^encoder\.", ""),
        *MODERN_BERT.renames,
        (r"^head\.layers\.(\d+)\.", _after_encoder),
        (r"\.in_proj_(weight|bias)$", r".in_proj.\1"),
    ),
    # What follows an answer, and a temperature of training; those that were fitted are in the settings.
    drop=(*BUFFERS, r"^act_head\.", r"^temperature$"),
    configure=configure,
)

ARCHS = (MODERN_BERT_DECISION,)
