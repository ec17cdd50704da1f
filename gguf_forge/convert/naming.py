"""What a model's name says: organization, base name, size, version, fine-tune; and the file name made of them.

The rules are the reference converter's (gguf-py metadata and naming convention). Must not know files or GGUF values.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from math import prod

_VERSION = re.compile(r"(v|iter)?\d+([.]\d+)*", re.IGNORECASE)
_TYPE = re.compile(r"i?q\d(_\w)*|b?fp?(16|32)", re.IGNORECASE)
_SIZE = re.compile(r"(([A]|\d+[x])?\d+([._]\d+)?[KMBT][\d]?|small|mini|medium|large|x?xl)", re.IGNORECASE)
_FINETUNE = re.compile(r"chat|instruct|vision|lora", re.IGNORECASE)
_KEEPS_CASE = re.compile(r"^(v\d+(?:\.\d+)*|\d.*)$")


@dataclass(frozen=True)
class ParameterCounts:
    """Elements of a model's tensors. `shared`: outside stacked experts; `expert`: of one expert of each stack."""

    total: int = 0
    shared: int = 0
    expert: int = 0
    experts: int = 0

    @classmethod
    def of(cls, tensors: Iterable[tuple[str, tuple[int, ...]]]) -> "ParameterCounts":
        """Count GGUF tensors, given as (name, shape in NumPy order). Stacked experts are those named *_exps.*

        A model that holds adapters has no size that one would name it by: zeros.
        """
        total = shared = expert = 0
        stacks: list[int] = []
        for name, shape in tensors:
            if name.endswith(".lora_a"):
                return cls()
            size = prod(shape)
            total += size
            if "_exps." in name and len(shape) >= 3:
                stacks.append(shape[-2 if ".bias" in name else -3])
                expert += size // stacks[-1]
            else:
                shared += size
        return cls(total, shared, expert, sum(stacks) // len(stacks) if stacks else 0)

    def size_label(self) -> str | None:
        """As "8B" or "8x7B", or None for a model without tensors."""
        if not self.total:
            return None
        if self.experts:
            return f"{self.experts}x{_rounded(self.shared + self.expert)}"
        return _rounded(self.total)


def _rounded(count: int) -> str:
    """Two significant digits at least: 6.7B, 70B, 405B."""
    scale, suffix = 1e-3, "K"
    for bound, larger_scale, larger_suffix in ((1e6, 1e-6, "M"), (1e9, 1e-9, "B"), (1e12, 1e-12, "T")):
        if count > bound:
            scale, suffix = larger_scale, larger_suffix
    scaled = count * scale
    digits = max(2 - len(str(round(scaled)).lstrip("0")), 0)
    return f"{scaled:.{digits}f}{suffix}"


@dataclass(frozen=True)
class NameParts:
    """The parts of a model id; None where it does not say."""

    name: str | None = None
    organization: str | None = None
    basename: str | None = None
    finetune: str | None = None
    version: str | None = None
    size_label: str | None = None


@dataclass
class _Part:
    text: str
    roles: set[str]


def split_name(model_id: str | None, total_params: int) -> NameParts:
    """Take `[organization/]name` apart. `total_params` (0: unknown) tells a size label from a context length."""
    if model_id is None:
        return NameParts()
    if " " in model_id:  # a name for people, not an id
        return NameParts(name=model_id)
    organization, slash, name = model_id.partition("/")
    if not slash:
        organization, name = "", model_id
    parts = [_judge(text, number, total_params) for number, text in enumerate(p for p in name.split("-") if p)]
    _drop_size_words(parts)
    _find_basename(parts)
    basename, finetune = _joined(parts, "basename"), _joined(parts, "finetune")
    sizes = dict.fromkeys(part.text for part in parts if "size_label" in part.roles)
    size_label = "-".join(sizes) or None
    version = "-".join(p.text for p in parts if "version" in p.roles and "basename" not in p.roles) or None
    if size_label is None and finetune is None and version is None:
        basename = None  # too little to go by
    if not slash or organization.startswith("."):
        return NameParts(name, None, basename, finetune, version, size_label)
    return NameParts(name, organization, basename, finetune, version, size_label)


def _judge(text: str, number: int, total_params: int) -> _Part:
    if _VERSION.fullmatch(text):
        return _Part(text, {"version"})
    if _TYPE.fullmatch(text):
        return _Part(text.upper(), {"type"})
    if number > 0 and _SIZE.fullmatch(text):
        return _judge_size(text.replace("_", "."), total_params)
    if number > 0 and _FINETUNE.fullmatch(text):
        return _Part(text, {"finetune"})
    return _Part(text, set())


def _judge_size(text: str, total_params: int) -> _Part:
    if text[-1].isdecimal():  # bloom-7b1
        text = f"{text[:-2]}.{text[-1]}{text[-2]}"
    if len(text) > 1 and text[-2].isdecimal():
        text = text[:-1] + text[-1].upper()
    try:
        size = float(text[:-1]) * 1000.0 ** " KMBT".find(text[-1])
    except ValueError:  # a word, or of the form 8x7B
        return _Part(text, {"size_label"})
    if total_params and abs(size - total_params) > 7 * total_params // 8:  # a context length, as in 128k
        return _Part(text[:-1] + text[-1].lower(), {"finetune"})
    return _Part(text, {"size_label"})


def _drop_size_words(parts: list[_Part]) -> None:
    """Words like `mini` are sizes only where no number is."""
    sized = [part for part in parts if "size_label" in part.roles]
    if any(char.isdecimal() for part in sized for char in part.text):
        for part in sized:
            if part.text.isalpha():
                part.roles.remove("size_label")


def _find_basename(parts: list[_Part]) -> None:
    """The leading plain words and versions, without a version at their end; plain words after them are a fine-tune."""
    leading = True
    for part in parts:
        if leading and ((not part.roles and part.text[0].isalpha()) or "version" in part.roles):
            part.roles.add("basename")
            continue
        leading = False
        if not part.roles:
            part.roles.add("finetune")
    for part in reversed(parts):
        if "basename" not in part.roles or len(part.roles) == 1:
            break
        part.roles.remove("basename")


def _joined(parts: list[_Part], role: str) -> str | None:
    return "-".join(part.text for part in parts if role in part.roles) or None


def title(text: str) -> str:
    """A title of an id: words in capitals or with numbers stay as they are."""
    words = text.strip().replace("-", " ").split()
    return " ".join(word.title() if word.islower() and not _KEEPS_CASE.match(word) else word for word in words)


def file_stem(parts: NameParts, output_type: str | None) -> str:
    """The file name, without suffix, of GGUF's naming convention: Base-Size-Finetune-Version-TYPE."""
    name = parts.basename if parts.basename is not None else parts.name
    stem = "ggml-model" if name is None else _dashed(name).replace("/", "-")
    stem += f"-{parts.size_label}" if parts.size_label is not None else ""
    for part in (parts.finetune, parts.version):
        stem += f"-{_dashed(part)}" if part is not None else ""
    return stem + (f"-{_dashed(output_type).upper()}" if output_type is not None else "")


def _dashed(text: str) -> str:
    return text.strip().replace(" ", "-")


def fill_file_name(template: str, output_type: str) -> str:
    """Put a type into a file name that holds {ftype}, {outtype} or {} (lower case), {FTYPE} or {OUTTYPE} (upper)."""
    template = re.sub(r"\{(ftype|outtype|)\}", output_type.lower(), template)
    return re.sub(r"\{(FTYPE|OUTTYPE)\}", output_type.upper(), template)
