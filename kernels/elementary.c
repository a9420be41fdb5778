/* Elementary functions with one sequence of operations on every machine. */
#include <math.h>

#include "kernels/exp.h"
#include "kernels/internal.h"

const float sb_exp_table[16] = {
    0x1.000000p0f, 0x1.0b5586p0f, 0x1.172b84p0f, 0x1.2387a6p0f, 0x1.306fe0p0f, 0x1.3dea64p0f,
    0x1.4bfdaep0f, 0x1.5ab07ep0f, 0x1.6a09e6p0f, 0x1.7a1148p0f, 0x1.8ace54p0f, 0x1.9c4918p0f,
    0x1.ae89fap0f, 0x1.c199bep0f, 0x1.d5818ep0f, 0x1.ea4afap0f,
};

const uint32_t sb_power_16th_float[16] = {
    0x3f800000u, 0x3f7daac3u, 0x3f7b95c2u, 0x3f79c3d3u, 0x3f7837f0u, 0x3f76f532u,
    0x3f75fed7u, 0x3f75583fu, 0x3f7504f3u, 0x3f7508a4u, 0x3f75672au, 0x3f76248cu,
    0x3f7744fdu, 0x3f78ccdfu, 0x3f7ac0c7u, 0x3f7d257du,
};

/* One lane of v_exp_each in rows_v16.h, operation by operation. */
float sb_expf(float x)
{
    float t, r, p, root;
    x = -104.0f > x ? -104.0f : x;
    x = 89.0f < x ? 89.0f : x;
    t = fmaf(x, SB_LOG2E, SB_EXP_SHIFT);
    r = fmaf(x, SB_LOG2E, SB_EXP_SHIFT - t);
    r = fmaf(x, SB_LOG2E_REST, r);
    root = sb_exp_root(t);
    p = fmaf(SB_EXP_C3, r, SB_EXP_C2);
    p = fmaf(p, r, SB_EXP_C1);
    return sb_exp_scale(fmaf(p, r * root, root), t);
}

/* Abramowitz and Stegun 7.1.26: 1 - (a1 t + ... + a5 t^5) exp(-x^2), t = 1 / (1 + p |x|). */
float sb_erff(float x)
{
    float y = fabsf(x), t = 1.0f / fmaf(0.3275911f, y, 1.0f);
    float p = fmaf(1.061405429f, t, -1.453152027f);
    p = fmaf(p, t, 1.421413741f);
    p = fmaf(p, t, -0.284496736f);
    p = fmaf(p, t, 0.254829592f);
    return copysignf(1.0f - p * t * sb_expf(-y * y), x);
}

/* c[0] + c[1] x + ... + c[n - 1] x^(n - 1). */
static double horner(const double *c, size_t n, double x)
{
    double p = c[n - 1];
    for (size_t i = n - 1; i-- > 0;)
        p = fma(p, x, c[i]);
    return p;
}

static const double ln2_hi = 0x1.62e42fee00000p-1; /* 32 bits: n * ln2_hi is exact */
static const double ln2_lo = 0x1.a39ef35793c76p-33;

/* As sb_expf, with Taylor's polynomial of degree 13 (truncation below 5e-18); at most 1 ulp off. */
double sb_exp(double x)
{
    static const double c[] = {
        1.0 / 2,     1.0 / 6,      1.0 / 24,      1.0 / 120,      1.0 / 720,       1.0 / 5040,
        1.0 / 40320, 1.0 / 362880, 1.0 / 3628800, 1.0 / 39916800, 1.0 / 479001600, 1.0 / 6227020800,
    };
    double n, r, p;
    int64_t k;
    if (x != x)
        return x;
    x = x < -746.0 ? -746.0 : x > 710.0 ? 710.0 : x;
    n = fma(x, 0x1.71547652b82fep0, 0x1.8p52) - 0x1.8p52;
    r = fma(n, -ln2_lo, fma(n, -ln2_hi, x));
    p = 1.0 + fma(r * r, horner(c, sizeof c / sizeof *c, r), r);
    k = (int64_t)n;
    return p * sb_double_of((uint64_t)(k / 2 + 1023) << 52) *
           sb_double_of((uint64_t)(k - k / 2 + 1023) << 52);
}

