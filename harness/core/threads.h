/* Threads: how many OpenMP threads kernels and OpenBLAS use. Results never depend on it. */
#ifndef SB_CORE_THREADS_H
#define SB_CORE_THREADS_H

#include <stddef.h>

int sb_threads_physical(void); /* physical cores this process may run on; at least 1 */
void sb_threads_set(int n);    /* n < 1 means the physical cores */
int sb_threads_get(void);

/* Run job(self, i) for i = 0 .. n - 1 on as many threads of their own as sb_threads_get() allows, for
 * work that shares nothing: inside a job kernels use one thread. Returns when all are done. */
void sb_threads_each(void (*job)(void *self, size_t i), void *self, size_t n);

#endif
