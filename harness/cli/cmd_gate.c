/* specbench gate: a run against a baseline; exit 0 holds, 3 does not, 2 cannot tell. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "harness/cli/cli.h"
#include "harness/core/alloc.h"
#include "results/gate.h"

static const struct sb_usage usage = {
    .name = "gate",
    .examples =
        "  specbench gate x.db --write-baseline base.json\n"
        "  specbench gate x.db --baseline base.json\n"
        "  specbench gate x.db --baseline yesterday.db --mode statistical --max-drop 0.02\n"
        "  specbench gate x.db --baseline base.json --junit gate.xml --summary \"$GITHUB_STEP_SUMMARY\"\n",
    .synopsis = "specbench gate DB --baseline BASE.(db|json) [options]",
    .about =
        "Did drafts get worse? Compares MAT (tokens kept per step) of a run with a baseline: another\n"
        "database, or the small JSON file that --write-baseline makes. Greedy runs on exact arithmetic\n"
        "are compared as whole numbers, prompt by prompt (deterministic): the gate fails when MAT fell\n"
        "by more than --max-drop overall, or by more than 2 % in a task. Otherwise (statistical) the\n"
        "gate holds when a drop of more than --max-drop is excluded (paired log MAT, 95 %, Holm over\n"
        "arms); when the prompts are too few to show such a drop it says so. Times are never judged\n"
        "unless asked. Exit: 0 holds, 3 does not, 2 the set-up cannot answer.",
};

struct arguments {
    const char *baseline, *mode, *junit, *summary, *write_baseline;
    struct sb_texts arms, rest;
    int64_t experiment_id, baseline_experiment_id;
    enum sb_format format;
    struct sb_gate_options gate;
};

static enum sb_status parse(struct arguments *a, int argc, char **argv, bool *helped,
                            struct sb_error *err)
{
    const struct sb_option options[] = {
        { "baseline", SB_OPT_TEXT, &a->baseline, "BASE", "a results database or a baseline file", 0,
          0 },
        { "arm", SB_OPT_LIST, &a->arms, "LABEL", "gate this arm only; may be repeated", 0, 0 },
        { "max-drop", SB_OPT_NUMBER, &a->gate.max_drop, "X",
          "allowed drop of MAT, relative: 0.02 is 2 %; default 0", 0, 0.99 },
        { "max-task-drop", SB_OPT_NUMBER, &a->gate.max_task_drop, "X",
          "allowed drop in one task (deterministic); default 0.02", 1e-9, 1 },
        { "mode", SB_OPT_TEXT, &a->mode, "M", "deterministic, statistical or auto (default)", 0,
          0 },
        { "speed", SB_OPT_FLAG, &a->gate.rows, NULL,
          "also gate on rows computed per token kept (no times)", 0, 0 },
        { "min-speedup", SB_OPT_NUMBER, &a->gate.min_speedup, "X",
          "also gate on measured speedup: its interval must lie above X", 0, 1e6 },
        { "experiment", SB_OPT_INT, &a->experiment_id, "ID", "of DB; default the newest", 1, 9e15 },
        { "baseline-experiment", SB_OPT_INT, &a->baseline_experiment_id, "ID",
          "of a baseline database; default the newest", 1, 9e15 },
        { "junit", SB_OPT_TEXT, &a->junit, "FILE", "JUnit XML, a test case per arm", 0, 0 },
        { "summary", SB_OPT_TEXT, &a->summary, "FILE", "append a Markdown summary", 0, 0 },
        { "write-baseline", SB_OPT_TEXT, &a->write_baseline, "FILE",
          "write this run as a baseline file", 0, 0 },
        { "format", SB_OPT_FORMAT, &a->format, "F", "table, md, csv or json", 0, 0 },
        { 0 },
    };
    enum sb_status rc = sb_options_parse(argc, argv, &usage, options, &a->rest, helped, err);
    if (rc != SB_OK || *helped)
        return rc;
    if (a->rest.n != 1)
        return sb_fail(err, SB_EUSAGE, "expected one database file; usage: %s", usage.synopsis);
    if (!a->baseline && !a->write_baseline)
        return sb_fail(err, SB_EUSAGE,
                       "nothing to compare with: --baseline names a database or a baseline file,"
                       " --write-baseline makes one");
    a->gate.arm = a->arms.item;
    a->gate.n_arms = a->arms.n;
    return a->mode ? sb_gate_mode_parse(&a->gate.mode, a->mode, err) : SB_OK;
}

/* Beside the file, then renamed, so that a full disk leaves the old baseline as it was. */
static enum sb_status write_baseline(const struct sb_record *record, const char *path,
                                     struct sb_error *err)
{
    char *temporary = sb_strf("%s.new", path);
    FILE *f = temporary ? fopen(temporary, "wb") : NULL;
    if (!f) {
        enum sb_status rc = temporary ? sb_fail(err, SB_EIO, "%s: %s", path, strerror(errno))
                                      : sb_fail(err, SB_ENOMEM, "%s: out of memory", path);
        sb_free(temporary);
        return rc;
    }
    enum sb_status rc = sb_record_write(record, f, err);
    bool failed = ferror(f) != 0;
    failed = fclose(f) != 0 || failed;
    if (rc == SB_OK && (failed || rename(temporary, path) != 0))
        rc = sb_fail(err, SB_EIO, "%s: %s", path, strerror(errno));
    if (rc != SB_OK)
        remove(temporary);
    else
        fprintf(stderr, "Baseline of %zu arms written to %s\n", record->n_arms, path);
    sb_free(temporary);
    return rc;
}

