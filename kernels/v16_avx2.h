/* Sixteen float lanes as two AVX2 registers; see v16_generic.h for what each function means. */
#ifndef SB_V16_AVX2_H
#define SB_V16_AVX2_H

#include <immintrin.h>
#include <math.h>

#include "kernels/exp.h"
#include "kernels/field.h"
#include "kernels/internal.h"

#define SB_V16_TABLE          sb_kernels_avx2
#define SB_TILE_ROWS          3 /* 3 x 2 x 2 accumulators of 16 registers */
#define SB_BLOCK_ROWS         SB_TILE_ROWS
#define SB_BLOCK_ROWS_OF_MANY SB_TILE_ROWS
#define SB_BLOCK_CHAINS       4

typedef struct {
    __m256 lo, hi;
} v16;

#define BOTH(op, ...)             ((v16){ op(lo, __VA_ARGS__), op(hi, __VA_ARGS__) })
#define UNDER_2(half, f, a, b)    f((a).half, (b).half)
#define UNDER_3(half, f, a, b, c) f((a).half, (b).half, (c).half)

/* All bits of lane j are set where first + j < n. */
static inline __m256i first_lanes(size_t n, int first)
{
    __m256i lane =
        _mm256_add_epi32(_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), _mm256_set1_epi32(first));
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n < 16 ? (int)n : 16), lane);
}

static inline v16 v_set1(float x)
{
    __m256 a = _mm256_set1_ps(x);
    return (v16){ a, a };
}

static inline v16 v_zero(void)
{
    return (v16){ _mm256_setzero_ps(), _mm256_setzero_ps() };
}

static inline v16 v_load(const float *p)
{
    return (v16){ _mm256_loadu_ps(p), _mm256_loadu_ps(p + 8) };
}

static inline v16 v_load_n(const float *p, size_t n)
{
    return (v16){ _mm256_maskload_ps(p, first_lanes(n, 0)),
                  _mm256_maskload_ps(p + 8, first_lanes(n, 8)) };
}

static inline void v_store(float *p, v16 a)
{
    _mm256_storeu_ps(p, a.lo);
    _mm256_storeu_ps(p + 8, a.hi);
}

static inline void v_store_n(float *p, v16 a, size_t n)
{
    _mm256_maskstore_ps(p, first_lanes(n, 0), a.lo);
    _mm256_maskstore_ps(p + 8, first_lanes(n, 8), a.hi);
}

static inline v16 v_keep_n(v16 a, size_t n, float fill)
{
    __m256 b = _mm256_set1_ps(fill);
    return (v16){ _mm256_blendv_ps(b, a.lo, _mm256_castsi256_ps(first_lanes(n, 0))),
                  _mm256_blendv_ps(b, a.hi, _mm256_castsi256_ps(first_lanes(n, 8))) };
}

static inline v16 v_add(v16 a, v16 b)
{
    return BOTH(UNDER_2, _mm256_add_ps, a, b);
}

static inline v16 v_sub(v16 a, v16 b)
{
    return BOTH(UNDER_2, _mm256_sub_ps, a, b);
}

static inline v16 v_mul(v16 a, v16 b)
{
    return BOTH(UNDER_2, _mm256_mul_ps, a, b);
}

static inline v16 v_div(v16 a, v16 b)
{
    return BOTH(UNDER_2, _mm256_div_ps, a, b);
}

static inline v16 v_fma(v16 a, v16 b, v16 c)
{
    return BOTH(UNDER_3, _mm256_fmadd_ps, a, b, c);
}

static inline v16 v_max(v16 a, v16 b)
{
    return BOTH(UNDER_2, _mm256_max_ps, a, b);
}

static inline v16 v_min(v16 a, v16 b)
{
    return BOTH(UNDER_2, _mm256_min_ps, a, b);
}

static inline unsigned v_equal_mask(v16 a, float b)
{
    __m256 c = _mm256_set1_ps(b);
    return (unsigned)_mm256_movemask_ps(_mm256_cmp_ps(a.lo, c, _CMP_EQ_OQ)) |
           (unsigned)_mm256_movemask_ps(_mm256_cmp_ps(a.hi, c, _CMP_EQ_OQ)) << 8;
}

static inline float v_sum(v16 a)
{
    __m256 b = _mm256_add_ps(a.lo, a.hi);
    __m128 c = _mm_add_ps(_mm256_castps256_ps128(b), _mm256_extractf128_ps(b, 1));
    c = _mm_add_ps(c, _mm_movehl_ps(c, c));
    return _mm_cvtss_f32(_mm_add_ss(c, _mm_movehdup_ps(c)));
}

