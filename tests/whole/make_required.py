"""Writes gguf_forge/whole/check/required.py: what llama.cpp's loaders ask for whatever else a file says.

    python -m tests.whole.make_required LLAMA_CPP

reads src/llama-arch.cpp, src/llama-hparams.h, src/llama-model.cpp and src/models/*.cpp. Kept is what a loader asks for
unconditionally: calls outside of any branch whose last argument makes nothing optional. What stands in a branch is left
to the loader.
"""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

TABLE = Path(__file__).resolve().parents[2] / "gguf_forge" / "whole" / "check" / "required.py"
#: Columns of the table's lines at most.
WIDTH = 120
#: What llama-model.cpp asks of every architecture.
COMMON = ("context_length", "embedding_length", "block_count")
TYPES = {"uint32_t": "UINT32", "int32_t": "INT32", "int": "INT32", "float": "FLOAT32", "bool": "BOOL"}
TYPES |= {"std::string": "STRING", "llama_token": "INT32", "enum ggml_unary_op": "STRING"}
#: A key that is read: how, which, and into what.
CALL = r"ml\.get_(key|key_or_arr)\s*\(\s*LLM_KV_(\w+)\s*,([^;]*?)\)\s*[;|)&]"
#: Loops over the layers: without and with those that only predict further tokens.
LOOPS = {"n_layer": "LAYER", "n_layer_all": "EVERY_LAYER"}


@dataclass
class Loader:
    """What one class asks for."""

    keys: list[str] = field(default_factory=list)
    tensors: dict[str, list[str]] = field(default_factory=lambda: {"ONCE": [], "LAYER": [], "EVERY_LAYER": []})


