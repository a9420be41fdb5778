/* The decoding loop: every drafter against plain decoding, in every token and in how it ends. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness/core/alloc.h"
#include "kernels/kernels.h"
#include "tests/property/session_rig.h"

static bool runs(const char *variant, const char *name)
{
    size_t n = strlen(name);
    return strncmp(variant, name, n) == 0 && (variant[n] == ':' || variant[n] == '\0');
}

/* Plain greedy decoding without any of the loop: one row at a time. */
static struct sb_generation decode_plainly(const sb_token *prompt, size_t n_prompt, size_t budget,
                                           size_t context, bool ignore_eos)
{
    struct sb_generation out = { .finish = SB_FINISH_LENGTH };
    struct sb_seq *seq;
    assert_int_equal(sb_seq_create(&seq, target.model, CONTEXT, 8, NULL), SB_OK);
    size_t row;
    assert_int_equal(sb_seq_prefill(seq, prompt, n_prompt, NULL, 0, &row, NULL), SB_OK);
    while (out.tokens.n < budget) {
        if (n_prompt + out.tokens.n >= context) {
            out.finish = SB_FINISH_CONTEXT;
            break;
        }
        sb_token token = (sb_token)sb_argmax(sb_seq_logits(seq, row), V);
        assert_int_equal(sb_tokens_push(&out.tokens, &token, 1, NULL), SB_OK);
        if (token == EOS && !ignore_eos) {
            out.finish = SB_FINISH_EOS;
            break;
        }
        if (n_prompt + out.tokens.n < CONTEXT)
            assert_int_equal(sb_seq_prefill(seq, &token, 1, NULL, 0, &row, NULL), SB_OK);
    }
    sb_seq_destroy(seq);
    return out;
}

static void assert_same(const struct sb_generation *a, const struct sb_generation *b,
                        const char *what)
{
    bool same = a->tokens.n == b->tokens.n && a->finish == b->finish;
    for (size_t i = 0; same && i < a->tokens.n; i++)
        same = a->tokens.id[i] == b->tokens.id[i];
    if (!same)
        fail_msg("%s: %zu tokens (%s), expected %zu (%s)", what, a->tokens.n,
                 sb_finish_name(a->finish), b->tokens.n, sb_finish_name(b->finish));
}

static void every_drafter_equals_plain_greedy_decoding(void **state)
{
    (void)state;
    static const struct {
        size_t budget, context;
        bool ignore_eos;
    } limits[] = { { 40, CONTEXT, true },
                   { 40, CONTEXT, false },
                   { 200, CONTEXT, true },
                   { 60, 41, true },
                   { 7, CONTEXT, true } };
    size_t covered = 0;
    for (size_t d = 0; sb_drafters[d]; d++) {
        bool listed = false;
        for (size_t v = 0; v < n_variants + 1; v++) {
            if (v < n_variants ? !runs(variants[v], sb_drafters[d]->name) : listed)
                continue;
            listed = true;
            const char *drafter = v < n_variants ? variants[v] : sb_drafters[d]->name;
            for (size_t l = 0; l < 5; l++) {
                struct sb_session *s = opened((struct setup){ .drafter = drafter,
                                                              .max_context = limits[l].context,
                                                              .ignore_eos = limits[l].ignore_eos });
                for (size_t p = 0; p < N_PROMPTS; p++) { /* one session serves them all */
                    struct sb_generation got =
                        generate(s, prompts[p].id, prompts[p].n, limits[l].budget, NULL);
                    struct sb_generation want =
                        decode_plainly(prompts[p].id, prompts[p].n, limits[l].budget,
                                       limits[l].context, limits[l].ignore_eos);
                    assert_same(&got, &want, drafter);
                    sb_generation_finish(&got);
                    sb_generation_finish(&want);
                    covered++;
                }
                sb_session_destroy(s);
            }
        }
    }
    assert_true(covered >= n_variants * N_PROMPTS * 5);
}

