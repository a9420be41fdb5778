/* Template: products over packed panels. Include after a v16_<isa>.h.
 *
 * Tiles of rows in an order that suits the memory, by the number of rows; blocking over k and conversion of weights
 * ahead of time change no chain. One panel at a time: a single stream of memory is the fastest. Where tiles are low,
 * narrow weights for many rows are converted once per block into floats that stay in the first-level cache. */
#include "kernels/exp_v16.h"
#include "kernels/tile_v16.h"

enum { BLOCK_ROWS = 256, BLOCK_PANELS = 4, BLOCK_K = 256 };
enum { SOME_ROWS = 96, SOME_BYTES = 128 * 1024 }; /* whose x finds room in the second-level cache */
enum { SUMS_BLOCK = 64 }; /* steps of values that several tiles go over before the next ones */

/* How far ahead of its loads a tile that streams from memory asks for weights: what a core must have on
 * the way, bandwidth times latency. The hardware does not run that far ahead by itself. */
enum { PREFETCH_BYTES = 8 * 1024 };

/* What is asked for meanwhile, from byte `at` of a run of `run` bytes on, `step` bytes at a time. */
TILE_INLINE struct ahead meanwhile(const struct sb_asks *asks, size_t run, size_t at, size_t step)
{
    return (struct ahead){ asks->meanwhile + at * asks->bytes / run, step * asks->bytes / run };
}

/* What panel p of a run asks for beside what it reads, in `room`, for its tiles to share out; or NULL: nothing. */
static struct beside *beside_panel(const struct sb_product *job, size_t p, size_t n_tiles,
                                   struct beside *room)
{
    const struct sb_beside *b = &job->asks.beside;
    if (b->each == 0)
        return NULL;
    room->next = room->due = sb_beside_at(b, p);
    room->step = b->each * group_steps(job->type) / (job->k * n_tiles * sb_halves(job->gated));
    return room;
}

/* A tile of rows over k steps of a panel, from w and x on; beside may be NULL. */
TILE_INLINE void run_tile(const struct sb_product *job, size_t rows, const unsigned char *w,
                          const float *x, size_t k, float *out, size_t ldo, bool resume,
                          struct ahead ahead, struct beside *beside)
{
    asking_tile_fn *fn = beside ? asking_tile_of(job->type, rows) : NULL;
    if (fn)
        fn(w, x, job->ldx, k, out, ldo, resume, ahead, beside);
    else
        tile_of(job->type, rows)(w, x, job->ldx, k, out, ldo, resume, ahead);
}

/* y[rows, n] = acc (+ bias), or y + (acc + bias). */
static void finish(const struct sb_product *job, size_t rows, size_t col, size_t n,
                   const float *acc, size_t ldacc)
{
    for (size_t r = 0; r < rows; r++)
        for (size_t c = 0; c < n; c += 16) {
            size_t left = n - c;
            float *y = job->y + r * job->ldy + col + c;
            v16 sum = v_load(acc + r * ldacc + c);
            if (job->bias)
                sum = v_add(sum, v_load_n(job->bias + col + c, left));
            if (job->add)
                sum = v_add(v_load_n(y, left), sum);
            v_store_n(y, sum, left);
        }
}

static size_t columns_from(const struct sb_product *job, size_t panel, size_t panels)
{
    size_t col = panel * SB_PANEL, n = panels * SB_PANEL;
    return job->n - col < n ? job->n - col : n;
}

/* Where tiles put the sums of a panel: where they belong, unless more is to be done with them. Those of up are `apart`
 * from those of gate. */
struct sums {
    float *at;
    size_t ld, apart;
};

static struct sums sums_of(const struct sb_product *job, size_t panel, float *acc)
{
    bool whole = !job->bias && !job->add && !job->gated && columns_from(job, panel, 1) == SB_PANEL;
    return whole ? (struct sums){ job->y + panel * SB_PANEL, job->ldy, 0 }
                 : (struct sums){ acc, SB_PANEL, job->m * SB_PANEL };
}

/* Those that are not in their place get there. */
static void finish_panel(const struct sb_product *job, size_t panel, struct sums sums)
{
    if (sums.apart == 0)
        return;
    if (job->gated)
        swiglu(sums.at, sums.at + sums.apart, sums.apart);
    finish(job, job->m, panel * SB_PANEL, columns_from(job, panel, 1), sums.at, sums.ld);
}

