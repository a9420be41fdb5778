/* mlp-speculator and redrafter: positions, depths and states by an oracle, the search against its definition,
 * and files that must be refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "harness/decode/session.h"
#include "tests/property/cycle_model.h"
#include "tests/property/head_maker.h"

enum { V = CYCLE_VOCAB, DEPTH = 3, STEPS = 10 };

static struct cycle_model cycle;

static int make_models(void **state)
{
    (void)state;
    cycle = cycle_model_create();
    enter_folder();
    return 0;
}

static int destroy_models(void **state)
{
    (void)state;
    leave_folder();
    cycle_model_destroy(&cycle);
    return 0;
}

struct tally {
    int32_t steps, accepted, drafted;
    sb_token first[8]; /* children of the root in the first step, by rank */
    int32_t n_first;
};

static void count_step(void *self, const struct sb_step *step)
{
    struct tally *tally = self;
    for (int32_t i = 1; tally->steps == 0 && i < step->tree->n && tally->n_first < 8; i++)
        if (step->tree->node[i].parent == 0)
            tally->first[tally->n_first++] = step->tree->node[i].token;
    tally->steps++;
    tally->accepted += step->accepted;
    tally->drafted += step->drafted;
}

static enum sb_status open_drafter(struct sb_session **s, const char *text, struct sb_error *err)
{
    struct sb_spec spec;
    assert_int_equal(sb_spec_parse(&spec, text, NULL), SB_OK);
    enum sb_status rc = sb_session_create(
        s, &(struct sb_session_options){ .target = cycle.model, .drafter = &spec }, err);
    sb_spec_finish(&spec);
    return rc;
}

/* The prefill's token, then steps of DEPTH drafts and a bonus where all are right. */
static struct tally run(const char *drafter)
{
    static const sb_token prompt[] = { 3, 4, 5 };
    struct sb_session *s;
    struct sb_error err = { .message = "" };
    struct sb_generation out;
    struct tally tally = { 0 };
    if (open_drafter(&s, drafter, &err) != SB_OK)
        fail_msg("%s: %s", drafter, err.message);
    const struct sb_request request = { .prompt = prompt,
                                        .n_prompt = 3,
                                        .max_new_tokens = 1 + (DEPTH + 1) * STEPS,
                                        .on_step = count_step,
                                        .self = &tally };
    assert_int_equal(sb_session_generate(s, &request, &out, NULL), SB_OK);
    for (size_t i = 0; i < out.tokens.n; i++)
        assert_int_equal(out.tokens.id[i], (6 + (sb_token)i) % V);
    sb_generation_finish(&out);
    sb_session_destroy(s);
    return tally;
}

static void expect_right(const char *drafter, bool right)
{
    struct tally t = run(drafter);
    assert_int_equal(t.steps, right ? STEPS : (DEPTH + 1) * STEPS);
    assert_int_equal(t.accepted, right ? DEPTH * STEPS : 0);
    assert_true(t.drafted >= DEPTH * STEPS);
}

/* w[n, k] += value at (c + shift, c + from) for c = 0 .. V - 1: component c of an input part goes to
 * c + shift of the output. */
static void rotate(float *w, size_t k, size_t from, int shift, float value)
{
    for (int c = 0; c < V; c++)
        w[(size_t)((c + shift + V) % V) * k + from + (size_t)c] += value;
}

/* ---- mlp-speculator ---- */

/* Depth i: z = state weight * (P s) + token weight * r E(y), and then H. */
struct mlp_weights {
    float proj[DEPTH][V * V], emb[DEPTH][V * V], head[DEPTH][V * V], zero[V];
};
static struct mlp_weights mlp;

static void write_mlp(const char *path)
{
    struct made_tensor t[5 * DEPTH];
    static char name[5 * DEPTH][24];
    for (int i = 0; i < DEPTH; i++) {
        static const char *const part[] = { "emb.%d.weight", "proj.%d.weight", "head.%d.weight" };
        const float *data[] = { mlp.emb[i], mlp.proj[i], mlp.head[i] };
        for (int j = 0; j < 3; j++) {
            snprintf(name[5 * i + j], 24, part[j], i);
            t[5 * i + j] =
                (struct made_tensor){ .name = name[5 * i + j], .n = V, .k = V, .data = data[j] };
        }
        snprintf(name[5 * i + 3], 24, "ln.%d.weight", i);
        snprintf(name[5 * i + 4], 24, "ln.%d.bias", i);
        t[5 * i + 3] = (struct made_tensor){ .name = name[5 * i + 3], .k = V };
        t[5 * i + 4] = (struct made_tensor){ .name = name[5 * i + 4], .k = V, .data = mlp.zero };
    }
    make_head(path, 1, t, 5 * DEPTH, NULL);
}

