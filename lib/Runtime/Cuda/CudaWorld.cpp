//===- CudaWorld.cpp - The GPUs of a session ------------------------------===//

#include "dshard/Runtime/Cuda/CudaWorld.h"

#include "CudaDevice.h"
#include "Nccl.h"
#include "dshard/Plan/Instructions.h"

using namespace dshard;
using namespace dshard::cuda;

struct CudaWorld::Parts {
  // Communicators go before the devices that they use.
  std::vector<std::unique_ptr<CudaDevice>> devices;
  std::vector<std::unique_ptr<NcclRank>> ends;
};

CudaWorld::CudaWorld() : parts(std::make_unique<Parts>()) {}

CudaWorld::~CudaWorld() {
  parts->ends.clear();
  parts->devices.clear();
}

/// Whether any program has a matrix product, or a collective of several ranks.
static void findNeeds(const plan::Plan &plan, const plan::Topology &topology,
                      bool &blas, bool &nccl) {
  blas = nccl = false;
  for (const plan::Program *program : *plan.programs())
    for (const plan::Instruction *instruction : *program->instructions())
      blas |= static_cast<plan::InstructionKind>(instruction->kind()) ==
              plan::InstructionKind::MATMUL;
  for (uint32_t group = 0; group < plan.groups()->size(); ++group)
    nccl |= topology.groupSize(group) > 1;
}

Result<std::unique_ptr<CudaWorld>>
CudaWorld::create(const plan::Reader &reader, const plan::Topology &topology,
                  InProcessWorld &ranks) {
  const plan::Plan &plan = reader.plan();
  std::string target = plan.target()->str();
  Result<const Driver *> driver = openDriver();
  if (!driver)
    return driver.status();
  int found = 0;
  if (Status status = (*driver)->check((*driver)->deviceGetCount(&found),
                                       "cuDeviceGetCount");
      !status)
    return status;
  uint32_t count = topology.rankCount();
  if (static_cast<uint32_t>(found) < count)
    return Status::error(
        "the plan has " + std::to_string(count) +
        (count == 1 ? " rank" : " ranks") + ", but there " +
        (found == 1 ? "is " : "are ") + std::to_string(found) +
        (found == 1 ? " GPU" : " GPUs") +
        "; compile it for fewer ranks, or look at CUDA_VISIBLE_DEVICES");
  bool wantsBlas, wantsNccl;
  findNeeds(plan, topology, wantsBlas, wantsNccl);
  // All that may be missing is looked for before any memory is taken.
  const BlasLibrary *blas = nullptr;
  const NcclLibrary *nccl = nullptr;
  if (wantsBlas) {
    Result<const BlasLibrary *> opened = openBlas();
    if (!opened)
      return opened.status();
    blas = *opened;
  }
  if (wantsNccl) {
    Result<const NcclLibrary *> opened = openNccl();
    if (!opened)
      return opened.status();
    nccl = *opened;
  }

  std::unique_ptr<CudaWorld> world(new CudaWorld);
  Parts &parts = *world->parts;
  for (uint32_t rank = 0; rank < count; ++rank) {
    parts.devices.push_back(std::make_unique<CudaDevice>(**driver, rank));
    CudaDevice &device = *parts.devices.back();
    if (Status status = device.open(plan::gpuArchitecture(target), target);
        !status)
      return status;
    if (Status status = device.loadKernels(reader); !status)
      return status;
    if (blas) {
      Result<std::unique_ptr<Blas>> handle = Blas::create(*blas);
      if (!handle)
        return Status::error(device.name() + ": " + handle.status().message());
      device.setBlas(std::move(*handle));
    }
    parts.ends.push_back(std::make_unique<NcclRank>(device));
    NcclRank &end = *parts.ends.back();
    end.groups.resize(plan.groups()->size());
    for (uint32_t group = 0; group < end.groups.size(); ++group) {
      end.groups[group].size = static_cast<int>(topology.groupSize(group));
      end.groups[group].position =
          static_cast<int>(topology.groupPosition(group, rank));
    }
    if (count > 1)
      device.setWatch([&end, &ranks] {
        Status failure = ranks.isAborted() ? ranks.failure() : end.look();
        if (!failure)
          end.abort();
        return failure;
      });
  }
  if (nccl)
    if (Status status =
            connect(*nccl, topology, plan.groups()->size(), parts.ends);
        !status)
      return status;
  return world;
}

Device CudaWorld::device(uint32_t rank) {
  return parts->devices[rank]->device();
}

Communicator CudaWorld::communicator(uint32_t rank) {
  return parts->ends[rank]->communicator();
}
