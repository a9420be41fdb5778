/* Sixteen double lanes, and eight words for random numbers, in plain C: the definition that the other
 * d16_<isa>.h headers match bit for bit. Maximum and minimum keep the second operand when the two do
 * not compare. */
#ifndef SB_D16_GENERIC_H
#define SB_D16_GENERIC_H

#include "kernels/v16_generic.h"

#include "kernels/prob_internal.h"

/* How many d16 an exponential, how many q8 a race works on at a time: their chains overlap. */
#define SB_D16_ABREAST 1
#define SB_Q8_ABREAST  1

typedef struct {
    double l[16];
} d16;

#define EACH_LANE(expr)          \
    d16 r;                       \
    for (int j = 0; j < 16; j++) \
        r.l[j] = (expr);         \
    return r

static inline d16 d_set1(double x)
{
    EACH_LANE(x);
}

static inline d16 d_load(const double *p)
{
    EACH_LANE(p[j]);
}

/* The first n lanes; the rest is zero. Nothing beyond p[n - 1] is read. */
static inline d16 d_load_n(const double *p, size_t n)
{
    EACH_LANE((size_t)j < n ? p[j] : 0);
}

static inline d16 d_load_floats(const float *p)
{
    EACH_LANE((double)p[j]);
}

static inline void d_store(double *p, d16 a)
{
    memcpy(p, a.l, sizeof a.l);
}

static inline void d_store_n(double *p, d16 a, size_t n)
{
    for (size_t j = 0; j < n && j < 16; j++)
        p[j] = a.l[j];
}

static inline d16 d_add(d16 a, d16 b)
{
    EACH_LANE(a.l[j] + b.l[j]);
}

static inline d16 d_sub(d16 a, d16 b)
{
    EACH_LANE(a.l[j] - b.l[j]);
}

static inline d16 d_mul(d16 a, d16 b)
{
    EACH_LANE(a.l[j] * b.l[j]);
}

static inline d16 d_div(d16 a, d16 b)
{
    EACH_LANE(a.l[j] / b.l[j]);
}

static inline d16 d_fma(d16 a, d16 b, d16 c)
{
    EACH_LANE(fma(a.l[j], b.l[j], c.l[j]));
}

static inline d16 d_max(d16 a, d16 b)
{
    EACH_LANE(a.l[j] > b.l[j] ? a.l[j] : b.l[j]);
}

static inline d16 d_min(d16 a, d16 b)
{
    EACH_LANE(a.l[j] < b.l[j] ? a.l[j] : b.l[j]);
}

/* Lanes join pairwise: + 8, + 4, + 2, + 1. */
static inline double d_sum(d16 a)
{
    for (int half = 8; half > 0; half /= 2)
        for (int j = 0; j < half; j++)
            a.l[j] += a.l[j + half];
    return a.l[0];
}

/* Bit j: a[j] > b; a[j] >= b. */
static inline unsigned d_above_mask(d16 a, double b)
{
    unsigned mask = 0;
    for (int j = 0; j < 16; j++)
        mask |= (unsigned)(a.l[j] > b) << j;
    return mask;
}

static inline unsigned d_least_mask(d16 a, double b)
{
    unsigned mask = 0;
    for (int j = 0; j < 16; j++)
        mask |= (unsigned)(a.l[j] >= b) << j;
    return mask;
}

/* p[0], p[1], ... on the lanes of the mask, 0 on the others. p[15] can be read, whatever the mask. */
static inline d16 d_expand(const double *p, unsigned mask)
{
    EACH_LANE(mask >> j & 1 ? *p++ : 0);
}

/* Lanes of a where x[j] >= least, 0 elsewhere; where a >= least, by < bar, likewise. */
static inline d16 d_keep_floats(d16 a, const float *x, float least)
{
    EACH_LANE(x[j] >= least ? a.l[j] : 0);
}

static inline d16 d_keep_self(d16 a, double least)
{
    EACH_LANE(a.l[j] >= least ? a.l[j] : 0);
}

static inline d16 d_keep_below(d16 a, d16 by, double bar)
{
    EACH_LANE(by.l[j] < bar ? a.l[j] : 0);
}

