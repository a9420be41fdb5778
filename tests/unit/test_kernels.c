/* kernels/: conversions, elementary functions, and row operations and attention against plain
 * double-precision references. That variants agree is tests/property/test_kernel_invariance.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "harness/core/alloc.h"
#include "harness/core/rng.h"
#include "kernels/kernels.h"
#include "kernels/team.h"

static void fill(float *x, size_t n, uint64_t seed)
{
    struct sb_rng rng = sb_rng_make(seed, SB_STREAM_DATA);
    for (size_t i = 0; i < n; i++)
        x[i] = (float)sb_rng_normal(&rng);
}

static bool near(double got, double want, double tolerance)
{
    return fabs(got - want) <= tolerance * (1 + fabs(want));
}

/* ---- conversions ---------------------------------------------------------------------------- */

/* The value of a half from its fields. */
static double half_value(uint16_t x)
{
    int exponent = x >> 10 & 31, fraction = x & 1023;
    double magnitude = exponent == 31 ? (fraction ? NAN : INFINITY)
                       : exponent     ? ldexp(1024 + fraction, exponent - 25)
                                      : ldexp(fraction, -24);
    return x & 0x8000 ? -magnitude : magnitude;
}

static void every_half_has_its_value_and_comes_back(void **state)
{
    (void)state;
    for (uint32_t x = 0; x < 0x10000; x++) {
        float got = sb_f16_to_f32((uint16_t)x);
        double want = half_value((uint16_t)x);
        if (want != want) {
            assert_true(got != got);
            assert_true(sb_f16_to_f32(sb_f32_to_f16(got)) != sb_f16_to_f32(sb_f32_to_f16(got)));
            continue;
        }
        assert_true((double)got == want && !signbit(got) == !(x & 0x8000));
        assert_int_equal(sb_f32_to_f16(got), x);
    }
}

/* Between each two neighbouring halves: just below, at, and just above the middle. */
static void floats_round_to_the_nearest_half_ties_to_even(void **state)
{
    (void)state;
    for (uint16_t x = 0; x < 0x7c00; x++) {
        double next = x == 0x7bff ? 65536 : half_value((uint16_t)(x + 1));
        float middle = (float)((half_value(x) + next) / 2); /* exact: one more bit */
        assert_int_equal(sb_f32_to_f16(middle), x % 2 ? x + 1 : x);
        assert_int_equal(sb_f32_to_f16(nextafterf(middle, 0)), x);
        assert_int_equal(sb_f32_to_f16(nextafterf(middle, INFINITY)), x + 1);
        assert_int_equal(sb_f32_to_f16(-middle), 0x8000 | (x % 2 ? x + 1 : x));
    }
    assert_int_equal(sb_f32_to_f16(1e30f), 0x7c00);
    assert_int_equal(sb_f32_to_f16(-INFINITY), 0xfc00);
}

static void bfloat16_rounds_to_nearest_even_and_keeps_nan(void **state)
{
    (void)state;
    for (uint32_t x = 0; x < 0x10000; x++) {
        float f = sb_bf16_to_f32((uint16_t)x);
        uint32_t bits, low;
        memcpy(&bits, &f, sizeof bits);
        assert_int_equal(bits, x << 16);
        if (f != f) {
            float back = sb_bf16_to_f32(sb_f32_to_bf16(f));
            assert_true(back != back);
            continue;
        }
        assert_int_equal(sb_f32_to_bf16(f), x);
        for (low = 0x7fff; low <= 0x8001 && (x & 0x7f80) != 0x7f80; low++) {
            bits = x << 16 | low;
            memcpy(&f, &bits, sizeof f);
            assert_int_equal(sb_f32_to_bf16(f), x + (low > 0x8000 || (low == 0x8000 && x % 2)));
        }
    }
    uint32_t only_low_bits = 0x7f800001; /* truncation would make this NaN an infinity */
    float nan_value;
    memcpy(&nan_value, &only_low_bits, sizeof nan_value);
    assert_int_equal(sb_f32_to_bf16(nan_value), 0x7fc0);
}

