//===- NodeImporter.cpp - What a node's importer works with ---------------===//

#include "NodeImporter.h"
#include "mlir/IR/Verifier.h"
#include "llvm/ADT/STLExtras.h"
#include "llvm/ADT/StringExtras.h"

using namespace mlir;
using namespace mlir::dshard;
using namespace mlir::dshard::onnx;

NodeImporter::NodeImporter(GraphImporter &graph, const pb::NodeProto &node,
                           std::string what, Location location,
                           std::string path)
    : graph(graph), node(node), what(std::move(what)), location(location),
      path(std::move(path)) {}

void NodeImporter::fail(const llvm::Twine &text) {
  graph.fail(what + ": " + text);
}

//===----------------------------------------------------------------------===//
// Inputs, outputs, attributes
//===----------------------------------------------------------------------===//

bool NodeImporter::expectInputs(int least, int most) {
  if (failed())
    return false;
  for (int i = 0; i < least; ++i)
    if (!hasInput(i)) {
      fail("input " + Twine(i) + " is missing; at least " + Twine(least) +
           (least == 1 ? " is needed" : " are needed"));
      return false;
    }
  for (int i = most; i < node.input_size(); ++i)
    if (hasInput(i)) {
      fail("has " + Twine(node.input_size()) + " inputs; at most " +
           Twine(most) + (most == 1 ? " is" : " are") + " supported");
      return false;
    }
  return true;
}

Value NodeImporter::input(int i) {
  return failed() || !hasInput(i) ? Value() : graph.lookup(node.input(i));
}

void NodeImporter::set(int i, Value value) {
  if (failed() || !hasOutput(i) || !value)
    return;
  graph.define(node.output(i), value);
}

void NodeImporter::expectNoOtherAttributes() {
  // How precisely to compute, and what only types that are refused have.
  static constexpr llvm::StringLiteral harmless[] = {"consumed_inputs",
                                                     "qk_matmul_output_mode",
                                                     "ratio",
                                                     "round_mode",
                                                     "saturate",
                                                     "seed",
                                                     "softmax_precision"};
  for (const pb::AttributeProto &attribute : node.attribute())
    if (!asked.contains(attribute.name()) &&
        !llvm::is_contained(harmless, StringRef(attribute.name())))
      return fail("attribute " + quote(attribute.name()) +
                  " is not supported in opset " + Twine(opset()));
}

const pb::AttributeProto *NodeImporter::find(StringRef name) const {
  asked.insert(name);
  for (const pb::AttributeProto &attribute : node.attribute())
    if (attribute.name() == name)
      return &attribute;
  return nullptr;
}

const pb::AttributeProto *NodeImporter::find(StringRef name, int type) {
  const pb::AttributeProto *attribute = find(name);
  if (!attribute)
    return nullptr;
  if (!attribute->ref_attr_name().empty()) {
    fail("attribute " + quote(name) +
         " refers to a function's attribute outside of a function");
    return nullptr;
  }
  // Old producers leave the type out.
  if (attribute->type() == type ||
      attribute->type() == pb::AttributeProto::UNDEFINED)
    return attribute;
  auto text = [](int kind) {
    return pb::AttributeProto::AttributeType_Name(
        static_cast<pb::AttributeProto::AttributeType>(kind));
  };
  fail("attribute " + quote(name) + " has type " + text(attribute->type()) +
       "; " + text(type) + " is needed");
  return nullptr;
}

int64_t NodeImporter::intAttr(StringRef name, int64_t otherwise) {
  const auto *attribute = find(name, pb::AttributeProto::INT);
  return attribute ? attribute->i() : otherwise;
}
int64_t NodeImporter::intAttr(StringRef name) {
  const auto *attribute = find(name, pb::AttributeProto::INT);
  if (!attribute)
    fail("attribute " + quote(name) + " is missing");
  return attribute ? attribute->i() : 0;
}
double NodeImporter::floatAttr(StringRef name, double otherwise) {
  const auto *attribute = find(name, pb::AttributeProto::FLOAT);
  return attribute ? attribute->f() : otherwise;
}
std::string NodeImporter::stringAttr(StringRef name, StringRef otherwise) {
  const auto *attribute = find(name, pb::AttributeProto::STRING);
  return attribute ? attribute->s() : otherwise.str();
}
std::optional<std::vector<int64_t>> NodeImporter::intsAttr(StringRef name) {
  const auto *attribute = find(name, pb::AttributeProto::INTS);
  if (!attribute)
    return std::nullopt;
  return std::vector<int64_t>(attribute->ints().begin(),
                              attribute->ints().end());
}

