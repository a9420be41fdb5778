#include "harness/certify/tables.h"

#include <math.h>
#include <string.h>

void sb_table_random_row(double *row, size_t n, struct sb_rng *rng)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        row[i] = sb_rng_uniform(rng) < .25 ? 0 : pow(sb_rng_uniform(rng), 3);
        sum += row[i];
    }
    if (sum == 0)
        sum = row[sb_rng_below(rng, n)] = 1;
    for (size_t i = 0; i < n; i++)
        row[i] /= sum;
}

void sb_enum_table_fill(struct sb_enum_table *table, const double *row, size_t n_vocab)
{
    table->n_vocab = n_vocab;
    for (size_t i = 0; i < SB_ENUM_ROWS; i++)
        memcpy(table->row[i], row, n_vocab * sizeof *row);
}

static void sure_row(double *row, size_t n, struct sb_rng *rng)
{
    memset(row, 0, n * sizeof *row);
    row[sb_rng_below(rng, n)] = 1;
}

/* p lives below a random token, the drafters' rows from it on. */
static void disjoint_rows(double *p, double *const q[SB_DRAWING_ROWS], size_t n, struct sb_rng *rng)
{
    size_t cut = 1 + sb_rng_below(rng, n - 1);
    memset(p, 0, n * sizeof *p);
    sb_table_random_row(p, cut, rng);
    for (size_t k = 0; k < SB_DRAWING_ROWS; k++) {
        memset(q[k], 0, n * sizeof *p);
        sb_table_random_row(q[k] + cut, n - cut, rng);
    }
}

void sb_tables_random(struct sb_tables *tables, size_t n_vocab, enum sb_flavour flavour,
                      struct sb_rng *rng)
{
    tables->p.n_vocab = tables->q[0].n_vocab = tables->q[1].n_vocab = n_vocab;
    for (size_t i = 0; i < SB_ENUM_ROWS; i++) {
        double *p = tables->p.row[i];
        double *const q[] = { tables->q[0].row[i], tables->q[1].row[i] };
        sb_table_random_row(p, n_vocab, rng);
        for (size_t k = 0; k < SB_DRAWING_ROWS; k++)
            sb_table_random_row(q[k], n_vocab, rng);
        if (flavour == SB_TABLE_DISJOINT)
            disjoint_rows(p, q, n_vocab, rng);
        if (flavour == SB_TABLE_SURE_P)
            sure_row(p, n_vocab, rng);
        for (size_t k = 0; k < SB_DRAWING_ROWS; k++) {
            if (flavour == SB_TABLE_EQUAL)
                memcpy(q[k], p, n_vocab * sizeof *p);
            if (flavour == SB_TABLE_SURE_Q)
                sure_row(q[k], n_vocab, rng);
        }
    }
}
