/* The target answers the recipe's prompts. */
#include "harness/train/generate.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "harness/core/alloc.h"
#include "harness/core/clock.h"
#include "harness/core/rng.h"
#include "harness/core/threads.h"
#include "harness/decode/sampling.h"
#include "harness/model/bundled.h"
#include "harness/model/model.h"
#include "harness/train/model_out.h"
#include "harness/train/run.h"
#include "harness/train/trainer.h"

enum { PROSE_PROMPT = 64, PREFILL_ROWS = 256, ORIGIN_TEXT = 52 };

struct writing {
    const struct sb_recipe *recipe;
    const struct sb_train_options *options;
    char *path; /* of the file */
    struct sb_corpus corpus;
    struct sb_tokenizer *tok;
    struct sb_marks marks;
    struct sb_model *model;
    struct sb_seq *seq;
    double *prob;
    void *scratch;
    struct sb_rendered doc;
    struct sb_tokens text;
    size_t *prompts, n_prompts; /* records to answer, in order */
    size_t done, began_done;    /* lines of the file */
    size_t tokens;              /* written in this session */
    uint64_t began_ns, told_ns;
    char origin[ORIGIN_TEXT];
    FILE *file;
};

/* ---- what is to be written ------------------------------------------------------------------- */

/* Of the text in hand. */
static struct sb_sampling sampling_of(const struct writing *w)
{
    const double *temperature = w->recipe->data.generate.temperature;
    return (struct sb_sampling){
        .temperature = temperature[w->done % w->recipe->data.generate.n_temperatures],
        .top_p = w->recipe->data.generate.top_p,
    };
}

/* Tokens of the record in w->doc that are the prompt: a chat up to its first answer, the beginning of
 * prose; 0: there is not room for an answer behind it. */
static size_t prompt_length(const struct writing *w)
{
    size_t n = 0, total = w->doc.tokens.n;
    while (n < total && !w->doc.answer[n])
        n++;
    if (n <= 1) /* all of it is an answer */
        n = total / 2 < PROSE_PROMPT ? total / 2 : PROSE_PROMPT;
    size_t room = w->recipe->train.seq_len, wanted = w->recipe->data.generate.max_new_tokens;
    return n + wanted <= room ? n : 0;
}

static enum sb_status render(struct writing *w, size_t record, struct sb_error *err)
{
    return sb_record_render(&w->doc, &w->corpus, &w->corpus.records[record], w->tok, &w->marks,
                            err);
}

/* Of each task as many records as the recipe wants, in an order drawn by its seed. */
static enum sb_status choose_prompts(struct writing *w, struct sb_error *err)
{
    size_t n = w->corpus.n_records, taken[SB_MAX_TASKS] = { 0 };
    w->prompts = sb_alloc_array(n, sizeof *w->prompts);
    if (!w->prompts)
        return sb_fail(err, SB_ENOMEM, "prompts: out of memory");
    for (size_t i = 0; i < n; i++)
        w->prompts[i] = i;
    struct sb_rng rng = sb_rng_make(w->recipe->data.generate.seed, SB_STREAM_ORDER);
    sb_rng_shuffle(&rng, w->prompts, n);
    for (size_t i = 0; i < n; i++) {
        size_t record = w->prompts[i];
        size_t *mine = &taken[w->corpus.records[record].task];
        if (*mine == w->recipe->data.generate.prompts)
            continue;
        enum sb_status status = render(w, record, err);
        if (status != SB_OK)
            return status;
        if (prompt_length(w) == 0)
            continue;
        (*mine)++;
        w->prompts[w->n_prompts++] = record;
    }
    if (w->n_prompts == 0)
        return sb_fail(err, SB_EUSAGE,
                       "recipe %s: no prompt leaves room for data.generate.max_new_tokens = %zu in "
                       "train.seq_len = %zu",
                       w->recipe->name, w->recipe->data.generate.max_new_tokens,
                       w->recipe->train.seq_len);
    return SB_OK;
}

