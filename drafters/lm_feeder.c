#include "drafters/lm_feeder.h"

#include <inttypes.h>
#include <string.h>

#include "harness/core/alloc.h"

enum { CATCH_UP_ROWS = 64 };
enum { FIRST_TEXT_ID = 5, MAX_SIZE_DIFFERENCE = 128 }; /* llama.cpp's rule for vocabularies */

/* ---- opening ---- */

static enum sb_status check_vocabulary(const struct sb_drafter_env *env,
                                       const struct sb_model *model,
                                       const struct sb_tokenizer *tokenizer, const char *drafter,
                                       const char *name, struct sb_error *err)
{
    size_t n_target = env->n_vocab, n_draft = sb_model_config(model)->n_vocab;
    size_t difference = n_target > n_draft ? n_target - n_draft : n_draft - n_target;
    if (difference > MAX_SIZE_DIFFERENCE)
        return sb_fail(err, SB_EUSAGE,
                       "drafter %s: model %s has a vocabulary of %zu, the target one of %zu: "
                       "expected a difference of at most %d",
                       drafter, name, n_draft, n_target, MAX_SIZE_DIFFERENCE);
    const struct sb_tokenizer *target = env->tokenizer;
    if (!target || !tokenizer || target == tokenizer)
        return SB_OK;
    if (sb_tokenizer_bos(target) != sb_tokenizer_bos(tokenizer) ||
        sb_tokenizer_eos(target) != sb_tokenizer_eos(tokenizer))
        return sb_fail(err, SB_EUSAGE,
                       "drafter %s: model %s has BOS %" PRId32 " and EOS %" PRId32
                       ", the target %" PRId32 " and %" PRId32,
                       drafter, name, sb_tokenizer_bos(tokenizer), sb_tokenizer_eos(tokenizer),
                       sb_tokenizer_bos(target), sb_tokenizer_eos(target));
    size_t n_a = sb_tokenizer_size(target), n_b = sb_tokenizer_size(tokenizer);
    for (size_t id = FIRST_TEXT_ID; id < n_a && id < n_b; id++) {
        const char *a = sb_tokenizer_piece(target, (sb_token)id);
        const char *b = sb_tokenizer_piece(tokenizer, (sb_token)id);
        if (strcmp(a ? a : "", b ? b : "") != 0)
            return sb_fail(err, SB_EUSAGE,
                           "drafter %s: model %s has another vocabulary than the target: "
                           "token %zu is '%s', there '%s'",
                           drafter, name, id, b ? b : "", a ? a : "");
    }
    return SB_OK;
}

static enum sb_status allocate(struct sb_lm_feeder *f, struct sb_model *model, size_t n_nodes,
                               const char *drafter, struct sb_error *err)
{
    f->n_rows = n_nodes > CATCH_UP_ROWS ? n_nodes : CATCH_UP_ROWS;
    f->row = sb_alloc_array(f->n_rows, sizeof *f->row);
    f->batch = sb_alloc_array(f->n_rows, sizeof *f->batch);
    f->row_of = sb_alloc_array(n_nodes, sizeof *f->row_of);
    f->spine = sb_alloc_array(n_nodes, sizeof *f->spine);
    if (!f->row || !f->batch || !f->row_of || !f->spine)
        return sb_fail(err, SB_ENOMEM, "drafter %s: no memory for drafts of %zu tokens", drafter,
                       n_nodes - 1);
    /* A batch shares the context with the text where the model has no positions beyond it. */
    size_t most = sb_model_config(model)->max_context;
    if (f->max_context + f->n_rows < most)
        most = f->max_context + f->n_rows;
    return sb_seq_create(&f->seq, model, most, f->n_rows, err);
}

enum sb_status sb_lm_feeder_open(struct sb_lm_feeder *f, const struct sb_drafter_env *env,
                                 const char *drafter, const char *model, int32_t most_nodes,
                                 struct sb_error *err)
{
    struct sb_model *loaded = NULL;
    const struct sb_tokenizer *tokenizer = NULL;
    if (!env->load_model)
        return sb_fail(err, SB_EUSAGE, "drafter %s: no draft model can be loaded here", drafter);
    enum sb_status rc = env->load_model(env->loader, model, &loaded, &tokenizer, err);
    if (rc == SB_OK)
        rc = check_vocabulary(env, loaded, tokenizer, drafter, model, err);
    if (rc != SB_OK)
        return rc;
    const struct sb_config *config = sb_model_config(loaded);
    f->n_vocab = config->n_vocab;
    f->n_shared = config->n_vocab < env->n_vocab ? config->n_vocab : env->n_vocab;
    f->max_context =
        config->max_context < env->max_context ? config->max_context : env->max_context;
    return allocate(f, loaded, (size_t)most_nodes + 1, drafter, err);
}

void sb_lm_feeder_close(struct sb_lm_feeder *f)
{
    sb_seq_destroy(f->seq);
    sb_free(f->row);
    sb_free(f->batch);
    sb_free(f->row_of);
    sb_free(f->spine);
    *f = (struct sb_lm_feeder){ 0 };
}

/* ---- the text ---- */

/* An id that only the target has is fed as 0: any draft is lawful, this one is just no better. */
static struct sb_row token_row(const struct sb_lm_feeder *f, sb_token token, int32_t parent)
{
    return (struct sb_row){ .token = (size_t)token < f->n_vocab ? token : 0, .parent = parent };
}

/* Feed and commit the text that the sequence lacks, up to token n; the last row has logits if
 * `logits`. It is then the batch row `root_row`. */
