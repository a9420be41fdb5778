/* Plots made of rows of bars: draft tokens accepted per step, and acceptance by rank among siblings. */
#include <math.h>
#include <string.h>

#include "harness/core/alloc.h"
#include "results/plot/internal.h"

enum { TOP = 10, BOTTOM = 44, BARS_PX = 64, RIGHT = 14, PLACES_MAX = 128 };

/* Bars of one row: a name, a detail, and a share for every place from `first` on. */
struct bars {
    char name[160];
    char detail[32]; /* below the name; "": none */
    int arm;         /* its colour */
    const double *share;
    size_t n;
};

static double bars_height(size_t n_rows)
{
    return (double)(TOP + BOTTOM + n_rows * BARS_PX);
}

/* All rows share one scale that begins at zero; the figures on the bars stand for an axis. */
static void draw_row(const struct sb_figure *f, const struct bars *row, const struct sb_panel *p,
                     double base, double row_px, int first, double largest)
{
    double slot = (p->right - p->left) / (p->x_max - p->x_min), full = row_px - 26;
    sb_figure_line(f, (struct sb_place){ 'x', 'p', p->x_min, base },
                   (struct sb_place){ 'x', 'p', p->x_max, base }, SB_COLOUR_MUTED, .8, false);
    for (size_t i = 0; i < row->n; i++) {
        double share = row->share[i], x = first + (double)i, top = base - share / largest * full;
        char text[16];
        if (!(share > 0))
            continue;
        sb_figure_box(f, (struct sb_place){ 'x', 'p', x - .38, top },
                      (struct sb_place){ 'x', 'p', x + .38, base }, sb_colour_of(row->arm - 1));
        snprintf(text, sizeof text, share < .005 ? "<1" : "%.0f", 100 * share);
        if (slot > sb_text_px(text) + 2)
            sb_figure_text(f, (struct sb_place){ 'x', 'p', x, top - 9 }, SB_CENTRE, SB_COLOUR_MUTED,
                           text);
    }
}

static enum sb_status draw_bars(const struct sb_figure *f, const struct bars *rows, size_t n_rows,
                                int first, const char *axis, struct sb_error *err)
{
    double longest = 1, largest = 0, name_px = 0,
           row_px = (f->height - TOP - BOTTOM) / (double)n_rows;
    enum sb_status rc = SB_OK;
    for (size_t r = 0; r < n_rows; r++) {
        longest = fmax(longest, (double)rows[r].n);
        name_px = fmax(name_px, sb_text_px(rows[r].name) + 18);
        for (size_t i = 0; i < rows[r].n; i++)
            largest = fmax(largest, rows[r].share[i]);
    }
    double left = fmin(name_px, f->width * (f->narrow ? .34 : .28));
    struct sb_panel p = { left,       f->width - RIGHT,     TOP, f->height - BOTTOM,
                          first - .6, first + longest - .4, 0,   1 };
    sb_figure_panel(f, &p);
    for (size_t r = 0; r < n_rows && rc == SB_OK; r++) {
        double base = TOP + (double)(r + 1) * row_px;
        rc = sb_plot_row_name(f, left, base - (rows[r].detail[0] ? 22 : 10), rows[r].name, err);
        sb_figure_text(f, SB_AT(left - 10, base - 7), SB_RIGHT, SB_COLOUR_MUTED, rows[r].detail);
        draw_row(f, &rows[r], &p, base, row_px, first, largest);
    }
    fprintf(f->out, "unset ytics\nunset grid\nset xtics %d,%.9g format '%%g'\n", first,
            fmax(1, sb_plot_step(longest, f->narrow ? 9 : 18)));
    sb_figure_text(f, SB_AT((p.left + p.right) / 2, f->height - 10), SB_CENTRE, SB_COLOUR_MUTED,
                   axis);
    sb_figure_show(f);
    return rc;
}

/* ---- both plots: rows of the view, gathered by name ---- */

/* A row of bars is added to, place by place; what was tried and what was accepted are kept apart, so that
 * rows can be pooled. */
struct gathered {
    char name[160], detail[32];
    int arm;
    double part[PLACES_MAX], whole[PLACES_MAX], share[PLACES_MAX];
    size_t n;
};
struct gathering {
    struct gathered *row;
    size_t n, cap;
};

static enum sb_status gather(struct gathering *g, const char *name, const char *detail, int arm,
                             double place, double part, double whole, struct sb_error *err)
{
    if (!(place >= 0 && place < PLACES_MAX))
        return SB_OK;
    size_t i = 0, at = (size_t)place;
    while (i < g->n && !(g->row[i].arm == arm && strcmp(g->row[i].detail, detail) == 0))
        i++;
    if (i == g->n) {
        if (sb_grow((void **)&g->row, &g->cap, g->n + 1, sizeof *g->row) != 0)
            return sb_fail(err, SB_ENOMEM, "out of memory for a plot");
        g->row[g->n] = (struct gathered){ .arm = arm };
        snprintf(g->row[g->n].detail, sizeof g->row->detail, "%s", detail);
        snprintf(g->row[g->n++].name, sizeof g->row->name, "%s", name);
    }
    struct gathered *row = &g->row[i];
    row->part[at] += part;
    row->whole[at] += whole;
    row->n = at + 1 > row->n ? at + 1 : row->n;
    row->share[at] = row->whole[at] > 0 ? row->part[at] / row->whole[at] : 0;
    return SB_OK;
}

