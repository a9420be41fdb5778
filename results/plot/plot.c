#include "results/plot/plot.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "harness/core/alloc.h"
#include "results/plot/gnuplot.h"
#include "results/plot/internal.h"

const struct sb_plot_info sb_plots[] = {
    { "leaderboard", "Speedup over all prompts", "speedup of every arm with its interval" },
    { "tasks", "Speedup by task", "speedup of every arm in every task, with intervals" },
    { "cost", "MAT against speedup", "MAT against speedup, with rays of the cost curve" },
    { "positions", "Acceptance by position", "conditional acceptance and survival by position" },
    { "histogram", "Accepted per step", "how many draft tokens a step accepts" },
    { "ranks", "Acceptance by rank", "acceptance by rank among the siblings, for trees" },
    { "breakdown", "Where the time goes", "shares of the decode time" },
    { 0 },
};

/* Beside sb_plots, in the same order: how it is drawn, and the view that its rows come from. */
static const struct {
    const struct sb_plot_ops *ops;
    const char *rows;
} drawn_by[] = {
    { &sb_plot_speedup, "leaderboard" }, { &sb_plot_speedup, "tasks" },
    { &sb_plot_cost, "leaderboard" },    { &sb_plot_positions, "positions" },
    { &sb_plot_histogram, "histogram" }, { &sb_plot_ranks, "ranks" },
    { &sb_plot_breakdown, "breakdown" },
};

enum { WIDTH_PX = 760, NARROW_PX = 350, SIDE_LEAST = 240, SIDE_MOST = 10000 };

enum sb_status sb_plot_format_of(enum sb_plot_format *out, const char *path, struct sb_error *err)
{
    static const char *const endings[] = { ".svg", ".png", ".pdf" };
    size_t n = strlen(path);
    for (int i = 0; i < 3; i++)
        if (n > 4 && strcmp(path + n - 4, endings[i]) == 0) {
            *out = (enum sb_plot_format)i;
            return SB_OK;
        }
    return sb_fail(err, SB_EUSAGE, "--output '%s': expected a name that ends in .svg, .png or .pdf",
                   path);
}

enum sb_status sb_plot_size(int *width, int *height, const char *string, struct sb_error *err)
{
    char *end = NULL;
    long w = strtol(string, &end, 10), h = 0;
    if (*end == 'x')
        h = strtol(end + 1, &end, 10);
    if (*end || w < SIDE_LEAST || w > SIDE_MOST || h < SIDE_LEAST || h > SIDE_MOST)
        return sb_fail(err, SB_EUSAGE,
                       "--size '%s': expected WIDTHxHEIGHT in pixels, each %d to %d", string,
                       SIDE_LEAST, SIDE_MOST);
    *width = (int)w;
    *height = (int)h;
    return SB_OK;
}

static enum sb_status find(size_t *out, const char *view, struct sb_error *err)
{
    char known[200] = "";
    for (size_t i = 0; sb_plots[i].view; i++) {
        size_t n = strlen(known);
        snprintf(known + n, sizeof known - n, "%s%s", n ? ", " : "", sb_plots[i].view);
        if (strcmp(sb_plots[i].view, view) == 0) {
            *out = i;
            return SB_OK;
        }
    }
    return sb_fail(err, SB_EUSAGE, "no plot of '%s'; there are: %s", view, known);
}

/* Cairo writes the time into a PDF; a day that is always the same, of the same length, takes its place. */
static void forget_date(char *pdf, size_t n)
{
    static const char key[] = "/CreationDate (D:";
    for (size_t i = 0; i + sizeof key + 14 <= n; i++)
        if (memcmp(pdf + i, key, sizeof key - 1) == 0)
            memcpy(pdf + i + sizeof key - 1, "20000101000000", 14);
}

/* Two things that gnuplot's SVG gets wrong. It names a bold font "sans-serif:Bold", which SVG does not know;
 * and it escapes '<' and '&' in texts but not '>', so that "]]>" in a label is no XML. Labels may hold
 * anything, so the font is put right inside of tags alone. */
static void mend_svg(FILE *out, const char *svg)
{
    static const char bad[] = "font-family=\"sans-serif:Bold\"";
    bool in_tag = false;
    for (const char *p = svg; *p; p++) {
        if (in_tag && strncmp(p, bad, sizeof bad - 1) == 0) {
            fputs("font-family=\"sans-serif\" font-weight=\"bold\"", out);
            p += sizeof bad - 2;
        } else if (!in_tag && *p == '>') {
            fputs("&gt;", out);
        } else {
            in_tag = *p == '<' || (in_tag && *p != '>');
            fputc(*p, out);
        }
    }
}

