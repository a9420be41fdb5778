#include "tests/property/enumerate.h"

#include <math.h>
#include <string.h>

static size_t branch(struct enum_dice *dice, const double *weight, size_t n)
{
    double total = 0;
    for (size_t i = 0; i < n; i++)
        total += weight[i];
    if (dice->at == ENUM_MAX_CHOICES) {
        dice->overflow = true;
        return sb_pick_by(0, weight, n);
    }
    size_t taken = 0, next;
    if (dice->at < dice->n) {
        taken = dice->choice[dice->at].taken;
    } else {
        while (taken + 1 < n && !(weight[taken] > 0))
            taken++;
        dice->n++;
    }
    for (next = taken + 1; next < n && !(weight[next] > 0); next++)
        ;
    dice->choice[dice->at].taken = taken;
    dice->choice[dice->at].next = next < n ? next : SIZE_MAX;
    dice->at++;
    dice->weight *= weight[taken] / total;
    return taken;
}

static bool enum_flip(void *self, double probability)
{
    const double weight[] = { probability, 1 - probability };
    return branch(self, weight, 2) == 0;
}

static size_t enum_pick(void *self, const double *weight, size_t n)
{
    return branch(self, weight, n);
}

struct sb_dice enum_dice_start(struct enum_dice *dice)
{
    dice->at = 0;
    dice->weight = 1;
    return (struct sb_dice){ .flip = enum_flip, .pick = enum_pick, .self = dice };
}

bool enum_dice_next(struct enum_dice *dice)
{
    while (dice->n > 0 && dice->choice[dice->n - 1].next == SIZE_MAX)
        dice->n--;
    if (dice->n == 0)
        return false;
    dice->choice[dice->n - 1].taken = dice->choice[dice->n - 1].next;
    return true;
}

/* Prefixes are numbered by length, then as base-V digits. */
size_t enum_prefix(const struct enum_table *table, const sb_token *x, size_t n)
{
    size_t first = 0, count = 1, digits = 0;
    for (size_t i = 0; i < n; i++) {
        first += count;
        count *= table->n_vocab;
        digits = digits * table->n_vocab + (size_t)x[i];
    }
    return first + digits;
}

const double *enum_row(const struct enum_table *table, const sb_token *x, size_t n)
{
    return table->row[enum_prefix(table, x, n)];
}

/* Tokens on the way from the root (left out) to `node`. */
static size_t path_to(const struct sb_tree *tree, int32_t node, sb_token *x)
{
    size_t n = (size_t)tree->node[node].depth;
    for (size_t i = n; i-- > 0; node = tree->node[node].parent)
        x[i] = tree->node[node].token;
    return n;
}

struct walk {
    const struct enum_case *c;
    const struct sb_tree *tree;
};

static const double *target_row(void *self, int32_t node)
{
    const struct walk *walk = self;
    sb_token x[ENUM_MAX_LENGTH];
    return enum_row(walk->c->target, x, path_to(walk->tree, node, x));
}

static size_t target_argmax(void *self, int32_t node)
{
    const struct walk *walk = self;
    const double *p = target_row(self, node);
    size_t best = 0;
    for (size_t t = 1; t < walk->c->target->n_vocab; t++)
        if (p[t] > p[best])
            best = t;
    return best;
}

/* Add weight x the table's law of what follows x[0..n) up to `length` tokens. */
static void spread(double *law, const struct enum_table *table, sb_token *x, size_t n,
                   size_t length, double weight)
{
    if (n == length) {
        law[enum_prefix(table, x, n)] += weight;
        return;
    }
    const double *p = enum_row(table, x, n);
    for (size_t t = 0; t < table->n_vocab; t++) {
        x[n] = (sb_token)t;
        if (p[t] > 0)
            spread(law, table, x, n + 1, length, weight * p[t]);
    }
}

/* The rows that the output should follow, for prefixes of up to c->depth tokens. */
static void wanted_rows(struct enum_table *wanted, const struct enum_case *c)
{
    enum sb_draft_rows rows = sb_verifier_draft_rows(c->verifier, c->params);
    *wanted = *c->target;
    if (!c->verifier->law)
        return;
    size_t count = 1, first = 0;
    for (int32_t depth = 0; depth <= c->depth; depth++) {
        bool has_q = depth < c->depth || rows == SB_DRAFT_ROWS_ALL;
        for (size_t i = first; i < first + count; i++)
            c->verifier->law(c->params, wanted->row[i], c->target->row[i],
                             has_q ? c->draft->row[i] : NULL, c->target->n_vocab);
        first += count;
        count *= c->target->n_vocab;
    }
}

