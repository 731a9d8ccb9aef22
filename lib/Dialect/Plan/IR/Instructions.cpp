//===- Instructions.cpp - One form for all instructions -------------------===//
//
// plan.matmul lhs(%0) rhs(%1) -> out(%2) {batch = 1, m = 16, ...} path "p" node
// "n" why "w" part forward
//
//===----------------------------------------------------------------------===//

#include "dshard/Dialect/Plan/IR/PlanOps.h"
#include "llvm/ADT/StringExtras.h"

using namespace mlir;
using namespace mlir::plan;
using ::dshard::plan::InstructionInfo;
using ::dshard::plan::UseInfo;
using ::dshard::plan::ValueInfo;

const InstructionInfo *mlir::plan::getInstructionInfo(Operation *op) {
  if (!isa<PlanDialect>(op->getDialect()) || !op->hasAttr("segments"))
    return nullptr;
  StringRef name = op->getName().stripDialect();
  auto kind = ::dshard::plan::parseInstructionKind(
      std::string_view(name.data(), name.size()));
  return kind ? &::dshard::plan::instructionInfo(*kind) : nullptr;
}

/// How many numbers `info` has, given those before it; -1 if the count is not a
/// small literal.
static int64_t countOf(const InstructionInfo &table, const ValueInfo &info,
                       ArrayRef<int64_t> begins, ArrayRef<Attribute> values) {
  if (info.countFrom < 0)
    return info.count;
  size_t at = begins[info.countFrom];
  auto count =
      at < values.size() ? dyn_cast<IntegerAttr>(values[at]) : IntegerAttr();
  if (!count || count.getInt() < 0 || count.getInt() > 1 << 20)
    return -1;
  return count.getInt();
}

static bool isArray(const ValueInfo &info) {
  return info.countFrom >= 0 || info.count != 1;
}

LogicalResult mlir::plan::verifyInstruction(Operation *op) {
  const InstructionInfo *info = getInstructionInfo(op);
  if (!info)
    return op->emitOpError("is not in the instruction table");
  auto segments = op->getAttrOfType<DenseI32ArrayAttr>("segments");
  auto values = op->getAttrOfType<ArrayAttr>("values");
  if (segments.size() != static_cast<int64_t>(info->uses.size()))
    return op->emitOpError("[instruction_c1] has ")
           << segments.size() << " uses, expected " << info->uses.size();
  int64_t total = 0;
  for (auto [use, count] : llvm::zip_equal(info->uses, segments.asArrayRef())) {
    if (count < 0 || (!use.repeated && count > 1) ||
        (!use.optional && !use.repeated && count == 0))
      return op->emitOpError("[instruction_c1] use '")
             << use.name << "' has " << count << " buffers";
    total += count;
  }
  if (total != op->getNumOperands())
    return op->emitOpError("[instruction_c1] segments name ")
           << total << " buffers, but there are " << op->getNumOperands();
  SmallVector<int64_t> begins;
  int64_t at = 0;
  for (const ValueInfo &value : info->values) {
    begins.push_back(at);
    int64_t count = countOf(*info, value, begins, values.getValue());
    if (count < 0)
      return op->emitOpError("[instruction_c1] the count of '")
             << value.name << "' is not a literal";
    at += count;
  }
  if (at != static_cast<int64_t>(values.size()))
    return op->emitOpError("[instruction_c1] has ")
           << values.size() << " values, expected " << at;
  for (Attribute value : values)
    if (!isa<IntegerAttr, FloatAttr, TableRefAttr, ScalarRefAttr,
             LoopIndexAttr>(value))
      return op->emitOpError("[instruction_c1] has a value that is no number: ")
             << value;
  return success();
}

void mlir::plan::printInstruction(OpAsmPrinter &printer, Operation *op) {
  const InstructionInfo *info = getInstructionInfo(op);
  auto segments = op->getAttrOfType<DenseI32ArrayAttr>("segments");
  auto values = op->getAttrOfType<ArrayAttr>("values");
  unsigned operand = 0;
  bool written = false;
  for (auto [use, count] : llvm::zip(info->uses, segments.asArrayRef())) {
    if (count == 0)
      continue;
    if (use.written && !written)
      printer << " ->";
    written |= use.written;
    printer << ' ' << use.name << '(';
    llvm::interleaveComma(op->getOperands().slice(operand, count), printer);
    printer << ')';
    operand += count;
  }
  printer << " {";
  auto one = [&](Attribute value) {
    if (auto integer = dyn_cast<IntegerAttr>(value))
      printer << integer.getInt();
    else
      printer.printAttributeWithoutType(value);
  };
  SmallVector<int64_t> begins;
  int64_t at = 0;
  for (const ValueInfo &value : info->values) {
    printer << (begins.empty() ? "" : ", ") << value.name << " = ";
    begins.push_back(at);
    int64_t count =
        std::max<int64_t>(0, countOf(*info, value, begins, values.getValue()));
    if (isArray(value)) {
      printer << '[';
      llvm::interleaveComma(values.getValue().slice(at, count), printer, one);
      printer << ']';
    } else {
      one(values[at]);
    }
    at += count;
  }
  printer << '}';
  for (StringRef name : {"path", "node", "why"})
    if (auto text = op->getAttrOfType<StringAttr>(name))
      printer << ' ' << name << ' ' << text;
  if (auto part = op->getAttrOfType<dshard::PartAttr>("part"))
    printer << " part " << dshard::stringifyPart(part.getValue());
  printer.printOptionalAttrDict(
      op->getAttrs(), {"segments", "values", "path", "node", "why", "part"});
}

