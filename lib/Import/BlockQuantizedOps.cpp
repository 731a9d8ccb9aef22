//===- BlockQuantizedOps.cpp - Products with block-quantised weights ------===//
//
// com.microsoft MatMulNBits and GatherBlockQuantized
// (docs/ContribOperators.md of onnxruntime) as what they mean: dequantise and
// multiply, look up and dequantise. Where a CPU's kernels compute a product
// from the packed form, Transforms/Local recognises it (Calls.h,
// matchQuantized).
//
//===----------------------------------------------------------------------===//

#include "BlockQuantized.h"

using namespace mlir;
using namespace mlir::dshard;
using namespace mlir::dshard::onnx;

Value onnx::unpackBits(NodeImporter &n, Value bytes, int64_t bits) {
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

Value onnx::dequantizeBlocks(NodeImporter &n, Value data, Value scales,
                             Value zeros, int64_t bits, int64_t block,
                             ArrayRef<int64_t> shape, double middle) {
  auto expect = [&](Value value, int64_t elements, const Twine &what) {
    if (!n.failed() && n.typeOf(value).getNumElements() != elements)
      n.fail(what + " has " + Twine(n.typeOf(value).getNumElements()) +
             " elements; " + Twine(elements) + " are needed");
  };
  if (n.failed())
    return {};
  if (block < 1 || shape.back() < 1 || shape.back() % block != 0 ||
      block * bits % 8 != 0) {
    n.fail("rows of " + Twine(shape.back()) + " elements of " + Twine(bits) +
           " bits are no whole blocks of " + Twine(block));
    return {};
  }
  // [..., blocks], and what each of them has.
  SmallVector<int64_t> blocks(shape);
  blocks.back() /= block;
  SmallVector<int64_t> bytes(blocks), one(blocks);
  bytes.push_back(block * bits / 8);
  one.push_back(1);
  int64_t count = 1;
  for (int64_t size : blocks)
    count *= size;
  expect(data, count * block * bits / 8, "the packed data");
  expect(scales, count, "scales");
  if (!n.failed() && !n.elementOf(data).isUnsignedInteger(8))
    n.fail("the packed data is not of type uint8");
  if (n.failed())
    return {};
  Type element = n.elementOf(scales);
  Value q = n.cast(unpackBits(n, n.reshape(data, bytes), bits), element);
  Value zero = n.scalar(element, middle);
  if (zeros && !n.failed()) {
    if (n.elementOf(zeros).isUnsignedInteger(8)) {
      SmallVector<int64_t> packed(blocks);
      packed.back() = (packed.back() * bits + 7) / 8;
      expect(zeros, count / blocks.back() * packed.back(), "zero_points");
      zeros = unpackBits(n, n.reshape(zeros, packed), bits);
      if (!n.failed() && n.shape(zeros).back() != blocks.back())
        zeros = n.part(zeros, blocks.size() - 1, 0, blocks.back());
    }
    expect(zeros, count, "zero_points");
    zero = n.cast(n.reshape(zeros, one), element);
  }
  Value shifted = n.pointwise<SubOp>({q, zero});
  return n.reshape(n.pointwise<MulOp>({shifted, n.reshape(scales, one)}),
                   shape);
}

/// Rows of a packed table, unpacked: only what is looked up.
void onnx::importGatherBlockQuantized(NodeImporter &n) {
  if (!n.expectInputs(3, 4))
    return;
  int type = 0, zerosType = 0;
  Value data = n.graph.lookupPacked(n.proto().input(0), type), zeros;
  if (n.hasInput(3))
    zeros = n.graph.lookupPacked(n.proto().input(3), zerosType);
  Value indices = n.input(1), scales = n.input(2);
  int64_t bits = n.intAttr("bits", 4), block = n.intAttr("block_size", 128);
  int64_t axis = n.axis(n.intAttr("gather_axis", 0), n.rank(data)),
          quantized = n.axis(n.intAttr("quantize_axis", 1), n.rank(data));
  if (bits != 4 && bits != 8)
    n.fail("bits is " + Twine(bits) + "; 4 and 8 are supported");
  if (n.failed())
    return;
  if (n.rank(data) < 2 || n.rank(scales) != n.rank(data))
    return n.fail("data and scales have " + Twine(n.rank(data)) + " and " +
                  Twine(n.rank(scales)) +
                  " dims; the same number is needed, at least 2");
  if (axis != 0 || quantized != n.rank(data) - 1)
    return n.fail("gather_axis " + Twine(axis) + " and quantize_axis " +
                  Twine(quantized) +
                  " are not supported; the first and the last are");
  if (auto known = n.knownInts(indices))
    for (int64_t index : *known)
      if (index < -n.shape(data)[0] || index >= n.shape(data)[0])
        return n.fail("index " + Twine(index) + " is out of range for " +
                      Twine(n.shape(data)[0]) + " rows");
  SmallVector<Value> tables = {data, scales};
  if (zeros)
    tables.push_back(zeros);
  for (Value &table : tables) {
    if (n.rank(table) != n.rank(data) || n.shape(table)[0] != n.shape(data)[0])
      return n.fail("scales and zero points are not of the shape of the data");
    table = n.gather(table, indices, 0);
    if (n.failed())
      return;
  }
  bool isSigned = type == pb::TensorProto::INT4,
       isTyped = isSigned || type == pb::TensorProto::UINT4;
  if ((isTyped && bits != 4) || (zeros && (zerosType != type)))
    return n.fail("the types of data and zero points do not suit " +
                  Twine(bits) + " bits");
  // Signed numbers and their zero points, both 8 higher.
  if (isSigned)
    for (Value *table : {&tables[0], zeros ? &tables[2] : nullptr})
      if (table)
        *table = n.pointwise<BitXorOp>(
            {*table, n.scalar(n.elementOf(*table), 0x88)});
  double middle = isSigned ? 8 : isTyped ? 0 : bits == 4 ? 8 : 128;
  SmallVector<int64_t> shape(n.shape(tables[0]));
  shape.back() = shape.back() * 8 / bits;
  n.set(0,
        dequantizeBlocks(n, tables[0], tables[1], zeros ? tables[2] : Value(),
                         bits, block, shape, middle));
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
  if (int8)
    a = roundToInt8(n, a, block);
  int64_t blocks = (k + block - 1) / block;
  Value weights =
      dequantizeBlocks(n, data, scales, n.input(3), bits, block,
                       {columns, blocks * block}, bits == 4 ? 8 : 128);
  if (!n.failed() && blocks * block != k)
    weights = n.part(weights, 1, 0, k);
  Value result = n.matmul(a, n.cast(weights, n.elementOf(a)), false, true);
  if (n.hasInput(5))
    result = n.pointwise<AddOp>({result, n.input(5)});
  n.set(0, result);
}
