/* drafters/pld-plus: methods C 1.2, on states that the test makes up. */
#include "tests/unit/drafter_rig.h"

#include <string.h>

#include "harness/core/rng.h"

static float state[RIG_CONTEXT][RIG_WIDTH];

static void open_with_states(struct rig *rig, const char *text)
{
    struct sb_error err = { .message = "" };
    if (rig_open(rig, text, &err) != SB_OK)
        fail_msg("%s", err.message);
    assert_int_equal(rig->taps.n, 1);
    rig->tap[0] = &state[0][0];
}

static void all_states_alike(void)
{
    for (size_t i = 0; i < RIG_CONTEXT; i++)
        memcpy(state[i], (const float[RIG_WIDTH]){ 1, -2, .5f, 3 }, sizeof state[i]);
}

static void with_equal_states_it_copies_from_the_newest_occurrence(void **test_state)
{
    (void)test_state;
    struct rig plus, pld;
    all_states_alike();
    open_with_states(&plus, "pld-plus:k=6");
    assert_int_equal(rig_open(&pld, "pld:k=6,ngram_max=1", NULL), SB_OK);
    sb_token text[RIG_CONTEXT];
    int32_t drafted = 0;
    for (uint64_t seed = 0; seed < 20; seed++) {
        for (size_t i = 0; i < 60; i++)
            text[i] = (sb_token)(sb_rng_mix(seed, i) % 7);
        text[0] = 50; /* stands nowhere else: a first token has no state before it */
        rig_begin(&plus, text, 1);
        rig_begin(&pld, text, 1);
        for (size_t n = 2; n <= 60; n++) {
            int32_t found = rig_propose(&plus, text, n);
            assert_int_equal(rig_propose(&pld, text, n), found);
            for (int32_t i = 1; i <= found; i++)
                assert_int_equal(plus.tree.node[i].token, pld.tree.node[i].token);
            drafted += found;
        }
    }
    assert_true(drafted > 1000);
    rig_close(&plus);
    rig_close(&pld);
}

static void the_occurrence_with_the_likest_state_before_it_wins(void **test_state)
{
    (void)test_state;
    struct rig rig;
    all_states_alike();
    open_with_states(&rig, "pld-plus:k=2");
    const sb_token text[] = { 1, 9, 2, 3, 1, 9, 4, 5, 1, 9, 6, 7, 1, 9 };
    enum { N = sizeof text / sizeof *text };
    /* Scale does not count: only the direction is the same. */
    for (size_t j = 0; j + 2 < N; j++)
        memcpy(state[j], (const float[RIG_WIDTH]){ 1, 0, 0, 0 }, sizeof state[j]);
    memcpy(state[N - 2], (const float[RIG_WIDTH]){ 0, 2, 0, 0 }, sizeof state[0]);
    memcpy(state[4], (const float[RIG_WIDTH]){ 0, 9, 1, 0 }, sizeof state[0]);
    rig_begin(&rig, text, 1);
    rig_propose(&rig, text, N);
    rig_expect(&rig, (const sb_token[]){ 4, 5 }, NULL, 2);
    /* A cosine just above, elsewhere. */
    memcpy(state[0], (const float[RIG_WIDTH]){ 0, 9, .9f, 0 }, sizeof state[0]);
    rig_begin(&rig, text, 1);
    rig_propose(&rig, text, N);
    rig_expect(&rig, (const sb_token[]){ 2, 3 }, NULL, 2);
    rig_close(&rig);
}

static void only_the_newest_candidates_are_compared(void **test_state)
{
    (void)test_state;
    struct rig rig;
    all_states_alike();
    open_with_states(&rig, "pld-plus:k=1,cand_max=2");
    const sb_token text[] = { 1, 9, 2, 1, 9, 3, 1, 9, 4, 1, 9 };
    enum { N = sizeof text / sizeof *text };
    for (size_t j = 3; j + 2 < N; j++)
        state[j][0] = -1; /* less like the present than the oldest occurrence's */
    rig_begin(&rig, text, 1);
    rig_propose(&rig, text, N);
    rig_expect(&rig, (const sb_token[]){ 4 }, NULL, 1);
    rig_close(&rig);
}

static void unknown_tokens_short_texts_and_zero_states_are_legal(void **test_state)
{
    (void)test_state;
    struct rig rig;
    memset(state, 0, sizeof state);
    open_with_states(&rig, "pld-plus");
    const sb_token text[] = { 3, 3, 3, 8 };
    rig_begin(&rig, text, 1);
    assert_int_equal(rig_propose(&rig, text, 1), 0);
    assert_int_equal(rig_propose(&rig, text, 3), 1); /* of states without direction, the newest */
    assert_int_equal(rig_propose(&rig, text, 4), 0);
    rig_close(&rig);
}

static void a_layer_that_the_target_lacks_is_refused(void **test_state)
{
    (void)test_state;
    struct rig rig;
    struct sb_error err;
    assert_int_equal(rig_open(&rig, "pld-plus:layer=6", &err), SB_EUSAGE);
    assert_string_equal(err.message, "drafter pld-plus: hidden states of layer 6: the target has "
                                     "layers 0 to 5");
    rig_close(&rig);
    open_with_states(&rig, "pld-plus");
    assert_int_equal(rig.taps.want[0].layer, RIG_LAYERS / 2);
    rig_close(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(with_equal_states_it_copies_from_the_newest_occurrence),
        cmocka_unit_test(the_occurrence_with_the_likest_state_before_it_wins),
        cmocka_unit_test(only_the_newest_candidates_are_compared),
        cmocka_unit_test(unknown_tokens_short_texts_and_zero_states_are_legal),
        cmocka_unit_test(a_layer_that_the_target_lacks_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
