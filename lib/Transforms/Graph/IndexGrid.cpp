//===- IndexGrid.cpp - Values that count ----------------------------------===//

#include "IndexGrid.h"
#include "Match.h"
#include <cmath>

using namespace mlir;
using namespace mlir::dshard;

static constexpr int64_t maxConstantElements = 1 << 20;

static std::optional<int64_t> toInteger(double x) {
  if (!(std::fabs(x) < 0x1p53) || x != std::trunc(x))
    return std::nullopt;
  return static_cast<int64_t>(x);
}

/// The grid that explains all elements of a constant.
static std::optional<IndexGrid> fit(const HostTensor &tensor) {
  IndexGrid grid;
  grid.steps.assign(tensor.rank(), 0);
  if (tensor.size() == 0)
    return std::nullopt;
  std::optional<int64_t> first = toInteger(tensor.data[0]);
  if (!first)
    return std::nullopt;
  grid.offset = *first;
  SmallVector<int64_t> strides = tensor.strides();
  for (int64_t d = 0; d < tensor.rank(); ++d) {
    if (tensor.shape()[d] == 1)
      continue;
    std::optional<int64_t> next = toInteger(tensor.data[strides[d]]);
    if (!next)
      return std::nullopt;
    grid.steps[d] = *next - grid.offset;
  }
  bool fits = true;
  int64_t linear = 0;
  forEachIndex(tensor.shape(), [&](ArrayRef<int64_t> index) {
    double expected = static_cast<double>(grid.offset);
    for (auto [step, i] : llvm::zip_equal(grid.steps, index))
      expected += static_cast<double>(step * i);
    fits &= tensor.data[linear++] == expected;
  });
  return fits ? std::optional(grid) : std::nullopt;
}

static std::optional<HostTensor> readConstant(Value value) {
  auto constant = value.getDefiningOp<ConstantOp>();
  SmallVector<HostTensor> elements;
  if (!constant || typeOf(value).getNumElements() > maxConstantElements ||
      failed(constant.evaluate({}, elements)))
    return std::nullopt;
  return std::move(elements.front());
}

/// Steps of the dims of `from` that are not 1, put on those of `to`.
static std::optional<IndexGrid> reshapeGrid(const IndexGrid &grid,
                                            ArrayRef<int64_t> from,
                                            ArrayRef<int64_t> to) {
  IndexGrid result;
  result.offset = grid.offset;
  result.steps.assign(to.size(), 0);
  size_t i = 0;
  for (auto [j, size] : llvm::enumerate(to)) {
    if (size == 1)
      continue;
    while (i < from.size() && from[i] == 1)
      ++i;
    if (i == from.size() || from[i] != size)
      return std::nullopt;
    result.steps[j] = grid.steps[i++];
  }
  return result;
}

/// Adds `grid` of `shape`, times `factor`, to `sum`, aligned from the right.
static void addGrid(IndexGrid &sum, const IndexGrid &grid, int64_t factor) {
  sum.offset += factor * grid.offset;
  size_t lead = sum.steps.size() - grid.steps.size();
  for (auto [i, step] : llvm::enumerate(grid.steps))
    sum.steps[lead + i] += factor * step;
}

