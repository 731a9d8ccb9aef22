//===- Engine.cpp - Streams, events and the work in them ------------------===//
#include "Driver/Engine.h"

#include "dshard/Support/Environment.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>

namespace dshard::emulator {

Engine &Engine::get() {
  static Engine *engine = new Engine; // outlives every thread
  return *engine;
}

Device *&currentDevice() {
  thread_local Device *device = nullptr;
  return device;
}
/// What the calling thread has waited for, on any device.
static Clock &threadClock() {
  thread_local Clock clock;
  return clock;
}
std::vector<Range> &declaredBuffers() {
  thread_local std::vector<Range> ranges;
  return ranges;
}

std::vector<Range> takeAllowed(Device &device) {
  std::vector<Range> ranges = std::move(declaredBuffers());
  declaredBuffers().clear();
  if (ranges.empty())
    return device.memory->allocations();
  std::sort(ranges.begin(), ranges.end(), [](const Range &a, const Range &b) {
    return a.begin != b.begin ? a.begin < b.begin : a.end < b.end;
  });
  // One buffer given twice (read and written) is one range.
  std::vector<Range> merged;
  for (const Range &range : ranges) {
    if (!merged.empty() && range.begin == merged.back().begin &&
        (range.end == merged.back().end ||
         range.writable == merged.back().writable)) {
      merged.back().end = std::max(merged.back().end, range.end);
      merged.back().writable |= range.writable;
    } else {
      merged.push_back(range);
    }
  }
  return merged;
}

std::string checkBuffer(const std::vector<Range> &allowed, uint64_t begin,
                        uint64_t bytes, bool write, const std::string &what) {
  if (bytes == 0)
    return "";
  const Range *near = nullptr;
  for (const Range &range : allowed) {
    if (begin < range.begin || begin >= range.end)
      continue;
    near = &range;
    if (bytes <= range.end - begin && (!write || range.writable))
      return "";
  }
  if (!near)
    return what + ": out of bounds of global memory: " + std::to_string(bytes) +
           " bytes in no buffer of the device";
  if (bytes <= near->end - begin)
    return what + ": a store to a buffer that is only to be read";
  return what + ": out of bounds of global memory: " + std::to_string(bytes) +
         " bytes at offset " + std::to_string(begin - near->begin) +
         " of a buffer of " + std::to_string(near->end - near->begin);
}

void Engine::configure() {
  if (configured)
    return;
  configured = true;
  trace = logLevel() == LogLevel::debug;
  auto number = [](::dshard::Variable variable, int64_t fallback, int64_t low,
                   int64_t high) {
    auto value = environmentNumber(variable, fallback, low, high);
    if (!value)
      std::fprintf(stderr, "dshard: error: %s\n",
                   value.status().message().c_str());
    return value ? *value : fallback;
  };
  int64_t count = number(::dshard::Variable::EMULATOR_DEVICES, 8, 0, 64);
  memoryBytes = static_cast<uint64_t>(number(
                    ::dshard::Variable::EMULATOR_MEMORY, 8192, 1, 1 << 20))
                << 20;
  architecture = static_cast<int>(
      number(::dshard::Variable::EMULATOR_ARCHITECTURE, 90, 50, 200));
  driverVersion = static_cast<int>(
      number(::dshard::Variable::EMULATOR_DRIVER_VERSION, 13000, 0, 1 << 30));
  blasVersion = static_cast<int>(number(
      ::dshard::Variable::EMULATOR_CUBLASLT_VERSION, 130000, 0, 1 << 30));
  ncclVersion = static_cast<int>(
      number(::dshard::Variable::EMULATOR_NCCL_VERSION, 22800, 0, 1 << 30));
  fails.read(environment(::dshard::Variable::EMULATOR_FAIL));
  drops.read(environment(::dshard::Variable::EMULATOR_DROP));
  swaps.read(environment(::dshard::Variable::EMULATOR_SWAP));
  misdirects.read(environment(::dshard::Variable::EMULATOR_MISDIRECT));
  shortens.read(environment(::dshard::Variable::EMULATOR_SHORTEN));
  timeout = static_cast<double>(
      number(::dshard::Variable::EMULATOR_TIMEOUT, 10, 1, 3600));
  for (int64_t i = 0; i < count; ++i) {
    devices.push_back(std::make_unique<Device>());
    devices.back()->index = static_cast<int>(i);
  }
}

void Seed::read(const std::string &text) {
  size_t colon = text.find(':');
  name = text.substr(0, colon);
  only = colon == std::string::npos ? -1 : std::atoll(&text[colon + 1]);
  calls = 0;
}

bool Seed::hits(const std::string &call) {
  if (name.empty() || name != call)
    return false;
  int64_t number = calls++;
  return only < 0 || number == only;
}

Stream *Engine::createStream(Device &device, bool blocking) {
  auto stream = std::make_unique<Stream>();
  stream->device = &device;
  stream->id = nextStream++;
  stream->blocking = blocking;
  device.streams.push_back(std::move(stream));
  return device.streams.back().get();
}

OperationPtr Engine::enqueue(Stream &stream, OperationPtr operation) {
  operation->stream = &stream;
  operation->sequence = ++sequence;
  operation->known = stream.device->host;
  operation->known.join(threadClock());
  operation->anybody = anyHost;
  Stream *standard = stream.device->streams[0].get();
  if (&stream == standard) {
    for (auto &other : stream.device->streams)
      if (other->blocking && other->last && other.get() != standard)
        operation->waits.push_back(other->last);
  } else if (stream.blocking && standard->last) {
    operation->waits.push_back(standard->last);
  }
  stream.last = operation;
  stream.queue.push_back(operation);
  progress();
  changed.notify_all();
  return operation;
}

void Engine::record(Operation &operation, const std::vector<Access> &touched,
                    uint32_t count, const Clock &clock) {
  Stream &stream = *operation.stream;
  std::vector<Access> here, onHost;
  for (const Access &access : touched)
    (stream.device->memory->ownsAddress(access.begin) ? here : onHost)
        .push_back(access);
  std::string race =
      history.record(here, stream.id, count, clock, operation.name);
  if (race.empty() && !onHost.empty()) {
    Clock wider = clock;
    wider.join(operation.anybody);
    race = history.record(onHost, stream.id, count, wider, operation.name);
  }
  if (!race.empty())
    fail("device " + std::to_string(stream.device->index) + ": " + race);
}

void Engine::hostHas(Device &device, const Clock &clock) {
  device.host.join(clock);
  threadClock().join(clock);
  anyHost.join(clock);
}

void Engine::finish(Operation &operation, const std::vector<Access> &touched) {
  Stream &stream = *operation.stream;
  Clock clock = operation.clock; // joined by meetings
  clock.join(operation.known);
  clock.join(stream.clock);
  for (const OperationPtr &wait : operation.waits)
    clock.join(wait->clock);
  clock.set(stream.id, ++stream.count);
  record(operation, touched, stream.count, clock);
  if (trace)
    log(LogLevel::debug,
        "emulator: device " + std::to_string(stream.device->index) +
            " stream " + std::to_string(stream.id) + " #" +
            std::to_string(stream.count) + ": " + operation.name);
  operation.clock = stream.clock = clock;
  operation.done = true;
  operation.waits.clear();
  operation.run = nullptr;
  operation.meetings.clear();
  progress();
}

/// Marks the members; runs every meeting that is complete. True if the
/// operation is done by that.
bool Engine::arrive(Operation &operation) {
  if (!operation.arrived) {
    operation.arrived = true;
    progress();
    // Before meeting the others, the operation has heard of these.
    operation.clock.join(operation.known);
    operation.clock.join(operation.stream->clock);
    for (const OperationPtr &wait : operation.waits)
      operation.clock.join(wait->clock);
    operation.clock.set(operation.stream->id, operation.stream->count + 1);
    for (auto &meeting : operation.meetings)
      for (Meeting::Member &member : meeting->members)
        if (member.operation == &operation)
          member.arrived = true;
  }
  for (auto &meeting : operation.meetings) {
    if (meeting->done)
      continue;
    for (Meeting::Member &member : meeting->members)
      if (!member.arrived)
        return false;
    std::vector<std::vector<Access>> touched(meeting->members.size());
    std::string error = meeting->run(touched);
    if (!error.empty())
      fail(error);
    // What any member knew, all know afterwards; each is judged by its own.
    for (size_t i = 0; i < touched.size(); ++i) {
      Operation &one = *meeting->members[i].operation;
      record(one, touched[i], one.stream->count + 1, one.clock);
    }
    Clock all;
    for (Meeting::Member &member : meeting->members)
      all.join(member.operation->clock);
    for (Meeting::Member &member : meeting->members)
      member.operation->clock.join(all);
    meeting->done = true;
    progress();
  }
  return true;
}

bool Engine::runOne(std::unique_lock<std::mutex> &lock, Device *preferred) {
  if (failed()) {
    // Nothing runs any more; whoever waits sees the fault.
    return false;
  }
  Operation *best = nullptr;
  OperationPtr keepAlive;
  bool moved = false;
  for (auto &device : devices) {
    for (auto &stream : device->streams) {
      while (!stream->queue.empty()) {
        OperationPtr head = stream->queue.front();
        if (head->running)
          break;
        bool ready = true;
        for (const OperationPtr &wait : head->waits)
          ready &= wait->done;
        if (!ready)
          break;
        if (!head->meetings.empty()) {
          if (!arrive(*head))
            break;
          finish(*head, {});
          stream->queue.pop_front();
          moved = true;
          if (failed())
            return true;
          continue;
        }
        if (!head->run) { // events
          finish(*head, {});
          stream->queue.pop_front();
          moved = true;
          continue;
        }
        if (device->busy)
          break;
        bool better =
            !best ||
            (device.get() == preferred) > (best->stream->device == preferred) ||
            ((device.get() == preferred) ==
                 (best->stream->device == preferred) &&
             head->sequence < best->sequence);
        if (better) {
          best = head.get();
          keepAlive = head;
        }
        break;
      }
    }
  }
  if (moved)
    changed.notify_all();
  if (!best)
    return moved;
  Stream &stream = *best->stream;
  best->running = true;
  stream.device->busy = true;
  ++runningCount;
  std::vector<Access> touched;
  lock.unlock();
  std::string error = best->run(touched);
  lock.lock();
  --runningCount;
  stream.device->busy = false;
  if (!error.empty())
    fail("device " + std::to_string(stream.device->index) + ": " + error);
  finish(*best, touched);
  stream.queue.pop_front();
  changed.notify_all();
  return true;
}

void Engine::withdraw(Operation &operation) {
  for (auto &meeting : operation.meetings)
    for (Meeting::Member &member : meeting->members)
      if (member.operation == &operation) {
        member.operation = nullptr;
        member.arrived = false; // so nobody ever meets here
      }
  operation.done = true;
  operation.waits.clear();
  operation.meetings.clear();
}

void Engine::abandon(Device &device, const void *clique) {
  for (auto &stream : device.streams)
    for (auto at = stream->queue.begin(); at != stream->queue.end();) {
      Operation &operation = **at;
      bool meets = false;
      for (auto &meeting : operation.meetings)
        meets |= meeting->clique == clique;
      if (!meets) {
        ++at;
        continue;
      }
      withdraw(operation);
      at = stream->queue.erase(at);
    }
  progress();
  changed.notify_all();
}

bool Engine::waitUntil(std::unique_lock<std::mutex> &lock,
                       const std::function<bool()> &done,
                       const std::string &what) {
  progress();
  while (!failed() && !done()) {
    if (runOne(lock, currentDevice()))
      continue;
    if (failed())
      break;
    changed.wait_for(lock, std::chrono::milliseconds(50));
    if (!done())
      checkProgress(what);
  }
  return !failed();
}

void Engine::checkProgress(const std::string &who) {
  std::chrono::duration<double> idle =
      std::chrono::steady_clock::now() - lastProgress;
  if (runningCount == 0 && idle.count() > timeout)
    fail("deadlock: " + who + " waited " +
         std::to_string(static_cast<int>(timeout)) +
         " s and nothing moved: " + describeQueues());
}

void Engine::poll(std::unique_lock<std::mutex> &lock, Device *preferred) {
  if (!failed() && !runOne(lock, preferred) && !failed())
    checkProgress("a query");
}

bool Engine::waitFor(std::unique_lock<std::mutex> &lock,
                     const OperationPtr &operation) {
  if (!operation)
    return !failed();
  return waitUntil(
      lock, [&] { return operation->done; }, operation->name);
}

bool Engine::drain(std::unique_lock<std::mutex> &lock, Device *device) {
  return waitUntil(
      lock,
      [&] {
        for (auto &one : devices)
          if (!device || one.get() == device)
            for (auto &stream : one->streams)
              if (!stream->queue.empty())
                return false;
        return true;
      },
      "the device");
}

std::string Engine::describeQueues() const {
  std::string text;
  for (auto &device : devices)
    for (auto &stream : device->streams) {
      if (stream->queue.empty())
        continue;
      const Operation &head = *stream->queue.front();
      text += (text.empty() ? "device " : "; device ") +
              std::to_string(device->index) + " stream " +
              std::to_string(stream->id) + ": " + head.name;
      for (const OperationPtr &wait : head.waits)
        if (!wait->done)
          text += " waits for " + wait->name + " (stream " +
                  std::to_string(wait->stream->id) + ")";
      for (auto &meeting : head.meetings) {
        std::string missing;
        for (const Meeting::Member &member : meeting->members)
          if (!member.arrived)
            missing +=
                (missing.empty() ? "" : ", ") + std::to_string(member.rank);
        if (!missing.empty())
          text += " (" + meeting->what + ") waits for rank " + missing;
      }
    }
  return text.empty() ? "no work is queued" : text;
}

void Engine::fail(const std::string &text) {
  if (failed())
    return;
  std::fprintf(stderr, "dshard: error: emulator: %s\n", text.c_str());
  reports = text;
  // The caller gets one line: the first report, and how many more there are.
  size_t lines =
      static_cast<size_t>(std::count(text.begin(), text.end(), '\n'));
  faults.push_back(text.substr(0, text.find('\n')) +
                   (lines ? " (and " + std::to_string(lines) + " more)" : ""));
  changed.notify_all();
}

const char *Engine::keep(const std::string &text) {
  for (const std::string &old : kept)
    if (old == text)
      return old.c_str();
  kept.push_back(text);
  return kept.back().c_str();
}

void Engine::reset() {
  devices.clear();
  for (Event *event : events)
    delete event;
  for (Function *function : functions)
    delete function;
  events.clear();
  functions.clear();
  hostMemory.clear();
  history.clear();
  anyHost = threadClock() = Clock();
  faults.clear();
  reports.clear();
  declaredBuffers().clear();
  currentDevice() = nullptr;
  configured = false;
  configure();
}

} // namespace dshard::emulator
