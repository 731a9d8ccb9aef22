//===- CudaWorld.h - The GPUs of a session ----------------------*- C++ -*-===//
//
// One GPU per rank, rank r on GPU r, all in this process: the CUDA driver,
// cuBLASLt and NCCL, each opened at run time (Functions.def lists every entry
// point that is used). A library is looked for by its name, or where its
// environment variable says (Support/Environment.def); cuBLASLt only for plans
// with matrix products, NCCL only for groups of more than one rank.
//
// Stream 0 of a rank computes, the others serve collectives. Memory of a rank
// is one allocation at a multiple of 256 bytes.
//
// Errors: everything that may be missing is found by create(): the driver, a
// version, GPUs, their architecture, code that the driver does not take. After
// a failure in a run the communicators are gone, and so is every later run of
// the session.
//
//===----------------------------------------------------------------------===//
#ifndef DSHARD_RUNTIME_CUDA_CUDAWORLD_H
#define DSHARD_RUNTIME_CUDA_CUDAWORLD_H

#include "dshard/Plan/PlanReader.h"
#include "dshard/Plan/Topology.h"
#include "dshard/Runtime/Comm/InProcess.h"
#include "dshard/Runtime/Communicator.h"
#include "dshard/Runtime/Device.h"

#include <memory>

namespace dshard::cuda {

class CudaWorld {
public:
  /// `ranks` is asked whether a peer has failed, so that nobody waits for it.
  static Result<std::unique_ptr<CudaWorld>>
  create(const plan::Reader &reader, const plan::Topology &topology,
         InProcessWorld &ranks);
  ~CudaWorld();

  Device device(uint32_t rank);
  Communicator communicator(uint32_t rank);

private:
  CudaWorld();
  struct Parts;
  std::unique_ptr<Parts> parts;
};

} // namespace dshard::cuda

#endif // DSHARD_RUNTIME_CUDA_CUDAWORLD_H
