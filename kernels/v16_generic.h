/* Sixteen float lanes in plain C: the definition that the other v16_<isa>.h headers match bit for
 * bit. Maximum and minimum keep the second operand when the two do not compare. */
#ifndef SB_V16_GENERIC_H
#define SB_V16_GENERIC_H

#include <math.h>
#include <string.h>

#include "kernels/exp.h"
#include "kernels/field.h"
#include "kernels/internal.h"

#define SB_V16_TABLE sb_kernels_generic
/* Rows of a product tile, of one tile of quantised weights, and of several; vectors of sums among which few rows may
 * spread quantised blocks. */
#define SB_TILE_ROWS          4
#define SB_BLOCK_ROWS         SB_TILE_ROWS
#define SB_BLOCK_ROWS_OF_MANY SB_TILE_ROWS
#define SB_BLOCK_CHAINS       0

typedef struct {
    float l[16];
} v16;

#define EACH_LANE(expr)          \
    v16 r;                       \
    for (int j = 0; j < 16; j++) \
        r.l[j] = (expr);         \
    return r

static inline v16 v_set1(float x)
{
    EACH_LANE(x);
}

static inline v16 v_zero(void)
{
    return v_set1(0.0f);
}

static inline v16 v_load(const float *p)
{
    EACH_LANE(p[j]);
}

/* The first n lanes; the rest is zero. Nothing beyond p[n - 1] is read. */
static inline v16 v_load_n(const float *p, size_t n)
{
    EACH_LANE((size_t)j < n ? p[j] : 0.0f);
}

static inline void v_store(float *p, v16 a)
{
    memcpy(p, a.l, sizeof a.l);
}

static inline void v_store_n(float *p, v16 a, size_t n)
{
    for (size_t j = 0; j < n && j < 16; j++)
        p[j] = a.l[j];
}

/* Lanes from n on become `fill`. */
static inline v16 v_keep_n(v16 a, size_t n, float fill)
{
    EACH_LANE((size_t)j < n ? a.l[j] : fill);
}

static inline v16 v_add(v16 a, v16 b)
{
    EACH_LANE(a.l[j] + b.l[j]);
}

static inline v16 v_sub(v16 a, v16 b)
{
    EACH_LANE(a.l[j] - b.l[j]);
}

static inline v16 v_mul(v16 a, v16 b)
{
    EACH_LANE(a.l[j] * b.l[j]);
}

static inline v16 v_div(v16 a, v16 b)
{
    EACH_LANE(a.l[j] / b.l[j]);
}

static inline v16 v_fma(v16 a, v16 b, v16 c)
{
    EACH_LANE(fmaf(a.l[j], b.l[j], c.l[j]));
}

static inline v16 v_max(v16 a, v16 b)
{
    EACH_LANE(a.l[j] > b.l[j] ? a.l[j] : b.l[j]);
}

static inline v16 v_min(v16 a, v16 b)
{
    EACH_LANE(a.l[j] < b.l[j] ? a.l[j] : b.l[j]);
}

/* Bit j: a[j] == b. */
static inline unsigned v_equal_mask(v16 a, float b)
{
    unsigned mask = 0;
    for (int j = 0; j < 16; j++)
        mask |= (unsigned)(a.l[j] == b) << j;
    return mask;
}

/* Lanes join pairwise: + 8, + 4, + 2, + 1. */
static inline float v_sum(v16 a)
{
    for (int half = 8; half > 0; half /= 2)
        for (int j = 0; j < half; j++)
            a.l[j] += a.l[j + half];
    return a.l[0];
}

static inline float v_largest(v16 a)
{
    for (int half = 8; half > 0; half /= 2)
        for (int j = 0; j < half; j++)
            a.l[j] = a.l[j] > a.l[j + half] ? a.l[j] : a.l[j + half];
    return a.l[0];
}

