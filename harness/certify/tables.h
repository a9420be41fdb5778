/* Random next-token tables for enumeration, in the flavours that break wrong rules (methods C 6.2). */
#ifndef SB_CERTIFY_TABLES_H
#define SB_CERTIFY_TABLES_H

#include "harness/certify/enumerate.h"
#include "harness/core/rng.h"

enum sb_flavour {
    SB_TABLE_PLAIN,    /* about Dirichlet(0.3), a quarter of the entries zero */
    SB_TABLE_EQUAL,    /* q = p */
    SB_TABLE_DISJOINT, /* no token has both p and q above 0 */
    SB_TABLE_SURE_Q,   /* q one-hot */
    SB_TABLE_SURE_P,   /* p one-hot: temperature 0 */
    SB_TABLE_FLAVOURS,
};

void sb_table_random_row(double *row, size_t n, struct sb_rng *rng);
/* The same row at every prefix. */
void sb_enum_table_fill(struct sb_enum_table *table, const double *row, size_t n_vocab);

/* A target and the rows of two drafters. n_vocab from 2 to SB_ENUM_VOCAB. */
struct sb_tables {
    struct sb_enum_table p, q[SB_DRAWING_ROWS];
};
void sb_tables_random(struct sb_tables *tables, size_t n_vocab, enum sb_flavour flavour,
                      struct sb_rng *rng);

#endif
