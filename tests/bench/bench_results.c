/* What storing and questioning millions of steps costs.
 *
 *   bench_results FILE [PROMPTS [ARMS [REPEATS [STEPS [NODES]]]]]
 *
 * Fills FILE through the store with PROMPTS x ARMS x REPEATS generations of about STEPS steps (default 1,000 x 20
 * x 5 x 200: 20 million steps), NODES draft nodes per step (default 0: a chain's tree is 10 more rows per step),
 * then asks every view. The figures are made up; their spread is like that of a real run. An existing FILE that
 * holds an experiment is only questioned. */
#include <inttypes.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "harness/core/clock.h"
#include "harness/core/rng.h"
#include "results/report.h"
#include "results/store.h"

enum { DRAFT = 10, STEPS_MAX = 4096, NODES_MAX = 64 };

struct shape {
    int prompts, arms, repeats, steps, nodes;
};

static struct sb_error err;
static struct sb_step_row step[STEPS_MAX];
static struct sb_node_row node[STEPS_MAX][NODES_MAX];
static int32_t ids[STEPS_MAX * (DRAFT + 1) + 1];

static void check(enum sb_status rc)
{
    if (rc == SB_OK)
        return;
    fprintf(stderr, "bench_results: %s\n", err.message);
    exit(1);
}

static double cpu_s(void)
{
    return (double)clock() / CLOCKS_PER_SEC;
}

static double seconds_since(uint64_t start)
{
    return (double)(sb_now_ns() - start) / 1e9;
}

/* A chain of up to DRAFT tokens whose every token is accepted with the arm's own probability. */
static void make_step(struct sb_step_row *s, struct sb_node_row *nodes, int n_nodes, int step_no,
                      int context, int arm, struct sb_rng *rng)
{
    int drafted = arm == 0 ? 0 : (int)sb_rng_below(rng, DRAFT + 1), accepted = 0;
    while (accepted < drafted && sb_rng_uniform(rng) < 0.3 + 0.03 * arm)
        accepted++;
    *s = (struct sb_step_row){ .step_no = step_no,
                               .context = context,
                               .drafted = drafted,
                               .depth = drafted,
                               .accepted = accepted,
                               .tokens = accepted + 1,
                               .bonus = accepted == drafted,
                               .draft_ns = 1000 + (int64_t)(sb_rng_below(rng, 5000)) * drafted,
                               .verify_ns = 20000000 + (int64_t)(sb_rng_below(rng, 4000000)),
                               .accept_ns = 20000 + (int64_t)(sb_rng_below(rng, 10000)),
                               .commit_ns = 3000 + (int64_t)(sb_rng_below(rng, 1000)),
                               .observe_ns = 500 + (int64_t)(sb_rng_below(rng, 500)),
                               .nodes = nodes,
                               .n_nodes = (size_t)(n_nodes < drafted ? n_nodes : drafted) };
    for (int i = 0; i < (int)s->n_nodes; i++)
        nodes[i] = (struct sb_node_row){ .parent = i,
                                         .depth = i + 1,
                                         .token = (int32_t)(sb_rng_below(rng, 32000)),
                                         .source = i % 3,
                                         .log_q = -0.5,
                                         .decision = i < accepted    ? 2
                                                     : i == accepted ? 1
                                                                     : 0 };
}

/* Returns the seconds of processor time spent in the store. */
static double add_generation(struct sb_store *store, int64_t arm_id, int64_t prompt_id, int arm,
                             int repeat, const struct shape *shape, struct sb_rng *rng)
{
    int n = shape->steps / 2 + (int)(sb_rng_below(rng, (uint64_t)shape->steps + 1)), tokens = 1;
    if (n > STEPS_MAX)
        n = STEPS_MAX;
    int64_t decode_ns = 0;
    for (int i = 0; i < n; i++) {
        make_step(&step[i], node[i], shape->nodes, i, 300 + tokens, arm, rng);
        tokens += step[i].tokens;
        decode_ns += step[i].draft_ns + step[i].verify_ns + step[i].accept_ns + step[i].commit_ns +
                     step[i].observe_ns + 1000;
    }
    const struct sb_generation_row row = { .arm_id = arm_id,
                                           .prompt_id = prompt_id,
                                           .repeat = repeat,
                                           .status = "ok",
                                           .finish = "eos",
                                           .prompt_tokens = ids,
                                           .n_prompt_tokens = 300,
                                           .tokens = ids,
                                           .n_tokens = (size_t)tokens,
                                           .text = "text",
                                           .prefill_ns = 100000000,
                                           .decode_ns = decode_ns,
                                           .wall_ns = decode_ns + 101000000,
                                           .steps = step,
                                           .n_steps = (size_t)n };
    double start = cpu_s();
    check(sb_store_generation(store, &row, &err));
    return cpu_s() - start;
}

