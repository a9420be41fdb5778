/* Linear, embedding, norm, addition, SwiGLU, rotation (rows.c and activation.c have the rest).
 *
 * Products go to OpenBLAS one block at a time from inside a parallel region, where it runs on the
 * calling thread: how an element is summed then depends on the block, never on the team. */
#include "harness/train/internal.h"

#include <assert.h>

#include "harness/core/alloc.h"

/* ---- linear ---------------------------------------------------------------------------------- */

/* Block of n weight rows for the gradient of W: an even number of blocks of at most 128. */
static size_t weight_block(size_t n)
{
    size_t count = 2 * blocks_of(n, 256);
    return blocks_of(n, count);
}

static void add_bias(sb_real *y, const sb_real *bias, size_t rows, size_t n)
{
    for (size_t r = 0; r < rows; r++)
        for (size_t j = 0; j < n; j++)
            y[r * n + j] += bias[j];
}

static void linear_grad_x(const struct sb_var *y, struct sb_var *x, const struct sb_var *w)
{
    size_t m = x->rows, k = x->cols, n = w->rows;
    sb_real keep = claim_grad(x);
#pragma omp parallel for schedule(static)
    for (size_t r = 0; r < m; r += SB_ROW_BLOCK) {
        size_t rows = m - r < SB_ROW_BLOCK ? m - r : SB_ROW_BLOCK;
        sb_blas_gemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (int)rows, (int)k, (int)n, 1,
                     y->dx + r * n, (int)n, w->x, (int)k, keep, x->dx + r * k, (int)k);
    }
}

static void linear_grad_w(const struct sb_var *y, const struct sb_var *x, struct sb_var *w)
{
    size_t m = x->rows, k = x->cols, n = w->rows, block = weight_block(n);
    sb_real keep = claim_grad(w);
#pragma omp parallel for schedule(static)
    for (size_t j = 0; j < n; j += block) {
        size_t outs = n - j < block ? n - j : block;
        sb_blas_gemm(CblasRowMajor, CblasTrans, CblasNoTrans, (int)outs, (int)k, (int)m, 1,
                     y->dx + j, (int)n, x->x, (int)k, keep, w->dx + j * k, (int)k);
    }
}

static void linear_backward(struct sb_tape *tape, const struct sb_op *op)
{
    (void)tape;
    if (wants_grad(op->in[0]))
        linear_grad_x(op->out, op->in[0], op->in[1]);
    if (wants_grad(op->in[1]))
        linear_grad_w(op->out, op->in[0], op->in[1]);
    if (wants_grad(op->in[2]))
        sb_add_bias_grad(op->out, op->in[2]);
}

struct sb_var *sb_tape_linear(struct sb_tape *tape, struct sb_var *x, struct sb_var *w,
                              struct sb_var *bias)
{
    if (!x || !w)
        return NULL;
    assert(x->cols == w->cols && (!bias || bias->cols == w->rows));
    size_t m = x->rows, k = x->cols, n = w->rows;
    struct sb_op op = { .backward = linear_backward, .in = { x, w, bias } };
    op.out = sb_tape_output(tape, &op, m, n);
    if (!op.out || !sb_tape_record(tape, &op))
        return NULL;
    sb_real *y = op.out->x;
#pragma omp parallel for schedule(static)
    for (size_t r = 0; r < m; r += SB_ROW_BLOCK) {
        size_t rows = m - r < SB_ROW_BLOCK ? m - r : SB_ROW_BLOCK;
        sb_blas_gemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)rows, (int)n, (int)k, 1,
                     x->x + r * k, (int)k, w->x, (int)k, 0, y + r * n, (int)n);
        if (bias)
            add_bias(y + r * n, bias->x, rows, n);
    }
    return op.out;
}

/* ---- embedding ------------------------------------------------------------------------------- */

static void embed_backward(struct sb_tape *tape, const struct sb_op *op)
{
    (void)tape;
    struct sb_var *table = op->in[0];
    const int32_t *ids = op->extra;
    size_t d = table->cols;
    if (claim_grad(table) == 0)
        memset(table->dx, 0, table->rows * d * sizeof *table->dx);
    for (size_t r = 0; r < op->out->rows; r++) {
        const sb_real *dy = op->out->dx + r * d;
        sb_real *row = table->dx + (size_t)ids[r] * d;
        for (size_t j = 0; j < d; j++)
            row[j] += dy[j];
    }
}

