/* Acceptance by position in the draft: the conditional rate, and the survival that it multiplies up to. */
#include <math.h>
#include <string.h>

#include "harness/core/alloc.h"
#include "results/plot/internal.h"

enum { ARM, POSITION, EXPOSURE, CONDITIONAL, SURVIVAL, COLUMNS };
static const char *const names[] = {
    "arm", "position", "exposure", "conditional", "survival", NULL
};

enum {
    PANEL_PX = 250,
    TOP = 34,
    BOTTOM = 46,
    LEFT = 50,
    LINES_MAX = 48,
    FEW = 30 /* below as many trials a rate is drawn hollow */
};

/* The rows of one arm stand together: [first, first + n). */
struct line {
    size_t first, n;
    int arm;
};
struct lines {
    const struct sb_table *rows;
    int column[COLUMNS];
    struct line line[LINES_MAX];
    size_t n;
    double longest; /* the last position of all */
};

static enum sb_status lines_make(struct lines *l, struct sb_source *source,
                                 const struct sb_table *rows, struct sb_error *err)
{
    *l = (struct lines){ .rows = rows };
    enum sb_status rc = sb_plot_columns(l->column, rows, names, err);
    for (size_t r = 0; rc == SB_OK && r < sb_table_rows(rows); r++) {
        const char *label = sb_table_cell(rows, r, (size_t)l->column[ARM]);
        struct line *last = l->n ? &l->line[l->n - 1] : NULL;
        l->longest = fmax(l->longest, sb_table_value(rows, r, (size_t)l->column[POSITION]));
        if (last && strcmp(sb_table_cell(rows, last->first, (size_t)l->column[ARM]), label) == 0)
            last->n++;
        else if (l->n < LINES_MAX)
            l->line[l->n++] = (struct line){ r, 1, sb_source_arm(source, label) };
    }
    return rc;
}

static enum sb_status measure(struct sb_figure *f, struct sb_source *source,
                              const struct sb_table *rows, struct sb_error *err)
{
    struct lines l;
    enum sb_status rc = lines_make(&l, source, rows, err);
    double needed = (double)l.n * (SB_FONT_PX + 3) + 20;
    double panel = fmax(PANEL_PX, needed);
    if (rc == SB_OK && l.n > 0)
        f->height = f->narrow ? 2 * (TOP + panel) + BOTTOM + 30 : TOP + panel + BOTTOM;
    return rc;
}

/* The points of a line, then a command that draws them: joined, and hollow where trials were few. */
static void plot_lines(const struct sb_figure *f, const struct lines *l, int column)
{
    for (size_t i = 0; i < l->n; i++) {
        fprintf(f->out, "$line%zu << SPECBENCH_END\n", i);
        for (size_t r = l->line[i].first; r < l->line[i].first + l->line[i].n; r++)
            fprintf(f->out, "%.9g\t%.9g\t%d\n",
                    sb_table_value(l->rows, r, (size_t)l->column[POSITION]),
                    sb_table_value(l->rows, r, (size_t)column),
                    sb_table_value(l->rows, r, (size_t)l->column[EXPOSURE]) < FEW);
        fputs("SPECBENCH_END\n", f->out);
    }
    fputs("plot ", f->out);
    for (size_t i = 0; i < l->n; i++) {
        enum sb_colour colour = sb_colour_of(l->line[i].arm - 1);
        int point = sb_point_of(l->line[i].arm - 1);
        fprintf(f->out, "%s$line%zu using 1:2 with lines lw 1.8 dt %s", i ? ", " : "", i,
                sb_dash_of(l->line[i].arm - 1));
        sb_figure_colour(f, colour);
        fprintf(f->out, " notitle, $line%zu using 1:($3 == 0 ? $2 : NaN) with points pt %d ps %.6g",
                i, point, .6 * f->scale);
        sb_figure_colour(f, colour);
        fprintf(f->out, " notitle, $line%zu using 1:($3 == 1 ? $2 : NaN) with points pt %d ps %.6g",
                i, point - 1, .6 * f->scale);
        sb_figure_colour(f, colour);
        fputs(" notitle", f->out);
    }
    fputc('\n', f->out);
}