/* Words of two, of any bits; an odd end's other half is 0, and nothing beyond is written. */
static void check_pairs(const struct sb_team *team, size_t k, size_t m)
{
    enum { GAP = 3 };
    const size_t ldx = k + GAP, words = (k + 1) / 2, ldp = words + GAP;
    float *x = sb_alloc_array(m * ldx, sizeof *x);
    uint32_t *pairs = sb_alloc_array(m * ldp, sizeof *pairs);
    struct sb_rng rng = sb_rng_make(k + m, SB_STREAM_DATA);
    assert_true(x && pairs);
    memset(pairs, 0xa5, m * ldp * sizeof *pairs);
    for (size_t i = 0; i < m * ldx; i++) {
        const uint32_t bits = (uint32_t)sb_rng_bits(&rng) | (i % 5 == 0 ? 0x7f800000 : 0);
        memcpy(x + i, &bits, sizeof bits);
    }
    sb_round_pairs(team, pairs, ldp, x, ldx, k, m);
    for (size_t r = 0; r < m; r++)
        for (size_t i = 0; i < ldp; i++) {
            const float *at = x + r * ldx + 2 * i;
            uint32_t want = 0xa5a5a5a5;
            if (i < words)
                want = sb_f32_to_bf16(at[0]) |
                       (2 * i + 1 < k ? (uint32_t)sb_f32_to_bf16(at[1]) << 16 : 0);
            assert_int_equal(pairs[r * ldp + i], want);
        }
    sb_free(x);
    sb_free(pairs);
}

static void pairs_hold_rows_of_bfloat16(void **state)
{
    (void)state;
    static const size_t widths[] = { 1, 2, 15, 16, 17, 63, 64, 65, 129, 768, 2047 };
    for (enum sb_cpu cpu = 0; cpu < SB_CPU_COUNT; cpu++) {
        if (!sb_cpu_supported(cpu))
            continue;
        assert_int_equal(sb_cpu_select(sb_cpu_name(cpu), NULL), 0);
        const struct sb_team *team = sb_team_begin(2);
        for (size_t i = 0; i < sizeof widths / sizeof *widths; i++)
            for (size_t m = 1; m <= 40; m += 13) {
                check_pairs(NULL, widths[i], m);
                check_pairs(team, widths[i], m);
            }
        sb_team_end(team);
    }
}

static void quantised_blocks_dequantise_as_documented(void **state)
{
    (void)state;
    unsigned char q8[34] = { 0x00, 0x38 }, q4[18] = { 0x00, 0xb8 }; /* d = 0.5, d = -0.5 */
    float x[32];
    for (int i = 0; i < 32; i++)
        q8[2 + i] = (unsigned char)(i * 8 - 128);
    for (int i = 0; i < 16; i++)
        q4[2 + i] = (unsigned char)(i | (15 - i) << 4);
    sb_dequantize_row(x, SB_Q8_0, q8, 32);
    for (int i = 0; i < 32; i++)
        assert_true(x[i] == 0.5f * (float)(i * 8 - 128));
    sb_dequantize_row(x, SB_Q4_0, q4, 32);
    for (int i = 0; i < 16; i++) {
        assert_true(x[i] == -0.5f * (float)(i - 8));
        assert_true(x[i + 16] == -0.5f * (float)(7 - i));
    }
    assert_int_equal(sb_dtype_row_bytes(SB_Q8_0, 64), 68);
    assert_int_equal(sb_dtype_row_bytes(SB_Q4_0, 33), 0);
    assert_string_equal(sb_dtype_name(SB_BF16), "bf16");
}

