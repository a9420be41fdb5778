/* Which drafter may meet which verifier: the tables of both registries against the matrix of methods
 * A 8, typed in from the card. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "harness/core/alloc.h"
#include "harness/decode/verifier.h"

/* Kinds as letters: o one-hot, i iid, w without replacement, p paths (each node iid), h hub, k topk+1,
 * m mixture. */
static const char letters[SB_DRAW_KINDS] = {
    [SB_DRAW_ONEHOT] = 'o', [SB_DRAW_IID] = 'i',   [SB_DRAW_WOR] = 'w', [SB_DRAW_PATHS] = 'p',
    [SB_DRAW_HUB] = 'h',    [SB_DRAW_TOPK1] = 'k', [SB_DRAW_MIX] = 'm'
};
static const char any[] = "oiwphkm";

struct verifier_row {
    const char *name;
    const char *takes; /* the card's */
    const char *may;   /* kinds it may take too, since the law of what it sees is the same */
    bool chain;        /* chains only */
    bool greedy;       /* at temperature 0 only */
    bool lossy;        /* in the target's law */
    bool rows;         /* reads rows of the drafter's beyond those drawn from */
};

/* One draw of a chain has the law q whatever its kind. */
static const struct verifier_row verifiers[] = {
    { "bild", "o", "", .chain = true, .greedy = true, .lossy = true },
    { "block", "ip", "ow", .chain = true },
    { "gbv", "p", "" },
    { "greedy", any, "", .greedy = true },
    { "gumbel-coupled", any, "" },
    { "hsd-experimental", "ip", "ow", .chain = true, .lossy = true },
    { "k-seq", "ip", "" },
    { "mss", "ipm", "" },
    { "naive-sample", any, "" },
    { "nest-relaxed", any, "", .lossy = true },
    { "ot-flow", "iwp", "" },
    { "rejection", "oiwp", "", .chain = true },
    { "rrs", "oiwp", "" },
    { "scd", "oiwp", "", .lossy = true, .rows = true },
    { "speccascade-chow", "oiwp", "", .lossy = true, .rows = true },
    { "speccascade-diff", "oiwp", "", .lossy = true, .rows = true },
    { "speccascade-opt", "oiwp", "", .lossy = true, .rows = true },
    { "speccascade-token1", "oiwp", "", .lossy = true, .rows = true },
    { "speccascade-token2", "oiwp", "", .lossy = true, .rows = true },
    { "speccascade-token3", "oiwp", "", .lossy = true, .rows = true },
    { "spechub", "h", "" },
    { "top-beta", any, "", .greedy = true, .lossy = true },
    { "topk-plus-one", "k", "" },
    { "traversal", "iwp", "o" },
    { "typical", any, "", .lossy = true },
};

/* A drafter with parameters: its kinds above temperature 0 (at 0 all choose), whether it branches, and
 * the exact verifiers that its trees allow, strongest first; the default is the first there is. */
struct drafter_row {
    const char *text, *kind;
    bool branches, rows;
    const char *strongest;
};

