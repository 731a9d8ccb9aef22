//===- KernelsPortable.cpp - Plain C++ kernels for any CPU ----------------===//

#include "Kernels.h"
#include "QuantizedKernels.h"
#include "dshard/Support/Environment.h"
#include "dshard/Support/Half.h"

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>

using namespace dshard;
using namespace dshard::cpu;

static float loadOne(const void *in, Storage storage, int64_t at) {
  if (storage == Storage::f32)
    return static_cast<const float *>(in)[at];
  uint16_t bits = static_cast<const uint16_t *>(in)[at];
  return storage == Storage::bf16 ? floatFromBFloat16(bits)
                                  : floatFromHalf(bits);
}

static void storeOne(void *out, Storage storage, int64_t at, float x) {
  if (storage == Storage::f32)
    static_cast<float *>(out)[at] = x;
  else
    static_cast<uint16_t *>(out)[at] =
        storage == Storage::bf16 ? bfloat16FromFloat(x) : halfFromFloat(x);
}

template <Storage storage> static void tile(const TileArguments &t) {
  for (int64_t p = 0; p < t.panels; ++p)
    for (int64_t row = 0; row < t.rows; ++row) {
      const char *b = static_cast<const char *>(t.b) + p * t.bStep;
      float *c = t.c + p * t.cStep + row * t.ldc;
      float sum[16];
      for (int j = 0; j < 16; ++j)
        sum[j] = t.accumulate ? c[j] : 0.0f;
      for (int64_t i = 0; i < t.k; ++i) {
        float x = t.a[row * t.lda + i];
        for (int j = 0; j < 16; ++j) {
          int place = storage == Storage::bf16 ? (j % 8) * 2 + j / 8 : j;
          sum[j] += x * loadOne(b, storage, i * 16 + place);
        }
      }
      std::memcpy(c, sum, sizeof(sum));
    }
}

static float activate(float x, uint8_t activation) {
  switch (activation) {
  case 1:
    return x < 0 ? 0 : x;
  case 2:
    return 0.5f * x * (1 + std::erf(x * 0.70710678f));
  case 3:
    return 0.5f * x *
           (1 + std::tanh(0.79788456f * x * (1 + 0.044715f * x * x)));
  case 4:
    return x / (1 + std::exp(-x));
  default:
    return x;
  }
}

static void epilogue(const EpilogueArguments &e) {
  for (int64_t i = 0; i < e.rows; ++i)
    for (int64_t j = 0; j < e.cols; ++j) {
      float x = e.c[i * 16 + j] + (e.bias ? e.bias[j] : 0.0f);
      x = activate(x, e.activation);
      if (e.residual)
        x += loadOne(e.residual, e.residualStorage, i * e.ldr + j);
      storeOne(e.out, e.outStorage, i * e.ldc + j, x);
    }
}

static void toFloat(const void *in, Storage storage, float *out, int64_t n) {
  for (int64_t i = 0; i < n; ++i)
    out[i] = loadOne(in, storage, i);
}

static void fromFloat(const float *in, Storage storage, void *out, int64_t n) {
  for (int64_t i = 0; i < n; ++i)
    storeOne(out, storage, i, in[i]);
}

static float softmaxRow(const SoftmaxRow &row) {
  const float minusInfinity = -std::numeric_limits<float>::infinity();
  float best = minusInfinity;
  bool anyNan = false;
  for (int64_t j = 0; j < row.n; ++j) {
    float x = row.p[j];
    if (row.softcap > 0)
      x = row.softcap * 1.44269504f * std::tanh(x / row.softcap);
    if (row.bias) {
      // The lowest number stays finite: it hides keys only while others are
      // seen.
      float scaled = row.bias[j] * 1.44269504f;
      x += row.bias[j] > minusInfinity && scaled == minusInfinity
               ? std::numeric_limits<float>::lowest()
               : scaled;
    }
    if (j < row.low || j >= row.high || (row.visible && !row.visible[j]))
      x = minusInfinity;
    row.p[j] = x;
    best = x > best ? x : best;
    anyNan |= std::isnan(x);
  }
  if (anyNan) {
    std::memset(row.p, 0, row.n * sizeof(float));
    *row.sum = std::numeric_limits<float>::quiet_NaN();
    return 1.0f;
  }
  if (best == minusInfinity) {
    std::memset(row.p, 0, row.n * sizeof(float));
    return 1.0f;
  }
  float old = *row.maximum;
  float maximum = best > old ? best : old;
  float sum = 0;
  for (int64_t j = 0; j < row.n; ++j) {
    row.p[j] = std::exp2(row.p[j] - maximum);
    sum += row.p[j];
  }
  float alpha = old == maximum ? 1.0f : std::exp2(old - maximum);
  *row.maximum = maximum;
  *row.sum = *row.sum * alpha + sum;
  return alpha;
}

static void gradientRow(const GradientRow &row) {
  for (int64_t j = 0; j < row.n; ++j) {
    if (j < row.low || j >= row.high) {
      row.p[j] = row.ds[j] = 0;
      continue;
    }
    float x = row.p[j], derivative = 1;
    if (row.softcap > 0) {
      float t = std::tanh(x / row.softcap);
      x = row.softcap * 1.44269504f * t;
      derivative = 1 - t * t;
    }
    float p = std::exp2(x - row.lse[j]);
    row.p[j] = p;
    row.ds[j] = p == 0 ? 0.0f : p * (row.ds[j] - row.delta[j]) * derivative;
  }
}

static void scale(float *x, int64_t n, float factor) {
  for (int64_t i = 0; i < n; ++i)
    x[i] *= factor;
}

static void transpose16(const float *in, int64_t ldIn, float *out,
                        int64_t ldOut) {
  for (int i = 0; i < 16; ++i)
    for (int j = 0; j < 16; ++j)
      out[j * ldOut + i] = in[i * ldIn + j];
}

const Kernels dshard::cpu::portableKernels = {
    "portable",
    1,
    {tile<Storage::f32>, tile<Storage::bf16>, tile<Storage::f16>},
    epilogue,
    toFloat,
    fromFloat,
    softmaxRow,
    scale,
    transpose16,
    gradientRow,
    dequantizePlain,
    quantizePiecesPlain,
    digitDotPlain,
    splitNibblesPlain,
    digitTilePlain,
    4};

const Kernels &dshard::cpu::kernels() {
#if defined(__x86_64__)
  static const Kernels &chosen = []() -> const Kernels & {
    if (environment(Variable::KERNELS) == "portable")
      return portableKernels;
    __builtin_cpu_init();
    // Every CPU with AVX2 and FMA has F16C; g++ 12 has no name for it here.
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma"))
      return portableKernels;
    if (environment(Variable::KERNELS) == "avx2" ||
        !__builtin_cpu_supports("avx512f") ||
        !__builtin_cpu_supports("avx512bw") ||
        !__builtin_cpu_supports("avx512dq") ||
        !__builtin_cpu_supports("avx512vl"))
      return avx2Kernels;
    static Kernels avx512 = avx2Kernels;
    useAvx512(avx512);
    return avx512;
  }();
  return chosen;
#else
  return portableKernels;
#endif
}
