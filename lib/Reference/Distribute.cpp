//===- Distribute.cpp - Global values to ranks and back -------------------===//
#include "dshard/Reference/Distribute.h"
#include "dshard/Reference/Collectives.h"
#include <cmath>
#include <map>

using namespace mlir;
using namespace mlir::dshard;

/// Calls body(row of the box, position in the tensor, position in the box) for
/// each run of the last dim.
static void
forEachRun(const HostTensor &tensor, ArrayRef<int64_t> offsets,
           ArrayRef<int64_t> sizes,
           llvm::function_ref<void(int64_t, int64_t, int64_t)> body) {
  int64_t run = sizes.empty() ? 1 : sizes.back(), inBox = 0;
  SmallVector<int64_t> strides = tensor.strides();
  ArrayRef<int64_t> rows = sizes.empty() ? sizes : sizes.drop_back();
  if (run == 0)
    return;
  forEachIndex(rows, [&](ArrayRef<int64_t> index) {
    int64_t position = sizes.empty() ? 0 : offsets.back();
    for (auto [dim, i] : llvm::enumerate(index))
      position += (offsets[dim] + i) * strides[dim];
    body(position, inBox, run);
    inBox += run;
  });
}

HostTensor mlir::dshard::extractBox(const HostTensor &tensor,
                                    ArrayRef<int64_t> offsets,
                                    RankedTensorType type) {
  HostTensor box(type);
  forEachRun(tensor, offsets, type.getShape(),
             [&](int64_t from, int64_t to, int64_t count) {
               std::copy_n(tensor.data.begin() + from, count,
                           box.data.begin() + to);
             });
  return box;
}

void mlir::dshard::insertBox(HostTensor &tensor, const HostTensor &box,
                             ArrayRef<int64_t> offsets) {
  forEachRun(tensor, offsets, box.shape(),
             [&](int64_t to, int64_t from, int64_t count) {
               std::copy_n(box.data.begin() + from, count,
                           tensor.data.begin() + to);
             });
}

HostTensor mlir::dshard::reorderAtBoundary(const HostTensor &tensor,
                                           DictionaryAttr attributes,
                                           MeshAttr mesh, bool inverse) {
  std::optional<BoundaryLayout> order = getBoundaryLayout(attributes, mesh);
  if (!order)
    return tensor;
  HostTensor result(tensor.type);
  int64_t size = tensor.shape()[order->dim], inner = 1;
  for (int64_t other : tensor.shape().drop_front(order->dim + 1))
    inner *= other;
  for (int64_t i = 0; i < tensor.size(); ++i) {
    int64_t position = i / inner % size;
    int64_t natural =
        getNaturalPosition(order->layout, order->parts, size, position);
    int64_t other = i + (natural - position) * inner;
    result.data[inverse ? other : i] = tensor.data[inverse ? i : other];
  }
  return result;
}

double mlir::dshard::getLargestDifference(const HostTensor &a,
                                          const HostTensor &b) {
  double largest = 0;
  for (auto [x, y] : llvm::zip_equal(a.data, b.data)) {
    if (x == y || (std::isnan(x) && std::isnan(y)))
      continue;
    double difference = std::fabs(x - y);
    if (!(difference <= largest)) // a NaN too
      largest = std::isnan(difference) ? HUGE_VAL : difference;
  }
  return largest;
}

double mlir::dshard::getLargestMagnitude(const HostTensor &tensor) {
  double largest = 0;
  for (double x : tensor.data)
    if (std::isfinite(x))
      largest = std::max(largest, std::fabs(x));
  return largest;
}

/// Where the box of a rank begins in the global tensor.
static SmallVector<int64_t> getOffsets(int64_t rank, ShardingAttr sharding,
                                       RankedTensorType local, MeshAttr mesh) {
  SmallVector<int64_t> offsets;
  for (auto [dim, size] : llvm::zip_equal(sharding.getDims(), local.getShape()))
    offsets.push_back(mesh.getIndexIn(rank, dim.getAxes()) * size);
  return offsets;
}

static FailureOr<RankedTensorType> getLocalType(RankedTensorType global,
                                                ShardingAttr sharding,
                                                MeshAttr mesh,
                                                EmitError emitError) {
  if (failed(sharding.verifyFor(global, mesh, "the global tensor", emitError)))
    return failure();
  FailureOr<RankedTensorType> local = sharding.getLocalType(global, mesh);
  if (failed(local))
    return emitError() << global << " does not divide by " << sharding;
  return local;
}

FailureOr<RankTensor> mlir::dshard::scatter(const HostTensor &global,
                                            ShardingAttr sharding,
                                            MeshAttr mesh,
                                            EmitError emitError) {
  FailureOr<RankedTensorType> local =
      getLocalType(global.type, sharding, mesh, emitError);
  if (failed(local))
    return failure();
  bool hasOneOwner =
      sharding.isPartial() && (sharding.getKind() == ReductionKind::sum ||
                               sharding.getKind() == ReductionKind::product);
  RankTensor result;
  std::map<SmallVector<int64_t>, SharedTensor> boxes;
  for (int64_t rank = 0; rank < mesh.getNumRanks(); ++rank) {
    if (hasOneOwner && mesh.getIndexIn(rank, sharding.getPartial()) != 0) {
      result.push_back(std::make_shared<HostTensor>(
          *local, getReductionIdentity(sharding.getKind())));
      continue;
    }
    SmallVector<int64_t> offsets = getOffsets(rank, sharding, *local, mesh);
    SharedTensor &box = boxes[offsets];
    if (!box)
      box = std::make_shared<HostTensor>(extractBox(global, offsets, *local));
    result.push_back(box);
  }
  return result;
}

FailureOr<HostTensor> mlir::dshard::gather(const RankTensor &local,
                                           RankedTensorType global,
                                           ShardingAttr sharding, MeshAttr mesh,
                                           EmitError emitError) {
  FailureOr<RankedTensorType> localType =
      getLocalType(global, sharding, mesh, emitError);
  if (failed(localType))
    return failure();
  if (*localType != local[0]->type)
    return emitError() << "each rank holds " << local[0]->type << ", but "
                       << global << " sharded " << sharding << " needs "
                       << *localType;
  HostTensor result(global);
  struct Owner {
    int64_t rank;
    SharedTensor value;
  };
  std::map<SmallVector<int64_t>, Owner> owners;
  for (int64_t rank = 0; rank < mesh.getNumRanks(); ++rank) {
    SharedTensor value = local[rank];
    if (sharding.isPartial()) {
      SmallVector<int64_t> group = mesh.getGroup(rank, sharding.getPartial());
      if (group.front() != rank)
        continue; // reduced once, with its first member
      GroupValues members;
      for (int64_t member : group)
        members.push_back(local[member]);
      value = reduceGroup(members, sharding.getKind());
    }
    SmallVector<int64_t> offsets = getOffsets(rank, sharding, *localType, mesh);
    auto [entry, isFirst] = owners.try_emplace(offsets, Owner{rank, value});
    if (isFirst) {
      insertBox(result, *value, offsets);
      continue;
    }
    const Owner &owner = entry->second;
    if (owner.value == value)
      continue;
    double difference = getLargestDifference(*owner.value, *value);
    if (difference != 0)
      return emitError() << "ranks " << owner.rank << " and " << rank
                         << " should hold the same values, but differ by up to "
                         << difference << " (largest value "
                         << getLargestMagnitude(*owner.value) << ")";
  }
  return result;
}