/* x = 2^e m with m in [sqrt(1/2), sqrt(2)); f = m - 1, s = f / (2 + f), and
 * log(1 + f) = 2 atanh(s) = f - s (f - 2 (s^2 / 3 + s^4 / 5 + ...)); at most 1 ulp off. */
double sb_log(double x)
{
    static const double c[] = {
        2.0 / 3,  2.0 / 5,  2.0 / 7,  2.0 / 9,  2.0 / 11, 2.0 / 13,
        2.0 / 15, 2.0 / 17, 2.0 / 19, 2.0 / 21, 2.0 / 23,
    };
    int64_t e = 0;
    uint64_t bits;
    double f, s, z, small;
    if (!(x > 0.0))
        return x == 0.0 ? -INFINITY : NAN;
    if (x > 0x1.fffffffffffffp1023)
        return x;
    if (x < 0x1p-1022) {
        x *= 0x1p54;
        e = -54;
    }
    bits = sb_double_bits(x) - 0x3fe6a09e667f3bcdu; /* sqrt(1/2) */
    e += (int64_t)bits >> 52;
    f = sb_double_of((bits & 0xfffffffffffffu) + 0x3fe6a09e667f3bcdu) - 1.0;
    s = f / (2.0 + f);
    z = s * s;
    small = s * (f - z * horner(c, sizeof c / sizeof *c, z));
    return fma((double)e, ln2_hi, f - (small - (double)e * ln2_lo));
}

/* pi / 2 in three parts of 53 bits each. */
static const double half_pi[3] = { 0x1.921fb54442d18p0, 0x1.1a62633145c07p-54,
                                   -0x1.f1976b7ed8fbcp-110 };

/* sin and cos of r + tail for |r| <= pi / 4: Taylor's polynomials of degrees 17 and 18. */
static void sincos_small(double r, double tail, double *sin_r, double *cos_r)
{
    static const double s[] = {
        -1.0 / 6,
        1.0 / 120,
        -1.0 / 5040,
        1.0 / 362880,
        -1.0 / 39916800,
        1.0 / 6227020800.0,
        -1.0 / 1307674368000.0,
        1.0 / 355687428096000.0,
    };
    static const double c[] = {
        1.0 / 24,
        -1.0 / 720,
        1.0 / 40320,
        -1.0 / 3628800,
        1.0 / 479001600.0,
        -1.0 / 87178291200.0,
        1.0 / 20922789888000.0,
        -1.0 / 6402373705728000.0,
    };
    double z = r * r, half = 0.5 * z, one = 1.0 - half;
    *sin_r = r + fma(z * r, horner(s, 8, z), tail * one);
    *cos_r = one + (((1.0 - one) - half) + fma(z * z, horner(c, 8, z), -(r * tail)));
}

/* x = n pi / 2 + r + tail. The first fma is exact (|x| < 2^30: x and n half_pi[0] cancel into 53
 * bits), the product with the second part is kept in two doubles. At most 1 ulp off. */
void sb_sincos(double x, double *sin_x, double *cos_x)
{
    double n = fma(x, 0x1.45f306dc9c883p-1, 0x1.8p52) - 0x1.8p52;
    double r0 = fma(-n, half_pi[0], x), p = n * half_pi[1], r = r0 - p;
    double back = r - r0; /* two-sum of r0 and -p */
    double tail = (r0 - (r - back)) - (p + back);
    double s, c;
    tail -= fma(n, half_pi[1], -p);
    tail = fma(-n, half_pi[2], tail);
    sincos_small(r, tail, &s, &c);
    switch ((int64_t)n & 3) {
    case 0:
        *sin_x = s, *cos_x = c;
        break;
    case 1:
        *sin_x = c, *cos_x = -s;
        break;
    case 2:
        *sin_x = -s, *cos_x = -c;
        break;
    default:
        *sin_x = -c, *cos_x = s;
        break;
    }
}
