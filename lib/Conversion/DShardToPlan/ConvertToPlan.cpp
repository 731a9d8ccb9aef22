//===- ConvertToPlan.cpp - A scheduled program to the plan dialect --------===//

#include "Memory.h"
#include "Weights.h"
#include "dshard/Codegen/Compile.h"
#include "dshard/Codegen/KernelEmitter.h"
#include "dshard/Conversion/DShardToPlan/Passes.h"
#include "dshard/Runtime/Cpu/Attention.h"
#include "dshard/Runtime/Cpu/Gemm.h"
#include "dshard/Transforms/Local/Calls.h"

namespace mlir::dshard {
#define GEN_PASS_DEF_CONVERTTOPLANPASS
#include "dshard/Conversion/DShardToPlan/Passes.h.inc"
} // namespace mlir::dshard

using namespace mlir;
using namespace mlir::dshard;

static RankedTensorType typeOf(Value value) {
  return cast<RankedTensorType>(value.getType());
}

namespace {

/// Bytes that one or more values share: reshapes, work in place.
struct Storage {
  Value buffer;          ///< plan.buffer; null until the program is built
  int64_t lifetime = -1; ///< index into `lifetimes`; -1: a state
  bool keep = false;     ///< inputs and outputs: never overwritten
};

class Converter {
public:
  Converter(ModuleOp module, func::FuncOp function, const CpuTarget &target)
      : module(module), function(function), target(target),
        plan(module, module.getBody(), getMesh(module)),
        weights(plan, function) {}
  LogicalResult run();

private:
  // Buffers.
  int storageOf(Value value);
  int newStorage(Value value, StringRef name, bool keep = false);
  int stateStorage(OpOperand &use);
  /// The buffer that an operand reads.
  Value read(OpOperand &use);
  /// The buffer that a result is written to: new, or that of `reuse`, an
  /// operand of the same type that dies here.
  Value write(Value result, OpOperand *reuse = nullptr);
  bool diesHere(OpOperand &use);
  std::string nameOf(Value value);

  // Instructions.
  LogicalResult convert(Operation *op);
  LogicalResult convertLaunch(FusedOp op);
  LogicalResult convertMatMul(FusedOp op);
  LogicalResult convertAttention(FusedOp op);
  LogicalResult convertLocalSlice(LocalSliceOp op);
  LogicalResult convertCollective(Operation *op);
  void instruction(Operation *op, InstructionKind kind,
                   ArrayRef<SmallVector<Value>> uses,
                   ArrayRef<Attribute> values, StringRef why = "");
  Attribute literal(int64_t value) { return plan.literal(value); }

  FailureOr<int64_t> kernelOf(FusedOp op);
  LogicalResult addKernels();
  LogicalResult addOutputs(func::ReturnOp op);
  void addPorts(int64_t program);
  void findRange(Value argument, int64_t &low, int64_t &high, bool &found);

  ModuleOp module;
  func::FuncOp function;
  const CpuTarget &target;
  PlanContext plan;
  Weights weights;

  plan::ProgramOp program;
  OpBuilder body{static_cast<MLIRContext *>(nullptr)};
  std::vector<Storage> storages;
  std::vector<Lifetime> lifetimes;
  std::vector<plan::BufferOp> lifetimeBuffers;
  DenseMap<Value, int> storage;
  DenseMap<std::pair<int64_t, Type>, int> stateStorages;
  DenseMap<Value, int64_t> lastUse; ///< per storage root, in ops
  int64_t position = 0;
  uint64_t threadScratch = 0;
  SmallVector<Value> outputBuffers;

  OwningOpRef<ModuleOp> kernels;
  struct Kernel {
    std::string name;
    KernelInfo info;
  };
  std::vector<Kernel> kernelList;
  std::map<std::string, int64_t> kernelIndex;
};

} // namespace

//===----------------------------------------------------------------------===//
// Buffers
//===----------------------------------------------------------------------===//

