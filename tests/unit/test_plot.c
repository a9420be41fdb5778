/* results/plot and results/html: quoting, layout, what is drawn and what is left out. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <libxml/parser.h>
#include <libxml/xpath.h>
#include <math.h>
#include <stdlib.h>
#include <unistd.h>

#include "harness/core/alloc.h"
#include "results/html/html.h"
#include "results/html/internal.h"
#include "results/plot/gnuplot.h"
#include "results/plot/plot.h"
#include "sample_store.h"

static void rename_arm(const char *label)
{
    sqlite3_stmt *st;
    sqlite3 *db = sb_store_handle(store);
    assert_int_equal(
        sqlite3_prepare_v2(db, "UPDATE arm SET label = ?1 WHERE arm_no = 1", -1, &st, NULL),
        SQLITE_OK);
    sqlite3_bind_text(st, 1, label, -1, SQLITE_STATIC);
    assert_int_equal(sqlite3_step(st), SQLITE_DONE);
    sqlite3_finalize(st);
}

static struct sb_source *open_source(void)
{
    struct sb_source *source = NULL;
    const struct sb_report_options o = { .resamples = 200 };
    assert_int_equal(sb_source_create(&source, store, &o, NULL), SB_OK);
    return source;
}

static char *draw(const struct sb_plot_options *o, size_t *n)
{
    struct sb_source *source = open_source();
    struct sb_error err = { 0 };
    char *picture = NULL;
    if (sb_plot_draw(&picture, n, source, o, &err) != SB_OK)
        fail_msg("%s", err.message);
    sb_source_destroy(source);
    return picture;
}

/* The texts of an SVG that an XPath finds, joined by newlines (free). */
static char *texts(const char *xml, size_t n, const char *path)
{
    xmlDoc *doc = xmlReadMemory(xml, (int)n, "x", NULL, XML_PARSE_NONET | XML_PARSE_NOERROR);
    assert_non_null(doc);
    xmlXPathContext *context = xmlXPathNewContext(doc);
    xmlXPathObject *found = xmlXPathEvalExpression((const xmlChar *)path, context);
    char *all = calloc(1, n + 1);
    for (int i = 0; found->nodesetval && i < found->nodesetval->nodeNr; i++) {
        xmlChar *text = xmlNodeGetContent(found->nodesetval->nodeTab[i]);
        strcat(strcat(all, (const char *)text), "\n");
        xmlFree(text);
    }
    xmlXPathFreeObject(found);
    xmlXPathFreeContext(context);
    xmlFreeDoc(doc);
    return all;
}

static void a_label_is_drawn_as_it_is_written(void **state)
{
    (void)state;
    static const char *const labels[] = {
        "<b>&amp;",   "it's",     "\"two\" 'one'", "a\\nb\\", "`false`", "$HOME @x",
        "x_1^2{y}",   "100%d %%", "größe π 日本",  "\\\\'",   "'",       "''",
        "<text>\"/>", "#c",       "EOD",           "]]>",
    };
    for (size_t i = 0; i < sizeof labels / sizeof *labels; i++) {
        size_t n;
        rename_arm(labels[i]);
        char *svg = draw(
            &(struct sb_plot_options){ .view = "breakdown", .width = 4000, .height = 260 }, &n);
        char *drawn = texts(svg, n, "//*[local-name()='text']");
        if (!strstr(drawn, labels[i]))
            fail_msg("'%s' is not in: %s", labels[i], drawn);
        free(drawn);
        sb_free(svg);
    }
}

static void control_characters_and_bad_bytes_do_no_harm(void **state)
{
    (void)state;
    size_t n;
    rename_arm("a\nset output '/dev/null'\n\x1b[2J\x7f\xff\xfe \xef\xbf\xbf z");
    char *svg =
        draw(&(struct sb_plot_options){ .view = "breakdown", .width = 4000, .height = 260 }, &n);
    char *drawn = texts(svg, n, "//*[local-name()='text']");
    assert_non_null(strstr(drawn, "a set output '/dev/null'  [2J ?? ? z"));
    free(drawn);
    sb_free(svg);
}

static void every_plot_is_drawn_in_both_layouts_and_twice_the_same(void **state)
{
    (void)state;
    for (const struct sb_plot_info *p = sb_plots; p->view; p++) {
        struct sb_source *source = open_source();
        const struct sb_table *rows;
        for (int narrow = 0; narrow < 2; narrow++) {
            const struct sb_plot_options o = { .view = p->view, .narrow = narrow };
            struct sb_error err = { 0 };
            char *one = NULL, *two = NULL, *text;
            size_t n1, n2;
            assert_int_equal(sb_source_view(&rows, source, p->view, NULL), SB_OK);
            enum sb_status rc = sb_plot_draw(&one, &n1, source, &o, &err);
            if (rc == SB_EUNSUPPORTED && !rows)
                continue; /* a view that is not there */
            assert_int_equal(rc, SB_OK);
            assert_int_equal(sb_plot_draw(&two, &n2, source, &o, NULL), SB_OK);
            assert_int_equal(n1, n2);
            assert_memory_equal(one, two, n1);
            text = texts(one, n1, "//*[local-name()='text']");
            assert_true(strlen(text) > 20);
            free(text);
            sb_free(one);
            sb_free(two);
        }
        sb_source_destroy(source);
    }
}

