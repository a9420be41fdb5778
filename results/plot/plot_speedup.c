/* Speedup with intervals: a row per arm, under a heading per task when the view has tasks. */
#include <math.h>
#include <string.h>

#include "harness/core/alloc.h"
#include "results/plot/internal.h"

enum { ARM, TASK, SPEEDUP, LOW, HIGH, COLUMNS };
static const char *const names[] = { "arm", "task", "speedup", "speedup_lo", "speedup_hi", NULL };

enum { TOP = 26, BOTTOM = 44, RIGHT = 66, HEADING_PX = 26 };

/* The rows in the order they are drawn: over all tasks first. */
struct forest {
    const struct sb_table *rows;
    int column[COLUMNS];
    size_t *order, n; /* rows with a speedup, without the baseline */
    size_t headings;
};

static const char *task_of(const struct forest *f, size_t row)
{
    return sb_table_cell(f->rows, row, (size_t)f->column[TASK]);
}

static double value(const struct forest *f, size_t row, int column)
{
    return sb_table_value(f->rows, row, (size_t)f->column[column]);
}

static void collect(struct forest *f, struct sb_source *source, bool overall)
{
    const struct sb_arm_name *arm;
    sb_source_arms(source, &arm);
    for (size_t r = 0; r < sb_table_rows(f->rows); r++) {
        int a = sb_source_arm(source, sb_table_cell(f->rows, r, (size_t)f->column[ARM]));
        bool measured = isfinite(value(f, r, SPEEDUP)) && value(f, r, SPEEDUP) > 0;
        if ((strcmp(task_of(f, r), "all") == 0) == overall && measured && a >= 0 &&
            !arm[a].is_baseline)
            f->order[f->n++] = r;
    }
}

static enum sb_status forest_make(struct forest *f, struct sb_source *source,
                                  const struct sb_table *rows, struct sb_error *err)
{
    *f = (struct forest){ .rows = rows };
    enum sb_status rc = sb_plot_columns(f->column, rows, names, err);
    if (rc != SB_OK)
        return rc;
    f->order = sb_alloc_array(sb_table_rows(rows), sizeof *f->order);
    if (!f->order)
        return sb_fail(err, SB_ENOMEM, "out of memory for a plot");
    collect(f, source, true);
    collect(f, source, false);
    for (size_t i = 0; i < f->n; i++)
        f->headings += i == 0 || strcmp(task_of(f, f->order[i]), task_of(f, f->order[i - 1])) != 0;
    if (f->headings == 1)
        f->headings = 0;
    return SB_OK;
}

static enum sb_status measure(struct sb_figure *figure, struct sb_source *source,
                              const struct sb_table *rows, struct sb_error *err)
{
    struct forest f;
    enum sb_status rc = forest_make(&f, source, rows, err);
    if (rc == SB_OK && f.n > 0)
        figure->height = (double)(TOP + BOTTOM + f.n * (SB_ROW_PX + 2) + f.headings * HEADING_PX);
    sb_free(f.order);
    return rc;
}

/* From 0, so that lengths compare, to a little above the largest estimate; an interval that is far wider
 * than the estimates leaves the frame, with an arrow. */
static double scale_end(const struct forest *f)
{
    double largest = 1, end = 1;
    for (size_t i = 0; i < f->n; i++)
        largest = fmax(largest, value(f, f->order[i], SPEEDUP));
    for (size_t i = 0; i < f->n; i++) {
        double high = value(f, f->order[i], HIGH);
        end = fmax(end, isfinite(high) ? fmin(high, 1.6 * largest) : largest);
    }
    end = fmax(end, largest) * 1.04;
    double step = sb_plot_step(end, 7);
    return ceil(end / step * 2) / 2 * step;
}

/* Behind the row: how far from 1 plain decoding is from itself, where the view knows. */
static void draw_noise(const struct sb_figure *figure, const struct forest *f, size_t row, double y,
                       double row_px)
{
    int column = sb_table_find(f->rows, "noise_floor");
    double noise = column >= 0 ? sb_table_value(f->rows, row, (size_t)column) : NAN;
    if (isfinite(noise) && noise > 0)
        sb_figure_box(figure,
                      (struct sb_place){ 'x', 'p', fmax(0, 1 / (1 + noise)), y - row_px / 2 },
                      (struct sb_place){ 'x', 'p', 1 + noise, y + row_px / 2 }, SB_COLOUR_BAND);
}

