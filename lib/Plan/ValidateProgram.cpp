// Bounds of programs: buffers, blocks, and the uses and values of instructions.
#include "Validate.h"

#include <algorithm>
#include <limits>

namespace dshard::plan {

using Wide = unsigned __int128;

Status Validator::buffers(const Program &program,
                          const std::string &what) const {
  for (uint32_t i = 0; i < program.buffers()->size(); ++i) {
    const Buffer &buffer = *program.buffers()->Get(i);
    std::string name = what + ", buffer " + std::to_string(i);
    auto fail = [&](const std::string &text) {
      return Status::error("metadata: " + name + " " + text);
    };
    if (Status s = string(buffer.name(), name); !s)
      return s;
    if (Status s = type(buffer.dtype(), name); !s)
      return s;
    if (buffer.space() > Space::MAX)
      return fail("is in a space that does not exist");
    uint64_t room = program.arena_size();
    if (buffer.space() == Space::state) {
      if (Status s =
              inside(buffer.state(), plan.states()->size(), name + ": state");
          !s)
        return s;
      room = plan.states()->Get(buffer.state())->size();
    }
    if (buffer.space() == Space::scalar) {
      if (Status s =
              inside(buffer.state(), plan.scalars()->size(), name + ": scalar");
          !s)
        return s;
      const Scalar &scalar = *plan.scalars()->Get(buffer.state());
      room = byteSize(scalar.dtype());
      if (buffer.dtype() != scalar.dtype() || buffer.offset() != 0 ||
          buffer.size() != room || buffer.slots() != 1)
        return fail(std::string("is not all of a scalar of type ") +
                    toString(scalar.dtype()));
    }
    if (buffer.slots() == 0)
      return fail("has no slots");
    if (buffer.slots() > 1 && buffer.slot_stride() < buffer.size())
      return fail("has slots of " + std::to_string(buffer.size()) + " bytes, " +
                  std::to_string(buffer.slot_stride()) + " bytes apart");
    Wide end = Wide(buffer.offset()) + buffer.size() +
               Wide(buffer.slots() - 1) * buffer.slot_stride();
    if (end > room)
      return fail("at " + std::to_string(buffer.offset()) + " with " +
                  std::to_string(buffer.slots()) + " x " +
                  std::to_string(buffer.size()) + " bytes lies beyond " +
                  std::to_string(room));
    if (Status s = range(buffer.dims_begin(), buffer.dims_count(),
                         program.dims()->size(), name + ": dims");
        !s)
      return s;
    uint64_t size = 0;
    if (Status s =
            bytes(buffer.dtype(), program.dims()->data() + buffer.dims_begin(),
                  buffer.dims_count(), name, size);
        !s)
      return s;
    if (size > buffer.size())
      return fail("has " + std::to_string(buffer.size()) +
                  " bytes, its dims need " + std::to_string(size));
    if (Status s =
            inside(buffer.base(), program.buffers()->size(), name + ": base");
        !s)
      return s;
    const Buffer &base = *program.buffers()->Get(buffer.base());
    if (buffer.base() == i) {
      if (buffer.space() == Space::arena &&
          (buffer.offset() % alignment != 0 ||
           (buffer.slots() > 1 && buffer.slot_stride() % alignment != 0)))
        return fail("begins at " + std::to_string(buffer.offset()) +
                    ", not a multiple of " + std::to_string(alignment));
    } else if (base.base() != buffer.base() || base.space() != buffer.space() ||
               (base.space() != Space::arena &&
                base.state() != buffer.state()) ||
               base.slots() != buffer.slots() ||
               (base.slots() > 1 &&
                base.slot_stride() != buffer.slot_stride()) ||
               buffer.offset() < base.offset() ||
               Wide(buffer.offset()) + buffer.size() >
                   Wide(base.offset()) + base.size()) {
      return fail("is a view that does not lie inside its base, buffer " +
                  std::to_string(buffer.base()));
    }
    if (buffer.offset() % byteSize(buffer.dtype()) != 0)
      return fail("begins at " + std::to_string(buffer.offset()) +
                  ", not a multiple of its element size");
  }
  return Status();
}

Status Validator::blocks(const Program &program, const std::string &what) {
  // Blocks tile the instructions, so that each belongs to one block.
  uint64_t end = 0;
  for (uint32_t i = 0; i < program.blocks()->size(); ++i) {
    const Block &block = *program.blocks()->Get(i);
    if (block.begin() != end)
      return Status::error(
          "metadata: " + what + ", block " + std::to_string(i) + " begins at " +
          std::to_string(block.begin()) + ", expected " + std::to_string(end));
    end += block.count();
  }
  if (program.blocks()->size() == 0 || end != program.instructions()->size())
    return Status::error(
        "metadata: " + what + ": blocks hold " + std::to_string(end) + " of " +
        std::to_string(program.instructions()->size()) + " instructions");
  return Status();
}

Status Validator::fixed(const Value &value, int64_t low, int64_t high,
                        const std::string &what) const {
  auto check = [&](int64_t number) {
    if (number >= low && number <= high)
      return Status();
    return Status::error("metadata: " + what + " is " + std::to_string(number) +
                         ", expected " + std::to_string(low) + " to " +
                         std::to_string(high));
  };
  if (value.kind() == ValueKind::literal)
    return check(value.value());
  if (value.kind() != ValueKind::table)
    return Status::error("metadata: " + what +
                         " must be a literal or a table over rank coordinates");
  if (Status s = inside(static_cast<uint64_t>(value.value()),
                        plan.tables()->size(), what + ": table");
      !s)
    return s;
  for (int64_t entry :
       *plan.tables()->Get(static_cast<uint32_t>(value.value()))->values())
    if (Status s = check(entry); !s)
      return s;
  return Status();
}

Status Validator::value(const Program &program, const InstructionInfo &info,
                        const InstructionLayout &layout, Slice<Value> values,
                        uint32_t which, const Value &value,
                        const std::string &what) const {
  const ValueInfo &valueInfo = info.values[which];
  const std::string &name = valueInfo.name;
  std::string full = what + ": value '" + name + "'";
  constexpr int64_t most = std::numeric_limits<int64_t>::max();
  constexpr int64_t large = int64_t{1} << 40; // leaves room for products
  auto isOne = [&](std::initializer_list<const char *> names) {
    return std::any_of(names.begin(), names.end(),
                       [&](const char *other) { return name == other; });
  };
  auto literalBelow = [&](int64_t count) {
    if (value.kind() != ValueKind::literal)
      return Status::error("metadata: " + full + " must be a literal");
    return inside(static_cast<uint64_t>(value.value()),
                  static_cast<uint64_t>(count), full + ":");
  };
  if (valueInfo.flag)
    return literalBelow(2);
  if (isOne({"block", "then", "else"}))
    return fixed(value, 0, int64_t{program.blocks()->size()} - 1, full);
  if (name == "event")
    return literalBelow(program.events());
  if (name == "kernel")
    return literalBelow(plan.kernels()->size());
  if (name == "group")
    return literalBelow(plan.groups()->size());
  if (name == "reduction")
    return literalBelow(static_cast<int>(ReductionKind::MAX) + 1);
  if (name == "activation")
    return literalBelow(activationCount);
  if (name == "ndims")
    return literalBelow(maxDims + 1);
  if (isOne({"operands", "inputs"}))
    return literalBelow(0x10000);
  if (isOne({"permutation", "split", "concat"}))
    return literalBelow(
        values[layout.valueBegin[info.findValue("ndims")]].value());
  if (name == "source")
    return fixed(value, 0, int64_t{plan.sources()->size()} - 1, full);
  if (isOne({"root", "to", "from"})) {
    // The group was checked before: it comes first in the table.
    const Group &group = *plan.groups()->Get(static_cast<uint32_t>(
        values[layout.valueBegin[info.findValue("group")]].value()));
    int64_t size = 1;
    for (const AxisRef *ref : *group.axes())
      size *= ref->size();
    return fixed(value, 0, size - 1, full);
  }
  if (isOne({"count", "condition"})) {
    if (value.kind() == ValueKind::scalar) {
      if (Status s = inside(static_cast<uint64_t>(value.value()),
                            plan.scalars()->size(), full + ": scalar");
          !s)
        return s;
      DataType dtype =
          plan.scalars()->Get(static_cast<uint32_t>(value.value()))->dtype();
      if (name == "count" && isFloat(dtype))
        return Status::error("metadata: " + full + " is a scalar of type " +
                             toString(dtype) + ", expected an integer");
      return Status();
    }
    if (name == "condition" && value.kind() == ValueKind::loop_index)
      return Status(); // its depth is checked with all the others
    return name == "count" ? fixed(value, 0, large, full)
                           : fixed(value, -most - 1, most, full);
  }
  if (name == "value_bits" && value.kind() == ValueKind::loop_index)
    return Status(); // its depth is checked with all the others
  if (isOne({"value_bits", "scale_bits", "softcap_bits", "window"}))
    return fixed(value, -most - 1, most, full);
  // `offset` of causal attention may be negative; a load may start before 0
  // nowhere.
  if (name == "offset")
    return fixed(value, -large, large, full);
  return fixed(value, 0, large, full);
}

Status Validator::instruction(const Program &program, const ProgramView &view,
                              uint32_t index, const std::string &what) const {
  const Instruction &instruction = view.instructions[index];
  const InstructionInfo *info = findInstruction(instruction.kind());
  std::string full = what + ", instruction " + std::to_string(index);
  if (!info)
    return Status::error("metadata: " + full + " has kind " +
                         std::to_string(instruction.kind()) +
                         ", which does not exist");
  full += " (" + info->spelling + ")";
  if (instruction.part() > Part::MAX)
    return Status::error("metadata: " + full + ": part does not exist");
  for (uint32_t text :
       {instruction.path(), instruction.node(), instruction.why()})
    if (Status s = string(text, full); !s)
      return s;
  if (Status s =
          inside(instruction.stream(), program.streams(), full + ": stream");
      !s)
    return s;
  if (Status s = range(instruction.uses_begin(), instruction.uses_count(),
                       view.uses.size(), full + ": uses");
      !s)
    return s;
  if (Status s = range(instruction.values_begin(), instruction.values_count(),
                       view.values.size(), full + ": values");
      !s)
    return s;
  Slice<BufferUse> uses = view.usesOf(instruction);
  Slice<Value> values = view.valuesOf(instruction);
  for (const Value &value : values)
    if (value.kind() > ValueKind::MAX)
      return Status::error("metadata: " + full +
                           ": a value's kind does not exist");
  Result<InstructionLayout> layout =
      InstructionLayout::get(*info, values.data, values.size(), uses.size());
  if (!layout)
    return Status::error("metadata: " + what + ", instruction " +
                         std::to_string(index) + ": " +
                         layout.status().message());
  for (uint32_t which = 0; which < info->values.size(); ++which)
    for (uint32_t at = layout->valueBegin[which];
         at < layout->valueBegin[which + 1]; ++at)
      if (Status s =
              value(program, *info, *layout, values, which, values[at], full);
          !s)
        return s;
  if (int which = info->findValue("permutation"); which >= 0) {
    uint64_t seen = 0;
    for (uint32_t at = layout->valueBegin[which];
         at < layout->valueBegin[which + 1]; ++at)
      seen |= uint64_t{1} << values[at].value();
    if (seen + 1 != uint64_t{1} << (layout->valueBegin[which + 1] -
                                    layout->valueBegin[which]))
      return Status::error("metadata: " + full +
                           ": 'permutation' is not a permutation");
  }
  if (info->kind == InstructionKind::LAUNCH) {
    uint32_t buffers = plan.kernels()
                           ->Get(static_cast<uint32_t>(values[0].value()))
                           ->buffers();
    if (buffers != uses.size())
      return Status::error(
          "metadata: " + full + " has " + std::to_string(uses.size()) +
          " uses, its kernel takes " + std::to_string(buffers));
  }
  for (uint32_t which = 0; which < info->uses.size(); ++which) {
    const UseInfo &useInfo = info->uses[which];
    for (uint32_t at = layout->useBegin[which];
         at < layout->useBegin[which + 1]; ++at) {
      const BufferUse &use = uses[at];
      if (use.buffer() == absentBuffer && useInfo.optional)
        continue;
      std::string useName = full + ": '" + useInfo.name + "'";
      if (use.access() > Access::MAX ||
          (use.access() == Access::read) == useInfo.written)
        return Status::error("metadata: " + useName + " must be " +
                             (useInfo.written ? "written" : "read"));
      if (use.slot().kind() > ValueKind::MAX)
        return Status::error("metadata: " + useName +
                             ": the slot's kind does not exist");
      if (use.slot().kind() != ValueKind::loop_index &&
          use.slot().kind() != ValueKind::micro_batch)
        if (Status s = fixed(use.slot(), 0, std::numeric_limits<int32_t>::max(),
                             useName + ": slot");
            !s)
          return s;
      if (Status s =
              inside(use.buffer(), view.buffers.size(), useName + ": buffer");
          !s)
        return s;
      if (use.access() != Access::read &&
          view.buffers[use.buffer()].space() == Space::scalar)
        return Status::error("metadata: " + useName +
                             " is a scalar, which programs only read");
    }
  }
  return Status();
}

namespace {
/// Blocks in an order where callers come before callees, with the fewest
/// repeats and the most blocks around each.
struct Nesting {
  const ProgramView &view;
  std::function<std::vector<int64_t>(uint32_t)> table;
  std::vector<char> color; // 0 new, 1 open, 2 done
  std::vector<uint32_t> height;