/* What the drafter's rows are where the verifier asked for them. */
static void give_rows(const struct enum_case *c, struct sb_tree *tree)
{
    enum sb_draft_rows rows = sb_verifier_draft_rows(c->verifier, c->params);
    for (int32_t i = 0; i < tree->n; i++) {
        sb_token x[ENUM_MAX_LENGTH];
        bool given = tree->node[i].kind == SB_DRAW_NONE ? rows == SB_DRAFT_ROWS_ALL
                                                        : rows >= SB_DRAFT_ROWS_PARENTS;
        if (given)
            tree->node[i].draft_row = enum_row(c->draft, x, path_to(tree, i, x));
    }
}

static void run_once(const struct enum_case *c, const struct enum_table *wanted,
                     struct sb_tree *tree, struct enum_dice *dice, double *law,
                     struct enum_result *result)
{
    static double scratch[4096];
    int32_t path[ENUM_MAX_NODES];
    uint8_t decision[ENUM_MAX_NODES];
    struct sb_verdict verdict = { .path = path, .decision = decision };
    struct sb_dice choose = enum_dice_start(dice);
    struct walk walk = { c, tree };
    struct sb_rows rows = {
        .row = target_row, .argmax = target_argmax, .self = &walk, .n_vocab = c->target->n_vocab
    };
    sb_tree_reset(tree, 0, c->depth);
    c->propose(c, &choose, tree);
    give_rows(c, tree);
    enum sb_status rc = sb_tree_check(tree, c->target->n_vocab, NULL);
    if (c->verifier->scratch_size &&
        c->verifier->scratch_size(c->params, c->target->n_vocab, tree->cap) > sizeof scratch)
        rc = SB_ENOMEM;
    if (rc == SB_OK)
        rc = c->verifier->verify(c->params, tree, &rows, &choose, scratch, &verdict, NULL);
    if (rc != SB_OK) {
        result->status = rc;
        return;
    }
    sb_token x[ENUM_MAX_LENGTH + 1];
    size_t n = path_to(tree, path[verdict.n_path - 1], x);
    x[n++] = verdict.final_token;
    result->accepted += dice->weight * (verdict.n_path - 1);
    result->first_accept += dice->weight * (verdict.n_path > 1);
    result->first[x[0]] += dice->weight;
    result->total += dice->weight;
    result->runs++;
    spread(law, wanted, x, n, (size_t)c->depth + 1, dice->weight);
}

struct enum_result enum_run(const struct enum_case *c)
{
    enum { SEQUENCES = 1 + 5 + 25 + 125 + 625 };
    static struct enum_table wanted;
    struct enum_result result = { .status = SB_OK };
    double got[SEQUENCES] = { 0 }, want[SEQUENCES] = { 0 };
    struct enum_dice dice = { 0 };
    struct sb_tree tree;
    sb_token x[ENUM_MAX_LENGTH + 1];
    result.status = sb_tree_create(&tree, ENUM_MAX_NODES, NULL);
    if (result.status != SB_OK)
        return result;
    wanted_rows(&wanted, c);
    spread(want, &wanted, x, 0, (size_t)c->depth + 1, 1);
    do
        run_once(c, &wanted, &tree, &dice, got, &result);
    while (result.status == SB_OK && !dice.overflow && enum_dice_next(&dice));
    sb_tree_finish(&tree);
    if (dice.overflow)
        result.status = SB_EINTERNAL;
    for (size_t i = 0; i < SEQUENCES; i++) {
        double error = fabs(got[i] - want[i]);
        result.max_error = error > result.max_error ? error : result.max_error;
        result.variation += error / 2;
    }
    return result;
}

static float log_of(double q)
{
    return q < 1 ? (float)log(q) : 0;
}

/* Level by level: c->width draws under each node that the level before made. */
static void grow(const struct enum_case *c, const struct sb_dice *dice, struct sb_tree *tree,
                 void (*children)(const struct enum_case *, const struct sb_dice *,
                                  struct sb_tree *, int32_t, const double *))
{
    for (int32_t node = 0; node < tree->n; node++) {
        sb_token x[ENUM_MAX_LENGTH];
        if (tree->node[node].depth < c->depth)
            children(c, dice, tree, node, enum_row(c->draft, x, path_to(tree, node, x)));
    }
}

