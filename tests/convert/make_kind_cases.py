"""Writes fixtures/vocab/kinds: small vocabularies of every further kind, and what the reference makes of each.

    PYTHONPATH=. python -m tests.convert.make_kind_cases LLAMA_CPP

in an environment with torch, transformers, sentencepiece, tiktoken, mistral-common and this package. The vocabularies
are trained here on the project's own README and probes. Files of Python beside them hold what such files of published
models hold, as far as the reference runs it. The reference is asked class by class: its `set_vocab` on a folder, with a
writer that has no file.
"""

from __future__ import annotations

import base64
import hashlib
import importlib
import io
import json
import logging
import lzma
import os
import pkgutil
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import sentencepiece
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from gguf_forge.convert.vocab import probes
from gguf_forge.convert.vocab.byte_level import BYTE_OF_CHAR
from gguf_forge.convert.vocab.cuts import TEKKEN_REGEX
from tests.convert.kinds import CASES, GOLDEN, KINDS, Case

ROOT = Path(__file__).resolve().parents[2]
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_MISTRAL: tuple[str, ...] = ("[INST]", "[/INST]", "[TOOL_CALLS]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]")
_MISTRAL += ("[TOOL_RESULTS]", "[/TOOL_RESULTS]")
_RULES = "FF21\t41\nFF41\t61\nBD\t31 2044 32\n3000\t20\nA\t20\n9\t20\n65 301\tE9\n"
"""Characters and what a normalizer puts for them, in hexadecimal: wide letters, a half, blanks, an accent."""

_QWEN = '''"""What tokenization_qwen.py of Qwen 1 assigns, and as much of a class as the reference asks."""
import base64

from transformers import PreTrainedTokenizer

PAT_STR = r"""%s"""
ENDOFTEXT = "<|endoftext|>"
IMSTART = "<|im_start|>"
IMEND = "<|im_end|>"
EXTRAS = tuple((f"<|extra_{i}|>" for i in range(5)))
SPECIAL_START_ID = %d
SPECIAL_TOKENS = tuple(enumerate(((ENDOFTEXT, IMSTART, IMEND,) + EXTRAS), start=SPECIAL_START_ID))


class QWenTokenizer(PreTrainedTokenizer):
    vocab_files_names = {"vocab_file": "qwen.tiktoken"}

    def __init__(self, vocab_file, **kwargs):
        lines = open(vocab_file, "rb").read().splitlines()
        pairs = (line.split() for line in lines)
        self.mergeable_ranks = {base64.b64decode(token): int(rank) for token, rank in pairs}
        self.special_tokens = {token: index for index, token in SPECIAL_TOKENS}
        super().__init__(**kwargs)

    @property
    def vocab_size(self):
        return len(self.mergeable_ranks) + len(self.special_tokens)

    def get_vocab(self):
        return self.mergeable_ranks

    def _tokenize(self, text, **kwargs):
        return [text]

    def _convert_token_to_id(self, token):
        return 0

    def _convert_id_to_token(self, index):
        return ""
'''
_KIMI = _QWEN.replace("Qwen 1", "Kimi").replace("tokenization_qwen", "tokenization_kimi")
_KIMI = _KIMI.replace("QWenTokenizer", "TikTokenTokenizer").replace("qwen.tiktoken", "tiktoken.model")
_KIMI = _KIMI.replace(
    '''        self.special_tokens = {token: index for index, token in SPECIAL_TOKENS}
''',
    '''        added = kwargs["added_tokens_decoder"].items()
        added = {int(i): getattr(token, "content", None) or token["content"] for i, token in added}
        first = len(self.mergeable_ranks)
        self.special_tokens = {added.get(i, f"<|reserved_token_{i}|>"): i for i in range(first, first + 256)}
        self.eos_id = self.special_tokens["[EOS]"]
        self.model = type("Model", (), {"_mergeable_ranks": self.mergeable_ranks})
''',
)

