/* Replay: feed recorded outputs to drafters without running the target. A drafter that reads nothing of
 * the target's rows drafts the same in a replay as in the run, and what exact verifiers without rows
 * accept is then known: the longest path of the draft that equals the recorded tokens. */
#ifndef SB_EXPERIMENT_REPLAY_H
#define SB_EXPERIMENT_REPLAY_H

#include "harness/experiment/models.h"
#include "results/recorded.h"
#include "results/store.h"

struct sb_replay_options {
    const struct sb_recorded_arm *arm; /* whose outputs */
    const char *verifier;              /* greedy or naive-sample; NULL: as the temperature asks */
    const char *policy;                /* a spec; NULL: each drafter's own */
    const volatile int *stop;          /* nonzero: SB_EINTERRUPTED after the generation at hand */
};

struct sb_replay_result {
    int64_t experiment_id; /* in `to` */
    int64_t generations;   /* replayed, all drafters together */
    double seconds;        /* of drafting, reading and storing */
    bool had_documents;    /* the data set had documents, which are not recorded */
    bool tokenizer_found;  /* false: datastores were not held against the target's tokenizer */
};

/* Replay an arm of `from` with each drafter, as an experiment with an arm per drafter in `to`: steps with
 * their times, draft nodes left out. Refuses drafters that read the target's rows. */
enum sb_status sb_replay(struct sb_store *from, struct sb_store *to, const char *const *drafters,
                         size_t n_drafters, const struct sb_replay_options *options,
                         struct sb_replay_result *result, struct sb_error *err);

#endif
