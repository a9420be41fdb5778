/* The training loop of a language model. */
#include "harness/train/trainer.h"

#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "harness/core/alloc.h"
#include "harness/core/clock.h"
#include "harness/core/paths.h"
#include "harness/core/threads.h"
#include "harness/train/checkpoint.h"
#include "harness/train/evaluate.h"
#include "harness/train/model_out.h"
#include "harness/train/teacher.h"

enum { VALIDATION_TOKENS = 32768, CURVE_STEPS = 10 };

/* Everything a run holds; zero is empty, run_finish frees whatever is there. */
struct run {
    const struct sb_recipe *recipe;
    const struct sb_train_options *options;
    const char *out;
    char *checkpoint_path;
    struct sb_corpus corpus;
    struct sb_tokenizer *tok;
    struct sb_marks marks;
    struct sb_data_stream stream;
    struct sb_batch batch;
    struct sb_tape *tape, *teacher_tape;
    struct sb_lm *lm, *teacher;
    struct sb_adamw opt;
    struct sb_train_state state;
    uint64_t began_ns;
    size_t began_step;
    double smooth;
};

void sb_train_note(const struct sb_recipe *recipe, const struct sb_train_options *options,
                   const char *fmt, ...)
{
    if (!options->report)
        return;
    char line[256];
    va_list args;
    va_start(args, fmt);
    vsnprintf(line, sizeof line, fmt, args);
    va_end(args);
    struct sb_train_progress progress = { .what = recipe->name, .note = line };
    options->report(options->report_user, &progress);
}

enum sb_status sb_recipe_corpus(struct sb_corpus *corpus, const struct sb_recipe *recipe,
                                const struct sb_train_options *options, struct sb_error *err)
{
    const char *dir = options->data_dir ? options->data_dir : recipe->data.dir;
    return sb_corpus_read(corpus, dir, (const char *const *)recipe->data.files,
                          recipe->data.n_files, recipe->data.held_out, err);
}

/* ---- setting up ------------------------------------------------------------------------------ */

static enum sb_status open_data(struct run *run, struct sb_error *err)
{
    const struct sb_recipe *recipe = run->recipe;
    enum sb_status status = sb_tokenizer_open(&run->tok, recipe->tokenizer, err);
    if (status == SB_OK)
        status = sb_marks_find(&run->marks, run->tok, recipe->tokenizer, err);
    if (status == SB_OK && sb_tokenizer_size(run->tok) > recipe->model.vocab)
        status = sb_fail(err, SB_EUSAGE,
                         "recipe %s: model.vocab is %zu, and the tokenizer has %zu tokens",
                         recipe->name, recipe->model.vocab, sb_tokenizer_size(run->tok));
    if (status == SB_OK)
        status = sb_recipe_corpus(&run->corpus, recipe, run->options, err);
    return status;
}

static enum sb_status open_stream(struct run *run, struct sb_error *err)
{
    const struct sb_recipe *recipe = run->recipe;
    struct sb_data_options options = {
        .seed = recipe->train.seed,
        .seq_len = recipe->train.seq_len,
        .answers_only = strcmp(recipe->data.loss_on, "answers") == 0,
    };
    for (size_t t = 0; t < SB_MAX_TASKS; t++)
        options.weights[t] = 1;
    for (size_t i = 0; i < recipe->data.n_weights; i++) {
        size_t t = 0;
        while (t < run->corpus.n_tasks &&
               strcmp(run->corpus.tasks[t], recipe->data.weights[i].task) != 0)
            t++;
        if (t == run->corpus.n_tasks)
            return sb_fail(err, SB_EUSAGE,
                           "recipe %s: data.weights names task '%s', which no record has",
                           recipe->name, recipe->data.weights[i].task);
        options.weights[t] = recipe->data.weights[i].weight;
    }
    enum sb_status status =
        sb_data_init(&run->stream, &run->corpus, run->tok, &run->marks, &options, err);
    return status == SB_OK ? sb_batch_init(&run->batch, recipe->train.micro_tokens, err) : status;
}

static enum sb_status open_model(struct run *run, struct sb_error *err)
{
    const struct sb_recipe *r = run->recipe;
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
    struct sb_adamw_options adamw = {
        .lr = r->train.lr,
        .min_lr_ratio = r->train.min_lr_ratio,
        .beta1 = r->train.beta1,
        .beta2 = r->train.beta2,
        .eps = 1e-8,
        .weight_decay = r->train.weight_decay,
        .clip = r->train.clip,
        .warmup = r->train.warmup,
        .steps = r->train.steps,
    };
    enum sb_status status = sb_lm_create(&run->lm, &shape, false, err);
    if (status == SB_OK)
        status = sb_adamw_init(&run->opt, &adamw, run->lm->n_params, err);
    if (status != SB_OK)
        return status;
    sb_lm_init_weights(run->lm, r->train.seed);
    run->state.history = sb_alloc_zero(r->train.steps, sizeof *run->state.history);
    if (!run->state.history)
        return sb_fail(err, SB_ENOMEM, "training run: out of memory");
    return sb_tape_create(&run->tape, err);
}

