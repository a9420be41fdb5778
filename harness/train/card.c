/* The model card. */
#include "harness/train/card.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "harness/core/alloc.h"
#include "harness/model/chat.h"
#include "harness/model/mapping.h"
#include "harness/model/model.h"
#include "harness/train/model_out.h"
#include "kernels/prob.h"

enum { SAMPLE_TOKENS = 60, CURVE_POINTS = 9 };

struct card {
    const struct sb_recipe *recipe;
    const char *recipe_path, *dir;
    json_t *training;
    FILE *out;
};

static double number(const json_t *json, const char *key)
{
    return json_number_value(json_object_get(json, key));
}

static const char *text(const json_t *json, const char *key)
{
    const char *value = json_string_value(json_object_get(json, key));
    return value ? value : "?";
}

static void row(const struct card *c, const char *what, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
static void row(const struct card *c, const char *what, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    fprintf(c->out, "| %s | ", what);
    vfprintf(c->out, fmt, args);
    fprintf(c->out, " |\n");
    va_end(args);
}

/* ---- what it is ------------------------------------------------------------------------------ */

static void model_rows(const struct card *c)
{
    const struct sb_recipe *r = c->recipe;
    row(c, "architecture",
        "llama: %zu layers, width %zu, %zu heads and %zu KV heads of %zu, SwiGLU of %zu, RoPE base %g",
        r->model.layers, r->model.width, r->model.heads, r->model.kv_heads,
        r->model.width / r->model.heads, r->model.ff, r->model.rope_base);
    row(c, "vocabulary", "%zu tokens, tied embeddings", r->model.vocab);
    row(c, "context", "%zu positions; texts of up to %zu tokens were seen in training",
        r->model.context, r->train.seq_len);
    if (r->init)
        row(c, "started from", "%s", r->init);
    if (r->distill.teacher)
        row(c, "loss", "%g %s(%s, %s) + %g cross-entropy", r->distill.weight, r->distill.loss,
            r->distill.teacher, r->name, 1 - r->distill.weight);
}

static void head_rows(const struct card *c)
{
    const struct sb_recipe *r = c->recipe;
    char *parameters = sb_spec_text(&r->head);
    row(c, "architecture", "%s", parameters ? parameters : r->arch);
    sb_free(parameters);
    row(c, "target", "%s, content %s", r->target, text(c->training, "target_hash"));
    row(c, "loss", "%s%s, a depth counting %g times the one before", r->loss.by,
        r->loss.feature > 0 ? " and smooth L1 on features" : "", r->loss.decay);
}

static enum sb_status file_hash(const struct card *c, char hash[17], struct sb_error *err)
{
    struct sb_mapping map;
    char *path = sb_strf("%s/model.safetensors", c->dir);
    enum sb_status status = path ? sb_mapping_open(&map, path, err)
                                 : sb_fail(err, SB_ENOMEM, "%s: out of memory", c->dir);
    if (status == SB_OK) {
        snprintf(hash, 17, "%016" PRIx64, (uint64_t)XXH64(map.bytes, map.size, 0));
        sb_mapping_close(&map);
    }
    sb_free(path);
    return status;
}

static enum sb_status write_facts(const struct card *c, struct sb_error *err)
{
    const struct sb_recipe *r = c->recipe;
    char hash[17];
    enum sb_status status = file_hash(c, hash, err);
    if (status != SB_OK)
        return status;
    fprintf(c->out, "| | |\n| --- | --- |\n");
    if (r->arch)
        head_rows(c);
    else
        model_rows(c);
    row(c, "weights", "%.0f, stored as BF16", number(c->training, "parameters"));
    row(c, "trained on", "%.0f tokens: %.0f steps of %zu, seed %.0f", number(c->training, "tokens"),
        number(c->training, "steps"), r->train.batch_tokens, number(c->training, "seed"));
    row(c, "learning rate", "%g after %zu steps, down to %g", r->train.lr, r->train.warmup,
        r->train.lr * r->train.min_lr_ratio);
    row(c, "recipe", "`%s`", c->recipe_path);
    row(c, "xxHash64 of the weights' file", "`%s`", hash);
    row(c, "of the training texts; of the tokenizer", "`%s`; `%s`",
        text(c->training, "corpus_xxh64"), text(c->training, "tokenizer_xxh64"));
    if (r->notes)
        fprintf(c->out, "\n%s\n", r->notes);
    return SB_OK;
}

/* ---- how it learned -------------------------------------------------------------------------- */

/* Some lines of loss.csv, evenly spread, first and last among them. */
static enum sb_status write_curve(const struct card *c, struct sb_error *err)
{
    char *path = sb_strf("%s/loss.csv", c->dir);
    FILE *file = path ? fopen(path, "r") : NULL;
    sb_free(path);
    if (!file)
        return sb_fail(err, SB_EINPUT, "%s/loss.csv: cannot be read", c->dir);
    size_t n = 0, cap = 0;
    struct point {
        double tokens, loss;
    } *point = NULL;
    char line[128];
    enum sb_status status = SB_OK;
    while (status == SB_OK && fgets(line, sizeof line, file)) {
        struct point p;
        if (sscanf(line, "%*f,%lf,%lf", &p.tokens, &p.loss) != 2)
            continue;
        if (sb_grow((void **)&point, &cap, n + 1, sizeof *point))
            status = sb_fail(err, SB_ENOMEM, "%s: out of memory", c->dir);
        else
            point[n++] = p;
    }
    fclose(file);
    size_t shown = n < CURVE_POINTS ? n : CURVE_POINTS;
    if (status == SB_OK && shown > 1) {
        fprintf(c->out,
                "\n## Loss while training\n\nThe mean of ten steps; all of it in `loss.csv`.\n\n"
                "| tokens (thousands) |");
        for (size_t i = 0; i < shown; i++)
            fprintf(c->out, " %.0f |", point[i * (n - 1) / (shown - 1)].tokens * 1e-3);
        fprintf(c->out, "\n| ---: |");
        for (size_t i = 0; i < shown; i++)
            fprintf(c->out, " ---: |");
        fprintf(c->out, "\n| loss |");
        for (size_t i = 0; i < shown; i++)
            fprintf(c->out, " %.2f |", point[i * (n - 1) / (shown - 1)].loss);
        fprintf(c->out, "\n");
    }
    sb_free(point);
    return status;
}

static void write_validation(const struct card *c)
{
    const json_t *scores = json_object_get(c->training, "validation"), *score;
    bool taught = json_object_get(json_array_get(scores, 0), "teacher_agreement") != NULL;
    size_t i;
    fprintf(
        c->out,
        "\n## On held-out records\n\nNats per token, in BF16 as stored, beside counts over the same "
        "training tokens (bigrams lean on unigrams).%s\n\n"
        "| task | records | tokens | model | bigram | unigram |%s\n"
        "| --- | ---: | ---: | ---: | ---: | ---: |%s\n",
        taught ? " Along these texts, which are not the drafter's own, agreement is an estimate."
               : "",
        taught ? " same first choice as the teacher | Σ min(p, q) |" : "",
        taught ? " ---: | ---: |" : "");
    json_array_foreach(scores, i, score)
    {
        fprintf(c->out, "| %s | %.0f | %.0f | %.3f | %.3f | %.3f |", text(score, "task"),
                number(score, "records"), number(score, "tokens"), number(score, "loss"),
                number(score, "bigram"), number(score, "unigram"));
        if (taught)
            fprintf(c->out, " %.1f %% | %.3f |", 100 * number(score, "teacher_agreement"),
                    number(score, "teacher_overlap"));
        fprintf(c->out, "\n");
    }
}

static void write_depths(const struct card *c)
{
    const json_t *all = json_object_get(c->training, "held_out");
    const json_t *last = json_array_get(all, json_array_size(all) - 1);
    const json_t *agreement = json_object_get(last, "agreement"),
                 *overlap = json_object_get(last, "overlap");
    if (!last)
        return;
    fprintf(c->out,
            "\n## On held-out texts\n\n%.0f rows, the text's own tokens before each guess.\n\n"
            "| depth | first choice is the target's | Σ min(p, q) |\n| ---: | ---: | ---: |\n",
            number(last, "rows"));
    for (size_t j = 0; j < json_array_size(agreement); j++)
        fprintf(c->out, "| %zu | %.1f %% | %.3f |\n", j + 1,
                100 * json_number_value(json_array_get(agreement, j)),
                json_number_value(json_array_get(overlap, j)));
    fprintf(c->out, "\nA chain of first choices: %.2f tokens a step.\n",
            number(last, "tokens_per_step"));
}

/* ---- what it says ---------------------------------------------------------------------------- */

/* The answer to one question, greedily, up to its end mark. */
static enum sb_status answer(const struct card *c, const char *question, struct sb_seq *seq,
                             const struct sb_tokenizer *tok, struct sb_error *err)
{
    struct sb_tokens ids = { 0 };
    const struct sb_turn turn = { question, NULL };
    enum sb_status status = sb_chat_encode("specbench", tok, &turn, 1, &ids, err);
    size_t n_prompt = ids.n, fed = 0, row_at = 0, length = 0;
    size_t n_vocab = sb_model_config(sb_seq_model(seq))->n_vocab;
    char *said = NULL;
    sb_seq_truncate(seq, 0);
    while (status == SB_OK && ids.n < n_prompt + SAMPLE_TOKENS && ids.n <= sb_seq_capacity(seq)) {
        status = sb_seq_prefill(seq, ids.id + fed, ids.n - fed, NULL, 0, &row_at, err);
        if (status != SB_OK)
            break;
        fed = ids.n;
        sb_token best = (sb_token)sb_logits_argmax(sb_seq_logits(seq, row_at), n_vocab);
        if (best == sb_tokenizer_eos(tok))
            break;
        status = sb_tokens_push(&ids, &best, 1, err);
    }
    if (status == SB_OK)
        status = sb_tokenizer_decode(tok, &said, &length, ids.id + n_prompt, ids.n - n_prompt,
                                     false, err);
    if (status == SB_OK) {
        fprintf(c->out, "\n> **%s**\n>\n> ", question);
        for (size_t i = 0; i < length; i++)
            fprintf(c->out, said[i] == '\n' ? "\n> " : "%c", said[i]);
        fprintf(c->out, "\n");
    }
    sb_free(said);
    sb_tokens_finish(&ids);
    return status;
}

static enum sb_status write_samples(const struct card *c, struct sb_error *err)
{
    struct sb_model *model = NULL;
    struct sb_seq *seq = NULL;
    struct sb_tokenizer *tok = NULL;
    if (c->recipe->n_samples == 0)
        return SB_OK;
    enum sb_status status = sb_tokenizer_open(&tok, c->dir, err);
    if (status == SB_OK)
        status = sb_model_load(&model, c->dir, err);
    if (status == SB_OK)
        status = sb_seq_create(&seq, model, sb_model_config(model)->max_context, 64, err);
    if (status == SB_OK)
        fprintf(c->out, "\n## Samples\n\nGreedy, the first %d tokens of the answer.\n",
                SAMPLE_TOKENS);
    for (size_t i = 0; status == SB_OK && i < c->recipe->n_samples; i++)
        status = answer(c, c->recipe->samples[i], seq, tok, err);
    sb_seq_destroy(seq);
    sb_model_destroy(model);
    sb_tokenizer_close(tok);
    return status;
}

/* ---------------------------------------------------------------------------------------------- */

static enum sb_status write_card(const struct card *c, struct sb_error *err)
{
    fprintf(c->out, "# %s\n\n%s\n\n", c->recipe->name,
            c->recipe->summary ? c->recipe->summary
                               : "Trained by `specbench train`, which wrote this card.");
    enum sb_status status = write_facts(c, err);
    if (status == SB_OK)
        status = write_curve(c, err);
    if (status == SB_OK && c->recipe->arch)
        write_depths(c);
    else if (status == SB_OK)
        write_validation(c);
    if (status == SB_OK && !c->recipe->arch)
        status = write_samples(c, err);
    return status;
}

enum sb_status sb_card_write(const struct sb_recipe *recipe, const char *recipe_path,
                             const char *dir, struct sb_error *err)
{
    struct card c = { .recipe = recipe, .recipe_path = recipe_path, .dir = dir };
    char *path = sb_strf("%s/training.json", dir), *card = NULL;
    size_t length = 0;
    c.training = path ? json_load_file(path, 0, NULL) : NULL;
    c.out = open_memstream(&card, &length);
    enum sb_status status = SB_OK;
    if (!json_is_object(c.training))
        status = sb_fail(err, SB_EINPUT, "%s/training.json: missing or damaged: train first", dir);
    else if (!c.out)
        status = sb_fail(err, SB_ENOMEM, "%s: out of memory for the card", dir);
    if (status == SB_OK)
        status = write_card(&c, err);
    if (c.out && fclose(c.out) != 0 && status == SB_OK)
        status = sb_fail(err, SB_ENOMEM, "%s: out of memory for the card", dir);
    if (status == SB_OK)
        status = sb_file_write(dir, "README.md", card, length, err);
    free(card);
    json_decref(c.training);
    sb_free(path);
    return status;
}