static void a_plot_of_nothing_is_refused_with_its_reason(void **state)
{
    (void)state;
    struct sb_error err = { 0 };
    char *picture = NULL;
    size_t n;
    edit("DELETE FROM arm WHERE is_baseline = 0");
    struct sb_source *source = open_source();
    for (const struct sb_plot_info *p = sb_plots; p->view; p++)
        if (strcmp(p->view, "breakdown") != 0) {
            assert_int_equal(sb_plot_draw(&picture, &n, source,
                                          &(struct sb_plot_options){ .view = p->view }, &err),
                             SB_EUNSUPPORTED);
            assert_non_null(strstr(err.message, "nothing to plot as"));
        }
    assert_int_equal(
        sb_plot_draw(&picture, &n, source, &(struct sb_plot_options){ .view = "x" }, &err),
        SB_EUSAGE);
    assert_non_null(strstr(err.message, "no plot of 'x'; there are: leaderboard, tasks"));
    assert_null(picture);
    sb_source_destroy(source);
}

static void a_script_that_fails_says_why(void **state)
{
    (void)state;
    FILE *script;
    char *out = NULL;
    size_t n;
    struct sb_error err = { 0 };
    assert_int_equal(sb_gnuplot_begin(&script, NULL), SB_OK);
    fputs("set terminal svg\nplot nonsense(x)\n", script);
    assert_int_equal(sb_gnuplot_run(&out, &n, script, &err), SB_EIO);
    assert_non_null(strstr(err.message, "gnuplot failed"));
    assert_non_null(strstr(err.message, "nonsense"));
    fclose(script);
}

static void sizes_and_formats_are_read_strictly(void **state)
{
    (void)state;
    int w = 0, h = 0;
    enum sb_plot_format format;
    assert_int_equal(sb_plot_size(&w, &h, "900x600", NULL), SB_OK);
    assert_int_equal(w * 10000 + h, 9000600);
    static const char *const bad[] = { "",         "900",     "900x",      "x600",    "9x9",
                                       "900x600x", "1e9x600", "20000x600", "-900x600" };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(sb_plot_size(&w, &h, bad[i], NULL), SB_EUSAGE);
    assert_int_equal(sb_plot_format_of(&format, "a/b.pdf", NULL), SB_OK);
    assert_int_equal(format, SB_PLOT_PDF);
    assert_int_equal(sb_plot_format_of(&format, ".svg", NULL), SB_EUSAGE);
    assert_int_equal(sb_plot_format_of(&format, "x.SVGZ", NULL), SB_EUSAGE);
}

static void names_are_cut_in_their_middle_and_keep_both_ends(void **state)
{
    (void)state;
    char *same = sb_text_fit("short", 200),
         *cut = sb_text_fit("small-lm:model=tiny-draft,tree=3x2x1", 120);
    char *wide = sb_text_fit("日本語日本語日本語日本語", 60);
    assert_string_equal(same, "short");
    assert_int_equal(strncmp(cut, "small-lm", 8), 0);
    assert_non_null(strstr(cut, "\xe2\x80\xa6"));
    assert_string_equal(cut + strlen(cut) - 3, "2x1");
    assert_true(sb_text_px(cut) <= 132);
    assert_true(sb_text_px(wide) <= 72);
    sb_free(same);
    sb_free(cut);
    sb_free(wide);
}

static void labels_are_moved_apart_within_their_range(void **state)
{
    (void)state;
    double y[] = { 50, 50, 51, 10, 98, 99 };
    sb_spread(y, 6, 10, 0, 100);
    const size_t order[] = { 3, 0, 1, 2, 4, 5 };
    for (size_t i = 0; i + 1 < 6; i++)
        assert_true(y[order[i + 1]] - y[order[i]] > 9.5);
    for (size_t i = 0; i < 6; i++)
        assert_true(y[i] >= -1e-9 && y[i] <= 100 + 1e-9);
    double crowd[20] = { 0 };
    sb_spread(crowd, 20, 10, 0, 100); /* more than there is room for */
    for (size_t i = 0; i < 20; i++)
        assert_true(crowd[i] >= -1e-9 && crowd[i] <= 100 + 1e-9);
}

/* ---- the page ---- */

