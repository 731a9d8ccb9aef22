//===- View.cpp - Chains of ops that only move elements -------------------===//

#include "View.h"
#include "Match.h"

using namespace mlir;
using namespace mlir::dshard;

View View::dense(ArrayRef<int64_t> shape) {
  View view;
  view.dims.resize(shape.size());
  int64_t stride = 1;
  for (size_t i = shape.size(); i-- > 0;) {
    view.dims[i] = {{shape[i], stride}};
    stride *= shape[i];
  }
  return view;
}

View View::normalized() const {
  View view;
  for (auto &factors : dims) {
    auto &out = view.dims.emplace_back();
    for (ViewFactor factor : factors) {
      if (factor.size == 1)
        continue;
      if (!out.empty() && out.back().stride == factor.size * factor.stride) {
        // Two repetitions in a row (stride 0) join as well.
        out.back() = {out.back().size * factor.size, factor.stride};
        continue;
      }
      out.push_back(factor);
    }
  }
  return view;
}

/// Deals the factors out to dims of the sizes of `shape`.
static std::optional<View> regroup(const View &view, ArrayRef<int64_t> shape) {
  SmallVector<ViewFactor> pending;
  for (auto &factors : view.normalized().dims)
    llvm::append_range(pending, factors);
  std::reverse(pending.begin(), pending.end());
  View result;
  for (int64_t size : shape) {
    auto &factors = result.dims.emplace_back();
    int64_t left = size;
    while (left > 1) {
      if (pending.empty())
        return std::nullopt;
      ViewFactor factor = pending.pop_back_val();
      if (left % factor.size == 0) {
        factors.push_back(factor);
        left /= factor.size;
        continue;
      }
      if (factor.size % left != 0)
        return std::nullopt;
      // The major part belongs to this dim, the rest to the next.
      int64_t rest = factor.size / left;
      factors.push_back({left, rest * factor.stride});
      pending.push_back({rest, factor.stride});
      left = 1;
    }
  }
  return result;
}

std::optional<View> View::after(Operation *op) const {
  if (isa<ReshapeOp>(op))
    return regroup(*this, shapeOf(op->getResult(0)));
  View result;
  if (auto transpose = dyn_cast<TransposeOp>(op)) {
    for (int64_t dim : transpose.getPermutation())
      result.dims.push_back(dims[dim]);
    return result;
  }
  if (!isa<BroadcastToOp>(op))
    return std::nullopt;
  ArrayRef<int64_t> shape = shapeOf(op->getResult(0)),
                    from = shapeOf(op->getOperand(0));
  size_t lead = shape.size() - from.size();
  for (auto [i, size] : llvm::enumerate(shape)) {
    if (i < lead || from[i - lead] != size)
      result.dims.push_back({{size, 0}});
    else
      result.dims.push_back(dims[i - lead]);
  }
  return result;
}

Value mlir::dshard::findSource(
    Value value, double *scale,
    llvm::function_ref<bool(Value, const View &)> accept) {
  SmallVector<Operation *> chain; // from `value` backwards
  Value source;
  double factor = 1, sourceFactor = 1;
  for (Value current = value;;) {
    std::optional<View> view = View::dense(shapeOf(current));
    for (Operation *op : llvm::reverse(chain))
      if (view)
        view = view->after(op);
    if (view && accept(current, view->normalized())) {
      source = current;
      sourceFactor = factor;
    }
    if (scale)
      if (auto scaled = matchScaled(current)) {
        factor *= scaled->second;
        current = scaled->first;
        continue;
      }
    Operation *op = current.getDefiningOp();
    if (!op || !isa<ReshapeOp, TransposeOp, BroadcastToOp>(op))
      break;
    chain.push_back(op);
    current = op->getOperand(0);
  }
  if (source && scale)
    *scale *= sourceFactor;
  return source;
}
