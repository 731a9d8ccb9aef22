//===- AttentionCache.cpp - Attention with a cache ------------------------===//

#include "AttentionCache.h"
#include "Arithmetic.h"

using namespace mlir;
using namespace mlir::dshard;
using namespace mlir::dshard::onnx;

static constexpr double infinity = std::numeric_limits<double>::infinity();

Value onnx::combineMasks(NodeImporter &n, AttentionForm &form, Value mask,
                         int64_t queries, int64_t keys) {
  if (n.failed() || form.isPlain())
    return mask;
  if (mask && !n.elementOf(mask).isInteger(1) &&
      !isa<FloatType>(n.elementOf(mask))) {
    n.fail("the mask must hold booleans or floating-point numbers");
    return {};
  }
  Arithmetic a(n);
  Type i64 = n.graph.builder().getI64Type();
  Value row = n.iota({1, 1, queries, 1}, i64, 2, double(form.past)),
        column = n.iota({1, 1, 1, keys}, i64, 3), allowed;
  if (form.lengths) {
    Value lengths = n.cast(form.lengths, i64);
    if (n.rank(lengths) != 1) {
      n.fail("input 6 (nonpad_kv_seqlen) must have one number for each batch");
      return {};
    }
    lengths = n.reshape(lengths, {n.shape(lengths)[0], 1, 1, 1});
    row = a.add(row, a.sub(lengths, double(queries)));
    allowed = a.less(column, lengths);
  }
  auto restrict = [&](Value condition) {
    allowed = allowed ? n.pointwise<AndOp>({allowed, condition}) : condition;
  };
  if (form.causal)
    restrict(n.compare(ComparePredicate::le, column, row));
  form.causal = false;
  if (form.left >= 0)
    restrict(
        n.compare(ComparePredicate::le, a.sub(row, double(form.left)), column));
  if (form.right >= 0)
    restrict(n.compare(ComparePredicate::le, column,
                       a.add(row, double(form.right))));
  if (!allowed || !mask)
    return allowed ? allowed : mask;
  if (n.elementOf(mask).isInteger(1))
    return n.pointwise<AndOp>({allowed, mask});
  return n.pointwise<SelectOp>({allowed, mask, a.number(mask, -infinity)},
                               n.elementOf(mask));
}

std::pair<Value, Value> onnx::showAttention(NodeImporter &n,
                                            const AttentionForm &form, Value q,
                                            Value k, Value v, Value mask) {
  if (n.failed())
    return {};
  Arithmetic a(n);
  Type element = n.elementOf(q);
  int64_t queries = n.shape(q)[2], keys = n.shape(k)[2];
  Value scores = a.mul(n.matmul(a.wide(q), a.wide(k), false, true), form.scale);
  Value shown = scores;
  if (form.softcap > 0) {
    scores =
        a.mul(n.pointwise<TanhOp>(a.div(scores, form.softcap)), form.softcap);
    if (form.shown == 1)
      shown = scores;
  }
  if (form.causal) {
    Type i64 = n.graph.builder().getI64Type();
    Value visible =
        n.compare(ComparePredicate::le, n.iota({1, 1, 1, keys}, i64, 3),
                  n.iota({1, 1, queries, 1}, i64, 2));
    scores = a.select(visible, scores, a.number(scores, -infinity));
  }
  if (mask) {
    SmallVector<int64_t> shape(n.shape(scores));
    scores = n.elementOf(mask).isInteger(1)
                 ? a.select(mask, scores, a.number(scores, -infinity))
                 : a.add(scores, n.cast(mask, n.elementOf(scores)));
    if (!n.failed() && n.shape(scores) != ArrayRef<int64_t>(shape)) {
      n.fail("the mask does not broadcast to the scores");
      return {};
    }
  }
  if (n.failed())
    return {};
  if (form.shown == 2)
    shown = scores;
  Value weights =
      n.build<SoftmaxOp>(n.typeOf(scores), scores, n.attr("dim", int64_t(3)));
  // A row that attends nothing is zero.
  Value lost = n.pointwise<IsNanOp>(weights, n.graph.builder().getI1Type());
  weights = a.select(lost, a.number(weights, 0.0), weights);
  if (form.shown == 3)
    shown = weights;
  Value result =
      n.matmul(weights, n.cast(v, n.elementOf(weights)), false, false);
  return {n.cast(result, element), n.cast(shown, element)};
}
