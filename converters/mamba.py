"""Mamba, Falcon-Mamba and Mamba-2 (Mamba-Codestral), and the rows of a Mamba-2 mixer, which hybrids have, too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gguf_forge.convert import vocab
from gguf_forge.convert.arch import WEIGHT, Arch, Hparam, Rule, Table, boolean, exact, f32, rule, u32
from gguf_forge.convert.config import block_count, first_of
from gguf_forge.convert.facts import Facts
from gguf_forge.convert.ops import NEG_EXP, SQUEEZE, Reshape, Verb, Views
from gguf_forge.convert.view import View
from gguf_forge.errors import ConversionError
from gguf_forge.source.checkpoint import Checkpoint

from .common import BUFFERS, FILE_TYPE, SILU, affine, layer

Number = Callable[[Facts], int]

MIXER = "backbone.layers.{l}.mixer"
#: States know no positions: the context is as long as one likes.
ENDLESS = u32("context_length", value=lambda facts: 1 << 20)
NO_HEADS = u32("attention.head_count", value=lambda facts: 0)
WIDTH = ("hidden_size", "d_model", "dim")
EPSILON = f32(
    "attention.layer_norm_rms_epsilon",
    value=lambda facts: first_of(facts.config, "layer_norm_epsilon", "rms_norm_eps") or 1e-5,
)


def given(*names: str, otherwise: Number) -> Number:
    """The first of these configuration keys; what follows from others where it is missing, null or zero."""

    def value(facts: Facts) -> int:
        return facts.number(*names) if first_of(facts.config, *names) else otherwise(facts)

    return value


def inner(*names: str) -> Number:
    """The width within a mixer: declared, or the model's times `expand`."""
    return given(*names, otherwise=lambda f: given("expand", otherwise=lambda _: 2)(f) * f.number(*WIDTH))


