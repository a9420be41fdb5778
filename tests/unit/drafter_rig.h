/* A drafter opened by its spec and asked step by step, without a session. */
#ifndef SB_TESTS_DRAFTER_RIG_H
#define SB_TESTS_DRAFTER_RIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "harness/core/alloc.h"
#include "harness/decode/drafter.h"

enum { RIG_CONTEXT = 512, RIG_CAP = 130, RIG_VOCAB = 100, RIG_LAYERS = 6, RIG_WIDTH = 4 };

struct rig {
    void *st, *params;
    struct sb_spec spec;
    struct sb_policy policy;
    struct sb_tree tree;
    const struct sb_drafter_ops *ops;
    int64_t constant_k;
    size_t n_prompt; /* that contexts claim; 0: 1 */
    struct sb_tap_plan
        taps; /* what the drafter asked for, of a target of RIG_LAYERS and RIG_WIDTH */
    const float *tap[SB_MAX_TAPS]; /* the test's rows for it */
};

static inline enum sb_status rig_open(struct rig *rig, const char *text, struct sb_error *err)
{
    *rig = (struct rig){ .taps = { .n_layers = RIG_LAYERS, .d_model = RIG_WIDTH } };
    assert_int_equal(sb_spec_parse(&rig->spec, text, NULL), SB_OK);
    rig->ops = sb_drafter_find(rig->spec.name);
    assert_non_null(rig->ops);
    rig->st = sb_alloc_zero(1, rig->ops->state_size);
    rig->params = sb_alloc_zero(1, rig->ops->params_size);
    rig->policy =
        (struct sb_policy){ .ops = sb_policy_find("constant"), .params = &rig->constant_k };
    assert_int_equal(sb_tree_create(&rig->tree, RIG_CAP, NULL), SB_OK);
    assert_int_equal(sb_params_apply(rig->params, rig->ops->params, &rig->spec, "it", NULL), SB_OK);
    return rig->ops->open(rig->st,
                          &(struct sb_drafter_env){ .max_context = RIG_CONTEXT,
                                                    .n_vocab = RIG_VOCAB,
                                                    .params = rig->params,
                                                    .taps = &rig->taps,
                                                    .policy = &rig->policy },
                          err);
}

static inline void rig_close(struct rig *rig)
{
    rig->ops->close(rig->st);
    sb_tree_finish(&rig->tree);
    sb_spec_finish(&rig->spec);
    sb_free(rig->st);
    sb_free(rig->params);
}

static inline struct sb_context rig_context(const struct rig *rig, const sb_token *x, size_t n)
{
    return (struct sb_context){ .tokens = x,
                                .n = n,
                                .n_prompt = rig->n_prompt ? rig->n_prompt : 1,
                                .policy = &rig->policy,
                                .taps = rig->tap };
}

static inline void rig_begin(struct rig *rig, const sb_token *x, size_t n)
{
    struct sb_context ctx = rig_context(rig, x, n);
    assert_int_equal(rig->ops->begin(rig->st, &ctx, NULL), SB_OK);
}

/* The step that made the text x[0..n); for drafters that look at the text alone. */
static inline void rig_observe(struct rig *rig, const sb_token *x, size_t n)
{
    struct sb_context ctx = rig_context(rig, x, n);
    assert_int_equal(rig->ops->observe(rig->st, &ctx, &(struct sb_outcome){ 0 }, NULL), SB_OK);
}

/* Draft for x[0..n); returns how many nodes, the root left out. */
static inline int32_t rig_propose(struct rig *rig, const sb_token *x, size_t n)
{
    struct sb_context ctx = rig_context(rig, x, n);
    sb_tree_reset(&rig->tree, x[n - 1], RIG_CONTEXT);
    assert_int_equal(rig->ops->propose(rig->st, &ctx, &rig->tree, NULL), SB_OK);
    assert_int_equal(sb_tree_check(&rig->tree, RIG_VOCAB, NULL), SB_OK);
    assert_true(rig->ops->makes_trees || sb_tree_is_chain(&rig->tree));
    return rig->tree.n - 1;
}

/* Nodes after the root are these tokens, below these parents (NULL: a chain). */
static inline void rig_expect(const struct rig *rig, const sb_token *token, const int32_t *parent,
                              int32_t n)
{
    assert_int_equal(rig->tree.n - 1, n);
    for (int32_t i = 0; i < n; i++) {
        assert_int_equal(rig->tree.node[i + 1].token, token[i]);
        assert_int_equal(rig->tree.node[i + 1].parent, parent ? parent[i] : i);
    }
}

/* Oracle replay: the target says text[0..n) whatever is drafted. Returns how many drafted tokens it
 * would accept; *steps: in how many steps. */
static inline int32_t rig_replay(struct rig *rig, const sb_token *text, size_t n_prompt, size_t n,
                                 int32_t *steps)
{
    int32_t accepted = 0;
    *steps = 0;
    rig_begin(rig, text, n_prompt + 1);
    for (size_t at = n_prompt + 1; at < n; ++*steps) {
        rig_propose(rig, text, at);
        for (int32_t node = 0; at < n; at++, accepted++)
            if ((node = sb_tree_child(&rig->tree, node, text[at])) < 0)
                break;
        at++; /* the bonus token */
        if (at <= n && rig->ops->observe)
            rig_observe(rig, text, at);
    }
    return accepted;
}

#define SEQ(...) \
    (const sb_token[]){ __VA_ARGS__ }, sizeof(sb_token[]){ __VA_ARGS__ } / sizeof(sb_token)

#endif
