//===- Progress.h - Signs of life during a long wait ------------*- C++ -*-===//
#ifndef DSHARD_TOOLS_DSHARD_RUN_PROGRESS_H
#define DSHARD_TOOLS_DSHARD_RUN_PROGRESS_H

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <string>
#include <thread>

namespace dshard::run {

/// From its making to its end, on standard error: on a terminal one line that
/// changes, after 2 seconds; elsewhere a new line every 5 seconds. `text` is
/// called on a thread of its own, with the seconds since the beginning.
class Progress {
public:
  explicit Progress(std::function<std::string(double seconds)> text);
  ~Progress();
  Progress(const Progress &) = delete;
  Progress &operator=(const Progress &) = delete;

private:
  void show();

  std::function<std::string(double)> text;
  std::mutex mutex;
  std::condition_variable changed;
  bool done = false;
  std::thread thread;
};

/// "step 12 of 100 [####------------------------------------], 3.1 steps/s, 28
/// s left"; `noun` is "step" or "run".
std::string progressText(const char *noun, int64_t done, int64_t total,
                         double seconds);

} // namespace dshard::run

#endif // DSHARD_TOOLS_DSHARD_RUN_PROGRESS_H