//===----------------------------------------------------------------------===//
// Values
//===----------------------------------------------------------------------===//

RankedTensorType NodeImporter::typeOf(Value value) const {
  return value ? mlir::cast<RankedTensorType>(value.getType())
               : RankedTensorType();
}
ArrayRef<int64_t> NodeImporter::shape(Value value) const {
  return value ? typeOf(value).getShape() : ArrayRef<int64_t>();
}
Type NodeImporter::elementOf(Value value) const {
  return value ? typeOf(value).getElementType() : Type();
}

int64_t NodeImporter::axis(int64_t axis, int64_t rank) {
  if (failed())
    return 0;
  if (axis < -rank || axis >= rank) {
    fail("axis " + Twine(axis) + " is out of range for a tensor of " +
         Twine(rank) + " dims");
    return 0;
  }
  return axis < 0 ? axis + rank : axis;
}

std::vector<int64_t> NodeImporter::axes(ArrayRef<int64_t> list, int64_t rank) {
  std::vector<int64_t> result;
  for (int64_t entry : list)
    result.push_back(axis(entry, rank));
  llvm::sort(result);
  if (auto twice = std::adjacent_find(result.begin(), result.end());
      !failed() && twice != result.end())
    fail("axis " + Twine(*twice) + " is given twice");
  return result;
}

std::optional<std::vector<int64_t>> NodeImporter::knownInts(Value value) const {
  const Known *elements = value ? graph.known(value) : nullptr;
  if (!elements || isa<FloatType>(elementOf(value)))
    return std::nullopt;
  return elements->ints;
}

std::vector<int64_t> NodeImporter::staticInts(int i, StringRef what) {
  const Known *known = staticElements(i, what, /*floats=*/false);
  return known ? known->ints : std::vector<int64_t>();
}

std::vector<double> NodeImporter::staticFloats(int i, StringRef what) {
  const Known *known = staticElements(i, what, /*floats=*/true);
  return known ? known->floats : std::vector<double>();
}

const Known *NodeImporter::staticElements(int i, StringRef what, bool floats) {
  Value value = input(i);
  if (!value)
    return nullptr;
  if (isa<FloatType>(elementOf(value)) != floats) {
    fail("input " + Twine(i) + " (" + what + ") must hold " +
         (floats ? "floats" : "integers"));
    return nullptr;
  }
  if (const Known *elements = graph.known(value))
    return elements;
  fail("input " + Twine(i) + " (" + what + ") " + quote(node.input(i)) +
       " is not known at compile time; it must follow from constants and "
       "shapes (--const gives an input a value)");
  return nullptr;
}

std::optional<double> NodeImporter::knownScalar(Value value) const {
  const Known *elements = value ? graph.known(value) : nullptr;
  if (!elements)
    return std::nullopt;
  if (elements->floats.size() == 1)
    return elements->floats[0];
  if (elements->ints.size() == 1)
    return static_cast<double>(elements->ints[0]);
  return std::nullopt;
}

//===----------------------------------------------------------------------===//
// Building
//===----------------------------------------------------------------------===//

RankedTensorType NodeImporter::type(ArrayRef<int64_t> shape, Type element) {
  if (failed() || !element)
    return {};
  auto result = makeTensorType(shape, element);
  if (!result) {
    fail("its result " + result.status().message());
    return {};
  }
  return *result;
}

Value NodeImporter::buildNamed(StringRef name, TypeRange results,
                               ValueRange operands,
                               ArrayRef<NamedAttribute> attributes) {
  if (failed() || !llvm::all_of(operands, [](Value v) { return !!v; }))
    return {};
  OpBuilder &builder = graph.builder();
  auto isEmpty = [](Type type) {
    return mlir::cast<RankedTensorType>(type).getNumElements() == 0;
  };
  // Kernels see no tensor without elements: what would compute one is a
  // constant, and what reads one is decided by its importer.
  if (llvm::all_of(results, isEmpty))
    return empty(mlir::cast<RankedTensorType>(results.front()));
  if (llvm::any_of(operands.getTypes(), isEmpty)) {
    fail("computes from a tensor without elements, which is not supported");
    return {};
  }
  OperationState state(location, name);
  state.addTypes(results);
  state.addOperands(operands);
  state.addAttributes(attributes);
  state.addAttribute("path", builder.getStringAttr(path));
  state.addAttribute("part",
                     PartAttr::get(builder.getContext(), Part::forward));
  Operation *op = builder.create(state);
  // What no importer function checked, the op's own verifier does: nothing
  // unsound may reach its evaluation.
  std::string problem;
  {
    ScopedDiagnosticHandler collect(builder.getContext(),
                                    [&](Diagnostic &diagnostic) {
                                      if (problem.empty())
                                        problem = diagnostic.str();
                                      return success();
                                    });
    if (succeeded(verify(op)))
      problem.clear();
    else if (problem.empty())
      problem = "makes an unsound op";
  }
  if (!problem.empty()) {
    fail(problem);
    return {};
  }
  return graph.fold(op);
}

