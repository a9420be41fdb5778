/* specbench replay: recorded outputs to drafters, without the target. */
#include <inttypes.h>
#include <stdio.h>

#include "harness/cli/cli.h"
#include "harness/experiment/replay.h"

static const struct sb_usage usage = {
    .name = "replay",
    .examples = "  specbench replay x.db --drafter pld --drafter pld:k=4 --drafter sam\n"
                "  specbench replay x.db --drafter rest:store=chats.sbidx --view positions\n"
                "  specbench replay x.db --arm none --drafter merge:a=sam,b=pld --format csv\n",
    .synopsis = "specbench replay DB --drafter SPEC... [--arm LABEL] [--view V]",
    .about =
        "Feeds the outputs that an arm recorded (the baseline's, of the newest experiment) to drafters\n"
        "that need no target: accepted is what equals the recorded tokens, as in a run with the verifier\n"
        "greedy, or naive-sample. Nothing is stored. Views: drafting (per task and overall: MAT, MAT of\n"
        "steps with a draft, hit rate, microseconds per step), positions. Drafters that read the\n"
        "target's rows are refused.",
};

struct options {
    struct sb_texts drafters;
    const char *arm, *verifier, *policy, *view;
    int64_t experiment;
    enum sb_format format;
    bool quiet;
};

static enum sb_status print_view(struct sb_store *store, const struct options *o, const char *view,
                                 struct sb_error *err)
{
    const struct sb_report_options report = { .view = view };
    struct sb_table *table = NULL;
    enum sb_status rc = sb_report_table(&table, store, &report, err);
    if (rc == SB_OK)
        rc = sb_table_print(table, stdout, o->format, err);
    sb_table_destroy(table);
    return rc;
}

static enum sb_status replay(const struct options *o, const char *db, struct sb_error *err)
{
    struct sb_store *from = NULL, *to = NULL;
    struct sb_recorded_arm arm = { 0 };
    struct sb_replay_result result = { 0 };
    const struct sb_replay_options options = {
        .arm = &arm, .verifier = o->verifier, .policy = o->policy, .stop = sb_cli_stop_flag()
    };
    enum sb_status rc = sb_store_open(
        &from, db, &(struct sb_store_options){ .must_exist = true, .read_only = true }, err);
    if (rc == SB_OK)
        rc = sb_recorded_arm_find(&arm, from, o->experiment, o->arm, err);
    if (rc == SB_OK)
        rc = sb_store_open(&to, ":memory:", &(struct sb_store_options){ 0 }, err);
    if (rc == SB_OK)
        rc = sb_replay(from, to, o->drafters.item, o->drafters.n, &options, &result, err);
    if (rc == SB_OK)
        rc = print_view(to, o, o->view, err);
    if (rc == SB_OK && !o->quiet)
        fprintf(stderr, "%" PRId64 " generations of arm '%s' in %.2f s, %.0f per second%s%s\n",
                result.generations, arm.label, result.seconds,
                (double)result.generations / result.seconds,
                result.tokenizer_found ? "" : "; the target's tokenizer was not found",
                result.had_documents
                    ? "; documents of the data set are not recorded: llma and sad copy the prompt"
                    : "");
    sb_recorded_arm_finish(&arm);
    sb_store_close(from);
    sb_store_close(to);
    return rc;
}

int sb_cmd_replay(int argc, char **argv)
{
    struct options o = { .view = "drafting" };
    const struct sb_option options[] = {
        { .name = "drafter",
          .kind = SB_OPT_LIST,
          .dst = &o.drafters,
          .arg = "SPEC",
          .help = "name:k=v,k=v; may be repeated" },
        { .name = "arm",
          .kind = SB_OPT_TEXT,
          .dst = &o.arm,
          .arg = "LABEL",
          .help = "whose outputs; default the baseline's" },
        { .name = "experiment",
          .kind = SB_OPT_INT,
          .dst = &o.experiment,
          .arg = "ID",
          .help = "which experiment; default the newest",
          .min = 1,
          .max = 9e15 },
        { .name = "verifier",
          .kind = SB_OPT_TEXT,
          .dst = &o.verifier,
          .arg = "V",
          .help = "greedy or naive-sample; default as the run's temperature asks" },
        { .name = "policy",
          .kind = SB_OPT_TEXT,
          .dst = &o.policy,
          .arg = "SPEC",
          .help = "of all drafters; default each one's own" },
        { .name = "view",
          .kind = SB_OPT_TEXT,
          .dst = &o.view,
          .arg = "V",
          .help = "drafting (default) or positions" },
        { .name = "format",
          .kind = SB_OPT_FORMAT,
          .dst = &o.format,
          .arg = "F",
          .help = "table, md, csv or json" },
        { .name = "quiet", .kind = SB_OPT_FLAG, .dst = &o.quiet, .help = "only the table" },
        { 0 },
    };
    struct sb_texts rest = { 0 };
    struct sb_error err;
    bool helped;
    enum sb_status rc = sb_options_parse(argc, argv, &usage, options, &rest, &helped, &err);
    if (rc == SB_OK && helped)
        return 0;
    if (rc == SB_OK && (rest.n != 1 || o.drafters.n == 0))
        rc = sb_fail(&err, SB_EUSAGE, "expected one database and --drafter; usage: %s",
                     usage.synopsis);
    if (rc == SB_OK)
        rc = replay(&o, rest.item[0], &err);
    if (rc == SB_OK)
        rc = sb_cli_flush(&err);
    return rc == SB_OK ? 0 : sb_cli_fail("replay", &err);
}
