/* The KV cache of a layer: how keys and values get there, and are moved and copied. */
#include <stdint.h>
#include <string.h>

#include "kernels/kv.h"

static size_t element_bytes(const struct sb_kv_layer *kv)
{
    return kv->type == SB_F32 ? 4 : 2;
}

size_t sb_kv_bytes(enum sb_dtype type, size_t n_slots, size_t n_kv_heads, size_t head_dim)
{
    const struct sb_kv_layer kv = { type, NULL, n_slots, n_kv_heads, head_dim };
    size_t most;
    if (type > SB_BF16 || head_dim > SIZE_MAX / 16 || n_slots > SIZE_MAX - SB_CHUNK ||
        __builtin_mul_overflow(sb_kv_chunks(n_slots) * SB_CHUNK, n_kv_heads, &most) ||
        __builtin_mul_overflow(most, 8 * sb_round_up(head_dim, SB_PANEL), &most))
        return 0;
    return n_kv_heads * sb_kv_chunks(n_slots) * sb_kv_chunk(&kv);
}

/* All lines of a head's next slots are on their way at once. */
static void ask_for_slots(const struct sb_kv_layer *kv, size_t slot, size_t head, size_t n)
{
    const unsigned char *k = sb_kv_key(kv, slot, head, 0);
    size_t step = sb_kv_value_step(kv),
           steps = kv->type == SB_BF16 ? kv->head_dim / 2 : kv->head_dim;
    for (size_t i = 0; i < steps; i++)
        __builtin_prefetch(k + i * (kv->type == SB_F16 ? 64 : 128), 1);
    for (size_t p = 0; p < sb_kv_value_panels(kv); p++) {
        const unsigned char *v =
            sb_kv_values(kv, slot, head, p); /* n slots of one panel of keys, so of one chunk */
        for (size_t at = 0; at < n * step; at += 64)
            __builtin_prefetch(v + at, 1);
    }
}

struct write_loop {
    const struct sb_kv_layer *kv;
    size_t slot;
    const float *k, *v;
    size_t ld, m, runs; /* of slots in one panel */
};

static void write_runs(const void *arg, size_t first, size_t last, size_t member)
{
    const struct write_loop *l = arg;
    const struct sb_kernel_table *kernels = sb_kernels();
    const struct sb_kv_layer *kv = l->kv;
    const size_t offset = l->slot % SB_PANEL, d = kv->head_dim;
    for (size_t i = first; i < last; i++) {
        size_t head = i / l->runs, run = i % l->runs;
        size_t row = run > 0 ? run * SB_PANEL - offset : 0, end = (run + 1) * SB_PANEL - offset;
        size_t n = (end < l->m ? end : l->m) - row, at = row * l->ld + head * d;
        ask_for_slots(kv, l->slot + row, head, n);
        kernels->store_keys(kv->type, sb_kv_key(kv, l->slot + row, head, 0), l->k + at, l->ld, n,
                            d);
        for (size_t at_value = 0; at_value < d; at_value += SB_PANEL)
            kernels->store_values(kv->type,
                                  sb_kv_values(kv, l->slot + row, head, at_value / SB_PANEL),
                                  l->v + at + at_value, l->ld, n, sb_least(d - at_value, SB_PANEL));
    }
}

void sb_kv_write(const struct sb_team *team, const struct sb_kv_layer *kv, size_t slot,
                 const float *k, const float *v, size_t ld, size_t m)
{
    /* Multiply-adds in the time of an element of k and of v: mostly of waiting for lines. */
    enum { WORK = 96 };
    const size_t runs = (slot % SB_PANEL + m + SB_PANEL - 1) / SB_PANEL;
    const struct write_loop loop = { kv, slot, k, v, ld, m, runs };
    if (m > 0)
        sb_team_for(team, runs * kv->n_kv_heads, WORK * m * kv->n_kv_heads * kv->head_dim,
                    write_runs, &loop);
}

void sb_kv_move(const struct sb_kv_layer *kv, size_t dst, size_t src)
{
    if (dst == src)
        return;
    for (size_t h = 0; h < kv->n_kv_heads; h++) {
        for (size_t i = 0; i < kv->head_dim; i++)
            memcpy(sb_kv_key(kv, dst, h, i), sb_kv_key(kv, src, h, i), element_bytes(kv));
        for (size_t p = 0; p < sb_kv_value_panels(kv); p++)
            memcpy(sb_kv_values(kv, dst, h, p), sb_kv_values(kv, src, h, p), sb_kv_value_step(kv));
    }
}

void sb_kv_copy(const struct sb_kv_layer *dst, const struct sb_kv_layer *src, size_t n)
{
    for (size_t h = 0; h < src->n_kv_heads; h++)
        memcpy(sb_kv_chunk_at(dst, 0, h), sb_kv_chunk_at(src, 0, h),
               sb_kv_chunks(n) * sb_kv_chunk(src));
}
