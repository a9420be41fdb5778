/* From stored generations to paired times. Rows arrive sorted by arm, task, question, prompt (turn) and
 * repeat, so that the baseline's prompts and an arm's are merged in one walk. */
#include "results/report_speed.h"

#include <math.h>
#include <string.h>

#include "harness/core/alloc.h"

/* A prompt (one turn) under one arm, repeats reduced. */
struct turn {
    int64_t arm_id, question_id, prompt_id;
    int task;                       /* index into the tasks, in order of their names */
    double decode_ns, ns_per_token; /* medians */
    double tokens;                  /* decoded ones, median: the prefill's token is apart */
    double all_tokens, all_ns;      /* prefill included, for Spec-Bench's formula */
    bool same_count;                /* every repeat gave `tokens` tokens */
};

struct sb_speeds {
    struct turn *turn;
    size_t n, cap;
    char **task;
    size_t n_tasks, task_cap;
    int64_t baseline_id; /* 0: none */
};

static const char *const measures_sql =
    "SELECT g.arm_id, p.task, p.question_id, p.id, g.decode_ns, g.prefill_ns, g.n_tokens"
    " FROM generation g JOIN arm a ON a.id = g.arm_id JOIN prompt p ON p.id = g.prompt_id"
    " WHERE a.experiment_id = ?1 AND g.status = 'ok'"
    " ORDER BY g.arm_id, p.task, p.question_id, p.id, g.repeat";
static const char *const baseline_sql =
    "SELECT id FROM arm WHERE experiment_id = ?1 AND is_baseline = 1"
    " ORDER BY arm_no LIMIT 1";

/* The repeats of one prompt under one arm, as they come. */
struct repeats {
    double *decode_ns, *all_ns, *tokens, *ns_per_token;
    size_t n, cap[4];
};

static bool repeats_add(struct repeats *r, double decode_ns, double prefill_ns, double n_tokens)
{
    double tokens = n_tokens > 1 ? n_tokens - 1 : 0;
    double value[4] = { decode_ns, decode_ns + prefill_ns, tokens,
                        tokens > 0 ? decode_ns / tokens : 0 };
    double **list[4] = { &r->decode_ns, &r->all_ns, &r->tokens, &r->ns_per_token };
    for (int i = 0; i < 4; i++) {
        if (sb_grow((void **)list[i], &r->cap[i], r->n + 1, sizeof(double)) != 0)
            return false;
        (*list[i])[r->n] = value[i];
    }
    r->n++;
    return true;
}

static void repeats_finish(struct repeats *r)
{
    sb_free(r->decode_ns);
    sb_free(r->all_ns);
    sb_free(r->tokens);
    sb_free(r->ns_per_token);
}

/* Close the prompt at hand: `turn` has its names, the repeats its figures. */
static bool speeds_add(struct sb_speeds *s, struct turn turn, struct repeats *r)
{
    if (r->n == 0)
        return true;
    if (sb_grow((void **)&s->turn, &s->cap, s->n + 1, sizeof *s->turn) != 0)
        return false;
    turn.decode_ns = sb_median(r->decode_ns, r->n);
    turn.ns_per_token = sb_median(r->ns_per_token, r->n);
    turn.all_ns = sb_median(r->all_ns, r->n);
    turn.tokens = sb_median(r->tokens, r->n); /* sorts */
    turn.all_tokens = turn.tokens + 1;
    turn.same_count = r->tokens[0] == r->tokens[r->n - 1];
    s->turn[s->n++] = turn;
    r->n = 0;
    return true;
}

/* Index of a task; -1 out of memory. */
static int task_index(struct sb_speeds *s, const char *name)
{
    for (size_t i = 0; i < s->n_tasks; i++)
        if (strcmp(s->task[i], name) == 0)
            return (int)i;
    char *copy = sb_strdup(name);
    if (!copy || sb_grow((void **)&s->task, &s->task_cap, s->n_tasks + 1, sizeof *s->task) != 0) {
        sb_free(copy);
        return -1;
    }
    s->task[s->n_tasks] = copy;
    return (int)s->n_tasks++;
}

static bool take_row(struct sb_speeds *s, sqlite3_stmt *st, struct turn *at, struct repeats *r)
{
    int64_t arm_id = sqlite3_column_int64(st, 0), prompt_id = sqlite3_column_int64(st, 3);
    if (arm_id != at->arm_id || prompt_id != at->prompt_id) {
        if (!speeds_add(s, *at, r))
            return false;
        const char *task = (const char *)sqlite3_column_text(st, 1);
        *at = (struct turn){ .arm_id = arm_id,
                             .prompt_id = prompt_id,
                             .question_id = sqlite3_column_int64(st, 2),
                             .task = task ? task_index(s, task) : -1 };
        if (at->task < 0)
            return false;
    }
    return repeats_add(r, sqlite3_column_double(st, 4), sqlite3_column_double(st, 5),
                       sqlite3_column_double(st, 6));
}

static enum sb_status load_turns(struct sb_speeds *s, struct sb_store *store, int64_t experiment_id,
                                 struct sb_error *err)
{
    sqlite3_stmt *st;
    struct repeats r = { 0 };
    struct turn at = { 0 };
    enum sb_status status = sb_sqlite_prepare(&st, store, measures_sql, err);
    if (status != SB_OK)
        return status;
    sqlite3_bind_int64(st, 1, experiment_id);
    int rc;
    bool room = true;
    while (room && (rc = sqlite3_step(st)) == SQLITE_ROW)
        room = take_row(s, st, &at, &r);
    if (room && !speeds_add(s, at, &r))
        room = false;
    if (!room)
        status = sb_fail(err, SB_ENOMEM, "%s: out of memory for its generations", store->path);
    else if (rc != SQLITE_DONE)
        status = sb_sqlite_fail(err, store, rc, "read");
    repeats_finish(&r);
    sqlite3_finalize(st);
    return status;
}

