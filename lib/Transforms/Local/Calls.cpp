//===- Calls.cpp - Fused regions that are one library call ----------------===//

#include "dshard/Transforms/Local/Calls.h"
#include "llvm/ADT/STLExtras.h"

#include <optional>

using namespace mlir;
using namespace mlir::dshard;

static ArrayRef<int64_t> shapeOf(Value value) {
  return cast<RankedTensorType>(value.getType()).getShape();
}
static Type elementOf(Value value) {
  return cast<RankedTensorType>(value.getType()).getElementType();
}
static bool isCallType(Type type) {
  return type.isF32() || type.isBF16() || type.isF16();
}

SmallVector<int64_t> mlir::dshard::contiguousStrides(ArrayRef<int64_t> shape) {
  SmallVector<int64_t> strides(shape.size(), 1);
  for (int64_t d = static_cast<int64_t>(shape.size()) - 2; d >= 0; --d)
    strides[d] = strides[d + 1] * shape[d + 1];
  return strides;
}

/// The strides of the same elements under another shape, if there are such.
static std::optional<SmallVector<int64_t>>
reshapeStrides(ArrayRef<int64_t> from, ArrayRef<int64_t> strides,
               ArrayRef<int64_t> to) {
  // Without elements there is no product of dims to match.
  if (llvm::is_contained(from, 0))
    return std::nullopt;
  SmallVector<int64_t> result(to.size(), 0);
  size_t i = 0, j = 0;
  while (true) {
    while (i < from.size() && from[i] == 1)
      ++i;
    while (j < to.size() && to[j] == 1)
      ++j;
    if (i >= from.size() || j >= to.size())
      return result;
    int64_t a = from[i], c = to[j];
    size_t iBegin = i++, jBegin = j++;
    while (a != c) {
      if (a < c)
        a *= from[i++];
      else
        c *= to[j++];
    }
    // The dims of `from` must be one run.
    int64_t next = 0;
    for (size_t d = i; d-- > iBegin;) {
      if (from[d] == 1)
        continue;
      if (next && strides[d] != next)
        return std::nullopt;
      next = strides[d] * from[d];
    }
    int64_t stride = 0;
    for (size_t d = i; d-- > iBegin;)
      if (from[d] != 1) {
        stride = strides[d];
        break;
      }
    for (size_t d = j; d-- > jBegin;) {
      result[d] = stride;
      stride *= to[d];
    }
  }
}

StridedView mlir::dshard::traceView(Value value,
                                    SmallVectorImpl<Operation *> *ops,
                                    Block *within) {
  // Walk up, then replay the longest part that stays a strided view.
  SmallVector<Operation *> chain; // consumer first
  Value root = value;
  while (Operation *op = root.getDefiningOp()) {
    if (!isa<TransposeOp, ReshapeOp>(op) ||
        (within && op->getBlock() != within))
      break;
    chain.push_back(op);
    root = op->getOperand(0);
  }
  for (size_t skip = 0; skip <= chain.size(); ++skip) {
    // Drop the `skip` producers farthest up.
    size_t count = chain.size() - skip;
    StridedView view;
    view.root = count ? chain[count - 1]->getOperand(0) : value;
    view.shape.assign(shapeOf(view.root).begin(), shapeOf(view.root).end());
    view.strides = contiguousStrides(view.shape);
    bool ok = true;
    for (size_t c = count; ok && c-- > 0;) {
      ArrayRef<int64_t> to = shapeOf(chain[c]->getResult(0));
      if (auto transpose = dyn_cast<TransposeOp>(chain[c])) {
        SmallVector<int64_t> strides;
        for (int64_t from : transpose.getPermutation())
          strides.push_back(view.strides[from]);
        view.strides = strides;
      } else {
        auto strides = reshapeStrides(view.shape, view.strides, to);
        ok = strides.has_value();
        if (ok)
          view.strides = *strides;
      }
      view.shape.assign(to.begin(), to.end());
    }
    if (!ok)
      continue;
    if (ops)
      ops->append(chain.begin(), chain.begin() + count);
    return view;
  }
  llvm_unreachable("an empty chain is a view");
}

