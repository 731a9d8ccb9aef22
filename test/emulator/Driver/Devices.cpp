//===- Devices.cpp - cuInit, devices, contexts, memory, errors ------------===//
#include "Driver/Calls.h"

#include <algorithm>
#include <cstdio>
#include <cstring>

using namespace dshard::emulator;

EMULATED int cuInit(unsigned flags) {
  Call call;
  if (call.injected)
    return cuUnknown;
  if (flags)
    return cuInvalidValue;
  return call.engine.devices.empty() ? cuNoDevice : cuSuccess;
}
EMULATED int cuDriverGetVersion(int *version) {
  Call call;
  if (call.injected)
    return cuUnknown;
  *version = call.engine.driverVersion;
  return cuSuccess;
}
EMULATED int cuDeviceGetCount(int *count) {
  Call call;
  if (call.injected)
    return cuUnknown;
  *count = static_cast<int>(call.engine.devices.size());
  return cuSuccess;
}
EMULATED int cuDeviceGet(int *device, int ordinal) {
  Call call;
  if (call.injected)
    return cuUnknown;
  if (ordinal < 0 || ordinal >= static_cast<int>(call.engine.devices.size()))
    return cuInvalidDevice;
  *device = ordinal;
  return cuSuccess;
}
EMULATED int cuDeviceGetName(char *name, int length, int device) {
  std::snprintf(name, static_cast<size_t>(length), "emulated GPU %d", device);
  return cuSuccess;
}
EMULATED int cuDeviceGetUuid_v2(unsigned char *uuid, int device) {
  std::memset(uuid, 0, 16);
  uuid[15] = static_cast<unsigned char>(device);
  return cuSuccess;
}

/// CU_DEVICE_ATTRIBUTE_*: the numbers of an H100, where they matter.
EMULATED int cuDeviceGetAttribute(int *value, int attribute, int device) {
  Call call;
  if (call.injected)
    return cuUnknown;
  if (device < 0 || device >= static_cast<int>(call.engine.devices.size()))
    return cuInvalidDevice;
  switch (attribute) {
  case 1:
    *value = 1024;
    break; // threads per block
  case 2:
  case 3:
    *value = 1024;
    break; // block x, y
  case 4:
    *value = 64;
    break; // block z
  case 5:
    *value = 0x7fffffff;
    break; // grid x
  case 6:
  case 7:
    *value = 65535;
    break; // grid y, z
  case 8:
    *value = 48 * 1024;
    break; // shared memory per block
  case 9:
    *value = 64 * 1024;
    break; // constant memory
  case 10:
    *value = 32;
    break; // warp
  case 12:
    *value = 65536;
    break; // registers per block
  case 13:
    *value = 1980000;
    break; // clock, kHz
  case 16:
    *value = 132;
    break; // multiprocessors
  case 31:
    *value = 1;
    break; // concurrent kernels
  case 36:
    *value = 2619000;
    break; // memory clock, kHz
  case 37:
    *value = 5120;
    break; // memory bus, bits
  case 38:
    *value = 50 << 20;
    break; // L2
  case 39:
    *value = 2048;
    break; // threads per multiprocessor
  case 41:
    *value = 1;
    break; // unified addressing
  case 75:
    *value = call.engine.architecture / 10;
    break;
  case 76:
    *value = call.engine.architecture % 10;
    break;
  case 81:
    *value = 233472;
    break; // shared per multiprocessor
  case 97:
    *value = 227 * 1024;
    break; // shared per block, opt-in
  default:
    *value = 0;
    break;
  }
  return cuSuccess;
}
EMULATED int cuDeviceTotalMem_v2(size_t *bytes, int device) {
  Call call;
  if (device < 0 || device >= static_cast<int>(call.engine.devices.size()))
    return cuInvalidDevice;
  *bytes = call.engine.memoryBytes;
  return cuSuccess;
}
EMULATED int cuDeviceCanAccessPeer(int *can, int, int) {
  *can = 0;
  return cuSuccess;
}

