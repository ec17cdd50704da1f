"""Whether a file's metadata and tensors are what llama.cpp's loader of its architecture asks for.

One function a rule over a Subject. Knows llama.cpp's demands by the tables of `required` and of the shapes of outputs;
must not know tokenizers, or read tensors' data. What a file says of an architecture that is not known is left alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from gguf_forge.convert.shape_exceptions import SHAPES_OF
from gguf_forge.convert.shape_table import COMMON as COMMON_SHAPES
from gguf_forge.convert.shapes import misshapen, row_of
from gguf_forge.errors import escaped, listed
from gguf_forge.format.findings import WARNING
from gguf_forge.format.layout import ValueType
from gguf_forge.whole.check.required import COMMON, IN_EVERY_LAYER, IN_LAYER, KEYS, LAYER, ONCE, TYPES
from gguf_forge.whole.check.subject import Found, Subject

RELEASE = "llama.cpp (release 11549)"
ARCHITECTURE = "general.architecture"
#: Element types that llama.cpp takes for numbers of a type, in arrays of one a layer.
ELEMENTS = {
    ValueType.UINT32: (ValueType.UINT32, ValueType.INT32, ValueType.BOOL),
    ValueType.FLOAT32: (ValueType.FLOAT32,),
}
#: Architectures whose heads must turn as a whole.
WHOLE_ROTATION = {"llama", "llama-embed", "deci", "falcon"}
#: Architectures of which single layers may hold nothing, or share the tensors of others.
EMPTY_LAYERS = {"deci", "hrm_text"}
#: Tensors of a layer, and others of it without which they are of no use: one of these must be there. Whatever loads a
#: layer asks for them together, where it asks for any.
MATES = {
    "ffn_up.weight": ("ffn_down.weight",),
    "ffn_down.weight": ("ffn_up.weight",),
    "ffn_up_exps.weight": ("ffn_down_exps.weight",),
    "ffn_gate_exps.weight": ("ffn_down_exps.weight",),
    "ffn_gate_up_exps.weight": ("ffn_down_exps.weight",),
    "ffn_down_exps.weight": ("ffn_up_exps.weight", "ffn_gate_up_exps.weight"),
    "ffn_up_shexp.weight": ("ffn_down_shexp.weight",),
    "ffn_down_shexp.weight": ("ffn_up_shexp.weight",),
    "attn_q.weight": ("attn_output.weight", "attn_o.weight"),
    "attn_k.weight": ("attn_q.weight", "attn_q_b.weight"),
    "attn_v.weight": ("attn_q.weight", "attn_q_b.weight"),
    "attn_qkv.weight": ("attn_output.weight", "ssm_out.weight"),
    "attn_q_a.weight": ("attn_q_b.weight",),
    "attn_q_b.weight": ("attn_q_a.weight",),
}
#: The type of a key's value, by the key without the architecture's name.
TYPE_OF = {key: kind for kind, keys in TYPES.items() for key in keys.split(" ")}
_LAYER = re.compile(r"blk\.(\d{1,9})\.")
_NUMBER = re.compile(r"(?<=[a-z]\.)\d+(?=\.)")


def _asked(table: Iterable[tuple[str, str]], subject: Subject) -> Iterator[str]:
    """The names in rows of `required` that the file's architecture asks for."""
    for names, archs in table:
        if archs == "*" or subject.arch in archs.split(" "):
            yield from names.split(" ")


def find_architecture(subject: Subject) -> Found:
    """A model names an architecture that llama.cpp knows."""
    if not subject.is_model or not subject.shapes:
        return
    if subject.arch is None:
        found = "must be a STRING" if ARCHITECTURE in subject.values else "is missing: no reader knows what this is"
        yield f"{ARCHITECTURE} {found}", subject.at(ARCHITECTURE)
    elif subject.arch not in SHAPES_OF:
        text = f'{RELEASE} knows no architecture "{escaped(subject.arch, 64)}"'
        yield text, subject.at(ARCHITECTURE), WARNING


def find_required_keys(subject: Subject) -> Found:
    """The keys are there without which llama.cpp refuses a model of the architecture."""
    if not _known(subject):
        return
    asked = [*COMMON, *_asked(KEYS, subject)]
    missing = [key for key in map(subject.key, asked) if key not in subject.values]
    if missing:
        yield f"llama.cpp asks for {listed(missing)}", subject.at()


