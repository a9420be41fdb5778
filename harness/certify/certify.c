#include "harness/certify/certify.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "harness/certify/exact.h"
#include "harness/certify/internal.h"
#include "harness/certify/probe.h"
#include "harness/core/alloc.h"
#include "harness/core/clock.h"
#include "harness/core/rng.h"
#include "harness/experiment/host.h"
#include "harness/experiment/progress.h"

#define CONFIDENCE .95
#define POWER      .99
enum { AGAIN = 4 }; /* times the generations of the first run, for the one that confirms */

struct run {
    const struct sb_certify_options *options;
    struct sb_certificate *out;
    struct sb_certify_plan plan;
    struct sb_progress progress;
    char label[96]; /* of the check at hand, for the progress bar */
    int64_t certificate_id;
    uint64_t started_ns;
};

/* ---- rows ---- */

static struct sb_check *add_check(struct run *r, struct sb_error *err)
{
    struct sb_certificate *out = r->out;
    if (sb_grow((void **)&out->check, &out->cap, out->n + 1, sizeof *out->check) != 0) {
        sb_fail(err, SB_ENOMEM, "out of memory for the certificate");
        return NULL;
    }
    struct sb_check *check = &out->check[out->n];
    *check = (struct sb_check){
        .row = { .check_no = (int)out->n,
                 .max_error = NAN,
                 .variation = NAN,
                 .variation_upper = NAN,
                 .accepted = NAN,
                 .g = NAN,
                 .df = NAN,
                 .g_p = NAN,
                 .drift = NAN,
                 .drift_upper = NAN,
                 .drift_p = NAN,
                 .p_holm = NAN,
                 .detectable = NAN,
                 .equal = -1,
                 .ties = -1,
                 .numerical = -1,
                 .real = -1 },
    };
    out->n++;
    return check;
}

/* The array of checks moves as it grows: pointers into a check are set when it is used. */
static void point_texts(struct sb_check *check)
{
    struct sb_check_row *row = &check->row;
    row->verifier_params = check->verifier_params;
    row->drafter = check->drafter[0] ? check->drafter : NULL;
    row->policy = check->policy[0] ? check->policy : NULL;
    row->kind = check->kind[0] ? check->kind : NULL;
    row->target = check->target;
    row->setting = check->setting[0] ? check->setting : NULL;
    row->note = check->note[0] ? check->note : NULL;
}

static enum sb_status store(struct run *r, struct sb_check *check, struct sb_error *err)
{
    point_texts(check);
    check->row.certificate_id = r->certificate_id;
    return r->options->store ? sb_store_check(r->options->store, &check->row, err) : SB_OK;
}

/* "k=v,k=v" of a spec, "" without parameters. */
static void params_text(char *out, size_t size, const struct sb_spec *spec)
{
    char *text = spec->n ? sb_spec_text(spec) : NULL;
    snprintf(out, size, "%s", text ? strchr(text, ':') + 1 : "");
    sb_free(text);
}

static void spec_text(char *out, size_t size, const struct sb_spec *spec)
{
    char *text = sb_spec_text(spec);
    snprintf(out, size, "%s", text ? text : spec->name);
    sb_free(text);
}

static void drawing_text(char *out, size_t size, const struct sb_drawing *d)
{
    snprintf(out, size, "probe:kind=%s,%dx%d%s%s", sb_draw_kind_name(d->kind), d->width, d->depth,
             d->coupled ? ",coupled" : "", d->wrong ? ",wrong" : "");
}

static void describe_verifier(struct sb_check *check, const struct sb_job *job,
                              const struct sb_verifier_ops *fallback)
{
    struct sb_check_row *row = &check->row;
    row->planted = job->planted != NULL;
    if (job->planted) {
        row->verifier = job->planted->name;
        row->guarantee = sb_guarantee_name(SB_DISTRIBUTION_EXACT);
    } else if (job->verifier) {
        row->verifier = job->verifier->ops->name;
        row->guarantee = sb_guarantee_name(job->verifier->guarantee);
        params_text(check->verifier_params, sizeof check->verifier_params, &job->verifier->spec);
    } else {
        row->verifier = fallback->name;
        row->guarantee = sb_guarantee_name(fallback->guarantee);
    }
}

