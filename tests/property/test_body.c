/* Draft bodies: the target's forward with other inputs. What it computes against a decoder written down
 * plainly in double; and promise 1 for them too, whatever way their rows are put into batches. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "harness/core/alloc.h"
#include "harness/core/rng.h"
#include "harness/core/threads.h"
#include "harness/model/model.h"
#include "tests/property/plain_body.h"

enum { D = 48, HEADS = 3, KV_HEADS = 1, HEAD = 20, FF = 70, V = 40, CONTEXT = 150, ROWS = 60 };
enum { PREFIX = 19, MOST_FLOATS = 1 << 17 };

/* Forms that published heads have, and what else the flags allow. */
static const struct form {
    enum sb_input input;
    size_t n_layers;
    bool final_norm, head, bias;
} forms[] = {
    { SB_INPUT_BARE, 1, false, false, false },      /* EAGLE-1 */
    { SB_INPUT_BARE, 2, false, false, true },       /* of a Qwen2 target, two layers */
    { SB_INPUT_PAIR, 1, true, true, false },        /* EAGLE-3 */
    { SB_INPUT_PAIR_NORMED, 2, true, true, false }, /* of vLLM's speculators */
    { SB_INPUT_PLAIN, 1, true, false, false },      /* the prefix layer of Hydra++ */
};
enum { N_FORMS = sizeof forms / sizeof *forms };

struct body {
    struct sb_model *model;
    struct sb_weights *weights;
    float *data, *next;
    struct sb_rng rng;
};

static struct sb_tensor tensor(struct body *b, size_t n, size_t k, bool norm)
{
    struct sb_tensor t = { .data = b->next, .type = SB_F32, .n = n, .k = k };
    for (size_t i = 0; i < n * k; i++)
        *b->next++ = (float)(norm ? 1 + .3 * sb_rng_normal(&b->rng) : .3 * sb_rng_normal(&b->rng));
    assert_true(b->next <= b->data + MOST_FLOATS);
    return t;
}

static struct sb_config config_of(const struct form *form)
{
    return (struct sb_config){ .arch = "llama",
                               .n_layers = form->n_layers,
                               .d_model = D,
                               .n_heads = HEADS,
                               .n_kv_heads = KV_HEADS,
                               .head_dim = HEAD,
                               .d_ff = FF,
                               .n_vocab = V,
                               .max_context = CONTEXT,
                               .norm_eps = 1e-5f,
                               .rope_base = 5000,
                               .rope_scale_linear = 1,
                               .rope_layout = SB_ROPE_HALF,
                               .qkv_bias = form->bias,
                               .input = form->input };
}

static void fill_body(struct body *b, const struct form *form, uint64_t seed)
{
    const struct sb_config config = config_of(form);
    *b = (struct body){ .rng = sb_rng_make(seed, SB_STREAM_INIT) };
    b->data = b->next = sb_alloc_array(MOST_FLOATS, sizeof *b->data);
    assert_int_equal(sb_weights_body(&b->weights, &config, "it", NULL), SB_OK);
    for (size_t i = 0; i < form->n_layers; i++) {
        struct sb_wanted_tensor wanted[SB_LAYER_TENSORS];
        size_t n = sb_wanted_tensors(wanted, b->weights, i);
        for (size_t k = 0; k < n; k++)
            *wanted[k].out =
                tensor(b, wanted[k].n, wanted[k].k, strstr(wanted[k].hf, "norm") != NULL);
    }
    if (form->final_norm)
        b->weights->final_norm = tensor(b, 1, D, true);
    if (form->head)
        b->weights->lm_head = tensor(b, V, D, false);
}

static struct body make_body(const struct form *form, uint64_t seed)
{
    struct body b;
    fill_body(&b, form, seed);
    assert_int_equal(sb_model_from_weights(&b.model, b.weights, NULL), SB_OK);
    return b;
}

static void free_body(struct body *b)
{
    sb_model_destroy(b->model);
    sb_free(b->data);
}

static size_t width(const struct body *b)
{
    return sb_config_d_input(sb_model_config(b->model));
}

/* ---- rows ---- */

static float *random_rows(const struct body *b, size_t n, uint64_t seed)
{
    struct sb_rng rng = sb_rng_make(seed, SB_STREAM_DATA);
    float *rows = sb_alloc_array(n * width(b), sizeof *rows);
    for (size_t i = 0; i < n * width(b); i++)
        rows[i] = (float)sb_rng_normal(&rng);
    return rows;
}

