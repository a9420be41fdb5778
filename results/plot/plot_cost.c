/* MAT against speedup. A ray is what an arm would reach that drafted for free and verified M rows in
 * every step: speedup = MAT / c(M), with c(M) as measured on the host; what lies below its ray is the
 * cost of drafting. c = 1, the ray of free verification, is the limit of all. */
#include <math.h>
#include <string.h>

#include "harness/core/alloc.h"
#include "results/plot/internal.h"

enum { ARM, MAT, SPEEDUP, LOW, HIGH, COLUMNS };
static const char *const names[] = { "arm", "mat", "speedup", "speedup_lo", "speedup_hi", NULL };

enum { TOP = 24, BOTTOM = 48, LEFT = 56, HEIGHT_PX = 380, POINTS_MAX = 64, RAYS_MAX = 7 };

/* The curve of the context with the most points (the shortest of those), its powers of two; no row that the
 * file has more than one answer for. */
static const char curve_sql[] =
    "SELECT \"rows\", c FROM cost_curve k JOIN experiment e ON e.id = ?1"
    " AND k.host_id = e.host_id AND k.model_id = e.target_model_id"
    " AND k.arithmetic = e.arithmetic"
    " WHERE \"rows\" > 1 AND (\"rows\" & (\"rows\" - 1)) = 0 AND c > 0 AND context ="
    " (SELECT context FROM cost_curve i WHERE i.host_id = k.host_id AND i.model_id = k.model_id"
    "  AND i.arithmetic = k.arithmetic"
    "  GROUP BY context ORDER BY count(*) DESC, context LIMIT 1)"
    " GROUP BY \"rows\" HAVING count(*) = 1 ORDER BY \"rows\"";

struct point {
    size_t row;
    int arm;
    double mat, speedup, low, high;
};
struct scatter {
    const struct sb_table *rows;
    int column[COLUMNS];
    struct point point[POINTS_MAX];
    size_t n, drafting;
    double x_max, y_max;
};

static enum sb_status scatter_make(struct scatter *s, struct sb_source *source,
                                   const struct sb_table *rows, struct sb_error *err)
{
    const struct sb_arm_name *arms;
    *s = (struct scatter){ .rows = rows, .x_max = 1, .y_max = 1 };
    sb_source_arms(source, &arms);
    enum sb_status rc = sb_plot_columns(s->column, rows, names, err);
    for (size_t r = 0; rc == SB_OK && r < sb_table_rows(rows) && s->n < POINTS_MAX; r++) {
        struct point p = { .row = r,
                           .arm = sb_source_arm(source,
                                                sb_table_cell(rows, r, (size_t)s->column[ARM])),
                           .mat = sb_table_value(rows, r, (size_t)s->column[MAT]),
                           .speedup = sb_table_value(rows, r, (size_t)s->column[SPEEDUP]),
                           .low = sb_table_value(rows, r, (size_t)s->column[LOW]),
                           .high = sb_table_value(rows, r, (size_t)s->column[HIGH]) };
        if (!isfinite(p.mat) || !isfinite(p.speedup) || p.arm < 0)
            continue;
        s->drafting += !arms[p.arm].is_baseline;
        s->x_max = fmax(s->x_max, p.mat);
        s->y_max = fmax(s->y_max, isfinite(p.high) ? fmin(p.high, 1.6 * p.speedup) : p.speedup);
        s->point[s->n++] = p;
    }
    s->x_max = fmax(s->x_max * 1.06, 1.5);
    s->y_max = fmax(s->y_max * 1.1, 1.5);
    return rc;
}

static enum sb_status measure(struct sb_figure *f, struct sb_source *source,
                              const struct sb_table *rows, struct sb_error *err)
{
    struct scatter s;
    enum sb_status rc = scatter_make(&s, source, rows, err);
    if (rc == SB_OK && s.drafting > 0)
        f->height = f->narrow ? HEIGHT_PX - 40 : HEIGHT_PX;
    return rc;
}

