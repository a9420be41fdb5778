#include "harness/decode/sampling.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "kernels/prob.h"

/* Room for logits: those that top-k and top-p choose from. */
size_t sb_sampling_scratch_bytes(size_t n)
{
    return n * sizeof(float);
}

/* ---- where top-k and top-p cut ----
 *
 * Both keep the likeliest tokens down to a border. Logits, not their exponentials, say which these are:
 * exponentials can tie where logits differ. So a cut is a logit, found by bisection, each step one pass
 * that counts or weighs what reaches it; nothing is ever sorted. */

#define ALL_TIES SIZE_MAX
struct cut {
    float least; /* kept: what is above it, and of its equals ... */
    size_t ties; /* ... so many of the smallest ids */
    double mass; /* of what is kept */
};

/* What a cut chooses from: logits and their weights (NULL: 1 each), in the order of ids. It is narrowed
 * as the border becomes clear: x then moves into room, where it has to be from the start if there are
 * weights. */
struct pool {
    const float *x;
    double *weight;
    size_t n;
    float *room;
    float floor; /* logits below are not in it */
};

/* The tokens of a pool whose logits are at least some value. */
struct part {
    double mass;
    size_t n;
};

static struct part part_of(const struct pool *pool, float least)
{
    struct part part;
    if (pool->weight) {
        part.mass = sb_prob_mass(pool->weight, pool->x, pool->n, least, &part.n);
    } else {
        part.n = sb_logits_count(pool->x, pool->n, least);
        part.mass = (double)part.n;
    }
    return part;
}

static void narrow(struct pool *pool, float least)
{
    if (pool->weight)
        pool->n = sb_prob_take(pool->weight, pool->room, pool->n, least);
    else
        pool->n = sb_logits_take(pool->room, pool->x, pool->n, least);
    pool->x = pool->room;
    pool->floor = least;
}

/* Floats as integers of the same order. */
static int64_t rank_of(float x)
{
    int32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits < 0 ? INT32_MIN - (int64_t)bits : bits;
}

