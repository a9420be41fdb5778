/* Kernels: the bits of a result depend on its inputs alone. Every variant that this machine can run
 * is compared with plain C bit for bit, on odd sizes, with inaccessible pages after every buffer. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "harness/core/alloc.h"
#include "harness/core/rng.h"
#include "harness/core/threads.h"
#include "kernels/kernels.h"

/* Buffers that end where an inaccessible page begins; freed together. */
static struct {
    void *base;
    size_t size_bytes;
} guarded[32];
static size_t n_guarded;

static void *guard(size_t size_bytes)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t body = (size_bytes + page - 1) / page * page;
    char *base =
        mmap(NULL, body + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(base != MAP_FAILED);
    assert_true(n_guarded < sizeof guarded / sizeof *guarded);
    assert_int_equal(mprotect(base + body, page, PROT_NONE), 0);
    guarded[n_guarded].base = base;
    guarded[n_guarded++].size_bytes = body + page;
    return base + body - size_bytes;
}

static void release(void)
{
    while (n_guarded > 0) {
        n_guarded--;
        munmap(guarded[n_guarded].base, guarded[n_guarded].size_bytes);
    }
}

static float *guard_floats(size_t n)
{
    return guard(n * sizeof(float));
}

static float *random_floats(size_t n, uint64_t seed)
{
    struct sb_rng rng = sb_rng_make(seed, SB_STREAM_DATA);
    float *x = guard_floats(n);
    for (size_t i = 0; i < n; i++)
        x[i] = (float)sb_rng_normal(&rng);
    return x;
}

/* Rows of random weights of any type: scales and halves are kept finite. */
static void *random_weights(enum sb_dtype type, size_t n, size_t k, uint64_t seed)
{
    struct sb_rng rng = sb_rng_make(seed, SB_STREAM_INIT);
    size_t row = sb_dtype_row_bytes(type, k), block = type == SB_Q8_0 ? 34 : 18;
    unsigned char *w = guard(n * row);
    for (size_t i = 0; i < n * row; i++)
        w[i] = (unsigned char)sb_rng_bits(&rng);
    for (size_t i = 0; type == SB_F32 && i < n * k; i++) {
        float x = (float)sb_rng_normal(&rng);
        memcpy(w + i * 4, &x, 4);
    }
    for (size_t i = 0; (type == SB_F16 || type == SB_BF16) && i < n * k; i++) {
        float z = (float)sb_rng_normal(&rng);
        uint16_t x = type == SB_F16 ? sb_f32_to_f16(z) : sb_f32_to_bf16(z);
        memcpy(w + i * 2, &x, 2);
    }
    for (size_t i = 0; (type == SB_Q8_0 || type == SB_Q4_0) && i < n * row; i += block) {
        uint16_t d = sb_f32_to_f16((float)sb_rng_normal(&rng) * 0.02f);
        memcpy(w + i, &d, 2);
    }
    return w;
}

static void use(enum sb_cpu cpu)
{
    assert_int_equal(sb_cpu_select(sb_cpu_name(cpu), NULL), 0);
}

/* Calls body for every variant but plain C. */
#define FOR_VARIANTS(cpu)                                                 \
    for (enum sb_cpu cpu = SB_CPU_GENERIC + 1; cpu < SB_CPU_COUNT; cpu++) \
        if (sb_cpu_supported(cpu))

static const size_t batch[] = { 1, 2, 3, 5, 7, 8, 12, 13, 14, 31, 70 };
enum { N_BATCH = sizeof batch / sizeof *batch };

struct product_case {
    enum sb_dtype type;
    size_t n, k, m;
    bool bias, add;
};

/* y[m, n] of one product with rows ldy = n apart, in new guarded memory. */
static float *multiply(const struct sb_packed *w, const float *x, size_t ldx, size_t m,
                       const float *bias, bool add)
{
    float *y = guard_floats(m * w->n);
    for (size_t i = 0; i < m * w->n; i++)
        y[i] = add ? (float)i * 0.37f : NAN;
    const struct sb_matmul_options options = { .bias = bias, .add = add };
    sb_matmul(NULL, y, w->n, w, x, ldx, m, &options);
    return y;
}

