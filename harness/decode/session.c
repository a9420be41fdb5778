#include "harness/decode/session.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "harness/core/alloc.h"
#include "harness/core/clock.h"
#include "kernels/prob.h"

enum { DEFAULT_CONTEXT = 4096, MIN_BATCH_ROWS = 64, MAX_END_TOKENS = 64 };

/* A plug-in's parameters. The struct borrows strings from the spec, so the session keeps a copy. */
struct plug {
    struct sb_spec spec;
    void *params;
};

struct sb_session {
    struct sb_model *model;
    struct sb_seq *seq;
    struct sb_sampling sampling;
    size_t n_vocab, max_context;
    sb_token eos[MAX_END_TOKENS];
    size_t n_eos; /* 0 when generation ignores them */

    const struct sb_drafter_ops *drafter;
    const struct sb_verifier_ops *verifier;
    struct sb_policy policy;
    struct plug drafter_plug, verifier_plug, policy_plug;
    void *state; /* the drafter's */
    bool opened;

    struct sb_tree tree;
    size_t n_nodes;     /* the tree's full capacity; near the end of the context it has less */
    struct sb_row *row; /* [n_nodes] */
    sb_token *text;     /* [max_context] committed tokens */
    void *scratch;      /* the verifier's */
    int32_t *path;      /* [n_nodes] */
    uint8_t *decision;  /* [n_nodes] */
    struct sb_taps taps;

    /* Target rows after S, made when a verifier first asks: a step pays for the nodes it visits. The
     * memory is as large as the tree, but only used pages of it ever become real. */
    double *prob;     /* [n_nodes, n_vocab]; NULL when the verifier is greedy */
    int32_t *prob_of; /* [n_nodes] index into prob, -1: not made */
    double *mixed; /* like prob: the laws behind one-hot rows, where the drafter mixes; or NULL */
    bool mixes;    /* the request at hand has the drafter's law mixed in */
    float *const *node_taps; /* the plan's hidden states at the tree's nodes: node 0 is at ... */
    size_t node_taps_from;   /* ... this row */
    int32_t n_prob;
    size_t first_row; /* batch row of the root's logits */
    void *sampling_scratch;
};

const char *sb_finish_name(enum sb_finish finish)
{
    static const char *const names[] = { "length", "eos", "context", "stopped" };
    return (unsigned)finish < sizeof names / sizeof *names ? names[finish] : "unknown";
}

void sb_generation_finish(struct sb_generation *generation)
{
    if (!generation)
        return;
    sb_tokens_finish(&generation->tokens);
    *generation = (struct sb_generation){ 0 };
}

/* ---- opening ---- */

static enum sb_status out_of_memory(struct sb_error *err, const char *what)
{
    return sb_fail(err, SB_ENOMEM, "session: no memory for %s", what);
}

static enum sb_status unknown_plug(struct sb_error *err, const char *kind, const char *name,
                                   const char *names)
{
    return sb_fail(err, SB_EUSAGE, "no %s is named '%s'; there are: %s", kind, name, names);
}

/* "a, b, c" of a registry: entries begin with their name. */
static void list_names(char *text, size_t size, const void *const *registry)
{
    size_t used = 0;
    text[0] = '\0';
    for (size_t i = 0; registry[i] && used < size; i++)
        used += (size_t)snprintf(text + used, size - used, "%s%s", i ? ", " : "",
                                 *(const char *const *)registry[i]);
}

