/* kernels_bench [--bench] [FILTER]: checks that every variant of this machine gives the bits of
 * plain C; with --bench also times them. A figure is the best of repeated runs, beside the
 * bandwidth and the multiply-add rate measured in the same process, which bound it. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cblas.h>

#include "harness/core/alloc.h"
#include "harness/core/clock.h"
#include "harness/core/rng.h"
#include "harness/core/threads.h"
#include "kernels/kernels.h"

enum { MAX_RUNS = 200 };
static const double budget_s = 0.15; /* per figure */

static float *floats(size_t n, uint64_t seed)
{
    struct sb_rng rng = sb_rng_make(seed, SB_STREAM_DATA);
    float *x = sb_alloc_aligned(n, sizeof *x);
    if (x == NULL) {
        fprintf(stderr, "kernels_bench: out of memory\n");
        exit(1);
    }
    for (size_t i = 0; i < n; i++)
        x[i] = (float)sb_rng_uniform(&rng) - 0.5f;
    return x;
}

static void run(void (*work)(const struct sb_team *team, void *arg), void *arg)
{
    const struct sb_team *team = sb_team_begin((size_t)sb_threads_get());
    work(team, arg);
    sb_team_end(team);
}

/* Least seconds of one call: other work on the machine only ever adds. */
static double time_of(int threads, void (*work)(const struct sb_team *team, void *arg), void *arg)
{
    double best = INFINITY, spent = 0;
    const struct sb_team *team = sb_team_begin((size_t)threads);
    work(team, arg);
    for (int n = 0; n < MAX_RUNS && (spent < budget_s || n < 3); n++) {
        uint64_t start = sb_now_ns();
        work(team, arg);
        double seconds = (double)(sb_now_ns() - start) * 1e-9;
        best = seconds < best ? seconds : best;
        spent += seconds;
    }
    sb_team_end(team);
    return best;
}

/* ---- what the machine can do -------------------------------------------------------------- */

/* The best of several passes. */
static double best_rate(const struct sb_meter *meter)
{
    double best = 0;
    for (int pass = 0; pass < 5; pass++) {
        double rate = meter ? sb_meter_read_rate(meter) : sb_meter_fma_rate();
        best = rate > best ? rate : best;
    }
    return best;
}

static void bench_machine(void)
{
    struct sb_meter *meter = sb_meter_create();
    if (meter)
        printf("threads %d, read rate %.1f GB/s\n", sb_threads_get(), best_rate(meter) * 1e-9);
    sb_meter_destroy(meter);
    for (int cpu = 0; cpu < SB_CPU_COUNT; cpu++)
        if (sb_cpu_supported((enum sb_cpu)cpu)) {
            sb_cpu_select(sb_cpu_name((enum sb_cpu)cpu), NULL);
            printf("%-8s multiply-adds %.1f GFLOP/s\n", sb_cpu_name((enum sb_cpu)cpu),
                   best_rate(NULL) * 1e-9);
        }
}

/* ---- products ------------------------------------------------------------------------------- */

struct product {
    struct sb_packed w;
    float *x, *y;
    size_t m;
};

static void run_product(const struct sb_team *team, void *arg)
{
    struct product *p = arg;
    sb_matmul(team, p->y, p->w.n, &p->w, p->x, p->w.k, p->m, NULL);
}

static int check(const char *what, const float *got, const float *want, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (memcmp(&got[i], &want[i], sizeof *got) != 0) {
            printf("FAIL %s %s: element %zu is %a, not %a\n", sb_cpu_name(sb_cpu_active()), what, i,
                   (double)got[i], (double)want[i]);
            return 1;
        }
    return 0;
}

/* Bytes of n rows of weights near 0.01, by type. */
static void *weights(enum sb_dtype type, size_t n, size_t k)
{
    size_t row = sb_dtype_row_bytes(type, k), block = type == SB_Q8_0 ? 34 : 18;
    struct sb_rng rng = sb_rng_make(6, SB_STREAM_INIT);
    unsigned char *w = sb_alloc_array(n, row);
    if (w == NULL)
        return NULL;
    for (size_t i = 0; i < n * row; i++)
        w[i] = (unsigned char)sb_rng_bits(&rng);
    for (size_t i = 0; i < n * k && type <= SB_BF16; i++) {
        float x = ((float)sb_rng_uniform(&rng) - 0.5f) * 0.02f;
        uint16_t h = type == SB_F16 ? sb_f32_to_f16(x) : sb_f32_to_bf16(x);
        memcpy(w + i * (type == SB_F32 ? 4 : 2), type == SB_F32 ? (void *)&x : &h,
               type == SB_F32 ? 4 : 2);
    }
    const uint16_t d = sb_f32_to_f16(1e-4f);
    for (size_t i = 0; i < n * row && type > SB_BF16; i += block)
        memcpy(w + i, &d, 2);
    return w;
}

