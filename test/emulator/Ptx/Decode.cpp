//===- Decode.cpp - One PTX instruction being decoded ---------------------===//
#include "Ptx/Decode.h"

#include <cstring>
#include <map>

namespace dshard::emulator {

Decoding::Decoding(OperandResolver &resolver, std::string_view opcode,
                   std::vector<ParsedOperand> &operands,
                   Instruction &instruction)
    : instruction(instruction), operands(operands), resolver(resolver),
      opcode(opcode) {
  size_t at = opcode.find('.');
  stem = opcode.substr(0, at);
  while (at != std::string_view::npos) {
    size_t next = opcode.find('.', at + 1);
    modifiers.push_back(opcode.substr(at + 1, next == std::string_view::npos
                                                  ? std::string_view::npos
                                                  : next - at - 1));
    at = next;
  }
  taken.assign(modifiers.size(), false);
}

bool Decoding::take(std::string_view modifier) {
  for (size_t i = 0; i < modifiers.size(); ++i)
    if (!taken[i] && modifiers[i] == modifier)
      return taken[i] = true;
  return false;
}

int Decoding::takeOneOf(std::initializer_list<std::string_view> names) {
  int index = 0;
  for (std::string_view name : names) {
    if (take(name))
      return index;
    ++index;
  }
  return -1;
}

Type Decoding::takeType() {
  for (size_t i = modifiers.size(); i-- > 0;) {
    Type type = taken[i] ? Type::none : parseType(modifiers[i]);
    if (type != Type::none) {
      taken[i] = true;
      return type;
    }
  }
  return Type::none;
}

Type Decoding::takeFirstType() {
  for (size_t i = 0; i < modifiers.size(); ++i) {
    Type type = taken[i] ? Type::none : parseType(modifiers[i]);
    if (type != Type::none) {
      taken[i] = true;
      return type;
    }
  }
  return Type::none;
}

std::string Decoding::left() const {
  std::string text;
  for (size_t i = 0; i < modifiers.size(); ++i)
    if (!taken[i])
      text += "." + std::string(modifiers[i]);
  return text;
}

uint32_t Decoding::scratch(unsigned bytes) {
  // A constant that nobody else asks for: its content does not matter.
  return resolver.constant(0x5c5c5c5c5c5c0000ull + bytes, bytes ? bytes : 16);
}

unsigned Decoding::registerBytes(const ParsedOperand &operand) {
  if (operand.kind != ParsedOperand::name)
    return 0;
  if (resolver.isSpecial(operand.text))
    return 4;
  return sizeOf(resolver.registerType(operand.text));
}

bool Decoding::destination(unsigned index, uint32_t &offset, unsigned bytes) {
  if (index >= operands.size())
    return fail("too few operands");
  const ParsedOperand &operand = operands[index];
  if (operand.kind == ParsedOperand::sink) {
    offset = scratch(bytes);
    return true;
  }
  Type type = operand.kind == ParsedOperand::name
                  ? resolver.registerType(operand.text)
                  : Type::none;
  if (type == Type::none)
    return fail("'" + std::string(operand.text) + "' is no register");
  if (sizeOf(type) != bytes)
    return fail("register '" + std::string(operand.text) + "' has " +
                std::to_string(8 * sizeOf(type)) + " bits, the instruction " +
                std::to_string(8 * bytes));
  offset = resolver.registerOffset(operand.text);
  return true;
}

bool Decoding::source(unsigned index, uint32_t &offset, Type type) {
  if (index >= operands.size())
    return fail("too few operands");
  return source(operands[index], offset, type);
}

bool Decoding::source(const ParsedOperand &operand, uint32_t &offset,
                      Type type) {
  unsigned bytes = sizeOf(type);
  switch (operand.kind) {
  case ParsedOperand::integer: {
    uint64_t value = operand.value;
    if (type == Type::f32 || type == Type::f64)
      return fail("an integer immediate where a float is expected");
    if (bytes < 8)
      value &= (1ull << (8 * bytes)) - 1;
    offset = resolver.constant(value, bytes);
    return true;
  }
  case ParsedOperand::floating32:
  case ParsedOperand::floating64: {
    uint64_t value = operand.value;
    if (operand.kind == ParsedOperand::floating64 && bytes == 4) {
      double wide;
      std::memcpy(&wide, &value, 8);
      value = bitsOfFloat(static_cast<float>(wide));
    } else if (operand.kind == ParsedOperand::floating32 && bytes == 8) {
      double wide = floatOfBits(static_cast<uint32_t>(value));
      std::memcpy(&value, &wide, 8);
    }
    if (bytes != 4 && bytes != 8)
      return fail("a float immediate of another width");
    offset = resolver.constant(value, bytes);
    return true;
  }
  case ParsedOperand::name: {
    if (resolver.isSpecial(operand.text)) {
      offset = resolver.special(operand.text);
      if (bytes != 4)
        return fail("'" + std::string(operand.text) + "' has 32 bits here");
      return true;
    }
    Type actual = resolver.registerType(operand.text);
    if (actual == Type::none) {
      Space space;
      uint64_t address;
      if (resolver.variable(operand.text, space, address) &&
          (bytes == 8 || bytes == 4)) {
        offset = resolver.constant(address, bytes);
        return true;
      }
      return fail("unknown name '" + std::string(operand.text) + "'");
    }
    if (sizeOf(actual) != bytes)
      return fail("register '" + std::string(operand.text) + "' has " +
                  std::to_string(8 * sizeOf(actual)) +
                  " bits, the instruction " + std::to_string(8 * bytes));
    offset = resolver.registerOffset(operand.text);
    return true;
  }
  default:
    return fail("an operand of this form is not known here");
  }
}

bool Decoding::predicate(const ParsedOperand &operand, uint32_t &offset,
                         bool &negated) {
  negated = operand.negated;
  if (operand.kind == ParsedOperand::integer) {
    offset = resolver.constant(operand.value ? 0xffffffffu : 0, 4);
    return true;
  }
  if (operand.kind != ParsedOperand::name ||
      resolver.registerType(operand.text) != Type::pred)
    return fail("'" + std::string(operand.text) + "' is no predicate");
  offset = resolver.registerOffset(operand.text);
  return true;
}

bool Decoding::address(unsigned index, uint32_t &offset, Space &space,
                       bool &known) {
  known = false;
  if (index >= operands.size() ||
      operands[index].kind != ParsedOperand::address)
    return fail("an address is expected");
  const ParsedOperand &operand = operands[index];
  instruction.immediate = operand.offset;
  instruction.wideAddress = true;
  if (operand.text.empty()) {
    offset = resolver.constant(0, 8);
    return true;
  }
  Type type = resolver.registerType(operand.text);
  if (type == Type::none) {
    uint64_t base;
    if (!resolver.variable(operand.text, space, base))
      return fail("unknown name '" + std::string(operand.text) + "'");
    known = true;
    offset = resolver.constant(base, 8);
    return true;
  }
  if (sizeOf(type) != 4 && sizeOf(type) != 8)
    return fail("an address has 32 or 64 bits");
  instruction.wideAddress = sizeOf(type) == 8;
  offset = resolver.registerOffset(operand.text);
  return true;
}

#define ROW(name) bool decode_##name(Decoding &);
#include "Ptx/Opcodes.def"

Row findRow(std::string_view stem) {
  static const std::map<std::string_view, Row> rows = {
#define ROW(name) {#name, &decode_##name},
#include "Ptx/Opcodes.def"
      // C++ keywords.
      {"xor", &decode_xor_},
      {"and", &decode_and_},
      {"or", &decode_or_},
      {"not", &decode_not_}};
  auto found = rows.find(stem);
  return found == rows.end() ? nullptr : found->second;
}

} // namespace dshard::emulator
