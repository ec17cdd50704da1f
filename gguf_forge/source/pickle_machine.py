"""Pickle as data: a small machine that builds plain containers and inert marks, and calls nothing.

Knows the opcodes a saved dictionary of tensors needs; must not import, look up or call anything a pickle names. A name
outside the list the caller gives, or an opcode that could run code, ends the reading with UnsafeInputError.
"""

from __future__ import annotations

import io
import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gguf_forge.errors import FormatError, InvalidError, LimitError, UnsafeInputError

#: Steps of one pickle; a tensor takes about 50.
MAX_STEPS = 5_000_000

#: What takes the place of a call: arguments to a plain value.
Rebuild = Callable[..., object]


@dataclass(frozen=True)
class Name:
    """A module-level name a pickle mentions; never resolved."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


def shown(value: object) -> str:
    """A value for an error message. Containers only by their type: they may be too deep or too large to print."""
    if isinstance(value, int) and value.bit_length() > 128:
        return f"an int of {value.bit_length()} bits"
    return f"{value!r:.80}" if isinstance(value, (str, bytes, int, float, Name)) else f"a {type(value).__name__}"


class _Mark:
    """Where a run of items begins on the stack."""


_MARK = _Mark()

_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_EMPTY: dict[str, Callable[[], Any]] = {"EMPTY_LIST": list, "EMPTY_DICT": dict}
_PUSH_ARGUMENT = frozenset(
    {
        *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
        *("STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
        *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    }
)
_PUT = frozenset({"PUT", "BINPUT", "LONG_BINPUT"})
_GET = frozenset({"GET", "BINGET", "LONG_BINGET"})
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_KEYS = (str, int, float, bytes, type(None))


class PickleMachine:
    """Reads one pickle. `rebuild` maps each allowed name to what builds its value, `persistent` builds storages."""

    def __init__(self, path: Path, rebuild: Mapping[Name, Rebuild], persistent: Callable[[object], object]) -> None:
        self._path = path
        self._rebuild = rebuild
        self._persistent = persistent
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def load(self, stream: io.BytesIO) -> Any:
        """The value of the pickle at the stream's place, which is left behind its end.

        Raises FormatError for a damaged pickle, LimitError for one too long, UnsafeInputError for one that wants code.
        """
        try:
            for steps, (opcode, argument, place) in enumerate(pickletools.genops(stream)):
                if steps > MAX_STEPS:
                    raise LimitError(f"pickle longer than the limit of {MAX_STEPS} steps", path=self._path)
                self._step(opcode.name, argument, place)
        except (IndexError, KeyError, TypeError, OverflowError) as error:
            raise FormatError(f"damaged pickle: {type(error).__name__} {error!s:.80}", path=self._path) from None
        except RecursionError:
            raise LimitError("pickle nested too deep", path=self._path) from None
        except ValueError as error:
            raise FormatError(f"damaged pickle: {error!s:.120}", path=self._path) from None
        if len(self._stack) != 1:
            raise FormatError(f"pickle ends with {len(self._stack)} values", path=self._path)
        return self._stack.pop()

    def _step(self, opcode: str, argument: Any, place: int | None) -> None:
        stack = self._stack
        if opcode in _PUSH_ARGUMENT:
            stack.append(argument)
        elif opcode in _PUT:
            self._memo[argument] = stack[-1]
        elif opcode in _GET:
            stack.append(self._memo[argument])
        elif opcode in _CONSTANTS:
            stack.append(_CONSTANTS[opcode])
        elif opcode in _EMPTY:
            stack.append(_EMPTY[opcode]())
        elif opcode in _TUPLES:
            count = _TUPLES[opcode]
            stack[-count:] = [tuple(stack[-count:])]
        elif opcode == "MARK":
            stack.append(_MARK)
        elif opcode == "MEMOIZE":
            self._memo[len(self._memo)] = stack[-1]
        elif opcode in {"PROTO", "FRAME", "STOP"}:
            pass
        elif not self._container(opcode) and not self._named(opcode, argument):
            raise UnsafeInputError(
                f"pickle offset {place}: opcode {opcode} is not read, nothing was run", path=self._path
            )

    def _items(self) -> list[Any]:
        """Remove and return what lies above the last mark."""
        at = len(self._stack) - 1
        while self._stack[at] is not _MARK:
            at -= 1
            if at < 0:
                raise ValueError("no mark on the stack")
        items = self._stack[at + 1 :]
        del self._stack[at:]
        return items

    def _container(self, opcode: str) -> bool:
        stack = self._stack
        if opcode == "TUPLE":
            stack.append(tuple(self._items()))
        elif opcode == "LIST":
            stack.append(self._items())
        elif opcode == "DICT":
            items = self._items()
            stack.append({})
            self._set_items(items)
        elif opcode == "SETITEM":
            items = [stack.pop(-2), stack.pop()]
            self._set_items(items)
        elif opcode == "SETITEMS":
            self._set_items(self._items())
        elif opcode == "APPEND":
            self._extend([stack.pop()])
        elif opcode == "APPENDS":
            self._extend(self._items())
        elif opcode == "POP":
            stack.pop()
        elif opcode == "POP_MARK":
            self._items()
        elif opcode == "DUP":
            stack.append(stack[-1])
        else:
            return False
        return True

    def _set_items(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if not isinstance(target, dict) or len(items) % 2:
            raise ValueError("items are set on what is not a dictionary")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, _KEYS):
                raise InvalidError(f"dictionary key of type {type(key).__name__}", path=self._path)
            target[key] = value

    def _extend(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if not isinstance(target, list):
            raise ValueError("items are appended to what is not a list")
        target.extend(items)

    def _named(self, opcode: str, argument: Any) -> bool:
        """The opcodes that mention names. A name is only ever a key into the caller's list."""
        stack = self._stack
        if opcode == "GLOBAL":
            module, _, name = argument.partition(" ")
            stack.append(self._allowed(Name(module, name)))
        elif opcode == "STACK_GLOBAL":
            name, module = stack.pop(), stack.pop()
            if not isinstance(module, str) or not isinstance(name, str):
                raise ValueError("a name that is not a string")
            stack.append(self._allowed(Name(module, name)))
        elif opcode in {"REDUCE", "NEWOBJ"}:
            arguments, name = stack.pop(), stack.pop()
            stack.append(self._built(name, arguments))
        elif opcode == "BUILD":
            state = stack.pop()
            # A module's state_dict carries its version numbers as an attribute of the dictionary.
            if not isinstance(stack[-1], dict) or not isinstance(state, dict):
                raise UnsafeInputError("pickle sets the state of an object, nothing was run", path=self._path)
        elif opcode == "BINPERSID":
            stack.append(self._persistent(stack.pop()))
        else:
            return False
        return True

    def _allowed(self, name: Name) -> Name:
        if name not in self._rebuild:
            raise UnsafeInputError(
                f"pickle asks for {str(name)[:120]!r}, which no weights need; nothing was run", path=self._path
            )
        return name

    def _built(self, name: object, arguments: object) -> object:
        if not isinstance(name, Name) or not isinstance(arguments, tuple):
            raise UnsafeInputError(f"pickle calls a {type(name).__name__}; nothing was run", path=self._path)
        return self._rebuild[name](*arguments)
