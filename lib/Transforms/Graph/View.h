//===- View.h - Chains of ops that only move elements -----------*- C++ -*-===//
//
// A view says where each element of a value lies in the value that it was made
// from by reshapes, transposes and broadcasts: per dim a list of (size,
// stride), major to minor, strides in elements of the source, 0 where it
// repeats.
//
//   %k [B,2,T,D] -> reshape [B,2,1,T,D] -> broadcast_to [B,2,4,T,D]
//     -> reshape [B,8,T,D]   is   [(B,2TD)], [(2,TD), (4,0)], [(T,D)], [(D,1)]
//
//===----------------------------------------------------------------------===//
#ifndef DSHARD_LIB_TRANSFORMS_GRAPH_VIEW_H
#define DSHARD_LIB_TRANSFORMS_GRAPH_VIEW_H

#include "mlir/IR/Value.h"
#include "mlir/Support/LLVM.h"
#include "llvm/ADT/SmallVector.h"
#include <optional>

namespace mlir::dshard {

struct ViewFactor {
  int64_t size, stride;
  bool operator==(const ViewFactor &other) const {
    return size == other.size && stride == other.stride;
  }
};

struct View {
  llvm::SmallVector<llvm::SmallVector<ViewFactor, 2>> dims;

  /// A dense tensor of that shape.
  static View dense(ArrayRef<int64_t> shape);
  /// The view after `op` (reshape, transpose or broadcast_to); nothing if a
  /// reshape cuts across factors.
  std::optional<View> after(Operation *op) const;
  /// Factors of size 1 dropped, factors that continue each other joined.
  View normalized() const;
  bool operator==(const View &other) const { return dims == other.dims; }
};

/// The value that `value` is a view of, as far back as there are views, where
/// `accept(source, view)` holds; the farthest one, and null if none. Scalar
/// factors on the way are multiplied into `scale` if it is given.
Value findSource(Value value, double *scale,
                 llvm::function_ref<bool(Value, const View &)> accept);

} // namespace mlir::dshard

#endif // DSHARD_LIB_TRANSFORMS_GRAPH_VIEW_H
