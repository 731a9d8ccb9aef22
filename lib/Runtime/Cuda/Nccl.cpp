//===- Nccl.cpp - Collectives by NCCL -------------------------------------===//

#include "Nccl.h"

#include "dshard/Runtime/Cpu/Convert.h"

#include <algorithm>

using namespace dshard;
using namespace dshard::cuda;
using cpu::elementBytes;
using plan::DataType;
using plan::ReductionKind;

NcclRank::~NcclRank() {
  if (!library)
    return;
  (void)device.enter();
  for (Group &group : groups)
    if (group.comm)
      (void)library->destroy(group.comm);
}

void NcclRank::abort() {
  isAborted = true;
  if (!library)
    return;
  (void)device.enter();
  for (Group &group : groups)
    if (group.comm) {
      (void)library->abort(group.comm);
      group.comm = nullptr;
    }
}

Status NcclRank::look() {
  if (!library)
    return Status();
  for (Group &group : groups) {
    int error = 0;
    if (group.comm && library->getAsyncError(group.comm, &error) == 0 &&
        error != 0 && error != ncclInProgress)
      return library->check(error, "NCCL", group.comm);
  }
  return Status();
}

Status cuda::connect(const NcclLibrary &library, const plan::Topology &topology,
                     uint32_t groups,
                     const std::vector<std::unique_ptr<NcclRank>> &ranks) {
  for (auto &rank : ranks)
    rank->library = &library;
  for (uint32_t group = 0; group < groups; ++group)
    for (uint32_t leader = 0; leader < ranks.size(); ++leader) {
      if (topology.groupLeader(group, leader) != leader)
        continue;
      std::vector<uint32_t> members = topology.groupRanks(group, leader);
      if (members.size() < 2)
        continue;
      NcclId id;
      if (Status status =
              library.check(library.getUniqueId(&id), "ncclGetUniqueId");
          !status)
        return status;
      if (Status status = library.check(library.groupStart(), "ncclGroupStart");
          !status)
        return status;
      Status failed;
      for (size_t i = 0; i < members.size() && failed; ++i) {
        NcclRank &rank = *ranks[members[i]];
        failed = rank.device.enter();
        if (failed)
          failed =
              library.check(library.initRank(&rank.groups[group].comm,
                                             static_cast<int>(members.size()),
                                             id, static_cast<int>(i)),
                            "ncclCommInitRank");
      }
      Status ended = library.check(library.groupEnd(), "ncclCommInitRank");
      if (!failed || !ended)
        return Status::error("cannot connect the GPUs of group '" +
                             topology.groupName(group) +
                             "': " + (failed ? ended : failed).message());
    }
  return Status();
}

//===----------------------------------------------------------------------===//
// Calls
//===----------------------------------------------------------------------===//

static NcclRank &rankOf(void *state) { return *static_cast<NcclRank *>(state); }

static Status typeOf(DataType type, int &result) {
  switch (type) {
  case DataType::boolean:
  case DataType::u8:
    result = ncclU8;
    return Status();
  case DataType::i8:
    result = ncclI8;
    return Status();
  case DataType::i32:
    result = ncclI32;
    return Status();
  case DataType::u32:
    result = ncclU32;
    return Status();
  case DataType::i64:
    result = ncclI64;
    return Status();
  case DataType::u64:
    result = ncclU64;
    return Status();
  case DataType::f16:
    result = ncclF16;
    return Status();
  case DataType::bf16:
    result = ncclBf16;
    return Status();
  case DataType::f32:
    result = ncclF32;
    return Status();
  case DataType::f64:
    result = ncclF64;
    return Status();
  default:
    return Status::error(std::string("NCCL has no reduction of ") +
                         plan::toString(type));
  }
}

/// Booleans are bytes to NCCL, where 1 + 1 = 2.
static int opOf(ReductionKind kind, DataType type) {
  switch (kind) {
  case ReductionKind::sum:
    return type == DataType::boolean ? ncclMax : ncclSum;
  case ReductionKind::max:
    return ncclMax;
  case ReductionKind::min:
    return ncclMin;
  case ReductionKind::mean:
    return ncclMean;
  case ReductionKind::product:
    return ncclProduct;
  }
  return ncclSum;
}

static char *at(const void *data, int64_t offset) {
  return const_cast<char *>(static_cast<const char *>(data)) + offset;
}