std::string Converter::nameOf(Value value) {
  if (auto argument = dyn_cast<BlockArgument>(value)) {
    if (auto name = function.getArgAttrOfType<StringAttr>(
            argument.getArgNumber(), nameAttrName))
      return name.str();
    return std::to_string(argument.getArgNumber());
  }
  std::string node = nodeOf(value.getDefiningOp()->getLoc());
  if (!node.empty())
    return node;
  return value.getDefiningOp()->getName().stripDialect().str();
}

int Converter::newStorage(Value value, StringRef name, bool keep) {
  RankedTensorType type = typeOf(value);
  OpBuilder::InsertionGuard guard(body);
  body.setInsertionPointToStart(&program.getBody().front());
  if (!lifetimeBuffers.empty())
    body.setInsertionPointAfter(lifetimeBuffers.back());
  auto buffer = createBuffer(body, value.getLoc(), name, std::nullopt,
                             bytesOf(type), type);
  lifetimeBuffers.push_back(buffer);
  Lifetime lifetime;
  lifetime.size = bytesOf(type);
  lifetime.begin = lifetime.end = position;
  Storage entry;
  entry.buffer = buffer;
  entry.lifetime = lifetimes.size();
  entry.keep = keep;
  lifetimes.push_back(lifetime);
  storages.push_back(entry);
  storage[value] = storages.size() - 1;
  return storages.size() - 1;
}

int Converter::stateStorage(OpOperand &use) {
  const WeightState *state = weights.find(use);
  auto [it, isNew] = stateStorages.try_emplace(
      {state->index, state->local}, static_cast<int>(storages.size()));
  if (isNew) {
    OpBuilder::InsertionGuard guard(body);
    body.setInsertionPointToStart(&program.getBody().front());
    Storage entry;
    entry.buffer = createBuffer(body, function.getLoc(), state->name,
                                state->index, state->size, state->local);
    entry.keep = true;
    storages.push_back(entry);
  }
  return it->second;
}

Value Converter::read(OpOperand &use) {
  Value value = use.get();
  if (weights.isParameter(value))
    return storages[stateStorage(use)].buffer;
  Storage &entry = storages[storage.lookup(value)];
  if (entry.lifetime >= 0)
    lifetimes[entry.lifetime].end =
        std::max(lifetimes[entry.lifetime].end, position);
  return entry.buffer;
}

bool Converter::diesHere(OpOperand &use) {
  Value value = use.get();
  if (weights.isParameter(value))
    return false;
  int index = storage.lookup(value);
  if (storages[index].keep)
    return false;
  // No later reader of any value in the same bytes.
  Operation *op = use.getOwner();
  for (auto &[other, where] : storage) {
    if (where != index)
      continue;
    for (OpOperand &reader : other.getUses()) {
      Operation *owner = reader.getOwner();
      if (owner == op ? &reader != &use : op->isBeforeInBlock(owner))
        return false;
    }
  }
  return true;
}

Value Converter::write(Value result, OpOperand *reuse) {
  if (reuse && reuse->get().getType() == result.getType() && diesHere(*reuse)) {
    int index = storage.lookup(reuse->get());
    storage[result] = index;
    lifetimes[storages[index].lifetime].end = position;
    return storages[index].buffer;
  }
  return storages[newStorage(result, nameOf(result))].buffer;
}

//===----------------------------------------------------------------------===//
// Kernels
//===----------------------------------------------------------------------===//

/// The region as text without what does not change its code.
static std::string kernelKey(FusedOp op) {
  OwningOpRef<Operation *> copy(op->clone());
  (*copy)->walk([](Operation *inner) {
    inner->setLoc(UnknownLoc::get(inner->getContext()));
    inner->removeAttr("path");
    inner->removeAttr("part");
    SmallVector<StringAttr> discardable;
    for (NamedAttribute attribute : inner->getDiscardableAttrs())
      discardable.push_back(attribute.getName());
    for (StringAttr name : discardable)
      inner->removeDiscardableAttr(name);
  });
  std::string key;
  llvm::raw_string_ostream stream(key);
  // Large constants by identity (attributes are unique) instead of their text.
  (*copy)->walk([&](ConstantOp constant) {
    stream << constant.getValue().getAsOpaquePointer() << ",";
  });
  (*copy)->print(stream,
                 OpPrintingFlags().elideLargeElementsAttrs(4).useLocalScope());
  return key;
}

