#include "harness/experiment/cost_curve.h"

#include <string.h>

#include "harness/core/alloc.h"
#include "harness/core/clock.h"
#include "harness/core/rng.h"
#include "results/cost_model.h"
#include "results/stats.h"

static const int32_t run_rows[] = { 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64 };
static const size_t run_contexts[] = { 128, 1024 };
enum { RUN_ROUNDS = 20, RUN_ROWS = sizeof run_rows / sizeof *run_rows };
#define RUN_SHARE    0.02 /* of the run's plain decoding */
#define LEAST_BUDGET 100000000u
#define MOST_BUDGET  1000000000u
#define MOST_PREFILL 2000000000u /* ns; a context that would take longer is left out */

enum sb_status sb_curve_init(struct sb_curve *c, const int32_t *rows, size_t n, size_t most_rounds,
                             struct sb_error *err)
{
    *c = (struct sb_curve){ .n = n, .most_rounds = most_rounds };
    c->rows = sb_alloc_array(n, sizeof *c->rows);
    c->ns = most_rounds <= SIZE_MAX / n ? sb_alloc_array(n * most_rounds, sizeof *c->ns) : NULL;
    c->read_rate = sb_alloc_array(most_rounds, sizeof *c->read_rate);
    c->fma_rate = sb_alloc_array(most_rounds, sizeof *c->fma_rate);
    if (!c->rows || !c->ns || !c->read_rate || !c->fma_rate) {
        sb_curve_finish(c);
        return sb_fail(err, SB_ENOMEM, "out of memory for %zu rounds", most_rounds);
    }
    memcpy(c->rows, rows, n * sizeof *rows);
    return SB_OK;
}

void sb_curve_finish(struct sb_curve *c)
{
    sb_free(c->rows);
    sb_free(c->ns);
    sb_free(c->read_rate);
    sb_free(c->fma_rate);
    *c = (struct sb_curve){ 0 };
}

enum sb_status sb_curve_prefill(struct sb_seq *seq, size_t context, struct sb_error *err)
{
    size_t have = sb_seq_length(seq), n = context > have ? context - have : 0, last;
    size_t n_vocab = sb_model_config(sb_seq_model(seq))->n_vocab;
    struct sb_rng rng = sb_rng_make(context, SB_STREAM_DATA);
    if (n == 0)
        return SB_OK;
    sb_token *prompt = sb_alloc_array(n, sizeof *prompt);
    if (!prompt)
        return sb_fail(err, SB_ENOMEM, "out of memory for %zu tokens", n);
    for (size_t i = 0; i < n; i++)
        prompt[i] = (sb_token)sb_rng_below(&rng, n_vocab);
    enum sb_status rc = sb_seq_prefill(seq, prompt, n, NULL, 0, &last, err);
    sb_free(prompt);
    return rc;
}

/* ---- rounds ---- */

static enum sb_status time_forward(struct sb_seq *seq, const struct sb_row *rows, size_t m,
                                   double *ns, struct sb_error *err)
{
    uint64_t start = sb_now_ns();
    enum sb_status rc = sb_forward(seq, rows, m, NULL, err);
    *ns = (double)(sb_now_ns() - start);
    return rc;
}

/* Row i of a chain follows row i - 1; of a tree, row (i - 1) / 2. */
static int32_t parent_of(size_t i, bool tree)
{
    return i == 0 ? SB_PARENT_PREFIX : tree ? (int32_t)(i - 1) / 2 : (int32_t)i - 1;
}

static struct sb_row *make_rows(size_t n, size_t n_vocab, bool tree)
{
    struct sb_rng rng = sb_rng_make(1, SB_STREAM_DATA);
    struct sb_row *rows = sb_alloc_zero(n, sizeof *rows);
    for (size_t i = 0; rows && i < n; i++)
        rows[i] = (struct sb_row){ .token = (sb_token)sb_rng_below(&rng, n_vocab),
                                   .parent = parent_of(i, tree),
                                   .want_logits = true };
    return rows;
}