static enum sb_status open_teacher(struct run *run, uint64_t *hash, struct sb_error *err)
{
    const struct sb_recipe *recipe = run->recipe;
    *hash = 0;
    if (!recipe->distill.teacher)
        return SB_OK;
    enum sb_status status =
        sb_teacher_load(&run->teacher, hash, recipe->distill.teacher, recipe->train.seq_len, err);
    if (status != SB_OK)
        return status;
    if (run->teacher->shape.n_vocab != recipe->model.vocab)
        return sb_fail(err, SB_EUSAGE, "recipe %s: the teacher has %zu tokens, model.vocab is %zu",
                       recipe->name, run->teacher->shape.n_vocab, recipe->model.vocab);
    return sb_tape_create(&run->teacher_tape, err);
}

static enum sb_status open_checkpoint(struct run *run, uint64_t teacher_hash, struct sb_error *err)
{
    run->checkpoint_path = sb_strf("%s/train.ckpt", run->out);
    if (!run->checkpoint_path)
        return sb_fail(err, SB_ENOMEM, "training run: out of memory");
    enum sb_status status = sb_make_dirs(run->out, err);
    if (status != SB_OK)
        return status;
    run->state.identity = (struct sb_train_identity){
        .recipe = run->recipe->hash,
        .corpus = run->corpus.hash,
        .tokenizer = sb_tokenizer_hash(run->tok),
        .teacher = teacher_hash,
    };
    run->state.lm = run->lm;
    run->state.opt = &run->opt;
    if (!run->options->resume)
        return SB_OK;
    if (!sb_is_file(run->checkpoint_path)) {
        sb_train_note(run->recipe, run->options, "no checkpoint in %s yet: starting anew",
                      run->out);
        return SB_OK;
    }
    status = sb_checkpoint_load(&run->state, run->checkpoint_path, err);
    if (status == SB_OK)
        status = sb_data_seek(&run->stream, &run->state.cursor, err);
    return status;
}

static void run_finish(struct run *run)
{
    sb_free(run->checkpoint_path);
    sb_data_finish(&run->stream);
    sb_batch_finish(&run->batch);
    sb_corpus_finish(&run->corpus);
    if (run->tok)
        sb_tokenizer_close(run->tok);
    sb_tape_destroy(run->tape);
    sb_tape_destroy(run->teacher_tape);
    sb_lm_destroy(run->lm);
    sb_lm_destroy(run->teacher);
    sb_adamw_finish(&run->opt);
    sb_free(run->state.history);
}

/* ---- stepping -------------------------------------------------------------------------------- */

/* Loss of the batch in hand, divided by `share`, with its gradients added. */
static enum sb_status micro_step(struct run *run, size_t share, double *loss, struct sb_error *err)
{
    struct sb_batch *b = &run->batch;
    sb_real each = b->counts ? 1 / ((sb_real)b->counts * (sb_real)share) : 0;
    for (size_t r = 0; r < b->m; r++)
        b->weight[r] *= each;
    struct sb_lm_batch rows = { b->ids, b->pos, b->m, { b->start, b->n_segments } };
    sb_tape_reset(run->tape);
    struct sb_var *logits = sb_lm_forward(run->lm, run->tape, &rows);
    struct sb_var *total = sb_tape_cross_entropy(run->tape, logits, b->target, b->weight);
    if (run->teacher) {
        sb_tape_reset(run->teacher_tape);
        struct sb_var *taught = sb_lm_forward(run->teacher, run->teacher_tape, &rows);
        if (!taught)
            return sb_fail(err, SB_ENOMEM, "teacher: out of memory");
        struct sb_var *kl = sb_tape_kl(run->tape, logits, taught->x, b->weight);
        sb_real weight = (sb_real)run->recipe->distill.weight;
        total = sb_tape_mix(run->tape, total, 1 - weight, kl, weight);
    }
    enum sb_status status = sb_tape_backward(run->tape, total, err);
    if (status == SB_OK)
        *loss += (double)total->x[0];
    return status;
}

static enum sb_status save(struct run *run, struct sb_error *err)
{
    run->state.cursor = run->stream.cursor;
    return sb_checkpoint_save(&run->state, run->checkpoint_path, err);
}

