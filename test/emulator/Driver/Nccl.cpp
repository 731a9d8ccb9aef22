//===- Nccl.cpp - Communicators and collectives among threads -------------===//
//
// Members of a communicator issue the same collectives in the same order; the
// n-th call of each is one meeting. What disagrees (kind, count, type, root) is
// an error at the call. Sends and receives pair up per (source, destination).
//
//===----------------------------------------------------------------------===//
#include "Driver/Calls.h"
#include "Driver/Collective.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <optional>
#include <utility>

using namespace dshard::emulator;

namespace {

struct Communicator;
/// What the members of one communicator share.
struct Clique {
  unsigned number = 0;
  std::vector<Communicator *> members;
  unsigned joined = 0;
  // Meetings by the number of the call; of pairs by (source, destination).
  std::map<uint64_t, std::shared_ptr<Meeting>> collectives;
  struct Pair {
    uint64_t sent = 0, received = 0;
    std::map<uint64_t, std::shared_ptr<Meeting>> open;
  };
  std::map<std::pair<int, int>, Pair> pairs;
  std::map<uint64_t, std::string> signatures;
};
struct Communicator {
  std::shared_ptr<Clique> clique;
  int rank = 0;
  Device *device = nullptr;
  uint64_t calls = 0;
};

struct Registry {
  std::map<std::string, std::shared_ptr<Clique>> byId;
  unsigned next = 1;
  uint64_t nextId = 1;
};
Registry &registry() {
  static Registry *value = new Registry;
  return *value;
}

/// ncclGroupStart ... End of this thread: one operation per stream.
struct Group {
  int depth = 0;
  int error = ncclOk;
  std::map<Stream *, OperationPtr> operations;
  std::vector<Stream *> order;
  struct Joining {
    Communicator *communicator;
    void **handle;
  };
  std::vector<Joining> joining;
};
Group &group() {
  thread_local Group value;
  return value;
}

/// Ends the group that is open, if one is.
int groupFails(int result) {
  if (group().depth)
    group().error = result;
  return result;
}

int refuse(Call &call, const Communicator &communicator, int result,
           const std::string &why) {
  call.engine.fail("communicator " +
                   std::to_string(communicator.clique->number) + " rank " +
                   std::to_string(communicator.rank) + ": " + why);
  return result;
}

/// Adds a member's part to the operation of its stream: one of its own outside
/// of groups.
void addPart(Call &call, Communicator &communicator, void *streamHandle,
             const std::shared_ptr<Meeting> &meeting, size_t member,
             const std::string &name) {
  Stream *stream = streamHandle ? static_cast<Stream *>(streamHandle)
                                : communicator.device->streams[0].get();
  OperationPtr operation;
  Group &current = group();
  if (current.depth) {
    OperationPtr &slot = current.operations[stream];
    if (!slot) {
      slot = std::make_shared<Operation>();
      current.order.push_back(stream);
    }
    operation = slot;
    operation->name += (operation->name.empty() ? "" : " + ") + name;
  } else {
    operation = std::make_shared<Operation>();
    operation->name = name;
  }
  operation->meetings.push_back(meeting);
  meeting->members[member].operation = operation.get();
  operation->stream = stream;
  if (!current.depth)
    call.engine.enqueue(*stream, operation);
}

bool overlaps(uint64_t a, uint64_t bytesA, uint64_t b, uint64_t bytesB) {
  return a < b + bytesB && b < a + bytesA;
}

/// What ends a call before it is looked at; nothing where it goes on.
std::optional<int> endOf(Call &call, void *handle) {
  if (call.injected)
    return groupFails(ncclSystem);
  if (call.dropped)
    return ncclOk;
  if (!handle)
    return ncclInvalidArgument;
  if (call.engine.failed())
    return ncclUnhandledCuda;
  return std::nullopt;
}

/// Another communicator of the same device, if there is one.
Communicator &another(Communicator &me) {
  for (void *one : me.device->communicators)
    if (one != &me)
      return *static_cast<Communicator *>(one);
  return me;
}

int issue(Call &call, Communicator &me, const Shape &shape, const void *send,
          void *receive, void *stream) {
  auto [kind, count, type, operation, root] = shape;
  int ranks = static_cast<int>(me.clique->members.size());
  if (!typeName(type) || !reductionName(operation) || root < 0 || root >= ranks)
    return refuse(call, me, ncclInvalidArgument,
                  "data type, operation or root is not known");
  uint64_t number = me.calls++;
  std::string what = "collective " + std::to_string(number) +
                     " of communicator " + std::to_string(me.clique->number);
  // The first member's call says what it is; the others must agree.
  auto [signature, isFirst] =
      me.clique->signatures.insert({number, shape.text()});
  if (!isFirst && signature->second != shape.text())
    return refuse(call, me, ncclInvalidUsage,
                  "mismatched collective: " + what + " is " + shape.text() +
                      " here, but " + signature->second + " on another rank");
  uint64_t bytes = typeBytes(type);
  uint64_t from = reinterpret_cast<uint64_t>(send);
  uint64_t to = reinterpret_cast<uint64_t>(receive);
  uint64_t sendBytes = shape.sendElements(ranks) * bytes;
  uint64_t receiveBytes = shape.receiveElements(ranks) * bytes;
  bool sends = kind != broadcast || me.rank == root;
  bool receives = kind != reduceTo || me.rank == root;
  std::vector<Range> allowed = takeAllowed(*me.device);
  std::string error;
  if (sends)
    error = checkBuffer(allowed, from, sendBytes, false, shape.text());
  if (receives && error.empty())
    error = checkBuffer(allowed, to, receiveBytes, true, shape.text());
  if (error.empty() && sends && receives &&
      overlaps(from, sendBytes, to, receiveBytes)) {
    uint64_t offset = static_cast<uint64_t>(me.rank) * count * bytes;
    bool inPlace = kind == allGather       ? from == to + offset
                   : kind == reduceScatter ? to == from + offset
                                           : from == to;
    if (!inPlace)
      error = shape.text() + ": send and receive buffers overlap, but not as "
                             "in-place ones do";
  }
  if (!error.empty())
    return refuse(call, me, ncclInvalidArgument, error);

  std::shared_ptr<Meeting> &meeting = me.clique->collectives[number];
  if (!meeting) {
    meeting = std::make_shared<Meeting>();
    meeting->what = what;
    meeting->clique = me.clique.get();
    meeting->members.resize(static_cast<size_t>(ranks));
    for (int r = 0; r < ranks; ++r)
      meeting->members[static_cast<size_t>(r)].rank = r;
    Meeting *raw = meeting.get();
    Clique *clique = me.clique.get();
    meeting->run = [shape, raw, clique,
                    number](std::vector<std::vector<Access>> &touched) {
      std::string result = runCollective(shape, *raw, touched);
      clique->collectives.erase(number);
      clique->signatures.erase(number);
      return result;
    };
  }
  std::shared_ptr<Meeting> mine = meeting;
  size_t index = static_cast<size_t>(me.rank);
  mine->members[index].send = from;
  mine->members[index].receive = to;
  addPart(call, me, stream, mine, index, shape.text());
  return ncclOk;
}

int collective(Kind kind, const void *send, void *receive, uint64_t count,
               int type, int operation, int root, void *handle, void *stream) {
  Call call(symbolName(kind));
  if (std::optional<int> outcome = endOf(call, handle))
    return *outcome;
  Communicator *me = static_cast<Communicator *>(handle);
  if (call.engine.misdirects.hits(symbolName(kind)))
    me = &another(*me);
  Shape shape{kind, count, type, operation, root};
  if (call.engine.swaps.hits(symbolName(kind))) {
    me->device->held = [=](Call &later) {
      return issue(later, *me, shape, send, receive, stream);
    };
    return ncclOk;
  }
  int result = issue(call, *me, shape, send, receive, stream);
  auto held = std::exchange(me->device->held, nullptr);
  return held && result == ncclOk ? held(call) : result;
}

int pairwise(bool isSend, uint64_t address, uint64_t count, int type, int peer,
             void *handle, void *stream) {
  Call call(isSend ? "ncclSend" : "ncclRecv");
  if (std::optional<int> outcome = endOf(call, handle))
    return *outcome;
  Communicator &me = *static_cast<Communicator *>(handle);
  int ranks = static_cast<int>(me.clique->members.size());
  if (!typeName(type) || peer < 0 || peer >= ranks)
    return refuse(call, me, ncclInvalidArgument,
                  "data type or peer is not known");
  std::string name = std::string(isSend ? "send" : "recv") + " of " +
                     std::to_string(count) + " " + typeName(type) +
                     (isSend ? " to " : " from ") + std::to_string(peer);
  uint64_t bytes = count * typeBytes(type);
  std::string error =
      checkBuffer(takeAllowed(*me.device), address, bytes, !isSend, name);
  if (!error.empty())
    return refuse(call, me, ncclInvalidArgument, error);
  int source = isSend ? me.rank : peer, destination = isSend ? peer : me.rank;
  Clique::Pair &pair = me.clique->pairs[{source, destination}];
  uint64_t number = isSend ? pair.sent++ : pair.received++;
  std::shared_ptr<Meeting> &slot = pair.open[number];
  std::string shape = std::to_string(count) + " " + typeName(type);
  if (!slot) {
    slot = std::make_shared<Meeting>();
    slot->what = shape;
    slot->clique = me.clique.get();
    slot->members.resize(2);
    slot->members[0].rank = source;
    slot->members[1].rank = destination;
    Meeting *raw = slot.get();
    Clique *clique = me.clique.get();
    slot->run = [raw, bytes, clique, source, destination,
                 number](std::vector<std::vector<Access>> &touched) {
      uint64_t from = raw->members[0].send, to = raw->members[1].receive;
      std::memmove(reinterpret_cast<void *>(to), reinterpret_cast<void *>(from),
                   bytes);
      touched[0].push_back({from, from + bytes, false});
      touched[1].push_back({to, to + bytes, true});
      clique->pairs[{source, destination}].open.erase(number);
      return std::string();
    };
  } else if (slot->what != shape) {
    return refuse(call, me, ncclInvalidUsage,
                  "mismatched " + name + ": the other side has " + slot->what);
  }
  std::shared_ptr<Meeting> mine = slot;
  size_t index = isSend ? 0 : 1;
  (isSend ? mine->members[0].send : mine->members[1].receive) = address;
  addPart(call, me, stream, mine, index, name);
  return ncclOk;
}

/// Waits until every member has joined.
int rendezvous(Call &call, Communicator &me) {
  Clique *clique = me.clique.get();
  bool ok = call.engine.waitUntil(
      call.lock, [&] { return clique->joined == clique->members.size(); },
      "ncclCommInitRank of rank " + std::to_string(me.rank) + " (" +
          std::to_string(clique->joined) + " of " +
          std::to_string(clique->members.size()) + " ranks have joined)");
  return ok ? ncclOk : ncclSystem;
}

int join(Call &call, std::shared_ptr<Clique> clique, int ranks, int rank,
         Device *device, void **handle) {
  if (ranks < 1 || rank < 0 || rank >= ranks)
    return ncclInvalidArgument;
  if (clique->members.empty())
    clique->members.resize(static_cast<size_t>(ranks));
  Communicator *made = new Communicator;
  made->clique = std::move(clique);
  made->rank = rank;
  made->device = device;
  *handle = made;
  if (static_cast<int>(made->clique->members.size()) != ranks ||
      made->clique->members[static_cast<size_t>(rank)])
    return refuse(call, *made, ncclInvalidUsage,
                  "the rank joined twice, or the number of ranks differs");
  for (Communicator *other : made->clique->members)
    if (other && other->device == device)
      return refuse(call, *made, ncclInvalidUsage,
                    "two ranks of a communicator on device " +
                        std::to_string(device->index));
  made->clique->members[static_cast<size_t>(rank)] = made;
  device->communicators.push_back(made);
  ++made->clique->joined;
  call.engine.progress();
  call.engine.changed.notify_all();
  return ncclOk;
}

void leave(Communicator *me) {
  std::vector<void *> &all = me->device->communicators;
  all.erase(std::remove(all.begin(), all.end(), me), all.end());
  me->device->held = nullptr;
  me->clique->members[static_cast<size_t>(me->rank)] = nullptr;
  delete me;
}

} // namespace