static enum sb_status append_summary(const struct sb_gate *gate, const char *path,
                                     struct sb_error *err)
{
    FILE *f = fopen(path, "ab");
    if (!f)
        return sb_fail(err, SB_EIO, "%s: %s", path, strerror(errno));
    enum sb_status rc = sb_gate_print(gate, f, SB_FORMAT_MD, err);
    if (fclose(f) != 0 && rc == SB_OK)
        rc = sb_fail(err, SB_EIO, "%s: %s", path, strerror(errno));
    return rc;
}

/* What a reader should know beside the verdict: arms that nobody compares, methods that changed. */
static void print_notes(const struct sb_gate *gate, const struct sb_record *now,
                        const struct sb_record *base, bool all_arms)
{
    for (size_t i = 0; i < now->n_arms && all_arms; i++)
        if (!sb_record_arm(base, now->arm[i].label))
            fprintf(stderr, "note: arm '%s' is not in the baseline and is not compared\n",
                    now->arm[i].label);
    for (size_t i = 0; i < gate->n_arms; i++)
        if (strcmp(gate->arm[i].method, gate->arm[i].old_method) != 0)
            fprintf(stderr, "note: arm '%s' was '%s' in the baseline, is '%s' now\n",
                    gate->arm[i].label, gate->arm[i].old_method, gate->arm[i].method);
}

static enum sb_status report(const struct sb_gate *gate, const struct arguments *a,
                             struct sb_error *err)
{
    char headline[600];
    enum sb_status rc = sb_gate_print(gate, stdout, a->format, err);
    if (rc == SB_OK)
        rc = sb_cli_flush(err);
    if (rc == SB_OK && a->junit)
        rc = sb_gate_junit(gate, a->junit, err);
    if (rc == SB_OK && a->summary)
        rc = append_summary(gate, a->summary, err);
    if (rc != SB_OK)
        return rc;
    sb_gate_headline(gate, headline, sizeof headline);
    if (gate->outcome != SB_GATE_HOLDS)
        return sb_fail(err, gate->outcome == SB_GATE_FAILS ? SB_EGATE : SB_EINPUT, "%s", headline);
    fprintf(stderr, "specbench gate: %s\n", headline);
    return SB_OK;
}

static enum sb_status compare(const struct sb_record *now, struct arguments *a,
                              struct sb_error *err)
{
    struct sb_record base = { 0 };
    struct sb_gate gate = { 0 };
    enum sb_status rc = sb_record_open(&base, a->baseline, a->baseline_experiment_id, err);
    if (rc == SB_OK)
        rc = sb_gate_run(&gate, now, &base, &a->gate, err);
    if (rc == SB_OK) {
        print_notes(&gate, now, &base, a->arms.n == 0);
        rc = report(&gate, a, err);
    }
    sb_gate_finish(&gate);
    sb_record_finish(&base);
    return rc;
}

int sb_cmd_gate(int argc, char **argv)
{
    struct arguments a = { 0 };
    struct sb_record now = { 0 };
    struct sb_error err;
    bool helped;
    enum sb_status rc = parse(&a, argc, argv, &helped, &err);
    if (rc == SB_OK && helped)
        return 0;
    if (rc == SB_OK)
        rc = sb_store_open(&a.gate.store, a.rest.item[0],
                           &(struct sb_store_options){ .must_exist = true, .read_only = true },
                           &err);
    if (rc == SB_OK)
        rc = sb_record_read_store(&now, a.gate.store, a.experiment_id, &err);
    if (rc == SB_OK && a.baseline)
        rc = compare(&now, &a, &err);
    if (rc == SB_OK && a.write_baseline)
        rc = write_baseline(&now, a.write_baseline, &err);
    sb_record_finish(&now);
    sb_store_close(a.gate.store);
    return rc == SB_OK ? 0 : sb_cli_fail("gate", &err);
}
