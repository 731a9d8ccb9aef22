//===- CudaAttentionGrad.cpp - Gradients of attention by warps ------------===//
//
// The probabilities are formed again from the log-sum-exp of each row, a tile
// of 32 at a time. One launch: its first warps have one row of dq each, going
// over the keys; the others one row of dk and dv each, going over the queries
// of all heads of its group. So nothing is added atomically, and the sums have
// one order. Source: Dao, FlashAttention-2, arXiv 2307.08691, algorithm 2.
//
//===----------------------------------------------------------------------===//

#include "Emitter.h"
#include "llvm/ADT/STLExtras.h"

#include <cmath>

using namespace mlir;
using namespace mlir::dshard;

LogicalResult Emitter::emitCudaAttentionGrad(AttentionGradOp op,
                                             CudaKernelInfo &info) {
  SmallVector<int64_t> query = shapeOf(op.getQuery()),
                       key = shapeOf(op.getKey());
  int64_t batch = query[0], heads = query[1], rows = query[2], d = query[3],
          keys = key[2], dv = shapeOf(op.getValue())[3], group = heads / key[1];
  auto window = static_cast<int64_t>(op.getWindow());
  auto offset = static_cast<int64_t>(op.getOffset());
  double cap = op.getSoftcap().convertToDouble(),
         scale = op.getScale().convertToDouble();
  bool uniform = op.getFullyMasked() == FullyMasked::uniform;
  Type element = elementOf(op.getQuery()), type = m.computeType(element);
  FailureOr<SmallVector<Moved>> targets = movedResults(op);
  if (mlir::failed(targets))
    return failure();
  int64_t rowCount = batch * heads * rows, keyCount = batch * key[1] * keys;
  if (mlir::failed(launch((rowCount + keyCount) * 32, 128, info)))
    return failure();

  using Predicate = arith::CmpIPredicate;
  auto own = [&](Value v) {
    this->own(v);
    return v;
  };
  auto below = [&](Value x, Value y) {
    return own(m.compareInt(Predicate::slt, x, y));
  };
  auto number = [&](double v) { return m.constant(type, v); };
  Value zero = constantIndex(0), warp = divIndex(thread, 32);
  int64_t width = std::min<int64_t>(4, widthLimit());

  struct Row { ///< of queries
    Value logSumExp, delta;
  };
  auto rowOf = [&](ArrayRef<Value> at) {
    Value lse = m.cast(eval(op.getLogSumExp(), Index(at)),
                       elementOf(op.getLogSumExp()), type);
    return Row{lse, dot(op.getResultGrad(), at, op.getResult(), at)};
  };
  /// Probability and the score's gradient of query `at` and key `keyAt`.
  auto pair = [&](const Row &row, ArrayRef<Value> at, ArrayRef<Value> keyAt,
                  Value inside) {
    Value score =
        m.mul(dot(op.getQuery(), at, op.getKey(), keyAt), number(scale));
    Value turned;
    if (cap > 0) {
      turned = m.tanh(m.div(score, number(cap)));
      score = m.mul(turned, number(cap));
    }
    if (Value bias = op.getBias()) {
      score = m.add(score, evalBias(bias, at, keyAt[2]));
      // A bias of -inf can hide all keys of a row, too.
      inside = own(m.logicalAnd(
          inside, m.compareFloat(arith::CmpFPredicate::ONE, row.logSumExp,
                                 number(-HUGE_VAL))));
    }
    Value p = m.select(inside, m.exp(m.sub(score, row.logSumExp)), number(0));
    Value dp = dot(op.getResultGrad(), at, op.getValue(), keyAt);
    Value ds = m.mul(m.mul(p, m.sub(dp, row.delta)), number(scale));
    if (turned)
      ds = m.mul(ds, m.sub(number(1), m.mul(turned, turned)));
    return std::make_pair(own(p), own(m.select(inside, ds, number(0))));
  };
  auto padded = [&](Value inside, Value b0, Value keyRow) {
    if (!op.getKeyPadding())
      return inside;
    return own(
        m.logicalAnd(inside, eval(op.getKeyPadding(), Index({b0, keyRow}))));
  };
  /// Adds row i of a tensor times the weight that lane i has, for `count` rows.
  struct Sum {
    Value weight, tensor;
    const LaneColumns *columns;
  };
  auto addRows = [&](ArrayRef<Sum> sums, Value count, ValueRange before,
                     function_ref<SmallVector<Value>(Value)> rowAt) {
    return loop(zero, count, 1, before, [&](Value i, ValueRange so) {
      Value from = arith::TruncIOp::create(b, loc, b.getI32Type(), i);
      SmallVector<Value> at = rowAt(i), next;
      for (const Sum &sum : sums) {
        int64_t lanes = sum.columns->width > 1 ? sum.columns->width : 0;
        Value weight = shuffle(sum.weight, from, /*butterfly=*/false);
        for (size_t piece = 0; piece < sum.columns->at.size(); ++piece)
          next.push_back(m.fma(
              m.splat(weight, lanes),
              m.splat(eval(sum.tensor, sum.columns->index(at, piece)), lanes),
              so[next.size()]));
      }
      return next;
    });
  };
  auto zeros = [&](const LaneColumns &columns, SmallVector<Value> &into) {
    for (size_t piece = 0; piece < columns.at.size(); ++piece)
      into.push_back(m.splat(number(0), columns.width > 1 ? columns.width : 0));
  };
  auto finish = [&](unsigned result, const LaneColumns &columns,
                    ArrayRef<Value> at, ArrayRef<Value> values) {
    for (const Moved &target : *targets) {
      if (target.result != result)
        continue;
      for (size_t piece = 0; piece < columns.at.size(); ++piece) {
        Value value = own(m.round(values[piece], element));
        auto write = [&, piece] {
          storeMoved(target, columns.index(at, piece), value);
        };
        if (columns.valid[piece])
          guard(columns.valid[piece], write);
        else
          write();
      }
    }
  };
  auto wants = [&](unsigned result) {
    return llvm::any_of(
        *targets, [&](const Moved &target) { return target.result == result; });
  };

  if (wants(0))
    guard(below(warp, constantIndex(rowCount)), [&] {
      SmallVector<Value, 4> at = delinearize(warp, {batch, heads, rows});
      Value kvHead = divIndex(at[1], group);
      auto [first, last] = keysOf(addIndex(at[2], constantIndex(offset)),
                                  op.getCausal(), window, keys);
      Value end = last;
      Row row = rowOf(at);
      LaneColumns columns =
          shareColumns(d, laneWidth(op.getKey(), 3, 1, width), *targets, 0);
      SmallVector<Value> start;
      zeros(columns, start);
      SmallVector<Value> sums =
          loop(first, end, 32, start, [&](Value tile, ValueRange so) {
            Value mine = addIndex(tile, lane), inside = below(mine, end);
            Value safe = own(m.select(inside, mine, tile));
            inside = padded(inside, at[0], safe);
            auto [p, ds] = pair(row, at, {at[0], kvHead, safe}, inside);
            (void)p;
            Value left = own(m.min(own(m.sub(end, tile)), constantIndex(32)));
            return addRows(
                {{ds, op.getKey(), &columns}}, left, so, [&](Value i) {
                  return SmallVector<Value>{at[0], kvHead, addIndex(tile, i)};
                });
          });
      finish(0, columns, at, sums);
    });

  if (!wants(1) && !wants(2))
    return success();
  Value number0 = own(m.sub(warp, constantIndex(rowCount)));
  Value here =
      own(m.logicalAnd(own(m.compareInt(Predicate::sge, number0, zero)),
                       below(number0, constantIndex(keyCount))));
  guard(here, [&] {
    SmallVector<Value, 4> at = delinearize(number0, {batch, key[1], keys});
    // Queries [first, end) may attend this key.
    Value first = zero, end = constantIndex(rows);
    Value same = addIndex(at[2], constantIndex(-offset));
    if (op.getCausal() && !uniform)
      first = own(m.min(own(m.max(same, zero)), end));
    if (window >= 0 && !uniform)
      end = own(
          m.min(own(m.max(addIndex(same, constantIndex(window)), zero)), end));
    LaneColumns ofKey = shareColumns(d, laneWidth(op.getQuery(), 3, 1, width),
                                     *targets, 1),
                ofValue =
                    shareColumns(dv, laneWidth(op.getResultGrad(), 3, 1, width),
                                 *targets, 2);
    SmallVector<Value> start;
    zeros(ofKey, start);
    zeros(ofValue, start);
    SmallVector<Value> sums = loop(
        zero, constantIndex(group), 1, start, [&](Value i, ValueRange outer) {
          Value head = addIndex(mulIndex(at[1], group), i);
          return loop(first, end, 32, outer, [&](Value tile, ValueRange so) {
            Value mine = addIndex(tile, lane), exists = below(mine, end);
            Value safe = own(m.select(exists, mine, tile));
            Value inside = exists;
            Value position = addIndex(safe, constantIndex(offset));
            if (op.getCausal())
              inside = own(m.logicalAnd(
                  inside, own(m.compareInt(Predicate::sge, position, at[2]))));
            if (window >= 0)
              inside = own(m.logicalAnd(
                  inside,
                  below(addIndex(position, constantIndex(-window)), at[2])));
            inside = padded(inside, at[0], at[2]);
            SmallVector<Value> queryAt = {at[0], head, safe};
            Row row = rowOf(queryAt);
            auto [p, ds] = pair(row, queryAt, at, inside);
            Value share = p;
            if (uniform) {
              Value empty = m.logicalAnd(
                  exists, m.compareFloat(arith::CmpFPredicate::OEQ,
                                         row.logSumExp, number(-HUGE_VAL)));
              share = own(
                  m.select(empty, number(1.0 / static_cast<double>(keys)), p));
            }
            Value left = own(m.min(own(m.sub(end, tile)), constantIndex(32)));
            return addRows(
                {{ds, op.getQuery(), &ofKey},
                 {share, op.getResultGrad(), &ofValue}},
                left, so, [&](Value i) {
                  return SmallVector<Value>{at[0], head, addIndex(tile, i)};
                });
          });
        });
    ArrayRef<Value> all(sums);
    finish(1, ofKey, at, all.take_front(ofKey.at.size()));
    finish(2, ofValue, at, all.drop_front(ofKey.at.size()));
  });
  return success();
}
