//===- Convert.h - Element types: sizes, casts, strided copies --*- C++ -*-===//
//
// The hand-written data movement of the CPU backend: n-d copies with strides
// and casts, as `load` and COPY need them. Narrowing rounds to nearest even.
//
//===----------------------------------------------------------------------===//
#ifndef DSHARD_RUNTIME_CPU_CONVERT_H
#define DSHARD_RUNTIME_CPU_CONVERT_H

#include "dshard/Plan/Format.h"
#include "dshard/Runtime/Operations.h"

#include <cstdint>

namespace dshard::cpu {

/// Bytes of one element; 0 for `none`.
inline int64_t elementBytes(plan::DataType type) {
  return static_cast<int64_t>(plan::byteSize(type));
}

using ::dshard::StridedCopy;
using plan::maxDims;

/// out[...] = (outType)in[...]. Floating to integer truncates; anything to
/// boolean is "not zero". Blocked, so that transpositions run at copy speed.
void copyStrided(const StridedCopy &copy, const void *in, plan::DataType inType,
                 void *out, plan::DataType outType);

/// Element as a double (64-bit integers are rounded).
double elementAsDouble(const void *data, plan::DataType type, int64_t index);

/// Finds the first of `count` integers that is neither in [low, high] nor
/// `*extra` (null: nothing else); false when there is none, and for types that
/// are no integers.
bool findOutside(const void *data, plan::DataType type, int64_t count,
                 int64_t low, int64_t high, const int64_t *extra,
                 int64_t &index, int64_t &value);

/// Writes a double as an element of `type`.
void storeDouble(void *data, plan::DataType type, int64_t index, double value);

} // namespace dshard::cpu

#endif // DSHARD_RUNTIME_CPU_CONVERT_H
