/* Gradients of the tape against central differences, in the double-precision build of train/.
 *
 * For a random direction of every input, (f(x + h e) - f(x - h e)) / 2h with h = 1e-5 is compared with
 * the tape's derivative, element by element. With doubles the truncation is about h^2 = 1e-10 of the
 * third derivative and rounding about 1e-11; the tolerance is 1e-7, relative to max(1, |value|). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>

#include "harness/core/alloc.h"
#include "harness/core/rng.h"
#include "harness/train/adamw.h"
#include "harness/train/lm.h"

enum { MAX_INPUTS = 6 };
static const double step = 1e-5, tolerance = 1e-7;

/* An op under test: some inputs, and how they become one matrix. */
struct op_case {
    const char *name;
    size_t n_inputs;
    size_t shape[MAX_INPUTS][2];
    struct sb_var *(*apply)(struct sb_tape *tape, struct sb_var *in);
};

static sb_real *random_values(size_t n, uint64_t key)
{
    struct sb_rng rng = sb_rng_make(key, SB_STREAM_INIT);
    sb_real *x = sb_alloc_array(n, sizeof *x);
    assert_non_null(x);
    for (size_t i = 0; i < n; i++)
        x[i] = sb_rng_normal(&rng);
    return x;
}

/* sum of out * c with fixed random c: a scalar that every element of out moves. Written as a linear
 * map of [1, n] so that the tape itself goes back through it. */
static struct sb_var *to_scalar(struct sb_tape *tape, struct sb_var *out)
{
    static sb_real ones[4096];
    size_t n = out->rows * out->cols;
    assert_true(n <= 4096);
    for (size_t i = 0; i < n; i++)
        ones[i] = sin(1.7 * (double)i + 0.3);
    if (n == 1)
        return out;
    /* Reinterpret [m, c] as m rows: rows are summed by a second product with a column of ones. */
    struct sb_var *weights = sb_tape_constant(tape, ones, 1, out->cols);
    struct sb_var *per_row = sb_tape_linear(tape, out, weights, NULL); /* [m, 1] */
    static sb_real picks[4096];
    static int32_t zero[4096];
    for (size_t r = 0; r < out->rows; r++)
        picks[r] = cos(0.9 * (double)r);
    if (out->rows == 1)
        return per_row;
    /* Two logits per row, 0 and the value: softplus is smooth and separates the rows. */
    static sb_real pair[2] = { 0, 1 };
    struct sb_var *spread = sb_tape_constant(tape, pair, 2, 1);
    struct sb_var *logits = sb_tape_linear(tape, per_row, spread, NULL); /* [m, 2] */
    return sb_tape_cross_entropy(tape, logits, zero, picks);
}

static double value_of(const struct op_case *c, struct sb_tape *tape, struct sb_var *in)
{
    sb_tape_reset(tape);
    struct sb_var *loss = to_scalar(tape, c->apply(tape, in));
    assert_non_null(loss);
    return loss->x[0];
}

static void check_op(const struct op_case *c)
{
    struct sb_tape *tape;
    struct sb_error err;
    struct sb_var in[MAX_INPUTS] = { 0 };
    assert_int_equal(sb_tape_create(&tape, &err), SB_OK);
    for (size_t i = 0; i < c->n_inputs; i++) {
        size_t rows = c->shape[i][0], cols = c->shape[i][1];
        in[i] = (struct sb_var){ random_values(rows * cols, 11 * i + 5),
                                 sb_alloc_zero(rows * cols, sizeof(sb_real)), rows, cols, false };
    }
    sb_tape_reset(tape);
    struct sb_var *loss = to_scalar(tape, c->apply(tape, in));
    assert_int_equal(sb_tape_backward(tape, loss, &err), SB_OK);
    for (size_t i = 0; i < c->n_inputs; i++)
        for (size_t j = 0; j < in[i].rows * in[i].cols; j++) {
            sb_real was = in[i].x[j];
            in[i].x[j] = was + step;
            double above = value_of(c, tape, in);
            in[i].x[j] = was - step;
            double below = value_of(c, tape, in);
            in[i].x[j] = was;
            double want = (above - below) / (2 * step), got = in[i].dx[j];
            if (!(fabs(got - want) <= tolerance * fmax(1, fabs(want))))
                fail_msg("%s: input %zu element %zu: tape %.10g, differences %.10g", c->name, i, j,
                         got, want);
        }
    for (size_t i = 0; i < c->n_inputs; i++) {
        sb_free(in[i].x);
        sb_free(in[i].dx);
    }
    sb_tape_destroy(tape);
}

