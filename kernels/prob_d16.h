/* Template: kernels on probability rows. Include after a d16_<isa>.h. */

enum { ABREAST = SB_D16_ABREAST, STEP = 16 * ABREAST, RACERS = SB_Q8_ABREAST };
#define ALWAYS static inline __attribute__((always_inline))
#ifdef __clang__
#define UNROLLED _Pragma("clang loop unroll(full)")
#else
#define UNROLLED _Pragma("GCC unroll 16")
#endif
#define EACH(k, count) UNROLLED for (int k = 0; k < (count); k++)

static inline size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* x[16], or its first `left` with -inf behind them in `room`. */
static inline const float *padded(float *room, const float *x, size_t left)
{
    if (left >= 16)
        return x;
    for (size_t j = 0; j < 16; j++)
        room[j] = j < left ? x[j] : -INFINITY;
    return room;
}

static inline unsigned first_bits(size_t n)
{
    return n < 16 ? (1u << n) - 1 : 0xffffu;
}

/* ---- logits ---- */

static float prob_max(const float *x, size_t n, float *group)
{
    const v16 none = v_set1(-INFINITY);
    v16 top = none;
    bool nan = false;
    for (size_t first = 0; first < n; first += SB_CHUNK) {
        size_t end = first + smaller(n - first, SB_CHUNK), i;
        v16 best = none;
        for (i = first; i + 32 <= end; i += 32) {
            v16 a = v_load(x + i), b = v_load(x + i + 16);
            nan |= v_any_nan(a, b);
            best = v_max(b, v_max(a, best));
        }
        for (; i < end; i += 16) {
            v16 a = v_keep_n(v_load_n(x + i, end - i), end - i, -INFINITY);
            nan |= v_any_nan(a, a);
            best = v_max(a, best);
        }
        if (group)
            v_store(group + first / 16, best);
        top = v_max(best, top);
    }
    return nan ? NAN : v_largest(top);
}

static size_t prob_find_float(const float *x, size_t n, float value)
{
    size_t i;
    for (i = 0; i + 16 <= n; i += 16) {
        unsigned mask = v_equal_mask(v_load(x + i), value);
        if (mask)
            return i + (size_t)__builtin_ctz(mask);
    }
    while (i < n && x[i] != value)
        i++;
    return i;
}

static size_t prob_count(const float *x, size_t n, float least)
{
    size_t count = 0, i;
    for (i = 0; i + 16 <= n; i += 16)
        count += (size_t)__builtin_popcount(v_least_mask(v_load(x + i), least));
    if (i < n)
        count += (size_t)__builtin_popcount(v_least_mask(v_load_n(x + i, n - i), least) &
                                            first_bits(n - i));
    return count;
}

/* What is written at out + count lies below x + i + 16, even where out is x. */
static size_t prob_take(float *out, const float *x, size_t n, float least)
{
    size_t count = 0, i;
    for (i = 0; i + 16 <= n; i += 16) {
        v16 a = v_load(x + i);
        unsigned mask = v_least_mask(a, least);
        if (mask) {
            v_pack(out + count, a, mask);
            count += (size_t)__builtin_popcount(mask);
        }
    }
    for (; i < n; i++)
        if (x[i] >= least)
            out[count++] = x[i];
    return count;
}

/* ---- exponentials ---- */

/* e[count] = the weights of x[16 count]; d: NULL, or x - max where the weight is not 0.
 *
 * t = (x - max) rate = n + r with |r| <= 1/2; the weight is 2^(n / 16) 2^(r / 16). The polynomial is
 * the one of degree 5 and value 1 at 0 whose relative error is least, 5.7e-15. Each
 * step is taken for all the vectors before the next, so that nothing waits for a chain. */
ALWAYS void weigh(d16 *e, d16 *d, const float *x, int count, const struct sb_temper *temper)
{
    static const double c[] = { 0x1.5d89ee9616089p-30, 0x1.3b2c78d7122bfp-23, 0x1.c6b08d6e1f1c3p-17,
                                0x1.ebfbdff5ff796p-11, 0x1.62e42fefa3a02p-5,  1 };
    const d16 max = d_set1((double)temper->max), rate = d_set1(temper->rate);
    const d16 magic = d_set1(0x1.8p52);
    d16 t[ABREAST], r[ABREAST];
    EACH (k, count)
        e[k] = d_sub(d_load_floats(x + 16 * k), max);
    EACH (k, count)
        t[k] = d_fma(e[k], rate, magic);
    EACH (k, count)
        r[k] = d_sub(magic, t[k]);
    EACH (k, count)
        r[k] = d_fma(e[k], rate, r[k]);
    if (d) {
        EACH (k, count)
            d[k] = d_keep_floats(e[k], x + 16 * k, temper->least);
    }
    EACH (k, count)
        e[k] = d_fma(d_set1(c[0]), r[k], d_set1(c[1]));
    EACH (i, 4) {
        EACH (k, count)
            e[k] = d_fma(e[k], r[k], d_set1(c[i + 2]));
    }
    EACH (k, count)
        t[k] = d_power_16th(t[k]);
    EACH (k, count)
        e[k] = d_keep_floats(d_mul(e[k], t[k]), x + 16 * k, temper->least);
}

