/* The KV cache of a layer: where keys and values lie, and how they get there. In memory a head is one stream: keys of a
 * chunk of slots, values of that chunk, keys of the next. */
#include <stdint.h>
#include <string.h>

#include "kernels/internal.h"

size_t sb_kv_value_step(const struct sb_kv_layer *kv)
{
    return kv->type == SB_F32 ? 128 : 64;
}

static size_t element_bytes(const struct sb_kv_layer *kv)
{
    return kv->type == SB_F32 ? 4 : 2;
}

size_t sb_kv_value_panels(const struct sb_kv_layer *kv)
{
    return sb_round_up(kv->head_dim, SB_PANEL) / SB_PANEL;
}

/* Bytes of a chunk of keys, of one of values, and of both. */
size_t sb_kv_key_chunk(const struct sb_kv_layer *kv)
{
    return SB_CHUNK / SB_PANEL * sb_panel_bytes(kv->type, kv->head_dim);
}

size_t sb_kv_value_chunk(const struct sb_kv_layer *kv)
{
    return SB_CHUNK * sb_kv_value_panels(kv) * sb_kv_value_step(kv);
}

static size_t chunk_bytes(const struct sb_kv_layer *kv)
{
    return sb_kv_key_chunk(kv) + sb_kv_value_chunk(kv);
}

static size_t chunks(size_t slots)
{
    return slots / SB_CHUNK + (slots % SB_CHUNK != 0);
}

size_t sb_kv_bytes(enum sb_dtype type, size_t n_slots, size_t n_kv_heads, size_t head_dim)
{
    const struct sb_kv_layer kv = { type, NULL, n_slots, n_kv_heads, head_dim };
    size_t most;
    if (type > SB_BF16 || head_dim > SIZE_MAX / 16 || n_slots > SIZE_MAX - SB_CHUNK ||
        __builtin_mul_overflow(chunks(n_slots) * SB_CHUNK, n_kv_heads, &most) ||
        __builtin_mul_overflow(most, 8 * sb_round_up(head_dim, SB_PANEL), &most))
        return 0;
    return n_kv_heads * chunks(n_slots) * chunk_bytes(&kv);
}

size_t sb_kv_head_stride(const struct sb_kv_layer *kv)
{
    return chunks(kv->n_slots) * chunk_bytes(kv);
}

/* The chunk of a head that a slot lies in. */
static unsigned char *chunk_at(const struct sb_kv_layer *kv, size_t slot, size_t head)
{
    return (unsigned char *)kv->memory + head * sb_kv_head_stride(kv) +
           slot / SB_CHUNK * chunk_bytes(kv);
}

/* Element i of the key in a slot. */
unsigned char *sb_kv_key(const struct sb_kv_layer *kv, size_t slot, size_t head, size_t i)
{
    size_t lane = slot % SB_PANEL, panel = slot % SB_CHUNK / SB_PANEL;
    unsigned char *base = chunk_at(kv, slot, head) + panel * sb_panel_bytes(kv->type, kv->head_dim);
    switch (kv->type) {
    case SB_F32:
        return base + i * 128 + lane * 4;
    case SB_F16:
        return base + i * 64 + lane * 2;
    default: /* two steps to a word */
        return base + i / 2 * 128 + lane * 4 + i % 2 * 2;
    }
}

/* The 32 values of a slot in panel `panel`. */
unsigned char *sb_kv_values(const struct sb_kv_layer *kv, size_t slot, size_t head, size_t panel)
{
    return chunk_at(kv, slot, head) + sb_kv_key_chunk(kv) +
           (panel * SB_CHUNK + slot % SB_CHUNK) * sb_kv_value_step(kv);
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
    enum {
        WORK = 96
    }; /* multiply-adds in the time of an element of k and of v: mostly of waiting for lines */
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
        memcpy(chunk_at(dst, 0, h), chunk_at(src, 0, h), chunks(n) * chunk_bytes(src));
}
