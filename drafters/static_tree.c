#include "drafters/static_tree.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "drafters/shape.h"
#include "harness/core/alloc.h"
#include "harness/model/loaders.h"

struct path {
    int32_t n;
    uint8_t rank[SB_STATIC_DEPTH];
};

struct paths {
    struct path *path; /* owned */
    size_t n, cap;
};

static enum sb_status add(struct paths *p, const struct path *path, const char *name,
                          struct sb_error *err)
{
    if (sb_grow((void **)&p->path, &p->cap, p->n + 1, sizeof *p->path))
        return sb_fail(err, SB_ENOMEM, "%s: no memory for a tree", name);
    p->path[p->n++] = *path;
    return SB_OK;
}

/* ---- from paths to a tree ---- */

static int by_path(const void *a, const void *b)
{
    const struct path *x = a, *y = b;
    return x->n != y->n ? (x->n > y->n) - (x->n < y->n) : memcmp(x->rank, y->rank, (size_t)x->n);
}

/* "[0, 2, 1]" */
static void path_text(char text[128], const struct path *path)
{
    size_t used = (size_t)snprintf(text, 128, "[");
    for (int32_t i = 0; i < path->n; i++)
        used += (size_t)snprintf(text + used, 128 - used, "%s%d", i ? ", " : "", path->rank[i]);
    snprintf(text + used, 128 - used, "]");
}

/* Every path once, and with its beginning. Paths are sorted. */
static enum sb_status check_paths(const struct paths *p, const char *name, struct sb_error *err)
{
    char text[128];
    if (p->n < 1 || p->n > SB_STATIC_NODES)
        return sb_fail(err, SB_EFORMAT, "%s: a tree of %zu paths; expected 1 to %d", name, p->n,
                       SB_STATIC_NODES);
    for (size_t i = 0; i < p->n; i++) {
        const struct path *path = &p->path[i];
        struct path begin = *path;
        begin.n--;
        path_text(text, path);
        if (i > 0 && by_path(path - 1, path) == 0)
            return sb_fail(err, SB_EFORMAT, "%s: the path %s stands twice", name, text);
        if (begin.n > 0 && !bsearch(&begin, p->path, p->n, sizeof begin, by_path))
            return sb_fail(err, SB_EFORMAT, "%s: the path %s is there without its beginning", name,
                           text);
    }
    return SB_OK;
}

static void add_node(struct sb_static_tree *t, const struct paths *p, size_t i)
{
    const struct path *path = &p->path[i];
    struct path begin = *path;
    begin.n--;
    const struct path *found =
        begin.n > 0 ? bsearch(&begin, p->path, p->n, sizeof begin, by_path) : NULL;
    int32_t at = (int32_t)i + 1, up = found ? (int32_t)(found - p->path) + 1 : 0;
    struct sb_static_node *parent = &t->node[up];
    t->node[at] =
        (struct sb_static_node){ .parent = up, .rank = path->rank[path->n - 1], .depth = path->n };
    if (parent->n_children++ == 0)
        parent->first_child = at;
    parent->width = t->node[at].rank + 1;
    if (t->width[parent->depth] < parent->width)
        t->width[parent->depth] = parent->width;
    t->depth = path->n;
    t->level[path->n + 1] = at + 1;
}

/* Takes the paths over. */
static enum sb_status build(struct sb_static_tree *out, struct paths *p, const char *name,
                            struct sb_error *err)
{
    struct sb_static_tree t = { .n = (int32_t)p->n + 1, .level = { 0, 1 } };
    if (p->n > 0)
        qsort(p->path, p->n, sizeof *p->path, by_path);
    enum sb_status rc = check_paths(p, name, err);
    if (rc == SB_OK && !(t.node = sb_alloc_zero((size_t)t.n, sizeof *t.node)))
        rc = sb_fail(err, SB_ENOMEM, "%s: no memory for a tree", name);
    if (rc == SB_OK) {
        t.node[0].parent = -1;
        for (size_t i = 0; i < p->n; i++)
            add_node(&t, p, i);
        *out = t;
    }
    sb_free(p->path);
    return rc;
}

