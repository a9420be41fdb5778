/* Promise 1, on whole forwards of the golden models: a row has the same bits whatever shares its batch, on any
 * number of threads and any instruction set, in a tree or in a chain. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "harness/core/alloc.h"
#include "harness/core/paths.h"
#include "harness/core/rng.h"
#include "harness/core/threads.h"
#include "harness/model/model.h"

enum { CONTEXT = 200, MOST_ROWS = 70, PREFIX = 37 };

/* Every weight type, both architectures, tied and untied, scaled frequencies. */
static const char *const names[] = { "llama-f32",        "llama-bf16",     "llama-f16-tied",
                                     "llama-q8_0",       "llama-q4_0",     "qwen2-f32",
                                     "llama3-ropefreqs", "qwen2-bf16-tied" };
/* The bundled target is the last one: large enough for a second thread. */
enum { N_MODELS = sizeof names / sizeof *names + 1 };

static struct sb_model *models[N_MODELS];

static int load_models(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_MODELS; i++) {
        struct sb_error err;
        char *path = i + 1 == N_MODELS
                         ? sb_data_path("models/tiny")
                         : sb_strf("%s/golden/models/%s.gguf", getenv("SB_TEST_DIR"), names[i]);
        if (sb_model_load(&models[i], path, &err) != SB_OK) {
            print_error("%s\n", err.message);
            return -1;
        }
        sb_free(path);
    }
    return 0;
}

static int free_models(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_MODELS; i++)
        sb_model_destroy(models[i]);
    return 0;
}

static size_t vocab(const struct sb_model *m)
{
    return sb_model_config(m)->n_vocab;
}

static size_t width(const struct sb_model *m)
{
    return sb_model_config(m)->d_model;
}

static void random_tokens(sb_token *out, size_t n, const struct sb_model *m, uint64_t seed)
{
    struct sb_rng rng = sb_rng_make(seed, SB_STREAM_DATA);
    for (size_t i = 0; i < n; i++)
        out[i] = (sb_token)sb_rng_below(&rng, vocab(m));
}

static struct sb_seq *make_seq(struct sb_model *m, size_t max_rows)
{
    struct sb_seq *seq;
    assert_int_equal(sb_seq_create(&seq, m, CONTEXT, max_rows, NULL), SB_OK);
    return seq;
}

static void prefill(struct sb_seq *seq, const sb_token *tokens, size_t n, size_t *last)
{
    assert_int_equal(sb_seq_prefill(seq, tokens, n, NULL, 0, last, NULL), SB_OK);
}

/* Logits [n, vocab] of tokens run one at a time after whatever the sequence holds; new memory. */
static float *one_by_one(struct sb_seq *seq, const sb_token *tokens, size_t n)
{
    struct sb_model *m = sb_seq_model(seq);
    float *all = sb_alloc_array(n * vocab(m), sizeof *all);
    static const int32_t path[] = { 0 };
    for (size_t i = 0; i < n; i++) {
        const struct sb_row row = { .token = tokens[i],
                                    .parent = SB_PARENT_PREFIX,
                                    .want_logits = true };
        assert_int_equal(sb_forward(seq, &row, 1, NULL, NULL), SB_OK);
        memcpy(all + i * vocab(m), sb_seq_logits(seq, 0), vocab(m) * sizeof *all);
        assert_int_equal(sb_seq_commit(seq, path, 1, NULL), SB_OK);
    }
    return all;
}

static void fill_chain(struct sb_row *rows, const sb_token *tokens, size_t n)
{
    for (size_t i = 0; i < n; i++)
        rows[i] =
            (struct sb_row){ .token = tokens[i], .parent = (int32_t)i - 1, .want_logits = true };
}

static void assert_same_bits(const float *a, const float *b, size_t n)
{
    assert_non_null(a);
    assert_non_null(b);
    assert_memory_equal(a, b, n * sizeof *a);
}

