"""Reads in llama.cpp which graphs are given scales of whole tensors: `python -m tests.runtime.read_scales SRC`.

SRC is the folder src/ of llama.cpp. A weight counts if each call that is given it (`build_lora_mm(layer.wo, cur,
layer.wo_s)`) is given its scale too. That is what the text says, not what runs: `find_scales` runs architectures of
which there is a checkpoint, and has the last word.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

#: Members of llama_layer, and the tensors that they are.
_OWN_NAMES = """
ffn_gate ffn_up ffn_down ffn_gate_shexp ffn_up_shexp ffn_down_shexp ffn_gate_exps ffn_up_exps ffn_down_exps
ssm_in ssm_out ssm_alpha ssm_beta
"""
MEMBERS = {
    "wq": "attn_q",
    "wk": "attn_k",
    "wv": "attn_v",
    "wo": "attn_output",
    "wqkv": "attn_qkv",
    "wqkv_gate": "attn_gate",
    **{name: name for name in _OWN_NAMES.split()},
}
_USE = re.compile(r"\b(?:layers?\[[^\]]*\]|layer)\s*(?:\.|->)\s*(\w+)\b")
#: What is given weights and computes nothing with them.
_IDLE = {"create_tensor", "create_tensor_qkv", "if", "GGML_ASSERT"}
#: What applies scales of its own: projections of attention, together or apart.
_ATTENTION = ("attn_q", "attn_k", "attn_v", "attn_qkv")


def _call(text: str, at: int) -> tuple[str, str] | None:
    """The name and the arguments of the innermost call around a place; None outside of calls."""
    depth, start = 0, at
    while start > 0:
        here = text[start]
        if here in ";{}" and depth == 0:
            return None
        if here == "(" and depth == 0:
            break
        depth += (here == ")") - (here == "(")
        start -= 1
    depth, stop = 0, start
    while stop < len(text):
        depth += (text[stop] == "(") - (text[stop] == ")")
        if depth == 0:
            break
        stop += 1
    name = re.search(r"(\w+)\s*$", text[:start])
    return (name[1] if name else ""), text[start : stop + 1]


def given(text: str) -> set[str]:
    """The tensors whose scales a graph's source always gives along with them."""
    text = re.sub(r"//[^\n]*", "", text)
    found: set[str] = set()
    without: set[str] = set()
    for use in _USE.finditer(text):
        call = _call(text, use.start() - 1) if use[1] in MEMBERS else None
        if call is not None and call[0] not in _IDLE:
            scaled = re.search(rf"\b{use[1]}_s\b", call[1])
            (found if scaled else without).add(MEMBERS[use[1]])
    if "build_qkv(" in text:
        found.update(_ATTENTION)
    if re.search(r"build_mamba2?_layer\(", text):
        found.update(("ssm_in", "ssm_out"))
    return found - without


def by_class(source: Path) -> dict[str, set[str]]:
    """By class of models (llama_model_*), also those that take another's graph."""
    found = {path.stem.replace("-", "_"): given(path.read_text()) for path in (source / "models").glob("*.cpp")}
    structs = re.split(r"\nstruct (?=llama_model_)", (source / "models" / "models.h").read_text())[1:]
    for struct in structs:
        names = re.findall(r"llama_model_(\w+)", struct.partition("\n};")[0])
        graph = re.search(r"using graph\w*\s*=\s*llama_model_(\w+)::", struct)
        parent = graph[1] if graph else next((n for n in names if n != names[0] and n != "base"), "")
        if not found.get(names[0]) and parent:
            found[names[0]] = found.get(parent, set())
    return found


def by_architecture(source: Path) -> dict[str, set[str]]:
    """By name of the architecture."""
    names = dict(re.findall(r"\{\s*(LLM_ARCH_\w+),\s*\"([^\"]+)\"", (source / "llama-arch.cpp").read_text()))
    made = re.findall(r"case (LLM_ARCH_\w+):\s*return new llama_model_(\w+)", (source / "llama-model.cpp").read_text())
    classes = by_class(source)
    return {names[arch]: classes.get(name, set()) for arch, name in made if arch in names}


if __name__ == "__main__":
    for _name, _tensors in sorted(by_architecture(Path(sys.argv[1])).items()):
        print(f"{_name}: {' '.join(sorted(_tensors))}")