static void every_verifier_and_policy_equals_plain_greedy_decoding(void **state)
{
    (void)state;
    struct sb_generation want = decode_plainly(prompts[2].id, prompts[2].n, 50, CONTEXT, true);
    for (size_t v = 0; v < n_variants; v++) {
        for (size_t i = 0; sb_verifiers[i]; i++) {
            for (size_t p = 0; sb_policies[p]; p++) {
                struct sb_session *s;
                struct sb_error err;
                struct setup setup = { .drafter = variants[v],
                                       .verifier = sb_verifiers[i]->name,
                                       .policy = sb_policies[p]->name,
                                       .ignore_eos = true };
                enum sb_status rc = open_session(&s, setup, &err);
                if (rc == SB_EUSAGE && strstr(err.message, "lawful here"))
                    continue;
                assert_int_equal(rc, SB_OK);
                if (sb_session_guarantee(s) != SB_LOSSY) {
                    struct sb_generation got = generate(s, prompts[2].id, prompts[2].n, 50, NULL);
                    assert_same(&got, &want, variants[v]);
                    sb_generation_finish(&got);
                }
                sb_session_destroy(s);
            }
        }
    }
    sb_generation_finish(&want);
}

/* What the drafter's table says of its trees. */
static unsigned kinds_of(const char *drafter, const struct sb_sampling *sampling)
{
    struct sb_spec spec;
    assert_int_equal(sb_spec_parse(&spec, drafter, NULL), SB_OK);
    const struct sb_drafter_ops *ops = sb_drafter_find(spec.name);
    void *params = sb_alloc_zero(1, ops->params_size + 1);
    assert_int_equal(sb_params_apply(params, ops->params, &spec, "it", NULL), SB_OK);
    unsigned kinds = ops->kinds ? ops->kinds(params, sampling)
                     : sampling->temperature > 0 && ops->kinds_sampling ? ops->kinds_sampling
                                                                        : ops->kinds_greedy;
    sb_free(params);
    sb_spec_finish(&spec);
    return kinds;
}

/* What a table says of kinds decides which pairs are lawful: trees keep to it, at any temperature. */
static void every_lawful_pair_decodes_trees_of_the_kinds_it_was_let_in_for(void **state)
{
    (void)state;
    static const struct sb_sampling settings[] = { { 0 }, { .temperature = 1 } };
    for (size_t v = 0; v < n_variants; v++) {
        for (size_t t = 0; t < 2; t++) {
            size_t pairs = 0;
            for (size_t i = 0; sb_verifiers[i]; i++) {
                struct sb_session *s;
                struct sb_error err;
                struct setup setup = { .drafter = variants[v],
                                       .verifier = sb_verifiers[i]->name,
                                       .sampling = settings[t],
                                       .ignore_eos = true };
                enum sb_status rc = open_session(&s, setup, &err);
                if (rc == SB_EUSAGE && strstr(err.message, "lawful here"))
                    continue;
                assert_int_equal(rc, SB_OK);
                struct watch w = { .kinds = SB_KIND_BIT(SB_DRAW_NONE) |
                                            kinds_of(variants[v], &settings[t]) };
                assert_false(w.kinds & ~(sb_verifiers[i]->kinds | SB_KIND_BIT(SB_DRAW_NONE)));
                struct sb_generation got = generate(s, prompts[2].id, prompts[2].n, 40, &w);
                assert_int_equal(got.tokens.n, 40);
                sb_generation_finish(&got);
                sb_session_destroy(s);
                pairs++;
            }
            assert_true(pairs >= 1);
        }
    }
}

/* Draws belong to positions: some verifiers write the same text whatever was drafted. */
static void sampled_text_does_not_depend_on_the_drafter(const char *verifier)
{
    static const struct sb_sampling settings[] = {
        { .temperature = .8 }, { .temperature = 1.3, .top_k = 9, .top_p = .9 }
    };
    for (size_t t = 0; t < 2; t++) {
        struct sb_generation want[N_PROMPTS];
        for (size_t v = 0; v < n_variants; v++) {
            struct sb_session *s = opened((struct setup){ .drafter = variants[v],
                                                          .verifier = verifier,
                                                          .sampling = settings[t],
                                                          .ignore_eos = t == 0 });
            for (size_t p = 0; p < N_PROMPTS; p++) {
                struct sb_generation got = generate(s, prompts[p].id, prompts[p].n, 60, NULL);
                if (v == 0) {
                    want[p] = got;
                    continue;
                }
                assert_same(&got, &want[p], variants[v]);
                sb_generation_finish(&got);
            }
            sb_session_destroy(s);
        }
        for (size_t p = 0; p < N_PROMPTS; p++)
            sb_generation_finish(&want[p]);
    }
}

static void sampled_text_of_naive_sample_does_not_depend_on_the_drafter(void **state)
{
    (void)state;
    sampled_text_does_not_depend_on_the_drafter("naive-sample");
}

