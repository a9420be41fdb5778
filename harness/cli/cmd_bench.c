/* specbench bench: the cost curve c(M), time of a forward over M rows / time over one. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <omp.h>

#include "harness/cli/cli.h"
#include "harness/core/alloc.h"
#include "harness/core/clock.h"
#include "harness/core/rng.h"
#include "harness/core/threads.h"
#include "harness/experiment/host.h"
#include "harness/experiment/models.h"
#include "results/stats.h"

static const struct sb_usage usage = {
    .name = "bench",
    .examples = "  specbench bench --model tiny\n"
                "  specbench bench --model m.gguf --batch 1,2,4,8,16 --context 512 --format json\n",
    .synopsis =
        "specbench bench --model M [--batch 1,2,4,...] [--context N] [--repeats N] [--db FILE]",
    .about =
        "Times forwards over M rows after a context of N tokens, all M interleaved in every round.\n"
        "c = median over rounds of time(M) / time(1) of the same round, with a 95 % interval of that\n"
        "median; the row `1 (A/A)` is a second measurement of M = 1: how far its interval reaches\n"
        "from 1 is the noise floor. GB/s counts each weight once per forward, beside the read\n"
        "bandwidth measured in the same run.",
};

struct options {
    const char *model, *batch, *db;
    int64_t context, repeats, threads;
    enum sb_format format;
};

/* Sorted ratios of one M, and the ranks that bracket its median with 95 % confidence. */
static struct sb_interval median_interval(double *x, size_t n)
{
    double median = sb_median(x, n); /* sorts */
    double half = 0.98 * sqrt((double)n);
    size_t low = (double)n / 2 > half ? (size_t)((double)n / 2 - half) : 0;
    size_t high = n - 1 - low;
    return (struct sb_interval){ median, x[low], x[high] };
}

/* Bytes per ns that all threads read from a buffer larger than any cache, the best of a few runs. The
 * sum is of integers, so that the compiler may reorder it. */
static double read_bandwidth(void)
{
    enum { BLOCK = 4096 };
    const size_t n = (size_t)32 << 20;
    uint64_t *buffer = sb_alloc_aligned(n, sizeof *buffer), sink = 0;
    double best = 0;
    if (!buffer)
        return NAN;
#pragma omp parallel for schedule(static)
    for (size_t i = 0; i < n; i++)
        buffer[i] = i;
    for (int round = 0; round < 5; round++) {
        uint64_t start = sb_now_ns();
#pragma omp parallel for schedule(static) reduction(+ : sink)
        for (size_t block = 0; block < n / BLOCK; block++) {
            const uint64_t *from = buffer + block * BLOCK;
            uint64_t sum = 0;
            for (size_t i = 0; i < BLOCK; i++)
                sum += from[i];
            sink += sum;
        }
        double rate = (double)(n * sizeof *buffer) / (double)(sb_now_ns() - start);
        best = rate > best ? rate : best;
    }
    sb_free(buffer);
    return sink ? best : NAN;
}

struct curve {
    int32_t *rows; /* [n], rows[0] = 1 and rows[1] = 1 again: the A/A arm */
    size_t n, rounds;
    double *ns; /* [n, rounds] */
};

static enum sb_status time_forward(struct sb_seq *seq, const struct sb_row *rows, size_t m,
                                   double *ns, struct sb_error *err)
{
    uint64_t start = sb_now_ns();
    enum sb_status rc = sb_forward(seq, rows, m, NULL, err);
    *ns = (double)(sb_now_ns() - start);
    return rc;
}

