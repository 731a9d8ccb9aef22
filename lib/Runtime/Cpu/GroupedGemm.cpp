//===- GroupedGemm.cpp - Products with the matrix of each row's group -----===//

#include "dshard/Runtime/Cpu/GroupedGemm.h"
#include "dshard/Runtime/Cpu/Convert.h"
#include "dshard/Runtime/Cpu/ThreadPool.h"

#include <algorithm>
#include <climits>
#include <cstring>

using namespace dshard;
using namespace dshard::cpu;
using plan::DataType;

static int64_t groupAt(const GroupedArguments &g, int64_t i) {
  switch (g.groupsType) {
  case DataType::i64:
  case DataType::u64:
    return static_cast<const int64_t *>(g.groups)[i];
  case DataType::i32:
    return static_cast<const int32_t *>(g.groups)[i];
  case DataType::u32:
    return static_cast<const uint32_t *>(g.groups)[i];
  case DataType::i16:
    return static_cast<const int16_t *>(g.groups)[i];
  case DataType::u16:
    return static_cast<const uint16_t *>(g.groups)[i];
  case DataType::i8:
    return static_cast<const int8_t *>(g.groups)[i];
  default:
    return static_cast<const uint8_t *>(g.groups)[i];
  }
}

static uint64_t neededBytes(const GroupedArguments &g) {
  uint64_t left = g.isGradient ? g.m : g.k;
  DataType right = g.isGradient ? g.rhsType : g.outType;
  return groupedWorkspaceBytes(g.count, g.rows, left * elementBytes(g.lhsType),
                               g.n * elementBytes(right));
}

Status cpu::checkGrouped(const GroupedArguments &g) {
  for (DataType type : {g.lhsType, g.rhsType, g.outType})
    if (!isGemmType(type))
      return Status::error(std::string("grouped products are of f32, bf16 and "
                                       "f16, not of ") +
                           plan::toString(type));
  if (!plan::isInteger(g.groupsType) || g.groupsType == DataType::boolean)
    return Status::error(std::string("groups are ") +
                         plan::toString(g.groupsType) + ", expected integers");
  if (g.rows > INT32_MAX || g.count > INT32_MAX - 2)
    return Status::error(std::to_string(g.rows) + " rows of " +
                         std::to_string(g.count) +
                         " groups, at most 2^31 are supported");
  if (neededBytes(g) > g.workspaceBytes)
    return Status::error(
        "needs a workspace of " + std::to_string(neededBytes(g)) +
        " bytes, the plan has " + std::to_string(g.workspaceBytes));
  return Status();
}

namespace {
/// The rows by group. Group `count` holds those of other ranks.
class Sorted {
public:
  explicit Sorted(const GroupedArguments &g) : g(g) {
    char *at = static_cast<char *>(g.workspace);
    order = reinterpret_cast<int32_t *>(at);
    at += (4 * g.rows + 63) / 64 * 64;
    begin = reinterpret_cast<int32_t *>(at);
    space = at + (4 * (g.count + 2) + 63) / 64 * 64;
    std::memset(begin, 0, 4 * (g.count + 2));
    for (int64_t i = 0; i < g.rows; ++i)
      ++begin[groupOf(i) + 1];
    for (int64_t e = 0; e <= g.count; ++e)
      begin[e + 1] += begin[e];
    // Filling moves every begin to its group's end, which is the next begin.
    for (int64_t i = 0; i < g.rows; ++i)
      order[begin[groupOf(i)]++] = static_cast<int32_t>(i);
    for (int64_t e = g.count + 1; e > 0; --e)
      begin[e] = begin[e - 1];
    begin[0] = 0;
  }

  int64_t first(int64_t group) const { return begin[group]; }
  int64_t size(int64_t group) const { return begin[group + 1] - begin[group]; }
  int64_t row(int64_t place) const { return order[place]; }
  /// Its rows follow each other where they are.
  bool isRun(int64_t group) const {
    // The order is stable: rows of a group ascend.
    int64_t last = begin[group + 1] - 1;
    return order[last] - order[begin[group]] == size(group) - 1;
  }
  /// Behind the tables.
  char *space = nullptr;

private:
  int64_t groupOf(int64_t i) const {
    int64_t group = groupAt(g, i) - g.first;
    return group >= 0 && group < g.count ? group : g.count;
  }

  const GroupedArguments &g;
  int32_t *order = nullptr, *begin = nullptr;
};
} // namespace

/// Rows that a worker copies at least.
static int64_t rowGrain(int64_t bytes) {
  return std::max<int64_t>(1, (1 << 15) / std::max<int64_t>(1, bytes));
}