/* The same for every order and selection of checks: what a check draws depends on what it is, and on the
 * target's content, wherever its file lies. */
static uint64_t seed_of(const struct run *r, const struct sb_job *job, const struct sb_check *check)
{
    const char *text[] = { check->row.part, check->row.verifier, check->verifier_params,
                           check->drafter, check->setting };
    const struct sb_arena *arena = job->toy ? &r->plan.toy : &r->plan.real;
    uint64_t seed = sb_rng_mix(r->options->seed, sb_model_weights(arena->target)->content_hash);
    for (size_t i = 0; i < sizeof text / sizeof *text; i++)
        for (size_t c = 0; c <= strlen(text[i]); c++) /* the NUL too: it ends a field */
            seed = sb_rng_mix(seed, (unsigned char)text[i][c]);
    return seed;
}

static void advance(void *self)
{
    struct run *r = self;
    sb_progress_advance(&r->progress, r->label);
}

/* ---- exact ---- */

static const char *exact_verdict(const struct sb_job *job, const struct sb_exact *e)
{
    bool holds = e->max_error < SB_EXACT_TOLERANCE && !e->failed && !e->golden_missed;
    if (job->planted && job->planted != sb_planted)
        return holds ? "missed" : "caught";
    if (e->failed || e->golden_missed)
        return "fail";
    if (e->unsupported || e->tables == 0)
        return "inconclusive";
    if (!job->planted && job->verifier->guarantee == SB_LOSSY)
        return job->verifier->ops->law && !holds ? "fail" : "lossy";
    return holds ? "pass" : "fail";
}

static enum sb_status run_exact(struct run *r, const struct sb_job *job, struct sb_check *check,
                                struct sb_error *err)
{
    const struct sb_exact_options options = { .tables = r->plan.tables, .seed = r->options->seed };
    struct sb_exact e;
    check->row.part = "exact";
    snprintf(check->target, sizeof check->target, "tables");
    snprintf(check->kind, sizeof check->kind, "%s%s", sb_draw_kind_name(job->drawing.kind),
             job->drawing.coupled ? " coupled" : "");
    describe_verifier(check, job, NULL);
    enum sb_status rc = job->planted
                            ? sb_exact_run_drawing(&e, &sb_control_verifier, &job->planted->rule,
                                                   &job->planted->drawing, &options, err)
                            : sb_exact_run(&e, job->verifier->ops, job->verifier->params,
                                           job->drawing.kind, job->drawing.coupled, &options, err);
    if (rc != SB_OK)
        return rc;
    struct sb_check_row *row = &check->row;
    row->n = e.tables;
    row->outcomes = e.runs;
    row->max_error = e.max_error;
    row->variation = e.variation;
    row->variation_upper = e.variation_max;
    row->accepted = e.toy_accepted;
    row->verdict = exact_verdict(job, &e);
    snprintf(check->note, sizeof check->note, "%s", e.note);
    bool own_law = strcmp(row->verdict, "lossy") == 0 && job->verifier->ops->law;
    if (own_law)
        snprintf(check->note, sizeof check->note, "exact for its own law of p and q");
    advance(r);
    return SB_OK;
}

/* ---- sample ---- */

/* Texts of the plug-ins that a sampled check is made of, parsed. */
struct plugs {
    struct sb_spec drafter, verifier;
    bool own_drafter, own_verifier; /* the specs are ours, not borrowed from the plan */
};

static void finish_plugs(struct plugs *p)
{
    if (p->own_drafter)
        sb_spec_finish(&p->drafter);
    if (p->own_verifier)
        sb_spec_finish(&p->verifier);
}

