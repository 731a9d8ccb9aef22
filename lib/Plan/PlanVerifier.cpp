#include "Verify.h"

#include <algorithm>

namespace dshard::plan {

VerifyContext::VerifyContext(const Plan &plan) : plan(plan), topology(plan) {
  for (const Program *program : *plan.programs())
    programs.emplace_back(*program);
}

std::string VerifyContext::where(const char *label, uint32_t program,
                                 uint32_t instruction) const {
  const Instruction &item = programs[program].instructions[instruction];
  std::string result = std::string("[") + label + "] program '" +
                       text(plan.programs()->Get(program)->name()) +
                       "', instruction " + std::to_string(instruction) + " (" +
                       findInstruction(item.kind())->spelling;
  if (item.node())
    result += ", node '" + text(item.node()) + "'";
  return result + "): ";
}

std::string VerifyContext::name(uint32_t program, uint32_t buffer) const {
  return "buffer " + std::to_string(buffer) + " '" +
         text(programs[program].buffers[buffer].name()) + "'";
}

std::vector<int64_t> VerifyContext::table(uint32_t index) const {
  const auto &values = *plan.tables()->Get(index)->values();
  return std::vector<int64_t>(values.begin(), values.end());
}

std::vector<uint32_t>
VerifyContext::representatives(const std::set<uint32_t> &tables) const {
  if (tables.empty())
    return {0};
  std::vector<uint32_t> result;
  std::set<std::vector<int64_t>> seen;
  for (uint32_t rank = 0; rank < topology.rankCount(); ++rank) {
    std::vector<int64_t> key;
    for (uint32_t table : tables)
      key.push_back(topology.tableEntry(table, rank));
    if (seen.insert(std::move(key)).second)
      result.push_back(rank);
  }
  return result;
}

int64_t VerifyContext::elements(uint32_t program, uint32_t buffer) const {
  const Buffer &item = programs[program].buffers[buffer];
  const auto &dims = *plan.programs()->Get(program)->dims();
  int64_t count = 1;
  for (uint32_t i = 0; i < item.dims_count(); ++i)
    count *= dims.Get(item.dims_begin() + i);
  return count;
}

//===----------------------------------------------------------------------===//
// Instructions by name
//===----------------------------------------------------------------------===//

InstructionView::InstructionView(const VerifyContext &context, uint32_t program,
                                 uint32_t index, uint32_t rank)
    : info(*findInstruction(
          context.programs[program].instructions[index].kind())),
      uses(context.programs[program].usesOf(
          context.programs[program].instructions[index])),
      values(context.programs[program].valuesOf(
          context.programs[program].instructions[index])),
      context(context), rank(rank) {
  // The reader has found the layout to be right.
  layout =
      *InstructionLayout::get(info, values.data, values.size(), uses.size());
}

const Value &InstructionView::raw(const char *name) const {
  return values[layout.valueBegin[info.findValue(name)]];
}

int64_t InstructionView::operator()(const char *name, uint32_t at) const {
  return context.number(values[layout.valueBegin[info.findValue(name)] + at],
                        rank);
}

int InstructionView::use(const char *name) const {
  for (size_t i = 0; i < info.uses.size(); ++i)
    if (info.uses[i].name == name) {
      uint32_t at = layout.useBegin[i];
      return uses[at].buffer() == absentBuffer ? -1 : static_cast<int>(at);
    }
  return -1;
}

const UseInfo &InstructionView::role(uint32_t use) const {
  size_t i = 0;
  while (layout.useBegin[i + 1] <= use)
    ++i;
  return info.uses[i];
}

//===----------------------------------------------------------------------===//
// plan_v5, plan_v8, plan_v9
//===----------------------------------------------------------------------===//

static Status verifyStateLayout(const VerifyContext &context) {
  const Plan &plan = context.plan;
  std::vector<uint32_t> order(plan.states()->size());
  for (uint32_t i = 0; i < order.size(); ++i)
    order[i] = i;
  auto offset = [&](uint32_t state) {
    return plan.states()->Get(state)->offset();
  };
  std::sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) {
    return offset(a) != offset(b) ? offset(a) < offset(b) : a < b;
  });
  const State *last = nullptr;
  for (uint32_t index : order) {
    const State &state = *plan.states()->Get(index);
    if (state.size() == 0)
      continue;
    if (last && last->offset() + last->size() > state.offset())
      return Status::error("[plan_v5] state '" + context.text(state.name()) +
                           "' begins at " + std::to_string(state.offset()) +
                           " inside state '" + context.text(last->name()) +
                           "', which ends at " +
                           std::to_string(last->offset() + last->size()));
    last = &state;
  }
  return Status();
}

/// A use of a state by one instruction.
static Status verifyStateUse(const VerifyContext &context, uint32_t program,
                             uint32_t index, uint32_t use) {
  const ProgramView &view = context.programs[program];
  const Instruction &item = view.instructions[index];
  const BufferUse &itemUse = view.usesOf(item)[use];
  const State &state =
      *context.plan.states()->Get(view.buffers[itemUse.buffer()].state());
  InstructionView instruction(context, program, index, 0);
  auto fail = [&](const std::string &why) {
    return Status::error(context.where("plan_v5", program, index) + "state '" +
                         context.text(state.name()) + "' " + why);
  };
  bool written = itemUse.access() != Access::read;
  bool isLoad = program == context.plan.load();
  if (written && !isLoad && !state.written())
    return fail("is not one that programs other than the load program may "
                "write");
  if (state.layout() != StateLayout::packed)
    return Status();
  if (written && instruction.info.kind != InstructionKind::PACK_RHS)
    return fail("is packed, and only pack_rhs may write it");
  if (!written && (instruction.info.kind != InstructionKind::MATMUL ||
                   instruction.use("rhs") != static_cast<int>(use) ||
                   instruction("packed") != 1))
    return fail("is packed, and only a packed matmul may read it");
  return Status();
}

