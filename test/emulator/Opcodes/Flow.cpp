//===- Flow.cpp - bra, ret, exit, trap ------------------------------------===//
#include "Opcodes/Lanes.h"

namespace dshard::emulator {

static void nothing(Warp &, const Instruction &, uint32_t) {}

static void reportTrap(Warp &w, const Instruction &i, uint32_t mask) {
  w.launch->report(Fault::badInstruction, i, w, __builtin_ctz(mask),
                   "the kernel stopped itself");
}

bool decode_bra(Decoding &d) {
  d.take("uni");
  if (d.operands.size() != 1 || d.operands[0].kind != ParsedOperand::name)
    return d.fail("a label is expected");
  d.branchTarget = d.operands[0].text;
  d.instruction.control = Control::branch;
  return setHandler(d, nothing);
}
bool decode_ret(Decoding &d) {
  d.take("uni");
  d.instruction.control = Control::exit;
  return setHandler(d, nothing);
}
bool decode_exit(Decoding &d) { return decode_ret(d); }
bool decode_trap(Decoding &d) { return setHandler(d, reportTrap); }

} // namespace dshard::emulator
