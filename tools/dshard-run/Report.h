//===- Report.h - What a run took -------------------------------*- C++ -*-===//
#ifndef DSHARD_TOOLS_DSHARD_RUN_REPORT_H
#define DSHARD_TOOLS_DSHARD_RUN_REPORT_H

#include "HostTensors.h"

namespace dshard::run {

/// The process's own memory, from /proc/self.
class MemoryMeter {
public:
  /// From here on: forgets the high-water mark, remembers what is resident.
  void start();
  /// High-water mark since start(), less what was resident then; 0 without
  /// /proc.
  uint64_t peak() const;

private:
  uint64_t before = 0;
};

struct Report {
  std::string entry;
  double loadSeconds = 0;
  std::vector<double> milliseconds;     // of each counted run
  std::vector<double> stepMilliseconds; // of each of their steps
  int64_t warmup = 0;
  uint64_t measuredPeak = 0; // all ranks
  int64_t steps = 1;         // of one run
  bool stepped = false;      // --steps was given
  std::vector<std::pair<const HostTensor *, Statistics>> outputs;
  std::vector<Comparison> comparisons;
};

/// One JSON object, all of --report=json.
std::string jsonReport(Session &session, const Report &report);
/// The same for people, shorter.
std::string textReport(Session &session, const Report &report);

/// The events of the last run as a Chrome trace.
Status writeTrace(Session &session, const std::string &path);

} // namespace dshard::run

#endif // DSHARD_TOOLS_DSHARD_RUN_REPORT_H
