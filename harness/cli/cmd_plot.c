/* specbench plot: a view of a results database as a picture. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "harness/cli/cli.h"
#include "harness/core/alloc.h"
#include "results/plot/plot.h"

static const struct sb_usage usage = {
    .name = "plot",
    .examples = "  specbench plot x.db -o speedup.svg\n"
                "  specbench plot x.db --view positions -o positions.pdf\n"
                "  specbench plot x.db --view breakdown --size 1600x900 -o time.png\n",
    .synopsis = "specbench plot DB [--view V] -o FILE.svg|png|pdf [--size WxH]",
    .about =
        "Draws a view of the newest experiment with gnuplot (package gnuplot-nox). Views: leaderboard\n"
        "and tasks (speedup with its 95 % interval), cost (MAT against speedup, with a ray MAT / c(M) for\n"
        "each M that `bench --db` measured), positions (acceptance by position), histogram (draft tokens\n"
        "accepted per step), ranks (acceptance by rank among siblings), breakdown (shares of time).\n"
        "The same database gives the same picture. --size is in pixels; a PDF has 96 to the inch.",
};

static enum sb_status write_file(const char *path, const char *data, size_t n, struct sb_error *err)
{
    FILE *f = fopen(path, "wb");
    if (!f)
        return sb_fail(err, SB_EIO, "cannot write %s: %s", path, strerror(errno));
    bool good = fwrite(data, 1, n, f) == n;
    good = fclose(f) == 0 && good;
    return good ? SB_OK : sb_fail(err, SB_EIO, "cannot write %s: %s", path, strerror(errno));
}

static enum sb_status plot(const char *db, const char *path, struct sb_plot_options *o,
                           const struct sb_report_options *report, struct sb_error *err)
{
    struct sb_store *store = NULL;
    struct sb_source *source = NULL;
    char *picture = NULL;
    size_t n = 0;
    enum sb_status rc = sb_plot_format_of(&o->format, path, err);
    if (rc == SB_OK)
        rc = sb_store_open(
            &store, db, &(struct sb_store_options){ .must_exist = true, .read_only = true }, err);
    if (rc == SB_OK)
        rc = sb_source_create(&source, store, report, err);
    if (rc == SB_OK)
        rc = sb_plot_draw(&picture, &n, source, o, err);
    if (rc == SB_OK)
        rc = write_file(path, picture, n, err);
    sb_free(picture);
    sb_source_destroy(source);
    sb_store_close(store);
    return rc;
}

int sb_cmd_plot(int argc, char **argv)
{
    const char *output = NULL, *size = NULL;
    struct sb_plot_options o = { 0 };
    struct sb_report_options report = { 0 };
    int64_t seed = 0;
    const struct sb_option options[] = {
        { .name = "output",
          .kind = SB_OPT_TEXT,
          .dst = &output,
          .arg = "FILE",
          .help = "the picture: .svg, .png or .pdf",
          .letter = 'o' },
        { .name = "view",
          .kind = SB_OPT_TEXT,
          .dst = &o.view,
          .arg = "V",
          .help = "which view; default leaderboard" },
        { .name = "size",
          .kind = SB_OPT_TEXT,
          .dst = &size,
          .arg = "WxH",
          .help = "in pixels; default 760 wide, as high as the rows need" },
        { .name = "experiment",
          .kind = SB_OPT_INT,
          .dst = &report.experiment_id,
          .arg = "ID",
          .help = "which experiment; default the newest",
          .min = 1,
          .max = 9e15 },
        { .name = "seed",
          .kind = SB_OPT_INT,
          .dst = &seed,
          .arg = "N",
          .help = "seed of the bootstrap; default 0",
          .min = 0,
          .max = 9e15 },
        { 0 },
    };
    struct sb_texts rest = { 0 };
    struct sb_error err;
    bool helped;
    enum sb_status rc = sb_options_parse(argc, argv, &usage, options, &rest, &helped, &err);
    if (rc == SB_OK && helped)
        return 0;
    report.seed = (uint64_t)seed;
    if (rc == SB_OK && rest.n != 1)
        rc = sb_fail(&err, SB_EUSAGE, "expected one database file; usage: %s", usage.synopsis);
    if (rc == SB_OK && !output)
        rc = sb_fail(&err, SB_EUSAGE, "expected -o FILE.svg, .png or .pdf; usage: %s",
                     usage.synopsis);
    if (rc == SB_OK && size)
        rc = sb_plot_size(&o.width, &o.height, size, &err);
    if (rc == SB_OK)
        rc = plot(rest.item[0], output, &o, &report, &err);
    return rc == SB_OK ? 0 : sb_cli_fail("plot", &err);
}
