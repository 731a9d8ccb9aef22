//===- Streams.cpp - Copies, fills, streams and events --------------------===//
#include "Driver/Calls.h"

#include <cstring>

using namespace dshard::emulator;

namespace {

uint8_t *pointer(uint64_t address) {
  return reinterpret_cast<uint8_t *>(address);
}

/// The pinned allocation holds all of it?
bool isPinned(Engine &engine, uint64_t address, uint64_t bytes) {
  auto after = engine.hostMemory.upper_bound(address);
  if (after == engine.hostMemory.begin())
    return false;
  --after;
  return address + bytes <= after->first + after->second.size;
}

/// Queues a copy; the device ranges are checked now, as the driver does.
OperationPtr copy(Call &call, Stream &stream, const char *name,
                  uint64_t destination, uint64_t source, uint64_t bytes,
                  std::shared_ptr<std::vector<uint8_t>> staged) {
  auto operation = std::make_shared<Operation>();
  operation->name =
      std::string(name) + " of " + std::to_string(bytes) + " bytes";
  operation->run = [=](std::vector<Access> &touched) {
    std::memmove(pointer(destination),
                 staged ? staged->data() : pointer(source), bytes);
    if (!staged)
      touched.push_back({source, source + bytes, false});
    touched.push_back({destination, destination + bytes, true});
    return std::string();
  };
  return call.engine.enqueue(stream, operation);
}

int refuse(Call &call, const std::string &text) {
  call.engine.fail("device " + std::to_string(call.device()->index) + ": " +
                   text);
  return cuInvalidValue;
}

template <typename T>
int fill(const char *name, uint64_t destination, T value, size_t count,
         void *handle) {
  Call call(name);
  NEED_CONTEXT(call)
  if (!count)
    return cuSuccess;
  if (destination % sizeof(T))
    return cuInvalidValue;
  uint64_t bytes = count * sizeof(T);
  std::string error = checkBuffer(takeAllowed(*call.device()), destination,
                                  bytes, true, "memset");
  if (!error.empty())
    return refuse(call, error);
  auto operation = std::make_shared<Operation>();
  operation->name = "memset of " + std::to_string(bytes) + " bytes";
  operation->run = [=](std::vector<Access> &touched) {
    T *to = reinterpret_cast<T *>(destination);
    for (size_t i = 0; i < count; ++i)
      to[i] = value;
    touched.push_back({destination, destination + bytes, true});
    return std::string();
  };
  call.engine.enqueue(*call.stream(handle), operation);
  return cuSuccess;
}

} // namespace

