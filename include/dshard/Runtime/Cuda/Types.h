//===- Types.h - What of the CUDA headers the runtime needs -----*- C++ -*-===//
//
// Own declarations, so that the runtime builds where there is no CUDA toolkit.
// Values and layouts are those of cuda.h, cublasLt.h and nccl.h: part of their
// binary interfaces, which do not change.
//
//===----------------------------------------------------------------------===//
#ifndef DSHARD_RUNTIME_CUDA_TYPES_H
#define DSHARD_RUNTIME_CUDA_TYPES_H

#include <cstddef>
#include <cstdint>

namespace dshard::cuda {

// cuda.h
using DeviceId = int;                     // CUdevice
using DevicePointer = unsigned long long; // CUdeviceptr
using Context = struct ContextTag *;
using Stream = struct StreamTag *;
using Event = struct EventTag *;
using Module = struct ModuleTag *;
using Function = struct FunctionTag *;

enum DriverError : int {
  errorOutOfMemory = 2,
  errorNoDevice = 100,
  errorNotReady = 600,
};
constexpr int attributeMajor = 75; // of the compute capability
constexpr int attributeMinor = 76;
constexpr unsigned streamNonBlocking = 1;
constexpr unsigned eventTiming = 0, eventDisableTiming = 2;
constexpr int functionMaxDynamicShared = 8;
constexpr int jitErrorLog = 5, jitErrorLogBytes = 6;

/// CUDA_MEMCPY2D
struct CopyRows {
  size_t fromX = 0, fromY = 0;
  int fromKind = 2; // device memory
  const void *fromHost = nullptr;
  DevicePointer from = 0;
  void *fromArray = nullptr;
  size_t fromPitch = 0;
  size_t toX = 0, toY = 0;
  int toKind = 2;
  void *toHost = nullptr;
  DevicePointer to = 0;
  void *toArray = nullptr;
  size_t toPitch = 0;
  size_t width = 0, height = 0; // bytes, rows
};

// cublasLt.h
using BlasHandle = struct BlasHandleTag *;
using MatmulDescription = struct MatmulDescriptionTag *;
using MatrixLayout = struct MatrixLayoutTag *;
using MatmulPreference = struct MatmulPreferenceTag *;
struct MatmulAlgorithm {
  uint64_t data[8];
};
struct MatmulHeuristic {
  MatmulAlgorithm algorithm;
  size_t workspaceBytes;
  int state; // 0: usable
  float waves;
  int reserved[4];
};
enum BlasType : int { blasF32 = 0, blasF16 = 2, blasBf16 = 14 };
constexpr int computeF32 = 68;
constexpr int descriptionTransposeA = 3, descriptionTransposeB = 4,
              descriptionEpilogue = 7, descriptionBiasPointer = 8,
              descriptionBiasType = 26;
constexpr int layoutBatchCount = 5, layoutBatchStride = 6;
constexpr int preferenceWorkspace = 1;
/// Bytes (uint32_t) that A, B, C, D are multiples of; 256 unless told.
constexpr int preferenceAlignment[] = {5, 6, 7, 8};
enum Epilogue : int { epilogueNone = 1, epilogueRelu = 2, epilogueGelu = 32 };
constexpr int epilogueBias = 4; // added to the others

// nccl.h
using NcclComm = struct NcclCommTag *;
struct NcclId {
  char bytes[128];
};
enum NcclType : int {
  ncclI8 = 0,
  ncclU8,
  ncclI32,
  ncclU32,
  ncclI64,
  ncclU64,
  ncclF16,
  ncclF32,
  ncclF64,
  ncclBf16
};
enum NcclOp : int { ncclSum = 0, ncclProduct, ncclMax, ncclMin, ncclMean };
constexpr int ncclInProgress = 7;

} // namespace dshard::cuda

#endif // DSHARD_RUNTIME_CUDA_TYPES_H
