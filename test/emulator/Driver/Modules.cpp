//===- Modules.cpp - Modules, functions, launches -------------------------===//
#include "Driver/Calls.h"
#include "Execution/Launch.h"
#include "Ptx/Parser.h"

#include <algorithm>
#include <cstdio>
#include <cstring>

using namespace dshard::emulator;

/// The text without the barriers that DSHARD_EMULATOR_DROP=bar.sync[:N] takes
/// out; lines stay where they are.
static std::string withoutBarriers(Engine &engine, std::string text) {
  for (size_t at = text.find("bar"); at != std::string::npos;
       at = text.find("bar", at + 1)) {
    bool barrier = !text.compare(at, 8, "bar.sync") ||
                   !text.compare(at, 12, "barrier.sync") ||
                   !text.compare(at, 16, "barrier.cta.sync");
    size_t end = text.find(';', at);
    if (!text.compare(at, 13, "bar.warp.sync") &&
        engine.drops.hits("bar.warp.sync"))
      text.replace(at, end - at, end - at, ' ');
    if (barrier && end != std::string::npos && engine.drops.hits("bar.sync"))
      text.replace(at, end - at, end - at, ' ');
  }
  return text;
}

EMULATED int cuModuleLoadDataEx(void **handle, const void *image,
                                unsigned options, int *names, void **values) {
  Call call;
  NEED_CONTEXT(call)
  char *log = nullptr;
  size_t logBytes = 0;
  for (unsigned i = 0; i < options; ++i) {
    if (names[i] == jitErrorLogBuffer)
      log = static_cast<char *>(values[i]);
    if (names[i] == jitErrorLogBufferBytes)
      logBytes = reinterpret_cast<size_t>(values[i]);
  }
  auto refuse = [&](int result, const std::string &why) {
    if (log && logBytes)
      std::snprintf(log, logBytes, "%s", why.c_str());
    std::fprintf(stderr, "dshard: error: emulator: %s\n", why.c_str());
    return result;
  };
  const char *text = static_cast<const char *>(image);
  if (!std::memcmp(text, "\177ELF", 4) ||
      !std::memcmp(text, "\x50\xed\x55\xba", 4))
    return refuse(cuNoBinaryForGpu, "the emulator runs PTX, not machine code");
  Device &device = *call.device();
  auto loaded = std::make_unique<LoadedModule>();
  loaded->device = &device;
  std::string error;
  loaded->module = parseModule(
      withoutBarriers(call.engine, text),
      [&](const Variable &variable) {
        uint64_t at =
            device.memory->allocate(std::max<uint64_t>(variable.size, 1));
        if (at) {
          loaded->variables.push_back(at);
          std::memcpy(reinterpret_cast<void *>(at), variable.data.data(),
                      variable.data.size());
        }
        return at;
      },
      error);
  if (!loaded->module)
    return refuse(cuInvalidPtx, error);
  if (loaded->module->target > static_cast<unsigned>(call.engine.architecture))
    return refuse(
        cuNoBinaryForGpu,
        "the PTX is for sm_" + std::to_string(loaded->module->target) +
            ", the device is sm_" + std::to_string(call.engine.architecture));
  *handle = loaded.get();
  device.modules.push_back(std::move(loaded));
  return cuSuccess;
}
EMULATED int cuModuleLoadData(void **handle, const void *image) {
  return cuModuleLoadDataEx(handle, image, 0, nullptr, nullptr);
}

EMULATED int cuModuleUnload(void *handle) {
  Call call;
  if (!call.device())
    return cuInvalidContext;
  if (!call.engine.failed())
    call.engine.drain(call.lock, call.device());
  auto &modules = call.device()->modules;
  for (size_t i = 0; i < modules.size(); ++i) {
    if (modules[i].get() != handle)
      continue;
    for (uint64_t address : modules[i]->variables)
      call.device()->memory->release(address);
    for (auto at = call.engine.functions.begin();
         at != call.engine.functions.end();) {
      if ((*at)->owner != modules[i].get()) {
        ++at;
        continue;
      }
      delete *at;
      at = call.engine.functions.erase(at);
    }
    modules.erase(modules.begin() + static_cast<long>(i));
    return call.engine.failed() ? cuLaunchFailed : cuSuccess;
  }
  return cuInvalidHandle;
}

