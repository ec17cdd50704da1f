"""The command line: the commands' group, and how a run ends. Knows exit codes; must not know files.

Exit codes: 0 done, also when the reader of the results leaves early; 1 bad input or a failed write (one line on
stderr), 2 wrong usage, 128 and the signal's number for one that ended the run: 130 interrupted, 143 terminated. A
command may have others of its own (`check`).
"""

from __future__ import annotations

import importlib
import io
import os
import sys
from collections.abc import Sequence

import click

from gguf_forge.cli.terminal import hang_up, say
from gguf_forge.errors import ForgeError, RequestError, printable
from gguf_forge.signals import Ended
from gguf_forge.system import reader_left

#: Name of a command to the module whose `command` it is. Imported when asked for: starting up stays cheap.
COMMANDS = {
    "convert": "gguf_forge.cli.convert",
    "quantize": "gguf_forge.cli.quantize",
    "imatrix": "gguf_forge.cli.imatrix",
    "calibrate": "gguf_forge.cli.calibrate",
    "evaluate": "gguf_forge.cli.evaluate",
    "inspect": "gguf_forge.cli.inspect",
    "check": "gguf_forge.cli.check",
    "verify": "gguf_forge.cli.verify",
    "manifest": "gguf_forge.cli.manifest",
    "split": "gguf_forge.cli.split",
    "merge": "gguf_forge.cli.merge",
    "join": "gguf_forge.cli.join",
    "extract": "gguf_forge.cli.extract",
    "edit": "gguf_forge.cli.edit",
    "diff": "gguf_forge.cli.diff",
    "hash": "gguf_forge.cli.hash",
    "roundtrip": "gguf_forge.cli.roundtrip",
    "recommend": "gguf_forge.cli.recommend",
    "types": "gguf_forge.cli.types",
    "architectures": "gguf_forge.cli.architectures",
    "doctor": "gguf_forge.cli.doctor",
}
BAD_INPUT, WRONG_USAGE = 1, 2


class Commands(click.Group):
    """The group of COMMANDS."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order of a day's work."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of a name, imported now."""
        if cmd_name not in COMMANDS:
            return None
        found = importlib.import_module(COMMANDS[cmd_name]).command
        assert isinstance(found, click.Command)
        return found


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="gguf-forge", message="%(prog)s %(version)s")
def cli() -> None:
    """Make, read, check and change .gguf files."""


def main(args: Sequence[str] | None = None) -> int:
    """Runs the command line (`args`: without the program's name) and returns the exit code. Prints every error."""
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115 - closed by who started us
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a name the terminal's encoding lacks is shown as an escape
    try:
        with cli.make_context("gguf-forge", list(sys.argv[1:] if args is None else args)) as context:
            cli.invoke(context)
        sys.stdout.flush()
        return 0
    except click.exceptions.Exit as end:
        return end.exit_code
    except click.ClickException as error:
        page = io.StringIO()
        error.show(page)
        say(page.getvalue().rstrip("\n"))
        return WRONG_USAGE if isinstance(error, click.UsageError) else BAD_INPUT
    except KeyboardInterrupt as error:
        ended = error if isinstance(error, Ended) else Ended()
        return _ended(_with_notes(ended.word, error), ended.exit_code)
    except OSError as error:
        if not reader_left(error):
            return _ended(described(error), BAD_INPUT)
        # `| head`: the reader of the results has seen enough. Only results go to stdout, so nothing is left undone.
        hang_up(sys.stdout)
        return 0
    except (ForgeError, MemoryError) as error:
        code = WRONG_USAGE if isinstance(error, RequestError) else BAD_INPUT
        return _ended(_with_notes(described(error), error), code)
    except Exception as error:
        # The last line of defence: whatever a file made us do, its reader sees one line and not a page.
        if os.environ.get("GGUF_FORGE_DEBUG"):
            raise
        text = f"defect: {type(error).__name__}: {error} (GGUF_FORGE_DEBUG=1 shows where; please report it)"
        return _ended(text, BAD_INPUT)


def described(error: BaseException) -> str:
    """An error in one line, without its class."""
    if isinstance(error, OSError) and error.strerror:
        names = [os.fsdecode(n) for n in (error.filename, error.filename2) if isinstance(n, (str, bytes))]
        return ": ".join([*names, error.strerror])
    if isinstance(error, MemoryError):
        return f"out of memory{f': {error}' if str(error) else ''}"
    return str(error)


def _with_notes(message: str, error: BaseException) -> str:
    """The message, and what else there is to be known of the error, in one line."""
    return "; ".join([message, *getattr(error, "__notes__", ())])


def _ended(message: str, code: int) -> int:
    say(f"gguf-forge: {printable(message)}")
    return code
