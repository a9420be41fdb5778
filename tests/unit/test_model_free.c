/* Drafters that need no model: the worked examples of the method cards, and slow counting by definition
 * as the judge of the n-gram tables. */
#include "tests/unit/drafter_rig.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "drafters/ngrams.h"
#include "drafters/seen.h"
#include "harness/core/paths.h"
#include "harness/core/rng.h"

enum { V = RIG_VOCAB };

/* The draft after x[0..n), the first n_prompt of which are prompt; sources too, unless NULL. */
static void expect_after(const char *text, size_t n_prompt, const sb_token *x, size_t n,
                         const sb_token *want, size_t n_want, const int32_t *source)
{
    struct rig rig;
    struct sb_error err;
    if (rig_open(&rig, text, &err) != SB_OK)
        fail_msg("%s: %s", text, err.message);
    rig.n_prompt = n_prompt;
    rig_begin(&rig, x, n);
    rig_propose(&rig, x, n);
    rig_expect(&rig, want, NULL, (int32_t)n_want);
    for (size_t i = 0; source && i < n_want; i++)
        assert_int_equal(rig.tree.node[i + 1].source, source[i]);
    rig_close(&rig);
}

static void expect(const char *text, const sb_token *x, size_t n, const sb_token *want,
                   size_t n_want)
{
    expect_after(text, 1, x, n, want, n_want, NULL);
}

/* ---- counted n-grams ---- */

static int32_t scan_count(const sb_token *x, size_t n, const sb_token *gram, size_t order,
                          sb_token token)
{
    int32_t count = 0;
    for (size_t i = order; i < n; i++)
        count += x[i] == token && memcmp(x + i - order, gram, order * sizeof *x) == 0;
    return count;
}

/* The best successor by definition; -1: none. */
static sb_token scan_best(const sb_token *x, size_t n, const sb_token *gram, size_t order,
                          enum sb_ngram_tie tie, int32_t *count)
{
    sb_token best = -1;
    size_t seen = 0; /* where the best was first seen */
    *count = 0;
    for (sb_token t = 0; t < 5; t++) {
        int32_t c = scan_count(x, n, gram, order, t);
        size_t first = order;
        while (first < n && (x[first] != t || memcmp(x + first - order, gram, order * sizeof *x)))
            first++;
        if (c > *count || (c > 0 && c == *count && tie == SB_NGRAM_LATEST && first > seen)) {
            best = t;
            *count = c;
            seen = first;
        }
    }
    return best;
}

static void counts_and_best_successors_are_those_of_a_scan(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 40; seed++) {
        struct sb_ngrams t = { .tie = seed % 2 ? SB_NGRAM_LATEST : SB_NGRAM_SMALLEST };
        struct sb_rng rng = sb_rng_make(seed, SB_STREAM_DATA);
        sb_token x[120];
        for (size_t i = 0; i < 120; i++)
            x[i] = (sb_token)sb_rng_below(&rng, 2 + seed % 4);
        size_t n = 20 + seed % 100;
        for (size_t i = 0; i < n; i++) { /* grows bit by bit: old counts survive */
            assert_int_equal(sb_ngrams_reserve(&t, 4, 4, NULL), SB_OK);
            sb_ngrams_count(&t, x, i, 1, 4);
        }
        for (size_t end = 1; end <= 60; end++) {
            int32_t node[5];
            size_t found = sb_ngrams_walk(&t, x, end, 4, node);
            for (size_t order = 1; order <= found; order++) {
                int32_t count;
                sb_token best = scan_best(x, n, x + end - order, order, t.tie, &count);
                const struct sb_ngram_node *entry = &t.node[node[order]];
                assert_int_equal(best < 0, entry->best < 0);
                if (best < 0)
                    continue;
                assert_int_equal(t.next[entry->best].token, best);
                assert_int_equal(t.next[entry->best].count, count);
                int64_t total = 0;
                for (sb_token s = 0; s < 5; s++)
                    total += scan_count(x, n, x + end - order, order, s);
                assert_int_equal(entry->total, total);
            }
            for (size_t order = found + 1; order <= 4 && order <= end; order++)
                for (sb_token s = 0; s < 5; s++)
                    assert_int_equal(scan_count(x, n, x + end - order, order, s), 0);
        }
        sb_ngrams_finish(&t);
    }
}

static void counts_stop_at_their_limit_and_without_room(void **state)
{
    (void)state;
    struct sb_ngrams t = { .tie = SB_NGRAM_SMALLEST };
    const sb_token a[] = { 1 }, b[] = { 2 };
    assert_false(sb_ngrams_add(&t, a, 1, 5, 1)); /* an empty table has no room at all */
    assert_int_equal(sb_ngrams_walk(&t, a, 1, 4, (int32_t[5]){ 0 }), 0);
    assert_int_equal(sb_ngrams_reserve(&t, 1, 1, NULL), SB_OK);
    assert_true(sb_ngrams_add(&t, a, 1, 5, INT32_MAX));
    assert_true(sb_ngrams_add(&t, a, 1, 5, INT32_MAX));
    assert_int_equal(t.next[0].count, SB_NGRAM_COUNT_MAX);
    assert_int_equal(t.node[1].total, SB_NGRAM_COUNT_MAX);
    assert_false(sb_ngrams_add(&t, a, 1, 6, 1));
    assert_false(sb_ngrams_add(&t, b, 1, 6, 1));
    sb_ngrams_clear(&t);
    assert_true(sb_ngrams_add(&t, b, 1, 6, 1));
    assert_int_equal(sb_ngrams_reserve(&t, SIZE_MAX, 0, NULL), SB_ENOMEM);
    assert_int_equal(sb_ngrams_reserve(&t, INT32_MAX / 2, 0, NULL), SB_ENOMEM);
    sb_ngrams_finish(&t);
}

