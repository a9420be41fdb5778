/* specbench certify: is every verifier what it declares? */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "harness/certify/certify.h"
#include "harness/cli/cli.h"
#include "results/report.h"

static const struct sb_usage usage = {
    .name = "certify",
    .examples = "  specbench certify\n"
                "  specbench certify --verifier rejection --verifier rejection:lenience=0.5\n"
                "  specbench certify --drafter small-lm:model=tiny-draft,k=4 --db x.db --checks\n"
                "  specbench certify --all --model model.gguf --db x.db --format json\n",
    .synopsis =
        "specbench certify [--drafter D]... [--verifier V]... [--quick | --all] [--model M] "
        "[--db FILE]",
    .about =
        "Proves that speculation leaves the target's law unchanged, or says by how much it does not.\n"
        "exact: every verifier on every kind of draft it takes, all random choices enumerated on small\n"
        "tables; the error must stay below 1e-12. sample: whole sessions, on toy models for every\n"
        "verifier and on --model for the drafters; a G test of the first 3 tokens against their exact\n"
        "law, and a drift test of every token along the drafts. greedy: token equality with plain\n"
        "decoding. Planted wrong rules go through the same tests and must be caught. All tests share\n"
        "one level of .001 (Holm); what fails is run once more with a new seed. A row per verifier:\n"
        "variation = total variation found on the tables; variation_upper, drift_upper = 95 % upper\n"
        "bounds from sampling: of the first tokens' law, and of the bias per token along the drafts.",
};

struct certify_options {
    struct sb_texts drafters, verifiers;
    const char *model, *db;
    bool all, quick, checks, quiet;
    int64_t seed, tables, draws, threads;
    enum sb_format format;
};

static enum sb_status print_view(struct sb_store *store, const struct certify_options *o,
                                 struct sb_error *err)
{
    const struct sb_report_options report = { .view = o->checks ? "checks" : "certificate" };
    struct sb_table *table = NULL;
    enum sb_status rc = sb_report_table(&table, store, &report, err);
    if (rc == SB_OK)
        rc = sb_table_print(table, stdout, o->format, err);
    sb_table_destroy(table);
    return rc == SB_OK ? sb_cli_flush(err) : rc;
}

/* Every check that is not as it should be, a line each. */
static void explain(const struct sb_certificate *c)
{
    for (size_t i = 0; i < c->n; i++) {
        const struct sb_check_row *row = &c->check[i].row;
        bool told = strcmp(row->verdict, "fail") == 0 || strcmp(row->verdict, "missed") == 0 ||
                    strcmp(row->verdict, "inconclusive") == 0;
        if (!told)
            continue;
        fprintf(stderr, "%s: %s%s%s, %s on %s", row->verdict, row->verifier,
                row->verifier_params[0] ? ":" : "", row->verifier_params, row->part, row->target);
        if (row->kind || row->drafter)
            fprintf(stderr, ", drafts %s", row->kind ? row->kind : row->drafter);
        if (strcmp(row->part, "exact") == 0)
            fprintf(stderr, ", error %.2g", row->max_error);
        fprintf(stderr, "%s%s\n", row->note ? ": " : "", row->note ? row->note : "");
    }
}

static enum sb_status conclude(const struct sb_certificate *c, const struct certify_options *o,
                               struct sb_error *err)
{
    explain(c);
    if (c->skipped[0] && !o->quiet)
        fprintf(stderr, "Not run here: %s\n", c->skipped);
    if (c->inconclusive && !o->quiet)
        fprintf(stderr, "%" PRId64 " checks are inconclusive; they count for nothing.\n",
                c->inconclusive);
    if (c->missed)
        return sb_fail(err, SB_EGATE,
                       "the certificate is refused: %" PRId64
                       " planted rules were not judged right, so the tests prove nothing",
                       c->missed);
    if (c->refuted)
        return sb_fail(err, SB_EGATE, "%" PRId64 " of %zu checks refute a declared guarantee",
                       c->refuted, c->n);
    if (!o->quiet)
        fprintf(stderr,
                "Every declared guarantee holds: %zu checks, %" PRId64
                " tests at one level of %g.%s%s\n",
                c->n, c->tests, SB_CERTIFY_LEVEL, o->db ? " Stored in " : "", o->db ? o->db : "");
    return SB_OK;
}

