#include "results/recorded.h"

#include <string.h>

#include "harness/core/alloc.h"
#include "results/internal.h"

static const char *text_at(sqlite3_stmt *st, int column)
{
    const char *text = (const char *)sqlite3_column_text(st, column);
    return text ? text : "";
}

static enum sb_status take_texts(struct sb_recorded_arm *arm, sqlite3_stmt *st, int first,
                                 const struct sb_store *s, struct sb_error *err)
{
    char **text[] = { &arm->name,   &arm->label,          &arm->spec_json,
                      &arm->target, &arm->tokenizer_hash, &arm->config_json };
    for (int i = 0; i < (int)(sizeof text / sizeof *text); i++)
        if (!(*text[i] = sb_strdup(text_at(st, first + i))))
            return sb_fail(err, SB_ENOMEM, "%s: out of memory for an arm", s->path);
    return SB_OK;
}

static enum sb_status no_arm(struct sb_store *s, int64_t experiment_id, const char *label,
                             struct sb_error *err)
{
    if (label)
        return sb_fail(err, SB_EUSAGE, "%s: no arm '%s' in experiment %lld; see specbench report",
                       s->path, label, (long long)experiment_id);
    return sb_fail(err, SB_EUSAGE,
                   "%s: experiment %lld has no baseline; name an arm with --arm (0: the newest)",
                   s->path, (long long)experiment_id);
}

enum sb_status sb_recorded_arm_find(struct sb_recorded_arm *out, struct sb_store *s,
                                    int64_t experiment_id, const char *label, struct sb_error *err)
{
    sqlite3_stmt *st;
    struct sb_recorded_arm arm = { 0 };
    enum sb_status status = sb_sqlite_prepare(
        &st, s,
        "SELECT e.id, a.id, e.seed, e.max_new_tokens, e.top_k, e.temperature, e.top_p, e.name, a.label,"
        " e.spec_json, m.name, m.tokenizer_hash, m.config_json"
        " FROM experiment e JOIN model m ON m.id = e.target_model_id"
        " JOIN arm a ON a.experiment_id = e.id"
        " WHERE e.id = CASE WHEN ?1 THEN ?1 ELSE (SELECT max(id) FROM experiment) END"
        " AND CASE WHEN ?2 IS NULL THEN a.is_baseline ELSE a.label = ?2 END"
        " ORDER BY a.arm_no LIMIT 1",
        err);
    if (status != SB_OK)
        return status;
    int rc = sb_sqlite_bind(st, "it", experiment_id, label);
    rc = rc == SQLITE_OK ? sqlite3_step(st) : rc;
    if (rc == SQLITE_ROW) {
        int64_t *number[] = { &arm.experiment_id, &arm.arm_id, &arm.seed, &arm.max_new_tokens,
                              &arm.top_k };
        for (int i = 0; i < 5; i++)
            *number[i] = sqlite3_column_int64(st, i);
        arm.temperature = sqlite3_column_double(st, 5);
        arm.top_p = sqlite3_column_double(st, 6);
        status = take_texts(&arm, st, 7, s, err);
    } else {
        status = rc == SQLITE_DONE ? no_arm(s, experiment_id, label, err)
                                   : sb_sqlite_fail(err, s, rc, "read");
    }
    sqlite3_finalize(st);
    if (status == SB_OK)
        *out = arm;
    else
        sb_recorded_arm_finish(&arm);
    return status;
}

void sb_recorded_arm_finish(struct sb_recorded_arm *arm)
{
    char *text[] = { arm->name,   arm->label,          arm->spec_json,
                     arm->target, arm->tokenizer_hash, arm->config_json };
    for (size_t i = 0; i < sizeof text / sizeof *text; i++)
        sb_free(text[i]);
    *arm = (struct sb_recorded_arm){ 0 };
}

static enum sb_status visit_row(sqlite3_stmt *st, struct sb_store *s, sb_recorded_visitor *visit,
                                void *self, struct sb_error *err)
{
    int32_t *prompt = NULL, *tokens = NULL;
    size_t n_prompt = (size_t)sqlite3_column_int64(st, 8);
    size_t n_tokens = (size_t)sqlite3_column_int64(st, 10);
    enum sb_status rc = sb_store_parse_ids(&prompt, n_prompt, text_at(st, 9), s, err);
    if (rc == SB_OK)
        rc = sb_store_parse_ids(&tokens, n_tokens, text_at(st, 11), s, err);
    const struct sb_recorded generation = {
        .prompt = { .question_id = sqlite3_column_int64(st, 0),
                    .task = text_at(st, 1),
                    .category = text_at(st, 2),
                    .turn = sqlite3_column_int(st, 3),
                    .n_turns = sqlite3_column_int64(st, 4),
                    .text = text_at(st, 5) },
        .repeat = sqlite3_column_int(st, 6),
        .finish = text_at(st, 7),
        .prompt_tokens = prompt,
        .tokens = tokens,
        .n_prompt_tokens = n_prompt,
        .n_tokens = n_tokens,
    };
    if (rc == SB_OK)
        rc = visit(self, &generation, err);
    sb_free(prompt);
    sb_free(tokens);
    return rc;
}

enum sb_status sb_recorded_each(struct sb_store *s, int64_t arm_id, sb_recorded_visitor *visit,
                                void *self, struct sb_error *err)
{
    sqlite3_stmt *st;
    enum sb_status status = sb_sqlite_prepare(
        &st, s,
        "SELECT p.question_id, p.task, p.category, p.turn, p.n_turns, p.text, g.repeat, g.finish,"
        " g.n_prompt_tokens, g.prompt_tokens, g.n_tokens, g.tokens"
        " FROM generation g JOIN prompt p ON p.id = g.prompt_id"
        " WHERE g.arm_id = ?1 AND g.status = 'ok' ORDER BY g.id",
        err);
    if (status != SB_OK)
        return status;
    int rc = sb_sqlite_bind(st, "i", arm_id);
    if (rc == SQLITE_OK)
        while (status == SB_OK && (rc = sqlite3_step(st)) == SQLITE_ROW)
            status = visit_row(st, s, visit, self, err);
    if (status == SB_OK && rc != SQLITE_DONE)
        status = sb_sqlite_fail(err, s, rc, "read");
    sqlite3_finalize(st);
    return status;
}
