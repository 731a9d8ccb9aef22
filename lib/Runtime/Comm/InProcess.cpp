//===- InProcess.cpp - Collectives between threads ------------------------===//

#include "dshard/Runtime/Comm/InProcess.h"
#include "Reduce.h"
#include "dshard/Runtime/Cpu/Convert.h"

#include <algorithm>
#include <cstring>

using namespace dshard;
using cpu::elementBytes;
using plan::ReductionKind;

/// One instance of a group: a barrier, and what its members have brought.
struct InProcessWorld::Meeting {
  std::vector<uint32_t> ranks;
  std::atomic<uint32_t> count{0};
  cpu::WaitWord phase;
  struct Post {
    const CollectiveOperand *operands = nullptr;
    size_t operandCount = 0;
    int64_t to = -1, from = -1;
  };
  std::vector<Post> posts; // by position
};

/// One rank's end: where it stands in each group.
struct InProcessWorld::Member {
  InProcessWorld *world = nullptr;
  cpu::ThreadPool *pool = nullptr;
  struct Place {
    Meeting *meeting = nullptr;
    int64_t position = 0;
  };
  std::vector<Place> places;

  /// Everyone has arrived, or somebody has failed.
  Status meet(Meeting &meeting) const {
    uint32_t seen = meeting.phase.load();
    if (world->isAborted())
      return world->failure();
    if (meeting.count.fetch_add(1, std::memory_order_acq_rel) + 1 ==
        meeting.ranks.size()) {
      meeting.count.store(0, std::memory_order_relaxed);
      meeting.phase.bump();
    } else {
      meeting.phase.waitWhile(seen);
    }
    return world->isAborted() ? world->failure() : Status();
  }

  /// Shows the operands to the others; afterwards theirs may be read.
  Status post(Meeting &meeting, int64_t position,
              const CollectiveOperand *operands, size_t count, int64_t to = -1,
              int64_t from = -1) const {
    meeting.posts[position] = {operands, count, to, from};
    if (Status status = meet(meeting); !status)
      return status;
    for (const Meeting::Post &other : meeting.posts) {
      bool agrees = other.operandCount == count;
      for (size_t i = 0; agrees && i < count; ++i)
        agrees = other.operands[i].elements == operands[i].elements &&
                 other.operands[i].type == operands[i].type;
      if (agrees)
        continue;
      Status status = Status::error(
          "the members of a group brought operands of different sizes to a "
          "collective; the plan is damaged, verify it with dshard-plan");
      world->abort(status);
      return status;
    }
    return Status();
  }

  /// body(begin, end) over [0, bytes or elements), split over the pool when it
  /// pays.
  template <typename Body> void split(int64_t count, Body &&body) const {
    constexpr int64_t worthwhile = 1 << 16;
    if (!pool || pool->size() == 1 || count < worthwhile) {
      body(int64_t{0}, count);
      return;
    }
    pool->parallelFor(count, 1024, [&](int64_t begin, int64_t end, unsigned) {
      body(begin, end);
    });
  }
  void copy(void *to, const void *from, int64_t bytes) const {
    if (to == from)
      return;
    split(bytes, [&](int64_t begin, int64_t end) {
      std::memcpy(static_cast<char *>(to) + begin,
                  static_cast<const char *>(from) + begin, end - begin);
    });
  }
};

using Meeting = InProcessWorld::Meeting;
using Member = InProcessWorld::Member;

static Member &memberOf(void *state) { return *static_cast<Member *>(state); }

static const char *byteAt(const void *data, int64_t offset) {
  return static_cast<const char *>(data) + offset;
}

static Status refuseReduction(const CollectiveOperand *operands, size_t count,
                              ReductionKind kind) {
  for (size_t i = 0; i < count; ++i)
    if (!isReduction(operands[i].type, kind))
      return Status::error(std::string("a mean of ") +
                           plan::toString(operands[i].type) +
                           " values is not defined");
  return Status();
}

namespace {
/// One collective of one rank: who calls, in which instance of the group.
struct Call {
  Call(void *state, uint32_t group)
      : self(memberOf(state)), meeting(*self.places[group].meeting),
        position(self.places[group].position),
        n(static_cast<int64_t>(meeting.ranks.size())) {}