static float integer_of(enum sb_dtype type, const unsigned char *block, size_t i)
{
    if (type == SB_Q8_0)
        return (float)(int8_t)block[2 + i];
    return (float)((i < 16 ? block[2 + i] & 15 : block[2 + i - 16] >> 4) - 8);
}

/* One element of a product: a chain over k; for quantised types a chain over the integers of each
 * block, and one over the blocks. */
static float defined_sum(enum sb_dtype type, const unsigned char *src, const float *row,
                         const float *x, size_t k)
{
    float sum = 0.0f;
    bool quantised = type == SB_Q8_0 || type == SB_Q4_0;
    size_t block = quantised ? SB_QUANT_BLOCK : k, bytes = type == SB_Q8_0 ? 34 : 18;
    for (size_t i0 = 0; i0 < k; i0 += block, src += bytes) {
        uint16_t half;
        memcpy(&half, src, sizeof half);
        float d = quantised ? sb_f16_to_f32(half) : 1.0f, part = quantised ? 0.0f : sum;
        for (size_t i = i0; i < i0 + block; i++)
            part = fmaf(x[i], quantised ? integer_of(type, src, i - i0) : row[i], part);
        sum = quantised ? fmaf(d, part, sum) : part;
    }
    return sum;
}

/* The definition: the sum over k, bias, one addition. */
static void check_against_definition(const struct product_case *c, const void *weights,
                                     const float *x, const float *bias, const float *y)
{
    float *row = sb_alloc_array(c->k, sizeof *row);
    assert_non_null(row);
    for (size_t j = 0; j < c->n; j++) {
        const unsigned char *src =
            (const unsigned char *)weights + j * sb_dtype_row_bytes(c->type, c->k);
        sb_dequantize_row(row, c->type, src, c->k);
        for (size_t r = 0; r < c->m; r++) {
            float sum = defined_sum(c->type, src, row, x + r * c->k, c->k);
            if (c->bias)
                sum += bias[j];
            if (c->add)
                sum = (float)(r * c->n + j) * 0.37f + sum;
            if (memcmp(&sum, &y[r * c->n + j], sizeof sum) != 0)
                fail_msg("%s n=%zu k=%zu m=%zu row %zu col %zu: %a, not %a", sb_dtype_name(c->type),
                         c->n, c->k, c->m, r, j, y[r * c->n + j], sum);
        }
    }
    sb_free(row);
}

static void check_product(const struct product_case *c)
{
    const void *weights = random_weights(c->type, c->n, c->k, 1 + c->k);
    const float *x = random_floats(c->m * c->k, 2), *bias = random_floats(c->n, 3);
    struct sb_packed w;
    assert_int_equal(sb_packed_init(&w, NULL, c->type, c->n, c->k, weights), 0);
    use(SB_CPU_GENERIC);
    const float *want = multiply(&w, x, c->k, c->m, c->bias ? bias : NULL, c->add);
    check_against_definition(c, weights, x, bias, want);
    FOR_VARIANTS(cpu)
    {
        use(cpu);
        const float *got = multiply(&w, x, c->k, c->m, c->bias ? bias : NULL, c->add);
        if (memcmp(got, want, c->m * c->n * sizeof *got) != 0)
            fail_msg("%s differs from generic: %s n=%zu k=%zu m=%zu", sb_cpu_name(cpu),
                     sb_dtype_name(c->type), c->n, c->k, c->m);
    }
    sb_packed_finish(&w);
    release();
}

static void products_follow_their_definition_in_every_variant(void **state)
{
    (void)state;
    static const size_t sizes[][2] = { { 1, 1 }, { 33, 7 }, { 70, 129 }, { 161, 261 }, { 32, 0 } };
    static const size_t quantized[][2] = {
        { 1, 32 }, { 33, 64 }, { 70, 96 }, { 161, 288 }, { 5, 0 }
    };
    for (int type = 0; type < SB_DTYPE_COUNT; type++)
        for (size_t s = 0; s < 5; s++)
            for (size_t b = 0; b < N_BATCH; b++) {
                const size_t *size = type == SB_Q8_0 || type == SB_Q4_0 ? quantized[s] : sizes[s];
                check_product(&(struct product_case){ (enum sb_dtype)type, size[0], size[1],
                                                      batch[b], b % 2 == 0, b % 3 == 0 });
            }
}

