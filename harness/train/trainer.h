/* The kinds of training, from a recipe that has been read. */
#ifndef SB_TRAIN_TRAINER_H
#define SB_TRAIN_TRAINER_H

#include "harness/train/recipe.h"
#include "harness/train/train.h"

enum sb_status sb_train_lm(const struct sb_recipe *recipe, const struct sb_train_options *options,
                           struct sb_error *err);
enum sb_status sb_train_head(const struct sb_recipe *recipe, const struct sb_train_options *options,
                             struct sb_error *err);
/* No training: data.generate alone, for the recipes that name its file. */
enum sb_status sb_train_texts(const struct sb_recipe *recipe,
                              const struct sb_train_options *options, struct sb_error *err);
enum sb_status sb_train_tokenizer(const struct sb_recipe *recipe,
                                  const struct sb_train_options *options, struct sb_error *err);
/* The recipe's files, from options->data_dir when that is set, or what the target wrote in their place. */
enum sb_status sb_recipe_corpus(struct sb_corpus *corpus, const struct sb_recipe *recipe,
                                const struct sb_train_options *options, struct sb_error *err);
void sb_train_note(const struct sb_recipe *recipe, const struct sb_train_options *options,
                   const char *fmt, ...) __attribute__((format(printf, 3, 4)));

#endif