static enum sb_status make_plugs(struct plugs *p, struct sb_session_options *session,
                                 const struct sb_arena *arena, const struct sb_job *job,
                                 struct sb_error *err)
{
    enum sb_status rc = SB_OK;
    *p = (struct plugs){ .own_drafter = !job->drafter, .own_verifier = job->planted != NULL };
    if (job->drafter) {
        p->drafter = job->drafter->spec;
    } else {
        char *text = sb_probe_text(&job->drawing, arena->draft_model, arena->heat);
        rc = text ? sb_spec_parse(&p->drafter, text, err)
                  : sb_fail(err, SB_ENOMEM, "out of memory for the certificate");
        sb_free(text);
        session->drafter_ops = &sb_probe_drafter;
    }
    if (rc == SB_OK && job->planted) {
        rc = sb_spec_parse(&p->verifier, job->planted->params, err);
        session->verifier_ops = &sb_control_verifier;
    } else if (rc == SB_OK) {
        p->verifier = job->verifier->spec;
        session->verifier_ops = job->verifier->ops;
    }
    session->drafter = &p->drafter;
    session->verifier = &p->verifier;
    return rc;
}

static enum sb_status sample(struct run *r, struct sb_sampled *out, const struct sb_job *job,
                             int64_t times, uint64_t seed, struct sb_error *err)
{
    struct sb_arena *arena = job->toy ? &r->plan.toy : &r->plan.real;
    const struct sb_block_set *set = &r->plan.set[job->blocks];
    struct sb_sample_request request = { .session = sb_arena_session(arena),
                                         .eos = arena->eos,
                                         .n_eos = arena->n_eos,
                                         .block = set->block,
                                         .n_blocks = set->n,
                                         .draws = set->draws * times,
                                         .length =
                                             job->toy ? r->plan.toy_length : r->plan.real_length,
                                         .seed = seed,
                                         .stop = r->options->stop,
                                         .tick = times == 1 ? advance : NULL,
                                         .self = r };
    struct plugs plugs;
    enum sb_status rc = make_plugs(&plugs, &request.session, arena, job, err);
    if (rc == SB_OK)
        rc = sb_sample_run(out, &request, err);
    finish_plugs(&plugs);
    return rc;
}

static void fill_sampled(struct sb_check_row *row, const struct sb_sampled *s)
{
    row->n = s->generations;
    row->outcomes = s->tokens;
    row->variation = fmax(0, s->fit.variation - s->fit.variation_bias);
    row->variation_upper = sb_fit_variation_upper(&s->fit, CONFIDENCE);
    row->accepted = s->steps ? (double)s->accepted / (double)s->steps : NAN;
    row->g = s->fit.g;
    row->df = s->fit.df;
    row->g_p = s->first_p;
    row->drift = s->drift;
    row->drift_upper = s->drift_upper;
    row->drift_p = s->drift_p;
    row->detectable = sb_detectable_variation((double)s->fit.n, s->fit.df, SB_CERTIFY_LEVEL, POWER);
}

/* Errors that say something about the pair, not about the machine, are a result. */
static bool is_result(enum sb_status rc)
{
    return rc == SB_EUSAGE || rc == SB_EFORMAT || rc == SB_EINTERNAL || rc == SB_EUNSUPPORTED;
}

static enum sb_status run_sample(struct run *r, const struct sb_job *job, struct sb_check *check,
                                 struct sb_error *err)
{
    struct sb_sampled s = { 0 };
    struct sb_error why;
    check->row.part = "sample";
    describe_verifier(check, job, NULL);
    snprintf(check->target, sizeof check->target, "%s",
             job->toy ? r->plan.toy.name : r->plan.real.name);
    snprintf(check->setting, sizeof check->setting, "%s", r->plan.set[job->blocks].text);
    if (job->drafter)
        spec_text(check->drafter, sizeof check->drafter, &job->drafter->spec);
    else
        drawing_text(check->drafter, sizeof check->drafter, &job->drawing);
    enum sb_status rc = sample(r, &s, job, 1, seed_of(r, job, check), &why);
    if (rc == SB_OK) {
        fill_sampled(&check->row, &s);
        bool drafts = !job->drafter || strcmp(job->drafter->ops->name, "none") != 0;
        if (drafts && s.drafted == 0) {
            check->row.verdict = "inconclusive";
            snprintf(check->note, sizeof check->note, "nothing was drafted");
        } else if (!job->planted && job->verifier->guarantee == SB_LOSSY) {
            check->row.verdict = "lossy";
        }
        return SB_OK;
    }
    if (!is_result(rc)) {
        if (err)
            *err = why;
        return rc;
    }
    check->row.verdict = rc == SB_EUSAGE ? "inconclusive" : "fail";
    snprintf(check->note, sizeof check->note, "%s", why.message);
    return SB_OK;
}