FailureOr<int64_t> Converter::kernelOf(FusedOp op) {
  auto [it, isNew] = kernelIndex.try_emplace(kernelKey(op), kernelList.size());
  if (!isNew)
    return it->second;
  std::string name = "k" + std::to_string(kernelList.size());
  for (Operation &inner : op.getBody().front().without_terminator())
    if (!isa<ConstantOp>(inner) && name.size() < 48)
      name += "_" + inner.getName().stripDialect().str();
  FailureOr<KernelInfo> info = emitKernel(op, *kernels, name);
  if (failed(info))
    return failure();
  kernelList.push_back({name, *info});
  return it->second;
}

LogicalResult Converter::addKernels() {
  if (kernelList.empty())
    return success();
  FailureOr<KernelImage> image = compileKernels(*kernels, target);
  if (failed(image))
    return failure();
  plan::ImageOp::create(plan.b, function.getLoc(),
                        StringRef(image->bytes.data(), image->bytes.size()));
  for (const Kernel &kernel : kernelList)
    plan::KernelOp::create(plan.b, function.getLoc(), kernel.name, 0,
                           image->entries.lookup(kernel.name),
                           kernel.info.extent, kernel.info.grain,
                           kernel.info.buffers);
  return success();
}

/// Every element of every result depends on `argument` at its own place, or on
/// the row around it, which is read before it is written (EmitLoops.cpp).
static bool isInPlaceSafe(FusedOp op, BlockArgument argument) {
  SmallVector<Value> work = {argument};
  llvm::SmallPtrSet<Operation *, 16> seen;
  auto rowLike = [&](RankedTensorType type) {
    return type.getRank() == typeOf(argument).getRank() && type.getRank() > 0 &&
           type.getShape().drop_back() ==
               typeOf(argument).getShape().drop_back();
  };
  for (Value result : op.getResults())
    if (!rowLike(typeOf(result)))
      return false;
  while (!work.empty()) {
    Value value = work.pop_back_val();
    for (OpOperand &use : value.getUses()) {
      Operation *user = use.getOwner();
      if (isa<YieldOp>(user) || !seen.insert(user).second)
        continue;
      int64_t last = typeOf(value).getRank() - 1;
      bool ok = false;
      if (user->hasTrait<Pointwise>())
        ok = rowLike(typeOf(user->getResult(0)));
      else if (isa<RmsNormOp, LayerNormOp>(user))
        ok = use.getOperandNumber() == 0;
      else if (auto softmax = dyn_cast<SoftmaxOp>(user))
        ok = static_cast<int64_t>(softmax.getDim()) == last;
      else if (auto reduce = dyn_cast<ReduceOp>(user))
        ok = reduce.getKeepDims() && reduce.getDims().size() == 1 &&
             reduce.getDims()[0] == last;
      if (!ok)
        return false;
      work.push_back(user->getResult(0));
    }
  }
  return true;
}

//===----------------------------------------------------------------------===//
// Instructions
//===----------------------------------------------------------------------===//

void Converter::instruction(Operation *op, InstructionKind kind,
                            ArrayRef<SmallVector<Value>> uses,
                            ArrayRef<Attribute> values, StringRef why) {
  plan::createInstruction(body, op->getLoc(), kind, uses, values,
                          originOf(op, why));
}