_DNA = '''"""What tokenizer.py of Carbon assigns, and as much of a class as the reference asks."""
import itertools

from transformers import PreTrainedTokenizer, PreTrainedTokenizerFast


class HybridDNATokenizer(PreTrainedTokenizer):
    vocab_files_names = {"vocab_file": "tokenizer.json"}

    def __init__(self, vocab_file, **kwargs):
        self.base = PreTrainedTokenizerFast(tokenizer_file=vocab_file)
        self.kmers = ["".join(word) for word in itertools.product("ATCG", repeat=6)]
        words = ["<dna>", "</dna>", "<oov>", *self.kmers]
        start = len(self.base.get_vocab())
        words += [f"<unused_{i}>" for i in range(-(start + len(words)) % 128)]
        self.dna_token_to_id = {word: start + i for i, word in enumerate(words)}
        self.vocab = {**self.dna_token_to_id, **self.base.get_vocab()}
        super().__init__(**kwargs)

    @property
    def vocab_size(self):
        return max(self.vocab.values()) + 1

    def get_vocab(self):
        return dict(self.vocab)

    def _tokenize(self, text, **kwargs):
        return list(text)

    def _convert_token_to_id(self, token):
        return self.vocab.get(token, 0)

    def _convert_id_to_token(self, index):
        return ""
'''


def lines() -> Iterator[str]:
    yield from (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    yield from (line for text in probes.chosen_texts() for line in text.splitlines())


def pieces(path: Path, kind: str, size: int, **how: Any) -> None:
    model = io.BytesIO()
    rules = path.parent / "rules.tsv"
    rules.write_text(_RULES, encoding="utf-8")
    if kind == "unigram":
        how["normalization_rule_tsv"] = str(rules.relative_to(ROOT))  # the model keeps this path
    else:
        how |= {"normalization_rule_name": "identity", "remove_extra_whitespaces": False, "byte_fallback": True}
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=lines(), model_writer=model, model_type=kind, vocab_size=size, hard_vocab_limit=False,
        minloglevel=2, num_threads=1, character_coverage=0.98, **how,
    )  # fmt: skip
    rules.unlink()
    path.write_bytes(model.getvalue())


