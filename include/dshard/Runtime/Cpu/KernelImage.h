//===- KernelImage.h - Code of a plan, made executable ----------*- C++ -*-===//
//
// The loader of the plan's code images: ELF shared objects for x86-64 that need
// nothing. Their loadable segments are copied to anonymous pages, which then
// get the segments' protection; they are never handed to the dynamic loader.
//
// Refused, each with its reason: another format or machine, needed libraries,
// dynamic relocations, constructors and destructors, thread-local storage, an
// interpreter, undefined symbols' relocations, segments that are writable and
// executable, and anything that reaches beyond the image.
//
//===----------------------------------------------------------------------===//
#ifndef DSHARD_RUNTIME_CPU_KERNELIMAGE_H
#define DSHARD_RUNTIME_CPU_KERNELIMAGE_H

#include "dshard/Runtime/Kernel.h"
#include "dshard/Support/Status.h"

#include <cstdint>
#include <memory>
#include <vector>

namespace dshard::cpu {

class KernelImage {
public:
  static Result<std::unique_ptr<KernelImage>> load(const uint8_t *data,
                                                   uint64_t size);
  ~KernelImage();
  KernelImage(const KernelImage &) = delete;
  KernelImage &operator=(const KernelImage &) = delete;

  /// The function at a virtual address of the image; an error when the address
  /// is not inside an executable segment.
  Result<KernelFunction> function(uint64_t address) const;

private:
  KernelImage() = default;
  struct Range {
    uint64_t begin, end;
  };
  uint8_t *memory = nullptr;
  uint64_t bytes = 0;
  std::vector<Range> code;
};

} // namespace dshard::cpu

#endif // DSHARD_RUNTIME_CPU_KERNELIMAGE_H
