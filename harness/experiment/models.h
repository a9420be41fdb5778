/* Models of a run: loaded once, by path or bundled name, and shared by all arms. */
#ifndef SB_EXPERIMENT_MODELS_H
#define SB_EXPERIMENT_MODELS_H

#include <jansson.h>

#include "harness/core/error.h"
#include "harness/model/model.h"
#include "harness/model/tokenizer.h"
#include "results/store.h"

struct sb_models;

struct sb_models *sb_models_create(void); /* NULL out of memory */
void sb_models_destroy(struct sb_models *models);

/* How all of them compute, those loaded already included; sequences made before keep what they had. */
enum sb_status sb_models_set_arithmetic(struct sb_models *models,
                                        const struct sb_arithmetic *arithmetic,
                                        struct sb_error *err);

/* Load on first use. *tokenizer becomes NULL when the model has none (a model of bare ids); pass NULL
 * when it is not wanted. Borrowed until sb_models_destroy. */
enum sb_status sb_models_get(struct sb_models *models, const char *name, struct sb_model **model,
                             const struct sb_tokenizer **tokenizer, struct sb_error *err);

/* The same with the signature that sessions ask for; `loader` is a struct sb_models. */
enum sb_status sb_models_load(void *loader, const char *name, struct sb_model **model,
                              const struct sb_tokenizer **tokenizer, struct sb_error *err);

/* {"layers":..., "width":..., ...}: the row's config_json. New memory (sb_free); NULL out of memory. */
char *sb_models_shape(const struct sb_model *model);

/* A file that a drafter reads, for the run's identity; `loader` is a struct sb_models. */
enum sb_status sb_models_uses(void *loader, const char *path, struct sb_error *err);
/* Content hashes, as 16 hex digits, of all models loaded so far and of all files used, by path. New JSON
 * object (json_decref); NULL out of memory. */
json_t *sb_models_hashes(const struct sb_models *models);

/* The database row of a model, by the name it was asked for. */
enum sb_status sb_models_store(struct sb_store *store, const char *name,
                               const struct sb_model *model, const struct sb_tokenizer *tokenizer,
                               int64_t *id, struct sb_error *err);

#endif
