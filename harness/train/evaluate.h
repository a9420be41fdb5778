/* How well a model predicts the records that training never saw, by task, beside counting models. */
#ifndef SB_TRAIN_EVALUATE_H
#define SB_TRAIN_EVALUATE_H

#include "harness/train/data.h"
#include "harness/train/lm.h"

/* How a student's logits q[n] fare against a teacher's p[n]. */
struct sb_row_match {
    double overlap; /* sum min(p, q) after softmax: what sampling would accept */
    size_t rank;    /* of the teacher's likeliest token among the student's; 0: they agree */
};
struct sb_row_match sb_compare_rows(const sb_real *p, const sb_real *q, size_t n);

struct sb_task_score {
    const char *task; /* borrowed from the corpus */
    size_t records, tokens;
    double loss;            /* nats per token of the model */
    double unigram, bigram; /* of counts over the tokens the model was trained on */
    double agreement; /* share of rows where the teacher's likeliest token is the model's too */
    double overlap;   /* mean of sum min(p, q): what sampling would accept */
};

/* Counts of single tokens and of pairs. */
struct sb_counts {
    size_t n_vocab, total;
    uint32_t *single, *pair; /* [v], [v, v] */
};
enum sb_status sb_counts_init(struct sb_counts *counts, size_t n_vocab, struct sb_error *err);
void sb_counts_finish(struct sb_counts *counts);
void sb_counts_add(struct sb_counts *counts, const struct sb_batch *batch);
/* -log P(next): add-one for single tokens; pairs lean on them with the weight of `lean` sightings. */
double sb_counts_unigram(const struct sb_counts *counts, int32_t next);
double sb_counts_bigram(const struct sb_counts *counts, int32_t previous, int32_t next,
                        double lean);

struct sb_evaluation {
    struct sb_task_score tasks[SB_MAX_TASKS], all;
    size_t n_tasks;
};
/* What to measure with; counts and teacher (with a tape of its own) may be NULL. */
struct sb_evaluation_input {
    struct sb_lm *lm, *teacher;
    struct sb_tape *tape, *teacher_tape;
    const struct sb_corpus *corpus;
    const struct sb_tokenizer *tok;
    struct sb_marks marks;
    size_t seq_len;    /* as in training */
    size_t max_tokens; /* of each task, in file order */
    const struct sb_counts *counts;
};
enum sb_status sb_evaluate(struct sb_evaluation *out, const struct sb_evaluation_input *in,
                           struct sb_error *err);

#endif