/* 2^(y - floor y), where t is SB_EXP_SHIFT plus y, a multiple of 1/16. */
static inline v16 v_root(v16 t)
{
    EACH_LANE(sb_exp_root(t.l[j]));
}

/* 2^y for -126 <= y < 128, else nonsense. */
static inline v16 v_power_16th(v16 t)
{
    EACH_LANE(sb_float_of(sb_power_16th_float[sb_float_bits(t.l[j]) % 16] +
                          (sb_float_bits(t.l[j]) << 19)));
}

/* 0 where x < least. */
static inline v16 v_zero_if_below(v16 a, v16 x, float least)
{
    EACH_LANE(x.l[j] < least ? 0.0f : a.l[j]);
}

/* p * 2^floor y, with such a t, for |y| <= 252; only one rounding. */
static inline v16 v_scale_by_power(v16 p, v16 t)
{
    EACH_LANE(sb_exp_scale(p.l[j], t.l[j]));
}

/* 16 halves to floats. */
static inline v16 v_load_f16(const void *p)
{
    uint16_t h[16];
    memcpy(h, p, sizeof h);
    EACH_LANE(sb_f16_to_f32(h[j]));
}

/* 16 bfloat16 to floats. */
static inline v16 v_load_bf16(const void *p)
{
    uint16_t h[16];
    memcpy(h, p, sizeof h);
    EACH_LANE(sb_bf16_to_f32(h[j]));
}

/* Sixteen words of packed weights. */
typedef struct {
    uint32_t l[16];
} v16_words;

static inline v16_words v_load_words(const void *p)
{
    v16_words w;
    memcpy(w.l, p, sizeof w.l);
    return w;
}

/* The bfloat16 in the low halves, in the high halves. */
static inline v16 v_low_bf16(v16_words w)
{
    EACH_LANE(sb_float_of(w.l[j] << 16));
}

static inline v16 v_high_bf16(v16_words w)
{
    EACH_LANE(sb_float_of(w.l[j] & 0xffff0000u));
}

/* (u - 2^(bits - 1)) / 2^bits, where u is the number of `bits` bits from bit `from` on; both are constants
 * at every call. */
static inline v16 v_field(v16_words w, int from, int bits)
{
    EACH_LANE((float)((int)(w.l[j] >> from & ((1u << bits) - 1)) - (1 << (bits - 1))) /
              (float)(1 << bits));
}

/* (u - 8) / 16, where u is the nibble of a step, a constant one of eight. */
static inline __attribute__((always_inline)) v16 v_nibble(v16_words w, int step)
{
    return v_field(w, sb_nibble_bit(step), 4);
}

/* Lane j of a[i] becomes lane i of a[j]. */
static inline void v_transpose(v16 a[16])
{
    for (int i = 0; i < 16; i++)
        for (int j = 0; j < i; j++) {
            const float x = a[i].l[j];
            a[i].l[j] = a[j].l[i];
            a[j].l[i] = x;
        }
}

/* The first n lanes as halves, as bfloat16, and as words of two bfloat16; all to the nearest, ties to even. */
static inline void v_store_f16_n(void *p, v16 a, size_t n)
{
    for (size_t j = 0; j < n && j < 16; j++)
        memcpy((uint16_t *)p + j, &(uint16_t){ sb_f32_to_f16(a.l[j]) }, 2);
}

static inline void v_store_bf16_n(void *p, v16 a, size_t n)
{
    for (size_t j = 0; j < n && j < 16; j++)
        memcpy((uint16_t *)p + j, &(uint16_t){ sb_f32_to_bf16(a.l[j]) }, 2);
}

static inline void v_store_bf16_pairs_n(void *p, v16 low, v16 high, size_t n)
{
    for (size_t j = 0; j < n && j < 16; j++) {
        const uint16_t pair[2] = { sb_f32_to_bf16(low.l[j]), sb_f32_to_bf16(high.l[j]) };
        memcpy((uint16_t *)p + 2 * j, pair, sizeof pair);
    }
}

#undef EACH_LANE

#endif
