/* What a head says in training is what its drafter drafts (methods B 12.2): heads of every architecture are
 * trained a little, decode greedily, and each step accepts exactly as many drafts as the training forward
 * over the same text has right first guesses in a row. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "harness/core/alloc.h"
#include "harness/core/param.h"
#include "harness/decode/session.h"
#include "harness/model/safetensors.h"
#include "harness/train/data.h"
#include "harness/train/head.h"
#include "harness/train/teacher.h"
#include "harness/train/train.h"

enum { DEPTH = 3, PROMPTS = 5, NEW_TOKENS = 60, MOST_STEPS = NEW_TOKENS };

/* A head, what the recipe says of it, and its drafter as a chain of three. */
static const struct {
    const char *arch, *params, *spec, *drafter;
    int steps; /* as many as leave it right here and wrong there */
} heads[] = {
    { "medusa", "heads = 3, layers = 2", "heads=3,layers=2", "tree=1x1x1", 35 },
    { "medusa", "heads = 3, share_lm_head = true", "heads=3,share_lm_head=true", "tree=1x1x1", 35 },
    { "hydra", "heads = 3, layers = 2", "heads=3,layers=2", "tree=1x1x1", 35 },
    { "hydra", "heads = 3, share_lm_head = true", "heads=3,share_lm_head=true", "tree=1x1x1", 35 },
    { "hydra-pp", "heads = 3, layers = 2", "heads=3,layers=2", "tree=1x1x1", 35 },
    { "eagle", "steps = 2", "steps=2", "tree=1x1x1", 45 },
    { "eagle", "bias = false", "bias=false", "tree=1x1x1", 45 },
    { "eagle3", "steps = 3", "steps=3", "depth=2,topk=1,total=4", 60 },
    { "eagle3", "steps = 3, draft_vocab = 150", "steps=3,draft_vocab=150", "depth=2,topk=1,total=4",
      60 },
    { "mlp-speculator", "inner_dim = 20", "inner_dim=20", "tree=1x1x1", 130 },
    { "mlp-speculator", "inner_dim = 20, tie_weights = true, scale_input = true",
      "inner_dim=20,tie_weights=true,scale_input=true", "tree=1x1x1", 130 },
    { "redrafter", "length = 3", "length=3", "k=3,beams=1", 35 },
    { "redrafter", "length = 3, layers = 1, rnn = false", "length=3,layers=1,rnn=false",
      "k=3,beams=1", 35 },
};

static char dir[64];

static const char *at(const char *name)
{
    static char path[8][128];
    static size_t next;
    next = (next + 1) % 8;
    snprintf(path[next], sizeof path[next], "%s/%s", dir, name);
    return path[next];
}