static enum sb_status mend(char **svg, size_t *n, struct sb_error *err)
{
    char *text = NULL, *copy = NULL;
    FILE *out = open_memstream(&text, n);
    if (out)
        mend_svg(out, *svg);
    if (out && fclose(out) == 0)
        copy = sb_strdup(text);
    free(text);
    sb_free(*svg);
    *svg = copy;
    return copy ? SB_OK : sb_fail(err, SB_ENOMEM, "out of memory for a plot");
}

static enum sb_status render(char **out, size_t *n, struct sb_figure *f, size_t plot,
                             enum sb_plot_format format, struct sb_source *source,
                             const struct sb_table *rows, struct sb_error *err)
{
    enum sb_status rc = sb_gnuplot_begin(&f->out, err);
    if (rc != SB_OK)
        return rc;
    sb_figure_begin(f, format);
    rc = drawn_by[plot].ops->draw(f, source, rows, err);
    fputs("unset multiplot\n", f->out);
    if (rc == SB_OK)
        rc = sb_gnuplot_run(out, n, f->out, err);
    fclose(f->out);
    if (rc == SB_OK && format == SB_PLOT_PDF)
        forget_date(*out, *n);
    if (rc == SB_OK && format == SB_PLOT_SVG)
        rc = mend(out, n, err);
    return rc;
}

/* The layout is as large as its rows need; a size that is asked for gives it its shape and a scale. A flat
 * one widens the layout, so that rows never lie on each other: texts get smaller. */
static void fit(struct sb_figure *f, const struct sb_plot_options *o)
{
    f->scale = o->format == SB_PLOT_PNG ? 2 : 1; /* for sharp screens and print */
    if (o->width <= 0)
        return;
    double height = f->width * o->height / o->width;
    if (height < f->height)
        f->width *= f->height / height;
    else
        f->height = height;
    f->scale = o->width / f->width;
}

enum sb_status sb_plot_draw(char **out, size_t *n, struct sb_source *source,
                            const struct sb_plot_options *o, struct sb_error *err)
{
    size_t plot = 0;
    const struct sb_table *rows = NULL;
    bool narrow = o->narrow || (o->width > 0 && o->width < 480);
    struct sb_figure f = { .narrow = narrow, .width = narrow ? NARROW_PX : WIDTH_PX };
    const char *view = o->view ? o->view : "leaderboard";
    enum sb_status rc = find(&plot, view, err);
    if (rc == SB_OK)
        rc = sb_source_view(&rows, source, drawn_by[plot].rows, err);
    if (rc == SB_OK && rows)
        rc = drawn_by[plot].ops->measure(&f, source, rows, err);
    if (rc == SB_OK && f.height == 0)
        rc = sb_fail(err, SB_EUNSUPPORTED, "experiment %lld has nothing to plot as '%s'",
                     (long long)sb_source_experiment(source), view);
    if (rc != SB_OK)
        return rc;
    fit(&f, o);
    return render(out, n, &f, plot, o->format, source, rows, err);
}

/* ---- shared by the plots ---- */

enum sb_status sb_plot_columns(int *column, const struct sb_table *rows, const char *const *names,
                               struct sb_error *err)
{
    for (size_t i = 0; names[i]; i++) {
        column[i] = sb_table_find(rows, names[i]);
        if (column[i] < 0)
            return sb_fail(err, SB_EINTERNAL, "a view to be plotted has no column '%s'", names[i]);
    }
    return SB_OK;
}

enum sb_status sb_plot_row_name(const struct sb_figure *f, double margin, double y,
                                const char *name, struct sb_error *err)
{
    char *fitting = sb_text_fit(name, margin - 16);
    if (!fitting)
        return sb_fail(err, SB_ENOMEM, "out of memory for a plot");
    sb_figure_text(f, SB_AT(margin - 10, y), SB_RIGHT, SB_COLOUR_INK, fitting);
    sb_free(fitting);
    return SB_OK;
}

double sb_plot_step(double span, int most)
{
    double power = pow(10, floor(log10(span / most)));
    static const double parts[] = { 1, 2, 5, 10 };
    for (int i = 0; i < 4; i++)
        if (span / (parts[i] * power) <= most + 1e-9)
            return parts[i] * power;
    return 10 * power;
}

double sb_plot_margin(const struct sb_figure *f, const struct sb_table *rows, int arm_column)
{
    double longest = 0, most = f->width * (f->narrow ? .34 : .28);
    for (size_t r = 0; r < sb_table_rows(rows); r++) {
        double px = sb_text_px(sb_table_cell(rows, r, (size_t)arm_column)) + 18;
        longest = fmax(longest, px);
    }
    return fmin(longest, most);
}
