/* Spec-Bench's speedup, for comparison with its tables only: it weighs a short answer as much as a long
 * one, and prefill is in it (methods C 7.4). */
#ifndef SB_RESULTS_SPECBENCH_FORMULA_H
#define SB_RESULTS_SPECBENCH_FORMULA_H

#include <stddef.h>

/* All turns of a question: new tokens, and the time from the prompt to the last of them (any unit). */
struct sb_specbench_answer {
    double tokens, time;
};

/* Mean over questions of tokens / time, over the same of the baseline; NaN without questions. */
double sb_specbench_speedup(const struct sb_specbench_answer *method, size_t n_method,
                            const struct sb_specbench_answer *base, size_t n_base);

#endif
