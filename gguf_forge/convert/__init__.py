"""Checkpoints to GGUF: the tables' vocabulary, the planner, and what carries plans out."""
