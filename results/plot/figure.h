/* A picture under construction: a gnuplot script in which text, colours and places are ours.
 *
 * Places are given in pixels from the top left corner, or on an axis of the panel that is plotted next.
 * Colours are few and named, so that a page can give them other values in the dark. */
#ifndef SB_RESULTS_PLOT_FIGURE_H
#define SB_RESULTS_PLOT_FIGURE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "harness/core/error.h"

enum sb_plot_format { SB_PLOT_SVG, SB_PLOT_PNG, SB_PLOT_PDF };

/* Dark enough for white text on them, told apart by eyes of every kind (after Okabe and Ito); the other
 * values are for a dark page. */
enum sb_colour {
    SB_COLOUR_INK,   /* text, points without an arm */
    SB_COLOUR_MUTED, /* axes and their figures */
    SB_COLOUR_GRID,
    SB_COLOUR_BAND,  /* areas behind the data */
    SB_COLOUR_PAPER, /* text on filled areas */
    SB_COLOUR_1,     /* six for data, in the order of use */
    SB_COLOUR_COUNT = SB_COLOUR_1 + 6
};
struct sb_colour_info {
    const char *name; /* of the style sheet's variable */
    unsigned char light[3], dark[3];
};
extern const struct sb_colour_info sb_colours[SB_COLOUR_COUNT];
enum sb_colour sb_colour_of(int arm); /* they repeat after the sixth */
int sb_point_of(int arm); /* gnuplot's point type, a filled one; another when the colours repeat */
const char *sb_dash_of(int arm); /* and its dashes */

enum { SB_FONT_PX = 12, SB_ROW_PX = 18 };

struct sb_figure {
    FILE *out;            /* the script, see gnuplot.h */
    double width, height; /* pixels, of the layout */
    double scale;         /* pixels of the picture for one of the layout */
    bool narrow;          /* for a phone: panels below each other, shorter names */
};

/* Size and format, then the style that all plots share. */
void sb_figure_begin(struct sb_figure *figure, enum sb_plot_format format);

/* The panel's inner frame; then its axes and plots are written to `out` with gnuplot's own commands. */
struct sb_panel {
    double left, right, top, bottom; /* pixels from the left, from the top */
    double x_min, x_max, y_min, y_max;
};
void sb_figure_panel(const struct sb_figure *figure, const struct sb_panel *panel);
/* Forget labels, arrows and areas before the next panel. */
void sb_figure_clear(const struct sb_figure *figure);
/* Draw the panel, when nothing but labels, arrows and areas is in it. */
void sb_figure_show(const struct sb_figure *figure);

/* Where something stands: an axis of the panel ('x', in data units) or pixels ('p'). */
struct sb_place {
    char x_unit, y_unit;
    double x, y;
};
#define SB_AT(px, py) ((struct sb_place){ 'p', 'p', (px), (py) })
enum sb_align { SB_LEFT, SB_CENTRE, SB_RIGHT };
void sb_figure_text(const struct sb_figure *figure, struct sb_place at, enum sb_align align,
                    enum sb_colour colour, const char *text);
void sb_figure_strong(const struct sb_figure *figure, struct sb_place at, enum sb_align align,
                      const char *text); /* a heading */
void sb_figure_line(const struct sb_figure *figure, struct sb_place from, struct sb_place to,
                    enum sb_colour colour, double width, bool dashed);
void sb_figure_box(const struct sb_figure *figure, struct sb_place from, struct sb_place to,
                   enum sb_colour colour);
void sb_figure_point(const struct sb_figure *figure, struct sb_place at, enum sb_colour colour,
                     int type);
/* "lc rgb '#rrggbb'" for plot commands. */
void sb_figure_colour(const struct sb_figure *figure, enum sb_colour colour);

/* How wide a text will be, in pixels, about. */
double sb_text_px(const char *text);
/* `text` cut to `px` with an ellipsis in its middle, in new memory (sb_free); NULL out of memory. */
char *sb_text_fit(const char *text, double px);

/* Move y[] (n of them, in any order) apart until no two are nearer than `gap` and all lie within low..high
 * as far as there is room; their order stays. */
void sb_spread(double *y, size_t n, double gap, double low, double high);

#endif
