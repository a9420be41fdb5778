/* Template: exponentials, several vectors abreast, and the gate that is made of them. Include after a v16_<isa>.h. */
#ifndef SB_EXP_V16_H
#define SB_EXP_V16_H

#define EACH(i, count) _Pragma("GCC unroll 4") for (int i = 0; i < (count); i++)

enum { ABREAST = 4 }; /* vectors whose exponentials are computed together */

/* Of `left` elements the first 16, or all. */
static inline v16 v_load_left(const float *p, size_t left)
{
    return left >= 16 ? v_load(p) : v_load_n(p, left);
}

static inline void v_store_left(float *p, v16 a, size_t left)
{
    if (left >= 16)
        v_store(p, a);
    else
        v_store_n(p, a, left);
}

/* 2^y (2^x - 1) / x for |x| <= 1/32: Taylor's polynomial of degree 2, with what is linear of the next term (what
 * remains is 3e-9 of the power). Each step is done for all n <= ABREAST vectors before the next: what
 * waits in a chain of operations would keep a core from seeing the other chains. n is a constant at every call. */
static inline __attribute__((always_inline)) void v_power_each(v16 *x, const v16 *power, int n)
{
    v16 p[ABREAST];
    EACH (i, n)
        p[i] = v_fma(v_set1(SB_EXP_C3), x[i], v_set1(SB_EXP_C2));
    EACH (i, n)
        p[i] = v_fma(p[i], x[i], v_set1(SB_EXP_C1));
    EACH (i, n)
        x[i] = v_mul(x[i], power[i]);
    EACH (i, n)
        x[i] = v_fma(p[i], x[i], power[i]);
}

/* exp, at most 1.01 ulp off. The clamps are where the result is 0 or infinite; they pass a NaN through. */
static inline __attribute__((always_inline)) void v_exp_each(v16 *x, int n)
{
    const v16 shift = v_set1(SB_EXP_SHIFT), factor = v_set1(SB_LOG2E);
    v16 t[ABREAST], y[ABREAST];
    EACH (i, n)
        x[i] = v_min(v_set1(89.0f), v_max(v_set1(-104.0f), x[i]));
    EACH (i, n)
        t[i] = v_fma(x[i], factor, shift);
    EACH (i, n)
        y[i] = v_fma(x[i], factor, v_sub(shift, t[i]));
    EACH (i, n)
        x[i] = v_fma(x[i], v_set1(SB_LOG2E_REST), y[i]);
    EACH (i, n)
        y[i] = v_root(t[i]);
    v_power_each(x, y, n);
    EACH (i, n)
        x[i] = v_scale_by_power(x[i], t[i]);
}

/* x = 2^((x - max) by), 0 where that is below 2^-126; at most 1.01 ulp off for the rounded product. */
static inline __attribute__((always_inline)) void v_exp_below(v16 *x, v16 max, v16 by, int n)
{
    const v16 shift = v_set1(SB_EXP_SHIFT);
    v16 t[ABREAST], power[ABREAST], exponent[ABREAST];
    EACH (i, n)
        exponent[i] = v_mul(v_sub(x[i], max), by);
    EACH (i, n)
        t[i] = v_add(exponent[i], shift);
    EACH (i, n)
        x[i] = v_sub(exponent[i], v_sub(t[i], shift)); /* exactly */
    EACH (i, n)
        power[i] = v_power_16th(t[i]);
    v_power_each(x, power, n);
    EACH (i, n)
        x[i] = v_zero_if_below(x[i], exponent[i], -126.0f);
}

/* gate = silu(gate) * up for n <= 16 * vectors elements; vectors is a constant at every call. */
static inline __attribute__((always_inline)) void swiglu_some(float *gate, const float *up,
                                                              size_t n, int vectors)
{
    v16 g[ABREAST], e[ABREAST];
    EACH (k, vectors) {
        g[k] = v_load_left(gate + k * 16, n - (size_t)k * 16);
        e[k] = v_sub(v_zero(), g[k]);
    }
    v_exp_each(e, vectors);
    EACH (k, vectors) {
        const size_t left = n - (size_t)k * 16;
        v16 silu = v_div(g[k], v_add(v_set1(1.0f), e[k]));
        v_store_left(gate + k * 16, v_mul(silu, v_load_left(up + k * 16, left)), left);
    }
}

static void swiglu(float *gate, const float *up, size_t n)
{
    size_t i;
    for (i = 0; i + ABREAST * 16 <= n; i += ABREAST * 16)
        swiglu_some(gate + i, up + i, ABREAST * 16, ABREAST);
    for (; i < n; i += 16)
        swiglu_some(gate + i, up + i, n - i, 1);
}

#endif
