/* How well a head guesses its target on texts that training never saw. */
#ifndef SB_TRAIN_HEAD_MEASURE_H
#define SB_TRAIN_HEAD_MEASURE_H

#include "harness/train/data.h"
#include "harness/train/head.h"

enum { SB_HEAD_RANKS = 10 };

/* Sums over rows at each depth; divide by rows[j]. The tokens before a guess are the text's own. */
struct sb_head_figures {
    size_t depth;
    double rows[SB_HEAD_DEPTH];
    double overlap[SB_HEAD_DEPTH];             /* sum min(p, q) */
    double rank[SB_HEAD_DEPTH][SB_HEAD_RANKS]; /* the target's likeliest token is the r-th guess */
    double chain[SB_HEAD_DEPTH]; /* first guesses right at this depth and all before */
};
/* What a chain of first guesses would give per step: 1 + sum over depths of chain / rows (B7). */
double sb_head_tokens_per_step(const struct sb_head_figures *figures);

struct sb_head_measure_input {
    struct sb_head *head;
    struct sb_tape *tape, *target_tape;
    const struct sb_corpus *corpus;
    const struct sb_tokenizer *tok;
    struct sb_marks marks;
    size_t seq_len, batch_rows;
    size_t max_rows; /* of the target, at least; records are taken in an order drawn by the seed */
    uint64_t seed;
    bool answers_only;
};
enum sb_status sb_head_measure(struct sb_head_figures *out, const struct sb_head_measure_input *in,
                               struct sb_error *err);

#endif
