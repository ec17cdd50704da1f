"""The GGUF file format: read, check and write. Knows files and typed values; knows no codecs and no models."""
