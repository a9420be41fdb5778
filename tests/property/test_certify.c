/* The statistical half of the certifier, and the certificate as a whole: laws that add up, tests that
 * pass what is right as often as they say, catch what is planted, and verdicts that follow. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "harness/certify/arena.h"
#include "harness/certify/certify.h"
#include "harness/certify/greedy.h"
#include "harness/certify/planted.h"
#include "harness/certify/probe.h"
#include "harness/core/alloc.h"
#include "harness/core/threads.h"

static const char model_path[] = SB_SOURCE_DIR "/tests/golden/models/llama-f32.gguf";
static const struct sb_sampling settings[] = { { .temperature = 1 },
                                               { .temperature = .7, .top_k = 6 },
                                               { .temperature = 1, .top_p = .8 } };
enum { N_SETTINGS = 3 };

static struct sb_arena toy;

static int open_toy(void **state)
{
    (void)state;
    sb_threads_set(2);
    return sb_arena_toy(&toy, NULL) == SB_OK ? 0 : -1;
}

static int close_toy(void **state)
{
    (void)state;
    sb_arena_finish(&toy);
    return 0;
}

static bool sanitized(void)
{
    return getenv("SB_SANITIZED") != NULL;
}

static struct sb_sample_block *blocks(size_t n, int64_t draws)
{
    struct sb_sample_block *out;
    assert_int_equal(sb_arena_blocks(&out, &toy, settings, N_SETTINGS, n, draws, NULL), SB_OK);
    return out;
}

/* ---- the law of the first tokens ---- */

static void add_sequences(double *cell, const struct sb_law *law, struct sb_seq *seq,
                          const struct sb_sample_block *block, sb_token *x, size_t n, double weight)
{
    size_t last, n_vocab = law->n_vocab;
    bool ended = n > 0 && x[n - 1] == toy.eos[0];
    if (n == SB_LAW_TOKENS || ended) {
        int32_t c = sb_law_cell(law, x, n);
        assert_true(c >= 0 && (size_t)c < law->n_cells);
        cell[c] += weight;
        return;
    }
    double p[24];
    uint32_t scratch[24];
    assert_true(n_vocab == 24);
    sb_seq_truncate(seq, 0);
    assert_int_equal(sb_seq_prefill(seq, block->prompt, block->n_prompt, NULL, 0, &last, NULL),
                     SB_OK);
    if (n > 0)
        assert_int_equal(sb_seq_prefill(seq, x, n, NULL, 0, &last, NULL), SB_OK);
    sb_sampling_apply(p, &block->sampling, sb_seq_logits(seq, last), n_vocab, scratch);
    for (size_t t = 0; t < n_vocab; t++) {
        x[n] = (sb_token)t;
        if (p[t] > 0)
            add_sequences(cell, law, seq, block, x, n + 1, weight * p[t]);
        else if (n == 0) /* below an unlikely prefix the law does not look */
            assert_int_equal(sb_law_cell(law, x, 1), SB_LAW_NEVER);
    }
}

static void cells_hold_the_law_that_forwards_give(void **state)
{
    (void)state;
    const int64_t draws = 2000;
    struct sb_sample_block *b = blocks(N_SETTINGS, draws);
    struct sb_seq *seq;
    assert_int_equal(sb_seq_create(&seq, toy.target, 32, 32, NULL), SB_OK);
    for (size_t i = 0; i < N_SETTINGS; i++) {
        const struct sb_law *law = &b[i].law;
        double cell[256] = { 0 }, total = 0;
        sb_token x[SB_LAW_TOKENS];
        assert_in_range(law->n_cells, 5, 48);
        add_sequences(cell, law, seq, &b[i], x, 0, 1);
        for (size_t c = 0; c < law->n_cells; c++) {
            assert_true(fabs(cell[c] - law->p[c]) < 1e-12);
            assert_true(law->p[c] * (double)draws >= 10);
            total += law->p[c];
        }
        assert_true(fabs(total - 1) < 1e-12);
        const sb_token one[] = { b[i].prompt[0] };
        assert_int_equal(sb_law_cell(law, one, 0), SB_LAW_NEVER); /* it ended too early */
    }
    sb_seq_destroy(seq);
    sb_arena_blocks_free(b, N_SETTINGS);
}

