/* The results database: SQLite, STRICT tables, WAL, one transaction per finished generation.
 *
 * schema.sql documents every table and column; views hold each formula once. All writes of a
 * generation (its row, its steps, its draft nodes) land together or not at all. */
#ifndef SB_RESULTS_STORE_H
#define SB_RESULTS_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "harness/core/error.h"

struct sb_store;
struct sqlite3;

/* Open or create. SB_EFORMAT for a file that is no database, not ours, or of a newer version. A
 * missing file with `must_exist` is SB_EINPUT. read_only never writes, not even migrations: a database of an
 * earlier schema is then copied into memory and brought up to date there. */
struct sb_store_options {
    bool must_exist, read_only;
};
enum sb_status sb_store_open(struct sb_store **out, const char *path,
                             const struct sb_store_options *options, struct sb_error *err);
void sb_store_close(struct sb_store *store);
struct sqlite3 *sb_store_handle(struct sb_store *store);

/* Rows are found by content key, so that a resumed run meets its own: each function returns the id
 * of the row with that content, inserting it when it is new. Text arguments may be NULL -> SQL NULL
 * where the schema allows it. */
struct sb_host_row {
    const char *hostname, *cpu, *isa, *os, *compiler, *build_flags, *specbench_version, *commit;
    const char *blas;
    int threads, physical_cores;
    int64_t memory_bytes;
};
struct sb_model_row {
    const char *name, *path, *arch, *format, *weight_type, *content_hash, *tokenizer_hash,
        *config_json;
    int64_t n_params, size_bytes;
};
struct sb_experiment_row {
    const char *name, *content_key, *spec_json; /* content_key: hash of all that decides results */
    const char *script, *dataset, *dataset_hash, *chat_template,
        *conversation; /* "baseline"|"own" */
    int64_t host_id, target_model_id, seed, repeats, max_new_tokens;
    double temperature, top_p;
    int64_t top_k;
    bool ignore_eos;
    const char *arithmetic; /* "exact" */
    const char *origin;     /* NULL: "run" | "import" */
};
struct sb_arm_row {
    int64_t experiment_id;
    int arm_no; /* order in the experiment */
    const char *label, *drafter, *drafter_params, *verifier, *verifier_params, *policy,
        *policy_params;
    const char *guarantee; /* "greedy-exact" | "distribution-exact" | "lossy" */
    bool is_baseline;
};
struct sb_prompt_row {
    int64_t experiment_id, question_id;
    const char *task, *category;
    int turn;         /* from 1 */
    const char *text; /* the turn's user text */
    int64_t n_turns;
};
enum sb_status sb_store_host(struct sb_store *s, const struct sb_host_row *row, int64_t *id,
                             struct sb_error *err);
enum sb_status sb_store_model(struct sb_store *s, const struct sb_model_row *row, int64_t *id,
                              struct sb_error *err);
enum sb_status sb_store_experiment(struct sb_store *s, const struct sb_experiment_row *row,
                                   int64_t *id, struct sb_error *err);
enum sb_status sb_store_arm(struct sb_store *s, const struct sb_arm_row *row, int64_t *id,
                            struct sb_error *err);
enum sb_status sb_store_prompt(struct sb_store *s, const struct sb_prompt_row *row, int64_t *id,
                               struct sb_error *err);

/* The newest experiment whose content key begins with `prefix`: its key, "" when there is none, and how
 * many of its generations are done. */
enum { SB_KEY_BYTES = 64 };
enum sb_status sb_store_newest_run(struct sb_store *s, const char *prefix, char key[SB_KEY_BYTES],
                                   int64_t *n_done, struct sb_error *err);
/* Is (arm, prompt, repeat) there with status ok? Its output ids come along in new memory, for
 * conversations that continue from it (tokens may be NULL when not wanted). */
enum sb_status sb_store_find_generation(struct sb_store *s, int64_t arm_id, int64_t prompt_id,
                                        int repeat, bool *found, int32_t **tokens, size_t *n_tokens,
                                        struct sb_error *err);

struct sb_node_row {
    int32_t parent, depth, rank, token, source,
        decision; /* decision: 0 not reached 1 rejected 2 accepted */
    double log_q;
    bool auxiliary;
};
struct sb_step_row {
    int32_t step_no, context, drafted, auxiliary, depth, accepted, tokens;
    bool bonus;
    int64_t draft_ns, verify_ns, accept_ns, commit_ns, observe_ns;
    int32_t decided; /* positions with a trial; 0: read off the nodes, without any a chain */
    int32_t judged;  /* 0: nothing is known of the next two */
    double overlap, ot_bound;        /* NaN: NULL */
    const struct sb_node_row *nodes; /* draft nodes, root left out: node_no is index + 1 */
    size_t n_nodes;
};
struct sb_generation_row {
    int64_t arm_id, prompt_id;
    int repeat;                            /* from 0 */
    const char *status;                    /* "ok" | "error" */
    const char *error;                     /* message when status is error */
    const char *finish;                    /* "eos" | "length" | "context" */
    const int32_t *prompt_tokens, *tokens; /* NULL: ids unknown, only their number */
    size_t n_prompt_tokens, n_tokens;
    const char *text;
    int64_t prefill_ns, decode_ns, wall_ns;
    int order_no; /* position in the interleaving */
    double load_average;
    const char *started_at;
    const struct sb_step_row *steps;
    size_t n_steps;
};
/* One BEGIN IMMEDIATE .. COMMIT. An earlier error row for the same (arm, prompt, repeat) is replaced. */
enum sb_status sb_store_generation(struct sb_store *s, const struct sb_generation_row *row,
                                   struct sb_error *err);

/* The measured cost curve c(M) on this host: one row per M. */
struct sb_cost_row {
    int64_t host_id, model_id;
    const char *arithmetic; /* NULL: "exact" */
    int context, rows;
    int64_t median_ns;
    double c, c_lo, c_hi; /* median and quartiles */
};
enum sb_status sb_store_cost(struct sb_store *s, const struct sb_cost_row *row,
                             struct sb_error *err);

/* A certificate: its row at the start, a row per check as it is finished (put again when the verdict is
 * known), and its end. Rows of one that was interrupted stay, without verdicts. */
struct sb_certificate_row {
    int64_t host_id, model_id; /* model_id 0: NULL */
    const char *size;          /* "quick" | "all" */
    int64_t seed;
    double level;
};
struct sb_check_row {
    int64_t certificate_id;
    int check_no;
    const char *part; /* "exact" | "sample" | "greedy" */
    bool planted;
    const char *verifier, *verifier_params, *guarantee, *kind, *drafter, *policy, *target, *setting;
    int64_t n, outcomes;
    /* NaN: NULL */
    double max_error, variation, variation_upper, accepted, g, df, g_p, drift, drift_upper, drift_p,
        p_holm, detectable;
    int64_t equal, ties, numerical, real; /* -1: NULL */
    int64_t wall_ns;
    const char *verdict; /* NULL: not known yet */
    const char *note;
};
enum sb_status sb_store_certificate(struct sb_store *s, const struct sb_certificate_row *row,
                                    int64_t *id, struct sb_error *err);
enum sb_status sb_store_check(struct sb_store *s, const struct sb_check_row *row,
                              struct sb_error *err);
/* verdict: "holds" | "refuted" | "refused" */
enum sb_status sb_store_certificate_end(struct sb_store *s, int64_t id, const char *verdict,
                                        int64_t wall_ns, struct sb_error *err);

#endif
