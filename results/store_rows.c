/* Rows in and out of the results database: found by content, or added. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <xxhash.h>

#include "harness/core/alloc.h"
#include "harness/core/clock.h"
#include "results/internal.h"

static const char *const sql_text[SB_SQL_COUNT] = {
    [SB_SQL_HOST_FIND] = "SELECT id FROM host WHERE content_key = ?1",
    [SB_SQL_HOST_ADD] =
        "INSERT INTO host (content_key, hostname, cpu, isa, os, compiler, build_flags,"
        " specbench_version, \"commit\", blas, threads, physical_cores, memory_bytes)"
        " VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13) ON CONFLICT DO NOTHING",
    [SB_SQL_MODEL_FIND] = "SELECT id FROM model WHERE content_key = ?1",
    [SB_SQL_MODEL_ADD] =
        "INSERT INTO model (content_key, name, path, arch, format, weight_type, content_hash,"
        " tokenizer_hash, config_json, n_params, size_bytes)"
        " VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11) ON CONFLICT DO NOTHING",
    [SB_SQL_EXPERIMENT_FIND] = "SELECT id FROM experiment WHERE content_key = ?1",
    [SB_SQL_EXPERIMENT_ADD] =
        "INSERT INTO experiment (content_key, name, spec_json, script, dataset, dataset_hash,"
        " chat_template, conversation, host_id, target_model_id, seed, repeats, max_new_tokens,"
        " temperature, top_p, top_k, ignore_eos, arithmetic, created_at, origin)"
        " VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18,"
        " ?19, coalesce(?20, 'run')) ON CONFLICT DO NOTHING",
    [SB_SQL_ARM_FIND] =
        "SELECT id FROM arm WHERE experiment_id = ?1 AND arm_no = ?2 AND label = ?3 AND drafter = ?4"
        " AND drafter_params IS ?5 AND verifier IS ?6 AND verifier_params IS ?7 AND policy IS ?8"
        " AND policy_params IS ?9 AND guarantee IS ?10 AND is_baseline = ?11",
    [SB_SQL_ARM_ADD] =
        "INSERT INTO arm (experiment_id, arm_no, label, drafter, drafter_params, verifier,"
        " verifier_params, policy, policy_params, guarantee, is_baseline)"
        " VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11) ON CONFLICT DO NOTHING",
    [SB_SQL_PROMPT_FIND] = "SELECT id FROM prompt WHERE experiment_id = ?1 AND question_id = ?2"
                           " AND turn = ?3 AND content_key = ?4",
    [SB_SQL_PROMPT_ADD] =
        "INSERT INTO prompt (experiment_id, question_id, turn, content_key, task, category, text,"
        " n_turns) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT DO NOTHING",
    [SB_SQL_NEWEST_RUN] =
        "SELECT (SELECT count(*) FROM arm a JOIN generation g ON g.arm_id = a.id"
        "         WHERE a.experiment_id = e.id AND g.status = 'ok'), e.content_key"
        " FROM experiment e WHERE substr(e.content_key, 1, length(?1)) = ?1 ORDER BY e.id DESC LIMIT 1",
    [SB_SQL_GENERATION_FIND] =
        "SELECT n_tokens, tokens FROM generation"
        " WHERE arm_id = ?1 AND prompt_id = ?2 AND repeat = ?3 AND status = 'ok'",
    [SB_SQL_GENERATION_DROP] =
        "DELETE FROM generation"
        " WHERE arm_id = ?1 AND prompt_id = ?2 AND repeat = ?3 AND status = 'error'",
    [SB_SQL_GENERATION_ADD] =
        "INSERT INTO generation (arm_id, prompt_id, repeat, status, error, finish, n_prompt_tokens,"
        " n_tokens, prompt_tokens, tokens, text, prefill_ns, decode_ns, wall_ns, order_no,"
        " load_average, started_at)"
        " VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17)",
    [SB_SQL_STEP_ADD] =
        "INSERT INTO step (generation_id, step_no, context, drafted, auxiliary, depth, accepted,"
        " decided, tokens, bonus, draft_ns, verify_ns, accept_ns, commit_ns, observe_ns, judged, overlap,"
        " ot_bound) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15,"
        " nullif(?16, 0), iif(?16 > 0, ?17, NULL), iif(?16 > 0, ?18, NULL))",
    [SB_SQL_NODE_ADD] =
        "INSERT INTO draft_node (generation_id, step_no, node_no, parent, depth, rank, token, source,"
        " log_q, decision, auxiliary) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
    [SB_SQL_SUMS_ADD] =
        "INSERT INTO generation_sums SELECT *, ?2, 0 FROM v_sums_due WHERE generation_id = ?1",
    [SB_SQL_COST_ADD] =
        "INSERT OR REPLACE INTO cost_curve (host_id, model_id, context, \"rows\", median_ns, c, c_lo,"
        " c_hi, arithmetic) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
    [SB_SQL_CERTIFICATE_ADD] =
        "INSERT INTO certificate (host_id, model_id, created_at, size, seed, level)"
        " VALUES (?1, nullif(?2, 0), ?3, ?4, ?5, ?6)",
    [SB_SQL_CERTIFICATE_END] = "UPDATE certificate SET verdict = ?2, wall_ns = ?3 WHERE id = ?1",
    [SB_SQL_CHECK_PUT] =
        "INSERT OR REPLACE INTO certificate_check (certificate_id, check_no, part, planted, verifier,"
        " verifier_params, guarantee, kind, drafter, policy, target, setting, n, outcomes, max_error,"
        " variation, variation_upper, accepted, g, df, g_p, drift, drift_upper, drift_p, p_holm,"
        " detectable, equal, ties, numerical, real, wall_ns, verdict, note)"
        " VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18,"
        " ?19, ?20, ?21, ?22, ?23, ?24, ?25, ?26, nullif(?27, -1), nullif(?28, -1), nullif(?29, -1),"
        " nullif(?30, -1), ?31, ?32, ?33)",
    [SB_SQL_BEGIN] = "BEGIN IMMEDIATE",
    [SB_SQL_COMMIT] = "COMMIT",
    [SB_SQL_ROLLBACK] = "ROLLBACK",
};

/* ---- statements ---- */

