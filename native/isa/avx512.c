typedef int forge_avx512_empty;
