/* README.md of what was trained: a model card out of training.json, config.json and the files themselves, so
 * that no figure of it is typed. */
#ifndef SB_TRAIN_CARD_H
#define SB_TRAIN_CARD_H

#include "harness/train/recipe.h"

/* Write dir/README.md for the finished training in `dir`. Models answer recipe->samples greedily.
 * recipe_path is named in it. SB_EINPUT when dir/training.json is missing. */
enum sb_status sb_card_write(const struct sb_recipe *recipe, const char *recipe_path,
                             const char *dir, struct sb_error *err);

#endif
