//===- ProgramView.h - One look at both forms of a program ------*- C++ -*-===//
//
// The mapped form and the object form of plan.fbs keep structs contiguous; a
// view of pointers serves both. Internal to lib/Plan.
//
//===----------------------------------------------------------------------===//
#ifndef DSHARD_LIB_PLAN_PROGRAMVIEW_H
#define DSHARD_LIB_PLAN_PROGRAMVIEW_H

#include "dshard/Plan/Instructions.h"

#include <functional>
#include <utility>
#include <vector>

namespace dshard::plan {

template <typename T> struct Slice {
  const T *data = nullptr;
  size_t count = 0;

  Slice() = default;
  Slice(const T *data, size_t count) : data(data), count(count) {}
  Slice(const std::vector<T> &items)
      : data(items.data()), count(items.size()) {}
  Slice(const flatbuffers::Vector<const T *> *items)
      : data(reinterpret_cast<const T *>(items->Data())), count(items->size()) {
  }
  size_t size() const { return count; }
  const T &operator[](size_t index) const { return data[index]; }
  const T *begin() const { return data; }
  const T *end() const { return data + count; }
  /// Cut at the end: a plan that is being built has not been checked.
  Slice slice(size_t from, size_t length) const {
    from = from < count ? from : count;
    return Slice(data + from, length < count - from ? length : count - from);
  }
};

struct ProgramView {
  Slice<Block> blocks;
  Slice<Instruction> instructions;
  Slice<Buffer> buffers;
  Slice<BufferUse> uses;
  Slice<Value> values;

  explicit ProgramView(const ProgramT &program)
      : blocks(program.blocks), instructions(program.instructions),
        buffers(program.buffers), uses(program.uses), values(program.values) {}
  explicit ProgramView(const Program &program)
      : blocks(program.blocks()), instructions(program.instructions()),
        buffers(program.buffers()), uses(program.uses()),
        values(program.values()) {}

  Slice<BufferUse> usesOf(const Instruction &instruction) const {
    return uses.slice(instruction.uses_begin(), instruction.uses_count());
  }
  Slice<Value> valuesOf(const Instruction &instruction) const {
    return values.slice(instruction.values_begin(), instruction.values_count());
  }
};

/// The blocks that a control instruction may enter, in the order of its values;
/// `table` gives the entries of a table. A block may be listed twice.
std::vector<uint32_t>
enteredBlocks(const InstructionInfo &info, Slice<Value> values,
              const std::function<std::vector<int64_t>(uint32_t)> &table);

/// live_begin and live_end of every buffer, as plan.fbs defines them, with each
/// block walked where it is entered first. `inputs` and `outputs` are the
/// buffers that ports name.
std::vector<std::pair<uint32_t, uint32_t>>
liveRanges(const ProgramView &program, const std::vector<uint32_t> &inputs,
           const std::vector<uint32_t> &outputs,
           const std::function<std::vector<int64_t>(uint32_t)> &table);

} // namespace dshard::plan

#endif // DSHARD_LIB_PLAN_PROGRAMVIEW_H
