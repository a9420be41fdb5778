#include "harness/certify/law.h"

#include <stdlib.h>
#include <string.h>

#include "harness/core/alloc.h"

/* A prefix is opened, token by token, when it expects at least this many times the least of a cell. */
enum { OPEN_FROM = 3 };

struct maker {
    struct sb_law law;
    const struct sb_law_request *request;
    struct sb_seq *seq;
    void *scratch;
    struct sb_error *err;
};

struct ranked {
    double p;
    sb_token token;
};

/* Likelier first, the smaller id on ties. */
static int by_probability(const void *a, const void *b)
{
    const struct ranked *x = a, *y = b;
    if (x->p != y->p)
        return x->p < y->p ? 1 : -1;
    return x->token < y->token ? -1 : 1;
}

static bool ends(const struct sb_law_request *r, sb_token token)
{
    for (size_t i = 0; i < r->n_eos; i++)
        if (r->eos[i] == token)
            return true;
    return false;
}

/* A new cell or node, as an index; -1 out of memory. */
static int32_t add_cell(struct maker *m)
{
    struct sb_law *law = &m->law;
    if (sb_grow((void **)&law->p, &law->cap_cells, law->n_cells + 1, sizeof *law->p) != 0)
        return -1;
    law->p[law->n_cells] = 0;
    return (int32_t)law->n_cells++;
}

static int32_t add_node(struct maker *m)
{
    struct sb_law *law = &m->law;
    size_t row_bytes = law->n_vocab * sizeof *law->of;
    if (sb_grow((void **)&law->of, &law->cap_nodes, law->n_nodes + 1, row_bytes) != 0)
        return -1;
    for (size_t t = 0; t < law->n_vocab; t++)
        law->of[law->n_nodes * law->n_vocab + t] = SB_LAW_NEVER;
    return (int32_t)law->n_nodes++;
}

/* The target's row after the prompt and x[0..n), likeliest token first. New memory. */
static enum sb_status ranked_row(struct maker *m, struct ranked **out, const sb_token *x, size_t n)
{
    const struct sb_law_request *r = m->request;
    size_t n_vocab = m->law.n_vocab, last = 0;
    struct ranked *row = sb_alloc_array(n_vocab, sizeof *row);
    double *p = sb_alloc_array(n_vocab, sizeof *p);
    enum sb_status rc =
        row && p ? SB_OK : sb_fail(m->err, SB_ENOMEM, "out of memory for the law of a prompt");
    sb_seq_truncate(m->seq, n ? r->n_prompt : 0);
    if (rc == SB_OK)
        rc = n ? sb_seq_prefill(m->seq, x, n, NULL, 0, &last, m->err)
               : sb_seq_prefill(m->seq, r->prompt, r->n_prompt, NULL, 0, &last, m->err);
    if (rc == SB_OK) {
        sb_sampling_apply(p, &r->sampling, sb_seq_logits(m->seq, last), n_vocab, m->scratch);
        for (size_t t = 0; t < n_vocab; t++)
            row[t] = (struct ranked){ p[t], (sb_token)t };
        qsort(row, n_vocab, sizeof *row, by_probability);
        *out = row;
    } else {
        sb_free(row);
    }
    sb_free(p);
    return rc;
}

/* The last cell of a prefix may expect too little. It is the newest then, since tokens come by falling
 * probability: it joins the one before, of this prefix or of one below. */
static void join_last(struct sb_law *law, int32_t node)
{
    int32_t last = (int32_t)--law->n_cells, *of = law->of + (size_t)node * law->n_vocab;
    law->p[last - 1] += law->p[last];
    for (size_t t = 0; t < law->n_vocab; t++)
        of[t] = of[t] == last ? last - 1 : of[t];
}

/* Cut the law below x[0..n), whose probability is `mass`, into cells; *node is its place. */
static enum sb_status open_prefix(struct maker *m, sb_token *x, size_t n, double mass,
                                  int32_t *node)
{
    const struct sb_law_request *r = m->request;
    struct ranked *row = NULL;
    enum sb_status rc = ranked_row(m, &row, x, n);
    if (rc == SB_OK && !(row[0].p > 0))
        rc = sb_fail(m->err, SB_EFORMAT, "the target's logits hold NaN or infinity");
    int32_t here = rc == SB_OK ? add_node(m) : -1, cell = -1;
    if (rc == SB_OK && here < 0)
        rc = sb_fail(m->err, SB_ENOMEM, "out of memory for the law of a prompt");
    for (size_t i = 0; rc == SB_OK && i < m->law.n_vocab && row[i].p > 0; i++) {
        double p = mass * row[i].p;
        int32_t place;
        x[n] = row[i].token;
        if (n + 1 < SB_LAW_TOKENS && p * r->draws >= OPEN_FROM * r->expected &&
            !ends(r, row[i].token)) {
            rc = open_prefix(m, x, n + 1, p, &place);
            place = -2 - place;
        } else {
            if (cell < 0 || m->law.p[cell] * r->draws >= r->expected)
                cell = add_cell(m);
            if (cell < 0)
                rc = sb_fail(m->err, SB_ENOMEM, "out of memory for the law of a prompt");
            else
                m->law.p[cell] += p;
            place = cell;
        }
        m->law.of[(size_t)here * m->law.n_vocab + (size_t)row[i].token] = place;
    }
    if (rc == SB_OK && cell > 0 && m->law.p[cell] * r->draws < r->expected)
        join_last(&m->law, here);
    sb_free(row);
    *node = here;
    return rc;
}

enum sb_status sb_law_make(struct sb_law *out, const struct sb_law_request *request,
                           struct sb_error *err)
{
    struct maker m = { .request = request, .err = err };
    sb_token x[SB_LAW_TOKENS];
    int32_t root;
    m.law.n_vocab = sb_model_config(request->target)->n_vocab;
    m.scratch = sb_alloc(sb_sampling_scratch_bytes(m.law.n_vocab));
    enum sb_status rc =
        m.scratch
            ? sb_seq_create(&m.seq, request->target, request->n_prompt + SB_LAW_TOKENS, 64, err)
            : sb_fail(err, SB_ENOMEM, "out of memory for the law of a prompt");
    if (rc == SB_OK)
        rc = open_prefix(&m, x, 0, 1, &root);
    sb_seq_destroy(m.seq);
    sb_free(m.scratch);
    if (rc == SB_OK)
        *out = m.law;
    else
        sb_law_finish(&m.law);
    return rc;
}

void sb_law_finish(struct sb_law *law)
{
    if (!law)
        return;
    sb_free(law->p);
    sb_free(law->of);
    *law = (struct sb_law){ 0 };
}

int32_t sb_law_cell(const struct sb_law *law, const sb_token *tokens, size_t n)
{
    size_t node = 0;
    for (size_t i = 0; i < n; i++) {
        int32_t place = law->of[node * law->n_vocab + (size_t)tokens[i]];
        if (place >= SB_LAW_NEVER)
            return place;
        node = (size_t)(-2 - place);
    }
    return SB_LAW_NEVER;
}
