//===- Driver.h - The GPU libraries, opened at run time ---------*- C++ -*-===//
//
// Tables of the entry points in Functions.def. A library is opened once per
// process and stays.
//
//===----------------------------------------------------------------------===//
#ifndef DSHARD_LIB_RUNTIME_CUDA_DRIVER_H
#define DSHARD_LIB_RUNTIME_CUDA_DRIVER_H

#include "dshard/Runtime/Cuda/Types.h"
#include "dshard/Support/Status.h"

#include <string>

namespace dshard::cuda {

struct Driver {
#define DSHARD_CUDA_DRIVER(member, symbol, arguments)                          \
  int(*member) arguments = nullptr;
#define DSHARD_CUDA_DRIVER_OPTIONAL(member, symbol, arguments)                 \
  int(*member) arguments = nullptr;
#define DSHARD_CUDA_DRIVER_HOOK(member, symbol, arguments)                     \
  void(*member) arguments = nullptr;
#include "dshard/Runtime/Cuda/Functions.def"

  /// "cuMemAlloc: out of memory (CUDA_ERROR_OUT_OF_MEMORY)"
  Status error(int result, const char *call) const;
  Status check(int result, const char *call) const {
    return result == 0 ? Status() : error(result, call);
  }
};

struct BlasLibrary {
#define DSHARD_CUDA_BLAS(member, symbol, result, arguments)                    \
  result(*member) arguments = nullptr;
#include "dshard/Runtime/Cuda/Functions.def"

  Status check(int result, const char *call) const;
};

struct NcclLibrary {
#define DSHARD_CUDA_NCCL(member, symbol, result, arguments)                    \
  result(*member) arguments = nullptr;
#include "dshard/Runtime/Cuda/Functions.def"

  Status check(int result, const char *call, NcclComm comm = nullptr) const;
};

/// Opens it, refuses what is too old, and initialises it.
Result<const Driver *> openDriver();
Result<const BlasLibrary *> openBlas();
Result<const NcclLibrary *> openNccl();

} // namespace dshard::cuda

#endif // DSHARD_LIB_RUNTIME_CUDA_DRIVER_H
