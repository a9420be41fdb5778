/* Steps of one generation, copied out of the session as they happen and handed to the store at the end.
 * Buffers are kept between generations, so the decode loop soon stops allocating. */
#ifndef SB_EXPERIMENT_RECORDER_H
#define SB_EXPERIMENT_RECORDER_H

#include "harness/decode/session.h"
#include "results/store.h"

struct sb_recorder {
    struct sb_step_row *step;
    struct sb_node_row *node;
    size_t *first_node; /* [n_steps] index of each step's nodes, while they may move */
    size_t n_steps, cap_steps, cap_first, n_nodes, cap_nodes;
    bool out_of_memory;
    bool diagnose; /* each step gets its struct sb_diagnosis */
    void *scratch; /* for that */
    size_t scratch_bytes;
};
void sb_recorder_reset(struct sb_recorder *recorder);
void sb_recorder_finish(struct sb_recorder *recorder);
void sb_recorder_on_step(void *recorder, const struct sb_step *step); /* fits sb_request.on_step */
/* Point the steps at their nodes and put them into `row`; SB_ENOMEM when a step was lost. */
enum sb_status sb_recorder_give(struct sb_recorder *recorder, struct sb_generation_row *row,
                                struct sb_error *err);

#endif
