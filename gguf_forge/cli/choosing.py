"""Options of `convert`, `quantize` and `recommend` that ask for a size, a memory or a quality instead of a recipe.

Reads words and prints nothing; which types are chosen is the package's business.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gguf_forge.cli.options import PATH, Command, Parsed

if TYPE_CHECKING:
    from gguf_forge.convert.files import Planned
    from gguf_forge.convert.job import Quantization
    from gguf_forge.quality.allocate import Allocation
    from gguf_forge.quality.choose import Choices
    from gguf_forge.quality.memory import Use
    from gguf_forge.quant.overrides import Override

#: Factors of the units of a size; "GB" are a thousand to the third, "GiB" and "G" 1024 to the third.
UNITS = {"": 1, "B": 1} | {f"{c}{i}": n**p for p, c in enumerate("KMGT", 1) for i, n in (("B", 1000), ("iB", 1024))}
UNITS |= {c: 1024**p for p, c in enumerate("KMGT", 1)}
#: The options' names, as click gives them.
NAMES = ("target_size", "target_bpw", "fit", "quality")


def read_size(word: str) -> int:
    """Bytes of a word such as 4.2GiB, 800M or 4200000000. Raises RequestError."""
    from gguf_forge.errors import RequestError

    match = re.fullmatch(r"\s*(\d{1,18}(?:\.\d{1,9})?)\s*([KMGT]?(?:i?B)?)\s*", word, re.IGNORECASE)
    unit = None if match is None else next((u for u in UNITS if u.lower() == match[2].lower()), None)
    if match is None or unit is None or float(match[1]) <= 0:
        raise RequestError(f"{word!r} is no size; such as 4.2GiB, 800MB or 4200000000")
    return int(float(match[1]) * UNITS[unit])


def _cache_type(word: str) -> Any:
    from gguf_forge.errors import RequestError
    from gguf_forge.types import tensor_type

    kind = tensor_type(word)
    if kind.name not in ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "IQ4_NL", "Q5_0", "Q5_1"):
        raise RequestError(f"{kind} is no type that llama.cpp has for the cache")
    return kind


def using(command: Command) -> Command:
    """Adds what says how a model is used, and what its tensors are judged by."""
    for option in reversed((
        click.option(
            "--context", type=click.IntRange(1, 1 << 30), default=8192, show_default=True, metavar="TOKENS",
            help="Context that memory is reckoned for.",
        ),
        click.option(
            "--kv-type", type=Parsed("type", _cache_type), default="f16", help="Type of the cache: f16, q8_0 ..."
        ),
        click.option(
            "--judge-text", type=PATH, multiple=True, metavar="FILE",
            help="Judge tensors by what the model answers to this text when each is made coarse; runs the model.",
        ),
    )):  # fmt: skip
        command = option(command)
    return command


def choosing(command: Command) -> Command:
    """Adds the options that choose types, and those of `using`."""
    command = using(command)
    for option in reversed((
        click.option(
            "--target-size", type=Parsed("size", read_size), help="The best types for a file of this size: 4.2GiB."
        ),
        click.option("--target-bpw", type=click.FloatRange(0.5, 32), help="The best types for so many bits a weight."),
        click.option(
            "--fit", type=Parsed("size", read_size), metavar="MEMORY",
            help="The best types that run in this memory, with the cache of --context.",
        ),
        click.option(
            "--quality", type=click.Choice(["max", "balanced", "small"]), help="The smallest file of this quality."
        ),
    )):  # fmt: skip
        command = option(command)
    return command


@dataclass(frozen=True)
class Asked:
    """What was asked for; `take` removes it from a command's options."""

    target_size: int | None
    target_bpw: float | None
    fit: int | None
    quality: str | None
    context: int
    kv_type: Any
    judge_text: tuple[Path, ...]

    @classmethod
    def take(cls, options: dict[str, Any], types: object = None) -> Asked:
        """From click's options. Raises click.UsageError for wishes that exclude each other, or types that are given."""
        asked = cls(**{name: options.pop(name, None) for name in cls.__dataclass_fields__})
        sizes = [name for name in ("target_size", "target_bpw") if getattr(asked, name) is not None]
        if len(sizes) > 1 or (sizes and (asked.fit or asked.quality)):
            raise click.UsageError("one of --target-size, --target-bpw, or --fit and --quality")
        if types and asked.chooses:
            raise click.UsageError("a type is given, and a size, a memory or a quality that would choose one")
        return asked

    @property
    def chooses(self) -> bool:
        """Whether types are to be chosen at all."""
        return any(getattr(self, name) is not None for name in NAMES)

    @property
    def use(self) -> Use:
        """How the model is used."""
        from gguf_forge.quality.memory import Use

        return Use(self.context, self.kv_type, self.kv_type)

    def allocation(self, found: Choices) -> Allocation:
        """The choice. RequestError where nothing on offer is so small."""
        from gguf_forge.errors import RequestError

        if self.target_size is not None:
            return found.under(self.target_size)
        if self.target_bpw is not None:
            return found.under(found.bytes_for_bpw(self.target_bpw))
        wished = found.for_quality(self.quality) if self.quality is not None else None
        if self.fit is None:
            assert wished is not None
            return wished
        room = self.fit - found.cache(self.use).nbytes - found.working(self.use)
        if room <= 0:
            raise RequestError(f"the context alone needs more than {self.fit} bytes: --context or --kv-type lowers it")
        return wished if wished is not None and found.bytes_of(wished) <= room else found.under(room)

    def choices(self, source: Path, plan: Callable[[str], Planned], how: Quantization, threads: int) -> Choices:
        """The types a model's tensors can get, judged as asked."""
        from gguf_forge.quality.judging import judge

        return judge(source, plan, how, self.judge_text, threads)

    def chosen(
        self, source: Path, plan: Callable[[str], Planned], how: Quantization, threads: int
    ) -> tuple[str, tuple[Override, ...]]:
        """The recipe whose name the file carries, and the type of each tensor."""
        found = self.choices(source, plan, how, threads)
        allocation = self.allocation(found)
        return found.recipe(allocation), found.overrides(allocation)
