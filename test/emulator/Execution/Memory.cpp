//===- Memory.cpp - Device memory and who touched it ----------------------===//
#include "Execution/Memory.h"

#include <algorithm>
#include <cstring>
#include <sys/mman.h>

namespace dshard::emulator {

static void *reserve(uint64_t bytes) {
  void *memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  return memory == MAP_FAILED ? nullptr : memory;
}

DeviceMemory::DeviceMemory(uint64_t capacity) : capacity(capacity) {
  // Gaps between allocations come on top.
  reserved = capacity + (capacity >> 2) + (64u << 20);
  // One entry per byte is the finest granule: address space only.
  base = static_cast<uint8_t *>(reserve(reserved));
  words = static_cast<LaunchWord *>(reserve(reserved * sizeof(LaunchWord)));
  touched = static_cast<uint8_t *>(reserve((reserved >> pageShift) + 1));
  if (!words || !touched)
    base = nullptr;
}

DeviceMemory::~DeviceMemory() {
  if (base)
    munmap(base, reserved);
  if (words)
    munmap(words, reserved * sizeof(LaunchWord));
  if (touched)
    munmap(touched, (reserved >> pageShift) + 1);
}

uint64_t DeviceMemory::allocate(uint64_t bytes) {
  if (!base || bytes == 0 || bytes > capacity - used)
    return 0;
  // First fit between the blocks, 512-byte aligned as cuMemAlloc's are.
  uint64_t at = reinterpret_cast<uint64_t>(base) + gap;
  at = (at + 511) / 512 * 512;
  uint64_t limit = reinterpret_cast<uint64_t>(base) + reserved;
  for (const auto &[address, size] : blocks) {
    if (at + bytes + gap <= address)
      break;
    at = (address + size + gap + 511) / 512 * 512;
  }
  if (at + bytes + gap > limit)
    return 0;
  blocks[at] = bytes;
  used += bytes;
  // Fresh memory holds nothing useful: a NaN in every float (of the first
  // 64 MiB: an arena should not be committed by this).
  std::memset(reinterpret_cast<void *>(at), 0xff,
              std::min<uint64_t>(bytes, 64u << 20));
  return at;
}

bool DeviceMemory::release(uint64_t address) {
  auto found = blocks.find(address);
  if (found == blocks.end())
    return false;
  used -= found->second;
  blocks.erase(found);
  return true;
}

Range DeviceMemory::allocationOf(uint64_t address) const {
  auto after = blocks.upper_bound(address);
  if (after == blocks.begin())
    return {};
  --after;
  if (address >= after->first + after->second)
    return {};
  return {after->first, after->first + after->second, true};
}

bool DeviceMemory::contains(uint64_t begin, uint64_t bytes) const {
  if (bytes == 0)
    return true;
  Range range = allocationOf(begin);
  return range.end && bytes <= range.end - begin;
}

std::vector<Range> DeviceMemory::allocations() const {
  std::vector<Range> ranges;
  for (const auto &[address, size] : blocks)
    ranges.push_back({address, address + size, true});
  return ranges;
}

std::vector<Access> DeviceMemory::takeTouched(unsigned granuleShift) {
  std::sort(touchedPages.begin(), touchedPages.end());
  std::vector<Access> reads, writes;
  uint64_t origin = reinterpret_cast<uint64_t>(base);
  uint64_t granule = 1ull << granuleShift;
  auto add = [&](std::vector<Access> &list, uint64_t at, bool write) {
    if (!list.empty() && list.back().end == at)
      list.back().end = at + granule;
    else
      list.push_back({at, at + granule, write});
  };
  for (uint64_t page : touchedPages) {
    uint64_t first = (page << pageShift) >> granuleShift;
    uint64_t count = (1ull << pageShift) >> granuleShift;
    for (uint64_t i = first; i < first + count; ++i) {
      LaunchWord &entry = words[i];
      if (entry.writer)
        add(writes, origin + (i << granuleShift), true);
      if (entry.reader)
        add(reads, origin + (i << granuleShift), false);
    }
    std::memset(words + first, 0, count * sizeof(LaunchWord));
    touched[page] = 0;
  }
  touchedPages.clear();
  reads.insert(reads.end(), writes.begin(), writes.end());
  return reads;
}

} // namespace dshard::emulator
