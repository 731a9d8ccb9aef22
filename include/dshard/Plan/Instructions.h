//===- Instructions.h - The instruction table in C++ ------------*- C++ -*-===//
//
// Instructions.def, parsed once: what the uses and the values of each kind
// mean. Builder, reader, verifier, printer and executor take it from here.
//
//===----------------------------------------------------------------------===//
#ifndef DSHARD_PLAN_INSTRUCTIONS_H
#define DSHARD_PLAN_INSTRUCTIONS_H

#include "dshard/Plan/plan_generated.h"
#include "dshard/Support/Status.h"

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace dshard::plan {

/// Instruction.kind of the schema.
enum class InstructionKind : uint16_t {
#define DSHARD_INSTRUCTION(KIND, spelling, uses, values) KIND,
#include "dshard/Plan/Instructions.def"
};

/// The buffer of an optional use that is absent.
constexpr uint32_t absentBuffer = 0xffffffffu;

/// One name of the uses grammar: `lhs`, `bias?`, `in...`, `-> out`.
struct UseInfo {
  std::string name;
  bool optional = false;
  bool repeated = false;
  bool written = false; // right of the arrow
};

/// One name of the values grammar: `m`, `packed?`, `dims[ndims]`,
/// `q_strides[3]`.
struct ValueInfo {
  std::string name;
  bool flag = false;
  int countFrom = -1; // index of the ValueInfo that says how often, or -1
  int count = 1;      // how often, when countFrom is -1
};

struct InstructionInfo {
  InstructionKind kind;
  std::string spelling;
  std::vector<UseInfo> uses;
  std::vector<ValueInfo> values;

  /// CALL, REPEAT, IF: values that are indices of blocks.
  bool isControl() const;
  /// ALL_GATHER ... RECV: has a group.
  bool isCollective() const;
  /// Index of the ValueInfo with this name, or -1.
  int findValue(std::string_view name) const;
};

/// The table in the order of InstructionKind.
const std::vector<InstructionInfo> &instructionTable();
const InstructionInfo &instructionInfo(InstructionKind kind);
/// Null when the number is not of this version.
const InstructionInfo *findInstruction(uint16_t kind);
std::optional<InstructionKind> parseInstructionKind(std::string_view spelling);

/// Where each name of an instruction's values and uses begins in its ranges.
/// Fails when counts are not literals, or the ranges do not have the length
/// that the table says.
struct InstructionLayout {
  std::vector<uint32_t> valueBegin; // one per ValueInfo, and the end
  std::vector<uint32_t> useBegin;   // one per UseInfo, and the end

  static Result<InstructionLayout> get(const InstructionInfo &info,
                                       const Value *values, size_t valueCount,
                                       size_t useCount);
};

// Values, written shortly.
inline Value literal(int64_t value) { return Value(value, ValueKind::literal); }
inline Value literalBits(double value) {
  int64_t bits;
  static_assert(sizeof(bits) == sizeof(value));
  __builtin_memcpy(&bits, &value, sizeof(bits));
  return literal(bits);
}
/// An entry of Plan.tables, chosen by the rank's coordinates.
inline Value tableValue(uint32_t table) {
  return Value(table, ValueKind::table);
}
inline Value scalarValue(uint32_t scalar) {
  return Value(scalar, ValueKind::scalar);
}
/// The index of an enclosing repeat; 0 is the innermost.
inline Value loopIndex(uint32_t depth = 0) {
  return Value(depth, ValueKind::loop_index);
}
/// Only as a slot: the micro-batch of the action that runs the program.
inline Value microBatch() { return Value(0, ValueKind::micro_batch); }

} // namespace dshard::plan

#endif // DSHARD_PLAN_INSTRUCTIONS_H