static int check_product(enum sb_dtype type, size_t n, size_t k, size_t m)
{
    void *raw = weights(type, n, k);
    struct product p = { .x = floats(m * k, 7), .y = floats(m * n, 8), .m = m };
    float *want = floats(m * n, 9);
    int failed = 0;
    if (raw == NULL || sb_packed_init(&p.w, NULL, type, n, k, raw) != 0)
        return 1;
    sb_cpu_select("generic", NULL);
    run(run_product, &p);
    memcpy(want, p.y, m * n * sizeof *want);
    for (int cpu = 1; cpu < SB_CPU_COUNT; cpu++)
        if (sb_cpu_supported((enum sb_cpu)cpu)) {
            sb_cpu_select(sb_cpu_name((enum sb_cpu)cpu), NULL);
            memset(p.y, 0xff, m * n * sizeof *want);
            run(run_product, &p);
            failed |= check(sb_dtype_name(type), p.y, want, m * n);
        }
    sb_packed_finish(&p.w);
    sb_free(raw);
    sb_free(p.x);
    sb_free(p.y);
    sb_free(want);
    return failed;
}

static void bench_product(enum sb_dtype type, size_t n, size_t k)
{
    static const size_t rows[] = { 1, 2, 4, 8, 16, 64, 512 };
    void *raw = weights(type, n, k);
    struct product p = { .x = floats(512 * k, 7), .y = floats(512 * n, 8) };
    if (raw == NULL || sb_packed_init(&p.w, NULL, type, n, k, raw) != 0)
        return;
    for (int cpu = 1; cpu < SB_CPU_COUNT; cpu++) {
        if (!sb_cpu_supported((enum sb_cpu)cpu))
            continue;
        sb_cpu_select(sb_cpu_name((enum sb_cpu)cpu), NULL);
        printf("%-8s %-5s %4zu x %4zu ", sb_cpu_name((enum sb_cpu)cpu), sb_dtype_name(type), n, k);
        for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
            p.m = rows[i];
            double s = time_of(sb_threads_get(), run_product, &p);
            if (rows[i] == 1)
                printf(" M=1 %5.1f GB/s;", (double)p.w.size_bytes / s * 1e-9);
            printf(" %zu: %.1f", rows[i], 2.0 * (double)(n * k * rows[i]) / s * 1e-9);
        }
        printf(" GFLOP/s\n");
    }
    sb_packed_finish(&p.w);
    sb_free(raw);
    sb_free(p.x);
    sb_free(p.y);
}

/* What OpenBLAS makes of a prefill's product: x[m, k] W^T, all threads. */
struct gemm {
    const float *x, *w;
    float *y;
    size_t n, k, m;
};

static void run_gemm(const struct sb_team *team, void *arg)
{
    const struct gemm *g = arg;
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (blasint)g->m, (blasint)g->n,
                (blasint)g->k, 1, g->x, (blasint)g->k, g->w, (blasint)g->k, 0, g->y, (blasint)g->n);
}

static void bench_gemm(size_t n, size_t k)
{
    struct gemm g = { floats(512 * k, 7), floats(n * k, 8), floats(512 * n, 9), n, k, 512 };
    double s = time_of(1, run_gemm, &g); /* it brings its own threads */
    printf("openblas f32   %4zu x %4zu  512: %.1f GFLOP/s (%s)\n", n, k,
           2.0 * (double)(n * k * g.m) / s * 1e-9, openblas_get_corename());
    sb_free((void *)g.x);
    sb_free((void *)g.w);
    sb_free(g.y);
}

/* ---- rows and attention --------------------------------------------------------------------- */

struct rows {
    float *x, *y, *weight;
    size_t n, m;
};

