//===- Reports.h - What the checks found in one launch ----------*- C++ -*-===//
#ifndef DSHARD_EMULATOR_EXECUTION_REPORTS_H
#define DSHARD_EMULATOR_EXECUTION_REPORTS_H

#include "Ptx/Module.h"

#include <set>
#include <string>
#include <vector>

namespace dshard::emulator {

/// The kinds of faults; each is capped on its own, so that a million races do
/// not hide one divergent barrier.
enum class Fault : uint8_t {
  sharedRace,      // two threads, no barrier between, one of them writes
  sharedUnwritten, // read before anything was stored in this block
  sharedBounds,
  globalBounds,
  globalRace,       // two blocks, one of them writes
  globalTwoWriters, // two threads store the same word
  readOnlyWritten,  // ld.global.nc of a word that the launch writes
  localBounds,
  parameterBounds,
  misaligned,
  barrierDivergence,
  shuffleInactive,
  blockSize,
  budget,
  deadlock,
  badInstruction
};
const char *faultName(Fault fault);

class Reports {
public:
  Reports(const Module &module, const Kernel &kernel)
      : module(module), kernel(kernel) {}
  /// Once per (fault, instruction), at most `cap` per fault. `instruction` may
  /// be null. `where` names block and thread, `detail` the numbers.
  void add(Fault fault, const Instruction *instruction,
           const std::string &where, const std::string &detail);
  /// True when (fault, instruction) was reported already: lets hot paths skip
  /// the making of the text.
  bool known(Fault fault, const Instruction *instruction) const {
    return seen.count({fault, instruction}) != 0;
  }
  bool empty() const { return lines.empty(); }
  /// All reports, one per line.
  std::string text() const;
  std::vector<std::string> lines;

private:
  const Module &module;
  const Kernel &kernel;
  std::set<std::pair<Fault, const Instruction *>> seen;
  unsigned counts[32] = {};
  static constexpr unsigned cap = 8;
};

} // namespace dshard::emulator

#endif // DSHARD_EMULATOR_EXECUTION_REPORTS_H