static inline float v_largest(v16 a)
{
    __m256 b = _mm256_max_ps(a.lo, a.hi);
    __m128 c = _mm_max_ps(_mm256_castps256_ps128(b), _mm256_extractf128_ps(b, 1));
    c = _mm_max_ps(c, _mm_movehl_ps(c, c));
    return _mm_cvtss_f32(_mm_max_ss(c, _mm_movehdup_ps(c)));
}

static inline __m256 root_of(const float *table, __m256 t)
{
    const __m256i index = _mm256_castps_si256(t);
    return _mm256_blendv_ps(_mm256_permutevar8x32_ps(_mm256_loadu_ps(table), index),
                            _mm256_permutevar8x32_ps(_mm256_loadu_ps(table + 8), index),
                            _mm256_castsi256_ps(_mm256_slli_epi32(index, 28)));
}

static inline v16 v_root(v16 t)
{
    return (v16){ root_of(sb_exp_table, t.lo), root_of(sb_exp_table, t.hi) };
}

static inline __m256 power(__m256 t)
{
    const __m256i n = _mm256_slli_epi32(_mm256_castps_si256(t), 19),
                  root = _mm256_castps_si256(root_of((const float *)sb_power_16th_float, t));
    return _mm256_castsi256_ps(_mm256_add_epi32(n, root));
}

static inline v16 v_power_16th(v16 t)
{
    return (v16){ power(t.lo), power(t.hi) };
}

static inline v16 v_zero_if_below(v16 a, v16 x, float least)
{
    const __m256 b = _mm256_set1_ps(least);
    return (v16){ _mm256_and_ps(a.lo, _mm256_cmp_ps(x.lo, b, _CMP_NLT_UQ)),
                  _mm256_and_ps(a.hi, _mm256_cmp_ps(x.hi, b, _CMP_NLT_UQ)) };
}

static inline __m256 scale_half(__m256 p, __m256 t)
{
    const __m256i bias = _mm256_set1_epi32(127);
    __m256i n = _mm256_srai_epi32(
        _mm256_sub_epi32(_mm256_castps_si256(t), _mm256_set1_epi32(SB_EXP_SHIFT_BITS)), 4);
    __m256i half = _mm256_srai_epi32(n, 1), rest = _mm256_sub_epi32(n, half);
    half = _mm256_slli_epi32(_mm256_add_epi32(half, bias), 23);
    rest = _mm256_slli_epi32(_mm256_add_epi32(rest, bias), 23);
    return _mm256_mul_ps(_mm256_mul_ps(p, _mm256_castsi256_ps(half)), _mm256_castsi256_ps(rest));
}

static inline v16 v_scale_by_power(v16 p, v16 t)
{
    return BOTH(UNDER_2, scale_half, p, t);
}

static inline v16 v_load_f16(const void *p)
{
    const __m128i *half = p;
    return (v16){ _mm256_cvtph_ps(_mm_loadu_si128(half)),
                  _mm256_cvtph_ps(_mm_loadu_si128(half + 1)) };
}

static inline v16 v_load_bf16(const void *p)
{
    const __m128i *halves = p;
    __m256i a = _mm256_cvtepu16_epi32(_mm_loadu_si128(halves)),
            b = _mm256_cvtepu16_epi32(_mm_loadu_si128(halves + 1));
    return (v16){ _mm256_castsi256_ps(_mm256_slli_epi32(a, 16)),
                  _mm256_castsi256_ps(_mm256_slli_epi32(b, 16)) };
}

typedef struct {
    __m256i a, b;
} v16_words;

static inline v16_words v_load_words(const void *p)
{
    const __m256i *words = p;
    return (v16_words){ _mm256_loadu_si256(words), _mm256_loadu_si256(words + 1) };
}

static inline v16 v_low_bf16(v16_words w)
{
    return (v16){ _mm256_castsi256_ps(_mm256_slli_epi32(w.a, 16)),
                  _mm256_castsi256_ps(_mm256_slli_epi32(w.b, 16)) };
}

static inline v16 v_high_bf16(v16_words w)
{
    const __m256i high = _mm256_set1_epi32((int)0xffff0000);
    return (v16){ _mm256_castsi256_ps(_mm256_and_si256(w.a, high)),
                  _mm256_castsi256_ps(_mm256_and_si256(w.b, high)) };
}