/* With a budget a third of it may go into one round; what is dearer is dropped from the long end. */
static enum sb_status warm_up(struct sb_curve *c, struct sb_seq *seq, const struct sb_row *rows,
                              uint64_t budget_ns, struct sb_error *err)
{
    double spent = 0, ns;
    for (size_t i = 0; i < c->n; i++) {
        enum sb_status rc = time_forward(seq, rows, (size_t)c->rows[i], &ns, err);
        if (rc != SB_OK)
            return rc;
        spent += ns;
        if (budget_ns > 0 && c->rows[i] >= SB_CURVE_LEAST_ROWS &&
            spent * SB_CURVE_LEAST_ROUNDS > (double)budget_ns)
            c->n = i + 1;
    }
    return SB_OK;
}

static enum sb_status one_round(struct sb_curve *c, struct sb_seq *seq, const struct sb_row *rows,
                                struct sb_rng *rng, size_t *order, struct sb_error *err)
{
    enum sb_status rc = SB_OK;
    for (size_t i = 0; i < c->n; i++)
        order[i] = i;
    if (c->meter) {
        c->read_rate[c->rounds] = sb_meter_read_rate(c->meter);
        c->fma_rate[c->rounds] = sb_meter_fma_rate();
    }
    sb_rng_shuffle(rng, order, c->n);
    for (size_t k = 0; k < c->n && rc == SB_OK; k++)
        rc = time_forward(seq, rows, (size_t)c->rows[order[k]],
                          &c->ns[order[k] * c->most_rounds + c->rounds], err);
    return rc;
}

enum sb_status sb_curve_measure(struct sb_curve *c, struct sb_seq *seq, bool tree,
                                uint64_t budget_ns, const volatile int *stop, struct sb_error *err)
{
    size_t most = 1;
    for (size_t i = 0; i < c->n; i++)
        most = (size_t)c->rows[i] > most ? (size_t)c->rows[i] : most;
    struct sb_rng rng = sb_rng_make(2, SB_STREAM_ORDER);
    struct sb_row *rows = make_rows(most, sb_model_config(sb_seq_model(seq))->n_vocab, tree);
    size_t *order = sb_alloc_array(c->n, sizeof *order);
    enum sb_status rc = rows && order ? SB_OK : sb_fail(err, SB_ENOMEM, "out of memory");
    if (rc == SB_OK)
        rc = warm_up(c, seq, rows, budget_ns, err);
    uint64_t start = sb_now_ns();
    for (c->rounds = 0; c->rounds < c->most_rounds && rc == SB_OK && !(stop && *stop);
         c->rounds++) {
        if (budget_ns > 0 && c->rounds >= SB_CURVE_LEAST_ROUNDS && sb_now_ns() - start > budget_ns)
            break;
        rc = one_round(c, seq, rows, &rng, order, err);
    }
    sb_seq_truncate(seq, sb_seq_length(seq)); /* drops the batch */
    sb_free(rows);
    sb_free(order);
    return rc;
}

double sb_curve_sorted(const struct sb_curve *c, size_t i, bool ratio, double *sorted)
{
    for (size_t k = 0; k < c->rounds; k++)
        sorted[k] = c->ns[i * c->most_rounds + k] / (ratio ? c->ns[k] : 1);
    return sb_median(sorted, c->rounds);
}

/* ---- the curve of a run ---- */

struct target {
    struct sb_store *store;
    int64_t host_id, model_id;
    const char *arithmetic;
};

static enum sb_status store_points(const struct target *t, const struct sb_curve *c, size_t context,
                                   struct sb_error *err)
{
    double sorted[RUN_ROUNDS];
    enum sb_status rc = SB_OK;
    for (size_t i = 0; i < c->n && rc == SB_OK; i++) {
        struct sb_cost_row row = { .host_id = t->host_id,
                                   .model_id = t->model_id,
                                   .arithmetic = t->arithmetic,
                                   .context = (int)context,
                                   .rows = c->rows[i],
                                   .median_ns = (int64_t)sb_curve_sorted(c, i, false, sorted) };
        row.c = sb_curve_sorted(c, i, true, sorted);
        row.c_lo = sorted[c->rounds / 4];
        row.c_hi = sorted[c->rounds - 1 - c->rounds / 4];
        rc = sb_store_cost(t->store, &row, err);
    }
    return rc;
}

