/* Template: operations on rows. Include after a v16_<isa>.h. */
#include "kernels/exp_v16.h"

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

static void add(float *y, const float *x, size_t n)
{
    size_t i;
    for (i = 0; i + 16 <= n; i += 16)
        v_store(y + i, v_add(v_load(y + i), v_load(x + i)));
    if (i < n)
        v_store_n(y + i, v_add(v_load_n(y + i, n - i), v_load_n(x + i, n - i)), n - i);
}

static void divide(float *y, const float *x, size_t n, float by)
{
    const v16 b = v_set1(by);
    size_t i;
    for (i = 0; i + 16 <= n; i += 16)
        v_store(y + i, v_div(v_load(x + i), b));
    if (i < n)
        v_store_n(y + i, v_div(v_load_n(x + i, n - i), b), n - i);
}

static void multiply(float *x, size_t n, float by)
{
    const v16 b = v_set1(by);
    size_t i;
    for (i = 0; i + 16 <= n; i += 16)
        v_store(x + i, v_mul(v_load(x + i), b));
    if (i < n)
        v_store_n(x + i, v_mul(v_load_n(x + i, n - i), b), n - i);
}

static void round_bf16(uint16_t *y, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i += 16)
        v_store_bf16_n(y + i, v_load_left(x + i, n - i), n - i);
}

/* largest[r] = of a row of x. NaN never wins: v_max keeps its second operand then. `rows` is a constant at every
 * call; chains of different rows hide each other's latency. */
static inline __attribute__((always_inline)) void
largest_of_rows(const float *x, size_t ldx, int rows, size_t n, float *largest)
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
        largest[r] = v_largest(best[r]);
    }
}

static float largest(const float *x, size_t n)
{
    float max;
    largest_of_rows(x, 0, 1, n, &max);
    return max;
}

/* Lines of memory to ask for, a few at a time. */
struct line_asks {
    const unsigned char *at, *end;
    size_t each; /* bytes for ABREAST vectors */
};

static inline __attribute__((always_inline)) void ask_lines(struct line_asks *ask)
{
    for (size_t i = 0; i < ask->each && ask->at < ask->end; i += 64, ask->at += 64)
        __builtin_prefetch(ask->at);
}

static inline __attribute__((always_inline)) float
sum_exp_asking(float *e, const float *x, size_t n, float scale, float max, struct line_asks *ask)
{
    const v16 by = v_set1(scale * SB_LOG2E), top = v_set1(max);
    float total = 0.0f;
    for (size_t first = 0; first < n; first += SB_CHUNK) {
        size_t end = n - first < SB_CHUNK ? n : first + SB_CHUNK, i;
        v16 sum = v_zero(), a[ABREAST];
        for (i = first; i + ABREAST * 16 <= end; i += ABREAST * 16) {
            EACH (k, ABREAST)
                a[k] = v_load(x + i + (size_t)k * 16);
            v_exp_below(a, top, by, ABREAST);
            ask_lines(ask);
            EACH (k, ABREAST) {
                if (e)
                    v_store(e + i + (size_t)k * 16, a[k]);
                sum = v_add(sum, a[k]);
            }
        }
        for (; i < end; i += 16) {
            const size_t left = end - i;
            a[0] = v_load_left(x + i, left);
            v_exp_below(a, top, by, 1);
            if (e)
                v_store_left(e + i, a[0], left);
            sum = v_add(sum, left >= 16 ? a[0] : v_keep_n(a[0], left, 0.0f));
        }
        total = first == 0 ? v_sum(sum) : total + v_sum(sum);
    }
    return total;
}

static float sum_exp(float *e, const float *x, size_t n, float scale, float max)
{
    struct line_asks none = { 0 };
    return sum_exp_asking(e, x, n, scale, max, &none);
}

static void weigh(float *x, size_t ldx, size_t m, size_t n, float scale, float *max, float *total,
                  float *keep, struct sb_asks asks)
{
    const size_t turns = m * n / (ABREAST * 16);
    struct line_asks ask = { 0 };
    if (asks.meanwhile && turns > 0)
        ask = (struct line_asks){ asks.meanwhile, asks.meanwhile + asks.bytes, asks.bytes / turns };
    float got[SB_WEIGH_ROWS];
    size_t r = 0;
    for (; r + ABREAST <= m; r += ABREAST)
        largest_of_rows(x + r * ldx, ldx, ABREAST, n, got + r);
    for (; r < m; r++)
        largest_of_rows(x + r * ldx, ldx, 1, n, got + r);
    for (r = 0; r < m; r += 16) {
        const size_t left = m - r;
        v16 old = v_load_n(max + r, left), new = v_max(v_load_n(got + r, left), old);
        v_exp_below(&old, new, v_set1(scale * SB_LOG2E), 1);
        v_store_n(max + r, new, left);
        v_store_n(keep + r, old, left);
    }
    for (r = 0; r < m; r++)
        total[r] = fmaf(total[r], keep[r],
                        sum_exp_asking(x + r * ldx, x + r * ldx, n, scale, max[r], &ask));
}

static size_t argmax(const float *x, size_t n)
{
    float best = largest(x, n);
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
    enum { CHAINS = 2 * SB_BLOCK_ROWS };
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
