/* The pass over the raw rows, arm by arm, task by task, question by question: each generation with its steps and
 * their nodes is held against itself, and everything is added up for verify_views.c. The file may be anybody's:
 * counts are bounded before they index anything. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "harness/core/alloc.h"
#include "results/verify_internal.h"

#define LENGTH_MAX  65535            /* of a draft, a rank, a step: more is no measurement */
#define TIME_MAX_NS 1000000000000000 /* eleven days */

struct row { /* a generation */
    int64_t id, arm_id, prompt_id, repeat, n_prompt_tokens, n_tokens, prefill_ns, decode_ns,
        wall_ns;
    int64_t experiment_id, prompt_experiment_id, question_id, turn;
    bool ok;
    bool imported;   /* another tool's: no token ids, no contexts, its own way of counting */
    char where[120]; /* for messages */
};

struct ids {
    int64_t *id;
    size_t n, cap;
};

struct node {
    int64_t parent, depth, rank, token, source, decision;
    bool auxiliary;
    int64_t children[2]; /* that verify, that are auxiliary */
};

struct step {
    int64_t step_no, context, drafted, auxiliary, depth, accepted, decided, tokens, bonus;
    int64_t phase_ns[SB_PHASES];
};

struct pass {
    struct sb_verifier *v;
    sqlite3_stmt *generations, *texts, *steps, *nodes, *sums, *base;
    struct ids prompt, tokens, base_prompt, base_tokens;
    struct node *node; /* of the step at hand; node 0 is the root */
    size_t n_nodes, cap_nodes;
    int64_t tokens_key;
    bool more_nodes; /* the nodes' cursor stands on a row */
    char *task;      /* of the question at hand */
    int64_t question_id;
    struct sb_tally question;
    bool no_memory;
};

#define CHECK(p, id, holds, ...) sb_verify_that((p)->v, SB_VERIFY_##id, (holds), __VA_ARGS__)

/* ---- lists ---- */

static bool count(struct sb_counts *c, int64_t index)
{
    size_t need = (size_t)index + 1, had = c->cap;
    if (sb_grow((void **)&c->n, &c->cap, need, sizeof *c->n) != 0)
        return false;
    if (c->cap > had)
        memset(c->n + had, 0, (c->cap - had) * sizeof *c->n);
    if (c->len < need)
        c->len = need;
    c->n[index]++;
    return true;
}

static bool append(struct sb_counts *c, int64_t value)
{
    if (sb_grow((void **)&c->n, &c->cap, c->len + 1, sizeof *c->n) != 0)
        return false;
    c->n[c->len++] = value;
    return true;
}

static struct sb_ranks *depth_of(struct sb_arm_sums *a, int64_t depth)
{
    size_t need = (size_t)depth, had = a->cap_depths;
    if (sb_grow((void **)&a->depth, &a->cap_depths, need, sizeof *a->depth) != 0)
        return NULL;
    if (a->cap_depths > had)
        memset(a->depth + had, 0, (a->cap_depths - had) * sizeof *a->depth);
    if (a->n_depths < need)
        a->n_depths = need;
    return &a->depth[depth - 1];
}

static struct sb_tried *rank_of(struct sb_ranks *d, int64_t rank)
{
    size_t need = (size_t)rank + 1, had = d->cap;
    if (sb_grow((void **)&d->rank, &d->cap, need, sizeof *d->rank) != 0)
        return NULL;
    if (d->cap > had)
        memset(d->rank + had, 0, (d->cap - had) * sizeof *d->rank);
    if (d->len < need)
        d->len = need;
    return &d->rank[rank];
}

static struct sb_tried *source_of(struct sb_arm_sums *a, int64_t tag)
{
    for (size_t i = 0; i < a->n_sources; i++)
        if (a->source[i].tag == tag)
            return &a->source[i].n;
    if (sb_grow((void **)&a->source, &a->cap_sources, a->n_sources + 1, sizeof *a->source) != 0)
        return NULL;
    a->source[a->n_sources] = (struct sb_source){ .tag = tag };
    return &a->source[a->n_sources++].n;
}

static void tally_add(struct sb_tally *to, const struct sb_tally *t)
{
    int64_t *a = (int64_t *)to;
    const int64_t *b = (const int64_t *)t;
    for (size_t i = 0; i < offsetof(struct sb_tally, path) / sizeof *a; i++)
        a[i] += b[i];
    to->path += t->path;
}

