/* Causal attention over packed documents, with grouped-query heads, forth and back.
 *
 * Probabilities are kept for the way back, one rectangle per segment and head: a column for the row's own
 * key of every later pass, then a square. Queries go in blocks, so that most of what lies above the
 * diagonal is never computed. One thread owns a segment and a KV
 * head at a time, which fixes the order of every sum. */
#include "harness/train/internal.h"

#include <assert.h>
#include <omp.h>

enum { QUERY_BLOCK = 64 };

struct attention {
    size_t n_heads, n_kv_heads, d;
    size_t own; /* later passes, of which a row sees its own key alone */
    size_t m;   /* rows of a pass */
    struct sb_segments segments;
    sb_real *prob;   /* per segment [n_heads, n, own + n]; columns past the query block are unset */
    size_t *prob_at; /* [segments] where each begins */
    size_t longest;  /* rows of the longest segment */
};

/* One head of one segment. */
struct head {
    size_t start, n;   /* rows */
    size_t ldq, ldk;   /* row distances of q and of k, v */
    size_t q_at, k_at; /* first elements in q (also out) and in k, v */
    size_t ldp;        /* own + n */
    sb_real *prob;     /* [n, ldp] */
};

static struct head head_of(const struct attention *at, size_t segment, size_t h)
{
    const size_t *start = at->segments.start + segment;
    struct head head = { .start = start[0], .n = start[1] - start[0] };
    head.ldq = at->n_heads * at->d;
    head.ldk = at->n_kv_heads * at->d;
    head.q_at = head.start * head.ldq + h * at->d;
    head.k_at = head.start * head.ldk + h / (at->n_heads / at->n_kv_heads) * at->d;
    head.ldp = at->own + head.n;
    head.prob = at->prob + at->prob_at[segment] + h * head.n * head.ldp;
    return head;
}

/* Softmax of row[0..n) in place, zeros up to row[padded). */
SB_CLONES static void softmax_row(sb_real *row, size_t n, size_t padded, sb_real scale)
{
    sb_real top = row[0], lane[SB_LANES] = { 0 };
    for (size_t j = 1; j < n; j++)
        top = row[j] > top ? row[j] : top;
    for (size_t j = 0; j < n; j++)
        row[j] = sb_real_exp((row[j] - top) * scale);
    for (size_t j = n; j < padded; j++)
        row[j] = 0;
    size_t i = 0;
    for (; i + SB_LANES <= n; i += SB_LANES)
        for (size_t j = 0; j < SB_LANES; j++)
            lane[j] += row[i + j];
    for (size_t j = 0; i + j < n; j++)
        lane[j] += row[i + j];
    sb_real inv = 1 / join_lanes(lane);
    for (size_t j = 0; j < n; j++)
        row[j] *= inv;
}

/* First element of row r of the segment in the keys or values of later pass p. */
static size_t own_at(const struct attention *at, const struct head *head, size_t p, size_t r)
{
    return head->k_at + ((p + 1) * at->m + r) * head->ldk;
}

static sb_real dot(const sb_real *a, const sb_real *b, size_t n)
{
    sb_real sum = 0;
    for (size_t j = 0; j < n; j++)
        sum += a[j] * b[j];
    return sum;
}

static void add_scaled(sb_real *y, const sb_real *x, sb_real a, size_t n)
{
    for (size_t j = 0; j < n; j++)
        y[j] += a * x[j];
}

static void head_forward(const struct attention *at, const struct head *head, const sb_real *q,
                         const sb_real *k, const sb_real *v, sb_real *out)
{
    sb_real scale = 1 / (sb_real)sqrt((double)at->d);
    size_t own = at->own;
    int d = (int)at->d, n = (int)head->n, ldq = (int)head->ldq, ldk = (int)head->ldk;
    int ldp = (int)head->ldp;
    for (int b = 0; b < n; b += QUERY_BLOCK) {
        int rows = n - b < QUERY_BLOCK ? n - b : QUERY_BLOCK, seen = b + rows;
        sb_real *prob = head->prob + (size_t)b * head->ldp;
        size_t q_at = head->q_at + (size_t)b * head->ldq;
        sb_blas_gemm(CblasRowMajor, CblasNoTrans, CblasTrans, rows, seen, d, 1, q + q_at, ldq,
                     k + head->k_at, ldk, 0, prob + own, ldp);
        for (size_t r = 0; r < (size_t)rows; r++) {
            sb_real *row = prob + r * head->ldp;
            for (size_t p = 0; p < own; p++)
                row[p] =
                    dot(q + q_at + r * head->ldq, k + own_at(at, head, p, (size_t)b + r), at->d);
            softmax_row(row, own + (size_t)b + r + 1, own + (size_t)seen, scale);
        }
        sb_blas_gemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, rows, d, seen, 1, prob + own, ldp,
                     v + head->k_at, ldk, 0, out + q_at, ldq);
        for (size_t r = 0; r < (size_t)rows; r++)
            for (size_t p = 0; p < own; p++)
                add_scaled(out + q_at + r * head->ldq, v + own_at(at, head, p, (size_t)b + r),
                           prob[r * head->ldp + p], at->d);
    }
}

