/* specbench list: every registry as a table, with declared parameters. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "datasets/dataset.h"
#include "drafters/head_file.h"
#include "harness/cli/cli.h"
#include "harness/core/alloc.h"
#include "harness/core/paths.h"
#include "harness/decode/drafter.h"
#include "harness/decode/policy.h"
#include "harness/decode/verifier.h"
#include "harness/experiment/host.h"
#include "harness/model/weights.h"

static const struct sb_usage usage = {
    .name = "list",
    .examples = "  specbench list drafters\n  specbench list verifiers --format json\n",
    .synopsis = "specbench list drafters|verifiers|policies|datasets|models [--format F]",
    .about =
        "Lists what can stand after --drafter, --verifier, --policy, --dataset and --target.\n"
        "With --db, verifiers have a column `lossless`: what the newest certificate in that file\n"
        "says of them, if it is of this build (specbench certify).",
};

/* "k=10 ngram_max=3 model=TEXT!" - name and default; '!' marks what must be given. */
static char *params_text(const struct sb_param *table)
{
    char *text = sb_strdup("");
    for (const struct sb_param *p = table; p && p->name && text; p++) {
        char *longer = sb_strf("%s%s%s=%s%s", text, *text ? " " : "", p->name,
                               p->fallback ? p->fallback : "", p->required ? "!" : "");
        sb_free(text);
        text = longer;
    }
    return text;
}

static void add_params(struct sb_table *t, const struct sb_param *table)
{
    char *text = params_text(table);
    sb_table_text(t, text);
    sb_free(text);
}

static enum sb_status list_drafters(struct sb_table *t, struct sb_store *store,
                                    struct sb_error *err)
{
    static const char *const columns[] = { "name", "guarantee", "summary", "params", "paper" };
    for (size_t i = 0; i < 5; i++)
        sb_table_column(t, columns[i], 0);
    for (size_t i = 0; sb_drafters[i]; i++) {
        sb_table_text(t, sb_drafters[i]->name);
        sb_table_text(t, sb_drafters[i]->mix ? sb_guarantee_name(SB_LOSSY) : "the verifier's");
        sb_table_text(t, sb_drafters[i]->summary);
        add_params(t, sb_drafters[i]->params);
        sb_table_text(t, sb_drafters[i]->paper);
    }
    return SB_OK;
}

static void kinds_text(char *text, size_t size, unsigned kinds)
{
    size_t used = 0;
    text[0] = '\0';
    for (int k = SB_DRAW_ONEHOT; k < SB_DRAW_KINDS && used < size; k++)
        if (kinds & SB_KIND_BIT(k))
            used += (size_t)snprintf(text + used, size - used, "%s%s", used ? " " : "",
                                     sb_draw_kind_name((enum sb_draw_kind)k));
}

static enum sb_status list_verifiers(struct sb_table *t, struct sb_store *store,
                                     struct sb_error *err)
{
    static const char *const columns[] = { "name",     "guarantee", "accepts", "shape",
                                           "lossless", "summary",   "params",  "paper" };
    struct sb_host host;
    enum sb_status rc = SB_OK;
    sb_host_describe(&host);
    for (size_t i = 0; i < 8; i++) {
        sb_table_column(t, columns[i], 0);
        if (strcmp(columns[i], "lossless") == 0)
            sb_table_optional(t);
    }
    for (size_t i = 0; sb_verifiers[i] && rc == SB_OK; i++) {
        const struct sb_verifier_ops *v = sb_verifiers[i];
        char kinds[96], lossless[SB_LOSSLESS_BYTES] = "";
        kinds_text(kinds, sizeof kinds, v->kinds);
        if (store)
            rc = sb_report_lossless(lossless, store, host.row.commit, v->name, err);
        sb_table_text(t, v->name);
        sb_table_text(t, sb_guarantee_name(v->guarantee));
        sb_table_text(t, kinds);
        sb_table_text(t, v->chains_only ? "chain" : "tree");
        sb_table_text(t, lossless[0] ? lossless : NULL);
        sb_table_text(t, v->summary);
        add_params(t, v->params);
        sb_table_text(t, v->paper);
    }
    return rc;
}

static enum sb_status list_policies(struct sb_table *t, struct sb_store *store,
                                    struct sb_error *err)
{
    static const char *const columns[] = { "name", "summary", "params", "paper" };
    for (size_t i = 0; i < 4; i++)
        sb_table_column(t, columns[i], 0);
    for (size_t i = 0; sb_policies[i]; i++) {
        sb_table_text(t, sb_policies[i]->name);
        sb_table_text(t, sb_policies[i]->summary);
        add_params(t, sb_policies[i]->params);
        sb_table_text(t, sb_policies[i]->paper);
    }
    return SB_OK;
}