static enum sb_status step(struct run *run, struct sb_error *err)
{
    const struct sb_recipe *recipe = run->recipe;
    size_t share = recipe->train.batch_tokens / recipe->train.micro_tokens;
    double loss = 0;
    sb_lm_clear_grads(run->lm);
    for (size_t i = 0; i < share; i++) {
        enum sb_status status = sb_data_next(&run->stream, &run->batch, err);
        if (status == SB_OK)
            status = micro_step(run, share, &loss, err);
        if (status != SB_OK)
            return status;
    }
    size_t at = run->opt.step;
    double norm = isfinite(loss) ? sb_adamw_step(&run->opt, run->lm) : NAN;
    if (!isfinite(norm))
        return sb_fail(
            err, SB_EUSAGE,
            "%s: the %s of step %zu is not a finite number (learning rate %g); a smaller "
            "train.lr or a longer warmup may help. The last checkpoint is kept",
            recipe->name, isfinite(loss) ? "gradient" : "loss", at + 1,
            sb_adamw_rate(&run->opt.options, at));
    run->state.history[at] = (float)loss;
    run->smooth = at == run->began_step ? loss : 0.95 * run->smooth + 0.05 * loss;
    return SB_OK;
}

static void report(const struct run *run)
{
    const struct sb_train_options *options = run->options;
    if (!options->report)
        return;
    size_t done = run->opt.step, steps = run->recipe->train.steps;
    size_t per_step = run->recipe->train.batch_tokens;
    double seconds = (double)(sb_now_ns() - run->began_ns) * 1e-9;
    double speed = (double)((done - run->began_step) * per_step) / (seconds > 0 ? seconds : 1);
    double left = speed > 0 ? (double)((steps - done) * per_step) / speed : 0;
    double seen = (double)run->batch.m / (double)run->batch.n_segments / 2;
    double flops = sb_lm_flops_per_token(&run->lm->shape, seen);
    if (run->teacher)
        flops += sb_lm_flops_per_token(&run->teacher->shape, seen) / 3;
    struct sb_train_progress progress = {
        .what = run->recipe->name,
        .step = done,
        .steps = steps,
        .tokens = done * per_step,
        .loss = run->state.history[done - 1],
        .smooth = run->smooth,
        .rate = sb_adamw_rate(&run->opt.options, done - 1),
        .tokens_per_s = speed,
        .remaining_ns = (uint64_t)(left * 1e9),
        .gflops_per_s = speed * flops * 1e-9,
        .last = done == steps,
    };
    options->report(options->report_user, &progress);
}

static enum sb_status loop(struct run *run, struct sb_error *err)
{
    const struct sb_recipe *recipe = run->recipe;
    const struct sb_train_options *options = run->options;
    run->began_ns = sb_now_ns();
    run->began_step = run->opt.step;
    while (run->opt.step < recipe->train.steps) {
        enum sb_status status = step(run, err);
        if (status != SB_OK)
            return status;
        report(run);
        size_t done = run->opt.step;
        bool stop = (options->stop && *options->stop) ||
                    (options->max_steps && done - run->began_step >= options->max_steps);
        stop = stop && done < recipe->train.steps;
        if (stop || done % recipe->train.checkpoint_every == 0 || done == recipe->train.steps) {
            status = save(run, err);
            if (status != SB_OK)
                return status;
        }
        if (stop)
            return sb_fail(err, SB_EINTERRUPTED,
                           "%s: stopped after step %zu of %zu; continue with --resume",
                           recipe->name, done, recipe->train.steps);
    }
    return SB_OK;
}

/* ---- results --------------------------------------------------------------------------------- */