static void add_all(struct sb_store *store, int64_t experiment, const struct shape *shape)
{
    int64_t *arm = calloc((size_t)shape->arms, sizeof *arm), prompt;
    struct sb_rng rng = sb_rng_make(1, 0);
    double stored_s = 0;
    int64_t n = 0;
    for (int a = 0; a < shape->arms; a++) {
        char label[16];
        snprintf(label, sizeof label, "arm-%d", a);
        const struct sb_arm_row row = { .experiment_id = experiment,
                                        .arm_no = a,
                                        .label = label,
                                        .drafter = label,
                                        .verifier = "greedy",
                                        .guarantee = "greedy-exact",
                                        .is_baseline = a == 0 };
        check(sb_store_arm(store, &row, &arm[a], &err));
    }
    for (int repeat = 0; repeat < shape->repeats; repeat++)
        for (int p = 0; p < shape->prompts; p++) {
            char task[16];
            snprintf(task, sizeof task, "task-%d", p % 6);
            const struct sb_prompt_row row = { .experiment_id = experiment,
                                               .question_id = p,
                                               .task = task,
                                               .turn = 1,
                                               .n_turns = 1,
                                               .text = "?" };
            check(sb_store_prompt(store, &row, &prompt, &err));
            for (int a = 0; a < shape->arms; a++, n++)
                stored_s += add_generation(store, arm[a], prompt, a, repeat, shape, &rng);
        }
    free(arm);
    sqlite3_stmt *st;
    sqlite3_prepare_v2(sb_store_handle(store),
                       "SELECT total(steps), total(decode_ns) / 1e9 FROM generation_sums"
                       " JOIN generation ON id = generation_id",
                       -1, &st, NULL);
    sqlite3_step(st);
    double steps = sqlite3_column_double(st, 0), run_s = sqlite3_column_double(st, 1);
    sqlite3_finalize(st);
    printf("stored %" PRId64 " generations, %.0f steps in %.1f s of processor: %.2f us per step,"
           " %.4f %% of a run whose forwards take 20 ms\n",
           n, steps, stored_s, 1e6 * stored_s / steps, 100 * stored_s / run_s);
}

static void fill(const char *path, const struct shape *shape)
{
    struct sb_store *store = NULL;
    int64_t host, model, experiment;
    for (size_t i = 0; i < sizeof ids / sizeof *ids; i++)
        ids[i] = (int32_t)(i * 7919 % 32000);
    check(sb_store_open(&store, path, NULL, &err));
    check(sb_store_host(store, &(struct sb_host_row){ .hostname = "bench" }, &host, &err));
    check(sb_store_model(store, &(struct sb_model_row){ .name = "made up" }, &model, &err));
    const struct sb_experiment_row row = { .name = "bench",
                                           .content_key = "bench",
                                           .host_id = host,
                                           .target_model_id = model,
                                           .repeats = shape->repeats,
                                           .max_new_tokens = 4096,
                                           .arithmetic = "exact" };
    check(sb_store_experiment(store, &row, &experiment, &err));
    add_all(store, experiment, shape);
    sb_store_close(store);
}

static void ask(const char *path, const char *const *views, int n)
{
    struct sb_store *store = NULL;
    check(sb_store_open(&store, path,
                        &(struct sb_store_options){ .must_exist = true, .read_only = true }, &err));
    for (const struct sb_view_info *v = sb_views; v->name; v++) {
        struct sb_table *table = NULL;
        bool wanted = n == 0;
        for (int i = 0; i < n; i++)
            wanted = wanted || strcmp(views[i], v->name) == 0;
        if (!wanted)
            continue;
        uint64_t start = sb_now_ns();
        double cpu = cpu_s();
        enum sb_status rc =
            sb_report_table(&table, store, &(struct sb_report_options){ .view = v->name }, &err);
        if (rc == SB_OK)
            printf("%-12s %8.2f s  (%.2f s of processor)  %zu rows\n", v->name,
                   seconds_since(start), cpu_s() - cpu, sb_table_rows(table));
        else
            printf("%-12s %s\n", v->name, err.message);
        fflush(stdout);
        sb_table_destroy(table);
    }
    sb_store_close(store);
}

int main(int argc, char **argv)
{
    struct shape shape = { 1000, 20, 5, 200, 0 };
    int *field[] = { &shape.prompts, &shape.arms, &shape.repeats, &shape.steps, &shape.nodes };
    struct stat st;
    if (argc < 2) {
        fprintf(stderr, "usage: bench_results FILE [PROMPTS [ARMS [REPEATS [STEPS [NODES]]]]]\n"
                        "       bench_results FILE VIEW...   of a file that is there\n");
        return 2;
    }
    bool there = stat(argv[1], &st) == 0;
    for (int i = 2; i < argc && i < 7 && !there; i++)
        *field[i - 2] = atoi(argv[i]);
    if (shape.nodes > NODES_MAX)
        shape.nodes = NODES_MAX;
    if (!there)
        fill(argv[1], &shape);
    check(stat(argv[1], &st) == 0 ? SB_OK : sb_fail(&err, SB_EINPUT, "%s: gone", argv[1]));
    printf("%s: %.3f GB\n", argv[1], (double)st.st_size / 1e9);
    ask(argv[1], (const char *const *)argv + 2, there ? argc - 2 : 0);
    return 0;
}
