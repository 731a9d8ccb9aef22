//===- EmitColumns.cpp - Kernels whose threads share columns --------------===//
//
// Sums over leading dims (gradients of biases and norms) and sums by index
// (gradients of embeddings): every thread goes through all rows, in their
// order, for its own columns, so the result does not depend on the threads.
//
//===----------------------------------------------------------------------===//

#include "Emitter.h"
#include "llvm/ADT/STLExtras.h"
#include "llvm/Support/MathExtras.h"

using namespace mlir;
using namespace mlir::dshard;

/// Results of one row (sums over leading dims: gradients of biases and norms):
/// threads share the columns, and lanes run along them.
bool Emitter::columns() {
  auto yield = cast<YieldOp>(fused.getBody().front().getTerminator());
  auto first = cast<RankedTensorType>(yield.getValues()[0].getType());
  if (first.getRank() == 0 || first.getNumElements() < 64 ||
      first.getShape().back() != first.getNumElements())
    return false;
  bool sums = false;
  for (auto reduce : fused.getBody().front().getOps<ReduceOp>()) {
    int64_t last = reduce.getInput().getType().getRank() - 1;
    sums |= !llvm::is_contained(reduce.getDims(), last);
  }
  return sums && llvm::all_of(yield.getValues(), [&](Value value) {
           return cast<RankedTensorType>(value.getType()).getShape() ==
                  first.getShape();
         });
}

LogicalResult Emitter::emitColumns(KernelInfo &info) {
  auto yield = cast<YieldOp>(fused.getBody().front().getTerminator());
  auto type = cast<RankedTensorType>(yield.getValues()[0].getType());
  int64_t last = type.getRank() - 1;
  info.extent = type.getNumElements();
  // Whole cache lines of every row; as many sums at a time as registers hold.
  int64_t width = widthLimit() * (costOfElement() < 64 * 16 ? 4 : 1);
  for (Value value : yield.getValues())
    width = std::min(width, laneWidth(value, last, 1, width));
  while (width > info.extent)
    width /= 2;
  info.grain = std::max<int64_t>(
      64,
      llvm::alignTo(static_cast<int64_t>(workPerPiece / costOfElement()), 64));
  overElements(begin_, splitOf(begin_, end_, width), end_, width,
               [&](Value at, int64_t lanes) {
                 Index index;
                 index.at.assign(last, constantIndex(0));
                 index.at.push_back(at);
                 if (lanes > 1)
                   index.lane = last, index.width = lanes;
                 SmallVector<Value> values;
                 for (Value value : yield.getValues())
                   values.push_back(eval(value, index));
                 for (auto [number, value] : llvm::enumerate(values))
                   store(number, index, value);
               });
  return success();
}

/// Threads share the last dim; each zeroes its columns and then adds slices in
/// the order of the indices.
LogicalResult Emitter::emitScatter(ScatterAddOp op, KernelInfo &info) {
  SmallVector<int64_t> result = shapeOf(op.getResult()),
                       indices = shapeOf(op.getIndices());
  int64_t dim = op.getDim(), size = result[dim],
          last = static_cast<int64_t>(result.size()) - 1;
  bool hasColumns = dim < last;
  // All dims around the indexed one but the columns.
  SmallVector<int64_t> around(result.begin(), result.begin() + dim);
  if (hasColumns)
    around.append(result.begin() + dim + 1, result.end() - 1);
  int64_t columns = hasColumns ? result[last] : 1,
          places = ShapedType::getNumElements(indices);
  int64_t updateLast = op.getUpdates().getType().getRank() - 1;
  int64_t width = columns >= 8 && !cuda ? widthLimit() : 1;
  if (width > 1)
    width = laneWidth(op.getUpdates(), updateLast, 1, width);
  info.extent = columns;
  double work =
      static_cast<double>(ShapedType::getNumElements(around)) * (size + places);
  info.grain = std::max<int64_t>(
      16, llvm::alignTo(static_cast<int64_t>(workPerPiece / work), 16));
  info.grain = std::min(info.grain, info.extent);

  Type element = elementOf(op.getResult()), type = m.computeType(element);
  Value split = splitOf(begin_, end_, width);
  auto indexOf = [&](ArrayRef<Value> outer, ArrayRef<Value> middle,
                     Value column, int64_t lanes) {
    Index index;
    index.at.append(outer.begin(), outer.begin() + dim);
    index.at.append(middle.begin(), middle.end());
    index.at.append(outer.begin() + dim, outer.end());
    if (hasColumns)
      index.at.push_back(column);
    if (lanes > 1) {
      index.lane = index.at.size() - 1;
      index.width = lanes;
    }
    return index;
  };
  auto none = SmallVector<Value>();
  loop(constantIndex(0), constantIndex(ShapedType::getNumElements(around)), 1,
       {}, [&](Value number, ValueRange) {
         SmallVector<Value, 4> outer = delinearize(number, around);
         loop(constantIndex(0), constantIndex(size), 1, {},
              [&](Value row, ValueRange) {
                overElements(begin_, split, end_, width,
                             [&](Value column, int64_t lanes) {
                               store(0, indexOf(outer, {row}, column, lanes),
                                     m.constant(type, 0));
                             });
                return none;
              });
         loop(constantIndex(0), constantIndex(places), 1, {},
              [&](Value place, ValueRange) {
                SmallVector<Value, 4> at = delinearize(place, indices);
                std::pair<Value, Value> found = indexInside(
                    op, Index(at), op.getIndices(), op.getOffset(), size);
                Value skip = begin_;
                Value vectors = m.select(found.second, split, skip),
                      low = m.select(found.second, split, skip),
                      high = m.select(found.second, end_, skip);
                for (Value value : {vectors, low, high})
                  own(value);
                auto add = [&](Value column, int64_t lanes) {
                  Index target = indexOf(outer, {found.first}, column, lanes);
                  Value sum = m.add(
                      load(outputs[0], op.getResult(), target),
                      eval(op.getUpdates(), indexOf(outer, at, column, lanes)));
                  store(0, target, m.round(sum, element));
                };
                if (width > 1)
                  loop(begin_, vectors, width, {},
                       [&](Value column, ValueRange) {
                         add(column, width);
                         return none;
                       });
                loop(width > 1 ? low : skip, high, 1, {},
                     [&](Value column, ValueRange) {
                       add(column, 1);
                       return none;
                     });
                return none;
              });
         return none;
       });
  return success();
}
