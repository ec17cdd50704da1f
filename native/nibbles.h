/* Bytes of two indices into a table of 16 values: the low nibbles are the first half of the weights. */
#ifndef FORGE_NIBBLES_H
#define FORGE_NIBBLES_H

/* 16 bytes to 32 weights, each value times d. */
V_FN void nibbles_decode32(VFT table, const uint8_t *q, VF d, float *y)
{
    for (int i = 0; i < 16; i += VN) {
        VI byte = vi_load_u8(q + i);
        vf_store(y + i, vf_mul(vf_lookup16(table, vi_and(byte, vi_set1(15))), d));
        vf_store(y + 16 + i, vf_mul(vf_lookup16(table, vi_shr(byte, 4)), d));
    }
}

#endif
