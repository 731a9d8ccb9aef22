//===- AlignedBuffer.h - Owned, aligned memory ------------------*- C++ -*-===//
//
// Bytes at a multiple of 64 (a cache line, an AVX-512 register). Memory comes
// zeroed from the system and is not touched: pages become real when they are
// written. Until touch() huge pages are off: they make the process's high-water
// mark depend on the machine.
//
//===----------------------------------------------------------------------===//
#ifndef DSHARD_SUPPORT_ALIGNEDBUFFER_H
#define DSHARD_SUPPORT_ALIGNEDBUFFER_H

#include "dshard/Support/Status.h"

#include <cstddef>
#include <cstdint>

namespace dshard {

class AlignedBuffer {
public:
  AlignedBuffer() = default;
  AlignedBuffer(AlignedBuffer &&other) noexcept { *this = std::move(other); }
  AlignedBuffer &operator=(AlignedBuffer &&other) noexcept;
  AlignedBuffer(const AlignedBuffer &) = delete;
  AlignedBuffer &operator=(const AlignedBuffer &) = delete;
  ~AlignedBuffer();

  /// `size` zero bytes. `what` names the memory in the error ("the arena").
  static Result<AlignedBuffer> allocate(uint64_t size, const char *what);

  uint8_t *data() const { return bytes; }
  uint64_t size() const { return byteCount; }
  template <typename T> T *as() const { return reinterpret_cast<T *>(bytes); }

  /// Writes one byte per page, so that memory is counted before it is used; in
  /// huge pages where the system has them, which then cost nothing more.
  void touch();

private:
  uint8_t *bytes = nullptr;
  uint64_t byteCount = 0;
  uint64_t mappedSize = 0;
};

} // namespace dshard

#endif // DSHARD_SUPPORT_ALIGNEDBUFFER_H
