/* kernels/soon.c: what products ask for before an attention. Nobody can see what a cache was asked for, so these look at
 * where a product's panels are told to ask; that no bit depends on it is tests/property/test_kernel_invariance.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "harness/core/alloc.h"
#include "kernels/kv.h"
#include "kernels/team.h"

/* Of a layer like 110M's, in Q4_0; gate and up are a pair. */
enum { HEADS = 12, HEAD_DIM = 64, WIDTH = HEADS * HEAD_DIM, SLOTS = 2048 + 100, ROWS = 8 };
static const size_t panels_of[] = { WIDTH / 32, 2048 / 32, WIDTH / 32, 3 * WIDTH / 32 };
static const size_t inputs_of[] = { WIDTH, WIDTH, 2048, WIDTH };
enum { PRODUCTS = 4, GATED = 1, MOST_PANELS = 128 };

static struct sb_kv_layer cache(void)
{
    struct sb_kv_layer kv = { SB_F32, NULL, SLOTS, HEADS, HEAD_DIM };
    kv.memory = sb_alloc_aligned(sb_kv_bytes(SB_F32, SLOTS, HEADS, HEAD_DIM), 1);
    assert_non_null(kv.memory);
    return kv;
}

static struct sb_packed quantised(size_t product)
{
    return (struct sb_packed){ .type = SB_Q4_0,
                               .n = panels_of[product] * SB_PANEL,
                               .k = inputs_of[product],
                               .gated = product == GATED };
}

static size_t spare_of_all(const struct sb_team *team, size_t m)
{
    size_t bytes = 0;
    for (size_t i = 0; i < PRODUCTS; i++) {
        const struct sb_packed w = quantised(i);
        bytes += sb_matmul_spare(team, &w, m);
    }
    return bytes;
}

static void nothing_is_asked_for_in_vain(void **state)
{
    (void)state;
    const struct sb_team two = { 2 };
    const struct sb_packed w = quantised(0);
    struct sb_packed floats = w, twice = w, pair = w;
    struct sb_kv_layer kv = cache();
    floats.type = SB_F32;
    twice.n *= 2;
    pair.gated = true;
    /* Few rows wait for their weights, and so do all of wider types that tiles ask for. */
    assert_int_equal(sb_matmul_spare(&two, &w, SB_BESIDE_ROWS - 1), 0);
    assert_int_equal(sb_matmul_spare(&two, &floats, 64), 0);
    assert_true(sb_matmul_spare(&two, &w, ROWS) > 0);
    assert_true(sb_matmul_spare(&two, &w, ROWS + 1) > sb_matmul_spare(&two, &w, ROWS));
    assert_int_equal(sb_matmul_spare(&two, &pair, ROWS), sb_matmul_spare(&two, &twice, ROWS));
    /* More cores share the memory. */
    assert_true(sb_matmul_spare(NULL, &w, ROWS) > sb_matmul_spare(&two, &w, ROWS));
    assert_int_equal(sb_matmul_spare(&(struct sb_team){ 64 }, &w, ROWS), 0);

    const size_t some = 1 << 20;
    assert_ptr_equal(sb_attention_soon(&two, &kv, 2048, HEADS, ROWS, some).kv, &kv);
    assert_null(sb_attention_soon(&two, &kv, 2048, HEADS, ROWS, 0).kv);
    assert_null(sb_attention_soon(&two, &kv, SB_CHUNK - 1, HEADS, ROWS, some).kv);
    assert_null(sb_attention_soon(&two, &kv, 2048, HEADS, 64, some).kv); /* bound by operations */
    sb_free(kv.memory);
}

/* What each panel of each product was told to ask for. */
static struct {
    const unsigned char *at;
    size_t bytes;
} asked[PRODUCTS][MOST_PANELS];
static size_t running; /* product */

static void record(const struct sb_product *job, size_t first, size_t last)
{
    const struct sb_beside *b = &job->asks.beside;
    for (size_t p = first; p < last && b->each > 0; p++) {
        asked[running][p].at = sb_beside_at(b, p - first);
        asked[running][p].bytes = b->each;
    }
}

