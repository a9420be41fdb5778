#include "harness/decode/draw.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "kernels/kernels.h"

/* ---- the likeliest ---- */

/* Insertion into a short sorted list. Almost every entry of a row fails the one comparison with the
 * list's last, and compilers make vectors of a block's comparisons. */
enum { BLOCK = 64 };
#define DEFINE_TOP(name, type)                                              \
    size_t name(int32_t *id, size_t k, const type *x, size_t n, type floor) \
    {                                                                       \
        size_t count = 0;                                                   \
        for (size_t from = 0, to; from < n; from = to) {                    \
            int some = 0;                                                   \
            to = n - from < BLOCK ? n : from + BLOCK;                       \
            for (size_t i = from; i < to; i++)                              \
                some |= x[i] > floor;                                       \
            for (size_t i = from; i < to && some; i++) {                    \
                if (!(x[i] > floor))                                        \
                    continue;                                               \
                size_t at = count < k ? count++ : k - 1;                    \
                for (; at > 0 && x[i] > x[id[at - 1]]; at--)                \
                    id[at] = id[at - 1];                                    \
                id[at] = (int32_t)i;                                        \
                if (count == k)                                             \
                    floor = x[id[k - 1]];                                   \
            }                                                               \
        }                                                                   \
        return count;                                                       \
    }
DEFINE_TOP(sb_top_logits, float)
DEFINE_TOP(sb_top_weights, double)

/* ---- urns ---- */

static size_t part_size(const struct sb_urn *urn, size_t part)
{
    size_t rest = urn->n - part * SB_URN_PART;
    return rest < SB_URN_PART ? rest : SB_URN_PART;
}

/* In eight lanes, added up in one order: the same sum on every machine, and compilers make vectors
 * of it. Positive exactly when one of x is. */
static double sum_part(const double *x, size_t n)
{
    double lane[8] = { 0 };
    size_t i = 0;
    for (; i + 8 <= n; i += 8)
        for (size_t j = 0; j < 8; j++)
            lane[j] += x[i + j];
    for (; i < n; i++)
        lane[i % 8] += x[i];
    return ((lane[0] + lane[4]) + (lane[1] + lane[5])) +
           ((lane[2] + lane[6]) + (lane[3] + lane[7]));
}

size_t sb_urn_bytes(size_t n)
{
    return (n / SB_URN_PART + 1) * sizeof(double);
}

void sb_urn_fill(struct sb_urn *urn, const double *q, size_t n, void *memory)
{
    urn->q = q;
    urn->n = n;
    urn->n_parts = (n + SB_URN_PART - 1) / SB_URN_PART;
    urn->part = memory;
    urn->n_taken = 0;
    for (size_t i = 0; i < urn->n_parts; i++)
        urn->part[i] = sum_part(q + i * SB_URN_PART, part_size(urn, i));
}

double sb_urn_left(const struct sb_urn *urn)
{
    double sum = 0;
    for (size_t i = 0; i < urn->n_parts; i++)
        sum += urn->part[i];
    return sum;
}

/* What is left of a part's weights: the row itself, or a copy without the tokens taken. */
static const double *left_of(const struct sb_urn *urn, size_t part, double copy[SB_URN_PART])
{
    const double *q = urn->q + part * SB_URN_PART;
    bool copied = false;
    for (int32_t i = 0; i < urn->n_taken; i++) {
        if ((size_t)urn->taken[i] / SB_URN_PART != part)
            continue;
        if (!copied)
            memcpy(copy, q, part_size(urn, part) * sizeof *q);
        copied = true;
        copy[(size_t)urn->taken[i] % SB_URN_PART] = 0;
    }
    return copied ? copy : q;
}

sb_token sb_urn_draw(const struct sb_urn *urn, const struct sb_dice *dice)
{
    double copy[SB_URN_PART];
    size_t part = urn->n_parts > 1 ? dice->pick(dice->self, urn->part, urn->n_parts) : 0;
    const double *left = left_of(urn, part, copy);
    return (sb_token)(part * SB_URN_PART + dice->pick(dice->self, left, part_size(urn, part)));
}

void sb_urn_take(struct sb_urn *urn, sb_token token)
{
    double copy[SB_URN_PART];
    size_t part = (size_t)token / SB_URN_PART;
    assert(urn->n_taken < SB_DRAW_WIDTH);
    urn->taken[urn->n_taken++] = token;
    urn->part[part] = sum_part(left_of(urn, part, copy), part_size(urn, part));
}

/* ---- the rules ---- */

static const struct {
    const char *name;
    enum sb_draw_kind kind;
} rules[] = {
    [SB_RULE_IID] = { "iid", SB_DRAW_IID },       [SB_RULE_WOR] = { "wor", SB_DRAW_WOR },
    [SB_RULE_PATHS] = { "paths", SB_DRAW_PATHS }, [SB_RULE_HUB] = { "hub", SB_DRAW_HUB },
    [SB_RULE_TOPK1] = { "topk1", SB_DRAW_TOPK1 }, [SB_RULE_COUPLED] = { "coupled", SB_DRAW_WOR },
};

enum sb_draw_rule sb_draw_rule_of(const char *name)
{
    size_t rule = 0;
    while (rule + 1 < sizeof rules / sizeof *rules && strcmp(rules[rule].name, name) != 0)
        rule++;
    assert(strcmp(rules[rule].name, name) == 0);
    return (enum sb_draw_rule)rule;
}

enum sb_draw_kind sb_draw_rule_kind(enum sb_draw_rule rule)
{
    return rules[rule].kind;
}

