/* Products with a model's matrices, by the arithmetic of the sequence. */
#include <cblas.h>

#include "harness/model/internal.h"

/* Rows of weights that OpenBLAS is given at a time. */
enum { BLAS_ROWS = SB_BLAS_ROWS, BLAS_LEAST = 32 };

size_t sb_matrix_outputs(const struct sb_matrix *w)
{
    size_t n = 0;
    for (size_t i = 0; i < w->n_sources; i++)
        n += w->source[i]->n;
    return n;
}

size_t sb_matrix_inputs(const struct sb_matrix *w)
{
    return w->part[0].k;
}

size_t sb_matrix_spare(const struct sb_team *team, const struct sb_matrix *w, size_t m)
{
    size_t bytes = 0;
    for (size_t i = 0; i < w->n_parts; i++)
        bytes += sb_matmul_spare(team, &w->part[i], m);
    return bytes;
}

/* A block of weight rows as floats: where they lie, or converted into the sequence's scratch. */
static const float *float_rows(const struct sb_seq *seq, const struct sb_tensor *t, size_t first,
                               size_t n)
{
    size_t row_bytes = sb_dtype_row_bytes(t->type, t->k);
    const unsigned char *src = (const unsigned char *)t->data + first * row_bytes;
    if (t->type == SB_F32)
        return (const float *)src;
#pragma omp parallel for schedule(static)
    for (size_t i = 0; i < n; i++)
        sb_dequantize_row(seq->blas_block + i * t->k, t->type, src + i * row_bytes, t->k);
    return seq->blas_block;
}

/* One source's columns of y; OpenBLAS brings its own threads. */
static void blas_product(const struct sb_seq *seq, float *y, size_t ldy, const struct sb_tensor *t,
                         const float *x, size_t ldx, size_t m, bool add)
{
    for (size_t first = 0; first < t->n; first += BLAS_ROWS) {
        size_t n = t->n - first < BLAS_ROWS ? t->n - first : BLAS_ROWS;
        const float *w = float_rows(seq, t, first, n);
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (blasint)m, (blasint)n, (blasint)t->k,
                    1, x, (blasint)ldx, w, (blasint)t->k, add ? 1 : 0, y + first, (blasint)ldy);
    }
}

static void blas_matrix(const struct sb_seq *seq, float *y, size_t ldy, const struct sb_matrix *w,
                        const float *x, size_t ldx, size_t m, bool add)
{
    size_t from = 0;
    for (size_t i = 0; i < w->n_sources; from += w->source[i++]->n)
        blas_product(seq, y + from, ldy, w->source[i], x, ldx, m, add);
    for (size_t r = 0; r < m && w->bias; r++)
        sb_add(y + r * ldy, w->bias, from);
}

bool sb_pass_uses_blas(const struct sb_seq *seq, size_t m)
{
    return seq->blas_block && seq->prefilling && m >= BLAS_LEAST;
}

/* Norms of rows, for products that cannot make them on the way. */
static struct sb_operand read_norms(const struct sb_team *team, struct sb_seq *seq,
                                    const struct sb_norm *norm, struct sb_operand input, size_t k,
                                    size_t m)
{
    if (!input.norm)
        return input;
    sb_rmsnorm(team, norm->room, seq->ld_normed, input.x, input.ld, norm->weight, k, m, norm->eps);
    return (struct sb_operand){ norm->room, seq->ld_normed, NULL };
}

/* One part after the other, each with its columns of y. */
static void packed_product(const struct sb_team *team, struct sb_seq *seq, float *y, size_t ldy,
                           const struct sb_matrix *w, struct sb_operand input,
                           const struct sb_norm *norm, size_t m, bool add)
{
    const size_t k = sb_matrix_inputs(w), ldp = sb_row_stride(k / 2 + k % 2);
    bool rounded = false;
    for (size_t i = 0, from = 0; i < w->n_parts; from += w->part[i++].n) {
        const struct sb_packed *part = &w->part[i];
        const float *bias = w->bias ? w->bias + from : NULL;
        if (!seq->pairs || part->type != SB_BF16) {
            const struct sb_matmul_options options = { input.norm ? norm : NULL, bias, add,
                                                       &seq->soon };
            sb_matmul(team, y + from, ldy, part, input.x, input.ld, m, &options);
            continue;
        }
        if (!rounded)
            sb_round_pairs(team, seq->pairs, ldp, input.x, input.ld, k, m);
        rounded = true;
        sb_matmul_fast(team, y + from, ldy, part, seq->pairs, ldp, m, bias, add);
    }
}

void sb_matrix_product(const struct sb_team *team, struct sb_seq *seq, float *y, size_t ldy,
                       const struct sb_matrix *w, struct sb_operand input, size_t m, bool add)
{
    const size_t k = sb_matrix_inputs(w);
    const bool blas = sb_pass_uses_blas(seq, m);
    const struct sb_norm norm = { input.norm, sb_model_config(seq->model)->norm_eps, seq->normed,
                                  seq->n_normed };
    if (blas || seq->pairs || w->n_parts > 1)
        input = read_norms(team, seq, &norm, input, k, m);
    if (blas)
        blas_matrix(seq, y, ldy, w, input.x, input.ld, m, add);
    else
        packed_product(team, seq, y, ldy, w, input, &norm, m, add);
    const size_t n = w->source[0]->n;
    if (w->gates && (blas || !w->part[0].gated))
        sb_swiglu(team, y, ldy, y + n, ldy, n, m);
}