static enum sb_status find_plugs(struct sb_session *s, const struct sb_session_options *o,
                                 struct sb_error *err)
{
    char names[400];
    const char *drafter = o->drafter ? o->drafter->name : "none";
    s->drafter = o->drafter_ops ? o->drafter_ops : sb_drafter_find(drafter);
    if (!s->drafter) {
        list_names(names, sizeof names, (const void *const *)sb_drafters);
        return unknown_plug(err, "drafter", drafter, names);
    }
    const char *policy = o->policy                    ? o->policy->name
                         : s->drafter->default_policy ? s->drafter->default_policy
                                                      : "constant";
    s->policy.ops = sb_policy_find(policy);
    if (!s->policy.ops) {
        list_names(names, sizeof names, (const void *const *)sb_policies);
        return unknown_plug(err, "policy", policy, names);
    }
    s->verifier = o->verifier_ops ? o->verifier_ops
                  : o->verifier   ? sb_verifier_find(o->verifier->name)
                                  : NULL;
    if (o->verifier && !s->verifier) {
        list_names(names, sizeof names, (const void *const *)sb_verifiers);
        return unknown_plug(err, "verifier", o->verifier->name, names);
    }
    return SB_OK;
}

static enum sb_status open_plug(struct plug *plug, const char *kind, const char *name,
                                const struct sb_spec *spec, const struct sb_param *table,
                                size_t size, struct sb_error *err)
{
    char owner[80];
    snprintf(owner, sizeof owner, "%s %s", kind, name);
    enum sb_status rc = sb_spec_init(&plug->spec, name, err);
    for (size_t i = 0; rc == SB_OK && spec && i < spec->n; i++)
        rc = sb_spec_set(&plug->spec, spec->set[i].key, spec->set[i].value, err);
    if (rc != SB_OK)
        return rc;
    plug->params = sb_alloc_zero(1, size ? size : 1);
    if (!plug->params)
        return out_of_memory(err, "parameters");
    return sb_params_apply(plug->params, table, &plug->spec, owner, err);
}

static void close_plug(struct plug *plug)
{
    sb_spec_finish(&plug->spec);
    sb_free(plug->params);
}

static enum sb_status open_plugs(struct sb_session *s, const struct sb_session_options *o,
                                 struct sb_error *err)
{
    enum sb_status rc = find_plugs(s, o, err);
    if (rc == SB_OK)
        rc = open_plug(&s->drafter_plug, "drafter", s->drafter->name, o->drafter,
                       s->drafter->params, s->drafter->params_size, err);
    if (rc != SB_OK)
        return rc;
    if (!s->verifier)
        s->verifier = sb_verifier_default_with(s->drafter, s->drafter_plug.params, &s->sampling);
    if (!s->verifier)
        return sb_fail(err, SB_EUSAGE, "no exact verifier takes the drafts of %s",
                       s->drafter->name);
    rc = open_plug(&s->verifier_plug, "verifier", s->verifier->name, o->verifier,
                   s->verifier->params, s->verifier->params_size, err);
    if (rc == SB_OK && s->verifier->check)
        rc = s->verifier->check(s->verifier_plug.params, err);
    if (rc == SB_OK)
        rc = open_plug(&s->policy_plug, "policy", s->policy.ops->name, o->policy,
                       s->policy.ops->params, s->policy.ops->params_size, err);
    if (rc != SB_OK)
        return rc;
    s->policy.params = s->policy_plug.params;
    s->policy.state = sb_alloc_zero(1, s->policy.ops->state_size + 1);
    if (!s->policy.state)
        return out_of_memory(err, "the policy");
    rc = s->policy.ops->open ? s->policy.ops->open(s->policy.state, s->policy.params, err) : SB_OK;
    if (rc != SB_OK)
        return rc;
    return sb_pair_check_with(s->drafter, s->drafter_plug.params, s->verifier, &s->sampling, err);
}

static void find_end_tokens(struct sb_session *s, const struct sb_tokenizer *tokenizer)
{
    const struct sb_config *config = sb_model_config(s->model);
    for (size_t id = 0; id < s->n_vocab && s->n_eos < MAX_END_TOKENS; id++) {
        bool ends = tokenizer && sb_tokenizer_is_eog(tokenizer, (sb_token)id);
        for (size_t i = 0; i < config->n_eos && i < SB_MAX_EOS; i++)
            ends = ends || config->eos[i] == (sb_token)id;
        if (ends)
            s->eos[s->n_eos++] = (sb_token)id;
    }
}