/* ---- ops ------------------------------------------------------------------------------------- */

static struct sb_var *apply_linear(struct sb_tape *t, struct sb_var *in)
{
    return sb_tape_linear(t, &in[0], &in[1], &in[2]);
}

static struct sb_var *apply_linear_twice(struct sb_tape *t, struct sb_var *in)
{
    return sb_tape_linear(t, sb_tape_linear(t, &in[0], &in[1], NULL), &in[1], NULL);
}

static struct sb_var *apply_embed(struct sb_tape *t, struct sb_var *in)
{
    static const int32_t ids[] = { 2, 0, 2, 4, 2 };
    return sb_tape_embed(t, &in[0], ids, 5);
}

static struct sb_var *apply_norm(struct sb_tape *t, struct sb_var *in)
{
    return sb_tape_rmsnorm(t, &in[0], &in[1], 1e-5);
}

static struct sb_var *apply_add(struct sb_tape *t, struct sb_var *in)
{
    return sb_tape_add(t, sb_tape_add(t, &in[0], &in[1]), &in[0]);
}

static struct sb_var *apply_swiglu(struct sb_tape *t, struct sb_var *in)
{
    return sb_tape_swiglu(t, &in[0], &in[1]);
}

static struct sb_var *apply_swiglu_shared(struct sb_tape *t, struct sb_var *in)
{
    return sb_tape_swiglu(t, &in[0], &in[0]);
}

static struct sb_var *apply_rope(struct sb_tape *t, struct sb_var *in)
{
    static struct sb_angles angles;
    static const int32_t pos[] = { 0, 3, 7 };
    struct sb_error err;
    if (!angles.cos)
        assert_int_equal(sb_angles_init(&angles, 8, 6, 10000, &err), SB_OK);
    return sb_tape_rope(t, &in[0], &angles, pos);
}

/* 70 rows cross the block of 64 queries. */
static const size_t starts[] = { 0, 1, 5, 75 };

static struct sb_var *apply_attention(struct sb_tape *t, struct sb_var *in)
{
    struct sb_segments segments = { starts, 2 };
    return sb_tape_attention(t, &in[0], &in[1], &in[2], 4, 2, &segments);
}

static struct sb_var *apply_long_attention(struct sb_tape *t, struct sb_var *in)
{
    struct sb_segments segments = { starts, 3 };
    return sb_tape_attention(t, &in[0], &in[1], &in[2], 1, 1, &segments);
}

/* Three passes over two segments: k and v of the later ones reach their own row alone. */
static struct sb_var *apply_stacked_attention(struct sb_tape *t, struct sb_var *in)
{
    struct sb_segments segments = { starts, 2 };
    return sb_tape_attention(t, &in[0], &in[1], &in[2], 4, 2, &segments);
}

static struct sb_var *apply_self_attention(struct sb_tape *t, struct sb_var *in)
{
    struct sb_segments segments = { starts, 2 };
    return sb_tape_attention(t, &in[0], &in[0], &in[0], 2, 2, &segments);
}

static struct sb_var *apply_cross_entropy(struct sb_tape *t, struct sb_var *in)
{
    static const int32_t target[] = { 3, 0, 9 };
    static const sb_real weight[] = { 0.5, 0, 0.25 };
    return sb_tape_cross_entropy(t, &in[0], target, weight);
}

static struct sb_var *apply_kl(struct sb_tape *t, struct sb_var *in)
{
    static sb_real teacher[3 * 21];
    for (size_t i = 0; i < 3 * 21; i++)
        teacher[i] = 2 * sin(3.1 * (double)i);
    return sb_tape_kl(t, &in[0], teacher, NULL);
}

