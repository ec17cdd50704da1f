"""The rules of `check` by name, and how bad a finding of each is unless the rule says otherwise."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice

from gguf_forge.errors import printable
from gguf_forge.format import findings as form
from gguf_forge.format.findings import ERROR, WARNING, Finding
from gguf_forge.format.layout import ValueType
from gguf_forge.whole.check import model, vocabulary
from gguf_forge.whole.check.subject import Found, Subject
from gguf_forge.whole.check.template import find_in_template

TEMPLATE = "tokenizer.chat_template"


def find_unknown_types(subject: Subject) -> Found:
    """Tensors are of types that ggml has."""
    for name, tensor in subject.file.unknown.items():
        whose = f", probably {tensor.probably}" if tensor.probably else ""
        yield f"unknown tensor type id {tensor.type_id}{whose}", subject.at_tensor(name)


#: Rules over metadata and tensors' records.
RULES: dict[str, tuple[str, Callable[[Subject], Found]]] = {
    "unknown-type": (ERROR, find_unknown_types),
    "architecture": (ERROR, model.find_architecture),
    "required-key": (ERROR, model.find_required_keys),
    "key-type": (ERROR, model.find_key_types),
    "layer-array": (ERROR, model.find_layer_arrays),
    "layers": (ERROR, model.find_layers),
    "missing-tensor": (ERROR, model.find_missing_tensors),
    "lone-tensor": (ERROR, model.find_mates),
    "unknown-tensor": (ERROR, model.find_unknown_tensors),
    "shape": (ERROR, model.find_shapes),
    "heads": (ERROR, model.find_heads),
    "experts": (ERROR, model.find_experts),
    "vocabulary": (ERROR, vocabulary.find_vocabulary),
    "token": (ERROR, vocabulary.find_tokens),
    "special-token": (ERROR, vocabulary.find_special_tokens),
    "merge": (ERROR, vocabulary.find_merges),
    "charsmap": (ERROR, vocabulary.find_charsmap),
}
#: Rules over a chat template's syntax tree, over tensors' data, and over the files of a set: what they promise.
OTHER_RULES: dict[str, tuple[str, str]] = {
    "template-syntax": (ERROR, "Chat templates are Jinja."),
    "template-unsafe": (ERROR, "Chat templates reach for no internals, read no files, and exhaust nobody."),
    "template-lacking": (WARNING, "Chat templates ask for nothing that llama.cpp's own engine lacks."),
    "template-size": (WARNING, "Chat templates are no longer than the limit up to which they are looked into."),
    "not-finite": (ERROR, "Numbers, and scales of blocks, are finite."),
    "lattice": (ERROR, "Codes are of the type's values."),
    "erased": (ERROR, "Codes of a block are not ones throughout, as erased storage is."),
    "constant": (WARNING, "Not all weights of a matrix are the same, nor all of a norm zero."),
    "q2_0-groups": (ERROR, "Q2_0 is laid out in groups of 64 weights."),
    "set": (ERROR, "The files of a set are there, and belong together."),
}


def every_rule() -> dict[str, tuple[str, str]]:
    """Each rule's name: how bad its findings are, and what it asks of a file."""
    said = {name: (form.SEVERITY.get(name, WARNING), _said(rule)) for name, rule in form.RULES.items()}
    return said | {name: (severity, _said(rule)) for name, (severity, rule) in RULES.items()} | OTHER_RULES


def _said(rule: Callable[..., object]) -> str:
    return (rule.__doc__ or "").partition("\n")[0]


def found_in(subject: Subject) -> list[Finding]:
    """The findings of all rules but those over data, format's first; of each rule as many as the limit allows."""
    found = form.findings(subject.file, subject.limits.findings)
    for name, (severity, rule) in RULES.items():
        for text, place, *other in islice(rule(subject), subject.limits.findings):
            found.append(_finding(name, text, place.path, place.offset, place.field, *(other or (severity,))))
    return found + _templates(subject)


def _templates(subject: Subject) -> list[Finding]:
    found = []
    for part in subject.file.parts:
        for entry in part.checked.header.entries:
            if entry.type is not ValueType.STRING or not entry.key.startswith(TEMPLATE):
                continue
            if entry.longest > subject.limits.template_bytes:
                text = f"{entry.longest} bytes, above {subject.limits.template_bytes}: not looked into"
                said = [("template-size", text)]
            else:
                said = list(islice(find_in_template(part.value(entry).value), subject.limits.findings))
            for rule, text in said:
                severity = OTHER_RULES[rule][0]
                found.append(_finding(rule, text, str(part.path), entry.offset, entry.field, severity))
    return found


def _finding(rule: str, text: str, path: str, offset: int | None, field: str | None, severity: str) -> Finding:
    return Finding(rule, path, printable(text), offset, field, severity)
