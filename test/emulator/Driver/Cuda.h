//===- Cuda.h - The few CUDA, cuBLASLt and NCCL declarations ----*- C++ -*-===//
//
// Values and layouts of the vendors' ABIs (CUDA 13, cuBLASLt 13, NCCL 2.2x),
// written down here so that the emulator builds where no toolkit is. Handles
// are opaque; an enum is an int.
//
//===----------------------------------------------------------------------===//
#ifndef DSHARD_EMULATOR_DRIVER_CUDA_H
#define DSHARD_EMULATOR_DRIVER_CUDA_H

#include <cstddef>
#include <cstdint>

namespace dshard::emulator {

// Driver.
enum CuResult : int {
  cuSuccess = 0,
  cuInvalidValue = 1,
  cuOutOfMemory = 2,
  cuNotInitialized = 3,
  cuNoDevice = 100,
  cuInvalidDevice = 101,
  cuInvalidContext = 201,
  cuNoBinaryForGpu = 209,
  cuInvalidPtx = 218,
  cuInvalidHandle = 400,
  cuNotFound = 500,
  cuNotReady = 600,
  cuLaunchFailed = 719,
  cuNotSupported = 801,
  cuUnknown = 999
};
constexpr int streamNonBlocking = 1;
constexpr int jitErrorLogBuffer = 5, jitErrorLogBufferBytes = 6;
constexpr int attributeMaxDynamicShared = 8; // CU_FUNC_ATTRIBUTE_...

/// CUDA_MEMCPY2D; memory kinds: 1 host, 2 device.
struct CuCopyRows {
  size_t fromX, fromY;
  int fromKind;
  const void *fromHost;
  uint64_t fromDevice;
  void *fromArray;
  size_t fromPitch;
  size_t toX, toY;
  int toKind;
  void *toHost;
  uint64_t toDevice;
  void *toArray;
  size_t toPitch;
  size_t width, height; // bytes, rows
};

// cuBLASLt.
enum BlasResult : int {
  blasSuccess = 0,
  blasNotInitialized = 1,
  blasInvalidValue = 7,
  blasExecutionFailed = 13,
  blasNotSupported = 15
};
enum BlasType : int { blasF32 = 0, blasF64 = 1, blasF16 = 2, blasBF16 = 14 };
struct BlasAlgo {
  uint64_t data[8];
};
struct BlasHeuristic {
  BlasAlgo algo;
  size_t workspaceSize;
  int state;
  float wavesCount;
  int reserved[4];
};

// NCCL.
enum NcclResult : int {
  ncclOk = 0,
  ncclUnhandledCuda = 1,
  ncclSystem = 2,
  ncclInternal = 3,
  ncclInvalidArgument = 4,
  ncclInvalidUsage = 5,
  ncclRemote = 6
};
struct NcclId {
  char internal[128];
};

} // namespace dshard::emulator

#endif // DSHARD_EMULATOR_DRIVER_CUDA_H
