/* Training a language model, from texts alone or also from a teacher's rows. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness/core/alloc.h"
#include "harness/core/rng.h"
#include "harness/core/threads.h"
#include "harness/model/bundled.h"
#include "harness/train/evaluate.h"
#include "harness/train/generate.h"
#include "harness/train/model_out.h"
#include "harness/train/run.h"
#include "harness/train/teacher.h"
#include "harness/train/trainer.h"

enum { VALIDATION_TOKENS = 32768 };

struct lm_run {
    struct sb_run run;
    struct sb_tape *teacher_tape;
    struct sb_lm *lm, *teacher;
};

/* ---- setting up ------------------------------------------------------------------------------ */

/* The weights of recipe->init, which must have the recipe's shape. *hash takes its content in. */
static enum sb_status start_from(struct lm_run *self, uint64_t *hash, struct sb_error *err)
{
    const struct sb_recipe *recipe = self->run.recipe;
    struct sb_lm *other = NULL;
    char *path = NULL;
    uint64_t content = 0;
    enum sb_status status = sb_bundled_resolve(&path, "model", recipe->init, err);
    if (status == SB_OK)
        status = sb_teacher_load(&other, &content, path, recipe->model.context, err);
    if (status == SB_OK) {
        struct sb_lm_shape a = other->shape, b = self->lm->shape;
        bool same = a.n_layers == b.n_layers && a.d_model == b.d_model && a.n_heads == b.n_heads &&
                    a.n_kv_heads == b.n_kv_heads && a.d_ff == b.d_ff && a.n_vocab == b.n_vocab &&
                    a.rope_base == b.rope_base && (float)a.norm_eps == (float)b.norm_eps;
        if (!same)
            status = sb_fail(err, SB_EUSAGE,
                             "recipe %s: init %s has %zu layers of width %zu, %zu heads, %zu KV "
                             "heads, ff %zu, %zu tokens: expected the recipe's model",
                             recipe->name, recipe->init, a.n_layers, a.d_model, a.n_heads,
                             a.n_kv_heads, a.d_ff, a.n_vocab);
        else
            memcpy(self->lm->weights.x, other->weights.x,
                   self->lm->weights.n_params * sizeof *other->weights.x);
    }
    *hash = sb_rng_mix(*hash, content);
    sb_lm_destroy(other);
    sb_free(path);
    return status;
}

static enum sb_status open_model(struct lm_run *self, struct sb_error *err)
{
    const struct sb_recipe *r = self->run.recipe;
    struct sb_lm_shape shape = {
        .n_layers = r->model.layers,
        .d_model = r->model.width,
        .n_heads = r->model.heads,
        .n_kv_heads = r->model.kv_heads,
        .d_ff = r->model.ff,
        .n_vocab = r->model.vocab,
        .max_context = r->model.context,
        .rope_base = r->model.rope_base,
        .norm_eps = r->model.norm_eps,
    };
    enum sb_status status = sb_lm_create(&self->lm, &shape, false, err);
    if (status == SB_OK)
        sb_trainable_init(&self->lm->weights, r->train.seed);
    return status;
}

static enum sb_status open_teacher(struct lm_run *self, uint64_t *hash, struct sb_error *err)
{
    const struct sb_recipe *recipe = self->run.recipe;
    *hash = 0;
    if (!recipe->distill.teacher)
        return SB_OK;
    enum sb_status status =
        sb_teacher_load(&self->teacher, hash, recipe->distill.teacher, recipe->train.seq_len, err);
    if (status != SB_OK)
        return status;
    if (self->teacher->shape.n_vocab != recipe->model.vocab)
        return sb_fail(err, SB_EUSAGE, "recipe %s: the teacher has %zu tokens, model.vocab is %zu",
                       recipe->name, self->teacher->shape.n_vocab, recipe->model.vocab);
    return sb_tape_create(&self->teacher_tape, err);
}

/* ---- stepping -------------------------------------------------------------------------------- */

