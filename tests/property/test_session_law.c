/* Sampled sessions follow the target's law: the joint law of the first four tokens over many seeds,
 * against the law computed by forwards. Enumeration proves a step (test_enumerate); this sees what
 * only whole runs have: steps after steps, draws keyed by position, drafts made and thrown away. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "harness/core/alloc.h"
#include "harness/core/threads.h"
#include "harness/decode/session.h"
#include "tests/property/eagle_maker.h"
#include "tests/property/head_maker.h"
#include "tests/property/toy_model.h"

enum { V = 24, CONTEXT = 64, TOP_K = 3, LENGTH = 4, CELLS = 81 /* TOP_K^LENGTH */ };

static const struct sb_sampling sampling = { .temperature = .8, .top_k = TOP_K };
static const sb_token prompt[] = { 1, 9, 14, 2, 9, 14, 2, 11, 9, 14 };
enum { N_PROMPT = sizeof prompt / sizeof *prompt };

static struct toy_model target, draft;

/* All sequences of positive probability; cells by order of discovery. */
static struct {
    sb_token x[CELLS][LENGTH];
    double p[CELLS];
    size_t n;
} law;

static void explore(struct sb_seq *seq, sb_token *x, size_t n, double weight)
{
    if (n == LENGTH) {
        memcpy(law.x[law.n], x, sizeof law.x[0]);
        law.p[law.n++] = weight;
        return;
    }
    sb_token text[N_PROMPT + LENGTH];
    double row[V];
    uint32_t scratch[V];
    size_t last;
    memcpy(text, prompt, sizeof prompt);
    memcpy(text + N_PROMPT, x, n * sizeof *x);
    sb_seq_truncate(seq, 0);
    assert_int_equal(sb_seq_prefill(seq, text, N_PROMPT + n, NULL, 0, &last, NULL), SB_OK);
    sb_sampling_apply(row, &sampling, sb_seq_logits(seq, last), V, scratch);
    for (size_t t = 0; t < V; t++) {
        x[n] = (sb_token)t;
        if (row[t] > 0)
            explore(seq, x, n + 1, weight * row[t]);
    }
}

static int prepare(void **state)
{
    (void)state;
    sb_threads_set(1); /* the models are too small to share out */
    target = toy_model_create(1, 0, V, CONTEXT, -1);
    draft = toy_model_create(1, .12, V, CONTEXT, -1);
    enter_folder();
    make_eagle_heads(sb_model_config(target.model)->d_model, V);
    struct sb_seq *seq;
    sb_token x[LENGTH];
    assert_int_equal(sb_seq_create(&seq, target.model, CONTEXT, CONTEXT, NULL), SB_OK);
    explore(seq, x, 0, 1);
    sb_seq_destroy(seq);
    return law.n == CELLS ? 0 : -1;
}

static int clean_up(void **state)
{
    (void)state;
    toy_model_destroy(&target);
    toy_model_destroy(&draft);
    leave_folder();
    return 0;
}

static enum sb_status load(void *loader, const char *name, struct sb_model **model,
                           const struct sb_tokenizer **tokenizer, struct sb_error *err)
{
    *model = draft.model;
    *tokenizer = NULL;
    return SB_OK;
}

/* NULL: the pair is unlawful. */
static struct sb_session *open_with(const char *drafter, const char *verifier, const char *policy)
{
    struct sb_spec d, v, p = { 0 };
    struct sb_session *s = NULL;
    struct sb_error err = { .message = "" };
    assert_int_equal(sb_spec_parse(&d, drafter, NULL), SB_OK);
    assert_int_equal(sb_spec_parse(&v, verifier, NULL), SB_OK);
    if (policy)
        assert_int_equal(sb_spec_parse(&p, policy, NULL), SB_OK);
    const struct sb_session_options options = { .target = target.model,
                                                .drafter = &d,
                                                .verifier = &v,
                                                .policy = policy ? &p : NULL,
                                                .sampling = sampling,
                                                .load_model = load };
    enum sb_status rc = sb_session_create(&s, &options, &err);
    if (rc != SB_OK && !strstr(err.message, "lawful here"))
        fail_msg("%s with %s: %s", drafter, verifier, err.message);
    sb_spec_finish(&d);
    sb_spec_finish(&v);
    sb_spec_finish(&p);
    return s;
}

