//===- CudaDevice.cpp - One rank on a GPU ---------------------------------===//

#include "CudaDevice.h"

#include "dshard/Runtime/Cpu/Convert.h"
#include "dshard/Support/Text.h"

#include <atomic>
#include <chrono>
#include <cstring>
#include <thread>

using namespace dshard;
using namespace dshard::cuda;
using cpu::elementBytes;

static DevicePointer pointerOf(const void *memory) {
  return reinterpret_cast<uintptr_t>(memory);
}

/// Contexts given back so far: a new one may have an old one's address.
static std::atomic<uint64_t> releasedContexts{0};

CudaDevice::~CudaDevice() {
  if (!context)
    return;
  (void)enter();
  blas.reset();
  events.insert(events.end(), {timer[0], timer[1]});
  for (Event each : events)
    if (each)
      (void)driver.eventDestroy(each);
  for (Stream each : streams)
    if (each)
      (void)driver.streamDestroy(each);
  for (Module each : modules)
    (void)driver.moduleUnload(each);
  (void)driver.primaryContextRelease(id);
  ++releasedContexts;
}

std::string CudaDevice::name() const {
  return "GPU " + std::to_string(ordinal) + " (" + model + ")";
}

Status CudaDevice::enter() const {
  static thread_local Context current = nullptr;
  static thread_local uint64_t released = 0;
  if (current == context && released == releasedContexts)
    return Status();
  released = releasedContexts;
  Status status =
      driver.check(driver.contextSetCurrent(context), "cuCtxSetCurrent");
  current = status ? context : nullptr;
  return status;
}

Status CudaDevice::open(int architecture, const std::string &target) {
  if (Status status = driver.check(
          driver.deviceGet(&id, static_cast<int>(ordinal)), "cuDeviceGet");
      !status)
    return status;
  char text[256] = {};
  (void)driver.deviceGetName(text, sizeof(text) - 1, id);
  model = text;
  int major = 0, minor = 0;
  if (Status status =
          driver.check(driver.deviceGetAttribute(&major, attributeMajor, id),
                       "cuDeviceGetAttribute");
      !status)
    return status;
  if (Status status =
          driver.check(driver.deviceGetAttribute(&minor, attributeMinor, id),
                       "cuDeviceGetAttribute");
      !status)
    return status;
  if (int here = 10 * major + minor; here < architecture)
    return Status::error("the plan is for " + target + ", but " + name() +
                         " is sm_" + std::to_string(here) +
                         "; compile it with --target=cuda:sm_" +
                         std::to_string(here));
  if (Status status = driver.check(driver.primaryContextRetain(&context, id),
                                   "cuDevicePrimaryCtxRetain");
      !status) {
    context = nullptr;
    return Status::error(name() + ": " + status.message());
  }
  return enter();
}

Status CudaDevice::loadKernels(const plan::Reader &reader) {
  const plan::Plan &plan = reader.plan();
  if (Status status = enter(); !status)
    return status;
  for (const plan::Image *image : *plan.images()) {
    const char *text =
        reinterpret_cast<const char *>(reader.section(image->offset()));
    if (image->kind() == plan::ImageKind::ptx &&
        (image->size() == 0 || text[image->size() - 1] != 0))
      return Status::error("the plan's PTX does not end in a zero byte; the "
                           "plan is damaged");
    char log[4096] = {};
    int names[] = {jitErrorLog, jitErrorLogBytes};
    void *values[] = {log, reinterpret_cast<void *>(sizeof(log) - 1)};
    Module module = nullptr;
    int result = driver.moduleLoad(&module, text, 2, names, values);
    if (Status status = driver.check(result, "cuModuleLoadDataEx"); !status) {
      std::string said = log;
      said = said.substr(0, said.find('\n'));
      return Status::error(
          name() + " does not take the plan's code: " + status.message() +
          (said.empty() ? "" : ": ") + said);
    }
    modules.push_back(module);
  }
  for (const plan::Kernel *kernel : *plan.kernels()) {
    std::string entry(reader.string(kernel->name()));
    Function function = nullptr;
    if (Status status = driver.check(
            driver.moduleGetFunction(&function, modules[kernel->image()],
                                     entry.c_str()),
            "cuModuleGetFunction");
        !status)
      return Status::error(name() + ", kernel '" + entry +
                           "': " + status.message());
    if (kernel->shared())
      if (Status status = driver.check(
              driver.functionSetAttribute(function, functionMaxDynamicShared,
                                          static_cast<int>(kernel->shared())),
              "cuFuncSetAttribute");
          !status)
        return Status::error(name() + ", kernel '" + entry + "' wants " +
                             std::to_string(kernel->shared()) +
                             " bytes of shared memory: " + status.message());
    functions.push_back(function);
    kernelNames.push_back(std::move(entry));
  }
  return Status();
}

