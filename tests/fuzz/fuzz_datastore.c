/* The reader of datastores, both formats; what it takes survives searches. A first byte below 128 makes
 * the rest a file of ours, whose checksum is mended so that bytes behind it are looked at. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "drafters/datastore.h"
#include "harness/core/alloc.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void search(const struct sb_datastore *store)
{
    for (size_t c = 0; c < store->n_chunks; c++)
        for (sb_token first = -1; first < 12; first++) {
            const sb_token pattern[] = { first, 1, 2 };
            for (size_t m = 1; m <= 3; m++) {
                struct sb_datastore_range r = sb_datastore_find(store, c, pattern, m);
                if (r.from > r.to || r.to > store->chunk[c].n)
                    abort();
            }
        }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1)
        return 0;
    bool ours = data[0] < 128;
    size_t n = size - 1;
    uint8_t *bytes = sb_alloc(n);
    struct sb_datastore store;
    struct sb_error err;
    if (!bytes)
        return 0;
    memcpy(bytes, data + 1, n);
    if (ours && n >= SB_DATASTORE_HEADER) {
        uint64_t sum =
            sb_datastore_checksum(bytes, bytes + SB_DATASTORE_HEADER, n - SB_DATASTORE_HEADER);
        for (int i = 0; i < 8; i++)
            bytes[SB_DATASTORE_CHECKSUM + i] = (uint8_t)(sum >> (8 * i));
    }
    if (sb_datastore_parse(&store, ours ? "fuzz.sbidx" : "fuzz.idx", bytes, n, NULL,
                           n % 2 ? 1000 : 0, &err) == SB_OK) {
        search(&store);
        sb_datastore_close(&store);
    }
    sb_free(bytes);
    return 0;
}