static void run_rmsnorm(const struct sb_team *team, void *arg)
{
    struct rows *r = arg;
    sb_rmsnorm(team, r->y, r->n, r->x, r->n, r->weight, r->n, r->m, 1e-5f);
}

static void run_softmax(const struct sb_team *team, void *arg)
{
    struct rows *r = arg;
    for (size_t i = 0; i < r->m; i++)
        sb_softmax(r->y + i * r->n, r->x + i * r->n, r->n, 1.0f);
}

static void run_swiglu(const struct sb_team *team, void *arg)
{
    struct rows *r = arg;
    memcpy(r->y, r->x, r->n * r->m * sizeof *r->y);
    sb_swiglu(team, r->y, r->n, r->x, r->n, r->n, r->m);
}

static const struct {
    const char *name;
    void (*run)(const struct sb_team *team, void *arg);
    size_t n, m;
} row_benches[] = {
    { "rmsnorm", run_rmsnorm, 2048, 16 },
    { "softmax", run_softmax, 32000, 4 },
    { "swiglu", run_swiglu, 5632, 8 },
};

static int rows_of(size_t which, bool timed)
{
    size_t n = row_benches[which].n, m = row_benches[which].m;
    struct rows r = { floats(n * m, 10), floats(n * m, 11), floats(n, 12), n, m };
    float *want = floats(n * m, 13);
    int failed = 0;
    for (int cpu = 0; cpu < SB_CPU_COUNT; cpu++) {
        if (!sb_cpu_supported((enum sb_cpu)cpu))
            continue;
        sb_cpu_select(sb_cpu_name((enum sb_cpu)cpu), NULL);
        run(row_benches[which].run, &r);
        if (cpu == 0)
            memcpy(want, r.y, n * m * sizeof *want);
        failed |= check(row_benches[which].name, r.y, want, n * m);
        if (timed)
            printf("%-8s %-9s %zu x %zu: %.3f ns per element\n", sb_cpu_name((enum sb_cpu)cpu),
                   row_benches[which].name, m, n,
                   time_of(sb_threads_get(), row_benches[which].run, &r) * 1e9 / (double)(n * m));
    }
    sb_free(r.x);
    sb_free(r.y);
    sb_free(r.weight);
    sb_free(want);
    return failed;
}

struct kv_rows {
    struct sb_kv_layer kv;
    float *rows; /* k, then v */
    size_t width, m;
};

static void run_kv_write(const struct sb_team *team, void *arg)
{
    const struct kv_rows *r = arg;
    sb_kv_write(team, &r->kv, 0, r->rows, r->rows + r->width, 2 * r->width, r->m);
}

static int kv_rows_of(enum sb_dtype type, size_t m, bool timed)
{
    enum { KV_HEADS = 12, DIM = 64 };
    const size_t bytes = sb_kv_bytes(type, m, KV_HEADS, DIM), n = bytes / sizeof(float);
    float *want = floats(n, 19), *got = floats(n, 19);
    struct kv_rows r = { { type, got, m, KV_HEADS, DIM },
                         floats(2 * m * KV_HEADS * DIM, 20),
                         (size_t)KV_HEADS * DIM,
                         m };
    int failed = 0;
    for (int cpu = 0; cpu < SB_CPU_COUNT; cpu++) {
        if (!sb_cpu_supported((enum sb_cpu)cpu))
            continue;
        sb_cpu_select(sb_cpu_name((enum sb_cpu)cpu), NULL);
        memset(got, 0, bytes);
        run(run_kv_write, &r);
        if (cpu == 0)
            memcpy(want, got, bytes);
        failed |= check("kv_write", got, want, n);
        if (timed)
            printf("%-8s kv_write  %zu x %zu as %s: %.3f ns per element\n",
                   sb_cpu_name((enum sb_cpu)cpu), m, 2 * r.width, sb_dtype_name(type),
                   time_of(sb_threads_get(), run_kv_write, &r) * 1e9 / (double)(2 * m * r.width));
    }
    sb_free(r.rows);
    sb_free(want);
    sb_free(got);
    return failed;
}

struct attention {
    struct sb_kv_layer kv;
    struct sb_visible visible;
    float *q, *out;
    void *scratch;
    size_t m, heads;
};

