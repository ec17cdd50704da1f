"""GGUF Forge: make, read, check and change .gguf files."""

from __future__ import annotations

import importlib

TYPE_CHECKING = False  # as in typing, which takes longer to load than all else here
if TYPE_CHECKING:
    from typing import Any

    from gguf_forge import values as values
    from gguf_forge.convert.files import Planned as Planned
    from gguf_forge.convert.files import convert_checkpoint as convert_checkpoint
    from gguf_forge.convert.files import quantize_file as quantize_file
    from gguf_forge.convert.job import Quantization as Quantization
    from gguf_forge.convert.splitting import Splitting as Splitting
    from gguf_forge.convert.tokenizers import check_tokenizer as check_tokenizer
    from gguf_forge.convert.vocab.check import TokenizerCheck as TokenizerCheck
    from gguf_forge.errors import ChangedInputError as ChangedInputError
    from gguf_forge.errors import CheckpointError as CheckpointError
    from gguf_forge.errors import ConversionError as ConversionError
    from gguf_forge.errors import ForgeError as ForgeError
    from gguf_forge.errors import FormatError as FormatError
    from gguf_forge.errors import IncompleteSetError as IncompleteSetError
    from gguf_forge.errors import InputError as InputError
    from gguf_forge.errors import InvalidError as InvalidError
    from gguf_forge.errors import LimitError as LimitError
    from gguf_forge.errors import OutputError as OutputError
    from gguf_forge.errors import QuantError as QuantError
    from gguf_forge.errors import RecipeError as RecipeError
    from gguf_forge.errors import RequestError as RequestError
    from gguf_forge.errors import TruncatedError as TruncatedError
    from gguf_forge.errors import UnsafeInputError as UnsafeInputError
    from gguf_forge.errors import UnsupportedError as UnsupportedError
    from gguf_forge.format.layout import Limits as Limits
    from gguf_forge.format.layout import ValueType as ValueType
    from gguf_forge.format.reader import GGUFFile as GGUFFile
    from gguf_forge.format.reader import Metadata as Metadata
    from gguf_forge.format.reader import Tensor as Tensor
    from gguf_forge.format.reader import UnknownTensor as UnknownTensor
    from gguf_forge.format.sets import Shard as Shard
    from gguf_forge.format.values import Value as Value
    from gguf_forge.format.writer import GGUFWriter as GGUFWriter
    from gguf_forge.measure import roundtrip as roundtrip
    from gguf_forge.opening import open as open  # noqa: A004 - the public name
    from gguf_forge.quality.calibrate import CalibrationRun as CalibrationRun
    from gguf_forge.quality.calibrate import calibrate as calibrate
    from gguf_forge.quality.calibrate import make_imatrix as make_imatrix
    from gguf_forge.quality.evaluate import Evaluation as Evaluation
    from gguf_forge.quality.evaluate import EvaluationTask as EvaluationTask
    from gguf_forge.quality.evaluate import evaluate as evaluate
    from gguf_forge.quality.sequential import Sequential as Sequential
    from gguf_forge.quant.calibration import Calibration as Calibration
    from gguf_forge.quant.codec import dequantize as dequantize
    from gguf_forge.quant.codec import quantize as quantize
    from gguf_forge.quant.imatrix import Imatrix as Imatrix
    from gguf_forge.quant.imatrix import load_imatrix as load_imatrix
    from gguf_forge.quant.roundtrip import RoundTrip as RoundTrip
    from gguf_forge.types import TENSOR_TYPES as TENSOR_TYPES
    from gguf_forge.types import TensorType as TensorType
    from gguf_forge.whole.check import check as check
    from gguf_forge.whole.check.report import Report as Report
    from gguf_forge.whole.check.subject import CheckLimits as CheckLimits
    from gguf_forge.whole.diff import Differences as Differences
    from gguf_forge.whole.diff import diff_files as diff_files
    from gguf_forge.whole.edit import Edited as Edited
    from gguf_forge.whole.edit import Edits as Edits
    from gguf_forge.whole.edit import edit_file as edit_file
    from gguf_forge.whole.extract import extract_file as extract_file
    from gguf_forge.whole.extract import insert_mtp as insert_mtp
    from gguf_forge.whole.hashing import FileHashes as FileHashes
    from gguf_forge.whole.hashing import hash_file as hash_file
    from gguf_forge.whole.join import join as join
    from gguf_forge.whole.provenance import check_manifest as check_manifest
    from gguf_forge.whole.provenance import manifest as manifest
    from gguf_forge.whole.split import merge_files as merge_files
    from gguf_forge.whole.split import split_file as split_file
    from gguf_forge.whole.verify import Verification as Verification
    from gguf_forge.whole.verify import verify as verify

