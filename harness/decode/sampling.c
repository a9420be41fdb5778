#include "harness/decode/sampling.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "kernels/kernels.h"

size_t sb_sampling_scratch_bytes(size_t n)
{
    return n * sizeof(uint32_t);
}

static void fill(double *prob, size_t n, double value)
{
    for (size_t i = 0; i < n; i++)
        prob[i] = value;
}

/* Sum in chunks of SB_CHUNK: one order on every machine, and an error that stays below 1e-13. */
static double sum_row(const double *x, size_t n)
{
    double total = 0;
    for (size_t from = 0; from < n; from += SB_CHUNK) {
        size_t to = n - from < SB_CHUNK ? n : from + SB_CHUNK;
        double part = 0;
        for (size_t i = from; i < to; i++)
            part += x[i];
        total += part;
    }
    return total;
}

/* Likelier first; the smaller id on ties. Logits, not their exponentials, decide: these can tie
 * where logits differ. */
static bool before(const float *logits, uint32_t a, uint32_t b)
{
    return logits[a] > logits[b] || (logits[a] == logits[b] && a < b);
}

static void sift_down(uint32_t *heap, size_t n, size_t at, const float *logits)
{
    uint32_t item = heap[at];
    for (size_t child; (child = 2 * at + 1) < n; at = child) {
        if (child + 1 < n && before(logits, heap[child + 1], heap[child]))
            child++;
        if (!before(logits, heap[child], item))
            break;
        heap[at] = heap[child];
    }
    heap[at] = item;
}

/* x[i] = exp(x[i]) for x[i] <= 0; what is below -700 becomes 0. Multiplications and additions alone,
 * without fma: the same bits on every machine, and compilers make vectors of it (sb_exp, one call
 * per token, took ten times as long). Taylor's polynomial of degree 13 on |r| <= ln 2 / 2. */
static void exp_row(double *x, size_t n)
{
    static const double magic = 0x1.8p52; /* adding it rounds to a whole number in the low bits */
    uint64_t magic_bits;
    memcpy(&magic_bits, &magic, sizeof magic_bits);
    for (size_t i = 0; i < n; i++) {
        double z = x[i], shifted = z * 0x1.71547652b82fep0 + magic, k = shifted - magic;
        double r = (z - k * 0x1.62e42fee00000p-1) - k * 0x1.a39ef35793c76p-33;
        double p = 1.0 / 6227020800;
        p = p * r + 1.0 / 479001600;
        p = p * r + 1.0 / 39916800;
        p = p * r + 1.0 / 3628800;
        p = p * r + 1.0 / 362880;
        p = p * r + 1.0 / 40320;
        p = p * r + 1.0 / 5040;
        p = p * r + 1.0 / 720;
        p = p * r + 1.0 / 120;
        p = p * r + 1.0 / 24;
        p = p * r + 1.0 / 6;
        p = p * r + 1.0 / 2;
        p = 1 + (r + r * r * p);
        uint64_t power, bits;
        memcpy(&power, &shifted, sizeof power);
        memcpy(&bits, &p, sizeof bits);
        bits += (power - magic_bits) << 52; /* times 2^k */
        memcpy(&p, &bits, sizeof p);
        x[i] = z > -700 ? p : 0;
    }
}

/* The tokens as a heap, so that taking the likeliest costs n once and log n each: the rest is never
 * sorted. Popped tokens end up in id[n - popped .. n), likeliest last. */
struct heap {
    uint32_t *id;
    size_t n, popped;
    const float *logits;
};

static struct heap heap_make(void *scratch, const float *logits, size_t n)
{
    struct heap heap = { .id = scratch, .n = n, .logits = logits };
    for (size_t i = 0; i < n; i++)
        heap.id[i] = (uint32_t)i;
    for (size_t i = n / 2; i-- > 0;)
        sift_down(heap.id, n, i, logits);
    return heap;
}

static uint32_t heap_pop(struct heap *heap)
{
    size_t last = heap->n - ++heap->popped;
    uint32_t top = heap->id[0];
    heap->id[0] = heap->id[last];
    heap->id[last] = top;
    sift_down(heap->id, last, 0, heap->logits);
    return top;
}

/* The token of that rank, 0 the likeliest. */
static uint32_t heap_at(struct heap *heap, size_t rank)
{
    while (heap->popped <= rank)
        heap_pop(heap);
    return heap->id[heap->n - 1 - rank];
}

/* Turn z[n] (logits over temperature, largest 0) into weights: exponentials of the tokens that top-k
 * and top-p keep, 0 elsewhere. Tokens that top-k drops are never exponentiated. */