static void a_row_of_a_batch_is_the_row_alone(void **state)
{
    (void)state;
    /* Every tile, several of them, and more rows than one slice has. */
    static const size_t sizes[] = { 1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12,
                                    13, 14, 15, 16, 25, 34, 43, 52, 61, 70, 300 };
    const size_t n = 200, k = 544, m = 300; /* more than one block of panels, too */
    for (enum sb_cpu cpu = 0; cpu < SB_CPU_COUNT; cpu++)
        for (int type = 0; sb_cpu_supported(cpu) && type < SB_DTYPE_COUNT; type++) {
            const void *weights = random_weights((enum sb_dtype)type, n, k, 4);
            const float *x = random_floats(m * k, 5);
            struct sb_packed w;
            use(cpu);
            assert_int_equal(sb_packed_init(&w, NULL, (enum sb_dtype)type, n, k, weights), 0);
            float *one = guard_floats(n), *all = guard_floats(m * n);
            for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
                sb_matmul(NULL, all, n, &w, x, k, sizes[i], NULL);
                for (size_t r = 0; r < sizes[i]; r++) {
                    sb_matmul(NULL, one, n, &w, x + r * k, k, 1, NULL);
                    assert_memory_equal(one, all + r * n, n * sizeof *one);
                }
            }
            sb_packed_finish(&w);
            release();
        }
}

struct gated_case {
    enum sb_dtype type;
    size_t n, k, most; /* rows */
};

/* Norms, two products and their gate in one, by one to three threads, with room for one set of norms and for all. */
static void check_gated(const struct gated_case *c)
{
    static const size_t sizes[] = { 1, 2, 5, 8, 13, 14, 33, 70, 300 };
    const size_t n = c->n, k = c->k, ld = sb_row_stride(k);
    const void *gate = random_weights(c->type, n, k, 30), *up = random_weights(c->type, n, k, 31);
    const float *x = random_floats(c->most * k, 32), *weight = random_floats(k, 33);
    float *normed = guard_floats(c->most * ld), *room = guard_floats(3 * c->most * ld);
    float *want = guard_floats(c->most * n), *half = guard_floats(c->most * n),
          *got = guard_floats(c->most * n);
    struct sb_packed w[2], both;
    assert_int_equal(sb_packed_init(&w[0], NULL, c->type, n, k, gate), 0);
    assert_int_equal(sb_packed_init(&w[1], NULL, c->type, n, k, up), 0);
    assert_int_equal(sb_packed_init_gated(&both, NULL, c->type, n, k, gate, up), 0);
    sb_rmsnorm(NULL, normed, ld, x, k, weight, k, c->most, 1e-5f);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes && sizes[i] <= c->most; i++) {
        const size_t m = sizes[i];
        sb_matmul(NULL, want, n, &w[0], normed, ld, m, NULL);
        sb_matmul(NULL, half, n, &w[1], normed, ld, m, NULL);
        sb_swiglu(NULL, want, n, half, n, n, m);
        for (size_t threads = 1; threads <= 3; threads++)
            for (size_t rooms = 1; rooms <= 3; rooms += 2) {
                const struct sb_norm norm = { weight, 1e-5f, room, rooms * m };
                const struct sb_matmul_options options = { .norm = &norm };
                const struct sb_team *team = sb_team_begin(threads);
                memset(got, 0, m * n * sizeof *got);
                sb_matmul(team, got, n, &both, x, k, m, &options);
                assert_memory_equal(got, want, m * n * sizeof *got);
                memset(got, 0, m * n * sizeof *got);
                sb_matmul(team, got, n, &w[1], x, k, m, &options);
                assert_memory_equal(got, half, m * n * sizeof *got);
                sb_team_end(team);
            }
    }
    sb_packed_finish(&w[0]);
    sb_packed_finish(&w[1]);
    sb_packed_finish(&both);
    release();
}

static void norms_and_gates_in_a_product_change_no_bit(void **state)
{
    (void)state;
    for (enum sb_cpu cpu = 0; cpu < SB_CPU_COUNT; cpu++)
        for (int type = 0; sb_cpu_supported(cpu) && type < SB_DTYPE_COUNT; type++) {
            use(cpu);
            check_gated(&(struct gated_case){ (enum sb_dtype)type, 199, 544, 300 });
            check_gated(&(struct gated_case){ (enum sb_dtype)type, 64, 1088, 14 });
            if (type <= SB_BF16)
                check_gated(&(struct gated_case){ (enum sb_dtype)type, 31, 77, 70 });
        }
}

