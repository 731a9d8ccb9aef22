//===- Kernel.h - What the code in a plan looks like ------------*- C++ -*-===//
//
// The one calling convention of generated code: every kernel in a plan is a
// function of this type. `buffers` are the instruction's uses in order (inputs,
// then outputs), 64-byte aligned; the kernel does iterations [begin, end) of
// its extent, which threads split freely at multiples of its grain. A kernel
// keeps no state, calls nothing, and may run on several threads at once.
//
//===----------------------------------------------------------------------===//
#ifndef DSHARD_RUNTIME_KERNEL_H
#define DSHARD_RUNTIME_KERNEL_H

#include <cstdint>

namespace dshard {

using KernelFunction = void (*)(void *const *buffers, int64_t begin,
                                int64_t end);

} // namespace dshard

#endif // DSHARD_RUNTIME_KERNEL_H