Value NodeImporter::buildAttention(RankedTensorType result,
                                   RankedTensorType logSumExp,
                                   ValueRange operands,
                                   ArrayRef<NamedAttribute> attributes) {
  if (!result || !logSumExp)
    return {};
  // query, key, value, then at most the padding: an offset per rank is local.
  SmallVector<NamedAttribute> all(attributes);
  all.push_back(attr(AttentionOp::getOperandSegmentSizeAttr(),
                     graph.builder().getDenseI32ArrayAttr(
                         {1, 1, 1, operands.size() > 3 ? 1 : 0, 0, 0})));
  return buildNamed(AttentionOp::getOperationName(), {result, logSumExp},
                    operands, all);
}

NamedAttribute NodeImporter::attr(StringRef name, Attribute value) const {
  return graph.builder().getNamedAttr(name, value);
}
NamedAttribute NodeImporter::attr(StringRef name, int64_t value) const {
  return attr(name, graph.builder().getI64IntegerAttr(value));
}
NamedAttribute NodeImporter::attr(StringRef name, double value) const {
  return attr(name, graph.builder().getF64FloatAttr(value));
}
NamedAttribute NodeImporter::attr(StringRef name, ArrayRef<int64_t> v) const {
  return attr(name, graph.builder().getDenseI64ArrayAttr(v));
}
NamedAttribute NodeImporter::unit(StringRef name) const {
  return attr(name, graph.builder().getUnitAttr());
}

RankedTensorType NodeImporter::broadcastType(ValueRange operands,
                                             Type element) {
  if (failed() || !llvm::all_of(operands, [](Value v) { return !!v; }))
    return {};
  SmallVector<int64_t> result;
  for (Value operand : operands) {
    ArrayRef<int64_t> dims = shape(operand);
    if (dims.size() > result.size())
      result.insert(result.begin(), dims.size() - result.size(), 1);
    size_t lead = result.size() - dims.size();
    for (auto [i, size] : llvm::enumerate(dims)) {
      int64_t &other = result[lead + i];
      if (size == other || size == 1)
        continue;
      if (other != 1) {
        std::string shapes;
        for (Value each : operands)
          shapes += (shapes.empty() ? "[" : " and [") +
                    llvm::join(llvm::map_range(
                                   shape(each),
                                   [](int64_t s) { return std::to_string(s); }),
                               ",") +
                    "]";
        fail("shapes " + shapes + " do not broadcast: " + Twine(other) +
             " != " + Twine(size));
        return {};
      }
      other = size;
    }
  }
  return type(result, element ? element : elementOf(operands.front()));
}

Value NodeImporter::compare(ComparePredicate predicate, Value lhs, Value rhs) {
  OpBuilder &builder = graph.builder();
  return pointwise<CompareOp>(
      {lhs, rhs}, builder.getI1Type(),
      attr("predicate",
           ComparePredicateAttr::get(builder.getContext(), predicate)));
}

Value NodeImporter::splat(RankedTensorType type, double value) {
  if (failed() || !type)
    return {};
  if (!isa<FloatType>(type.getElementType()) &&
      !(std::abs(value) < std::ldexp(1.0, 63))) {
    fail("needs " + std::to_string(value) + " as an integer");
    return {};
  }
  Attribute element;
  if (auto floating = dyn_cast<FloatType>(type.getElementType()))
    element = FloatAttr::get(floating, value);
  else
    element =
        IntegerAttr::get(type.getElementType(), static_cast<int64_t>(value));
  return constant(DenseElementsAttr::get(type, element));
}

Value NodeImporter::scalar(Type element, double value) {
  return splat(type({}, element), value);
}

Value NodeImporter::ints(ArrayRef<int64_t> values) {
  auto result =
      type({static_cast<int64_t>(values.size())}, graph.builder().getI64Type());
  return result ? constant(DenseElementsAttr::get(result, values)) : Value();
}

Value NodeImporter::floats(ArrayRef<double> values, Type element) {
  if (!failed() && !isa<FloatType>(element))
    fail("the input must hold floating-point numbers");
  if (failed())
    return {};
  Known known;
  known.floats.assign(values.begin(), values.end());
  auto size = static_cast<int64_t>(values.size());
  return constant(
      graph.makeElements(RankedTensorType::get({size}, element), known));
}