static enum sb_status measure(struct curve *c, struct sb_model *model, size_t context,
                              struct sb_error *err)
{
    size_t n_vocab = sb_model_config(model)->n_vocab, most = 64, last;
    for (size_t i = 0; i < c->n; i++)
        most = (size_t)c->rows[i] > most ? (size_t)c->rows[i] : most;
    struct sb_seq *seq = NULL;
    struct sb_rng rng = sb_rng_make(1, SB_STREAM_DATA);
    struct sb_row *rows = sb_alloc_zero(most, sizeof *rows);
    sb_token *prompt = sb_alloc_array(context, sizeof *prompt);
    size_t *order = sb_alloc_array(c->n, sizeof *order);
    enum sb_status rc = rows && prompt && order
                            ? sb_seq_create(&seq, model, context + most, most, err)
                            : sb_fail(err, SB_ENOMEM, "out of memory");
    for (size_t i = 0; i < context && rc == SB_OK; i++)
        prompt[i] = (sb_token)sb_rng_below(&rng, n_vocab);
    for (size_t i = 0; i < most && rc == SB_OK; i++)
        rows[i] = (struct sb_row){ .token = (sb_token)sb_rng_below(&rng, n_vocab),
                                   .parent = (int32_t)i - 1,
                                   .want_logits = true };
    if (rc == SB_OK)
        rc = sb_seq_prefill(seq, prompt, context, NULL, 0, &last, err);
    for (size_t round = 0; round <= c->rounds && rc == SB_OK; round++) { /* round 0 warms up */
        for (size_t i = 0; i < c->n; i++)
            order[i] = i;
        sb_rng_shuffle(&rng, order, c->n);
        for (size_t k = 0; k < c->n && rc == SB_OK; k++) {
            size_t i = order[k];
            double ns;
            rc = time_forward(seq, rows, (size_t)c->rows[i], &ns, err);
            if (round > 0)
                c->ns[i * c->rounds + round - 1] = ns;
        }
    }
    sb_seq_destroy(seq);
    sb_free(rows);
    sb_free(prompt);
    sb_free(order);
    return rc;
}

static enum sb_status store_curve(const struct options *o, struct sb_model *model, int rows,
                                  double median_ns, struct sb_interval c, struct sb_error *err)
{
    struct sb_store *store = NULL;
    struct sb_host host;
    char hash[17];
    const struct sb_config *config = sb_model_config(model);
    snprintf(hash, sizeof hash, "%016llx",
             (unsigned long long)sb_model_weights(model)->content_hash);
    const struct sb_model_row row = { .name = o->model,
                                      .path = o->model,
                                      .arch = config->arch,
                                      .format = sb_model_weights(model)->format,
                                      .weight_type =
                                          sb_dtype_name(sb_model_weights(model)->layers[0].wq.type),
                                      .content_hash = hash,
                                      .tokenizer_hash = "",
                                      .config_json = "{}",
                                      .size_bytes = (int64_t)sb_model_weights(model)->file_bytes };
    struct sb_cost_row cost = { .context = (int)o->context,
                                .rows = rows,
                                .median_ns = (int64_t)median_ns,
                                .c = c.estimate,
                                .c_lo = c.low,
                                .c_hi = c.high };
    sb_host_describe(&host);
    enum sb_status rc = sb_store_open(&store, o->db, NULL, err);
    if (rc == SB_OK)
        rc = sb_store_host(store, &host.row, &cost.host_id, err);
    if (rc == SB_OK)
        rc = sb_store_model(store, &row, &cost.model_id, err);
    if (rc == SB_OK)
        rc = sb_store_cost(store, &cost, err);
    sb_store_close(store);
    return rc;
}

static enum sb_status print_curve(const struct options *o, struct sb_model *model, struct curve *c,
                                  struct sb_error *err)
{
    struct sb_table *t = sb_table_create();
    double *ratio = sb_alloc_array(c->rounds, sizeof *ratio), bandwidth = read_bandwidth();
    enum sb_status rc = t && ratio ? SB_OK : sb_fail(err, SB_ENOMEM, "out of memory");
    static const struct {
        const char *name;
        int decimals;
    } columns[] = {
        { "rows", 0 },          { "arm", 0 },  { "ms", 3 },           { "c", 3 },
        { "c_lo", 3 },          { "c_hi", 3 }, { "tokens_per_s", 1 }, { "gb_per_s", 1 },
        { "read_gb_per_s", 1 },
    };
    for (size_t i = 0; t && i < sizeof columns / sizeof *columns; i++)
        sb_table_column(t, columns[i].name, columns[i].decimals);
    for (size_t i = 0; i < c->n && rc == SB_OK; i++) {
        const double *ns = c->ns + i * c->rounds;
        for (size_t r = 0; r < c->rounds; r++)
            ratio[r] = ns[r] / c->ns[r];
        struct sb_interval interval = median_interval(ratio, c->rounds);
        memcpy(ratio, ns, c->rounds * sizeof *ratio);
        double median = sb_median(ratio, c->rounds);
        sb_table_int(t, c->rows[i]);
        sb_table_text(t, i == 1 ? "A/A" : "");
        sb_table_real(t, median * 1e-6);
        sb_table_real(t, interval.estimate);
        sb_table_real(t, interval.low);
        sb_table_real(t, interval.high);
        sb_table_real(t, c->rows[i] * 1e9 / median);
        sb_table_real(t, (double)sb_model_packed_bytes(model) / median);
        sb_table_real(t, bandwidth);
        if (o->db && i != 1)
            rc = store_curve(o, model, c->rows[i], median, interval, err);
    }
    if (rc == SB_OK)
        rc = sb_table_print(t, stdout, o->format, err);
    sb_table_destroy(t);
    sb_free(ratio);
    return rc;
}

