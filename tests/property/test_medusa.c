/* Medusa: positions and depths by an oracle, heads written down plainly, and files that must be refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "drafters/head_file.h"
#include "harness/decode/session.h"
#include "tests/property/cycle_model.h"
#include "tests/property/head_maker.h"
#include "tests/property/toy_model.h"

enum { V = CYCLE_VOCAB, STEPS = 10, TOY_V = 24 };

static struct cycle_model cycle;
static struct toy_model toy;

static int make_models(void **state)
{
    (void)state;
    cycle = cycle_model_create();
    toy = toy_model_create(1, 0, TOY_V, 96, -1);
    enter_folder();
    return 0;
}

static int destroy_models(void **state)
{
    (void)state;
    leave_folder();
    toy_model_destroy(&toy);
    cycle_model_destroy(&cycle);
    return 0;
}

/* Accepted of drafted tokens per step on the cycle, over steps that are not cut by the budget. */
struct tally {
    int32_t steps, accepted, drafted;
};

static void count_step(void *self, const struct sb_step *step)
{
    struct tally *tally = self;
    tally->steps++;
    tally->accepted += step->accepted;
    tally->drafted += step->drafted;
}

static enum sb_status open_drafter(struct sb_session **s, struct sb_model *target, const char *text,
                                   struct sb_error *err)
{
    struct sb_spec spec;
    assert_int_equal(sb_spec_parse(&spec, text, NULL), SB_OK);
    enum sb_status rc = sb_session_create(
        s, &(struct sb_session_options){ .target = target, .drafter = &spec }, err);
    sb_spec_finish(&spec);
    return rc;
}

static struct tally run_on_cycle(const char *drafter, size_t n_prompt, size_t budget)
{
    static const sb_token prompt[] = { 3, 4, 5, 6, 7, 8, 9, 10 };
    struct sb_session *s;
    struct sb_error err = { .message = "" };
    struct sb_generation out;
    struct tally tally = { 0 };
    if (open_drafter(&s, cycle.model, drafter, &err) != SB_OK)
        fail_msg("%s: %s", drafter, err.message);
    struct sb_request request = { .prompt = prompt,
                                  .n_prompt = n_prompt,
                                  .max_new_tokens = budget,
                                  .on_step = count_step,
                                  .self = &tally };
    assert_int_equal(sb_session_generate(s, &request, &out, NULL), SB_OK);
    for (size_t i = 0; i < out.tokens.n; i++)
        assert_int_equal(out.tokens.id[i], (prompt[n_prompt - 1] + 1 + (sb_token)i) % V);
    sb_generation_finish(&out);
    sb_session_destroy(s);
    return tally;
}

/* ---- medusa ---- */

enum { N_HEADS = 3 };

/* Output layers that say component + j + 1 + shift; blocks that change nothing. */
static void make_cycle_medusa(const char *path, int shift)
{
    static float out[N_HEADS][V * V], zero[V * V];
    struct made_tensor t[3 * N_HEADS];
    char name[3 * N_HEADS][32];
    memset(out, 0, sizeof out);
    for (int i = 0; i < N_HEADS; i++) {
        for (int c = 0; c < V; c++)
            out[i][(c + i + 1 + shift + V) % V * V + c] = 1;
        snprintf(name[3 * i], 32, "%d.0.linear.weight", i);
        snprintf(name[3 * i + 1], 32, "%d.0.linear.bias", i);
        snprintf(name[3 * i + 2], 32, "%d.1.weight", i);
        t[3 * i] = (struct made_tensor){ .name = name[3 * i], .n = V, .k = V, .data = zero };
        t[3 * i + 1] = (struct made_tensor){ .name = name[3 * i + 1], .k = V, .data = zero };
        t[3 * i + 2] =
            (struct made_tensor){ .name = name[3 * i + 2], .n = V, .k = V, .data = out[i] };
    }
    make_head(path, 1, t, 3 * N_HEADS, NULL);
}

static void a_medusa_head_guesses_the_depth_it_is_for(void **state)
{
    (void)state;
    for (int shift = -2; shift <= 2; shift++) {
        make_cycle_medusa("cycle.safetensors", shift);
        for (size_t n_prompt = 1; n_prompt < 6; n_prompt += 2) {
            /* The prefill's token, then steps of 3 drafts and a bonus. */
            struct tally chain =
                run_on_cycle("medusa:head=cycle.safetensors,tree=1x1x1", n_prompt, 1 + 4 * STEPS);
            assert_int_equal(chain.steps, shift == 0 ? STEPS : 4 * STEPS);
            assert_true(chain.drafted >= 3 * STEPS);
            assert_int_equal(chain.accepted, shift == 0 ? 3 * STEPS : 0);
        }
    }
}