static void a_row_has_the_bits_of_that_row_alone(void **state)
{
    (void)state;
    for (size_t k = 0; k < N_MODELS; k++) {
        struct sb_model *m = models[k];
        sb_token tokens[PREFIX + MOST_ROWS];
        struct sb_row rows[MOST_ROWS];
        struct sb_seq *seq = make_seq(m, MOST_ROWS);
        random_tokens(tokens, PREFIX + MOST_ROWS, m, k);
        fill_chain(rows, tokens + PREFIX, MOST_ROWS);
        prefill(seq, tokens, PREFIX, NULL);
        float *alone = one_by_one(seq, tokens + PREFIX, MOST_ROWS);
        for (size_t n = 1; n <= MOST_ROWS; n++) {
            sb_seq_truncate(seq, PREFIX);
            assert_int_equal(sb_forward(seq, rows, n, NULL, NULL), SB_OK);
            for (size_t i = 0; i < n; i++)
                assert_same_bits(sb_seq_logits(seq, i), alone + i * vocab(m), vocab(m));
        }
        sb_free(alone);
        sb_seq_destroy(seq);
    }
}

static float *batch_logits(struct sb_model *m, size_t n)
{
    sb_token tokens[PREFIX + MOST_ROWS];
    struct sb_row rows[MOST_ROWS];
    struct sb_seq *seq = make_seq(m, MOST_ROWS);
    float *all = sb_alloc_array(n * vocab(m), sizeof *all);
    random_tokens(tokens, PREFIX + MOST_ROWS, m, 99);
    fill_chain(rows, tokens + PREFIX, n);
    prefill(seq, tokens, PREFIX, NULL);
    assert_int_equal(sb_forward(seq, rows, n, NULL, NULL), SB_OK);
    for (size_t i = 0; i < n; i++)
        memcpy(all + i * vocab(m), sb_seq_logits(seq, i), vocab(m) * sizeof *all);
    sb_seq_destroy(seq);
    return all;
}

static void threads_and_instruction_sets_change_no_bit(void **state)
{
    (void)state;
    static const char *const cpus[] = { "generic", "avx2", "avx512" };
    int threads = sb_threads_get();
    for (size_t k = 0; k < N_MODELS; k++) {
        for (size_t n = 1; n <= 40; n += 13) {
            float *want = batch_logits(models[k], n);
            for (size_t c = 0; c < 3; c++) {
                const char *why;
                if (!sb_cpu_supported((enum sb_cpu)c))
                    continue;
                assert_int_equal(sb_cpu_select(cpus[c], &why), 0);
                for (int t = 1; t <= 2; t++) {
                    sb_threads_set(t);
                    float *got = batch_logits(models[k], n);
                    assert_same_bits(got, want, n * vocab(models[k]));
                    sb_free(got);
                }
            }
            sb_cpu_select(NULL, NULL);
            sb_threads_set(threads);
            sb_free(want);
        }
    }
}

/* Widened weights cost more memory and change no bit. */
static void widened_weights_have_the_same_bits(void **state)
{
    (void)state;
    const struct sb_arithmetic exact = { .kv_type = SB_F32 }, wide = { .f32_weights = true };
    for (size_t i = 0; i < N_MODELS; i++) {
        struct sb_model *m = models[i];
        size_t stored = sb_model_packed_bytes(m);
        float *want = batch_logits(m, MOST_ROWS);
        assert_int_equal(sb_model_set_arithmetic(m, &wide, NULL), SB_OK);
        float *got = batch_logits(m, MOST_ROWS);
        assert_same_bits(got, want, MOST_ROWS * vocab(m));
        assert_true(sb_model_packed_bytes(m) >= stored);
        assert_true(i != N_MODELS - 1 || sb_model_packed_bytes(m) > stored + stored / 2);
        assert_int_equal(sb_model_set_arithmetic(m, &exact, NULL), SB_OK);
        assert_int_equal(sb_model_packed_bytes(m), stored);
        sb_free(got);
        sb_free(want);
    }
}

static void widen(struct sb_tensor *t, float *floats)
{
    const size_t row_bytes = sb_dtype_row_bytes(t->type, t->k);
    for (size_t i = 0; i < t->n; i++)
        sb_dequantize_row(floats + i * t->k, t->type,
                          (const unsigned char *)t->data + i * row_bytes, t->k);
    t->data = floats;
    t->type = SB_F32;
}

