typedef int forge_neon_empty;
