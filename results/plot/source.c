#include "results/plot/source.h"

#include <string.h>

#include "harness/core/alloc.h"
#include "results/internal.h"

enum { VIEWS_MAX = 64 };

struct sb_source {
    struct sb_store *store;
    struct sb_report_options options;
    struct sb_arm_name *arm;
    size_t n_arms, arm_cap;
    struct sb_table *view[VIEWS_MAX]; /* by its place in sb_views; NULL: not computed yet */
};

static enum sb_status add_arm(struct sb_source *s, const char *label, bool is_baseline,
                              struct sb_error *err)
{
    for (size_t i = 0; i < s->n_arms && is_baseline; i++)
        is_baseline = !s->arm[i].is_baseline;
    char *copy = sb_strdup(label);
    if (!copy || sb_grow((void **)&s->arm, &s->arm_cap, s->n_arms + 1, sizeof *s->arm) != 0) {
        sb_free(copy);
        return sb_fail(err, SB_ENOMEM, "out of memory for the arms of an experiment");
    }
    s->arm[s->n_arms++] = (struct sb_arm_name){ copy, is_baseline };
    return SB_OK;
}

static enum sb_status load_arms(struct sb_source *s, struct sb_error *err)
{
    struct sb_table *t = NULL;
    enum sb_status rc = sb_source_query(
        &t, s, "SELECT label, is_baseline FROM arm WHERE experiment_id = ?1 ORDER BY arm_no", err);
    for (size_t r = 0; rc == SB_OK && r < sb_table_rows(t); r++)
        rc = add_arm(s, sb_table_cell(t, r, 0), sb_table_value(t, r, 1) != 0, err);
    sb_table_destroy(t);
    return rc;
}

enum sb_status sb_source_create(struct sb_source **out, struct sb_store *store,
                                const struct sb_report_options *options, struct sb_error *err)
{
    struct sb_source *s = sb_alloc_zero(1, sizeof *s);
    if (!s)
        return sb_fail(err, SB_ENOMEM, "out of memory for a report");
    s->store = store;
    if (options)
        s->options = *options;
    enum sb_status rc = sb_report_experiment(store, &s->options.experiment_id, err);
    if (rc == SB_OK)
        rc = load_arms(s, err);
    if (rc == SB_OK)
        *out = s;
    else
        sb_source_destroy(s);
    return rc;
}

void sb_source_destroy(struct sb_source *s)
{
    if (!s)
        return;
    for (size_t i = 0; i < s->n_arms; i++)
        sb_free(s->arm[i].label);
    for (size_t i = 0; i < VIEWS_MAX; i++)
        sb_table_destroy(s->view[i]);
    sb_free(s->arm);
    sb_free(s);
}

int64_t sb_source_experiment(const struct sb_source *s)
{
    return s->options.experiment_id;
}

size_t sb_source_arms(const struct sb_source *s, const struct sb_arm_name **arms)
{
    *arms = s->arm;
    return s->n_arms;
}

int sb_source_arm(const struct sb_source *s, const char *label)
{
    for (size_t i = 0; i < s->n_arms; i++)
        if (strcmp(s->arm[i].label, label) == 0)
            return (int)i;
    return -1;
}

enum sb_status sb_source_view(const struct sb_table **out, struct sb_source *s, const char *view,
                              struct sb_error *err)
{
    size_t v = 0;
    *out = NULL;
    while (sb_views[v].name && strcmp(sb_views[v].name, view) != 0)
        v++;
    if (!sb_views[v].name || v >= VIEWS_MAX)
        return SB_OK;
    if (!s->view[v]) {
        struct sb_report_options o = s->options;
        o.view = view;
        enum sb_status rc = sb_report_table(&s->view[v], s->store, &o, err);
        if (rc == SB_OK)
            rc = sb_table_check(s->view[v], err);
        if (rc != SB_OK) /* SB_EINPUT: what it is made of is not in the file (a certificate, say) */
            return rc == SB_EINPUT ? SB_OK : rc;
    }
    if (sb_table_rows(s->view[v]) > 0)
        *out = s->view[v];
    return SB_OK;
}

enum sb_status sb_source_query(struct sb_table **out, struct sb_source *s, const char *sql,
                               struct sb_error *err)
{
    struct sb_table *t = sb_table_create();
    enum sb_status rc = t ? sb_report_query(t, s->store, sql, s->options.experiment_id, err)
                          : sb_fail(err, SB_ENOMEM, "out of memory for a table");
    if (rc == SB_OK)
        rc = sb_table_check(t, err);
    if (rc == SB_OK)
        *out = t;
    else
        sb_table_destroy(t);
    return rc;
}
