//===- Wait.h - Spin briefly, then sleep ------------------------*- C++ -*-===//
//
// How every barrier of the runtime waits: spinning, because a futex wake costs
// up to 90 us on a virtual machine, then sleeping. It spins for 20 us, for
// there are often more ranks than cores; while every thread of the runtime that
// is awake can have a core of its own, it goes on for 500 us, yielding.
//
//===----------------------------------------------------------------------===//
#ifndef DSHARD_RUNTIME_CPU_WAIT_H
#define DSHARD_RUNTIME_CPU_WAIT_H

#include <atomic>
#include <cstdint>

namespace dshard::cpu {

/// A 32-bit word that threads wait on until it changes.
class WaitWord {
public:
  uint32_t load() const { return word.load(std::memory_order_acquire); }
  /// Returns once the word differs from `seen`.
  void waitWhile(uint32_t seen);
  /// Adds one and wakes every waiter.
  void bump();
  bool hasSleepers() const { return sleepers.load() != 0; }
  void store(uint32_t value) { word.store(value, std::memory_order_release); }

private:
  std::atomic<uint32_t> word{0};
  std::atomic<uint32_t> sleepers{0};
};

/// Lives as long as a thread of a pool: those that do not sleep are counted.
class AwakeThread {
public:
  AwakeThread();
  ~AwakeThread();
  AwakeThread(const AwakeThread &) = delete;
  AwakeThread &operator=(const AwakeThread &) = delete;
};

/// CPUs that this process may use (its affinity mask).
unsigned availableCpus();

/// Monotonic time in nanoseconds.
int64_t nowNanoseconds();

} // namespace dshard::cpu

#endif // DSHARD_RUNTIME_CPU_WAIT_H