/* ---- sampling ---- */

struct setup {
    struct sb_drawing drawing;
    const char *drafter;  /* in place of the probe */
    const char *verifier; /* NULL: the control */
    const char *control;  /* its parameters */
    int64_t draws;
    uint64_t seed;
};

static struct sb_sampled sample(struct setup setup)
{
    struct sb_spec drafter, verifier;
    struct sb_sampled out;
    struct sb_error err;
    char *probe = sb_probe_text(&setup.drawing, toy.draft_model, toy.heat);
    assert_int_equal(sb_spec_parse(&drafter, setup.drafter ? setup.drafter : probe, NULL), SB_OK);
    assert_int_equal(
        sb_spec_parse(&verifier, setup.verifier ? setup.verifier : setup.control, NULL), SB_OK);
    struct sb_sample_block *b = blocks(N_SETTINGS, setup.draws);
    struct sb_sample_request request = { .session = sb_arena_session(&toy),
                                         .eos = toy.eos,
                                         .n_eos = toy.n_eos,
                                         .block = b,
                                         .n_blocks = N_SETTINGS,
                                         .draws = setup.draws,
                                         .length = 12,
                                         .seed = setup.seed };
    request.session.drafter = &drafter;
    request.session.verifier = &verifier;
    request.session.drafter_ops = setup.drafter ? NULL : &sb_probe_drafter;
    request.session.verifier_ops = setup.verifier ? NULL : &sb_control_verifier;
    if (sb_sample_run(&out, &request, &err) != SB_OK)
        fail_msg("%s", err.message);
    sb_arena_blocks_free(b, N_SETTINGS);
    sb_spec_finish(&drafter);
    sb_spec_finish(&verifier);
    sb_free(probe);
    return out;
}

static void planted_rules_show_and_the_control_does_not(void **state)
{
    (void)state;
    for (const struct sb_planted *p = sb_planted; p->name; p++) {
        struct sb_sampled s = sample((struct setup){
            .drawing = p->drawing, .control = p->params, .draws = sanitized() ? 60 : 250 });
        double least = fmin(s.first_p, s.drift_p);
        assert_true(s.drafted > 0 && s.accepted > 0);
        if (p == sb_planted ? least < .001 : least > (sanitized() ? .5 : 1e-5))
            fail_msg("%s: p %g and %g, drift %g", p->name, s.first_p, s.drift_p, s.drift);
        if (p != sb_planted) /* the bound holds what is really there */
            assert_true(s.drift_upper > fabs(s.drift) && s.drift_upper < 1);
    }
}

static void the_registry_passes_on_every_kind_and_a_lossy_rule_shows(void **state)
{
    (void)state;
    const int64_t draws = sanitized() ? 40 : 100;
    for (int k = SB_DRAW_ONEHOT; k < SB_DRAW_KINDS; k++) {
        struct sb_sampled s =
            sample((struct setup){ .drawing = { (enum sb_draw_kind)k, 2, 2, true, 0 },
                                   .verifier = "naive-sample",
                                   .draws = draws });
        if (!(s.first_p > 1e-4 && s.drift_p > 1e-4))
            fail_msg("%s: p %g and %g", sb_draw_kind_name((enum sb_draw_kind)k), s.first_p,
                     s.drift_p);
        assert_true(s.drift_tokens > s.generations && s.steps > s.generations);
    }
    struct sb_sampled s = sample((struct setup){ .drawing = { .kind = SB_DRAW_IID, 3, 1 },
                                                 .verifier = "rejection:lenience=0.4",
                                                 .draws = draws });
    assert_true(s.drift_p < 1e-4 && s.drift > .02);
    s = sample((struct setup){ .drafter = "none", .verifier = "naive-sample", .draws = draws });
    assert_true(s.drafted == 0 && s.drift_tokens == 0 && isnan(s.drift) && s.drift_p > 1e-4);
}

