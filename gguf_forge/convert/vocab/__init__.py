"""Vocabularies: every tokenizer.* key of a checkpoint, from its tokenizer files.

Knows tokenizers and the reference converter's habits with them. Must not know tensors.
"""

from gguf_forge.convert.vocab.load import BERT, BPE, GEMMA, GEMMA2, GEMMA3, LLAMA, PHI3, QWEN, load_vocab

__all__ = ["BERT", "BPE", "GEMMA", "GEMMA2", "GEMMA3", "LLAMA", "PHI3", "QWEN", "load_vocab"]