  /// Shows the operands to the others; afterwards theirs may be read.
  Status post(const CollectiveOperand *operands, size_t count, int64_t to = -1,
              int64_t from = -1) const {
    return self.post(meeting, position, operands, count, to, from);
  }
  Status postReduction(const CollectiveOperand *operands, size_t count,
                       ReductionKind kind) const {
    if (Status status = refuseReduction(operands, count, kind); !status) {
      self.world->abort(status);
      return status;
    }
    return post(operands, count);
  }
  /// All have read what they need; operands may be overwritten.
  Status leave() const { return self.meet(meeting); }
  const Meeting::Post &postOf(int64_t member) const {
    return meeting.posts[member];
  }

  Member &self;
  Meeting &meeting;
  int64_t position, n;
};
} // namespace

static Status allGather(void *state, uint32_t group,
                        const CollectiveOperand *operands, size_t count) {
  Call call(state, group);
  if (Status status = call.post(operands, count); !status)
    return status;
  for (size_t i = 0; i < count; ++i) {
    const CollectiveOperand &mine = operands[i];
    int64_t piece = mine.elements / std::max<int64_t>(1, mine.outer) *
                    elementBytes(mine.type);
    for (int64_t j = 0; j < call.n; ++j) {
      const void *from = call.postOf(j).operands[i].in;
      for (int64_t o = 0; o < mine.outer; ++o)
        call.self.copy(static_cast<char *>(mine.out) + (o * call.n + j) * piece,
                       byteAt(from, o * piece), piece);
    }
  }
  return call.leave();
}

static Status allReduce(void *state, uint32_t group, ReductionKind kind,
                        const CollectiveOperand *operands, size_t count) {
  Call call(state, group);
  if (Status status = call.postReduction(operands, count, kind); !status)
    return status;
  auto sliceBegin = [&](int64_t elements, int64_t member) {
    int64_t lines = (elements + 63) / 64;
    return std::min(elements, lines * member / call.n * 64);
  };
  for (size_t i = 0; i < count; ++i) {
    const CollectiveOperand &mine = operands[i];
    int64_t size = elementBytes(mine.type);
    int64_t begin = sliceBegin(mine.elements, call.position);
    int64_t end = sliceBegin(mine.elements, call.position + 1);
    call.self.split(end - begin, [&](int64_t from, int64_t to) {
      std::vector<const void *> parts(call.n);
      for (int64_t j = 0; j < call.n; ++j)
        parts[j] = byteAt(call.postOf(j).operands[i].in, (begin + from) * size);
      reduceInOrder(mine.type, kind, parts,
                    static_cast<char *>(mine.out) + (begin + from) * size,
                    to - from);
    });
  }
  if (Status status = call.leave(); !status)
    return status;
  for (size_t i = 0; i < count; ++i) {
    const CollectiveOperand &mine = operands[i];
    int64_t size = elementBytes(mine.type);
    for (int64_t j = 0; j < call.n; ++j) {
      if (j == call.position)
        continue;
      int64_t begin = sliceBegin(mine.elements, j) * size;
      int64_t end = sliceBegin(mine.elements, j + 1) * size;
      call.self.copy(static_cast<char *>(mine.out) + begin,
                     byteAt(call.postOf(j).operands[i].out, begin),
                     end - begin);
    }
  }
  return call.leave();
}

static Status reduceScatter(void *state, uint32_t group, ReductionKind kind,
                            const CollectiveOperand *operands, size_t count) {
  Call call(state, group);
  if (Status status = call.postReduction(operands, count, kind); !status)
    return status;
  for (size_t i = 0; i < count; ++i) {
    const CollectiveOperand &mine = operands[i];
    int64_t size = elementBytes(mine.type);
    int64_t piece = mine.elements / call.n / std::max<int64_t>(1, mine.outer);
    for (int64_t o = 0; o < mine.outer; ++o)
      call.self.split(piece, [&](int64_t from, int64_t to) {
        std::vector<const void *> parts(call.n);
        for (int64_t j = 0; j < call.n; ++j)
          parts[j] =
              byteAt(call.postOf(j).operands[i].in,
                     ((o * call.n + call.position) * piece + from) * size);
        reduceInOrder(mine.type, kind, parts,
                      static_cast<char *>(mine.out) + (o * piece + from) * size,
                      to - from);
      });
  }
  return call.leave();
}

