//===- Progress.cpp - Signs of life during a long wait --------------------===//

#include "Progress.h"

#include "dshard/Runtime/Cpu/Wait.h"

#include <chrono>
#include <cstdio>
#include <unistd.h>

using namespace dshard;
using namespace dshard::run;

Progress::Progress(std::function<std::string(double)> text)
    : text(std::move(text)) {
  thread = std::thread([this] { show(); });
}

Progress::~Progress() {
  {
    std::lock_guard<std::mutex> lock(mutex);
    done = true;
  }
  changed.notify_all();
  thread.join();
}

void Progress::show() {
  bool terminal = isatty(STDERR_FILENO);
  int64_t begin = cpu::nowNanoseconds();
  auto wait = std::chrono::milliseconds(terminal ? 2000 : 5000);
  bool shown = false;
  std::unique_lock<std::mutex> lock(mutex);
  while (!changed.wait_for(lock, wait, [this] { return done; })) {
    std::string line =
        text(static_cast<double>(cpu::nowNanoseconds() - begin) * 1e-9);
    if (terminal) {
      std::fprintf(stderr, "\r\033[K%s", line.c_str());
      wait = std::chrono::milliseconds(200);
      shown = true;
    } else {
      std::fprintf(stderr, "dshard-run: %s\n", line.c_str());
    }
  }
  if (shown)
    std::fprintf(stderr, "\r\033[K");
}

std::string dshard::run::progressText(const char *noun, int64_t done,
                                      int64_t total, double seconds) {
  constexpr int64_t width = 40;
  std::string text = std::string(noun) + " " + std::to_string(done) + " of " +
                     std::to_string(total) + " [";
  for (int64_t i = 0; i < width; ++i)
    text += i * total < done * width ? '#' : '-';
  text += "]";
  if (done == 0 || seconds <= 0)
    return text;
  double rate = static_cast<double>(done) / seconds;
  char numbers[96];
  std::snprintf(numbers, sizeof(numbers), ", %.3g %ss/s, %.0f s left", rate,
                noun, static_cast<double>(total - done) / rate);
  return text + numbers;
}
