//===- Access.h - Checked memory accesses of one lane -----------*- C++ -*-===//
//
// Each function returns where the bytes lie on the host, or null after a
// report; the access is then left out (a load gives zero).
//
//===----------------------------------------------------------------------===//
#ifndef DSHARD_EMULATOR_EXECUTION_ACCESS_H
#define DSHARD_EMULATOR_EXECUTION_ACCESS_H

#include "Execution/Launch.h"

#include <algorithm>

namespace dshard::emulator {

enum class AccessKind : uint8_t { read, readOnly, write, atomic };

/// Slow part of the bounds check: finds the range, remembers it for the
/// instruction; false after a report.
bool findGlobalRange(Warp &warp, const Instruction &instruction, unsigned lane,
                     uint64_t address, unsigned bytes, AccessKind kind);
/// Records readers and writers; reports races, doubled writes and read-only
/// loads of what the launch writes.
void markGlobal(Warp &warp, const Instruction &instruction, unsigned lane,
                uint64_t address, unsigned bytes, AccessKind kind);
/// `value`: the bytes about to be stored (for "the same value"), else null.
bool markShared(Warp &warp, const Instruction &instruction, unsigned lane,
                uint64_t offset, unsigned bytes, AccessKind kind,
                const void *value);
bool reportMisaligned(Warp &warp, const Instruction &instruction, unsigned lane,
                      uint64_t address, unsigned bytes);

/// The usual cases of markGlobal: nobody else was here. False: ask markGlobal.
inline bool markGlobalFast(Warp &warp, unsigned lane, uint64_t address,
                           unsigned bytes, AccessKind kind) {
  Launch &launch = *warp.launch;
  unsigned shift = launch.globalShift;
  LaunchWord *word = launch.memory.word(address, shift);
  LaunchWord *end = word + std::max(1u, bytes >> shift);
  uint32_t block = launch.blockNumber + 1;
  if (kind == AccessKind::write) {
    uint32_t thread =
        launch.blockNumber * launch.threads + 1 + warp.index * 32 + lane;
    for (; word != end; ++word) {
      if ((word->writer && word->writer != thread) ||
          (word->reader && word->reader != block))
        return false;
      word->writer = thread;
    }
    return true;
  }
  if (kind == AccessKind::atomic)
    return false;
  uint32_t reader =
      kind == AccessKind::readOnly ? block | readOnlyReader : block;
  for (; word != end; ++word) {
    if (word->writer || (word->reader && word->reader != reader))
      return false;
    word->reader = reader;
  }
  return true;
}

inline uint8_t *globalAccess(Warp &warp, const Instruction &instruction,
                             unsigned lane, uint64_t address, unsigned bytes,
                             AccessKind kind) {
  if (address & (bytes - 1)) {
    reportMisaligned(warp, instruction, lane, address, bytes);
    return nullptr;
  }
  Launch &launch = *warp.launch;
  const Range &range = launch.rangeOf[&instruction - launch.kernel.code.data()];
  if (address < range.begin || address + bytes > range.end)
    if (!findGlobalRange(warp, instruction, lane, address, bytes, kind))
      return nullptr;
  if (!markGlobalFast(warp, lane, address, bytes, kind))
    markGlobal(warp, instruction, lane, address, bytes, kind);
  return reinterpret_cast<uint8_t *>(address);
}

/// What the lanes of one instruction have in common, read once: stores to the
/// shadow could change any of it as far as the compiler knows.
struct SharedMarks {
  SharedWord *words;
  unsigned shift;
  uint32_t barrier, block, tick, warp;
  uint64_t begin, end;
  SharedMarks(Warp &w, const Instruction &instruction)
      : words(w.launch->sharedWords), shift(w.launch->sharedShift),
        barrier(w.launch->barrierTick), block(w.launch->blockTick),
        tick(w.launch->tick), warp(w.index) {
    const Range &range =
        w.launch->rangeOf[&instruction - w.launch->kernel.code.data()];
    begin = range.begin, end = range.end;
  }
  /// The usual cases of markShared. Marking twice is harmless, so a false in
  /// the middle just leaves the whole access to markShared.
  template <AccessKind kind>
  __attribute__((always_inline)) bool mark(unsigned lane, uint64_t offset,
                                           unsigned bytes) const {
    if (offset < begin || offset + bytes > end)
      return false;
    SharedWord *word = words + (offset >> shift);
    const uint32_t thread = warp * 32 + lane + 1;
    for (unsigned left = std::max(1u, bytes >> shift); left; --left, ++word) {
      if constexpr (kind == AccessKind::read) {
        if (word->writeTick >= barrier ? word->writer != thread
                                       : word->writeTick < block)
          return false;
        if (word->readTick < barrier)
          word->reader = thread;
        else if (word->reader != thread && word->reader != manyWarps)
          word->reader = word->reader == manyOfWarp + warp ||
                                 (word->reader < manyOfWarp &&
                                  (word->reader - 1) / 32 == warp)
                             ? manyOfWarp + warp
                             : manyWarps;
        word->readTick = tick;
      } else {
        if ((word->writeTick >= barrier && word->writer != thread) ||
            (word->readTick >= barrier && word->reader != thread))
          return false;
        word->writer = thread;
        word->writeTick = tick;
      }
    }
    return true;
  }
};

inline uint8_t *sharedAccess(Warp &warp, const Instruction &instruction,
                             unsigned lane, uint64_t offset, unsigned bytes,
                             AccessKind kind, const void *value) {
  if (offset & (bytes - 1)) {
    reportMisaligned(warp, instruction, lane, offset, bytes);
    return nullptr;
  }
  if (!markShared(warp, instruction, lane, offset, bytes, kind, value))
    return nullptr;
  return warp.launch->shared + offset;
}

uint8_t *localAccess(Warp &warp, const Instruction &instruction, unsigned lane,
                     uint64_t offset, unsigned bytes);
uint8_t *parameterAccess(Warp &warp, const Instruction &instruction,
                         unsigned lane, uint64_t offset, unsigned bytes);
/// By the window of a generic address.
uint8_t *genericAccess(Warp &warp, const Instruction &instruction,
                       unsigned lane, uint64_t address, unsigned bytes,
                       AccessKind kind, const void *value);
template <Space space>
inline uint8_t *spaceAccess(Warp &warp, const Instruction &instruction,
                            unsigned lane, uint64_t address, unsigned bytes,
                            AccessKind kind, const void *value) {
  if constexpr (space == Space::global || space == Space::constant)
    return globalAccess(warp, instruction, lane, address, bytes, kind);
  else if constexpr (space == Space::shared)
    return sharedAccess(warp, instruction, lane, address, bytes, kind, value);
  else if constexpr (space == Space::local)
    return localAccess(warp, instruction, lane, address, bytes);
  else if constexpr (space == Space::param)
    return parameterAccess(warp, instruction, lane, address, bytes);
  else
    return genericAccess(warp, instruction, lane, address, bytes, kind, value);
}

} // namespace dshard::emulator

#endif // DSHARD_EMULATOR_EXECUTION_ACCESS_H
