/* Attention of a batch over a committed prefix and a token tree; keys and values of one layer.
 *
 * Work is cut into items: the query rows of a block times the heads that share a KV head. An item goes
 * over the visible sequence chunk by chunk: scores are a product with the packed keys, sums of values
 * one with the packed values, and both stay in the cache for all query vectors of the item. */
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "kernels/kv.h"

/* Query vectors that share a pass over a chunk, and pieces of scratch, which bound the members. */
enum { BLOCK_VECTORS = SB_WEIGH_ROWS, SLICES = 64 };
/* Floats between rows of scores: see sb_row_stride. */
enum { LD_SCORES = SB_CHUNK + 16 };

/* A slice of scratch, for one KV head and some rows: query vectors, their state so far, and what a
 * block of them needs for one chunk. All in floats; sizes grow with m, so a scratch made for the largest
 * batch serves the smaller ones. */
struct layout {
    size_t ld;      /* head_dim padded to a panel */
    size_t ld_tail; /* scores of the batch's slots, with the panel they begin in */
    size_t vectors, sums, maxima, totals, scores, tail, slice;
};

/* For m rows, of a batch that reaches over n_batch slots. */
static struct layout layout_of(size_t m, size_t n_batch, size_t n_heads, size_t n_kv_heads,
                               size_t head_dim)
{
    struct layout at = { .ld = sb_round_up(head_dim, SB_PANEL),
                         .ld_tail = sb_round_up(n_batch, SB_PANEL) + 64 };
    at.vectors = sb_round_up(m * (n_heads / n_kv_heads), 16);
    at.sums = at.vectors * at.ld;
    at.maxima = at.sums + at.vectors * at.ld;
    at.totals = at.maxima + at.vectors;
    at.scores = at.totals + at.vectors;
    at.tail = at.scores + BLOCK_VECTORS * LD_SCORES;
    at.slice = at.tail + BLOCK_VECTORS * at.ld_tail;
    return at;
}

size_t sb_attention_scratch_bytes(size_t m, size_t n_heads, size_t n_kv_heads, size_t head_dim)
{
    size_t slices = m * n_kv_heads < SLICES ? m * n_kv_heads : SLICES;
    return layout_of(m, m, n_heads, n_kv_heads, head_dim).slice * slices * sizeof(float);
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
    size_t m, blocks; /* rows, and pieces that they are cut into */
    float *scratch;
    const struct sb_kernel_table *kernels;
};

/* Work on one KV head: rows first..first+rows-1, of which vector v is row v / group. */
struct item {
    const struct attention *a;
    size_t head, next_head, first, rows, vectors;
    float *queries, *sums, *maxima, *totals, *scores, *tail;
};

static const struct sb_asks nothing; /* beyond what lies behind */

/* How far ahead of its loads attention asks for keys and values. They are few enough that what is on its way still
 * fits the first-level cache, beside the queries, when it is read. */
enum { AHEAD_BYTES = 12 * 1024 };

static void ask_ahead(const void *from, size_t bytes)
{
    for (size_t i = 0; i < bytes; i += 64)
        __builtin_prefetch((const char *)from + i);
}

static const float *queries_of(const struct attention *a, size_t row, size_t head)
{
    return a->q + row * a->ldq + head * a->group * a->kv->head_dim;
}

static const unsigned char *next_keys(const struct item *it)
{
    return sb_kv_key(it->a->kv, 0, it->next_head, 0);
}

static float *out_of(const struct item *it, size_t vector)
{
    const struct attention *a = it->a;
    return a->out + (it->first + vector / a->group) * a->ldo +
           (it->head * a->group + vector % a->group) * a->kv->head_dim;
}

static void gather_queries(const struct item *it)
{
    const struct attention *a = it->a;
    size_t d = a->kv->head_dim;
    for (size_t v = 0; v < it->vectors; v++)
        memcpy(it->queries + v * a->at.ld,
               queries_of(a, it->first + v / a->group, it->head) + v % a->group * d,
               d * sizeof(float));
}

/* scores[n vectors, ld] = queries times the keys of `slots` slots of one chunk, from `slot`, a panel's first, on. */
static void score(const struct item *it, size_t vector, size_t n, size_t slot, size_t slots,
                  float *scores, size_t ld, struct sb_asks asks)
{
    const struct attention *a = it->a;
    const struct sb_kv_layer *kv = a->kv;
    const struct sb_product job = {
        .type = (int)kv->type,
        .w = sb_kv_key(kv, slot, it->head, 0),
        .panel_stride = sb_panel_bytes(kv->type, kv->head_dim),
        .n = slots,
        .k = kv->head_dim,
        .m = n,
        .x = it->queries + vector * a->at.ld,
        .ldx = a->at.ld,
        .y = scores,
        .ldy = ld,
        .asks = asks,
    };
    a->kernels->product(&job, 0, (slots + SB_PANEL - 1) / SB_PANEL);
}

