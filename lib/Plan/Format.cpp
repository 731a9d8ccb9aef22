#include "dshard/Plan/Format.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <algorithm>
#include <cstddef>
#include <cstdio>

namespace dshard::plan {

int gpuArchitecture(std::string_view target) {
  constexpr std::string_view prefix = "cuda:sm_";
  if (target.substr(0, prefix.size()) != prefix)
    return 0;
  int number = 0;
  for (char digit : target.substr(prefix.size())) {
    if (digit < '0' || digit > '9' || number > 999)
      return 0;
    number = number * 10 + (digit - '0');
  }
  return number;
}

std::string toString(const Hash128 &hash) {
  char text[33];
  std::snprintf(text, sizeof(text), "%016llx%016llx",
                static_cast<unsigned long long>(hash.high),
                static_cast<unsigned long long>(hash.low));
  return text;
}

Hash128 computeChecksum(const void *file, uint64_t size) {
  const char *bytes = static_cast<const char *>(file);
  XXH3_state_t *state = XXH3_createState();
  XXH3_128bits_reset(state);
  XXH3_128bits_update(state, bytes, offsetof(FileHeader, checksum));
  XXH3_128bits_update(state, bytes + sizeof(FileHeader),
                      size - sizeof(FileHeader));
  XXH128_hash_t hash = XXH3_128bits_digest(state);
  XXH3_freeState(state);
  return {hash.low64, hash.high64};
}

uint64_t weightIdentity(const void *data, uint64_t size) {
  constexpr uint64_t piece = 64 * 1024;
  const char *bytes = static_cast<const char *>(data);
  XXH3_state_t *state = XXH3_createState();
  XXH3_64bits_reset(state);
  XXH3_64bits_update(state, &size, sizeof(size));
  if (size <= 2 * piece) {
    XXH3_64bits_update(state, bytes, size);
  } else {
    XXH3_64bits_update(state, bytes, piece);
    XXH3_64bits_update(state, bytes + size - piece, piece);
  }
  uint64_t hash = XXH3_64bits_digest(state);
  XXH3_freeState(state);
  return hash;
}

Hash128 weightHash(const void *data, uint64_t size) {
  XXH128_hash_t hash = XXH3_128bits(data, size);
  return {hash.low64, hash.high64};
}

const char *toString(Activation activation) {
  static const char *const names[activationCount] = {"none", "relu", "gelu_erf",
                                                     "gelu_tanh", "silu"};
  unsigned index = static_cast<unsigned>(activation);
  return index < activationCount ? names[index] : "?";
}

uint64_t byteSize(DataType type) {
  switch (type) {
  case DataType::none:
    return 0;
  case DataType::boolean:
  case DataType::i8:
  case DataType::u8:
    return 1;
  case DataType::i16:
  case DataType::u16:
  case DataType::f16:
  case DataType::bf16:
    return 2;
  case DataType::i32:
  case DataType::u32:
  case DataType::f32:
    return 4;
  case DataType::i64:
  case DataType::u64:
  case DataType::f64:
    return 8;
  }
  return 0;
}

const char *toString(DataType type) {
  return type == DataType::boolean ? "bool" : EnumNameDataType(type);
}

bool isFloat(DataType type) {
  return type == DataType::f16 || type == DataType::bf16 ||
         type == DataType::f32 || type == DataType::f64;
}

bool isInteger(DataType type) {
  return type != DataType::none && !isFloat(type);
}

int64_t elementCount(const std::vector<int64_t> &dims) {
  int64_t count = 1;
  for (int64_t dim : dims)
    count *= dim;
  return count;
}

} // namespace dshard::plan
