"""Writes fixtures/vocab/cases.json.xz: what llama.cpp's convert_hf_to_gguf.py --vocab-only makes of each case.

    PYTHONPATH=. python -m tests.convert.make_vocab_cases LLAMA_CPP

in an environment with torch, transformers, sentencepiece and this package. The tiny byte-level and WordPiece
vocabularies have no fingerprint the reference knows: its recognition is told the name (`Base.pre`).
"""

import contextlib
import io
import json
import logging
import lzma
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import gguf_forge
from tests.convert.vocab_cases import BASES, GOLDEN, Base, Edit, make_folder, summary

C, T, J = "config.json", "tokenizer_config.json", "tokenizer.json"


def _template(single: list[str], pair: list[str], ids: dict[str, int]) -> dict[str, Any]:
    def part(name: str) -> dict[str, Any]:
        return {"Sequence" if name in "AB" else "SpecialToken": {"id": name, "type_id": 0}}

    tokens = {name: {"id": name, "ids": [ids[name]], "tokens": [name]} for name in {*single, *pair} if name not in "AB"}
    return {
        "type": "TemplateProcessing",
        "single": [part(name) for name in single],
        "pair": [part(name) for name in pair],
        "special_tokens": tokens,
    }


_SPM_IDS, _BPE_IDS = {"<unk>": 0, "<s>": 1, "</s>": 2}, {"!": 0, "#": 2, "<|im_end|>": 602}
_CASED = {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True}
_CASED |= {"strip_accents": False, "lowercase": False}
_FOLD = {"type": "Sequence", "normalizers": [{"type": "NFD"}, {"type": "Lowercase"}, {"type": "StripAccents"}]}

EVERYWHERE: dict[str, list[Edit]] = {
    "plain": [],
    "no-settings": [("remove", T)],
    "no-special-map": [("remove", "special_tokens_map.json")],
    "larger": [("set", C, "vocab_size", 2100)],
    "template-list": [
        ("set", T, "chat_template", [{"name": "default", "template": "D"}, {"name": "tool use", "template": "T"}])
    ],
    "template-without-default": [("set", T, "chat_template", [{"name": "rag!", "template": "R"}])],
    "template-null": [("set", T, "chat_template", None)],
    "template-empty": [("set", T, "chat_template", "")],
    "template-jinja": [("drop", T, "chat_template"), ("write", "chat_template.jinja", "J\n")],
    "template-both": [("set", T, "chat_template", "T"), ("write", "chat_template.jinja", "J")],
    "template-folder": [
        ("drop", T, "chat_template"),
        ("write", "chat_template.jinja", "J"),
        ("write", "additional_chat_templates/rag.jinja", "R"),
    ],
    "template-json": [("drop", T, "chat_template"), ("write", "chat_template.json", '{"chat_template": "JJ"}')],
    "adds-both": [("set", T, "add_bos_token", True), ("set", T, "add_eos_token", True)],
    "adds-none": [("set", T, "add_bos_token", False), ("set", T, "add_eos_token", False)],
    "adds-both-unwrapped": [
        ("set", T, "add_bos_token", True),
        ("set", T, "add_eos_token", True),
        ("set", J, "post_processor", None),
    ],
    "id-list": [("set", C, "eos_token_id", [2, 3]), ("set", C, "bos_token_id", 1), ("set", C, "pad_token_id", 0)],
    "ids-of-config": [
        *(("drop", T, f"{role}_token") for role in ("bos", "eos", "unk", "pad", "cls", "sep")),
        ("set", C, "eos_token_id", 2),
        ("set", C, "sep_token_id", 5),
    ],
    "id-outside": [("set", C, "mask_token_id", 999999)],
    "added-special": [("set", C, "vocab_size", 2100), ("added", "<new>", {"special": True, "normalized": False})],
    "added-user": [("set", C, "vocab_size", 2100), ("added", "a b", {"special": False, "normalized": False})],
    "added-user-mark": [
        ("set", C, "vocab_size", 2100),
        ("added", "\u2581\u2581x", {"special": False, "normalized": True}),
    ],
    "added-looks": [("set", C, "vocab_size", 2100), ("added", "<|x|>", {"special": False, "normalized": False})],
    "pad-new": [("set", C, "vocab_size", 2100), ("set", T, "pad_token", "<|mypad|>")],
    "extra-special": [("set", C, "vocab_size", 2100), ("set", T, "additional_special_tokens", ["<x1>", "<x2>"])],
    "extra-named": [("set", C, "vocab_size", 2100), ("set", T, "extra_special_tokens", {"image_token": "<img>"})],
    "own-eot": [("set", C, "vocab_size", 2100), ("set", T, "eot_token", "<eot>")],
    "class-fast": [("set", T, "tokenizer_class", "PreTrainedTokenizerFast")],
    "class-gpt2": [("set", T, "tokenizer_class", "GPT2Tokenizer")],
    "prefix-space": [("set", T, "add_prefix_space", True)],
    "no-prefix-space": [("set", T, "add_prefix_space", False)],
    "too-small": [("set", C, "vocab_size", 300)],
}