static void packing_refuses_what_it_cannot_hold(void **state)
{
    (void)state;
    struct sb_packed w;
    float x[4] = { 0 };
    assert_int_equal(sb_packed_init(&w, NULL, SB_Q8_0, 1, 33, x), -1);
    sb_alloc_fail_after(0);
    int rc = sb_packed_init(&w, NULL, SB_F32, 2, 2, x);
    struct sb_rope rope;
    int rope_rc = sb_rope_init(&rope, 4, 4, SB_ROPE_HALF, 1e4, 1, NULL);
    sb_alloc_fail_after(SIZE_MAX);
    assert_int_equal(rc, -1);
    assert_int_equal(rope_rc, -1);
    assert_null(w.data);
    assert_null(rope.cos);
    sb_packed_finish(&w);
    sb_packed_finish(NULL);
    sb_rope_finish(NULL);
}

/* ---- elementary functions ------------------------------------------------------------------- */

/* Distance in units of the last place of `want`, rounded to float or to double. */
static double ulps_float(float got, double want)
{
    float w = fabsf((float)want), ulp = nextafterf(w, INFINITY) - w;
    return fabs((double)got - want) / (double)ulp;
}

static double ulps(double got, long double want)
{
    double w = fabs((double)want);
    return (double)(fabsl((long double)got - want) / (long double)(nextafter(w, INFINITY) - w));
}

static void expf_is_within_two_ulp_down_to_the_smallest_subnormal(void **state)
{
    (void)state;
    double worst = 0;
    for (float x = -104.0f; x < 88.72f; x += 0x1.7p-12f) {
        double e = ulps_float(sb_expf(x), exp((double)x));
        worst = e > worst ? e : worst;
    }
    if (!(worst <= 2))
        fail_msg("sb_expf is %g ulp off", worst);
    assert_true(sb_expf(0.0f) == 1.0f && sb_expf(-0.0f) == 1.0f);
    assert_true(sb_expf(INFINITY) == INFINITY && sb_expf(89.0f) == INFINITY);
    assert_true(sb_expf(-INFINITY) == 0.0f && sb_expf(-105.0f) == 0.0f);
    assert_true(sb_expf(-103.5f) == 0x1p-149f);
    assert_true(sb_expf(NAN) != sb_expf(NAN));
}

static void double_functions_are_within_two_ulp(void **state)
{
    (void)state;
    double worst_exp = 0, worst_log = 0, worst_sin = 0;
    for (double x = -708; x < 709; x += 0.0317) {
        double e = ulps(sb_exp(x), expl((long double)x));
        worst_exp = e > worst_exp ? e : worst_exp;
    }
    for (double x = 1e-310; x < 1e307; x *= 1.0371) {
        double e = ulps(sb_log(x), logl((long double)x));
        worst_log = e > worst_log ? e : worst_log;
    }
    for (double x = 0.3; x < 3; x += 0x1.3p-13) {
        double e = x == 1 ? 0 : ulps(sb_log(x), logl((long double)x));
        worst_log = e > worst_log ? e : worst_log;
    }
    for (double x = 1e-9; x < 0x1p30; x = x * 1.0007 + 1e-5)
        for (int sign = -1; sign <= 1; sign += 2) {
            double s, c, e;
            sb_sincos(sign * x, &s, &c);
            e = fmax(ulps(s, sinl((long double)(sign * x))), ulps(c, cosl((long double)x)));
            worst_sin = e > worst_sin ? e : worst_sin;
        }
    if (!(worst_exp <= 2 && worst_log <= 2 && worst_sin <= 2))
        fail_msg("ulp off: exp %g, log %g, sin and cos %g", worst_exp, worst_log, worst_sin);
}

/* Multiples of pi / 2 as near as doubles come: what is left is all rounding error of the input. */
static void sin_and_cos_keep_their_digits_next_to_their_zeros(void **state)
{
    (void)state;
    for (long n = 1; n < 680000000; n += n / 7 + 1) {
        double x = (double)((long double)n * 1.5707963267948966192313216916397514L), s, c;
        sb_sincos(x, &s, &c);
        double small = n % 2 ? c : s, want = n % 2 ? cos(x) : sin(x);
        assert_true(fabs(small - want) <= 4e-16 * fabs(want));
    }
}

