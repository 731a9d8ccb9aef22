//===- CpuDevice.cpp - One rank on the CPU --------------------------------===//

#include "dshard/Runtime/Cpu/CpuDevice.h"

#include "dshard/Runtime/Cpu/Attention.h"
#include "dshard/Runtime/Cpu/AttentionGrad.h"
#include "dshard/Runtime/Cpu/Convert.h"
#include "dshard/Runtime/Cpu/Gemm.h"
#include "dshard/Runtime/Cpu/GroupedGemm.h"

#include <algorithm>

using namespace dshard;
using namespace dshard::cpu;

static CpuDevice &self(void *state) { return *static_cast<CpuDevice *>(state); }

static Status allocate(void *state, uint64_t bytes, const char *what,
                       void **memory) {
  *memory = nullptr;
  Result<AlignedBuffer> buffer = AlignedBuffer::allocate(bytes, what);
  if (!buffer)
    return buffer.status();
  buffer->touch();
  *memory = buffer->data();
  if (*memory)
    self(state).memory.push_back(std::move(*buffer));
  return Status();
}

static void release(void *state, void *memory) {
  std::vector<AlignedBuffer> &all = self(state).memory;
  all.erase(std::remove_if(all.begin(), all.end(),
                           [&](const AlignedBuffer &buffer) {
                             return buffer.data() == memory;
                           }),
            all.end());
}

static unsigned workers(void *state) { return self(state).threads().size(); }

static void setScratch(void *state, void *scratch, uint64_t bytesPerWorker) {
  self(state).scratch = scratch;
  self(state).scratchBytes = bytesPerWorker;
}

static Status checkScratch(uint64_t needed, uint64_t planned) {
  if (needed <= planned)
    return Status();
  return Status::error("needs " + std::to_string(needed) +
                       " bytes of scratch per thread, the plan has " +
                       std::to_string(planned) +
                       "; it was compiled for another version of the runtime");
}

static Status checkMatmul(void *, const MatmulArguments &arguments,
                          uint64_t scratch) {
  if (Status status = checkGemm(arguments); !status)
    return status;
  return checkScratch(gemmScratchBytes(), scratch);
}

static Status checkAttentionHere(void *, const AttentionArguments &arguments,
                                 uint64_t scratch) {
  if (Status status = checkAttention(arguments); !status)
    return status;
  return checkScratch(attentionScratchBytes(arguments.d, arguments.dv),
                      scratch);
}

static Status checkAttentionGradHere(void *,
                                     const AttentionGradArguments &arguments,
                                     uint64_t scratch) {
  if (Status status = checkAttentionGrad(arguments); !status)
    return status;
  return checkScratch(
      attentionGradScratchBytes(arguments.forward.d, arguments.forward.dv),
      scratch);
}

static Status matmul(void *state, uint32_t, const MatmulArguments &arguments) {
  CpuDevice &device = self(state);
  gemm(arguments, device.threads(), device.scratch, device.scratchBytes);
  return Status();
}

static Status checkGroupedHere(void *, const GroupedArguments &arguments,
                               uint64_t scratch) {
  if (Status status = checkGrouped(arguments); !status)
    return status;
  return checkScratch(gemmScratchBytes(), scratch);
}

static Status grouped(void *state, uint32_t,
                      const GroupedArguments &arguments) {
  CpuDevice &device = self(state);
  groupedGemm(arguments, device.threads(), device.scratch, device.scratchBytes);
  return Status();
}

static Status attend(void *state, uint32_t,
                     const AttentionArguments &arguments) {
  CpuDevice &device = self(state);
  attention(arguments, device.threads(), device.scratch, device.scratchBytes);
  return Status();
}

static Status attendGrad(void *state, uint32_t,
                         const AttentionGradArguments &arguments) {
  CpuDevice &device = self(state);
  attentionGrad(arguments, device.threads(), device.scratch,
                device.scratchBytes);
  return Status();
}

static Status pack(void *state, uint32_t, const PackArguments &p) {
  packRhs(p.in, p.inType, p.n, p.k, p.n, p.column, p.out, p.outType,
          self(state).threads());
  return Status();
}

static Status copy(void *state, uint32_t, const StridedCopy &whole,
                   const void *in, plan::DataType inType, void *out,
                   plan::DataType outType) {
  // Split along the largest dim when there is enough to copy.
  int64_t elements = 1;
  int dim = 0;
  for (int i = 0; i < whole.dims; ++i) {
    elements *= whole.sizes[i];
    if (whole.sizes[i] > whole.sizes[dim])
      dim = i;
  }
  ThreadPool &pool = self(state).threads();
  if (pool.size() == 1 || elements < (1 << 15)) {
    copyStrided(whole, in, inType, out, outType);
    return Status();
  }
  pool.parallelFor(
      whole.sizes[dim], 16, [&](int64_t begin, int64_t end, unsigned) {
        StridedCopy part = whole;
        part.sizes[dim] = end - begin;
        copyStrided(part,
                    static_cast<const char *>(in) +
                        begin * part.inStrides[dim] * elementBytes(inType),
                    inType,
                    static_cast<char *>(out) +
                        begin * part.outStrides[dim] * elementBytes(outType),
                    outType);
      });
  return Status();
}

static Status fill(void *state, uint32_t stream, void *out, plan::DataType type,
                   int64_t elements, double value) {
  StridedCopy whole;
  whole.dims = 1;
  whole.sizes[0] = elements;
  whole.inStrides[0] = 0;
  whole.outStrides[0] = 1;
  return copy(state, stream, whole, &value, plan::DataType::f64, out, type);
}

static Status launch(void *state, uint32_t, const LaunchArguments &arguments) {
  self(state).threads().parallelDynamic(
      arguments.extent, arguments.grain,
      [&](int64_t begin, int64_t end, unsigned) {
        arguments.kernel(arguments.buffers, begin, end);
      });
  return Status();
}

static const DeviceFunctions cpuFunctions = {"cpu",
                                             allocate,
                                             release,
                                             workers,
                                             setScratch,
                                             checkMatmul,
                                             checkAttentionHere,
                                             checkAttentionGradHere,
                                             matmul,
                                             attend,
                                             attendGrad,
                                             pack,
                                             copy,
                                             fill,
                                             launch,
                                             /*recordEvent=*/nullptr,
                                             /*waitEvent=*/nullptr,
                                             /*synchronize=*/nullptr,
                                             /*upload=*/nullptr,
                                             /*download=*/nullptr,
                                             /*startTimer=*/nullptr,
                                             /*stopTimer=*/nullptr,
                                             checkGroupedHere,
                                             grouped};

Device CpuDevice::device() { return {&cpuFunctions, this}; }
