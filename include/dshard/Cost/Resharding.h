//===- Resharding.h - Layouts, and how one becomes another ------*- C++ -*-===//
//
// A Layout is a closed sharding with every axis written out as a piece
// (name, pre, size) of its mesh axis, so that whole axes and sub-axes compare.
// `planReshard` says which collectives turn one layout into another and in
// which order; propagation prices its choices with it, partitioning carries it
// out: one answer for both.
//
//===----------------------------------------------------------------------===//
#ifndef DSHARD_COST_RESHARDING_H
#define DSHARD_COST_RESHARDING_H

#include "dshard/Dialect/DShard/IR/DShardAttrs.h"
#include "llvm/ADT/SmallVector.h"
#include <string>

namespace mlir::dshard {

/// A piece of a mesh axis: the factor `size` that starts after a major factor
/// `pre`. The whole axis is (name, 1, its size). size >= 2.
struct AxisPiece {
  StringAttr name;
  int64_t pre = 1;
  int64_t size = 1;

  bool operator==(const AxisPiece &other) const {
    return name == other.name && pre == other.pre && size == other.size;
  }
  bool operator!=(const AxisPiece &other) const { return !(*this == other); }
  /// The two share ranks' coordinates: they may not shard one value together.
  bool overlaps(const AxisPiece &other) const {
    return name == other.name && pre < other.pre * other.size &&
           other.pre < pre * size;
  }
};
/// Major to minor; neighbours of one axis are merged.
using AxisPieces = llvm::SmallVector<AxisPiece, 2>;

struct Layout {
  llvm::SmallVector<AxisPieces> dims;
  AxisPieces partial; ///< sorted (sortPieces): its order means nothing
  ReductionKind kind = ReductionKind::sum; ///< of `partial`; sum without it

  bool operator==(const Layout &other) const;
  bool operator!=(const Layout &other) const { return !(*this == other); }
};

/// Pieces of `axes`; axes of size 1 shard nothing and are left out.
AxisPieces readAxes(ArrayRef<AxisRefAttr> axes, MeshAttr mesh);
llvm::SmallVector<AxisRefAttr> writeAxes(ArrayRef<AxisPiece> pieces,
                                         MeshAttr mesh);
Layout readLayout(ShardingAttr sharding, MeshAttr mesh);
/// Closed.
ShardingAttr writeSharding(const Layout &layout, MeshAttr mesh);
Layout getReplicatedLayout(int64_t numDims);
/// `{"tp"}` or `{}`, for messages.
std::string describe(ArrayRef<AxisPiece> pieces, MeshAttr mesh);
std::string describe(const Layout &layout, MeshAttr mesh);

/// Number of shards.
int64_t getSize(ArrayRef<AxisPiece> pieces);
/// Merges neighbouring pieces of one axis.
void mergePieces(AxisPieces &pieces);
/// Sorts by axis and merges: for lists whose order means nothing.
void sortPieces(AxisPieces &pieces);
bool overlaps(ArrayRef<AxisPiece> lhs, ArrayRef<AxisPiece> rhs);
/// Axes used on any dim or pending.
AxisPieces getUsedAxes(const Layout &layout);
/// The longest common major part, cutting pieces where that is possible.
AxisPieces getCommonPrefix(ArrayRef<AxisPiece> lhs, ArrayRef<AxisPiece> rhs);
/// `lhs` is a major part of `rhs` (or equal).
bool isPrefix(ArrayRef<AxisPiece> lhs, ArrayRef<AxisPiece> rhs);
/// What follows `prefix` (a prefix of `pieces`).
AxisPieces dropPrefix(ArrayRef<AxisPiece> pieces, ArrayRef<AxisPiece> prefix);
AxisPieces concat(ArrayRef<AxisPiece> lhs, ArrayRef<AxisPiece> rhs);

enum class ReshardKind {
  all_gather,     ///< dim
  all_reduce,     ///< no dim
  reduce_scatter, ///< dim
  all_to_all,     ///< dim (concatenated) and otherDim (split)
  local_slice,    ///< dim
};
llvm::StringRef getName(ReshardKind kind);

/// One collective of a reshard.
struct ReshardStep {
  ReshardKind kind;
  AxisPieces axes;
  int64_t dim = -1, otherDim = -1;
  Layout result; ///< the layout after it
};

struct ReshardPlan {
  llvm::SmallVector<ReshardStep> steps; ///< none: nothing changes
  /// Some axis is gathered and sliced again, because no collective moves it.
  bool gathersAndSlices = false;
};

/// The steps from one layout to another, cheapest kinds first (slices, then
/// reduce_scatters, all_to_alls, all_reduces, gathers). Failure if `to` has a
/// partial axis that `from` lacks, or of another kind.
FailureOr<ReshardPlan> planReshard(const Layout &from, const Layout &to);

/// Bytes that one rank sends for a value of `globalBytes`, times the link's
/// cost (an axis between hosts weighs 8 times one inside a host).
double getWireCost(const Layout &from, const ReshardPlan &plan,
                   double globalBytes, MeshAttr mesh);
/// Of a tensor, i1 as bytes.
double getTensorBytes(RankedTensorType type);

} // namespace mlir::dshard

#endif // DSHARD_COST_RESHARDING_H
