//===- Resharding.cpp - Layouts, and how one becomes another --------------===//

#include "dshard/Cost/Resharding.h"
#include "llvm/ADT/StringExtras.h"
#include "llvm/Support/raw_ostream.h"

using namespace mlir;
using namespace mlir::dshard;

bool Layout::operator==(const Layout &other) const {
  return dims == other.dims && partial == other.partial &&
         (partial.empty() || kind == other.kind);
}

//===----------------------------------------------------------------------===//
// Axis lists
//===----------------------------------------------------------------------===//

void mlir::dshard::mergePieces(AxisPieces &pieces) {
  AxisPieces merged;
  for (const AxisPiece &piece : pieces) {
    if (piece.size == 1)
      continue;
    if (!merged.empty() && merged.back().name == piece.name &&
        merged.back().pre * merged.back().size == piece.pre)
      merged.back().size *= piece.size;
    else
      merged.push_back(piece);
  }
  pieces = std::move(merged);
}

void mlir::dshard::sortPieces(AxisPieces &pieces) {
  llvm::sort(pieces, [](const AxisPiece &a, const AxisPiece &b) {
    return std::pair(a.name.getValue(), a.pre) <
           std::pair(b.name.getValue(), b.pre);
  });
  mergePieces(pieces);
}

AxisPieces mlir::dshard::readAxes(ArrayRef<AxisRefAttr> axes, MeshAttr mesh) {
  AxisPieces pieces;
  for (AxisRefAttr axis : axes)
    pieces.push_back({axis.getName(), axis.isWhole() ? 1 : axis.getPre(),
                      mesh.getSize(axis)});
  mergePieces(pieces);
  return pieces;
}

llvm::SmallVector<AxisRefAttr>
mlir::dshard::writeAxes(ArrayRef<AxisPiece> pieces, MeshAttr mesh) {
  llvm::SmallVector<AxisRefAttr> axes;
  for (const AxisPiece &piece : pieces) {
    bool isWhole =
        piece.pre == 1 && piece.size == mesh.getAxisSize(piece.name.getValue());
    axes.push_back(AxisRefAttr::get(mesh.getContext(), piece.name,
                                    isWhole ? 1 : piece.pre,
                                    isWhole ? 0 : piece.size));
  }
  return axes;
}

Layout mlir::dshard::readLayout(ShardingAttr sharding, MeshAttr mesh) {
  Layout layout;
  for (DimShardingAttr dim : sharding.getDims())
    layout.dims.push_back(readAxes(dim.getAxes(), mesh));
  layout.partial = readAxes(sharding.getPartial(), mesh);
  sortPieces(layout.partial);
  if (!layout.partial.empty())
    layout.kind = sharding.getKind();
  return layout;
}

ShardingAttr mlir::dshard::writeSharding(const Layout &layout, MeshAttr mesh) {
  MLIRContext *context = mesh.getContext();
  llvm::SmallVector<DimShardingAttr> dims;
  for (const AxisPieces &pieces : layout.dims)
    dims.push_back(
        DimShardingAttr::get(context, writeAxes(pieces, mesh), false));
  return ShardingAttr::get(context, dims, writeAxes(layout.partial, mesh),
                           layout.partial.empty() ? ReductionKind::sum
                                                  : layout.kind);
}

Layout mlir::dshard::getReplicatedLayout(int64_t numDims) {
  Layout layout;
  layout.dims.resize(numDims);
  return layout;
}

std::string mlir::dshard::describe(ArrayRef<AxisPiece> pieces, MeshAttr mesh) {
  std::string text = "{";
  llvm::raw_string_ostream os(text);
  llvm::interleaveComma(pieces, os, [&](const AxisPiece &piece) {
    os << '"' << piece.name.getValue() << '"';
    if (piece.pre != 1 || piece.size != mesh.getAxisSize(piece.name.getValue()))
      os << ":(" << piece.pre << ")" << piece.size;
  });
  os << "}";
  return text;
}

std::string mlir::dshard::describe(const Layout &layout, MeshAttr mesh) {
  std::string text = "[";
  llvm::raw_string_ostream os(text);
  llvm::interleaveComma(layout.dims, os, [&](const AxisPieces &pieces) {
    os << describe(pieces, mesh);
  });
  os << " ]";
  if (!layout.partial.empty())
    os << ", partial = " << describe(layout.partial, mesh);
  return text;
}

int64_t mlir::dshard::getSize(ArrayRef<AxisPiece> pieces) {
  int64_t size = 1;
  for (const AxisPiece &piece : pieces)
    size *= piece.size;
  return size;
}

bool mlir::dshard::overlaps(ArrayRef<AxisPiece> lhs, ArrayRef<AxisPiece> rhs) {
  return llvm::any_of(lhs, [&](const AxisPiece &a) {
    return llvm::any_of(rhs, [&](const AxisPiece &b) { return a.overlaps(b); });
  });
}

AxisPieces mlir::dshard::getUsedAxes(const Layout &layout) {
  AxisPieces used = layout.partial;
  for (const AxisPieces &pieces : layout.dims)
    used.append(pieces);
  return used;
}

