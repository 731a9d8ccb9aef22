//===- RaiseRotary.cpp - Find rotary position embeddings ------------------===//

#include "Match.h"
#include "dshard/Transforms/Graph/Passes.h"

namespace mlir::dshard {
#define GEN_PASS_DEF_RAISEROTARYPASS
#include "dshard/Transforms/Graph/Passes.h.inc"
} // namespace mlir::dshard

using namespace mlir;
using namespace mlir::dshard;

namespace {
struct Rotary {
  Value input, cos, sin; // the tables in full width
};
} // namespace

/// True if `slice` is elements [start, start + size) of the last dim of
/// `input`.
static bool isPart(Value value, Value input, int64_t start, int64_t size) {
  auto slice = value.getDefiningOp<SliceOp>();
  if (!slice || slice.getInput() != input)
    return false;
  ArrayRef<int64_t> from = shapeOf(input), to = shapeOf(value);
  for (size_t i = 0; i < from.size(); ++i) {
    bool isLast = i + 1 == from.size();
    if (slice.getStrides()[i] != 1 ||
        slice.getStarts()[i] != (isLast ? start : 0) ||
        to[i] != (isLast ? size : from[i]))
      return false;
  }
  return true;
}

/// True if `value` is concat(-input[D/2:], input[:D/2]).
static bool isRotatedHalf(Value value, Value input) {
  auto concat = value.getDefiningOp<ConcatOp>();
  int64_t last = typeOf(input).getRank() - 1, D = shapeOf(input).back();
  if (!concat || int64_t(concat.getDim()) != last ||
      concat.getInputs().size() != 2 || D % 2 != 0)
    return false;
  auto neg = concat.getInputs()[0].getDefiningOp<NegOp>();
  return neg && isPart(neg.getInput(), input, D / 2, D / 2) &&
         isPart(concat.getInputs()[1], input, 0, D / 2);
}

/// The first half of a table whose last dim holds the same half twice; null if
/// that cannot be seen. Builds the ops of the half table.
static Value buildHalf(Value table, OpBuilder &builder) {
  Operation *op = table.getDefiningOp();
  int64_t rank = typeOf(table).getRank(), D = rank ? shapeOf(table).back() : 0;
  if (!op || rank == 0)
    return {};
  if (auto concat = dyn_cast<ConcatOp>(op)) {
    bool twice = int64_t(concat.getDim()) == rank - 1 &&
                 concat.getInputs().size() == 2 &&
                 concat.getInputs()[0] == concat.getInputs()[1];
    return twice ? concat.getInputs()[0] : Value();
  }
  OpBuilder::InsertionGuard guard(builder);
  builder.setInsertionPoint(op);
  DShardBuilder make(builder, op);
  SmallVector<int64_t> shape(shapeOf(table));
  shape.back() = D / 2;
  RankedTensorType type = typeOf(table).clone(shape);
  if (auto constant = dyn_cast<ConstantOp>(op)) {
    auto elements = dyn_cast<DenseElementsAttr>(constant.getValue());
    if (!elements || D % 2 != 0)
      return {};
    if (elements.isSplat())
      return ConstantOp::create(builder, op->getLoc(), type,
                                elements.resizeSplat(type));
    SmallVector<Attribute> values(elements.getValues<Attribute>()), half;
    for (size_t row = 0; row < values.size(); row += D)
      for (int64_t i = 0; i < D / 2; ++i) {
        if (values[row + i] != values[row + D / 2 + i])
          return {};
        half.push_back(values[row + i]);
      }
    return ConstantOp::create(builder, op->getLoc(), type,
                              DenseElementsAttr::get(type, half));
  }
  // Dims before the last may be regrouped freely.
  if (isa<ReshapeOp>(op)) {
    Value from = op->getOperand(0);
    if (typeOf(from).getRank() == 0 || shapeOf(from).back() != D)
      return {};
    Value half = buildHalf(from, builder);
    return half ? make.reshape(half, shape) : Value();
  }
  if (isa<BroadcastToOp>(op)) {
    Value from = op->getOperand(0);
    if (typeOf(from).getRank() == 0 || shapeOf(from).back() != D)
      return {};
    Value half = buildHalf(from, builder);
    return half ? make.broadcastTo(half, shape) : Value();
  }
  if (!op->hasTrait<Pointwise>())
    return {};
  SmallVector<Value> operands;
  for (Value operand : op->getOperands()) {
    bool isNarrow =
        typeOf(operand).getRank() == 0 || shapeOf(operand).back() == 1;
    Value half = isNarrow ? operand : buildHalf(operand, builder);
    if (!half)
      return {};
    operands.push_back(half);
  }
  Operation *narrow = builder.clone(*op);
  narrow->setOperands(operands);
  narrow->getResult(0).setType(type);
  return narrow->getResult(0);
}

static std::optional<Rotary> detectRotary(AddOp op) {
  Rotary rotary;
  RankedTensorType type = op.getResult().getType();
  if (type.getRank() != 4)
    return std::nullopt;
  bool found = matchCommutative<AddOp>(op, [&](Value plain, Value rotated) {
    return matchCommutative<MulOp>(rotated, [&](Value half, Value sin) {
      return matchCommutative<MulOp>(plain, [&](Value input, Value cos) {
        if (input.getType() != type || !isRotatedHalf(half, input))
          return false;
        rotary = {input, cos, sin};
        return true;
      });
    });
  });
  if (!found)
    return std::nullopt;
  // [1 or B, 1, S, D]: alike for all heads.
  for (Value table : {rotary.cos, rotary.sin}) {
    ArrayRef<int64_t> shape = shapeOf(table);
    if (shape.size() != 4 || shape[1] != 1 || shape[2] != type.getDimSize(2) ||
        shape[3] != type.getDimSize(3))
      return std::nullopt;
  }
  return rotary;
}

static void applyRotary(AddOp op, const Rotary &rotary) {
  OpBuilder builder(op);
  Value cos = buildHalf(rotary.cos, builder),
        sin = buildHalf(rotary.sin, builder);
  // Half tables that nobody reads are erased at the end.
  if (!cos || !sin) {
    op->emitRemark() << "looks like a rotary embedding, but its tables are not "
                        "one half twice; it stays in single ops";
    return;
  }
  builder.setInsertionPoint(op);
  DShardBuilder make(builder, op);
  auto dropHeads = [&](Value table) {
    ArrayRef<int64_t> shape = shapeOf(table);
    return make.reshape(table, {shape[0], shape[2], shape[3]});
  };
  cos = dropHeads(cos);
  sin = dropHeads(sin);
  Value result = make.create<RotaryOp>(op.getResult().getType(), rotary.input,
                                       cos, sin, /*interleaved=*/false);
  op.replaceAllUsesWith(result);
}

namespace {
struct RaiseRotaryPass
    : mlir::dshard::impl::RaiseRotaryPassBase<RaiseRotaryPass> {
  void runOnOperation() override {
    SmallVector<AddOp> sums;
    getOperation().walk([&](AddOp op) { sums.push_back(op); });
    for (AddOp op : sums)
      if (std::optional<Rotary> rotary = detectRotary(op))
        applyRotary(op, *rotary);
    eraseDeadOps(getOperation());
  }
};
} // namespace