/* ---- greedy ---- */

static enum sb_status run_greedy(struct run *r, const struct sb_job *job, struct sb_check *check,
                                 struct sb_error *err)
{
    struct sb_session_options session = sb_arena_session(&r->plan.real);
    const struct sb_verifier_ops *fallback = sb_verifier_default_with(
        job->drafter->ops, job->drafter->params, &(const struct sb_sampling){ 0 });
    const char *own_policy = job->drafter->ops->default_policy;
    struct sb_spec policy = { .name = job->policy ? (char *)job->policy->name : NULL };
    struct sb_greedy g = { 0 };
    struct sb_error why;
    session.drafter = &job->drafter->spec;
    session.verifier = job->verifier ? &job->verifier->spec : NULL;
    session.verifier_ops = job->verifier ? job->verifier->ops : NULL;
    session.policy = job->policy ? &policy : NULL;
    check->row.part = "greedy";
    describe_verifier(check, job, fallback);
    spec_text(check->drafter, sizeof check->drafter, &job->drafter->spec);
    snprintf(check->policy, sizeof check->policy, "%s",
             job->policy  ? job->policy->name
             : own_policy ? own_policy
                          : "constant");
    snprintf(check->target, sizeof check->target, "%s", r->plan.real.name);
    enum sb_status rc = sb_greedy_run(&g, &r->plan.greedy, &session, r->options->stop, &why);
    advance(r);
    if (rc != SB_OK && !is_result(rc)) {
        if (err)
            *err = why;
        return rc;
    }
    struct sb_check_row *row = &check->row;
    row->n = g.generations;
    row->outcomes = g.tokens;
    row->accepted = g.steps ? (double)g.accepted / (double)g.steps : NAN;
    row->equal = g.equal;
    row->ties = g.ties;
    row->numerical = g.numerical;
    row->real = g.real;
    row->verdict = rc == SB_EUSAGE ? "inconclusive" : rc != SB_OK || g.real ? "fail" : "pass";
    snprintf(check->note, sizeof check->note, "%s", rc != SB_OK ? why.message : g.note);
    return SB_OK;
}

/* ---- all of them ---- */

static enum sb_status run_job(struct run *r, const struct sb_job *job, struct sb_error *err)
{
    struct sb_check *check = add_check(r, err);
    if (!check)
        return SB_ENOMEM;
    uint64_t start_ns = sb_now_ns();
    snprintf(r->label, sizeof r->label, "%s %s",
             job->kind == SB_JOB_EXACT    ? "exact"
             : job->kind == SB_JOB_SAMPLE ? "sample"
                                          : "greedy",
             job->planted    ? job->planted->name
             : job->verifier ? job->verifier->ops->name
                             : job->drafter->ops->name);
    enum sb_status rc = job->kind == SB_JOB_EXACT    ? run_exact(r, job, check, err)
                        : job->kind == SB_JOB_SAMPLE ? run_sample(r, job, check, err)
                                                     : run_greedy(r, job, check, err);
    check->row.wall_ns = (int64_t)(sb_now_ns() - start_ns);
    if (rc != SB_OK) {
        r->out->n--; /* what was not finished is no check */
        return rc;
    }
    return store(r, check, err);
}

