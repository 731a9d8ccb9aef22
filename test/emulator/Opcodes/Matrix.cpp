//===- Matrix.cpp - mma.sync and ldmatrix ---------------------------------===//
//
// mma.m16n8k8 and m16n8k16 of f16 and bf16 into f32, with the fragment layout
// of the PTX manual (section "Matrix fragments for mma.m16n8k16"): a warp
// multiplies A [16, k] (row) by B [k, 8] (col) and adds C [16, 8]. The products
// are exact; sums are in float, k ascending (hardware: another order).
//
//===----------------------------------------------------------------------===//
#include "Execution/Access.h"
#include "Opcodes/Lanes.h"

#include <cstring>

namespace dshard::emulator {
namespace {

/// operand: d0..d3 in 0..3, the rest in the parser's order: see decode.
/// A: k/4 registers... packed as pairs; lane = 4 * group + t.
template <typename T, unsigned k>
void multiply(Warp &w, const Instruction &i, uint32_t mask) {
  if (mask != 0xffffffffu) {
    w.launch->report(Fault::shuffleInactive, i, w, __builtin_ctz(mask),
                     "mma.sync needs all 32 lanes");
    return;
  }
  constexpr unsigned registersA = k / 4, registersB = k / 8;
  float a[16][k], b[k][8], c[16][8];
  const uint32_t *offsets = w.lanes<uint32_t>(i.target); // a, b, c offsets
  for (unsigned lane = 0; lane < 32; ++lane) {
    unsigned group = lane / 4, t = lane % 4;
    for (unsigned r = 0; r < registersA; ++r) {
      Two<T> pair = w.lanes<Two<T>>(offsets[r])[lane];
      unsigned row = group + (r % 2 ? 8 : 0), column = t * 2 + (r / 2) * 8;
      a[row][column] = pair.low;
      a[row][column + 1] = pair.high;
    }
    for (unsigned r = 0; r < registersB; ++r) {
      Two<T> pair = w.lanes<Two<T>>(offsets[4 + r])[lane];
      b[t * 2 + r * 8][group] = pair.low;
      b[t * 2 + r * 8 + 1][group] = pair.high;
    }
    for (unsigned r = 0; r < 4; ++r)
      c[group + (r / 2) * 8][t * 2 + r % 2] =
          w.lanes<float>(offsets[6 + r])[lane];
  }
  for (unsigned row = 0; row < 16; ++row)
    for (unsigned column = 0; column < 8; ++column)
      for (unsigned n = 0; n < k; ++n)
        c[row][column] += a[row][n] * b[n][column];
  for (unsigned lane = 0; lane < 32; ++lane)
    for (unsigned r = 0; r < 4; ++r)
      w.lanes<float>(i.operand[r])[lane] =
          c[lane / 4 + (r / 2) * 8][lane % 4 * 2 + r % 2];
}

/// ldmatrix: lane n gives the address of row n % 8 of matrix n / 8; lane l gets
/// elements 2 (l % 4), + 1 of row l / 4 (columns and rows swapped for .trans).
void loadMatrix(Warp &w, const Instruction &i, uint32_t mask) {
  if (mask != 0xffffffffu) {
    w.launch->report(Fault::shuffleInactive, i, w, __builtin_ctz(mask),
                     "ldmatrix needs all 32 lanes");
    return;
  }
  for (unsigned m = 0; m < i.count; ++m) {
    uint16_t values[8][8] = {};
    for (unsigned row = 0; row < 8; ++row) {
      unsigned lane = m * 8 + row;
      uint64_t base = i.wideAddress ? w.lanes<uint64_t>(i.operand[9])[lane]
                                    : w.lanes<uint32_t>(i.operand[9])[lane];
      const uint8_t *from =
          sharedAccess(w, i, lane, base + static_cast<uint64_t>(i.immediate),
                       16, AccessKind::read, nullptr);
      if (from)
        std::memcpy(values[row], from, 16);
    }
    for (unsigned lane = 0; lane < 32; ++lane) {
      unsigned row = lane / 4, column = lane % 4 * 2;
      uint32_t low = i.flag ? values[column][row] : values[row][column];
      uint32_t high =
          i.flag ? values[column + 1][row] : values[row][column + 1];
      w.lanes<uint32_t>(i.operand[m])[lane] = low | (high << 16);
    }
  }
}

} // namespace

bool decode_mma(Decoding &d) {
  Instruction &i = d.instruction;
  d.take("sync");
  d.take("aligned");
  int shape = d.takeOneOf({"m16n8k8", "m16n8k16"});
  if (!d.take("row") || !d.take("col") || shape < 0 || d.operands.size() != 4)
    return d.fail("this shape is not known");
  Type result = d.takeFirstType(), a = d.takeFirstType(), b = d.takeFirstType(),
       c = d.takeFirstType();
  if (result != Type::f32 || c != Type::f32 || a != b ||
      (a != Type::f16 && a != Type::bf16))
    return d.fail("these types are not known");
  unsigned counts[] = {4, shape ? 4u : 2u, shape ? 2u : 1u, 4};
  for (unsigned k = 0; k < 4; ++k)
    if ((d.operands[k].kind == ParsedOperand::vector
             ? d.operands[k].elements.size()
             : 1) != counts[k])
      return d.fail("operand " + std::to_string(k) + " has another size");
  auto element = [&](unsigned operand, unsigned n) -> const ParsedOperand & {
    return d.operands[operand].kind == ParsedOperand::vector
               ? d.operands[operand].elements[n]
               : d.operands[operand];
  };
  // More operands than an instruction has: their offsets lie in a register of
  // constants of their own.
  uint32_t offsets[10] = {};
  for (unsigned k = 0; k < 4; ++k)
    if (!d.source(element(0, k), i.operand[k], Type::f32) ||
        !d.source(element(3, k), offsets[6 + k], Type::f32))
      return false;
  for (unsigned k = 0; k < counts[1]; ++k)
    if (!d.source(element(1, k), offsets[k], Type::b32))
      return false;
  for (unsigned k = 0; k < counts[2]; ++k)
    if (!d.source(element(2, k), offsets[4 + k], Type::b32))
      return false;
  Kernel &kernel = d.resolver.kernel();
  i.target = static_cast<uint32_t>(kernel.image.size());
  kernel.image.resize(i.target + 64);
  std::memcpy(&kernel.image[i.target], offsets, sizeof(offsets));
  return setHandler(d, a == Type::f16
                           ? (shape ? multiply<F16, 16> : multiply<F16, 8>)
                           : (shape ? multiply<BF16, 16> : multiply<BF16, 8>));
}

bool decode_ldmatrix(Decoding &d) {
  Instruction &i = d.instruction;
  d.take("sync");
  d.take("aligned");
  int count = d.takeOneOf({"x1", "x2", "x4"});
  i.flag = d.take("trans");
  d.takeOneOf({"shared", "shared::cta"});
  if (!d.take("m8n8") || count < 0 || d.takeType() != Type::b16 ||
      d.operands.size() != 2)
    return d.fail("not known in this form");
  i.count = static_cast<uint8_t>(1 << count);
  std::vector<ParsedOperand> one = {d.operands[0]};
  std::vector<ParsedOperand> &elements =
      d.operands[0].kind == ParsedOperand::vector ? d.operands[0].elements
                                                  : one;
  if (elements.size() != i.count)
    return d.fail("expects " + std::to_string(i.count) + " registers");
  for (unsigned k = 0; k < i.count; ++k)
    if (!d.source(elements[k], i.operand[k], Type::b32))
      return false;
  Space space;
  bool known;
  return d.address(1, i.operand[9], space, known) && setHandler(d, loadMatrix);
}

} // namespace dshard::emulator