def find_key_types(subject: Subject) -> Found:
    """Keys that llama.cpp reads have the type that it asks for; it takes no other."""
    if not _named(subject):
        return
    for key in subject.values:
        wanted = TYPE_OF.get(key.removeprefix(f"{subject.arch}.")) if key.startswith(f"{subject.arch}.") else None
        if wanted is None:
            continue
        kind, element = subject.file.metadata.type_of(key), subject.element(key)
        if element is None and kind.name != wanted:
            yield f"must be {wanted}, found {kind.name}", subject.at(key)
        elif element is not None and _by_layer(subject, key) and element not in ELEMENTS[ValueType[wanted]]:
            yield f"must be an array of {wanted}, found one of {element.name}", subject.at(key)


def find_layer_arrays(subject: Subject) -> Found:
    """An array with a value a layer has as many as there are layers."""
    count, predicting = _layers(subject)
    if count is None:
        return
    for wanted, table in ((count, IN_EVERY_LAYER), (count - predicting, IN_LAYER)):
        for suffix in _asked(table, subject):
            key = subject.key(suffix)
            if subject.element(key) is None:
                continue
            found = subject.file.metadata.count_of(key)
            if found != wanted:
                yield f"{found} values for {wanted} layers", subject.at(key)


def find_layers(subject: Subject) -> Found:
    """The layers of the tensors' names are those that the metadata count."""
    count, predicting = _layers(subject)
    if count is None or not subject.is_whole:
        return
    there: dict[int, str] = {}
    for name in subject.shapes:
        match = _LAYER.match(name)
        if match:
            there.setdefault(int(match[1]), name)
    beyond = sorted(number for number in there if number >= count)
    if beyond:
        text = f"layer {beyond[0]} of a model of {count} ({subject.key('block_count')})"
        yield text, subject.at_tensor(there[beyond[0]])
    trunk = range(count - predicting)
    lacking = [number for number in trunk if number not in there]
    if lacking and len(lacking) < len(trunk) and subject.arch not in EMPTY_LAYERS:
        yield f"no tensors of {_layer_list(lacking)}", subject.at(subject.key("block_count"))


def find_missing_tensors(subject: Subject) -> Found:
    """The tensors are there that llama.cpp asks for in every file of the architecture."""
    if not _known(subject) or not subject.is_whole:
        return
    count, predicting = _layers(subject)
    numbers = range(count - predicting if count is not None else 0)
    for kind in _asked((*ONCE, *LAYER), subject):
        choices = kind.split("|")
        if "{l}" not in kind:
            if not any(choice in subject.shapes for choice in choices):
                yield f"no tensor {' or '.join(choices)}", subject.at()
            continue
        lacking = [n for n in numbers if not any(c.replace("{l}", str(n)) in subject.shapes for c in choices)]
        if lacking:
            names = " or ".join(choice.replace("{l}", str(lacking[0])) for choice in choices)
            more = f", nor those of {len(lacking) - 1} more layers" if len(lacking) > 1 else ""
            yield f"no tensor {names}{more}", subject.at()


def find_mates(subject: Subject) -> Found:
    """A layer that has a tensor has those that are of no use without each other."""
    if not _known(subject) or not subject.is_whole:
        return
    for name in subject.shapes:
        match = _LAYER.match(name)
        mates = MATES.get(name[match.end() :]) if match else None
        if match and mates and not any(match[0] + mate in subject.shapes for mate in mates):
            yield f"there is no {' or '.join(match[0] + mate for mate in mates)}", subject.at_tensor(name)


def find_unknown_tensors(subject: Subject) -> Found:
    """Tensors are of a kind that the architecture has: llama.cpp refuses a file with one that it has no use for."""
    if not _known(subject) or not subject.shapes:
        return
    rows = {**COMMON_SHAPES, **SHAPES_OF[str(subject.arch)]}
    seen: set[str] = set()
    for name in subject.shapes:
        kind = _NUMBER.sub("{l}", name)
        if kind not in seen and row_of(kind, rows) is None:
            seen.add(kind)
            yield f"{subject.arch} has no such tensor, llama.cpp refuses it", subject.at_tensor(name)


