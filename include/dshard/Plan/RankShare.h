//===- RankShare.h - What a rank holds and runs of a plan -------*- C++ -*-===//
//
// Ranks differ in memory only by their pp coordinate: it holds the states of
// the stages that its action lists run, and needs the arena and the scratch of
// the load program and of their programs. Without pp all ranks are alike.
//
//===----------------------------------------------------------------------===//
#ifndef DSHARD_PLAN_RANKSHARE_H
#define DSHARD_PLAN_RANKSHARE_H

#include "dshard/Plan/plan_generated.h"

#include <cstdint>
#include <set>

namespace dshard::plan {

/// How many pp coordinates the plan has; 1 without that axis.
uint32_t stageRanks(const Plan &plan);

struct RankShare {
  std::set<uint32_t> stages;   ///< virtual stages that the coordinate runs
  std::set<uint32_t> programs; ///< with the load program
  uint64_t states = 0;         ///< bytes, a multiple of 64
  uint64_t arena = 0;          ///< bytes, a multiple of 64
  uint64_t threadScratch = 0;  ///< bytes of one worker, a multiple of 64
  /// Most bytes that wait in messages which the rank has sent in one run of an
  /// entry point: all of them.
  uint64_t messages = 0;

  bool holds(const State &state) const {
    return state.stage() < 0 ||
           stages.count(static_cast<uint32_t>(state.stage())) != 0;
  }
};

/// Of the ranks with this pp coordinate. The plan is one that the reader has
/// accepted.
RankShare rankShare(const Plan &plan, uint32_t coordinate);

} // namespace dshard::plan

#endif // DSHARD_PLAN_RANKSHARE_H
