//===- Access.h - Checked memory accesses of one lane -----------*- C++ -*-===//
//
// Each function returns where the bytes lie on the host, or null after a
// report; the access is then left out (a load gives zero).
//
//===----------------------------------------------------------------------===//
#ifndef DSHARD_EMULATOR_EXECUTION_ACCESS_H
#define DSHARD_EMULATOR_EXECUTION_ACCESS_H

#include "Execution/Launch.h"

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
uint8_t *spaceAccess(Space space, Warp &warp, const Instruction &instruction,
                     unsigned lane, uint64_t address, unsigned bytes,
                     AccessKind kind, const void *value);

} // namespace dshard::emulator

#endif // DSHARD_EMULATOR_EXECUTION_ACCESS_H