void sb_static_tree_finish(struct sb_static_tree *tree)
{
    sb_free(tree->node);
    *tree = (struct sb_static_tree){ 0 };
}

void sb_static_tree_cut(struct sb_static_tree *t, int32_t depth)
{
    if (depth >= t->depth)
        return;
    t->depth = depth;
    t->n = t->level[depth + 1];
    t->width[depth] = 0;
    for (int32_t i = t->level[depth]; i < t->n; i++)
        t->node[i].first_child = t->node[i].n_children = t->node[i].width = 0;
}

/* ---- best trees ---- */

struct candidate {
    struct path path;
    double product;
};

/* Is a to be taken before b? */
static bool better(const struct candidate *a, const struct candidate *b)
{
    return a->product != b->product ? a->product > b->product : by_path(&a->path, &b->path) < 0;
}

/* All children of a path that was taken. */
static size_t add_children(struct candidate *c, size_t n, const struct candidate *taken,
                           const double *accuracy, int32_t width)
{
    for (int32_t r = 0; r < width; r++) {
        c[n] = *taken;
        c[n].product *= accuracy[taken->path.n * width + r];
        c[n].path.rank[c[n].path.n++] = (uint8_t)r;
        n += c[n].product > 0;
    }
    return n;
}

static enum sb_status best_tree(struct sb_static_tree *out, const double *accuracy, int32_t depth,
                                int32_t width, int32_t nodes, const char *name,
                                struct sb_error *err)
{
    struct paths paths = { 0 };
    enum sb_status rc = SB_OK;
    struct candidate taken = { .product = 1 };
    struct candidate *c = sb_alloc_array(((size_t)nodes + 1) * (size_t)width + 1, sizeof *c);
    if (!c)
        return sb_fail(err, SB_ENOMEM, "%s: no memory for a tree of %" PRId32 " nodes", name,
                       nodes);
    size_t n = add_children(c, 0, &taken, accuracy, width);
    while (rc == SB_OK && n > 0 && paths.n < (size_t)nodes) {
        size_t best = 0;
        for (size_t i = 1; i < n; i++)
            best = better(&c[i], &c[best]) ? i : best;
        taken = c[best];
        c[best] = c[--n];
        rc = add(&paths, &taken.path, name, err);
        if (taken.path.n < depth)
            n = add_children(c, n, &taken, accuracy, width);
    }
    sb_free(c);
    if (rc == SB_OK)
        return build(out, &paths, name, err);
    sb_free(paths.path);
    return rc;
}

enum sb_status sb_static_tree_best(struct sb_static_tree *out, const double *accuracy,
                                   int32_t depth, int32_t width, int32_t nodes,
                                   struct sb_error *err)
{
    return best_tree(out, accuracy, depth, width, nodes, "accuracy", err);
}

/* ---- names and shapes ---- */

/* Trees that were published, as children of each node, level by level; nodes that are not said have none.
 * mc_sim_7b_63: Medusa's default; eagle1_25: EAGLE-1's (methods B 11). */
static const struct {
    const char *name, *children;
} named[] = {
    { "mc_sim_7b_63", "10/10 7 3 2 1 1 1 1 1 1/10 3 2 1 1 1 1 1 0 0 2 0 0 0 0 0 0 1/2" },
    { "eagle1_25", "4/3 2 2 1/3 2 2 1/3/2" },
};

/* The children of all paths of the last level, `children` as in `named`. */
static enum sb_status add_level(struct paths *p, size_t first, size_t last, const char **at,
                                struct sb_error *err)
{
    enum sb_status rc = SB_OK;
    for (size_t i = first; i < last && **at && **at != '/'; i++) {
        char *end;
        long n = strtol(*at, &end, 10);
        struct path path = i < p->n ? p->path[i] : (struct path){ 0 };
        path.n++;
        for (long r = 0; r < n && rc == SB_OK; r++) {
            path.rank[path.n - 1] = (uint8_t)r;
            rc = add(p, &path, "tree", err);
        }
        *at = end;
    }
    return rc;
}

