"""How the output of a conversion is cut into shards. Knows tensors' sizes and where they came from, no model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gguf_forge.errors import RequestError
from gguf_forge.format.plan import Declared
from gguf_forge.format.shards import cut


@dataclass(frozen=True)
class Splitting:
    """Into which shards a model is written: by bounds, as convert_hf_to_gguf.py does, or as its source is (`keep`).

    `max_size`: bytes of tensors in a shard, without padding. `max_tensors`: tensors in a shard. A larger tensor has a
    shard to itself. `tensors_in_first`: False leaves the first shard, which has the metadata, without tensors. `keep`:
    each tensor goes into the shard that has the number of the one it was read from, as llama-quantize's --keep-split.
    A model that is not cut by this is one file under its plain name. Raises RequestError for bounds below 1, and for
    bounds beside `keep`.
    """

    max_size: int | None = None
    max_tensors: int | None = None
    tensors_in_first: bool = True
    keep: bool = False

    def __post_init__(self) -> None:
        for name, limit in (("max_size", self.max_size), ("max_tensors", self.max_tensors)):
            if limit is not None and limit < 1:
                raise RequestError(f"{name} is {limit}; at least 1 is needed")
        if self.keep and (self.bounded or not self.tensors_in_first):
            raise RequestError("shards are kept as they are, or bounded; not both")

    @property
    def bounded(self) -> bool:
        """Whether there is a bound."""
        return self.max_size is not None or self.max_tensors is not None

    def shards(self, tensors: Sequence[Declared], homes: Mapping[str, int]) -> list[list[Declared]]:
        """The tensors of each shard, in order.

        `homes`: the number, from 0, of the shard that each tensor was read from; what was not read goes with the one
        before it.
        """
        if self.keep:
            kept: list[list[Declared]] = [[] for _ in range(max(homes.values(), default=0) + 1)]
            home = 0
            for tensor in tensors:
                home = homes.get(tensor.name, home)
                kept[home].append(tensor)
            return kept
        sizes = [t.type.nbytes(t.shape) for t in tensors]
        parts = cut(sizes, self.max_size, self.max_tensors, self.tensors_in_first)
        return [[tensors[i] for i in part] for part in parts]
