/* Files of static trees, @FILE.json: read, then walk what came of it. */
#include <stddef.h>
#include <stdint.h>

#include "drafters/static_tree.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static volatile int32_t sink;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct sb_static_tree tree;
    struct sb_error err;
    json_t *root = json_loadb((const char *)data, size, JSON_REJECT_DUPLICATES, NULL);
    if (root && sb_static_tree_from_json(&tree, root, "fuzz", &err) == SB_OK) {
        for (int32_t i = 1; i < tree.n; i++)
            sink += tree.node[tree.node[i].parent].first_child + tree.level[tree.node[i].depth];
        sb_static_tree_cut(&tree, 1);
        sb_static_tree_finish(&tree);
    }
    json_decref(root);
    return 0;
}