Status verifyStates(const VerifyContext &context) {
  if (Status s = verifyStateLayout(context); !s)
    return s;
  const Plan &plan = context.plan;
  std::vector<bool> loaded(plan.states()->size());
  for (uint32_t p = 0; p < context.programs.size(); ++p) {
    const ProgramView &view = context.programs[p];
    for (uint32_t i = 0; i < view.instructions.size(); ++i) {
      Slice<BufferUse> uses = view.usesOf(view.instructions[i]);
      for (uint32_t u = 0; u < uses.size(); ++u) {
        if (uses[u].buffer() == absentBuffer ||
            view.buffers[uses[u].buffer()].space() != Space::state)
          continue;
        if (Status s = verifyStateUse(context, p, i, u); !s)
          return s;
        if (p == plan.load() && uses[u].access() != Access::read)
          loaded[view.buffers[uses[u].buffer()].state()] = true;
      }
    }
  }
  for (uint32_t i = 0; i < loaded.size(); ++i) {
    const State &state = *plan.states()->Get(i);
    if (state.initializer() == InitializerKind::load && !loaded[i])
      return Status::error(
          "[plan_v5] state '" + context.text(state.name()) +
          "' is initialised by the load program '" +
          context.text(plan.programs()->Get(plan.load())->name()) +
          "', which does not write it");
  }
  return Status();
}

Status verifyLiveRanges(const VerifyContext &context) {
  const Plan &plan = context.plan;
  for (uint32_t p = 0; p < context.programs.size(); ++p) {
    std::vector<uint32_t> inputs, outputs;
    for (const Entry *entry : *plan.entries()) {
      for (const Port *port : *entry->inputs())
        if (port->program() == p)
          inputs.push_back(port->buffer());
      for (const Port *port : *entry->outputs())
        if (port->program() == p)
          outputs.push_back(port->buffer());
    }
    const ProgramView &view = context.programs[p];
    auto ranges = liveRanges(view, inputs, outputs, [&](uint32_t table) {
      return context.table(table);
    });
    for (uint32_t b = 0; b < ranges.size(); ++b) {
      const Buffer &buffer = view.buffers[b];
      if (buffer.live_begin() != ranges[b].first ||
          buffer.live_end() != ranges[b].second)
        return Status::error(
            "[plan_v8] program '" +
            context.text(plan.programs()->Get(p)->name()) +
            "': " + context.name(p, b) + " says it is live from instruction " +
            std::to_string(buffer.live_begin()) + " to " +
            std::to_string(buffer.live_end()) + ", its uses say " +
            std::to_string(ranges[b].first) + " to " +
            std::to_string(ranges[b].second));
    }
  }
  return Status();
}

static Status verifyPort(const VerifyContext &context, const Entry &entry,
                         const Port &port, std::set<uint32_t> &names) {
  auto fail = [&](const std::string &why) {
    return Status::error("[plan_v9] entry '" + context.text(entry.name()) +
                         "', '" + context.text(port.name()) + "': " + why);
  };
  if (!names.insert(port.name()).second)
    return fail("there are two of this name");
  if (std::find(entry.programs()->begin(), entry.programs()->end(),
                port.program()) == entry.programs()->end())
    return fail("lies in program " + std::to_string(port.program()) +
                ", which the entry does not run");
  if (context.programs[port.program()].buffers[port.buffer()].space() ==
      Space::state)
    return Status();
  for (uint32_t dim = 0; dim < port.global()->dims()->size(); ++dim) {
    int64_t shards = 1;
    if (dim < port.sharding()->dims()->size())
      for (const AxisRef *ref : *port.sharding()->dims()->Get(dim)->axes())
        shards *= ref->size();
    int64_t global = port.global()->dims()->Get(dim);
    int64_t local = port.local()->dims()->Get(dim);
    if (local != (global + shards - 1) / shards)
      return fail("dim " + std::to_string(dim) + " of size " +
                  std::to_string(global) + " in " + std::to_string(shards) +
                  " shards has local size " + std::to_string(local) +
                  ", expected " +
                  std::to_string((global + shards - 1) / shards));
  }
  return Status();
}

Status verifyEntries(const VerifyContext &context) {
  const Plan &plan = context.plan;
  int pp = context.topology.findAxis("pp");
  uint32_t lists = pp < 0 ? 1 : context.topology.axisSizes()[pp];
  std::set<uint32_t> entryNames;
  for (const Entry *entry : *plan.entries()) {
    if (!entryNames.insert(entry->name()).second)
      return Status::error("[plan_v9] there are two entries '" +
                           context.text(entry->name()) + "'");
    if (entry->actions()->size() != lists)
      return Status::error("[plan_v9] entry '" + context.text(entry->name()) +
                           "' has " + std::to_string(entry->actions()->size()) +
                           " action lists for " + std::to_string(lists) +
                           " pp coordinates");
    std::set<uint32_t> inputs, outputs;
    for (const Port *port : *entry->inputs())
      if (Status s = verifyPort(context, *entry, *port, inputs); !s)
        return s;
    for (const Port *port : *entry->outputs())
      if (Status s = verifyPort(context, *entry, *port, outputs); !s)
        return s;
  }
  return Status();
}

Status verifyPlan(const Plan &plan) {
  VerifyContext context(plan);
  for (Status (*verify)(const VerifyContext &) :
       {verifyEntries, verifyStates, verifySizes, verifyMemory,
        verifyCollectives, verifyLiveRanges})
    if (Status s = verify(context); !s)
      return s;
  return Status();
}

} // namespace dshard::plan
