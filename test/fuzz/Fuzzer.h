//===- Fuzzer.h - What the fuzzers share ------------------------*- C++ -*-===//
//
// libFuzzer calls LLVMFuzzerTestOneInput with one input after the other, and
// LLVMFuzzerCustomMutator to make the next from an old one. A crash or a report
// of a sanitizer is a finding; so is an input that takes longer or more memory
// than the flags of scripts/fuzz allow.
//
//===----------------------------------------------------------------------===//
#ifndef DSHARD_TEST_FUZZ_FUZZER_H
#define DSHARD_TEST_FUZZ_FUZZER_H

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>
#include <unistd.h>

extern "C" size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t maxSize);

namespace dshard::fuzz {

using Random = std::minstd_rand;

inline size_t below(Random &random, size_t bound) { return random() % bound; }

/// What makes arithmetic go wrong, and what makes it go right.
inline int64_t interestingNumber(Random &random) {
  static constexpr int64_t numbers[] = {
      0,         1,         -1,        2,         3,         4,
      7,         8,         16,        31,        64,        127,
      128,       255,       256,       65535,     INT32_MAX, INT32_MIN,
      1LL << 32, 1LL << 46, INT64_MAX, INT64_MIN, -2,        1000003};
  return numbers[below(random, sizeof(numbers) / sizeof(numbers[0]))];
}

/// One file in memory for a reader that wants a path; the same on every call.
/// Its folder is empty but for it.
class InputPath {
public:
  explicit InputPath(const char *name) {
    // /dev/shm is memory: nothing waits for a disk.
    std::string folder = "/dev/shm/dshard-fuzz-" + std::to_string(getpid());
    std::string command = "mkdir -p " + folder;
    if (std::system(command.c_str()) != 0)
      std::abort();
    path = folder + "/" + name;
  }
  ~InputPath() {
    std::remove(path.c_str());
    rmdir(path.substr(0, path.rfind('/')).c_str());
  }
  void write(const uint8_t *data, size_t size) const {
    FILE *file = std::fopen(path.c_str(), "wb");
    if (!file || std::fwrite(data, 1, size, file) != size)
      std::abort();
    std::fclose(file);
  }
  std::string path;
};

} // namespace dshard::fuzz

#endif // DSHARD_TEST_FUZZ_FUZZER_H