/* ---- their files ---- */

static char *temporary(const char *name)
{
    return sb_strf("/tmp/specbench-%ld-%s", (long)getpid(), name);
}

static void put_file(const char *path, const int32_t *word, size_t n)
{
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(word, sizeof *word, n, f), n); /* tests run on little-endian machines */
    assert_int_equal(fclose(f), 0);
}

#define WORDS(...) \
    (const int32_t[]){ __VA_ARGS__ }, sizeof(int32_t[]){ __VA_ARGS__ } / sizeof(int32_t)

static void malformed_files_are_refused_with_the_byte(void **state)
{
    (void)state;
    static const struct {
        int32_t word[12];
        size_t bytes;
        const char *message;
    } cases[] = {
        { { 1, -1, -1, -1, 1, 2, 3 }, 27, "f: byte 16: 1 successors, but 7 bytes are left" },
        { { 1, -1, -1, -1 }, 16, "f: ends inside the record at byte 0" },
        { { 1, -1, -1, -1, 1, 2, 3, 9 }, 32, "f: ends inside the record at byte 28" },
        { { 1, -1, -1, -1, 0 }, 20, "f: byte 16: 0 successors, expected at least 1" },
        { { 1, -1, -1, -1, -5 }, 20, "f: byte 16: -5 successors, expected at least 1" },
        { { 1, -1, -1, -1, INT32_MAX, 2, 3 },
          28,
          "f: byte 16: 2147483647 successors, but 8 bytes are left" },
        { { 1, -1, 2, -1, 1, 2, 3 }, 28, "f: byte 8: token 2 behind the end of an n-gram" },
        { { 1, 100, -1, -1, 1, 2, 3 }, 28, "f: byte 4: token 100, the vocabulary has 100" },
        { { 1, -2, -1, -1, 1, 2, 3 }, 28, "f: byte 4: token -2, the vocabulary has 100" },
        { { 1, -1, -1, -1, 1, -1, 3 }, 28, "f: byte 20: token -1, the vocabulary has 100" },
        { { 1, -1, -1, -1, 1, 2, 0 }, 28, "f: byte 24: a count of 0, expected at least 1" },
        { { -1, -1, -1, -1, 1, 2, 3 }, 28, "f: byte 0: an n-gram of 0 tokens, expected 1 to 3" },
        { { 1, 2, 3, 4, 1, 2, 3 }, 28, "f: byte 0: an n-gram of 4 tokens, expected 1 to 3" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct sb_ngrams t = { .tie = SB_NGRAM_SMALLEST };
        struct sb_error err;
        assert_int_equal(
            sb_ngrams_parse(&t, "f", (const uint8_t *)cases[i].word, cases[i].bytes, V, 1, 3, &err),
            SB_EFORMAT);
        assert_string_equal(err.message, cases[i].message);
        assert_int_equal(t.n_nodes, 0);
    }
}

static void saved_caches_load_again_and_add_up(void **state)
{
    (void)state;
    struct sb_ngrams t = { .tie = SB_NGRAM_SMALLEST }, back = { .tie = SB_NGRAM_SMALLEST };
    struct sb_rng rng = sb_rng_make(4, SB_STREAM_DATA);
    sb_token x[200];
    assert_int_equal(sb_ngrams_reserve(&t, 1000, 1000, NULL), SB_OK);
    for (size_t i = 0; i < 200; i++) {
        x[i] = (sb_token)sb_rng_below(&rng, 6);
        sb_ngrams_count(&t, x, i, 1, 5); /* files end at 4 */
    }
    char *path = temporary("round-trip");
    assert_int_equal(sb_ngrams_save(&t, path, NULL), SB_OK);
    for (int twice = 1; twice <= 2; twice++) {
        assert_int_equal(sb_ngrams_load(&back, path, V, 1, 4, NULL), SB_OK);
        for (size_t end = 1; end < 200; end++) {
            int32_t node[6], again[6];
            size_t order = sb_ngrams_walk(&t, x, end, 4, node);
            assert_int_equal(sb_ngrams_walk(&back, x, end, 5, again), order);
            for (size_t o = 1; o <= order; o++) {
                assert_int_equal(back.node[again[o]].total, twice * t.node[node[o]].total);
                for (int32_t j = t.node[node[o]].first; j >= 0; j = t.next[j].link) {
                    int32_t at = sb_ngrams_find(&back, again[o], t.next[j].token);
                    assert_true(at >= 0);
                    assert_int_equal(back.next[at].count, twice * t.next[j].count);
                }
            }
        }
    }
    struct sb_error err;
    assert_int_equal(sb_ngrams_load(&back, path, 5, 1, 4, &err), SB_EFORMAT);
    assert_int_equal(sb_ngrams_save(&t, "/no-such-directory/x", &err), SB_EIO);
    remove(path);
    sb_free(path);
    sb_ngrams_finish(&t);
    sb_ngrams_finish(&back);
}

static void a_text_is_learnt_once(void **state)
{
    (void)state;
    struct sb_seen seen;
    assert_int_equal(sb_seen_init(&seen, 10, NULL), SB_OK);
    struct sb_context ctx = { .tokens = (const sb_token[]){ 1, 2, 3, 4, 5 }, .n = 5 };
    sb_seen_begin(&seen, &ctx, false);
    assert_int_equal(seen.n, 0);
    sb_seen_all(&seen, &ctx);
    assert_int_equal(seen.n, 5);
    ctx = (struct sb_context){ .tokens = (const sb_token[]){ 1, 2, 3, 4, 7, 8 }, .n = 6 };
    sb_seen_begin(&seen, &ctx, false);
    assert_int_equal(seen.n, 4);
    sb_seen_all(&seen, &ctx);
    assert_int_equal(seen.text[4], 7);
    ctx.n = 3; /* a beginning of it: nothing new */
    sb_seen_begin(&seen, &ctx, false);
    assert_int_equal(seen.n, 3);
    sb_seen_begin(&seen, &ctx, true);
    assert_int_equal(seen.n, 0);
    sb_seen_finish(&seen);
}

/* ---- ngram-cache ---- */

static void ngram_cache_follows_the_card(void **state)
{
    (void)state;
    char *file = temporary("static");
    put_file(file, WORDS(2, 3, -1, -1, 2, 5, 9, 4, 1, /**/ 3, 5, -1, -1, 2, 7, 3, 8, 3));
    char *with_static = sb_strf("ngram-cache:k=6,static=%s", file);
    const sb_token x[] = { 1, 2, 3, 4, 1, 2, 3, 5, 1, 2 };
    const int32_t orders[] = { 2, 3, 4, 4, 4, 4 };
    expect_after("ngram-cache:k=6", 1, x, 10, SEQ(3, 4, 1, 2, 3, 5), orders);
    expect(with_static, x, 10, SEQ(3, 5, 1, 2, 3, 5));
    expect("ngram-cache:k=6", SEQ(1, 2, 3, 4, 6, 2, 3), NULL, 0);
    expect_after(with_static, 1, SEQ(1, 2, 3, 4, 6, 2, 3), SEQ(5, 7), (const int32_t[]){ 22, 22 });
    expect("ngram-cache", SEQ(7), NULL, 0);
    remove(file);
    sb_free(file);
    sb_free(with_static);
}

/* The score of every successor by definition, against the shortcut. */
static void ngram_cache_weighs_by_the_static_cache(void **state)
{
    (void)state;
    char *file = temporary("weights");
    char *spec = sb_strf("ngram-cache:k=1,ngram_max=1,static=%s", file);
    for (uint64_t seed = 0; seed < 300; seed++) {
        struct sb_rng rng = sb_rng_make(seed, SB_STREAM_DATA);
        int32_t word[5 + 2 * 8] = { 9, 0, -1, -1, 0 }, share[8] = { 0 }, count[8] = { 0 };
        for (sb_token t = 1; t < 8; t++)
            if (sb_rng_below(&rng, 2)) {
                share[t] = 1 + (int32_t)sb_rng_below(&rng, 3);
                word[5 + 2 * word[4]] = t;
                word[6 + 2 * word[4]++] = share[t];
            }
        if (word[4] == 0)
            continue;
        put_file(file, word, 5 + 2 * (size_t)word[4]);
        sb_token x[64], want = -1;
        size_t n = 0;
        for (size_t i = 0; i < 20; i++) { /* pairs of 0 and a successor */
            x[n++] = 0;
            x[n] = sb_rng_below(&rng, 4) ? 1 : 1 + (sb_token)sb_rng_below(&rng, 1 + seed % 7);
            count[x[n++]]++;
        }
        x[n++] = 9;
        x[n++] = 0;
        int64_t highest = 0;
        for (sb_token t = 1; t < 8; t++) {
            int64_t score = (int64_t)count[t] * (share[t] ? 100 * share[t] : 1);
            if (score > highest) {
                highest = score;
                want = t;
            }
        }
        /* Order 1 asks for two thirds of the 20 counts. Else the static cache answers or is silent. */
        int32_t total = 0, most = 0;
        for (sb_token t = 1; t < 8; t++) {
            total += share[t];
            most = share[t] > share[most] ? t : most;
        }
        if (100 * count[want] < 66 * 20)
            want = total >= 2 && 100 * share[most] >= 50 * total ? most : -1;
        expect(spec, x, n, &want, want >= 0);
    }
    remove(file);
    sb_free(file);
    sb_free(spec);
}

static void ngram_cache_learns_as_far_as_its_scope(void **state)
{
    (void)state;
    /* "1 2 3" twice, then "5 6 7" four times, in a request of its own each time. */
    const sb_token a[] = { 8, 5, 6, 7, 5, 6, 7, 5, 6, 7, 5, 6, 7 }, b[] = { 9, 5, 6 };
    static const char *const specs[] = { "ngram-cache:k=1,scope=prompt", "ngram-cache:k=1",
                                         "ngram-cache:k=1,scope=run" };
    for (size_t s = 0; s < 3; s++) {
        struct rig rig;
        assert_int_equal(rig_open(&rig, specs[s], NULL), SB_OK);
        rig.n_prompt = 3;
        rig_begin(&rig, a, 13);
        rig_begin(&rig, b, 3);
        int32_t n = rig_propose(&rig, b, 3);
        assert_int_equal(n, s == 2);
        if (n) {
            assert_int_equal(rig.tree.node[1].token, 7);
            assert_int_equal(rig.tree.node[1].source, 12);
        }
        rig_close(&rig);
    }
}

static void ngram_cache_counts_a_conversation_once(void **state)
{
    (void)state;
    /* The second turn repeats the first in its prompt. "4" follows "3" once: below the limit of 2. */
    const sb_token x[] = { 1, 3, 4, 6, 3 };
    static const char *const specs[] = { "ngram-cache:scope=prompt", "ngram-cache",
                                         "ngram-cache:scope=run" };
    for (size_t s = 0; s < 3; s++) {
        struct rig rig;
        assert_int_equal(rig_open(&rig, specs[s], NULL), SB_OK);
        rig.n_prompt = 2;
        rig_begin(&rig, x, 4);
        rig.n_prompt = 4;
        rig_begin(&rig, x, 5);
        assert_int_equal(rig_propose(&rig, x, 5), 0);
        rig_close(&rig);
    }
}

/* A finished conversation passes on what it counted, and not once per turn. */
static void ngram_cache_merges_a_conversation_once(void **state)
{
    (void)state;
    const sb_token x[] = { 1, 3, 4, 6, 7, 2, 5, 3, 4, 6, 7 }, other[] = { 9, 3, 4, 6 };
    for (size_t n = 6; n <= 11;
         n += 5) { /* "7" came once, or twice: a limit of the dynamic cache */
        struct rig rig;
        assert_int_equal(rig_open(&rig, "ngram-cache:scope=run,k=1", NULL), SB_OK);
        rig.n_prompt = 2;
        rig_begin(&rig, x, 5);
        rig.n_prompt = 5;
        rig_begin(&rig, x, n);
        rig.n_prompt = 4;
        rig_begin(&rig, other, 4);
        assert_int_equal(rig_propose(&rig, other, 4), n == 11);
        rig_close(&rig);
    }
}

static void ngram_cache_saves_what_the_next_run_loads(void **state)
{
    (void)state;
    const sb_token a[] = { 8, 5, 6, 7, 5, 6, 7, 5, 6, 7, 5, 6, 7 };
    char *file = temporary("saved"), *save = sb_strf("ngram-cache:scope=run,save=%s", file),
         *load = sb_strf("ngram-cache:k=2,dynamic=%s", file);
    struct rig rig;
    assert_int_equal(rig_open(&rig, save, NULL), SB_OK);
    rig_begin(&rig, a, 5);
    rig_observe(&rig, a, 13);
    rig_close(&rig);
    expect_after(load, 1, SEQ(9, 5, 6), SEQ(7, 5), (const int32_t[]){ 12, 13 });
    remove(file);
    sb_free(file);
    sb_free(save);
    sb_free(load);
}

/* ---- anpd ---- */

static void anpd_follows_the_card(void **state)
{
    (void)state;
    expect("anpd:n=3,k=5", SEQ(1, 2, 3, 1, 2, 4, 1, 2), SEQ(4, 1, 2, 4, 1));
    expect("anpd:n=3,k=5", SEQ(1, 2, 3, 1, 2, 3, 4, 1, 2), SEQ(3, 4, 1, 2, 3));
    expect("anpd:n=3,k=5,tie=smallest", SEQ(1, 2, 3, 1, 2, 4, 1, 2), SEQ(3, 1, 2, 3, 1));
    expect("anpd", SEQ(1, 2, 3), NULL, 0);
    expect("anpd", SEQ(7), NULL, 0);
    /* Shorter contexts: "5" is known after 2 alone. */
    expect_after("anpd:k=1", 1, SEQ(1, 2, 5, 9, 2), SEQ(5), (const int32_t[]){ 1 });
}

static void anpd_lets_orders_compete_when_told_to(void **state)
{
    (void)state;
    /* After "1 2" came 3, 4, 5, once each; after "2" alone 9 came seven times of ten: .28 < 1/3. */
#define COMPETE SEQ(1, 2, 3, 1, 2, 4, 1, 2, 5, 2, 9, 2, 9, 2, 9, 9, 2, 9, 2, 9, 2, 9, 2, 9, 1, 2)
    expect_after("anpd:n=3,k=1", 1, COMPETE, SEQ(5), (const int32_t[]){ 2 });
    expect_after("anpd:n=3,k=1,backoff=stupid", 1, COMPETE, SEQ(5), (const int32_t[]){ 2 });
    /* Once each of four, and eight times of twelve: .267 > 1/4. */
    expect_after("anpd:n=3,k=1,backoff=stupid", 1,
                 SEQ(1, 2, 3, 1, 2, 4, 1, 2, 5, 1, 2, 6, 2, 9, 2, 9, 2, 9, 2, 9, 2, 9, 2, 9, 2, 9,
                     2, 9, 1, 2),
                 SEQ(9), (const int32_t[]){ 1 });
    /* What followed the longer context has that score alone, 1/4, however often it follows "2". */
    expect_after("anpd:n=3,k=1,backoff=stupid", 1,
                 SEQ(1, 2, 9, 1, 2, 3, 1, 2, 4, 1, 2, 5, 2, 9, 2, 9, 2, 9, 2, 9, 2, 9, 2, 9, 2, 9,
                     2, 9, 1, 2),
                 SEQ(5), (const int32_t[]){ 2 });
}

/* A text and a corpus, counted by scanning. */
struct scanned {
    const sb_token *text, *corpus;
    size_t n_text, n_corpus;
    int32_t weight;
    enum sb_ngram_tie tie;
};

static int64_t scanned_count(const struct scanned *s, const sb_token *gram, size_t order,
                             sb_token token)
{
    return scan_count(s->text, s->n_text, gram, order, token) +
           (int64_t)s->weight * scan_count(s->corpus, s->n_corpus, gram, order, token);
}

/* Corpus first, then text. */
static size_t scanned_first(const struct scanned *s, const sb_token *gram, size_t order,
                            sb_token token)
{
    for (size_t i = order; i < s->n_corpus; i++)
        if (scan_count(s->corpus + i - order, order + 1, gram, order, token))
            return i;
    for (size_t i = order; i < s->n_text; i++)
        if (scan_count(s->text + i - order, order + 1, gram, order, token))
            return 1000 + i;
    return 0;
}

static sb_token scanned_draft(const struct scanned *s, const sb_token *x, size_t n, size_t orders,
                              bool stupid)
{
    sb_token winner = -1;
    double score = 0, factor = 1;
    bool taken[5] = { 0 };
    for (size_t o = orders < n ? orders : n; o >= 1; o--) {
        const sb_token *gram = x + n - o;
        int64_t all = 0, most = 0;
        sb_token best = -1;
        for (sb_token t = 0; t < 5; t++) {
            int64_t c = scanned_count(s, gram, o, t);
            all += c;
            if (taken[t] || c == 0)
                continue;
            bool later = best >= 0 && s->tie == SB_NGRAM_LATEST &&
                         scanned_first(s, gram, o, t) > scanned_first(s, gram, o, best);
            if (c > most || (c == most && later)) {
                most = c;
                best = t;
            }
        }
        for (sb_token t = 0; t < 5; t++)
            taken[t] = taken[t] || scanned_count(s, gram, o, t) > 0;
        if (best >= 0 && factor * (double)most > score * (double)all) {
            score = factor * (double)most / (double)all;
            winner = best;
        }
        if (all > 0 && !stupid)
            break;
        factor *= all > 0 || factor < 1 ? .4 : 1;
    }
    return winner;
}

static void anpd_drafts_what_a_scan_drafts(void **state)
{
    (void)state;
    static const char *const sources[] = { "text", "both", "corpus" };
    char *file = temporary("corpus");
    for (uint64_t seed = 0; seed < 72; seed++) {
        struct sb_rng rng = sb_rng_make(seed, SB_STREAM_DATA);
        sb_token x[120], corpus[60];
        for (size_t i = 0; i < 120; i++)
            x[i] = sb_rng_below(&rng, 4) ? 0 : (sb_token)sb_rng_below(&rng, 2 + seed % 4);
        for (size_t i = 0; i < 60; i++)
            corpus[i] = (sb_token)sb_rng_below(&rng, 5);
        int source = (int)(seed % 3), tie = seed / 3 % 2, stupid = seed / 6 % 2;
        struct sb_ngrams t = { .tie = SB_NGRAM_SMALLEST };
        assert_int_equal(sb_ngrams_reserve(&t, 300, 300, NULL), SB_OK);
        for (size_t i = 0; i < 60; i++)
            sb_ngrams_count(&t, corpus, i, 1, 4);
        assert_int_equal(sb_ngrams_save(&t, file, NULL), SB_OK);
        sb_ngrams_finish(&t);
        struct scanned s = { x, corpus, 0, source ? 60 : 0, 1 + (int32_t)(seed % 5), tie };
        char *spec =
            sb_strf("anpd:n=5,k=4,source=%s,weight=%d,tie=%s,backoff=%s%s%s", sources[source],
                    s.weight, tie ? "latest" : "smallest", stupid ? "stupid" : "first",
                    source ? ",corpus=" : "", source ? file : "");
        struct rig rig;
        assert_int_equal(rig_open(&rig, spec, NULL), SB_OK);
        rig_begin(&rig, x, 10);
        for (size_t n = 10; n < 100; n += 1 + sb_rng_below(&rng, 7)) {
            rig_observe(&rig, x, n);
            s.n_text = source < 2 ? n : 0;
            sb_token all[110];
            memcpy(all, x, n * sizeof *x);
            int32_t got = rig_propose(&rig, x, n);
            for (int32_t i = 0; i < 4; i++) {
                sb_token want = scanned_draft(&s, all, n + (size_t)i, 4, stupid);
                if (want < 0) {
                    assert_int_equal(got, i);
                    break;
                }
                assert_true(i < got);
                assert_int_equal(rig.tree.node[i + 1].token, want);
                all[n + (size_t)i] = want;
            }
        }
        rig_close(&rig);
        sb_free(spec);
    }
    remove(file);
    sb_free(file);
}

static void anpd_forgets_as_its_scope_says(void **state)
{
    (void)state;
    const sb_token a[] = { 1, 2, 3, 4 }, b[] = { 9, 2, 3 }, next[] = { 1, 2, 5, 2 };
    static const struct {
        const char *spec;
        sb_token in_other, in_next; /* drafts in another conversation, and in the next turn */
    } cases[] = { { "anpd:k=1,scope=prompt", 0, 5 }, /* the new turn says 5 after 2 */
                  { "anpd:k=1,tie=smallest", 0, 3 }, /* the old one said 3 */
                  { "anpd:k=1,tie=smallest,scope=run", 4, 3 } };
    for (size_t c = 0; c < 3; c++) {
        for (size_t other = 0; other < 2; other++) {
            struct rig rig;
            assert_int_equal(rig_open(&rig, cases[c].spec, NULL), SB_OK);
            rig.n_prompt = 2;
            rig_begin(&rig, a, 4);
            rig.n_prompt = other ? 3 : 4;
            rig_begin(&rig, other ? b : next, rig.n_prompt);
            sb_token got =
                rig_propose(&rig, other ? b : next, rig.n_prompt) > 0 ? rig.tree.node[1].token : 0;
            assert_int_equal(got, other ? cases[c].in_other : cases[c].in_next);
            rig_close(&rig);
        }
    }
}

/* ---- llma ---- */

#define DOCS 1, 2, 3, 4, 5, 99, 9, 3, 4, 7, 8, 99
enum { N_DOCS = 12 };

static void llma_follows_the_card(void **state)
{
    (void)state;
    const char *spec = "llma:k=3,separator=99";
    expect_after(spec, N_DOCS, SEQ(DOCS, 0, 3, 4), SEQ(5), (const int32_t[]){ 2 });
    expect_after(spec, N_DOCS, SEQ(DOCS, 9, 3, 4), SEQ(7, 8), (const int32_t[]){ 3, 3 });
    expect_after(spec, N_DOCS, SEQ(DOCS), NULL, 0, NULL); /* nothing generated yet */
    /* Never across the end of a document, which is no match either: "5" has nothing behind it. */
    expect_after(spec, N_DOCS, SEQ(DOCS, 5), NULL, 0, NULL);
    /* "8" ends a document but occurs before; "4 8" falls back to it. */
    expect_after(spec, 7, SEQ(6, 8, 2, 99, 4, 8, 99, /**/ 4, 8), SEQ(2), (const int32_t[]){ 1 });
    /* Generated text is no reference. */
    expect_after(spec, N_DOCS, SEQ(DOCS, 50, 51, 50), NULL, 0, NULL);
    /* Only the first tokens of a document count. */
    expect_after("llma:separator=99,doc_max=3", N_DOCS, SEQ(DOCS, 2), SEQ(3), NULL);
    expect_after("llma:separator=99,doc_max=3", N_DOCS, SEQ(DOCS, 3), SEQ(4), NULL);
    /* Without a tokenizer and a separator the prompt is one document. */
    expect_after("llma:k=4", N_DOCS, SEQ(DOCS, 5), SEQ(99, 9, 3, 4), NULL);
}

/* Paragraphs of real text: each line is drafted to the end of its paragraph, not beyond. */
static void llma_tells_paragraphs_by_blank_lines(void **state)
{
    (void)state;
    static const char text[] = "The cat sat.\nIt purred.\n\nA dog ran \n \n\nThe end";
    struct sb_tokenizer *tokenizer;
    struct sb_tokens x = { 0 };
    char *path = sb_data_path("models/tiny");
    struct sb_error err;
    if (sb_tokenizer_open(&tokenizer, path, &err) != SB_OK)
        fail_msg("%s", err.message);
    assert_int_equal(sb_tokenizer_encode(tokenizer, &x, text, strlen(text), 0, NULL), SB_OK);
    size_t n_prompt = x.n;
    static const struct {
        const char *said, *draft;
    } cases[] = { { " dog", " ran \n \n\n" },
                  { " cat", " sat.\nIt purred.\n\n" },
                  { " purred", ".\n\n" } };
    struct rig rig;
    sb_free(path);
    assert_int_equal(rig_open(&rig, "llma:k=100", NULL), SB_OK);
    rig.ops->close(rig.st);
    memset(rig.st, 0, rig.ops->state_size);
    assert_int_equal(
        rig.ops->open(rig.st,
                      &(struct sb_drafter_env){ .tokenizer = tokenizer,
                                                .max_context = RIG_CONTEXT,
                                                .n_vocab = sb_tokenizer_size(tokenizer),
                                                .params = rig.params,
                                                .policy = &rig.policy },
                      NULL),
        SB_OK);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        x.n = n_prompt;
        assert_int_equal(
            sb_tokenizer_encode(tokenizer, &x, cases[i].said, strlen(cases[i].said), 0, NULL),
            SB_OK);
        rig.n_prompt = n_prompt;
        rig_begin(&rig, x.id, x.n);
        struct sb_context ctx = rig_context(&rig, x.id, x.n);
        sb_tree_reset(&rig.tree, x.id[x.n - 1], RIG_CONTEXT);
        assert_int_equal(rig.ops->propose(rig.st, &ctx, &rig.tree, NULL), SB_OK);
        sb_token draft[RIG_CAP];
        for (int32_t j = 1; j < rig.tree.n; j++)
            draft[j - 1] = rig.tree.node[j].token;
        char *got;
        size_t length;
        assert_int_equal(sb_tokenizer_decode(tokenizer, &got, &length, draft,
                                             (size_t)rig.tree.n - 1, true, NULL),
                         SB_OK);
        assert_string_equal(got, cases[i].draft);
        sb_free(got);
    }
    rig_close(&rig);
    sb_tokens_finish(&x);
    sb_tokenizer_close(tokenizer);
}

