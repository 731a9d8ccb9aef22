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
