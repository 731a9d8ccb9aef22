//===- Memory.h - Where buffers of a program lie ----------------*- C++ -*-===//
//
// Internal to DShardToPlan.
//
//===----------------------------------------------------------------------===//
#ifndef DSHARD_LIB_CONVERSION_DSHARDTOPLAN_MEMORY_H
#define DSHARD_LIB_CONVERSION_DSHARDTOPLAN_MEMORY_H

#include "mlir/Support/LLVM.h"

#include <cstdint>
#include <vector>

namespace mlir::dshard {

/// Bytes that are needed from instruction `begin` to instruction `end`, both
/// inclusive.
struct Lifetime {
  int64_t size = 0;
  int64_t begin = 0, end = 0;
  int64_t offset = 0; ///< decided by layOut
};

/// Gives every lifetime an offset, a multiple of `alignment`, such that no two
/// that overlap in time overlap in space. Largest first, each into the smallest
/// gap that holds it. Returns the size of the arena.
///
/// Example: sizes 64, 64, 128 alive at [0,1], [1,2], [2,3]: offsets 0, 64 and,
/// for the largest, which is placed first, 0: arena 128 or 192 by the overlap.
int64_t layOut(std::vector<Lifetime> &lifetimes, int64_t alignment = 64);

} // namespace mlir::dshard

#endif // DSHARD_LIB_CONVERSION_DSHARDTOPLAN_MEMORY_H
