#include "harness/experiment/replay.h"
#include "harness/model/bundled.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include <jansson.h>

#include "drafters/parts.h"
#include "harness/core/alloc.h"
#include "harness/core/clock.h"
#include "harness/decode/session.h"
#include "harness/decode/verifier.h"
#include "harness/experiment/host.h"

enum { MOST_END_TOKENS = 64, DEFAULT_CONTEXT = 4096, MIN_BATCH_ROWS = 64 };

struct policy {
    struct sb_spec spec;
    void *params, *state;
    struct sb_policy policy;
};

struct replay {
    const struct sb_replay_options *options;
    struct sb_store *from, *to;
    struct sb_replay_result *result;
    struct sb_tokenizer *tokenizer; /* NULL: not found, or another one by now */
    struct sb_sampling sampling;
    size_t n_vocab, max_context, model_context;
    sb_token eos[MOST_END_TOKENS];
    size_t n_eos;
    sb_token *text; /* [max_context] */

    /* Of the drafter at hand. */
    struct sb_part drafter;
    struct policy policy;
    struct sb_tree tree;
    int32_t n_nodes; /* the tree's full capacity */
    int64_t arm_id;
    int order_no;
};

/* ---- what the run was like ---- */

static size_t size_of(const json_t *object, const char *key)
{
    json_int_t value = json_integer_value(json_object_get(object, key));
    return value > 0 ? (size_t)value : 0;
}

static enum sb_status read_sizes(struct replay *r, const json_t *spec, const json_t *config,
                                 struct sb_error *err)
{
    const struct sb_recorded_arm *arm = r->options->arm;
    const json_t *eos = json_object_get(spec, "eos");
    size_t asked = size_of(spec, "max_context");
    r->result->had_documents = json_is_true(json_object_get(spec, "documents"));
    r->n_vocab = size_of(config, "vocab");
    r->model_context = size_of(config, "context");
    if (r->n_vocab < 1 || r->n_vocab > SB_MAX_VOCAB || r->model_context < 1 ||
        r->model_context > SB_MAX_CONTEXT || asked > r->model_context)
        return sb_fail(err, SB_EFORMAT,
                       "experiment %" PRId64 ": its model has %zu tokens and %zu positions",
                       arm->experiment_id, r->n_vocab, r->model_context);
    r->max_context = asked                                ? asked
                     : r->model_context < DEFAULT_CONTEXT ? r->model_context
                                                          : DEFAULT_CONTEXT;
    for (size_t i = 0; i < json_array_size(eos) && r->n_eos < MOST_END_TOKENS; i++)
        r->eos[r->n_eos++] = (sb_token)json_integer_value(json_array_get(eos, i));
    r->sampling = (struct sb_sampling){ .temperature = arm->temperature,
                                        .top_p = arm->top_p,
                                        .top_k = (size_t)arm->top_k };
    r->text = sb_alloc_array(r->max_context, sizeof *r->text);
    return r->text ? SB_OK : sb_fail(err, SB_ENOMEM, "replay: out of memory");
}

/* Datastores are held against the target's tokenizer where it is still there. */
static void find_tokenizer(struct replay *r)
{
    const struct sb_recorded_arm *arm = r->options->arm;
    char *path = NULL, hash[17];
    if (sb_bundled_resolve(&path, "model", arm->target, NULL) == SB_OK)
        sb_tokenizer_open(&r->tokenizer, path, NULL);
    sb_free(path);
    if (r->tokenizer) {
        snprintf(hash, sizeof hash, "%016" PRIx64, sb_tokenizer_hash(r->tokenizer));
        if (strcmp(hash, arm->tokenizer_hash) != 0) {
            sb_tokenizer_close(r->tokenizer);
            r->tokenizer = NULL;
        }
    }
    r->result->tokenizer_found = r->tokenizer != NULL;
}

