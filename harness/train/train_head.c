/* Training a draft head: the frozen target runs online on every batch, the head learns from its states and
 * rows. */
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#include "harness/core/alloc.h"
#include "harness/core/threads.h"
#include "harness/model/bundled.h"
#include "harness/train/generate.h"
#include "harness/train/head_measure.h"
#include "harness/train/model_out.h"
#include "harness/train/run.h"
#include "harness/train/teacher.h"
#include "harness/train/trainer.h"

/* Rows of the target per measurement, while training and at the end. */
enum { MEASURE_ROWS = 8192, FINAL_ROWS = 32768, TREE_NODES = 31, HASH_TEXT = 17 };

struct head_run {
    struct sb_run run;
    char *target_path; /* where recipe->target is */
    struct sb_tape *target_tape;
    struct sb_lm *target;
    struct sb_head *head;
    struct sb_head_loss loss;
    char target_hash[HASH_TEXT];
    json_t *history; /* figures so far, one object per measurement */
};

/* ---- setting up ------------------------------------------------------------------------------ */

static enum sb_status open_target(struct head_run *self, const struct sb_recipe *recipe,
                                  uint64_t *hash, struct sb_error *err)
{
    enum sb_status status = sb_bundled_resolve(&self->target_path, "target", recipe->target, err);
    if (status == SB_OK)
        status = sb_teacher_load(&self->target, hash, self->target_path, 0, err);
    if (status != SB_OK)
        return status;
    snprintf(self->target_hash, sizeof self->target_hash, "%016" PRIx64, *hash);
    /* Depths behind the last row have positions too. */
    size_t most = self->target->shape.max_context;
    if (recipe->train.seq_len + SB_HEAD_DEPTH > most)
        return sb_fail(err, SB_EUSAGE,
                       "recipe %s: train.seq_len is %zu; target %s has %zu positions, of which a "
                       "head needs %d behind the text",
                       recipe->name, recipe->train.seq_len, recipe->target, most, SB_HEAD_DEPTH);
    return sb_tape_create(&self->target_tape, err);
}

static enum sb_status open_head(struct head_run *self, const struct sb_recipe *recipe,
                                struct sb_error *err)
{
    const struct sb_head_ops *ops = sb_head_arch_find(recipe->arch);
    if (!ops) {
        char known[256] = "";
        for (size_t i = 0, at = 0; sb_head_archs[i] && at < sizeof known; i++)
            at += (size_t)snprintf(known + at, sizeof known - at, "%s%s", i ? ", " : "",
                                   sb_head_archs[i]->arch);
        return sb_fail(err, SB_EUSAGE, "recipe %s: arch is '%s'; it must be one of %s",
                       recipe->name, recipe->arch, known);
    }
    self->loss = (struct sb_head_loss){
        .by = { .beta = recipe->loss.beta, .top_k = recipe->loss.top_k },
        .weight = recipe->loss.weight,
        .feature = recipe->loss.feature,
        .decay = recipe->loss.decay,
    };
    self->loss.labels = !sb_divergence_find(recipe->loss.by, &self->loss.by.kind);
    return sb_head_create(&self->head, ops, &recipe->head, self->target, recipe->train.seed, err);
}

struct seen_token {
    int32_t id;
    uint64_t count;
};

static int by_count(const void *a, const void *b)
{
    const struct seen_token *x = a, *y = b;
    return x->count != y->count ? (x->count < y->count) - (x->count > y->count)
                                : (x->id > y->id) - (x->id < y->id);
}

static int by_id(const void *a, const void *b)
{
    int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    return (x > y) - (x < y);
}

/* How often the texts that are trained on say a token where a loss counts. */
static enum sb_status count_tokens(struct seen_token *seen, const struct sb_run *run,
                                   struct sb_error *err)
{
    struct sb_rendered doc = { 0 };
    enum sb_status status = SB_OK;
    for (size_t i = 0; i < run->corpus.n_records && status == SB_OK; i++) {
        const struct sb_record *record = &run->corpus.records[i];
        if (record->held_out)
            continue;
        status = sb_record_render(&doc, &run->corpus, record, run->tok, &run->marks, err);
        for (size_t t = 1; status == SB_OK && t < doc.tokens.n; t++)
            if (!run->stream.options.answers_only || doc.answer[t])
                seen[doc.tokens.id[t]].count++;
    }
    sb_rendered_finish(&doc);
    return status;
}