static struct sb_var *apply_both_losses(struct sb_tape *t, struct sb_var *in)
{
    return sb_tape_mix(t, apply_cross_entropy(t, in), 0.3, apply_kl(t, in), 0.7);
}

static struct sb_var *apply_concat(struct sb_tape *t, struct sb_var *in)
{
    return sb_tape_concat(t, sb_tape_concat(t, &in[0], &in[1]), &in[0]);
}

static struct sb_var *apply_stack(struct sb_tape *t, struct sb_var *in)
{
    return sb_tape_stack(t, &in[0], sb_tape_stack(t, &in[1], &in[0]));
}

static struct sb_var *apply_slice(struct sb_tape *t, struct sb_var *in)
{
    return sb_tape_add(t, sb_tape_slice(t, &in[0], 1, 3), sb_tape_slice(t, &in[0], 2, 3));
}

static struct sb_var *apply_gather(struct sb_tape *t, struct sb_var *in)
{
    static const int32_t at[] = { 3, -1, 0, 3 };
    return sb_tape_gather(t, &in[0], at, 4);
}

static struct sb_var *apply_mix(struct sb_tape *t, struct sb_var *in)
{
    return sb_tape_mix(t, &in[0], 0.3, sb_tape_mix(t, &in[1], 2, &in[0], -1.5), 0.7);
}

static struct sb_var *apply_bias(struct sb_tape *t, struct sb_var *in)
{
    return sb_tape_add_bias(t, &in[0], &in[1]);
}

static struct sb_var *apply_silu(struct sb_tape *t, struct sb_var *in)
{
    return sb_tape_silu(t, sb_tape_silu(t, &in[0]));
}

static struct sb_var *apply_gelu(struct sb_tape *t, struct sb_var *in)
{
    return sb_tape_add(t, sb_tape_gelu(t, &in[0]), &in[0]);
}

/* Every divergence in turn, to teacher rows in another order, with a row that does not count. */
static struct sb_var *diverge(struct sb_tape *t, struct sb_var *in, enum sb_divergence_kind kind)
{
    static sb_real rows[3 * 21];
    static const int32_t order[] = { 2, 0, 0, 1 };
    static const sb_real weight[] = { 0.5, 1, 0, 0.25 };
    for (size_t i = 0; i < 3 * 21; i++)
        rows[i] = 2 * sin(3.1 * (double)i);
    const struct sb_divergence by = { kind, 0.3, 4 };
    const struct sb_teacher teacher = { rows, order };
    return sb_tape_divergence(t, &in[0], &by, &teacher, weight);
}

#define DIVERGENCE(name, kind)                                               \
    static struct sb_var *apply_##name(struct sb_tape *t, struct sb_var *in) \
    {                                                                        \
        return diverge(t, in, kind);                                         \
    }
DIVERGENCE(soft_ce, SB_SOFT_CE)
DIVERGENCE(forward_kl, SB_KL)
DIVERGENCE(reverse_kl, SB_REVERSE_KL)
DIVERGENCE(jsd, SB_JSD)
DIVERGENCE(tvd, SB_TVD)
DIVERGENCE(topk_ce, SB_TOPK_CE)
DIVERGENCE(lk_alpha, SB_LK_ALPHA)

static struct sb_var *apply_smooth_l1(struct sb_tape *t, struct sb_var *in)
{
    static const sb_real to[] = { 0.5, -1, 2, 0, 0.25, -3 };
    static const int32_t order[] = { 1, 1, 0 };
    static const sb_real weight[] = { 0.5, 1, 0 };
    const struct sb_teacher target = { to, order };
    return sb_tape_smooth_l1(t, &in[0], &target, weight);
}

