"""Values and blocks: encode and decode arrays, choose types, weigh inputs. Knows GGUF tensors, no checkpoints."""
