#include <stdio.h>
#include <string.h>

#include "harness/certify/internal.h"
#include "harness/core/alloc.h"

/* ---- sizes and settings ---- */

enum {
    TABLES = 200,
    TABLES_ALL = 1000,
    TOY_DRAWS = 300, /* per prompt */
    TOY_DRAWS_ALL = 2500,
    POWER_DRAWS = 120, /* on a real model: enough for the faintest planted rule, which is off by */
    POWER_DRAWS_ALL = 400, /* about .03 per token */
    EVIDENT = 4,           /* the others take a part of them */
    PAIR_BUDGET = 3000,    /* generations of all pairs on a real model together */
    PAIR_BUDGET_ALL = 30000,
    MIN_PAIR_DRAWS = 12,
    MIN_PAIR_DRAWS_ALL = 24,
    MOST_PAIR_DRAWS = 100,
    MIXED_BLOCKS = 4,
    LENGTH = 16, /* tokens of a generation; on a real model less, where each costs a millisecond */
    REAL_LENGTH = 8,
    QUESTIONS = 1, /* per task, of the greedy part */
    ANSWER = 24,
};

static const struct sb_sampling settings[] = {
    { .temperature = 1 },
    { .temperature = .7 },
    { .temperature = 1, .top_p = .9 },
    { .temperature = .3, .top_k = 20 },
    { .temperature = .3 },
    { .temperature = .7, .top_k = 50, .top_p = .95 },
};
enum { N_SETTINGS = sizeof settings / sizeof *settings };

static const struct sb_sampling plain = { .temperature = 1 };

static enum sb_status out_of_memory(struct sb_error *err)
{
    return sb_fail(err, SB_ENOMEM, "out of memory for the certificate's plan");
}

/* ---- plug-ins ---- */

static enum sb_status fill_params(void **params, const char *kind, const struct sb_spec *spec,
                                  const struct sb_param *table, size_t size, struct sb_error *err)
{
    char owner[96];
    snprintf(owner, sizeof owner, "%s %s", kind, spec->name);
    *params = sb_alloc_zero(1, size + 1);
    return *params ? sb_params_apply(*params, table, spec, owner, err) : out_of_memory(err);
}

static enum sb_status unknown(const char *kind, const char *name, struct sb_error *err)
{
    return sb_fail(err, SB_EUSAGE, "no %s is named '%s'; see specbench list %ss", kind, name, kind);
}

/* ops NULL: the registry's of that name. */
static enum sb_status choose_verifier(struct sb_certify_plan *plan, const char *text,
                                      const struct sb_verifier_ops *ops, bool by_name,
                                      struct sb_error *err)
{
    if (sb_grow((void **)&plan->verifier, &plan->cap_verifiers, plan->n_verifiers + 1,
                sizeof *plan->verifier) != 0)
        return out_of_memory(err);
    struct sb_chosen_verifier *v = &plan->verifier[plan->n_verifiers++];
    *v = (struct sb_chosen_verifier){ .by_name = by_name };
    enum sb_status rc = sb_spec_parse(&v->spec, text, err);
    if (rc != SB_OK)
        return rc;
    v->ops = ops ? ops : sb_verifier_find(v->spec.name);
    if (!v->ops)
        return unknown("verifier", v->spec.name, err);
    rc = fill_params(&v->params, "verifier", &v->spec, v->ops->params, v->ops->params_size, err);
    if (rc == SB_OK && v->ops->check)
        rc = v->ops->check(v->params, err);
    v->guarantee = rc == SB_OK ? sb_verifier_guarantee(v->ops, v->params) : SB_LOSSY;
    return rc;
}

static enum sb_status choose_verifiers(struct sb_certify_plan *plan,
                                       const struct sb_certify_options *o, struct sb_error *err)
{
    enum sb_status rc = SB_OK;
    if (o->subject)
        return choose_verifier(plan, o->subject->name, o->subject, true, err);
    for (size_t i = 0; i < o->n_verifiers && rc == SB_OK; i++)
        rc = choose_verifier(plan, o->verifier[i], NULL, true, err);
    for (size_t i = 0; o->n_verifiers == 0 && sb_verifiers[i] && rc == SB_OK; i++)
        rc = choose_verifier(plan, sb_verifiers[i]->name, NULL, false, err);
    return rc;
}

