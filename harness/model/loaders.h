/* What the two loaders share: finishing and checking an sb_weights. */
#ifndef SB_MODEL_LOADERS_H
#define SB_MODEL_LOADERS_H

#include <jansson.h>

#include "harness/model/gguf.h"
#include "harness/model/safetensors.h"
#include "harness/model/weights.h"

/* The files behind weights->private_files. */
struct sb_weight_files {
    struct sb_gguf gguf;
    struct sb_st_file *shard; /* [n_shards] */
    size_t n_shards;
    void **made; /* [n_made] tensors made in memory, owned */
    size_t n_made, cap_made;
};

/* Limits and relations that hold for every model; `path` and names of fields are for messages. */
enum sb_status sb_config_check(const struct sb_config *c, const char *path, struct sb_error *err);

/* `t` must be [n, k]; a vector has n = 1. `name` is the file's own name of the tensor. */
enum sb_status sb_tensor_check(const struct sb_tensor *t, size_t n, size_t k, bool vector,
                               const char *name, const char *path, struct sb_error *err);

enum sb_status sb_weights_create(struct sb_weights **out, const char *format, struct sb_error *err);

enum sb_status sb_gguf_weights(struct sb_weights **out, const char *path, struct sb_error *err);
enum sb_status sb_hf_weights(struct sb_weights **out, const char *dir, struct sb_error *err);

/* config.json as config and rope factors (weights->config, ->rope_factors). */
enum sb_status sb_hf_read_config(struct sb_weights *w, const json_t *root, const char *path,
                                 struct sb_error *err);

/* Its rope_scaling alone, for the head width and rotary base that the config has. */
enum sb_status sb_hf_read_scaling(struct sb_weights *w, const json_t *root, const char *path,
                                  struct sb_error *err);

/* A JSON file of at most 256 MB; duplicates of a key are refused. The caller owns *out. */
enum sb_status sb_json_open(json_t **out, const char *path, struct sb_error *err);

/* Append a line for each tensor to the list that `specbench inspect` shows. */
void sb_describe_tensors(json_t *tensors, const struct sb_stored_tensor *tensor, size_t n);

/* Hash of architecture and tensors as stored. */
void sb_weights_hash(struct sb_weights *w);

#endif