/* ---- rays ---- */

struct ray {
    double rows, c;
};

/* A ray leaves the frame at the top or at the right, and its name stands there. Rays are steeper the
 * fewer rows they stand for, so those that leave at the top come first. */
static void draw_rays(const struct sb_figure *f, const struct scatter *s, const struct sb_panel *p,
                      const struct ray *ray, size_t n)
{
    double at[RAYS_MAX + 1], x_px = (p->right - p->left) / (p->x_max - p->x_min);
    size_t tops = 0;
    while (tops < n && s->x_max / ray[tops].c > s->y_max)
        tops++;
    for (size_t i = 0; i < n; i++) {
        double x = i < tops ? s->y_max * ray[i].c : s->x_max;
        sb_figure_line(f, (struct sb_place){ 'x', 'x', p->x_min, p->x_min / ray[i].c },
                       (struct sb_place){ 'x', 'x', x, x / ray[i].c }, SB_COLOUR_GRID, 1.4, false);
        at[i] = i < tops ? p->left + (x - p->x_min) * x_px
                         : p->bottom - x / ray[i].c / s->y_max * (p->bottom - p->top);
    }
    sb_spread(at, tops, sb_text_px("M = 16") + 8, p->left, p->right);
    sb_spread(at + tops, n - tops, SB_FONT_PX + 3, p->top + 4, p->bottom);
    for (size_t i = 0; i < n; i++) {
        char text[16];
        snprintf(text, sizeof text, ray[i].rows > 1 ? "M = %.0f" : "c = %.0f", ray[i].rows);
        if (i < tops)
            sb_figure_text(f, SB_AT(at[i], p->top - 10), SB_CENTRE, SB_COLOUR_MUTED, text);
        else
            sb_figure_text(f, SB_AT(p->right + 8, at[i]), SB_LEFT, SB_COLOUR_MUTED, text);
    }
}

static enum sb_status rays(const struct sb_figure *f, const struct scatter *s,
                           const struct sb_panel *p, struct sb_source *source, struct sb_error *err)
{
    struct ray ray[RAYS_MAX + 1] = { { 1, 1 } };
    struct sb_table *curve = NULL;
    size_t n = 1;
    enum sb_status rc = sb_source_query(&curve, source, curve_sql, err);
    if (rc != SB_OK)
        return rc;
    for (size_t r = 0; r < sb_table_rows(curve) && n <= RAYS_MAX; r++)
        ray[n++] = (struct ray){ sb_table_value(curve, r, 0), sb_table_value(curve, r, 1) };
    draw_rays(f, s, p, ray, n);
    sb_table_destroy(curve);
    return SB_OK;
}

/* ---- points and their names ---- */

struct rect {
    double left, right, top, bottom;
};

static bool overlaps(const struct rect *a, const struct rect *b)
{
    return a->left < b->right && b->left < a->right && a->top < b->bottom && b->top < a->bottom;
}

/* The first of eight places around a point where a name of this width is inside the panel and on nothing
 * that is there already; the last one if none is free. */
static struct rect free_place(double x, double y, double px, const struct sb_panel *p,
                              const struct rect *taken, size_t n)
{
    static const struct {
        double dx, dy; /* in widths and lines */
    } around[] = { { 0, 0 },   { -1, 0 }, { 0, -1 },     { 0, 1 },
                   { -1, -1 }, { -1, 1 }, { -.5, -1.4 }, { -.5, 1.4 } };
    struct rect place = { 0 };
    for (size_t k = 0; k < sizeof around / sizeof *around; k++) {
        double left = x + around[k].dx * px +
                      (around[k].dx == 0    ? 10
                       : around[k].dx == -1 ? -10
                                            : 0);
        double middle = y + around[k].dy * (SB_FONT_PX + 1);
        bool good = left >= p->left && left + px <= p->right + 50 && middle < p->bottom - 6;
        place = (struct rect){ left, left + px, middle - 6, middle + 6 };
        for (size_t i = 0; i < n && good; i++)
            good = !overlaps(&place, &taken[i]);
        if (good)
            break;
    }
    return place;
}

