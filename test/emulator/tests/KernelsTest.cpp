//===- KernelsTest.cpp - Kernels of nvcc against host code ----------------===//
#include "tests/Api.h"

#include "dshard/Support/Half.h"

#include <chrono>
#include <cmath>
#include <cstdio>

namespace dshard::emulator {
namespace {

std::vector<float> numbers(size_t count, uint32_t seed) {
  std::vector<float> values(count);
  for (float &value : values) {
    seed = seed * 1664525u + 1013904223u;
    value = static_cast<float>(seed >> 8) / static_cast<float>(1 << 24) * 2 - 1;
  }
  return values;
}

class Kernels : public EmulatorTest {};

TEST_F(Kernels, softmaxEqualsHost) {
  const int rows = 5, n = 300;
  std::vector<float> x = numbers(rows * n, 1);
  uint64_t dx = upload(x), dy = allocate(x.size() * 4);
  ASSERT_EQ(launch(kernel(samples(), "softmax"), rows, 128, nullptr, dx, dy, n),
            0);
  std::vector<float> y = download<float>(dy, x.size());
  ASSERT_EQ(fault(), "");
  for (int row = 0; row < rows; ++row) {
    double sum = 0;
    for (int i = 0; i < n; ++i)
      sum += std::exp(double(x[row * n + i]));
    for (int i = 0; i < n; ++i)
      EXPECT_NEAR(y[row * n + i], std::exp(double(x[row * n + i])) / sum,
                  1e-6 / n);
  }
}

TEST_F(Kernels, matmulEqualsHost) {
  const int n = 64;
  std::vector<float> a = numbers(n * n, 2), b = numbers(n * n, 3);
  uint64_t da = upload(a), db = upload(b), dc = allocate(a.size() * 4);
  int size = n;
  void *arguments[] = {&da, &db, &dc, &size};
  ASSERT_EQ(cuLaunchKernel(kernel(samples(), "matmul"), n / 16, n / 16, 1, 16,
                           16, 1, 0, nullptr, arguments, nullptr),
            0);
  std::vector<float> c = download<float>(dc, a.size());
  ASSERT_EQ(fault(), "");
  for (int i = 0; i < n; ++i)
    for (int j = 0; j < n; ++j) {
      double sum = 0;
      for (int k = 0; k < n; ++k)
        sum += double(a[i * n + k]) * b[k * n + j];
      EXPECT_NEAR(c[i * n + j], sum, 1e-5);
    }
}

TEST_F(Kernels, geluOfBfloat16EqualsHost) {
  const int n = 8 * 100; // threads beyond 100 do nothing
  std::vector<float> x = numbers(n, 4);
  std::vector<uint16_t> bits;
  for (float &value : x) {
    bits.push_back(bfloat16FromFloat(3 * value));
    value = floatFromBFloat16(bits.back());
  }
  uint64_t dx = upload(bits), dy = allocate(n * 2);
  ASSERT_EQ(launch(kernel(samples(), "gelu"), 1, 128, nullptr, dx, dy, n), 0);
  std::vector<uint16_t> y = download<uint16_t>(dy, n);
  ASSERT_EQ(fault(), "");
  for (int i = 0; i < n; ++i) {
    double f = x[i];
    double gelu =
        0.5 * f * (1 + std::tanh(0.79788456 * (f + 0.044715 * f * f * f)));
    EXPECT_NEAR(floatFromBFloat16(y[i]), gelu, std::fabs(gelu) / 200 + 1e-6);
  }
}

TEST_F(Kernels, histogramCounts) {
  const int n = 1000;
  std::vector<int> x;
  std::vector<int> expected(64);
  for (int i = 0; i < n; ++i) {
    x.push_back((i * 7919) % 1009);
    ++expected[static_cast<size_t>(x.back() % 64)];
  }
  uint64_t dx = upload(x), bins = allocate(64 * 4);
  int count = n;
  void *arguments[] = {&dx, &bins, &count};
  ASSERT_EQ(cuLaunchKernel(kernel(samples(), "histogram"), 8, 1, 1, 128, 1, 1,
                           256, nullptr, arguments, nullptr),
            0);
  EXPECT_EQ(download<int>(bins, 64), expected);
  EXPECT_EQ(fault(), "");
}

TEST_F(Kernels, miscEqualsHost) {
  const int n = 3;
  std::vector<uint16_t> h;
  std::vector<long long> l;
  for (int i = 0; i < 32 * 8; ++i)
    h.push_back(halfFromFloat(0.25f + static_cast<float>(i) / 64));
  for (int i = 0; i < 32; ++i)
    l.push_back(1000000007ll * (i - 16));
  uint64_t dh = upload(h), dl = upload(l);
  uint64_t dd = allocate(32 * 8), output = allocate(32 * 4);
  ASSERT_EQ(
      launch(kernel(samples(), "misc"), 1, 32, nullptr, dh, dd, dl, output, n),
      0);
  std::vector<double> d = download<double>(dd, 32);
  std::vector<float> o = download<float>(output, 32);
  ASSERT_EQ(fault(), "");
  for (int i = 0; i < 32; ++i) {
    double a = floatFromHalf(h[static_cast<size_t>(i * 8 + n)]);
    EXPECT_DOUBLE_EQ(
        d[static_cast<size_t>(i)],
        std::sqrt(a) +
            static_cast<double>(l[static_cast<size_t>(i)] / (n + 1)) +
            static_cast<double>(l[static_cast<size_t>(i)] % 7));
    double expected = std::sin(a) + std::erf(a) + 1 / std::sqrt(a) +
                      std::pow(a, 1.5) + a / 3 + std::exp(a) +
                      __builtin_popcount(static_cast<unsigned>(i)) +
                      (i ? __builtin_clz(static_cast<unsigned>(i)) : 32) +
                      4294967295.0 + i / n + i % n;
    EXPECT_NEAR(o[static_cast<size_t>(i)], expected, 600); // ulp at 2^32: 512
  }
}

TEST_F(Kernels, tensorCoreProductEqualsHost) {
  std::vector<uint16_t> a, b;
  for (float value : numbers(256, 5))
    a.push_back(bfloat16FromFloat(value));
  for (float value : numbers(128, 6))
    b.push_back(bfloat16FromFloat(value));
  uint64_t da = upload(a), db = upload(b), dd = allocate(128 * 4);
  ASSERT_EQ(launch(kernel(samples(), "tensor"), 1, 32, nullptr, da, db, dd), 0);
  std::vector<float> d = download<float>(dd, 128);
  ASSERT_EQ(fault(), "");
  for (size_t i = 0; i < 16; ++i)
    for (size_t j = 0; j < 8; ++j) {
      double sum = 0;
      for (size_t k = 0; k < 16; ++k)
        sum += double(floatFromBFloat16(a[i * 16 + k])) *
               floatFromBFloat16(b[j * 16 + k]);
      EXPECT_NEAR(d[i * 8 + j], sum, 1e-5);
    }
}

// Not a check of a number that the machine decides: prints it, and fails only
// when something is an order of magnitude off.
TEST_F(Kernels, speed) {
  const int n = 128;
  std::vector<float> a = numbers(n * n, 2);
  uint64_t da = upload(a), db = upload(a), dc = allocate(a.size() * 4);
  void *function = kernel(samples(), "matmul");
  int size = n;
  void *arguments[] = {&da, &db, &dc, &size};
  double best = 1e9;
  for (int repeat = 0; repeat < 3; ++repeat) {
    auto begin = std::chrono::steady_clock::now();
    ASSERT_EQ(cuLaunchKernel(function, n / 16, n / 16, 1, 16, 16, 1, 0, nullptr,
                             arguments, nullptr),
              0);
    ASSERT_EQ(cuCtxSynchronize(), 0);
    best = std::min(best, std::chrono::duration<double>(
                              std::chrono::steady_clock::now() - begin)
                              .count());
  }
  std::printf("matmul 128: %.1f ms\n", best * 1e3);
  EXPECT_LT(best, 1.0);
}

} // namespace
} // namespace dshard::emulator