/* What leaves the body for n rows: before the final norm, after it, logits. */
struct outputs {
    float last[ROWS * D], final[ROWS * D], logits[ROWS * V];
};

/* Rows row[which[i]] below parent[i] (NULL: a chain), behind `kept` rows of the batch. */
static void forward(const struct body *b, struct sb_seq *seq, const float *row,
                    const int32_t *parent, size_t first, size_t n, size_t kept, struct outputs *out)
{
    struct sb_row rows[ROWS];
    const struct sb_tap taps[] = { { SB_TAP_LAST, 0, out->last + kept * D },
                                   { SB_TAP_FINAL, 0, out->final + kept * D } };
    const struct sb_forward_options o = { .taps = taps, .n_taps = 2, .n_kept = kept };
    bool head = sb_model_has_head(b->model);
    for (size_t i = 0; i < n; i++)
        rows[i] = (struct sb_row){ .embedding = row + (first + i) * width(b),
                                   .parent = parent ? parent[kept + i] : (int32_t)(kept + i) - 1,
                                   .want_logits = head };
    assert_int_equal(sb_forward(seq, rows, n, &o, NULL), SB_OK);
    for (size_t i = 0; i < kept + n && head; i++) {
        assert_non_null(sb_seq_logits(seq, i));
        memcpy(out->logits + i * V, sb_seq_logits(seq, i), V * sizeof(float));
    }
}

static void commit(struct sb_seq *seq, size_t n)
{
    int32_t path[ROWS];
    for (size_t i = 0; i < n; i++)
        path[i] = (int32_t)i;
    assert_int_equal(sb_seq_commit(seq, path, n, NULL), SB_OK);
}

static struct sb_seq *make_seq(const struct body *b, size_t rows)
{
    struct sb_seq *seq;
    assert_int_equal(sb_seq_create(&seq, b->model, CONTEXT, rows, NULL), SB_OK);
    return seq;
}

/* A sequence that holds the first PREFIX rows. */
static struct sb_seq *prefixed(const struct body *b, const float *rows)
{
    static struct outputs out;
    struct sb_seq *seq = make_seq(b, ROWS);
    forward(b, seq, rows, NULL, 0, PREFIX, 0, &out);
    commit(seq, PREFIX);
    return seq;
}

static void assert_same_rows(const struct body *b, const struct outputs *x, size_t i,
                             const struct outputs *y, size_t j)
{
    assert_memory_equal(x->last + i * D, y->last + j * D, D * sizeof(float));
    assert_memory_equal(x->final + i * D, y->final + j * D, D * sizeof(float));
    if (sb_model_has_head(b->model))
        assert_memory_equal(x->logits + i * V, y->logits + j * V, V * sizeof(float));
}

static void a_body_computes_what_the_definition_says(void **state)
{
    (void)state;
    static struct outputs out;
    static struct plain_body plain;
    for (size_t f = 0; f < N_FORMS; f++) {
        struct body b = make_body(&forms[f], f);
        float *rows = random_rows(&b, ROWS, f);
        struct sb_seq *seq = make_seq(&b, ROWS);
        forward(&b, seq, rows, NULL, 0, ROWS, 0, &out);
        for (size_t i = 0; i < ROWS; i++) {
            double x[D], y[D], logits[V];
            plain_body_row(&plain, b.weights, rows + i * width(&b), i, x);
            memcpy(y, x, sizeof y);
            if (forms[f].final_norm)
                plain_norm(y, x, &b.weights->final_norm, 1e-5);
            for (size_t k = 0; k < D; k++) {
                assert_true(fabs((double)out.last[i * D + k] - x[k]) < 2e-4 * (1 + fabs(x[k])));
                assert_true(fabs((double)out.final[i * D + k] - y[k]) < 2e-4 * (1 + fabs(y[k])));
            }
            if (forms[f].head)
                plain_multiply(logits, &b.weights->lm_head, y, NULL);
            for (size_t k = 0; k < V && forms[f].head; k++)
                assert_true(fabs((double)out.logits[i * V + k] - logits[k]) < 1e-3);
        }
        sb_free(rows);
        sb_seq_destroy(seq);
        free_body(&b);
    }
}

