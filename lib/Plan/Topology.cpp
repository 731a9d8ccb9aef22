#include "dshard/Plan/Topology.h"

#include <algorithm>

namespace dshard::plan {

Topology::Topology(const Plan &plan) : plan(plan) {
  for (const Axis *axis : *plan.mesh())
    sizes.push_back(axis->size());
  strides.resize(sizes.size());
  for (size_t i = sizes.size(); i-- > 0;) {
    strides[i] = ranks;
    ranks *= sizes[i];
  }
}

int Topology::findAxis(std::string_view name) const {
  for (uint32_t i = 0; i < plan.mesh()->size(); ++i)
    if (plan.strings()->Get(plan.mesh()->Get(i)->name())->string_view() == name)
      return static_cast<int>(i);
  return -1;
}

std::vector<uint32_t> Topology::coordinates(uint32_t rank) const {
  std::vector<uint32_t> result;
  for (uint32_t axis = 0; axis < sizes.size(); ++axis)
    result.push_back(coordinate(rank, axis));
  return result;
}

uint32_t Topology::rankAt(const std::vector<uint32_t> &coordinates) const {
  uint32_t rank = 0;
  for (size_t i = 0; i < sizes.size(); ++i)
    rank += coordinates[i] * strides[i];
  return rank;
}

uint32_t Topology::subCoordinate(uint32_t rank, const AxisRef &ref) const {
  uint32_t minor = sizes[ref.axis()] / (ref.pre() * ref.size());
  return coordinate(rank, ref.axis()) / minor % ref.size();
}

uint32_t
Topology::position(uint32_t rank,
                   const flatbuffers::Vector<const AxisRef *> *axes) const {
  uint32_t result = 0;
  for (const AxisRef *ref : *axes)
    result = result * ref->size() + subCoordinate(rank, *ref);
  return result;
}

uint32_t Topology::groupSize(uint32_t group) const {
  uint32_t size = 1;
  for (const AxisRef *ref : *plan.groups()->Get(group)->axes())
    size *= ref->size();
  return size;
}

uint32_t Topology::groupPosition(uint32_t group, uint32_t rank) const {
  return position(rank, plan.groups()->Get(group)->axes());
}

std::vector<uint32_t> Topology::groupRanks(uint32_t group,
                                           uint32_t rank) const {
  const auto &axes = *plan.groups()->Get(group)->axes();
  std::vector<uint32_t> members(groupSize(group));
  for (uint32_t position = 0; position < members.size(); ++position) {
    uint32_t rest = position, member = rank;
    for (uint32_t i = axes.size(); i-- > 0;) {
      const AxisRef &ref = *axes.Get(i);
      uint32_t wanted = rest % ref.size();
      rest /= ref.size();
      uint32_t step =
          strides[ref.axis()] * (sizes[ref.axis()] / (ref.pre() * ref.size()));
      member = member - subCoordinate(rank, ref) * step + wanted * step;
    }
    members[position] = member;
  }
  return members;
}

uint32_t Topology::groupLeader(uint32_t group, uint32_t rank) const {
  uint32_t leader = rank;
  for (const AxisRef *ref : *plan.groups()->Get(group)->axes())
    leader -= subCoordinate(rank, *ref) * strides[ref->axis()] *
              (sizes[ref->axis()] / (ref->pre() * ref->size()));
  return leader;
}

std::string Topology::groupName(uint32_t group) const {
  std::string name;
  for (const AxisRef *ref : *plan.groups()->Get(group)->axes())
    name += (name.empty() ? "" : ",") + axisText(plan, *ref);
  return name;
}

int64_t Topology::tableEntry(uint32_t table, uint32_t rank) const {
  const RankTable &entries = *plan.tables()->Get(table);
  uint32_t index = 0;
  for (uint32_t axis : *entries.axes())
    index = index * sizes[axis] + coordinate(rank, axis);
  return entries.values()->Get(index);
}

std::vector<int64_t>
Topology::shardOrigin(const Sharding *sharding,
                      const flatbuffers::Vector<int64_t> &local,
                      uint32_t rank) const {
  std::vector<int64_t> origin(local.size(), 0);
  if (!sharding || !sharding->dims())
    return origin;
  for (uint32_t dim = 0;
       dim < std::min<uint32_t>(local.size(), sharding->dims()->size()); ++dim)
    origin[dim] =
        local.Get(dim) * position(rank, sharding->dims()->Get(dim)->axes());
  return origin;
}

std::string axisText(const Plan &plan, const AxisRef &ref) {
  const Axis &axis = *plan.mesh()->Get(ref.axis());
  std::string name = plan.strings()->Get(axis.name())->str();
  if (ref.size() != axis.size())
    name += ":(" + std::to_string(ref.pre()) + ")" + std::to_string(ref.size());
  return name;
}

std::string meshText(const Plan &plan) {
  std::string text;
  for (const Axis *axis : *plan.mesh())
    text += (text.empty() ? "" : ",") +
            plan.strings()->Get(axis->name())->str() + "=" +
            std::to_string(axis->size());
  return text;
}

} // namespace dshard::plan
