/* Weight types: names, sizes, conversions to and from float32. */
#include <string.h>

#include "kernels/bits.h"
#include "kernels/internal.h"

static const char *const names[SB_DTYPE_COUNT] = { "f32", "f16", "bf16", "q8_0", "q4_0" };

const char *sb_dtype_name(enum sb_dtype type)
{
    return (unsigned)type < SB_DTYPE_COUNT ? names[type] : "unknown";
}

size_t sb_dtype_row_bytes(enum sb_dtype type, size_t k)
{
    switch (type) {
    case SB_F32:
        return k * 4;
    case SB_F16:
    case SB_BF16:
        return k * 2;
    case SB_Q8_0:
        return k % SB_QUANT_BLOCK ? 0 : k / SB_QUANT_BLOCK * 34;
    case SB_Q4_0:
        return k % SB_QUANT_BLOCK ? 0 : k / SB_QUANT_BLOCK * 18;
    default:
        return 0;
    }
}

/* Exponent and fraction move up by 13 bits and a multiplication by 2^112 corrects the bias, which
 * is right for subnormals too. A signalling NaN becomes quiet, as the hardware conversion does. */
float sb_f16_to_f32(uint16_t x)
{
    uint32_t sign = (uint32_t)(x & 0x8000) << 16, rest = (uint32_t)(x & 0x7fff) << 13;
    if (rest > 0x0f800000u)
        return sb_float_of(sign | rest | 0x7fc00000u);
    if (rest == 0x0f800000u)
        return sb_float_of(sign | 0x7f800000u);
    return sb_float_of(sign | sb_float_bits(sb_float_of(rest) * 0x1p112f));
}

uint16_t sb_f32_to_f16(float x)
{
    uint32_t bits = sb_float_bits(x), sign = bits >> 16 & 0x8000, rest = bits & 0x7fffffff;
    if (rest > 0x7f800000)
        return (uint16_t)(sign | 0x7e00 | (rest >> 13 & 0x3ff));
    if (rest >= 0x477ff000) /* 65520 and above round to infinity */
        return (uint16_t)(sign | 0x7c00);
    if (rest < 0x38800000) /* below 2^-14: the addition rounds to units of 2^-24 */
        return (uint16_t)(sign | (sb_float_bits(sb_float_of(rest) + 0.5f) - 0x3f000000));
    rest += 0xfff + (rest >> 13 & 1);
    return (uint16_t)(sign | (rest - 0x38000000) >> 13);
}

float sb_bf16_to_f32(uint16_t x)
{
    return sb_float_of((uint32_t)x << 16);
}

uint16_t sb_f32_to_bf16(float x)
{
    uint32_t bits = sb_float_bits(x);
    if ((bits & 0x7fffffff) > 0x7f800000)
        return (uint16_t)(bits >> 16 | 0x40);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

static uint16_t u16_at(const unsigned char *p)
{
    uint16_t x;
    memcpy(&x, p, sizeof x);
    return x;
}

static void dequantize_q8_0(float *dst, const unsigned char *src, size_t k)
{
    for (size_t i = 0; i < k; i += SB_QUANT_BLOCK, src += 34) {
        float d = sb_f16_to_f32(u16_at(src));
        for (size_t j = 0; j < SB_QUANT_BLOCK; j++)
            dst[i + j] = d * (float)(int8_t)src[2 + j];
    }
}

static void dequantize_q4_0(float *dst, const unsigned char *src, size_t k)
{
    for (size_t i = 0; i < k; i += SB_QUANT_BLOCK, src += 18) {
        float d = sb_f16_to_f32(u16_at(src));
        for (size_t j = 0; j < SB_QUANT_BLOCK / 2; j++) {
            dst[i + j] = d * (float)((int)(src[2 + j] & 15) - 8);
            dst[i + j + SB_QUANT_BLOCK / 2] = d * (float)((int)(src[2 + j] >> 4) - 8);
        }
    }
}

void sb_dequantize_row(float *dst, enum sb_dtype type, const void *src, size_t k)
{
    const unsigned char *bytes = src;
    switch (type) {
    case SB_F32:
        memcpy(dst, src, k * sizeof *dst);
        break;
    case SB_F16:
        for (size_t i = 0; i < k; i++)
            dst[i] = sb_f16_to_f32(u16_at(bytes + 2 * i));
        break;
    case SB_BF16:
        for (size_t i = 0; i < k; i++)
            dst[i] = sb_bf16_to_f32(u16_at(bytes + 2 * i));
        break;
    case SB_Q8_0:
        dequantize_q8_0(dst, bytes, k);
        break;
    case SB_Q4_0:
        dequantize_q4_0(dst, bytes, k);
        break;
    default:
        break;
    }
}
