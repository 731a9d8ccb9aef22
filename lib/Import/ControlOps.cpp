//===- ControlOps.cpp - ONNX control flow that is known at import ---------===//

#include "NodeImporter.h"

using namespace mlir;
using namespace mlir::dshard;
using namespace mlir::dshard::onnx;

/// The branch that is taken, in place: the condition follows from shapes,
/// constants and --const. The other branch is not looked at.
void onnx::importIf(NodeImporter &n) {
  if (!n.expectInputs(1, 1))
    return;
  const pb::AttributeProto *branches[] = {n.find("else_branch"),
                                          n.find("then_branch")};
  Value condition = n.input(0);
  if (n.failed())
    return;
  auto known = n.knownInts(condition);
  if (!known || known->size() != 1)
    return n.fail("its condition " + quote(n.proto().input(0)) +
                  " is not known at compile time; if an input of the model "
                  "decides it, give that with --const NAME=VALUE");
  const pb::AttributeProto *taken = branches[known->front() != 0];
  if (!taken || !taken->has_g())
    return n.fail(Twine("has no ") +
                  (known->front() ? "then_branch" : "else_branch"));
  const pb::GraphProto &branch = taken->g();
  if (branch.output_size() != n.numOutputs())
    return n.fail("its branch gives " + Twine(branch.output_size()) +
                  " values for " + Twine(n.numOutputs()) + " outputs");
  if (!n.graph.addBranch(branch, n.describe()))
    return;
  for (int i = 0; i < n.numOutputs(); ++i)
    if (n.hasOutput(i))
      n.set(i, n.graph.lookup(branch.output(i).name()));
}
