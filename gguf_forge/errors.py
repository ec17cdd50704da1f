"""Every error a caller may meet. One base class; messages name the rule, the place and the value found."""


class ForgeError(Exception):
    """Base of all errors raised on bad input, bad arguments or a failed write. One line, no traceback needed."""


class FormatError(ForgeError):
    """The file is not of the expected format or version."""


class TruncatedError(FormatError):
    """Bytes the file declares are not there."""


class LimitError(FormatError):
    """A declared count or length is above a named bound."""


class InvalidError(FormatError):
    """The file breaks a rule of its format."""


class UnsupportedError(ForgeError):
    """The file is well formed, but uses something this version does not read or write."""


class UnsafeInputError(ForgeError):
    """Reading the input would run code or leave its folder."""


class CheckpointError(ForgeError):
    """A checkpoint directory is incomplete or contradicts itself."""


class ConversionError(ForgeError):
    """A checkpoint cannot be mapped to GGUF: architecture, tensor or tokenizer."""


class QuantError(ForgeError):
    """Values cannot be encoded as, or decoded from, a block type."""


class RecipeError(ForgeError):
    """A recipe, override or importance matrix does not fit the model."""


class OutputError(ForgeError):
    """The output could not be written; the old file is as it was."""
