//===- RowOrder.cpp - Rows that are sorted, worked on and put back --------===//
//
// Exporters sort the rows of a mixture of experts by expert, multiply and put
// them back. A grouped product takes its rows in any order, so the sort and
// everything about it goes: what is computed row by row between the two is
// computed on the rows as they were. Then rows may be sharded.
//
//===----------------------------------------------------------------------===//

#include "NodeImporter.h"
#include "llvm/ADT/STLExtras.h"
#include "llvm/ADT/Sequence.h"

using namespace mlir;
using namespace mlir::dshard;
using namespace mlir::dshard::onnx;

static RankedTensorType typeOf(Value value) {
  return cast<RankedTensorType>(value.getType());
}

/// Through reshapes, and casts of numbers (integers only, unless `anyNumber`).
static Value strip(Value value, bool anyNumber = false) {
  while (Operation *op = value.getDefiningOp()) {
    bool isCast = isa<CastOp>(op);
    for (Type type : {op->getResult(0).getType(),
                      op->getNumOperands() ? op->getOperand(0).getType()
                                           : op->getResult(0).getType()}) {
      Type element = cast<RankedTensorType>(type).getElementType();
      auto integer = dyn_cast<IntegerType>(element);
      isCast &= integer ? integer.getWidth() >= 32 : anyNumber;
    }
    if (!isCast && !isa<ReshapeOp>(op))
      break;
    value = op->getOperand(0);
  }
  return value;
}

bool onnx::isAll(NodeImporter &n, Value value, double number) {
  while (isa_and_nonnull<ReshapeOp, BroadcastToOp>(value.getDefiningOp()))
    value = value.getDefiningOp()->getOperand(0);
  const Known *known = n.graph.known(value);
  if (!known)
    return false;
  auto same = [&](auto element) {
    return static_cast<double>(element) == number;
  };
  return known->ints.size() + known->floats.size() > 0 &&
         llvm::all_of(known->ints, same) && llvm::all_of(known->floats, same);
}

/// A function of sorted elements that keeps their order.
static bool isAscending(NodeImporter &n, Value value) {
  value = strip(value, /*anyNumber=*/true);
  for (const RowOrder &order : n.graph.rowOrders)
    if (value == order.sorted)
      return true;
  Operation *op = value.getDefiningOp();
  if (!op || !isa<DivOp, MulOp, MinOp, MaxOp, AddOp, SubOp, FloorOp>(op))
    return false;
  if (isa<FloorOp>(op))
    return isAscending(n, op->getOperand(0));
  bool commutes = isa<MulOp, MinOp, MaxOp, AddOp>(op);
  for (unsigned i : {0, 1}) {
    std::optional<double> number =
        typeOf(op->getOperand(1 - i)).getNumElements() == 1
            ? n.knownScalar(op->getOperand(1 - i))
            : std::nullopt;
    if (number && (i == 0 || commutes) &&
        (*number > 0 || !isa<DivOp, MulOp>(op)))
      return isAscending(n, op->getOperand(i));
  }
  return false;
}

/// Clipped at 0 or above: a scatter counts negative numbers from the end.
static bool isClipped(NodeImporter &n, Value value) {
  Operation *op = strip(value, /*anyNumber=*/true).getDefiningOp();
  if (!isa_and_nonnull<MinOp, MaxOp>(op))
    return false;
  for (unsigned i : {0, 1}) {
    Value bound = op->getOperand(1 - i);
    std::optional<double> number = typeOf(bound).getNumElements() == 1
                                       ? n.knownScalar(bound)
                                       : std::nullopt;
    if (number && *number >= 0)
      return isa<MaxOp>(op) || isClipped(n, op->getOperand(i));
  }
  return false;
}

Value onnx::findGroups(NodeImporter &n, ArrayRef<Value> limits) {
  Value sums;
  for (auto [i, limit] : llvm::enumerate(limits)) {
    Value base = strip(limit);
    if (auto slice = base.getDefiningOp<SliceOp>()) {
      RankedTensorType type = typeOf(slice.getInput());
      if (type.getRank() != 1 ||
          type.getDimSize(0) != static_cast<int64_t>(limits.size()) ||
          slice.getStarts()[0] != static_cast<int64_t>(i))
        return {};
      base = strip(slice.getInput());
    } else if (limits.size() != 1) {
      return {};
    }
    if (sums && base != sums)
      return {};
    sums = base;
  }
  Value counts = n.graph.runningSums.lookup(sums);
  Value bins =
      counts ? n.graph.histograms.lookup(strip(counts, true)) : Value();
  return bins && isAscending(n, bins) && isClipped(n, bins) ? bins : Value();
}

