//===- Parser.cpp - Modules, entries and variables of PTX -----------------===//
#include "Ptx/ParserImpl.h"

#include <cstdlib>
#include <cstring>

namespace dshard::emulator {

bool Cursor::skipBraces() {
  for (int depth = 1; depth;) {
    const Token &token = next();
    if (token.kind == Token::end)
      return fail("a '}' is missing");
    depth += token.is('{') ? 1 : token.is('}') ? -1 : 0;
  }
  return true;
}

bool Cursor::skipStatement() {
  while (!peek().is(';') && peek().kind != Token::end)
    next();
  return expect(';');
}

bool parseNumber(std::string_view text, bool negative, ParsedOperand &operand) {
  std::string copy(text);
  char *end = nullptr;
  if (copy.size() == 10 && copy[0] == '0' && (copy[1] | 32) == 'f') {
    operand.kind = ParsedOperand::floating32;
    operand.value = std::strtoull(copy.c_str() + 2, &end, 16);
    if (negative)
      operand.value ^= 0x80000000u;
    return *end == 0;
  }
  if (copy.size() == 18 && copy[0] == '0' && (copy[1] | 32) == 'd') {
    operand.kind = ParsedOperand::floating64;
    operand.value = std::strtoull(copy.c_str() + 2, &end, 16);
    if (negative)
      operand.value ^= 1ull << 63;
    return *end == 0;
  }
  bool hex = copy.size() > 2 && copy[0] == '0' && (copy[1] | 32) == 'x';
  if (!hex && copy.find_first_of(".eE") != std::string::npos) {
    double value = std::strtod(copy.c_str(), &end);
    value = negative ? -value : value;
    operand.kind = ParsedOperand::floating64;
    std::memcpy(&operand.value, &value, 8);
    return *end == 0;
  }
  operand.kind = ParsedOperand::integer;
  if (!copy.empty() && (copy.back() == 'U' || copy.back() == 'u'))
    copy.pop_back();
  if (copy.size() > 2 && copy[0] == '0' && (copy[1] | 32) == 'b')
    operand.value = std::strtoull(copy.c_str() + 2, &end, 2);
  else
    operand.value = std::strtoull(copy.c_str(), &end, 0);
  if (negative)
    operand.value = 0 - operand.value;
  return *end == 0;
}

bool parseVariable(Cursor &cursor, Variable &variable, bool parameter) {
  Type type = Type::none;
  unsigned vector = 1;
  while (cursor.peek().kind == Token::word && cursor.peek().text[0] == '.') {
    std::string_view word = cursor.next().text;
    if (word == ".align") {
      variable.align =
          std::strtoull(std::string(cursor.next().text).c_str(), nullptr, 0);
    } else if (word == ".v2" || word == ".v4") {
      vector = word[2] - '0';
    } else if (word == ".ptr" || word == ".global" || word == ".shared" ||
               word == ".const" || word == ".local" || word == ".attribute") {
      // `.param .u64 .ptr .global .align 16 name`: a promise about the value.
    } else if ((type = parseType(word.substr(1))) == Type::none) {
      return cursor.fail("unknown word '" + std::string(word) + "'");
    }
  }
  unsigned element = sizeOf(type) * vector;
  if (!element)
    return cursor.fail("a variable without a type");
  if (variable.align < element && variable.align == 1)
    variable.align = element;
  if (cursor.peek().kind != Token::word)
    return cursor.fail("a variable without a name");
  variable.name = cursor.next().text;
  variable.size = element;
  while (cursor.accept('[')) {
    if (cursor.peek().is(']')) {
      variable.size = 0; // .extern .shared x[]
    } else {
      variable.size *=
          std::strtoull(std::string(cursor.next().text).c_str(), nullptr, 0);
    }
    if (!cursor.expect(']'))
      return false;
  }
  if (parameter)
    return true;
  if (cursor.accept('=')) {
    // The list may be shorter than the array; the rest is zero.
    bool braces = cursor.accept('{');
    uint64_t at = 0;
    variable.data.assign(variable.size, 0);
    while (!cursor.peek().is('}') && !cursor.peek().is(';')) {
      bool negative = cursor.accept('-');
      ParsedOperand number;
      if (cursor.peek().kind != Token::number ||
          !parseNumber(cursor.peek().text, negative, number))
        return cursor.fail("the initialiser of '" + variable.name +
                           "' is not a number");
      cursor.next();
      unsigned bytes = sizeOf(type);
      if (at + bytes > variable.size)
        return cursor.fail("the initialiser of '" + variable.name +
                           "' is longer than the variable");
      if (number.kind == ParsedOperand::floating64 && bytes == 4) {
        double wide;
        std::memcpy(&wide, &number.value, 8);
        number.value = bitsOfFloat(static_cast<float>(wide));
      }
      std::memcpy(&variable.data[at], &number.value, bytes);
      at += bytes;
      if (!cursor.accept(','))
        break;
    }
    if (braces && !cursor.expect('}'))
      return false;
  }
  return cursor.expect(';');
}

namespace {

class ModuleParser {
public:
  ModuleParser(Cursor &cursor, Module &module,
               const VariableAllocator &allocate)
      : cursor(cursor), module(module), allocate(allocate) {}
  bool parse();

private:
  bool parseEntry();
  bool parseParameters(Kernel &kernel);
  bool parseLimits(uint32_t (&limits)[3]);
  bool parseSpace(Space space, bool isExtern);

