/* Datastores and the drafter that retrieves from them: the card's worked examples (methods C 1.6), search
 * against a scan, and files that are refused. */
#include "tests/unit/drafter_rig.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "drafters/datastore.h"

static char path[64], idx_path[64];

static int name_files(void **state)
{
    (void)state;
    snprintf(path, sizeof path, "/tmp/specbench-%ld.sbidx", (long)getpid());
    snprintf(idx_path, sizeof idx_path, "/tmp/specbench-%ld.idx", (long)getpid());
    return 0;
}

static int remove_files(void **state)
{
    (void)state;
    remove(path);
    remove(idx_path);
    return 0;
}

static void write_store(const sb_token *text, size_t n, size_t n_documents, size_t n_vocab)
{
    assert_int_equal(sb_datastore_write(path, text, n, n_documents, n_vocab, 0, NULL), SB_OK);
}

static void put_bytes(const char *name, const uint8_t *bytes, size_t n)
{
    FILE *f = fopen(name, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

static size_t get_bytes(const char *name, uint8_t *bytes, size_t cap)
{
    FILE *f = fopen(name, "rb");
    assert_non_null(f);
    size_t n = fread(bytes, 1, cap, f);
    fclose(f);
    return n;
}

static size_t put_word(uint8_t *p, uint32_t value, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i++)
        p[i] = (uint8_t)(value >> (8 * i));
    return bytes;
}

/* One chunk of REST's format, with ids of 2 or 4 bytes; the suffixes are sorted by hand, slowly. */
static size_t put_chunk(uint8_t *p, const sb_token *text, size_t n, unsigned width)
{
    size_t at = put_word(p, (uint32_t)(n * width), 4), order[64];
    for (size_t i = 0; i < n; i++) {
        at += put_word(p + at, (uint32_t)text[i], width);
        size_t j = i;
        for (; j > 0; j--) {
            size_t a = order[j - 1], b = i, m = 0;
            while (a + m < n && b + m < n && text[a + m] == text[b + m])
                m++;
            if (b + m < n && (a + m >= n || text[a + m] < text[b + m]))
                break;
            order[j] = order[j - 1];
        }
        order[j] = i;
    }
    at += put_word(p + at, (uint32_t)(n * 4), 4);
    for (size_t i = 0; i < n; i++)
        at += put_word(p + at, (uint32_t)order[i], 4);
    return at;
}

static const sb_token card[] = { 1, 2, 3, 4, 9, 1, 2, 3, 5, 9, 1, 2, 3, 4, 8, 7, 2, 3, 4 };
enum { N_CARD = sizeof card / sizeof *card };

static void the_cards_suffix_array_is_built(void **state)
{
    (void)state;
    static const size_t want[N_CARD] = { 10, 0,  5,  16, 11, 1,  6,  17, 12, 2,
                                         7,  18, 13, 3,  8,  15, 14, 9,  4 };
    static const size_t vocabularies[] = { 100, 300, 70000, 1 << 23 }; /* 1 to 4 bytes sorted */
    for (size_t v = 0; v < 4; v++) {
        struct sb_datastore store;
        write_store(card, N_CARD, 0, vocabularies[v]);
        assert_int_equal(sb_datastore_open(&store, path, NULL, 0, NULL), SB_OK);
        assert_int_equal(store.width, vocabularies[v] > 65535 ? 4 : 2);
        assert_int_equal(store.n_tokens, N_CARD);
        for (size_t i = 0; i < N_CARD; i++)
            assert_int_equal(sb_datastore_suffix(&store.chunk[0], i), want[i]);
        sb_datastore_close(&store);
    }
}

/* Draft for x behind the store at `name`. */
static void draft(struct rig *rig, const char *name, const char *params, const sb_token *x,
                  size_t n)
{
    struct sb_error err;
    char *text = sb_strf("rest:store=%s%s", name, params);
    if (rig_open(rig, text, &err) != SB_OK)
        fail_msg("%s", err.message);
    rig_propose(rig, x, n);
    sb_free(text);
}

static void the_cards_tree_is_drafted(void **state)
{
    (void)state;
    const sb_token x[] = { 6, 1, 2, 3 };
    const sb_token token[] = { 4, 5, 8, 9, 9 };
    const int32_t parent[] = { 0, 0, 1, 1, 2 };
    struct rig rig;
    write_store(card, N_CARD, 0, RIG_VOCAB);
    draft(&rig, path, ",span_max=4,long=3,choices=5", x, 4);
    rig_expect(&rig, token, parent, 5);
    assert_int_equal(rig.tree.node[1].source, 3); /* span 4 misses, span 3 hits */
    rig_close(&rig);
    /* By the original's count 4 and 5 cost 1 each, the pairs 2: the last pairs go until 5 are left. */
    draft(&rig, path, ",span_max=4,long=3,choices=5,cut=ref", x, 4);
    rig_expect(&rig, token, parent, 3);
    rig_close(&rig);
    /* k=1: the first hit in suffix-array order alone; k=2: the second, too, of three. */
    draft(&rig, path, ",k=1,long=3", x, 4);
    rig_expect(&rig, (const sb_token[]){ 4, 8, 7 }, NULL, 3);
    rig_close(&rig);
    draft(&rig, path, ",k=2,long=1", x, 4);
    rig_expect(&rig, (const sb_token[]){ 4 }, NULL, 1);
    rig_close(&rig);
}

static void the_same_tree_comes_from_rests_files(void **state)
{
    (void)state;
    const sb_token x[] = { 6, 1, 2, 3 }, token[] = { 4, 5, 8, 9, 9 };
    const int32_t parent[] = { 0, 0, 1, 1, 2 };
    uint8_t bytes[1024];
    for (unsigned width = 2; width <= 4; width += 2) {
        struct rig rig;
        put_bytes(idx_path, bytes, put_chunk(bytes, card, N_CARD, width));
        draft(&rig, idx_path, ",span_max=4,long=3,choices=5", x, 4);
        rig_expect(&rig, token, parent, 5);
        rig_close(&rig);
        /* Cut between 9 and 1, where no match crosses: the chunks are counted together. */
        size_t at = put_chunk(bytes, card, 10, width);
        at += put_chunk(bytes + at, card + 10, N_CARD - 10, width);
        put_bytes(idx_path, bytes, at);
        draft(&rig, idx_path, ",span_max=4,long=2,choices=5", x, 4);
        rig_expect(&rig, token, parent, 5);
        rig_close(&rig);
        /* A pattern split over two chunks is not found. */
        at = put_chunk(bytes, card, 11, width);
        at += put_chunk(bytes + at, card + 11, 2, width);
        put_bytes(idx_path, bytes, at);
        draft(&rig, idx_path, ",span_min=2", (const sb_token[]){ 9, 1, 2 }, 3);
        rig_expect(&rig, (const sb_token[]){ 3, 5, 9, 1 }, NULL, 4);
        rig_close(&rig);
    }
}

static void nothing_is_copied_across_documents(void **state)
{
    (void)state;
    enum { END = RIG_VOCAB };
    const sb_token text[] = { 1, 2, END, 1, 2, 3, END, 3, 7, END };
    struct rig rig;
    write_store(text, 10, 3, RIG_VOCAB);
    draft(&rig, path, "", (const sb_token[]){ 1, 2 }, 2);
    rig_expect(&rig, (const sb_token[]){ 3 }, NULL, 1);
    rig_close(&rig);
    draft(&rig, path, "", (const sb_token[]){ 2, 3 }, 2); /* ends its document */
    rig_expect(&rig, NULL, NULL, 0);
    rig_close(&rig);
}

static void legal_drafts_come_of_little(void **state)
{
    (void)state;
    struct rig rig;
    write_store(NULL, 0, 0, RIG_VOCAB);
    draft(&rig, path, "", (const sb_token[]){ 1, 2, 3 }, 3); /* an empty store */
    rig_expect(&rig, NULL, NULL, 0);
    rig_close(&rig);
    write_store(card, N_CARD, 0, RIG_VOCAB);
    draft(&rig, path, "", (const sb_token[]){ 1 }, 1); /* shorter than every span */
    rig_expect(&rig, NULL, NULL, 0);
    rig_close(&rig);
    draft(&rig, path, "", (const sb_token[]){ 3, 4 }, 2); /* one of its hits ends the text */
    assert_int_equal(rig.tree.node[1].token, 8);
    rig_close(&rig);
}

static bool occurs_at(const sb_token *text, size_t n, size_t at, const sb_token *x, size_t m)
{
    for (size_t j = 0; j < m; j++)
        if (at + j >= n || text[at + j] != x[j])
            return false;
    return true;
}

static void search_equals_a_scan(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 30; seed++) {
        struct sb_rng rng = sb_rng_make(seed, SB_STREAM_DATA);
        sb_token text[60], x[5];
        size_t n = 1 + sb_rng_below(&rng, 60), split = sb_rng_below(&rng, (uint32_t)n);
        uint8_t bytes[1024];
        struct sb_datastore store;
        for (size_t i = 0; i < n; i++)
            text[i] = (sb_token)sb_rng_below(&rng, 4);
        size_t at = put_chunk(bytes, text, split, 2);
        at += put_chunk(bytes + at, text + split, n - split, 2);
        assert_int_equal(sb_datastore_parse(&store, "x.idx", bytes, at, NULL, 4, NULL), SB_OK);
        for (int tries = 0; tries < 60; tries++) {
            size_t m = 1 + sb_rng_below(&rng, 5);
            for (size_t j = 0; j < m; j++)
                x[j] = (sb_token)sb_rng_below(&rng, 4);
            for (size_t c = 0; c < store.n_chunks; c++) {
                const sb_token *part = c ? text + split : text;
                size_t n_part = c ? n - split : split, count = 0;
                for (size_t i = 0; i < n_part; i++)
                    count += occurs_at(part, n_part, i, x, m);
                struct sb_datastore_range r = sb_datastore_find(&store, c, x, m);
                assert_int_equal(r.to - r.from, count);
                for (size_t i = r.from; i < r.to; i++)
                    assert_true(
                        occurs_at(part, n_part, sb_datastore_suffix(&store.chunk[c], i), x, m));
            }
        }
        sb_datastore_close(&store);
    }
}

