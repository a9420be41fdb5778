/* Student's t law, for intervals and tests on a handful of prompts. */
#ifndef SB_RESULTS_STUDENT_H
#define SB_RESULTS_STUDENT_H

/* P(T > t) for df >= 1 degrees of freedom; relative error below 1e-10. */
double sb_student_tail(double t, double df);
/* The t with P(T > t) = tail, 0 < tail < 1. */
double sb_student_point(double tail, double df);

#endif
