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

/* ---- one step ---- */

struct sb_enum_bench {
    struct sb_enum_case c;              /* with the prefix and depth of the step at hand */
    size_t n_vocab, length;             /* length: tokens of a sequence, depth + 1 */
    struct sb_enum_table seen, claimed; /* target rows as the verifier gets them; the law claimed */
    float logits[SB_ENUM_ROWS][SB_ENUM_VOCAB];
    struct sb_tree tree;
    int32_t path[SB_ENUM_NODES];
    uint8_t decision[SB_ENUM_NODES];
    struct sb_verdict verdict;
    void *scratch;
    size_t scratch_bytes;
};

size_t sb_enum_context(const struct sb_enum_case *c, const struct sb_tree *tree, int32_t node,
                       sb_token *x)
{
    size_t n = c->n_prefix + (size_t)tree->node[node].depth;
    for (size_t i = n; i-- > c->n_prefix; node = tree->node[node].parent)
        x[i] = tree->node[node].token;
    for (size_t i = 0; i < c->n_prefix; i++)
        x[i] = c->prefix[i];
    return n;
}

static size_t row_of(const struct sb_enum_bench *b, int32_t node)
{
    sb_token x[SB_ENUM_DEPTH + 2];
    size_t n = sb_enum_context(&b->c, &b->tree, node, x);
    return sb_enum_prefix(&b->seen, x, n);
}

static const double *target_row(void *self, int32_t node)
{
    const struct sb_enum_bench *b = self;
    return b->seen.row[row_of(b, node)];
}

static const float *target_logits(void *self, int32_t node)
{
    const struct sb_enum_bench *b = self;
    return b->logits[row_of(b, node)];
}

static size_t target_argmax(void *self, int32_t node)
{
    const struct sb_enum_bench *b = self;
    return argmax(b->c.target->row[row_of(b, node)], b->n_vocab);
}

/* Rows as a session would show them, and the law that the verifier claims to leave. */
static void prepare_rows(struct sb_enum_bench *b)
{
    const struct sb_enum_case *c = &b->c;
    const struct sb_verifier_ops *v = c->verifier;
    enum sb_draft_rows rows = sb_verifier_draft_rows(v, c->params);
    size_t inner = n_prefixes(b->n_vocab, b->length - 1);
    size_t all = n_prefixes(b->n_vocab, SB_ENUM_DEPTH + 1);
    b->seen.n_vocab = b->claimed.n_vocab = b->n_vocab;
    for (size_t r = 0; r < all; r++) {
        const double *p = c->target->row[r];
        for (size_t t = 0; t < b->n_vocab; t++) {
            b->logits[r][t] = p[t] > 0 ? (float)log(p[t]) : -1e4f;
            b->seen.row[r][t] = c->greedy ? t == argmax(p, b->n_vocab) : p[t];
        }
        bool known = r < inner ? rows >= SB_DRAFT_ROWS_PARENTS : rows == SB_DRAFT_ROWS_ALL;
        memcpy(b->claimed.row[r], b->seen.row[r], sizeof b->seen.row[r]);
        if (v->law)
            v->law(c->params, b->claimed.row[r], b->seen.row[r], known ? c->draft->row[r] : NULL,
                   b->n_vocab);
    }
}

static enum sb_status fail_memory(struct sb_error *err)
{
    return sb_fail(err, SB_ENOMEM, "out of memory for an enumeration");
}

enum sb_status sb_enum_bench_create(struct sb_enum_bench **out, const struct sb_enum_case *c,
                                    struct sb_error *err)
{
    struct sb_enum_bench *b = sb_alloc_zero(1, sizeof *b);
    if (!b)
        return fail_memory(err);
    b->c = *c;
    b->n_vocab = c->target->n_vocab;
    b->length = (size_t)c->depth + 1;
    b->verdict = (struct sb_verdict){ .path = b->path, .decision = b->decision };
    if (c->verifier->scratch_size)
        b->scratch_bytes = c->verifier->scratch_size(c->params, b->n_vocab, SB_ENUM_NODES);
    b->scratch = sb_alloc(b->scratch_bytes);
    enum sb_status rc =
        b->scratch ? sb_tree_create(&b->tree, SB_ENUM_NODES, err) : fail_memory(err);
    if (rc == SB_OK) {
        prepare_rows(b);
        *out = b;
    } else {
        sb_enum_bench_destroy(b);
    }
    return rc;
}

void sb_enum_bench_destroy(struct sb_enum_bench *b)
{
    if (!b)
        return;
    sb_tree_finish(&b->tree);
    sb_free(b->scratch);
    sb_free(b);
}

static void draw_tree(const struct sb_enum_case *c, const struct sb_dice *dice,
                      struct sb_tree *tree)
{
    struct sb_drawing drawing = c->drawing;
    double scratch[SB_ENUM_VOCAB];
    sb_token x[SB_ENUM_DEPTH + 2];
    drawing.depth = c->depth;
    drawing.width = c->width;
    for (int32_t node = 0; node < tree->n; node++) {
        if (!sb_drawing_goes_on(&drawing, tree, node))
            continue;
        size_t n = sb_enum_context(c, tree, node, x);
        const struct sb_enum_table *second = c->second ? c->second : c->draft;
        const double *const q[] = { sb_enum_row(c->draft, x, n), sb_enum_row(second, x, n) };
        sb_drawing_children(&drawing, tree, node, q, c->draft->n_vocab, dice, scratch);
    }
}

