/* What the processor has and the operating system saves. Compiled for plain x86-64. */
#include <cpuid.h>
static inline void cpu_id(int leaf, uint32_t r[4]) { __cpuid_count(leaf, 0, r[0], r[1], r[2], r[3]); }
static inline uint64_t cpu_saved_state(void)
{
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
}

/* EBX of leaf 7 when the system saves all the state bits asked for and F16C is there; 0 otherwise. */
static inline uint32_t cpu_extensions(uint64_t state)
{
    uint32_t r[4];
    cpu_id(0, r);
    if (r[0] < 7) {
        return 0;
    }
    cpu_id(1, r);
    const uint32_t osxsave = 1u << 27, avx = 1u << 28, f16c = 1u << 29, want = osxsave | avx | f16c;
    if ((r[2] & want) != want || (cpu_saved_state() & state) != state) {
        return 0;
    }
    cpu_id(7, r);
    return r[1];
}

/* Whether AVX-512 adds up products of 16-bit pairs in one instruction. */
static inline int cpu_has_avx512_vnni(void)
{
    uint32_t r[4];
    cpu_id(7, r);
    return r[2] >> 11 & 1;
}

static inline int cpu_has_avx2(void) { return cpu_extensions(0x06) >> 5 & 1; }

static inline int cpu_has_avx512(void)
{
    const uint32_t want = 1u << 5 | 1u << 16 | 1u << 17 | 1u << 30 | 1u << 31; /* AVX2, F, DQ, BW, VL */
    return (cpu_extensions(0xe6) & want) == want;
}
