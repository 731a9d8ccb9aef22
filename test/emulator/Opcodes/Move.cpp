//===- Move.cpp - mov with packing, cvta ----------------------------------===//
#include "Opcodes/Lanes.h"
#include "Ptx/Parser.h"

#include <cstring>

namespace dshard::emulator {
namespace {

struct Same {
  template <typename T> static T run(T a) { return a; }
};
Handler moveOf(unsigned bytes) {
  switch (bytes) {
  case 2:
    return unary<uint16_t, uint16_t, Same>;
  case 4:
    return unary<uint32_t, uint32_t, Same>;
  case 8:
    return unary<uint64_t, uint64_t, Same>;
  case 16:
    return unary<Bits128, Bits128, Same>;
  default:
    return nullptr;
  }
}
void movePredicate(Warp &w, const Instruction &i, uint32_t mask) {
  uint32_t &d = w.predicate(i.operand[0]);
  uint32_t a = w.predicate(i.operand[1]);
  a = i.flag ? ~a : a;
  d = (d & ~mask) | (a & mask);
}

/// {a, b} -> d and d -> {a, b}; the first element is the low part.
void pack(Warp &w, const Instruction &i, uint32_t mask) {
  uint8_t *d = w.lanes<uint8_t>(i.operand[0]);
  forLanes(mask, [&](unsigned l) {
    for (unsigned k = 0; k < i.count; ++k)
      std::memcpy(d + l * i.bytes * i.count + k * i.bytes,
                  w.lanes<uint8_t>(i.operand[1 + k]) + l * i.bytes, i.bytes);
  });
}
void unpack(Warp &w, const Instruction &i, uint32_t mask) {
  const uint8_t *a = w.lanes<uint8_t>(i.operand[0]);
  forLanes(mask, [&](unsigned l) {
    for (unsigned k = 0; k < i.count; ++k)
      std::memcpy(w.lanes<uint8_t>(i.operand[1 + k]) + l * i.bytes,
                  a + l * i.bytes * i.count + k * i.bytes, i.bytes);
  });
}

Type bitsOf(unsigned bytes) {
  return bytes == 2    ? Type::b16
         : bytes == 4  ? Type::b32
         : bytes == 8  ? Type::b64
         : bytes == 16 ? Type::b128
                       : Type::none;
}

/// Generic address of a window's offset, and back; global ones are the same.
void toGeneric(Warp &w, const Instruction &i, uint32_t mask) {
  uint64_t *d = w.lanes<uint64_t>(i.operand[0]);
  const uint64_t *a = w.lanes<uint64_t>(i.operand[1]);
  uint64_t window = static_cast<uint64_t>(i.immediate);
  forLanes(mask, [&](unsigned l) { d[l] = a[l] | window; });
}
void fromGeneric(Warp &w, const Instruction &i, uint32_t mask) {
  uint64_t *d = w.lanes<uint64_t>(i.operand[0]);
  const uint64_t *a = w.lanes<uint64_t>(i.operand[1]);
  forLanes(mask, [&](unsigned l) { d[l] = a[l] & ~windowMask; });
}
void isSpace(Warp &w, const Instruction &i, uint32_t mask) {
  const uint64_t *a = w.lanes<uint64_t>(i.operand[1]);
  uint32_t &d = w.predicate(i.operand[0]);
  uint32_t result = 0;
  for (unsigned l = 0; l < 32; ++l)
    result |=
        uint32_t((a[l] & windowMask) == static_cast<uint64_t>(i.immediate))
        << l;
  d = (d & ~mask) | (result & mask);
}

} // namespace

bool decode_mov(Decoding &d) {
  Instruction &i = d.instruction;
  Type type = d.takeType();
  if (d.operands.size() != 2 || type == Type::none)
    return d.fail("not known in this form");
  if (type == Type::pred) {
    bool negated;
    if (!d.destination(0, i.operand[0], 0) ||
        !d.predicate(d.operands[1], i.operand[1], negated))
      return false;
    i.flag = negated;
    return setHandler(d, movePredicate);
  }
  unsigned bytes = sizeOf(type);
  bool unpacking = d.operands[0].kind == ParsedOperand::vector;
  if (unpacking || d.operands[1].kind == ParsedOperand::vector) {
    const ParsedOperand &vector = d.operands[unpacking ? 0 : 1];
    i.count = static_cast<uint8_t>(vector.elements.size());
    if (i.count != 2 && i.count != 4)
      return d.fail("expects 2 or 4 elements");
    i.bytes = static_cast<uint8_t>(bytes / i.count);
    if (bitsOf(i.bytes) == Type::none)
      return d.fail("elements of this width are not known");
    for (unsigned k = 0; k < i.count; ++k) {
      if (unpacking && vector.elements[k].kind == ParsedOperand::sink)
        i.operand[1 + k] = d.scratch(i.bytes);
      else if (!d.source(vector.elements[k], i.operand[1 + k], bitsOf(i.bytes)))
        return false;
    }
    if (unpacking)
      return d.source(1, i.operand[0], bitsOf(bytes)) && setHandler(d, unpack);
    return d.destination(0, i.operand[0], bytes) && setHandler(d, pack);
  }
  if (d.operands[1].kind == ParsedOperand::name && bytes == 8 &&
      d.resolver.isSpecial(d.operands[1].text))
    return d.fail("64-bit special registers are not known");
  return d.destination(0, i.operand[0], bytes) &&
         d.source(1, i.operand[1], type) && setHandler(d, moveOf(bytes));
}

static bool takeWindow(Decoding &d, uint64_t &window) {
  switch (d.takeOneOf(
      {"global", "shared", "local", "const", "shared::cta", "param"})) {
  case 0:
  case 3:
    window = 0;
    return true;
  case 1:
  case 4:
    window = sharedWindow;
    return true;
  case 2:
    window = localWindow;
    return true;
  default:
    return d.fail("this space is not known");
  }
}

bool decode_cvta(Decoding &d) {
  Instruction &i = d.instruction;
  bool to = d.take("to");
  uint64_t window;
  if (!takeWindow(d, window))
    return false;
  if (sizeOf(d.takeType()) != 8)
    return d.fail("only 64-bit addresses are known");
  i.immediate = static_cast<int64_t>(window);
  return d.destination(0, i.operand[0], 8) &&
         d.source(1, i.operand[1], Type::u64) &&
         setHandler(d, to ? fromGeneric : toGeneric);
}

bool decode_isspacep(Decoding &d) {
  uint64_t window;
  if (!takeWindow(d, window))
    return false;
  d.instruction.immediate = static_cast<int64_t>(window);
  return d.destination(0, d.instruction.operand[0], 0) &&
         d.source(1, d.instruction.operand[1], Type::u64) &&
         setHandler(d, isSpace);
}

} // namespace dshard::emulator