/* The k-th best of x[n], the smaller index on ties. */
static sb_token best_of(const double *x, size_t n, int32_t rank)
{
    for (size_t i = 0; i < n; i++) {
        int32_t before = 0;
        for (size_t j = 0; j < n; j++)
            before += x[j] > x[i] || (x[j] == x[i] && j < i);
        if (before == rank)
            return (sb_token)i;
    }
    return -1;
}

static void draft_once(const char *text, const float *hidden, size_t n, struct sb_tree *tree)
{
    struct sb_spec spec;
    struct sb_error err = { .message = "" };
    int64_t k = 0;
    const sb_token committed[8] = { 1, 2, 3, 4, 5, 6, 7, 8 };
    const float *const taps[] = { hidden };
    const struct sb_policy policy = { .ops = sb_policy_find("constant"), .params = &k };
    struct sb_tap_plan plan = { .n_layers = 2 };
    assert_int_equal(sb_spec_parse(&spec, text, NULL), SB_OK);
    const struct sb_drafter_ops *ops = sb_drafter_find(spec.name);
    void *st = calloc(1, ops->state_size), *params = calloc(1, ops->params_size);
    assert_int_equal(sb_params_apply(params, ops->params, &spec, "it", NULL), SB_OK);
    const struct sb_drafter_env env = { .target = toy.model,
                                        .max_context = 96,
                                        .n_vocab = TOY_V,
                                        .params = params,
                                        .policy = &policy,
                                        .taps = &plan };
    if (ops->open(st, &env, &err) != SB_OK)
        fail_msg("%s: %s", text, err.message);
    const struct sb_context ctx = {
        .tokens = committed, .n = n, .n_prompt = 1, .policy = &policy, .taps = taps
    };
    sb_tree_reset(tree, committed[n - 1], 16);
    assert_int_equal(ops->propose(st, &ctx, tree, NULL), SB_OK);
    ops->close(st);
    free(st);
    free(params);
    sb_spec_finish(&spec);
}

static void multiply(const struct sb_head_file *file, double *y, const double *x, size_t n,
                     const char *stem)
{
    struct sb_tensor w, b = { .data = NULL };
    char name[80];
    snprintf(name, sizeof name, "%s.bias", stem);
    assert_int_equal(sb_head_matrix(file, &w, n, 16, NULL, "%s.weight", stem), SB_OK);
    if (sb_head_find(file, "%s", name))
        assert_int_equal(sb_head_vector(file, &b, n, NULL, "%s", name), SB_OK);
    for (size_t i = 0; i < n; i++) {
        y[i] = b.data ? (double)((const float *)b.data)[i] : 0;
        for (size_t c = 0; c < 16; c++)
            y[i] += (double)((const float *)w.data)[i * 16 + c] * x[c];
    }
}

/* A stem with the head's number for '#'. */
static void number(char out[64], const char *stem, size_t head)
{
    const char *at = strchr(stem, '#');
    snprintf(out, 64, "%.*s%zu%s", (int)(at - stem), stem, head, at + 1);
}