/* Names in the right margin, each tied to the end of its line. */
static enum sb_status name_lines(const struct sb_figure *f, const struct lines *l, int column,
                                 const struct sb_panel *p, struct sb_error *err)
{
    double y[LINES_MAX], end[LINES_MAX], height = p->bottom - p->top;
    for (size_t i = 0; i < l->n; i++) {
        size_t last = l->line[i].first + l->line[i].n - 1;
        end[i] = sb_table_value(l->rows, last, (size_t)column);
        y[i] = p->bottom - end[i] * height;
    }
    sb_spread(y, l->n, SB_FONT_PX + 3, p->top, p->bottom);
    for (size_t i = 0; i < l->n; i++) {
        size_t last = l->line[i].first + l->line[i].n - 1;
        char *name = sb_text_fit(sb_table_cell(l->rows, last, (size_t)l->column[ARM]),
                                 f->width - (f->narrow ? 0 : 6) -
                                     (p->right < f->width / 2 ? f->width / 2 : 0) - p->right - 22);
        if (!name)
            return sb_fail(err, SB_ENOMEM, "out of memory for a plot");
        enum sb_colour colour = sb_colour_of(l->line[i].arm - 1);
        double x = sb_table_value(l->rows, last, (size_t)l->column[POSITION]);
        sb_figure_line(f, (struct sb_place){ 'x', 'x', x, end[i] }, SB_AT(p->right + 8, y[i]),
                       colour, .6, true);
        sb_figure_point(f, SB_AT(p->right + 12, y[i]), colour, sb_point_of(l->line[i].arm - 1));
        sb_figure_text(f, SB_AT(p->right + 20, y[i]), SB_LEFT, SB_COLOUR_INK, name);
        sb_free(name);
    }
    return SB_OK;
}

static enum sb_status draw_panel(const struct sb_figure *f, const struct lines *l, int column,
                                 const struct sb_panel *p, const char *title, struct sb_error *err)
{
    sb_figure_clear(f);
    sb_figure_panel(f, p);
    sb_figure_strong(f, SB_AT(p->left - 42, p->top - 20), SB_LEFT, title);
    sb_figure_text(f, SB_AT((p->left + p->right) / 2, p->bottom + 34), SB_CENTRE, SB_COLOUR_MUTED,
                   "position in the draft");
    fprintf(
        f->out,
        "set xtics 1,%.9g format '%%g'\nset ytics ('0' 0, '25 %%%%' .25, '50 %%%%' .5, '75 %%%%' .75,"
        " '100 %%%%' 1)\nset grid noxtics ytics lt 1 lw 1",
        fmax(1, sb_plot_step(fmax(1, l->longest - 1), f->narrow ? 6 : 9)));
    sb_figure_colour(f, SB_COLOUR_GRID);
    fputs(" back\n", f->out);
    enum sb_status rc = name_lines(f, l, column, p, err);
    if (rc == SB_OK)
        plot_lines(f, l, column);
    return rc;
}

static enum sb_status draw(const struct sb_figure *f, struct sb_source *source,
                           const struct sb_table *rows, struct sb_error *err)
{
    struct lines l;
    enum sb_status rc = lines_make(&l, source, rows, err);
    if (rc != SB_OK)
        return rc;
    double half = f->narrow ? f->width : f->width / 2;
    double margin = fmin(sb_plot_margin(f, rows, l.column[ARM]) + 20, half * .45);
    double inner = f->narrow ? (f->height - 2 * TOP - BOTTOM - 30) / 2 : f->height - TOP - BOTTOM;
    double x_max = fmax(1.5, l.longest + .3);
    struct sb_panel first = { LEFT, half - margin, TOP, TOP + inner, .7, x_max, 0, 1 };
    struct sb_panel second = first;
    if (f->narrow) {
        second.top = first.bottom + 30 + TOP + 12;
        second.bottom = f->height - BOTTOM;
    } else {
        second.left += half;
        second.right += half;
    }
    rc = draw_panel(f, &l, l.column[CONDITIONAL], &first, "accepted, if all before it were", err);
    if (rc == SB_OK)
        rc = draw_panel(f, &l, l.column[SURVIVAL], &second, "accepted with all before it", err);
    return rc;
}

const struct sb_plot_ops sb_plot_positions = { measure, draw };
