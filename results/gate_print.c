/* What a gate found, for people and for programs: one list of columns, four formats. */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "results/gate.h"

static const char *const mode_names[] = { "auto", "deterministic", "statistical" };
static const char *const outcome_names[] = { "holds", "fails", "cannot-tell" };

static const struct {
    const char *name;
    int decimals;
    bool optional;
} arm_columns[] = {
    { "arm", 0, false },
    { "verdict", 0, false },
    { "outcome", 0, false },
    { "prompts", 0, false },
    { "mat_base", 4, false },
    { "mat", 4, false },
    { "change", 4, false },
    { "worst_task", 0, false },
    { "worst_task_change", 4, false },
    { "mean_change", 4, true },
    { "low", 4, true },
    { "high", 4, true },
    { "detectable", 4, true },
    { "p_holm", 4, true },
    { "rows_per_token_base", 3, false },
    { "rows_per_token", 3, false },
    { "speedup", 2, true },
    { "speedup_lo", 2, true },
    { "speedup_hi", 2, true },
    { "why", 0, true },
};

static double ratio(int64_t a, int64_t b)
{
    return b ? (double)a / (double)b : NAN;
}

static void add_arm(struct sb_table *t, const struct sb_gate *g, const struct sb_gate_arm *a)
{
    bool chance = g->mode == SB_GATE_STATISTICAL, speed = a->speedup.estimate > 0;
    sb_table_text(t, a->label);
    sb_table_text(t, sb_verdict_name(a->verdict));
    sb_table_text(t, outcome_names[a->outcome]);
    sb_table_int(t, (int64_t)a->prompts);
    sb_table_real(t, ratio(a->tokens[0], a->steps[0]));
    sb_table_real(t, ratio(a->tokens[1], a->steps[1]));
    sb_table_real(t, a->change);
    sb_table_text(t, a->worst_task);
    sb_table_real(t, a->worst_task_change);
    sb_table_real(t, chance ? a->mean_change : NAN);
    sb_table_real(t, chance ? a->low : NAN);
    sb_table_real(t, chance ? a->high : NAN);
    sb_table_real(t, chance ? a->detectable : NAN);
    sb_table_real(t, chance ? a->p : NAN);
    sb_table_real(t, ratio(a->rows[0], a->tokens[0]));
    sb_table_real(t, ratio(a->rows[1], a->tokens[1]));
    sb_table_real(t, speed ? a->speedup.estimate : NAN);
    sb_table_real(t, speed ? a->speedup.low : NAN);
    sb_table_real(t, speed ? a->speedup.high : NAN);
    sb_table_text(t, a->why[0] ? a->why : NULL);
}

static enum sb_status print_arms(const struct sb_gate *g, FILE *out, enum sb_format format,
                                 struct sb_error *err)
{
    struct sb_table *t = sb_table_create();
    if (!t)
        return sb_fail(err, SB_ENOMEM, "out of memory for a table");
    for (size_t c = 0; c < sizeof arm_columns / sizeof *arm_columns; c++) {
        sb_table_column(t, arm_columns[c].name, arm_columns[c].decimals);
        if (arm_columns[c].optional)
            sb_table_optional(t);
    }
    for (size_t i = 0; i < g->n_arms; i++)
        add_arm(t, g, &g->arm[i]);
    enum sb_status rc = sb_table_print(t, out, format, err);
    sb_table_destroy(t);
    return rc;
}