static const struct op_case cases[] = {
    { "linear with bias", 3, { { 5, 7 }, { 4, 7 }, { 1, 4 } }, apply_linear },
    { "linear over many rows", 3, { { 260, 2 }, { 3, 2 }, { 1, 3 } }, apply_linear },
    { "one weight used twice", 2, { { 3, 4 }, { 4, 4 } }, apply_linear_twice },
    { "embedding with repeats", 1, { { 5, 3 } }, apply_embed },
    { "RMSNorm", 2, { { 4, 21 }, { 1, 21 } }, apply_norm },
    { "RMSNorm over many rows", 2, { { 260, 2 }, { 1, 2 } }, apply_norm },
    { "addition with a shared input", 2, { { 3, 5 }, { 3, 5 } }, apply_add },
    { "SwiGLU", 2, { { 3, 5 }, { 3, 5 } }, apply_swiglu },
    { "SwiGLU of one matrix with itself", 1, { { 3, 5 } }, apply_swiglu_shared },
    { "rotary embedding", 1, { { 3, 12 } }, apply_rope },
    { "attention, grouped heads", 3, { { 5, 8 }, { 5, 4 }, { 5, 4 } }, apply_attention },
    { "attention over three passes",
      3,
      { { 5, 8 }, { 15, 4 }, { 15, 4 } },
      apply_stacked_attention },
    { "attention over 70 rows", 3, { { 75, 2 }, { 75, 2 }, { 75, 2 } }, apply_long_attention },
    { "attention of one matrix to itself", 1, { { 5, 6 } }, apply_self_attention },
    { "cross-entropy with a mask", 1, { { 3, 21 } }, apply_cross_entropy },
    { "KL divergence", 1, { { 3, 21 } }, apply_kl },
    { "cross-entropy and KL on the same logits", 1, { { 3, 21 } }, apply_both_losses },
    { "columns side by side", 2, { { 3, 2 }, { 3, 4 } }, apply_concat },
    { "rows on top of each other", 2, { { 2, 3 }, { 4, 3 } }, apply_stack },
    { "columns cut out twice", 1, { { 3, 6 } }, apply_slice },
    { "rows by index, one of zeros", 1, { { 4, 3 } }, apply_gather },
    { "weighted sums", 2, { { 3, 5 }, { 3, 5 } }, apply_mix },
    { "bias", 2, { { 4, 3 }, { 1, 3 } }, apply_bias },
    { "SiLU", 1, { { 3, 5 } }, apply_silu },
    { "GELU", 1, { { 3, 5 } }, apply_gelu },
    { "soft cross-entropy", 1, { { 4, 21 } }, apply_soft_ce },
    { "forward KL", 1, { { 4, 21 } }, apply_forward_kl },
    { "reverse KL", 1, { { 4, 21 } }, apply_reverse_kl },
    { "JSD", 1, { { 4, 21 } }, apply_jsd },
    { "TVD", 1, { { 4, 21 } }, apply_tvd },
    { "top-k cross-entropy", 1, { { 4, 21 } }, apply_topk_ce },
    { "-log of the acceptance", 1, { { 4, 21 } }, apply_lk_alpha },
    { "smooth L1", 1, { { 3, 3 } }, apply_smooth_l1 },
};

static void every_op_agrees_with_central_differences(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        check_op(&cases[i]);
}

/* Methods card A 7: teacher (.5, .3, .2), student (.2, .6, .2): KL = .25020, gradient q - p. */
static void kl_gives_the_worked_example(void **state)
{
    (void)state;
    struct sb_tape *tape;
    struct sb_error err;
    assert_int_equal(sb_tape_create(&tape, &err), SB_OK);
    sb_real z[3] = { log(0.2), log(0.6), log(0.2) }, dz[3];
    const sb_real p[3] = { log(0.5), log(0.3), log(0.2) };
    struct sb_var logits = { z, dz, 1, 3, false };
    struct sb_var *loss = sb_tape_kl(tape, &logits, p, NULL);
    assert_int_equal(sb_tape_backward(tape, loss, &err), SB_OK);
    assert_true(fabs(loss->x[0] - 0.25020) < 5e-6);
    const double want[3] = { -0.3, 0.3, 0 };
    for (size_t i = 0; i < 3; i++)
        assert_true(fabs(dz[i] - want[i]) < 1e-12);
    sb_tape_destroy(tape);
}

