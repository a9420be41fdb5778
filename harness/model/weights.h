/* Weights as a file holds them: a validated view of named tensors, and the architecture they make.
 *
 * Loaders (gguf.c, safetensors.c + hf_config.c) fill this; transformer.c packs from it. */
#ifndef SB_MODEL_WEIGHTS_H
#define SB_MODEL_WEIGHTS_H

#include "harness/core/error.h"
#include "harness/model/config.h"

/* A matrix [n, k] (n outputs; a vector has n = 1) in mapped memory. data == NULL: absent. */
struct sb_tensor {
    const void *data;
    enum sb_dtype type;
    size_t n, k;
};

struct sb_layer_weights {
    struct sb_tensor attn_norm, wq, wk, wv, bq, bk, bv, wo, ffn_norm, w_gate, w_up, w_down;
    struct sb_tensor pair_norm; /* layer 0 of a paired input: of h, where attn_norm is of e */
};

/* Sizes, types and bounds of every tensor are checked against config: whoever holds an sb_weights
 * may read all of it. Vectors (norms, biases) may be F32, F16 or BF16. */
struct sb_weights {
    struct sb_config config;
    /* lm_head is absent when tied. A draft body may lack all three: its rows are vectors then, it gives no
     * logits, and what leaves its last layer goes without a norm. */
    struct sb_tensor embedding, final_norm, lm_head;
    struct sb_layer_weights *layers; /* [n_layers], owned */
    float *rope_factors;   /* [head_dim / 2] divisors of the frequencies, owned; NULL: all one.
                             llama3 scaling of HF configs is turned into this */
    char *chat_template;   /* the model's own template text, owned, or NULL */
    char format[8];        /* "gguf" or "hf" */
    uint64_t content_hash; /* xxHash64 of config and tensors as stored: the model's identity */
    size_t file_bytes;
    void *private_files; /* mappings, owned by the loader */
};

/* Weights without a file, for a draft body whose tensors lie in memory that outlives them: `config`, checked
 * (`owner` begins the message), and zeroed layers to fill; sb_model_from_weights refuses what does not fit
 * together. format is "body". The caller owns *out (sb_weights_close). */
enum sb_status sb_weights_body(struct sb_weights **out, const struct sb_config *config,
                               const char *owner, struct sb_error *err);

/* The tensors of layer `layer`: where each goes, what both kinds of file call it, its shape [n, k]. */
struct sb_wanted_tensor {
    struct sb_tensor *out;
    const char *gguf, *hf; /* behind "blk.N." and "model.layers.N." */
    size_t n, k;
    bool vector;
};
enum { SB_LAYER_TENSORS = 13 };
size_t sb_wanted_tensors(struct sb_wanted_tensor out[SB_LAYER_TENSORS], struct sb_weights *weights,
                         size_t layer);

/* Load `path`: a GGUF file, an HF directory, or a bare *.safetensors is refused with advice.
 * The caller owns *out (sb_weights_close). */
enum sb_status sb_weights_open(struct sb_weights **out, const char *path, struct sb_error *err);
void sb_weights_close(struct sb_weights *weights);

/* Everything `specbench inspect` says of a model file, as one JSON object in new memory (sb_free):
 * format, metadata (arrays shortened), architecture, tensors with name, type, shape, bytes. Works
 * for a file with a vocabulary and no weights too. */
enum sb_status sb_model_file_describe(char **json, const char *path, struct sb_error *err);

#endif