/* ---- arms, tasks, questions ---- */

static void close_question(struct pass *p, struct sb_arm_sums *a)
{
    const struct sb_tally *q = &p->question;
    struct sb_group *task = a && a->n_tasks ? &a->task[a->n_tasks - 1] : NULL;
    if (!task || !p->task)
        return;
    struct sb_group *groups[] = { task, &a->all };
    for (int i = 0; i < 2; i++) {
        tally_add(&groups[i]->t, q);
        groups[i]->prompts += q->generations > 0;
        if (q->steps > 0) {
            groups[i]->mat_sum += (double)q->tokens / (double)q->steps;
            groups[i]->mat_n++;
        }
    }
    p->question = (struct sb_tally){ 0 };
}

static struct sb_arm_sums *last_arm(struct pass *p)
{
    return p->v->n_arms ? &p->v->arm[p->v->n_arms - 1] : NULL;
}

/* Columns of the arm in the generations' query. */
static bool open_arm(struct pass *p, const struct row *g)
{
    sqlite3_stmt *st = p->generations;
    struct sb_verifier *v = p->v;
    if (sb_grow((void **)&v->arm, &v->cap_arms, v->n_arms + 1, sizeof *v->arm) != 0)
        return false;
    struct sb_arm_sums *a = &v->arm[v->n_arms++];
    *a = (struct sb_arm_sums){ .id = g->arm_id,
                               .experiment_id = g->experiment_id,
                               .exact = sqlite3_column_int(st, 16),
                               .own_answers = sqlite3_column_int(st, 17),
                               .imported = sqlite3_column_int(st, 19),
                               .baseline_id = sqlite3_column_int64(st, 18),
                               .mat = NAN };
    const char *label = (const char *)sqlite3_column_text(st, 15);
    snprintf(a->label, sizeof a->label, "%s", label ? label : "");
    sb_free(p->task);
    p->task = NULL;
    return true;
}

static bool open_task(struct pass *p, struct sb_arm_sums *a, const char *task)
{
    sb_free(p->task);
    p->task = sb_strdup(task);
    char *name = sb_strdup(task);
    if (!p->task || !name ||
        sb_grow((void **)&a->task, &a->cap_tasks, a->n_tasks + 1, sizeof *a->task) != 0) {
        sb_free(name);
        return false;
    }
    a->task[a->n_tasks++] = (struct sb_group){ .task = name };
    return true;
}

/* Rows come sorted: a change of arm, task or question closes what was before it. */
static struct sb_arm_sums *enter(struct pass *p, const struct row *g)
{
    struct sb_arm_sums *a = last_arm(p);
    const char *task = (const char *)sqlite3_column_text(p->generations, 14);
    bool same_arm = a && a->id == g->arm_id;
    bool same_task = same_arm && p->task && strcmp(p->task, task ? task : "") == 0;
    if (same_task && p->question_id == g->question_id)
        return a;
    close_question(p, a);
    p->question_id = g->question_id;
    if (!same_arm && !open_arm(p, g))
        return NULL;
    a = last_arm(p);
    return same_task || open_task(p, a, task ? task : "") ? a : NULL;
}

/* ---- token lists ---- */

/* "[1,22,3]" to numbers; false when it is anything else. */
static bool parse_ids(struct pass *p, struct ids *out, const char *text)
{
    out->n = 0;
    if (!text || *text++ != '[')
        return false;
    if (strcmp(text, "]") == 0)
        return true;
    for (;;) {
        int64_t value = 0;
        const char *digits = text;
        for (; *text >= '0' && *text <= '9' && value <= INT32_MAX; text++)
            value = value * 10 + (*text - '0');
        if (text == digits || value > INT32_MAX)
            return false;
        if (sb_grow((void **)&out->id, &out->cap, out->n + 1, sizeof *out->id) != 0) {
            p->no_memory = true;
            return false;
        }
        out->id[out->n++] = value;
        if (*text != ',')
            return strcmp(text, "]") == 0;
        text++;
    }
}

static bool same_ids(const struct ids *a, const struct ids *b)
{
    return a->n == b->n && (a->n == 0 || memcmp(a->id, b->id, a->n * sizeof *a->id) == 0);
}

