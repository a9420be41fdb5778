/* The page: what ran, then a section for each question, each of them left out when nothing answers it. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "harness/core/alloc.h"
#include "results/html/internal.h"

struct page {
    FILE *out;
    struct sb_source *source;
    unsigned long long said; /* terms that are explained already */
};

/* ---- what ran ---- */

/* Rows of a label and a text; NULL texts are left out. */
static const char facts_sql[] =
    "WITH x AS (SELECT e.*, m.name AS model, m.weight_type, m.n_params, h.hostname, h.cpu, h.isa, h.os,"
    " h.threads, h.specbench_version, h.\"commit\" AS build FROM experiment e"
    " JOIN model m ON m.id = e.target_model_id JOIN host h ON h.id = e.host_id WHERE e.id = ?1)"
    " SELECT 'Target' AS label, model || coalesce(', ' || weight_type, '')"
    " || CASE WHEN n_params > 0 THEN printf(', %.3g M parameters', n_params / 1e6) ELSE '' END AS text"
    " FROM x"
    " UNION ALL SELECT 'Prompts', coalesce(dataset, '?') || ', ' || (SELECT count(*) FROM"
    " (SELECT DISTINCT task, question_id FROM prompt WHERE experiment_id = ?1)) || ' questions in '"
    " || (SELECT count(DISTINCT task) FROM prompt WHERE experiment_id = ?1) || ' tasks' FROM x"
    " UNION ALL SELECT 'Decoding', CASE WHEN temperature = 0 THEN 'greedy' ELSE printf('temperature %g',"
    " temperature) || CASE WHEN top_k > 0 THEN printf(', top-k %d', top_k) ELSE '' END"
    " || CASE WHEN top_p < 1 THEN printf(', top-p %g', top_p) ELSE '' END END"
    " || ', at most ' || max_new_tokens || ' new tokens'"
    " || CASE WHEN ignore_eos THEN ', end tokens ignored' ELSE '' END FROM x"
    " UNION ALL SELECT 'Seed', seed || ', ' || repeats || CASE repeats WHEN 1 THEN ' repeat' ELSE ' repeats'"
    " END FROM x"
    " UNION ALL SELECT 'Arithmetic', arithmetic FROM x"
    " UNION ALL SELECT 'Host', coalesce(hostname || ': ', '') || coalesce(cpu, '?') || ', ' || threads"
    " || CASE threads WHEN 1 THEN ' thread' ELSE ' threads' END || coalesce(', ' || isa, '')"
    " || coalesce(', ' || os, '') FROM x"
    " UNION ALL SELECT 'Build', 'specbench ' || coalesce(specbench_version, '?')"
    " || coalesce(', commit ' || nullif(build, ''), '') FROM x"
    " UNION ALL SELECT 'Script', nullif(script, '') FROM x"
    " UNION ALL SELECT 'Started', replace(replace(created_at, 'T', ' '), 'Z', ' UTC') FROM x";

static enum sb_status put_facts(struct page *p, struct sb_error *err)
{
    struct sb_table *facts = NULL;
    enum sb_status rc = sb_source_query(&facts, p->source, facts_sql, err);
    if (rc != SB_OK)
        return rc;
    fputs("<dl class=\"facts\">\n", p->out);
    for (size_t r = 0; r < sb_table_rows(facts); r++) {
        if (sb_table_type(facts, r, 1) == SB_CELL_NULL)
            continue;
        fputs("<div><dt>", p->out);
        sb_html_text(p->out, sb_table_cell(facts, r, 0));
        fputs("</dt><dd>", p->out);
        sb_html_text(p->out, sb_table_cell(facts, r, 1));
        fputs("</dd></div>\n", p->out);
    }
    fputs("</dl>\n", p->out);
    sb_table_destroy(facts);
    return SB_OK;
}

static double run_value(const struct sb_table *runs, const char *column)
{
    int c = sb_table_find(runs, column);
    double value = c >= 0 ? sb_table_value(runs, 0, (size_t)c) : NAN;
    return isfinite(value) ? value : 0;
}