struct sb_var *sb_tape_embed(struct sb_tape *tape, struct sb_var *table, const int32_t *ids,
                             size_t n)
{
    if (!table)
        return NULL;
    size_t d = table->cols;
    struct sb_op op = { .backward = embed_backward, .in = { table }, .extra = ids };
    op.out = sb_tape_output(tape, &op, n, d);
    if (!op.out || !sb_tape_record(tape, &op))
        return NULL;
    for (size_t r = 0; r < n; r++) {
        assert(ids[r] >= 0 && (size_t)ids[r] < table->rows);
        memcpy(op.out->x + r * d, table->x + (size_t)ids[r] * d, d * sizeof(sb_real));
    }
    return op.out;
}

/* ---- RMSNorm --------------------------------------------------------------------------------- */

SB_CLONES static sb_real dot(const sb_real *a, const sb_real *b, size_t n)
{
    sb_real lane[SB_LANES] = { 0 };
    size_t i = 0;
    for (; i + SB_LANES <= n; i += SB_LANES)
        for (size_t j = 0; j < SB_LANES; j++)
            lane[j] += a[i + j] * b[i + j];
    for (size_t j = 0; i + j < n; j++)
        lane[j] += a[i + j] * b[i + j];
    return join_lanes(lane);
}

/* y = x * inv * w. With h = x * inv: dx = inv * (w dy - h * mean(h w dy)), dw = sum over rows of
 * h dy, summed per block of rows into `partial` and joined by the caller. */
SB_CLONES static void norm_rows_back(const sb_real *x, const sb_real *w, const sb_real *inv,
                                     const sb_real *dy, sb_real *dx, sb_real keep, sb_real *partial,
                                     size_t rows, size_t d)
{
    for (size_t r = 0; r < rows; r++, x += d, dy += d) {
        if (partial)
            for (size_t j = 0; j < d; j++)
                partial[j] += x[j] * inv[r] * dy[j];
        if (!dx)
            continue;
        sb_real lane[SB_LANES] = { 0 };
        size_t i = 0;
        for (; i + SB_LANES <= d; i += SB_LANES)
            for (size_t j = 0; j < SB_LANES; j++)
                lane[j] += x[i + j] * w[i + j] * dy[i + j];
        for (size_t j = 0; i + j < d; j++)
            lane[j] += x[i + j] * w[i + j] * dy[i + j];
        sb_real scale = join_lanes(lane) * inv[r] * inv[r] / (sb_real)d;
        for (size_t j = 0; j < d; j++) {
            sb_real g = inv[r] * (w[j] * dy[j] - x[j] * scale);
            dx[r * d + j] = keep != 0 ? dx[r * d + j] + g : g;
        }
    }
}

static void rmsnorm_backward(struct sb_tape *tape, const struct sb_op *op)
{
    struct sb_var *x = op->in[0], *w = op->in[1];
    size_t d = x->cols, m = x->rows, n_blocks = blocks_of(m, SB_ROW_BLOCK);
    const sb_real *inv = op->extra;
    sb_real *partial = NULL;
    if (wants_grad(w)) {
        partial = sb_tape_alloc(tape, n_blocks * d, sizeof *partial);
        if (!partial)
            return;
        memset(partial, 0, n_blocks * d * sizeof *partial);
    }
    sb_real keep = wants_grad(x) ? claim_grad(x) : 0;
#pragma omp parallel for schedule(static)
    for (size_t b = 0; b < n_blocks; b++) {
        size_t r = b * SB_ROW_BLOCK, rows = m - r < SB_ROW_BLOCK ? m - r : SB_ROW_BLOCK;
        norm_rows_back(x->x + r * d, w->x, inv + r, op->out->dx + r * d,
                       x->dx ? x->dx + r * d : NULL, keep, partial ? partial + b * d : NULL, rows,
                       d);
    }
    if (!partial)
        return;
    if (claim_grad(w) == 0)
        memset(w->dx, 0, d * sizeof *w->dx);
    for (size_t b = 0; b < n_blocks; b++)
        for (size_t j = 0; j < d; j++)
            w->dx[j] += partial[b * d + j];
}