/* ---- mag ---- */

static void mag_follows_the_card(void **state)
{
    (void)state;
    expect_after("mag:k=4", 1, SEQ(5, 6, 7, 8, 9, 5, 6), SEQ(7, 8, 9, 5),
                 (const int32_t[]){ 2, 2, 2, 2 });
    expect("mag", SEQ(5, 6, 7, 8, 9, 5, 6), SEQ(7, 8, 9, 5, 6)); /* to the end of the text */
    expect("mag", SEQ(1, 1, 1), SEQ(1));                         /* occurrences may overlap */
    expect("mag", SEQ(1, 2, 3), NULL, 0);
    expect("mag", SEQ(7), NULL, 0);
    expect("mag:min_match=3", SEQ(5, 6, 7, 8, 9, 5, 6), NULL, 0);
    /* The first of two occurrences, and the longest match before that. */
    expect("mag:k=1", SEQ(5, 6, 7, 5, 6, 8, 5, 6), SEQ(7));
    expect("mag:k=1", SEQ(6, 7, 5, 6, 8, 5, 6), SEQ(8));
}

static void mag_goes_on_with_bigrams(void **state)
{
    (void)state;
    char *file = temporary("bigram"), *spec = sb_strf("mag:k=8,bigram=%s", file);
    put_file(file, WORDS(6, -1, -1, -1, 3, 20, 4, 12, 5, 11, 5, /**/ 11, -1, -1, -1, 1, 13, 1,
                         /**/ 6, 7, -1, -1, 1, 30, 9, /**/ 3, -1, -1, -1, 1, 6, 1));
    expect_after(spec, 1, SEQ(5, 6, 7, 5, 6), SEQ(7, 5, 6, 11, 13),
                 (const int32_t[]){ 2, 2, 2, 0, 0 });
    expect_after(spec, 1, SEQ(1, 2, 3), SEQ(6, 11, 13), (const int32_t[]){ 0, 0, 0 });
    remove(file);
    sb_free(file);
    sb_free(spec);
}