/* The head's draft vocabulary: the commonest tokens of the texts. */
static enum sb_status choose_vocabulary(struct head_run *self, struct sb_error *err)
{
    size_t n_vocab = self->target->shape.n_vocab, n = self->head->n_draft;
    if (n == 0)
        return SB_OK;
    struct seen_token *seen = sb_alloc_zero(n_vocab, sizeof *seen);
    int32_t *ids = sb_alloc_array(n, sizeof *ids);
    enum sb_status status =
        seen && ids ? SB_OK : sb_fail(err, SB_ENOMEM, "draft vocabulary: out of memory");
    for (size_t i = 0; status == SB_OK && i < n_vocab; i++)
        seen[i].id = (int32_t)i;
    if (status == SB_OK)
        status = count_tokens(seen, &self->run, err);
    if (status == SB_OK) {
        double kept = 0, all = 0;
        qsort(seen, n_vocab, sizeof *seen, by_count);
        for (size_t i = 0; i < n_vocab; i++) {
            all += (double)seen[i].count;
            kept += i < n ? (double)seen[i].count : 0;
            if (i < n)
                ids[i] = seen[i].id;
        }
        qsort(ids, n, sizeof *ids, by_id);
        sb_train_note(self->run.recipe, self->run.options,
                      "draft vocabulary of %zu tokens: %.2f %% of the texts", n,
                      all > 0 ? 100 * kept / all : 0);
        status = sb_head_set_vocabulary(self->head, ids, err);
    }
    sb_free(seen);
    sb_free(ids);
    return status;
}

/* ---- stepping -------------------------------------------------------------------------------- */

static struct sb_var *batch_loss(void *user, struct sb_run *run, size_t share)
{
    struct head_run *self = user;
    const struct sb_batch *b = &run->batch;
    const struct sb_head_texts texts = { { b->ids, b->pos, b->m, { b->start, b->n_segments } },
                                         b->target,
                                         b->weight };
    sb_tape_reset(self->target_tape);
    struct sb_lm_states states;
    struct sb_head_rows rows;
    const struct sb_var *logits =
        sb_lm_forward_states(self->target, self->target_tape, &texts.rows, &states);
    if (!logits || !sb_head_rows_make(&rows, run->tape, &texts, self->head->depth))
        return NULL;
    sb_head_rows_limit(&rows, self->head, logits->x, self->loss.labels);
    const struct sb_head_input in = { run->tape, &texts, &rows, &states };
    struct sb_head_output out = { 0 };
    self->head->ops->forward(self->head, &in, &out);
    return sb_head_loss(self->head, &in, &out, logits->x, &self->loss, share);
}

static double flops_per_token(const void *user, double seen)
{
    const struct head_run *self = user;
    return sb_lm_flops_per_token(&self->target->shape, seen) / 3 +
           2 * self->head->ops->products(self->head);
}

/* ---- figures --------------------------------------------------------------------------------- */

static json_t *shares(const double *sum, size_t n, double rows)
{
    json_t *list = json_array();
    for (size_t i = 0; i < n; i++)
        json_array_append_new(list, json_real(rows > 0 ? sum[i] / rows : 0));
    return list;
}

static json_t *figures_json(const struct sb_head_figures *f, size_t step)
{
    json_t *agreement = json_array(), *overlap = json_array(), *accuracy = json_array();
    for (size_t j = 0; j < f->depth; j++) {
        double rows = f->rows[j] > 0 ? f->rows[j] : 1;
        json_array_append_new(agreement, json_real(f->rank[j][0] / rows));
        json_array_append_new(overlap, json_real(f->overlap[j] / rows));
        json_array_append_new(accuracy, shares(f->rank[j], SB_HEAD_RANKS, rows));
    }
    return json_pack("{s:I, s:I, s:f, s:o, s:o, s:o}", "step", (json_int_t)step, "rows",
                     (json_int_t)f->rows[0], "tokens_per_step", sb_head_tokens_per_step(f),
                     "agreement", agreement, "overlap", overlap, "accuracy_by_rank", accuracy);
}