static void read_texts(struct pass *p, const struct row *g)
{
    sqlite3_reset(p->texts);
    sqlite3_bind_int64(p->texts, 1, g->id);
    bool row = sqlite3_step(p->texts) == SQLITE_ROW;
    bool good = row && parse_ids(p, &p->prompt, (const char *)sqlite3_column_text(p->texts, 0));
    CHECK(p, token_ids, good && (int64_t)p->prompt.n == (g->imported ? 0 : g->n_prompt_tokens),
          "%s: prompt_tokens is no list of %" PRId64 " ids", g->where, g->n_prompt_tokens);
    const char *text = row ? (const char *)sqlite3_column_text(p->texts, 1) : NULL;
    good = parse_ids(p, &p->tokens, text);
    p->tokens_key = sb_tokens_key(text ? text : "");
    CHECK(p, token_ids, good && (int64_t)p->tokens.n == (g->imported ? 0 : g->n_tokens),
          "%s: tokens is no list of %" PRId64 " ids", g->where, g->n_tokens);
}

/* Against the baseline's answer to the same prompt in the same repeat. */
static void compare_with_baseline(struct pass *p, struct sb_arm_sums *a, const struct row *g)
{
    if (a->baseline_id == 0 || a->baseline_id == a->id || a->imported)
        return;
    sqlite3_reset(p->base);
    sb_sqlite_bind(p->base, "iii", a->baseline_id, g->prompt_id, g->repeat);
    if (sqlite3_step(p->base) != SQLITE_ROW)
        return;
    parse_ids(p, &p->base_prompt, (const char *)sqlite3_column_text(p->base, 0));
    parse_ids(p, &p->base_tokens, (const char *)sqlite3_column_text(p->base, 1));
    bool same_prompt = same_ids(&p->prompt, &p->base_prompt);
    bool equal = same_ids(&p->tokens, &p->base_tokens);
    a->compared++;
    a->equal += equal;
    if (g->turn == 1 || !a->own_answers)
        CHECK(p, same_prompts, same_prompt, "%s: its prompt_tokens differ from the baseline's",
              g->where);
    if (a->exact && same_prompt)
        CHECK(p, greedy_exact, equal, "%s: its tokens differ from the baseline's", g->where);
}

/* ---- steps and their trees ---- */

static void read_step(sqlite3_stmt *st, struct step *s)
{
    int64_t *field[] = { &s->step_no,  &s->context, &s->drafted, &s->auxiliary, &s->depth,
                         &s->accepted, &s->decided, &s->tokens,  &s->bonus };
    for (int i = 0; i < 9; i++)
        *field[i] = sqlite3_column_int64(st, i);
    for (int i = 0; i < SB_PHASES; i++)
        s->phase_ns[i] = sqlite3_column_int64(st, 9 + i);
}

/* Figures that can be added and counted; what is not is a failure of its own. */
static bool plausible(const struct step *s)
{
    const int64_t length[] = { s->drafted,  s->auxiliary, s->depth,
                               s->accepted, s->decided,   s->tokens };
    bool good = true;
    for (size_t i = 0; i < sizeof length / sizeof *length; i++)
        good = good && length[i] >= 0 && length[i] <= LENGTH_MAX;
    for (int i = 0; i < SB_PHASES; i++)
        good = good && s->phase_ns[i] >= 0 && s->phase_ns[i] <= TIME_MAX_NS;
    return good;
}

static int64_t step_ns(const struct step *s)
{
    int64_t sum = 0;
    for (int i = 0; i < SB_PHASES; i++)
        sum += s->phase_ns[i];
    return sum;
}