AxisPieces mlir::dshard::getCommonPrefix(ArrayRef<AxisPiece> lhs,
                                         ArrayRef<AxisPiece> rhs) {
  AxisPieces prefix, left(lhs), right(rhs);
  size_t i = 0, j = 0;
  while (i < left.size() && j < right.size()) {
    AxisPiece &a = left[i], &b = right[j];
    if (a.name != b.name || a.pre != b.pre)
      break;
    int64_t size = std::min(a.size, b.size);
    if (a.size % size || b.size % size)
      break;
    prefix.push_back({a.name, a.pre, size});
    for (auto [piece, index] : {std::pair(&a, &i), std::pair(&b, &j)}) {
      if (piece->size == size)
        ++*index;
      else
        *piece = {piece->name, piece->pre * size, piece->size / size};
    }
  }
  mergePieces(prefix);
  return prefix;
}

bool mlir::dshard::isPrefix(ArrayRef<AxisPiece> lhs, ArrayRef<AxisPiece> rhs) {
  return ArrayRef<AxisPiece>(getCommonPrefix(lhs, rhs)) == lhs;
}

AxisPieces mlir::dshard::dropPrefix(ArrayRef<AxisPiece> pieces,
                                    ArrayRef<AxisPiece> prefix) {
  AxisPieces rest(pieces);
  for (AxisPiece cut : prefix) {
    while (cut.size > 1) {
      AxisPiece &head = rest.front();
      int64_t size = std::min(cut.size, head.size);
      if (head.size == size)
        rest.erase(rest.begin());
      else
        head = {head.name, head.pre * size, head.size / size};
      cut = {cut.name, cut.pre * size, cut.size / size};
    }
  }
  return rest;
}

AxisPieces mlir::dshard::concat(ArrayRef<AxisPiece> lhs,
                                ArrayRef<AxisPiece> rhs) {
  AxisPieces pieces(lhs);
  pieces.append(rhs.begin(), rhs.end());
  mergePieces(pieces);
  return pieces;
}

//===----------------------------------------------------------------------===//
// Reshard plans
//===----------------------------------------------------------------------===//

llvm::StringRef mlir::dshard::getName(ReshardKind kind) {
  static constexpr llvm::StringLiteral names[] = {"all_gather", "all_reduce",
                                                  "reduce_scatter",
                                                  "all_to_all", "local_slice"};
  return names[static_cast<int>(kind)];
}

/// The pieces of `pieces` that lie within `within`, in their order; pieces are
/// cut where `within` cuts them.
static AxisPieces intersect(ArrayRef<AxisPiece> pieces,
                            ArrayRef<AxisPiece> within) {
  AxisPieces result;
  for (const AxisPiece &piece : pieces)
    for (const AxisPiece &other : within) {
      if (!piece.overlaps(other))
        continue;
      int64_t begin = std::max(piece.pre, other.pre);
      int64_t end = std::min(piece.pre * piece.size, other.pre * other.size);
      if (end % begin == 0)
        result.push_back({piece.name, begin, end / begin});
    }
  mergePieces(result);
  return result;
}

/// What is left of `pieces` without `removed` (which it contains).
static AxisPieces subtract(ArrayRef<AxisPiece> pieces,
                           ArrayRef<AxisPiece> removed) {
  AxisPieces result(pieces);
  for (const AxisPiece &cut : removed) {
    AxisPieces next;
    for (const AxisPiece &piece : result) {
      if (!piece.overlaps(cut)) {
        next.push_back(piece);
        continue;
      }
      int64_t end = piece.pre * piece.size, cutEnd = cut.pre * cut.size;
      if (cut.pre > piece.pre)
        next.push_back({piece.name, piece.pre, cut.pre / piece.pre});
      if (cutEnd < end)
        next.push_back({piece.name, cutEnd, end / cutEnd});
    }
    result = std::move(next);
  }
  mergePieces(result);
  return result;
}

/// The longest minor part of `pieces` that is a major part of `wanted`.
static AxisPieces getMovable(ArrayRef<AxisPiece> pieces,
                             ArrayRef<AxisPiece> wanted) {
  AxisPieces shared = intersect(pieces, wanted);
  // Whatever can move is a prefix of `wanted` that lies in `pieces`.
  AxisPieces prefix = getCommonPrefix(wanted, shared);
  while (!prefix.empty()) {
    AxisPieces rest = subtract(pieces, prefix);
    if (concat(rest, prefix) == AxisPieces(pieces))
      return prefix;
    prefix.pop_back();
  }
  return {};
}

namespace {
/// Walks `current` towards `target` one collective at a time.
struct Planner {
  Layout current;
  const Layout &target;
  ReshardPlan plan;
  AxisPieces gathered;

  void step(ReshardKind kind, AxisPieces axes, int64_t dim = -1,
            int64_t otherDim = -1) {
    if (kind == ReshardKind::all_gather)
      gathered.append(axes);
    if (kind == ReshardKind::local_slice && overlaps(gathered, axes))
      plan.gathersAndSlices = true;
    plan.steps.push_back({kind, std::move(axes), dim, otherDim, current});
  }