/* Products that ask for keys and values meanwhile, alone and in a team. */
static void asking_does_not_change_a_bit(void **state)
{
    (void)state;
    enum { HEADS = 3, HEAD_DIM = 64, SLOTS = 3 * SB_CHUNK };
    const size_t n = 999, k = 544, most = 40;
    for (enum sb_cpu cpu = 0; cpu < SB_CPU_COUNT; cpu++)
        for (int type = SB_Q8_0; sb_cpu_supported(cpu) && type <= SB_Q4_0; type++) {
            struct sb_kv_layer kv = { SB_F32, NULL, SLOTS, HEADS, HEAD_DIM };
            const void *weights = random_weights((enum sb_dtype)type, n, k, 15);
            const float *x = random_floats(most * k, 14);
            float *want = guard_floats(most * n), *got = guard_floats(most * n);
            struct sb_packed w;
            use(cpu);
            kv.memory = guard(sb_kv_bytes(SB_F32, SLOTS, HEADS, HEAD_DIM));
            assert_int_equal(sb_packed_init(&w, NULL, (enum sb_dtype)type, n, k, weights), 0);
            for (size_t m = 1; m <= most; m += m < 14 ? 1 : 9) {
                sb_matmul(NULL, want, n, &w, x, k, m, NULL);
                for (size_t threads = 1; threads <= 2; threads++) {
                    const struct sb_team *team = sb_team_begin(threads);
                    const size_t spare = sb_matmul_spare(team, &w, m);
                    struct sb_soon soon = sb_attention_soon(team, &kv, SLOTS, HEADS, 1, spare);
                    memset(got, 0, m * n * sizeof *got);
                    sb_matmul(team, got, n, &w, x, k, m,
                              &(struct sb_matmul_options){ .soon = &soon });
                    sb_team_end(team);
                    assert_memory_equal(got, want, m * n * sizeof *got);
                    assert_int_equal(soon.asked, spare < soon.bytes ? spare : soon.bytes);
                    assert_true(soon.asked > 0 || m < 8);
                }
            }
            sb_packed_finish(&w);
            release();
        }
}

static void listed_rows_are_columns_of_the_product(void **state)
{
    (void)state;
    const size_t n = 130, k = 288, m = 67;
    int32_t rows[70];
    for (size_t i = 0; i < 70; i++)
        rows[i] = (int32_t)(i < 35 ? i * 37 % n : i); /* scattered, then a run */
    for (enum sb_cpu cpu = 0; cpu < SB_CPU_COUNT; cpu++)
        for (int type = 0; sb_cpu_supported(cpu) && type < SB_DTYPE_COUNT; type++) {
            const void *weights = random_weights((enum sb_dtype)type, n, k, 8);
            const float *x = random_floats(m * k, 9);
            float *all = guard_floats(m * n), *some = guard_floats(m * 70);
            struct sb_packed w;
            use(cpu);
            assert_int_equal(sb_packed_init(&w, NULL, (enum sb_dtype)type, n, k, weights), 0);
            sb_matmul(NULL, all, n, &w, x, k, m, NULL);
            sb_matmul_rows(NULL, some, 70, &w, rows, 70, x, k, m);
            for (size_t r = 0; r < m; r++)
                for (size_t i = 0; i < 70; i++)
                    assert_memory_equal(&some[r * 70 + i], &all[r * n + (size_t)rows[i]], 4);
            sb_packed_finish(&w);
            release();
        }
}

/* What a team does together: a product, then row operations on its result, as a forward does. */
static void work_together(size_t threads, const struct sb_packed *w, const float *x, float *y,
                          size_t m)
{
    const struct sb_team *team = sb_team_begin(threads);
    size_t n = w->n;
    sb_matmul(team, y, n, w, x, w->k, m, NULL);
    sb_rmsnorm(team, y, n, y, n, y + (m - 1) * n, n, m / 2, 1e-5f);
    sb_swiglu(team, y, n, y + 2 * n, n, n, m - 2);
    sb_team_end(team);
}