static const RowOrder *findOrder(NodeImporter &n, Value RowOrder::*part,
                                 Value indices) {
  indices = strip(indices);
  for (const RowOrder &order : n.graph.rowOrders)
    if (order.*part == indices)
      return &order;
  return nullptr;
}

/// 0, 1, 2, ...
static bool isCount(NodeImporter &n, Value value) {
  if (std::optional<std::vector<int64_t>> known = n.knownInts(value)) {
    for (auto [i, number] : llvm::enumerate(*known))
      if (number != static_cast<int64_t>(i))
        return false;
    return true;
  }
  auto count = strip(value).getDefiningOp<IotaOp>();
  return count && count.getStart().convertToDouble() == 0 &&
         count.getStep().convertToDouble() == 1 &&
         typeOf(count).getDimSize(count.getDim()) ==
             typeOf(count).getNumElements();
}

Value onnx::findPlaces(NodeImporter &n, Value indices, Value updates) {
  const RowOrder *order = findOrder(n, &RowOrder::permutation, indices);
  if (!order || !isCount(n, updates))
    return {};
  return n.cast(n.reshape(order->places, n.shape(updates)),
                n.elementOf(updates));
}

namespace {
/// Values of rows in sorted order as they are in the order before.
class Unsort {
public:
  Unsort(NodeImporter &n, const RowOrder &order)
      : n(n), order(order), rows(typeOf(order.places).getDimSize(0)) {}

  /// Null if `value` is not computed row by row from unsorted ones.
  Value run(Value value) {
    auto [at, isNew] = done.try_emplace(value);
    if (isNew) {
      Value result = compute(value);
      done[value] = result;
      return result;
    }
    return at->second;
  }

private:
  bool hasRows(Value value) const {
    return typeOf(value).getRank() > 0 && typeOf(value).getDimSize(0) == rows;
  }
  Value compute(Value value);
  /// `op` on unsorted operands; those whose numbers are not among `sorted`
  /// stay.
  Value rebuild(Operation *op, ArrayRef<unsigned> sorted);
  Value takeRows(Value from, Value indices);
  std::optional<HostTensor> evaluate(Value value) const;

  NodeImporter &n;
  const RowOrder &order;
  int64_t rows;
  DenseMap<Value, Value> done;
};
} // namespace

Value Unsort::rebuild(Operation *op, ArrayRef<unsigned> sorted) {
  SmallVector<Value> operands(op->getOperands());
  for (unsigned i : sorted) {
    operands[i] = run(operands[i]);
    if (!operands[i])
      return {};
  }
  Operation *copy = n.graph.builder().clone(*op);
  copy->setOperands(operands);
  return copy->getResult(0);
}

static bool isSplat(Value value) {
  auto constant = value.getDefiningOp<ConstantOp>();
  auto elements = constant ? dyn_cast<DenseElementsAttr>(constant.getValue())
                           : DenseElementsAttr();
  return elements && elements.isSplat();
}

/// The elements, as a function of the permutation alone: 0, 1, ... instead of
/// it. What else has rows has them in sorted order.
std::optional<HostTensor> Unsort::evaluate(Value value) const {
  HostTensor result(typeOf(value));
  if (value == order.permutation) {
    for (int64_t i = 0; i < rows; ++i)
      result.data[i] = static_cast<double>(i);
    return result;
  }
  Operation *op = value.getDefiningOp();
  if (!op ||
      !(isSplat(value) || isa<ReshapeOp>(op) || op->hasTrait<Pointwise>()))
    return std::nullopt;
  SmallVector<HostTensor> operands, results;
  for (Value operand : op->getOperands()) {
    std::optional<HostTensor> known = evaluate(operand);
    if (!known)
      return std::nullopt;
    operands.push_back(std::move(*known));
  }
  if (failed(cast<EvaluateInterface>(op).evaluate(operands, results)))
    return std::nullopt;
  results[0].roundToElementType();
  return std::move(results[0]);
}