static enum sb_status read_run(struct replay *r, struct sb_error *err)
{
    const struct sb_recorded_arm *arm = r->options->arm;
    json_t *spec = json_loads(arm->spec_json, 0, NULL);
    json_t *config = json_loads(arm->config_json, 0, NULL);
    enum sb_status rc = spec && config ? read_sizes(r, spec, config, err)
                                       : sb_fail(err, SB_EFORMAT,
                                                 "experiment %" PRId64 ": its settings are no JSON",
                                                 arm->experiment_id);
    json_decref(spec);
    json_decref(config);
    const char *verifier = r->options->verifier;
    bool known = !verifier || strcmp(verifier, "naive-sample") == 0 ||
                 (strcmp(verifier, "greedy") == 0 && arm->temperature <= 0);
    if (rc == SB_OK && !known)
        rc = sb_fail(err, SB_EUSAGE,
                     "verifier %s at temperature %g: only greedy at temperature 0 and naive-sample "
                     "accept what a recorded text decides",
                     verifier, arm->temperature);
    if (rc == SB_OK)
        find_tokenizer(r);
    return rc;
}

/* ---- a drafter ---- */

static enum sb_status open_policy(struct replay *r, const char *text, struct sb_error *err)
{
    struct policy *p = &r->policy;
    enum sb_status rc = sb_spec_parse(&p->spec, text, err);
    if (rc != SB_OK)
        return rc;
    const struct sb_policy_ops *ops = p->policy.ops = sb_policy_find(p->spec.name);
    if (!ops)
        return sb_fail(err, SB_EUSAGE, "no policy is named '%s'; see specbench list policies",
                       p->spec.name);
    p->params = sb_alloc_zero(1, ops->params_size + 1);
    p->state = sb_alloc_zero(1, ops->state_size + 1);
    if (!p->params || !p->state)
        return sb_fail(err, SB_ENOMEM, "no memory for policy %s", ops->name);
    p->policy.params = p->params;
    p->policy.state = p->state;
    rc = sb_params_apply(p->params, ops->params, &p->spec, "policy", err);
    return rc == SB_OK && ops->open ? ops->open(p->state, p->params, err) : rc;
}

static void close_drafter(struct replay *r)
{
    sb_part_close(&r->drafter);
    sb_spec_finish(&r->policy.spec);
    sb_free(r->policy.params);
    sb_free(r->policy.state);
    sb_tree_finish(&r->tree);
    r->policy = (struct policy){ 0 };
}

/* The default policy of a drafter that is only known by its text yet. */
static const char *default_policy(const char *text)
{
    struct sb_spec spec = { 0 };
    const struct sb_drafter_ops *ops =
        sb_spec_parse(&spec, text, NULL) == SB_OK ? sb_drafter_find(spec.name) : NULL;
    sb_spec_finish(&spec);
    return ops && ops->default_policy ? ops->default_policy : "constant";
}

static enum sb_status open_drafter(struct replay *r, const char *text, struct sb_error *err)
{
    const char *policy = r->options->policy ? r->options->policy : default_policy(text);
    enum sb_status rc = open_policy(r, policy, err);
    const struct sb_drafter_env env = {
        .tokenizer = r->tokenizer,
        .sampling = r->sampling,
        .eos = r->eos,
        .n_eos = r->n_eos,
        .max_context = r->max_context,
        .n_vocab = r->n_vocab,
        .policy = &r->policy.policy,
    };
    if (rc == SB_OK)
        rc = sb_part_open(&r->drafter, text, &env, err);
    if (rc == SB_OK && r->drafter.rows != SB_TARGET_ROWS_NONE)
        rc = sb_fail(err, SB_EUSAGE,
                     "drafter %s reads the target's rows, which a recording does not have; use "
                     "specbench run",
                     text);
    if (rc == SB_OK)
        rc = sb_tree_create(&r->tree, r->drafter.most + 1, err);
    r->n_nodes = r->tree.cap;
    r->tree.eos = r->eos;
    r->tree.n_eos = r->n_eos;
    return rc;
}

/* ---- a generation ---- */

struct walk {
    const struct sb_recorded *g;
    struct sb_rng_dice dice;
    size_t n;    /* committed, of the prompt and the recorded tokens */
    size_t room; /* tokens that might still have come */
    struct sb_step step;
    int64_t decode_ns;
};

static struct sb_context context_of(struct replay *r, struct walk *w)
{
    return (struct sb_context){ .tokens = r->text,
                                .n = w->n,
                                .n_prompt = w->g->n_prompt_tokens,
                                .dice = sb_rng_dice_at(&w->dice, w->n - 1),
                                .policy = &r->policy.policy,
                                .conversation =
                                    sb_conversation_of(w->g->prompt.question_id, w->g->repeat) };
}

