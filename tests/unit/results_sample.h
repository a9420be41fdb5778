/* A small experiment with known figures, for the tests of views, reports and docs/sql.md.
 *
 * Two tasks, three questions (one of two turns), two repeats; arms none, pld and tree. */
#ifndef SB_TESTS_RESULTS_SAMPLE_H
#define SB_TESTS_RESULTS_SAMPLE_H

#include <math.h>
#include <sqlite3.h>
#include <stdio.h>
#include <string.h>

#include "results/store.h"

struct sample {
    int64_t host, model, experiment, arm[3], prompt[4];
};

/* A chain of `drafted` with `accepted` accepted. Times: 1 ms draft per token, 10 ms verify. */
static struct sb_step_row sample_step(int step_no, int drafted, int accepted, int tokens)
{
    return (struct sb_step_row){ .step_no = step_no,
                                 .context = 10 + step_no,
                                 .drafted = drafted,
                                 .depth = drafted,
                                 .accepted = accepted,
                                 .tokens = tokens,
                                 .bonus = accepted == drafted,
                                 .draft_ns = 1000000 * drafted,
                                 .verify_ns = 10000000,
                                 .accept_ns = 100000,
                                 .commit_ns = 50000,
                                 .observe_ns = 50000 };
}

static void sample_begin(struct sample *id, struct sb_store *s, const char *key, double temperature)
{
    const struct sb_host_row host = { .hostname = "box",
                                      .cpu = "cpu",
                                      .isa = "generic",
                                      .specbench_version = "0.1.0",
                                      .threads = 2,
                                      .physical_cores = 2 };
    const struct sb_model_row model = { .name = "tiny", .arch = "llama", .n_params = 1000 };
    assert_int_equal(sb_store_host(s, &host, &id->host, NULL), SB_OK);
    assert_int_equal(sb_store_model(s, &model, &id->model, NULL), SB_OK);
    const struct sb_experiment_row e = { .name = "sample",
                                         .content_key = key,
                                         .dataset = "mini",
                                         .conversation = "baseline",
                                         .host_id = id->host,
                                         .target_model_id = id->model,
                                         .seed = 7,
                                         .repeats = 2,
                                         .max_new_tokens = 64,
                                         .temperature = temperature,
                                         .top_p = 1,
                                         .arithmetic = "exact" };
    assert_int_equal(sb_store_experiment(s, &e, &id->experiment, NULL), SB_OK);
}

static int64_t sample_arm(const struct sample *id, struct sb_store *s, int no, const char *label,
                          const char *guarantee)
{
    int64_t arm = 0;
    const struct sb_arm_row row = { .experiment_id = id->experiment,
                                    .arm_no = no,
                                    .label = label,
                                    .drafter = label,
                                    .verifier = "greedy",
                                    .policy = "constant",
                                    .guarantee = guarantee,
                                    .is_baseline = no == 0 };
    assert_int_equal(sb_store_arm(s, &row, &arm, NULL), SB_OK);
    return arm;
}

static int64_t sample_prompt(const struct sample *id, struct sb_store *s, int question, int turn,
                             int n_turns, const char *task)
{
    int64_t prompt = 0;
    const struct sb_prompt_row row = { .experiment_id = id->experiment,
                                       .question_id = question,
                                       .task = task,
                                       .category = task,
                                       .turn = turn,
                                       .n_turns = n_turns,
                                       .text = "Say it again." };
    assert_int_equal(sb_store_prompt(s, &row, &prompt, NULL), SB_OK);
    return prompt;
}

static const int32_t sample_ids[] = { 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22 };

/* Contexts and trees as a run would record them: where a step has no nodes yet, its draft becomes a chain of the
 * answer's tokens and, behind those accepted, of token 7. nodes: room for 4 per step. */
static void sample_finish(struct sb_step_row *steps, size_t n_steps, struct sb_node_row *nodes)
{
    int32_t made = 1; /* tokens so far, the prefill's included */
    for (size_t i = 0; i < n_steps; i++, nodes += 4) {
        struct sb_step_row *s = &steps[i];
        s->context = 4 + made;
        for (int d = 0; d < s->drafted && !s->nodes; d++)
            nodes[d] = (struct sb_node_row){ .parent = d,
                                             .depth = d + 1,
                                             .token = d < s->accepted ? sample_ids[made + d] : 7,
                                             .source = 1,
                                             .log_q = -1,
                                             .decision = d < s->accepted    ? 2
                                                         : d == s->accepted ? 1
                                                                            : 0 };
        if (s->drafted > 0 && !s->nodes) {
            s->nodes = nodes;
            s->n_nodes = (size_t)s->drafted;
        }
        made += s->tokens;
    }
}