/* Matrices that read the same input are multiplied one by one where their types differ, and gated afterwards. */
static void mixed_types_have_the_same_bits(void **state)
{
    (void)state;
    char *path = sb_strf("%s/golden/models/llama-bf16.gguf", getenv("SB_TEST_DIR"));
    struct sb_weights *weights;
    struct sb_model *mixed;
    assert_int_equal(sb_weights_open(&weights, path, NULL), SB_OK);
    struct sb_layer_weights *layer = &weights->layers[0];
    float *up = sb_alloc_array(layer->w_up.n * layer->w_up.k, sizeof *up),
          *wk = sb_alloc_array(layer->wk.n * layer->wk.k, sizeof *wk);
    assert_true(up && wk);
    widen(&layer->w_up, up);
    widen(&layer->wk, wk);
    assert_int_equal(sb_model_from_weights(&mixed, weights, NULL), SB_OK);
    float *want = batch_logits(models[1], MOST_ROWS), *got = batch_logits(mixed, MOST_ROWS);
    assert_true(sb_model_packed_bytes(mixed) > sb_model_packed_bytes(models[1]));
    assert_same_bits(got, want, MOST_ROWS * vocab(mixed));
    sb_free(got);
    sb_free(want);
    sb_model_destroy(mixed);
    sb_free(up);
    sb_free(wk);
    sb_free(path);
}

/* A narrow cache and fast products have bits of their own, which depend on the batch and on threads as
 * little as the exact ones, and are near those. */
static void other_arithmetics_keep_their_bits_too(void **state)
{
    (void)state;
    static const char *const settings[][2] = {
        { "f16", "exact" }, { "bf16", "exact" }, { "f32", "fast" }, { "bf16", "fast" }
    };
    static const size_t which[] = { 1, N_MODELS - 1 }; /* BF16 weights */
    const struct sb_arithmetic exact = { .kv_type = SB_F32 };
    int threads = sb_threads_get();
    for (size_t i = 0; i < 8; i++) {
        struct sb_model *m = models[which[i % 2]];
        struct sb_arithmetic a;
        const char *const *texts = settings[i / 2];
        float *near = batch_logits(m, MOST_ROWS);
        const struct sb_arithmetic_texts wanted = { .kv_type = texts[0], .math = texts[1] };
        if (sb_arithmetic_parse(&a, &wanted, NULL) != SB_OK) {
            assert_false(sb_fast_supported());
            sb_free(near);
            continue;
        }
        assert_int_equal(sb_model_set_arithmetic(m, &a, NULL), SB_OK);
        float *want = batch_logits(m, MOST_ROWS);
        double far = 0, spread = 0;
        for (size_t j = 0; j < MOST_ROWS * vocab(m); j++) {
            far = fmax(far, fabs((double)want[j] - (double)near[j]));
            spread = fmax(spread, fabs((double)near[j]));
        }
        assert_true(far > 0 && far < 0.1 * spread);
        for (size_t n = 1; n <= MOST_ROWS; n += n < 14 ? 1 : 11)
            for (int t = 1; t <= 2; t++) {
                sb_threads_set(t);
                float *got =
                    batch_logits(m, n); /* its tokens are a prefix of the longest batch's */
                assert_same_bits(got, want, n * vocab(m));
                sb_free(got);
            }
        sb_threads_set(threads);
        assert_int_equal(sb_model_set_arithmetic(m, &exact, NULL), SB_OK);
        sb_free(near);
        sb_free(want);
    }
}

/* A random tree; path[] of row i is the way to it from the prefix. */
static size_t path_to(const struct sb_row *rows, int32_t row, int32_t *path)
{
    size_t n = 0;
    for (int32_t i = row; i >= 0; i = rows[i].parent)
        n++;
    size_t at = n;
    for (int32_t i = row; i >= 0; i = rows[i].parent)
        path[--at] = i;
    return n;
}

