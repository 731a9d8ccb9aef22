//===- Memory.h - Device memory and who touched it --------------*- C++ -*-===//
//
// One reservation per device; an allocation is a range in it with a gap behind
// it. Beside every word lies who wrote and who read it during the launch that
// runs: that is where races between blocks, doubled writes and the ranges that
// the launch touched come from.
//
//===----------------------------------------------------------------------===//
#ifndef DSHARD_EMULATOR_EXECUTION_MEMORY_H
#define DSHARD_EMULATOR_EXECUTION_MEMORY_H

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace dshard::emulator {

struct Range {
  uint64_t begin = 0, end = 0;
  bool writable = true;
};
/// A range of memory that an operation touched.
struct Access {
  uint64_t begin, end;
  bool write;
};

/// Per granule of global memory, for the launch that runs.
struct LaunchWord {
  uint32_t writer; // thread of the launch + 1; atomicWriter
  uint32_t reader; // block + 1 or manyReaders; readOnlyReader is a flag
};
constexpr uint32_t atomicWriter = 0xffffffffu;
constexpr uint32_t manyReaders = 0x3fffffffu;
constexpr uint32_t readOnlyReader = 0x40000000u;

class DeviceMemory {
public:
  /// Reserves address space for `capacity` bytes; nothing is committed.
  explicit DeviceMemory(uint64_t capacity);
  ~DeviceMemory();
  bool valid() const { return base != nullptr; }

  /// 0 when `bytes` more do not fit.
  uint64_t allocate(uint64_t bytes);
  bool release(uint64_t address);
  uint64_t usedBytes() const { return used; }
  uint64_t totalBytes() const { return capacity; }
  /// True if [begin, begin + bytes) lies in one allocation.
  bool contains(uint64_t begin, uint64_t bytes) const;
  /// The allocation that holds `address`, or an empty range.
  Range allocationOf(uint64_t address) const;
  std::vector<Range> allocations() const;
  bool ownsAddress(uint64_t address) const {
    return address - reinterpret_cast<uint64_t>(base) < reserved;
  }

  /// The entry of the granule at `address` (which this device owns).
  LaunchWord *word(uint64_t address, unsigned granuleShift) {
    uint64_t offset = address - reinterpret_cast<uint64_t>(base);
    touchPage(offset >> pageShift);
    return words + (offset >> granuleShift);
  }
  uint64_t origin() const { return reinterpret_cast<uint64_t>(base); }
  LaunchWord *allWords() { return words; }
  /// Notes that an access lies in this page (4 KiB from the origin on).
  void touchPage(uint64_t page) {
    if (!touched[page]) {
      touched[page] = 1;
      touchedPages.push_back(page);
    }
  }
  static constexpr unsigned pageShift = 12;
  /// The ranges touched since the last call, in order of address; clears them.
  std::vector<Access> takeTouched(unsigned granuleShift);

private:
  static constexpr uint64_t gap = 512;
  uint8_t *base = nullptr;
  uint64_t capacity = 0, reserved = 0, used = 0;
  LaunchWord *words = nullptr;
  uint8_t *touched = nullptr;
  std::vector<uint64_t> touchedPages;
  std::map<uint64_t, uint64_t> blocks; // address -> bytes
};

} // namespace dshard::emulator

#endif // DSHARD_EMULATOR_EXECUTION_MEMORY_H