static void threads_change_nothing(void **state)
{
    (void)state;
    const struct setup setup = {
        .drawing = { .kind = SB_DRAW_IID, 3, 1 }, .control = "control", .draws = 30, .seed = 5
    };
    struct sb_sampled a = sample(setup);
    sb_threads_set(1);
    struct sb_sampled b = sample(setup);
    sb_threads_set(3);
    struct sb_sampled c = sample(setup);
    sb_threads_set(2);
    assert_memory_equal(&a, &b, sizeof a);
    assert_memory_equal(&a, &c, sizeof a);
}

/* Many small runs of what is right: p-values spread out, and none is out of all proportion. */
static void right_rules_are_refused_as_rarely_as_stated(void **state)
{
    (void)state;
    const int runs = sanitized() ? 6 : 30;
    int first_low = 0, drift_low = 0, above_half = 0;
    for (int i = 0; i < runs; i++) {
        struct sb_sampled s =
            sample((struct setup){ .drawing = { .kind = SB_DRAW_WOR, .depth = 2, .width = 2 },
                                   .control = "control",
                                   .draws = 60,
                                   .seed = 1000 + (uint64_t)i });
        assert_true(s.first_p > 1e-5 && s.drift_p > 1e-5);
        first_low += s.first_p < .1;
        drift_low += s.drift_p < .1;
        above_half += (s.first_p > .5) + (s.drift_p > .5);
    }
    assert_in_range(first_low, 0, runs / 10 + 6);
    assert_in_range(drift_low, 0, runs / 10 + 6);
    assert_in_range(above_half, runs / 2, 3 * runs / 2); /* of 2 runs */
}

static void a_run_stops_when_asked(void **state)
{
    (void)state;
    const int stop = 1;
    struct sb_sample_block *b = blocks(1, 50);
    struct sb_spec none, naive;
    struct sb_sampled out;
    assert_int_equal(sb_spec_parse(&none, "none", NULL), SB_OK);
    assert_int_equal(sb_spec_parse(&naive, "naive-sample", NULL), SB_OK);
    struct sb_sample_request request = { .session = sb_arena_session(&toy),
                                         .block = b,
                                         .n_blocks = 1,
                                         .draws = 50,
                                         .length = 8,
                                         .stop = &stop };
    request.session.drafter = &none;
    request.session.verifier = &naive;
    assert_int_equal(sb_sample_run(&out, &request, NULL), SB_EINTERRUPTED);
    sb_arena_blocks_free(b, 1);
    sb_spec_finish(&none);
    sb_spec_finish(&naive);
}

/* ---- greedy ---- */

/* Takes the first child, whatever the target says. */
static enum sb_status trusting_verify(const void *params, const struct sb_tree *tree,
                                      const struct sb_rows *rows, const struct sb_dice *dice,
                                      void *scratch, struct sb_verdict *verdict,
                                      struct sb_error *err)
{
    sb_verdict_begin(verdict, tree);
    if (tree->n > 1)
        sb_verdict_accept(verdict, tree, 1);
    int32_t last = verdict->path[verdict->n_path - 1];
    sb_verdict_close(verdict, tree, (sb_token)rows->argmax(rows->self, last));
    return SB_OK;
}
static const struct sb_verifier_ops trusting = { .name = "trusting",
                                                 .guarantee = SB_DISTRIBUTION_EXACT,
                                                 .kinds = SB_KINDS_ALL,
                                                 .verify = trusting_verify };

