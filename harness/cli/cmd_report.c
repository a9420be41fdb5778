/* specbench report: views of a results database. */
#include <stdio.h>
#include <string.h>

#include "harness/cli/cli.h"
#include "results/html/html.h"
#include "results/report.h"
#include "results/report_warnings.h"

static const struct sb_usage usage = {
    .name = "report",
    .examples = "  specbench report x.db\n"
                "  specbench report x.db --view positions --format csv\n"
                "  specbench report x.db --view compare --arms pld:k=10,small-lm\n"
                "  specbench report x.db --view cost --on other-machine.json\n"
                "  specbench report x.db --html report.html\n",
    .synopsis = "specbench report DB [--view V] [--experiment ID] [--arms A,B] [--on HOST.json] "
                "[--html FILE] [--format F]",
    .about =
        "Prints a view of the newest experiment in a results database. Views: leaderboard, tasks,\n"
        "acceptance (all its figures), positions (by place in the draft), ranks (by depth and sibling),\n"
        "sources (by the drafter's tag), histogram, breakdown (shares of time), latency (percentiles),\n"
        "drafting (hit rate, draft time per task), runs, coverage (done of planned), speed, compare, cost, warnings; of the newest certificate: certificate (a row per verifier),\n"
        "checks. A run that is partial, or whose arms differ in their prompts, is named on stderr.\n"
        "MAT = tokens kept per step, all steps counted; prefill is never a step. speedup = decode\n"
        "time of the baseline / of the arm on the same prompts, with a 95 % paired bootstrap\n"
        "interval over questions. A speedup within the noise floor (from an A/A arm, run --aa, or else\n"
        "from the baseline's repeats) says so in `note`. speed has all speed figures, prefill included\n"
        "too; compare sets two arms side by side (--arms; default the two fastest); cost predicts\n"
        "speedups from the cost curve, here or with --on for the machine of a `bench --format json`\n"
        "file; warnings lists noise, drift, outliers and load, of which those that count are also on\n"
        "stderr. --html writes one page with every view that has rows and their plots (by gnuplot, package\n"
        "gnuplot-nox); it loads nothing, and reads well on a phone and in print.",
};

/* After the table: what is partial must not pass for the whole. `runs` lists all experiments by itself. */
static void print_notes(struct sb_store *store, const struct sb_report_options *report)
{
    char notes[SB_NOTES_BYTES];
    bool all = report->view && strcmp(report->view, "runs") == 0 && report->experiment_id == 0;
    if (sb_report_notes(notes, store, all ? -1 : report->experiment_id, NULL) == SB_OK)
        fputs(notes, stderr);
}

static bool view_is(const char *view, const char *name)
{
    return strcmp(view ? view : "leaderboard", name) == 0;
}

static bool shows_speed(const char *view)
{
    static const char *const names[] = { "leaderboard", "tasks", "speed", "compare", "cost" };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (view_is(view, names[i]))
            return true;
    return false;
}

static enum sb_status check_view_options(const struct sb_report_options *o, struct sb_error *err)
{
    if (o->arms && !view_is(o->view, "compare"))
        return sb_fail(err, SB_EUSAGE, "--arms goes with --view compare");
    if (o->on && !view_is(o->view, "cost"))
        return sb_fail(err, SB_EUSAGE, "--on goes with --view cost");
    return SB_OK;
}

int sb_cmd_report(int argc, char **argv)
{
    enum sb_format format = SB_FORMAT_TABLE;
    struct sb_report_options report = { 0 };
    const char *html = NULL;
    int64_t resamples = 0, seed = 0;
    const struct sb_option options[] = {
        { .name = "view",
          .kind = SB_OPT_TEXT,
          .dst = &report.view,
          .arg = "V",
          .help = "which view; default leaderboard" },
        { .name = "experiment",
          .kind = SB_OPT_INT,
          .dst = &report.experiment_id,
          .arg = "ID",
          .help = "which experiment; default the newest",
          .min = 1,
          .max = 9e15 },
        { .name = "resamples",
          .kind = SB_OPT_INT,
          .dst = &resamples,
          .arg = "N",
          .help = "bootstrap resamples; default 10,000",
          .min = 100,
          .max = 1e7 },
        { .name = "seed",
          .kind = SB_OPT_INT,
          .dst = &seed,
          .arg = "N",
          .help = "seed of the bootstrap; default 0",
          .min = 0,
          .max = 9e15 },
        { .name = "arms",
          .kind = SB_OPT_TEXT,
          .dst = &report.arms,
          .arg = "A,B",
          .help = "labels of the two arms that compare sets side by side" },
        { .name = "on",
          .kind = SB_OPT_TEXT,
          .dst = &report.on,
          .arg = "FILE",
          .help = "cost: predict for the machine of this specbench bench --format json" },
        { .name = "format",
          .kind = SB_OPT_FORMAT,
          .dst = &format,
          .arg = "F",
          .help = "table, md, csv or json" },
        { .name = "html",
          .kind = SB_OPT_TEXT,
          .dst = &html,
          .arg = "FILE",
          .help = "write a page instead of printing a view" },
        { 0 },
    };
    struct sb_texts rest = { 0 };
    struct sb_error err;
    bool helped;
    struct sb_store *store = NULL;
    struct sb_table *table = NULL;
    enum sb_status rc = sb_options_parse(argc, argv, &usage, options, &rest, &helped, &err);
    if (rc == SB_OK && helped)
        return 0;
    if (rc == SB_OK && rest.n != 1)
        rc = sb_fail(&err, SB_EUSAGE, "expected one database file; usage: %s", usage.synopsis);
    if (rc == SB_OK)
        rc = check_view_options(&report, &err);
    if (rc == SB_OK && html && (report.view || format != SB_FORMAT_TABLE))
        rc = sb_fail(&err, SB_EUSAGE, "--html holds all views; leave out --view and --format");
    report.resamples = (int)resamples;
    report.seed = (uint64_t)seed;
    if (rc == SB_OK)
        rc = sb_store_open(&store, rest.item[0],
                           &(struct sb_store_options){ .must_exist = true, .read_only = true },
                           &err);
    if (rc == SB_OK && html)
        rc = sb_html_report(html, store, &report, &err);
    if (rc == SB_OK && !html)
        rc = sb_report_table(&table, store, &report, &err);
    if (rc == SB_OK && !html)
        rc = sb_table_print(table, stdout, format, &err);
    if (rc == SB_OK)
        rc = sb_cli_flush(&err);
    if (rc == SB_OK)
        print_notes(store, &report);
    if (rc == SB_OK && shows_speed(report.view))
        rc = sb_warnings_print(stderr, "report", store, report.experiment_id, &err);
    sb_table_destroy(table);
    sb_store_close(store);
    return rc == SB_OK ? 0 : sb_cli_fail("report", &err);
}