static const struct drafter_row drafters[] = {
    { "jacobi", "o", false, false, "naive-sample" },
    { "jacobi:guess=coupled", "o", false, false, "naive-sample" },
    { "lookahead", "o", true, false, "naive-sample" },
    { "anpd", "o", false, false, "naive-sample" },
    { "anpd:q=true", "i", false, false, "traversal block rejection" },
    { "llma", "o", false, false, "naive-sample" },
    { "hydra", "o", true, false, "naive-sample" },
    { "hydra:tree=1x1", "o", false, false, "naive-sample" },
    { "hydra-pp", "o", true, false, "naive-sample" },
    { "hydra-pp:tree=1x1x1", "o", false, false, "naive-sample" },
    { "mag", "o", false, false, "naive-sample" },
    { "eagle", "w", true, false, "traversal rrs naive-sample" },
    { "eagle:draw=top", "o", true, false, "naive-sample" },
    { "eagle:tree=1x1", "w", false, false, "traversal block rejection" },
    { "eagle2", "o", true, false, "naive-sample" },
    { "eagle2:topk=1", "o", false, false, "naive-sample" },
    { "eagle3", "o", true, false, "naive-sample" },
    { "medusa", "o", true, false, "naive-sample" },
    { "medusa:tree=1x1x1", "o", false, false, "naive-sample" },
    { "mlp-speculator", "o", true, false, "naive-sample" },
    { "mlp-speculator:candidates=1", "o", false, false, "naive-sample" },
    { "redrafter", "o", true, false, "naive-sample" },
    { "redrafter:beams=1", "o", false, false, "naive-sample" },
    { "nest", "o", false, false, "naive-sample" },
    { "ngram-cache", "o", false, false, "naive-sample" },
    { "pld", "o", false, false, "naive-sample" },
    { "pld-plus", "o", false, false, "naive-sample" },
    { "sad", "o", false, false, "naive-sample" },
    { "sam", "o", false, false, "naive-sample" },
    { "small-lm:model=x", "i", false, true, "traversal block rejection" },
    { "small-lm:model=x,draw=wor", "w", false, true, "traversal block rejection" },
    { "small-lm:model=x,draw=coupled", "w", false, true, "traversal block rejection" },
    { "small-lm:model=x,draw=topk1", "k", false, true, "topk-plus-one naive-sample" },
    { "small-lm:model=x,draw=paths,paths=1", "p", false, true, "traversal block rejection" },
    { "small-lm:model=x,draw=paths,paths=3", "p", true, true, "traversal rrs k-seq naive-sample" },
    { "small-lm:model=x,tree=1x1", "i", false, true, "traversal block rejection" },
    { "small-lm:model=x,tree=3x2x1", "i", true, true, "traversal rrs k-seq naive-sample" },
    { "small-lm:model=x,tree=1x2,draw=wor", "w", true, true, "traversal rrs naive-sample" },
    { "small-lm:model=x,tree=2x2,draw=coupled", "w", true, true, "traversal rrs naive-sample" },
    { "small-lm:model=x,tree=2x2,draw=hub", "h", true, true, "spechub naive-sample" },
    { "small-lm:model=x,tree=4x2,draw=topk1", "k", true, true, "topk-plus-one naive-sample" },
    { "rest:store=x", "o", true, false, "naive-sample" },
    { "delegate", "o", true, false, "naive-sample" },
    { "delegate:a=pld,b='small-lm:model=x,tree=3x2'", "oi", true, false,
      "traversal rrs naive-sample" },
    { "delegate:a=pld,b='small-lm:model=x'", "oi", false, false, "traversal block rejection" },
    { "delegate:a=pld,b=sam", "o", false, false, "naive-sample" },
    { "merge", "o", true, false, "naive-sample" },
    { "merge:a=pld,b='small-lm:model=x,tree=3x2'", "o", true, false, "naive-sample" },
    { "rsd-c:model=x", "w", true, true, "traversal rrs naive-sample" },
    { "rsd-c:model=x,tree=1x1x1", "w", false, true, "traversal block rejection" },
    { "rsd-s:model=x", "w", true, true, "traversal rrs naive-sample" },
    { "rsd-s:model=x,width=1", "w", false, true, "traversal block rejection" },
    { "sam", "o", false, false, "naive-sample" },
    { "suffix-decoding", "o", false, false, "naive-sample" },
    { "suffix-decoding:tree=1", "o", true, false, "naive-sample" },
    { "token-recycling", "o", true, false, "naive-sample" },
    { "token-recycling:width=1", "o", false, false, "naive-sample" },
    { "trie-lookahead", "o", true, false, "naive-sample" },
};
enum { N_DRAFTERS = sizeof drafters / sizeof *drafters };

static const struct sb_sampling temperatures[] = { { 0 }, { .temperature = .8 } };

static const struct verifier_row *row_of(const char *name)
{
    for (size_t i = 0; i < sizeof verifiers / sizeof *verifiers; i++)
        if (strcmp(verifiers[i].name, name) == 0)
            return &verifiers[i];
    fail_msg("verifier %s is not in the matrix: type in its row from its card", name);
    return NULL;
}

struct drafter {
    const struct sb_drafter_ops *ops;
    struct sb_spec spec;
    void *params;
};

static struct drafter open_drafter(const char *text)
{
    struct drafter d = { 0 };
    struct sb_error err = { .message = "" };
    assert_int_equal(sb_spec_parse(&d.spec, text, NULL), SB_OK);
    d.ops = sb_drafter_find(d.spec.name);
    assert_non_null(d.ops);
    d.params = sb_alloc_zero(1, d.ops->params_size + 1);
    if (sb_params_apply(d.params, d.ops->params, &d.spec, text, &err) != SB_OK)
        fail_msg("%s", err.message);
    return d;
}

static void close_drafter(struct drafter *d)
{
    sb_spec_finish(&d->spec);
    sb_free(d->params);
}

enum answer { REFUSED, LAWFUL, EITHER };