  /// Levels of blocks from here down, or 0 when a block contains itself or
  /// there are too many.
  uint32_t visit(uint32_t block, uint32_t depth) {
    if (color[block] == 1 || depth > maxNesting)
      return 0;
    if (color[block] == 2)
      return height[block];
    color[block] = 1;
    uint32_t most = 0;
    const Block &range = view.blocks[block];
    for (uint32_t i = 0; i < range.count(); ++i) {
      const Instruction &instruction = view.instructions[range.begin() + i];
      const InstructionInfo *info = findInstruction(instruction.kind());
      if (!info->isControl())
        continue;
      for (uint32_t inner :
           enteredBlocks(*info, view.valuesOf(instruction), table)) {
        uint32_t below = visit(inner, depth + 1);
        if (below == 0)
          return 0;
        most = std::max(most, below);
      }
    }
    color[block] = 2;
    order.push_back(block);
    return height[block] = most + 1;
  }
  std::vector<uint32_t> order; // callees first
};
} // namespace

Status Validator::program(uint32_t index) {
  const Program &program = *plan.programs()->Get(index);
  std::string what = "program " + std::to_string(index);
  for (const void *vector :
       {(const void *)program.blocks(), (const void *)program.instructions()})
    if (Status s = require(vector, (what + ": a list").c_str()); !s)
      return s;
  for (Status s : {aligned(program.buffers(), (what + ": buffers").c_str()),
                   aligned(program.uses(), (what + ": uses").c_str()),
                   aligned(program.values(), (what + ": values").c_str()),
                   aligned(program.dims(), (what + ": dims").c_str())})
    if (!s)
      return s;
  if (Status s = string(program.name(), what); !s)
    return s;
  what += " '" + plan.strings()->Get(program.name())->str() + "'";
  if (program.streams() == 0 || program.streams() > maxStreams ||
      program.events() > 0xffff)
    return Status::error("metadata: " + what + " has " +
                         std::to_string(program.streams()) + " streams and " +
                         std::to_string(program.events()) + " events");
  if (std::max(program.arena_size(), program.thread_scratch()) > maxRegion)
    return Status::error("metadata: " + what + " has an arena of " +
                         std::to_string(program.arena_size()) +
                         " and a scratch of " +
                         std::to_string(program.thread_scratch()) +
                         " bytes, at most " + std::to_string(maxRegion));
  if (Status s = buffers(program, what); !s)
    return s;
  if (Status s = blocks(program, what); !s)
    return s;
  ProgramView view(program);
  for (uint32_t i = 0; i < view.instructions.size(); ++i)
    if (Status s = instruction(program, view, i, what); !s)
      return s;

  auto table = [&](uint32_t index) {
    const auto &values = *plan.tables()->Get(index)->values();
    return std::vector<int64_t>(values.begin(), values.end());
  };
  Nesting nesting{view,
                  table,
                  std::vector<char>(view.blocks.size()),
                  std::vector<uint32_t>(view.blocks.size()),
                  {}};
  for (uint32_t block = 0; block < view.blocks.size(); ++block) {
    uint32_t height = nesting.visit(block, 1);
    if (height == 0 || height > maxNesting)
      return Status::error("metadata: " + what + ": block " +
                           std::to_string(block) +
                           " contains itself, or nests deeper than " +
                           std::to_string(maxNesting));
  }
  // A block that nothing enters may say anything about loops.
  constexpr uint32_t unreached = ~0u;
  loopDepth.assign(view.blocks.size(), unreached);
  loopDepth[0] = 0;
  for (size_t i = nesting.order.size(); i-- > 0;) {
    uint32_t block = nesting.order[i];
    if (loopDepth[block] == unreached)
      continue;
    const Block &range = view.blocks[block];
    for (uint32_t at = 0; at < range.count(); ++at) {
      const Instruction &instruction = view.instructions[range.begin() + at];
      const InstructionInfo &info = *findInstruction(instruction.kind());
      auto check = [&](const Value &value) {
        if (value.kind() != ValueKind::loop_index)
          return Status();
        return inside(static_cast<uint64_t>(value.value()), loopDepth[block],
                      what + ", instruction " +
                          std::to_string(range.begin() + at) +
                          ": enclosing repeat");
      };
      for (const Value &value : view.valuesOf(instruction))
        if (Status s = check(value); !s)
          return s;
      for (const BufferUse &use : view.usesOf(instruction))
        if (Status s = check(use.slot()); !s)
          return s;
      if (!info.isControl())
        continue;
      uint32_t depth =
          loopDepth[block] + (info.kind == InstructionKind::REPEAT ? 1 : 0);
      for (uint32_t inner :
           enteredBlocks(info, view.valuesOf(instruction), table))
        loopDepth[inner] = std::min(loopDepth[inner], depth);
    }
  }
  return Status();
}

} // namespace dshard::plan
