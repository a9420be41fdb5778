/* Two acceptance records, compared. Deterministic: whole numbers (C 8.1). Statistical: the paired mean of
 * log MAT over prompts, tested against -max_drop from both sides (C 8.2), Holm over the arms (C 8.4). */
#include "results/gate.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "harness/core/alloc.h"
#include "results/report_speed.h"
#include "results/student.h"

static const char *const verdict_names[] = { "same", "better",    "changed",     "worse",
                                             "pass", "regressed", "inconclusive" };

const char *sb_verdict_name(enum sb_verdict verdict)
{
    return verdict_names[verdict];
}

enum sb_status sb_gate_mode_parse(enum sb_gate_mode *out, const char *name, struct sb_error *err)
{
    static const char *const names[] = { "auto", "deterministic", "statistical" };
    for (int i = 0; i < 3; i++)
        if (strcmp(name, names[i]) == 0) {
            *out = (enum sb_gate_mode)i;
            return SB_OK;
        }
    return sb_fail(err, SB_EUSAGE, "mode '%s': expected deterministic, statistical or auto", name);
}

/* One arm on both sides; prompts agree one by one (same_prompts). */
struct sides {
    const struct sb_arm_record *base, *now;
};

/* ---- are these the same arms and prompts ---- */

static enum sb_status refuse_arm(const struct sb_record *lacking, const struct sb_record *holding,
                                 const char *label, struct sb_error *err)
{
    char have[200] = "";
    for (size_t i = 0; i < lacking->n_arms; i++) {
        size_t n = strlen(have);
        snprintf(have + n, sizeof have - n, "%s%s", n ? ", " : "", lacking->arm[i].label);
    }
    return sb_fail(err, SB_EINPUT, "%s has no arm '%.80s'%s%s; it has: %s", lacking->path, label,
                   holding ? ", which is in " : "", holding ? holding->path : "", have);
}

static enum sb_status find_sides(struct sides *out, const struct sb_record *now,
                                 const struct sb_record *base, const char *label, bool asked,
                                 struct sb_error *err)
{
    *out = (struct sides){ sb_record_arm(base, label), sb_record_arm(now, label) };
    if (!out->base)
        return refuse_arm(base, asked ? NULL : now, label, err);
    if (!out->now)
        return refuse_arm(now, asked ? NULL : base, label, err);
    const struct sb_record *records[] = { base, now };
    const struct sb_arm_record *arms[] = { out->base, out->now };
    for (int i = 0; i < 2; i++)
        if (arms[i]->incomplete)
            return sb_fail(
                err, SB_EINPUT,
                "%s: arm '%.80s' is not finished (%.200s): resume the run, or gate others"
                " with --arm",
                records[i]->path, label, arms[i]->incomplete);
    return SB_OK;
}

static int order_of(const struct sb_prompt_counts *a, const struct sb_prompt_counts *b)
{
    int d = strcmp(a->task, b->task);
    return d ? d : (a->question_id > b->question_id) - (a->question_id < b->question_id);
}

/* Both are sorted: the first prompt that only one side has, if any. */
static enum sb_status same_prompts(const struct sides *s, const struct sb_record *now,
                                   const struct sb_record *base, struct sb_error *err)
{
    size_t n = s->base->n_prompts, m = s->now->n_prompts;
    for (size_t i = 0; i < n || i < m; i++) {
        const struct sb_prompt_counts *b = i < n ? &s->base->prompt[i] : NULL;
        const struct sb_prompt_counts *w = i < m ? &s->now->prompt[i] : NULL;
        int d = !b ? 1 : !w ? -1 : order_of(b, w);
        if (d == 0)
            continue;
        const struct sb_prompt_counts *odd = d < 0 ? b : w;
        return sb_fail(err, SB_EINPUT,
                       "arm '%.80s': question %" PRId64 " of task %.60s is in %s but not in %s (%zu"
                       " prompts against %zu): a gate needs the same prompts",
                       s->base->label, odd->question_id, odd->task, (d < 0 ? base : now)->path,
                       (d < 0 ? now : base)->path, d < 0 ? n : m, d < 0 ? m : n);
    }
    return n > 0 ? SB_OK
                 : sb_fail(err, SB_EINPUT, "%s: arm '%.80s' has no prompts", base->path,
                           s->base->label);
}

