//===- Decode.h - One PTX instruction being decoded -------------*- C++ -*-===//
//
// The parser hands every instruction to the row of its stem (Opcodes.def). The
// row takes the modifiers that it knows, sets the handler and its operands; a
// modifier that nobody took, or an operand that does not fit, refuses the
// module with the line.
//
//===----------------------------------------------------------------------===//
#ifndef DSHARD_EMULATOR_PTX_DECODE_H
#define DSHARD_EMULATOR_PTX_DECODE_H

#include "Ptx/Module.h"

#include <string>
#include <string_view>
#include <vector>

namespace dshard::emulator {

struct ParsedOperand {
  enum Kind : uint8_t {
    name,
    integer,
    floating32,
    floating64,
    vector,
    address,
    sink
  };
  Kind kind = name;
  std::string_view text;   // register, special register, variable, label
  std::string_view second; // of `%p|%q`, or the second of a pair
  bool negated = false;    // !%p
  uint64_t value = 0;      // immediate, bits
  int64_t offset = 0;      // [text + offset]
  std::vector<ParsedOperand> elements; // of a vector
};

/// Where operands live; implemented by the parser of one kernel body.
class OperandResolver {
public:
  virtual ~OperandResolver() = default;
  /// Type of a register name, none if there is no such register.
  virtual Type registerType(std::string_view name) = 0;
  virtual uint32_t registerOffset(std::string_view name) = 0;
  /// A register that holds `value` in every lane; bytes 2, 4, 8 or 16.
  virtual uint32_t constant(uint64_t value, unsigned bytes) = 0;
  /// A special register (%tid.x); ~0u: not one that is known.
  virtual uint32_t special(std::string_view name) = 0;
  virtual bool isSpecial(std::string_view name) = 0;
  /// Address of a variable, or of a parameter; false: no such name.
  virtual bool variable(std::string_view name, Space &space,
                        uint64_t &address) = 0;
  virtual Kernel &kernel() = 0;
};

class Decoding {
public:
  Decoding(OperandResolver &resolver, std::string_view opcode,
           std::vector<ParsedOperand> &operands, Instruction &instruction);

  Instruction &instruction;
  std::vector<ParsedOperand> &operands;
  OperandResolver &resolver;
  std::string_view opcode, stem;
  std::string_view branchTarget; // set by `bra`

  /// True if the modifier is there; it then counts as understood.
  bool take(std::string_view modifier);
  /// The first modifier among `names` that is there, as its index, else -1.
  int takeOneOf(std::initializer_list<std::string_view> names);
  /// The last modifier that is a type and was not taken yet; none if none.
  Type takeType();
  /// First untaken type (cvt has two: first the destination's).
  Type takeFirstType();
  /// Modifiers not taken yet, for the error; empty if all were.
  std::string left() const;

  /// Destination: a register of `bytes` (0: predicate); a sink gets a scratch.
  bool destination(unsigned index, uint32_t &offset, unsigned bytes);
  /// Source register or immediate of `bytes` (0: predicate mask; immediates
  /// and `!p` are not for predicates, see predicate()).
  bool source(unsigned index, uint32_t &offset, Type type);
  bool source(const ParsedOperand &operand, uint32_t &offset, Type type);
  /// A predicate, possibly negated or an immediate.
  bool predicate(const ParsedOperand &operand, uint32_t &offset, bool &negated);
  /// [register + n], [variable + n], [n]: operand offset, wideAddress and
  /// immediate of the instruction; `space` when the variable tells it.
  bool address(unsigned index, uint32_t &offset, Space &space, bool &known);
  /// Bytes of the register; 16-bit types in 32-bit registers happen.
  unsigned registerBytes(const ParsedOperand &operand);
  uint32_t scratch(unsigned bytes);

  bool fail(const std::string &why) {
    if (error.empty())
      error = why;
    return false;
  }
  std::string error;

private:
  std::vector<std::string_view> modifiers;
  std::vector<bool> taken;
};

/// A row of the table: sets up `decoding.instruction`, false with an error.
using Row = bool (*)(Decoding &decoding);
/// The row of a stem ("add"), null: unknown opcode.
Row findRow(std::string_view stem);

} // namespace dshard::emulator

#endif // DSHARD_EMULATOR_PTX_DECODE_H
