/* Template: products over packed panels. Include after a v16_<isa>.h.
 *
 * Every element is one chain over k, so the shape of a tile, blocking over k (the chain continues
 * from memory) and conversion of weights ahead of time are free choices. Few rows of quantised weights:
 * two panels side by side, so that more chains hide the latency of unpacking; else one stream of memory is
 * faster. Very many rows: weights are converted once per block into floats that stay in the first-level cache. */

#define TILE_INLINE static inline __attribute__((always_inline))

enum { BLOCK_ROWS = 256, BLOCK_PANELS = 4, BLOCK_K = 256 };
enum { SOME_ROWS = 64, SOME_BYTES = 128 * 1024 };

/* How far ahead of its loads a tile that streams from memory asks for weights: what a core must have on
 * the way, bandwidth times latency, is about 8 KB. The hardware does not run that far ahead by itself.
 * Side by side each panel asks, those of Q4_0 twice as far, as their steps are half as long. */
enum { PREFETCH_BYTES = 16 * 1024, PREFETCH_BYTES_WIDE = 4096 };

TILE_INLINE size_t packed_bytes(int type, size_t k)
{
    return type == SB_BF16_DOT ? k * 128 : sb_panel_bytes((enum sb_dtype)type, k);
}

TILE_INLINE bool is_quantised(int type)
{
    return type == SB_Q8_0 || type == SB_Q4_0;
}

/* Steps of k that lie together in a panel, and their bytes. */
TILE_INLINE size_t group_steps(int type)
{
    return type == SB_Q4_0 ? 8 : type == SB_Q8_0 ? 4 : type == SB_BF16 ? 2 : 1;
}

TILE_INLINE size_t group_bytes(int type)
{
    return type == SB_F16 || type == SB_BF16_STEPS ? 64 : 128;
}

/* A group of one panel as it lies there: words, or floats of types that have one step a group. */
struct group {
    v16_words w[2];
    v16 f[2];
};

TILE_INLINE struct group load_group(int type, const unsigned char *p)
{
    struct group g;
#pragma GCC unroll 2
    for (int c = 0; c < 2; c++) {
        if (type == SB_F32)
            g.f[c] = v_load((const float *)p + c * 16);
        else if (type == SB_F16)
            g.f[c] = v_load_f16(p + c * 32);
        else if (type == SB_BF16_STEPS)
            g.f[c] = v_load_bf16(p + c * 32);
        else if (type == SB_BF16_DOT)
            g.f[c] = v_load((const float *)(p + c * 64)); /* bits, not numbers */
        else
            g.w[c] = v_load_words(p + c * 64);
    }
    return g;
}

/* Rows c * 16 .. c * 16 + 15 of a group's step as floats; step and c are constants at every call. Those
 * of quantised types lack their scale, which a block applies once: they are q / 2^bits. */
TILE_INLINE v16 weights(int type, const struct group *g, int step, int c)
{
    switch (type) {
    case SB_F32:
    case SB_F16:
    case SB_BF16_STEPS:
    case SB_BF16_DOT:
        return g->f[c];
    case SB_BF16:
        return step == 0 ? v_low_bf16(g->w[c]) : v_high_bf16(g->w[c]);
    case SB_Q8_0:
        return v_sub(v_fraction(g->w[c], 8 * step, 8), v_set1(1.5f));
    default:
        return v_nibble(g->w[c], step);
    }
}

/* 2^bits d of rows c * 16 .. c * 16 + 15 of a quantised block. */
TILE_INLINE v16 block_scale(int type, const unsigned char *block, int c)
{
    return v_mul(v_load_f16(block + c * 32), v_set1(type == SB_Q8_0 ? 256.0f : 16.0f));
}

TILE_INLINE v16 multiply_add(int type, v16 x, v16 w, v16 acc)
{
#ifdef SB_DOT_PRODUCTS
    if (type == SB_BF16_DOT)
        return _mm512_dpbf16_ps(acc, (__m512bh)x, (__m512bh)w);
#endif
    return v_fma(x, w, acc);
}

/* What a tile of one panel asks of the memory while it computes: `step` bytes per group of steps, from
 * `from` on. Panels side by side ask for their own weights, and near their end for the next such panels'. */
struct ahead {
    const unsigned char *from;
    size_t step;
};

/* Odd multiples of the distance between rows of x, in bytes: an address of a base plus 1, 2, 4 or 8 times
 * one of these costs an x86 core nothing, where a pointer per row would not fit its registers. */