/* The nodes of one step off the cursor, which stands on the first not yet read. */
static bool read_nodes(struct pass *p, int64_t step_no)
{
    sqlite3_stmt *st = p->nodes;
    p->n_nodes = 1;
    for (; p->more_nodes && sqlite3_column_int64(st, 0) <= step_no;
         p->more_nodes = sqlite3_step(st) == SQLITE_ROW) {
        if (sqlite3_column_int64(st, 0) < step_no)
            continue; /* of a step that is not there: foreign_keys says so */
        if (sb_grow((void **)&p->node, &p->cap_nodes, p->n_nodes + 1, sizeof *p->node) != 0)
            return false;
        struct node *n = &p->node[p->n_nodes];
        *n = (struct node){ .parent = sqlite3_column_int64(st, 2),
                            .depth = sqlite3_column_int64(st, 3),
                            .rank = sqlite3_column_int64(st, 4),
                            .token = sqlite3_column_int64(st, 5),
                            .source = sqlite3_column_int64(st, 6),
                            .decision = sqlite3_column_int64(st, 7),
                            .auxiliary = sqlite3_column_int(st, 8) };
        if (sqlite3_column_int64(st, 1) != (int64_t)p->n_nodes)
            n->parent = -1; /* a gap in the numbers: no parent can be told */
        p->n_nodes++;
    }
    p->node[0] = (struct node){ .decision = 2 };
    return true;
}

/* Links, depths, ranks; then the step's counts. False: nothing can be said of the decisions. */
static bool check_tree(struct pass *p, const struct row *g, const struct step *s)
{
    int64_t n[2] = { 0 }, depth = 0;
    bool linked = true;
    for (size_t i = 1; i < p->n_nodes && linked; i++) {
        struct node *node = &p->node[i];
        linked = node->parent >= 0 && node->parent < (int64_t)i;
        struct node *parent = linked ? &p->node[node->parent] : node;
        linked = linked && node->depth == parent->depth + 1 &&
                 node->rank == parent->children[node->auxiliary]++ && node->rank <= LENGTH_MAX &&
                 node->depth <= LENGTH_MAX;
        n[node->auxiliary]++;
        if (!node->auxiliary && node->depth > depth)
            depth = node->depth;
        if (!linked)
            CHECK(p, trees, false,
                  "%s, step %" PRId64 ", node %zu: parent, depth or rank do not fit", g->where,
                  s->step_no, i);
    }
    if (linked)
        CHECK(p, trees, n[0] == s->drafted && n[1] == s->auxiliary && depth == s->depth,
              "%s, step %" PRId64 ": %" PRId64 " drafted, %" PRId64 " auxiliary, depth %" PRId64
              "; its nodes: %" PRId64 ", %" PRId64 ", %" PRId64,
              g->where, s->step_no, s->drafted, s->auxiliary, s->depth, n[0], n[1], depth);
    return linked;
}

/* `first`: place in the answer of the step's first token. */
static void check_path(struct pass *p, const struct row *g, const struct step *s, size_t first)
{
    int64_t end = 0, accepted = 0;
    bool good = true;
    for (size_t i = 1; i < p->n_nodes; i++) {
        const struct node *n = &p->node[i];
        bool from_path = p->node[n->parent].decision == 2;
        good = good && (n->decision == 0 || (from_path && !n->auxiliary));
        if (n->decision != 2)
            continue;
        good = good && n->parent == end;
        end = (int64_t)i;
        size_t place = first + (size_t)accepted++;
        if (accepted <= s->tokens && place < p->tokens.n)
            CHECK(p, accepted_tokens, p->tokens.id[place] == n->token,
                  "%s, step %" PRId64 ", node %zu: token %" PRId64
                  " was accepted, the answer has %" PRId64,
                  g->where, s->step_no, i, n->token, p->tokens.id[place]);
    }
    int64_t decided = accepted + (p->node[end].children[0] > 0);
    CHECK(p, decisions, good && accepted == s->accepted && decided == s->decided,
          "%s, step %" PRId64 ": accepted %" PRId64 ", decided %" PRId64 "; its nodes say %" PRId64
          ", %" PRId64 "%s",
          g->where, s->step_no, s->accepted, s->decided, accepted, decided,
          good ? "" : ", and not along one path");
}

static bool add_nodes(struct pass *p, struct sb_arm_sums *a)
{
    int64_t last = 0;
    for (size_t i = 1; i < p->n_nodes; i++) {
        const struct node *n = &p->node[i];
        if (n->auxiliary)
            continue;
        struct sb_tried *source = source_of(a, n->source);
        if (!source)
            return false;
        bool tried = p->node[n->parent].decision == 2, accepted = tried && n->decision == 2;
        source->drafted++;
        source->tried += tried;
        source->accepted += accepted;
        if (!tried)
            continue;
        struct sb_ranks *d = depth_of(a, n->depth);
        struct sb_tried *rank = d ? rank_of(d, n->rank) : NULL;
        if (!rank)
            return false;
        rank->tried++;
        rank->accepted += accepted;
        d->steps += n->depth > last; /* the path has one parent per depth, nodes come in order */
        d->accepted += accepted;
        if (n->depth > last)
            last = n->depth;
    }
    return true;
}