static int value_type(const struct sb_kv_layer *kv)
{
    return kv->type == SB_BF16 ? SB_BF16_STEPS : (int)kv->type;
}

/* Continue the chains of n vectors over `slots` slots of one chunk from `slot` on. */
static void add_values(const struct item *it, size_t slot, size_t slots, size_t n,
                       const float *weights, float *sums, struct sb_asks asks)
{
    const struct sb_kv_layer *kv = it->a->kv;
    it->a->kernels->add_to_sums(&(struct sb_sums){
        .type = value_type(kv),
        .w = sb_kv_values(kv, slot, it->head, 0),
        .panel_stride = SB_CHUNK * sb_kv_value_step(kv),
        .panels = sb_kv_value_panels(kv),
        .k = slots,
        .m = n,
        .x = weights,
        .ldx = LD_SCORES,
        .y = sums,
        .ldy = it->a->at.ld,
        .asks = asks,
    });
}

/* The same for one vector over its row's visible elements first..last-1, which lie beyond the prefix; weights are
 * those from `first` on. Those in one chunk of slots go in one call. */
static void add_listed(const struct item *it, size_t row, size_t first, size_t last,
                       const float *weights, float *sums)
{
    const struct sb_kv_layer *kv = it->a->kv;
    const size_t n_prefix = it->a->visible->n_prefix, end = last - n_prefix;
    const int32_t *list = it->a->visible->list[row];
    for (size_t i = first - n_prefix, run; i < end; i += run, weights += run) {
        const size_t slot = n_prefix + (size_t)list[i], chunk = slot / SB_CHUNK;
        run = 1;
        while (i + run < end && (n_prefix + (size_t)list[i + run]) / SB_CHUNK == chunk)
            run++;
        const struct sb_sums job = {
            .type = value_type(kv),
            .w = sb_kv_values(kv, slot, it->head, 0),
            .panel_stride = SB_CHUNK * sb_kv_value_step(kv),
            .panels = sb_kv_value_panels(kv),
            .k = run,
            .m = 1,
            .x = weights,
            .y = sums,
        };
        it->a->kernels->add_listed(&job, list + i);
    }
}

/* n rows of scores become weights; the sums of vectors vector..vector+n-1 are brought under their maximum. */
static void weigh(const struct item *it, size_t vector, size_t n, float *scores, size_t count,
                  struct sb_asks asks)
{
    const struct attention *a = it->a;
    float keep[BLOCK_VECTORS];
    a->kernels->weigh(scores, LD_SCORES, n, count, a->scale, it->maxima + vector,
                      it->totals + vector, keep, asks);
    for (size_t v = 0; v < n; v++)
        if (keep[v] != 1) /* mostly, after the first chunks, it is */
            a->kernels->multiply(it->sums + (vector + v) * a->at.ld, a->kv->head_dim, keep[v]);
}

/* Slots that rows first..last-1 reach beyond the prefix. */
static size_t reach(const struct sb_visible *visible, size_t first, size_t last)
{
    size_t n = 0;
    for (size_t r = first; r < last; r++) {
        size_t count = (size_t)visible->n_list[r];
        if (count > 0 && (size_t)visible->list[r][count - 1] + 1 > n)
            n = (size_t)visible->list[r][count - 1] + 1;
    }
    return n;
}

/* Query vectors vector..vector+n-1. The first `shared` elements that they see are the same slots for all of them: the
 * prefix, and whole panels of what every row sees of the batch from its first slot on. Slots from `tail` on, where a
 * panel begins, are scored before all else, for rows to pick theirs from; all that they see, if that is shared. */
struct block {
    size_t vector, n;
    size_t shared, tail;
    size_t elements, slots; /* one past the last that any of them sees */
};

static size_t row_of(const struct item *it, size_t vector)
{
    return it->first + vector / it->a->group;
}

static struct block block_at(const struct item *it, size_t vector)
{
    const struct sb_visible *visible = it->a->visible;
    const size_t left = it->vectors - vector, n = left < BLOCK_VECTORS ? left : BLOCK_VECTORS;
    const size_t first = row_of(it, vector), last = row_of(it, vector + n - 1) + 1;
    size_t same = (size_t)visible->n_list[first], most = 0;
    for (size_t r = first; r < last; r++) {
        const size_t count = (size_t)visible->n_list[r];
        most = count > most ? count : most;
        same = count < same ? count : same;
        while (same > 0 && visible->list[r][same - 1] != (int32_t)same - 1)
            same--;
    }
    struct block b = { .vector = vector,
                       .n = n,
                       .shared = visible->n_prefix + same,
                       .elements = visible->n_prefix + most,
                       .slots = visible->n_prefix + reach(visible, first, last) };
    b.tail = b.slots;
    if (b.shared < b.slots) {
        b.tail = b.shared / SB_PANEL * SB_PANEL;
        b.shared = b.tail > visible->n_prefix ? b.tail : visible->n_prefix;
    }
    return b;
}