static void greedy_answers_are_equal_or_told_apart(void **state)
{
    (void)state;
    struct sb_greedy_set set;
    struct sb_greedy g;
    struct sb_spec drafter;
    struct sb_session_options session = sb_arena_session(&toy);
    assert_int_equal(sb_greedy_set_make(&set, &toy, 0, 24, NULL), SB_OK);
    assert_true(set.n == SB_ARENA_PROMPTS && set.epsilon == 0); /* promise 1 */
    assert_int_equal(sb_spec_parse(&drafter, "small-lm:model=toy-draft,tree=2x2", NULL), SB_OK);
    session.drafter = &drafter;
    assert_int_equal(sb_greedy_run(&g, &set, &session, NULL, NULL), SB_OK);
    assert_true(g.generations == SB_ARENA_PROMPTS && g.equal == g.generations && g.accepted > 0);
    assert_string_equal(g.note, "");

    session.verifier_ops = &trusting;
    assert_int_equal(sb_greedy_run(&g, &set, &session, NULL, NULL), SB_OK);
    assert_true(g.equal < g.generations && g.real > 0 && g.ties == 0 && g.numerical == 0);
    assert_int_equal(g.equal + g.real, g.generations);
    assert_non_null(strstr(g.note, "logits are "));
    set.epsilon = 1e6; /* what a machine with sloppy arithmetic would have measured */
    assert_int_equal(sb_greedy_run(&g, &set, &session, NULL, NULL), SB_OK);
    assert_true(g.real == 0 && g.numerical > 0);
    sb_spec_finish(&drafter);
    sb_greedy_set_finish(&set);
}

/* ---- certificates ---- */

static struct sb_certificate certify(struct sb_certify_options options)
{
    struct sb_certificate out;
    struct sb_error err;
    struct sb_models *models = sb_models_create();
    options.model = model_path;
    options.quiet = true;
    if (sb_certify_run(&out, &options, models, &err) != SB_OK)
        fail_msg("%s", err.message);
    sb_models_destroy(models);
    return out;
}

static int count_verdict(const struct sb_certificate *c, const char *verdict)
{
    int n = 0;
    for (size_t i = 0; i < c->n; i++)
        n += strcmp(c->check[i].row.verdict, verdict) == 0;
    return n;
}

/* It says it is exact, and adds a twentieth to what it should accept. */
static enum sb_status lying_verify(const void *params, const struct sb_tree *tree,
                                   const struct sb_rows *rows, const struct sb_dice *dice,
                                   void *scratch, struct sb_verdict *verdict, struct sb_error *err)
{
    static const struct sb_control more = { .more = .05 };
    return sb_control_verifier.verify(&more, tree, rows, dice, scratch, verdict, err);
}

static void a_false_guarantee_is_refuted(void **state)
{
    (void)state;
    struct sb_verifier_ops liar = sb_control_verifier;
    liar.name = "liar";
    liar.verify = lying_verify;
    liar.params = NULL;
    liar.params_size = 0;
    struct sb_certificate c = certify((struct sb_certify_options){
        .subject = &liar, .tables = 10, .draws = sanitized() ? 40 : 100 });
    if (!sanitized()) { /* there the samples are too small to catch what is planted */
        assert_string_equal(c.verdict, "refuted");
        assert_int_equal(c.missed, 0);
    }
    assert_true(c.refuted >= 3);
    bool confirmed = false;
    for (size_t i = 0; i < c.n; i++) {
        const struct sb_check_row *row = &c.check[i].row;
        confirmed =
            confirmed || (strcmp(row->part, "sample") == 0 && strcmp(row->verdict, "fail") == 0 &&
                          strstr(row->note, "run again with a new seed"));
        assert_true(row->planted || strcmp(row->verifier, "liar") == 0);
    }
    assert_true(confirmed || sanitized());
    sb_certificate_finish(&c);
}