static void mag_matches_as_a_scan_does(void **state)
{
    (void)state;
    struct sb_rng rng = sb_rng_make(8, SB_STREAM_DATA);
    for (uint64_t letters = 1; letters <= 4; letters++) {
        struct rig rig;
        sb_token x[150];
        for (size_t i = 0; i < 150; i++)
            x[i] = (sb_token)sb_rng_below(&rng, letters);
        assert_int_equal(rig_open(&rig, "mag:k=7", NULL), SB_OK);
        rig_begin(&rig, x, 3);
        for (size_t n = 3; n < 150; n += 1 + sb_rng_below(&rng, 3)) {
            size_t longest = 0, from = n;
            for (size_t j = 1; j < n; j++) { /* what ends before j */
                size_t m = 0;
                while (m < j && x[j - 1 - m] == x[n - 1 - m])
                    m++;
                if (m > longest) {
                    longest = m;
                    from = j;
                }
            }
            rig_propose(&rig, x, n);
            rig_expect(&rig, x + from, NULL, (int32_t)(n - from < 7 ? n - from : 7));
        }
        rig_close(&rig);
    }
}

/* ---- sad ---- */

static void sad_follows_the_card(void **state)
{
    (void)state;
#define INPUT 1, 2, 3, 4, 5, 6
    expect_after("sad", 6, SEQ(INPUT), SEQ(1, 2, 3, 4, 5, 6), NULL);
    expect_after("sad:k=2", 6, SEQ(INPUT), SEQ(1, 2), NULL);
    expect_after("sad", 6, SEQ(INPUT, 1, 2, 9), NULL, 0, NULL); /* lost, and 9 is no input */
    expect_after("sad", 6, SEQ(INPUT, 1, 2, 9, 4), SEQ(5, 6), (const int32_t[]){ 1, 1 });
    expect_after("sad", 6, SEQ(INPUT, 1, 2), SEQ(3, 4, 5, 6), (const int32_t[]){ 0, 0, 0, 0 });
    expect_after("sad", 6, SEQ(INPUT, 1, 2, 3, 4, 5, 6), NULL, 0, NULL); /* all copied */
    expect_after("sad", 6, SEQ(INPUT, 1, 2, 3, 4, 5, 6, 3), SEQ(4, 5, 6), NULL);
    /* Ambiguous, and no longer suffix of the output occurs. */
    expect_after("sad", 3, SEQ(7, 7, 8, /**/ 9, 7), NULL, 0, NULL);
    /* A longer suffix decides, unless q_max forbids it. */
    expect_after("sad", 6, SEQ(7, 1, 2, 7, 3, 4, /**/ 9, 2, 7), SEQ(3, 4),
                 (const int32_t[]){ 2, 2 });
    expect_after("sad:q_max=1", 6, SEQ(7, 1, 2, 7, 3, 4, /**/ 9, 2, 7), NULL, 0, NULL);
}

