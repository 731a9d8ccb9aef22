//===- History.h - Happens-before between streams ---------------*- C++ -*-===//
//
// Every stream counts its operations; a clock says of each stream up to which
// operation one has heard. Operation (s, n) happened before one with clock c if
// c[s] >= n. Two operations that touch the same bytes, one of them writing, and
// of which neither happened before the other, are a race, whatever the order in
// which they ran here.
//
//===----------------------------------------------------------------------===//
#ifndef DSHARD_EMULATOR_DRIVER_HISTORY_H
#define DSHARD_EMULATOR_DRIVER_HISTORY_H

#include "Execution/Memory.h"

#include <map>
#include <string>
#include <vector>

namespace dshard::emulator {

class Clock {
public:
  uint32_t of(uint32_t stream) const {
    return stream < counts.size() ? counts[stream] : 0;
  }
  void set(uint32_t stream, uint32_t count) {
    if (stream >= counts.size())
      counts.resize(stream + 1);
    counts[stream] = count;
  }
  void join(const Clock &other) {
    if (other.counts.size() > counts.size())
      counts.resize(other.counts.size());
    for (size_t i = 0; i < other.counts.size(); ++i)
      if (other.counts[i] > counts[i])
        counts[i] = other.counts[i];
  }

private:
  std::vector<uint32_t> counts;
};

class History {
public:
  /// Records what operation `count` of `stream` touched; returns "" or a line
  /// about the first race.
  std::string record(const std::vector<Access> &accesses, uint32_t stream,
                     uint32_t count, const Clock &clock,
                     const std::string &name);
  /// The bytes are somebody else's from now on.
  void forget(uint64_t begin, uint64_t end);
  void clear() { segments.clear(); }

private:
  struct Touch {
    uint32_t stream = 0, count = 0; // count 0: nobody
    std::string name;
  };
  struct Segment {
    uint64_t end;
    Touch writer;
    std::vector<Touch> readers; // at most one per stream, the latest
  };
  void split(uint64_t at);
  std::map<uint64_t, Segment> segments;
};

} // namespace dshard::emulator

#endif // DSHARD_EMULATOR_DRIVER_HISTORY_H
