"""The vocabulary in which model families are written: rows of hyperparameters, rows of tensor rules, and their sum.

Frozen data, composed with `|` (later rows win, in the earlier row's place). Knows no family, no file, no weight.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from gguf_forge.convert.ops import COPY, Facts, Verb
from gguf_forge.errors import ConversionError
from gguf_forge.format.layout import ValueType


class Keyed(Protocol):
    """A row of a table."""

    @property
    def row(self) -> str:
        """What the row is known by within its table."""


K = TypeVar("K", bound=Keyed)


@dataclass(frozen=True)
class Table(Generic[K]):
    """An ordered set of rows. `a | b` has the rows of both; a row of `b` takes the place of its namesake in `a`."""

    rows: tuple[K, ...] = ()

    def __or__(self, other: Table[K] | K) -> Table[K]:
        merged = {r.row: r for r in self.rows}
        for row in other.rows if isinstance(other, Table) else (other,):
            merged[row.row] = row
        return Table(tuple(merged.values()))

    def without(self, *names: str) -> Table[K]:
        """The table less the rows of these names. ConversionError if one is not there."""
        missing = set(names) - {r.row for r in self.rows}
        if missing:
            raise ConversionError(f"no row named {', '.join(sorted(missing))} to leave out")
        return Table(tuple(r for r in self.rows if r.row not in names))

    def __iter__(self) -> Iterator[K]:
        return iter(self.rows)


@dataclass(frozen=True)
class Hparam:
    """One metadata key: `key` (under the architecture's name, unless it starts with "general." or "tokenizer."), its
    GGUF type, and where its value comes from: the first of `names` present in the configuration, or `value(facts)`.
    Two rows of one key are told apart by `variant`; the later one's value stands in the earlier one's place.

    A null value, or `value` giving None, means that the key is not written, unless `required` or a `default`
    (a constant, or a function of the facts) says otherwise.
    """

    key: str
    type: ValueType
    names: tuple[str, ...] = ()
    value: Callable[[Facts], Any] | None = None
    default: Any = None
    required: bool = False
    element: ValueType | None = None
    variant: str = ""

    @property
    def row(self) -> str:
        """Its key, and its variant where it has one."""
        return f"{self.key}/{self.variant}" if self.variant else self.key


def u32(key: str, *names: str, **kwargs: Any) -> Hparam:
    """A row of an unsigned number."""
    return Hparam(key, ValueType.UINT32, names, **kwargs)


def f32(key: str, *names: str, **kwargs: Any) -> Hparam:
    """A row of a float."""
    return Hparam(key, ValueType.FLOAT32, names, **kwargs)


def string(key: str, *names: str, **kwargs: Any) -> Hparam:
    """A row of a text."""
    return Hparam(key, ValueType.STRING, names, **kwargs)


def boolean(key: str, *names: str, **kwargs: Any) -> Hparam:
    """A row of a truth value."""
    return Hparam(key, ValueType.BOOL, names, **kwargs)


def strings(key: str, **kwargs: Any) -> Hparam:
    """A row of a list of texts."""
    return Hparam(key, ValueType.ARRAY, element=ValueType.STRING, **kwargs)


@dataclass(frozen=True)
class Rule:
    """One kind of output tensor and the source tensors it is made of.

    `out` and `sources` are templates over {l}, the layer, and (sources only) {e}, the expert. A rule whose names do
    not end in .weight or .bias stands for two, one of each ending. It is emitted for each layer where all its
    sources exist; two rules of one `out` are told apart by `variant`. Outputs of one `group` in one layer appear
    together, where the last source of any of them stands. With `every`, a rule that applies to one layer must apply
    to all: its absence is a hole in the checkpoint, not a property of the model. `when` limits a rule to some
    configurations.
    """

    out: str
    sources: tuple[str, ...]
    verb: Verb = COPY
    variant: str = ""
    group: str = ""
    every: bool = True
    when: Callable[[Facts], bool] | None = None

    @property
    def row(self) -> str:
        """Its output, and its variant where it has one."""
        return f"{self.out}/{self.variant}" if self.variant else self.out


def rule(
    out: str,
    *sources: str,
    verb: Verb = COPY,
    variant: str = "",
    group: str = "",
    every: bool = True,
    when: Callable[[Facts], bool] | None = None,
) -> Rule:
    """A row of the tensor table."""
    return Rule(out, sources, verb, variant, group, every, when)


@dataclass(frozen=True)
class Either:
    """Outputs that stand in for each other: a model, or each of its layers, needs all of one of the `choices`."""

    choices: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Arch:
    """A model architecture: how one kind of checkpoint becomes GGUF.

    `hf` are the class names of config.json's `architectures` it serves. `early` rows stand right after
    general.architecture, `hparams` after general.*. `renames` (pattern, replacement) bring source names to the form
    the rules use; `drop` patterns (regular expressions, searched in the stored name) are tensors left out on purpose.
    `needs` are the outputs without which no reader loads the file, those over {l} in each layer; a name without an
    ending is that of the weight. What they leave out (biases, a head of its own) may be missing.
    `vocab` are the tokenizer kinds to try. `implied` are configuration keys whose value GGUF's readers take for
    granted, with the values that mean it.
    """

    name: str
    hf: tuple[str, ...]
    hparams: Table[Hparam]
    tensors: Table[Rule]
    needs: tuple[str | Either, ...]
    vocab: tuple[str, ...]
    early: Table[Hparam] = field(default_factory=Table)
    renames: tuple[tuple[str, str], ...] = ()
    drop: tuple[str, ...] = ()
    experts: tuple[str, ...] = ("num_local_experts", "num_experts")
    implied: tuple[tuple[str, tuple[Any, ...]], ...] = ()