static void sad_takes_the_marked_input(void **state)
{
    (void)state;
#define MARKED 10, 11, 50, 1, 2, 3, 51, 12
    expect_after("sad:from=50,to=51", 8, SEQ(MARKED), SEQ(1, 2, 3), NULL);
    expect_after("sad:from=50", 8, SEQ(MARKED), SEQ(1, 2, 3, 51, 12), NULL);
    expect_after("sad:to=50", 8, SEQ(MARKED), SEQ(10, 11), NULL);
    expect_after("sad:from=60", 8, SEQ(MARKED), NULL, 0, NULL);
    expect_after("sad:from=12", 8, SEQ(MARKED, 12), NULL, 0, NULL); /* an empty input */
}

/* The whole trace of the card: accepted 2, nothing, 2. */
static void sad_follows_its_output_step_by_step(void **state)
{
    (void)state;
    const sb_token x[] = { INPUT, 1, 2, 9, 4, 5, 6 };
    struct rig rig;
    assert_int_equal(rig_open(&rig, "sad", NULL), SB_OK);
    rig.n_prompt = 6;
    rig_begin(&rig, x, 6);
    assert_int_equal(rig_propose(&rig, x, 6), 6);
    assert_int_equal(rig_propose(&rig, x, 9), 0);
    assert_int_equal(rig_propose(&rig, x, 10), 2);
    assert_int_equal(rig_propose(&rig, x, 12), 0);
    rig_close(&rig);
}

