//===- BodyParser.cpp - Registers, labels and instructions of a kernel ----===//
#include "Ptx/ParserImpl.h"

#include <cstdlib>
#include <cstring>

namespace dshard::emulator {

BodyParser::BodyParser(Cursor &cursor, Module &module, Kernel &kernel,
                       std::vector<Variable> externShared)
    : cursor(cursor), module(module), target(kernel), scopes(1), families(1),
      externShared(std::move(externShared)) {}

uint32_t BodyParser::allocate(unsigned bytes) {
  uint32_t offset = static_cast<uint32_t>(target.image.size());
  // A predicate is one mask; everything begins at a cache line.
  uint32_t size = bytes ? 32 * bytes : 4;
  target.image.resize(offset + (size + 63) / 64 * 64, 0);
  return offset;
}

BodyParser::Register *BodyParser::find(std::string_view name) {
  std::string key(name);
  for (size_t i = scopes.size(); i-- > 0;) {
    auto found = scopes[i].find(key);
    if (found != scopes[i].end())
      return &found->second;
    for (const Family &family : families[i]) {
      size_t length = family.prefix.size();
      if (key.size() <= length || key.compare(0, length, family.prefix) != 0)
        continue;
      char *end = nullptr;
      unsigned long number = std::strtoul(key.c_str() + length, &end, 10);
      if (*end || key[length] < '0' || key[length] > '9' ||
          number >= family.count)
        continue;
      Register made{family.type, allocate(sizeOf(family.type))};
      return &(scopes[i][key] = made);
    }
  }
  return nullptr;
}

Type BodyParser::registerType(std::string_view name) {
  Register *found = find(name);
  return found ? found->type : Type::none;
}
uint32_t BodyParser::registerOffset(std::string_view name) {
  return find(name)->offset;
}

uint32_t BodyParser::constant(uint64_t value, unsigned bytes) {
  auto [found, isNew] = constants.insert({{value, bytes}, 0});
  if (isNew) {
    found->second = allocate(bytes);
    for (unsigned lane = 0; lane < 32; ++lane)
      std::memcpy(&target.image[found->second + lane * bytes], &value,
                  std::min(bytes, 8u));
  }
  return found->second;
}

static const std::pair<const char *, Special> specialNames[] = {
    {"%tid.x", Special::tidX},
    {"%tid.y", Special::tidY},
    {"%tid.z", Special::tidZ},
    {"%ntid.x", Special::ntidX},
    {"%ntid.y", Special::ntidY},
    {"%ntid.z", Special::ntidZ},
    {"%ctaid.x", Special::ctaidX},
    {"%ctaid.y", Special::ctaidY},
    {"%ctaid.z", Special::ctaidZ},
    {"%nctaid.x", Special::nctaidX},
    {"%nctaid.y", Special::nctaidY},
    {"%nctaid.z", Special::nctaidZ},
    {"%laneid", Special::laneid},
    {"%warpid", Special::warpid},
    {"%nwarpid", Special::nwarpid},
    {"%smid", Special::smid},
    {"%lanemask_eq", Special::lanemaskEq},
    {"%lanemask_le", Special::lanemaskLe},
    {"%lanemask_lt", Special::lanemaskLt},
    {"%lanemask_ge", Special::lanemaskGe},
    {"%lanemask_gt", Special::lanemaskGt},
    {"%dynamic_smem_size", Special::dynamicSharedSize}};

bool BodyParser::isSpecial(std::string_view name) {
  for (const auto &entry : specialNames)
    if (name == entry.first)
      return true;
  return false;
}

uint32_t BodyParser::special(std::string_view name) {
  for (const auto &entry : specialNames) {
    if (name != entry.first)
      continue;
    auto [found, isNew] = specials.insert({entry.second, 0});
    if (isNew) {
      found->second = allocate(4);
      target.specials.push_back({entry.second, found->second});
    }
    return found->second;
  }
  return ~0u;
}

bool BodyParser::variable(std::string_view name, Space &space,
                          uint64_t &address) {
  for (const Parameter &parameter : target.parameters)
    if (parameter.name == name) {
      space = Space::param;
      address = parameter.offset;
      return true;
    }
  for (const Variable &local : locals)
    if (local.name == name) {
      space = Space::local;
      address = local.offset;
      return true;
    }
  for (const Variable &shared : target.shared)
    if (shared.name == name) {
      space = Space::shared;
      address = shared.offset;
      return true;
    }
  for (Variable &shared : externShared) {
    if (shared.name != name)
      continue;
    // Placed on first use; dynamic memory begins behind everything else.
    space = Space::shared;
    if (shared.size == 0) {
      target.dynamicShared = true;
      address = target.dynamicOffset;
      return true;
    }
    uint64_t align = std::max<uint64_t>(shared.align, 16);
    shared.offset = (target.sharedBytes + align - 1) / align * align;
    target.sharedDeclared += static_cast<uint32_t>(shared.size);
    target.sharedBytes =
        static_cast<uint32_t>(shared.offset + shared.size + sharedRedZone);
    target.shared.push_back(shared);
    address = shared.offset;
    return true;
  }
  auto found = module.variables.find(std::string(name));
  if (found == module.variables.end())
    return false;
  space = found->second.space;
  address = found->second.offset;
  return true;
}

bool BodyParser::parseRegisters() {
  Type type = parseType(cursor.next().text.substr(1));
  if (type == Type::none)
    return cursor.fail("unknown register type");
  do {
    std::string name(cursor.next().text);
    if (cursor.accept('<')) {
      unsigned count = static_cast<unsigned>(
          std::strtoul(std::string(cursor.next().text).c_str(), nullptr, 10));
      families.back().push_back({type, count, name});
      if (!cursor.expect('>'))
        return false;
    } else {
      scopes.back()[name] = {type, allocate(sizeOf(type))};
    }
  } while (cursor.accept(','));
  return cursor.expect(';');
}

bool BodyParser::parseSpaceVariable(Space space) {
  Variable variable;
  variable.space = space;
  uint32_t line = cursor.peek().line;
  if (!parseVariable(cursor, variable, false))
    return false;
  if (space == Space::local) {
    uint64_t offset = (target.localBytes + variable.align - 1) /
                      variable.align * variable.align;
    variable.offset = offset;
    target.localBytes = static_cast<uint32_t>(offset + variable.size);
    locals.push_back(std::move(variable));
    return true;
  }
  if (variable.name.find("__dynamic_shmem__") == 0 && variable.size <= 1)
    return cursor.failAt(line,
                         "'" + variable.name +
                             "' is one static byte, not dynamic shared "
                             "memory: it overlaps the variables behind it");
  uint64_t align = std::max<uint64_t>(variable.align, 16);
  variable.offset = (target.sharedBytes + align - 1) / align * align;
  target.sharedDeclared =
      static_cast<uint32_t>((target.sharedDeclared + variable.align - 1) /
                                variable.align * variable.align +
                            variable.size);
  target.sharedBytes =
      static_cast<uint32_t>(variable.offset + variable.size + sharedRedZone);
  target.shared.push_back(std::move(variable));
  return true;
}

bool BodyParser::parseOperand(ParsedOperand &operand) {
  if (cursor.accept('[')) {
    operand.kind = ParsedOperand::address;
    if (cursor.peek().kind == Token::word)
      operand.text = cursor.next().text;
    while (!cursor.peek().is(']')) {
      bool negative = false;
      while (cursor.peek().is('+') || cursor.peek().is('-'))
        negative ^= cursor.next().is('-');
      ParsedOperand number;
      if (cursor.peek().kind != Token::number ||
          !parseNumber(cursor.next().text, negative, number))
        return cursor.fail("an offset is expected");
      operand.offset += static_cast<int64_t>(number.value);
    }
    return cursor.expect(']');
  }
  if (cursor.accept('{')) {
    operand.kind = ParsedOperand::vector;
    do {
      operand.elements.emplace_back();
      if (!parseOperand(operand.elements.back()))
        return false;
    } while (cursor.accept(','));
    return cursor.expect('}');
  }
  if (cursor.accept('!'))
    operand.negated = true;
  bool negative = cursor.accept('-');
  const Token &token = cursor.next();
  if (token.kind == Token::number)
    return parseNumber(token.text, negative, operand) ||
           cursor.fail("'" + std::string(token.text) + "' is not a number");
  if (token.kind != Token::word || negative)
    return cursor.fail("operand '" + std::string(token.text) +
                       "' is not known here");
  operand.kind = token.text == "_" ? ParsedOperand::sink : ParsedOperand::name;
  operand.text = token.text;
  if (cursor.accept('|'))
    operand.second = cursor.next().text;
  return true;
}

bool BodyParser::parseInstruction() {
  Instruction instruction;
  if (cursor.accept('@')) {
    instruction.guardNegated = cursor.accept('!');
    const Token &token = cursor.next();
    Register *predicate = find(token.text);
    if (!predicate || predicate->type != Type::pred)
      return cursor.fail("'" + std::string(token.text) + "' is no predicate");
    instruction.guard = predicate->offset;
  }
  const Token opcode = cursor.next();
  instruction.line = opcode.line;
  std::vector<ParsedOperand> operands;
  while (!cursor.peek().is(';')) {
    operands.emplace_back();
    if (!parseOperand(operands.back()))
      return false;
    if (!cursor.accept(',') && !cursor.peek().is(';'))
      return cursor.fail("expected ',' or ';'");
  }
  cursor.next();
  Decoding decoding(*this, opcode.text, operands, instruction);
  Row row = findRow(decoding.stem);
  if (!row)
    return cursor.failAt(opcode.line, "instruction '" +
                                          std::string(opcode.text) +
                                          "' is not known to the emulator");
  std::string why;
  if (!row(decoding))
    why = decoding.error.empty() ? "not known in this form" : decoding.error;
  else if (!decoding.left().empty())
    why = "modifier '" + decoding.left() + "' is not known";
  if (!why.empty())
    return cursor.failAt(
        opcode.line, "instruction '" + std::string(opcode.text) + "': " + why);
  if (!decoding.branchTarget.empty())
    fixups.push_back({static_cast<uint32_t>(target.code.size()),
                      std::string(decoding.branchTarget)});
  target.code.push_back(instruction);
  return true;
}

bool BodyParser::parseStatement() {
  const Token &token = cursor.peek();
  if (token.is(';')) {
    cursor.next();
    return true;
  }
  if (token.is('{')) {
    cursor.next();
    scopes.emplace_back();
    families.emplace_back();
    return true;
  }
  if (token.is(".reg")) {
    cursor.next();
    return parseRegisters();
  }
  if (token.is(".shared") || token.is(".local")) {
    Space space = cursor.next().is(".shared") ? Space::shared : Space::local;
    return parseSpaceVariable(space);
  }
  if (token.is(".loc")) {
    uint32_t line = token.line;
    while (cursor.peek().line == line && cursor.peek().kind != Token::end)
      cursor.next();
    return true;
  }
  if (token.is(".pragma"))
    return cursor.skipStatement();
  if (token.kind == Token::word && cursor.peek(1).is(':')) {
    std::string name(cursor.next().text);
    cursor.next();
    if (!labels.insert({name, static_cast<uint32_t>(target.code.size())})
             .second)
      return cursor.fail("label '" + name + "' is there twice");
    return true;
  }
  if (token.kind == Token::word && token.text[0] == '.')
    return cursor.fail("directive '" + std::string(token.text) +
                       "' is not known");
  if (token.kind == Token::word || token.is('@'))
    return parseInstruction();
  return cursor.fail("unexpected '" + std::string(token.text) + "'");
}

bool BodyParser::finish() {
  for (const Fixup &fixup : fixups) {
    Instruction &branch = target.code[fixup.instruction];
    auto found = labels.find(fixup.label);
    if (found == labels.end())
      return cursor.failAt(branch.line,
                           "label '" + fixup.label + "' is missing");
    branch.target = found->second;
  }
  // Falling off the end, and a label there, mean `ret`.
  Instruction last;
  last.control = Control::exit;
  last.line = cursor.peek().line;
  target.code.push_back(last);
  return true;
}

bool BodyParser::parse() {
  // Static variables come first in the body, but a front end may interleave
  // them: dynamic memory gets the place behind a generous limit.
  target.dynamicOffset = 1u << 20;
  for (int depth = 1; depth;) {
    if (cursor.peek().kind == Token::end)
      return cursor.fail("a '}' is missing");
    if (cursor.peek().is('{'))
      ++depth;
    if (cursor.accept('}')) {
      if (--depth) {
        scopes.pop_back();
        families.pop_back();
      }
      continue;
    }
    if (!parseStatement())
      return false;
  }
  return finish();
}

} // namespace dshard::emulator