/* Tokens are counted from the steps, plus the prefill's; decode_ns as given. */
static void sample_generation(struct sb_store *s, int64_t arm, int64_t prompt, int repeat,
                              const struct sb_step_row *steps, size_t n_steps, int64_t decode_ns)
{
    size_t tokens = 1;
    struct sb_error err = { 0 };
    for (size_t i = 0; i < n_steps; i++)
        tokens += (size_t)steps[i].tokens;
    const struct sb_generation_row row = { .arm_id = arm,
                                           .prompt_id = prompt,
                                           .repeat = repeat,
                                           .status = "ok",
                                           .finish = "length",
                                           .prompt_tokens = sample_ids,
                                           .n_prompt_tokens = 4,
                                           .tokens = sample_ids,
                                           .n_tokens = tokens,
                                           .text = "again",
                                           .prefill_ns = 20000000,
                                           .decode_ns = decode_ns,
                                           .wall_ns = decode_ns + 21000000,
                                           .started_at = "2026-01-01T00:00:00Z",
                                           .steps = steps,
                                           .n_steps = n_steps };
    if (sb_store_generation(s, &row, &err) != SB_OK)
        fail_msg("%s", err.message);
}

/* A finished certificate of the sample's host: greedy passed, "loose" is lossy, one planted rule caught. */
static int64_t sample_certificate(const struct sample *id, struct sb_store *s, const char *verdict)
{
    static const struct sb_check_row checks[] = {
        { .part = "exact",
          .verifier = "greedy",
          .guarantee = "greedy-exact",
          .kind = "onehot",
          .target = "tables",
          .n = 200,
          .outcomes = 900,
          .max_error = 1e-16,
          .variation = 2e-17,
          .variation_upper = 4e-17,
          .accepted = 1,
          .equal = -1,
          .ties = -1,
          .numerical = -1,
          .real = -1,
          .verdict = "pass" },
        { .part = "greedy",
          .verifier = "greedy",
          .guarantee = "greedy-exact",
          .drafter = "pld",
          .policy = "constant",
          .target = "tiny",
          .n = 6,
          .outcomes = 192,
          .max_error = NAN,
          .variation = NAN,
          .variation_upper = NAN,
          .accepted = .5,
          .equal = 6,
          .verdict = "pass" },
        { .part = "exact",
          .verifier = "loose",
          .verifier_params = "x=1",
          .guarantee = "lossy",
          .kind = "iid",
          .target = "tables",
          .n = 200,
          .outcomes = 800,
          .max_error = .2,
          .variation = .07,
          .variation_upper = .3,
          .accepted = .9,
          .equal = -1,
          .ties = -1,
          .numerical = -1,
          .real = -1,
          .verdict = "lossy" },
        { .part = "sample",
          .planted = true,
          .verifier = "redraw",
          .guarantee = "distribution-exact",
          .drafter = "probe",
          .target = "toy",
          .setting = "temperature=1",
          .n = 400,
          .outcomes = 6000,
          .max_error = NAN,
          .variation = .02,
          .variation_upper = .1,
          .accepted = 1,
          .g = 40,
          .df = 20,
          .g_p = .005,
          .drift = .09,
          .drift_upper = .1,
          .drift_p = 1e-40,
          .p_holm = 1e-38,
          .detectable = .1,
          .equal = -1,
          .ties = -1,
          .numerical = -1,
          .real = -1,
          .verdict = "caught" },
    };
    const struct sb_certificate_row row = {
        .host_id = id->host, .model_id = id->model, .size = "quick", .level = .001
    };
    int64_t certificate = 0;
    assert_int_equal(sb_store_certificate(s, &row, &certificate, NULL), SB_OK);
    for (int i = 0; i < 4; i++) {
        struct sb_check_row check = checks[i];
        check.certificate_id = certificate;
        check.check_no = i;
        check.verifier_params = check.verifier_params ? check.verifier_params : "";
        if (check.g == 0)
            check.g = check.df = check.g_p = check.drift = check.drift_upper = check.drift_p =
                check.p_holm = check.detectable = NAN;
        assert_int_equal(sb_store_check(s, &check, NULL), SB_OK);
    }
    if (verdict)
        assert_int_equal(sb_store_certificate_end(s, certificate, verdict, 1000000000, NULL),
                         SB_OK);
    return certificate;
}

