//===- Format.h - The plan file's frame -------------------------*- C++ -*-===//
//
//   offset 0                FileHeader, 64 bytes
//   metadataOffset (64)     FlatBuffer of plan.fbs
//   sectionsOffset          sections, page aligned (Image.offset counts from
//                           here), up to fileSize
//
// All numbers are little endian. The checksum is XXH3-128 of the first 48 bytes
// of the header followed by everything after the header: every byte of the file
// but the checksum itself is covered.
//
//===----------------------------------------------------------------------===//
#ifndef DSHARD_PLAN_FORMAT_H
#define DSHARD_PLAN_FORMAT_H

#include "dshard/Plan/plan_generated.h"
#include "dshard/Support/Status.h"

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace dshard::plan {

/// Plan.version and FileHeader.version: a reader takes exactly its own.
constexpr uint32_t formatVersion = 4;
constexpr uint64_t pageSize = 4096;
/// Buffers and states begin at multiples of this many bytes,
constexpr uint64_t bufferAlignment = 64;
/// in plans for GPUs of this many.
constexpr uint64_t gpuBufferAlignment = 256;
/// The architecture of a plan for GPUs, 90 of "cuda:sm_90"; 0 for any other
/// target.
int gpuArchitecture(std::string_view target);
/// Where buffers and states of a plan for `target` begin.
inline uint64_t bufferAlignmentOf(std::string_view target) {
  return gpuArchitecture(target) ? gpuBufferAlignment : bufferAlignment;
}

// Limits that the reader enforces, so that the runtime may use fixed arrays.
constexpr int64_t maxDims = 8;
constexpr uint32_t maxRanks = 1u << 20;
constexpr uint32_t maxStreams = 64;
constexpr uint32_t maxNesting = 64; // of blocks
// Of kernels on GPUs, what every architecture has.
constexpr uint32_t maxGrid = 0x7fffffffu; // thread blocks along x
constexpr uint32_t maxBlock = 1024;       // threads of a block
constexpr uint32_t maxShared = 227 * 1024;
constexpr uint32_t maxGpuBuffers = 512;           // 4 KiB of parameters
constexpr uint64_t maxRegion = uint64_t{1} << 48; // bytes of states, arena, ...

struct Hash128 {
  uint64_t low = 0;
  uint64_t high = 0;
  bool operator==(const Hash128 &other) const {
    return low == other.low && high == other.high;
  }
  bool operator!=(const Hash128 &other) const { return !(*this == other); }
};
/// 32 hexadecimal digits.
std::string toString(const Hash128 &hash);

struct FileHeader {
  char magic[4]; // "DSPF"
  uint32_t version;
  uint64_t metadataOffset;
  uint64_t metadataSize;
  uint64_t sectionsOffset;
  uint64_t sectionsSize;
  uint64_t fileSize;
  Hash128 checksum;
};
static_assert(sizeof(FileHeader) == 64, "the header is 64 bytes");
constexpr char fileMagic[4] = {'D', 'S', 'P', 'F'};

/// The checksum of a whole file image of at least 64 bytes.
Hash128 computeChecksum(const void *file, uint64_t size);

/// Activation of MATMUL, the value `activation`.
enum class Activation : uint8_t { none = 0, relu, geluErf, geluTanh, silu };
constexpr int activationCount = 5;
const char *toString(Activation activation);

/// WeightSource.identity: XXH3-64 of the range's size (8 bytes, little endian),
/// its first 64 KiB and its last 64 KiB (the whole range, once, when it has at
/// most 128 KiB). `data` is the range.
uint64_t weightIdentity(const void *data, uint64_t size);
/// WeightSource.full_hash: XXH3-128 of the range.
Hash128 weightHash(const void *data, uint64_t size);

/// Bytes of one element; 0 for none.
uint64_t byteSize(DataType type);
/// "f32", "bool"; as tables, reports and the command line write it.
const char *toString(DataType type);
bool isFloat(DataType type);
/// Integers and booleans.
bool isInteger(DataType type);
/// Product of dims; 1 for none.
int64_t elementCount(const std::vector<int64_t> &dims);
inline uint64_t alignTo(uint64_t value, uint64_t alignment) {
  return (value + alignment - 1) / alignment * alignment;
}

} // namespace dshard::plan

#endif // DSHARD_PLAN_FORMAT_H