/* From the cache, reset and without bindings. */
static enum sb_status get(sqlite3_stmt **out, struct sb_store *s, enum sb_statement which,
                          struct sb_error *err)
{
    sqlite3_stmt **slot = &s->cached[which];
    *out = NULL;
    if (!*slot) {
        int rc =
            sqlite3_prepare_v3(s->db, sql_text[which], -1, SQLITE_PREPARE_PERSISTENT, slot, NULL);
        if (rc != SQLITE_OK)
            return sb_sqlite_fail(err, s, rc, "prepare a statement");
    }
    sqlite3_reset(*slot);
    sqlite3_clear_bindings(*slot);
    *out = *slot;
    return SB_OK;
}

/* Run a statement that returns no rows. */
static enum sb_status finish(struct sb_store *s, sqlite3_stmt *st, int bound, const char *what,
                             struct sb_error *err)
{
    int rc = bound == SQLITE_OK ? sqlite3_step(st) : bound;
    enum sb_status status = rc == SQLITE_DONE ? SB_OK : sb_sqlite_fail(err, s, rc, what);
    sqlite3_reset(st);
    return status;
}

/* First column of the first row, if there is one. */
static enum sb_status lookup(struct sb_store *s, sqlite3_stmt *st, int bound, int64_t *value,
                             bool *found, struct sb_error *err)
{
    int rc = bound == SQLITE_OK ? sqlite3_step(st) : bound;
    enum sb_status status = SB_OK;
    *found = rc == SQLITE_ROW;
    if (rc == SQLITE_ROW)
        *value = sqlite3_column_int64(st, 0);
    else if (rc != SQLITE_DONE)
        status = sb_sqlite_fail(err, s, rc, "read");
    sqlite3_reset(st);
    return status;
}

/* A row that is there, or is added; another process may add the same one in between. Both statements
 * are bound; reset keeps bindings. */
static enum sb_status find_or_add(struct sb_store *s, sqlite3_stmt *find, sqlite3_stmt *add,
                                  int bound, const char *what, int64_t *id, struct sb_error *err)
{
    bool found = false;
    enum sb_status rc = lookup(s, find, bound, id, &found, err);
    if (rc != SB_OK || found)
        return rc;
    rc = finish(s, add, SQLITE_OK, what, err);
    if (rc == SB_OK)
        rc = lookup(s, find, SQLITE_OK, id, &found, err);
    if (rc == SB_OK && !found)
        return sb_fail(err, SB_EFORMAT,
                       "%s: cannot %s: its number or label belongs to one with other content",
                       s->path, what);
    return rc;
}

