//===- Control.cpp - Verify repeat, if and fused regions ------------------===//

#include "dshard/Dialect/DShard/IR/DShardOps.h"

using namespace mlir;
using namespace mlir::dshard;

static LogicalResult verifyTypes(Operation *op, TypeRange got,
                                 TypeRange expected, StringRef what) {
  if (got.size() != expected.size())
    return op->emitOpError() << what << ": " << got.size()
                             << " values, expected " << expected.size();
  for (auto [i, types] : llvm::enumerate(llvm::zip_equal(got, expected))) {
    auto [a, b] = types;
    if (a != b)
      return op->emitOpError()
             << what << ": value " << i << " is " << a << ", expected " << b;
  }
  return success();
}

LogicalResult RepeatOp::verify() {
  // repeat_c1
  if (int64_t(getCount()) < 1)
    return emitOpError() << "count is " << int64_t(getCount())
                         << ", expected at least 1";
  Block &block = getBody().front();
  SmallVector<Type> arguments = {
      RankedTensorType::get({}, IntegerType::get(getContext(), 64))};
  llvm::append_range(arguments, getInitial().getTypes());
  if (failed(verifyTypes(*this, getResultTypes(), getInitial().getTypes(),
                         "results")) ||
      failed(verifyTypes(*this, block.getArgumentTypes(), arguments,
                         "arguments of the region")))
    return failure();
  return verifyTypes(*this, block.getTerminator()->getOperandTypes(),
                     getResultTypes(), "yielded values");
}

static ParseResult parseBranch(OpAsmParser &parser, OperationState &result) {
  Region *region = result.addRegion();
  if (parser.parseRegion(*region))
    return failure();
  IfOp::ensureTerminator(*region, parser.getBuilder(), result.location);
  return success();
}

static void printBranch(OpAsmPrinter &printer, Region &region) {
  Operation *terminator = region.front().getTerminator();
  bool isImplicit =
      terminator->getNumOperands() == 0 && terminator->getAttrs().empty();
  printer.printRegion(region, /*printEntryBlockArgs=*/true,
                      /*printBlockTerminators=*/!isImplicit);
}

/// $condition attr-dict `:` functional-type $then_region `else` $else_region
///
/// By hand, since the parser that TableGen writes keeps the regions in local
/// variables: when the second one is refused, it frees ops of the first whose
/// values an op before may use by a forward reference. Regions of the
/// OperationState are let go of safely.
ParseResult IfOp::parse(OpAsmParser &parser, OperationState &result) {
  OpAsmParser::UnresolvedOperand condition;
  FunctionType type;
  llvm::SMLoc loc = parser.getCurrentLocation();
  if (parser.parseOperand(condition) ||
      parser.parseOptionalAttrDict(result.attributes) ||
      parser.parseColonType(type) ||
      parser.resolveOperands(ArrayRef(condition), type.getInputs(), loc,
                             result.operands) ||
      parseBranch(parser, result) || parser.parseKeyword("else") ||
      parseBranch(parser, result))
    return failure();
  result.addTypes(type.getResults());
  return success();
}

void IfOp::print(OpAsmPrinter &printer) {
  printer << ' ' << getCondition();
  printer.printOptionalAttrDict((*this)->getAttrs());
  printer << " : ";
  printer.printFunctionalType(*this);
  printer << ' ';
  printBranch(printer, getThenRegion());
  printer << " else ";
  printBranch(printer, getElseRegion());
}

LogicalResult IfOp::verify() {
  // if_c1
  auto expected = RankedTensorType::get({}, IntegerType::get(getContext(), 1));
  if (getCondition().getType() != expected)
    return emitOpError() << "condition is " << getCondition().getType()
                         << ", expected " << expected;
  for (auto [name, region] :
       {std::pair<StringRef, Region *>{"then region", &getThenRegion()},
        {"else region", &getElseRegion()}})
    if (failed(verifyTypes(*this,
                           region->front().getTerminator()->getOperandTypes(),
                           getResultTypes(), name)))
      return failure();
  return success();
}

LogicalResult FusedOp::verify() {
  // fused_c1
  Block &block = getBody().front();
  if (failed(verifyTypes(*this, block.getArgumentTypes(),
                         getInputs().getTypes(), "arguments of the region")))
    return failure();
  return verifyTypes(*this, block.getTerminator()->getOperandTypes(),
                     getResultTypes(), "yielded values");
}