/* Counts by the definition: every hit of the longest end that occurs, every prefix of what follows. */
static void trees_are_the_prefixes_counted_most(void **state)
{
    (void)state;
    enum { N = 200, LONG = 3, CHOICES = 6 };
    for (uint64_t seed = 0; seed < 30; seed++) {
        struct sb_rng rng = sb_rng_make(seed, SB_STREAM_DATA);
        sb_token text[N];
        struct rig rig;
        for (size_t i = 0; i < N; i++)
            text[i] = (sb_token)sb_rng_below(&rng, 5);
        write_store(text, N, 0, RIG_VOCAB);
        sb_token x[4] = { text[7], text[8], text[9], text[10] };
        draft(&rig, path, ",span_max=3,long=3,choices=6", x, 4);
        int32_t last = INT32_MAX;
        for (int32_t i = 1; i < rig.tree.n; i++) {
            sb_token want[3 + LONG];
            int32_t depth = rig.tree.node[i].depth, count = 0;
            memcpy(want, x + 1, 3 * sizeof *x);
            for (int32_t at = i; at > 0; at = rig.tree.node[at].parent)
                want[2 + rig.tree.node[at].depth] = rig.tree.node[at].token;
            for (size_t p = 0; p < N; p++)
                count += occurs_at(text, N, p, want, 3 + (size_t)depth);
            assert_true(count >= 1 && count <= last);
            last = count;
        }
        for (sb_token t = 0; t < 5 && rig.tree.n == CHOICES + 1; t++) { /* none better left out */
            sb_token want[4] = { x[1], x[2], x[3], t };
            int32_t count = 0;
            for (size_t p = 0; p < N; p++)
                count += occurs_at(text, N, p, want, 4);
            assert_true(count <= last || sb_tree_child(&rig.tree, 0, t) > 0);
        }
        assert_true(rig.tree.n > 1);
        rig_close(&rig);
    }
}

