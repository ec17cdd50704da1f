"""Outputs of a layer put together in one tensor, as a user may ask: queries, keys and values; gates and ups of experts.

Knows GGUF's names, and which architectures' readers take the one tensor for the several. Must not know families.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from gguf_forge.convert.facts import Facts
from gguf_forge.convert.ops import CONCAT, Rows, Verb
from gguf_forge.convert.view import View
from gguf_forge.errors import ConversionError

#: Architectures that read queries, keys and values together or apart (conversion/base.py, gguf-py: MODEL_TENSORS).
QKV = """
afmoe apertus arcee arctic baichuan bailingmoe bert chameleon chatglm clef cohere2 command-r deci deepseek
deepseek2-ocr dots1 dream ernie4_5 ernie4_5-moe eurobert exaone exaone-moe exaone4 falcon-h1 gemma gemma-embedding
gemma2 gemma3 gemma3n gemma4 glm4 glm4moe gpt-oss gptj granite granitehybrid granitemoe graniteswitch grok grovemoe
hunyuan-dense hunyuan-moe hunyuan_vl internlm2 jais2 jamba jina-bert-v2 kimi-linear lfm2 lfm2moe llada llada-moe
llama llama-embed llama4 maincoder mimo2 minicpm minimax-01 minimax-m2 mistral3 muse-glimmer nemotron nemotron_h
nemotron_h_moe olmo olmo2 olmoe orion paddleocr pangu-embedded phi2 phi3 phimoe plamo qwen2 qwen2moe qwen2vl qwen3
qwen35 qwen35moe qwen3moe qwen3next qwen3vl qwen3vlmoe qwen4exp refact rnd1 seed_oss smallthinker smollm3 stablelm
starcoder2 step35 xverse
"""
#: Those that read the gates and ups of experts together or apart.
GATE_UP = "cohere2moe deepseek2-ocr gemma4 granite_swa mistral4 qwen35moe qwen3next qwen4exp"

_PART = re.compile(r"blk\.(\d+)\.(attn_[qkv]|ffn_(?:gate|up)_exps)\.(weight|bias)")
_SIDE_BY_SIDE = Rows(lambda parts, _: np.concatenate(parts, axis=-1))


@dataclass(frozen=True)
class Fusion:
    """An output put together of others: `parts` are those, as they were planned."""

    name: str
    parts: tuple[View, ...]
    verb: Verb

    def view(self, facts: Facts) -> View:
        """The one output. ConversionError for parts that do not fit together."""
        (made,) = self.verb.views(self.parts, facts)
        return replace(made, name=self.name)

    def undo(self, whole: View, facts: Facts) -> dict[str, View]:
        """The parts again."""
        found = self.verb.undo([whole], self.parts, facts)
        return {part.name: replace(view, name=part.name) for part, view in zip(self.parts, found, strict=True)}


def fused(views: Sequence[View], alone: Collection[str], arch: str, facts: Facts) -> tuple[list[View], list[Fusion]]:
    """The outputs with those fused that the options ask for, each where the last of its parts stood.

    `alone` are outputs that nothing else was made with: queries, keys and values that the checkpoint itself holds
    together are taken apart for a reason. They are fused in the layers that have all three, with all biases or none.
    ConversionError when experts are to be fused that no reader of the architecture would find.
    """
    by_name = {view.name: view for view in views}
    fusions = [
        *(_fusions(_qkv(by_name, alone), by_name, CONCAT) if facts.options.fuse_qkv and arch in QKV.split() else ()),
        *(_fusions(_gate_up(by_name, arch), by_name, _SIDE_BY_SIDE) if facts.options.fuse_gate_up else ()),
    ]
    last = {part.name: i for i, part in enumerate(views)}
    places = {max(last[part.name] for part in fusion.parts): fusion for fusion in fusions}
    gone = {part.name for fusion in fusions for part in fusion.parts}
    made: list[View] = []
    for i, view in enumerate(views):
        if i in places:
            made.append(places[i].view(facts))
        elif view.name not in gone:
            made.append(view)
    return made, fusions


def _layers(by_name: Mapping[str, View], wanted: Callable[[str], bool]) -> dict[str, set[str]]:
    """The parts that layers have, "attn_q.weight" and so on, by what their names begin with."""
    found: dict[str, set[str]] = {}
    for name in by_name:
        match = _PART.fullmatch(name)
        if match is not None and wanted(name):
            found.setdefault(f"blk.{match[1]}", set()).add(f"{match[2]}.{match[3]}")
    return found


def _qkv(by_name: Mapping[str, View], alone: Collection[str]) -> dict[str, tuple[str, ...]]:
    weights, biases = (tuple(f"attn_{part}.{end}" for part in "qkv") for end in ("weight", "bias"))
    found = {}
    for where, parts in _layers(by_name, lambda name: name in alone).items():
        given = parts & set(biases)
        if set(weights) <= parts and (not given or given == set(biases)):
            for kind in (weights, biases) if given else (weights,):
                found[f"{where}.attn_qkv.{kind[0].rpartition('.')[2]}"] = tuple(f"{where}.{part}" for part in kind)
    return found


def _gate_up(by_name: Mapping[str, View], arch: str) -> dict[str, tuple[str, ...]]:
    both = ("ffn_gate_exps.weight", "ffn_up_exps.weight")
    layers = [where for where, parts in _layers(by_name, lambda _: True).items() if set(both) <= parts]
    if layers and arch not in GATE_UP.split():
        raise ConversionError(f"{arch} has no form in GGUF for gates and ups of experts in one tensor")
    return {f"{where}.ffn_gate_up_exps.weight": tuple(f"{where}.{part}" for part in both) for where in layers}


def _fusions(names: Mapping[str, tuple[str, ...]], by_name: Mapping[str, View], verb: Verb) -> list[Fusion]:
    return [Fusion(name, tuple(by_name[part] for part in parts), verb) for name, parts in names.items()]
