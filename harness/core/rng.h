/* Randomness: a counter-based generator (Philox 4x32-10; Salmon et al. 2011, "Parallel random
 * numbers: as easy as 1, 2, 3"). A draw is a pure function of (key, stream, position, draw), so
 * results depend neither on the order of calls in other streams nor on batching or threads. */
#ifndef SB_CORE_RNG_H
#define SB_CORE_RNG_H

#include <stddef.h>
#include <stdint.h>

/* Separate streams, so that swapping a drafter moves nobody else's draws. */
enum sb_stream {
    SB_STREAM_DRAFT = 1, /* a drafter's own draws */
    SB_STREAM_ACCEPT,    /* a verifier's acceptance tests */
    SB_STREAM_SAMPLE,    /* tokens drawn from the target's law or a residual */
    SB_STREAM_ORDER,     /* interleaving of arms and prompts */
    SB_STREAM_BOOTSTRAP, /* resampling for intervals */
    SB_STREAM_INIT,      /* weight initialisation */
    SB_STREAM_DATA,      /* order of training examples */
    SB_STREAM_NOISE,     /* noise of tokens that drafter and verifier share */
};

struct sb_rng {
    uint64_t key;      /* seed mixed with what identifies the prompt and the repeat */
    uint64_t position; /* absolute token position, or any other coordinate */
    uint32_t stream;
    uint32_t draw; /* the next draw at this position */
};

/* Mix two 64-bit words into one (splitmix64 finaliser); for deriving keys from (seed, id, repeat). */
uint64_t sb_rng_mix(uint64_t a, uint64_t b);

struct sb_rng sb_rng_make(uint64_t key, enum sb_stream stream);
void sb_rng_seek(struct sb_rng *rng, uint64_t position); /* draw 0 at that position */
uint64_t sb_rng_bits(struct sb_rng *rng);
double sb_rng_uniform(struct sb_rng *rng);             /* [0, 1), 53 bits */
uint64_t sb_rng_below(struct sb_rng *rng, uint64_t n); /* 0..n-1 without bias; n > 0 */
double sb_rng_normal(struct sb_rng *rng);              /* mean 0, variance 1 */
void sb_rng_shuffle(struct sb_rng *rng, size_t *items, size_t n);

/* The bare block function, for known-answer tests: four words from a counter and a key. */
void sb_philox4x32_10(uint32_t out[4], const uint32_t counter[4], const uint32_t key[2]);
/* n words from the counters (first[0], ...), (first[0] + 1, ...) and so on. */
void sb_philox_fill(uint32_t *out, size_t n, const uint32_t first[4], const uint32_t key[2]);

#endif
