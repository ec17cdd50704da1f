"""Tools for whole GGUF files, one module a tool. Knows files, keys and tensors as they are stored."""