/* B 5.3, the mask for n = 3, S = 3: query (s = 2, i = 1) sees (0,0), (0,1), (1,1), (2,1). One-hot values
 * tell what was seen, equal scores how many. */
static void a_row_sees_its_own_key_alone_in_later_passes(void **state)
{
    (void)state;
    struct sb_tape *tape;
    struct sb_error err;
    assert_int_equal(sb_tape_create(&tape, &err), SB_OK);
    sb_real zero[9 * 9] = { 0 }, one_hot[9 * 9] = { 0 };
    for (size_t i = 0; i < 9; i++)
        one_hot[i * 9 + i] = 1;
    static const size_t start[] = { 0, 3 };
    const struct sb_segments segments = { start, 1 };
    struct sb_var *q = sb_tape_constant(tape, zero, 3, 9), *k = sb_tape_constant(tape, zero, 9, 9);
    const struct sb_var *out =
        sb_tape_attention(tape, q, k, sb_tape_constant(tape, one_hot, 9, 9), 1, 1, &segments);
    static const int sees[3][9] = { { 1, 0, 0, 1, 0, 0, 1, 0, 0 },
                                    { 1, 1, 0, 0, 1, 0, 0, 1, 0 },
                                    { 1, 1, 1, 0, 0, 1, 0, 0, 1 } };
    for (size_t r = 0; r < 3; r++)
        for (size_t j = 0; j < 9; j++)
            assert_true(fabs(out->x[r * 9 + j] - sees[r][j] / (double)(3 + r)) < 1e-12);
    sb_tape_destroy(tape);
}

/* Methods cards A 7 and B 11: values and gradients of p = (.5, .3, .2), q = (.2, .6, .2). */
static void every_divergence_gives_the_worked_example(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        double beta;
        size_t top_k;
        double value, gradient[3];
    } rows[] = {
        { "soft-ce", 0, 0, 1.27984, { -.3, .3, 0 } },
        { "kl", 0, 0, .25020, { -.3, .3, 0 } },
        { "reverse-kl", 0, 0, .23263, { -.22978, .27631, -.04653 } },
        { "jsd", .5, 0, .05869, { -.06203, .06810, -.00607 } },
        { "tvd", 0, 0, .3, { -.12, .24, -.12 } },
        { "topk-ce", 0, 2, .95797, { -.34, .18, .16 } },
        { "lk-alpha", 0, 0, .35667, { -.22857, .17143, .05714 } },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct sb_tape *tape;
        struct sb_error err;
        assert_int_equal(sb_tape_create(&tape, &err), SB_OK);
        /* Both kinked losses take the tie at the third token as not beyond: push it to that side. */
        double tie = i == 4 ? -1e-9 : 1e-9;
        sb_real z[3] = { log(0.2), log(0.6), log(0.2) + tie }, dz[3];
        const sb_real p[3] = { log(0.5), log(0.3), log(0.2) };
        struct sb_var logits = { z, dz, 1, 3, false };
        struct sb_divergence by = { .beta = rows[i].beta, .top_k = rows[i].top_k };
        assert_true(sb_divergence_find(rows[i].name, &by.kind));
        const struct sb_teacher teacher = { p, NULL };
        struct sb_var *loss = sb_tape_divergence(tape, &logits, &by, &teacher, NULL);
        assert_int_equal(sb_tape_backward(tape, loss, &err), SB_OK);
        if (!(fabs(loss->x[0] - rows[i].value) < 2e-5))
            fail_msg("%s: value %.6f", rows[i].name, loss->x[0]);
        for (size_t j = 0; j < 3; j++)
            if (!(fabs(dz[j] - rows[i].gradient[j]) < 6e-6))
                fail_msg("%s: gradient %zu is %.6f", rows[i].name, j, dz[j]);
        sb_tape_destroy(tape);
    }
    enum sb_divergence_kind kind;
    assert_false(sb_divergence_find("soft", &kind) || sb_divergence_find("", &kind));
}