static void sampled_text_of_gumbel_coupled_does_not_depend_on_the_drafter(void **state)
{
    (void)state;
    sampled_text_does_not_depend_on_the_drafter("gumbel-coupled");
}

/* Drafted tokens by position, and how often one that was thrown away is drafted there again. */
struct redrawn {
    sb_token last[CONTEXT + MOST];
    int again, same;
};

static void watch_drafts(void *self, const struct sb_step *step)
{
    struct redrawn *r = self;
    for (int32_t i = 1; i < step->tree->n; i++) {
        const struct sb_node *node = &step->tree->node[i];
        int32_t position = step->context + node->depth - 1;
        r->again += r->last[position] >= 0;
        r->same += r->last[position] == node->token;
        r->last[position] = node->token;
    }
}

static double share_drawn_again(const char *verifier)
{
    struct redrawn r = { .again = 0 };
    struct sb_session *s = opened((struct setup){ .drafter = "small-lm:model=far,k=6",
                                                  .verifier = verifier,
                                                  .sampling.temperature = 5,
                                                  .ignore_eos = true });
    for (uint64_t key = 0; key < 20; key++) {
        struct sb_generation out;
        struct sb_request request = { .prompt = prompts[2].id,
                                      .n_prompt = prompts[2].n,
                                      .max_new_tokens = 50,
                                      .rng_key = key,
                                      .on_step = watch_drafts,
                                      .self = &r };
        memset(r.last, -1, sizeof r.last);
        assert_int_equal(sb_session_generate(s, &request, &out, NULL), SB_OK);
        sb_generation_finish(&out);
    }
    sb_session_destroy(s);
    assert_true(r.again > 200);
    return (double)r.same / r.again;
}

/* From nearly flat rows one number draws nearly one token. Numbers of a draft that was thrown away must
 * not come back: a rule that goes from the leaves up has read them. */
static void draft_numbers_never_come_back(void **state)
{
    (void)state;
    assert_true(share_drawn_again("rejection") < .3);
    assert_true(share_drawn_again("block") < .3);
    assert_true(share_drawn_again("traversal") < .3);
}

static void a_drafter_that_is_the_target_is_always_accepted(void **state)
{
    (void)state;
    static const double temperatures[] = { 0, .8, 2 };
    for (size_t t = 0; t < 3; t++) {
        for (int k = 1; k <= 5; k += 2) {
            char *drafter = sb_strf("small-lm:model=same,k=%d", k);
            struct sb_session *s = opened((struct setup){
                .drafter = drafter, .sampling.temperature = temperatures[t], .ignore_eos = true });
            assert_int_equal(sb_session_guarantee(s), t ? SB_DISTRIBUTION_EXACT : SB_GREEDY_EXACT);
            struct watch w = { 0 };
            size_t budget = 1 + 10 * (size_t)(k + 1); /* the prefill's token, then full steps */
            struct sb_generation out = generate(s, prompts[2].id, prompts[2].n, budget, &w);
            assert_int_equal(out.drafted, 10 * k);
            assert_int_equal(out.accepted, out.drafted);
            assert_int_equal(out.step_tokens, out.steps * (k + 1)); /* MAT = k + 1 */
            sb_generation_finish(&out);
            sb_session_destroy(s);
            sb_free(drafter);
        }
    }
}

/* Lengths of the first drafts. */
struct lengths {
    int32_t n[8], accepted[8], steps;
};

static void watch_lengths(void *self, const struct sb_step *step)
{
    struct lengths *l = self;
    if (l->steps == 8)
        return;
    l->accepted[l->steps] = step->accepted;
    l->n[l->steps++] = step->drafted;
}

static struct lengths lengths_of(struct sb_session *s)
{
    struct lengths l = { .steps = 0 };
    struct sb_generation out;
    struct sb_request request = { .prompt = prompts[2].id,
                                  .n_prompt = prompts[2].n,
                                  .max_new_tokens = 60,
                                  .on_step = watch_lengths,
                                  .self = &l };
    assert_int_equal(sb_session_generate(s, &request, &out, NULL), SB_OK);
    sb_generation_finish(&out);
    return l;
}

static void expect_lengths(struct sb_session *s, const int32_t *want, int32_t n)
{
    struct lengths l = lengths_of(s);
    assert_true(l.steps >= n);
    for (int32_t i = 0; i < n; i++)
        assert_int_equal(l.n[i], want[i]);
}