static Status allToAll(void *state, uint32_t group,
                       const CollectiveOperand &operand,
                       const AllToAllShape &shape) {
  Call call(state, group);
  if (Status status = call.post(&operand, 1); !status)
    return status;
  cpu::StridedCopy copy;
  copy.dims = shape.ndims;
  int64_t outDims[cpu::maxDims];
  for (int d = 0; d < shape.ndims; ++d) {
    copy.sizes[d] = outDims[d] = shape.dims[d];
    if (d == shape.split) {
      copy.sizes[d] /= call.n;
      outDims[d] /= call.n;
    }
    if (d == shape.concat)
      outDims[d] *= call.n;
  }
  int64_t in = 1, out = 1;
  for (int d = shape.ndims - 1; d >= 0; --d) {
    copy.inStrides[d] = in;
    copy.outStrides[d] = out;
    in *= shape.dims[d];
    out *= outDims[d];
  }
  int64_t size = elementBytes(operand.type);
  for (int64_t j = 0; j < call.n; ++j) {
    int64_t from =
        call.position * copy.sizes[shape.split] * copy.inStrides[shape.split];
    int64_t to = j * copy.sizes[shape.concat] * copy.outStrides[shape.concat];
    cpu::copyStrided(copy, byteAt(call.postOf(j).operands[0].in, from * size),
                     operand.type, static_cast<char *>(operand.out) + to * size,
                     operand.type);
  }
  return call.leave();
}

static Status broadcast(void *state, uint32_t group, int64_t root,
                        const CollectiveOperand &operand) {
  Call call(state, group);
  if (Status status = call.post(&operand, 1); !status)
    return status;
  call.self.copy(operand.out, call.postOf(root).operands[0].in,
                 operand.elements * elementBytes(operand.type));
  return call.leave();
}

static Status permute(void *state, uint32_t group, int64_t to, int64_t from,
                      const CollectiveOperand *operands, size_t count) {
  Call call(state, group);
  if (Status status = call.post(operands, count, to, from); !status)
    return status;
  if (from >= 0 && call.postOf(from).to != call.position) {
    Status status = Status::error(
        "permute: position " + std::to_string(call.position) +
        " receives from " + std::to_string(from) + ", which sends to " +
        std::to_string(call.postOf(from).to));
    call.self.world->abort(status);
    return status;
  }
  for (size_t i = 0; i < count; ++i) {
    int64_t bytes = operands[i].elements * elementBytes(operands[i].type);
    if (from >= 0)
      call.self.copy(operands[i].out, call.postOf(from).operands[i].in, bytes);
    else
      std::memset(operands[i].out, 0, bytes);
  }
  return call.leave();
}

static Status barrier(void *state, uint32_t group) {
  return Call(state, group).leave();
}

static void abortWorld(void *state, const Status &reason) {
  memberOf(state).world->abort(reason);
}

void InProcessWorld::post(Member &member, uint32_t group, int64_t to,
                          int64_t tag, const void *data, uint64_t bytes) {
  Meeting *meeting = member.places[group].meeting;
  int64_t position = member.places[group].position;
  const uint8_t *begin = static_cast<const uint8_t *>(data);
  std::vector<uint8_t> message(begin, begin + bytes);
  std::lock_guard<std::mutex> lock(mutex);
  messages[Channel(meeting, position, to, tag)].push_back(std::move(message));
  bufferedBytes += bytes;
  peakBuffered = std::max(peakBuffered, bufferedBytes);
  arrived.notify_all();
}