/* The state moves on by one at each depth; tokens are not looked at. */
static void its_state_begins_with_the_newest_hidden_state(void **state)
{
    (void)state;
    for (int shift = -1; shift <= 1; shift++) {
        memset(&mlp, 0, sizeof mlp);
        for (int i = 0; i < DEPTH; i++) {
            rotate(mlp.proj[i], V, 0, 1, 1); /* h says the root; its successor is drafted */
            rotate(mlp.head[i], V, 0, shift, 1);
        }
        write_mlp("mlp.safetensors");
        expect_right("mlp-speculator:head=mlp.safetensors,tree=1x1x1", shift == 0);
        if (shift == 0) /* a wide tree may be right by chance */
            expect_right("mlp-speculator:head=mlp.safetensors,tree=3x2x2", true);
    }
}

/* Each depth sees the token before it; the state is not looked at. */
static void each_depth_sees_the_token_drafted_before_it(void **state)
{
    (void)state;
    for (int shift = -1; shift <= 1; shift++) {
        memset(&mlp, 0, sizeof mlp);
        for (int i = 0; i < DEPTH; i++) {
            rotate(mlp.emb[i], V, 0, 0, 1);
            rotate(mlp.head[i], V, 0, 1 + shift, 1);
        }
        write_mlp("mlp.safetensors");
        expect_right("mlp-speculator:head=mlp.safetensors,tree=1x1x1", shift == 0);
    }
}

/* Three depths of width m: r = sqrt((1 - w^2) m / 2) / w with w = 2^(-1/6), which is 23.072024 at m = 4,096
 * and so 1.442 at m = 16. Where the state pulls one way and the token another, r decides. */
static void tokens_weigh_as_published(void **state)
{
    (void)state;
    const float r = 23.072024f / 16, h = 4; /* of the cycle: sqrt(V) */
    for (int more = 0; more < 2; more++) {
        memset(&mlp, 0, sizeof mlp);
        rotate(mlp.proj[0], V, 0, 5, r * (more ? 1.001f : .999f) / h);
        for (int c = 0; c < V; c++)
            mlp.emb[0][c * V + (c + V - 1) % V] = 1;
        rotate(mlp.head[0], V, 0, 0, 1);
        write_mlp("mlp.safetensors");
        struct tally t = run("mlp-speculator:head=mlp.safetensors,tree=1,candidates=1");
        assert_int_equal(t.first[0], more ? 6 + 5 : 6 - 1); /* the first root is 6 */
    }
}

static void a_wider_search_keeps_the_best_paths(void **state)
{
    (void)state;
    memset(&mlp, 0, sizeof mlp);
    /* At every depth: the successor, then the one after it, less likely. */
    for (int i = 0; i < DEPTH; i++) {
        for (int c = 0; c < V; c++) {
            mlp.emb[i][c * V + c] = 1;
            mlp.head[i][(c + 1) % V * V + c] = 1;
            mlp.head[i][(c + 2) % V * V + c] = .7f;
        }
    }
    write_mlp("mlp.safetensors");
    /* Products of 2 x 2 x 2 paths: the best is all successors, the next three leave one. */
    struct tally t = run("mlp-speculator:head=mlp.safetensors,tree=2x2x2,candidates=4");
    assert_int_equal(t.n_first, 2);
    assert_int_equal(t.first[0], 7);
    assert_int_equal(t.first[1], 8);
    t = run("mlp-speculator:head=mlp.safetensors,tree=2x2x2,candidates=1");
    assert_int_equal(t.n_first, 1);
}

/* ---- redrafter ---- */

struct redrafter_weights {
    float w[V * V], u[V * V], zero[2 * V], block[4 * V * V], out[2 * V * V];
};
static struct redrafter_weights rd;

static void write_redrafter(const char *path)
{
    const struct made_tensor t[] = {
        { .name = "rnn_w.weight", .n = V, .k = V, .data = rd.w },
        { .name = "rnn_u.weight", .n = V, .k = V, .data = rd.u },
        { .name = "rnn_u.bias", .k = V, .data = rd.zero },
        { .name = "lm_head.0.linear.weight", .n = 2 * V, .k = 2 * V, .data = rd.block },
        { .name = "lm_head.0.linear.bias", .k = 2 * V, .data = rd.zero },
        { .name = "lm_head.1.weight", .n = V, .k = 2 * V, .data = rd.out },
    };
    make_head(path, 1, t, 6, NULL);
}

/* e(token) of the cycle is a one-hot at the token, up to a factor (tests/property/cycle_model.h). */
static sb_token embedded_at(sb_token token)
{
    float e[V];
    sb_token best = 0;
    sb_model_embed(cycle.model, e, &token, 1);
    for (sb_token c = 0; c < V; c++)
        best = e[c] > e[best] ? c : best;
    return best;
}

static void redrafter_sees_the_root_first_and_then_its_own_tokens(void **state)
{
    (void)state;
    int at = (int)embedded_at(0); /* of token c: c + at */
    for (int shift = -1; shift <= 1; shift++) {
        memset(&rd, 0, sizeof rd);
        rotate(rd.w, V, 0, 0, 1);
        rotate(rd.out, 2 * V, V, 1 - at + shift, 1); /* of s, the second half of u */
        write_redrafter("rd.safetensors");
        expect_right("redrafter:head=rd.safetensors,beams=1,k=3", shift == 0);
        expect_right("redrafter:head=rd.safetensors,beams=4,k=3", shift == 0);
    }
}

