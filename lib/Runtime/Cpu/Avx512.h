//===- Avx512.h - What the AVX-512 sources share ----------------*- C++ -*-===//
//
// Nothing here has external linkage but useVnniQuantized: a function that two
// instruction sets compile must not become one.
//
//===----------------------------------------------------------------------===//
#ifndef DSHARD_LIB_RUNTIME_CPU_AVX512_H
#define DSHARD_LIB_RUNTIME_CPU_AVX512_H

#include "Kernels.h"

#if defined(__x86_64__)
#include <immintrin.h>

namespace dshard {
namespace cpu {

/// Puts the integer products with block-quantised operands into the table,
/// where the CPU has VNNI (QuantizedAvx512.cpp).
void useVnniQuantized(Kernels &table);

} // namespace cpu
} // namespace dshard

namespace {

/// The first n of 16 lanes.
inline __mmask16 firstLanes(int64_t n) {
  return n >= 16 ? 0xffff : static_cast<__mmask16>((1u << n) - 1);
}

} // namespace

#endif // __x86_64__

#endif // DSHARD_LIB_RUNTIME_CPU_AVX512_H
