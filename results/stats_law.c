/* Counts against a known law: chi-square tails, the G test, bounds, many tests at once. */
#include <math.h>

#include "results/stats.h"

enum { MAX_TERMS = 100000 };

/* ln of x^a e^-x / Gamma(a + 1), the factor of both expansions below. */
static double log_front(double a, double x)
{
    return a * log(x) - x - lgamma(a + 1);
}

/* P(a, x), the lower one: Abramowitz & Stegun 6.5.29. */
static double gamma_series(double a, double x)
{
    double term = 1, sum = 1;
    for (int i = 1; i < MAX_TERMS && term > sum * 1e-17; i++) {
        term *= x / (a + i);
        sum += term;
    }
    return sum * exp(log_front(a, x));
}

/* Q(a, x), the upper one: the continued fraction 6.5.31 in its even form, by the modified Lentz method
 * (Thompson & Barnett 1986). All its denominators are positive for x > a + 1. */
static double gamma_fraction(double a, double x)
{
    double b = x + 1 - a, c = 1e300, d = 1 / b, value = d;
    for (int i = 1; i < MAX_TERMS; i++) {
        double an = -i * (i - a);
        b += 2;
        d = 1 / (an * d + b);
        c = b + an / c;
        value *= c * d;
        if (fabs(c * d - 1) < 1e-16)
            break;
    }
    return value * a * exp(log_front(a, x));
}

double sb_chi_square_tail(double x, double df)
{
    double a = df / 2, half = x / 2;
    if (!(x > 0))
        return 1;
    if (isinf(x))
        return 0;
    return half < a + 1 ? 1 - gamma_series(a, half) : gamma_fraction(a, half);
}

double sb_chi_square_point(double tail, double df)
{
    double low = 0, high = df + 10;
    while (sb_chi_square_tail(high, df) > tail)
        high *= 2;
    for (int i = 0; i < 100 && high - low > 1e-13 * high; i++) {
        double mid = (low + high) / 2;
        *(sb_chi_square_tail(mid, df) > tail ? &low : &high) = mid;
    }
    return (low + high) / 2;
}

/* A Poisson mixture of central laws. Its terms begin at the mode, so that none underflows. */
double sb_chi_square_power(double x, double df, double noncentrality)
{
    double mean = noncentrality / 2, mode = floor(mean), sum = 0;
    if (!(mean > 0))
        return sb_chi_square_tail(x, df);
    double top = exp(mode * log(mean) - mean - lgamma(mode + 1)), weight = top;
    for (double j = mode; weight > 1e-18; j++) {
        sum += weight * sb_chi_square_tail(x, df + 2 * j);
        weight *= mean / (j + 1);
    }
    weight = top;
    for (double j = mode; j > 0 && weight > 1e-18; j--) {
        weight *= j / mean;
        sum += weight * sb_chi_square_tail(x, df + 2 * (j - 1));
    }
    return sum;
}

double sb_detectable_variation(double n, double df, double level, double power)
{
    if (!(n > 0) || !(df > 0))
        return 1;
    double critical = sb_chi_square_point(level, df), low = 0, high = 4 * n;
    if (sb_chi_square_power(critical, df, high) < power)
        return 1;
    for (int i = 0; i < 60; i++) {
        double mid = (low + high) / 2;
        *(sb_chi_square_power(critical, df, mid) < power ? &low : &high) = mid;
    }
    return sqrt(high / (4 * n));
}

void sb_fit_add(struct sb_fit *fit, const int64_t *count, const double *p, size_t k)
{
    double g = 0, variation = 0, bias = 0, inverse = 0, n = 0;
    size_t cells = 0;
    for (size_t i = 0; i < k; i++)
        n += (double)count[i];
    if (!(n > 0))
        return;
    for (size_t i = 0; i < k; i++) {
        double observed = (double)count[i], expected = n * p[i];
        if (!(p[i] > 0)) {
            fit->impossible = fit->impossible || count[i] > 0;
            continue;
        }
        g += observed > 0 ? 2 * observed * log(observed / expected) : 0;
        variation += fabs(observed / n - p[i]) / 2;
        bias += sqrt(2 * p[i] * (1 - p[i]) / (3.14159265358979 * n)) / 2;
        inverse += 1 / p[i];
        cells++;
    }
    double total = (double)fit->n + n;
    fit->variation += (variation - fit->variation) * n / total;
    fit->variation_bias += (bias - fit->variation_bias) * n / total;
    fit->n += (int64_t)n;
    if (cells < 2)
        return;
    double df = (double)(cells - 1);
    fit->g += g / (1 + (inverse - 1) / (6 * n * df));
    fit->df += df;
}

double sb_fit_p(const struct sb_fit *fit)
{
    if (fit->impossible)
        return 0;
    return fit->df > 0 ? sb_chi_square_tail(fit->g, fit->df) : 1;
}

double sb_fit_variation_upper(const struct sb_fit *fit, double confidence)
{
    if (fit->n == 0)
        return 1;
    double bound = fit->variation + sqrt(-log1p(-confidence) / (2 * (double)fit->n));
    return bound < 1 ? bound : 1;
}

/* p times the number of tests whose p is not smaller; never below that of a smaller p. */
void sb_holm(double *adjusted, const double *p, size_t n)
{
    size_t tests = 0;
    for (size_t i = 0; i < n; i++)
        tests += !isnan(p[i]);
    for (size_t i = 0; i < n; i++) {
        adjusted[i] = isnan(p[i]) ? NAN : 0;
        for (size_t j = 0; j < n; j++) {
            size_t smaller = 0;
            if (!(p[j] <= p[i]))
                continue;
            for (size_t k = 0; k < n; k++)
                smaller += p[k] < p[j];
            adjusted[i] = fmax(adjusted[i], fmin(1, p[j] * (double)(tests - smaller)));
        }
    }
}
