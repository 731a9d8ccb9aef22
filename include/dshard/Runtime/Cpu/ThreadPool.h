//===- ThreadPool.h - Fork-join inside one rank -----------------*- C++ -*-===//
//
// One pool per rank. The rank's own thread is worker 0; the others spin for the
// next piece of work and then sleep (Wait.h). The destructor joins.
//
// Threads are not pinned to cores: the machine is often shared, and two
// processes that pin to the same cores run at half speed while others idle.
// Only while they are woken are they kept off the CPU of the one that wakes.
// Who has the machine alone pins the process from outside (taskset, numactl).
//
//===----------------------------------------------------------------------===//
#ifndef DSHARD_RUNTIME_CPU_THREADPOOL_H
#define DSHARD_RUNTIME_CPU_THREADPOOL_H

#include "dshard/Runtime/Cpu/Wait.h"
#include "dshard/Support/Status.h"

#include <atomic>
#include <cstdint>
#include <pthread.h>
#include <sched.h>
#include <type_traits>
#include <vector>

namespace dshard::cpu {

class ThreadPool {
public:
  /// `threads` >= 1 workers, the caller of run() among them. Where the system
  /// refuses a thread, status() says so and the pool must not be used.
  explicit ThreadPool(unsigned threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool &) = delete;
  ThreadPool &operator=(const ThreadPool &) = delete;

  const Status &status() const { return startStatus; }
  unsigned size() const { return count; }

  /// Calls body(worker) once on each of the first `workers` workers (all of
  /// them when 0) and returns when all have returned. Only one thread may call
  /// run() at a time, and not from inside a body.
  template <typename Body> void run(Body &&body, unsigned workers = 0) {
    if (workers == 0 || workers > count)
      workers = count;
    if (workers == 1) {
      body(0u);
      return;
    }
    dispatch(
        [](void *context, unsigned worker) {
          (*static_cast<std::remove_reference_t<Body> *>(context))(worker);
        },
        const_cast<void *>(static_cast<const void *>(&body)), workers);
  }

  /// Splits [0, extent) into at most size() contiguous ranges whose bounds are
  /// multiples of `grain` and calls body(begin, end, worker) on each.
  template <typename Body>
  void parallelFor(int64_t extent, int64_t grain, Body &&body) {
    if (extent <= 0)
      return;
    if (grain < 1)
      grain = 1;
    int64_t pieces = (extent + grain - 1) / grain;
    unsigned workers = pieces < count ? static_cast<unsigned>(pieces) : count;
    if (workers == 1) {
      body(int64_t{0}, extent, 0u);
      return;
    }
    run(
        [&](unsigned worker) {
          int64_t begin = pieces * worker / workers * grain;
          int64_t end = pieces * (worker + 1) / workers * grain;
          body(begin, end < extent ? end : extent, worker);
        },
        workers);
  }

  /// As parallelFor, but each worker takes its range piece by piece, and who
  /// has none left takes half of the longest other one: neither a busy
  /// neighbour nor uneven work holds the others up. The pieces differ from call
  /// to call.
  template <typename Body>
  void parallelDynamic(int64_t extent, int64_t grain, Body &&body) {
    if (extent <= 0)
      return;
    if (grain < 1)
      grain = 1;
    int64_t pieces = (extent + grain - 1) / grain;
    unsigned workers = pieces < count ? static_cast<unsigned>(pieces) : count;
    if (workers == 1 || pieces > UINT32_MAX) {
      body(int64_t{0}, extent, 0u);
      return;
    }
    for (unsigned worker = 0; worker < workers; ++worker)
      ranges[worker].set(pieces * worker / workers,
                         pieces * (worker + 1) / workers);
    run(
        [&](unsigned worker) {
          uint32_t begin, end;
          do
            while (ranges[worker].takeFront(begin, end)) {
              int64_t last = int64_t{end} * grain;
              body(begin * grain, last < extent ? last : extent, worker);
            }
          while (takeFromOthers(worker, workers));
        },
        workers);
  }

private:
  using Entry = void (*)(void *, unsigned);
  /// Pieces [begin, end) in one word, on a cache line of its own.
  class alignas(64) Range {
  public:
    void set(uint64_t begin, uint64_t end) {
      word.store(begin << 32 | end, std::memory_order_relaxed);
    }
    uint32_t left() const {
      uint64_t now = word.load(std::memory_order_relaxed);
      return static_cast<uint32_t>(now) - static_cast<uint32_t>(now >> 32);
    }
    /// The owner's: a quarter of what is left.
    bool takeFront(uint32_t &begin, uint32_t &end);
    /// Another's: half of what is left.
    bool takeBack(uint32_t &begin, uint32_t &end);

  private:
    std::atomic<uint64_t> word{0};
  };
  bool takeFromOthers(unsigned worker, unsigned workers);
  using CpuSet = cpu_set_t;
  std::vector<CpuSet> keepOffThisCpu();
  void dispatch(Entry entry, void *context, unsigned workers);
  void work(unsigned worker);
  static void *enter(void *start);

  unsigned count;
  Status startStatus;
  std::vector<Range> ranges;
  std::vector<pthread_t> threads;
  WaitWord started;  // bumped when there is work (or the end)
  WaitWord finished; // bumped by the last worker
  std::atomic<unsigned> pending{0};
  Entry entry = nullptr;
  void *context = nullptr;
  unsigned active = 0;
  bool stopping = false;
};

/// Multiplications that a product or an attention gives a thread at least, some
/// 10 us: less than that is lost in waking a thread of a busy machine.
constexpr int64_t smallestShare = 1 << 19;

/// Workers per rank: DSHARD_THREADS when set (1 or more), else
/// max(1, availableCpus() / ranks). A malformed DSHARD_THREADS is an error.
Result<unsigned> threadsPerRank(unsigned ranks);

} // namespace dshard::cpu

#endif // DSHARD_RUNTIME_CPU_THREADPOOL_H
