"""The options that `convert` and `quantize` share, and what they mean in the package's terms. Reads no model.

The commands are made with `cls=Ordered`: of --tensor-type and --tensor-type-file the first match counts, as they stand
on the command line.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, TypeVar, cast

import click

from gguf_forge.system import processors

if TYPE_CHECKING:
    from gguf_forge.convert.imported import Prefer
    from gguf_forge.convert.job import Effort, Quantization
    from gguf_forge.format.values import Value
    from gguf_forge.quant.calibration import Calibration
    from gguf_forge.quant.imatrix import Imatrix
    from gguf_forge.quant.overrides import Override
    from gguf_forge.types import TensorType

    ParamType = click.ParamType[Any]
else:
    ParamType = click.ParamType

#: Where an Ordered command keeps the order of its options.
ORDER = "gguf_forge.order"
#: Options that name tensors' types.
TENSOR_TYPES = ("tensor_type", "tensor_type_file")

Command = TypeVar("Command", bound=Callable[..., Any])


@dataclass(frozen=True)
class Request:
    """What was asked for. types: as spelled. tensor_types: patterns, and files of them, in order; so is metadata."""

    types: tuple[str, ...]
    imatrix: Path | None
    include_weights: tuple[str, ...]
    exclude_weights: tuple[str, ...]
    pure: bool
    leave_output_tensor: bool
    output_tensor_type: TensorType | None
    token_embedding_type: TensorType | None
    tensor_types: tuple[Override | Path, ...]
    no_fallback: bool
    allow_nonfinite: bool
    metadata: dict[str, Value]
    threads: int
    no_overwrite: bool
    dry_run: bool
    prefer: str = "exact"
    require: str | None = None
    requantize: bool = False
    detect_grid: bool = False
    calibration: Path | None = None
    effort: str | None = None
    resume: bool = False
    part: tuple[int, int] | None = None
    device: str = "cpu"

    def running(self) -> dict[str, Any]:
        """How the work is done, under the names that `convert_checkpoint` and `quantize_file` have for it."""
        return {
            "dry_run": self.dry_run,
            "overwrite": not self.no_overwrite,
            "resume": self.resume,
            "part": self.part,
            "device": self.device,
        }

    def statistics(self) -> tuple[Imatrix | None, Calibration | None]:
        """The importance matrix, less what --include-weights and --exclude-weights leave out, and the calibration.

        The matrix is the calibration's where no other is asked for.
        """
        from gguf_forge.quant.calibration import Calibration
        from gguf_forge.quant.imatrix import load_imatrix

        calibration = None if self.calibration is None else Calibration.open(self.calibration)
        if self.imatrix is not None:
            found = load_imatrix(self.imatrix)
        elif calibration is not None:
            found = calibration.imatrix
        else:
            return None, None
        if self.include_weights:
            found = found.only(self.include_weights)
        if self.exclude_weights:
            found = found.without(self.exclude_weights)
        return found, calibration

    def quantization(
        self, source: Path, imatrix: Imatrix | None = None, calibration: Calibration | None = None
    ) -> Quantization:
        """What changes about the recipe, with `statistics`; source: the model that is quantized."""
        from gguf_forge.convert.job import Quantization
        from gguf_forge.quant.overrides import read_overrides

        overrides: list[Override] = []
        for given in self.tensor_types:
            overrides += read_overrides(given) if isinstance(given, Path) else [given]
        sequential = None
        if self.effort == "max":
            from gguf_forge.quality.sequential import Sequential

            sequential = Sequential(source)
        return Quantization(
            imatrix=imatrix,
            pure=self.pure,
            output_tensor_type=self.output_tensor_type,
            token_embedding_type=self.token_embedding_type,
            overrides=tuple(overrides),
            leave_output=self.leave_output_tensor,
            fallback=not self.no_fallback,
            allow_nonfinite=self.allow_nonfinite,
            prefer=cast("Prefer", self.prefer),
            require=cast("Literal['lossless', 'code-exact'] | None", self.require),
            requantize=self.requantize,
            detect_grid=self.detect_grid,
            calibration=calibration,
            effort=cast("Effort | None", self.effort),
            sequential=sequential,
        )


def request(types: Sequence[str], options: dict[str, Any]) -> Request:
    """From the options of `shared`. Raises click.UsageError for options that exclude each other."""
    if options["include_weights"] and options["exclude_weights"]:
        raise click.UsageError("--include-weights and --exclude-weights cannot be used together")
    return Request(types=tuple(types), tensor_types=tuple(_interleaved(options, TENSOR_TYPES)), **options)


class Ordered(click.Command):
    """A command that remembers, as `ctx.meta[ORDER]`, the names of its options as they stand on the command line."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click does, which keeps the values of each option in order, but not those of several."""
        ctx.meta[ORDER] = [parameter.name for parameter in self.make_parser(ctx).parse_args(list(args))[2]]
        return super().parse_args(ctx, args)


