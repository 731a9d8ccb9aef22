// plan_v1, plan_v2, plan_v3: what lies in memory when, on every path.
//
// The program is executed symbolically, once per set of ranks that its tables
// cannot tell apart. Memory is a map of segments, each owned by the base buffer
// that wrote it last: reading through another base is reading what was never
// written, or what was overwritten too early. Streams are ordered by vector
// clocks. A repeat is walked until every slot has been used and reused once;
// where a scalar decides, both ways are walked and only what holds on both is
// kept.
#include "Verify.h"
#include "dshard/Plan/RankShare.h"

#include <algorithm>

namespace dshard::plan {

namespace {

/// Time on each stream: what happened before.
using Clock = std::vector<uint32_t>;

constexpr uint32_t nobody = ~0u;

struct Segment {
  uint64_t end = 0;
  uint32_t owner = nobody; // base buffer; `nobody`: lost on some path
  Clock writes, reads;     // last access per stream; empty with one stream
};

struct Memory {
  std::map<uint64_t, Segment> arena, state; // by first byte
  std::vector<Clock> known;  // per stream: what it has waited for
  std::vector<Clock> events; // empty: not recorded
};

void raise(Clock &clock, const Clock &other) {
  if (clock.size() < other.size())
    clock.resize(other.size());
  for (size_t i = 0; i < other.size(); ++i)
    clock[i] = std::max(clock[i], other[i]);
}

void lower(Clock &clock, const Clock &other) {
  clock.resize(std::min(clock.size(), other.size()));
  for (size_t i = 0; i < clock.size(); ++i)
    clock[i] = std::min(clock[i], other[i]);
}

/// What is known of a map when either happened.
std::map<uint64_t, Segment> join(const std::map<uint64_t, Segment> &left,
                                 const std::map<uint64_t, Segment> &right) {
  std::map<uint64_t, Segment> result;
  auto a = left.begin(), b = right.begin();
  uint64_t at = 0;
  while (a != left.end() || b != right.end()) {
    while (a != left.end() && a->second.end <= at)
      ++a;
    while (b != right.end() && b->second.end <= at)
      ++b;
    bool inA = a != left.end() && a->first <= at;
    bool inB = b != right.end() && b->first <= at;
    uint64_t end = ~uint64_t{0};
    if (a != left.end())
      end = std::min(end, inA ? a->second.end : a->first);
    if (b != right.end())
      end = std::min(end, inB ? b->second.end : b->first);
    if (end == ~uint64_t{0})
      break;
    if (inA || inB) {
      Segment segment = inA ? a->second : b->second;
      if (inA && inB) {
        if (segment.owner != b->second.owner)
          segment.owner = nobody;
        raise(segment.writes, b->second.writes);
        raise(segment.reads, b->second.reads);
      } else {
        segment.owner = nobody;
      }
      segment.end = end;
      result.emplace_hint(result.end(), at, std::move(segment));
    }
    at = end;
  }
  return result;
}

class Interpreter {
public:
  /// `share`: what the rank holds; null: what a stage's program may use is
  /// checked by verifyStates.
  Interpreter(const VerifyContext &context, uint32_t program, uint32_t rank,
              const RankShare *share)
      : context(context), index(program), rank(rank), share(share),
        view(context.programs[program]) {
    const Program &item = *context.plan.programs()->Get(program);
    streams = item.streams();
    now.resize(streams, 1);
    memory.known.assign(streams, Clock(streams, 0));
    memory.events.resize(item.events());
    for (const Buffer &buffer : view.buffers)
      most = std::max<uint64_t>(most, buffer.slots());
  }

  Status run();

private:
  Status block(uint32_t block);
  Status instruction(uint32_t at);
  Status repeat(const InstructionView &op);
  Status branch(const InstructionView &op);
  Status event(uint32_t at, const InstructionView &op);
  Status inPlace(uint32_t at, const InstructionView &op) const;
  Status touch(uint32_t at, const InstructionView &op, uint32_t use,
               bool isWrite);
  Status read(uint64_t begin, uint64_t end, uint32_t buffer, uint16_t stream,
              const std::string &where);
  Status write(uint64_t begin, uint64_t end, uint32_t buffer, uint16_t stream,
               const std::string &where);
  Status ordered(const Clock &accesses, uint16_t stream, uint32_t buffer,
                 const char *what, const std::string &where) const;

