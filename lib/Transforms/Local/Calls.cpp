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

namespace {
/// Walks up the dequantisation of a rhs and collects its ops.
class Dequantisation {
public:
  explicit Dequantisation(SmallVectorImpl<Operation *> &ops) : ops(ops) {}

  /// The op that computes `value`, past reshapes, if it is an `OpTy`.
  template <typename OpTy> OpTy take(Value value) {
    value = skipReshapes(value);
    auto op = value.getDefiningOp<OpTy>();
    if (op)
      ops.push_back(op);
    return op;
  }
  Value skipReshapes(Value value) {
    while (auto reshape = value.getDefiningOp<ReshapeOp>()) {
      ops.push_back(reshape);
      value = reshape.getInput();
    }
    return value;
  }
  std::optional<double> splat(Value value) {
    auto constant = take<ConstantOp>(value);
    auto elements = constant ? dyn_cast<DenseElementsAttr>(constant.getValue())
                             : DenseElementsAttr();
    if (!elements || !elements.isSplat())
      return std::nullopt;
    if (isa<FloatType>(elements.getElementType()))
      return elements.getSplatValue<APFloat>().convertToDouble();
    return elements.getSplatValue<APInt>().getZExtValue();
  }
  /// The u8 buffer whose bytes, or nibbles (low first), `value` holds.
  Value unpacked(Value value, int64_t &bits) {
    value = skipReshapes(value);
    auto concat = value.getDefiningOp<ConcatOp>();
    if (!concat) {
      bits = 8;
      return value;
    }
    bits = 4;
    ops.push_back(concat);
    auto shape = cast<RankedTensorType>(concat.getType()).getShape();
    if (concat.getInputs().size() != 2 || shape.back() != 2 ||
        concat.getDim() + 1 != shape.size())
      return {};
    auto low = take<BitAndOp>(concat.getInputs()[0]);
    auto high = take<ShiftRightOp>(concat.getInputs()[1]);
    if (!low || !high || splat(low.getRhs()) != 15.0 ||
        splat(high.getRhs()) != 4.0)
      return {};
    Value packed = skipReshapes(low.getLhs());
    return skipReshapes(high.getLhs()) == packed ? packed : Value();
  }

private:
  SmallVectorImpl<Operation *> &ops;
};
} // namespace

/// x rounded to multiples of its blocks' largest magnitudes / 127, as the
/// importer writes accuracy_level 4: round(x / max(s, tiny)) * s. Makes x the
/// lhs of the call.
static bool matchInt8(MatMulCall &call, Dequantisation walk) {
  auto product = walk.take<MulOp>(call.op.getLhs());
  auto round = product ? walk.take<RoundOp>(product.getLhs()) : RoundOp();
  auto quotient = round ? walk.take<DivOp>(round.getInput()) : DivOp();
  auto guard = quotient ? walk.take<MaxOp>(quotient.getRhs()) : MaxOp();
  auto scale = guard ? walk.take<MulOp>(guard.getLhs()) : MulOp();
  auto top = scale ? walk.take<ReduceOp>(scale.getLhs()) : ReduceOp();
  auto size = top ? walk.take<AbsOp>(top.getInput()) : AbsOp();
  if (!size || walk.skipReshapes(product.getRhs()) != scale.getResult() ||
      top.getKind() != ReductionKind::max)
    return false;
  ArrayRef<int64_t> shape = shapeOf(size.getResult());
  std::optional<double> part = walk.splat(scale.getRhs());
  std::optional<double> tiny = walk.splat(guard.getRhs());
  Value x = walk.skipReshapes(size.getInput());
  if (shape.empty() || shape.back() != call.block ||
      shapeOf(product.getResult()) != shape || top.getDims().size() != 1 ||
      top.getDims()[0] != static_cast<int64_t>(shape.size()) - 1 ||
      walk.skipReshapes(quotient.getLhs()) != x ||
      part != static_cast<double>(1.0f / 127.0f) ||
      tiny != static_cast<double>(1e-30f) || !elementOf(x).isF32())
    return false;
  StridedView view = traceView(x, nullptr, call.op->getBlock());
  int64_t elements = 1;
  for (int64_t dim : view.shape)
    elements *= dim;
  if (view.strides != contiguousStrides(view.shape) || view.root != x ||
      elements != call.m * call.k)
    return false;
  call.lhs = view;
  call.lda = call.k;
  call.int8 = true;
  return true;
}

