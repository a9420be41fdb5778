/* Exponentials in float: the figures that all variants share, and one lane in plain C.
 *
 * 2^(y + r) with y a multiple of 1/16 and |r| <= 1/32. Added to a number of that range, SB_EXP_SHIFT leaves y in
 * the low bits of the sum: four of them choose 2^(y - floor y) from a table, the others are floor y. */
#ifndef SB_EXP_H
#define SB_EXP_H

#include "kernels/bits.h"

#define SB_EXP_SHIFT      0x1.8p19f
#define SB_EXP_SHIFT_BITS 0x49400000
#define SB_LOG2E          0x1.715476p0f
#define SB_LOG2E_REST     0x1.4ae0cp-26f
/* (2^r - 1) / r: ln 2, ln^2 2 / 2 and what is linear of the term left out, ln^4 2 / 24 3/4 r / 32^2, and ln^3 2 / 6. */
#define SB_EXP_C1 0x1.62e43p-1f
#define SB_EXP_C2 0x1.ebff92p-3f
#define SB_EXP_C3 0x1.c6b08ep-5f

extern const float sb_exp_table[16]; /* 2^(i / 16) */
/* Its bits less i << 19: y's own bits, shifted so that floor y adds to the exponent, put i there again. */
extern const uint32_t sb_power_16th_float[16];

static inline float sb_exp_root(float t)
{
    return sb_exp_table[sb_float_bits(t) % 16];
}

/* Two multiplications, of which only the second can round. */
static inline float sb_exp_scale(float p, float t)
{
    int32_t n = (int32_t)(sb_float_bits(t) - SB_EXP_SHIFT_BITS) >> 4, half = n >> 1;
    return p * sb_float_of((uint32_t)(half + 127) << 23) *
           sb_float_of((uint32_t)(n - half + 127) << 23);
}

#endif
