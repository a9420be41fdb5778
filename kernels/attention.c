/* Attention of a batch over a committed prefix and a token tree; keys and values of one layer.
 *
 * Work is cut into items: the query rows of a block times the heads that share a KV head. An item
 * multiplies its queries with the packed keys in one pass, then per query gathers the visible
 * scores, and sums the values in one pass per chunk for the part that all rows see. */
#include <stdint.h>
#include <string.h>

#include "kernels/internal.h"

/* Floats of scores that an item aims at (half a second-level cache), its query vectors at most, and
 * the pieces of scratch, which bound the threads. */
enum { SCORE_FLOATS = 128 * 1024, ITEM_ROWS = 64, SLICES = 64 };

static size_t round_up(size_t x, size_t to)
{
    return (x + to - 1) / to * to;
}

/* Bytes of a panel's step in V, of an element, and of a head's K and V. */
static size_t value_step(const struct sb_kv_layer *kv)
{
    return kv->type == SB_F32 ? 128 : 64;
}

static size_t element_bytes(const struct sb_kv_layer *kv)
{
    return kv->type == SB_F32 ? 4 : 2;
}

static size_t value_panels(const struct sb_kv_layer *kv)
{
    return round_up(kv->head_dim, SB_PANEL) / SB_PANEL;
}

static size_t head_keys(const struct sb_kv_layer *kv)
{
    return kv->n_slots / SB_PANEL * sb_panel_bytes(kv->type, kv->head_dim);
}

static size_t head_values(const struct sb_kv_layer *kv)
{
    return value_panels(kv) * kv->n_slots * value_step(kv);
}

struct sb_kv_bytes sb_kv_bytes(enum sb_dtype type, size_t n_slots, size_t n_kv_heads,
                               size_t head_dim)
{
    const struct sb_kv_layer kv = { type, NULL, NULL, n_slots, n_kv_heads, head_dim };
    size_t most;
    if (type > SB_BF16 || head_dim > SIZE_MAX / 8 ||
        __builtin_mul_overflow(n_slots, n_kv_heads, &most) ||
        __builtin_mul_overflow(most, 4 * round_up(head_dim, SB_PANEL), &most))
        return (struct sb_kv_bytes){ 0, 0 };
    return (struct sb_kv_bytes){ n_kv_heads * head_keys(&kv), n_kv_heads * head_values(&kv) };
}

