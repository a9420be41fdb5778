/* Template: products over packed panels. Include after a v16_<isa>.h.
 *
 * Every element is one chain over k, so the shape of a tile, blocking over k (the chain continues
 * from memory) and conversion of weights ahead of time are free choices. Few rows: several panels
 * side by side, so that enough independent chains hide the latency of the fma. More rows: weights
 * are converted once per block into floats that stay in the first-level cache. */

#define TILE_INLINE static inline __attribute__((always_inline))

/* How far ahead of the loads the weights are asked for: tall tiles read one slow stream, which the
 * hardware does not run far enough ahead of by itself. */
enum { PREFETCH_BYTES = 4096 };

enum { BLOCK_ROWS = 256, BLOCK_PANELS = 4, BLOCK_K = 256, SOME_ROWS = 64 };

/* Weights of one panel: floats of the 32 rows at step i; d holds the scales of a quantised block. */
TILE_INLINE void load_weights(v16 w[2], enum sb_dtype type, const unsigned char *p, size_t i,
                              const v16 d[2])
{
    switch (type) {
    case SB_F32:
        __builtin_prefetch(p + i * 128 + PREFETCH_BYTES);
        __builtin_prefetch(p + i * 128 + PREFETCH_BYTES + 64);
        w[0] = v_load((const float *)p + i * 32);
        w[1] = v_load((const float *)p + i * 32 + 16);
        break;
    case SB_F16:
        __builtin_prefetch(p + i * 64 + PREFETCH_BYTES);
        w[0] = v_load_f16(p + i * 64);
        w[1] = v_load_f16(p + i * 64 + 32);
        break;
    case SB_BF16:
        __builtin_prefetch(p + i * 64 + PREFETCH_BYTES);
        v_load_bf16_pair(p + i * 64, &w[0], &w[1]);
        break;
    case SB_Q8_0:
        __builtin_prefetch(p + i * 32 + PREFETCH_BYTES);
        w[0] = v_mul(d[0], v_load_i8(p + 64 + i * 32));
        w[1] = v_mul(d[1], v_load_i8(p + 64 + i * 32 + 16));
        break;
    default:
        __builtin_prefetch(p + i * 16 + PREFETCH_BYTES);
        v_load_q4_pair(p + 64 + i * 16, &w[0], &w[1]);
        w[0] = v_mul(d[0], w[0]);
        w[1] = v_mul(d[1], w[1]);
        break;
    }
}

TILE_INLINE size_t block_length(enum sb_dtype type, size_t k)
{
    return type == SB_Q8_0 || type == SB_Q4_0 ? SB_QUANT_BLOCK : k;
}

/* out[rows, panels * 32] = chains over k, from +0 or continued from out. Panels lie `stride` bytes
 * apart. rows, panels and type are constants at every call. */
TILE_INLINE void tile(enum sb_dtype type, int rows, int panels, const unsigned char *w,
                      size_t stride, const float *x, size_t ldx, size_t k, float *out, size_t ldo,
                      bool resume)
{
    v16 acc[SB_TILE_ROWS][2 * 4], d[4][2];
    const size_t block = block_length(type, k);
    const size_t block_bytes = sb_panel_bytes(type, block);
#pragma GCC unroll 16
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 8
        for (int c = 0; c < 2 * panels; c++)
            acc[r][c] = resume ? v_load(out + (size_t)r * ldo + (size_t)c * 16) : v_zero();
    for (size_t k0 = 0; k0 < k; k0 += block, w += block_bytes, x += block) {
        if (type == SB_Q8_0 || type == SB_Q4_0) {
#pragma GCC unroll 4
            for (int p = 0; p < panels; p++) {
                d[p][0] = v_load_f16(w + (size_t)p * stride);
                d[p][1] = v_load_f16(w + (size_t)p * stride + 32);
            }
        }
        for (size_t i = 0; i < block; i++) {
            v16 wi[4][2];
#pragma GCC unroll 4
            for (int p = 0; p < panels; p++)
                load_weights(wi[p], type, w + (size_t)p * stride, i, d[p]);
#pragma GCC unroll 16
            for (int r = 0; r < rows; r++) { /* one row of x at a time: registers are scarce */
                v16 xi = v_set1(x[(size_t)r * ldx + i]);
#pragma GCC unroll 8
                for (int c = 0; c < 2 * panels; c++)
                    acc[r][c] = v_fma(xi, wi[c / 2][c % 2], acc[r][c]);
            }
        }
    }
#pragma GCC unroll 16
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 8
        for (int c = 0; c < 2 * panels; c++)
            v_store(out + (size_t)r * ldo + (size_t)c * 16, acc[r][c]);
}

typedef void tile_fn(const unsigned char *w, size_t stride, const float *x, size_t ldx, size_t k,
                     float *out, size_t ldo, bool resume);