static void double_functions_have_the_right_ends(void **state)
{
    (void)state;
    assert_true(sb_exp(0) == 1 && sb_exp(-800) == 0 && sb_exp(800) == INFINITY);
    assert_true(sb_exp(-745.0) == 0x1p-1074 && sb_exp(NAN) != sb_exp(NAN));
    assert_true(sb_log(1) == 0 && sb_log(0) == -INFINITY && sb_log(INFINITY) == INFINITY);
    assert_true(sb_log(-1) != sb_log(-1) && sb_log(NAN) != sb_log(NAN));
    double s, c;
    sb_sincos(0, &s, &c);
    assert_true(s == 0 && c == 1);
}

/* ---- rows ----------------------------------------------------------------------------------- */

static void rmsnorm_and_swiglu_match_their_formulas(void **state)
{
    (void)state;
    enum { N = 133, M = 3 };
    float x[M * N], w[N], y[M * N], up[M * N];
    fill(x, M * N, 1);
    fill(w, N, 2);
    fill(up, M * N, 3);
    sb_rmsnorm(NULL, y, N, x, N, w, N, M, 1e-5f);
    for (size_t r = 0; r < M; r++) {
        double sum = 0;
        for (size_t i = 0; i < N; i++)
            sum += (double)x[r * N + i] * (double)x[r * N + i];
        for (size_t i = 0; i < N; i++)
            assert_true(near(y[r * N + i], x[r * N + i] / sqrt(sum / N + 1e-5) * w[i], 1e-6));
    }
    memcpy(y, x, sizeof y);
    sb_swiglu(NULL, y, N, up, N, N, M);
    for (size_t i = 0; i < M * N; i++)
        assert_true(near(y[i], x[i] / (1 + exp(-(double)x[i])) * up[i], 1e-6));
}

static void softmax_matches_its_formula(void **state)
{
    (void)state;
    enum { N = 1000 };
    float x[N], p[N];
    for (size_t n = 1; n <= N; n = n * 3 + 1) {
        double sum = 0;
        fill(x, n, n);
        x[n / 2] = 60;
        x[0] = n > 1 ? -INFINITY : 60;
        for (size_t i = 0; i < n; i++)
            sum += exp((double)x[i] * 0.25);
        double lse = sb_softmax(p, x, n, 0.25f);
        assert_true(near(lse, log(sum), 1e-6));
        for (size_t i = 0; i < n; i++)
            assert_true(fabs(p[i] - exp((double)x[i] * 0.25) / sum) < 1e-6);
        sum = 0;
        for (size_t i = 0; i < n; i++)
            sum += exp((double)x[i]);
        assert_true(near(sb_logsumexp(x, n), log(sum), 1e-6));
    }
}

static void weights_of_a_softmax_have_the_right_ends(void **state)
{
    (void)state;
    float x[] = { 7.0f, 7.0f - 87.0f, 7.0f - 87.5f, -1e30f, -INFINITY }, p[5];
    assert_true(sb_softmax(p, x, 5, 1.0f) == 7.0f);
    assert_true(p[0] == 1 && near(p[1] * 0x1p100, exp(-87.0) * 0x1p100, 2e-5));
    assert_true(p[2] == 0 && p[3] == 0 && p[4] == 0); /* below 2^-126 */
    for (float d = 0; d < 80; d += 0.0371f) {
        const float two[2] = { 0, -d };
        sb_softmax(p, two, 2, 1.0f);
        double want = 1 / (1 + exp((double)d));
        assert_true(fabs(p[1] - want) < (2e-7 + 1.3e-7 * (double)d) * want);
    }
    x[3] = NAN;
    sb_softmax(p, x, 5, 1.0f);
    assert_true(p[0] != p[0] && p[4] != p[4]);
}

