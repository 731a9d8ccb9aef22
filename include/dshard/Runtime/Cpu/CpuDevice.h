//===- CpuDevice.h - One rank on the CPU ------------------------*- C++ -*-===//
#ifndef DSHARD_RUNTIME_CPU_CPUDEVICE_H
#define DSHARD_RUNTIME_CPU_CPUDEVICE_H

#include "dshard/Runtime/Cpu/ThreadPool.h"
#include "dshard/Runtime/Device.h"
#include "dshard/Support/AlignedBuffer.h"

#include <vector>

namespace dshard::cpu {

/// A rank's worker threads, its memory, and the scratch that the threads share.
class CpuDevice {
public:
  explicit CpuDevice(unsigned threads) : pool(threads) {}

  Device device();
  ThreadPool &threads() { return pool; }

  // What the functions of Device.h work with.
  std::vector<AlignedBuffer> memory;
  void *scratch = nullptr;
  uint64_t scratchBytes = 0; // per worker

private:
  ThreadPool pool;
};

} // namespace dshard::cpu

#endif // DSHARD_RUNTIME_CPU_CPUDEVICE_H