LogicalResult Converter::convertLaunch(FusedOp op) {
  FailureOr<int64_t> kernel = kernelOf(op);
  if (failed(kernel))
    return failure();
  SmallVector<Value> inputs, outputs;
  for (OpOperand &operand : op->getOpOperands())
    inputs.push_back(read(operand));
  llvm::SmallPtrSet<OpOperand *, 4> taken;
  for (Value result : op.getResults()) {
    OpOperand *reuse = nullptr;
    for (OpOperand &operand : op->getOpOperands())
      if (!reuse && !taken.count(&operand) &&
          operand.get().getType() == result.getType() &&
          !weights.isParameter(operand.get()) && diesHere(operand) &&
          llvm::count(inputs, storages[storage.lookup(operand.get())].buffer) ==
              1 &&
          isInPlaceSafe(op,
                        op.getBody().getArgument(operand.getOperandNumber())))
        reuse = &operand;
    if (reuse)
      taken.insert(reuse);
    outputs.push_back(write(result, reuse));
  }
  instruction(op, InstructionKind::LAUNCH, {inputs, outputs},
              {literal(*kernel), literal(static_cast<int64_t>(inputs.size()))});
  return success();
}

LogicalResult Converter::convertMatMul(FusedOp op) {
  auto matmul = *op.getBody().getOps<MatMulOp>().begin();
  FailureOr<MatMulCall> call = matchMatMul(matmul);
  if (failed(call))
    return op.emitError("is not a matmul that the library computes");
  SmallVector<Operation *> chain;
  matchEpilogue(*call, chain);
  auto yield = cast<YieldOp>(op.getBody().front().getTerminator());
  if (yield.getValues().size() != 1 || yield.getValues()[0] != call->result)
    return op.emitError("is not a matmul with a known epilogue");
  auto operandOf = [&](Value inside) -> OpOperand * {
    auto argument = dyn_cast_or_null<BlockArgument>(inside);
    return argument ? &op->getOpOperand(argument.getArgNumber()) : nullptr;
  };
  OpOperand *lhs = operandOf(call->lhs.root), *rhs = operandOf(call->rhs.root);
  OpOperand *bias = operandOf(call->bias),
            *residual = operandOf(call->residual);
  if (!lhs || !rhs || (call->bias && !bias) || (call->residual && !residual))
    return op.emitError("has an operand that is not a buffer");
  bool packed = false;
  if (weights.isParameter(rhs->get())) {
    const WeightState *state = weights.find(*rhs);
    packed = state && state->packed;
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
  int64_t area = call->m * call->n;
  static const ::dshard::plan::Activation activations[] = {
      ::dshard::plan::Activation::none, ::dshard::plan::Activation::relu,
      ::dshard::plan::Activation::geluErf, ::dshard::plan::Activation::geluTanh,
      ::dshard::plan::Activation::silu};
  instruction(op, InstructionKind::MATMUL,
              {lhsBuffer, rhsBuffer, biasBuffer, residualBuffer, {out}},
              {literal(call->batch), literal(call->m), literal(call->n),
               literal(call->k), literal(call->lda), literal(call->ldb),
               literal(call->n), literal(residual ? call->n : 0),
               literal(call->strideLhs), literal(call->strideRhs),
               literal(area), literal(residual ? area : 0),
               literal(call->transposeLhs), literal(call->transposeRhs),
               literal(packed),
               literal(static_cast<int64_t>(
                   activations[static_cast<int>(call->activation)]))});
  threadScratch =
      std::max<uint64_t>(threadScratch, ::dshard::cpu::gemmScratchBytes());
  return success();
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
  if (out.empty())
    return op.emitError("has no use of the attention's first result; only the "
                        "log-sum-exp is not supported");
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
  values.push_back(literal(attention.getOffset()));
  values.push_back(literal(attention.getWindow()));
  values.push_back(plan.real(attention.getScale().convertToDouble()));
  values.push_back(plan.real(attention.getSoftcap().convertToDouble()));
  values.push_back(literal(attention.getFullyMasked() == FullyMasked::uniform));
  instruction(op, InstructionKind::ATTENTION,
              {{query}, {key}, {value}, mask, out, logSum}, values);
  threadScratch = std::max<uint64_t>(
      threadScratch, ::dshard::cpu::attentionScratchBytes(q[3], v[3]));
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
  values.push_back(plan.rankValue([&](int64_t rank) {
    return plan.getMesh().getIndexIn(rank, axes) * to.getDimSize(dim) *
           inStrides[dim];
  }));
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
  if (auto reshape = dyn_cast<ReshapeOp>(op)) {
    OpOperand &input = op->getOpOperand(0);
    (void)read(input);
    storage[reshape.getResult()] = weights.isParameter(input.get())
                                       ? stateStorage(input)
                                       : storage.lookup(input.get());
    return success();
  }
  if (auto fused = dyn_cast<FusedOp>(op)) {
    auto call = fused->getAttrOfType<StringAttr>(callAttrName);
    if (!call)
      return convertLaunch(fused);
    if (call.getValue() == "matmul")
      return convertMatMul(fused);
    if (call.getValue() == "attention")
      return convertAttention(fused);
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
    instruction(op, InstructionKind::FILL, {{write(index.getResult())}},
                {bits});
    return success();
  }
  if (isa<RepeatOp, IfOp>(op))
    return op->emitError(
        "[convert_to_plan_c1] control ops are not compiled into plans yet");
  return convertCollective(op);
}

//===----------------------------------------------------------------------===//
// Ports
//===----------------------------------------------------------------------===//

LogicalResult Converter::addOutputs(func::ReturnOp op) {
  llvm::SmallDenseSet<int> taken;
  for (auto [number, operand] : llvm::enumerate(op->getOpOperands())) {
    Value source = read(operand);
    bool isParameter = weights.isParameter(operand.get());
    int index = isParameter ? -1 : storage.lookup(operand.get());
    if (isParameter || storages[index].keep || taken.contains(index)) {
      // An input, a state or another output: the user gets a copy.
      RankedTensorType type = typeOf(operand.get());
      OpBuilder::InsertionGuard guard(body);
      body.setInsertionPointAfter(lifetimeBuffers.empty()
                                      ? source.getDefiningOp()
                                      : lifetimeBuffers.back().getOperation());
      auto buffer =
          createBuffer(body, operand.get().getLoc(), nameOf(operand.get()),
                       std::nullopt, bytesOf(type), type);
      lifetimeBuffers.push_back(buffer);
      Lifetime lifetime;
      lifetime.size = bytesOf(type);
      lifetime.begin = lifetime.end = position;
      lifetimes.push_back(lifetime);
      int64_t count = type.getNumElements();
      body.setInsertionPointToEnd(&program.getBody().front());
      instruction(op, InstructionKind::COPY, {{source}, {buffer}},
                  {literal(1), literal(count), literal(0), literal(1),
                   literal(0), literal(1)});
      outputBuffers.push_back(buffer);
      continue;
    }
    taken.insert(index);
    lifetimes[storages[index].lifetime].end = position;
    outputBuffers.push_back(source);
  }
  return success();
}

/// `value`, with negative indices counted from the end: select(value < 0,
/// value + size, value); null if `user` is no part of that.
static Value wrappedIndex(Value value, Operation *user) {
  auto select = dyn_cast<SelectOp>(user);
  if (!select || select.getFalseValue() != value)
    return Value();
  auto add = select.getTrueValue().getDefiningOp<AddOp>();
  auto compare = select.getCondition().getDefiningOp<CompareOp>();
  bool matches = add && add.getLhs() == value && compare &&
                 compare.getLhs() == value &&
                 compare.getPredicate() == ComparePredicate::lt;
  return matches ? select.getResult() : Value();
}

/// Indices of look-ups must lie inside what they index.
void Converter::findRange(Value argument, int64_t &low, int64_t &high,
                          bool &found) {
  for (OpOperand &use : argument.getUses()) {
    Operation *owner = use.getOwner();
    if (isa<ReshapeOp, TransposeOp, CastOp>(owner)) {
      Value result = owner->getResult(0);
      if (isa<IntegerType>(typeOf(result).getElementType()) &&
          typeOf(result).getElementType().getIntOrFloatBitWidth() >= 32)
        findRange(result, low, high, found);
      continue;
    }
    if (auto fused = dyn_cast<FusedOp>(owner)) {
      findRange(fused.getBody().getArgument(use.getOperandNumber()), low, high,
                found);
      continue;
    }
    if (Value wrapped = wrappedIndex(argument, owner)) {
      findRange(wrapped, low, high, found);
      continue;
    }
    auto gather = dyn_cast<GatherOp>(owner);
    if (!gather || use.getOperandNumber() != 1)
      continue;
    int64_t size = typeOf(gather.getInput()).getDimSize(gather.getDim());
    int64_t least = -size;
    // A sharded or padded table: as the model has it.
    auto fused = dyn_cast<FusedOp>(gather->getParentOp());
    auto table = dyn_cast<BlockArgument>(gather.getInput());
    auto outer =
        fused && table
            ? dyn_cast<BlockArgument>(fused->getOperand(table.getArgNumber()))
            : BlockArgument();
    if (outer && outer.getOwner()->getParentOp() == function) {
      unsigned number = outer.getArgNumber();
      if (auto global =
              function.getArgAttrOfType<TypeAttr>(number, globalAttrName))
        size = cast<RankedTensorType>(global.getValue())
                   .getDimSize(gather.getDim());
      least = -size;
      auto weight =
          function.getArgAttrOfType<WeightAttr>(number, weightAttrName);
      if (weight && !weight.getTransposed()) {
        // Counting from the end of padding would be wrong.
        int64_t stored = weight.getType().getDimSize(gather.getDim());
        least = stored == size ? -size : 0;
        size = stored;
      }
    } else if (gather.getOffset()) {
      continue; // a shard of something computed: the whole is not known here
    }
    low = found ? std::max(low, least) : least;
    high = found ? std::min(high, size - 1) : size - 1;
    found = true;
  }
}

void Converter::addPorts(int64_t programIndex) {
  DenseMap<Value, int64_t> bufferIndex;
  for (auto buffer : program.getBody().getOps<plan::BufferOp>())
    bufferIndex.try_emplace(buffer, bufferIndex.size());
  auto entry = plan::EntryOp::create(plan.b, function.getLoc(),
                                     function.getName(), programIndex);
  OpBuilder ports =
      OpBuilder::atBlockEnd(plan.b.createBlock(&entry.getPorts()));
  plan.b.setInsertionPointAfter(entry);
  auto namesOf = [](DictionaryAttr attributes) {
    return attributes ? attributes.getAs<ArrayAttr>(dimNamesAttrName)
                      : ArrayAttr();
  };
  for (BlockArgument argument : function.getArguments()) {
    if (weights.isParameter(argument))
      continue;
    unsigned number = argument.getArgNumber();
    DictionaryAttr attributes = function.getArgAttrDict(number);
    auto global =
        attributes ? attributes.getAs<TypeAttr>(globalAttrName) : TypeAttr();
    if (!global)
      global = TypeAttr::get(argument.getType());
    int64_t low = 0, high = 0;
    bool found = false;
    if (isa<IntegerType>(typeOf(argument).getElementType()))
      findRange(argument, low, high, found);
    plan::InputOp::create(
        ports, argument.getLoc(), nameOf(argument),
        bufferIndex.lookup(storages[storage.lookup(argument)].buffer),
        global.getValue(), argument.getType(),
        attributes ? attributes.getAs<ShardingAttr>(shardingAttrName)
                   : ShardingAttr(),
        namesOf(attributes),
        found ? ports.getDenseI64ArrayAttr({low, high}) : DenseI64ArrayAttr());
  }
  for (auto [number, buffer] : llvm::enumerate(outputBuffers)) {
    DictionaryAttr attributes = function.getResultAttrDict(number);
    Type type = function.getResultTypes()[number];
    auto global =
        attributes ? attributes.getAs<TypeAttr>(globalAttrName) : TypeAttr();
    auto name =
        attributes ? attributes.getAs<StringAttr>(nameAttrName) : StringAttr();
    plan::OutputOp::create(
        ports, function.getLoc(), name ? name.str() : std::to_string(number),
        bufferIndex.lookup(buffer), global ? global.getValue() : type, type,
        attributes ? attributes.getAs<ShardingAttr>(shardingAttrName)
                   : ShardingAttr(),
        namesOf(attributes), DenseI64ArrayAttr());
  }
}

//===----------------------------------------------------------------------===//
// All of it
//===----------------------------------------------------------------------===//

LogicalResult Converter::run() {
  kernels = ModuleOp::create(UnknownLoc::get(module.getContext()));
  for (unsigned r = 0; r < function.getNumResults(); ++r)
    if (auto sharding =
            function.getResultAttrOfType<ShardingAttr>(r, shardingAttrName))
      if (sharding.isPartial())
        return function.emitError("result ") << r << " is still partial";
  if (failed(weights.addStates()) || failed(weights.buildLoad()))
    return failure();

  program = plan::ProgramOp::create(plan.b, function.getLoc(),
                                    function.getName(), 0, 0, 0);
  body = OpBuilder::atBlockEnd(plan.b.createBlock(&program.getBody()));
  plan.b.setInsertionPoint(program); // tables and groups come before
  for (BlockArgument argument : function.getArguments())
    if (!weights.isParameter(argument))
      newStorage(argument, nameOf(argument), /*keep=*/true);
  for (Operation &op : function.getBody().front()) {
    body.setInsertionPointToEnd(&program.getBody().front());
    ++position;
    if (auto result = dyn_cast<func::ReturnOp>(op)) {
      if (failed(addOutputs(result)))
        return failure();
    } else if (failed(convert(&op))) {
      return failure();
    }
  }
  // Inputs keep their bytes: a session writes them once and runs many times.
  for (BlockArgument argument : function.getArguments())
    if (!weights.isParameter(argument)) {
      Lifetime &lifetime =
          lifetimes[storages[storage.lookup(argument)].lifetime];
      lifetime.begin = 0;
      lifetime.end = position;
    }
  int64_t arena = layOut(lifetimes);
  for (auto [buffer, lifetime] : llvm::zip_equal(lifetimeBuffers, lifetimes))
    buffer.setOffset(lifetime.offset);
  program.setArenaSize(arena);
  program.setThreadScratch(
      ::dshard::plan::alignTo(threadScratch, ::dshard::plan::bufferAlignment));
  plan.b.setInsertionPointToEnd(module.getBody());
  if (failed(addKernels()))
    return failure();
  addPorts(/*programIndex=*/1);
  Builder builder(module.getContext());
  SmallVector<StringRef> features;
  for (const std::string &feature : target.features)
    features.push_back(feature);
  module->setAttr("plan.target", builder.getStringAttr(target.name));
  module->setAttr("plan.features", builder.getStrArrayAttr(features));
  function.erase();
  return success();
}

namespace {
struct ConvertToPlan
    : mlir::dshard::impl::ConvertToPlanPassBase<ConvertToPlan> {
  using ConvertToPlanPassBase::ConvertToPlanPassBase;

  void getDependentDialects(DialectRegistry &registry) const override {
    registry.insert<plan::PlanDialect>();
    registerCodegenDialects(registry);
  }

  void runOnOperation() override {
    ModuleOp module = getOperation();
    func::FuncOp function;
    for (auto candidate : module.getOps<func::FuncOp>()) {
      if (function) {
        candidate.emitError("[convert_to_plan_c1] a plan of several stages is "
                            "not built yet");
        return signalPassFailure();
      }
      function = candidate;
    }
    if (!function || !function->hasAttr(spmdAttrName)) {
      module.emitError("[convert_to_plan_c1] has no function of phase "
                       "'schedule' (with ")
          << spmdAttrName << ")";
      return signalPassFailure();
    }
    ::dshard::Result<CpuTarget> cpu = getCpuTarget(target);
    if (!cpu) {
      module.emitError(cpu.status().message());
      return signalPassFailure();
    }
    if (failed(Converter(module, function, *cpu).run()))
      signalPassFailure();
  }
};
} // namespace