static void run_products(struct sb_soon *soon, const struct sb_team *team)
{
    static const struct sb_panels none;
    memset(asked, 0, sizeof asked);
    for (running = 0; running < PRODUCTS; running++) {
        const struct sb_packed w = quantised(running);
        const struct sb_product job = {
            .type = w.type, .n = w.n, .k = w.k, .m = ROWS, .gated = w.gated
        };
        sb_product_run(team, &job, &none, soon, sb_matmul_spare(team, &w, ROWS), record);
    }
}

/* The byte of a head's whole chunks that lies at `at`, counted from the first head on; asserts that there is one. */
static size_t byte_of(const struct sb_kv_layer *kv, const struct sb_soon *soon,
                      const unsigned char *at)
{
    const size_t from = (size_t)(at - (const unsigned char *)kv->memory);
    const size_t head = from / sb_kv_head_stride(kv), in = from % sb_kv_head_stride(kv);
    assert_true(head < HEADS);
    assert_true(in < soon->run);
    return head * soon->run + in;
}

/* A member's panels of all products go through its heads: each begins where the one before it ends, but for what
 * rounding leaves of a piece. */
static void check_stream(const struct sb_kv_layer *kv, const struct sb_soon *soon, size_t member,
                         size_t members)
{
    const size_t begin = HEADS * member / members * soon->run;
    size_t end = begin, piece = 0;
    for (size_t i = 0; i < PRODUCTS; i++)
        for (size_t p = panels_of[i] * member / members; p < panels_of[i] * (member + 1) / members;
             p++) {
            if (asked[i][p].bytes == 0)
                continue;
            const size_t now = byte_of(kv, soon, asked[i][p].at);
            assert_true(now <= end + piece + PRODUCTS * MOST_PANELS && end <= now + piece);
            piece = asked[i][p].bytes;
            end = now + piece;
        }
    assert_true(end > begin && end <= begin + soon->asked / members + piece);
    assert_true(end + 2 * piece + PRODUCTS * MOST_PANELS >= begin + soon->asked / members);
}

static void members_ask_for_their_heads_in_order(void **state)
{
    (void)state;
    struct sb_kv_layer kv = cache();
    for (size_t n = 1; n <= 3; n++) {
        const struct sb_team *team = sb_team_begin(n);
        const size_t spare = spare_of_all(team, ROWS), members = team ? team->count : 1;
        struct sb_soon soon = sb_attention_soon(team, &kv, 2048 + 7, HEADS, ROWS, spare);
        assert_ptr_equal(soon.kv, &kv);
        assert_int_equal(members, n);
        assert_int_equal(soon.run, 2048 * 2 * HEAD_DIM * sizeof(float));
        assert_int_equal(soon.bytes, HEADS * soon.run);
        run_products(&soon, team);
        assert_int_equal(soon.asked, spare < soon.bytes ? spare : soon.bytes);
        for (size_t o = 0; o < members; o++)
            check_stream(&kv, &soon, o, members);
        sb_team_end(team);
    }
    sb_free(kv.memory);
}

static void the_last_products_ask_where_they_have_time_enough(void **state)
{
    (void)state;
    struct sb_kv_layer kv = cache();
    const struct sb_team two = { 2 };
    const struct sb_packed last = quantised(PRODUCTS - 1);
    const size_t spare = spare_of_all(&two, ROWS), slots = SB_CHUNK;
    struct sb_soon soon = sb_attention_soon(&two, &kv, slots, HEADS, ROWS, spare);
    assert_true(soon.bytes < sb_matmul_spare(&two, &last, ROWS));
    for (size_t i = 0; i < PRODUCTS; i++) {
        const struct sb_packed w = quantised(i);
        const size_t bytes = sb_soon_take(&soon, sb_matmul_spare(&two, &w, ROWS));
        assert_int_equal(bytes, i + 1 < PRODUCTS ? 0 : soon.bytes);
        soon.asked += bytes;
    }
    assert_int_equal(sb_soon_take(&soon, spare), 0); /* once */
    sb_free(kv.memory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_is_asked_for_in_vain),
        cmocka_unit_test(members_ask_for_their_heads_in_order),
        cmocka_unit_test(the_last_products_ask_where_they_have_time_enough),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
