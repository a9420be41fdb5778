/* Shared by verify*.c: the checks, and what the raw rows add up to per arm. */
#ifndef SB_RESULTS_VERIFY_INTERNAL_H
#define SB_RESULTS_VERIFY_INTERNAL_H

#include "results/internal.h"
#include "results/verify.h"

/* In the order of the table. X(id, meaning) */
#define SB_VERIFY_CHECKS(X)                                                                    \
    X(integrity, "SQLite finds no damage in the file")                                         \
    X(foreign_keys, "what a row refers to is there")                                           \
    X(experiments, "arm and prompt of a generation belong to one experiment")                  \
    X(token_ids, "token lists are as long as their counts say")                                \
    X(token_counts, "tokens of a generation = the prefill's + those of its steps")             \
    X(step_order, "steps are numbered from 0, each begins where the one before ended")         \
    X(step_tokens, "a step keeps accepted + 1 tokens, fewer only at the end; bonus fits")      \
    X(trees, "draft nodes have their parents, depths and ranks, and fit their step's counts")  \
    X(decisions, "accepted nodes are one path from the root; only its children were rejected") \
    X(accepted_tokens, "accepted nodes are the tokens of the answer")                          \
    X(times, "parts of a time are no longer than the whole")                                   \
    X(sums, "stored sums are those of the steps")                                              \
    X(same_prompts, "arms saw the baseline's prompt, token for token")                         \
    X(equality, "the flags of v_equality are right")                                           \
    X(greedy_exact, "greedy, exact arms gave the baseline's tokens")                           \
    X(coverage, "counts of runs: planned, done, failed, missing")                              \
    X(leaderboard, "figures of leaderboard_base, per task and overall")                        \
    X(positions, "figures of positions; marginals never grow")                                 \
    X(mat, "MAT = 1 + sum of marginals - tokens cut per step")                                 \
    X(histogram, "figures of histogram; shares add up to 1")                                   \
    X(ranks, "figures of ranks; shares add up to 1; coverage = conditional acceptance")        \
    X(sources, "figures of sources; shares add up to 1")                                       \
    X(latency, "figures of latency")                                                           \
    X(breakdown, "figures of breakdown; shares add up to 1")

enum sb_verify_id {
#define X(id, meaning) SB_VERIFY_##id,
    SB_VERIFY_CHECKS(X)
#undef X
        SB_VERIFY_N
};

enum { SB_PHASES = 5 }; /* draft, verify, accept, commit, observe */

/* Sums over generations that ended well; errors are those that did not. */
struct sb_tally {
    int64_t generations, errors, steps, drafted_steps, tokens, drafted_steps_tokens, drafted,
        auxiliary, depth, accepted, decided, n_tokens, prefill_ns, decode_ns, phase_ns[SB_PHASES];
    double path;
};

/* Counts by a small number: a list that grows with its index. */
struct sb_counts {
    int64_t *n;
    size_t len, cap;
};

struct sb_tried {
    int64_t drafted, tried, accepted;
};

struct sb_ranks { /* of one depth: by rank */
    struct sb_tried *rank;
    size_t len, cap;
    int64_t steps, accepted; /* steps with a node to try, and with one accepted */
};

struct sb_source {
    int64_t tag;
    struct sb_tried n;
};

struct sb_group { /* a task, or all (task NULL) */
    char *task;
    struct sb_tally t;
    int64_t prompts, mat_n;
    double mat_sum; /* over prompts, of their own MAT */
};

struct sb_arm_sums {
    int64_t id, experiment_id, baseline_id;
    char label[80];
    bool exact;       /* greedy decoding in exact arithmetic, and no lossy verifier */
    bool imported;    /* another tool's: views give NULL for what it did not say, or no row */
    bool own_answers; /* later turns follow the arm's own answers */
    struct sb_group all, *task;
    size_t n_tasks, cap_tasks;
    struct sb_counts accepted, drafted, tokens; /* steps by length */
    struct sb_counts exposure, hits;            /* steps by position - 1 */
    struct sb_ranks *depth;                     /* by depth - 1 */
    size_t n_depths, cap_depths;
    struct sb_source *source;
    size_t n_sources, cap_sources;
    struct sb_counts chunk_ns, prefill_ns; /* lists of times, not counts */
    int64_t with_trees, without_trees;     /* steps that drafted */
    int64_t compared, equal;
    double mat, marginals; /* as the views have them */
};

struct sb_verifier {
    struct sb_store *store;
    struct sb_verification *v;
    struct sb_arm_sums *arm;
    size_t n_arms, cap_arms;
};

/* Count a statement; when it does not hold and is the first, keep the text. */
void sb_verify_that(struct sb_verifier *v, enum sb_verify_id id, bool holds, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

/* The pass over all rows, and the views against what it found. */
enum sb_status sb_verify_rows(struct sb_verifier *v, struct sb_error *err);
enum sb_status sb_verify_views(struct sb_verifier *v, struct sb_error *err);

#endif
