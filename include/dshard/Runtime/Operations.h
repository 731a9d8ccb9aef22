//===- Operations.h - What a device computes by library calls ---*- C++ -*-===//
//
// The arguments of the plan's library instructions, resolved to addresses: what
// a backend of Device.h is handed. Everything else is generated code.
//
//===----------------------------------------------------------------------===//
#ifndef DSHARD_RUNTIME_OPERATIONS_H
#define DSHARD_RUNTIME_OPERATIONS_H

#include "dshard/Plan/Format.h"
#include "dshard/Runtime/Kernel.h"

#include <cstdint>

namespace dshard {

/// One product. Strides count elements. When `packed`, rhs is the packed form
/// (one for all batches) and ldb, strideRhs and transposeRhs are unused.
/// bias has n elements; residual is [m, n] with row stride ldr.
///
/// With `scales`, rhs is block-quantised [n, ceil(k / block), block] of u8 or
/// of nibbles, low first: element k of column j is scales[j, k / block] *
/// (rhs[j, k] - zero). zeroPoints: [n, blocks] of u8, or of nibbles in
/// ceil(blocks / 2) bytes a column; absent: 8, or 128. Then batch is 1, lhs is
/// not transposed and ldb, strideRhs, transposeRhs and packed are unused.
struct MatmulArguments {
  int64_t batch = 1, m = 0, n = 0, k = 0;
  int64_t lda = 0, ldb = 0, ldc = 0, ldr = 0;
  int64_t strideLhs = 0, strideRhs = 0, strideOut = 0, strideResidual = 0;
  bool transposeLhs = false; // lhs is stored [k, m]
  bool transposeRhs = false; // rhs is stored [n, k]
  bool packed = false;
  plan::Activation activation = plan::Activation::none;
  plan::DataType lhsType = plan::DataType::f32;
  plan::DataType rhsType = plan::DataType::f32;
  plan::DataType biasType = plan::DataType::f32;
  plan::DataType residualType = plan::DataType::f32;
  plan::DataType outType = plan::DataType::f32;
  const void *lhs = nullptr;
  const void *rhs = nullptr;
  const void *bias = nullptr;     // may be absent
  const void *residual = nullptr; // may be absent; may be out
  void *out = nullptr;
  const float *scales = nullptr;
  const uint8_t *zeroPoints = nullptr;
  int64_t block = 0;
  int bits = 0;
  /// The lhs may be rounded to 8 bits in blocks of 32 (largest magnitude /
  /// 127).
  bool int8 = false;
};

/// See Cpu/Attention.h for the meaning.
struct AttentionArguments {
  int64_t batch = 1, heads = 1, kvHeads = 1, s = 0, t = 0, d = 0, dv = 0;
  /// Element strides of (batch, head, row); the last dim is contiguous.
  int64_t qStrides[3], kStrides[3], vStrides[3], outStrides[3];
  bool causal = false;
  int64_t offset = 0;
  int64_t window = -1;
  double scale = 1;
  double softcap = 0; // 0: none
  int fullyMasked = 0;
  plan::DataType type = plan::DataType::f32; // of q, k, v and out
  const void *q = nullptr, *k = nullptr, *v = nullptr;
  const uint8_t *mask = nullptr; // [batch, t], may be absent
  /// Of (batch, head, row, key); 0 where the bias repeats.
  int64_t biasStrides[4] = {};
  const void *bias = nullptr; // of `type`, may be absent
  void *out = nullptr;
  float *lse = nullptr; // [batch, heads, s], may be absent
};

/// ATTENTION_GRAD: out and lse of `forward` are read here (see
/// Cpu/AttentionGrad.h). All tensors have the type forward.type, lse is f32.
struct AttentionGradArguments {
  AttentionArguments forward;
  int64_t doutStrides[3], dqStrides[3], dkStrides[3], dvStrides[3];
  const void *dout = nullptr;
  void *dq = nullptr, *dk = nullptr, *dv = nullptr;
};

/// GROUPED_MATMUL: row i of out [rows, n] = lhs [rows, k] row i times matrix
/// groups[i] - first of rhs, zeros where that is none of `count`.
/// GROUPED_WEIGHT_GRAD: out [count, m, n] = sums of outer products of the rows
/// of lhs [rows, m] and rhs [rows, n]. See Cpu/GroupedGemm.h.
struct GroupedArguments {
  bool isGradient = false; // the second of the two
  int64_t count = 0, rows = 0, m = 0, n = 0, k = 0, first = 0;
  bool transposeRhs = false; // the matrices are stored [n, k]
  bool packed = false;       // each is packed, one behind the other
  plan::DataType lhsType = plan::DataType::f32;
  plan::DataType rhsType = plan::DataType::f32;
  plan::DataType outType = plan::DataType::f32;
  plan::DataType groupsType = plan::DataType::i64;
  const void *lhs = nullptr, *rhs = nullptr, *groups = nullptr;
  void *out = nullptr, *workspace = nullptr;
  uint64_t workspaceBytes = 0;
};

/// PACK_RHS: columns [column, column + n) of a packed operand with totalColumns
/// columns, from a row-major [k, n] buffer.
struct PackArguments {
  int64_t k = 0, n = 0, column = 0, totalColumns = 0;
  plan::DataType inType = plan::DataType::f32;
  plan::DataType outType = plan::DataType::f32;
  const void *in = nullptr;
  void *out = nullptr;
};

using plan::maxDims;

/// One n-d copy: sizes and strides in elements, strides may be zero or
/// negative.
struct StridedCopy {
  int dims = 0;
  int64_t sizes[maxDims];
  int64_t inStrides[maxDims];
  int64_t outStrides[maxDims];
};

/// LAUNCH. On a CPU: iterations [0, extent) of a kernel, split at multiples of
/// grain. On a GPU: `grid` blocks of `block` threads.
struct LaunchArguments {
  uint32_t index = 0;              // of Plan.kernels
  KernelFunction kernel = nullptr; // CPU
  void *const *buffers = nullptr;
  const uint64_t *bytes = nullptr; // of each buffer
  uint32_t bufferCount = 0, inputCount = 0;
  int64_t extent = 0, grain = 1;
  uint32_t grid = 0, block = 0, shared = 0;
};

} // namespace dshard

#endif // DSHARD_RUNTIME_OPERATIONS_H
