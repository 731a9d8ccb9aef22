//===- Topology.h - Ranks, groups and tables of a plan ----------*- C++ -*-===//
//
// A rank is the row-major number of its mesh coordinates (Plan.mesh is ordered
// slowest first). A group is a set of sub-axes; its instances partition the
// ranks, and a rank's position in its instance is the row-major number of its
// coordinates on the group's sub-axes, major to minor (MPI_Comm_rank).
//
// Example: mesh dp=2, tp=4; group {tp}: rank 5 = (1, 1) is position 1 of
// [4, 5, 6, 7]; group {tp:(1)2}, the major half of tp: position 0 of [5, 7].
//
//===----------------------------------------------------------------------===//
#ifndef DSHARD_PLAN_TOPOLOGY_H
#define DSHARD_PLAN_TOPOLOGY_H

#include "dshard/Plan/plan_generated.h"

#include <cstdint>
#include <string>
#include <vector>

namespace dshard::plan {

/// Wants a plan that the reader has accepted, and that outlives it.
class Topology {
public:
  explicit Topology(const Plan &plan);

  uint32_t rankCount() const { return ranks; }
  const std::vector<uint32_t> &axisSizes() const { return sizes; }
  /// Index of the axis with this name, or -1.
  int findAxis(std::string_view name) const;

  std::vector<uint32_t> coordinates(uint32_t rank) const;
  uint32_t coordinate(uint32_t rank, uint32_t axis) const {
    return rank / strides[axis] % sizes[axis];
  }
  uint32_t rankAt(const std::vector<uint32_t> &coordinates) const;

  /// The rank's coordinate on a sub-axis, in [0, ref.size()).
  uint32_t subCoordinate(uint32_t rank, const AxisRef &ref) const;
  /// Row-major number of the rank's coordinates on these sub-axes.
  uint32_t position(uint32_t rank,
                    const flatbuffers::Vector<const AxisRef *> *axes) const;

  uint32_t groupSize(uint32_t group) const;
  uint32_t groupPosition(uint32_t group, uint32_t rank) const;
  /// The instance that the rank is in, ordered by position; contains the rank.
  std::vector<uint32_t> groupRanks(uint32_t group, uint32_t rank) const;
  /// The rank at position 0 of the rank's instance: its name.
  uint32_t groupLeader(uint32_t group, uint32_t rank) const;
  /// "tp", "dp_shard,cp", "tp:(1)2": for reports.
  std::string groupName(uint32_t group) const;

  int64_t tableEntry(uint32_t table, uint32_t rank) const;
  /// A literal for a literal or a table, else the value itself.
  Value resolve(const Value &value, uint32_t rank) const {
    return value.kind() == ValueKind::table
               ? Value(tableEntry(static_cast<uint32_t>(value.value()), rank),
                       ValueKind::literal)
               : value;
  }

  /// Where the rank's shard of a tensor with these local dims begins, per dim
  /// of the global tensor. A shard may reach beyond the global dims (padding).
  std::vector<int64_t> shardOrigin(const Sharding *sharding,
                                   const flatbuffers::Vector<int64_t> &local,
                                   uint32_t rank) const;

private:
  const Plan &plan;
  std::vector<uint32_t> sizes, strides;
  uint32_t ranks = 1;
};

/// "dp=2,tp=4"; "" for no axes.
std::string meshText(const Plan &plan);
/// "tp", or "tp:(1)2" for a part of an axis.
std::string axisText(const Plan &plan, const AxisRef &ref);

} // namespace dshard::plan

#endif // DSHARD_PLAN_TOPOLOGY_H
