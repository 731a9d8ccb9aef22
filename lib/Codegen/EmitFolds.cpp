//===- EmitFolds.cpp - Ops that fold a dim: norms, softmax, products ------===//

#include "Emitter.h"
#include "llvm/ADT/STLExtras.h"

#include <functional>
#include <limits>

using namespace mlir;
using namespace mlir::dshard;

Value Emitter::fold(ArrayRef<int64_t> shape, ArrayRef<int64_t> dims,
                    Index index, Value laneSource, Value identity,
                    function_ref<Value(const Index &)> term,
                    function_ref<Value(Value, Value)> combine) {
  int64_t last = dims.back(), n = shape[last];
  int64_t lanes = index.single() ? 0 : index.width;
  int64_t width = 1;
  if (!lanes && last == static_cast<int64_t>(shape.size()) - 1 && laneSource)
    width = laneWidth(laneSource, last, 1, widthLimit());
  while (width > n)
    width /= 2;
  int64_t split = width > 1 ? n / width * width : 0;
  bool hasVector = split > 0, hasSingle = split < n;
  // CUDA: where a team of threads stands at one place, they share the fold.
  bool shared = cuda && current->uniform && !lanes;
  int64_t parts = shared ? team : 1;
  auto lowOf = [&](int64_t start, int64_t step) {
    return shared ? addIndex(mulIndex(member, step), constantIndex(start))
                  : constantIndex(start);
  };
  SmallVector<Value> start;
  if (hasVector)
    start.push_back(m.splat(identity, width));
  if (hasSingle)
    start.push_back(m.splat(identity, lanes));

  std::function<SmallVector<Value>(unsigned, Index, ValueRange)> nest =
      [&](unsigned level, Index at, ValueRange carried) -> SmallVector<Value> {
    int64_t dim = dims[level];
    Value zero = constantIndex(0);
    if (level + 1 < dims.size())
      return loop(zero, constantIndex(shape[dim]), 1, carried,
                  [&](Value i, ValueRange next) {
                    Index inner = at;
                    inner.at[dim] = i;
                    return nest(level + 1, inner, next);
                  });
    SmallVector<Value> result(carried);
    if (hasVector)
      result[0] = loop(lowOf(0, width), constantIndex(split), width * parts,
                       carried[0], [&](Value i, ValueRange next) {
                         current->uniform &= !shared;
                         Index inner = at;
                         inner.at[dim] = i;
                         inner.lane = dim;
                         inner.stride = 1;
                         inner.width = width;
                         Value value = m.splat(term(inner), width);
                         return SmallVector<Value>{combine(next[0], value)};
                       })[0];
    if (hasSingle)
      result.back() = loop(lowOf(split, 1), constantIndex(n), parts,
                           carried.back(), [&](Value i, ValueRange next) {
                             current->uniform &= !shared;
                             Index inner = at;
                             inner.at[dim] = i;
                             Value value = m.splat(term(inner), lanes);
                             return SmallVector<Value>{combine(next[0], value)};
                           })[0];
    return result;
  };
  SmallVector<Value> result = nest(0, index, start);
  Value total = hasVector ? m.reduceLanes(result[0], combine) : result[0];
  if (hasVector && hasSingle)
    total = combine(total, result[1]);
  return shared ? reduceTeam(total, combine) : total;
}