static void expect_refused(const char *name, const uint8_t *bytes, size_t n, size_t n_vocab,
                           const char *why)
{
    struct sb_datastore store;
    struct sb_error err = { .message = "" };
    assert_int_equal(sb_datastore_parse(&store, name, bytes, n, NULL, n_vocab, &err), SB_EFORMAT);
    if (!strstr(err.message, why) || !strstr(err.message, name))
        fail_msg("no '%s' in: %s", why, err.message);
}

static void damaged_stores_are_refused(void **state)
{
    (void)state;
    uint8_t bytes[1024];
    struct sb_datastore store;
    write_store(card, N_CARD, 0, 10);
    size_t n = get_bytes(path, bytes, sizeof bytes);
    assert_int_equal(sb_datastore_parse(&store, path, bytes, n, NULL, 10, NULL), SB_OK);
    sb_datastore_close(&store);
    for (size_t cut = 1; cut < n; cut++) {
        bool header = cut < SB_DATASTORE_HEADER;
        expect_refused(path, bytes, cut, 10, header ? "inside its header" : "cut short");
    }
    bytes[n] = 0;
    expect_refused(path, bytes, n + 1, 10, "too long");
    expect_refused(path, bytes, n, 9, "vocabulary of 10 tokens, the target's has 9");
    for (size_t i = 0; i < n; i++) { /* no byte may change unseen */
        bytes[i] ^= 0x40;
        struct sb_error err;
        assert_int_equal(sb_datastore_parse(&store, path, bytes, n, NULL, 10, &err), SB_EFORMAT);
        if (i >= SB_DATASTORE_HASH && i < SB_DATASTORE_VOCAB)
            assert_non_null(strstr(err.message, "checksum"));
        if (i < 8)
            assert_non_null(strstr(err.message, "no datastore"));
        bytes[i] ^= 0x40;
    }
    write_store(card, N_CARD, 0, 9); /* 9 is the separator there, 8 would be in the vocabulary */
    n = get_bytes(path, bytes, sizeof bytes);
    assert_int_equal(sb_datastore_parse(&store, path, bytes, n, NULL, 0, NULL), SB_OK);
    sb_datastore_close(&store);
    write_store(card, N_CARD, 0, 8);
    n = get_bytes(path, bytes, sizeof bytes);
    expect_refused(path, bytes, n, 0, "holds token 9, the vocabulary has 8");
}