/* A chunk that all of a block sees. Asking runs ahead of reading; while weights are made, which read nothing, it
 * runs further, and values are then asked for more slowly. */
static void whole_chunk(const struct item *it, const struct block *b, size_t chunk)
{
    const struct sb_kv_layer *kv = it->a->kv;
    const unsigned char *keys = sb_kv_key(kv, chunk, it->head, 0),
                        *values = sb_kv_values(kv, chunk, it->head, 0);
    const size_t bytes = sb_kv_value_chunk(kv), some = bytes / 16 * 3;
    score(it, b->vector, b->n, chunk, SB_CHUNK, it->scores, LD_SCORES,
          (struct sb_asks){ NULL, keys + AHEAD_BYTES, sb_kv_key_chunk(kv) });
    weigh(it, b->vector, b->n, it->scores, SB_CHUNK,
          (struct sb_asks){ NULL, values + AHEAD_BYTES, some });
    add_values(it, chunk, SB_CHUNK, b->n, it->scores, it->sums + b->vector * it->a->at.ld,
               (struct sb_asks){ NULL, values + AHEAD_BYTES + some, bytes - some });
}

/* Elements of a row before `end`. */
static size_t seen_before(const struct item *it, size_t row, size_t end)
{
    const struct sb_visible *visible = it->a->visible;
    size_t seen = visible->n_prefix + (size_t)visible->n_list[row];
    return seen < end ? seen : end;
}

/* The scores of a row's elements begin..end-1 of a chunk, from those of the tail; what it lacks weighs nothing. */
static void pick_scores(const struct item *it, const struct block *b, size_t v, size_t begin,
                        size_t end, float *scores)
{
    const struct sb_visible *visible = it->a->visible;
    const size_t n_prefix = visible->n_prefix, row = row_of(it, b->vector + v);
    const size_t last = seen_before(it, row, end);
    const float *tail = it->tail + v * it->a->at.ld_tail;
    size_t i = begin;
    for (; i < last && i < n_prefix; i++)
        *scores++ = tail[i - b->tail];
    for (; i < last; i++)
        *scores++ = tail[n_prefix + (size_t)visible->list[row][i - n_prefix] - b->tail];
    for (; i < end; i++)
        *scores++ = -INFINITY;
}

/* A chunk of which a block shares `shared` elements. */
static void mixed_chunk(const struct item *it, const struct block *b, size_t chunk, size_t shared)
{
    const struct attention *a = it->a;
    const size_t end = chunk + SB_CHUNK < b->elements ? chunk + SB_CHUNK : b->elements;
    const size_t begin = chunk + shared, picked = b->tail < begin ? b->tail : begin;
    float *sums = it->sums + b->vector * a->at.ld;
    if (picked > chunk)
        score(it, b->vector, b->n, chunk, picked - chunk, it->scores, LD_SCORES,
              (struct sb_asks){ .then = sb_kv_values(a->kv, chunk, it->head, 0) });
    for (size_t v = 0; v < b->n; v++) {
        const size_t from = picked > chunk ? picked : chunk;
        pick_scores(it, b, v, from, end, it->scores + v * LD_SCORES + from - chunk);
    }
    weigh(it, b->vector, b->n, it->scores, end - chunk, nothing);
    if (shared > 0)
        add_values(it, chunk, shared, b->n, it->scores, sums,
                   (struct sb_asks){ .then = next_keys(it) });
    for (size_t v = 0; v < b->n; v++) {
        const size_t row = row_of(it, b->vector + v), last = seen_before(it, row, end);
        if (last > begin)
            add_listed(it, row, begin, last, it->scores + v * LD_SCORES + shared,
                       sums + v * a->at.ld);
    }
}

/* The scores of slots b->tail..b->slots-1, chunk by chunk of slots. */
static void score_tail(const struct item *it, const struct block *b, struct sb_asks asks)
{
    for (size_t slot = b->tail, n; slot < b->slots; slot += n) {
        n = SB_CHUNK - slot % SB_CHUNK;
        n = b->slots - slot < n ? b->slots - slot : n;
        score(it, b->vector, b->n, slot, n, it->tail + slot - b->tail, it->a->at.ld_tail, asks);
    }
}

