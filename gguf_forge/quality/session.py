"""A model in llama.cpp's library: its text as tokens, windows of tokens evaluated, each matrix product observed.

Knows how the library is called; must not know what becomes of the numbers. Not safe for several threads at once.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gguf_forge.closing import Closing
from gguf_forge.errors import InputError, InvalidError, RequestError, UnsupportedError
from gguf_forge.format import reader
from gguf_forge.quality.library import Library, library
from gguf_forge.system import processors

Tokens = NDArray[np.int32]
Floats = NDArray[np.float32]
#: As llama.cpp's own tools: tokens that one call evaluates at most, and tokens that are computed with at a time.
BATCH, PHYSICAL_BATCH = 2048, 512
#: What llama.cpp takes at most (LLAMA_MAX_SEQ).
MOST_SEQUENCES = 256
F32 = 0
#: What a routed product is said to have: how many tokens an expert gets is seen only later.
MANY = 2**31


class Model(Closing):
    """A model of a GGUF file (any shard of a set), loaded. `with Model(path) as model`, or close it.

    gpu_layers: how many layers a GPU gets, if the library has one (-1: all). path is checked as a GGUF file first.
    writable: its weights lie in memory of their own, in the types of the file, so that `Weights` can exchange them.
    Raises FormatError and its kinds, InputError, LibraryError (no library), UnsupportedError (llama.cpp refuses it).
    """

    def __init__(self, path: str | os.PathLike[str], *, gpu_layers: int = 0, writable: bool = False) -> None:
        self.path = os.fspath(path)
        self.library: Library = library()
        self._handle: Any = None
        reader.open(path).close()
        params = self.library.llama_model_default_params()
        params.n_gpu_layers = gpu_layers
        if writable:
            params.load_mode, params.use_extra_bufts = 0, False
        self.library.reason()
        handle = self.library.llama_model_load_from_file(os.fsencode(path), params)
        if handle == self.library.ffi.NULL:
            raise UnsupportedError(f"llama.cpp does not load it: {self.library.reason()}", path=path)
        self._handle = handle
        self._vocabulary: Any = self.library.llama_model_get_vocab(handle)
        if self.library.llama_model_has_encoder(handle):
            self.close()
            raise UnsupportedError("a model with an encoder of its own, such as T5, is not run", path=path)

    @property
    def handle(self) -> Any:
        """The library's pointer. Raises RequestError once closed."""
        if self._handle is None:
            raise RequestError("the model is closed", path=self.path)
        return self._handle

    @property
    def vocabulary_size(self) -> int:
        """How many tokens there are, which is the width of the logits."""
        return int(self.library.llama_vocab_n_tokens(self._vocabulary))

    @property
    def trained_context(self) -> int:
        """Tokens of context that the model was trained on, as its file says."""
        return int(self.library.llama_model_n_ctx_train(self.handle))

    @property
    def first_token(self) -> int | None:
        """The token that a text of this model begins with (bos); None where its vocabulary says that none is added."""
        if not self.library.llama_vocab_get_add_bos(self._vocabulary):
            return None
        return int(self.library.llama_vocab_bos(self._vocabulary))

    def ends(self, token: int) -> bool:
        """Whether a token ends a generated text."""
        return bool(self.library.llama_vocab_is_eog(self._vocabulary, token))

    def tokenize(self, text: str | bytes, *, special: bool = False) -> Tokens:
        """The tokens of a text, int32, with those that the vocabulary adds at its ends.

        special: names of special tokens in the text become these tokens. Raises UnsupportedError.
        """
        raw = text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text
        if len(raw) > 2**31 - 64:
            raise UnsupportedError(f"a text of {len(raw)} bytes; llama.cpp takes 2 GiB at most", path=self.path)
        tokens = np.empty(len(raw) + 16, np.int32)
        into = self.library.ffi.from_buffer("int32_t[]", tokens, require_writable=True)
        count = self.library.llama_tokenize(self._vocabulary, raw, len(raw), into, len(tokens), True, special)
        if count < 0:
            raise UnsupportedError(f"llama.cpp does not tokenize the text: {self.library.reason()}", path=self.path)
        return tokens[:count].copy()

    def text(self, tokens: Sequence[int] | Tokens) -> str:
        """The text of tokens, special ones as their names; bytes that are no UTF-8 as U+FFFD."""
        ids = np.ascontiguousarray(tokens, np.int32)
        given = self.library.ffi.from_buffer("int32_t[]", ids)
        size = 16 * len(ids) + 16
        while True:
            into = self.library.ffi.new("char[]", size)
            count = self.library.llama_detokenize(self._vocabulary, given, len(ids), into, size, False, True)
            if count >= 0:
                return bytes(self.library.ffi.buffer(into, count)).decode("utf-8", "replace")
            size = -count

    def close(self) -> None:
        """Frees the model. Sessions must be closed before."""
        if self._handle is not None:
            self.library.llama_model_free(self._handle)
            self._handle = None


