/* Template: weighted sums of value rows. Include after a v16_<isa>.h.
 *
 * Lanes run over the head's dimensions, each a chain over the visible sequence. A few rows share a
 * pass over the values. */

enum { VALUE_ROWS = 4, VALUES_AHEAD = 16 };

static inline __attribute__((always_inline)) void values_tile(const struct sb_values *job, int rows,
                                                              size_t row, size_t col, int vectors,
                                                              size_t width)
{
    v16 acc[VALUE_ROWS][2];
    const float *p = job->p + row * job->ldp;
    float *out = job->acc + row * job->lda + col;
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 2
        for (int c = 0; c < vectors; c++)
            acc[r][c] = v_load_n(out + (size_t)r * job->lda + (size_t)c * 16, width);
    for (size_t i = 0; i < job->n; i++) {
        const float *v = job->v + i * job->ldv + col;
        __builtin_prefetch(v + VALUES_AHEAD * job->ldv);
#pragma GCC unroll 2
        for (int c = 0; c < vectors; c++) {
            v16 vi = v_load_n(v + c * 16, width);
#pragma GCC unroll 4
            for (int r = 0; r < rows; r++)
                acc[r][c] = v_fma(v_set1(p[(size_t)r * job->ldp + i]), vi, acc[r][c]);
        }
    }
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 2
        for (int c = 0; c < vectors; c++)
            v_store_n(out + (size_t)r * job->lda + (size_t)c * 16, acc[r][c], width);
}

static void values(const struct sb_values *job)
{
    size_t col = 0, row;
    for (; col + 32 <= job->d; col += 32) {
        for (row = 0; row + VALUE_ROWS <= job->rows; row += VALUE_ROWS)
            values_tile(job, VALUE_ROWS, row, col, 2, 16);
        for (; row < job->rows; row++)
            values_tile(job, 1, row, col, 2, 16);
    }
    for (; col < job->d; col += 16) {
        size_t width = job->d - col < 16 ? job->d - col : 16;
        for (row = 0; row < job->rows; row++)
            values_tile(job, 1, row, col, 1, width);
    }
}