/* Steps of k, whole blocks of them, in the first `bytes` of a panel. */
TILE_INLINE size_t steps_in(int type, ptrdiff_t bytes)
{
    const size_t block = packed_bytes(type, SB_QUANT_BLOCK);
    return bytes > 0 ? (size_t)bytes / block * SB_QUANT_BLOCK : 0;
}

/* One panel of a run from `begin` to `end`. What would be asked for beyond the end is what comes next. */
static void stream_panel(const struct sb_product *job, const unsigned char *begin,
                         const unsigned char *w, const unsigned char *end, struct sums to,
                         struct beside *beside)
{
    const size_t step = group_bytes(job->type);
    const unsigned char *ask = w + PREFETCH_BYTES, *then = job->asks.then;
    if (job->asks.meanwhile) {
        run_tile(job, job->m, w, job->x, job->k, to.at, to.ld, false,
                 meanwhile(&job->asks, (size_t)(end - begin), (size_t)(w - begin), step), beside);
        return;
    }
    size_t k0 = then ? steps_in(job->type, end - ask) : job->k;
    k0 = k0 < job->k ? k0 : job->k;
    if (k0 > 0)
        run_tile(job, job->m, w, job->x, k0, to.at, to.ld, false, (struct ahead){ ask, step },
                 beside);
    if (k0 < job->k)
        run_tile(job, job->m, w + packed_bytes(job->type, k0), job->x + k0, job->k - k0, to.at,
                 to.ld, k0 > 0, (struct ahead){ ask > end ? then + (ask - end) : then, step },
                 beside);
}

#ifndef SB_DOT_PRODUCTS
/* acc[m, 32] over k steps of float weights, in tiles of nearly equal height. */
static void chain_rows(float *acc, size_t ldacc, const float *w, const float *x, size_t ldx,
                       size_t m, size_t k, bool resume)
{
    size_t n_tiles = tiles_for(SB_F32, m);
    for (size_t t = 0; t < n_tiles; t++) {
        size_t row = m * t / n_tiles, rows = m * (t + 1) / n_tiles - row;
        tile_of(SB_F32, rows)((const unsigned char *)w, x + row * ldx, ldx, k, acc + row * ldacc,
                              ldacc, resume, (struct ahead){ (const unsigned char *)w, 0 });
    }
}

/* w[k, 32] = steps of a panel as floats. */
TILE_INLINE void convert(int type, float *w, const unsigned char *panel, size_t k)
{
    const size_t steps = group_steps(type);
    for (size_t i = 0; i < k; i += steps, panel += group_bytes(type)) {
        struct group g = load_group(type, panel);
#pragma GCC unroll 2
        for (int s = 0; s < (int)steps; s++) {
            if (type == SB_BF16 && s == 1 && i + 1 == k)
                break;
            v_store(w + (i + (size_t)s) * SB_PANEL, weights(type, &g, s, 0));
            v_store(w + (i + (size_t)s) * SB_PANEL + 16, weights(type, &g, s, 1));
        }
    }
}

/* A block of rows against a few panels: the block of x stays in the second-level cache, one block of
 * weights as floats in the first. */
static void product_block(const struct sb_product *job, size_t first, size_t last)
{
    _Alignas(64) float acc[BLOCK_ROWS * BLOCK_PANELS * SB_PANEL], room[BLOCK_K * SB_PANEL];
    const size_t halves = sb_halves(job->gated), half_stride = job->panel_stride / halves;
    const size_t ldacc = BLOCK_PANELS * SB_PANEL,
                 most = job->m <= SOME_ROWS ? 1 : BLOCK_PANELS / halves;
    for (size_t panel = first, panels; panel < last; panel += panels) {
        panels = last - panel < most ? last - panel : most;
        for (size_t k0 = 0; k0 < job->k; k0 += BLOCK_K) {
            size_t k = job->k - k0 < BLOCK_K ? job->k - k0 : BLOCK_K;
            for (size_t i = 0; i < panels * halves; i++) { /* all gates come before all ups */
                const unsigned char *from = job->w + (panel + i % panels) * job->panel_stride +
                                            i / panels * half_stride + packed_bytes(job->type, k0);
                if (job->type == SB_F16)
                    convert(SB_F16, room, from, k);
                else
                    convert(SB_BF16, room, from, k);
                chain_rows(acc + i * SB_PANEL, ldacc, room, job->x + k0, job->ldx, job->m, k,
                           k0 > 0);
            }
        }
        for (size_t r = 0; job->gated && r < job->m; r++)
            swiglu(acc + r * ldacc, acc + r * ldacc + panels * SB_PANEL, panels * SB_PANEL);
        finish(job, job->m, panel * SB_PANEL, columns_from(job, panel, panels), acc, ldacc);
    }
}
#endif