static void write_text(const char *path, const char *text)
{
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

static void train(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static void train(const char *fmt, ...)
{
    char text[2048];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    write_text(at("recipe.lua"), text);
    struct sb_train_options options = { 0 };
    struct sb_error err;
    if (sb_train_recipe(at("recipe.lua"), &options, &err) != SB_OK)
        fail_msg("%s", err.message);
}

/* Chats of words that follow each other by a rule with a few surprises: neither all right nor all wrong. */
static void write_chats(void)
{
    static const char *const words[] = { "red", "oak", "sun", "fog", "ice", "map", "key", "jar" };
    FILE *file = fopen(at("chats.jsonl"), "w");
    assert_non_null(file);
    for (int i = 0; i < 200; i++) {
        fprintf(file, "{\"task\": \"qa\", \"turns\": [{\"user\": \"Go %d\", \"assistant\": \"", i);
        for (int j = 0, w = i % 8; j < 24; j++, w = (w * 3 + 1 + (i + j) % 3) % 8)
            fprintf(file, "%s ", words[w]);
        fprintf(file, "\"}]}\n");
    }
    fclose(file);
}

#define DATA \
    "data = { dir = '%s', held_out = 0.05, files = { 'chats.jsonl' }, loss_on = 'answers' }"
#define TRAIN "batch_tokens = 256, micro_tokens = 256, seq_len = 80, seed = 5, weight_decay = 0"

static int make_target(void **state)
{
    (void)state;
    const char *tmp = getenv("TMPDIR");
    snprintf(dir, sizeof dir, "%s/sb-infer-XXXXXX", tmp && strlen(tmp) < 30 ? tmp : "/tmp");
    if (!mkdtemp(dir))
        return -1;
    write_chats();
    train("return { kind = 'tokenizer', name = 't', out = '%s/tok', model = { vocab = 280 }, " DATA
          " }",
          dir, dir);
    train("return { kind = 'lm', name = 't', out = '%s/target', tokenizer = '%s/tok', " DATA
          ", model = { layers = 6, width = 24, heads = 2, kv_heads = 1, ff = 32, vocab = 280,"
          " context = 256 }, train = { " TRAIN ", steps = 120, lr = 0.01 } }",
          dir, dir, dir);
    return 0;
}

static int remove_all(void **state)
{
    (void)state;
    char command[128];
    snprintf(command, sizeof command, "rm -r '%s'", dir);
    return system(command) == 0 ? 0 : -1;
}

/* ---- decoding -------------------------------------------------------------------------------- */

struct steps {
    int32_t context[MOST_STEPS], accepted[MOST_STEPS], drafted[MOST_STEPS];
    size_t n;
};

static void keep_step(void *user, const struct sb_step *step)
{
    struct steps *steps = user;
    assert_true(steps->n < MOST_STEPS);
    steps->context[steps->n] = step->context;
    steps->accepted[steps->n] = step->accepted;
    steps->drafted[steps->n++] = step->drafted;
}

/* Turn `text`, a prompt, into the prompt and what was decoded. */
static void decode(struct steps *steps, struct sb_tokens *text, struct sb_session *session)
{
    struct sb_error err;
    struct sb_generation out = { 0 };
    const struct sb_request request = { .prompt = text->id,
                                        .n_prompt = text->n,
                                        .max_new_tokens = NEW_TOKENS,
                                        .on_step = keep_step,
                                        .self = steps };
    if (sb_session_generate(session, &request, &out, &err) != SB_OK)
        fail_msg("%s", err.message);
    assert_int_equal(sb_tokens_push(text, out.tokens.id, out.tokens.n, &err), SB_OK);
    sb_generation_finish(&out);
}

/* The chats up to their answers. */
static void read_prompts(struct sb_tokens prompt[PROMPTS])
{
    struct sb_corpus corpus;
    struct sb_tokenizer *tok;
    struct sb_marks marks;
    struct sb_error err;
    struct sb_rendered doc = { 0 };
    const char *file = "chats.jsonl";
    assert_int_equal(sb_corpus_read(&corpus, dir, &file, 1, 0, &err), SB_OK);
    assert_int_equal(sb_tokenizer_open(&tok, at("tok"), &err), SB_OK);
    assert_int_equal(sb_marks_find(&marks, tok, "tok", &err), SB_OK);
    for (size_t i = 0; i < PROMPTS; i++) {
        size_t n = 0;
        assert_int_equal(
            sb_record_render(&doc, &corpus, &corpus.records[11 * i], tok, &marks, &err), SB_OK);
        while (!doc.answer[n])
            n++;
        assert_int_equal(sb_tokens_push(&prompt[i], doc.tokens.id, n, &err), SB_OK);
    }
    sb_rendered_finish(&doc);
    sb_tokenizer_close(tok);
    sb_corpus_finish(&corpus);
}

/* ---- training -------------------------------------------------------------------------------- */

static void read_weights(struct sb_head *head, const char *path)
{
    struct sb_st_file file;
    struct sb_error err;
    assert_int_equal(sb_st_open(&file, path, &err), SB_OK);
    assert_int_equal(file.n, head->weights.n_tensors + (head->n_draft ? 2 : 0));
    if (head->n_draft) {
        const struct sb_stored_tensor *d2t = sb_st_find(&file, "d2t");
        int32_t ids[256];
        assert_non_null(d2t);
        assert_int_equal(d2t->size_bytes, head->n_draft * sizeof(int64_t));
        for (size_t i = 0; i < head->n_draft; i++)
            ids[i] = (int32_t)(((const int64_t *)d2t->data)[i] + (int64_t)i);
        assert_int_equal(sb_head_set_vocabulary(head, ids, &err), SB_OK);
    }
    for (size_t t = 0; t < head->weights.n_tensors; t++) {
        const struct sb_trainable_tensor *to = &head->weights.tensors[t];
        const struct sb_stored_tensor *from = sb_st_find(&file, to->name);
        assert_non_null(from);
        assert_int_equal(from->size_bytes, 2 * to->var->rows * to->var->cols);
        const uint16_t *bits = from->data;
        for (size_t i = 0; i < to->var->rows * to->var->cols; i++) {
            uint32_t wide = (uint32_t)bits[i] << 16;
            memcpy(&to->var->x[i], &wide, sizeof wide);
        }
    }
    sb_st_close(&file);
}

static size_t argmax(const sb_real *x, size_t n)
{
    size_t best = 0;
    for (size_t j = 1; j < n; j++)
        best = x[j] > x[best] ? j : best;
    return best;
}

/* right[t]: how many first guesses in a row the head has right at row t, at most DEPTH. */
static void judge(size_t *right, struct sb_head *head, const struct sb_tokens *text)
{
    struct sb_error err;
    struct sb_tape *target_tape, *tape;
    assert_int_equal(sb_tape_create(&target_tape, &err), SB_OK);
    assert_int_equal(sb_tape_create(&tape, &err), SB_OK);
    size_t m = text->n - 1;
    const size_t start[] = { 0, m };
    int32_t pos[256];
    sb_real counts[256];
    for (size_t i = 0; i < m; i++) {
        pos[i] = (int32_t)i;
        counts[i] = 1;
    }
    const struct sb_head_texts texts = { { text->id, pos, m, { start, 1 } }, text->id + 1, counts };
    struct sb_lm_states states;
    struct sb_head_rows rows;
    struct sb_head_output out = { 0 };
    assert_non_null(sb_lm_forward_states(head->target, target_tape, &texts.rows, &states));
    assert_true(sb_head_rows_make(&rows, tape, &texts, DEPTH));
    const struct sb_head_input in = { tape, &texts, &rows, &states };
    head->ops->forward(head, &in, &out);
    const sb_real *said[DEPTH];
    for (size_t j = 0; j < DEPTH; j++)
        said[j] = sb_head_full_rows(head, tape, out.logits[j]);
    for (size_t r = 0; r < rows.n; r++) {
        size_t j = 0, n = head->target->shape.n_vocab;
        while (j < DEPTH && rows.weight[j][r] != 0 &&
               argmax(said[j] + r * n, n) == (size_t)rows.label[j][r])
            j++;
        right[rows.at[r]] = j;
    }
    sb_tape_destroy(tape);
    sb_tape_destroy(target_tape);
}

/* What was seen: at least two right, and not all. */
struct tally {
    size_t right, wrong; /* drafts */
};

/* Decode behind one prompt, and compare with the training forward over the same text. */
static void compare(struct tally *tally, struct sb_session *session, struct sb_head *head,
                    const struct sb_tokens *prompt, const char *drafter)
{
    struct sb_error err;
    struct sb_tokens text = { 0 };
    struct steps steps = { .n = 0 };
    size_t right[256] = { 0 };
    assert_int_equal(sb_tokens_push(&text, prompt->id, prompt->n, &err), SB_OK);
    decode(&steps, &text, session);
    judge(right, head, &text);
    for (size_t s = 0; s < steps.n; s++) {
        size_t t = (size_t)steps.context[s] - 2; /* the newest hidden state */
        if (steps.drafted[s] < DEPTH || t + 2 + DEPTH >= text.n)
            continue;
        if ((size_t)steps.accepted[s] != right[t])
            fail_msg("%s, step %zu at %d tokens: %d drafts accepted, training has %zu right",
                     drafter, s, steps.context[s], steps.accepted[s], right[t]);
        tally->right += right[t] >= 2;
        tally->wrong += right[t] < DEPTH;
    }
    sb_tokens_finish(&text);
}

static struct sb_session *open_session(struct sb_model *target, const struct sb_spec *drafter)
{
    struct sb_error err;
    struct sb_session *session;
    const struct sb_session_options options = { .target = target,
                                                .drafter = drafter,
                                                .ignore_eos = true };
    if (sb_session_create(&session, &options, &err) != SB_OK)
        fail_msg("%s", err.message);
    return session;
}

static void drafts_are_what_training_computes(void **state)
{
    (void)state;
    struct sb_error err;
    struct sb_model *target;
    struct sb_lm *frozen;
    struct sb_tokens prompt[PROMPTS] = { 0 };
    uint64_t hash;
    assert_int_equal(sb_model_load(&target, at("target"), &err), SB_OK);
    assert_int_equal(sb_teacher_load(&frozen, &hash, at("target"), 0, &err), SB_OK);
    read_prompts(prompt);
    for (size_t i = 0; i < sizeof heads / sizeof *heads; i++) {
        train("return { kind = 'head', name = 'h', arch = '%s', out = '%s/head', target = "
              "'%s/target', head = { %s }, " DATA ", train = { " TRAIN
              ", steps = %d, lr = 0.01 } }",
              heads[i].arch, dir, dir, heads[i].params, dir, heads[i].steps);
        char text[256];
        struct sb_spec drafter, params;
        snprintf(text, sizeof text, "%s:%s", heads[i].arch, heads[i].spec);
        assert_int_equal(sb_spec_parse(&params, text, &err), SB_OK);
        snprintf(text, sizeof text, "%s:head=%s,%s", heads[i].arch, at("head"), heads[i].drafter);
        assert_int_equal(sb_spec_parse(&drafter, text, &err), SB_OK);
        struct sb_session *session = open_session(target, &drafter);
        struct sb_head *head;
        assert_int_equal(
            sb_head_create(&head, sb_head_arch_find(heads[i].arch), &params, frozen, 1, &err),
            SB_OK);
        read_weights(head, at("head/model.safetensors"));
        struct tally tally = { 0 };
        for (size_t p = 0; p < PROMPTS; p++)
            compare(&tally, session, head, &prompt[p], text);
        if (tally.right == 0 || tally.wrong == 0) /* it would hold for many a wrong head */
            fail_msg("%s: %zu drafts right, %zu not", text, tally.right, tally.wrong);
        sb_session_destroy(session);
        sb_head_destroy(head);
        sb_spec_finish(&params);
        sb_spec_finish(&drafter);
    }
    for (size_t p = 0; p < PROMPTS; p++)
        sb_tokens_finish(&prompt[p]);
    sb_lm_destroy(frozen);
    sb_model_destroy(target);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(drafts_are_what_training_computes),
    };
    return cmocka_run_group_tests(tests, make_target, remove_all);
}
