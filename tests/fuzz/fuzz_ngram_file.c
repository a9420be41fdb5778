/* The n-gram cache reader; what it takes survives a look at every successor. */
#include <stdint.h>
#include <stdlib.h>

#include "drafters/ngrams.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct sb_ngrams t = { .tie = SB_NGRAM_SMALLEST };
    struct sb_error err;
    if (sb_ngrams_parse(&t, "fuzz", data, size, 1000, 1, 4, &err) == SB_OK)
        for (size_t i = 1; i < t.n_nodes; i++) {
            int64_t total = 0;
            for (int32_t j = t.node[i].first; j >= 0; j = t.next[j].link) {
                total += t.next[j].count;
                if (t.next[j].count > t.next[t.node[i].best].count)
                    abort();
            }
            if (total != t.node[i].total)
                abort();
        }
    sb_ngrams_finish(&t);
    return 0;
}
