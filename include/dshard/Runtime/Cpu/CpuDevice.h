//===- CpuDevice.h - One rank on the CPU ------------------------*- C++ -*-===//
#ifndef DSHARD_RUNTIME_CPU_CPUDEVICE_H
#define DSHARD_RUNTIME_CPU_CPUDEVICE_H

#include "dshard/Runtime/Cpu/ThreadPool.h"
#include "dshard/Runtime/Device.h"

namespace dshard::cpu {

/// A rank's worker threads and their scratch. Memory comes from anonymous
/// mappings without huge pages, so that the high-water mark is what the plan
/// says.
class CpuDevice {
public:
  explicit CpuDevice(unsigned threads) : pool(threads) {}

  Device device();
  ThreadPool &threads() { return pool; }

  void *scratch = nullptr;
  uint64_t scratchBytes = 0; // per worker

private:
  ThreadPool pool;
};

} // namespace dshard::cpu

#endif // DSHARD_RUNTIME_CPU_CPUDEVICE_H
