//===- Collective.h - What a collective is, and its data --------*- C++ -*-===//
#ifndef DSHARD_EMULATOR_DRIVER_COLLECTIVE_H
#define DSHARD_EMULATOR_DRIVER_COLLECTIVE_H

#include "Driver/Engine.h"

namespace dshard::emulator {

/// "f32" for ncclFloat32; null for a type that is not known.
const char *typeName(int type);
uint64_t typeBytes(int type);
/// "sum" for ncclSum; null for an operation that is not known.
const char *reductionName(int operation);

enum Kind { allReduce, allGather, reduceScatter, broadcast, reduceTo };
/// "ncclAllReduce" and "all_reduce".
const char *symbolName(Kind kind);
const char *kindName(Kind kind);

/// A call as the members must agree on it.
struct Shape {
  Kind kind;
  uint64_t count; // as in the call
  int type, operation, root;
  uint64_t sendElements(int ranks) const {
    return kind == reduceScatter ? count * static_cast<uint64_t>(ranks) : count;
  }
  uint64_t receiveElements(int ranks) const {
    return kind == allGather ? count * static_cast<uint64_t>(ranks) : count;
  }
  std::string text() const {
    std::string out = std::string(kindName(kind)) + " of " +
                      std::to_string(count) + " " + typeName(type);
    if (kind == allReduce || kind == reduceScatter || kind == reduceTo)
      out += std::string(" by ") + reductionName(operation);
    if (kind == broadcast || kind == reduceTo)
      out += " root " + std::to_string(root);
    return out;
  }
};

/// Moves the bytes of one collective from the members' send to their receive
/// buffers and notes what each touched.
std::string runCollective(const Shape &shape, Meeting &meeting,
                          std::vector<std::vector<Access>> &touched);

} // namespace dshard::emulator

#endif // DSHARD_EMULATOR_DRIVER_COLLECTIVE_H
