//===- Kernels.cpp - Launches and the code that they run ------------------===//

#include "Converter.h"

using namespace mlir;
using namespace mlir::dshard;

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

FailureOr<int64_t> KernelTable::find(FusedOp op) {
  auto [it, isNew] = index.try_emplace(kernelKey(op), list.size());
  if (!isNew)
    return it->second;
  std::string name = "k" + std::to_string(list.size());
  for (Operation &inner : op.getBody().front().without_terminator())
    if (!isa<ConstantOp>(inner) && name.size() < 48)
      name += "_" + inner.getName().stripDialect().str();
  if (target.cuda) {
    FailureOr<CudaKernelInfo> info =
        emitCudaKernel(op, *kernels, name, *target.cuda);
    if (failed(info))
      return failure();
    list.push_back({info->name, {}, *info});
    return it->second;
  }
  FailureOr<KernelInfo> info = emitKernel(op, *kernels, name);
  if (failed(info))
    return failure();
  list.push_back({name, *info, {}});
  return it->second;
}

LogicalResult KernelTable::emit(PlanContext &plan, Location loc) {
  if (list.empty())
    return success();
  if (target.cuda) {
    FailureOr<std::string> text = compileCudaKernels(*kernels, *target.cuda);
    if (failed(text))
      return failure();
    text->push_back('\0'); // where the driver stops reading
    plan::ImageOp::create(plan.b, loc, *text, /*ptx=*/true);
    auto number = [&](int64_t value) {
      return plan.b.getI64IntegerAttr(value);
    };
    for (const Kernel &kernel : list)
      plan::KernelOp::create(plan.b, loc, kernel.name, 0, 0, 0, 0,
                             kernel.cuda.buffers, number(kernel.cuda.grid),
                             number(kernel.cuda.block),
                             number(kernel.cuda.shared));
    return success();
  }
  FailureOr<KernelImage> image = compileKernels(*kernels, *target.cpu);
  if (failed(image))
    return failure();
  plan::ImageOp::create(plan.b, loc,
                        StringRef(image->bytes.data(), image->bytes.size()),
                        /*ptx=*/false);
  for (const Kernel &kernel : list)
    plan::KernelOp::create(
        plan.b, loc, kernel.name, 0, image->entries.lookup(kernel.name),
        kernel.info.extent, kernel.info.grain, kernel.info.buffers,
        /*grid=*/IntegerAttr(), /*block=*/IntegerAttr(),
        /*shared=*/IntegerAttr());
  return success();
}

std::optional<double> mlir::dshard::getFillValue(FusedOp op) {
  Block &block = op.getBody().front();
  if (op->hasAttr(callAttrName) || op->getNumResults() != 1 ||
      !llvm::hasNItems(block, 2))
    return std::nullopt;
  auto constant = dyn_cast<ConstantOp>(block.front());
  auto elements = constant ? dyn_cast<DenseElementsAttr>(constant.getValue())
                           : DenseElementsAttr();
  if (elements && elements.getNumElements() == 0)
    return 0.0; // nothing to write, but someone must say so
  if (!elements || !elements.isSplat())
    return std::nullopt;
  if (auto type = dyn_cast<IntegerType>(elements.getElementType())) {
    APInt number = elements.getSplatValue<APInt>();
    bool isUnsigned = type.isUnsigned() || type.getWidth() == 1;
    if ((isUnsigned ? number.getActiveBits() : number.getSignificantBits()) >
        52)
      return std::nullopt;
    return isUnsigned ? static_cast<double>(number.getZExtValue())
                      : static_cast<double>(number.getSExtValue());
  }
  APFloat number = elements.getSplatValue<APFloat>();
  bool lost = false;
  number.convert(APFloat::IEEEdouble(), APFloat::rmNearestTiesToEven, &lost);
  return number.convertToDouble();
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

LogicalResult Converter::convertLaunch(FusedOp op) {
  // Weights in another order: the product reads what `load` packed.
  if (op->getNumOperands() == 1 && Weights::isReadOnly(op->getOperand(0))) {
    const WeightState *state = weights.find(op->getOpOperand(0));
    if (state && state->packed)
      return success();
  }
  if (std::optional<double> number = getFillValue(op)) {
    // Repeats that start from it fill their own places.
    if (!llvm::all_of(op.getResult(0).getUsers(), llvm::IsaPred<RepeatOp>))
      fill(op, write(op.getResult(0)), plan.real(*number));
    return success();
  }
  FailureOr<int64_t> kernel = kernels.find(op);
  if (failed(kernel))
    return failure();
  SmallVector<Value> inputs, outputs;
  for (OpOperand &operand : op->getOpOperands())
    inputs.push_back(read(operand));
  llvm::SmallPtrSet<OpOperand *, 4> taken;
  for (Value result : op.getResults()) {
    OpOperand *reuse = nullptr;
    int destination = destinationOf(result);
    for (OpOperand &operand : op->getOpOperands()) {
      // Kernels on GPUs read through a cache that does not see writes.
      if (plan.getGpu())
        break;
      bool isBetter = !reuse || (destination >= 0 &&
                                 storage.lookup(operand.get()) == destination);
      if (isBetter && !taken.count(&operand) && mayReplace(operand, result) &&
          llvm::count(inputs, inputs[operand.getOperandNumber()]) == 1 &&
          isInPlaceSafe(op,
                        op.getBody().getArgument(operand.getOperandNumber())))
        reuse = &operand;
    }
    // Straight to where it must go, rather than over something else.
    if (reuse && destination >= 0 &&
        storage.lookup(reuse->get()) != destination &&
        !isReadFrom(destination, op))
      reuse = nullptr;
    if (reuse)
      taken.insert(reuse);
    outputs.push_back(write(result, reuse));
  }
  instruction(op, InstructionKind::LAUNCH, {inputs, outputs},
              {literal(*kernel), literal(static_cast<int64_t>(inputs.size()))});
  return success();
}