@dataclass(frozen=True)
class Product:
    """A product of a weight with its inputs that was just computed. Valid only during the call that shows it.

    weight: the weight's name. stack: how matrices are stacked in it, (outer, inner). routed: each token goes through
    some of them only, those of `experts()`. source: equal for products of one evaluation that have the same inputs (and
    routing).
    """

    library: Library
    weight: str
    stack: tuple[int, int]
    routed: bool
    given: Any
    routing: Any

    @property
    def width(self) -> int:
        """Inputs of each matrix."""
        return int(self.given.ne[0])

    @property
    def matrices(self) -> int:
        """Matrices stacked in the weight: 1, or how many experts there are."""
        return self.stack[0] * self.stack[1]

    @property
    def source(self) -> tuple[int, int]:
        """Which inputs these are."""
        cast = self.library.ffi.cast
        return int(cast("uintptr_t", self.given)), int(cast("uintptr_t", self.routing))

    @property
    def given_name(self) -> str:
        """What the library calls the inputs; empty where it has no name for them."""
        return self.library.name_of(self.given)

    def inputs(self) -> Floats:
        """float32 (ne3, ne2, ne1, width) in ggml's order of axes; of a routed product (1, tokens, slots, width)."""
        return array_of(self.library, self.given, np.dtype(np.float32))

    def experts(self) -> Tokens:
        """int32 (tokens, experts used): which matrices a routed product put each token through."""
        found: Tokens = array_of(self.library, self.routing, np.dtype(np.int32))[0, 0]
        return found


@dataclass(frozen=True)
class Ending:
    """Where an evaluation may end whose logits nobody wants: the last product's input, by its name in the library.

    weight: whose product it would be, the output matrix, which in a small model is a quarter of the work and more.
    """

    node: str
    weight: str


