/* Sixteen double lanes as four AVX2 registers; see d16_generic.h for what each function means. */
#ifndef SB_D16_AVX2_H
#define SB_D16_AVX2_H

#include <string.h>

#include "kernels/v16_avx2.h"

#include "kernels/prob_internal.h"

#define SB_D16_ABREAST 1
#define SB_Q8_ABREAST  2

typedef struct {
    __m256d a, b, c, d; /* lanes 0..3, 4..7, 8..11, 12..15 */
} d16;

#define D_ALL_1(f, x) ((d16){ f((x).a), f((x).b), f((x).c), f((x).d) })
#define D_ALL_2(f, x, y) \
    ((d16){ f((x).a, (y).a), f((x).b, (y).b), f((x).c, (y).c), f((x).d, (y).d) })
#define D_ALL_3(f, x, y, z)                                                         \
    ((d16){ f((x).a, (y).a, (z).a), f((x).b, (y).b, (z).b), f((x).c, (y).c, (z).c), \
            f((x).d, (y).d, (z).d) })

/* All bits of lane j are set where first + j < n. */
static inline __m256i first_doubles(size_t n, long long first)
{
    __m256i lane = _mm256_add_epi64(_mm256_setr_epi64x(0, 1, 2, 3), _mm256_set1_epi64x(first));
    return _mm256_cmpgt_epi64(_mm256_set1_epi64x(n < 16 ? (long long)n : 16), lane);
}

static inline d16 d_set1(double x)
{
    __m256d a = _mm256_set1_pd(x);
    return (d16){ a, a, a, a };
}

static inline d16 d_load(const double *p)
{
    return (d16){ _mm256_loadu_pd(p), _mm256_loadu_pd(p + 4), _mm256_loadu_pd(p + 8),
                  _mm256_loadu_pd(p + 12) };
}

static inline d16 d_load_n(const double *p, size_t n)
{
    return (d16){ _mm256_maskload_pd(p, first_doubles(n, 0)),
                  _mm256_maskload_pd(p + 4, first_doubles(n, 4)),
                  _mm256_maskload_pd(p + 8, first_doubles(n, 8)),
                  _mm256_maskload_pd(p + 12, first_doubles(n, 12)) };
}

static inline d16 d_load_floats(const float *p)
{
    return (d16){ _mm256_cvtps_pd(_mm_loadu_ps(p)), _mm256_cvtps_pd(_mm_loadu_ps(p + 4)),
                  _mm256_cvtps_pd(_mm_loadu_ps(p + 8)), _mm256_cvtps_pd(_mm_loadu_ps(p + 12)) };
}

static inline void d_store(double *p, d16 x)
{
    _mm256_storeu_pd(p, x.a);
    _mm256_storeu_pd(p + 4, x.b);
    _mm256_storeu_pd(p + 8, x.c);
    _mm256_storeu_pd(p + 12, x.d);
}

static inline void d_store_n(double *p, d16 x, size_t n)
{
    _mm256_maskstore_pd(p, first_doubles(n, 0), x.a);
    _mm256_maskstore_pd(p + 4, first_doubles(n, 4), x.b);
    _mm256_maskstore_pd(p + 8, first_doubles(n, 8), x.c);
    _mm256_maskstore_pd(p + 12, first_doubles(n, 12), x.d);
}

static inline d16 d_add(d16 x, d16 y)
{
    return D_ALL_2(_mm256_add_pd, x, y);
}

static inline d16 d_sub(d16 x, d16 y)
{
    return D_ALL_2(_mm256_sub_pd, x, y);
}

static inline d16 d_mul(d16 x, d16 y)
{
    return D_ALL_2(_mm256_mul_pd, x, y);
}

static inline d16 d_div(d16 x, d16 y)
{
    return D_ALL_2(_mm256_div_pd, x, y);
}

static inline d16 d_fma(d16 x, d16 y, d16 z)
{
    return D_ALL_3(_mm256_fmadd_pd, x, y, z);
}

static inline d16 d_max(d16 x, d16 y)
{
    return D_ALL_2(_mm256_max_pd, x, y);
}

static inline d16 d_min(d16 x, d16 y)
{
    return D_ALL_2(_mm256_min_pd, x, y);
}

static inline double d_sum(d16 x)
{
    __m256d y = _mm256_add_pd(_mm256_add_pd(x.a, x.c), _mm256_add_pd(x.b, x.d));
    __m128d z = _mm_add_pd(_mm256_castpd256_pd128(y), _mm256_extractf128_pd(y, 1));
    return _mm_cvtsd_f64(_mm_add_sd(z, _mm_unpackhi_pd(z, z)));
}

