/* Template: tiles, which hold some rows of sums over one packed panel in registers. Include after a v16_<isa>.h.
 *
 * Every element is one chain over k, so the shape of a tile is a free choice, and so is going on later: the chain
 * continues from memory. */

#define TILE_INLINE static inline __attribute__((always_inline))

enum {
    ROWS_BESIDE_WORDS = 12
};                           /* above, words of two steps find no registers and are read twice */
enum { BLOCKS_ABREAST = 4 }; /* at most: quantised blocks that few rows go over at once */

TILE_INLINE size_t packed_bytes(int type, size_t k)
{
    return type == SB_BF16_DOT ? k * 128 : sb_panel_bytes((enum sb_dtype)type, k);
}

/* Rows of the highest tile. Unpacking quantised weights takes registers. */
TILE_INLINE size_t tile_rows(int type)
{
    return sb_is_quantised(type) ? SB_BLOCK_ROWS : SB_TILE_ROWS;
}

/* Quantised rows that do not fit one tile are fastest in middling ones: what joins a block's sums weighs less. */
TILE_INLINE size_t tiles_for(int type, size_t m)
{
    const bool many = sb_is_quantised(type) && m > tile_rows(type);
    const size_t most = many ? SB_BLOCK_ROWS_OF_MANY : tile_rows(type);
    return (m + most - 1) / most;
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
        return v_field(g->w[c], 8 * step, 8);
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

/* What a tile asks of the memory while it computes: `step` bytes per group of steps, from `from` on. */
struct ahead {
    const unsigned char *from;
    size_t step;
};

TILE_INLINE void ask(int type, struct ahead *ahead)
{
    __builtin_prefetch(ahead->from);
    if (group_bytes(type) > 64)
        __builtin_prefetch(ahead->from + 64);
    ahead->from += ahead->step;
}

/* What groups of quantised weights ask for beside that, `step` bytes each, for the caches behind the first: from `next`
 * on, up to `due` by now. */
struct beside {
    const unsigned char *next, *due;
    size_t step;
};

TILE_INLINE void ask_beside(struct beside *beside)
{
    beside->due += beside->step;
    for (; beside->next < beside->due; beside->next += 64)
        __builtin_prefetch(beside->next, 0, 2);
}

/* Odd multiples of the distance between rows of x, in bytes: an address of a base plus 1, 2, 4 or 8 times
 * one of these costs an x86 core nothing, where a pointer per row would not fit its registers. */
struct row_steps {
    size_t by1, by3, by5, by7, by9, by11, by13;
};

TILE_INLINE struct row_steps row_steps(size_t ldx)
{
    const size_t s = ldx * sizeof(float);
    return (struct row_steps){ s, 3 * s, 5 * s, 7 * s, 9 * s, 11 * s, 13 * s };
}

/* x[row * ldx]; row is a constant at every call. */
TILE_INLINE float row_value(const float *x, int row, const struct row_steps *by)
{
    const size_t offset[14] = { 0,           by->by1,     2 * by->by1, by->by3,     4 * by->by1,
                                by->by5,     2 * by->by3, by->by7,     8 * by->by1, by->by9,
                                2 * by->by5, by->by11,    4 * by->by3, by->by13 };
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

/* The same place, from which the compiler does not know what it has read before. */
TILE_INLINE const unsigned char *again(const unsigned char *w)
{
    __asm__("" : "+r"(w));
    return w;
}

/* out[rows, 32] = sums over k in the order of kernels.h, from +0 or continued from out. rows and type are
 * constants at every call. */
TILE_INLINE void tile(int type, int rows, const unsigned char *w, const float *x, size_t ldx,
                      size_t k, float *out, size_t ldo, bool resume, struct ahead ahead)
{
    v16 acc[SB_TILE_ROWS][2];
    const int steps = (int)group_steps(type);
    struct row_steps by = row_steps(ldx);
#pragma GCC unroll 16
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 2
        for (int c = 0; c < 2; c++)
            acc[r][c] = resume ? v_load(out + (size_t)r * ldo + (size_t)c * 16) : v_zero();
    for (size_t i = 0; i < k; i += (size_t)steps, w += group_bytes(type)) {
        struct group g = load_group(type, w);
        ask(type, &ahead);
#pragma GCC unroll 2
        for (int s = 0; s < steps; s++, x++) {
            if (rows > ROWS_BESIDE_WORDS && s > 0)
                g = load_group(type, again(w));
            const v16 w0 = weights(type, &g, s, 0), w1 = weights(type, &g, s, 1);
            if (type == SB_BF16 && s == 1 && i + 1 == k) /* the padded step of an odd k */
                break;
#pragma GCC unroll 16
            for (int r = 0; r < rows; r++) { /* one row of x at a time: registers are scarce */
                if (r == 0)
                    hide_rows(&x, &by);
                v16 xi = v_set1(row_value(x, r, &by));
                acc[r][0] = multiply_add(type, xi, w0, acc[r][0]);
                acc[r][1] = multiply_add(type, xi, w1, acc[r][1]);
            }
        }
    }
    hide_out(&out, &ldo);
#pragma GCC unroll 16
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 2
        for (int c = 0; c < 2; c++)
            v_store(out + (size_t)r * ldo + (size_t)c * 16, acc[r][c]);
}

/* The same over `abreast` quantised blocks: each is a chain of its own, which its scale then joins to the
 * sums, so that the chains of neighbours hide each other's latency. abreast is a constant at every call, and so is
 * whether beside is NULL. */
TILE_INLINE void tile_of_blocks(int type, int rows, int abreast, const unsigned char *w,
                                const float *x, struct row_steps by, float *out, size_t ldo,
                                bool resume, struct ahead *ahead, struct beside *beside)
{
    v16 acc[SB_BLOCK_ROWS][2 * BLOCKS_ABREAST];
    const size_t scales = 2 * SB_PANEL, steps = group_steps(type);
    const size_t bytes = scales + SB_QUANT_BLOCK / steps * group_bytes(type);
    const unsigned char *groups = w + scales;
#pragma GCC unroll 16
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 8
        for (int c = 0; c < 2 * abreast; c++)
            acc[r][c] = v_zero();
    ahead->from += ahead->step * scales / group_bytes(type) * (size_t)abreast;
    for (size_t i = 0; i < SB_QUANT_BLOCK; i += steps, groups += group_bytes(type)) {
        struct group g[BLOCKS_ABREAST];
#pragma GCC unroll 4
        for (int b = 0; b < abreast; b++) {
            ask(type, ahead);
            if (beside)
                ask_beside(beside);
            g[b] = load_group(type, groups + (size_t)b * bytes);
        }
        /* Where there are registers for all words, none is read again. */
        if (rows == 1 && abreast == BLOCKS_ABREAST)
            __asm__("" ::: "memory");
#pragma GCC unroll 8
        for (int s = 0; s < (int)steps; s++, x++)
#pragma GCC unroll 4
            for (int b = 0; b < abreast; b++) {
                const v16 w0 = weights(type, &g[b], s, 0), w1 = weights(type, &g[b], s, 1);
#pragma GCC unroll 16
                for (int r = 0; r < rows; r++) {
                    if (r == 0)
                        hide_rows(&x, &by);
                    v16 xi = v_set1(row_value(x + b * SB_QUANT_BLOCK, r, &by));
                    acc[r][2 * b] = multiply_add(type, xi, w0, acc[r][2 * b]);
                    acc[r][2 * b + 1] = multiply_add(type, xi, w1, acc[r][2 * b + 1]);
                }
            }
    }
    hide_out(&out, &ldo);
#pragma GCC unroll 2
    for (int c = 0; c < 2; c++) {
        v16 d[BLOCKS_ABREAST];
#pragma GCC unroll 4
        for (int b = 0; b < abreast; b++)
            d[b] = block_scale(type, w + (size_t)b * bytes, c);
#pragma GCC unroll 16
        for (int r = 0; r < rows; r++) {
            float *to = out + (size_t)r * ldo + (size_t)c * 16;
            v16 sum = resume ? v_load(to) : v_zero();
#pragma GCC unroll 4
            for (int b = 0; b < abreast; b++)
                sum = v_fma(d[b], acc[r][2 * b + c], sum);
            v_store(to, sum);
        }
    }
}

/* A power of two: three find no registers for what they unpack. */
TILE_INLINE int blocks_abreast(int rows)
{
    const int n = SB_BLOCK_CHAINS / (2 * rows);
    return n < 2 ? 1 : n < 4 ? 2 : BLOCKS_ABREAST;
}

TILE_INLINE void quantised_tile(int type, int rows, const unsigned char *w, const float *x,
                                size_t ldx, size_t k, float *out, size_t ldo, bool resume,
                                struct ahead ahead, struct beside *beside)
{
    const int abreast = blocks_abreast(rows);
    const struct row_steps by = row_steps(ldx);
    const size_t block = sb_panel_bytes((enum sb_dtype)type, SB_QUANT_BLOCK);
    size_t left = k / SB_QUANT_BLOCK;
    for (; left >= (size_t)abreast; left -= (size_t)abreast, resume = true) {
        tile_of_blocks(type, rows, abreast, w, x, by, out, ldo, resume, &ahead, beside);
        w += (size_t)abreast * block;
        x += abreast * SB_QUANT_BLOCK;
    }
    for (; left > 0; left--, resume = true) {
        tile_of_blocks(type, rows, 1, w, x, by, out, ldo, resume, &ahead, beside);
        w += block;
        x += SB_QUANT_BLOCK;
    }
}

typedef void tile_fn(const unsigned char *w, const float *x, size_t ldx, size_t k, float *out,
                     size_t ldo, bool resume, struct ahead ahead);

#define DEFINE_TILE(type, rows)                                                                    \
    static void tile_##type##_##rows(const unsigned char *w, const float *x, size_t ldx, size_t k, \
                                     float *out, size_t ldo, bool resume, struct ahead ahead)      \
    {                                                                                              \
        if (sb_is_quantised(type))                                                                 \
            quantised_tile(type, rows, w, x, ldx, k, out, ldo, resume, ahead, NULL);               \
        else                                                                                       \
            tile(type, rows, w, x, ldx, k, out, ldo, resume, ahead);                               \
    }
#ifdef SB_DOT_PRODUCTS
enum { FIRST_TYPE = SB_BF16_DOT, TYPES = 1 };
#define DEFINE_TILES(rows)       DEFINE_TILE(SB_BF16_DOT, rows)
#define DEFINE_FLOAT_TILES(rows) DEFINE_TILE(SB_BF16_DOT, rows)
#define TILES_OF(rows)          \
    {                           \
        tile_SB_BF16_DOT_##rows \
    }
#define FLOAT_TILES_OF(rows) TILES_OF(rows)
#else
enum { FIRST_TYPE = 0, TYPES = SB_TILE_TYPES };
#define DEFINE_FLOAT_TILES(rows) \
    DEFINE_TILE(SB_F32, rows)    \
    DEFINE_TILE(SB_F16, rows)    \
    DEFINE_TILE(SB_BF16, rows)   \
    DEFINE_TILE(SB_BF16_STEPS, rows)
#define DEFINE_TILES(rows)     \
    DEFINE_FLOAT_TILES(rows)   \
    DEFINE_TILE(SB_Q8_0, rows) \
    DEFINE_TILE(SB_Q4_0, rows)
#define TILES_OF(rows)                                                                    \
    {                                                                                     \
        tile_SB_F32_##rows, tile_SB_F16_##rows, tile_SB_BF16_##rows, tile_SB_Q8_0_##rows, \
            tile_SB_Q4_0_##rows, tile_SB_BF16_STEPS_##rows                                \
    }
#define FLOAT_TILES_OF(rows)                                                     \
    {                                                                            \
        tile_SB_F32_##rows, tile_SB_F16_##rows, tile_SB_BF16_##rows, NULL, NULL, \
            tile_SB_BF16_STEPS_##rows                                            \
    }
#endif

DEFINE_TILES(1)
DEFINE_TILES(2)
DEFINE_TILES(3)
#if SB_TILE_ROWS >= 4
DEFINE_TILES(4)
#endif
#if SB_TILE_ROWS == 14
DEFINE_TILES(5)
DEFINE_TILES(6)
DEFINE_TILES(7)
DEFINE_TILES(8)
DEFINE_TILES(9)
DEFINE_TILES(10)
DEFINE_TILES(11)
DEFINE_TILES(12)
DEFINE_FLOAT_TILES(13)
DEFINE_FLOAT_TILES(14)
#endif

/* By rows - 1 and type. */
static tile_fn *const tiles[SB_TILE_ROWS][TYPES] = {
    TILES_OF(1),  TILES_OF(2),  TILES_OF(3),
#if SB_TILE_ROWS >= 4
    TILES_OF(4),
#endif
#if SB_TILE_ROWS == 14
    TILES_OF(5),  TILES_OF(6),  TILES_OF(7),  TILES_OF(8),        TILES_OF(9),
    TILES_OF(10), TILES_OF(11), TILES_OF(12), FLOAT_TILES_OF(13), FLOAT_TILES_OF(14),
#endif
};

static tile_fn *tile_of(int type, size_t rows)
{
    return tiles[rows - 1][type - FIRST_TYPE];
}

/* Tiles that ask beside: quantised ones, of as many rows as leave memory time for it. */
typedef void asking_tile_fn(const unsigned char *w, const float *x, size_t ldx, size_t k,
                            float *out, size_t ldo, bool resume, struct ahead ahead,
                            struct beside *beside);

#if SB_TILE_ROWS == 14 && !defined(SB_DOT_PRODUCTS)
#define DEFINE_ASKING(type, rows)                                                          \
    static void asking_##type##_##rows(const unsigned char *w, const float *x, size_t ldx, \
                                       size_t k, float *out, size_t ldo, bool resume,      \
                                       struct ahead ahead, struct beside *beside)          \
    {                                                                                      \
        struct beside own = *beside;                                                       \
        quantised_tile(type, rows, w, x, ldx, k, out, ldo, resume, ahead, &own);           \
        *beside = own;                                                                     \
    }