/* ds = prob * (dp - sum(prob * dp)) * scale, in place of dp. */
SB_CLONES static void softmax_row_back(sb_real *dp, const sb_real *prob, size_t n, sb_real scale)
{
    sb_real lane[SB_LANES] = { 0 };
    size_t i = 0;
    for (; i + SB_LANES <= n; i += SB_LANES)
        for (size_t j = 0; j < SB_LANES; j++)
            lane[j] += prob[i + j] * dp[i + j];
    for (size_t j = 0; i + j < n; j++)
        lane[j] += prob[i + j] * dp[i + j];
    sb_real sum = join_lanes(lane);
    for (size_t j = 0; j < n; j++)
        dp[j] = prob[j] * (dp[j] - sum) * scale;
}

/* Row r's share in the gradients of its own keys and values; ds and prob are of those columns. */
static void own_backward(const struct attention *at, const struct head *head,
                         const struct sb_op *op, size_t r, const sb_real *ds, const sb_real *prob)
{
    const struct sb_var *q = op->in[0], *k = op->in[1], *v = op->in[2];
    size_t q_at = head->q_at + r * head->ldq;
    for (size_t p = 0; p < at->own; p++) {
        size_t k_at = own_at(at, head, p, r);
        if (v->dx)
            add_scaled(v->dx + k_at, op->out->dx + q_at, prob[p], at->d);
        if (q->dx)
            add_scaled(q->dx + q_at, k->x + k_at, ds[p], at->d);
        if (k->dx)
            add_scaled(k->dx + k_at, q->x + q_at, ds[p], at->d);
    }
}

/* Adds to the gradients of one query head; NULL dq, dk or dv is not wanted. */
static void head_backward(const struct attention *at, const struct head *head,
                          const struct sb_op *op, sb_real *scratch)
{
    const struct sb_var *q = op->in[0], *k = op->in[1], *v = op->in[2];
    const sb_real *dout = op->out->dx;
    sb_real scale = 1 / (sb_real)sqrt((double)at->d);
    size_t own = at->own;
    int d = (int)at->d, n = (int)head->n, ldq = (int)head->ldq, ldk = (int)head->ldk;
    int ldp = (int)head->ldp;
    for (int b = 0; b < n; b += QUERY_BLOCK) {
        int rows = n - b < QUERY_BLOCK ? n - b : QUERY_BLOCK, seen = b + rows;
        int lds = (int)own + seen;
        const sb_real *prob = head->prob + (size_t)b * head->ldp;
        size_t q_at = head->q_at + (size_t)b * head->ldq;
        if (v->dx)
            sb_blas_gemm(CblasRowMajor, CblasTrans, CblasNoTrans, seen, d, rows, 1, prob + own, ldp,
                         dout + q_at, ldq, 1, v->dx + head->k_at, ldk);
        sb_blas_gemm(CblasRowMajor, CblasNoTrans, CblasTrans, rows, seen, d, 1, dout + q_at, ldq,
                     v->x + head->k_at, ldk, 0, scratch + own, lds);
        for (size_t r = 0; r < (size_t)rows; r++) {
            sb_real *ds = scratch + r * (size_t)lds;
            const sb_real *row = prob + r * head->ldp;
            for (size_t p = 0; p < own; p++)
                ds[p] = dot(dout + q_at + r * head->ldq, v->x + own_at(at, head, p, (size_t)b + r),
                            at->d);
            softmax_row_back(ds, row, (size_t)lds, scale);
            own_backward(at, head, op, (size_t)b + r, ds, row);
        }
        if (q->dx)
            sb_blas_gemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, rows, d, seen, 1, scratch + own,
                         lds, k->x + head->k_at, ldk, 1, q->dx + q_at, ldq);
        if (k->dx)
            sb_blas_gemm(CblasRowMajor, CblasTrans, CblasNoTrans, seen, d, rows, 1, scratch + own,
                         lds, q->x + q_at, ldq, 1, k->dx + head->k_at, ldk);
    }
}