static void run_attention(const struct sb_team *team, void *arg)
{
    struct attention *a = arg;
    size_t width = a->heads * a->kv.head_dim;
    sb_attention(team, a->out, width, a->q, width, a->heads, 0.125f, &a->kv, &a->visible, a->m,
                 a->scratch);
}

static int attention_of(size_t m, size_t prefix, bool timed)
{
    enum { HEADS = 32, KV_HEADS = 4, DIM = 64, MOST = 256 };
    static int32_t ids[MOST], counts[MOST];
    static const int32_t *lists[MOST];
    size_t slots = (prefix + m + 31) / 32 * 32;
    struct attention a = { .m = m, .heads = HEADS, .visible = { prefix, lists, counts } };
    float *want = floats(m * HEADS * DIM, 14);
    int failed = 0;
    const size_t bytes = sb_kv_bytes(SB_F32, slots, KV_HEADS, DIM);
    a.kv = (struct sb_kv_layer){ SB_F32, floats(bytes / sizeof(float), 15), slots, KV_HEADS, DIM };
    a.q = floats(m * HEADS * DIM, 17);
    a.out = floats(m * HEADS * DIM, 18);
    a.scratch = sb_alloc_aligned(1, sb_attention_scratch_bytes(m, HEADS, KV_HEADS, DIM));
    for (size_t i = 0; i < m; i++) {
        ids[i] = (int32_t)i;
        lists[i] = ids;
        counts[i] = (int32_t)i + 1;
    }
    for (int cpu = 0; cpu < SB_CPU_COUNT && a.scratch; cpu++) {
        if (!sb_cpu_supported((enum sb_cpu)cpu))
            continue;
        sb_cpu_select(sb_cpu_name((enum sb_cpu)cpu), NULL);
        run(run_attention, &a);
        if (cpu == 0)
            memcpy(want, a.out, m * HEADS * DIM * sizeof *want);
        failed |= check("attention", a.out, want, m * HEADS * DIM);
        if (timed && cpu > 0) {
            double s = time_of(sb_threads_get(), run_attention, &a);
            printf("%-8s attention %zu rows after %zu, 32 heads of 64, 4 KV heads: %.3f ms, "
                   "%.1f GFLOP/s, keys and values %.1f GB/s\n",
                   sb_cpu_name((enum sb_cpu)cpu), m, prefix, s * 1e3,
                   4.0 * (double)(m * (prefix + m) * HEADS * DIM) / s * 1e-9,
                   8.0 * (double)((prefix + m) * KV_HEADS * DIM) / s * 1e-9);
        }
    }
    sb_free(a.kv.memory);
    sb_free(a.q);
    sb_free(a.out);
    sb_free(a.scratch);
    sb_free(want);
    return failed;
}

int main(int argc, char **argv)
{
    bool timed = argc > 1 && strcmp(argv[1], "--bench") == 0;
    const char *filter = argc > 1 + timed ? argv[1 + timed] : "";
    int failed = 0;
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (timed)
        bench_machine();
    for (int type = 0; type < SB_DTYPE_COUNT; type++) {
        if (strstr(sb_dtype_name((enum sb_dtype)type), filter) == NULL)
            continue;
        for (size_t m = 1; m < 30; m += 4)
            failed |= check_product((enum sb_dtype)type, 131, 288, m);
        if (timed) {
            bench_product((enum sb_dtype)type, 2048, 2048);
            bench_product((enum sb_dtype)type, 5632, 2048);
            if (type == SB_F32) {
                bench_gemm(2048, 2048);
                bench_gemm(5632, 2048);
            }
        }
    }
    for (size_t i = 0; i < sizeof row_benches / sizeof *row_benches; i++)
        if (strstr(row_benches[i].name, filter))
            failed |= rows_of(i, timed);
    for (int type = SB_F32; type <= SB_BF16 && strstr("kv_write", filter); type++) {
        failed |= kv_rows_of((enum sb_dtype)type, 8, timed);
        failed |= kv_rows_of((enum sb_dtype)type, 70, timed);
    }
    if (strstr("attention", filter)) {
        failed |= attention_of(1, 1000, timed);
        failed |= attention_of(16, 1000, timed);
        failed |= attention_of(256, 0, timed);
    }
    printf("%s\n", failed ? "variants differ" : "all variants agree bit for bit");
    return failed;
}