static enum sb_status open_target(struct sb_session *s, const struct sb_session_options *o,
                                  struct sb_error *err)
{
    const struct sb_config *config = sb_model_config(o->target);
    s->model = o->target;
    s->n_vocab = config->n_vocab;
    s->sampling = o->sampling;
    if (!(o->sampling.temperature >= 0) || !(o->sampling.top_p >= 0 && o->sampling.top_p <= 1))
        return sb_fail(err, SB_EUSAGE,
                       "temperature=%g, top_p=%g: expected a temperature of at least 0 and top_p "
                       "from 0 to 1",
                       o->sampling.temperature, o->sampling.top_p);
    if (o->max_context > config->max_context)
        return sb_fail(err, SB_EUSAGE, "max_context=%zu: the target was made for %zu positions",
                       o->max_context, config->max_context);
    s->max_context = o->max_context                          ? o->max_context
                     : config->max_context < DEFAULT_CONTEXT ? config->max_context
                                                             : DEFAULT_CONTEXT;
    if (!o->ignore_eos)
        find_end_tokens(s, o->tokenizer);
    return SB_OK;
}

static enum sb_status allocate(struct sb_session *s, struct sb_error *err)
{
    int32_t n_draft =
        s->drafter->max_nodes ? s->drafter->max_nodes(s->drafter_plug.params, &s->policy) : 0;
    enum sb_status rc = sb_tree_create(&s->tree, n_draft + 1, err);
    if (rc != SB_OK)
        return rc;
    size_t cap = s->n_nodes = (size_t)s->tree.cap;
    size_t rows = cap > MIN_BATCH_ROWS ? cap : MIN_BATCH_ROWS;
    bool one_hot = s->sampling.temperature <= 0;
    bool samples = s->verifier->guarantee != SB_GREEDY_EXACT || s->drafter->mix;
    bool mixed = s->drafter->mix && one_hot;
    s->tree.eos = s->eos;
    s->tree.n_eos = s->n_eos;
    s->row = sb_alloc_array(cap, sizeof *s->row);
    s->text = sb_alloc_array(s->max_context, sizeof *s->text);
    s->path = sb_alloc_array(cap, sizeof *s->path);
    s->decision = sb_alloc_array(cap, sizeof *s->decision);
    s->prob_of = sb_alloc_array(cap, sizeof *s->prob_of);
    s->sampling_scratch = sb_alloc(sb_sampling_scratch_bytes(s->n_vocab));
    s->scratch =
        sb_alloc(s->verifier->scratch_size
                     ? s->verifier->scratch_size(s->verifier_plug.params, s->n_vocab, s->tree.cap)
                     : 0);
    if (samples && cap <= SIZE_MAX / s->n_vocab)
        s->prob = sb_alloc_array(cap * s->n_vocab, sizeof *s->prob);
    if (mixed && s->prob)
        s->mixed = sb_alloc_array(cap * s->n_vocab, sizeof *s->mixed);
    if (!s->row || !s->text || !s->path || !s->decision || !s->prob_of || !s->sampling_scratch ||
        !s->scratch || (samples && !s->prob) || (mixed && !s->mixed))
        return out_of_memory(err, "the decoding loop");
    /* A batch shares the context with the text where the model has no positions beyond it. */
    size_t capacity = sb_model_config(s->model)->max_context;
    if (s->max_context + rows < capacity)
        capacity = s->max_context + rows;
    return sb_seq_create(&s->seq, s->model, capacity, rows, err);
}