#define DEFINE_BOTH_ASKING(rows) \
    DEFINE_ASKING(SB_Q8_0, rows) \
    DEFINE_ASKING(SB_Q4_0, rows)
#define ASKING_OF(rows)                              \
    {                                                \
        asking_SB_Q8_0_##rows, asking_SB_Q4_0_##rows \
    }
DEFINE_BOTH_ASKING(4)
DEFINE_BOTH_ASKING(5)
DEFINE_BOTH_ASKING(6)
DEFINE_BOTH_ASKING(7)
DEFINE_BOTH_ASKING(8)
DEFINE_BOTH_ASKING(9)
DEFINE_BOTH_ASKING(10)
DEFINE_BOTH_ASKING(11)
DEFINE_BOTH_ASKING(12)

/* NULL: there is none. */
static asking_tile_fn *asking_tile_of(int type, size_t rows)
{
    static asking_tile_fn *const asking[][2] = {
        ASKING_OF(4), ASKING_OF(5),  ASKING_OF(6),  ASKING_OF(7),  ASKING_OF(8),
        ASKING_OF(9), ASKING_OF(10), ASKING_OF(11), ASKING_OF(12),
    };
    return sb_is_quantised(type) && rows >= SB_BESIDE_ROWS
               ? asking[rows - SB_BESIDE_ROWS][type == SB_Q4_0]
               : NULL;
}
#else /* low tiles: nothing is asked for */
static asking_tile_fn *asking_tile_of(int type, size_t rows)
{
    (void)type, (void)rows;
    return NULL;
}
#endif
