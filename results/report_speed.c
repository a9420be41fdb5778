/* Figures of paired times; repeats are reduced by their median inside the bootstrap. */
#include "results/report_speed.h"

#include <math.h>

#include "harness/core/alloc.h"
#include "results/bootstrap.h"
#include "results/speed_pairs.h"

/* ---- rows of the bootstrap ---- */

/* Medians of a question's pairs, its repeats drawn by `word`. */
static struct sb_speed_pair median_pair(const struct sb_pairing *p, size_t i, const uint32_t *word)
{
    double value[4][SB_MOST_REPEATS];
    const struct sb_span *at = &p->question[i].pairs;
    for (size_t k = 0; k < at->n; k++) {
        const struct sb_speed_pair *x = &p->pair[at->first + sb_draw_repeat(word, k, at->n)];
        value[0][k] = x->base;
        value[1][k] = x->method;
        value[2][k] = x->base_all;
        value[3][k] = x->method_all;
    }
    return (struct sb_speed_pair){ .base = sb_median(value[0], at->n),
                                   .method = sb_median(value[1], at->n),
                                   .base_all = sb_median(value[2], at->n),
                                   .method_all = sb_median(value[3], at->n) };
}

static void speed_row(struct sb_sums *out, const void *self, size_t i, const uint32_t *word)
{
    const struct sb_speed_pair x = median_pair(self, i, word);
    out->v[SB_SUM_BASE] = x.base;
    out->v[SB_SUM_METHOD] = x.method;
    out->v[SB_SUM_BASE_ALL] = x.base_all;
    out->v[SB_SUM_METHOD_ALL] = x.method_all;
    out->v[SB_SUM_LOG_RATIO] = log(x.base) - log(x.method);
    out->v[SB_SUM_PROMPTS] = 1;
}

enum { MAT_TOKENS, MAT_STEPS, MAT_BASE_TOKENS, MAT_BASE_STEPS };

static void mat_row(struct sb_sums *out, const void *self, size_t i, const uint32_t *word)
{
    const struct sb_pairing *p = self;
    const struct sb_span *at = &p->question[i].pairs;
    for (size_t k = 0; k < at->n; k++) {
        const struct sb_speed_pair *x = &p->pair[at->first + sb_draw_repeat(word, k, at->n)];
        out->v[MAT_TOKENS] += x->method_tokens;
        out->v[MAT_STEPS] += x->method_steps;
        out->v[MAT_BASE_TOKENS] += x->base_tokens;
        out->v[MAT_BASE_STEPS] += x->base_steps;
    }
}

static double mat_difference(const struct sb_sums *s)
{
    return s->v[MAT_TOKENS] / s->v[MAT_STEPS] - s->v[MAT_BASE_TOKENS] / s->v[MAT_BASE_STEPS];
}

static struct sb_clusters clusters_of(const struct sb_pairing *p,
                                      void (*row)(struct sb_sums *, const void *, size_t,
                                                  const uint32_t *))
{
    return (struct sb_clusters){
        .n = p->n, .stratum = p->stratum, .repeats = p->most_repeats, .row = row, .self = p
    };
}

/* ---- figures of a pairing ---- */

/* Each task's ratio of totals, geometric mean. */
static double mean_of_tasks(const struct sb_pairing *p)
{
    double sum = 0, base = 0, method = 0;
    size_t tasks = 0;
    for (size_t i = 0; i < p->n; i++) {
        const struct sb_speed_pair x = median_pair(p, i, NULL);
        base += x.base;
        method += x.method;
        if (i + 1 < p->n && p->stratum[i + 1] == p->stratum[i])
            continue;
        sum += log(base) - log(method);
        tasks++;
        base = method = 0;
    }
    return exp(sum / (double)tasks);
}

static const struct sb_speed nothing = { .totals = { NAN, NAN, NAN },
                                         .all = { NAN, NAN, NAN },
                                         .geometric = { NAN, NAN, NAN },
                                         .task_mean = NAN,
                                         .specbench = NAN,
                                         .noise = NAN,
                                         .note = "" };

static enum sb_status figures(struct sb_speed *out, const struct sb_pairing *p, int resamples,
                              uint64_t seed, struct sb_error *err)
{
    static const sb_estimator estimators[] = { sb_log_totals, sb_log_totals_all, sb_log_mean };
    struct sb_interval x[3];
    if (p->n == 0) {
        *out = nothing;
        return SB_OK;
    }
    const struct sb_clusters clusters = clusters_of(p, speed_row);
    enum sb_status rc = sb_bootstrap(x, estimators, 3, &clusters, resamples, seed, err);
    if (rc == SB_OK)
        *out = (struct sb_speed){ .totals = sb_interval_exp(x[0]),
                                  .all = sb_interval_exp(x[1]),
                                  .geometric = sb_interval_exp(x[2]),
                                  .task_mean = mean_of_tasks(p),
                                  .specbench = NAN,
                                  .n = p->n,
                                  .per_token = p->per_token,
                                  .noise = NAN,
                                  .note = "" };
    return rc;
}