//===----------------------------------------------------------------------===//
// Streams and events
//===----------------------------------------------------------------------===//

Result<Stream> CudaDevice::stream(uint32_t index) {
  // One thread may serve several ranks in turn.
  if (Status status = enter(); !status)
    return status;
  if (index >= streams.size())
    streams.resize(index + 1, nullptr);
  // Communication first: others wait for it.
  if (!streams[index])
    if (Status status =
            driver.check(driver.streamCreate(&streams[index], streamNonBlocking,
                                             index == 0 ? 0 : -1),
                         "cuStreamCreateWithPriority");
        !status)
      return status;
  return streams[index];
}

Result<Event> CudaDevice::event(uint32_t index) {
  if (index >= events.size())
    events.resize(index + 1, nullptr);
  if (!events[index])
    if (Status status =
            driver.check(driver.eventCreate(&events[index], eventDisableTiming),
                         "cuEventCreate");
        !status)
      return status;
  return events[index];
}

Status CudaDevice::recordEvent(uint32_t streamIndex, uint32_t index) {
  Result<Stream> on = stream(streamIndex);
  Result<Event> which = event(index);
  if (!on || !which)
    return on ? which.status() : on.status();
  return driver.check(driver.eventRecord(*which, *on), "cuEventRecord");
}

Status CudaDevice::waitEvent(uint32_t streamIndex, uint32_t index) {
  Result<Stream> on = stream(streamIndex);
  Result<Event> which = event(index);
  if (!on || !which)
    return on ? which.status() : on.status();
  return driver.check(driver.streamWaitEvent(*on, *which, 0),
                      "cuStreamWaitEvent");
}

Status CudaDevice::mark(int i, uint32_t streamIndex) {
  Result<Stream> on = stream(streamIndex);
  if (!on)
    return on.status();
  if (!timer[i])
    if (Status status = driver.check(driver.eventCreate(&timer[i], eventTiming),
                                     "cuEventCreate");
        !status)
      return status;
  return driver.check(driver.eventRecord(timer[i], *on), "cuEventRecord");
}

Status CudaDevice::startTimer(uint32_t streamIndex) {
  return mark(0, streamIndex);
}

Status CudaDevice::stopTimer(uint32_t streamIndex, int64_t *nanoseconds) {
  if (Status status = mark(1, streamIndex); !status)
    return status;
  if (Status status = waitAll(); !status)
    return status;
  float milliseconds = 0;
  Status status =
      driver.check(driver.eventElapsed(&milliseconds, timer[0], timer[1]),
                   "cuEventElapsedTime");
  *nanoseconds = static_cast<int64_t>(1e6 * milliseconds);
  return status;
}

Status CudaDevice::wait(Stream each) {
  if (watch && driver.streamQuery)
    for (int turn = 0;; ++turn) {
      int result = driver.streamQuery(each);
      if (result != errorNotReady) {
        if (result)
          return Status::error(name() + ": " +
                               driver.error(result, "cuStreamQuery").message());
        break;
      }
      if (Status status = watch(); !status)
        return status;
      // Steps of a model take milliseconds.
      if (turn > 100)
        std::this_thread::sleep_for(std::chrono::microseconds(20));
      else
        std::this_thread::yield();
    }
  Status status =
      driver.check(driver.streamSynchronize(each), "cuStreamSynchronize");
  return status ? status : Status::error(name() + ": " + status.message());
}

Status CudaDevice::waitAll() {
  if (Status status = enter(); !status)
    return status;
  for (Stream each : streams)
    if (each)
      if (Status status = wait(each); !status)
        return status;
  return Status();
}

//===----------------------------------------------------------------------===//
// Memory
//===----------------------------------------------------------------------===//

Status CudaDevice::allocate(uint64_t bytes, const char *what, void **memory) {
  *memory = nullptr;
  if (Status status = enter(); !status)
    return status;
  if (bytes == 0)
    return Status();
  DevicePointer address = 0;
  int result = driver.memoryAllocate(&address, bytes);
  if (result == errorOutOfMemory) {
    size_t free = 0, total = 0;
    (void)driver.memoryGetInfo(&free, &total);
    return Status::error(
        name() + " has no memory for the " + what + ": " + formatBytes(bytes) +
        " wanted, " + formatBytes(free) + " of " + formatBytes(total) +
        " free, " + formatBytes(bytes > free ? bytes - free : 0) +
        " missing; shard over more ranks, or use fewer or shorter sequences");
  }
  if (Status status = driver.check(result, "cuMemAlloc"); !status)
    return Status::error(name() + ", " + what + ": " + status.message());
  *memory = reinterpret_cast<void *>(static_cast<uintptr_t>(address));
  Status status =
      fill(0, *memory, plan::DataType::u8, static_cast<int64_t>(bytes), 0);
  if (!status)
    return Status::error(name() + ", " + what + ": " + status.message());
  return waitAll();
}

