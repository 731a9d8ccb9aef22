//===- Wait.cpp - Spin briefly, then sleep --------------------------------===//

#include "dshard/Runtime/Cpu/Wait.h"

#include <climits>
#include <ctime>
#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

using namespace dshard;
using namespace dshard::cpu;

static void relax() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#else
  sched_yield();
#endif
}

int64_t cpu::nowNanoseconds() {
  timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec * int64_t{1000000000} + time.tv_nsec;
}

/// Threads of the runtime that are not asleep; the caller's own is one.
static std::atomic<int> awake{1};

AwakeThread::AwakeThread() { awake.fetch_add(1, std::memory_order_relaxed); }
AwakeThread::~AwakeThread() { awake.fetch_sub(1, std::memory_order_relaxed); }

unsigned cpu::availableCpus() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof(set), &set) == 0)
    if (int available = CPU_COUNT(&set))
      return static_cast<unsigned>(available);
  long online = sysconf(_SC_NPROCESSORS_ONLN);
  return online > 0 ? static_cast<unsigned>(online) : 1;
}

void WaitWord::waitWhile(uint32_t seen) {
  if (load() != seen)
    return;
  static const int cpus = static_cast<int>(availableCpus());
  constexpr int64_t spinNanoseconds = 20000, yieldNanoseconds = 500000;
  bool hasCore = awake.load(std::memory_order_relaxed) <= cpus;
  int64_t begin = nowNanoseconds();
  int64_t waited = 0;
  do {
    for (int i = 0; i < 64; ++i) {
      if (load() != seen)
        return;
      relax();
    }
    waited = nowNanoseconds() - begin;
    // The one that is waited for may be waiting for this core.
    if (waited >= spinNanoseconds)
      sched_yield();
  } while (waited < (hasCore ? yieldNanoseconds : spinNanoseconds));
  // seq_cst on both sides: either bump() sees the sleeper or the futex call
  // sees the new word.
  sleepers.fetch_add(1);
  awake.fetch_sub(1, std::memory_order_relaxed);
  while (word.load() == seen)
    syscall(SYS_futex, reinterpret_cast<uint32_t *>(&word), FUTEX_WAIT_PRIVATE,
            seen, nullptr, nullptr, 0);
  awake.fetch_add(1, std::memory_order_relaxed);
  sleepers.fetch_sub(1);
}

void WaitWord::bump() {
  word.fetch_add(1);
  if (sleepers.load())
    syscall(SYS_futex, reinterpret_cast<uint32_t *>(&word), FUTEX_WAKE_PRIVATE,
            INT_MAX, nullptr, nullptr, 0);
}
