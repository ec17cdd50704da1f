"""Weights that another tool quantized, in blocks of GGUF: which type holds a tensor, how well, and its blocks.

The one exporter of the stored form of views (view.Stored): a look at scales (surveys.py), a type (choice.py), blocks
(packing.py), all of a model (model.py), and what is said of it (report.py). Must not know formats of other tools,
families, or files.
"""

from __future__ import annotations

from gguf_forge.convert.imported.choice import Choice, Prefer, choose
from gguf_forge.convert.imported.model import Holdings, holdings, scaled_names
from gguf_forge.convert.imported.packing import pack
from gguf_forge.convert.imported.report import (
    FILE_TYPES_OF_BLOCKS,
    Import,
    file_type_of,
    measured,
    provenance,
    require_status,
    settled,
    summary,
)
from gguf_forge.convert.imported.surveys import Survey, Surveys, survey

__all__ = [
    "FILE_TYPES_OF_BLOCKS",
    "Choice",
    "Holdings",
    "Import",
    "Prefer",
    "Survey",
    "Surveys",
    "choose",
    "file_type_of",
    "holdings",
    "measured",
    "pack",
    "provenance",
    "require_status",
    "scaled_names",
    "settled",
    "summary",
    "survey",
]