/* B 11: e = (.5, 2, -.25). */
static void smooth_l1_gives_the_worked_example(void **state)
{
    (void)state;
    struct sb_tape *tape;
    struct sb_error err;
    assert_int_equal(sb_tape_create(&tape, &err), SB_OK);
    sb_real x[3] = { 1.5, 2, -1.25 }, dx[3];
    const sb_real to[3] = { 1, 0, -1 };
    const double want[3] = { .16667, .33333, -.08333 };
    struct sb_var var = { x, dx, 1, 3, false };
    const struct sb_teacher target = { to, NULL };
    struct sb_var *loss = sb_tape_smooth_l1(tape, &var, &target, NULL);
    assert_int_equal(sb_tape_backward(tape, loss, &err), SB_OK);
    assert_true(fabs(loss->x[0] - 0.55208) < 6e-6);
    for (size_t j = 0; j < 3; j++)
        assert_true(fabs(dx[j] - want[j]) < 6e-6);
    sb_tape_destroy(tape);
}

/* ---- whole model ----------------------------------------------------------------------------- */

static const struct sb_lm_shape small = {
    .n_layers = 2,
    .d_model = 8,
    .n_heads = 2,
    .n_kv_heads = 1,
    .d_ff = 12,
    .n_vocab = 13,
    .max_context = 8,
    .rope_base = 10000,
    .norm_eps = 1e-5,
};
static const int32_t ids[] = { 1, 5, 12, 5, 0, 3, 3, 7 }, targets[] = { 5, 12, 5, 0, 1, 3, 7, 2 };
static const int32_t positions[] = { 0, 1, 2, 3, 0, 1, 2, 3 };
static const size_t documents[] = { 0, 4, 8 };
static const struct sb_lm_batch batch = { ids, positions, 8, { documents, 2 } };

static struct sb_var *model_loss(struct sb_lm *lm, struct sb_tape *tape)
{
    sb_tape_reset(tape);
    struct sb_var *loss =
        sb_tape_cross_entropy(tape, sb_lm_forward(lm, tape, &batch), targets, NULL);
    assert_non_null(loss);
    return loss;
}

static void a_two_layer_model_agrees_with_central_differences(void **state)
{
    (void)state;
    struct sb_lm *lm;
    struct sb_tape *tape;
    struct sb_error err;
    assert_int_equal(sb_lm_create(&lm, &small, false, &err), SB_OK);
    assert_int_equal(sb_tape_create(&tape, &err), SB_OK);
    sb_trainable_init(&lm->weights, 3);
    sb_trainable_clear_grads(&lm->weights);
    assert_int_equal(sb_tape_backward(tape, model_loss(lm, tape), &err), SB_OK);
    for (size_t i = 0; i < lm->weights.n_params; i++) {
        sb_real was = lm->weights.x[i];
        lm->weights.x[i] = was + step;
        double above = model_loss(lm, tape)->x[0];
        lm->weights.x[i] = was - step;
        double below = model_loss(lm, tape)->x[0];
        lm->weights.x[i] = was;
        double want = (above - below) / (2 * step);
        if (!(fabs(lm->weights.dx[i] - want) <= 1e-6 * fmax(1, fabs(want))))
            fail_msg("weight %zu: tape %.10g, differences %.10g", i, lm->weights.dx[i], want);
    }
    sb_tape_destroy(tape);
    sb_lm_destroy(lm);
}

/* A frozen model has no gradients, and passes none. */
static void a_frozen_model_records_nothing(void **state)
{
    (void)state;
    struct sb_lm *lm;
    struct sb_tape *tape;
    struct sb_error err;
    assert_int_equal(sb_lm_create(&lm, &small, true, &err), SB_OK);
    assert_int_equal(sb_tape_create(&tape, &err), SB_OK);
    sb_trainable_init(&lm->weights, 3);
    struct sb_var *loss = model_loss(lm, tape);
    assert_null(loss->dx);
    assert_int_equal(sb_tape_backward(tape, loss, &err), SB_OK);
    sb_tape_destroy(tape);
    sb_lm_destroy(lm);
}