EMULATED int cuDevicePrimaryCtxRetain(void **context, int index) {
  Call call;
  if (call.injected)
    return cuUnknown;
  if (index < 0 || index >= static_cast<int>(call.engine.devices.size()))
    return cuInvalidDevice;
  Device &device = *call.engine.devices[static_cast<size_t>(index)];
  if (!device.memory) {
    device.memory = std::make_unique<DeviceMemory>(call.engine.memoryBytes);
    if (!device.memory->valid()) {
      device.memory.reset();
      return cuOutOfMemory;
    }
    call.engine.createStream(device, true);
  }
  ++device.retained;
  *context = &device;
  return cuSuccess;
}
EMULATED int cuDevicePrimaryCtxRelease_v2(int index) {
  Call call;
  if (index < 0 || index >= static_cast<int>(call.engine.devices.size()))
    return cuInvalidDevice;
  Device &device = *call.engine.devices[static_cast<size_t>(index)];
  if (!device.retained)
    return cuInvalidContext;
  if (--device.retained == 0 && !call.engine.failed()) {
    call.engine.drain(call.lock, &device);
    // Memory stays until the process ends or the tests reset: a handle that is
    // used after the release is then still an error, not a crash.
  }
  return call.engine.failed() ? cuLaunchFailed : cuSuccess;
}
EMULATED int cuCtxSetCurrent(void *context) {
  MAY_FAIL(cuUnknown)
  currentDevice() = static_cast<Device *>(context);
  return cuSuccess;
}
EMULATED int cuCtxGetCurrent(void **context) {
  *context = currentDevice();
  return cuSuccess;
}
EMULATED int cuCtxGetDevice(int *device) {
  if (!currentDevice())
    return cuInvalidContext;
  *device = currentDevice()->index;
  return cuSuccess;
}
EMULATED int cuCtxSynchronize() {
  Call call;
  NEED_CONTEXT(call)
  Device *device = call.device();
  if (!call.engine.drain(call.lock, device))
    return cuLaunchFailed;
  for (auto &stream : device->streams)
    call.engine.hostHas(*device, stream->clock);
  return cuSuccess;
}

EMULATED int cuMemGetInfo_v2(size_t *available, size_t *total) {
  Call call;
  NEED_CONTEXT(call)
  *total = call.device()->memory->totalBytes();
  *available = *total - call.device()->memory->usedBytes();
  return cuSuccess;
}
EMULATED int cuMemAlloc_v2(uint64_t *address, size_t bytes) {
  Call call;
  NEED_CONTEXT(call)
  if (!bytes)
    return cuInvalidValue;
  if (call.engine.shortens.hits("cuMemAlloc_v2"))
    bytes -= std::min(Engine::shortBy, bytes - 1);
  *address = call.device()->memory->allocate(bytes);
  return *address ? cuSuccess : cuOutOfMemory;
}
EMULATED int cuMemFree_v2(uint64_t address) {
  Call call;
  if (address == 0)
    return cuSuccess;
  if (!call.device() || !call.device()->memory)
    return cuInvalidContext;
  // Freeing waits for the device's work, as cuMemFree does.
  if (!call.engine.failed() && call.engine.drain(call.lock, call.device()))
    for (auto &stream : call.device()->streams)
      call.engine.hostHas(*call.device(), stream->clock);
  Range range = call.device()->memory->allocationOf(address);
  if (!call.device()->memory->release(address))
    return cuInvalidValue;
  call.engine.history.forget(range.begin, range.end);
  return call.engine.failed() ? cuLaunchFailed : cuSuccess;
}
EMULATED int cuMemAllocHost_v2(void **pointer, size_t bytes) {
  Call call;
  NEED_CONTEXT(call)
  if (!bytes)
    return cuInvalidValue;
  HostAllocation allocation{std::make_unique<uint8_t[]>(bytes + 64), bytes};
  uint64_t address =
      (reinterpret_cast<uint64_t>(allocation.bytes.get()) + 63) & ~63ull;
  *pointer = reinterpret_cast<void *>(address);
  call.engine.hostMemory.emplace(address, std::move(allocation));
  return cuSuccess;
}
EMULATED int cuMemHostAlloc(void **pointer, size_t bytes, unsigned) {
  return cuMemAllocHost_v2(pointer, bytes);
}
EMULATED int cuMemFreeHost(void *pointer) {
  Call call;
  auto found = call.engine.hostMemory.find(reinterpret_cast<uint64_t>(pointer));
  if (found == call.engine.hostMemory.end())
    return cuInvalidValue;
  if (!call.engine.failed())
    call.engine.drain(call.lock, call.device());
  found = call.engine.hostMemory.find(reinterpret_cast<uint64_t>(pointer));
  if (found != call.engine.hostMemory.end()) {
    call.engine.history.forget(found->first, found->first + found->second.size);
    call.engine.hostMemory.erase(found);
  }
  return call.engine.failed() ? cuLaunchFailed : cuSuccess;
}