/* Every head written down plainly, for three layouts: stems of blocks and output layers. */
static void drafts_are_what_medusas_heads_say(void **state)
{
    (void)state;
    static const struct {
        const char *file, *block[2], *out;
        size_t n_heads, n_draft;
    } cases[] = {
        { "medusa.safetensors", { "#.0.linear", "#.1.linear" }, "#.2", 3, TOY_V },
        { "medusa-shared.safetensors", { "#.0.linear", NULL }, NULL, 4, TOY_V },
        { "medusa-vllm.safetensors", { "blocks.#.layers.0", NULL }, "lm_heads.#", 2, TOY_V - 5 },
    };
    float hidden[7 * 16];
    struct sb_tree tree;
    make_medusa_heads(16, TOY_V);
    for (int i = 0; i < 7 * 16; i++)
        hidden[i] = sinf((float)(i * i));
    assert_int_equal(sb_tree_create(&tree, 64, NULL), SB_OK);
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        struct sb_head_file file;
        char text[96], stem[64];
        const struct sb_head_request request = { "medusa", cases[c].file, NULL, toy.model };
        assert_int_equal(sb_head_open(&file, &request, NULL), SB_OK);
        snprintf(text, sizeof text, "medusa:head=%s", cases[c].file);
        for (size_t n = 2; n < 9; n += 3) {
            draft_once(text, hidden, n, &tree);
            assert_true(sb_tree_depth(&tree) == (int32_t)cases[c].n_heads && tree.n > 20);
            for (size_t head = 0; head < cases[c].n_heads; head++) {
                double x[16], y[16], logits[TOY_V];
                for (size_t i = 0; i < 16; i++)
                    x[i] = (double)hidden[(n - 2) * 16 + i];
                for (int b = 0; b < 2 && cases[c].block[b]; b++) {
                    number(stem, cases[c].block[b], head);
                    multiply(&file, y, x, 16, stem);
                    for (size_t i = 0; i < 16; i++)
                        x[i] += y[i] / (1 + exp(-y[i]));
                }
                const struct sb_tensor *shared = &sb_model_weights(toy.model)->lm_head;
                if (cases[c].out) {
                    number(stem, cases[c].out, head);
                    multiply(&file, logits, x, cases[c].n_draft, stem);
                } else {
                    for (size_t t = 0; t < TOY_V; t++) {
                        logits[t] = 0;
                        for (size_t i = 0; i < 16; i++)
                            logits[t] += (double)((const float *)shared->data)[t * 16 + i] * x[i];
                    }
                }
                for (int32_t i = 1; i < tree.n; i++) {
                    sb_token want = best_of(logits, cases[c].n_draft, tree.node[i].rank);
                    if (tree.node[i].depth == (int32_t)head + 1) /* vLLM's map turns ids around */
                        assert_int_equal(tree.node[i].token,
                                         cases[c].n_draft < TOY_V ? TOY_V - 1 - want : want);
                }
            }
        }
        sb_head_close(&file);
    }
    draft_once("medusa:head=medusa.safetensors", hidden, 1, &tree);
    assert_int_equal(tree.n, 1); /* no state is there yet */
    sb_tree_finish(&tree);
}

/* ---- files that are refused ---- */

enum { D = 16 };

/* Heads for the toy: two of one block each, with an output layer of their own. */
static const struct made_tensor sound[] = {
    { .name = "0.0.linear.weight", .n = D, .k = D, .scale = .3 },
    { .name = "0.0.linear.bias", .k = D, .scale = .3 },
    { .name = "0.1.weight", .n = TOY_V, .k = D, .scale = .3 },
    { .name = "1.0.linear.weight", .n = D, .k = D, .scale = .3 },
    { .name = "1.0.linear.bias", .k = D, .scale = .3 },
    { .name = "1.1.weight", .n = TOY_V, .k = D, .scale = .3 },
};
enum { N_SOUND = sizeof sound / sizeof *sound };

static void expect_refusal(const char *drafter, enum sb_status want, const char *message)
{
    struct sb_session *s = NULL;
    struct sb_error err = { .message = "" };
    enum sb_status rc = open_drafter(&s, toy.model, drafter, &err);
    if (rc == SB_OK || strncmp(err.message, message, strlen(message)) != 0)
        fail_msg("got '%s', expected '%s'", rc == SB_OK ? "accepted" : err.message, message);
    assert_int_equal(rc, want);
    assert_null(s);
}

/* The sound file with one tensor replaced, or left out (name NULL). */
static void make_changed(size_t index, struct made_tensor by, const char *hash)
{
    struct made_tensor t[N_SOUND];
    size_t n = 0;
    for (size_t i = 0; i < N_SOUND; i++)
        if (i != index || by.name)
            t[n++] = i == index ? by : sound[i];
    make_head("bad.safetensors", 1, t, n, hash);
}

