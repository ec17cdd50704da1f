"""The vocabulary in which model families are written: rows of hyperparameters, rows of tensor rules, and their sum.

Frozen data, composed with `|` (later rows win, in the earlier row's place). Knows no family, no file, no weight.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from gguf_forge.convert.config import block_count
from gguf_forge.convert.facts import Facts
from gguf_forge.convert.ops import COPY, Verb
from gguf_forge.convert.sizes import Shape
from gguf_forge.convert.view import View
from gguf_forge.convert.vocab.job import Part
from gguf_forge.errors import ConversionError
from gguf_forge.format.layout import ValueType
from gguf_forge.source.checkpoint import Checkpoint

#: What keys begin with that do not stand under the architecture's name.
ABSOLUTE = ("general.", "tokenizer.", "diffusion.", "xielu.", "adapter.")


class Keyed(Protocol):
    """A row of a table."""

    @property
    def row(self) -> str:
        """What the row is known by within its table."""

    @property
    def again(self) -> bool:
        """Whether it stands beside an earlier row of its name rather than in its place."""


K = TypeVar("K", bound=Keyed)


@dataclass(frozen=True)
class Table(Generic[K]):
    """An ordered set of rows. `a | b` has the rows of both; a row of `b` takes the place of its namesake in `a`."""

    rows: tuple[K, ...] = ()

    def __or__(self, other: Table[K] | K) -> Table[K]:
        merged = list(self.rows)
        places = {r.row: i for i, r in enumerate(merged)}
        for row in other.rows if isinstance(other, Table) else (other,):
            if row.again or row.row not in places:
                places.setdefault(row.row, len(merged))
                merged.append(row)
            else:
                merged[places[row.row]] = row
        return Table(tuple(merged))

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
    """One metadata key: `key` (under the architecture's name, unless it starts with one of `ABSOLUTE`), its GGUF type,
    and where its value comes from: the first of `names` present in the configuration, or `value(facts)`.

    A null value, or `value` giving None, means that the key is not written, unless `required` or a `default`
    (a constant, or a function of the facts) says otherwise. A row that comes `again` stands beside an earlier one of
    its key: where both have a value, its value is written in the earlier one's place. An `early` row is written right
    after general.architecture.
    """

    key: str
    type: ValueType
    names: tuple[str, ...] = ()
    value: Callable[[Facts], Any] | None = None
    default: Any = None
    required: bool = False
    element: ValueType | None = None
    again: bool = False
    early: bool = False

    absolute: ClassVar[tuple[str, ...]] = ABSOLUTE

    @property
    def row(self) -> str:
        """Its key."""
        return self.key


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


def i32(key: str, *names: str, **kwargs: Any) -> Hparam:
    """A row of a signed number."""
    return Hparam(key, ValueType.INT32, names, **kwargs)


def array(key: str, element: ValueType, *names: str, **kwargs: Any) -> Hparam:
    """A row of a list of elements of one type, whatever its length."""
    return Hparam(key, ValueType.ARRAY, names, element=element, **kwargs)


def strings(key: str, *names: str, **kwargs: Any) -> Hparam:
    """A row of a list of texts."""
    return array(key, ValueType.STRING, *names, **kwargs)


#: Endings of the tensors that a row stands for.
BOTH = (".weight", ".bias")
WEIGHT = (".weight",)
BIAS = (".bias",)
#: Outputs of rules that come `first` under it keep the order of their sources.
AS_READ = -1

Source = str | tuple[str, ...]
"""The name of a source tensor, or names of which the first that is there counts."""


@dataclass(frozen=True)
class Rule:
    """One kind of source tensor, or several, and the output tensor, or tensors, made of it.

    `out` and `sources` are templates over the architecture's axes: {l}, the layer, {e}, the expert, and others it
    declares. A rule is emitted for each number of the axes in `out` for which all its sources exist; an axis that only
    sources have is gathered: all its numbers must be there, and the verb is given them in order. Each of `ends` is
    added to every name, and stands for a rule of its own. Two rules of one output are told apart by `variant`. Outputs
    of one `group` in one layer appear together, where the last source of any of them stands; those that come `first`
    stand before all others, a higher number before a lower one, or (AS_READ) in the order of their sources, the `last`
    behind all others. `when` limits a rule to some configurations, or layers (`facts.layer`). `type` is the GGUF type
    that the converter's outtypes store it in whatever they are, or a function of the sources that says so; True means
    the outtype's even where F32 is usual. `caution` says what readers compute otherwise than the model where the rule
    is used.
    """

    out: tuple[str, ...]
    sources: tuple[Source, ...]
    verb: Verb = COPY
    ends: tuple[str, ...] = BOTH
    variant: str = ""
    group: str = ""
    when: Callable[[Facts], bool] | None = None
    type: str | bool | Callable[[Sequence[View]], str | bool] = False
    first: int = 0
    last: bool = False
    caution: str = ""
    again: bool = field(default=False, init=False)

    @property
    def row(self) -> str:
        """Its outputs, and its variant where it has one."""
        name = "+".join(self.out)
        return f"{name}/{self.variant}" if self.variant else name

    @property
    def names(self) -> tuple[str, ...]:
        """The names its sources may have, without `ends`."""
        return tuple(n for source in self.sources for n in ((source,) if isinstance(source, str) else source))

    def expanded(self) -> Iterator[Rule]:
        """A rule for each ending, with every name complete."""
        for end in self.ends:
            sources = tuple(
                tuple(name + end for name in source) if isinstance(source, tuple) else source + end
                for source in self.sources
            )
            yield replace(self, out=tuple(out + end for out in self.out), sources=sources, ends=("",))


def rule(out: str | tuple[str, ...], *sources: Source, **kwargs: Any) -> Rule:
    """A row of the tensor table, whose names lack the ending: by default it stands for a weight and its bias.

    A name that already ends so is a mistake (ConversionError): it is a row of `exact`.
    """
    made = Rule((out,) if isinstance(out, str) else out, sources, **kwargs)
    for name in (*made.out, *made.names):
        if made.ends != ("",) and name.endswith(BOTH):
            raise ConversionError(f"rule {made.row}: {name} has its ending already")
    return made


def exact(out: str | tuple[str, ...], *sources: Source, **kwargs: Any) -> Rule:
    """A row of the tensor table with names as they stand."""
    return rule(out, *sources, ends=("",), **kwargs)


@dataclass(frozen=True)
class Either:
    """Outputs that stand in for each other: a model, or each of its layers, needs all of one of the `choices`.

    An empty choice says that the others may be missing. Layers in which the same choices hold are of one kind, and
    what one layer of a kind has beyond its needs, all of that kind have.
    """

    choices: tuple[tuple[str, ...], ...]


def optional(*outputs: str) -> Either:
    """Outputs that a model, or any of its layers, has all or none of."""
    return Either((outputs, ()))


@dataclass(frozen=True)
class Axis:
    """Something that names of tensors count: layers, experts, heads. `span(facts)` says how many, or which."""

    span: Callable[[Facts], int | range]

    def numbers(self, facts: Facts) -> range:
        """The numbers it has."""
        found = self.span(facts)
        return found if isinstance(found, range) else range(found)


@dataclass(frozen=True)
class Drop:
    """Source tensors left out on purpose: those whose name has the `pattern`, if `when(match, facts)` holds.

    `loss` says what a reader of the file computes otherwise than the model because of it, where it does.
    """

    pattern: str
    when: Callable[[re.Match[str], Facts], bool]
    loss: str = ""


def lost(pattern: str, loss: str) -> Drop:
    """Tensors for which GGUF's readers have no place though the model uses them; `loss` says what follows."""
    return Drop(pattern, lambda _match, _facts: True, loss)


Replacement = str | Callable[[re.Match[str], Facts], str]


def _experts(facts: Facts) -> int:
    names = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
    try:
        return facts.number(*names)
    except ConversionError as error:
        raise ConversionError(f"config.json does not say how many experts there are: {error.text}") from None


LAYERS = Axis(lambda facts: block_count(facts.config))
EXPERTS = Axis(_experts)


@dataclass(frozen=True, eq=False)
class Arch:
    """A model architecture: how one kind of checkpoint becomes GGUF.

    `hf` are the class names of config.json's `architectures` it serves; where several serve one name, the first whose
    `when(config)` holds does. `whole` are classes among them, of models in parts, that say more of the text model than
    the class that its own part names. `hparams` stand after general.*, those marked `early` right after
    general.architecture. `renames` (pattern, replacement) bring source names to the form the rules use. `drop` patterns
    (regular expressions, searched in the stored and in the renamed name) are tensors left out on purpose. `axes` are
    what names count, by the letter that stands for it. `needs` are the outputs without which no reader loads the file,
    those over an axis for each of its numbers; a name without an ending is that of the weight. What they leave out
    (biases, a head of its own) may be missing. `vocab` are the steps that make the tokenizer keys. `implied` are
    configuration keys whose value GGUF's readers take for granted, with the values that mean it (or a function of the
    configuration that says which). `looks` are the small source tensors whose values decide something. `shapes` are
    rows of outputs' shapes that llama.cpp's loaders do not give, or that stand in their place. `mtp` says that the
    model's layers that predict further tokens can be left out or kept alone, `draft` that it is the draft model of
    another; `beside` are the class names of checkpoints that hold it beside a model of their own. `configure` makes the
    configuration of a checkpoint that tells what it is by its tensors, or by files beside them, rather than by the
    class that config.json names; None of any other checkpoint.
    """

    name: str
    hf: tuple[str, ...]
    hparams: Table[Hparam]
    tensors: Table[Rule]
    needs: tuple[str | Either, ...]
    vocab: tuple[Part, ...]
    renames: tuple[tuple[str, Replacement], ...] = ()
    drop: tuple[str | Drop, ...] = ()
    axes: Mapping[str, Axis] = field(default_factory=lambda: {"l": LAYERS, "e": EXPERTS})
    implied: tuple[tuple[str, tuple[Any, ...] | Callable[[Mapping[str, Any]], tuple[Any, ...]]], ...] = ()
    when: Callable[[Mapping[str, Any]], bool] | None = None
    whole: tuple[str, ...] = ()
    looks: tuple[str, ...] = ()
    shapes: Mapping[str, Shape] = field(default_factory=dict)
    mtp: bool = False
    draft: bool = False
    beside: tuple[str, ...] = ()
    configure: Callable[[Checkpoint], dict[str, Any] | None] | None = None

    @property
    def covered(self) -> tuple[str, ...]:
        """What of a checkpoint becomes a file: the model, and its layers that predict further tokens."""
        return ("draft model" if self.draft else "text", *(("multi-token prediction",) if self.mtp else ()))


@dataclass(frozen=True)
class Elsewhere:
    """A class whose checkpoints have no text model: it lies in a repository that config.json names.

    `held` is what they do have, in words; `text` a regular expression for tensors of a text model that may be there all
    the same; `named_by` are paths of keys in config.json, of which one names the repository.
    """

    hf: str
    held: str
    text: str
    named_by: tuple[tuple[str, ...], ...]