void CudaDevice::release(void *memory) {
  if (memory && enter())
    (void)driver.memoryFree(pointerOf(memory));
}

Status CudaDevice::transfer(uint64_t bytes, const char *what,
                            const std::function<int(Stream)> &copy) {
  if (bytes == 0)
    return Status();
  if (Status status = enter(); !status)
    return status;
  if (Status status = waitAll(); !status)
    return status;
  Result<Stream> on = stream(0);
  if (!on)
    return on.status();
  if (Status status = driver.check(copy(*on), what); !status)
    return Status::error(name() + ": " + status.message());
  return wait(*on);
}

Status CudaDevice::upload(void *to, const void *from, uint64_t bytes) {
  return transfer(bytes, "cuMemcpyHtoD", [&](Stream on) {
    return driver.copyToDevice(pointerOf(to), from, bytes, on);
  });
}

Status CudaDevice::download(void *to, const void *from, uint64_t bytes) {
  return transfer(bytes, "cuMemcpyDtoH", [&](Stream on) {
    return driver.copyToHost(to, pointerOf(from), bytes, on);
  });
}

Status CudaDevice::fill(uint32_t streamIndex, void *out, plan::DataType type,
                        int64_t elements, double value) {
  Result<Stream> on = stream(streamIndex);
  if (!on)
    return on.status();
  if (elements == 0)
    return Status();
  char element[8] = {};
  cpu::storeDouble(element, type, 0, value);
  uint64_t size = elementBytes(type), count = elements, bytes = size * count;
  bool sameBytes = true;
  for (uint64_t i = 1; i < size; ++i)
    sameBytes &= element[i] == element[0];
  if (sameBytes)
    return driver.check(driver.fillBytes(pointerOf(out),
                                         static_cast<unsigned char>(element[0]),
                                         bytes, *on),
                        "cuMemsetD8");
  // Of 16 bits two at a time, where a word begins.
  if (size == 4 || (size == 2 && count % 2 == 0 && pointerOf(out) % 4 == 0)) {
    uint32_t word = 0;
    for (uint64_t i = 0; i < 4; i += size)
      std::memcpy(reinterpret_cast<char *>(&word) + i, element, size);
    return driver.check(driver.fillWords(pointerOf(out), word, bytes / 4, *on),
                        "cuMemsetD32");
  }
  // Indices and counters: a few bytes, which the host keeps until they are
  // copied.
  std::vector<char> all(bytes);
  for (uint64_t i = 0; i < count; ++i)
    std::memcpy(&all[i * size], element, size);
  if (Status status = driver.check(
          driver.copyToDevice(pointerOf(out), all.data(), bytes, *on),
          "cuMemcpyHtoD");
      !status)
    return status;
  return wait(*on);
}

Status CudaDevice::copy(uint32_t streamIndex, const StridedCopy &copy,
                        const void *in, plan::DataType inType, void *out,
                        plan::DataType outType) {
  if (inType != outType)
    return Status::error(std::string("a copy from ") + plan::toString(inType) +
                         " to " + plan::toString(outType) +
                         " is not a copy on a GPU; it needs a kernel");
  Result<Stream> on = stream(streamIndex);
  if (!on)
    return on.status();
  int64_t size = elementBytes(inType);
  // The inner dims that are one piece on both sides.
  int outer = copy.dims;
  int64_t run = 1;
  for (; outer > 0; --outer) {
    int d = outer - 1;
    if (copy.sizes[d] != 1 &&
        (copy.inStrides[d] != run || copy.outStrides[d] != run))
      break;
    run *= copy.sizes[d];
  }
  for (int d = 0; d < outer; ++d)
    if (copy.sizes[d] == 0)
      return Status();
  if (run == 0)
    return Status();
  // Rows that are evenly apart go at once.
  int64_t rows = 1, inPitch = 0, outPitch = 0;
  if (outer > 0 && driver.copyRows && copy.inStrides[outer - 1] >= run &&
      copy.outStrides[outer - 1] >= run) {
    --outer;
    rows = copy.sizes[outer];
    inPitch = copy.inStrides[outer];
    outPitch = copy.outStrides[outer];
  }
  int64_t index[maxDims] = {};
  for (;;) {
    int64_t from = 0, to = 0;
    for (int d = 0; d < outer; ++d) {
      from += index[d] * copy.inStrides[d];
      to += index[d] * copy.outStrides[d];
    }
    int result;
    if (rows == 1) {
      result =
          driver.copyOnDevice(pointerOf(out) + to * size,
                              pointerOf(in) + from * size, run * size, *on);
    } else {
      CopyRows all;
      all.from = pointerOf(in) + from * size;
      all.fromPitch = inPitch * size;
      all.to = pointerOf(out) + to * size;
      all.toPitch = outPitch * size;
      all.width = run * size;
      all.height = rows;
      result = driver.copyRows(&all, *on);
    }
    if (result)
      return driver.error(result, "cuMemcpyDtoD");
    int d = outer - 1;
    while (d >= 0 && ++index[d] == copy.sizes[d])
      index[d--] = 0;
    if (d < 0)
      return Status();
  }
}

