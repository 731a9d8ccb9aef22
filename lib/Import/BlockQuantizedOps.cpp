//===- BlockQuantizedOps.cpp - Products with block-quantised weights ------===//
//
// com.microsoft MatMulNBits (docs/ContribOperators.md of onnxruntime) as its
// meaning: dequantise, multiply. Where a CPU's kernels compute from the packed
// form, Transforms/Local recognises it (Calls.h, matchQuantized).
//
//===----------------------------------------------------------------------===//

#include "NodeImporter.h"

using namespace mlir;
using namespace mlir::dshard;
using namespace mlir::dshard::onnx;

/// The elements of bytes of 8 or twice 4 bits, low nibble first: [..., n] as
/// [..., n * 8 / bits].
static Value unpackBits(NodeImporter &n, Value bytes, int64_t bits) {
  if (n.failed() || bits == 8)
    return bytes;
  SmallVector<int64_t> shape(n.shape(bytes)), wide = shape;
  shape.push_back(1);
  wide.back() *= 2;
  Type u8 = n.elementOf(bytes);
  Value low = n.pointwise<BitAndOp>({bytes, n.scalar(u8, 15)});
  Value high = n.pointwise<ShiftRightOp>({bytes, n.scalar(u8, 4)});
  Value both = n.concat({n.reshape(low, shape), n.reshape(high, shape)},
                        shape.size() - 1);
  return n.reshape(both, wide);
}

/// The activations as onnxruntime rounds them when accuracy_level is 4: every
/// block to multiples of its largest magnitude / 127.
static Value roundToInt8(NodeImporter &n, Value a, int64_t block) {
  if (n.failed() || n.rank(a) == 0 || n.shape(a).back() % block != 0)
    return a;
  SmallVector<int64_t> shape(n.shape(a)), wide = shape;
  wide.back() /= block;
  wide.push_back(block);
  Value x = n.reshape(a, wide);
  Type element = n.elementOf(a);
  if (n.failed())
    return a;
  Value top = n.reduce(ReductionKind::max, n.pointwise<AbsOp>(x),
                       {static_cast<int64_t>(shape.size())}, true);
  Value scale = n.pointwise<MulOp>({top, n.scalar(element, 1.0f / 127.0f)});
  Value by = n.pointwise<MaxOp>({scale, n.scalar(element, 1e-30f)});
  Value q = n.pointwise<RoundOp>(n.pointwise<DivOp>({x, by}));
  return n.reshape(n.pointwise<MulOp>({q, scale}), shape);
}

void onnx::importMatMulNBits(NodeImporter &n) {
  if (!n.expectInputs(3, 6))
    return;
  Value a = n.input(0), data = n.input(1), scales = n.input(2);
  int64_t k = n.intAttr("K", 0), columns = n.intAttr("N", 0);
  int64_t bits = n.intAttr("bits", 4), block = n.intAttr("block_size", 0);
  // 4 asks for activations of 8 bits; every other level allows fp32.
  bool int8 = n.intAttr("accuracy_level", 0) == 4;
  if (n.intAttr("weight_prepacked", 0))
    n.fail("weight_prepacked is not supported");
  if (n.hasInput(4))
    n.fail("input 4 (g_idx) is not supported");
  if (bits != 4 && bits != 8)
    n.fail("bits is " + Twine(bits) + "; 4 and 8 are supported");
  if (k <= 0 || columns <= 0 || block < 16 || block > (1 << 16) ||
      (block & (block - 1)))
    n.fail("K " + Twine(k) + ", N " + Twine(columns) + " and block_size " +
           Twine(block) + " are not positive, or the last is no power of two " +
           "from 16 on");
  if (n.failed())
    return;
  if (int8 && bits == 4)
    a = roundToInt8(n, a, block);
  int64_t blocks = (k + block - 1) / block;
  auto expect = [&](Value value, int64_t elements, const Twine &what) {
    if (!n.failed() && n.typeOf(value).getNumElements() != elements)
      n.fail(what + " has " + Twine(n.typeOf(value).getNumElements()) +
             " elements; " + Twine(elements) + " are needed");
  };
  expect(data, columns * blocks * block * bits / 8, "B");
  expect(scales, columns * blocks, "scales");
  if (!n.failed() && !n.elementOf(data).isUnsignedInteger(8))
    n.fail("B is not of type uint8");
  if (n.failed())
    return;
  Type element = n.elementOf(scales);
  data = n.reshape(data, {columns, blocks, block * bits / 8});
  Value q = n.cast(unpackBits(n, data, bits), element);
  Value zero = n.scalar(element, bits == 4 ? 8 : 128);
  if (n.hasInput(3)) {
    Value table = n.input(3);
    if (!n.failed() && n.elementOf(table).isUnsignedInteger(8)) {
      int64_t bytes = (blocks * bits + 7) / 8;
      expect(table, columns * bytes, "zero_points");
      table = unpackBits(n, n.reshape(table, {columns, bytes}), bits);
      if (!n.failed() && n.shape(table)[1] != blocks)
        table = n.part(table, 1, 0, blocks);
      zero = n.cast(n.reshape(table, {columns, blocks, 1}), element);
    } else {
      expect(table, columns * blocks, "zero_points");
      zero = n.cast(n.reshape(table, {columns, blocks, 1}), element);
    }
  }
  Value shifted = n.pointwise<SubOp>({q, zero});
  Value weights =
      n.pointwise<MulOp>({shifted, n.reshape(scales, {columns, blocks, 1})});
  weights = n.reshape(weights, {columns, blocks * block});
  if (!n.failed() && blocks * block != k)
    weights = n.part(weights, 1, 0, k);
  Value result = n.matmul(
      a, n.cast(weights, n.failed() ? element : n.elementOf(a)), false, true);
  if (n.hasInput(5))
    result = n.pointwise<AddOp>({result, n.input(5)});
  n.set(0, result);
}
