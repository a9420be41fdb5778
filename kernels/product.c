/* Products with packed weights: panels are shared out over the team. */
#include "kernels/internal.h"

static size_t panel_count(size_t n)
{
    return n / SB_PANEL + (n % SB_PANEL != 0);
}

void sb_matmul(const struct sb_team *team, float *y, size_t ldy, const struct sb_packed *w,
               const float *x, size_t ldx, size_t m, const float *bias, bool add)
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
    struct sb_share share = sb_team_share(team, panel_count(w->n));
    if (m > 0 && share.first < share.last)
        kernels->product(&job, share.first, share.last);
}

enum { PICK_ROWS = 64 };

/* The columns of one panel named by rows[0..n-1], for up to PICK_ROWS rows of x. The whole panel is
 * multiplied: its weights share cache lines, so reading some of them costs as much. */
static void pick_columns(const struct sb_kernel_table *kernels, float *y, size_t ldy,
                         const struct sb_packed *w, const int32_t *rows, size_t n, const float *x,
                         size_t ldx, size_t m)
{
    _Alignas(64) float all[PICK_ROWS * SB_PANEL];
    size_t stride = sb_panel_bytes(w->type, w->k);
    const struct sb_product job = {
        .type = w->type,
        .w = (const unsigned char *)w->data + (size_t)rows[0] / SB_PANEL * stride,
        .panel_stride = stride,
        .n = SB_PANEL,
        .k = w->k,
        .m = m,
        .x = x,
        .ldx = ldx,
        .y = all,
        .ldy = SB_PANEL,
    };
    kernels->product(&job, 0, 1);
    for (size_t r = 0; r < m; r++)
        for (size_t i = 0; i < n; i++)
            y[r * ldy + i] = all[r * SB_PANEL + (size_t)rows[i] % SB_PANEL];
}

void sb_matmul_rows(const struct sb_team *team, float *y, size_t ldy, const struct sb_packed *w,
                    const int32_t *rows, size_t n_rows, const float *x, size_t ldx, size_t m)
{
    const struct sb_kernel_table *kernels = sb_kernels();
    struct sb_share share = sb_team_share(team, n_rows);
    for (size_t i = share.first, n; i < share.last; i += n) { /* a run of rows in one panel */
        n = 1;
        while (i + n < share.last && rows[i + n] / SB_PANEL == rows[i] / SB_PANEL)
            n++;
        for (size_t r = 0; r < m; r += PICK_ROWS)
            pick_columns(kernels, y + r * ldy + i, ldy, w, rows + i, n, x + r * ldx, ldx,
                         m - r < PICK_ROWS ? m - r : PICK_ROWS);
    }
}