static void documents_packed_together_do_not_see_each_other(void **state)
{
    (void)state;
    struct sb_lm *lm;
    struct sb_tape *tape;
    struct sb_error err;
    assert_int_equal(sb_lm_create(&lm, &small, true, &err), SB_OK);
    assert_int_equal(sb_tape_create(&tape, &err), SB_OK);
    sb_trainable_init(&lm->weights, 3);
    const struct sb_var *both = sb_lm_forward(lm, tape, &batch);
    static const size_t alone_at[] = { 0, 4 };
    const struct sb_lm_batch alone = { ids + 4, positions + 4, 4, { alone_at, 1 } };
    const struct sb_var *second = sb_lm_forward(lm, tape, &alone);
    for (size_t i = 0; i < 4 * small.n_vocab; i++)
        assert_true(fabs(both->x[4 * small.n_vocab + i] - second->x[i]) < 1e-12);
    sb_tape_destroy(tape);
    sb_lm_destroy(lm);
}

static void one_batch_can_be_learned_by_heart(void **state)
{
    (void)state;
    struct sb_lm *lm;
    struct sb_tape *tape;
    struct sb_adamw opt;
    struct sb_error err;
    struct sb_adamw_options options = { .lr = 0.02,
                                        .min_lr_ratio = 0.1,
                                        .beta1 = 0.9,
                                        .beta2 = 0.95,
                                        .eps = 1e-8,
                                        .clip = 1,
                                        .warmup = 10,
                                        .steps = 400 };
    assert_int_equal(sb_lm_create(&lm, &small, false, &err), SB_OK);
    assert_int_equal(sb_tape_create(&tape, &err), SB_OK);
    assert_int_equal(sb_adamw_init(&opt, &options, lm->weights.n_params, &err), SB_OK);
    sb_trainable_init(&lm->weights, 3);
    double loss = 0;
    size_t held = 0;
    for (size_t i = 0; i < options.steps; i++) {
        sb_trainable_clear_grads(&lm->weights);
        struct sb_var *sum = model_loss(lm, tape);
        loss = sum->x[0] / 8;
        assert_int_equal(sb_tape_backward(tape, sum, &err), SB_OK);
        sb_adamw_step(&opt, &lm->weights);
        if (i == 1)
            held = sb_tape_bytes(tape);
    }
    assert_true(loss < 0.01);
    assert_int_equal(sb_tape_bytes(tape), held); /* the arena is allocated once per shape */
    sb_adamw_finish(&opt);
    sb_tape_destroy(tape);
    sb_lm_destroy(lm);
}

/* Two steps by hand: lr .1, betas .5 and .75, decay .1, one weight 1 with gradients 2 and -1.
 * m1 = 1, v1 = 1, both corrected: 2 and 4; x1 = 1 - .1 (1 + .1) = .89.
 * m2 = 0, v2 = 1;                          x2 = .89 - .1 (0 + .089) = .8811. */
static void adamw_moves_a_weight_as_by_hand(void **state)
{
    (void)state;
    struct sb_adamw opt;
    struct sb_error err;
    struct sb_adamw_options options = {
        .lr = 0.1, .min_lr_ratio = 1, .beta1 = 0.5, .beta2 = 0.75, .weight_decay = 0.1, .steps = 10
    };
    sb_real x[2] = { 1, 1 }, dx[2] = { 2, 2 };
    struct sb_var matrix = { x, dx, 1, 1, true }, norm = { x + 1, dx + 1, 1, 1, true };
    struct sb_trainable_tensor tensors[2] = { { "matrix", &matrix, false, 0, 0 },
                                              { "norm", &norm, true, 1, 0 } };
    struct sb_trainable set = {
        .tensors = tensors, .n_tensors = 2, .n_params = 2, .x = x, .dx = dx
    };
    assert_int_equal(sb_adamw_init(&opt, &options, 2, &err), SB_OK);
    assert_true(fabs(sb_adamw_step(&opt, &set) - sqrt(8)) < 1e-12);
    assert_true(fabs(x[0] - 0.89) < 1e-12);
    assert_true(fabs(x[1] - 0.90) < 1e-12); /* norms do not decay */
    dx[0] = dx[1] = -1;
    sb_adamw_step(&opt, &set);
    assert_true(fabs(x[0] - 0.8811) < 1e-12);
    dx[0] = NAN;
    sb_adamw_step(&opt, &set);
    assert_true(fabs(x[0] - 0.8811) < 1e-12); /* a gradient that is not a number moves nothing */
    assert_int_equal(opt.step, 2);
    sb_adamw_finish(&opt);
}

