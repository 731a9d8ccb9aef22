#include "dshard/Plan/PlanStatistics.h"

#include "ProgramView.h"
#include "dshard/Plan/Format.h"
#include "dshard/Plan/RankShare.h"
#include "dshard/Plan/Topology.h"

#include <algorithm>

namespace dshard::plan {

uint64_t collectiveBytes(const Plan &plan, uint32_t program,
                         uint32_t instruction) {
  const Program &item = *plan.programs()->Get(program);
  ProgramView view(item);
  const Instruction &at = view.instructions[instruction];
  bool receives =
      static_cast<InstructionKind>(at.kind()) == InstructionKind::RECV;
  uint64_t bytes = 0;
  for (const BufferUse &use : view.usesOf(at)) {
    bool isOperand = use.access() == Access::read || receives;
    if (!isOperand || use.buffer() == absentBuffer)
      continue;
    const Buffer &buffer = view.buffers[use.buffer()];
    uint64_t elements = 1;
    for (uint32_t i = 0; i < buffer.dims_count(); ++i)
      elements *=
          static_cast<uint64_t>(item.dims()->Get(buffer.dims_begin() + i));
    bytes += elements * byteSize(buffer.dtype());
  }
  return bytes;
}

namespace {
/// Adds up, block by block, how often instructions are executed.
struct Counter {
  const Topology &topology;
  const ProgramView &view;
  uint32_t rank;
  std::vector<uint64_t> counts;

  uint32_t block(const Value &value) const {
    return static_cast<uint32_t>(topology.resolve(value, rank).value());
  }
  void walk(uint32_t index, uint64_t times) {
    const Block &range = view.blocks[index];
    for (uint32_t i = range.begin(); i < range.begin() + range.count(); ++i) {
      counts[i] += times;
      Slice<Value> values = view.valuesOf(view.instructions[i]);
      switch (static_cast<InstructionKind>(view.instructions[i].kind())) {
      case InstructionKind::CALL:
        walk(block(values[0]), times);
        break;
      case InstructionKind::REPEAT: {
        Value count = topology.resolve(values[1], rank);
        bool isKnown = count.kind() == ValueKind::literal;
        uint64_t factor = isKnown ? static_cast<uint64_t>(count.value()) : 1;
        if (factor)
          walk(block(values[0]), times * factor);
        break;
      }
      case InstructionKind::IF: {
        Value condition = topology.resolve(values[0], rank);
        bool isKnown = condition.kind() == ValueKind::literal;
        if (!isKnown || condition.value())
          walk(block(values[1]), times);
        if (!isKnown || !condition.value())
          walk(block(values[2]), times);
        break;
      }
      default:
        break;
      }
    }
  }
};
} // namespace

std::vector<uint64_t> executionCounts(const Plan &plan, uint32_t program,
                                      uint32_t rank) {
  Topology topology(plan);
  ProgramView view(*plan.programs()->Get(program));
  Counter counter{topology, view, rank,
                  std::vector<uint64_t>(view.instructions.size())};
  counter.walk(0, 1);
  return std::move(counter.counts);
}

PlanStatistics planStatistics(const Plan &plan, uint32_t rank) {
  Topology topology(plan);
  PlanStatistics result;
  result.ranks = topology.rankCount();
  int pp = topology.findAxis("pp");
  RankShare share = rankShare(
      plan, pp < 0 ? 0 : topology.coordinate(rank, static_cast<uint32_t>(pp)));
  result.state = share.states;
  result.arena = share.arena;
  result.threadScratch = share.threadScratch;
  result.messages = share.messages;
  for (const State *state : *plan.states())
    if (share.holds(*state))
      result.stateByRole[EnumNameStateRole(state->role())] += state->size();
  for (const Image *image : *plan.images())
    result.code += alignTo(image->size(), pageSize);
  for (uint32_t p = 0; p < plan.programs()->size(); ++p) {
    const Program &item = *plan.programs()->Get(p);
    ProgramStatistics program;
    program.name = plan.strings()->Get(item.name())->str();
    program.arena = item.arena_size();
    program.threadScratch = item.thread_scratch();
    std::vector<uint64_t> counts = executionCounts(plan, p, rank);
    ProgramView view(item);
    for (uint32_t i = 0; i < view.instructions.size(); ++i) {
      const InstructionInfo &info =
          *findInstruction(view.instructions[i].kind());
      ++program.instructions[info.spelling];
      if (!info.isCollective())
        continue;
      const Value &group =
          view.valuesOf(view.instructions[i])[info.findValue("group")];
      Traffic &traffic = program.collectives[{
          info.spelling,
          topology.groupName(static_cast<uint32_t>(group.value()))}];
      traffic.count += counts[i];
      traffic.bytes += counts[i] * collectiveBytes(plan, p, i);
    }
    result.programs.push_back(std::move(program));
  }
  return result;
}

} // namespace dshard::plan