Status InProcessWorld::take(Member &member, uint32_t group, int64_t from,
                            int64_t tag, void *data, uint64_t bytes) {
  Meeting *meeting = member.places[group].meeting;
  int64_t position = member.places[group].position;
  std::unique_lock<std::mutex> lock(mutex);
  auto &queue = messages[Channel(meeting, from, position, tag)];
  arrived.wait(lock, [&] { return aborted || !queue.empty(); });
  if (aborted)
    return reason;
  std::vector<uint8_t> message = std::move(queue.front());
  queue.pop_front();
  bufferedBytes -= message.size();
  lock.unlock();
  if (message.size() != bytes) {
    Status status =
        Status::error("a message of " + std::to_string(message.size()) +
                      " bytes was received where " + std::to_string(bytes) +
                      " were expected");
    abort(status);
    return status;
  }
  std::memcpy(data, message.data(), bytes);
  return Status();
}

static Status send(void *state, uint32_t group, int64_t to, int64_t tag,
                   const void *data, uint64_t bytes) {
  Member &self = memberOf(state);
  if (self.world->isAborted())
    return self.world->failure();
  self.world->post(self, group, to, tag, data, bytes);
  return Status();
}

static Status receive(void *state, uint32_t group, int64_t from, int64_t tag,
                      void *data, uint64_t bytes) {
  Member &self = memberOf(state);
  return self.world->take(self, group, from, tag, data, bytes);
}

static uint64_t peakBufferedBytes(void *state) {
  return memberOf(state).world->peakBufferedBytes();
}

static const CommunicatorFunctions inProcessFunctions = {
    "in-process",     allGather, allReduce,  reduceScatter,
    allToAll,         broadcast, permute,    send,
    receive,          barrier,   abortWorld, /*setStream=*/nullptr,
    peakBufferedBytes};

InProcessWorld::InProcessWorld(
    uint32_t ranks, std::vector<std::vector<std::vector<uint32_t>>> groups) {
  for (uint32_t rank = 0; rank < ranks; ++rank) {
    members.push_back(std::make_unique<Member>());
    members.back()->world = this;
    members.back()->places.resize(groups.size());
  }
  for (size_t g = 0; g < groups.size(); ++g)
    for (std::vector<uint32_t> &instance : groups[g]) {
      auto meeting = std::make_unique<Meeting>();
      meeting->posts.resize(instance.size());
      for (size_t i = 0; i < instance.size(); ++i)
        members[instance[i]]->places[g] = {meeting.get(),
                                           static_cast<int64_t>(i)};
      meeting->ranks = std::move(instance);
      meetings.push_back(std::move(meeting));
    }
}

InProcessWorld::~InProcessWorld() = default;

std::unique_ptr<InProcessWorld>
InProcessWorld::create(const plan::Plan &plan, const plan::Topology &topology) {
  std::vector<std::vector<std::vector<uint32_t>>> groups(plan.groups()->size());
  for (uint32_t g = 0; g < groups.size(); ++g)
    for (uint32_t rank = 0; rank < topology.rankCount(); ++rank)
      if (topology.groupPosition(g, rank) == 0)
        groups[g].push_back(topology.groupRanks(g, rank));
  return std::make_unique<InProcessWorld>(topology.rankCount(),
                                          std::move(groups));
}

Communicator InProcessWorld::communicator(uint32_t rank,
                                          cpu::ThreadPool *pool) {
  members[rank]->pool = pool;
  return {&inProcessFunctions, members[rank].get()};
}

void InProcessWorld::abort(const Status &why) {
  {
    std::lock_guard<std::mutex> lock(mutex);
    if (aborted)
      return;
    reason = why;
    aborted.store(true, std::memory_order_release);
  }
  arrived.notify_all();
  for (auto &meeting : meetings)
    meeting->phase.bump();
}

Status InProcessWorld::failure() {
  std::lock_guard<std::mutex> lock(mutex);
  return reason;
}

uint64_t InProcessWorld::peakBufferedBytes() {
  std::lock_guard<std::mutex> lock(mutex);
  return peakBuffered;
}

void InProcessWorld::reset() {
  std::lock_guard<std::mutex> lock(mutex);
  aborted = false;
  reason = Status();
  messages.clear();
  bufferedBytes = 0;
  for (auto &meeting : meetings)
    meeting->count = 0;
}