struct row_steps {
    size_t by1, by3, by5, by7, by9, by11;
};

TILE_INLINE struct row_steps row_steps(size_t ldx)
{
    const size_t s = ldx * sizeof(float);
    return (struct row_steps){ s, 3 * s, 5 * s, 7 * s, 9 * s, 11 * s };
}

/* x[row * ldx]; row is a constant at every call. */
TILE_INLINE float row_value(const float *x, int row, const struct row_steps *by)
{
    const size_t offset[12] = { 0,           by->by1, 2 * by->by1, by->by3, 4 * by->by1, by->by5,
                                2 * by->by3, by->by7, 8 * by->by1, by->by9, 2 * by->by5, by->by11 };
    return *(const float *)((const char *)x + offset[row]);
}

/* Keeps the compiler from computing rows' addresses ahead of a loop, or holding them over one, in
 * registers it lacks. */
TILE_INLINE void hide_rows(const float **x, struct row_steps *by)
{
    __asm__("" : "+r"(*x), "+r"(by->by1), "+r"(by->by3), "+r"(by->by5));
}

TILE_INLINE void hide_out(float **out, size_t *ldo)
{
    __asm__("" : "+r"(*out), "+r"(*ldo));
}

/* out[rows, panels * 32] = sums over k in the order of kernels.h, from +0 or continued from out. Panels
 * lie `stride` bytes apart. rows, panels and type are constants at every call. */
TILE_INLINE void tile(int type, int rows, int panels, const unsigned char *w, size_t stride,
                      const float *x, size_t ldx, size_t k, float *out, size_t ldo, bool resume,
                      struct ahead ahead)
{
    v16 acc[SB_TILE_ROWS][4];
    const bool quantised = is_quantised(type);
    const int steps = (int)group_steps(type);
    const size_t block = quantised ? SB_QUANT_BLOCK : k;
    const unsigned char *end = w + stride;
    struct row_steps by = row_steps(ldx);
    for (size_t i0 = 0; i0 < k; i0 += block, resume = true) {
        const unsigned char *scales = w;
        if (quantised) {
            w += 2 * SB_PANEL;
            ahead.from += ahead.step / 2; /* the scales are half as long as a group */
        }
#pragma GCC unroll 16
        for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
            for (int c = 0; c < 2 * panels; c++)
                acc[r][c] = resume && !quantised ? v_load(out + (size_t)r * ldo + (size_t)c * 16)
                                                 : v_zero();
        for (size_t i = i0; i < i0 + block; i += (size_t)steps, w += group_bytes(type)) {
            struct group g[2];
            const unsigned char *wide = w + (type == SB_Q4_0 ? 2 : 1) * PREFETCH_BYTES_WIDE;
            wide += wide < end ? 0 : (size_t)(panels - 1) * stride;
#pragma GCC unroll 2
            for (int p = 0; p < panels; p++) {
                const unsigned char *next = panels > 1 ? wide + (size_t)p * stride : ahead.from;
                __builtin_prefetch(next);
                if (group_bytes(type) > 64)
                    __builtin_prefetch(next + 64);
                g[p] = load_group(type, w + (size_t)p * stride);
            }
            ahead.from += ahead.step;
#pragma GCC unroll 8
            for (int s = 0; s < steps; s++, x++) {
                v16 wi[2][2];
                if (type == SB_BF16 && s == 1 && i + 1 == k) /* the padded step of an odd k */
                    break;
#pragma GCC unroll 2
                for (int p = 0; p < panels; p++) {
                    wi[p][0] = weights(type, &g[p], s, 0);
                    wi[p][1] = weights(type, &g[p], s, 1);
                }
#pragma GCC unroll 16
                for (int r = 0; r < rows; r++) { /* one row of x at a time: registers are scarce */
                    if (r == 0)
                        hide_rows(&x, &by);
                    v16 xi = v_set1(row_value(x, r, &by));
#pragma GCC unroll 4
                    for (int c = 0; c < 2 * panels; c++)
                        acc[r][c] = multiply_add(type, xi, wi[c / 2][c % 2], acc[r][c]);
                }
            }
        }
        hide_out(&out, &ldo);
#pragma GCC unroll 4
        for (int c = 0; c < 2 * panels; c++) {
            v16 d = v_zero();
            if (quantised)
                d = block_scale(type, scales + (size_t)(c / 2) * stride, c % 2);
#pragma GCC unroll 16
            for (int r = 0; r < rows; r++) {
                float *to = out + (size_t)r * ldo + (size_t)c * 16;
                if (quantised)
                    acc[r][c] = v_fma(d, acc[r][c], resume ? v_load(to) : v_zero());
                v_store(to, acc[r][c]);
            }
        }
    }
}

