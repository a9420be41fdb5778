/* specbench run: an experiment from options, or from a Lua script. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "harness/cli/cli.h"
#include "harness/experiment/experiment.h"
#include "harness/lua/lua_specbench.h"
#include "results/report_warnings.h"

static const struct sb_usage usage = {
    .name = "run",
    .examples =
        "  specbench run scripts/quickstart.lua\n"
        "  specbench run --target tiny --dataset mini --drafter none --drafter pld:k=10 \\\n"
        "      --drafter small-lm:model=tiny-draft,k=4 --db x.db\n"
        "  specbench run --target tiny --dataset spec-bench:question.jsonl --take 4 --drafter pld\n",
    .synopsis =
        "specbench run SCRIPT.lua [options], or specbench run --target MODEL --drafter NAME...",
    .about =
        "Runs every prompt with every arm, interleaved, and stores each step in a SQLite database.\n"
        "Every finished prompt is committed: Ctrl-C loses nothing, --resume goes on. A plain-decoding\n"
        "baseline (drafter none) is added when it is missing. Without --resume the same command\n"
        "starts a run of its own in the same database. --aa runs the baseline twice: what it is away\n"
        "from itself is the noise floor, and no speedup below it is printed as one.",
};

struct run_options {
    struct sb_plan plan;
    struct sb_texts drafters, verifiers, policies, set;
    const char *db;
    bool resume, dry_run, quiet, no_baseline, no_cost_curve;
    int64_t threads;
    enum sb_format format;
};

static enum sb_status parse_optional(struct sb_spec *out, const struct sb_texts *texts,
                                     struct sb_error *err)
{
    *out = (struct sb_spec){ 0 };
    if (texts->n > 1)
        return sb_fail(err, SB_EUSAGE,
                       "give one verifier and one policy; to compare several, run a "
                       "Lua script");
    return texts->n ? sb_spec_parse(out, texts->item[0], err) : SB_OK;
}

static enum sb_status add_arm(struct run_options *o, const char *text, struct sb_error *err)
{
    struct sb_spec drafter = { 0 }, verifier = { 0 }, policy = { 0 };
    enum sb_status rc = sb_spec_parse(&drafter, text, err);
    if (rc == SB_OK)
        rc = parse_optional(&verifier, &o->verifiers, err);
    if (rc == SB_OK)
        rc = parse_optional(&policy, &o->policies, err);
    if (rc == SB_OK)
        return sb_plan_add(&o->plan, drafter, verifier, policy, NULL, err);
    sb_spec_finish(&drafter);
    sb_spec_finish(&verifier);
    sb_spec_finish(&policy);
    return rc;
}

static enum sb_status add_arms(struct run_options *o, struct sb_error *err)
{
    enum sb_status rc = SB_OK;
    for (size_t i = 0; i < o->drafters.n && rc == SB_OK; i++)
        rc = add_arm(o, o->drafters.item[i], err);
    return rc;
}

static enum sb_status print_leaderboard(struct sb_store *store, int64_t experiment_id,
                                        enum sb_format format, struct sb_error *err)
{
    const struct sb_report_options report = { .experiment_id = experiment_id };
    struct sb_table *table = NULL;
    enum sb_status rc = sb_report_table(&table, store, &report, err);
    if (rc == SB_OK)
        rc = sb_table_print(table, stdout, format, err);
    sb_table_destroy(table);
    return rc == SB_OK ? sb_cli_flush(err) : rc;
}

/* "Outputs: ..." on stderr: what a reader of the table must know, and is not in it. */
static enum sb_status summarise(struct sb_store *store, const struct sb_run_result *result,
                                const char *db, struct sb_error *err)
{
    struct sb_equality e;
    enum sb_status rc = sb_report_equality(&e, store, result->experiment_id, err);
    if (rc != SB_OK)
        return rc;
    if (result->errors)
        fprintf(stderr,
                "%" PRId64 " generations failed; see: sqlite3 %s \"SELECT error, count(*) FROM "
                "generation WHERE status = 'error' GROUP BY 1\"\n",
                result->errors, db);
    if (rc == SB_OK)
        rc = sb_warnings_print(stderr, "run", store, result->experiment_id, err);
    if (rc != SB_OK)
        return rc;
    if (e.compared && e.equal == e.compared)
        fprintf(stderr,
                "Outputs of all arms%s are equal to plain decoding, token for token (%" PRId64
                " generations compared).\n",
                e.lossy ? " but lossy ones" : "", e.compared);
    else if (e.compared)
        fprintf(stderr,
                "Outputs DIFFER from plain decoding in %" PRId64 " of %" PRId64
                " generations, first: %s\n",
                e.compared - e.equal, e.compared, e.first_difference);
    fprintf(stderr,
            "Results are in %s (experiment %" PRId64 "); specbench report %s --view tasks\n", db,
            result->experiment_id, db);
    return SB_OK;
}