/* ---- content keys ---- */

struct key {
    XXH64_state_t *state;
    char hex[17];
};

static enum sb_status key_start(struct key *key, const struct sb_store *s, struct sb_error *err)
{
    key->state = XXH64_createState();
    if (!key->state)
        return sb_fail(err, SB_ENOMEM, "%s: out of memory", s->path);
    XXH64_reset(key->state, 0);
    return SB_OK;
}

/* Fields end in NUL, so that none can run into the next; an absent one differs from an empty one. */
static void key_text(struct key *key, const char *text)
{
    XXH64_update(key->state, text ? text : "\1", (text ? strlen(text) : 1) + 1);
}

static void key_int(struct key *key, int64_t value)
{
    char text[24];
    snprintf(text, sizeof text, "%" PRId64, value);
    key_text(key, text);
}

static const char *key_end(struct key *key)
{
    snprintf(key->hex, sizeof key->hex, "%016" PRIx64, (uint64_t)XXH64_digest(key->state));
    XXH64_freeState(key->state);
    return key->hex;
}

/* ---- host, model, experiment, arm, prompt ---- */

/* The pair of statements for a row that content_key alone identifies. */
static enum sb_status get_pair(sqlite3_stmt *st[2], struct sb_store *s, enum sb_statement find,
                               struct sb_error *err)
{
    enum sb_status rc = get(&st[0], s, find, err);
    return rc == SB_OK ? get(&st[1], s, find + 1, err) : rc;
}

enum sb_status sb_store_host(struct sb_store *s, const struct sb_host_row *row, int64_t *id,
                             struct sb_error *err)
{
    const char *text[] = {
        row->hostname,          row->cpu,    row->isa, row->os, row->compiler, row->build_flags,
        row->specbench_version, row->commit, row->blas
    };
    sqlite3_stmt *st[2];
    struct key key;
    enum sb_status rc = get_pair(st, s, SB_SQL_HOST_FIND, err);
    if (rc == SB_OK)
        rc = key_start(&key, s, err);
    if (rc != SB_OK)
        return rc;
    for (size_t i = 0; i < sizeof text / sizeof *text; i++)
        key_text(&key, text[i]);
    key_int(&key, row->threads);
    key_int(&key, row->physical_cores);
    key_int(&key, row->memory_bytes);
    key_end(&key);
    int bound = sb_sqlite_bind(st[0], "t", key.hex);
    if (bound == SQLITE_OK)
        bound = sb_sqlite_bind(st[1], "ttttttttttiii", key.hex, text[0], text[1], text[2], text[3],
                               text[4], text[5], text[6], text[7], text[8], (int64_t)row->threads,
                               (int64_t)row->physical_cores, row->memory_bytes);
    return find_or_add(s, st[0], st[1], bound, "store the host", id, err);
}

enum sb_status sb_store_model(struct sb_store *s, const struct sb_model_row *row, int64_t *id,
                              struct sb_error *err)
{
    const char *text[] = { row->name,           row->path,        row->arch,
                           row->format,         row->weight_type, row->content_hash,
                           row->tokenizer_hash, row->config_json };
    sqlite3_stmt *st[2];
    struct key key;
    enum sb_status rc = get_pair(st, s, SB_SQL_MODEL_FIND, err);
    if (rc == SB_OK)
        rc = key_start(&key, s, err);
    if (rc != SB_OK)
        return rc;
    for (size_t i = 0; i < sizeof text / sizeof *text; i++)
        key_text(&key, text[i]);
    key_int(&key, row->n_params);
    key_int(&key, row->size_bytes);
    key_end(&key);
    int bound = sb_sqlite_bind(st[0], "t", key.hex);
    if (bound == SQLITE_OK)
        bound = sb_sqlite_bind(st[1], "tttttttttii", key.hex, text[0], text[1], text[2], text[3],
                               text[4], text[5], text[6], text[7], row->n_params, row->size_bytes);
    return find_or_add(s, st[0], st[1], bound, "store the model", id, err);
}