EMULATED int ncclGetVersion(int *version) {
  Call call;
  if (call.injected)
    return ncclSystem;
  *version = call.engine.ncclVersion;
  return ncclOk;
}
EMULATED int ncclGetUniqueId(NcclId *id) {
  Call call;
  if (call.injected)
    return ncclSystem;
  std::memset(id, 0, sizeof(*id));
  std::snprintf(id->internal, sizeof(id->internal), "emulated-%llu",
                static_cast<unsigned long long>(registry().nextId++));
  return ncclOk;
}
EMULATED int ncclCommInitRank(void **handle, int ranks, NcclId id, int rank) {
  Call call;
  if (call.engine.failed())
    return ncclUnhandledCuda;
  if (call.injected)
    return groupFails(ncclSystem);
  if (call.dropped)
    return ncclOk;
  if (!call.device() || !call.device()->memory)
    return ncclInvalidUsage;
  std::shared_ptr<Clique> &clique =
      registry().byId[std::string(id.internal, sizeof(id.internal))];
  if (!clique) {
    clique = std::make_shared<Clique>();
    clique->number = registry().next++;
  }
  int result = join(call, clique, ranks, rank, call.device(), handle);
  if (result != ncclOk)
    return result;
  Communicator *made = static_cast<Communicator *>(*handle);
  if (group().depth) {
    group().joining.push_back({made, handle});
    return ncclOk;
  }
  return rendezvous(call, *made);
}
EMULATED int ncclCommInitAll(void **handles, int count, const int *list) {
  Call call;
  if (call.engine.failed())
    return ncclUnhandledCuda;
  auto clique = std::make_shared<Clique>();
  clique->number = registry().next++;
  for (int i = 0; i < count; ++i) {
    int index = list ? list[i] : i;
    if (index < 0 || index >= static_cast<int>(call.engine.devices.size()) ||
        !call.engine.devices[static_cast<size_t>(index)]->memory)
      return ncclInvalidArgument;
    int result = join(call, clique, count, i,
                      call.engine.devices[static_cast<size_t>(index)].get(),
                      &handles[i]);
    if (result != ncclOk)
      return result;
  }
  return ncclOk;
}
EMULATED int ncclCommFinalize(void *) { return ncclOk; }
EMULATED int ncclCommDestroy(void *handle) {
  Call call;
  Communicator *me = static_cast<Communicator *>(handle);
  if (!me)
    return ncclInvalidArgument;
  // Destroying waits for the communicator's work.
  bool ok = call.engine.failed() || call.engine.drain(call.lock, me->device);
  leave(me);
  return ok && !call.engine.failed() ? ncclOk : ncclUnhandledCuda;
}
/// What this rank has queued ends without its data; whoever waits for it waits
/// until it gives up, too, as in NCCL.
EMULATED int ncclCommAbort(void *handle) {
  Call call;
  Communicator *me = static_cast<Communicator *>(handle);
  if (!me)
    return ncclInvalidArgument;
  call.engine.abandon(*me->device, me->clique.get());
  leave(me);
  return ncclOk;
}
EMULATED int ncclCommGetAsyncError(void *, int *result) {
  Call call;
  *result = call.engine.failed() ? ncclUnhandledCuda
            : call.injected      ? ncclRemote
                                 : ncclOk;
  return ncclOk;
}
EMULATED int ncclCommCount(const void *handle, int *count) {
  *count = static_cast<int>(
      static_cast<const Communicator *>(handle)->clique->members.size());
  return ncclOk;
}
EMULATED int ncclCommUserRank(const void *handle, int *rank) {
  *rank = static_cast<const Communicator *>(handle)->rank;
  return ncclOk;
}
EMULATED int ncclCommCuDevice(const void *handle, int *device) {
  *device = static_cast<const Communicator *>(handle)->device->index;
  return ncclOk;
}

