"""EAGLE-3's draft models: one layer of a Llama that guesses tokens from what three layers of its target computed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from gguf_forge.convert import vocab
from gguf_forge.convert.arch import Arch, array, boolean, exact, rule, u32
from gguf_forge.convert.config import need
from gguf_forge.convert.facts import Facts
from gguf_forge.errors import ConversionError
from gguf_forge.format.layout import ValueType

from .common import BUFFERS, GATED, QKV, SILU, WRAPPERS, layer
from .dflash import Absolute
from .llama import DENSE, KEYS

NAMES = ("LlamaForCausalLMEagle3", "Eagle3LlamaForCausalLM", "Eagle3Speculator", "Eagle3DraftModel")


def _of_target(key: str, value: Callable[[Facts, Any], Any]) -> Callable[[Facts], Any]:
    """What follows from a number of the target. ConversionError where no target is named."""

    def asked(facts: Facts) -> Any:
        if facts.target is None:
            raise ConversionError(
                f"{facts.directory}: EAGLE-3's draft models need the model that they draft for: name its folder with "
                "--target-model-dir"
            )
        return value(facts, need(facts.target, key))

    return asked


def _layers(facts: Facts, count: int) -> list[int]:
    """The layers of the target that the draft is given: those it names, or one early, one in the middle, one late."""
    named: list[int] | None = facts.config.get("eagle_aux_hidden_state_layer_ids")
    return named or [2, count // 2, count - 3]


def _width(facts: Facts, width: int) -> Any:
    named = facts.config.get("target_hidden_size")
    return width if named is None else named


def _is_draft(config: Mapping[str, Any]) -> bool:
    """Whether this is a draft model: by its class, or as a Llama of one layer with few tokens of its own."""
    if config["architectures"][0] in NAMES:
        return True
    return "draft_vocab_size" in config and config.get("num_hidden_layers") == 1


EAGLE3 = Arch(
    "eagle3",
    hf=(*NAMES, "LlamaForCausalLM"),
    hparams=KEYS
    | array("target_layers", ValueType.INT32, value=_of_target("num_hidden_layers", _layers), early=True)
    | u32("target_hidden_size", value=_of_target("hidden_size", _width), early=True)
    | boolean("norm_before_residual", "norm_before_residual", default=False, early=True)
    | boolean("norm_before_fc", "norm_before_fc", default=False, early=True),
    tensors=DENSE
    | rule("fc", "fc")
    | rule("enc.output_norm", "input_norm")
    | rule("blk.{l}.attn_norm_2", "model.layers.{l}.hidden_norm")
    | exact("d2t", "d2t", verb=Absolute(), type="I64", last=True),
    # Embedding and head may be the target's.
    needs=(
        "fc",
        "output_norm",
        *layer("attn_norm", "attn_norm_2", "attn_output", "ffn_norm"),
        *QKV,
        *GATED,
    ),
    vocab=(vocab.of_target,),
    renames=((r"^midlayer\.", "model.layers.0."), *WRAPPERS),
    # Which of the target's tokens are the draft's follows from d2t.
    drop=(*BUFFERS, r"^t2d$"),
    implied=SILU,
    when=_is_draft,
)

ARCHS = (EAGLE3,)