class Session(Closing):
    """Evaluates windows of up to `context` tokens of a model, several at a time.

    observe: called with each product of a matrix and float32 inputs for which `wants(weight, rows)` holds, once it is
    computed; rows: inputs, that is, tokens, of it. What `observe` raises ends the evaluation and is raised by it.
    threads: of the CPU; None: all. sequences: windows that one call can take; None: as many as fit a batch of 2048
    tokens, which go through the model 512 tokens at a time. Where a number is given, they go through it all together.
    outputs: tokens of a call for which logits are computed at most; None: any. ending: where an evaluation ends, short
    of the logits; those that `evaluate` returns mean nothing then. The product that is left out is shown to `observe`
    all the same.
    Raises UnsupportedError (llama.cpp cannot make a context of the model, or lacks the memory).
    """

    def __init__(
        self, model: Model, context: int, *, threads: int | None = None,
        observe: Callable[[Product], None] | None = None, wants: Callable[[str, int], bool] = lambda weight, rows: True,
        sequences: int | None = None, outputs: int | None = None, ending: Ending | None = None,
    ) -> None:  # fmt: skip
        if context < 1 or not 1 <= (sequences or 1) <= MOST_SEQUENCES:
            raise RequestError(f"a context of {context} tokens, {sequences or 1} times")
        self.model = model
        self.library = lib = model.library
        self.context = context
        self.sequences = sequences or min(MOST_SEQUENCES, max(1, BATCH // context))
        self._observe, self._wants, self._ending = observe, wants, ending
        self._raised: BaseException | None = None
        self._handle: Any = None
        self._past = 0
        params = lib.llama_context_default_params()
        params.n_ctx = self.sequences * context
        tokens = self.sequences * context
        self.batch = params.n_batch = tokens if sequences else min(BATCH, tokens)
        params.n_ubatch = tokens if sequences else min(PHYSICAL_BATCH, self.batch)
        params.n_outputs_max = outputs or 0
        params.n_seq_max = self.sequences
        params.n_threads = params.n_threads_batch = threads or processors()
        params.swa_full = False
        if observe is not None:
            self._callback = lib.ffi.callback("bool(ggml_tensor *, bool, void *)", self._see, onerror=self._missed)
            params.cb_eval = self._callback
        lib.reason()
        handle = lib.llama_init_from_model(model.handle, params)
        if handle == lib.ffi.NULL:
            raise UnsupportedError(f"llama.cpp makes no context for it: {lib.reason()}", path=model.path)
        self._handle = handle
        self._batch = lib.llama_batch_init(self.batch, 0, 1)

    def evaluate(self, windows: Tokens | Sequence[Sequence[int]], *, first: int | None = 0) -> Floats | None:
        """Evaluates windows of tokens, each from its beginning: (windows, tokens), at most `sequences` of `context`.

        Returns the logits after the tokens from position `first` on: float32 (windows, tokens - first, vocabulary), in
        memory of the library, overwritten by the next call. None for first=None: nothing is wanted but to observe.
        Raises UnsupportedError where the library fails.
        """
        tokens = np.ascontiguousarray(windows, np.int32)
        count, length = tokens.shape
        if not 0 < count <= self.sequences or not 0 < length <= self.context:
            raise RequestError(f"{count} windows of {length} tokens; a call takes {self.sequences} of {self.context}")
        self.clear()
        step = self.batch // count if length * count > self.batch else length
        pieces = []
        for start in range(0, length, step):
            part = tokens[:, start : start + step]
            found = self._decode(part, start, 0 if first is None else max(0, first - start))
            if first is not None and found.size:
                pieces.append(found if length <= step else found.copy())
        self._past = length
        if first is None:
            return None
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces, axis=1)

    def extend(self, tokens: Sequence[int] | Tokens) -> Floats:
        """Goes on with one window: evaluates further tokens, and returns the logits after the last, (vocabulary,)."""
        more = np.ascontiguousarray(tokens, np.int32)
        if not 0 < len(more) <= self.context - self._past:
            raise RequestError(f"{len(more)} tokens after {self._past}; the context takes {self.context}")
        for start in range(0, len(more), self.batch):
            part = more[None, start : start + self.batch]
            logits: Floats = self._decode(part, self._past, part.shape[1] - 1)[0, 0]
            self._past += part.shape[1]
        return logits

    def operation(self, tensor: Any) -> str:
        """The name of the operation that makes a tensor, as ggml has it: MUL_MAT; of a leaf: NONE."""
        name = self._operations.get(tensor.op)
        if name is None:
            found = self.library.ffi.string(self.library.ggml_op_name(tensor.op))
            name = self._operations[tensor.op] = found.decode()
        return name

    def clear(self) -> None:
        """Forgets all tokens."""
        memory = self.library.llama_get_memory(self._require())
        if memory != self.library.ffi.NULL:
            self.library.llama_memory_clear(memory, True)
        self._past = 0

    def close(self) -> None:
        """Frees what the library holds."""
        if self._handle is not None:
            self.library.llama_batch_free(self._batch)
            self.library.llama_free(self._handle)
            self._handle = None

    def _require(self) -> Any:
        if self._handle is None:
            raise RequestError("the session is closed", path=self.model.path)
        return self._handle

    def _decode(self, tokens: Tokens, position: int, first: int) -> Floats:
        """Logits of the tokens from the `first`-th on."""
        lib, handle = self.library, self._require()
        count, length = tokens.shape
        self._compute(tokens, position, np.arange(length) >= first)
        wanted = length - first
        if wanted <= 0:
            return np.empty((count, 0, self.model.vocabulary_size), np.float32)
        logits = lib.llama_get_logits_ith(handle, first)
        if logits == lib.ffi.NULL:
            raise UnsupportedError(f"llama.cpp gives no logits: {lib.reason()}", path=self.model.path)
        shape = (count, wanted, self.model.vocabulary_size)
        return np.frombuffer(lib.ffi.buffer(logits, 4 * int(np.prod(shape))), np.float32).reshape(shape)

    def _compute(self, tokens: Tokens, position: int, wanted: NDArray[np.bool_]) -> None:
        """Evaluates tokens (windows, tokens); `wanted` (tokens,): of which there are logits then."""
        lib, handle = self.library, self._require()
        lowest, highest = int(tokens.min()), int(tokens.max())
        if lowest < 0 or highest >= self.model.vocabulary_size:
            raise InvalidError(f"token {lowest if lowest < 0 else highest} is not in the vocabulary")
        self._fill(tokens, position, wanted)
        lib.reason()
        status = lib.llama_decode(handle, self._batch)
        raised, self._raised = self._raised, None
        if raised is not None:
            raise raised
        if status != 0:
            text = f"llama.cpp does not evaluate {tokens.size} tokens (status {status}): {lib.reason()}"
            raise UnsupportedError(text, path=self.model.path)
        lib.llama_synchronize(handle)

    def _fill(self, tokens: Tokens, position: int, wanted: NDArray[np.bool_]) -> None:
        count, length = tokens.shape
        size, batch, ffi = count * length, self._batch, self.library.ffi
        batch.n_tokens = size

        def field(pointer: Any, dtype: type) -> NDArray[Any]:
            return np.frombuffer(ffi.buffer(pointer, size * np.dtype(dtype).itemsize), dtype).reshape(count, length)

        field(batch.token, np.int32)[:] = tokens
        field(batch.pos, np.int32)[:] = position + np.arange(length, dtype=np.int32)
        field(batch.n_seq_id, np.int32)[:] = 1
        field(batch.logits, np.int8)[:] = wanted
        for i in range(size):
            batch.seq_id[i][0] = i // length

    def _see(self, tensor: Any, ask: bool, data: Any) -> bool:
        """The library asks of each operation whether its result is wanted, and shows it if so; False then ends all."""
        if self._raised is not None:
            return False
        try:
            last = self._ending is not None and self.library.name_of(tensor) == self._ending.node
            product = self._product(tensor)
            if ask or not (last or product):
                return last or product is not None
            assert self._observe is not None
            if product is not None:
                self._observe(product)
            if last and self._ending is not None and self._wants(self._ending.weight, tensor.ne[1]):
                self._observe(Product(self.library, self._ending.weight, (1, 1), False, tensor, tensor))
        except BaseException as error:  # noqa: BLE001 - raised again where the library has returned
            self._raised = error
            return False
        return not last

    def _missed(self, kind: type[BaseException], error: BaseException, at: TracebackType) -> None:
        """A signal may raise before `_see` has begun to look out for errors: it ends the evaluation like any other."""
        self._raised = self._raised or error

    def _product(self, tensor: Any) -> Product | None:
        name = self.operation(tensor)
        if name not in ("MUL_MAT", "MUL_MAT_ID"):
            return None
        matrix, given = tensor.src[0], tensor.src[1]
        weight = weight_name(self.library.name_of(matrix))
        routed = name == "MUL_MAT_ID"
        if given.type != F32 or not self._wants(weight, MANY if routed else given.ne[1]):
            return None
        stack = int(matrix.ne[3]), int(matrix.ne[2])
        return Product(self.library, weight, stack, routed, given, tensor.src[2] if routed else given)

    _operations: dict[int, str] = {}  # noqa: RUF012 - of the one library


def array_of(library: Library, tensor: Any, dtype: np.dtype[Any]) -> NDArray[Any]:
    """A tensor of the library as an array, in ggml's order of axes; a copy only where it lies on another device."""
    size = library.ggml_nbytes(tensor)
    if tensor.buffer == library.ffi.NULL or library.ggml_backend_buffer_is_host(tensor.buffer):
        raw: Any = library.ffi.buffer(tensor.data, size)
    else:
        raw = bytearray(size)
        library.ggml_backend_tensor_get(tensor, library.ffi.from_buffer(raw), 0, size)
    return np.ndarray(tuple(tensor.ne)[::-1], dtype, raw, 0, tuple(tensor.nb)[::-1])


def weight_name(name: str) -> str:
    """The name of a weight without what a scheduler puts around it: CUDA0#blk.0.attn_k.weight#0."""
    parts = name.split("#", 2)
    return parts[1] if len(parts) > 1 else name


def read_texts(paths: Sequence[str | os.PathLike[str]]) -> bytes:
    """The text of files, one after the other; of each the last line break is left out, as llama.cpp's tools do."""
    texts = []
    for path in paths:
        try:
            with open(path, "rb") as file:
                raw = file.read()
        except OSError as error:
            raise InputError(error.strerror or str(error), path=path) from None
        texts.append(raw.removesuffix(b"\n"))
    return b"\n".join(texts)


def cut_windows(model: Model, tokens: Tokens, context: int, most: int | None = None) -> Tokens:
    """Tokens in windows of `context`, (windows, context), at most so many; what is left at the end is left out.

    Each begins with the model's first token, if texts have one, in the place of its own, as llama.cpp's tools do.
    """
    count = len(tokens) // context
    windows = tokens[: count * context].reshape(count, context)[: most or None].copy()
    if model.first_token is not None:
        windows[:, 0] = model.first_token
    return windows