#: Public name -> the module that defines it, imported when the name is first used. All else may move.
_PUBLIC = {
    "Calibration": "gguf_forge.quant.calibration",
    "CalibrationRun": "gguf_forge.quality.calibrate",
    "ChangedInputError": "gguf_forge.errors",
    "CheckLimits": "gguf_forge.whole.check.subject",
    "CheckpointError": "gguf_forge.errors",
    "ConversionError": "gguf_forge.errors",
    "Differences": "gguf_forge.whole.diff",
    "Edited": "gguf_forge.whole.edit",
    "Edits": "gguf_forge.whole.edit",
    "Evaluation": "gguf_forge.quality.evaluate",
    "EvaluationTask": "gguf_forge.quality.evaluate",
    "FileHashes": "gguf_forge.whole.hashing",
    "ForgeError": "gguf_forge.errors",
    "FormatError": "gguf_forge.errors",
    "GGUFFile": "gguf_forge.format.reader",
    "GGUFWriter": "gguf_forge.format.writer",
    "Imatrix": "gguf_forge.quant.imatrix",
    "IncompleteSetError": "gguf_forge.errors",
    "InputError": "gguf_forge.errors",
    "InvalidError": "gguf_forge.errors",
    "LimitError": "gguf_forge.errors",
    "Limits": "gguf_forge.format.layout",
    "Metadata": "gguf_forge.format.reader",
    "OutputError": "gguf_forge.errors",
    "Planned": "gguf_forge.convert.files",
    "QuantError": "gguf_forge.errors",
    "Quantization": "gguf_forge.convert.job",
    "RecipeError": "gguf_forge.errors",
    "Report": "gguf_forge.whole.check.report",
    "RequestError": "gguf_forge.errors",
    "RoundTrip": "gguf_forge.quant.roundtrip",
    "Sequential": "gguf_forge.quality.sequential",
    "Shard": "gguf_forge.format.sets",
    "Splitting": "gguf_forge.convert.splitting",
    "TENSOR_TYPES": "gguf_forge.types",
    "Tensor": "gguf_forge.format.reader",
    "TensorType": "gguf_forge.types",
    "TokenizerCheck": "gguf_forge.convert.vocab.check",
    "TruncatedError": "gguf_forge.errors",
    "UnknownTensor": "gguf_forge.format.reader",
    "UnsafeInputError": "gguf_forge.errors",
    "UnsupportedError": "gguf_forge.errors",
    "Value": "gguf_forge.format.values",
    "ValueType": "gguf_forge.format.layout",
    "Verification": "gguf_forge.whole.verify",
    "calibrate": "gguf_forge.quality.calibrate",
    "check": "gguf_forge.whole.check",
    "check_manifest": "gguf_forge.whole.provenance",
    "check_tokenizer": "gguf_forge.convert.tokenizers",
    "convert_checkpoint": "gguf_forge.convert.files",
    "dequantize": "gguf_forge.quant.codec",
    "diff_files": "gguf_forge.whole.diff",
    "edit_file": "gguf_forge.whole.edit",
    "evaluate": "gguf_forge.quality.evaluate",
    "extract_file": "gguf_forge.whole.extract",
    "hash_file": "gguf_forge.whole.hashing",
    "insert_mtp": "gguf_forge.whole.extract",
    "join": "gguf_forge.whole.join",
    "load_imatrix": "gguf_forge.quant.imatrix",
    "make_imatrix": "gguf_forge.quality.calibrate",
    "manifest": "gguf_forge.whole.provenance",
    "merge_files": "gguf_forge.whole.split",
    "open": "gguf_forge.opening",
    "quantize": "gguf_forge.quant.codec",
    "quantize_file": "gguf_forge.convert.files",
    "roundtrip": "gguf_forge.measure",
    "split_file": "gguf_forge.whole.split",
    "verify": "gguf_forge.whole.verify",
}
#: Public modules.
_MODULES = ("values",)


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"gguf_forge.{name}")
    if name == "__all__":
        return __dir__()
    module = _PUBLIC.get(name)
    if module is None:
        raise AttributeError(f"module 'gguf_forge' has no attribute {name!r}")
    return getattr(importlib.import_module(module), name)


def __dir__() -> list[str]:
    return sorted([*_PUBLIC, *_MODULES])