def find_shapes(subject: Subject) -> Found:
    """Tensors have the shapes that llama.cpp derives from the metadata."""
    if not _known(subject) or not subject.shapes or not _readable(subject):
        return
    for line in misshapen(subject.shapes.items(), subject.values, str(subject.arch)):
        name, _, text = line.partition(" [")
        yield f"[{text}", subject.at_tensor(name)


def find_heads(subject: Subject) -> Found:
    """Heads share key-value heads evenly; in Llama's kind they turn as a whole."""
    count, _ = _layers(subject)
    if count is None or not subject.is_model:
        return
    heads = subject.layers("attention.head_count", count)
    shared = subject.layers("attention.head_count_kv", count)
    for number, (all_heads, kv) in enumerate(zip(heads or [], shared or [], strict=False)):
        if kv > 0 and all_heads % kv:
            text = f"layer {number}: {all_heads} heads are no multiple of {kv} key-value heads"
            yield text, subject.at(subject.key("attention.head_count_kv"))
            break
    width, rotation = subject.number(subject.key("embedding_length")), subject.key("rope.dimension_count")
    if subject.arch in WHOLE_ROTATION and heads and heads[0] > 0 and width is not None:
        size = subject.number(subject.key("attention.key_length")) or width // heads[0]
        turned = subject.number(rotation)
        if turned is not None and turned != size:
            yield f"{turned}, llama.cpp wants the size of a head, {size}", subject.at(rotation)


def find_experts(subject: Subject) -> Found:
    """Of the experts some are used, and groups of them are even."""
    layers, _ = _layers(subject)
    if layers is None or not subject.is_model or subject.arch in ("hunyuan-dense", "hunyuan_vl"):
        return
    count = subject.number(subject.key("expert_count")) or 0
    used = max(subject.layers("expert_used_count", layers) or [0])
    groups = subject.number(subject.key("expert_group_count")) or 0
    chosen = subject.number(subject.key("expert_group_used_count")) or 0
    place = subject.at(subject.key("expert_count"))
    if count > subject.limits.experts:
        yield f"{count} experts, llama.cpp takes {subject.limits.experts}", place
    if used > count:
        yield f"{used} experts are used of {count}", subject.at(subject.key("expert_used_count"))
    elif count > 0 and used <= 0:
        yield f"none of {count} experts is used: {subject.key('expert_used_count')} is missing or 0", place
    if groups > 1 or (groups and not count):
        text = f"{groups} groups, of which {chosen} are used, of {count} experts"
        if groups >= count or count % groups or not 0 < chosen < groups:
            yield f"{text}: uneven, or none or all used", subject.at(subject.key("expert_group_count"))


def _named(subject: Subject) -> bool:
    return subject.is_model and subject.arch in SHAPES_OF


def _known(subject: Subject) -> bool:
    """Whether it is known what llama.cpp asks of this file: a model with tensors."""
    return _named(subject) and bool(subject.shapes)


def _layers(subject: Subject) -> tuple[int | None, int]:
    """How many layers the metadata count, and how many of them only predict further tokens; None where that is absurd,
    which is another rule's finding.
    """
    if not _named(subject):
        return None, 0
    count = subject.number(subject.key("block_count"))
    predicting = subject.number(subject.key("nextn_predict_layers")) or 0
    if count is None or not 0 < count <= subject.limits.layers or not 0 <= predicting <= count:
        return None, 0
    return count, predicting


def _readable(subject: Subject) -> bool:
    """Whether sizes can be derived: the keys are numbers, and as many as there are layers."""
    if _layers(subject)[0] is None:
        return False
    return not any(True for rule in (find_key_types, find_layer_arrays, _odd_patterns) for _ in rule(subject))


def _odd_patterns(subject: Subject) -> Iterator[str]:
    """Keys that sizes follow from, and that are neither single numbers nor arrays of numbers."""
    for key in subject.values:
        if key.startswith(f"{subject.arch}.") and subject.element(key) is ValueType.ARRAY:
            yield key


def _by_layer(subject: Subject, key: str) -> bool:
    names = (name for names, _ in (*IN_LAYER, *IN_EVERY_LAYER) for name in names.split(" "))
    return key.removeprefix(f"{subject.arch}.") in names


def _layer_list(numbers: Iterable[int]) -> str:
    found = list(numbers)
    return f"layer {found[0]}" if len(found) == 1 else f"layers {listed(map(str, found))}"