/* Rows that the cache of the run had for a step, which bound its tree near the end of the context. */
static int32_t tree_cap(const struct replay *r, const struct walk *w)
{
    size_t rows = r->n_nodes > MIN_BATCH_ROWS ? (size_t)r->n_nodes : MIN_BATCH_ROWS;
    size_t capacity =
        r->max_context + rows < r->model_context ? r->max_context + rows : r->model_context;
    size_t left = capacity - (w->n - 1);
    return left < (size_t)r->n_nodes ? (int32_t)left : r->n_nodes;
}

static bool has_child(const struct sb_tree *tree, int32_t parent)
{
    for (int32_t i = parent + 1; i < tree->n; i++)
        if (tree->node[i].parent == parent && !tree->node[i].auxiliary)
            return true;
    return false;
}

/* Accept as far as the draft is what was recorded; returns the last node. path[0] is the root. */
static int32_t accept(struct replay *r, struct walk *w, int32_t *path)
{
    size_t end = w->g->n_prompt_tokens + w->g->n_tokens;
    int32_t node = 0, child;
    path[0] = 0;
    w->step.accepted = 0;
    for (size_t at = w->n; at < end; at++, node = child) {
        if ((child = sb_tree_child(&r->tree, node, w->g->tokens[at - w->g->n_prompt_tokens])) < 0)
            break;
        path[++w->step.accepted] = child;
    }
    return node;
}

static void learn(struct replay *r, const struct walk *w)
{
    const struct policy *p = &r->policy;
    if (p->policy.ops->learn)
        p->policy.ops->learn(p->state, p->params,
                             &(struct sb_policy_step){ .drafted = w->step.drafted,
                                                       .accepted = w->step.accepted,
                                                       .leaf = w->step.bonus });
}

static enum sb_status take_step(struct replay *r, struct walk *w, int32_t *path,
                                struct sb_step_row *row, struct sb_error *err)
{
    uint64_t start = sb_now_ns();
    struct sb_context ctx = context_of(r, w);
    r->tree.cap = tree_cap(r, w);
    sb_tree_reset(&r->tree, r->text[w->n - 1], (int32_t)(w->room - 1));
    enum sb_status rc = r->drafter.ops->propose(r->drafter.state, &ctx, &r->tree, err);
    uint64_t drafted = sb_now_ns();
    if (rc != SB_OK)
        return rc;
    w->step.context = (int32_t)w->n;
    int32_t last = accept(r, w, path);
    size_t left = w->g->n_prompt_tokens + w->g->n_tokens - w->n;
    bool ended = (size_t)w->step.accepted == left; /* by an end token, accepted */
    w->step.tokens = w->step.accepted + !ended;
    w->step.drafted = sb_tree_drafted(&r->tree);
    w->step.bonus = !has_child(&r->tree, last);
    memcpy(r->text + w->n, w->g->tokens + (w->n - w->g->n_prompt_tokens),
           (size_t)w->step.tokens * sizeof *r->text);
    w->n += (size_t)w->step.tokens;
    w->room -= (size_t)w->step.tokens;
    learn(r, w);
    ctx = context_of(r, w);
    const struct sb_outcome outcome = { .tree = &r->tree,
                                        .path = path,
                                        .n_path = w->step.accepted + 1,
                                        .final_token = ended ? -1 : r->text[w->n - 1],
                                        .draft_ns = drafted - start };
    uint64_t observing = sb_now_ns();
    if (r->drafter.ops->observe)
        rc = r->drafter.ops->observe(r->drafter.state, &ctx, &outcome, err);
    uint64_t end = sb_now_ns();
    *row = (struct sb_step_row){ .step_no = w->step.step_no++,
                                 .context = w->step.context,
                                 .drafted = w->step.drafted,
                                 .depth = sb_tree_depth(&r->tree),
                                 .accepted = w->step.accepted,
                                 .decided = w->step.accepted + !w->step.bonus,
                                 .tokens = w->step.tokens,
                                 .bonus = w->step.bonus && !ended,
                                 .draft_ns = (int64_t)(drafted - start),
                                 .observe_ns = (int64_t)(end - observing) };
    w->decode_ns += row->draft_ns + row->observe_ns;
    return rc;
}

