/* Blocks of Q4_0, Q4_1, Q5_0, Q5_1 and Q8_0 out of codes and scales that are given. No float is calculated with. */
#ifndef FORGE_GRID_BLOCKS_H
#define FORGE_GRID_BLOCKS_H

/* What a type's fields count from, whether it has minima, and how many bits a field has. */
typedef struct {
    int from, minima, bits;
} grid_layout;

V_FN const grid_layout *grid_layout_of(int type)
{
    static const grid_layout of[] = {
        [2] = {8, 0, 4}, [3] = {0, 1, 4}, [6] = {16, 0, 5}, [7] = {0, 1, 5}, [8] = {0, 0, 8},
    };
    return type >= 0 && type < (int)(sizeof of / sizeof of[0]) && of[type].bits ? &of[type] : NULL;
}

/* 32 codes, `packed` two to a byte or one, as fields of a block: add - code where flip, else code + add; modulo 256. */
V_FN void grid_fields(const uint8_t *codes, int packed, int add, int flip, VB *fields)
{
    if (packed) {
        const VB both = vb_load_u8(codes), low = vb_field(both, 0, 15), high = vb_field(both, 4, 15);
        fields[0] = vb_zip(low, high, 0);
        fields[1] = vb_zip(low, high, 1);
    } else {
        fields[0] = vb_load_u8(codes);
        fields[1] = vb_load_u8(codes + 16);
    }
    for (int i = 0; i < 2; i++) {
        fields[i] = flip ? vb_sub(vb_set1(add), fields[i]) : vb_sub(fields[i], vb_set1(-add));
    }
}

V_FN uint8_t *grid_block(const VB *fields, int bits, uint8_t *out)
{
    if (bits == 8) {
        vb_store(out, fields[0]);
        vb_store(out + 16, fields[1]);
        return out + 32;
    }
    if (bits == 5) {
        store_u32(out, vb_bits(fields[0], 4) | vb_bits(fields[1], 4) << 16);
        out += 4;
    }
    vb_store(out, vb_or(vb_field(fields[0], 0, 0x0f), vb_field(fields[1], -4, 0xf0)));
    return out + 16;
}

/* `bits`, `minima` and `packed` are constants to the callers, which makes a loop for each. */
V_FN void grid_rows(int bits, int minima, int packed, const forge_grid *g, int from, int64_t groups, uint8_t *out)
{
    const uint8_t *codes = g->codes;
    for (int64_t i = 0; i < groups; i++) {
        const int zero = (g->zeros ? g->zeros[i] : 0) - g->low, add = from + (g->flip ? zero : -zero);
        for (int64_t b = 0; b < g->group; b += 32, codes += packed ? 16 : 32) {
            VB fields[2];
            store_u16(out, g->scales[i]);
            out += 2;
            if (minima) {
                store_u16(out, g->minima[i]);
                out += 2;
            }
            grid_fields(codes, packed, add, g->flip, fields);
            out = grid_block(fields, bits, out);
        }
    }
}

static int grid_blocks(int type, const forge_grid *g, int64_t rows, int64_t width, uint8_t *out)
{
    const grid_layout *l = grid_layout_of(type);
    if (!l || l->minima != (g->minima != NULL)) {
        return FORGE_E_TYPE;
    }
    if (g->group <= 0 || g->group % 32 || width % g->group || (g->bits != 4 && g->bits != 8)) {
        return FORGE_E_WIDTH;
    }
    const int64_t groups = rows * (width / g->group);
    switch (l->bits * 4 + l->minima * 2 + (g->bits == 4)) {
    case 16: grid_rows(4, 0, 0, g, l->from, groups, out); break;
    case 17: grid_rows(4, 0, 1, g, l->from, groups, out); break;
    case 18: grid_rows(4, 1, 0, g, l->from, groups, out); break;
    case 19: grid_rows(4, 1, 1, g, l->from, groups, out); break;
    case 20: grid_rows(5, 0, 0, g, l->from, groups, out); break;
    case 21: grid_rows(5, 0, 1, g, l->from, groups, out); break;
    case 22: grid_rows(5, 1, 0, g, l->from, groups, out); break;
    case 23: grid_rows(5, 1, 1, g, l->from, groups, out); break;
    case 32: grid_rows(8, 0, 0, g, l->from, groups, out); break;
    default: grid_rows(8, 0, 1, g, l->from, groups, out); break;
    }
    return FORGE_OK;
}

#endif