static char *page(size_t *n)
{
    char path[] = "/tmp/specbench-page-XXXXXX";
    struct sb_error err = { 0 };
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    const struct sb_report_options o = { .resamples = 200 };
    if (sb_html_report(path, store, &o, &err) != SB_OK)
        fail_msg("%s", err.message);
    FILE *f = fopen(path, "rb");
    fseek(f, 0, SEEK_END);
    *n = (size_t)ftell(f);
    rewind(f);
    char *text = calloc(1, *n + 1);
    assert_int_equal(fread(text, 1, *n, f), *n);
    fclose(f);
    unlink(path);
    return text;
}

static void a_page_is_well_formed_whatever_the_names_are(void **state)
{
    (void)state;
    static const char label[] = "<script>alert('1')</script>&\"]]>";
    size_t n;
    rename_arm(label);
    edit(
        "UPDATE experiment SET name = '</title><script>', dataset = '\"><img src=x>', script = '-->'");
    char *html = page(&n);
    char *names = texts(html, n, "//*[local-name()='table']//*[@scope='row']");
    assert_non_null(strstr(names, label));
    char *scripts = texts(html, n, "//*[local-name()='script']");
    assert_null(strstr(scripts, "alert"));
    char *images = texts(html, n, "//*[local-name()='img']/@src");
    assert_string_equal(images, "");
    free(images);
    free(scripts);
    free(names);
    free(html);
}

static void figures_of_the_page_are_those_of_the_views(void **state)
{
    (void)state;
    size_t n;
    struct sb_table *t = NULL;
    const struct sb_report_options o = { .resamples = 200 };
    assert_int_equal(sb_report_table(&t, store, &o, NULL), SB_OK);
    char *html = page(&n);
    char *cells = texts(html, n, "//*[@id='table-leaderboard']//*[@data-v]/@data-v");
    for (size_t r = 0; r < sb_table_rows(t); r++)
        for (size_t c = 0; c < sb_table_columns(t); c++)
            if (sb_table_shown(t, c) && isfinite(sb_table_value(t, r, c))) {
                char want[40];
                snprintf(want, sizeof want, "%.17g\n", sb_table_value(t, r, c));
                if (!strstr(cells, want))
                    fail_msg("no %s of column %s", want, sb_table_name(t, c));
            }
    free(cells);
    free(html);
    sb_table_destroy(t);
}

static void sections_without_rows_are_left_out(void **state)
{
    (void)state;
    size_t n;
    char *full = page(&n);
    assert_non_null(strstr(full, "id=\"certificate\""));
    assert_non_null(strstr(full, "id=\"acceptance\""));
    assert_non_null(strstr(full, "Complete: all 24"));
    free(full);
    edit("DELETE FROM certificate; DELETE FROM arm WHERE is_baseline = 0");
    char *bare = page(&n);
    assert_null(strstr(bare, "id=\"certificate\""));
    assert_null(strstr(bare, "<figure>\n<h3>Speedup"));
    assert_non_null(strstr(bare, "id=\"table-leaderboard\""));
    free(bare);
}

static void partial_data_are_said_to_be_partial(void **state)
{
    (void)state;
    size_t n;
    edit("DELETE FROM generation WHERE id = (SELECT max(id) FROM generation)");
    char *html = page(&n);
    assert_non_null(strstr(html, "Partial data."));
    assert_non_null(strstr(html, "23 of 24 planned generations ended well, 0 failed, 1 missing"));
    assert_null(strstr(html, "Complete:"));
    free(html);
}

static void a_page_that_fails_leaves_the_old_one(void **state)
{
    (void)state;
    struct sb_error err = { 0 };
    assert_int_equal(sb_html_report("/nonexistent/x.html", store, NULL, &err), SB_EIO);
    assert_non_null(strstr(err.message, "/nonexistent/x.html"));
}

static void terms_are_explained_once(void **state)
{
    (void)state;
    size_t n;
    char *html = page(&n);
    char *names = texts(html, n, "//*[@class='terms']//*[local-name()='dt']");
    const char *first = strstr(names, "MAT\n");
    assert_non_null(first);
    assert_null(strstr(first + 1, "\nMAT\n"));
    free(names);
    free(html);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_label_is_drawn_as_it_is_written),
        TEST(control_characters_and_bad_bytes_do_no_harm),
        TEST(every_plot_is_drawn_in_both_layouts_and_twice_the_same),
        TEST(a_plot_of_nothing_is_refused_with_its_reason),
        TEST(a_script_that_fails_says_why),
        TEST(sizes_and_formats_are_read_strictly),
        TEST(names_are_cut_in_their_middle_and_keep_both_ends),
        TEST(labels_are_moved_apart_within_their_range),
        TEST(a_page_is_well_formed_whatever_the_names_are),
        TEST(figures_of_the_page_are_those_of_the_views),
        TEST(sections_without_rows_are_left_out),
        TEST(partial_data_are_said_to_be_partial),
        TEST(a_page_that_fails_leaves_the_old_one),
        TEST(terms_are_explained_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
