#include "tests/property/plain_body.h"

#include <math.h>
#include <string.h>

static const float *vector(const struct sb_tensor *t)
{
    return t->data;
}

void plain_norm(double *y, const double *x, const struct sb_tensor *w, double eps)
{
    double sum = 0;
    for (size_t i = 0; i < w->k; i++)
        sum += x[i] * x[i];
    for (size_t i = 0; i < w->k; i++)
        y[i] = x[i] / sqrt(sum / (double)w->k + eps) * (double)vector(w)[i];
}

void plain_multiply(double *y, const struct sb_tensor *w, const double *x,
                    const struct sb_tensor *bias)
{
    for (size_t o = 0; o < w->n; o++) {
        y[o] = bias && bias->data ? (double)vector(bias)[o] : 0;
        for (size_t i = 0; i < w->k; i++)
            y[o] += (double)vector(w)[o * w->k + i] * x[i];
    }
}

/* The half layout: pairs i, i + head_dim / 2. */
static void rotate(double *x, size_t n_heads, const struct sb_config *c, size_t position)
{
    size_t half = c->head_dim / 2;
    for (size_t h = 0; h < n_heads; h++)
        for (size_t i = 0; i < half; i++) {
            double *a = x + h * c->head_dim + i, *b = a + half, was = *a;
            double angle =
                (double)position * pow(c->rope_base, -2.0 * (double)i / (double)c->head_dim);
            *a = was * cos(angle) - *b * sin(angle);
            *b = *b * cos(angle) + was * sin(angle);
        }
}

static void add(double *x, const double *y, size_t n)
{
    for (size_t i = 0; i < n; i++)
        x[i] += y[i];
}

static void attention(struct plain_body *p, const struct sb_config *c,
                      const struct sb_layer_weights *w, size_t layer, size_t position, double *x,
                      const double *input)
{
    double q[PLAIN_WIDTH], mixed[PLAIN_WIDTH] = { 0 }, out[PLAIN_WIDTH];
    size_t hd = c->head_dim, group = c->n_heads / c->n_kv_heads;
    plain_multiply(q, &w->wq, input, &w->bq);
    plain_multiply(p->k[layer][position], &w->wk, input, &w->bk);
    plain_multiply(p->v[layer][position], &w->wv, input, &w->bv);
    rotate(q, c->n_heads, c, position);
    rotate(p->k[layer][position], c->n_kv_heads, c, position);
    for (size_t h = 0; h < c->n_heads; h++) {
        double score[PLAIN_CONTEXT], sum = 0, most = -INFINITY;
        for (size_t j = 0; j <= position; j++) {
            score[j] = 0;
            for (size_t i = 0; i < hd; i++)
                score[j] += q[h * hd + i] * p->k[layer][j][h / group * hd + i];
            score[j] /= sqrt((double)hd);
            most = fmax(most, score[j]);
        }
        for (size_t j = 0; j <= position; j++)
            sum += score[j] = exp(score[j] - most);
        for (size_t j = 0; j <= position; j++)
            for (size_t i = 0; i < hd; i++)
                mixed[h * hd + i] += score[j] / sum * p->v[layer][j][h / group * hd + i];
    }
    plain_multiply(out, &w->wo, mixed, NULL);
    add(x, out, c->d_model);
}

static void mlp(const struct sb_config *c, const struct sb_layer_weights *w, double *x)
{
    double n[PLAIN_WIDTH], gate[PLAIN_WIDTH], up[PLAIN_WIDTH], out[PLAIN_WIDTH];
    plain_norm(n, x, &w->ffn_norm, (double)c->norm_eps);
    plain_multiply(gate, &w->w_gate, n, NULL);
    plain_multiply(up, &w->w_up, n, NULL);
    for (size_t i = 0; i < c->d_ff; i++)
        gate[i] *= up[i] / (1 + exp(-gate[i]));
    plain_multiply(out, &w->w_down, gate, NULL);
    add(x, out, c->d_model);
}

void plain_body_row(struct plain_body *p, const struct sb_weights *w, const float *row,
                    size_t position, double *x)
{
    const struct sb_config *c = &w->config;
    size_t d = c->d_model;
    double read[2 * PLAIN_WIDTH], eps = (double)c->norm_eps;
    for (size_t i = 0; i < sb_config_d_input(c); i++)
        read[i] = (double)row[i];
    memcpy(x, c->input >= SB_INPUT_PAIR ? read + d : read, d * sizeof *x);
    for (size_t l = 0; l < c->n_layers; l++) {
        const struct sb_layer_weights *layer = &w->layers[l];
        enum sb_input input = l == 0 ? c->input : SB_INPUT_PLAIN;
        if (input >= SB_INPUT_PAIR) {
            plain_norm(read, read, &layer->attn_norm, eps);
            plain_norm(read + d, read + d, &layer->pair_norm, eps);
        } else if (input == SB_INPUT_PLAIN) {
            plain_norm(read, x, &layer->attn_norm, eps);
        }
        if (input == SB_INPUT_PAIR_NORMED)
            memcpy(x, read + d, d * sizeof *x);
        attention(p, c, layer, l, position, x, read);
        mlp(c, layer, x);
    }
}
