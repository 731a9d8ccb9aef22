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

/// What the zeros take away from a column's product.
inline float zeroPart(const dshard::cpu::DigitDot &d, int64_t column) {
  dshard::cpu::QuantizedColumn c = d.first;
  const float *sums = reinterpret_cast<const float *>(d.x + d.form.sums());
  c.scales += column * d.blocks;
  if (c.zeros)
    c.zeros += column * d.zeroStep;
  float sum = 0;
  for (int64_t b = 0; b < d.blocks; ++b)
    sum += c.scales[b] * zeroOf(c, b) * sums[b];
  return sum;
}

/// The largest magnitude of a digit row's integers.
inline float largestInteger(int digits) {
  return digits == 1 ? 127.0f : 8355000.0f;
}
/// Below that, a scale would lose its own digits.
constexpr float smallestScale = 0x1p-120f;

/// Writes a piece: its 32 integers' digits in the row's order of elements.
inline void placePiece(const dshard::cpu::DigitRow &form, int64_t piece,
                       const int8_t (*digits)[32], float scale, int32_t total,
                       char *row) {
  for (int digit = 0; digit < form.digits; ++digit) {
    char *to = row + form.place(piece, digit);
    __builtin_memcpy(to, digits[digit], 16);
    __builtin_memcpy(to + form.half, digits[digit] + 16, 16);
  }
  float *scales = reinterpret_cast<float *>(row + form.scales());
  for (int64_t i = 0; i < form.lanes; ++i)
    scales[piece * form.lanes + i] = scale;
  reinterpret_cast<int32_t *>(row + form.totals())[piece] = total;
}

inline void quantizePiecesPlain(const float *x,
                                const dshard::cpu::DigitRow &form,
                                int64_t first, int64_t count, char *row) {
  for (int64_t piece = first; piece < first + count; ++piece, x += 32) {
    float top = 0, nothing = 0;
    for (int i = 0; i < 32; ++i) {
      float size = x[i] < 0 ? -x[i] : x[i];
      top = size > top ? size : top;
      nothing += x[i] * 0.0f; // NaN where x is infinite or NaN
    }
    float scale = top * (1.0f / largestInteger(form.digits));
    scale = scale > smallestScale ? scale : smallestScale;
    int8_t digits[3][32];
    int32_t total = 0;
    for (int i = 0; i < 32; ++i) {
      int32_t q = nothing == 0
                      ? static_cast<int32_t>(__builtin_nearbyintf(x[i] / scale))
                      : 0;
      total += q;
      int at = form.evenFirst ? i % 2 * 16 + i / 2 : i;
      for (int digit = 0; digit < form.digits; ++digit) {
        digits[digit][at] = static_cast<int8_t>(q & 255);
        q = (q + 128) >> 8;
      }
    }
    placePiece(form, piece, digits, scale + nothing, total, row);
  }
}

inline void digitDotPlain(const dshard::cpu::DigitDot &d) {
  const dshard::cpu::DigitRow &form = d.form;
  const float *scales = reinterpret_cast<const float *>(d.x + form.scales());
  for (int64_t column = 0; column < d.columns; ++column) {
    const uint8_t *q = d.first.data + column * d.dataStep;
    const float *columnScales = d.first.scales + column * d.blocks;
    int64_t pieces = d.blocks * d.first.block / 32;
    float total = 0;
    for (int64_t p = 0; p < pieces; ++p) {
      float sum = 0;
      for (int digit = form.digits - 1; digit >= 0; --digit) {
        const int8_t *x =
            reinterpret_cast<const int8_t *>(d.x + form.place(p, digit));
        const int8_t *y = x + form.half;
        int32_t part = 0;
        if (d.first.bits == 4)
          for (int i = 0; i < 16; ++i)
            part += (q[i] & 15) * x[i] + (q[i] >> 4) * y[i];
        else
          for (int i = 0; i < 16; ++i)
            part += q[i] * x[i] + q[i + 16] * y[i];
        sum = sum * 256.0f + static_cast<float>(part);
      }
      total +=
          sum * scales[p * form.lanes] * columnScales[p * 32 / d.first.block];
      q += d.first.bits * 4;
    }
    d.out[column] = total - zeroPart(d, column);
  }
}

inline void splitNibblesPlain(const float *dwords, int64_t piece,
                              dshard::cpu::QuantizedPanel &out) {
  uint8_t *to = out.bytes[piece][0];
  for (int word = 0; word < 16; ++word, dwords += 16, to += 128) {
    uint8_t bytes[64];
    __builtin_memcpy(bytes, dwords, 64);
    for (int i = 0; i < 64; ++i) {
      to[i] = bytes[i] & 15;
      to[i + 64] = bytes[i] >> 4;
    }
  }
}

inline void digitTilePlain(const dshard::cpu::DigitTile &t) {
  for (int64_t panel = 0; panel < t.panels; ++panel)
    for (int64_t row = 0; row < t.rows; ++row) {
      const dshard::cpu::QuantizedPanel &w = t.panel[panel];
      float *c = t.c + panel * t.cStep + row * 16;
      for (int64_t j = 0; j < 16; ++j) {
        float sum = t.accumulate ? c[j] : 0.0f;
        for (int64_t piece = 0; piece < t.pieces; ++piece) {
          const char *x = t.x + row * t.xStep + piece * 32;
          int32_t start;
          float scale;
          __builtin_memcpy(&start, t.starts + row * t.xStep + piece * 4, 4);
          __builtin_memcpy(&scale, t.scales + row * t.xStep + piece * 4, 4);
          int32_t part = start * (w.hasZeros ? w.zeros[piece][j] : 1);
          for (int i = 0; i < 8; ++i)
            for (int byte = 0; byte < 4; ++byte)
              part += w.bytes[piece][i][j * 4 + byte] *
                      static_cast<int8_t>(x[i % 2 * 16 + i / 2 * 4 + byte]);
          sum += static_cast<float>(part) * scale * w.scales[piece][j];
        }
        c[j] = sum;
      }
    }
}

} // namespace

#endif // DSHARD_LIB_RUNTIME_CPU_QUANTIZEDKERNELS_H