static struct sb_session *open_pair(const char *drafter, const char *verifier)
{
    return open_with(drafter, verifier, NULL);
}

/* Sanitizers make runs ten times as long. */
static size_t n_runs(void)
{
    return getenv("SB_SANITIZED") ? 2000 : 12000;
}

/* Pearson's statistic over cells of at least 5 expected counts, the others in one; *df: cells - 1. */
static double chi_square_of(struct sb_session *s, size_t runs, double *df, double *acceptance)
{
    size_t count[CELLS] = { 0 };
    int64_t drafted = 0, accepted = 0;
    assert_non_null(s);
    for (size_t i = 0; i < runs; i++) {
        struct sb_generation out;
        struct sb_request request = { .prompt = prompt,
                                      .n_prompt = N_PROMPT,
                                      .max_new_tokens = LENGTH + 2,
                                      .rng_key = sb_rng_mix(3, i) };
        assert_int_equal(sb_session_generate(s, &request, &out, NULL), SB_OK);
        size_t cell = 0;
        while (cell < CELLS && memcmp(law.x[cell], out.tokens.id, sizeof law.x[0]) != 0)
            cell++;
        assert_true(cell < CELLS);
        count[cell]++;
        drafted += out.drafted;
        accepted += out.accepted;
        sb_generation_finish(&out);
    }
    double statistic = 0, rest = 0, rest_expected = 0;
    *df = -1;
    for (size_t i = 0; i < CELLS; i++) {
        double expected = law.p[i] * (double)runs, difference = (double)count[i] - expected;
        if (expected >= 5) {
            statistic += difference * difference / expected;
            ++*df;
        } else {
            rest += difference;
            rest_expected += expected;
        }
    }
    if (rest_expected >= 5) {
        statistic += rest * rest / rest_expected;
        ++*df;
    }
    *acceptance = (double)accepted / (double)drafted;
    sb_session_destroy(s);
    return statistic;
}

static double chi_square(const char *drafter, const char *verifier, size_t runs, double *df,
                         double *acceptance)
{
    return chi_square_of(open_pair(drafter, verifier), runs, df, acceptance);
}

/* Wilson and Hilferty's approximation of a chi-square law's upper point; z: the normal law's. */
static double critical(double df, double z)
{
    double a = 2 / (9 * df);
    return df * pow(1 - a + z * sqrt(a), 3);
}
static const double one_in_1000 = 3.0902, one_in_a_million = 4.7534;

static void exact_verifiers_pass(void **state)
{
    (void)state;
    static const char *const pairs[][2] = {
        { "small-lm:model=x,k=3", "rejection" },
        { "small-lm:model=x,k=1", "rejection" },
        { "small-lm:model=x,tree=2x2", "naive-sample" },
        { "small-lm:model=x,tree=2x2", "traversal" }, /* draft numbers by step, not by position */
        { "small-lm:model=x,k=3", "block" },
        { "anpd:q=1,n=2", "rejection" }, /* counts of the text itself */
        { "small-lm:model=x,tree=3x2", "ot-flow" },
        { "pld:wrap=1", "rejection" },
        { "eagle:head=eagle,tree=3x2", "rrs" },
        { "eagle:head=eagle,tree=2x1", "traversal" },
        { "eagle2:head=eagle,topk=4,depth=1,total=9", "naive-sample" },
    };
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        double df, acceptance, x = chi_square(pairs[i][0], pairs[i][1], n_runs(), &df, &acceptance);
        if (!(x < critical(df, one_in_1000)))
            fail_msg("%s with %s: %g over %g degrees of freedom", pairs[i][0], pairs[i][1], x, df);
        assert_true(acceptance > .02 && acceptance < .98); /* both branches were taken */
    }
}

static void a_lossy_verifier_is_caught(void **state)
{
    (void)state;
    double df, acceptance;
    double x =
        chi_square("small-lm:model=x,k=3", "rejection:lenience=0.5", n_runs(), &df, &acceptance);
    assert_true(x > 2 * critical(df, one_in_1000));
}

