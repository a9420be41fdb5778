/* What an attention will read, asked for by the products before it. Quantised weights are few bytes: from some rows on
 * their products wait for operations, and memory has nothing to do; then attention waits for memory. So those products
 * ask for keys and values, which are still in the last cache when attention comes to them. */
#include "kernels/kv.h"

/* Floating-point operations of one core in the time in which memory reads a byte for all: 5 on the machines of
 * docs/performance.md (240 GFLOP/s, 43 GB/s). Where there are more cores to a memory, there is less to spare. */
enum { OPERATIONS_PER_BYTE = 5 };

/* What is asked for long before must not be more than lasts there. */
enum { MOST_BYTES = 16 * 1024 * 1024 };

/* Bytes that memory has time for beside `bytes` while a team does so many operations. Where both would take equal time,
 * asking for more costs more than it gains: bytes count an eighth more. */
static size_t spare(const struct sb_team *team, size_t operations, size_t bytes)
{
    const size_t time = operations / (OPERATIONS_PER_BYTE * (team ? team->count : 1));
    const size_t busy = bytes + bytes / 8;
    return time > busy ? time - busy : 0;
}

size_t sb_matmul_spare(const struct sb_team *team, const struct sb_packed *w, size_t m)
{
    const bool asks = m >= SB_BESIDE_ROWS && sb_is_quantised(w->type);
    const size_t halves = sb_halves(w->gated);
    return asks ? spare(team, 2 * m * w->n * w->k * halves,
                        sb_packed_size(w->type, w->n, w->k) * halves)
                : 0;
}

struct sb_soon sb_attention_soon(const struct sb_team *team, const struct sb_kv_layer *kv,
                                 size_t slots, size_t n_heads, size_t m, size_t spare_bytes)
{
    const size_t run = slots / SB_CHUNK * (sb_kv_key_chunk(kv) + sb_kv_value_chunk(kv));
    const size_t bytes = run * kv->n_kv_heads, most = sb_least(bytes, MOST_BYTES);
    /* Two products, and about a quarter more for the weights between them. */
    const size_t operations = 5 * m * n_heads * kv->head_dim * slots;
    if (most == 0 || spare_bytes == 0 || spare(team, operations, bytes) > 0)
        return (struct sb_soon){ .kv = NULL };
    return (struct sb_soon){
        .kv = kv,
        .run = run,
        .bytes = most,
        .later = spare_bytes > most ? spare_bytes - most : 0,
    };
}

size_t sb_soon_take(struct sb_soon *soon, size_t spare_bytes)
{
    const size_t unused = sb_least(soon->later, spare_bytes);
    soon->later -= unused;
    return sb_least(spare_bytes - unused, soon->bytes - soon->asked);
}

struct sb_beside sb_soon_part(const struct sb_soon *soon, size_t panels, size_t members,
                              size_t each, size_t first)
{
    const size_t owner = ((first + 1) * members - 1) / panels, own = panels * owner / members;
    return (struct sb_beside){
        .at = sb_kv_key(soon->kv, 0, soon->kv->n_kv_heads * owner / members, 0),
        .run = soon->run,
        .stride = sb_kv_head_stride(soon->kv),
        .from = soon->asked / members + (first - own) * each,
        .each = each,
    };
}
