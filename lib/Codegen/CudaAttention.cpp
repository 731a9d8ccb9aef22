//===- CudaAttention.cpp - Attention by warps, without the scores ---------===//
//
// A warp takes one row of queries. It goes over the keys in tiles of 32: each
// lane has the score of one key, and the tile's probabilities go from lane to
// lane while each lane adds up its own columns of the result. Maximum and sum
// are kept as in Milakov and Gimelshein, arXiv 1805.02867, so that neither the
// scores nor the probabilities are ever stored. Operands are pulled like those
// of any op, so transposes and reshapes of them cost nothing; those of the
// result move where it is stored.
//
//===----------------------------------------------------------------------===//

#include "Emitter.h"
#include "mlir/Dialect/Vector/IR/VectorOps.h"
#include "llvm/ADT/STLExtras.h"
#include "llvm/Support/MathExtras.h"

#include <limits>

using namespace mlir;
using namespace mlir::dshard;

FailureOr<SmallVector<Emitter::Moved>> Emitter::movedResults(Operation *op) {
  auto yield = cast<YieldOp>(fused.getBody().front().getTerminator());
  SmallVector<Moved> results;
  for (auto [output, value] : llvm::enumerate(yield.getValues())) {
    Moved moved;
    moved.output = static_cast<unsigned>(output);
    Value source = value;
    while (source.getDefiningOp() != op) {
      Operation *move = source.getDefiningOp();
      if (!isa_and_present<TransposeOp, ReshapeOp>(move))
        return op->emitError("is in a CUDA kernel with ops that compute with "
                             "its result; only transposes and reshapes may "
                             "follow it"),
               failure();
      moved.moves.insert(moved.moves.begin(), move);
      source = move->getOperand(0);
    }
    moved.result = cast<OpResult>(source).getResultNumber();
    results.push_back(moved);
  }
  return results;
}

void Emitter::storeMoved(const Moved &moved, Index index, Value value) {
  for (Operation *move : moved.moves) {
    Index next = index;
    if (auto transpose = dyn_cast<TransposeOp>(move)) {
      for (auto [to, from] : llvm::enumerate(transpose.getPermutation())) {
        next.at[to] = index.at[from];
        if (index.lane == static_cast<int>(from))
          next.lane = to;
      }
    } else {
      next = reshapeIndex(shapeOf(move->getResult(0)),
                          shapeOf(move->getOperand(0)), index);
    }
    index = next;
  }
  if (index.single() || index.lane + 1 == static_cast<int>(index.at.size()))
    return store(moved.output, index, value);
  for (int64_t i = 0; i < index.width; ++i) {
    Index one = index;
    one.dropLane();
    one.at[index.lane] = addIndex(index.at[index.lane], constantIndex(i));
    store(moved.output, one, vector::ExtractOp::create(b, loc, value, i));
  }
}

Emitter::LaneColumns Emitter::shareColumns(int64_t depth, int64_t width,
                                           ArrayRef<Moved> results,
                                           unsigned result) {
  while (width > 1 && (32 * width > depth || depth % width))
    width /= 2;
  for (const Moved &moved : results)
    for (Operation *move : moved.moves)
      while (moved.result == result && width > 1 && isa<ReshapeOp>(move) &&
             shapeOf(move->getResult(0)).back() % width)
        width /= 2;
  LaneColumns columns;
  columns.width = width;
  int64_t pieces = llvm::divideCeil(depth, 32 * width);
  for (int64_t piece = 0; piece < pieces; ++piece) {
    Value column =
        addIndex(mulIndex(lane, width), constantIndex(piece * 32 * width));
    Value valid;
    if ((piece + 1) * 32 * width > depth) {
      valid =
          m.compareInt(arith::CmpIPredicate::slt, column, constantIndex(depth));
      column = m.select(valid, column, constantIndex(0));
      own(valid);
      own(column);
    }
    columns.at.push_back(column);
    columns.valid.push_back(valid);
  }
  return columns;
}

Index Emitter::LaneColumns::index(ArrayRef<Value> row, size_t piece) const {
  Index index(row);
  index.at.push_back(at[piece]);
  if (width > 1)
    index.lane = static_cast<int>(row.size()), index.width = width;
  return index;
}

