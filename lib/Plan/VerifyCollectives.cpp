// plan_v6, plan_v7: all members of every group meet in the same collectives,
// and every send finds its receive.
//
// Where no table and no pp coordinate lets ranks take different ways, they all
// issue the same list and meet by construction. Otherwise the mesh is projected
// on the axes that make a difference (ranks that differ on the others do the
// same at the same time) and the projected ranks are run against each other: a
// collective waits for all members of its group, a receive waits for its send,
// a send waits for nobody. Each rank counts as one sequence, whatever its
// streams: that is what the CPU does, and more than streams need.
//
// A scalar is equal on all ranks, so its conditions are tried all true (and
// counts 2), then all false (and counts 0).
#include "Verify.h"

#include <algorithm>
#include <array>
#include <deque>

namespace dshard::plan {

namespace {

/// One run of a program.
struct Run {
  uint32_t program;
  uint32_t microBatch;
};
struct Event {
  uint32_t program;
  uint32_t instruction;
  uint32_t microBatch;
};
using Trace = std::vector<Event>;

class EntrySimulation {
public:
  /// `lists`: the programs that each pp coordinate runs, in order; one list
  /// serves all coordinates.
  EntrySimulation(const VerifyContext &context,
                  std::vector<std::vector<Run>> lists)
      : context(context), lists(std::move(lists)) {}
  Status run();

private:
  // Which axes make ranks differ.
  void findAxes(uint32_t program);
  void addAxes(const Value &value);
  void addGroupAxes(uint32_t group);

  // What a rank issues.
  bool communicates(uint32_t program, uint32_t block);
  bool collect(uint32_t program, uint32_t block, uint32_t rank, Trace &trace);
  bool collectInstruction(uint32_t program, uint32_t at, uint32_t rank,
                          Trace &trace);
  Trace traceOf(uint32_t rank);

  // The run.
  Status simulate();
  Status meet(const std::vector<uint32_t> &members);
  Status compare(uint32_t first, uint32_t second) const;
  Status comparePeers(const std::vector<uint32_t> &members) const;
  Status stuck() const;
  const Event &current(uint32_t rank) const {
    return traces[traceIndex[rank]][counter[rank]];
  }
  bool finished(uint32_t rank) const {
    return counter[rank] == traces[traceIndex[rank]].size();
  }
  std::string where(const char *label, const Event &event) const {
    return context.where(label, event.program, event.instruction);
  }

