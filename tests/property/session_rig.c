#include "tests/property/session_rig.h"

#include <string.h>

#include "drafters/datastore.h"
#include "harness/core/alloc.h"
#include "harness/core/threads.h"
#include "tests/property/eagle_maker.h"
#include "tests/property/head_maker.h"

struct toy_model target, near, wide, narrow, brief, far, other;

/* A datastore of toy text. */
static void make_store(void)
{
    sb_token text[600];
    for (int i = 0; i < 600; i++)
        text[i] = i % 100 == 99 ? V : (i * i) % 7 + (i % 3);
    assert_int_equal(sb_datastore_write("toy.sbidx", text, 600, 6, V, 0, NULL), SB_OK);
}

int make_models(void **state)
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

int destroy_models(void **state)
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

enum sb_status load(void *loader, const char *name, struct sb_model **model,
                    const struct sb_tokenizer **tokenizer, struct sb_error *err)
{
    *model = by_name(name);
    *tokenizer = NULL;
    return *model ? SB_OK : sb_fail(err, SB_EINPUT, "no model '%s'", name);
}

const char *const variants[] = {
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
const size_t n_variants = sizeof variants / sizeof *variants;

enum sb_status open_session(struct sb_session **out, struct setup setup, struct sb_error *err)
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

struct sb_session *opened(struct setup setup)
{
    struct sb_session *session;
    struct sb_error err = { .message = "" };
    if (open_session(&session, setup, &err) != SB_OK)
        fail_msg("%s: %s", setup.drafter, err.message);
    return session;
}

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

struct sb_generation generate(struct sb_session *session, const sb_token *prompt, size_t n_prompt,
                              size_t budget, struct watch *watch)
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

const struct prompt prompts[N_PROMPTS] = {
    { { 7 }, 1 },
    { { 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5 }, 12 },
    { { 1, 9, 14, 2, 9, 14, 2, 11, 9, 14 }, 10 },
    { { 20, 21, 22, 23, 0, 1, 2, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 20, 21, 22 }, 20 },
    { { 3, 3, 8, 17 }, 4 }, /* begins with the end token */
};