static enum sb_status run_jobs(struct run *r, struct sb_error *err)
{
    enum sb_status rc = SB_OK;
    int64_t units = 0;
    for (size_t i = 0; i < r->plan.n_jobs; i++)
        units += r->plan.job[i].kind == SB_JOB_SAMPLE
                     ? (int64_t)r->plan.set[r->plan.job[i].blocks].n
                     : 1;
    sb_progress_start(&r->progress, r->options->quiet, units, 0);
    for (size_t i = 0; i < r->plan.n_jobs && rc == SB_OK; i++) {
        rc = run_job(r, &r->plan.job[i], err);
        if (rc == SB_OK && r->options->stop && *r->options->stop)
            rc = sb_fail(err, SB_EINTERRUPTED, "interrupted");
    }
    return rc;
}

/* ---- verdicts ---- */

/* A check that must pass, with p-values of its own. */
static bool is_test(const struct sb_check *check, const struct sb_job *job)
{
    bool spoilt = job->planted && job->planted != sb_planted;
    return !spoilt && !check->row.verdict && !isnan(check->row.g_p);
}

/* Both p-values of every test, adjusted together. */
static enum sb_status adjust(struct run *r, struct sb_error *err)
{
    size_t n = r->out->n;
    double *p = sb_alloc_array(4 * n, sizeof *p), *adjusted = p + 2 * n;
    if (!p)
        return sb_fail(err, SB_ENOMEM, "out of memory for %zu checks", n);
    r->out->tests = 0;
    for (size_t i = 0; i < n; i++) {
        const struct sb_check_row *row = &r->out->check[i].row;
        bool test = is_test(&r->out->check[i], &r->plan.job[i]);
        p[2 * i] = test ? row->g_p : NAN;
        p[2 * i + 1] = test ? row->drift_p : NAN;
        r->out->tests += test ? 2 : 0;
    }
    sb_holm(adjusted, p, 2 * n);
    for (size_t i = 0; i < n; i++)
        if (!isnan(adjusted[2 * i]))
            r->out->check[i].row.p_holm = fmin(adjusted[2 * i], adjusted[2 * i + 1]);
    sb_free(p);
    return SB_OK;
}

/* One run more, larger and with a new seed. */
static enum sb_status sample_again(struct run *r, struct sb_sampled *s, const struct sb_job *job,
                                   const struct sb_check *check, struct sb_error *err)
{
    return sample(r, s, job, AGAIN, sb_rng_mix(seed_of(r, job, check), AGAIN), err);
}

/* A planted rule is judged as if it stood among the tests, alone: no easier than for the first that
 * Holm's procedure looks at. */
static bool is_caught(const struct run *r, struct sb_check *check)
{
    double p = fmin(check->row.g_p, check->row.drift_p) * (double)(r->out->tests + 2);
    check->row.p_holm = fmin(1, p);
    return p < SB_CERTIFY_LEVEL;
}

/* A rule that is not caught at first gets the one run more that a failed test gets: how faint it is
 * depends on the target. */
static enum sb_status judge_planted(struct run *r, const struct sb_job *job, struct sb_check *check,
                                    struct sb_error *err)
{
    bool caught = is_caught(r, check);
    struct sb_sampled s;
    if (!caught) {
        enum sb_status rc = sample_again(r, &s, job, check, err);
        if (rc != SB_OK)
            return rc;
        snprintf(check->note, sizeof check->note,
                 "p = %.2g of all tests together; run again with %d times the generations",
                 check->row.p_holm, AGAIN);
        fill_sampled(&check->row, &s);
        caught = is_caught(r, check);
    }
    check->row.verdict = caught ? "caught" : "missed";
    return SB_OK;
}

/* The one run more that a failed test gets. */
static enum sb_status confirm(struct run *r, const struct sb_job *job, struct sb_check *check,
                              struct sb_error *err)
{
    struct sb_sampled s;
    enum sb_status rc = sample_again(r, &s, job, check, err);
    if (rc != SB_OK)
        return rc;
    double p = fmin(1, 2 * fmin(s.first_p, s.drift_p));
    snprintf(
        check->note, sizeof check->note,
        "p = %.2g of all tests together (G %.2g, drift %.2g); run again with a new seed and %d "
        "times the generations: p = %.2g",
        check->row.p_holm, check->row.g_p, check->row.drift_p, AGAIN, p);
    if (p < SB_CERTIFY_LEVEL)
        fill_sampled(&check->row, &s);
    check->row.verdict = p < SB_CERTIFY_LEVEL ? "fail" : "inconclusive";
    return SB_OK;
}