static enum answer expected(const struct drafter_row *d, const struct verifier_row *v,
                            const struct sb_sampling *sampling)
{
    bool cold = sampling->temperature <= 0;
    const char *kind = cold ? "o" : d->kind;
    if ((!cold && v->greedy) || (v->chain && d->branches) || (v->rows && !d->rows))
        return REFUSED;
    enum answer answer = LAWFUL; /* with all of its kinds */
    for (; *kind && answer != REFUSED; kind++)
        if (!strchr(v->takes, *kind))
            answer = strchr(v->may, *kind) ? EITHER : REFUSED;
    return answer;
}

static void pairs_are_lawful_as_the_matrix_says(void **state)
{
    (void)state;
    for (size_t d = 0; d < N_DRAFTERS; d++) {
        struct drafter drafter = open_drafter(drafters[d].text);
        for (size_t i = 0; sb_verifiers[i]; i++) {
            for (size_t t = 0; t < 2; t++) {
                enum answer want =
                    expected(&drafters[d], row_of(sb_verifiers[i]->name), &temperatures[t]);
                struct sb_error err = { .message = "" };
                enum sb_status rc = sb_pair_check_with(drafter.ops, drafter.params, sb_verifiers[i],
                                                       &temperatures[t], &err);
                if (want != EITHER && (rc == SB_OK) != (want == LAWFUL))
                    fail_msg("%s with %s at temperature %g: %s", drafters[d].text,
                             sb_verifiers[i]->name, temperatures[t].temperature,
                             rc == SB_OK ? "let in" : err.message);
                assert_true(rc == SB_OK || rc == SB_EUSAGE);
                assert_true(rc == SB_OK || strstr(err.message, "; lawful here: "));
            }
        }
        close_drafter(&drafter);
    }
}

static void verifiers_say_of_themselves_what_the_matrix_says(void **state)
{
    (void)state;
    for (size_t i = 0; sb_verifiers[i]; i++) {
        const struct sb_verifier_ops *v = sb_verifiers[i];
        const struct verifier_row *row = row_of(v->name);
        assert_int_equal(v->guarantee == SB_LOSSY, row->lossy);
        assert_int_equal(v->chains_only, row->chain);
        for (int kind = SB_DRAW_ONEHOT; kind < SB_DRAW_KINDS; kind++) {
            bool takes = v->kinds & SB_KIND_BIT(kind);
            if (strchr(row->takes, letters[kind]) ? !takes
                                                  : takes && !strchr(row->may, letters[kind]))
                fail_msg("verifier %s %s kind %s", v->name, takes ? "takes" : "does not take",
                         sb_draw_kind_name((enum sb_draw_kind)kind));
        }
    }
}

static void no_lawful_exact_verifier_is_stronger_than_the_default(void **state)
{
    (void)state;
    for (size_t d = 0; d < N_DRAFTERS; d++) {
        struct drafter drafter = open_drafter(drafters[d].text);
        const struct sb_verifier_ops *got;
        got = sb_verifier_default_with(drafter.ops, drafter.params, &temperatures[0]);
        assert_string_equal(got->name, "greedy");
        got = sb_verifier_default_with(drafter.ops, drafter.params, &temperatures[1]);
        assert_non_null(got);
        assert_int_equal(got->guarantee, SB_DISTRIBUTION_EXACT);
        assert_int_not_equal(expected(&drafters[d], row_of(got->name), &temperatures[1]), REFUSED);
        char names[80], *rest = names;
        strcpy(names, drafters[d].strongest);
        const char *want = strtok_r(names, " ", &rest);
        while (want && !sb_verifier_find(want))
            want = strtok_r(NULL, " ", &rest);
        assert_non_null(want);
        if (strcmp(got->name, want) != 0)
            fail_msg("%s: %s, expected %s", drafters[d].text, got->name, want);
        close_drafter(&drafter);
    }
}

static void the_matrix_covers_every_drafter(void **state)
{
    (void)state;
    for (size_t i = 0; sb_drafters[i]; i++) {
        size_t n = strlen(sb_drafters[i]->name);
        bool covered = strcmp(sb_drafters[i]->name, "none") == 0; /* no draft, nothing to judge */
        for (size_t d = 0; d < N_DRAFTERS; d++)
            covered = covered || (strncmp(drafters[d].text, sb_drafters[i]->name, n) == 0 &&
                                  (drafters[d].text[n] == ':' || drafters[d].text[n] == '\0'));
        if (!covered)
            fail_msg("drafter %s is not in the matrix", sb_drafters[i]->name);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pairs_are_lawful_as_the_matrix_says),
        cmocka_unit_test(verifiers_say_of_themselves_what_the_matrix_says),
        cmocka_unit_test(no_lawful_exact_verifier_is_stronger_than_the_default),
        cmocka_unit_test(the_matrix_covers_every_drafter),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