/* Whether all that was planned is there; when not, the reader knows before the first figure. */
static enum sb_status put_completeness(struct page *p, struct sb_error *err)
{
    const struct sb_table *runs;
    enum sb_status rc = sb_source_view(&runs, p->source, "runs", err);
    if (rc != SB_OK || !runs)
        return rc;
    double planned = run_value(runs, "planned"), done = run_value(runs, "done");
    double errors = run_value(runs, "errors");
    if (done >= planned && errors == 0)
        fprintf(p->out, "<p class=\"whole\">Complete: all %.0f planned generations are here.</p>\n",
                planned);
    else
        fprintf(
            p->out,
            "<p class=\"partial\" role=\"note\"><strong>Partial data.</strong> %.0f of %.0f planned"
            " generations ended well, %.0f failed, %.0f missing. Figures rest on those that ended"
            " well, speedups on prompts that both the arm and the baseline finished.</p>\n",
            done, planned, errors, fmax(0, planned - done - errors));
    return SB_OK;
}

/* What makes the times worth less, from the view `warnings`; partial data were said above. */
static enum sb_status put_warnings(struct page *p, struct sb_error *err)
{
    const struct sb_table *t;
    enum sb_status rc = sb_source_view(&t, p->source, "warnings", err);
    if (rc != SB_OK || !t)
        return rc;
    int check = sb_table_find(t, "check"), arm = sb_table_find(t, "arm");
    int warns = sb_table_find(t, "warning"), message = sb_table_find(t, "message");
    for (size_t r = 0; r < sb_table_rows(t) && check >= 0 && warns >= 0 && message >= 0; r++) {
        const char *label = arm >= 0 ? sb_table_cell(t, r, arm) : NULL;
        if (sb_table_value(t, r, warns) != 1 || strcmp(sb_table_cell(t, r, check), "partial") == 0)
            continue;
        fputs("<p class=\"partial\" role=\"note\"><strong>Mind the times.</strong> ", p->out);
        if (label && *label) {
            sb_html_text(p->out, label);
            fputs(": ", p->out);
        }
        sb_html_text(p->out, sb_table_cell(t, r, message));
        fputs(".</p>\n", p->out);
    }
    return SB_OK;
}

static enum sb_status put_header(struct page *p, const char *name, struct sb_error *err)
{
    fputs("<header>\n<p class=\"kind\">specbench report</p>\n<h1>", p->out);
    sb_html_text(p->out, name);
    fputs("</h1>\n", p->out);
    enum sb_status rc = put_facts(p, err);
    if (rc == SB_OK)
        rc = put_completeness(p, err);
    if (rc == SB_OK)
        rc = put_warnings(p, err);
    fputs("</header>\n", p->out);
    return rc;
}

/* ---- sections ---- */

struct part {
    const char *view, *caption;
    bool folded;
};
static const struct section {
    const char *id, *title;
    struct {
        const char *view, *note;
    } plots[3];
    struct part tables[3];
} sections[] = {
    { "speed", "Speed",
      .plots = { { "leaderboard",
                   "A point is an arm's speedup over the baseline on the same prompts, its"
                   " line the 95 % interval, a grey band the noise of plain decoding where measured." },
                 { "tasks", NULL } },
      .tables = { { "leaderboard", "Leaderboard: every arm over all prompts" },
                  { "tasks", "Every arm in every task" },
                  { "speed", "All figures of speed", true } } },
    { "acceptance", "Acceptance",
      .plots = { { "positions",
                   "First: of the drafts that got that far, how many were accepted there. Second:"
                   " how many draft tokens survive up to there. Hollow points rest on fewer"
                   " than 30 trials." },
                 { "histogram", NULL },
                 { "ranks", "Rank 0 is the drafter's first choice." } },
      .tables = { { "acceptance", "All figures of acceptance", true },
                  { "positions", "Acceptance by position in the draft", true },
                  { "histogram", "Steps by tokens accepted", true } } },
    { "trees", "Trees and sources",
      .tables = { { "ranks", "Acceptance by depth and rank", true },
                  { "sources", "Acceptance by the drafter's own tag", true },
                  { "diagnosis", "What verifiers left on the table", true } } },
    { "time", "Time and cost",
      .plots = { { "breakdown", NULL },
                 { "cost",
                   "A ray is what an arm would reach that drafted for free and verified M rows in"
                   " every step: MAT \xc3\xb7 c(M), with c(M) as measured on this host. What lies"
                   " below its ray is the cost of drafting; c = 1 is the limit of all. Without M there"
                   " is no measured curve in the file: specbench bench --db adds it." } },
      .tables = { { "breakdown", "Shares of the decode time", true },
                  { "cost", "Predicted and measured speedups", true },
                  { "latency", "What a streaming user waits for", true } } },
    { "warnings", "Checks of the times",
      .tables = { { "warnings", "What the times are worth", true } } },
    { "certificate", "Certificate",
      .tables = { { "certificate",
                    "The newest certificate: a row per verifier, then the planted rules" } } },
    { "data", "Data", .tables = { { "coverage", "How far each arm came", true } } },
};
enum { SECTIONS = sizeof sections / sizeof *sections, PLOTS = 3, PARTS = 3 };

