//===- Reduce.h - Element-wise reduction in member order --------*- C++ -*-===//
#ifndef DSHARD_LIB_RUNTIME_COMM_REDUCE_H
#define DSHARD_LIB_RUNTIME_COMM_REDUCE_H

#include "dshard/Plan/Format.h"

#include <cstdint>
#include <vector>

namespace dshard {

/// out[i] = in[0][i] op in[1][i] op ... for i in [0, count); `out` may be one
/// of the operands. bf16 and f16 accumulate in fp32 and round once; mean
/// divides the sum. On booleans sum and max are "or", min and product are
/// "and".
void reduceInOrder(plan::DataType type, plan::ReductionKind kind,
                   const std::vector<const void *> &in, void *out,
                   int64_t count);

/// Mean of integers or booleans is not defined.
bool isReduction(plan::DataType type, plan::ReductionKind kind);

} // namespace dshard

#endif // DSHARD_LIB_RUNTIME_COMM_REDUCE_H
