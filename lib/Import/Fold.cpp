//===- Fold.cpp - Elements that are known at import -----------------------===//
//
// Shape arithmetic of exporters (Shape, Gather, Mul, Div, Concat, ...) has only
// constants at its ends. Ops on known values are evaluated by their own
// reference semantics (EvaluateInterface), which work in double. Integers above
// 2^53, such as the INT64_MAX that ends a Slice, are only moved, never computed
// with: ops that only move elements are evaluated on element numbers instead.
//
//===----------------------------------------------------------------------===//

#include "GraphImporter.h"
#include "dshard/Dialect/DShard/IR/DShardOps.h"
#include "mlir/IR/Diagnostics.h"

using namespace mlir;
using namespace mlir::dshard;
using namespace mlir::dshard::onnx;

static constexpr int64_t maxExact = int64_t(1) << 53;

const Known *GraphImporter::known(Value value) const {
  auto found = knownValues.find(value);
  return found == knownValues.end() ? nullptr : &found->second;
}

void GraphImporter::setKnown(Value value, Known elements) {
  knownValues[value] = std::move(elements);
}

DenseElementsAttr GraphImporter::makeElements(RankedTensorType type,
                                              const Known &elements) {
  Type element = type.getElementType();
  if (auto floating = dyn_cast<FloatType>(element)) {
    SmallVector<APFloat> values;
    for (double value : elements.floats) {
      APFloat number(value);
      bool lost;
      number.convert(floating.getFloatSemantics(), APFloat::rmNearestTiesToEven,
                     &lost);
      values.push_back(number);
    }
    bool splat = !values.empty() && llvm::all_of(values, [&](const APFloat &v) {
      return v.bitwiseIsEqual(values.front());
    });
    return DenseElementsAttr::get(type, splat ? ArrayRef(values).take_front()
                                              : ArrayRef(values));
  }
  unsigned width = element.getIntOrFloatBitWidth();
  SmallVector<APInt> values;
  for (int64_t value : elements.ints)
    values.push_back(APInt(64, static_cast<uint64_t>(value)).trunc(width));
  bool splat = !values.empty() && llvm::all_equal(values);
  return DenseElementsAttr::get(type, splat ? ArrayRef(values).take_front()
                                            : ArrayRef(values));
}

/// The elements of a constant; nothing if it is too long or of an odd type.
static std::optional<Known> elementsOfConstant(DenseElementsAttr value) {
  if (value.getNumElements() > maxKnownElements)
    return std::nullopt;
  Known elements;
  Type type = value.getElementType();
  if (isa<FloatType>(type)) {
    for (APFloat number : value.getValues<APFloat>()) {
      bool lost;
      number.convert(APFloat::IEEEdouble(), APFloat::rmNearestTiesToEven,
                     &lost);
      elements.floats.push_back(number.convertToDouble());
    }
    return elements;
  }
  bool isSigned = !type.isUnsignedInteger() && !type.isInteger(1);
  for (const APInt &number : value.getValues<APInt>())
    elements.ints.push_back(isSigned
                                ? number.getSExtValue()
                                : static_cast<int64_t>(number.getZExtValue()));
  return elements;
}

Value GraphImporter::addConstant(DenseElementsAttr value) {
  OpBuilder::InsertionGuard guard(bodyBuilder);
  if (lastConstant)
    bodyBuilder.setInsertionPointAfter(lastConstant);
  else
    bodyBuilder.setInsertionPointToStart(&function.getBody().front());
  auto constant = ConstantOp::create(
      bodyBuilder, module->getLoc(), TypeRange(value.getType()), ValueRange(),
      NamedAttribute(StringAttr::get(context, "value"), value));
  lastConstant = constant;
  if (auto elements = elementsOfConstant(value))
    setKnown(constant, std::move(*elements));
  return constant;
}

/// Result elements are elements of the first operands, whatever they are.
static bool onlyMoves(Operation *op) {
  return isa<ReshapeOp, TransposeOp, BroadcastToOp, ConcatOp, SliceOp,
             GatherOp>(op);
}
/// How many leading operands it moves.
static size_t movedOperands(Operation *op) {
  return isa<GatherOp>(op) ? 1 : op->getNumOperands();
}

Value GraphImporter::fold(Operation *op) {
  Value result = op->getResult(0);
  auto evaluable = dyn_cast<EvaluateInterface>(op);
  auto type = cast<RankedTensorType>(result.getType());
  if (!evaluable || op->getNumResults() != 1 || op->getNumOperands() == 0 ||
      type.getNumElements() > maxKnownElements)
    return result;
  bool counted = false;
  for (Value operand : op->getOperands()) {
    const Known *elements = known(operand);
    if (!elements)
      return result;
    counted |= elements->counted;
  }
  bool isFloat = isa<FloatType>(type.getElementType());
  // A rotary table or a position embedding: a value, not a size.
  if (counted && isFloat)
    return result;

  bool moves = onlyMoves(op);
  std::vector<HostTensor> operands;
  std::vector<std::pair<const Known *, size_t>> sources; // of element numbers
  for (auto [i, operand] : llvm::enumerate(op->getOperands())) {
    const Known &elements = *known(operand);
    HostTensor tensor(cast<RankedTensorType>(operand.getType()));
    bool numbered = moves && i < movedOperands(op);
    for (size_t j = 0; j < tensor.data.size(); ++j) {
      if (numbered) {
        tensor.data[j] = static_cast<double>(sources.size());
        sources.emplace_back(&elements, j);
      } else if (elements.floats.empty()) {
        if (elements.ints[j] > maxExact || elements.ints[j] < -maxExact)
          return result;
        tensor.data[j] = static_cast<double>(elements.ints[j]);
      } else {
        tensor.data[j] = elements.floats[j];
      }
    }
    operands.push_back(std::move(tensor));
  }

  SmallVector<HostTensor> results;
  {
    ScopedDiagnosticHandler quiet(context,
                                  [](Diagnostic &) { return success(); });
    if (mlir::failed(evaluable.evaluate(operands, results)) ||
        results.size() != 1)
      return result;
  }
  HostTensor &tensor = results.front();
  if (tensor.size() != type.getNumElements())
    return result;
  Known elements;
  elements.counted = counted;
  if (moves) {
    for (double number : tensor.data) {
      auto [source, j] = sources[static_cast<size_t>(number)];
      if (isFloat)
        elements.floats.push_back(source->floats[j]);
      else
        elements.ints.push_back(source->ints[j]);
    }
  } else {
    tensor.type = type;
    for (double value : tensor.data)
      if (!isFloat && !(std::abs(value) <= static_cast<double>(maxExact)))
        return result;
    tensor.roundToElementType();
    for (double value : tensor.data) {
      if (isFloat)
        elements.floats.push_back(value);
      else
        elements.ints.push_back(static_cast<int64_t>(value));
    }
  }
  if (counted) {
    setKnown(result, std::move(elements));
    return result;
  }
  DenseElementsAttr value = makeElements(type, elements);
  op->erase();
  return addConstant(value);
}
