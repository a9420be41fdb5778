#define _DEFAULT_SOURCE
#include "harness/core/alloc.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

static atomic_size_t n_allocations;
static atomic_size_t n_left = SIZE_MAX;

static bool may_allocate(void)
{
    atomic_fetch_add_explicit(&n_allocations, 1, memory_order_relaxed);
    size_t left = atomic_load_explicit(&n_left, memory_order_relaxed);
    if (left == SIZE_MAX)
        return true;
    if (left == 0)
        return false;
    atomic_store_explicit(&n_left, left - 1, memory_order_relaxed);
    return true;
}

void *sb_alloc(size_t size_bytes)
{
    return may_allocate() ? malloc(size_bytes ? size_bytes : 1) : NULL;
}

void *sb_alloc_array(size_t n, size_t size_bytes)
{
    size_t total;
    return __builtin_mul_overflow(n, size_bytes, &total) ? NULL : sb_alloc(total);
}

void *sb_alloc_zero(size_t n, size_t size_bytes)
{
    if (n == 0 || size_bytes == 0)
        n = size_bytes = 1;
    return may_allocate() ? calloc(n, size_bytes) : NULL;
}

void *sb_realloc_array(void *p, size_t n, size_t size_bytes)
{
    size_t total;
    if (__builtin_mul_overflow(n, size_bytes, &total) || !may_allocate())
        return NULL;
    return realloc(p, total ? total : 1);
}

/* Streams over large blocks miss the page tables' cache less often with large pages. */
enum { LARGE_PAGE = 2 << 20 };

void *sb_alloc_aligned(size_t n, size_t size_bytes)
{
    size_t total;
    if (__builtin_mul_overflow(n, size_bytes, &total) || total > SIZE_MAX - LARGE_PAGE)
        return NULL;
    size_t align = total < LARGE_PAGE ? SB_CACHE_LINE : LARGE_PAGE;
    total = total ? (total + align - 1) / align * align : align;
    void *p = may_allocate() ? aligned_alloc(align, total) : NULL;
#ifdef MADV_HUGEPAGE
    if (p && align == LARGE_PAGE)
        madvise(p, total,
                MADV_HUGEPAGE); /* a wish: what the system makes of it is its own affair */
#endif
    return p;
}

char *sb_strndup(const char *text, size_t length)
{
    char *copy = length < SIZE_MAX ? sb_alloc(length + 1) : NULL;
    if (copy) {
        memcpy(copy, text, length);
        copy[length] = '\0';
    }
    return copy;
}

char *sb_strdup(const char *text)
{
    return sb_strndup(text, strlen(text));
}

char *sb_strf(const char *fmt, ...)
{
    va_list args, again;
    va_start(args, fmt);
    va_copy(again, args);
    int length = vsnprintf(NULL, 0, fmt, args);
    va_end(args);
    char *text = length >= 0 ? sb_alloc((size_t)length + 1) : NULL;
    if (text)
        vsnprintf(text, (size_t)length + 1, fmt, again);
    va_end(again);
    return text;
}

void sb_free(void *p)
{
    free(p);
}

int sb_grow(void **array, size_t *cap, size_t need, size_t size_bytes)
{
    if (need <= *cap)
        return 0;
    size_t bigger = *cap > SIZE_MAX / 2 ? need : *cap * 2;
    if (bigger < 16)
        bigger = 16;
    if (bigger < need)
        bigger = need;
    void *p = sb_realloc_array(*array, bigger, size_bytes);
    if (!p)
        return -1;
    *array = p;
    *cap = bigger;
    return 0;
}

size_t sb_alloc_count(void)
{
    return atomic_load(&n_allocations);
}

void sb_alloc_fail_after(size_t n)
{
    atomic_store(&n_left, n);
}
