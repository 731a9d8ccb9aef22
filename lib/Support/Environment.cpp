#include "dshard/Support/Environment.h"

#include "dshard/Support/Text.h"

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <unistd.h>

extern char **environ;

namespace dshard {

const std::vector<VariableInfo> &environmentTable() {
  static const std::vector<VariableInfo> table = {
#define DSHARD_VARIABLE(name, value, help) {"DSHARD_" #name, value, help},
#include "dshard/Support/Environment.def"
  };
  return table;
}

std::string environment(Variable variable) {
  const VariableInfo &info = environmentTable()[static_cast<int>(variable)];
  const char *value = std::getenv(info.name);
  return value && *value ? value : info.defaultValue;
}

Result<int64_t> environmentNumber(Variable variable, int64_t fallback,
                                  int64_t low, int64_t high) {
  std::string text = environment(variable);
  if (text.empty())
    return fallback;
  errno = 0;
  char *end = nullptr;
  long long value = std::strtoll(text.c_str(), &end, 10);
  if (errno || *end || value < low || value > high)
    return Status::error(
        std::string(environmentTable()[static_cast<int>(variable)].name) +
        " is '" + text + "', but must be a number from " + std::to_string(low) +
        " to " + std::to_string(high));
  return static_cast<int64_t>(value);
}

std::vector<std::string> unknownEnvironment() {
  std::vector<std::string> known, unknown;
  for (const VariableInfo &info : environmentTable())
    known.push_back(info.name);
  for (char **entry = environ; entry && *entry; ++entry) {
    const char *equals = std::strchr(*entry, '=');
    if (std::strncmp(*entry, "DSHARD_", 7) != 0 || !equals)
      continue;
    std::string name(*entry, equals - *entry);
    bool found = false;
    for (const std::string &other : known)
      found |= other == name;
    if (!found)
      unknown.push_back(name + didYouMean(name, known));
  }
  return unknown;
}

LogLevel logLevel() {
  std::string text = environment(Variable::LOG);
  if (text == "error")
    return LogLevel::error;
  if (text == "info")
    return LogLevel::info;
  if (text == "debug")
    return LogLevel::debug;
  return LogLevel::warning;
}

void log(LogLevel level, const std::string &message) {
  static const char *const names[] = {"error", "warning", "info", "debug"};
  if (level > logLevel())
    return;
  std::string line = std::string("dshard: ") + names[static_cast<int>(level)] +
                     ": " + message + "\n";
  std::fwrite(line.data(), 1, line.size(), stderr);
}

} // namespace dshard
