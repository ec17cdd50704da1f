"""Two copies of a model evaluated side by side on one text, so that they stand before each product at the same time.

All windows go through a layer before any goes through the next, so that what a layer's weights become can depend on
all that the layers before make of the text. Of the second copy weights may be exchanged as they come. Knows how the
library walks through its operations; must not know what is done at a product.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from gguf_forge.errors import UnsupportedError
from gguf_forge.quality.moments import is_output
from gguf_forge.quality.session import Floats, Model, Session, Tokens, array_of, weight_name
from gguf_forge.quant.codec import encode_rows
from gguf_forge.types import TensorType, tensor_type

F32 = tensor_type("F32")
#: Tokens of the look at the operations before the text goes through.
SURVEY = 16
#: Logits that are held of either copy; of longer texts the last layer and the output matrix see every n-th token.
LOGITS = 1 << 27
#: Tensors that an operation takes, at most, and has as its weights.
SOURCES = 3


@dataclass(frozen=True)
class Pair:
    """A product of both copies, about to be computed. Valid during the call that shows it.

    weight: its name. inputs: float32 (tokens, width) of the first copy and of the second. residuals: what the products
    will be added to, float32 (tokens, outputs) of either, where that is known. key: equal for products with the same
    inputs.
    """

    weight: str
    inputs: tuple[Floats, Floats]
    residuals: tuple[Floats, Floats] | None
    key: int


class Meeting:
    """Where two threads meet: one offers, waits until the other has done with it, and goes on."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._offered: Any = None
        self._broken = False

    def offer(self, what: Any) -> None:
        """Waits until it was taken and finished with. Raises Parted where the other will not come."""
        with self._changed:
            self._offered = what
            self._changed.notify_all()
            self._wait(lambda: self._offered is None)

    def take(self) -> Any:
        """What is offered, once it is. Raises Parted where nothing will be."""
        with self._changed:
            self._wait(lambda: self._offered is not None)
            return self._offered

    def finish(self) -> None:
        """Lets the one that offered go on."""
        with self._changed:
            self._offered = None
            self._changed.notify_all()

    def part(self) -> None:
        """Neither waits any longer."""
        with self._changed:
            self._broken = True
            self._changed.notify_all()

    def _wait(self, until: Callable[[], bool]) -> None:
        self._changed.wait_for(lambda: self._broken or until())
        if self._broken:
            raise Parted


class Parted(Exception):  # noqa: N818 - no error, but the end of an evaluation
    """There is no next product, or the other copy will not come to it."""