def _interleaved(options: dict[str, Any], names: Sequence[str]) -> Iterator[Any]:
    """Takes these repeatable options out of `options`: their values in the order of the command line."""
    values = {name: iter(options.pop(name)) for name in names}
    return (next(values[name]) for name in click.get_current_context().meta[ORDER] if name in values)


class NamedPath(click.Path):
    """A path of one character at least: Python takes an empty one for the current folder."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path; a usage error for an empty one."""
        if value == "":
            self.fail("an empty path", param, ctx)
        if isinstance(value, str) and value.lower().startswith(("http://", "https://", "hf://")):
            self.fail("no path but a URL, which inspect, check, diff and hash read", param, ctx)
        return super().convert(value, param, ctx)


class NamedFile(NamedPath):
    """The path of a file that is read, or its URL."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path, or a Location; a usage error for a URL that is none."""
        from gguf_forge.errors import ForgeError
        from gguf_forge.remote.location import Location, is_url, located

        if isinstance(value, Location):
            return value
        if not is_url(value):
            return super().convert(value, param, ctx)
        try:
            return located(value)
        except ForgeError as error:
            self.fail(str(error), param, ctx)


class OutputPath(NamedPath):
    """The path of a file or folder that is made, as it is written: a folder may end in a separator."""

    no_stream = "nothing is written to the standard output"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path; a usage error for `-`, which elsewhere stands for the standard output."""
        if value == "-":
            self.fail(f"{self.no_stream}; a file called - is ./-", param, ctx)
        return super().convert(value, param, ctx)


class PrefixPath(OutputPath):
    """What the names of a set's files begin with."""

    no_stream = "a set is several files, which do not go to one standard output"


class StreamablePath(NamedPath):
    """As OutputPath, of commands that write in order: `-` is the standard output."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path; a usage error for `-` where the standard output is a terminal."""
        if value == STREAM and sys.stdout.isatty():
            self.fail("a model is not written to a terminal; a file called - is ./-", param, ctx)
        return super().convert(value, param, ctx)


#: Stands for the standard output.
STREAM = "-"
#: What every argument and option that names a file or folder is: one that is read, one that is made, or streamed to.
PATH = NamedPath(path_type=Path)
#: What is read, local or not.
FILE = NamedFile(path_type=Path)
OUTPUT = OutputPath(path_type=str)
PREFIX = PrefixPath(path_type=str)
STREAMABLE = StreamablePath(path_type=str)


def destination(output: str | None, results: bool) -> str | BinaryIO | None:
    """Where an output of STREAMABLE goes. click.UsageError where other `results` would get between its bytes."""
    if output != STREAM:
        return output
    if results:
        raise click.UsageError("the file goes to the standard output: there is no place there for --json or --dry-run")
    return sys.stdout.buffer


class Parsed(ParamType):
    """A word that a function reads; what the package refuses about it is wrong usage."""

    def __init__(self, name: str, read: Callable[[str], Any]) -> None:
        self.name, self._read = name, read

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """What the word stands for; a default stays as it is."""
        from gguf_forge.errors import ForgeError

        if not isinstance(value, str):
            return value
        try:
            return self._read(value)
        except ForgeError as error:
            self.fail(str(error), param, ctx)


def _tensor_type(word: str) -> TensorType:
    from gguf_forge.types import tensor_type

    return tensor_type(word)


def _tensor_override(word: str) -> Override:
    from gguf_forge.quant.overrides import parse_override

    return parse_override(word)


def _key_and_value(word: str) -> tuple[str, Value]:
    from gguf_forge.convert.override import parse_override

    return parse_override(word)


def _part(word: str) -> tuple[int, int]:
    from gguf_forge.format.share import read_part

    return read_part(word)


def _recipe_names(word: str) -> tuple[str, ...]:
    return tuple(recipe_name(name.strip()) for name in word.split(","))


