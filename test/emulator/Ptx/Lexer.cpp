//===- Lexer.cpp - PTX text into tokens -----------------------------------===//
#include "Ptx/Lexer.h"

namespace dshard::emulator {

static bool isWord(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
         (c >= '0' && c <= '9') || c == '_' || c == '$' || c == '%' || c == '.';
}

bool tokenize(std::string_view text, std::vector<Token> &tokens,
              std::string &error) {
  uint32_t line = 1;
  size_t at = 0, size = text.size();
  auto peek = [&](size_t ahead) {
    return at + ahead < size ? text[at + ahead] : '\0';
  };
  while (at < size) {
    char c = text[at];
    if (c == '\n') {
      ++line, ++at;
    } else if (c == ' ' || c == '\t' || c == '\r' || c == '\0') {
      ++at;
    } else if (c == '/' && peek(1) == '/') {
      while (at < size && text[at] != '\n')
        ++at;
    } else if (c == '/' && peek(1) == '*') {
      for (at += 2; at < size && !(text[at] == '*' && peek(1) == '/'); ++at)
        line += text[at] == '\n';
      at += 2;
    } else if (c == '"') {
      size_t begin = ++at;
      while (at < size && text[at] != '"' && text[at] != '\n')
        at += text[at] == '\\' ? 2 : 1;
      at = std::min(at, size);
      tokens.push_back({Token::string, text.substr(begin, at - begin), line});
      ++at;
    } else if (isWord(c)) {
      size_t begin = at;
      bool number = c >= '0' && c <= '9';
      while (at < size && (isWord(text[at]) ||
                           (text[at] == ':' && peek(1) == ':' && !number)))
        at += text[at] == ':' ? 2 : 1;
      tokens.push_back({number ? Token::number : Token::word,
                        text.substr(begin, at - begin), line});
    } else if (std::string_view(",;:[](){}|!@+-=<>~").find(c) !=
               std::string_view::npos) {
      tokens.push_back({Token::punctuation, text.substr(at, 1), line});
      ++at;
    } else {
      error = "ptx line " + std::to_string(line) + ": unexpected character '" +
              std::string(1, c) + "'";
      return false;
    }
  }
  tokens.push_back({Token::end, std::string_view(), line});
  return true;
}

} // namespace dshard::emulator