/* ---- what all share ---- */

static void replays_accept_what_they_did(void **state)
{
    (void)state;
    static const struct {
        const char *spec;
        int32_t accepted; /* of 199 */
    } cases[] = {
        { "anpd", 151 }, { "anpd:n=3", 144 },    { "llma", 50 },
        { "mag", 158 },  { "ngram-cache", 157 }, { "sad", 2 },
    };
    sb_token x[240];
    struct sb_rng rng = sb_rng_make(11, SB_STREAM_DATA);
    for (size_t i = 0; i < 240; i++) /* phrases of 12 come back with a typing error now and then */
        x[i] = i < 12 || sb_rng_below(&rng, 15) == 0 ? (sb_token)sb_rng_below(&rng, 30) : x[i - 12];
    int wrong = 0;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct rig rig;
        assert_int_equal(rig_open(&rig, cases[i].spec, NULL), SB_OK);
        rig.n_prompt = 40;
        int32_t steps, got = rig_replay(&rig, x, 40, 240, &steps);
        rig_close(&rig);
        if (got != cases[i].accepted)
            print_error("%s: %d accepted, expected %d\n", cases[i].spec, got, cases[i].accepted);
        wrong += got != cases[i].accepted;
    }
    assert_int_equal(wrong, 0);
}

