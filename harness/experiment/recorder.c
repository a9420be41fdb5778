#include "harness/experiment/recorder.h"

#include <math.h>

#include "harness/core/alloc.h"
#include "harness/experiment/diagnosis.h"

void sb_recorder_reset(struct sb_recorder *r)
{
    r->n_steps = r->n_nodes = 0;
    r->out_of_memory = false;
}

void sb_recorder_finish(struct sb_recorder *r)
{
    sb_free(r->step);
    sb_free(r->node);
    sb_free(r->first_node);
    sb_free(r->scratch);
    *r = (struct sb_recorder){ 0 };
}

static void copy_nodes(struct sb_node_row *out, const struct sb_step *step)
{
    for (int32_t i = 1; i < step->tree->n; i++) {
        const struct sb_node *n = &step->tree->node[i];
        out[i - 1] = (struct sb_node_row){
            .parent = n->parent,
            .depth = n->depth,
            .rank = n->rank,
            .token = n->token,
            .source = n->source,
            .decision = step->decision[i],
            .log_q = (double)n->log_q,
            .auxiliary = n->auxiliary,
        };
    }
}

void sb_recorder_on_step(void *recorder, const struct sb_step *step)
{
    struct sb_recorder *r = recorder;
    size_t nodes = (size_t)step->tree->n - 1;
    if (sb_grow((void **)&r->step, &r->cap_steps, r->n_steps + 1, sizeof *r->step) != 0 ||
        sb_grow((void **)&r->first_node, &r->cap_first, r->n_steps + 1, sizeof *r->first_node) !=
            0 ||
        sb_grow((void **)&r->node, &r->cap_nodes, r->n_nodes + nodes + 1, sizeof *r->node) != 0) {
        r->out_of_memory = true;
        return;
    }
    struct sb_diagnosis found = { .overlap = NAN, .ot_bound = NAN };
    if (r->diagnose && !sb_diagnose(&found, step, &r->scratch, &r->scratch_bytes))
        r->out_of_memory = true;
    copy_nodes(r->node + r->n_nodes, step);
    r->first_node[r->n_steps] = r->n_nodes;
    r->step[r->n_steps++] = (struct sb_step_row){
        .step_no = step->step_no,
        .context = step->context,
        .drafted = step->drafted,
        .auxiliary = step->auxiliary,
        .depth = step->depth,
        .accepted = step->accepted,
        .tokens = step->tokens,
        .bonus = step->bonus,
        .draft_ns = (int64_t)step->draft_ns,
        .verify_ns = (int64_t)step->verify_ns,
        .accept_ns = (int64_t)step->accept_ns,
        .commit_ns = (int64_t)step->commit_ns,
        .observe_ns = (int64_t)step->observe_ns,
        .judged = found.judged,
        .overlap = found.overlap,
        .ot_bound = found.ot_bound,
        .n_nodes = nodes,
    };
    r->n_nodes += nodes;
}

enum sb_status sb_recorder_give(struct sb_recorder *r, struct sb_generation_row *row,
                                struct sb_error *err)
{
    if (r->out_of_memory)
        return sb_fail(err, SB_ENOMEM, "out of memory after %zu recorded steps", r->n_steps);
    for (size_t i = 0; i < r->n_steps; i++)
        r->step[i].nodes = r->node + r->first_node[i];
    row->steps = r->step;
    row->n_steps = r->n_steps;
    return SB_OK;
}