static void keep_likely(double *z, const struct sb_sampling *s, const float *logits, size_t n,
                        void *scratch)
{
    bool by_mass = s->top_p > 0 && s->top_p < 1;
    size_t k = s->top_k > 0 && s->top_k < n ? s->top_k : n;
    if (k == n)
        exp_row(z, n);
    if (k == n && !by_mass)
        return;
    struct heap heap = heap_make(scratch, logits, n);
    double mass = k == n ? sum_row(z, n) : 0, part = 0;
    for (size_t i = 0; k < n && i < k; i++) {
        double *weight = &z[heap_at(&heap, i)];
        exp_row(weight, 1);
        mass += *weight;
    }
    size_t kept = by_mass ? 0 : k;
    while (by_mass && kept < k && !(part >= s->top_p * mass))
        part += z[heap_at(&heap, kept++)];
    for (size_t i = 0; i < n - kept; i++)
        z[heap.id[i]] = 0;
}

void sb_sampling_apply(double *prob, const struct sb_sampling *s, const float *logits, size_t n,
                       void *scratch)
{
    float max = -INFINITY;
    bool sound = true;
    for (size_t i = 0; i < n; i++) {
        sound = sound && logits[i] < INFINITY; /* false for NaN too */
        max = logits[i] > max ? logits[i] : max;
    }
    if (!sound || !(max > -INFINITY)) {
        fill(prob, n, NAN);
        return;
    }
    if (s->temperature <= 0) {
        fill(prob, n, 0);
        prob[sb_argmax(logits, n)] = 1;
        return;
    }
    for (size_t i = 0; i < n; i++)
        prob[i] = ((double)logits[i] - (double)max) / s->temperature;
    keep_likely(prob, s, logits, n, scratch);
    double sum = sum_row(prob, n);
    for (size_t i = 0; i < n; i++)
        prob[i] /= sum;
}

size_t sb_pick_by(double u, const double *weight, size_t n)
{
    double total = 0, sum = 0;
    for (size_t i = 0; i < n; i++)
        total += weight[i];
    size_t last = 0;
    double target = u * total;
    for (size_t i = 0; i < n; i++) {
        if (!(weight[i] > 0))
            continue;
        sum += weight[i];
        last = i;
        if (target < sum)
            break;
    }
    return last; /* the last one of positive weight when u * total rounds up to the total */
}

enum { UPPER_DRAWS = 1 << 30 }; /* flips of a shared stream start here */

static bool rng_flip(void *self, double probability)
{
    struct sb_rng_dice *dice = self;
    return sb_rng_uniform(&dice->flips) < probability;
}

static size_t rng_pick(void *self, const double *weight, size_t n)
{
    struct sb_rng_dice *dice = self;
    return sb_pick_by(sb_rng_uniform(&dice->picks), weight, n);
}

static double rng_uniform(void *self)
{
    struct sb_rng_dice *dice = self;
    return sb_rng_uniform(&dice->picks);
}

static size_t rng_race(void *self, const double *weight, size_t n)
{
    struct sb_rng_dice *dice = self;
    size_t winner = 0;
    double best = INFINITY;
    for (size_t t = 0; t < n; t++) {
        if (!(weight[t] > 0))
            continue;
        dice->noise.draw = (uint32_t)t;
        double u = sb_rng_uniform(&dice->noise);
        if (u >= best * weight[t] * (1 + 0x1p-50))
            continue; /* -log(1 - u) >= u: it has lost, and most have */
        double time = -sb_log(1 - u) / weight[t];
        if (time < best) {
            best = time;
            winner = t;
        }
    }
    return winner;
}

static void rng_seek(void *self, uint64_t offset)
{
    struct sb_rng_dice *dice = self;
    sb_rng_seek(&dice->flips, dice->position + offset);
    sb_rng_seek(&dice->picks, dice->position + offset);
    sb_rng_seek(&dice->noise, dice->position + offset);
    if (dice->flips.stream == dice->picks.stream)
        dice->flips.draw = UPPER_DRAWS;
}

struct sb_rng_dice sb_rng_dice_make(uint64_t key, enum sb_stream flips, enum sb_stream picks)
{
    return (struct sb_rng_dice){ .flips = sb_rng_make(key, flips),
                                 .picks = sb_rng_make(key, picks),
                                 .noise = sb_rng_make(key, SB_STREAM_NOISE) };
}

void sb_rng_dice_rekey(struct sb_rng_dice *self, uint64_t key)
{
    self->flips.key = self->picks.key = key;
}

struct sb_dice sb_rng_dice_at(struct sb_rng_dice *self, uint64_t position)
{
    self->position = position;
    rng_seek(self, 0);
    return (struct sb_dice){ .flip = rng_flip,
                             .pick = rng_pick,
                             .self = self,
                             .seek = rng_seek,
                             .uniform = rng_uniform,
                             .race = rng_race };
}