static void a_tree_path_has_the_bits_of_a_chain(void **state)
{
    (void)state;
    for (size_t k = 0; k < N_MODELS; k++) {
        struct sb_model *m = models[k];
        for (uint64_t seed = 0; seed < 6; seed++) {
            struct sb_rng rng = sb_rng_make(seed, SB_STREAM_DRAFT);
            sb_token tokens[PREFIX + MOST_ROWS];
            struct sb_row rows[MOST_ROWS];
            size_t n = 2 + (size_t)sb_rng_below(&rng, 40);
            struct sb_seq *tree = make_seq(m, MOST_ROWS), *chain = make_seq(m, MOST_ROWS);
            random_tokens(tokens, PREFIX + n, m, seed);
            fill_chain(rows, tokens + PREFIX, n);
            for (size_t i = 1; i < n; i++) /* several roots are legal */
                rows[i].parent = (int32_t)sb_rng_below(&rng, i + 1) - 1;
            prefill(tree, tokens, PREFIX, NULL);
            prefill(chain, tokens, PREFIX, NULL);
            assert_int_equal(sb_forward(tree, rows, n, NULL, NULL), SB_OK);
            for (size_t i = 0; i < n; i++) {
                int32_t path[MOST_ROWS];
                sb_token along[MOST_ROWS];
                size_t length = path_to(rows, (int32_t)i, path);
                for (size_t j = 0; j < length; j++)
                    along[j] = rows[path[j]].token;
                sb_seq_truncate(chain, PREFIX);
                float *alone = one_by_one(chain, along, length);
                assert_same_bits(sb_seq_logits(tree, i), alone + (length - 1) * vocab(m), vocab(m));
                sb_free(alone);
            }
            sb_seq_destroy(tree);
            sb_seq_destroy(chain);
        }
    }
}

static void a_committed_path_goes_on_like_plain_decoding(void **state)
{
    (void)state;
    for (size_t k = 0; k < N_MODELS; k++) {
        struct sb_model *m = models[k];
        sb_token tokens[PREFIX + 8];
        /* 0 - 1 - 3 - 6, the branch that is kept, among others */
        static const int32_t parents[] = { -1, 0, 0, 1, 2, 2, 3, 4 }, path[] = { 0, 1, 3, 6 };
        struct sb_row rows[8];
        struct sb_seq *tree = make_seq(m, 8), *plain = make_seq(m, 8), *fork;
        random_tokens(tokens, PREFIX + 8, m, 5);
        for (size_t i = 0; i < 8; i++)
            rows[i] = (struct sb_row){ .token = tokens[PREFIX + i], .parent = parents[i] };
        prefill(tree, tokens, PREFIX, NULL);
        prefill(plain, tokens, PREFIX, NULL);
        assert_int_equal(sb_forward(tree, rows, 8, NULL, NULL), SB_OK);
        assert_int_equal(sb_seq_commit(tree, path, 4, NULL), SB_OK);
        assert_int_equal(sb_seq_length(tree), PREFIX + 4);
        const sb_token along[] = { rows[0].token, rows[1].token, rows[3].token, rows[6].token };
        sb_free(one_by_one(plain, along, 4));
        assert_int_equal(sb_seq_fork(&fork, tree, NULL), SB_OK);
        float *want = one_by_one(plain, tokens, 20);
        float *got = one_by_one(tree, tokens, 20);
        assert_same_bits(got, want, 20 * vocab(m));
        sb_free(got);
        got = one_by_one(fork, tokens, 20); /* untouched by what the original did meanwhile */
        assert_same_bits(got, want, 20 * vocab(m));
        sb_free(got);
        sb_seq_truncate(tree, PREFIX + 4);
        got = one_by_one(tree, tokens, 20);
        assert_same_bits(got, want, 20 * vocab(m));
        sb_free(got);
        sb_free(want);
        sb_seq_destroy(tree);
        sb_seq_destroy(plain);
        sb_seq_destroy(fork);
    }
}

