/* Checkpoints of draft heads (methods B 4, 5): a directory or file of tensors, with its config.json beside
 * it, opened for one target. Tensors stay where they lie in the mapped files, until sb_head_close.
 *
 * A head is a bundled name ("tiny-medusa"), a directory, or a file: safetensors, or a torch archive
 * (.bin, .pt). Of a directory all *.safetensors are read, or else all torch archives but those of a
 * training run (training_args.bin, optimizer.pt, ...). A head whose metadata (`specbench.target_hash`, 16
 * hex digits) names another target is refused.
 *
 * Messages begin with the path and name tensor, found and expected:
 *   heads/e: tensor 'fc.weight': found [384, 384], expected [384, 768] */
#ifndef SB_DRAFTERS_HEAD_FILE_H
#define SB_DRAFTERS_HEAD_FILE_H

#include <jansson.h>

#include "harness/core/error.h"
#include "harness/decode/drafter.h"
#include "harness/model/model.h"
#include "harness/model/safetensors.h"
#include "harness/model/torch_file.h"

enum { SB_HEAD_FILES = 64, SB_HEAD_NAME = 192 };

struct sb_head_file {
    char *path;                       /* as given or found, for messages; owned */
    const char *drafter;              /* for messages; borrowed */
    const struct sb_drafter_env *env; /* while it opens */
    bool f32_weights;                 /* the target's matrices are widened, so a head's are */
    const char *prefix;          /* before every name that is asked for; borrowed, "" at first */
    struct sb_st_file *st;       /* [n_st], owned */
    struct sb_torch_file *torch; /* [n_torch], owned */
    size_t n_st, n_torch;
    json_t *config; /* config.json, an object; NULL: there is none */
};

/* The row of a drafter's parameter table, for a parameter struct with `const char *head`. */
#define SB_HEAD_PARAM(params)                                                              \
    {                                                                                      \
        .name = "head", .type = SB_PARAM_STRING, .offset = offsetof(params, head),         \
        .meaning = "trained head: a bundled name, a directory, or a safetensors or torch " \
                   "file; without it the bundled one made for the target",                 \
    }

struct sb_head_request {
    const char *drafter; /* for messages; outlives the file */
    const char
        *name; /* NULL: the bundled head models/...-FAMILY whose metadata names this target */
    const char *family; /* NULL: the drafter's name */
    const struct sb_model *target;
    const struct sb_drafter_env *env; /* told which files are read; NULL: nobody is */
};

/* SB_EUSAGE without a target, as in a replay; sb_head_open asks it too. */
enum sb_status sb_head_need_target(const char *drafter, const struct sb_model *target,
                                   struct sb_error *err);
/* On success the caller owns *out (sb_head_close); on failure it is untouched. SB_EINPUT: nothing there;
 * SB_EUSAGE: made for another target, no name and no bundled head, or no target (a replay); SB_EFORMAT as the readers say. */
enum sb_status sb_head_open(struct sb_head_file *out, const struct sb_head_request *request,
                            struct sb_error *err);
void sb_head_close(struct sb_head_file *head); /* zeroed is fine */

/* ---- tensors; names are written as by printf and stand behind head->prefix (SB_HEAD_NAME bytes in all) */

/* NULL: none. Any element type, any shape. */
const struct sb_stored_tensor *sb_head_find(const struct sb_head_file *head, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
/* Rows of the matrix of that name; 0: there is none. */
size_t sb_head_rows(const struct sb_head_file *head, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
/* How many things are numbered behind `stem`: "lm_heads." counts lm_heads.0.weight .. lm_heads.4.weight as
 * 5. One past the largest number, so that one left out in between is missed when it is taken. */
size_t sb_head_count(const struct sb_head_file *head, const char *stem);
/* A matrix [n, k]. SB_EFORMAT: missing or of another shape; SB_EUNSUPPORTED: not F32, F16 or BF16. */
enum sb_status sb_head_matrix(const struct sb_head_file *head, struct sb_tensor *out, size_t n,
                              size_t k, struct sb_error *err, const char *fmt, ...)
    __attribute__((format(printf, 6, 7)));
/* A vector of n: one dimension. As sb_tensor: n = 1, k = n. */
enum sb_status sb_head_vector(const struct sb_head_file *head, struct sb_tensor *out, size_t n,
                              struct sb_error *err, const char *fmt, ...)
    __attribute__((format(printf, 5, 6)));
/* The same as new float32 memory [n] (sb_free). */
enum sb_status sb_head_floats(const struct sb_head_file *head, float **out, size_t n,
                              struct sb_error *err, const char *fmt, ...)
    __attribute__((format(printf, 5, 6)));

/* The draft vocabulary (methods B 2, B3): *map[n_draft] = the target's id of each draft id, from `d2t`
 * (offsets) or `token_map` (ids), each checked against n_vocab; new memory (sb_free). NULL when the file
 * has neither: then n_draft must be n_vocab, else SB_EFORMAT. */
enum sb_status sb_head_vocabulary(const struct sb_head_file *head, sb_token **map, size_t n_draft,
                                  size_t n_vocab, struct sb_error *err);

/* SB_EFORMAT for a file of other tensors: "looked for ...; it looks like an eagle3 head". */
enum sb_status sb_head_refuse(const struct sb_head_file *head, const char *looked_for,
                              struct sb_error *err);

/* ---- config.json; a missing key (or file) leaves *out as it was ---- */

/* A whole number from `least` to `most`. */
enum sb_status sb_head_config_size(const struct sb_head_file *head, const char *key, size_t *out,
                                   size_t least, size_t most, struct sb_error *err);
enum sb_status sb_head_config_number(const struct sb_head_file *head, const char *key, double *out,
                                     double least, double most, struct sb_error *err);
enum sb_status sb_head_config_flag(const struct sb_head_file *head, const char *key, bool *out,
                                   struct sb_error *err);
const char *sb_head_config_text(const struct sb_head_file *head, const char *key); /* NULL: none */

/* ---- what a file is (methods B 10) ---- */

/* The family its tensor names say: "medusa", "hydra", "hydra-pp", "eagle", "eagle3", ...; NULL: none. */
const char *sb_head_family(const struct sb_head_file *head);
/* What `specbench inspect` says of a head in a directory or file: path, bytes, tensors, and "head": family,
 * hash of its target, recipe, config.json. NULL when it is no head (or memory runs out). The caller's
 * (json_decref). */
json_t *sb_head_describe(const char *path);

#endif