static enum sb_status run_plan(struct run_options *o, struct sb_error *err)
{
    struct sb_store *store = NULL;
    struct sb_run_result result = { 0 };
    bool added = false;
    enum sb_status rc = add_arms(o, err);
    if (rc == SB_OK)
        rc = sb_plan_complete(&o->plan, &added, err);
    struct sb_models *models = rc == SB_OK ? sb_models_create() : NULL;
    if (rc == SB_OK && !models)
        rc = sb_fail(err, SB_ENOMEM, "out of memory");
    if (rc == SB_OK) {
        const struct sb_run_options run = { .resume = o->resume, .dry_run = true };
        rc = sb_experiment_run(&o->plan, models, NULL, &run, &result,
                               err); /* refuse before writing */
    }
    if (rc == SB_OK && o->dry_run) {
        printf("%" PRId64 " generations planned over %zu arms; nothing was run\n", result.planned,
               o->plan.n_arms);
    } else if (rc == SB_OK) {
        const struct sb_run_options run = { .resume = o->resume,
                                            .quiet = o->quiet,
                                            .stop = sb_cli_stop_flag() };
        rc = sb_store_open(&store, o->db, NULL, err);
        if (rc == SB_OK && added && !o->quiet)
            fputs("specbench run: added the baseline arm 'none' (--no-baseline leaves it out)\n",
                  stderr);
        if (rc == SB_OK)
            rc = sb_experiment_run(&o->plan, models, store, &run, &result, err);
        if (rc == SB_OK)
            rc = print_leaderboard(store, result.experiment_id, o->format, err);
        if (rc == SB_OK)
            rc = summarise(store, &result, o->db, err);
        else if (rc == SB_EINTERRUPTED)
            sb_fail(err, rc,
                    "interrupted; %" PRId64 " of %" PRId64 " generations are in %s; add "
                    "--resume to the same command to go on",
                    result.resumed + result.done, result.planned, o->db);
    }
    sb_store_close(store);
    sb_models_destroy(models);
    return rc;
}

static enum sb_status run_script(struct run_options *o, const char *path, struct sb_error *err)
{
    const struct sb_lua_options lua = {
        .db = o->db,
        .set = o->set.item,
        .n_set = o->set.n,
        .resume = o->resume,
        .dry_run = o->dry_run,
        .quiet = o->quiet,
        .format = o->format,
        .stop = sb_cli_stop_flag(),
    };
    if (o->drafters.n || o->verifiers.n || o->policies.n || o->plan.assignments.n)
        return sb_fail(err, SB_EUSAGE,
                       "%s describes its own experiment; pass values to it with --set "
                       "k=v, or leave the script out",
                       path);
    return sb_lua_run(path, &lua, err);
}

static size_t fill_options(struct sb_option *out, char names[][SB_FLAG_MAX], struct run_options *o)
{
    const struct sb_option own[] = {
        { .name = "drafter",
          .kind = SB_OPT_LIST,
          .dst = &o->drafters,
          .arg = "NAME[:k=v,...]",
          .help = "an arm; may be repeated (specbench list drafters)" },
        { .name = "verifier",
          .kind = SB_OPT_LIST,
          .dst = &o->verifiers,
          .arg = "NAME[:k=v,...]",
          .help = "for all arms; default: the strongest exact one" },
        { .name = "policy",
          .kind = SB_OPT_LIST,
          .dst = &o->policies,
          .arg = "NAME[:k=v,...]",
          .help = "draft-length policy for all arms; default: the drafter's" },
        { .name = "db",
          .kind = SB_OPT_TEXT,
          .dst = &o->db,
          .arg = "FILE",
          .help = "results database; default specbench.db" },
        { .name = "resume",
          .kind = SB_OPT_FLAG,
          .dst = &o->resume,
          .help = "go on with the newest run of this experiment" },
        { .name = "dry-run",
          .kind = SB_OPT_FLAG,
          .dst = &o->dry_run,
          .help = "check everything, run nothing" },
        { .name = "set",
          .kind = SB_OPT_LIST,
          .dst = &o->set,
          .arg = "k=v",
          .help = "a value for the script, in sb.set; may be repeated" },
        { .name = "threads",
          .kind = SB_OPT_INT,
          .dst = &o->threads,
          .arg = "N",
          .help = "default: the physical cores",
          .min = 1,
          .max = 1024 },
        { .name = "format",
          .kind = SB_OPT_FORMAT,
          .dst = &o->format,
          .arg = "F",
          .help = "table, md, csv or json" },
        { .name = "quiet", .kind = SB_OPT_FLAG, .dst = &o->quiet, .help = "no progress, no notes" },
        { .name = "no-baseline",
          .kind = SB_OPT_FLAG,
          .dst = &o->no_baseline,
          .help = "do not add plain decoding as an arm" },
        { .name = "no-cost-curve",
          .kind = SB_OPT_FLAG,
          .dst = &o->no_cost_curve,
          .help = "do not measure the target's cost curve first" },
    };
    size_t n = sizeof own / sizeof *own;
    static const char *const left_out[] = { "baseline", "cost_curve", NULL };
    memcpy(out, own, sizeof own);
    n += sb_cli_settings(out + n, names, &o->plan, left_out);
    out[n] = (struct sb_option){ 0 };
    return n;
}

int sb_cmd_run(int argc, char **argv)
{
    struct run_options o = { .db = "specbench.db" };
    struct sb_option options[SB_SETTINGS_MAX + 16];
    char names[SB_SETTINGS_MAX][SB_FLAG_MAX];
    struct sb_texts rest = { 0 };
    struct sb_error err;
    bool helped = false;
    fill_options(options, names, &o);
    enum sb_status rc = sb_plan_init(&o.plan, &err);
    if (rc == SB_OK)
        rc = sb_options_parse(argc, argv, &usage, options, &rest, &helped, &err);
    if (rc == SB_OK && o.no_baseline)
        rc = sb_plan_set(&o.plan, "baseline", "false", &err);
    if (rc == SB_OK && o.no_cost_curve)
        rc = sb_plan_set(&o.plan, "cost_curve", "false", &err);
    if (rc == SB_OK && !helped)
        rc = sb_cli_set_threads(o.threads, &err);
    if (rc == SB_OK && rest.n > 1)
        rc = sb_fail(&err, SB_EUSAGE, "expected one script, found '%s' too", rest.item[1]);
    if (rc == SB_OK && !helped)
        rc = rest.n ? run_script(&o, rest.item[0], &err) : run_plan(&o, &err);
    sb_plan_finish(&o.plan);
    return rc == SB_OK ? 0 : sb_cli_fail("run", &err);
}