Value Emitter::dot(Value x, ArrayRef<Value> xRow, Value y,
                   ArrayRef<Value> yRow) {
  int last = static_cast<int>(xRow.size());
  int64_t depth = shapeOf(x).back();
  int64_t width = std::min(laneWidth(x, last, 1, 4), laneWidth(y, last, 1, 4));
  while (depth % width)
    width /= 2;
  Value zero = m.constant(m.computeType(elementOf(x)), 0);
  Value sum = loop(
      constantIndex(0), constantIndex(depth), width,
      m.splat(zero, width > 1 ? width : 0), [&](Value column, ValueRange so) {
        Index xAt(xRow), yAt(yRow);
        xAt.at.push_back(column);
        yAt.at.push_back(column);
        if (width > 1) {
          xAt.lane = yAt.lane = last;
          xAt.width = yAt.width = width;
        }
        return SmallVector<Value>{m.fma(eval(x, xAt), eval(y, yAt), so[0])};
      })[0];
  if (width > 1)
    sum = m.reduceLanes(sum, [&](Value x, Value y) { return m.add(x, y); });
  return sum;
}

std::pair<Value, Value> Emitter::keysOf(Value position, bool causal,
                                        int64_t window, int64_t keys) {
  auto own = [&](Value v) {
    this->own(v);
    return v;
  };
  Value zero = constantIndex(0), first = zero, end = constantIndex(keys);
  if (causal)
    end =
        own(m.max(own(m.min(addIndex(position, constantIndex(1)), end)), zero));
  if (window >= 0)
    first = own(m.max(addIndex(position, constantIndex(1 - window)), zero));
  return {first, end};
}

Value Emitter::evalBias(Value bias, ArrayRef<Value> row, Value key) {
  Index index(row);
  index.at.push_back(key);
  for (auto [at, size] : llvm::zip_equal(index.at, shapeOf(bias)))
    if (size == 1)
      at = constantIndex(0);
  return m.cast(eval(bias, index), elementOf(bias),
                m.computeType(elementOf(bias)));
}

