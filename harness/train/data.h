/* Training text: records of JSON lines, in an order drawn by the seed, as packed batches of tokens.
 *
 * A record is {"task": T, "turns": [{"user": U, "assistant": A}, ...]}, {"task": T, "text": S}, or tokens
 * as they are, {"task": T, "ids": [...], "answer": n} with n the first one that has a loss on answers. Files
 * are *.jsonl or *.jsonl.gz. A chat is rendered as the harness prompts it at inference:
 *   <|bos|>  then per turn  <|user|> \n U \n <|assistant|> \n A <|end|> \n
 * and a text as <|bos|> S <|end|>. Marks inside the text itself are ordinary characters. */
#ifndef SB_TRAIN_DATA_H
#define SB_TRAIN_DATA_H

#include "harness/model/tokenizer.h"
#include "harness/train/lm.h"

enum { SB_MAX_TASKS = 32 };

struct sb_record {
    size_t offset, length; /* of the JSON line in the corpus text */
    uint8_t task;
    bool held_out;
};

struct sb_corpus {
    char *text; /* all lines, owned */
    size_t text_length, text_cap;
    struct sb_record *records;
    size_t n_records, cap_records;
    char *tasks[SB_MAX_TASKS]; /* names in order of appearance, owned */
    size_t n_tasks;
    uint64_t hash; /* of all lines in order: what the model was trained on */
};

/* Read files[n] under dir (NULL: as they are). held_out is the share of records, picked by the hash
 * of their text, that training never sees. Errors name file and line. */
enum sb_status sb_corpus_read(struct sb_corpus *corpus, const char *dir, const char *const *files,
                              size_t n_files, double held_out, struct sb_error *err);
void sb_corpus_finish(struct sb_corpus *corpus);

/* Call `visit` with every piece of plain text (turns and prose, without marks) of the records in
 * training, in file order; stops at the first failure and returns it. */
typedef enum sb_status sb_text_visitor(void *user, const char *text, size_t length,
                                       struct sb_error *err);
enum sb_status sb_corpus_each_text(const struct sb_corpus *corpus, sb_text_visitor *visit,
                                   void *user, struct sb_error *err);

/* Ids of the marks in a vocabulary. */
struct sb_marks {
    sb_token bos, user, assistant, end;
};
/* SB_EFORMAT when the tokenizer lacks one. */
enum sb_status sb_marks_find(struct sb_marks *marks, const struct sb_tokenizer *tok,
                             const char *path, struct sb_error *err);

/* One record as tokens; answer[i] tells whether token i belongs to an answer (all of a text does). */
struct sb_rendered {
    struct sb_tokens tokens;
    bool *answer; /* [tokens.n] */
    size_t cap_answer;
};
enum sb_status sb_record_render(struct sb_rendered *out, const struct sb_corpus *corpus,
                                const struct sb_record *record, const struct sb_tokenizer *tok,
                                const struct sb_marks *marks, struct sb_error *err);
void sb_rendered_finish(struct sb_rendered *rendered);

/* m rows of (token, next token); `counts` rows have a loss. */
struct sb_batch {
    int32_t *ids, *pos, *target;
    sb_real *weight; /* 1 or 0; the trainer divides */
    size_t *start;   /* [n_segments + 1] */
    size_t m, capacity, n_segments, counts;
};
enum sb_status sb_batch_init(struct sb_batch *batch, size_t capacity, struct sb_error *err);
void sb_batch_finish(struct sb_batch *batch);
/* Append rows from..from + n - 1 of a document as one segment: row i is (token i, token i + 1). */
void sb_batch_append(struct sb_batch *batch, const struct sb_rendered *doc, size_t from, size_t n,
                     bool answers_only);

/* Where a stream of batches stands; enough to continue it. */
struct sb_cursor {
    uint64_t epoch, next; /* the record being read is order[next - 1] */
    uint64_t at;          /* rows of it already given */
};

struct sb_data_options {
    uint64_t seed;
    size_t seq_len; /* rows of a segment at most */
    bool answers_only;
    double weights[SB_MAX_TASKS]; /* copies per epoch of a record, by task; fractions by chance */
};

/* An endless stream of batches. Borrows corpus, tokenizer and marks. */
struct sb_data_stream {
    const struct sb_corpus *corpus;
    const struct sb_tokenizer *tok;
    struct sb_marks marks;
    struct sb_data_options options;
    size_t *order; /* records of this epoch, owned */
    size_t n_order, cap_order;
    struct sb_rendered doc;
    struct sb_cursor cursor;
};
enum sb_status sb_data_init(struct sb_data_stream *stream, const struct sb_corpus *corpus,
                            const struct sb_tokenizer *tok, const struct sb_marks *marks,
                            const struct sb_data_options *options, struct sb_error *err);
void sb_data_finish(struct sb_data_stream *stream);
enum sb_status sb_data_seek(struct sb_data_stream *stream, const struct sb_cursor *cursor,
                            struct sb_error *err);
/* Fill the batch to its capacity. */
enum sb_status sb_data_next(struct sb_data_stream *stream, struct sb_batch *batch,
                            struct sb_error *err);

#endif
