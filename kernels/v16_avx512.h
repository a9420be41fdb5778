/* Sixteen float lanes as one AVX-512 register; see v16_generic.h for what each function means. */
#ifndef SB_V16_AVX512_H
#define SB_V16_AVX512_H

#include <immintrin.h>
#include <math.h>

#include "kernels/exp.h"
#include "kernels/field.h"
#include "kernels/internal.h"

#define SB_V16_TABLE          sb_kernels_avx512
#define SB_TILE_ROWS          14 /* 14 x 2 accumulators of 32 registers, two of weights, one of x */
#define SB_BLOCK_ROWS         12
#define SB_BLOCK_ROWS_OF_MANY 9
#define SB_BLOCK_CHAINS       20

typedef __m512 v16;

static inline __mmask16 first_lanes(size_t n)
{
    return n >= 16 ? 0xffff : (__mmask16)((1u << n) - 1);
}

static inline v16 v_set1(float x)
{
    return _mm512_set1_ps(x);
}

static inline v16 v_zero(void)
{
    return _mm512_setzero_ps();
}

static inline v16 v_load(const float *p)
{
    return _mm512_loadu_ps(p);
}

static inline v16 v_load_n(const float *p, size_t n)
{
    return _mm512_maskz_loadu_ps(first_lanes(n), p);
}

static inline void v_store(float *p, v16 a)
{
    _mm512_storeu_ps(p, a);
}

static inline void v_store_n(float *p, v16 a, size_t n)
{
    _mm512_mask_storeu_ps(p, first_lanes(n), a);
}

static inline v16 v_keep_n(v16 a, size_t n, float fill)
{
    return _mm512_mask_mov_ps(v_set1(fill), first_lanes(n), a);
}

static inline v16 v_add(v16 a, v16 b)
{
    return _mm512_add_ps(a, b);
}

static inline v16 v_sub(v16 a, v16 b)
{
    return _mm512_sub_ps(a, b);
}

static inline v16 v_mul(v16 a, v16 b)
{
    return _mm512_mul_ps(a, b);
}

static inline v16 v_div(v16 a, v16 b)
{
    return _mm512_div_ps(a, b);
}

static inline v16 v_fma(v16 a, v16 b, v16 c)
{
    return _mm512_fmadd_ps(a, b, c);
}

static inline v16 v_max(v16 a, v16 b)
{
    return _mm512_max_ps(a, b);
}

static inline v16 v_min(v16 a, v16 b)
{
    return _mm512_min_ps(a, b);
}

static inline unsigned v_equal_mask(v16 a, float b)
{
    return _mm512_cmp_ps_mask(a, v_set1(b), _CMP_EQ_OQ);
}

static inline float v_sum(v16 a)
{
    __m256 b = _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
    __m128 c = _mm_add_ps(_mm256_castps256_ps128(b), _mm256_extractf128_ps(b, 1));
    c = _mm_add_ps(c, _mm_movehl_ps(c, c));
    return _mm_cvtss_f32(_mm_add_ss(c, _mm_movehdup_ps(c)));
}

static inline float v_largest(v16 a)
{
    __m256 b = _mm256_max_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
    __m128 c = _mm_max_ps(_mm256_castps256_ps128(b), _mm256_extractf128_ps(b, 1));
    c = _mm_max_ps(c, _mm_movehl_ps(c, c));
    return _mm_cvtss_f32(_mm_max_ss(c, _mm_movehdup_ps(c)));
}

static inline v16 v_root(v16 t)
{
    return _mm512_permutexvar_ps(_mm512_castps_si512(t), _mm512_loadu_ps(sb_exp_table));
}

static inline v16 v_power_16th(v16 t)
{
    const __m512i n = _mm512_slli_epi32(_mm512_castps_si512(t), 19);
    return _mm512_castsi512_ps(
        _mm512_add_epi32(n, _mm512_permutexvar_epi32(_mm512_castps_si512(t),
                                                     _mm512_loadu_si512(sb_power_16th_float))));
}

static inline v16 v_zero_if_below(v16 a, v16 x, float least)
{
    return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x, v_set1(least), _CMP_NLT_UQ), a);
}

static inline v16 v_scale_by_power(v16 p, v16 t)
{
    return _mm512_scalef_ps(p, _mm512_sub_ps(t, v_set1(SB_EXP_SHIFT)));
}

static inline v16 v_load_f16(const void *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256(p));
}

static inline v16 v_load_bf16(const void *p)
{
    __m512i words = _mm512_cvtepu16_epi32(_mm256_loadu_si256(p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(words, 16));
}

typedef __m512i v16_words;

static inline v16_words v_load_words(const void *p)
{
    return _mm512_loadu_si512(p);
}

static inline v16 v_low_bf16(v16_words w)
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(w, 16));
}