/// The rows of a group, one behind the other: where they are, or in `to`.
static const char *gatherRows(const Sorted &sorted, int64_t group,
                              const void *rows, int64_t bytes, char *to,
                              ThreadPool &pool) {
  auto from = static_cast<const char *>(rows);
  int64_t first = sorted.first(group);
  if (sorted.isRun(group))
    return from + sorted.row(first) * bytes;
  to += first * bytes;
  pool.parallelFor(sorted.size(group), rowGrain(bytes),
                   [&](int64_t begin, int64_t end, unsigned) {
                     for (int64_t i = begin; i < end; ++i)
                       std::memcpy(to + i * bytes,
                                   from + sorted.row(first + i) * bytes, bytes);
                   });
  return to;
}

static void multiply(const GroupedArguments &g, ThreadPool &pool, void *scratch,
                     uint64_t scratchStride) {
  Sorted sorted(g);
  int64_t lhsBytes = g.k * elementBytes(g.lhsType),
          outBytes = g.n * elementBytes(g.outType);
  auto out = static_cast<char *>(g.out);
  char *results = sorted.space + (g.rows * lhsBytes + 63) / 64 * 64;
  int64_t matrixBytes =
      g.packed ? static_cast<int64_t>(packedBytes(g.k, g.n, g.rhsType))
               : g.k * g.n * static_cast<int64_t>(elementBytes(g.rhsType));
  for (int64_t e = 0; e < g.count; ++e) {
    int64_t rows = sorted.size(e), first = sorted.first(e);
    if (rows == 0)
      continue;
    bool isRun = sorted.isRun(e);
    GemmArguments part;
    part.m = rows;
    part.n = g.n;
    part.k = g.k;
    part.lda = g.k;
    part.ldc = g.n;
    part.ldb = g.packed ? 0 : g.transposeRhs ? g.k : g.n;
    part.transposeRhs = !g.packed && g.transposeRhs;
    part.packed = g.packed;
    part.lhsType = g.lhsType;
    part.rhsType = g.rhsType;
    part.outType = g.outType;
    part.lhs = gatherRows(sorted, e, g.lhs, lhsBytes, sorted.space, pool);
    part.rhs = static_cast<const char *>(g.rhs) + e * matrixBytes;
    part.out =
        isRun ? out + sorted.row(first) * outBytes : results + first * outBytes;
    gemm(part, pool, scratch, scratchStride);
    if (!isRun)
      pool.parallelFor(rows, rowGrain(outBytes),
                       [&](int64_t begin, int64_t end, unsigned) {
                         for (int64_t i = first + begin; i < first + end; ++i)
                           std::memcpy(out + sorted.row(i) * outBytes,
                                       results + i * outBytes, outBytes);
                       });
  }
  // All floating-point types have zero as zero bytes.
  for (int64_t i = sorted.first(g.count); i < g.rows; ++i)
    std::memset(out + sorted.row(i) * outBytes, 0, outBytes);
}

static void contract(const GroupedArguments &g, ThreadPool &pool, void *scratch,
                     uint64_t scratchStride) {
  Sorted sorted(g);
  int64_t lhsBytes = g.m * elementBytes(g.lhsType),
          rhsBytes = g.n * elementBytes(g.rhsType),
          outBytes = g.m * g.n * elementBytes(g.outType);
  char *right = sorted.space + (g.rows * lhsBytes + 63) / 64 * 64;
  for (int64_t e = 0; e < g.count; ++e) {
    char *out = static_cast<char *>(g.out) + e * outBytes;
    int64_t rows = sorted.size(e);
    if (rows == 0) {
      std::memset(out, 0, outBytes);
      continue;
    }
    GemmArguments part;
    part.m = g.m;
    part.n = g.n;
    part.k = rows;
    part.lda = g.m;
    part.ldb = part.ldc = g.n;
    part.transposeLhs = true;
    part.lhsType = g.lhsType;
    part.rhsType = g.rhsType;
    part.outType = g.outType;
    part.lhs = gatherRows(sorted, e, g.lhs, lhsBytes, sorted.space, pool);
    part.rhs = gatherRows(sorted, e, g.rhs, rhsBytes, right, pool);
    part.out = out;
    gemm(part, pool, scratch, scratchStride);
  }
}

void cpu::groupedGemm(const GroupedArguments &g, ThreadPool &pool,
                      void *scratch, uint64_t scratchStride) {
  if (g.rows <= 0 && !g.isGradient)
    return;
  (g.isGradient ? contract : multiply)(g, pool, scratch, scratchStride);
}
