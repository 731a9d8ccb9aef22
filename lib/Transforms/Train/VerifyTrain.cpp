//===- VerifyTrain.cpp - The gate of the train phase ----------------------===//

#include "dshard/Dialect/DShard/IR/DShardBuilder.h"
#include "dshard/Transforms/Train/Passes.h"
#include "llvm/ADT/StringMap.h"

namespace mlir::dshard {
#define GEN_PASS_DEF_VERIFYTRAINPASS
#include "dshard/Transforms/Train/Passes.h.inc"
} // namespace mlir::dshard

using namespace mlir;
using namespace mlir::dshard;

static LogicalResult verifyOp(Operation *op) {
  if (isa<func::FuncOp, func::ReturnOp, ConstantOp, YieldOp>(op))
    return success();
  // verify_train_c1
  if (isa<CrossEntropyOp>(op))
    return op->emitOpError() << "is left; dshard-decompose{ops=cross_entropy} "
                                "replaces it at the end of the phase train";
  // verify_train_c2
  StringAttr path = getPathOf(op);
  PartAttr part = getPartOf(op);
  if (!path || !part)
    return op->emitOpError()
           << "has no '" << (path ? "part" : "path")
           << "'; every op carries its module path and its part of a step";
  if (!isa<RepeatOp, IfOp>(op) && failed(getShardingRuleOf(op)))
    return failure();
  // verify_train_c5: a loop holds forward and backward; its insides are checked
  // by themselves.
  if (isa<RepeatOp, IfOp>(op))
    return success();
  for (Value operand : op->getOperands()) {
    Operation *producer = operand.getDefiningOp();
    if (!producer || isa<RepeatOp, IfOp>(producer))
      continue;
    PartAttr earlier = getPartOf(producer);
    if (!earlier || earlier.getValue() <= part.getValue())
      continue;
    InFlightDiagnostic diagnostic =
        op->emitOpError() << "of part " << stringifyPart(part.getValue())
                          << " reads a value of part "
                          << stringifyPart(earlier.getValue());
    diagnostic.attachNote(producer->getLoc()) << "which comes from here";
    return diagnostic;
  }
  return success();
}

static StringRef getText(Attribute attribute) {
  auto text = dyn_cast_if_present<StringAttr>(attribute);
  return text ? text.getValue() : "";
}

static LogicalResult verifyFunction(func::FuncOp function) {
  // verify_train_c1
  if (function->hasAttr(microBatchesAttrName) &&
      function.getName() == "train_step")
    return function.emitOpError()
           << "is still the model of one micro-batch; "
              "dshard-build-train-step makes the step from it";
  llvm::StringMap<Type> states;
  for (unsigned i = 0; i < function.getNumArguments(); ++i) {
    Type type = function.getArgumentTypes()[i];
    if (StringRef name = getText(function.getArgAttr(i, stateAttrName));
        !name.empty() && !states.try_emplace(name, type).second)
      return function.emitOpError()
             << "has two arguments for the state '" << name << "'";
    // verify_train_c6
    StringRef scalar = getText(function.getArgAttr(i, scalarAttrName));
    if (auto tensor = dyn_cast<RankedTensorType>(type);
        !scalar.empty() && (!tensor || tensor.getRank() != 0))
      return function.emitOpError() << "has the scalar '" << scalar << "' as "
                                    << type << ", expected no dims";
  }
  for (unsigned i = 0; i < function.getNumResults(); ++i) {
    Type type = function.getResultTypes()[i];
    // verify_train_c3
    if (StringRef name = getText(function.getResultAttr(i, stateAttrName));
        !name.empty()) {
      auto found = states.find(name);
      if (found == states.end())
        return function.emitOpError()
               << "writes the state '" << name << "', which is no argument";
      if (found->second != type)
        return function.emitOpError() << "writes the state '" << name << "' as "
                                      << type << ", it is " << found->second;
    }
    // verify_train_c6
    auto finite = function.getResultAttrOfType<ArrayAttr>(i, finiteAttrName);
    auto tensor = dyn_cast<RankedTensorType>(type);
    if (finite && (!tensor || tensor.getRank() != 1 ||
                   tensor.getDimSize(0) != static_cast<int64_t>(finite.size())))
      return function.emitOpError()
             << "names " << finite.size()
             << " values that must be finite in a result of type " << type;
  }
  // verify_train_c4
  WalkResult result = function.walk([&](GradientOp gradient) {
    if (states.contains(gradient.getOf()))
      return WalkResult::advance();
    gradient.emitOpError() << "is of '" << gradient.getOf()
                           << "', which is no state of '" << function.getName()
                           << "'";
    return WalkResult::interrupt();
  });
  return failure(result.wasInterrupted());
}

namespace {
struct VerifyTrainPass
    : mlir::dshard::impl::VerifyTrainPassBase<VerifyTrainPass> {
  void runOnOperation() override {
    WalkResult result = getOperation().walk([&](Operation *op) {
      if (isa<ModuleOp>(op))
        return WalkResult::advance();
      auto function = dyn_cast<func::FuncOp>(op);
      bool fails = failed(verifyOp(op)) ||
                   (function && failed(verifyFunction(function)));
      return fails ? WalkResult::interrupt() : WalkResult::advance();
    });
    if (result.wasInterrupted())
      signalPassFailure();
  }
};
} // namespace