//===----------------------------------------------------------------------===//
// Matrix products
//===----------------------------------------------------------------------===//

namespace {
/// An operand as [batch, rows, columns].
struct Matrix {
  int64_t batch = 1, batchStride = 0, leading = 0;
  bool transposed = false;
};
} // namespace

/// `view` as matrices of rows x columns (its last two dims, exchanged when
/// `exchanged`); the result's batch dims may be more than the operand's.
static std::optional<Matrix> matrixOf(const StridedView &view, bool exchanged,
                                      ArrayRef<int64_t> resultBatch) {
  Matrix matrix;
  size_t rank = view.shape.size();
  size_t row = exchanged ? rank - 1 : rank - 2,
         column = exchanged ? rank - 2 : rank - 1;
  int64_t rows = view.shape[row], columns = view.shape[column];
  int64_t rowStride = view.strides[row], columnStride = view.strides[column];
  if (columnStride == 1 || columns == 1) {
    matrix.leading = rows == 1 ? std::max(columns, rowStride) : rowStride;
    if (columns == 1 && rowStride == 1 && rows > 1) {
      // A column of consecutive elements: transposed, or leading 1.
      matrix.leading = 1;
    }
  } else if (rowStride == 1 || rows == 1) {
    matrix.transposed = true;
    matrix.leading = columnStride;
  } else {
    return std::nullopt;
  }
  // All batch dims of the result in one stride, or none.
  int64_t next = -1;
  bool any = false, repeated = false;
  size_t shift = resultBatch.size() - (rank - 2);
  for (size_t d = resultBatch.size(); d-- > 0;) {
    if (resultBatch[d] == 1)
      continue;
    matrix.batch *= resultBatch[d];
    bool here = d >= shift && view.shape[d - shift] != 1;
    if (!here) {
      repeated = true;
      continue;
    }
    int64_t stride = view.strides[d - shift];
    if (repeated || (next >= 0 && stride != next))
      return std::nullopt; // a repeated dim inside, or no single stride
    if (!any)
      matrix.batchStride = stride;
    any = true;
    next = stride * resultBatch[d];
  }
  if (any && repeated)
    return std::nullopt;
  return matrix;
}

FailureOr<MatMulCall> mlir::dshard::matchMatMul(MatMulOp op) {
  if (!isCallType(elementOf(op.getLhs())) ||
      !isCallType(elementOf(op.getRhs())) ||
      !isCallType(elementOf(op.getResult())))
    return failure();
  MatMulCall call;
  call.op = op;
  call.result = op.getResult();
  ArrayRef<int64_t> result = shapeOf(op.getResult());
  ArrayRef<int64_t> batchDims = result.drop_back(2);
  auto match = [&](Value operand, bool exchanged, StridedView &view) {
    view = traceView(operand, nullptr, op->getBlock());
    auto matrix = matrixOf(view, exchanged, batchDims);
    if (!matrix) {
      view.root = operand;
      view.shape.assign(shapeOf(operand).begin(), shapeOf(operand).end());
      view.strides = contiguousStrides(view.shape);
      matrix = matrixOf(view, exchanged, batchDims);
    }
    return matrix;
  };
  auto lhs = match(op.getLhs(), op.getTransposeLhs(), call.lhs);
  auto rhs = match(op.getRhs(), op.getTransposeRhs(), call.rhs);
  if (!lhs || !rhs)
    return failure();
  ArrayRef<int64_t> lhsShape = shapeOf(op.getLhs());
  call.batch = lhs->batch;
  call.m = result[result.size() - 2];
  call.n = result.back();
  call.k = lhsShape[lhsShape.size() - (op.getTransposeLhs() ? 2 : 1)];
  call.lda = lhs->leading;
  call.ldb = rhs->leading;
  call.strideLhs = lhs->batchStride;
  call.strideRhs = rhs->batchStride;
  call.transposeLhs = lhs->transposed;
  call.transposeRhs = rhs->transposed;
  // One rhs for all batches, rows of the lhs one behind another: one product.
  if (call.batch > 1 && call.strideRhs == 0 && !call.transposeLhs &&
      call.strideLhs == call.m * call.lda) {
    call.m *= call.batch;
    call.batch = 1;
    call.strideLhs = 0;
  }
  return call;
}

