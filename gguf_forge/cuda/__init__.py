"""Blocks decoded, encoded and multiplied on NVIDIA GPUs, through the driver alone."""

from gguf_forge.cuda.array import DeviceArray as DeviceArray
from gguf_forge.cuda.codec import dequantize as dequantize
from gguf_forge.cuda.codec import quantize as quantize
from gguf_forge.cuda.codec import upload as upload
from gguf_forge.cuda.device import Device as Device
from gguf_forge.cuda.driver import CudaError as CudaError
from gguf_forge.cuda.matvec import matvec as matvec