static void argmax_takes_the_first_of_the_largest_and_never_nan(void **state)
{
    (void)state;
    float x[100];
    for (size_t at = 0; at < 100; at += 9) {
        for (size_t i = 0; i < 100; i++)
            x[i] = i >= at && i % 2 == at % 2 ? 3.0f : i % 3 ? -INFINITY : NAN;
        assert_int_equal(sb_argmax(x, 100), at);
    }
    for (size_t i = 0; i < 100; i++)
        x[i] = NAN;
    x[37] = x[38] = -INFINITY;
    assert_int_equal(sb_argmax(x, 100), 37);
    x[37] = x[38] = NAN;
    assert_int_equal(sb_argmax(x, 100), 0);
    const float zeros[] = { -1.0f, -0.0f, 0.0f };
    assert_int_equal(sb_argmax(zeros, 3), 1);
}

static void rotation_follows_both_layouts_and_the_factors(void **state)
{
    (void)state;
    enum { DIM = 12, ROT = 8, POS = 5 };
    const float factors[ROT / 2] = { 1, 2, 4, 8 };
    for (int layout = 0; layout < 2; layout++) {
        float x[2 * DIM], y[2 * DIM];
        const int32_t pos[1] = { POS };
        struct sb_rope rope;
        fill(x, 2 * DIM, 4);
        memcpy(y, x, sizeof y);
        assert_int_equal(
            sb_rope_init(&rope, 8, ROT, (enum sb_rope_layout)layout, 500000, 0.5, factors), 0);
        sb_rope_apply(NULL, &rope, y, 2 * DIM, 2, DIM, pos, 1);
        sb_rope_finish(&rope);
        for (size_t h = 0; h < 2; h++)
            for (size_t i = 0; i < ROT / 2; i++) {
                double angle = POS * 0.5 * pow(500000, -2.0 * (double)i / ROT) / factors[i];
                size_t a = h * DIM + (layout == SB_ROPE_HALF ? i : 2 * i);
                size_t b = layout == SB_ROPE_HALF ? a + ROT / 2 : a + 1;
                assert_true(near(y[a], x[a] * cos(angle) - x[b] * sin(angle), 1e-6));
                assert_true(near(y[b], x[a] * sin(angle) + x[b] * cos(angle), 1e-6));
            }
        for (size_t h = 0; h < 2; h++)
            assert_memory_equal(y + h * DIM + ROT, x + h * DIM + ROT, (DIM - ROT) * sizeof *x);
    }
}

/* ---- attention ------------------------------------------------------------------------------ */

/* Two query heads per KV head, a prefix of some 900 slots along which scores rise by `slope` each, and a tree
 * 0 -> 1, 0 -> 2 -> 3. */
static void check_attention(size_t prefix, float slope)
{
    const double tolerance = 1e-5 * (1 + 40 * fabs((double)slope)); /* scores round as they grow */
    enum { HEADS = 4, KV = 2, DIM = 40, M = 4, SLOTS = 928 };
    static const int32_t path[M][3] = { { 0 }, { 0, 1 }, { 0, 2 }, { 0, 2, 3 } };
    static const int32_t length[M] = { 1, 2, 2, 3 };
    static float k[SLOTS][KV][DIM], v[SLOTS][KV][DIM], q[M][HEADS][DIM], out[M][HEADS][DIM];
    const int32_t *list[M] = { path[0], path[1], path[2], path[3] };
    struct sb_visible visible = { prefix, list, length };
    struct sb_kv_layer kv = { SB_F32, sb_alloc_zero(sb_kv_bytes(SB_F32, SLOTS, KV, DIM), 1), SLOTS,
                              KV, DIM };
    void *scratch = sb_alloc_aligned(1, sb_attention_scratch_bytes(M, HEADS, KV, DIM));
    assert_true(kv.memory && scratch && prefix + M <= SLOTS);
    fill(&k[0][0][0], SLOTS * KV * DIM, 5);
    fill(&v[0][0][0], SLOTS * KV * DIM, 6);
    fill(&q[0][0][0], M * HEADS * DIM, 7);
    for (size_t s = 0; s < SLOTS; s++)
        for (size_t h = 0; h < KV; h++)
            k[s][h][0] = slope * (float)s;
    for (size_t r = 0; r < M; r++)
        for (size_t h = 0; h < HEADS; h++)
            q[r][h][0] = 2.5f;
    sb_kv_write(NULL, &kv, 0, &k[0][0][0], &v[0][0][0], KV * DIM, prefix + M);
    sb_attention(NULL, &out[0][0][0], HEADS * DIM, &q[0][0][0], HEADS * DIM, HEADS, 0.4f, &kv,
                 &visible, M, scratch);
    for (size_t r = 0; r < M; r++)
        for (size_t h = 0; h < HEADS; h++) {
            double sum = 0, want[DIM] = { 0 };
            for (size_t j = 0; j < prefix + (size_t)length[r]; j++) {
                size_t s = j < prefix ? j : prefix + (size_t)path[r][j - prefix];
                double dot = 0;
                for (size_t i = 0; i < DIM; i++)
                    dot += (double)q[r][h][i] * (double)k[s][h / 2][i];
                double e = exp(dot * 0.4);
                sum += e;
                for (size_t i = 0; i < DIM; i++)
                    want[i] += e * (double)v[s][h / 2][i];
            }
            for (size_t i = 0; i < DIM; i++)
                assert_true(near(out[r][h][i], want[i] / sum, tolerance));
        }
    sb_free(kv.memory);
    sb_free(scratch);
}

