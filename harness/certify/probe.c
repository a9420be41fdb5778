#include "harness/certify/probe.h"

#include <math.h>
#include <stddef.h>
#include <string.h>

#include "harness/core/alloc.h"
#include "harness/decode/draw.h"

enum { MAX_DEPTH = 4, MAX_WIDTH = 4, MAX_NODES = 64 };

struct probe_params {
    const char *model, *kind, *wrong;
    int64_t depth, width;
    bool coupled;
    double heat;
};

static const struct sb_param probe_params[] = {
    { .name = "model",
      .type = SB_PARAM_STRING,
      .offset = offsetof(struct probe_params, model),
      .required = true,
      .meaning = "the draft model" },
    { .name = "kind",
      .type = SB_PARAM_CHOICE,
      .offset = offsetof(struct probe_params, kind),
      .fallback = "iid",
      .choices = "onehot|iid|wor|paths|hub|topk+1|mixture",
      .meaning = "how children are drawn" },
    { .name = "depth",
      .type = SB_PARAM_INT,
      .offset = offsetof(struct probe_params, depth),
      .fallback = "3",
      .min = 1,
      .max = MAX_DEPTH,
      .meaning = "levels" },
    { .name = "width",
      .type = SB_PARAM_INT,
      .offset = offsetof(struct probe_params, width),
      .fallback = "1",
      .min = 1,
      .max = MAX_WIDTH,
      .meaning = "children per node" },
    { .name = "coupled",
      .type = SB_PARAM_BOOL,
      .offset = offsetof(struct probe_params, coupled),
      .fallback = "false",
      .meaning = "drawn without replacement by races of shared noise" },
    { .name = "heat",
      .type = SB_PARAM_NUMBER,
      .offset = offsetof(struct probe_params, heat),
      .fallback = "1",
      .min = 0.1,
      .max = 10,
      .meaning = "its temperature over the target's: a draft model that is the target needs one" },
    { .name = "wrong",
      .type = SB_PARAM_CHOICE,
      .offset = offsetof(struct probe_params, wrong),
      .fallback = "no",
      .choices = "no|top|dropped",
      .meaning = "draw otherwise than claimed" },
    { 0 },
};

struct probe {
    struct sb_drawing drawing;
    struct sb_sampling sampling;
    struct sb_seq *seq;
    size_t n_vocab;
    double *q;       /* [MAX_NODES, n_vocab]; the row of node i is the i-th */
    double *flat;    /* [n_vocab] the other drafter of a mixture: every token alike */
    double *scratch; /* [n_vocab] */
    void *sampling_scratch;
    struct sb_row row[MAX_NODES];
    enum sb_draft_rows rows;
};

static enum sb_draw_kind kind_of(const char *name)
{
    int kind = SB_DRAW_ONEHOT;
    while (kind < SB_DRAW_KINDS && strcmp(sb_draw_kind_name((enum sb_draw_kind)kind), name) != 0)
        kind++;
    return (enum sb_draw_kind)kind;
}

static const char *wrong_name(enum sb_misdraw wrong)
{
    return wrong == SB_DRAWN_TOP ? "top" : wrong == SB_DRAWN_DROPPED ? "dropped" : "no";
}

char *sb_probe_text(const struct sb_drawing *d, const char *model, double heat)
{
    return sb_strf("probe:model='%s',kind=%s,depth=%d,width=%d,coupled=%d,heat=%g,wrong=%s", model,
                   sb_draw_kind_name(d->kind), d->depth, d->width, d->coupled, heat,
                   wrong_name(d->wrong));
}

static unsigned probe_kinds(const void *params, const struct sb_sampling *sampling)
{
    const struct probe_params *p = params;
    return p ? SB_KIND_BIT(kind_of(p->kind)) : SB_KINDS_ALL;
}

static bool probe_branches(const void *params)
{
    const struct probe_params *p = params;
    return !p || p->width > 1;
}

static int32_t probe_max_nodes(const void *params, const struct sb_policy *policy)
{
    return MAX_NODES - 1;
}

static enum sb_status probe_open(void *st, const struct sb_drafter_env *env, struct sb_error *err)
{
    struct probe *probe = st;
    const struct probe_params *p = env->params;
    struct sb_model *model;
    const struct sb_tokenizer *tokenizer;
    enum sb_status rc = env->load_model(env->loader, p->model, &model, &tokenizer, err);
    if (rc != SB_OK)
        return rc;
    if (sb_model_config(model)->n_vocab != env->n_vocab)
        return sb_fail(err, SB_EUSAGE,
                       "drafter probe: model %s has a vocabulary of %zu, the target one of %zu",
                       p->model, sb_model_config(model)->n_vocab, env->n_vocab);
    probe->drawing = (struct sb_drawing){
        .kind = kind_of(p->kind),
        .depth = (int32_t)p->depth,
        .width = (int32_t)p->width,
        .coupled = p->coupled,
        .wrong = strcmp(p->wrong, "top") == 0       ? SB_DRAWN_TOP
                 : strcmp(p->wrong, "dropped") == 0 ? SB_DRAWN_DROPPED
                                                    : SB_DRAWN_RIGHT,
    };
    probe->sampling = env->sampling;
    probe->sampling.temperature *= p->heat;
    probe->n_vocab = env->n_vocab;
    probe->rows = env->draft_rows;
    probe->q = sb_alloc_array(MAX_NODES * env->n_vocab, sizeof *probe->q);
    probe->flat = sb_alloc_array(env->n_vocab, sizeof *probe->flat);
    probe->scratch = sb_alloc(sb_draw_scratch_bytes(env->n_vocab));
    probe->sampling_scratch = sb_alloc(sb_sampling_scratch_bytes(env->n_vocab));
    if (!probe->q || !probe->flat || !probe->scratch || !probe->sampling_scratch)
        return sb_fail(err, SB_ENOMEM, "drafter probe: no memory for its rows");
    for (size_t t = 0; t < env->n_vocab; t++)
        probe->flat[t] = 1 / (double)env->n_vocab;
    size_t capacity = sb_model_config(model)->max_context;
    if (env->max_context + MAX_NODES < capacity)
        capacity = env->max_context + MAX_NODES;
    return sb_seq_create(&probe->seq, model, capacity, MAX_NODES, err);
}

