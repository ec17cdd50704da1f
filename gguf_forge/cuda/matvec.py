"""Products of a matrix of blocks with vectors, which are read as they are: the unit of a layer's work on a GPU.

Knows shapes; the kernels are native/cuda/matvec.h's.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gguf_forge.cuda.array import DeviceArray
from gguf_forge.cuda.codec import handle, output, upload
from gguf_forge.cuda.device import Device, Lane
from gguf_forge.cuda.given import Given, given, on_device, place
from gguf_forge.errors import QuantError
from gguf_forge.types import TENSOR_TYPES, TensorType, tensor_type

_SUFFIXES = {"float32": "f32", "float16": "f16"}
#: Boundary that vectors have to lie on, and how many of several a kernel takes at a time.
_BOUNDARY, _SEVERAL = 16, 4


def matvec(
    matrix: Any,
    x: Any,
    type: str | TensorType | None = None,
    *,
    device: int | str | Device | None = None,
    stream: Any = None,
    out: DeviceArray | None = None,
) -> DeviceArray:
    """The products of a matrix of blocks with a vector or a few, decoded on the way, summed up in float32.

    matrix: blocks, uint8 of shape (rows, row bytes), with their `type`, or a tensor of an open file, which has its own:
    Q4_0, Q8_0, Q4_K, Q5_K, Q6_K, IQ4_XS or MXFP4. What is not on the device yet is sent whole: keep what
    `tensor.to_cuda()` gives. x: (width,) or (vectors, width), float32 or float16, on the host or on the device. device,
    stream: as of `dequantize`. out: None, or what this returned for arrays of these shapes.
    Returns float32 of shape (rows,) or (vectors, rows), done: the same in every run, each within (width / 32 + 160)
    roundings of 2^-24 of the sum of |x| (|w| + 2 m) over its row of weights w, m being the largest magnitude that one
    could have under the row's scales. Raises QuantError for other types, shapes, dtypes or devices, CudaError for what
    the device or driver lacks.
    """
    blocks, kind = _blocks(matrix, type)
    found = place(device, blocks, x)
    _require_kernel(found, kind)
    vectors, matrix = _array(x, found), _array(blocks, found)
    rows, width = _form_of(matrix, kind)
    dtype, shape = str(vectors.dtype), vectors.shape
    if dtype not in _SUFFIXES or len(shape) not in (1, 2) or shape[-1] != width:
        raise QuantError(f"vectors for {rows} rows of {width} are float32 or float16; found {dtype} {shape}")
    out = output(found, (*shape[:-1], rows), "float32", out)
    if 0 in (*shape, rows):
        return out
    count = shape[0] if len(shape) == 2 else 1
    several = _SEVERAL if count > 1 else 1
    kernel = f"forge_matvec_{kind.name.lower()}_{_SUFFIXES[dtype]}_{several}"
    if isinstance(matrix, np.ndarray):
        sent = upload(matrix, "uint8", device=found, stream=stream)
        matrix = Given(sent.address, sent.shape, sent.dtype, None, sent)
    made_by = vectors.after if isinstance(vectors, Given) else None
    with found.lanes(vectors.nbytes, handle(stream), matrix.after, made_by, count=1) as lanes:
        address = _placed(lanes[0], vectors)
        sizes = [("uint64_t", n) for n in (rows, width, count)]
        pointers = [("uint64_t", at) for at in (matrix.address, address, out.address)]
        found.kernels.launch(kernel, rows * -(-count // several), lanes[0].stream.handle, *pointers, *sizes)
    return out


def _array(x: Any, device: Device) -> NDArray[Any] | Given:
    return given(x, device) if on_device(x) else np.ascontiguousarray(x)


def _blocks(matrix: Any, type: str | TensorType | None) -> tuple[Any, TensorType]:
    """The blocks and their type, which a tensor of a file knows."""
    own = getattr(matrix, "type", None)
    if isinstance(own, TensorType):
        if type is not None and tensor_type(type) is not own:
            raise QuantError(f"the tensor is of type {own}, not {tensor_type(type)}")
        if matrix.order != "<" and own.quantized:
            raise QuantError("a tensor of a big-endian file has to be decoded, or its file written anew")
        matrix, kind = matrix.data, own
    elif type is None:
        raise QuantError("the type of the blocks is to be given")
    else:
        kind = tensor_type(type)
    return matrix, kind


def _require_kernel(device: Device, kind: TensorType) -> None:
    launches = device.kernels.launches
    if f"forge_matvec_{kind.name.lower()}_f32_1" not in launches:
        known = [t.name for t in TENSOR_TYPES.values() if f"forge_matvec_{t.name.lower()}_f32_1" in launches]
        raise QuantError(f"there are no products with {kind}; with {', '.join(known)} there are")


def _form_of(blocks: NDArray[Any] | Given, kind: TensorType) -> tuple[int, int]:
    """Rows and width. Raises QuantError for what is no matrix of whole blocks."""
    dtype, shape = str(blocks.dtype), blocks.shape
    if dtype != "uint8" or len(shape) != 2 or shape[1] % kind.block_bytes:
        what = f"uint8 of two axes, and whole blocks of {kind.block_bytes} bytes"
        raise QuantError(f"a matrix of {kind} is {what}; found {dtype} {shape}")
    return shape[0], shape[1] // kind.block_bytes * kind.block_size


def _placed(lane: Lane, x: NDArray[Any] | Given) -> int:
    """The address of vectors on a boundary that the kernels are content with: their own, or the lane's."""
    lane.begin()
    if isinstance(x, np.ndarray):
        to, at = lane.stage(x.nbytes)
        to[:] = x.reshape(-1).view(np.uint8)
        lane.send()
        return at
    if x.address % _BOUNDARY == 0:
        return x.address
    address = lane.room(x.nbytes)
    lane.copy(address, x.address, x.nbytes)
    return address