static enum sb_status from_children(struct sb_static_tree *out, const char *name,
                                    const char *children, struct sb_error *err)
{
    struct paths paths = { 0 };
    size_t first = 0, last = 1; /* the root's level, which has no path */
    enum sb_status rc = SB_OK;
    for (const char *at = children; rc == SB_OK && *at; at += *at == '/') {
        size_t n = paths.n;
        rc = add_level(&paths, first, last, &at, err);
        first = n;
        last = paths.n;
    }
    if (rc == SB_OK)
        return build(out, &paths, name, err);
    sb_free(paths.path);
    return rc;
}

static enum sb_status add_product(struct paths *p, const struct sb_shape *shape, struct path path,
                                  struct sb_error *err)
{
    enum sb_status rc = SB_OK;
    int32_t level = path.n++;
    for (int32_t r = 0; level < shape->n_levels && r < shape->width[level] && rc == SB_OK; r++) {
        path.rank[level] = (uint8_t)r;
        rc = add(p, &path, "tree", err);
        if (rc == SB_OK)
            rc = add_product(p, shape, path, err);
    }
    return rc;
}

static enum sb_status from_shape(struct sb_static_tree *out, const char *text,
                                 const struct sb_shape *shape, struct sb_error *err)
{
    struct paths paths = { 0 };
    enum sb_status rc = add_product(&paths, shape, (struct path){ 0 }, err);
    if (rc == SB_OK)
        return build(out, &paths, text, err);
    sb_free(paths.path);
    return rc;
}

/* ---- files ---- */

static enum sb_status read_path(struct path *out, const json_t *list, size_t index,
                                const char *name, struct sb_error *err)
{
    struct path path = { .n = 0 };
    size_t n = json_array_size(list);
    if (n < 1 || n > SB_STATIC_DEPTH)
        return sb_fail(err, SB_EFORMAT, "%s: path %zu: expected a list of 1 to %d ranks", name,
                       index, SB_STATIC_DEPTH);
    for (size_t i = 0; i < n; i++) {
        const json_t *rank = json_array_get(list, i);
        json_int_t r = json_is_integer(rank) ? json_integer_value(rank) : -1;
        if (r < 0 || r >= SB_STATIC_RANKS)
            return sb_fail(err, SB_EFORMAT, "%s: path %zu: expected ranks from 0 to %d", name,
                           index, SB_STATIC_RANKS - 1);
        path.rank[path.n++] = (uint8_t)r;
    }
    *out = path;
    return SB_OK;
}

static enum sb_status from_paths(struct sb_static_tree *out, const json_t *root, const char *name,
                                 struct sb_error *err)
{
    struct paths paths = { 0 };
    enum sb_status rc = SB_OK;
    if (json_array_size(root) > SB_STATIC_NODES)
        return sb_fail(err, SB_EFORMAT, "%s: a tree of %zu paths; expected 1 to %d", name,
                       json_array_size(root), SB_STATIC_NODES);
    for (size_t i = 0; i < json_array_size(root) && rc == SB_OK; i++) {
        struct path path;
        rc = read_path(&path, json_array_get(root, i), i, name, err);
        if (rc == SB_OK)
            rc = add(&paths, &path, name, err);
    }
    if (rc == SB_OK)
        return build(out, &paths, name, err);
    sb_free(paths.path);
    return rc;
}

/* accuracy[SB_STATIC_DEPTH, SB_STATIC_RANKS]; *depth: how many rows there are. */
static enum sb_status read_accuracy(double *accuracy, int32_t *depth, const json_t *list,
                                    const char *name, struct sb_error *err)
{
    size_t n = json_array_size(list);
    if (n < 1 || n > SB_STATIC_DEPTH)
        return sb_fail(err, SB_EFORMAT, "%s: 'accuracy': expected a list of 1 to %d lists", name,
                       SB_STATIC_DEPTH);
    for (size_t j = 0; j < n; j++) {
        const json_t *row = json_array_get(list, j);
        for (size_t r = 0; r < SB_STATIC_RANKS && r < json_array_size(row); r++) {
            double a = json_number_value(json_array_get(row, r));
            if (!(a >= 0 && a <= 1))
                return sb_fail(err, SB_EFORMAT, "%s: 'accuracy' [%zu][%zu] is %g; expected 0 to 1",
                               name, j, r, a);
            accuracy[j * SB_STATIC_RANKS + r] = a;
        }
    }
    *depth = (int32_t)n;
    return SB_OK;
}