enum sb_status sb_speeds_load(struct sb_speeds **out, struct sb_store *store, int64_t experiment_id,
                              struct sb_error *err)
{
    struct sb_speeds *s = sb_alloc_zero(1, sizeof *s);
    sqlite3_stmt *st;
    if (!s)
        return sb_fail(err, SB_ENOMEM, "%s: out of memory", store->path);
    enum sb_status rc = sb_sqlite_prepare(&st, store, baseline_sql, err);
    if (rc == SB_OK) {
        sqlite3_bind_int64(st, 1, experiment_id);
        if (sqlite3_step(st) == SQLITE_ROW)
            s->baseline_id = sqlite3_column_int64(st, 0);
        sqlite3_finalize(st);
        rc = load_turns(s, store, experiment_id, err);
    }
    if (rc == SB_OK)
        *out = s;
    else
        sb_speeds_destroy(s);
    return rc;
}

void sb_speeds_destroy(struct sb_speeds *s)
{
    if (!s)
        return;
    for (size_t i = 0; i < s->n_tasks; i++)
        sb_free(s->task[i]);
    sb_free(s->task);
    sb_free(s->turn);
    sb_free(s);
}

/* ---- pairing ---- */

static int order_of(const struct sb_speeds *s, const struct turn *a, const struct turn *b)
{
    int d = strcmp(s->task[a->task], s->task[b->task]);
    if (d == 0)
        d = (a->question_id > b->question_id) - (a->question_id < b->question_id);
    return d ? d : (a->prompt_id > b->prompt_id) - (a->prompt_id < b->prompt_id);
}

/* The turns of an arm, which are contiguous. */
static struct turn *turns_of(const struct sb_speeds *s, int64_t arm_id, size_t *n)
{
    size_t first = 0, end;
    while (first < s->n && s->turn[first].arm_id != arm_id)
        first++;
    for (end = first; end < s->n && s->turn[end].arm_id == arm_id; end++)
        ;
    *n = end - first;
    return s->turn + first;
}

/* Sums over the paired turns of the question at hand. */
struct question {
    const struct turn *turn; /* any of its turns */
    double base_ns, method_ns, base_all_ns, method_all_ns, base_tokens, method_tokens;
};

struct pairing {
    struct sb_pair *pair; /* [n] */
    size_t n;
    double base_rate, method_rate; /* sums of tokens per ns */
    bool per_token;
};

static void close_question(struct pairing *p, const struct question *q)
{
    if (!q->turn || !(q->base_ns > 0 && q->method_ns > 0))
        return; /* no decoding to compare: the answer ended with the prefill's token */
    p->pair[p->n++] = (struct sb_pair){ q->base_ns, q->method_ns, q->turn->task };
    p->base_rate += q->base_tokens / q->base_all_ns;
    p->method_rate += q->method_tokens / q->method_all_ns;
}

static void pair_turn(struct pairing *p, struct question *q, const struct turn *b,
                      const struct turn *m)
{
    if (b->tokens <= 0 || m->tokens <= 0)
        return;
    if (!q->turn || q->turn->task != b->task || q->turn->question_id != b->question_id) {
        close_question(p, q);
        *q = (struct question){ .turn = b };
    }
    if (b->same_count && m->same_count && b->tokens == m->tokens) {
        q->base_ns += b->decode_ns;
        q->method_ns += m->decode_ns;
    } else {
        p->per_token = true;
        q->base_ns += b->ns_per_token * b->tokens;
        q->method_ns += m->ns_per_token * b->tokens;
    }
    q->base_all_ns += b->all_ns;
    q->method_all_ns += m->all_ns;
    q->base_tokens += b->all_tokens;
    q->method_tokens += m->all_tokens;
}

static void pair_arms(struct pairing *p, const struct sb_speeds *s, int64_t arm_id,
                      const char *task)
{
    size_t nb, nm;
    const struct turn *b = turns_of(s, s->baseline_id, &nb), *m = turns_of(s, arm_id, &nm);
    struct question q = { 0 };
    for (size_t i = 0, j = 0; i < nb && j < nm;) {
        int d = order_of(s, &b[i], &m[j]);
        if (d == 0 && (!task || strcmp(task, s->task[b[i].task]) == 0))
            pair_turn(p, &q, &b[i], &m[j]);
        i += d <= 0;
        j += d >= 0;
    }
    close_question(p, &q);
}

enum sb_status sb_speeds_get(struct sb_speed *out, const struct sb_speeds *s, int64_t arm_id,
                             const char *task, int resamples, uint64_t seed, struct sb_error *err)
{
    struct pairing p = { .pair = sb_alloc_array(s->n, sizeof *p.pair) };
    enum sb_status rc = SB_OK;
    if (!p.pair)
        return sb_fail(err, SB_ENOMEM, "out of memory for %zu prompts", s->n);
    if (s->baseline_id != 0 && s->n_tasks > 0)
        pair_arms(&p, s, arm_id, task);
    struct sb_speed speed = { .n = p.n, .per_token = p.per_token };
    if (p.n > 0) {
        speed.specbench = p.method_rate / p.base_rate;
        rc = sb_speedup(&speed.totals, &speed.geometric, p.pair, p.n, resamples, seed, err);
    }
    if (rc == SB_OK)
        *out = speed;
    sb_free(p.pair);
    return rc;
}
