/* The KV cache: every element of a key and of a value lies where it belongs, rounded as a number alone is, and nothing
 * beside it is written; by every variant of this machine. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "harness/core/alloc.h"
#include "harness/core/rng.h"
#include "kernels/bits.h"
#include "kernels/kv.h"

enum { HEADS = 2, GAP = 3, UNTOUCHED = 0xa5 };

/* Any bits: NaN, infinity and subnormals among them, and what halves cannot hold; half of them near 1. */
static void fill(float *x, size_t n, uint64_t seed)
{
    struct sb_rng rng = sb_rng_make(seed, SB_STREAM_DATA);
    for (size_t i = 0; i < n; i++) {
        const uint32_t bits = (uint32_t)sb_rng_bits(&rng);
        x[i] = i % 2 == 0 ? sb_float_of(bits) : sb_float_of((bits & 0x87ffffff) | 0x38000000);
        if (i % 7 == 0) /* half way between two bfloat16, or two halves */
            x[i] = sb_float_of((bits & 0xffff0000) | 0x8000);
        if (i % 11 == 0)
            x[i] = sb_float_of((bits & 0x87ffe000) | 0x38001000);
        if (i % 101 == 0)
            x[i] =
                sb_float_of((bits & 0x803fffff) | 0x7f800000); /* infinite, or a signalling NaN */
    }
}

static void put(enum sb_dtype type, unsigned char *to, float x)
{
    const uint16_t half = type == SB_F16 ? sb_f32_to_f16(x) : sb_f32_to_bf16(x);
    if (type == SB_F32)
        memcpy(to, &x, sizeof x);
    else
        memcpy(to, &half, sizeof half);
}

/* What m rows of k and v from `slot` on make of an untouched cache, one number at a time. */
static void expect_rows(const struct sb_kv_layer *kv, size_t slot, size_t m, const float *k,
                        const float *v, size_t ld)
{
    const size_t d = kv->head_dim, narrow = kv->type == SB_F32 ? 4 : 2;
    for (size_t r = 0; r < m; r++)
        for (size_t h = 0; h < HEADS; h++) {
            for (size_t i = 0; i < d; i++) {
                const size_t at = r * ld + h * d + i;
                put(kv->type, sb_kv_key(kv, slot + r, h, i), k[at]);
                put(kv->type, sb_kv_values(kv, slot + r, h, i / SB_PANEL) + i % SB_PANEL * narrow,
                    v[at]);
            }
            if (kv->type == SB_BF16 && d % 2 != 0) /* the other half of a word is padding */
                put(kv->type, sb_kv_key(kv, slot + r, h, d), 0);
        }
}

static struct sb_kv_layer untouched(enum sb_dtype type, size_t slots, size_t d)
{
    const size_t bytes = sb_kv_bytes(type, slots, HEADS, d);
    struct sb_kv_layer kv = { type, sb_alloc_aligned(bytes, 1), slots, HEADS, d };
    assert_non_null(kv.memory);
    memset(kv.memory, UNTOUCHED, bytes);
    return kv;
}

static void check(enum sb_dtype type, size_t d, size_t slot, size_t m)
{
    const size_t slots = slot + m + 1, ld = HEADS * d + GAP;
    float *k = sb_alloc_array(m * ld, sizeof *k), *v = sb_alloc_array(m * ld, sizeof *v);
    struct sb_kv_layer want = untouched(type, slots, d);
    assert_true(k && v);
    fill(k, m * ld, d + m);
    fill(v, m * ld, d + m + 1);
    expect_rows(&want, slot, m, k, v, ld);
    for (enum sb_cpu cpu = 0; cpu < SB_CPU_COUNT; cpu++) {
        if (!sb_cpu_supported(cpu))
            continue;
        struct sb_kv_layer got = untouched(type, slots, d);
        assert_int_equal(sb_cpu_select(sb_cpu_name(cpu), NULL), 0);
        sb_kv_write(NULL, &got, slot, k, v, ld, m);
        assert_memory_equal(got.memory, want.memory, sb_kv_bytes(type, slots, HEADS, d));
        sb_free(got.memory);
    }
    sb_free(want.memory);
    sb_free(k);
    sb_free(v);
}

static void every_element_lies_where_it_belongs(void **state)
{
    (void)state;
    static const size_t dims[] = { 1, 2, 15, 16, 33, 48, 64, 80, 128 };
    static const struct {
        size_t slot, m;
    } rows[] = { { 0, 1 },  { 31, 1 }, { 5, 3 },   { 30, 4 },   { 0, 16 },
                 { 7, 17 }, { 3, 29 }, { 250, 9 }, { 240, 100 } };
    for (enum sb_dtype type = SB_F32; type <= SB_BF16; type++)
        for (size_t i = 0; i < sizeof dims / sizeof *dims; i++)
            for (size_t j = 0; j < sizeof rows / sizeof *rows; j++)
                check(type, dims[i], rows[j].slot, rows[j].m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_element_lies_where_it_belongs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
