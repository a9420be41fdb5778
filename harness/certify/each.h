/* Work that shares nothing, on all threads. */
#ifndef SB_CERTIFY_EACH_H
#define SB_CERTIFY_EACH_H

#include <stddef.h>

/* Run job(self, i) for i = 0 .. n - 1, in no order, on as many threads as sb_threads_get says; inside a
 * job kernels use one thread. Returns when all are done. */
void sb_each(void (*job)(void *self, size_t i), void *self, size_t n);

#endif