struct sb_var *sb_tape_rmsnorm(struct sb_tape *tape, struct sb_var *x, struct sb_var *weight,
                               sb_real eps)
{
    if (!x || !weight)
        return NULL;
    assert(weight->cols == x->cols);
    size_t m = x->rows, d = x->cols;
    sb_real *inv = sb_tape_alloc(tape, m, sizeof *inv);
    struct sb_op op = { .backward = rmsnorm_backward, .in = { x, weight }, .extra = inv };
    op.out = sb_tape_output(tape, &op, m, d);
    if (!op.out || !sb_tape_record(tape, &op))
        return NULL;
#pragma omp parallel for schedule(static)
    for (size_t r = 0; r < m; r++) {
        const sb_real *row = x->x + r * d;
        sb_real *y = op.out->x + r * d;
        inv[r] = 1 / (sb_real)sqrt((double)(dot(row, row, d) / (sb_real)d + eps));
        for (size_t j = 0; j < d; j++)
            y[j] = row[j] * inv[r] * weight->x[j];
    }
    return op.out;
}

/* ---- addition -------------------------------------------------------------------------------- */

static void add_backward(struct sb_tape *tape, const struct sb_op *op)
{
    (void)tape;
    size_t n = op->out->rows * op->out->cols;
    for (size_t i = 0; i < 2; i++) {
        struct sb_var *in = op->in[i];
        if (!wants_grad(in))
            continue;
        sb_real keep = claim_grad(in), *dx = in->dx;
        const sb_real *dy = op->out->dx;
#pragma omp parallel for schedule(static)
        for (size_t j = 0; j < n; j++)
            dx[j] = keep != 0 ? dx[j] + dy[j] : dy[j];
    }
}

struct sb_var *sb_tape_add(struct sb_tape *tape, struct sb_var *a, struct sb_var *b)
{
    if (!a || !b)
        return NULL;
    assert(a->rows == b->rows && a->cols == b->cols);
    struct sb_op op = { .backward = add_backward, .in = { a, b } };
    op.out = sb_tape_output(tape, &op, a->rows, a->cols);
    if (!op.out || !sb_tape_record(tape, &op))
        return NULL;
    size_t n = a->rows * a->cols;
    sb_real *y = op.out->x;
#pragma omp parallel for schedule(static)
    for (size_t j = 0; j < n; j++)
        y[j] = a->x[j] + b->x[j];
    return op.out;
}

/* ---- SwiGLU ---------------------------------------------------------------------------------- */

SB_CLONES static void swiglu_row(sb_real *y, const sb_real *g, const sb_real *u, size_t n)
{
    for (size_t j = 0; j < n; j++)
        y[j] = g[j] / (1 + sb_real_exp(-g[j])) * u[j];
}

SB_CLONES static void swiglu_row_back(const sb_real *g, const sb_real *u, const sb_real *dy,
                                      sb_real *dg, sb_real *du, size_t n)
{
    for (size_t j = 0; j < n; j++) {
        sb_real s = 1 / (1 + sb_real_exp(-g[j])), silu = g[j] * s;
        dg[j] = dy[j] * u[j] * (s + silu * (1 - s));
        du[j] = dy[j] * silu;
    }
}

static void swiglu_backward(struct sb_tape *tape, const struct sb_op *op)
{
    struct sb_var *gate = op->in[0], *up = op->in[1];
    size_t n = gate->cols, m = gate->rows;
    /* The usual case writes in place; a shared or constant input goes through scratch. */
    bool direct =
        wants_grad(gate) && wants_grad(up) && !gate->has_grad && !up->has_grad && gate != up;
    sb_real *dg = direct ? gate->dx : sb_tape_alloc(tape, m * n, sizeof *dg);
    sb_real *du = direct ? up->dx : sb_tape_alloc(tape, m * n, sizeof *du);
    if (!dg || !du)
        return;
#pragma omp parallel for schedule(static)
    for (size_t r = 0; r < m; r++)
        swiglu_row_back(gate->x + r * n, up->x + r * n, op->out->dx + r * n, dg + r * n, du + r * n,
                        n);
    struct sb_var *to[2] = { gate, up };
    const sb_real *from[2] = { dg, du };
    for (size_t i = 0; i < 2; i++) {
        if (!wants_grad(to[i]))
            continue;
        sb_real keep = claim_grad(to[i]);
        for (size_t j = 0; !direct && j < m * n; j++)
            to[i]->dx[j] = keep != 0 ? to[i]->dx[j] + from[i][j] : from[i][j];
    }
}