/* 2^(n / 16), where t = 1.5 * 2^52 + n holds n in its low bits, for a result that is normal. */
static inline double power_16th(double t)
{
    uint64_t n = sb_double_bits(t);
    return sb_double_of(sb_power_16th[n & 15] + (n << 48));
}

static inline d16 d_power_16th(d16 t)
{
    EACH_LANE(power_16th(t.l[j]));
}

/* x = 2^e m for normal x > 0, with m in [47/64, 47/32): m, e as a double, and of the sixteenth of a
 * power of 2 in which m lies, about 1 / m and the logarithm of that reciprocal, negated. */
static inline d16 d_split(d16 x, d16 *e, d16 *inverse, d16 *log)
{
    d16 m;
    for (int j = 0; j < 16; j++) {
        uint64_t above = sb_double_bits(x.l[j]) - SB_LOG_FIRST;
        m.l[j] = sb_double_of((above & 0xfffffffffffffu) + SB_LOG_FIRST);
        e->l[j] = (double)((int64_t)above >> 52);
        inverse->l[j] = sb_log_inverse[above >> 48 & 15];
        log->l[j] = sb_log_16th[above >> 48 & 15];
    }
    return m;
}

/* ---- floats ---- */

/* Bit j: a[j] >= b. */
static inline unsigned v_least_mask(v16 a, float b)
{
    unsigned mask = 0;
    for (int j = 0; j < 16; j++)
        mask |= (unsigned)(a.l[j] >= b) << j;
    return mask;
}

/* Is a NaN among the lanes of a and b? */
static inline bool v_any_nan(v16 a, v16 b)
{
    bool any = false;
    for (int j = 0; j < 16; j++)
        any = any || a.l[j] != a.l[j] || b.l[j] != b.l[j];
    return any;
}

/* Lanes of the mask one behind the other. All of p[16] may be written. */
static inline void v_pack(float *p, v16 a, unsigned mask)
{
    for (; mask; mask &= mask - 1)
        *p++ = a.l[__builtin_ctz(mask)];
}

static inline void d_pack(double *p, d16 a, unsigned mask)
{
    for (; mask; mask &= mask - 1)
        *p++ = a.l[__builtin_ctz(mask)];
}

/* ---- eight words of 32 bits, in the low halves of 64; what the high halves hold means nothing ---- */

typedef struct {
    uint64_t l[8];
} q8;

#define EACH_WORD(expr)         \
    q8 r;                       \
    for (int j = 0; j < 8; j++) \
        r.l[j] = (expr);        \
    return r

static inline q8 q_set1(uint32_t x)
{
    EACH_WORD(x);
}

/* first, first + 1, ..., first + 7 */
static inline q8 q_count(uint32_t first)
{
    EACH_WORD(first + (uint32_t)j);
}

/* The full product of the low halves: its own low half is a word, the upper one comes by q_high. */
static inline q8 q_mul(q8 a, uint32_t b)
{
    EACH_WORD((uint64_t)(uint32_t)a.l[j] * b);
}

static inline q8 q_high(q8 a)
{
    EACH_WORD(a.l[j] >> 32);
}

static inline q8 q_xor(q8 a, q8 b, q8 c)
{
    EACH_WORD(a.l[j] ^ b.l[j] ^ c.l[j]);
}

/* half = 0, 1: the lower, the upper 16 bits of the words. Bit j is set wherever half[j] < bound * w[j];
 * it may be set although it is larger by up to 2. Lanes of several such, and whether any is set, cost
 * less than their bits. */
static inline unsigned q_below_mask(q8 word, int half, const double *w, double bound)
{
    unsigned mask = 0;
    for (int j = 0; j < 8; j++)
        mask |= (unsigned)(0x1p52 + (double)(word.l[j] >> 16 * half & 0xffff) <
                           fma(bound, w[j], 0x1p52 + 1))
                << j;
    return mask;
}

typedef unsigned q_lanes;

static inline q_lanes q_below(q8 word, int half, const double *w, double bound)
{
    return q_below_mask(word, half, w, bound);
}

static inline q_lanes q_or(q_lanes a, q_lanes b)
{
    return a | b;
}

static inline bool q_any(q_lanes a)
{
    return a != 0;
}

#undef EACH_LANE
#undef EACH_WORD

#endif