/* none: 11 plain steps of 10 ms. pld: the chain of methods C 5.2 (drafts of 4; accepted 4, 2, 0, 1:
 * 5 + 3 + 1 + 2 = 11 tokens) in 55 ms. tree: 5 steps, the first of them a tree with two branches. */
static void sample_fill(struct sample *id, struct sb_store *s, const char *key)
{
    static const struct sb_node_row tree[] = {
        { .depth = 1, .token = 3, .decision = 1, .log_q = -1.5, .source = 1 },
        { .depth = 1, .rank = 1, .token = 12, .decision = 2, .log_q = -0.5, .source = 2 },
        { .parent = 1, .depth = 2, .token = 9, .log_q = -2 },
        { .parent = 2, .depth = 2, .token = 13, .decision = 2, .log_q = -0.25, .source = 2 },
    };
    struct sb_node_row nodes[2][5 * 4];
    struct sb_step_row plain[11], chain[4], branched[5];
    static const int accepted[] = { 4, 2, 0, 1 };
    for (int i = 0; i < 11; i++) {
        plain[i] = sample_step(i, 0, 0, 1);
        plain[i].verify_ns = 9000000;
    }
    for (int i = 0; i < 4; i++)
        chain[i] = sample_step(i, 4, accepted[i], accepted[i] + 1);
    branched[0] = sample_step(0, 4, 2, 3);
    branched[0].depth = 2;
    branched[0].bonus = true;
    branched[0].nodes = tree;
    branched[0].n_nodes = 4;
    branched[0].judged = 3; /* diagnosed: accepted two, and tried a third */
    branched[0].overlap = 1.5;
    branched[0].ot_bound = 2.25;
    branched[1] = sample_step(1, 4, 3, 4);
    branched[2] = sample_step(2, 0, 0, 1);
    branched[3] = sample_step(3, 2, 1, 2);
    branched[4] = sample_step(4, 1, 1, 1); /* the length limit cut the final token */

    sample_finish(plain, 11, nodes[0]); /* drafts nothing */
    sample_finish(chain, 4, nodes[0]);
    sample_finish(branched, 5, nodes[1]);

    sample_begin(id, s, key, 0);
    id->arm[0] = sample_arm(id, s, 0, "none", "greedy-exact");
    id->arm[1] = sample_arm(id, s, 1, "pld", "greedy-exact");
    id->arm[2] = sample_arm(id, s, 2, "tree", "greedy-exact");
    id->prompt[0] = sample_prompt(id, s, 81, 1, 2, "conversation");
    id->prompt[1] = sample_prompt(id, s, 81, 2, 2, "conversation");
    id->prompt[2] = sample_prompt(id, s, 90, 1, 1, "qa");
    id->prompt[3] = sample_prompt(id, s, 91, 1, 1, "qa");
    for (int repeat = 0; repeat < 2; repeat++)
        for (int p = 0; p < 4; p++) {
            sample_generation(s, id->arm[0], id->prompt[p], repeat, plain, 11, 110000000);
            sample_generation(s, id->arm[1], id->prompt[p], repeat, chain, 4, 57000000);
            sample_generation(s, id->arm[2], id->prompt[p], repeat, branched, 5,
                              p == 2 ? 110000000 : 88000000);
        }
    const struct sb_cost_row cost = { .host_id = id->host,
                                      .model_id = id->model,
                                      .context = 128,
                                      .rows = 5,
                                      .median_ns = 10000000,
                                      .c = 1.1,
                                      .c_lo = 1.0,
                                      .c_hi = 1.2 };
    assert_int_equal(sb_store_cost(s, &cost, NULL), SB_OK);
    sample_certificate(id, s, "holds");
}

#endif
