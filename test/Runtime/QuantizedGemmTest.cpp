// Products with block-quantised operands against double loops: bits, block
// sizes, zero points, rows from one to more than a block, ragged depths, any
// number of threads; and results that are written past the caches.

#include "TestTensors.h"
#include "dshard/Runtime/Cpu/Gemm.h"
#include "dshard/Runtime/Cpu/ThreadPool.h"

#include <cmath>
#include <gtest/gtest.h>

using namespace dshard;
using namespace dshard::cpu;
using namespace dshard::test;
using plan::Activation;
using plan::DataType;

namespace {

struct Quantized {
  Quantized(int64_t n, int64_t k, int64_t block, int bits, bool withZeros)
      : block(block), bits(bits), blocks((k + block - 1) / block),
        data(n * blocks * block * bits / 8), scales(n * blocks),
        zeros(n * ((blocks * bits + 7) / 8)), withZeros(withZeros) {
    std::mt19937 generator(7);
    for (uint8_t &byte : data)
      byte = static_cast<uint8_t>(generator());
    for (uint8_t &byte : zeros)
      byte = static_cast<uint8_t>(generator());
    for (float &scale : scales)
      scale = static_cast<float>(generator() % 1000 + 1) / 3000.0f;
    for (int64_t column = 0; column < n; ++column)
      for (int64_t l = 0; l < k; ++l)
        values.push_back(dequantized(column, l));
  }
  double dequantized(int64_t column, int64_t k) const {
    auto element = [&](const std::vector<uint8_t> &bytes, int64_t row,
                       int64_t rowBytes, int64_t i) {
      if (bits == 8)
        return int(bytes[row * rowBytes + i]);
      return bytes[row * rowBytes + i / 2] >> (i % 2 * 4) & 15;
    };
    int q = element(data, column, blocks * block * bits / 8, k);
    int zero = bits == 4 ? 8 : 128;
    if (withZeros)
      zero = element(zeros, column, (blocks * bits + 7) / 8, k / block);
    return double(q - zero) * scales[column * blocks + k / block];
  }
  int64_t block;
  int bits;
  int64_t blocks;
  std::vector<uint8_t> data;
  std::vector<float> scales;
  std::vector<uint8_t> zeros;
  bool withZeros;
  std::vector<double> values; // [n, k]
};

struct Memory {
  explicit Memory(size_t bytes) : bytes(bytes + 64) {}
  void *data() {
    return reinterpret_cast<void *>(
        (reinterpret_cast<uintptr_t>(bytes.data()) + 63) / 64 * 64);
  }
  std::vector<uint8_t> bytes;
};

/// Elements of a row as the integer products see them.
std::vector<double> rounded(const Array &lhs, int64_t begin, int64_t k) {
  std::vector<double> result;
  for (int64_t l = 0; l < k; l += 32) {
    float top = 0;
    for (int64_t i = l; i < l + 32; ++i)
      top = std::max(top, std::abs(float(lhs[begin + i])));
    float scale = std::max(top * (1.0f / 127.0f), 0x1p-120f);
    for (int64_t i = l; i < l + 32; ++i)
      result.push_back(double(scale) *
                       std::nearbyint(float(lhs[begin + i]) / scale));
  }
  return result;
}

void check(int64_t m, int64_t n, int64_t k, const Quantized &rhs,
           DataType lhsType, unsigned threads, bool epilogue,
           bool int8 = false) {
  SCOPED_TRACE("m=" + std::to_string(m) + " n=" + std::to_string(n) +
               " k=" + std::to_string(k) + " block " +
               std::to_string(rhs.block) + " bits " + std::to_string(rhs.bits) +
               " zeros " + std::to_string(rhs.withZeros));
  ThreadPool pool(threads);
  Array lhs = randomArray(lhsType, m * (k + 3), 1);
  Array bias = randomArray(DataType::f32, n, 2);
  Array residual = randomArray(DataType::f32, m * n, 3);
  Array out(DataType::f32, m * n);
  MatmulArguments g;
  g.m = m;
  g.n = n;
  g.k = k;
  g.lda = k + 3;
  g.ldc = g.ldr = n;
  g.lhsType = lhsType;
  g.rhsType = DataType::u8;
  g.lhs = lhs.data();
  g.rhs = rhs.data.data();
  g.scales = rhs.scales.data();
  g.zeroPoints = rhs.withZeros ? rhs.zeros.data() : nullptr;
  g.block = rhs.block;
  g.bits = rhs.bits;
  g.int8 = int8;
  g.out = out.data();
  if (epilogue) {
    g.bias = bias.data();
    g.residual = residual.data();
    g.activation = Activation::relu;
  }
  ASSERT_TRUE(checkGemm(g).ok());
  Memory scratch(gemmScratchBytes() * threads);
  gemm(g, pool, scratch.data(), gemmScratchBytes());
  for (int64_t i = 0; i < m; ++i) {
    std::vector<double> row;
    if (int8)
      row = rounded(lhs, i * (k + 3), k);
    else
      for (int64_t l = 0; l < k; ++l)
        row.push_back(lhs[i * (k + 3) + l]);
    for (int64_t j = 0; j < n; ++j) {
      double sum = 0, size = 1;
      for (int64_t l = 0; l < k; ++l) {
        double product = row[l] * rhs.values[j * k + l];
        sum += product;
        size += std::abs(product);
      }
      if (epilogue)
        sum = std::max(0.0, sum + bias[j]) + residual[i * n + j];
      // The zero is taken away from whole sums: q may be 15 times as large.
      ASSERT_NEAR(out[i * n + j], sum, 4e-6 * size)
          << "row " << i << " column " << j;
    }
  }
}

} // namespace

