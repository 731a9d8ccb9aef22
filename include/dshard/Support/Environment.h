//===- Environment.h - Registered environment variables ---------*- C++ -*-===//
//
// Every variable is in Environment.def. Values are read at each call, so tests
// may set them; read them at start-up, not in inner loops.
//
//===----------------------------------------------------------------------===//
#ifndef DSHARD_SUPPORT_ENVIRONMENT_H
#define DSHARD_SUPPORT_ENVIRONMENT_H

#include "dshard/Support/Status.h"

#include <cstdint>
#include <string>
#include <vector>

namespace dshard {

enum class Variable {
#define DSHARD_VARIABLE(name, value, help) name,
#include "dshard/Support/Environment.def"
};

struct VariableInfo {
  const char *name; // DSHARD_THREADS
  const char *defaultValue;
  const char *help;
};
const std::vector<VariableInfo> &environmentTable();

/// The variable's text, or its default. An empty variable counts as unset.
std::string environment(Variable variable);

/// The variable as a number in [low, high]; `fallback` when it is unset and has
/// no default. Anything else is an error that names the variable.
Result<int64_t> environmentNumber(Variable variable, int64_t fallback,
                                  int64_t low, int64_t high);

/// Names that begin with DSHARD_ in this process and are not in the table, each
/// with the nearest known one: "DSHARD_TREADS (did you mean DSHARD_THREADS?)".
std::vector<std::string> unknownEnvironment();

enum class LogLevel { error = 0, warning, info, debug };
/// DSHARD_LOG; an unknown word counts as `warning`.
LogLevel logLevel();
/// One line on standard error, if the level is wanted: "dshard: warning: ...".
void log(LogLevel level, const std::string &message);

} // namespace dshard

#endif // DSHARD_SUPPORT_ENVIRONMENT_H
