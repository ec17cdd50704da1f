"""Who makes blocks of runs of rows: this machine's processors, or what has the same calls, as GPUs do.

Knows no GPU; gguf_forge.cuda.offload is one such.
"""

from __future__ import annotations

import re
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from gguf_forge.errors import RequestError
from gguf_forge.quant.codec import encode_rows
from gguf_forge.types import TensorType

#: Devices as they are asked for: the processors, all GPUs, one of them, or whatever there is.
DEVICES = re.compile(r"cpu|auto|cuda(:\d{1,4})?")


class Encoder(Protocol):
    """Encodes runs of rows, for any number of threads."""

    @property
    def workers(self) -> int:
        """How many threads it keeps waiting, beside those that the processors have work for."""

    @property
    def run_elements(self) -> int | None:
        """Elements of a run that suit it; None: as many as suit the processors."""

    def takes(self, kind: TensorType) -> bool:
        """Whether it has a way of its own to make blocks of a type, of rows of any values."""

    def encode_rows(
        self,
        src: NDArray[Any],
        src_type: TensorType,
        dst_type: TensorType,
        weights: NDArray[np.float32] | None = None,
        first_row: int = 0,
        strict: bool = False,
    ) -> NDArray[np.uint8]:
        """As `gguf_forge.quant.codec.encode_rows`, to the same bytes and with the same errors."""

    def said(self) -> list[str]:
        """Lines that tell which device did what so far, and why one did not."""


class Processors:
    """The encoder of this machine's processors, in the calling thread."""

    workers = 0
    run_elements = None

    def takes(self, kind: TensorType) -> bool:
        """Nothing: there are shorter ways for some rows."""
        return False

    encode_rows = staticmethod(encode_rows)

    def said(self) -> list[str]:
        """Nothing."""
        return []


PROCESSORS = Processors()


def device_name(word: str) -> str:
    """A device as it is asked for: cpu, cuda, cuda:N or auto. Raises RequestError."""
    found = word.strip().lower()
    if DEVICES.fullmatch(found) is None:
        raise RequestError(f"{word!r:.40} is no device; cpu, cuda, cuda:N or auto is")
    return found