static bool add_step(struct pass *p, struct sb_arm_sums *a, const struct step *s)
{
    struct sb_tally *t = &p->question;
    t->steps++;
    t->drafted_steps += s->drafted > 0;
    t->tokens += s->tokens;
    t->drafted_steps_tokens += s->drafted > 0 ? s->tokens : 0;
    t->drafted += s->drafted;
    t->auxiliary += s->auxiliary;
    t->depth += s->depth;
    t->accepted += s->accepted;
    t->decided += s->decided;
    t->path += (double)(s->accepted + 1) / (double)(s->depth + 1);
    for (int i = 0; i < SB_PHASES; i++)
        t->phase_ns[i] += s->phase_ns[i];
    bool room = count(&a->accepted, s->accepted) && count(&a->tokens, s->tokens);
    if (s->drafted > 0)
        room = room && count(&a->drafted, s->accepted);
    if (s->tokens > 0)
        room = room && append(&a->chunk_ns, step_ns(s));
    for (int64_t k = 0; k < s->decided && room; k++)
        room = count(&a->exposure, k) && (k >= s->accepted || count(&a->hits, k));
    return room;
}

/* `ended`: an earlier step was already cut. */
static void check_step(struct pass *p, const struct row *g, const struct step *s, int64_t step_no,
                       int64_t context, bool ended)
{
    CHECK(p, step_order, s->step_no == step_no && (s->context == context || g->imported),
          "%s: step %" PRId64 " at context %" PRId64 ", expected step %" PRId64 " at %" PRId64,
          g->where, s->step_no, s->context, step_no, context);
    bool whole = s->tokens == s->accepted + 1;
    CHECK(p, step_tokens,
          plausible(s) && (!ended || g->imported) && s->tokens <= s->accepted + 1 &&
              s->accepted <= s->decided && s->decided <= s->accepted + 1 &&
              s->decided <= s->depth && s->depth <= s->drafted &&
              (!whole || g->imported || s->bonus == (s->decided == s->accepted)),
          "%s, step %" PRId64 ": accepted %" PRId64 ", tokens %" PRId64 ", decided %" PRId64
          ", bonus %" PRId64 "%s",
          g->where, s->step_no, s->accepted, s->tokens, s->decided, s->bonus,
          ended ? "; the step before was the last" : "");
}

static void check_sums(struct pass *p, const struct row *g, const struct sb_tally *t)
{
    const int64_t want[] = { t->steps,       t->drafted_steps,
                             t->tokens,      t->drafted_steps_tokens,
                             t->drafted,     t->auxiliary,
                             t->depth,       t->accepted,
                             t->decided,     0,
                             t->phase_ns[0], t->phase_ns[1],
                             t->phase_ns[2], t->phase_ns[3],
                             t->phase_ns[4] };
    sqlite3_reset(p->sums);
    sqlite3_bind_int64(p->sums, 1, g->id);
    if (sqlite3_step(p->sums) != SQLITE_ROW)
        return; /* the views add its steps up themselves */
    for (int i = 0; i < 15; i++) {
        double have = sqlite3_column_double(p->sums, i + 1);
        bool path = i == 9;
        bool same = path ? fabs(have - t->path) <= 1e-9 * (1 + t->path)
                         : sqlite3_column_int64(p->sums, i + 1) == want[i];
        CHECK(p, sums, same, "%s: generation_sums.%s is %.10g, its steps give %.10g", g->where,
              sqlite3_column_name(p->sums, i + 1), have, path ? t->path : (double)want[i]);
    }
    if (sqlite3_column_type(p->sums, 16) != SQLITE_NULL)
        CHECK(p, sums, sqlite3_column_int64(p->sums, 16) == p->tokens_key,
              "%s: generation_sums.tokens_key is not that of its tokens", g->where);
}