/* ---- documents of the prompt, and conversations ---- */

static void documents_of_the_prompt_are_copied_instead_of_it(void **state)
{
    (void)state;
    static const char *const specs[] = { "llma:k=3", "sad:k=3" };
    const sb_token x[] = { 1, 2, 3, 40, 41 }, a[] = { 50, 51 }, b[] = { 40, 41, 60, 61 };
    const struct sb_document documents[] = { { a, 2 }, { b, 4 } };
    for (size_t i = 0; i < 2; i++) {
        struct rig rig;
        assert_int_equal(rig_open(&rig, specs[i], NULL), SB_OK);
        rig.n_prompt = 3;
        struct sb_context ctx = rig_context(&rig, x, 4);
        ctx.documents = documents;
        ctx.n_documents = 2;
        assert_int_equal(rig.ops->begin(rig.st, &ctx, NULL), SB_OK);
        rig_propose(&rig, x, 5);
        rig_expect(&rig, (const sb_token[]){ 60, 61 }, NULL, 2);
        rig_begin(&rig, x, 4); /* another prompt, without any */
        rig_propose(&rig, x, 5);
        rig_expect(&rig, NULL, NULL, 0);
        rig_close(&rig);
    }
}

static void begin_conversation(struct rig *rig, const sb_token *x, size_t n, uint64_t conversation)
{
    struct sb_context ctx = rig_context(rig, x, n);
    ctx.n_prompt = n - 1;
    ctx.conversation = conversation;
    assert_int_equal(rig->ops->begin(rig->st, &ctx, NULL), SB_OK);
}

