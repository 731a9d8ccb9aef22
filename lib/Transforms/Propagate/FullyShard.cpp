//===- FullyShard.cpp - Decide the storage sharding of parameters ---------===//

#include "dshard/Transforms/Propagate/Passes.h"

namespace mlir::dshard {
#define GEN_PASS_DEF_FULLYSHARDPASS
#include "dshard/Transforms/Propagate/Passes.h.inc"
} // namespace mlir::dshard

using namespace mlir;
using namespace mlir::dshard;

namespace {
struct FullyShardPass : mlir::dshard::impl::FullyShardPassBase<FullyShardPass> {
  void runOnOperation() override {
    MeshAttr mesh = getMesh(getOperation());
    if (!mesh)
      return;
    static constexpr std::pair<llvm::StringLiteral, llvm::StringLiteral>
        missing[] = {{"dp_replicate", "replicated data"},
                     {"dp_shard", "fully-sharded data"},
                     {"cp", "context"}};
    for (const auto &[axis, what] : missing)
      if (mesh.getAxisSize(axis) > 1) {
        getOperation().emitError()
            << "mesh axis " << axis << "=" << mesh.getAxisSize(axis) << ": "
            << what << " parallelism is not built yet; use tp";
        return signalPassFailure();
      }
  }
};
} // namespace
