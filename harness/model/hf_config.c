/* config.json of a Hugging Face directory. */
#include <math.h>
#include <string.h>

#include "harness/core/alloc.h"
#include "harness/model/loaders.h"

static enum sb_status get_size(const json_t *root, const char *key, size_t *out, bool required,
                               const char *path, struct sb_error *err)
{
    const json_t *value = json_object_get(root, key);
    if (!value || json_is_null(value))
        return required ? sb_fail(err, SB_EFORMAT, "%s: '%s' is missing", path, key) : SB_OK;
    if (!json_is_integer(value) || json_integer_value(value) < 0 ||
        json_integer_value(value) > INT32_MAX)
        return sb_fail(err, SB_EFORMAT, "%s: '%s' is no whole number of a sensible size", path,
                       key);
    *out = (size_t)json_integer_value(value);
    return SB_OK;
}

static enum sb_status get_number(const json_t *root, const char *key, double *out, const char *path,
                                 struct sb_error *err)
{
    const json_t *value = json_object_get(root, key);
    if (!value || json_is_null(value))
        return SB_OK;
    if (!json_is_number(value))
        return sb_fail(err, SB_EFORMAT, "%s: '%s' is no number", path, key);
    *out = json_number_value(value);
    return SB_OK;
}

static bool is_true(const json_t *root, const char *key)
{
    return json_is_true(json_object_get(root, key));
}

static enum sb_status read_arch(struct sb_config *c, const json_t *root, const char *path,
                                struct sb_error *err)
{
    static const struct {
        const char *name, *arch;
    } known[] = { { "LlamaForCausalLM", "llama" },
                  { "MistralForCausalLM", "llama" },
                  { "Qwen2ForCausalLM", "qwen2" } };
    static const struct {
        const char *name, *arch;
    } types[] = { { "llama", "llama" }, { "mistral", "llama" }, { "qwen2", "qwen2" } };
    const char *name = json_string_value(json_array_get(json_object_get(root, "architectures"), 0));
    const char *type = json_string_value(json_object_get(root, "model_type"));
    const char *arch = NULL;
    for (size_t i = 0; i < 3; i++) {
        if (name && strcmp(name, known[i].name) == 0)
            arch = known[i].arch;
        if (!name && type && strcmp(type, types[i].name) == 0)
            arch = types[i].arch;
    }
    if (!arch)
        return sb_fail(
            err, name || type ? SB_EUNSUPPORTED : SB_EFORMAT,
            "%s: architecture %s; specbench runs LlamaForCausalLM, MistralForCausalLM and "
            "Qwen2ForCausalLM",
            path,
            name   ? name
            : type ? type
                   : "is not said");
    strcpy(c->arch, arch);
    c->qkv_bias = strcmp(arch, "qwen2") == 0;
    return SB_OK;
}

/* What would change the arithmetic and is not there. */
static enum sb_status refuse_unknown(const struct sb_config *c, const json_t *root,
                                     const char *path, struct sb_error *err)
{
    const char *act = json_string_value(json_object_get(root, "hidden_act"));
    const json_t *window = json_object_get(root, "sliding_window");
    const char *type = json_string_value(json_object_get(root, "model_type"));
    bool windowed = type && strcmp(type, "qwen2") == 0 ? is_true(root, "use_sliding_window")
                                                       : json_is_integer(window);
    if (act && strcmp(act, "silu") != 0)
        return sb_fail(err, SB_EUNSUPPORTED, "%s: hidden_act '%s'; specbench computes silu", path,
                       act);
    if (windowed && json_is_integer(window) &&
        json_integer_value(window) < (json_int_t)c->max_context)
        return sb_fail(err, SB_EUNSUPPORTED,
                       "%s: a sliding window of %lld positions is not computed", path,
                       (long long)json_integer_value(window));
    if (is_true(root, "attention_bias") || is_true(root, "mlp_bias"))
        return sb_fail(err, SB_EUNSUPPORTED,
                       "%s: attention_bias or mlp_bias is set; specbench has "
                       "biases for qwen2's q, k, v only",
                       path);
    if (json_is_object(json_object_get(root, "quantization_config")))
        return sb_fail(err, SB_EUNSUPPORTED,
                       "%s: quantization_config is set; specbench reads F32, "
                       "F16 and BF16 safetensors",
                       path);
    return SB_OK;
}

/* Llama 3: long waves are slowed by `factor`, short ones kept, those between blended (transformers'
 * modeling_rope_utils, "llama3"). */
