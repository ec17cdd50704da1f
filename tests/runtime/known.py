"""What is known of checkpoints that llama.cpp does not run as transformers does, and why. Data only."""

#: llama.cpp (xllamacpp 2026.10.11549) refuses the file, as it refuses the reference's.
REFUSED: dict[str, str] = {}
#: The two compute something else, also with the reference's file.
UNLIKE: dict[str, str] = {}
#: No comparison of one token after the other is possible.
NOT_COMPARED: dict[str, str] = {
    "LFM2-ColBERT-350M": "the file has the projection of 1_Dense, which transformers' model is without",
}
