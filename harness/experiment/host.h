/* Facts about the machine and the build, as stored with every experiment. */
#ifndef SB_EXPERIMENT_HOST_H
#define SB_EXPERIMENT_HOST_H

#include "harness/core/error.h"
#include "results/store.h"

struct sb_host {
    struct sb_host_row row; /* its texts are owned by this struct */
    char hostname[256], cpu[256], os[256], compiler[128], blas[256];
};
void sb_host_describe(struct sb_host *host);

#endif
