//===- QuantizedKernels.h - Block-quantised operands, plainly ---*- C++ -*-===//
//
// Plain loops that every kernel source compiles for its own instruction set:
// with internal linkage, so that instruction sets share nothing.
// Kernels.h says what each computes.
//
//===----------------------------------------------------------------------===//
#ifndef DSHARD_LIB_RUNTIME_CPU_QUANTIZEDKERNELS_H
#define DSHARD_LIB_RUNTIME_CPU_QUANTIZEDKERNELS_H

#include "Kernels.h"

namespace {

/// The zero point of a block.
inline float zeroOf(const dshard::cpu::QuantizedColumn &c, int64_t block) {
  if (!c.zeros)
    return c.bits == 4 ? 8.0f : 128.0f;
  if (c.bits == 8)
    return c.zeros[block];
  return static_cast<float>(c.zeros[block / 2] >> (block % 2 * 4) & 15);
}

inline void dequantizePlain(const dshard::cpu::QuantizedColumn &c, int64_t k,
                            int64_t n, float *out) {
  for (int64_t i = 0; i < n; i += 16) {
    int64_t block = (k + i) / c.block;
    float scale = c.scales[block], zero = zeroOf(c, block);
    if (c.bits == 8) {
      const uint8_t *q = c.data + k + i;
      for (int j = 0; j < 16; ++j)
        out[i + j] = (static_cast<float>(q[j]) - zero) * scale;
      continue;
    }
    const uint8_t *q = c.data + (k + i) / 2;
    for (int j = 0; j < 8; ++j) {
      out[i + 2 * j] = (static_cast<float>(q[j] & 15) - zero) * scale;
      out[i + 2 * j + 1] = (static_cast<float>(q[j] >> 4) - zero) * scale;
    }
  }
}

inline void quantizedDotPlain(const dshard::cpu::QuantizedDot &d) {
  int64_t block = d.first.block;
  for (int64_t column = 0; column < d.columns; ++column) {
    dshard::cpu::QuantizedColumn c = d.first;
    c.data += column * d.dataStep;
    c.scales += column * d.blocks;
    if (c.zeros)
      c.zeros += column * d.zeroStep;
    for (int64_t row = 0; row < d.rows; ++row) {
      const float *x = d.x + row * d.xStep;
      const float *sums = x + dshard::cpu::arrangedSums(d.blocks, block);
      float total = 0;
      for (int64_t b = 0; b < d.blocks; ++b) {
        float part[16] = {};
        if (c.bits == 8) {
          for (int64_t k = b * block; k < (b + 1) * block; k += 16)
            for (int j = 0; j < 16; ++j)
              part[j] += static_cast<float>(c.data[k + j]) * x[k + j];
        } else {
          for (int64_t k = b * block; k < (b + 1) * block; k += 8) {
            const float *words = x + k / 128 * 128 + k % 128 / 8;
            const uint8_t *q = c.data + k / 2;
            for (int j = 0; j < 8; ++j) {
              float value = static_cast<float>(q[j / 2] >> (j % 2 * 4) & 15);
              float place = j < 7 ? static_cast<float>(1u << (4 * j)) : 1.0f;
              part[j] += value * place * words[j * 16];
            }
          }
        }
        float sum = 0;
        for (float p : part)
          sum += p;
        total += c.scales[b] * (sum - zeroOf(c, b) * sums[b]);
      }
      d.out[row * d.ldc + column] = total;
    }
  }
}

inline void quantizeRowPlain(const float *x, int64_t blocks, char *row) {
  dshard::cpu::Int8Row form(blocks);
  float *scales = reinterpret_cast<float *>(row + form.scales());
  float *sums = reinterpret_cast<float *>(row + form.sums());
  for (int64_t b = 0; b < blocks; ++b, x += 32) {
    float top = 0;
    for (int i = 0; i < 32; ++i) {
      float size = x[i] < 0 ? -x[i] : x[i];
      top = size > top ? size : top;
    }
    float scale = top * (1.0f / 127.0f);
    float by = scale > 1e-30f ? scale : 1e-30f;
    float sum = 0;
    for (int i = 0; i < 32; ++i) {
      float q = __builtin_nearbyintf(x[i] / by);
      sum += q;
      row[b / 4 * 128 + i % 2 * 64 + b % 4 * 16 + i / 2] =
          static_cast<char>(static_cast<int8_t>(q));
    }
    for (int i = 0; i < 4; ++i)
      scales[b * 4 + i] = scale;
    sums[b] = sum * scale;
  }
}

inline void int8DotPlain(const dshard::cpu::Int8Dot &d) {
  dshard::cpu::Int8Row form(d.blocks);
  for (int64_t column = 0; column < d.columns; ++column) {
    dshard::cpu::QuantizedColumn c = d.first;
    c.data += column * d.dataStep;
    c.scales += column * d.blocks;
    if (c.zeros)
      c.zeros += column * d.zeroStep;
    for (int64_t r = 0; r < d.rows; ++r) {
      const char *row = d.x + r * d.xStep;
      const float *scales =
          reinterpret_cast<const float *>(row + form.scales());
      const float *sums = reinterpret_cast<const float *>(row + form.sums());
      float total = 0;
      for (int64_t b = 0; b < d.blocks; ++b) {
        const uint8_t *q = c.data + b * 16;
        const char *even = row + b / 4 * 128 + b % 4 * 16, *odd = even + 64;
        int32_t sum = 0;
        for (int i = 0; i < 16; ++i)
          sum += (q[i] & 15) * static_cast<int8_t>(even[i]) +
                 (q[i] >> 4) * static_cast<int8_t>(odd[i]);
        total += c.scales[b] * (static_cast<float>(sum) * scales[b * 4] -
                                zeroOf(c, b) * sums[b]);
      }
      d.out[r * d.ldc + column] = total;
    }
  }
}

} // namespace

#endif // DSHARD_LIB_RUNTIME_CPU_QUANTIZEDKERNELS_H
