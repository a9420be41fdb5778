/* The number type of the training facility: float32, or float64 in the build that checks gradients.
 *
 * The same sources are compiled twice (meson.build); the double build exists only for tests, where
 * central differences then agree with the tape to many digits. */
#ifndef SB_TRAIN_REAL_H
#define SB_TRAIN_REAL_H

#include <cblas.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

#ifdef SB_TRAIN_F64
typedef double sb_real;
#define sb_blas_gemm cblas_dgemm
#else
typedef float sb_real;
#define sb_blas_gemm cblas_sgemm
#endif

/* Row loops are compiled for several instruction sets and chosen at load time. Nothing is contracted
 * or reassociated, so the choice moves no bits. */
#if defined(__x86_64__) && defined(__OPTIMIZE__) && !defined(__SANITIZE_ADDRESS__) && \
    !defined(__clang__)
#define SB_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define SB_CLONES
#endif

/* exp(x), at most 3 ulp off in float32; inputs below -87 give about 1e-38, above 88 about 1e38, and
 * NaN stays NaN. Written without branches so that compilers make vectors of it. */
static inline sb_real sb_real_exp(sb_real x)
{
#ifdef SB_TRAIN_F64
    return exp(x);
#else
    float y = x < -87.0f ? -87.0f : x;
    y = y > 88.0f ? 88.0f : y;
    /* Adding 1.5 * 2^23 leaves the nearest integer in the low bits. */
    float shifted = y * 1.44269504f + 12582912.0f;
    float n = shifted - 12582912.0f;
    float r = y - n * 0.693359375f; /* ln 2 in two parts, the first exact in 9 bits */
    r = r + n * 2.12194440e-4f;
    float p = 1.0f / 720.0f;
    p = p * r + 1.0f / 120.0f;
    p = p * r + 1.0f / 24.0f;
    p = p * r + 1.0f / 6.0f;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    int32_t bits;
    memcpy(&bits, &shifted, sizeof bits);
    int32_t power = (int32_t)((uint32_t)bits << 23) + (127 << 23);
    float scale;
    memcpy(&scale, &power, sizeof scale);
    return p * scale;
#endif
}

#endif
