/* Shared by record.c and record_json.c: the set-up's fields as data, so that reading, writing and
 * comparing walk one list; and how a record grows. */
#ifndef SB_RESULTS_RECORD_FIELDS_H
#define SB_RESULTS_RECORD_FIELDS_H

#include "results/record.h"

enum sb_field_kind { SB_FIELD_TEXT, SB_FIELD_INT, SB_FIELD_REAL };
/* When two records must agree in a field: never, when integers are compared, always. */
enum sb_field_matters { SB_FIELD_IGNORED, SB_FIELD_EXACT, SB_FIELD_ALWAYS };

struct sb_setup_field {
    const char *name, *what;
    size_t at;
    enum sb_field_kind kind;
    enum sb_field_matters matters;
};
extern const struct sb_setup_field sb_setup_fields[]; /* ends at a NULL name */

static inline char **sb_setup_text(struct sb_setup *s, const struct sb_setup_field *f)
{
    return (char **)((char *)s + f->at);
}

static inline int64_t *sb_setup_int(struct sb_setup *s, const struct sb_setup_field *f)
{
    return (int64_t *)((char *)s + f->at);
}

static inline double *sb_setup_real(struct sb_setup *s, const struct sb_setup_field *f)
{
    return (double *)((char *)s + f->at);
}

/* NULL: out of memory (what was begun is the record's to free). */
struct sb_arm_record *sb_record_add_arm(struct sb_record *r, const char *label, const char *method);
struct sb_prompt_counts *sb_record_add_prompt(struct sb_arm_record *arm, const char *task,
                                              int64_t question_id);

#endif