static enum sb_status measure_context(const struct target *t, struct sb_seq *seq, size_t context,
                                      size_t n_rows, uint64_t budget_ns, const volatile int *stop,
                                      struct sb_error *err)
{
    struct sb_curve c;
    enum sb_status rc = sb_curve_init(&c, run_rows, n_rows, RUN_ROUNDS, err);
    if (rc != SB_OK)
        return rc;
    rc = sb_curve_measure(&c, seq, false, budget_ns, stop, err);
    if (rc == SB_OK && c.rounds >= SB_CURVE_LEAST_ROUNDS)
        rc = store_points(t, &c, context, err);
    sb_curve_finish(&c);
    return rc;
}

/* Time of one forward over one row, the first being cold. */
static enum sb_status plain_time(double *ns, struct sb_seq *seq, struct sb_error *err)
{
    struct sb_curve c;
    const int32_t one = 1;
    double sorted[3];
    enum sb_status rc = sb_curve_init(&c, &one, 1, 3, err);
    if (rc == SB_OK)
        rc = sb_curve_measure(&c, seq, false, 0, NULL, err);
    if (rc == SB_OK)
        *ns = sb_curve_sorted(&c, 0, false, sorted);
    sb_curve_finish(&c);
    return rc;
}

static uint64_t budget_of(double plain_ns, double tokens)
{
    double budget = RUN_SHARE * plain_ns * tokens;
    return budget < LEAST_BUDGET  ? LEAST_BUDGET
           : budget > MOST_BUDGET ? MOST_BUDGET
                                  : (uint64_t)budget;
}

static enum sb_status measure_all(const struct target *t, struct sb_seq *seq, size_t room,
                                  size_t n_rows, double tokens, const volatile int *stop,
                                  struct sb_error *err)
{
    double plain_ns = 0, prefill_ns = 0;
    size_t before = 0;
    for (size_t i = 0; i < sizeof run_contexts / sizeof *run_contexts; i++) {
        size_t context = run_contexts[i] < room ? run_contexts[i] : room;
        double expected = before ? prefill_ns * (double)context / (double)before : 0;
        if (context == before || (stop && *stop) || expected > MOST_PREFILL)
            break;
        uint64_t start = sb_now_ns();
        enum sb_status rc = sb_curve_prefill(seq, context, err);
        prefill_ns = (double)(sb_now_ns() - start);
        if (rc == SB_OK && i == 0)
            rc = plain_time(&plain_ns, seq, err);
        if (rc == SB_OK)
            rc = measure_context(t, seq, context, n_rows, budget_of(plain_ns, tokens), stop, err);
        if (rc != SB_OK)
            return rc;
        before = context;
    }
    return SB_OK;
}

enum sb_status sb_curve_store(struct sb_store *store, struct sb_model *model, int64_t host_id,
                              int64_t model_id, const char *arithmetic, double tokens,
                              const volatile int *stop, struct sb_error *err)
{
    const struct target t = { store, host_id, model_id, arithmetic };
    struct sb_cost_model known = { 0 };
    struct sb_seq *seq = NULL;
    enum sb_status rc = sb_cost_model_load(&known, store, host_id, model_id, arithmetic, err);
    bool measured = known.n > 0;
    sb_cost_model_finish(&known);
    if (rc != SB_OK || measured)
        return rc;
    /* Of a model with few positions one half is context, the other for rows. */
    size_t positions = sb_model_config(model)->max_context, n_rows = RUN_ROWS;
    while (n_rows > 1 && (size_t)run_rows[n_rows - 1] > positions / 2)
        n_rows--;
    size_t most = (size_t)run_rows[n_rows - 1];
    size_t last = run_contexts[sizeof run_contexts / sizeof *run_contexts - 1];
    size_t room = positions - most < last ? positions - most : last;
    if (positions < 4)
        return SB_OK;
    rc = sb_seq_create(&seq, model, room + most, most, err);
    if (rc == SB_OK)
        rc = measure_all(&t, seq, room, n_rows, tokens, stop, err);
    sb_seq_destroy(seq);
    return rc;
}