SPM: dict[str, list[Edit]] = {
    "no-model": [("remove", "tokenizer.model")],
    "no-model-added": [("remove", "tokenizer.model"), ("added", "z z", {"special": False, "normalized": False})],
    "no-json": [("remove", J)],
    "model-alone": [("remove", J), ("remove", T), ("remove", "special_tokens_map.json")],
    "added-file": [("set", C, "vocab_size", 2100), ("write", "added_tokens.json", '{"<aj>": 2050, "far": 1000000}')],
    "codellama": [("set", C, "vocab_size", 32016)],
    "granite": [("set", C, "vocab_size", 49152)],
    "ends-with-unk": [("set", J, "post_processor", _template(["A", "<unk>"], ["A", "B"], _SPM_IDS))],
    "ends-with-eos": [
        ("set", J, "post_processor", _template(["<s>", "A", "</s>"], ["<s>", "A", "</s>", "B", "</s>"], _SPM_IDS))
    ],
}

BYTE_LEVEL: dict[str, list[Edit]] = {
    "no-json": [("remove", J), ("drop", T, "added_tokens_decoder"), ("set", T, "tokenizer_class", "GPT2Tokenizer")],
    "added-file": [("drop", T, "added_tokens_decoder"), ("write", "added_tokens.json", '{"<aj>": 605}')],
    "no-added-decoder": [("drop", T, "added_tokens_decoder")],
    "unk-null": [("set", T, "unk_token", None)],
    "starts": [("set", J, "post_processor", _template(["!", "A"], ["!", "A", "!", "B"], _BPE_IDS))],
    "ends": [("set", J, "post_processor", _template(["A", "!"], ["A", "!", "B", "!"], _BPE_IDS))],
    "separates": [("set", J, "post_processor", _template(["#", "A", "!"], ["#", "A", "!", "!", "B", "!"], _BPE_IDS))],
    "separates-open": [("set", J, "post_processor", _template(["#", "A"], ["#", "A", "<|im_end|>", "B"], _BPE_IDS))],
    "roberta": [
        (
            "set",
            J,
            "post_processor",
            {
                "type": "RobertaProcessing",
                "sep": ["!", 0],
                "cls": ["#", 2],
                "trim_offsets": True,
                "add_prefix_space": False,
            },
        )
    ],
}

WORD_PIECE: dict[str, list[Edit]] = {
    "cased": [("set", T, "do_lower_case", False), ("set", J, "normalizer", _CASED)],
    "folding": [("set", J, "normalizer", _FOLD)],
    "no-json": [("remove", J)],
    "no-text": [("remove", "vocab.txt")],
    "one-type": [("set", C, "type_vocab_size", 1)],
}

CARDS = {
    "full": """---
license: apache-2.0
language:
- en
- no
base_model: Qwen/Qwen2.5-7B
datasets:
- HuggingFaceH4/ultrachat_200k
- https://huggingface.co/datasets/foo
- https://huggingface.co/some-org/data-v2
tags:
- chat
- text-generation
pipeline_tag: text-generation
library_name: transformers
---
# Text
""",
    "lists": """---
license:
- mit
- other
license_name: foo
license_link: https://x
base_model:
- a/B-7B-v0.1
- https://huggingface.co/meta-llama/Llama-3.1-8B-Instruct
- ssh://git@host/x
- ./local/model
- {name: Foo, author: Bar, version: "2", repo_url: "https://y", url: ""}
tags: solo
language: de
model_name: My Great Model
model_creator: Someone
model_type: mytype
---
""",
    "names": """---
name: N
author: A
version: v2
organization: O
description: D d
finetune: F
basename: B
size_label: 3B
url: https://u
doi: d
uuid: u
repo_url: r
model_name: not this
---
""",
    "empty": "---\n---\nx",
    "no-front-matter": "# title\n---\nname: x\n---\n",
    "open-ended": "---\nname: Open\n",
    "tabs": "---\ntags:\n\t- a\n\t- b\n---\n",
    "nulls": "---\nbase_model:\ndatasets: []\nname:\nmodel_name: Second\n---\n",
    "other-keys": "---\nbase_models: [x/Y-1B]\ndataset: one\nlanguages: [fr]\n---\n",
    "not-a-mapping": "---\n- a\n---\n",
}