static enum sb_status draw_gathered(const struct sb_figure *f, const struct gathering *g, int first,
                                    const char *axis, struct sb_error *err)
{
    struct bars *bars = sb_alloc_zero(g->n, sizeof *bars);
    if (!bars)
        return sb_fail(err, SB_ENOMEM, "out of memory for a plot");
    for (size_t i = 0; i < g->n; i++) {
        bars[i] = (struct bars){ .arm = g->row[i].arm, .share = g->row[i].share, .n = g->row[i].n };
        memcpy(bars[i].name, g->row[i].name, sizeof bars[i].name);
        memcpy(bars[i].detail, g->row[i].detail, sizeof bars[i].detail);
    }
    enum sb_status rc = draw_bars(f, bars, g->n, first, axis, err);
    sb_free(bars);
    return rc;
}

typedef enum sb_status (*gather_rows)(struct gathering *g, struct sb_source *source,
                                      const struct sb_table *rows, struct sb_error *err);

static enum sb_status measure_gathered(struct sb_figure *f, gather_rows fill,
                                       struct sb_source *source, const struct sb_table *rows,
                                       struct sb_error *err)
{
    struct gathering g = { 0 };
    enum sb_status rc = fill(&g, source, rows, err);
    if (rc == SB_OK && g.n > 0)
        f->height = bars_height(g.n);
    sb_free(g.row);
    return rc;
}

static enum sb_status draw_view(const struct sb_figure *f, gather_rows fill, int first,
                                const char *axis, struct sb_source *source,
                                const struct sb_table *rows, struct sb_error *err)
{
    struct gathering g = { 0 };
    enum sb_status rc = fill(&g, source, rows, err);
    if (rc == SB_OK)
        rc = draw_gathered(f, &g, first, axis, err);
    sb_free(g.row);
    return rc;
}

/* ---- accepted per step ---- */

static enum sb_status histogram_rows(struct gathering *g, struct sb_source *source,
                                     const struct sb_table *rows, struct sb_error *err)
{
    enum { ARM, LENGTH, SHARE };
    static const char *const names[] = { "arm", "length", "accepted_share", NULL };
    int column[3];
    const struct sb_arm_name *arms;
    sb_source_arms(source, &arms);
    enum sb_status rc = sb_plot_columns(column, rows, names, err);
    for (size_t r = 0; rc == SB_OK && r < sb_table_rows(rows); r++) {
        const char *label = sb_table_cell(rows, r, (size_t)column[ARM]);
        int arm = sb_source_arm(source, label);
        double share = sb_table_value(rows, r, (size_t)column[SHARE]);
        if (arm >= 0 && !arms[arm].is_baseline && share > 0)
            rc = gather(g, label, "", arm, sb_table_value(rows, r, (size_t)column[LENGTH]), share,
                        1, err);
    }
    return rc;
}

static enum sb_status histogram_measure(struct sb_figure *f, struct sb_source *source,
                                        const struct sb_table *rows, struct sb_error *err)
{
    return measure_gathered(f, histogram_rows, source, rows, err);
}

static enum sb_status histogram_draw(const struct sb_figure *f, struct sb_source *source,
                                     const struct sb_table *rows, struct sb_error *err)
{
    return draw_view(f, histogram_rows, 0,
                     f->narrow ? "draft tokens accepted (% of steps)"
                               : "draft tokens accepted in a step (bars: % of the arm's steps)",
                     source, rows, err);
}

const struct sb_plot_ops sb_plot_histogram = { histogram_measure, histogram_draw };

/* ---- ranks: only of arms that ever drafted a second child ---- */

static bool has_siblings(const struct sb_table *rows, const int *column, const char *label)
{
    for (size_t r = 0; r < sb_table_rows(rows); r++)
        if (sb_table_value(rows, r, (size_t)column[1]) > 0 &&
            strcmp(sb_table_cell(rows, r, (size_t)column[0]), label) == 0)
            return true;
    return false;
}

static enum sb_status rank_rows(struct gathering *g, struct sb_source *source,
                                const struct sb_table *rows, struct sb_error *err)
{
    enum { ARM, RANK, DEPTH, NODES, ACCEPTED };
    static const char *const names[] = { "arm", "rank", "depth", "nodes", "accepted", NULL };
    enum { DEPTHS_SHOWN = 3 };
    int column[5];
    enum sb_status rc = sb_plot_columns(column, rows, names, err);
    for (size_t r = 0; rc == SB_OK && r < sb_table_rows(rows); r++) {
        const char *label = sb_table_cell(rows, r, (size_t)column[ARM]);
        double depth = sb_table_value(rows, r, (size_t)column[DEPTH]);
        char detail[32];
        if (!has_siblings(rows, column, label))
            continue;
        snprintf(detail, sizeof detail, depth > DEPTHS_SHOWN ? "deeper" : "depth %.0f", depth);
        rc = gather(g, label, detail, sb_source_arm(source, label),
                    sb_table_value(rows, r, (size_t)column[RANK]),
                    sb_table_value(rows, r, (size_t)column[ACCEPTED]),
                    sb_table_value(rows, r, (size_t)column[NODES]), err);
    }
    return rc;
}

static enum sb_status ranks_measure(struct sb_figure *f, struct sb_source *source,
                                    const struct sb_table *rows, struct sb_error *err)
{
    return measure_gathered(f, rank_rows, source, rows, err);
}

static enum sb_status ranks_draw(const struct sb_figure *f, struct sb_source *source,
                                 const struct sb_table *rows, struct sb_error *err)
{
    return draw_view(f, rank_rows, 0,
                     f->narrow ? "rank (% accepted, if the parent was)"
                               : "rank among the siblings (bars: % accepted, if the parent was)",
                     source, rows, err);
}

const struct sb_plot_ops sb_plot_ranks = { ranks_measure, ranks_draw };
