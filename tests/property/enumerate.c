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

/* The prefix and the path to `node`: what the rows there are rows for. */
static size_t context_of(const struct enum_case *c, const struct sb_tree *tree, int32_t node,
                         sb_token *x)
{
    if (c->n_prefix > 0)
        memcpy(x, c->prefix, c->n_prefix * sizeof *x);
    return c->n_prefix + path_to(tree, node, x + c->n_prefix);
}

struct walk {
    const struct enum_case *c;
    const struct sb_tree *tree;
};

static const double *target_row(void *self, int32_t node)
{
    const struct walk *walk = self;
    sb_token x[ENUM_MAX_LENGTH];
    return enum_row(walk->c->target, x, context_of(walk->c, walk->tree, node, x));
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

enum sb_status enum_step(const struct enum_case *c, const struct sb_dice *draft_dice,
                         const struct sb_dice *verify_dice, struct sb_tree *tree,
                         struct sb_verdict *verdict)
{
    static double scratch[2048];
    struct walk walk = { c, tree };
    struct sb_rows rows = {
        .row = target_row, .argmax = target_argmax, .self = &walk, .n_vocab = c->target->n_vocab
    };
    size_t used = c->verifier->scratch_size
                      ? c->verifier->scratch_size(c->params, rows.n_vocab, tree->cap)
                      : 0;
    if (used > sizeof scratch)
        return SB_ENOMEM;
    memset(scratch, 0xff, used); /* NaN: reading what was not written shows */
    sb_tree_reset(tree, 0, c->depth);
    c->propose(c, draft_dice, tree);
    give_rows(c, tree);
    enum sb_status rc = sb_tree_check(tree, rows.n_vocab, NULL);
    return rc == SB_OK
               ? c->verifier->verify(c->params, tree, &rows, verify_dice, scratch, verdict, NULL)
               : rc;
}

static void run_once(const struct enum_case *c, const struct enum_table *wanted,
                     struct sb_tree *tree, struct enum_dice *dice, double *law,
                     struct enum_result *result)
{
    int32_t path[ENUM_MAX_NODES];
    uint8_t decision[ENUM_MAX_NODES];
    struct sb_verdict verdict = { .path = path, .decision = decision };
    struct sb_dice choose = enum_dice_start(dice);
    enum sb_status rc = enum_step(c, &choose, &choose, tree, &verdict);
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

struct enum_decoded enum_decode(const struct enum_case *c, uint64_t key, sb_token *x, size_t length)
{
    struct enum_decoded out = { .status = SB_OK };
    struct sb_rng_dice draft = sb_rng_dice_make(key, SB_STREAM_DRAFT, SB_STREAM_DRAFT);
    struct sb_rng_dice verify = sb_rng_dice_make(key, SB_STREAM_ACCEPT, SB_STREAM_SAMPLE);
    int32_t path[ENUM_MAX_NODES], draw[ENUM_MAX_NODES];
    uint8_t decision[ENUM_MAX_NODES];
    struct sb_node node[ENUM_MAX_NODES];
    const double *draw_q[ENUM_MAX_NODES];
    struct sb_tree tree = { .node = node, .draw = draw, .draw_q = draw_q, .cap = ENUM_MAX_NODES };
    struct sb_verdict verdict = { .path = path, .decision = decision };
    for (size_t n = 0; n < length;) {
        struct enum_case step = *c;
        step.prefix = x;
        step.n_prefix = n;
        if ((size_t)step.depth > length - n - 1)
            step.depth = (int32_t)(length - n - 1);
        if (c->verifier->bottom_up)
            sb_rng_dice_rekey(&draft, sb_rng_mix(key, n));
        struct sb_dice draft_dice = sb_rng_dice_at(&draft, n);
        struct sb_dice verify_dice = sb_rng_dice_at(&verify, n);
        out.status = enum_step(&step, &draft_dice, &verify_dice, &tree, &verdict);
        if (out.status != SB_OK)
            return out;
        for (int32_t i = 1; i < verdict.n_path; i++)
            x[n++] = tree.node[path[i]].token;
        x[n++] = verdict.final_token;
        out.accepted += verdict.n_path - 1;
        out.first_accepted = out.steps++ == 0 ? verdict.n_path - 1 : out.first_accepted;
    }
    return out;
}

static float log_of(double q)
{
    return q < 1 ? (float)log(q) : 0;
}

/* Level by level: `children` adds those of one node, whose row of c->draft is q. */
static void grow(const struct enum_case *c, const struct sb_dice *dice, struct sb_tree *tree,
                 void (*children)(const struct enum_case *, const struct sb_dice *,
                                  struct sb_tree *, int32_t, const double *))
{
    int32_t level = -1;
    for (int32_t node = 0; node < tree->n; node++) {
        sb_token x[ENUM_MAX_LENGTH];
        if (tree->node[node].depth >= c->depth)
            return;
        if (tree->node[node].depth > level)
            sb_dice_seek(dice, (uint64_t)++level + 1);
        children(c, dice, tree, node, enum_row(c->draft, x, context_of(c, tree, node, x)));
    }
}

static void draw(const struct sb_dice *dice, struct sb_tree *tree, int32_t node,
                 enum sb_draw_kind kind, const double *q, size_t n)
{
    size_t t = dice->pick(dice->self, q, n);
    sb_tree_draw(tree, node, (sb_token)t, kind, q, log_of(q[t]), 0);
}

static void iid_children(const struct enum_case *c, const struct sb_dice *dice,
                         struct sb_tree *tree, int32_t node, const double *q)
{
    for (int32_t i = 0; i < c->width; i++)
        draw(dice, tree, node, SB_DRAW_IID, q, c->draft->n_vocab);
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

static void path_children(const struct enum_case *c, const struct sb_dice *dice,
                          struct sb_tree *tree, int32_t node, const double *q)
{
    const struct sb_node *parent = node > 0 ? &tree->node[tree->node[node].parent] : NULL;
    int32_t arrivals = parent ? 0 : c->width;
    for (int32_t d = 0; parent && d < parent->n_draws; d++)
        arrivals += tree->draw[parent->first_draw + d] == node;
    if (tree->node[node].depth == 1 && tree->node[node].token == 0)
        return;
    for (int32_t i = 0; i < arrivals; i++)
        draw(dice, tree, node, SB_DRAW_PATHS, q, c->draft->n_vocab);
}

static void mix_children(const struct enum_case *c, const struct sb_dice *dice,
                         struct sb_tree *tree, int32_t node, const double *q)
{
    sb_token x[ENUM_MAX_LENGTH];
    const double *row[] = { q, enum_row(c->second, x, context_of(c, tree, node, x)) };
    for (int32_t i = 0; i < c->width; i++)
        draw(dice, tree, node, SB_DRAW_MIX, row[i % 2], c->draft->n_vocab);
}

static void race_children(const struct enum_case *c, const struct sb_dice *dice,
                          struct sb_tree *tree, int32_t node, const double *q)
{
    sb_tree_add(tree, node, (sb_token)dice->race(dice->self, q, c->draft->n_vocab), 0);
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

void enum_propose_paths(const struct enum_case *c, const struct sb_dice *dice, struct sb_tree *tree)
{
    grow(c, dice, tree, path_children);
}

void enum_propose_mix(const struct enum_case *c, const struct sb_dice *dice, struct sb_tree *tree)
{
    grow(c, dice, tree, mix_children);
}

void enum_propose_race(const struct enum_case *c, const struct sb_dice *dice, struct sb_tree *tree)
{
    grow(c, dice, tree, race_children);
}

void enum_propose_hub(const struct enum_case *c, const struct sb_dice *dice, struct sb_tree *tree)
{
    grow(c, dice, tree, hub_children);
}

void enum_propose_topk1(const struct enum_case *c, const struct sb_dice *dice, struct sb_tree *tree)
{
    grow(c, dice, tree, topk1_children);
}