static enum sb_status draw_points(const struct sb_figure *f, const struct scatter *s,
                                  const struct sb_panel *p, struct sb_error *err)
{
    struct rect taken[2 * POINTS_MAX];
    double x[POINTS_MAX], y[POINTS_MAX];
    for (size_t i = 0; i < s->n; i++) {
        const struct point *o = &s->point[i];
        x[i] = p->left + (o->mat - p->x_min) / (p->x_max - p->x_min) * (p->right - p->left);
        y[i] = p->bottom - o->speedup / p->y_max * (p->bottom - p->top);
        taken[i] = (struct rect){ x[i] - 6, x[i] + 6, y[i] - 6, y[i] + 6 };
    }
    for (size_t i = 0; i < s->n; i++) {
        const struct point *o = &s->point[i];
        enum sb_colour colour = o->arm == 0 ? SB_COLOUR_INK : sb_colour_of(o->arm - 1);
        char *name =
            sb_text_fit(sb_table_cell(s->rows, o->row, (size_t)s->column[ARM]), f->width * .3);
        if (!name)
            return sb_fail(err, SB_ENOMEM, "out of memory for a plot");
        double px = sb_text_px(name);
        struct rect place = free_place(x[i], y[i], px, p, taken, s->n + i);
        taken[s->n + i] = place;
        if (isfinite(o->low) && isfinite(o->high))
            sb_figure_line(f, (struct sb_place){ 'x', 'x', o->mat, fmax(o->low, 0) },
                           (struct sb_place){ 'x', 'x', o->mat, fmin(o->high, p->y_max) }, colour,
                           2, false);
        sb_figure_point(f, (struct sb_place){ 'x', 'x', o->mat, o->speedup }, colour,
                        sb_point_of(o->arm - 1));
        sb_figure_text(f, SB_AT(place.left, (place.top + place.bottom) / 2), SB_LEFT, SB_COLOUR_INK,
                       name);
        sb_free(name);
    }
    return SB_OK;
}

static enum sb_status draw(const struct sb_figure *f, struct sb_source *source,
                           const struct sb_table *rows, struct sb_error *err)
{
    struct scatter s;
    enum sb_status rc = scatter_make(&s, source, rows, err);
    if (rc != SB_OK)
        return rc;
    struct sb_panel p = { LEFT, f->width - (60), TOP, f->height - BOTTOM, 1, s.x_max, 0, s.y_max };
    p.x_min = .9; /* MAT begins at 1 */
    sb_figure_panel(f, &p);
    rc = rays(f, &s, &p, source, err);
    if (rc == SB_OK)
        rc = draw_points(f, &s, &p, err);
    fprintf(
        f->out,
        "set xtics 1,%.9g format '%%g'\nset ytics %.9g format '%%g'\nset grid noxtics noytics\n",
        sb_plot_step(s.x_max - 1, f->narrow ? 5 : 9), sb_plot_step(s.y_max, 6));
    fprintf(f->out, "set border 3 lw 1");
    sb_figure_colour(f, SB_COLOUR_MUTED);
    fputc('\n', f->out);
    sb_figure_text(f, SB_AT((p.left + p.right) / 2, f->height - 10), SB_CENTRE, SB_COLOUR_MUTED,
                   "MAT (tokens per step)");
    fputs("set label 'speedup (\xc3\x97 baseline)' rotate by 90 at", f->out);
    fprintf(f->out, " screen %.9g,%.9g center front textcolor rgb '#%02x%02x%02x'\n", 12 / f->width,
            1 - (p.top + p.bottom) / 2 / f->height, sb_colours[SB_COLOUR_MUTED].light[0],
            sb_colours[SB_COLOUR_MUTED].light[1], sb_colours[SB_COLOUR_MUTED].light[2]);
    sb_figure_show(f);
    return rc;
}

const struct sb_plot_ops sb_plot_cost = { measure, draw };