EMULATED int cuMemcpyHtoDAsync_v2(uint64_t destination, const void *source,
                                  size_t bytes, void *handle) {
  Call call;
  NEED_CONTEXT(call)
  if (!bytes)
    return cuSuccess;
  std::string error = checkBuffer(takeAllowed(*call.device()), destination,
                                  bytes, true, "copy to the device");
  if (!error.empty())
    return refuse(call, error);
  uint64_t from = reinterpret_cast<uint64_t>(source);
  // Pageable memory is read before the call returns, pinned memory later.
  std::shared_ptr<std::vector<uint8_t>> staged;
  if (!isPinned(call.engine, from, bytes))
    staged = std::make_shared<std::vector<uint8_t>>(pointer(from),
                                                    pointer(from) + bytes);
  copy(call, *call.stream(handle), "copy to the device", destination, from,
       bytes, staged);
  return cuSuccess;
}
EMULATED int cuMemcpyDtoHAsync_v2(void *destination, uint64_t source,
                                  size_t bytes, void *handle) {
  Call call;
  NEED_CONTEXT(call)
  if (!bytes)
    return cuSuccess;
  std::string error = checkBuffer(takeAllowed(*call.device()), source, bytes,
                                  false, "copy to the host");
  if (!error.empty())
    return refuse(call, error);
  uint64_t to = reinterpret_cast<uint64_t>(destination);
  OperationPtr operation = copy(call, *call.stream(handle), "copy to the host",
                                to, source, bytes, nullptr);
  // A copy to pageable memory returns when it is done.
  if (!isPinned(call.engine, to, bytes)) {
    if (!call.engine.waitFor(call.lock, operation))
      return cuLaunchFailed;
    call.engine.hostHas(*call.device(), operation->clock);
  }
  return cuSuccess;
}
EMULATED int cuMemcpyDtoDAsync_v2(uint64_t destination, uint64_t source,
                                  size_t bytes, void *handle) {
  Call call;
  NEED_CONTEXT(call)
  if (!bytes)
    return cuSuccess;
  std::vector<Range> allowed = takeAllowed(*call.device());
  std::string error =
      checkBuffer(allowed, source, bytes, false, "copy on the device");
  if (error.empty())
    error =
        checkBuffer(allowed, destination, bytes, true, "copy on the device");
  if (error.empty() && source < destination + bytes &&
      destination < source + bytes)
    error = "copy on the device: source and destination overlap";
  if (!error.empty())
    return refuse(call, error);
  copy(call, *call.stream(handle), "copy on the device", destination, source,
       bytes, nullptr);
  return cuSuccess;
}
/// Rows of `width` bytes; only between places on the device.
EMULATED int cuMemcpy2DAsync_v2(const CuCopyRows *rows, void *handle) {
  Call call;
  NEED_CONTEXT(call)
  const CuCopyRows c = *rows;
  if (!c.width || !c.height)
    return cuSuccess;
  if (c.fromKind != 2 || c.toKind != 2 || c.fromPitch < c.width ||
      c.toPitch < c.width)
    return cuNotSupported;
  uint64_t from = c.fromDevice + c.fromY * c.fromPitch + c.fromX;
  uint64_t to = c.toDevice + c.toY * c.toPitch + c.toX;
  std::vector<Range> allowed = takeAllowed(*call.device());
  auto span = [&](size_t pitch) { return (c.height - 1) * pitch + c.width; };
  std::string error =
      checkBuffer(allowed, from, span(c.fromPitch), false, "copy of rows");
  if (error.empty())
    error = checkBuffer(allowed, to, span(c.toPitch), true, "copy of rows");
  if (!error.empty())
    return refuse(call, error);
  auto operation = std::make_shared<Operation>();
  operation->name = "copy of " + std::to_string(c.height) + " rows of " +
                    std::to_string(c.width) + " bytes";
  operation->run = [=](std::vector<Access> &touched) {
    for (size_t row = 0; row < c.height; ++row) {
      uint64_t source = from + row * c.fromPitch, target = to + row * c.toPitch;
      std::memmove(pointer(target), pointer(source), c.width);
      touched.push_back({source, source + c.width, false});
      touched.push_back({target, target + c.width, true});
    }
    return std::string();
  };
  call.engine.enqueue(*call.stream(handle), operation);
  return cuSuccess;
}
EMULATED int cuMemsetD8Async(uint64_t destination, unsigned char value,
                             size_t count, void *stream) {
  return fill<uint8_t>(__func__, destination, value, count, stream);
}
EMULATED int cuMemsetD16Async(uint64_t destination, unsigned short value,
                              size_t count, void *stream) {
  return fill<uint16_t>(__func__, destination, value, count, stream);
}
EMULATED int cuMemsetD32Async(uint64_t destination, unsigned value,
                              size_t count, void *stream) {
  return fill<uint32_t>(__func__, destination, value, count, stream);
}

