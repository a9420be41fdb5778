/* specbench bench: the cost curve c(M), time of a forward over M rows / time over one. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "harness/cli/cli.h"
#include "harness/core/alloc.h"
#include "harness/core/clock.h"
#include "harness/core/threads.h"
#include "harness/experiment/cost_curve.h"
#include "harness/experiment/host.h"
#include "harness/experiment/models.h"
#include "harness/model/random.h"
#include "results/stats.h"

static const struct sb_usage usage = {
    .name = "bench",
    .examples =
        "  specbench bench --model tiny\n"
        "  specbench bench --random 110m --type bf16 --batch 1,2,4,8,16,32,64 --context 512\n"
        "  specbench bench --random 4x256x8x2x704x4096 --type q8_0 --format json\n",
    .synopsis =
        "specbench bench [--model M | --random SHAPE --type T] [--batch 1,2,...] [--context N] "
        "[--repeats N]",
    .about =
        "Times forwards over M rows after a context of N tokens, all M interleaved in every round.\n"
        "c = median over rounds of time(M) / time(1) of the same round, with a 95 % interval of that\n"
        "median; the row `A/A` measures M = 1 once more: how far its interval reaches from 1 is the\n"
        "noise floor. of_floor = median of time / max(bytes / read rate, operations / multiply-add rate),\n"
        "with both rates as the same round measured them. --random makes a model of a stated shape in\n"
        "memory (15m, 110m, 1b, or layers x width x heads x KV heads x feed-forward x vocabulary), for\n"
        "figures that anyone can repeat.",
};

struct options {
    const char *model, *random, *type, *batch, *db;
    int64_t context, repeats, threads;
    bool tree;
    struct sb_arithmetic_texts arithmetic;
    enum sb_format format;
};

static const char *label(const struct options *o)
{
    return o->random ? o->random : o->model;
}

/* The ranks of n sorted values that bracket their median with 95 % confidence. */
static void median_interval(struct sb_interval *out, const double *sorted, size_t n)
{
    double half = 0.98 * sqrt((double)n);
    size_t low = (double)n / 2 > half ? (size_t)((double)n / 2 - half) : 0;
    out->low = sorted[low];
    out->high = sorted[n - 1 - low];
}

static enum sb_status measure(struct sb_curve *c, struct sb_model *model, const struct options *o,
                              struct sb_error *err)
{
    size_t context = (size_t)o->context, most = 64;
    struct sb_seq *seq = NULL;
    struct sb_meter *meter = sb_meter_create();
    if (!meter)
        return sb_fail(err, SB_ENOMEM,
                       "out of memory for the 256 MiB that the read rate is measured on");
    c->meter = meter;
    for (size_t i = 0; i < c->n; i++)
        most = (size_t)c->rows[i] > most ? (size_t)c->rows[i] : most;
    enum sb_status rc = sb_seq_create(&seq, model, context + most, most, err);
    if (rc == SB_OK)
        rc = sb_curve_prefill(seq, context, err);
    if (rc == SB_OK)
        rc = sb_curve_measure(c, seq, o->tree, 0, NULL, err);
    sb_seq_destroy(seq);
    c->meter = NULL;
    sb_meter_destroy(meter);
    return rc;
}

/* What a forward over one row moves and computes: every weight once, the KV cache of the context, two
 * operations for each weight and four for each cached value of an attention head. */
struct work {
    double bytes, flops;
};

static struct work work_of(const struct sb_model *model, size_t context)
{
    const struct sb_config *c = sb_model_config(model);
    double q = (double)(c->n_heads * c->head_dim), kv = (double)(c->n_kv_heads * c->head_dim);
    double d = (double)c->d_model, layers = (double)c->n_layers, n = (double)context;
    double weights =
        layers * (d * (2 * q + 2 * kv) + 3 * d * (double)c->d_ff) + d * (double)c->n_vocab;
    double kv_value = sb_model_arithmetic(model)->kv_type == SB_F32 ? 4 : 2;
    return (struct work){ .bytes =
                              (double)sb_model_packed_bytes(model) + layers * n * 2 * kv * kv_value,
                          .flops = 2 * weights + layers * n * 4 * q };
}

/* One measured M. */
struct point {
    int32_t rows;
    double ns, of_floor;
    struct sb_interval c; /* 95 % */
    double quartile[2];   /* of c */
};

struct report {
    struct point *point; /* [n]; point[1] is the A/A arm */
    size_t n;
    double read_rate, fma_rate; /* medians over rounds */
    struct work work;
};

/* The median of n values, which end up sorted in `room`. */
static double median_of(const double *values, size_t n, double *room)
{
    memcpy(room, values, n * sizeof *room);
    return sb_median(room, n);
}

