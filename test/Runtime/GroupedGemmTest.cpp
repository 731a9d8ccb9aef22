// Products with the matrix of each row's group against double loops: any order
// of rows, groups without rows, groups of other ranks, types, packed operands.

#include "dshard/Runtime/Cpu/GroupedGemm.h"
#include "TestTensors.h"
#include "dshard/Runtime/Cpu/ThreadPool.h"

#include <gtest/gtest.h>

using namespace dshard;
using namespace dshard::cpu;
using namespace dshard::test;
using plan::DataType;

namespace {

struct Case {
  int64_t count, rows, m, n;
  DataType type = DataType::f32;
  bool gradient = false, transposed = false, packed = false;
  DataType groups = DataType::i64;
  int64_t first = 0, all = 0; // groups of all ranks; 0: count
  unsigned threads = 1;
  bool sorted = false;
};

struct Aligned {
  explicit Aligned(uint64_t bytes) : bytes(bytes + 64) {}
  std::vector<uint8_t> bytes;
  void *data() {
    return reinterpret_cast<void *>(
        (reinterpret_cast<uintptr_t>(bytes.data()) + 63) / 64 * 64);
  }
};

/// `m` is k of a product.
GroupedArguments argumentsOf(const Case &c) {
  GroupedArguments g;
  g.isGradient = c.gradient;
  g.count = c.count;
  g.rows = c.rows;
  g.n = c.n;
  (c.gradient ? g.m : g.k) = c.m;
  g.first = c.first;
  g.transposeRhs = c.transposed && !c.packed;
  g.packed = c.packed;
  g.lhsType = g.rhsType = g.outType = c.type;
  g.groupsType = c.groups;
  g.workspaceBytes = groupedWorkspaceBytes(
      c.count, c.rows, c.m * elementBytes(c.type), c.n * elementBytes(c.type));
  return g;
}

void check(const Case &c) {
  SCOPED_TRACE(
      "count=" + std::to_string(c.count) + " rows=" + std::to_string(c.rows) +
      " m=" + std::to_string(c.m) + " n=" + std::to_string(c.n) + " " +
      plan::toString(c.type) + (c.gradient ? " gradient" : "") +
      (c.transposed ? " transposed" : "") + (c.packed ? " packed" : "") +
      " threads=" + std::to_string(c.threads));
  ThreadPool pool(c.threads);
  GroupedArguments g = argumentsOf(c);
  int64_t all = c.all ? c.all : c.count;
  std::mt19937 generator(7);
  std::vector<int64_t> group(c.rows);
  for (int64_t &each : group)
    // The last group but one has no rows.
    do
      each = static_cast<int64_t>(generator() % all);
    while (all > 1 && each == all - 2);
  if (c.sorted)
    std::sort(group.begin(), group.end());
  Array groups(c.groups, c.rows), lhs = randomArray(c.type, c.rows * c.m, 1);
  for (int64_t i = 0; i < c.rows; ++i)
    groups.set(i, static_cast<double>(group[i]));
  int64_t results = c.gradient ? c.count * c.m * c.n : c.rows * c.n;
  Array rhs =
      randomArray(c.type, c.gradient ? c.rows * c.n : c.count * c.m * c.n, 2);
  Array out(c.type, results);
  for (int64_t i = 0; i < results; ++i)
    out.set(i, 77);
  auto weight = [&](int64_t e, int64_t k, int64_t j) {
    return rhs[e * c.m * c.n + (c.transposed ? j * c.m + k : k * c.n + j)];
  };
  Aligned panels(c.count * packedBytes(c.m, c.n, c.type));
  g.rhs = rhs.data();
  if (c.packed) {
    int64_t padded = (c.n + gemmPanel - 1) / gemmPanel * gemmPanel;
    for (int64_t e = 0; e < c.count; ++e)
      packRhs(rhs.bytes.data() + e * c.m * c.n * elementBytes(c.type), c.type,
              c.n, c.m, c.n, e * padded, panels.data(), c.type, pool);
    g.rhs = panels.data();
  }
  Aligned workspace(g.workspaceBytes), scratch(gemmScratchBytes() * c.threads);
  g.lhs = lhs.data();
  g.groups = groups.data();
  g.out = out.data();
  g.workspace = workspace.data();
  ASSERT_TRUE(checkGrouped(g).ok()) << checkGrouped(g).message();
  groupedGemm(g, pool, scratch.data(), gemmScratchBytes());

  std::vector<double> expected(results);
  for (int64_t i = 0; i < c.rows; ++i) {
    int64_t e = group[i] - c.first;
    if (e < 0 || e >= c.count)
      continue;
    for (int64_t k = 0; k < c.m; ++k)
      for (int64_t j = 0; j < c.n; ++j)
        if (c.gradient)
          expected[(e * c.m + k) * c.n + j] +=
              lhs[i * c.m + k] * rhs[i * c.n + j];
        else
          expected[i * c.n + j] += lhs[i * c.m + k] * weight(e, k, j);
  }
  double depth = static_cast<double>(c.gradient ? c.rows : c.m);
  double tolerance = 4 * epsilon(c.type) * std::sqrt(depth);
  for (int64_t i = 0; i < results; ++i)
    ASSERT_NEAR(out[i], expected[i], tolerance) << "element " << i;
}

} // namespace

TEST(GemmGrouped, Rows) {
  for (int64_t rows : {1, 2, 7, 64, 300})
    for (int64_t n : {1, 16, 37})
      for (bool packed : {false, true})
        for (bool transposed : {false, true})
          check({5, rows, 24, n, DataType::f32, false, transposed && !packed,
                 packed});
}

TEST(GemmGrouped, RowsInOrderAreReadInPlace) {
  Case c{4, 50, 33, 20};
  c.sorted = true;
  check(c);
}

TEST(GemmGrouped, TypesAndThreads) {
  for (DataType type : {DataType::f32, DataType::bf16, DataType::f16})
    for (DataType groups : {DataType::i64, DataType::i32, DataType::u8})
      for (bool gradient : {false, true}) {
        Case c{3, 90, 40, 33, type, gradient};
        c.groups = groups;
        c.threads = 3;
        check(c);
      }
}

TEST(GemmGrouped, OtherRanksGroups) {
  for (bool gradient : {false, true})
    for (int64_t first : {0, 2, 6}) {
      Case c{2, 60, 24, 17, DataType::f32, gradient};
      c.first = first;
      c.all = 8;
      check(c);
    }
}

TEST(GemmGrouped, Gradient) {
  for (int64_t rows : {1, 9, 200})
    for (int64_t count : {1, 6})
      check({count, rows, 19, 35, DataType::f32, true});
}

TEST(GemmGrouped, Refusals) {
  GroupedArguments g = argumentsOf({3, 8, 4, 5});
  g.groupsType = DataType::f32;
  EXPECT_EQ(checkGrouped(g).message(), "groups are f32, expected integers");
  g = argumentsOf({3, 8, 4, 5, DataType::f64});
  EXPECT_EQ(checkGrouped(g).message(),
            "grouped products are of f32, bf16 and f16, not of f64");
  g = argumentsOf({3, 8, 4, 5});
  uint64_t bytes = g.workspaceBytes--;
  EXPECT_EQ(checkGrouped(g).message(),
            "needs a workspace of " + std::to_string(bytes) +
                " bytes, the plan has " + std::to_string(bytes - 1));
}
