//===- Launch.h - One kernel launch, warp by warp ---------------*- C++ -*-===//
//
// Blocks run one after the other, the warps of a block in turn, each until all
// of its lanes wait at a barrier or are done. A warp is a list of groups of
// lanes, each with a pc; the group with the smallest pc runs, and groups whose
// pcs meet become one. Deterministic: the same launch gives the same bytes.
//
//===----------------------------------------------------------------------===//
#ifndef DSHARD_EMULATOR_EXECUTION_LAUNCH_H
#define DSHARD_EMULATOR_EXECUTION_LAUNCH_H

#include "Execution/Memory.h"
#include "Execution/Reports.h"
#include "Ptx/Module.h"

namespace dshard::emulator {

class Launch;

/// Lanes of a warp that are at the same instruction.
struct Group {
  uint32_t pc;
  uint32_t mask;
  enum State : uint8_t { running, atBarrier, atMeeting } state;
};

class Warp {
public:
  template <typename T> T *lanes(uint32_t offset) {
    return reinterpret_cast<T *>(file + offset);
  }
  uint32_t &predicate(uint32_t offset) {
    return *reinterpret_cast<uint32_t *>(file + offset);
  }

  Launch *launch = nullptr;
  uint8_t *file = nullptr;
  unsigned index = 0; // in its block
  uint32_t carry = 0; // the CC register, a mask
  uint32_t exited = 0;
  uint32_t existing = 0;  // lanes that the block has
  uint32_t groupMask = 0; // lanes at the instruction that runs
  uint64_t syncTick = 0;  // of the last bar.warp.sync
  uint64_t executed = 0;
  std::vector<Group> groups;
};

/// A granule of shared memory: ticks of the last write and read, and by whom.
struct SharedWord {
  uint32_t writeTick = 0, readTick = 0;
  uint32_t writer = 0; // thread + 1; sharedAtomic
  uint32_t reader = 0; // thread + 1; manyOfWarp + warp; manyWarps
};
constexpr uint32_t sharedAtomic = 0xfffffffeu;
constexpr uint32_t manyOfWarp = 0x10000;
constexpr uint32_t manyWarps = 0xffffffffu;

struct LaunchShape {
  uint32_t grid[3] = {1, 1, 1};
  uint32_t block[3] = {1, 1, 1};
  uint32_t dynamicShared = 0;
};

class Launch {
public:
  /// `ranges`: what the kernel may touch, sorted by address.
  Launch(const Module &module, const Kernel &kernel, const LaunchShape &shape,
         const uint8_t *parameters, DeviceMemory &memory,
         std::vector<Range> ranges);
  /// Runs all blocks; afterwards reports, touched memory and the count of warp
  /// instructions are there.
  void run();

  const Module &module;
  const Kernel &kernel;
  LaunchShape shape;
  const uint8_t *parameters;
  DeviceMemory &memory;
  std::vector<Range> ranges;
  std::vector<Range> sharedRanges;
  std::vector<Range> rangeOf; // per instruction: where it last was
  Reports reports;
  uint64_t warpInstructions = 0;
  /// Warp instructions that one launch may use.
  uint64_t budget = 1000000000ull;

  // The block that runs.
  uint32_t blockIndex[3] = {0, 0, 0};
  uint32_t blockNumber = 0;
  uint32_t threads = 0;
  uint8_t *shared = nullptr;
  SharedWord *sharedWords = nullptr;
  uint8_t *local = nullptr; // kernel.localBytes per thread of the block
  uint32_t tick = 1, barrierTick = 1, blockTick = 1;
  unsigned sharedShift = 2, globalShift = 2;
  uint64_t sharedSize = 0;

  /// "block 1,0,0 thread 3,0,0".
  std::string where(const Warp &warp, unsigned lane) const;
  void report(Fault fault, const Instruction &instruction, const Warp &warp,
              unsigned lane, const std::string &detail) {
    if (!reports.known(fault, &instruction))
      reports.add(fault, &instruction, where(warp, lane), detail);
  }
  bool stopped = false; // budget spent, or nothing can run

private:
  void runBlock();
  void startWarp(Warp &warp);
  void runWarp(Warp &warp);
  void step(Warp &warp, Group &group, uint32_t limit);
  bool resolveMeeting(Warp &warp, Group &group, bool force);
  void releaseBarrier();
  void mergeGroups(Warp &warp);

  std::vector<Warp> warps;
  std::vector<uint8_t> files;
};

} // namespace dshard::emulator

#endif // DSHARD_EMULATOR_EXECUTION_LAUNCH_H
