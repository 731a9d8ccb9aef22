//===- Access.cpp - Bounds, races and alignment ---------------------------===//
#include "Execution/Access.h"

#include "Ptx/Parser.h"

#include <algorithm>
#include <cstdio>
#include <cstring>

namespace dshard::emulator {

static std::string hex(uint64_t value) {
  char text[32];
  std::snprintf(text, sizeof(text), "0x%llx",
                static_cast<unsigned long long>(value));
  return text;
}

bool reportMisaligned(Warp &warp, const Instruction &instruction, unsigned lane,
                      uint64_t address, unsigned bytes) {
  warp.launch->report(Fault::misaligned, instruction, warp, lane,
                      std::to_string(bytes) + " bytes at " + hex(address));
  return false;
}

bool findGlobalRange(Warp &warp, const Instruction &instruction, unsigned lane,
                     uint64_t address, unsigned bytes, AccessKind kind) {
  Launch &launch = *warp.launch;
  const std::vector<Range> &ranges = launch.ranges;
  auto after = std::upper_bound(
      ranges.begin(), ranges.end(), address,
      [](uint64_t a, const Range &range) { return a < range.begin; });
  bool writes = kind == AccessKind::write || kind == AccessKind::atomic;
  const Range *readOnly = nullptr;
  // Declared buffers may overlap (a slice and the whole).
  for (auto at = after; at != ranges.begin();) {
    const Range &range = *--at;
    if (address + bytes > range.end || address + bytes < address)
      continue;
    if (!writes || range.writable) {
      launch.rangeOf[&instruction - launch.kernel.code.data()] = range;
      return true;
    }
    readOnly = &range;
  }
  if (readOnly) {
    launch.report(Fault::globalBounds, instruction, warp, lane,
                  "a store to a buffer that the launch only reads, " +
                      std::to_string(address - readOnly->begin) +
                      " bytes into its " +
                      std::to_string(readOnly->end - readOnly->begin));
    return false;
  }
  if (launch.reports.known(Fault::globalBounds, &instruction))
    return false;
  // The nearest buffer below says most: "16 bytes behind the end of 4096".
  std::string detail = std::to_string(bytes) + " bytes at " + hex(address);
  if (after != ranges.begin()) {
    const Range &range = *(after - 1);
    detail += address >= range.end
                  ? ", " + std::to_string(address - range.end) +
                        " bytes behind the end of a buffer of " +
                        std::to_string(range.end - range.begin)
                  : ", over the end of a buffer of " +
                        std::to_string(range.end - range.begin);
  }
  launch.report(Fault::globalBounds, instruction, warp, lane, detail);
  return false;
}

void markGlobal(Warp &warp, const Instruction &instruction, unsigned lane,
                uint64_t address, unsigned bytes, AccessKind kind) {
  Launch &launch = *warp.launch;
  unsigned shift = launch.globalShift;
  // An access is aligned and at most 64 bytes, so it stays within its page.
  LaunchWord *word = launch.memory.word(address, shift);
  LaunchWord *end = word + std::max(1u, bytes >> shift);
  uint32_t block = launch.blockNumber + 1;
  uint32_t first = launch.blockNumber * launch.threads + 1;
  uint32_t thread = first + warp.index * 32 + lane;
  if (kind == AccessKind::write) {
    for (; word != end; ++word) {
      if (word->writer && word->writer != thread)
        launch.report(Fault::globalTwoWriters, instruction, warp, lane,
                      "the word at " + hex(address) + " was stored " +
                          (word->writer == atomicWriter
                               ? std::string("atomically")
                               : "by thread " +
                                     std::to_string(word->writer - 1) +
                                     " of the launch"));
      uint32_t reader = word->reader & ~readOnlyReader;
      if (reader && reader != block)
        launch.report(Fault::globalRace, instruction, warp, lane,
                      "a store to the word at " + hex(address) +
                          " that another block reads");
      if (word->reader & readOnlyReader)
        launch.report(Fault::readOnlyWritten, instruction, warp, lane,
                      "a store to the word at " + hex(address) +
                          " that ld.global.nc read");
      word->writer = thread;
    }
    return;
  }
  if (kind == AccessKind::atomic) {
    for (; word != end; ++word) {
      if (word->writer && word->writer != atomicWriter &&
          word->writer - first >= launch.threads)
        launch.report(Fault::globalRace, instruction, warp, lane,
                      "an atomic on the word at " + hex(address) +
                          " that another block stores plainly");
      word->writer = atomicWriter;
    }
    return;
  }
  for (; word != end; ++word) {
    if (word->writer) {
      if (kind == AccessKind::readOnly)
        launch.report(Fault::readOnlyWritten, instruction, warp, lane,
                      "the word at " + hex(address));
      else if (word->writer == atomicWriter ||
               word->writer - first >= launch.threads)
        launch.report(Fault::globalRace, instruction, warp, lane,
                      "the word at " + hex(address) +
                          " was written in this launch by another block, or "
                          "atomically");
    }
    uint32_t reader = word->reader & ~readOnlyReader;
    uint32_t flag = (word->reader & readOnlyReader) |
                    (kind == AccessKind::readOnly ? readOnlyReader : 0);
    word->reader =
        (reader == 0 || reader == block ? block : manyReaders) | flag;
  }
}

bool markShared(Warp &warp, const Instruction &instruction, unsigned lane,
                uint64_t offset, unsigned bytes, AccessKind kind,
                const void *value) {
  Launch &launch = *warp.launch;
  const Range *inside = nullptr;
  for (const Range &range : launch.sharedRanges)
    if (offset >= range.begin && offset + bytes <= range.end)
      inside = &range;
  if (!inside) {
    launch.report(Fault::sharedBounds, instruction, warp, lane,
                  std::to_string(bytes) + " bytes at offset " +
                      std::to_string(offset));
    return false;
  }
  // Generic instructions see addresses of several spaces: offsets of shared
  // memory and addresses never overlap, so one remembered range serves both.
  launch.rangeOf[&instruction - launch.kernel.code.data()] = *inside;
  unsigned shift = launch.sharedShift;
  SharedWord *word = launch.sharedWords + (offset >> shift);
  SharedWord *end = word + std::max(1u, bytes >> shift);
  uint32_t thread = warp.index * 32 + lane + 1;
  // Two accesses are ordered by a barrier of the block between them, or of the
  // warp if both are in it.
  auto unordered = [&](uint32_t when, uint32_t otherWarp) {
    return when >=
           (otherWarp == warp.index ? warp.syncTick : launch.barrierTick);
  };
  for (; word != end; ++word) {
    if (kind != AccessKind::read || word->writeTick >= launch.barrierTick) {
      if (word->writer != thread && word->writeTick >= launch.barrierTick &&
          !(kind == AccessKind::atomic && word->writer == sharedAtomic)) {
        uint32_t other =
            word->writer == sharedAtomic ? ~0u : (word->writer - 1) / 32;
        bool same = kind == AccessKind::write && value &&
                    word->readTick < launch.barrierTick &&
                    !std::memcmp(launch.shared + offset, value, bytes);
        if (unordered(word->writeTick, other) && !same)
          launch.report(Fault::sharedRace, instruction, warp, lane,
                        "offset " + std::to_string(offset) +
                            (other == ~0u
                                 ? std::string(" was written atomically")
                                 : " was written by thread " +
                                       std::to_string(word->writer - 1)) +
                            " with no barrier between");
      }
    }
    if (kind != AccessKind::read && word->readTick >= launch.barrierTick &&
        word->reader != thread) {
      uint32_t other = word->reader == manyWarps    ? ~0u
                       : word->reader >= manyOfWarp ? word->reader - manyOfWarp
                                                    : (word->reader - 1) / 32;
      if (unordered(word->readTick, other))
        launch.report(Fault::sharedRace, instruction, warp, lane,
                      "offset " + std::to_string(offset) +
                          " is read by another thread with no barrier between");
    }
    if (kind == AccessKind::read || kind == AccessKind::atomic)
      if (word->writeTick < launch.blockTick)
        launch.report(Fault::sharedUnwritten, instruction, warp, lane,
                      "offset " + std::to_string(offset));
    if (kind == AccessKind::read) {
      if (word->readTick < launch.barrierTick || word->reader == thread)
        word->reader = thread;
      else if (word->reader < manyOfWarp)
        word->reader = (word->reader - 1) / 32 == warp.index
                           ? manyOfWarp + warp.index
                           : manyWarps;
      else if (word->reader != manyOfWarp + warp.index)
        word->reader = manyWarps;
      word->readTick = launch.tick;
    } else {
      word->writer = kind == AccessKind::atomic ? sharedAtomic : thread;
      word->writeTick = launch.tick;
    }
  }
  return true;
}

uint8_t *localAccess(Warp &warp, const Instruction &instruction, unsigned lane,
                     uint64_t offset, unsigned bytes) {
  Launch &launch = *warp.launch;
  uint64_t size = launch.kernel.localBytes;
  if (offset & (bytes - 1)) {
    reportMisaligned(warp, instruction, lane, offset, bytes);
    return nullptr;
  }
  if (offset + bytes > size || offset > size) {
    launch.report(Fault::localBounds, instruction, warp, lane,
                  std::to_string(bytes) + " bytes at offset " +
                      std::to_string(offset) + " of " + std::to_string(size));
    return nullptr;
  }
  return launch.local + size * (warp.index * 32 + lane) + offset;
}

uint8_t *parameterAccess(Warp &warp, const Instruction &instruction,
                         unsigned lane, uint64_t offset, unsigned bytes) {
  Launch &launch = *warp.launch;
  if (offset + bytes > launch.kernel.parameterBytes || (offset & (bytes - 1))) {
    launch.report(Fault::parameterBounds, instruction, warp, lane,
                  std::to_string(bytes) + " bytes at offset " +
                      std::to_string(offset) + " of " +
                      std::to_string(launch.kernel.parameterBytes));
    return nullptr;
  }
  return const_cast<uint8_t *>(launch.parameters) + offset;
}

uint8_t *genericAccess(Warp &warp, const Instruction &instruction,
                       unsigned lane, uint64_t address, unsigned bytes,
                       AccessKind kind, const void *value) {
  uint64_t window = address & windowMask;
  if (window == sharedWindow)
    return sharedAccess(warp, instruction, lane, address & ~windowMask, bytes,
                        kind, value);
  if (window == localWindow)
    return localAccess(warp, instruction, lane, address & ~windowMask, bytes);
  return globalAccess(warp, instruction, lane, address, bytes, kind);
}

} // namespace dshard::emulator
