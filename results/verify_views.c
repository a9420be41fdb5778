/* The views against what the raw rows add up to: every column of every row, computed here once more. A view is
 * read once, its rows in any order. */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "harness/core/alloc.h"
#include "results/verify_internal.h"

/* A row of a view: the arm it speaks of and where its figures begin. */
struct at {
    struct sb_verifier *v;
    sqlite3_stmt *st;
    enum sb_verify_id id;
    struct sb_arm_sums *arm;
    char key[64]; /* task, position, ... for messages */
};

static double ratio(double a, double b)
{
    return b == 0 ? NAN : a / b;
}

/* A column of the row, by its place; NaN stands for NULL. */
static void expect(const struct at *at, int column, double want)
{
    bool null = sqlite3_column_type(at->st, column) == SQLITE_NULL;
    double have = null ? NAN : sqlite3_column_double(at->st, column);
    bool same = isnan(want) ? null : fabs(have - want) <= 1e-9 * fmax(1, fabs(want));
    sb_verify_that(at->v, at->id, same || (null && at->arm->imported),
                   "%s of arm %s%s%s is %.12g, the rows give %.12g",
                   sqlite3_column_name(at->st, column), at->arm->label, at->key[0] ? ", " : "",
                   at->key, have, want);
}

static void expect_all(const struct at *at, int column, const double *want, int n)
{
    for (int i = 0; i < n; i++)
        expect(at, column + i, want[i]);
}

static struct sb_arm_sums *find_arm(const struct sb_verifier *v, int64_t id)
{
    for (size_t i = 0; i < v->n_arms; i++)
        if (v->arm[i].id == id)
            return &v->arm[i];
    return NULL;
}

/* ---- rows of each view; column 0 is the arm's id ---- */

static const char leaderboard_sql[] =
    "SELECT arm_id, task, overall, prompts, generations, errors, steps, tokens, drafted, accepted, cut, mat,"
    " mat_prompt_mean, mat_drafted, hit_rate, draft_efficiency, node_efficiency, depth_efficiency,"
    " conditional_acceptance, path_utilisation, row_waste, tokens_per_forward, tokens_per_s"
    " FROM leaderboard_base";

static const struct sb_group *group_of(const struct sb_arm_sums *a, const char *task, bool overall)
{
    static const struct sb_group none;
    if (overall)
        return &a->all;
    for (size_t i = 0; i < a->n_tasks; i++)
        if (strcmp(a->task[i].task, task) == 0)
            return &a->task[i];
    return &none;
}

static void leaderboard_row(struct at *at)
{
    const char *task = (const char *)sqlite3_column_text(at->st, 1);
    bool overall = sqlite3_column_int(at->st, 2);
    const struct sb_group *g = group_of(at->arm, task ? task : "", overall);
    const struct sb_tally *t = &g->t;
    snprintf(at->key, sizeof at->key, "%s %.40s", overall ? "over" : "task", task ? task : "");
    double steps = (double)t->steps, tokens = (double)t->tokens, accepted = (double)t->accepted;
    double none = t->generations ? 0 : NAN; /* sums over nothing are NULL */
    const double want[] = {
        (double)g->prompts,
        (double)t->generations,
        (double)t->errors,
        steps + none,
        tokens + none,
        (double)t->drafted + none,
        accepted + none,
        steps + accepted - tokens + none,
        ratio(tokens, steps),
        ratio(g->mat_sum, (double)g->mat_n),
        ratio((double)t->drafted_steps_tokens, (double)t->drafted_steps),
        ratio((double)t->drafted_steps, steps),
        ratio(accepted, (double)t->drafted),
        ratio(accepted, (double)(t->drafted + t->auxiliary)),
        ratio(accepted, (double)t->depth),
        ratio(accepted, (double)t->decided),
        ratio(t->path, steps),
        1 - ratio(tokens, (double)(t->steps + t->drafted + t->auxiliary)),
        ratio((double)t->n_tokens, (double)(t->steps + t->generations)),
        1e9 * ratio(tokens, (double)t->decode_ns),
    };
    expect_all(at, 3, want, sizeof want / sizeof *want);
    if (overall && sqlite3_column_type(at->st, 11) != SQLITE_NULL)
        at->arm->mat = sqlite3_column_double(at->st, 11);
}

static double count_at(const struct sb_counts *c, int64_t i)
{
    return i >= 0 && i < (int64_t)c->len ? (double)c->n[i] : 0;
}

static double survival(const struct sb_arm_sums *a, int64_t position)
{
    double s = 1;
    for (int64_t k = 0; k < position && k < (int64_t)a->exposure.len; k++)
        s *= ratio(count_at(&a->hits, k), count_at(&a->exposure, k));
    return s;
}

static const char positions_sql[] =
    "SELECT arm_id, position, exposure, accepted, conditional, survival, marginal FROM positions";