namespace {
/// One collective of one rank, queued as one ncclGroup.
class Call {
public:
  Call(void *state, uint32_t group)
      : rank(rankOf(state)), group(rank.groups[group]) {
    Result<Stream> on = rank.device.stream(rank.stream);
    status = on.status();
    if (on)
      stream = *on;
    if (status && rank.isAborted)
      status = Status::error("the ranks' connections were closed by an earlier "
                             "failure; load the plan again");
    if (status && group_().comm) {
      status = check(rank.library->groupStart(), "ncclGroupStart");
      isOpen = status.ok();
    }
  }
  /// The only member: what it would give to itself.
  bool isAlone() const { return !group.comm; }
  explicit operator bool() const { return status.ok(); }
  const NcclLibrary &library() const { return *rank.library; }

  void issue(int result, const char *name) {
    if (status)
      status = check(result, name);
  }
  void copy(void *to, const void *from, int64_t bytes) {
    if (!status || to == from || bytes == 0)
      return;
    StridedCopy whole;
    whole.dims = 1;
    whole.sizes[0] = bytes;
    whole.inStrides[0] = whole.outStrides[0] = 1;
    status = rank.device.copy(rank.stream, whole, from, DataType::u8, to,
                              DataType::u8);
  }
  void zero(void *to, int64_t bytes) {
    if (status)
      status = rank.device.fill(rank.stream, to, DataType::u8, bytes, 0);
  }
  /// Elements of a type without a reduction go as bytes.
  Status end() {
    if (isOpen) {
      Status ended = check(rank.library->groupEnd(), "ncclGroupEnd");
      if (status)
        status = ended;
    }
    return status;
  }
  Status fail(Status why) {
    status = std::move(why);
    return end();
  }

  NcclRank &rank;
  const NcclRank::Group &group;
  Stream stream = nullptr;

private:
  const NcclRank::Group &group_() const { return group; }
  Status check(int result, const char *name) const {
    return rank.library->check(result, name, group.comm);
  }

  Status status;
  bool isOpen = false;
};
} // namespace

static Status allGather(void *state, uint32_t group,
                        const CollectiveOperand *operands, size_t count) {
  Call call(state, group);
  for (size_t i = 0; i < count && call; ++i) {
    const CollectiveOperand &each = operands[i];
    int64_t outer = std::max<int64_t>(1, each.outer);
    int64_t piece = each.elements / outer * elementBytes(each.type);
    if (call.isAlone()) {
      call.copy(each.out, each.in, piece * outer);
      continue;
    }
    for (int64_t o = 0; o < outer && call; ++o)
      call.issue(
          call.library().allGather(at(each.in, o * piece),
                                   at(each.out, o * piece * call.group.size),
                                   piece, ncclU8, call.group.comm, call.stream),
          "ncclAllGather");
  }
  return call.end();
}

static Status allReduce(void *state, uint32_t group, ReductionKind kind,
                        const CollectiveOperand *operands, size_t count) {
  Call call(state, group);
  for (size_t i = 0; i < count && call; ++i) {
    const CollectiveOperand &each = operands[i];
    if (call.isAlone()) {
      call.copy(each.out, each.in, each.elements * elementBytes(each.type));
      continue;
    }
    int type;
    if (Status status = typeOf(each.type, type); !status)
      return call.fail(status);
    call.issue(call.library().allReduce(each.in, each.out, each.elements, type,
                                        opOf(kind, each.type), call.group.comm,
                                        call.stream),
               "ncclAllReduce");
  }
  return call.end();
}

static Status reduceScatter(void *state, uint32_t group, ReductionKind kind,
                            const CollectiveOperand *operands, size_t count) {
  Call call(state, group);
  for (size_t i = 0; i < count && call; ++i) {
    const CollectiveOperand &each = operands[i];
    int64_t size = elementBytes(each.type);
    if (call.isAlone()) {
      call.copy(each.out, each.in, each.elements * size);
      continue;
    }
    int type;
    if (Status status = typeOf(each.type, type); !status)
      return call.fail(status);
    int64_t n = call.group.size, outer = std::max<int64_t>(1, each.outer);
    int64_t piece = each.elements / n / outer;
    for (int64_t o = 0; o < outer && call; ++o)
      call.issue(call.library().reduceScatter(
                     at(each.in, o * n * piece * size),
                     at(each.out, o * piece * size), piece, type,
                     opOf(kind, each.type), call.group.comm, call.stream),
                 "ncclReduceScatter");
  }
  return call.end();
}

