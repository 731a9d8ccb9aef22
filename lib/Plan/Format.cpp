#include "dshard/Plan/Format.h"
#include "dshard/Plan/WeightIdentity.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <algorithm>
#include <cstddef>
#include <cstdio>
#include <fcntl.h>

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

/// What the identity covers at each end of a range.
static constexpr uint64_t identityPiece = 64 * 1024;

/// `head` and `tail` are the range's ends, or the whole range and nothing.
static uint64_t hashIdentity(uint64_t size, const char *head, uint64_t headSize,
                             const char *tail, uint64_t tailSize) {
  XXH3_state_t *state = XXH3_createState();
  XXH3_64bits_reset(state);
  XXH3_64bits_update(state, &size, sizeof(size));
  XXH3_64bits_update(state, head, headSize);
  XXH3_64bits_update(state, tail, tailSize);
  uint64_t hash = XXH3_64bits_digest(state);
  XXH3_freeState(state);
  return hash;
}

uint64_t weightIdentity(const void *data, uint64_t size) {
  const char *bytes = static_cast<const char *>(data);
  if (size <= 2 * identityPiece)
    return hashIdentity(size, bytes, size, bytes, 0);
  return hashIdentity(size, bytes, identityPiece, bytes + size - identityPiece,
                      identityPiece);
}

Result<uint64_t> weightIdentity(const InputFile &file, uint64_t offset,
                                uint64_t size) {
  uint64_t head = size <= 2 * identityPiece ? size : identityPiece;
  uint64_t tail = size <= 2 * identityPiece ? 0 : identityPiece;
  std::vector<char> bytes(head + tail);
  posix_fadvise(file.descriptor(), 0, 0, POSIX_FADV_RANDOM);
  if (Status s = file.readAt(bytes.data(), head, offset); !s)
    return s;
  if (Status s = file.readAt(bytes.data() + head, tail, offset + size - tail);
      !s)
    return s;
  return hashIdentity(size, bytes.data(), head, bytes.data() + head, tail);
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