static void positions_row(struct at *at)
{
    int64_t k = sqlite3_column_int64(at->st, 1) - 1;
    double exposure = count_at(&at->arm->exposure, k), hits = count_at(&at->arm->hits, k);
    snprintf(at->key, sizeof at->key, "position %" PRId64, k + 1);
    const double want[] = { exposure, hits, ratio(hits, exposure), survival(at->arm, k + 1),
                            ratio(hits, (double)at->arm->all.t.steps) };
    expect_all(at, 2, want, 5);
    sb_verify_that(at->v, at->id, k <= 0 || hits <= count_at(&at->arm->hits, k - 1),
                   "arm %s, %s: more accepted than one position above", at->arm->label, at->key);
    at->arm->marginals += sqlite3_column_double(at->st, 6);
}

static const char histogram_sql[] =
    "SELECT arm_id, length, accepted_steps, drafted_steps, accepted_share,"
    " token_steps, token_share FROM histogram";

static void histogram_row(struct at *at)
{
    int64_t n = sqlite3_column_int64(at->st, 1);
    double steps = (double)at->arm->all.t.steps, accepted = count_at(&at->arm->accepted, n);
    double tokens = count_at(&at->arm->tokens, n);
    snprintf(at->key, sizeof at->key, "length %" PRId64, n);
    const double want[] = { accepted, count_at(&at->arm->drafted, n), ratio(accepted, steps),
                            tokens, ratio(tokens, steps) };
    expect_all(at, 2, want, 5);
}

static const char ranks_sql[] =
    "SELECT arm_id, depth, rank, nodes, accepted, acceptance, share, coverage FROM ranks";

static void ranks_row(struct at *at)
{
    int64_t depth = sqlite3_column_int64(at->st, 1), rank = sqlite3_column_int64(at->st, 2);
    static const struct sb_ranks no_depth;
    static const struct sb_tried no_rank;
    const struct sb_arm_sums *a = at->arm;
    const struct sb_ranks *d =
        depth >= 1 && depth <= (int64_t)a->n_depths ? &a->depth[depth - 1] : &no_depth;
    const struct sb_tried *r = rank >= 0 && rank < (int64_t)d->len ? &d->rank[rank] : &no_rank;
    snprintf(at->key, sizeof at->key, "depth %" PRId64 ", rank %" PRId64, depth, rank);
    double accepted = (double)r->accepted;
    const double want[] = { (double)r->tried, accepted, ratio(accepted, (double)r->tried),
                            ratio(accepted, (double)d->accepted),
                            ratio((double)d->accepted, (double)d->steps) };
    expect_all(at, 3, want, 5);
    if (a->without_trees == 0)
        expect(at, 7, ratio(count_at(&a->hits, depth - 1), count_at(&a->exposure, depth - 1)));
}

static const char sources_sql[] =
    "SELECT arm_id, source, drafted, tried, accepted, acceptance, efficiency, share FROM sources";

static void sources_row(struct at *at)
{
    int64_t tag = sqlite3_column_int64(at->st, 1), all = 0;
    struct sb_tried n = { 0 };
    for (size_t i = 0; i < at->arm->n_sources; i++) {
        all += at->arm->source[i].n.accepted;
        if (at->arm->source[i].tag == tag)
            n = at->arm->source[i].n;
    }
    snprintf(at->key, sizeof at->key, "source %" PRId64, tag);
    double accepted = (double)n.accepted;
    const double want[] = { (double)n.drafted,
                            (double)n.tried,
                            accepted,
                            ratio(accepted, (double)n.tried),
                            ratio(accepted, (double)n.drafted),
                            ratio(accepted, (double)all) };
    expect_all(at, 2, want, 6);
}

static const char breakdown_sql[] =
    "SELECT arm_id, steps, prefill_s, decode_s, ms_per_step, draft, verify, accept, \"commit\", observe,"
    " other, draft_overhead, draft + verify + accept + \"commit\" + observe + other AS shares"
    " FROM breakdown";

static void breakdown_row(struct at *at)
{
    const struct sb_tally *t = &at->arm->all.t;
    double decode = (double)t->decode_ns, measured = 0, steps = (double)t->steps;
    double want[12] = { steps, (double)t->prefill_ns / 1e9, decode / 1e9,
                        ratio(decode / 1e6, steps) };
    for (int i = 0; i < SB_PHASES; i++) {
        want[4 + i] = ratio((double)t->phase_ns[i], decode);
        measured += (double)t->phase_ns[i];
    }
    want[9] = ratio(decode - measured, decode);
    want[10] = ratio((double)t->phase_ns[0], measured);
    want[11] = decode > 0 ? 1 : NAN;
    at->key[0] = '\0';
    expect_all(at, 1, want, 12);
}

