//===- Instructions.cpp - Library calls, copies and collectives -----------===//

#include "Converter.h"
#include "dshard/Runtime/Cpu/Attention.h"
#include "dshard/Runtime/Cpu/AttentionGrad.h"
#include "dshard/Runtime/Cpu/Gemm.h"
#include "dshard/Transforms/Local/RankValues.h"

#include <cstring>

using namespace mlir;
using namespace mlir::dshard;

void Converter::instruction(Operation *op, InstructionKind kind,
                            ArrayRef<SmallVector<Value>> uses,
                            ArrayRef<Attribute> values, StringRef why) {
  plan::createInstruction(body, op->getLoc(), kind, uses, values,
                          originOf(op, why));
}

void Converter::fill(Operation *op, Value buffer, Attribute bits) {
  instruction(op, InstructionKind::FILL, {{buffer}}, {bits});
}

LogicalResult Converter::convertMatMul(FusedOp op) {
  auto matmul = *op.getBody().getOps<MatMulOp>().begin();
  FailureOr<MatMulCall> call = matchMatMul(matmul);
  if (failed(call))
    return op.emitError("is not a matmul that the library computes");
  SmallVector<Operation *> chain;
  bool isQuantized = !plan.getGpu() && matchQuantized(*call, chain);
  matchEpilogue(*call, chain);
  auto yield = cast<YieldOp>(op.getBody().front().getTerminator());
  if (yield.getValues().size() != 1 || yield.getValues()[0] != call->result)
    return op.emitError("is not a matmul with a known epilogue");
  auto operandOf = [&](Value inside) -> OpOperand * {
    while (inside && isa_and_nonnull<ReshapeOp>(inside.getDefiningOp()))
      inside = inside.getDefiningOp()->getOperand(0);
    auto argument = dyn_cast_or_null<BlockArgument>(inside);
    return argument ? &op->getOpOperand(argument.getArgNumber()) : nullptr;
  };
  OpOperand *lhs = operandOf(call->lhs.root),
            *rhs = operandOf(isQuantized ? call->quantized : call->rhs.root);
  OpOperand *bias = operandOf(call->bias),
            *residual = operandOf(call->residual);
  if (!lhs || !rhs || (call->bias && !bias) || (call->residual && !residual))
    return op.emitError("has an operand that is not a buffer");
  bool packed = false;
  if (OpOperand *use = isQuantized ? nullptr : weights.packedUse(*rhs)) {
    const WeightState *state = weights.find(*use);
    packed = state && state->packed;
    if (packed)
      rhs = use;
  }
  if (packed) {
    call->ldb = call->strideRhs = 0;
    call->transposeRhs = false;
  }
  auto one = [&](OpOperand *operand) {
    return operand ? SmallVector<Value>{read(*operand)} : SmallVector<Value>{};
  };
  SmallVector<Value> lhsBuffer = one(lhs), rhsBuffer = one(rhs),
                     biasBuffer = one(bias), residualBuffer = one(residual);
  // The residual's bytes may become the result's, if nothing else reads them.
  bool shared =
      residual && (lhsBuffer == residualBuffer || rhsBuffer == residualBuffer ||
                   biasBuffer == residualBuffer);
  Value out = write(op.getResult(0), shared ? nullptr : residual);
  static const ::dshard::plan::Activation activations[] = {
      ::dshard::plan::Activation::none, ::dshard::plan::Activation::relu,
      ::dshard::plan::Activation::geluErf, ::dshard::plan::Activation::geluTanh,
      ::dshard::plan::Activation::silu};
  Attribute activation = literal(
      static_cast<int64_t>(activations[static_cast<int>(call->activation)]));
  if (isQuantized) {
    OpOperand *scales = operandOf(call->scales),
              *zeros = operandOf(call->zeroPoints);
    if (!scales || (call->zeroPoints && !zeros))
      return op.emitError("has an operand that is not a buffer");
    instruction(op, InstructionKind::MATMUL_NBITS,
                {lhsBuffer,
                 rhsBuffer,
                 one(scales),
                 one(zeros),
                 biasBuffer,
                 residualBuffer,
                 {out}},
                {literal(call->m), literal(call->n), literal(call->k),
                 literal(call->lda), literal(call->n),
                 literal(residual ? call->n : 0), literal(call->block),
                 literal(call->bits), literal(call->int8), activation});
    threadScratch =
        std::max<uint64_t>(threadScratch, ::dshard::cpu::gemmScratchBytes());
    return success();
  }
  int64_t area = call->m * call->n;
  instruction(op, InstructionKind::MATMUL,
              {lhsBuffer, rhsBuffer, biasBuffer, residualBuffer, {out}},
              {literal(call->batch), literal(call->m), literal(call->n),
               literal(call->k), literal(call->lda), literal(call->ldb),
               literal(call->n), literal(residual ? call->n : 0),
               literal(call->strideLhs), literal(call->strideRhs),
               literal(area), literal(residual ? area : 0),
               literal(call->transposeLhs), literal(call->transposeRhs),
               literal(packed), activation});
  // cuBLAS's own advice for the workspace of its kernels.
  uint64_t workspace = uint64_t(plan.getGpu() >= 90 ? 32 : 4) << 20;
  threadScratch = std::max<uint64_t>(
      threadScratch,
      plan.getGpu() ? workspace : ::dshard::cpu::gemmScratchBytes());
  return success();
}

