/* The training loop. */
#include "harness/train/run.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "harness/core/alloc.h"
#include "harness/core/clock.h"
#include "harness/core/paths.h"
#include "harness/train/generate.h"
#include "harness/train/model_out.h"
#include "harness/train/trainer.h"

enum { CURVE_STEPS = 10 };

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
    if (recipe->data.generate.wanted) {
        const char *file = SB_GENERATED_FILE;
        return sb_corpus_read(corpus, sb_run_out(recipe, options), &file, 1, recipe->data.held_out,
                              err);
    }
    const char *dir = options->data_dir ? options->data_dir : recipe->data.dir;
    return sb_corpus_read(corpus, dir, (const char *const *)recipe->data.files,
                          recipe->data.n_files, recipe->data.held_out, err);
}

/* ---- setting up ------------------------------------------------------------------------------ */

const char *sb_run_out(const struct sb_recipe *recipe, const struct sb_train_options *options)
{
    return options->out ? options->out : recipe->out;
}

static enum sb_status open_stream(struct sb_run *run, struct sb_error *err)
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

enum sb_status sb_run_open(struct sb_run *run, const struct sb_recipe *recipe,
                           const struct sb_train_options *options, const char *tokenizer,
                           size_t n_vocab, const char *field, struct sb_error *err)
{
    run->recipe = recipe;
    run->options = options;
    run->out = sb_run_out(recipe, options);
    enum sb_status status = sb_tokenizer_open(&run->tok, tokenizer, err);
    if (status == SB_OK)
        status = sb_marks_find(&run->marks, run->tok, tokenizer, err);
    if (status == SB_OK && sb_tokenizer_size(run->tok) > n_vocab)
        status = sb_fail(err, SB_EUSAGE, "recipe %s: %s is %zu, and the tokenizer has %zu tokens",
                         recipe->name, field, n_vocab, sb_tokenizer_size(run->tok));
    if (status == SB_OK)
        status = sb_recipe_corpus(&run->corpus, recipe, options, err);
    if (status == SB_OK)
        status = open_stream(run, err);
    return status == SB_OK ? sb_tape_create(&run->tape, err) : status;
}

static enum sb_status open_optimiser(struct sb_run *run, struct sb_error *err)
{
    const struct sb_recipe *r = run->recipe;
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
    run->state.history = sb_alloc_zero(r->train.steps, sizeof *run->state.history);
    if (!run->state.history)
        return sb_fail(err, SB_ENOMEM, "training run: out of memory");
    return sb_adamw_init(&run->opt, &adamw, run->trainee.weights->n_params, err);
}

static enum sb_status resume(struct sb_run *run, struct sb_error *err)
{
    if (!sb_is_file(run->checkpoint_path)) {
        sb_train_note(run->recipe, run->options, "no checkpoint in %s yet: starting anew",
                      run->out);
        return SB_OK;
    }
    enum sb_status status = sb_checkpoint_load(&run->state, run->checkpoint_path, err);
    return status == SB_OK ? sb_data_seek(&run->stream, &run->state.cursor, err) : status;
}

enum sb_status sb_run_begin(struct sb_run *run, const struct sb_trainee *trainee, uint64_t teacher,
                            struct sb_error *err)
{
    run->trainee = *trainee;
    enum sb_status status = open_optimiser(run, err);
    if (status == SB_OK)
        status = sb_make_dirs(run->out, err);
    if (status != SB_OK)
        return status;
    run->checkpoint_path = sb_strf("%s/train.ckpt", run->out);
    if (!run->checkpoint_path)
        return sb_fail(err, SB_ENOMEM, "training run: out of memory");
    run->state.identity = (struct sb_train_identity){
        .recipe = run->recipe->hash,
        .corpus = run->corpus.hash,
        .tokenizer = sb_tokenizer_hash(run->tok),
        .teacher = teacher,
    };
    run->state.weights = trainee->weights;
    run->state.opt = &run->opt;
    if (run->options->resume)
        status = resume(run, err);
    if (status == SB_OK)
        sb_train_note(run->recipe, run->options,
                      "%zu weights, %zu records, %zu steps of %zu tokens",
                      trainee->weights->n_params, run->corpus.n_records, run->recipe->train.steps,
                      run->recipe->train.batch_tokens);
    return status;
}

void sb_run_finish(struct sb_run *run)
{
    sb_free(run->checkpoint_path);
    sb_data_finish(&run->stream);
    sb_batch_finish(&run->batch);
    sb_corpus_finish(&run->corpus);
    if (run->tok)
        sb_tokenizer_close(run->tok);
    sb_tape_destroy(run->tape);
    sb_adamw_finish(&run->opt);
    sb_free(run->state.history);
}

/* ---- stepping -------------------------------------------------------------------------------- */

/* Loss of the batch in hand, divided by `share`, with its gradients added. */
static enum sb_status micro_step(struct sb_run *run, size_t share, double *loss,
                                 struct sb_error *err)
{
    sb_tape_reset(run->tape);
    struct sb_var *total = run->trainee.loss(run->trainee.self, run, share);
    enum sb_status status = sb_tape_backward(run->tape, total, err);
    if (status == SB_OK)
        *loss += (double)total->x[0];
    return status;
}

/* What the trainee wants to measure, then a checkpoint: whoever resumes has been measured. */
static enum sb_status save(struct sb_run *run, struct sb_error *err)
{
    uint64_t began = sb_now_ns();
    run->state.cursor = run->stream.cursor;
    enum sb_status status =
        run->trainee.measure ? run->trainee.measure(run->trainee.self, run, err) : SB_OK;
    if (status == SB_OK)
        status = sb_checkpoint_save(&run->state, run->checkpoint_path, err);
    run->paused_ns += sb_now_ns() - began;
    return status;
}

static enum sb_status step(struct sb_run *run, struct sb_error *err)
{
    const struct sb_recipe *recipe = run->recipe;
    size_t share = recipe->train.batch_tokens / recipe->train.micro_tokens;
    double loss = 0;
    sb_trainable_clear_grads(run->trainee.weights);
    for (size_t i = 0; i < share; i++) {
        enum sb_status status = sb_data_next(&run->stream, &run->batch, err);
        if (status == SB_OK)
            status = micro_step(run, share, &loss, err);
        if (status != SB_OK)
            return status;
    }
    size_t at = run->opt.step;
    double norm = isfinite(loss) ? sb_adamw_step(&run->opt, run->trainee.weights) : NAN;
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

static void report(const struct sb_run *run)
{
    const struct sb_train_options *options = run->options;
    if (!options->report)
        return;
    size_t done = run->opt.step, steps = run->recipe->train.steps;
    size_t per_step = run->recipe->train.batch_tokens;
    double seconds = (double)(sb_now_ns() - run->began_ns - run->paused_ns) * 1e-9;
    double speed = (double)((done - run->began_step) * per_step) / (seconds > 0 ? seconds : 1);
    double left = speed > 0 ? (double)((steps - done) * per_step) / speed : 0;
    double seen = (double)run->batch.m / (double)run->batch.n_segments / 2;
    double flops = run->trainee.flops_per_token(run->trainee.self, seen);
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

enum sb_status sb_run_loop(struct sb_run *run, struct sb_error *err)
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

enum sb_status sb_run_write_curve(const struct sb_run *run, struct sb_error *err)
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