  const VerifyContext &context;
  std::vector<std::vector<Run>> lists;
  uint32_t microBatch = 0; // of the run that is collected
  std::set<uint32_t> axes, controlTables;
  bool hasScalars = false;
  std::map<std::pair<uint32_t, uint32_t>, bool> communicatesCache;
  bool scalarsTrue = true;
  int64_t mostIterations = 0;
  std::vector<int64_t> loops;
  std::vector<uint32_t> ranks;        // projected ranks, as ranks of the mesh
  std::map<uint32_t, uint32_t> local; // and back
  std::vector<Trace> traces;
  std::vector<uint32_t> traceIndex; // per projected rank
  std::vector<size_t> counter;
};

constexpr size_t longestTrace = 1u << 20;

} // namespace

void EntrySimulation::addAxes(const Value &value) {
  if (value.kind() == ValueKind::table)
    for (uint32_t axis : *context.plan.tables()
                              ->Get(static_cast<uint32_t>(value.value()))
                              ->axes())
      axes.insert(axis);
}

void EntrySimulation::addGroupAxes(uint32_t group) {
  for (const AxisRef *ref : *context.plan.groups()->Get(group)->axes())
    axes.insert(ref->axis());
}

void EntrySimulation::findAxes(uint32_t program) {
  const ProgramView &view = context.programs[program];
  for (uint32_t i = 0; i < view.instructions.size(); ++i) {
    InstructionView op(context, program, i, 0);
    switch (op.info.kind) {
    case InstructionKind::CALL:
    case InstructionKind::REPEAT:
    case InstructionKind::IF:
      for (const Value &value : op.values) {
        addAxes(value);
        if (value.kind() == ValueKind::table)
          controlTables.insert(static_cast<uint32_t>(value.value()));
        hasScalars |= value.kind() == ValueKind::scalar;
      }
      break;
    case InstructionKind::SEND:
    case InstructionKind::RECV:
      addGroupAxes(static_cast<uint32_t>(op("group")));
      addAxes(op.info.kind == InstructionKind::SEND ? op.raw("to")
                                                    : op.raw("from"));
      break;
    default:
      break;
    }
  }
}

//===----------------------------------------------------------------------===//
// Traces
//===----------------------------------------------------------------------===//

bool EntrySimulation::communicates(uint32_t program, uint32_t block) {
  auto [entry, isNew] = communicatesCache.try_emplace({program, block}, false);
  if (!isNew)
    return entry->second;
  const ProgramView &view = context.programs[program];
  const Block &range = view.blocks[block];
  bool result = false;
  for (uint32_t i = range.begin(); i < range.begin() + range.count(); ++i) {
    const Instruction &item = view.instructions[i];
    const InstructionInfo &info = *findInstruction(item.kind());
    result |= info.isCollective();
    if (info.isControl())
      for (uint32_t inner :
           enteredBlocks(info, view.valuesOf(item),
                         [&](uint32_t table) { return context.table(table); }))
        result |= communicates(program, inner);
  }
  return communicatesCache[{program, block}] = result;
}

bool EntrySimulation::collect(uint32_t program, uint32_t block, uint32_t rank,
                              Trace &trace) {
  if (!communicates(program, block))
    return true;
  const Block &range = context.programs[program].blocks[block];
  for (uint32_t i = 0; i < range.count(); ++i)
    if (!collectInstruction(program, range.begin() + i, rank, trace))
      return false;
  return true;
}

/// False when the trace became too long.
bool EntrySimulation::collectInstruction(uint32_t program, uint32_t at,
                                         uint32_t rank, Trace &trace) {
  InstructionView op(context, program, at, rank);
  switch (op.info.kind) {
  case InstructionKind::CALL:
    return collect(program, static_cast<uint32_t>(op("block")), rank, trace);
  case InstructionKind::IF: {
    const Value &condition = op.raw("condition");
    bool taken = scalarsTrue;
    if (condition.kind() == ValueKind::loop_index)
      taken = loops[loops.size() - 1 - static_cast<size_t>(condition.value())];
    else if (condition.kind() != ValueKind::scalar)
      taken = context.number(condition, rank) != 0;
    return collect(program,
                   static_cast<uint32_t>(taken ? op("then") : op("else")), rank,
                   trace);
  }
  case InstructionKind::REPEAT: {
    uint32_t body = static_cast<uint32_t>(op("block"));
    if (!communicates(program, body))
      return true;
    int64_t count = scalarsTrue ? 2 : 0;
    if (op.raw("count").kind() != ValueKind::scalar)
      count = std::min(op("count"), mostIterations);
    loops.push_back(0);
    for (int64_t i = 0; i < count; ++i) {
      loops.back() = i;
      if (!collect(program, body, rank, trace))
        return false;
    }
    loops.pop_back();
    return true;
  }
  default:
    if (op.info.isCollective())
      trace.push_back({program, at, microBatch});
    return trace.size() <= longestTrace;
  }
}

Trace EntrySimulation::traceOf(uint32_t rank) {
  int pp = context.topology.findAxis("pp");
  uint32_t list = lists.size() == 1 ? 0 : context.topology.coordinate(rank, pp);
  Trace trace;
  // Very long lists are proved for two rounds of each repeat.
  for (int64_t limit : {INT64_MAX, int64_t{2}}) {
    mostIterations = limit;
    trace.clear();
    loops.clear();
    bool fits = true;
    for (const Run &run : lists[list]) {
      microBatch = run.microBatch;
      fits = fits && collect(run.program, 0, rank, trace);
    }
    if (fits)
      break;
  }
  return trace;
}

//===----------------------------------------------------------------------===//
// Meeting
//===----------------------------------------------------------------------===//

/// Two members of one group at their next collective.
Status EntrySimulation::compare(uint32_t first, uint32_t second) const {
  const Event &a = current(first), &b = current(second);
  if (a.program == b.program && a.instruction == b.instruction)
    return Status();
  InstructionView left(context, a.program, a.instruction, ranks[first]);
  InstructionView right(context, b.program, b.instruction, ranks[second]);
  std::string at =
      where("plan_v6", a) + "rank " + std::to_string(ranks[first]) +
      " meets rank " + std::to_string(ranks[second]) + " at instruction " +
      std::to_string(b.instruction) + " (" + right.info.spelling + ")";
  if (left.info.kind != right.info.kind)
    return Status::error(at + " of another kind in the same group");
  if (left.uses.size() != right.uses.size())
    return Status::error(at + " with another number of operands");
  for (uint32_t u = 0; u < left.uses.size(); ++u) {
    uint32_t lb = left.uses[u].buffer(), rb = right.uses[u].buffer();
    int64_t le = context.elements(a.program, lb);
    int64_t re = context.elements(b.program, rb);
    DataType lt = context.programs[a.program].buffers[lb].dtype();
    DataType rt = context.programs[b.program].buffers[rb].dtype();
    if (le != re || lt != rt)
      return Status::error(at + ": " + context.name(a.program, lb) + " has " +
                           std::to_string(le) + " elements of " + toString(lt) +
                           ", " + context.name(b.program, rb) + " has " +
                           std::to_string(re) + " of " + toString(rt));
  }
  if (left.values.size() != right.values.size())
    return Status::error(at + " with other values");
  for (size_t v = 0; v < left.info.values.size(); ++v) {
    const std::string &name = left.info.values[v].name;
    if (name == "group" || name == "to" || name == "from")
      continue;
    for (uint32_t i = left.layout.valueBegin[v];
         i < left.layout.valueBegin[v + 1]; ++i) {
      int64_t lv = context.number(left.values[i], ranks[first]);
      int64_t rv = context.number(right.values[i], ranks[second]);
      if (lv != rv)
        return Status::error(at + " with " + name + " = " + std::to_string(rv) +
                             ", not " + std::to_string(lv));
    }
  }
  return Status();
}

/// The members of one PERMUTE: each receives from the one that sends to it.
Status
EntrySimulation::comparePeers(const std::vector<uint32_t> &members) const {
  uint32_t size = static_cast<uint32_t>(members.size());
  std::vector<int64_t> to(size), from(size);
  for (uint32_t member : members) {
    const Event &event = current(member);
    InstructionView op(context, event.program, event.instruction,
                       ranks[member]);
    uint32_t position = context.topology.groupPosition(
        static_cast<uint32_t>(op("group")), ranks[member]);
    to[position] = op("to");
    from[position] = op("from");
  }
  for (uint32_t position = 0; position < size; ++position)
    if (from[static_cast<size_t>(to[position])] != position)
      return Status::error(
          where("plan_v7", current(members[0])) + "member " +
          std::to_string(position) + " of the group sends to member " +
          std::to_string(to[position]) + ", which receives from member " +
          std::to_string(from[static_cast<size_t>(to[position])]));
  return Status();
}

/// All members of a group have arrived.
Status EntrySimulation::meet(const std::vector<uint32_t> &members) {
  for (size_t i = 1; i < members.size(); ++i)
    if (Status s = compare(members[0], members[i]); !s)
      return s;
  const Event &event = current(members[0]);
  const Instruction &item =
      context.programs[event.program].instructions[event.instruction];
  if (static_cast<InstructionKind>(item.kind()) == InstructionKind::PERMUTE)
    return comparePeers(members);
  return Status();
}

Status EntrySimulation::stuck() const {
  for (uint32_t rank = 0; rank < ranks.size(); ++rank) {
    if (finished(rank))
      continue;
    const Event &event = current(rank);
    InstructionView op(context, event.program, event.instruction, ranks[rank]);
    uint32_t group = static_cast<uint32_t>(op("group"));
    bool receives = op.info.kind == InstructionKind::RECV;
    std::string text = where(receives ? "plan_v7" : "plan_v6", event) +
                       "rank " + std::to_string(ranks[rank]) +
                       " waits for ever in group '" +
                       context.topology.groupName(group) + "'";
    std::vector<uint32_t> members =
        context.topology.groupRanks(group, ranks[rank]);
    if (receives)
      members = {members[static_cast<size_t>(op("from"))]};
    for (uint32_t member : members) {
      auto found = local.find(member);
      if (found == local.end() || found->second == rank)
        continue;
      uint32_t other = found->second;
      if (finished(other))
        return Status::error(text + ": rank " + std::to_string(member) +
                             " has no more collectives");
      const Event &theirs = current(other);
      if (theirs.program == event.program &&
          theirs.instruction == event.instruction && !receives)
        continue;
      InstructionView their(context, theirs.program, theirs.instruction,
                            member);
      return Status::error(text + ": rank " + std::to_string(member) +
                           " is at instruction " +
                           std::to_string(theirs.instruction) + " (" +
                           their.info.spelling + ")");
    }
    return Status::error(text);
  }
  return Status();
}

Status EntrySimulation::simulate() {
  counter.assign(ranks.size(), 0);
  struct Message {
    Event event;
    uint64_t elements;
    DataType dtype;
  };
  using Channel = std::array<uint64_t, 4>; // source, target, group, tag
  std::map<Channel, std::deque<Message>> messages;
  std::map<Channel, uint32_t> receivers; // waiting
  std::map<std::pair<uint32_t, uint32_t>, std::vector<uint32_t>> arrived;
  std::vector<uint32_t> ready(ranks.size());
  for (uint32_t i = 0; i < ready.size(); ++i)
    ready[i] = static_cast<uint32_t>(ready.size()) - 1 - i;

  while (!ready.empty()) {
    uint32_t rank = ready.back();
    ready.pop_back();
    while (!finished(rank)) {
      const Event &event = current(rank);
      InstructionView op(context, event.program, event.instruction,
                         ranks[rank]);
      uint32_t group = static_cast<uint32_t>(op("group"));
      bool sends = op.info.kind == InstructionKind::SEND;
      if (sends || op.info.kind == InstructionKind::RECV) {
        uint32_t peer = local.at(context.topology.groupRanks(
            group,
            ranks[rank])[static_cast<size_t>(op(sends ? "to" : "from"))]);
        Channel channel = {sends ? rank : peer, sends ? peer : rank, group,
                           static_cast<uint64_t>(op("tag"))};
        uint32_t buffer = op.uses[0].buffer();
        Message mine = {
            event,
            static_cast<uint64_t>(context.elements(event.program, buffer)),
            context.programs[event.program].buffers[buffer].dtype()};
        if (sends) {
          messages[channel].push_back(mine);
          if (auto found = receivers.find(channel); found != receivers.end()) {
            ready.push_back(found->second);
            receivers.erase(found);
          }
        } else {
          std::deque<Message> &queue = messages[channel];
          if (queue.empty()) {
            receivers[channel] = rank;
            break;
          }
          Message sent = queue.front();
          queue.pop_front();
          if (sent.event.microBatch != event.microBatch)
            return Status::error(
                where("plan_v7", event) + "rank " +
                std::to_string(ranks[rank]) + " receives for micro-batch " +
                std::to_string(event.microBatch) + " what rank " +
                std::to_string(ranks[peer]) + " sends for micro-batch " +
                std::to_string(sent.event.microBatch));
          if (sent.elements != mine.elements || sent.dtype != mine.dtype)
            return Status::error(
                where("plan_v7", event) + "rank " +
                std::to_string(ranks[rank]) + " receives " +
                std::to_string(mine.elements) + " elements of " +
                toString(mine.dtype) + ", rank " + std::to_string(ranks[peer]) +
                " sends " + std::to_string(sent.elements) + " of " +
                toString(sent.dtype) + " at instruction " +
                std::to_string(sent.event.instruction));
        }
        ++counter[rank];
        continue;
      }
      std::vector<uint32_t> &waiting =
          arrived[{group, context.topology.groupLeader(group, ranks[rank])}];
      waiting.push_back(rank);
      // Members off the projected axes are copies of the ones here.
      size_t members = 1;
      for (const AxisRef *ref : *context.plan.groups()->Get(group)->axes())
        members *= axes.count(ref->axis()) ? ref->size() : 1;
      if (waiting.size() < members)
        break;
      if (Status s = meet(waiting); !s)
        return s;
      for (uint32_t member : waiting) {
        ++counter[member];
        if (member != rank)
          ready.push_back(member);
      }
      waiting.clear();
    }
  }
  for (uint32_t rank = 0; rank < ranks.size(); ++rank)
    if (!finished(rank))
      return stuck();
  for (auto &[channel, queue] : messages)
    if (!queue.empty())
      return Status::error(
          where("plan_v7", queue.front().event) + "rank " +
          std::to_string(ranks[channel[0]]) + " sends to rank " +
          std::to_string(ranks[channel[1]]) + ", which does not receive it");
  return Status();
}

/// The peers of a PERMUTE that all ranks issue together.
static Status verifyPeers(const VerifyContext &context, uint32_t program) {
  const ProgramView &view = context.programs[program];
  std::set<std::array<int64_t, 5>> seen;
  for (uint32_t i = 0; i < view.instructions.size(); ++i) {
    if (static_cast<InstructionKind>(view.instructions[i].kind()) !=
        InstructionKind::PERMUTE)
      continue;
    InstructionView op(context, program, i, 0);
    const Value &to = op.raw("to"), &from = op.raw("from");
    uint32_t group = static_cast<uint32_t>(op("group"));
    if (!seen.insert({group, static_cast<int64_t>(to.kind()), to.value(),
                      static_cast<int64_t>(from.kind()), from.value()})
             .second)
      continue;
    for (uint32_t rank = 0; rank < context.topology.rankCount(); ++rank) {
      int64_t target = context.number(to, rank);
      uint32_t peer =
          context.topology.groupRanks(group, rank)[static_cast<size_t>(target)];
      uint32_t position = context.topology.groupPosition(group, rank);
      if (context.number(from, peer) != position)
        return Status::error(
            context.where("plan_v7", program, i) + "member " +
            std::to_string(position) + " of the group sends to member " +
            std::to_string(target) + ", which receives from member " +
            std::to_string(context.number(from, peer)));
    }
  }
  return Status();
}

Status EntrySimulation::run() {
  std::set<uint32_t> programs;
  for (const std::vector<Run> &list : lists)
    for (const Run &run : list)
      programs.insert(run.program);
  if (lists.size() > 1)
    axes.insert(static_cast<uint32_t>(context.topology.findAxis("pp")));
  for (uint32_t program : programs)
    findAxes(program);
  if (axes.empty()) {
    for (uint32_t program : programs)
      if (Status s = verifyPeers(context, program); !s)
        return s;
    return Status();
  }
  for (uint32_t program : programs) {
    const ProgramView &view = context.programs[program];
    for (uint32_t i = 0; i < view.instructions.size(); ++i) {
      InstructionView op(context, program, i, 0);
      if (op.info.kind != InstructionKind::PERMUTE)
        continue;
      addGroupAxes(static_cast<uint32_t>(op("group")));
      addAxes(op.raw("to"));
      addAxes(op.raw("from"));
    }
  }
  for (uint32_t rank = 0; rank < context.topology.rankCount(); ++rank) {
    bool isProjected = true;
    for (uint32_t axis = 0; axis < context.topology.axisSizes().size(); ++axis)
      isProjected &=
          axes.count(axis) != 0 || context.topology.coordinate(rank, axis) == 0;
    if (isProjected) {
      local[rank] = static_cast<uint32_t>(ranks.size());
      ranks.push_back(rank);
    }
  }
  int pp = context.topology.findAxis("pp");
  for (bool value : {true, false}) {
    scalarsTrue = value;
    traces.clear();
    traceIndex.clear();
    std::map<std::vector<int64_t>, uint32_t> classes;
    for (uint32_t rank : ranks) {
      std::vector<int64_t> key = {
          pp < 0 ? 0 : int64_t{context.topology.coordinate(rank, pp)}};
      for (uint32_t table : controlTables)
        key.push_back(context.topology.tableEntry(table, rank));
      auto [found, isNew] = classes.try_emplace(
          std::move(key), static_cast<uint32_t>(traces.size()));
      if (isNew)
        traces.push_back(traceOf(rank));
      traceIndex.push_back(found->second);
    }
    if (Status s = simulate(); !s)
      return s;
    if (!hasScalars)
      break;
  }
  return Status();
}

Status verifyCollectives(const VerifyContext &context) {
  const Plan &plan = context.plan;
  if (Status s = EntrySimulation(context, {{{plan.load(), 0}}}).run(); !s)
    return s;
  for (const Entry *entry : *plan.entries()) {
    std::vector<std::vector<Run>> lists;
    for (const ActionList *list : *entry->actions()) {
      lists.emplace_back();
      for (const Action *action : *list->actions())
        lists.back().push_back(
            {entry->programs()->Get(action->stage()), action->micro_batch()});
    }
    if (Status s = EntrySimulation(context, std::move(lists)).run(); !s)
      return s;
  }
  return Status();
}

} // namespace dshard::plan
