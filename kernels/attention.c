/* Attention of a batch over a committed prefix and a token tree; keys and values of one layer.
 *
 * Work is cut into items: the query rows of a block times the heads that share a KV head. An item
 * multiplies its queries with the packed keys in one pass, then per query gathers the visible
 * scores, and sums the values in one pass per chunk for the part that all rows see. */
#include <string.h>

#include "kernels/internal.h"

/* Floats of scores that an item aims at (half a second-level cache), its query vectors at most, and
 * the pieces of scratch, which bound the threads. */
enum { SCORE_FLOATS = 128 * 1024, ITEM_ROWS = 64, SLICES = 64 };

static float *key_at(const struct sb_kv_layer *kv, size_t slot, size_t head)
{
    size_t panel = (head * kv->n_slots + slot) / SB_PANEL; /* n_slots is a multiple of a panel */
    return kv->k + panel * kv->head_dim * SB_PANEL + slot % SB_PANEL;
}

static float *value_at(const struct sb_kv_layer *kv, size_t slot, size_t head)
{
    return kv->v + (head * kv->n_slots + slot) * kv->head_dim;
}

void sb_kv_write(const struct sb_team *team, const struct sb_kv_layer *kv, size_t slot,
                 const float *k, const float *v, size_t ld, size_t m)
{
    size_t d = kv->head_dim;
    /* Head by head, as sb_rope_apply: neighbouring slots share cache lines. */
    struct sb_share share = sb_team_share(team, m * kv->n_kv_heads);
    for (size_t i = share.first; i < share.last; i++) {
        size_t row = i % m, h = i / m;
        float *to = key_at(kv, slot + row, h);
        for (size_t j = 0; j < d; j++)
            to[j * SB_PANEL] = k[row * ld + h * d + j];
        memcpy(value_at(kv, slot + row, h), v + row * ld + h * d, d * sizeof *v);
    }
}

void sb_kv_move(const struct sb_kv_layer *kv, size_t dst, size_t src)
{
    if (dst == src)
        return;
    for (size_t h = 0; h < kv->n_kv_heads; h++) {
        float *to = key_at(kv, dst, h);
        const float *from = key_at(kv, src, h);
        for (size_t i = 0; i < kv->head_dim; i++)
            to[i * SB_PANEL] = from[i * SB_PANEL];
        memcpy(value_at(kv, dst, h), value_at(kv, src, h), kv->head_dim * sizeof *kv->v);
    }
}

/* How scratch is laid out. Every size grows with m and n_slots, so a scratch made for the largest
 * batch serves all smaller ones. */
struct layout {
    size_t slots;  /* padded to a panel */
    size_t rows;   /* query vectors of an item at most */
    size_t ld;     /* head_dim padded to a cache line */
    size_t scores; /* floats */
    size_t slice;  /* floats of a slice: scores, queries, sums */
    size_t slices;
};

static size_t round_up(size_t x, size_t to)
{
    return (x + to - 1) / to * to;
}

static struct layout layout_of(size_t m, size_t n_slots, size_t n_heads, size_t head_dim)
{
    struct layout at;
    size_t most = n_heads > ITEM_ROWS ? n_heads : ITEM_ROWS;
    at.slots = round_up(n_slots ? n_slots : 1, SB_PANEL);
    at.scores = at.slots < SCORE_FLOATS / ITEM_ROWS ? ITEM_ROWS * at.slots : SCORE_FLOATS;
    if (at.scores < n_heads * at.slots)
        at.scores = n_heads * at.slots;
    at.rows = at.scores / at.slots < most ? at.scores / at.slots : most;
    at.ld = round_up(head_dim, 16);
    at.slice = at.scores + 2 * most * at.ld;
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
        .type = SB_F32,
        .w = (const unsigned char *)key_at(a->kv, 0, head),
        .panel_stride = d * SB_PANEL * sizeof(float),
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
 * it is read. Then their softmax. */
static void weigh(const struct attention *a, size_t row, float *scores)
{
    const struct sb_visible *visible = a->visible;
    size_t n = visible->n_prefix, count = (size_t)visible->n_list[row];
    for (size_t i = 0; i < count; i++)
        scores[n + i] = scores[n + (size_t)visible->list[row][i]];
    float max = a->kernels->max_scaled(scores, n + count, a->scale);
    float sum = a->kernels->sum_exp(scores, scores, n + count, a->scale, max);
    a->kernels->divide(scores, n + count, sum);
}

/* Continue the chains of one query row over visible elements first..last-1, at or after the prefix.
 * Runs of neighbouring slots go in one call. */
static void sum_listed(const struct attention *a, size_t head, size_t row, size_t first,
                       size_t last, const float *prob, float *sums)
{
    const struct sb_kv_layer *kv = a->kv;
    const int32_t *list = a->visible->list[row];
    size_t n_prefix = a->visible->n_prefix;
    while (first < last) {
        size_t i = first - n_prefix, n = 1;
        while (first + n < last && list[i + n] == list[i] + (int32_t)n)
            n++;
        a->kernels->values(&(struct sb_values){
            .acc = sums,
            .lda = a->at.ld,
            .p = prob + first,
            .ldp = a->at.slots,
            .v = value_at(kv, n_prefix + (size_t)list[i], head),
            .ldv = kv->head_dim,
            .rows = a->group,
            .n = n,
            .d = kv->head_dim,
        });
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
                      size_t first, const float *probs, float *sums)
{
    const struct sb_kv_layer *kv = a->kv;
    size_t n_prefix = a->visible->n_prefix;
    size_t end = first + SB_CHUNK, shared = n_prefix < end ? n_prefix : end;
    memset(sums, 0, rows * a->group * a->at.ld * sizeof *sums);
    if (first < shared)
        a->kernels->values(&(struct sb_values){
            .acc = sums,
            .lda = a->at.ld,
            .p = probs + first,
            .ldp = a->at.slots,
            .v = value_at(kv, first, head),
            .ldv = kv->head_dim,
            .rows = rows * a->group,
            .n = shared - first,
            .d = kv->head_dim,
        });
    else
        shared = first;
    for (size_t r = 0; r < rows; r++) {
        size_t seen = n_prefix + (size_t)a->visible->n_list[block + r];
        size_t last = seen < end ? seen : end;
        float *own = sums + r * a->group * a->at.ld;
        if (seen <= first)
            continue;
        sum_listed(a, head, block + r, shared, last, probs + r * a->group * a->at.slots, own);
        gather_chunk(a, head, block + r, first == 0, own);
    }
}

static void attend(const struct attention *a, size_t head, size_t first, size_t rows, float *slice)
{
    float *scores = slice, *queries = slice + a->at.scores;
    float *sums = queries + (a->at.slice - a->at.scores) / 2;
    size_t slots = reach(a->visible, first, first + rows);
    score(a, head, first, rows, slots, queries, scores);
    for (size_t r = 0; r < rows; r++)
        for (size_t g = 0; g < a->group; g++)
            weigh(a, first + r, scores + (r * a->group + g) * a->at.slots);
    for (size_t chunk = 0; chunk < slots; chunk += SB_CHUNK)
        sum_chunk(a, head, first, rows, chunk, scores, sums);
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