void mlir::dshard::matchEpilogue(MatMulCall &call,
                                 SmallVectorImpl<Operation *> &ops,
                                 bool isGpu) {
  auto onlyUser = [&]() -> Operation * {
    Operation *user =
        call.result.hasOneUse() ? *call.result.user_begin() : nullptr;
    // One in a region below runs not here.
    return user && user->getBlock() == call.op->getBlock() ? user : nullptr;
  };
  auto take = [&](Operation *op) {
    ops.push_back(op);
    call.result = op->getResult(0);
  };
  auto otherOf = [&](Operation *op) {
    return op->getOperand(op->getOperand(0) == call.result ? 1 : 0);
  };
  // A value on the way to an operand goes into the region with the views: it
  // must be that operand's bytes as they lie.
  auto isBuffer = [&](Value value) {
    for (auto [view, operand] : {std::pair{&call.lhs, call.op.getLhs()},
                                 std::pair{&call.rhs, call.op.getRhs()}})
      for (Value inner = operand; inner != view->root;
           inner = inner.getDefiningOp()->getOperand(0)) {
        if (inner != value)
          continue;
        while (isa_and_nonnull<ReshapeOp>(value.getDefiningOp()) &&
               value != view->root)
          value = value.getDefiningOp()->getOperand(0);
        return value == view->root;
      }
    return true;
  };
  RankedTensorType type = call.op.getResult().getType();
  auto keepsType = [&](Operation *op) {
    return op->getNumResults() == 1 && op->getResult(0).getType() == type;
  };
  auto isBias = [&](Value value) {
    ArrayRef<int64_t> shape = shapeOf(value);
    return !shape.empty() && shape.back() == call.n &&
           cast<RankedTensorType>(value.getType()).getNumElements() == call.n &&
           isCallType(elementOf(value)) &&
           (!isGpu || elementOf(value) == type.getElementType()) &&
           (call.n > 1 || shape.size() < type.getShape().size());
  };
  Operation *user = onlyUser();
  if (user && isa<AddOp>(user) && keepsType(user) && isBias(otherOf(user)) &&
      otherOf(user).getType() != type && isBuffer(otherOf(user))) {
    call.bias = otherOf(user);
    take(user);
    user = onlyUser();
  }
  if (user && keepsType(user)) {
    CallActivation activation = CallActivation::none;
    if (isa<ReluOp>(user))
      activation = CallActivation::relu;
    else if (isa<SiluOp>(user) && !isGpu)
      activation = CallActivation::silu;
    else if (auto gelu = dyn_cast<GeluOp>(user);
             gelu && (!isGpu || gelu.getTanhApproximation()))
      activation = gelu.getTanhApproximation() ? CallActivation::geluTanh
                                               : CallActivation::geluErf;
    if (activation != CallActivation::none) {
      call.activation = activation;
      take(user);
      user = onlyUser();
    }
  }
  if (isGpu && call.activation != CallActivation::none)
    return;
  if (user && isa<AddOp>(user) && keepsType(user) &&
      otherOf(user).getType() == type && otherOf(user) != call.result &&
      isBuffer(otherOf(user))) {
    call.residual = otherOf(user);
    take(user);
  }
}

//===----------------------------------------------------------------------===//
// Attention
//===----------------------------------------------------------------------===//

