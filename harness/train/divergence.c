/* Losses between a teacher's row p and a student's row q, all of one form: a sum over tokens of
 * value(p, q), whose gradient by the student's logits is term - q * sum(term) with
 * term = q * d value / d q. So each is two lines below, and the walks over rows exist once. */
#include "harness/train/internal.h"

#include <assert.h>

/* log(sum(exp(x))) */
SB_CLONES sb_real sb_log_sum_exp(const sb_real *x, size_t n)
{
    sb_real top = x[0], lane[SB_LANES] = { 0 };
    for (size_t j = 1; j < n; j++)
        top = x[j] > top ? x[j] : top;
    size_t i = 0;
    for (; i + SB_LANES <= n; i += SB_LANES)
        for (size_t j = 0; j < SB_LANES; j++)
            lane[j] += sb_real_exp(x[i + j] - top);
    for (size_t j = 0; i + j < n; j++)
        lane[j] += sb_real_exp(x[i + j] - top);
    return top + (sb_real)log((double)join_lanes(lane));
}

/* What the terms of a row need beside log p and log q. */
struct row {
    sb_real lse_p, lse_q;
    sb_real beta;      /* JSD */
    sb_real threshold; /* top-k: the least of the teacher's logits that counts */
};

/* Value and term of one token. */
struct pair {
    sb_real value, term;
};

#define ALWAYS_INLINE static inline __attribute__((always_inline))

ALWAYS_INLINE struct pair soft_ce(sb_real lp, sb_real lq, const struct row *row)
{
    (void)row;
    sb_real p = sb_real_exp(lp);
    return (struct pair){ -p * lq, -p };
}

ALWAYS_INLINE struct pair forward_kl(sb_real lp, sb_real lq, const struct row *row)
{
    (void)row;
    sb_real p = sb_real_exp(lp);
    return (struct pair){ p * (lp - lq), -p };
}

ALWAYS_INLINE struct pair reverse_kl(sb_real lp, sb_real lq, const struct row *row)
{
    (void)row;
    sb_real v = sb_real_exp(lq) * (lq - lp);
    return (struct pair){ v, v };
}

/* beta KL(p || m) + (1 - beta) KL(q || m), m = beta p + (1 - beta) q. */
ALWAYS_INLINE struct pair jsd(sb_real lp, sb_real lq, const struct row *row)
{
    sb_real p = sb_real_exp(lp), q = sb_real_exp(lq), b = row->beta;
    sb_real lm = (sb_real)log((double)(b * p + (1 - b) * q));
    sb_real term = (1 - b) * q * (lq - lm);
    return (struct pair){ b * p * (lp - lm) + term, term };
}

/* sum of max(q - p, 0): what sampling would reject. */
ALWAYS_INLINE struct pair tvd(sb_real lp, sb_real lq, const struct row *row)
{
    (void)row;
    sb_real p = sb_real_exp(lp), q = sb_real_exp(lq);
    return (struct pair){ q > p ? q - p : 0, q > p ? q : 0 };
}

ALWAYS_INLINE struct pair topk_ce(sb_real lp, sb_real lq, const struct row *row)
{
    sb_real p = lp + row->lse_p >= row->threshold ? sb_real_exp(lp) : 0;
    return (struct pair){ -p * lq, -p };
}

/* sum of min(p, q), the acceptance; -log of it is taken by the row. */
ALWAYS_INLINE struct pair acceptance(sb_real lp, sb_real lq, const struct row *row)
{
    (void)row;
    sb_real p = sb_real_exp(lp), q = sb_real_exp(lq);
    return (struct pair){ q < p ? q : p, q < p ? q : 0 };
}

/* name_sum: sums of value and term over a row. name_grad: dx (+)= scale * (term - q * total). */
#define ROW_WALKS(name)                                                                          \
    SB_CLONES static struct pair name##_sum(const sb_real *p, const sb_real *q, size_t n,        \
                                            const struct row *row)                               \
    {                                                                                            \
        sb_real value[SB_LANES] = { 0 }, term[SB_LANES] = { 0 };                                 \
        for (size_t i = 0; i < n; i += SB_LANES) {                                               \
            size_t lanes = n - i < SB_LANES ? n - i : SB_LANES;                                  \
            for (size_t j = 0; j < lanes; j++) {                                                 \
                struct pair one = name(p[i + j] - row->lse_p, q[i + j] - row->lse_q, row);       \
                value[j] += one.value;                                                           \
                term[j] += one.term;                                                             \
            }                                                                                    \
        }                                                                                        \
        return (struct pair){ join_lanes(value), join_lanes(term) };                             \
    }                                                                                            \
    SB_CLONES static void name##_grad(sb_real *dx, const sb_real *p, const sb_real *q, size_t n, \
                                      const struct row *row, sb_real total, sb_real scale)       \
    {                                                                                            \
        for (size_t j = 0; j < n; j++) {                                                         \
            sb_real lq = q[j] - row->lse_q;                                                      \
            dx[j] += scale * (name(p[j] - row->lse_p, lq, row).term - sb_real_exp(lq) * total);  \
        }                                                                                        \
    }