static const char *nameOf(int result) {
  switch (result) {
  case cuSuccess:
    return "CUDA_SUCCESS";
  case cuInvalidValue:
    return "CUDA_ERROR_INVALID_VALUE";
  case cuOutOfMemory:
    return "CUDA_ERROR_OUT_OF_MEMORY";
  case cuNotInitialized:
    return "CUDA_ERROR_NOT_INITIALIZED";
  case cuNoDevice:
    return "CUDA_ERROR_NO_DEVICE";
  case cuInvalidDevice:
    return "CUDA_ERROR_INVALID_DEVICE";
  case cuInvalidContext:
    return "CUDA_ERROR_INVALID_CONTEXT";
  case cuNoBinaryForGpu:
    return "CUDA_ERROR_NO_BINARY_FOR_GPU";
  case cuInvalidPtx:
    return "CUDA_ERROR_INVALID_PTX";
  case cuInvalidHandle:
    return "CUDA_ERROR_INVALID_HANDLE";
  case cuNotFound:
    return "CUDA_ERROR_NOT_FOUND";
  case cuNotReady:
    return "CUDA_ERROR_NOT_READY";
  case cuLaunchFailed:
    return "CUDA_ERROR_LAUNCH_FAILED";
  case cuNotSupported:
    return "CUDA_ERROR_NOT_SUPPORTED";
  default:
    return nullptr;
  }
}
EMULATED int cuGetErrorName(int result, const char **text) {
  *text = nameOf(result);
  return *text ? cuSuccess : cuInvalidValue;
}
/// The fault's own text for CUDA_ERROR_LAUNCH_FAILED.
EMULATED int cuGetErrorString(int result, const char **text) {
  Call call;
  switch (result) {
  case cuSuccess:
    *text = "no error";
    break;
  case cuInvalidValue:
    *text = "invalid argument";
    break;
  case cuOutOfMemory:
    *text = "out of memory";
    break;
  case cuNotInitialized:
    *text = "initialization error";
    break;
  case cuNoDevice:
    *text = "no CUDA-capable device is detected";
    break;
  case cuInvalidDevice:
    *text = "invalid device ordinal";
    break;
  case cuInvalidContext:
    *text = "invalid device context";
    break;
  case cuNoBinaryForGpu:
    *text = "no kernel image is available for execution on the device";
    break;
  case cuInvalidPtx:
    *text = "a PTX JIT compilation failed";
    break;
  case cuInvalidHandle:
    *text = "invalid resource handle";
    break;
  case cuNotFound:
    *text = "named symbol not found";
    break;
  case cuNotReady:
    *text = "device not ready";
    break;
  case cuNotSupported:
    *text = "operation not supported";
    break;
  case cuLaunchFailed:
    *text = call.engine.failed() ? call.engine.keep(call.engine.fault())
                                 : "unspecified launch failure";
    break;
  default:
    *text = nullptr;
    return cuInvalidValue;
  }
  return cuSuccess;
}

/// Tells what the next operation queued by this thread may touch: `count`
/// buffers by address, bytes, and 1 where it may also store. Not part of CUDA;
/// the runtime calls it if the library has it.
EMULATED void dshardEmulatorDeclareBuffers(const uint64_t *addresses,
                                           const uint64_t *bytes,
                                           const uint8_t *writable,
                                           unsigned count) {
  std::vector<Range> &ranges = declaredBuffers();
  ranges.clear();
  for (unsigned i = 0; i < count; ++i)
    ranges.push_back({addresses[i], addresses[i] + bytes[i], writable[i] != 0});
}
/// All reports of the first fault, a line each, or null. Not part of CUDA.
EMULATED const char *dshardEmulatorFault() {
  Call call;
  return call.engine.failed() ? call.engine.keep(call.engine.reports) : nullptr;
}
/// Everything anew, with the environment read again: for tests. No thread may
/// be inside a call.
EMULATED void dshardEmulatorReset() {
  Call call;
  call.engine.reset();
}
