"""A model as a file that llama.cpp loads: a GGUF file as it is, a checkpoint's folder converted for a while."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from gguf_forge.convert.files import StrPath, convert_checkpoint
from gguf_forge.convert.job import Quantization
from gguf_forge.errors import InputError
from gguf_forge.quality.library import tidied


@contextmanager
def model_file(source: StrPath, *, floats: bool = False) -> Iterator[Path]:
    """The path of a GGUF file of the model, which lasts as long as the context.

    floats: weights that another tool quantized are converted as floats. Raises ForgeError.
    """
    path = Path(source)
    if not path.exists():
        raise InputError("no such file or folder", path=source)
    if not path.is_dir():
        yield path
        return
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="gguf-forge-"))
        stack.enter_context(tidied(partial(shutil.rmtree, folder, ignore_errors=True)))
        made = Path(folder) / "model.gguf"
        convert_checkpoint(path, made, "auto", quantization=Quantization(requantize=floats))
        yield made
