"""The public `check_tokenizer`: a GGUF file's vocabulary beside the tokenizer of the checkpoint it was made from.

Knows where both are found. Must not know how they are compared.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gguf_forge.convert.vocab.check import TokenizerCheck, check_vocabulary
from gguf_forge.errors import InputError
from gguf_forge.format import reader
from gguf_forge.format.values import Value

StrPath = str | os.PathLike[str]

_READ = ("tokenizer.", "general.name")


def check_tokenizer(
    checkpoint: StrPath, file: StrPath | Mapping[str, Any], *, mistral_format: bool = False
) -> TokenizerCheck:
    """Whether a GGUF file makes of texts the tokens that the checkpoint's own tokenizer makes of them.

        found = gguf_forge.check_tokenizer("Qwen3-0.6B", "Qwen3-0.6B-Q4_K_M.gguf")
        found.alike                                          # True if no text differs
        for line in found.lines():                           # what differs
            print(line)

    `file` is a GGUF file, or the metadata of one, as that of a plan of `convert_checkpoint(..., dry_run=True)`; the
    texts are some two hundred of many scripts, code, digits, blanks, emoji, special tokens and characters at random.
    The file's tokens are found as llama.cpp finds them. `mistral_format`: the checkpoint is in Mistral's own layout.

    Raises InputError for a folder that is none, CheckpointError for damaged tokenizer files, UnsupportedError for a
    pre-tokenizer llama.cpp does not know, and what `open` raises for the file.
    """
    folder = Path(checkpoint)
    if not folder.is_dir():
        raise InputError(f"{folder}: not a folder")
    if isinstance(file, Mapping):
        keys = {key: value.value if isinstance(value, Value) else value for key, value in file.items()}
        return check_vocabulary(folder, keys, native=mistral_format)
    with reader.open(file) as opened:
        keys = {key: opened.metadata[key] for key in opened.metadata if key.startswith(_READ)}
        return check_vocabulary(folder, keys, native=mistral_format)