/* From the first chunk on that is not the same for all of a block. */
static void attend_rest(const struct item *it, const struct block *b)
{
    const size_t first = b->shared / SB_CHUNK * SB_CHUNK;
    /* Nothing of what lies behind the tail is read. */
    score_tail(it, b,
               (struct sb_asks){ .then = b->tail > first ? sb_kv_key(it->a->kv, first, it->head, 0)
                                                         : next_keys(it) });
    for (size_t chunk = first; chunk < b->elements; chunk += SB_CHUNK)
        mixed_chunk(it, b, chunk, b->shared > chunk ? b->shared - chunk : 0);
}

/* After much that was read: the batch's own values, which were written a while ago, and what the next item begins
 * with. */
static void ask_again(const struct item *it)
{
    enum { FEW_ROWS = 64 };
    const struct attention *a = it->a;
    const struct sb_kv_layer *kv = a->kv;
    if (it->rows > FEW_ROWS)
        return;
    for (size_t p = 0; p < sb_kv_value_panels(kv); p++)
        ask_ahead(sb_kv_values(kv, a->visible->n_prefix, it->head, p),
                  it->rows * sb_kv_value_step(kv));
    for (size_t r = it->first; r < it->first + it->rows; r++)
        ask_ahead(queries_of(a, r, it->next_head), a->group * kv->head_dim * sizeof(float));
    ask_ahead(next_keys(it), AHEAD_BYTES);
}

static void attend(const struct item *it)
{
    const struct attention *a = it->a;
    gather_queries(it);
    memset(it->sums, 0, it->vectors * a->at.ld * sizeof(float));
    for (size_t v = 0; v < it->vectors; v++) {
        it->maxima[v] = -INFINITY;
        it->totals[v] = 0;
    }
    /* A chunk of keys and values stays in the cache for all vectors. */
    size_t chunk = 0;
    for (bool any = true; any; chunk += any ? SB_CHUNK : 0) {
        any = false;
        for (size_t v = 0; v < it->vectors; v += BLOCK_VECTORS) {
            const struct block b = block_at(it, v);
            if (chunk + SB_CHUNK > b.shared)
                continue;
            whole_chunk(it, &b, chunk);
            any = true;
        }
    }
    if (chunk > 0)
        ask_again(it);
    for (size_t v = 0; v < it->vectors; v += BLOCK_VECTORS) {
        const struct block b = block_at(it, v);
        attend_rest(it, &b);
    }
    for (size_t v = 0; v < it->vectors; v++)
        a->kernels->divide(out_of(it, v), it->sums + v * a->at.ld, a->kv->head_dim, it->totals[v]);
}

/* Pieces that the rows are cut into, so that items come out even for the team. */
static size_t row_blocks(size_t heads, size_t members, size_t m)
{
    size_t blocks = 1;
    while (blocks < members && heads * blocks % members != 0)
        blocks++;
    return blocks < m ? blocks : m;
}

static void attend_items(const void *arg, size_t first_item, size_t last_item, size_t member)
{
    const struct attention *a = arg;
    float *slice = a->scratch + member * a->at.slice;
    for (size_t i = first_item; i < last_item; i++) {
        size_t block = i % a->blocks, first = a->m * block / a->blocks;
        size_t rows = a->m * (block + 1) / a->blocks - first, next = (i + 1) / a->blocks;
        const struct item it = {
            .a = a,
            .head = i / a->blocks,
            .next_head = next < a->kv->n_kv_heads ? next : i / a->blocks,
            .first = first,
            .rows = rows,
            .vectors = rows * a->group,
            .queries = slice,
            .sums = slice + a->at.sums,
            .maxima = slice + a->at.maxima,
            .totals = slice + a->at.totals,
            .scores = slice + a->at.scores,
            .tail = slice + a->at.tail,
        };
        attend(&it);
    }
}

void sb_attention(const struct sb_team *team, float *out, size_t ldo, const float *q, size_t ldq,
                  size_t n_heads, float scale, const struct sb_kv_layer *kv,
                  const struct sb_visible *visible, size_t m, void *scratch)
{
    struct attention a = {
        .out = out,
        .ldo = ldo,
        .q = q,
        .ldq = ldq,
        .group = n_heads / kv->n_kv_heads,
        .scale = scale,
        .kv = kv,
        .visible = visible,
        .at = layout_of(m, reach(visible, 0, m), n_heads, kv->n_kv_heads, kv->head_dim),
        .m = m,
        .scratch = scratch,
        .kernels = sb_kernels(),
    };
    size_t heads = kv->n_kv_heads, slices = m * heads < SLICES ? m * heads : SLICES;
    if (m == 0)
        return;
    /* A member needs a slice of scratch. */
    size_t count = team ? team->count : 1;
    const struct sb_team some = { count < slices ? count : slices };
    a.blocks = row_blocks(heads, some.count, m);
    sb_team_for(team ? &some : NULL, a.blocks * heads,
                2 * m * n_heads * kv->head_dim * (visible->n_prefix + m), attend_items, &a);
}
