//===- Npy.h - numpy's .npy files -------------------------------*- C++ -*-===//
//
// Format: numpy.lib.format, versions 1 to 3. C order and little endian only;
// anything else is refused with the numpy call that helps. Element types by
// their numpy names: f2 f4 f8, i1 i2 i4 i8, u1 u2 u4 u8, b1 (bool). bfloat16,
// which numpy lacks, is V2 (what ml_dtypes writes) and called "bf16" here.
//
//===----------------------------------------------------------------------===//
#ifndef DSHARD_SUPPORT_NPY_H
#define DSHARD_SUPPORT_NPY_H

#include "dshard/Support/Status.h"

#include <cstdint>
#include <string>
#include <vector>

namespace dshard {

struct NpyArray {
  std::string type; ///< "f4", "i8", "b1", "bf16", ...
  std::vector<int64_t> shape;
  std::string bytes; ///< row-major, little endian
};

/// Bytes of one element of a type as above; 0 for an unknown one.
int64_t getNpyElementBytes(const std::string &type);

/// Errors begin with the path.
Result<NpyArray> readNpy(const std::string &path);
Status writeNpy(const std::string &path, const std::string &type,
                const std::vector<int64_t> &shape, const void *data);

} // namespace dshard

#endif // DSHARD_SUPPORT_NPY_H