bool mlir::dshard::matchQuantized(MatMulCall &call,
                                  SmallVectorImpl<Operation *> &ops) {
  if (call.batch != 1 || call.transposeLhs || !call.transposeRhs ||
      call.ldb != call.k || !elementOf(call.op.getRhs()).isF32())
    return false;
  size_t before = ops.size();
  auto fail = [&] {
    ops.truncate(before);
    return false;
  };
  Dequantisation walk(ops);
  // cast(q) - zero, [n, blocks, block], by scales [n, blocks, 1].
  auto scaled = walk.take<MulOp>(call.op.getRhs());
  if (!scaled)
    return fail();
  ArrayRef<int64_t> shape = shapeOf(scaled.getResult());
  auto shifted = walk.take<SubOp>(scaled.getLhs());
  if (!shifted || shape.size() != 3 || shape[0] != call.n ||
      shape[1] * shape[2] != call.k || shapeOf(shifted.getResult()) != shape ||
      shapeOf(scaled.getRhs()) != ArrayRef({shape[0], shape[1], int64_t(1)}))
    return fail();
  auto cast = walk.take<CastOp>(shifted.getLhs());
  if (!cast || !elementOf(cast.getInput()).isUnsignedInteger(8))
    return fail();
  int64_t bits = 0, zeroBits = 0;
  Value data = walk.unpacked(cast.getInput(), bits);
  Value scales = walk.skipReshapes(scaled.getRhs());
  Value zeros;
  if (auto table = walk.take<CastOp>(shifted.getRhs())) {
    zeros = walk.unpacked(table.getInput(), zeroBits);
    if (!zeros || zeroBits != bits ||
        shapeOf(table.getResult()) !=
            ArrayRef({shape[0], shape[1], int64_t(1)}))
      return fail();
  } else if (walk.splat(shifted.getRhs()) != (bits == 4 ? 8.0 : 128.0)) {
    return fail();
  }
  auto elements = [](Value value) {
    return mlir::cast<RankedTensorType>(value.getType()).getNumElements();
  };
  int64_t perByte = 8 / bits;
  if (!data || shape[2] % 16 != 0 ||
      elements(data) * perByte != call.n * call.k ||
      elements(scales) != shape[0] * shape[1] || !elementOf(scales).isF32() ||
      (zeros && elements(zeros) * perByte != shape[0] * shape[1]))
    return fail();
  call.quantized = data;
  call.scales = scales;
  call.zeroPoints = zeros;
  call.block = shape[2];
  call.bits = bits;
  size_t rhsOps = ops.size();
  if (bits == 4 && call.block == 32 && !matchInt8(call, walk))
    ops.truncate(rhsOps);
  return true;
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

bool mlir::dshard::isGroupedCall(Operation *op) {
  return isa<GroupedMatMulOp, GroupedWeightGradOp>(op) &&
         isCallType(elementOf(op->getResult(0)));
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

SmallVector<int64_t, 4> mlir::dshard::biasStrides(ArrayRef<int64_t> shape) {
  SmallVector<int64_t, 4> strides(contiguousStrides(shape));
  for (auto [stride, size] : llvm::zip_equal(strides, shape))
    if (size == 1)
      stride = 0;
  return strides;
}

/// The library adds no bias to scores with a softcap.
template <typename OpT> static bool hasCallBias(OpT op) {
  return !op.getBias() ||
         (elementOf(op.getBias()) == elementOf(op.getQuery()) &&
          op.getSoftcap().isZero());
}

FailureOr<AttentionCall>
mlir::dshard::matchAttention(AttentionOp op,
                             SmallVectorImpl<Operation *> *ops) {
  Type element = elementOf(op.getQuery());
  if (!isCallType(element) || elementOf(op.getKey()) != element ||
      elementOf(op.getValue()) != element ||
      elementOf(op.getResult()) != element || !hasCallBias(op))
    return failure();
  AttentionCall call;
  call.op = op;
  call.bias = op.getBias();
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
  if (!isCallType(element) || !elementOf(op.getLogSumExp()).isF32() ||
      !hasCallBias(op))
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
  call.operands.emplace_back();
  if (Value bias = call.bias = op.getBias()) {
    call.operands.back().root = bias;
    call.operands.back().shape = SmallVector<int64_t>(shapeOf(bias));
    call.operands.back().strides = biasStrides(shapeOf(bias));
  }
  for (Value result : {op.getQueryGrad(), op.getKeyGrad(), op.getValueGrad()}) {
    call.resultStrides.emplace_back();
    call.results.push_back(followViews(result, call.resultStrides.back(), ops));
  }
  return call;
}