EMULATED int cuModuleGetFunction(void **handle, void *moduleHandle,
                                 const char *name) {
  Call call;
  NEED_CONTEXT(call)
  LoadedModule *loaded = static_cast<LoadedModule *>(moduleHandle);
  auto found = loaded->module->kernels.find(name);
  if (found == loaded->module->kernels.end())
    return cuNotFound;
  Function *function = new Function;
  function->owner = loaded;
  function->kernel = found->second.get();
  call.engine.functions.insert(function);
  *handle = function;
  return cuSuccess;
}
EMULATED int cuModuleGetGlobal_v2(uint64_t *address, size_t *bytes,
                                  void *moduleHandle, const char *name) {
  Call call;
  NEED_CONTEXT(call)
  LoadedModule *loaded = static_cast<LoadedModule *>(moduleHandle);
  auto found = loaded->module->variables.find(name);
  if (found == loaded->module->variables.end())
    return cuNotFound;
  if (address)
    *address = found->second.offset;
  if (bytes)
    *bytes = found->second.size;
  return cuSuccess;
}

EMULATED int cuFuncSetAttribute(void *handle, int attribute, int value) {
  Call call;
  NEED_CONTEXT(call)
  Function *function = static_cast<Function *>(handle);
  if (!call.engine.functions.count(function))
    return cuInvalidHandle;
  if (attribute != attributeMaxDynamicShared)
    return cuSuccess;
  if (value < 0 ||
      static_cast<uint32_t>(value) + function->kernel->sharedDeclared >
          227 * 1024)
    return cuInvalidValue;
  function->maxDynamicShared = static_cast<uint32_t>(value);
  return cuSuccess;
}
EMULATED int cuFuncGetAttribute(int *value, int attribute, void *handle) {
  Call call;
  NEED_CONTEXT(call)
  Function *function = static_cast<Function *>(handle);
  if (!call.engine.functions.count(function))
    return cuInvalidHandle;
  const Kernel &kernel = *function->kernel;
  switch (attribute) {
  case 0:
    *value = kernel.maxThreads[0]
                 ? static_cast<int>(kernel.maxThreads[0] *
                                    kernel.maxThreads[1] * kernel.maxThreads[2])
                 : 1024;
    break;
  case 1:
    *value = static_cast<int>(kernel.sharedDeclared);
    break;
  case 2:
    *value = 0;
    break;
  case 3:
    *value = static_cast<int>(kernel.localBytes);
    break;
  case 4:
    *value = 32;
    break; // registers: no ptxas here
  case 5:
  case 6:
    *value = static_cast<int>(function->owner->module->target);
    break;
  case 8:
    *value = static_cast<int>(function->maxDynamicShared);
    break;
  default:
    return cuInvalidValue;
  }
  return cuSuccess;
}
EMULATED int cuOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks, void *,
                                                         int threads, size_t) {
  *blocks = threads > 0 ? 2048 / threads : 0;
  return cuSuccess;
}