EMULATED int ncclAllReduce(const void *send, void *receive, size_t count,
                           int type, int operation, void *comm, void *stream) {
  return collective(allReduce, send, receive, count, type, operation, 0, comm,
                    stream);
}
EMULATED int ncclAllGather(const void *send, void *receive, size_t count,
                           int type, void *comm, void *stream) {
  return collective(allGather, send, receive, count, type, 0, 0, comm, stream);
}
EMULATED int ncclReduceScatter(const void *send, void *receive, size_t count,
                               int type, int operation, void *comm,
                               void *stream) {
  return collective(reduceScatter, send, receive, count, type, operation, 0,
                    comm, stream);
}
EMULATED int ncclBroadcast(const void *send, void *receive, size_t count,
                           int type, int root, void *comm, void *stream) {
  return collective(broadcast, send, receive, count, type, 0, root, comm,
                    stream);
}
EMULATED int ncclReduce(const void *send, void *receive, size_t count, int type,
                        int operation, int root, void *comm, void *stream) {
  return collective(reduceTo, send, receive, count, type, operation, root, comm,
                    stream);
}
EMULATED int ncclSend(const void *buffer, size_t count, int type, int peer,
                      void *comm, void *stream) {
  return pairwise(true, reinterpret_cast<uint64_t>(buffer), count, type, peer,
                  comm, stream);
}
EMULATED int ncclRecv(void *buffer, size_t count, int type, int peer,
                      void *comm, void *stream) {
  return pairwise(false, reinterpret_cast<uint64_t>(buffer), count, type, peer,
                  comm, stream);
}

