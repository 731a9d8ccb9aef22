//===- Engine.h - Streams, events and the work in them ----------*- C++ -*-===//
//
// Calls only queue work. Whoever waits (cuStreamSynchronize and its like) runs
// it: the first operation of any stream, of any device, whose events have
// passed. Collectives run when all their members stand at the head of a stream.
// So a missing wait on the host reads old bytes, as it may on a GPU, and a
// missing event between streams is found by the clocks (History.h) however the
// work was ordered here.
//
// The first fault (a report of the interpreter, a race, a mismatched
// collective, a deadlock) stays: every later call on every device fails with
// its text, which is also written to standard error once.
//
//===----------------------------------------------------------------------===//
#ifndef DSHARD_EMULATOR_DRIVER_ENGINE_H
#define DSHARD_EMULATOR_DRIVER_ENGINE_H

#include "Driver/Cuda.h"
#include "Driver/History.h"
#include "Execution/Memory.h"
#include "Ptx/Module.h"

#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <set>

namespace dshard::emulator {

struct Stream;
struct Device;
struct Operation;
struct Call;
using OperationPtr = std::shared_ptr<Operation>;

/// A collective, or a send and its receive, that its members come to.
struct Meeting {
  struct Member {
    int rank = 0;
    Operation *operation = nullptr; // null: not called yet
    bool arrived = false;
    uint64_t send = 0, receive = 0; // device addresses
  };
  std::string what; // "all_reduce #3 of communicator 1"
  std::vector<Member> members;
  const void *clique = nullptr; // whose members meet
  bool done = false;
  /// Moves the bytes once all are here; "" or an error. `touched[i]` gets what
  /// member i read and wrote.
  std::function<std::string(std::vector<std::vector<Access>> &touched)> run;
};

struct Operation {
  std::string name;
  Stream *stream = nullptr;
  uint64_t sequence = 0;
  std::vector<OperationPtr> waits;
  Clock known;   // what the host knew of the device when it queued this
  Clock anybody; // what any host thread knew: for memory of the host
  Clock clock;   // once done
  bool running = false, done = false, arrived = false;
  /// Runs without the engine's lock; adds what it touched; "" or an error.
  std::function<std::string(std::vector<Access> &touched)> run;
  std::vector<std::shared_ptr<Meeting>> meetings;
};

struct Stream {
  Device *device = nullptr;
  uint32_t id = 0, count = 0; // operations done
  bool blocking = true, destroyed = false;
  Clock clock;
  std::deque<OperationPtr> queue;
  OperationPtr last; // queued or done
};

struct Event {
  Device *device = nullptr;
  OperationPtr operation; // of the last record
  std::shared_ptr<std::chrono::steady_clock::time_point> time; // when it ran
};

struct HostAllocation {
  std::unique_ptr<uint8_t[]> bytes;
  uint64_t size;
};

struct LoadedModule {
  std::unique_ptr<Module> module;
  Device *device = nullptr;
  std::vector<uint64_t> variables;
};
struct Function {
  LoadedModule *owner = nullptr;
  Kernel *kernel = nullptr;
  uint32_t maxDynamicShared = 48 * 1024;
};

struct Device {
  int index = 0;
  std::unique_ptr<DeviceMemory> memory; // from the first retain on
  int retained = 0;
  bool busy = false;                            // one operation at a time
  Clock host;                                   // what was waited for on it
  std::vector<std::unique_ptr<Stream>> streams; // 0: the default stream
  std::vector<std::unique_ptr<LoadedModule>> modules;
  std::vector<void *> communicators;
  std::function<int(Call &)> held; // what DSHARD_EMULATOR_SWAP keeps back
};

/// A seeded fault: the calls of one name, or one of them (NAME:N).
class Seed {
public:
  void read(const std::string &text);
  /// True if this call is meant; counts it.
  bool hits(const std::string &call);

private:
  std::string name;
  int64_t only = -1, calls = 0;
};

class Engine {
public:
  static Engine &get();