EMULATED int cuLaunchKernel(void *handle, unsigned gridX, unsigned gridY,
                            unsigned gridZ, unsigned blockX, unsigned blockY,
                            unsigned blockZ, unsigned dynamicShared,
                            void *streamHandle, void **parameters,
                            void **extra) {
  Call call;
  NEED_CONTEXT(call)
  Function *function = static_cast<Function *>(handle);
  if (!call.engine.functions.count(function))
    return cuInvalidHandle;
  Device &device = *call.device();
  const Kernel &kernel = *function->kernel;
  auto refuse = [&](const std::string &why) {
    call.engine.fail("device " + std::to_string(device.index) + ": kernel " +
                     kernel.name + ": " + why);
    return cuInvalidValue;
  };
  if (function->owner->device != &device)
    return refuse("the module was loaded on device " +
                  std::to_string(function->owner->device->index));
  if (extra || (!parameters && !kernel.parameters.empty()))
    return refuse("parameters are expected as an array");
  if (!gridX || !gridY || !gridZ || gridY > 65535 || gridZ > 65535)
    return refuse("grid " + std::to_string(gridX) + "," +
                  std::to_string(gridY) + "," + std::to_string(gridZ) +
                  " cannot be launched");
  uint64_t threads = uint64_t(blockX) * blockY * blockZ;
  uint64_t most = 1024;
  if (kernel.maxThreads[0])
    most = uint64_t(kernel.maxThreads[0]) * kernel.maxThreads[1] *
           kernel.maxThreads[2];
  if (!threads || threads > most)
    return refuse("block size: " + std::to_string(threads) +
                  " threads, at most " + std::to_string(most));
  if (kernel.requiredThreads[0] && (kernel.requiredThreads[0] != blockX ||
                                    kernel.requiredThreads[1] != blockY ||
                                    kernel.requiredThreads[2] != blockZ))
    return refuse("block size: it is not .reqntid");
  if (dynamicShared > function->maxDynamicShared ||
      (kernel.sharedDeclared + dynamicShared > 48 * 1024 &&
       function->maxDynamicShared < dynamicShared))
    return refuse(std::to_string(dynamicShared) +
                  " bytes of dynamic shared memory, at most " +
                  std::to_string(function->maxDynamicShared) +
                  " without cuFuncSetAttribute");
  if (kernel.sharedDeclared > 48 * 1024)
    return refuse("static shared memory of " +
                  std::to_string(kernel.sharedDeclared) +
                  " bytes, ptxas allows 49152");

  auto arguments =
      std::make_shared<std::vector<uint8_t>>(kernel.parameterBytes + 16);
  for (size_t i = 0; i < kernel.parameters.size(); ++i)
    std::memcpy(arguments->data() + kernel.parameters[i].offset, parameters[i],
                kernel.parameters[i].size);
  LaunchShape shape;
  shape.grid[0] = gridX, shape.grid[1] = gridY, shape.grid[2] = gridZ;
  shape.block[0] = blockX, shape.block[1] = blockY, shape.block[2] = blockZ;
  shape.dynamicShared = dynamicShared;
  auto ranges = std::make_shared<std::vector<Range>>();
  if (!declaredBuffers().empty()) {
    *ranges = takeAllowed(device);
    if (call.engine.shortens.hits("cuLaunchKernel"))
      for (Range &range : *ranges)
        range.end -= std::min(Engine::shortBy, range.end - range.begin);
    // The module's own variables are always there.
    for (const auto &[name, variable] : function->owner->module->variables)
      ranges->push_back({variable.offset, variable.offset + variable.size,
                         variable.space == Space::global});
    std::sort(ranges->begin(), ranges->end(),
              [](const Range &a, const Range &b) { return a.begin < b.begin; });
  }
  const Module &module = *function->owner->module;
  auto operation = std::make_shared<Operation>();
  operation->name = "kernel " + kernel.name;
  operation->run = [=, &kernel, &module,
                    &device](std::vector<Access> &touched) {
    // Without a declaration, what is allocated when the kernel runs.
    std::vector<Range> allowed;
    if (ranges->empty()) {
      std::lock_guard<std::mutex> guard(Engine::get().mutex);
      allowed = device.memory->allocations();
    } else {
      allowed = *ranges;
    }
    Launch launch(module, kernel, shape, arguments->data(), *device.memory,
                  std::move(allowed));
    launch.run();
    touched = device.memory->takeTouched(launch.globalShift);
    return launch.reports.text();
  };
  call.engine.enqueue(*call.stream(streamHandle), operation);
  return cuSuccess;
}
