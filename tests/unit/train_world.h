/*
 * A small world to train in: a directory of this process with two files of texts, a tokenizer of 300 tokens and the recipe toy.lua.
 * cmocka.h comes first.
 */
#ifndef SB_TESTS_TRAIN_WORLD_H
#define SB_TESTS_TRAIN_WORLD_H

#include "harness/train/data.h"
#include "harness/train/train.h"

extern char dir[64]; /* of this process, removed by remove_world */

/* The corpus of the world as a recipe's data; its arguments are dir and more of data. */
#define DATA "data = { dir = '%s', held_out = 0.1, files = { 'chats.jsonl.gz', 'prose.jsonl' }%s },"

int make_world(void **state);   /* for cmocka_run_group_tests: corpus, tokenizer "tok", toy.lua */
int remove_world(void **state); /* and the directory with all that tests wrote */

/* dir/name in one of 64 static buffers, more than a test asks for. */
const char *at(const char *name);

void write_bytes(const char *path, const void *data, size_t size);
void write_text(const char *path, const char *text);
unsigned char *read_bytes(const char *path, size_t *size); /* the caller's, sb_free */
void assert_same_file(const char *a, const char *b);
void assert_says(const char *text, const char *part); /* part stands in text */

/*
 * dir/name, the recipe of a two-layer model of width 16 in 12 steps, with more keys in these of its tables (", key = 1") and at its
 * end ("key = 1").
 */
void write_recipe(const char *name, const char *model, const char *train, const char *data_more,
                  const char *more);

/* A recipe for a head of the toy target in dir/target, which is trained on first use. */
void write_head_recipe(const char *name, const char *arch, const char *train, const char *data_more,
                       const char *more);

void train_ok(const char *recipe, const struct sb_train_options *options); /* or the test fails */
struct sb_tokenizer *open_tokenizer(struct sb_marks *marks);               /* of the world */

#endif