static enum sb_status open_drafter(struct sb_session *s, const struct sb_session_options *o,
                                   struct sb_error *err)
{
    s->state = sb_alloc_zero(1, s->drafter->state_size + 1);
    if (!s->state)
        return out_of_memory(err, "the drafter");
    s->taps.plan.n_layers = sb_model_config(s->model)->n_layers;
    s->taps.plan.d_model = sb_model_config(s->model)->d_model;
    s->opened = true; /* close takes a state that open left half made */
    if (!s->drafter->open)
        return SB_OK;
    const struct sb_drafter_env env = {
        .target = s->model,
        .tokenizer = o->tokenizer,
        .sampling = s->sampling,
        .eos = s->eos,
        .n_eos = s->n_eos,
        .max_context = s->max_context,
        .n_vocab = s->n_vocab,
        .params = s->drafter_plug.params,
        .draft_rows = sb_verifier_draft_rows(s->verifier, s->verifier_plug.params),
        .policy = &s->policy,
        .taps = &s->taps.plan,
        .load_model = o->load_model,
        .loader = o->loader,
        .uses = o->uses,
    };
    enum sb_status rc = s->drafter->open(s->state, &env, err);
    return rc == SB_OK ? sb_taps_allocate(&s->taps, s->max_context, s->n_nodes, err) : rc;
}

enum sb_status sb_session_create(struct sb_session **out, const struct sb_session_options *options,
                                 struct sb_error *err)
{
    struct sb_session *s = sb_alloc_zero(1, sizeof *s);
    if (!s)
        return out_of_memory(err, "a session");
    enum sb_status rc = open_target(s, options, err);
    if (rc == SB_OK)
        rc = open_plugs(s, options, err);
    if (rc == SB_OK)
        rc = allocate(s, err);
    if (rc == SB_OK)
        rc = open_drafter(s, options, err);
    if (rc == SB_OK)
        *out = s;
    else
        sb_session_destroy(s);
    return rc;
}

void sb_session_destroy(struct sb_session *s)
{
    if (!s)
        return;
    if (s->opened && s->drafter->close)
        s->drafter->close(s->state);
    sb_seq_destroy(s->seq);
    sb_tree_finish(&s->tree);
    sb_taps_finish(&s->taps);
    close_plug(&s->drafter_plug);
    close_plug(&s->verifier_plug);
    close_plug(&s->policy_plug);
    sb_free(s->policy.state);
    sb_free(s->state);
    sb_free(s->row);
    sb_free(s->text);
    sb_free(s->scratch);
    sb_free(s->path);
    sb_free(s->decision);
    sb_free(s->prob);
    sb_free(s->prob_of);
    sb_free(s->mixed);
    sb_free(s->sampling_scratch);
    sb_free(s);
}

const struct sb_drafter_ops *sb_session_drafter(const struct sb_session *session)
{
    return session->drafter;
}

const struct sb_verifier_ops *sb_session_verifier(const struct sb_session *session)
{
    return session->verifier;
}

const struct sb_policy_ops *sb_session_policy(const struct sb_session *session)
{
    return session->policy.ops;
}

enum sb_guarantee sb_session_guarantee(const struct sb_session *session)
{
    return sb_pair_guarantee(session->drafter, session->verifier, session->verifier_plug.params);
}

bool sb_session_keeps_run(const struct sb_session *session)
{
    return sb_drafter_keeps_run(session->drafter, session->drafter_plug.params) ||
           sb_params_choice_is(session->policy.params, session->policy.ops->params, "scope", "run");
}

size_t sb_session_eos(const struct sb_session *session, const sb_token **eos)
{
    *eos = session->eos;
    return session->n_eos;
}

/* ---- target rows, as verifiers see them ---- */

static const float *node_logits(const struct sb_session *s, int32_t node)
{
    return sb_seq_logits(s->seq, s->first_row + (size_t)node);
}

static const float *raw_row(void *self, int32_t node)
{
    return node_logits(self, node);
}

/* Let the drafter mix its law into `row`. At temperature 0 the mixture goes to `mixed`, and the row is
 * one-hot at its arg max. */
