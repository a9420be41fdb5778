/* Products with packed weights: panels are shared out over threads. */
#include <omp.h>
#include <string.h>

#include "kernels/internal.h"

static size_t panel_count(size_t n)
{
    return n / SB_PANEL + (n % SB_PANEL != 0);
}

void sb_matmul(float *y, size_t ldy, const struct sb_packed *w, const float *x, size_t ldx,
               size_t m, const float *bias, bool add)
{
    const struct sb_kernel_table *kernels = sb_kernels();
    const struct sb_product job = {
        .type = w->type,
        .w = w->data,
        .panel_stride = sb_panel_bytes(w->type, w->k),
        .n = w->n,
        .k = w->k,
        .m = m,
        .x = x,
        .ldx = ldx,
        .y = y,
        .ldy = ldy,
        .bias = bias,
        .add = add,
    };
    size_t panels = panel_count(w->n);
    if (m == 0 || panels == 0)
        return;
#pragma omp parallel if (sb_worth_threads(m * w->n * w->k))
    {
        size_t t = (size_t)omp_get_thread_num(), n_threads = (size_t)omp_get_num_threads();
        size_t first = panels * t / n_threads, last = panels * (t + 1) / n_threads;
        if (first < last)
            kernels->product(&job, first, last);
    }
}

enum { GATHER_K = 256, GATHER_M = 64 };

/* Up to SB_PANEL listed rows against up to GATHER_M rows of x: their weights are gathered into a
 * panel of floats, block by block. */
static void product_gathered(float *y, size_t ldy, const struct sb_packed *w, const int32_t *rows,
                             size_t n, const float *x, size_t ldx, size_t m)
{
    _Alignas(64) float room[GATHER_K * SB_PANEL], acc[GATHER_M * SB_PANEL];
    size_t panel_bytes = sb_panel_bytes(w->type, w->k);
    memset(room, 0, sizeof room);
    memset(acc, 0, sizeof acc);
    for (size_t k0 = 0; k0 < w->k; k0 += GATHER_K) {
        size_t k = w->k - k0 < GATHER_K ? w->k - k0 : GATHER_K;
        for (size_t j = 0; j < n; j++)
            sb_panel_row(room + j, SB_PANEL, w->type,
                         (const unsigned char *)w->data + (size_t)rows[j] / SB_PANEL * panel_bytes,
                         (size_t)rows[j] % SB_PANEL, k0, k);
        sb_kernels()->chain_panel(acc, room, x + k0, ldx, m, k);
    }
    for (size_t r = 0; r < m; r++)
        memcpy(y + r * ldy, acc + r * SB_PANEL, n * sizeof *y);
}

void sb_matmul_rows(float *y, size_t ldy, const struct sb_packed *w, const int32_t *rows,
                    size_t n_rows, const float *x, size_t ldx, size_t m)
{
    size_t groups = panel_count(n_rows);
#pragma omp parallel for schedule(static) if (sb_worth_threads(m * n_rows * w->k))
    for (size_t g = 0; g < groups; g++) {
        size_t col = g * SB_PANEL, n = n_rows - col < SB_PANEL ? n_rows - col : SB_PANEL;
        for (size_t row = 0; row < m; row += GATHER_M)
            product_gathered(y + row * ldy + col, ldy, w, rows + col, n, x + row * ldx, ldx,
                             m - row < GATHER_M ? m - row : GATHER_M);
    }
}
