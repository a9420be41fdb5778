/* Writing a trained model as a Hugging Face directory. */
#ifndef SB_TRAIN_MODEL_OUT_H
#define SB_TRAIN_MODEL_OUT_H

#include "harness/train/data.h"

/* Round every weight to bfloat16, the precision it is stored in: what is measured afterwards is the
 * model that is written. */
void sb_lm_round_bf16(struct sb_lm *lm);
/* config.json, model.safetensors (BF16), generation_config.json, tokenizer_config.json, and a copy of
 * tokenizer_dir/tokenizer.json, in directory `out`, which is made. `recipe_name` goes into the metadata. */
enum sb_status sb_lm_write(const struct sb_lm *lm, const char *out, const char *tokenizer_dir,
                           const struct sb_marks *marks, const char *recipe_name,
                           struct sb_error *err);
/* tokenizer_config.json in `out`: marks, and the chat format as a template. */
enum sb_status sb_tokenizer_config_write(const char *out, size_t max_context, struct sb_error *err);
/* Create a directory and the ones above it. */
enum sb_status sb_make_dirs(const char *path, struct sb_error *err);
/* Replace a file's content; a crash leaves the old one. */
enum sb_status sb_file_write(const char *dir, const char *name, const void *data, size_t size,
                             struct sb_error *err);

#endif