static void mix_row(struct sb_session *s, int32_t node, const float *logits, double *row,
                    double *mixed)
{
    const float *taps[SB_MAX_TAPS];
    size_t d = s->taps.plan.d_model;
    if (isnan(row[0]))
        return;
    for (size_t i = 0; i < s->taps.plan.n; i++)
        taps[i] = s->node_taps[i] + (s->node_taps_from + (size_t)node) * d;
    s->drafter->mix(s->state, &s->tree, node, taps, logits, row);
    if (!mixed)
        return;
    memcpy(mixed, row, s->n_vocab * sizeof *row);
    memset(row, 0, s->n_vocab * sizeof *row);
    row[sb_prob_argmax(mixed, s->n_vocab)] = 1;
}

static const double *node_row(void *self, int32_t node)
{
    struct sb_session *s = self;
    if (s->prob_of[node] < 0) {
        const float *logits = node_logits(s, node);
        if (!logits)
            return NULL;
        size_t at = (size_t)s->n_prob * s->n_vocab;
        s->prob_of[node] = s->n_prob++;
        sb_sampling_apply(s->prob + at, &s->sampling, logits, s->n_vocab, s->sampling_scratch);
        if (s->mixes)
            mix_row(s, node, logits, s->prob + at, s->mixed ? s->mixed + at : NULL);
    }
    return s->prob + (size_t)s->prob_of[node] * s->n_vocab;
}

static const double *node_mixed(void *self, int32_t node)
{
    struct sb_session *s = self;
    return node_row(s, node) ? s->mixed + (size_t)s->prob_of[node] * s->n_vocab : NULL;
}

static size_t node_argmax(void *self, int32_t node)
{
    struct sb_session *s = self;
    if (s->mixes) {
        const double *row = node_row(s, node);
        return row && !isnan(row[0]) ? sb_prob_argmax(row, s->n_vocab) : s->n_vocab;
    }
    const float *logits = node_logits(s, node);
    return logits ? sb_logits_argmax(logits, s->n_vocab) : s->n_vocab;
}

/* ---- generating ---- */

/* One request under way. */
struct run {
    struct sb_session *s;
    const struct sb_request *request;
    struct sb_generation out;
    size_t n;    /* tokens in s->text */
    size_t room; /* tokens that may still come: budget and context */
    struct sb_rng_dice draft_dice, verify_dice;
};

static struct sb_rows target_rows(struct sb_session *s)
{
    return (struct sb_rows){ .row = node_row,
                             .argmax = node_argmax,
                             .logits = s->mixes ? NULL : raw_row,
                             .mixed = s->mixes && s->mixed ? node_mixed : NULL,
                             .self = s,
                             .n_vocab = s->n_vocab,
                             .greedy = s->sampling.temperature <= 0,
                             .trusted = true };
}

/* Walk the tree whose logits stand in the target sequence from batch row `first_row` on. Choices are
 * keyed by the position of the token they make; the root stands at n - 1. */
static enum sb_status verify(struct run *run, size_t first_row, struct sb_verdict *verdict,
                             struct sb_error *err)
{
    struct sb_session *s = run->s;
    const struct sb_rows rows = target_rows(s);
    struct sb_dice dice = sb_rng_dice_at(&run->verify_dice, run->n - 1);
    s->first_row = first_row;
    s->n_prob = 0;
    for (int32_t i = 0; i < s->tree.n; i++)
        s->prob_of[i] = -1;
    *verdict = (struct sb_verdict){ .path = s->path, .decision = s->decision };
    return s->verifier->verify(s->verifier_plug.params, &s->tree, &rows, &dice, s->scratch, verdict,
                               err);
}

static void append(struct run *run, sb_token token)
{
    run->s->text[run->n++] = token;
    run->out.tokens.id[run->out.tokens.n++] = token;
    run->room--;
}