/* Steps of one generation; what they add up to lands in the question's tally, behind `before`. */
static bool read_steps(struct pass *p, struct sb_arm_sums *a, const struct row *g)
{
    struct sb_tally before = p->question;
    p->question = (struct sb_tally){ 0 };
    sqlite3_reset(p->steps);
    sqlite3_reset(p->nodes);
    sqlite3_bind_int64(p->steps, 1, g->id);
    sqlite3_bind_int64(p->nodes, 1, g->id);
    p->more_nodes = sqlite3_step(p->nodes) == SQLITE_ROW;
    bool room = true, ended = false, readable = true;
    for (int64_t n = 0; room && sqlite3_step(p->steps) == SQLITE_ROW; n++) {
        struct step s;
        read_step(p->steps, &s);
        int64_t so_far = p->question.tokens;
        check_step(p, g, &s, n, g->n_prompt_tokens + 1 + so_far, ended);
        ended = ended || s.tokens <= s.accepted;
        readable = readable && plausible(&s);
        room = read_nodes(p, s.step_no);
        if (!room || !plausible(&s))
            continue;
        if (p->n_nodes > 1 && check_tree(p, g, &s)) {
            check_path(p, g, &s, (size_t)so_far + 1);
            room = add_nodes(p, a);
        }
        a->with_trees += s.drafted > 0 && p->n_nodes > 1;
        a->without_trees += s.drafted > 0 && p->n_nodes == 1;
        room = room && add_step(p, a, &s);
    }
    if (readable)
        check_sums(p, g, &p->question);
    CHECK(p, token_counts, g->imported || g->n_tokens == p->question.tokens + 1,
          "%s: n_tokens is %" PRId64 ", its steps and the prefill give %" PRId64, g->where,
          g->n_tokens, p->question.tokens + 1);
    int64_t parts_ns = 0;
    for (int i = 0; i < SB_PHASES; i++)
        parts_ns += p->question.phase_ns[i];
    CHECK(p, times, parts_ns <= g->decode_ns && g->prefill_ns <= g->wall_ns - g->decode_ns,
          "%s: steps %" PRId64 " ns, decode %" PRId64 ", prefill %" PRId64 ", wall %" PRId64,
          g->where, parts_ns, g->decode_ns, g->prefill_ns, g->wall_ns);
    tally_add(&p->question, &before);
    return room;
}

/* ---- generations ---- */

static void read_row(sqlite3_stmt *st, struct row *g)
{
    int64_t *field[] = { &g->id,
                         &g->arm_id,
                         &g->prompt_id,
                         &g->repeat,
                         &g->n_prompt_tokens,
                         &g->n_tokens,
                         &g->prefill_ns,
                         &g->decode_ns,
                         &g->wall_ns,
                         &g->experiment_id,
                         &g->prompt_experiment_id,
                         &g->question_id,
                         &g->turn };
    for (int i = 0; i < 13; i++)
        *field[i] = sqlite3_column_int64(st, i);
    g->ok = sqlite3_column_int(st, 13);
    g->imported = sqlite3_column_int(st, 19);
    const char *label = (const char *)sqlite3_column_text(st, 15);
    snprintf(g->where, sizeof g->where,
             "generation %" PRId64 " (%.40s, question %" PRId64 ", turn %" PRId64
             ", repeat %" PRId64 ")",
             g->id, label ? label : "?", g->question_id, g->turn, g->repeat);
}

static bool take(struct pass *p)
{
    struct row g;
    read_row(p->generations, &g);
    CHECK(p, experiments, g.experiment_id == g.prompt_experiment_id,
          "%s: arm of experiment %" PRId64 ", prompt of %" PRId64, g.where, g.experiment_id,
          g.prompt_experiment_id);
    struct sb_arm_sums *a = enter(p, &g);
    if (!a)
        return false;
    if (!g.ok) {
        p->question.errors++;
        sqlite3_reset(p->steps);
        sqlite3_bind_int64(p->steps, 1, g.id);
        CHECK(p, token_counts, g.n_tokens == 0 && sqlite3_step(p->steps) == SQLITE_DONE,
              "%s: failed, and has tokens or steps", g.where);
        return true;
    }
    read_texts(p, &g);
    compare_with_baseline(p, a, &g);
    bool sane = g.decode_ns <= TIME_MAX_NS && g.prefill_ns <= TIME_MAX_NS;
    p->question.generations++;
    p->question.n_tokens += g.n_tokens;
    p->question.prefill_ns += sane ? g.prefill_ns : 0;
    p->question.decode_ns += sane ? g.decode_ns : 0;
    return read_steps(p, a, &g) && append(&a->prefill_ns, g.prefill_ns) && !p->no_memory;
}