/// `operand` through views, if the last dim stays contiguous; else itself.
/// Only through ops of `block`.
static StridedView traceRows(Value operand, SmallVectorImpl<Operation *> *ops,
                             Block *block) {
  SmallVector<Operation *> passed;
  StridedView view = traceView(operand, &passed, block);
  bool isContiguous = view.strides == contiguousStrides(view.shape);
  bool suits = view.shape.size() == 4
                   ? view.strides[3] == 1 || view.shape[3] == 1
                   : isContiguous;
  if (suits) {
    if (ops)
      for (Operation *op : passed)
        if (!llvm::is_contained(*ops, op))
          ops->push_back(op);
    return view;
  }
  view.root = operand;
  view.shape.assign(shapeOf(operand).begin(), shapeOf(operand).end());
  view.strides = contiguousStrides(view.shape);
  return view;
}

/// Down through single uses of a [B, H, S, D] result: the longest chain of
/// views that a call can write, and where elements lie in its end.
static Value followViews(Value result, SmallVector<int64_t> &strides,
                         SmallVectorImpl<Operation *> *ops) {
  SmallVector<Operation *> chain;
  strides = contiguousStrides(shapeOf(result));
  Value value = result;
  while (value.hasOneUse() &&
         isa<TransposeOp, ReshapeOp>(*value.user_begin()) &&
         value.user_begin()->getBlock() == result.getParentBlock()) {
    chain.push_back(*value.user_begin());
    value = chain.back()->getResult(0);
    SmallVector<int64_t> shape(shapeOf(value));
    std::optional<SmallVector<int64_t>> here = contiguousStrides(shape);
    for (Operation *step : llvm::reverse(chain)) {
      SmallVector<int64_t> from(shapeOf(step->getOperand(0)));
      if (auto transpose = dyn_cast<TransposeOp>(step)) {
        SmallVector<int64_t> back(from.size());
        for (auto [to, d] : llvm::enumerate(transpose.getPermutation()))
          back[d] = (*here)[to];
        here = back;
      } else {
        here = reshapeStrides(shape, *here, from);
        if (!here)
          break;
      }
      shape = from;
    }
    if (!here || ((*here)[3] != 1 && shape[3] != 1))
      continue; // a longer chain may be writable again
    result = value;
    strides = *here;
    if (ops) {
      for (Operation *step : chain)
        if (!llvm::is_contained(*ops, step))
          ops->push_back(step);
    }
  }
  return result;
}

FailureOr<AttentionCall>
mlir::dshard::matchAttention(AttentionOp op,
                             SmallVectorImpl<Operation *> *ops) {
  Type element = elementOf(op.getQuery());
  if (!isCallType(element) || elementOf(op.getKey()) != element ||
      elementOf(op.getValue()) != element ||
      elementOf(op.getResult()) != element)
    return failure();
  AttentionCall call;
  call.op = op;
  call.query = traceRows(op.getQuery(), ops, op->getBlock());
  call.key = traceRows(op.getKey(), ops, op->getBlock());
  call.value = traceRows(op.getValue(), ops, op->getBlock());
  call.result = followViews(op.getResult(), call.resultStrides, ops);
  return call;
}

FailureOr<AttentionGradCall>
mlir::dshard::matchAttentionGrad(AttentionGradOp op,
                                 SmallVectorImpl<Operation *> *ops) {
  Type element = elementOf(op.getQuery());
  if (!isCallType(element) || !elementOf(op.getLogSumExp()).isF32())
    return failure();
  for (Value value :
       {op.getKey(), op.getValue(), op.getResult(), op.getResultGrad(),
        op.getQueryGrad(), op.getKeyGrad(), op.getValueGrad()})
    if (elementOf(value) != element)
      return failure();
  AttentionGradCall call;
  call.op = op;
  for (Value operand : {op.getQuery(), op.getKey(), op.getValue(),
                        op.getResult(), op.getLogSumExp(), op.getResultGrad()})
    call.operands.push_back(traceRows(operand, ops, op->getBlock()));
  call.operands.push_back(
      op.getKeyPadding() ? traceRows(op.getKeyPadding(), ops, op->getBlock())
                         : StridedView());
  for (Value result : {op.getQueryGrad(), op.getKeyGrad(), op.getValueGrad()}) {
    call.resultStrides.emplace_back();
    call.results.push_back(followViews(result, call.resultStrides.back(), ops));
  }
  return call;
}
