//===- Npy.h - numpy's array files ------------------------------*- C++ -*-===//
//
// Reads versions 1, 2 and 3 of .npy, little endian and in C order, and writes
// version 1. numpy has no bfloat16: it is written as its bits, '<u2', and read
// from '<u2' or from the two-byte type '|V2' that ml_dtypes leaves.
//
// Errors begin with the path: another format, Fortran order, a type without a
// counterpart, or a size that does not fit the shape.
//
//===----------------------------------------------------------------------===//
#ifndef DSHARD_RUNTIME_NPY_H
#define DSHARD_RUNTIME_NPY_H

#include "dshard/Plan/Format.h"
#include "dshard/Support/AlignedBuffer.h"
#include "dshard/Support/Status.h"

#include <cstdint>
#include <string>
#include <vector>

namespace dshard {

struct NpyArray {
  plan::DataType type = plan::DataType::none;
  std::vector<int64_t> dims;
  AlignedBuffer data;
};

/// `wanted` decides what two bytes without a meaning of their own are: '<u2' is
/// bf16 where bf16 is wanted.
Result<NpyArray> readNpy(const std::string &path,
                         plan::DataType wanted = plan::DataType::none);

/// Appears whole or not at all.
Status writeNpy(const std::string &path, plan::DataType type,
                const std::vector<int64_t> &dims, const void *data);

} // namespace dshard

#endif // DSHARD_RUNTIME_NPY_H
