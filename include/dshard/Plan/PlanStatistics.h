//===- PlanStatistics.h - What a plan costs ---------------------*- C++ -*-===//
//
// Exact memory, and the instructions and collectives that one rank executes.
// Memory is equal on all ranks with one pp coordinate. Bytes of a collective
// are those of its local operands (of the result for a receive), once per
// execution: repeats of known count multiply; what a scalar may skip is
// counted, and a repeat that a scalar counts is counted once.
//
//===----------------------------------------------------------------------===//
#ifndef DSHARD_PLAN_PLANSTATISTICS_H
#define DSHARD_PLAN_PLANSTATISTICS_H

#include "dshard/Plan/plan_generated.h"

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace dshard::plan {

struct Traffic {
  uint64_t count = 0;
  uint64_t bytes = 0;
};

struct ProgramStatistics {
  std::string name;
  uint64_t arena = 0;         // bytes
  uint64_t threadScratch = 0; // bytes per worker thread
  /// Instructions by spelling, as written (each once).
  std::map<std::string, uint64_t> instructions;
  /// Collectives as executed, by (spelling, group: "tp", "dp,tp:(1)2").
  std::map<std::pair<std::string, std::string>, Traffic> collectives;
};

struct PlanStatistics {
  uint32_t ranks = 1;
  uint64_t arena = 0;         // of the rank: its largest program's
  uint64_t state = 0;         // of the rank
  uint64_t threadScratch = 0; // per worker thread: its largest program's
  uint64_t messages = 0;      // most that waits for receivers
  uint64_t code = 0;          // per process
  std::map<std::string, uint64_t> stateByRole; // of the rank
  std::vector<ProgramStatistics> programs;

  /// Bytes of one rank with this many worker threads, without code.
  uint64_t peakPerRank(uint64_t threads) const {
    return arena + state + messages + threads * threadScratch;
  }
};

/// Statistics for `rank` (tables make what ranks execute differ).
PlanStatistics planStatistics(const Plan &plan, uint32_t rank = 0);

/// Bytes of a collective's local operands; see above.
uint64_t collectiveBytes(const Plan &plan, uint32_t program,
                         uint32_t instruction);
/// How often `rank` executes each instruction of a program, as above.
std::vector<uint64_t> executionCounts(const Plan &plan, uint32_t program,
                                      uint32_t rank);

} // namespace dshard::plan

#endif // DSHARD_PLAN_PLANSTATISTICS_H