static enum sb_status choose_drafter(struct sb_certify_plan *plan, const char *text, bool by_name,
                                     struct sb_error *err)
{
    if (sb_grow((void **)&plan->drafter, &plan->cap_drafters, plan->n_drafters + 1,
                sizeof *plan->drafter) != 0)
        return out_of_memory(err);
    struct sb_chosen_drafter *d = &plan->drafter[plan->n_drafters++];
    *d = (struct sb_chosen_drafter){ .by_name = by_name };
    enum sb_status rc = sb_spec_parse(&d->spec, text, err);
    if (rc != SB_OK)
        return rc;
    d->ops = sb_drafter_find(d->spec.name);
    return d->ops ? fill_params(&d->params, "drafter", &d->spec, d->ops->params,
                                d->ops->params_size, err)
                  : unknown("drafter", d->spec.name, err);
}

static void forget_drafter(struct sb_certify_plan *plan)
{
    struct sb_chosen_drafter *d = &plan->drafter[--plan->n_drafters];
    sb_spec_finish(&d->spec);
    sb_free(d->params);
}

/* Is there a law to certify, and does it open on this model, with the verifier that is its default? */
static enum sb_status try_drafter(struct sb_certify_plan *plan, struct sb_error *err)
{
    const struct sb_chosen_drafter *d = &plan->drafter[plan->n_drafters - 1];
    if (d->ops->mix)
        return sb_fail(
            err, SB_EUSAGE,
            "drafter %s: it changes the target's law by design, which is lossy with every "
            "verifier: there is nothing to certify",
            d->ops->name);
    struct sb_session_options options = sb_arena_session(&plan->real);
    struct sb_session *session = NULL;
    options.drafter = &d->spec;
    options.sampling = plain;
    options.max_context = 64;
    enum sb_status rc = sb_session_create(&session, &options, err);
    sb_session_destroy(session);
    return rc;
}

/* A drafter of the registry stays out when it cannot run here; that is said, not an error. */
static enum sb_status offer_drafter(struct sb_certify_plan *plan, const char *text,
                                    struct sb_error *err)
{
    struct sb_error why;
    size_t used = strlen(plan->skipped);
    enum sb_status rc = choose_drafter(plan, text, false, &why);
    if (rc == SB_OK)
        rc = try_drafter(plan, &why);
    if (rc == SB_OK)
        return SB_OK;
    if (rc == SB_ENOMEM)
        return out_of_memory(err);
    forget_drafter(plan);
    if (strstr(plan->skipped, why.message)) /* of another variant */
        return SB_OK;
    snprintf(plan->skipped + used, sizeof plan->skipped - used, "%s%s", used ? "; " : "",
             why.message);
    return SB_OK;
}

static const struct sb_param *find_param(const struct sb_drafter_ops *ops, const char *name,
                                         enum sb_param_type type)
{
    for (const struct sb_param *p = ops->params; p && p->name; p++)
        if (strcmp(p->name, name) == 0 && p->type == type)
            return p;
    return NULL;
}

/* Ways to run a drafter of the registry with what is bundled: as it is; where it has an optional `tree`,
 * as one; where it has a `draw`, a tree of each rule of drawing, or paths. */
static enum sb_status offer_variants(struct sb_certify_plan *plan, const struct sb_drafter_ops *ops,
                                     struct sb_error *err)
{
    const struct sb_param *draw = find_param(ops, "draw", SB_PARAM_CHOICE);
    const struct sb_param *tree = find_param(ops, "tree", SB_PARAM_STRING);
    bool model = find_param(ops, "model", SB_PARAM_STRING);
    char plain_text[256], text[320];
    snprintf(plain_text, sizeof plain_text, "%s%s%s%s", ops->name, model ? ":model='" : "",
             model ? plan->real.draft_model : "", model ? "'" : "");
    enum sb_status rc = offer_drafter(plan, plain_text, err);
    const char *separator = model ? "," : ":", *choice = draw ? draw->choices : "";
    if (rc == SB_OK && tree && !tree->fallback && !draw) {
        snprintf(text, sizeof text, "%s%stree='2x2x1'", plain_text, separator);
        rc = offer_drafter(plan, text, err);
    }
    while (*choice && rc == SB_OK) {
        int length = (int)strcspn(choice, "|");
        bool paths = length == 5 && strncmp(choice, "paths", 5) == 0;
        snprintf(text, sizeof text, "%s%sdraw=%.*s,%s", plain_text, separator, length, choice,
                 paths ? "paths=2" : "tree='2x2'");
        rc = offer_drafter(plan, text, err);
        choice += length + (choice[length] == '|');
    }
    return rc;
}