Status CudaDevice::launch(uint32_t streamIndex,
                          const LaunchArguments &arguments) {
  Result<Stream> on = stream(streamIndex);
  if (!on)
    return on.status();
  // The driver wants the address of each parameter, here of each address.
  parameters.resize(arguments.bufferCount);
  for (uint32_t i = 0; i < arguments.bufferCount; ++i)
    parameters[i] = const_cast<void **>(&arguments.buffers[i]);
  if (driver.declareBuffers) {
    std::vector<uint64_t> addresses;
    std::vector<uint8_t> writable;
    for (uint32_t i = 0; i < arguments.bufferCount; ++i) {
      addresses.push_back(pointerOf(arguments.buffers[i]));
      writable.push_back(i >= arguments.inputCount);
    }
    driver.declareBuffers(addresses.data(), arguments.bytes, writable.data(),
                          arguments.bufferCount);
  }
  Status status = driver.check(
      driver.launchKernel(functions[arguments.index], arguments.grid, 1, 1,
                          arguments.block, 1, 1, arguments.shared, *on,
                          parameters.data(), nullptr),
      "cuLaunchKernel");
  return status ? status
                : Status::error(name() + ", kernel '" +
                                kernelNames[arguments.index] +
                                "': " + status.message());
}

//===----------------------------------------------------------------------===//
// The functions of Device.h
//===----------------------------------------------------------------------===//

static CudaDevice &self(void *state) {
  return *static_cast<CudaDevice *>(state);
}

static Status refuseAttention() {
  return Status::error("attention is a generated kernel on GPUs; the plan was "
                       "compiled for another target");
}

static const DeviceFunctions cudaFunctions = {
    "cuda",
    [](void *state, uint64_t bytes, const char *what, void **memory) {
      return self(state).allocate(bytes, what, memory);
    },
    [](void *state, void *memory) { self(state).release(memory); },
    /*workers=*/[](void *) { return 1u; },
    [](void *state, void *scratch, uint64_t bytes) {
      self(state).workspace = scratch;
      self(state).workspaceBytes = bytes;
    },
    [](void *state, const MatmulArguments &arguments, uint64_t scratch) {
      return self(state).blas->prepare(arguments, scratch);
    },
    [](void *, const AttentionArguments &, uint64_t) {
      return refuseAttention();
    },
    [](void *, const AttentionGradArguments &, uint64_t) {
      return refuseAttention();
    },
    [](void *state, uint32_t stream, const MatmulArguments &arguments) {
      CudaDevice &device = self(state);
      Result<Stream> on = device.stream(stream);
      if (!on)
        return on.status();
      return device.blas->matmul(arguments, *on, device.workspace,
                                 device.workspaceBytes);
    },
    [](void *, uint32_t, const AttentionArguments &) {
      return refuseAttention();
    },
    [](void *, uint32_t, const AttentionGradArguments &) {
      return refuseAttention();
    },
    /*packRhs=*/nullptr,
    [](void *state, uint32_t stream, const StridedCopy &copy, const void *in,
       plan::DataType inType, void *out, plan::DataType outType) {
      return self(state).copy(stream, copy, in, inType, out, outType);
    },
    [](void *state, uint32_t stream, void *out, plan::DataType type,
       int64_t elements, double value) {
      return self(state).fill(stream, out, type, elements, value);
    },
    [](void *state, uint32_t stream, const LaunchArguments &arguments) {
      return self(state).launch(stream, arguments);
    },
    [](void *state, uint32_t stream, uint32_t event) {
      return self(state).recordEvent(stream, event);
    },
    [](void *state, uint32_t stream, uint32_t event) {
      return self(state).waitEvent(stream, event);
    },
    [](void *state) { return self(state).waitAll(); },
    [](void *state, void *to, const void *from, uint64_t bytes) {
      return self(state).upload(to, from, bytes);
    },
    [](void *state, void *to, const void *from, uint64_t bytes) {
      return self(state).download(to, from, bytes);
    },
    [](void *state, uint32_t stream) { return self(state).startTimer(stream); },
    [](void *state, uint32_t stream, int64_t *nanoseconds) {
      return self(state).stopTimer(stream, nanoseconds);
    }};

Device CudaDevice::device() { return {&cudaFunctions, this}; }
