//===- Philox.h - Counter-based random numbers ------------------*- C++ -*-===//
//
// Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3",
// SC11; the same as curand's and numpy's generators of that name). Every random
// element of dshard is a pure function of (seed, name, global element index),
// so a shard draws its own elements and every mesh sees the same tensor.
//
// The exact definition, which scripts/fill-weights repeats in numpy bit for
// bit:
//
//   seed         = unsigned 64 bits, 0 unless given
//   hash         = FNV-1a 64 of the UTF-8 bytes of the tensor's name
//   key64        = seed XOR hash
//   key          = (low 32 bits of key64, high 32 bits of key64)
//   counter      = (low 32 bits of i / 4, high 32 bits of i / 4, 0, 0)
//   word(i)      = philox4x32_10(counter, key)[i % 4]
//   unit(i)      = (word(i) >> 8) * 2^-24           in [0, 1), exact in f32
//   symmetric(i) = ((word(i) >> 8) - 2^23) * 2^-23  in [-1, 1), exact in f32
//
// i is the row-major index in the whole (global) tensor; for a weight, in the
// tensor as its bytes lie in the file (before any transposition).
//
//   weight, fan_in > 0:  f32(f64(f32(sqrt(3.0 / fan_in))) * symmetric(i))
//   norm, fan_in = 0:    f32(1.0 + f64(f32(0.1)) * symmetric(i))
//                        (f64 arithmetic, where both products are exact, so
//                        that a fused multiply-add changes nothing)
//   weight of type uint8 (packed 4-bit or 8-bit numbers): word(i) >> 24
//   floating-point input: symmetric(i)
//   integer input in [low, low + count), 1 <= count <= 2^32:
//                        low + ((word(i) * count) >> 32) in 64-bit integers
//   boolean input, mask: true (1)
//
// A value of another floating-point type is the f32 value converted (round to
// nearest even). A weight of another integer type has no random value: refuse
// it.
//
//===----------------------------------------------------------------------===//
#ifndef DSHARD_SUPPORT_PHILOX_H
#define DSHARD_SUPPORT_PHILOX_H

#include <array>
#include <cmath>
#include <cstdint>
#include <string_view>

namespace dshard {

/// One block: four words from a 128-bit counter and a 64-bit key.
inline std::array<uint32_t, 4> philox4x32(std::array<uint32_t, 4> counter,
                                          std::array<uint32_t, 2> key) {
  for (int round = 0; round < 10; ++round) {
    uint64_t product0 = uint64_t{0xD2511F53u} * counter[0];
    uint64_t product1 = uint64_t{0xCD9E8D57u} * counter[2];
    counter = {static_cast<uint32_t>(product1 >> 32) ^ counter[1] ^ key[0],
               static_cast<uint32_t>(product1),
               static_cast<uint32_t>(product0 >> 32) ^ counter[3] ^ key[1],
               static_cast<uint32_t>(product0)};
    key[0] += 0x9E3779B9u;
    key[1] += 0xBB67AE85u;
  }
  return counter;
}

/// FNV-1a 64 of the bytes of a name.
inline uint64_t hashName(std::string_view name) {
  uint64_t hash = 0xcbf29ce484222325ull;
  for (char c : name) {
    hash ^= static_cast<unsigned char>(c);
    hash *= 0x100000001b3ull;
  }
  return hash;
}

/// The random stream of one named tensor; elements may be asked for in any
/// order. Consecutive indices reuse a block.
class RandomStream {
public:
  RandomStream(uint64_t seed, std::string_view name)
      : key{static_cast<uint32_t>(seed ^ hashName(name)),
            static_cast<uint32_t>((seed ^ hashName(name)) >> 32)} {}

  uint32_t word(uint64_t index) {
    uint64_t block = index / 4;
    if (block != cachedBlock) {
      cached = philox4x32({static_cast<uint32_t>(block),
                           static_cast<uint32_t>(block >> 32), 0, 0},
                          key);
      cachedBlock = block;
    }
    return cached[index % 4];
  }
  /// Uniform in [0, 1).
  float unit(uint64_t index) {
    return static_cast<float>(word(index) >> 8) * 0x1p-24f;
  }
  /// Uniform in [-1, 1).
  float symmetric(uint64_t index) {
    return static_cast<float>(static_cast<int32_t>(word(index) >> 8) -
                              (1 << 23)) *
           0x1p-23f;
  }
  /// Uniform in [low, low + count); count is in [1, 2^32].
  int64_t integer(uint64_t index, int64_t low, uint64_t count) {
    return low + static_cast<int64_t>((uint64_t{word(index)} * count) >> 32);
  }
  /// A weight of type uint8.
  uint8_t byte(uint64_t index) {
    return static_cast<uint8_t>(word(index) >> 24);
  }
  /// A weight with the given fan_in: +-sqrt(3 / fan_in); fan_in 0: 1 +- 0.1.
  float weight(uint64_t index, uint64_t fanIn) {
    if (fanIn != weightFanIn) {
      weightFanIn = fanIn;
      weightBound =
          fanIn
              ? static_cast<float>(std::sqrt(3.0 / static_cast<double>(fanIn)))
              : 0.1f;
    }
    double delta = double{weightBound} * double{symmetric(index)};
    return static_cast<float>(fanIn ? delta : 1.0 + delta);
  }

private:
  std::array<uint32_t, 2> key;
  std::array<uint32_t, 4> cached = {};
  uint64_t cachedBlock = ~uint64_t{0};
  uint64_t weightFanIn = 0;
  float weightBound = 0.1f;
};

} // namespace dshard

#endif // DSHARD_SUPPORT_PHILOX_H
