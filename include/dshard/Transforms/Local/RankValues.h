//===- RankValues.h - Numbers that only depend on the rank ------*- C++ -*-===//
//
// Which branch of a `dshard.if` a rank takes, and where its queries begin, is
// computed from `dshard.rank_index` and constants alone. No kernel computes
// such a number: conversion evaluates it for every rank, as a table of the
// plan.
//
//===----------------------------------------------------------------------===//
#ifndef DSHARD_TRANSFORMS_LOCAL_RANKVALUES_H
#define DSHARD_TRANSFORMS_LOCAL_RANKVALUES_H

#include "dshard/Dialect/DShard/IR/DShardOps.h"

namespace mlir::dshard {

/// The op's only result is one number that is used as the condition of a
/// `dshard.if`, as the query_offset of an attention (also of one that is a
/// library call already), or by another such op; and it comes from ranks and
/// constants. Neither formed into kernels nor given a buffer.
bool isRankValue(Operation *op);

/// The value of such a number on each rank of the mesh; failure without a
/// diagnostic if it depends on anything else.
FailureOr<SmallVector<double>> evaluateRankValue(Value value, MeshAttr mesh);

} // namespace mlir::dshard

#endif // DSHARD_TRANSFORMS_LOCAL_RANKVALUES_H
