"""The encoder of a device that is asked for by name. Loads what knows GPUs only when one is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from gguf_forge.quant.encoders import PROCESSORS, Encoder, device_name


@contextmanager
def encoder_of(device: str) -> Iterator[Encoder]:
    """What encodes on "cpu", on "cuda" (all GPUs), on "cuda:N" (one), or with "auto" on whatever there is.

    Raises RequestError for another word; CudaError where a GPU was asked for and cannot be used.
    """
    name = device_name(device)
    if name == "cpu":
        yield PROCESSORS
        return
    from gguf_forge.cuda.offload import offload  # noqa: PLC0415 - few ask for a GPU

    with offload(name) as found:
        yield found