static double prob_exp(double *prob, const float *x, size_t n, const struct sb_temper *temper)
{
    double total = 0;
    for (size_t first = 0; first < n; first += SB_CHUNK) {
        size_t end = first + smaller(n - first, SB_CHUNK), i;
        d16 sum = d_set1(0), e[ABREAST];
        float room[16];
        for (i = first; i + STEP <= end; i += STEP) {
            weigh(e, NULL, x + i, ABREAST, temper);
            if (prob) {
                EACH (k, ABREAST)
                    d_store(prob + i + 16 * k, e[k]);
            }
            EACH (k, ABREAST)
                sum = d_add(sum, e[k]);
        }
        for (; i < end; i += 16) {
            weigh(e, NULL, padded(room, x + i, end - i), 1, temper);
            if (prob)
                d_store_n(prob + i, e[0], end - i);
            sum = d_add(sum, e[0]);
        }
        total += d_sum(sum);
    }
    return total;
}

static double prob_moment(const float *x, size_t n, const struct sb_temper *temper, double *dot)
{
    double total = 0, moment = 0;
    for (size_t first = 0; first < n; first += SB_CHUNK) {
        size_t end = first + smaller(n - first, SB_CHUNK), i;
        d16 sum = d_set1(0), product = sum, e[ABREAST], d[ABREAST];
        float room[16];
        for (i = first; i + STEP <= end; i += STEP) {
            weigh(e, d, x + i, ABREAST, temper);
            EACH (k, ABREAST) {
                sum = d_add(sum, e[k]);
                product = d_fma(e[k], d[k], product);
            }
        }
        for (; i < end; i += 16) {
            weigh(e, d, padded(room, x + i, end - i), 1, temper);
            sum = d_add(sum, e[0]);
            product = d_fma(e[0], d[0], product);
        }
        total += d_sum(sum);
        moment += d_sum(product);
    }
    *dot = moment * (temper->rate * 0x1.62e42fefa39efp-5); /* ln 2 / 16 */
    return total;
}

/* ---- rows ---- */

static double prob_sum(const double *x, size_t n, double *chunk)
{
    double total = 0;
    for (size_t first = 0; first < n; first += SB_CHUNK) {
        size_t end = first + smaller(n - first, SB_CHUNK), i;
        d16 sum = d_set1(0);
        for (i = first; i + 16 <= end; i += 16)
            sum = d_add(sum, d_load(x + i));
        if (i < end)
            sum = d_add(sum, d_load_n(x + i, end - i));
        double part = d_sum(sum);
        if (chunk)
            chunk[first / SB_CHUNK] = part;
        total += part;
    }
    return total;
}

static double prob_check(const double *x, size_t n)
{
    d16 low[2] = { d_set1(0), d_set1(0) }; /* two chains, each as long as what the sums need */
    double total = 0;
    for (size_t first = 0; first < n; first += SB_CHUNK) {
        size_t end = first + smaller(n - first, SB_CHUNK), i;
        d16 sum = d_set1(0), a, b;
        for (i = first; i + 32 <= end; i += 32) {
            a = d_load(x + i);
            b = d_load(x + i + 16);
            low[0] = d_min(a, low[0]);
            low[1] = d_min(b, low[1]);
            sum = d_add(d_add(sum, a), b);
        }
        for (; i < end; i += 16) {
            a = d_load_n(x + i, end - i);
            low[0] = d_min(a, low[0]);
            sum = d_add(sum, a);
        }
        total += d_sum(sum); /* a NaN stays in it */
    }
    return d_above_mask(d_sub(d_set1(0), d_min(low[0], low[1])), 0) ? NAN : total;
}