static enum sb_status open_sources(struct writing *w, const char *model, const char *tokenizer,
                                   struct sb_error *err)
{
    const struct sb_recipe *r = w->recipe;
    const char *dir = w->options->data_dir ? w->options->data_dir : r->data.dir;
    enum sb_status status = sb_tokenizer_open(&w->tok, tokenizer, err);
    if (status == SB_OK)
        status = sb_marks_find(&w->marks, w->tok, tokenizer, err);
    if (status == SB_OK)
        status = sb_corpus_read(&w->corpus, dir, (const char *const *)r->data.files,
                                r->data.n_files, 0, err);
    if (status == SB_OK)
        status = choose_prompts(w, err);
    if (status == SB_OK)
        status = sb_model_load(&w->model, model, err);
    if (status == SB_OK)
        status = sb_seq_create(&w->seq, w->model, r->train.seq_len, PREFILL_ROWS, err);
    if (status != SB_OK)
        return status;
    size_t n_vocab = sb_model_config(w->model)->n_vocab;
    w->prob = sb_alloc_array(n_vocab, sizeof *w->prob);
    w->scratch = sb_alloc(sb_sampling_scratch_bytes(n_vocab));
    if (!w->prob || !w->scratch)
        return sb_fail(err, SB_ENOMEM, "rows of the target: out of memory");
    snprintf(w->origin, sizeof w->origin, "%016" PRIx64 "-%016" PRIx64 "-%016" PRIx64,
             sb_model_weights(w->model)->content_hash, sb_tokenizer_hash(w->tok),
             sb_rng_mix(sb_recipe_generate_hash(r), sb_rng_mix(w->corpus.hash, r->train.seq_len)));
    return SB_OK;
}

/* ---- what is there --------------------------------------------------------------------------- */

/* Count the whole lines of the file, all of which must be ours, and cut what follows the last one. */
static enum sb_status count_lines(struct writing *w, struct sb_error *err)
{
    FILE *file = fopen(w->path, "r+");
    if (!file)
        return errno == ENOENT
                   ? SB_OK
                   : sb_fail(err, SB_EIO, "%s: cannot be opened: %s", w->path, strerror(errno));
    char *line = NULL;
    size_t cap = 0;
    off_t end = 0;
    enum sb_status status = SB_OK;
    for (ssize_t n; status == SB_OK && (n = getline(&line, &cap, file)) > 0;) {
        if (line[n - 1] != '\n')
            break;
        json_t *json = json_loadb(line, (size_t)n, 0, NULL);
        const char *by = json_string_value(json_object_get(json, "by"));
        if (!by || strcmp(by, w->origin) != 0)
            status = sb_fail(err, SB_EUSAGE,
                             "%s line %zu: was written by another target, tokenizer or recipe; "
                             "remove the file or train into another directory",
                             w->path, w->done + 1);
        json_decref(json);
        w->done++;
        end += n;
    }
    if (status == SB_OK && ftruncate(fileno(file), end) != 0)
        status = sb_fail(err, SB_EIO, "%s: cannot be cut: %s", w->path, strerror(errno));
    free(line);
    fclose(file);
    return status;
}

/* ---- writing --------------------------------------------------------------------------------- */

static sb_token next_token(struct writing *w, const struct sb_rng *at, size_t row)
{
    struct sb_sampling sampling = sampling_of(w);
    struct sb_rng rng = *at;
    size_t n = sb_model_config(w->model)->n_vocab;
    sb_sampling_apply(w->prob, &sampling, sb_seq_logits(w->seq, row), n, w->scratch);
    sb_rng_seek(&rng, sb_seq_length(w->seq));
    return (sb_token)sb_pick_by(sb_rng_uniform(&rng), w->prob, n);
}

/* w->text: the prompt of a record and what the model makes of it, its end mark included. */
static enum sb_status answer(struct writing *w, size_t record, size_t *n_prompt,
                             struct sb_error *err)
{
    enum sb_status status = render(w, record, err);
    if (status != SB_OK)
        return status;
    *n_prompt = prompt_length(w);
    w->text.n = 0;
    sb_seq_truncate(w->seq, 0);
    status = sb_tokens_push(&w->text, w->doc.tokens.id, *n_prompt, err);
    size_t row = 0, fed = 0, last = *n_prompt + w->recipe->data.generate.max_new_tokens;
    struct sb_rng rng =
        sb_rng_make(sb_rng_mix(w->recipe->data.generate.seed, record), SB_STREAM_SAMPLE);
    while (status == SB_OK && w->text.n < last) {
        status = sb_seq_prefill(w->seq, w->text.id + fed, w->text.n - fed, NULL, 0, &row, err);
        if (status != SB_OK)
            break;
        fed = w->text.n;
        sb_token token = next_token(w, &rng, row);
        status = sb_tokens_push(&w->text, &token, 1, err);
        w->tokens++;
        if (token == w->marks.end)
            break;
    }
    return status;
}

