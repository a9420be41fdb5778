/* kernels/prob.h, S and the dice: the bits of a result depend on its inputs alone. Every variant that
 * this machine can run gives those of plain C, and plain C sums in the order that the header states.
 * All sizes around the lanes and chunks, no alignment, inaccessible pages behind every buffer. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <string.h>

#include "harness/decode/sampling.h"
#include "kernels/prob.h"
#include "tests/property/guard.h"

static void use(enum sb_cpu cpu)
{
    assert_int_equal(sb_cpu_select(sb_cpu_name(cpu), NULL), 0);
}

static const size_t sizes[] = { 1,   2,   3,   7,   8,   9,   15,  16,   17,   31,   32,   33,  47,
                                63,  64,  65,  71,  127, 128, 129, 191,  255,  256,  257,  271, 300,
                                319, 320, 321, 511, 512, 513, 767, 1000, 1023, 1025, 4096, 5001 };
enum { N_SIZES = sizeof sizes / sizeof *sizes, MOST = 5001 };

static double *copy_doubles(const double *x, size_t n)
{
    double *y = guard(n * sizeof *y);
    assert_non_null(y);
    memcpy(y, x, n * sizeof *y);
    return y;
}

static float *copy_floats(const float *x, size_t n)
{
    float *y = guard(n * sizeof *y);
    assert_non_null(y);
    memcpy(y, x, n * sizeof *y);
    return y;
}

/* What goes in: logits (some equal, some -inf), weights (some zero), another row of these. */
struct input {
    size_t n;
    float x[MOST];
    double p[MOST], q[MOST];
};

static void make_input(struct input *in, size_t n, uint64_t seed)
{
    struct sb_rng rng = sb_rng_make(seed, SB_STREAM_DATA);
    in->n = n;
    for (size_t i = 0; i < n; i++) {
        in->x[i] = (float)(3 * sb_rng_normal(&rng));
        if (i % 5 == 3)
            in->x[i] = rintf(in->x[i]);
        if (i % 11 == 7)
            in->x[i] = -INFINITY;
        in->p[i] = i % 3 == 1 ? 0 : pow(sb_rng_uniform(&rng), 9);
        in->q[i] = i % 4 == 1 ? 0 : sb_rng_uniform(&rng);
    }
    in->x[n / 2] = 1;
    in->p[n / 3] = .75;
}

/* What comes out: numbers and rows, compared byte by byte. */
struct output {
    double number[40];
    size_t index[40];
    double row[9][MOST];
    float logits[3][MOST];
};

/* Every kernel once, on buffers that end at a page. */
static void run_kernels(struct output *out, const struct input *in)
{
    size_t n = in->n, i = 0, d = 0;
    const float *x = copy_floats(in->x, n);
    const double *p = copy_doubles(in->p, n), *q = copy_doubles(in->q, n);
    double *w = copy_doubles(in->p, n), *row = copy_doubles(in->p, n), moment;
    float *kept = copy_floats(in->x, n), *group = guard(sb_logits_groups(n) * sizeof *group);
    memset(out, 0, sizeof *out);
    out->number[d++] = (double)sb_logits_max(x, n, group);
    memcpy(out->logits[0], group, sb_logits_groups(n) * sizeof *group);
    out->index[i++] = sb_logits_argmax(x, n);
    out->index[i++] = sb_logits_count(x, n, 1);
    out->index[i] = sb_logits_take(kept, x, n, 1);
    memcpy(out->logits[1], kept, out->index[i++] * sizeof *kept);
    struct sb_temper temper = sb_temper_make((float)out->number[0], .7);
    out->number[d++] = sb_prob_exp(row, x, n, &temper);
    memcpy(out->row[0], row, n * sizeof *row);
    temper.least = 1;
    out->number[d++] = sb_prob_exp(row, x, n, &temper);
    memcpy(out->row[1], row, n * sizeof *row);
    out->number[d++] = sb_prob_moment(x, n, &temper, &moment);
    out->number[d++] = moment;
    out->number[d++] = sb_prob_sum(p, n);
    out->number[d++] = sb_prob_check(p, n);
    out->number[d++] = sb_prob_mass(p, x, n, -1, &out->index[i++]);
    sb_prob_scale(row, p, n, 1 / 7.);
    memcpy(out->row[2], row, n * sizeof *row);
    out->number[d++] = sb_prob_residual(row, .9, p, 1.1, q, n);
    memcpy(out->row[3], row, n * sizeof *row);
    out->number[d++] = sb_prob_residual_onehot(row, .9, p, .3, n / 3, n);
    memcpy(out->row[4], row, n * sizeof *row);
    sb_prob_blend(row, .9, p, -.3, q, n);
    memcpy(out->row[7], row, n * sizeof *row);
    out->number[d++] = sb_prob_below(row, p, q, .3, n);
    memcpy(out->row[8], row, n * sizeof *row);
    out->number[d++] = sb_prob_overlap(.9, p, 1.1, q, n);
    out->number[d++] = sb_prob_entropy(p, n);
    out->index[i++] = sb_prob_argmax(p, n);
    out->index[i++] = sb_prob_next(p, n / 5, n, .01);
    memcpy(kept, in->x, n * sizeof *kept);
    size_t m = out->index[i++] = sb_prob_take(w, kept, n, 1);
    memcpy(out->row[5], w, m * sizeof *w);
    memcpy(out->logits[2], kept, m * sizeof *kept);
    sb_prob_spread(w, m, x, n, 1, n);
    memcpy(out->row[6], w, n * sizeof *w);
    for (int k = 0; k < 10; k++) {
        struct sb_rng noise = { .key = 5, .position = (uint64_t)k, .stream = SB_STREAM_NOISE };
        out->index[i++] = sb_prob_pick(.0999999 * k, p, n);
        out->index[i++] = sb_race(&noise, k % 2 ? p : q, n);
    }
    guard_release();
}