static void lossy_rules_are_measured_and_refute_nothing(void **state)
{
    (void)state;
    static const char *const verifiers[] = { "rejection:lenience=0.5", "rejection" };
    static const char *const drafter[] = { "pld" };
    struct sb_certificate c = certify((struct sb_certify_options){ .verifier = verifiers,
                                                                   .n_verifiers = 2,
                                                                   .drafter = drafter,
                                                                   .n_drafters = 1,
                                                                   .tables = 10,
                                                                   .draws = 15 });
    assert_int_equal(c.refuted, 0);
    assert_true(count_verdict(&c, "lossy") >= 5 && count_verdict(&c, "pass") >= 5);
    for (size_t i = 0; i < c.n; i++) {
        const struct sb_check_row *row = &c.check[i].row;
        if (row->planted || strcmp(row->part, "exact") != 0)
            continue;
        bool lossy = strcmp(row->guarantee, "lossy") == 0;
        assert_true(lossy ? row->variation > .005 : row->max_error < 1e-12);
        assert_string_equal(row->verifier_params, lossy ? "lenience=0.5" : "");
    }
    sb_certificate_finish(&c);
}

/* Too few generations to see what is planted: such a certificate says nothing. */
static void a_certificate_without_power_is_refused(void **state)
{
    (void)state;
    static const char *const verifier[] = { "naive-sample" };
    struct sb_certificate c = certify((struct sb_certify_options){
        .verifier = verifier, .n_verifiers = 1, .tables = 5, .draws = 8 });
    assert_string_equal(c.verdict, "refused");
    assert_true(c.missed > 0 && c.refuted == 0);
    sb_certificate_finish(&c);
}

static void wrong_requests_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *drafter, *verifier, *model, *message;
    } cases[] = {
        { NULL, "rejectoin", model_path, "no verifier is named 'rejectoin'" },
        { "plod", NULL, model_path, "no drafter is named 'plod'" },
        { NULL, "rejection:lenience=7", model_path, "verifier rejection" },
        { "small-lm", NULL, model_path, "model" },
        { "small-lm:model=tiny,tree=2x2", NULL, model_path, "vocabulary" },
        { "pld", "rejection:lenience=0.5,alpha=0.5", model_path, "lenience" },
        { NULL, NULL, "no-such-model", "model 'no-such-model'" },
    };
    struct sb_models *models = sb_models_create();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const struct sb_certify_options o = { .drafter = &cases[i].drafter,
                                              .n_drafters = cases[i].drafter != NULL,
                                              .verifier = &cases[i].verifier,
                                              .n_verifiers = cases[i].verifier != NULL,
                                              .model = cases[i].model,
                                              .tables = 2,
                                              .draws = 2,
                                              .quiet = true };
        struct sb_certificate c;
        struct sb_error err;
        enum sb_status rc = sb_certify_run(&c, &o, models, &err);
        assert_true(rc == SB_EUSAGE || rc == SB_EINPUT);
        if (!strstr(err.message, cases[i].message))
            fail_msg("'%s' lacks '%s'", err.message, cases[i].message);
        sb_certificate_finish(&c);
    }
    sb_models_destroy(models);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cells_hold_the_law_that_forwards_give),
        cmocka_unit_test(planted_rules_show_and_the_control_does_not),
        cmocka_unit_test(the_registry_passes_on_every_kind_and_a_lossy_rule_shows),
        cmocka_unit_test(threads_change_nothing),
        cmocka_unit_test(right_rules_are_refused_as_rarely_as_stated),
        cmocka_unit_test(a_run_stops_when_asked),
        cmocka_unit_test(greedy_answers_are_equal_or_told_apart),
        cmocka_unit_test(a_false_guarantee_is_refuted),
        cmocka_unit_test(lossy_rules_are_measured_and_refute_nothing),
        cmocka_unit_test(a_certificate_without_power_is_refused),
        cmocka_unit_test(wrong_requests_are_refused),
    };
    return cmocka_run_group_tests(tests, open_toy, close_toy);
}
