//===- CommandLine.h - The arguments of dshard-run --------------*- C++ -*-===//
#ifndef DSHARD_TOOLS_DSHARD_RUN_COMMANDLINE_H
#define DSHARD_TOOLS_DSHARD_RUN_COMMANDLINE_H

#include "dshard/Support/Status.h"

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace dshard::run {

using Named = std::pair<std::string, std::string>;

struct CommandLine {
  bool help = false;
  std::string plan;
  std::vector<Named> inputs;   // NAME = file.npy | random[:SEED]
  std::vector<Named> outputs;  // NAME = file.npy
  std::vector<Named> expected; // NAME = file.npy
  std::optional<double> rtol, atol;
  std::string entry; // empty: the only one, or `run`
  int64_t steps = 0; // 0: no leading step dim
  std::vector<std::pair<std::string, double>> scalars;
  std::string saveState, weights, trace;
  std::optional<uint64_t> randomWeights;
  int64_t repeat = 1, warmup = 0;
  bool json = false;
};

/// An error means exit status 2.
Result<CommandLine> parseCommandLine(int argc, char **argv);

extern const char helpText[];

} // namespace dshard::run

#endif // DSHARD_TOOLS_DSHARD_RUN_COMMANDLINE_H
