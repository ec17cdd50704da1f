"""Text to token ids, as llama.cpp does it, from a GGUF file's tokenizer.* keys alone.

Small and plain, for checking vocabularies and not for speed. Knows the kinds of tokenizer.ggml.model: one module each.
Must not know checkpoints.
"""

from gguf_forge.convert.vocab.encode.tokenizer import KINDS, GGUFTokenizer

__all__ = ["KINDS", "GGUFTokenizer"]