static enum sb_status choose_drafters(struct sb_certify_plan *plan,
                                      const struct sb_certify_options *o, struct sb_error *err)
{
    enum sb_status rc = SB_OK;
    for (size_t i = 0; i < o->n_drafters && rc == SB_OK; i++) {
        rc = choose_drafter(plan, o->drafter[i], true, err);
        if (rc == SB_OK)
            rc = try_drafter(plan, err);
    }
    for (size_t i = 0; o->n_drafters == 0 && sb_drafters[i] && rc == SB_OK; i++)
        rc = offer_variants(plan, sb_drafters[i], err);
    return rc;
}

/* ---- jobs ---- */

static enum sb_status add_job(struct sb_certify_plan *plan, struct sb_job job, struct sb_error *err)
{
    if (sb_grow((void **)&plan->job, &plan->cap_jobs, plan->n_jobs + 1, sizeof job) != 0)
        return out_of_memory(err);
    plan->job[plan->n_jobs++] = job;
    return SB_OK;
}

static void set_text(struct sb_block_set *set)
{
    size_t used = 0;
    for (size_t i = 0; i < set->n && used < sizeof set->text; i++) {
        const struct sb_sampling *s = &set->block[i].sampling, *first = &set->block[0].sampling;
        if (i > 0 && memcmp(s, first, sizeof *s) == 0)
            continue; /* another prompt under the same setting */
        used += (size_t)snprintf(set->text + used, sizeof set->text - used, "%stemperature=%g",
                                 i ? "; " : "", s->temperature);
        if (s->top_k && used < sizeof set->text)
            used +=
                (size_t)snprintf(set->text + used, sizeof set->text - used, ",top_k=%zu", s->top_k);
        if (s->top_p > 0 && used < sizeof set->text)
            used +=
                (size_t)snprintf(set->text + used, sizeof set->text - used, ",top_p=%g", s->top_p);
    }
}

/* A set of `n` prompts, under settings[first] and the n_settings - 1 after it in turn. */
static enum sb_status add_set(struct sb_certify_plan *plan, size_t *index, bool toy, size_t first,
                              size_t n_settings, size_t n, int64_t draws, struct sb_error *err)
{
    if (sb_grow((void **)&plan->set, &plan->cap_sets, plan->n_sets + 1, sizeof *plan->set) != 0)
        return out_of_memory(err);
    struct sb_block_set *set = &plan->set[plan->n_sets];
    *set = (struct sb_block_set){ .n = n, .draws = draws };
    enum sb_status rc = sb_arena_blocks(&set->block, toy ? &plan->toy : &plan->real,
                                        settings + first, n_settings, n, draws, err);
    if (rc != SB_OK)
        return rc;
    set_text(set);
    *index = plan->n_sets++;
    return SB_OK;
}

static int64_t size_of(int64_t asked, bool all, int64_t quick, int64_t full)
{
    return asked ? asked : all ? full : quick;
}

/* Every verifier on every kind of draw, those without replacement also by races of shared noise, where
 * drafters may see it; then the planted rules. */
static enum sb_status plan_exact(struct sb_certify_plan *plan, struct sb_error *err)
{
    enum sb_status rc = SB_OK;
    for (size_t i = 0; i < plan->n_verifiers && rc == SB_OK; i++) {
        const struct sb_chosen_verifier *v = &plan->verifier[i];
        struct sb_job job = { .kind = SB_JOB_EXACT, .verifier = v };
        for (int k = SB_DRAW_ONEHOT; k < SB_DRAW_KINDS && rc == SB_OK; k++) {
            if (!(v->ops->kinds & SB_KIND_BIT(k)))
                continue;
            job.drawing = (struct sb_drawing){ .kind = (enum sb_draw_kind)k };
            rc = add_job(plan, job, err);
            job.drawing.coupled = true;
            if (rc == SB_OK && k == SB_DRAW_WOR && !v->ops->bottom_up)
                rc = add_job(plan, job, err);
        }
    }
    for (const struct sb_planted *p = sb_planted; p->name && rc == SB_OK; p++)
        rc = add_job(plan,
                     (struct sb_job){ .kind = SB_JOB_EXACT, .planted = p, .drawing = p->drawing },
                     err);
    return rc;
}

