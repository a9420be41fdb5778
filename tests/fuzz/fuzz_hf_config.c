/* config.json: any JSON value as a model's configuration. */
#include <stddef.h>
#include <stdint.h>

#include <jansson.h>

#include "harness/model/loaders.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct sb_weights *w;
    struct sb_error err;
    json_t *root =
        json_loadb((const char *)data, size, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, NULL);
    if (root && sb_weights_create(&w, "hf", &err) == SB_OK) {
        sb_hf_read_config(w, root, "fuzz", &err);
        sb_weights_close(w);
    }
    json_decref(root);
    return 0;
}