static double prob_mass(const double *w, const float *x, size_t n, float least, size_t *count)
{
    double total = 0;
    size_t seen = 0;
    for (size_t first = 0; first < n; first += SB_CHUNK) {
        size_t end = first + smaller(n - first, SB_CHUNK), i;
        d16 sum = d_set1(0);
        for (i = first; i + 16 <= end; i += 16) {
            seen += (size_t)__builtin_popcount(v_least_mask(v_load(x + i), least));
            sum = d_add(sum, d_keep_floats(d_load(w + i), x + i, least));
        }
        if (i < end) {
            float room[16];
            const float *last = padded(room, x + i, end - i);
            seen +=
                (size_t)__builtin_popcount(v_least_mask(v_load(last), least) & first_bits(end - i));
            sum = d_add(sum, d_keep_floats(d_load_n(w + i, end - i), last, least));
        }
        total += d_sum(sum);
    }
    *count = seen;
    return total;
}

static size_t prob_take_pairs(double *w, float *x, size_t n, float least)
{
    size_t count = 0, i;
    for (i = 0; i + 16 <= n; i += 16) {
        v16 a = v_load(x + i);
        unsigned mask = v_least_mask(a, least);
        if (mask) {
            d_pack(w + count, d_load(w + i), mask);
            v_pack(x + count, a, mask);
            count += (size_t)__builtin_popcount(mask);
        }
    }
    for (; i < n; i++)
        if (x[i] >= least) {
            w[count] = w[i];
            x[count++] = x[i];
        }
    return count;
}

static double prob_largest(const double *x, size_t n)
{
    d16 best = d_set1(-INFINITY);
    double lane[16];
    size_t i;
    for (i = 0; i + 16 <= n; i += 16)
        best = d_max(d_load(x + i), best);
    d_store(lane, best);
    for (size_t j = 0; i + j < n; j++)
        lane[j] = x[i + j] > lane[j] ? x[i + j] : lane[j];
    for (size_t j = 1; j < 16; j++)
        lane[0] = lane[j] > lane[0] ? lane[j] : lane[0];
    return lane[0];
}

static size_t prob_next(const double *x, size_t from, size_t n, double least)
{
    size_t i;
    for (i = from; i + 16 <= n; i += 16) {
        unsigned mask = d_least_mask(d_load(x + i), least);
        if (mask)
            return i + (size_t)__builtin_ctz(mask);
    }
    while (i < n && !(x[i] >= least))
        i++;
    return i;
}

static void prob_scale(double *out, const double *x, size_t n, double factor)
{
    const d16 by = d_set1(factor);
    size_t i;
    for (i = 0; i + 16 <= n; i += 16)
        d_store(out + i, d_mul(d_load(x + i), by));
    if (i < n)
        d_store_n(out + i, d_mul(d_load_n(x + i, n - i), by), n - i);
}

/* From the back: what is still to be moved lies at prob[0 .. m), no further than where it goes. */
static size_t prob_spread(double *prob, const float *x, size_t from, size_t to, float least,
                          size_t m)
{
    for (; (to - from) % 16; to--)
        prob[to - 1] = x[to - 1] >= least ? prob[--m] : 0;
    for (; to > from; to -= 16) {
        unsigned mask = v_least_mask(v_load(x + to - 16), least);
        d16 a = d_set1(0);
        if (mask) {
            m -= (size_t)__builtin_popcount(mask);
            a = d_expand(prob + m, mask);
        }
        d_store(prob + to - 16, a);
    }
    return m;
}

static void prob_blend(double *out, double a, const double *p, double b, const double *q, size_t n)
{
    const d16 va = d_set1(a), vb = d_set1(b);
    size_t i;
    for (i = 0; i + 16 <= n; i += 16)
        d_store(out + i, d_add(d_mul(d_load(p + i), va), d_mul(d_load(q + i), vb)));
    if (i < n) {
        size_t left = n - i;
        d16 x = d_mul(d_load_n(p + i, left), va), y = d_mul(d_load_n(q + i, left), vb);
        d_store_n(out + i, d_add(x, y), left);
    }
}

static double prob_below(double *out, const double *x, const double *by, double bar, size_t n)
{
    double total = 0;
    for (size_t first = 0; first < n; first += SB_CHUNK) {
        size_t end = first + smaller(n - first, SB_CHUNK), i;
        d16 sum = d_set1(0), a;
        for (i = first; i + 16 <= end; i += 16) {
            a = d_keep_below(d_load(x + i), d_load(by + i), bar);
            d_store(out + i, a);
            sum = d_add(sum, a);
        }
        if (i < end) {
            a = d_keep_below(d_load_n(x + i, end - i), d_load_n(by + i, end - i), bar);
            d_store_n(out + i, a, end - i);
            sum = d_add(sum, a);
        }
        total += d_sum(sum);
    }
    return total;
}