/* On the toy arena: the planted rules, and every verifier that samples on every kind of draw, from the
 * probe. A lossy one that nobody asked for is measured on one kind. */
static enum sb_status plan_toy(struct sb_certify_plan *plan, const struct sb_certify_options *o,
                               struct sb_error *err)
{
    size_t set;
    enum sb_status rc = add_set(plan, &set, true, 0, o->all ? N_SETTINGS : MIXED_BLOCKS,
                                o->all ? N_SETTINGS : MIXED_BLOCKS,
                                size_of(o->draws, o->all, TOY_DRAWS, TOY_DRAWS_ALL), err);
    struct sb_job job = { .kind = SB_JOB_SAMPLE, .toy = true, .blocks = set };
    for (const struct sb_planted *p = sb_planted; p->name && rc == SB_OK; p++) {
        job.planted = p;
        job.drawing = p->drawing;
        rc = add_job(plan, job, err);
    }
    job.planted = NULL;
    for (size_t i = 0; i < plan->n_verifiers && rc == SB_OK; i++) {
        const struct sb_chosen_verifier *v = &plan->verifier[i];
        bool once = v->guarantee == SB_LOSSY && !v->by_name;
        for (int k = SB_DRAW_KINDS; k-- > SB_DRAW_ONEHOT && rc == SB_OK;) {
            enum sb_draw_kind kind = (enum sb_draw_kind)k;
            bool pairs = kind == SB_DRAW_HUB || kind == SB_DRAW_TOPK1 || kind == SB_DRAW_MIX;
            if (v->guarantee == SB_GREEDY_EXACT || v->ops->greedy_only ||
                !(v->ops->kinds & SB_KIND_BIT(kind)) || (v->ops->chains_only && pairs))
                continue;
            if (once && kind != SB_DRAW_IID && (v->ops->kinds & SB_KIND_BIT(SB_DRAW_IID)))
                continue;
            job.verifier = v;
            job.drawing = (struct sb_drawing){ .kind = kind,
                                               .depth = v->ops->chains_only ? 3 : 2,
                                               .width = v->ops->chains_only ? 1 : 2,
                                               .coupled = kind == SB_DRAW_WOR };
            rc = add_job(plan, job, err);
            if (once)
                break;
        }
    }
    return rc;
}

static bool lawful(const struct sb_chosen_drafter *d, const struct sb_verifier_ops *v,
                   const struct sb_sampling *sampling)
{
    return sb_pair_check_with(d->ops, d->params, v, sampling, NULL) == SB_OK;
}

struct pair {
    const struct sb_chosen_drafter *drafter;
    const struct sb_chosen_verifier *verifier;
};

struct pairs {
    struct pair *pair;
    size_t n, cap;
};

static enum sb_status add_pair(struct pairs *pairs, const struct sb_chosen_drafter *d,
                               const struct sb_chosen_verifier *v, struct sb_error *err)
{
    if (sb_grow((void **)&pairs->pair, &pairs->cap, pairs->n + 1, sizeof *pairs->pair) != 0)
        return out_of_memory(err);
    pairs->pair[pairs->n++] = (struct pair){ d, v };
    return SB_OK;
}

/* Is this verifier tested by sampling when it is asked for, or anyway? */
static bool is_sampled(const struct sb_chosen_verifier *v)
{
    return v->by_name ? v->guarantee != SB_GREEDY_EXACT && !v->ops->greedy_only
                      : v->guarantee == SB_DISTRIBUTION_EXACT;
}

/* A drafter and a verifier that were asked for by name must each have a lawful partner among the others
 * that were; of two lists, not every pair needs to be lawful. */
