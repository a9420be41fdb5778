/* specbench verify: does a results database hold what it says? */
#include <inttypes.h>
#include <stdio.h>

#include "harness/cli/cli.h"
#include "results/verify.h"

static const struct sb_usage usage = {
    .name = "verify",
    .examples = "  specbench verify x.db\n  specbench verify x.db --format json\n",
    .synopsis = "specbench verify DB [--format F]",
    .about =
        "Computes every headline figure of a results database again, from the raw rows of generations,\n"
        "steps and draft nodes and without its views, and compares: MAT, acceptance by position, rank\n"
        "and source, histograms, latencies, shares of time, equality with the baseline. Holds the rows\n"
        "against each other too: tokens against steps, draft trees against what was accepted, references,\n"
        "the file itself. A row per check: how many statements were checked, how many fail, the first.\n"
        "Exit 0 all hold, 3 one does not. Partial runs are no failure; a line on stderr names them.",
};

static enum sb_status verify(struct sb_store *store, enum sb_format format, struct sb_error *err)
{
    struct sb_verification result;
    struct sb_table *table = NULL;
    char notes[SB_NOTES_BYTES] = "";
    enum sb_status rc = sb_verify(&result, store, err);
    if (rc == SB_OK)
        rc = sb_verify_table(&table, &result, err);
    if (rc == SB_OK)
        rc = sb_table_print(table, stdout, format, err);
    if (rc == SB_OK)
        rc = sb_cli_flush(err);
    sb_table_destroy(table);
    if (rc == SB_OK && sb_report_notes(notes, store, -1, NULL) == SB_OK)
        fputs(notes, stderr);
    for (size_t i = 0; rc == SB_OK && i < result.n; i++)
        if (result.check[i].failed)
            rc = sb_fail(err, SB_EGATE, "%" PRId64 " of %zu checks fail, first %s: %s",
                         result.failed, result.n, result.check[i].name, result.check[i].first);
    return rc;
}

int sb_cmd_verify(int argc, char **argv)
{
    enum sb_format format = SB_FORMAT_TABLE;
    const struct sb_option options[] = {
        { "format", SB_OPT_FORMAT, &format, "F", "table, md, csv or json", 0, 0 },
        { 0 },
    };
    struct sb_texts rest = { 0 };
    struct sb_error err;
    bool helped;
    struct sb_store *store = NULL;
    enum sb_status rc = sb_options_parse(argc, argv, &usage, options, &rest, &helped, &err);
    if (rc == SB_OK && helped)
        return 0;
    if (rc == SB_OK && rest.n != 1)
        rc = sb_fail(&err, SB_EUSAGE, "expected one database file; usage: %s", usage.synopsis);
    if (rc == SB_OK)
        rc = sb_store_open(&store, rest.item[0],
                           &(struct sb_store_options){ .must_exist = true, .read_only = true },
                           &err);
    if (rc == SB_OK)
        rc = verify(store, format, &err);
    sb_store_close(store);
    return rc == SB_OK ? 0 : sb_cli_fail("verify", &err);
}