ROW_WALKS(soft_ce)
ROW_WALKS(forward_kl)
ROW_WALKS(reverse_kl)
ROW_WALKS(jsd)
ROW_WALKS(tvd)
ROW_WALKS(topk_ce)
ROW_WALKS(acceptance)

static const struct walks {
    struct pair (*sum)(const sb_real *, const sb_real *, size_t, const struct row *);
    void (*grad)(sb_real *, const sb_real *, const sb_real *, size_t, const struct row *, sb_real,
                 sb_real);
} walks[] = {
    [SB_SOFT_CE] = { soft_ce_sum, soft_ce_grad },
    [SB_KL] = { forward_kl_sum, forward_kl_grad },
    [SB_REVERSE_KL] = { reverse_kl_sum, reverse_kl_grad },
    [SB_JSD] = { jsd_sum, jsd_grad },
    [SB_TVD] = { tvd_sum, tvd_grad },
    [SB_TOPK_CE] = { topk_ce_sum, topk_ce_grad },
    [SB_LK_ALPHA] = { acceptance_sum, acceptance_grad },
};

const char sb_divergence_names[] = "soft-ce|kl|reverse-kl|jsd|tvd|topk-ce|lk-alpha";

bool sb_divergence_find(const char *name, enum sb_divergence_kind *kind)
{
    size_t n = strlen(name), index = 0;
    for (const char *at = sb_divergence_names; at; index++) {
        if (strncmp(at, name, n) == 0 && (at[n] == '|' || at[n] == '\0') && n > 0) {
            *kind = (enum sb_divergence_kind)index;
            return true;
        }
        at = strchr(at, '|');
        at = at ? at + 1 : NULL;
    }
    return false;
}

/* ---- the operation --------------------------------------------------------------------------- */

struct record {
    struct sb_divergence by;
    struct sb_teacher teacher;
    const sb_real *weight; /* per row, or NULL */
    struct row *row;
    struct pair *sum;
};

static sb_real row_weight(const struct record *loss, size_t r)
{
    return loss->weight ? loss->weight[r] : 1;
}

static const sb_real *teacher_row(const struct record *loss, size_t r, size_t n)
{
    size_t at = loss->teacher.row ? (size_t)loss->teacher.row[r] : r;
    return loss->teacher.logits + at * n;
}

/* The k-th largest of x[n]. */
static sb_real kth_largest(const sb_real *x, size_t n, size_t k)
{
    sb_real best[SB_MAX_TOP_K];
    size_t held = 0;
    k = k < n ? k : n;
    for (size_t j = 0; j < n; j++) {
        if (held == k && x[j] <= best[k - 1])
            continue;
        size_t at = held < k ? held++ : k - 1;
        for (; at > 0 && best[at - 1] < x[j]; at--)
            best[at] = best[at - 1];
        best[at] = x[j];
    }
    return best[k - 1];
}

static void row_forward(struct record *loss, const struct sb_var *logits, size_t r)
{
    size_t n = logits->cols;
    const sb_real *p = teacher_row(loss, r, n), *q = logits->x + r * n;
    struct row row = { sb_log_sum_exp(p, n), sb_log_sum_exp(q, n), (sb_real)loss->by.beta, 0 };
    if (loss->by.kind == SB_TOPK_CE)
        row.threshold = kth_largest(p, n, loss->by.top_k);
    loss->row[r] = row;
    loss->sum[r] = walks[loss->by.kind].sum(p, q, n, &row);
}

/* The row's loss, and what its terms are multiplied by. */
static struct pair row_value(const struct record *loss, size_t r)
{
    sb_real value = loss->sum[r].value;
    if (loss->by.kind != SB_LK_ALPHA)
        return (struct pair){ value, 1 };
    return (struct pair){ (sb_real)-log((double)value), -1 / value };
}

