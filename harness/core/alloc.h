/* Memory: overflow-checked allocation that tests can count and make fail.
 *
 * All functions return NULL on failure; the caller turns that into SB_ENOMEM with its own words. */
#ifndef SB_CORE_ALLOC_H
#define SB_CORE_ALLOC_H

#include <stddef.h>

#define SB_CACHE_LINE 64

void *sb_alloc(size_t size_bytes); /* uninitialised; size 0 gives a unique pointer */
void *sb_alloc_array(size_t n, size_t size_bytes); /* uninitialised; refuses n * size overflow */
void *sb_alloc_zero(size_t n, size_t size_bytes);  /* zeroed; refuses n * size overflow */
void *sb_realloc_array(void *p, size_t n, size_t size_bytes); /* on failure p stays valid */
void *sb_alloc_aligned(size_t n, size_t size_bytes); /* aligned to SB_CACHE_LINE, uninitialised */
char *sb_strdup(const char *text);
char *sb_strndup(const char *text, size_t length);
char *sb_strf(const char *fmt, ...)
    __attribute__((format(printf, 1, 2))); /* sprintf into new memory */
void sb_free(void *p);                     /* for everything above; accepts NULL */

/* Grow *array (element size `size_bytes`, capacity *cap) to hold at least `need` elements, doubling.
 * Returns 0, or -1 with everything unchanged. */
int sb_grow(void **array, size_t *cap, size_t need, size_t size_bytes);

/* Test hooks. Not thread-safe with respect to changing them. */
size_t sb_alloc_count(void);        /* allocations made so far, in all threads */
void sb_alloc_fail_after(size_t n); /* let n more succeed, then fail all; SIZE_MAX: never fail */

#endif