static enum sb_status write_line(struct writing *w, size_t record, size_t n_prompt,
                                 struct sb_error *err)
{
    json_t *ids = json_array();
    for (size_t i = 0; i < w->text.n; i++)
        json_array_append_new(ids, json_integer(w->text.id[i]));
    json_t *json =
        json_pack("{s:s, s:o, s:I, s:s}", "task", w->corpus.tasks[w->corpus.records[record].task],
                  "ids", ids, "answer", (json_int_t)n_prompt, "by", w->origin);
    char *line = json ? json_dumps(json, JSON_COMPACT | JSON_PRESERVE_ORDER) : NULL;
    json_decref(json);
    enum sb_status status = SB_OK;
    if (!line)
        status = sb_fail(err, SB_ENOMEM, "%s: out of memory", w->path);
    else if (fprintf(w->file, "%s\n", line) < 0 || fflush(w->file) != 0)
        status = sb_fail(err, SB_EIO, "%s: cannot be written: %s", w->path, strerror(errno));
    free(line);
    return status;
}

static void report(struct writing *w)
{
    if (!w->options->report)
        return;
    double seconds = (double)(sb_now_ns() - w->began_ns) * 1e-9;
    double each = seconds / (double)(w->done - w->began_done);
    struct sb_train_progress progress = {
        .what = w->recipe->name,
        .step = w->done,
        .steps = w->n_prompts,
        .tokens_per_s = (double)w->tokens / (seconds > 0 ? seconds : 1),
        .remaining_ns = (uint64_t)(each * (double)(w->n_prompts - w->done) * 1e9),
        .last = w->done == w->n_prompts,
        .texts = true,
    };
    w->options->report(w->options->report_user, &progress);
}

static enum sb_status write_all(struct writing *w, struct sb_error *err)
{
    w->file = fopen(w->path, "ab");
    if (!w->file)
        return sb_fail(err, SB_EIO, "%s: cannot be opened: %s", w->path, strerror(errno));
    w->began_ns = sb_now_ns();
    w->began_done = w->done;
    while (w->done < w->n_prompts) {
        if (w->options->stop && *w->options->stop)
            return sb_fail(err, SB_EINTERRUPTED,
                           "%s: stopped after text %zu of %zu; the same command goes on",
                           w->recipe->name, w->done, w->n_prompts);
        size_t record = w->prompts[w->done], n_prompt = 0;
        enum sb_status status = answer(w, record, &n_prompt, err);
        if (status == SB_OK)
            status = write_line(w, record, n_prompt, err);
        if (status != SB_OK)
            return status;
        w->done++;
        report(w);
    }
    return SB_OK;
}

static void finish(struct writing *w)
{
    if (w->file)
        fclose(w->file);
    sb_corpus_finish(&w->corpus);
    if (w->tok)
        sb_tokenizer_close(w->tok);
    if (w->seq)
        sb_seq_destroy(w->seq);
    if (w->model)
        sb_model_destroy(w->model);
    sb_free(w->prob);
    sb_free(w->scratch);
    sb_free(w->prompts);
    sb_free(w->path);
    sb_rendered_finish(&w->doc);
    sb_tokens_finish(&w->text);
}

enum sb_status sb_generate_texts(const struct sb_recipe *recipe,
                                 const struct sb_train_options *options, const char *path,
                                 const char *tokenizer, struct sb_error *err)
{
    struct writing w = { .recipe = recipe, .options = options };
    const char *out = sb_run_out(recipe, options);
    enum sb_status status = open_sources(&w, path, tokenizer, err);
    if (status == SB_OK)
        status = sb_make_dirs(out, err);
    if (status == SB_OK && !(w.path = sb_strf("%s/%s", out, SB_GENERATED_FILE)))
        status = sb_fail(err, SB_ENOMEM, "%s: out of memory", out);
    if (status == SB_OK)
        status = count_lines(&w, err);
    if (status == SB_OK && w.done < w.n_prompts)
        status = write_all(&w, err);
    finish(&w);
    return status;
}

enum sb_status sb_train_texts(const struct sb_recipe *recipe,
                              const struct sb_train_options *options, struct sb_error *err)
{
    char *path = NULL;
    if (options->threads > 0)
        sb_threads_set(options->threads);
    enum sb_status status = sb_bundled_resolve(&path, "target", recipe->target, err);
    if (status == SB_OK)
        status = sb_generate_texts(recipe, options, path,
                                   recipe->tokenizer ? recipe->tokenizer : path, err);
    if (status == SB_OK)
        sb_train_note(recipe, options, "%s/%s written", sb_run_out(recipe, options),
                      SB_GENERATED_FILE);
    sb_free(path);
    return status;
}
