// Products against double loops: odd sizes, all types, packed and dynamic
// operands, transposes, epilogues, batches, and any number of threads.

#include "dshard/Runtime/Cpu/Gemm.h"
#include "TestTensors.h"
#include "dshard/Runtime/Cpu/ThreadPool.h"

#include <gtest/gtest.h>

using namespace dshard;
using namespace dshard::cpu;
using namespace dshard::test;
using plan::Activation;
using plan::DataType;

namespace {

double activate(double x, Activation activation) {
  switch (activation) {
  case Activation::relu:
    return x < 0 ? 0 : x;
  case Activation::geluErf:
    return 0.5 * x * (1 + std::erf(x / std::sqrt(2.0)));
  case Activation::geluTanh:
    return 0.5 * x *
           (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
  case Activation::silu:
    return x / (1 + std::exp(-x));
  default:
    return x;
  }
}

struct Case {
  int64_t m, n, k;
  DataType lhs = DataType::f32, rhs = DataType::f32, out = DataType::f32;
  bool packed = false, transposeLhs = false, transposeRhs = false;
  bool bias = false, residual = false;
  Activation activation = Activation::none;
  int64_t batch = 1;
  unsigned threads = 1;
  bool padded = false; // rows further apart than they are long
};

std::vector<uint8_t> scratchFor(const ThreadPool &pool) {
  return std::vector<uint8_t>(gemmScratchBytes() * pool.size() + 64);
}
void *align(std::vector<uint8_t> &bytes) {
  return reinterpret_cast<void *>(
      (reinterpret_cast<uintptr_t>(bytes.data()) + 63) / 64 * 64);
}

void check(const Case &c) {
  SCOPED_TRACE("m=" + std::to_string(c.m) + " n=" + std::to_string(c.n) +
               " k=" + std::to_string(c.k) +
               " packed=" + std::to_string(c.packed) +
               " threads=" + std::to_string(c.threads) + " lhs " +
               plan::toString(c.lhs) + " rhs " + plan::toString(c.rhs) +
               " out " + plan::toString(c.out) + " activation " +
               std::to_string(int(c.activation)));
  ThreadPool pool(c.threads);
  int64_t extra = c.padded ? 5 : 0;
  GemmArguments g;
  g.batch = c.batch;
  g.m = c.m;
  g.n = c.n;
  g.k = c.k;
  g.lda = (c.transposeLhs ? c.m : c.k) + extra;
  g.ldb = (c.transposeRhs ? c.k : c.n) + extra;
  g.ldc = c.n + extra;
  g.ldr = c.n + 2 * extra;
  g.strideLhs = g.lda * (c.transposeLhs ? c.k : c.m);
  g.strideRhs = c.packed ? 0 : g.ldb * (c.transposeRhs ? c.n : c.k);
  g.strideOut = g.ldc * c.m;
  g.strideResidual = g.ldr * c.m;
  g.transposeLhs = c.transposeLhs;
  g.transposeRhs = c.transposeRhs;
  g.packed = c.packed;
  g.activation = c.activation;
  g.lhsType = c.lhs;
  g.rhsType = c.rhs;
  g.outType = c.out;
  g.biasType = c.rhs;
  g.residualType = c.out;
  Array lhs = randomArray(c.lhs, g.strideLhs * c.batch, 1);
  Array rhs =
      randomArray(c.rhs, c.packed ? g.ldb * c.k : g.strideRhs * c.batch, 2);
  Array bias = randomArray(c.rhs, c.n, 3);
  Array residual = randomArray(c.out, g.strideResidual * c.batch, 4);
  Array out(c.out, g.strideOut * c.batch);
  for (int64_t i = 0; i < out.count; ++i)
    out.set(i, 77);
  std::vector<uint8_t> panels(packedBytes(c.k, c.n, c.rhs) + 64);
  g.lhs = lhs.data();
  g.rhs = rhs.data();
  if (c.packed) {
    packRhs(rhs.data(), c.rhs, g.ldb, c.k, c.n, 0, align(panels), c.rhs, pool);
    g.rhs = align(panels);
  }
  g.bias = c.bias ? bias.data() : nullptr;
  g.residual = c.residual ? residual.data() : nullptr;
  g.out = out.data();
  std::vector<uint8_t> scratch = scratchFor(pool);
  gemm(g, pool, align(scratch), gemmScratchBytes());

  double tolerance = 2e-6 * std::sqrt(double(c.k)) + epsilon(c.out);
  for (int64_t b = 0; b < c.batch; ++b)
    for (int64_t i = 0; i < c.m; ++i) {
      for (int64_t j = 0; j < c.n; ++j) {
        double sum = 0, size = 0;
        for (int64_t l = 0; l < c.k; ++l) {
          double product =
              lhs[b * g.strideLhs +
                  (c.transposeLhs ? l * g.lda + i : i * g.lda + l)] *
              rhs[(c.packed ? 0 : b * g.strideRhs) +
                  (c.transposeRhs ? j * g.ldb + l : l * g.ldb + j)];
          sum += product;
          size += std::abs(product);
        }
        sum = activate(sum + (c.bias ? bias[j] : 0), c.activation);
        if (c.residual)
          sum += residual[b * g.strideResidual + i * g.ldr + j];
        double got = out[b * g.strideOut + i * g.ldc + j];
        ASSERT_NEAR(got, sum, tolerance * (std::abs(sum) + 0.1 * size + 1))
            << "batch " << b << " row " << i << " column " << j;
      }
      for (int64_t j = c.n; j < g.ldc; ++j)
        ASSERT_EQ(out[b * g.strideOut + i * g.ldc + j], 77)
            << "wrote beyond the row";
    }
}

const DataType floats[] = {DataType::f32, DataType::bf16, DataType::f16};

} // namespace

TEST(Gemm, OddSizesPacked) {
  for (int64_t m : {1, 2, 5, 6, 7, 8, 13, 127, 128, 129, 260})
    for (int64_t n : {1, 15, 16, 17, 40})
      for (int64_t k : {1, 7, 8, 383, 384, 385})
        check({m, n, k, DataType::f32, DataType::f32, DataType::f32, true});
}

TEST(Gemm, OddSizesDynamic) {
  for (bool transpose : {false, true})
    for (int64_t m : {1, 6, 19, 130})
      for (int64_t n : {1, 16, 35})
        for (int64_t k : {1, 15, 16, 37, 400}) {
          Case c{m, n, k};
          c.transposeRhs = transpose;
          c.padded = true;
          check(c);
        }
}

TEST(Gemm, TypesOfOperandsAndResult) {
  for (DataType lhs : floats)
    for (DataType rhs : floats)
      for (DataType out : floats)
        for (bool packed : {false, true}) {
          Case c{21, 50, 70, lhs, rhs, out, packed};
          c.bias = c.residual = true;
          c.padded = true;
          check(c);
          c.m = 3;
          c.k = 391;
          check(c);
        }
}

TEST(Gemm, TransposedLhs) {
  for (DataType type : floats) {
    Case c{133, 33, 401, type};
    c.transposeLhs = c.padded = true;
    check(c);
    c.packed = true;
    check(c);
  }
}

TEST(Gemm, Epilogues) {
  for (Activation activation :
       {Activation::none, Activation::relu, Activation::geluErf,
        Activation::geluTanh, Activation::silu})
    for (int flags = 0; flags < 4; ++flags)
      for (int64_t n : {16, 21}) {
        Case c{14, n, 30, DataType::f32, DataType::f32, DataType::f32, true};
        c.bias = flags & 1;
        c.residual = flags & 2;
        c.activation = activation;
        check(c);
      }
}

TEST(Gemm, BatchesAndThreads) {
  for (unsigned threads : {1u, 2u, 3u, 7u})
    for (int64_t batch : {1, 3}) {
      // Enough for every thread to get a share (smallestShare).
      Case c{130, 70, 450, DataType::f32, DataType::f32, DataType::f32};
      c.batch = batch;
      c.threads = threads;
      c.padded = true;
      check(c);
      c.lhs = DataType::bf16;
      check(c);
      if (batch == 1)
        c.packed = true;
      c.n = 5;
      c.k = 6000;
      check(c);
      c.m = 1;
      c.n = 70;
      check(c);
    }
}

// The order of summation does not depend on how the work is split.
TEST(Gemm, SameBitsWithAnyNumberOfThreads) {
  int64_t m = 67, n = 200, k = 900;
  Array lhs = randomArray(DataType::f32, m * k, 1);
  Array rhs = randomArray(DataType::f32, k * n, 2);
  std::vector<std::vector<uint8_t>> results;
  for (unsigned threads : {1u, 2u, 5u}) {
    ThreadPool pool(threads);
    GemmArguments g;
    g.m = m;
    g.n = n;
    g.k = k;
    g.lda = k;
    g.ldb = g.ldc = n;
    Array out(DataType::f32, m * n);
    g.lhs = lhs.data();
    g.rhs = rhs.data();
    g.out = out.data();
    std::vector<uint8_t> scratch = scratchFor(pool);
    gemm(g, pool, align(scratch), gemmScratchBytes());
    results.push_back(out.bytes);
  }
  EXPECT_EQ(results[0], results[1]);
  EXPECT_EQ(results[0], results[2]);
}

// Two matrices packed side by side are one operand (query, key and value).
TEST(Gemm, PackedFromParts) {
  int64_t m = 9, k = 20, n1 = 32, n2 = 19;
  for (DataType type : floats) {
    ThreadPool pool(2);
    Array lhs = randomArray(DataType::f32, m * k, 1);
    Array left = randomArray(type, k * n1, 2);
    Array right = randomArray(type, k * n2, 3);
    std::vector<uint8_t> panels(packedBytes(k, n1 + n2, type) + 64);
    packRhs(left.data(), type, n1, k, n1, 0, align(panels), type, pool);
    packRhs(right.data(), type, n2, k, n2, n1, align(panels), type, pool);
    GemmArguments g;
    g.m = m;
    g.n = n1 + n2;
    g.k = k;
    g.lda = k;
    g.ldc = g.n;
    g.packed = true;
    g.rhsType = type;
    Array out(DataType::f32, m * g.n);
    g.lhs = lhs.data();
    g.rhs = align(panels);
    g.out = out.data();
    std::vector<uint8_t> scratch = scratchFor(pool);
    gemm(g, pool, align(scratch), gemmScratchBytes());
    for (int64_t i = 0; i < m; ++i)
      for (int64_t j = 0; j < g.n; ++j) {
        double sum = 0;
        for (int64_t l = 0; l < k; ++l)
          sum += lhs[i * k + l] *
                 (j < n1 ? left[l * n1 + j] : right[l * n2 + j - n1]);
        ASSERT_NEAR(out[i * g.n + j], sum, 1e-5);
      }
  }
}

TEST(Gemm, PackingConvertsTypes) {
  int64_t k = 5, n = 16;
  ThreadPool pool(1);
  Array in = randomArray(DataType::f32, k * n, 2);
  std::vector<uint8_t> panels(packedBytes(k, n, DataType::bf16) + 64);
  packRhs(in.data(), DataType::f32, n, k, n, 0, align(panels), DataType::bf16,
          pool);
  for (int64_t i = 0; i < k; ++i)
    for (int64_t j = 0; j < n; ++j) {
      int64_t place = i * 16 + (j % 8) * 2 + j / 8;
      EXPECT_NEAR(elementAsDouble(align(panels), DataType::bf16, place),
                  in[i * n + j], 1.0 / 256);
    }
}

TEST(Gemm, RefusesOtherTypes) {
  GemmArguments g;
  EXPECT_TRUE(checkGemm(g).ok());
  g.lhsType = DataType::f64;
  EXPECT_EQ(checkGemm(g).message(),
            "matmul lhs of type f64 is not supported on the CPU (f32, bf16 and "
            "f16 are)");
  g.lhsType = DataType::f32;
  g.outType = DataType::i32;
  EXPECT_FALSE(checkGemm(g).ok());
}

TEST(Gemm, NothingInDepthIsZeroPlusBias) {
  ThreadPool pool(1);
  GemmArguments g;
  g.m = 3;
  g.n = 4;
  g.ldc = 4;
  float bias[4] = {1, 2, 3, 4}, out[12], none = 0;
  g.lhs = g.rhs = &none;
  g.bias = bias;
  g.out = out;
  std::vector<uint8_t> scratch = scratchFor(pool);
  gemm(g, pool, align(scratch), gemmScratchBytes());
  for (int i = 0; i < 12; ++i)
    EXPECT_EQ(out[i], bias[i % 4]);
}
