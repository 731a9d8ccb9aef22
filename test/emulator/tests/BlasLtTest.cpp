//===- BlasLtTest.cpp - cublasLtMatmul against plain sums -----------------===//
#include "tests/Api.h"

#include "dshard/Support/Half.h"

#include <cmath>

namespace dshard::emulator {
namespace {

class BlasLt : public EmulatorTest {
protected:
  struct Case {
    uint64_t m = 5, n = 7, k = 9;
    int transA = 0, transB = 0, epilogue = 1, batch = 1, type = 0;
    float alpha = 1, beta = 0;
  };
  static float value(size_t i) {
    return static_cast<float>((i * 37) % 23) / 8 - 1.25f;
  }
  std::vector<float> fill(size_t count, size_t start) {
    std::vector<float> values;
    for (size_t i = 0; i < count; ++i)
      values.push_back(value(start + i));
    return values;
  }
  uint64_t up(const std::vector<float> &values, int type) {
    if (type == blasF32)
      return upload(values);
    std::vector<uint16_t> bits;
    for (float v : values)
      bits.push_back(type == blasF16 ? halfFromFloat(v) : bfloat16FromFloat(v));
    return upload(bits);
  }
  void *layout(const Case &c, uint64_t rows, uint64_t columns) {
    void *made = nullptr;
    cublasLtMatrixLayoutCreate(&made, c.type, rows, columns,
                               static_cast<int64_t>(rows));
    int64_t stride = static_cast<int64_t>(rows * columns);
    cublasLtMatrixLayoutSetAttribute(made, 5, &c.batch, 4);
    cublasLtMatrixLayoutSetAttribute(made, 6, &stride, 8);
    return made;
  }
  void check(const Case &c, size_t shortBy = 0) {
    size_t batch = static_cast<size_t>(c.batch);
    std::vector<float> a = fill(c.m * c.k * batch, 0),
                       b = fill(c.k * c.n * batch, 5);
    std::vector<float> d = fill(c.m * c.n * batch, 11), bias = fill(c.m, 3);
    uint64_t da = up(a, c.type), db = up(b, c.type), dbias = up(bias, c.type);
    std::vector<float> shorter(d.begin(), d.end() - static_cast<long>(shortBy));
    uint64_t dd = up(shorter, c.type);
    void *desc = nullptr;
    cublasLtMatmulDescCreate(&desc, 68, 0);
    cublasLtMatmulDescSetAttribute(desc, 3, &c.transA, 4);
    cublasLtMatmulDescSetAttribute(desc, 4, &c.transB, 4);
    cublasLtMatmulDescSetAttribute(desc, 7, &c.epilogue, 4);
    cublasLtMatmulDescSetAttribute(desc, 8, &dbias, 8);
    void *la = c.transA ? layout(c, c.k, c.m) : layout(c, c.m, c.k);
    void *lb = c.transB ? layout(c, c.n, c.k) : layout(c, c.k, c.n);
    void *ld = layout(c, c.m, c.n), *preference = nullptr;
    cublasLtMatmulPreferenceCreate(&preference);
    BlasHeuristic heuristic;
    int found = 0;
    ASSERT_EQ(cublasLtMatmulAlgoGetHeuristic(nullptr, desc, la, lb, ld, ld,
                                             preference, 1, &heuristic, &found),
              0);
    ASSERT_EQ(found, 1);
    auto pointer = [](uint64_t p) { return reinterpret_cast<void *>(p); };
    int status = cublasLtMatmul(
        nullptr, desc, &c.alpha, pointer(da), la, pointer(db), lb, &c.beta,
        pointer(dd), ld, pointer(dd), ld, &heuristic.algo, nullptr, 0, nullptr);
    ASSERT_EQ(status, shortBy ? blasInvalidValue : blasSuccess) << fault();
    if (shortBy)
      return;
    std::vector<float> got;
    if (c.type == blasF32) {
      got = download<float>(dd, d.size());
    } else {
      for (uint16_t v : download<uint16_t>(dd, d.size()))
        got.push_back(c.type == blasF16 ? floatFromHalf(v)
                                        : floatFromBFloat16(v));
    }
    double tolerance = c.type == blasF32   ? 1e-6
                       : c.type == blasF16 ? 1e-3
                                           : 8e-3;
    for (size_t s = 0; s < batch; ++s)
      for (size_t j = 0; j < c.n; ++j)
        for (size_t i = 0; i < c.m; ++i) {
          double sum = 0;
          for (size_t l = 0; l < c.k; ++l)
            sum +=
                double(
                    a[s * c.m * c.k + (c.transA ? i * c.k + l : l * c.m + i)]) *
                b[s * c.k * c.n + (c.transB ? l * c.n + j : j * c.k + l)];
          size_t at = s * c.m * c.n + j * c.m + i;
          sum = c.alpha * sum + c.beta * d[at];
          if (c.epilogue & 4)
            sum += bias[i];
          if (c.epilogue & 2)
            sum = std::max(sum, 0.0);
          if (c.epilogue & 32)
            sum = 0.5 * sum *
                  (1 + std::tanh(0.7978845608 *
                                 (sum + 0.044715 * sum * sum * sum)));
          EXPECT_NEAR(got[at], sum, tolerance * (1 + std::fabs(sum) * 4));
        }
  }
};

TEST_F(BlasLt, transposes) {
  for (int form = 0; form < 4; ++form) {
    Case c;
    c.transA = form & 1;
    c.transB = form >> 1;
    check(c);
  }
}
TEST_F(BlasLt, epilogues) {
  for (int epilogue : {1, 2, 4, 6, 32, 36}) {
    Case c;
    c.epilogue = epilogue;
    check(c);
  }
}
TEST_F(BlasLt, batchesAndScalars) {
  Case c;
  c.batch = 3;
  c.alpha = 0.5f;
  c.beta = 2;
  check(c);
}
TEST_F(BlasLt, halfTypes) {
  Case c;
  c.type = blasF16;
  check(c);
  c.type = blasBF16;
  check(c);
}
TEST_F(BlasLt, shortBuffer) {
  Case c;
  check(c, 4);
  EXPECT_PRED_FORMAT2(::testing::IsSubstring, "out of bounds", fault());
}

} // namespace
} // namespace dshard::emulator
