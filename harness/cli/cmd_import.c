/* specbench import: answer files of Spec-Bench into a results database. */
#include <stdio.h>

#include "harness/cli/cli.h"
#include "harness/core/alloc.h"
#include "results/import.h"

static const struct sb_usage usage = {
    .name = "import",
    .examples =
        "  specbench import eagle2.jsonl pld.jsonl --baseline vanilla.jsonl --db others.db\n"
        "  specbench report others.db --view tasks\n",
    .synopsis = "specbench import FILE.jsonl... --db DB [--baseline FILE] [--name N] [--target M]",
    .about =
        "Reads answer files as Spec-Bench writes them into an experiment of its own: an arm per file\n"
        "(its model_id), so that others' runs stand in the same tables, with MAT and specbench_speedup.\n"
        "The files do not say what was drafted, nor the time of a step, nor whether a method keeps the\n"
        "target's law: those figures stay empty. The same files again add nothing.",
};

struct arguments {
    const char *db, *baseline;
    struct sb_texts rest;
    struct sb_import_options import;
};

static enum sb_status parse(struct arguments *a, int argc, char **argv, bool *helped,
                            struct sb_error *err)
{
    const struct sb_option options[] = {
        { "db", SB_OPT_TEXT, &a->db, "FILE", "the results database, made when it is not there", 0,
          0 },
        { "baseline", SB_OPT_TEXT, &a->baseline, "FILE", "answers of plain decoding", 0, 0 },
        { "name", SB_OPT_TEXT, &a->import.name, "N", "of the experiment; default import", 0, 0 },
        { "target", SB_OPT_TEXT, &a->import.target, "M", "the model that answered; default unknown",
          0, 0 },
        { 0 },
    };
    enum sb_status rc = sb_options_parse(argc, argv, &usage, options, &a->rest, helped, err);
    if (rc != SB_OK || *helped)
        return rc;
    if (a->rest.n == 0 && !a->baseline)
        return sb_fail(err, SB_EUSAGE, "expected answer files; usage: %s", usage.synopsis);
    if (!a->db)
        return sb_fail(err, SB_EUSAGE, "--db is missing: which database takes the answers?");
    return SB_OK;
}

/* Everything is read before the database is touched, so that a bad file leaves it as it was. */
static enum sb_status import(struct sb_import_result *result, const struct arguments *a,
                             struct sb_error *err)
{
    size_t n = 0, total = a->rest.n + (a->baseline ? 1 : 0);
    struct sb_store *store = NULL;
    struct sb_answers *files = sb_alloc_zero(total, sizeof *files);
    enum sb_status rc =
        files ? SB_OK : sb_fail(err, SB_ENOMEM, "out of memory for %zu files", total);
    if (rc == SB_OK && a->baseline && (rc = sb_answers_load(&files[0], a->baseline, err)) == SB_OK)
        n++;
    for (size_t i = 0; i < a->rest.n && rc == SB_OK; i++)
        if ((rc = sb_answers_load(&files[n], a->rest.item[i], err)) == SB_OK)
            n++;
    if (rc == SB_OK)
        rc = sb_answers_check(files, n, err);
    if (rc == SB_OK)
        rc = sb_store_open(&store, a->db, NULL, err);
    if (rc == SB_OK)
        rc = sb_import(result, store, files, n, a->baseline, &a->import, err);
    sb_store_close(store);
    for (size_t i = 0; i < n; i++)
        sb_answers_finish(&files[i]);
    sb_free(files);
    return rc;
}

int sb_cmd_import(int argc, char **argv)
{
    struct arguments a = { 0 };
    struct sb_import_result result = { 0 };
    struct sb_error err;
    bool helped;
    enum sb_status rc = parse(&a, argc, argv, &helped, &err);
    if (rc == SB_OK && helped)
        return 0;
    if (rc == SB_OK)
        rc = import(&result, &a, &err);
    if (rc != SB_OK)
        return sb_cli_fail("import", &err);
    fprintf(stderr, "%zu arms, %zu answers, %zu steps are experiment %lld of %s\n", result.arms,
            result.answers, result.steps, (long long)result.experiment_id, a.db);
    return 0;
}