void Converter::addBiasStrides(Value bias, SmallVectorImpl<Attribute> &values) {
  SmallVector<int64_t, 4> strides(4, 0);
  if (bias)
    strides = biasStrides(typeOf(bias).getShape());
  for (int64_t stride : strides)
    values.push_back(literal(stride));
}

LogicalResult Converter::convertAttention(FusedOp op) {
  auto attention = *op.getBody().getOps<AttentionOp>().begin();
  FailureOr<AttentionCall> call = matchAttention(attention);
  if (failed(call))
    return op.emitError("is not an attention that the library computes");
  auto operandOf = [&](Value inside) -> OpOperand & {
    return op->getOpOperand(cast<BlockArgument>(inside).getArgNumber());
  };
  for (Value root : {call->query.root, call->key.root, call->value.root})
    if (!isa<BlockArgument>(root))
      return op.emitError("has an operand that is not a buffer");
  SmallVector<Value> mask;
  if (Value padding = attention.getKeyPadding()) {
    StridedView view = traceView(padding);
    if (!isa<BlockArgument>(view.root) ||
        view.strides != contiguousStrides(view.shape))
      return op.emitError("has a mask that is not a buffer");
    mask.push_back(read(operandOf(view.root)));
  }
  SmallVector<Value> bias;
  if (call->bias) {
    if (!isa<BlockArgument>(call->bias))
      return op.emitError("has a bias that is not a buffer");
    bias.push_back(read(operandOf(call->bias)));
  }
  FailureOr<Attribute> offset = literal(attention.getOffset());
  if (Value shift = attention.getQueryOffset()) {
    Value outer = isa<BlockArgument>(shift) ? operandOf(shift).get() : shift;
    offset = rankNumber(outer, attention.getOffset());
    if (failed(offset))
      return op.emitError("has a query offset that is not known for each rank");
  }
  Value query = read(operandOf(call->query.root)),
        key = read(operandOf(call->key.root)),
        value = read(operandOf(call->value.root));
  auto yield = cast<YieldOp>(op.getBody().front().getTerminator());
  SmallVector<Value> out, logSum;
  for (auto [number, yielded] : llvm::enumerate(yield.getValues())) {
    Value buffer = write(op.getResult(number));
    if (yielded == attention.getLogSumExp())
      logSum.push_back(buffer);
    else if (yielded == call->result)
      out.push_back(buffer);
    else
      return op.emitError("yields what the attention call does not give");
  }
  if (out.empty()) { // only the log-sum-exp is used
    int unused = newStorage(typeOf(call->result), op.getLoc(),
                            nameOf(op.getResult(0)), nullptr);
    out.push_back(storages[unused].buffer);
  }
  ArrayRef<int64_t> q = typeOf(attention.getQuery()).getShape(),
                    k = typeOf(attention.getKey()).getShape(),
                    v = typeOf(attention.getValue()).getShape();
  SmallVector<Attribute> values = {literal(q[0]), literal(q[1]), literal(k[1]),
                                   literal(q[2]), literal(k[2]), literal(q[3]),
                                   literal(v[3])};
  for (ArrayRef<int64_t> strides :
       {ArrayRef(call->query.strides), ArrayRef(call->key.strides),
        ArrayRef(call->value.strides), ArrayRef(call->resultStrides)})
    for (int i = 0; i < 3; ++i)
      values.push_back(literal(strides[i]));
  values.push_back(literal(attention.getCausal()));
  values.push_back(*offset);
  values.push_back(literal(attention.getWindow()));
  values.push_back(plan.real(attention.getScale().convertToDouble()));
  values.push_back(plan.real(attention.getSoftcap().convertToDouble()));
  values.push_back(literal(attention.getFullyMasked() == FullyMasked::uniform));
  addBiasStrides(attention.getBias(), values);
  instruction(op, InstructionKind::ATTENTION,
              {{query}, {key}, {value}, mask, bias, out, logSum}, values);
  threadScratch = std::max<uint64_t>(
      threadScratch, ::dshard::cpu::attentionScratchBytes(q[3], v[3]));
  return success();
}