std::optional<IndexGrid> mlir::dshard::findIndexGrid(Value value) {
  Operation *op = value.getDefiningOp();
  if (!op)
    return std::nullopt;
  RankedTensorType type = typeOf(value);
  if (type.getElementType().isInteger(1))
    return std::nullopt;
  IndexGrid grid;
  grid.steps.assign(type.getRank(), 0);
  if (auto iota = dyn_cast<IotaOp>(op)) {
    auto start = toInteger(iota.getStart().convertToDouble()),
         step = toInteger(iota.getStep().convertToDouble());
    if (!start || !step)
      return std::nullopt;
    grid.offset = *start;
    if (type.getDimSize(iota.getDim()) != 1)
      grid.steps[iota.getDim()] = *step;
    return grid;
  }
  if (isa<ConstantOp>(op)) {
    if (std::optional<double> splat = matchSplat(value)) {
      std::optional<int64_t> number = toInteger(*splat);
      if (!number)
        return std::nullopt;
      grid.offset = *number;
      return grid;
    }
    std::optional<HostTensor> elements = readConstant(value);
    return elements ? fit(*elements) : std::nullopt;
  }
  if (isa<CastOp>(op))
    return findIndexGrid(op->getOperand(0));
  if (isa<ReshapeOp>(op)) {
    std::optional<IndexGrid> from = findIndexGrid(op->getOperand(0));
    return from
               ? reshapeGrid(*from, shapeOf(op->getOperand(0)), type.getShape())
               : std::nullopt;
  }
  if (isa<BroadcastToOp>(op)) {
    std::optional<IndexGrid> from = findIndexGrid(op->getOperand(0));
    if (from)
      addGrid(grid, *from, 1);
    return from ? std::optional(grid) : std::nullopt;
  }
  if (auto transpose = dyn_cast<TransposeOp>(op)) {
    std::optional<IndexGrid> from = findIndexGrid(transpose.getInput());
    if (!from)
      return std::nullopt;
    grid.offset = from->offset;
    for (auto [i, dim] : llvm::enumerate(transpose.getPermutation()))
      grid.steps[i] = from->steps[dim];
    return grid;
  }
  if (isa<AddOp, SubOp>(op)) {
    std::optional<IndexGrid> lhs = findIndexGrid(op->getOperand(0)),
                             rhs = findIndexGrid(op->getOperand(1));
    if (!lhs || !rhs)
      return std::nullopt;
    addGrid(grid, *lhs, 1);
    addGrid(grid, *rhs, isa<AddOp>(op) ? 1 : -1);
    return grid;
  }
  if (isa<MulOp>(op))
    for (int i : {0, 1}) {
      std::optional<double> number = matchSplat(op->getOperand(i));
      std::optional<int64_t> factor =
          number ? toInteger(*number) : std::nullopt;
      std::optional<IndexGrid> from =
          factor ? findIndexGrid(op->getOperand(1 - i)) : std::nullopt;
      if (from) {
        addGrid(grid, *from, *factor);
        return grid;
      }
    }
  return std::nullopt;
}

/// The element is i_dim and nothing else. `grid` has one more, last dim.
static bool countsAlong(const IndexGrid &grid, ArrayRef<int64_t> shape,
                        int64_t dim) {
  if (grid.offset != 0)
    return false;
  for (auto [i, size] : llvm::enumerate(shape))
    if (size != 1 && grid.steps[i] != (int64_t(i) == dim ? 1 : 0))
      return false;
  return true;
}

bool mlir::dshard::isOwnIndex(Value indices, ArrayRef<int64_t> dims) {
  ArrayRef<int64_t> shape = shapeOf(indices).drop_back();
  if (shapeOf(indices).back() != int64_t(dims.size()))
    return false;
  if (auto concat = indices.getDefiningOp<ConcatOp>()) {
    if (int64_t(concat.getDim()) != int64_t(shape.size()) ||
        concat.getInputs().size() != dims.size())
      return false;
    for (auto [input, dim] : llvm::zip_equal(concat.getInputs(), dims)) {
      std::optional<IndexGrid> grid = findIndexGrid(input);
      if (!grid || !countsAlong(*grid, shape, dim))
        return false;
    }
    return true;
  }
  std::optional<HostTensor> elements = readConstant(indices);
  if (!elements)
    return false;
  for (auto [n, dim] : llvm::enumerate(dims)) {
    HostTensor component(RankedTensorType::get(shape, elementTypeOf(indices)));
    for (size_t i = 0; i < component.data.size(); ++i)
      component.data[i] = elements->data[i * dims.size() + n];
    std::optional<IndexGrid> grid = fit(component);
    if (!grid || !countsAlong(*grid, shape, dim))
      return false;
  }
  return true;
}
