/* Training throughput: steps of a language model on made-up tokens, beside what sgemm alone reaches.
 *
 *   bench_train [LAYERS WIDTH HEADS KV_HEADS FF [TOKENS [DOCUMENT]]]
 *
 * The default is the bundled target. Peak is one product of 2048^3; the share says what attention,
 * norms, losses, the optimiser and thin matrices cost. */
#include <stdio.h>
#include <stdlib.h>

#include "harness/core/alloc.h"
#include "harness/core/clock.h"
#include "harness/core/threads.h"
#include "harness/train/adamw.h"
#include "harness/train/data.h"

enum { VOCAB = 4096, STEPS = 10, PEAK_N = 2048, PEAK_TRIES = 5 };

static double peak_gflops(void)
{
    float *a = sb_alloc_zero(PEAK_N * PEAK_N, sizeof *a),
          *b = sb_alloc_zero(PEAK_N * PEAK_N, sizeof *b);
    float *c = sb_alloc_zero(PEAK_N * PEAK_N, sizeof *c);
    double best = 0;
    for (int i = 0; a && b && c && i < PEAK_TRIES; i++) {
        uint64_t began = sb_now_ns();
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, PEAK_N, PEAK_N, PEAK_N, 1, a, PEAK_N,
                    b, PEAK_N, 0, c, PEAK_N);
        double speed = 2.0 * PEAK_N * PEAK_N * PEAK_N / (double)(sb_now_ns() - began);
        best = speed > best ? speed : best;
    }
    sb_free(a);
    sb_free(b);
    sb_free(c);
    return best;
}

static void fill(struct sb_batch *batch, size_t document)
{
    batch->m = batch->capacity;
    for (size_t i = 0; i < batch->m; i++) {
        batch->ids[i] = (int32_t)((i * i * 31 + 7) % VOCAB);
        batch->target[i] = (int32_t)((i * 13 + 5) % VOCAB);
        batch->pos[i] = (int32_t)(i % document);
        batch->weight[i] = 1 / (sb_real)batch->m;
        if (i % document == 0)
            batch->start[batch->n_segments++] = i;
    }
    batch->start[batch->n_segments] = batch->m;
}

/* Seconds of STEPS steps after one to warm up; negative on failure. */
static double time_steps(struct sb_lm *lm, struct sb_adamw *opt, struct sb_tape *tape,
                         const struct sb_batch *batch, struct sb_error *err)
{
    const struct sb_lm_batch rows = {
        batch->ids, batch->pos, batch->m, { batch->start, batch->n_segments }
    };
    uint64_t began = 0;
    for (int i = 0; i <= STEPS; i++) {
        if (i == 1)
            began = sb_now_ns();
        sb_tape_reset(tape);
        sb_trainable_clear_grads(&lm->weights);
        struct sb_var *loss = sb_tape_cross_entropy(tape, sb_lm_forward(lm, tape, &rows),
                                                    batch->target, batch->weight);
        if (sb_tape_backward(tape, loss, err) != SB_OK)
            return -1;
        sb_adamw_step(opt, &lm->weights);
    }
    return (double)(sb_now_ns() - began) * 1e-9;
}

static size_t argument(int argc, char **argv, int index, size_t fallback)
{
    long value = index < argc ? strtol(argv[index], NULL, 10) : 0;
    return value > 0 ? (size_t)value : fallback;
}

int main(int argc, char **argv)
{
    struct sb_lm_shape shape = {
        .n_layers = argument(argc, argv, 1, 6),
        .d_model = argument(argc, argv, 2, 192),
        .n_heads = argument(argc, argv, 3, 6),
        .n_kv_heads = argument(argc, argv, 4, 2),
        .d_ff = argument(argc, argv, 5, 512),
        .n_vocab = VOCAB,
        .max_context = 8192,
        .rope_base = 10000,
        .norm_eps = 1e-5,
    };
    size_t tokens = argument(argc, argv, 6, 2048), document = argument(argc, argv, 7, 256);
    struct sb_adamw_options adamw = {
        .lr = 1e-3, .beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .clip = 1, .steps = STEPS
    };
    struct sb_lm *lm = NULL;
    struct sb_tape *tape = NULL;
    struct sb_adamw opt = { 0 };
    struct sb_batch batch = { 0 };
    struct sb_error err;
    double seconds = -1;
    if (sb_lm_create(&lm, &shape, false, &err) == SB_OK && sb_tape_create(&tape, &err) == SB_OK &&
        sb_adamw_init(&opt, &adamw, lm->weights.n_params, &err) == SB_OK &&
        sb_batch_init(&batch, tokens, &err) == SB_OK) {
        sb_trainable_init(&lm->weights, 1);
        fill(&batch, document < shape.max_context ? document : shape.max_context);
        seconds = time_steps(lm, &opt, tape, &batch, &err);
    }
    if (seconds > 0) {
        double speed = (double)(STEPS * tokens) / seconds, peak = peak_gflops();
        double gflops = speed * sb_lm_flops_per_token(&shape, (double)document / 2) * 1e-9;
        printf(
            "%zu weights, %zu tokens a step in documents of %zu, %d threads, %zu MiB of activations\n",
            lm->weights.n_params, tokens, document, sb_threads_get(), sb_tape_bytes(tape) >> 20);
        printf("%.0f tokens/s, %.1f GFLOP/s, %.0f %% of sgemm's %.1f GFLOP/s\n", speed, gflops,
               100 * gflops / peak, peak);
    } else {
        fprintf(stderr, "bench_train: %s\n", err.message);
    }
    sb_batch_finish(&batch);
    sb_adamw_finish(&opt);
    sb_tape_destroy(tape);
    sb_lm_destroy(lm);
    return seconds > 0 ? 0 : 1;
}
