"""Models run by llama.cpp's library: what goes into each matrix product, and what comes out of the model."""
