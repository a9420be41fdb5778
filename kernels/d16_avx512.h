/* Sixteen double lanes as two AVX-512 registers; see d16_generic.h for what each function means. */
#ifndef SB_D16_AVX512_H
#define SB_D16_AVX512_H

#include "kernels/v16_avx512.h"

#include "kernels/prob_internal.h"

#define SB_D16_ABREAST 4
#define SB_Q8_ABREAST  4

typedef struct {
    __m512d lo, hi;
} d16;

#define D_BOTH_1(f, a)       ((d16){ f((a).lo), f((a).hi) })
#define D_BOTH_2(f, a, b)    ((d16){ f((a).lo, (b).lo), f((a).hi, (b).hi) })
#define D_BOTH_3(f, a, b, c) ((d16){ f((a).lo, (b).lo, (c).lo), f((a).hi, (b).hi, (c).hi) })

static inline __mmask8 high_lanes(__mmask16 mask)
{
    return (__mmask8)(mask >> 8);
}

static inline d16 d_set1(double x)
{
    return (d16){ _mm512_set1_pd(x), _mm512_set1_pd(x) };
}

static inline d16 d_load(const double *p)
{
    return (d16){ _mm512_loadu_pd(p), _mm512_loadu_pd(p + 8) };
}

static inline d16 d_load_n(const double *p, size_t n)
{
    __mmask16 mask = first_lanes(n);
    return (d16){ _mm512_maskz_loadu_pd((__mmask8)mask, p),
                  _mm512_maskz_loadu_pd(high_lanes(mask), p + 8) };
}

static inline d16 d_load_floats(const float *p)
{
    return (d16){ _mm512_cvtps_pd(_mm256_loadu_ps(p)), _mm512_cvtps_pd(_mm256_loadu_ps(p + 8)) };
}

static inline void d_store(double *p, d16 a)
{
    _mm512_storeu_pd(p, a.lo);
    _mm512_storeu_pd(p + 8, a.hi);
}

static inline void d_store_n(double *p, d16 a, size_t n)
{
    __mmask16 mask = first_lanes(n);
    _mm512_mask_storeu_pd(p, (__mmask8)mask, a.lo);
    _mm512_mask_storeu_pd(p + 8, high_lanes(mask), a.hi);
}

static inline d16 d_add(d16 a, d16 b)
{
    return D_BOTH_2(_mm512_add_pd, a, b);
}

static inline d16 d_sub(d16 a, d16 b)
{
    return D_BOTH_2(_mm512_sub_pd, a, b);
}

static inline d16 d_mul(d16 a, d16 b)
{
    return D_BOTH_2(_mm512_mul_pd, a, b);
}

static inline d16 d_div(d16 a, d16 b)
{
    return D_BOTH_2(_mm512_div_pd, a, b);
}

static inline d16 d_fma(d16 a, d16 b, d16 c)
{
    return D_BOTH_3(_mm512_fmadd_pd, a, b, c);
}

static inline d16 d_max(d16 a, d16 b)
{
    return D_BOTH_2(_mm512_max_pd, a, b);
}

static inline d16 d_min(d16 a, d16 b)
{
    return D_BOTH_2(_mm512_min_pd, a, b);
}

static inline double d_sum(d16 a)
{
    __m512d b = _mm512_add_pd(a.lo, a.hi);
    __m256d c = _mm256_add_pd(_mm512_castpd512_pd256(b), _mm512_extractf64x4_pd(b, 1));
    __m128d d = _mm_add_pd(_mm256_castpd256_pd128(c), _mm256_extractf128_pd(c, 1));
    return _mm_cvtsd_f64(_mm_add_sd(d, _mm_unpackhi_pd(d, d)));
}

static inline unsigned d_above_mask(d16 a, double b)
{
    __m512d c = _mm512_set1_pd(b);
    return _mm512_cmp_pd_mask(a.lo, c, _CMP_GT_OQ) |
           (unsigned)_mm512_cmp_pd_mask(a.hi, c, _CMP_GT_OQ) << 8;
}

static inline unsigned d_least_mask(d16 a, double b)
{
    __m512d c = _mm512_set1_pd(b);
    return _mm512_cmp_pd_mask(a.lo, c, _CMP_GE_OQ) |
           (unsigned)_mm512_cmp_pd_mask(a.hi, c, _CMP_GE_OQ) << 8;
}

static inline d16 d_expand(const double *p, unsigned mask)
{
    const double *high = p + __builtin_popcount(mask & 0xff);
    return (d16){ _mm512_maskz_expand_pd((__mmask8)mask, _mm512_loadu_pd(p)),
                  _mm512_maskz_expand_pd(high_lanes((__mmask16)mask), _mm512_loadu_pd(high)) };
}

static inline d16 d_keep_floats(d16 a, const float *x, float least)
{
    __mmask16 mask = _mm512_cmp_ps_mask(_mm512_loadu_ps(x), _mm512_set1_ps(least), _CMP_GE_OQ);
    return (d16){ _mm512_maskz_mov_pd((__mmask8)mask, a.lo),
                  _mm512_maskz_mov_pd(high_lanes(mask), a.hi) };
}