/* The median over rounds of time(M) / the floor by what the same round measured. */
static double of_floor(const struct sb_curve *c, size_t i, const struct work *work, double *room)
{
    for (size_t k = 0; k < c->rounds; k++) {
        double by_bytes = work->bytes / c->read_rate[k],
               by_flops = c->rows[i] * work->flops / c->fma_rate[k];
        room[k] =
            c->ns[i * c->most_rounds + k] * 1e-9 / (by_bytes > by_flops ? by_bytes : by_flops);
    }
    return sb_median(room, c->rounds);
}

static enum sb_status summarise(struct report *r, const struct sb_curve *c, struct sb_error *err)
{
    double *values = sb_alloc_array(c->rounds, sizeof *values);
    r->point = sb_alloc_zero(c->n, sizeof *r->point);
    r->n = c->n;
    if (!values || !r->point) {
        sb_free(values);
        return sb_fail(err, SB_ENOMEM, "out of memory for %zu rounds", c->rounds);
    }
    r->fma_rate = median_of(c->fma_rate, c->rounds, values);
    r->read_rate = median_of(c->read_rate, c->rounds, values);
    for (size_t i = 0; i < c->n; i++) {
        r->point[i].ns = sb_curve_sorted(c, i, false, values);
        r->point[i].c.estimate = sb_curve_sorted(c, i, true, values);
        median_interval(&r->point[i].c, values, c->rounds);
        r->point[i].quartile[0] = values[c->rounds / 4];
        r->point[i].quartile[1] = values[c->rounds - 1 - c->rounds / 4];
        r->point[i].rows = c->rows[i];
        r->point[i].of_floor = of_floor(c, i, &r->work, values);
    }
    sb_free(values);
    return SB_OK;
}

static const char *type_name(const struct sb_model *model)
{
    return sb_dtype_name(sb_model_weights(model)->layers[0].wq.type);
}

static enum sb_status print_table(const struct options *o, const struct report *r,
                                  struct sb_error *err)
{
    static const struct {
        const char *name;
        int decimals;
    } columns[] = { { "rows", 0 },   { "arm", 0 },     { "ms", 3 },           { "c", 3 },
                    { "c_lo", 3 },   { "c_hi", 3 },    { "tokens_per_s", 1 }, { "gb_per_s", 1 },
                    { "gflops", 1 }, { "of_floor", 2 } };
    struct sb_table *t = sb_table_create();
    if (!t)
        return sb_fail(err, SB_ENOMEM, "out of memory");
    for (size_t i = 0; i < sizeof columns / sizeof *columns; i++)
        sb_table_column(t, columns[i].name, columns[i].decimals);
    for (size_t i = 0; i < r->n; i++) {
        const struct point *p = &r->point[i];
        sb_table_int(t, p->rows);
        sb_table_text(t, i == 1 ? "A/A" : "");
        sb_table_real(t, p->ns * 1e-6);
        sb_table_real(t, p->c.estimate);
        sb_table_real(t, p->c.low);
        sb_table_real(t, p->c.high);
        sb_table_real(t, p->rows * 1e9 / p->ns);
        sb_table_real(t, r->work.bytes / p->ns);
        sb_table_real(t, p->rows * r->work.flops / p->ns);
        sb_table_real(t, p->of_floor);
    }
    enum sb_status rc = sb_table_print(t, stdout, o->format, err);
    sb_table_destroy(t);
    return rc;
}

static enum sb_status print_json(const struct options *o, const struct sb_model *model,
                                 const struct report *r, struct sb_error *err)
{
    json_t *curve = json_array();
    for (size_t i = 0; i < r->n; i++) {
        const struct point *p = &r->point[i];
        if (i != 1)
            json_array_append_new(curve,
                                  json_pack("{s:i, s:f, s:f, s:f, s:f, s:f}", "rows", p->rows, "ns",
                                            p->ns, "c", p->c.estimate, "c_lo", p->c.low, "c_hi",
                                            p->c.high, "of_floor", p->of_floor));
    }
    char *shape = sb_models_shape(model);
    json_t *root = json_pack(
        "{s:s, s:s, s:o, s:i, s:I, s:s, s:s, s:f, s:f, s:f, s:f, s:f, s:{s:f, s:f}, s:o}", "model",
        label(o), "type", type_name(model), "shape", json_loads(shape ? shape : "{}", 0, NULL),
        "threads", sb_threads_get(), "context", (json_int_t)o->context, "isa",
        sb_cpu_name(sb_cpu_active()), "arithmetic", sb_arithmetic_text(sb_model_arithmetic(model)),
        "decode_tokens_per_s", 1e9 / r->point[0].ns, "read_gb_per_s", r->read_rate * 1e-9,
        "fma_gflops", r->fma_rate * 1e-9, "bytes_per_forward", r->work.bytes, "flops_per_token",
        r->work.flops, "noise", "c_lo", r->point[1].c.low, "c_hi", r->point[1].c.high, "curve",
        curve);
    int failed = !root || json_dumpf(root, stdout, JSON_INDENT(1) | JSON_REAL_PRECISION(12)) != 0;
    putchar('\n');
    sb_free(shape);
    json_decref(root);
    return failed ? sb_fail(err, SB_EIO, "standard output: cannot be written") : SB_OK;
}