/* ---- figures ---- */

static double relative_change(const int64_t tokens[2], const int64_t steps[2])
{
    if (steps[0] == 0 || steps[1] == 0 || tokens[0] == 0)
        return steps[0] == steps[1] && tokens[0] == tokens[1] ? 0 : NAN;
    return (double)tokens[1] / (double)steps[1] / ((double)tokens[0] / (double)steps[0]) - 1;
}

static void add_counts(int64_t tokens[2], int64_t steps[2], const struct sides *s, size_t i)
{
    tokens[0] += s->base->prompt[i].tokens;
    tokens[1] += s->now->prompt[i].tokens;
    steps[0] += s->base->prompt[i].steps;
    steps[1] += s->now->prompt[i].steps;
}

/* Totals, and the task whose MAT fell most (or rose least). */
static void add_up(struct sb_gate_arm *a, const struct sides *s)
{
    a->label = s->base->label;
    a->method = s->now->method;
    a->old_method = s->base->method;
    a->prompts = s->base->n_prompts;
    a->worst_task_change = NAN;
    for (size_t i = 0, next; i < a->prompts; i = next) {
        int64_t tokens[2] = { 0 }, steps[2] = { 0 };
        for (next = i;
             next < a->prompts && strcmp(s->base->prompt[next].task, s->base->prompt[i].task) == 0;
             next++)
            add_counts(tokens, steps, s, next);
        double change = relative_change(tokens, steps);
        if (isnan(a->worst_task_change) || change < a->worst_task_change) {
            a->worst_task_change = change;
            a->worst_task = s->base->prompt[i].task;
        }
    }
    for (size_t i = 0; i < a->prompts; i++) {
        add_counts(a->tokens, a->steps, s, i);
        a->rows[0] += s->base->prompt[i].rows;
        a->rows[1] += s->now->prompt[i].rows;
    }
    a->change = relative_change(a->tokens, a->steps);
}

