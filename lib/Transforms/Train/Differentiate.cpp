//===- Differentiate.cpp - Vector-Jacobian products of functions ----------===//

#include "dshard/Dialect/DShard/IR/DShardBuilder.h"
#include "dshard/Transforms/Train/Autodiff.h"
#include "dshard/Transforms/Train/Passes.h"

namespace mlir::dshard {
#define GEN_PASS_DEF_DIFFERENTIATEPASS
#include "dshard/Transforms/Train/Passes.h.inc"
} // namespace mlir::dshard

using namespace mlir;
using namespace mlir::dshard;

static bool isFloat(Type type) {
  auto tensor = dyn_cast<RankedTensorType>(type);
  return tensor && isa<FloatType>(tensor.getElementType());
}

/// The name by which the interpreter knows an argument; null if none.
static StringAttr getArgumentName(func::FuncOp function, unsigned index) {
  if (auto weight =
          function.getArgAttrOfType<WeightAttr>(index, weightAttrName))
    return weight.getName();
  return function.getArgAttrOfType<StringAttr>(index, nameAttrName);
}

/// Turns a copy of a function into its vector-Jacobian product.
static LogicalResult differentiate(func::FuncOp function) {
  MLIRContext *context = function.getContext();
  Block &block = function.getBody().front();
  auto returnOp = cast<func::ReturnOp>(block.getTerminator());
  SmallVector<Value> outputs, cotangents, arguments;
  for (unsigned i = 0, e = block.getNumArguments(); i < e; ++i)
    if (isFloat(block.getArgument(i).getType()))
      arguments.push_back(block.getArgument(i));
  auto named = [&](StringAttr name, StringRef suffix) {
    SmallVector<NamedAttribute> attributes;
    if (name)
      attributes.emplace_back(
          StringAttr::get(context, nameAttrName),
          StringAttr::get(context, name.getValue() + suffix));
    return attributes;
  };
  for (auto [index, value] : llvm::enumerate(returnOp.getOperands())) {
    if (!isFloat(value.getType()))
      continue;
    SmallVector<NamedAttribute> attributes =
        named(function.getResultAttrOfType<StringAttr>(index, nameAttrName),
              ".cotangent");
    attributes.emplace_back(StringAttr::get(context, roleAttrName),
                            RoleAttr::get(context, Role::input));
    unsigned position = block.getNumArguments();
    if (failed(function.insertArgument(position, value.getType(),
                                       DictionaryAttr::get(context, attributes),
                                       value.getLoc())))
      return failure();
    outputs.push_back(value);
    cotangents.push_back(block.getArgument(position));
  }

  OpBuilder builder(returnOp);
  SmallVector<Value> gradients;
  if (failed(buildBackward(builder, block, outputs, cotangents, arguments,
                           gradients)))
    return failure();
  DShardBuilder make(builder, returnOp.getLoc(), builder.getStringAttr(""),
                     PartAttr::get(context, Part::backward));
  for (auto [argument, gradient] : llvm::zip_equal(arguments, gradients))
    if (!gradient)
      gradient = make.splat(0, make.typeOf(argument));
  func::ReturnOp::create(builder, returnOp.getLoc(), gradients);
  returnOp.erase();

  SmallVector<Attribute> resultAttributes;
  SmallVector<Type> resultTypes;
  for (Value argument : arguments) {
    resultAttributes.push_back(DictionaryAttr::get(
        context,
        named(getArgumentName(function,
                              cast<BlockArgument>(argument).getArgNumber()),
              ".grad")));
    resultTypes.push_back(argument.getType());
  }
  function.setType(FunctionType::get(
      context, function.getFunctionType().getInputs(), resultTypes));
  function.setAllResultAttrs(resultAttributes);
  return success();
}

/// Forward ops that only the outputs needed.
static void eraseDead(Block &block) {
  for (Operation &op : llvm::make_early_inc_range(llvm::reverse(block)))
    if (isOpTriviallyDead(&op))
      op.erase();
}

namespace {
struct DifferentiatePass
    : mlir::dshard::impl::DifferentiatePassBase<DifferentiatePass> {
  void runOnOperation() override {
    SmallVector<func::FuncOp> functions;
    for (auto function : getOperation().getOps<func::FuncOp>())
      if (!function.isExternal())
        functions.push_back(function);
    for (func::FuncOp function : functions) {
      OpBuilder builder(function->getContext());
      builder.setInsertionPointAfter(function);
      auto copy = cast<func::FuncOp>(builder.clone(*function));
      copy.setName((function.getName() + "_vjp").str());
      if (failed(differentiate(copy)))
        return signalPassFailure();
      eraseDead(copy.getBody().front());
    }
  }
};
} // namespace
