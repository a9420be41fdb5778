/* The decoding loop: every drafter against plain decoding, in every token and in how it ends. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "drafters/datastore.h"
#include "harness/core/alloc.h"
#include "harness/core/threads.h"
#include "harness/decode/session.h"
#include "kernels/kernels.h"
#include "tests/property/eagle_maker.h"
#include "tests/property/head_maker.h"
#include "tests/property/toy_model.h"

enum { V = 24, CONTEXT = 96, MOST = 128, EOS = 3 };

/* The target; models by name for the loader: "same", "near", "wide" and "narrow" vocabularies,
 * "short" context, "far" (an unrelated one), "other" (a vocabulary of another size). */
static struct toy_model target, near, wide, narrow, brief, far, other;

/* A datastore of toy text. */
static void make_store(void)
{
    sb_token text[600];
    for (int i = 0; i < 600; i++)
        text[i] = i % 100 == 99 ? V : (i * i) % 7 + (i % 3);
    assert_int_equal(sb_datastore_write("toy.sbidx", text, 600, 6, V, 0, NULL), SB_OK);
}

static int make_models(void **state)
{
    (void)state;
    sb_threads_set(1); /* the models are too small to share out */
    target = toy_model_create(1, 0, V, CONTEXT, EOS);
    near = toy_model_create(1, .12, V, CONTEXT, EOS);
    wide = toy_model_create(1, .12, V + 9, CONTEXT, EOS);
    narrow = toy_model_create(1, .12, V - 4, CONTEXT, EOS);
    brief = toy_model_create(1, .12, V, 20, EOS);
    far = toy_model_create(77, 0, V, CONTEXT, EOS);
    other = toy_model_create(1, 0, V + 129, CONTEXT, EOS);
    enter_folder();
    make_store();
    const struct sb_config *c = sb_model_config(target.model);
    make_medusa_heads(c->d_model, V);
    make_hydra_heads(
        &(struct made_shape){ c->d_model, V, c->n_heads, c->n_kv_heads, c->head_dim, c->d_ff });
    make_eagle_heads(c->d_model, V);
    make_mlp_speculators(c->d_model, V);
    make_redrafters(c->d_model, V);
    return 0;
}

static int destroy_models(void **state)
{
    (void)state;
    struct toy_model *all[] = { &target, &near, &wide, &narrow, &brief, &far, &other };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        toy_model_destroy(all[i]);
    leave_folder();
    return 0;
}

static struct sb_model *by_name(const char *name)
{
    static const struct {
        const char *name;
        struct toy_model *toy;
    } models[] = { { "same", &target },   { "near", &near },   { "wide", &wide },
                   { "narrow", &narrow }, { "short", &brief }, { "far", &far },
                   { "other", &other } };
    for (size_t i = 0; i < sizeof models / sizeof *models; i++)
        if (strcmp(name, models[i].name) == 0)
            return models[i].toy->model;
    return NULL;
}

static enum sb_status load(void *loader, const char *name, struct sb_model **model,
                           const struct sb_tokenizer **tokenizer, struct sb_error *err)
{
    *model = by_name(name);
    *tokenizer = NULL;
    return *model ? SB_OK : sb_fail(err, SB_EINPUT, "no model '%s'", name);
}