static inline __m256d above(__m256d x, __m256d y)
{
    return _mm256_cmp_pd(x, y, _CMP_GT_OQ);
}

static inline __m256d least(__m256d x, __m256d y)
{
    return _mm256_cmp_pd(x, y, _CMP_GE_OQ);
}

static inline unsigned d_signs(d16 x)
{
    return (unsigned)_mm256_movemask_pd(x.a) | (unsigned)_mm256_movemask_pd(x.b) << 4 |
           (unsigned)_mm256_movemask_pd(x.c) << 8 | (unsigned)_mm256_movemask_pd(x.d) << 12;
}

static inline unsigned d_above_mask(d16 x, double b)
{
    d16 y = d_set1(b);
    return d_signs(D_ALL_2(above, x, y));
}

static inline unsigned d_least_mask(d16 x, double b)
{
    d16 y = d_set1(b);
    return d_signs(D_ALL_2(least, x, y));
}

static inline d16 d_expand(const double *p, unsigned mask)
{
    double lane[16];
    for (int j = 0; j < 16; j++, mask >>= 1) {
        uint64_t bits, keep = 0 - (uint64_t)(mask & 1);
        memcpy(&bits, p, sizeof bits);
        bits &= keep;
        memcpy(&lane[j], &bits, sizeof bits);
        p += mask & 1;
    }
    return d_load(lane);
}

static inline __m256d keep_least(__m256d x, __m256d by, __m256d least)
{
    return _mm256_and_pd(x, _mm256_cmp_pd(by, least, _CMP_GE_OQ));
}

static inline d16 d_keep_floats(d16 x, const float *by, float least)
{
    d16 y = d_load_floats(by), z = d_set1((double)least);
    return D_ALL_3(keep_least, x, y, z);
}

static inline d16 d_keep_self(d16 x, double least)
{
    d16 z = d_set1(least);
    return D_ALL_3(keep_least, x, x, z);
}

static inline __m256d keep_below(__m256d x, __m256d by, __m256d bar)
{
    return _mm256_and_pd(x, _mm256_cmp_pd(by, bar, _CMP_LT_OQ));
}

static inline d16 d_keep_below(d16 x, d16 by, double bar)
{
    d16 z = d_set1(bar);
    return D_ALL_3(keep_below, x, by, z);
}

/* table[j] of sixteen; four loads beat a gather, and permutations of a table of this size. */
static inline __m256d look_up(const void *table, __m256i j)
{
    const double *t = table;
    __m128i low = _mm256_castsi256_si128(j), high = _mm256_extracti128_si256(j, 1);
    return _mm256_setr_pd(t[_mm_cvtsi128_si64(low)], t[_mm_extract_epi64(low, 1)],
                          t[_mm_cvtsi128_si64(high)], t[_mm_extract_epi64(high, 1)]);
}

static inline __m256d power_16th(__m256d t)
{
    __m256i n = _mm256_castpd_si256(t), j = _mm256_and_si256(n, _mm256_set1_epi64x(15));
    __m256i two = _mm256_castpd_si256(look_up(sb_power_16th, j));
    return _mm256_castsi256_pd(_mm256_add_epi64(two, _mm256_slli_epi64(n, 48)));
}

static inline d16 d_power_16th(d16 t)
{
    return D_ALL_1(power_16th, t);
}

/* The exponent moves down without its sign: 1023 is added before, and taken off as a double. */
static inline __m256d split_quarter(__m256d x, __m256d *e, __m256d *inverse, __m256d *log)
{
    const __m256i first = _mm256_set1_epi64x((long long)SB_LOG_FIRST);
    const __m256i fraction = _mm256_set1_epi64x(0xfffffffffffff);
    const __m256i bias = _mm256_set1_epi64x(1023ll << 52);
    const __m256i magic = _mm256_set1_epi64x(0x4330000000000000);
    __m256i over = _mm256_sub_epi64(_mm256_castpd_si256(x), first);
    __m256i power = _mm256_srli_epi64(_mm256_add_epi64(over, bias), 52);
    __m256i j = _mm256_and_si256(_mm256_srli_epi64(over, 48), _mm256_set1_epi64x(15));
    *e = _mm256_sub_pd(_mm256_castsi256_pd(_mm256_or_si256(power, magic)),
                       _mm256_set1_pd(0x1p52 + 1023));
    *inverse = look_up(sb_log_inverse, j);
    *log = look_up(sb_log_16th, j);
    return _mm256_castsi256_pd(_mm256_add_epi64(_mm256_and_si256(over, fraction), first));
}