static int createStream(const char *name, void **stream, unsigned flags) {
  Call call(name);
  NEED_CONTEXT(call)
  *stream =
      call.engine.createStream(*call.device(), !(flags & streamNonBlocking));
  return cuSuccess;
}
EMULATED int cuStreamCreate(void **stream, unsigned flags) {
  return createStream(__func__, stream, flags);
}
EMULATED int cuStreamCreateWithPriority(void **stream, unsigned flags, int) {
  return createStream(__func__, stream, flags);
}
EMULATED int cuCtxGetStreamPriorityRange(int *least, int *greatest) {
  *least = 0;
  *greatest = -5;
  return cuSuccess;
}
/// The queued work still runs; the handle must not be used again.
EMULATED int cuStreamDestroy_v2(void *handle) {
  Call call;
  if (!handle)
    return cuInvalidHandle;
  static_cast<Stream *>(handle)->destroyed = true;
  return call.engine.failed() ? cuLaunchFailed : cuSuccess;
}
EMULATED int cuStreamSynchronize(void *handle) {
  Call call;
  NEED_CONTEXT(call)
  Stream &stream = *call.stream(handle);
  if (!call.engine.waitFor(call.lock, stream.last))
    return cuLaunchFailed;
  call.engine.hostHas(*stream.device, stream.clock);
  return cuSuccess;
}
EMULATED int cuStreamQuery(void *handle) {
  Call call;
  NEED_CONTEXT(call)
  Stream &stream = *call.stream(handle);
  call.engine.poll(call.lock, stream.device);
  NEED_NO_FAULT(call)
  if (!stream.queue.empty())
    return cuNotReady;
  call.engine.hostHas(*stream.device, stream.clock);
  return cuSuccess;
}
EMULATED int cuStreamWaitEvent(void *handle, void *eventHandle, unsigned) {
  Call call;
  NEED_CONTEXT(call)
  Event *event = static_cast<Event *>(eventHandle);
  if (!call.engine.events.count(event))
    return cuInvalidHandle;
  if (!event->operation)
    return cuSuccess; // never recorded: nothing to wait for
  auto operation = std::make_shared<Operation>();
  operation->name = "wait for an event";
  operation->waits.push_back(event->operation);
  call.engine.enqueue(*call.stream(handle), operation);
  return cuSuccess;
}

EMULATED int cuEventCreate(void **handle, unsigned) {
  Call call;
  NEED_CONTEXT(call)
  Event *event = new Event;
  event->device = call.device();
  call.engine.events.insert(event);
  *handle = event;
  return cuSuccess;
}
EMULATED int cuEventDestroy_v2(void *handle) {
  Call call;
  Event *event = static_cast<Event *>(handle);
  if (!call.engine.events.erase(event))
    return cuInvalidHandle;
  delete event;
  return call.engine.failed() ? cuLaunchFailed : cuSuccess;
}
EMULATED int cuEventRecord(void *handle, void *streamHandle) {
  Call call;
  NEED_CONTEXT(call)
  Event *event = static_cast<Event *>(handle);
  if (!call.engine.events.count(event))
    return cuInvalidHandle;
  auto operation = std::make_shared<Operation>();
  operation->name = "record of an event";
  auto time = std::make_shared<std::chrono::steady_clock::time_point>();
  operation->run = [time](std::vector<Access> &) {
    *time = std::chrono::steady_clock::now();
    return std::string();
  };
  event->time = time;
  event->operation = call.engine.enqueue(*call.stream(streamHandle), operation);
  return cuSuccess;
}
EMULATED int cuEventSynchronize(void *handle) {
  Call call;
  NEED_CONTEXT(call)
  Event *event = static_cast<Event *>(handle);
  if (!call.engine.events.count(event))
    return cuInvalidHandle;
  OperationPtr operation = event->operation;
  if (!operation)
    return cuSuccess;
  if (!call.engine.waitFor(call.lock, operation))
    return cuLaunchFailed;
  call.engine.hostHas(*call.device(), operation->clock);
  return cuSuccess;
}
EMULATED int cuEventQuery(void *handle) {
  Call call;
  NEED_CONTEXT(call)
  Event *event = static_cast<Event *>(handle);
  if (!call.engine.events.count(event))
    return cuInvalidHandle;
  if (!event->operation)
    return cuSuccess;
  call.engine.poll(call.lock, event->device);
  NEED_NO_FAULT(call)
  if (!event->operation->done)
    return cuNotReady;
  call.engine.hostHas(*call.device(), event->operation->clock);
  return cuSuccess;
}
EMULATED int cuEventElapsedTime_v2(float *milliseconds, void *begin,
                                   void *end) {
  Call call;
  NEED_CONTEXT(call)
  Event *first = static_cast<Event *>(begin), *last = static_cast<Event *>(end);
  if (!call.engine.events.count(first) || !call.engine.events.count(last) ||
      !first->operation || !last->operation)
    return cuInvalidHandle;
  if (!first->operation->done || !last->operation->done)
    return cuNotReady;
  *milliseconds =
      std::chrono::duration<float, std::milli>(*last->time - *first->time)
          .count();
  return cuSuccess;
}
EMULATED int cuEventElapsedTime(float *milliseconds, void *begin, void *end) {
  return cuEventElapsedTime_v2(milliseconds, begin, end);
}