enum sb_status sb_store_experiment(struct sb_store *s, const struct sb_experiment_row *row,
                                   int64_t *id, struct sb_error *err)
{
    sqlite3_stmt *st[2];
    char now[21];
    enum sb_status rc = get_pair(st, s, SB_SQL_EXPERIMENT_FIND, err);
    if (rc != SB_OK)
        return rc;
    sb_utc_text(now);
    int bound = sb_sqlite_bind(st[0], "t", row->content_key);
    if (bound == SQLITE_OK)
        bound = sb_sqlite_bind(
            st[1], "ttttttttiiiiirriittt", row->content_key, row->name, row->spec_json, row->script,
            row->dataset, row->dataset_hash, row->chat_template, row->conversation, row->host_id,
            row->target_model_id, row->seed, row->repeats, row->max_new_tokens, row->temperature,
            row->top_p, row->top_k, (int64_t)row->ignore_eos, row->arithmetic, now, row->origin);
    return find_or_add(s, st[0], st[1], bound, "store the experiment", id, err);
}

enum sb_status sb_store_arm(struct sb_store *s, const struct sb_arm_row *row, int64_t *id,
                            struct sb_error *err)
{
    sqlite3_stmt *st[2];
    char what[160];
    enum sb_status rc = get_pair(st, s, SB_SQL_ARM_FIND, err);
    int bound = SQLITE_OK;
    for (int i = 0; i < 2 && rc == SB_OK && bound == SQLITE_OK; i++)
        bound = sb_sqlite_bind(st[i], "iitttttttti", row->experiment_id, (int64_t)row->arm_no,
                               row->label, row->drafter, row->drafter_params, row->verifier,
                               row->verifier_params, row->policy, row->policy_params,
                               row->guarantee, (int64_t)row->is_baseline);
    if (rc != SB_OK)
        return rc;
    snprintf(what, sizeof what, "store arm %d '%.100s'", row->arm_no, row->label ? row->label : "");
    return find_or_add(s, st[0], st[1], bound, what, id, err);
}

enum sb_status sb_store_prompt(struct sb_store *s, const struct sb_prompt_row *row, int64_t *id,
                               struct sb_error *err)
{
    sqlite3_stmt *st[2];
    struct key key;
    enum sb_status rc = get_pair(st, s, SB_SQL_PROMPT_FIND, err);
    if (rc == SB_OK)
        rc = key_start(&key, s, err);
    if (rc != SB_OK)
        return rc;
    key_text(&key, row->task);
    key_text(&key, row->category);
    key_text(&key, row->text);
    key_end(&key);
    int bound = sb_sqlite_bind(st[0], "iiit", row->experiment_id, row->question_id,
                               (int64_t)row->turn, key.hex);
    if (bound == SQLITE_OK)
        bound = sb_sqlite_bind(st[1], "iiitttti", row->experiment_id, row->question_id,
                               (int64_t)row->turn, key.hex, row->task, row->category, row->text,
                               row->n_turns);
    return find_or_add(s, st[0], st[1], bound, "store the prompt", id, err);
}

enum sb_status sb_store_cost(struct sb_store *s, const struct sb_cost_row *row,
                             struct sb_error *err)
{
    sqlite3_stmt *st;
    enum sb_status rc = get(&st, s, SB_SQL_COST_ADD, err);
    if (rc != SB_OK)
        return rc;
    int bound = sb_sqlite_bind(st, "iiiiirrrt", row->host_id, row->model_id, (int64_t)row->context,
                               (int64_t)row->rows, row->median_ns, row->c, row->c_lo, row->c_hi,
                               row->arithmetic ? row->arithmetic : "exact");
    return finish(s, st, bound, "store the cost curve", err);
}

/* ---- certificates ---- */

enum sb_status sb_store_certificate(struct sb_store *s, const struct sb_certificate_row *row,
                                    int64_t *id, struct sb_error *err)
{
    sqlite3_stmt *st;
    char now[21];
    enum sb_status rc = get(&st, s, SB_SQL_CERTIFICATE_ADD, err);
    if (rc != SB_OK)
        return rc;
    sb_utc_text(now);
    int bound = sb_sqlite_bind(st, "iittir", row->host_id, row->model_id, now, row->size, row->seed,
                               row->level);
    rc = finish(s, st, bound, "store the certificate", err);
    if (rc == SB_OK)
        *id = sqlite3_last_insert_rowid(s->db);
    return rc;
}