static enum sb_status prepare(struct pass *p, struct sb_error *err)
{
    const struct {
        sqlite3_stmt **st;
        const char *sql;
    } all[] = {
        { &p->generations,
          "SELECT g.id, g.arm_id, g.prompt_id, g.repeat, g.n_prompt_tokens, g.n_tokens, g.prefill_ns,"
          " g.decode_ns, g.wall_ns, a.experiment_id, p.experiment_id, p.question_id, p.turn,"
          " g.status = 'ok', p.task, a.label,"
          " e.temperature = 0 AND e.arithmetic IN ('exact', 'exact weights=f32') AND a.guarantee = 'greedy-exact',"
          " e.conversation IS 'own',"
          " (SELECT b.id FROM arm b WHERE b.experiment_id = a.experiment_id AND b.is_baseline = 1"
          "  ORDER BY b.arm_no LIMIT 1), e.origin = 'import'"
          " FROM generation g JOIN arm a ON a.id = g.arm_id JOIN experiment e ON e.id = a.experiment_id"
          " JOIN prompt p ON p.id = g.prompt_id"
          " ORDER BY g.arm_id, p.task, p.question_id, g.prompt_id, g.repeat" },
        { &p->texts, "SELECT prompt_tokens, tokens FROM generation WHERE id = ?1" },
        { &p->steps,
          "SELECT step_no, context, drafted, auxiliary, depth, accepted, decided, tokens, bonus,"
          " draft_ns, verify_ns, accept_ns, commit_ns, observe_ns"
          " FROM step WHERE generation_id = ?1 ORDER BY step_no" },
        { &p->nodes,
          "SELECT step_no, node_no, parent, depth, rank, token, source, decision, auxiliary"
          " FROM draft_node WHERE generation_id = ?1 ORDER BY step_no, node_no" },
        { &p->sums, "SELECT * FROM generation_sums WHERE generation_id = ?1" },
        { &p->base, "SELECT prompt_tokens, tokens FROM generation"
                    " WHERE arm_id = ?1 AND prompt_id = ?2 AND repeat = ?3 AND status = 'ok'" },
    };
    enum sb_status rc = SB_OK;
    for (size_t i = 0; i < sizeof all / sizeof *all && rc == SB_OK; i++)
        rc = sb_sqlite_prepare(all[i].st, p->v->store, all[i].sql, err);
    return rc;
}

static void finish(struct pass *p)
{
    sqlite3_stmt *all[] = { p->generations, p->texts, p->steps, p->nodes, p->sums, p->base };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        sqlite3_finalize(all[i]);
    sb_free(p->prompt.id);
    sb_free(p->tokens.id);
    sb_free(p->base_prompt.id);
    sb_free(p->base_tokens.id);
    sb_free(p->node);
    sb_free(p->task);
}

enum sb_status sb_verify_rows(struct sb_verifier *v, struct sb_error *err)
{
    struct pass p = { .v = v };
    enum sb_status rc = prepare(&p, err);
    if (rc == SB_OK && sb_grow((void **)&p.node, &p.cap_nodes, 1, sizeof *p.node) != 0)
        rc = sb_fail(err, SB_ENOMEM, "%s: out of memory", v->store->path);
    int step = SQLITE_DONE;
    while (rc == SB_OK && (step = sqlite3_step(p.generations)) == SQLITE_ROW)
        if (!take(&p))
            rc = sb_fail(err, SB_ENOMEM, "%s: out of memory for its steps", v->store->path);
    close_question(&p, last_arm(&p));
    if (rc == SB_OK && step != SQLITE_DONE)
        rc = sb_sqlite_fail(err, v->store, step, "read");
    for (size_t i = 0; i < v->n_arms; i++) /* some imported arms have none at all */
        CHECK(&p, trees, v->arm[i].with_trees == 0 || v->arm[i].without_trees == 0,
              "arm %s: %" PRId64 " of %" PRId64 " steps with a draft have no nodes",
              v->arm[i].label, v->arm[i].without_trees,
              v->arm[i].with_trees + v->arm[i].without_trees);
    finish(&p);
    return rc;
}