/* The heads of a KV head share its gradient, so they are taken in order by one thread. */
static void group_backward(const struct attention *at, const struct sb_op *op, size_t segment,
                           size_t kv_head, sb_real *scratch)
{
    size_t group = at->n_heads / at->n_kv_heads;
    for (size_t g = 0; g < group; g++) {
        struct head head = head_of(at, segment, kv_head * group + g);
        head_backward(at, &head, op, scratch);
    }
}

/* Everything is added, so a first contribution starts from zeros; q, k and v may be one matrix. */
static void clear_first_grad(struct sb_var *var)
{
    if (wants_grad(var) && claim_grad(var) == 0)
        memset(var->dx, 0, var->rows * var->cols * sizeof *var->dx);
}

static void attention_backward(struct sb_tape *tape, const struct sb_op *op)
{
    const struct attention *at = op->extra;
    size_t per_thread = QUERY_BLOCK * (at->own + at->longest);
    sb_real *scratch =
        sb_tape_alloc(tape, (size_t)omp_get_max_threads() * per_thread, sizeof *scratch);
    if (!scratch)
        return;
    for (size_t i = 0; i < 3; i++)
        clear_first_grad(op->in[i]);
    size_t n_items = at->segments.n * at->n_kv_heads;
#pragma omp parallel for schedule(dynamic)
    for (size_t i = 0; i < n_items; i++)
        group_backward(at, op, i / at->n_kv_heads, i % at->n_kv_heads,
                       scratch + (size_t)omp_get_thread_num() * per_thread);
}

/* `as` with memory for probabilities. */
static struct attention *attention_record(struct sb_tape *tape, const struct attention *as)
{
    const struct sb_segments *segments = &as->segments;
    struct attention *at = sb_tape_alloc(tape, 1, sizeof *at);
    size_t *prob_at = sb_tape_alloc(tape, segments->n, sizeof *prob_at);
    if (!at || !prob_at)
        return NULL;
    size_t total = 0, longest = 0;
    for (size_t s = 0; s < segments->n; s++) {
        size_t n = segments->start[s + 1] - segments->start[s];
        prob_at[s] = total;
        total += as->n_heads * n * (as->own + n);
        longest = n > longest ? n : longest;
    }
    sb_real *prob = sb_tape_alloc(tape, total, sizeof *prob);
    if (!prob)
        return NULL;
    *at = *as;
    at->prob = prob;
    at->prob_at = prob_at;
    at->longest = longest;
    return at;
}

struct sb_var *sb_tape_attention(struct sb_tape *tape, struct sb_var *q, struct sb_var *k,
                                 struct sb_var *v, size_t n_heads, size_t n_kv_heads,
                                 const struct sb_segments *segments)
{
    if (!q || !k || !v)
        return NULL;
    assert(n_heads % n_kv_heads == 0 && q->cols % n_heads == 0 && k->cols == v->cols);
    assert(q->cols / n_heads == k->cols / n_kv_heads && q->rows == segments->start[segments->n]);
    assert(k->rows == v->rows && k->rows >= q->rows && k->rows % q->rows == 0);
    const struct attention as = {
        .n_heads = n_heads,
        .n_kv_heads = n_kv_heads,
        .d = q->cols / n_heads,
        .own = k->rows / q->rows - 1,
        .m = q->rows,
        .segments = *segments,
    };
    struct attention *at = attention_record(tape, &as);
    struct sb_op op = { .backward = attention_backward, .in = { q, k, v }, .extra = at };
    op.out = at ? sb_tape_output(tape, &op, q->rows, q->cols) : NULL;
    if (!op.out || !sb_tape_record(tape, &op))
        return NULL;
#pragma omp parallel for schedule(dynamic)
    for (size_t i = 0; i < segments->n * n_heads; i++) {
        struct head head = head_of(at, i / n_heads, i % n_heads);
        head_forward(at, &head, q->x, k->x, v->x, op.out->x);
    }
    return op.out;
}
