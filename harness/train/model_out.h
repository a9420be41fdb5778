/* Writing a trained model as a Hugging Face directory. */
#ifndef SB_TRAIN_MODEL_OUT_H
#define SB_TRAIN_MODEL_OUT_H

#include "harness/train/data.h"
#include "harness/train/lm.h"

struct json_t;

/* Round every weight to bfloat16, the precision it is stored in: what is measured afterwards is what
 * is written. */
void sb_trainable_round_bf16(struct sb_trainable *set);
/* One line of a safetensors file's metadata. */
struct sb_meta {
    const char *key, *value;
};
/* What a safetensors file holds: the weights as BF16, meta[n_meta] beside format = "pt", and for a head with a
 * draft vocabulary ids[n_draft] (ascending) as `d2t` and `t2d`, as EAGLE-3 stores them. */
struct sb_model_file {
    const struct sb_trainable *set;
    const struct sb_meta *meta;
    size_t n_meta;
    const int32_t *draft_ids;
    size_t n_draft, n_vocab;
};
/* Write it as dir/name. */
enum sb_status sb_model_file_write(const struct sb_model_file *file, const char *dir,
                                   const char *name, struct sb_error *err);
/* dir/name as indented JSON; takes over `json` (NULL: memory ran out). */
enum sb_status sb_json_write(const char *dir, const char *name, struct json_t *json,
                             struct sb_error *err);
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