/* Begin, and all steps of a generation, into steps[most n_tokens]. */
static enum sb_status walk(struct replay *r, struct walk *w, struct sb_step_row *steps,
                           size_t *n_steps, struct sb_error *err)
{
    const struct sb_recorded *g = w->g;
    int32_t *path = sb_alloc_array((size_t)r->n_nodes + 1, sizeof *path);
    if (!path)
        return sb_fail(err, SB_ENOMEM, "replay: out of memory");
    memcpy(r->text, g->prompt_tokens, g->n_prompt_tokens * sizeof *r->text);
    r->text[g->n_prompt_tokens] = g->tokens[0];
    w->n = g->n_prompt_tokens + 1;
    w->room--;
    enum sb_status rc = SB_OK;
    struct sb_context ctx = context_of(r, w);
    if (r->policy.policy.ops->begin)
        r->policy.policy.ops->begin(r->policy.state, r->policy.params);
    if (r->drafter.ops->begin)
        rc = r->drafter.ops->begin(r->drafter.state, &ctx, err);
    for (*n_steps = 0; rc == SB_OK && w->n < g->n_prompt_tokens + g->n_tokens; ++*n_steps)
        rc = take_step(r, w, path, &steps[*n_steps], err);
    sb_free(path);
    return rc;
}

static enum sb_status check_ids(const struct replay *r, const int32_t *id, size_t n,
                                struct sb_error *err)
{
    for (size_t i = 0; i < n; i++)
        if (id[i] < 0 || (size_t)id[i] >= r->n_vocab)
            return sb_fail(err, SB_EFORMAT,
                           "a recorded token is %" PRId32 ", the vocabulary has %zu", id[i],
                           r->n_vocab);
    return SB_OK;
}

static enum sb_status store(struct replay *r, const struct walk *w, const struct sb_step_row *steps,
                            size_t n_steps, struct sb_error *err)
{
    const struct sb_recorded *g = w->g;
    struct sb_prompt_row prompt = g->prompt;
    struct sb_generation_row row = { .arm_id = r->arm_id,
                                     .repeat = g->repeat,
                                     .status = "ok",
                                     .finish = g->finish,
                                     .n_prompt_tokens = 0,
                                     .tokens = g->tokens,
                                     .n_tokens = g->n_tokens,
                                     .decode_ns = w->decode_ns,
                                     .wall_ns = w->decode_ns,
                                     .order_no = r->order_no++,
                                     .steps = steps,
                                     .n_steps = n_steps };
    prompt.experiment_id = r->result->experiment_id;
    enum sb_status rc = sb_store_prompt(r->to, &prompt, &row.prompt_id, err);
    return rc == SB_OK ? sb_store_generation(r->to, &row, err) : rc;
}

static enum sb_status replay_one(void *self, const struct sb_recorded *g, struct sb_error *err)
{
    struct replay *r = self;
    const struct sb_recorded_arm *arm = r->options->arm;
    if (r->options->stop && *r->options->stop)
        return sb_fail(err, SB_EINTERRUPTED, "interrupted");
    if (g->n_prompt_tokens < 1 || g->n_tokens < 1 ||
        g->n_prompt_tokens + g->n_tokens > r->max_context)
        return sb_fail(err, SB_EFORMAT,
                       "question %" PRId64 ": %zu and %zu tokens, the run's context has %zu",
                       g->prompt.question_id, g->n_prompt_tokens, g->n_tokens, r->max_context);
    uint64_t key = sb_rng_mix(sb_rng_mix((uint64_t)arm->seed, (uint64_t)g->prompt.question_id),
                              (uint64_t)g->repeat << 16 | (uint64_t)(g->prompt.turn - 1));
    struct walk w = { .g = g,
                      .dice = sb_rng_dice_make(key, SB_STREAM_DRAFT, SB_STREAM_DRAFT),
                      .room = r->max_context - g->n_prompt_tokens };
    w.room = w.room < (size_t)arm->max_new_tokens ? w.room : (size_t)arm->max_new_tokens;
    size_t n_steps = 0;
    struct sb_step_row *steps = sb_alloc_array(g->n_tokens, sizeof *steps);
    enum sb_status rc = steps ? check_ids(r, g->prompt_tokens, g->n_prompt_tokens, err)
                              : sb_fail(err, SB_ENOMEM, "replay: out of memory");
    if (rc == SB_OK)
        rc = check_ids(r, g->tokens, g->n_tokens, err);
    if (rc == SB_OK && g->n_tokens > w.room)
        rc = sb_fail(err, SB_EFORMAT, "question %" PRId64 ": %zu tokens, the run allowed %zu",
                     g->prompt.question_id, g->n_tokens, w.room);
    /* A generation that its first token ended never met the drafter. */
    if (rc == SB_OK && g->n_tokens > 1)
        rc = walk(r, &w, steps, &n_steps, err);
    if (rc == SB_OK)
        rc = store(r, &w, steps, n_steps, err);
    r->result->generations += rc == SB_OK;
    sb_free(steps);
    return rc;
}