static const struct sb_plot_info *plot_info(const char *view)
{
    const struct sb_plot_info *info = sb_plots;
    while (info->view && strcmp(info->view, view) != 0)
        info++;
    return info;
}

/* One layout of a plot as text for the page; *out is NULL when there is nothing to plot. */
static enum sb_status inline_plot(char **out, struct page *p, const struct sb_plot_info *info,
                                  bool narrow, struct sb_error *err)
{
    char *svg = NULL, id[48];
    size_t n;
    const struct sb_plot_options o = { .view = info->view, .narrow = narrow };
    *out = NULL;
    enum sb_status rc = sb_plot_draw(&svg, &n, p->source, &o, err);
    if (rc != SB_OK)
        return rc == SB_EUNSUPPORTED ? SB_OK : rc;
    snprintf(id, sizeof id, "%s-%s", narrow ? "narrow" : "wide", info->view);
    rc = sb_svg_inline(out, svg, n,
                       &(struct sb_svg_names){ .id = id,
                                               .css_class = narrow ? "plot narrow" : "plot wide",
                                               .title = info->title,
                                               .description = info->summary },
                       err);
    sb_free(svg);
    return rc;
}

/* Two layouts: the style sheet shows the one that fits the screen. */
static enum sb_status put_plot(struct page *p, const char *view, const char *note,
                               struct sb_error *err)
{
    const struct sb_plot_info *info = plot_info(view);
    char *wide = NULL, *narrow = NULL;
    enum sb_status rc = inline_plot(&wide, p, info, false, err);
    if (rc == SB_OK && wide)
        rc = inline_plot(&narrow, p, info, true, err);
    if (rc == SB_OK && wide && narrow) {
        fputs("<figure>\n<h3>", p->out);
        sb_html_text(p->out, info->title);
        fprintf(p->out, "</h3>\n%s\n%s\n", wide, narrow);
        if (note) {
            fputs("<figcaption>", p->out);
            sb_html_text(p->out, note);
            fputs("</figcaption>\n", p->out);
        }
        fputs("</figure>\n", p->out);
    }
    sb_free(wide);
    sb_free(narrow);
    return rc;
}

static enum sb_status put_table(struct page *p, const struct part *part, struct sb_error *err)
{
    const struct sb_table *rows;
    char id[48];
    enum sb_status rc = sb_source_view(&rows, p->source, part->view, err);
    if (rc != SB_OK || !rows)
        return rc;
    snprintf(id, sizeof id, "table-%s", part->view);
    if (part->folded) {
        fputs("<details>\n<summary>", p->out);
        sb_html_text(p->out, part->caption);
        fputs("</summary>\n", p->out);
    }
    rc = sb_html_table(p->out, &(struct sb_html_table){ id, part->caption, rows }, p->source, err);
    sb_html_terms(p->out, rows, &p->said);
    if (part->folded)
        fputs("</details>\n", p->out);
    return rc;
}

/* Something of it must be there, or it has no heading. */
static enum sb_status has_rows(bool *any, struct page *p, const struct section *s,
                               struct sb_error *err)
{
    enum sb_status rc = SB_OK;
    *any = false;
    for (int i = 0; i < PARTS && s->tables[i].view && rc == SB_OK && !*any; i++) {
        const struct sb_table *rows;
        rc = sb_source_view(&rows, p->source, s->tables[i].view, err);
        *any = rc == SB_OK && rows;
    }
    return rc;
}

