/* Template: operations on rows. Include after a v16_<isa>.h. */

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

/* exp, at most 1 ulp off: x = n ln 2 + r with |r| <= ln 2 / 2, Taylor's polynomial of degree 7 in r
 * (truncation below 6e-9 relative), then 2^n. The clamps are where the result is 0 or infinite;
 * they pass a NaN through. Each step is done for all n <= ABREAST vectors before the next: what waits in a
 * chain of fifteen operations would keep a core from seeing the other chains. n is a constant at every call,
 * and so is whether any x may be positive. */
static inline __attribute__((always_inline)) void v_exp_each(v16 *x, int n, bool positive)
{
    const v16 shift = v_set1(0x1.8p23f);
    v16 p[ABREAST], t[ABREAST], whole[ABREAST];
    EACH (i, n)
        x[i] = v_max(v_set1(-104.0f), x[i]);
    if (positive)
        EACH (i, n)
            x[i] = v_min(v_set1(89.0f), x[i]);
    EACH (i, n)
        t[i] = v_fma(x[i], v_set1(0x1.715476p0f), shift);
    EACH (i, n)
        whole[i] = v_sub(t[i], shift);
    EACH (i, n)
        x[i] = v_fma(whole[i], v_set1(-0x1.62e4p-1f), x[i]); /* ln 2 to 16 bits: exact */
    EACH (i, n)
        x[i] = v_fma(whole[i], v_set1(-0x1.7f7d1cp-20f), x[i]); /* and the rest of it */
    EACH (i, n)
        p[i] = v_fma(v_set1(1.0f / 5040), x[i], v_set1(1.0f / 720));
    EACH (i, n)
        p[i] = v_fma(p[i], x[i], v_set1(1.0f / 120));
    EACH (i, n)
        p[i] = v_fma(p[i], x[i], v_set1(1.0f / 24));
    EACH (i, n)
        p[i] = v_fma(p[i], x[i], v_set1(1.0f / 6));
    EACH (i, n)
        p[i] = v_fma(p[i], x[i], v_set1(0.5f));
    EACH (i, n)
        p[i] = v_fma(v_mul(x[i], x[i]), p[i], x[i]);
    EACH (i, n)
        x[i] = v_scale_by_power(v_add(p[i], v_set1(1.0f)), t[i]);
}

static inline v16 v_exp(v16 x)
{
    v_exp_each(&x, 1, true);
    return x;
}