enum sb_status sb_store_check(struct sb_store *s, const struct sb_check_row *row,
                              struct sb_error *err)
{
    sqlite3_stmt *st;
    enum sb_status rc = get(&st, s, SB_SQL_CHECK_PUT, err);
    if (rc != SB_OK)
        return rc;
    int bound = sb_sqlite_bind(
        st, "iitittttttttiirrrrrrrrrrrriiiiitt", row->certificate_id, (int64_t)row->check_no,
        row->part, (int64_t)row->planted, row->verifier, row->verifier_params, row->guarantee,
        row->kind, row->drafter, row->policy, row->target, row->setting, row->n, row->outcomes,
        row->max_error, row->variation, row->variation_upper, row->accepted, row->g, row->df,
        row->g_p, row->drift, row->drift_upper, row->drift_p, row->p_holm, row->detectable,
        row->equal, row->ties, row->numerical, row->real, row->wall_ns, row->verdict, row->note);
    return finish(s, st, bound, "store a check", err);
}

enum sb_status sb_store_certificate_end(struct sb_store *s, int64_t id, const char *verdict,
                                        int64_t wall_ns, struct sb_error *err)
{
    sqlite3_stmt *st;
    enum sb_status rc = get(&st, s, SB_SQL_CERTIFICATE_END, err);
    if (rc != SB_OK)
        return rc;
    return finish(s, st, sb_sqlite_bind(st, "iti", id, verdict, wall_ns),
                  "store the certificate's verdict", err);
}

/* ---- resuming ---- */

enum sb_status sb_store_newest_run(struct sb_store *s, const char *prefix, char key[SB_KEY_BYTES],
                                   int64_t *n_done, struct sb_error *err)
{
    sqlite3_stmt *st;
    enum sb_status status = get(&st, s, SB_SQL_NEWEST_RUN, err);
    if (status != SB_OK)
        return status;
    int rc = sb_sqlite_bind(st, "t", prefix);
    rc = rc == SQLITE_OK ? sqlite3_step(st) : rc;
    key[0] = '\0';
    *n_done = 0;
    if (rc == SQLITE_ROW) {
        *n_done = sqlite3_column_int64(st, 0);
        snprintf(key, SB_KEY_BYTES, "%s", (const char *)sqlite3_column_text(st, 1));
    } else if (rc != SQLITE_DONE) {
        status = sb_sqlite_fail(err, s, rc, "read");
    }
    sqlite3_reset(st);
    return status;
}

/* Token ids of a JSON array such as [1,22,3]. The file may be anybody's, so nothing is believed. */
enum sb_status sb_store_parse_ids(int32_t **out, size_t n, const char *text,
                                  const struct sb_store *s, struct sb_error *err)
{
    size_t length = strlen(text), i = 0;
    bool good = n <= length && text[0] == '[';
    int32_t *ids = good ? sb_alloc_array(n, sizeof *ids) : NULL;
    if (good && !ids)
        return sb_fail(err, SB_ENOMEM, "%s: out of memory for %zu tokens", s->path, n);
    const char *p = text + (good ? 1 : 0);
    for (; good && i < n; i++) {
        int64_t value = 0;
        const char *digits = p;
        for (; *p >= '0' && *p <= '9' && value <= INT32_MAX; p++)
            value = value * 10 + (*p - '0');
        good = p > digits && value <= INT32_MAX && (i + 1 == n || *p++ == ',');
        ids[i] = (int32_t)value;
    }
    if (!good || strcmp(p, "]") != 0) {
        sb_free(ids);
        return sb_fail(err, SB_EFORMAT, "%s: generation.tokens is not an array of %zu token ids",
                       s->path, n);
    }
    *out = ids;
    return SB_OK;
}

