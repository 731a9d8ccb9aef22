//===- RaiseGroupedMatmul.cpp - Find products with looked-up matrices -----===//

#include "Match.h"
#include "dshard/Transforms/Graph/Passes.h"

namespace mlir::dshard {
#define GEN_PASS_DEF_RAISEGROUPEDMATMULPASS
#include "dshard/Transforms/Graph/Passes.h.inc"
} // namespace mlir::dshard

using namespace mlir;
using namespace mlir::dshard;

namespace {
/// weights[groups] of [e, a, b] -> [..., a, b].
struct LookUp {
  Value weights, groups;
};
struct Product {
  LookUp matrices;
  Value rows; ///< with the dim of size 1
  bool transposed = false;
};
} // namespace

static std::optional<LookUp> detectLookUp(Value value) {
  if (auto gather = value.getDefiningOp<GatherOp>()) {
    if (gather.getDim() != 0 || gather.getOffset() ||
        typeOf(gather.getInput()).getRank() != 3)
      return std::nullopt;
    return LookUp{gather.getInput(), gather.getIndices()};
  }
  auto gather = value.getDefiningOp<GatherNdOp>();
  if (!gather || gather.getBatchDims() != 0 ||
      shapeOf(gather.getIndices()).back() != 1 ||
      typeOf(gather.getInput()).getRank() != 3)
    return std::nullopt;
  return LookUp{gather.getInput(), gather.getIndices()};
}

/// One row times one matrix, for each of the batch.
static std::optional<Product> detectProduct(MatMulOp op) {
  bool isLeft = true;
  std::optional<LookUp> matrices = detectLookUp(op.getLhs());
  Value rows = op.getRhs();
  bool rowsTransposed = !op.getTransposeRhs();
  if (!matrices) {
    isLeft = false;
    matrices = detectLookUp(op.getRhs());
    rows = op.getLhs();
    rowsTransposed = op.getTransposeLhs();
  }
  if (!matrices)
    return std::nullopt;
  // The operand of rows is a column on the right, a row on the left.
  ArrayRef<int64_t> shape = shapeOf(rows),
                    lookedUp = shapeOf(isLeft ? op.getLhs() : op.getRhs());
  size_t rank = shape.size();
  if (rank < 3 || shape[rank - (rowsTransposed ? 1 : 2)] != 1 ||
      lookedUp.drop_back(2) != shape.drop_back(2))
    return std::nullopt;
  // [e, n, k] on the left is transposed, [e, k, n] on the right is not.
  bool transposed = isLeft ? !op.getTransposeLhs() : op.getTransposeRhs();
  return Product{*matrices, rows, transposed};
}

/// Numbers that are none below zero, as far as constants and simple ops tell.
static bool isNeverNegative(Value value, int budget = 32) {
  Operation *op = value.getDefiningOp();
  if (!op || budget <= 0)
    return false;
  auto all = [&](ValueRange values) {
    return llvm::all_of(
        values, [&](Value each) { return isNeverNegative(each, budget - 1); });
  };
  if (auto constant = dyn_cast<ConstantOp>(op)) {
    SmallVector<HostTensor> elements;
    return succeeded(constant.evaluate({}, elements)) &&
           llvm::all_of(elements[0].data, [](double x) { return x >= 0; });
  }
  if (auto iota = dyn_cast<IotaOp>(op))
    return iota.getStart().convertToDouble() >= 0 &&
           iota.getStep().convertToDouble() >= 0;
  if (auto select = dyn_cast<SelectOp>(op))
    return all({select.getTrueValue(), select.getFalseValue()});
  if (auto reduce = dyn_cast<ReduceOp>(op))
    return reduce.getKind() == ReductionKind::sum && all(reduce.getInput());
  return isa<ReshapeOp, TransposeOp, BroadcastToOp, SliceOp>(op) &&
         all(op->getOperand(0));
}

/// Groups as a grouped product has them: a look-up counts negative numbers from
/// the end.
static Value countFromStart(DShardBuilder &make, Value groups, int64_t count) {
  Type type = elementTypeOf(groups);
  if (type.isUnsignedInteger() || isNeverNegative(groups))
    return groups;
  Value last = make.binary<AddOp>(groups, make.scalar(count, type));
  return make.select(
      make.compare(groups, make.scalar(0, type), ComparePredicate::lt), last,
      groups);
}

static void applyProduct(MatMulOp op, const Product &product) {
  OpBuilder builder(op);
  DShardBuilder make(builder, op);
  SmallVector<int64_t> lead(shapeOf(product.rows).drop_back(2)), shape = lead;
  shape.push_back(
      shapeOf(product.matrices.weights)[product.transposed ? 2 : 1]);
  Value rows = make.reshape(product.rows, shape);
  shape.back() = shapeOf(product.matrices.weights)[product.transposed ? 1 : 2];
  Value groups = countFromStart(make, product.matrices.groups,
                                shapeOf(product.matrices.weights)[0]);
  Value result = make.create<GroupedMatMulOp>(
      typeOf(rows).clone(shape), rows, product.matrices.weights,
      make.reshape(groups, lead), Value(), product.transposed);
  op.replaceAllUsesWith(make.reshape(result, shapeOf(op.getResult())));
}

namespace {
struct RaiseGroupedMatmulPass
    : mlir::dshard::impl::RaiseGroupedMatmulPassBase<RaiseGroupedMatmulPass> {
  void runOnOperation() override {
    SmallVector<MatMulOp> products;
    getOperation().walk([&](MatMulOp op) { products.push_back(op); });
    for (MatMulOp op : products)
      if (std::optional<Product> product = detectProduct(op))
        applyProduct(op, *product);
    eraseDeadOps(getOperation());
  }
};
} // namespace