static inline __attribute__((always_inline)) __m256 field(__m256i w, const struct sb_field *f)
{
    const __m256i u = f->down ? _mm256_srli_epi32(w, f->down) : w,
                  top = _mm256_castps_si256(_mm256_set1_ps(f->top));
    __m256i bits = _mm256_or_si256(top, _mm256_and_si256(u, _mm256_set1_epi32(f->mask)));
    return _mm256_sub_ps(_mm256_castsi256_ps(bits), _mm256_set1_ps(f->top + 0.5f));
}

static inline __attribute__((always_inline)) v16 v_field(v16_words w, int from, int bits)
{
    const struct sb_field f = sb_field(from, bits);
    return (v16){ field(w.a, &f), field(w.b, &f) };
}

static inline __attribute__((always_inline)) v16 v_nibble(v16_words w, int step)
{
    return v_field(w, sb_nibble_bit(step), 4);
}

/* Eight rows of eight lanes. */
static inline __attribute__((always_inline)) void transpose_8(__m256 a[8])
{
    __m256 t[8];
    for (int i = 0; i < 8; i += 2) {
        t[i] = _mm256_unpacklo_ps(a[i], a[i + 1]);
        t[i + 1] = _mm256_unpackhi_ps(a[i], a[i + 1]);
    }
    for (int i = 0; i < 8; i += 4)
        for (int h = 0; h < 2; h++) {
            const __m256d x = _mm256_castps_pd(t[i + h]), y = _mm256_castps_pd(t[i + 2 + h]);
            a[i + 2 * h] = _mm256_castpd_ps(_mm256_unpacklo_pd(x, y));
            a[i + 2 * h + 1] = _mm256_castpd_ps(_mm256_unpackhi_pd(x, y));
        }
    for (int h = 0; h < 4; h++) {
        t[h] = _mm256_permute2f128_ps(a[h], a[4 + h], 0x20);
        t[4 + h] = _mm256_permute2f128_ps(a[h], a[4 + h], 0x31);
    }
    for (int i = 0; i < 8; i++)
        a[i] = t[i];
}

static inline void v_transpose(v16 a[16])
{
    __m256 part[4][8]; /* the upper half of the rows, then the lower: lo, hi */
    for (int i = 0; i < 16; i++) {
        part[i / 8 * 2][i % 8] = a[i].lo;
        part[i / 8 * 2 + 1][i % 8] = a[i].hi;
    }
    for (int i = 0; i < 4; i++)
        transpose_8(part[i]);
    for (int i = 0; i < 16; i++)
        a[i] = (v16){ part[i / 8][i % 8], part[2 + i / 8][i % 8] };
}

/* The first n of 16 halves, or of 16 words. */
static inline void store_halves_n(void *p, __m128i lo, __m128i hi, size_t n)
{
    __m128i all[2] = { lo, hi };
    if (n >= 16)
        memcpy(p, all, sizeof all);
    else
        memcpy(p, all, 2 * n);
}

static inline void v_store_f16_n(void *p, v16 a, size_t n)
{
    store_halves_n(p, _mm256_cvtps_ph(a.lo, _MM_FROUND_TO_NEAREST_INT),
                   _mm256_cvtps_ph(a.hi, _MM_FROUND_TO_NEAREST_INT), n);
}

/* To bfloat16, in the low halves. */
static inline __m256i to_bf16(__m256 a)
{
    const __m256i bits = _mm256_castps_si256(a),
                  odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1)),
                  near = _mm256_add_epi32(bits, _mm256_add_epi32(_mm256_set1_epi32(0x7fff), odd)),
                  nan = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000)),
                  is_nan = _mm256_castps_si256(_mm256_cmp_ps(a, a, _CMP_UNORD_Q));
    return _mm256_srli_epi32(_mm256_blendv_epi8(near, nan, is_nan), 16);
}

/* 8 words that are halves, as such. */
static inline __m128i halves_of(__m256i words)
{
    return _mm_packus_epi32(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
}

static inline void v_store_bf16_n(void *p, v16 a, size_t n)
{
    store_halves_n(p, halves_of(to_bf16(a.lo)), halves_of(to_bf16(a.hi)), n);
}

static inline void v_store_bf16_pairs_n(void *p, v16 low, v16 high, size_t n)
{
    const __m256i lo = _mm256_or_si256(to_bf16(low.lo), _mm256_slli_epi32(to_bf16(high.lo), 16)),
                  hi = _mm256_or_si256(to_bf16(low.hi), _mm256_slli_epi32(to_bf16(high.hi), 16));
    v_store_n(p, (v16){ _mm256_castsi256_ps(lo), _mm256_castsi256_ps(hi) }, n);
}

#endif