static float float_of(int64_t rank)
{
    int32_t bits = (int32_t)(rank < 0 ? INT32_MIN - rank : rank);
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* A float strictly between; lo when there is none. Halving the distance suits logits, but may take long
 * between numbers of different size: then the floats between them are halved. */
static float between(float lo, float hi, int step)
{
    enum { BY_VALUE = 24 };
    float middle = (float)(((double)lo + (double)hi) / 2);
    if (step < BY_VALUE && middle > lo && middle < hi)
        return middle;
    int64_t a = rank_of(lo), b = rank_of(hi);
    return b - a > 1 ? float_of(a + (b - a) / 2) : lo;
}

/* Those of `with` that are not in `above` are equals: take as few as reach the target. */
static void cut_ties(struct cut *cut, struct part above, struct part with, double target)
{
    double n = (double)(with.n - above.n), each = (with.mass - above.mass) / n;
    double need = ceil((target - above.mass) / each);
    if (!(need < n))
        return;
    cut->ties = (size_t)need;
    cut->mass = above.mass + need * each;
}

/* The fewest of the likeliest whose mass reaches the target, or all when none does; they stay in the
 * pool. `max` is the largest logit. slack: so many more than needed will do. */
static struct cut find_cut(struct pool *pool, double target, float max, size_t slack)
{
    struct part above = { 0 }, with = part_of(pool, max);
    float lo = max, hi = max;
    for (double gap = 2; with.mass < target && lo > -INFINITY; gap *= 8) {
        above = with;
        hi = lo;
        lo = (float)((double)max - gap);
        with = part_of(pool, lo);
    }
    for (int step = 0; with.mass > target && with.n - above.n > 1 + slack; step++) {
        if (with.n < pool->n / 2)
            narrow(pool, lo);
        float middle = between(lo, hi, step);
        if (middle == lo)
            break;
        struct part part = part_of(pool, middle);
        if (part.mass >= target) {
            lo = middle;
            with = part;
        } else {
            hi = middle;
            above = part;
        }
    }
    struct cut cut = { lo > pool->floor ? lo : pool->floor, ALL_TIES, with.mass };
    if (with.mass > target && with.n - above.n > 1 && slack == 0)
        cut_ties(&cut, above, with, target);
    return cut;
}

/* A logit that at least k of n reach, few more where ids and logits are unrelated; 0 < k < n. Each group
 * of sixteen or so lends its largest: a k-th largest of these is reached by k logits. */
static float enough_for(size_t k, const float *logits, size_t n, float max, float *group)
{
    size_t n_groups = sb_logits_groups(n);
    if (n_groups > n || 2 * k > n_groups)
        return -INFINITY;
    sb_logits_max(logits, n, group);
    struct pool groups = { .x = group, .n = n_groups, .room = group, .floor = -INFINITY };
    return find_cut(&groups, (double)k, max, 8 + k / 4).least;
}

/* Leave in the pool what the cut keeps. */
static void make_cut(struct pool *pool, const struct cut *cut)
{
    size_t left = 0, ties = cut->ties;
    narrow(pool, cut->least);
    for (size_t i = 0; i < pool->n && cut->ties != ALL_TIES; i++) {
        bool equal = pool->x[i] == cut->least;
        if (equal && ties == 0)
            continue;
        ties -= equal;
        pool->room[left] = pool->x[i];
        if (pool->weight)
            pool->weight[left] = pool->weight[i];
        left++;
    }
    if (cut->ties != ALL_TIES)
        pool->n = left;
}

/* Leave the k likeliest of logits[n] in the pool. */
static struct cut cut_by_rank(struct pool *pool, size_t k, const float *logits, size_t n, float max)
{
    float enough = enough_for(k, logits, n, max, pool->room);
    *pool = (struct pool){ .x = logits, .n = n, .room = pool->room, .floor = -INFINITY };
    if (enough > -INFINITY)
        narrow(pool, enough);
    struct cut cut = find_cut(pool, (double)k, max, 0);
    make_cut(pool, &cut);
    return cut;
}

/* A logit that no token of the nucleus is below: the tokens whose weight is less than a 2 n-th of what
 * may be missing miss half of that together. */
static float nucleus_floor(const struct sb_sampling *s, double mass, size_t n, float max)
{
    double missing = 1 - s->top_p;
    if (missing < 1e-12)
        return -INFINITY;
    double floor = (double)max + s->temperature * sb_log(missing * mass / (2 * (double)n));
    float x = (float)floor;
    return (double)x > floor ? nextafterf(x, -INFINITY) : x;
}

/* S with top-k or top-p. Until the end, prob holds the weights of what is in the pool. */
static void apply_cut(double *prob, const struct sb_sampling *s, const float *logits, size_t n,
                      float max, float *room)
{
    const struct sb_temper temper = sb_temper_make(max, s->temperature);
    struct pool pool = { .x = logits, .n = n, .room = room, .floor = -INFINITY };
    struct cut cut = { .ties = ALL_TIES };
    if (s->top_k > 0 && s->top_k < n) {
        cut = cut_by_rank(&pool, s->top_k, logits, n, max);
        cut.mass = sb_prob_exp(prob, room, pool.n, &temper);
    } else {
        cut.mass = sb_prob_exp(NULL, logits, n, &temper);
        cut.least = nucleus_floor(s, cut.mass, n, max);
        narrow(&pool, cut.least);
        sb_prob_exp(prob, room, pool.n, &temper);
    }
    pool.weight = prob;
    if (s->top_p > 0 && s->top_p < 1) {
        struct cut nucleus = find_cut(&pool, s->top_p * cut.mass, max, 0);
        if (nucleus.least > cut.least || nucleus.ties != ALL_TIES)
            cut = nucleus;
        cut.mass = nucleus.mass;
        make_cut(&pool, &cut);
    }
    sb_prob_scale(prob, prob, pool.n, 1 / cut.mass);
    sb_prob_spread(prob, pool.n, logits, n, cut.least, cut.ties);
}

void sb_sampling_apply(double *prob, const struct sb_sampling *s, const float *logits, size_t n,
                       void *scratch)
{
    float max = sb_logits_max(logits, n, NULL);
    if (!(max > -INFINITY && max < INFINITY)) {
        for (size_t i = 0; i < n; i++)
            prob[i] = NAN;
        return;
    }
    if (s->temperature <= 0) {
        memset(prob, 0, n * sizeof *prob);
        prob[sb_logits_argmax(logits, n)] = 1;
        return;
    }
    if ((s->top_k > 0 && s->top_k < n) || (s->top_p > 0 && s->top_p < 1)) {
        apply_cut(prob, s, logits, n, max, scratch);
        return;
    }
    struct sb_temper temper = sb_temper_make(max, s->temperature);
    double mass = sb_prob_exp(prob, logits, n, &temper);
    sb_prob_scale(prob, prob, n, 1 / mass);
}

size_t sb_pick_by(double u, const double *weight, size_t n)
{
    return sb_prob_pick(u, weight, n);
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
    return sb_race(&dice->noise, weight, n);
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
