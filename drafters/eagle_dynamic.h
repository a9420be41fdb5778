/* Drafting with an EAGLE body and a dynamic tree: eagle2 and eagle3 but for the head they read.
 *
 * A drafter's parameter struct is struct sb_eagle_dynamic_params, its state a struct sb_eagle_dynamic; the
 * functions stand in its table as they are, and its open says which kind of head. */
#ifndef SB_DRAFTERS_EAGLE_DYNAMIC_H
#define SB_DRAFTERS_EAGLE_DYNAMIC_H

#include "drafters/dynamic_tree.h"
#include "drafters/eagle_body.h"

struct sb_eagle_dynamic_params {
    const char *head;
    int64_t depth, topk, total;
    const char *curve;
};

#define SB_EAGLE_DYNAMIC_PARAMS(default_depth)                                                 \
    SB_HEAD_PARAM(struct sb_eagle_dynamic_params),                                             \
        { .name = "depth",                                                                     \
          .type = SB_PARAM_INT,                                                                \
          .offset = offsetof(struct sb_eagle_dynamic_params, depth),                           \
          .fallback = default_depth,                                                           \
          .min = 0,                                                                            \
          .max = SB_DYNAMIC_DEPTH - 1,                                                         \
          .meaning = "levels that the head expands; the deepest draft is one level below" },   \
        { .name = "topk",                                                                      \
          .type = SB_PARAM_INT,                                                                \
          .offset = offsetof(struct sb_eagle_dynamic_params, topk),                            \
          .fallback = "10",                                                                    \
          .min = 1,                                                                            \
          .max = SB_DYNAMIC_TOP_K,                                                             \
          .meaning = "nodes expanded per level, and children of each" },                       \
        { .name = "total",                                                                     \
          .type = SB_PARAM_INT,                                                                \
          .offset = offsetof(struct sb_eagle_dynamic_params, total),                           \
          .fallback = "60",                                                                    \
          .min = 2,                                                                            \
          .max = SB_DYNAMIC_TOTAL,                                                             \
          .meaning = "rows that the target verifies: the root and the best total - 1 nodes" }, \
        { .name = "curve",                                                                     \
          .type = SB_PARAM_STRING,                                                             \
          .offset = offsetof(struct sb_eagle_dynamic_params, curve),                           \
          .meaning =                                                                           \
              "time of M rows over that of one, as 4:1.4;8:2.2, from specbench bench: fewer "  \
              "nodes than total where they would not pay" },                                   \
    {                                                                                          \
        0                                                                                      \
    }

struct sb_eagle_dynamic {
    struct sb_eagle_body eagle;
    struct sb_dynamic_tree dt;
    int32_t depth, levels; /* wanted, and the most that a policy may ask for */
    int32_t topk, total;
    sb_token *token; /* [topk] */
    float *log_prob; /* [topk] */
    int32_t *above;  /* [topk] */
};

enum sb_status sb_eagle_dynamic_open(struct sb_eagle_dynamic *ed, enum sb_eagle_kind kind,
                                     const char *drafter, const struct sb_drafter_env *env,
                                     struct sb_error *err);
enum sb_status sb_eagle_dynamic_begin(void *st, const struct sb_context *ctx, struct sb_error *err);
enum sb_status sb_eagle_dynamic_propose(void *st, const struct sb_context *ctx,
                                        struct sb_tree *tree, struct sb_error *err);
void sb_eagle_dynamic_close(void *st);
int32_t sb_eagle_dynamic_max_nodes(const void *params, const struct sb_policy *policy);
bool sb_eagle_dynamic_branches(const void *params);

#endif
