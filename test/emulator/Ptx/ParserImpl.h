//===- ParserImpl.h - Parts that both parser files share --------*- C++ -*-===//
#ifndef DSHARD_EMULATOR_PTX_PARSERIMPL_H
#define DSHARD_EMULATOR_PTX_PARSERIMPL_H

#include "Ptx/Decode.h"
#include "Ptx/Lexer.h"
#include "Ptx/Parser.h"

#include <unordered_map>

namespace dshard::emulator {

/// A cursor over the tokens that remembers the first error.
class Cursor {
public:
  explicit Cursor(const std::vector<Token> &tokens) : tokens(tokens) {}
  const Token &peek(size_t ahead = 0) const {
    return tokens[std::min(at + ahead, tokens.size() - 1)];
  }
  const Token &next() {
    const Token &token = peek();
    if (at + 1 < tokens.size())
      ++at;
    return token;
  }
  bool accept(char c) {
    if (!peek().is(c))
      return false;
    next();
    return true;
  }
  bool expect(char c) {
    return accept(c) || fail(std::string("expected '") + c + "', got '" +
                             std::string(peek().text) + "'");
  }
  bool fail(const std::string &why) { return failAt(peek().line, why); }
  bool failAt(uint32_t line, const std::string &why) {
    if (error.empty())
      error = "ptx line " + std::to_string(line) + ": " + why;
    return false;
  }
  /// After `{`: to behind its `}`.
  bool skipBraces();
  bool skipStatement();
  std::string error;

private:
  const std::vector<Token> &tokens;
  size_t at = 0;
};

/// Bits of an immediate: 12, -3, 0x1f, 0f3F800000, 0d..., 1.5.
bool parseNumber(std::string_view text, bool negative, ParsedOperand &operand);
/// `.align 4 .b8 name[16] = {...};` behind the space's word; the `;` is taken
/// unless `parameter` (then it ends before `,` or `)`).
bool parseVariable(Cursor &cursor, Variable &variable, bool parameter);

/// Parses and decodes the body of one kernel, from behind its `{`.
class BodyParser : public OperandResolver {
public:
  BodyParser(Cursor &cursor, Module &module, Kernel &kernel,
             std::vector<Variable> externShared);
  bool parse();

  Type registerType(std::string_view name) override;
  uint32_t registerOffset(std::string_view name) override;
  uint32_t constant(uint64_t value, unsigned bytes) override;
  uint32_t special(std::string_view name) override;
  bool isSpecial(std::string_view name) override;
  bool variable(std::string_view name, Space &space,
                uint64_t &address) override;
  Kernel &kernel() override { return target; }

private:
  struct Register {
    Type type;
    uint32_t offset;
  };
  struct Family { // %r<12>
    Type type;
    unsigned count;
    std::string prefix;
  };
  using Scope = std::unordered_map<std::string, Register>;

  bool parseRegisters();
  bool parseStatement();
  bool parseInstruction();
  bool parseOperand(ParsedOperand &operand);
  bool parseSpaceVariable(Space space);
  bool finish();
  Register *find(std::string_view name);
  uint32_t allocate(unsigned bytes);

  Cursor &cursor;
  Module &module;
  Kernel &target;
  std::vector<Scope> scopes;
  std::vector<std::vector<Family>> families;
  std::unordered_map<std::string, uint32_t> labels;
  struct Fixup {
    uint32_t instruction;
    std::string label;
  };
  std::vector<Fixup> fixups;
  std::map<std::pair<uint64_t, unsigned>, uint32_t> constants;
  std::map<Special, uint32_t> specials;
  std::vector<Variable> locals;
  std::vector<Variable> externShared;
};

} // namespace dshard::emulator

#endif // DSHARD_EMULATOR_PTX_PARSERIMPL_H
