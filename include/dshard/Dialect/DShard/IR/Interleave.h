//===- Interleave.h - Weights whose segments are dealt out ------*- C++ -*-===//
//
// Exporters put projections side by side into one weight: [q | k | v], or
// [gate | up]. A rank of a tensor-parallel group needs its part of each. So the
// argument holds the dim in another order than the file: part by part, each
// with its piece of every segment; for 2 parts [q0 k0 v0 | q1 k1 v1]. Even
// shards of the dim are then what the ranks need, and `load` reads it so at
// once.
//
//===----------------------------------------------------------------------===//
#ifndef DSHARD_DIALECT_DSHARD_IR_INTERLEAVE_H
#define DSHARD_DIALECT_DSHARD_IR_INTERLEAVE_H

#include "dshard/Dialect/DShard/IR/DShardAttrs.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"

namespace mlir::dshard {

/// On an argument with a weight: {dim, parts, sizes}, the dim of the argument,
/// the number of parts, and the sizes of the file's segments, each of which
/// `parts` divides. Beyond the segments (padding) nothing is moved.
inline constexpr llvm::StringLiteral interleaveAttrName = "dshard.interleave";

struct Interleave {
  int64_t dim = 0, parts = 1;
  SmallVector<int64_t> sizes;

  int64_t getTotal() const;
  /// Of the largest runs that lie side by side in file and argument alike, cut
  /// also at multiples of `extent`: they have a multiple of this many elements.
  int64_t getGrain(int64_t extent) const;
  /// Where element `index` of the argument's dim lies in the file's.
  int64_t getStored(int64_t index) const;
  DictionaryAttr getAttr(MLIRContext *context) const;
};

/// Nothing if the attribute is not well formed for a tensor of `type`.
std::optional<Interleave> parseInterleave(Attribute attribute,
                                          RankedTensorType type);
/// That of an argument, if it has one.
std::optional<Interleave> getInterleave(func::FuncOp function,
                                        unsigned argument);

} // namespace mlir::dshard

#endif // DSHARD_DIALECT_DSHARD_IR_INTERLEAVE_H