EMULATED int ncclGroupStart() {
  MAY_FAIL(ncclSystem)
  ++group().depth;
  return ncclOk;
}
EMULATED int ncclGroupEnd() {
  Call call;
  Group &current = group();
  if (current.depth == 0)
    return ncclInvalidUsage;
  if (--current.depth)
    return ncclOk;
  // What failed in the group ends all of it.
  int result = std::exchange(current.error, ncclOk);
  if (call.injected)
    result = ncclSystem;
  for (Stream *stream : current.order)
    if (result == ncclOk)
      call.engine.enqueue(*stream, current.operations[stream]);
    else
      call.engine.withdraw(*current.operations[stream]);
  current.operations.clear();
  current.order.clear();
  auto joining = std::exchange(current.joining, {});
  for (Group::Joining &one : joining)
    if (result != ncclOk) { // as NCCL does: nobody is left half connected
      leave(one.communicator);
      *one.handle = nullptr;
    } else {
      result = rendezvous(call, *one.communicator);
    }
  return call.engine.failed() ? ncclUnhandledCuda : result;
}

EMULATED const char *ncclGetErrorString(int result) {
  switch (result) {
  case ncclOk:
    return "no error";
  case ncclUnhandledCuda:
    return "unhandled cuda error";
  case ncclSystem:
    return "unhandled system error";
  case ncclInternal:
    return "internal error";
  case ncclInvalidArgument:
    return "invalid argument";
  case ncclInvalidUsage:
    return "invalid usage";
  case ncclRemote:
    return "remote process exited or there was a network error";
  default:
    return "unknown result code";
  }
}
EMULATED const char *ncclGetLastError(void *) {
  Call call;
  return call.engine.failed() ? call.engine.keep(call.engine.fault()) : "";
}
