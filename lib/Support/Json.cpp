#include "dshard/Support/Json.h"

#include "dshard/Support/Text.h"

#include <cmath>
#include <cstdio>

namespace dshard {

std::string jsonQuote(std::string_view text) {
  std::string quoted = "\"";
  for (char c : text) {
    switch (c) {
    case '"':
      quoted += "\\\"";
      break;
    case '\\':
      quoted += "\\\\";
      break;
    case '\n':
      quoted += "\\n";
      break;
    case '\t':
      quoted += "\\t";
      break;
    case '\r':
      quoted += "\\r";
      break;
    default:
      if (static_cast<unsigned char>(c) < 0x20) {
        char escape[8];
        std::snprintf(escape, sizeof(escape), "\\u%04x", c);
        quoted += escape;
      } else {
        quoted += c;
      }
    }
  }
  return quoted + '"';
}

void JsonWriter::newLine() {
  if (!indented)
    return;
  output += '\n';
  output.append(2 * filled.size(), ' ');
}

void JsonWriter::separate() {
  if (afterKey) {
    afterKey = false;
    return;
  }
  if (filled.empty())
    return;
  if (filled.back())
    output += indented ? "," : ", ";
  filled.back() = true;
  newLine();
}

JsonWriter &JsonWriter::raw(std::string_view text) {
  separate();
  output += text;
  return *this;
}

JsonWriter &JsonWriter::begin(char bracket) {
  separate();
  output += bracket;
  filled.push_back(false);
  return *this;
}

JsonWriter &JsonWriter::end(char bracket) {
  bool any = filled.back();
  filled.pop_back();
  if (any)
    newLine();
  output += bracket;
  return *this;
}

JsonWriter &JsonWriter::key(std::string_view name) {
  raw(jsonQuote(name));
  output += ": ";
  afterKey = true;
  return *this;
}

JsonWriter &JsonWriter::value(std::string_view text) {
  return raw(jsonQuote(text));
}

JsonWriter &JsonWriter::value(double number) {
  return std::isfinite(number) ? raw(formatDouble(number)) : null();
}

bool isJsonDeeperThan(std::string_view text, int depth) {
  int open = 0;
  bool inString = false;
  for (size_t i = 0; i < text.size(); ++i) {
    char c = text[i];
    if (inString) {
      i += c == '\\';
      inString = c != '"';
    } else if (c == '"') {
      inString = true;
    } else if (c == '[' || c == '{') {
      if (++open > depth)
        return true;
    } else if (c == ']' || c == '}') {
      --open;
    }
  }
  return false;
}

} // namespace dshard