class Stream(Session):
    """A session of whole windows that shows each operation before it is computed.

    visit: called with the operation's number in its evaluation, and its tensor. windows: (count, context) tokens.
    """

    def __init__(
        self, model: Model, windows: Tokens, visit: Callable[[int, Any], None], *, threads: int | None = None
    ) -> None:
        count, context = windows.shape
        self._visit = visit
        self._windows = windows
        self.operations: list[Any] = []
        most = max(1, LOGITS // (count * model.vocabulary_size))
        step = -(-context // most)
        self._wanted = np.arange(context) % step == step - 1  # not the first, which is often like no other
        super().__init__(
            model,
            context,
            threads=threads,
            observe=lambda product: None,
            sequences=count,
            outputs=count * int(self._wanted.sum()),
        )

    def evaluate_all(self) -> None:
        """Puts all windows through the model."""
        self.clear()
        self.operations.clear()
        self._compute(self._windows, 0, self._wanted)

    def survey(self) -> dict[int, int]:
        """For each product whose result is added to something: its number, and that of what it is added to."""
        visit, found = self._visit, _Additions(self)
        self._visit = found.see
        try:
            self.operations.clear()
            tokens = self._windows[:1, :SURVEY]
            self.clear()
            self._compute(tokens, 0, np.ones(tokens.shape[1], np.bool_))
        finally:
            self._visit = visit
        return found.added_to

    def floats(self, tensor: Any) -> Floats:
        """A float32 tensor's rows (rows, width), in memory of the library where it lies in one piece."""
        data = array_of(self.library, tensor, np.dtype(np.float32))
        return data.reshape(-1, data.shape[-1])

    def name(self, tensor: Any) -> str:
        """A tensor's name, of a weight without what a scheduler puts around it."""
        return weight_name(self.library.name_of(tensor))

    def leaves(self, tensor: Any) -> list[Any]:
        """What an operation takes that no operation makes: weights, and what is given to the model."""
        given = (tensor.src[i] for i in range(SOURCES))
        return [t for t in given if t != self.library.ffi.NULL and t.op == 0 and t.data != self.library.ffi.NULL]

    def is_product(self, tensor: Any) -> bool:
        """Whether it is a product of a matrix, as the file has it, and float32 inputs."""
        if self.operation(tensor) != "MUL_MAT" or tensor.src[0].op != 0 or tensor.src[1].type != F32.id:
            return False
        return bool(tensor.src[0].ne[2] * tensor.src[0].ne[3] == 1)

    def _see(self, tensor: Any, ask: bool, data: Any) -> bool:
        """Each operation is asked for, so that what comes before is there when the next one is planned."""
        if self._raised is not None:
            return ask  # what is asked for and then not wanted any more ends the evaluation
        if ask:
            try:
                self.operations.append(tensor)
                self._visit(len(self.operations) - 1, tensor)
            except BaseException as error:  # noqa: BLE001 - raised again where the library has returned
                self._raised = error
        return True


class _Additions:
    """Finds what products are added to: directly, or after a bias."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._numbers: dict[int, int] = {}
        self._products: dict[int, int] = {}
        self.added_to: dict[int, int] = {}

    def see(self, number: int, tensor: Any) -> None:
        self._numbers[self._address(tensor)] = number
        if self._stream.is_product(tensor):
            self._products[number] = number
        elif self._stream.operation(tensor) == "ADD":
            self._addition(number, tensor)

    def _addition(self, number: int, tensor: Any) -> None:
        one, other = (self._numbers.get(self._address(tensor.src[i])) for i in range(2))
        for made, beside in ((one, other), (other, one)):
            product = None if made is None else self._products.get(made)
            if product is None:
                continue
            if beside is None:  # a bias: the sum stands for the product
                self._products[number] = product
            elif beside < product:
                self.added_to[product] = beside

    def _address(self, tensor: Any) -> int:
        return int(self._stream.library.ffi.cast("uintptr_t", tensor))


class Lockstep:
    """Evaluates windows with both copies; of `models` the second was loaded writable.

    meet: called with the name of each weight of the second copy, before the first operation that takes it. pair: called
    after that at the first product of a weight for which `wants(name)` holds, before either copy computes it. What they
    return the weight becomes in the second copy: float32 (rows, width), or None for what it is.
    """

    def __init__(
        self, models: tuple[Model, Model], windows: Tokens, *, wants: Callable[[str], bool],
        meet: Callable[[str], Floats | None], pair: Callable[[Pair], Floats | None], threads: int | None = None,
    ) -> None:  # fmt: skip
        self._wants, self._pair, self._meet = wants, pair, meet
        self._meeting = Meeting()
        self._paired: tuple[set[str], set[str]] = (set(), set())
        self._met: set[str] = set()
        self._error: BaseException | None = None
        self._added_to: dict[int, int] = {}
        self.first = Stream(models[0], windows, self._at_first, threads=threads)
        try:
            self.second = Stream(models[1], windows, self._at_second, threads=threads)
        except BaseException:
            self.first.close()
            raise

    def run(self) -> None:
        """Puts the text through both. Raises what `pair` and `meet` raise, and UnsupportedError."""
        try:
            self._added_to = self.first.survey()
            thread = threading.Thread(target=self._in_thread, name="first-copy")
            thread.start()
            try:
                self.second.evaluate_all()
            except Parted:
                pass
            finally:
                self._meeting.part()
                thread.join()
            if self._error is not None:
                raise self._error
        finally:
            self.first.close()
            self.second.close()

    def _become(self, tensor: Any, values: Floats | None) -> None:
        if values is not None:
            exchange(self.second, tensor, values)

    def _in_thread(self) -> None:
        try:
            self.first.evaluate_all()
        except Parted:
            pass
        except BaseException as error:  # noqa: BLE001 - raised again by `run`
            self._error = error
        finally:
            self._meeting.part()

    def _at_first(self, number: int, tensor: Any) -> None:
        stream = self.first
        if self._pairs(stream, tensor, self._paired[0]):
            self._meeting.offer((number, stream.floats(tensor.src[1]), self._residual(stream, number, tensor)))
        self._end(stream, tensor)

    def _at_second(self, number: int, tensor: Any) -> None:
        stream = self.second
        for leaf in stream.leaves(tensor):
            name = stream.name(leaf)
            if name not in self._met:
                self._met.add(name)
                self._become(leaf, self._meet(name))
        if self._pairs(stream, tensor, self._paired[1]):
            self._at_pair(stream, number, tensor)
        self._end(stream, tensor)

    def _at_pair(self, stream: Stream, number: int, tensor: Any) -> None:
        name = stream.name(tensor.src[0])
        at, inputs, residual = self._meeting.take()
        mine, own = stream.floats(tensor.src[1]), self._residual(stream, number, tensor)
        if at != number or inputs.shape != mine.shape:
            raise UnsupportedError(f"{name}: llama.cpp computes the two copies in different ways")
        residuals = None if residual is None or own is None else (residual, own)
        key = int(stream.library.ffi.cast("uintptr_t", tensor.src[1]))
        self._become(tensor.src[0], self._pair(Pair(name, (inputs, mine), residuals, key)))
        self._meeting.finish()

    def _end(self, stream: Stream, tensor: Any) -> None:
        """Nothing is fitted after the output matrix, and the logits are not needed."""
        if stream.is_product(tensor) and is_output(stream.name(tensor.src[0])):
            raise Parted

    def _pairs(self, stream: Stream, tensor: Any, seen: set[str]) -> bool:
        """Whether the copies meet before this operation."""
        if not stream.is_product(tensor):
            return False
        name = stream.name(tensor.src[0])
        if name in seen or not self._wants(name):
            return False
        seen.add(name)
        return True

    def _residual(self, stream: Stream, number: int, product: Any) -> Floats | None:
        at = self._added_to.get(number)
        if at is None:
            return None
        found = stream.operations[at]
        if found.type != F32.id or list(found.ne) != list(product.ne):
            return None
        return stream.floats(found)


def exchange(session: Session, tensor: Any, values: Floats) -> None:
    """Writes values, float32 (rows, width), over a weight in memory, in its type there.

    Raises UnsupportedError where the weight is of another size.
    """
    kind: TensorType = tensor_type(int(tensor.type))
    blocks = encode_rows(np.ascontiguousarray(values), F32, kind).tobytes()
    memory = session.library.ffi.buffer(tensor.data, session.library.ggml_nbytes(tensor))
    if len(memory) != len(blocks):
        name = weight_name(session.library.name_of(tensor))
        raise UnsupportedError(f"{name}: {len(memory)} bytes in memory, {len(blocks)} in the file")
    memory[:] = blocks
