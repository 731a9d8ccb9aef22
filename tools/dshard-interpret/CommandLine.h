//===- CommandLine.h - The interpreter's command line -----------*- C++ -*-===//
#ifndef DSHARD_TOOLS_DSHARD_INTERPRET_COMMANDLINE_H
#define DSHARD_TOOLS_DSHARD_INTERPRET_COMMANDLINE_H

#include "dshard/Reference/Interpreter.h"
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace dshard::tool {

struct CommandLine {
  std::string program, entry;
  std::vector<std::string> against;
  std::vector<std::pair<std::string, std::string>> inputs;  ///< NAME, what
  std::vector<std::pair<std::string, std::string>> outputs; ///< NAME, path
  std::vector<std::pair<std::string, double>> scalars;
  std::optional<int64_t> steps;
  std::string weights;
  std::optional<uint64_t> randomWeights, randomInputs;
  mlir::dshard::Precision precision = mlir::dshard::Precision::fp64;
  std::optional<double> rtol, atol;
  int64_t ranks = 0; ///< 0: whatever the program has
};

enum class Parsed {
  run,
  help,
  badUsage, ///< said why on standard error: exit status 2
};

Parsed parseCommandLine(int argc, char **argv, CommandLine &commandLine);
void printHelp();

/// A whole seed; false otherwise.
bool parseSeed(const std::string &text, uint64_t &seed);

} // namespace dshard::tool

#endif // DSHARD_TOOLS_DSHARD_INTERPRET_COMMANDLINE_H
