#include "results/plot/figure.h"

#include <math.h>
#include <string.h>

#include "harness/core/alloc.h"
#include "results/plot/gnuplot.h"
#include "results/report.h"

const struct sb_colour_info sb_colours[SB_COLOUR_COUNT] = {
    { "ink", { 0x1d, 0x25, 0x2f }, { 0xe8, 0xec, 0xf1 } },
    { "muted", { 0x58, 0x64, 0x72 }, { 0xa4, 0xb0, 0xbf } },
    { "grid", { 0xd6, 0xdc, 0xe3 }, { 0x38, 0x42, 0x4e } },
    { "band", { 0xee, 0xf1, 0xf5 }, { 0x23, 0x2a, 0x33 } },
    { "paper", { 0xff, 0xff, 0xfe }, { 0x12, 0x16, 0x1b } },
    { "c1", { 0x00, 0x6a, 0xa8 }, { 0x5c, 0xb6, 0xf2 } },
    { "c2", { 0xb8, 0x4c, 0x00 }, { 0xf3, 0x90, 0x4f } },
    { "c3", { 0x00, 0x76, 0x57 }, { 0x3f, 0xc9, 0x9d } },
    { "c4", { 0xa0, 0x45, 0x7e }, { 0xe4, 0x93, 0xc5 } },
    { "c5", { 0x86, 0x60, 0x00 }, { 0xdc, 0xb0, 0x3f } },
    { "c6", { 0x56, 0x4f, 0xb0 }, { 0xa9, 0xa6, 0xf5 } },
};

enum { DATA_COLOURS = SB_COLOUR_COUNT - SB_COLOUR_1 };

enum sb_colour sb_colour_of(int arm)
{
    return (enum sb_colour)(SB_COLOUR_1 + (arm < 0 ? 0 : arm) % DATA_COLOURS);
}

const char *sb_dash_of(int arm)
{
    static const char *const dash[] = { "1", "(8,2)", "(2,2)" };
    return dash[(arm < 0 ? 0 : arm) / DATA_COLOURS % 3];
}

int sb_point_of(int arm)
{
    static const int type[] = { 7, 5, 9, 13,
                                11 }; /* disc, square, triangle, diamond, triangle down */
    return type[(arm < 0 ? 0 : arm) / DATA_COLOURS % 5];
}

/* ---- the script ---- */

static unsigned hex(enum sb_colour colour)
{
    const unsigned char *c = sb_colours[colour].light;
    return (unsigned)c[0] << 16 | (unsigned)c[1] << 8 | c[2];
}

void sb_figure_colour(const struct sb_figure *f, enum sb_colour colour)
{
    fprintf(f->out, " lc rgb '#%06x'", hex(colour));
}

/* Font sizes are pixels in SVG; Cairo's terminals have units of their own, so that the factors below give the
 * same look. A PDF has 96 pixels to the inch. */
void sb_figure_begin(struct sb_figure *f, enum sb_plot_format format)
{
    double width = f->width * f->scale, height = f->height * f->scale, font = SB_FONT_PX * f->scale;
    fputs("set encoding utf8\n", f->out);
    if (format == SB_PLOT_SVG)
        fprintf(f->out,
                "set terminal svg size %.0f,%.0f font 'sans-serif,%.6g' name 'specbench'"
                " background '#fffffe'",
                width, height, font);
    else if (format == SB_PLOT_PNG)
        fprintf(f->out,
                "set terminal pngcairo size %.0f,%.0f font 'sans-serif,%.6g' fontscale 0.75"
                " background '#ffffff'",
                width, height, font);
    else
        fprintf(f->out,
                "set terminal pdfcairo size %.6fin,%.6fin font 'sans-serif,%.6g' fontscale 0.57"
                " pointscale 0.75 background '#ffffff'",
                width / 96, height / 96, font);
    fprintf(f->out, " noenhanced linewidth %.6g\n", f->scale);
    fprintf(f->out,
            "set decimalsign '.'\nset datafile separator '\\t'\nset datafile missing 'NaN'\n"
            "unset key\nset border 0\nset tics nomirror scale 0 textcolor rgb '#%06x'\n"
            "set grid front\nunset grid\nset style fill solid 1 noborder\nset multiplot\n",
            hex(SB_COLOUR_MUTED));
}

static double screen_y(const struct sb_figure *f, double px)
{
    return 1 - px / f->height;
}

void sb_figure_panel(const struct sb_figure *f, const struct sb_panel *p)
{
    fprintf(f->out,
            "set lmargin at screen %.9g\nset rmargin at screen %.9g\n"
            "set tmargin at screen %.9g\nset bmargin at screen %.9g\n"
            "set xrange [%.9g:%.9g]\nset yrange [%.9g:%.9g]\n",
            p->left / f->width, p->right / f->width, screen_y(f, p->top), screen_y(f, p->bottom),
            p->x_min, p->x_max, p->y_min, p->y_max);
}

void sb_figure_clear(const struct sb_figure *f)
{
    fputs("unset label\nunset arrow\nunset object\n", f->out);
}

void sb_figure_show(const struct sb_figure *f)
{
    fputs("plot NaN notitle\n", f->out);
}

