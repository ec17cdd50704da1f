"""`gguf_forge.open`: the format's reader joined with the codecs. Knows the inside of neither."""

from __future__ import annotations

import os
from typing import Any

from numpy.typing import DTypeLike

from gguf_forge.format import reader
from gguf_forge.format.layout import LIMITS, Limits
from gguf_forge.format.reader import GGUFFile, Tensor
from gguf_forge.quant.codec import dequantize


def open(  # noqa: A001 - the public name
    path: str | os.PathLike[str], *, limits: Limits = LIMITS, unknown_types: bool = False
) -> GGUFFile:
    """Opens a GGUF file of version 2 or 3, in either byte order, or the whole set when `path` is any of its shards.

        with gguf_forge.open("model.gguf") as model:
            model.metadata["general.architecture"]           # str; arrays are decoded only here
            model.metadata.type_of("llama.block_count")      # ValueType.UINT32
            tensor = model.tensors["blk.0.attn_q.weight"]    # .name .type .shape .nbytes .offset .path
            tensor.data                                      # uint8 (..., row bytes), a view of the mapped file
            tensor.dequantize()                              # float32 of tensor.shape
            tensor.to_cuda("float16")                        # the same in a GPU's memory, for torch.from_dlpack

    A URL does too, http(s) or hf://OWNER/REPO[@REVISION]/FILE, with `pip install 'gguf-forge[remote]'`: bytes are then
    fetched where they are used. Only headers are read on opening. `limits` bounds what a file may declare.

    A file with tensors of a type that is not read, such as another program's, is refused; with `unknown_types` it opens
    all the same, for its metadata and its other tensors. Those are then in `model.unknown`, with .name .type_id
    .probably .shape .offset .path.

    Raises FormatError (not GGUF, or another version), TruncatedError, InvalidError, LimitError, UnsupportedError
    (an unknown tensor type), InputError (missing or unreadable); all are ForgeErrors.
    """
    return reader.open(path, limits=limits, decode_rows=dequantize, to_device=_to_cuda, unknown_types=unknown_types)


def _to_cuda(tensor: Tensor, dtype: DTypeLike | str | None, **how: Any) -> Any:
    from gguf_forge.cuda.tensor import to_cuda  # noqa: PLC0415 - few ask for a GPU

    return to_cuda(tensor, dtype, **how)
