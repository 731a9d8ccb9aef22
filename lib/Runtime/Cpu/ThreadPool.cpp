//===- ThreadPool.cpp - Fork-join inside one rank -------------------------===//

#include "dshard/Runtime/Cpu/ThreadPool.h"

#include "dshard/Support/Environment.h"

#include <cstring>
#include <memory>
#include <string>

using namespace dshard;
using namespace dshard::cpu;

namespace {
struct Start {
  ThreadPool *pool;
  unsigned worker;
};
} // namespace

void *ThreadPool::enter(void *argument) {
  std::unique_ptr<Start> start(static_cast<Start *>(argument));
  start->pool->work(start->worker);
  return nullptr;
}

// Not std::thread, which ends the process when a thread cannot be had.
ThreadPool::ThreadPool(unsigned threads)
    : count(threads ? threads : 1), ranges(count) {
  for (unsigned worker = 1; worker < count; ++worker) {
    auto start = std::make_unique<Start>(Start{this, worker});
    pthread_t thread;
    if (int error = pthread_create(&thread, nullptr, enter, start.get())) {
      startStatus = Status::error(
          "cannot start thread " + std::to_string(worker + 1) + " of " +
          std::to_string(count) + ": " + std::strerror(error) +
          "; allow more threads (ulimit -u), or use fewer (DSHARD_THREADS)");
      return;
    }
    (void)start.release(); // the thread's
    this->threads.push_back(thread);
  }
}

ThreadPool::~ThreadPool() {
  stopping = true;
  started.bump();
  for (pthread_t thread : threads)
    pthread_join(thread, nullptr);
}

bool ThreadPool::Range::takeFront(uint32_t &begin, uint32_t &end) {
  uint64_t now = word.load(std::memory_order_relaxed);
  while (true) {
    begin = static_cast<uint32_t>(now >> 32);
    end = static_cast<uint32_t>(now);
    if (begin >= end)
      return false;
    uint32_t taken = begin + (end - begin + 3) / 4;
    if (word.compare_exchange_weak(now, uint64_t{taken} << 32 | end,
                                   std::memory_order_relaxed)) {
      end = taken;
      return true;
    }
  }
}

bool ThreadPool::Range::takeBack(uint32_t &begin, uint32_t &end) {
  uint64_t now = word.load(std::memory_order_relaxed);
  while (true) {
    begin = static_cast<uint32_t>(now >> 32);
    end = static_cast<uint32_t>(now);
    if (begin >= end)
      return false;
    uint32_t kept = end - (end - begin + 1) / 2;
    if (word.compare_exchange_weak(now, uint64_t{begin} << 32 | kept,
                                   std::memory_order_relaxed)) {
      begin = kept;
      return true;
    }
  }
}

bool ThreadPool::takeFromOthers(unsigned worker, unsigned workers) {
  while (true) {
    unsigned longest = worker;
    for (unsigned other = 0; other < workers; ++other)
      if (other != worker &&
          (longest == worker || ranges[other].left() > ranges[longest].left()))
        longest = other;
    if (longest == worker || ranges[longest].left() == 0)
      return false;
    uint32_t begin, end;
    if (!ranges[longest].takeBack(begin, end))
      continue;
    // Nobody takes from an empty range, so this one is the owner's to set.
    ranges[worker].set(begin, end);
    return true;
  }
}

/// A thread that wakes up is often put on the CPU of the one that wakes it, and
/// waits there for milliseconds while another CPU idles. Returns the CPUs that
/// each thread may use otherwise, none where that has not changed.
std::vector<ThreadPool::CpuSet> ThreadPool::keepOffThisCpu() {
  std::vector<CpuSet> before(threads.size());
  int here = sched_getcpu();
  for (size_t i = 0; i < threads.size(); ++i) {
    CpuSet &all = before[i];
    CPU_ZERO(&all);
    if (here < 0 ||
        pthread_getaffinity_np(threads[i], sizeof(CpuSet), &all) != 0)
      continue;
    CpuSet others = all;
    CPU_CLR(here, &others);
    if (!CPU_COUNT(&others) || CPU_EQUAL(&others, &all) ||
        pthread_setaffinity_np(threads[i], sizeof(CpuSet), &others) != 0)
      CPU_ZERO(&all);
  }
  return before;
}

void ThreadPool::dispatch(Entry newEntry, void *newContext, unsigned workers) {
  entry = newEntry;
  context = newContext;
  active = workers;
  // Every worker answers every start, so that none can read the next piece of
  // work while it still waits for this one.
  pending.store(count - 1, std::memory_order_relaxed);
  uint32_t seen = finished.load();
  if (started.hasSleepers()) {
    std::vector<CpuSet> before = keepOffThisCpu();
    started.bump();
    for (size_t i = 0; i < threads.size(); ++i)
      if (CPU_COUNT(&before[i]))
        (void)pthread_setaffinity_np(threads[i], sizeof(CpuSet), &before[i]);
  } else {
    started.bump();
  }
  newEntry(newContext, 0);
  finished.waitWhile(seen);
}

void ThreadPool::work(unsigned worker) {
  AwakeThread self;
  uint32_t seen = 0;
  while (true) {
    started.waitWhile(seen);
    ++seen;
    if (stopping)
      return;
    if (worker < active)
      entry(context, worker);
    if (pending.fetch_sub(1, std::memory_order_acq_rel) == 1)
      finished.bump();
  }
}

Result<unsigned> cpu::threadsPerRank(unsigned ranks) {
  unsigned share = availableCpus() / (ranks ? ranks : 1);
  Result<int64_t> threads =
      environmentNumber(Variable::THREADS, share ? share : 1, 1, 1024);
  if (!threads)
    return threads.status();
  return static_cast<unsigned>(*threads);
}