static struct sb_var *diverge(const struct lm_run *self, struct sb_tape *tape,
                              struct sb_var *logits, const sb_real *taught, const sb_real *weight)
{
    const struct sb_recipe *recipe = self->run.recipe;
    struct sb_divergence by = { .beta = recipe->distill.beta };
    if (!sb_divergence_find(recipe->distill.loss, &by.kind) || by.kind == SB_KL)
        return sb_tape_kl(tape, logits, taught, weight);
    const struct sb_teacher teacher = { taught, NULL };
    return sb_tape_divergence(tape, logits, &by, &teacher, weight);
}

static struct sb_var *batch_loss(void *user, struct sb_run *run, size_t share)
{
    struct lm_run *self = user;
    struct sb_batch *b = &run->batch;
    sb_real each = b->counts ? 1 / ((sb_real)b->counts * (sb_real)share) : 0;
    for (size_t r = 0; r < b->m; r++)
        b->weight[r] *= each;
    struct sb_lm_batch rows = { b->ids, b->pos, b->m, { b->start, b->n_segments } };
    struct sb_var *logits = sb_lm_forward(self->lm, run->tape, &rows);
    struct sb_var *total = sb_tape_cross_entropy(run->tape, logits, b->target, b->weight);
    if (!self->teacher)
        return total;
    sb_tape_reset(self->teacher_tape);
    struct sb_var *taught = sb_lm_forward(self->teacher, self->teacher_tape, &rows);
    struct sb_var *divergence =
        taught ? diverge(self, run->tape, logits, taught->x, b->weight) : NULL;
    sb_real weight = (sb_real)run->recipe->distill.weight;
    return sb_tape_mix(run->tape, total, 1 - weight, divergence, weight);
}

static double flops_per_token(const void *user, double seen)
{
    const struct lm_run *self = user;
    double flops = sb_lm_flops_per_token(&self->lm->shape, seen);
    return self->teacher ? flops + sb_lm_flops_per_token(&self->teacher->shape, seen) / 3 : flops;
}

/* ---- results --------------------------------------------------------------------------------- */

/* Go through the tokens of the run again and count them. */
static enum sb_status count_tokens(struct lm_run *self, struct sb_counts *counts,
                                   struct sb_error *err)
{
    enum sb_status status = sb_counts_init(counts, self->run.recipe->model.vocab, err);
    if (status == SB_OK)
        status = sb_data_seek(&self->run.stream, &(struct sb_cursor){ 0 }, err);
    size_t n = self->run.recipe->train.steps *
               (self->run.recipe->train.batch_tokens / self->run.recipe->train.micro_tokens);
    for (size_t i = 0; i < n && status == SB_OK; i++) {
        status = sb_data_next(&self->run.stream, &self->run.batch, err);
        if (status == SB_OK)
            sb_counts_add(counts, &self->run.batch);
    }
    return status;
}

static json_t *score_json(const struct sb_task_score *s, bool taught)
{
    json_t *json = json_pack("{s:s, s:I, s:I, s:f, s:f, s:f}", "task", s->task, "records",
                             (json_int_t)s->records, "tokens", (json_int_t)s->tokens, "loss",
                             s->loss, "unigram", s->unigram, "bigram", s->bigram);
    if (json && taught) {
        json_object_set_new(json, "teacher_agreement", json_real(s->agreement));
        json_object_set_new(json, "teacher_overlap", json_real(s->overlap));
    }
    return json;
}

/* training.json: what the model card reports. */
static enum sb_status write_summary(const struct lm_run *self, const struct sb_evaluation *result,
                                    struct sb_error *err)
{
    const struct sb_recipe *r = self->run.recipe;
    json_t *scores = json_array();
    for (size_t i = 0; i < result->n_tasks; i++)
        json_array_append_new(scores, score_json(&result->tasks[i], self->teacher != NULL));
    json_array_append_new(scores, score_json(&result->all, self->teacher != NULL));
    char corpus[17], tokenizer[17];
    snprintf(corpus, sizeof corpus, "%016llx", (unsigned long long)self->run.corpus.hash);
    snprintf(tokenizer, sizeof tokenizer, "%016llx",
             (unsigned long long)self->run.state.identity.tokenizer);
    json_t *json = json_pack(
        "{s:s, s:I, s:I, s:I, s:I, s:s, s:s, s:o}", "recipe", r->name, "parameters",
        (json_int_t)self->lm->weights.n_params, "seed", (json_int_t)r->train.seed, "steps",
        (json_int_t)r->train.steps, "tokens", (json_int_t)(r->train.steps * r->train.batch_tokens),
        "corpus_xxh64", corpus, "tokenizer_xxh64", tokenizer, "validation", scores);
    char *text =
        json ? json_dumps(json, JSON_INDENT(2) | JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(6))
             : NULL;
    json_decref(json);
    enum sb_status status =
        text ? sb_file_write(self->run.out, "training.json", text, strlen(text), err)
             : sb_fail(err, SB_ENOMEM, "%s/training.json: out of memory", self->run.out);
    free(text);
    return status;
}