static void every_variant_has_the_bits_of_plain_c(void **state)
{
    (void)state;
    static struct input in;
    static struct output want, got;
    for (size_t s = 0; s < N_SIZES; s++)
        for (uint64_t seed = 0; seed < 3; seed++) {
            make_input(&in, sizes[s], 100 * s + seed);
            use(SB_CPU_GENERIC);
            run_kernels(&want, &in);
            for (enum sb_cpu cpu = SB_CPU_GENERIC + 1; cpu < SB_CPU_COUNT; cpu++) {
                if (!sb_cpu_supported(cpu))
                    continue;
                use(cpu);
                run_kernels(&got, &in);
                for (size_t k = 0; k < 40; k++)
                    if (memcmp(&got.number[k], &want.number[k], sizeof(double)) != 0 ||
                        got.index[k] != want.index[k])
                        fail_msg("%s n=%zu: number %zu is %a, not %a; index %zu, not %zu",
                                 sb_cpu_name(cpu), in.n, k, got.number[k], want.number[k],
                                 got.index[k], want.index[k]);
                for (size_t r = 0; r < 9; r++)
                    if (memcmp(got.row[r], want.row[r], sizeof got.row[r]) != 0)
                        fail_msg("%s n=%zu: row %zu", sb_cpu_name(cpu), in.n, r);
                assert_memory_equal(got.logits, want.logits, sizeof got.logits);
            }
        }
}

/* Chunks of 16 lanes, joined pairwise, as the header says. */
static double sum_as_stated(const double *x, size_t n)
{
    double total = 0;
    for (size_t first = 0; first < n; first += 256) {
        double lane[16] = { 0 };
        for (size_t i = first; i < n && i < first + 256; i++)
            lane[i % 16] += x[i];
        for (size_t half = 8; half > 0; half /= 2)
            for (size_t j = 0; j < half; j++)
                lane[j] += lane[j + half];
        total += lane[0];
    }
    return total;
}

static void sums_have_the_stated_order(void **state)
{
    (void)state;
    static struct input in;
    static double row[MOST];
    for (enum sb_cpu cpu = SB_CPU_GENERIC; cpu < SB_CPU_COUNT; cpu++)
        for (size_t s = 0; s < N_SIZES && sb_cpu_supported(cpu); s++) {
            size_t n = sizes[s], count;
            make_input(&in, n, 7 * s);
            use(cpu);
            assert_true(sb_prob_sum(in.p, n) == sum_as_stated(in.p, n));
            assert_true(sb_prob_check(in.p, n) == sum_as_stated(in.p, n));
            double sum = sb_prob_residual(row, 1, in.p, 1, in.q, n);
            assert_true(sum == sum_as_stated(row, n));
            for (size_t i = 0; i < n; i++)
                row[i] = fmin(in.p[i], in.q[i]);
            assert_true(sb_prob_overlap(1, in.p, 1, in.q, n) == sum_as_stated(row, n));
            double below = sb_prob_below(row, in.p, in.q, .3, n);
            assert_true(below == sum_as_stated(row, n));
            for (size_t i = 0; i < n; i++)
                row[i] = in.x[i] >= -1 ? in.q[i] : 0;
            assert_true(sb_prob_mass(in.q, in.x, n, -1, &count) == sum_as_stated(row, n));
            struct sb_temper temper = sb_temper_make(sb_logits_max(in.x, n, NULL), 1);
            sum = sb_prob_exp(row, in.x, n, &temper);
            assert_true(sum == sum_as_stated(row, n));
        }
}

