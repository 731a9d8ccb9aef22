//===- History.cpp - Happens-before between streams -----------------------===//
#include "Driver/History.h"

namespace dshard::emulator {

void History::split(uint64_t at) {
  auto after = segments.upper_bound(at);
  if (after == segments.begin())
    return;
  auto found = std::prev(after);
  if (found->first == at || found->second.end <= at)
    return;
  Segment upper = found->second;
  found->second.end = at;
  segments.emplace(at, std::move(upper));
}

std::string History::record(const std::vector<Access> &accesses,
                            uint32_t stream, uint32_t count, const Clock &clock,
                            const std::string &name) {
  std::string error;
  auto check = [&](const Touch &earlier, const char *did, const Access &access,
                   uint64_t at) {
    if (!error.empty() || earlier.count == 0 ||
        (earlier.stream == stream && earlier.count == count) ||
        clock.of(earlier.stream) >= earlier.count)
      return;
    error = "race between streams: " + name + " (stream " +
            std::to_string(stream) + ") " +
            (access.write ? "writes" : "reads") + " bytes that " +
            earlier.name + " (stream " + std::to_string(earlier.stream) + ") " +
            did + ", and no event orders the two; byte " +
            std::to_string(at - access.begin) + " of " +
            std::to_string(access.end - access.begin);
  };
  Touch self{stream, count, name};
  for (const Access &access : accesses) {
    if (access.begin >= access.end)
      continue;
    split(access.begin);
    split(access.end);
    auto at = segments.lower_bound(access.begin);
    uint64_t covered = access.begin;
    while (at != segments.end() && at->first < access.end) {
      Segment &segment = at->second;
      check(segment.writer, "writes", access, at->first);
      if (access.write) {
        for (const Touch &reader : segment.readers)
          check(reader, "reads", access, at->first);
        at = segments.erase(at);
        continue;
      }
      // Holes become segments of their own.
      if (covered < at->first)
        segments.emplace(covered, Segment{at->first, Touch(), {self}});
      covered = segment.end;
      bool known = false;
      for (Touch &reader : segment.readers)
        if (reader.stream == stream) {
          reader = self;
          known = true;
        }
      if (!known)
        segment.readers.push_back(self);
      ++at;
    }
    if (access.write)
      segments.emplace(access.begin, Segment{access.end, self, {}});
    else if (covered < access.end)
      segments.emplace(covered, Segment{access.end, Touch(), {self}});
  }
  return error;
}

void History::forget(uint64_t begin, uint64_t end) {
  split(begin);
  split(end);
  segments.erase(segments.lower_bound(begin), segments.lower_bound(end));
}

} // namespace dshard::emulator
