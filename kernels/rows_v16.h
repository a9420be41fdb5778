/* Template: operations on rows. Include after a v16_<isa>.h. */

enum { WEIGH_ROWS = 4 }; /* of scores that become weights abreast */

/* exp, at most 1 ulp off: x = n ln 2 + r with |r| <= ln 2 / 2, Taylor's polynomial of degree 7 in r
 * (truncation below 6e-9 relative), then 2^n. The clamps are where the result is 0 or infinite;
 * they pass a NaN through. */
static inline v16 v_exp(v16 x)
{
    const v16 shift = v_set1(0x1.8p23f);
    v16 p, t, n, r;
    x = v_min(v_set1(89.0f), v_max(v_set1(-104.0f), x));
    t = v_fma(x, v_set1(0x1.715476p0f), shift);
    n = v_sub(t, shift);
    r = v_fma(n, v_set1(-0x1.62e4p-1f), x);    /* ln 2 to 16 bits: the product is exact */
    r = v_fma(n, v_set1(-0x1.7f7d1cp-20f), r); /* and the rest of it */
    p = v_set1(1.0f / 5040);
    p = v_fma(p, r, v_set1(1.0f / 720));
    p = v_fma(p, r, v_set1(1.0f / 120));
    p = v_fma(p, r, v_set1(1.0f / 24));
    p = v_fma(p, r, v_set1(1.0f / 6));
    p = v_fma(p, r, v_set1(0.5f));
    p = v_fma(v_mul(r, r), p, r);
    p = v_add(p, v_set1(1.0f));
    return v_scale_by_power(p, t);
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

static inline v16 v_swiglu(v16 gate, v16 up)
{
    v16 denominator = v_add(v_set1(1.0f), v_exp(v_sub(v_zero(), gate)));
    return v_mul(v_div(gate, denominator), up);
}

static void swiglu(float *gate, const float *up, size_t n)
{
    size_t i;
    for (i = 0; i + 16 <= n; i += 16)
        v_store(gate + i, v_swiglu(v_load(gate + i), v_load(up + i)));
    if (i < n)
        v_store_n(gate + i, v_swiglu(v_load_n(gate + i, n - i), v_load_n(up + i, n - i)), n - i);
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

static inline v16 v_weight(v16 x, v16 scale, v16 max)
{
    return v_exp(v_sub(v_mul(x, scale), max));
}

/* NaN never wins: v_max keeps its second operand then. */
static float max_scaled(const float *x, size_t n, float scale)
{
    const v16 s = v_set1(scale);
    v16 best = v_set1(-INFINITY);
    size_t i;
    for (i = 0; i + 16 <= n; i += 16)
        best = v_max(v_mul(v_load(x + i), s), best);
    if (i < n)
        best = v_max(v_keep_n(v_mul(v_load_n(x + i, n - i), s), n - i, -INFINITY), best);
    return v_largest(best);
}

static float sum_exp(float *e, const float *x, size_t n, float scale, float max)
{
    const v16 s = v_set1(scale), top = v_set1(max);
    float total = 0.0f;
    for (size_t first = 0; first < n; first += SB_CHUNK) {
        size_t end = n - first < SB_CHUNK ? n : first + SB_CHUNK, i;
        v16 sum = v_zero();
        for (i = first; i + 16 <= end; i += 16) {
            v16 a = v_weight(v_load(x + i), s, top);
            if (e)
                v_store(e + i, a);
            sum = v_add(sum, a);
        }
        if (i < end) {
            v16 a = v_weight(v_load_n(x + i, end - i), s, top);
            if (e)
                v_store_n(e + i, a, end - i);
            sum = v_add(sum, v_keep_n(a, end - i, 0.0f));
        }
        total = first == 0 ? v_sum(sum) : total + v_sum(sum);
    }
    return total;
}

/* The same two for WEIGH_ROWS rows of whole vectors, at most a chunk: chains of different rows hide each other's
 * latency. */
static void weigh_abreast(float *x, size_t ldx, size_t n, float scale, float *max, float *total)
{
    const v16 s = v_set1(scale);
    v16 best[WEIGH_ROWS], top[WEIGH_ROWS], sum[WEIGH_ROWS];
#pragma GCC unroll 4
    for (int r = 0; r < WEIGH_ROWS; r++)
        best[r] = v_set1(-INFINITY);
    for (size_t i = 0; i < n; i += 16)
#pragma GCC unroll 4
        for (int r = 0; r < WEIGH_ROWS; r++)
            best[r] = v_max(v_mul(v_load(x + (size_t)r * ldx + i), s), best[r]);
#pragma GCC unroll 4
    for (int r = 0; r < WEIGH_ROWS; r++) {
        max[r] = v_largest(best[r]);
        top[r] = v_set1(max[r]);
        sum[r] = v_zero();
    }
    for (size_t i = 0; i < n; i += 16)
#pragma GCC unroll 4
        for (int r = 0; r < WEIGH_ROWS; r++) {
            float *at = x + (size_t)r * ldx + i;
            v16 a = v_weight(v_load(at), s, top[r]);
            v_store(at, a);
            sum[r] = v_add(sum[r], a);
        }
#pragma GCC unroll 4
    for (int r = 0; r < WEIGH_ROWS; r++)
        total[r] = v_sum(sum[r]);
}

static void weigh(float *x, size_t ldx, size_t m, size_t n, float scale, float *max, float *total)
{
    size_t r = 0;
    for (; r + WEIGH_ROWS <= m && n % 16 == 0; r += WEIGH_ROWS)
        weigh_abreast(x + r * ldx, ldx, n, scale, max + r, total + r);
    for (; r < m; r++) {
        max[r] = max_scaled(x + r * ldx, n, scale);
        total[r] = sum_exp(x + r * ldx, x + r * ldx, n, scale, max[r]);
    }
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
    enum {
        SUMS = 8,
        AHEAD = 1024
    }; /* 4 KB: 3 % faster than what the hardware asks for by itself */
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
