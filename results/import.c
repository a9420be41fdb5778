/* Answers of others as rows: what their files say, and nothing they do not. */
#include "results/import.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <xxhash.h>

#include "harness/core/alloc.h"
#include "results/internal.h"

/* Spec-Bench's mt_bench: the categories of its two-turn questions. Elsewhere category and task are one. */
static const char *task_of(const char *category)
{
    static const char *const chat[] = { "writing", "roleplay",   "reasoning", "math",
                                        "coding",  "extraction", "stem",      "humanities" };
    for (size_t i = 0; i < sizeof chat / sizeof *chat; i++)
        if (strcmp(chat[i], category) == 0)
            return "conversation";
    return category;
}

/* An experiment is its files: their answers, their labels, which of them is the baseline. */
static void content_key(char key[SB_KEY_BYTES], const struct sb_answers *files, size_t n,
                        bool has_baseline, const struct sb_import_options *o, char *const *label)
{
    XXH64_hash_t h = has_baseline;
    const char *names[] = { o->name ? o->name : "", o->target ? o->target : "" };
    for (int i = 0; i < 2; i++)
        h = XXH64(names[i], strlen(names[i]), h);
    for (size_t f = 0; f < n; f++) {
        h = XXH64(label[f], strlen(label[f]), h);
        for (size_t i = 0; i < files[f].n; i++) {
            const struct sb_answer *a = &files[f].item[i];
            int64_t head[2] = { a->question_id, a->repeat };
            h = XXH64(head, sizeof head, h);
            h = XXH64(a->category, strlen(a->category), h);
            for (size_t t = 0; t < a->n_turns; t++) {
                int64_t figures[2] = { a->turn[t].new_tokens, a->turn[t].wall_ns };
                h = XXH64(a->turn[t].text, strlen(a->turn[t].text), h);
                h = XXH64(figures, sizeof figures, h);
                h = XXH64(a->turn[t].length ? a->turn[t].length : &(int32_t){ 0 },
                          a->turn[t].n_lengths * sizeof(int32_t), h);
            }
        }
    }
    snprintf(key, SB_KEY_BYTES, "import-%016" PRIx64, (uint64_t)h);
}

/* The model_id of a file, else its name without folder and ending; made unique by its number. */
static char *make_label(const struct sb_answers *files, size_t i, char *const *before)
{
    const char *slash = strrchr(files[i].name, '/'), *base = slash ? slash + 1 : files[i].name;
    const char *dot = strrchr(base, '.');
    size_t n = dot && dot > base ? (size_t)(dot - base) : strlen(base);
    bool has_id = files[i].model_id && files[i].model_id[0];
    char *label = has_id ? sb_strdup(files[i].model_id) : sb_strndup(base, n);
    for (size_t k = 0; k < i && label; k++)
        if (strcmp(before[k], label) == 0) {
            char *other = sb_strf("%s #%zu", label, i + 1);
            sb_free(label);
            return other;
        }
    return label;
}

static enum sb_status add_experiment(int64_t *id, struct sb_store *s, const char *key,
                                     int64_t repeats, const struct sb_import_options *o,
                                     struct sb_error *err)
{
    const struct sb_host_row host = { 0 }; /* unknown */
    const struct sb_model_row model = { .name = o->target ? o->target : "unknown" };
    struct sb_experiment_row row = { .name = o->name ? o->name : "import",
                                     .content_key = key,
                                     .dataset = "spec-bench",
                                     .repeats = repeats,
                                     .top_p = 1,
                                     .origin = "import" };
    enum sb_status rc = sb_store_host(s, &host, &row.host_id, err);
    if (rc == SB_OK)
        rc = sb_store_model(s, &model, &row.target_model_id, err);
    return rc == SB_OK ? sb_store_experiment(s, &row, id, err) : rc;
}

/* A length of n tokens: n - 1 accepted and the target's own; 0 when a stop cut all of them. Of the draft only
 * the accepted part is known. */