/* sam keeps the text of a conversation: 1 2 is followed by 3 in what came before. */
static void conversations_go_by_what_the_harness_says(void **state)
{
    (void)state;
    const sb_token first[] = { 1, 2, 3, 4 }, next[] = { 1, 2, 3, 4, 9, 7 }, other[] = { 9, 1, 2 };
    struct rig rig;
    assert_int_equal(rig_open(&rig, "sam:k=1", NULL), SB_OK);
    begin_conversation(&rig, first, 4, 5);
    begin_conversation(&rig, other, 3, 5); /* the same one, though its prompt begins otherwise */
    assert_int_equal(rig_propose(&rig, other, 3), 1);
    begin_conversation(&rig, first, 4, 5);
    begin_conversation(&rig, next, 6, 7); /* another one, though its prompt goes on from the last */
    assert_int_equal(rig_propose(&rig, (const sb_token[]){ 1, 2, 3, 4, 9, 7, 8 }, 7), 0);
    begin_conversation(&rig, other, 3, 8);
    assert_int_equal(rig_propose(&rig, other, 3), 0);
    rig_close(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(documents_of_the_prompt_are_copied_instead_of_it),
        cmocka_unit_test(conversations_go_by_what_the_harness_says),
        cmocka_unit_test(counts_and_best_successors_are_those_of_a_scan),
        cmocka_unit_test(counts_stop_at_their_limit_and_without_room),
        cmocka_unit_test(malformed_files_are_refused_with_the_byte),
        cmocka_unit_test(saved_caches_load_again_and_add_up),
        cmocka_unit_test(a_text_is_learnt_once),
        cmocka_unit_test(ngram_cache_follows_the_card),
        cmocka_unit_test(ngram_cache_weighs_by_the_static_cache),
        cmocka_unit_test(ngram_cache_learns_as_far_as_its_scope),
        cmocka_unit_test(ngram_cache_counts_a_conversation_once),
        cmocka_unit_test(ngram_cache_merges_a_conversation_once),
        cmocka_unit_test(ngram_cache_saves_what_the_next_run_loads),
        cmocka_unit_test(anpd_follows_the_card),
        cmocka_unit_test(anpd_lets_orders_compete_when_told_to),
        cmocka_unit_test(anpd_drafts_what_a_scan_drafts),
        cmocka_unit_test(anpd_forgets_as_its_scope_says),
        cmocka_unit_test(llma_follows_the_card),
        cmocka_unit_test(llma_tells_paragraphs_by_blank_lines),
        cmocka_unit_test(mag_follows_the_card),
        cmocka_unit_test(mag_goes_on_with_bigrams),
        cmocka_unit_test(mag_matches_as_a_scan_does),
        cmocka_unit_test(sad_follows_the_card),
        cmocka_unit_test(sad_takes_the_marked_input),
        cmocka_unit_test(sad_follows_its_output_step_by_step),
        cmocka_unit_test(replays_accept_what_they_did),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
