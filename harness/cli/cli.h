/* What the subcommands share: declared options, help, errors, the stop flag.
 *
 * A command is a table entry in main.c; its options are declared as data, so that parsing, refusals
 * and `--help` all read the same table. */
#ifndef SB_CLI_CLI_H
#define SB_CLI_CLI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "harness/core/error.h"
#include "harness/experiment/models.h"
#include "harness/experiment/plan.h"
#include "results/report.h"

struct sb_command {
    const char *name;
    int (*run)(int argc, char **argv); /* argv[0] is the command's name; returns the exit code */
    const char *summary;
};
extern const struct sb_command sb_commands[]; /* ends at a NULL name */

enum sb_option_kind {
    SB_OPT_FLAG,    /* dst: bool */
    SB_OPT_TEXT,    /* dst: const char * */
    SB_OPT_INT,     /* dst: int64_t */
    SB_OPT_NUMBER,  /* dst: double */
    SB_OPT_LIST,    /* dst: struct sb_texts, may be repeated */
    SB_OPT_FORMAT,  /* dst: enum sb_format */
    SB_OPT_SETTING, /* dst: struct sb_plan; the setting of the same name */
};

struct sb_option {
    const char *name; /* without the dashes, kebab-case */
    enum sb_option_kind kind;
    void *dst;
    const char *arg; /* what stands for the value in help; NULL for flags */
    const char *help;
    double min, max; /* INT, NUMBER; both 0: no limit */
    char letter;     /* "-o FILE" for "--output FILE"; 0: none */
};

enum { SB_TEXTS_MAX = 64 };
struct sb_texts {
    const char *item[SB_TEXTS_MAX];
    size_t n;
};

struct sb_usage {
    const char *name;     /* of the command */
    const char *examples; /* lines, each beginning with "  specbench ..." */
    const char *synopsis; /* "specbench run SCRIPT.lua [options]" */
    const char *about;    /* a paragraph */
};

/* Parse argv[1..]; arguments that are no options go to `rest`. --help prints the help on stdout and
 * sets *helped. Refusals name the nearest option. */
enum sb_status sb_options_parse(int argc, char **argv, const struct sb_usage *usage,
                                const struct sb_option *options, struct sb_texts *rest,
                                bool *helped, struct sb_error *err);

/* Print "specbench COMMAND: message" on stderr; returns the exit code. */
int sb_cli_fail(const char *command, const struct sb_error *err);

/* Nonzero after Ctrl-C or SIGTERM; a second signal ends the process at once. */
const volatile int *sb_cli_stop_flag(void);

/* Threads from --threads (0: the physical cores); also reports a wrong SB_CPU. */
enum sb_status sb_cli_set_threads(int64_t threads, struct sb_error *err);

/* --kv-type, --math, --prefill and --weights, where no plan holds them. */
#define SB_ARITHMETIC_OPTIONS(o)                                                                     \
    {                                                                                                \
        "kv-type", SB_OPT_TEXT, &(o).kv_type, "T", "keys and values: f32 (default), f16, bf16", 0, 0 \
    },                                                                                               \
        { "math",                                                                                    \
          SB_OPT_TEXT,                                                                               \
          &(o).math,                                                                                 \
          "M",                                                                                       \
          "exact (default), or fast: BF16 products by avx512_bf16",                                  \
          0,                                                                                         \
          0 },                                                                                       \
        { "prefill",                                                                                 \
          SB_OPT_TEXT,                                                                               \
          &(o).prefill,                                                                              \
          "P",                                                                                       \
          "exact (default), or openblas: prompts through its sgemm",                                 \
          0,                                                                                         \
          0 },                                                                                       \
    {                                                                                                \
        "weights", SB_OPT_TEXT, &(o).weights, "W",                                                   \
            "stored (default), or f32: F16 and BF16 widened in memory, same bits", 0, 0              \
    }
enum sb_status sb_cli_set_arithmetic(struct sb_models *models,
                                     const struct sb_arithmetic_texts *texts, struct sb_error *err);

/* Flush stdout and turn a full disk or a closed pipe into an error. */
enum sb_status sb_cli_flush(struct sb_error *err);

/* "1 2 3" (blanks or commas) into ids. The caller owns *out (sb_free). `what` names the option. */
enum sb_status sb_cli_parse_ids(int32_t **out, size_t *n, const char *text, const char *what,
                                struct sb_error *err);

/* Options for every setting of an experiment, written to out[]; returns how many. `names` gives room for
 * the flags' names. */
enum { SB_SETTINGS_MAX = 32, SB_FLAG_MAX = 32 };
size_t sb_cli_settings(struct sb_option *out, char names[][SB_FLAG_MAX], struct sb_plan *plan,
                       const char *const *left_out);

int sb_cmd_run(int argc, char **argv);
int sb_cmd_list(int argc, char **argv);
int sb_cmd_report(int argc, char **argv);
int sb_cmd_plot(int argc, char **argv);
int sb_cmd_verify(int argc, char **argv);
int sb_cmd_export(int argc, char **argv);
int sb_cmd_import(int argc, char **argv);
int sb_cmd_gate(int argc, char **argv);
int sb_cmd_generate(int argc, char **argv);
int sb_cmd_tokenize(int argc, char **argv);
int sb_cmd_logits(int argc, char **argv);
int sb_cmd_inspect(int argc, char **argv);
int sb_cmd_bench(int argc, char **argv);
int sb_cmd_certify(int argc, char **argv);
int sb_cmd_train(int argc, char **argv);
int sb_cmd_index(int argc, char **argv);
int sb_cmd_replay(int argc, char **argv);

#endif