enum sb_status sb_store_find_generation(struct sb_store *s, int64_t arm_id, int64_t prompt_id,
                                        int repeat, bool *found, int32_t **tokens, size_t *n_tokens,
                                        struct sb_error *err)
{
    sqlite3_stmt *st;
    enum sb_status status = get(&st, s, SB_SQL_GENERATION_FIND, err);
    if (status != SB_OK)
        return status;
    int rc = sb_sqlite_bind(st, "iii", arm_id, prompt_id, (int64_t)repeat);
    if (rc == SQLITE_OK)
        rc = sqlite3_step(st);
    if (rc == SQLITE_ROW && tokens) {
        size_t n = (size_t)sqlite3_column_int64(st, 0);
        const char *text = (const char *)sqlite3_column_text(st, 1);
        status = sb_store_parse_ids(tokens, n, text ? text : "", s, err);
        if (status == SB_OK && n_tokens)
            *n_tokens = n;
    } else if (rc != SQLITE_ROW && rc != SQLITE_DONE) {
        status = sb_sqlite_fail(err, s, rc, "read");
    }
    if (status == SB_OK)
        *found = rc == SQLITE_ROW;
    sqlite3_reset(st);
    return status;
}

/* ---- a finished generation ---- */

/* "[1,22,3]" in new memory; NULL when memory runs out. */
static char *ids_text(const int32_t *ids, size_t n)
{
    char *text =
        n <= SIZE_MAX / 12 - 1 ? sb_alloc(n * 12 + 3) : NULL; /* 11 characters and a comma */
    if (!text)
        return NULL;
    char *p = text;
    *p++ = '[';
    for (size_t i = 0; i < n; i++)
        p += sprintf(p, i ? ",%" PRId32 : "%" PRId32, ids[i]);
    strcpy(p, "]");
    return text;
}

int64_t sb_tokens_key(const char *ids)
{
    uint64_t hash = XXH64(ids, strlen(ids), 0);
    int64_t key;
    memcpy(&key, &hash, sizeof key);
    return key;
}

/* How many positions of the draft got a trial: those accepted, and one more when the accepted path had
 * another draft token to try. In a tree the deepest node may be on a branch that was left, so this asks
 * the nodes; without nodes (or with another path in them than `accepted` says) the draft is a chain. */
static int32_t decided(const struct sb_step_row *step)
{
    size_t end = 0; /* node number; 0 is the root */
    int32_t depth = 0;
    if (step->decided > 0)
        return step->decided;
    for (size_t i = 0; i < step->n_nodes; i++)
        if (step->nodes[i].decision == 2 && step->nodes[i].depth > depth) {
            end = i + 1;
            depth = step->nodes[i].depth;
        }
    if (step->n_nodes == 0 || depth != step->accepted)
        return step->accepted < step->depth ? step->accepted + 1 : step->accepted;
    for (size_t i = end; i < step->n_nodes; i++)
        if (step->nodes[i].parent == (int32_t)end && !step->nodes[i].auxiliary)
            return step->accepted + 1;
    return step->accepted;
}

static enum sb_status add_nodes(struct sb_store *s, int64_t generation_id,
                                const struct sb_step_row *step, struct sb_error *err)
{
    sqlite3_stmt *st;
    enum sb_status rc = SB_OK;
    for (size_t i = 0; i < step->n_nodes && rc == SB_OK; i++) {
        const struct sb_node_row *n = &step->nodes[i];
        rc = get(&st, s, SB_SQL_NODE_ADD, err);
        if (rc != SB_OK)
            break;
        int bound = sb_sqlite_bind(st, "iiiiiiiirii", generation_id, (int64_t)step->step_no,
                                   (int64_t)i + 1, (int64_t)n->parent, (int64_t)n->depth,
                                   (int64_t)n->rank, (int64_t)n->token, (int64_t)n->source,
                                   n->log_q, (int64_t)n->decision, (int64_t)n->auxiliary);
        rc = finish(s, st, bound, "store a draft node", err);
    }
    return rc;
}