static enum sb_status compare(struct sb_speed *out, const struct sb_speeds *s, size_t arm,
                              size_t reference, const char *task, int resamples, uint64_t seed,
                              struct sb_error *err)
{
    struct sb_pairing p;
    enum sb_status rc = sb_pairing_init(&p, s, err);
    if (rc != SB_OK)
        return rc;
    sb_pairing_arms(&p, s, reference, arm, task);
    rc = figures(out, &p, resamples, seed, err);
    sb_pairing_finish(&p);
    return rc;
}

enum sb_status sb_speeds_compare(struct sb_speed *out, const struct sb_speeds *s, int64_t arm_id,
                                 int64_t reference_id, const char *task, int resamples,
                                 uint64_t seed, struct sb_error *err)
{
    return compare(out, s, sb_speeds_arm(s, arm_id), sb_speeds_arm(s, reference_id), task,
                   resamples, seed, err);
}

/* ---- the noise floor ---- */

/* The far end of the interval of a ratio of equals, on the log scale. */
static struct sb_noise reach(const struct sb_speed *speed)
{
    struct sb_noise noise = { .sought = true, .floor = NAN, .n = speed->n };
    if (speed->n > 0)
        noise.floor = fabs(log(speed->totals.estimate));
    if (speed->n > 1)
        noise.floor = fmax(fabs(log(speed->totals.low)), fabs(log(speed->totals.high)));
    return noise;
}

/* From A/A arms, the noisiest of them; without any, from the baseline's repeats. Over all tasks: noise
 * is the machine's, and a task has few prompts to see it by. */
static enum sb_status find_noise(struct sb_noise *out, const struct sb_speeds *s, size_t base,
                                 int resamples, uint64_t seed, struct sb_error *err)
{
    struct sb_speed speed;
    struct sb_pairing p;
    struct sb_noise noise = { .sought = true, .floor = NAN };
    enum sb_status rc = SB_OK;
    for (size_t i = 0; i < s->n_arms && rc == SB_OK; i++) {
        if (!s->arm[i].is_again)
            continue;
        rc = compare(&speed, s, i, base, NULL, resamples, seed, err);
        if (rc == SB_OK && !(reach(&speed).floor <= noise.floor))
            noise = reach(&speed);
    }
    if (rc == SB_OK && isnan(noise.floor)) {
        rc = sb_pairing_init(&p, s, err);
        if (rc != SB_OK)
            return rc;
        sb_pairing_repeats(&p, s, base);
        rc = figures(&speed, &p, resamples, seed, err);
        if (rc == SB_OK)
            noise = reach(&speed);
        sb_pairing_finish(&p);
    }
    if (rc == SB_OK)
        *out = noise;
    return rc;
}

static const char *note_of(const struct sb_speed *speed, bool is_again)
{
    if (is_again)
        return "A/A";
    if (speed->n == 0)
        return "";
    if (fabs(log(speed->totals.estimate)) <= speed->noise)
        return "within noise";
    return speed->totals.low <= 1 && speed->totals.high >= 1 ? "interval holds 1" : "";
}

enum sb_status sb_speeds_get(struct sb_speed *out, struct sb_speeds *s, int64_t arm_id,
                             const char *task, int resamples, uint64_t seed, struct sb_error *err)
{
    const struct sb_speed_arm *baseline = sb_speeds_baseline(s);
    struct sb_speed speed = nothing;
    size_t arm = sb_speeds_arm(s, arm_id);
    enum sb_status rc = SB_OK;
    speed.specbench = sb_speeds_specbench(s, arm_id, task);
    if (!baseline || arm == s->n_arms) {
        *out = speed;
        return SB_OK;
    }
    size_t base = (size_t)(baseline - s->arm);
    if (!s->noise.sought)
        rc = find_noise(&s->noise, s, base, resamples, seed, err);
    if (rc == SB_OK) /* the baseline against itself needs no draws to fill the fields */
        rc = compare(&speed, s, arm, base, task, arm == base ? 2 : resamples, seed, err);
    if (rc != SB_OK)
        return rc;
    speed.specbench = sb_speeds_specbench(s, arm_id, task);
    if (speed.n > 0) /* fewer prompts, more noise */
        speed.noise = s->noise.floor * sqrt((double)s->noise.n / (double)speed.n);
    if (arm != base)
        speed.note = note_of(&speed, s->arm[arm].is_again);
    *out = speed;
    return SB_OK;
}