/* Several ways to run one drafter. A drafter that is not listed runs with its defaults. */
static const char *const variants[] = {
    "anpd",
    "anpd:q=1,n=4",
    "anpd:n=3,k=20,tie=smallest,scope=prompt",
    "anpd:n=9,backoff=stupid,scope=run",
    "delegate",
    "delegate:a='pld:match=best',b='small-lm:model=near,tree=2x2',min_match=2",
    "delegate:a='rest:store=toy.sbidx,span_min=1',b='small-lm:model=near,k=3',min_match=2",
    "delegate:a=sam,b=(merge:a=llma,b='small-lm:model=near,k=3'),min_match=3",
    "llma",
    "llma:separator=9,ngram_min=2,k=4,doc_max=5",
    "mag",
    "mag:k=3,min_match=2",
    "merge",
    "merge:a='small-lm:model=near,tree=2x2',b=pld",
    "merge:a='sam:min_match=2',b='small-lm:model=near,k=3'",
    "merge:a='small-lm:model=far,k=3,draw=wor',b='small-lm:model=near,tree=3x2',nodes=7",
    "merge:a=suffix-decoding,b=(delegate:a=mag,b=token-recycling),nodes=9",
    "hydra:head=hydra.safetensors",
    "hydra:head=hydra-dropout.safetensors,tree=3x2x2,heads=2",
    "hydra:head=hydra-shared.safetensors,tree=1x1x1x1",
    "hydra:head=hydra-shared.safetensors,tree=eagle1_25",
    "hydra-pp:head=hydra-pp.safetensors",
    "hydra-pp:head=hydra-pp.safetensors,tree=2x2x2",
    "hydra-pp:head=hydra-pp.safetensors,tree=auto,nodes=9",
    "hydra:head=hydra-shared.safetensors,tree=auto,nodes=20",
    "medusa:head=medusa-vllm.safetensors,tree=auto,nodes=14",
    "eagle:head=eagle",
    "eagle:head=eagle-two,tree=3x2x1x1,draw=top",
    "eagle:head=eagle,tree=1x1x1x1",
    "eagle2:head=eagle",
    "eagle2:head=eagle-two,depth=2,topk=3,total=9",
    "eagle2:head=eagle,depth=6,topk=1",
    "eagle2:head=eagle-two,curve='2:1.02;9:1.1'",
    "eagle3:head=eagle3",
    "eagle3:head=eagle3-vllm,depth=3,topk=24,total=30",
    "eagle3:head=eagle3,depth=0,total=2",
    "medusa:head=medusa.safetensors",
    "medusa:head=medusa.safetensors,tree=3x2x2,heads=2",
    "medusa:head=medusa-shared.safetensors,tree=1x1x1x1",
    "medusa:head=medusa-shared.safetensors,tree=eagle1_25",
    "medusa:head=medusa-vllm.safetensors,tree=9x2x2",
    "mlp-speculator:head=mlp.safetensors",
    "mlp-speculator:head=mlp.safetensors,tree=2x2,candidates=3",
    "mlp-speculator:head=mlp-tied,candidates=1",
    "mlp-speculator:head=mlp-tied,candidates=12",
    "none",
    "jacobi",
    "jacobi:m=3,fill=root",
    "jacobi:m=20,fill=prompt",
    "jacobi:guess=coupled",
    "lookahead",
    "lookahead:window=1,ngram=3,guesses=1",
    "lookahead:window=4,ngram=7,guesses=2,start=cyclic,prompt_pool=1",
    "lookahead:window=9,ngram=3,guesses=7,prompt_pool=1",
    "nest",
    "nest:window=2,beta=1",
    "ngram-cache",
    "ngram-cache:scope=prompt,k=3,ngram_min=2,ngram_max=3",
    "ngram-cache:scope=run,k=30",
    "pld",
    "pld:match=ref,k=3",
    "pld:match=first,k=5",
    "pld:match=best,wrap=1",
    "pld-plus",
    "pld-plus:layer=0,k=4",
    "redrafter:head=redrafter.safetensors",
    "redrafter:head=redrafter.safetensors,beams=1,k=3",
    "redrafter:head=redrafter-sum,beams=3,k=5,top=4",
    "small-lm:model=same",
    "small-lm:model=near",
    "small-lm:model=near,k=9,p_min=0.3",
    "small-lm:model=near,tree=3x2x1",
    "small-lm:model=near,tree=1x1x3x2",
    "small-lm:model=same,tree=2x2x2x1x1",
    "small-lm:model=far,tree=5",
    "small-lm:model=wide,k=5",
    "small-lm:model=narrow,tree=2x3",
    "small-lm:model=short,k=6",
    "small-lm:model=short,tree=3x3x2",
    "small-lm:model=near,tree=4x4x4",
    "small-lm:model=near,k=5,draw=wor",
    "small-lm:model=near,tree=3x2,draw=wor",
    "small-lm:model=near,k=4,draw=paths,paths=3",
    "small-lm:model=same,k=3,draw=paths,paths=1",
    "small-lm:model=near,tree=2x2x2,draw=hub",
    "small-lm:model=near,tree=3x1x2,draw=topk1",
    "small-lm:model=near,k=4,draw=coupled",
    "small-lm:model=narrow,tree=2x2x1,draw=coupled",
    "small-lm:model=short,k=6,draw=paths,paths=2",
    "sam:k=12",
    "sam:scope=run,alpha=1,min_match=2",
    "suffix-decoding:k=16",
    "suffix-decoding:tree=1,depth=8,k=9,factor=2,scope=conversation",
    "suffix-decoding:keep=60,scope=run,depth=5",
    "token-recycling",
    "token-recycling:scope=prompt,width=3,nodes=20",
    "token-recycling:scope=conversation,width=1",
    "trie-lookahead",
    "trie-lookahead:branch=3,k=9,scope=prompt,select=dfs",
    "trie-lookahead:branch=5,query=3,k=20,keep=50,scope=conversation",
    "sad",
    "sad:from=1,to=11,q_max=2,k=5",
    "rest:store=toy.sbidx",
    "rest:store=toy.sbidx,cut=ref,choices=5,span_min=1,span_max=3,long=3,k=9",
    "rsd-c:model=near",
    "rsd-c:model=narrow,tree=1x3x2",
    "rsd-s:model=near",
    "rsd-s:model=far,width=5,k=2",
    "rsd-s:model=same,width=2,k=6",
    "rsd-s:model=short,width=4,k=9",
};
enum { N_VARIANTS = sizeof variants / sizeof *variants };