@dataclass
class Reference:
    """The sources, and the names in them."""

    root: Path
    texts: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for path in sorted((self.root / "src").glob("**/*.*")):
            if path.suffix in (".cpp", ".h"):
                text = re.sub(r"//[^\n]*|/\*.*?\*/", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
                self.texts[path.relative_to(self.root / "src").as_posix()] = text
        arch = self.texts["llama-arch.cpp"]
        self.archs = dict(re.findall(r"LLM_ARCH_(\w+),\s*\"([^\"]+)\"", arch))
        self.keys = dict(re.findall(r"LLM_KV_(\w+),\s*\"([^\"]+)\"", arch))
        self.tensors = dict(re.findall(r"LLM_TENSOR_(\w+),\s*\"([^\"]+)\"", arch))
        self.models = "\n".join(text for name, text in self.texts.items() if name.startswith("models/"))
        self.fields = {
            name: kind or inner
            for inner, kind, name in re.findall(
                r"^\s*(?:std::array<(\w+),\s*\w+>|(\w+(?:::\w+)?))\s+(\w+)", self.texts["llama-hparams.h"], re.MULTILINE
            )
        }

    def classes(self) -> dict[str, str]:
        """The class that loads each architecture, those that are loaded as others are under these."""
        found = {}
        cases = r"((?:case LLM_ARCH_\w+:\s*)+)\{?\s*return new (llama_model_\w+)"
        for labels, name in re.findall(cases, self.texts["llama-model.cpp"]):
            for arch in re.findall(r"LLM_ARCH_(\w+)", labels):
                found[self.archs[arch]] = name
        return found

    def body(self, name: str, function: str) -> str:
        """The body of a class's function, or of its base's."""
        match = re.search(rf"void {name}::{function}\([^)]*\) \{{", self.models)
        if match is None:
            base = re.search(rf"struct {name}\s*:\s*public (llama_model_\w+)", self.models)
            return self.body(base[1], function) if base and base[1] != "llama_model_base" else ""
        return _block(self.models, match.end())


def _block(text: str, start: int) -> str:
    depth, at = 1, start
    while depth:
        depth += {"{": 1, "}": -1}.get(text[at], 0)
        at += 1
    return text[start : at - 1]


def unconditional(body: str) -> Iterator[tuple[str, str]]:
    """Statements outside of branches: the loop they stand in ("ONCE" for none), and their text."""
    for where, text in _statements(body):
        if where and not re.search(r"\b(if|else|switch|while|do|case|return)\b", text):
            yield where, text


def _statements(body: str) -> Iterator[tuple[str, str]]:
    stack: list[str] = ["ONCE"]
    left = False
    text, parens = "", 0
    at = 0
    while at < len(body):
        char = body[at]
        parens += {"(": 1, ")": -1}.get(char, 0)
        if parens == 0 and char == "{" and not re.search(r"=\s*$", text):
            loop = re.fullmatch(r"\s*for \(int i[l]? = 0; i[l]? < (n_layer|n_layer_all); \+\+i[l]?\)\s*", text)
            plain = not text.strip() and stack[-1]
            stack.append(LOOPS[loop[1]] if loop and stack[-1] == "ONCE" and not left else plain or "")
            text = ""
        elif parens == 0 and char == "}" and len(stack) > 1 and "{" not in text:
            if stack.pop() not in ("ONCE", ""):
                left = False
            text = ""
        elif parens == 0 and char == ";":
            yield ("" if left else stack[-1]), text.strip()
            left = left or bool(re.search(r"\b(continue|return|break)\b", text) and stack[-1] != "ONCE")
            text = ""
        else:
            text += char
        at += 1


def loader_of(reference: Reference, name: str) -> Loader:
    """What a class asks for."""
    found = Loader()
    for where, text in unconditional(reference.body(name, "load_arch_hparams")):
        match = re.match(r"ml\.get_(?:key|key_or_arr|arr|arr_n)\s*\(\s*LLM_KV_(\w+)\s*,(.*)\)$", text, re.DOTALL)
        if where == "ONCE" and match and not re.search(r"(false|!\w+)\s*$", match[2]):
            found.keys.append(reference.keys[match[1]].replace("%s.", ""))
    for where, text in unconditional(reference.body(name, "load_arch_tensors")):
        found.tensors[where] += _tensors(reference, text)
    return found


def _tensors(reference: Reference, text: str) -> list[str]:
    match = re.search(
        r"create_tensor\(tn\(LLM_TENSOR_(\w+)(?:,\s*\"(\w+)\")?(?:,\s*\w+)?\),\s*\{[^}]*\},\s*0\)$", text, re.DOTALL
    )
    if match:
        name = reference.tensors[match[1]].replace("%d", "{l}", 1)
        return [f"{name}.{match[2]}" if match[2] else name] if "%" not in name else []
    if re.match(r"create_tensor_qkv\(layer, il?,.*,\s*0\)$", text, re.DOTALL):
        return [f"blk.{{l}}.attn_{part}.weight|blk.{{l}}.attn_qkv.weight" for part in "qkv"]
    if re.match(r"create_tensor_gate_up_exps\(layer, il?,.*,\s*0\)$", text, re.DOTALL):
        return [f"blk.{{l}}.ffn_{part}_exps.weight|blk.{{l}}.ffn_gate_up_exps.weight" for part in ("gate", "up")]
    return []


def types_of(reference: Reference) -> dict[str, str]:
    """The types of single values."""
    kinds: dict[str, set[str]] = {}
    text = reference.texts["llama-model.cpp"] + reference.models
    for _, key, args in re.findall(CALL, text):
        name = reference.keys[key].replace("%s.", "")
        kinds.setdefault(name, set()).add(_type(reference, args.split(",")[0].strip(), text))
    return {name: found.pop() for name, found in kinds.items() if len(found) == 1 and found != {""}}


def arrays_of(reference: Reference, body: str) -> Iterator[tuple[str, str]]:
    """The keys that may hold one value a layer, and the loop's name for how many there are."""
    for function, key, args in re.findall(CALL, body):
        rest = args.split(",")[1:]
        if function == "key_or_arr" and rest and "n_layer" in rest[0]:
            yield reference.keys[key].replace("%s.", ""), "EVERY_LAYER" if "all" in rest[0] else "LAYER"


def _type(reference: Reference, variable: str, text: str) -> str:
    owner, _, variable = variable.rpartition(".")
    kind = reference.fields.get(variable) if owner else None
    if kind is None:
        match = re.search(rf"\b(uint32_t|int32_t|float|bool|std::string|int)\s+{re.escape(variable)}\b", text)
        kind = match[1] if match else ""
    return TYPES.get(kind, "")


def _rows(found: Mapping[str, list[str]]) -> Iterator[str]:
    """Rows of a table: names that the same architectures ask for, and these."""
    alike: dict[tuple[str, ...], list[str]] = {}
    for name, archs in sorted(found.items(), key=lambda item: (-len(item[1]), item[0])):
        alike.setdefault(tuple(sorted(archs)), []).append(name)
    for asking, names in alike.items():
        row = f'    ("{" ".join(names)}", "{" ".join(asking)}"),'
        if len(row) <= WIDTH:
            yield row
        else:
            yield "    ("
            yield from (line for words in (names, asking) for line in _wrapped(words))
            yield "    ),"


def _wrapped(words: Iterable[str]) -> Iterator[str]:
    """A field of one text of words, on lines as long as they may be."""
    lines = textwrap.wrap(" ".join(words), WIDTH - 14, break_long_words=False, break_on_hyphens=False)
    for number, line in enumerate(lines):
        first, last = not number, number == len(lines) - 1
        opened = "" if len(lines) == 1 else "(" if first else " "
        closed = '",' if len(lines) == 1 else '"),' if last else ' "'
        yield f'        {opened}"{line}{closed}'


def _by_type(types: Mapping[str, str]) -> Iterator[str]:
    for kind in sorted(set(types.values())):
        yield f'    "{kind}":'
        yield from _wrapped(sorted(key for key, own in types.items() if own == kind))


def main() -> None:
    """Writes the table."""
    reference = Reference(Path(sys.argv[1]))
    keys: dict[str, list[str]] = {}
    tensors: dict[str, dict[str, list[str]]] = {"ONCE": {}, "LAYER": {}, "EVERY_LAYER": {}}
    classes = reference.classes()
    for arch, name in classes.items():
        found = loader_of(reference, name)
        for key in dict.fromkeys(found.keys):
            if key not in COMMON and not key.startswith("tokenizer"):
                keys.setdefault(key, []).append(arch)
        for where, names in found.tensors.items():
            for tensor in dict.fromkeys(names):
                tensors[where].setdefault(tensor, []).append(arch)
    arrays: dict[str, dict[str, list[str]]] = {"LAYER": {}, "EVERY_LAYER": {}}
    common = dict(arrays_of(reference, reference.texts["llama-model.cpp"]))
    for arch, name in classes.items():
        read = dict(arrays_of(reference, reference.body(name, "load_arch_hparams"))) | common
        for key, where in read.items():
            arrays[where].setdefault(key, []).append(arch)
    absolute = sorted(key for key in reference.keys.values() if "%s" not in key and key.startswith("xielu"))
    out = [HEAD]
    out += ["#: Keys of every architecture, without its name.", f"COMMON = {COMMON!r}".replace("'", '"')]
    out += ["#: Further keys, and the architectures that ask for them.", "KEYS = ("]
    out += [*_rows(keys), ")"]
    for where, said in SAID.items():
        if not tensors[where]:
            continue
        out += [f"#: {said}", f"{where} = (", *_rows(tensors[where]), ")"]
    out += ["#: Types of single values, and the keys that have them, without the architecture's name."]
    out += ["TYPES = {", *_by_type(types_of(reference)), "}"]
    out += ["#: Keys that stand by themselves, not under the architecture's name."]
    out += [f"ABSOLUTE = {absolute!r}".replace("'", '"')]
    for where, said in SAID_OF_ARRAYS.items():
        rows = {key: archs if len(archs) < len(classes) else ["*"] for key, archs in arrays[where].items()}
        out += [f"#: {said}", f"IN_{where} = (", *_rows(rows), ")"]
    out += [""]
    TABLE.write_text("\n".join(out), encoding="utf-8")


HEAD = '''"""What llama.cpp's loaders ask for whatever else a file says. A table, made by tests/whole/make_required.py.

A row has names of keys or tensors, and the architectures that ask for all of them, each in one text, separated by
blanks; `a|b` is either tensor; {l} the number of a layer.
Source: the load_hparams, load_arch_hparams and load_arch_tensors of llama.cpp (release 11549).
"""

from __future__ import annotations
'''
SAID = {
    "ONCE": "Tensors that stand once in a file.",
    "LAYER": "Tensors of each layer of the model proper.",
    "EVERY_LAYER": "Tensors of each layer, those that only predict further tokens too.",
}

SAID_OF_ARRAYS = {
    "LAYER": "Keys that may hold an array, of one value for each layer of the model proper; `*`: of all architectures.",
    "EVERY_LAYER": "Keys that may hold an array, of one value for each layer, those that only predict too.",
}

if __name__ == "__main__":
    main()
