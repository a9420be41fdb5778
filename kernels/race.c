/* The exponential race: the noise of one token, exactly, and the bookkeeping of the best. */
#include <math.h>

#include "kernels/prob_internal.h"

static void noise_block(uint32_t out[4], const struct sb_race *race, uint32_t block)
{
    const uint32_t counter[4] = { block, race->stream, race->position[0], race->position[1] };
    sb_philox4x32_10(out, counter, race->key);
}

/* m of sb_race: 16 bits that eight tokens share a block for, and 48 of a block of the token's own. */
static uint64_t noise_bits(const struct sb_race *race, size_t token)
{
    uint32_t shared[4], own[4];
    noise_block(shared, race, (uint32_t)(token / 64 * 8 + token % 8));
    noise_block(own, race, 0x80000000u | (uint32_t)token);
    uint64_t upper = shared[token / 8 % 4] >> (token / 32 % 2 * 16) & 0xffff;
    return upper << 48 | ((uint64_t)own[1] << 32 | own[0]) >> 16;
}

/* -log(1 - x) for x = (m + 1/2) / 2^64. Below 1/2 the rounding of 1 - x is made good; above, 1 - x is
 * as exact as x. */
static double exponential(uint64_t m)
{
    if (m >> 63)
        return -sb_log(((double)~m + 0.5) * 0x1p-64);
    double x = ((double)m + 0.5) * 0x1p-64, rest = 1 - x;
    return ((x - (1 - rest)) / rest) - sb_log(rest);
}

static struct sb_race race_make(const struct sb_rng *noise)
{
    return (struct sb_race){
        .key = { (uint32_t)noise->key, (uint32_t)(noise->key >> 32) },
        .stream = noise->stream,
        .position = { (uint32_t)noise->position, (uint32_t)(noise->position >> 32) },
        .winner = SIZE_MAX,
        .time = INFINITY,
        .bound = INFINITY,
    };
}

/* E(t) is at least its upper bits / 2^16; the bound leaves 2^-30 for the rounding of times. */
void sb_race_run(struct sb_race *race, size_t token, double weight)
{
    if (!(weight > 0))
        return;
    double time = exponential(noise_bits(race, token)) / weight;
    if (race->winner != SIZE_MAX && !(time < race->time))
        return;
    race->winner = token;
    race->time = time;
    race->bound = time * (0x1p16 + 0x1p-14);
}

double sb_race_time(const struct sb_rng *noise, size_t token)
{
    struct sb_race race = race_make(noise);
    return exponential(noise_bits(&race, token));
}

size_t sb_race(const struct sb_rng *noise, const double *weight, size_t n)
{
    struct sb_race race = race_make(noise);
    sb_probs()->race(&race, weight, n);
    return race.winner == SIZE_MAX ? 0 : race.winner;
}