static enum sb_status bench(const struct options *o, struct sb_error *err)
{
    struct sb_model *model;
    struct curve c = { .rounds = (size_t)o->repeats };
    int32_t *batch = NULL;
    size_t n_batch = 0;
    struct sb_models *models = sb_models_create();
    enum sb_status rc = models ? sb_models_get(models, o->model, &model, NULL, err)
                               : sb_fail(err, SB_ENOMEM, "out of memory");
    if (rc == SB_OK)
        rc = sb_cli_parse_ids(&batch, &n_batch, o->batch, "--batch", err);
    c.rows = sb_alloc_array(n_batch + 2, sizeof *c.rows);
    c.ns = sb_alloc_array((n_batch + 2) * c.rounds, sizeof *c.ns);
    if (rc == SB_OK && (!c.rows || !c.ns))
        rc = sb_fail(err, SB_ENOMEM, "out of memory for %zu rounds", c.rounds);
    if (rc == SB_OK)
        c.rows[c.n++] = 1, c.rows[c.n++] = 1;
    for (size_t i = 0; i < n_batch && rc == SB_OK; i++) {
        if (batch[i] < 1 || batch[i] > 1024)
            rc = sb_fail(err, SB_EUSAGE, "--batch: %d rows; expected 1 to 1024", batch[i]);
        else if (batch[i] != 1)
            c.rows[c.n++] = batch[i];
    }
    if (rc == SB_OK)
        rc = measure(&c, model, (size_t)o->context, err);
    if (rc == SB_OK)
        rc = print_curve(o, model, &c, err);
    sb_free(batch);
    sb_free(c.rows);
    sb_free(c.ns);
    sb_models_destroy(models);
    return rc == SB_OK ? sb_cli_flush(err) : rc;
}

int sb_cmd_bench(int argc, char **argv)
{
    struct options o = { .model = "tiny", .batch = "1,2,4,8,16,32", .context = 128, .repeats = 50 };
    const struct sb_option options[] = {
        { "model", SB_OPT_TEXT, &o.model, "M", "default tiny", 0, 0 },
        { "batch", SB_OPT_TEXT, &o.batch, "LIST", "rows of a forward; default 1,2,4,8,16,32", 0,
          0 },
        { "context", SB_OPT_INT, &o.context, "N", "committed tokens before the rows; default 128",
          1, 1048576 },
        { "repeats", SB_OPT_INT, &o.repeats, "N", "rounds; default 50", 3, 100000 },
        { "db", SB_OPT_TEXT, &o.db, "FILE", "store the curve in a results database", 0, 0 },
        { "threads", SB_OPT_INT, &o.threads, "N", "default: the physical cores", 1, 1024 },
        { "format", SB_OPT_FORMAT, &o.format, "F", "table, md, csv or json", 0, 0 },
        { 0 },
    };
    struct sb_error err;
    bool helped;
    enum sb_status rc = sb_options_parse(argc, argv, &usage, options, NULL, &helped, &err);
    if (rc == SB_OK && helped)
        return 0;
    if (rc == SB_OK)
        rc = sb_cli_set_threads(o.threads, &err);
    if (rc == SB_OK)
        rc = bench(&o, &err);
    return rc == SB_OK ? 0 : sb_cli_fail("bench", &err);
}
