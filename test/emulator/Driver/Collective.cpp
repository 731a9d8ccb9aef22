//===- Collective.cpp - Reductions and copies between ranks ---------------===//
//
// Reductions add in rank order in float (double for f64, exact for integers),
// so all members get the same bits.
//
//===----------------------------------------------------------------------===//
#include "Driver/Collective.h"

#include "Ptx/Types.h"

#include <cstring>

namespace dshard::emulator {

const char *typeName(int type) {
  static const char *names[] = {"i8",  "u8",  "i32", "u32", "i64",
                                "u64", "f16", "f32", "f64", "bf16"};
  return type >= 0 && type < 10 ? names[type] : nullptr;
}
uint64_t typeBytes(int type) {
  static const uint64_t bytes[] = {1, 1, 4, 4, 8, 8, 2, 4, 8, 2};
  return bytes[type];
}
const char *reductionName(int operation) {
  static const char *names[] = {"sum", "prod", "max", "min", "avg"};
  return operation >= 0 && operation < 5 ? names[operation] : nullptr;
}

template <typename T, typename W>
static void reduceElements(int operation, const std::vector<uint64_t> &from,
                           uint64_t first, uint64_t count, uint8_t *to) {
  for (uint64_t i = 0; i < count; ++i) {
    W total = W();
    for (size_t r = 0; r < from.size(); ++r) {
      T element;
      std::memcpy(&element,
                  reinterpret_cast<uint8_t *>(from[r]) +
                      (first + i) * sizeof(T),
                  sizeof(T));
      W value = static_cast<W>(element);
      if (r == 0)
        total = value;
      else if (operation == 0 || operation == 4)
        total = static_cast<W>(total + value);
      else if (operation == 1)
        total = static_cast<W>(total * value);
      else if (operation == 2)
        total = value > total ? value : total;
      else
        total = value < total ? value : total;
    }
    if (operation == 4)
      total = static_cast<W>(total / static_cast<W>(from.size()));
    T result = static_cast<T>(total);
    std::memcpy(to + i * sizeof(T), &result, sizeof(T));
  }
}
static void reduce(int type, int operation, const std::vector<uint64_t> &from,
                   uint64_t first, uint64_t count, uint8_t *to) {
  switch (type) {
  case 0:
    return reduceElements<int8_t, int64_t>(operation, from, first, count, to);
  case 1:
    return reduceElements<uint8_t, uint64_t>(operation, from, first, count, to);
  case 2:
    return reduceElements<int32_t, int64_t>(operation, from, first, count, to);
  case 3:
    return reduceElements<uint32_t, uint64_t>(operation, from, first, count,
                                              to);
  case 4:
    return reduceElements<int64_t, int64_t>(operation, from, first, count, to);
  case 5:
    return reduceElements<uint64_t, uint64_t>(operation, from, first, count,
                                              to);
  case 6:
    return reduceElements<F16, float>(operation, from, first, count, to);
  case 7:
    return reduceElements<float, float>(operation, from, first, count, to);
  case 8:
    return reduceElements<double, double>(operation, from, first, count, to);
  default:
    return reduceElements<BF16, float>(operation, from, first, count, to);
  }
}

const char *symbolName(Kind kind) {
  static const char *names[] = {"ncclAllReduce", "ncclAllGather",
                                "ncclReduceScatter", "ncclBroadcast",
                                "ncclReduce"};
  return names[kind];
}
const char *kindName(Kind kind) {
  static const char *names[] = {"all_reduce", "all_gather", "reduce_scatter",
                                "broadcast", "reduce"};
  return names[kind];
}

/// Moves the bytes of one collective; everything is computed before anything
/// is stored, since buffers may be in place.
std::string runCollective(const Shape &shape, Meeting &meeting,
                          std::vector<std::vector<Access>> &touched) {
  int ranks = static_cast<int>(meeting.members.size());
  uint64_t bytes = typeBytes(shape.type);
  std::vector<uint64_t> send;
  for (auto &member : meeting.members)
    send.push_back(member.send);
  std::vector<uint8_t> all;
  switch (shape.kind) {
  case allReduce:
  case reduceTo:
    all.resize(shape.count * bytes);
    reduce(shape.type, shape.operation, send, 0, shape.count, all.data());
    break;
  case reduceScatter:
    all.resize(shape.count * bytes * static_cast<uint64_t>(ranks));
    reduce(shape.type, shape.operation, send, 0,
           shape.count * static_cast<uint64_t>(ranks), all.data());
    break;
  case allGather:
    all.resize(shape.count * bytes * static_cast<uint64_t>(ranks));
    for (int r = 0; r < ranks; ++r)
      std::memcpy(all.data() + static_cast<uint64_t>(r) * shape.count * bytes,
                  reinterpret_cast<void *>(send[static_cast<size_t>(r)]),
                  shape.count * bytes);
    break;
  case broadcast:
    all.resize(shape.count * bytes);
    std::memcpy(all.data(),
                reinterpret_cast<void *>(send[static_cast<size_t>(shape.root)]),
                shape.count * bytes);
    break;
  }
  for (int r = 0; r < ranks; ++r) {
    Meeting::Member &member = meeting.members[static_cast<size_t>(r)];
    auto &mine = touched[static_cast<size_t>(r)];
    bool sends = shape.kind != broadcast || r == shape.root;
    bool receives = shape.kind != reduceTo || r == shape.root;
    if (sends)
      mine.push_back({member.send,
                      member.send + shape.sendElements(ranks) * bytes, false});
    if (!receives)
      continue;
    uint64_t size = shape.receiveElements(ranks) * bytes;
    std::memcpy(reinterpret_cast<void *>(member.receive),
                all.data() + (shape.kind == reduceScatter
                                  ? static_cast<uint64_t>(r) * size
                                  : 0),
                size);
    mine.push_back({member.receive, member.receive + size, true});
  }
  return "";
}

} // namespace dshard::emulator
