#include "ProgramView.h"

#include "dshard/Plan/PlanBuilder.h"

#include <algorithm>

namespace dshard::plan {

std::vector<uint32_t>
enteredBlocks(const InstructionInfo &info, Slice<Value> values,
              const std::function<std::vector<int64_t>(uint32_t)> &table) {
  std::vector<uint32_t> blocks;
  for (size_t i = 0; i < info.values.size() && i < values.size(); ++i) {
    const std::string &name = info.values[i].name;
    if (name != "block" && name != "then" && name != "else")
      continue;
    if (values[i].kind() == ValueKind::literal)
      blocks.push_back(static_cast<uint32_t>(values[i].value()));
    else if (values[i].kind() == ValueKind::table)
      for (int64_t entry : table(static_cast<uint32_t>(values[i].value())))
        blocks.push_back(static_cast<uint32_t>(entry));
  }
  return blocks;
}

namespace {
/// Instruction indices in the order of a walk that enters each block once.
struct Walk {
  const ProgramView &program;
  const std::function<std::vector<int64_t>(uint32_t)> &table;
  std::vector<bool> entered;
  std::vector<uint32_t> order;

  void block(uint32_t index) {
    if (index >= entered.size() || entered[index])
      return;
    entered[index] = true;
    const Block &range = program.blocks[index];
    for (uint64_t at = 0; at < range.count(); ++at) {
      uint64_t place = range.begin() + at;
      if (place >= program.instructions.size())
        return; // not checked yet: the reader will say so
      uint32_t i = static_cast<uint32_t>(place);
      order.push_back(i);
      const Instruction &instruction = program.instructions[i];
      const InstructionInfo *info = findInstruction(instruction.kind());
      if (info && info->isControl())
        for (uint32_t inner :
             enteredBlocks(*info, program.valuesOf(instruction), table))
          block(inner);
    }
  }
};
} // namespace

std::vector<std::pair<uint32_t, uint32_t>>
liveRanges(const ProgramView &program, const std::vector<uint32_t> &inputs,
           const std::vector<uint32_t> &outputs,
           const std::function<std::vector<int64_t>(uint32_t)> &table) {
  Walk walk{program, table, std::vector<bool>(program.blocks.size()), {}};
  walk.block(0);
  std::vector<std::pair<uint32_t, uint32_t>> ranges(program.buffers.size());
  std::vector<bool> written(program.buffers.size());
  for (uint32_t input : inputs)
    if (input < written.size())
      written[input] = true;
  for (uint32_t index : walk.order)
    for (const BufferUse &use : program.usesOf(program.instructions[index])) {
      if (use.buffer() >= ranges.size())
        continue;
      auto &[begin, end] = ranges[use.buffer()];
      if (use.access() != Access::read && !written[use.buffer()]) {
        written[use.buffer()] = true;
        begin = index;
      }
      end = index;
    }
  for (uint32_t output : outputs)
    if (output < ranges.size())
      ranges[output].second =
          static_cast<uint32_t>(program.instructions.size());
  return ranges;
}

void computeLiveRanges(PlanT &plan) {
  auto table = [&](uint32_t index) {
    return index < plan.tables.size() ? plan.tables[index]->values
                                      : std::vector<int64_t>();
  };
  for (uint32_t i = 0; i < plan.programs.size(); ++i) {
    ProgramT &program = *plan.programs[i];
    std::vector<uint32_t> inputs, outputs;
    for (const auto &entry : plan.entries) {
      for (const auto &port : entry->inputs)
        if (port->program == i)
          inputs.push_back(port->buffer);
      for (const auto &port : entry->outputs)
        if (port->program == i)
          outputs.push_back(port->buffer);
    }
    auto ranges = liveRanges(ProgramView(program), inputs, outputs, table);
    for (size_t b = 0; b < ranges.size(); ++b) {
      program.buffers[b].mutate_live_begin(ranges[b].first);
      program.buffers[b].mutate_live_end(ranges[b].second);
    }
  }
}

} // namespace dshard::plan