static bool runs(const char *variant, const char *name)
{
    size_t n = strlen(name);
    return strncmp(variant, name, n) == 0 && (variant[n] == ':' || variant[n] == '\0');
}

struct setup {
    const char *drafter, *verifier, *policy;
    struct sb_sampling sampling;
    size_t max_context;
    bool ignore_eos;
};

static enum sb_status open_session(struct sb_session **out, struct setup setup,
                                   struct sb_error *err)
{
    struct sb_spec spec[3] = { 0 };
    const char *text[] = { setup.drafter, setup.verifier, setup.policy };
    for (size_t i = 0; i < 3; i++)
        if (text[i])
            assert_int_equal(sb_spec_parse(&spec[i], text[i], NULL), SB_OK);
    enum sb_status rc = sb_session_create(out,
                                          &(struct sb_session_options){
                                              .target = target.model,
                                              .drafter = text[0] ? &spec[0] : NULL,
                                              .verifier = text[1] ? &spec[1] : NULL,
                                              .policy = text[2] ? &spec[2] : NULL,
                                              .sampling = setup.sampling,
                                              .max_context = setup.max_context,
                                              .ignore_eos = setup.ignore_eos,
                                              .load_model = load,
                                          },
                                          err);
    for (size_t i = 0; i < 3; i++)
        sb_spec_finish(&spec[i]);
    return rc;
}

static struct sb_session *opened(struct setup setup)
{
    struct sb_session *session;
    struct sb_error err = { .message = "" };
    if (open_session(&session, setup, &err) != SB_OK)
        fail_msg("%s: %s", setup.drafter, err.message);
    return session;
}

/* What the callbacks see, checked step by step. */
struct watch {
    int32_t steps, drafted, accepted, tokens, next_context;
    size_t streamed, allocations;
    sb_token stream[MOST];
    volatile int stop;
    int32_t stop_after; /* steps; 0: never */
    unsigned kinds;     /* that trees may have; 0: any */
    bool allocated;
};

static void watch_step(void *self, const struct sb_step *step)
{
    struct watch *w = self;
    struct sb_error err;
    if (sb_tree_check(step->tree, V, &err) != SB_OK)
        fail_msg("step %d: %s", step->step_no, err.message);
    assert_int_equal(step->step_no, w->steps);
    if (w->steps > 0)
        assert_int_equal(step->context, w->next_context);
    w->next_context = step->context + step->tokens;
    assert_int_equal(step->drafted, sb_tree_drafted(step->tree));
    assert_true(!w->kinds || !(sb_tree_kinds(step->tree) & ~w->kinds));
    assert_true(step->accepted <= step->depth && step->tokens >= 1);
    assert_true(step->tokens <= step->accepted + 1);
    int32_t accepted = 0, deepest = 0;
    for (int32_t i = 1; i < step->tree->n; i++) {
        accepted += step->decision[i] == SB_ACCEPTED;
        deepest = step->decision[i] == SB_ACCEPTED ? i : deepest;
    }
    assert_int_equal(accepted, step->accepted);
    /* Drafts are planned to fit budget and context: only an end token cuts what was accepted. */
    if (step->tokens != step->accepted + 1)
        assert_int_equal(step->tree->node[deepest].token, EOS);
    assert_int_equal(step->decision[0], SB_ACCEPTED);
    w->steps++;
    w->drafted += step->drafted;
    w->accepted += step->accepted;
    w->tokens += step->tokens;
    w->allocated = w->allocated || (w->steps > 1 && sb_alloc_count() != w->allocations);
    w->allocations = sb_alloc_count();
    w->stop = w->stop_after && w->steps >= w->stop_after;
}