static void probe_close(void *st)
{
    struct probe *probe = st;
    sb_seq_destroy(probe->seq);
    sb_free(probe->q);
    sb_free(probe->flat);
    sb_free(probe->scratch);
    sb_free(probe->sampling_scratch);
    *probe = (struct probe){ 0 };
}

static enum sb_status probe_begin(void *st, const struct sb_context *ctx, struct sb_error *err)
{
    sb_seq_truncate(((struct probe *)st)->seq, 0);
    return SB_OK;
}

/* Rows of all nodes so far; those from `first` on are made ready in q. */
static enum sb_status compute(struct probe *probe, const struct sb_tree *tree, int32_t first,
                              struct sb_error *err)
{
    for (int32_t i = 0; i < tree->n; i++)
        probe->row[i] = (struct sb_row){ .token = tree->node[i].token,
                                         .parent = tree->node[i].parent,
                                         .want_logits = i >= first };
    enum sb_status rc = sb_forward(probe->seq, probe->row, (size_t)tree->n, NULL, err);
    for (int32_t i = first; i < tree->n && rc == SB_OK; i++) {
        double *q = probe->q + (size_t)i * probe->n_vocab;
        sb_sampling_apply(q, &probe->sampling, sb_seq_logits(probe->seq, (size_t)i), probe->n_vocab,
                          probe->sampling_scratch);
        if (isnan(q[0]))
            rc = sb_fail(err, SB_EFORMAT, "drafter probe: its logits hold NaN or infinity");
    }
    return rc;
}

/* Draw under the nodes from `first` on, and leave rows where the verifier wants them. */
static void grow(struct probe *probe, const struct sb_context *ctx, struct sb_tree *tree,
                 int32_t first)
{
    for (int32_t i = first, last = tree->n; i < last; i++) {
        const double *const q[] = { probe->q + (size_t)i * probe->n_vocab, probe->flat };
        bool inner = sb_drawing_goes_on(&probe->drawing, tree, i);
        if (inner)
            sb_drawing_children(&probe->drawing, tree, i, q, probe->n_vocab, &ctx->dice,
                                probe->scratch);
        inner = tree->node[i].kind != SB_DRAW_NONE;
        if (probe->rows == SB_DRAFT_ROWS_ALL || (inner && probe->rows == SB_DRAFT_ROWS_PARENTS))
            tree->node[i].draft_row = q[0];
    }
}

static enum sb_status probe_propose(void *st, const struct sb_context *ctx, struct sb_tree *tree,
                                    struct sb_error *err)
{
    struct probe *probe = st;
    size_t have = sb_seq_length(probe->seq), last_row;
    enum sb_status rc = SB_OK;
    if (tree->max_depth < 1)
        return SB_OK;
    if (have + 1 < ctx->n) /* the root itself stays in the batch */
        rc = sb_seq_prefill(probe->seq, ctx->tokens + have, ctx->n - 1 - have, NULL, 0, &last_row,
                            err);
    for (int32_t level = 0, first = 0; rc == SB_OK && first < tree->n; level++) {
        bool more = level < probe->drawing.depth && level < tree->max_depth;
        if (!more && probe->rows != SB_DRAFT_ROWS_ALL)
            break;
        int32_t last = tree->n;
        rc = compute(probe, tree, first, err);
        if (rc == SB_OK)
            grow(probe, ctx, tree, first);
        first = last;
    }
    return rc;
}

const struct sb_drafter_ops sb_probe_drafter = {
    .name = "probe",
    .summary = "certify's own drafts, of every kind of draw",
    .paper = "",
    .params = probe_params,
    .params_size = sizeof(struct probe_params),
    .state_size = sizeof(struct probe),
    .kinds_greedy = SB_KINDS_ALL,
    .kinds_sampling = SB_KINDS_ALL,
    .kinds = probe_kinds,
    .draft_rows = SB_DRAFT_ROWS_ALL,
    .makes_trees = true,
    .branches = probe_branches,
    .open = probe_open,
    .begin = probe_begin,
    .propose = probe_propose,
    .close = probe_close,
    .max_nodes = probe_max_nodes,
};