static void redrafter_state_goes_on_from_depth_to_depth(void **state)
{
    (void)state;
    int at = (int)embedded_at(0);
    for (int shift = -1; shift <= 1; shift++) {
        memset(&rd, 0, sizeof rd);
        /* s_1 says the root; below, U moves on what was there, against a weaker token that stands still. */
        rotate(rd.w, V, 0, 0, .2f);
        rotate(rd.u, V, 0, 1, 2);
        rotate(rd.out, 2 * V, V, 1 - at + shift, 1);
        write_redrafter("rd.safetensors");
        expect_right("redrafter:head=rd.safetensors,beams=1,k=3", shift == 0);
    }
}

static void redrafter_reads_the_hidden_state_of_the_token_before_the_root(void **state)
{
    (void)state;
    memset(&rd, 0, sizeof rd);
    rotate(rd.out, 2 * V, 0, 1, 1); /* h says the root: right at depth 1, wrong below */
    write_redrafter("rd.safetensors");
    struct tally t = run("redrafter:head=rd.safetensors,beams=1,k=3");
    assert_int_equal(t.accepted, t.steps);
    assert_int_equal(t.first[0], 7);
}

/* ---- files that are refused ---- */

static void expect_refusal(const char *drafter, enum sb_status want, const char *message)
{
    struct sb_session *s = NULL;
    struct sb_error err = { .message = "" };
    enum sb_status rc = open_drafter(&s, drafter, &err);
    if (rc == SB_OK || strncmp(err.message, message, strlen(message)) != 0)
        fail_msg("got '%s', expected '%s'", rc == SB_OK ? "accepted" : err.message, message);
    assert_int_equal(rc, want);
    assert_null(s);
}

static void unfit_files_are_refused(void **state)
{
    (void)state;
    memset(&mlp, 0, sizeof mlp);
    write_mlp("mlp.safetensors");
    expect_refusal(
        "mlp-speculator:head=mlp.safetensors,tree=2x2x2x2", SB_EUSAGE,
        "drafter mlp-speculator: tree=2x2x2x2: mlp.safetensors drafts at most 3 tokens deep");
    expect_refusal("redrafter:head=mlp.safetensors", SB_EFORMAT,
                   "mlp.safetensors: is no head for redrafter: looked for ");
    write_redrafter("rd.safetensors");
    expect_refusal("mlp-speculator:head=rd.safetensors", SB_EFORMAT,
                   "rd.safetensors: is no head for mlp-speculator: looked for ");
    mkdir("rd", 0777);
    write_redrafter("rd/model.safetensors");
    make_text("rd/config.json", "{\"num_draft_layers\": 3}");
    expect_refusal("redrafter:head=rd", SB_EFORMAT,
                   "rd: config.json says num_draft_layers=3; the tensors make 1");
    mkdir("m", 0777);
    write_mlp("m/model.safetensors");
    make_text("m/config.json", "{\"n_predict\": 3, \"top_k_tokens_per_head\": [5, 0, 1]}");
    expect_refusal("mlp-speculator:head=m", SB_EFORMAT,
                   "m: config.json: top_k_tokens_per_head[1]: expected 1 to 64");
    make_text("m/config.json", "{\"n_predict\": 5}");
    expect_refusal("mlp-speculator:head=m", SB_EFORMAT, "m: tensor 'emb.3.weight' is missing");
    const struct made_tensor wide[] = {
        { .name = "emb.0.weight", .n = V + 1, .k = 4, .scale = 1 },
        { .name = "proj.0.weight", .n = 4, .k = V, .scale = 1 },
        { .name = "head.0.weight", .n = V, .k = 4, .scale = 1 },
        { .name = "ln.0.weight", .k = 4 },
        { .name = "ln.0.bias", .k = 4 },
    };
    make_head("bad.safetensors", 1, wide, 5, NULL);
    expect_refusal("mlp-speculator:head=bad.safetensors", SB_EFORMAT,
                   "bad.safetensors: tensor 'emb.0.weight': found [17, 4], expected [16, 4]");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(its_state_begins_with_the_newest_hidden_state),
        cmocka_unit_test(each_depth_sees_the_token_drafted_before_it),
        cmocka_unit_test(tokens_weigh_as_published),
        cmocka_unit_test(a_wider_search_keeps_the_best_paths),
        cmocka_unit_test(redrafter_sees_the_root_first_and_then_its_own_tokens),
        cmocka_unit_test(redrafter_state_goes_on_from_depth_to_depth),
        cmocka_unit_test(redrafter_reads_the_hidden_state_of_the_token_before_the_root),
        cmocka_unit_test(unfit_files_are_refused),
    };
    return cmocka_run_group_tests(tests, make_models, destroy_models);
}
