/* Where sessions are put to the test: a target, a draft model beside it, prompts. */
#ifndef SB_CERTIFY_ARENA_H
#define SB_CERTIFY_ARENA_H

#include "datasets/dataset.h"
#include "harness/certify/sample.h"
#include "harness/certify/toy.h"
#include "harness/experiment/models.h"

enum { SB_ARENA_PROMPTS = 6 };

struct sb_arena {
    const char *name; /* "toy", or the model's name */
    struct sb_model *target;
    const struct sb_tokenizer *tokenizer; /* NULL: bare ids */
    char *draft_model;                    /* a name for load */
    double heat; /* of drafts from it, over the target's temperature: not 1 when it is the target */
    struct sb_tokens prompt[SB_ARENA_PROMPTS]; /* short, and beginning to repeat themselves, so that
                                                  drafters which copy have something to copy */
    size_t n_prompts;
    struct sb_dataset dataset; /* of the real arena: the bundled questions */
    sb_token *eos;
    size_t n_eos;
    struct sb_toy toy[2]; /* of the toy arena: target and draft */
    struct sb_models *models;
};

/* Two random llamas made in memory, the same everywhere. */
enum sb_status sb_arena_toy(struct sb_arena *out, struct sb_error *err);
/* A model by name or path, the bundled questions as prompts (cut short), and for drafts the bundled
 * draft model where it has the same vocabulary. `models` outlives the arena. */
enum sb_status sb_arena_open(struct sb_arena *out, const char *model, struct sb_models *models,
                             struct sb_error *err);
void sb_arena_finish(struct sb_arena *arena);

/* Session options for this arena: target, tokenizer, loader. */
struct sb_session_options sb_arena_session(struct sb_arena *arena);

/* A block for each prompt in turn, with their laws cut for `draws` generations each, under
 * sampling[i % n_sampling]. The caller owns *out (sb_arena_blocks_free). */
enum sb_status sb_arena_blocks(struct sb_sample_block **out, const struct sb_arena *arena,
                               const struct sb_sampling *sampling, size_t n_sampling,
                               size_t n_blocks, int64_t draws, struct sb_error *err);
void sb_arena_blocks_free(struct sb_sample_block *blocks, size_t n);

#endif