static enum sb_status check_partners(const struct pairs *pairs, const struct sb_certify_plan *plan,
                                     struct sb_error *err)
{
    const struct sb_chosen_drafter *d = plan->drafter;
    const struct sb_chosen_verifier *v = plan->verifier;
    bool both = plan->n_drafters && plan->n_verifiers && d->by_name && v->by_name;
    for (size_t i = 0; both && i < plan->n_drafters + plan->n_verifiers; i++) {
        bool of_drafter = i < plan->n_drafters, paired = false;
        if (of_drafter)
            d = &plan->drafter[i];
        else
            v = &plan->verifier[i - plan->n_drafters];
        for (size_t k = 0; k < pairs->n; k++)
            paired =
                paired || (of_drafter ? pairs->pair[k].drafter == d : pairs->pair[k].verifier == v);
        for (size_t k = 0; of_drafter && k < plan->n_verifiers; k++)
            paired = paired || !is_sampled(&plan->verifier[k]); /* for the other parts */
        if (!paired && is_sampled(v))
            return sb_pair_check_with(d->ops, d->params, v->ops, &plain, err);
    }
    return SB_OK;
}

/* All lawful pairs of what was asked for. Without a word on verifiers, the exact ones. */
static enum sb_status pair_all(struct pairs *pairs, const struct sb_certify_plan *plan,
                               struct sb_error *err)
{
    enum sb_status rc = SB_OK;
    for (size_t d = 0; d < plan->n_drafters; d++)
        for (size_t i = 0; i < plan->n_verifiers && rc == SB_OK; i++)
            if (is_sampled(&plan->verifier[i]) &&
                lawful(&plan->drafter[d], plan->verifier[i].ops, &plain))
                rc = add_pair(pairs, &plan->drafter[d], &plan->verifier[i], err);
    return rc == SB_OK ? check_partners(pairs, plan, err) : rc;
}

/* Does this drafter draw its tokens, or choose them? */
static bool is_drawing(const struct sb_chosen_drafter *d)
{
    return d->ops->kinds_sampling & ~SB_KIND_BIT(SB_DRAW_ONEHOT);
}

static bool has_verifier(const struct pairs *pairs, const struct sb_chosen_verifier *v)
{
    for (size_t i = 0; i < pairs->n; i++)
        if (pairs->pair[i].verifier == v)
            return true;
    return false;
}

static const struct sb_chosen_verifier *find_chosen(const struct sb_certify_plan *plan,
                                                    const struct sb_verifier_ops *ops)
{
    for (size_t i = 0; i < plan->n_verifiers; i++)
        if (plan->verifier[i].ops == ops)
            return &plan->verifier[i];
    return NULL;
}

/* Each drafter with its default verifier, then each exact verifier that is still missing with the first
 * drafter it takes, one that samples its drafts if there is one. */
static enum sb_status pair_some(struct pairs *pairs, const struct sb_certify_plan *plan,
                                struct sb_error *err)
{
    enum sb_status rc = SB_OK;
    for (size_t d = 0; d < plan->n_drafters && rc == SB_OK; d++) {
        const struct sb_chosen_drafter *drafter = &plan->drafter[d];
        const struct sb_verifier_ops *v =
            sb_verifier_default_with(drafter->ops, drafter->params, &plain);
        if (v)
            rc = add_pair(pairs, drafter, find_chosen(plan, v), err);
    }
    for (int sampled = 1; sampled >= 0; sampled--)
        for (size_t i = 0; i < plan->n_verifiers; i++) {
            const struct sb_chosen_verifier *v = &plan->verifier[i];
            for (size_t d = 0; d < plan->n_drafters && rc == SB_OK && !has_verifier(pairs, v) &&
                               v->guarantee == SB_DISTRIBUTION_EXACT;
                 d++) {
                const struct sb_chosen_drafter *drafter = &plan->drafter[d];
                if (is_drawing(drafter) >= sampled && lawful(drafter, v->ops, &plain))
                    rc = add_pair(pairs, drafter, v, err);
            }
        }
    return rc;
}