Value Emitter::evalReduce(ReduceOp op, const Index &index) {
  SmallVector<int64_t> shape = shapeOf(op.getInput()), dims(op.getDims());
  Index mapped;
  int64_t next = 0;
  for (int64_t d = 0; d < static_cast<int64_t>(shape.size()); ++d) {
    bool reduced = llvm::is_contained(dims, d);
    if (reduced && op.getKeepDims())
      ++next;
    mapped.at.push_back(reduced ? constantIndex(0) : index.at[next]);
    if (!reduced && index.lane == next) {
      mapped.lane = d;
      mapped.stride = index.stride;
      mapped.width = index.width;
    }
    next += !reduced;
  }
  if (dims.empty())
    return eval(op.getInput(), mapped);
  Type element = elementOf(op.getResult()), type = m.computeType(element);
  bool isUnsigned = element.isUnsignedInteger();
  bool isFloat = isa<FloatType>(type), isBool = element.isInteger(1);
  unsigned bits = type.getIntOrFloatBitWidth();
  double inf = std::numeric_limits<double>::infinity();
  int64_t most = bits == 64 ? std::numeric_limits<int64_t>::max()
                            : (int64_t(1) << (bits - 1)) - 1;
  std::function<Value(Value, Value)> combine;
  Value identity = m.constant(type, 0);
  switch (op.getKind()) {
  case ReductionKind::sum:
  case ReductionKind::mean:
    combine = [&](Value x, Value y) {
      return isBool ? m.logicalOr(x, y) : m.add(x, y);
    };
    break;
  case ReductionKind::product:
    identity = m.constant(type, 1);
    combine = [&](Value x, Value y) {
      return isBool ? m.logicalAnd(x, y) : m.mul(x, y);
    };
    break;
  case ReductionKind::max:
    if (isFloat)
      identity = m.constant(type, -inf);
    else if (!isUnsigned && !isBool)
      identity = m.integer(type, -most - 1);
    combine = [&](Value x, Value y) { return m.max(x, y, isUnsigned); };
    break;
  case ReductionKind::min:
    if (isFloat)
      identity = m.constant(type, inf);
    else // all bits set: the largest unsigned number, and true
      identity = m.integer(type, isUnsigned || isBool ? -1 : most);
    combine = [&](Value x, Value y) { return m.min(x, y, isUnsigned); };
    break;
  }
  Value result = fold(
      shape, dims, mapped, op.getInput(), identity,
      [&](const Index &at) { return eval(op.getInput(), at); }, combine);
  if (op.getKind() == ReductionKind::mean) {
    int64_t count = 1;
    for (int64_t d : dims)
      count *= shape[d];
    result = m.div(result, m.constant(type, static_cast<double>(count)));
  }
  return m.round(result, element);
}

Value Emitter::evalMatMul(MatMulOp op, const Index &index) {
  SmallVector<int64_t> lhs = shapeOf(op.getLhs()), rhs = shapeOf(op.getRhs()),
                       result = shapeOf(op.getResult());
  int64_t rank = result.size(), batch = rank - 2;
  int64_t k = lhs[lhs.size() - (op.getTransposeLhs() ? 2 : 1)];
  Type element = elementOf(op.getResult()), type = m.computeType(element);
  int64_t lanes = index.single() ? 0 : index.width;
  auto operand = [&](ArrayRef<int64_t> shape, bool isLhs, bool transposed,
                     Value step) {
    Index at;
    int64_t rankHere = shape.size();
    int64_t shift = batch - (rankHere - 2);
    for (int64_t d = 0; d < rankHere - 2; ++d)
      at.at.push_back(shape[d] == 1 ? constantIndex(0) : index.at[d + shift]);
    Value free = index.at[rank - (isLhs ? 2 : 1)];
    bool stepLast = isLhs != transposed;
    at.at.push_back(stepLast ? free : step);
    at.at.push_back(stepLast ? step : free);
    if (index.lane == rank - (isLhs ? 2 : 1)) {
      at.lane = rankHere - (stepLast ? 2 : 1);
      at.stride = index.stride;
      at.width = index.width;
    }
    return at;
  };
  Value zero = m.splat(m.constant(type, 0), lanes);
  Value total = loop(
      constantIndex(0), constantIndex(k), 1, zero,
      [&](Value step, ValueRange carried) {
        Value x =
            eval(op.getLhs(), operand(lhs, true, op.getTransposeLhs(), step));
        Value y =
            eval(op.getRhs(), operand(rhs, false, op.getTransposeRhs(), step));
        Value next = isa<FloatType>(type) ? m.fma(x, y, carried[0])
                                          : m.add(carried[0], m.mul(x, y));
        return SmallVector<Value>{m.splat(next, lanes)};
      })[0];
  return m.round(total, element);
}

/// The index of a row's statistics: the folded dim does not count.
static Index rowOf(Index index, int64_t dim, Value zero) {
  index.at[dim] = zero;
  if (index.lane == dim)
    index.dropLane();
  return index;
}

