//===- Json.h - Writing JSON ------------------------------------*- C++ -*-===//
//
//   JsonWriter json;
//   json.beginObject();
//   json.key("ranks").value(4);
//   json.key("axes").beginArray().value("dp").value("tp").endArray();
//   json.endObject();
//   puts(json.text().c_str());
//
// Commas and indentation (two spaces; off for one line) are put in by the
// writer; the caller keeps begin and end in pairs. Not-a-number and infinities
// have no JSON and become null.
//
//===----------------------------------------------------------------------===//
#ifndef DSHARD_SUPPORT_JSON_H
#define DSHARD_SUPPORT_JSON_H

#include <cstdint>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

namespace dshard {

class JsonWriter {
public:
  explicit JsonWriter(bool indented = true) : indented(indented) {}

  JsonWriter &beginObject() { return begin('{'); }
  JsonWriter &endObject() { return end('}'); }
  JsonWriter &beginArray() { return begin('['); }
  JsonWriter &endArray() { return end(']'); }
  JsonWriter &key(std::string_view name);

  JsonWriter &value(std::string_view text);
  JsonWriter &value(const char *text) { return value(std::string_view(text)); }
  JsonWriter &value(const std::string &text) {
    return value(std::string_view(text));
  }
  JsonWriter &value(double number);
  JsonWriter &value(bool flag) { return raw(flag ? "true" : "false"); }
  template <typename Integer,
            std::enable_if_t<std::is_integral_v<Integer> &&
                                 !std::is_same_v<Integer, bool>,
                             int> = 0>
  JsonWriter &value(Integer number) {
    return raw(std::to_string(number));
  }
  JsonWriter &null() { return raw("null"); }

  const std::string &text() const { return output; }

private:
  JsonWriter &raw(std::string_view text);
  JsonWriter &begin(char bracket);
  JsonWriter &end(char bracket);
  void separate();
  void newLine();

  bool indented;
  std::string output;
  std::vector<bool> filled; // per open bracket: something is inside
  bool afterKey = false;
};

/// What a file for people may nest; parsers recurse, and their stack ends.
constexpr int maxJsonDepth = 64;
/// Whether `text` opens more than `depth` brackets at once, strings aside. It
/// need not be JSON.
bool isJsonDeeperThan(std::string_view text, int depth);

/// `text` in quotes, escaped. Bytes that are not UTF-8 pass through.
std::string jsonQuote(std::string_view text);

} // namespace dshard

#endif // DSHARD_SUPPORT_JSON_H
