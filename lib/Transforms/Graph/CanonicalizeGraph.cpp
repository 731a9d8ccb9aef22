//===- CanonicalizeGraph.cpp - Fold reshapes and transposes ---------------===//

#include "Match.h"
#include "dshard/Transforms/Graph/Passes.h"
#include "mlir/Transforms/GreedyPatternRewriteDriver.h"

namespace mlir::dshard {
#define GEN_PASS_DEF_CANONICALIZEGRAPHPASS
#include "dshard/Transforms/Graph/Passes.h.inc"
} // namespace mlir::dshard

using namespace mlir;
using namespace mlir::dshard;

namespace {
struct CanonicalizeGraphPass
    : mlir::dshard::impl::CanonicalizeGraphPassBase<CanonicalizeGraphPass> {
  void runOnOperation() override {
    // Folders alone: there are no patterns.
    GreedyRewriteConfig config;
    config.enableConstantCSE(false);
    if (failed(applyPatternsGreedily(
            getOperation(), RewritePatternSet(&getContext()), config))) {
      getOperation().emitError() << "folding does not come to an end";
      return signalPassFailure();
    }
    eraseDeadOps(getOperation());
  }
};
} // namespace