static void policies_learn_from_every_step_and_forget_with_the_prompt(void **state)
{
    (void)state;
    static const int32_t from_5[] = { 5, 7, 9, 11 }, from_17[] = { 17, 19 }, tree[] = { 2, 6, 6 };
    struct sb_session *s = opened((struct setup){
        .drafter = "small-lm:model=same", .policy = "heuristic", .ignore_eos = true });
    expect_lengths(s, from_5, 4);
    expect_lengths(s, from_5, 4);
    sb_session_destroy(s);
    s = opened((struct setup){
        .drafter = "small-lm:model=same", .policy = "heuristic:scope=run", .ignore_eos = true });
    expect_lengths(s, from_5, 4); /* 13, and 15 cut by the budget */
    expect_lengths(s, from_17, 2);
    sb_session_destroy(s);
    s = opened(
        (struct setup){ .drafter = "jacobi", .policy = "heuristic:start=3", .ignore_eos = true });
    struct lengths l = lengths_of(s);
    int32_t k = 3, misses = 0;
    for (int32_t i = 0; i < 8; i++) {
        bool miss = l.accepted[i] < l.n[i];
        assert_int_equal(l.n[i], k);
        k = miss ? (k > 1 ? k - 1 : 1) : k + 2;
        misses += miss;
    }
    assert_true(misses > 0 && misses < 8);
    sb_session_destroy(s);
    /* A tree is accepted whole when its path is: one level, then all. */
    s = opened((struct setup){ .drafter = "small-lm:model=same,tree=2x2",
                               .policy = "heuristic:start=1",
                               .ignore_eos = true });
    expect_lengths(s, tree, 3);
    sb_session_destroy(s);
}

static void sampling_is_repeatable_and_follows_its_key(void **state)
{
    (void)state;
    struct setup setup = { .drafter = "small-lm:model=near",
                           .sampling.temperature = 1,
                           .ignore_eos = true };
    struct sb_session *a = opened(setup), *b = opened(setup);
    struct sb_generation warm = generate(b, prompts[3].id, prompts[3].n, 30, NULL);
    struct sb_generation x = generate(a, prompts[2].id, prompts[2].n, 50, NULL);
    struct sb_generation y = generate(b, prompts[2].id, prompts[2].n, 50, NULL);
    assert_same(&x, &y, "a session that has served another prompt");
    struct sb_generation z;
    assert_int_equal(sb_session_generate(a,
                                         &(struct sb_request){ .prompt = prompts[2].id,
                                                               .n_prompt = prompts[2].n,
                                                               .max_new_tokens = 50,
                                                               .rng_key = 6 },
                                         &z, NULL),
                     SB_OK);
    assert_memory_not_equal(x.tokens.id, z.tokens.id, 50 * sizeof(sb_token));
    struct sb_generation *all[] = { &warm, &x, &y, &z };
    for (size_t i = 0; i < 4; i++)
        sb_generation_finish(all[i]);
    sb_session_destroy(a);
    sb_session_destroy(b);
}

static void budgets_of_zero_and_one_take_no_step(void **state)
{
    (void)state;
    for (size_t v = 0; v < n_variants; v++) {
        struct sb_session *s = opened((struct setup){ .drafter = variants[v], .ignore_eos = true });
        for (size_t budget = 0; budget < 2; budget++) {
            struct sb_generation out = generate(s, prompts[2].id, prompts[2].n, budget, NULL);
            assert_int_equal(out.tokens.n, budget);
            assert_int_equal(out.steps, 0);
            assert_int_equal(out.finish, SB_FINISH_LENGTH);
            sb_generation_finish(&out);
        }
        sb_session_destroy(s);
    }
}

static void a_full_context_ends_the_generation(void **state)
{
    (void)state;
    sb_token prompt[CONTEXT + 1];
    for (int i = 0; i <= CONTEXT; i++)
        prompt[i] = i % V;
    for (size_t v = 0; v < n_variants; v++) {
        struct sb_session *s = opened((struct setup){ .drafter = variants[v], .ignore_eos = true });
        for (size_t left = 0; left < 4; left++) {
            struct sb_generation out = generate(s, prompt, CONTEXT - left, 20, NULL);
            assert_int_equal(out.tokens.n, left);
            assert_int_equal(out.finish, SB_FINISH_CONTEXT);
            sb_generation_finish(&out);
        }
        struct sb_generation out;
        struct sb_error err;
        struct sb_request request = { .prompt = prompt,
                                      .n_prompt = CONTEXT + 1,
                                      .max_new_tokens = 4 };
        assert_int_equal(sb_session_generate(s, &request, &out, &err), SB_EUSAGE);
        assert_string_equal(err.message, "the prompt has 97 tokens, the context holds 96");
        sb_session_destroy(s);
    }
}