LogicalResult Converter::convertAttentionGrad(FusedOp op) {
  auto grad = *op.getBody().getOps<AttentionGradOp>().begin();
  FailureOr<AttentionGradCall> call = matchAttentionGrad(grad);
  if (failed(call))
    return op.emitError("is not an attention gradient that the library "
                        "computes");
  SmallVector<SmallVector<Value>> uses;
  SmallVector<Attribute> strides;
  auto addStrides = [&](ArrayRef<int64_t> all) {
    for (int i = 0; i < 3; ++i)
      strides.push_back(literal(all[i]));
  };
  // q, k, v, out, then lse, dout, mask, bias.
  for (const StridedView &view : call->operands) {
    auto argument = dyn_cast_or_null<BlockArgument>(view.root);
    if (view.root && !argument)
      return op.emitError("has an operand that is not a buffer");
    uses.emplace_back();
    if (argument)
      uses.back().push_back(read(op->getOpOperand(argument.getArgNumber())));
    if (view.shape.size() == 4 && view.root != call->bias)
      addStrides(view.strides);
  }
  auto yield = cast<YieldOp>(op.getBody().front().getTerminator());
  for (auto [number, result] : llvm::enumerate(call->results)) {
    auto found = llvm::find(yield.getValues(), result);
    if (found == yield.getValues().end())
      return op.emitError("does not yield all gradients");
    uses.push_back(
        {write(op.getResult(std::distance(yield.getValues().begin(), found)))});
    addStrides(call->resultStrides[number]);
  }
  ArrayRef<int64_t> q = typeOf(grad.getQuery()).getShape(),
                    k = typeOf(grad.getKey()).getShape(),
                    v = typeOf(grad.getValue()).getShape();
  SmallVector<Attribute> values = {literal(q[0]), literal(q[1]), literal(k[1]),
                                   literal(q[2]), literal(k[2]), literal(q[3]),
                                   literal(v[3])};
  values.append(strides);
  values.push_back(literal(grad.getCausal()));
  values.push_back(literal(grad.getOffset()));
  values.push_back(literal(grad.getWindow()));
  values.push_back(plan.real(grad.getScale().convertToDouble()));
  values.push_back(plan.real(grad.getSoftcap().convertToDouble()));
  values.push_back(literal(grad.getFullyMasked() == FullyMasked::uniform));
  addBiasStrides(grad.getBias(), values);
  instruction(op, InstructionKind::ATTENTION_GRAD, uses, values);
  threadScratch = std::max<uint64_t>(
      threadScratch, ::dshard::cpu::attentionGradScratchBytes(q[3], v[3]));
  return success();
}

