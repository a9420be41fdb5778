/* Drafters made of two others, `a` and `b`, each named by a spec of its own: what delegate and merge share.
 *
 * In the spec of the whole a part's text is quoted, or in parentheses, which nest:
 *   merge:a='sam:k=9,min_match=2',b=(delegate:a=pld,b='small-lm:model=tiny-draft,k=3') */
#ifndef SB_DRAFTERS_PARTS_H
#define SB_DRAFTERS_PARTS_H

#include "harness/decode/drafter.h"

enum { SB_FROM_A = 1, SB_FROM_B = 2 }; /* a node's source, as bits: 3 is from both */

/* The first two members of the parameters. */
struct sb_parts_params {
    const char *a, *b;
};
#define SB_PARTS_MEANING "a drafter with its parameters: 'name:k=v,k=v'"

struct sb_part {
    const struct sb_drafter_ops *ops;
    struct sb_spec spec;
    void *params, *state;
    int32_t most;             /* nodes it drafts at most */
    bool draws;               /* may its nodes be drawn ones? */
    enum sb_target_rows rows; /* that it reads */
};

/* Open a drafter by its text; close accepts zeroed, and what open left half made. */
enum sb_status sb_part_open(struct sb_part *part, const char *text,
                            const struct sb_drafter_env *env, struct sb_error *err);
void sb_part_close(struct sb_part *part);

struct sb_parts {
    struct sb_part part[2];
};

/* Open both; `drafter` names the whole. What the verifier wants in rows is not passed on. Refuses parts
 * that read the target's rows at nodes by their place in their own tree. */
enum sb_status sb_parts_open(struct sb_parts *parts, const char *drafter,
                             const struct sb_drafter_env *env, struct sb_error *err);
void sb_parts_close(struct sb_parts *parts); /* accepts zeroed, and what open left half made */
enum sb_status sb_parts_begin(struct sb_parts *parts, const struct sb_context *ctx,
                              struct sb_error *err);
enum sb_status sb_part_propose(struct sb_part *part, const struct sb_context *ctx,
                               struct sb_tree *tree, struct sb_error *err);
enum sb_status sb_part_observe(struct sb_part *part, const struct sb_context *ctx,
                               const struct sb_outcome *outcome, struct sb_error *err);
void sb_parts_cancel(struct sb_parts *parts);

/* What a table of drafters asks before anything is open; params NULL: the defaults, given by `fallback`.
 * Parts whose text is wrong count as ones that choose, make chains and draft nothing: opening refuses
 * them with a reason. */
unsigned sb_parts_kinds(const struct sb_parts_params *params,
                        const struct sb_parts_params *fallback, const struct sb_sampling *sampling);
bool sb_parts_branch(const struct sb_parts_params *params, const struct sb_parts_params *fallback);
/* Whether a part reads the target's rows. */
enum sb_target_rows sb_parts_target_rows(const struct sb_parts_params *params,
                                         const struct sb_parts_params *fallback);
/* Whether a part keeps what it learned over the run. */
bool sb_parts_keep_run(const struct sb_parts_params *params);
/* most[0] and most[1]: nodes of each. */
void sb_parts_nodes(const struct sb_parts_params *params, const struct sb_policy *policy,
                    int32_t most[2]);

#endif
