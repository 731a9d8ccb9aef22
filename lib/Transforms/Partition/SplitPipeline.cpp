//===- SplitPipeline.cpp - Split the program into pipeline stages ---------===//

#include "dshard/Transforms/Partition/Passes.h"

namespace mlir::dshard {
#define GEN_PASS_DEF_SPLITPIPELINEPASS
#include "dshard/Transforms/Partition/Passes.h.inc"
} // namespace mlir::dshard

using namespace mlir;
using namespace mlir::dshard;

namespace {
struct SplitPipelinePass
    : mlir::dshard::impl::SplitPipelinePassBase<SplitPipelinePass> {
  void runOnOperation() override {
    MeshAttr mesh = getMesh(getOperation());
    if (!mesh || mesh.getAxisSize("pp") == 1)
      return;
    getOperation().emitError()
        << "mesh axis pp=" << mesh.getAxisSize("pp")
        << ": pipeline parallelism is not built yet; use tp";
    signalPassFailure();
  }
};
} // namespace