static int by_value(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

/* The value that `percent` of n values do not exceed, in ms: `zeros` of them are 0, the others in order. */
static double percentile(const struct sb_counts *sorted, int64_t zeros, int percent)
{
    int64_t n = zeros + (int64_t)sorted->len, place = (n * percent + 99) / 100 - zeros;
    if (place <= 0)
        return 0;
    return (double)sorted->n[place - 1] / 1e6;
}

static const char latency_sql[] =
    "SELECT arm_id, tokens, chunks, itl_p50_ms, itl_p95_ms, itl_p99_ms, chunk_p50_ms, chunk_p95_ms,"
    " chunk_p99_ms, chunk_max_ms, amortised_ms, ttft_p50_ms, ttft_p95_ms FROM latency";

static void latency_row(struct at *at)
{
    struct sb_counts *c = &at->arm->chunk_ns, *first = &at->arm->prefill_ns;
    const struct sb_tally *t = &at->arm->all.t;
    int64_t zeros = t->tokens - (int64_t)c->len;
    at->key[0] = '\0';
    if (c->len == 0 || first->len == 0)
        return;
    qsort(c->n, c->len, sizeof *c->n, by_value);
    qsort(first->n, first->len, sizeof *first->n, by_value);
    const double want[] = { (double)t->tokens,
                            (double)c->len,
                            percentile(c, zeros, 50),
                            percentile(c, zeros, 95),
                            percentile(c, zeros, 99),
                            percentile(c, 0, 50),
                            percentile(c, 0, 95),
                            percentile(c, 0, 99),
                            (double)c->n[c->len - 1] / 1e6,
                            ratio((double)t->decode_ns / 1e6, (double)t->tokens),
                            percentile(first, 0, 50),
                            percentile(first, 0, 95) };
    expect_all(at, 1, want, 12);
}

static const char coverage_sql[] =
    "SELECT c.arm_id, c.done, c.errors, c.missing, max(c.planned - c.done - c.errors, 0),"
    " c.planned, e.repeats * (SELECT count(*) FROM prompt p WHERE p.experiment_id = e.id), c.common"
    " FROM coverage c JOIN experiment e ON e.id = c.experiment_id";

static void coverage_row(struct at *at)
{
    at->key[0] = '\0';
    expect(at, 1, (double)at->arm->all.t.generations);
    expect(at, 2, (double)at->arm->all.t.errors);
    expect(at, 3, sqlite3_column_double(at->st, 4));
    expect(at, 5, sqlite3_column_double(at->st, 6));
    int64_t common = sqlite3_column_int64(at->st, 7);
    sb_verify_that(at->v, at->id, common <= at->arm->all.t.generations,
                   "arm %s: %" PRId64 " generations common to all arms, it has %" PRId64,
                   at->arm->label, common, at->arm->all.t.generations);
}

static const char equality_sql[] =
    "SELECT arm_id, count(*) AS compared, sum(equal) AS equal FROM v_equality GROUP BY arm_id";

static void equality_row(struct at *at)
{
    at->key[0] = '\0';
    expect(at, 1, (double)at->arm->compared);
    expect(at, 2, (double)at->arm->equal);
}

/* ---- the list of them ---- */

/* How many rows the view must have about an arm; -1: not counted. */
static int64_t steps_of(const struct sb_arm_sums *a)
{
    return a->all.t.steps > 0;
}

static int64_t positions_of(const struct sb_arm_sums *a)
{
    return (int64_t)a->exposure.len;
}

static int64_t lengths_of(const struct sb_arm_sums *a)
{
    return (int64_t)(a->accepted.len > a->tokens.len ? a->accepted.len : a->tokens.len);
}

static int64_t ranks_of(const struct sb_arm_sums *a)
{
    int64_t n = 0;
    for (size_t d = 0; d < a->n_depths; d++)
        for (size_t r = 0; r < a->depth[d].len; r++)
            n += a->depth[d].rank[r].tried > 0;
    return n;
}

static int64_t sources_of(const struct sb_arm_sums *a)
{
    return (int64_t)a->n_sources;
}

static int64_t generations_of(const struct sb_arm_sums *a)
{
    return a->all.t.generations > 0;
}

static int64_t compared_of(const struct sb_arm_sums *a)
{
    return a->compared > 0;
}

static int64_t once(const struct sb_arm_sums *a)
{
    (void)a;
    return 1;
}

static const struct view {
    enum sb_verify_id id;
    const char *sql;
    void (*row)(struct at *at);
    int64_t (*rows)(const struct sb_arm_sums *a); /* NULL: as many as there are */
    int shares[2]; /* columns that add up to 1 over an arm's rows; 0: none */
} views[] = {
    { SB_VERIFY_equality, equality_sql, equality_row, compared_of, { 0 } },
    { SB_VERIFY_coverage, coverage_sql, coverage_row, once, { 0 } },
    { SB_VERIFY_leaderboard, leaderboard_sql, leaderboard_row, NULL, { 0 } },
    { SB_VERIFY_positions, positions_sql, positions_row, positions_of, { 0 } },
    { SB_VERIFY_histogram, histogram_sql, histogram_row, lengths_of, { 4, 6 } },
    { SB_VERIFY_ranks, ranks_sql, ranks_row, ranks_of, { 0 } },
    { SB_VERIFY_sources, sources_sql, sources_row, sources_of, { 7 } },
    { SB_VERIFY_latency, latency_sql, latency_row, steps_of, { 0 } },
    { SB_VERIFY_breakdown, breakdown_sql, breakdown_row, generations_of, { 0 } },
};

struct seen { /* of an arm, in one view */
    int64_t rows;
    double share[2];
};

static void conclude(struct sb_verifier *v, const struct view *view, const struct seen *seen)
{
    for (size_t i = 0; i < v->n_arms; i++) {
        const struct sb_arm_sums *a = &v->arm[i];
        if (view->rows && !(a->imported && seen[i].rows == 0))
            sb_verify_that(v, view->id, seen[i].rows == view->rows(a),
                           "arm %s has %" PRId64 " rows, expected %" PRId64, a->label, seen[i].rows,
                           view->rows(a));
        for (int s = 0; s < 2; s++) /* of nothing, shares are NULL or 0 */
            if (view->shares[s] && seen[i].share[s] != 0)
                sb_verify_that(v, view->id, fabs(seen[i].share[s] - 1) < 1e-9,
                               "arm %s: shares add up to %.12g", a->label, seen[i].share[s]);
    }
}

static enum sb_status read_view(struct sb_verifier *v, const struct view *view,
                                struct sb_error *err)
{
    struct at at = { .v = v, .id = view->id };
    struct seen *seen = sb_alloc_zero(v->n_arms + 1, sizeof *seen);
    if (!seen)
        return sb_fail(err, SB_ENOMEM, "%s: out of memory", v->store->path);
    enum sb_status rc = sb_sqlite_prepare(&at.st, v->store, view->sql, err);
    int step = SQLITE_DONE;
    while (rc == SB_OK && (step = sqlite3_step(at.st)) == SQLITE_ROW) {
        at.arm = find_arm(v, sqlite3_column_int64(at.st, 0));
        if (!at.arm)
            continue; /* an arm without any generation */
        view->row(&at);
        struct seen *s = &seen[at.arm - v->arm];
        s->rows++;
        for (int i = 0; i < 2; i++)
            s->share[i] += view->shares[i] ? sqlite3_column_double(at.st, view->shares[i]) : 0;
    }
    if (rc == SB_OK && step != SQLITE_DONE)
        rc = sb_sqlite_fail(err, v->store, step, "read");
    if (rc == SB_OK)
        conclude(v, view, seen);
    sqlite3_finalize(at.st);
    sb_free(seen);
    return rc;
}

/* MAT and the marginals come from two views and two formulas; the cut tokens from the rows. */
static void mat_identity(struct sb_verifier *v)
{
    for (size_t i = 0; i < v->n_arms; i++) {
        const struct sb_arm_sums *a = &v->arm[i];
        const struct sb_tally *t = &a->all.t;
        if (t->steps == 0 || a->imported)
            continue;
        double cut = ratio((double)(t->steps + t->accepted - t->tokens), (double)t->steps);
        double other = 1 + a->marginals - cut;
        sb_verify_that(v, SB_VERIFY_mat, fabs(a->mat - other) < 1e-9,
                       "arm %s: MAT is %.12g, 1 + marginals - cut is %.12g", a->label, a->mat,
                       other);
    }
}

/* Accepted nodes are counted by rank as often as by step. */
static void rank_identity(struct sb_verifier *v)
{
    for (size_t i = 0; i < v->n_arms; i++) {
        const struct sb_arm_sums *a = &v->arm[i];
        int64_t accepted = 0;
        for (size_t d = 0; d < a->n_depths; d++)
            accepted += a->depth[d].accepted;
        if (a->without_trees == 0)
            sb_verify_that(v, SB_VERIFY_ranks, accepted == a->all.t.accepted,
                           "arm %s: %" PRId64 " nodes accepted, its steps say %" PRId64, a->label,
                           accepted, a->all.t.accepted);
    }
}

enum sb_status sb_verify_views(struct sb_verifier *v, struct sb_error *err)
{
    enum sb_status rc = SB_OK;
    for (size_t i = 0; i < sizeof views / sizeof *views && rc == SB_OK; i++)
        rc = read_view(v, &views[i], err);
    if (rc == SB_OK) {
        mat_identity(v);
        rank_identity(v);
    }
    return rc;
}