/* A few tiles of rows, a block of one panel at a time, which then lies in the second-level cache. While they compute on
 * it, the tiles share out asking for the next block, so that memory never waits. */
static void reread_panel(const struct sb_product *job, const unsigned char *begin,
                         const unsigned char *w, const unsigned char *end, struct sums to,
                         struct beside *beside)
{
    const size_t n_tiles = tiles_for(job->type, job->m);
    const size_t most = SOME_BYTES / group_bytes(job->type) * group_steps(job->type);
    const size_t block = most < job->k ? most / SB_QUANT_BLOCK * SB_QUANT_BLOCK : job->k;
    const size_t step = group_bytes(job->type) / n_tiles;
    for (size_t k0 = 0; k0 < job->k; k0 += block) {
        size_t k = job->k - k0 < block ? job->k - k0 : block, bytes = packed_bytes(job->type, k);
        const unsigned char *next = job->asks.then && w + bytes == end ? job->asks.then : w + bytes;
        for (size_t t = 0; t < n_tiles; t++) {
            size_t row = job->m * t / n_tiles, rows = job->m * (t + 1) / n_tiles - row;
            size_t part = bytes * t / n_tiles;
            struct ahead ahead = { next + part, step };
            if (job->asks.meanwhile)
                ahead =
                    meanwhile(&job->asks, (size_t)(end - begin), (size_t)(w - begin) + part, step);
            run_tile(job, rows, w, job->x + row * job->ldx + k0, k, to.at + row * to.ld, to.ld,
                     k0 > 0, ahead, beside);
        }
        w += bytes;
    }
}

/* Panel by panel. At most tile_rows(type) rows let the weights stream by. */
static void product_panels(const struct sb_product *job, size_t first, size_t last)
{
    _Alignas(64) float acc[2 * SOME_ROWS * SB_PANEL];
    const bool few = job->m <= tile_rows(job->type);
    const size_t n_tiles = tiles_for(job->type, job->m), half = packed_bytes(job->type, job->k);
    const unsigned char *begin = job->w + first * job->panel_stride,
                        *end = job->w + last * job->panel_stride, *w = begin;
    for (size_t p = first; p < last; p++) {
        const struct sums sums = sums_of(job, p, acc);
        struct beside room, *beside = beside_panel(job, p - first, n_tiles, &room);
        for (size_t h = 0; h < sb_halves(job->gated); h++, w += half) {
            const struct sums to = { sums.at + h * sums.apart, sums.ld, 0 };
            if (few)
                stream_panel(job, begin, w, end, to, beside);
            else
                reread_panel(job, begin, w, end, to, beside);
        }
        finish_panel(job, p, sums);
    }
}

/* Sums over nothing. */
static void product_empty(const struct sb_product *job, size_t first, size_t last)
{
    static const float zeros[SB_PANEL];
    for (size_t p = first; p < last; p++)
        finish(job, job->m, p * SB_PANEL, columns_from(job, p, 1), zeros, 0);
}

static bool is_narrow(int type)
{
    return type == SB_F16 || type == SB_BF16;
}

static void product(const struct sb_product *job, size_t first, size_t last)
{
    struct sb_product part = *job;
    if (job->k == 0) {
        product_empty(job, first, last);
        return;
    }
    /* Low tiles would convert the same weights many times. */
    const bool convert_once =
        SB_TILE_ROWS < 14 && is_narrow(job->type) && job->m > 2 * SB_TILE_ROWS;
    const size_t most = convert_once ? BLOCK_ROWS : SOME_ROWS, slices = (job->m + most - 1) / most;
    for (size_t i = 0, row = 0; i < slices; i++, row += part.m) {
        part.m = job->m * (i + 1) / slices - row;
        part.x = job->x + row * job->ldx;
        part.y = job->y + row * job->ldy;
        if (!convert_once)
            product_panels(&part, first, last);
#ifndef SB_DOT_PRODUCTS
        else
            product_block(&part, first, last);
#endif
    }
}