typedef void tile_fn(const unsigned char *w, size_t stride, const float *x, size_t ldx, size_t k,
                     float *out, size_t ldo, bool resume, struct ahead ahead);

#define DEFINE_TILE(type, rows, panels)                                                           \
    static void tile_##type##_##rows##_##panels(const unsigned char *w, size_t stride,            \
                                                const float *x, size_t ldx, size_t k, float *out, \
                                                size_t ldo, bool resume, struct ahead ahead)      \
    {                                                                                             \
        tile(type, rows, panels, w, stride, x, ldx, k, out, ldo, resume, ahead);                  \
    }
#ifdef SB_DOT_PRODUCTS
enum { FIRST_TYPE = SB_BF16_DOT, TYPES = 1 };
#define DEFINE_TILES(rows, panels) DEFINE_TILE(SB_BF16_DOT, rows, panels)
#define TILES_OF(rows, panels)             \
    {                                      \
        tile_SB_BF16_DOT_##rows##_##panels \
    }
#else
enum { FIRST_TYPE = 0, TYPES = SB_TILE_TYPES };
#define DEFINE_TILES(rows, panels)     \
    DEFINE_TILE(SB_F32, rows, panels)  \
    DEFINE_TILE(SB_F16, rows, panels)  \
    DEFINE_TILE(SB_BF16, rows, panels) \
    DEFINE_TILE(SB_Q8_0, rows, panels) \
    DEFINE_TILE(SB_Q4_0, rows, panels) \
    DEFINE_TILE(SB_BF16_STEPS, rows, panels)
#define TILES_OF(rows, panels)                                                   \
    {                                                                            \
        tile_SB_F32_##rows##_##panels, tile_SB_F16_##rows##_##panels,            \
            tile_SB_BF16_##rows##_##panels, tile_SB_Q8_0_##rows##_##panels,      \
            tile_SB_Q4_0_##rows##_##panels, tile_SB_BF16_STEPS_##rows##_##panels \
    }
#endif

DEFINE_TILES(1, 1)
DEFINE_TILES(2, 1)
DEFINE_TILES(3, 1)
#if SB_TILE_ROWS >= 4
DEFINE_TILES(4, 1)
#endif
#if SB_TILE_ROWS == 12
DEFINE_TILES(5, 1)
DEFINE_TILES(6, 1)
DEFINE_TILES(7, 1)
DEFINE_TILES(8, 1)
DEFINE_TILES(9, 1)
DEFINE_TILES(10, 1)
DEFINE_TILES(11, 1)
DEFINE_TILES(12, 1)
#endif

/* By rows - 1 and type. */
static tile_fn *const tiles[SB_TILE_ROWS][TYPES] = {
    TILES_OF(1, 1), TILES_OF(2, 1),  TILES_OF(3, 1),
#if SB_TILE_ROWS >= 4
    TILES_OF(4, 1),
#endif
#if SB_TILE_ROWS == 12
    TILES_OF(5, 1), TILES_OF(6, 1),  TILES_OF(7, 1),  TILES_OF(8, 1),
    TILES_OF(9, 1), TILES_OF(10, 1), TILES_OF(11, 1), TILES_OF(12, 1),
#endif
};

#if SB_WIDE_ROWS > 0 && !defined(SB_DOT_PRODUCTS)
#define DEFINE_WIDE_TILES(rows) DEFINE_TILE(SB_Q8_0, rows, 2) DEFINE_TILE(SB_Q4_0, rows, 2)
#define WIDE_TILES_OF(rows)                              \
    {                                                    \
        tile_SB_Q8_0_##rows##_2, tile_SB_Q4_0_##rows##_2 \
    }
DEFINE_WIDE_TILES(1)
#if SB_WIDE_ROWS == 4
DEFINE_WIDE_TILES(2)
DEFINE_WIDE_TILES(3)
DEFINE_WIDE_TILES(4)
#endif

/* Over two panels side by side, by rows - 1 and quantised type. */
static tile_fn *const wide_tiles[SB_WIDE_ROWS][2] = {
    WIDE_TILES_OF(1),
#if SB_WIDE_ROWS == 4
    WIDE_TILES_OF(2),
    WIDE_TILES_OF(3),
    WIDE_TILES_OF(4),
#endif
};
#endif