/// The index of a weight [D] of the last dim.
static Index weightAt(const Index &index) {
  Index at({index.at.back()});
  if (index.lane == static_cast<int>(index.at.size()) - 1) {
    at.lane = 0;
    at.stride = index.stride;
    at.width = index.width;
  }
  return at;
}

Value Emitter::evalRmsNorm(RmsNormOp op, const Index &index) {
  SmallVector<int64_t> shape = shapeOf(op.getInput());
  int64_t dim = shape.size() - 1;
  Type element = elementOf(op.getResult()), type = m.computeType(element);
  auto add = [&](Value x, Value y) { return m.add(x, y); };
  Index row = rowOf(index, dim, constantIndex(0));
  Value scale = once(op, row, 1, [&] {
    Value squares = fold(
        shape, {dim}, row, op.getInput(), m.constant(type, 0),
        [&](const Index &at) {
          Value x = eval(op.getInput(), at);
          return m.mul(x, x);
        },
        add);
    Value mean =
        m.div(squares, m.constant(type, static_cast<double>(shape[dim])));
    Value root = m.sqrt(
        m.add(mean, m.constant(type, op.getEpsilon().convertToDouble())));
    return SmallVector<Value, 2>{m.div(m.constant(type, 1), root)};
  })[0];
  Value x = m.mul(eval(op.getInput(), index), scale);
  Value weight = m.cast(eval(op.getWeight(), weightAt(index)),
                        elementOf(op.getWeight()), type);
  return m.round(m.mul(x, weight), element);
}

Value Emitter::evalLayerNorm(LayerNormOp op, const Index &index) {
  SmallVector<int64_t> shape = shapeOf(op.getInput());
  int64_t dim = shape.size() - 1;
  Type element = elementOf(op.getResult()), type = m.computeType(element);
  auto add = [&](Value x, Value y) { return m.add(x, y); };
  Index row = rowOf(index, dim, constantIndex(0));
  SmallVector<Value, 2> statistics = once(op, row, 1, [&] {
    Value count = m.constant(type, static_cast<double>(shape[dim]));
    Value mean = m.div(
        fold(
            shape, {dim}, row, op.getInput(), m.constant(type, 0),
            [&](const Index &at) { return eval(op.getInput(), at); }, add),
        count);
    own(mean);
    Value squares = fold(
        shape, {dim}, row, op.getInput(), m.constant(type, 0),
        [&](const Index &at) {
          Value x = m.sub(eval(op.getInput(), at), mean);
          return m.mul(x, x);
        },
        add);
    Value root =
        m.sqrt(m.add(m.div(squares, count),
                     m.constant(type, op.getEpsilon().convertToDouble())));
    return SmallVector<Value, 2>{mean, m.div(m.constant(type, 1), root)};
  });
  Value x =
      m.mul(m.sub(eval(op.getInput(), index), statistics[0]), statistics[1]);
  Value result = m.mul(x, m.cast(eval(op.getWeight(), weightAt(index)),
                                 elementOf(op.getWeight()), type));
  if (op.getBias())
    result = m.add(result, m.cast(eval(op.getBias(), weightAt(index)),
                                  elementOf(op.getBias()), type));
  return m.round(result, element);
}

Value Emitter::evalSoftmax(SoftmaxOp op, const Index &index) {
  SmallVector<int64_t> shape = shapeOf(op.getInput());
  int64_t dim = op.getDim();
  Type element = elementOf(op.getResult()), type = m.computeType(element);
  Index row = rowOf(index, dim, constantIndex(0));
  SmallVector<Value, 2> statistics = once(op, row, 1, [&] {
    Value largest = fold(
        shape, {dim}, row, op.getInput(),
        m.constant(type, -std::numeric_limits<double>::infinity()),
        [&](const Index &at) { return eval(op.getInput(), at); },
        [&](Value x, Value y) { return m.max(x, y); });
    own(largest);
    Value sum = fold(
        shape, {dim}, row, op.getInput(), m.constant(type, 0),
        [&](const Index &at) {
          return m.exp(m.sub(eval(op.getInput(), at), largest));
        },
        [&](Value x, Value y) { return m.add(x, y); });
    return SmallVector<Value, 2>{largest, sum};
  });
  Value x = m.exp(m.sub(eval(op.getInput(), index), statistics[0]));
  return m.round(m.div(x, statistics[1]), element);
}
