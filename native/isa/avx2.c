typedef int forge_avx2_empty;