/* Go through the tokens of the run again and count them. */
static enum sb_status count_tokens(struct run *run, struct sb_counts *counts, struct sb_error *err)
{
    enum sb_status status = sb_counts_init(counts, run->recipe->model.vocab, err);
    if (status == SB_OK)
        status = sb_data_seek(&run->stream, &(struct sb_cursor){ 0 }, err);
    size_t n = run->recipe->train.steps *
               (run->recipe->train.batch_tokens / run->recipe->train.micro_tokens);
    for (size_t i = 0; i < n && status == SB_OK; i++) {
        status = sb_data_next(&run->stream, &run->batch, err);
        if (status == SB_OK)
            sb_counts_add(counts, &run->batch);
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
static enum sb_status write_summary(const struct run *run, const struct sb_evaluation *result,
                                    struct sb_error *err)
{
    const struct sb_recipe *r = run->recipe;
    json_t *scores = json_array();
    for (size_t i = 0; i < result->n_tasks; i++)
        json_array_append_new(scores, score_json(&result->tasks[i], run->teacher != NULL));
    json_array_append_new(scores, score_json(&result->all, run->teacher != NULL));
    char corpus[17], tokenizer[17];
    snprintf(corpus, sizeof corpus, "%016llx", (unsigned long long)run->corpus.hash);
    snprintf(tokenizer, sizeof tokenizer, "%016llx",
             (unsigned long long)run->state.identity.tokenizer);
    json_t *json = json_pack(
        "{s:s, s:I, s:I, s:I, s:I, s:s, s:s, s:o}", "recipe", r->name, "parameters",
        (json_int_t)run->lm->n_params, "seed", (json_int_t)r->train.seed, "steps",
        (json_int_t)r->train.steps, "tokens", (json_int_t)(r->train.steps * r->train.batch_tokens),
        "corpus_xxh64", corpus, "tokenizer_xxh64", tokenizer, "validation", scores);
    char *text =
        json ? json_dumps(json, JSON_INDENT(2) | JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(6))
             : NULL;
    json_decref(json);
    enum sb_status status =
        text ? sb_file_write(run->out, "training.json", text, strlen(text), err)
             : sb_fail(err, SB_ENOMEM, "%s/training.json: out of memory", run->out);
    free(text);
    return status;
}

/* loss.csv: the mean loss of every CURVE_STEPS steps. */
static enum sb_status write_curve(const struct run *run, struct sb_error *err)
{
    size_t steps = run->recipe->train.steps, cap = 64 * (steps / CURVE_STEPS + 2), used;
    char *text = sb_alloc(cap);
    if (!text)
        return sb_fail(err, SB_ENOMEM, "%s/loss.csv: out of memory", run->out);
    used = (size_t)snprintf(text, cap, "step,tokens,loss\n");
    for (size_t at = 0; at < steps; at += CURVE_STEPS) {
        size_t n = steps - at < CURVE_STEPS ? steps - at : CURVE_STEPS;
        double sum = 0;
        for (size_t i = 0; i < n; i++)
            sum += (double)run->state.history[at + i];
        used += (size_t)snprintf(text + used, cap - used, "%zu,%zu,%.5f\n", at + n,
                                 (at + n) * run->recipe->train.batch_tokens, sum / (double)n);
    }
    enum sb_status status = sb_file_write(run->out, "loss.csv", text, used, err);
    sb_free(text);
    return status;
}

static enum sb_status evaluate(struct run *run, const struct sb_counts *counts,
                               struct sb_evaluation *result, struct sb_error *err)
{
    struct sb_evaluation_input in = {
        .lm = run->lm,
        .teacher = run->teacher,
        .tape = run->tape,
        .teacher_tape = run->teacher_tape,
        .corpus = &run->corpus,
        .tok = run->tok,
        .marks = run->marks,
        .seq_len = run->recipe->train.seq_len,
        .max_tokens = VALIDATION_TOKENS,
        .counts = counts,
    };
    return sb_evaluate(result, &in, err);
}

static enum sb_status deliver(struct run *run, struct sb_error *err)
{
    struct sb_counts counts = { 0 };
    struct sb_evaluation result;
    sb_lm_round_bf16(run->lm);
    enum sb_status status =
        sb_lm_write(run->lm, run->out, run->recipe->tokenizer, &run->marks, run->recipe->name, err);
    if (status == SB_OK)
        status = write_curve(run, err);
    if (status == SB_OK)
        status = count_tokens(run, &counts, err);
    if (status == SB_OK)
        status = evaluate(run, &counts, &result, err);
    if (status == SB_OK)
        status = write_summary(run, &result, err);
    if (status == SB_OK)
        sb_train_note(run->recipe, run->options,
                      "%s written; validation loss %.4f (bigram %.4f, unigram %.4f)", run->out,
                      result.all.loss, result.all.bigram, result.all.unigram);
    sb_counts_finish(&counts);
    return status;
}

static enum sb_status prepare_and_train(struct run *run, struct sb_error *err)
{
    uint64_t teacher_hash = 0;
    enum sb_status status = open_data(run, err);
    if (status == SB_OK)
        status = open_stream(run, err);
    if (status == SB_OK)
        status = open_model(run, err);
    if (status == SB_OK)
        status = open_teacher(run, &teacher_hash, err);
    if (status == SB_OK)
        status = open_checkpoint(run, teacher_hash, err);
    if (status != SB_OK)
        return status;
    sb_train_note(run->recipe, run->options, "%zu weights, %zu records, %zu steps of %zu tokens",
                  run->lm->n_params, run->corpus.n_records, run->recipe->train.steps,
                  run->recipe->train.batch_tokens);
    status = loop(run, err);
    return status == SB_OK ? deliver(run, err) : status;
}

enum sb_status sb_train_lm(const struct sb_recipe *recipe, const struct sb_train_options *options,
                           struct sb_error *err)
{
    struct run run = { .recipe = recipe, .options = options };
    run.out = options->out ? options->out : recipe->out;
    if (options->threads > 0)
        sb_threads_set(options->threads);
    enum sb_status status = prepare_and_train(&run, err);
    run_finish(&run);
    return status;
}
