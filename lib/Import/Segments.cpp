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
// Sizes are static here: a segment keeps all rows, and the concatenation takes
// each row from its segment. The segments follow each other from row 0 and are
// taken to cover all rows, as the file's own shape of the concatenation says.
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
  n.graph.segments[n.proto().output(0)] = {Value(), start, limit};
}

/// Rows of all segments: row r of the first one with r < limit.
static void concatSegments(NodeImporter &n) {
  SmallVector<const Segment *> parts;
  int64_t axis = n.intAttr("axis", 0);
  for (int i = 0; i < n.numInputs(); ++i) {
    const Segment *part = n.segment(i);
    if (!part || !part->rows)
      return n.fail("input " + Twine(i) + " is no group of rows as the others");
    parts.push_back(part);
  }
  Value first = parts.front()->rows;
  std::optional<double> start = n.knownScalar(parts.front()->start);
  if (axis != 0 || !start || *start != 0)
    return n.fail("groups of rows are supported only one after the other from "
                  "row 0 on, along axis 0");
  for (size_t i = 1; i < parts.size(); ++i)
    if (parts[i]->start != parts[i - 1]->limit ||
        parts[i]->rows.getType() != first.getType())
      return n.fail("input " + Twine(i) +
                    " does not continue the rows of the one before");
  Value result = parts.back()->rows;
  SmallVector<int64_t> column(n.rank(first), 1);
  column[0] = n.shape(first)[0];
  Type type = n.elementOf(parts.front()->limit);
  Value row = n.iota(column, type, 0);
  SmallVector<int64_t> ones(n.rank(first), 1);
  for (size_t i = parts.size() - 1; i-- > 0;)
    result = n.pointwise<SelectOp>(
        {n.compare(ComparePredicate::lt, row, n.reshape(parts[i]->limit, ones)),
         parts[i]->rows, result},
        n.elementOf(first));
  n.set(0, result);
}

void onnx::importSegmentOp(NodeImporter &n) {
  StringRef op = n.proto().op_type();
  auto output = [&](const Segment &of, Value rows) {
    if (!n.failed())
      n.graph.segments[n.proto().output(0)] = {rows, of.start, of.limit};
  };
  const Segment *lhs = n.segment(0);
  if (op == "Gather" && !lhs && n.segment(1) && !n.segment(1)->rows &&
      n.intAttr("axis", 0) == 0)
    return output(*n.segment(1), n.input(0));
  if (op == "MatMul" && lhs && lhs->rows && !n.segment(1)) {
    Value rhs = n.input(1);
    if (!n.failed() && n.rank(lhs->rows) == 2 && n.rank(rhs) == 2)
      return output(*lhs, n.matmul(lhs->rows, rhs, false, false));
  }
  if (op == "Concat")
    return concatSegments(n);
  n.fail("an input has a size that depends on data; of such groups of rows "
         "only Gather, MatMul with a matrix and Concat are supported");
}
