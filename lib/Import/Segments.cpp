//===- Segments.cpp - Groups of rows whose counts are data ----------------===//
//
// A mixture of experts sorts its tokens by expert and multiplies each group
// with the matrix of its expert:
//
//   %i = Range(%start, %limit, 1)   ; bounds are counted at run time
//   %r = Gather(%tokens, %i)        ; the rows [start, limit)
//   %p = MatMul(%r, %expert)
//   %all = Concat(%p of all experts, axis = 0)
//
// Sizes are static here: the concatenation is one grouped_matmul of all rows,
// each with the matrix of its segment. The segments follow each other from row
// 0 and are taken to cover all rows, as the file's own shape of the
// concatenation says. Where the bounds are counted from sorted experts, those
// are the groups.
//
//===----------------------------------------------------------------------===//

#include "NodeImporter.h"

using namespace mlir;
using namespace mlir::dshard;
using namespace mlir::dshard::onnx;

static bool isScalar(NodeImporter &n, Value value) {
  return value && n.typeOf(value).getNumElements() == 1;
}

void onnx::importSegmentRange(NodeImporter &n) {
  Value start = n.input(0), limit = n.input(1), delta = n.input(2);
  if (n.failed())
    return;
  std::optional<double> step = n.knownScalar(delta);
  if (!isa<IntegerType>(n.elementOf(limit)) || !step || *step != 1 ||
      !isScalar(n, start) || !isScalar(n, limit))
    return n.fail(
        "its bounds are not known at compile time, which is supported "
        "only for groups of rows: whole numbers with a delta of 1");
  n.graph.segments[n.proto().output(0)] = {Value(), start, limit, Value()};
}

/// The matrices one behind the other: the tensor that they are slices of, or
/// stacked.
static Value stackMatrices(NodeImporter &n, ArrayRef<const Segment *> parts) {
  Value whole;
  SmallVector<Value> stack;
  for (auto [i, part] : llvm::enumerate(parts)) {
    SmallVector<int64_t> shape(n.shape(part->matrix));
    shape.insert(shape.begin(), 1);
    stack.push_back(part->matrix);
    while (auto reshape = stack[i].getDefiningOp<ReshapeOp>())
      stack[i] = reshape.getInput();
    auto slice = stack[i].getDefiningOp<SliceOp>();
    stack[i] = n.reshape(part->matrix, shape);
    shape[0] = parts.size();
    bool isNext = slice && n.shape(slice.getInput()) == ArrayRef(shape) &&
                  slice.getStarts() ==
                      ArrayRef<int64_t>({static_cast<int64_t>(i), 0, 0}) &&
                  (i == 0 || slice.getInput() == whole);
    whole = isNext ? slice.getInput() : Value();
  }
  return whole ? whole : n.concat(stack, 0);
}

/// The group of row r: how many of the segments before the last end at or
/// before it.
static Value countGroups(NodeImporter &n, ArrayRef<Value> limits,
                         int64_t rows) {
  Type i64 = n.graph.builder().getI64Type();
  SmallVector<Value> ends;
  for (Value limit : limits.drop_back())
    ends.push_back(n.cast(n.reshape(limit, {1, 1}), i64));
  if (ends.empty())
    return n.splat(n.type({rows}, i64), 0);
  Value passed = n.compare(ComparePredicate::ge, n.iota({rows, 1}, i64, 0),
                           n.concat(ends, 1));
  return n.reduce(ReductionKind::sum, n.cast(passed, i64), {1}, false);
}

/// Rows of all segments, which follow each other.
static void concatSegments(NodeImporter &n) {
  SmallVector<const Segment *> parts;
  SmallVector<Value> limits;
  int64_t axis = n.intAttr("axis", 0);
  for (int i = 0; i < n.numInputs(); ++i) {
    const Segment *part = n.segment(i);
    if (!part || !part->rows)
      return n.fail("input " + Twine(i) + " is no group of rows as the others");
    parts.push_back(part);
    limits.push_back(part->limit);
  }
  const Segment &first = *parts.front();
  std::optional<double> start = n.knownScalar(first.start);
  if (axis != 0 || !start || *start != 0)
    return n.fail("groups of rows are supported only one after the other from "
                  "row 0 on, along axis 0");
  for (size_t i = 1; i < parts.size(); ++i)
    if (parts[i]->start != parts[i - 1]->limit ||
        parts[i]->rows != first.rows || !parts[i]->matrix != !first.matrix ||
        (first.matrix && parts[i]->matrix.getType() != first.matrix.getType()))
      return n.fail("input " + Twine(i) +
                    " does not continue the rows of the one before");
  if (!first.matrix)
    return n.set(0, first.rows);
  int64_t rows = n.shape(first.rows)[0];
  Value groups = findGroups(n, limits);
  if (!groups || n.typeOf(groups).getNumElements() != rows)
    groups = countGroups(n, limits, rows);
  n.set(0,
        n.build<GroupedMatMulOp>(
            n.type({rows, n.shape(first.matrix)[1]}, n.elementOf(first.rows)),
            {first.rows, stackMatrices(n, parts), n.reshape(groups, {rows})}));
}

void onnx::importSegmentOp(NodeImporter &n) {
  StringRef op = n.proto().op_type();
  auto output = [&](Segment of, Value rows, Value matrix = Value()) {
    if (!n.failed())
      n.graph.segments[n.proto().output(0)] = {rows, of.start, of.limit,
                                               matrix};
  };
  const Segment *lhs = n.segment(0);
  if (op == "Gather" && !lhs && n.segment(1) && !n.segment(1)->rows &&
      n.intAttr("axis", 0) == 0)
    return output(*n.segment(1), n.input(0));
  if (op == "MatMul" && lhs && lhs->rows && !lhs->matrix && !n.segment(1)) {
    Value rhs = n.input(1);
    if (!n.failed() && n.rank(lhs->rows) == 2 && n.rank(rhs) == 2 &&
        n.shape(lhs->rows)[1] == n.shape(rhs)[0] &&
        n.elementOf(lhs->rows) == n.elementOf(rhs))
      return output(*lhs, lhs->rows, rhs);
  }
  if (op == "Concat")
    return concatSegments(n);
  n.fail("an input has a size that depends on data; of such groups of rows "
         "only Gather, MatMul with a matrix and Concat are supported");
}