static struct sb_context context_of(struct run *run)
{
    struct sb_context ctx = {
        .tokens = run->s->text,
        .n = run->n,
        .n_prompt = run->request->n_prompt,
        .dice = sb_rng_dice_at(&run->draft_dice, run->n - 1),
        .policy = &run->s->policy,
        .documents = run->request->documents,
        .n_documents = run->request->n_documents,
        .conversation = run->request->conversation,
        .taps = (const float *const *)run->s->taps.row,
    };
    if (run->s->verifier->bottom_up)
        ctx.dice.race = NULL;
    return ctx;
}

/* Is there a reason to stop? The end token comes before the budget, the budget before the context. */
static bool finished(struct run *run)
{
    const struct sb_generation *out = &run->out;
    if (out->tokens.n > 0 && sb_tree_ends(&run->s->tree, out->tokens.id[out->tokens.n - 1]))
        run->out.finish = SB_FINISH_EOS;
    else if (out->tokens.n >= run->request->max_new_tokens)
        run->out.finish = SB_FINISH_LENGTH;
    else if (run->room == 0)
        run->out.finish = SB_FINISH_CONTEXT;
    else if (run->request->stop && *run->request->stop)
        run->out.finish = SB_FINISH_STOPPED;
    else
        return false;
    return true;
}

static void tell_tokens(const struct run *run, size_t n)
{
    const struct sb_tokens *tokens = &run->out.tokens;
    if (run->request->on_tokens && n > 0)
        run->request->on_tokens(run->request->self, tokens->id + tokens->n - n, n);
}

static enum sb_status begin_drafter(struct run *run, struct sb_error *err)
{
    struct sb_session *s = run->s;
    uint64_t start_ns = sb_now_ns();
    if (run->request->plain)
        return SB_OK;
    if (s->policy.ops->begin)
        s->policy.ops->begin(s->policy.state, s->policy.params);
    struct sb_context ctx = context_of(run);
    enum sb_status rc = s->drafter->begin ? s->drafter->begin(s->state, &ctx, err) : SB_OK;
    run->out.begin_ns = sb_now_ns() - start_ns;
    return rc;
}

/* The prompt, and the first token: a plain step at its last row. */
static enum sb_status prefill(struct run *run, struct sb_error *err)
{
    struct sb_session *s = run->s;
    struct sb_verdict verdict;
    struct sb_tap tap[SB_MAX_TAPS];
    size_t last_row;
    sb_seq_truncate(s->seq, 0);
    sb_taps_prefill(&s->taps, tap);
    enum sb_status rc = sb_seq_prefill(s->seq, s->text, run->request->n_prompt, tap, s->taps.plan.n,
                                       &last_row, err);
    sb_tree_reset(&s->tree, s->text[run->n - 1], 0);
    s->node_taps = s->taps.row;
    s->node_taps_from = run->n - 1;
    if (rc == SB_OK && s->mixes)
        rc = begin_drafter(run, err);
    if (rc == SB_OK && run->room > 0)
        rc = verify(run, last_row, &verdict, err);
    if (rc == SB_OK && run->room > 0)
        append(run, verdict.final_token);
    return rc;
}

/* Builds made for finding bugs check every tree; others trust drafters as far as sb_forward does. */
static enum sb_status check_tree(const struct sb_session *s, struct sb_error *err)
{
#if !defined(__OPTIMIZE__) || defined(__SANITIZE_ADDRESS__)
    return sb_tree_check(&s->tree, s->n_vocab, err);
#else
    return SB_OK;
#endif
}

static enum sb_status forward_tree(struct sb_session *s, struct sb_error *err)
{
    for (int32_t i = 0; i < s->tree.n; i++)
        s->row[i] = (struct sb_row){ .token = s->tree.node[i].token,
                                     .parent = s->tree.node[i].parent,
                                     .want_logits = !s->tree.node[i].unread };
    struct sb_tap tap[SB_MAX_TAPS];
    sb_taps_forward(&s->taps, tap);
    s->node_taps = s->taps.batch;
    s->node_taps_from = 0;
    const struct sb_forward_options options = { .taps = tap, .n_taps = s->taps.plan.n };
    return sb_forward(s->seq, s->row, (size_t)s->tree.n, &options, err);
}

