//===- GroupedGemm.h - Products of rows by group ----------------*- C++ -*-===//
//
// Rows are sorted by group (counting, stable), brought together, multiplied
// group by group with the products of Gemm.h, and put back: the work is that of
// one product per row. Groups whose rows already follow each other are read and
// written in place. Every element is summed as gemm() does, so results do not
// depend on what other rows there are, nor on the number of threads.
//
// The workspace: the rows' order (int32 [rows]), where each group begins (int32
// [count + 2]), rows of the left operand, rows of the right one or of the
// result; each part begins at a multiple of 64 bytes.
//
//===----------------------------------------------------------------------===//
#ifndef DSHARD_RUNTIME_CPU_GROUPEDGEMM_H
#define DSHARD_RUNTIME_CPU_GROUPEDGEMM_H

#include "dshard/Runtime/Cpu/Gemm.h"

namespace dshard::cpu {

/// Bytes of the workspace, with `left` and `right` bytes per row: of lhs and
/// out (GROUPED_MATMUL), of lhs and rhs (GROUPED_WEIGHT_GRAD).
constexpr uint64_t groupedWorkspaceBytes(int64_t count, int64_t rows,
                                         uint64_t left, uint64_t right) {
  auto aligned = [](uint64_t bytes) { return (bytes + 63) / 64 * 64; };
  return aligned(4 * static_cast<uint64_t>(rows)) +
         aligned(4 * static_cast<uint64_t>(count + 2)) +
         aligned(static_cast<uint64_t>(rows) * left) +
         static_cast<uint64_t>(rows) * right;
}

/// Says why such a product cannot be computed here, or nothing: types, extents
/// and the size of the workspace.
Status checkGrouped(const GroupedArguments &arguments);

/// Either of the two. Scratch as gemm() has it.
void groupedGemm(const GroupedArguments &arguments, ThreadPool &pool,
                 void *scratch, uint64_t scratchStride);

} // namespace dshard::cpu

#endif // DSHARD_RUNTIME_CPU_GROUPEDGEMM_H
