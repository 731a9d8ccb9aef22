//===- Distribute.h - Global values to ranks and back -----------*- C++ -*-===//
//
// The reference's own scatter and gather, by the attributes `dshard.global` and
// `dshard.sharding` of an SPMD function's arguments and results. They share no
// code with the loader or the runtime: that is what makes them a check.
//
//===----------------------------------------------------------------------===//
#ifndef DSHARD_REFERENCE_DISTRIBUTE_H
#define DSHARD_REFERENCE_DISTRIBUTE_H

#include "dshard/Dialect/DShard/IR/DShardOps.h"
#include <memory>

namespace mlir::dshard {

using SharedTensor = std::shared_ptr<const HostTensor>;
/// One value, by rank. Ranks that surely hold the same one share it.
using RankTensor = SmallVector<SharedTensor>;

using EmitError = llvm::function_ref<InFlightDiagnostic()>;

/// The box of `sizes` at `offsets`.
HostTensor extractBox(const HostTensor &tensor, ArrayRef<int64_t> offsets,
                      RankedTensorType type);
/// Writes `box` into `tensor` at `offsets`.
void insertBox(HostTensor &tensor, const HostTensor &box,
               ArrayRef<int64_t> offsets);

/// A global argument in the order in which it lies inside its function, or,
/// with `inverse`, a result in the natural one (`dshard.layout` among its
/// attributes). Without such an order, or a mesh, as it is.
HostTensor reorderAtBoundary(const HostTensor &tensor,
                             DictionaryAttr attributes, MeshAttr mesh,
                             bool inverse);

/// Largest |a - b| of two tensors of one shape; infinity if just one is NaN or
/// infinities differ.
double getLargestDifference(const HostTensor &a, const HostTensor &b);
/// Largest finite |x|.
double getLargestMagnitude(const HostTensor &tensor);

/// What each rank holds of `global`. A partial value lies on the first member
/// of each group, and the identity of the reduction on the others (max, min and
/// mean: the value on all). Fails if a dim does not divide.
FailureOr<RankTensor> scatter(const HostTensor &global, ShardingAttr sharding,
                              MeshAttr mesh, EmitError emitError);

/// The global value: partial ones are reduced in rank order, replicas must be
/// equal (NaN equals NaN). The error names two ranks and the largest
/// difference.
FailureOr<HostTensor> gather(const RankTensor &local, RankedTensorType global,
                             ShardingAttr sharding, MeshAttr mesh,
                             EmitError emitError);

} // namespace mlir::dshard

#endif // DSHARD_REFERENCE_DISTRIBUTE_H
