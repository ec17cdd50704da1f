"""GGUF Forge: make, read, check and change .gguf files."""