static enum sb_status catch_up(struct sb_lm_feeder *f, const sb_token *tokens, size_t n,
                               bool logits, struct sb_error *err)
{
    enum sb_status rc = SB_OK;
    while (rc == SB_OK && sb_seq_length(f->seq) < n) {
        size_t from = sb_seq_length(f->seq), m = n - from < f->n_rows ? n - from : f->n_rows;
        for (size_t i = 0; i < m; i++) {
            f->row[i] = token_row(f, tokens[from + i], (int32_t)i - 1);
            f->batch[i] = (int32_t)i;
        }
        f->row[m - 1].want_logits = logits && from + m == n;
        rc = sb_forward(f->seq, f->row, m, NULL, err);
        if (rc == SB_OK)
            rc = sb_seq_commit(f->seq, f->batch, m, err);
        f->root_row = m - 1;
    }
    return rc;
}

/* Drop the rows of a draft that was never settled. */
static void drop_draft(struct sb_lm_feeder *f)
{
    if (f->base > 0 && sb_seq_length(f->seq) > f->base)
        sb_seq_truncate(f->seq, f->base);
    f->base = 0;
    f->n_batch = f->n_spine = 0;
}

enum sb_status sb_lm_feeder_begin(struct sb_lm_feeder *f, const struct sb_context *ctx,
                                  struct sb_error *err)
{
    sb_seq_truncate(f->seq, 0);
    drop_draft(f);
    return ctx->n > f->max_context ? SB_OK : catch_up(f, ctx->tokens, ctx->n - 1, false, err);
}

enum sb_status sb_lm_feeder_start(struct sb_lm_feeder *f, const struct sb_context *ctx,
                                  struct sb_error *err)
{
    drop_draft(f);
    if (sb_seq_length(f->seq) >= ctx->n) /* the root's row runs anew: its logits are needed */
        sb_seq_truncate(f->seq, ctx->n - 1);
    enum sb_status rc = catch_up(f, ctx->tokens, ctx->n, true, err);
    f->base = ctx->n;
    f->row_of[0] = SB_PARENT_PREFIX;
    return rc;
}

/* ---- the tree ---- */

int32_t sb_lm_feeder_depth(const struct sb_lm_feeder *f, const struct sb_context *ctx)
{
    return ctx->n > f->max_context ? -1 : (int32_t)(f->max_context - ctx->n);
}

int32_t sb_lm_feeder_room(const struct sb_lm_feeder *f, const struct sb_context *ctx)
{
    size_t capacity = sb_seq_capacity(f->seq);
    return ctx->n > capacity ? 0 : (int32_t)(capacity - ctx->n);
}

/* A batch of one node is a path already: keep its row, and the batch starts anew below it. */
static enum sb_status extend_spine(struct sb_lm_feeder *f, struct sb_error *err)
{
    const int32_t first = 0;
    enum sb_status rc = sb_seq_commit(f->seq, &first, 1, err);
    if (rc != SB_OK)
        return rc;
    f->row_of[f->batch[0]] = SB_PARENT_PREFIX;
    f->spine[f->n_spine++] = f->batch[0];
    f->n_batch = 0;
    return SB_OK;
}

enum sb_status sb_lm_feeder_feed(struct sb_lm_feeder *f, const struct sb_tree *tree,
                                 const int32_t *node, int32_t n, struct sb_error *err)
{
    if (f->n_batch == 1) {
        enum sb_status rc = extend_spine(f, err);
        if (rc != SB_OK)
            return rc;
    }
    for (int32_t i = 0; i < f->n_batch; i++)
        f->row[i].want_logits = false;
    int32_t last = f->n_spine > 0 ? f->spine[f->n_spine - 1] : 0;
    for (int32_t i = 0; i < n; i++) {
        const struct sb_node *t = &tree->node[node[i]];
        if (f->row_of[t->parent] == SB_PARENT_PREFIX && t->parent != last)
            return sb_fail(err, SB_EINTERNAL, "draft model: node %" PRId32 " is beside the spine",
                           node[i]);
        f->row[f->n_batch] = token_row(f, t->token, f->row_of[t->parent]);
        f->row[f->n_batch].want_logits = true;
        f->batch[f->n_batch] = node[i];
        f->row_of[node[i]] = f->n_batch++;
    }
    return sb_forward(f->seq, f->row, (size_t)f->n_batch, NULL, err);
}

const float *sb_lm_feeder_logits(const struct sb_lm_feeder *f, int32_t node)
{
    return sb_seq_logits(f->seq, node == 0 ? f->root_row : (size_t)f->row_of[node]);
}

enum sb_status sb_lm_feeder_keep(struct sb_lm_feeder *f, const struct sb_outcome *outcome,
                                 struct sb_error *err)
{
    if (f->base == 0)
        return SB_OK;
    size_t base = f->base;
    int32_t kept = 0, n = 0;
    f->base = 0;
    while (kept < f->n_spine && kept + 1 < outcome->n_path &&
           outcome->path[kept + 1] == f->spine[kept])
        kept++;
    if (kept < f->n_spine) {
        sb_seq_truncate(f->seq, base + (size_t)kept);
        return SB_OK;
    }
    /* Fed nodes of the path come first on it: a node is fed only below a fed one. */
    for (int32_t i = kept + 1; i < outcome->n_path; i++) {
        int32_t node = outcome->path[i], b = 0;
        while (b < f->n_batch && f->batch[b] != node)
            b++;
        if (b == f->n_batch)
            break;
        f->row_of[n++] = b; /* free until the next draft */
    }
    return n > 0 ? sb_seq_commit(f->seq, f->row_of, (size_t)n, err) : SB_OK;
}
