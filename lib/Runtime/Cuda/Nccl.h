//===- Nccl.h - Collectives by NCCL -----------------------------*- C++ -*-===//
//
// One communicator per rank and group. Calls are queued on the stream that
// setStream names. What NCCL has no call for (pieces around an inner dim) is
// several calls in one ncclGroup. Sums are NCCL's: the same on all ranks of a
// group, but in no stated order.
//
//===----------------------------------------------------------------------===//
#ifndef DSHARD_LIB_RUNTIME_CUDA_NCCL_H
#define DSHARD_LIB_RUNTIME_CUDA_NCCL_H

#include "CudaDevice.h"
#include "dshard/Plan/Topology.h"
#include "dshard/Runtime/Communicator.h"

#include <atomic>
#include <vector>

namespace dshard::cuda {

/// One rank's end of all groups.
struct NcclRank {
  struct Group {
    NcclComm comm = nullptr; ///< null: alone in it
    int size = 1, position = 0;
  };

  NcclRank(CudaDevice &device) : device(device) {}
  ~NcclRank();

  Communicator communicator();
  /// Null where there is nothing wrong on any group.
  Status look();
  /// Gives up what is queued, so that the rank's streams end.
  void abort();

  CudaDevice &device;
  const NcclLibrary *library = nullptr; ///< null: no group of several ranks
  std::vector<Group> groups;            ///< by index of Plan.groups
  uint32_t stream = 0;
  bool isAborted = false;
};

/// Connects all ranks' groups, in one thread.
Status connect(const NcclLibrary &library, const plan::Topology &topology,
               uint32_t groups,
               const std::vector<std::unique_ptr<NcclRank>> &ranks);

} // namespace dshard::cuda

#endif // DSHARD_LIB_RUNTIME_CUDA_NCCL_H