#ifndef SB_DOT_PRODUCTS
/* A panel's steps for all rows; tiles after the first find it in the caches, and share out what is asked for. */
static void add_panel(const struct sb_sums *job, const unsigned char *w, size_t k0, size_t k,
                      float *y, struct ahead ahead)
{
    const size_t n_tiles = tiles_for(job->type, job->m), step = group_bytes(job->type);
    for (size_t t = 0; t < n_tiles; t++) {
        size_t row = job->m * t / n_tiles, rows = job->m * (t + 1) / n_tiles - row;
        tile_of(job->type, rows)(
            w + k0 * step, job->x + row * job->ldx + k0, job->ldx, k, y + row * job->ldy, job->ldy,
            true,
            (struct ahead){ ahead.from + ahead.step * k * t / n_tiles, ahead.step / n_tiles });
    }
}

/* Panels one after the other. What lies behind a panel is its next run; before the last run ends, the next panel
 * is asked for, and what comes then. */
static void add_to_sums(const struct sb_sums *job)
{
    const bool one_tile = job->m <= SB_TILE_ROWS;
    const size_t step = group_bytes(job->type), run = job->k * step;
    const size_t in_time = PREFETCH_BYTES / step;
    const size_t early = one_tile && job->k > in_time ? job->k - in_time : 0;
    for (size_t p = 0; p < job->panels; p++) {
        const unsigned char *w = job->w + p * job->panel_stride;
        float *y = job->y + p * SB_PANEL;
        if (job->asks.meanwhile) {
            const size_t block = one_tile ? job->k : SUMS_BLOCK;
            for (size_t k0 = 0; k0 < job->k; k0 += block)
                add_panel(job, w, k0, job->k - k0 < block ? job->k - k0 : block, y,
                          meanwhile(&job->asks, job->panels * run, p * run + k0 * step, step));
            continue;
        }
        if (!job->asks.then) {
            add_panel(job, w, 0, job->k, y,
                      (struct ahead){ w + (one_tile ? PREFETCH_BYTES : run), step });
            continue;
        }
        if (early > 0)
            add_panel(job, w, 0, early, y, (struct ahead){ w + PREFETCH_BYTES, step });
        add_panel(
            job, w, early, job->k - early, y,
            (struct ahead){ p + 1 < job->panels ? w + job->panel_stride : job->asks.then, step });
    }
}

/* One row over listed steps of `panels` panels, twice as many chains. type and panels are constants at every call. */
TILE_INLINE void add_steps(int type, int panels, const struct sb_sums *job, const int32_t *list,
                           size_t first)
{
    const unsigned char *w = job->w + first * job->panel_stride;
    float *y = job->y + first * SB_PANEL;
    v16 acc[4];
#pragma GCC unroll 4
    for (int c = 0; c < 2 * panels; c++)
        acc[c] = v_load(y + (size_t)c * 16);
    for (size_t i = 0; i < job->k; i++) {
        const unsigned char *at = w + (size_t)(list[i] - list[0]) * group_bytes(type);
        const v16 xi = v_set1(job->x[i]);
#pragma GCC unroll 2
        for (int p = 0; p < panels; p++) {
            const struct group g = load_group(type, at + (size_t)p * job->panel_stride);
            acc[2 * p] = multiply_add(type, xi, weights(type, &g, 0, 0), acc[2 * p]);
            acc[2 * p + 1] = multiply_add(type, xi, weights(type, &g, 0, 1), acc[2 * p + 1]);
        }
    }
#pragma GCC unroll 4
    for (int c = 0; c < 2 * panels; c++)
        v_store(y + (size_t)c * 16, acc[c]);
}

TILE_INLINE void add_all_steps(int type, const struct sb_sums *job, const int32_t *list)
{
    size_t p = 0;
    for (; p + 2 <= job->panels; p += 2)
        add_steps(type, 2, job, list, p);
    if (p < job->panels)
        add_steps(type, 1, job, list, p);
}

static void add_listed(const struct sb_sums *job, const int32_t *list)
{
    if (job->type == SB_F32)
        add_all_steps(SB_F32, job, list);
    else if (job->type == SB_F16)
        add_all_steps(SB_F16, job, list);
    else
        add_all_steps(SB_BF16_STEPS, job, list);
}
#endif