/* With the row of the model that a run of it has, so that reports find the curve. */
static enum sb_status store_curve(const struct options *o, const struct sb_model *model,
                                  const struct sb_tokenizer *tokenizer, const struct report *r,
                                  struct sb_error *err)
{
    struct sb_store *store = NULL;
    struct sb_host host;
    int64_t host_id, model_id;
    sb_host_describe(&host);
    enum sb_status rc = sb_store_open(&store, o->db, NULL, err);
    if (rc == SB_OK)
        rc = sb_store_host(store, &host.row, &host_id, err);
    if (rc == SB_OK)
        rc = sb_models_store(store, label(o), model, tokenizer, &model_id, err);
    for (size_t i = 0; rc == SB_OK && i < r->n; i++) {
        const struct point *p = &r->point[i];
        const struct sb_cost_row row = {
            .host_id = host_id,
            .model_id = model_id,
            .arithmetic = sb_arithmetic_text(sb_model_arithmetic(model)),
            .context = (int)o->context,
            .rows = p->rows,
            .median_ns = (int64_t)p->ns,
            .c = p->c.estimate,
            .c_lo = p->quartile[0],
            .c_hi = p->quartile[1],
        };
        if (i != 1)
            rc = sb_store_cost(store, &row, err);
    }
    sb_store_close(store);
    return rc;
}

static enum sb_status print_report(const struct options *o, struct sb_model *model,
                                   const struct sb_tokenizer *tokenizer, const struct sb_curve *c,
                                   struct sb_error *err)
{
    struct report r = { .work = work_of(model, (size_t)o->context) };
    enum sb_status rc = summarise(&r, c, err);
    if (rc == SB_OK && o->db)
        rc = store_curve(o, model, tokenizer, &r, err);
    if (rc == SB_OK && o->format == SB_FORMAT_JSON) {
        rc = print_json(o, model, &r, err);
    } else if (rc == SB_OK) {
        fprintf(
            stderr,
            "%s, %s, %d threads, %s kernels, %s, context %lld: %.1f MB and %.3f GFLOP per token; this machine "
            "reads %.1f GB/s and computes %.1f GFLOP/s\n",
            label(o), type_name(model), sb_threads_get(), sb_cpu_name(sb_cpu_active()),
            sb_arithmetic_text(sb_model_arithmetic(model)), (long long)o->context,
            r.work.bytes * 1e-6, r.work.flops * 1e-9, r.read_rate * 1e-9, r.fma_rate * 1e-9);
        rc = print_table(o, &r, err);
    }
    sb_free(r.point);
    return rc;
}

static enum sb_status parse_type(enum sb_dtype *out, const char *name, struct sb_error *err)
{
    for (int type = 0; type < SB_DTYPE_COUNT; type++) {
        if (strcmp(name, sb_dtype_name((enum sb_dtype)type)) == 0) {
            *out = (enum sb_dtype)type;
            return SB_OK;
        }
    }
    return sb_fail(err, SB_EUSAGE, "--type %s: expected f32, f16, bf16, q8_0 or q4_0", name);
}

