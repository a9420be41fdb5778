/* Where decoding time goes: shares of each arm, stacked to one, and the time of a step beside them. */
#include <math.h>

#include "results/plot/internal.h"

/* The parts in the order of a step. Colours go with the part, not with the arm. */
static const struct {
    const char *column, *name;
    enum sb_colour colour;
} parts[] = {
    { "draft", "draft", SB_COLOUR_1 + 1 },     { "verify", "verify", SB_COLOUR_1 },
    { "accept", "accept", SB_COLOUR_1 + 2 },   { "commit", "commit", SB_COLOUR_1 + 4 },
    { "observe", "observe", SB_COLOUR_1 + 3 }, { "other", "other", SB_COLOUR_MUTED },
};
enum { PARTS = 6, ARM = PARTS, STEP_MS, COLUMNS };
static const char *const names[] = { "draft", "verify", "accept",      "commit", "observe",
                                     "other", "arm",    "ms_per_step", NULL };

enum { KEY_PX = 22, BOTTOM = 44, RIGHT = 76, BAR_PX = 26, SWATCH = 11 };

/* The key takes as many lines as it needs; returns its height. */
static double key(const struct sb_figure *f, double left, bool paint)
{
    double x = left, y = 12;
    for (int i = 0; i < PARTS; i++) {
        double px = SWATCH + 6 + sb_text_px(parts[i].name) + 18;
        if (x + px > f->width - RIGHT && x > left) {
            x = left;
            y += KEY_PX;
        }
        if (paint) {
            sb_figure_box(f, SB_AT(x, y - SWATCH / 2.), SB_AT(x + SWATCH, y + SWATCH / 2.),
                          parts[i].colour);
            sb_figure_text(f, SB_AT(x + SWATCH + 6, y), SB_LEFT, SB_COLOUR_INK, parts[i].name);
        }
        x += px;
    }
    return y + KEY_PX;
}

static enum sb_status measure(struct sb_figure *f, struct sb_source *source,
                              const struct sb_table *rows, struct sb_error *err)
{
    int column[COLUMNS];
    enum sb_status rc = sb_plot_columns(column, rows, names, err);
    if (rc == SB_OK)
        f->height = key(f, f->narrow ? 8 : sb_plot_margin(f, rows, column[ARM]), false) + BOTTOM +
                    (double)sb_table_rows(rows) * BAR_PX;
    return rc;
}

/* One arm's bar, `top` to `bottom`; shares wide enough say how much they are. */
static void bar(const struct sb_figure *f, const struct sb_table *rows, const int *column, size_t r,
                double px_of_one, double top, double bottom)
{
    double at = 0;
    for (int i = 0; i < PARTS; i++) {
        double share = sb_table_value(rows, r, (size_t)column[i]);
        if (!(share > 0))
            continue;
        double end = fmin(1, at + share);
        sb_figure_box(f, (struct sb_place){ 'x', 'p', at, top },
                      (struct sb_place){ 'x', 'p', end, bottom }, parts[i].colour);
        char text[16];
        snprintf(text, sizeof text, "%.0f %%", 100 * share);
        if (share * px_of_one > sb_text_px(text) + 8)
            sb_figure_text(f, (struct sb_place){ 'x', 'p', (at + end) / 2, (top + bottom) / 2 },
                           SB_CENTRE, SB_COLOUR_PAPER, text);
        at = end;
    }
}

static enum sb_status draw(const struct sb_figure *f, struct sb_source *source,
                           const struct sb_table *rows, struct sb_error *err)
{
    int column[COLUMNS];
    enum sb_status rc = sb_plot_columns(column, rows, names, err);
    if (rc != SB_OK)
        return rc;
    double left = sb_plot_margin(f, rows, column[ARM]), right = f->width - RIGHT;
    double top = key(f, f->narrow ? 8 : left, true);
    double row_px = (f->height - BOTTOM - top) / (double)sb_table_rows(rows);
    struct sb_panel panel = { left, right, top, f->height - BOTTOM, 0, 1, 0, 1 };
    sb_figure_panel(f, &panel);
    for (size_t r = 0; r < sb_table_rows(rows) && rc == SB_OK; r++) {
        double y = top + ((double)r + .5) * row_px, half = row_px * .38;
        char text[40];
        rc = sb_plot_row_name(f, left, y, sb_table_cell(rows, r, (size_t)column[ARM]), err);
        bar(f, rows, column, r, right - left, y - half, y + half);
        snprintf(text, sizeof text, "%.3g ms", sb_table_value(rows, r, (size_t)column[STEP_MS]));
        sb_figure_text(f, SB_AT(f->width - 8, y), SB_RIGHT, SB_COLOUR_INK, text);
    }
    fprintf(f->out, "unset ytics\nset xtics %s\nset grid xtics lt 1 lw 1",
            f->narrow ? "('0' 0, '50 %%' .5, '100 %%' 1)"
                      : "('0' 0, '25 %%' .25, '50 %%' .5, '75 %%' .75, '100 %%' 1)");
    sb_figure_colour(f, SB_COLOUR_GRID);
    fputs(" back\n", f->out);
    sb_figure_text(f, SB_AT((left + right) / 2, f->height - 10), SB_CENTRE, SB_COLOUR_MUTED,
                   "share of the decode time");
    sb_figure_text(f, SB_AT(f->width - 8, top - KEY_PX), SB_RIGHT, SB_COLOUR_MUTED, "per step");
    sb_figure_show(f);
    return rc;
}

const struct sb_plot_ops sb_plot_breakdown = { measure, draw };
