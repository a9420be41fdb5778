/* From a recipe file to the kind of training it asks for. */
#include "harness/train/train.h"

#include <string.h>

#include "harness/train/card.h"
#include "harness/train/run.h"
#include "harness/train/trainer.h"

enum sb_status sb_train_recipe(const char *path, const struct sb_train_options *options,
                               struct sb_error *err)
{
    struct sb_recipe recipe;
    enum sb_status status = sb_recipe_read(&recipe, path, err);
    if (status != SB_OK)
        return status;
    bool has_card = strcmp(recipe.kind, "lm") == 0 || strcmp(recipe.kind, "head") == 0;
    if (options->card && !has_card)
        status = sb_fail(err, SB_EUSAGE, "recipe %s: a %s has no model card", path, recipe.kind);
    else if (options->card)
        status = SB_OK;
    else if (strcmp(recipe.kind, "tokenizer") == 0)
        status = sb_train_tokenizer(&recipe, options, err);
    else if (strcmp(recipe.kind, "head") == 0)
        status = sb_train_head(&recipe, options, err);
    else if (strcmp(recipe.kind, "texts") == 0)
        status = sb_train_texts(&recipe, options, err);
    else
        status = sb_train_lm(&recipe, options, err);
    if (status == SB_OK && has_card)
        status = sb_card_write(&recipe, path, sb_run_out(&recipe, options), err);
    sb_recipe_finish(&recipe);
    return status;
}