static void heads_with_wrong_tensors_are_refused_by_name_and_shape(void **state)
{
    (void)state;
    static const char drafter[] = "medusa:head=bad.safetensors";
    const struct made_tensor none = { .name = NULL };
    make_changed(N_SOUND, none, NULL);
    struct sb_session *s = NULL;
    assert_int_equal(open_drafter(&s, toy.model, drafter, NULL), SB_OK);
    sb_session_destroy(s);
    for (size_t i = 0; i < N_SOUND; i++) {
        char message[96];
        make_changed(i, none, NULL);
        snprintf(message, sizeof message, "bad.safetensors: tensor '%s' is missing; expected [",
                 sound[i].name);
        expect_refusal(drafter, SB_EFORMAT, message);
    }
    make_changed(0, (struct made_tensor){ .name = sound[0].name, .n = D, .k = D + 1, .scale = 1 },
                 NULL);
    expect_refusal(
        drafter, SB_EFORMAT,
        "bad.safetensors: tensor '0.0.linear.weight': found [16, 17], expected [16, 16]");
    make_changed(1, (struct made_tensor){ .name = sound[1].name, .n = D, .k = 1, .scale = 1 },
                 NULL);
    expect_refusal(drafter, SB_EFORMAT,
                   "bad.safetensors: tensor '0.0.linear.bias': found [16, 1], expected [16]");
    make_changed(5, (struct made_tensor){ .name = sound[5].name, .n = 9, .k = D, .scale = 1 },
                 NULL);
    expect_refusal(drafter, SB_EFORMAT,
                   "bad.safetensors: tensor '1.1.weight': found [9, 16], expected [24, 16]");
    const int64_t ids[D] = { 0 };
    make_changed(4, (struct made_tensor){ .name = sound[4].name, .k = D, .ids = ids }, NULL);
    expect_refusal(drafter, SB_EUNSUPPORTED,
                   "bad.safetensors: tensor '1.0.linear.bias' is i64; specbench computes with");
}

static void heads_of_another_target_or_kind_are_refused(void **state)
{
    (void)state;
    char hash[17];
    snprintf(hash, sizeof hash, "%016llx",
             (unsigned long long)sb_model_weights(toy.model)->content_hash);
    make_head("bad.safetensors", 1, sound, N_SOUND, hash);
    struct sb_session *s = NULL;
    assert_int_equal(open_drafter(&s, toy.model, "medusa:head=bad.safetensors", NULL), SB_OK);
    sb_session_destroy(s);
    make_head("bad.safetensors", 1, sound, N_SOUND, "00000000000000aa");
    expect_refusal("medusa:head=bad.safetensors", SB_EUSAGE,
                   "bad.safetensors: was made for the target with hash 00000000000000aa; ");
    const struct made_tensor other = { .name = "rnn_u.weight", .n = D, .k = D, .scale = 1 };
    make_head("bad.safetensors", 1, &other, 1, NULL);
    expect_refusal("medusa:head=bad.safetensors", SB_EFORMAT,
                   "bad.safetensors: is no head for medusa: looked for 0.0.linear.weight and "
                   "blocks.0.layers.0.weight; its tensors are those of redrafter heads");
    expect_refusal("medusa:head=nowhere", SB_EINPUT, "draft head 'nowhere': no such file");
    expect_refusal("medusa", SB_EUSAGE, "drafter medusa needs head=...: no bundled head ");
    make_head("bad.safetensors", 1, sound, N_SOUND, NULL);
    expect_refusal("medusa:head=bad.safetensors,heads=3", SB_EUSAGE,
                   "drafter medusa: heads=3: bad.safetensors has 2");
    expect_refusal("medusa:head=bad.safetensors,tree=9x9x9x9", SB_EUSAGE,
                   "drafter medusa: tree=9x9x9x9: expected mc_sim_7b_63, ");
    expect_refusal("medusa:head=bad.safetensors,tree=@none.json", SB_EINPUT,
                   "drafter medusa: tree: none.json: ");
    make_text("tree.json", "[[0],[0,1],[2,0]]");
    expect_refusal(
        "medusa:head=bad.safetensors,tree=@tree.json", SB_EFORMAT,
        "drafter medusa: tree: tree.json: the path [2, 0] is there without its beginning");
}

/* A file cut short anywhere is refused, and in one line. */
static void truncated_heads_are_refused(void **state)
{
    (void)state;
    static unsigned char bytes[1 << 16];
    make_head("sound.safetensors", 1, sound, N_SOUND, NULL);
    FILE *f = fopen("sound.safetensors", "rb");
    size_t size = fread(bytes, 1, sizeof bytes, f);
    fclose(f);
    for (size_t n = 1; n < size; n += 1 + n / 7) {
        f = fopen("bad.safetensors", "wb");
        assert_int_equal(fwrite(bytes, 1, n, f), n);
        fclose(f);
        expect_refusal("medusa:head=bad.safetensors", SB_EFORMAT, "bad.safetensors: ");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_medusa_head_guesses_the_depth_it_is_for),
        cmocka_unit_test(drafts_are_what_medusas_heads_say),
        cmocka_unit_test(heads_with_wrong_tensors_are_refused_by_name_and_shape),
        cmocka_unit_test(heads_of_another_target_or_kind_are_refused),
        cmocka_unit_test(truncated_heads_are_refused),
    };
    return cmocka_run_group_tests(tests, make_models, destroy_models);
}