static enum sb_status put_section(struct page *p, const struct section *s, struct sb_error *err)
{
    bool any;
    enum sb_status rc = has_rows(&any, p, s, err);
    if (rc != SB_OK || !any)
        return rc;
    fprintf(p->out, "<section id=\"%s\" aria-labelledby=\"%s-h\">\n<h2 id=\"%s-h\">%s</h2>\n",
            s->id, s->id, s->id, s->title);
    /* The first table before the plots, the others behind: figures, then pictures, then details. */
    if (!s->tables[0].folded)
        rc = put_table(p, &s->tables[0], err);
    for (int i = 0; i < PLOTS && s->plots[i].view && rc == SB_OK; i++)
        rc = put_plot(p, s->plots[i].view, s->plots[i].note, err);
    for (int i = s->tables[0].folded ? 0 : 1; i < PARTS && s->tables[i].view && rc == SB_OK; i++)
        rc = put_table(p, &s->tables[i], err);
    fputs("</section>\n", p->out);
    return rc;
}

/* ---- the whole ---- */

static void put_colours(FILE *out, bool dark)
{
    for (int i = 0; i < SB_COLOUR_COUNT; i++) {
        const unsigned char *c = dark ? sb_colours[i].dark : sb_colours[i].light;
        fprintf(out, "--%s:#%02x%02x%02x;", sb_colours[i].name, c[0], c[1], c[2]);
    }
}

/* The policy forbids every request, whatever a text in the database may have smuggled in. */
static void put_head(struct page *p, const char *name)
{
    fputs("<!DOCTYPE html>\n<html lang=\"en\" xmlns=\"http://www.w3.org/1999/xhtml\">\n<head>\n"
          "<meta charset=\"utf-8\"/>\n"
          "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n"
          "<meta name=\"color-scheme\" content=\"light dark\"/>\n"
          "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src"
          " 'unsafe-inline'; script-src 'unsafe-inline'\"/>\n<title>",
          p->out);
    sb_html_text(p->out, name);
    fputs(" \xe2\x80\x93 specbench</title>\n<style>\n/*<![CDATA[*/\n:root{", p->out);
    put_colours(p->out, false);
    fputs("}\n@media screen and (prefers-color-scheme: dark){:root{", p->out);
    put_colours(p->out, true);
    fputs("}}\n", p->out);
    fprintf(p->out, "%s/*]]>*/\n</style>\n</head>\n<body>\n<main>\n", sb_html_style);
}

static void put_end(struct page *p)
{
    fprintf(
        p->out,
        "</main>\n<footer><p>Made by specbench " SB_VERSION
        " from experiment %lld of the database, which holds every step: each figure here is a"
        " view of it.</p></footer>\n<script>\n//<![CDATA[\n%s//]]>\n</script>\n</body>\n</html>\n",
        (long long)sb_source_experiment(p->source), sb_html_script);
}

static enum sb_status put_page(struct page *p, struct sb_error *err)
{
    struct sb_table *name = NULL;
    enum sb_status rc =
        sb_source_query(&name, p->source, "SELECT name FROM experiment WHERE id = ?1", err);
    if (rc != SB_OK)
        return rc;
    put_head(p, sb_table_cell(name, 0, 0));
    rc = put_header(p, sb_table_cell(name, 0, 0), err);
    for (int i = 0; i < SECTIONS && rc == SB_OK; i++)
        rc = put_section(p, &sections[i], err);
    put_end(p);
    sb_table_destroy(name);
    return rc;
}

/* Into a file beside it, which takes its name when all is written. */
static enum sb_status put_file(const char *path, struct page *p, struct sb_error *err)
{
    char *part = sb_strf("%s.part", path);
    enum sb_status rc = SB_OK;
    if (!part)
        return sb_fail(err, SB_ENOMEM, "out of memory for a page");
    p->out = fopen(part, "wb");
    if (!p->out) {
        rc = sb_fail(err, SB_EIO, "cannot write %s: %s", part, strerror(errno));
        sb_free(part);
        return rc;
    }
    rc = put_page(p, err);
    bool good = !ferror(p->out);
    good = fclose(p->out) == 0 && good;
    if (rc == SB_OK && (!good || rename(part, path) != 0))
        rc = sb_fail(err, SB_EIO, "cannot write %s: %s", path, strerror(errno));
    if (rc != SB_OK)
        unlink(part);
    sb_free(part);
    return rc;
}

enum sb_status sb_html_report(const char *path, struct sb_store *store,
                              const struct sb_report_options *options, struct sb_error *err)
{
    struct page p = { 0 };
    enum sb_status rc = sb_source_create(&p.source, store, options, err);
    if (rc == SB_OK)
        rc = put_file(path, &p, err);
    sb_source_destroy(p.source);
    return rc;
}
