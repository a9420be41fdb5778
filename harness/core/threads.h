/* Threads: how many OpenMP threads kernels and OpenBLAS use. Results never depend on it. */
#ifndef SB_CORE_THREADS_H
#define SB_CORE_THREADS_H

int sb_threads_physical(void); /* physical cores this process may run on; at least 1 */
void sb_threads_set(int n);    /* n < 1 means the physical cores */
int sb_threads_get(void);

#endif