/* A buffer may begin anywhere that suits its type. */
static void alignment_changes_nothing(void **state)
{
    (void)state;
    static struct input in;
    static _Alignas(64) double p[MOST + 8], q[MOST + 8], row[MOST + 8], want[MOST];
    static _Alignas(64) float x[MOST + 16];
    make_input(&in, MOST, 9);
    for (enum sb_cpu cpu = SB_CPU_GENERIC; cpu < SB_CPU_COUNT; cpu++)
        for (size_t at = 0; at < 8 && sb_cpu_supported(cpu); at++) {
            use(cpu);
            memcpy(p + at, in.p, sizeof in.p);
            memcpy(q + (at * 3 % 8), in.q, sizeof in.q);
            memcpy(x + 2 * at + 1, in.x, sizeof in.x);
            double sum = sb_prob_residual(want, 1, in.p, 1, in.q, MOST);
            assert_true(sb_prob_residual(row + 7 - at, 1, p + at, 1, q + at * 3 % 8, MOST) == sum);
            assert_memory_equal(row + 7 - at, want, sizeof want);
            struct sb_temper temper = sb_temper_make(sb_logits_max(in.x, MOST, NULL), 1);
            sum = sb_prob_exp(want, in.x, MOST, &temper);
            assert_true(sb_prob_exp(row + at, x + 2 * at + 1, MOST, &temper) == sum);
            assert_memory_equal(row + at, want, sizeof want);
        }
}

/* ---- what decoding makes of them ---- */

static const struct sb_sampling settings[] = {
    { 0 },
    { .temperature = .8 },
    { .temperature = 1.3, .top_k = 1 },
    { .temperature = .8, .top_k = 50 },
    { .temperature = .6, .top_k = 700, .top_p = .95 },
    { .temperature = 1, .top_p = .9 },
    { .temperature = 1, .top_p = 1 - 1e-15 },
    { .temperature = 1, .top_p = 1e-9 },
};
enum { N_SETTINGS = sizeof settings / sizeof *settings };

static void sampling_rows_have_the_same_bits_everywhere(void **state)
{
    (void)state;
    static struct input in;
    static double want[MOST];
    for (size_t s = 0; s < N_SIZES; s++)
        for (size_t c = 0; c < N_SETTINGS; c++)
            for (enum sb_cpu cpu = SB_CPU_GENERIC; cpu < SB_CPU_COUNT; cpu++) {
                if (!sb_cpu_supported(cpu))
                    continue;
                make_input(&in, sizes[s], s);
                size_t n = in.n;
                for (size_t i = 0; i < n && c % 2; i++)
                    in.x[i] = rintf(2 * in.x[i]); /* ties at every border */
                double *prob = guard(n * sizeof *prob);
                void *scratch = guard(sb_sampling_scratch_bytes(n));
                bool cuts = settings[c].top_k > 0 || settings[c].top_p > 0;
                use(cpu);
                sb_sampling_apply(prob, &settings[c], copy_floats(in.x, n), n,
                                  cuts ? scratch : NULL);
                if (cpu == SB_CPU_GENERIC)
                    memcpy(want, prob, n * sizeof *prob);
                assert_memory_equal(prob, want, n * sizeof *prob);
                guard_release();
            }
}

/* A run's choices, as verifiers and drafters ask for them. */
static void dice_fall_the_same_everywhere(void **state)
{
    (void)state;
    static struct input in;
    size_t want[60];
    make_input(&in, 4096, 3);
    for (enum sb_cpu cpu = SB_CPU_GENERIC; cpu < SB_CPU_COUNT; cpu++) {
        if (!sb_cpu_supported(cpu))
            continue;
        use(cpu);
        struct sb_rng_dice rng = sb_rng_dice_make(11, SB_STREAM_ACCEPT, SB_STREAM_SAMPLE);
        struct sb_dice dice = sb_rng_dice_at(&rng, 40);
        for (uint64_t i = 0; i < 30; i++) {
            sb_dice_seek(&dice, i);
            size_t pick = dice.pick(dice.self, in.p, in.n), race = dice.race(dice.self, in.q, in.n);
            if (cpu == SB_CPU_GENERIC) {
                want[2 * i] = pick;
                want[2 * i + 1] = race;
            }
            assert_int_equal(pick, want[2 * i]);
            assert_int_equal(race, want[2 * i + 1]);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_variant_has_the_bits_of_plain_c),
        cmocka_unit_test(sums_have_the_stated_order),
        cmocka_unit_test(alignment_changes_nothing),
        cmocka_unit_test(sampling_rows_have_the_same_bits_everywhere),
        cmocka_unit_test(dice_fall_the_same_everywhere),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