static void threads_do_not_change_a_bit(void **state)
{
    (void)state;
    enum { MOST = 5 };
    const size_t n = 999, k = 512, m = 33; /* enough for every loop to be shared out */
    const float *x = random_floats(m * k, 10);
    const void *weights = random_weights(SB_BF16, n, k, 11);
    float *y[MOST];
    int before = sb_threads_get();
    struct sb_packed w;
    sb_cpu_select(NULL, NULL);
    for (size_t t = 0; t < MOST; t++) {
        sb_threads_set((int)t + 1);
        y[t] = guard_floats(m * n);
        assert_int_equal(sb_packed_init(&w, NULL, SB_BF16, n, k, weights), 0);
        work_together(t + 1, &w, x, y[t], m);
        sb_packed_finish(&w);
    }
    sb_threads_set(before);
    for (size_t t = 1; t < MOST; t++)
        assert_memory_equal(y[t], y[0], m * n * sizeof(float));
    release();
}

/* All row operations on n values into out[4 n + 4]. */
static void run_rows(float *out, const float *x, const float *other, size_t n)
{
    sb_rmsnorm(NULL, out, n, x, n, other, n, 1, 1e-6f);
    memcpy(out + n, x, n * sizeof *x);
    sb_swiglu(NULL, out + n, n, other, n, n, 1);
    memcpy(out + 2 * n, x, n * sizeof *x);
    sb_add(out + 2 * n, other, n);
    out[4 * n] = sb_softmax(out + 3 * n, x, n, 0.7f);
    out[4 * n + 1] = sb_logsumexp(x, n);
    out[4 * n + 2] = (float)sb_argmax(x, n);
    out[4 * n + 3] = (float)sb_argmax(out, n);
}

static void row_operations_agree_in_every_variant(void **state)
{
    (void)state;
    for (size_t n = 1; n < 1100; n += n < 70 ? 1 : 93) {
        float *x = random_floats(n, n), *other = random_floats(n, n + 1);
        x[n / 2] *= 30.0f;
        x[n / 3] -= 100.0f;
        float *want = guard_floats(4 * n + 4), *got = guard_floats(4 * n + 4);
        use(SB_CPU_GENERIC);
        run_rows(want, x, other, n);
        FOR_VARIANTS(cpu)
        {
            use(cpu);
            run_rows(got, x, other, n);
            assert_memory_equal(got, want, (4 * n + 4) * sizeof *got);
        }
        release();
    }
}

static void the_exponential_of_every_variant_is_the_scalar_one(void **state)
{
    (void)state;
    enum { N = 4096 };
    float *x = guard_floats(N), *e = guard_floats(N);
    for (uint32_t start = 0; start < 1u << 20; start += 1u << 14) {
        for (uint32_t i = 0; i < N; i++) {
            uint32_t bits = (start + i) * 4096u + 77u * i;
            memcpy(&x[i], &bits, sizeof bits);
            if (!(x[i] >= -INFINITY && x[i] <= 90.0f))
                x[i] = (float)i / -37.0f;
        }
        for (enum sb_cpu cpu = 0; cpu < SB_CPU_COUNT; cpu++) {
            if (!sb_cpu_supported(cpu))
                continue;
            use(cpu);
            for (uint32_t i = 0; i < N; i++) /* silu(-x) * 1 = -x / (1 + exp(x)) */
                e[i] = -x[i];
            float ones[N];
            for (uint32_t i = 0; i < N; i++)
                ones[i] = 1.0f;
            sb_swiglu(NULL, e, N, ones, N, N, 1);
            for (uint32_t i = 0; i < N; i++) {
                float want = -x[i] / (1.0f + sb_expf(0.0f - -x[i]));
                if (memcmp(&want, &e[i], sizeof want) != 0 && !(want != want && e[i] != e[i]))
                    fail_msg("%s: %a gives %a, not %a", sb_cpu_name(cpu), x[i], e[i], want);
            }
        }
    }
    release();
}