static void prefill_batches_of_any_size_give_the_same_bits(void **state)
{
    (void)state;
    for (size_t k = 0; k < N_MODELS; k++) {
        struct sb_model *m = models[k];
        sb_token tokens[100];
        size_t last;
        random_tokens(tokens, 100, m, 8);
        struct sb_seq *whole = make_seq(m, CONTEXT);
        prefill(whole, tokens, 100, &last);
        for (size_t rows = 1; rows < 100; rows = rows * 2 + 1) {
            struct sb_seq *seq = make_seq(m, rows);
            size_t row;
            prefill(seq, tokens, 100, &row);
            assert_same_bits(sb_seq_logits(seq, row), sb_seq_logits(whole, last), vocab(m));
            sb_seq_destroy(seq);
        }
        sb_seq_destroy(whole);
    }
}

static void embeddings_heads_and_taps_are_parts_of_the_forward(void **state)
{
    (void)state;
    for (size_t k = 0; k < N_MODELS; k++) {
        struct sb_model *m = models[k];
        enum { N = 9 };
        sb_token tokens[N];
        struct sb_row rows[N];
        size_t d = width(m), v = vocab(m), n_layers = sb_model_config(m)->n_layers;
        float *embedded = sb_alloc_array(N * d, sizeof(float)),
              *final = sb_alloc_array(N * d, sizeof(float));
        float *last = sb_alloc_array(N * d, sizeof(float)),
              *out = sb_alloc_array(N * d, sizeof(float));
        float *head = sb_alloc_array(N * v, sizeof(float)),
              *want = sb_alloc_array(N * v, sizeof(float));
        struct sb_seq *seq = make_seq(m, N);
        random_tokens(tokens, N, m, 3);
        fill_chain(rows, tokens, N);
        const struct sb_tap taps[] = { { SB_TAP_IN, 0, embedded },
                                       { SB_TAP_OUT, n_layers - 1, out },
                                       { SB_TAP_LAST, 0, last },
                                       { SB_TAP_FINAL, 0, final } };
        const struct sb_forward_options with_taps = { .taps = taps, .n_taps = 4 };
        assert_int_equal(sb_forward(seq, rows, N, &with_taps, NULL), SB_OK);
        for (size_t i = 0; i < N; i++)
            memcpy(want + i * v, sb_seq_logits(seq, i), v * sizeof *want);
        assert_same_bits(out, last, N * d);
        sb_model_lm_head(m, head, final, N);
        assert_same_bits(head, want, N * v);
        sb_model_final_norm(m, out, last, N);
        assert_same_bits(out, final, N * d);
        const int32_t ids[] = { 0, 5, 17, (int32_t)v - 1 };
        float some[4 * N];
        sb_model_lm_head_rows(m, some, final, N, ids, 4);
        for (size_t i = 0; i < 4 * N; i++)
            assert_true(some[i] == want[i / 4 * v + (size_t)ids[i % 4]]);
        sb_model_embed(m, out, tokens, N);
        assert_same_bits(out, embedded, N * d);
        for (size_t i = 0; i < N; i++) /* rows given as vectors */
            rows[i] = (struct sb_row){ .parent = (int32_t)i - 1,
                                       .want_logits = true,
                                       .embedding = embedded + i * d };
        assert_int_equal(sb_forward(seq, rows, N, NULL, NULL), SB_OK);
        for (size_t i = 0; i < N; i++)
            assert_same_bits(sb_seq_logits(seq, i), want + i * v, v);
        sb_free(embedded);
        sb_free(final);
        sb_free(last);
        sb_free(out);
        sb_free(head);
        sb_free(want);
        sb_seq_destroy(seq);
    }
}