static inline d16 d_keep_self(d16 a, double least)
{
    __m512d b = _mm512_set1_pd(least);
    return (d16){ _mm512_maskz_mov_pd(_mm512_cmp_pd_mask(a.lo, b, _CMP_GE_OQ), a.lo),
                  _mm512_maskz_mov_pd(_mm512_cmp_pd_mask(a.hi, b, _CMP_GE_OQ), a.hi) };
}

static inline d16 d_keep_below(d16 a, d16 by, double bar)
{
    __m512d b = _mm512_set1_pd(bar);
    return (d16){ _mm512_maskz_mov_pd(_mm512_cmp_pd_mask(by.lo, b, _CMP_LT_OQ), a.lo),
                  _mm512_maskz_mov_pd(_mm512_cmp_pd_mask(by.hi, b, _CMP_LT_OQ), a.hi) };
}

static inline __m512d power_16th(__m512d t)
{
    __m512i n = _mm512_castpd_si512(t);
    __m512i two = _mm512_permutex2var_epi64(_mm512_loadu_si512(sb_power_16th), n,
                                            _mm512_loadu_si512(sb_power_16th + 8));
    return _mm512_castsi512_pd(_mm512_add_epi64(two, _mm512_slli_epi64(n, 48)));
}

static inline d16 d_power_16th(d16 t)
{
    return D_BOTH_1(power_16th, t);
}

static inline __m512d log_look_up(const double *table, __m512i j)
{
    return _mm512_permutex2var_pd(_mm512_loadu_pd(table), j, _mm512_loadu_pd(table + 8));
}

static inline __m512d split_half(__m512d x, __m512d *e, __m512d *inverse, __m512d *log)
{
    const __m512i first = _mm512_set1_epi64((long long)SB_LOG_FIRST);
    const __m512i fraction = _mm512_set1_epi64(0xfffffffffffff);
    __m512i above = _mm512_sub_epi64(_mm512_castpd_si512(x), first);
    __m512i j = _mm512_srli_epi64(above, 48);
    *e = _mm512_cvtepi64_pd(_mm512_srai_epi64(above, 52));
    *inverse = log_look_up(sb_log_inverse, j);
    *log = log_look_up(sb_log_16th, j);
    return _mm512_castsi512_pd(_mm512_add_epi64(_mm512_and_si512(above, fraction), first));
}

static inline d16 d_split(d16 x, d16 *e, d16 *inverse, d16 *log)
{
    return (d16){ split_half(x.lo, &e->lo, &inverse->lo, &log->lo),
                  split_half(x.hi, &e->hi, &inverse->hi, &log->hi) };
}

static inline unsigned v_least_mask(v16 a, float b)
{
    return _mm512_cmp_ps_mask(a, v_set1(b), _CMP_GE_OQ);
}

static inline bool v_any_nan(v16 a, v16 b)
{
    return _mm512_cmp_ps_mask(a, b, _CMP_UNORD_Q) != 0;
}

static inline void v_pack(float *p, v16 a, unsigned mask)
{
    _mm512_storeu_ps(p, _mm512_maskz_compress_ps((__mmask16)mask, a));
}

static inline void d_pack(double *p, d16 a, unsigned mask)
{
    double *high = p + __builtin_popcount(mask & 0xff);
    _mm512_storeu_pd(p, _mm512_maskz_compress_pd((__mmask8)mask, a.lo));
    _mm512_storeu_pd(high, _mm512_maskz_compress_pd(high_lanes((__mmask16)mask), a.hi));
}

typedef __m512i q8;

static inline q8 q_set1(uint32_t x)
{
    return _mm512_set1_epi64(x);
}

static inline q8 q_count(uint32_t first)
{
    return _mm512_add_epi64(_mm512_set1_epi64(first), _mm512_setr_epi64(0, 1, 2, 3, 4, 5, 6, 7));
}

static inline q8 q_mul(q8 a, uint32_t b)
{
    return _mm512_mul_epu32(a, _mm512_set1_epi64(b));
}

static inline q8 q_high(q8 a)
{
    return _mm512_srli_epi64(a, 32);
}

static inline q8 q_xor(q8 a, q8 b, q8 c)
{
    return _mm512_ternarylogic_epi64(a, b, c, 0x96);
}

typedef __mmask8 q_lanes;

static inline q_lanes q_below(q8 word, int half, const double *w, double bound)
{
    const __m512i magic = _mm512_set1_epi64(0x4330000000000000), low = _mm512_set1_epi64(0xffff);
    word = half ? _mm512_srli_epi64(word, 16) : word;
    __m512d a = _mm512_castsi512_pd(_mm512_ternarylogic_epi64(word, low, magic, 0xea));
    __m512d b =
        _mm512_fmadd_pd(_mm512_set1_pd(bound), _mm512_loadu_pd(w), _mm512_set1_pd(0x1p52 + 1));
    return _mm512_cmp_pd_mask(a, b, _CMP_LT_OQ);
}

static inline unsigned q_below_mask(q8 word, int half, const double *w, double bound)
{
    return q_below(word, half, w, bound);
}

static inline q_lanes q_or(q_lanes a, q_lanes b)
{
    return _kor_mask8(a, b);
}

static inline bool q_any(q_lanes a)
{
    return !_kortestz_mask8_u8(a, a);
}

#endif