static void place(const struct sb_figure *f, struct sb_place at)
{
    if (at.x_unit == 'p')
        fprintf(f->out, " screen %.9g,", at.x / f->width);
    else
        fprintf(f->out, " first %.9g,", at.x);
    if (at.y_unit == 'p')
        fprintf(f->out, " screen %.9g", screen_y(f, at.y));
    else
        fprintf(f->out, " first %.9g", at.y);
}

static void text(const struct sb_figure *f, struct sb_place at, enum sb_align align,
                 enum sb_colour colour, const char *string, const char *font)
{
    static const char *const names[] = { "left", "center", "right" };
    fputs("set label ", f->out);
    sb_gnuplot_text(f->out, string);
    fputs(" at", f->out);
    place(f, at);
    fprintf(f->out, " %s front textcolor rgb '#%06x'%s\n", names[align], hex(colour), font);
}

void sb_figure_text(const struct sb_figure *f, struct sb_place at, enum sb_align align,
                    enum sb_colour colour, const char *string)
{
    text(f, at, align, colour, string, "");
}

void sb_figure_strong(const struct sb_figure *f, struct sb_place at, enum sb_align align,
                      const char *string)
{
    text(f, at, align, SB_COLOUR_INK, string, " font 'sans-serif:Bold'");
}

void sb_figure_line(const struct sb_figure *f, struct sb_place from, struct sb_place to,
                    enum sb_colour colour, double width, bool dashed)
{
    fputs("set arrow from", f->out);
    place(f, from);
    fputs(" to", f->out);
    place(f, to);
    fprintf(f->out, " nohead back lw %.3g dt %s", width, dashed ? "(4,4)" : "1");
    sb_figure_colour(f, colour);
    fputc('\n', f->out);
}

void sb_figure_box(const struct sb_figure *f, struct sb_place from, struct sb_place to,
                   enum sb_colour colour)
{
    fputs("set object rectangle from", f->out);
    place(f, from);
    fputs(" to", f->out);
    place(f, to);
    fprintf(f->out, " back fillcolor rgb '#%06x' fillstyle solid 1 noborder\n", hex(colour));
}

void sb_figure_point(const struct sb_figure *f, struct sb_place at, enum sb_colour colour, int type)
{
    fputs("set label '' at", f->out);
    place(f, at);
    fprintf(f->out, " front point pt %d ps %.6g", type, .75 * f->scale);
    sb_figure_colour(f, colour);
    fputc('\n', f->out);
}

/* ---- text ---- */

/* The next character's width in units of the font size, *p behind it. Wide scripts begin at U+3000. */
static double next_width(const unsigned char **p)
{
    const unsigned char *q = *p;
    unsigned c = *q++;
    while ((*q & 0xc0) == 0x80)
        q++;
    *p = q;
    if (c >= 0xe3)
        return 1.05;
    if (c < 0x80 && strchr("iljtfr.,:;|'!()[] ", (int)c))
        return .36;
    return c < 0x80 && strchr("mwMW@%", (int)c) ? .88 : .6;
}

double sb_text_px(const char *string)
{
    double width = 0;
    for (const unsigned char *p = (const unsigned char *)string; *p;)
        width += next_width(&p);
    return width * SB_FONT_PX;
}

/* Names of arms differ at their ends as often as at their beginnings, so the middle goes. */
char *sb_text_fit(const char *string, double px)
{
    char *clean = sb_printable(string);
    if (!clean || sb_text_px(clean) <= px)
        return clean;
    const unsigned char *p = (const unsigned char *)clean, *head = p;
    double width = SB_FONT_PX;
    while (*p) {
        width += next_width(&p) * SB_FONT_PX;
        if (width > .6 * px)
            break;
        head = p;
    }
    const unsigned char *tail = head;
    double left = sb_text_px((const char *)head);
    while (*tail && left > .4 * px)
        left -= next_width(&tail) * SB_FONT_PX;
    char *cut = sb_strf("%.*s\xe2\x80\xa6%s", (int)((const char *)head - clean), clean, tail);
    sb_free(clean);
    return cut;
}

/* ---- places that do not collide ---- */

/* Passes over the sorted values push neighbours apart, half each; 200 are plenty for 50 labels. */
void sb_spread(double *y, size_t n, double gap, double low, double high)
{
    size_t order[64];
    n = n < 64 ? n : 64;
    for (size_t i = 0; i < n; i++) { /* insertion sort, stable */
        size_t j = i;
        for (; j > 0 && y[order[j - 1]] > y[i]; j--)
            order[j] = order[j - 1];
        order[j] = i;
    }
    if (n > 1 && gap * (double)(n - 1) > high - low)
        gap = (high - low) / (double)(n - 1);
    for (int pass = 0; pass < 200; pass++) {
        for (size_t i = 0; i < n; i++)
            y[order[i]] = fmin(high, fmax(low, y[order[i]]));
        for (size_t i = 1; i < n; i++) {
            double lack = gap - (y[order[i]] - y[order[i - 1]]);
            if (lack > 0) {
                y[order[i]] += lack / 2;
                y[order[i - 1]] -= lack / 2;
            }
        }
    }
    for (size_t i = 0; i < n; i++)
        y[i] = fmin(high, fmax(low, y[i]));
}