static struct sb_step_row step_of(int32_t length, size_t no)
{
    int32_t accepted = length > 0 ? length - 1 : 0;
    return (struct sb_step_row){ .step_no = (int32_t)no,
                                 .drafted = accepted,
                                 .depth = accepted,
                                 .accepted = accepted,
                                 .tokens = length };
}

static enum sb_status add_turn(struct sb_store *s, int64_t arm_id, int64_t prompt_id,
                               const struct sb_answer *a, size_t t, struct sb_error *err)
{
    const struct sb_answer_turn *turn = &a->turn[t];
    bool found = false;
    char when[32] = "";
    time_t seconds = a->time > 0 && a->time < 1e11 ? (time_t)a->time : 0;
    struct tm utc;
    enum sb_status rc =
        sb_store_find_generation(s, arm_id, prompt_id, a->repeat, &found, NULL, NULL, err);
    if (rc != SB_OK || found)
        return rc;
    struct sb_step_row *steps = sb_alloc_array(turn->n_lengths, sizeof *steps);
    if (!steps)
        return sb_fail(err, SB_ENOMEM, "out of memory for %zu steps", turn->n_lengths);
    for (size_t i = 0; i < turn->n_lengths; i++)
        steps[i] = step_of(turn->length[i], i);
    if (seconds && gmtime_r(&seconds, &utc))
        strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%SZ", &utc);
    const struct sb_generation_row row = { .arm_id = arm_id,
                                           .prompt_id = prompt_id,
                                           .repeat = a->repeat,
                                           .status = "ok",
                                           .text = turn->text,
                                           .n_tokens = (size_t)turn->new_tokens,
                                           .wall_ns = turn->wall_ns,
                                           .load_average = NAN,
                                           .started_at = when[0] ? when : NULL,
                                           .steps = steps,
                                           .n_steps = turn->n_lengths };
    rc = sb_store_generation(s, &row, err);
    sb_free(steps);
    return rc;
}

static enum sb_status add_answer(struct sb_store *s, int64_t experiment_id, int64_t arm_id,
                                 const struct sb_answer *a, struct sb_error *err)
{
    enum sb_status rc = SB_OK;
    for (size_t t = 0; t < a->n_turns && rc == SB_OK; t++) {
        int64_t prompt_id = 0;
        const struct sb_prompt_row prompt = { .experiment_id = experiment_id,
                                              .question_id = a->question_id,
                                              .task = task_of(a->category),
                                              .category = a->category,
                                              .turn = (int)t + 1,
                                              .n_turns = (int64_t)a->n_turns };
        rc = sb_store_prompt(s, &prompt, &prompt_id, err);
        if (rc == SB_OK)
            rc = add_turn(s, arm_id, prompt_id, a, t, err);
    }
    return rc;
}

static enum sb_status add_arm(struct sb_import_result *r, struct sb_store *s, int no,
                              const char *label, const struct sb_answers *file, bool is_baseline,
                              struct sb_error *err)
{
    int64_t arm_id = 0;
    const struct sb_arm_row row = { .experiment_id = r->experiment_id,
                                    .arm_no = no,
                                    .label = label,
                                    .drafter = "unknown",
                                    .is_baseline = is_baseline };
    enum sb_status rc = sb_store_arm(s, &row, &arm_id, err);
    for (size_t i = 0; i < file->n && rc == SB_OK; i++) {
        rc = add_answer(s, r->experiment_id, arm_id, &file->item[i], err);
        r->answers++;
        for (size_t t = 0; t < file->item[i].n_turns; t++)
            r->steps += file->item[i].turn[t].n_lengths;
    }
    r->arms++;
    return rc;
}

static int compare_answers(const void *a, const void *b)
{
    const struct sb_answer *const *x = a, *const *y = b;
    int d = ((*x)->question_id > (*y)->question_id) - ((*x)->question_id < (*y)->question_id);
    return d ? d : ((*x)->repeat > (*y)->repeat) - ((*x)->repeat < (*y)->repeat);
}

/* The answers of a file in order of question and choice, in new memory; no question twice, as in a file that
 * two runs were appended to. */