ParseResult mlir::plan::parseInstruction(OpAsmParser &parser,
                                         OperationState &result) {
  StringRef name = result.name.stripDialect();
  auto kind = ::dshard::plan::parseInstructionKind(
      std::string_view(name.data(), name.size()));
  if (!kind)
    return parser.emitError(parser.getNameLoc(),
                            "is not in the instruction table");
  const InstructionInfo &info = ::dshard::plan::instructionInfo(*kind);
  Builder &builder = parser.getBuilder();
  SmallVector<int32_t> segments;
  SmallVector<OpAsmParser::UnresolvedOperand> operands;
  bool written = false;
  for (const UseInfo &use : info.uses) {
    if (use.written && !written) {
      (void)parser.parseOptionalArrow();
      written = true;
    }
    size_t before = operands.size();
    if (succeeded(parser.parseOptionalKeyword(use.name))) {
      if (parser.parseOperandList(operands, OpAsmParser::Delimiter::Paren))
        return failure();
    }
    segments.push_back(operands.size() - before);
  }
  if (parser.resolveOperands(operands, BufferType::get(builder.getContext()),
                             result.operands))
    return failure();
  SmallVector<Attribute> values;
  auto one = [&]() -> ParseResult {
    Attribute value;
    if (parser.parseAttribute(value))
      return failure();
    // Untyped numbers parse as i64 and f64.
    values.push_back(value);
    return success();
  };
  if (parser.parseLBrace())
    return failure();
  for (auto [number, value] : llvm::enumerate(info.values)) {
    if ((number && parser.parseComma()) || parser.parseKeyword(value.name) ||
        parser.parseEqual())
      return failure();
    if (isArray(value)
            ? parser.parseCommaSeparatedList(AsmParser::Delimiter::Square, one)
            : one())
      return failure();
  }
  if (parser.parseRBrace())
    return failure();
  result.addAttribute("segments", builder.getDenseI32ArrayAttr(segments));
  result.addAttribute("values", builder.getArrayAttr(values));
  for (StringRef key : {"path", "node", "why"})
    if (succeeded(parser.parseOptionalKeyword(key))) {
      StringAttr text;
      if (parser.parseAttribute(text))
        return failure();
      result.addAttribute(key, text);
    }
  if (succeeded(parser.parseOptionalKeyword("part"))) {
    StringRef word;
    llvm::SMLoc loc = parser.getCurrentLocation();
    if (parser.parseKeyword(&word))
      return failure();
    std::optional<dshard::Part> part = dshard::symbolizePart(word);
    if (!part)
      return parser.emitError(loc, "unknown part");
    result.addAttribute("part",
                        dshard::PartAttr::get(builder.getContext(), *part));
  }
  return parser.parseOptionalAttrDict(result.attributes);
}

Operation *mlir::plan::createInstruction(OpBuilder &builder, Location loc,
                                         ::dshard::plan::InstructionKind kind,
                                         ArrayRef<SmallVector<Value>> uses,
                                         ArrayRef<Attribute> values,
                                         const Origin &origin) {
  const InstructionInfo &info = ::dshard::plan::instructionInfo(kind);
  OperationState state(loc, "plan." + info.spelling);
  SmallVector<int32_t> segments;
  for (const SmallVector<Value> &use : uses) {
    segments.push_back(use.size());
    state.addOperands(use);
  }
  state.addAttribute("segments", builder.getDenseI32ArrayAttr(segments));
  state.addAttribute("values", builder.getArrayAttr(values));
  auto text = [&](StringRef name, StringAttr value) {
    if (value && !value.getValue().empty())
      state.addAttribute(name, value);
  };
  text("path", origin.path);
  text("node", origin.node);
  text("why", origin.why);
  if (origin.part)
    state.addAttribute("part", origin.part);
  return builder.create(state);
}