/* Take over the verdict's tokens, up to an end token or the last one there is room for. Returns how
 * many; *ended: the path was cut before its final token. */
static size_t keep_tokens(struct run *run, const struct sb_verdict *verdict, bool *ended)
{
    const struct sb_session *s = run->s;
    size_t kept = 0;
    *ended = false;
    for (int32_t i = 1; i < verdict->n_path && !*ended; i++) {
        sb_token token = s->tree.node[verdict->path[i]].token;
        append(run, token);
        kept++;
        *ended = run->room == 0 || sb_tree_ends(&s->tree, token);
    }
    if (!*ended) {
        append(run, verdict->final_token);
        kept++;
    }
    return kept;
}

static enum sb_status observe(struct run *run, const struct sb_verdict *verdict, bool ended,
                              const struct sb_step *step, struct sb_error *err)
{
    struct sb_session *s = run->s;
    if (run->request->plain)
        return SB_OK;
    if (s->policy.ops->learn)
        s->policy.ops->learn(s->policy.state, s->policy.params,
                             &(struct sb_policy_step){ .drafted = step->drafted,
                                                       .accepted = step->accepted,
                                                       .leaf = verdict->bonus });
    if (!s->drafter->observe)
        return SB_OK;
    struct sb_context ctx = context_of(run);
    const struct sb_outcome outcome = {
        .tree = &s->tree,
        .path = verdict->path,
        .n_path = verdict->n_path,
        .final_token = ended ? -1 : verdict->final_token,
        .target = s->seq,
        .draft_ns = step->draft_ns,
        .verify_ns = step->verify_ns,
    };
    return s->drafter->observe(s->state, &ctx, &outcome, err);
}

/* Time since *mark, which moves to now. */
static uint64_t lap(uint64_t *mark)
{
    uint64_t now = sb_now_ns(), passed = now - *mark;
    *mark = now;
    return passed;
}

static void count_step(struct run *run, const struct sb_step *step, uint64_t wall_ns)
{
    run->out.steps++;
    run->out.drafted += step->drafted;
    run->out.accepted += step->accepted;
    run->out.step_tokens += step->tokens;
    run->out.decode_ns += wall_ns;
}

/* Draft, verify, accept, commit, observe. */
static enum sb_status take_step(struct run *run, struct sb_error *err)
{
    struct sb_session *s = run->s;
    struct sb_step step = { .step_no = run->out.steps, .context = (int32_t)run->n };
    struct sb_verdict verdict;
    uint64_t start_ns = sb_now_ns(), mark = start_ns;

    if (s->verifier->bottom_up)
        sb_rng_dice_rekey(&run->draft_dice, sb_rng_mix(run->request->rng_key, run->n));
    struct sb_context ctx = context_of(run);
    size_t rows_left = sb_seq_capacity(s->seq) - sb_seq_length(s->seq);
    s->tree.cap = rows_left < s->n_nodes ? (int32_t)rows_left : (int32_t)s->n_nodes;
    sb_tree_reset(&s->tree, s->text[run->n - 1], (int32_t)(run->room - 1));
    enum sb_status rc =
        run->request->plain ? SB_OK : s->drafter->propose(s->state, &ctx, &s->tree, err);
    step.draft_ns = lap(&mark);
    if (rc == SB_OK)
        rc = check_tree(s, err);
    mark = sb_now_ns();
    if (rc == SB_OK)
        rc = forward_tree(s, err);
    step.verify_ns = lap(&mark);
    if (rc == SB_OK)
        rc = verify(run, 0, &verdict, err);
    if (rc != SB_OK)
        return rc;
    bool ended;
    size_t kept = keep_tokens(run, &verdict, &ended);
    step.accept_ns = lap(&mark);
    /* The root and all kept tokens but the newest, which is the next root. */
    sb_taps_commit(&s->taps, (size_t)step.context - 1, verdict.path, kept);
    rc = sb_seq_commit(s->seq, verdict.path, kept, err);
    step.commit_ns = lap(&mark);

