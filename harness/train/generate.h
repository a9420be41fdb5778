/* Texts that a target writes itself, to train its drafters on (methods B 3.5). */
#ifndef SB_TRAIN_GENERATE_H
#define SB_TRAIN_GENERATE_H

#include "harness/train/recipe.h"
#include "harness/train/train.h"

/* In the output directory, one record {"task", "ids", "answer", "by"} per line: tokens, the first of them
 * that the model wrote, and who wrote them (hashes of model, tokenizer and settings). */
#define SB_GENERATED_FILE "generated.jsonl"

/* Let the model at `path` answer the recipe's prompts as recipe->data.generate says, into that file. What is
 * there already is kept: the same command goes on after an interruption. Lines by another model, tokenizer
 * or recipe are refused. Plain decoding, one text after the other, with the bits of the harness. */
enum sb_status sb_generate_texts(const struct sb_recipe *recipe,
                                 const struct sb_train_options *options, const char *path,
                                 const char *tokenizer, struct sb_error *err);

#endif
