//===- GpuForTest.h - A GPU for the conformance tests -----------*- C++ -*-===//
//
// Where DSHARD_EMULATOR names the emulator (the CMake build), it is what the
// tests run on unless DSHARD_CUDA_LIBRARY says otherwise; without it
// (scripts/gpu-check) they run on the machine's own GPU.
//
//===----------------------------------------------------------------------===//
#ifndef DSHARD_TEST_RUNTIME_GPUFORTEST_H
#define DSHARD_TEST_RUNTIME_GPUFORTEST_H

#include "Cuda/CudaDevice.h"

#include <cstdlib>
#include <gtest/gtest.h>

namespace dshard::test {

inline void chooseGpuLibraries() {
#ifdef DSHARD_EMULATOR
  for (const char *name : {"DSHARD_CUDA_LIBRARY", "DSHARD_CUBLASLT_LIBRARY",
                           "DSHARD_NCCL_LIBRARY"})
    setenv(name, DSHARD_EMULATOR, /*overwrite=*/0);
  setenv("DSHARD_EMULATOR_DEVICES", "4", /*overwrite=*/0);
#endif
}

/// Null where there is no driver: the test skips.
inline const cuda::Driver *driverForTest() {
  chooseGpuLibraries();
  static Result<const cuda::Driver *> driver = cuda::openDriver();
  return driver ? *driver : nullptr;
}

inline int gpuCount() {
  int count = 0;
  if (const cuda::Driver *driver = driverForTest())
    (void)driver->deviceGetCount(&count);
  return count;
}

/// GPU 0 with cuBLASLt, or null after a failure.
inline std::unique_ptr<cuda::CudaDevice> openGpu() {
  auto device = std::make_unique<cuda::CudaDevice>(*driverForTest(), 0);
  if (Status status = device->open(80, "cuda:sm_80"); !status) {
    ADD_FAILURE() << status.message();
    return nullptr;
  }
  Result<const cuda::BlasLibrary *> library = cuda::openBlas();
  if (!library) {
    ADD_FAILURE() << library.status().message();
    return nullptr;
  }
  auto blas = cuda::Blas::create(**library);
  if (!blas) {
    ADD_FAILURE() << blas.status().message();
    return nullptr;
  }
  device->setBlas(std::move(*blas));
  return device;
}

} // namespace dshard::test

#endif // DSHARD_TEST_RUNTIME_GPUFORTEST_H