LogicalResult Emitter::emitCudaAttention(AttentionOp op, CudaKernelInfo &info) {
  SmallVector<int64_t> query = shapeOf(op.getQuery()),
                       key = shapeOf(op.getKey()),
                       value = shapeOf(op.getValue());
  int64_t heads = query[1], rows = query[2], keys = key[2], dv = value[3],
          group = heads / key[1];
  auto window = static_cast<int64_t>(op.getWindow());
  SmallVector<int64_t> places = {query[0], heads, rows};
  Type element = elementOf(op.getResult()), type = m.computeType(element);
  Type i32 = b.getI32Type();
  double inf = std::numeric_limits<double>::infinity();
  FailureOr<SmallVector<Moved>> targets = movedResults(op);
  if (mlir::failed(targets))
    return failure();
  int64_t count = places[0] * heads * rows;
  if (mlir::failed(launch(count * 32, 128, info)))
    return failure();
  Value row = divIndex(thread, 32);
  auto own = [&](Value v) {
    this->own(v);
    return v;
  };
  auto select = [&](Value c, Value x, Value y) {
    return own(m.select(c, x, y));
  };
  auto compare = [&](arith::CmpIPredicate predicate, Value x, Value y) {
    return own(m.compareInt(predicate, x, y));
  };
  auto number = [&](double v) { return m.constant(type, v); };
  using Predicate = arith::CmpIPredicate;
  guard(compare(Predicate::slt, row, constantIndex(count)), [&] {
    SmallVector<Value, 4> at =
        delinearize(count == 1 ? constantIndex(0) : row, places);
    Value kvHead = divIndex(at[1], group);
    Value zero = constantIndex(0);

    // Keys [first, end) that this row may attend.
    Value position = addIndex(at[2], constantIndex(op.getOffset()));
    if (op.getQueryOffset())
      position = addIndex(position, eval(op.getQueryOffset(), Index()));
    auto [first, last] = keysOf(position, op.getCausal(), window, keys);
    Value end = last;

    // The columns of the result that this lane adds up.
    LaneColumns columns = shareColumns(
        dv, laneWidth(op.getValue(), 3, 1, std::min<int64_t>(4, widthLimit())),
        *targets, 0);
    int64_t lanes = columns.width > 1 ? columns.width : 0,
            pieces = columns.at.size();
    auto columnOf = [&](Value tensorRow, Value head, int64_t piece) {
      return columns.index({at[0], head, tensorRow}, piece);
    };

    SmallVector<Value> carried = {number(-inf), number(0)};
    for (int64_t piece = 0; piece < pieces; ++piece)
      carried.push_back(m.splat(number(0), lanes));
    auto sum = [&](Value x, Value y) { return m.add(x, y); };
    SmallVector<Value> state =
        loop(first, end, 32, carried, [&](Value tile, ValueRange before) {
          Value mine = addIndex(tile, lane);
          Value inside = compare(Predicate::slt, mine, end);
          Value safe = select(inside, mine, tile);
          if (op.getKeyPadding())
            inside = own(m.logicalAnd(
                inside, eval(op.getKeyPadding(), Index({at[0], safe}))));
          Value score = dot(op.getQuery(), {at[0], at[1], at[2]}, op.getKey(),
                            {at[0], kvHead, safe});
          score = m.mul(score, number(op.getScale().convertToDouble()));
          if (double cap = op.getSoftcap().convertToDouble(); cap > 0)
            score = m.mul(m.tanh(m.div(score, number(cap))), number(cap));
          if (Value bias = op.getBias())
            score = m.add(score, evalBias(bias, at, safe));
          score = m.select(inside, score, number(-inf));
          Value largest = m.max(
              before[0],
              reduceWarp(score, [&](Value x, Value y) { return m.max(x, y); }));
          Value none =
              m.compareFloat(arith::CmpFPredicate::OEQ, largest, number(-inf));
          // Nothing attended so far: any finite number will do.
          Value base = m.select(none, number(0), largest);
          Value probability =
              m.select(inside, m.exp(m.sub(score, base)), number(0));
          Value correction = m.exp(m.sub(before[0], base));
          correction = m.select(m.compareFloat(arith::CmpFPredicate::OEQ,
                                               before[0], number(-inf)),
                                number(0), correction);
          SmallVector<Value> next = {own(largest),
                                     own(m.add(m.mul(before[1], correction),
                                               reduceWarp(probability, sum)))};
          SmallVector<Value> scaled;
          for (int64_t piece = 0; piece < pieces; ++piece)
            scaled.push_back(own(m.mul(before[2 + piece], correction)));
          own(probability);
          Value left = own(m.min(own(m.sub(end, tile)), constantIndex(32)));
          next.append(
              loop(zero, left, 1, scaled, [&](Value i, ValueRange total) {
                Value from = arith::TruncIOp::create(b, loc, i32, i);
                Value weight = shuffle(probability, from, /*butterfly=*/false);
                SmallVector<Value> added;
                for (int64_t piece = 0; piece < pieces; ++piece)
                  added.push_back(m.fma(
                      m.splat(weight, lanes),
                      m.splat(eval(op.getValue(),
                                   columnOf(addIndex(tile, i), kvHead, piece)),
                              lanes),
                      total[piece]));
                return added;
              }));
          return next;
        });

    Value total = state[1];
    Value empty =
        own(m.compareFloat(arith::CmpFPredicate::OEQ, total, number(0)));
    for (int64_t piece = 0; piece < pieces; ++piece) {
      Type shaped = state[2 + piece].getType();
      auto finish = [&] { return m.div(state[2 + piece], total); };
      Value result;
      if (op.getFullyMasked() == FullyMasked::zero)
        result = own(m.select(empty, m.splat(number(0), lanes), finish()));
      else
        result = branch(
            empty, shaped,
            [&] {
              Value all = loop(
                  zero, constantIndex(keys), 1, m.splat(number(0), lanes),
                  [&](Value i, ValueRange so) {
                    Value v = eval(op.getValue(), columnOf(i, kvHead, piece));
                    return SmallVector<Value>{m.add(so[0], m.splat(v, lanes))};
                  })[0];
              return m.div(all, number(static_cast<double>(keys)));
            },
            finish);
      result = own(m.round(result, element));
      for (const Moved &target : *targets) {
        if (target.result == 1)
          continue;
        auto write = [&] {
          storeMoved(target, columnOf(at[2], at[1], piece), result);
        };
        if (columns.valid[piece])
          guard(columns.valid[piece], write);
        else
          write();
      }
    }
    Type f32 = b.getF32Type();
    for (const Moved &target : *targets) {
      if (target.result == 0)
        continue;
      Value log = m.add(state[0], m.log(m.select(empty, number(1), total)));
      log = m.select(empty, number(-inf), log);
      log = own(m.cast(log, element.isF64() ? element : f32, f32));
      guard(compare(Predicate::eq, lane, zero), [&] {
        storeMoved(target, Index({at[0], at[1], at[2]}), log);
      });
    }
  });
  return success();
}
