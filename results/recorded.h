/* Recorded generations read back, to replay them. */
#ifndef SB_RESULTS_RECORDED_H
#define SB_RESULTS_RECORDED_H

#include "results/store.h"

/* An arm of an experiment, and what decided its results. Texts are owned. */
struct sb_recorded_arm {
    int64_t experiment_id, arm_id;
    int64_t seed, max_new_tokens, top_k;
    double temperature, top_p;
    char *name, *label, *spec_json, *target, *tokenizer_hash, *config_json;
};

/* The arm of that label, NULL: the baseline; of an experiment, 0: the newest. */
enum sb_status sb_recorded_arm_find(struct sb_recorded_arm *out, struct sb_store *s,
                                    int64_t experiment_id, const char *label, struct sb_error *err);
void sb_recorded_arm_finish(struct sb_recorded_arm *arm); /* accepts zeroed */

/* A generation that ended well; all is borrowed until the visit returns. */
struct sb_recorded {
    struct sb_prompt_row prompt; /* without its experiment */
    int repeat;
    const char *finish;
    const int32_t *prompt_tokens, *tokens;
    size_t n_prompt_tokens, n_tokens;
};
typedef enum sb_status sb_recorded_visitor(void *self, const struct sb_recorded *generation,
                                           struct sb_error *err);
/* Every generation of the arm in the order they were made; stops at the first failure. */
enum sb_status sb_recorded_each(struct sb_store *s, int64_t arm_id, sb_recorded_visitor *visit,
                                void *self, struct sb_error *err);

#endif