static void divergence_backward(struct sb_tape *tape, const struct sb_op *op)
{
    (void)tape;
    const struct record *loss = op->extra;
    struct sb_var *logits = op->in[0];
    size_t n = logits->cols;
    sb_real keep = claim_grad(logits), seed = op->out->dx[0];
#pragma omp parallel for schedule(static)
    for (size_t r = 0; r < logits->rows; r++) {
        sb_real scale = seed * row_weight(loss, r), *dx = logits->dx + r * n;
        if (keep == 0)
            memset(dx, 0, n * sizeof *dx);
        if (scale != 0)
            walks[loss->by.kind].grad(dx, teacher_row(loss, r, n), logits->x + r * n, n,
                                      &loss->row[r], loss->sum[r].term,
                                      scale * row_value(loss, r).term);
    }
}

struct sb_var *sb_tape_divergence(struct sb_tape *tape, struct sb_var *logits,
                                  const struct sb_divergence *by, const struct sb_teacher *teacher,
                                  const sb_real *weight)
{
    if (!logits || !teacher->logits)
        return NULL;
    assert(by->kind != SB_TOPK_CE || (by->top_k >= 1 && by->top_k <= SB_MAX_TOP_K));
    size_t m = logits->rows;
    struct record *loss = sb_tape_alloc(tape, 1, sizeof *loss);
    struct row *row = sb_tape_alloc(tape, m, sizeof *row);
    struct pair *sum = sb_tape_alloc(tape, m, sizeof *sum);
    struct sb_op op = { .backward = divergence_backward, .in = { logits }, .extra = loss };
    op.out = sb_tape_output(tape, &op, 1, 1);
    if (!op.out || !sb_tape_record(tape, &op))
        return NULL;
    *loss = (struct record){ *by, *teacher, weight, row, sum };
#pragma omp parallel for schedule(static)
    for (size_t r = 0; r < m; r++)
        if (row_weight(loss, r) != 0)
            row_forward(loss, logits, r);
    double total = 0;
    for (size_t r = 0; r < m; r++)
        if (row_weight(loss, r) != 0)
            total += (double)row_weight(loss, r) * (double)row_value(loss, r).value;
    op.out->x[0] = (sb_real)total;
    return op.out;
}

/* ---- between feature rows -------------------------------------------------------------------- */

struct l1_record {
    struct sb_teacher target;
    const sb_real *weight;
};

static const sb_real *target_row(const struct l1_record *l1, size_t r, size_t d)
{
    return l1->target.logits + (l1->target.row ? (size_t)l1->target.row[r] : r) * d;
}

static void smooth_l1_backward(struct sb_tape *tape, const struct sb_op *op)
{
    (void)tape;
    const struct l1_record *l1 = op->extra;
    struct sb_var *x = op->in[0];
    size_t d = x->cols;
    sb_real keep = claim_grad(x);
#pragma omp parallel for schedule(static)
    for (size_t r = 0; r < x->rows; r++) {
        sb_real scale = op->out->dx[0] * (l1->weight ? l1->weight[r] : 1) / (sb_real)d;
        const sb_real *y = target_row(l1, r, d);
        for (size_t j = 0; j < d; j++) {
            sb_real e = x->x[r * d + j] - y[j], slope = e > 1 ? 1 : e < -1 ? -1 : e;
            sb_real g = scale != 0 ? scale * slope : 0;
            x->dx[r * d + j] = keep != 0 ? x->dx[r * d + j] + g : g;
        }
    }
}

struct sb_var *sb_tape_smooth_l1(struct sb_tape *tape, struct sb_var *x,
                                 const struct sb_teacher *target, const sb_real *weight)
{
    if (!x || !target->logits)
        return NULL;
    size_t d = x->cols;
    struct l1_record *l1 = sb_tape_alloc(tape, 1, sizeof *l1);
    struct sb_op op = { .backward = smooth_l1_backward, .in = { x }, .extra = l1 };
    op.out = sb_tape_output(tape, &op, 1, 1);
    if (!op.out || !sb_tape_record(tape, &op))
        return NULL;
    *l1 = (struct l1_record){ *target, weight };
    double total = 0;
    for (size_t r = 0; r < x->rows; r++) {
        const sb_real *y = target_row(l1, r, d);
        double sum = 0, scale = weight ? (double)weight[r] : 1;
        for (size_t j = 0; scale != 0 && j < d; j++) {
            double e = fabs((double)(x->x[r * d + j] - y[j]));
            sum += e < 1 ? 0.5 * e * e : e - 0.5;
        }
        total += scale * sum / (double)d;
    }
    op.out->x[0] = (sb_real)total;
    return op.out;
}