static Status allToAll(void *state, uint32_t group,
                       const CollectiveOperand &operand,
                       const AllToAllShape &shape) {
  Call call(state, group);
  if (call.isAlone()) {
    call.copy(operand.out, operand.in,
              operand.elements * elementBytes(operand.type));
    return call.end();
  }
  int64_t n = call.group.size, size = elementBytes(operand.type);
  int64_t piece[maxDims], inStrides[maxDims], outStrides[maxDims];
  int64_t in = 1, out = 1;
  for (int d = shape.ndims - 1; d >= 0; --d) {
    piece[d] = shape.dims[d] / (d == shape.split ? n : 1);
    inStrides[d] = in;
    outStrides[d] = out;
    in *= shape.dims[d];
    out *= piece[d] * (d == shape.concat ? n : 1);
  }
  // Inside these dims a piece is one run in the operand and in the result.
  int whole = std::max(shape.split, shape.concat);
  int64_t run = size;
  for (int d = whole; d < shape.ndims; ++d)
    run *= piece[d];
  int64_t runs = 1;
  for (int d = 0; d < whole; ++d)
    runs *= piece[d];
  for (int64_t j = 0; j < n && call; ++j)
    for (int64_t r = 0; r < runs && call; ++r) {
      int64_t from = j * piece[shape.split] * inStrides[shape.split],
              to = j * piece[shape.concat] * outStrides[shape.concat];
      for (int64_t d = whole - 1, rest = r; d >= 0; rest /= piece[d--]) {
        from += rest % piece[d] * inStrides[d];
        to += rest % piece[d] * outStrides[d];
      }
      int peer = static_cast<int>(j);
      call.issue(call.library().send(at(operand.in, from * size), run, ncclU8,
                                     peer, call.group.comm, call.stream),
                 "ncclSend");
      call.issue(call.library().receive(at(operand.out, to * size), run, ncclU8,
                                        peer, call.group.comm, call.stream),
                 "ncclRecv");
    }
  return call.end();
}

static Status broadcast(void *state, uint32_t group, int64_t root,
                        const CollectiveOperand &operand) {
  Call call(state, group);
  int64_t bytes = operand.elements * elementBytes(operand.type);
  if (call.isAlone())
    call.copy(operand.out, operand.in, bytes);
  else if (call)
    call.issue(call.library().broadcast(operand.in, operand.out, bytes, ncclU8,
                                        static_cast<int>(root), call.group.comm,
                                        call.stream),
               "ncclBroadcast");
  return call.end();
}

static Status permute(void *state, uint32_t group, int64_t to, int64_t from,
                      const CollectiveOperand *operands, size_t count) {
  Call call(state, group);
  for (size_t i = 0; i < count && call; ++i) {
    const CollectiveOperand &each = operands[i];
    int64_t bytes = each.elements * elementBytes(each.type);
    if (call.isAlone() && from >= 0) {
      call.copy(each.out, each.in, bytes);
      continue;
    }
    if (from < 0)
      call.zero(each.out, bytes);
    if (to >= 0 && !call.isAlone())
      call.issue(call.library().send(each.in, bytes, ncclU8,
                                     static_cast<int>(to), call.group.comm,
                                     call.stream),
                 "ncclSend");
    if (from >= 0)
      call.issue(call.library().receive(each.out, bytes, ncclU8,
                                        static_cast<int>(from), call.group.comm,
                                        call.stream),
                 "ncclRecv");
  }
  return call.end();
}

static Status send(void *state, uint32_t group, int64_t to, int64_t,
                   const void *data, uint64_t bytes) {
  Call call(state, group);
  if (call.isAlone())
    return call.fail(Status::error("a rank cannot send to itself on a GPU"));
  if (call)
    call.issue(call.library().send(data, bytes, ncclU8, static_cast<int>(to),
                                   call.group.comm, call.stream),
               "ncclSend");
  return call.end();
}

static Status receive(void *state, uint32_t group, int64_t from, int64_t,
                      void *data, uint64_t bytes) {
  Call call(state, group);
  if (call.isAlone())
    return call.fail(Status::error("a rank cannot send to itself on a GPU"));
  if (call)
    call.issue(call.library().receive(data, bytes, ncclU8,
                                      static_cast<int>(from), call.group.comm,
                                      call.stream),
               "ncclRecv");
  return call.end();
}

static Status barrier(void *, uint32_t) {
  return Status::error("GPUs have no barrier of their own");
}

static void abortRank(void *state, const Status &) { rankOf(state).abort(); }

static void setStream(void *state, uint32_t stream) {
  rankOf(state).stream = stream;
}

static const CommunicatorFunctions ncclFunctions = {
    "nccl",
    allGather,
    allReduce,
    reduceScatter,
    allToAll,
    broadcast,
    permute,
    send,
    receive,
    barrier,
    abortRank,
    setStream,
    /*peakBufferedBytes=*/nullptr};

Communicator NcclRank::communicator() { return {&ncclFunctions, this}; }