static void attention_matches_a_double_precision_reference(void **state)
{
    (void)state;
    check_attention(900, 0);
    check_attention(900, 0.05f);  /* every chunk raises the maximum, the last by e^12 */
    check_attention(900, -0.05f); /* none after the first */
    check_attention(900, 0.5f);   /* what came before is worth nothing any more */
    check_attention(765, 0);      /* rows 2 and 3 lie in two chunks of slots, and are seen in one */
}

/* ---- dispatch ------------------------------------------------------------------------------- */

static void a_wrong_variant_is_reported_and_leaves_the_best(void **state)
{
    (void)state;
    const char *why = NULL;
    assert_int_equal(sb_cpu_select(NULL, &why), 0);
    assert_null(why);
    enum sb_cpu best = sb_cpu_active();
    assert_int_equal(sb_cpu_select("generic", &why), 0);
    assert_int_equal(sb_cpu_active(), SB_CPU_GENERIC);
    assert_int_equal(sb_cpu_select("sse9", &why), -1);
    assert_non_null(why);
    assert_int_equal(sb_cpu_active(), best);
    for (enum sb_cpu cpu = 0; cpu < SB_CPU_COUNT; cpu++)
        assert_int_equal(sb_cpu_select(sb_cpu_name(cpu), NULL), sb_cpu_supported(cpu) ? 0 : -1);
    assert_int_equal(sb_cpu_select("", NULL), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_half_has_its_value_and_comes_back),
        cmocka_unit_test(floats_round_to_the_nearest_half_ties_to_even),
        cmocka_unit_test(bfloat16_rounds_to_nearest_even_and_keeps_nan),
        cmocka_unit_test(pairs_hold_rows_of_bfloat16),
        cmocka_unit_test(quantised_blocks_dequantise_as_documented),
        cmocka_unit_test(packing_refuses_what_it_cannot_hold),
        cmocka_unit_test(expf_is_within_two_ulp_down_to_the_smallest_subnormal),
        cmocka_unit_test(double_functions_are_within_two_ulp),
        cmocka_unit_test(sin_and_cos_keep_their_digits_next_to_their_zeros),
        cmocka_unit_test(double_functions_have_the_right_ends),
        cmocka_unit_test(rmsnorm_and_swiglu_match_their_formulas),
        cmocka_unit_test(softmax_matches_its_formula),
        cmocka_unit_test(weights_of_a_softmax_have_the_right_ends),
        cmocka_unit_test(argmax_takes_the_first_of_the_largest_and_never_nan),
        cmocka_unit_test(rotation_follows_both_layouts_and_the_factors),
        cmocka_unit_test(attention_matches_a_double_precision_reference),
        cmocka_unit_test(a_wrong_variant_is_reported_and_leaves_the_best),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
