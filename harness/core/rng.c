#include "harness/core/rng.h"

#include <math.h>
#include <string.h>

static inline void philox(uint32_t out[4], const uint32_t counter[4], const uint32_t key[2])
{
    uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];
    uint32_t k0 = key[0], k1 = key[1];
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
        uint32_t n0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0, n2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c1 = (uint32_t)p1;
        c3 = (uint32_t)p0;
        c0 = n0;
        c2 = n2;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

void sb_philox4x32_10(uint32_t out[4], const uint32_t counter[4], const uint32_t key[2])
{
    philox(out, counter, key);
}

/* Blocks are independent, so that a processor overlaps them; vectors of lanes were slower. */
void sb_philox_fill(uint32_t *out, size_t n, const uint32_t first[4], const uint32_t key[2])
{
    uint32_t counter[4] = { first[0], first[1], first[2], first[3] }, word[4];
    size_t i = 0;
    for (; i + 4 <= n; i += 4, counter[0]++)
        philox(out + i, counter, key);
    if (i == n)
        return;
    philox(word, counter, key);
    memcpy(out + i, word, (n - i) * sizeof *word);
}

uint64_t sb_rng_mix(uint64_t a, uint64_t b)
{
    uint64_t x = a + 0x9E3779B97F4A7C15u * (b + 1);
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
    return x ^ (x >> 31);
}

struct sb_rng sb_rng_make(uint64_t key, enum sb_stream stream)
{
    return (struct sb_rng){ .key = key, .stream = (uint32_t)stream };
}

void sb_rng_seek(struct sb_rng *rng, uint64_t position)
{
    rng->position = position;
    rng->draw = 0;
}

uint64_t sb_rng_bits(struct sb_rng *rng)
{
    const uint32_t counter[4] = { rng->draw++, rng->stream, (uint32_t)rng->position,
                                  (uint32_t)(rng->position >> 32) };
    const uint32_t key[2] = { (uint32_t)rng->key, (uint32_t)(rng->key >> 32) };
    uint32_t out[4];
    sb_philox4x32_10(out, counter, key);
    return (uint64_t)out[1] << 32 | out[0];
}

double sb_rng_uniform(struct sb_rng *rng)
{
    return (double)(sb_rng_bits(rng) >> 11) * 0x1p-53;
}

uint64_t sb_rng_below(struct sb_rng *rng, uint64_t n)
{
    /* Reject the short last bucket, so that every residue is equally likely. */
    uint64_t limit = UINT64_MAX - UINT64_MAX % n;
    uint64_t x;
    do
        x = sb_rng_bits(rng);
    while (x >= limit);
    return x % n;
}

double sb_rng_normal(struct sb_rng *rng)
{
    double u = 1.0 - sb_rng_uniform(rng), v = sb_rng_uniform(rng);
    return sqrt(-2.0 * log(u)) * cos(6.283185307179586 * v);
}

void sb_rng_shuffle(struct sb_rng *rng, size_t *items, size_t n)
{
    for (size_t i = n; i > 1; i--) {
        size_t j = (size_t)sb_rng_below(rng, i);
        size_t item = items[i - 1];
        items[i - 1] = items[j];
        items[j] = item;
    }
}