def time_steps(*names: str) -> Number:
    """The rank of Mamba's time steps: declared, or a sixteenth of the width, rounded up."""
    return given(*names, otherwise=lambda facts: -(facts.number(*WIDTH) // -16))


def constant(number: int) -> Number:
    """The same number always."""
    return lambda facts: number


def head(kernel: Number, size: Number, state: Number) -> Table[Hparam]:
    """The keys of a model whose every layer is a mixer, up to the size of its state."""
    return Table(
        (
            ENDLESS,
            u32("embedding_length", value=lambda facts: facts.number(*WIDTH)),
            u32("feed_forward_length", value=lambda facts: 0),
            NO_HEADS,
            u32("block_count", value=lambda facts: block_count(facts.config)),
            u32("ssm.conv_kernel", value=kernel),
            u32("ssm.inner_size", value=size),
            u32("ssm.state_size", value=state),
        )
    )


def selective(mixer: str) -> Table[Rule]:
    """The tensors of Mamba's first kind of mixer."""
    return Table(
        (
            exact("blk.{l}.ssm_a", f"{mixer}.A_log", verb=NEG_EXP),
            exact("blk.{l}.ssm_d", f"{mixer}.D"),
            rule("blk.{l}.ssm_conv1d", f"{mixer}.conv1d", verb=SQUEEZE),
            rule("blk.{l}.ssm_dt", f"{mixer}.dt_proj"),
            rule("blk.{l}.ssm_in", f"{mixer}.in_proj", ends=WEIGHT),
            rule("blk.{l}.ssm_x", f"{mixer}.x_proj", ends=WEIGHT),
            rule("blk.{l}.ssm_out", f"{mixer}.out_proj", ends=WEIGHT),
        )
    )


SELECTIVE = layer("ssm_a", "ssm_d", "ssm_in", "ssm_x", "ssm_out", *affine("ssm_conv1d", "ssm_dt"))

#: A number for each head, as a matrix of one column.
COLUMN = Reshape(lambda shape, _: (shape[0], 1))


def by_group(groups: Number) -> Reshape:
    """A norm's weights, a row for each group of heads."""

    def shape(old: tuple[int, ...], facts: Facts) -> tuple[int, int]:
        count = groups(facts)
        if count <= 0 or old[0] % count:
            raise ConversionError(f"{old[0]} weights of the mixer's norm cannot be divided into {count} groups")
        return count, old[0] // count

    return Reshape(shape)


def state_space(mixer: str, groups: Number) -> Table[Rule]:
    """The tensors of a Mamba-2 mixer."""
    return Table(
        (
            exact("blk.{l}.ssm_a", f"{mixer}.A_log", verb=NEG_EXP | COLUMN),
            exact("blk.{l}.ssm_d", f"{mixer}.D", verb=COLUMN),
            rule("blk.{l}.ssm_conv1d", f"{mixer}.conv1d", verb=SQUEEZE),
            exact("blk.{l}.ssm_dt.bias", f"{mixer}.dt_bias"),
            rule("blk.{l}.ssm_in", f"{mixer}.in_proj", ends=WEIGHT),
            rule("blk.{l}.ssm_norm", f"{mixer}.norm", ends=WEIGHT, verb=by_group(groups)),
            rule("blk.{l}.ssm_out", f"{mixer}.out_proj", ends=WEIGHT),
        )
    )


STATE = layer("ssm_a", "ssm_d", "ssm_conv1d", "ssm_dt.bias", "ssm_in", "ssm_out")
STATE_NORM = layer("ssm_norm")

EMBEDDING = ("backbone.embeddings", "backbone.embedding")


class OwnHead(Verb):
    """The head, or none where it is the embedding, stored once under both names."""

    def views(self, sources: Views, facts: Facts) -> list[View]:
        """The head as it is, or nothing."""
        return [] if any(facts.are_one("lm_head.weight", f"{name}.weight") for name in EMBEDDING) else [*sources]

    def undo(self, outputs: Views, like: Views, facts: Facts) -> list[View]:
        """The head as it was."""
        return [*outputs]


TRUNK: Table[Rule] = Table(
    (
        rule("token_embd", EMBEDDING, ends=WEIGHT),
        rule("output_norm", "backbone.norm_f", ends=WEIGHT),
        rule("output", "lm_head", ends=WEIGHT, verb=OwnHead()),
        rule("blk.{l}.attn_norm", "backbone.layers.{l}.norm", ends=WEIGHT),
    )
)
NEEDS = ("token_embd", "output_norm", *layer("attn_norm"))
#: Mamba-Codestral's own names.
RENAMES = ((r"^model\.(backbone|lm_head)\.", r"\1."),)


def _twice(facts: Facts) -> int:
    """The width within a mixer, of which llama.cpp asks that it is twice the model's."""
    size = given("intermediate_size", "d_inner", otherwise=lambda f: 2 * f.number(*WIDTH))(facts)
    if size != 2 * facts.number(*WIDTH):
        raise ConversionError(f"config.json: the width within a mixer must be twice the model's, got {size}")
    return size


def _pads(multiple: int) -> Callable[[vocab.VocabJob], int]:
    """To whole multiples of what the embedding is padded: by the authors' code only, which calls the width d_model."""
    return lambda job: (job.count("pad_vocab_size_multiple") or multiple) if "d_model" in job.config else 1


#: What the authors' code calls the sizes of a mixer, and what the table here does.
SIZES = {"d_state": "d_state", "d_conv": "d_conv", "expand": "expand", "ngroups": "n_groups", "headdim": "head_dim"}


def configure(checkpoint: Checkpoint) -> dict[str, Any] | None:
    """The configuration of the authors' own checkpoints, which names a kind of mixer rather than a class."""
    found = checkpoint.read_json("config.json") or {}
    mixer = found.get("ssm_cfg")
    if found.get("architectures") or not isinstance(mixer, dict):
        return None
    kind = str(mixer.get("layer", "Mamba1"))
    sizes = {name: mixer[own] for own, name in SIZES.items() if own in mixer}
    return {**found, **sizes, "architectures": [("Mamba" if kind == "Mamba1" else kind) + "ForCausalLM"]}


MAMBA = Arch(
    "mamba",
    hf=("MambaForCausalLM", "MambaLMHeadModel", "FalconMambaForCausalLM"),
    hparams=head(
        given("conv_kernel", "d_conv", otherwise=constant(4)),
        _twice,
        given("state_size", "d_state", otherwise=constant(16)),
    )
    | u32("ssm.time_step_rank", value=time_steps("time_step_rank", "dt_rank"))
    | EPSILON
    # Falcon-Mamba normalises time steps and states; there are no weights to it.
    | boolean("ssm.dt_b_c_rms", value=lambda facts: facts.config.get("model_type") == "falcon_mamba")
    | FILE_TYPE,
    tensors=TRUNK | selective(MIXER),
    needs=(*NEEDS, *SELECTIVE),
    vocab=(vocab.padded(_pads(8), vocab.bpe, vocab.spm, vocab.gpt_neox_default),),
    drop=BUFFERS,
    implied=SILU,
    configure=configure,
)

GROUPS = given("n_groups", otherwise=constant(1))
INNER = inner("intermediate_size", "d_inner")


def heads(size: Number, *names: str) -> Number:
    """How many heads a mixer of this width has, by the size of one."""

    def value(facts: Facts) -> int:
        one, width = given(*names, otherwise=constant(64))(facts), size(facts)
        if width % one:
            raise ConversionError(f"config.json: a mixer's width of {width} cannot be divided into heads of {one}")
        return width // one

    return value


MAMBA2 = Arch(
    "mamba2",
    hf=("Mamba2ForCausalLM",),
    hparams=head(
        given("conv_kernel", "d_conv", otherwise=constant(4)),
        INNER,
        given("state_size", "d_state", otherwise=constant(128)),
    )
    | u32("ssm.time_step_rank", value=heads(INNER, "head_dim"))
    | u32("ssm.group_count", value=GROUPS)
    | EPSILON
    | FILE_TYPE,
    tensors=TRUNK | state_space(MIXER, GROUPS),
    needs=(*NEEDS, *STATE, *STATE_NORM, *layer("ssm_conv1d.bias")),
    vocab=(vocab.padded(_pads(16), vocab.spm, vocab.bpe, vocab.gpt_neox_default),),
    renames=RENAMES,
    drop=BUFFERS,
    implied=SILU,
)

ARCHS = (MAMBA, MAMBA2)