static enum sb_status list_datasets(struct sb_table *t, struct sb_store *store,
                                    struct sb_error *err)
{
    static const char *const columns[] = { "name", "form", "summary" };
    for (size_t i = 0; i < 3; i++)
        sb_table_column(t, columns[i], 0);
    for (size_t i = 0; sb_readers[i]; i++) {
        sb_table_text(t, sb_readers[i]->name);
        sb_table_text(t, sb_readers[i]->form);
        sb_table_text(t, sb_readers[i]->summary);
    }
    return SB_OK;
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

/* What the rows of models/ need: its folders, and the content of those that are models. */
struct model_entry {
    char *path;
    const char *name;
    char hash[17]; /* empty: no model */
};

static bool list_model(struct sb_table *t, struct model_entry *e)
{
    struct sb_weights *w;
    if (sb_weights_open(&w, e->path, NULL) != SB_OK)
        return false;
    snprintf(e->hash, sizeof e->hash, "%016llx", (unsigned long long)w->content_hash);
    sb_table_text(t, e->name);
    sb_table_text(t, w->config.arch);
    sb_table_int(t, (int64_t)w->config.n_layers);
    sb_table_int(t, (int64_t)w->config.d_model);
    sb_table_int(t, (int64_t)w->config.n_vocab);
    sb_table_int(t, (int64_t)w->config.max_context);
    sb_table_real(t, (double)w->file_bytes / 1e6);
    sb_table_text(t, e->hash);
    sb_table_text(t, NULL);
    sb_weights_close(w);
    return true;
}

/* A head, and the name of the model it was made for; its hash where that is none of entry[n]. */
static void list_head(struct sb_table *t, const struct model_entry *e,
                      const struct model_entry *entry, size_t n)
{
    json_t *head = sb_head_describe(e->path);
    const json_t *of = json_object_get(head, "head");
    const char *family = json_string_value(json_object_get(of, "family"));
    const char *target = json_string_value(json_object_get(of, "target_hash"));
    for (size_t i = 0; target && i < n; i++)
        if (strcmp(entry[i].hash, target) == 0)
            target = entry[i].name;
    if (family) {
        sb_table_text(t, e->name);
        sb_table_text(t, family);
        for (int i = 0; i < 4; i++)
            sb_table_text(t, NULL);
        sb_table_real(t, json_number_value(json_object_get(head, "bytes")) / 1e6);
        sb_table_text(t, NULL);
        sb_table_text(t, target);
    }
    json_decref(head);
}

static enum sb_status list_models(struct sb_table *t, struct sb_store *store, struct sb_error *err)
{
    static const char *const columns[] = { "name",    "arch", "layers", "width", "vocab",
                                           "context", "mb",   "hash",   "target" };
    char *folder = sb_data_path("models");
    struct dirent **found = NULL;
    int n_found = folder ? scandir(folder, &found, NULL, by_name) : 0;
    size_t n = n_found > 0 ? (size_t)n_found : 0;
    struct model_entry *entry = sb_alloc_zero(n + 1, sizeof *entry);
    for (size_t i = 0; i < sizeof columns / sizeof *columns; i++)
        sb_table_column(t, columns[i], i == 6 ? 1 : 0);
    sb_table_optional(t);
    for (size_t i = 0; entry && i < n; i++) {
        entry[i].name = found[i]->d_name;
        entry[i].path = sb_strf("%s/%s", folder, entry[i].name);
        if (!entry[i].path || entry[i].name[0] == '.' || !sb_is_dir(entry[i].path) ||
            list_model(t, &entry[i])) {
            sb_free(entry[i].path);
            entry[i].path = NULL;
        }
    }
    for (size_t i = 0; entry && i < n; i++)
        if (entry[i].path)
            list_head(t, &entry[i], entry, n);
    for (size_t i = 0; i < n; i++) {
        if (entry)
            sb_free(entry[i].path);
        free(found[i]);
    }
    enum sb_status rc = entry ? SB_OK : sb_fail(err, SB_ENOMEM, "list models: out of memory");
    free(found);
    sb_free(entry);
    sb_free(folder);
    return rc;
}

static const struct {
    const char *name;
    enum sb_status (*fill)(struct sb_table *table, struct sb_store *store, struct sb_error *err);
} lists[] = {
    { "drafters", list_drafters }, { "verifiers", list_verifiers }, { "policies", list_policies },
    { "datasets", list_datasets }, { "models", list_models },
};

int sb_cmd_list(int argc, char **argv)
{
    enum sb_format format = SB_FORMAT_TABLE;
    const char *db = NULL;
    struct sb_store *store = NULL;
    const struct sb_option options[] = {
        { .name = "db",
          .kind = SB_OPT_TEXT,
          .dst = &db,
          .arg = "FILE",
          .help = "a results database that holds a certificate" },
        { .name = "format",
          .kind = SB_OPT_FORMAT,
          .dst = &format,
          .arg = "F",
          .help = "table, md, csv or json" },
        { 0 },
    };
    struct sb_texts rest = { 0 };
    struct sb_error err;
    bool helped;
    enum sb_status rc = sb_options_parse(argc, argv, &usage, options, &rest, &helped, &err);
    if (rc != SB_OK || helped)
        return helped ? 0 : sb_cli_fail("list", &err);
    for (size_t i = 0; rest.n == 1 && i < sizeof lists / sizeof *lists; i++) {
        if (strcmp(rest.item[0], lists[i].name) != 0)
            continue;
        const struct sb_store_options read = { .must_exist = true, .read_only = true };
        struct sb_table *table = sb_table_create();
        rc = table ? SB_OK : sb_fail(&err, SB_ENOMEM, "out of memory");
        if (rc == SB_OK && db)
            rc = sb_store_open(&store, db, &read, &err);
        if (rc == SB_OK)
            rc = lists[i].fill(table, store, &err);
        if (rc == SB_OK)
            rc = sb_table_print(table, stdout, format, &err);
        sb_store_close(store);
        sb_table_destroy(table);
        rc = rc == SB_OK ? sb_cli_flush(&err) : rc;
        return rc == SB_OK ? 0 : sb_cli_fail("list", &err);
    }
    sb_fail(&err, SB_EUSAGE, "expected one of drafters, verifiers, policies, datasets, models%s%s",
            rest.n ? "; found " : "", rest.n ? rest.item[rest.n - 1] : "");
    return sb_cli_fail("list", &err);
}
