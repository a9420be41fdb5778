/* The tape itself: arena, record, and the walk back. */
#include "harness/train/internal.h"

#include <assert.h>

#include "harness/core/alloc.h"

enum { CHUNK_BYTES = 16 << 20, ALIGN = SB_CACHE_LINE };

struct chunk {
    unsigned char *data;
    size_t size, used;
};

struct sb_tape {
    struct chunk *chunks;
    size_t n_chunks, cap_chunks, current;
    struct sb_op *ops;
    size_t n_ops, cap_ops;
    bool failed;
};

enum sb_status sb_tape_create(struct sb_tape **out, struct sb_error *err)
{
    struct sb_tape *tape = sb_alloc_zero(1, sizeof *tape);
    if (!tape)
        return sb_fail(err, SB_ENOMEM, "training tape: out of memory");
    *out = tape;
    return SB_OK;
}

void sb_tape_destroy(struct sb_tape *tape)
{
    if (!tape)
        return;
    for (size_t i = 0; i < tape->n_chunks; i++)
        sb_free(tape->chunks[i].data);
    sb_free(tape->chunks);
    sb_free(tape->ops);
    sb_free(tape);
}

static bool add_chunk(struct sb_tape *tape, size_t size)
{
    if (sb_grow((void **)&tape->chunks, &tape->cap_chunks, tape->n_chunks + 1,
                sizeof *tape->chunks) != 0)
        return false;
    size_t bytes = size > CHUNK_BYTES ? size : CHUNK_BYTES;
    unsigned char *data = sb_alloc_aligned(bytes, 1);
    if (!data)
        return false;
    tape->chunks[tape->n_chunks++] = (struct chunk){ data, bytes, 0 };
    return true;
}

/* Steps differ in shape (documents have their own lengths, answers their share of them), so pieces that
 * fitted one step would be passed over in the next: join them into one that holds a quarter more than was
 * used. Without the slack every step that sets a record would ask the system for all of it again, and wait
 * for zeroed pages. */
static void join_chunks(struct sb_tape *tape)
{
    size_t used = 0;
    for (size_t i = 0; i < tape->n_chunks; i++) {
        used += tape->chunks[i].used;
        sb_free(tape->chunks[i].data);
    }
    tape->n_chunks = 0;
    add_chunk(tape,
              used +
                  used / 4); /* failing leaves the arena empty, and the next allocation reports */
}

void sb_tape_reset(struct sb_tape *tape)
{
    if (tape->n_chunks > 1)
        join_chunks(tape);
    for (size_t i = 0; i < tape->n_chunks; i++)
        tape->chunks[i].used = 0;
    tape->current = 0;
    tape->n_ops = 0;
    tape->failed = false;
}

size_t sb_tape_bytes(const struct sb_tape *tape)
{
    size_t total = 0;
    for (size_t i = 0; i < tape->n_chunks; i++)
        total += tape->chunks[i].size;
    return total;
}

void *sb_tape_alloc(struct sb_tape *tape, size_t n, size_t size_bytes)
{
    if (tape->failed)
        return NULL;
    if (size_bytes != 0 && n > (SIZE_MAX / 2) / size_bytes) {
        tape->failed = true;
        return NULL;
    }
    size_t need = (n * size_bytes + ALIGN - 1) / ALIGN * ALIGN;
    while (tape->current < tape->n_chunks &&
           tape->chunks[tape->current].size - tape->chunks[tape->current].used < need)
        tape->current++;
    if (tape->current == tape->n_chunks && !add_chunk(tape, need)) {
        tape->failed = true;
        return NULL;
    }
    struct chunk *chunk = &tape->chunks[tape->current];
    void *p = chunk->data + chunk->used;
    chunk->used += need;
    return p;
}

static struct sb_var *new_var(struct sb_tape *tape, sb_real *x, size_t rows, size_t cols, bool grad)
{
    struct sb_var *var = sb_tape_alloc(tape, 1, sizeof *var);
    if (!x)
        x = sb_tape_alloc(tape, rows * cols, sizeof *x);
    sb_real *dx = grad ? sb_tape_alloc(tape, rows * cols, sizeof *dx) : NULL;
    if (tape->failed)
        return NULL;
    *var = (struct sb_var){ .x = x, .dx = dx, .rows = rows, .cols = cols };
    return var;
}

struct sb_var *sb_tape_constant(struct sb_tape *tape, sb_real *x, size_t rows, size_t cols)
{
    return new_var(tape, x, rows, cols, false);
}

struct sb_var *sb_tape_output(struct sb_tape *tape, const struct sb_op *op, size_t rows,
                              size_t cols)
{
    bool grad = false;
    for (size_t i = 0; i < sizeof op->in / sizeof *op->in; i++)
        grad = grad || wants_grad(op->in[i]);
    return new_var(tape, NULL, rows, cols, grad);
}

bool sb_tape_record(struct sb_tape *tape, const struct sb_op *op)
{
    if (tape->failed)
        return false;
    if (!wants_grad(op->out))
        return true; /* nothing behind it to reach */
    if (sb_grow((void **)&tape->ops, &tape->cap_ops, tape->n_ops + 1, sizeof *tape->ops) != 0) {
        tape->failed = true;
        return false;
    }
    tape->ops[tape->n_ops++] = *op;
    return true;
}

enum sb_status sb_tape_backward(struct sb_tape *tape, struct sb_var *loss, struct sb_error *err)
{
    if (tape->failed || !loss)
        return sb_fail(err, SB_ENOMEM, "training step: out of memory after %zu MiB of activations",
                       sb_tape_bytes(tape) >> 20);
    assert(loss->rows == 1 && loss->cols == 1);
    if (!wants_grad(loss))
        return SB_OK;
    loss->dx[0] = 1;
    loss->has_grad = true;
    for (size_t i = tape->n_ops; i-- > 0;)
        if (tape->ops[i].out->has_grad) /* else the loss does not depend on it */
            tape->ops[i].backward(tape, &tape->ops[i]);
    if (tape->failed)
        return sb_fail(err, SB_ENOMEM, "training step: out of memory in the backward pass");
    return SB_OK;
}
