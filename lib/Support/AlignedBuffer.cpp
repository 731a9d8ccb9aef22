#include "dshard/Support/AlignedBuffer.h"

#include "dshard/Support/Text.h"

#include <cerrno>
#include <cstring>
#include <string>
#include <sys/mman.h>

namespace dshard {

constexpr uint64_t pageSize = 4096;

AlignedBuffer &AlignedBuffer::operator=(AlignedBuffer &&other) noexcept {
  std::swap(bytes, other.bytes);
  std::swap(byteCount, other.byteCount);
  std::swap(mappedSize, other.mappedSize);
  return *this;
}

AlignedBuffer::~AlignedBuffer() {
  if (bytes)
    munmap(bytes, mappedSize);
}

Result<AlignedBuffer> AlignedBuffer::allocate(uint64_t size, const char *what) {
  AlignedBuffer buffer;
  if (size == 0)
    return Result<AlignedBuffer>(std::move(buffer));
  uint64_t mapped = (size + pageSize - 1) / pageSize * pageSize;
  void *memory = MAP_FAILED;
  errno = ENOMEM;
  if (mapped >= size)
    memory = mmap(nullptr, mapped, PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED)
    return Status::error("cannot allocate " + formatBytes(size) + " for " +
                         what + ": " + std::strerror(errno));
  // Advice only: a kernel without huge pages refuses, and nothing is lost.
  (void)madvise(memory, mapped, MADV_NOHUGEPAGE);
  buffer.bytes = static_cast<uint8_t *>(memory);
  buffer.byteCount = size;
  buffer.mappedSize = mapped;
  return Result<AlignedBuffer>(std::move(buffer));
}

void AlignedBuffer::touch() {
  if (bytes)
    (void)madvise(bytes, mappedSize, MADV_HUGEPAGE);
  for (uint64_t offset = 0; offset < byteCount; offset += pageSize) {
    volatile uint8_t *byte = bytes + offset;
    *byte = *byte;
  }
}

} // namespace dshard