static inline d16 d_split(d16 x, d16 *e, d16 *inverse, d16 *log)
{
    return (d16){ split_quarter(x.a, &e->a, &inverse->a, &log->a),
                  split_quarter(x.b, &e->b, &inverse->b, &log->b),
                  split_quarter(x.c, &e->c, &inverse->c, &log->c),
                  split_quarter(x.d, &e->d, &inverse->d, &log->d) };
}

static inline unsigned v_least_mask(v16 x, float b)
{
    __m256 c = _mm256_set1_ps(b);
    return (unsigned)_mm256_movemask_ps(_mm256_cmp_ps(x.lo, c, _CMP_GE_OQ)) |
           (unsigned)_mm256_movemask_ps(_mm256_cmp_ps(x.hi, c, _CMP_GE_OQ)) << 8;
}

static inline bool v_any_nan(v16 x, v16 y)
{
    return _mm256_movemask_ps(_mm256_or_ps(_mm256_cmp_ps(x.lo, x.hi, _CMP_UNORD_Q),
                                           _mm256_cmp_ps(y.lo, y.hi, _CMP_UNORD_Q))) != 0;
}

static inline void v_pack(float *p, v16 x, unsigned mask)
{
    float lane[16];
    v_store(lane, x);
    for (; mask; mask &= mask - 1)
        *p++ = lane[__builtin_ctz(mask)];
}

static inline void d_pack(double *p, d16 x, unsigned mask)
{
    double lane[16];
    d_store(lane, x);
    for (; mask; mask &= mask - 1)
        *p++ = lane[__builtin_ctz(mask)];
}

typedef struct {
    __m256i lo, hi;
} q8;

static inline q8 q_set1(uint32_t x)
{
    __m256i a = _mm256_set1_epi64x(x);
    return (q8){ a, a };
}

static inline q8 q_count(uint32_t first)
{
    __m256i a = _mm256_set1_epi64x(first);
    return (q8){ _mm256_add_epi64(a, _mm256_setr_epi64x(0, 1, 2, 3)),
                 _mm256_add_epi64(a, _mm256_setr_epi64x(4, 5, 6, 7)) };
}

static inline q8 q_mul(q8 x, uint32_t y)
{
    __m256i b = _mm256_set1_epi64x(y);
    return (q8){ _mm256_mul_epu32(x.lo, b), _mm256_mul_epu32(x.hi, b) };
}

static inline q8 q_high(q8 x)
{
    return (q8){ _mm256_srli_epi64(x.lo, 32), _mm256_srli_epi64(x.hi, 32) };
}

static inline q8 q_xor(q8 x, q8 y, q8 z)
{
    return (q8){ _mm256_xor_si256(_mm256_xor_si256(x.lo, y.lo), z.lo),
                 _mm256_xor_si256(_mm256_xor_si256(x.hi, y.hi), z.hi) };
}

static inline __m256d below(__m256i word, int half, const double *w, __m256d bound)
{
    const __m256i magic = _mm256_set1_epi64x(0x4330000000000000);
    word = half ? _mm256_srli_epi64(word, 16) : word;
    __m256d a = _mm256_castsi256_pd(_mm256_blend_epi16(word, magic, 0xee));
    __m256d b = _mm256_fmadd_pd(bound, _mm256_loadu_pd(w), _mm256_set1_pd(0x1p52 + 1));
    return _mm256_cmp_pd(a, b, _CMP_LT_OQ);
}

static inline unsigned q_below_mask(q8 word, int half, const double *w, double bound)
{
    __m256d b = _mm256_set1_pd(bound);
    return (unsigned)_mm256_movemask_pd(below(word.lo, half, w, b)) |
           (unsigned)_mm256_movemask_pd(below(word.hi, half, w + 4, b)) << 4;
}

typedef __m256d q_lanes;

static inline q_lanes q_below(q8 word, int half, const double *w, double bound)
{
    __m256d b = _mm256_set1_pd(bound);
    return _mm256_or_pd(below(word.lo, half, w, b), below(word.hi, half, w + 4, b));
}

static inline q_lanes q_or(q_lanes a, q_lanes b)
{
    return _mm256_or_pd(a, b);
}

static inline bool q_any(q_lanes a)
{
    return _mm256_movemask_pd(a) != 0;
}

#endif
