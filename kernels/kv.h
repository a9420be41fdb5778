/* Where keys and values lie in the cache of a layer. A head is one stream: keys of a chunk of slots, values of that
 * chunk, keys of the next. */
#ifndef SB_KV_H
#define SB_KV_H

#include "kernels/internal.h"

static inline size_t sb_kv_value_step(const struct sb_kv_layer *kv)
{
    return kv->type == SB_F32 ? 128 : 64;
}

static inline size_t sb_kv_value_panels(const struct sb_kv_layer *kv)
{
    return sb_round_up(kv->head_dim, SB_PANEL) / SB_PANEL;
}

/* Bytes of a chunk of keys, of one of values, and of both. */
static inline size_t sb_kv_key_chunk(const struct sb_kv_layer *kv)
{
    return SB_CHUNK / SB_PANEL * sb_panel_bytes(kv->type, kv->head_dim);
}

static inline size_t sb_kv_value_chunk(const struct sb_kv_layer *kv)
{
    return SB_CHUNK * sb_kv_value_panels(kv) * sb_kv_value_step(kv);
}

static inline size_t sb_kv_chunk(const struct sb_kv_layer *kv)
{
    return sb_kv_key_chunk(kv) + sb_kv_value_chunk(kv);
}

static inline size_t sb_kv_chunks(size_t slots)
{
    return slots / SB_CHUNK + (slots % SB_CHUNK != 0);
}

static inline size_t sb_kv_head_stride(const struct sb_kv_layer *kv)
{
    return sb_kv_chunks(kv->n_slots) * sb_kv_chunk(kv);
}

/* The chunk of a head that a slot lies in. */
static inline unsigned char *sb_kv_chunk_at(const struct sb_kv_layer *kv, size_t slot, size_t head)
{
    return (unsigned char *)kv->memory + head * sb_kv_head_stride(kv) +
           slot / SB_CHUNK * sb_kv_chunk(kv);
}

/* Element i of the key in a slot. */
static inline unsigned char *sb_kv_key(const struct sb_kv_layer *kv, size_t slot, size_t head,
                                       size_t i)
{
    size_t lane = slot % SB_PANEL, panel = slot % SB_CHUNK / SB_PANEL;
    unsigned char *base =
        sb_kv_chunk_at(kv, slot, head) + panel * sb_panel_bytes(kv->type, kv->head_dim);
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
static inline unsigned char *sb_kv_values(const struct sb_kv_layer *kv, size_t slot, size_t head,
                                          size_t panel)
{
    return sb_kv_chunk_at(kv, slot, head) + sb_kv_key_chunk(kv) +
           (panel * SB_CHUNK + slot % SB_CHUNK) * sb_kv_value_step(kv);
}

#endif
