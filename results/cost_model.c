#include "results/cost_model.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <jansson.h>

#include "harness/core/alloc.h"
#include "results/internal.h"

enum { MOST_BYTES = 1 << 20, MOST_POINTS = 4096 }; /* of a file */

void sb_cost_model_finish(struct sb_cost_model *model)
{
    sb_free(model->point);
    *model = (struct sb_cost_model){ 0 };
}

int sb_cost_model_add(struct sb_cost_model *m, double context, double rows, double ns)
{
    if (sb_grow((void **)&m->point, &m->cap, m->n + 1, sizeof *m->point) != 0)
        return -1;
    m->point[m->n++] = (struct sb_cost_point){ context, rows, ns };
    return 0;
}

/* ---- isotonic regression ---- */

/* Each value is put down in turn; while it is below the block before, the two become one block at their
 * mean. A block is a stretch of equal values, so it needs no record of its own. */
void sb_isotonic(double *y, size_t n)
{
    for (size_t i = 1; i < n; i++) {
        size_t first = i;
        double sum = y[i], mean = y[i];
        while (first > 0 && y[first - 1] > mean) {
            double before = y[first - 1]; /* a whole block has this value */
            while (first > 0 && y[first - 1] == before) {
                sum += before;
                first--;
            }
            mean = sum / (double)(i + 1 - first);
        }
        for (size_t k = first; k <= i; k++)
            y[k] = mean;
    }
}

static int by_place(const void *a, const void *b)
{
    const struct sb_cost_point *x = a, *y = b;
    int d = (x->context > y->context) - (x->context < y->context);
    return d ? d : (x->rows > y->rows) - (x->rows < y->rows);
}

/* End of the points of one context. */
static size_t level_end(const struct sb_cost_model *m, size_t first)
{
    size_t end = first + 1;
    while (end < m->n && m->point[end].context == m->point[first].context)
        end++;
    return end;
}

void sb_cost_model_prepare(struct sb_cost_model *m)
{
    double y[MOST_POINTS];
    if (m->n > 0)
        qsort(m->point, m->n, sizeof *m->point, by_place);
    for (size_t first = 0, end; first < m->n; first = end) {
        end = level_end(m, first);
        size_t n = end - first < MOST_POINTS ? end - first : MOST_POINTS;
        for (size_t i = 0; i < n; i++)
            y[i] = m->point[first + i].ns;
        sb_isotonic(y, n);
        for (size_t i = 0; i < n; i++)
            m->point[first + i].ns = y[i];
    }
}

/* ---- reading the model ---- */

static double level_ns(const struct sb_cost_point *p, size_t n, double rows)
{
    if (n == 1 || rows <= p[0].rows)
        return p[0].ns;
    size_t i = 1;
    while (i + 1 < n && p[i].rows < rows)
        i++;
    return p[i].ns + (p[i].ns - p[i - 1].ns) / (p[i].rows - p[i - 1].rows) * (rows - p[i].rows);
}

double sb_cost_model_ns(const struct sb_cost_model *m, double rows, double context)
{
    if (m->n == 0)
        return 0;
    size_t a = 0, b = 0, end = level_end(m, 0);
    while (end < m->n && (a == b || m->point[b].context < context)) {
        a = b;
        b = end;
        end = level_end(m, end);
    }
    double low = level_ns(m->point + a, level_end(m, a) - a, rows);
    if (a == b)
        return low;
    double high = level_ns(m->point + b, level_end(m, b) - b, rows);
    double at = (context - m->point[a].context) / (m->point[b].context - m->point[a].context);
    return fmax(low + at * (high - low), fmin(low, high) / 4);
}

/* ---- from the database ---- */

enum sb_status sb_cost_model_load(struct sb_cost_model *out, struct sb_store *store,
                                  int64_t host_id, int64_t model_id, const char *arithmetic,
                                  struct sb_error *err)
{
    sqlite3_stmt *st;
    struct sb_cost_model m = { 0 };
    enum sb_status status =
        sb_sqlite_prepare(&st, store,
                          "SELECT context, \"rows\", median_ns, median_ns / c FROM cost_curve"
                          " WHERE host_id = ?1 AND model_id = ?2 AND arithmetic = ?3"
                          " AND c > 0 AND median_ns > 0 ORDER BY context, \"rows\" LIMIT 4096",
                          err);
    if (status != SB_OK)
        return status;
    int rc = sb_sqlite_bind(st, "iit", host_id, model_id, arithmetic);
    double last = -1;
    while (status == SB_OK && rc == SQLITE_OK && (rc = sqlite3_step(st)) == SQLITE_ROW) {
        double context = sqlite3_column_double(st, 0), rows = sqlite3_column_double(st, 1);
        int failed = 0;
        if (context != last && rows > 1) /* one row's time is in the ratio */
            failed = sb_cost_model_add(&m, context, 1, sqlite3_column_double(st, 3));
        failed |= sb_cost_model_add(&m, context, rows, sqlite3_column_double(st, 2));
        if (failed)
            status = sb_fail(err, SB_ENOMEM, "%s: out of memory for a cost curve", store->path);
        last = context;
        rc = SQLITE_OK;
    }
    if (status == SB_OK && rc != SQLITE_DONE)
        status = sb_sqlite_fail(err, store, rc, "read");
    sqlite3_finalize(st);
    if (status == SB_OK) {
        sb_cost_model_prepare(&m);
        *out = m;
    } else {
        sb_cost_model_finish(&m);
    }
    return status;
}

/* ---- from a file ---- */