static void rotation_agrees_in_every_variant(void **state)
{
    (void)state;
    const size_t m = 5, heads = 3, dim = 22;
    const int32_t pos[] = { 0, 1, 7, 31, 8 };
    for (int layout = 0; layout < 2; layout++) {
        const float *x = random_floats(m * heads * dim, 12);
        struct sb_rope rope;
        float *want = guard_floats(m * heads * dim), *got = guard_floats(m * heads * dim);
        assert_int_equal(sb_rope_init(&rope, 32, 18, (enum sb_rope_layout)layout, 1e4, 1, NULL), 0);
        memcpy(want, x, m * heads * dim * sizeof *x);
        use(SB_CPU_GENERIC);
        sb_rope_apply(NULL, &rope, want, heads * dim, heads, dim, pos, m);
        FOR_VARIANTS(cpu)
        {
            use(cpu);
            memcpy(got, x, m * heads * dim * sizeof *x);
            sb_rope_apply(NULL, &rope, got, heads * dim, heads, dim, pos, m);
            assert_memory_equal(got, want, m * heads * dim * sizeof *x);
        }
        sb_rope_finish(&rope);
        release();
    }
}

/* A cache with random keys and values in its first `used` slots. */
static struct sb_kv_layer random_cache(enum sb_dtype type, size_t slots, size_t used, size_t heads,
                                       size_t dim)
{
    struct sb_kv_layer kv = {
        .type = type, .n_slots = slots, .n_kv_heads = heads, .head_dim = dim
    };
    size_t bytes = sb_kv_bytes(type, slots, heads, dim);
    size_t width = heads * dim;
    const float *k = random_floats(used * width, 20), *v = random_floats(used * width, 21);
    kv.memory = guard_floats(bytes / sizeof(float)); /* a multiple of 64 bytes: aligned */
    memset(kv.memory, 0, bytes);
    sb_kv_write(NULL, &kv, 0, k, v, width, used);
    return kv;
}

static const enum sb_dtype kv_types[] = { SB_F32, SB_F16, SB_BF16 };
enum { KV_TYPES = sizeof kv_types / sizeof *kv_types };

struct attention_case {
    size_t heads, kv_heads, dim, prefix, m;
};

enum { MOST_ROWS = 300, TRUNK = 5 };

/* Row r sees the batch rows r, r - step, r - 2 step, ...: step 1 is a chain, 2 two branches, -2 two branches of a
 * trunk. A call for the rows from `first` on is given those before them as rows that are kept. */
static float *attend(const struct attention_case *c, const struct sb_kv_layer *kv, const float *q,
                     size_t first, size_t m, int32_t step)
{
    static int32_t room[MOST_ROWS][MOST_ROWS];
    static const int32_t *list[MOST_ROWS];
    static int32_t n_list[MOST_ROWS];
    const int32_t trunk = step < 0 ? TRUNK : 0, apart = step < 0 ? -step : step;
    for (size_t r = 0; r < m; r++) {
        int32_t at = (int32_t)(first + r), n = 0;
        for (int32_t i = 0; i < trunk && i <= at; i++)
            room[r][n++] = i;
        for (int32_t i = trunk + (at - trunk) % apart; at >= trunk && i <= at; i += apart)
            room[r][n++] = i;
        list[r] = room[r];
        n_list[r] = n;
    }
    struct sb_visible visible = { c->prefix, list, n_list };
    size_t width = c->heads * c->dim;
    void *scratch =
        sb_alloc_aligned(1, sb_attention_scratch_bytes(first + m, c->heads, c->kv_heads, c->dim));
    float *out = guard_floats(m * width);
    assert_non_null(scratch);
    const struct sb_team *team = sb_team_begin((size_t)sb_threads_get());
    sb_attention(team, out, width, q + first * width, width, c->heads, 0.3f, kv, &visible, m,
                 scratch);
    sb_team_end(team);
    sb_free(scratch);
    return out;
}