static void a_stop_flag_ends_between_steps_and_keeps_the_tokens(void **state)
{
    (void)state;
    struct sb_session *s = opened((struct setup){ .drafter = "pld", .ignore_eos = true });
    struct watch w = { .stop_after = 3 };
    struct sb_generation out = generate(s, prompts[2].id, prompts[2].n, 60, &w);
    assert_int_equal(out.finish, SB_FINISH_STOPPED);
    assert_int_equal(out.steps, 3);
    sb_generation_finish(&out);
    sb_session_destroy(s);
}

/* Draft trees of one generation, to be drafted again from nothing. */
struct record {
    struct watch w;
    struct sb_node node[64 * 40];
    int32_t from[64], n[64], context[64], steps;
};

static void record_step(void *self, const struct sb_step *step)
{
    struct record *r = self;
    int32_t at = r->steps ? r->from[r->steps - 1] + r->n[r->steps - 1] : 0;
    assert_true(r->steps < 64 && at + step->tree->n <= 64 * 40);
    memcpy(r->node + at, step->tree->node, (size_t)step->tree->n * sizeof *r->node);
    r->from[r->steps] = at;
    r->n[r->steps] = step->tree->n;
    r->context[r->steps++] = step->context;
}

/* Is `token` the rank-th best after text[0..n)? */
static void assert_is_drafted(const struct sb_model *model, const sb_token *text, size_t n,
                              sb_token token, int32_t rank)
{
    struct sb_seq *seq;
    size_t row;
    assert_int_equal(sb_seq_create(&seq, (struct sb_model *)model, CONTEXT, CONTEXT, NULL), SB_OK);
    assert_int_equal(sb_seq_prefill(seq, text, n, NULL, 0, &row, NULL), SB_OK);
    const float *logits = sb_seq_logits(seq, row);
    int32_t better = 0;
    for (sb_token t = 0; t < V; t++)
        better += logits[t] > logits[token] || (logits[t] == logits[token] && t < token);
    assert_int_equal(better, rank);
    sb_seq_destroy(seq);
}

/* The draft model's cache survives rejections, bonuses and trees: each draft is what the model says
 * after the committed text, computed from nothing. */
static void drafts_do_not_depend_on_what_the_drafter_kept(void **state)
{
    (void)state;
    static const char *const specs[] = { "small-lm:model=near,k=4",
                                         "small-lm:model=near,tree=3x2x2",
                                         "small-lm:model=near,tree=1x1x2x1x2" };
    for (size_t i = 0; i < 3; i++) {
        static struct record r;
        struct sb_generation out;
        sb_token text[CONTEXT];
        memset(&r, 0, sizeof r);
        struct sb_session *s = opened((struct setup){ .drafter = specs[i], .ignore_eos = true });
        struct sb_request request = { .prompt = prompts[2].id,
                                      .n_prompt = prompts[2].n,
                                      .max_new_tokens = 50,
                                      .on_step = record_step,
                                      .self = &r };
        assert_int_equal(sb_session_generate(s, &request, &out, NULL), SB_OK);
        assert_true(out.accepted > 0 && out.accepted < out.drafted);
        for (int32_t step = 0; step < r.steps; step++) {
            const struct sb_node *node = r.node + r.from[step];
            size_t n_context = (size_t)r.context[step];
            memcpy(text, prompts[2].id, prompts[2].n * sizeof *text);
            memcpy(text + prompts[2].n, out.tokens.id, (n_context - prompts[2].n) * sizeof *text);
            for (int32_t j = 1; j < r.n[step]; j++) {
                size_t depth = (size_t)node[j].depth;
                for (int32_t at = node[j].parent; at > 0; at = node[at].parent)
                    text[n_context + (size_t)node[at].depth - 1] = node[at].token;
                assert_is_drafted(near.model, text, n_context + depth - 1, node[j].token,
                                  node[j].rank);
            }
        }
        sb_generation_finish(&out);
        sb_session_destroy(s);
    }
}

