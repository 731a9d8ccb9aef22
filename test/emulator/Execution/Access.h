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

/// What the lanes of one access to global memory have in common, read once:
/// stores to the shadow could change any of it as far as the compiler knows.
struct GlobalMarks {
  DeviceMemory &memory;
  LaunchWord *words;
  uint64_t origin, begin, end, page = ~0ull;
  unsigned shift;
  uint32_t block, first;
  GlobalMarks(Warp &w, const Instruction &instruction)
      : memory(w.launch->memory), words(memory.allWords()),
        origin(memory.origin()), shift(w.launch->globalShift),
        block(w.launch->blockNumber + 1),
        first(w.launch->blockNumber * w.launch->threads + 1 + w.index * 32) {
    const Range &range =
        w.launch->rangeOf[&instruction - w.launch->kernel.code.data()];
    begin = range.begin, end = range.end;
  }
  /// Bounds as the instruction met them last, and nobody else was here. False:
  /// ask globalAccess; marking twice is harmless.
  template <AccessKind kind>
  __attribute__((always_inline)) bool mark(unsigned lane, uint64_t address,
                                           unsigned bytes) {
    if (address < begin || address + bytes > end)
      return false;
    uint64_t offset = address - origin;
    if (offset >> DeviceMemory::pageShift != page) {
      page = offset >> DeviceMemory::pageShift;
      memory.touchPage(page);
    }
    LaunchWord *word = words + (offset >> shift);
    const uint32_t thread = first + lane;
    const uint32_t reader =
        kind == AccessKind::readOnly ? block | readOnlyReader : block;
    for (unsigned left = std::max(1u, bytes >> shift); left; --left, ++word) {
      if constexpr (kind == AccessKind::write) {
        if ((word->writer && word->writer != thread) ||
            (word->reader && word->reader != block))
          return false;
        word->writer = thread;
      } else {
        if (word->writer)
          return false;
        if (word->reader != reader) {
          uint32_t old = word->reader & ~readOnlyReader;
          word->reader = (old == 0 || old == block ? block : manyReaders) |
                         ((word->reader | reader) & readOnlyReader);
        }
      }
    }
    return true;
  }
};

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