LogicalResult Converter::convertLocalSlice(LocalSliceOp op) {
  RankedTensorType from = typeOf(op.getInput()), to = typeOf(op.getResult());
  SmallVector<int64_t> inStrides = contiguousStrides(from.getShape()),
                       outStrides = contiguousStrides(to.getShape());
  int64_t dim = op.getDim();
  SmallVector<AxisRefAttr> axes(op.getAxes().getAsRange<AxisRefAttr>());
  SmallVector<Attribute> values = {literal(to.getRank())};
  for (int64_t size : to.getShape())
    values.push_back(literal(size));
  values.push_back(
      plan.shardBegin(axes, to.getDimSize(dim) * inStrides[dim], 0));
  for (int64_t stride : inStrides)
    values.push_back(literal(stride));
  values.push_back(literal(0));
  for (int64_t stride : outStrides)
    values.push_back(literal(stride));
  Value in = read(op->getOpOperand(0)), out = write(op.getResult());
  instruction(op, InstructionKind::COPY, {{in}, {out}}, values, op.getWhy());
  return success();
}

LogicalResult Converter::convertCollective(Operation *op) {
  auto axes = op->getAttrOfType<ArrayAttr>("axes");
  StringRef why;
  if (auto text = op->getAttrOfType<StringAttr>("why"))
    why = text.getValue();
  Attribute group = literal(plan.addGroup(axes));
  SmallVector<AxisRefAttr> refs(axes.getAsRange<AxisRefAttr>());
  Attribute count = literal(op->getNumOperands());
  SmallVector<Value> ins, outs;
  for (OpOperand &operand : op->getOpOperands())
    ins.push_back(read(operand));
  bool inPlace = isa<AllReduceOp>(op);
  for (auto [number, result] : llvm::enumerate(op->getResults())) {
    OpOperand *operand = inPlace ? &op->getOpOperand(number) : nullptr;
    if (operand && llvm::count(ins, ins[number]) != 1)
      operand = nullptr;
    outs.push_back(write(result, operand));
  }
  auto reduction = [&](ReductionKind kind) {
    switch (kind) {
    case ReductionKind::sum:
      return literal(static_cast<int>(::dshard::plan::ReductionKind::sum));
    case ReductionKind::max:
      return literal(static_cast<int>(::dshard::plan::ReductionKind::max));
    case ReductionKind::min:
      return literal(static_cast<int>(::dshard::plan::ReductionKind::min));
    case ReductionKind::mean:
      return literal(static_cast<int>(::dshard::plan::ReductionKind::mean));
    case ReductionKind::product:
      break;
    }
    return literal(static_cast<int>(::dshard::plan::ReductionKind::product));
  };
  auto around = [&](SmallVectorImpl<Attribute> &values,
                    ArrayRef<int64_t> dims) {
    for (bool isInner : {false, true})
      for (auto [number, dim] : llvm::enumerate(dims)) {
        ArrayRef<int64_t> shape = typeOf(op->getOperand(number)).getShape();
        int64_t size = 1;
        for (int64_t d :
             isInner ? shape.drop_front(dim + 1) : shape.take_front(dim))
          size *= d;
        values.push_back(literal(size));
      }
  };
  SmallVector<Attribute> values = {group};
  if (auto gather = dyn_cast<AllGatherOp>(op)) {
    values.push_back(count);
    around(values, gather.getDims());
    instruction(op, InstructionKind::ALL_GATHER, {ins, outs}, values, why);
  } else if (auto reduce = dyn_cast<AllReduceOp>(op)) {
    values.append({count, reduction(reduce.getKind())});
    instruction(op, InstructionKind::ALL_REDUCE, {ins, outs}, values, why);
  } else if (auto scatter = dyn_cast<ReduceScatterOp>(op)) {
    values.append({count, reduction(scatter.getKind())});
    around(values, scatter.getDims());
    instruction(op, InstructionKind::REDUCE_SCATTER, {ins, outs}, values, why);
  } else if (auto all = dyn_cast<AllToAllOp>(op)) {
    ArrayRef<int64_t> shape = typeOf(all.getInput()).getShape();
    values.push_back(literal(shape.size()));
    for (int64_t size : shape)
      values.push_back(literal(size));
    values.append({literal(all.getSplitDim()), literal(all.getConcatDim())});
    instruction(op, InstructionKind::ALL_TO_ALL, {ins, outs}, values, why);
  } else if (auto broadcast = dyn_cast<BroadcastOp>(op)) {
    values.push_back(literal(broadcast.getRoot()));
    instruction(op, InstructionKind::BROADCAST, {ins, outs}, values, why);
  } else if (auto permute = dyn_cast<PermuteOp>(op)) {
    int64_t size = plan.getMesh().getSize(refs);
    auto member = [&](int64_t shift) {
      return plan.rankValue([&](int64_t rank) {
        return ((plan.getMesh().getIndexIn(rank, refs) + shift) % size + size) %
               size;
      });
    };
    int64_t shift = permute.getShift();
    values.append({count, member(shift), member(-shift)});
    instruction(op, InstructionKind::PERMUTE, {ins, outs}, values, why);
  } else if (auto send = dyn_cast<SendOp>(op)) {
    values.append({literal(send.getTo()), literal(send.getTag())});
    instruction(op, InstructionKind::SEND, {ins}, values, why);
  } else if (auto receive = dyn_cast<RecvOp>(op)) {
    values.append({literal(receive.getFrom()), literal(receive.getTag())});
    instruction(op, InstructionKind::RECV, {outs}, values, why);
  } else {
    return op->emitError("has no instruction");
  }
  return success();
}