TEST(GemmQuantized, BitsBlocksAndZeroPoints) {
  for (int bits : {4, 8})
    for (int64_t block : {16, 32, 64, 256})
      for (bool withZeros : {false, true})
        for (int64_t k : {32, 400}) {
          Quantized rhs(35, k, block, bits, withZeros);
          for (int64_t m : {1, 2, 3, 4, 5, 9})
            check(m, 35, k, rhs, DataType::f32, 1, false);
        }
}

TEST(GemmQuantized, LargerThanBlocksAndByThreads) {
  for (int bits : {4, 8}) {
    Quantized rhs(150, 1000, 32, bits, true);
    for (unsigned threads : {1u, 2u, 5u})
      for (int64_t m : {1, 4, 131})
        check(m, 150, 1000, rhs, DataType::f32, threads, true);
    check(3, 150, 1000, rhs, DataType::bf16, 2, true);
    check(20, 150, 1000, rhs, DataType::f16, 2, true);
  }
}

TEST(GemmQuantized, ActivationsOf8Bits) {
  for (bool withZeros : {false, true})
    for (int64_t k : {32, 96, 416}) {
      Quantized rhs(35, k, 32, 4, withZeros);
      for (int64_t m : {1, 2, 3, 4, 5, 9, 131})
        check(m, 35, k, rhs, DataType::f32, 1, m == 5, true);
    }
  // Rows that do not fit the scratch at once, and more than one thread.
  Quantized rhs(40, 4096, 32, 4, true);
  check(70, 40, 4096, rhs, DataType::f32, 3, true, true);
}

// A row whose digits do not fit the scratch.
TEST(GemmQuantized, LongRow) {
  for (int bits : {4, 8}) {
    Quantized rhs(3, 131072, 128, bits, false);
    check(1, 3, 131072, rhs, DataType::f32, 1, false);
  }
}

