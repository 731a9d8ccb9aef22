//===- NodeImporter.h - What a node's importer works with -------*- C++ -*-===//
//
// The importer of an op is a function that reads inputs and attributes from a
// NodeImporter, builds dshard ops and sets outputs:
//
//   void onnx::importSqrt(NodeImporter &n) {
//     n.set(0, n.pointwise<SqrtOp>({n.input(0)}));
//   }
//
// Errors are sticky: `fail` reports the first one of the whole import and makes
// every later call a no-op that gives a null value, an empty shape or a
// default. So a straight line of calls needs no checks; only code that indexes
// into shapes asks `failed()` first.
//
// Values whose elements are known (Fold.cpp) are folded as they are built,
// which evaluates shape arithmetic. `knownInts` reads them.
//
//===----------------------------------------------------------------------===//
#ifndef DSHARD_LIB_IMPORT_NODEIMPORTER_H
#define DSHARD_LIB_IMPORT_NODEIMPORTER_H

#include "GraphImporter.h"
#include "Weights.h"
#include "dshard/Dialect/DShard/IR/DShardOps.h"
#include "llvm/ADT/StringSet.h"

namespace mlir::dshard::onnx {

class NodeImporter {
public:
  /// `what` is "node 'x' (Op)".
  NodeImporter(GraphImporter &graph, const pb::NodeProto &node,
               std::string what, Location location, std::string path);

  //===--- errors ---------------------------------------------------------===//
  /// Reports "model.onnx: node 'x' (Op): text".
  void fail(const llvm::Twine &text);
  bool failed() const { return graph.failed(); }
  /// "node 'x' (Op)".
  llvm::StringRef describe() const { return what; }

  //===--- inputs, outputs ------------------------------------------------===//
  /// Fails unless there are at least `least` leading inputs, none left out, and
  /// at most `most`.
  bool expectInputs(int least, int most);
  int numInputs() const { return node.input_size(); }
  int numOutputs() const { return node.output_size(); }
  bool hasInput(int i) const {
    return i < node.input_size() && !node.input(i).empty();
  }
  bool hasOutput(int i) const {
    return i < node.output_size() && !node.output(i).empty();
  }
  /// Null if left out.
  Value input(int i);
  void set(int i, Value value);
  /// Null if the input is an ordinary value.
  const Segment *segment(int i) const {
    auto found =
        hasInput(i) ? graph.segments.find(node.input(i)) : graph.segments.end();
    return found == graph.segments.end() ? nullptr : &found->second;
  }
  int64_t opset() const { return graph.opset(); }

  //===--- attributes: a wrong type fails ---------------------------------===//
  int64_t intAttr(llvm::StringRef name, int64_t otherwise);
  /// One that must be there.
  int64_t intAttr(llvm::StringRef name);
  double floatAttr(llvm::StringRef name, double otherwise);
  std::string stringAttr(llvm::StringRef name, llvm::StringRef otherwise);
  std::optional<std::vector<int64_t>> intsAttr(llvm::StringRef name);
  const pb::AttributeProto *find(llvm::StringRef name) const;
  /// Fails if the node has an attribute that nobody asked for: an older or
  /// newer form of the op may mean something else by it.
  void expectNoOtherAttributes();
  const pb::NodeProto &proto() const { return node; }

  //===--- values ---------------------------------------------------------===//
  RankedTensorType typeOf(Value value) const;
  llvm::ArrayRef<int64_t> shape(Value value) const;
  int64_t rank(Value value) const { return shape(value).size(); }
  Type elementOf(Value value) const;
  /// Counts a negative axis from the end; fails out of [-rank, rank).
  int64_t axis(int64_t axis, int64_t rank);
  std::vector<int64_t> axes(llvm::ArrayRef<int64_t> axes, int64_t rank);
  /// The elements, if they follow from constants and shapes.
  std::optional<std::vector<int64_t>> knownInts(Value value) const;
  /// knownInts of an input, or a failure that names it.
  std::vector<int64_t> staticInts(int i, llvm::StringRef what);
  /// The same of an input of floats.
  std::vector<double> staticFloats(int i, llvm::StringRef what);
  std::optional<double> knownScalar(Value value) const;

  //===--- building -------------------------------------------------------===//
  /// Null (and a failure) for a shape that cannot be.
  RankedTensorType type(llvm::ArrayRef<int64_t> shape, Type element);
  template <typename OpTy>
  Value build(RankedTensorType result, ValueRange operands,
              llvm::ArrayRef<NamedAttribute> attributes = {}) {
    return result ? buildNamed(OpTy::getOperationName(), result, operands,
                               attributes)
                  : Value();
  }
  /// dshard.attention has a second result.
  Value buildAttention(RankedTensorType result, RankedTensorType logSumExp,
                       ValueRange operands,
                       llvm::ArrayRef<NamedAttribute> attributes);
  NamedAttribute attr(llvm::StringRef name, Attribute value) const;
  NamedAttribute attr(llvm::StringRef name, int64_t value) const;
  NamedAttribute attr(llvm::StringRef name, double value) const;
  NamedAttribute attr(llvm::StringRef name, llvm::ArrayRef<int64_t> v) const;
  NamedAttribute unit(llvm::StringRef name) const;