static void attention_agrees_in_every_variant_and_row_by_row(void **state)
{
    (void)state;
    static const struct attention_case cases[] = {
        { 1, 1, 2, 0, 1 },    { 4, 2, 16, 31, 5 },    { 6, 2, 34, 100, 9 },  { 3, 3, 80, 255, 12 },
        { 8, 1, 64, 700, 7 }, { 4, 4, 128, 257, 31 }, { 8, 2, 32, 511, 70 }, { 4, 2, 16, 30, 300 },
    };
    static const int32_t steps[] = { 1, 3, -2 };
    for (size_t i = 0; i < KV_TYPES * sizeof cases / sizeof *cases; i++)
        for (size_t s = 0; s < sizeof steps / sizeof *steps; s++) {
            const struct attention_case *c = &cases[i / KV_TYPES];
            const int32_t step = steps[s];
            size_t slots = (c->prefix + c->m + 31) / 32 * 32, width = c->heads * c->dim;
            struct sb_kv_layer kv =
                random_cache(kv_types[i % KV_TYPES], slots, c->prefix + c->m, c->kv_heads, c->dim);
            const float *q = random_floats(c->m * width, 22);
            use(SB_CPU_GENERIC);
            const float *want = attend(c, &kv, q, 0, c->m, step);
            FOR_VARIANTS(cpu)
            {
                use(cpu);
                const float *got = attend(c, &kv, q, 0, c->m, step);
                assert_memory_equal(got, want, c->m * width * sizeof *got);
                for (size_t r = 0; r < c->m; r += 1 + c->m / 5) {
                    const float *one = attend(c, &kv, q, r, 1, step);
                    assert_memory_equal(one, want + r * width, width * sizeof *one);
                }
            }
            release();
        }
}

/* The same tokens once as the branch 0, 2, 4, ... of a tree and once as a chain whose first part is
 * already committed. */
static void a_tree_path_has_the_bits_of_a_chain(void **state)
{
    (void)state;
    const struct attention_case tree = { 4, 2, 48, 250, 20 }, chain = { 4, 2, 48, 256, 4 };
    const size_t width = 4 * 48;
    for (size_t i = 0; i < KV_TYPES * SB_CPU_COUNT; i++) {
        enum sb_cpu cpu = (enum sb_cpu)(i / KV_TYPES);
        if (!sb_cpu_supported(cpu))
            continue;
        use(cpu);
        struct sb_kv_layer kv = random_cache(kv_types[i % KV_TYPES], 288, 270, 2, 48);
        const float *q = random_floats(20 * width, 23);
        const float *branch = attend(&tree, &kv, q, 0, 20, 2);
        float *path = guard_floats(4 * width);
        for (size_t r = 0; r < 4; r++)
            memcpy(path + r * width, q + (12 + 2 * r) * width, width * sizeof *q);
        for (size_t r = 0; r < 10; r++)
            sb_kv_move(&kv, 250 + r, 250 + 2 * r);
        const float *straight = attend(&chain, &kv, path, 0, 4, 1);
        for (size_t r = 0; r < 4; r++)
            assert_memory_equal(straight + r * width, branch + (12 + 2 * r) * width,
                                width * sizeof *q);
        release();
    }
}

static void attention_does_not_depend_on_threads(void **state)
{
    (void)state;
    const struct attention_case c = { 8, 4, 64, 600, 70 };
    struct sb_kv_layer kv = random_cache(SB_F32, 704, 670, 4, 64);
    const float *q = random_floats(70 * 512, 24);
    int before = sb_threads_get();
    float *out[3];
    sb_cpu_select(NULL, NULL);
    for (int t = 0; t < 3; t++) {
        sb_threads_set(t + 1);
        out[t] = attend(&c, &kv, q, 0, 70, 1);
    }
    sb_threads_set(before);
    assert_memory_equal(out[0], out[1], 70 * 512 * sizeof(float));
    assert_memory_equal(out[0], out[2], 70 * 512 * sizeof(float));
    release();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(products_follow_their_definition_in_every_variant),
        cmocka_unit_test(a_row_of_a_batch_is_the_row_alone),
        cmocka_unit_test(norms_and_gates_in_a_product_change_no_bit),
        cmocka_unit_test(asking_does_not_change_a_bit),
        cmocka_unit_test(listed_rows_are_columns_of_the_product),
        cmocka_unit_test(threads_do_not_change_a_bit),
        cmocka_unit_test(row_operations_agree_in_every_variant),
        cmocka_unit_test(the_exponential_of_every_variant_is_the_scalar_one),
        cmocka_unit_test(rotation_agrees_in_every_variant),
        cmocka_unit_test(attention_agrees_in_every_variant_and_row_by_row),
        cmocka_unit_test(a_tree_path_has_the_bits_of_a_chain),
        cmocka_unit_test(attention_does_not_depend_on_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
