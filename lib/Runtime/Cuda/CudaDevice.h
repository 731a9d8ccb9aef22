//===- CudaDevice.h - One rank on a GPU -------------------------*- C++ -*-===//
#ifndef DSHARD_LIB_RUNTIME_CUDA_CUDADEVICE_H
#define DSHARD_LIB_RUNTIME_CUDA_CUDADEVICE_H

#include "Blas.h"
#include "Driver.h"
#include "dshard/Plan/PlanReader.h"
#include "dshard/Runtime/Device.h"

#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace dshard::cuda {

/// A rank's GPU with its context, streams, events and code. Streams and events
/// are made when they are first used.
class CudaDevice {
public:
  CudaDevice(const Driver &driver, uint32_t ordinal)
      : driver(driver), ordinal(ordinal) {}
  ~CudaDevice();
  CudaDevice(const CudaDevice &) = delete;
  CudaDevice &operator=(const CudaDevice &) = delete;

  /// Refuses a GPU older than `architecture` (90 for sm_90).
  Status open(int architecture, const std::string &target);
  /// Hands the plan's code to the driver.
  Status loadKernels(const plan::Reader &reader);
  void setBlas(std::unique_ptr<Blas> library) { blas = std::move(library); }
  /// Asked while the host waits; an error ends the wait.
  void setWatch(std::function<Status()> look) { watch = std::move(look); }

  Device device();
  /// "GPU 0 (NVIDIA H200)"
  std::string name() const;
  /// Makes its context that of the calling thread.
  Status enter() const;
  Result<Stream> stream(uint32_t index);
  /// Waits for one stream, or for all.
  Status wait(Stream stream);
  /// A copy to or from the host, alone: after all that was queued, waited for.
  Status transfer(uint64_t bytes, const char *what,
                  const std::function<int(Stream)> &copy);
  Status waitAll();

  // What the functions of Device.h work with.
  Status allocate(uint64_t bytes, const char *what, void **memory);
  void release(void *memory);
  Status copy(uint32_t stream, const StridedCopy &copy, const void *in,
              plan::DataType inType, void *out, plan::DataType outType);
  Status fill(uint32_t stream, void *out, plan::DataType type, int64_t elements,
              double value);
  Status launch(uint32_t stream, const LaunchArguments &arguments);
  Status recordEvent(uint32_t stream, uint32_t event);
  Status waitEvent(uint32_t stream, uint32_t event);
  Status startTimer(uint32_t stream);
  Status stopTimer(uint32_t stream, int64_t *nanoseconds);
  Status upload(void *to, const void *from, uint64_t bytes);
  Status download(void *to, const void *from, uint64_t bytes);

  const Driver &driver;
  const uint32_t ordinal;
  std::unique_ptr<Blas> blas; ///< null: no matrix products in the plan
  void *workspace = nullptr;
  uint64_t workspaceBytes = 0;

private:
  Result<Event> event(uint32_t index);
  /// Timer i, recorded on the stream.
  Status mark(int i, uint32_t stream);

  std::string model;
  DeviceId id = 0;
  Context context = nullptr;
  std::vector<Stream> streams;
  std::vector<Event> events;
  Event timer[2] = {nullptr, nullptr}; // its start and its end
  std::vector<Module> modules;
  std::vector<Function> functions; // by index of Plan.kernels
  std::vector<std::string> kernelNames;
  std::vector<void *> parameters;
  std::function<Status()> watch;
};

} // namespace dshard::cuda

#endif // DSHARD_LIB_RUNTIME_CUDA_CUDADEVICE_H