static enum sb_status certify(const struct certify_options *o, struct sb_error *err)
{
    const struct sb_certify_options options = {
        .all = o->all,
        .drafter = o->drafters.item,
        .n_drafters = o->drafters.n,
        .verifier = o->verifiers.item,
        .n_verifiers = o->verifiers.n,
        .model = o->model,
        .tables = o->tables,
        .draws = o->draws,
        .seed = (uint64_t)o->seed,
        .quiet = o->quiet,
        .stop = sb_cli_stop_flag(),
    };
    struct sb_certify_options run = options;
    struct sb_certificate certificate = { 0 };
    struct sb_models *models = sb_models_create();
    enum sb_status rc = models ? sb_store_open(&run.store, o->db ? o->db : ":memory:", NULL, err)
                               : sb_fail(err, SB_ENOMEM, "out of memory");
    if (rc == SB_OK)
        rc = sb_certify_run(&certificate, &run, models, err);
    if (rc == SB_OK)
        rc = print_view(run.store, o, err);
    if (rc == SB_OK)
        rc = conclude(&certificate, o, err);
    else if (rc == SB_EINTERRUPTED)
        sb_fail(err, rc, "interrupted after %zu checks; a certificate needs all of them%s%s",
                certificate.n, o->db ? "; these are kept in " : "", o->db ? o->db : "");
    sb_certificate_finish(&certificate);
    sb_store_close(run.store);
    sb_models_destroy(models);
    return rc;
}

int sb_cmd_certify(int argc, char **argv)
{
    struct certify_options o = { 0 };
    const struct sb_option options[] = {
        { "drafter", SB_OPT_LIST, &o.drafters, "NAME[:k=v,...]",
          "on the real model; may be repeated; default: all that run here", 0, 0 },
        { "verifier", SB_OPT_LIST, &o.verifiers, "NAME[:k=v,...]", "may be repeated; default: all",
          0, 0 },
        { "quick", SB_OPT_FLAG, &o.quick, NULL, "a minute (default)", 0, 0 },
        { "all", SB_OPT_FLAG, &o.all, NULL,
          "20 minutes: every lawful pair, every verifier under every setting", 0, 0 },
        { "model", SB_OPT_TEXT, &o.model, "M", "the real model; default tiny", 0, 0 },
        { "db", SB_OPT_TEXT, &o.db, "FILE", "store the certificate in a results database", 0, 0 },
        { "seed", SB_OPT_INT, &o.seed, "N", "of tables and sessions; default 0", 0, 9e15 },
        { "tables", SB_OPT_INT, &o.tables, "N",
          "tables per verifier and kind of draft; default 200, with --all 1,000", 1, 1e6 },
        { "draws", SB_OPT_INT, &o.draws, "N",
          "generations per prompt; default: by the part and the size", 1, 1e7 },
        { "checks", SB_OPT_FLAG, &o.checks, NULL, "print a row per check, not per verifier", 0, 0 },
        { "threads", SB_OPT_INT, &o.threads, "N", "default: the physical cores", 1, 1024 },
        { "format", SB_OPT_FORMAT, &o.format, "F", "table, md, csv or json", 0, 0 },
        { "quiet", SB_OPT_FLAG, &o.quiet, NULL, "no progress, no notes", 0, 0 },
        { 0 },
    };
    struct sb_error err;
    bool helped;
    enum sb_status rc = sb_options_parse(argc, argv, &usage, options, NULL, &helped, &err);
    if (rc == SB_OK && helped)
        return 0;
    if (rc == SB_OK && o.all && o.quick)
        rc = sb_fail(&err, SB_EUSAGE, "give either --quick or --all");
    if (rc == SB_OK)
        rc = sb_cli_set_threads(o.threads, &err);
    if (rc == SB_OK)
        rc = certify(&o, &err);
    return rc == SB_OK ? 0 : sb_cli_fail("certify", &err);
}
