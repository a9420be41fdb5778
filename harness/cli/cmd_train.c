/* specbench train: a tokenizer, a model or a draft head from a recipe. */
#include <stdio.h>

#include "harness/cli/cli.h"
#include "harness/train/train.h"

static const struct sb_usage usage = {
    .name = "train",
    .examples =
        "  specbench train scripts/train/tiny.lua\n"
        "  specbench train scripts/train/tiny_medusa.lua --data-dir ../corpora\n"
        "  specbench train scripts/train/tiny.lua --resume --data-dir ../corpora --out /tmp/tiny\n",
    .synopsis = "specbench train RECIPE.lua [--resume] [--out DIR] [--data-dir DIR]",
    .about =
        "Trains what the recipe says, a tokenizer, a model or a draft head, and writes it as a\n"
        "Hugging Face directory (docs/training.md). Checkpoints are\n"
        "written as the recipe asks; Ctrl-C writes one more, --resume goes on from it bit for bit.\n"
        "A loss that is not a number stops the training and keeps the last good checkpoint.",
};

int sb_cmd_train(int argc, char **argv)
{
    struct sb_train_options train = { 0 };
    struct sb_train_screen screen = { 0 };
    int64_t threads = 0;
    bool quiet = false, helped;
    const struct sb_option options[] = {
        { "resume", SB_OPT_FLAG, &train.resume, NULL, "go on from the checkpoint", 0, 0 },
        { "card", SB_OPT_FLAG, &train.card, NULL,
          "train nothing: write the model card of what was trained anew", 0, 0 },
        { "out", SB_OPT_TEXT, &train.out, "DIR", "where the model goes, instead of the recipe's", 0,
          0 },
        { "data-dir", SB_OPT_TEXT, &train.data_dir, "DIR",
          "where the texts are, instead of the recipe's", 0, 0 },
        { "threads", SB_OPT_INT, &threads, "N", "default: the physical cores", 1, 1024 },
        { "quiet", SB_OPT_FLAG, &quiet, NULL, "no progress", 0, 0 },
        { 0 },
    };
    struct sb_texts rest = { 0 };
    struct sb_error err;
    enum sb_status rc = sb_options_parse(argc, argv, &usage, options, &rest, &helped, &err);
    if (rc == SB_OK && helped)
        return 0;
    if (rc == SB_OK && rest.n != 1)
        rc = sb_fail(&err, SB_EUSAGE, "expected one recipe; usage: %s", usage.synopsis);
    if (rc == SB_OK)
        rc = sb_cli_set_threads(threads, &err);
    if (rc == SB_OK) {
        train.threads = (int)threads;
        train.stop = sb_cli_stop_flag();
        train.report = quiet ? NULL : sb_train_report_stderr;
        train.report_user = &screen;
        rc = sb_train_recipe(rest.item[0], &train, &err);
    }
    return rc == SB_OK ? 0 : sb_cli_fail("train", &err);
}
