#include "Verify.h"
#include "dshard/Plan/RankShare.h"

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

const std::vector<uint32_t> &
VerifyContext::representatives(const std::set<uint32_t> &tables,
                               bool byStage) const {
  int pp = byStage ? topology.findAxis("pp") : -1;
  auto [known, isNew] = knownRepresentatives.try_emplace({tables, byStage});
  std::vector<uint32_t> &result = known->second;
  if (!isNew)
    return result;
  if (tables.empty() && pp < 0) {
    result.push_back(0);
    return result;
  }
  std::set<std::vector<int64_t>> seen;
  for (uint32_t rank = 0; rank < topology.rankCount(); ++rank) {
    std::vector<int64_t> key;
    for (uint32_t table : tables)
      key.push_back(topology.tableEntry(table, rank));
    if (pp >= 0)
      key.push_back(topology.coordinate(rank, static_cast<uint32_t>(pp)));
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

bool isFileOrigin(const InstructionInfo &info, const InstructionLayout &layout,
                  size_t value) {
  return info.kind == InstructionKind::LOAD_SLICE &&
         value < layout.valueBegin[info.findValue("sizes")];
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

/// Of the states that lie on one rank.
static Status verifyStateLayout(const VerifyContext &context,
                                const RankShare &share) {
  const Plan &plan = context.plan;
  std::vector<uint32_t> order;
  for (uint32_t i = 0; i < plan.states()->size(); ++i)
    if (share.holds(*plan.states()->Get(i)))
      order.push_back(i);
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
  uint32_t stage = context.plan.programs()->Get(program)->stage();
  if (!isLoad && state.stage() >= 0 &&
      static_cast<uint32_t>(state.stage()) != stage)
    return fail("belongs to stage " + std::to_string(state.stage()) +
                ", the program to stage " + std::to_string(stage));
  if (state.layout() != StateLayout::packed)
    return Status();
  if (written && instruction.info.kind != InstructionKind::PACK_RHS)
    return fail("is packed, and only pack_rhs may write it");
  bool isProduct = instruction.info.kind == InstructionKind::MATMUL ||
                   instruction.info.kind == InstructionKind::GROUPED_MATMUL;
  if (!written &&
      (!isProduct || instruction.use("rhs") != static_cast<int>(use) ||
       instruction("packed") != 1))
    return fail("is packed, and only a packed matmul may read it");
  return Status();
}

Status verifyStates(const VerifyContext &context) {
  for (uint32_t i = 0; i < stageRanks(context.plan); ++i)
    if (Status s = verifyStateLayout(context, rankShare(context.plan, i)); !s)
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
                         const Port &port,
                         std::set<std::pair<uint32_t, uint32_t>> &names) {
  auto fail = [&](const std::string &why) {
    return Status::error("[plan_v9] entry '" + context.text(entry.name()) +
                         "', '" + context.text(port.name()) + "': " + why);
  };
  // An input goes to every stage that reads it.
  if (!names.insert({port.name(), port.program()}).second)
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

/// All ports of one name are of one tensor; an output comes from one program.
static Status verifySameTensor(const VerifyContext &context,
                               const Entry &entry) {
  auto fail = [&](const Port &port, const std::string &why) {
    return Status::error("[plan_v9] entry '" + context.text(entry.name()) +
                         "', '" + context.text(port.name()) + "': " + why);
  };
  auto same = [](const auto *left, const auto *right) {
    return std::equal(left->begin(), left->end(), right->begin(), right->end());
  };
  std::map<uint32_t, const Port *> first;
  for (const Port *port : *entry.inputs()) {
    auto [known, isNew] = first.try_emplace(port->name(), port);
    if (!isNew &&
        (known->second->global()->dtype() != port->global()->dtype() ||
         !same(known->second->global()->dims(), port->global()->dims())))
      return fail(*port, "has two types on two stages");
    if (const Sharding *sharding = port->sharding();
        sharding && sharding->partial() && sharding->partial()->size() != 0)
      return fail(*port, "is a partial input: every rank would take the whole "
                         "value for its share of a sum");
  }
  std::set<uint32_t> outputs;
  for (const Port *port : *entry.outputs())
    if (!outputs.insert(port->name()).second)
      return fail(*port, "there are two of this name");
  return Status();
}

/// Each stage runs every micro-batch once, in a program of its own.
static Status verifyActions(const VerifyContext &context, const Entry &entry) {
  auto fail = [&](const std::string &why) {
    return Status::error("[plan_v9] entry '" + context.text(entry.name()) +
                         "': " + why);
  };
  if (entry.micro_batches() == 0)
    return fail("has no micro-batch");
  uint32_t stages = entry.programs()->size();
  for (uint32_t i = 0; stages > 1 && i < stages; ++i)
    if (uint32_t stage =
            context.plan.programs()->Get(entry.programs()->Get(i))->stage();
        stage != i)
      return fail("runs the program of stage " + std::to_string(stage) +
                  " as stage " + std::to_string(i));
  // By (stage, kind): in which list, and which micro-batches.
  std::map<std::pair<uint32_t, ActionKind>, uint32_t> home;
  std::set<uint32_t> run;
  for (uint32_t list = 0; list < entry.actions()->size(); ++list) {
    std::map<std::pair<uint32_t, ActionKind>, std::set<uint32_t>> done;
    for (const Action *action : *entry.actions()->Get(list)->actions()) {
      std::pair<uint32_t, ActionKind> key = {action->stage(), action->kind()};
      std::string what = "action " + std::to_string(action->stage()) + "." +
                         std::to_string(action->micro_batch());
      run.insert(action->stage());
      if (!done[key].insert(action->micro_batch()).second)
        return fail(what + " comes twice at pp coordinate " +
                    std::to_string(list));
      auto [known, isNew] = home.try_emplace(key, list);
      if (!isNew && stages > 1 && known->second != list)
        return fail("stage " + std::to_string(action->stage()) +
                    " is at the pp coordinates " +
                    std::to_string(known->second) + " and " +
                    std::to_string(list));
    }
    for (const auto &[key, batches] : done)
      if (batches.size() != entry.micro_batches())
        return fail("pp coordinate " + std::to_string(list) + " runs " +
                    std::to_string(batches.size()) + " of " +
                    std::to_string(entry.micro_batches()) +
                    " micro-batches of stage " + std::to_string(key.first));
  }
  if (run.size() != stages)
    return fail("runs " + std::to_string(run.size()) + " of its " +
                std::to_string(stages) + " stages");
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
    if (Status s = verifyActions(context, *entry); !s)
      return s;
    std::set<std::pair<uint32_t, uint32_t>> inputs, outputs;
    for (const Port *port : *entry->inputs())
      if (Status s = verifyPort(context, *entry, *port, inputs); !s)
        return s;
    for (const Port *port : *entry->outputs())
      if (Status s = verifyPort(context, *entry, *port, outputs); !s)
        return s;
    if (Status s = verifySameTensor(context, *entry); !s)
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