static enum sb_status check_file(const char *path, struct sb_error *err)
{
    struct stat st;
    if (stat(path, &st) != 0)
        return sb_fail(err, SB_EINPUT, "%s: %s", path, strerror(errno));
    if (!S_ISREG(st.st_mode))
        return sb_fail(err, SB_EINPUT, "%s: not a regular file", path);
    if (st.st_size > MOST_BYTES)
        return sb_fail(err, SB_EFORMAT, "%s: %lld bytes; a cost curve has at most %d", path,
                       (long long)st.st_size, MOST_BYTES);
    return SB_OK;
}

static enum sb_status check_text(const json_t *root, const char *key, const char *want,
                                 const char *path, struct sb_error *err)
{
    const char *value = json_string_value(json_object_get(root, key));
    if (!want || (value && strcmp(value, want) == 0))
        return SB_OK;
    return sb_fail(err, SB_EUSAGE,
                   "%s: field '%s' is %s; the run has %s, and the curve must be of the same", path,
                   key, value ? value : "not there", want);
}

/* Is the curve of this model? By shape; files without one by the model's name. */
static enum sb_status check_model(const json_t *root, const char *path,
                                  const struct sb_cost_owner *owner, struct sb_error *err)
{
    static const char *const keys[] = { "layers", "width", "heads", "kv_heads", "ff", "vocab" };
    const json_t *shape = json_object_get(root, "shape");
    enum sb_status rc = SB_OK;
    if (!shape)
        return check_text(root, "model", owner->name, path, err);
    json_t *config = json_loads(owner->config_json ? owner->config_json : "{}", 0, NULL);
    for (size_t i = 0; i < sizeof keys / sizeof *keys && rc == SB_OK; i++) {
        json_int_t found = json_integer_value(json_object_get(shape, keys[i]));
        json_int_t want = json_integer_value(json_object_get(config, keys[i]));
        if (found != want)
            rc = sb_fail(err, SB_EUSAGE,
                         "%s: the curve is of a model with %s=%lld; expected that of '%s', %s=%lld",
                         path, keys[i], (long long)found, owner->name, keys[i], (long long)want);
    }
    json_decref(config);
    return rc;
}

static enum sb_status read_points(struct sb_cost_model *m, const json_t *root, const char *path,
                                  struct sb_error *err)
{
    const json_t *curve = json_object_get(root, "curve"),
                 *context = json_object_get(root, "context");
    double last = 0;
    if (!json_is_integer(context) || json_integer_value(context) < 0)
        return sb_fail(err, SB_EFORMAT, "%s: field 'context': expected a whole number", path);
    if (!json_is_array(curve) || json_array_size(curve) == 0 ||
        json_array_size(curve) > MOST_POINTS)
        return sb_fail(err, SB_EFORMAT,
                       "%s: field 'curve': expected 1 to %d points; is it from specbench bench "
                       "--format json?",
                       path, MOST_POINTS);
    for (size_t i = 0; i < json_array_size(curve); i++) {
        const json_t *point = json_array_get(curve, i);
        double rows = json_number_value(json_object_get(point, "rows")),
               ns = json_number_value(json_object_get(point, "ns"));
        if (!(rows > last && rows <= 1e6 && ns > 0 && ns < 1e15) || (i == 0 && rows != 1))
            return sb_fail(err, SB_EFORMAT,
                           "%s: curve[%zu]: rows %g, ns %g; expected rising rows from 1 on and a "
                           "time above 0",
                           path, i, rows, ns);
        if (sb_cost_model_add(m, (double)json_integer_value(context), rows, ns) != 0)
            return sb_fail(err, SB_ENOMEM, "%s: out of memory for its curve", path);
        last = rows;
    }
    return SB_OK;
}

enum sb_status sb_cost_model_parse(struct sb_cost_model *out, const char *text, size_t size,
                                   const char *path, const struct sb_cost_owner *owner,
                                   struct sb_error *err)
{
    json_error_t why;
    struct sb_cost_model m = { 0 };
    enum sb_status rc = SB_OK;
    json_t *root = json_loadb(text, size, JSON_REJECT_DUPLICATES, &why);
    if (!root)
        rc = sb_fail(err, SB_EFORMAT, "%s: no JSON at line %d", path, why.line);
    else if (!json_is_object(root) || !json_object_get(root, "curve"))
        rc = sb_fail(
            err, SB_EFORMAT,
            "%s: has no field 'curve'; expected the output of specbench bench --format json", path);
    if (rc == SB_OK)
        rc = check_model(root, path, owner, err);
    if (rc == SB_OK)
        rc = check_text(root, "type", owner->weight_type, path, err);
    if (rc == SB_OK)
        rc = check_text(root, "arithmetic", owner->arithmetic, path, err);
    if (rc == SB_OK)
        rc = read_points(&m, root, path, err);
    json_decref(root);
    if (rc == SB_OK) {
        sb_cost_model_prepare(&m);
        *out = m;
    } else {
        sb_cost_model_finish(&m);
    }
    return rc;
}

enum sb_status sb_cost_model_read(struct sb_cost_model *out, const char *path,
                                  const struct sb_cost_owner *owner, struct sb_error *err)
{
    enum sb_status rc = check_file(path, err);
    if (rc != SB_OK)
        return rc;
    FILE *f = fopen(path, "rb");
    if (!f)
        return sb_fail(err, SB_EINPUT, "%s: %s", path, strerror(errno));
    char *text = sb_alloc(MOST_BYTES);
    size_t size = text ? fread(text, 1, MOST_BYTES, f) : 0;
    if (!text)
        rc = sb_fail(err, SB_ENOMEM, "%s: out of memory", path);
    else if (ferror(f))
        rc = sb_fail(err, SB_EINPUT, "%s: cannot be read", path);
    else
        rc = sb_cost_model_parse(out, text, size, path, owner, err);
    fclose(f);
    sb_free(text);
    return rc;
}