static void stopping_and_resuming_is_one_pass(void **state)
{
    (void)state;
    for (size_t k = 0; k < N_MODELS; k++) {
        struct sb_model *m = models[k];
        enum { N = 5 };
        sb_token tokens[N];
        struct sb_row rows[N];
        static const int32_t path[] = { 0, 1, 2, 3, 4 };
        size_t d = width(m), v = vocab(m);
        float *hidden = sb_alloc_array(N * d, sizeof(float)),
              *want = sb_alloc_array(N * v, sizeof(float));
        struct sb_seq *seq = make_seq(m, N);
        random_tokens(tokens, N, m, 4);
        fill_chain(rows, tokens, N);
        assert_int_equal(sb_forward(seq, rows, N, NULL, NULL), SB_OK);
        for (size_t i = 0; i < N; i++)
            memcpy(want + i * v, sb_seq_logits(seq, i), v * sizeof *want);
        const struct sb_tap tap = { SB_TAP_IN, 1, hidden };
        const struct sb_forward_options first = { .taps = &tap, .n_taps = 1, .stop_layer = 1 };
        const struct sb_forward_options rest = { .first_layer = 1, .hidden = hidden };
        assert_int_equal(sb_forward(seq, rows, N, &first, NULL), SB_OK);
        assert_null(sb_seq_logits(seq, 0));
        assert_int_equal(sb_seq_commit(seq, path, N, NULL), SB_EUSAGE); /* half done */
        assert_int_equal(sb_forward(seq, rows, N, &rest, NULL), SB_OK);
        for (size_t i = 0; i < N; i++)
            assert_same_bits(sb_seq_logits(seq, i), want + i * v, v);
        assert_int_equal(sb_seq_commit(seq, path, N, NULL), SB_OK);
        assert_int_equal(sb_forward(seq, rows, N, &rest, NULL),
                         SB_OK); /* without its first layers */
        assert_int_equal(sb_seq_commit(seq, path, N, NULL), SB_EUSAGE);
        sb_free(hidden);
        sb_free(want);
        sb_seq_destroy(seq);
    }
}

static void rows_with_skipped_sublayers_are_not_committed(void **state)
{
    (void)state;
    struct sb_model *m = models[0];
    size_t n_layers = sb_model_config(m)->n_layers;
    uint8_t *none = sb_alloc_zero(n_layers, 1), *skip = sb_alloc_zero(n_layers, 1);
    static const int32_t path[] = { 0 };
    const struct sb_row row = { .token = 7, .parent = SB_PARENT_PREFIX, .want_logits = true };
    struct sb_seq *seq = make_seq(m, 4);
    float *want = sb_alloc_array(vocab(m), sizeof *want);
    struct sb_forward_options o = { .skip_attn = none, .skip_mlp = none };
    assert_int_equal(sb_forward(seq, &row, 1, NULL, NULL), SB_OK);
    memcpy(want, sb_seq_logits(seq, 0), vocab(m) * sizeof *want);
    assert_int_equal(sb_forward(seq, &row, 1, &o, NULL), SB_OK);
    assert_same_bits(sb_seq_logits(seq, 0), want, vocab(m)); /* skipping nothing is the full set */
    skip[n_layers - 1] = 1;
    o.skip_mlp = skip;
    assert_int_equal(sb_forward(seq, &row, 1, &o, NULL), SB_OK);
    assert_memory_not_equal(sb_seq_logits(seq, 0), want, vocab(m) * sizeof *want);
    assert_int_equal(sb_seq_commit(seq, path, 1, NULL), SB_EUSAGE);
    sb_free(none);
    sb_free(skip);
    sb_free(want);
    sb_seq_destroy(seq);
}

static void a_bitset_of_the_ancestors_is_the_parent_links(void **state)
{
    (void)state;
    struct sb_model *m = models[1];
    static const int32_t parents[] = { -1, 0, 0, 1, 2, 3 };
    enum { N = 6 };
    struct sb_row rows[N];
    uint64_t visible[N];
    struct sb_seq *seq = make_seq(m, N);
    float *want = sb_alloc_array(N * vocab(m), sizeof *want);
    for (size_t i = 0; i < N; i++) {
        rows[i] = (struct sb_row){ .token = (sb_token)(i * 11),
                                   .parent = parents[i],
                                   .want_logits = true };
        visible[i] = (parents[i] >= 0 ? visible[parents[i]] : 0) | (uint64_t)1 << i;
    }
    assert_int_equal(sb_forward(seq, rows, N, NULL, NULL), SB_OK);
    for (size_t i = 0; i < N; i++)
        memcpy(want + i * vocab(m), sb_seq_logits(seq, i), vocab(m) * sizeof *want);
    const struct sb_forward_options o = { .visible = visible };
    assert_int_equal(sb_forward(seq, rows, N, &o, NULL), SB_OK);
    for (size_t i = 0; i < N; i++)
        assert_same_bits(sb_seq_logits(seq, i), want + i * vocab(m), vocab(m));
    visible[2] |= (uint64_t)1 << 4; /* a later row */
    assert_int_equal(sb_forward(seq, rows, N, &o, NULL), SB_EUSAGE);
    sb_free(want);
    sb_seq_destroy(seq);
}

