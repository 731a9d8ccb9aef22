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

void WaitWord::waitWhile(uint32_t seen) {
  if (load() != seen)
    return;
  constexpr int64_t spinNanoseconds = 20000;
  int64_t deadline = nowNanoseconds() + spinNanoseconds;
  do {
    for (int i = 0; i < 64; ++i) {
      if (load() != seen)
        return;
      relax();
    }
  } while (nowNanoseconds() < deadline);
  // seq_cst on both sides: either bump() sees the sleeper or the futex call
  // sees the new word.
  sleepers.fetch_add(1);
  while (word.load() == seen)
    syscall(SYS_futex, reinterpret_cast<uint32_t *>(&word), FUTEX_WAIT_PRIVATE,
            seen, nullptr, nullptr, 0);
  sleepers.fetch_sub(1);
}

void WaitWord::bump() {
  word.fetch_add(1);
  if (sleepers.load())
    syscall(SYS_futex, reinterpret_cast<uint32_t *>(&word), FUTEX_WAKE_PRIVATE,
            INT_MAX, nullptr, nullptr, 0);
}