/* The drafter's rows, where the verifier asked for them. */
static void give_rows(struct sb_enum_bench *b)
{
    enum sb_draft_rows rows = sb_verifier_draft_rows(b->c.verifier, b->c.params);
    for (int32_t i = 0; i < b->tree.n && rows != SB_DRAFT_ROWS_NONE; i++)
        if (rows == SB_DRAFT_ROWS_ALL || b->tree.node[i].kind != SB_DRAW_NONE)
            b->tree.node[i].draft_row = b->c.draft->row[row_of(b, i)];
}

enum sb_status sb_enum_bench_step(struct sb_enum_bench *b, const sb_token *prefix, size_t n_prefix,
                                  int32_t depth, const struct sb_dice *draft_dice,
                                  const struct sb_dice *verify_dice, const struct sb_tree **tree,
                                  const struct sb_verdict **verdict, struct sb_error *err)
{
    const struct sb_verifier_ops *v = b->c.verifier;
    const struct sb_rows rows = { .row = target_row,
                                  .argmax = target_argmax,
                                  .logits = target_logits,
                                  .greedy = b->c.greedy,
                                  .self = b,
                                  .n_vocab = b->n_vocab };
    b->c.prefix = prefix;
    b->c.n_prefix = n_prefix;
    b->c.depth = depth;
    memset(b->scratch, 0xff, b->scratch_bytes); /* NaN: reading what was not written shows */
    sb_tree_reset(&b->tree, 0, depth);
    (b->c.propose ? b->c.propose : draw_tree)(&b->c, draft_dice, &b->tree);
    give_rows(b);
    enum sb_status rc = sb_tree_check(&b->tree, b->n_vocab, err);
    if (rc == SB_OK)
        rc = v->verify(b->c.params, &b->tree, &rows, verify_dice, b->scratch, &b->verdict, err);
    const struct sb_verdict *got = &b->verdict;
    if (rc == SB_OK && (got->n_path < 1 || got->n_path > b->tree.n || got->final_token < 0 ||
                        (size_t)got->final_token >= b->n_vocab))
        rc = sb_fail(err, SB_EINTERNAL, "verifier %s: a verdict of %d nodes and final token %d",
                     v->name, got->n_path, got->final_token);
    *tree = &b->tree;
    *verdict = got;
    return rc;
}

/* ---- all of them ---- */

struct laws {
    double got[SB_ENUM_SEQUENCES], want[SB_ENUM_SEQUENCES];
};

/* Add weight x the claimed law of what follows x[0..n) up to b->length tokens. */
static void spread(const struct sb_enum_bench *b, double *law, sb_token *x, size_t n, double weight)
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

static enum sb_status run_once(struct sb_enum_bench *b, struct sb_enum_dice *dice,
                               struct laws *laws, struct sb_enum_result *result,
                               struct sb_error *err)
{
    const struct sb_tree *tree;
    const struct sb_verdict *verdict;
    struct sb_dice choose = sb_enum_dice_start(dice);
    enum sb_status rc = sb_enum_bench_step(b, NULL, 0, (int32_t)b->length - 1, &choose, &choose,
                                           &tree, &verdict, err);
    if (dice->trouble)
        return sb_fail(err, SB_EUNSUPPORTED, "verifier %s: %s", b->c.verifier->name, dice->trouble);
    if (rc != SB_OK)
        return rc;
    sb_token x[SB_ENUM_DEPTH + 2];
    size_t n = sb_enum_context(&b->c, tree, verdict->path[verdict->n_path - 1], x);
    x[n++] = verdict->final_token;
    result->accepted += dice->weight * (verdict->n_path - 1);
    result->first_accept += dice->weight * (verdict->n_path > 1);
    result->first[x[0]] += dice->weight;
    result->total += dice->weight;
    result->runs++;
    spread(b, laws->got, x, n, dice->weight);
    return SB_OK;
}

static void compare(const struct sb_enum_bench *b, const struct laws *laws,
                    struct sb_enum_result *result)
{
    size_t from = n_prefixes(b->n_vocab, b->length), to = n_prefixes(b->n_vocab, b->length + 1);
    for (size_t i = from; i < to; i++) {
        double error = fabs(laws->got[i] - laws->want[i]);
        result->max_error = error > result->max_error ? error : result->max_error;
        result->variation += error / 2;
    }
}

enum sb_status sb_enum_run(struct sb_enum_result *out, const struct sb_enum_case *c,
                           struct sb_error *err)
{
    struct sb_enum_result result = { 0 };
    struct sb_enum_dice dice = { 0 };
    struct sb_enum_bench *b = NULL;
    struct laws *laws = sb_alloc_zero(1, sizeof *laws);
    sb_token x[SB_ENUM_DEPTH + 2];
    enum sb_status rc = laws ? sb_enum_bench_create(&b, c, err) : fail_memory(err);
    if (rc == SB_OK)
        spread(b, laws->want, x, 0, 1);
    while (rc == SB_OK) {
        rc = run_once(b, &dice, laws, &result, err);
        if (rc == SB_OK && !sb_enum_dice_next(&dice))
            break;
    }
    if (rc == SB_OK) {
        compare(b, laws, &result);
        *out = result;
    }
    sb_enum_bench_destroy(b);
    sb_free(laws);
    return rc;
}