LogicalResult Converter::convert(Operation *op) {
  if (isRankValue(op))
    return success(); // a number of the plan
  if (auto reshape = dyn_cast<ReshapeOp>(op)) {
    (void)read(op->getOpOperand(0));
    place(reshape.getResult(), Weights::isReadOnly(reshape.getInput())
                                   ? stateStorage(op->getOpOperand(0))
                                   : storage.lookup(reshape.getInput()));
    return success();
  }
  if (auto fused = dyn_cast<FusedOp>(op)) {
    auto call = fused->getAttrOfType<StringAttr>(callAttrName);
    if (!call)
      return convertLaunch(fused);
    if (call.getValue() == "matmul")
      return convertMatMul(fused);
    if (call.getValue().starts_with("grouped_"))
      return convertGrouped(fused);
    if (call.getValue() == "attention")
      return convertAttention(fused);
    if (call.getValue() == "attention_grad")
      return convertAttentionGrad(fused);
    return op->emitError("is an unknown library call '")
           << call.getValue() << "'";
  }
  if (auto slice = dyn_cast<LocalSliceOp>(op))
    return convertLocalSlice(slice);
  if (auto index = dyn_cast<RankIndexOp>(op)) {
    SmallVector<AxisRefAttr> axes(index.getAxes().getAsRange<AxisRefAttr>());
    Attribute bits = plan.rankValue([&](int64_t rank) {
      auto value = static_cast<double>(plan.getMesh().getIndexIn(rank, axes));
      int64_t number;
      std::memcpy(&number, &value, sizeof(number));
      return number;
    });
    fill(op, write(index.getResult()), bits);
    return success();
  }
  if (auto repeat = dyn_cast<RepeatOp>(op))
    return convertRepeat(repeat);
  if (auto branch = dyn_cast<IfOp>(op))
    return convertIf(branch);
  return convertCollective(op);
}
