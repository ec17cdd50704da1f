"""Model families as tables: one file a family, found by `gguf_forge.convert.registry`."""