static void say_why(struct sb_gate_arm *a, enum sb_gate_outcome outcome, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* The first reason of the worst outcome stands. */
static void say_why(struct sb_gate_arm *a, enum sb_gate_outcome outcome, const char *fmt, ...)
{
    bool graver =
        a->outcome == SB_GATE_HOLDS || (a->outcome == SB_GATE_BLIND && outcome == SB_GATE_FAILS);
    if (!graver)
        return;
    va_list args;
    va_start(args, fmt);
    vsnprintf(a->why, sizeof a->why, fmt, args);
    va_end(args);
    a->outcome = outcome;
}

static double mat(const struct sb_gate_arm *a, int side)
{
    return a->steps[side] ? (double)a->tokens[side] / (double)a->steps[side] : NAN;
}

/* ---- deterministic ---- */

static bool counts_equal(const struct sb_prompt_counts *a, const struct sb_prompt_counts *b)
{
    return a->tokens == b->tokens && a->steps == b->steps && a->rows == b->rows &&
           a->n_accepted == b->n_accepted &&
           (a->n_accepted == 0 ||
            memcmp(a->accepted, b->accepted, a->n_accepted * sizeof *a->accepted) == 0);
}

/* Sign of tokens[1] / steps[1] - tokens[0] / steps[0], without rounding. */
static int direction(const struct sb_gate_arm *a)
{
    __int128 now = (__int128)a->tokens[1] * a->steps[0],
             base = (__int128)a->tokens[0] * a->steps[1];
    return (now > base) - (now < base);
}

static void judge_exactly(struct sb_gate_arm *a, const struct sides *s,
                          const struct sb_gate_options *o, double max_task_drop)
{
    bool same = true;
    for (size_t i = 0; i < a->prompts; i++)
        same = same && counts_equal(&s->base->prompt[i], &s->now->prompt[i]);
    int d = direction(a);
    a->verdict = same ? SB_SAME : d > 0 ? SB_BETTER : d < 0 ? SB_WORSE : SB_CHANGED;
    if (d < 0 && (o->max_drop <= 0 || -a->change > o->max_drop))
        say_why(a, SB_GATE_FAILS, "MAT fell from %.4f to %.4f (%.2f %%, allowed %.2f %%)",
                mat(a, 0), mat(a, 1), -100 * a->change, 100 * o->max_drop);
    if (-a->worst_task_change > max_task_drop)
        say_why(a, SB_GATE_FAILS, "MAT fell by %.2f %% in task %.60s (allowed %.2f %%)",
                -100 * a->worst_task_change, a->worst_task, 100 * max_task_drop);
}

/* ---- statistical ---- */

/* The claims of an arm: p[0] that MAT fell by more than max_drop, p[1] that it did not. */
struct claims {
    double p[2];
};

/* Mean and standard deviation of d_j = log MAT now - log MAT before, over prompts with steps in both. */
static size_t paired_logs(const struct sides *s, double *mean, double *sd)
{
    size_t n = 0;
    double m = 0, squares = 0; /* Welford's running mean and sum of squares */
    for (size_t i = 0; i < s->base->n_prompts; i++) {
        const struct sb_prompt_counts *b = &s->base->prompt[i], *w = &s->now->prompt[i];
        if (b->steps == 0 || w->steps == 0 || b->tokens == 0 || w->tokens == 0)
            continue;
        double d =
            log((double)w->tokens / (double)w->steps) - log((double)b->tokens / (double)b->steps);
        double off = d - m;
        m += off / (double)++n;
        squares += off * (d - m);
    }
    *mean = m;
    *sd = n > 1 ? sqrt(squares / (double)(n - 1)) : NAN;
    return n;
}

static enum sb_status test_arm(struct sb_gate_arm *a, struct claims *c, const struct sides *s,
                               double max_drop, const char *path, struct sb_error *err)
{
    double mean, sd, margin = log1p(-max_drop);
    size_t n = paired_logs(s, &mean, &sd);
    if (n < 2)
        return sb_fail(
            err, SB_EINPUT,
            "%s: arm '%.80s' has %zu prompts with a step in both runs, a statistical gate"
            " needs at least 2",
            path, a->label, n);
    double se = sd / sqrt((double)n), df = (double)n - 1;
    double half = se > 0 ? sb_student_point(SB_GATE_LEVEL, df) * se : 0;
    a->prompts = n;
    a->mean_change = expm1(mean);
    a->low = expm1(mean - half);
    a->high = expm1(mean + half);
    a->detectable = -expm1(-(1.645 + 0.842) * se); /* C 8.3, as a drop of MAT */
    double t = se > 0 ? (mean - margin) / se : mean >= margin ? INFINITY : -INFINITY;
    c->p[0] = sb_student_tail(-t, df);
    c->p[1] = sb_student_tail(t, df);
    return SB_OK;
}

static void judge_by_chance(struct sb_gate_arm *a, const struct claims *adjusted, double max_drop)
{
    bool worse = adjusted->p[0] < SB_GATE_LEVEL, fine = adjusted->p[1] < SB_GATE_LEVEL;
    a->verdict = worse ? SB_REGRESSED : fine ? SB_PASS : SB_INCONCLUSIVE;
    a->p = worse ? adjusted->p[0] : adjusted->p[1];
    if (worse)
        say_why(a, SB_GATE_FAILS,
                "MAT changed by %+.2f %%, at most %+.2f %% (95 %%): a drop of more than %.2f %%",
                100 * a->mean_change, 100 * a->high, 100 * max_drop);
    else if (a->detectable > max_drop)
        say_why(
            a, SB_GATE_BLIND,
            "%zu prompts cannot show a drop of %.2f %%: the smallest that they would show (power"
            " %.0f %%) is %.2f %%; run more prompts, or raise --max-drop",
            a->prompts, 100 * max_drop, 100 * SB_GATE_POWER, 100 * a->detectable);
    else if (!fine)
        say_why(a, SB_GATE_FAILS,
                "MAT changed by %+.2f %% (%+.2f to %+.2f %%): a drop of %.2f %% is not excluded",
                100 * a->mean_change, 100 * a->low, 100 * a->high, 100 * max_drop);
}

static enum sb_status judge_statistically(struct sb_gate *g, const struct sides *sides,
                                          const char *path, struct sb_error *err)
{
    struct claims *claims = sb_alloc_array(g->n_arms, sizeof *claims);
    double *p = sb_alloc_array(g->n_arms * 2, sizeof *p);
    enum sb_status rc =
        claims && p ? SB_OK : sb_fail(err, SB_ENOMEM, "out of memory for %zu arms", g->n_arms);
    for (size_t i = 0; i < g->n_arms && rc == SB_OK; i++)
        rc = test_arm(&g->arm[i], &claims[i], &sides[i], g->max_drop, path, err);
    for (int which = 0; which < 2 && rc == SB_OK; which++) {
        for (size_t i = 0; i < g->n_arms; i++)
            p[i] = claims[i].p[which];
        sb_holm(p + g->n_arms, p, g->n_arms);
        for (size_t i = 0; i < g->n_arms; i++)
            claims[i].p[which] = p[g->n_arms + i];
    }
    for (size_t i = 0; i < g->n_arms && rc == SB_OK; i++)
        judge_by_chance(&g->arm[i], &claims[i], g->max_drop);
    sb_free(claims);
    sb_free(p);
    return rc;
}

/* ---- rows and speed, when asked for ---- */

static void judge_rows(struct sb_gate_arm *a, double max_rise)
{
    double before = (double)a->rows[0] / (double)a->tokens[0];
    double now = (double)a->rows[1] / (double)a->tokens[1];
    if (a->tokens[0] > 0 && a->tokens[1] > 0 && now > before * (1 + max_rise))
        say_why(a, SB_GATE_FAILS, "rows computed per token kept rose from %.3f to %.3f (%.2f %%)",
                before, now, 100 * (now / before - 1));
}

static void judge_speed(struct sb_gate_arm *a, double min_speedup)
{
    const struct sb_interval *s = &a->speedup;
    if (s->high < min_speedup)
        say_why(a, SB_GATE_FAILS, "speedup %.2f (%.2f to %.2f) is below %.2f", s->estimate, s->low,
                s->high, min_speedup);
    else if (!(s->low >= min_speedup))
        say_why(a, SB_GATE_BLIND, "speedup %.2f (%.2f to %.2f) may be below or above %.2f",
                s->estimate, s->low, s->high, min_speedup);
}

/* The arm's id in the database at hand; 0: none. */
static enum sb_status find_arm(int64_t *id, struct sb_store *store, int64_t experiment_id,
                               const char *label, struct sb_error *err)
{
    sqlite3_stmt *st;
    enum sb_status rc = sb_sqlite_prepare(
        &st, store, "SELECT id FROM arm WHERE experiment_id = ?1 AND label = ?2", err);
    if (rc != SB_OK)
        return rc;
    sb_sqlite_bind(st, "it", experiment_id, label);
    *id = sqlite3_step(st) == SQLITE_ROW ? sqlite3_column_int64(st, 0) : 0;
    sqlite3_finalize(st);
    return SB_OK;
}

static enum sb_status measure_speed(struct sb_gate *g, const struct sides *sides,
                                    int64_t experiment_id, const struct sb_gate_options *o,
                                    struct sb_error *err)
{
    struct sb_speeds *speeds = NULL;
    enum sb_status rc = sb_speeds_load(&speeds, o->store, experiment_id, err);
    for (size_t i = 0; i < g->n_arms && rc == SB_OK; i++) {
        struct sb_speed speed = { 0 };
        int64_t id = 0;
        if (sides[i].now->is_baseline)
            continue;
        rc = find_arm(&id, o->store, experiment_id, g->arm[i].label, err);
        if (rc == SB_OK)
            rc = sb_speeds_get(&speed, speeds, id, NULL, 0, 0, err);
        if (rc == SB_OK && speed.n == 0)
            rc = sb_fail(err, SB_EINPUT,
                         "arm '%.80s' has no baseline arm beside it, so no measured speedup",
                         g->arm[i].label);
        if (rc != SB_OK)
            break;
        g->arm[i].speedup = speed.totals;
        judge_speed(&g->arm[i], o->min_speedup);
    }
    sb_speeds_destroy(speeds);
    return rc;
}

/* ---- the prompts that moved most ---- */

static double distance(const struct sb_gate_move *m)
{
    double change = relative_change(m->tokens, m->steps);
    return isnan(change) ? INFINITY : fabs(log1p(change));
}

static void note_move(struct sb_gate *g, const struct sb_gate_move *m)
{
    size_t at = g->n_moves;
    while (at > 0 && distance(&g->move[at - 1]) < distance(m))
        at--;
    if (at == SB_GATE_MOVES)
        return;
    size_t last = g->n_moves < SB_GATE_MOVES ? g->n_moves++ : SB_GATE_MOVES - 1;
    memmove(&g->move[at + 1], &g->move[at], (last - at) * sizeof *m);
    g->move[at] = *m;
}

static void note_moves(struct sb_gate *g, const struct sides *s)
{
    for (size_t i = 0; i < s->base->n_prompts; i++) {
        const struct sb_prompt_counts *b = &s->base->prompt[i], *w = &s->now->prompt[i];
        if (counts_equal(b, w))
            continue;
        struct sb_gate_move m = { .arm = s->base->label,
                                  .task = b->task,
                                  .question_id = b->question_id,
                                  .tokens = { b->tokens, w->tokens },
                                  .steps = { b->steps, w->steps } };
        g->n_moved++;
        note_move(g, &m);
    }
}

/* ---- all of it ---- */

static enum sb_status compare(struct sb_gate *g, struct sides *sides, const struct sb_record *now,
                              const struct sb_record *base, const struct sb_gate_options *o,
                              struct sb_error *err)
{
    enum sb_status rc = SB_OK;
    for (size_t i = 0; i < g->n_arms && rc == SB_OK; i++) {
        const char *label = o->n_arms ? o->arm[i] : base->arm[i].label;
        rc = find_sides(&sides[i], now, base, label, o->n_arms > 0, err);
        if (rc == SB_OK)
            rc = same_prompts(&sides[i], now, base, err);
        if (rc != SB_OK)
            break;
        add_up(&g->arm[i], &sides[i]);
        note_moves(g, &sides[i]);
        if (g->mode == SB_GATE_DETERMINISTIC)
            judge_exactly(&g->arm[i], &sides[i], o, g->max_task_drop);
    }
    if (rc == SB_OK && g->mode == SB_GATE_STATISTICAL)
        rc = judge_statistically(g, sides, now->path, err);
    for (size_t i = 0; i < g->n_arms && rc == SB_OK && o->rows; i++)
        judge_rows(&g->arm[i], o->max_drop);
    if (rc == SB_OK && o->min_speedup > 0)
        rc = measure_speed(g, sides, now->experiment_id, o, err);
    return rc;
}

enum sb_status sb_gate_run(struct sb_gate *out, const struct sb_record *now,
                           const struct sb_record *base, const struct sb_gate_options *o,
                           struct sb_error *err)
{
    bool exact = o->mode == SB_GATE_DETERMINISTIC ||
                 (o->mode == SB_GATE_AUTO && sb_record_reproducible(now, base));
    enum sb_status rc = sb_record_comparable(now, base, exact, err);
    if (rc == SB_OK && exact && !sb_record_reproducible(now, base))
        rc = sb_fail(err, SB_EINPUT,
                     "%s and %s are no greedy runs on exact arithmetic, so whole numbers do not"
                     " repeat: use --mode statistical",
                     now->path, base->path);
    if (rc != SB_OK)
        return rc;
    size_t n = o->n_arms ? o->n_arms : base->n_arms;
    struct sb_gate g = { .mode = exact ? SB_GATE_DETERMINISTIC : SB_GATE_STATISTICAL,
                         .max_drop = o->max_drop,
                         .max_task_drop =
                             o->max_task_drop > 0 ? o->max_task_drop : SB_GATE_TASK_DROP,
                         .rows = o->rows,
                         .speed = o->min_speedup > 0,
                         .arm = sb_alloc_zero(n, sizeof *g.arm),
                         .n_arms = n };
    struct sides *sides = sb_alloc_zero(n, sizeof *sides);
    if (!g.arm || !sides)
        rc = sb_fail(err, SB_ENOMEM, "out of memory for %zu arms", n);
    else
        rc = compare(&g, sides, now, base, o, err);
    sb_free(sides);
    if (rc != SB_OK) {
        sb_gate_finish(&g);
        return rc;
    }
    for (size_t i = 0; i < n; i++)
        if (g.arm[i].outcome == SB_GATE_FAILS || g.outcome == SB_GATE_HOLDS)
            g.outcome = g.arm[i].outcome;
    *out = g;
    return SB_OK;
}

void sb_gate_finish(struct sb_gate *g)
{
    sb_free(g->arm);
    *g = (struct sb_gate){ 0 };
}