static double prob_residual(double *out, double a, const double *p, double b, const double *q,
                            size_t n)
{
    const d16 va = d_set1(a), vb = d_set1(b), zero = d_set1(0);
    double total = 0;
    for (size_t first = 0; first < n; first += SB_CHUNK) {
        size_t end = first + smaller(n - first, SB_CHUNK), i;
        d16 sum = zero, rest;
        for (i = first; i + 16 <= end; i += 16) {
            rest = d_sub(d_mul(d_load(p + i), va), d_mul(d_load(q + i), vb));
            rest = d_max(rest, zero);
            if (out)
                d_store(out + i, rest);
            sum = d_add(sum, rest);
        }
        if (i < end) {
            size_t left = end - i;
            rest = d_sub(d_mul(d_load_n(p + i, left), va), d_mul(d_load_n(q + i, left), vb));
            rest = d_max(rest, zero);
            if (out)
                d_store_n(out + i, rest, left);
            sum = d_add(sum, rest);
        }
        total += d_sum(sum);
    }
    return total;
}

static double prob_overlap(double a, const double *p, double b, const double *q, size_t n)
{
    const d16 va = d_set1(a), vb = d_set1(b);
    double total = 0;
    for (size_t first = 0; first < n; first += SB_CHUNK) {
        size_t end = first + smaller(n - first, SB_CHUNK), i;
        d16 sum = d_set1(0);
        for (i = first; i + 16 <= end; i += 16)
            sum = d_add(sum, d_min(d_mul(d_load(p + i), va), d_mul(d_load(q + i), vb)));
        if (i < end) {
            size_t left = end - i;
            sum = d_add(sum,
                        d_min(d_mul(d_load_n(p + i, left), va), d_mul(d_load_n(q + i, left), vb)));
        }
        total += d_sum(sum);
    }
    return total;
}

/* p[count] = p log p; 0 below 2^-1022. With d_split's p = 2^e m, r = m inverse - 1 and |r| <= 1/32:
 * log p = e ln 2 + log + r + r^2 c(r), where the polynomial interpolates at the Chebyshev points: 8e-19
 * off at most. */
ALWAYS void times_log(d16 *p, int count)
{
    static const double c[] = { 0x1.c7d6d6880307cp-4,  -0x1.006683c32b3a0p-3, 0x1.24923a9363f54p-3,
                                -0x1.5555454f53a61p-3, 0x1.9999999a5415cp-3,  -0x1.0000000066907p-2,
                                0x1.555555555554ap-2,  -0x1.ffffffffffff3p-2 };
    d16 e[ABREAST], r[ABREAST], log[ABREAST], y[ABREAST];
    EACH (k, count)
        p[k] = d_keep_self(p[k], 0x1p-1022);
    EACH (k, count)
        y[k] = d_split(p[k], &e[k], &r[k], &log[k]);
    EACH (k, count)
        r[k] = d_fma(y[k], r[k], d_set1(-1));
    EACH (k, count)
        log[k] = d_fma(e[k], d_set1(0x1.62e42fefa39efp-1), log[k]);
    EACH (k, count)
        y[k] = d_fma(d_set1(c[0]), r[k], d_set1(c[1]));
    EACH (i, 6) {
        EACH (k, count)
            y[k] = d_fma(y[k], r[k], d_set1(c[i + 2]));
    }
    EACH (k, count)
        y[k] = d_fma(d_mul(r[k], r[k]), y[k], r[k]);
    EACH (k, count)
        p[k] = d_mul(p[k], d_add(y[k], log[k]));
}

static double prob_entropy(const double *p, size_t n)
{
    double total = 0;
    for (size_t first = 0; first < n; first += SB_CHUNK) {
        size_t end = first + smaller(n - first, SB_CHUNK), i;
        d16 sum = d_set1(0), a[ABREAST];
        for (i = first; i + STEP <= end; i += STEP) {
            unsigned any = 0;
            EACH (k, ABREAST)
                a[k] = d_load(p + i + 16 * k);
            EACH (k, ABREAST)
                any |= d_above_mask(a[k], 0);
            if (!any) /* what the lanes would add is 0 */
                continue;
            times_log(a, ABREAST);
            EACH (k, ABREAST)
                sum = d_sub(sum, a[k]);
        }
        for (; i < end; i += 16) {
            a[0] = d_load_n(p + i, end - i);
            times_log(a, 1);
            sum = d_sub(sum, a[0]);
        }
        total += d_sum(sum);
    }
    return total;
}