/* A job for every pair on one set of prompts. */
static enum sb_status add_pairs(struct sb_certify_plan *plan, const struct pairs *pairs, size_t set,
                                struct sb_error *err)
{
    enum sb_status rc = SB_OK;
    for (size_t i = 0; i < pairs->n && rc == SB_OK; i++)
        rc = add_job(plan,
                     (struct sb_job){ .kind = SB_JOB_SAMPLE,
                                      .drafter = pairs->pair[i].drafter,
                                      .verifier = pairs->pair[i].verifier,
                                      .blocks = set },
                     err);
    return rc;
}

/* Of all pairs, each verifier with the first drafter that draws and the first that chooses. */
static enum sb_status pair_verifiers(struct pairs *few, const struct pairs *all,
                                     struct sb_error *err)
{
    enum sb_status rc = SB_OK;
    for (size_t i = 0; i < all->n && rc == SB_OK; i++) {
        const struct pair *p = &all->pair[i];
        bool seen = false;
        for (size_t k = 0; k < few->n; k++)
            seen = seen || (few->pair[k].verifier == p->verifier &&
                            is_drawing(few->pair[k].drafter) == is_drawing(p->drafter));
        if (!seen)
            rc = add_pair(few, p->drafter, p->verifier, err);
    }
    return rc;
}

/* Pairs on prompts with mixed settings; with `all` every lawful one, and besides every verifier under
 * every setting by itself. */
static enum sb_status plan_pairs(struct sb_certify_plan *plan, const struct sb_certify_options *o,
                                 struct sb_error *err)
{
    struct pairs pairs = { 0 }, few = { 0 };
    enum sb_status rc = o->all || o->n_verifiers || o->subject ? pair_all(&pairs, plan, err)
                                                               : pair_some(&pairs, plan, err);
    size_t prompts = o->all ? N_SETTINGS : MIXED_BLOCKS, set;
    int64_t draws = size_of(0, o->all, PAIR_BUDGET, PAIR_BUDGET_ALL) /
                    (int64_t)((pairs.n ? pairs.n : 1) * prompts);
    int64_t least = o->all ? MIN_PAIR_DRAWS_ALL : MIN_PAIR_DRAWS;
    draws = draws < least ? least : draws;
    draws = draws > MOST_PAIR_DRAWS ? MOST_PAIR_DRAWS : draws;
    draws = o->draws ? o->draws : draws;
    if (rc == SB_OK && pairs.n)
        rc = add_set(plan, &set, false, 0, prompts, prompts, draws, err);
    if (rc == SB_OK)
        rc = add_pairs(plan, &pairs, set, err);
    if (rc == SB_OK && o->all)
        rc = pair_verifiers(&few, &pairs, err);
    for (size_t s = 0; s < N_SETTINGS && rc == SB_OK && few.n; s++) {
        rc = add_set(plan, &set, false, s, 1, MIXED_BLOCKS, draws, err);
        if (rc == SB_OK)
            rc = add_pairs(plan, &few, set, err);
    }
    sb_free(pairs.pair);
    sb_free(few.pair);
    return rc;
}

static enum sb_status plan_real(struct sb_certify_plan *plan, const struct sb_certify_options *o,
                                struct sb_error *err)
{
    size_t faint, evident;
    int64_t draws = size_of(o->draws, o->all, POWER_DRAWS, POWER_DRAWS_ALL);
    enum sb_status rc = add_set(plan, &faint, false, 0, MIXED_BLOCKS, MIXED_BLOCKS, draws, err);
    if (rc == SB_OK)
        rc = add_set(plan, &evident, false, 0, MIXED_BLOCKS, MIXED_BLOCKS,
                     o->draws ? draws : draws / EVIDENT, err);
    for (const struct sb_planted *p = sb_planted; p->name && rc == SB_OK; p++)
        rc = add_job(plan,
                     (struct sb_job){ .kind = SB_JOB_SAMPLE,
                                      .planted = p,
                                      .drawing = p->drawing,
                                      .blocks = p->faint ? faint : evident },
                     err);
    return rc == SB_OK ? plan_pairs(plan, o, err) : rc;
}