static void a_row_has_the_bits_of_that_row_alone(void **state)
{
    (void)state;
    static struct outputs alone, batch, one;
    int threads = sb_threads_get();
    for (size_t f = 0; f < N_FORMS; f++) {
        struct body b = make_body(&forms[f], 7 * f);
        enum { N = ROWS - PREFIX };
        float *rows = random_rows(&b, ROWS, f);
        struct sb_seq *seq = prefixed(&b, rows);
        for (size_t i = 0; i < N; i++) {
            forward(&b, seq, rows, NULL, PREFIX + i, 1, 0, &one);
            memcpy(alone.last + i * D, one.last, D * sizeof(float));
            memcpy(alone.final + i * D, one.final, D * sizeof(float));
            memcpy(alone.logits + i * V, one.logits, V * sizeof(float));
            commit(seq, 1);
        }
        for (size_t n = 1; n <= N; n++) {
            sb_threads_set(1 + (int)(n % 2));
            sb_seq_truncate(seq, PREFIX);
            forward(&b, seq, rows, NULL, PREFIX, n, 0, &batch);
            for (size_t i = 0; i < n; i++)
                assert_same_rows(&b, &batch, i, &alone, i);
        }
        sb_threads_set(threads);
        sb_free(rows);
        sb_seq_destroy(seq);
        free_body(&b);
    }
}

static void random_tree(int32_t *parent, size_t n, uint64_t seed)
{
    struct sb_rng rng = sb_rng_make(seed, SB_STREAM_DRAFT);
    for (size_t i = 0; i < n; i++)
        parent[i] = (int32_t)sb_rng_below(&rng, i + 1) - 1;
}

static void a_tree_path_has_the_bits_of_a_chain(void **state)
{
    (void)state;
    static struct outputs tree, chain;
    enum { N = 30 };
    for (size_t f = 0; f < N_FORMS; f++) {
        struct body b = make_body(&forms[f], f);
        float *rows = random_rows(&b, ROWS, f), *along = sb_alloc_array(N * width(&b), 4);
        struct sb_seq *seq = prefixed(&b, rows), *other = prefixed(&b, rows);
        int32_t parent[N];
        random_tree(parent, N, f);
        forward(&b, seq, rows, parent, PREFIX, N, 0, &tree);
        for (int32_t i = 0; i < N; i++) {
            size_t n = 0, at;
            for (int32_t j = i; j >= 0; j = parent[j])
                n++;
            at = n;
            for (int32_t j = i; j >= 0; j = parent[j])
                memcpy(along + --at * width(&b), rows + (PREFIX + (size_t)j) * width(&b),
                       width(&b) * sizeof *along);
            forward(&b, other, along, NULL, 0, n, 0, &chain);
            assert_same_rows(&b, &tree, (size_t)i, &chain, n - 1);
        }
        sb_free(rows);
        sb_free(along);
        sb_seq_destroy(seq);
        sb_seq_destroy(other);
        free_body(&b);
    }
}

static void rows_added_to_a_batch_have_the_bits_of_one_batch(void **state)
{
    (void)state;
    static struct outputs whole, grown;
    enum { N = 30 };
    for (size_t f = 0; f < N_FORMS; f++) {
        struct body b = make_body(&forms[f], f);
        float *rows = random_rows(&b, ROWS, f);
        struct sb_seq *seq = prefixed(&b, rows), *other = prefixed(&b, rows);
        int32_t parent[N], path[N];
        for (uint64_t seed = 0; seed < 5; seed++) {
            struct sb_rng rng = sb_rng_make(seed, SB_STREAM_DATA);
            random_tree(parent, N, seed);
            sb_seq_truncate(seq, PREFIX);
            sb_seq_truncate(other, PREFIX);
            forward(&b, seq, rows, parent, PREFIX, N, 0, &whole);
            memset(&grown, 0, sizeof grown);
            for (size_t done = 0, m; done < N; done += m) {
                m = 1 + (size_t)sb_rng_below(&rng, 9);
                m = m < N - done ? m : N - done;
                forward(&b, other, rows, parent, PREFIX + done, m, done, &grown);
            }
            for (size_t i = 0; i < N; i++)
                assert_same_rows(&b, &grown, i, &whole, i);
            /* Any path of it may be committed, and what follows has the same bits. */
            size_t n = 0, at;
            for (int32_t j = N - 1; j >= 0; j = parent[j])
                n++;
            at = n;
            for (int32_t j = N - 1; j >= 0; j = parent[j])
                path[--at] = j;
            assert_int_equal(sb_seq_commit(seq, path, n, NULL), SB_OK);
            assert_int_equal(sb_seq_commit(other, path, n, NULL), SB_OK);
            forward(&b, seq, rows, NULL, 3, 5, 0, &whole);
            forward(&b, other, rows, NULL, 3, 5, 0, &grown);
            for (size_t i = 0; i < 5; i++)
                assert_same_rows(&b, &grown, i, &whole, i);
        }
        sb_free(rows);
        sb_seq_destroy(seq);
        sb_seq_destroy(other);
        free_body(&b);
    }
}

