//===- Decompose.cpp - Replace ops by simpler ones ------------------------===//

#include "Match.h"
#include "dshard/Transforms/Graph/Passes.h"

namespace mlir::dshard {
#define GEN_PASS_DEF_DECOMPOSEPASS
#include "dshard/Transforms/Graph/Passes.h.inc"
} // namespace mlir::dshard

using namespace mlir;
using namespace mlir::dshard;

namespace {
struct DecomposePass : mlir::dshard::impl::DecomposePassBase<DecomposePass> {
  using DecomposePassBase::DecomposePassBase;

  void runOnOperation() override {
    SmallVector<DecomposeInterface> found;
    getOperation().walk([&](DecomposeInterface op) {
      StringRef mnemonic = op->getName().stripDialect();
      if (ops.empty() || llvm::is_contained(ops, mnemonic))
        found.push_back(op);
    });
    for (DecomposeInterface op : found) {
      OpBuilder builder(op);
      SmallVector<Value> results;
      if (failed(op.decompose(builder, op->getOperands(), results)))
        continue; // a primitive op
      op->replaceAllUsesWith(results);
      op->erase();
    }
    eraseDeadOps(getOperation());
  }
};
} // namespace
