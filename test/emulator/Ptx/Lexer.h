//===- Lexer.h - PTX text into tokens ---------------------------*- C++ -*-===//
#ifndef DSHARD_EMULATOR_PTX_LEXER_H
#define DSHARD_EMULATOR_PTX_LEXER_H

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace dshard::emulator {

/// A word is anything of letters, digits, `_ $ % .` and `::` (opcodes with
/// their modifiers, registers, directives, labels); everything else is one
/// character of punctuation.
struct Token {
  enum Kind : uint8_t { word, number, string, punctuation, end } kind;
  std::string_view text;
  uint32_t line;
  bool is(char c) const { return kind == punctuation && text[0] == c; }
  bool is(std::string_view t) const { return kind == word && text == t; }
};

/// Comments and white space are dropped; the last token is `end`. False, with
/// `error` set, for a character that PTX has not.
bool tokenize(std::string_view text, std::vector<Token> &tokens,
              std::string &error);

} // namespace dshard::emulator

#endif // DSHARD_EMULATOR_PTX_LEXER_H
