#include <stdio.h>
#include <string.h>

#include "harness/cli/cli.h"

const struct sb_command sb_commands[] = {
    { "run", sb_cmd_run, "run an experiment: a Lua script, or arms given as options" },
    { "list", sb_cmd_list, "drafters, verifiers, policies, datasets or models, with parameters" },
    { "report", sb_cmd_report, "a results database as tables, or as a page" },
    { "plot", sb_cmd_plot, "a view of a results database as svg, png or pdf" },
    { "replay", sb_cmd_replay, "recorded outputs to drafters, without running the target" },
    { "verify", sb_cmd_verify, "compute a results database's figures again from its raw rows" },
    { "gate", sb_cmd_gate, "did drafts get worse? a run against a baseline, for CI" },
    { "export", sb_cmd_export, "an experiment in the form of other tools: Spec-Bench, JSON, CSV" },
    { "import", sb_cmd_import, "answer files of Spec-Bench into a results database" },
    { "certify", sb_cmd_certify, "prove verifiers lossless, or say by how much they are not" },
    { "generate", sb_cmd_generate, "generate text, with or without a drafter" },
    { "tokenize", sb_cmd_tokenize, "text to token ids and back" },
    { "logits", sb_cmd_logits, "log-sum-exp and top logits at each position" },
    { "inspect", sb_cmd_inspect, "what a model file or a database holds" },
    { "bench", sb_cmd_bench, "the cost curve c(M) of a model on this machine" },
    { "index", sb_cmd_index, "texts to a datastore that drafters retrieve from" },
    { "train", sb_cmd_train, "train a tokenizer or a model from a recipe" },
    { 0 },
};

static const struct sb_command *find(const char *name)
{
    for (const struct sb_command *c = sb_commands; c->name; c++)
        if (strcmp(c->name, name) == 0)
            return c;
    return NULL;
}

static void print_overview(FILE *out)
{
    fputs(
        "  specbench run --target tiny --dataset mini --drafter pld --drafter small-lm:model=tiny-draft\n"
        "  specbench generate --model tiny --prompt 'What is a draft tree?' --drafter pld\n"
        "\nusage: specbench COMMAND [options]\n\ncommands:\n",
        out);
    for (const struct sb_command *c = sb_commands; c->name; c++)
        fprintf(out, "  %-10s %s\n", c->name, c->summary);
    fputs(
        "\n`specbench help COMMAND` shows its options and examples. Exit codes: 0 done, 1 failed,\n"
        "2 wrong usage or input, 3 a gate or certificate does not hold, 130 interrupted.\n",
        out);
}

static int help(int argc, char **argv)
{
    const struct sb_command *c = argc > 2 ? find(argv[2]) : NULL;
    char *shifted[] = { argc > 2 ? argv[2] : NULL, (char *)"--help", NULL };
    if (c)
        return c->run(2, shifted);
    if (argc > 2) {
        fprintf(stderr, "specbench: there is no command '%s'; see specbench help\n", argv[2]);
        return 2;
    }
    print_overview(stdout);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        print_overview(stderr);
        return 2;
    }
    if (strcmp(argv[1], "help") == 0 || strcmp(argv[1], "--help") == 0 ||
        strcmp(argv[1], "-h") == 0)
        return help(argc, argv);
    if (strcmp(argv[1], "--version") == 0) {
        puts("specbench " SB_VERSION);
        return 0;
    }
    const struct sb_command *c = find(argv[1]);
    if (!c) {
        fprintf(stderr, "specbench: there is no command '%s'; see specbench help\n", argv[1]);
        return 2;
    }
    return c->run(argc - 1, argv + 1);
}