/* *made is the model when it is ours to free; models own the others. */
static enum sb_status open_model(const struct options *o, struct sb_models *models,
                                 struct sb_model **model, const struct sb_tokenizer **tokenizer,
                                 struct sb_model **made, struct sb_error *err)
{
    struct sb_weights *w;
    enum sb_dtype type;
    *made = NULL;
    *tokenizer = NULL;
    enum sb_status rc = sb_cli_set_arithmetic(models, &o->arithmetic, err);
    if (rc == SB_OK && !o->random)
        return sb_models_get(models, o->model, model, tokenizer, err);
    if (rc == SB_OK)
        rc = parse_type(&type, o->type, err);
    if (rc == SB_OK)
        rc = sb_weights_random(&w, o->random, type, (size_t)o->context + 1024, err);
    if (rc != SB_OK)
        return rc;
    uint64_t start = sb_now_ns();
    rc = sb_model_from_weights(model, w, err);
    double seconds = (double)(sb_now_ns() - start) * 1e-9;
    if (rc == SB_OK && o->format != SB_FORMAT_JSON)
        fprintf(stderr, "packed %.1f MB in %.3f s, %.2f GB/s\n",
                (double)sb_model_packed_bytes(*model) * 1e-6, seconds,
                (double)sb_model_packed_bytes(*model) * 1e-9 / seconds);
    if (rc != SB_OK) {
        sb_weights_close(w);
        return rc;
    }
    *made = *model;
    struct sb_arithmetic arithmetic;
    rc = sb_arithmetic_parse(&arithmetic, &o->arithmetic, err);
    return rc == SB_OK ? sb_model_set_arithmetic(*model, &arithmetic, err) : rc;
}

static enum sb_status parse_batch(const struct options *o, struct sb_curve *c, struct sb_error *err)
{
    int32_t *batch = NULL, *rows = NULL;
    size_t n = 0, n_rows = 2;
    enum sb_status rc = sb_cli_parse_ids(&batch, &n, o->batch, "--batch", err);
    if (rc == SB_OK && !(rows = sb_alloc_array(n + 2, sizeof *rows)))
        rc = sb_fail(err, SB_ENOMEM, "out of memory");
    if (rc == SB_OK)
        rows[0] = rows[1] = 1; /* the second is the A/A arm */
    for (size_t i = 0; i < n && rc == SB_OK; i++) {
        if (batch[i] < 1 || batch[i] > SB_MAX_ROWS)
            rc = sb_fail(err, SB_EUSAGE, "--batch: %d rows; expected 1 to %d", batch[i],
                         SB_MAX_ROWS);
        else if (batch[i] != 1)
            rows[n_rows++] = batch[i];
    }
    if (rc == SB_OK)
        rc = sb_curve_init(c, rows, n_rows, (size_t)o->repeats, err);
    sb_free(rows);
    sb_free(batch);
    return rc;
}

static enum sb_status bench(const struct options *o, struct sb_error *err)
{
    struct sb_model *model, *made = NULL;
    const struct sb_tokenizer *tokenizer;
    struct sb_curve c = { 0 };
    struct sb_models *models = sb_models_create();
    enum sb_status rc = models ? parse_batch(o, &c, err) : sb_fail(err, SB_ENOMEM, "out of memory");
    if (rc == SB_OK)
        rc = open_model(o, models, &model, &tokenizer, &made, err);
    if (rc == SB_OK)
        rc = measure(&c, model, o, err);
    if (rc == SB_OK)
        rc = print_report(o, model, tokenizer, &c, err);
    sb_curve_finish(&c);
    sb_model_destroy(made);
    sb_models_destroy(models);
    return rc == SB_OK ? sb_cli_flush(err) : rc;
}

int sb_cmd_bench(int argc, char **argv)
{
    struct options o = { .batch = "1,2,4,8,16,32", .context = 128, .repeats = 50 };
    const struct sb_option options[] = {
        { "model", SB_OPT_TEXT, &o.model, "M", "default tiny", 0, 0 },
        { "random", SB_OPT_TEXT, &o.random, "SHAPE",
          "a random model: 15m, 110m, 1b or LxDxHxKVxFFxV", 0, 0 },
        { "type", SB_OPT_TEXT, &o.type, "T", "its weights: f32 (default), f16, bf16, q8_0, q4_0", 0,
          0 },
        { "batch", SB_OPT_TEXT, &o.batch, "LIST", "rows of a forward; default 1,2,4,8,16,32", 0,
          0 },
        { "context", SB_OPT_INT, &o.context, "N", "committed tokens before the rows; default 128",
          1, 1048576 },
        { "tree", SB_OPT_FLAG, &o.tree, NULL, "the rows are a binary tree, not a chain", 0, 0 },
        SB_ARITHMETIC_OPTIONS(o.arithmetic),
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
    if (rc == SB_OK && o.model && o.random)
        rc = sb_fail(&err, SB_EUSAGE, "give either --model or --random");
    if (rc == SB_OK && o.type && !o.random)
        rc = sb_fail(&err, SB_EUSAGE, "--type goes with --random; a file has the types it has");
    o.model = o.model ? o.model : "tiny";
    o.type = o.type ? o.type : "f32";
    if (rc == SB_OK)
        rc = sb_cli_set_threads(o.threads, &err);
    if (rc == SB_OK)
        rc = bench(&o, &err);
    return rc == SB_OK ? 0 : sb_cli_fail("bench", &err);
}