/* Every way to draw with every exact verifier that takes it. */
static void every_rule_of_drawing_keeps_the_law_with_every_exact_verifier(void **state)
{
    (void)state;
    static const char *const drafters[] = {
        "small-lm:model=x,k=3",
        "small-lm:model=x,k=3,draw=coupled",
        "small-lm:model=x,tree=2x2",
        "small-lm:model=x,tree=2x2,draw=wor",
        "small-lm:model=x,k=3,draw=paths,paths=2",
        "small-lm:model=x,tree=2x2,draw=hub",
        "small-lm:model=x,tree=2x2,draw=topk1",
        "small-lm:model=x,tree=2x1x1,draw=coupled",
        "rsd-c:model=x,tree=2x1",
        "rsd-s:model=x,width=2,k=3",
    };
    for (size_t d = 0; d < sizeof drafters / sizeof *drafters; d++) {
        size_t pairs = 0;
        for (size_t i = 0; sb_verifiers[i]; i++) {
            const char *verifier = sb_verifiers[i]->name;
            struct sb_session *s = open_pair(drafters[d], verifier);
            bool exact = s && sb_session_guarantee(s) == SB_DISTRIBUTION_EXACT;
            sb_session_destroy(s);
            if (!exact)
                continue;
            double df, acceptance;
            double x = chi_square(drafters[d], verifier, n_runs() / 3, &df, &acceptance);
            if (!(x < critical(df, one_in_a_million)))
                fail_msg("%s with %s: %g over %g degrees of freedom", drafters[d], verifier, x, df);
            assert_true(acceptance > .02);
            pairs++;
        }
        assert_true(pairs >= 1);
    }
}

/* Where a draft ends may hang on its tokens, and its length on what was accepted before; the law may not. */
static void every_policy_keeps_the_law(void **state)
{
    (void)state;
    static const char *const policies[] = {
        "confidence:threshold=0.5", "confidence:adapt=1,of=path,scope=run",
        "fallback:fb=0.5",          "heuristic:start=1,scope=run",
        "optimal-gamma:scope=run",  "svip:h=0.2",
        "tree-cost:c=0.02",
    };
    static const char *const pairs[][2] = { { "small-lm:model=x,k=3", "rejection" },
                                            { "small-lm:model=x,k=3", "block" },
                                            { "small-lm:model=x,tree=2x2x1", "traversal" },
                                            { "small-lm:model=x,k=3,draw=coupled", "rrs" } };
    for (size_t p = 0; p < sizeof policies / sizeof *policies; p++)
        for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
            struct sb_session *s = open_with(pairs[i][0], pairs[i][1], policies[p]);
            double df, acceptance, x = chi_square_of(s, n_runs() / 4, &df, &acceptance);
            if (!(x < critical(df, one_in_a_million)))
                fail_msg("%s with %s and %s: %g over %g degrees of freedom", pairs[i][0],
                         pairs[i][1], policies[p], x, df);
            assert_true(acceptance > .02);
        }
}

/* Shared noise is what coupled draws are for: the verifier of races agrees with them far more often than
 * with independent ones. */
static void coupled_draws_win_the_races_of_their_verifier(void **state)
{
    (void)state;
    if (!sb_verifier_find("gumbel-coupled")) {
        print_message("# gumbel-coupled is not registered\n");
        return;
    }
    double df, apart, coupled;
    chi_square("small-lm:model=x,k=2", "gumbel-coupled", 500, &df, &apart);
    chi_square("small-lm:model=x,k=2,draw=coupled", "gumbel-coupled", 500, &df, &coupled);
    assert_true(coupled > apart + .1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exact_verifiers_pass),
        cmocka_unit_test(a_lossy_verifier_is_caught),
        cmocka_unit_test(every_policy_keeps_the_law),
        cmocka_unit_test(coupled_draws_win_the_races_of_their_verifier),
        cmocka_unit_test(every_rule_of_drawing_keeps_the_law_with_every_exact_verifier),
    };
    return cmocka_run_group_tests(tests, prepare, clean_up);
}