static void damaged_files_of_rest_are_refused(void **state)
{
    (void)state;
    uint8_t bytes[1024];
    size_t n = put_chunk(bytes, card, N_CARD, 2);
    for (size_t cut = 1; cut < n; cut++)
        expect_refused("x.idx", bytes, cut, 10, "ends inside a chunk");
    expect_refused("x.idx", bytes, n, 9, "holds token 9, the vocabulary has 9");
    put_word(bytes + n - 4, N_CARD, 4);
    expect_refused("x.idx", bytes, n, 10, "suffix 18 is at 19");
    n = put_chunk(bytes, card, N_CARD, 2);
    n += put_chunk(bytes + n, card, N_CARD, 4);
    expect_refused("x.idx", bytes, n, 10, "expected 2 or 4 to 4");
    expect_refused("x.bin", bytes, n, 10, "is no datastore");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_cards_suffix_array_is_built),
        cmocka_unit_test(the_cards_tree_is_drafted),
        cmocka_unit_test(the_same_tree_comes_from_rests_files),
        cmocka_unit_test(nothing_is_copied_across_documents),
        cmocka_unit_test(legal_drafts_come_of_little),
        cmocka_unit_test(search_equals_a_scan),
        cmocka_unit_test(trees_are_the_prefixes_counted_most),
        cmocka_unit_test(damaged_stores_are_refused),
        cmocka_unit_test(damaged_files_of_rest_are_refused),
    };
    return cmocka_run_group_tests(tests, name_files, remove_files);
}