static enum sb_status write_summary(const struct head_run *self, struct sb_error *err)
{
    const struct sb_recipe *r = self->run.recipe;
    char corpus[HASH_TEXT], tokenizer[HASH_TEXT];
    snprintf(corpus, sizeof corpus, "%016" PRIx64, self->run.corpus.hash);
    snprintf(tokenizer, sizeof tokenizer, "%016" PRIx64, self->run.state.identity.tokenizer);
    json_t *json = json_pack(
        "{s:s, s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:s, s:s, s:O}", "recipe", r->name, "arch",
        r->arch, "target", r->target, "target_hash", self->target_hash, "parameters",
        (json_int_t)self->head->weights.n_params, "seed", (json_int_t)r->train.seed, "steps",
        (json_int_t)r->train.steps, "tokens", (json_int_t)(r->train.steps * r->train.batch_tokens),
        "corpus_xxh64", corpus, "tokenizer_xxh64", tokenizer, "held_out", self->history);
    return sb_json_write(self->run.out, "training.json", json, err);
}

/* What an earlier session measured up to the step that goes on. */
static enum sb_status read_history(struct head_run *self, struct sb_error *err)
{
    self->history = json_array();
    if (!self->history)
        return sb_fail(err, SB_ENOMEM, "training run: out of memory");
    if (self->run.opt.step == 0)
        return SB_OK;
    char *path = sb_strf("%s/training.json", self->run.out);
    json_t *old = path ? json_load_file(path, 0, NULL) : NULL, *entry;
    size_t i;
    json_array_foreach(json_object_get(old, "held_out"), i, entry)
    {
        json_t *step = json_object_get(entry, "step");
        if (json_is_integer(step) && json_integer_value(step) <= (json_int_t)self->run.opt.step &&
            json_integer_value(step) < (json_int_t)self->run.recipe->train.steps)
            json_array_append(self->history, entry);
    }
    json_decref(old);
    sb_free(path);
    return SB_OK;
}

static void note_figures(const struct sb_run *run, const struct sb_head_figures *f)
{
    char text[160] = "";
    size_t at = 0;
    for (size_t j = 0; j < f->depth && at + 8 < sizeof text; j++)
        at += (size_t)snprintf(text + at, sizeof text - at, " %.3f",
                               f->rows[j] > 0 ? f->rank[j][0] / f->rows[j] : 0);
    sb_train_note(run->recipe, run->options,
                  "held out after step %zu: agreement by depth%s, %.3f tokens a step",
                  run->opt.step, text, sb_head_tokens_per_step(f));
}

/* tree.json: the latest accuracies as a static tree that drafters read (docs/formats.md). */
static enum sb_status write_tree(const struct head_run *self, struct sb_error *err)
{
    const json_t *last = json_array_get(self->history, json_array_size(self->history) - 1);
    json_t *accuracy = json_object_get(last, "accuracy_by_rank");
    return sb_json_write(self->run.out, "tree.json",
                         json_pack("{s:O, s:i}", "accuracy", accuracy, "nodes", TREE_NODES), err);
}

static enum sb_status measure_rows(struct head_run *self, size_t max_rows, struct sb_error *err)
{
    struct sb_run *run = &self->run;
    const struct sb_head_measure_input in = {
        .head = self->head,
        .tape = run->tape,
        .target_tape = self->target_tape,
        .corpus = &run->corpus,
        .tok = run->tok,
        .marks = run->marks,
        .seq_len = run->recipe->train.seq_len,
        .batch_rows = run->recipe->train.micro_tokens,
        .max_rows = max_rows,
        .seed = run->recipe->train.seed,
        .answers_only = true, /* what is drafted, whatever is trained on */
    };
    struct sb_head_figures figures;
    enum sb_status status = sb_head_measure(&figures, &in, err);
    if (status != SB_OK)
        return status;
    if (figures.rows[0] > 0) {
        json_array_append_new(self->history, figures_json(&figures, run->opt.step));
        note_figures(run, &figures);
        status = write_tree(self, err);
    }
    return status == SB_OK ? write_summary(self, err) : status;
}

