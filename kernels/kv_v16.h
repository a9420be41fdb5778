/* Template: rows of keys and values into the forms of a KV cache (kernels.h). Include after a v16_<isa>.h. */

/* step[i], lane by lane, as step i of the keys of `slots` slots; an even step comes with the one after it. */
static inline void store_steps(enum sb_dtype type, unsigned char *to, const v16 *step, size_t steps,
                               size_t slots)
{
    const v16 none = v_zero();
    for (size_t i = 0; i < steps; i++)
        if (type == SB_F32)
            v_store_n((float *)to + i * SB_PANEL, step[i], slots);
        else if (type == SB_F16)
            v_store_f16_n(to + i * 64, step[i], slots);
        else if (i % 2 == 0)
            v_store_bf16_pairs_n(to + i * 64, step[i], i + 1 < steps ? step[i + 1] : none, slots);
}

static void store_keys(enum sb_dtype type, unsigned char *to, const float *x, size_t ldx, size_t m,
                       size_t d)
{
    const size_t slot = type == SB_F16 ? 2 : 4, step = type == SB_F32 ? 128 : 64; /* bytes */
    for (size_t r = 0; r < m; r += 16)
        for (size_t i = 0; i < d; i += 16) {
            const size_t rows = m - r < 16 ? m - r : 16, steps = d - i < 16 ? d - i : 16;
            v16 a[16];
            for (size_t j = 0; j < 16; j++)
                a[j] = j < rows ? v_load_left(x + (r + j) * ldx + i, steps) : v_zero();
            v_transpose(a);
            store_steps(type, to + i * step + r * slot, a, steps, rows);
        }
}

static void store_values(enum sb_dtype type, unsigned char *to, const float *x, size_t ldx,
                         size_t m, size_t n)
{
    for (size_t r = 0; r < m; r++, x += ldx, to += type == SB_F32 ? 128 : 64)
        for (size_t i = 0; i < n; i += 16) {
            const v16 a = v_load_left(x + i, n - i);
            if (type == SB_F32)
                v_store_left((float *)to + i, a, n - i);
            else if (type == SB_F16)
                v_store_f16_n(to + 2 * i, a, n - i);
            else
                v_store_bf16_n(to + 2 * i, a, n - i);
        }
}