    step.drafted = sb_tree_drafted(&s->tree);
    step.auxiliary = s->tree.n_auxiliary;
    step.depth = sb_tree_depth(&s->tree);
    step.accepted = verdict.n_path - 1;
    step.tokens = (int32_t)kept;
    step.bonus = verdict.bonus && !ended;
    const struct sb_rows rows = target_rows(s);
    step.tree = &s->tree;
    step.decision = s->decision;
    step.path = verdict.path;
    step.n_path = verdict.n_path;
    step.rows = &rows;
    if (rc == SB_OK)
        rc = observe(run, &verdict, ended, &step, err);
    step.observe_ns = lap(&mark);
    if (rc != SB_OK)
        return rc;
    count_step(run, &step, mark - start_ns);
    if (run->request->on_step)
        run->request->on_step(run->request->self, &step);
    tell_tokens(run, kept);
    return SB_OK;
}

static enum sb_status check_request(const struct sb_session *s, const struct sb_request *request,
                                    struct sb_error *err)
{
    if (request->n_prompt < 1)
        return sb_fail(err, SB_EUSAGE, "the prompt is empty: expected at least one token");
    if (request->n_prompt > s->max_context)
        return sb_fail(err, SB_EUSAGE, "the prompt has %zu tokens, the context holds %zu",
                       request->n_prompt, s->max_context);
    for (size_t i = 0; i < request->n_prompt; i++)
        if (request->prompt[i] < 0 || (size_t)request->prompt[i] >= s->n_vocab)
            return sb_fail(err, SB_EUSAGE,
                           "prompt token %zu is %" PRId32 ", the vocabulary has %zu", i,
                           request->prompt[i], s->n_vocab);
    return SB_OK;
}

static enum sb_status generate(struct run *run, struct sb_error *err)
{
    struct sb_session *s = run->s;
    uint64_t start_ns = sb_now_ns();
    s->mixes = s->drafter->mix && !run->request->plain;
    enum sb_status rc = prefill(run, err);
    bool done = rc != SB_OK || finished(run);
    if (!done && !s->mixes)
        rc = begin_drafter(run, err);
    run->out.prefill_ns = sb_now_ns() - start_ns;
    if (rc == SB_OK)
        tell_tokens(run, run->out.tokens.n);
    while (rc == SB_OK && !done) {
        rc = take_step(run, err);
        done = rc == SB_OK && finished(run);
    }
    s->tree.n = 1;
    return rc;
}

enum sb_status sb_session_generate(struct sb_session *session, const struct sb_request *request,
                                   struct sb_generation *out, struct sb_error *err)
{
    enum sb_status rc = check_request(session, request, err);
    if (rc != SB_OK)
        return rc;
    size_t free_positions = session->max_context - request->n_prompt;
    struct run run = {
        .s = session,
        .request = request,
        .n = request->n_prompt,
        .room = request->max_new_tokens < free_positions ? request->max_new_tokens : free_positions,
        .draft_dice = sb_rng_dice_make(request->rng_key, SB_STREAM_DRAFT, SB_STREAM_DRAFT),
        .verify_dice = sb_rng_dice_make(request->rng_key, SB_STREAM_ACCEPT, SB_STREAM_SAMPLE),
    };
    memcpy(session->text, request->prompt, request->n_prompt * sizeof *request->prompt);
    run.out.tokens.id = sb_alloc_array(run.room, sizeof *run.out.tokens.id);
    run.out.tokens.cap = run.room;
    if (!run.out.tokens.id)
        return out_of_memory(err, "the generated tokens");
    if (request->max_new_tokens > 0)
        rc = generate(&run, err);
    if (rc == SB_OK)
        *out = run.out;
    else
        sb_generation_finish(&run.out);
    return rc;
}
