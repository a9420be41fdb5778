/* The pickle inside a PyTorch archive, read by a machine that can make tensors, dictionaries, lists and
 * plain values, and nothing else: a global that is not on its list, and an opcode that torch.save does
 * not write, is refused before anything is done with it. Nothing from the file is ever run.
 *
 * The result is a graph of values. It may hold loops; whoever walks it bounds the walk. */
#ifndef SB_MODEL_TORCH_PICKLE_H
#define SB_MODEL_TORCH_PICKLE_H

#include <stddef.h>
#include <stdint.h>

#include "harness/core/error.h"
#include "harness/model/stored.h"

enum sb_pickle_kind {
    SB_PICKLE_NONE,
    SB_PICKLE_BOOL,
    SB_PICKLE_INT,
    SB_PICKLE_FLOAT,
    SB_PICKLE_TEXT,
    SB_PICKLE_TUPLE,
    SB_PICKLE_LIST,
    SB_PICKLE_DICT,
    SB_PICKLE_GLOBAL, /* a name on the list, not yet applied */
    SB_PICKLE_STORAGE,
    SB_PICKLE_TENSOR,
    SB_PICKLE_KIND_COUNT,
};
const char *sb_pickle_kind_name(enum sb_pickle_kind kind); /* "a dictionary", ... */

typedef uint32_t
    sb_pickle_ref; /* index of a value in sb_pickle.value, or of a link in .link; 0: none */

struct sb_pickle_text {
    const char *data; /* in the pickle, not NUL-terminated */
    size_t n;
};

struct sb_pickle_items { /* links first, then as each says; n of them */
    sb_pickle_ref first, last;
    uint32_t n;
};

struct sb_pickle_storage {
    sb_pickle_ref key; /* TEXT: the entry data/KEY */
    enum sb_element type;
    int64_t n; /* elements, at least 0 */
};

/* Nothing of it is checked but the kinds: size and stride are tuples of whole numbers. */
struct sb_pickle_tensor {
    sb_pickle_ref storage, size, stride;
    int64_t offset; /* in elements */
};

struct sb_pickle_value {
    uint8_t kind; /* enum sb_pickle_kind */
    uint8_t seen; /* for whoever walks the graph; 0 at first */
    union {
        int64_t whole;
        double number;
        int global;
        struct sb_pickle_text text;
        struct sb_pickle_items items;
        struct sb_pickle_storage storage;
        struct sb_pickle_tensor tensor;
    };
};

struct sb_pickle_link {
    sb_pickle_ref key; /* of a dictionary; 0 otherwise */
    sb_pickle_ref value;
    sb_pickle_ref next;
};

struct sb_pickle {
    struct sb_pickle_value *value; /* [n_values], owned; 0 is nobody's */
    size_t n_values, cap_values;
    struct sb_pickle_link *link; /* [n_links], owned; 0 is nobody's */
    size_t n_links, cap_links;
    sb_pickle_ref result;
};

/* Bounds that hold before memory is taken. A checkpoint of 60,000 tensors needs a third of them. */
enum {
    SB_PICKLE_MAX_BYTES = 1 << 28,
    SB_PICKLE_MAX_VALUES = 1 << 22,
    SB_PICKLE_MAX_STACK = 1 << 16,
};

/* Protocols 2 to 5. The bytes stay in place while *out is in use; `name` is for messages. */
enum sb_status sb_pickle_parse(struct sb_pickle *out, const uint8_t *bytes, size_t size,
                               const char *name, struct sb_error *err);
void sb_pickle_close(struct sb_pickle *pickle);

#endif
