/* Products with packed weights: panels are parts of a team's loop. */
#include "kernels/internal.h"
#include "kernels/team.h"

size_t sb_row_stride(size_t n)
{
    const size_t line = 16;
    return ((n + line - 1) / line | 1) * line;
}

struct panel_loop {
    const struct sb_product *job;
    const struct sb_panels *next;
    const struct sb_soon *soon;
    size_t panels, members;
    size_t each;  /* bytes of `soon` for a panel */
    bool *normed; /* [members] which of them have norms of x */
    void (*product)(const struct sb_product *job, size_t first_panel, size_t last_panel);
};

/* A thread reads norms of its own: they cost less than what another one's take from core to core. */
static void read_norms(const struct panel_loop *loop, struct sb_product *job, size_t member)
{
    const struct sb_norm *norm = job->norm;
    const size_t ld = sb_row_stride(job->k);
    float *own = norm->room + member * job->m * ld;
    if (!loop->normed[member])
        sb_rmsnorm(NULL, own, ld, job->x, job->ldx, norm->weight, job->k, job->m, norm->eps);
    loop->normed[member] = true;
    job->x = own;
    job->ldx = ld;
}

static void run_panels(const void *arg, size_t first, size_t last, size_t member)
{
    const struct panel_loop *loop = arg;
    const struct sb_panels *next = loop->next;
    struct sb_product job = *loop->job;
    if (job.norm)
        read_norms(loop, &job, member);
    bool last_of_own = last == loop->panels * (member + 1) / loop->members;
    if (last_of_own && next->data)
        job.asks.then = next->data + next->n * member / loop->members * next->bytes;
    else if (last == loop->panels) /* nothing is known to lie behind */
        job.asks.then = job.w + first * job.panel_stride;
    if (loop->each > 0)
        job.asks.beside = sb_soon_part(loop->soon, loop->panels, loop->members, loop->each, first);
    loop->product(&job, first, last);
}

void sb_product_run(const struct sb_team *team, const struct sb_product *job,
                    const struct sb_panels *next, struct sb_soon *soon, size_t spare_bytes,
                    void (*product)(const struct sb_product *job, size_t first_panel,
                                    size_t last_panel))
{
    const size_t panels = sb_panels_for(job->n);
    const size_t bytes = soon && soon->kv ? sb_soon_take(soon, spare_bytes) : 0;
    bool normed[SB_TEAM_MOST] = { false };
    const struct panel_loop loop = {
        .job = job,
        .next = next,
        .soon = soon,
        .panels = panels,
        .members = team ? team->count : 1,
        .each = bytes > 0 ? bytes / panels : 0,
        .normed = normed,
        .product = product,
    };
    if (job->m > 0)
        sb_team_for(team, loop.panels, job->m * job->n * job->k * sb_halves(job->gated), run_panels,
                    &loop);
    if (bytes > 0)
        soon->asked += bytes;
}

/* Above so many rows, norms are made by all threads together. */
enum { MOST_OWN_ROWS = 64 };

void sb_matmul(const struct sb_team *team, float *y, size_t ldy, const struct sb_packed *w,
               const float *x, size_t ldx, size_t m, const struct sb_matmul_options *options)
{
    static const struct sb_matmul_options none;
    const struct sb_matmul_options *o = options ? options : &none;
    struct sb_product job = {
        .type = w->type,
        .w = w->data,
        .panel_stride = sb_packed_stride(w),
        .n = w->n,
        .k = w->k,
        .m = m,
        .x = x,
        .ldx = ldx,
        .norm = o->norm,
        .y = y,
        .ldy = ldy,
        .bias = o->bias,
        .add = o->add,
        .gated = w->gated,
    };
    const size_t members = team ? team->count : 1;
    if (job.norm && (m > MOST_OWN_ROWS || m * members > job.norm->n_room)) {
        job.norm = NULL;
        job.x = o->norm->room;
        job.ldx = sb_row_stride(w->k);
        sb_rmsnorm(team, o->norm->room, job.ldx, x, ldx, o->norm->weight, w->k, m, o->norm->eps);
    }
    sb_product_run(team, &job, &w->next, o->soon, sb_matmul_spare(team, w, m),
                   sb_kernels()->product);
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

struct row_loop {
    float *y;
    size_t ldy;
    const struct sb_packed *w;
    const int32_t *rows;
    const float *x;
    size_t ldx, m;
};

static void pick_rows(const void *arg, size_t first, size_t last, size_t member)
{
    const struct row_loop *l = arg;
    const struct sb_kernel_table *kernels = sb_kernels();
    const int32_t *rows = l->rows;
    for (size_t i = first, n; i < last; i += n) { /* a run of rows in one panel */
        n = 1;
        while (i + n < last && rows[i + n] / SB_PANEL == rows[i] / SB_PANEL)
            n++;
        for (size_t r = 0; r < l->m; r += PICK_ROWS)
            pick_columns(kernels, l->y + r * l->ldy + i, l->ldy, l->w, rows + i, n,
                         l->x + r * l->ldx, l->ldx, l->m - r < PICK_ROWS ? l->m - r : PICK_ROWS);
    }
}

void sb_matmul_rows(const struct sb_team *team, float *y, size_t ldy, const struct sb_packed *w,
                    const int32_t *rows, size_t n_rows, const float *x, size_t ldx, size_t m)
{
    const struct row_loop loop = { y, ldy, w, rows, x, ldx, m };
    sb_team_for(team, n_rows, m * n_rows * w->k, pick_rows, &loop);
}