static void watch_tokens(void *self, const sb_token *tokens, size_t n)
{
    struct watch *w = self;
    assert_true(n > 0 && w->streamed + n <= MOST);
    memcpy(w->stream + w->streamed, tokens, n * sizeof *tokens);
    w->streamed += n;
}

static struct sb_generation generate(struct sb_session *session, const sb_token *prompt,
                                     size_t n_prompt, size_t budget, struct watch *watch)
{
    struct watch mine = { 0 };
    struct watch *w = watch ? watch : &mine;
    struct sb_generation out;
    struct sb_error err = { .message = "" };
    enum sb_status rc = sb_session_generate(session,
                                            &(struct sb_request){ .prompt = prompt,
                                                                  .n_prompt = n_prompt,
                                                                  .max_new_tokens = budget,
                                                                  .rng_key = 5,
                                                                  .on_step = watch_step,
                                                                  .on_tokens = watch_tokens,
                                                                  .self = w,
                                                                  .stop = &w->stop },
                                            &out, &err);
    if (rc != SB_OK)
        fail_msg("%s", err.message);
    assert_int_equal(out.steps, w->steps);
    assert_int_equal(out.drafted, w->drafted);
    assert_int_equal(out.accepted, w->accepted);
    assert_int_equal(out.step_tokens, w->tokens);
    assert_int_equal(out.tokens.n, w->streamed);
    if (out.tokens.n > 0) {
        assert_int_equal(out.tokens.n, out.step_tokens + 1); /* and the prefill's token */
        assert_memory_equal(out.tokens.id, w->stream, out.tokens.n * sizeof(sb_token));
    }
    assert_false(w->allocated);
    return out;
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

struct prompt {
    sb_token id[40];
    size_t n;
};
static const struct prompt prompts[] = {
    { { 7 }, 1 },
    { { 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5 }, 12 },
    { { 1, 9, 14, 2, 9, 14, 2, 11, 9, 14 }, 10 },
    { { 20, 21, 22, 23, 0, 1, 2, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 20, 21, 22 }, 20 },
    { { 3, 3, 8, 17 }, 4 }, /* begins with the end token */
};
enum { N_PROMPTS = sizeof prompts / sizeof *prompts };

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
        for (size_t v = 0; v < N_VARIANTS + 1; v++) {
            if (v < N_VARIANTS ? !runs(variants[v], sb_drafters[d]->name) : listed)
                continue;
            listed = true;
            const char *drafter = v < N_VARIANTS ? variants[v] : sb_drafters[d]->name;
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
    assert_true(covered >= N_VARIANTS * N_PROMPTS * 5);
}

static void every_verifier_and_policy_equals_plain_greedy_decoding(void **state)
{
    (void)state;
    struct sb_generation want = decode_plainly(prompts[2].id, prompts[2].n, 50, CONTEXT, true);
    for (size_t v = 0; v < N_VARIANTS; v++) {
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
    for (size_t v = 0; v < N_VARIANTS; v++) {
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
        for (size_t v = 0; v < N_VARIANTS; v++) {
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
    for (size_t v = 0; v < N_VARIANTS; v++) {
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
    for (size_t v = 0; v < N_VARIANTS; v++) {
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

/* ---- drafters on their own, with little room ---- */

static void drafters_stay_inside_the_tree(void **state)
{
    (void)state;
    sb_token text[60], eos = EOS;
    static float hidden[60 * 16];
    const float *taps[SB_MAX_TAPS];
    assert_true(sb_model_config(target.model)->d_model <= 16);
    for (int i = 0; i < 60; i++)
        text[i] = (i * i) % 7;
    for (int i = 0; i < 60 * 16; i++)
        hidden[i] = sinf((float)i);
    for (int i = 0; i < SB_MAX_TAPS; i++)
        taps[i] = hidden;
    for (size_t v = 0; v < N_VARIANTS; v++) {
        for (int t = 0; t < 2; t++) {
            struct sb_spec spec;
            assert_int_equal(sb_spec_parse(&spec, variants[v], NULL), SB_OK);
            const struct sb_drafter_ops *ops = sb_drafter_find(spec.name);
            int64_t k = 0;
            struct sb_tap_plan plan = { .n_layers = sb_model_config(target.model)->n_layers,
                                        .d_model = sb_model_config(target.model)->d_model };
            const struct sb_policy policy = { .ops = sb_policy_find("constant"), .params = &k };
            void *params = sb_alloc_zero(1, ops->params_size + 1);
            void *st = sb_alloc_zero(1, ops->state_size + 1);
            assert_int_equal(sb_params_apply(params, ops->params, &spec, "drafter", NULL), SB_OK);
            const struct sb_drafter_env env = { .target = target.model,
                                                .sampling.temperature = t,
                                                .eos = &eos,
                                                .n_eos = 1,
                                                .max_context = CONTEXT,
                                                .n_vocab = V,
                                                .params = params,
                                                .policy = &policy,
                                                .taps = &plan,
                                                .load_model = load };
            if (ops->open)
                assert_int_equal(ops->open(st, &env, NULL), SB_OK);
            struct sb_rng_dice rng = sb_rng_dice_make(1, SB_STREAM_DRAFT, SB_STREAM_DRAFT);
            struct sb_tree tree;
            assert_int_equal(sb_tree_create(&tree, 400, NULL), SB_OK);
            tree.eos = &eos;
            tree.n_eos = 1;
            int32_t most = ops->max_nodes ? ops->max_nodes(params, &policy) : 0;
            for (size_t n = 1; n < 60; n = n * 3 / 2 + 1) {
                struct sb_context ctx = { .tokens = text,
                                          .n = n,
                                          .n_prompt = 1,
                                          .dice = sb_rng_dice_at(&rng, n),
                                          .policy = &policy,
                                          .taps = taps };
                if (ops->begin)
                    assert_int_equal(ops->begin(st, &ctx, NULL), SB_OK);
                for (int32_t cap = 1; cap <= 8; cap++) {
                    for (int32_t depth = 0; depth < 4; depth++) {
                        tree.cap = cap;
                        sb_tree_reset(&tree, text[n - 1], depth);
                        memset(tree.node + cap, 0xa5, sizeof *tree.node);
                        assert_int_equal(ops->propose(st, &ctx, &tree, NULL), SB_OK);
                        assert_int_equal(sb_tree_check(&tree, V, NULL), SB_OK);
                        assert_true(tree.n <= cap && sb_tree_drafted(&tree) <= most);
                        for (size_t i = 0; i < sizeof *tree.node; i++)
                            assert_int_equal(((unsigned char *)(tree.node + cap))[i], 0xa5);
                    }
                }
            }
            tree.cap = 400;
            sb_tree_finish(&tree);
            if (ops->close)
                ops->close(st);
            sb_free(st);
            sb_free(params);
            sb_spec_finish(&spec);
        }
    }
}

static void registries_are_sorted_and_complete(void **state)
{
    (void)state;
    for (size_t i = 0; sb_drafters[i]; i++) {
        const struct sb_drafter_ops *d = sb_drafters[i];
        assert_true(d->name && d->summary && d->paper && d->propose);
        assert_true(i == 0 || strcmp(sb_drafters[i - 1]->name, d->name) < 0);
        assert_ptr_equal(sb_drafter_find(d->name), d);
        for (const struct sb_param *p = d->params; p && p->name; p++)
            assert_true(p->meaning && p->offset < d->params_size);
    }
    for (size_t i = 0; sb_policies[i]; i++) {
        const struct sb_policy_ops *p = sb_policies[i];
        assert_true(p->name && p->summary && p->paper && p->plan);
        assert_true(i == 0 || strcmp(sb_policies[i - 1]->name, p->name) < 0);
        assert_ptr_equal(sb_policy_find(p->name), p);
    }
    assert_null(sb_drafter_find("no-such-drafter"));
    assert_null(sb_policy_find("no-such-policy"));
}

/* ---- what is refused ---- */

static void wrong_setups_are_refused_with_one_line(void **state)
{
    (void)state;
    static const struct {
        struct setup setup;
        const char *message; /* how it begins; NULL: any */
    } cases[] = {
        { { .drafter = "pdl" }, "no drafter is named 'pdl'; there are: " },
        { { .verifier = "gready" }, "no verifier is named 'gready'; there are: " },
        { { .policy = "x" }, "no policy is named 'x'; there are: " },
        { { .drafter = "pld:k=0" }, "drafter pld: k=0: expected a whole number from 1 to 1000" },
        { { .drafter = "none:k=1" }, "drafter none has no parameter 'k'; it takes none" },
        { { .drafter = "anpd:source=corpus" },
          "drafter anpd: source=corpus needs corpus=... (path of an n-gram cache file)" },
        { { .drafter = "anpd:corpus=x" },
          "drafter anpd: corpus=x: goes with source=both or corpus only" },
        { { .drafter = "anpd:q=1,backoff=stupid" },
          "drafter anpd: q=true: goes with backoff=first only" },
        { { .drafter = "llma:ngram_min=6" },
          "drafter llma: ngram_min=6: expected at most ngram_max=5" },
        { { .drafter = "mag:bigram=/no-such-file" },
          "drafter mag: /no-such-file: No such file or directory" },
        { { .drafter = "ngram-cache:ngram_min=3,ngram_max=2" },
          "drafter ngram-cache: ngram_min=3: expected at most ngram_max=2" },
        { { .drafter = "ngram-cache:save=/tmp/x" },
          "drafter ngram-cache: save=/tmp/x: goes with scope=run only, not scope=conversation" },
        { { .drafter = "ngram-cache:scope=run,save=/no-such-directory/x" },
          "drafter ngram-cache: save=/no-such-directory/x: No such file or directory" },
        { { .drafter = "ngram-cache:static=/no-such-file" },
          "drafter ngram-cache: /no-such-file: No such file or directory" },
        { { .drafter = "small-lm" },
          "drafter small-lm needs model=... (path of the draft model, or the name of a bundled "
          "one)" },
        { { .drafter = "small-lm:model=none-such" }, "no model 'none-such'" },
        { { .drafter = "small-lm:model=other" },
          "drafter small-lm: model other has a vocabulary of 153, the target one of 24: expected a "
          "difference of at most 128" },
        { { .drafter = "small-lm:model=near,tree=3y2" },
          "drafter small-lm: tree=3y2: expected children per level such as 3x2x1, at most 16 levels "
          "of 1 to 64 and 1000 nodes" },
        { { .drafter = "small-lm:model=near,tree=64x64" }, NULL },
        { { .drafter = "small-lm:model=near,tree=2x" }, NULL },
        { { .drafter = "small-lm:model=near,tree=0" }, NULL },
        { { .drafter = "small-lm:model=near,tree=99999999999999999999" }, NULL },
        { { .drafter = "small-lm:model=near,tree=" }, NULL },
        { { .drafter = "small-lm:model=near,draw=gumbel" },
          "drafter small-lm: draw=gumbel: expected one of iid|wor|paths|hub|topk1|coupled" },
        { { .drafter = "small-lm:model=near,draw=paths" },
          "drafter small-lm: draw=paths: expected paths=1 to 64, and no tree" },
        { { .drafter = "small-lm:model=near,draw=paths,paths=2,tree=2x1" },
          "drafter small-lm: draw=paths: expected paths=1 to 64, and no tree" },
        { { .drafter = "small-lm:model=near,paths=3" },
          "drafter small-lm: paths=3: goes with draw=paths only" },
        { { .drafter = "small-lm:model=near,draw=paths,paths=65" },
          "drafter small-lm: paths=65: expected a whole number from 0 to 64" },
        { { .drafter = "small-lm:model=near,draw=paths,paths=64,k=16" },
          "drafter small-lm: paths=64 of 16 tokens: expected at most 1000 tokens in all" },
        { { .drafter = "small-lm:model=near,draw=hub,k=3" },
          "drafter small-lm: draw=hub draws pairs: expected a tree such as 2x2, not a chain" },
        { { .drafter = "small-lm:model=near,draw=hub,tree=2x3" },
          "drafter small-lm: draw=hub draws pairs: expected a tree such as 2x2, not 2x3" },
        { { .policy = "tree-cost:curve='4:1.4;2:2'" },
          "policy tree-cost: curve=4:1.4;2:2: expected rows:cost with rising rows, as in "
          "1:1;4:1.4;8:2.2, at most 32 of them" },
        { { .policy = "optimal-gamma:curve=4" }, "policy optimal-gamma: curve=4: expected " },
        { { .policy = "heuristic:scope=turn" },
          "policy heuristic: scope=turn: expected one of prompt|run" },
        { { .drafter = "rsd-c" }, "drafter rsd-c needs model=..." },
        { { .drafter = "rsd-c:model=near,tree='2,2'" }, NULL },
        { { .drafter = "rsd-c:model=near,tree=9x9x9x9" },
          "drafter rsd-c: tree=9x9x9x9: expected children per level such as 3x2x1, at most 16 levels "
          "of 1 to 64 and 1000 nodes" },
        { { .drafter = "rsd-s:model=other" },
          "drafter rsd-s: model other has a vocabulary of 153, the target one of 24" },
        { { .drafter = "rsd-s:model=near,width=0" },
          "drafter rsd-s: width=0: expected a whole number from 1 to 64" },
        { { .drafter = "rsd-s:model=near,width=64,k=16" },
          "drafter rsd-s: width=64 and 16 levels: expected at most 1000 nodes in all" },
        { { .drafter = "small-lm:model=near,tree=2x2,draw=hub",
            .verifier = "rejection",
            .sampling.temperature = 1 },
          "drafter small-lm with verifier rejection: the verifier takes chains only" },
        { { .drafter = "small-lm:model=near,tree=2x2",
            .verifier = "rejection",
            .sampling.temperature = 1 },
          "drafter small-lm with verifier rejection: the verifier takes chains only, and the drafter "
          "makes trees with these parameters; lawful here: " },
        { { .verifier = "greedy", .sampling.temperature = 1 },
          "drafter none with verifier greedy: the verifier never samples, and the temperature is "
          "above 0; lawful here: " },
        { { .verifier = "rejection:alpha=0.5,beta=0.25" },
          "verifier rejection: beta=0.25: expected at least 1 - alpha = 0.5" },
        { { .max_context = 97 }, "max_context=97: the target was made for 96 positions" },
        { { .sampling.temperature = NAN }, NULL },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct sb_session *s = NULL;
        struct sb_error err = { .message = "" };
        enum sb_status rc = open_session(&s, cases[i].setup, &err);
        if (cases[i].message &&
            strncmp(err.message, cases[i].message, strlen(cases[i].message)) != 0)
            fail_msg("got '%s', expected '%s'", err.message, cases[i].message);
        assert_true(rc == SB_EUSAGE || rc == SB_EINPUT);
        assert_null(s);
    }
}

static void wrong_prompts_are_refused_and_the_session_lives_on(void **state)
{
    (void)state;
    struct sb_session *s = opened((struct setup){ .drafter = "pld" });
    const sb_token bad[] = { 1, V };
    struct sb_generation out;
    struct sb_error err;
    assert_int_equal(
        sb_session_generate(s, &(struct sb_request){ .prompt = bad, .n_prompt = 2 }, &out, &err),
        SB_EUSAGE);
    assert_string_equal(err.message, "prompt token 1 is 24, the vocabulary has 24");
    assert_int_equal(sb_session_generate(s, &(struct sb_request){ .prompt = bad }, &out, &err),
                     SB_EUSAGE);
    out = generate(s, prompts[2].id, prompts[2].n, 10, NULL);
    sb_generation_finish(&out);
    sb_session_destroy(s);
}

/* The embedding of `token` becomes NaN, and with it every row that sees the token. */
static void poison(struct toy_model *toy, sb_token token)
{
    const struct sb_tensor *e = &sb_model_weights(toy->model)->embedding;
    toy->data[(size_t)((const float *)e->data - toy->data) + (size_t)token * e->k] = NAN;
}

static enum sb_status try_generate(struct setup setup, sb_token token, struct sb_error *err)
{
    struct sb_session *s = opened(setup);
    struct sb_generation out = { 0 };
    struct sb_request request = { .prompt = &token, .n_prompt = 1, .max_new_tokens = 9 };
    enum sb_status rc = sb_session_generate(s, &request, &out, err);
    sb_generation_finish(&out);
    sb_session_destroy(s);
    return rc;
}

static void models_that_yield_nan_are_refused_not_decoded(void **state)
{
    (void)state;
    struct toy_model sound_target = target, sound_near = near;
    struct sb_error err;
    target = toy_model_create(1, 0, V, CONTEXT, EOS);
    poison(&target, 7);
    assert_int_equal(try_generate((struct setup){ .drafter = "pld" }, 7, &err), SB_EFORMAT);
    assert_string_equal(err.message, "the target's logits at node 0 hold NaN");
    assert_int_equal(try_generate((struct setup){ .sampling.temperature = 1 }, 7, &err),
                     SB_EFORMAT);
    toy_model_destroy(&target);
    target = sound_target;

    near = toy_model_create(1, .12, V, CONTEXT, EOS);
    poison(&near, 7);
    struct setup setup = { .drafter = "small-lm:model=near", .sampling.temperature = 1 };
    assert_int_equal(try_generate(setup, 7, &err), SB_EFORMAT);
    assert_string_equal(err.message,
                        "drafter small-lm: model near: its logits hold NaN or infinity");
    setup.sampling.temperature = 0; /* a useless draft, but a draft */
    assert_int_equal(try_generate(setup, 7, &err), SB_OK);
    toy_model_destroy(&near);
    near = sound_near;
}

static void run_out_of_memory(const char *text)
{
    struct sb_spec drafter, verifier;
    assert_int_equal(sb_spec_parse(&drafter, text, NULL), SB_OK);
    assert_int_equal(sb_spec_parse(&verifier, "naive-sample", NULL), SB_OK);
    const struct sb_session_options options = { .target = target.model,
                                                .drafter = &drafter,
                                                .verifier = &verifier,
                                                .sampling.temperature = 1,
                                                .load_model = load };
    enum sb_status rc = SB_ENOMEM;
    size_t n = 0;
    for (; rc == SB_ENOMEM && n < 400; n++) {
        struct sb_session *s = NULL;
        sb_alloc_fail_after(n);
        rc = sb_session_create(&s, &options, NULL);
        sb_alloc_fail_after(SIZE_MAX);
        sb_session_destroy(s);
    }
    assert_int_equal(rc, SB_OK);
    assert_true(n > 20);
    sb_spec_finish(&drafter);
    sb_spec_finish(&verifier);
}

static void running_out_of_memory_while_opening_leaks_nothing(void **state)
{
    (void)state;
    static const char *const drafters[] = { "small-lm:model=near,tree=3x2",
                                            "rsd-c:model=near",
                                            "rsd-s:model=near",
                                            "sam",
                                            "suffix-decoding:scope=conversation",
                                            "token-recycling:scope=conversation",
                                            "trie-lookahead:scope=conversation,keep=9",
                                            "ngram-cache:scope=run",
                                            "nest",
                                            "anpd",
                                            "llma",
                                            "mag",
                                            "hydra-pp:head=hydra-pp.safetensors",
                                            "eagle:head=eagle",
                                            "eagle2:head=eagle-two",
                                            "eagle3:head=eagle3",
                                            "medusa:head=medusa-shared.safetensors",
                                            "mlp-speculator:head=mlp-tied",
                                            "redrafter:head=redrafter-sum",
                                            "sad",
                                            "rest:store=toy.sbidx",
                                            "delegate:b='small-lm:model=near'",
                                            "merge" };
    for (size_t i = 0; i < sizeof drafters / sizeof *drafters; i++)
        run_out_of_memory(drafters[i]);
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
        cmocka_unit_test(drafters_stay_inside_the_tree),
        cmocka_unit_test(registries_are_sorted_and_complete),
        cmocka_unit_test(wrong_setups_are_refused_with_one_line),
        cmocka_unit_test(wrong_prompts_are_refused_and_the_session_lives_on),
        cmocka_unit_test(models_that_yield_nan_are_refused_not_decoded),
        cmocka_unit_test(running_out_of_memory_while_opening_leaks_nothing),
    };
    return cmocka_run_group_tests(tests, make_models, destroy_models);
}