#define DEFINE_TILE(type, rows, panels)                                                           \
    static void tile_##type##_##rows##_##panels(const unsigned char *w, size_t stride,            \
                                                const float *x, size_t ldx, size_t k, float *out, \
                                                size_t ldo, bool resume)                          \
    {                                                                                             \
        tile(type, rows, panels, w, stride, x, ldx, k, out, ldo, resume);                         \
    }
#define DEFINE_TILES(rows, panels)     \
    DEFINE_TILE(SB_F32, rows, panels)  \
    DEFINE_TILE(SB_F16, rows, panels)  \
    DEFINE_TILE(SB_BF16, rows, panels) \
    DEFINE_TILE(SB_Q8_0, rows, panels) \
    DEFINE_TILE(SB_Q4_0, rows, panels)
#define TILES_OF(rows, panels)                                              \
    {                                                                       \
        tile_SB_F32_##rows##_##panels, tile_SB_F16_##rows##_##panels,       \
            tile_SB_BF16_##rows##_##panels, tile_SB_Q8_0_##rows##_##panels, \
            tile_SB_Q4_0_##rows##_##panels                                  \
    }

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
#if SB_WIDE_1 == 2
DEFINE_TILES(1, 2)
#endif
#if SB_WIDE_1 == 4
DEFINE_TILES(1, 4)
DEFINE_TILES(2, 2)
DEFINE_TILES(3, 2)
DEFINE_TILES(4, 2)
#endif

/* By rows - 1 and type. */
static tile_fn *const tiles[SB_TILE_ROWS][SB_DTYPE_COUNT] = {
    TILES_OF(1, 1), TILES_OF(2, 1),  TILES_OF(3, 1),
#if SB_TILE_ROWS >= 4
    TILES_OF(4, 1),
#endif
#if SB_TILE_ROWS == 12
    TILES_OF(5, 1), TILES_OF(6, 1),  TILES_OF(7, 1),  TILES_OF(8, 1),
    TILES_OF(9, 1), TILES_OF(10, 1), TILES_OF(11, 1), TILES_OF(12, 1),
#endif
};
/* Side by side, by rows - 1 and type; empty where one panel has chains enough. */
static tile_fn *const wide_tiles[SB_TILE_ROWS][SB_DTYPE_COUNT] = {
#if SB_WIDE_1 == 2
    TILES_OF(1, 2),
#endif
#if SB_WIDE_1 == 4
    TILES_OF(1, 4), TILES_OF(2, 2), TILES_OF(3, 2), TILES_OF(4, 2),
#endif
};

static int wide_panels(size_t rows)
{
    return rows == 1 ? SB_WIDE_1 : rows == 2 ? SB_WIDE_2 : rows <= 4 ? SB_WIDE_4 : 1;
}