/* At the recipe's own checkpoints, so that a run which was interrupted measures no more than one which was
 * not; the last measurement is made of what was written. */
static enum sb_status measure(void *user, struct sb_run *run, struct sb_error *err)
{
    size_t step = run->opt.step;
    if (step % run->recipe->train.checkpoint_every != 0 || step == run->recipe->train.steps)
        return SB_OK;
    return measure_rows(user, MEASURE_ROWS, err);
}

/* ---- results --------------------------------------------------------------------------------- */

static enum sb_status deliver(struct head_run *self, struct sb_error *err)
{
    struct sb_run *run = &self->run;
    const struct sb_meta meta[] = {
        { "specbench.recipe", run->recipe->name },
        { "specbench.arch", run->recipe->arch },
        { "specbench.target", run->recipe->target },
        { "specbench.target_hash", self->target_hash },
    };
    sb_trainable_round_bf16(&self->head->weights);
    const struct sb_model_file file = {
        .set = &self->head->weights,
        .meta = meta,
        .n_meta = sizeof meta / sizeof *meta,
        .draft_ids = self->head->draft_ids,
        .n_draft = self->head->n_draft,
        .n_vocab = self->target->shape.n_vocab,
    };
    enum sb_status status = sb_model_file_write(&file, run->out, "model.safetensors", err);
    if (status == SB_OK)
        status = sb_json_write(run->out, "config.json", self->head->ops->config(self->head), err);
    if (status == SB_OK)
        status = sb_run_write_curve(run, err);
    if (status == SB_OK)
        status = measure_rows(self, FINAL_ROWS, err);
    if (status == SB_OK)
        sb_train_note(run->recipe, run->options, "%s written", run->out);
    return status;
}

static enum sb_status prepare_and_train(struct head_run *self, const struct sb_recipe *recipe,
                                        const struct sb_train_options *options,
                                        struct sb_error *err)
{
    uint64_t hash = 0;
    enum sb_status status = open_target(self, recipe, &hash, err);
    const char *tokenizer = recipe->tokenizer ? recipe->tokenizer : self->target_path;
    if (status == SB_OK)
        status = open_head(self, recipe, err);
    if (status == SB_OK && recipe->data.generate.wanted)
        status = sb_generate_texts(recipe, options, self->target_path, tokenizer, err);
    if (status == SB_OK)
        status = sb_run_open(&self->run, recipe, options, tokenizer, self->target->shape.n_vocab,
                             "the target's vocabulary", err);
    if (status == SB_OK)
        status = choose_vocabulary(self, err);
    if (status != SB_OK)
        return status;
    const struct sb_trainee trainee = { self, &self->head->weights, batch_loss, flops_per_token,
                                        measure };
    status = sb_run_begin(&self->run, &trainee, hash, err);
    if (status == SB_OK)
        status = read_history(self, err);
    if (status == SB_OK)
        status = sb_run_loop(&self->run, err);
    return status == SB_OK ? deliver(self, err) : status;
}

enum sb_status sb_train_head(const struct sb_recipe *recipe, const struct sb_train_options *options,
                             struct sb_error *err)
{
    struct head_run self = { 0 };
    if (options->threads > 0)
        sb_threads_set(options->threads);
    enum sb_status status = prepare_and_train(&self, recipe, options, err);
    sb_run_finish(&self.run);
    sb_head_destroy(self.head);
    sb_tape_destroy(self.target_tape);
    sb_lm_destroy(self.target);
    sb_free(self.target_path);
    json_decref(self.history);
    return status;
}