/* Element i of the key in a slot. */
static unsigned char *key_at(const struct sb_kv_layer *kv, size_t slot, size_t head, size_t i)
{
    size_t lane = slot % SB_PANEL, panel = sb_panel_bytes(kv->type, kv->head_dim);
    unsigned char *base = (unsigned char *)kv->k + head * head_keys(kv) + slot / SB_PANEL * panel;
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
static unsigned char *values_at(const struct sb_kv_layer *kv, size_t slot, size_t head,
                                size_t panel)
{
    return (unsigned char *)kv->v + head * head_values(kv) +
           (panel * kv->n_slots + slot) * value_step(kv);
}

/* to[0], to[stride], ... = x[n], rounded to the cache's type; stride in bytes. */
static void store(enum sb_dtype type, unsigned char *to, size_t stride, const float *x, size_t n)
{
    switch (type) {
    case SB_F32:
        for (size_t i = 0; i < n; i++)
            memcpy(to + i * stride, x + i, sizeof *x);
        break;
    case SB_F16:
        for (size_t i = 0; i < n; i++)
            memcpy(to + i * stride, &(uint16_t){ sb_f32_to_f16(x[i]) }, 2);
        break;
    default:
        for (size_t i = 0; i < n; i++)
            memcpy(to + i * stride, &(uint16_t){ sb_f32_to_bf16(x[i]) }, 2);
        break;
    }
}

/* One head's key and value of a slot. */
static void write_slot(const struct sb_kv_layer *kv, size_t slot, size_t head, const float *key,
                       const float *value)
{
    size_t d = kv->head_dim;
    if (kv->type == SB_BF16) /* two steps to a word */
        for (size_t i = 0; i < d; i++)
            store(SB_BF16, key_at(kv, slot, head, i), 0, key + i, 1);
    else
        store(kv->type, key_at(kv, slot, head, 0), value_step(kv), key, d);
    for (size_t i = 0; i < d; i += SB_PANEL)
        store(kv->type, values_at(kv, slot, head, i / SB_PANEL), element_bytes(kv), value + i,
              d - i < SB_PANEL ? d - i : SB_PANEL);
}

void sb_kv_write(const struct sb_team *team, const struct sb_kv_layer *kv, size_t slot,
                 const float *k, const float *v, size_t ld, size_t m)
{
    size_t d = kv->head_dim;
    /* Head by head, as sb_rope_apply: neighbouring slots share cache lines. */
    struct sb_share share = sb_team_share(team, m * kv->n_kv_heads);
    for (size_t i = share.first; i < share.last; i++) {
        size_t row = i % m, h = i / m;
        write_slot(kv, slot + row, h, k + row * ld + h * d, v + row * ld + h * d);
    }
}

void sb_kv_move(const struct sb_kv_layer *kv, size_t dst, size_t src)
{
    if (dst == src)
        return;
    for (size_t h = 0; h < kv->n_kv_heads; h++) {
        for (size_t i = 0; i < kv->head_dim; i++)
            memcpy(key_at(kv, dst, h, i), key_at(kv, src, h, i), element_bytes(kv));
        for (size_t p = 0; p < value_panels(kv); p++)
            memcpy(values_at(kv, dst, h, p), values_at(kv, src, h, p), value_step(kv));
    }
}

void sb_kv_copy(const struct sb_kv_layer *dst, const struct sb_kv_layer *src, size_t n)
{
    size_t slots = round_up(n, SB_PANEL);
    for (size_t h = 0; h < src->n_kv_heads; h++) {
        memcpy(key_at(dst, 0, h, 0), key_at(src, 0, h, 0),
               slots / SB_PANEL * sb_panel_bytes(src->type, src->head_dim));
        for (size_t p = 0; p < value_panels(src); p++)
            memcpy(values_at(dst, 0, h, p), values_at(src, 0, h, p), slots * value_step(src));
    }
}

/* How scratch is laid out. Every size grows with m and n_slots, so a scratch made for the largest
 * batch serves all smaller ones. */
struct layout {
    size_t slots;   /* padded to a panel */
    size_t rows;    /* query vectors of an item at most */
    size_t ld;      /* head_dim padded to a panel */
    size_t scores;  /* floats */
    size_t slice;   /* floats of a slice: scores, queries, weighted sums, sums of weights */
    size_t vectors; /* query vectors there is room for */
    size_t slices;
};

static struct layout layout_of(size_t m, size_t n_slots, size_t n_heads, size_t head_dim)
{
    struct layout at;
    size_t most = n_heads > ITEM_ROWS ? n_heads : ITEM_ROWS;
    at.slots = round_up(n_slots ? n_slots : 1, SB_PANEL);
    at.scores = at.slots < SCORE_FLOATS / ITEM_ROWS ? ITEM_ROWS * at.slots : SCORE_FLOATS;
    if (at.scores < n_heads * at.slots)
        at.scores = n_heads * at.slots;
    at.rows = at.scores / at.slots < most ? at.scores / at.slots : most;
    at.ld = round_up(head_dim, SB_PANEL);
    at.vectors = most;
    at.slice = at.scores + 2 * most * at.ld + round_up(most, 16);
    at.slices = m * n_heads < SLICES ? m * n_heads : SLICES;
    return at;
}

size_t sb_attention_scratch_bytes(size_t m, size_t n_slots, size_t n_heads, size_t head_dim)
{
    struct layout at = layout_of(m, n_slots, n_heads, head_dim);
    return at.slice * at.slices * sizeof(float);
}

struct attention {
    float *out;
    size_t ldo;
    const float *q;
    size_t ldq;
    size_t group; /* query heads per KV head */
    float scale;
    const struct sb_kv_layer *kv;
    const struct sb_visible *visible;
    struct layout at;
    const struct sb_kernel_table *kernels;
};

/* Slots that rows first..last-1 reach. */
static size_t reach(const struct sb_visible *visible, size_t first, size_t last)
{
    size_t n = 0;
    for (size_t r = first; r < last; r++) {
        size_t count = (size_t)visible->n_list[r];
        if (count > 0 && (size_t)visible->list[r][count - 1] + 1 > n)
            n = (size_t)visible->list[r][count - 1] + 1;
    }
    return visible->n_prefix + n;
}

/* scores[rows * group, slots] of one KV head: a product with its packed keys. */
static void score(const struct attention *a, size_t head, size_t first, size_t rows, size_t slots,
                  float *queries, float *scores)
{
    size_t d = a->kv->head_dim;
    for (size_t r = 0; r < rows; r++)
        for (size_t g = 0; g < a->group; g++)
            memcpy(queries + (r * a->group + g) * a->at.ld,
                   a->q + (first + r) * a->ldq + (head * a->group + g) * d, d * sizeof *queries);
    const struct sb_product job = {
        .type = a->kv->type,
        .w = key_at(a->kv, 0, head, 0),
        .panel_stride = sb_panel_bytes(a->kv->type, d),
        .n = slots,
        .k = d,
        .m = rows * a->group,
        .x = queries,
        .ldx = a->at.ld,
        .y = scores,
        .ldy = a->at.slots,
    };
    a->kernels->product(&job, 0, (slots + SB_PANEL - 1) / SB_PANEL);
}

/* Scores of all slots become the visible ones in place: list[i] >= i, so none is overwritten before
 * it is read. Then their exponentials; returns the sum of those. */
static float weigh(const struct attention *a, size_t row, float *scores)
{
    const struct sb_visible *visible = a->visible;
    size_t n = visible->n_prefix, count = (size_t)visible->n_list[row];
    for (size_t i = 0; i < count; i++)
        scores[n + i] = scores[n + (size_t)visible->list[row][i]];
    float max = a->kernels->max_scaled(scores, n + count, a->scale);
    return a->kernels->sum_exp(scores, scores, n + count, a->scale, max);
}

/* Continue the chains of `rows` query vectors over n slots from `slot` on. */
static void add_values(const struct attention *a, size_t head, size_t slot, size_t n, size_t rows,
                       const float *weights, float *sums)
{
    const struct sb_kv_layer *kv = a->kv;
    a->kernels->add_to_sums(&(struct sb_sums){
        .type = kv->type == SB_BF16 ? SB_BF16_STEPS : (int)kv->type,
        .w = values_at(kv, slot, head, 0),
        .panel_stride = kv->n_slots * value_step(kv),
        .panels = value_panels(kv),
        .k = n,
        .m = rows,
        .x = weights,
        .ldx = a->at.slots,
        .y = sums,
        .ldy = a->at.ld,
    });
}

/* The same for one query row over visible elements first..last-1, at or after the prefix. Runs of
 * neighbouring slots go in one call. */
static void add_listed(const struct attention *a, size_t head, size_t row, size_t first,
                       size_t last, const float *weights, float *sums)
{
    const int32_t *list = a->visible->list[row];
    size_t n_prefix = a->visible->n_prefix;
    while (first < last) {
        size_t i = first - n_prefix, n = 1;
        while (first + n < last && list[i + n] == list[i] + (int32_t)n)
            n++;
        add_values(a, head, n_prefix + (size_t)list[i], n, a->group, weights + first, sums);
        first += n;
    }
}

/* Add the sums of a chunk to the output of a query row; the first chunk starts it. */
static void gather_chunk(const struct attention *a, size_t head, size_t row, bool start,
                         const float *sums)
{
    size_t d = a->kv->head_dim;
    for (size_t g = 0; g < a->group; g++) {
        float *out = a->out + row * a->ldo + (head * a->group + g) * d;
        if (start)
            memcpy(out, sums + g * a->at.ld, d * sizeof *out);
        else
            a->kernels->add(out, sums + g * a->at.ld, d);
    }
}

/* One chunk of the visible sequence, elements first..first+SB_CHUNK-1, for a block of rows. */
static void sum_chunk(const struct attention *a, size_t head, size_t block, size_t rows,
                      size_t first, const float *weights, float *sums)
{
    size_t n_prefix = a->visible->n_prefix;
    size_t end = first + SB_CHUNK, shared = n_prefix < end ? n_prefix : end;
    memset(sums, 0, rows * a->group * a->at.ld * sizeof *sums);
    if (first < shared)
        add_values(a, head, first, shared - first, rows * a->group, weights + first, sums);
    else
        shared = first;
    for (size_t r = 0; r < rows; r++) {
        size_t seen = n_prefix + (size_t)a->visible->n_list[block + r];
        size_t last = seen < end ? seen : end;
        float *own = sums + r * a->group * a->at.ld;
        if (seen <= first)
            continue;
        add_listed(a, head, block + r, shared, last, weights + r * a->group * a->at.slots, own);
        gather_chunk(a, head, block + r, first == 0, own);
    }
}

static void attend(const struct attention *a, size_t head, size_t first, size_t rows, float *slice)
{
    const size_t d = a->kv->head_dim, room = a->at.vectors * a->at.ld;
    float *scores = slice, *queries = slice + a->at.scores, *sums = queries + room;
    float *weight = sums + room;
    size_t slots = reach(a->visible, first, first + rows);
    score(a, head, first, rows, slots, queries, scores);
    for (size_t i = 0; i < rows * a->group; i++)
        weight[i] = weigh(a, first + i / a->group, scores + i * a->at.slots);
    for (size_t chunk = 0; chunk < slots; chunk += SB_CHUNK)
        sum_chunk(a, head, first, rows, chunk, scores, sums);
    for (size_t i = 0; i < rows * a->group; i++) {
        size_t row = first + i / a->group, at = (head * a->group + i % a->group) * d;
        a->kernels->divide(a->out + row * a->ldo + at, d, weight[i]);
    }
}

void sb_attention(const struct sb_team *team, float *out, size_t ldo, const float *q, size_t ldq,
                  size_t n_heads, float scale, const struct sb_kv_layer *kv,
                  const struct sb_visible *visible, size_t m, void *scratch)
{
    size_t slots = reach(visible, 0, m);
    struct attention a = {
        .out = out,
        .ldo = ldo,
        .q = q,
        .ldq = ldq,
        .group = n_heads / kv->n_kv_heads,
        .scale = scale,
        .kv = kv,
        .visible = visible,
        .at = layout_of(m, slots, n_heads, kv->head_dim),
        .kernels = sb_kernels(),
    };
    if (m == 0)
        return;
    size_t most = a.at.rows / a.group, blocks = (m + most - 1) / most;
    /* A thread needs a slice of scratch: those past the last slice have no share. */
    struct sb_team some = { 0, 1, NULL };
    if (team)
        some = (struct sb_team){ team->index, team->count < a.at.slices ? team->count : a.at.slices,
                                 NULL };
    if (some.index >= some.count)
        return;
    struct sb_share share = sb_team_share(&some, blocks * kv->n_kv_heads);
    for (size_t i = share.first; i < share.last; i++) {
        size_t block = i / kv->n_kv_heads, first = m * block / blocks; /* nearly equal blocks */
        attend(&a, i % kv->n_kv_heads, first, m * (block + 1) / blocks - first,
               (float *)scratch + some.index * a.at.slice);
    }
}