static void the_rate_warms_up_and_falls_to_its_floor(void **state)
{
    (void)state;
    struct sb_adamw_options o = { .lr = 1, .min_lr_ratio = 0.1, .warmup = 4, .steps = 104 };
    assert_true(fabs(sb_adamw_rate(&o, 0) - 0.25) < 1e-12);
    assert_true(fabs(sb_adamw_rate(&o, 3) - 1) < 1e-12);
    assert_true(fabs(sb_adamw_rate(&o, 4) - 1) < 1e-12);
    assert_true(fabs(sb_adamw_rate(&o, 54) - 0.55) < 1e-12);
    assert_true(fabs(sb_adamw_rate(&o, 104) - 0.1) < 1e-12);
}

static void sizes_that_do_not_fit_are_refused(void **state)
{
    (void)state;
    struct sb_lm *lm;
    struct sb_error err;
    struct sb_lm_shape shape = small;
    shape.n_kv_heads = 3;
    assert_int_equal(sb_lm_create(&lm, &shape, false, &err), SB_EUSAGE);
    assert_non_null(strstr(err.message, "kv_heads = 3"));
    shape = small;
    shape.d_model = 10;
    assert_int_equal(sb_lm_create(&lm, &shape, false, &err), SB_EUSAGE);
    assert_non_null(strstr(err.message, "width is 10"));
}

static void a_tape_without_memory_reports_it_and_recovers(void **state)
{
    (void)state;
    struct sb_lm *lm;
    struct sb_tape *tape;
    struct sb_error err;
    assert_int_equal(sb_lm_create(&lm, &small, false, &err), SB_OK);
    sb_trainable_init(&lm->weights, 3);
    for (size_t allowed = 0; allowed < 3; allowed++) {
        assert_int_equal(sb_tape_create(&tape, &err), SB_OK);
        sb_alloc_fail_after(allowed);
        struct sb_var *loss =
            sb_tape_cross_entropy(tape, sb_lm_forward(lm, tape, &batch), targets, NULL);
        sb_alloc_fail_after(SIZE_MAX);
        assert_null(loss);
        assert_int_equal(sb_tape_backward(tape, loss, &err), SB_ENOMEM);
        sb_tape_reset(tape);
        assert_int_equal(sb_tape_backward(tape, model_loss(lm, tape), &err), SB_OK);
        sb_tape_destroy(tape);
    }
    sb_lm_destroy(lm);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_op_agrees_with_central_differences),
        cmocka_unit_test(kl_gives_the_worked_example),
        cmocka_unit_test(a_row_sees_its_own_key_alone_in_later_passes),
        cmocka_unit_test(every_divergence_gives_the_worked_example),
        cmocka_unit_test(smooth_l1_gives_the_worked_example),
        cmocka_unit_test(a_two_layer_model_agrees_with_central_differences),
        cmocka_unit_test(a_frozen_model_records_nothing),
        cmocka_unit_test(documents_packed_together_do_not_see_each_other),
        cmocka_unit_test(one_batch_can_be_learned_by_heart),
        cmocka_unit_test(adamw_moves_a_weight_as_by_hand),
        cmocka_unit_test(the_rate_warms_up_and_falls_to_its_floor),
        cmocka_unit_test(sizes_that_do_not_fit_are_refused),
        cmocka_unit_test(a_tape_without_memory_reports_it_and_recovers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
