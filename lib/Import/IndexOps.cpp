//===- IndexOps.cpp - ONNX look-ups and counting --------------------------===//

#include "NodeImporter.h"

using namespace mlir;
using namespace mlir::dshard;
using namespace mlir::dshard::onnx;

void onnx::importGather(NodeImporter &n) {
  if (!n.expectInputs(2, 2))
    return;
  Value x = n.input(0), indices = n.input(1);
  int64_t axis = n.axis(n.intAttr("axis", 0), n.rank(x));
  if (n.failed())
    return;
  if (!isa<IntegerType>(n.elementOf(indices)))
    return n.fail("indices must be integers");
  int64_t size = n.shape(x)[axis];
  if (auto known = n.knownInts(indices))
    for (int64_t index : *known)
      if (index < -size || index >= size)
        return n.fail("index " + Twine(index) + " is out of range for dim " +
                      Twine(axis) + " of size " + Twine(size));
  if (axis == 0 && n.rank(indices) == 1)
    if (Value rows = unsortRows(n, x, indices))
      return n.set(0, rows);
  n.set(0, n.gather(x, indices, axis));
}

void onnx::importGatherNd(NodeImporter &n) {
  if (!n.expectInputs(2, 2))
    return;
  Value x = n.input(0), indices = n.input(1);
  int64_t batch = n.intAttr("batch_dims", 0);
  if (n.failed())
    return;
  if (!isa<IntegerType>(n.elementOf(indices)))
    return n.fail("indices must be integers");
  if (n.rank(indices) == 0 || batch < 0 || batch >= n.rank(indices) ||
      batch >= n.rank(x))
    return n.fail("batch_dims " + Twine(batch) + " does not suit inputs with " +
                  Twine(n.rank(x)) + " and " + Twine(n.rank(indices)) +
                  " dims");
  int64_t depth = n.shape(indices).back();
  if (depth < 1 || batch + depth > n.rank(x))
    return n.fail("index tuples of " + Twine(depth) + " numbers after " +
                  Twine(batch) + " batch dims do not suit an input with " +
                  Twine(n.rank(x)) + " dims");
  for (int64_t i = 0; i < batch; ++i)
    if (n.shape(x)[i] != n.shape(indices)[i])
      return n.fail("batch dim " + Twine(i) + " differs: " +
                    Twine(n.shape(x)[i]) + " != " + Twine(n.shape(indices)[i]));
  if (batch == 0 && depth == 1 && n.rank(indices) == 2)
    if (Value rows = unsortRows(n, x, indices))
      return n.set(0, rows);
  SmallVector<int64_t> shape(n.shape(indices).drop_back());
  llvm::append_range(shape, n.shape(x).drop_front(batch + depth));
  n.set(0, n.build<GatherNdOp>(n.type(shape, n.elementOf(x)), {x, indices},
                               n.attr("batch_dims", batch)));
}

void onnx::importRange(NodeImporter &n) {
  if (!n.expectInputs(3, 3))
    return;
  Value first = n.input(0);
  double numbers[3];
  for (int i = 0; i < 3; ++i) {
    auto known = n.knownScalar(n.input(i));
    if (n.failed())
      return;
    if (!known)
      return importSegmentRange(n);
    numbers[i] = *known;
  }
  auto [start, limit, delta] = numbers;
  if (delta == 0)
    return n.fail("delta is 0");
  double count = std::max(0.0, std::ceil((limit - start) / delta));
  if (!(count < 1e15))
    return n.fail("has too many elements");
  n.set(0, n.iota({static_cast<int64_t>(count)}, n.elementOf(first), 0, start,
                  delta));
}