/* ---- more of a pair, and of one arm ---- */

enum sb_status sb_speeds_mat(struct sb_mat_difference *out, const struct sb_speeds *s,
                             int64_t arm_id, int64_t reference_id, const char *task, int resamples,
                             uint64_t seed, struct sb_error *err)
{
    static const sb_estimator estimators[] = { mat_difference };
    struct sb_pairing p;
    struct sb_mat_difference d = { NAN, NAN, { NAN, NAN, NAN } };
    struct sb_sums sum = { 0 };
    size_t arm = sb_speeds_arm(s, arm_id), reference = sb_speeds_arm(s, reference_id);
    enum sb_status rc = sb_pairing_init(&p, s, err);
    if (rc != SB_OK)
        return rc;
    sb_pairing_arms(&p, s, reference, arm, task);
    for (size_t i = 0; i < p.n; i++)
        mat_row(&sum, &p, i, NULL);
    if (p.n > 0 && sum.v[MAT_STEPS] > 0 && sum.v[MAT_BASE_STEPS] > 0) {
        const struct sb_clusters clusters = clusters_of(&p, mat_row);
        d.mat = sum.v[MAT_TOKENS] / sum.v[MAT_STEPS];
        d.reference_mat = sum.v[MAT_BASE_TOKENS] / sum.v[MAT_BASE_STEPS];
        rc = sb_bootstrap(&d.difference, estimators, 1, &clusters, resamples, seed, err);
    }
    if (rc == SB_OK)
        *out = d;
    sb_pairing_finish(&p);
    return rc;
}

enum sb_status sb_speeds_questions(struct sb_speed_question **out, size_t *n,
                                   const struct sb_speeds *s, int64_t arm_id, int64_t reference_id,
                                   const char *task, struct sb_error *err)
{
    struct sb_pairing p;
    size_t arm = sb_speeds_arm(s, arm_id), reference = sb_speeds_arm(s, reference_id);
    enum sb_status rc = sb_pairing_init(&p, s, err);
    if (rc != SB_OK)
        return rc;
    sb_pairing_arms(&p, s, reference, arm, task);
    struct sb_speed_question *q = sb_alloc_array(p.n, sizeof *q);
    if (!q)
        rc = sb_fail(err, SB_ENOMEM, "out of memory for %zu prompts", p.n);
    for (size_t i = 0; i < p.n && rc == SB_OK; i++) {
        struct sb_speed_pair x = median_pair(&p, i, NULL);
        struct sb_sums sum = { 0 };
        mat_row(&sum, &p, i, NULL);
        q[i] = (struct sb_speed_question){
            .task = s->task[p.question[i].of->task],
            .question_id = p.question[i].of->question_id,
            .repeats = p.question[i].pairs.n,
            .reference_ns = x.base,
            .method_ns = x.method,
            .reference_steps = sum.v[MAT_BASE_STEPS],
            .reference_mat = sum.v[MAT_BASE_TOKENS] / sum.v[MAT_BASE_STEPS],
            .method_steps = sum.v[MAT_STEPS],
            .method_mat = sum.v[MAT_TOKENS] / sum.v[MAT_STEPS],
        };
    }
    if (rc == SB_OK) {
        *out = q;
        *n = p.n;
    }
    sb_pairing_finish(&p);
    return rc;
}

struct sb_speed_rate sb_speeds_rate(const struct sb_speeds *s, int64_t arm_id, const char *task)
{
    struct sb_speed_rate rate = { 0 };
    size_t arm = sb_speeds_arm(s, arm_id);
    double tokens = 0, ns = 0, all_tokens = 0, all_ns = 0;
    for (size_t q = 0; arm < s->n_arms && q < s->n_questions; q++) {
        const struct sb_span at = s->at[q * s->n_arms + arm];
        if (!sb_speeds_wanted(s, q, task))
            continue;
        rate.questions += at.n > 0;
        rate.repeats = at.n > rate.repeats ? at.n : rate.repeats;
        for (size_t i = at.first; i < at.first + at.n; i++) {
            tokens += s->cell[i].tokens;
            ns += s->cell[i].decode_ns;
            all_tokens += s->cell[i].all_tokens;
            all_ns += s->cell[i].all_ns;
        }
    }
    rate.decode = ns > 0 ? tokens * 1e9 / ns : NAN;
    rate.all = all_ns > 0 ? all_tokens * 1e9 / all_ns : NAN;
    return rate;
}
