/* Checkpoints of draft heads made by tests: safetensors files of float32, random or given. */
#ifndef SB_TESTS_HEAD_MAKER_H
#define SB_TESTS_HEAD_MAKER_H

#include <stddef.h>
#include <stdint.h>

struct made_tensor {
    const char *name;
    size_t n, k;        /* [n, k]; n = 0: a vector [k] */
    double scale;       /* of random values; 0: all ones. Not read when data is given */
    const float *data;  /* [n, k], or NULL */
    const int64_t *ids; /* [k] instead: an i64 vector */
};

/* Write n tensors; target_hash may be NULL (no metadata). Aborts when the file cannot be written. */
void make_head(const char *path, uint64_t seed, const struct made_tensor *tensor, size_t n,
               const char *target_hash);
/* A text file, such as config.json. */
void make_text(const char *path, const char *text);
/* A fresh folder that becomes the working directory, so that short paths name what tests make; removed by
 * leave_folder with all that is in it, which goes back to where it was. */
void enter_folder(void);
void leave_folder(void);

/* Random checkpoints for a target of width d and n_vocab tokens, one of each layout that drafters load:
 *   medusa.safetensors        3 heads of 2 blocks, own output layers
 *   medusa-shared.safetensors 4 heads of 1 block, the target's output layer
 *   medusa-vllm.safetensors   2 heads in vLLM's layout, a vocabulary of n_vocab - 5 */
void make_medusa_heads(size_t d, size_t n_vocab);
/*   mlp.safetensors           3 depths of width 12, nothing shared
 *   mlp-tied/                 4 depths, tied, scaled input, names behind `speculator.` */
void make_mlp_speculators(size_t d, size_t n_vocab);
/*   redrafter.safetensors     2 blocks of width 2 d
 *   redrafter-sum/            no recurrent matrix, input_proj to width d, 1 block */
void make_redrafters(size_t d, size_t n_vocab);

/* Likewise, for a target of n_heads and n_kv_heads of head_dim, and a feed-forward width d_ff:
 *   hydra.safetensors         3 heads of 2 blocks, own output layers
 *   hydra-dropout.safetensors the same weights, numbered as with dropout
 *   hydra-shared.safetensors  4 heads of 1 block, the target's output layer
 *   hydra-pp.safetensors      3 heads of 2 blocks behind a prefix layer, with dropout */
struct made_shape {
    size_t d, n_vocab, n_heads, n_kv_heads, head_dim, d_ff;
};
void make_hydra_heads(const struct made_shape *shape);

#endif