def recipe_name(name: str) -> str:
    """A recipe or outtype as the package spells it; also by a file type's number, as llama-quantize takes it.

    Case means something only where convert_hf_to_gguf.py and llama-quantize share a name but not a result: q8_0, tq1_0
    and tq2_0 in lower case are the converter's, in capitals the quantizer's. Raises RecipeError for an unknown one.
    """
    from gguf_forge.quant.outtype import OUTTYPES
    from gguf_forge.quant.recipe import recipe

    if name in OUTTYPES or name.lower() in {"auto", "f32", "f16", "bf16"}:
        return name.lower()
    if name.upper() == "COPY":
        return "COPY"
    return recipe(int(name) if name.isdecimal() else name).name


#: Recipes and outtypes, separated by commas, as `recipe_name` spells them.
RECIPES = Parsed("type[,type...]", _recipe_names)


def _layers(word: str) -> tuple[int, ...]:
    from gguf_forge.convert.prune import parse_layers

    return parse_layers(word)


#: Numbers of layers, as 3,5-8.
LAYERS = Parsed("layers", _layers)


def speaking(command: Command) -> Command:
    """Adds --quiet and --verbose."""
    for option in (
        click.option("-v", "--verbose", is_flag=True, help="Say more: a line for each tensor."),
        click.option("-q", "--quiet", is_flag=True, help="Say nothing but errors."),
    ):
        command = option(command)
    return command


def _device(word: str) -> str:
    from gguf_forge.quant.encoders import device_name

    return device_name(word)


#: Adds --device.
on_device = click.option(
    "--device", type=Parsed("cpu|cuda[:n]|auto", _device), default="cpu", show_default=True,
    help="What encodes blocks, to the same bytes: cuda, all GPUs; cuda:N, one; auto, GPUs if they can be used.",
)  # fmt: skip


def shared(command: Command) -> Command:
    """Adds the options of `Request`, in the order of the help page."""
    kind = Parsed("type", _tensor_type)
    for option in reversed(
        (
            click.option("--imatrix", type=PATH, help="Importance matrix (.gguf or .dat) of llama-imatrix."),
            click.option(
                "--calibration", type=PATH,
                help="What `calibrate` made: the importance matrix, and the covariances that rows are fitted against.",
            ),
            click.option(
                "--effort", type=click.Choice(["ref", "high", "max"]),
                help="ref: ggml's bytes. high: fitted to what each matrix computes; the default with --calibration."
                " max: layer after layer, by running the model (gguf-forge[run]); the best, and slow.",
            ),
            click.option("--include-weights", multiple=True, metavar="NAME", help="Use it for these tensors only."),
            click.option("--exclude-weights", multiple=True, metavar="NAME", help="Do not use it for these tensors."),
            click.option("--pure", is_flag=True, help="The recipe's main type for every tensor."),
            click.option("--output-tensor-type", type=kind, help="Type of output.weight."),
            click.option("--leave-output-tensor", is_flag=True, help="Keep output.weight's type."),
            click.option("--token-embedding-type", type=kind, help="Type of the token embeddings."),
            click.option(
                "--tensor-type", type=Parsed("regex=type", _tensor_override), multiple=True, metavar="REGEX=TYPE",
                help="Type of the tensors whose name has a match; repeatable, the first match counts.",
            ),
            click.option(
                "--tensor-type-file", type=PATH, multiple=True,
                help="A file of REGEX=TYPE, separated by space or new line, as if given here one by one.",
            ),
            click.option("--no-fallback", is_flag=True, help="Fail where a tensor's width forces another type."),
            click.option(
                "--allow-nonfinite", is_flag=True,
                help="Write NaNs and infinities where the type can hold them, instead of failing.",
            ),
            click.option(
                "--metadata", "--override-kv", type=Parsed("key=type:value", _key_and_value), multiple=True,
                metavar="KEY=TYPE:VALUE", callback=lambda ctx, param, value: dict(value),
                help="Set a metadata key; TYPE: str, bool, int, float, u8 ... i64, f32, f64, with [] an array as JSON.",
            ),
            click.option(
                "--threads", type=click.IntRange(min=1), default=processors, show_default="all cores",
                help="Threads that encode.",
            ),
            on_device,
            click.option("--no-overwrite", is_flag=True, help="Fail where the output exists, instead of replacing it."),
            click.option(
                "--resume", is_flag=True,
                help="Go on where an earlier run of the same command was cut off; the result is the same file.",
            ),
            click.option(
                "--part", type=Parsed("i/n", _part), metavar="I/N",
                help="Do share I of N, into OUTPUT.0000I-of-0000N.part; `gguf-forge join` puts all together.",
            ),
            click.option("--dry-run", is_flag=True, help="Print the plan with sizes and bits per weight, no more."),
        )
    ):  # fmt: skip
        command = option(command)
    return speaking(command)
