//===- Wait.h - Spin briefly, then sleep ------------------------*- C++ -*-===//
//
// How every barrier of the runtime waits: about 20 us of spinning (a futex wake
// costs up to 90 us on a virtual machine), then sleeping, because there are
// often more ranks than cores.
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
  void store(uint32_t value) { word.store(value, std::memory_order_release); }

private:
  std::atomic<uint32_t> word{0};
  std::atomic<uint32_t> sleepers{0};
};

/// Monotonic time in nanoseconds.
int64_t nowNanoseconds();

} // namespace dshard::cpu

#endif // DSHARD_RUNTIME_CPU_WAIT_H
