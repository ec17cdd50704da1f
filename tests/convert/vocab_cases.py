"""Small checkpoints' tokenizer files, the edits made to them, and what the reference makes of each.

`fixtures/vocab/<files>/` holds the files, `fixtures/vocab/cases.json.xz` the reference's keys for each case. Edits are
data, so that the generator and the tests make the same folders.
"""

import hashlib
import json
import lzma
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gguf_forge.convert.registry import named
from gguf_forge.convert.vocab import Part
from gguf_forge.format import values
from gguf_forge.format.values import Value

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures" / "vocab"
GOLDEN = FIXTURES / "cases.json.xz"

Edit = tuple[Any, ...]
"""("set", file, key, value) · ("drop", file, key) · ("append", file, key, item) · ("remove", file) ·
("write", file, text) · ("named", folder name) · ("added", text, flags): one more added token in tokenizer.json and
tokenizer_config.json."""


@dataclass(frozen=True)
class Base:
    """A model: its folder of files, its family's loaders and steps, GGUF architecture, config.json.

    `pre`: what the reference is told.
    """

    files: str
    parts: tuple[Part, ...]
    architecture: str
    config: dict[str, Any]
    pre: str | None = None


_LLAMA: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 2048,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-5,
    "head_dim": 16,
}
_GEMMA = _LLAMA | {"architectures": ["GemmaForCausalLM"], "model_type": "gemma"}
_GEMMA3 = _LLAMA | {"architectures": ["Gemma3ForCausalLM"], "model_type": "gemma3_text", "sliding_window": 64}
_PHI3 = _LLAMA | {"architectures": ["Phi3ForCausalLM"], "model_type": "phi3", "pad_token_id": 0}
_QWEN2 = _LLAMA | {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "vocab_size": 640}
_LLAMA_BPE = _LLAMA | {"vocab_size": 640}
_GPT2 = {
    "architectures": ["GPT2LMHeadModel"],
    "model_type": "gpt2",
    "vocab_size": 640,
    "n_ctx": 64,
    "n_positions": 64,
    "n_embd": 64,
    "n_head": 4,
    "n_layer": 2,
    "layer_norm_epsilon": 1e-5,
}
_BERT = {
    "architectures": ["BertModel"],
    "model_type": "bert",
    "vocab_size": 400,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "layer_norm_eps": 1e-12,
    "type_vocab_size": 2,
}

BASES = {
    "llama": Base("sentencepiece", named("LlamaForCausalLM").vocab, "llama", _LLAMA),
    "gemma": Base("sentencepiece", named("GemmaForCausalLM").vocab, "gemma", _GEMMA),
    "gemma3": Base("sentencepiece", named("Gemma3ForCausalLM").vocab, "gemma3", _GEMMA3),
    "phi3": Base("sentencepiece", named("Phi3ForCausalLM").vocab, "phi3", _PHI3),
    "qwen2": Base("bytelevel", named("Qwen2ForCausalLM").vocab, "qwen2", _QWEN2, pre="qwen2"),
    "llama-bpe": Base("bytelevel", named("LlamaForCausalLM").vocab, "llama", _LLAMA_BPE, pre="llama-bpe"),
    "gpt2": Base("bytelevel", named("GPT2LMHeadModel").vocab, "gpt2", _GPT2, pre="gpt-2"),
    "bert": Base("wordpiece", named("BertModel").vocab, "bert", _BERT, pre="jina-v2-en"),
}

_CONFIG, _SETTINGS, _TOKENIZER = "config.json", "tokenizer_config.json", "tokenizer.json"


def make_folder(parent: Path, base: Base, edits: list[Edit]) -> Path:
    """Write the files of `base` with `edits` into a folder under `parent`."""
    folder = parent / next((edit[1] for edit in edits if edit[0] == "named"), "Tiny-Model-2M-Chat-v1.2")
    shutil.copytree(FIXTURES / base.files, folder)
    _write(folder / _CONFIG, base.config)
    for edit in edits:
        _apply(folder, *edit)
    return folder


def _apply(folder: Path, verb: str, file: str, *rest: Any) -> None:
    path = folder / file
    if verb == "named":
        return
    if verb == "remove":
        path.unlink(missing_ok=True)
    elif verb == "write":
        path.parent.mkdir(exist_ok=True)
        path.write_text(rest[0], encoding="utf-8")
    elif verb == "added":
        _add_token(folder, file, rest[0])
    else:
        data = _read(path)
        if verb == "set":
            data[rest[0]] = rest[1]
        elif verb == "append":
            data.setdefault(rest[0], []).append(rest[1])
        elif verb == "drop":
            data.pop(rest[0], None)
        else:
            raise ValueError(verb)
        _write(path, data)


def _add_token(folder: Path, text: str, flags: dict[str, Any]) -> None:
    tokenizer, settings = _read(folder / _TOKENIZER), _read(folder / _SETTINGS)
    used = [entry["id"] for entry in tokenizer["added_tokens"]]
    number = max([*used, len(tokenizer["model"]["vocab"]) - 1]) + 1
    token = {"content": text, "single_word": False, "lstrip": False, "rstrip": False, **flags}
    tokenizer["added_tokens"].append({"id": number, **token})
    settings.setdefault("added_tokens_decoder", {})[str(number)] = token
    _write(folder / _TOKENIZER, tokenizer)
    _write(folder / _SETTINGS, settings)


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _write(path: Path, data: Any) -> None:
    path.write_text(json.dumps(data, ensure_ascii=False), encoding="utf-8")


def load_golden() -> dict[str, Any]:
    """{"base/case": {"edits": [...], "kv": [[key, type, hash], ...]} or {"edits": [...], "fails": text}}."""
    golden: dict[str, Any] = json.loads(lzma.decompress(GOLDEN.read_bytes()))
    return golden


def summary(metadata: dict[str, Value]) -> list[list[str]]:
    """[key, type, hash of the bytes] in order, as the golden file has them."""
    return [[key, type_name(value), hash_of(value)] for key, value in metadata.items()]


def type_name(value: Value) -> str:
    """As STRING or ARRAY[INT32]."""
    return f"{value.type.name}[{value.element.name}]" if value.element is not None else value.type.name


def hash_of(value: Value) -> str:
    """The first 16 digits of the SHA-256 of the value's bytes in a file."""
    return hashlib.sha256(values.encode(value)).hexdigest()[:16]
