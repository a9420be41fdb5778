/* specbench export: an experiment in the form of other tools. */
#include <stdio.h>

#include "harness/cli/cli.h"
#include "results/export.h"

static const struct sb_usage usage = {
    .name = "export",
    .examples = "  specbench export x.db --format spec-bench -o answers/\n"
                "  specbench export x.db --format spec-bench --arm pld -o pld.jsonl\n"
                "  specbench export x.db --format acceptance-json\n"
                "  specbench export x.db --format steps-csv -o steps.csv\n",
    .synopsis = "specbench export DB --format F [-o FILE|DIR] [--arm LABEL]...",
    .about =
        "Formats: spec-bench (answer files that Spec-Bench's speed.py reads, FOLDER/ARM.jsonl, or\n"
        "FOLDER/run_N/ARM.jsonl when there are several repeats), acceptance-json (counters per arm,\n"
        "under the names that serving engines use), steps-csv, steps-jsonl (every step). Only\n"
        "generations that ended well; spec-bench holds the questions that all exported arms and the\n"
        "baseline finished, and says how many it left out.",
};

static enum sb_status parse(struct sb_export_options *export, struct sb_texts *arms,
                            struct sb_texts *rest, int argc, char **argv, bool *helped,
                            struct sb_error *err)
{
    const char *format = NULL;
    const struct sb_option options[] = {
        { "format", SB_OPT_TEXT, &format, "F",
          "spec-bench, acceptance-json, steps-csv or steps-jsonl", 0, 0 },
        { "output", SB_OPT_TEXT, &export->path, "PATH",
          "or -o: a file, or for spec-bench a folder; default standard output", 0, 0 },
        { "arm", SB_OPT_LIST, arms, "LABEL", "export this arm only; may be repeated", 0, 0 },
        { "repeat", SB_OPT_INT, &export->repeat, "N", "export this repeat only, from 1", 1, 1e9 },
        { "experiment", SB_OPT_INT, &export->experiment_id, "ID",
          "which experiment; default the newest", 1, 9e15 },
        { 0 },
    };
    enum sb_status rc = sb_options_parse(argc, argv, &usage, options, rest, helped, err);
    if (rc != SB_OK || *helped)
        return rc;
    if (rest->n != 1)
        return sb_fail(err, SB_EUSAGE, "expected one database file; usage: %s", usage.synopsis);
    if (!format)
        return sb_fail(
            err, SB_EUSAGE,
            "--format is missing: spec-bench, acceptance-json, steps-csv or steps-jsonl");
    export->arm = arms->item;
    export->n_arms = arms->n;
    return sb_export_format_parse(&export->format, format, err);
}

int sb_cmd_export(int argc, char **argv)
{
    struct sb_export_options export = { 0 };
    struct sb_export_result result = { 0 };
    struct sb_texts arms = { 0 }, rest = { 0 };
    struct sb_store *store = NULL;
    struct sb_error err;
    bool helped;
    enum sb_status rc = parse(&export, &arms, &rest, argc, argv, &helped, &err);
    if (rc == SB_OK && helped)
        return 0;
    if (rc == SB_OK)
        rc = sb_store_open(&store, rest.item[0],
                           &(struct sb_store_options){ .must_exist = true, .read_only = true },
                           &err);
    if (rc == SB_OK)
        rc = sb_export(&result, store, &export, &err);
    if (rc == SB_OK)
        rc = sb_cli_flush(&err);
    sb_store_close(store);
    if (rc != SB_OK)
        return sb_cli_fail("export", &err);
    if (result.left_out)
        fprintf(stderr, "%zu answers left out: some arm did not finish their questions\n",
                result.left_out);
    if (export.path)
        fprintf(stderr, "%zu files in %s\n", result.files, export.path);
    return 0;
}