  Cursor &cursor;
  Module &module;
  const VariableAllocator &allocate;
  std::vector<Variable> sharedVariables;
};

bool ModuleParser::parseSpace(Space space, bool isExtern) {
  Variable variable;
  variable.space = space;
  if (!parseVariable(cursor, variable, false))
    return false;
  if (space == Space::shared) {
    sharedVariables.push_back(std::move(variable));
    return true;
  }
  if (isExtern)
    return cursor.fail("variable '" + variable.name +
                       "' is defined in another module");
  if (variable.data.empty())
    variable.data.assign(variable.size, 0);
  variable.offset = allocate(variable);
  module.variables[variable.name] = std::move(variable);
  return true;
}

bool ModuleParser::parseParameters(Kernel &kernel) {
  if (!cursor.accept('('))
    return true;
  while (!cursor.accept(')')) {
    if (!cursor.next().is(".param"))
      return cursor.fail("expected '.param'");
    Variable variable;
    variable.align = 1;
    if (!parseVariable(cursor, variable, true))
      return false;
    uint32_t align = static_cast<uint32_t>(variable.align);
    // `.u64 .ptr .global .align 16`: the alignment is the pointee's.
    if (variable.size && align > variable.size)
      align = static_cast<uint32_t>(variable.size);
    kernel.parameterBytes = (kernel.parameterBytes + align - 1) / align * align;
    kernel.parameters.push_back({variable.name, kernel.parameterBytes,
                                 static_cast<uint32_t>(variable.size)});
    kernel.parameterBytes += static_cast<uint32_t>(variable.size);
    cursor.accept(',');
  }
  return true;
}

bool ModuleParser::parseLimits(uint32_t (&limits)[3]) {
  for (unsigned i = 0; i < 3; ++i) {
    limits[i] = static_cast<uint32_t>(
        std::strtoul(std::string(cursor.next().text).c_str(), nullptr, 0));
    if (!cursor.accept(',')) {
      for (unsigned j = i + 1; j < 3; ++j)
        limits[j] = 1;
      return true;
    }
  }
  return true;
}

bool ModuleParser::parseEntry() {
  auto kernel = std::make_unique<Kernel>();
  kernel->name = cursor.next().text;
  if (!parseParameters(*kernel))
    return false;
  while (!cursor.peek().is('{')) {
    const Token &token = cursor.next();
    if (token.is(".maxntid")) {
      if (!parseLimits(kernel->maxThreads))
        return false;
    } else if (token.is(".reqntid")) {
      if (!parseLimits(kernel->requiredThreads))
        return false;
    } else if (token.is(".minnctapersm") || token.is(".maxnreg") ||
               token.is(".maxnctapersm")) {
      cursor.next();
    } else if (token.is(".pragma")) {
      if (!cursor.skipStatement())
        return false;
    } else {
      return cursor.fail("directive '" + std::string(token.text) +
                         "' of kernel '" + kernel->name + "' is not known");
    }
  }
  cursor.next();
  BodyParser body(cursor, module, *kernel, sharedVariables);
  if (!body.parse())
    return false;
  std::string name = kernel->name;
  module.kernels[name] = std::move(kernel);
  return true;
}

bool ModuleParser::parse() {
  bool isExtern = false;
  while (cursor.peek().kind != Token::end) {
    const Token token = cursor.next();
    if (token.is(".visible") || token.is(".weak") || token.is(".common")) {
      continue;
    } else if (token.is(".extern")) {
      isExtern = true;
      continue;
    } else if (token.is(".version") || token.is(".address_size")) {
      cursor.next();
    } else if (token.is(".target")) {
      std::string name(cursor.next().text);
      if (name.rfind("sm_", 0) == 0)
        module.target =
            static_cast<unsigned>(std::strtoul(name.c_str() + 3, nullptr, 10));
      while (cursor.accept(','))
        cursor.next();
    } else if (token.is(".entry")) {
      if (!parseEntry())
        return false;
    } else if (token.is(".func")) {
      while (!cursor.peek().is('{') && !cursor.peek().is(';') &&
             cursor.peek().kind != Token::end)
        cursor.next();
      if (cursor.next().is('{') && !cursor.skipBraces())
        return false;
    } else if (token.is(".global")) {
      if (!parseSpace(Space::global, isExtern))
        return false;
    } else if (token.is(".const")) {
      if (!parseSpace(Space::constant, isExtern))
        return false;
    } else if (token.is(".shared")) {
      if (!parseSpace(Space::shared, isExtern))
        return false;
    } else if (token.is(".file") || token.is(".loc")) {
      uint32_t line = token.line;
      while (cursor.peek().line == line && cursor.peek().kind != Token::end)
        cursor.next();
    } else if (token.is(".section")) {
      while (!cursor.next().is('{'))
        if (cursor.peek().kind == Token::end)
          return cursor.fail("a '{' is missing");
      if (!cursor.skipBraces())
        return false;
    } else if (token.is(".pragma")) {
      if (!cursor.skipStatement())
        return false;
    } else {
      return cursor.failAt(token.line, "'" + std::string(token.text) +
                                           "' is not known here");
    }
    isExtern = false;
  }
  return cursor.error.empty();
}

} // namespace

std::unique_ptr<Module> parseModule(const std::string &text,
                                    const VariableAllocator &allocate,
                                    std::string &error) {
  auto module = std::make_unique<Module>();
  module->text = text;
  for (size_t at = 0; at < text.size();) {
    size_t end = std::min(text.find('\n', at), text.size());
    module->lines.push_back(text.substr(at, end - at));
    at = end + 1;
  }
  std::vector<Token> tokens;
  if (!tokenize(module->text, tokens, error))
    return nullptr;
  Cursor cursor(tokens);
  ModuleParser parser(cursor, *module, allocate);
  if (!parser.parse()) {
    error = cursor.error;
    return nullptr;
  }
  return module;
}

} // namespace dshard::emulator
