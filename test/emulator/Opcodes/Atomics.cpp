//===- Atomics.cpp - atom and red -----------------------------------------===//
//
// Lanes in order, so sums of floats are the same from run to run; the GPU's
// order is not defined.
//
//===----------------------------------------------------------------------===//
#include "Execution/Access.h"
#include "Opcodes/Lanes.h"

#include <algorithm>
#include <cstring>

namespace dshard::emulator {
namespace {

enum Operation : uint8_t {
  add,
  min,
  max,
  inc,
  dec,
  and_,
  or_,
  xor_,
  exch,
  cas
};

template <typename T> T apply(Operation operation, T old, T b, T c) {
  switch (operation) {
  case add:
    return static_cast<T>(static_cast<Wide<T>>(old) + static_cast<Wide<T>>(b));
  case min:
    return static_cast<Wide<T>>(b) < static_cast<Wide<T>>(old) ? b : old;
  case max:
    return static_cast<Wide<T>>(old) < static_cast<Wide<T>>(b) ? b : old;
  case exch:
    return b;
  case cas:
    return std::memcmp(&old, &b, sizeof(T)) ? old : c;
  default:
    break;
  }
  if constexpr (std::is_integral_v<T>) {
    switch (operation) {
    case min:
      return std::min(old, b);
    case max:
      return std::max(old, b);
    case inc:
      return old >= b ? 0 : old + 1;
    case dec:
      return old == 0 || old > b ? b : old - 1;
    case and_:
      return old & b;
    case or_:
      return old | b;
    case xor_:
      return old ^ b;
    default:
      break;
    }
  }
  return old;
}
template <>
int32_t apply(Operation operation, int32_t old, int32_t b, int32_t c) {
  return operation == min ? std::min(old, b)
         : operation == max
             ? std::max(old, b)
             : static_cast<int32_t>(apply<uint32_t>(
                   operation, static_cast<uint32_t>(old),
                   static_cast<uint32_t>(b), static_cast<uint32_t>(c)));
}
template <>
int64_t apply(Operation operation, int64_t old, int64_t b, int64_t c) {
  return operation == min ? std::min(old, b)
         : operation == max
             ? std::max(old, b)
             : static_cast<int64_t>(apply<uint64_t>(
                   operation, static_cast<uint64_t>(old),
                   static_cast<uint64_t>(b), static_cast<uint64_t>(c)));
}

/// operand: destination (flag), b, c, address in operand[9].
template <typename T>
void atomic(Warp &w, const Instruction &i, uint32_t mask) {
  T *d = w.lanes<T>(i.operand[0]);
  const T *b = w.lanes<T>(i.operand[1]);
  const T *c = w.lanes<T>(i.operand[2]);
  forLanes(mask, [&](unsigned l) {
    uint64_t base = i.wideAddress ? w.lanes<uint64_t>(i.operand[9])[l]
                                  : w.lanes<uint32_t>(i.operand[9])[l];
    uint64_t address = base + static_cast<uint64_t>(i.immediate);
    Space space = static_cast<Space>(i.target);
    uint8_t *at =
        space == Space::shared
            ? spaceAccess<Space::shared>(w, i, l, address, sizeof(T),
                                         AccessKind::atomic, nullptr)
        : space == Space::global
            ? spaceAccess<Space::global>(w, i, l, address, sizeof(T),
                                         AccessKind::atomic, nullptr)
            : spaceAccess<Space::generic>(w, i, l, address, sizeof(T),
                                          AccessKind::atomic, nullptr);
    T old = T();
    if (at) {
      std::memcpy(&old, at, sizeof(T));
      T now = apply<T>(static_cast<Operation>(i.count), old, b[l], c[l]);
      std::memcpy(at, &now, sizeof(T));
    }
    if (i.flag)
      d[l] = old;
  });
}

bool decodeAtomic(Decoding &d, bool returns) {
  Instruction &i = d.instruction;
  while (d.takeOneOf({"relaxed", "acquire", "release", "acq_rel", "gpu", "cta",
                      "sys", "noftz"}) >= 0)
    ;
  int space = d.takeOneOf({"global", "shared", "shared::cta"});
  i.target = static_cast<uint32_t>(space < 0    ? Space::generic
                                   : space == 0 ? Space::global
                                                : Space::shared);
  int operation = d.takeOneOf(
      {"add", "min", "max", "inc", "dec", "and", "or", "xor", "exch", "cas"});
  Type type = d.takeType();
  if (operation < 0)
    return d.fail("the operation is not known");
  i.count = static_cast<uint8_t>(operation);
  i.flag = returns;
  unsigned at = returns ? 1 : 0;
  Space named = Space::generic;
  bool known;
  if (d.operands.size() != at + (operation == cas ? 3 : 2))
    return d.fail("the number of operands does not fit");
  if ((returns && !d.destination(0, i.operand[0], sizeOf(type))) ||
      !d.address(at, i.operand[9], named, known) ||
      !d.source(at + 1, i.operand[1], type))
    return false;
  i.operand[2] = i.operand[1];
  if (operation == cas && !d.source(at + 2, i.operand[2], type))
    return false;
  bool bits = operation == inc || operation == dec || operation == and_ ||
              operation == or_ || operation == xor_;
  if (isFloat(type) && bits)
    return d.fail("not known for floats");
  switch (type) {
  case Type::u32:
  case Type::b32:
    return setHandler(d, atomic<uint32_t>);
  case Type::s32:
    return setHandler(d, atomic<int32_t>);
  case Type::u64:
  case Type::b64:
    return setHandler(d, atomic<uint64_t>);
  case Type::s64:
    return setHandler(d, atomic<int64_t>);
  case Type::f32:
    return setHandler(d, atomic<float>);
  case Type::f64:
    return setHandler(d, atomic<double>);
  default:
    return d.fail("this type is not known here");
  }
}

} // namespace

bool decode_atom(Decoding &d) { return decodeAtomic(d, true); }
bool decode_red(Decoding &d) { return decodeAtomic(d, false); }

} // namespace dshard::emulator