static enum sb_status from_accuracy(struct sb_static_tree *out, const json_t *root,
                                    const char *name, struct sb_error *err)
{
    const json_t *nodes = json_object_get(root, "nodes");
    json_int_t n = nodes ? json_integer_value(nodes) : 63;
    int32_t depth = 0;
    if (n < 1 || n > SB_STATIC_NODES)
        return sb_fail(err, SB_EFORMAT, "%s: 'nodes': expected a whole number from 1 to %d", name,
                       SB_STATIC_NODES);
    double *accuracy = sb_alloc_zero(SB_STATIC_DEPTH * SB_STATIC_RANKS, sizeof *accuracy);
    enum sb_status rc =
        accuracy ? read_accuracy(accuracy, &depth, json_object_get(root, "accuracy"), name, err)
                 : sb_fail(err, SB_ENOMEM, "%s: out of memory", name);
    if (rc == SB_OK)
        rc = best_tree(out, accuracy, depth, SB_STATIC_RANKS, (int32_t)n, name, err);
    sb_free(accuracy);
    return rc;
}

enum sb_status sb_static_tree_from_json(struct sb_static_tree *out, const json_t *root,
                                        const char *name, struct sb_error *err)
{
    if (json_is_array(root))
        return from_paths(out, root, name, err);
    if (json_is_object(root))
        return from_accuracy(out, root, name, err);
    return sb_fail(err, SB_EFORMAT,
                   "%s: expected a list of paths, as [[0], [0, 0]], or an object with 'accuracy'",
                   name);
}

/* ---- what users write ---- */

enum sb_status sb_static_tree_open(struct sb_static_tree *out, const char *text,
                                   const char *drafter, struct sb_error *err)
{
    struct sb_shape shape;
    json_t *root = NULL;
    for (size_t i = 0; i < sizeof named / sizeof *named; i++)
        if (strcmp(text, named[i].name) == 0)
            return from_children(out, text, named[i].children, err);
    if (sb_shape_parse(&shape, text, drafter, NULL) == SB_OK)
        return from_shape(out, text, &shape, err);
    if (text[0] != '@')
        return sb_fail(err, SB_EUSAGE,
                       "drafter %s: tree=%s: expected mc_sim_7b_63, eagle1_25, children per level "
                       "such as 4x2x1 (at most %d nodes), or @FILE.json",
                       drafter, text, SB_STATIC_NODES);
    enum sb_status rc = sb_json_open(&root, text + 1, err);
    if (rc == SB_OK)
        rc = sb_static_tree_from_json(out, root, text + 1, err);
    json_decref(root);
    return rc == SB_OK ? rc : sb_fail_context(err, rc, "drafter %s: tree", drafter);
}

int32_t sb_static_tree_nodes(const char *text)
{
    struct sb_static_tree tree;
    if (sb_static_tree_open(&tree, text, "", NULL) != SB_OK)
        return 0;
    int32_t n = tree.n - 1;
    sb_static_tree_finish(&tree);
    return n;
}

bool sb_static_tree_branches(const char *text)
{
    struct sb_static_tree tree;
    if (sb_static_tree_open(&tree, text, "", NULL) != SB_OK)
        return true;
    bool branches = tree.n > tree.depth + 1;
    sb_static_tree_finish(&tree);
    return branches;
}

/* ---- filling ---- */

void sb_static_tree_fill(const struct sb_static_tree *shape, struct sb_tree *tree,
                         const sb_token *best, size_t ld, const int32_t *n_best, int32_t depth)
{
    int32_t at[SB_STATIC_NODES + 1] = { 0 }; /* of each node in the draft, -1: not there */
    for (int32_t i = 1; i < shape->n && shape->node[i].depth <= depth; i++) {
        const struct sb_static_node *node = &shape->node[i];
        int32_t level = node->depth - 1;
        bool known = at[node->parent] >= 0 && node->rank < n_best[level];
        at[i] = known ? sb_tree_add(tree, at[node->parent],
                                    best[(size_t)level * ld + (size_t)node->rank], node->depth)
                      : -1;
    }
}