static void rmsnorm(float *y, const float *x, const float *weight, size_t d, float eps)
{
    v16 sum = v_zero(), inv;
    size_t i;
    for (i = 0; i + 16 <= d; i += 16) {
        v16 a = v_load(x + i);
        sum = v_fma(a, a, sum);
    }
    if (i < d) {
        v16 a = v_load_n(x + i, d - i);
        sum = v_fma(a, a, sum);
    }
    inv = v_set1(1.0f / sqrtf(v_sum(sum) / (float)d + eps));
    for (i = 0; i + 16 <= d; i += 16)
        v_store(y + i, v_mul(v_mul(v_load(x + i), inv), v_load(weight + i)));
    if (i < d)
        v_store_n(y + i, v_mul(v_mul(v_load_n(x + i, d - i), inv), v_load_n(weight + i, d - i)),
                  d - i);
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
    v_exp_each(e, vectors, true);
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

static void add(float *y, const float *x, size_t n)
{
    size_t i;
    for (i = 0; i + 16 <= n; i += 16)
        v_store(y + i, v_add(v_load(y + i), v_load(x + i)));
    if (i < n)
        v_store_n(y + i, v_add(v_load_n(y + i, n - i), v_load_n(x + i, n - i)), n - i);
}

static void divide(float *x, size_t n, float by)
{
    const v16 b = v_set1(by);
    size_t i;
    for (i = 0; i + 16 <= n; i += 16)
        v_store(x + i, v_div(v_load(x + i), b));
    if (i < n)
        v_store_n(x + i, v_div(v_load_n(x + i, n - i), b), n - i);
}

static void mix(float *y, float a, const float *x, float b, size_t n)
{
    const v16 va = v_set1(a), vb = v_set1(b);
    size_t i;
    for (i = 0; i + 16 <= n; i += 16)
        v_store(y + i, v_fma(v_load(y + i), va, v_mul(v_load(x + i), vb)));
    if (i < n)
        v_store_n(y + i, v_fma(v_load_n(y + i, n - i), va, v_mul(v_load_n(x + i, n - i), vb)),
                  n - i);
}

/* max[r] = the largest of a row of x, times scale > 0: rounding keeps an order. NaN never wins: v_max keeps its
 * second operand then. `rows` is a constant at every call; chains of different rows hide each other's latency. */
static inline __attribute__((always_inline)) void max_of_rows(const float *x, size_t ldx, int rows,
                                                              size_t n, float scale, float *max)
{
    v16 best[ABREAST];
    size_t i;
    EACH (r, rows)
        best[r] = v_set1(-INFINITY);
    for (i = 0; i + 16 <= n; i += 16)
        EACH (r, rows)
            best[r] = v_max(v_load(x + (size_t)r * ldx + i), best[r]);
    EACH (r, rows) {
        if (i < n)
            best[r] = v_max(v_keep_n(v_load_n(x + (size_t)r * ldx + i, n - i), n - i, -INFINITY),
                            best[r]);
        max[r] = v_largest(best[r]) * scale;
    }
}

static float max_scaled(const float *x, size_t n, float scale)
{
    float max;
    max_of_rows(x, 0, 1, n, scale, &max);
    return max;
}

static float sum_exp(float *e, const float *x, size_t n, float scale, float max)
{
    const v16 s = v_set1(scale), top = v_set1(max);
    float total = 0.0f;
    for (size_t first = 0; first < n; first += SB_CHUNK) {
        size_t end = n - first < SB_CHUNK ? n : first + SB_CHUNK, i;
        v16 sum = v_zero(), a[ABREAST];
        for (i = first; i + ABREAST * 16 <= end; i += ABREAST * 16) {
            EACH (k, ABREAST)
                a[k] = v_sub(v_mul(v_load(x + i + (size_t)k * 16), s), top);
            v_exp_each(a, ABREAST, false);
            EACH (k, ABREAST) {
                if (e)
                    v_store(e + i + (size_t)k * 16, a[k]);
                sum = v_add(sum, a[k]);
            }
        }
        for (; i < end; i += 16) {
            const size_t left = end - i;
            a[0] = v_sub(v_mul(v_load_left(x + i, left), s), top);
            v_exp_each(a, 1, false);
            if (e)
                v_store_left(e + i, a[0], left);
            sum = v_add(sum, left >= 16 ? a[0] : v_keep_n(a[0], left, 0.0f));
        }
        total = first == 0 ? v_sum(sum) : total + v_sum(sum);
    }
    return total;
}

static void weigh(float *x, size_t ldx, size_t m, size_t n, float scale, float *max, float *total)
{
    size_t r = 0;
    for (; r + ABREAST <= m; r += ABREAST)
        max_of_rows(x + r * ldx, ldx, ABREAST, n, scale, max + r);
    for (; r < m; r++)
        max_of_rows(x + r * ldx, ldx, 1, n, scale, max + r);
    for (r = 0; r < m; r++)
        total[r] = sum_exp(x + r * ldx, x + r * ldx, n, scale, max[r]);
}

static void rescale(float *max, float *total, const float *chunk_max, const float *chunk_total,
                    float *before, float *now, size_t n)
{
    for (size_t i = 0; i < n; i += 16) {
        const size_t left = n - i;
        v16 old = v_load_n(max + i, left), chunk = v_load_n(chunk_max + i, left);
        v16 both = v_max(chunk, old), a = v_exp(v_sub(old, both)), b = v_exp(v_sub(chunk, both));
        v_store_n(max + i, both, left);
        v_store_n(before + i, a, left);
        v_store_n(now + i, b, left);
        v_store_n(total + i,
                  v_fma(v_load_n(total + i, left), a, v_mul(v_load_n(chunk_total + i, left), b)),
                  left);
    }
}

static size_t argmax(const float *x, size_t n)
{
    float best = max_scaled(x, n, 1.0f);
    size_t i;
    for (i = 0; i + 16 <= n; i += 16) {
        unsigned mask = v_equal_mask(v_load(x + i), best);
        if (mask)
            return i + (size_t)__builtin_ctz(mask);
    }
    for (; i < n; i++)
        if (x[i] == best)
            return i;
    return 0; /* all NaN */
}

static inline void rotate(float *a, float *b, float cos, float sin)
{
    float x = *a, y = *b;
    *a = fmaf(x, cos, -(y * sin));
    *b = fmaf(x, sin, y * cos);
}

static void rope(float *x, const float *cos, const float *sin, size_t n_pairs,
                 enum sb_rope_layout layout)
{
    size_t i = 0;
    if (layout == SB_ROPE_INTERLEAVED) {
        for (; i < n_pairs; i++)
            rotate(x + 2 * i, x + 2 * i + 1, cos[i], sin[i]);
        return;
    }
    for (; i + 16 <= n_pairs; i += 16) {
        v16 a = v_load(x + i), b = v_load(x + n_pairs + i);
        v16 c = v_load(cos + i), s = v_load(sin + i);
        v_store(x + i, v_fma(a, c, v_sub(v_zero(), v_mul(b, s))));
        v_store(x + n_pairs + i, v_fma(a, s, v_mul(b, c)));
    }
    for (; i < n_pairs; i++)
        rotate(x + i, x + n_pairs + i, cos[i], sin[i]);
}

static size_t spin(size_t n, float *sink)
{
    enum { CHAINS = 2 * SB_TILE_ROWS };
    v16 acc[CHAINS], a = v_set1(0.999f), b = v_set1(1e-3f);
    for (size_t j = 0; j < CHAINS; j++)
        acc[j] = v_set1((float)j);
    for (size_t i = 0; i < n; i++)
#pragma GCC unroll 24
        for (size_t j = 0; j < CHAINS; j++)
            acc[j] = v_fma(acc[j], a, b);
    for (size_t j = 1; j < CHAINS; j++)
        acc[0] = v_add(acc[0], acc[j]);
    v_store(sink, acc[0]);
    return n * CHAINS * 16;
}

static float stream(const float *x, size_t n)
{
    /* Asked for 4 KB ahead: 3 % faster than what the hardware asks for by itself. */
    enum { SUMS = 8, AHEAD = 1024 };
    v16 sum[SUMS];
    float lanes[16];
    for (size_t j = 0; j < SUMS; j++)
        sum[j] = v_zero();
    for (size_t i = 0; i + 16 * SUMS <= n; i += 16 * SUMS)
        for (size_t j = 0; j < SUMS; j++) {
            __builtin_prefetch(x + i + 16 * j + AHEAD);
            sum[j] = v_add(sum[j], v_load(x + i + 16 * j));
        }
    for (size_t j = 1; j < SUMS; j++)
        sum[0] = v_add(sum[0], sum[j]);
    v_store(lanes, sum[0]);
    return lanes[0];
}