/* ---- the race: 64 tokens at a time, whose upper bits are the eight halves of four words of eight
 * blocks; see sb_race ---- */

/* Philox 4x32-10, as sb_philox4x32_10, of the counters c[4][count]; the upper halves carry rubbish. */
ALWAYS void philox(q8 c[4][RACERS], const q8 key[10][2], int count)
{
    q8 p[2][RACERS];
    EACH (round, 10) {
        EACH (k, count)
            p[0][k] = q_mul(c[0][k], 0xD2511F53u);
        EACH (k, count)
            p[1][k] = q_mul(c[2][k], 0xCD9E8D57u);
        EACH (k, count)
            c[0][k] = q_xor(q_high(p[1][k]), c[1][k], key[round][0]);
        EACH (k, count)
            c[2][k] = q_xor(q_high(p[0][k]), c[3][k], key[round][1]);
        EACH (k, count)
            c[1][k] = p[1][k];
        EACH (k, count)
            c[3][k] = p[0][k];
    }
}

/* Let the tokens run that may still win, smaller ones first: group k has the words c[4 k + i]. */
static __attribute__((noinline)) void run_able(struct sb_race *race, const q8 *c, const double *w,
                                               size_t first, int count)
{
    for (int j = 0; j < 8 * count; j++, w += 8, first += 8) {
        unsigned left = 0xff;
        while ((left &= q_below_mask(c[j / 8 * 4 + j % 4], j / 4 % 2, w, race->bound)) != 0) {
            size_t i = (size_t)__builtin_ctz(left);
            left &= left - 1;
            sb_race_run(race, first + i, w[i]);
        }
    }
}

/* Tokens first .. first + 64 count - 1 with weights w. */
ALWAYS void race_some(struct sb_race *race, const q8 key[10][2], const double *w, size_t first,
                      int count)
{
    q8 c[4][RACERS];
    d16 most = d_load(w);
    EACH (k, 4 * count)
        most = d_max(d_load(w + 16 * k), most);
    if (!d_above_mask(most, 0))
        return;
    EACH (k, count)
        c[0][k] = q_count((uint32_t)(first / 8) + 8 * (uint32_t)k);
    EACH (k, count)
        c[1][k] = q_set1(race->stream);
    EACH (k, count)
        c[2][k] = q_set1(race->position[0]);
    EACH (k, count)
        c[3][k] = q_set1(race->position[1]);
    philox(c, key, count);
    q_lanes able = q_below(c[0][0], 0, w, race->bound);
    EACH (k, count) {
        EACH (i, 8)
            able = q_or(able, q_below(c[i % 4][k], i / 4, w + 64 * k + 8 * i, race->bound));
    }
    if (!q_any(able))
        return;
    q8 word[4 * RACERS]; /* a copy: c itself stays in registers */
    EACH (k, count) {
        EACH (i, 4)
            word[4 * k + i] = c[i][k];
    }
    run_able(race, word, w, first, count);
}

static void prob_race(struct sb_race *race, const double *weight, size_t n)
{
    q8 key[10][2];
    size_t i;
    for (uint32_t round = 0; round < 10; round++) {
        key[round][0] = q_set1(race->key[0] + round * 0x9E3779B9u);
        key[round][1] = q_set1(race->key[1] + round * 0xBB67AE85u);
    }
    for (i = 0; i + 64 * RACERS <= n; i += 64 * RACERS)
        race_some(race, key, weight + i, i, RACERS);
    for (; i < n; i += 64) {
        double room[64];
        for (size_t j = 0; j < 64; j++)
            room[j] = j < n - i ? weight[i + j] : 0;
        race_some(race, key, room, i, 1);
    }
}

const struct sb_prob_table SB_PROB_TABLE = {
    .max = prob_max,
    .find_float = prob_find_float,
    .count = prob_count,
    .take = prob_take,
    .take_pairs = prob_take_pairs,
    .exp = prob_exp,
    .moment = prob_moment,
    .mass = prob_mass,
    .sum = prob_sum,
    .check = prob_check,
    .largest = prob_largest,
    .next = prob_next,
    .scale = prob_scale,
    .spread = prob_spread,
    .blend = prob_blend,
    .below = prob_below,
    .residual = prob_residual,
    .overlap = prob_overlap,
    .entropy = prob_entropy,
    .race = prob_race,
};
#undef ALWAYS
#undef EACH