/* ---- the golden models ---- */

/* The loader's answer is always the model under test: drafter = target. */
static enum sb_status load_itself(void *loader, const char *name, struct sb_model **model,
                                  const struct sb_tokenizer **tokenizer, struct sb_error *err)
{
    *model = loader;
    *tokenizer = NULL;
    return SB_OK;
}

static struct sb_generation generate_with(struct sb_model *model, const char *drafter,
                                          const struct prompt *prompt)
{
    struct sb_spec spec;
    struct sb_session *s;
    struct sb_generation out;
    struct sb_error err = { .message = "" };
    assert_int_equal(sb_spec_parse(&spec, drafter, NULL), SB_OK);
    struct sb_session_options options = { .target = model,
                                          .drafter = &spec,
                                          .ignore_eos = true,
                                          .load_model = load_itself,
                                          .loader = model };
    if (sb_session_create(&s, &options, &err) != SB_OK)
        fail_msg("%s: %s", drafter, err.message);
    struct sb_request request = { .prompt = prompt->id,
                                  .n_prompt = prompt->n,
                                  .max_new_tokens = 26 };
    if (sb_session_generate(s, &request, &out, &err) != SB_OK)
        fail_msg("%s: %s", drafter, err.message);
    sb_session_destroy(s);
    sb_spec_finish(&spec);
    return out;
}

static void run_golden_model(const char *path)
{
    static const char *const drafters[] = { "pld", "small-lm:model=x,tree=2x2x1",
                                            "small-lm:model=x,k=4" };
    struct sb_model *model;
    struct sb_error err = { .message = "" };
    if (sb_model_load(&model, path, &err) != SB_OK)
        fail_msg("%s", err.message);
    for (size_t p = 0; p < N_PROMPTS; p++) {
        struct sb_generation want = generate_with(model, "none", &prompts[p]);
        assert_int_equal(want.tokens.n, 26);
        for (size_t d = 0; d < 3; d++) {
            struct sb_generation got = generate_with(model, drafters[d], &prompts[p]);
            assert_same(&got, &want, path);
            if (d == 2) /* 1 + 5 steps of 4 + 1 */
                assert_int_equal(got.accepted, 20);
            sb_generation_finish(&got);
        }
        sb_generation_finish(&want);
    }
    sb_model_destroy(model);
}

static void golden_models_decode_alike_with_every_drafter(void **state)
{
    (void)state;
    const char *tests = getenv("SB_TEST_DIR");
    char *folder = sb_strf("%s/golden/models", tests ? tests : ".");
    DIR *dir = opendir(folder);
    int n = 0;
    for (struct dirent *entry; dir && (entry = readdir(dir)) != NULL;) {
        size_t length = strlen(entry->d_name);
        if (length < 5 || strcmp(entry->d_name + length - 5, ".gguf") != 0)
            continue;
        char *path = sb_strf("%s/%s", folder, entry->d_name);
        run_golden_model(path);
        sb_free(path);
        n++;
    }
    if (dir)
        closedir(dir);
    sb_free(folder);
    assert_true(n >= 8);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_drafter_equals_plain_greedy_decoding),
        cmocka_unit_test(every_verifier_and_policy_equals_plain_greedy_decoding),
        cmocka_unit_test(every_lawful_pair_decodes_trees_of_the_kinds_it_was_let_in_for),
        cmocka_unit_test(sampled_text_of_naive_sample_does_not_depend_on_the_drafter),
        cmocka_unit_test(sampled_text_of_gumbel_coupled_does_not_depend_on_the_drafter),
        cmocka_unit_test(draft_numbers_never_come_back),
        cmocka_unit_test(a_drafter_that_is_the_target_is_always_accepted),
        cmocka_unit_test(policies_learn_from_every_step_and_forget_with_the_prompt),
        cmocka_unit_test(sampling_is_repeatable_and_follows_its_key),
        cmocka_unit_test(budgets_of_zero_and_one_take_no_step),
        cmocka_unit_test(a_full_context_ends_the_generation),
        cmocka_unit_test(a_stop_flag_ends_between_steps_and_keeps_the_tokens),
        cmocka_unit_test(drafts_do_not_depend_on_what_the_drafter_kept),
        cmocka_unit_test(golden_models_decode_alike_with_every_drafter),
    };
    return cmocka_run_group_tests(tests, make_models, destroy_models);
}
