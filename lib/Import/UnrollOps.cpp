//===- UnrollOps.cpp - ONNX loops whose count is known at import ----------===//
//
// A loop becomes its iterations, one behind the other.
//
//===----------------------------------------------------------------------===//

#include "NodeImporter.h"

using namespace mlir;
using namespace mlir::dshard;
using namespace mlir::dshard::onnx;

/// More are a program that nobody wants to compile.
static constexpr int64_t maxIterations = 1024;

/// What each iteration gave, joined along a new dim.
static Value stack(NodeImporter &n, ArrayRef<Value> values, int64_t axis,
                   bool reverse) {
  if (n.failed() || values.empty())
    return {};
  SmallVector<Value> rows(values);
  if (reverse)
    std::reverse(rows.begin(), rows.end());
  SmallVector<int64_t> shape(n.shape(rows.front()));
  axis = n.axis(axis, shape.size() + 1);
  for (Value &row : rows) {
    if (n.failed() || n.typeOf(row) != n.typeOf(values.front())) {
      n.fail("an output of its body has another type in another iteration");
      return {};
    }
    SmallVector<int64_t> wide(shape);
    wide.insert(wide.begin() + axis, 1);
    row = n.reshape(row, wide);
  }
  return n.concat(rows, axis);
}

static const pb::GraphProto *bodyOf(NodeImporter &n) {
  const pb::AttributeProto *body = n.find("body");
  if (!n.failed() && (!body || !body->has_g()))
    n.fail("has no body");
  return n.failed() ? nullptr : &body->g();
}

void onnx::importLoop(NodeImporter &n) {
  const pb::GraphProto *body = bodyOf(n);
  if (!body)
    return;
  int states = std::max(n.numInputs() - 2, 0);
  int scans = body->output_size() - 1 - states;
  if (body->input_size() != states + 2 || scans < 0 ||
      n.numOutputs() > states + scans)
    return n.fail("its body has " + Twine(body->input_size()) + " inputs and " +
                  Twine(body->output_size()) +
                  " outputs, which does not suit the node's " +
                  Twine(n.numInputs()) + " and " + Twine(n.numOutputs()));
  int64_t count = -1;
  bool goesOn = true;
  if (n.hasInput(0)) {
    std::vector<int64_t> given = n.staticInts(0, "M");
    count = given.size() == 1 ? given[0] : 0;
  }
  if (n.hasInput(1)) {
    std::vector<int64_t> given = n.staticInts(1, "cond");
    goesOn = given.size() == 1 && given[0] != 0;
  }
  if (n.failed())
    return;
  if (count > maxIterations)
    return n.fail("has " + Twine(count) + " iterations; at most " +
                  Twine(maxIterations) + " are unrolled");
  OpBuilder &builder = n.graph.builder();
  auto scalar = [&](Type element, int64_t value) {
    return n.constant(DenseElementsAttr::get(RankedTensorType::get({}, element),
                                             IntegerAttr::get(element, value)));
  };
  SmallVector<Value> carried;
  for (int i = 0; i < states; ++i) {
    if (!n.hasInput(2 + i))
      return n.fail("input " + Twine(2 + i) + " is missing");
    carried.push_back(n.input(2 + i));
  }
  std::vector<SmallVector<Value>> rows(scans);
  for (int64_t i = 0; goesOn && (count < 0 || i < count); ++i) {
    if (n.failed())
      return;
    if (i >= maxIterations)
      return n.fail("does not end within " + Twine(maxIterations) +
                    " iterations");
    SmallVector<Value> inputs = {scalar(builder.getI64Type(), i),
                                 scalar(builder.getI1Type(), 1)};
    llvm::append_range(inputs, carried);
    SmallVector<Value> outputs;
    if (!n.graph.addIteration(*body, n.describe(), inputs, outputs))
      return;
    auto next = n.knownInts(outputs[0]);
    if (!next || next->size() != 1)
      return n.fail("whether it goes on after iteration " + Twine(i) +
                    " is not known at compile time");
    goesOn = next->front() != 0;
    carried.assign(outputs.begin() + 1, outputs.begin() + 1 + states);
    for (int scan = 0; scan < scans; ++scan)
      rows[scan].push_back(outputs[1 + states + scan]);
  }
  for (int i = 0; i < states; ++i)
    n.set(i, carried[i]);
  for (int scan = 0; scan < scans; ++scan) {
    if (n.hasOutput(states + scan) && rows[scan].empty())
      return n.fail("has no iterations, so that output " +
                    Twine(states + scan) + " has no shape");
    n.set(states + scan, stack(n, rows[scan], 0, false));
  }
}