PATHS = (
    "meta-llama/Llama-2-7b-hf", "/abs/path/x", "./out", "a b c", "bloom-7b1", "org/Mixtral-8x7B-Instruct-v0.1", "org/",
    "mistralai/Mistral-7B-v0.1-128k", "foo-Q4_K_M-bf16", "v2-foo", "a/b/c", "Yi-1.5-34B-Chat-16K", "x", "--", "A3B-x",
)  # fmt: skip

FOLDERS = (
    "model", "tiny-random-LlamaForCausalLM", "Foo-Mini-2M-Chat-v1.2", "checkpoint-1000", "SmolLM2-135M", "phi_3", "3B",
    "Qwen2.5-Coder-32B-Instruct-GPTQ-Int4", "A-b-C-2.2M-it", "gemma-3-4b-it-qat-q4_0-unquantized", "large-small-x",
    "Name with spaces 7B", "v1.0-2.0-3", "Llama-2-7b-chat-hf", "Model-iter500-LoRA", "Foo-xl", "Foo-Medium-v2-vision",
)  # fmt: skip

GENERATION = (
    '{"temperature": 0.7, "top_k": 20, "top_p": 0.8, "repetition_penalty": 1.05, "min_p": 0.1, "eos_token_id": [1, 2]}',
    '{"temperature": 1, "mirostat": 2, "mirostat_tau": 5.0, "penalty_last_n": 64, "sequence": "kd", "mirostat_eta": 1}',
    '{"penalty_repeat": 1.2, "repetition_penalty": 1.1, "xtc_probability": 0.5, "xtc_threshold": 0.1, "top_k": null}',
    '{"temperature":',
)

GENERAL: dict[str, list[Edit]] = {
    **{f"card-{name}": [("write", "README.md", text)] for name, text in CARDS.items()},
    **{f"path-{number}": [("set", C, "_name_or_path", path)] for number, path in enumerate(PATHS)},
    **{f"folder-{number}": [("named", folder)] for number, folder in enumerate(FOLDERS)},
    **{f"sampling-{number}": [("write", "generation_config.json", text)] for number, text in enumerate(GENERATION)},
}

_TRIMMED = ("codellama", "granite")
_OF_FILES = {"sentencepiece": SPM, "bytelevel": BYTE_LEVEL, "wordpiece": WORD_PIECE}


def _cases() -> dict[str, tuple[Base, list[Edit]]]:
    result = {}
    for name, base in BASES.items():
        for case, edits in {**EVERYWHERE, **_OF_FILES[base.files]}.items():
            if name != "llama" and case in _TRIMMED:
                continue
            result[f"{name}/{case}"] = (base, edits)
    for case, edits in GENERAL.items():
        result[f"llama/{case}"] = (BASES["llama"], edits)
    return result


def _reference(folder: Path, pre: str | None) -> dict[str, Any]:
    import convert_hf_to_gguf  # type: ignore[import-not-found]
    from conversion.base import TextModel  # type: ignore[import-not-found]

    if pre is not None:
        TextModel.get_vocab_base_pre = lambda self, tokenizer: pre
    out = folder.parent / "out.gguf"
    sys.argv = ["convert_hf_to_gguf.py", "--vocab-only", str(folder), "--outfile", str(out)]
    try:
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            convert_hf_to_gguf.main()
    except BaseException as error:  # noqa: BLE001
        return {"fails": type(error).__name__}
    with gguf_forge.open(out) as model:
        kept = {key: model.metadata.value(key) for key in model.metadata if key.startswith(("tokenizer.", "general."))}
    return {"kv": summary(kept)}


def main() -> int:
    """Run every case."""
    llama_cpp = Path(sys.argv[1]).resolve()
    sys.path[:0] = [str(llama_cpp), str(llama_cpp / "gguf-py")]
    os.chdir(llama_cpp)
    logging.disable(logging.CRITICAL)
    golden = {}
    for name, (base, edits) in _cases().items():
        with tempfile.TemporaryDirectory() as parent:
            folder = make_folder(Path(parent), base, edits)
            (folder / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
            golden[name] = {"edits": edits, **_reference(folder, base.pre)}
    text = json.dumps(golden, ensure_ascii=False, separators=(",", ":"))
    GOLDEN.write_bytes(lzma.compress(text.encode(), preset=9 | lzma.PRESET_EXTREME))
    print(len(golden), "cases,", sum("fails" in case for case in golden.values()), "refused")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