Value NodeImporter::cast(Value value, Type element) {
  if (!value || !element || elementOf(value) == element)
    return value;
  return build<CastOp>(type(shape(value), element), value);
}

Value NodeImporter::reshape(Value value, ArrayRef<int64_t> to) {
  if (!value || shape(value) == to)
    return value;
  RankedTensorType result = type(to, elementOf(value));
  if (result && result.getNumElements() != typeOf(value).getNumElements())
    fail("cannot reshape " + Twine(typeOf(value).getNumElements()) +
         " elements into " + Twine(result.getNumElements()));
  return build<ReshapeOp>(result, value);
}

Value NodeImporter::transpose(Value value, ArrayRef<int64_t> permutation) {
  if (!value || llvm::is_sorted(permutation))
    return value;
  SmallVector<int64_t> result;
  for (int64_t dim : permutation)
    result.push_back(shape(value)[dim]);
  return build<TransposeOp>(type(result, elementOf(value)), value,
                            attr("permutation", permutation));
}

Value NodeImporter::flatten(Value value, int64_t axis) {
  int64_t sizes[2] = {1, 1};
  for (auto [i, size] : llvm::enumerate(shape(value)))
    sizes[static_cast<int64_t>(i) >= axis] *= size;
  return reshape(value, sizes);
}

Value NodeImporter::pad(Value value, ArrayRef<int64_t> low,
                        ArrayRef<int64_t> high, double fill) {
  if (!value)
    return value;
  SmallVector<int64_t> padded;
  for (auto [size, before, after] : llvm::zip_equal(shape(value), low, high))
    padded.push_back(size + before + after);
  if (shape(value) == ArrayRef<int64_t>(padded))
    return value;
  RankedTensorType result = type(padded, elementOf(value));
  if (typeOf(value).getNumElements() == 0)
    return splat(result, fill);
  return build<PadOp>(
      result, value,
      {attr("low", low), attr("high", high), attr("value", fill)});
}

Value NodeImporter::empty(RankedTensorType type) {
  return constant(graph.makeElements(type, Known()));
}

Value NodeImporter::transposeLast(Value value) {
  if (!value)
    return value;
  auto permutation = llvm::to_vector(llvm::seq<int64_t>(0, rank(value)));
  std::swap(permutation[permutation.size() - 1],
            permutation[permutation.size() - 2]);
  return transpose(value, permutation);
}

Value NodeImporter::broadcastTo(Value value, ArrayRef<int64_t> to) {
  if (!value || shape(value) == to)
    return value;
  return build<BroadcastToOp>(type(to, elementOf(value)), value);
}

Value NodeImporter::slice(Value value, ArrayRef<int64_t> starts,
                          ArrayRef<int64_t> sizes, ArrayRef<int64_t> strides) {
  bool isWhole = value && shape(value) == sizes &&
                 llvm::all_of(strides, [](int64_t s) { return s == 1; });
  if (!value || isWhole)
    return value;
  return build<SliceOp>(type(sizes, elementOf(value)), value,
                        {attr("starts", starts), attr("strides", strides)});
}

Value NodeImporter::part(Value value, int64_t dim, int64_t start,
                         int64_t size) {
  if (!value)
    return value;
  SmallVector<int64_t> starts(rank(value), 0), strides(rank(value), 1);
  SmallVector<int64_t> sizes(shape(value));
  starts[dim] = start;
  sizes[dim] = size;
  return slice(value, starts, sizes, strides);
}

Value NodeImporter::concat(ValueRange values, int64_t dim) {
  if (failed() || !llvm::all_of(values, [](Value v) { return !!v; }))
    return {};
  if (values.size() == 1)
    return values.front();
  SmallVector<int64_t> result(shape(values.front()));
  result[dim] = 0;
  SmallVector<Value> parts; // those with elements
  for (Value value : values) {
    result[dim] += shape(value)[dim];
    if (typeOf(value).getNumElements() > 0)
      parts.push_back(value);
  }
  if (parts.size() == 1)
    return parts.front();
  if (!parts.empty())
    values = parts;
  return build<ConcatOp>(type(result, elementOf(values.front())), values,
                         attr("dim", dim));
}

Value NodeImporter::gather(Value value, Value indices, int64_t dim) {
  if (!value || !indices)
    return {};
  SmallVector<int64_t> result(shape(value).take_front(dim));
  llvm::append_range(result, shape(indices));
  llvm::append_range(result, shape(value).drop_front(dim + 1));
  return build<GatherOp>(type(result, elementOf(value)), {value, indices},
                         attr("dim", dim));
}