static enum sb_status judge(struct run *r, struct sb_error *err)
{
    enum sb_status rc = adjust(r, err);
    for (size_t i = 0; i < r->out->n && rc == SB_OK; i++) {
        struct sb_check *check = &r->out->check[i];
        const struct sb_job *job = &r->plan.job[i];
        if (check->row.verdict)
            continue;
        if (!is_test(check, job))
            rc = judge_planted(r, job, check, err);
        else if (check->row.p_holm < SB_CERTIFY_LEVEL)
            rc = confirm(r, job, check, err);
        else
            check->row.verdict = "pass";
        if (rc == SB_OK)
            rc = store(r, check, err);
    }
    return rc;
}

/* A planted rule that is not caught makes the certificate worthless, and so does the control when it is
 * refused: a test that refuses what is right proves nothing either. */
static void count_verdicts(struct run *r)
{
    struct sb_certificate *out = r->out;
    for (size_t i = 0; i < out->n; i++) {
        const struct sb_planted *planted = r->plan.job[i].planted;
        const char *verdict = out->check[i].row.verdict;
        bool fail = strcmp(verdict, "fail") == 0;
        if (planted && (planted == sb_planted ? fail : strcmp(verdict, "caught") != 0))
            out->missed++;
        out->refuted += !planted && fail;
        out->inconclusive += !planted && strcmp(verdict, "inconclusive") == 0;
    }
    out->verdict = out->missed ? "refused" : out->refuted ? "refuted" : "holds";
}

/* ---- the certificate ---- */

static enum sb_status store_setup(struct run *r, struct sb_error *err)
{
    const struct sb_certify_options *o = r->options;
    struct sb_certificate_row row = { .size = o->all ? "all" : "quick",
                                      .seed = (int64_t)o->seed,
                                      .level = SB_CERTIFY_LEVEL };
    struct sb_host host;
    if (!o->store)
        return SB_OK;
    sb_host_describe(&host);
    enum sb_status rc = sb_store_host(o->store, &host.row, &row.host_id, err);
    if (rc == SB_OK)
        rc = sb_models_store(o->store, r->plan.real.name, r->plan.real.target,
                             r->plan.real.tokenizer, &row.model_id, err);
    return rc == SB_OK ? sb_store_certificate(o->store, &row, &r->certificate_id, err) : rc;
}

static enum sb_status store_end(struct run *r, struct sb_error *err)
{
    return r->options->store
               ? sb_store_certificate_end(r->options->store, r->certificate_id, r->out->verdict,
                                          (int64_t)(sb_now_ns() - r->started_ns), err)
               : SB_OK;
}

enum sb_status sb_certify_run(struct sb_certificate *out, const struct sb_certify_options *options,
                              struct sb_models *models, struct sb_error *err)
{
    struct run r = { .options = options, .out = out, .started_ns = sb_now_ns() };
    *out = (struct sb_certificate){ 0 };
    enum sb_status rc = sb_certify_plan_make(&r.plan, options, models, err);
    if (rc != SB_OK)
        return rc;
    memcpy(out->skipped, r.plan.skipped, sizeof out->skipped);
    rc = store_setup(&r, err);
    if (rc == SB_OK)
        rc = run_jobs(&r, err);
    if (rc == SB_OK)
        rc = judge(&r, err);
    sb_progress_end(&r.progress);
    if (rc == SB_OK) {
        count_verdicts(&r);
        rc = store_end(&r, err);
    }
    for (size_t i = 0; i < out->n; i++)
        point_texts(&out->check[i]);
    sb_certify_plan_finish(&r.plan);
    return rc;
}

void sb_certificate_finish(struct sb_certificate *certificate)
{
    if (!certificate)
        return;
    sb_free(certificate->check);
    *certificate = (struct sb_certificate){ 0 };
}
