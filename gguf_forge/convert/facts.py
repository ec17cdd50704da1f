"""What the tables may depend on besides tensors' rows: configuration, folder, headers, options, the layer at hand.

Knows no family, no verb and no rule.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from gguf_forge.convert.config import need
from gguf_forge.errors import ConversionError

LOOK_BYTES = 64 << 10
"""A tensor whose values decide a key or an output's presence has at most this many bytes."""


@dataclass(frozen=True)
class Options:
    """What a user may choose about the outputs of a conversion, beside their types.

    `mtp`: layers that predict further tokens are kept beside the model, left out, or all that is kept. `draft`: the
    architecture's draft model instead of the model. `base`: the folder of the model into which the checkpoint, an
    adapter, is merged. `target`: the folder of the model that a draft model serves.
    `mistral_format`: the folder is in Mistral's own layout (params.json). `community_template`: a chat template of
    Mistral's community stands in where the folder has none. `dense_modules`: the dense layers of
    sentence-transformers after the pooling become outputs. `fuse_gate_up`, `fuse_qkv`: one tensor for the gate and up
    projections of experts, or for queries, keys and values. `vocab_only`: metadata and vocabulary, no tensors.
    """

    mtp: Literal["keep", "drop", "only"] = "keep"
    draft: bool = False
    base: Path | None = None
    target: Path | None = None
    mistral_format: bool = False
    community_template: bool = True
    dense_modules: bool = False
    fuse_gate_up: bool = False
    fuse_qkv: bool = False
    vocab_only: bool = False


USUAL = Options()
"""Everything as the reference does without options."""


@dataclass(frozen=True)
class Header:
    """What a source's header says of a tensor: element type as its file names it, shape, and where its values begin:
    in which open file, and at which byte (None where no file is at hand).
    """

    dtype: str
    shape: tuple[int, ...]
    place: tuple[int, int] | None = None


Numbers = npt.NDArray[np.float32] | npt.NDArray[np.int64]


def _nothing_to_look_at(name: str) -> Numbers:
    raise ConversionError(f"the value of {name!r} is needed, but only headers are at hand")


@dataclass(frozen=True)
class Facts:
    """What verbs, conditions and hyperparameters may depend on.

    `config` is the resolved configuration, `directory` the folder. `headers` are the source tensors' by name, as the
    rules write names. `target` is the resolved configuration of the model that a draft model serves. `layer` is the
    layer a verb or condition is asked about (None outside of layers). `look` gives the values of one small source
    tensor that the architecture declares in `looks`: float32, or int64 of whole numbers.
    """

    config: Mapping[str, Any]
    directory: Path
    headers: Mapping[str, Header] = field(default_factory=dict)
    options: Options = USUAL
    target: Mapping[str, Any] | None = None
    layer: int | None = None
    look: Callable[[str], Numbers] = field(default=_nothing_to_look_at, compare=False)

    def at(self, layer: int | None) -> Facts:
        """The facts of one layer."""
        return self if layer == self.layer else replace(self, layer=layer)

    def has(self, name: str) -> bool:
        """Whether the checkpoint has a tensor of this name, as the rules write it; {l} stands for the layer."""
        return name.replace("{l}", str(self.layer)) in self.headers

    def are_one(self, first: str, second: str) -> bool:
        """Whether two tensors are the same values, stored once under both names."""
        one, other = self.headers.get(first), self.headers.get(second)
        return one is not None and one.place is not None and one == other

    def number(self, *names: str) -> int:
        """The first of these configuration keys that is not null, a whole number. ConversionError otherwise."""
        value = need(self.config, *names)
        if isinstance(value, bool) or not isinstance(value, int):
            name = next(n for n in names if self.config.get(n) is not None)
            raise ConversionError(f"config.json: {name} must be a whole number, got {value!r:.60}")
        return value