  std::mutex mutex; // of everything here; public functions want it held
  std::vector<std::unique_ptr<Device>> devices;
  std::set<Event *> events;
  std::set<Function *> functions;
  std::map<uint64_t, HostAllocation> hostMemory;
  History history;
  Clock anyHost; // what any thread has waited for
  /// The calling thread has waited for what `clock` says.
  void hostHas(Device &device, const Clock &clock);

  /// Number of devices, bytes each, architecture, seconds: the environment.
  void configure();
  bool configured = false;
  bool trace = false; // DSHARD_LOG=debug: a line per operation
  int architecture = 90;
  int driverVersion = 0, blasVersion = 0, ncclVersion = 0;
  Seed fails;      // reports an error
  Seed drops;      // does nothing
  Seed swaps;      // comes after the next collective of its device
  Seed misdirects; // goes to another communicator of its device
  Seed shortens;   // gets memory that lacks its last bytes
  static constexpr uint64_t shortBy = 16;
  uint64_t memoryBytes = 0;
  double timeout = 10;

  Stream *createStream(Device &device, bool blocking);
  OperationPtr enqueue(Stream &stream, OperationPtr operation);
  /// Runs work until `done()`; an error when nothing moves for `timeout`.
  bool waitUntil(std::unique_lock<std::mutex> &lock,
                 const std::function<bool()> &done, const std::string &what);
  bool waitFor(std::unique_lock<std::mutex> &lock,
               const OperationPtr &operation);
  /// All work of a device, or of all of them (null).
  bool drain(std::unique_lock<std::mutex> &lock, Device *device);
  /// Runs one operation if there is one that can run.
  bool runOne(std::unique_lock<std::mutex> &lock, Device *preferred);

  /// Ends an operation that has not run: its members never come.
  void withdraw(Operation &operation);
  /// Takes out of a device's streams what waits for members of `clique`: the
  /// others wait on.
  void abandon(Device &device, const void *clique);

  /// One step for callers that ask again and again; sees deadlocks, too.
  void poll(std::unique_lock<std::mutex> &lock, Device *preferred);

  /// Sets the fault unless there is one already.
  void fail(const std::string &text);
  bool failed() const { return !faults.empty(); }
  /// One line.
  const std::string &fault() const { return faults.back(); }
  std::string reports; // all of the fault, a line each
  /// Forgets faults, streams, memory and modules: for tests.
  void reset();
  void progress() { lastProgress = std::chrono::steady_clock::now(); }
  std::condition_variable changed;
  /// Text that a char * of the caller may point to for ever.
  const char *keep(const std::string &text);

private:
  /// Judges what the operation touched: memory of the host by what any thread
  /// knew, since threads join and meet where nobody here can see it.
  void record(Operation &operation, const std::vector<Access> &touched,
              uint32_t count, const Clock &clock);
  void finish(Operation &operation, const std::vector<Access> &touched);
  bool arrive(Operation &operation);
  std::string describeQueues() const;
  /// Fails when nothing has moved for `timeout`.
  void checkProgress(const std::string &who);

  std::deque<std::string> faults, kept;
  uint64_t sequence = 0;
  uint32_t nextStream = 1;
  unsigned runningCount = 0;
  std::chrono::steady_clock::time_point lastProgress;
};

/// The calling thread's device; null before cuCtxSetCurrent.
Device *&currentDevice();

/// Buffers that the next operation queued by this thread may touch; empty: all
/// allocations of the device. Set by dshardEmulatorDeclareBuffers.
std::vector<Range> &declaredBuffers();
/// Takes the declared ranges (sorted), or the device's allocations.
std::vector<Range> takeAllowed(Device &device);
/// "" if [begin, begin + bytes) lies in one of `allowed`, writable if wanted.
std::string checkBuffer(const std::vector<Range> &allowed, uint64_t begin,
                        uint64_t bytes, bool write, const std::string &what);

} // namespace dshard::emulator

#endif // DSHARD_EMULATOR_DRIVER_ENGINE_H