void onnx::importScan(NodeImporter &n) {
  const pb::GraphProto *body = bodyOf(n);
  if (!body)
    return;
  if (n.opset() < 9)
    return n.fail("is only supported from opset 9 on");
  int64_t scanned = n.intAttr("num_scan_inputs", 0);
  int64_t states = n.numInputs() - scanned,
          scans = body->output_size() - states;
  if (n.failed())
    return;
  if (scanned < 1 || states < 0 || scans < 0 ||
      body->input_size() != n.numInputs() || n.numOutputs() > states + scans)
    return n.fail("num_scan_inputs " + Twine(scanned) + " does not suit " +
                  Twine(n.numInputs()) + " inputs and its body");
  if (!n.expectInputs(n.numInputs(), n.numInputs()))
    return;
  auto list = [&](StringRef name, int64_t size) {
    std::vector<int64_t> values =
        n.intsAttr(name).value_or(std::vector<int64_t>(size, 0));
    if (static_cast<int64_t>(values.size()) != size)
      n.fail("attribute " + quote(name) + " has " + Twine(values.size()) +
             " entries; " + Twine(size) + " are needed");
    return values;
  };
  std::vector<int64_t> axes = list("scan_input_axes", scanned),
                       backwards = list("scan_input_directions", scanned),
                       outputAxes = list("scan_output_axes", scans),
                       outputBackwards = list("scan_output_directions", scans);
  if (n.failed())
    return;
  int64_t count = -1;
  for (int64_t i = 0; i < scanned; ++i) {
    Value x = n.input(states + i);
    axes[i] = n.axis(axes[i], n.rank(x));
    if (n.failed())
      return;
    int64_t size = n.shape(x)[axes[i]];
    if (count >= 0 && size != count)
      return n.fail("its inputs have " + Twine(count) + " and " + Twine(size) +
                    " steps");
    count = size;
  }
  if (count < 1 || count > maxIterations)
    return n.fail("has " + Twine(count) + " steps; 1 to " +
                  Twine(maxIterations) + " are unrolled");
  SmallVector<Value> carried;
  for (int64_t i = 0; i < states; ++i)
    carried.push_back(n.input(i));
  std::vector<SmallVector<Value>> rows(scans);
  for (int64_t step = 0; step < count; ++step) {
    SmallVector<Value> inputs(carried);
    for (int64_t i = 0; i < scanned; ++i) {
      Value x = n.input(states + i);
      SmallVector<int64_t> shape(n.shape(x));
      shape.erase(shape.begin() + axes[i]);
      int64_t at = backwards[i] ? count - 1 - step : step;
      inputs.push_back(n.reshape(n.part(x, axes[i], at, 1), shape));
    }
    SmallVector<Value> outputs;
    if (n.failed() ||
        !n.graph.addIteration(*body, n.describe(), inputs, outputs))
      return;
    carried.assign(outputs.begin(), outputs.begin() + states);
    for (int64_t scan = 0; scan < scans; ++scan)
      rows[scan].push_back(outputs[states + scan]);
  }
  for (int64_t i = 0; i < states; ++i)
    n.set(i, carried[i]);
  for (int64_t scan = 0; scan < scans; ++scan)
    n.set(states + scan,
          stack(n, rows[scan], outputAxes[scan], outputBackwards[scan] != 0));
}