/* ---- all of it ---- */

static enum sb_status store_experiment(struct replay *r, struct sb_error *err)
{
    const struct sb_recorded_arm *arm = r->options->arm;
    struct sb_host host;
    const struct sb_model_row model = { .name = arm->target,
                                        .config_json = arm->config_json,
                                        .tokenizer_hash = arm->tokenizer_hash };
    struct sb_experiment_row row = { .name = arm->name,
                                     .content_key = "replay",
                                     .seed = arm->seed,
                                     .repeats = 1,
                                     .max_new_tokens = arm->max_new_tokens,
                                     .temperature = arm->temperature,
                                     .top_p = arm->top_p,
                                     .top_k = arm->top_k };
    sb_host_describe(&host);
    enum sb_status rc = sb_store_host(r->to, &host.row, &row.host_id, err);
    if (rc == SB_OK)
        rc = sb_store_model(r->to, &model, &row.target_model_id, err);
    return rc == SB_OK ? sb_store_experiment(r->to, &row, &r->result->experiment_id, err) : rc;
}

static enum sb_status store_arm(struct replay *r, int arm_no, struct sb_error *err)
{
    char *label = sb_spec_text(&r->drafter.spec);
    if (!label)
        return sb_fail(err, SB_ENOMEM, "replay: out of memory");
    bool cold = r->sampling.temperature <= 0;
    const struct sb_arm_row row = {
        .experiment_id = r->result->experiment_id,
        .arm_no = arm_no,
        .label = label,
        .drafter = r->drafter.ops->name,
        .verifier = cold ? "greedy" : "naive-sample",
        .policy = r->policy.policy.ops->name,
        .guarantee = sb_guarantee_name(cold ? SB_GREEDY_EXACT : SB_DISTRIBUTION_EXACT),
    };
    enum sb_status rc = sb_store_arm(r->to, &row, &r->arm_id, err);
    sb_free(label);
    return rc;
}

static enum sb_status replay_drafter(struct replay *r, int arm_no, const char *text,
                                     struct sb_error *err)
{
    enum sb_status rc = open_drafter(r, text, err);
    if (rc == SB_OK)
        rc = store_arm(r, arm_no, err);
    if (rc == SB_OK)
        rc = sb_recorded_each(r->from, r->options->arm->arm_id, replay_one, r, err);
    close_drafter(r);
    return rc;
}

/* Open each once, so that what is wrong is said before anything is replayed. */
static enum sb_status try_drafters(struct replay *r, const char *const *drafters, size_t n,
                                   struct sb_error *err)
{
    enum sb_status rc = SB_OK;
    for (size_t i = 0; i < n && rc == SB_OK; i++) {
        rc = open_drafter(r, drafters[i], err);
        close_drafter(r);
    }
    return rc;
}

enum sb_status sb_replay(struct sb_store *from, struct sb_store *to, const char *const *drafters,
                         size_t n_drafters, const struct sb_replay_options *options,
                         struct sb_replay_result *result, struct sb_error *err)
{
    struct replay r = { .options = options, .from = from, .to = to, .result = result };
    *result = (struct sb_replay_result){ 0 };
    enum sb_status rc = read_run(&r, err);
    if (rc == SB_OK)
        rc = try_drafters(&r, drafters, n_drafters, err);
    if (rc == SB_OK)
        rc = store_experiment(&r, err);
    uint64_t start = sb_now_ns();
    for (size_t i = 0; i < n_drafters && rc == SB_OK; i++)
        rc = replay_drafter(&r, (int)i, drafters[i], err);
    result->seconds = (double)(sb_now_ns() - start) / 1e9;
    if (rc == SB_OK && result->generations == 0)
        rc = sb_fail(err, SB_EINPUT, "arm '%s' has no generations to replay", options->arm->label);
    sb_tokenizer_close(r.tokenizer);
    sb_free(r.text);
    return rc;
}
