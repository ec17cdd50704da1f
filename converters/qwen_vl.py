"""The text models of Qwen2-VL, Qwen2.5-VL and -Omni, of Qwen3-VL (dense and mixture), Qwen3-Omni and Qwen3-ASR."""

from __future__ import annotations

from dataclasses import replace

from gguf_forge.convert import vocab
from gguf_forge.convert.arch import Arch, Rule, Table, exact, u32
from gguf_forge.convert.facts import Facts
from gguf_forge.convert.ops import COPY, TRANSPOSE
from gguf_forge.convert.rows import equal_parts

from .common import BASE, DECODER, GATED, MIXTURE, QK_NORM, QK_NORMS, QKV, SILU, TRUNK, WRAPPERS
from .qwen import DROP, MOE_KEYS, QWEN3, SPARSE, fused, sections

RENAMES = ((r"\bthinker\.", ""), *WRAPPERS)


def _depth(facts: Facts) -> int:
    """How many of the first layers are given more of an image than its embedding."""
    seen = (facts.config.get("thinker_config") or facts.config).get("vision_config") or {}
    return len(seen.get("deepstack_visual_indexes") or ())


def _thirds(facts: Facts) -> list[int] | None:
    """Sections that turn as if there were none, for a configuration that has none: llama.cpp needs some.

    It deals pairs out to time, height and width in turns, which of text and sound are the same; but what is beyond
    three times a section goes to a fourth axis, on which all stand at 0.
    """
    if "mrope_section" in facts.config["rope_parameters"]:
        return None
    third = -(-facts.number("head_dim") // 6)
    return [third, third, third, 0]


SECTIONS = sections(24, 20, 20)
DEEPSTACK = u32("n_deepstack_layers", value=_depth)
FLAT = u32("n_deepstack_layers", value=lambda facts: 0)

def _turned(facts: Facts) -> bool:
    """Whether experts count what goes in by rows, as published models do; those that transformers 5 makes do not."""
    names = [name.format(l=facts.layer) for name in fused("down_proj")]
    shape = facts.number("moe_intermediate_size"), facts.number("hidden_size")
    return all(facts.headers[name].shape[-2:] == shape for name in names if name in facts.headers)


#: Experts together as one tensor a layer, each turned or not.
FUSED_EXPERTS: Table[Rule] = Table(
    tuple(
        exact(out, fused(source), verb=verb, when=when, variant=variant)
        for variant, when, turn in (("turned", _turned, TRANSPOSE), ("upright", lambda facts: not _turned(facts), COPY))
        for out, source, verb in (
            ("blk.{l}.ffn_down_exps.weight", "down_proj", turn),
            (("blk.{l}.ffn_gate_exps.weight", "blk.{l}.ffn_up_exps.weight"), "gate_up_proj", turn | equal_parts(2)),
        )
    )
)


@vocab.step
def im_end_wraps(job: vocab.VocabJob) -> vocab.Changes:
    """The end of a turn as the token that begins and ends texts, where tokenizer_config.json lists it."""
    listed = (vocab.config_entries(job.folder) or {}).items()
    number = next((number for number, entry in listed if vocab.text_of(entry) == "<|im_end|>"), None)
    return {} if number is None else vocab.ids(bos=number, eos=number)(job) or {}


#: How a chat is written down; the template that comes with Qwen3-ASR is for its own library.
CHATML = vocab.template(
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' "
    "+ '\\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)

QWEN2_VL = Arch(
    "qwen2vl",
    hf=("Qwen2VLForConditionalGeneration", "Qwen2VLModel", "Qwen2_5_VLForConditionalGeneration", "Qwen2_5OmniModel"),
    hparams=BASE | sections(16, 24, 24),
    tensors=DECODER,
    needs=(*TRUNK, *QKV, *GATED),
    vocab=(vocab.spm, vocab.bpe),
    renames=RENAMES,
    drop=DROP,
    implied=SILU,
)
QWEN3_VL = replace(
    QWEN3,
    name="qwen3vl",
    hf=("Qwen3VLForConditionalGeneration",),
    hparams=QWEN3.hparams | SECTIONS | DEEPSTACK,
    vocab=(vocab.spm, vocab.bpe),
    renames=RENAMES,
)
QWEN3_ASR = replace(
    QWEN3_VL,
    hf=("Qwen3ASRForConditionalGeneration",),
    hparams=BASE | u32("rope.dimension_sections", value=_thirds, again=True) | FLAT,
    tensors=DECODER | QK_NORM,
    vocab=(vocab.spm, vocab.bpe, CHATML, im_end_wraps),
)
QWEN3_VL_MOE = Arch(
    "qwen3vlmoe",
    hf=("Qwen3VLMoeForConditionalGeneration",),
    hparams=MOE_KEYS | SECTIONS | DEEPSTACK,
    tensors=SPARSE | FUSED_EXPERTS,
    needs=(*TRUNK, *QKV, *QK_NORMS, *MIXTURE),
    vocab=(vocab.bpe,),
    renames=RENAMES,
    drop=DROP,
    implied=(*SILU, ("norm_topk_prob", (True,))),
)
QWEN3_OMNI = replace(
    QWEN3_VL_MOE,
    hf=("Qwen3OmniMoeForConditionalGeneration",),
    hparams=MOE_KEYS | SECTIONS | FLAT,
    tensors=SPARSE,
    vocab=(vocab.bpe, im_end_wraps),
)

ARCHS = (QWEN2_VL, QWEN3_VL, QWEN3_ASR, QWEN3_VL_MOE, QWEN3_OMNI)