static enum sb_status sort_answers(const struct sb_answer ***out, const struct sb_answers *file,
                                   struct sb_error *err)
{
    const struct sb_answer **sorted = sb_alloc_array(file->n, sizeof *sorted);
    if (!sorted)
        return sb_fail(err, SB_ENOMEM, "%s: out of memory for %zu answers", file->name, file->n);
    for (size_t i = 0; i < file->n; i++)
        sorted[i] = &file->item[i];
    qsort(sorted, file->n, sizeof *sorted, compare_answers);
    for (size_t i = 1; i < file->n; i++)
        if (compare_answers(&sorted[i - 1], &sorted[i]) == 0) {
            enum sb_status rc =
                sb_fail(err, SB_EFORMAT,
                        "%s: question %" PRId64 " is answered twice: are two runs in this file?",
                        file->name, sorted[i]->question_id);
            sb_free(sorted);
            return rc;
        }
    *out = sorted;
    return SB_OK;
}

/* Do two files speak of the same questions where they share a number? */
static enum sb_status check_alike(const struct sb_answers *file, const struct sb_answers *first,
                                  const struct sb_answer *const *of_first, struct sb_error *err)
{
    for (size_t i = 0; i < file->n; i++) {
        const struct sb_answer *a = &file->item[i];
        const struct sb_answer *const *match =
            bsearch(&a, of_first, first->n, sizeof *of_first, compare_answers);
        if (match &&
            ((*match)->n_turns != a->n_turns || strcmp((*match)->category, a->category) != 0))
            return sb_fail(err, SB_EFORMAT,
                           "%s: question %" PRId64
                           " (%.40s, %zu turns) is another one in %s (%.40s, %zu"
                           " turns)",
                           file->name, a->question_id, a->category, a->n_turns, first->name,
                           (*match)->category, (*match)->n_turns);
    }
    return SB_OK;
}

enum sb_status sb_answers_check(const struct sb_answers *files, size_t n, struct sb_error *err)
{
    const struct sb_answer **first = NULL;
    enum sb_status rc = SB_OK;
    for (size_t f = 0; f < n && rc == SB_OK; f++) {
        const struct sb_answer **sorted = NULL;
        rc = sort_answers(&sorted, &files[f], err);
        if (rc == SB_OK && f > 0)
            rc = check_alike(&files[f], &files[0], first, err);
        if (f == 0)
            first = sorted;
        else
            sb_free(sorted);
    }
    sb_free(first);
    return rc;
}

/* How many choices the answers have at most: the repeats. */
static int64_t count_repeats(const struct sb_answers *files, size_t n)
{
    int64_t repeats = 1;
    for (size_t f = 0; f < n; f++)
        for (size_t i = 0; i < files[f].n; i++)
            if (files[f].item[i].repeat >= repeats)
                repeats = files[f].item[i].repeat + 1;
    return repeats;
}

enum sb_status sb_import(struct sb_import_result *out, struct sb_store *store,
                         const struct sb_answers *files, size_t n, bool has_baseline,
                         const struct sb_import_options *options, struct sb_error *err)
{
    struct sb_import_result r = { 0 };
    char key[SB_KEY_BYTES];
    char **label = sb_alloc_zero(n, sizeof *label);
    enum sb_status rc = label ? SB_OK : sb_fail(err, SB_ENOMEM, "out of memory for %zu files", n);
    for (size_t f = 0; f < n && rc == SB_OK; f++)
        if (!(label[f] = make_label(files, f, label)))
            rc = sb_fail(err, SB_ENOMEM, "out of memory for %zu files", n);
    if (rc == SB_OK) {
        content_key(key, files, n, has_baseline, options, label);
        rc = add_experiment(&r.experiment_id, store, key, count_repeats(files, n), options, err);
    }
    for (size_t f = 0; f < n && rc == SB_OK; f++)
        rc = add_arm(&r, store, (int)f, label[f], &files[f], has_baseline && f == 0, err);
    for (size_t f = 0; label && f < n; f++)
        sb_free(label[f]);
    sb_free(label);
    if (rc == SB_OK)
        *out = r;
    return rc;
}
