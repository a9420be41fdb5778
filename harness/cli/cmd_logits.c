/* specbench logits: what the target computes at each row, for comparing with other engines. */
#include <stdio.h>

#include "harness/cli/cli.h"
#include "harness/core/alloc.h"
#include "harness/experiment/models.h"
#include "kernels/kernels.h"

static const struct sb_usage usage = {
    .name = "logits",
    .examples = "  specbench logits --model m.gguf --tokens '1 177 61' --top 5\n"
                "  specbench logits --model tiny --tokens '1 5 6 7' --parents '-1 0 0 1'\n",
    .synopsis = "specbench logits --model M --tokens \"1 2 3\" [--parents \"-1 0 1\"] [--top N]",
    .about =
        "Prints JSON, one object per row: its index as `position`, the token, the log-sum-exp of the\n"
        "logits and the N largest. Without --parents the tokens are a chain; with it each token\n"
        "names the row it follows (-1: none), so that the rows of a draft tree can be inspected.",
};

enum { BATCH = 64 };

static void print_row(size_t index, sb_token token, const int32_t *parents, const float *logits,
                      size_t n_vocab, size_t n_top, bool last)
{
    printf("{\"position\":%zu,\"token\":%d,", index, token);
    if (parents)
        printf("\"parent\":%d,", parents[index]);
    printf("\"lse\":%.9g,\"top\":[", (double)sb_logsumexp(logits, n_vocab));
    size_t before = n_vocab;
    for (size_t k = 0; k < n_top && k < n_vocab; k++) {
        size_t best = n_vocab; /* the largest that comes after `before` in (logit, id) order */
        for (size_t i = 0; i < n_vocab; i++) {
            bool after = before == n_vocab || logits[i] < logits[before] ||
                         (logits[i] == logits[before] && i > before);
            if (after && (best == n_vocab || logits[i] > logits[best]))
                best = i;
        }
        if (best == n_vocab)
            break;
        printf("%s[%zu,%.9g]", k ? "," : "", best, (double)logits[best]);
        before = best;
    }
    printf("]}%s\n", last ? "" : ",");
}

static enum sb_status compute(struct sb_model *model, const int32_t *tokens, size_t n,
                              const int32_t *parents, size_t n_top, struct sb_error *err)
{
    size_t batch = parents ? n : BATCH, n_vocab = sb_model_config(model)->n_vocab;
    struct sb_seq *seq = NULL;
    struct sb_row *rows = sb_alloc_zero(batch, sizeof *rows);
    int32_t *path = sb_alloc_array(batch, sizeof *path);
    enum sb_status rc = rows && path ? sb_seq_create(&seq, model, n, batch, err)
                                     : sb_fail(err, SB_ENOMEM, "out of memory for %zu rows", n);
    for (size_t from = 0; from < n && rc == SB_OK; from += batch) {
        size_t m = n - from < batch ? n - from : batch;
        for (size_t i = 0; i < m; i++) {
            path[i] = (int32_t)i;
            rows[i] = (struct sb_row){ .token = tokens[from + i],
                                       .parent = parents ? parents[i] : (int32_t)i - 1,
                                       .want_logits = true };
        }
        rc = sb_forward(seq, rows, m, NULL, err);
        if (rc == SB_OK && from == 0)
            puts("[");
        for (size_t i = 0; i < m && rc == SB_OK; i++)
            print_row(from + i, tokens[from + i], parents, sb_seq_logits(seq, i), n_vocab, n_top,
                      from + i + 1 == n);
        if (rc == SB_OK && !parents)
            rc = sb_seq_commit(seq, path, m, err);
    }
    if (rc == SB_OK)
        puts("]");
    sb_seq_destroy(seq);
    sb_free(rows);
    sb_free(path);
    return rc;
}

int sb_cmd_logits(int argc, char **argv)
{
    const char *name = NULL, *tokens_text = NULL, *parents_text = NULL;
    int64_t top = 5, threads = 0;
    struct sb_arithmetic_texts arithmetic = { 0 };
    const struct sb_option options[] = {
        { .name = "model", .kind = SB_OPT_TEXT, .dst = &name, .arg = "M", .help = "model to run" },
        { .name = "tokens",
          .kind = SB_OPT_TEXT,
          .dst = &tokens_text,
          .arg = "IDS",
          .help = "token ids, separated by blanks" },
        { .name = "parents",
          .kind = SB_OPT_TEXT,
          .dst = &parents_text,
          .arg = "ROWS",
          .help = "the row each token follows; -1: none" },
        { .name = "top",
          .kind = SB_OPT_INT,
          .dst = &top,
          .arg = "N",
          .help = "how many of the largest logits; default 5",
          .min = 1,
          .max = 1 << 20 },
        SB_ARITHMETIC_OPTIONS(arithmetic),
        { .name = "threads",
          .kind = SB_OPT_INT,
          .dst = &threads,
          .arg = "N",
          .help = "default: the physical cores",
          .min = 1,
          .max = 1024 },
        { 0 },
    };
    struct sb_error err;
    int32_t *tokens = NULL, *parents = NULL;
    size_t n = 0, n_parents = 0;
    bool helped;
    struct sb_model *model;
    struct sb_models *models = sb_models_create();
    enum sb_status rc = sb_options_parse(argc, argv, &usage, options, NULL, &helped, &err);
    if (rc == SB_OK && !helped && (!name || !tokens_text))
        rc = sb_fail(&err, SB_EUSAGE, "--model and --tokens are needed; usage: %s", usage.synopsis);
    if (rc == SB_OK && !helped)
        rc = sb_cli_parse_ids(&tokens, &n, tokens_text, "--tokens", &err);
    if (rc == SB_OK && !helped && n == 0)
        rc = sb_fail(&err, SB_EUSAGE, "--tokens names no token");
    if (rc == SB_OK && parents_text)
        rc = sb_cli_parse_ids(&parents, &n_parents, parents_text, "--parents", &err);
    if (rc == SB_OK && parents_text && n_parents != n)
        rc = sb_fail(&err, SB_EUSAGE, "--parents names %zu rows for %zu tokens", n_parents, n);
    if (rc == SB_OK)
        rc = sb_cli_set_threads(threads, &err);
    if (rc == SB_OK && !helped)
        rc = models ? sb_cli_set_arithmetic(models, &arithmetic, &err)
                    : sb_fail(&err, SB_ENOMEM, "out of memory");
    if (rc == SB_OK && !helped)
        rc = sb_models_get(models, name, &model, NULL, &err);
    if (rc == SB_OK && !helped)
        rc = compute(model, tokens, n, parents, (size_t)top, &err);
    if (rc == SB_OK)
        rc = sb_cli_flush(&err);
    sb_free(tokens);
    sb_free(parents);
    sb_models_destroy(models);
    return rc == SB_OK ? 0 : sb_cli_fail("logits", &err);
}