static void a_batch_cut_short_may_be_grown_another_way(void **state)
{
    (void)state;
    static struct outputs whole, grown;
    static const int32_t parent[] = { -1, 0, 0, 1, 2, 2 };
    struct body b = make_body(&forms[2], 1);
    float *rows = random_rows(&b, ROWS, 1);
    struct sb_seq *seq = prefixed(&b, rows), *other = prefixed(&b, rows);
    forward(&b, seq, rows, parent, PREFIX, 6, 0, &whole);
    forward(&b, other, rows, NULL, PREFIX, 6, 0, &grown); /* of which the first two are the same */
    forward(&b, other, rows, parent, PREFIX + 2, 4, 2, &grown);
    for (size_t i = 0; i < 6; i++)
        assert_same_rows(&b, &grown, i, &whole, i);
    sb_free(rows);
    sb_seq_destroy(seq);
    sb_seq_destroy(other);
    free_body(&b);
}

static void what_a_body_cannot_do_is_refused(void **state)
{
    (void)state;
    static struct outputs out;
    struct sb_error err;
    struct body b = make_body(&forms[0], 1);
    float *rows = random_rows(&b, ROWS, 1);
    struct sb_seq *seq = prefixed(&b, rows);
    const struct sb_row token = { .token = 1, .parent = -1 },
                        logits = { .embedding = rows, .parent = -1, .want_logits = true },
                        row = { .embedding = rows, .parent = -1 };
    struct sb_forward_options keep = { .n_kept = 1 };
    assert_int_equal(sb_forward(seq, &token, 1, NULL, NULL), SB_EUSAGE);
    assert_int_equal(sb_forward(seq, &logits, 1, NULL, NULL), SB_EUSAGE);
    assert_int_equal(sb_forward(seq, &row, 1, &keep, NULL), SB_EUSAGE); /* settled by a commit */
    forward(&b, seq, rows, NULL, 0, 2, 0, &out);
    keep.n_kept = 3;
    assert_int_equal(sb_forward(seq, &row, 1, &keep, NULL), SB_EUSAGE);
    keep.n_kept = 2;
    const struct sb_row late = { .embedding = rows, .parent = 2 };
    assert_int_equal(sb_forward(seq, &late, 1, &keep, NULL), SB_EUSAGE);
    static const uint64_t visible[] = { 1 };
    const struct sb_forward_options masked = { .n_kept = 2, .visible = visible };
    assert_int_equal(sb_forward(seq, &row, 1, &masked, NULL), SB_EUSAGE);
    sb_seq_truncate(seq, PREFIX);
    assert_int_equal(sb_forward(seq, &row, 1, &keep, NULL), SB_EUSAGE);
    sb_free(rows);
    sb_seq_destroy(seq);
    free_body(&b);

    fill_body(&b, &forms[2], 1);
    struct sb_tensor *wq = &b.weights->layers[0].wq, whole = *wq;
    wq->k = D;
    assert_int_equal(sb_model_from_weights(&b.model, b.weights, &err), SB_EFORMAT);
    assert_non_null(strstr(err.message, "self_attn.q_proj.weight"));
    *wq = whole;
    b.weights->layers[0].pair_norm.data = NULL;
    assert_int_equal(sb_model_from_weights(&b.model, b.weights, &err), SB_EFORMAT);
    assert_non_null(strstr(err.message, "hidden_norm.weight"));
    sb_weights_close(b.weights);
    sb_free(b.data);

    struct sb_config wrong = config_of(&forms[0]);
    struct sb_weights *none;
    wrong.n_heads = 0;
    assert_int_equal(sb_weights_body(&none, &wrong, "eagle", &err), SB_EFORMAT);
    assert_non_null(strstr(err.message, "eagle"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_body_computes_what_the_definition_says),
        cmocka_unit_test(a_row_has_the_bits_of_that_row_alone),
        cmocka_unit_test(a_tree_path_has_the_bits_of_a_chain),
        cmocka_unit_test(rows_added_to_a_batch_have_the_bits_of_one_batch),
        cmocka_unit_test(a_batch_cut_short_may_be_grown_another_way),
        cmocka_unit_test(what_a_body_cannot_do_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