static inline v16 v_high_bf16(v16_words w)
{
    return _mm512_castsi512_ps(_mm512_and_si512(w, _mm512_set1_epi32((int)0xffff0000)));
}

static inline __attribute__((always_inline)) v16 v_field(v16_words w, int from, int bits)
{
    const struct sb_field f = sb_field(from, bits);
    const __m512i u = f.down ? _mm512_srli_epi32(w, (unsigned)f.down) : w,
                  top = _mm512_castps_si512(v_set1(f.top));
    return v_sub(_mm512_castsi512_ps(_mm512_ternarylogic_epi32(u, _mm512_set1_epi32(f.mask), top,
                                                               0xea)), /* u & mask | top */
                 v_set1(f.top + 0.5f));
}

/* Two look-ups after one shift: for the low half one of floats, which reads the four low bits of an index;
 * for the high half one of bfloat16, which reads a fifth bit as well, so its table says all twice. */
static inline __attribute__((always_inline)) v16 v_nibble(v16_words w, int step)
{
    const __mmask32 high = 0xaaaaaaaa;
    const v16 values = _mm512_setr_ps(-8 / 16.0f, -7 / 16.0f, -6 / 16.0f, -5 / 16.0f, -4 / 16.0f,
                                      -3 / 16.0f, -2 / 16.0f, -1 / 16.0f, 0, 1 / 16.0f, 2 / 16.0f,
                                      3 / 16.0f, 4 / 16.0f, 5 / 16.0f, 6 / 16.0f, 7 / 16.0f);
    const __m256i bfloats =
        _mm512_cvtepi32_epi16(_mm512_srli_epi32(_mm512_castps_si512(values), 16));
    const __m512i u = _mm512_srli_epi32(w, (unsigned)sb_nibble_bit(step) % 16);
    return step % 2 == 0 ? _mm512_permutexvar_ps(u, values)
                         : _mm512_castsi512_ps(_mm512_maskz_permutexvar_epi16(
                               high, u, _mm512_broadcast_i64x4(bfloats)));
}

/* Pairs of lanes, pairs of pairs, and twice the quarters of a register change places. */
static inline __attribute__((always_inline)) void v_transpose(v16 a[16])
{
    v16 t[16];
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_ps(a[i], a[i + 1]);
        t[i + 1] = _mm512_unpackhi_ps(a[i], a[i + 1]);
    }
    for (int i = 0; i < 16; i += 4)
        for (int h = 0; h < 2; h++) {
            const __m512d x = _mm512_castps_pd(t[i + h]), y = _mm512_castps_pd(t[i + 2 + h]);
            a[i + 2 * h] = _mm512_castpd_ps(_mm512_unpacklo_pd(x, y));
            a[i + 2 * h + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(x, y));
        }
    for (int i = 0; i < 16; i += 8)
        for (int h = 0; h < 4; h++) {
            t[i + h] = _mm512_shuffle_f32x4(a[i + h], a[i + 4 + h], 0x88);
            t[i + 4 + h] = _mm512_shuffle_f32x4(a[i + h], a[i + 4 + h], 0xdd);
        }
    for (int h = 0; h < 8; h++) {
        a[h] = _mm512_shuffle_f32x4(t[h], t[8 + h], 0x88);
        a[8 + h] = _mm512_shuffle_f32x4(t[h], t[8 + h], 0xdd);
    }
}

static inline void v_store_f16_n(void *p, v16 a, size_t n)
{
    _mm256_mask_storeu_epi16(p, first_lanes(n), _mm512_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT));
}

/* To bfloat16, in the high halves; vcvtneps2bf16 would make subnormals zero. */
static inline __m512i to_bf16(v16 a)
{
    const __m512i bits = _mm512_castps_si512(a), one = _mm512_set1_epi32(1),
                  quiet = _mm512_set1_epi32(0x400000),
                  odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), one),
                  up = _mm512_add_epi32(_mm512_set1_epi32(0x7fff), odd);
    const __mmask16 nan = _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q);
    return _mm512_mask_or_epi32(_mm512_add_epi32(bits, up), nan, bits, quiet);
}

static inline void v_store_bf16_n(void *p, v16 a, size_t n)
{
    _mm256_mask_storeu_epi16(p, first_lanes(n),
                             _mm512_cvtepi32_epi16(_mm512_srli_epi32(to_bf16(a), 16)));
}

static inline void v_store_bf16_pairs_n(void *p, v16 low, v16 high, size_t n)
{
    const __m512i words =
        _mm512_mask_blend_epi16(0xaaaaaaaa, _mm512_srli_epi32(to_bf16(low), 16), to_bf16(high));
    _mm512_mask_storeu_epi32(p, first_lanes(n), words);
}

#endif