static void iid_children(const struct enum_case *c, const struct sb_dice *dice,
                         struct sb_tree *tree, int32_t node, const double *q)
{
    for (int32_t i = 0; i < c->width; i++) {
        size_t t = dice->pick(dice->self, q, c->draft->n_vocab);
        sb_tree_draw(tree, node, (sb_token)t, SB_DRAW_IID, q, log_of(q[t]), 0);
    }
}

static void wor_children(const struct enum_case *c, const struct sb_dice *dice,
                         struct sb_tree *tree, int32_t node, const double *q)
{
    double left[ENUM_MAX_VOCAB], sum = 1;
    memcpy(left, q, c->draft->n_vocab * sizeof *q);
    for (int32_t i = 0; i < c->width && sum > 0; i++) {
        size_t t = dice->pick(dice->self, left, c->draft->n_vocab);
        sb_tree_draw(tree, node, (sb_token)t, SB_DRAW_WOR, q, log_of(q[t]), 0);
        left[t] = 0;
        sum = 0;
        for (size_t j = 0; j < c->draft->n_vocab; j++)
            sum += left[j];
    }
}

static void top_children(const struct enum_case *c, const struct sb_dice *dice,
                         struct sb_tree *tree, int32_t node, const double *q)
{
    for (int32_t i = 0; i < c->width; i++) {
        int32_t best = -1;
        for (size_t t = 0; t < c->draft->n_vocab; t++)
            if (sb_tree_child(tree, node, (sb_token)t) < 0 && (best < 0 || q[t] > q[best]))
                best = (int32_t)t;
        sb_tree_add(tree, node, best, 0);
    }
}

static size_t most_likely(const double *q, size_t n)
{
    size_t best = 0;
    for (size_t t = 1; t < n; t++)
        best = q[t] > q[best] ? t : best;
    return best;
}

/* left[n] = q without token t; returns its sum. */
static double leave_out(double *left, const double *q, size_t t, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        left[i] = i == t ? 0 : q[i];
        sum += left[i];
    }
    return sum;
}

static void hub_children(const struct enum_case *c, const struct sb_dice *dice,
                         struct sb_tree *tree, int32_t node, const double *q)
{
    double left[ENUM_MAX_VOCAB];
    size_t n = c->draft->n_vocab, hub = most_likely(q, n), x = dice->pick(dice->self, q, n);
    sb_tree_draw(tree, node, (sb_token)x, SB_DRAW_HUB, q, log_of(q[x]), 0);
    if (x == hub && !(leave_out(left, q, hub, n) > 0))
        return;
    size_t other = x == hub ? dice->pick(dice->self, left, n) : hub;
    sb_tree_draw(tree, node, (sb_token)other, SB_DRAW_HUB, q, log_of(q[other]), 0);
}

static void topk1_children(const struct enum_case *c, const struct sb_dice *dice,
                           struct sb_tree *tree, int32_t node, const double *q)
{
    double left[ENUM_MAX_VOCAB];
    size_t n = c->draft->n_vocab;
    memcpy(left, q, n * sizeof *q);
    for (int32_t i = 1; i < c->width; i++) {
        size_t top = most_likely(left, n);
        double mass = left[top];
        if (!(leave_out(left, left, top, n) > 0)) {
            left[top] = mass; /* the last of q's support is the sampled one */
            break;
        }
        sb_tree_draw(tree, node, (sb_token)top, SB_DRAW_TOPK1, q, log_of(q[top]), 0);
    }
    size_t y = dice->pick(dice->self, left, n);
    sb_tree_draw(tree, node, (sb_token)y, SB_DRAW_TOPK1, q, log_of(q[y]), 0);
}

void enum_propose_iid(const struct enum_case *c, const struct sb_dice *dice, struct sb_tree *tree)
{
    grow(c, dice, tree, iid_children);
}

void enum_propose_wor(const struct enum_case *c, const struct sb_dice *dice, struct sb_tree *tree)
{
    grow(c, dice, tree, wor_children);
}

void enum_propose_top(const struct enum_case *c, const struct sb_dice *dice, struct sb_tree *tree)
{
    grow(c, dice, tree, top_children);
}

void enum_propose_hub(const struct enum_case *c, const struct sb_dice *dice, struct sb_tree *tree)
{
    grow(c, dice, tree, hub_children);
}

void enum_propose_topk1(const struct enum_case *c, const struct sb_dice *dice, struct sb_tree *tree)
{
    grow(c, dice, tree, topk1_children);
}
