/* Buffers that end where an inaccessible page begins, so that a read or write one element too far ends
 * the test. Freed together. */
#ifndef SB_TEST_GUARD_H
#define SB_TEST_GUARD_H

#include <stddef.h>
#include <sys/mman.h>
#include <unistd.h>

static struct {
    void *base;
    size_t size_bytes;
} guarded[256];
static size_t n_guarded;

/* size_bytes of zeros before the page; NULL when memory or slots run out. */
static inline void *guard(size_t size_bytes)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t body = (size_bytes + page - 1) / page * page;
    if (n_guarded == sizeof guarded / sizeof *guarded)
        return NULL;
    char *base =
        mmap(NULL, body + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base == MAP_FAILED || mprotect(base + body, page, PROT_NONE) != 0)
        return NULL;
    guarded[n_guarded].base = base;
    guarded[n_guarded++].size_bytes = body + page;
    return base + body - size_bytes;
}

static inline void guard_release(void)
{
    while (n_guarded > 0) {
        n_guarded--;
        munmap(guarded[n_guarded].base, guarded[n_guarded].size_bytes);
    }
}

#endif