/* y[rows, n] = acc (+ bias), or y + (acc + bias). */
static void finish(const struct sb_product *job, size_t row, size_t rows, size_t col, size_t n,
                   const float *acc, size_t ldacc)
{
    for (size_t r = 0; r < rows; r++)
        for (size_t c = 0; c < n; c += 16) {
            size_t left = n - c;
            float *y = job->y + (row + r) * job->ldy + col + c;
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

/* At most SB_TILE_ROWS rows: the weights stream by once. */
static void product_few(const struct sb_product *job, size_t first, size_t last)
{
    _Alignas(64) float acc[SB_TILE_ROWS * SB_PANEL > 4 * 2 * SB_PANEL ? SB_TILE_ROWS * SB_PANEL
                                                                      : 4 * 2 * SB_PANEL];
    size_t m = job->m, wide = (size_t)wide_panels(m);
    for (size_t p = first; p < last;) {
        size_t panels = last - p >= wide ? wide : 1;
        tile_fn *fn = panels > 1 ? wide_tiles[m - 1][job->type] : tiles[m - 1][job->type];
        fn(job->w + p * job->panel_stride, job->panel_stride, job->x, job->ldx, job->k, acc,
           panels * SB_PANEL, false);
        finish(job, 0, m, p * SB_PANEL, columns_from(job, p, panels), acc, panels * SB_PANEL);
        p += panels;
    }
}

/* acc[m, 32] over k steps of float weights, in tiles of nearly equal height. */
static void chain_rows(float *acc, size_t ldacc, const float *w, const float *x, size_t ldx,
                       size_t m, size_t k, bool resume)
{
    size_t n_tiles = (m + SB_TILE_ROWS - 1) / SB_TILE_ROWS;
    for (size_t t = 0; t < n_tiles; t++) {
        size_t row = m * t / n_tiles, rows = m * (t + 1) / n_tiles - row;
        tiles[rows - 1][SB_F32]((const unsigned char *)w, 0, x + row * ldx, ldx, k,
                                acc + row * ldacc, ldacc, resume);
    }
}

/* w[k, 32] = the panel from step k0 on (a multiple of BLOCK_K) as floats. */
TILE_INLINE void convert(enum sb_dtype type, float *w, const unsigned char *panel, size_t k)
{
    v16 d[2] = { v_zero(), v_zero() }, wi[2];
    size_t block = block_length(type, k), block_bytes = sb_panel_bytes(type, block);
    for (size_t k0 = 0; k0 < k; k0 += block, panel += block_bytes) {
        if (type == SB_Q8_0 || type == SB_Q4_0) {
            d[0] = v_load_f16(panel);
            d[1] = v_load_f16(panel + 32);
        }
        for (size_t i = 0; i < block; i++, w += 32) {
            load_weights(wi, type, panel, i, d);
            v_store(w, wi[0]);
            v_store(w + 16, wi[1]);
        }
    }
}

/* The panel's steps k0..k0+k as floats: in place, or converted into `room`. */
static const float *weights_as_floats(enum sb_dtype type, const unsigned char *panel, size_t k0,
                                      size_t k, float *room)
{
    const unsigned char *from = panel + sb_panel_bytes(type, k0);
    switch (type) {
    case SB_F32:
        return (const float *)from;
    case SB_F16:
        convert(SB_F16, room, from, k);
        break;
    case SB_BF16:
        convert(SB_BF16, room, from, k);
        break;
    case SB_Q8_0:
        convert(SB_Q8_0, room, from, k);
        break;
    default:
        convert(SB_Q4_0, room, from, k);
        break;
    }
    return room;
}

/* A block of rows against a few panels: the block of x stays in the second-level cache, one block
 * of weights in the first. */
static void product_block(const struct sb_product *job, size_t row, size_t rows, size_t panel,
                          size_t panels)
{
    _Alignas(64) float acc[BLOCK_ROWS * BLOCK_PANELS * SB_PANEL], room[BLOCK_K * SB_PANEL];
    const size_t ldacc = BLOCK_PANELS * SB_PANEL;
    for (size_t k0 = 0; k0 < job->k; k0 += BLOCK_K) {
        size_t k = job->k - k0 < BLOCK_K ? job->k - k0 : BLOCK_K;
        for (size_t p = 0; p < panels; p++) {
            const float *w =
                weights_as_floats(job->type, job->w + (panel + p) * job->panel_stride, k0, k, room);
            chain_rows(acc + p * SB_PANEL, ldacc, w, job->x + row * job->ldx + k0, job->ldx, rows,
                       k, k0 > 0);
        }
    }
    finish(job, row, rows, panel * SB_PANEL, columns_from(job, panel, panels), acc, ldacc);
}

/* A few tiles of rows: the first reads each panel from memory while it computes, the others find it in
 * the second-level cache. */
static void product_some(const struct sb_product *job, size_t first, size_t last)
{
    _Alignas(64) float acc[SB_TILE_ROWS * SB_PANEL];
    size_t n_tiles = (job->m + SB_TILE_ROWS - 1) / SB_TILE_ROWS;
    for (size_t p = first; p < last; p++)
        for (size_t t = 0; t < n_tiles; t++) {
            size_t row = job->m * t / n_tiles, rows = job->m * (t + 1) / n_tiles - row;
            tiles[rows - 1][job->type](job->w + p * job->panel_stride, job->panel_stride,
                                       job->x + row * job->ldx, job->ldx, job->k, acc, SB_PANEL,
                                       false);
            finish(job, row, rows, p * SB_PANEL, columns_from(job, p, 1), acc, SB_PANEL);
        }
}

static void product(const struct sb_product *job, size_t first, size_t last)
{
    if (job->m <= SB_TILE_ROWS || job->k == 0) {
        struct sb_product part = *job;
        for (size_t row = 0; row < job->m; row += part.m) {
            part.m = job->m - row < SB_TILE_ROWS ? job->m - row : SB_TILE_ROWS;
            part.x = job->x + row * job->ldx;
            part.y = job->y + row * job->ldy;
            product_few(&part, first, last);
        }
        return;
    }
    /* Low tiles would convert the same weights many times. */
    bool few_conversions = SB_TILE_ROWS == 12 || job->type == SB_F32 || job->m <= 2 * SB_TILE_ROWS;
    if (job->m <= SOME_ROWS && few_conversions) {
        product_some(job, first, last);
        return;
    }
    for (size_t row = 0; row < job->m; row += BLOCK_ROWS) {
        size_t rows = job->m - row < BLOCK_ROWS ? job->m - row : BLOCK_ROWS;
        size_t panels = rows <= SOME_ROWS ? 1 : BLOCK_PANELS;
        for (size_t p = first; p < last; p += panels)
            product_block(job, row, rows, p, last - p < panels ? last - p : panels);
    }
}
