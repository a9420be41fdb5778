#include "harness/decode/sampling.h"

#include <math.h>
#include <stdint.h>

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

/* Move the likeliest of heap[0..n) to heap[n - 1]. */
static uint32_t pop(uint32_t *heap, size_t n, const float *logits)
{
    uint32_t top = heap[0];
    heap[0] = heap[n - 1];
    heap[n - 1] = top;
    sift_down(heap, n - 1, 0, logits);
    return top;
}

/* Zero what top-k and top-p leave out of weight[n]. A heap, so that the cost is n plus the kept
 * tokens times log n: the rest is never sorted. */
static void truncate_row(double *weight, const struct sb_sampling *s, const float *logits, size_t n,
                         uint32_t *heap)
{
    bool by_mass = s->top_p > 0 && s->top_p < 1;
    size_t k = s->top_k > 0 && s->top_k < n ? s->top_k : n;
    if (k == n && !by_mass)
        return;
    for (size_t i = 0; i < n; i++)
        heap[i] = (uint32_t)i;
    for (size_t i = n / 2; i-- > 0;)
        sift_down(heap, n, i, logits);
    size_t popped = 0; /* they end up in heap[n - popped .. n), likeliest last */
    double mass = 0, part = 0;
    while (k < n && popped < k)
        mass += weight[pop(heap, n - popped++, logits)];
    if (k == n)
        mass = sum_row(weight, n);
    size_t kept = by_mass ? 0 : k;
    for (; by_mass && kept < k && !(part >= s->top_p * mass); kept++) {
        if (kept == popped)
            pop(heap, n - popped++, logits);
        part += weight[heap[n - 1 - kept]];
    }
    for (size_t i = 0; i < n - kept; i++)
        weight[heap[i]] = 0;
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
    for (size_t i = 0; i < n; i++) {
        double z = ((double)logits[i] - (double)max) / s->temperature;
        prob[i] = z < -745 ? 0 : sb_exp(z); /* below, exp is 0 in double */
    }
    truncate_row(prob, s, logits, n, scratch);
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

static void rng_seek(void *self, uint64_t offset)
{
    struct sb_rng_dice *dice = self;
    sb_rng_seek(&dice->flips, dice->position + offset);
    sb_rng_seek(&dice->picks, dice->position + offset);
    if (dice->flips.stream == dice->picks.stream)
        dice->flips.draw = UPPER_DRAWS;
}

struct sb_rng_dice sb_rng_dice_make(uint64_t key, enum sb_stream flips, enum sb_stream picks)
{
    return (struct sb_rng_dice){ .flips = sb_rng_make(key, flips),
                                 .picks = sb_rng_make(key, picks) };
}

struct sb_dice sb_rng_dice_at(struct sb_rng_dice *self, uint64_t position)
{
    self->position = position;
    rng_seek(self, 0);
    return (struct sb_dice){ .flip = rng_flip, .pick = rng_pick, .self = self, .seek = rng_seek };
}