/// What a reduction of no elements gives: the least number for max, and so on.
Value NodeImporter::splatOfNothing(RankedTensorType type, ReductionKind kind) {
  if (kind == ReductionKind::mean)
    return splat(type, std::numeric_limits<double>::quiet_NaN());
  auto integer = dyn_cast<IntegerType>(type.getElementType());
  bool extreme = kind == ReductionKind::max || kind == ReductionKind::min;
  if (!integer || !extreme)
    return splat(type, getReductionIdentity(kind));
  unsigned width = integer.getWidth();
  bool isSigned = !integer.isUnsigned() && width > 1;
  APInt number = kind == ReductionKind::max
                     ? (isSigned ? APInt::getSignedMinValue(width)
                                 : APInt::getMinValue(width))
                     : (isSigned ? APInt::getSignedMaxValue(width)
                                 : APInt::getMaxValue(width));
  return constant(DenseElementsAttr::get(type, number));
}

Value NodeImporter::reduce(ReductionKind kind, Value value,
                           ArrayRef<int64_t> dims, bool keepDims) {
  if (!value || dims.empty())
    return value;
  SmallVector<int64_t> result;
  for (auto [i, size] : llvm::enumerate(shape(value)))
    if (!llvm::is_contained(dims, static_cast<int64_t>(i)))
      result.push_back(size);
    else if (keepDims)
      result.push_back(1);
  if (typeOf(value).getNumElements() == 0) {
    RankedTensorType none = type(result, elementOf(value));
    if (!none || none.getNumElements() == 0)
      return none ? empty(none) : Value();
    return splatOfNothing(none, kind);
  }
  SmallVector<NamedAttribute> attributes = {
      attr("kind", ReductionKindAttr::get(graph.builder().getContext(), kind)),
      attr("dims", dims)};
  if (keepDims)
    attributes.push_back(unit("keep_dims"));
  return build<ReduceOp>(type(result, elementOf(value)), value, attributes);
}

Value NodeImporter::matmul(Value lhs, Value rhs, bool transposeLhs,
                           bool transposeRhs) {
  if (!lhs || !rhs)
    return {};
  auto matrix = [&](Value value, bool transposed) {
    ArrayRef<int64_t> dims = shape(value).take_back(2);
    return transposed ? std::pair(dims[1], dims[0])
                      : std::pair(dims[0], dims[1]);
  };
  auto [m, k] = matrix(lhs, transposeLhs);
  auto [k2, n] = matrix(rhs, transposeRhs);
  if (k != k2) {
    fail("contracted sizes differ: " + Twine(k) + " != " + Twine(k2));
    return {};
  }
  SmallVector<int64_t> result(shape(lhs).drop_back(2));
  ArrayRef<int64_t> batch = shape(rhs).drop_back(2);
  if (batch.size() > result.size())
    result.insert(result.begin(), batch.size() - result.size(), 1);
  for (auto [i, size] : llvm::enumerate(batch)) {
    int64_t &other = result[result.size() - batch.size() + i];
    if (size != other && size != 1 && other != 1) {
      fail("batch dims do not broadcast: " + Twine(other) +
           " != " + Twine(size));
      return {};
    }
    other = other == 1 ? size : other;
  }
  result.push_back(m);
  result.push_back(n);
  if (k == 0) // sums of nothing
    return splat(type(result, elementOf(lhs)), 0);
  SmallVector<NamedAttribute> flags;
  if (transposeLhs)
    flags.push_back(unit("transpose_lhs"));
  if (transposeRhs)
    flags.push_back(unit("transpose_rhs"));
  return build<MatMulOp>(type(result, elementOf(lhs)), {lhs, rhs}, flags);
}

Value NodeImporter::iota(ArrayRef<int64_t> to, Type element, int64_t dim,
                         double start, double step) {
  RankedTensorType result = type(to, element);
  Value value = build<IotaOp>(
      result, {}, {attr("dim", dim), attr("start", start), attr("step", step)});
  if (!value || isa<FloatType>(element) ||
      result.getNumElements() > maxKnownElements)
    return value;
  Known elements;
  elements.counted = true;
  int64_t inner = 1;
  for (int64_t size : to.drop_front(dim + 1))
    inner *= size;
  for (int64_t i = 0; i < result.getNumElements(); ++i)
    elements.ints.push_back(
        static_cast<int64_t>(start + step * (i / inner % to[dim])));
  graph.setKnown(value, std::move(elements));
  return value;
}