static enum sb_status print_moves(const struct sb_gate *g, FILE *out, enum sb_format format,
                                  struct sb_error *err)
{
    static const char *const names[] = { "arm",         "task",   "question_id", "mat_base", "mat",
                                         "tokens_base", "tokens", "steps_base",  "steps" };
    struct sb_table *t = sb_table_create();
    if (!t)
        return sb_fail(err, SB_ENOMEM, "out of memory for a table");
    for (size_t c = 0; c < sizeof names / sizeof *names; c++)
        sb_table_column(t, names[c], 4);
    for (size_t i = 0; i < g->n_moves; i++) {
        const struct sb_gate_move *m = &g->move[i];
        sb_table_text(t, m->arm);
        sb_table_text(t, m->task);
        sb_table_int(t, m->question_id);
        sb_table_real(t, ratio(m->tokens[0], m->steps[0]));
        sb_table_real(t, ratio(m->tokens[1], m->steps[1]));
        for (int side = 0; side < 2; side++)
            sb_table_int(t, m->tokens[side]);
        for (int side = 0; side < 2; side++)
            sb_table_int(t, m->steps[side]);
    }
    enum sb_status rc = sb_table_print(t, out, format, err);
    sb_table_destroy(t);
    return rc;
}

static size_t count_outcome(const struct sb_gate *g, enum sb_gate_outcome outcome)
{
    size_t n = 0;
    for (size_t i = 0; i < g->n_arms; i++)
        n += g->arm[i].outcome == outcome;
    return n;
}

/* The first arm with the gate's outcome. */
static const struct sb_gate_arm *culprit(const struct sb_gate *g)
{
    size_t i = 0;
    while (i + 1 < g->n_arms && g->arm[i].outcome != g->outcome)
        i++;
    return &g->arm[i];
}

void sb_gate_headline(const struct sb_gate *g, char *text, size_t size)
{
    const struct sb_gate_arm *a = culprit(g);
    size_t n = count_outcome(g, g->outcome), same = 0;
    for (size_t i = 0; i < g->n_arms; i++)
        same += g->arm[i].verdict == SB_SAME;
    if (g->outcome == SB_GATE_HOLDS)
        snprintf(text, size, "the gate holds (%s): %zu arms%s; %zu prompts moved",
                 mode_names[g->mode], g->n_arms, same == g->n_arms ? ", all the same" : "",
                 g->n_moved);
    else
        snprintf(text, size, "the gate %s (%s): arm '%.80s': %s%s",
                 g->outcome == SB_GATE_FAILS ? "does not hold" : "cannot tell", mode_names[g->mode],
                 a->label, a->why, n > 1 ? "; and other arms" : "");
}

static enum sb_status print_object(const struct sb_gate *g, FILE *out, struct sb_error *err)
{
    fprintf(
        out,
        "{\"mode\": \"%s\", \"outcome\": \"%s\", \"max_drop\": %.17g, \"max_task_drop\": %.17g,\n"
        "\"moved\": %zu, \"arms\": ",
        mode_names[g->mode], outcome_names[g->outcome], g->max_drop, g->max_task_drop, g->n_moved);
    enum sb_status rc = print_arms(g, out, SB_FORMAT_JSON, err);
    fputs(", \"moved_most\": ", out);
    if (rc == SB_OK)
        rc = print_moves(g, out, SB_FORMAT_JSON, err);
    fputs("}\n", out);
    return rc;
}

enum sb_status sb_gate_print(const struct sb_gate *g, FILE *out, enum sb_format format,
                             struct sb_error *err)
{
    if (format == SB_FORMAT_JSON)
        return print_object(g, out, err);
    if (format == SB_FORMAT_CSV)
        return print_arms(g, out, format, err);
    char headline[600];
    bool md = format == SB_FORMAT_MD;
    sb_gate_headline(g, headline, sizeof headline);
    if (md)
        fprintf(out, "### %s Acceptance: %s\n\n", g->outcome == SB_GATE_HOLDS ? "✅" : "❌",
                headline);
    enum sb_status rc = print_arms(g, out, format, err);
    if (rc == SB_OK && g->n_moves > 0) {
        fprintf(out, "\n%sPrompts that moved most (of %zu)%s\n\n", md ? "**" : "", g->n_moved,
                md ? "**" : ":");
        rc = print_moves(g, out, format, err);
    }
    if (rc == SB_OK && md)
        fputs("\n", out);
    return rc;
}