static enum sb_status add_step(struct sb_store *s, int64_t generation_id,
                               const struct sb_step_row *p, struct sb_error *err)
{
    sqlite3_stmt *st;
    enum sb_status rc = get(&st, s, SB_SQL_STEP_ADD, err);
    if (rc != SB_OK)
        return rc;
    int bound = sb_sqlite_bind(
        st, "iiiiiiiiiiiiiiiirr", generation_id, (int64_t)p->step_no, (int64_t)p->context,
        (int64_t)p->drafted, (int64_t)p->auxiliary, (int64_t)p->depth, (int64_t)p->accepted,
        (int64_t)decided(p), (int64_t)p->tokens, (int64_t)p->bonus, p->draft_ns, p->verify_ns,
        p->accept_ns, p->commit_ns, p->observe_ns, (int64_t)p->judged, p->overlap, p->ot_bound);
    rc = finish(s, st, bound, "store a step", err);
    return rc == SB_OK ? add_nodes(s, generation_id, p, err) : rc;
}

static enum sb_status add_generation(struct sb_store *s, const struct sb_generation_row *row,
                                     const char *prompt_ids, const char *ids, int64_t *id,
                                     struct sb_error *err)
{
    sqlite3_stmt *st;
    enum sb_status rc = get(&st, s, SB_SQL_GENERATION_DROP, err);
    if (rc != SB_OK)
        return rc;
    int bound = sb_sqlite_bind(st, "iii", row->arm_id, row->prompt_id, (int64_t)row->repeat);
    rc = finish(s, st, bound, "replace a generation", err);
    if (rc == SB_OK)
        rc = get(&st, s, SB_SQL_GENERATION_ADD, err);
    if (rc != SB_OK)
        return rc;
    bound = sb_sqlite_bind(st, "iiitttiitttiiiirt", row->arm_id, row->prompt_id,
                           (int64_t)row->repeat, row->status, row->error, row->finish,
                           (int64_t)row->n_prompt_tokens, (int64_t)row->n_tokens, prompt_ids, ids,
                           row->text, row->prefill_ns, row->decode_ns, row->wall_ns,
                           (int64_t)row->order_no, row->load_average, row->started_at);
    rc = finish(s, st, bound, "store a generation", err);
    if (rc == SB_OK)
        *id = sqlite3_last_insert_rowid(s->db);
    return rc;
}

static enum sb_status simple(struct sb_store *s, enum sb_statement which, struct sb_error *err)
{
    sqlite3_stmt *st;
    enum sb_status rc = get(&st, s, which, err);
    return rc == SB_OK ? finish(s, st, SQLITE_OK, "write", err) : rc;
}

static enum sb_status add_sums(struct sb_store *s, int64_t generation_id, const char *ids,
                               struct sb_error *err)
{
    sqlite3_stmt *st;
    enum sb_status rc = get(&st, s, SB_SQL_SUMS_ADD, err);
    if (rc != SB_OK)
        return rc;
    return finish(s, st, sb_sqlite_bind(st, "ii", generation_id, sb_tokens_key(ids)),
                  "sum up its steps", err);
}

static enum sb_status write_generation(struct sb_store *s, const struct sb_generation_row *row,
                                       const char *prompt_ids, const char *ids,
                                       struct sb_error *err)
{
    int64_t id = 0;
    enum sb_status rc = simple(s, SB_SQL_BEGIN, err);
    if (rc != SB_OK)
        return rc;
    rc = add_generation(s, row, prompt_ids, ids, &id, err);
    for (size_t i = 0; i < row->n_steps && rc == SB_OK; i++)
        rc = add_step(s, id, &row->steps[i], err);
    if (rc == SB_OK)
        rc = add_sums(s, id, ids, err);
    if (rc == SB_OK)
        rc = simple(s, SB_SQL_COMMIT, err);
    if (rc != SB_OK && !sqlite3_get_autocommit(s->db))
        simple(s, SB_SQL_ROLLBACK, NULL);
    return rc;
}

enum sb_status sb_store_generation(struct sb_store *s, const struct sb_generation_row *row,
                                   struct sb_error *err)
{
    char *prompt_ids = ids_text(row->prompt_tokens, row->prompt_tokens ? row->n_prompt_tokens : 0);
    char *ids = ids_text(row->tokens, row->tokens ? row->n_tokens : 0);
    enum sb_status rc = prompt_ids && ids
                            ? write_generation(s, row, prompt_ids, ids, err)
                            : sb_fail(err, SB_ENOMEM, "%s: out of memory for %zu tokens", s->path,
                                      row->n_tokens + row->n_prompt_tokens);
    sb_free(prompt_ids);
    sb_free(ids);
    return rc;
}