/* A set under way. */
struct set {
    struct sb_tree *tree;
    int32_t parent, source, n_draws;
    enum sb_draw_kind kind;
    const double *q;
    size_t n_vocab;
    const struct sb_dice *dice;
    void *scratch;
};

static void record(struct set *s, sb_token token)
{
    float log_q = (float)sb_log(s->q[token]);
    if (sb_tree_draw(s->tree, s->parent, token, s->kind, s->q, log_q < 0 ? log_q : 0, s->source) >=
        0)
        s->n_draws++;
}

static void draw_repeatedly(struct set *s, int32_t n)
{
    struct sb_urn urn;
    sb_urn_fill(&urn, s->q, s->n_vocab, s->scratch);
    for (int32_t i = 0; i < n; i++)
        record(s, sb_urn_draw(&urn, s->dice));
}

static void draw_apart(struct set *s, int32_t n)
{
    struct sb_urn urn;
    sb_urn_fill(&urn, s->q, s->n_vocab, s->scratch);
    for (int32_t i = 0; i < n && sb_urn_left(&urn) > 0; i++) {
        sb_token token = sb_urn_draw(&urn, s->dice);
        record(s, token);
        sb_urn_take(&urn, token);
    }
}

static void draw_pair(struct set *s)
{
    struct sb_urn urn;
    int32_t hub;
    if (sb_top_weights(&hub, 1, s->q, s->n_vocab, 0) == 0)
        return;
    sb_urn_fill(&urn, s->q, s->n_vocab, s->scratch);
    sb_token first = sb_urn_draw(&urn, s->dice);
    record(s, first);
    sb_urn_take(&urn, hub);
    if (first != hub)
        record(s, hub);
    else if (sb_urn_left(&urn) > 0)
        record(s, sb_urn_draw(&urn, s->dice));
}

static void draw_top_and_one(struct set *s, int32_t n)
{
    struct sb_urn urn;
    int32_t top[SB_DRAW_WIDTH];
    size_t found = sb_top_weights(top, (size_t)n, s->q, s->n_vocab, 0);
    sb_urn_fill(&urn, s->q, s->n_vocab, s->scratch);
    for (size_t i = 0; i + 1 < found; i++) {
        record(s, top[i]);
        sb_urn_take(&urn, top[i]);
    }
    if (found > 0)
        record(s, sb_urn_draw(&urn, s->dice));
}

/* Noise belongs to the position of the tokens drawn. */
static void race(struct set *s, int32_t n)
{
    double *weight = s->scratch;
    size_t left = 0;
    for (size_t i = 0; i < s->n_vocab && left < (size_t)n; i++)
        left += s->q[i] > 0;
    memcpy(weight, s->q, s->n_vocab * sizeof *weight);
    sb_dice_seek(s->dice, (uint64_t)s->tree->node[s->parent].depth + 1);
    for (; left > 0; left--) {
        size_t winner = s->dice->race(s->dice->self, weight, s->n_vocab);
        record(s, (sb_token)winner);
        weight[winner] = 0;
    }
}

/* How many of the draws that made `node` arrived at it. */
static int32_t arrivals(const struct sb_tree *tree, int32_t node)
{
    const struct sb_node *parent = &tree->node[tree->node[node].parent];
    int32_t n = 0;
    for (int32_t i = 0; i < parent->n_draws; i++)
        n += tree->draw[parent->first_draw + i] == node;
    return n;
}

size_t sb_draw_scratch_bytes(size_t n_vocab)
{
    size_t race_bytes = n_vocab * sizeof(double), urn_bytes = sb_urn_bytes(n_vocab);
    return race_bytes > urn_bytes ? race_bytes : urn_bytes;
}

int32_t sb_draw_children(struct sb_tree *tree, int32_t parent, enum sb_draw_rule rule,
                         const double *q, size_t n_vocab, int32_t width, const struct sb_dice *dice,
                         void *scratch, int32_t source)
{
    struct set s = { tree, parent, source, 0, rules[rule].kind, q, n_vocab, dice, scratch };
    int32_t n = rule == SB_RULE_HUB                   ? 2
                : rule == SB_RULE_PATHS && parent > 0 ? arrivals(tree, parent)
                                                      : width;
    assert(n >= 1 && n <= SB_DRAW_WIDTH);
    if (!sb_tree_has_room(tree, parent, s.kind, n))
        return 0;
    switch (rule) {
    case SB_RULE_IID:
    case SB_RULE_PATHS:
        draw_repeatedly(&s, n);
        break;
    case SB_RULE_HUB:
        draw_pair(&s);
        break;
    case SB_RULE_TOPK1:
        draw_top_and_one(&s, n);
        break;
    case SB_RULE_COUPLED:
        if (dice->race) {
            race(&s, n);
            break;
        }
        draw_apart(&s, n);
        break;
    case SB_RULE_WOR:
        draw_apart(&s, n);
        break;
    }
    return s.n_draws;
}

int32_t sb_choose_children(struct sb_tree *tree, int32_t parent, const float *logits,
                           size_t n_vocab, int32_t width, int32_t source)
{
    int32_t top[SB_DRAW_WIDTH], added = 0;
    assert(width >= 1 && width <= SB_DRAW_WIDTH);
    size_t found = sb_top_logits(top, (size_t)width, logits, n_vocab, -INFINITY);
    while ((size_t)added < found && sb_tree_add(tree, parent, top[added], source) >= 0)
        added++;
    return added;
}