  /// Absolute bytes of a use in its space.
  std::pair<uint64_t, uint64_t> bytes(const InstructionView &op,
                                      uint32_t use) const;
  uint64_t slotBegin(const BufferUse &use) const;
  int64_t number(const Value &value) const {
    if (value.kind() == ValueKind::loop_index)
      return loops[loops.size() - 1 - static_cast<size_t>(value.value())];
    if (value.kind() == ValueKind::micro_batch)
      return microBatch;
    return context.number(value, rank);
  }
  std::map<uint64_t, Segment> &space(uint32_t buffer) {
    return view.buffers[buffer].space() == Space::arena ? memory.arena
                                                        : memory.state;
  }
  static void split(std::map<uint64_t, Segment> &map, uint64_t at);
  void joinWith(const Memory &other);

  const VerifyContext &context;
  uint32_t index, rank;
  const RankShare *share;
  const ProgramView &view;
  uint32_t streams;
  uint64_t most = 1; // slots
  Clock now;         // per stream
  Memory memory;
  std::vector<int64_t> loops; // iteration of each enclosing repeat
  int64_t microBatch = 0;
  std::set<uint32_t> loaded; // states, where there is a share
};

} // namespace

uint64_t Interpreter::slotBegin(const BufferUse &use) const {
  const Buffer &buffer = view.buffers[use.buffer()];
  uint64_t begin = buffer.offset();
  if (buffer.space() == Space::state)
    begin += context.plan.states()->Get(buffer.state())->offset();
  uint64_t slot = static_cast<uint64_t>(number(use.slot())) % buffer.slots();
  return begin + slot * buffer.slot_stride();
}

std::pair<uint64_t, uint64_t> Interpreter::bytes(const InstructionView &op,
                                                 uint32_t use) const {
  ByteRange range = touchedBytes(context, index, op, use);
  uint64_t begin = slotBegin(op.uses[use]);
  return {begin + static_cast<uint64_t>(range.begin),
          begin + static_cast<uint64_t>(range.end)};
}

/// Makes a segment end at `at`.
void Interpreter::split(std::map<uint64_t, Segment> &map, uint64_t at) {
  auto next = map.lower_bound(at);
  if (next == map.begin() || (next != map.end() && next->first == at))
    return;
  auto previous = std::prev(next);
  if (previous->second.end <= at)
    return;
  Segment tail = previous->second;
  previous->second.end = at;
  map.emplace_hint(next, at, std::move(tail));
}

Status Interpreter::ordered(const Clock &accesses, uint16_t stream,
                            uint32_t buffer, const char *what,
                            const std::string &where) const {
  for (uint32_t other = 0; other < accesses.size(); ++other)
    if (other != stream && accesses[other] > memory.known[stream][other])
      return Status::error("[plan_v2] " + where + context.name(index, buffer) +
                           " was " + what + " on stream " +
                           std::to_string(other) + ", and stream " +
                           std::to_string(stream) + " has not waited for it");
  return Status();
}

Status Interpreter::read(uint64_t begin, uint64_t end, uint32_t buffer,
                         uint16_t stream, const std::string &where) {
  bool isArena = view.buffers[buffer].space() == Space::arena;
  bool isScalar = view.buffers[buffer].space() == Space::scalar;
  if (begin >= end || isScalar || (!isArena && streams == 1))
    return Status();
  std::map<uint64_t, Segment> &map = space(buffer);
  if (streams > 1) {
    split(map, begin);
    split(map, end);
  }
  uint32_t base = view.buffers[buffer].base();
  auto lost = [&](uint64_t at, const std::string &why) {
    uint64_t from = at - view.buffers[buffer].offset();
    return Status::error("[plan_v1] " + where + context.name(index, buffer) +
                         " is read at byte " + std::to_string(from) + " " +
                         why);
  };
  auto segment = map.upper_bound(begin);
  if (segment != map.begin() && std::prev(segment)->second.end > begin)
    --segment;
  uint64_t at = begin;
  for (; at < end && segment != map.end() && segment->first < end; ++segment) {
    if (isArena && segment->first > at)
      break;
    Segment &item = segment->second;
    if (isArena && item.owner != base)
      return item.owner == nobody
                 ? lost(std::max(at, segment->first),
                        "before it is written on every path")
                 : lost(std::max(at, segment->first),
                        "after " + context.name(index, item.owner) +
                            " has overwritten it, or before it is written");
    if (streams > 1) {
      if (Status s = ordered(item.writes, stream, buffer, "written", where); !s)
        return s;
      item.reads.resize(streams);
      item.reads[stream] = now[stream];
    }
    at = item.end;
  }
  if (isArena && at < end)
    return lost(at, "before it is written");
  return Status();
}

Status Interpreter::write(uint64_t begin, uint64_t end, uint32_t buffer,
                          uint16_t stream, const std::string &where) {
  bool isArena = view.buffers[buffer].space() == Space::arena;
  if (begin >= end || (!isArena && streams == 1))
    return Status();
  std::map<uint64_t, Segment> &map = space(buffer);
  split(map, begin);
  split(map, end);
  auto first = map.lower_bound(begin), last = first;
  for (; last != map.end() && last->first < end; ++last) {
    if (Status s =
            ordered(last->second.writes, stream, buffer, "written", where);
        !s)
      return s;
    if (Status s = ordered(last->second.reads, stream, buffer, "read", where);
        !s)
      return s;
  }
  map.erase(first, last);
  Segment segment;
  segment.end = end;
  segment.owner = view.buffers[buffer].base();
  if (streams > 1) {
    segment.writes.resize(streams);
    segment.writes[stream] = now[stream];
  }
  map.emplace(begin, std::move(segment));
  return Status();
}

Status Interpreter::touch(uint32_t at, const InstructionView &op, uint32_t use,
                          bool isWrite) {
  const Buffer &place = view.buffers[op.uses[use].buffer()];
  if (share && place.space() == Space::state &&
      !share->holds(*context.plan.states()->Get(place.state())))
    return Status::error(
        context.where("plan_v5", index, at) + "state '" +
        context.text(context.plan.states()->Get(place.state())->name()) +
        "' of stage " +
        std::to_string(context.plan.states()->Get(place.state())->stage()) +
        " is not held by rank " + std::to_string(rank));
  if (share && isWrite && place.space() == Space::state)
    loaded.insert(place.state());
  std::pair<uint64_t, uint64_t> range = bytes(op, use);
  uint16_t stream = view.instructions[at].stream();
  // Built only when needed: this runs for every use.
  auto run = [&](const std::string &where) {
    uint32_t buffer = op.uses[use].buffer();
    return isWrite ? write(range.first, range.second, buffer, stream, where)
                   : read(range.first, range.second, buffer, stream, where);
  };
  Status status = run("");
  if (status)
    return status;
  std::string text = status.message(); // "[plan_v1] buffer ..."
  std::string label = text.substr(1, 7);
  return Status::error(context.where(label.c_str(), index, at) +
                       text.substr(10));
}

/// plan_v3: a result beside its operands and other results.
Status Interpreter::inPlace(uint32_t at, const InstructionView &op) const {
  auto present = [&](uint32_t use) {
    return op.uses[use].buffer() != absentBuffer;
  };
  for (uint32_t out = 0; out < op.uses.size(); ++out) {
    if (!present(out) || op.uses[out].access() == Access::read)
      continue;
    const Buffer &target = view.buffers[op.uses[out].buffer()];
    auto [begin, end] = bytes(op, out);
    for (uint32_t other = 0; other < op.uses.size(); ++other) {
      if (other == out || !present(other))
        continue;
      const Buffer &source = view.buffers[op.uses[other].buffer()];
      if (source.space() != target.space())
        continue;
      auto [from, to] = bytes(op, other);
      if (from >= end || begin >= to)
        continue;
      bool isRead = op.uses[other].access() == Access::read;
      bool same =
          from == begin && to == end && source.dtype() == target.dtype();
      bool allowed = false;
      if (isRead && same) {
        if (op.info.kind == InstructionKind::LAUNCH)
          allowed = true;
        else if (op.info.kind == InstructionKind::ALL_REDUCE)
          allowed = out == other + op.uses.size() / 2;
        else if (op.info.kind == InstructionKind::MATMUL)
          allowed = op.role(other).name == "residual" &&
                    op("ldr") == op("ldc") &&
                    op("stride_residual") == op("stride_out");
        else if (op.info.kind == InstructionKind::MATMUL_NBITS)
          allowed = op.role(other).name == "residual" && op("ldr") == op("ldc");
      }
      if (!allowed)
        return Status::error(
            context.where("plan_v3", index, at) + "result " +
            context.name(index, op.uses[out].buffer()) + " [" +
            std::to_string(begin) + ", " + std::to_string(end) +
            ") overlaps '" + op.role(other).name + "' " +
            context.name(index, op.uses[other].buffer()) + " [" +
            std::to_string(from) + ", " + std::to_string(to) + ")");
    }
  }
  return Status();
}

Status Interpreter::event(uint32_t at, const InstructionView &op) {
  uint16_t stream = view.instructions[at].stream();
  Clock &event = memory.events[static_cast<size_t>(op("event"))];
  if (op.info.kind == InstructionKind::RECORD) {
    event = memory.known[stream];
    event[stream] = now[stream];
    return Status();
  }
  if (event.empty())
    return Status::error(context.where("plan_v2", index, at) + "event " +
                         std::to_string(op("event")) +
                         " is waited for before it is recorded");
  raise(memory.known[stream], event);
  return Status();
}

void Interpreter::joinWith(const Memory &other) {
  memory.arena = join(memory.arena, other.arena);
  memory.state = join(memory.state, other.state);
  for (size_t i = 0; i < memory.known.size(); ++i)
    lower(memory.known[i], other.known[i]);
  for (size_t i = 0; i < memory.events.size(); ++i)
    lower(memory.events[i], other.events[i]);
}

Status Interpreter::repeat(const InstructionView &op) {
  const Value &count = op.raw("count");
  bool isKnown = count.kind() != ValueKind::scalar;
  // One round to use every slot, one iteration more to meet what it left.
  int64_t rounds = static_cast<int64_t>(most) + 1;
  if (isKnown)
    rounds = std::min(rounds, context.number(count, rank));
  Memory before;
  if (!isKnown)
    before = memory;
  loops.push_back(0);
  for (int64_t i = 0; i < rounds; ++i) {
    loops.back() = i;
    if (Status s = block(static_cast<uint32_t>(op("block"))); !s)
      return s;
    if (!isKnown) { // it may end here, or go on
      Memory after = memory;
      std::swap(memory, before);
      joinWith(after);
      std::swap(memory, before);
    }
  }
  loops.pop_back();
  if (!isKnown)
    memory = std::move(before);
  return Status();
}

Status Interpreter::branch(const InstructionView &op) {
  const Value &condition = op.raw("condition");
  if (condition.kind() != ValueKind::scalar)
    return block(
        static_cast<uint32_t>(number(condition) ? op("then") : op("else")));
  Memory before = memory;
  if (Status s = block(static_cast<uint32_t>(op("then"))); !s)
    return s;
  std::swap(memory, before);
  if (Status s = block(static_cast<uint32_t>(op("else"))); !s)
    return s;
  joinWith(before);
  return Status();
}

Status Interpreter::instruction(uint32_t at) {
  InstructionView op(context, index, at, rank);
  switch (op.info.kind) {
  case InstructionKind::CALL:
    return block(static_cast<uint32_t>(op("block")));
  case InstructionKind::REPEAT:
    return repeat(op);
  case InstructionKind::IF:
    return branch(op);
  case InstructionKind::RECORD:
  case InstructionKind::WAIT:
    return event(at, op);
  default:
    break;
  }
  ++now[view.instructions[at].stream()];
  for (bool isWrite : {false, true})
    for (uint32_t use = 0; use < op.uses.size(); ++use) {
      if (op.uses[use].buffer() == absentBuffer)
        continue;
      Access access = op.uses[use].access();
      if (access != Access::read_write && (access == Access::write) != isWrite)
        continue;
      if (Status s = touch(at, op, use, isWrite); !s)
        return s;
    }
  return inPlace(at, op);
}

Status Interpreter::block(uint32_t block) {
  const Block &range = view.blocks[block];
  for (uint32_t i = 0; i < range.count(); ++i)
    if (Status s = instruction(range.begin() + i); !s)
      return s;
  return Status();
}

Status Interpreter::run() {
  std::vector<std::pair<uint32_t, std::string>> inputs, outputs;
  int64_t microBatches = 1;
  for (const Entry *entry : *context.plan.entries()) {
    for (uint32_t program : *entry->programs())
      if (program == index)
        microBatches = std::max<int64_t>(microBatches, entry->micro_batches());
    for (const Port *port : *entry->inputs())
      if (port->program() == index)
        inputs.emplace_back(port->buffer(), context.text(port->name()));
    for (const Port *port : *entry->outputs())
      if (port->program() == index)
        outputs.emplace_back(port->buffer(), context.text(port->name()));
  }
  std::string where =
      "program '" + context.text(context.plan.programs()->Get(index)->name()) +
      "': ";
  std::set<uint32_t> given;
  for (auto &[buffer, name] : inputs) {
    const Buffer &item = view.buffers[buffer];
    if (item.space() != Space::arena || !given.insert(item.base()).second ||
        item.size() == 0)
      continue;
    for (uint32_t slot = 0; slot < item.slots(); ++slot) {
      uint64_t begin = item.offset() + slot * item.slot_stride();
      split(memory.arena, begin);
      auto next = memory.arena.lower_bound(begin);
      if (next != memory.arena.end() && next->first < begin + item.size())
        return Status::error("[plan_v1] " + where + "input '" + name +
                             "' overlaps another input, " +
                             context.name(index, next->second.owner));
      Segment segment;
      segment.end = begin + item.size();
      segment.owner = item.base();
      memory.arena.emplace(begin, std::move(segment));
    }
  }
  // Each leaves the inputs of the next and the outputs of those before alone.
  for (microBatch = 0; microBatch < microBatches; ++microBatch)
    if (Status s = block(0); !s)
      return s;
  for (uint32_t state = 0; share && state < context.plan.states()->size();
       ++state) {
    const State &item = *context.plan.states()->Get(state);
    if (item.initializer() == InitializerKind::load && share->holds(item) &&
        !loaded.count(state))
      return Status::error("[plan_v5] state '" + context.text(item.name()) +
                           "' of stage " + std::to_string(item.stage()) +
                           " is not loaded by rank " + std::to_string(rank));
  }
  // The host looks when every stream is done.
  for (uint32_t stream = 0; stream < streams; ++stream)
    raise(memory.known[0], now);
  for (auto &[buffer, name] : outputs) {
    const Buffer &item = view.buffers[buffer];
    uint64_t size = static_cast<uint64_t>(context.elements(index, buffer)) *
                    byteSize(item.dtype());
    if (item.space() != Space::arena)
      continue;
    for (uint32_t slot = 0; slot < item.slots(); ++slot) {
      uint64_t begin = item.offset() + slot * item.slot_stride();
      if (Status s = read(begin, begin + size, buffer, 0,
                          where + "output '" + name + "': ");
          !s)
        return s;
    }
  }
  return Status();
}

/// The tables that decide control, slots, and the places of copies and loads.
static std::set<uint32_t> decidingTables(const ProgramView &view) {
  std::set<uint32_t> tables;
  auto add = [&](const Value &value) {
    if (value.kind() == ValueKind::table)
      tables.insert(static_cast<uint32_t>(value.value()));
  };
  for (const Instruction &item : view.instructions) {
    const InstructionInfo &info = *findInstruction(item.kind());
    for (const BufferUse &use : view.usesOf(item))
      add(use.slot());
    Slice<Value> values = view.valuesOf(item);
    bool isLoad = info.kind == InstructionKind::LOAD_SLICE;
    InstructionLayout layout;
    if (isLoad)
      layout = *InstructionLayout::get(info, values.data, values.size(),
                                       item.uses_count());
    for (size_t v = 0; v < values.size(); ++v) {
      if (!info.isCollective() && !(isLoad && isFileOrigin(info, layout, v)))
        add(values[v]);
    }
  }
  return tables;
}

Status verifyMemory(const VerifyContext &context) {
  for (uint32_t p = 0; p < context.programs.size(); ++p) {
    // The stages' ranks lay their states out each in its own way.
    bool isLoad = p == context.plan.load() && stageRanks(context.plan) > 1;
    for (uint32_t rank :
         context.representatives(decidingTables(context.programs[p]), isLoad)) {
      RankShare share;
      if (isLoad)
        share = rankShare(
            context.plan,
            context.topology.coordinate(
                rank, static_cast<uint32_t>(context.topology.findAxis("pp"))));
      if (Status s =
              Interpreter(context, p, rank, isLoad ? &share : nullptr).run();
          !s)
        return s;
    }
  }
  return Status();
}

} // namespace dshard::plan