static enum sb_status llama3_factors(struct sb_weights *w, const json_t *scaling, const char *path,
                                     struct sb_error *err)
{
    double factor = 0, low = 0, high = 0, original = 0;
    enum sb_status rc = get_number(scaling, "factor", &factor, path, err);
    if (rc == SB_OK)
        rc = get_number(scaling, "low_freq_factor", &low, path, err);
    if (rc == SB_OK)
        rc = get_number(scaling, "high_freq_factor", &high, path, err);
    if (rc == SB_OK)
        rc = get_number(scaling, "original_max_position_embeddings", &original, path, err);
    if (rc != SB_OK)
        return rc;
    if (!(factor >= 1 && low > 0 && high > low && original >= 1))
        return sb_fail(err, SB_EFORMAT,
                       "%s: rope_scaling has factor %g, low_freq_factor %g, "
                       "high_freq_factor %g, original_max_position_embeddings %g",
                       path, factor, low, high, original);
    size_t half = w->config.head_dim / 2;
    w->rope_factors = sb_alloc_array(half, sizeof(float));
    if (!w->rope_factors)
        return sb_fail(err, SB_ENOMEM, "%s: out of memory", path);
    for (size_t i = 0; i < half; i++) {
        double frequency =
            sb_exp(-(2.0 * (double)i / (double)w->config.head_dim) * sb_log(w->config.rope_base));
        double wavelength = 2 * 3.14159265358979323846 / frequency;
        double smooth = (original / wavelength - low) / (high - low);
        if (wavelength < original / high)
            w->rope_factors[i] = 1;
        else if (wavelength > original / low)
            w->rope_factors[i] = (float)factor;
        else
            w->rope_factors[i] = (float)(1 / ((1 - smooth) / factor + smooth));
    }
    return SB_OK;
}

enum sb_status sb_hf_read_scaling(struct sb_weights *w, const json_t *root, const char *path,
                                  struct sb_error *err)
{
    const json_t *scaling = json_object_get(root, "rope_scaling");
    double factor = 1;
    if (!json_is_object(scaling))
        return SB_OK;
    const char *type = json_string_value(json_object_get(scaling, "rope_type"));
    if (!type)
        type = json_string_value(json_object_get(scaling, "type"));
    if (!type || strcmp(type, "default") == 0)
        return SB_OK;
    if (strcmp(type, "llama3") == 0)
        return llama3_factors(w, scaling, path, err);
    if (strcmp(type, "linear") != 0)
        return sb_fail(err, SB_EUNSUPPORTED,
                       "%s: rope_scaling '%s'; specbench knows linear and llama3", path, type);
    enum sb_status rc = get_number(scaling, "factor", &factor, path, err);
    if (rc == SB_OK && !(factor >= 1e-3 && factor <= 1e6))
        return sb_fail(err, SB_EFORMAT, "%s: rope_scaling.factor is %g", path, factor);
    w->config.rope_scale_linear = 1 / factor;
    return rc;
}

enum sb_status sb_hf_read_config(struct sb_weights *w, const json_t *root, const char *path,
                                 struct sb_error *err)
{
    struct sb_config *c = &w->config;
    double eps = 1e-6;
    if (!json_is_object(root))
        return sb_fail(err, SB_EFORMAT, "%s: is no JSON object", path);
    c->rope_layout = SB_ROPE_HALF;
    c->rope_base = 10000;
    const struct {
        const char *key;
        size_t *out;
    } sizes[] = {
        { "num_hidden_layers", &c->n_layers },  { "hidden_size", &c->d_model },
        { "num_attention_heads", &c->n_heads }, { "intermediate_size", &c->d_ff },
        { "vocab_size", &c->n_vocab },          { "max_position_embeddings", &c->max_context }
    };
    enum sb_status rc = read_arch(c, root, path, err);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes && rc == SB_OK; i++)
        rc = get_size(root, sizes[i].key, sizes[i].out, true, path, err);
    if (rc != SB_OK)
        return rc;
    c->n_kv_heads = c->n_heads;
    c->head_dim = c->n_heads ? c->d_model / c->n_heads : 0;
    rc = get_size(root, "num_key_value_heads", &c->n_kv_heads, false, path, err);
    if (rc == SB_OK)
        rc = get_size(root, "head_dim", &c->head_dim, false, path, err);
    if (rc == SB_OK)
        rc = get_number(root, "rms_norm_eps", &eps, path, err);
    if (rc == SB_OK)
        rc = get_number(root, "rope_theta", &c->rope_base, path, err);
    c->norm_eps = (float)eps;
    c->tied_embeddings = is_true(root, "tie_word_embeddings");
    if (rc == SB_OK)
        rc = refuse_unknown(c, root, path, err);
    if (rc == SB_OK)
        rc = sb_config_check(c, path, err);
    return rc == SB_OK ? sb_hf_read_scaling(w, root, path, err) : rc;
}