static enum sb_status evaluate(struct lm_run *self, const struct sb_counts *counts,
                               struct sb_evaluation *result, struct sb_error *err)
{
    struct sb_evaluation_input in = {
        .lm = self->lm,
        .teacher = self->teacher,
        .tape = self->run.tape,
        .teacher_tape = self->teacher_tape,
        .corpus = &self->run.corpus,
        .tok = self->run.tok,
        .marks = self->run.marks,
        .seq_len = self->run.recipe->train.seq_len,
        .max_tokens = VALIDATION_TOKENS,
        .counts = counts,
    };
    return sb_evaluate(result, &in, err);
}

static enum sb_status deliver(struct lm_run *self, struct sb_error *err)
{
    struct sb_counts counts = { 0 };
    struct sb_evaluation result;
    sb_trainable_round_bf16(&self->lm->weights);
    enum sb_status status = sb_lm_write(self->lm, self->run.out, self->run.recipe->tokenizer,
                                        &self->run.marks, self->run.recipe->name, err);
    if (status == SB_OK)
        status = sb_run_write_curve(&self->run, err);
    if (status == SB_OK)
        status = count_tokens(self, &counts, err);
    if (status == SB_OK)
        status = evaluate(self, &counts, &result, err);
    if (status == SB_OK)
        status = write_summary(self, &result, err);
    if (status == SB_OK)
        sb_train_note(self->run.recipe, self->run.options,
                      "%s written; validation loss %.4f (bigram %.4f, unigram %.4f)", self->run.out,
                      result.all.loss, result.all.bigram, result.all.unigram);
    sb_counts_finish(&counts);
    return status;
}

static enum sb_status prepare_and_train(struct lm_run *self, const struct sb_recipe *recipe,
                                        const struct sb_train_options *options,
                                        struct sb_error *err)
{
    uint64_t teacher = 0;
    enum sb_status status = SB_OK;
    if (recipe->data.generate.wanted && !recipe->distill.teacher)
        status = sb_fail(err, SB_EUSAGE,
                         "recipe %s: data.generate needs distill.teacher, which writes the texts",
                         recipe->name);
    else if (recipe->data.generate.wanted)
        status =
            sb_generate_texts(recipe, options, recipe->distill.teacher, recipe->tokenizer, err);
    if (status == SB_OK)
        status = sb_run_open(&self->run, recipe, options, recipe->tokenizer, recipe->model.vocab,
                             "model.vocab", err);
    if (status == SB_OK)
        status = open_model(self, err);
    if (status == SB_OK)
        status = open_teacher(self, &teacher, err);
    if (status == SB_OK && recipe->init)
        status = start_from(self, &teacher, err);
    if (status != SB_OK)
        return status;
    const struct sb_trainee trainee = { self, &self->lm->weights, batch_loss, flops_per_token,
                                        NULL };
    status = sb_run_begin(&self->run, &trainee, teacher, err);
    if (status == SB_OK)
        status = sb_run_loop(&self->run, err);
    return status == SB_OK ? deliver(self, err) : status;
}

enum sb_status sb_train_lm(const struct sb_recipe *recipe, const struct sb_train_options *options,
                           struct sb_error *err)
{
    struct lm_run self = { 0 };
    if (options->threads > 0)
        sb_threads_set(options->threads);
    enum sb_status status = prepare_and_train(&self, recipe, options, err);
    sb_run_finish(&self.run);
    sb_tape_destroy(self.teacher_tape);
    sb_lm_destroy(self.lm);
    sb_lm_destroy(self.teacher);
    return status;
}
