#include "drafters/policy/cost.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>

static bool add_point(struct sb_cost_curve *curve, long rows, double cost)
{
    bool first = curve->n == 0;
    if (curve->n == SB_COST_POINTS || rows < 1 || rows > 100000 || !(cost > 0) || !isfinite(cost) ||
        (!first && rows <= curve->rows[curve->n - 1]))
        return false;
    curve->rows[curve->n] = (int32_t)rows;
    curve->cost[curve->n++] = cost;
    return true;
}

enum sb_status sb_cost_curve_parse(struct sb_cost_curve *out, const char *text, const char *owner,
                                   struct sb_error *err)
{
    struct sb_cost_curve curve = { 0 };
    bool sound = true;
    for (const char *at = text; at && *at && sound;) {
        char *end;
        long rows = strtol(at, &end, 10);
        sound = end > at && *end == ':';
        if (!sound)
            break;
        at = end + 1;
        double cost = strtod(at, &end);
        sound = end > at && (*end == '\0' || (*end == ';' && end[1]));
        if (sound && curve.n == 0 && rows > 1)
            add_point(&curve, 1, 1);
        sound = sound && add_point(&curve, rows, cost);
        at = *end ? end + 1 : end;
    }
    if (!sound)
        return sb_fail(
            err, SB_EUSAGE,
            "%s: curve=%s: expected rows:cost with rising rows, as in 1:1;4:1.4;8:2.2, at "
            "most %d of them",
            owner, text, SB_COST_POINTS);
    *out = curve;
    return SB_OK;
}

double sb_cost_of_rows(const struct sb_cost_curve *curve, int32_t rows)
{
    int32_t i = 1;
    if (curve->n < 2)
        return curve->n ? curve->cost[0] : 1;
    while (i + 1 < curve->n && curve->rows[i] < rows)
        i++;
    double slope = (curve->cost[i] - curve->cost[i - 1]) / (curve->rows[i] - curve->rows[i - 1]);
    double cost = curve->cost[i] + slope * (rows - curve->rows[i]);
    return cost > 0 ? cost : curve->cost[i]; /* beyond points that fall */
}

double sb_chain_speedup(const struct sb_cost_curve *curve, double c, double alpha, int32_t gamma)
{
    double tokens = 1, power = 1;
    for (int32_t i = 0; i < gamma; i++)
        tokens += power *= alpha;
    return tokens / (gamma * c + sb_cost_of_rows(curve, gamma + 1));
}