  /// What dim still wants, if its present axes are a major part of that.
  AxisPieces getMissing(int64_t dim) const {
    if (!isPrefix(current.dims[dim], target.dims[dim]))
      return {};
    return dropPrefix(target.dims[dim], current.dims[dim]);
  }
  AxisPieces getExcess(int64_t dim) const {
    return dropPrefix(current.dims[dim],
                      getCommonPrefix(current.dims[dim], target.dims[dim]));
  }

  bool slice() {
    AxisPieces used = getUsedAxes(current);
    for (size_t dim = 0; dim < current.dims.size(); ++dim) {
      // The major part of what is missing that no other place holds.
      AxisPieces axes = getMissing(dim);
      while (!axes.empty() && overlaps(axes, used))
        axes.pop_back();
      if (axes.empty())
        continue;
      current.dims[dim] = concat(current.dims[dim], axes);
      step(ReshardKind::local_slice, axes, dim);
      return true;
    }
    return false;
  }

  bool reduceScatter() {
    AxisPieces reduced = subtract(current.partial, target.partial);
    for (size_t dim = 0; dim < current.dims.size(); ++dim) {
      AxisPieces missing = getMissing(dim);
      AxisPieces axes = getCommonPrefix(missing, intersect(missing, reduced));
      if (axes.empty())
        continue;
      current.dims[dim] = concat(current.dims[dim], axes);
      current.partial = subtract(current.partial, axes);
      step(ReshardKind::reduce_scatter, axes, dim);
      return true;
    }
    return false;
  }

  bool allToAll() {
    for (size_t from = 0; from < current.dims.size(); ++from)
      for (size_t to = 0; to < current.dims.size(); ++to) {
        AxisPieces axes = from == to
                              ? AxisPieces()
                              : getMovable(getExcess(from), getMissing(to));
        if (axes.empty())
          continue;
        current.dims[from] = subtract(current.dims[from], axes);
        current.dims[to] = concat(current.dims[to], axes);
        step(ReshardKind::all_to_all, axes, from, to);
        return true;
      }
    return false;
  }

  bool allReduce() {
    AxisPieces axes = subtract(current.partial, target.partial);
    if (axes.empty())
      return false;
    current.partial = subtract(current.partial, axes);
    step(ReshardKind::all_reduce, axes);
    return true;
  }

  bool gather() {
    for (size_t dim = 0; dim < current.dims.size(); ++dim) {
      AxisPieces axes = getExcess(dim);
      if (axes.empty())
        continue;
      current.dims[dim] = getCommonPrefix(current.dims[dim], target.dims[dim]);
      step(ReshardKind::all_gather, axes, dim);
      return true;
    }
    return false;
  }
};
} // namespace

FailureOr<ReshardPlan> mlir::dshard::planReshard(const Layout &from,
                                                 const Layout &to) {
  if (intersect(to.partial, from.partial) != to.partial ||
      (!to.partial.empty() && from.kind != to.kind) ||
      from.dims.size() != to.dims.size())
    return failure();
  Planner planner{from, to, {}, {}};
  // Each step shrinks what is in excess or what is missing, so this ends.
  // Slices come first: they cost nothing and make the rest smaller.
  while (planner.slice() || planner.reduceScatter() || planner.allToAll() ||
         planner.allReduce() || planner.gather())
    ;
  return planner.plan;
}

double mlir::dshard::getTensorBytes(RankedTensorType type) {
  double bits = std::max(8u, type.getElementTypeBitWidth());
  return static_cast<double>(type.getNumElements()) * bits / 8;
}

static double getLinkCost(ArrayRef<AxisPiece> axes, MeshAttr mesh) {
  constexpr double betweenHosts = 8;
  for (const AxisPiece &piece : axes)
    for (MeshAxisAttr axis : mesh.getAxes())
      if (axis.getName() == piece.name && axis.getLink() == Link::inter)
        return betweenHosts;
  return 1;
}

double mlir::dshard::getWireCost(const Layout &from, const ReshardPlan &plan,
                                 double globalBytes, MeshAttr mesh) {
  auto getShards = [](const Layout &layout) {
    double shards = 1;
    for (const AxisPieces &pieces : layout.dims)
      shards *= static_cast<double>(getSize(pieces));
    return shards;
  };
  double cost = 0;
  const Layout *before = &from;
  for (const ReshardStep &step : plan.steps) {
    auto members = static_cast<double>(getSize(step.axes));
    double share = (members - 1) / members;
    double local = globalBytes / getShards(*before);
    double bytes = 0;
    switch (step.kind) {
    case ReshardKind::all_gather:
      bytes = share * local * members;
      break;
    case ReshardKind::all_reduce:
      bytes = 2 * share * local;
      break;
    case ReshardKind::reduce_scatter:
    case ReshardKind::all_to_all:
      bytes = share * local;
      break;
    case ReshardKind::local_slice:
      break;
    }
    cost += bytes * getLinkCost(step.axes, mesh);
    before = &step.result;
  }
  return cost;
}