static void draw_row(const struct sb_figure *figure, const struct forest *f,
                     struct sb_source *source, size_t row, double y, double right, double end)
{
    int arm = sb_source_arm(source, sb_table_cell(f->rows, row, (size_t)f->column[ARM]));
    double speedup = value(f, row, SPEEDUP), low = value(f, row, LOW), high = value(f, row, HIGH);
    char text[32];
    enum sb_colour colour = sb_colour_of(arm - 1);
    if (isfinite(low) && isfinite(high)) {
        sb_figure_line(figure, (struct sb_place){ 'x', 'p', fmax(low, 0), y },
                       (struct sb_place){ 'x', 'p', fmin(high, end), y }, colour, 2.4, false);
        if (high > end)
            sb_figure_text(figure, (struct sb_place){ 'x', 'p', end, y }, SB_RIGHT, colour,
                           "\xe2\x96\xb8");
    }
    sb_figure_point(figure, (struct sb_place){ 'x', 'p', speedup, y }, colour,
                    sb_point_of(arm - 1));
    snprintf(text, sizeof text, "%.2f\xc3\x97", speedup);
    sb_figure_text(figure, SB_AT(right + 56, y), SB_RIGHT, SB_COLOUR_INK, text);
}

static enum sb_status draw_rows(const struct sb_figure *figure, const struct forest *f,
                                struct sb_source *source, double left, double right, double end,
                                struct sb_error *err)
{
    enum sb_status rc = SB_OK;
    double room = figure->height - TOP - BOTTOM - (double)f->headings * HEADING_PX;
    double row_px = room / (double)f->n, y = TOP;
    for (size_t i = 0; i < f->n && rc == SB_OK; i++) {
        size_t row = f->order[i];
        bool begins = i == 0 || strcmp(task_of(f, row), task_of(f, f->order[i - 1])) != 0;
        if (f->headings && begins) {
            bool overall = strcmp(task_of(f, row), "all") == 0;
            char *heading =
                sb_text_fit(overall ? "all tasks" : task_of(f, row), figure->width - 20);
            sb_figure_strong(figure, SB_AT(8, y + HEADING_PX - 10), SB_LEFT,
                             heading ? heading : "");
            sb_free(heading);
            y += HEADING_PX;
        }
        rc = sb_plot_row_name(figure, left, y + row_px / 2,
                              sb_table_cell(f->rows, row, (size_t)f->column[ARM]), err);
        draw_noise(figure, f, row, y + row_px / 2, row_px);
        draw_row(figure, f, source, row, y + row_px / 2, right, end);
        y += row_px;
    }
    return rc;
}

static enum sb_status draw(const struct sb_figure *figure, struct sb_source *source,
                           const struct sb_table *rows, struct sb_error *err)
{
    struct forest f;
    enum sb_status rc = forest_make(&f, source, rows, err);
    if (rc == SB_OK) {
        double left = sb_plot_margin(figure, rows, f.column[ARM]) + (f.headings ? 14 : 0);
        double right = figure->width - RIGHT, end = scale_end(&f);
        struct sb_panel panel = { left, right, TOP, figure->height - BOTTOM, 0, end, 0, 1 };
        sb_figure_panel(figure, &panel);
        sb_figure_line(figure, (struct sb_place){ 'x', 'p', 1, TOP - 4 },
                       (struct sb_place){ 'x', 'p', 1, figure->height - BOTTOM + 4 }, SB_COLOUR_INK,
                       1, false);
        sb_figure_text(figure, (struct sb_place){ 'x', 'p', 1, TOP - 14 }, SB_CENTRE,
                       SB_COLOUR_MUTED, figure->narrow ? "baseline" : "baseline = 1");
        rc = draw_rows(figure, &f, source, left, right, end, err);
        fprintf(figure->out, "unset ytics\nset xtics %.9g format '%%g'\nset grid xtics lt 1 lw 1",
                sb_plot_step(end, figure->narrow ? 4 : 7));
        sb_figure_colour(figure, SB_COLOUR_GRID);
        fputs(" back\n", figure->out);
        sb_figure_text(figure, SB_AT((left + right) / 2, figure->height - 10), SB_CENTRE,
                       SB_COLOUR_MUTED,
                       figure->narrow ? "speedup (\xc3\x97 baseline)"
                                      : "speedup (\xc3\x97 baseline), 95 % interval");
        sb_figure_show(figure);
    }
    sb_free(f.order);
    return rc;
}

const struct sb_plot_ops sb_plot_speedup = { measure, draw };