// Rows whose elements differ by orders of magnitude, within a block and from
// block to block: what three digits of base 256 leave out is no more than what
// fp32 does next to the largest element of a block.
TEST(GemmQuantized, RowsOfUnevenMagnitude) {
  int64_t n = 35, k = 416;
  ThreadPool pool(1);
  for (int bits : {4, 8})
    for (int64_t m : {1, 3}) {
      Quantized rhs(n, k, 32, bits, false);
      Array lhs = randomArray(DataType::f32, m * k, 1);
      float *x = static_cast<float *>(lhs.data());
      for (int64_t i = 0; i < m * k; ++i)
        x[i] *=
            std::exp2(static_cast<float>(i % 13 - 6 + i / 32 % 5 * 20 - 40));
      Array out(DataType::f32, m * n);
      MatmulArguments g;
      g.m = m;
      g.n = g.ldc = n;
      g.k = g.lda = k;
      g.rhsType = DataType::u8;
      g.lhs = lhs.data();
      g.rhs = rhs.data.data();
      g.scales = rhs.scales.data();
      g.block = 32;
      g.bits = bits;
      g.out = out.data();
      Memory scratch(gemmScratchBytes());
      gemm(g, pool, scratch.data(), gemmScratchBytes());
      double top = bits == 4 ? 16 : 256;
      for (int64_t i = 0; i < m; ++i)
        for (int64_t j = 0; j < n; ++j) {
          double sum = 0, allowed = 0;
          for (int64_t b = 0; b < k; b += 32) {
            double largest = 0;
            for (int64_t l = b; l < b + 32; ++l) {
              sum += x[i * k + l] * rhs.values[j * k + l];
              largest = std::max(largest, std::abs(double(x[i * k + l])));
            }
            allowed += 32 * largest * top * rhs.scales[(j * k + b) / 32];
          }
          EXPECT_NEAR(out[i * n + j], sum, 0x1p-22 * allowed)
              << "row " << i << " column " << j;
        }
    }
}

// A block of zeros is zero, and what is no number stays none.
TEST(GemmQuantized, ZerosAndNaN) {
  int64_t n = 20, k = 96;
  ThreadPool pool(1);
  Quantized rhs(n, k, 32, 4, true);
  for (bool int8 : {false, true})
    for (int64_t m : {1, 5})
      for (float odd : {0.0f, std::nanf(""), HUGE_VALF}) {
        std::vector<float> x(m * k), out(m * n);
        x[(m - 1) * k + 40] = odd;
        MatmulArguments g;
        g.m = m;
        g.n = g.ldc = n;
        g.k = g.lda = k;
        g.rhsType = DataType::u8;
        g.lhs = x.data();
        g.rhs = rhs.data.data();
        g.scales = rhs.scales.data();
        g.zeroPoints = rhs.zeros.data();
        g.block = 32;
        g.bits = 4;
        g.int8 = int8;
        g.out = out.data();
        Memory scratch(gemmScratchBytes());
        gemm(g, pool, scratch.data(), gemmScratchBytes());
        for (int64_t i = 0; i < m * n; ++i)
          if (i >= (m - 1) * n && odd != 0.0f)
            EXPECT_FALSE(std::isfinite(out[i])) << m << " rows, " << i;
          else
            EXPECT_EQ(out[i], 0.0f) << m << " rows, " << i;
      }
}

TEST(GemmQuantized, RefusesOtherForms) {
  MatmulArguments g;
  float scale = 1;
  g.scales = &scale;
  g.rhsType = DataType::u8;
  g.block = 32;
  g.bits = 4;
  EXPECT_TRUE(checkGemm(g).ok());
  g.bits = 2;
  EXPECT_EQ(checkGemm(g).message(),
            "a matmul of 2 bits in blocks of 32 is not supported on the CPU (4 "
            "and 8 bits in u8 are, in blocks of a multiple of 16)");
  g.bits = 8;
  g.block = 24;
  EXPECT_FALSE(checkGemm(g).ok());
}

// From 32 MiB on results go past the caches.
TEST(Gemm, LargeResult) {
  int64_t m = 65, n = 131072;
  ThreadPool pool(2);
  Array lhs = randomArray(DataType::f32, m, 1);
  Array rhs = randomArray(DataType::f32, n, 2);
  Memory panels(packedBytes(1, n, DataType::f32)), out(4 * m * n);
  packRhs(rhs.data(), DataType::f32, n, 1, n, 0, panels.data(), DataType::f32,
          pool);
  GemmArguments g;
  g.m = m;
  g.n = g.ldc = n;
  g.k = g.lda = 1;
  g.packed = true;
  g.lhs = lhs.data();
  g.rhs = panels.data();
  g.out = out.data();
  Memory scratch(gemmScratchBytes() * 2);
  gemm(g, pool, scratch.data(), gemmScratchBytes());
  const float *a = static_cast<const float *>(lhs.data());
  const float *b = static_cast<const float *>(rhs.data());
  const float *got = static_cast<const float *>(out.data());
  int64_t wrong = 0;
  for (int64_t i = 0; i < m; ++i)
    for (int64_t j = 0; j < n; ++j)
      wrong += got[i * n + j] != a[i] * b[j];
  EXPECT_EQ(wrong, 0);
}
