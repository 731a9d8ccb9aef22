//===- MicrosoftOps.cpp - Ops of the domain com.microsoft -----------------===//
//
// What onnxruntime-genai's builder and transformers' fusions write. Semantics:
// docs/ContribOperators.md of onnxruntime.
//
//===----------------------------------------------------------------------===//

#include "AttentionOps.h"

using namespace mlir;
using namespace mlir::dshard;
using namespace mlir::dshard::onnx;

//===----------------------------------------------------------------------===//
// Norms, GELU, products
//===----------------------------------------------------------------------===//

/// norm(input + skip [+ bias]); output 3 is the sum.
static void importSkipNorm(NodeImporter &n, bool isRms) {
  if (!n.expectInputs(3, isRms ? 4 : 5))
    return;
  Value x = n.input(0), skip = n.input(1), weight = n.input(2);
  double epsilon = n.floatAttr("epsilon", 1e-12);
  int biasOfSum = isRms ? 3 : 4;
  for (int i : {1, 2})
    if (n.hasOutput(i))
      n.fail("output " + Twine(i) + " is not supported");
  Value sum = n.pointwise<AddOp>({x, skip});
  if (n.hasInput(biasOfSum))
    sum = n.pointwise<AddOp>({sum, n.input(biasOfSum)});
  if (n.failed())
    return;
  if (n.rank(sum) < 1 || n.rank(weight) != 1 ||
      n.shape(weight)[0] != n.shape(sum).back())
    return n.fail("the scale does not have the size of the last dim");
  SmallVector<Value> operands = {sum, weight};
  if (!isRms && n.hasInput(3))
    operands.push_back(n.input(3));
  if (n.failed())
    return;
  NamedAttribute attribute = n.attr("epsilon", epsilon);
  n.set(0, isRms ? n.build<RmsNormOp>(n.typeOf(sum), operands, attribute)
                 : n.build<LayerNormOp>(n.typeOf(sum), operands, attribute));
  if (n.hasOutput(3))
    n.set(3, sum);
}

void onnx::importSkipLayerNorm(NodeImporter &n) { importSkipNorm(n, false); }
void onnx::importSkipSimplifiedLayerNorm(NodeImporter &n) {
  importSkipNorm(n, true);
}

void onnx::importBiasGelu(NodeImporter &n) {
  if (!n.expectInputs(2, 2))
    return;
  Value sum = n.pointwise<AddOp>({n.input(0), n.input(1)});
  n.set(0, n.failed() ? Value() : n.build<GeluOp>(n.typeOf(sum), sum));
}

/// x sigmoid(alpha x).
void onnx::importQuickGelu(NodeImporter &n) {
  if (!n.expectInputs(1, 1))
    return;
  Value x = n.input(0);
  double alpha = n.floatAttr("alpha", 1.702);
  if (n.failed())
    return;
  Value scaled = n.pointwise<MulOp>({x, n.scalar(n.elementOf(x), alpha)});
  n.set(0, n.pointwise<MulOp>({x, n.pointwise<SigmoidOp>(scaled)}));
}

void onnx::importFusedMatMul(NodeImporter &n) {
  if (!n.expectInputs(2, 2))
    return;
  for (StringRef flag : {"transBatchA", "transBatchB"})
    if (n.intAttr(flag, 0))
      n.fail("attribute " + quote(flag) + " is not supported");
  bool transposeLhs = n.intAttr("transA", 0),
       transposeRhs = n.intAttr("transB", 0);
  double alpha = n.floatAttr("alpha", 1);
  Value product = n.matmul(n.input(0), n.input(1), transposeLhs, transposeRhs);
  if (!n.failed() && alpha != 1)
    product =
        n.pointwise<MulOp>({product, n.scalar(n.elementOf(product), alpha)});
  n.set(0, product);
}

//===----------------------------------------------------------------------===//
// Rotary embeddings
//===----------------------------------------------------------------------===//

Value onnx::rotateByTable(NodeImporter &n, Value x, Value cos, Value sin,
                          Value positions, bool interleaved) {
  if (n.failed())
    return {};
  if (n.rank(cos) != 2 || n.shape(cos) != n.shape(sin)) {
    n.fail("cos_cache and sin_cache are not two tables of one shape");
    return {};
  }
  int64_t size = n.shape(x)[3], rotated = 2 * n.shape(cos)[1];
  if (rotated == 0 || rotated > size) {
    n.fail("cannot rotate " + Twine(rotated) + " of " + Twine(size) +
           " entries");
    return {};
  }
  cos = n.cast(n.gather(cos, positions, 0), n.elementOf(x));
  sin = n.cast(n.gather(sin, positions, 0), n.elementOf(x));
  Value head = n.part(x, 3, 0, rotated);
  SmallVector<NamedAttribute> flags;
  if (interleaved)
    flags.push_back(n.unit("interleaved"));
  if (n.failed())
    return {};
  Value result = n.build<RotaryOp>(n.typeOf(head), {head, cos, sin}, flags);
  if (rotated < size)
    result = n.concat({result, n.part(x, 3, rotated, size - rotated)}, 3);
  return result;
}

/// Here position_ids is input 1, and x is [B,S,H*D] or [B,H,S,D].
void onnx::importMicrosoftRotaryEmbedding(NodeImporter &n) {
  if (!n.expectInputs(4, 4))
    return;
  Value x = n.input(0), positions = n.input(1), cos = n.input(2),
        sin = n.input(3);
  bool interleaved = n.intAttr("interleaved", 0);
  int64_t heads = n.intAttr("num_heads", 0),
          width = n.intAttr("rotary_embedding_dim", 0);
  if (n.intAttr("is_packed_batching", 0) || n.floatAttr("scale", 1) != 1)
    n.fail("is_packed_batching and scale are not supported");
  if (n.failed())
    return;
  bool merged = n.rank(x) == 3;
  if (!merged && n.rank(x) != 4)
    return n.fail("input 0 has " + Twine(n.rank(x)) +
                  " dims; 3 or 4 are needed");
  if (merged && heads == 0 && width == 0 && n.rank(cos) == 2 &&
      n.shape(cos)[1] > 0)
    heads = n.shape(x)[2] / (2 * n.shape(cos)[1]);
  if (merged)
    x = splitHeads(n, x, heads, "input 0");
  if (n.failed())
    return;
  int64_t B = n.shape(x)[0], S = n.shape(x)[2];
  if (n.rank(positions) == 1 && n.typeOf(positions).getNumElements() == 1)
    // The first position of all rows.
    positions = n.pointwise<AddOp>({n.reshape(positions, {1, 1}),
                                    n.iota({1, S}, n.elementOf(positions), 1)});
  if (n.failed())
    return;
  if (n.rank(positions) != 2 || n.shape(positions)[1] != S ||
      (n.shape(positions)[0] != B && n.shape(positions)[0] != 1))
    return n.fail("position_ids need the shape [" + Twine(B) + "," + Twine(S) +
                  "] or [1]");
  Value result = rotateByTable(n, x, cos, sin, positions, interleaved);
  n.set(0, merged ? mergeHeads(n, result) : result);
}