Value Unsort::takeRows(Value from, Value indices) {
  // Row t of the k copies of each row: t / k.
  int64_t sources = typeOf(from).getDimSize(0);
  if (sources > 0 && rows % sources == 0 && !isSplat(indices))
    if (std::optional<HostTensor> known = evaluate(indices)) {
      int64_t copies = rows / sources;
      bool isRepeat = known->size() == rows;
      for (int64_t i = 0; isRepeat && i < rows; ++i)
        isRepeat = known->data[i] == static_cast<double>(i / copies);
      if (isRepeat) {
        SmallVector<int64_t> shape(n.shape(from));
        shape.insert(shape.begin() + 1, 1);
        Value one = n.reshape(from, shape);
        shape[1] = copies;
        one = n.broadcastTo(one, shape);
        shape.erase(shape.begin() + 1);
        shape[0] = rows;
        return n.reshape(one, shape);
      }
    }
  Value unsorted = run(strip(indices));
  return unsorted ? n.gather(from, n.reshape(unsorted, {rows}), 0) : Value();
}

Value Unsort::compute(Value value) {
  Operation *op = value.getDefiningOp();
  if (value == order.permutation)
    return n.iota({rows}, n.elementOf(value), 0);
  if (isSplat(value))
    return value;
  if (!op || op->getNumResults() != 1 || !hasRows(value))
    return {};
  if (auto gather = dyn_cast<GatherOp>(op))
    return gather.getDim() == 0 && typeOf(gather.getIndices()).getRank() == 1
               ? takeRows(gather.getInput(), gather.getIndices())
               : Value();
  if (auto gather = dyn_cast<GatherNdOp>(op))
    return gather.getBatchDims() == 0 &&
                   n.shape(gather.getIndices()) == ArrayRef<int64_t>({rows, 1})
               ? takeRows(gather.getInput(), gather.getIndices())
               : Value();
  SmallVector<unsigned> sorted;
  if (op->hasTrait<Pointwise>()) {
    for (auto [i, operand] : llvm::enumerate(op->getOperands()))
      if (n.rank(operand) == n.rank(value) && hasRows(operand))
        sorted.push_back(i);
    return sorted.empty() ? Value() : rebuild(op, sorted);
  }
  if (isa<GroupedMatMulOp>(op))
    return n.rank(value) == 2 ? rebuild(op, {0, 2}) : Value();
  if (!op->getNumOperands() || !hasRows(op->getOperand(0)))
    return {};
  // Of one dim a norm folds the rows; a broadcast may add dims in front.
  bool suits =
      isa<ReshapeOp>(op) ||
      (isa<RmsNormOp, LayerNormOp>(op) && n.rank(value) > 1) ||
      (isa<BroadcastToOp>(op) && n.rank(op->getOperand(0)) == n.rank(value));
  if (auto slice = dyn_cast<SliceOp>(op))
    suits = slice.getStarts()[0] == 0 && slice.getStrides()[0] == 1;
  if (auto transpose = dyn_cast<TransposeOp>(op))
    suits = transpose.getPermutation()[0] == 0;
  if (auto reduce = dyn_cast<ReduceOp>(op))
    suits = !llvm::is_contained(reduce.getDims(), 0);
  if (auto product = dyn_cast<MatMulOp>(op))
    suits = n.rank(value) == 2 && !product.getTransposeLhs();
  if (auto concat = dyn_cast<ConcatOp>(op)) {
    if (concat.getDim() == 0)
      return {};
    llvm::append_range(sorted, llvm::seq<unsigned>(0, op->getNumOperands()));
    return rebuild(op, sorted);
  }
  return suits ? rebuild(op, {0}) : Value();
}

Value onnx::unsortRows(NodeImporter &n, Value x, Value indices) {
  if (n.failed() || n.graph.rowOrders.empty())
    return {};
  const RowOrder *order = findOrder(n, &RowOrder::places, indices);
  if (!order || n.rank(x) == 0 || n.shape(x)[0] != n.shape(order->places)[0] ||
      n.typeOf(indices).getNumElements() != n.shape(x)[0])
    return {};
  return Unsort(n, *order).run(x);
}