  /// Numpy broadcasting; the element type is the first operand's, or `element`.
  template <typename OpTy>
  Value pointwise(ValueRange operands, Type element = {},
                  llvm::ArrayRef<NamedAttribute> attributes = {}) {
    return build<OpTy>(broadcastType(operands, element), operands, attributes);
  }
  Value compare(ComparePredicate predicate, Value lhs, Value rhs);
  Value constant(DenseElementsAttr value) { return graph.addConstant(value); }
  /// A scalar constant.
  Value scalar(Type element, double value);
  Value splat(RankedTensorType type, double value);
  Value ints(llvm::ArrayRef<int64_t> values);
  Value floats(llvm::ArrayRef<double> values, Type element);
  Value cast(Value value, Type element);
  Value reshape(Value value, llvm::ArrayRef<int64_t> shape);
  Value transpose(Value value, llvm::ArrayRef<int64_t> permutation);
  /// [dims before axis, dims from axis on].
  Value flatten(Value value, int64_t axis);
  /// Swaps the last two dims.
  Value transposeLast(Value value);
  /// One-directional.
  Value broadcastTo(Value value, llvm::ArrayRef<int64_t> shape);
  Value slice(Value value, llvm::ArrayRef<int64_t> starts,
              llvm::ArrayRef<int64_t> sizes, llvm::ArrayRef<int64_t> strides);
  /// Contiguous part of one dim.
  Value part(Value value, int64_t dim, int64_t start, int64_t size);
  Value concat(ValueRange values, int64_t dim);
  /// `low` and `high` are not negative.
  Value pad(Value value, llvm::ArrayRef<int64_t> low,
            llvm::ArrayRef<int64_t> high, double fill);
  Value gather(Value value, Value indices, int64_t dim);
  Value reduce(ReductionKind kind, Value value, llvm::ArrayRef<int64_t> dims,
               bool keepDims);
  Value matmul(Value lhs, Value rhs, bool transposeLhs, bool transposeRhs);
  /// A tensor without elements.
  Value empty(RankedTensorType type);
  /// 0, 1, 2, ... along `dim` of a shape.
  Value iota(llvm::ArrayRef<int64_t> shape, Type element, int64_t dim,
             double start = 0, double step = 1);

  GraphImporter &graph;

private:
  Value buildNamed(llvm::StringRef name, TypeRange results, ValueRange operands,
                   llvm::ArrayRef<NamedAttribute> attributes);
  /// Null and a failure if the input's elements are not known.
  const Known *staticElements(int i, llvm::StringRef what, bool floats);
  Value splatOfNothing(RankedTensorType type, ReductionKind kind);
  RankedTensorType broadcastType(ValueRange operands, Type element);
  const pb::AttributeProto *find(llvm::StringRef name, int type);

  const pb::NodeProto &node;
  std::string what;
  Location location;
  std::string path;
  mutable llvm::StringSet<> asked; ///< names of attributes
};

/// Pads with the elements of x: `mode` is edge, wrap or reflect.
Value padWithItself(NodeImporter &n, Value x, llvm::StringRef mode,
                    llvm::ArrayRef<int64_t> low, llvm::ArrayRef<int64_t> high);

/// Of a Range whose bounds are data, and of any op that reads a segment.
void importSegmentRange(NodeImporter &n);
void importSegmentOp(NodeImporter &n);

/// Whether all elements are known to be `number`.
bool isAll(NodeImporter &n, Value value, double number);
/// The group of each row, ascending, if limits[e] is the number of rows of the
/// groups up to e, counted from those; else null.
Value findGroups(NodeImporter &n, llvm::ArrayRef<Value> limits);
/// The inverse of the permutation `indices`, if `updates` are 0, 1, ...: what
/// updates at these places of anything give. Else null.
Value findPlaces(NodeImporter &n, Value indices, Value updates);
/// x[indices] where that puts rows back that were sorted, computed row by row,
/// and nothing else was done with them: the same without a sort. Else null.
Value unsortRows(NodeImporter &n, Value x, Value indices);

/// An op's importer.
using ImportFunction = void (*)(NodeImporter &);

#define DSHARD_ONNX_OP(name, function) void function(NodeImporter &);
#define DSHARD_ONNX_DOMAIN_OP(domain, name, function)                          \
  void function(NodeImporter &);
#include "Operators.def"

} // namespace mlir::dshard::onnx

#endif // DSHARD_LIB_IMPORT_NODEIMPORTER_H