static tile_fn *tile_of(int type, size_t rows, size_t panels)
{
#if SB_WIDE_ROWS > 0 && !defined(SB_DOT_PRODUCTS)
    if (panels == 2)
        return wide_tiles[rows - 1][type == SB_Q4_0];
#endif
    return tiles[rows - 1][type - FIRST_TYPE];
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

/* Where tiles put the sums of some panels: where they belong, unless more is to be done with them. */
struct sums {
    float *at;
    size_t ld;
};

static struct sums sums_of(const struct sb_product *job, size_t panel, size_t panels, float *acc)
{
    bool whole = !job->bias && !job->add && columns_from(job, panel, panels) == panels * SB_PANEL;
    return whole ? (struct sums){ job->y + panel * SB_PANEL, job->ldy }
                 : (struct sums){ acc, panels * SB_PANEL };
}

/* At most SB_TILE_ROWS rows: the weights stream by once. */
static void product_few(const struct sb_product *job, size_t first, size_t last)
{
    _Alignas(64) float acc[(SB_TILE_ROWS > 8 ? SB_TILE_ROWS : 8) * SB_PANEL];
    const size_t m = job->m, wide = is_quantised(job->type) && m <= SB_WIDE_ROWS ? 2 : 1;
    for (size_t p = first; p < last;) {
        size_t panels = last - p >= wide ? wide : 1;
        tile_fn *fn = tile_of(job->type, m, panels);
        const unsigned char *w = job->w + p * job->panel_stride;
        const struct sums to = sums_of(job, p, panels, acc);
        fn(w, job->panel_stride, job->x, job->ldx, job->k, to.at, to.ld, false,
           (struct ahead){ w + PREFETCH_BYTES, group_bytes(job->type) });
        if (to.at == acc)
            finish(job, m, p * SB_PANEL, columns_from(job, p, panels), acc, panels * SB_PANEL);
        p += panels;
    }
}

#ifndef SB_DOT_PRODUCTS
/* acc[m, 32] over k steps of float weights, in tiles of nearly equal height. */
static void chain_rows(float *acc, size_t ldacc, const float *w, const float *x, size_t ldx,
                       size_t m, size_t k, bool resume)
{
    size_t n_tiles = (m + SB_TILE_ROWS - 1) / SB_TILE_ROWS;
    for (size_t t = 0; t < n_tiles; t++) {
        size_t row = m * t / n_tiles, rows = m * (t + 1) / n_tiles - row;
        tile_of(SB_F32, rows, 1)((const unsigned char *)w, 0, x + row * ldx, ldx, k,
                                 acc + row * ldacc, ldacc, resume,
                                 (struct ahead){ (const unsigned char *)w, 0 });
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

/* The panel's steps k0..k0+k as floats: in place, or converted into `room`. */
static const float *weights_as_floats(int type, const unsigned char *panel, size_t k0, size_t k,
                                      float *room)
{
    const unsigned char *from = panel + sb_panel_bytes(type, k0);
    if (type == SB_F32)
        return (const float *)from;
    if (type == SB_F16)
        convert(SB_F16, room, from, k);
    else
        convert(SB_BF16, room, from, k);
    return room;
}

/* A block of rows against a few panels: the block of x stays in the second-level cache, one block of
 * weights as floats in the first. */
static void product_block(const struct sb_product *job, size_t first, size_t last)
{
    _Alignas(64) float acc[BLOCK_ROWS * BLOCK_PANELS * SB_PANEL], room[BLOCK_K * SB_PANEL];
    const size_t ldacc = BLOCK_PANELS * SB_PANEL, most = job->m <= SOME_ROWS ? 1 : BLOCK_PANELS;
    for (size_t panel = first, panels; panel < last; panel += panels) {
        panels = last - panel < most ? last - panel : most;
        for (size_t k0 = 0; k0 < job->k; k0 += BLOCK_K) {
            size_t k = job->k - k0 < BLOCK_K ? job->k - k0 : BLOCK_K;
            for (size_t p = 0; p < panels; p++) {
                const float *w = weights_as_floats(
                    job->type, job->w + (panel + p) * job->panel_stride, k0, k, room);
                chain_rows(acc + p * SB_PANEL, ldacc, w, job->x + k0, job->ldx, job->m, k, k0 > 0);
            }
        }
        finish(job, job->m, panel * SB_PANEL, columns_from(job, panel, panels), acc, ldacc);
    }
}
#endif

/* A few tiles of rows, a block of one panel at a time, which then lies in the second-level cache. While
 * they compute on it, the tiles share out asking for the next block, so that memory never waits. */
static void product_some(const struct sb_product *job, size_t first, size_t last)
{
    _Alignas(64) float acc[SOME_ROWS * SB_PANEL];
    const size_t n_tiles = (job->m + SB_TILE_ROWS - 1) / SB_TILE_ROWS;
    const size_t most = SOME_BYTES / group_bytes(job->type) * group_steps(job->type);
    const size_t block = most < job->k ? most / SB_QUANT_BLOCK * SB_QUANT_BLOCK : job->k;
    for (size_t p = first; p < last; p++) {
        const unsigned char *w = job->w + p * job->panel_stride;
        const struct sums to = sums_of(job, p, 1, acc);
        for (size_t k0 = 0; k0 < job->k; k0 += block) {
            size_t k = job->k - k0 < block ? job->k - k0 : block,
                   bytes = packed_bytes(job->type, k);
            size_t share = group_bytes(job->type) / n_tiles;
            const unsigned char *next =
                job->then && p + 1 == last && k0 + k == job->k ? job->then : w + bytes;
            for (size_t t = 0; t < n_tiles; t++) {
                size_t row = job->m * t / n_tiles, rows = job->m * (t + 1) / n_tiles - row;
                tile_of(job->type, rows, 1)(w, 0, job->x + row * job->ldx + k0, job->ldx, k,
                                            to.at + row * to.ld, to.ld, k0 > 0,
                                            (struct ahead){ next + bytes * t / n_tiles, share });
            }
            w += bytes;
        }
        if (to.at == acc)
            finish(job, job->m, p * SB_PANEL, columns_from(job, p, 1), acc, SB_PANEL);
    }
}

/* Sums over nothing. */
static void product_empty(const struct sb_product *job, size_t first, size_t last)
{
    static const float zeros[SB_PANEL];
    for (size_t p = first; p < last; p++)
        finish(job, job->m, p * SB_PANEL, columns_from(job, p, 1), zeros, 0);
}

static void product(const struct sb_product *job, size_t first, size_t last)
{
    struct sb_product part = *job;
    if (job->k == 0) {
        product_empty(job, first, last);
        return;
    }
    /* Low tiles would convert the same weights many times; quantised ones keep their blocks. */
    bool direct = SB_TILE_ROWS == 12 || job->type == SB_F32 || job->m <= 2 * SB_TILE_ROWS;
    size_t most = BLOCK_ROWS;
    if (job->m <= SB_TILE_ROWS)
        most = SB_TILE_ROWS;
    else if (is_quantised(job->type) || job->type == SB_BF16_DOT || (direct && job->m <= SOME_ROWS))
        most = SOME_ROWS;
    for (size_t row = 0; row < job->m; row += part.m) {
        part.m = job->m - row < most ? job->m - row : most;
        part.x = job->x + row * job->ldx;
        part.y = job->y + row * job->ldy;
        if (most == SB_TILE_ROWS)
            product_few(&part, first, last);
        else if (most == SOME_ROWS)
            product_some(&part, first, last);
#ifndef SB_DOT_PRODUCTS
        else
            product_block(&part, first, last);
#endif
    }
}

#ifndef SB_DOT_PRODUCTS
/* Panels one after the other; tiles of one panel find it in the caches after the first. */
static void add_to_sums(const struct sb_sums *job)
{
    const size_t n_tiles = (job->m + SB_TILE_ROWS - 1) / SB_TILE_ROWS,
                 step = group_bytes(job->type);
    for (size_t p = 0; p < job->panels; p++)
        for (size_t t = 0; t < n_tiles; t++) {
            const unsigned char *w = job->w + p * job->panel_stride;
            size_t row = job->m * t / n_tiles, rows = job->m * (t + 1) / n_tiles - row;
            struct ahead ahead = { w + PREFETCH_BYTES, step };
            if (n_tiles > 1)
                ahead = (struct ahead){ w + job->k * step + job->k * step * t / n_tiles,
                                        step / n_tiles };
            tile_of(job->type, rows, 1)(w, 0, job->x + row * job->ldx, job->ldx, job->k,
                                        job->y + row * job->ldy + p * SB_PANEL, job->ldy, true,
                                        ahead);
        }
}
#endif
