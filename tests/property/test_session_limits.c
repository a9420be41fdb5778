/* Drafters with little room, and what sessions refuse: set-ups, prompts, models that yield NaN, memory that runs
 * out. */
#include <math.h>
#include <string.h>

#include "harness/core/alloc.h"
#include "tests/property/session_rig.h"

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
    for (size_t v = 0; v < n_variants; v++) {
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
        cmocka_unit_test(drafters_stay_inside_the_tree),
        cmocka_unit_test(registries_are_sorted_and_complete),
        cmocka_unit_test(wrong_setups_are_refused_with_one_line),
        cmocka_unit_test(wrong_prompts_are_refused_and_the_session_lives_on),
        cmocka_unit_test(models_that_yield_nan_are_refused_not_decoded),
        cmocka_unit_test(running_out_of_memory_while_opening_leaks_nothing),
    };
    return cmocka_run_group_tests(tests, make_models, destroy_models);
}
