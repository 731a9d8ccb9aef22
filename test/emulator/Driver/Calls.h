//===- Calls.h - What every entry point begins with -------------*- C++ -*-===//
#ifndef DSHARD_EMULATOR_DRIVER_CALLS_H
#define DSHARD_EMULATOR_DRIVER_CALLS_H

#include "Driver/Engine.h"

/// An entry point of the library, with the vendor's name.
#define EMULATED extern "C" __attribute__((visibility("default")))

namespace dshard::emulator {

/// Holds the engine for one call.
struct Call {
  Engine &engine = Engine::get();
  std::unique_lock<std::mutex> lock{engine.mutex};
  /// The entry point is the one that DSHARD_EMULATOR_FAIL names.
  bool injected;
  /// DSHARD_EMULATOR_DROP names this call: it does nothing.
  bool dropped;
  explicit Call(const char *name = __builtin_FUNCTION()) {
    engine.configure();
    injected = engine.fails.hits(name);
    dropped = engine.drops.hits(name);
    if (dropped)
      declaredBuffers().clear();
  }
  Device *device() { return currentDevice(); }
  /// The stream behind a handle; null is the device's default stream.
  Stream *stream(void *handle) {
    return handle ? static_cast<Stream *>(handle) : device()->streams[0].get();
  }
};

/// For entry points that have nothing else to ask the engine.
#define MAY_FAIL(result)                                                       \
  if (Call().injected)                                                         \
    return result;

/// The common refusals of a driver call; returns from the caller.
#define NEED_NO_FAULT(call)                                                    \
  if ((call).engine.failed())                                                  \
    return cuLaunchFailed;                                                     \
  if ((call).injected)                                                         \
    return cuUnknown;                                                          \
  if ((call).dropped)                                                          \
    return cuSuccess;
#define NEED_CONTEXT(call)                                                     \
  NEED_NO_FAULT(call)                                                          \
  if (!(call).device() || !(call).device()->memory)                            \
    return cuInvalidContext;

} // namespace dshard::emulator

#endif // DSHARD_EMULATOR_DRIVER_CALLS_H