struct sb_var *sb_tape_swiglu(struct sb_tape *tape, struct sb_var *gate, struct sb_var *up)
{
    if (!gate || !up)
        return NULL;
    assert(gate->rows == up->rows && gate->cols == up->cols);
    size_t n = gate->cols;
    struct sb_op op = { .backward = swiglu_backward, .in = { gate, up } };
    op.out = sb_tape_output(tape, &op, gate->rows, n);
    if (!op.out || !sb_tape_record(tape, &op))
        return NULL;
#pragma omp parallel for schedule(static)
    for (size_t r = 0; r < gate->rows; r++)
        swiglu_row(op.out->x + r * n, gate->x + r * n, up->x + r * n, n);
    return op.out;
}

/* ---- rotation -------------------------------------------------------------------------------- */

enum sb_status sb_angles_init(struct sb_angles *angles, size_t n_positions, size_t head_dim,
                              double base, struct sb_error *err)
{
    size_t half = head_dim / 2;
    sb_real *cosines = sb_alloc_array(n_positions * half, sizeof *cosines);
    sb_real *sines = sb_alloc_array(n_positions * half, sizeof *sines);
    if (!cosines || !sines) {
        sb_free(cosines);
        sb_free(sines);
        return sb_fail(err, SB_ENOMEM, "rotary angles of %zu positions: out of memory",
                       n_positions);
    }
    for (size_t p = 0; p < n_positions; p++)
        for (size_t i = 0; i < half; i++) {
            double angle = (double)p * pow(base, -2.0 * (double)i / (double)head_dim);
            cosines[p * half + i] = (sb_real)cos(angle);
            sines[p * half + i] = (sb_real)sin(angle);
        }
    *angles = (struct sb_angles){ cosines, sines, n_positions, head_dim };
    return SB_OK;
}

void sb_angles_finish(struct sb_angles *angles)
{
    sb_free(angles->cos);
    sb_free(angles->sin);
    *angles = (struct sb_angles){ 0 };
}

struct rope_record {
    const struct sb_angles *angles;
    const int32_t *pos;
};

/* Rotate every head of row r by its angle times `turn` (1 forth, -1 back). */
static void rotate(sb_real *y, const sb_real *x, size_t m, size_t cols,
                   const struct rope_record *rope, sb_real turn, sb_real keep)
{
    size_t d = rope->angles->head_dim, half = d / 2;
#pragma omp parallel for schedule(static)
    for (size_t r = 0; r < m; r++) {
        const sb_real *c = rope->angles->cos + (size_t)rope->pos[r] * half;
        const sb_real *s = rope->angles->sin + (size_t)rope->pos[r] * half;
        for (size_t h = r * cols; h < (r + 1) * cols; h += d)
            for (size_t i = 0; i < half; i++) {
                sb_real a = x[h + i], b = x[h + i + half], sine = s[i] * turn;
                sb_real ya = a * c[i] - b * sine, yb = a * sine + b * c[i];
                y[h + i] = keep != 0 ? y[h + i] + ya : ya;
                y[h + i + half] = keep != 0 ? y[h + i + half] + yb : yb;
            }
    }
}

static void rope_backward(struct sb_tape *tape, const struct sb_op *op)
{
    (void)tape;
    struct sb_var *x = op->in[0];
    sb_real keep = claim_grad(x);
    rotate(x->dx, op->out->dx, x->rows, x->cols, op->extra, -1, keep);
}

struct sb_var *sb_tape_rope(struct sb_tape *tape, struct sb_var *x, const struct sb_angles *angles,
                            const int32_t *pos)
{
    if (!x)
        return NULL;
    assert(x->cols % angles->head_dim == 0);
    struct rope_record *rope = sb_tape_alloc(tape, 1, sizeof *rope);
    struct sb_op op = { .backward = rope_backward, .in = { x }, .extra = rope };
    op.out = sb_tape_output(tape, &op, x->rows, x->cols);
    if (!op.out || !sb_tape_record(tape, &op))
        return NULL;
    *rope = (struct rope_record){ angles, pos };
    rotate(op.out->x, x->x, x->rows, x->cols, rope, 1, 0);
    return op.out;
}