static enum sb_status add_greedy(struct sb_certify_plan *plan, const struct sb_chosen_drafter *d,
                                 const struct sb_policy_ops *policy, struct sb_error *err)
{
    static const struct sb_sampling greedy = { 0 };
    struct sb_job job = { .kind = SB_JOB_GREEDY, .drafter = d, .policy = policy };
    enum sb_status rc = SB_OK;
    if (!plan->verifier[0].by_name)
        return add_job(plan, job, err);
    for (size_t i = 0; i < plan->n_verifiers && rc == SB_OK; i++) {
        job.verifier = &plan->verifier[i];
        if (job.verifier->guarantee != SB_LOSSY && lawful(d, job.verifier->ops, &greedy))
            rc = add_job(plan, job, err);
    }
    return rc;
}

/* Every drafter, however it draws, with its own policy; every policy with every drafter, or with one that
 * drafts by a model. */
static enum sb_status plan_greedy(struct sb_certify_plan *plan, const struct sb_certify_options *o,
                                  struct sb_error *err)
{
    const struct sb_chosen_drafter *modelled = NULL;
    enum sb_status rc = SB_OK;
    for (size_t d = 0; d < plan->n_drafters && rc == SB_OK; d++) {
        const struct sb_chosen_drafter *drafter = &plan->drafter[d];
        if (!modelled && find_param(drafter->ops, "model", SB_PARAM_STRING))
            modelled = drafter;
        rc = add_greedy(plan, drafter, NULL, err);
    }
    for (size_t d = 0; d < plan->n_drafters && rc == SB_OK; d++)
        for (size_t p = 0; sb_policies[p] && rc == SB_OK; p++) {
            const struct sb_chosen_drafter *drafter = &plan->drafter[d];
            const char *own = drafter->ops->default_policy;
            bool is_own = strcmp(sb_policies[p]->name, own ? own : "constant") == 0;
            bool drafts = strcmp(drafter->ops->name, "none") != 0;
            bool first = d == 0 || drafter->by_name || drafter[-1].ops != drafter->ops;
            if (!is_own && drafts && (drafter == modelled || (o->all && first)))
                rc = add_greedy(plan, drafter, sb_policies[p], err);
        }
    return rc;
}

/* ---- the plan ---- */

enum sb_status sb_certify_plan_make(struct sb_certify_plan *out, const struct sb_certify_options *o,
                                    struct sb_models *models, struct sb_error *err)
{
    *out = (struct sb_certify_plan){ .toy_length = LENGTH,
                                     .real_length = REAL_LENGTH,
                                     .tables = size_of(o->tables, o->all, TABLES, TABLES_ALL) };
    enum sb_status rc = choose_verifiers(out, o, err);
    if (rc == SB_OK)
        rc = sb_arena_toy(&out->toy, err);
    if (rc == SB_OK)
        rc = sb_arena_open(&out->real, o->model ? o->model : "tiny", models, err);
    if (rc == SB_OK)
        rc = choose_drafters(out, o, err);
    if (rc == SB_OK)
        rc = plan_exact(out, err);
    if (rc == SB_OK)
        rc = plan_toy(out, o, err);
    if (rc == SB_OK)
        rc = plan_real(out, o, err);
    if (rc == SB_OK)
        rc = plan_greedy(out, o, err);
    if (rc == SB_OK)
        rc = sb_greedy_set_make(&out->greedy, &out->real, o->all ? 0 : QUESTIONS,
                                o->draws ? ANSWER / 2 : ANSWER, err);
    if (rc != SB_OK)
        sb_certify_plan_finish(out);
    return rc;
}

void sb_certify_plan_finish(struct sb_certify_plan *plan)
{
    for (size_t i = 0; i < plan->n_drafters; i++) {
        sb_spec_finish(&plan->drafter[i].spec);
        sb_free(plan->drafter[i].params);
    }
    for (size_t i = 0; i < plan->n_verifiers; i++) {
        sb_spec_finish(&plan->verifier[i].spec);
        sb_free(plan->verifier[i].params);
    }
    for (size_t i = 0; i < plan->n_sets; i++)
        sb_arena_blocks_free(plan->set[i].block, plan->set[i].n);
    sb_greedy_set_finish(&plan->greedy);
    sb_arena_finish(&plan->toy);
    sb_arena_finish(&plan->real);
    sb_free(plan->drafter);
    sb_free(plan->verifier);
    sb_free(plan->set);
    sb_free(plan->job);
    *plan = (struct sb_certify_plan){ 0 };
}