static void wrong_batches_are_refused_and_change_nothing(void **state)
{
    (void)state;
    struct sb_model *m = models[0];
    struct sb_seq *seq = make_seq(m, 4), *none;
    struct sb_row rows[5] = { { .token = 1, .parent = -1 }, { .token = 2, .parent = 0 } };
    static const int32_t skipping[] = { 1 }, backwards[] = { 1, 0 };
    assert_int_equal(sb_forward(seq, rows, 0, NULL, NULL), SB_EUSAGE);
    assert_int_equal(sb_forward(seq, rows, 5, NULL, NULL), SB_EUSAGE);
    rows[1].parent = 1;
    assert_int_equal(sb_forward(seq, rows, 2, NULL, NULL), SB_EUSAGE);
    rows[1] = (struct sb_row){ .token = (sb_token)vocab(m), .parent = 0 };
    assert_int_equal(sb_forward(seq, rows, 2, NULL, NULL), SB_EUSAGE);
    rows[1].token = -1;
    assert_int_equal(sb_forward(seq, rows, 2, NULL, NULL), SB_EUSAGE);
    rows[1].token = 2;
    assert_int_equal(sb_forward(seq, rows, 2, NULL, NULL), SB_OK);
    assert_int_equal(sb_seq_commit(seq, skipping, 1, NULL), SB_EUSAGE);
    assert_int_equal(sb_seq_commit(seq, backwards, 2, NULL), SB_EUSAGE);
    assert_int_equal(sb_seq_length(seq), 0);
    assert_int_equal(sb_seq_create(&none, m, sb_model_config(m)->max_context + 1, 4, NULL),
                     SB_EUSAGE);
    assert_int_equal(sb_seq_create(&none, m, 0, 4, NULL), SB_EUSAGE);
    sb_seq_destroy(seq);
}

static void a_forward_allocates_nothing(void **state)
{
    (void)state;
    for (size_t k = 0; k < N_MODELS; k++) {
        struct sb_seq *seq = make_seq(models[k], MOST_ROWS);
        sb_token tokens[MOST_ROWS];
        struct sb_row rows[MOST_ROWS];
        random_tokens(tokens, MOST_ROWS, models[k], 1);
        fill_chain(rows, tokens, MOST_ROWS);
        size_t before = sb_alloc_count();
        for (size_t n = 1; n <= MOST_ROWS; n += 23)
            assert_int_equal(sb_forward(seq, rows, n, NULL, NULL), SB_OK);
        assert_int_equal(sb_alloc_count(), before);
        sb_seq_destroy(seq);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_row_has_the_bits_of_that_row_alone),
        cmocka_unit_test(threads_and_instruction_sets_change_no_bit),
        cmocka_unit_test(widened_weights_have_the_same_bits),
        cmocka_unit_test(mixed_types_have_the_same_bits),
        cmocka_unit_test(other_arithmetics_keep_their_bits_too),
        cmocka_unit_test(a_tree_path_has_the_bits_of_a_chain),
        cmocka_unit_test(a_committed_path_goes_on_like_plain_decoding),
        cmocka_unit_test(prefill_batches_of_any_size_give_the_same_bits),
        cmocka_unit_test(embeddings_heads_and_taps_are_parts_of_the_forward),
        cmocka_unit_test(stopping_and_resuming_is_one_pass),
        cmocka_unit_test(rows_with_skipped_sublayers_are_not_committed),
        cmocka_unit_test(a_bitset_of_the_ancestors_is_the_parent_links),
        cmocka_unit_test(wrong_batches_are_refused_and_change_nothing),
        cmocka_unit_test(a_forward_allocates_nothing),
    };
    return cmocka_run_group_tests(tests, load_models, free_models);
}
