/* P(T > t) = I_x(df/2, 1/2) / 2 with x = df / (df + t^2), for t >= 0 (Abramowitz and Stegun 26.7.1). */
#include "results/student.h"

#include <math.h>

/* The continued fraction of the incomplete beta function (26.5.8), by Lentz's method; converges fast for
 * x < (a + 1) / (a + b + 2). */
static double beta_fraction(double a, double b, double x)
{
    const double tiny = 1e-300;
    double c = 1, d = 1 - (a + b) * x / (a + 1);
    d = 1 / (fabs(d) < tiny ? tiny : d);
    double h = d;
    for (int m = 1; m <= 10000; m++) {
        double even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m));
        double odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1));
        double step = 1;
        for (int half = 0; half < 2; half++) {
            double k = half ? odd : even;
            d = 1 + k * d;
            d = 1 / (fabs(d) < tiny ? tiny : d);
            c = 1 + k / c;
            c = fabs(c) < tiny ? tiny : c;
            step *= d * c;
        }
        h *= step;
        if (fabs(step - 1) < 1e-15)
            break;
    }
    return h;
}

/* Regularised incomplete beta function I_x(a, b); y = 1 - x, given apart to keep its digits. */
static double beta_regular(double a, double b, double x, double y)
{
    if (x <= 0)
        return 0;
    if (y <= 0)
        return 1;
    double front = exp(lgamma(a + b) - lgamma(a) - lgamma(b) + a * log(x) + b * log(y));
    return x < (a + 1) / (a + b + 2) ? front * beta_fraction(a, b, x) / a
                                     : 1 - front * beta_fraction(b, a, y) / b;
}

double sb_student_tail(double t, double df)
{
    double tt = t * t,
           tail = isinf(tt) ? 0 : beta_regular(df / 2, 0.5, df / (df + tt), tt / (df + tt)) / 2;
    return t >= 0 ? tail : 1 - tail;
}

double sb_student_point(double tail, double df)
{
    if (tail > 0.5)
        return -sb_student_point(1 - tail, df);
    double low = 0, high = 1;
    while (sb_student_tail(high, df) > tail && high < 1e300)
        high *= 2;
    for (int i = 0; i < 200 && high - low > 1e-14 * high; i++) {
        double mid = (low + high) / 2;
        *(sb_student_tail(mid, df) > tail ? &low : &high) = mid;
    }
    return (low + high) / 2;
}
