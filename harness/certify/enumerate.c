#include "harness/certify/enumerate.h"

#include <math.h>
#include <string.h>

#include "harness/core/alloc.h"

/* ---- dice ---- */

static void note_trouble(struct sb_enum_dice *dice, const char *what)
{
    dice->trouble = dice->trouble ? dice->trouble : what;
}

static size_t branch(struct sb_enum_dice *dice, const double *weight, size_t n)
{
    double total = 0;
    for (size_t i = 0; i < n; i++)
        total += weight[i];
    if (dice->at == SB_ENUM_CHOICES) {
        note_trouble(dice, "makes more choices than can be enumerated");
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

static void enum_seek(void *self, uint64_t offset)
{
    struct sb_enum_dice *dice = self;
    dice->offset = offset;
}

static double enum_uniform(void *self)
{
    note_trouble(self, "draws a uniform number, which has no finite set of outcomes");
    return .5;
}

/* With x = E_i / q_i and r = x / y, y = E_j / p_j, both wins mean p_i / q_i <= r <= p_j / q_j and
 * E_k >= max(q_k x, p_k y) for the others. Integrating y out leaves q_i p_j / D(r)^2 with
 * D(r) = q_i r + p_j + sum_k max(q_k r, p_k), linear between the ratios p_k / q_k, where its integral
 * is (b - a) / (D(a) D(b)). */
static double denominator(const double *q, const double *p, size_t n, size_t i, size_t j, double r)
{
    double d = q[i] * r + p[j];
    for (size_t k = 0; k < n; k++)
        if (k != i && k != j)
            d += fmax(q[k] * r, p[k]);
    return d;
}

double sb_race_joint(const double *q, const double *p, size_t n, size_t i, size_t j)
{
    if (i == j) {
        double d = 0;
        for (size_t k = 0; k < n; k++)
            d += fmax(q[k] / q[i], p[k] / p[i]);
        return 1 / d;
    }
    double from = p[i] / q[i], to = q[j] > 0 ? p[j] / q[j] : INFINITY, sum = 0;
    while (from < to) {
        double next = to;
        for (size_t k = 0; k < n; k++)
            if (q[k] > 0 && p[k] / q[k] > from && p[k] / q[k] < next)
                next = p[k] / q[k];
        double d = denominator(q, p, n, i, j, from);
        if (isinf(next)) { /* beyond the last ratio D grows with the sum of q over all but j */
            double slope = 0;
            for (size_t k = 0; k < n; k++)
                slope += k == j ? 0 : q[k];
            sum += 1 / (slope * d);
        } else {
            sum += (next - from) / (d * denominator(q, p, n, i, j, next));
        }
        from = next;
    }
    return q[i] * p[j] * sum;
}

static size_t enum_race(void *self, const double *weight, size_t n)
{
    struct sb_enum_dice *dice = self;
    double law[SB_ENUM_VOCAB];
    size_t n_before = 0, before = 0;
    for (size_t r = 0; r < dice->n_races; r++) {
        if (dice->race[r].offset != dice->offset)
            continue;
        before = r;
        n_before++;
    }
    if (n_before > 1 || dice->n_races == SB_ENUM_RACES || n > SB_ENUM_VOCAB)
        note_trouble(dice, "runs more races at one position than can be enumerated");
    memcpy(law, weight, n * sizeof *law);
    for (size_t t = 0; t < n && n_before == 1 && !dice->trouble; t++)
        if (weight[t] > 0)
            law[t] =
                sb_race_joint(dice->race[before].weight, weight, n, dice->race[before].winner, t);
    size_t winner = branch(dice, law, n);
    if (!dice->trouble) {
        memcpy(dice->race[dice->n_races].weight, weight, n * sizeof *weight);
        dice->race[dice->n_races].offset = dice->offset;
        dice->race[dice->n_races++].winner = winner;
    }
    return winner;
}

struct sb_dice sb_enum_dice_start(struct sb_enum_dice *dice)
{
    dice->at = dice->n_races = 0;
    dice->offset = 0;
    dice->weight = 1;
    return (struct sb_dice){ .flip = enum_flip,
                             .pick = enum_pick,
                             .self = dice,
                             .seek = enum_seek,
                             .uniform = enum_uniform,
                             .race = enum_race };
}

bool sb_enum_dice_next(struct sb_enum_dice *dice)
{
    while (dice->n > 0 && dice->choice[dice->n - 1].next == SIZE_MAX)
        dice->n--;
    if (dice->n == 0)
        return false;
    dice->choice[dice->n - 1].taken = dice->choice[dice->n - 1].next;
    return true;
}

/* ---- tables ---- */

size_t sb_enum_prefix(const struct sb_enum_table *table, const sb_token *x, size_t n)
{
    size_t first = 0, count = 1, digits = 0;
    for (size_t i = 0; i < n; i++) {
        first += count;
        count *= table->n_vocab;
        digits = digits * table->n_vocab + (size_t)x[i];
    }
    return first + digits;
}

const double *sb_enum_row(const struct sb_enum_table *table, const sb_token *x, size_t n)
{
    return table->row[sb_enum_prefix(table, x, n)];
}

static size_t argmax(const double *row, size_t n)
{
    size_t best = 0;
    for (size_t t = 1; t < n; t++)
        if (row[t] > row[best])
            best = t;
    return best;
}

/* How many prefixes have fewer than `length` tokens. */
static size_t n_prefixes(size_t n_vocab, size_t length)
{
    size_t n = 0, level = 1;
    for (size_t i = 0; i < length; i++, level *= n_vocab)
        n += level;
    return n;
}

/* ---- one case ---- */

struct bench {
    const struct sb_enum_case *c;
    size_t n_vocab, length;             /* length: tokens of a sequence, depth + 1 */
    struct sb_enum_table seen, claimed; /* target rows as the verifier gets them; the law claimed */
    float logits[SB_ENUM_ROWS][SB_ENUM_VOCAB];
    double got[SB_ENUM_SEQUENCES], want[SB_ENUM_SEQUENCES];
    struct sb_enum_dice dice;
    struct sb_tree tree;
    int32_t path[SB_ENUM_NODES];
    uint8_t decision[SB_ENUM_NODES];
    void *scratch;
};

/* Tokens on the way from the root (left out) to `node`. */
static size_t path_to(const struct sb_tree *tree, int32_t node, sb_token *x)
{
    size_t n = (size_t)tree->node[node].depth;
    for (size_t i = n; i-- > 0; node = tree->node[node].parent)
        x[i] = tree->node[node].token;
    return n;
}

static size_t prefix_of(const struct bench *b, int32_t node)
{
    sb_token x[SB_ENUM_DEPTH + 2];
    size_t n = path_to(&b->tree, node, x);
    return sb_enum_prefix(&b->seen, x, n);
}

static const double *target_row(void *self, int32_t node)
{
    const struct bench *b = self;
    return b->seen.row[prefix_of(b, node)];
}

static const float *target_logits(void *self, int32_t node)
{
    const struct bench *b = self;
    return b->logits[prefix_of(b, node)];
}

static size_t target_argmax(void *self, int32_t node)
{
    const struct bench *b = self;
    return argmax(b->c->target->row[prefix_of(b, node)], b->n_vocab);
}

/* Add weight x the claimed law of what follows x[0..n) up to b->length tokens. */
static void spread(const struct bench *b, double *law, sb_token *x, size_t n, double weight)
{
    if (n == b->length) {
        law[sb_enum_prefix(&b->claimed, x, n)] += weight;
        return;
    }
    const double *p = sb_enum_row(&b->claimed, x, n);
    for (size_t t = 0; t < b->n_vocab; t++) {
        x[n] = (sb_token)t;
        if (p[t] > 0)
            spread(b, law, x, n + 1, weight * p[t]);
    }
}

/* Rows as a session would show them, and the law that the verifier claims to leave: its own of p and
 * q, where q is known, or p. A leaf's row is known to verifiers that ask for it. */
static void prepare_rows(struct bench *b)
{
    const struct sb_enum_case *c = b->c;
    const struct sb_verifier_ops *v = c->verifier;
    size_t inner = n_prefixes(b->n_vocab, b->length - 1), all = n_prefixes(b->n_vocab, b->length);
    b->seen.n_vocab = b->claimed.n_vocab = b->n_vocab;
    for (size_t r = 0; r < all; r++) {
        const double *p = c->target->row[r];
        for (size_t t = 0; t < b->n_vocab; t++) {
            b->logits[r][t] = p[t] > 0 ? (float)log(p[t]) : -1e4f;
            b->seen.row[r][t] = c->greedy ? t == argmax(p, b->n_vocab) : p[t];
        }
        bool known =
            r < inner ? v->draft_rows >= SB_DRAFT_ROWS_PARENTS : v->draft_rows == SB_DRAFT_ROWS_ALL;
        memcpy(b->claimed.row[r], b->seen.row[r], sizeof b->seen.row[r]);
        if (v->law)
            v->law(c->params, b->claimed.row[r], b->seen.row[r], known ? c->draft[0]->row[r] : NULL,
                   b->n_vocab);
    }
}

static void propose(struct bench *b, const struct sb_dice *dice)
{
    const struct sb_enum_case *c = b->c;
    double scratch[SB_ENUM_VOCAB];
    sb_tree_reset(&b->tree, 0, c->drawing.depth);
    for (int32_t node = 0; node < b->tree.n; node++) {
        size_t r = prefix_of(b, node);
        const double *const q[] = { c->draft[0]->row[r],
                                    c->draft[1] ? c->draft[1]->row[r] : c->draft[0]->row[r] };
        bool inner = sb_drawing_goes_on(&c->drawing, &b->tree, node);
        sb_dice_seek(dice, (uint64_t)b->tree.node[node].depth + 1);
        if (inner)
            sb_drawing_children(&c->drawing, &b->tree, node, q, b->n_vocab, dice, scratch);
        if (inner ? c->verifier->draft_rows >= SB_DRAFT_ROWS_PARENTS
                  : c->verifier->draft_rows == SB_DRAFT_ROWS_ALL)
            b->tree.node[node].draft_row = q[0];
    }
}

static enum sb_status run_once(struct bench *b, struct sb_enum_result *result, struct sb_error *err)
{
    const struct sb_enum_case *c = b->c;
    struct sb_verdict verdict = { .path = b->path, .decision = b->decision };
    struct sb_dice dice = sb_enum_dice_start(&b->dice);
    struct sb_rows rows = { .row = target_row,
                            .argmax = target_argmax,
                            .logits = target_logits,
                            .greedy = c->greedy,
                            .self = b,
                            .n_vocab = b->n_vocab };
    propose(b, &dice);
    enum sb_status rc = sb_tree_check(&b->tree, b->n_vocab, err);
    sb_dice_seek(&dice, 0);
    if (rc == SB_OK)
        rc = c->verifier->verify(c->params, &b->tree, &rows, &dice, b->scratch, &verdict, err);
    if (b->dice.trouble)
        rc = sb_fail(err, SB_EUNSUPPORTED, "verifier %s: %s", c->verifier->name, b->dice.trouble);
    if (rc == SB_OK && (verdict.n_path < 1 || verdict.n_path > b->tree.n ||
                        verdict.final_token < 0 || (size_t)verdict.final_token >= b->n_vocab))
        rc = sb_fail(err, SB_EINTERNAL, "verifier %s: a verdict of %d nodes and final token %d",
                     c->verifier->name, verdict.n_path, verdict.final_token);
    if (rc != SB_OK)
        return rc;
    sb_token x[SB_ENUM_DEPTH + 2];
    size_t n = path_to(&b->tree, b->path[verdict.n_path - 1], x);
    x[n++] = verdict.final_token;
    double weight = b->dice.weight;
    result->accepted += weight * (verdict.n_path - 1);
    result->first_accept += weight * (verdict.n_path > 1);
    result->first[x[0]] += weight;
    result->total += weight;
    result->runs++;
    spread(b, b->got, x, n, weight);
    return SB_OK;
}

static void compare(const struct bench *b, struct sb_enum_result *result)
{
    size_t from = n_prefixes(b->n_vocab, b->length), to = n_prefixes(b->n_vocab, b->length + 1);
    for (size_t i = from; i < to; i++) {
        double error = fabs(b->got[i] - b->want[i]);
        result->max_error = error > result->max_error ? error : result->max_error;
        result->variation += error / 2;
    }
}

enum sb_status sb_enum_run(struct sb_enum_result *out, const struct sb_enum_case *c,
                           struct sb_error *err)
{
    struct sb_enum_result result = { 0 };
    struct bench *b = sb_alloc_zero(1, sizeof *b);
    if (!b)
        return sb_fail(err, SB_ENOMEM, "out of memory for an enumeration");
    sb_token x[SB_ENUM_DEPTH + 2];
    b->c = c;
    b->n_vocab = c->target->n_vocab;
    b->length = (size_t)c->drawing.depth + 1;
    enum sb_status rc = sb_tree_create(&b->tree, SB_ENUM_NODES, err);
    b->scratch = sb_alloc(c->verifier->scratch_size
                              ? c->verifier->scratch_size(c->params, b->n_vocab, SB_ENUM_NODES)
                              : 0);
    if (rc == SB_OK && !b->scratch)
        rc = sb_fail(err, SB_ENOMEM, "out of memory for an enumeration");
    prepare_rows(b);
    spread(b, b->want, x, 0, 1);
    while (rc == SB_OK) {
        rc = run_once(b, &result, err);
        if (rc == SB_OK && !sb_enum_dice_next(&b->dice))
            break;
    }
    compare(b, &result);
    sb_tree_finish(&b->tree);
    sb_free(b->scratch);
    sb_free(b);
    if (rc == SB_OK)
        *out = result;
    return rc;
}