def byte_pairs(size: int) -> list[str]:
    """The tokens of a byte-level BPE by rank."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = sorted(BYTE_OF_CHAR, key=BYTE_OF_CHAR.__getitem__)
    trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(lines(), trainer)
    vocab = tokenizer.get_vocab()
    merged = [token for token in sorted(vocab, key=vocab.__getitem__) if len(token) > 1]
    return alphabet + merged


def ranks_text(tokens: list[str]) -> str:
    data = (bytes(BYTE_OF_CHAR[char] for char in token) for token in tokens)
    return "".join(f"{base64.b64encode(token).decode()} {rank}\n" for rank, token in enumerate(data))


def write(path: Path, data: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    spread = None if "vocab" in data else 1
    text = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False, indent=spread)
    path.write_text(text, encoding="utf-8")


def auto(module: str, name: str, **more: Any) -> dict[str, Any]:
    return {"tokenizer_class": name, "auto_map": {"AutoTokenizer": [f"{module}.{name}", None]}, **more}


def make_pieces() -> None:
    for name in ("t5", "t5-bpe", "xlmr", "spm"):
        (KINDS / name).mkdir(parents=True, exist_ok=True)
    ends = {"bos_id": -1, "eos_id": 1, "unk_id": 2, "pad_id": 0}
    pieces(KINDS / "t5" / "spiece.model", "unigram", 400, **ends)
    write(KINDS / "t5" / "added_tokens.json", {"<extra_id_0>": 401})
    write(KINDS / "t5" / "tokenizer_config.json", {"tokenizer_class": "T5Tokenizer", "eos_token": "</s>"})
    pieces(KINDS / "t5-bpe" / "tokenizer.model", "bpe", 480)
    pieces(KINDS / "xlmr" / "sentencepiece.bpe.model", "unigram", 400)
    pieces(KINDS / "spm" / "tokenizer.model.v3", "bpe", 480, control_symbols=list(_MISTRAL))


def make_xlmr_json() -> None:
    model = sentencepiece.SentencePieceProcessor(model_file=str(KINDS / "xlmr" / "sentencepiece.bpe.model"))
    vocab = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    vocab += [(model.id_to_piece(i), model.get_score(i)) for i in range(3, model.vocab_size())] + [("<mask>", 0.0)]
    tokenizer = Tokenizer(models.Unigram(vocab, unk_id=3))
    from gguf_forge.convert.vocab.protobuf import read_piece_model

    charsmap = read_piece_model(KINDS / "xlmr" / "sentencepiece.bpe.model").charsmap
    tokenizer.normalizer = normalizers.Precompiled(charsmap)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme="always")]
    )
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.add_special_tokens(["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    write(KINDS / "xlmr-json" / "tokenizer.json", tokenizer.to_str())
    named = {"bos": "<s>", "eos": "</s>", "sep": "</s>", "cls": "<s>", "unk": "<unk>", "pad": "<pad>", "mask": "<mask>"}
    settings = {f"{role}_token": token for role, token in named.items()}
    write(KINDS / "xlmr-json" / "tokenizer_config.json", {**settings, "tokenizer_class": "XLMRobertaTokenizer"})


def make_ranks() -> None:
    tokens = byte_pairs(420)
    text, first = ranks_text(tokens), len(tokens)
    write(KINDS / "qwen" / "qwen.tiktoken", text)
    write(KINDS / "qwen" / "tokenization_qwen.py", _QWEN % (_GPT2, first))
    write(KINDS / "qwen" / "tokenizer_config.json", auto("tokenization_qwen", "QWenTokenizer", model_max_length=512))
    named = {"[BOS]": first, "[EOS]": first + 1, "<|im_end|>": first + 7}
    decoder = {str(number): {"content": token, "special": True} for token, number in named.items()}
    settings = {"bos_token": "[BOS]", "eos_token": "[EOS]", "added_tokens_decoder": decoder}
    write(KINDS / "kimi" / "tiktoken.model", text)
    write(KINDS / "kimi" / "tokenization_kimi.py", _KIMI % (_GPT2, first))
    write(KINDS / "kimi" / "tokenizer_config.json", auto("tokenization_kimi", "TikTokenTokenizer", **settings))
    make_tekken(tokens)


def make_dna() -> None:
    """Two of its words are words of DNA, too."""
    tokens = byte_pairs(420)
    merges, known = [], set(tokens[:256])
    doubles = ["CC", "CCC", "CCCCCC", "GA", "TT", "GATT", "CA", "GATTCA"]
    for token in [*tokens[256:], *doubles]:
        left = max((n for n in range(1, len(token)) if {token[:n], token[n:]} <= known), default=0)
        if left and token not in known:
            merges.append((token[:left], token[left:]))
            known.add(token)
    order = tokens[:256] + [left + right for left, right in merges]
    tokenizer = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(order)}, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(_SPECIAL))
    tokenizer.add_tokens(["<think>"])
    write(KINDS / "dna" / "tokenizer.json", tokenizer.to_str())
    write(KINDS / "dna" / "tokenizer.py", _DNA)
    decoder = {
        str(number): {"content": token.content, "special": token.special, "normalized": token.normalized}
        for number, token in tokenizer.get_added_tokens_decoder().items()
    }
    named = {"eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>", "k": 6, "add_prefix_space": False}
    write(
        KINDS / "dna" / "tokenizer_config.json",
        auto("tokenizer", "HybridDNATokenizer", added_tokens_decoder=decoder, **named),
    )


def make_tekken(tokens: list[str]) -> None:
    raw = [bytes(BYTE_OF_CHAR[char] for char in token) for token in tokens]
    vocab = [
        {"rank": rank, "token_bytes": base64.b64encode(token).decode(), "token_str": token.decode(errors="replace")}
        for rank, token in enumerate(raw)
    ]
    config: dict[str, Any] = {"pattern": TEKKEN_REGEX, "num_vocab_tokens": len(vocab), "default_num_special_tokens": 30}
    config["default_vocab_size"] = len(vocab) + 30 - 4
    write(KINDS / "tekken" / "tekken.json", {"config": {**config, "version": "v3"}, "vocab": vocab})
    texts = ["<unk>", "<s>", "</s>", *_MISTRAL, "<pad>", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[TOOL_CONTENT]"]
    texts += ["[ARGS]", "[CALL_ID]", "[PREFIX]", "[MIDDLE]", "[SUFFIX]"]
    special = [{"rank": rank, "token_str": text, "is_control": True} for rank, text in enumerate(texts)]
    listed = {"config": {**config, "version": "v11"}, "vocab": vocab, "special_tokens": special}
    write(KINDS / "tekken-v11" / "tekken.json", listed)


def make_others() -> None:
    words = [b"\n\n", "\u00e9".encode(), b" the", b"ing", b"\\n", b"'\""]
    words += [bytes([byte]) for byte in range(256) if bytes([byte]) not in words]
    rows = []
    for number, word in enumerate(words, 1):
        try:
            shown = repr(word.decode())
        except UnicodeDecodeError:
            shown = repr(word)
        rows.append(f"{number} {shown} {len(word)}\n")
    write(KINDS / "rwkv" / "rwkv_vocab_v20230424.txt", "".join(rows))
    write(KINDS / "rwkv" / "tokenizer_config.json", {"tokenizer_class": "RwkvTokenizer"})
    entries: list[list[Any]] = [["<|plamo:unk|>", 0.0, "UNKNOWN"], ["<|plamo:bos|>", 0.0, "CONTROL"]]
    entries += [["<|plamo:eos|>", 0.0, "CONTROL"], ["<|plamo:pad|>", 0, "CONTROL"], ["<|plamo:op|>", 0.0, "NORMAL"]]
    entries += [[f"<0x{byte:02X}>", -9.5, "BYTE", None] for byte in range(256)]
    entries += [[token, -float(rank) / 8] for rank, token in enumerate(["a", "b", " ", "the", "\u304b\u306a", "\n\n"])]
    write(KINDS / "plamo" / "tokenizer.jsonl", "".join(json.dumps(e, ensure_ascii=False) + "\n" for e in entries))
    named: dict[str, Any] = {f"{role}_token": f"<|plamo:{role}|>" for role in ("bos", "eos", "pad")}
    named["sep_token"] = None
    write(KINDS / "plamo" / "tokenizer_config.json", {**named, "tokenizer_class": "Plamo2Tokenizer"})


class Reference:
    """The reference's classes, each asked for the keys it writes of a folder."""

    def __init__(self, place: Path) -> None:
        sys.path[:0] = [str(place), str(place / "gguf-py")]
        logging.disable(logging.CRITICAL)
        os.environ["HF_HUB_OFFLINE"] = "1"
        import conversion  # type: ignore[import-not-found]
        import gguf

        conversion.load_all_models()
        names = [found.name for found in pkgutil.iter_modules(conversion.__path__)]
        self._modules = [importlib.import_module(f"conversion.{name}") for name in names]
        self._gguf = gguf

    def keys(self, case: Case) -> list[list[str]]:
        kind = next(vars(module)[case.reference] for module in self._modules if case.reference in vars(module))
        model = kind.__new__(kind)
        model.dir_model, model.is_mistral_format = KINDS / case.folder, case.native
        model.hparams, model.disable_mistral_community_chat_template = dict(case.config), False
        model.gguf_writer = self._gguf.GGUFWriter(path=None, arch="llama")
        model.origin_hf_arch = model.target_model_dir = None
        if case.pre is not None:
            model.get_vocab_base_pre = lambda _: case.pre
        model.set_vocab()
        written = model.gguf_writer.kv_data[0].items()
        return [self._summed(key, value) for key, value in written if not key.startswith("general.")]

    def _summed(self, key: str, value: Any) -> list[str]:
        data = self._packed(value)
        kind = value.type.name
        if kind == "ARRAY":
            kind = f"ARRAY[{self._gguf.GGUFValueType(int.from_bytes(data[:4], 'little')).name}]"
        return [key, kind, hashlib.sha256(data).hexdigest()[:16]]

    def _packed(self, value: Any) -> bytes:
        writer = self._gguf.GGUFWriter(path=None, arch="llama")
        return bytes(writer._pack_val(value.value, value.type, add_vtype=False, sub_type=value.sub_type))


def main(place: Path) -> None:
    shutil.rmtree(KINDS, ignore_errors=True)
    for make in (make_pieces, make_xlmr_json, make_ranks, make_dna, make_others):
        make()
    reference = Reference(place)
    golden = {name: reference.keys(case) for name, case in CASES.items()}
    GOLDEN.write_bytes(lzma.compress(json.dumps(golden).encode(), preset=9 | lzma.PRESET_EXTREME))
    print(f"{len(golden)} cases")  # noqa: T201


if __name__ == "__main__":
    main(Path(sys.argv[1]))
